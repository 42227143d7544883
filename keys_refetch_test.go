package m2mauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestKeysJustRotatedInAreFetchedOnceForAThousandRequests(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Second} {
		t.Run(delay.String(), func(t *testing.T) {
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				testguard.KeysSlow(issuer, delay)
				g := testguard.KeysGuard(t, issuer)
				old := testguard.KeysToken(issuer, "")
				testguard.KeysEventually(t, g, old, 200)
				time.Sleep(time.Minute)
				issuer.Rotate("ES384")
				token := testguard.KeysToken(issuer, "")
				var wg sync.WaitGroup
				for range 1000 {
					wg.Go(func() { testguard.KeysEventually(t, g, token, 200) })
					wg.Go(func() { testguard.KeysAtOnce(t, g, old, 200) })
				}
				wg.Wait()
				assert.Equal(t, m2mauthtest.Fetches{Discovery: 1, JWKS: 2}, issuer.Fetches())
			})
		})
	}
}

// One hundred thousand tokens with made-up key IDs in ten minutes. Meanwhile a key
// is rotated in, and its token comes from a source of its own.
func TestAFloodOfMadeUpKeyIDsCostsTheIssuerTwelveFetchesAMinute(t *testing.T) {
	const answering = 200 * time.Millisecond
	for name, test := range map[string]struct {
		sources  int
		fetches  int // within a minute
		rotate   bool
		innocent string        // where the new key's token comes from
		shows    time.Duration // at the latest, beside the time of two answers
	}{
		"one source":                       {1, 6, false, "", 0},
		"one source, and a rotation":       {1, 6, true, "192.0.2.1:1", 2 * time.Second},
		"a rotation for that source alone": {1, 6, true, "198.18.0.0:1", 10 * time.Second},
		"a hundred sources":                {100, 12, true, "192.0.2.1:1", 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := testguard.KeysGuard(t, issuer)
				known, madeUp := testguard.KeysToken(issuer, ""), testguard.KeysMadeUp(issuer)
				testguard.KeysAtOnce(t, g, known, 200)
				testguard.KeysSlow(issuer, answering)

				var mu sync.Mutex
				var longest time.Duration
				answers := map[int]int{}
				var wg sync.WaitGroup
				var rotated time.Time
				var fresh string
				var shownAfter time.Duration
				var asked []int // by the end of each minute
				for i := range 100_000 {
					token, source := madeUp("made-up-"+strconv.Itoa(i)), fmt.Sprintf("198.18.0.%d:1", i%test.sources)
					wg.Go(func() {
						begin := time.Now()
						status := keysFrom(t, g, token, source)
						mu.Lock()
						defer mu.Unlock()
						answers[status]++
						longest = max(longest, time.Since(begin))
					})
					if i%167 == 0 { // each second
						testguard.KeysAtOnce(t, g, known, 200)
					}
					if i%10_000 == 0 {
						asked = append(asked, issuer.Fetches().JWKS)
					}
					if test.rotate && i == 50_300 {
						issuer.Rotate("ES384")
						rotated, fresh = time.Now(), testguard.KeysToken(issuer, "")
					}
					if fresh != "" && shownAfter == 0 && i%17 == 0 {
						switch status := keysFrom(t, g, fresh, test.innocent); status {
						case 200:
							shownAfter = time.Since(rotated)
						default:
							assert.Equal(t, 503, status, "the token is fine")
						}
					}
					time.Sleep(6 * time.Millisecond)
				}
				wg.Wait()
				t.Logf("JWKS fetches by the minute: %v; %d discovery; longest wait %v; rotation shown after %v; answers %v", asked, issuer.Fetches().Discovery, longest, shownAfter, answers)
				for i := range asked[1:] {
					assert.LessOrEqual(t, asked[i+1]-asked[i], test.fetches+1, "the one is a regular refresh")
				}
				assert.Equal(t, 1, issuer.Fetches().Discovery)
				assert.LessOrEqual(t, longest, answering, "nobody waits longer than one fetch")
				assert.Equal(t, 100_000, answers[401]+answers[503])
				assert.Positive(t, answers[401])
				if test.rotate {
					assert.NotZero(t, shownAfter)
					assert.LessOrEqual(t, shownAfter, test.shows+2*answering+200*time.Millisecond)
				}
			})
		})
	}
}

