package m2mauth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// verified returns the claims of a token that a guard of the shop accepts.
func verified(tb testing.TB, token m2mauthtest.Token, change ...func(*m2mauth.Config)) m2mauth.Claims {
	tb.Helper()
	issuer := m2mauthtest.NewIssuer()
	if token.Audience == "" {
		token.Audience = testguard.Shop
	}
	claims, err := testguard.Quiet(tb, issuer, change...).Verify(tb.Context(), issuer.Sign(token))
	require.NoError(tb, err)
	return claims
}

func TestClaimsOfAMachine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		claims := verified(t, m2mauthtest.Token{
			AppID:    "reader",
			Scopes:   []string{"write:products", "read:products"},
			Lifetime: 2 * time.Hour,
			Claims:   map[string]any{"jti": "a token", "aud": []string{"https://other.api", testguard.Shop}},
		})
		assert.Equal(t, "reader", claims.AppID())
		assert.Equal(t, "reader", claims.Subject())
		assert.Equal(t, "reader", claims.ClientID())
		assert.True(t, claims.IsMachine())
		assert.Equal(t, "https://issuer.test/oidc", claims.Issuer())
		assert.Equal(t, "a token", claims.ID())
		assert.Empty(t, claims.OrganizationID())
		assert.Equal(t, []string{"https://other.api", testguard.Shop}, claims.Audience())
		assert.Equal(t, "write:products read:products", claims.Scopes().String())
		assert.True(t, claims.IssuedAt().Equal(now))
		assert.True(t, claims.ExpiresAt().Equal(now.Add(2*time.Hour)))
	})
}

func TestClaimsOfAUserHaveNoAppID(t *testing.T) {
	t.Parallel()
	for name, token := range map[string]m2mauthtest.Token{
		"another sub":          {AppID: "webapp", Claims: map[string]any{"sub": "user"}},
		"sub in other letters": {AppID: "webapp", Claims: map[string]any{"sub": "WebApp"}},
		"sub with a space":     {AppID: "webapp", Claims: map[string]any{"sub": "webapp "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims := verified(t, token)
			assert.False(t, claims.IsMachine())
			assert.Empty(t, claims.AppID())
			assert.Equal(t, token.Claims["sub"], claims.Subject())
			assert.Equal(t, "webapp", claims.ClientID())
		})
	}
}

// The actor of a token is who acts for its subject, and changes nothing about whose
// token it is: a claims script can write act.
func TestClaimsOfAnActor(t *testing.T) {
	t.Parallel()
	claims := verified(t, m2mauthtest.Token{AppID: "service", Claims: map[string]any{"sub": "alice", "act": map[string]any{
		"sub": "agent", "client_id": "desk", "iss": "https://issuer.test/oidc", "role": "support",
		"act": map[string]any{"sub": "before"},
	}}})
	actor, ok := claims.Actor()
	require.True(t, ok)
	assert.Equal(t, []string{"agent", "desk", "https://issuer.test/oidc"}, []string{actor.Subject, actor.ClientID, actor.Issuer})
	prior, ok := actor.Actor()
	require.True(t, ok)
	assert.Equal(t, []string{"before", "", ""}, []string{prior.Subject, prior.ClientID, prior.Issuer})
	first, ok := prior.Actor()
	assert.False(t, ok)
	assert.Zero(t, first)

	assert.Equal(t, []string{"alice", "service", ""}, []string{claims.Subject(), claims.ClientID(), claims.AppID()})
	assert.False(t, claims.IsMachine())
	machine := verified(t, m2mauthtest.Token{AppID: "service", Claims: map[string]any{"act": map[string]any{"sub": "alice"}}})
	assert.True(t, machine.IsMachine())
	assert.Equal(t, "service", machine.AppID())

	for _, claims := range []m2mauth.Claims{{}, verified(t, m2mauthtest.Token{Claims: map[string]any{"Act": map[string]any{"sub": "agent"}}})} {
		actor, ok := claims.Actor()
		assert.False(t, ok)
		assert.Zero(t, actor)
	}
}

