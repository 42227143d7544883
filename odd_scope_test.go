package m2mauth_test

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

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

// They are names like any other, and a route for one works.
func TestAScopeWithACommaOrAStarIsANameLikeAnyOther(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, book := loggedGuard(t, issuer)
	for scope, other := range map[string]string{"a,b": "a", "read:*": "read:products"} {
		_, err := guard.Check(requestWith("Bearer "+issuer.Token(shop, scope)), m2mauth.AllScopes(scope))
		require.NoError(t, err)
		_, err = guard.Check(requestWith("Bearer "+issuer.Token(shop, other)), m2mauth.AllScopes(scope))
		require.ErrorIs(t, err, m2mauth.ErrScope)
		_, err = guard.Check(requestWith("Bearer "+issuer.Token(shop, scope)), m2mauth.AllScopes(other))
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
