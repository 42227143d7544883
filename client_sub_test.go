package m2mauth_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

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
			config := issuer.Config(shop)
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
	guard := quietGuard(t, issuer, func(c *m2mauth.Config) { c.ClientClaims, c.IsMachine = []string{"sub"}, isMachine })
	for subject, want := range map[string]error{"app": nil, "user": m2mauth.ErrForbidden} {
		token := issuer.Sign(m2mauthtest.Token{Audience: shop, Claims: map[string]any{"sub": subject, "client_id": nil}})
		_, err := guard.Check(requestWith("Bearer "+token), m2mauth.MachineToken())
		require.ErrorIs(t, err, want, subject)
	}
}