// The members of act are read in internal/claim. A doubled one makes the whole payload
// unreadable.
func TestAMalformedActIsNoToken(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	deep := map[string]any{"sub": "agent"}
	for range 8 {
		deep = map[string]any{"sub": "agent", "act": deep}
	}
	for name, test := range map[string]struct {
		act  any
		want error
	}{
		"null":              {json.RawMessage("null"), m2mauth.ErrClaims},
		"a string":          {"agent", m2mauth.ErrClaims},
		"an array":          {[]any{map[string]any{"sub": "agent"}}, m2mauth.ErrClaims},
		"no sub":            {map[string]any{"client_id": "agent"}, m2mauth.ErrClaims},
		"an empty sub":      {map[string]any{"sub": ""}, m2mauth.ErrClaims},
		"a number for sub":  {map[string]any{"sub": 1}, m2mauth.ErrClaims},
		"a prior one's sub": {map[string]any{"sub": "agent", "act": map[string]any{"sub": nil}}, m2mauth.ErrClaims},
		"nine actors":       {deep, m2mauth.ErrClaims},
		"eight actors":      {deep["act"], nil},
		"a doubled member":  {json.RawMessage(`{"sub":"agent","sub":"agent"}`), m2mauth.ErrMalformed},
	} {
		_, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"act": test.act}}))
		require.ErrorIs(t, err, test.want, name)
		if test.want == m2mauth.ErrClaims {
			assert.Contains(t, challengeOf(err), `the token's claim act is not a chain of at most 8 objects`, name)
		}
	}
}

func TestClaimsThatATokenMayLack(t *testing.T) {
	t.Parallel()
	claims := verified(t, m2mauthtest.Token{
		Header: map[string]any{"typ": nil},
		Claims: map[string]any{"jti": nil, "iat": nil},
	}, func(c *m2mauth.Config) { c.TokenTypes = []string{""} })
	assert.Empty(t, claims.ID())
	assert.True(t, claims.IssuedAt().IsZero())
	assert.Zero(t, claims.Scopes().Len())
	assert.Empty(t, claims.OrganizationID())
}

func TestClaimsThatAreNotThereHideNoOther(t *testing.T) {
	t.Parallel()
	token := m2mauthtest.Token{AppID: "reader", Claims: map[string]any{"scp": "read write", "permissions": []string{"delete"}, "client_id": nil, "azp": "reader"}}
	several := func(c *m2mauth.Config) {
		c.ScopeClaims = []string{"scope", "scp", "roles", "permissions"}
		c.ClientClaims = []string{"client_id", "appid", "azp"}
	}
	claims := verified(t, token, several)
	assert.Equal(t, "read write delete", claims.Scopes().String())
	assert.Equal(t, "reader", claims.AppID())
}

func TestDecodeMatchesNamesExactly(t *testing.T) {
	t.Parallel()
	claims := verified(t, m2mauthtest.Token{AppID: "reader", Claims: map[string]any{
		"SUB": "folded", "ſub": "folded too", "tenant": map[string]any{"name": "acme", "NAME": "folded"}, "Level": 9,
	}})
	var own struct {
		Subject string `json:"sub"`
		Tenant  struct {
			Name string `json:"name"`
		} `json:"tenant"`
		Level int `json:"level"`
	}
	require.NoError(t, claims.Decode(&own))
	assert.Equal(t, "reader", own.Subject)
	assert.Equal(t, "acme", own.Tenant.Name)
	assert.Zero(t, own.Level, "level is not Level")

	var all map[string]any
	require.NoError(t, claims.Decode(&all))
	assert.Equal(t, "folded", all["SUB"])
	assert.Equal(t, testguard.Shop, all["aud"])
	assert.InDelta(t, float64(claims.ExpiresAt().Unix()), all["exp"], 0)
}

func TestDecodeSaysWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	claims := verified(t, m2mauthtest.Token{})
	var wrong struct {
		Subject int `json:"sub"`
	}
	require.Error(t, claims.Decode(&wrong))
	require.Error(t, claims.Decode(nil))
	require.Error(t, claims.Decode(wrong), "no pointer")
	require.ErrorContains(t, new(m2mauth.Claims).Decode(&wrong), "m2mauth: Decode: these Claims come from no token")
}

