package m2mauth_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestOrganizationClaims(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.OrganizationClaims = []string{"org_id", "/org/id"} })
	for _, test := range []struct {
		name     string
		claims   map[string]any
		want     error // of a rule for acme
		anywhere error // of a rule without organization
	}{
		{"none", nil, m2mauth.ErrForbidden, nil},
		{"by organization_id still", map[string]any{"organization_id": "acme"}, nil, m2mauth.ErrForbidden},
		{"by another name", map[string]any{"org_id": "acme"}, nil, m2mauth.ErrForbidden},
		{"by a pointer", map[string]any{"org": raw(`{"id":"acme"}`)}, nil, m2mauth.ErrForbidden},
		{"no way to it", map[string]any{"org": raw(`["acme"]`)}, m2mauth.ErrForbidden, nil},
		{"another organization", map[string]any{"org_id": "globex"}, m2mauth.ErrForbidden, m2mauth.ErrForbidden},
		{"the same twice", map[string]any{"organization_id": "acme", "org_id": "acme"}, nil, m2mauth.ErrForbidden},
		{"two that differ", map[string]any{"organization_id": "globex", "org_id": "acme"}, m2mauth.ErrClaims, m2mauth.ErrClaims},
		{"two that differ, the other way round", map[string]any{"org_id": "globex", "org": raw(`{"id":"acme"}`)}, m2mauth.ErrClaims, m2mauth.ErrClaims},
		{"empty", map[string]any{"org_id": ""}, m2mauth.ErrClaims, m2mauth.ErrClaims},
		{"null", map[string]any{"org_id": raw("null")}, m2mauth.ErrClaims, m2mauth.ErrClaims},
		{"an array", map[string]any{"org_id": []string{"acme"}}, m2mauth.ErrClaims, m2mauth.ErrClaims},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := testguard.RequestWith("Bearer " + issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: test.claims}))
			r.SetPathValue("org", "acme")
			for range 2 {
				claims, err := guard.Check(r, m2mauth.OrganizationPath("org"))
				assert.ErrorIs(t, err, test.want)
				if err == nil {
					assert.Equal(t, "acme", claims.OrganizationID())
				}
				_, err = guard.Check(r, m2mauth.AnyToken())
				assert.ErrorIs(t, err, test.anywhere)
			}
		})
	}
}

// With a guard for organization tokens the organization is in aud, and nowhere else.
func TestOrganizationClaimsBesideAnOrganizationAudience(t *testing.T) {
	t.Parallel()
	row := func(name string, claims map[string]any, want error) {
		claims["aud"] = "urn:logto:organization:acme"
		claimRow{name: name, claims: claims, want: want}.check(t, func(c *m2mauth.Config) {
			c.Audience, c.OrganizationClaims, c.InsecureAllowOrganizationTokens = "urn:logto:organization:", []string{"org_id"}, true
		})
	}
	row("in aud", map[string]any{}, nil)
	row("in both", map[string]any{"org_id": "acme"}, m2mauth.ErrClaims)
}

func TestRequiredClaims(t *testing.T) {
	t.Parallel()
	good := func(name string, value any) map[string]any {
		claims := map[string]any{"tid": "t1", "google": raw(`{"owner":"7"}`)}
		claims[name] = value
		return claims
	}
	for _, row := range []claimRow{
		{"both", good("x", 1), nil, nil},
		{"another of the values", good("tid", "t2"), nil, nil},
		{"an array with one", good("tid", []string{"x", "t2"}), nil, nil},
		{"another value", good("tid", "t3"), m2mauth.ErrClaims, nil},
		{"another letter case", good("tid", "T1"), m2mauth.ErrClaims, nil},
		{"an array without one", good("tid", []string{"x"}), m2mauth.ErrClaims, nil},
		{"an array with one and a number", good("tid", raw(`["t1",1]`)), m2mauth.ErrClaims, nil},
		{"an empty array", good("tid", []string{}), m2mauth.ErrClaims, nil},
		{"null", good("tid", raw(`null`)), m2mauth.ErrClaims, nil},
		{"absent", good("tid", nil), m2mauth.ErrClaims, nil},
		{"a number", good("google", raw(`{"owner":7}`)), m2mauth.ErrClaims, nil},
		{"no way to it", good("google", raw(`[{"owner":"7"}]`)), m2mauth.ErrClaims, nil},
		{"doubled", good("google", raw(`{"owner":"7","owner":"7"}`)), m2mauth.ErrMalformed, nil},
	} {
		row.check(t, func(c *m2mauth.Config) {
			c.RequiredClaims = map[string][]string{"tid": {"t1", "t2"}, "/google/owner": {"7"}, "/iss": {c.Issuer}}
		})
	}
}

