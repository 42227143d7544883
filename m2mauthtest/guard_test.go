package m2mauthtest_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func newGuard(t *testing.T, issuer *m2mauthtest.Issuer) *m2mauth.Guard {
	t.Helper()
	config := issuer.Config("https://shopping.api")
	config.Logger = slog.New(slog.DiscardHandler)
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	return guard
}

func TestAGuardAcceptsTheIssuersTokens(t *testing.T) {
	t.Parallel()
	listening := listen(t)
	for name, issuer := range map[string]*m2mauthtest.Issuer{"in memory": m2mauthtest.NewIssuer(), "listening": listening} {
		for _, alg := range []string{"ES256", "ES384", "ES512", "RS256", "EdDSA", "Ed25519"} {
			t.Run(name+" "+alg, func(t *testing.T) {
				issuer.Rotate(alg)
				guard := newGuard(t, issuer)
				claims, err := guard.Verify(t.Context(), issuer.Token("https://shopping.api", "read:products"))
				require.NoError(t, err)
				assert.Equal(t, "m2mauthtestapp0000000", claims.AppID())
				assert.True(t, claims.Scopes().Has("read:products"))

				_, err = guard.Verify(t.Context(), issuer.Token("https://billing.api", "read:products"))
				assert.ErrorIs(t, err, m2mauth.ErrAudience)
			})
		}
	}
}

func TestClaimsAreThoseOfAVerifiedToken(t *testing.T) {
	t.Parallel()
	claims := m2mauthtest.Claims(t, "my-app", "read:products", "write:products")
	assert.Equal(t, "my-app", claims.AppID())
	assert.Equal(t, "my-app", claims.ClientID())
	assert.True(t, claims.IsMachine())
	assert.Equal(t, "read:products write:products", claims.Scopes().String())
	assert.Equal(t, []string{"https://api.test"}, claims.Audience())
	assert.Equal(t, "https://issuer.test/oidc", claims.Issuer())
	assert.Equal(t, time.Hour, claims.ExpiresAt().Sub(claims.IssuedAt()))

	assert.NotEmpty(t, m2mauthtest.Claims(t, "").AppID())
	assert.Zero(t, m2mauthtest.Claims(t, "app").Scopes().Len())
}

func TestClaimsWorkInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(365 * 24 * time.Hour)
		claims := m2mauthtest.Claims(t, "my-app", "read:products")
		assert.Equal(t, time.Now().Unix(), claims.IssuedAt().Unix())
	})
}

// failing records a failure in place of failing.
type failing struct {
	testing.TB
	text string
}

func (*failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.text = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestClaimsThatNoTokenCanHaveFailTheTest(t *testing.T) {
	t.Parallel()
	f := &failing{TB: t}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m2mauthtest.Claims(f, string(make([]byte, 9000)))
	}()
	<-ended
	assert.Contains(t, f.text, "m2mauthtest: Claims: ")
}

func TestAnOutageOfTheIssuerCanBePlayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard := newGuard(t, issuer)
		api := guard.Require("read:products")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		call := func() int {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/products", nil)
			r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
			w := httptest.NewRecorder()
			api.ServeHTTP(w, r)
			return w.Code
		}
		issuer.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		})
		assert.Equal(t, http.StatusServiceUnavailable, call())

		issuer.Intercept(nil)
		time.Sleep(time.Minute)
		assert.Equal(t, http.StatusOK, call())
	})
}