// Requests with the same token may share Claims, so nothing that an accessor
// returns may lead back into them.
func TestClaimsCannotBeChanged(t *testing.T) {
	t.Parallel()
	claims := verified(t, m2mauthtest.Token{AppID: "reader", Scopes: []string{"read", "write"}, Claims: map[string]any{"own": "mine"}})

	audience := claims.Audience()
	audience[0] = "changed"
	_ = append(audience[:0], "changed")
	assert.Equal(t, []string{testguard.Shop}, claims.Audience())

	scopes := slices.Collect(claims.Scopes().All())
	scopes[0] = "admin"
	assert.False(t, claims.Scopes().Has("admin"))
	assert.Equal(t, "read write", claims.Scopes().String())

	var raw map[string]json.RawMessage
	require.NoError(t, claims.Decode(&raw))
	for _, value := range raw {
		clear(value)
	}
	var whole json.RawMessage
	require.NoError(t, claims.Decode(&whole))
	clear(whole)
	var rude rudeValue
	require.NoError(t, claims.Decode(&rude))

	var again struct{ Own, Sub string }
	require.NoError(t, claims.Decode(&struct {
		Own *string `json:"own"`
		Sub *string `json:"sub"`
	}{&again.Own, &again.Sub}))
	assert.Equal(t, "mine", again.Own)
	assert.Equal(t, "reader", again.Sub)
}

// rudeValue writes to what it was only lent.
type rudeValue struct{}

func (*rudeValue) UnmarshalJSON(data []byte) error {
	clear(data)
	return nil
}

// Reading the claims of one token while others are verified, for the race detector.
func TestClaimsStayAsTheyAreWhileOthersAreRead(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	first, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{AppID: "first", Audience: testguard.Shop, Scopes: []string{"one"}}))
	require.NoError(t, err)
	for range 20 {
		_, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{AppID: "later", Audience: testguard.Shop, Scopes: []string{"two"}}))
		require.NoError(t, err)
	}
	var own struct {
		Sub string `json:"sub"`
	}
	require.NoError(t, first.Decode(&own))
	assert.Equal(t, "first", own.Sub)
	assert.Equal(t, "first", first.AppID())
	assert.Equal(t, "one", first.Scopes().String())
}

// Where sub is taken for the client, sub equals the client in every token: a
// user's token would meet Machine, and AppID would be the user's ID.
func TestSubAmongClientClaimsNeedsIsMachine(t *testing.T) {
	t.Parallel()
	isMachine := func(c m2mauth.Claims) bool { return slices.Contains([]string{"app"}, c.Subject()) }
	for _, test := range []struct {
		name      string
		claims    []string
		isMachine func(m2mauth.Claims) bool
		good      bool
	}{
		{"sub alone", []string{"sub"}, nil, false},
		{"sub after another", []string{"azp", "sub"}, nil, false},
		{"sub with IsMachine", []string{"sub"}, isMachine, true},
		{"another claim", []string{"azp"}, nil, true},
		{"a claim whose name is near", []string{"SUB", "sub_id"}, nil, true},
		{"the default", nil, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			issuer := m2mauthtest.NewIssuer()
			config := issuer.Config(testguard.Shop)
			config.ClientClaims, config.IsMachine = test.claims, test.isMachine
			guard, err := m2mauth.New(config)
			if !test.good {
				require.ErrorContains(t, err, "Config.ClientClaims: with sub every user of the API would be taken for a machine")
				assert.Nil(t, guard)
				return
			}
			require.NoError(t, err)
			assert.NotNil(t, guard)
		})
	}

	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.ClientClaims, c.IsMachine = []string{"sub"}, isMachine })
	for subject, want := range map[string]error{"app": nil, "user": m2mauth.ErrForbidden} {
		token := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"sub": subject, "client_id": nil}})
		_, err := guard.Check(testguard.RequestWith("Bearer "+token), m2mauth.MachineToken())
		require.ErrorIs(t, err, want, subject)
	}
}