func TestTokensWithoutSubject(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	strict := testguard.Quiet(t, issuer)
	users := func(m2mauth.Claims) bool { return false } // is not asked where there is no sub
	lax := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.AllowMissingSubject = true })
	asking := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.AllowMissingSubject, c.IsMachine = true, users })
	for _, test := range []struct {
		name    string
		sub     any
		want    error
		machine bool // at lax
	}{
		{"none", nil, nil, true},
		{"the client", "app", nil, true},
		{"a user", "alice", nil, false},
		{"empty", "", m2mauth.ErrClaims, false},
		{"null", raw("null"), m2mauth.ErrClaims, false},
		{"a number", 1, m2mauth.ErrClaims, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			token := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, AppID: "app", Claims: map[string]any{"sub": test.sub}})
			for range 2 {
				claims, err := lax.Verify(t.Context(), token)
				require.ErrorIs(t, err, test.want)
				assert.Equal(t, test.machine, claims.IsMachine())
				assert.Equal(t, test.machine, claims.AppID() == "app")
				_, err = lax.Check(testguard.RequestWith("Bearer "+token), m2mauth.UserToken())
				assert.Equal(t, test.want == nil && !test.machine, err == nil)
			}
			_, err := strict.Verify(t.Context(), token)
			assert.Equal(t, test.want == nil && test.sub != nil, err == nil)
			claims, err := asking.Verify(t.Context(), token)
			assert.ErrorIs(t, err, test.want)
			assert.Equal(t, test.sub == nil, claims.IsMachine())
		})
	}
	assert.False(t, m2mauth.Claims{}.IsMachine())
}

func TestClientsWithoutAudience(t *testing.T) {
	t.Parallel()
	of := func(client string, aud any) map[string]any {
		return map[string]any{"client_id": client, "sub": client, "aud": aud}
	}
	for _, row := range []claimRow{
		{"a client of the list", of("listed", nil), nil, nil},
		{"another of the list", of("too", nil), nil, nil},
		{"any other", of("another", nil), m2mauth.ErrClaims, nil},
		{"another letter case", of("Listed", nil), m2mauth.ErrClaims, nil},
		{"no client", map[string]any{"client_id": nil, "aud": nil}, m2mauth.ErrClaims, nil},
		{"two clients", map[string]any{"client_id": "listed", "azp": "another", "aud": nil}, m2mauth.ErrClaims, nil},
		{"null", of("listed", raw("null")), m2mauth.ErrClaims, nil},
		{"an empty array", of("listed", raw("[]")), m2mauth.ErrAudience, nil},
		{"empty", of("listed", ""), m2mauth.ErrAudience, nil},
		{"another audience", of("listed", "https://other.api"), m2mauth.ErrAudience, nil},
		{"the audience", of("listed", testguard.Shop), nil, nil},
		{"the audience, of another client", of("another", testguard.Shop), nil, nil},
		{"the issuer's name in another letter case", map[string]any{"client_id": "listed", "aud": nil, "AUD": "x"}, nil, nil},
	} {
		row.check(t, func(c *m2mauth.Config) {
			c.ClientClaims, c.ClientsWithoutAudience = []string{"client_id", "azp"}, []string{"listed", "too"}
		})
	}
}

// claimRow is a token with claims of a kind, at a guard with settings for it.
type claimRow struct {
	name   string
	claims map[string]any // nil leaves a claim out; json.RawMessage stands as it is
	want   error
	scopes []string // of a token that passes
}

