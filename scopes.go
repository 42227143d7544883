package m2mauth

import (
	"iter"
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