// Duende's IdentityServer and Spring write scope as an array. Whether
// Config.ScopeClaims names the claim makes no difference.
func TestAScopeClaimMayBeAnArray(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		scope any
		want  []string // nil: refused
	}{
		{"a string", "read write", []string{"read", "write"}},
		{"an array of one", []string{"read"}, []string{"read"}},
		{"an array of two", []string{"read", "write"}, []string{"read", "write"}},
		{"an empty array", []string{}, []string{}},
		{"an element with a space is one scope", []string{"read write"}, []string{"read write"}},
		{"an element with outer spaces stays as it is", []string{" read "}, []string{" read "}},
		{"a number among them", []any{"read", 1}, nil},
		{"null among them", []any{"read", nil}, nil},
		{"an array in an array", []any{[]string{"read"}}, nil},
		{"an object", map[string]any{"read": true}, nil},
		{"a number", 1, nil},
		{"true", true, nil},
	} {
		for config, change := range map[string]func(*m2mauth.Config){
			"by default":                     func(*m2mauth.Config) {},
			"where ScopeClaims names scope":  func(c *m2mauth.Config) { c.ScopeClaims = []string{"scope"} },
			"where ScopeClaims names others": func(c *m2mauth.Config) { c.ScopeClaims = []string{"scp", "scope"} },
		} {
			t.Run(test.name+" "+config, func(t *testing.T) {
				t.Parallel()
				issuer := m2mauthtest.NewIssuer()
				token := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"scope": test.scope}})
				claims, err := testguard.Quiet(t, issuer, change).Verify(context.Background(), token)
				if test.want == nil {
					require.ErrorIs(t, err, m2mauth.ErrClaims)
					assert.ErrorContains(t, err, "the token's claim scope is not a string or an array of strings")
					return
				}
				require.NoError(t, err)
				assert.Equal(t, test.want, slices.AppendSeq([]string{}, claims.Scopes().All()))
				assert.Equal(t, slices.Contains(test.want, "read"), claims.Scopes().Has("read"))
			})
		}
	}
}

func TestARuleReadsScopesOfAnArray(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	check := func(scope any) error {
		token := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"scope": scope}})
		_, err := guard.Check(testguard.RequestWith("Bearer "+token), m2mauth.AllScopes("read", "write"))
		return err
	}
	require.NoError(t, check([]string{"write", "read"}))
	require.ErrorIs(t, check([]string{"read write"}), m2mauth.ErrScope, "an element is never split")
	require.ErrorIs(t, check([]string{"read"}), m2mauth.ErrScope)
	require.ErrorIs(t, check([]string{}), m2mauth.ErrScope)
}

// Logto takes a,b and read:* as names. Whoever requires them meant something else,
// mostly.
func TestAScopeThatIsMostlyAMistakeIsLoggedAtSetUp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		setUp func(*m2mauth.Guard)
		want  []string // the scopes of the lines
	}{
		{"usual names", func(g *m2mauth.Guard) { g.Require("read:products", "a.b/c+d;e") }, nil},
		{"a comma", func(g *m2mauth.Guard) { g.Require("read,write") }, []string{"read,write"}},
		{"a star", func(g *m2mauth.Guard) { g.Require("read:*") }, []string{"read:*"}},
		{"a star alone", func(g *m2mauth.Guard) { g.RequireAny("*") }, []string{"*"}},
		{"one of several", func(g *m2mauth.Guard) { g.RequireAny("read", "a,b", "write") }, []string{"a,b"}},
		{"two", func(g *m2mauth.Guard) { g.Require("a,b", "c*") }, []string{"a,b", "c*"}},
		{"deep in a rule", func(g *m2mauth.Guard) {
			g.RequireRule(m2mauth.Optional(m2mauth.AllOf(m2mauth.MachineToken(), m2mauth.AnyOf(m2mauth.AllScopes("a,b"), m2mauth.AnyScope("read")))))
		}, []string{"a,b"}},
		{"on several routes", func(g *m2mauth.Guard) { g.Require("a,b"); g.Require("a,b", "c"); g.RequireAny("a,b") }, []string{"a,b"}},
		{"of a joined guard", func(g *m2mauth.Guard) {
			joined, err := m2mauth.Join(g)
			require.NoError(t, err)
			joined.Require("a,b")
		}, []string{"a,b"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			guard, book := loggedGuard(t, m2mauthtest.NewIssuer())
			test.setUp(guard)
			var scopes []string
			for _, entry := range book.take() {
				assert.Equal(t, slog.LevelWarn, entry.level)
				assert.Equal(t, "m2mauth: a scope that a route requires holds a comma or a star, and is one name all the same", entry.attrs["msg"])
				assert.NotEmpty(t, entry.attrs["rule"])
				scopes = append(scopes, entry.attrs["scope"].(string))
			}
			assert.Equal(t, test.want, scopes)
		})
	}
}

