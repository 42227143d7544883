package echoauth_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/labstack/echo/v5"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/echoauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// A public route, and two that require a scope.
func Example() {
	issuer := m2mauthtest.NewIssuer() // in production: Config.Issuer and Config.Audience
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}

	e := echo.New()
	e.GET("/healthz", func(c *echo.Context) error { return c.NoContent(http.StatusOK) })
	e.GET("/products", func(c *echo.Context) error {
		claims, _ := echoauth.Claims(c)
		fmt.Println("list products, app:", claims.AppID())
		return c.NoContent(http.StatusOK)
	}, echoauth.Require(guard, "read:products"))
	e.POST("/products", func(c *echo.Context) error {
		return c.NoContent(http.StatusCreated)
	}, echoauth.Require(guard, "write:products"))

	call := func(method, path, token string) {
		r := httptest.NewRequest(method, path, nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		fmt.Println(method, path, w.Code)
	}
	call("GET", "/healthz", "")
	call("GET", "/products", "")
	call("GET", "/products", issuer.Sign(m2mauthtest.Token{
		AppID:    "my-app",
		Audience: "https://shopping.api",
		Scopes:   []string{"read:products"},
	}))
	call("POST", "/products", issuer.Token("https://shopping.api", "read:products"))
	// Output:
	// GET /healthz 200
	// GET /products 401
	// list products, app: my-app
	// GET /products 200
	// POST /products 403
}
