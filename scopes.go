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
	names   []string // the token's own, then those that they include; never changed or returned
	implied int      // how many of names are included ones
}

func (s Scopes) own() []string { return s.names[:len(s.names)-s.implied] }

// splitScopes splits a scope claim. Only U+0020 separates names. A tab or any other
// white space is part of a name, and so grants nothing.
func splitScopes(claim string) []string {
	return slices.DeleteFunc(strings.Split(claim, " "), func(s string) bool { return s == "" })
}

// Has reports whether the token has the scope, either itself or because another scope
// includes it (Config.ImpliedScopes). No token has the empty scope.
func (s Scopes) Has(scope string) bool { return scope != "" && slices.Contains(s.names, scope) }

// HasAll reports whether the token has all of the scopes. Without arguments it reports
// false, so that a list that is empty by mistake grants nothing.
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

// String returns the scopes that All returns, separated by single spaces. Do not split
// the result: a scope that comes from an array may contain a space. Use [Scopes.All]
// instead.
func (s Scopes) String() string { return strings.Join(s.own(), " ") }

// scopeList keeps names in order, without repeats.
type scopeList struct {
	names  []string
	known  map[string]bool
	policy *scopePolicy
}

func (l *scopeList) add(names []string) {
	if l.known == nil {
		l.known = make(map[string]bool)
	}
	for _, name := range names {
		if !l.known[name] {
			l.known[name] = true
			l.names = append(l.names, name)
		}
	}
}

// scopePolicy is what Config says of scopes. A nil one says nothing.
type scopePolicy struct {
	prefix, organization string

	implied map[string][]string // all scopes that a scope includes, directly or through others
}

func newScopePolicy(c *Config) *scopePolicy {
	p := &scopePolicy{prefix: c.ScopePrefix, organization: c.ScopeOrganization, implied: make(map[string][]string)}
	for scope := range c.ImpliedScopes {
		var all scopeList
		all.add(c.ImpliedScopes[scope])
		for i := 0; i < len(all.names); i++ { // names grows in the loop
			all.add(c.ImpliedScopes[all.names[i]])
		}
		p.implied[scope] = all.names
	}
	return p
}

// read returns the scopes that the names in a token's scope claims grant here.
func (p *scopePolicy) read(names []string) Scopes {
	if p.prefix != "" {
		var own []string // not sized for names: token.cost counts no room for dropped ones
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

// covered returns all scopes that the given ones include.
func (p *scopePolicy) covered(names []string) map[string]bool {
	covered := make(map[string]bool)
	for _, name := range names {
		for _, included := range p.implied[name] {
			covered[included] = true
		}
	}
	return covered
}

// needed returns the scopes without those that others among them include.
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

// coversAll reports whether a token with the held scopes has all scopes asked for.
func (p *scopePolicy) coversAll(held, asked []string) bool {
	covered := p.covered(held)
	for _, name := range held {
		covered[name] = true
	}
	return !slices.ContainsFunc(asked, func(name string) bool { return !covered[name] })
}

// asIssued returns scopes by the names that the issuer uses.
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