// However many there are and however the rule is put together: its text is not in
// each line as a whole.
func TestManyScopesThatAreMostlyAMistakeAreFewShortLines(t *testing.T) {
	t.Parallel()
	folded := m2mauth.AnyToken()
	var scopes []string
	for i := range 2000 {
		scopes = append(scopes, fmt.Sprintf("ü%d:*", i))
		folded = m2mauth.AllOf(folded, m2mauth.AllScopes(scopes[i]))
	}
	for name, rule := range map[string]m2mauth.Rule{"flat": m2mauth.AllScopes(scopes...), "folded": folded} {
		guard, book := loggedGuard(t, m2mauthtest.NewIssuer())
		guard.RequireRule(rule)
		entries := book.take()
		assert.Len(t, entries, 100, name)
		for i, entry := range entries {
			assert.Equal(t, scopes[i], entry.attrs["scope"], name)
			text := entry.attrs["rule"].(string)
			assert.LessOrEqual(t, len(text), 1100, name)
			assert.True(t, utf8.ValidString(text) && strings.HasSuffix(text, "..."), name)
		}
	}
}

// They are names like any other, and a route for one works.
func TestAScopeWithACommaOrAStarIsANameLikeAnyOther(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, book := loggedGuard(t, issuer)
	for scope, other := range map[string]string{"a,b": "a", "read:*": "read:products"} {
		_, err := guard.Check(testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, scope)), m2mauth.AllScopes(scope))
		require.NoError(t, err)
		_, err = guard.Check(testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, other)), m2mauth.AllScopes(scope))
		require.ErrorIs(t, err, m2mauth.ErrScope)
		_, err = guard.Check(testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, scope)), m2mauth.AllScopes(other))
		require.ErrorIs(t, err, m2mauth.ErrScope)
	}
	for _, entry := range book.take() {
		assert.Equal(t, "m2mauth: request refused", entry.attrs["msg"], "no line for each request")
	}
}

// What is remembered so that a line comes once is bounded, should somebody make
// middlewares without end.
func TestOddScopesWithoutEndAreNotAllLogged(t *testing.T) {
	t.Parallel()
	guard, book := loggedGuard(t, m2mauthtest.NewIssuer())
	for n := range 1000 {
		guard.Require(fmt.Sprintf("read:%d:*", n))
	}
	assert.Len(t, book.take(), 100)
}

func ofOrganizations(c *m2mauth.Config) { c.Audience = testguard.OrganizationToken }

