package m2mauth_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

var errDown = errors.New("the database at db.internal is down")

// TestEveryRuleWithEveryToken asks for /orgs/acme/things with X-Organization: acme.
func TestEveryRuleWithEveryToken(t *testing.T) {
	t.Parallel()
	user := map[string]any{"sub": "alice", "tier": []string{"silver", "gold"}}
	type token = m2mauthtest.Token
	tokens := []token{ // the columns
		{AppID: "one", Scopes: []string{"a"}, Claims: map[string]any{"tier": "gold"}},
		{AppID: "one", Scopes: []string{"b"}, Claims: map[string]any{"tier": "golden"}},
		{AppID: "two", Scopes: []string{"b", "c", "a"}, Claims: map[string]any{"tier": []any{"gold", 1}}},
		{AppID: "two", Claims: map[string]any{"tier": 1}},
		{AppID: "two", Scopes: []string{""}},
		{AppID: "web", Scopes: []string{"a"}, Claims: user},
		{AppID: "web", Claims: acting(user, map[string]any{"sub": "agent", "act": map[string]any{"sub": "other"}})},

		{AppID: "one", Scopes: []string{"a", "b"}, OrganizationID: "acme", Claims: acting(map[string]any{"tier": "gold"}, map[string]any{"sub": "agent"})},
		{AppID: "one", Scopes: []string{"b"}, OrganizationID: "acme"},
		{AppID: "one", OrganizationID: "acme"},
		{AppID: "web", Scopes: []string{"a"}, OrganizationID: "acme", Claims: user},
		{AppID: "one", Scopes: []string{"a", "b"}, OrganizationID: "globex", Claims: map[string]any{"tier": "gold"}},
		{AppID: "web", OrganizationID: "globex", Claims: user},
		{AppID: "one", Scopes: []string{"a", "b"}, OrganizationID: "Acme"},
	}
	a, b := m2mauth.AllScopes("a"), m2mauth.AllScopes("b")
	acme := m2mauth.OrganizationPath("org")
	custom := func(err error) m2mauth.Rule {
		return m2mauth.Custom("ask", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return err })
	}
	all, some := m2mauth.AllOf, m2mauth.AnyOf

	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	for _, test := range []struct {
		rule m2mauth.Rule
		want string // no organization: machines a, b, bca, none, ""; users a, none; acme: ab, b, none, user a; globex: ab, user; Acme: ab
	}{
		{m2mauth.AnyToken(), "..... .. ffff ff f"},
		{a, ".s.ss .s ffff ff f"},
		{m2mauth.AllScopes("a", "b"), "ss.ss ss ffff ff f"},
		{m2mauth.AnyScope("a", "b"), "...ss .s ffff ff f"},
		{m2mauth.AnyScope("A"), "sssss ss ffff ff f"},
		{m2mauth.MachineToken(), "..... ff ffff ff f"},
		{m2mauth.UserToken(), "fffff .. ffff ff f"},
		{m2mauth.ClientID("one"), "..fff ff ffff ff f"},
		{m2mauth.ClientID("web", "two"), "ff... .. ffff ff f"},
		{m2mauth.ClientID("ONE"), "fffff ff ffff ff f"},
		{m2mauth.ActedBy("agent"), "fffff f. ffff ff f"},
		{m2mauth.ActedBy("none", "agent"), "fffff f. ffff ff f"},
		{m2mauth.ActedBy("other"), "fffff ff ffff ff f"}, // it acted before
		{m2mauth.ActedBy("web", "alice", "one"), "fffff ff ffff ff f"},
		{m2mauth.HasClaim("/act/sub", "agent"), "fffff f. ffff ff f"},
		{m2mauth.HasClaim("tier", "gold"), ".ffff .. ffff ff f"},
		{m2mauth.HasClaim("tier", "platinum", "silver"), "fffff .. ffff ff f"},
		{m2mauth.HasClaim("tier", "1"), "fffff ff ffff ff f"},
		{m2mauth.HasClaim("scope", "a"), ".ffff .f ffff ff f"},
		{m2mauth.HasClaim("none", "a"), "fffff ff ffff ff f"},
		{custom(nil), "..... .. ffff ff f"},
		{custom(m2mauth.Deny("no")), "fffff ff ffff ff f"},
		{custom(errDown), "eeeee ee ffff ff f"},

		{acme, "fffff ff .... ff f"},
		{m2mauth.OrganizationHeader("x-organization"), "fffff ff .... ff f"},
		{m2mauth.Organization(func(m2mauth.Request) string { return "globex" }), "fffff ff ffff .. f"},
		{m2mauth.Organization(func(m2mauth.Request) string { return "" }), "fffff ff ffff ff f"},

		// A token limited to an organization passes only by a part that compared it.
		{all(acme, m2mauth.ActedBy("agent")), "fffff ff .fff ff f"},
		{some(acme, m2mauth.ActedBy("agent")), "fffff f. .... ff f"},
		{all(acme, a), "fsfss fs .ss. fs f"},
		{all(a, acme), "fsfss fs .ss. fs f"},
		{some(all(acme, a), b), "s..ss ss .fs. fs f"},
		{some(b, all(acme, a)), "s..ss ss .fs. fs f"},
		{some(acme, m2mauth.MachineToken()), "..... ff .... ff f"},
		{some(m2mauth.AnyToken(), acme), "..... .. .... ff f"},
		{all(some(acme, m2mauth.AnyToken()), a), ".s.ss .s .ss. fs f"},
		{all(some(m2mauth.AnyToken(), m2mauth.OrganizationPath("none")), a), ".s.ss .s fssf fs f"},
		{some(all(acme, custom(m2mauth.Deny("no"))), a), ".s.ss .s fssf fs f"},
		{some(all(acme, custom(nil)), all(m2mauth.ClientID("one"), a)), ".sfss fs .... fs f"},
		{all(acme, m2mauth.Organization(func(m2mauth.Request) string { return "globex" })), "fffff ff ffff ff f"},
		{some(acme, m2mauth.Organization(func(m2mauth.Request) string { return "globex" })), "fffff ff .... .. f"},

		// A scope is told if one was among the reasons; a failure outweighs it.
		{all(m2mauth.MachineToken(), a), ".s.ss fs ffff ff f"},
		{all(a, m2mauth.UserToken()), "fsfss .s ffff ff f"},
		{some(m2mauth.UserToken(), a), ".s.ss .. ffff ff f"},
		{some(all(m2mauth.UserToken(), a), all(m2mauth.MachineToken(), b)), "s..ss .s ffff ff f"},
		{all(a, custom(errDown)), "eseSS es ffff ff f"},
		{all(custom(errDown), a), "eseSS es ffff ff f"},
		{some(a, custom(errDown)), ".e.ee .e ffff ff f"},
		{some(custom(errDown), a), ".e.ee .e ffff ff f"},
		{all(a, some(m2mauth.ClientID("two"), custom(nil))), ".s.ss .s ffff ff f"},
		{all(a, all(b, some(m2mauth.AllScopes("c"), m2mauth.ClientID("none")))), "ss.ss ss ffff ff f"},

		{m2mauth.Optional(a), ".s.ss .s ffff ff f"},
		{m2mauth.Optional(all(acme, a)), "fsfss fs .ss. fs f"},
	} {
		t.Run(test.rule.String(), func(t *testing.T) {
			t.Parallel()
			want := strings.ToLower(strings.ReplaceAll(test.want, " ", ""))
			require.Len(t, want, len(tokens))
			got := make([]byte, len(tokens))
			for i, token := range tokens {
				token.Audience = testguard.Shop
				r := httptest.NewRequest(http.MethodGet, "/orgs/acme/things", nil)
				r.Header.Set("Authorization", "Bearer "+issuer.Sign(token))
				r.Header.Set("X-Organization", "acme")
				got[i] = byte(testguard.FateOf(t, guard, test.rule, "GET /orgs/{org}/things", r))
			}
			assert.Equal(t, want, string(got))
		})
	}
}

