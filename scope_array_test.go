package m2mauth_test

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

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
				token := issuer.Sign(m2mauthtest.Token{Audience: shop, Claims: map[string]any{"scope": test.scope}})
				claims, err := quietGuard(t, issuer, change).Verify(context.Background(), token)
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
	guard := quietGuard(t, issuer)
	check := func(scope any) error {
		token := issuer.Sign(m2mauthtest.Token{Audience: shop, Claims: map[string]any{"scope": scope}})
		_, err := guard.Check(requestWith("Bearer "+token), m2mauth.AllScopes("read", "write"))
		return err
	}
	require.NoError(t, check([]string{"write", "read"}))
	require.ErrorIs(t, check([]string{"read write"}), m2mauth.ErrScope, "an element is never split")
	require.ErrorIs(t, check([]string{"read"}), m2mauth.ErrScope)
	require.ErrorIs(t, check([]string{}), m2mauth.ErrScope)
}