func (row claimRow) check(t *testing.T, change func(*m2mauth.Config)) {
	t.Run(row.name, func(t *testing.T) {
		t.Parallel()
		issuer := m2mauthtest.NewIssuer()
		guard := testguard.Quiet(t, issuer, change)
		token := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: row.claims})
		for range 2 { // once it is remembered too
			claims, err := guard.Verify(t.Context(), token)
			require.ErrorIs(t, err, row.want)
			assert.Equal(t, err != nil, claims.IsZero())
			if err == nil && row.scopes != nil {
				assert.Equal(t, row.scopes, append([]string{}, sliceOf(claims.Scopes())...))
			}
		}
	})
}

func sliceOf(scopes m2mauth.Scopes) (list []string) {
	for scope := range scopes.All() {
		list = append(list, scope)
	}
	return list
}

func raw(s string) json.RawMessage { return json.RawMessage(s) }

// Keycloak's roles lie in an object. What is not on the way through objects is not there.
func TestScopeClaimsThroughObjects(t *testing.T) {
	t.Parallel()
	roles := func(value string) map[string]any { return map[string]any{"realm_access": raw(value)} }
	for _, row := range []claimRow{
		{"an array", roles(`{"roles":["read","write"]}`), nil, []string{"read", "write"}},
		{"a string", roles(`{"roles":"read write"}`), nil, []string{"read", "write"}},
		{"an escaped name", roles(`{"r\u006fles":["read"]}`), nil, []string{"read"}},
		{"no claim", nil, nil, []string{}},
		{"no member", roles(`{"other":["read"]}`), nil, []string{}},
		{"another letter case", roles(`{"Roles":["read"]}`), nil, []string{}},
		{"through an array", roles(`[{"roles":["read"]}]`), nil, []string{}},
		{"through a string", roles(`"roles"`), nil, []string{}},
		{"through null", roles(`null`), nil, []string{}},
		{"a step further in", roles(`{"x":{"roles":["read"]}}`), nil, []string{}},
		{"a member of that name at the top", map[string]any{"roles": []string{"read"}, "/realm_access/roles": "read"}, nil, []string{}},
		{"a wrong type", roles(`{"roles":["read",1]}`), m2mauth.ErrClaims, nil},
		{"null at its end", roles(`{"roles":null}`), m2mauth.ErrClaims, nil},
		{"an object at its end", roles(`{"roles":{}}`), m2mauth.ErrClaims, nil},
		{"doubled", roles(`{"roles":["read"],"roles":["write"]}`), m2mauth.ErrMalformed, nil},
		{"doubled by an escape", roles(`{"roles":["read"],"r\u006fles":["write"]}`), m2mauth.ErrMalformed, nil},
	} {
		row.check(t, func(c *m2mauth.Config) { c.ScopeClaims = []string{"/realm_access/roles"} })
	}
}

func TestClientClaimsThroughObjects(t *testing.T) {
	t.Parallel()
	for _, row := range []claimRow{
		{"the same twice", map[string]any{"client_id": "a", "sub": "a", "x": raw(`{"/":{"~":"a"}}`)}, nil, nil},
		{"alone", map[string]any{"client_id": nil, "sub": "a", "x": raw(`{"/":{"~":"a"}}`)}, nil, nil},
		{"two that differ", map[string]any{"client_id": "a", "sub": "a", "x": raw(`{"/":{"~":"b"}}`)}, m2mauth.ErrClaims, nil},
		{"not a string", map[string]any{"client_id": "a", "sub": "a", "x": raw(`{"/":{"~":1}}`)}, m2mauth.ErrClaims, nil},
		{"no way to it", map[string]any{"client_id": nil, "sub": "a", "x": raw(`{"/":["~"]}`)}, m2mauth.ErrClaims, nil},
	} {
		row.check(t, func(c *m2mauth.Config) { c.ClientClaims = []string{"/client_id", "/x/~1/~0"} })
	}
}