// acting returns claims with act added.
func acting(claims, act map[string]any) map[string]any {
	if claims = maps.Clone(claims); claims == nil {
		claims = make(map[string]any)
	}
	claims["act"] = act
	return claims
}

// RFC 8693 §4.1 lets access depend on the current actor alone. Its sub says who it is.
func TestActedByAsksForTheCurrentActorsSubject(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	type act = map[string]any
	for _, test := range []struct {
		name string
		act  any // nil: none
		want error
	}{
		{"the actor", act{"sub": "agent"}, nil},
		{"another of two", act{"sub": "helper"}, nil},
		{"no actor", nil, m2mauth.ErrForbidden},
		{"another actor", act{"sub": "intruder"}, m2mauth.ErrForbidden},
		{"another letter case", act{"sub": "Agent"}, m2mauth.ErrForbidden},
		{"white space around", act{"sub": "agent "}, m2mauth.ErrForbidden},
		{"one that begins so", act{"sub": "agents"}, m2mauth.ErrForbidden},
		{"the actor, on behalf of another", act{"sub": "agent", "act": act{"sub": "intruder"}}, nil},
		{"a prior actor", act{"sub": "intruder", "act": act{"sub": "agent"}}, m2mauth.ErrForbidden},
		{"the actor's client", act{"sub": "intruder", "client_id": "agent"}, m2mauth.ErrForbidden},
		{"the actor by another client", act{"sub": "agent", "client_id": "intruder"}, nil},
		{"the actor of this issuer", act{"sub": "agent", "iss": "https://issuer.test/oidc"}, nil},
		{"an actor of another issuer", act{"sub": "agent", "iss": "https://issuer.test/oidc/"}, m2mauth.ErrForbidden},
		{"times that have no meaning there", act{"sub": "agent", "exp": 1, "nbf": "tomorrow"}, nil},
		{"a malformed act", act{"sub": []string{"agent"}}, m2mauth.ErrClaims},
		{"an act that is no object", "agent", m2mauth.ErrClaims},
	} {
		claims := map[string]any{"sub": "alice"}
		if test.act != nil {
			claims["act"] = test.act
		}
		r := testguard.RequestWith("Bearer " + issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: claims}))
		for range 2 { // what is remembered too
			_, err := guard.Check(r, m2mauth.ActedBy("agent", "helper"))
			require.ErrorIs(t, err, test.want, test.name)
		}
	}
}