// Key IDs that were found absent before must not make a cheaper flood than new ones.
func TestAFloodOfKeyIDsFoundAbsentBeforeCostsNoMore(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		madeUp := testguard.KeysMadeUp(issuer)
		require.NoError(t, g.Warm(t.Context()))
		testguard.KeysSlow(issuer, time.Second)
		var wg sync.WaitGroup
		for i := range 500 { // one fetch for all of them
			wg.Go(func() { testguard.KeysAnswer(t.Context(), g, madeUp(strconv.Itoa(i))) })
		}
		wg.Wait()
		assert.Equal(t, 2, issuer.Fetches().JWKS)
		time.Sleep(31 * time.Second)
		before := issuer.Fetches().JWKS
		for i := range 600 { // ten minutes
			wg.Go(func() { testguard.KeysAnswer(t.Context(), g, madeUp(strconv.Itoa(i%500))) })
			time.Sleep(time.Second)
		}
		wg.Wait()
		assert.LessOrEqual(t, issuer.Fetches().JWKS-before, 62, "six fetches a minute, and the regular ones")
	})
}

func TestAClientThatRetriesADeletedKeyHoldsNobodyUp(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		deleted := testguard.KeysToken(issuer, "")
		kid := issuer.KeyIDs()[0]
		issuer.Rotate("ES384")
		issuer.Withdraw(kid)
		require.NoError(t, g.Warm(t.Context()))
		time.Sleep(testguard.KeysTTL + time.Second)
		require.NoError(t, g.Warm(t.Context())) // the guard has the new set
		before := issuer.Fetches().JWKS
		for range 3600 {
			testguard.KeysAtOnce(t, g, deleted, 401)
			time.Sleep(time.Second)
		}
		cost := issuer.Fetches().JWKS - before
		t.Logf("%d fetches in an hour", cost)
		assert.LessOrEqual(t, cost, 125)

		issuer.Rotate("ES384")
		testguard.KeysAtOnce(t, g, testguard.KeysToken(issuer, ""), 200, "the next rotation shows at once")
	})
}

func TestAbsentKeyIDsCauseNoFetchForThirtySeconds(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		token := testguard.KeysMadeUp(issuer)("absent")
		for range 30 {
			testguard.KeysAtOnce(t, g, token, 401)
			time.Sleep(time.Second - time.Millisecond)
		}
		assert.Equal(t, 2, issuer.Fetches().JWKS)
		time.Sleep(time.Second)
		testguard.KeysAtOnce(t, g, token, 401)
		assert.Equal(t, 3, issuer.Fetches().JWKS)
	})
}

// A fetch under way may have been answered before the key was there.
func TestAKeyIDThatJoinedAnOlderFetchIsNotHeldAbsent(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		testguard.KeysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			made := httptest.NewRecorder()
			next.ServeHTTP(made, r)
			time.Sleep(time.Second)
			w.WriteHeader(made.Code)
			_, _ = w.Write(made.Body.Bytes())
		})
		go testguard.KeysAnswer(t.Context(), g, testguard.KeysMadeUp(issuer)("made up"))
		time.Sleep(time.Second / 2)
		issuer.Rotate("ES384")
		token := testguard.KeysToken(issuer, "")
		assert.Equal(t, time.Second/2, testguard.KeysEventually(t, g, token, 503), "it joins a fetch that was answered before")
		time.Sleep(testguard.KeysPause)
		testguard.KeysEventually(t, g, token, 200)
		assert.Equal(t, 3, issuer.Fetches().JWKS)
	})
}

// An issuer may publish a key, take it back, and publish it again.
func TestAKeyIDThatWasFoundIsNoLongerHeldAbsent(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		published := func() string {
			w := httptest.NewRecorder()
			issuer.ServeHTTP(w, httptest.NewRequest("GET", issuer.JWKSURL(), nil))
			return w.Body.String()
		}
		without := published()
		issuer.Rotate("ES384")
		token, with := testguard.KeysToken(issuer, ""), published()
		document := without
		testguard.KeysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = io.WriteString(w, document) })
		require.NoError(t, g.Warm(t.Context()))
		testguard.KeysAtOnce(t, g, token, 401, "a fetch of its own did not find it")

		document = with
		time.Sleep(testguard.KeysAbsent)
		testguard.KeysAtOnce(t, g, token, 200)
		document = without
		time.Sleep(testguard.KeysTTL)
		testguard.KeysAtOnce(t, g, token, 401, "withdrawn")
		document = with
		time.Sleep(testguard.KeysAbsent)
		testguard.KeysAtOnce(t, g, token, 401, "as if it were gone for good")
		synctest.Wait()
		testguard.KeysAtOnce(t, g, token, 200, "published again")
	})
}

