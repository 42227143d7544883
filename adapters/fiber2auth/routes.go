package fiber2auth

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gofiber/fiber/v2"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/routetable"
)

// Routes puts a table of rules in front of an app's routes, so that none is forgotten. Call
// it when all of them have been registered:
//
//	err := fiber2auth.Routes(guard, app, map[string]m2mauth.Rule{
//		"GET /products":      m2mauth.AllScopes("read:products"),
//		"/orgs/:org/members": m2mauth.OrganizationPath("org"), // all methods
//	}, "GET /healthz")
//
// The error names every mistake at once: each route without an entry, each entry without
// a route, and what [m2mauth.Guard.ValidateRule] has against a rule. Beside it the table
// holds all the same, and a route without an entry, or with one that is a mistake, is
// refused for everybody, as by the zero Rule.
//
// A key is a method and a path as app.GetRoutes lists them. One without a method holds
// for app.All, and for all routes of that path that have no entry of their own. An entry
// for GET holds for HEAD too, which fiber adds to each GET, unless HEAD has its own.
// Nothing else is inherited. Each rule is checked where its route's handlers begin, after
// the middlewares of app.Use and groups. Apps that are mounted count as their routes.
// Whatever is registered later panics.
//
// What app.Use serves by itself, such as files, is no route for fiber: no rule guards
// it, and the table does not miss it. Put [RequireRule] in front of it.
func Routes(guard *m2mauth.Guard, app *fiber.App, rules map[string]m2mauth.Rule, public ...string) error {
	table := routetable.New(guard, rules, public...)
	app.Handler() // mounts apps
	var routes []routetable.Route
	listed := app.GetRoutes(true) // in the order of the stack, without those of app.Use
	for _, stack := range app.Stack() {
		for _, route := range stack {
			if len(listed) == 0 || !same(listed[0], *route) {
				continue
			}
			listed = listed[1:]
			key := routetable.Route{Method: route.Method, Path: route.Path}
			if key.Method == fiber.MethodHead && !table.Has(key) {
				key.Method = fiber.MethodGet
			}
			routes = append(routes, key)
			if rule, open := table.Rule(key); !open {
				route.Handlers = slices.Concat([]fiber.Handler{func(c *fiber.Ctx) error { return check(c, guard, rule) }}, route.Handlers)
			}
		}
	}
	app.Hooks().OnRoute(func(r fiber.Route) error {
		return fmt.Errorf("fiber2auth: %s %s is registered after Routes, which knows nothing of it: call Routes last", r.Method, r.Path)
	})
	var unknown error
	if len(listed) > 0 {
		unknown = errors.New("fiber2auth: Routes: this version of fiber lists its routes in another order: give each route its rule with RequireRule")
	}
	return errors.Join(table.Validate(routes...), unknown)
}

func same(a, b fiber.Route) bool {
	return a.Method == b.Method && a.Path == b.Path && len(a.Handlers) == len(b.Handlers) &&
		(len(a.Handlers) == 0 || &a.Handlers[0] == &b.Handlers[0])
}
