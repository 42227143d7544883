package m2mauth

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// Scopes holds the scopes of a token (RFC 6749 §3.3). Names are compared exactly: case
// matters, and read:* is a name like any other. The zero Scopes is empty. Scopes is
// immutable.
type Scopes struct {
	names   []string // the token's own, then those that they include; never changed, never returned
	implied int      // how many are included
}

func (s Scopes) own() []string { return s.names[:len(s.names)-s.implied] }

// splitScopes splits a scope claim. Only U+0020 separates names. A tab or any other
// white space is part of a name, and so grants nothing.
func splitScopes(claim string) []string {
	return slices.DeleteFunc(strings.Split(claim, " "), func(s string) bool { return s == "" })
}

// Has reports whether the token has the scope, by itself or because another one includes
// it (Config.ImpliedScopes). No token has the empty scope.
func (s Scopes) Has(scope string) bool { return scope != "" && slices.Contains(s.names, scope) }

// HasAll reports whether the token has all of the scopes. Without scopes it reports
// false, so that a list which is empty by mistake grants nothing.
func (s Scopes) HasAll(scopes ...string) bool {
	for _, scope := range scopes {
		if !s.Has(scope) {
			return false
		}
	}
	return len(scopes) > 0
}

// HasAny reports whether the token has at least one of the scopes.
func (s Scopes) HasAny(scopes ...string) bool { return slices.ContainsFunc(scopes, s.Has) }

// All returns the token's own scopes, in its order and without Config.ScopePrefix.
func (s Scopes) All() iter.Seq[string] { return slices.Values(s.own()) }

// Len returns the number of scopes that All returns.
func (s Scopes) Len() int { return len(s.own()) }

// String returns the scopes that All returns, separated by single spaces. Do not
// split the result: if the token has its scopes as an array, one of them may contain a
// space. Use [Scopes.All] instead.
func (s Scopes) String() string { return strings.Join(s.own(), " ") }

// scopePolicy is what Config says of scopes. A nil one says nothing.
type scopePolicy struct {
	prefix, organization string

	implied map[string][]string // all that a scope includes, over others too
}

func newScopePolicy(c *Config) *scopePolicy {
	p := &scopePolicy{prefix: c.ScopePrefix, organization: c.ScopeOrganization, implied: make(map[string][]string)}
	for scope := range c.ImpliedScopes {
		var all scopeList
		all.add(c.ImpliedScopes[scope])
		for i := 0; i < len(all.names); i++ { // which grows meanwhile
			all.add(c.ImpliedScopes[all.names[i]])
		}
		p.implied[scope] = all.names
	}
	return p
}

// read returns what the names of a token's scope claims grant here.
func (p *scopePolicy) read(names []string) Scopes {
	if p.prefix != "" {
		var own []string // with no room for what is dropped, which nobody counts
		for _, name := range names {
			if name, ok := strings.CutPrefix(name, p.prefix); ok && name != "" {
				own = append(own, name)
			}
		}
		names = own
	}
	if len(p.implied) == 0 {
		return Scopes{names: names}
	}
	var all scopeList
	all.add(names)
	own := len(all.names)
	for _, name := range all.names[:own] {
		all.add(p.implied[name])
	}
	included := all.names[own:]
	return Scopes{names: append(names, included...), implied: len(included)}
}

// covered returns the scopes that these include, without themselves.
func (p *scopePolicy) covered(names []string) map[string]bool {
	covered := make(map[string]bool)
	for _, name := range names {
		for _, included := range p.implied[name] {
			covered[included] = true
		}
	}
	return covered
}

// needed returns the scopes without those that others of them include.
func (p *scopePolicy) needed(names []string) []string {
	if p == nil || len(p.implied) == 0 {
		return names
	}
	covered := p.covered(names)
	return slices.DeleteFunc(names, func(name string) bool { return covered[name] })
}

// includes reports whether one scope includes another.
func (p *scopePolicy) includes(scope, other string) bool {
	return p != nil && slices.Contains(p.implied[scope], other)
}

// coversAll reports whether a token with the held scopes has all that are asked for.
func (p *scopePolicy) coversAll(held, asked []string) bool {
	covered := p.covered(held)
	for _, name := range held {
		covered[name] = true
	}
	return !slices.ContainsFunc(asked, func(name string) bool { return !covered[name] })
}

// asIssued returns scopes under the names that the issuer has for them.
func (p *scopePolicy) asIssued(names []string) []string {
	if p == nil || p.prefix == "" {
		return names
	}
	issued := make([]string, len(names))
	for i, name := range names {
		issued[i] = p.prefix + name
	}
	return issued
}

// scopesOfAll is what holds for the scopes of all the issuers, for a challenge to
// somebody whose issuer is not known.
func scopesOfAll(issuers []*issuer) *scopePolicy {
	first := issuers[0].claims.scopes
	if len(issuers) == 1 {
		return first
	}
	all := &scopePolicy{prefix: first.prefix, implied: maps.Clone(first.implied)}
	for _, i := range issuers[1:] {
		if i.claims.scopes.prefix != all.prefix {
			all.prefix = ""
		}
		for scope, included := range all.implied {
			all.implied[scope] = slices.DeleteFunc(slices.Clone(included), func(name string) bool {
				return !slices.Contains(i.claims.scopes.implied[scope], name)
			})
		}
	}
	return all
}

// cycleIn returns a way from a scope back to itself, or nil if there is none.
func cycleIn(implied map[string][]string) []string {
	const begun, done = 1, 2
	states := make(map[string]int)
	var way []string
	var visit func(scope string) []string
	visit = func(scope string) []string {
		way = append(way, scope)
		switch states[scope] {
		case done:
		case begun:
			return way[slices.Index(way, scope):]
		default:
			states[scope] = begun
			for _, next := range implied[scope] {
				if cycle := visit(next); cycle != nil {
					return cycle
				}
			}
			states[scope] = done
		}
		way = way[:len(way)-1]
		return nil
	}
	for _, scope := range slices.Sorted(maps.Keys(implied)) {
		if cycle := visit(scope); cycle != nil {
			return cycle
		}
	}
	return nil
}