func TestARuleSaysWhyItRefuses(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	a, b := m2mauth.AllScopes("a"), m2mauth.AnyScope("b", "c")
	ask := m2mauth.Custom("stock", func(_ context.Context, c m2mauth.Claims, _ m2mauth.Request) error {
		if c.Scopes().Has("denied") {
			return fmt.Errorf("look-up: %w", m2mauth.Deny("out of stock"))
		}
		return errDown
	})
	for _, test := range []struct {
		name   string
		rule   m2mauth.Rule
		token  m2mauthtest.Token
		kind   error
		scopes []string
		text   string
		logged string // besides
	}{
		{"all scopes of the route, in order and once, and of alternatives the first", m2mauth.AllOf(b, m2mauth.AnyOf(a, m2mauth.AllScopes("c", "d"))),
			m2mauthtest.Token{Scopes: []string{"x"}}, m2mauth.ErrScope, []string{"b", "a"}, "lacks a scope", "AllOf(AnyScope"},
		{"a token without scopes", m2mauth.AllOf(m2mauth.MachineToken(), a), m2mauthtest.Token{}, m2mauth.ErrScope, []string{"a"}, "the token has no scopes", ""},
		{"a scope among the reasons", m2mauth.AllOf(m2mauth.UserToken(), a), m2mauthtest.Token{Scopes: []string{"x"}}, m2mauth.ErrScope, []string{"a"}, "lacks a scope", ""},
		{"the kind alone", m2mauth.AllOf(m2mauth.UserToken(), a), m2mauthtest.Token{Scopes: []string{"a"}}, m2mauth.ErrForbidden, nil, "wrong kind", "rule=AllOf(UserToken(), AllScopes(a))"},
		{"the client alone", m2mauth.AllOf(a, m2mauth.ClientID("x")), m2mauthtest.Token{AppID: "y", Scopes: []string{"a"}}, m2mauth.ErrForbidden, nil, "client", "client_id=y"},
		{"the actor alone", m2mauth.AllOf(a, m2mauth.ActedBy("x")), m2mauthtest.Token{AppID: "x", Scopes: []string{"a"}, Claims: acting(nil, map[string]any{"sub": "y"})},
			m2mauth.ErrForbidden, nil, "the party that acts with the token (act)", "actor=y"},
		{"a claim alone", m2mauth.AllOf(a, m2mauth.HasClaim("tier", "gold")), m2mauthtest.Token{Scopes: []string{"a"}}, m2mauth.ErrForbidden, nil, "claim", ""},
		{"the organization alone", m2mauth.AllOf(a, m2mauth.OrganizationPath("org")), m2mauthtest.Token{Scopes: []string{"a"}, OrganizationID: "globex"},
			m2mauth.ErrForbidden, nil, "not for the organization", "organization_id=globex"},
		{"a route of no organization", a, m2mauthtest.Token{Scopes: []string{"a"}, OrganizationID: "globex"},
			m2mauth.ErrForbidden, nil, "limited to an organization, and this route is not", "organization_id=globex"},
		{"a function's no", m2mauth.AllOf(a, ask), m2mauthtest.Token{Scopes: []string{"a", "denied"}}, m2mauth.ErrForbidden, nil, "out of stock", ""},
		{"a function's failure", m2mauth.AllOf(a, ask), m2mauthtest.Token{Scopes: []string{"a"}},
			m2mauth.ErrInternal, nil, "could not be authorized because of an internal error", "db.internal"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			test.token.Audience = testguard.Shop
			r := httptest.NewRequest(http.MethodGet, "/orgs/acme/things", nil)
			r.Header.Set("Authorization", "Bearer "+issuer.Sign(test.token))
			mux := http.NewServeMux()
			mux.Handle("GET /orgs/{org}/things", guard.RequireRule(test.rule)(http.NotFoundHandler()))
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)

			_, err := guard.Check(r, test.rule)
			require.ErrorIs(t, err, test.kind)
			var e *m2mauth.Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, test.scopes, e.Scopes)
			assert.Contains(t, e.Description, test.text)
			assert.Equal(t, e.Status, w.Code)
			assert.Contains(t, w.Body.String(), test.text)
			assert.NotContains(t, w.Body.String()+fmt.Sprint(w.Header()), "db.internal", "nothing internal")
			plain := strings.NewReplacer(`\`, "", `"`, "").Replace(log.String())
			assert.Contains(t, plain, test.logged)
			if test.kind != m2mauth.ErrInternal {
				assert.Contains(t, plain, "pattern=GET /orgs/{org}/things")
			}
		})
	}
}

