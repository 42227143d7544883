package m2mauth

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

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
	table := &routeTable{guard: g, mux: mux, routes: make(map[string]*route), logged: make(map[string]bool)}
	var mistakes []error
	add := func(pattern string, route *route) {
		key := routeKey(pattern)
		err := route.register(pattern)
		switch other := table.routes[key]; {
		case err != nil:
		case other == nil:
			table.routes[key] = route
		case other.public != route.public:
			err = errors.New("it has a rule and is public")
		default:
			err = errors.New("it comes twice")
		}
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
		add(pattern, &route{table: table, rule: rules[pattern]})
		if mistake := g.mistakeIn(rules[pattern]); mistake != "" && g.ready() {
			mistakes = append(mistakes, fmt.Errorf("m2mauth: Routes: %q: %s", pattern, mistake))
		}
	}
	for _, pattern := range public {
		add(pattern, &route{table: table, public: true})
	}
	if len(mistakes) > 0 {
		err := errors.Join(mistakes...)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.WriteError(w, r, err) }), err
	}
	return table, nil
}

// routeTable is the handler that Routes returns.
type routeTable struct {
	guard  *Guard
	mux    *http.ServeMux
	routes map[string]*route // by routeKey

	mu     sync.Mutex // guards the field below
	logged map[string]bool
}

// route says how to handle the requests of a pattern.
type route struct {
	table    *routeTable
	rule     Rule
	public   bool
	unlisted bool
	alone    http.ServeMux // has only this pattern
}

// routed carries the handler that the mux found through the route's own mux.
type routed struct {
	http.ResponseWriter
	handler http.Handler
	pattern string
}

// routeKey returns a pattern with a single space after its method.
func routeKey(pattern string) string {
	method, path := splitPattern(pattern)
	if method == "" {
		return path
	}
	return method + " " + path
}

func splitPattern(pattern string) (method, path string) {
	if i := strings.IndexAny(pattern, " \t"); i >= 0 {
		return pattern[:i], strings.TrimLeft(pattern[i:], " \t")
	}
	return "", pattern
}

// register lets net/http decide whether the pattern is valid.
func (r *route) register(pattern string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("not a net/http pattern: %v", v)
		}
	}()
	r.alone.Handle(pattern, r)
	return nil
}

// ServeHTTP asks the mux for the handler and its pattern, and runs only that handler,
// so that the checked rule always belongs to the handler. Rules need path values, which
// are set only when a mux serves. So the request goes through a mux with just this
// pattern. That mux sets them, or responds with the redirect for which the first mux
// returned the pattern.
func (t *routeTable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.RequestURI == "*" {
		new(http.ServeMux).ServeHTTP(w, r) // no mux has a pattern for it
		return
	}
	handler, pattern := t.mux.Handler(r)
	if pattern == "" {
		handler.ServeHTTP(w, r)
		return
	}
	t.routeOf(pattern).alone.ServeHTTP(&routed{w, handler, pattern}, r)
}

func (t *routeTable) routeOf(pattern string) *route {
	if found := t.routes[routeKey(pattern)]; found != nil {
		return found
	}
	if method, path := splitPattern(pattern); method != "" && t.routes[path] != nil {
		return t.routes[path]
	}
	unlisted := &route{table: t, unlisted: true}
	_ = unlisted.register(pattern) // for a redirect of CONNECT, the mux returns a path that may be no valid pattern: 404
	return unlisted
}

// ServeHTTP is called by the route's own mux when the pattern matches.
func (r *route) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	found := w.(*routed)
	request.Pattern = found.pattern
	switch {
	case r.public:
		found.handler.ServeHTTP(found.ResponseWriter, request)
		return
	case r.unlisted:
		r.table.logUnlisted(request, found.pattern)
	}
	r.table.guard.serve(found.ResponseWriter, request, r.rule, found.handler)
}

// maxLoggedPatterns limits the memory, whatever the mux contains.
const maxLoggedPatterns = 1000

// logUnlisted logs this mistake in the program once per pattern.
func (t *routeTable) logUnlisted(r *http.Request, pattern string) {
	t.mu.Lock()
	logged := t.logged[pattern] || len(t.logged) >= maxLoggedPatterns
	if !logged {
		t.logged[pattern] = true
	}
	t.mu.Unlock()
	if !logged {
		t.guard.refusals.logger().ErrorContext(r.Context(),
			"m2mauth: a pattern has no entry in the table of Guard.Routes", "pattern", pattern)
	}
}
