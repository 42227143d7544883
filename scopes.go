package m2mauth

import (
	"iter"
	"slices"
	"strings"
)

// Scopes are the permissions that a token holds (RFC 6749 §3.3). Names are
// compared exactly: case matters, and read:* is a name like any other. The
// zero Scopes is empty. Scopes cannot be changed.
type Scopes struct {
	names []string // never written to once here, never handed out
}

// splitScopes reads a scope claim. Names are parted by U+0020 alone: a tab or
// any other white space is part of a name, and so grants nothing.
func splitScopes(claim string) []string {
	return slices.DeleteFunc(strings.Split(claim, " "), func(s string) bool { return s == "" })
}

// Has reports whether the scope is held. The empty scope never is.
func (s Scopes) Has(scope string) bool { return scope != "" && slices.Contains(s.names, scope) }

// HasAll reports whether all of the scopes are held. Of none it reports false,
// since a list that came out empty by mistake must not open anything.
func (s Scopes) HasAll(scopes ...string) bool {
	for _, scope := range scopes {
		if !s.Has(scope) {
			return false
		}
	}
	return len(scopes) > 0
}

// HasAny reports whether at least one of the scopes is held.
func (s Scopes) HasAny(scopes ...string) bool { return slices.ContainsFunc(scopes, s.Has) }

// All returns the scopes in the token's order.
func (s Scopes) All() iter.Seq[string] { return slices.Values(s.names) }

// Len returns the number of scopes.
func (s Scopes) Len() int { return len(s.names) }

// String returns the scopes in the token's order, with single spaces between
// them. Do not split it again: where a token has scopes as an array, one of them
// may hold a space, and [Scopes.All] keeps it whole.
func (s Scopes) String() string { return strings.Join(s.names, " ") }