func TestRulesAskAFunctionLastAndOnlyOfTokensThatPass(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	a, acme := m2mauth.AllScopes("a"), m2mauth.OrganizationPath("org")
	asked := 0
	ask := m2mauth.Custom("ask", func(ctx context.Context, c m2mauth.Claims, r m2mauth.Request) error {
		asked++
		assert.Equal(t, "value", ctx.Value(contextKey{}))
		assert.Equal(t, []string{"seen"}, r.Header("x-test"))
		assert.NotEmpty(t, c.ClientID())
		return nil
	})
	for _, test := range []struct {
		rule  m2mauth.Rule
		token m2mauthtest.Token
		want  int
	}{
		{ask, m2mauthtest.Token{}, 1},
		{ask, m2mauthtest.Token{OrganizationID: "acme"}, 0},
		{m2mauth.AllOf(ask, a), m2mauthtest.Token{Scopes: []string{"a"}}, 1},
		{m2mauth.AllOf(ask, a), m2mauthtest.Token{}, 0},
		{m2mauth.AllOf(a, ask), m2mauthtest.Token{}, 0},
		{m2mauth.AllOf(m2mauth.AllOf(ask, m2mauth.AnyToken()), a), m2mauthtest.Token{}, 0},
		{m2mauth.AllOf(m2mauth.AnyOf(m2mauth.UserToken(), ask), a), m2mauthtest.Token{}, 0},
		{m2mauth.AnyOf(a, ask), m2mauthtest.Token{Scopes: []string{"a"}}, 0},
		{m2mauth.AnyOf(a, ask), m2mauthtest.Token{}, 1},
		{m2mauth.AllOf(ask, acme), m2mauthtest.Token{OrganizationID: "globex"}, 0},
	} {
		asked = 0
		test.token.Audience = testguard.Shop
		r := httptest.NewRequest(http.MethodGet, "/orgs/acme", nil)
		r = r.WithContext(context.WithValue(t.Context(), contextKey{}, "value"))
		r.Header.Set("X-Test", "seen")
		r.Header.Set("Authorization", "Bearer "+issuer.Sign(test.token))
		_, _ = guard.Check(r, test.rule)
		assert.Equal(t, test.want, asked, "%s of %+v", test.rule, test.token)
	}
}

type contextKey struct{}

func TestOptionalRules(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	rule := m2mauth.Optional(m2mauth.AllScopes("a"))
	assert.True(t, rule.IsOptional())
	assert.False(t, m2mauth.AllScopes("a").IsOptional())
	good := "Bearer " + issuer.Token(testguard.Shop, "a")
	for _, test := range []struct {
		name   string
		fields []string
		status int
		caller bool
	}{
		{"no field", nil, 200, false},
		{"an empty field", []string{""}, 200, false},
		{"another scheme", []string{"Basic YTpi"}, 200, false},
		{"a good token", []string{good}, 200, true},
		{"a token without the scope", []string{"Bearer " + issuer.Token(testguard.Shop, "b")}, 403, false},
		{"a bad token", []string{good + "x"}, 401, false},
		{"Bearer alone", []string{"Bearer"}, 400, false},
		{"two fields", []string{good, good}, 400, false},
		{"another scheme beside a token", []string{"Basic YTpi", good}, 400, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			claims, err := guard.Check(testguard.RequestWith(test.fields...), rule)
			assert.Equal(t, test.status != 200, err != nil)
			assert.Equal(t, test.caller, !claims.IsZero())

			reached := false
			w := httptest.NewRecorder()
			w.Header().Set("Vary", "Origin")
			guard.RequireRule(rule)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				reached = true
				_, caller := m2mauth.FromContext(r.Context())
				assert.Equal(t, test.caller, caller)
			})).ServeHTTP(w, testguard.RequestWith(test.fields...))
			assert.Equal(t, test.status, w.Code)
			assert.Equal(t, test.status == 200, reached)
			assert.Equal(t, []string{"Origin", "Authorization"}, w.Header().Values("Vary"))
		})
	}
}

