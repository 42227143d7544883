package m2mauth

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/m2mauth/m2mauth/internal/muxtable"
	"github.com/m2mauth/m2mauth/internal/tally"
)

// maxLoggedPatterns limits the memory, whatever the mux contains.
const maxLoggedPatterns = 1000

// Routes puts a table of rules in front of a mux, so that no route is forgotten. A
// pattern without an entry rejects every request, like the zero Rule (401 without a
// valid token, 403 with one), and is logged once at Error.
//
// The key of an entry is a pattern as in the call of mux.Handle ("GET /products", "GET
// /orgs/{org}/", "api.example.com/products"). A key without a method also applies to
// all patterns with the same host and path and a method, unless they have their own
// entry. Nothing else is inherited: "/products" does not cover "/products/{id}" or
// "/products/", and "/{org}" does not cover "/{id}". Patterns in public are open to
// everyone, and their requests' tokens are not read.
//
// A request that matches no pattern gets the mux's own response, including redirects
// and 405. A handler that is itself a mux counts as one pattern: give it its own table.
//
// The error lists every mistake in the table at once: a key that is not a valid
// pattern, a pattern that occurs twice or is also public, and the errors of
// [Guard.ValidateRule]. A ServeMux does not list its patterns, so an entry that matches
// none of them is not detected. With an error, the returned handler rejects every
// request with 500.
func (g *Guard) Routes(mux *http.ServeMux, rules map[string]Rule, public ...string) (http.Handler, error) {
	logged := tally.Once{Max: maxLoggedPatterns}
	table := muxtable.New(mux, func(w http.ResponseWriter, r *http.Request, found http.Handler) {
		if logged.First(r.Pattern) {
			g.refusals.logger().ErrorContext(r.Context(), "m2mauth: a pattern has no entry in the table of Guard.Routes", "pattern", r.Pattern)
		}
		g.serve(w, r, &Rule{}, found)
	})
	var mistakes []error
	check := func(pattern string, err error) {
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("m2mauth: Routes: %q: %w", pattern, err))
		}
	}
	switch {
	case !g.ready():
		mistakes = append(mistakes, errors.New("m2mauth: Routes: "+g.mistakeIn(Rule{})))
	case mux == nil:
		mistakes = append(mistakes, errors.New("m2mauth: Routes: the mux is nil"))
	}
	for _, pattern := range slices.Sorted(maps.Keys(rules)) {
		rule := rules[pattern]
		check(pattern, table.Add(pattern, func(w http.ResponseWriter, r *http.Request, found http.Handler) { g.serve(w, r, &rule, found) }))
		if mistake := g.mistakeIn(rule); mistake != "" && g.ready() {
			mistakes = append(mistakes, fmt.Errorf("m2mauth: Routes: %q: %s", pattern, mistake))
		}
	}
	for _, pattern := range public {
		check(pattern, table.AddPublic(pattern))
	}
	if len(mistakes) > 0 {
		err := errors.Join(mistakes...)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.WriteError(w, r, err) }), err
	}
	return table, nil
}
