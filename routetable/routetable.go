// Package routetable holds rules by route, for routers that can list their routes:
// every route without a rule, and every rule without a route, is a mistake that is
// found at set-up. The adapters' Routes are made of it; it is for authors of others.
// For [net/http.ServeMux] there is [m2mauth.Guard.Routes].
package routetable

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/m2mauth/m2mauth"
)

// Route is a route as its router lists it. One for all methods has none.
type Route struct{ Method, Path string }

// String returns the key that the route has in a table: "GET /products", or "/products".
func (r Route) String() string { return strings.TrimPrefix(r.Method+" "+r.Path, " ") }

// Table is rules by route. It cannot be changed, and many goroutines may use it.
type Table struct {
	entries  map[Route]entry
	mistakes []error
}

type entry struct {
	rule   m2mauth.Rule
	public bool
}

// New makes a table. A key is a method and a path in the router's own syntax ("GET
// /products/:id"), or a path alone, which holds for all routes of that path that have no
// entry of their own. Nothing else is inherited. Its mistakes are told by [Table.Validate];
// a rule that the guard refuses counts as the zero Rule.
func New(guard *m2mauth.Guard, rules map[string]m2mauth.Rule, public ...string) *Table {
	t := &Table{entries: make(map[Route]entry)}
	if err := guard.ValidateRule(m2mauth.OrganizationPath("any")); err != nil { // only a guard that New did not make refuses that
		t.mistake("%w", err)
		return t
	}
	for _, key := range slices.Sorted(maps.Keys(rules)) {
		rule := rules[key]
		if err := guard.ValidateRule(rule); err != nil {
			t.mistake("%q: %w", key, err)
			rule = m2mauth.Rule{}
		}
		t.add(key, entry{rule: rule})
	}
	for _, key := range public {
		t.add(key, entry{public: true})
	}
	return t
}

func (t *Table) mistake(format string, arguments ...any) {
	t.mistakes = append(t.mistakes, fmt.Errorf("m2mauth: Routes: "+format, arguments...))
}

func (t *Table) add(key string, e entry) {
	route := parse(key)
	switch other, ok := t.entries[route]; {
	case strings.ContainsAny(route.Path, " \t") || !strings.HasPrefix(route.Path, "/"):
		t.mistake("%q is no route: write a method and a path, such as GET /products, or a path alone", key)
	case !ok:
		t.entries[route] = e
	case other.public != e.public:
		t.entries[route] = entry{}
		t.mistake("%q has a rule and is public", key)
	default:
		t.mistake("%q comes twice", key)
	}
}

func parse(key string) Route {
	if method, path, ok := strings.Cut(key, " "); ok {
		return Route{method, strings.TrimLeft(path, " ")}
	}
	return Route{Path: key}
}

// Rule returns what a route demands: its entry, or that of its path for all methods. A
// route without either has the zero Rule, which lets nobody through: see [m2mauth.Guard.Check].
func (t *Table) Rule(r Route) (rule m2mauth.Rule, public bool) {
	e := t.entries[t.keyOf(r)]
	return e.rule, e.public
}

func (t *Table) keyOf(r Route) Route {
	if _, ok := t.entries[r]; ok {
		return r
	}
	return Route{Path: r.Path}
}

// Has reports whether a route has an entry of its own, with its method.
func (t *Table) Has(r Route) bool {
	_, ok := t.entries[r]
	return ok
}

// Validate returns every mistake at once: those in the table, each route that has no
// entry, and each entry that no route has.
func (t *Table) Validate(routes ...Route) error {
	mistakes := slices.Clone(t.mistakes)
	used := make(map[Route]bool)
	var texts []string
	for _, r := range routes {
		key := t.keyOf(r)
		if used[key] = true; !t.Has(key) {
			texts = append(texts, fmt.Sprintf("m2mauth: Routes: %q has no rule and is not public: it lets nobody through", r))
		}
	}
	for key, e := range t.entries {
		switch {
		case used[key]:
		case e.public:
			texts = append(texts, fmt.Sprintf("m2mauth: Routes: %q is public, and there is no such route", key))
		default:
			texts = append(texts, fmt.Sprintf("m2mauth: Routes: %q has a rule, and there is no such route", key))
		}
	}
	slices.Sort(texts)
	for _, text := range slices.Compact(texts) {
		mistakes = append(mistakes, errors.New(text))
	}
	return errors.Join(mistakes...)
}