func TestHasClaimThroughObjects(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	r := testguard.RequestWith("Bearer " + issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, AppID: "app", Claims: map[string]any{
		"kubernetes.io": raw(`{"namespace":"prod","serviceaccount":{"name":"billing","uid":"1-2"},"list":[{"namespace":"x"}],"n":1}`), "a/b": "c",
	}}))
	for _, test := range []struct {
		claim, value string
		want         error
	}{
		{"/kubernetes.io/namespace", "prod", nil},
		{"/kubernetes.io/namespace", "test", m2mauth.ErrForbidden},
		{"/kubernetes.io/serviceaccount/uid", "1-2", nil},
		{"kubernetes.io/namespace", "prod", m2mauth.ErrForbidden}, // a name like any other
		{"/kubernetes.io/list/0/namespace", "x", m2mauth.ErrForbidden},
		{"/kubernetes.io/n", "1", m2mauth.ErrForbidden},
		{"/kubernetes.io/serviceaccount", "billing", m2mauth.ErrForbidden},
		{"/kubernetes.io/namespace/x", "prod", m2mauth.ErrForbidden},
		{"/a~1b", "c", nil},
		{"a/b", "c", nil},
		{"/sub", "app", nil},
		{"/sub", "another", m2mauth.ErrForbidden},
		{"/aud", testguard.Shop, nil},
		{"/iss/x", "app", m2mauth.ErrForbidden},
	} {
		for range 2 {
			_, err := guard.Check(r, m2mauth.HasClaim(test.claim, test.value))
			assert.ErrorIs(t, err, test.want, "%s is %s", test.claim, test.value)
		}
	}
	assert.Equal(t, `HasClaim("sub", "x")`, m2mauth.HasClaim("/sub", "x").String())
	for _, bad := range []string{"", "/", "/a/", "//a", "/a~2", "/~"} {
		assert.Panics(t, func() { m2mauth.HasClaim(bad, "x") }, bad)
	}
}

func TestScopePrefix(t *testing.T) {
	t.Parallel()
	for _, row := range []claimRow{
		{"ours and another's", map[string]any{"scope": "shop/read bills/read shop/write"}, nil, []string{"read", "write"}},
		{"without prefix", map[string]any{"scope": "read"}, nil, []string{}},
		{"the prefix alone", map[string]any{"scope": "shop/"}, nil, []string{}},
		{"another letter case", map[string]any{"scope": "Shop/read"}, nil, []string{}},
		{"inside another's", map[string]any{"scope": "my-shop/read x/shop/read"}, nil, []string{}},
		{"the prefix twice", map[string]any{"scope": "shop/shop/read"}, nil, []string{"shop/read"}},
		{"an array", map[string]any{"scope": []string{"shop/read", "read", "shop/a b"}}, nil, []string{"read", "a b"}},
	} {
		row.check(t, func(c *m2mauth.Config) { c.ScopePrefix = "shop/" })
	}
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.ScopePrefix = "shop/" })
	_, err := guard.Check(testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, "read")), m2mauth.AllScopes("read", "write"))
	require.ErrorIs(t, err, m2mauth.ErrScope)
	assert.Contains(t, challengeOf(err), `scope="shop/read shop/write"`, "what a client can ask for")
	_, err = guard.Check(testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, "shop/read", "shop/write")), m2mauth.AllScopes("read", "write"))
	require.NoError(t, err)
}

func TestScopeOrganization(t *testing.T) {
	t.Parallel()
	roles := func(value string) map[string]any { return map[string]any{"scope": nil, "roles": raw(value)} }
	for _, row := range []claimRow{
		{"of the organization", roles(`{"reader":{"234":"acme.example"}}`), nil, []string{"reader"}},
		{"of another", roles(`{"reader":{"999":"evil.example"}}`), nil, []string{}},
		{"each by itself", roles(`{"reader":{"234":"a"},"admin":{"999":"b"},"writer":{"999":"b","234":"a"}}`), nil, []string{"reader", "writer"}},
		{"the organization as a domain", roles(`{"admin":{"999":"234"}}`), nil, []string{}},
		{"one whose ID begins so", roles(`{"admin":{"2345":"b"}}`), nil, []string{}},
		{"a role of that name", roles(`{"234":{"999":"b"}}`), nil, []string{}},
		{"further in", roles(`{"admin":{"x":{"234":"a"}}}`), nil, []string{}},
		{"of none", roles(`{"reader":{}}`), nil, []string{}},
		{"no roles", roles(`{}`), nil, []string{}},
		{"no claim", map[string]any{"scope": "reader"}, nil, []string{}},
		{"a name with a space", roles(`{"a b":{"234":"a"}}`), nil, []string{"a b"}},
		{"a value that is no domain", roles(`{"reader":{"234":null}}`), m2mauth.ErrClaims, nil},
		{"a role without organizations", roles(`{"reader":"234"}`), m2mauth.ErrClaims, nil},
		{"a list of them", roles(`{"reader":["234"]}`), m2mauth.ErrClaims, nil},
		{"an array", roles(`["reader"]`), m2mauth.ErrClaims, nil},
		{"a string", roles(`"reader"`), m2mauth.ErrClaims, nil},
		{"null", roles(`null`), m2mauth.ErrClaims, nil},
		{"doubled", roles(`{"reader":{"999":"b"},"reader":{"234":"a"}}`), m2mauth.ErrMalformed, nil},
		{"an organization doubled", roles(`{"reader":{"234":"a","23\u0034":"b"}}`), m2mauth.ErrMalformed, nil},
	} {
		row.check(t, func(c *m2mauth.Config) { c.ScopeClaims, c.ScopeOrganization = []string{"roles"}, "234" })
	}
	claimRow{name: "no such setting", claims: roles(`{"reader":{"234":"acme.example"}}`), want: m2mauth.ErrClaims}.check(t,
		func(c *m2mauth.Config) { c.ScopeClaims = []string{"roles"} })
}