func TestMistakesInRulesPanic(t *testing.T) {
	t.Parallel()
	a := m2mauth.AllScopes("a")
	optional := m2mauth.Optional(a)
	guard := testguard.Quiet(t, m2mauthtest.NewIssuer())
	organizations := testguard.Quiet(t, m2mauthtest.NewIssuer(), func(c *m2mauth.Config) { c.Audience = "urn:logto:organization:" })
	for _, test := range []struct {
		want string
		make func()
	}{
		{`AllOf: no rule given`, func() { m2mauth.AllOf() }},
		{`AnyOf: no rule given`, func() { m2mauth.AnyOf() }},
		{`AllOf: Rule{} cannot be part of another rule`, func() { m2mauth.AllOf(a, m2mauth.Rule{}) }},
		{`AnyOf: Rule{} cannot be part of another rule`, func() { m2mauth.AnyOf(m2mauth.Rule{}) }},
		{`AllOf: Optional(AllScopes("a")) cannot be part of another rule`, func() { m2mauth.AllOf(optional, a) }},
		{`AnyOf: Optional(AllScopes("a")) cannot be part of another rule`, func() { m2mauth.AnyOf(a, optional) }},
		{`Optional: Optional(AllScopes("a")) cannot be optional`, func() { m2mauth.Optional(optional) }},
		{`Optional: Rule{} cannot be optional`, func() { m2mauth.Optional(m2mauth.Rule{}) }},
		{`AllOf(MachineToken(), AllScopes("a"), UserToken()): no token can meet this`, func() { m2mauth.AllOf(m2mauth.MachineToken(), a, m2mauth.UserToken()) }},
		{`AllOf(MachineToken(), UserToken()): no token can meet this`, func() { m2mauth.AnyOf(a, m2mauth.AllOf(m2mauth.MachineToken(), m2mauth.UserToken())) }},
		{`ClientID(): nothing given`, func() { m2mauth.ClientID() }},
		{`ClientID("x", ""): nothing given, or something empty`, func() { m2mauth.ClientID("x", "") }},
		{`ActedBy(): nothing given`, func() { m2mauth.ActedBy() }},
		{`ActedBy("x", ""): nothing given, or something empty`, func() { m2mauth.ActedBy("x", "") }},
		{`HasClaim("tier"): nothing given`, func() { m2mauth.HasClaim("tier") }},
		{`HasClaim("tier", ""): nothing given, or something empty`, func() { m2mauth.HasClaim("tier", "") }},
		{`HasClaim("", "gold"): nothing given, or something empty`, func() { m2mauth.HasClaim("", "gold") }},
		{`OrganizationPath(""): nothing given, or something empty`, func() { m2mauth.OrganizationPath("") }},
		{`OrganizationPath("{org}"): give the wildcard's name alone`, func() { m2mauth.OrganizationPath("{org}") }},
		{`OrganizationPath(":org"): give the wildcard's name alone`, func() { m2mauth.OrganizationPath(":org") }},
		{`OrganizationHeader(""): nothing given, or something empty`, func() { m2mauth.OrganizationHeader("") }},
		{`OrganizationHeader("Host"): no header field of that name`, func() { m2mauth.OrganizationHeader("Host") }},
		{`OrganizationHeader("host"): no header field of that name`, func() { m2mauth.OrganizationHeader("host") }},
		{`OrganizationHeader("authorization"): no header field of that name`, func() { m2mauth.OrganizationHeader("authorization") }},
		{`OrganizationHeader("TE"): no header field of that name`, func() { m2mauth.OrganizationHeader("TE") }},
		{`OrganizationHeader("Transfer-Encoding"): no header field of that name`, func() { m2mauth.OrganizationHeader("Transfer-Encoding") }},
		{`OrganizationHeader("proxy-authorization"): no header field of that name`, func() { m2mauth.OrganizationHeader("proxy-authorization") }},
		{`OrganizationHeader("X Organization"): no header field of that name`, func() { m2mauth.OrganizationHeader("X Organization") }},
		{`OrganizationHeader("X-Organization:"): no header field of that name`, func() { m2mauth.OrganizationHeader("X-Organization:") }},
		{`OrganizationHeader("X-Organization\n"): no header field of that name`, func() { m2mauth.OrganizationHeader("X-Organization\n") }},
		{`OrganizationHeader(":authority"): no header field of that name`, func() { m2mauth.OrganizationHeader(":authority") }},
		{`OrganizationHeader("X-Größe"): no header field of that name`, func() { m2mauth.OrganizationHeader("X-Größe") }},
		{`Organization: the function is nil`, func() { m2mauth.Organization(nil) }},
		{`Custom("stock"): the function is nil`, func() { m2mauth.Custom("stock", nil) }},
		{`RequireRule: the zero Rule lets nobody through`, func() { guard.RequireRule(m2mauth.Rule{}) }},
		{`RequireRule: AllOf(MachineToken(), AllScopes("a")) names no organization`, func() { organizations.RequireRule(m2mauth.AllOf(m2mauth.MachineToken(), a)) }},
		{`Require: AllScopes("a") names no organization`, func() { organizations.Require("a") }},
		{`RequireAny: AnyScope("a") names no organization`, func() { organizations.RequireAny("a") }},
		{`Authenticate: AnyToken() names no organization`, func() { organizations.Authenticate(http.NotFoundHandler()) }},
	} {
		t.Run(test.want, func(t *testing.T) {
			t.Parallel()
			want := "m2mauth: " + strings.ReplaceAll(test.want, "AllOf(a, ", `AllOf(AllScopes("a"), `)
			message := ""
			func() {
				defer func() { message, _ = recover().(string) }()
				test.make()
			}()
			require.NotEmpty(t, message, "no panic")
			assert.Contains(t, message, want)
		})
	}
	assert.NotPanics(t, func() {
		m2mauth.AnyOf(m2mauth.MachineToken(), m2mauth.UserToken())
		m2mauth.AllOf(m2mauth.MachineToken(), m2mauth.MachineToken(), m2mauth.AnyOf(m2mauth.UserToken(), a)) // a part that routes share
		organizations.RequireRule(m2mauth.AnyOf(a, m2mauth.OrganizationPath("org")))
		m2mauth.OrganizationHeader("x_organization.id")
	})
}

