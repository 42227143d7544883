package main

import (
	"net/http"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/routetable"
)

// protect is a recipe: it puts a table of rules in front of a chi router's routes, so that
// none is forgotten. Its error names each route without an entry, and each entry without a
// route. It serves those routes alone that chi.Walk lists, and each behind its rule: what
// the table does not know is not found. A rule is checked after
// the router's own middlewares, such as CORS, and before all others.
//
// A key is a method and a path as chi.Walk has them, without a slash at its end: "GET
// /orgs/{org}/products". A path alone holds for all its methods that have no entry.
//
// What it does not keep: MethodNotAllowed, and NotFound of inner routers. A handler that is
// no chi router is found at /mounted/ and below, not at /mounted.
func protect(guard *m2mauth.Guard, router *chi.Mux, rules map[string]m2mauth.Rule, public ...string) (http.Handler, error) {
	table := routetable.New(guard, rules, public...)
	guarded := chi.NewRouter()
	guarded.Use(router.Middlewares()...)
	guarded.NotFound(router.NotFoundHandler())

	var routes []routetable.Route
	handlers := make(map[routetable.Route]http.Handler) // by the path as it is served
	err := chi.Walk(router, func(method, path string, handler http.Handler, middlewares ...func(http.Handler) http.Handler) error {
		route := routetable.Route{Method: method, Path: withoutSlash(path)}
		routes = append(routes, route)
		rule, open := table.Rule(route)
		inner := slices.Clone(middlewares[len(router.Middlewares()):])
		if !open && guard.ValidateRule(rule) == nil { // else Validate has a mistake
			inner = slices.Insert(inner, 0, guard.RequireRule(rule))
		}
		handlers[routetable.Route{Method: method, Path: path}] = chi.Chain(inner...).Handler(handler)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := table.Validate(routes...); err != nil {
		return nil, err
	}
	for route, handler := range handlers {
		guarded.Method(route.Method, route.Path, handler)
		short := routetable.Route{Method: route.Method, Path: withoutSlash(route.Path)}
		if _, ok := handlers[short]; !ok { // the "/" of a mounted router is served without the slash too
			guarded.Method(short.Method, short.Path, handler)
		}
	}
	return guarded, nil
}

// withoutSlash returns the path without a slash at its end.
func withoutSlash(path string) string {
	if path == "/" {
		return path
	}
	return strings.TrimSuffix(path, "/")
}