func TestARefetchThatFailsIs503AndStartsNoPause(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		known := testguard.KeysToken(issuer, "")
		testguard.KeysAtOnce(t, g, known, 200)
		testguard.KeysDown(issuer)
		issuer.Rotate("ES384")
		token := testguard.KeysToken(issuer, "")
		_, err := g.Verify(t.Context(), token)
		var e *m2mauth.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, 503, e.Status)
		assert.Positive(t, e.RetryAfter)
		testguard.KeysAtOnce(t, g, token, 503, "at once while the backoff runs")
		testguard.KeysAtOnce(t, g, known, 200)
		issuer.Intercept(nil)
		time.Sleep(time.Second)
		testguard.KeysAtOnce(t, g, token, 200, "the first request after the backoff")
	})
}

// Where the issuer fails, nobody can say that a key is unknown.
func TestAKeyThatCouldNotBeLookedUpIs503AndNever401(t *testing.T) {
	for name, pause := range map[string]time.Duration{
		"fresh keys":                     time.Minute,
		"keys due for a refresh":         testguard.KeysTTL - time.Second,
		"stale keys, after a pause":      testguard.KeysTTL + time.Minute,
		"expired keys":                   testguard.KeysTTL + testguard.KeysStaleFor,
		"stale keys, after a long pause": testguard.KeysTTL + testguard.KeysStaleFor - time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := testguard.KeysGuard(t, issuer)
				require.NoError(t, g.Warm(t.Context()))
				time.Sleep(pause)
				issuer.Rotate("ES384")
				token := testguard.KeysToken(issuer, "")
				testguard.KeysDown(issuer)
				for range 60 {
					testguard.KeysEventually(t, g, token, 503)
					time.Sleep(time.Second)
				}
				issuer.Intercept(nil)
				time.Sleep(testguard.KeysBackoff)
				testguard.KeysEventually(t, g, token, 200)
			})
		})
	}
}

func TestBadSignatureCausesNoFetch(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		kid := issuer.KeyIDs()[0]
		issuer.Replace(kid) // the same kid with new material
		testguard.KeysAtOnce(t, g, testguard.KeysToken(issuer, ""), 401)
		testguard.KeysAtOnce(t, g, issuer.Sign(m2mauthtest.Token{Audience: testguard.KeysAPI, Header: map[string]any{"kid": nil, "alg": "ES256"}}), 401, "no kid and no fit")
		testguard.KeysAtOnce(t, g, issuer.Sign(m2mauthtest.Token{Audience: testguard.KeysAPI, Header: map[string]any{"alg": "ES256"}}), 401, "a known kid that does not fit")
		assert.Equal(t, 1, issuer.Fetches().JWKS)
	})
}

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
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		madeUp := testguard.KeysMadeUp(issuer)
		require.Equal(t, 401, keysFrom(t, g, madeUp("made up"), oneSource))
		assert.True(t, g.Keys().CoolingDown)
		assert.Equal(t, 401, keysFrom(t, g, madeUp("made up"), anotherSource), "known to be absent")

		issuer.Rotate("ES384")
		token := testguard.KeysToken(issuer, "")
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
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		madeUp := testguard.KeysMadeUp(issuer)
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
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		madeUp := testguard.KeysMadeUp(issuer)
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
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		for i := range 20 {
			issuer.Rotate("EdDSA")
			testguard.KeysAtOnce(t, g, testguard.KeysToken(issuer, ""), 200, i)
			assert.False(t, g.Keys().CoolingDown)
		}
	})
}

// Callers with tokens of a key that is gone shall renew them, and not come back
// with them, though everybody else's made-up key IDs are on the way.
func TestAKeyIDThatLeftTheSetIs401AtOnce(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		kid := issuer.KeyIDs()[0]
		token := testguard.KeysToken(issuer, kid)
		testguard.KeysAtOnce(t, g, token, 200)
		issuer.Rotate("ES384")
		issuer.Withdraw(kid)
		testguard.KeysAtOnce(t, g, testguard.KeysToken(issuer, ""), 200, "the set without it")
		require.Equal(t, 401, keysFrom(t, g, testguard.KeysMadeUp(issuer)("made up"), anotherSource))
		fetches := issuer.Fetches()
		testguard.KeysAtOnce(t, g, token, 401, "in the pause")
		time.Sleep(testguard.KeysPause)
		testguard.KeysAtOnce(t, g, token, 401, "and after it")
		assert.Equal(t, fetches, issuer.Fetches())
		testguard.KeysDown(issuer)
		time.Sleep(time.Minute)
		for range 60 {
			testguard.KeysAtOnce(t, g, token, 401, "in an outage")
			time.Sleep(time.Second)
		}
	})
}