// TestTokensOfOrganizationsOnEveryEntry has the three models of Logto and what an
// attacker would try: a role in one organization used in another or for all, and
// tokens of one model where another is expected.
func TestTokensOfOrganizationsOnEveryEntry(t *testing.T) {
	t.Parallel()
	const ok = ""
	issuer := m2mauthtest.NewIssuer()
	guards := map[string]*m2mauth.Guard{
		"API":           testguard.Quiet(t, issuer),
		"organizations": testguard.Quiet(t, issuer, ofOrganizations),
		"API, open":     testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.InsecureAllowOrganizationTokens = true }),
	}
	acme := m2mauth.AllOf(m2mauth.OrganizationPath("org"), m2mauth.AllScopes("read"))
	for _, test := range []struct {
		name   string
		guard  string
		token  m2mauthtest.Token
		global string // Check with a rule of no organization
		acme   string // Check of /orgs/acme
		verify string // Verify, and Authenticate where that can be set up
	}{
		{"a token of no organization", "API", m2mauthtest.Token{}, ok, "ErrForbidden", ok},
		{"an API token of the organization", "API", m2mauthtest.Token{OrganizationID: "acme"}, "ErrForbidden", ok, "ErrForbidden"},
		{"an API token of another organization", "API", m2mauthtest.Token{OrganizationID: "globex"}, "ErrForbidden", "ErrForbidden", "ErrForbidden"},
		{"another letter case", "API", m2mauthtest.Token{OrganizationID: "ACME"}, "ErrForbidden", "ErrForbidden", "ErrForbidden"},
		{"a space after", "API", m2mauthtest.Token{OrganizationID: "acme "}, "ErrForbidden", "ErrForbidden", "ErrForbidden"},
		{"a prefix", "API", m2mauthtest.Token{OrganizationID: "acm"}, "ErrForbidden", "ErrForbidden", "ErrForbidden"},
		{"an empty organization", "API", m2mauthtest.Token{Claims: map[string]any{"organization_id": ""}}, "ErrClaims", "ErrClaims", "ErrClaims"},
		{"organizations in an array", "API", m2mauthtest.Token{Claims: map[string]any{"organization_id": []string{"acme"}}}, "ErrClaims", "ErrClaims", "ErrClaims"},
		{"an organization token", "API", m2mauthtest.Token{Audience: testguard.OrganizationToken + "acme"}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"an organization token that names the API too", "API", m2mauthtest.Token{Claims: map[string]any{"aud": []string{testguard.Shop, testguard.OrganizationToken + "acme"}}}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"the reserved resource", "API", m2mauthtest.Token{Audience: "urn:logto:resource:organizations"}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"the reserved resource beside the API", "API", m2mauthtest.Token{Claims: map[string]any{"aud": []string{"urn:logto:resource:organizations", testguard.Shop}}}, "ErrAudience", "ErrAudience", "ErrAudience"},

		{"an API token of the organization", "API, open", m2mauthtest.Token{OrganizationID: "acme"}, ok, ok, ok},
		{"an API token of another organization", "API, open", m2mauthtest.Token{OrganizationID: "globex"}, ok, "ErrForbidden", ok},
		{"an organization token", "API, open", m2mauthtest.Token{Audience: testguard.OrganizationToken + "acme"}, "ErrAudience", "ErrAudience", "ErrAudience"},

		{"an organization token", "organizations", m2mauthtest.Token{Audience: testguard.OrganizationToken + "acme"}, "ErrForbidden", ok, "ErrForbidden"},
		{"an organization token in an array", "organizations", m2mauthtest.Token{Claims: map[string]any{"aud": []string{testguard.OrganizationToken + "acme"}}}, "ErrForbidden", ok, "ErrForbidden"},
		{"a token of another organization", "organizations", m2mauthtest.Token{Audience: testguard.OrganizationToken + "globex"}, "ErrForbidden", "ErrForbidden", "ErrForbidden"},
		{"another letter case", "organizations", m2mauthtest.Token{Audience: testguard.OrganizationToken + "Acme"}, "ErrForbidden", "ErrForbidden", "ErrForbidden"},
		{"the prefix in another letter case", "organizations", m2mauthtest.Token{Audience: "urn:logto:Organization:acme"}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"an empty organization", "organizations", m2mauthtest.Token{Audience: testguard.OrganizationToken}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"two organizations", "organizations", m2mauthtest.Token{Claims: map[string]any{"aud": []string{testguard.OrganizationToken + "acme", testguard.OrganizationToken + "globex"}}}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"the same organization twice", "organizations", m2mauthtest.Token{Claims: map[string]any{"aud": []string{testguard.OrganizationToken + "acme", testguard.OrganizationToken + "acme"}}}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"no audience", "organizations", m2mauthtest.Token{Claims: map[string]any{"aud": []string{}}}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"an organization and an API", "organizations", m2mauthtest.Token{Claims: map[string]any{"aud": []string{testguard.OrganizationToken + "acme", testguard.Shop}}}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"an organization in both places", "organizations", m2mauthtest.Token{Audience: testguard.OrganizationToken + "acme", OrganizationID: "acme"}, "ErrClaims", "ErrClaims", "ErrClaims"},
		{"an API token of the organization", "organizations", m2mauthtest.Token{Audience: testguard.Shop, OrganizationID: "acme"}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"an API token", "organizations", m2mauthtest.Token{Audience: testguard.Shop}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"the reserved resource", "organizations", m2mauthtest.Token{Audience: "urn:logto:resource:organizations"}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"an ID token", "organizations", m2mauthtest.Token{Audience: testguard.OrganizationToken + "acme", Header: map[string]any{"typ": "JWT"}}, "ErrType", "ErrType", "ErrType"},
	} {
		t.Run(test.name+" and a guard for "+test.guard, func(t *testing.T) {
			t.Parallel()
			guard := guards[test.guard]
			if test.token.Audience == "" {
				test.token.Audience = testguard.Shop
			}
			test.token.Scopes = []string{"read"}
			raw := issuer.Sign(test.token)
			r := httptest.NewRequest(http.MethodGet, "/orgs/acme", nil)
			r.Header.Set("Authorization", "Bearer "+raw)
			r.SetPathValue("org", "acme")

			for range 2 { // at first sight, and remembered
				_, err := guard.Check(r, m2mauth.AllScopes("read"))
				testguard.AssertKind(t, test.global, err)
				_, err = guard.Check(r, m2mauth.AnyToken())
				testguard.AssertKind(t, test.verify, err)
				_, err = guard.Verify(t.Context(), raw)
				testguard.AssertKind(t, test.verify, err)
				claims, err := guard.Check(r, acme)
				testguard.AssertKind(t, test.acme, err)
				if test.acme == ok {
					assert.Equal(t, "acme", claims.OrganizationID())
				}
				if test.guard == "organizations" {
					continue // where Authenticate and Require panic at set-up
				}
				statuses := map[string]int{ok: 200, "ErrForbidden": 403, "ErrAudience": 401, "ErrClaims": 401}
				w := httptest.NewRecorder()
				guard.Authenticate(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
				assert.Equal(t, statuses[test.verify], w.Code, "Authenticate")
				w = httptest.NewRecorder()
				guard.Require("read")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
				assert.Equal(t, statuses[test.global], w.Code, "Require")
			}
		})
	}
}

