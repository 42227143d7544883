package echo4auth

import (
	"net/http"
	"reflect"
	"slices"
	"unsafe"

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
//
// A request whose method or path is not that by which echo has found its route is refused
// for everybody, since the route that runs is another's. So change them in e.Pre alone, as
// MethodOverride says, and not behind a middleware that calls c.SetRequest: echo looks for
// the route of the request as it came in.
func Routes(guard *m2mauth.Guard, e *echo.Echo, rules map[string]m2mauth.Rule, public ...string) error {
	table, routes := routetable.New(guard, rules, public...), routesOf(e)
	known := make(map[routetable.Route]bool)
	for _, r := range routes {
		known[r] = true
	}
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			route := routetable.Route{Method: c.Request().Method, Path: c.Path()}
			rule, open := table.Rule(route)
			switch {
			case answersItself(c.Handler()):
				return next(c)
			case !isOfItsMethod(e, c): // whose rule it is cannot be told
				rule, open = m2mauth.Rule{}, false
			case !known[route] && !slices.Contains(routesOf(e), route) && isNotFound(e, route.Path):
				return next(c)
			}
			if open {
				return next(c)
			}
			return check(c, guard, rule, next)
		}
	})
	return table.Validate(routes...)
}

// isOfItsMethod reports whether the route that runs is the one of the request's method. echo says
// of which path it is, and not of which method, so it is asked for that method's once more.
func isOfItsMethod(e *echo.Echo, c echo.Context) bool {
	again := e.AcquireContext()
	defer e.ReleaseContext(again)
	again.Reset(c.Request(), nil)
	finds := func(router *echo.Router) bool {
		router.Find(c.Request().Method, echo.GetPath(c.Request()), again)
		return again.Path() == c.Path() && again.Handler() != nil && same(again.Handler(), c.Handler())
	}
	if finds(e.Router()) {
		return true
	}
	for _, router := range e.Routers() { // which of them it was, echo does not say either
		if finds(router) {
			return true
		}
	}
	return false
}

// same reports whether both are one closure: echo makes one for each route, all of the same
// code, which is all that package reflect tells of a function.
func same(a, b echo.HandlerFunc) bool {
	return *(*unsafe.Pointer)(unsafe.Pointer(&a)) == *(*unsafe.Pointer)(unsafe.Pointer(&b))
}

// options is echo's answer to OPTIONS of a path that has no such route.
var options = func() uintptr {
	e := echo.New()
	e.GET("/", echo.NotFoundHandler)
	c := e.NewContext(nil, nil)
	e.Router().Find(http.MethodOptions, "/", c)
	return reflect.ValueOf(c.Handler()).Pointer()
}()

// answersItself reports whether a handler is one of echo's own, for 404 and 405. All
// handlers of routes are of one function of echo's, which none of these is.
func answersItself(h echo.HandlerFunc) bool {
	at := reflect.ValueOf(h).Pointer()
	return at == reflect.ValueOf(echo.NotFoundHandler).Pointer() || at == reflect.ValueOf(echo.MethodNotAllowedHandler).Pointer() || at == options
}

// isNotFound reports whether e.RouteNotFound has a handler for the path.
func isNotFound(e *echo.Echo, path string) bool {
	has := func(router *echo.Router) bool {
		return slices.ContainsFunc(router.Routes(), func(r *echo.Route) bool { return r.Method == echo.RouteNotFound && r.Path == path })
	}
	if has(e.Router()) {
		return true
	}
	for _, router := range e.Routers() {
		if has(router) {
			return true
		}
	}
	return false
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
