package m2mauth

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func claimsWith(scope string) *claimSet {
	return &claimSet{scopes: Scopes{names: splitScopes(scope)}}
}

// refusalOf says why a rule refuses a token that has passed every other check.
func refusalOf(t *testing.T, rule Rule, c *claimSet) *Error {
	t.Helper()
	guard, err := New(goodConfig())
	require.NoError(t, err)
	return guard.issuers[0].authorize(t.Context(), c, nil, rule)
}

func TestRuleCheck(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		rule  Rule
		scope string
		want  error
	}{
		{"the zero Rule lets nobody through", Rule{}, "a b c", ErrForbidden},
		{"any token passes AnyToken", AnyToken(), "", nil},
		{"AllScopes with all", AllScopes("a", "b"), "c b a", nil},
		{"AllScopes with one missing", AllScopes("a", "b"), "a c", ErrScope},
		{"AllScopes with none", AllScopes("a"), "", ErrScope},
		{"AnyScope with one", AnyScope("a", "b"), "b", nil},
		{"AnyScope with another", AnyScope("a", "b"), "c", ErrScope},
		{"AnyScope with none", AnyScope("a"), "", ErrScope},
		{"a scope that RFC 6749 does not have", AllScopes(`"ä\`), `"ä\`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := refusalOf(t, test.rule, claimsWith(test.scope))
			if test.want == nil {
				assert.Nil(t, e)
				return
			}
			require.NotNil(t, e)
			require.ErrorIs(t, e, test.want)
			if test.want == ErrScope {
				assert.Equal(t, test.rule.scopes(), e.Scopes, "all scopes of the route")
			} else {
				assert.Nil(t, e.Scopes)
			}
		})
	}
}

func TestRefusalSaysThatTheTokenHasNoScopes(t *testing.T) {
	t.Parallel()
	assert.Contains(t, refusalOf(t, AllScopes("a"), claimsWith("")).Description, "the token has no scopes")
	assert.Contains(t, refusalOf(t, AllScopes("a"), claimsWith("b")).Description, "lacks a scope")
}

func TestOfSeveralReasonsTheFirstIsToldUnlessAScopeIsMissing(t *testing.T) {
	t.Parallel()
	users := &claimSet{subject: "user", clientID: "webapp"}
	kind, other, scope := MachineToken(), ClientID("reader"), AllScopes("a")
	for _, test := range []struct {
		rules []Rule
		want  error
		text  string
	}{
		{[]Rule{kind, other}, ErrForbidden, otherKind.text},
		{[]Rule{other, kind}, ErrForbidden, otherClient.text},
		{[]Rule{scope, kind}, ErrScope, "the token has no scopes"},
		{[]Rule{kind, scope}, ErrScope, "the token has no scopes"},
	} {
		for _, rule := range []Rule{AllOf(test.rules...), AnyOf(test.rules...)} {
			e := refusalOf(t, rule, users)
			require.ErrorIs(t, e, test.want, rule)
			assert.Contains(t, e.Description, test.text, rule)
		}
	}
}

func TestRuleIsNotChangedThroughARefusal(t *testing.T) {
	t.Parallel()
	scopes := []string{"a", "b"}
	rule := AllScopes(scopes...)
	scopes[0] = "changed by the caller"
	e := refusalOf(t, rule, claimsWith(""))
	require.Equal(t, []string{"a", "b"}, e.Scopes)
	e.Scopes[0] = "changed by an ErrorHandler"
	assert.Equal(t, []string{"a", "b"}, refusalOf(t, rule, claimsWith("")).Scopes)
}

func TestRuleString(t *testing.T) {
	t.Parallel()
	for want, rule := range map[string]Rule{
		`Rule{}`:                  {},
		`AnyToken()`:              AnyToken(),
		`AllScopes("a")`:          AllScopes("a"),
		`AllScopes("a", "b")`:     AllScopes("a", "b", "a", "b"),
		`AnyScope("b", "a")`:      AnyScope("b", "b", "a"),
		`AnyScope("say:\"hi\"")`:  AnyScope(`say:"hi"`),
		`AllScopes("read:größe")`: AllScopes("read:größe"),
	} {
		assert.Equal(t, want, rule.String())
	}
	assert.Len(t, refusalOf(t, AllScopes("a", "b", "a"), claimsWith("")).Scopes, 2, "a scope named twice is told once")
}

