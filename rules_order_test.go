package m2mauth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// A function of the user's, perhaps a look-up in a database, is asked for no token
// that the rest of the rule refuses, however the rule is nested.
func TestFunctionsAreAskedLast(t *testing.T) {
	asked := 0
	db := m2mauth.Custom("db", func(context.Context, m2mauth.Claims, m2mauth.Request) error {
		asked++
		return errors.New("the database is down")
	})
	yes := m2mauth.Custom("yes", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return nil })
	scope := m2mauth.AllScopes("x")
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer, func(*m2mauth.Config) {})
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
			test.token.Audience = shop
			_, err := guard.Check(requestWith("Bearer "+issuer.Sign(test.token)), test.rule)
			require.ErrorIs(t, err, test.want)
			assert.Equal(t, test.asked, asked)
		})
	}
}

// A branch that a function refuses binds nothing: the branch beside it, which compares
// no organization, lets no organization's token through.
func TestAnOrganizationComparedInARefusedBranchOpensNoOther(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer)
	var answer error
	own := m2mauth.Custom("own order", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return answer })
	bound := m2mauth.AllOf(m2mauth.OrganizationHeader("X-Organization"), own)
	for name, rule := range map[string]m2mauth.Rule{
		"a machine's branch": m2mauth.AllOf(m2mauth.AllScopes("read:orders"), m2mauth.AnyOf(bound, m2mauth.MachineToken())),
		"in another order":   m2mauth.AllOf(m2mauth.AnyOf(m2mauth.MachineToken(), bound), m2mauth.AllScopes("read:orders")),
		"nested deeper":      m2mauth.AllOf(m2mauth.AnyOf(m2mauth.AllOf(m2mauth.AnyOf(bound, m2mauth.AnyToken())), m2mauth.MachineToken())),
	} {
		t.Run(name, func(t *testing.T) {
			r := requestWith("Bearer " + issuer.Sign(m2mauthtest.Token{Audience: shop, Scopes: []string{"read:orders"}, OrganizationID: "acme"}))
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

func TestDenyWithATextThatIsNotUTF8(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer, func(*m2mauth.Config) {})
	no := m2mauth.Custom("no", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return m2mauth.Deny("no \xff way") })
	w := httptest.NewRecorder()
	guard.RequireRule(no)(http.NotFoundHandler()).ServeHTTP(w, requestWith("Bearer "+issuer.Token(shop)))
	assert.Equal(t, http.StatusForbidden, w.Code)
	assert.JSONEq(t, `{"error":"insufficient_scope","error_description":"no ? way"}`, w.Body.String())
}

func TestAnAnonymousRequestHasNoClaimsOfAnOuterContext(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer, func(*m2mauth.Config) {})
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
	other := quietGuard(t, issuer, func(c *m2mauth.Config) { c.Issuer = "https://other.test/oidc" })
	joined, err := m2mauth.Join(quietGuard(t, issuer, func(*m2mauth.Config) {}), other)
	require.NoError(t, err)
	var e *m2mauth.Error
	require.ErrorAs(t, joined.Warm(t.Context()), &e)
	assert.ErrorIs(t, e, m2mauth.ErrUnavailable)
}
