package echo4auth

import (
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/routetable"
)

// Routes puts a table of rules in front of an Echo's routes, so that none is forgotten. Call
// it when all of them have been added:
//
//	err := echo4auth.Routes(guard, e, map[string]m2mauth.Rule{
//		"GET /products":      m2mauth.AllScopes("read:products"),
//		"/orgs/:org/members": m2mauth.OrganizationPath("org"), // all methods
//	}, "GET /healthz")
//
// The error names every mistake at once: each route without an entry, each entry without
// a route, and what [m2mauth.Guard.ValidateRule] has against a rule. Beside it the table
// holds all the same, and a route without an entry, or with one that is a mistake, is
// refused for everybody, as by the zero Rule.
//
// A key is a method and a path as e.Routes lists them. One without a method holds for all
// routes of that path that have no entry of their own, as those of e.Any. Nothing else is
// inherited. An entry holds for that path of every e.Host. A route that is added later and
// has no entry is refused. The check comes after the middlewares that e.Use had before,
// such as CORS, and before a route's own. What no route matches is echo's own to answer,
// e.RouteNotFound included.
func Routes(guard *m2mauth.Guard, e *echo.Echo, rules map[string]m2mauth.Rule, public ...string) error {
	table, routes := routetable.New(guard, rules, public...), routesOf(e)
	known := make(map[routetable.Route]bool)
	for _, r := range routes {
		known[r] = true
	}
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			// c.Path is also set where another method has a route, and echo answers 405.
			route := routetable.Route{Method: c.Request().Method, Path: c.Path()}
			if known[route] || route.Path != "" && slices.Contains(routesOf(e), route) {
				if rule, open := table.Rule(route); !open {
					return check(c, guard, rule, next)
				}
			}
			return next(c)
		}
	})
	return table.Validate(routes...)
}

func routesOf(e *echo.Echo) (routes []routetable.Route) {
	add := func(router *echo.Router) {
		for _, r := range router.Routes() {
			if r.Method != echo.RouteNotFound {
				routes = append(routes, routetable.Route{Method: r.Method, Path: r.Path})
			}
		}
	}
	add(e.Router())
	for _, router := range e.Routers() {
		add(router)
	}
	return routes
}