// TestEveryGuardSeesOrganizations: there is no Config with which a rule that names
// an organization could never hold.
func TestEveryGuardSeesOrganizations(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	jwt := map[string]any{"typ": "JWT"}
	for _, test := range []struct {
		name   string
		change func(*m2mauth.Config)
		token  m2mauthtest.Token
	}{
		{"for an API", func(*m2mauth.Config) {}, m2mauthtest.Token{OrganizationID: "acme"}},
		{"for several APIs", func(c *m2mauth.Config) { c.OtherAudiences = []string{"https://other.api"} }, m2mauthtest.Token{OrganizationID: "acme"}},
		{"that lets all organizations through", func(c *m2mauth.Config) { c.InsecureAllowOrganizationTokens = true }, m2mauthtest.Token{OrganizationID: "acme"}},
		{"for other token types", func(c *m2mauth.Config) { c.TokenTypes = []string{"JWT"} }, m2mauthtest.Token{OrganizationID: "acme", Header: jwt}},
		{"with other claims", func(c *m2mauth.Config) {
			c.ScopeClaims, c.ClientClaims, c.MaxLifetime = []string{"roles"}, []string{"azp"}, time.Hour
		}, m2mauthtest.Token{OrganizationID: "acme", Claims: map[string]any{"azp": "app"}}},
		{"with claims that are the organization's", func(c *m2mauth.Config) {
			c.ScopeClaims, c.ClientClaims = []string{"organization_id"}, []string{"organization_id"}
		}, m2mauthtest.Token{OrganizationID: "acme"}},
		{"without machines", func(c *m2mauth.Config) { c.IsMachine = func(m2mauth.Claims) bool { return false } }, m2mauthtest.Token{OrganizationID: "acme"}},
		{"for organization tokens", ofOrganizations, m2mauthtest.Token{Audience: testguard.OrganizationToken + "acme"}},
		{"for organization tokens that lets all through", func(c *m2mauth.Config) { ofOrganizations(c); c.InsecureAllowOrganizationTokens = true },
			m2mauthtest.Token{Audience: testguard.OrganizationToken + "acme"}},
	} {
		t.Run("a guard "+test.name, func(t *testing.T) {
			t.Parallel()
			guard := testguard.Quiet(t, issuer, test.change)
			if test.token.Audience == "" {
				test.token.Audience = testguard.Shop
			}
			for _, guard := range []*m2mauth.Guard{guard, joined(t, guard)} {
				r := testguard.RequestWith("Bearer " + issuer.Sign(test.token))
				r.SetPathValue("org", "acme")
				w := httptest.NewRecorder()
				guard.RequireRule(m2mauth.OrganizationPath("org"))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
				assert.Equal(t, http.StatusOK, w.Code)
			}
		})
	}
}

// TestTheRemedyFitsTheKindOfToken: an organization token without its organization
// would be no token at all.
func TestTheRemedyFitsTheKindOfToken(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	elsewhere := m2mauth.AnyOf(m2mauth.OrganizationHeader("X-Organization"), m2mauth.AnyToken()) // met, but not by the organization
	const remedy = "request a token without organization_id"
	api, organizations := testguard.Quiet(t, issuer), testguard.Quiet(t, issuer, ofOrganizations)
	for _, rule := range []m2mauth.Rule{m2mauth.AnyToken(), elsewhere} {
		_, err := api.Check(testguard.RequestWith("Bearer "+issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, OrganizationID: "acme"})), rule)
		require.ErrorIs(t, err, m2mauth.ErrForbidden)
		assert.ErrorContains(t, err, remedy)
		_, err = organizations.Check(testguard.RequestWith("Bearer "+issuer.Token(testguard.OrganizationToken+"acme")), rule)
		require.ErrorIs(t, err, m2mauth.ErrForbidden)
		assert.ErrorContains(t, err, "no organization token opens it")
		assert.NotContains(t, err.Error(), remedy)
	}
}