// TestRuleIsPrintedAsItIsWritten is for reviews and logs.
func TestRuleIsPrintedAsItIsWritten(t *testing.T) {
	t.Parallel()
	none := func(context.Context, m2mauth.Claims, m2mauth.Request) error { return nil }
	rule := m2mauth.Optional(m2mauth.AnyOf(
		m2mauth.AllOf(m2mauth.Custom("stock", none), m2mauth.OrganizationPath("org"), m2mauth.AllScopes("a", "b")),
		m2mauth.AllOf(m2mauth.MachineToken(), m2mauth.ClientID("x", "y"), m2mauth.HasClaim("tier", "gold", "silver")),
		m2mauth.AllOf(m2mauth.UserToken(), m2mauth.OrganizationHeader("X-Org"), m2mauth.ActedBy("agent", "é")),
		m2mauth.Organization(func(m2mauth.Request) string { return "" }),
	))
	assert.Equal(t, `Optional(AnyOf(AllOf(Custom("stock"), OrganizationPath("org"), AllScopes("a", "b")), `+
		`AllOf(MachineToken(), ClientID("x", "y"), HasClaim("tier", "gold", "silver")), `+
		`AllOf(UserToken(), OrganizationHeader("X-Org"), ActedBy("agent", "é")), Organization(func)))`, rule.String())
}

// TestClaimsOfARuleAreReadByManyRequests has several rules ask the same token at once.
func TestClaimsOfARuleAreReadByManyRequests(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	token := m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"tier": "gold", "roles": []string{"editor", "admin"}}}
	r := testguard.RequestWith("Bearer " + issuer.Sign(token))
	require.NoError(t, guard.Warm(t.Context()))
	for range 20 {
		for want, rule := range map[bool]m2mauth.Rule{
			true:  m2mauth.AllOf(m2mauth.HasClaim("tier", "gold"), m2mauth.HasClaim("roles", "admin")),
			false: m2mauth.AnyOf(m2mauth.HasClaim("roles", "gold"), m2mauth.HasClaim("none", "gold"), m2mauth.HasClaim("tier", "admin")),
		} {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				_, err := guard.Check(r, rule)
				assert.Equal(t, want, err == nil)
			})
		}
	}
}

// TestARuleIsNotChangedThroughWhatItWasMadeOf keeps a rule apart from its caller's memory.
func TestARuleIsNotChangedThroughWhatItWasMadeOf(t *testing.T) {
	t.Parallel()
	clients, values := []string{"x"}, []string{"gold"}
	parts := []m2mauth.Rule{m2mauth.ClientID(clients...), m2mauth.ActedBy(clients...), m2mauth.HasClaim("tier", values...)}
	rule := m2mauth.AllOf(parts...)
	clients[0], values[0], parts[0] = "changed", "changed", m2mauth.AnyToken()
	assert.Equal(t, `AllOf(ClientID("x"), ActedBy("x"), HasClaim("tier", "gold"))`, rule.String())
}

// Names and values that rules give are compared byte by byte, never by letter case.
func TestRulesCompareNamesAndValuesByteByByte(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	department := func(value any) m2mauthtest.Token {
		return m2mauthtest.Token{Claims: map[string]any{"department": value}}
	}
	sales := m2mauth.HasClaim("department", "sales")
	for _, test := range []struct {
		name  string
		rule  m2mauth.Rule
		token m2mauthtest.Token
		want  error
	}{
		{"the value", sales, department("sales"), nil},
		{"an array with the value", sales, department([]string{"it", "sales"}), nil},
		{"another letter case", sales, department("Sales"), m2mauth.ErrForbidden},
		{"another letter case, of the rule's", m2mauth.HasClaim("department", "SALES"), department("sales"), m2mauth.ErrForbidden},
		{"another letter case in an array", sales, department([]string{"it", "SALES"}), m2mauth.ErrForbidden},
		{"a letter that folds to one of the value", sales, department("\u017fales"), m2mauth.ErrForbidden},
		{"white space around", sales, department(" sales "), m2mauth.ErrForbidden},
		{"a value that begins so", sales, department("sales-emea"), m2mauth.ErrForbidden},
		{"the claim in another letter case", sales, m2mauthtest.Token{Claims: map[string]any{"Department": "sales"}}, m2mauth.ErrForbidden},
		{"the client", m2mauth.ClientID("billing"), m2mauthtest.Token{AppID: "billing"}, nil},
		{"the client in another letter case", m2mauth.ClientID("billing"), m2mauthtest.Token{AppID: "Billing"}, m2mauth.ErrForbidden},
		{"the scope in another letter case", m2mauth.AllScopes("read"), m2mauthtest.Token{Scopes: []string{"READ"}}, m2mauth.ErrScope},
		{"any scope in another letter case", m2mauth.AnyScope("read"), m2mauthtest.Token{Scopes: []string{"Read"}}, m2mauth.ErrScope},
		{"the organization", m2mauth.OrganizationHeader("X-Organization"), m2mauthtest.Token{OrganizationID: "acme"}, nil},
		{"the organization in another letter case", m2mauth.OrganizationHeader("X-Organization"), m2mauthtest.Token{OrganizationID: "ACME"}, m2mauth.ErrForbidden},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.token.Audience = testguard.Shop
			r := testguard.RequestWith("Bearer " + issuer.Sign(test.token))
			r.Header.Set("X-Organization", "acme")
			for range 2 { // what is remembered too
				_, err := guard.Check(r, test.rule)
				require.ErrorIs(t, err, test.want)
			}
		})
	}
}

