package echoauth

import (
	"strings"

	"github.com/labstack/echo/v5"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/routetable"
)

// Routes puts a table of rules in front of an Echo's routes, so that none is forgotten. Call
// it when all of them have been added:
//
//	err := echoauth.Routes(guard, e, map[string]m2mauth.Rule{
//		"GET /products":      m2mauth.AllScopes("read:products"),
//		"/orgs/:org/members": m2mauth.OrganizationPath("org"), // all methods
//	}, "GET /healthz")
//
// The error names every mistake at once: each route without an entry, each entry without
// a route, and what [m2mauth.Guard.ValidateRule] has against a rule. Beside it the table
// holds all the same, and a route without an entry, or with one that is a mistake, is
// refused for everybody, as by the zero Rule.
//
// A key is a method and a path as e.Router().Routes lists them. One without a method holds
// for e.Any, and for all routes of that path that have no entry of their own. Nothing else
// is inherited. A route that is added later and has no entry is refused. The check comes
// after the middlewares that e.Use had before, such as CORS, and before a route's own.
// What no route matches is echo's own to answer, e.RouteNotFound included.
func Routes(guard *m2mauth.Guard, e *echo.Echo, rules map[string]m2mauth.Rule, public ...string) error {
	table := routetable.New(guard, rules, public...)
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			info := c.RouteInfo()
			notFound := info.Method == "" && (info.Name == echo.NotFoundRouteName || info.Name == echo.MethodNotAllowedRouteName)
			if rule, open := table.Rule(routeOf(info)); !open && !notFound && info.Method != echo.RouteNotFound {
				return check(c, guard, rule, next)
			}
			return next(c)
		}
	})
	var routes []routetable.Route
	for _, info := range e.Router().Routes() {
		if info.Method != echo.RouteNotFound {
			routes = append(routes, routeOf(info))
		}
	}
	return table.Validate(routes...)
}

func routeOf(info echo.RouteInfo) routetable.Route {
	r := routetable.Route{Method: info.Method, Path: info.Path}
	if r.Method == echo.RouteAny {
		r.Method = ""
	}
	if !strings.HasPrefix(r.Path, "/") { // echo adds it where it looks for routes
		r.Path = "/" + r.Path
	}
	return r
}
