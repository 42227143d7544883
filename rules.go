package m2mauth

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Rule is what a route demands of a token that has been verified. Make rules
// with [AllScopes], [AnyScope] and [AnyToken]. The zero Rule refuses everything.
// A Rule cannot be changed and may be used by many routes and goroutines.
type Rule struct {
	demand demand
	scopes []string
}

type demand int

const (
	nothingPasses demand = iota
	anyToken
	allScopes
	anyScope
)

// AllScopes demands every one of the scopes. It panics if there is none, or if
// one is empty, is not UTF-8, or has white space or control characters in it,
// since no token can hold such a scope (RFC 6749 §3.3).
func AllScopes(scopes ...string) Rule { return scopeRule("AllScopes", allScopes, scopes) }

// AnyScope demands at least one of the scopes. It panics as [AllScopes] does.
func AnyScope(scopes ...string) Rule { return scopeRule("AnyScope", anyScope, scopes) }

// AnyToken demands nothing but a valid token. See the warning at
// [Guard.Authenticate]: that is identification, not permission.
func AnyToken() Rule { return Rule{demand: anyToken} }

// scopeRule panics in the name of the call that a user wrote.
func scopeRule(call string, d demand, scopes []string) Rule {
	if len(scopes) == 0 {
		panic(fmt.Sprintf("m2mauth: %s: no scope given; for any valid token use AnyToken", call))
	}
	var names []string
	for _, s := range scopes {
		if s == "" || !utf8.ValidString(s) || strings.ContainsFunc(s, impossibleInScope) {
			panic(fmt.Sprintf("m2mauth: %s: %q cannot be a scope; give each scope as an argument of its own, without white space", call, s))
		}
		if !slices.Contains(names, s) {
			names = append(names, s)
		}
	}
	return Rule{demand: d, scopes: names}
}

func impossibleInScope(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// String returns the rule as it is written in Go.
func (r Rule) String() string {
	switch r.demand {
	case anyToken:
		return "AnyToken()"
	case allScopes:
		return "AllScopes(" + quoteAll(r.scopes) + ")"
	case anyScope:
		return "AnyScope(" + quoteAll(r.scopes) + ")"
	}
	return "Rule{}"
}

func quoteAll(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = strconv.Quote(n)
	}
	return strings.Join(quoted, ", ")
}

// check returns nil if the claims meet the rule.
func (r Rule) check(c *Claims) *Error {
	switch r.demand {
	case anyToken:
		return nil
	case allScopes:
		if c.scopes.HasAll(r.scopes...) {
			return nil
		}
	case anyScope:
		if c.scopes.HasAny(r.scopes...) {
			return nil
		}
	default:
		return newError(ErrForbidden, "this route lets nobody through")
	}
	text := "the token lacks a scope that this route requires"
	if c.scopes.Len() == 0 {
		text = "the token has no scopes: ask for them in the token request, and give the application a role that has them"
	}
	e := newError(ErrScope, text, slog.String("required", r.String()), slog.String("scopes", loggable(c.scopes.String())))
	e.Scopes = slices.Clone(r.scopes) // an ErrorHandler may do with it what it likes
	return e
}
