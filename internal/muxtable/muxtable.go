// Package muxtable puts something of one's own before each pattern of a
// [http.ServeMux]: what a table says for the pattern, or else one function for all that
// the table does not have. It knows no tokens.
package muxtable

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Serve serves a request. found is the mux's handler for it, and r.Pattern its pattern.
type Serve func(w http.ResponseWriter, r *http.Request, found http.Handler)

// Table is a handler. Entries are added before it serves.
type Table struct {
	mux      *http.ServeMux
	unlisted Serve
	routes   map[string]*route // by key
}

// route says how to handle the requests of a pattern.
type route struct {
	serve  Serve
	public bool          // the mux's handler serves
	alone  http.ServeMux // has only this pattern
}

// routed carries the handler that the mux found through the route's own mux.
type routed struct {
	http.ResponseWriter
	handler http.Handler
	pattern string
}

// New makes a table without entries. unlisted serves what the mux has a pattern for and
// the table no entry.
func New(mux *http.ServeMux, unlisted Serve) *Table {
	return &Table{mux: mux, unlisted: unlisted, routes: make(map[string]*route)}
}

// Add adds an entry for a pattern. It also applies to the pattern with a method, unless
// that has its own. The error is for a pattern that net/http does not take, or that the
// table already has.
func (t *Table) Add(pattern string, serve Serve) error { return t.add(pattern, &route{serve: serve}) }

// AddPublic is Add for a pattern that the mux's handler serves alone.
func (t *Table) AddPublic(pattern string) error { return t.add(pattern, &route{public: true}) }

func (t *Table) add(pattern string, added *route) error {
	if err := added.register(pattern); err != nil {
		return err
	}
	switch other := t.routes[key(pattern)]; {
	case other == nil:
		t.routes[key(pattern)] = added
		return nil
	case other.public != added.public:
		return errors.New("it has a rule and is public")
	}
	return errors.New("it comes twice")
}

// key returns a pattern with a single space after its method.
func key(pattern string) string {
	method, path := split(pattern)
	if method == "" {
		return path
	}
	return method + " " + path
}

func split(pattern string) (method, path string) {
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
// so that the entry always belongs to the handler. Entries need path values, which are
// set only when a mux serves. So the request goes through a mux with just this pattern.
// That mux sets them, or responds with the redirect for which the first mux returned the
// pattern.
func (t *Table) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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

func (t *Table) routeOf(pattern string) *route {
	if found := t.routes[key(pattern)]; found != nil {
		return found
	}
	if method, path := split(pattern); method != "" && t.routes[path] != nil {
		return t.routes[path]
	}
	unlisted := &route{serve: t.unlisted}
	_ = unlisted.register(pattern) // for a redirect of CONNECT, the mux returns a path that may be no valid pattern: 404
	return unlisted
}

// ServeHTTP is called by the route's own mux when the pattern matches.
func (r *route) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	found := w.(*routed)
	request.Pattern = found.pattern
	if r.public {
		found.handler.ServeHTTP(found.ResponseWriter, request)
		return
	}
	r.serve(found.ResponseWriter, request, found.handler)
}