// A function of the user's, perhaps a look-up in a database, is asked for no token
// that the rest of the rule refuses, however the rule is nested.
func TestRulesAskFunctionsLast(t *testing.T) {
	asked := 0
	db := m2mauth.Custom("db", func(context.Context, m2mauth.Claims, m2mauth.Request) error {
		asked++
		return errors.New("the database is down")
	})
	yes := m2mauth.Custom("yes", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return nil })
	scope := m2mauth.AllScopes("x")
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, func(*m2mauth.Config) {})
	for name, test := range map[string]struct {
		rule  m2mauth.Rule
		token m2mauthtest.Token
		want  error
		asked int
	}{
		"beside a scope":                    {m2mauth.AllOf(db, scope), m2mauthtest.Token{}, m2mauth.ErrScope, 0},
		"beside a nested rule":              {m2mauth.AllOf(db, m2mauth.AllOf(yes, scope)), m2mauthtest.Token{}, m2mauth.ErrScope, 0},
		"beside a nested choice":            {m2mauth.AllOf(db, m2mauth.AnyOf(m2mauth.AllOf(scope, yes))), m2mauthtest.Token{}, m2mauth.ErrScope, 0},
		"within a choice":                   {m2mauth.AnyOf(m2mauth.AllOf(db, scope), m2mauth.UserToken()), m2mauthtest.Token{}, m2mauth.ErrScope, 0},
		"of a token of an organization":     {m2mauth.AllOf(m2mauth.AnyOf(m2mauth.OrganizationPath("org"), m2mauth.AnyToken()), db), m2mauthtest.Token{OrganizationID: "b"}, m2mauth.ErrForbidden, 0},
		"where the rest is met":             {m2mauth.AllOf(db, scope), m2mauthtest.Token{Scopes: []string{"x"}}, m2mauth.ErrInternal, 1},
		"not after one that refused":        {m2mauth.AllOf(m2mauth.Custom("no", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return m2mauth.Deny("no") }), db), m2mauthtest.Token{}, m2mauth.ErrForbidden, 0},
		"not on a way that is closed":       {m2mauth.AnyOf(m2mauth.AllOf(db, scope), m2mauth.MachineToken()), m2mauthtest.Token{}, nil, 0},
		"not where another way is open yet": {m2mauth.AnyOf(m2mauth.MachineToken(), db), m2mauthtest.Token{}, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			asked = 0
			test.token.Audience = testguard.Shop
			_, err := guard.Check(testguard.RequestWith("Bearer "+issuer.Sign(test.token)), test.rule)
			require.ErrorIs(t, err, test.want)
			assert.Equal(t, test.asked, asked)
		})
	}
}

// A branch that a function refuses binds nothing: the branch beside it, which compares
// no organization, lets no organization's token through.
func TestAnOrganizationComparedInARefusedBranchOpensNoOther(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	var answer error
	own := m2mauth.Custom("own order", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return answer })
	bound := m2mauth.AllOf(m2mauth.OrganizationHeader("X-Organization"), own)
	for name, rule := range map[string]m2mauth.Rule{
		"a machine's branch": m2mauth.AllOf(m2mauth.AllScopes("read:orders"), m2mauth.AnyOf(bound, m2mauth.MachineToken())),
		"in another order":   m2mauth.AllOf(m2mauth.AnyOf(m2mauth.MachineToken(), bound), m2mauth.AllScopes("read:orders")),
		"nested deeper":      m2mauth.AllOf(m2mauth.AnyOf(m2mauth.AllOf(m2mauth.AnyOf(bound, m2mauth.AnyToken())), m2mauth.MachineToken())),
	} {
		t.Run(name, func(t *testing.T) {
			r := testguard.RequestWith("Bearer " + issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Scopes: []string{"read:orders"}, OrganizationID: "acme"}))
			r.Header.Set("X-Organization", "acme")
			for _, answer = range []error{m2mauth.Deny("another customer's order"), errors.New("the database is down")} {
				claims, err := guard.Check(r, rule)
				assert.Error(t, err)
				assert.True(t, claims.IsZero())
			}
			answer = nil
			_, err := guard.Check(r, rule)
			assert.NoError(t, err)
		})
	}
}

func TestRulesMayDenyWithATextThatIsNotUTF8(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, func(*m2mauth.Config) {})
	no := m2mauth.Custom("no", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return m2mauth.Deny("no \xff way") })
	w := httptest.NewRecorder()
	guard.RequireRule(no)(http.NotFoundHandler()).ServeHTTP(w, testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop)))
	assert.Equal(t, http.StatusForbidden, w.Code)
	assert.JSONEq(t, `{"error":"insufficient_scope","error_description":"no ? way"}`, w.Body.String())
}