// Where the issuer failed, nobody asked for an absent key ID.
func TestAFailedRefetchMarksNoSource(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		issuer.Rotate("ES384")
		token := testguard.KeysToken(issuer, "")
		testguard.KeysDown(issuer)
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
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := testguard.KeysGuard(t, issuer)
				if warm {
					require.NoError(t, g.Warm(t.Context()))
				}
				testguard.KeysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					made := httptest.NewRecorder()
					next.ServeHTTP(made, r)
					time.Sleep(time.Second)
					w.WriteHeader(made.Code)
					_, _ = w.Write(made.Body.Bytes())
				})
				var wg sync.WaitGroup
				wg.Go(func() { assert.Equal(t, 401, keysFrom(t, g, testguard.KeysMadeUp(issuer)("made up"), oneSource)) })
				synctest.Wait()
				time.Sleep(time.Second / 2)
				issuer.Rotate("ES384")
				token := testguard.KeysToken(issuer, "")
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
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		madeUp := testguard.KeysMadeUp(issuer)
		testguard.KeysAtOnce(t, g, madeUp("made up"), 401)
		issuer.Rotate("ES384")
		token := testguard.KeysToken(issuer, "")
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
func TestQueueKeyIsAskedForUnknownKeyIDsAlone(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		asked := 0
		var g *m2mauth.Guard
		g = testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) {
			c.QueueKey = func(m2mauth.Request) string { asked++; _ = g.Keys(); return "" }
		})
		token := testguard.KeysToken(issuer, "")
		require.Equal(t, 200, keysFrom(t, g, token, oneSource))
		asked = 0
		require.Equal(t, 200, keysFrom(t, g, token, oneSource), "remembered")
		assert.Zero(t, asked)
		require.Equal(t, 401, keysFrom(t, g, testguard.KeysMadeUp(issuer)("made up"), oneSource))
		assert.Equal(t, 1, asked)
	})
}

// The pause in an outage is short where it makes every request fail: without keys,
// and from the moment on at which old ones end.
func TestWithoutKeysTheIssuerIsAskedEveryTenSeconds(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		token := testguard.KeysToken(issuer, "")
		testguard.KeysAtOnce(t, g, token, 200)
		begin := time.Now()
		testguard.KeysDown(issuer)
		for time.Since(begin) < testguard.KeysTTL+testguard.KeysStaleFor {
			testguard.KeysAtOnce(t, g, token, 200, time.Since(begin))
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
		testguard.KeysAtOnce(t, g, token, 200)
	})
}

// A replica of the issuer that is late takes a key out that is published all the same.
// Its tokens get 401 for half a minute, and then have the keys fetched anew.
func TestAKeyIDThatLeftTheSetIsLookedForAfterThirtySeconds(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		kid := issuer.KeyIDs()[0]
		token, late := testguard.KeysToken(issuer, kid), true
		testguard.KeysAtOnce(t, g, token, 200)
		other := m2mauthtest.NewIssuer()
		testguard.KeysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if late && strings.HasSuffix(issuer.JWKSURL(), r.URL.Path) {
				next = other
			}
			next.ServeHTTP(w, r)
		})
		time.Sleep(testguard.KeysTTL)
		require.NoError(t, g.Warm(t.Context()))
		late = false
		testguard.KeysAtOnce(t, g, token, 401)
		time.Sleep(29 * time.Second)
		testguard.KeysAtOnce(t, g, token, 401)
		time.Sleep(time.Second)
		fetches := issuer.Fetches().JWKS
		testguard.KeysAtOnce(t, g, token, 401, "at once, and has the keys fetched")
		synctest.Wait()
		assert.Equal(t, fetches+1, issuer.Fetches().JWKS)
		testguard.KeysAtOnce(t, g, token, 200)
	})
}

// A refresh that was due costs nothing, whoever joined it with a made-up key ID: one
// source holds others up for 2 s at most.
func TestMadeUpKeyIDsThatJoinARefreshCostNothing(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		madeUp := testguard.KeysMadeUp(issuer)
		testguard.KeysSlow(issuer, 100*time.Millisecond)
		time.Sleep(testguard.KeysTTL * 95 / 100) // refresh is due
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
		token := testguard.KeysToken(issuer, "")
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
	g := testguard.KeysGuard(t, issuer)
	token := testguard.KeysToken(issuer, "")
	assert.Panics(t, func() { _, _ = g.Verify(panickingContext{context.Background()}, token) })
	_, err := g.Verify(t.Context(), token)
	assert.NoError(t, err)
}
