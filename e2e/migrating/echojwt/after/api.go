// Package after checks tokens with m2mauth.
package after

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/echo4auth"
)

// Guard returns the guard of the API.
func Guard(issuer, audience string) (*m2mauth.Guard, error) {
	return m2mauth.New(m2mauth.Config{Issuer: issuer, Audience: audience})
}

// API returns the API.
func API(guard *m2mauth.Guard) http.Handler {
	e := echo.New()
	e.GET("/products", list, echo4auth.Require(guard, "read:products"))
	e.POST("/products", create, echo4auth.Require(guard, "write:products"))
	return e
}

func list(c echo.Context) error {
	claims, _ := echo4auth.Claims(c)
	return c.String(http.StatusOK, "products for "+claims.Subject()+"\n")
}

func create(c echo.Context) error {
	claims, _ := echo4auth.Claims(c)
	return c.String(http.StatusCreated, "created by "+claims.Subject()+"\n")
}
