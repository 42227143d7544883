package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// naive is a router as frameworks have them. It serves a path by the first row
// that matches, in an order of its own with the more literal rows first.
type naive struct {
	fold      bool // a literal in any letter case
	slash     bool // a slash at the end more or less
	emptyRest bool // {name...} for nothing
	emptyName bool // {name} at the end for nothing
	swallow   bool // {name} at the end for all that is left, where no other row goes on behind it
	counts    bool // the order is that of how many wildcards a row has, and not of where they stand
}

// naives returns every such router.
func naives() (list []naive) {
	for bits := range 1 << 6 {
		n := naive{bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0, bits&16 != 0, bits&32 != 0}
		if !n.swallow || !n.fold && !n.counts { // those that do so keep a tree
			list = append(list, n)
		}
	}
	return list
}

// pattern returns a row's segments as the router keeps them.
func (n naive) pattern(r row) []string {
	var list []string
	for _, s := range r.pattern {
		switch {
		case s.rest:
			list = append(list, "{...}")
		case s.wildcard:
			list = append(list, "{}")
		case n.fold:
			list = append(list, strings.ToLower(s.literal))
		default:
			list = append(list, s.literal)
		}
	}
	return n.cut(list)
}

func (n naive) cut(segments []string) []string {
	if last := len(segments) - 1; n.slash && last > 0 && segments[last] == "" {
		return segments[:last]
	}
	return segments
}

// before orders patterns.
func (n naive) before(a, b []string) int {
	if n.counts {
		count := func(segment string) int {
			return strings.Count(strings.Join(a, "/"), segment) - strings.Count(strings.Join(b, "/"), segment)
		}
		switch rests := count("{...}"); {
		case rests != 0:
			return rests
		case a[len(a)-1] == "{...}" && len(a) != len(b):
			return len(b) - len(a)
		case count("{}") != 0:
			return count("{}")
		}
	}
	rank := func(p []string, i int) int {
		switch {
		case i >= len(p):
			return 1
		case p[i] == "{}":
			return 2
		case p[i] == "{...}":
			return 3
		}
		return 0
	}
	for i := range max(len(a), len(b)) {
		if d := rank(a, i) - rank(b, i); d != 0 {
			return d
		}
	}
	return 0
}

func (n naive) matches(pattern, path []string, leaf bool) bool {
	path = n.cut(path)
	for i, s := range pattern {
		last := i == len(pattern)-1
		switch {
		case s == "{...}":
			return n.emptyRest || i < len(path) && path[i] != ""
		case i == len(path):
			return last && s == "{}" && n.emptyName
		case s == "{}" && path[i] == "":
			return last && n.emptyName && i == len(path)-1
		case s == "{}":
			if last && leaf && n.swallow {
				return true
			}
		default:
			got, err := url.PathUnescape(path[i])
			if err != nil || got != s && !(n.fold && strings.EqualFold(got, s)) {
				return false
			}
		}
	}
	return len(pattern) == len(path)
}

// route returns a function that returns the row by which a path is served, or nil
// for rows that the router cannot tell apart.
func (n naive) route(rows table) func(path []string) *row {
	order := make([]*row, len(rows))
	patterns := map[*row][]string{}
	for i := range rows {
		order[i] = &rows[i]
		patterns[order[i]] = n.pattern(rows[i])
	}
	leaf := map[*row]bool{}
	for _, a := range order {
		leaf[a] = true
		for _, b := range order {
			p, q := patterns[a], patterns[b]
			if a != b && slices.Equal(p, q) {
				return nil
			}
			if len(q) > len(p) && slices.Equal(p, q[:len(p)]) {
				leaf[a] = false
			}
		}
	}
	slices.SortStableFunc(order, func(a, b *row) int { return n.before(patterns[a], patterns[b]) })
	return func(path []string) *row {
		for _, r := range order {
			if n.matches(patterns[r], path, leaf[r]) {
				return r
			}
		}
		return nil
	}
}

// served is a handler that stands for a row.
type served struct{ row *row }

func (served) ServeHTTP(http.ResponseWriter, *http.Request) {}

// muxRoute is the same for net/http.
func muxRoute(rows table) (route func(path []string) *row) {
	mux := http.NewServeMux()
	defer func() {
		if recover() != nil { // rows that it does not take together
			route = nil
		}
	}()
	for i := range rows {
		mux.Handle(rows[i].String(), served{&rows[i]})
	}
	return func(path []string) *row {
		h, _ := mux.Handler(httptest.NewRequest("GET", "/"+strings.Join(path, "/"), nil))
		s, _ := h.(served) // else it redirects, or knows no row
		return s.row
	}
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

func randomRules(r *rand.Rand) string {
	var text strings.Builder
	for range 2 + r.IntN(3) {
		path := ""
		for i := range r.IntN(4) {
			path += "/" + pick(r, "a", "b", "Ab", fmt.Sprintf("{x%d}", i), fmt.Sprintf("{y%d}", i))
		}
		path += pick(r, "", "", "/", "/{rest...}")
		if path == "" {
			path = "/"
		}
		fmt.Fprintln(&text, "GET", path, pick(r, demandPublic, demandAnyToken, "scopes s"))
	}
	return text.String()
}

func randomPath(r *rand.Rand) string {
	path := ""
	for range r.IntN(5) {
		path += "/" + pick(r, "a", "b", "A", "B", "Ab", "ab", "c", "c%40")
	}
	if path == "" || r.IntN(4) == 0 {
		path += "/"
	}
	return path
}

// What the gateway decides about must be what the API serves, whatever its router.
func TestNoRouterServesAPathByARowWithAnotherDemand(t *testing.T) {
	t.Parallel()
	routers := naives()
	tables, passed, refusals := 0, 0, 0
	check := func(text string, paths []string) {
		rules, err := parseTable(text)
		if err != nil {
			return // rows that conflict
		}
		tables++
		routes := map[string]func([]string) *row{"net/http": muxRoute(rules)}
		for _, n := range routers {
			routes[fmt.Sprintf("%+v", n)] = n.route(rules)
		}
		for _, target := range paths {
			path, err := parseTarget(target)
			require.NoError(t, err)
			found, err := rules.find("GET", path)
			if err != nil {
				refusals++
				continue
			}
			if found == nil {
				continue // nobody passes
			}
			passed++
			for name, route := range routes {
				if route == nil {
					continue
				}
				if by := route(path); by != nil && !by.sameDemand(found) {
					require.Fail(t, "another row", "%s\n%s: the gateway finds %s, and a router serves it by %s: %s", text, target, found, by, name)
				}
			}
		}
	}
	check("GET /files/{path...} public\nGET /files/{customer}/{path...} scopes read", []string{"/files/b", "/files/b/", "/files/b/c", "/files/"})
	check("GET /a/{y}/{rest...} any-token\nGET /{y}/ scopes s\nGET /a/a/a public", []string{"/a/B/"})
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		var paths []string
		for range 20 {
			paths = append(paths, randomPath(r))
		}
		check(randomRules(r), paths)
	}
	t.Logf("%d tables, %d paths passed, %d refused", tables, passed, refusals)
	assert.Greater(t, tables, 1000)
	assert.Greater(t, passed, refusals, "refusing everything would be no art")
	assert.Greater(t, refusals, 100)
}
