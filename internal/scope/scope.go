// Package scope knows the names of scopes (RFC 6749 §3.3): which ones can be, and what
// the scopes of one issuer include and are called. It knows neither tokens nor rules.
package scope

import (
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Valid reports whether a token can have a scope of that name.
func Valid(name string) bool {
	return name != "" && utf8.ValidString(name) && !strings.ContainsFunc(name, impossible)
}

// impossible reports whether no scope's name contains the character: white space and
// control characters.
func impossible(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// Split splits a scope claim. Only U+0020 separates names. A tab or any other white
// space is part of a name, and so grants nothing.
func Split(claim string) []string {
	return slices.DeleteFunc(strings.Split(claim, " "), func(s string) bool { return s == "" })
}

// List keeps names in order, without repeats.
type List struct {
	Names []string
	known map[string]bool
}

// Add appends those names that the list lacks.
func (l *List) Add(names ...string) {
	if l.known == nil {
		l.known = make(map[string]bool)
	}
	for _, name := range names {
		if !l.known[name] {
			l.known[name] = true
			l.Names = append(l.Names, name)
		}
	}
}

// Policy is what holds for the scopes of an issuer. The zero Policy and a nil one say
// nothing. A Policy is immutable.
type Policy struct {
	prefix  string
	implied map[string][]string // all scopes that a scope includes, directly or through others
}

// NewPolicy makes a Policy of what the issuer puts before each scope, and of the scopes
// that each scope includes, which must have no [Cycle].
func NewPolicy(prefix string, implied map[string][]string) *Policy {
	p := &Policy{prefix: prefix, implied: make(map[string][]string)}
	for scope := range implied {
		var all List
		all.Add(implied[scope]...)
		for i := 0; i < len(all.Names); i++ { // Names grows in the loop
			all.Add(implied[all.Names[i]]...)
		}
		p.implied[scope] = all.Names
	}
	return p
}

// Common returns what holds for the scopes of all of several issuers.
func Common(policies ...*Policy) *Policy {
	first := policies[0]
	if len(policies) == 1 {
		return first
	}
	all := &Policy{prefix: first.prefix, implied: maps.Clone(first.implied)}
	for _, p := range policies {
		if p.prefix != all.prefix {
			all.prefix = ""
		}
		for scope, included := range all.implied {
			all.implied[scope] = slices.DeleteFunc(slices.Clone(included), func(name string) bool {
				return !slices.Contains(p.implied[scope], name)
			})
		}
	}
	return all
}

// Read returns the scopes that the names in a token's scope claims grant: its own, then
// those that they include, and how many these are.
func (p *Policy) Read(names []string) (scopes []string, included int) {
	if p.prefix != "" {
		var own []string // not sized for names: a cached token's cost counts no room for dropped ones
		for _, name := range names {
			if name, ok := strings.CutPrefix(name, p.prefix); ok && name != "" {
				own = append(own, name)
			}
		}
		names = own
	}
	if len(p.implied) == 0 {
		return names, 0
	}
	var all List
	all.Add(names...)
	own := len(all.Names)
	for _, name := range all.Names[:own] {
		all.Add(p.implied[name]...)
	}
	more := all.Names[own:]
	return append(names, more...), len(more)
}

// covered returns all scopes that the given ones include.
func (p *Policy) covered(names []string) map[string]bool {
	covered := make(map[string]bool)
	for _, name := range names {
		for _, included := range p.implied[name] {
			covered[included] = true
		}
	}
	return covered
}

// IncludesAny reports whether any scope includes another.
func (p *Policy) IncludesAny() bool { return p != nil && len(p.implied) > 0 }

// Needed returns the scopes without those that others among them include. It changes
// names.
func (p *Policy) Needed(names []string) []string {
	if !p.IncludesAny() {
		return names
	}
	covered := p.covered(names)
	return slices.DeleteFunc(names, func(name string) bool { return covered[name] })
}

// Least returns the first of some scopes. If that includes a later one, this takes its
// place, and so on, so that no client is told to ask for more than it needs.
func (p *Policy) Least(names []string) string {
	least := names[0]
	for _, name := range names {
		if p != nil && slices.Contains(p.implied[least], name) {
			least = name
		}
	}
	return least
}

// CoversAll reports whether a token with the held scopes has all scopes asked for.
func (p *Policy) CoversAll(held, asked []string) bool {
	covered := p.covered(held)
	for _, name := range held {
		covered[name] = true
	}
	return !slices.ContainsFunc(asked, func(name string) bool { return !covered[name] })
}

// AsIssued returns scopes by the names that the issuer uses.
func (p *Policy) AsIssued(names []string) []string {
	if p == nil || p.prefix == "" {
		return names
	}
	issued := make([]string, len(names))
	for i, name := range names {
		issued[i] = p.prefix + name
	}
	return issued
}

// Cycle returns a way from a scope back to itself, or nil if there is none.
func Cycle(implied map[string][]string) []string {
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
