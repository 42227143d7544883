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
	names []string // never changed, never returned
}

// splitScopes splits a scope claim. Only U+0020 separates names. A tab or any other
// white space is part of a name, and so grants nothing.
func splitScopes(claim string) []string {
	return slices.DeleteFunc(strings.Split(claim, " "), func(s string) bool { return s == "" })
}

// Has reports whether the token has the scope. No token has the empty scope.
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

// All returns the scopes in the token's order.
func (s Scopes) All() iter.Seq[string] { return slices.Values(s.names) }

// Len returns the number of scopes.
func (s Scopes) Len() int { return len(s.names) }

// String returns the scopes in the token's order, separated by single spaces. Do not
// split the result: if the token has its scopes as an array, one of them may contain a
// space. Use [Scopes.All] instead.
func (s Scopes) String() string { return strings.Join(s.names, " ") }
