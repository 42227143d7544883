// Package before checks tokens with echo-jwt, and gets the keys by keyfunc.
package before

import (
	"context"
	"net/http"
	"strings"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	echojwt "github.com/labstack/echo-jwt/v4"
	"github.com/labstack/echo/v4"
)

type claims struct {
	Scope string `json:"scope"`
	jwt.RegisteredClaims
}

// API returns the API. The keys are refreshed until ctx ends.
func API(ctx context.Context, issuer, _ string) (http.Handler, error) {
	keys, err := keyfunc.NewDefaultCtx(ctx, []string{issuer + "/jwks"})
	if err != nil {
		return nil, err
	}
	verified := echojwt.WithConfig(echojwt.Config{
		KeyFunc:       keys.Keyfunc,
		NewClaimsFunc: func(echo.Context) jwt.Claims { return new(claims) },
	})
	e := echo.New()
	e.GET("/products", list, verified, scoped("read:products"))
	e.POST("/products", create, verified, scoped("write:products"))
	return e, nil
}

func scoped(scope string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if !strings.Contains(callerOf(c).Scope, scope) {
				return echo.NewHTTPError(http.StatusForbidden, "the token lacks the scope "+scope)
			}
			return next(c)
		}
	}
}

func callerOf(c echo.Context) *claims { return c.Get("user").(*jwt.Token).Claims.(*claims) }

func list(c echo.Context) error {
	return c.String(http.StatusOK, "products for "+callerOf(c).Subject+"\n")
}

func create(c echo.Context) error {
	return c.String(http.StatusCreated, "created by "+callerOf(c).Subject+"\n")
}
