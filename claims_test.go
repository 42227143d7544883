package m2mauth_test

import (
	"encoding/json"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// verified returns the claims of a token that a guard of the shop accepts.
func verified(tb testing.TB, token m2mauthtest.Token, change ...func(*m2mauth.Config)) m2mauth.Claims {
	tb.Helper()
	issuer := m2mauthtest.NewIssuer()
	if token.Audience == "" {
		token.Audience = shop
	}
	claims, err := quietGuard(tb, issuer, change...).Verify(tb.Context(), issuer.Sign(token))
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
			Claims:   map[string]any{"jti": "a token", "aud": []string{"https://other.api", shop}},
		})
		assert.Equal(t, "reader", claims.AppID())
		assert.Equal(t, "reader", claims.Subject())
		assert.Equal(t, "reader", claims.ClientID())
		assert.True(t, claims.IsMachine())
		assert.Equal(t, "https://issuer.test/oidc", claims.Issuer())
		assert.Equal(t, "a token", claims.ID())
		assert.Empty(t, claims.OrganizationID())
		assert.Equal(t, []string{"https://other.api", shop}, claims.Audience())
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
	assert.Equal(t, shop, all["aud"])
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
	assert.Equal(t, []string{shop}, claims.Audience())

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
	guard := quietGuard(t, issuer)
	first, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{AppID: "first", Audience: shop, Scopes: []string{"one"}}))
	require.NoError(t, err)
	for range 20 {
		_, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{AppID: "later", Audience: shop, Scopes: []string{"two"}}))
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
