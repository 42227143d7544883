package m2mauth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// keysErrorFrom returns what a token gets that comes from an address.
func keysErrorFrom(t testing.TB, g *m2mauth.Guard, token, address string) *m2mauth.Error {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = address
	r.Header.Set("Authorization", "Bearer "+token)
	_, err := g.Check(r.WithContext(t.Context()), m2mauth.AnyToken())
	if err == nil {
		return nil
	}
	var e *m2mauth.Error
	require.ErrorAs(t, err, &e)
	return e
}

// keysFrom returns the status of that.
func keysFrom(t testing.TB, g *m2mauth.Guard, token, address string) int {
	if e := keysErrorFrom(t, g, token, address); e != nil {
		return e.Status
	}
	return http.StatusOK
}

const (
	oneSource     = "192.0.2.1:1"
	anotherSource = "192.0.2.2:1"
)

// While refetches pause, nobody knows whether a key ID is published: the token may
// be fine.
func TestAKeyIDThatIsNotKnownToBeAbsentIs503InThePause(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		madeUp := keysMadeUp(issuer)
		require.Equal(t, 401, keysFrom(t, g, madeUp("made up"), oneSource))
		assert.True(t, g.Keys().CoolingDown)
		assert.Equal(t, 401, keysFrom(t, g, madeUp("made up"), anotherSource), "known to be absent")

		issuer.Rotate("ES384")
		token := keysToken(issuer, "")
		for _, test := range []struct {
			source string
			wait   time.Duration
		}{{anotherSource, 2 * time.Second}, {oneSource, 10 * time.Second}} {
			e := keysErrorFrom(t, g, token, test.source)
			require.NotNil(t, e)
			assert.ErrorIs(t, e, m2mauth.ErrUnavailable)
			assert.Equal(t, test.wait, e.RetryAfter)
			h, _ := e.Response()
			assert.Equal(t, strconv.Itoa(int(test.wait/time.Second)), h.Get("Retry-After"))
			assert.Empty(t, h.Get("WWW-Authenticate"))
		}
		assert.Equal(t, 2, issuer.Fetches().JWKS)
		time.Sleep(2*time.Second - 1)
		assert.Equal(t, 503, keysFrom(t, g, token, anotherSource))
		time.Sleep(time.Nanosecond)
		assert.False(t, g.Keys().CoolingDown)
		assert.Equal(t, 503, keysFrom(t, g, token, oneSource), "which causes no refetch for 10 s")
		assert.Equal(t, 200, keysFrom(t, g, token, anotherSource))
		assert.Equal(t, 200, keysFrom(t, g, token, oneSource))
		assert.Equal(t, 3, issuer.Fetches().JWKS)
	})
}

func TestASourceThatAskedForAnAbsentKeyIDCausesNoRefetchForTenSeconds(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		madeUp := keysMadeUp(issuer)
		require.Equal(t, 401, keysFrom(t, g, madeUp("made up"), oneSource))
		time.Sleep(10*time.Second - 1)
		assert.Equal(t, 503, keysFrom(t, g, madeUp("made up too"), oneSource))
		assert.Equal(t, 2, issuer.Fetches().JWKS)
		time.Sleep(time.Nanosecond)
		assert.Equal(t, 401, keysFrom(t, g, madeUp("made up too"), oneSource))
		assert.Equal(t, 3, issuer.Fetches().JWKS)
	})
}

// Sources that make key IDs up share a bucket of two, and one comes back in six
// seconds: none of them waits for longer than that.
func TestManySourcesShareABucketOfRefetches(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		madeUp := keysMadeUp(issuer)
		var at []int
		begin, fetched := time.Now(), issuer.Fetches().JWKS
		for i := 0; time.Since(begin) < time.Minute; i++ {
			keysFrom(t, g, madeUp(strconv.Itoa(i)), "198.18.0."+strconv.Itoa(i%250)+":1")
			if now := issuer.Fetches().JWKS; now != fetched {
				at, fetched = append(at, int(time.Since(begin)/time.Second)), now
			}
			time.Sleep(50 * time.Millisecond)
		}
		assert.Equal(t, []int{0, 2, 6, 12, 18, 24, 30, 36, 42, 48, 54}, at)
	})
}

// A refetch that brings the wanted key is the issuer's doing, however often it
// rotates.
func TestARefetchThatBringsTheWantedKeyCostsNothing(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		for i := range 20 {
			issuer.Rotate("EdDSA")
			keysAtOnce(t, g, keysToken(issuer, ""), 200, i)
			assert.False(t, g.Keys().CoolingDown)
		}
	})
}

// Callers with tokens of a key that is gone shall renew them, and not come back
// with them, though everybody else's made-up key IDs are on the way.
func TestAKeyIDThatLeftTheSetIs401AtOnce(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		kid := issuer.KeyIDs()[0]
		token := keysToken(issuer, kid)
		keysAtOnce(t, g, token, 200)
		issuer.Rotate("ES384")
		issuer.Withdraw(kid)
		keysAtOnce(t, g, keysToken(issuer, ""), 200, "the set without it")
		require.Equal(t, 401, keysFrom(t, g, keysMadeUp(issuer)("made up"), anotherSource))
		fetches := issuer.Fetches()
		keysAtOnce(t, g, token, 401, "in the pause")
		time.Sleep(keysPause)
		keysAtOnce(t, g, token, 401, "and after it")
		assert.Equal(t, fetches, issuer.Fetches())
		keysDown(issuer)
		time.Sleep(time.Minute)
		for range 60 {
			keysAtOnce(t, g, token, 401, "in an outage")
			time.Sleep(time.Second)
		}
	})
}