func TestWrongScopesPanicInTheNameOfTheCall(t *testing.T) {
	t.Parallel()
	guard, err := New(goodConfig())
	require.NoError(t, err)
	calls := map[string]func(...string){
		"AllScopes":  func(s ...string) { AllScopes(s...) },
		"AnyScope":   func(s ...string) { AnyScope(s...) },
		"Require":    func(s ...string) { guard.Require(s...) },
		"RequireAny": func(s ...string) { guard.RequireAny(s...) },
	}
	for _, test := range []struct {
		name   string
		scopes []string
		want   string // after the name of the call
	}{
		{"no scope", nil, ": no scope given; for any valid token use AnyToken"},
		{"an empty scope", []string{"a", ""}, `: "" cannot be a scope`},
		{"a space", []string{"read write"}, `: "read write" cannot be a scope; give each scope as an argument of its own`},
		{"a space before", []string{" read"}, `: " read" cannot be a scope`},
		{"a tab", []string{"read\twrite"}, `: "read\twrite" cannot be a scope`},
		{"a line break", []string{"read\n"}, `: "read\n" cannot be a scope`},
		{"NUL", []string{"read\x00"}, `: "read\x00" cannot be a scope`},
		{"DEL", []string{"read\x7f"}, `: "read\x7f" cannot be a scope`},
		{"a C1 control character", []string{"read\u0085"}, `: "read\u0085" cannot be a scope`},
		{"a no-break space", []string{"read\u00a0write"}, ` cannot be a scope`},
		{"bytes that are not UTF-8", []string{"read\xff"}, `: "read\xff" cannot be a scope`},
	} {
		for call, f := range calls {
			t.Run(call+" with "+test.name, func(t *testing.T) {
				t.Parallel()
				message := panicOf(t, func() { f(test.scopes...) })
				assert.Regexp(t, "^m2mauth: "+call+": ", message)
				assert.Contains(t, message, test.want)
			})
		}
	}
}

func TestMistakesAtSetUpPanic(t *testing.T) {
	t.Parallel()
	guard, err := New(goodConfig())
	require.NoError(t, err)
	var missing *Guard
	var noFunc http.HandlerFunc
	handler := http.NotFoundHandler()
	const noGuard = "the Guard is nil or was not made by New; was the error of New ignored?"
	for _, test := range []struct {
		name string
		call func()
		want string
	}{
		{"Require of a nil Guard", func() { missing.Require("a") }, "m2mauth: Require: " + noGuard},
		{"RequireAny of a nil Guard", func() { missing.RequireAny("a") }, "m2mauth: RequireAny: " + noGuard},
		{"RequireRule of a nil Guard", func() { missing.RequireRule(AnyToken()) }, "m2mauth: RequireRule: " + noGuard},
		{"Authenticate of a nil Guard", func() { missing.Authenticate(handler) }, "m2mauth: Authenticate: " + noGuard},
		{"Require of a zero Guard", func() { new(Guard).Require("a") }, "m2mauth: Require: " + noGuard},
		{"Authenticate of a zero Guard", func() { new(Guard).Authenticate(handler) }, "m2mauth: Authenticate: " + noGuard},
		{"RequireRule with the zero Rule", func() { guard.RequireRule(Rule{}) }, "m2mauth: RequireRule: the zero Rule lets nobody through; make one with AllScopes, AnyScope or AnyToken"},
		{"Require before no handler", func() { guard.Require("a")(nil) }, "m2mauth: Require: the handler is nil"},
		{"RequireAny before no handler", func() { guard.RequireAny("a")(nil) }, "m2mauth: RequireAny: the handler is nil"},
		{"RequireRule before no handler", func() { guard.RequireRule(AnyToken())(nil) }, "m2mauth: RequireRule: the handler is nil"},
		{"Authenticate before no handler", func() { guard.Authenticate(nil) }, "m2mauth: Authenticate: the handler is nil"},
		{"Require before a nil HandlerFunc", func() { guard.Require("a")(noFunc) }, "m2mauth: Require: the handler is nil"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.want, panicOf(t, test.call))
		})
	}
}

// panicOf returns the text that f panics with.
func panicOf(t *testing.T, f func()) (message string) {
	t.Helper()
	defer func() {
		v := recover()
		require.NotNil(t, v, "no panic")
		var ok bool
		message, ok = v.(string)
		require.True(t, ok, "a panic with %T %v", v, v)
	}()
	f()
	return ""
}
