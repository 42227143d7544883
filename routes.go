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

// Routes puts a table of rules in front of a mux, so that no route is forgotten: a
// pattern without an entry is refused for everybody, as by the zero Rule (401 without a
// valid token, 403 with one), and logged once at Error.
//
// An entry's key is a pattern as it stands in the call of mux.Handle ("GET /products",
// "GET /orgs/{org}/", "api.example.com/products"). One without a method also holds for
// all patterns of that host and path with a method that have no entry of their own.
// Nothing else is inherited: "/products" says nothing of "/products/{id}" or
// "/products/", and "/{org}" nothing of "/{id}". Patterns in public are open to
// everybody, and no token is looked at.
//
// What no pattern matches gets the mux's own response, redirects and 405 included.
// A handler that is itself a mux is one pattern: give it a table of its own.
//
// The error names every mistake in the table at once: a key that cannot be a pattern,
// a pattern that comes twice or is public too, and what [Guard.ValidateRule] has against
// a rule. A ServeMux does not list its patterns: an entry that none matches is not
// found. Beside an error the handler refuses every request with 500.
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

// route is what becomes of the requests of a pattern.
type route struct {
	table    *routeTable
	rule     Rule
	public   bool
	unlisted bool
	alone    http.ServeMux // has this pattern and no other
}

// routed brings a route the handler that the mux found, through the route's own mux.
type routed struct {
	http.ResponseWriter
	handler http.Handler
	pattern string
}

// routeKey is how a pattern is written with a single space after its method.
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

// register has net/http itself say whether the pattern is one.
func (r *route) register(pattern string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("no pattern of net/http: %v", v)
		}
	}()
	r.alone.Handle(pattern, r)
	return nil
}

// ServeHTTP asks the mux for the handler and its pattern, and runs that handler alone,
// so that the rule checked cannot be another's than the handler's. Only serving sets the
// path values that rules need. So the request goes through a mux with this pattern
// alone, which sets them, or answers with the redirect for which the mux named it.
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
	_ = unlisted.register(pattern) // for a redirect of CONNECT, the mux names a path, which may be no pattern: 404
	return unlisted
}

// ServeHTTP is what the route's own mux calls where the pattern matches.
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

// maxLoggedPatterns bounds the memory, whatever a mux has.
const maxLoggedPatterns = 1000

// logUnlisted logs a mistake of the program once for each pattern.
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