func TestImpliedScopes(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
		c.ImpliedScopes = map[string][]string{"admin": {"write", "audit"}, "write": {"read"}}
	})
	for range 2 {
		claims, err := guard.Verify(t.Context(), issuer.Token(testguard.Shop, "x", "admin", "audit"))
		require.NoError(t, err)
		scopes := claims.Scopes()
		assert.True(t, scopes.HasAll("x", "admin", "audit", "write", "read"))
		assert.True(t, scopes.HasAny("none", "read"))
		assert.False(t, scopes.Has("none"))
		assert.Equal(t, "x admin audit", scopes.String())
		assert.Equal(t, 3, scopes.Len())
		assert.Equal(t, []string{"x", "admin", "audit"}, sliceOf(scopes))
	}
	claims, err := guard.Verify(t.Context(), issuer.Token(testguard.Shop, "read"))
	require.NoError(t, err)
	assert.False(t, claims.Scopes().HasAny("write", "admin", "audit"), "not the other way round")

	for _, test := range []struct {
		rule m2mauth.Rule
		want string
	}{
		{m2mauth.AllScopes("read", "write", "x"), "write x"},
		{m2mauth.AllScopes("read", "admin", "write"), "admin"},
		{m2mauth.AnyScope("admin", "x", "read"), "read"},
		{m2mauth.AnyScope("x", "read", "admin"), "x"},
		{m2mauth.AnyOf(m2mauth.AllScopes("write", "x"), m2mauth.AllScopes("x", "read")), "x read"},
		{m2mauth.AnyOf(m2mauth.ClientID("a"), m2mauth.AllScopes("admin"), m2mauth.AllOf(m2mauth.AnyScope("write", "read"), m2mauth.AllScopes("audit"))), "read audit"},
		{m2mauth.AllOf(m2mauth.AnyScope("read", "write"), m2mauth.AllScopes("write")), "write"},
		{m2mauth.AnyOf(m2mauth.AnyToken(), m2mauth.MachineToken()), ""},
	} {
		_, err := guard.Check(testguard.RequestWith(), test.rule)
		require.ErrorIs(t, err, m2mauth.ErrNoToken)
		if test.want == "" {
			assert.NotContains(t, challengeOf(err), "scope=", test.rule)
			continue
		}
		assert.Contains(t, challengeOf(err), `scope="`+test.want+`"`, test.rule)
		_, err = guard.Check(testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop)), test.rule)
		require.ErrorIs(t, err, m2mauth.ErrScope)
		assert.Contains(t, challengeOf(err), `scope="`+test.want+`"`, test.rule)
	}
}

