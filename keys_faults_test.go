package m2mauth_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// A key that cannot be used is no news at each fetch: nothing was signed with it.
func TestKeysThatCannotBeUsedAreNeitherNewNorWithdrawn(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		var log keysLog
		issuer := m2mauthtest.NewIssuer()
		issuer.PublishJWK([]byte(`{"kty":"RSA","kid":"enc1","use":"enc","alg":"RSA-OAEP","n":"AQAB","e":"AQAB"}`))
		keysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Header.Del("If-None-Match")
			next.ServeHTTP(w, r)
		})
		g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		require.NoError(t, g.Warm(t.Context()))
		synctest.Wait()
		n := len(log.since(0))
		for range 3 {
			time.Sleep(keysTTL)
			require.NoError(t, g.Warm(t.Context()))
			synctest.Wait()
		}
		for _, l := range log.since(n) {
			assert.NotContains(t, l, "INFO")
		}
	})
}

// A refresh that was due costs nothing, whoever joined it with a made-up key ID: one
// source holds others up for 2 s at most.
func TestMadeUpKeyIDsThatJoinARefreshCostNothing(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		madeUp := keysMadeUp(issuer)
		keysSlow(issuer, 100*time.Millisecond)
		time.Sleep(keysTTL * 95 / 100) // refresh is due
		// the attacker (one source): first request begins scheduled refresh & joins it
		n := 0
		attack := func() { n++; go keysFrom(t, g, madeUp("x"+strconv.Itoa(n)), oneSource) }
		begin := time.Now()
		attack()
		time.Sleep(200 * time.Millisecond)
		for time.Since(begin) < 2500*time.Millisecond {
			attack()
			time.Sleep(50 * time.Millisecond)
		}
		// rotation now
		issuer.Rotate("ES384")
		token := keysToken(issuer, "")
		rot := time.Now()
		for {
			attack()
			if keysFrom(t, g, token, anotherSource) == 200 {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		assert.LessOrEqual(t, time.Since(rot), 2200*time.Millisecond)
	})
}

type panickingContext struct{ context.Context }

func (panickingContext) Done() <-chan struct{} { panic("a context of the user's") }

// A panic in a context is the request's: it comes out, and leaves no lock and no place
// taken.
func TestAPanickingContextLeavesNothingBehind(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	g := keysGuard(t, issuer)
	token := keysToken(issuer, "")
	assert.Panics(t, func() { _, _ = g.Verify(panickingContext{context.Background()}, token) })
	_, err := g.Verify(t.Context(), token)
	assert.NoError(t, err)
}

// The error of the place where the document is, and not of those where it is not.
func TestDiscoveryTellsOfThePlaceThatFailed(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		issuer.Intercept(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "openid-configuration") {
					http.NotFound(w, r)
					return
				}
				w.Header().Set("Retry-After", "40")
				http.Error(w, "down", http.StatusServiceUnavailable)
			})
		})
		g := keysGuard(t, issuer)
		err := g.Warm(t.Context())
		var e *m2mauth.Error
		require.True(t, errors.As(err, &e))
		assert.Equal(t, 40*time.Second, e.RetryAfter)
		assert.Contains(t, err.Error(), "503")
	})
}
