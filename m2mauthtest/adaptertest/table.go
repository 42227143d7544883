package adaptertest

import (
	"maps"
	"slices"

	"github.com/m2mauth/m2mauth"
)

// Table is what an adapter's Routes is given.
type Table struct {
	Rules  map[string]m2mauth.Rule // such as "GET /items/{id}", or "/items/{id}" for all methods
	Public []string
}

// ColonPaths returns the table with paths in the form /items/:id.
func (t Table) ColonPaths() Table {
	c := Table{Rules: make(map[string]m2mauth.Rule)}
	for key, rule := range t.Rules {
		c.Rules[colons(key)] = rule
	}
	for _, key := range t.Public {
		c.Public = append(c.Public, colons(key))
	}
	return c
}

// ruleAdapter makes rules where adapters make middlewares.
var ruleAdapter = Adapter[m2mauth.Rule]{
	Require:      func(_ *m2mauth.Guard, scopes ...string) m2mauth.Rule { return m2mauth.AllScopes(scopes...) },
	RequireAny:   func(_ *m2mauth.Guard, scopes ...string) m2mauth.Rule { return m2mauth.AnyScope(scopes...) },
	RequireRule:  func(_ *m2mauth.Guard, rule m2mauth.Rule) m2mauth.Rule { return rule },
	Authenticate: func(*m2mauth.Guard) m2mauth.Rule { return m2mauth.AnyToken() },
}

// tableOf returns the groups with the first rule of each route in a table, and the others
// in middlewares behind it. Where all methods of a path have one rule, it stands there for
// all of them, beside the entry of one with its method.
func tableOf[M any](adapter Adapter[M], guard *m2mauth.Guard, ruled []Group[m2mauth.Rule]) (Table, []Group[M]) {
	table := Table{Rules: make(map[string]m2mauth.Rule)}
	groups := make([]Group[M], len(ruled))
	byPath := make(map[string]map[string]m2mauth.Rule) // by method
	for i, g := range ruled {
		groups[i] = Group[M]{Prefix: g.Prefix}
		for _, r := range g.Routes {
			route := Route[M]{Method: r.Method, Path: r.Path, Handle: r.Handle}
			rules := slices.Concat(g.Middlewares, r.Middlewares)
			path := g.Prefix + r.Path
			if len(rules) == 0 {
				table.Public = append(table.Public, r.Method+" "+path)
			} else {
				if byPath[path] == nil {
					byPath[path] = make(map[string]m2mauth.Rule)
				}
				byPath[path][r.Method] = rules[0]
				for _, rule := range rules[1:] {
					route.Middlewares = append(route.Middlewares, adapter.RequireRule(guard, rule))
				}
			}
			groups[i].Routes = append(groups[i].Routes, route)
		}
	}
	for path, rules := range byPath {
		same := len(rules) > 1
		for _, rule := range rules {
			same = same && rule.String() == rules["GET"].String()
		}
		if same {
			table.Rules[path] = rules["GET"]
			continue
		}
		for method, rule := range rules {
			table.Rules[method+" "+path] = rule
		}
	}
	return table, groups
}

// withTable returns the differences without those of middlewares of groups, which a
// table does not have: each of its rules is a route's own.
func withTable(forced map[string]Difference) map[string]Difference {
	forced = maps.Clone(forced)
	delete(forced, rowUnknownInner)
	delete(forced, rowGroupPath)
	return forced
}