// Whoever has not said whose token comes is told what every issuer takes.
func TestScopesOfJoinedIssuersAreTheirOwn(t *testing.T) {
	t.Parallel()
	one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
	both := joined(t,
		one.guard(t, func(c *m2mauth.Config) {
			c.ImpliedScopes, c.ScopePrefix = map[string][]string{"write": {"read"}, "admin": {"write"}}, "shop/"
		}),
		two.guard(t, func(c *m2mauth.Config) { c.ImpliedScopes = map[string][]string{"admin": {"read"}} }))
	check := func(from tenant, scope string, rule m2mauth.Rule) error {
		_, err := both.Check(testguard.RequestWith("Bearer "+from.sign(m2mauthtest.Token{Audience: testguard.Shop, Scopes: []string{scope}})), rule)
		return err
	}
	require.NoError(t, check(one, "shop/write", m2mauth.AllScopes("read")))
	require.ErrorIs(t, check(one, "write", m2mauth.AllScopes("read")), m2mauth.ErrScope)
	require.ErrorIs(t, check(two, "write", m2mauth.AllScopes("read")), m2mauth.ErrScope)
	require.NoError(t, check(two, "admin", m2mauth.AllScopes("read")))

	all := m2mauth.AllScopes("read", "write", "admin")
	assert.Contains(t, challengeOf(check(one, "x", all)), `scope="shop/admin"`)
	assert.Contains(t, challengeOf(check(two, "x", all)), `scope="write admin"`)
	_, err := both.Check(testguard.RequestWith(), all)
	assert.Contains(t, challengeOf(err), `scope="write admin"`)
}

// What one issuer's Config allows or requires says nothing of another's tokens.
func TestClaimSettingsOfJoinedIssuersAreTheirOwn(t *testing.T) {
	t.Parallel()
	lax, plain := newTenant("https://lax.test/oidc"), newTenant("https://plain.test/oidc")
	both := joined(t, plain.guard(t), lax.guard(t, func(c *m2mauth.Config) {
		c.AllowMissingSubject, c.ClientsWithoutAudience = true, []string{"listed"}
		c.RequiredClaims, c.OrganizationClaims = map[string][]string{"tid": {"t1"}}, []string{"org_id"}
		c.ScopeClaims = []string{"/access/roles"}
	}))
	for name, test := range map[string]struct {
		claims     map[string]any
		lax, plain error
	}{
		"no sub":            {map[string]any{"tid": "t1", "sub": nil}, nil, m2mauth.ErrClaims},
		"no aud":            {map[string]any{"tid": "t1", "aud": nil, "client_id": "listed"}, nil, m2mauth.ErrClaims},
		"no aud, unlisted":  {map[string]any{"tid": "t1", "aud": nil, "client_id": "other"}, m2mauth.ErrClaims, m2mauth.ErrClaims},
		"no required claim": {nil, m2mauth.ErrClaims, nil},
		"an organization":   {map[string]any{"tid": "t1", "org_id": "acme"}, m2mauth.ErrForbidden, nil},
	} {
		for _, from := range []struct {
			tenant
			want error
		}{{lax, test.lax}, {plain, test.plain}} {
			_, err := both.Verify(t.Context(), from.sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: test.claims}))
			assert.ErrorIs(t, err, from.want, "%s: %s", from.name, name)
		}
	}
	roles := m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"tid": "t1", "access": map[string]any{"roles": []string{"read"}}}}
	_, err := both.Check(testguard.RequestWith("Bearer "+lax.sign(roles)), m2mauth.AllScopes("read"))
	require.NoError(t, err)
	_, err = both.Check(testguard.RequestWith("Bearer "+plain.sign(roles)), m2mauth.AllScopes("read"))
	require.ErrorIs(t, err, m2mauth.ErrScope)
}

// implicationModel is what includes what, by itself or over others.
type implicationModel map[string][]string

func (m implicationModel) has(held []string, scope string) bool {
	return slices.ContainsFunc(held, func(h string) bool { return h == scope || m.has(m[h], scope) })
}

func (m implicationModel) hasAll(held, asked []string) bool {
	return !slices.ContainsFunc(asked, func(scope string) bool { return !m.has(held, scope) })
}

// least is what the challenge names of a rule's alternatives, each a set of scopes: one
// without what others of it include, before which no alternative needs less.
func (m implicationModel) isLeast(named []string, alternatives [][]string) bool {
	for _, scope := range named {
		others := slices.DeleteFunc(slices.Clone(named), func(s string) bool { return s == scope })
		if m.has(others, scope) {
			return false
		}
	}
	opens := slices.ContainsFunc(alternatives, func(set []string) bool { return m.hasAll(named, set) && m.hasAll(set, named) })
	return opens && !slices.ContainsFunc(alternatives, func(set []string) bool { return m.hasAll(named, set) && !m.hasAll(set, named) })
}