func TestAGuardForOrganizationTokensMayLeaveTheOrganizationToItsHandlers(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, ofOrganizations, func(c *m2mauth.Config) { c.InsecureAllowOrganizationTokens = true })
	assert.NotPanics(t, func() { guard.Require("read") })
	claims, err := guard.Verify(t.Context(), issuer.Token(testguard.OrganizationToken+"acme", "read"))
	require.NoError(t, err)
	assert.Equal(t, "acme", claims.OrganizationID())
}

// TestWhereTheOrganizationOfARequestIsMissing: it never equals anything.
func TestWhereTheOrganizationOfARequestIsMissing(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	sign := func(organization string) string {
		return "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, OrganizationID: organization})
	}
	path, header := m2mauth.OrganizationPath("org"), m2mauth.OrganizationHeader("X-Organization")
	for _, test := range []struct {
		name          string
		rule          m2mauth.Rule
		pattern, path string
		headers       []string
		organization  string // of the token
		want          testguard.Fate
	}{
		{"the organization in the path", path, "GET /orgs/{org}", "/orgs/acme", nil, "acme", testguard.Passes},
		{"the path's bytes as they were meant", path, "GET /orgs/{org}", "/orgs/%61cme", nil, "acme", testguard.Passes},
		{"an organization ID with a slash", path, "GET /orgs/{org}", "/orgs/ac%2Fme", nil, "ac/me", testguard.Passes},
		{"an umlaut in two normal forms", path, "GET /orgs/{org}", "/orgs/a%CC%88", nil, "\u00e4", testguard.NoWay},
		{"a longer path value", path, "GET /orgs/{org...}", "/orgs/acme/x", nil, "acme", testguard.NoWay},
		{"an empty path value", path, "GET /orgs/{org...}", "/orgs/", nil, "acme", testguard.NoWay},
		{"an empty path value and a token of no organization", path, "GET /orgs/{org...}", "/orgs/", nil, "", testguard.NoWay},
		{"another wildcard", path, "GET /orgs/{organization}", "/orgs/acme", nil, "acme", testguard.NoWay},
		{"another wildcard and a token of no organization", path, "GET /orgs/{organization}", "/orgs/acme", nil, "", testguard.NoWay},
		{"a header in place of the path", path, "GET /orgs", "/orgs", []string{"acme"}, "acme", testguard.NoWay},

		{"the organization in the header", header, "GET /", "/", []string{"acme"}, "acme", testguard.Passes},
		{"no header", header, "GET /", "/", nil, "acme", testguard.NoWay},
		{"no header and a token of no organization", header, "GET /", "/", nil, "", testguard.NoWay},
		{"an empty header", header, "GET /", "/", []string{""}, "acme", testguard.NoWay},
		{"an empty header and a token of no organization", header, "GET /", "/", []string{""}, "", testguard.NoWay},
		{"the header twice", header, "GET /", "/", []string{"acme", "acme"}, "acme", testguard.NoWay},
		{"the header twice, the other first", header, "GET /", "/", []string{"globex", "acme"}, "acme", testguard.NoWay},
		{"the header twice, the other last", header, "GET /", "/", []string{"acme", "globex"}, "acme", testguard.NoWay},
		{"two in a header", header, "GET /", "/", []string{"acme, acme"}, "acme", testguard.NoWay},
		{"another letter case in the header", header, "GET /", "/", []string{"Acme"}, "acme", testguard.NoWay},
		{"a space in the header", header, "GET /", "/", []string{"acme "}, "acme", testguard.NoWay},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			r := httptest.NewRequest(http.MethodGet, test.path, nil)
			r.Header.Set("Authorization", sign(test.organization))
			if test.headers != nil {
				r.Header["X-Organization"] = test.headers
			}
			assert.Equal(t, string(test.want), string(testguard.FateOf(t, guard, test.rule, test.pattern, r)))
			if test.want == testguard.NoWay {
				assert.Contains(t, log.String(), `pattern="`+test.pattern+`"`)
			}
		})
	}
}