func TestAnAnonymousRequestHasNoClaimsOfAnOuterContext(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, func(*m2mauth.Config) {})
	r := httptest.NewRequest("GET", "/", nil)
	r = r.WithContext(m2mauth.NewContext(r.Context(), m2mauthtest.Claims(t, "outer")))
	reached := false
	guard.RequireRule(m2mauth.Optional(m2mauth.AnyToken()))(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, ok := m2mauth.FromContext(r.Context())
		reached = true
		assert.False(t, ok)
	})).ServeHTTP(httptest.NewRecorder(), r)
	assert.True(t, reached)
}

func TestWarmOfAJoinedGuardReturnsAnError(t *testing.T) {
	down := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	}
	issuer := m2mauthtest.NewIssuer()
	issuer.Intercept(down)
	other := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.Issuer = "https://other.test/oidc" })
	joined, err := m2mauth.Join(testguard.Quiet(t, issuer, func(*m2mauth.Config) {}), other)
	require.NoError(t, err)
	var e *m2mauth.Error
	require.ErrorAs(t, joined.Warm(t.Context()), &e)
	assert.ErrorIs(t, e, m2mauth.ErrUnavailable)
}

// rulesToMeasure are a plain rule and nested ones, met by a token with the scope
// read that is of no organization or, for the last, of acme.
func rulesToMeasure() map[string]m2mauth.Rule {
	own := m2mauth.AllOf(m2mauth.OrganizationPath("org"), m2mauth.AllScopes("read"))
	return map[string]m2mauth.Rule{
		"a plain rule": m2mauth.AllScopes("read"),
		"a nested rule": m2mauth.AnyOf(m2mauth.AllOf(m2mauth.UserToken(), m2mauth.AnyScope("write", "admin")),
			m2mauth.AllOf(m2mauth.MachineToken(), m2mauth.ClientID("another", "app"), m2mauth.AnyScope("write", "read"))),
		"a claim's rule":         m2mauth.AllOf(m2mauth.HasClaim("client_id", "app"), m2mauth.HasClaim("iss", "https://issuer.test/oidc")),
		"an organization's rule": m2mauth.AnyOf(m2mauth.AllScopes("admin"), m2mauth.AllOf(own, m2mauth.MachineToken())),
	}
}

// BenchmarkRule measures Check of a token that was seen before. A nested rule may
// add 100 ns to a plain one.
func BenchmarkRule(b *testing.B) {
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(b, issuer)
	for _, name := range []string{"a plain rule", "a nested rule", "a claim's rule", "an organization's rule"} {
		b.Run(name, func(b *testing.B) {
			r, rule := knownRequest(b, guard, issuer, name), rulesToMeasure()[name]
			b.ReportAllocs()
			for b.Loop() {
				if _, err := guard.Check(r, rule); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRuleSetUp makes rules of that many parts and mounts them. It grows in
// proportion to the parts, also where each scope is one that is logged.
func BenchmarkRuleSetUp(b *testing.B) {
	for _, parts := range []int{1000, 10_000} {
		benchmarkRuleSetUp(b, strconv.Itoa(parts), parts, "")
		benchmarkRuleSetUp(b, strconv.Itoa(parts)+" with stars", parts, ":*")
	}
}

func benchmarkRuleSetUp(b *testing.B, name string, parts int, suffix string) {
	scopes := make([]string, parts)
	for i := range scopes {
		scopes[i] = "read:" + strconv.Itoa(i) + suffix
	}
	issuer := m2mauthtest.NewIssuer()
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			guard := testguard.Quiet(b, issuer) // which logs each scope once
			rules := make([]m2mauth.Rule, parts)
			for i := range rules {
				rules[i] = m2mauth.AllOf(m2mauth.ClientID("app", scopes[i]), m2mauth.HasClaim("iss", scopes[i]), m2mauth.HasClaim("sub", scopes[i]), m2mauth.AllScopes(scopes[i]))
			}
			guard.RequireRule(m2mauth.AllOf(m2mauth.AnyOf(rules...), m2mauth.AllScopes(scopes...)))
		}
	})
}

// BenchmarkFoldedRule makes, mounts and checks a rule that was folded so many times,
// as a loop over a list does. It grows in proportion to them.
func BenchmarkFoldedRule(b *testing.B) {
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(b, issuer)
	r := testguard.RequestWith("Bearer " + issuer.Token(testguard.Shop, "read"))
	permit := m2mauth.Custom("permit", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return nil })
	for _, folds := range []int{1000, 10_000} {
		b.Run(strconv.Itoa(folds), func(b *testing.B) {
			for b.Loop() {
				rule := permit
				for i := range folds {
					rule = m2mauth.AllOf(rule, m2mauth.AnyScope("read", strconv.Itoa(i)))
				}
				guard.RequireRule(rule)
				if _, err := guard.Check(r, rule); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestRulesAllocateNothingForAKnownToken(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	allocs := map[string]float64{}
	for name, rule := range rulesToMeasure() {
		r := knownRequest(t, guard, issuer, name)
		allocs[name] = testing.AllocsPerRun(1000, func() { _, _ = guard.Check(r, rule) })
	}
	for name, n := range allocs {
		assert.Zero(t, n, name)
	}
}