// Random implications: what a token has, and what the challenge names, are as a slow
// model has it, which follows the map at each question.
func TestImpliedScopesAgreeWithAModel(t *testing.T) {
	t.Parallel()
	chance := rand.New(rand.NewPCG(5, 6))
	issuer := m2mauthtest.NewIssuer()
	issuer.Rotate("EdDSA")
	issuer.Rotate("EdDSA")
	names := []string{"a", "b", "c", "d", "e", "f"}
	some := func() (list []string) {
		for range 1 + chance.IntN(3) {
			list = append(list, names[chance.IntN(len(names))])
		}
		return list
	}
	included, reduced := 0, 0
	for range 300 {
		model := implicationModel{}
		order := slices.Clone(names)
		chance.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for range chance.IntN(8) { // never a cycle: only what comes later in the order is included
			i := chance.IntN(len(order) - 1)
			model[order[i]] = append(model[order[i]], order[i+1+chance.IntN(len(order)-i-1)])
		}
		guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.ImpliedScopes = maps.Clone(model) })
		held := some()
		claims, err := guard.Verify(t.Context(), issuer.Token(testguard.Shop, held...))
		require.NoError(t, err)
		assert.Equal(t, held, sliceOf(claims.Scopes()))
		for _, scope := range names {
			require.Equal(t, model.has(held, scope), claims.Scopes().Has(scope), "%v: %v has %s", model, held, scope)
			if model.has(held, scope) && !slices.Contains(held, scope) {
				included++
			}
		}
		for range 4 {
			one, other, any := some(), some(), some()
			rule, alternatives := m2mauth.AnyOf(m2mauth.AllScopes(one...), m2mauth.AllScopes(other...)), [][]string{one, other}
			switch chance.IntN(3) {
			case 0:
				rule, alternatives = m2mauth.AllScopes(one...), [][]string{one}
			case 1:
				rule, alternatives = m2mauth.AnyScope(any...), nil
				for _, scope := range any {
					alternatives = append(alternatives, []string{scope})
				}
			}
			_, err := guard.Check(testguard.RequestWith(), rule)
			var e *m2mauth.Error
			require.ErrorAs(t, err, &e)
			about := fmt.Sprintf("%v: %s names %v", model, rule, e.Scopes)
			if len(model) == 0 { // as if there were no such setting
				alternatives = alternatives[:1]
			}
			require.True(t, model.isLeast(e.Scopes, alternatives), about)
			if len(e.Scopes) < len(slices.Compact(slices.Sorted(slices.Values(one)))) {
				reduced++
			}
		}
	}
	assert.Greater(t, included, 100, "else this tested little")
	assert.Greater(t, reduced, 100, "else this tested little")
}

func TestARequiredClaimOfAnyValue(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
		c.RequiredClaims = map[string][]string{"tenant": {m2mauth.AnyValue}, "/of/it": {"one", m2mauth.AnyValue}}
	})
	nested := map[string]any{"it": 1}
	for _, test := range []struct {
		name   string
		claims map[string]any
		want   error
	}{
		{"a string", map[string]any{"tenant": "acme", "of": nested}, nil},
		{"an empty string", map[string]any{"tenant": "", "of": nested}, nil},
		{"a number", map[string]any{"tenant": 7, "of": nested}, nil},
		{"an object", map[string]any{"tenant": map[string]any{}, "of": nested}, nil},
		{"null", map[string]any{"tenant": json.RawMessage("null"), "of": nested}, m2mauth.ErrClaims},
		{"not there", map[string]any{"of": nested}, m2mauth.ErrClaims},
		{"not there within an object", map[string]any{"tenant": "acme", "of": map[string]any{}}, m2mauth.ErrClaims},
	} {
		_, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: test.claims}))
		if test.want == nil {
			assert.NoError(t, err, test.name)
		} else {
			assert.ErrorIs(t, err, test.want, test.name)
		}
	}
}