// Where the issuer failed, nobody asked for an absent key ID.
func TestAFailedRefetchMarksNoSource(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		issuer.Rotate("ES384")
		token := keysToken(issuer, "")
		keysDown(issuer)
		assert.Equal(t, 503, keysFrom(t, g, token, oneSource))
		issuer.Intercept(nil)
		time.Sleep(time.Second)
		assert.Equal(t, 200, keysFrom(t, g, token, oneSource))
	})
}

// A request that joins a fetch cannot know whether the issuer answered that before
// its key was there. It waits for no second one.
func TestWhoJoinsAFetchIsNotToldThatItsKeyIsUnknown(t *testing.T) {
	for name, warm := range map[string]bool{"the first fetch": false, "a refetch": true} {
		t.Run(name, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := keysGuard(t, issuer)
				if warm {
					require.NoError(t, g.Warm(t.Context()))
				}
				keysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					made := httptest.NewRecorder()
					next.ServeHTTP(made, r)
					time.Sleep(time.Second)
					w.WriteHeader(made.Code)
					_, _ = w.Write(made.Body.Bytes())
				})
				var wg sync.WaitGroup
				wg.Go(func() { assert.Equal(t, 401, keysFrom(t, g, keysMadeUp(issuer)("made up"), oneSource)) })
				synctest.Wait()
				time.Sleep(time.Second / 2)
				issuer.Rotate("ES384")
				token := keysToken(issuer, "")
				begin := time.Now()
				assert.Equal(t, 503, keysFrom(t, g, token, anotherSource))
				assert.Equal(t, time.Second/2, time.Since(begin))
				wg.Wait()
				time.Sleep(2 * time.Second)
				assert.Equal(t, 200, keysFrom(t, g, token, anotherSource))
			})
		})
	}
}

// Whoever cannot be told apart, such as all callers of Verify, or all behind a
// proxy without Config.QueueKey, waits for ten seconds at most.
func TestCallersOfVerifyAreOneSource(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		madeUp := keysMadeUp(issuer)
		keysAtOnce(t, g, madeUp("made up"), 401)
		issuer.Rotate("ES384")
		token := keysToken(issuer, "")
		begin := time.Now()
		for {
			_, err := g.Verify(t.Context(), token)
			if err == nil {
				break
			}
			var e *m2mauth.Error
			require.True(t, errors.As(err, &e))
			require.Equal(t, 503, e.Status)
			require.LessOrEqual(t, e.RetryAfter, 10*time.Second)
			time.Sleep(e.RetryAfter)
		}
		assert.Equal(t, 10*time.Second, time.Since(begin))
	})
}

// Source is a user's function: nothing is locked while it runs, and it is not
// asked for tokens whose key is there.
func TestSourceIsAskedForUnknownKeyIDsAlone(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		asked := 0
		var g *m2mauth.Guard
		g = keysGuard(t, issuer, func(c *m2mauth.Config) {
			c.QueueKey = func(m2mauth.Request) string { asked++; _ = g.Keys(); return "" }
		})
		token := keysToken(issuer, "")
		require.Equal(t, 200, keysFrom(t, g, token, oneSource))
		asked = 0
		require.Equal(t, 200, keysFrom(t, g, token, oneSource), "remembered")
		assert.Zero(t, asked)
		require.Equal(t, 401, keysFrom(t, g, keysMadeUp(issuer)("made up"), oneSource))
		assert.Equal(t, 1, asked)
	})
}

// The pause in an outage is short where it makes every request fail: without keys,
// and from the moment on at which old ones end.
func TestWithoutKeysTheIssuerIsAskedEveryTenSeconds(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		token := keysToken(issuer, "")
		keysAtOnce(t, g, token, 200)
		begin := time.Now()
		keysDown(issuer)
		for time.Since(begin) < keysTTL+keysStaleFor {
			keysAtOnce(t, g, token, 200, time.Since(begin))
			time.Sleep(time.Second)
		}
		for range 60 {
			_, err := g.Verify(context.Background(), token)
			var e *m2mauth.Error
			require.ErrorAs(t, err, &e)
			assert.LessOrEqual(t, e.RetryAfter, 10*time.Second)
			time.Sleep(time.Second)
		}
		issuer.Intercept(nil)
		time.Sleep(10 * time.Second)
		keysAtOnce(t, g, token, 200)
	})
}

// One that is behind may answer a refresh right after another showed a new key.
func TestAKeyIsNotWithdrawnByAReplicaThatIsLate(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		published := func() string {
			w := httptest.NewRecorder()
			issuer.ServeHTTP(w, httptest.NewRequest("GET", issuer.JWKSURL(), nil))
			return w.Body.String()
		}
		require.NoError(t, g.Warm(t.Context()))
		late := published()
		issuer.Rotate("ES384")
		token, behind := keysToken(issuer, ""), false
		keysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if behind {
				_, _ = io.WriteString(w, late)
				return
			}
			next.ServeHTTP(w, r)
		})
		assert.Equal(t, 200, keysFrom(t, g, token, oneSource))
		behind = true
		time.Sleep(keysTTL)
		require.NoError(t, g.Warm(t.Context()))
		behind = false
		assert.Equal(t, 200, keysFrom(t, g, token, oneSource), "asked again, and not refused as one that was rotated out")
	})
}
