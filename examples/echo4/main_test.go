package main

import (
	"net/http"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/contract"
	"github.com/m2mauth/m2mauth/m2mauthtest/adaptertest"
)

func TestContract(t *testing.T) { contract.Test(t, routes) }

func TestSuite(t *testing.T) {
	adaptertest.TestAdapter(t, adaptertest.Adapter[echo.MiddlewareFunc]{
		Package:   "m2mauth",
		Framework: "echo v4",
		Require: func(guard *m2mauth.Guard, scopes ...string) echo.MiddlewareFunc {
			return echo.WrapMiddleware(guard.Require(scopes...))
		},
		RequireAny: func(guard *m2mauth.Guard, scopes ...string) echo.MiddlewareFunc {
			return echo.WrapMiddleware(guard.RequireAny(scopes...))
		},
		RequireRule: func(guard *m2mauth.Guard, rule m2mauth.Rule) echo.MiddlewareFunc {
			return echo.WrapMiddleware(guard.RequireRule(rule))
		},
		Authenticate: func(guard *m2mauth.Guard) echo.MiddlewareFunc {
			return echo.WrapMiddleware(guard.Authenticate)
		},
		Mount: mount,
	})
}

func mount(groups []adaptertest.Group[echo.MiddlewareFunc]) http.Handler {
	e := echo.New()
	e.Use(
		middleware.RecoverWithConfig(middleware.RecoverConfig{DisablePrintStack: true}),
		middleware.CORSWithConfig(middleware.CORSConfig{
			AllowOrigins: []string{"https://app.test"},
			AllowMethods: []string{http.MethodGet},
			AllowHeaders: []string{echo.HeaderAuthorization},
		}),
	)
	for _, g := range groups {
		group := e.Group(g.Prefix, g.Middlewares...)
		for _, route := range g.Routes {
			group.Add(route.Method, route.ColonPath(), func(c echo.Context) error {
				ctx := c.Request().Context()
				return c.JSON(route.Handle(ctx, func() (m2mauth.Claims, bool) { return m2mauth.FromContext(c.Request().Context()) }))
			}, route.Middlewares...)
		}
	}
	return e
}
