package m2mauthtest_test

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// verifier returns the Verify of a guard, made with the change to its Config.
func verifier(t *testing.T, issuer *m2mauthtest.Issuer, change func(*m2mauth.Config)) func(token string) error {
	t.Helper()
	config := issuer.Config("https://shopping.api")
	config.Logger = slog.New(slog.DiscardHandler)
	if change != nil {
		change(&config)
	}
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	return func(token string) error {
		_, err := guard.Verify(t.Context(), token)
		return err
	}
}

func TestAnExpiredTokenIsRefusedWithAnyLeeway(t *testing.T) {
	const most = 10 * time.Minute // what Config.Leeway may be
	_, err := m2mauth.New(m2mauth.Config{Issuer: "https://issuer.test", Audience: "a", Leeway: most + 1})
	require.ErrorContains(t, err, "Config.Leeway")

	for name, change := range map[string]func(*m2mauth.Config){
		"the default":                   nil,
		"none":                          func(c *m2mauth.Config) { c.Leeway = -1 },
		"the most":                      func(c *m2mauth.Config) { c.Leeway = most },
		"a bound on lifetimes, as well": func(c *m2mauth.Config) { c.Leeway, c.MaxLifetime = most, time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				verify := verifier(t, issuer, change)
				assert.ErrorIs(t, verify(issuer.Sign(m2mauthtest.Token{Audience: "https://shopping.api", Expired: true})), m2mauth.ErrExpired)
			})
		})
	}
}

func TestAnExpiredTokenWasValidForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		claims := payload(t, issuer.Sign(m2mauthtest.Token{Audience: "a", Expired: true, Claims: map[string]any{"jti": "j"}}))
		// The clock of a bubble begins at midnight UTC 2000-01-01, which is 946684800.
		assert.Equal(t, `{"jti":"j","sub":"m2mauthtestapp0000000","iat":946677600,"exp":946681200,"client_id":"m2mauthtestapp0000000","iss":"https://issuer.test/oidc","aud":"a"}`, claims)
	})
}

func TestExpiredAndALifetimeExcludeEachOther(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	for _, lifetime := range []time.Duration{time.Minute, -time.Minute} {
		assert.PanicsWithValue(t, "m2mauthtest: Sign: Expired and Lifetime exclude each other: leave Lifetime out", func() {
			issuer.Sign(m2mauthtest.Token{Audience: "a", Expired: true, Lifetime: lifetime})
		})
	}
}

// What the comment of Token.Lifetime says of the leeway.
func TestALifetimeThatEndedIsAcceptedWithinTheLeeway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		verify := verifier(t, issuer, nil)
		strict := verifier(t, issuer, func(c *m2mauth.Config) { c.Leeway = -1 })

		token := issuer.Sign(m2mauthtest.Token{Audience: "https://shopping.api", Lifetime: -time.Second})
		assert.NoError(t, verify(token))
		assert.ErrorIs(t, strict(token), m2mauth.ErrExpired)

		token = issuer.Sign(m2mauthtest.Token{Audience: "https://shopping.api", Lifetime: time.Minute})
		time.Sleep(time.Minute + 29*time.Second)
		assert.NoError(t, verify(token))
		time.Sleep(time.Second)
		assert.ErrorIs(t, verify(token), m2mauth.ErrExpired)
	})
}
