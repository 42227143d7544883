package ginauth

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gin-gonic/gin"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/routetable"
)

// Routes puts a table of rules in front of a router's routes, so that none is forgotten:
//
//	router := gin.New()
//	router.Use(gin.Recovery())
//	validate := ginauth.Routes(guard, router, map[string]m2mauth.Rule{
//		"GET /products":      m2mauth.AllScopes("read:products"),
//		"/orgs/:org/members": m2mauth.OrganizationPath("org"), // all methods
//	}, "GET /healthz")
//	… // groups and routes
//	if err := validate(); err != nil { … }
//
// Call it before any group or route is made, since gin puts middlewares in front of later
// ones alone, and validate after the last. Its error names every mistake at once: each
// route without an entry, each entry without a route, each route that was made too early,
// and what [m2mauth.Guard.ValidateRule] has against a rule. Until it has returned nil,
// every route is refused with 500.
//
// A key is a method and a path as gin's router.Routes lists them. One without a method
// holds for all routes of that path that have no entry of their own. Nothing else is
// inherited. \: in a path is the same as a colon, as gin has it once it serves. A route that is made later and has no entry is refused for everybody, as by
// the zero Rule. What no route matches is gin's own to answer: NoRoute and NoMethod,
// which no rule guards, and redirects. A request whose method a middleware has changed is
// refused for everybody, unless that called router.HandleContext, as gin would run the
// route of the first method.
func Routes(guard *m2mauth.Guard, router *gin.Engine, rules map[string]m2mauth.Rule, public ...string) (validate func() error) {
	table := routetable.New(guard, unescaped(rules), unescapedAll(public)...)
	var valid atomic.Bool
	middleware := func(c *gin.Context) {
		if c.FullPath() == "" { // no route
			return
		}
		rule, open := table.Rule(routeOf(c.Request.Method, c.FullPath()))
		if c.GetString(methodKey) != c.Request.Method { // the route that runs is the first method's
			rule, open = m2mauth.Rule{}, false
		}
		switch {
		case !valid.Load():
			c.Abort()
			guard.WriteError(c.Writer, c.Request, errors.New("ginauth: what Routes returned was not called, or its error was ignored"))
		case !open:
			check(c, guard, rule)
		}
	}
	first := func(c *gin.Context) { c.Set(methodKey, c.Request.Method) }
	router.Handlers = slices.Concat(gin.HandlersChain{first}, router.Handlers)
	router.Use(middleware)
	return func() error {
		var routes []routetable.Route
		for _, r := range router.Routes() {
			routes = append(routes, routeOf(r.Method, r.Path))
		}
		err := errors.Join(table.Validate(routes...), madeTooEarly(router, table, middleware))
		valid.Store(err == nil)
		return err
	}
}

// methodKey is where the method is kept by which gin has found the route.
const methodKey = "ginauth.method"

// routeOf is a route under the one name for it: when gin begins to serve, it replaces the
// \: of a path that has a colon by the colon.
func routeOf(method, path string) routetable.Route {
	return routetable.Route{Method: method, Path: unescape(path)}
}

func unescape(path string) string { return strings.ReplaceAll(path, `\:`, ":") }

// unescaped leaves a key alone that would become another one, so that it matches no route.
func unescaped(rules map[string]m2mauth.Rule) map[string]m2mauth.Rule {
	named := make(map[string]m2mauth.Rule, len(rules))
	for key, rule := range rules {
		if _, taken := rules[unescape(key)]; !taken {
			named[unescape(key)] = rule
		} else {
			named[key] = rule
		}
	}
	return named
}

func unescapedAll(keys []string) []string {
	named := make([]string, len(keys))
	for i, key := range keys {
		named[i] = unescape(key)
	}
	return named
}

// madeTooEarly finds routes that do not have the middleware, also in a group that was made
// before it, and are not public. gin shows the handlers of a route to none but the route's own.
func madeTooEarly(router *gin.Engine, table *routetable.Table, middleware gin.HandlerFunc) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("ginauth: Routes: this version of gin hides whether a route was made too early (%v): give each route its rule with RequireRule", v)
		}
	}()
	var mistakes []error
	var walk func(method, path string, node reflect.Value)
	walk = func(method, path string, node reflect.Value) {
		path += node.FieldByName("path").String()
		handlers := node.FieldByName("handlers")
		guarded := handlers.Len() == 0
		for i := range handlers.Len() {
			guarded = guarded || handlers.Index(i).Pointer() == reflect.ValueOf(middleware).Pointer()
		}
		route := routeOf(method, path)
		if _, public := table.Rule(route); !guarded && !public {
			mistakes = append(mistakes, fmt.Errorf("ginauth: Routes: %q was made, or its group was, before Routes was called, so that it is open", route))
		}
		for i := range node.FieldByName("children").Len() {
			walk(method, path, node.FieldByName("children").Index(i).Elem())
		}
	}
	trees := reflect.ValueOf(router).Elem().FieldByName("trees")
	for i := range trees.Len() {
		walk(trees.Index(i).FieldByName("method").String(), "", trees.Index(i).FieldByName("root").Elem())
	}
	return errors.Join(mistakes...)
}
