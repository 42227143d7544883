package m2mauth_test

import (
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// The defaults that these tests count with, written down again on purpose.
const (
	keysAPI      = "https://api.test"
	keysTTL      = 10 * time.Minute
	keysStaleFor = time.Hour
	keysTimeout  = 5 * time.Second
	keysBackoff  = 30 * time.Second // the longest
	keysRetry    = time.Minute      // the longest Retry-After of the issuer
	keysKeyless  = 10 * time.Second // the longest while no keys serve
	keysAbsent   = 30 * time.Second // for which a key ID found absent causes no fetch
	keysPause    = 10 * time.Second // the longest between refetches for one source
)

func keysGuard(t testing.TB, issuer *m2mauthtest.Issuer, changes ...func(*m2mauth.Config)) *m2mauth.Guard {
	t.Helper()
	c := issuer.Config(keysAPI)
	c.Logger = slog.New(slog.DiscardHandler)
	for _, change := range changes {
		change(&c)
	}
	g, err := m2mauth.New(c)
	require.NoError(t, err)
	return g
}

// keysBubble runs a test in a bubble of its own, and then lets a fetch that is
// still under way end: if a goroutine remains after that, the test fails.
func keysBubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer time.Sleep(2 * keysTimeout)
		test(t)
	})
}

// keysAnswer returns the HTTP status that a token gets, and how long it waited.
func keysAnswer(ctx context.Context, g *m2mauth.Guard, token string) (status int, waited time.Duration) {
	begin := time.Now()
	_, err := g.Verify(ctx, token)
	waited = time.Since(begin)
	var e *m2mauth.Error
	switch {
	case err == nil:
		return http.StatusOK, waited
	case errors.As(err, &e):
		return e.Status, waited
	}
	return 0, waited
}

// keysAtOnce asserts the answer to a token, and that it came without waiting.
func keysAtOnce(t testing.TB, g *m2mauth.Guard, token string, want int, msg ...any) {
	t.Helper()
	status, waited := keysAnswer(t.Context(), g, token)
	assert.Equal(t, want, status, msg...)
	assert.Zero(t, waited, msg...)
}

// keysEventually asserts the answer alone.
func keysEventually(t testing.TB, g *m2mauth.Guard, token string, want int, msg ...any) (waited time.Duration) {
	t.Helper()
	status, waited := keysAnswer(t.Context(), g, token)
	assert.Equal(t, want, status, msg...)
	return waited
}

func keysToken(issuer *m2mauthtest.Issuer, kid string) string {
	return issuer.Sign(m2mauthtest.Token{Audience: keysAPI, KeyID: kid, Lifetime: 1000 * time.Hour})
}

// keysMadeUp returns a maker of tokens whose kid no issuer has. They are cheap:
// nobody will look at their signature.
func keysMadeUp(issuer *m2mauthtest.Issuer) func(kid string) string {
	_, rest, _ := strings.Cut(keysToken(issuer, ""), ".")
	return func(kid string) string {
		header := fmt.Sprintf(`{"alg":"ES384","typ":"at+jwt","kid":%q}`, kid)
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
	}
}

// keysHook has the key set answered by f, and all else by the issuer.
func keysHook(issuer *m2mauthtest.Issuer, f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	keysHookAt(issuer, "/oidc/jwks", f)
}

// keysHookAt has a path answered by f; one that ends in a slash is part of many.
func keysHookAt(issuer *m2mauthtest.Issuer, path string, f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	issuer.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path || strings.HasSuffix(path, "/") && strings.Contains(r.URL.Path, path) {
				f(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
}

// keysDown has everything answered with a failure.
func keysDown(issuer *m2mauthtest.Issuer) {
	issuer.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "down", http.StatusBadGateway)
		})
	})
}

// keysHanging lets every request wait until its client gives up.
func keysHanging(issuer *m2mauthtest.Issuer) {
	issuer.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	})
}

// keysSlow delays every answer.
func keysSlow(issuer *m2mauthtest.Issuer, delay time.Duration) {
	issuer.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(delay) // in a bubble
			next.ServeHTTP(w, r)
		})
	})
}

func TestAFreshKeySetServesFromMemory(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		assert.Equal(t, m2mauthtest.Fetches{}, issuer.Fetches(), "New does no I/O")
		assert.Equal(t, m2mauth.KeysNone, g.Keys().State)
		token := keysToken(issuer, "")
		for range 400 { // 6 min 40 s: before the earliest refresh, at 70 % of 10 min
			keysAtOnce(t, g, token, 200)
			time.Sleep(time.Second)
		}
		assert.Equal(t, m2mauthtest.Fetches{Discovery: 1, JWKS: 1}, issuer.Fetches())
	})
}

func TestARefreshAheadRunsOnceAndNobodyWaitsForIt(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		token := keysToken(issuer, "")
		keysAtOnce(t, g, token, 200)
		fetched := time.Now()

		keysSlow(issuer, 4*time.Second)
		var conditional int
		keysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Header.Get("If-None-Match") != "" {
				conditional++
			}
			time.Sleep(4 * time.Second)
			next.ServeHTTP(w, r)
		})
		var begun time.Duration
		for time.Since(fetched) < keysTTL+time.Minute {
			keysAtOnce(t, g, token, 200)
			synctest.Wait()
			if begun == 0 && issuer.Fetches().JWKS == 2 {
				begun = time.Since(fetched)
			}
			time.Sleep(time.Second)
		}
		assert.Equal(t, 2, issuer.Fetches().JWKS)
		assert.Equal(t, 1, conditional, "the refresh sends If-None-Match")
		assert.GreaterOrEqual(t, begun, 7*time.Minute)
		assert.LessOrEqual(t, begun, 9*time.Minute+time.Second)
		assert.Equal(t, 1, issuer.Fetches().Discovery)
	})
}

func TestA304RenewsTheKeySet(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		token := keysToken(issuer, "")
		var answers []int
		keysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			answers = append(answers, rec.Code)
			for name, values := range rec.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
		})
		for range 4 {
			keysAtOnce(t, g, token, 200)
			synctest.Wait()
			assert.Equal(t, m2mauth.KeysFresh, g.Keys().State)
			time.Sleep(9*time.Minute + time.Second)
		}
		assert.Equal(t, []int{200, 304, 304, 304}, answers)
		assert.Empty(t, g.Keys().LastError)
		assert.Len(t, g.Keys().Keys, 1)

		// A 304 that nobody asked for is no key set.
		other := keysGuard(t, issuer)
		keysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusNotModified) })
		keysAtOnce(t, other, token, 503)
	})
}

func TestAnETagIsSentToItsOwnURLOnly(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		token := keysToken(issuer, "")
		path, sent := "/oidc/jwks", map[string][]string{}
		issuer.Intercept(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.Contains(r.URL.Path, ".well-known"):
					fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"https://issuer.test%s"}`, issuer.URL(), path)
				case r.URL.Path == path:
					sent[path] = append(sent[path], r.Header.Get("If-None-Match"))
					r.URL.Path = "/oidc/jwks"
					next.ServeHTTP(w, r)
				default:
					http.Error(w, "gone", http.StatusGone)
				}
			})
		})
		keysAtOnce(t, g, token, 200)
		path = "/oidc/moved"
		time.Sleep(keysTTL + time.Second)
		keysAtOnce(t, g, token, 200, "the last good keys serve")
		time.Sleep(2 * time.Second)
		keysAtOnce(t, g, token, 200)
		synctest.Wait()
		assert.Equal(t, m2mauth.KeysFresh, g.Keys().State)
		assert.Equal(t, map[string][]string{"/oidc/jwks": {""}, "/oidc/moved": {""}}, sent)
	})
}

func TestMaxAgeReplacesTheTTLWithinBounds(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"":                            keysTTL,
		"no-cache, max-age=0":         keysTTL, // Logto's
		"max-age=0":                   keysTTL,
		"no-store":                    keysTTL,
		"no-store, max-age=1800":      keysTTL,
		"max-age=1800":                30 * time.Minute,
		"Public, Max-Age=1800":        30 * time.Minute,
		`max-age="1800"`:              30 * time.Minute,
		"max-age=5":                   time.Minute,
		"max-age=86400":               time.Hour,
		"max-age=99999999999999999":   time.Hour,
		"max-age=-1":                  keysTTL,
		"max-age=soon":                keysTTL,
		"s-maxage=1800":               keysTTL,
		"max-age=1800, max-age=86400": keysTTL,
	} {
		t.Run(header, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				keysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					rec := httptest.NewRecorder()
					next.ServeHTTP(rec, r)
					if header != "" {
						w.Header().Set("Cache-Control", header)
					}
					_, _ = w.Write(rec.Body.Bytes())
				})
				g := keysGuard(t, issuer)
				require.NoError(t, g.Warm(t.Context()))
				at := time.Until(g.Keys().NextRefresh)
				assert.GreaterOrEqual(t, at, want*7/10)
				assert.LessOrEqual(t, at, want*9/10)
				time.Sleep(want - 1)
				assert.Equal(t, m2mauth.KeysFresh, g.Keys().State)
				time.Sleep(time.Nanosecond)
				assert.Equal(t, m2mauth.KeysStale, g.Keys().State)
			})
		})
	}
}

func TestAThousandFirstRequestsShareOneFetch(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		keysSlow(issuer, time.Second)
		g := keysGuard(t, issuer)
		token := keysToken(issuer, "")
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				waited := keysEventually(t, g, token, 200)
				assert.Equal(t, 2*time.Second, waited)
			})
		}
		wg.Wait()
		assert.Equal(t, m2mauthtest.Fetches{Discovery: 1, JWKS: 1}, issuer.Fetches())
	})
}

func TestAThousandRequestsWithAKeyJustRotatedInShareOneFetch(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Second} {
		t.Run(delay.String(), func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				keysSlow(issuer, delay)
				g := keysGuard(t, issuer)
				old := keysToken(issuer, "")
				keysEventually(t, g, old, 200)
				time.Sleep(time.Minute)
				issuer.Rotate("ES384")
				token := keysToken(issuer, "")
				var wg sync.WaitGroup
				for range 1000 {
					wg.Go(func() { keysEventually(t, g, token, 200) })
					wg.Go(func() { keysAtOnce(t, g, old, 200) })
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
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := keysGuard(t, issuer)
				known, madeUp := keysToken(issuer, ""), keysMadeUp(issuer)
				keysAtOnce(t, g, known, 200)
				keysSlow(issuer, answering)

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
						keysAtOnce(t, g, known, 200)
					}
					if i%10_000 == 0 {
						asked = append(asked, issuer.Fetches().JWKS)
					}
					if test.rotate && i == 50_300 {
						issuer.Rotate("ES384")
						rotated, fresh = time.Now(), keysToken(issuer, "")
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
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		madeUp := keysMadeUp(issuer)
		require.NoError(t, g.Warm(t.Context()))
		keysSlow(issuer, time.Second)
		var wg sync.WaitGroup
		for i := range 500 { // one fetch for all of them
			wg.Go(func() { keysAnswer(t.Context(), g, madeUp(strconv.Itoa(i))) })
		}
		wg.Wait()
		assert.Equal(t, 2, issuer.Fetches().JWKS)
		time.Sleep(31 * time.Second)
		before := issuer.Fetches().JWKS
		for i := range 600 { // ten minutes
			wg.Go(func() { keysAnswer(t.Context(), g, madeUp(strconv.Itoa(i%500))) })
			time.Sleep(time.Second)
		}
		wg.Wait()
		assert.LessOrEqual(t, issuer.Fetches().JWKS-before, 62, "six fetches a minute, and the regular ones")
	})
}

func TestAClientThatRetriesADeletedKeyHoldsNobodyUp(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		deleted := keysToken(issuer, "")
		kid := issuer.KeyIDs()[0]
		issuer.Rotate("ES384")
		issuer.Withdraw(kid)
		require.NoError(t, g.Warm(t.Context()))
		time.Sleep(keysTTL + time.Second)
		require.NoError(t, g.Warm(t.Context())) // the guard has the new set
		before := issuer.Fetches().JWKS
		for range 3600 {
			keysAtOnce(t, g, deleted, 401)
			time.Sleep(time.Second)
		}
		cost := issuer.Fetches().JWKS - before
		t.Logf("%d fetches in an hour", cost)
		assert.LessOrEqual(t, cost, 125)

		issuer.Rotate("ES384")
		keysAtOnce(t, g, keysToken(issuer, ""), 200, "the next rotation shows at once")
	})
}

func TestAbsentKeyIDsCauseNoFetchForThirtySeconds(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		token := keysMadeUp(issuer)("absent")
		for range 30 {
			keysAtOnce(t, g, token, 401)
			time.Sleep(time.Second - time.Millisecond)
		}
		assert.Equal(t, 2, issuer.Fetches().JWKS)
		time.Sleep(time.Second)
		keysAtOnce(t, g, token, 401)
		assert.Equal(t, 3, issuer.Fetches().JWKS)
	})
}

// A fetch under way may have been answered before the key was there.
func TestAKeyIDThatJoinedAnOlderFetchIsNotHeldAbsent(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		keysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			made := httptest.NewRecorder()
			next.ServeHTTP(made, r)
			time.Sleep(time.Second)
			w.WriteHeader(made.Code)
			_, _ = w.Write(made.Body.Bytes())
		})
		go keysAnswer(t.Context(), g, keysMadeUp(issuer)("made up"))
		time.Sleep(time.Second / 2)
		issuer.Rotate("ES384")
		token := keysToken(issuer, "")
		assert.Equal(t, time.Second/2, keysEventually(t, g, token, 503), "it joins a fetch that was answered before")
		time.Sleep(keysPause)
		keysEventually(t, g, token, 200)
		assert.Equal(t, 3, issuer.Fetches().JWKS)
	})
}

// An issuer may publish a key, take it back, and publish it again.
func TestAKeyIDThatWasFoundIsNoLongerHeldAbsent(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		published := func() string {
			w := httptest.NewRecorder()
			issuer.ServeHTTP(w, httptest.NewRequest("GET", issuer.JWKSURL(), nil))
			return w.Body.String()
		}
		without := published()
		issuer.Rotate("ES384")
		token, with := keysToken(issuer, ""), published()
		document := without
		keysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = io.WriteString(w, document) })
		require.NoError(t, g.Warm(t.Context()))
		keysAtOnce(t, g, token, 401, "a fetch of its own did not find it")

		document = with
		time.Sleep(keysAbsent)
		keysAtOnce(t, g, token, 200)
		document = without
		time.Sleep(keysTTL)
		keysAtOnce(t, g, token, 401, "withdrawn")
		document = with
		time.Sleep(keysAbsent)
		keysAtOnce(t, g, token, 200, "published again")
	})
}

func TestARefetchThatFailsIs503AndStartsNoPause(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		known := keysToken(issuer, "")
		keysAtOnce(t, g, known, 200)
		keysDown(issuer)
		issuer.Rotate("ES384")
		token := keysToken(issuer, "")
		_, err := g.Verify(t.Context(), token)
		var e *m2mauth.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, 503, e.Status)
		assert.Positive(t, e.RetryAfter)
		keysAtOnce(t, g, token, 503, "at once while the backoff runs")
		keysAtOnce(t, g, known, 200)
		issuer.Intercept(nil)
		time.Sleep(time.Second)
		keysAtOnce(t, g, token, 200, "the first request after the backoff")
	})
}

// Where the issuer fails, nobody can say that a key is unknown.
func TestAKeyThatCouldNotBeLookedUpIs503AndNever401(t *testing.T) {
	for name, pause := range map[string]time.Duration{
		"fresh keys":                     time.Minute,
		"keys due for a refresh":         keysTTL - time.Second,
		"stale keys, after a pause":      keysTTL + time.Minute,
		"expired keys":                   keysTTL + keysStaleFor,
		"stale keys, after a long pause": keysTTL + keysStaleFor - time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := keysGuard(t, issuer)
				require.NoError(t, g.Warm(t.Context()))
				time.Sleep(pause)
				issuer.Rotate("ES384")
				token := keysToken(issuer, "")
				keysDown(issuer)
				for range 60 {
					keysEventually(t, g, token, 503)
					time.Sleep(time.Second)
				}
				issuer.Intercept(nil)
				time.Sleep(keysBackoff)
				keysEventually(t, g, token, 200)
			})
		})
	}
}

func TestABadSignatureCausesNoFetch(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		kid := issuer.KeyIDs()[0]
		issuer.Replace(kid) // the same kid with new material
		keysAtOnce(t, g, keysToken(issuer, ""), 401)
		keysAtOnce(t, g, issuer.Sign(m2mauthtest.Token{Audience: keysAPI, Header: map[string]any{"kid": nil, "alg": "ES256"}}), 401, "no kid and no fit")
		keysAtOnce(t, g, issuer.Sign(m2mauthtest.Token{Audience: keysAPI, Header: map[string]any{"alg": "ES256"}}), 401, "a known kid that does not fit")
		assert.Equal(t, 1, issuer.Fetches().JWKS)
	})
}

func TestAKeyReplacedInPlaceIsGoneWithTheNextRefresh(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		old := keysToken(issuer, "")
		keysAtOnce(t, g, old, 200)
		issuer.Replace(issuer.KeyIDs()[0])
		token := keysToken(issuer, "")
		time.Sleep(keysTTL)
		keysAtOnce(t, g, old, 401)
		keysAtOnce(t, g, token, 200)
		assert.Equal(t, 2, issuer.Fetches().JWKS)
	})
}

// An issuer may change the algorithm with the key, and nobody has to tell the API.
func TestKeysOfThreeAlgorithmsFollowEachOther(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		var tokens []string // from the oldest on
		for _, alg := range []string{"ES384", "RS256", "EdDSA"} {
			if tokens != nil {
				issuer.Rotate(alg)
			}
			tokens = append(tokens, keysToken(issuer, ""))
			time.Sleep(keysAbsent)
			for age, token := range tokens[max(0, len(tokens)-2):] { // an issuer publishes two keys
				keysAtOnce(t, g, token, 200, "%s came, key %d of the two", alg, age)
			}
			keys := g.Keys().Keys
			require.NotEmpty(t, keys)
			assert.Equal(t, alg, keys[0].Algorithm, "the current one")
		}
		keysAtOnce(t, g, tokens[0], 401, "the third key took the first one's place")
		issuer.Withdraw(issuer.KeyIDs()[1])
		time.Sleep(keysTTL)
		for i, want := range []int{401, 401, 200} {
			keysAtOnce(t, g, tokens[i], want, i)
		}
	})
}

func TestAWithdrawnKeyIsRefusedFromTheNextRefreshOn(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		kid := issuer.KeyIDs()[0]
		token := keysToken(issuer, kid)
		issuer.Rotate("ES384")
		keysAtOnce(t, g, token, 200)
		issuer.Withdraw(kid)
		withdrawn, last := time.Now(), time.Duration(0)
		for time.Since(withdrawn) < 2*keysTTL {
			if status, _ := keysAnswer(t.Context(), g, token); status == 200 {
				last = time.Since(withdrawn)
			}
			time.Sleep(time.Second)
		}
		assert.LessOrEqual(t, last, keysTTL)
		assert.Positive(t, last)
	})
}

// The request after a pause waits, so that a key withdrawn long ago does not
// open one last request.
func TestAWithdrawnKeyDoesNotOpenTheFirstRequestAfterAPause(t *testing.T) {
	setUp := func(t *testing.T) (*m2mauthtest.Issuer, *m2mauth.Guard, string) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		kid := issuer.KeyIDs()[0]
		token := keysToken(issuer, kid)
		keysAtOnce(t, g, token, 200)
		issuer.Rotate("ES384")
		issuer.Withdraw(kid)
		time.Sleep(keysTTL)
		return issuer, g, token
	}
	t.Run("the issuer answers", func(t *testing.T) {
		keysBubble(t, func(t *testing.T) {
			issuer, g, token := setUp(t)
			keysSlow(issuer, 2*time.Second)
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { assert.Equal(t, 2*time.Second, keysEventually(t, g, token, 401)) })
			}
			wg.Wait()
			assert.Equal(t, 2, issuer.Fetches().JWKS)
		})
	})
	t.Run("a client that hangs up at once is not let through", func(t *testing.T) {
		keysBubble(t, func(t *testing.T) {
			issuer, g, token := setUp(t)
			keysSlow(issuer, 2*time.Second)
			ctx, hangUp := context.WithCancel(t.Context())
			hangUp()
			status, waited := keysAnswer(ctx, g, token)
			assert.Equal(t, 503, status)
			assert.Zero(t, waited)
			ctx, hangUp = context.WithTimeout(t.Context(), time.Second)
			defer hangUp()
			status, waited = keysAnswer(ctx, g, token)
			assert.Equal(t, 503, status)
			assert.Equal(t, time.Second, waited)
			time.Sleep(2 * time.Second)
			assert.Equal(t, m2mauth.KeysFresh, g.Keys().State, "the fetch went on")
			assert.Equal(t, 2, issuer.Fetches().JWKS)
			keysEventually(t, g, token, 401)
		})
	})
	t.Run("nor is one for whom there is no place to wait", func(t *testing.T) {
		keysBubble(t, func(t *testing.T) {
			issuer, g, token := setUp(t)
			keysSlow(issuer, 2*time.Second)
			var mu sync.Mutex
			answers := map[int]int{}
			var wg sync.WaitGroup
			for range 10_000 {
				wg.Go(func() {
					status, _ := keysAnswer(t.Context(), g, token)
					mu.Lock()
					defer mu.Unlock()
					answers[status]++
				})
			}
			wg.Wait()
			assert.Zero(t, answers[200])
			assert.Positive(t, answers[503], "waiters are bounded")
		})
	})
	t.Run("the issuer hangs: the request is served after the one attempt", func(t *testing.T) {
		keysBubble(t, func(t *testing.T) {
			issuer, g, token := setUp(t)
			keysHanging(issuer)
			assert.Equal(t, keysTimeout, keysEventually(t, g, token, 200))
			for range 600 { // no other request waits, however slow the issuer
				keysAtOnce(t, g, token, 200)
				time.Sleep(time.Second)
			}
		})
	})
}

func TestAHangingRefreshDelaysNoRequestWhoseKeyIsKnown(t *testing.T) {
	for name, every := range map[string]time.Duration{"busy": 3 * time.Second, "sparse": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := keysGuard(t, issuer)
				token := keysToken(issuer, "")
				keysAtOnce(t, g, token, 200)
				begin := time.Now()
				keysHanging(issuer)
				for time.Since(begin) < keysTTL+keysStaleFor {
					keysAtOnce(t, g, token, 200, time.Since(begin))
					time.Sleep(every)
				}
				fetches := issuer.Fetches()
				t.Logf("%d attempts in an outage of 70 minutes", fetches.JWKS+fetches.Discovery)
				assert.LessOrEqual(t, fetches.JWKS, 1+5+62*60/35, "each attempt takes 5 s, and the backoff 30 s")
				waited := keysEventually(t, g, token, 503)
				assert.LessOrEqual(t, waited, keysTimeout)
			})
		})
	}
}

func TestGoodKeysOutliveADeadIssuerForKeyStaleFor(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		var log keysLog
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		token := keysToken(issuer, "")
		keysAtOnce(t, g, token, 200)
		begin := time.Now()
		keysDown(issuer)
		for time.Since(begin) < keysTTL+keysStaleFor {
			keysAtOnce(t, g, token, 200, time.Since(begin))
			time.Sleep(5 * time.Second)
		}
		assert.Positive(t, log.count(slog.LevelWarn), "served loudly")
		_, err := g.Verify(t.Context(), token)
		var e *m2mauth.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, 503, e.Status)
		h, _ := e.Response()
		assert.NotEmpty(t, h.Get("Retry-After"))
		assert.Empty(t, h.Get("WWW-Authenticate"))
		assert.Equal(t, m2mauth.KeysExpired, g.Keys().State)
		fetches := issuer.Fetches()
		t.Logf("%d JWKS and %d discovery requests in 70 minutes without an issuer", fetches.JWKS, fetches.Discovery)
		assert.LessOrEqual(t, fetches.JWKS, 1+5+63*2+2)

		issuer.Intercept(nil)
		time.Sleep(keysBackoff)
		keysAtOnce(t, g, token, 200, "the first request after the backoff")
	})
}

func TestKeysThatExpireWhileAFetchIsWaitedForServeNobody(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		token := keysToken(issuer, "")
		keysAtOnce(t, g, token, 200)
		keysHanging(issuer)
		time.Sleep(keysTTL + keysStaleFor - time.Second)
		assert.Equal(t, keysTimeout, keysEventually(t, g, token, 503))
	})
}

func TestKeyStaleForNegativeServesNoStaleKeys(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.KeyStaleFor = -1 })
		token := keysToken(issuer, "")
		keysAtOnce(t, g, token, 200)
		keysDown(issuer)
		time.Sleep(keysTTL - 1)
		keysAtOnce(t, g, token, 200)
		time.Sleep(time.Nanosecond)
		keysAtOnce(t, g, token, 503)
	})
}

func TestAnIssuerThatIsDownAtStart(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		keysHanging(issuer)
		g := keysGuard(t, issuer)
		token := keysToken(issuer, "")
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() { assert.Equal(t, keysTimeout, keysEventually(t, g, token, 503)) })
		}
		wg.Wait()
		assert.Equal(t, m2mauthtest.Fetches{Discovery: 1}, issuer.Fetches())
		for range 9 { // while the backoff runs
			keysAtOnce(t, g, token, 503)
			assert.Error(t, g.Warm(t.Context()))
			time.Sleep(100 * time.Millisecond)
		}
		assert.Equal(t, 1, issuer.Fetches().Discovery)

		keysDown(issuer)
		var attempts []int
		begin := time.Now()
		for last := 1; time.Since(begin) < 5*time.Minute; time.Sleep(100 * time.Millisecond) {
			keysAtOnce(t, g, token, 503)
			if now := issuer.Fetches().Discovery; now != last {
				attempts = append(attempts, int(time.Since(begin).Round(time.Second).Seconds()))
				last = now
			}
		}
		require.Greater(t, len(attempts), 5)
		assert.Equal(t, []int{0, 2, 6, 14, 24, 34}, attempts[:6], "from 1 s, twice as long each time, to 10 s")
		assert.Equal(t, 294, attempts[len(attempts)-1])

		issuer.Intercept(nil)
		time.Sleep(keysKeyless)
		keysAtOnce(t, g, token, 200)
		assert.Empty(t, g.Keys().LastError)
	})
}

func TestTheBackoffBeginsAnewAfterASuccess(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		keysDown(issuer)
		g := keysGuard(t, issuer)
		known := keysToken(issuer, "")
		for range 300 { // up to the longest backoff
			keysAtOnce(t, g, known, 503)
			time.Sleep(time.Second)
		}
		issuer.Intercept(nil)
		time.Sleep(keysBackoff)
		keysAtOnce(t, g, known, 200)

		issuer.Rotate("ES384")
		token := keysToken(issuer, "")
		keysDown(issuer)
		keysAtOnce(t, g, token, 503, "it fails once more")
		issuer.Intercept(nil)
		time.Sleep(time.Second)
		keysAtOnce(t, g, token, 200, "after the first backoff, and not the longest")
	})
}

func TestAClientsEndFreesItsRequestAndNotTheFetch(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		keysSlow(issuer, time.Second)
		g := keysGuard(t, issuer)
		token := keysToken(issuer, "")
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*time.Millisecond)
				defer cancel()
				status, waited := keysAnswer(ctx, g, token)
				assert.Equal(t, 503, status)
				assert.Equal(t, time.Duration(i+1)*time.Millisecond, waited)
			})
		}
		wg.Wait()
		keysEventually(t, g, token, 200)
		assert.Equal(t, m2mauthtest.Fetches{Discovery: 1, JWKS: 1}, issuer.Fetches())

		issuer.Rotate("ES384")
		rotated := keysToken(issuer, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := g.Verify(ctx, rotated)
		assert.ErrorIs(t, err, m2mauth.ErrUnavailable)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Second)
		keysAtOnce(t, g, rotated, 200)
		assert.Equal(t, 2, issuer.Fetches().JWKS)
	})
}

// Callers who hang up while they wait must not use the places up: there are 8,192.
func TestThoseWhoGaveUpWaitingTakeNoPlace(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		keysSlow(issuer, time.Second)
		g := keysGuard(t, issuer)
		token := keysToken(issuer, "")
		ctx, hangUp := context.WithCancel(t.Context())
		hangUp()
		for range 8192 {
			_, err := g.Verify(ctx, token)
			require.ErrorIs(t, err, context.Canceled)
		}
		assert.Equal(t, 2*time.Second, keysEventually(t, g, token, 200))
	})
}

// A request that has waited for one fetch does not wait for a second.
func TestNoRequestWaitsLongerThanTheFetchTimeout(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		keysSlow(issuer, 2*time.Second) // 4 s for the first fetch, with discovery
		g := keysGuard(t, issuer)
		madeUp := keysMadeUp(issuer)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				want := 503 // to all who came after the fetch began
				if i == 0 {
					want = 401
				}
				assert.LessOrEqual(t, keysEventually(t, g, madeUp(strconv.Itoa(i)), want), keysTimeout)
			})
		}
		wg.Wait()
		assert.LessOrEqual(t, issuer.Fetches().JWKS, 2)
	})
}

func TestBadDocumentsAreRefusedAsAWhole(t *testing.T) {
	write := func(status int, body string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	redirect := func(to string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, to, http.StatusFound)
		}
	}
	forever := func(pause time.Duration, chunk string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, chunk); err != nil {
					return
				}
				time.Sleep(pause)
			}
		}
	}
	key := `{"kty":"EC","kid":"%d","crv":"P-384","alg":"ES384","x":"AA","y":"AA"}`
	var many strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&many, key+",", i)
	}
	for name, test := range map[string]struct {
		answer    func(w http.ResponseWriter, r *http.Request, next http.Handler)
		discovery bool // of the discovery document, and not of the key set
		perTry    int  // requests that one attempt may cost; 0 = 1
	}{
		"HTML with 200":       {answer: write(200, "<!doctype html><title>Welcome</title>")},
		"204":                 {answer: write(204, "")},
		"an empty body":       {answer: write(200, "")},
		"401":                 {answer: write(401, `{"keys":[]}`)},
		"403 with HTML":       {answer: write(403, "<html>")},
		"404":                 {answer: write(404, "")},
		"500":                 {answer: write(500, "")},
		"truncated JSON":      {answer: write(200, `{"keys":[{"kty":"EC","kid":"a`)},
		"a broken connection": {answer: func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }},
		"a body that breaks off": {answer: func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			_, _ = io.WriteString(w, `{"keys"`)
			panic(http.ErrAbortHandler)
		}},
		"something after the document": {answer: write(200, `{"keys":[]} {}`)},
		"null":                         {answer: write(200, "null")},
		"an array":                     {answer: write(200, "[]")},
		"no keys":                      {answer: write(200, "{}")},
		"empty keys":                   {answer: write(200, `{"keys":[]}`)},
		"keys that is null":            {answer: write(200, `{"keys":null}`)},
		"keys that is no array":        {answer: write(200, `{"keys":{"kty":"EC"}}`)},
		"keys twice":                   {answer: write(200, `{"keys":[],"keys":[]}`)},
		"nested too deep":              {answer: write(200, `{"keys":[`+strings.Repeat("[", 100_000))},
		"10,000 keys":                  {answer: write(200, `{"keys":[`+strings.TrimSuffix(many.String(), ",")+`]}`)},
		"over 1 MiB":                   {answer: write(200, strings.Repeat(" ", 1<<20)+`{"keys":[]}`)},
		"an endless body":              {answer: forever(0, strings.Repeat(" ", 1<<16))},
		"a body that trickles":         {answer: forever(time.Second, " ")},
		"an answer that never comes":   {answer: func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }},
		"an answer after 6 seconds": {answer: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			time.Sleep(6 * time.Second)
			next.ServeHTTP(w, r)
		}},
		"redirect to another origin": {answer: redirect("https://evil.test/oidc/jwks")},
		"redirect to another port":   {answer: redirect("https://issuer.test:8443/oidc/jwks")},
		"redirect to http":           {answer: redirect("http://issuer.test/oidc/jwks")},
		"redirect in a loop":         {answer: redirect("/oidc/jwks"), perTry: 4},
		"redirect to nowhere":        {answer: write(302, "")},

		"discovery of another issuer":                   {answer: write(200, `{"issuer":"https://issuer.test/oidc/","jwks_uri":"https://issuer.test/oidc/jwks"}`), discovery: true},
		"discovery without an issuer":                   {answer: write(200, `{"jwks_uri":"https://issuer.test/oidc/jwks"}`), discovery: true},
		"discovery with two issuers":                    {answer: write(200, `{"issuer":"https://issuer.test/oidc","issuer":"https://issuer.test/oidc","jwks_uri":"https://issuer.test/oidc/jwks"}`), discovery: true},
		"discovery without jwks_uri":                    {answer: write(200, `{"issuer":"https://issuer.test/oidc"}`), discovery: true},
		"discovery with a relative jwks_uri":            {answer: write(200, `{"issuer":"https://issuer.test/oidc","jwks_uri":"/oidc/jwks"}`), discovery: true},
		"discovery with a number for jwks_uri":          {answer: write(200, `{"issuer":"https://issuer.test/oidc","jwks_uri":1}`), discovery: true},
		"jwks_uri on another host":                      {answer: write(200, `{"issuer":"https://issuer.test/oidc","jwks_uri":"https://evil.test/oidc/jwks"}`), discovery: true},
		"jwks_uri on another port":                      {answer: write(200, `{"issuer":"https://issuer.test/oidc","jwks_uri":"https://issuer.test:444/oidc/jwks"}`), discovery: true},
		"jwks_uri over http on another port":            {answer: write(200, `{"issuer":"https://issuer.test/oidc","jwks_uri":"http://issuer.test:8080/oidc/jwks"}`), discovery: true},
		"jwks_uri with the issuer before an @":          {answer: write(200, `{"issuer":"https://issuer.test/oidc","jwks_uri":"https://issuer.test@evil.test/oidc/jwks"}`), discovery: true},
		"HTML with 200 for discovery":                   {answer: write(200, "<html>"), discovery: true, perTry: 3},
		"500 for discovery":                             {answer: write(500, ""), discovery: true},
		"an endless discovery document":                 {answer: forever(0, strings.Repeat(" ", 1<<16)), discovery: true},
		"a discovery document that redirects elsewhere": {answer: redirect("https://evil.test/oidc/.well-known/openid-configuration"), discovery: true},
	} {
		path := "/oidc/jwks"
		if test.discovery {
			path = "/.well-known/"
		}
		perTry := max(test.perTry, 1)

		t.Run(name+", at start", func(t *testing.T) {
			growth := keysMemory(t)
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				keysHookAt(issuer, path, test.answer)
				g := keysGuard(t, issuer)
				token := keysToken(issuer, "")
				waited := keysEventually(t, g, token, 503)
				assert.LessOrEqual(t, waited, keysTimeout)
				first := issuer.Fetches()
				assert.LessOrEqual(t, first.JWKS, perTry)
				assert.LessOrEqual(t, first.Discovery, perTry)
				keysAtOnce(t, g, token, 503)
				assert.Equal(t, first, issuer.Fetches(), "no fetch while the backoff runs")
				assert.NotEmpty(t, g.Keys().LastError)
				assert.Less(t, len(g.Keys().LastError), 2000, "an error that can be logged")
				for range 59 {
					time.Sleep(time.Second)
					keysEventually(t, g, token, 503)
				}
				assert.LessOrEqual(t, issuer.Fetches().JWKS, 9*perTry)
				assert.LessOrEqual(t, issuer.Fetches().Discovery, 9*perTry)
				issuer.Intercept(nil)
				time.Sleep(keysBackoff)
				keysAtOnce(t, g, token, 200)
			})
			assert.Less(t, growth(), int64(4<<20))
		})
		if test.discovery {
			continue
		}
		t.Run(name+", after good keys", func(t *testing.T) {
			growth := keysMemory(t)
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := keysGuard(t, issuer)
				token := keysToken(issuer, "")
				keysAtOnce(t, g, token, 200)
				begin := time.Now()
				keysHookAt(issuer, path, test.answer)
				for time.Since(begin) < keysTTL+10*time.Minute {
					keysAtOnce(t, g, token, 200, time.Since(begin))
					time.Sleep(15 * time.Second)
				}
				assert.Equal(t, m2mauth.KeysStale, g.Keys().State)
				assert.InDelta(t, g.Keys().Failures, g.Keys().Fetches-1, 1, "one may be under way")
				assert.LessOrEqual(t, issuer.Fetches().JWKS, 1+(5+13*2)*perTry)
				issuer.Intercept(nil)
				time.Sleep(keysBackoff)
				keysAtOnce(t, g, token, 200)
				synctest.Wait()
				assert.Equal(t, m2mauth.KeysFresh, g.Keys().State)
			})
			assert.Less(t, growth(), int64(4<<20))
		})
	}
}

// keysMemory returns a function that tells how much memory is held since.
func keysMemory(testing.TB) func() int64 {
	held := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := held()
	return func() int64 { return held() - before }
}

func TestRetryAfterIsHonouredUpToAMinute(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"":                      time.Second,
		"0":                     time.Second,
		"20":                    20 * time.Second,
		"45":                    45 * time.Second,
		"3600":                  time.Minute,
		"99999999999999":        time.Minute,
		"-5":                    time.Second,
		"rubbish":               time.Second,
		"in 20 s, as HTTP-date": 20 * time.Second,
	} {
		t.Run(header, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := keysGuard(t, issuer)
				token := keysToken(issuer, "")
				keysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
					h := header
					if strings.HasSuffix(h, "HTTP-date") {
						h = time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat)
					}
					if h != "" {
						w.Header().Set("Retry-After", h)
					}
					w.WriteHeader(http.StatusTooManyRequests)
				})
				keysAtOnce(t, g, token, 503)
				issuer.Intercept(nil)
				time.Sleep(want - time.Millisecond)
				keysAtOnce(t, g, token, 503)
				assert.Equal(t, 1, issuer.Fetches().JWKS)
				time.Sleep(time.Millisecond)
				keysAtOnce(t, g, token, 200)
			})
		})
	}
}

// Who is told to come back is told when the guard will ask again.
func TestA503SaysWhenTheNextAttemptIs(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		keysDown(issuer)
		token := keysToken(issuer, "")
		for range 300 {
			_, err := g.Verify(t.Context(), token)
			var e *m2mauth.Error
			require.ErrorAs(t, err, &e)
			assert.GreaterOrEqual(t, e.RetryAfter, time.Until(g.Keys().NextRefresh), "too early to ask again")
			assert.LessOrEqual(t, e.RetryAfter, keysBackoff)
			time.Sleep(time.Second)
		}
	})
}

func TestAnOddKeyDoesNotSpoilTheOthers(t *testing.T) {
	const (
		zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
		p256x = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"
		p256y = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
	)
	modulus := func(bits int) string {
		n := make([]byte, bits/8)
		for i := range n {
			n[i] = 0xff
		}
		return base64.RawURLEncoding.EncodeToString(n)
	}
	ec := func(more string) string {
		return fmt.Sprintf(`{"kty":"EC","kid":"odd","crv":"P-256","x":%q,"y":%q%s}`, p256x, p256y, more)
	}
	rsa := func(bits int, e string) string {
		return fmt.Sprintf(`{"kty":"RSA","kid":"odd","n":%q,"e":%q}`, modulus(bits), e)
	}
	for name, test := range map[string]struct {
		jwk   string
		noKID bool // the kid cannot be read
		quiet bool // nothing is wrong with it
	}{
		"use enc":                          {jwk: ec(`,"use":"enc"`), quiet: true},
		"use that is a number":             {jwk: ec(`,"use":1`)},
		"key_ops without verify":           {jwk: ec(`,"key_ops":["encrypt"]`)},
		"key_ops that is no array":         {jwk: ec(`,"key_ops":"verify"`)},
		"a private member":                 {jwk: ec(`,"d":"` + zeros + `"`)},
		"an alg that does not fit":         {jwk: ec(`,"alg":"ES384"`)},
		"an alg unknown":                   {jwk: ec(`,"alg":"ES256K"`)},
		"a symmetric key":                  {jwk: `{"kty":"oct","kid":"odd","alg":"HS256","k":"` + zeros + `"}`},
		"RSA of 1024 bits":                 {jwk: rsa(1024, "AQAB")},
		"RSA of 16,384 bits":               {jwk: rsa(16384, "AQAB")},
		"RSA with exponent 1":              {jwk: rsa(2048, "AQ")},
		"RSA with an even exponent":        {jwk: rsa(2048, "AQAA")},
		"RSA with a huge exponent":         {jwk: rsa(2048, "AQAAAAAAAAAB")},
		"RSA without n":                    {jwk: `{"kty":"RSA","kid":"odd","e":"AQAB"}`},
		"an EC point off its curve":        {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":"` + p256x + `","y":"` + p256x + `"}`},
		"the EC point at infinity":         {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":"` + zeros + `","y":"` + zeros + `"}`},
		"short EC coordinates":             {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":"AQ","y":"AQ"}`},
		"long EC coordinates":              {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":"AAAA` + p256x + `","y":"AAAA` + p256y + `"}`},
		"EC coordinates padded too much":   {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":"` + p256x + `==","y":"` + p256y + `=="}`},
		"P-256 coordinates called P-384":   {jwk: `{"kty":"EC","kid":"odd","crv":"P-384","x":"` + p256x + `","y":"` + p256y + `"}`},
		"secp256k1":                        {jwk: `{"kty":"EC","kid":"odd","crv":"secp256k1","x":"` + p256x + `","y":"` + p256y + `"}`},
		"X25519":                           {jwk: `{"kty":"OKP","kid":"odd","crv":"X25519","x":"` + zeros + `"}`},
		"Ed448":                            {jwk: `{"kty":"OKP","kid":"odd","crv":"Ed448","x":"` + zeros + `"}`},
		"an Ed25519 key of three bytes":    {jwk: `{"kty":"OKP","kid":"odd","crv":"Ed25519","x":"AAAA"}`},
		"ML-DSA":                           {jwk: `{"kty":"AKP","kid":"odd","alg":"ML-DSA-44","pub":"` + modulus(8*1312) + `"}`},
		"no kty":                           {jwk: `{"kid":"odd"}`},
		"kty that is a number":             {jwk: `{"kty":3,"kid":"odd"}`},
		"a kid that is a number":           {jwk: `{"kty":"EC","kid":7,"crv":"P-256","x":"` + p256x + `","y":"` + p256y + `"}`, noKID: true},
		"a doubled member":                 {jwk: ec(`,"kty":"EC"`), noKID: true},
		"a string that is no UTF-8":        {jwk: ec(",\"a\":\"\xff\""), noKID: true},
		"null":                             {jwk: `null`, noKID: true},
		"a string":                         {jwk: `"odd"`, noKID: true},
		"a number":                         {jwk: `1`, noKID: true},
		"an array":                         {jwk: `[]`, noKID: true},
		"an empty object":                  {jwk: `{}`, noKID: true},
		"members in another letter case":   {jwk: `{"KTY":"EC","KID":"odd","CRV":"P-256","X":"` + p256x + `","Y":"` + p256y + `"}`, noKID: true},
		"a coordinate that is a number":    {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":1,"y":"` + p256y + `"}`},
		"a coordinate with a line break":   {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":"` + p256x + `\n","y":"` + p256y + `"}`},
		"RSA with alg of another key type": {jwk: `{"kty":"RSA","kid":"odd","alg":"ES256","n":"` + modulus(2048) + `","e":"AQAB"}`},
	} {
		t.Run(name, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				var log keysLog
				issuer := m2mauthtest.NewIssuer()
				issuer.PublishJWK([]byte(test.jwk))
				g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
				keysAtOnce(t, g, keysToken(issuer, ""), 200)
				level := slog.LevelWarn
				if test.quiet {
					level = slog.LevelDebug
					assert.Zero(t, log.count(slog.LevelWarn))
				}
				assert.Equal(t, 1, log.count(level), "skipped and logged")
				for _, alg := range []string{"ES256", "ES384", "RS256", "EdDSA"} {
					odd := issuer.Sign(m2mauthtest.Token{Audience: keysAPI, Header: map[string]any{"kid": "odd", "alg": alg}})
					keysAtOnce(t, g, odd, 401)
				}
				want := 1
				if test.noKID {
					want = 2
				}
				assert.Equal(t, want, issuer.Fetches().JWKS, "a key ID that is published causes no fetch")

				// Alone it makes no key set.
				alone := keysGuard(t, issuer)
				keysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
					fmt.Fprintf(w, `{"keys":[%s]}`, test.jwk)
				})
				keysAtOnce(t, alone, keysToken(issuer, ""), 503)
			})
		})
	}
}

func TestAHundredOddKeysAreLoggedInAFewLines(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		var log keysLog
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		for i := range 900 {
			issuer.PublishJWK(fmt.Appendf(nil, `{"kty":"AKP","kid":"%d-%s"}`, i, strings.Repeat("x", 500)))
		}
		keysAtOnce(t, g, keysToken(issuer, ""), 200)
		assert.LessOrEqual(t, log.count(slog.LevelWarn), 20)

		issuer.Withdraw(issuer.KeyIDs()[0])
		alone := keysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		keysAtOnce(t, alone, keysToken(issuer, ""), 503)
		assert.Less(t, len(alone.Keys().LastError), 8<<10)
	})
}

func TestTwoKeysWithOneKeyID(t *testing.T) {
	jwkOf := func(t *testing.T, issuer *m2mauthtest.Issuer) string {
		r := httptest.NewRequest("GET", issuer.JWKSURL(), nil)
		w := httptest.NewRecorder()
		issuer.ServeHTTP(w, r)
		list, found := strings.CutPrefix(w.Body.String(), `{"keys":[`)
		require.True(t, found)
		return strings.TrimSuffix(list, `]}`)
	}
	for name, test := range map[string]struct {
		alg  string
		want int
	}{
		"of different types: the one that fits": {"EdDSA", 200},
		"of the same type: none":                {"ES384", 401},
	} {
		t.Run(name, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				issuer, other := m2mauthtest.NewIssuer(), m2mauthtest.NewIssuer()
				kid := issuer.KeyIDs()[0]
				old := other.KeyIDs()[0]
				if test.alg != "ES384" {
					other.Rotate(test.alg)
					other.Withdraw(old)
				}
				jwk := strings.Replace(jwkOf(t, other), other.KeyIDs()[0], kid, 1)
				issuer.PublishJWK([]byte(jwk))
				g := keysGuard(t, issuer)
				keysAtOnce(t, g, keysToken(issuer, ""), test.want)
				assert.Equal(t, 1, issuer.Fetches().JWKS)
			})
		})
	}
}

func TestDiscovery(t *testing.T) {
	const (
		openid   = "/.well-known/openid-configuration"
		appended = "/.well-known/oauth-authorization-server"
	)
	document := func(issuer, jwks string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"unknown":[{}]}`, issuer, jwks)
		}
	}
	for name, test := range map[string]struct {
		issuer string
		at     string // where the document is
		asked  []string
	}{
		"OpenID Connect":                       {"https://issuer.test/oidc", "/oidc" + openid, []string{"/oidc" + openid}},
		"RFC 8414 appended, as Logto has it":   {"https://issuer.test/oidc", "/oidc" + appended, []string{"/oidc" + openid, "/oidc" + appended}},
		"RFC 8414 inserted":                    {"https://issuer.test/oidc", appended + "/oidc", []string{"/oidc" + openid, "/oidc" + appended, appended + "/oidc"}},
		"one trailing slash is stripped":       {"https://issuer.test/oidc/", "/oidc" + openid, []string{"/oidc" + openid}},
		"and only one":                         {"https://issuer.test/oidc//", "/oidc/" + openid, []string{"/oidc/" + openid}},
		"an issuer without a path":             {"https://issuer.test", openid, []string{openid}},
		"an issuer that is a slash":            {"https://issuer.test/", openid, []string{openid}},
		"RFC 8414 inserted, with the slash":    {"https://issuer.test/oidc/", appended + "/oidc", []string{"/oidc" + openid, "/oidc" + appended, appended + "/oidc"}},
		"an issuer with an escape in its path": {"https://issuer.test/a%2Fb", "/a%2Fb" + openid, []string{"/a%2Fb" + openid}},
	} {
		t.Run(name, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				var asked []string
				issuer.Intercept(func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/oidc/jwks" {
							next.ServeHTTP(w, r)
							return
						}
						asked = append(asked, r.URL.EscapedPath())
						if r.URL.EscapedPath() != test.at {
							http.NotFound(w, r)
							return
						}
						document(test.issuer, issuer.JWKSURL())(w, r)
					})
				})
				g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.Issuer = test.issuer })
				token := issuer.Sign(m2mauthtest.Token{Audience: keysAPI, Claims: map[string]any{"iss": test.issuer}})
				keysAtOnce(t, g, token, 200)
				assert.Equal(t, test.asked, asked)
				if other, found := strings.CutSuffix(test.issuer, "/"); found {
					token := issuer.Sign(m2mauthtest.Token{Audience: keysAPI, Claims: map[string]any{"iss": other}})
					keysAtOnce(t, g, token, 401, "never stripped for comparing")
				}
			})
		})
	}

	t.Run("a failure that says nothing of documents falls back to nothing", func(t *testing.T) {
		keysBubble(t, func(t *testing.T) {
			issuer := m2mauthtest.NewIssuer()
			keysHookAt(issuer, "/oidc"+openid, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(500) })
			g := keysGuard(t, issuer)
			keysAtOnce(t, g, keysToken(issuer, ""), 503)
			assert.Equal(t, m2mauthtest.Fetches{Discovery: 1}, issuer.Fetches())
		})
	})

	t.Run("is read again once a day", func(t *testing.T) {
		keysBubble(t, func(t *testing.T) {
			issuer := m2mauthtest.NewIssuer()
			g := keysGuard(t, issuer)
			for range 3 * 24 * 60 {
				require.NoError(t, g.Warm(t.Context()))
				time.Sleep(time.Minute)
			}
			synctest.Wait()
			t.Logf("%+v in three days", issuer.Fetches())
			assert.InDelta(t, 3, issuer.Fetches().Discovery, 1)
			assert.LessOrEqual(t, issuer.Fetches().JWKS, 3*24*60/7+1)
		})
	})

	t.Run("failing to read it again costs nothing but time", func(t *testing.T) {
		keysBubble(t, func(t *testing.T) {
			issuer := m2mauthtest.NewIssuer()
			g := keysGuard(t, issuer)
			token := keysToken(issuer, "")
			keysAtOnce(t, g, token, 200)
			keysHookAt(issuer, "/oidc"+openid, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() })
			time.Sleep(25 * time.Hour)
			issuer.Rotate("ES384")
			assert.LessOrEqual(t, keysEventually(t, g, keysToken(issuer, ""), 200), keysTimeout)
		})
	})

	t.Run("is read again with the next refresh where that failed", func(t *testing.T) {
		keysBubble(t, func(t *testing.T) {
			issuer := m2mauthtest.NewIssuer()
			g := keysGuard(t, issuer)
			require.NoError(t, g.Warm(t.Context()))
			keysHookAt(issuer, "/oidc"+openid, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(500) })
			time.Sleep(24 * time.Hour)
			require.NoError(t, g.Warm(t.Context()))
			assert.Equal(t, m2mauthtest.Fetches{Discovery: 2, JWKS: 2}, issuer.Fetches())
			issuer.Intercept(nil)
			for range 2 { // and then it is believed for a day
				time.Sleep(keysTTL)
				require.NoError(t, g.Warm(t.Context()))
				assert.Equal(t, 3, issuer.Fetches().Discovery)
			}
		})
	})

	// The key set moves, and what its old URL says then.
	for name, gone := range map[string]http.HandlerFunc{
		"404":              func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
		"500":              func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) },
		"200 with HTML":    func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"an empty key set": func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) },
		"redirect elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.test/", http.StatusFound)
		},
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		for where, follow := range map[string]bool{"https://issuer.test/oidc/moved": true, "https://evil.test/oidc/moved": false, "http://issuer.test/oidc/moved": true} {
			t.Run("a key set moved to "+where+", the old URL says "+name, func(t *testing.T) {
				keysBubble(t, func(t *testing.T) {
					issuer := m2mauthtest.NewIssuer()
					moved := false
					issuer.Intercept(func(next http.Handler) http.Handler {
						return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							switch {
							case moved && strings.Contains(r.URL.Path, ".well-known"):
								document(issuer.URL(), where)(w, r)
							case moved && r.URL.Path == "/oidc/jwks":
								gone(w, r)
							case moved && r.URL.Path == "/oidc/moved":
								r.URL.Path = "/oidc/jwks"
								next.ServeHTTP(w, r)
							default:
								next.ServeHTTP(w, r)
							}
						})
					})
					g := keysGuard(t, issuer)
					keysAtOnce(t, g, keysToken(issuer, ""), 200)
					moved = true
					time.Sleep(time.Minute)
					issuer.Rotate("ES384")
					token := keysToken(issuer, "")
					keysEventually(t, g, token, 503, "the attempt that finds the old URL failing")
					time.Sleep(2 * time.Second)
					want := 503
					if follow {
						want = 200
					}
					keysEventually(t, g, token, want)
				})
			})
		}
	}
}

func TestJWKSURLMayBeOnAnotherOrigin(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.Issuer, c.JWKSURL = "https://elsewhere.test", issuer.JWKSURL() })
		token := issuer.Sign(m2mauthtest.Token{Audience: keysAPI, Claims: map[string]any{"iss": "https://elsewhere.test"}})
		keysAtOnce(t, g, token, 200)
		assert.Equal(t, m2mauthtest.Fetches{JWKS: 1}, issuer.Fetches())
	})
}

// In compose and Kubernetes the issuer's identifier has a name that browsers
// know, and its keys are fetched under the name of the service.
func TestSplitHorizon(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		const identifier = "http://localhost:3001/oidc"
		issuer := m2mauthtest.NewIssuer()
		var asked []string
		inside := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			asked = append(asked, r.URL.String())
			if r.URL.Host != "logto:3001" {
				return nil, errors.New("connection refused")
			}
			r = r.Clone(r.Context())
			r.URL.Scheme, r.URL.Host = "https", "issuer.test"
			return issuer.Client().Transport.RoundTrip(r)
		})}
		token := issuer.Sign(m2mauthtest.Token{Audience: keysAPI, Claims: map[string]any{"iss": identifier}})
		config := func(c *m2mauth.Config) {
			c.Issuer, c.JWKSURL, c.HTTPClient = identifier, "http://logto:3001/oidc/jwks", inside
		}
		for _, hosts := range [][]string{{"logto"}, {"logto:3001"}, {"LOGTO"}} {
			g := keysGuard(t, issuer, config, func(c *m2mauth.Config) { c.InsecureHTTPHosts = hosts })
			keysAtOnce(t, g, token, 200)
		}
		assert.Equal(t, []string{"http://logto:3001/oidc/jwks", "http://logto:3001/oidc/jwks", "http://logto:3001/oidc/jwks"}, asked)

		c := issuer.Config(keysAPI)
		config(&c)
		for _, hosts := range [][]string{nil, {"logto:3002"}, {"ogto"}, {"other"}} {
			c.InsecureHTTPHosts = hosts
			_, err := m2mauth.New(c)
			assert.ErrorContains(t, err, "JWKSURL")
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestStaticKeysNeedNoNetwork(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		w := httptest.NewRecorder()
		issuer.ServeHTTP(w, httptest.NewRequest("GET", issuer.JWKSURL(), nil))
		jwks := w.Body.Bytes()
		before := issuer.Fetches()
		g := keysGuard(t, issuer, func(c *m2mauth.Config) {
			c.JWKS = jwks
			c.HTTPClient = &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { panic("asked the network") })}
		})
		clear(jwks) // New has copied it
		token, madeUp := keysToken(issuer, ""), keysMadeUp(issuer)
		for range 48 {
			keysAtOnce(t, g, token, 200)
			keysAtOnce(t, g, madeUp("made-up"), 401)
			require.NoError(t, g.Warm(t.Context()))
			assert.Equal(t, m2mauth.KeysFresh, g.Keys().State)
			time.Sleep(time.Hour / 2)
		}
		assert.Equal(t, before, issuer.Fetches())
		assert.Len(t, g.Keys().Keys, 1)

		c := issuer.Config(keysAPI)
		for _, bad := range []string{"", "{}", `{"keys":[]}`, `{"keys":[{"kty":"oct","k":"AA"}]}`, "<html>"} {
			c.JWKS = []byte(bad)
			_, err := m2mauth.New(c)
			assert.ErrorContains(t, err, "Config.JWKS", bad)
		}
	})
}

func TestParametersThatContradictEachOtherAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*m2mauth.Config)
		names  string
	}{
		"keys given and fetched":                    {func(c *m2mauth.Config) { c.JWKS, c.JWKSURL = []byte("{}"), c.Issuer }, "Config.JWKS"},
		"a fetch may take more than a tenth of TTL": {func(c *m2mauth.Config) { c.KeyTTL, c.FetchTimeout = time.Minute, 7*time.Second }, "Config.FetchTimeout"},
		"the same against the default TTL":          {func(c *m2mauth.Config) { c.FetchTimeout = 61 * time.Second }, "Config.FetchTimeout"},
		"a negative fetch timeout":                  {func(c *m2mauth.Config) { c.FetchTimeout = -1 }, "Config.FetchTimeout"},
		"a TTL under a second":                      {func(c *m2mauth.Config) { c.KeyTTL = time.Millisecond }, "Config.KeyTTL"},
		"a negative TTL":                            {func(c *m2mauth.Config) { c.KeyTTL = -time.Minute }, "Config.KeyTTL"},
		"a TTL over a day":                          {func(c *m2mauth.Config) { c.KeyTTL = 25 * time.Hour }, "Config.KeyTTL"},
		"stale for over a week":                     {func(c *m2mauth.Config) { c.KeyStaleFor = 8 * 24 * time.Hour }, "Config.KeyStaleFor"},
		"plain http":                                {func(c *m2mauth.Config) { c.JWKSURL = "http://logto/oidc/jwks" }, "Config.JWKSURL"},
		"not a URL":                                 {func(c *m2mauth.Config) { c.JWKSURL = "logto/oidc/jwks" }, "Config.JWKSURL"},
		"another scheme":                            {func(c *m2mauth.Config) { c.JWKSURL = "file:///etc/jwks" }, "Config.JWKSURL"},
		"a password in the URL":                     {func(c *m2mauth.Config) { c.JWKSURL = "https://user:secret@logto/jwks" }, "Config.JWKSURL"},
	} {
		t.Run(name, func(t *testing.T) {
			c := m2mauthtest.NewIssuer().Config(keysAPI)
			test.change(&c)
			_, err := m2mauth.New(c)
			require.ErrorContains(t, err, test.names)
			assert.NotContains(t, err.Error(), "secret")
		})
	}
}

func TestWarm(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		require.NoError(t, g.Warm(t.Context()))
		assert.Equal(t, m2mauthtest.Fetches{Discovery: 1, JWKS: 1}, issuer.Fetches())

		keysDown(issuer)
		cold := keysGuard(t, issuer)
		begin := time.Now()
		for range 100 {
			assert.ErrorIs(t, cold.Warm(t.Context()), m2mauth.ErrUnavailable)
		}
		assert.Zero(t, time.Since(begin))
		assert.Equal(t, 2, issuer.Fetches().Discovery, "it respects the backoff")

		keysHanging(issuer)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, cold.Warm(ctx), context.DeadlineExceeded)
		assert.Equal(t, 3, issuer.Fetches().Discovery)
	})
}

func TestStatusThroughAnOutage(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		s := g.Keys()
		assert.Equal(t, m2mauth.KeyStatus{Issuer: issuer.URL(), State: m2mauth.KeysNone}, s)

		require.NoError(t, g.Warm(t.Context()))
		begin := time.Now()
		time.Sleep(time.Minute)
		s = g.Keys()
		assert.Equal(t, m2mauth.KeysFresh, s.State)
		assert.Equal(t, time.Minute, s.Age)
		assert.True(t, s.LastSuccess.Equal(begin))
		assert.Equal(t, []m2mauth.PublishedKey{{ID: issuer.KeyIDs()[0], Algorithm: "ES384"}}, s.Keys)
		assert.Equal(t, 1, s.Fetches)
		assert.Zero(t, s.Failures)
		assert.False(t, s.CoolingDown)
		s.Keys[0] = m2mauth.PublishedKey{}
		assert.NotEmpty(t, g.Keys().Keys[0].ID, "a report is its reader's own")

		keysDown(issuer)
		states := map[m2mauth.KeyState]time.Duration{}
		for time.Since(begin) < keysTTL+keysStaleFor+time.Minute {
			_ = g.Warm(t.Context())
			synctest.Wait()
			s = g.Keys()
			if _, seen := states[s.State]; !seen {
				states[s.State] = time.Since(begin)
			}
			time.Sleep(time.Second)
		}
		assert.Equal(t, map[m2mauth.KeyState]time.Duration{
			m2mauth.KeysFresh: time.Minute, m2mauth.KeysStale: keysTTL, m2mauth.KeysExpired: keysTTL + keysStaleFor,
		}, states)
		assert.Contains(t, s.LastError, "502")
		assert.Contains(t, s.LastError, "https://issuer.test/oidc")
		assert.Equal(t, s.Fetches-1, s.Failures)
		assert.True(t, s.LastSuccess.Equal(begin))

		issuer.Intercept(nil)
		time.Sleep(time.Until(s.NextRefresh))
		require.NoError(t, g.Warm(t.Context()))
		s = g.Keys()
		assert.Equal(t, m2mauth.KeysFresh, s.State)
		assert.Empty(t, s.LastError)
	})
}

// What a user's client does must not hang or end the API.
func TestAClientThatMisbehaves(t *testing.T) {
	for name, misbehave := range map[string]func(*http.Request) (*http.Response, error){
		"panics":                func(*http.Request) (*http.Response, error) { panic("a user's mistake") },
		"panics with nil error": func(*http.Request) (*http.Response, error) { panic(error(nil)) },
		"ends its goroutine":    func(*http.Request) (*http.Response, error) { runtime.Goexit(); return nil, nil },
		"returns nothing":       func(*http.Request) (*http.Response, error) { return nil, nil },
		"does not heed the context": func(*http.Request) (*http.Response, error) {
			time.Sleep(time.Hour)
			return nil, errors.New("timeout")
		},
		"answers an hour late": func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Hour)
			body := `{"issuer":"https://issuer.test/oidc","jwks_uri":"https://issuer.test/oidc/elsewhere"}`
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		},
		"has a body that panics": func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: io.NopCloser(panicReader{}), Request: r}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				var mistaken atomic.Bool
				mistaken.Store(true)
				g := keysGuard(t, issuer, func(c *m2mauth.Config) {
					c.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
						if mistaken.Load() {
							return misbehave(r)
						}
						return issuer.Client().Transport.RoundTrip(r)
					})}
				})
				token := keysToken(issuer, "")
				ctx, cancel := context.WithTimeout(t.Context(), 2*keysTimeout)
				defer cancel()
				status, waited := keysAnswer(ctx, g, token)
				assert.Equal(t, 503, status)
				assert.LessOrEqual(t, waited, keysTimeout+10*time.Millisecond)
				mistaken.Store(false)
				if name == "answers an hour late" {
					time.Sleep(time.Hour - 2*keysTimeout)
					for range 100 { // while the late answer comes in
						keysEventually(t, g, token, 200)
						issuer.Rotate("EdDSA")
						token = keysToken(issuer, "")
						time.Sleep(time.Second)
					}
				}
				time.Sleep(2 * time.Hour)
				ctx, cancel = context.WithTimeout(t.Context(), 2*keysTimeout)
				defer cancel()
				status, _ = keysAnswer(ctx, g, token)
				assert.Equal(t, 200, status, "recovers by itself")
			})
		})
	}
}

type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("a user's mistake") }

// A secret in the key set's URL reaches neither a log nor an error.
func TestTheQueryOfJWKSURLIsNotShown(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){
		"500":     func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(500) },
		"rubbish": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = io.WriteString(w, "<html>") },
		"hangs":   func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() },
		"breaks":  func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) },
		"redirects": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, "https://evil.test/?key=secret", http.StatusFound)
		},
		"an odd key": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			_, _ = io.WriteString(w, `{"keys":[{"kty":"oct","k":"secret"}]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				var log keysLog
				issuer := m2mauthtest.NewIssuer()
				keysHook(issuer, answer)
				g := keysGuard(t, issuer, func(c *m2mauth.Config) {
					c.JWKSURL = issuer.JWKSURL() + "?key=secret"
					c.Logger = slog.New(&log)
				})
				err := g.Warm(t.Context())
				require.Error(t, err)
				synctest.Wait()
				assert.Positive(t, len(log.text()))
				assert.NotContains(t, err.Error()+g.Keys().LastError+log.text(), "secret")
			})
		})
	}
}

// keysLog is a slog.Handler that keeps what it is told.
type keysLog struct {
	mu      sync.Mutex // guards the fields below
	records []slog.Record
}

func (l *keysLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *keysLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *keysLog) WithGroup(string) slog.Handler            { return l }
func (l *keysLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
	return nil
}

// count returns how many records about the issuer's keys had the level.
func (l *keysLog) count(level slog.Level) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		if r.Level == level && !strings.Contains(r.Message, "refused") {
			n++
		}
	}
	return n
}

func (l *keysLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, r := range l.records {
		b.WriteString(r.Message)
		r.Attrs(func(a slog.Attr) bool { b.WriteString(" " + a.String()); return true })
		b.WriteByte('\n')
	}
	return b.String()
}

// Faults that only a real connection has. Goroutines must end and memory must
// not grow, though the guard's own client meets them.
func TestFaultsOnTheWire(t *testing.T) {
	issuer := m2mauthtest.NewIssuer() // only signs
	token := keysToken(issuer, "")
	rec := httptest.NewRecorder()
	issuer.ServeHTTP(rec, httptest.NewRequest("GET", issuer.JWKSURL(), nil))
	keySet := rec.Body.Bytes()

	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	pour := func(first, chunk string) func(net.Conn) {
		endless := []byte(chunk) // once: what the server allocates is counted with the rest
		return func(c net.Conn) {
			_, err := io.WriteString(c, first)
			for err == nil {
				_, err = c.Write(endless)
			}
		}
	}
	for name, test := range map[string]struct {
		scheme string
		serve  func(net.Conn) // after the request's first bytes
	}{
		"an endless body":                          {"http", pour(head+"\r\n", strings.Repeat(" ", 1<<16))},
		"an endless body, chunked":                 {"http", pour(head+"Transfer-Encoding: chunked\r\n\r\n", "10000\r\n"+strings.Repeat(" ", 1<<16)+"\r\n")},
		"headers that never end":                   {"http", pour("HTTP/1.1 200 OK\r\n", "X-Filler: "+strings.Repeat("x", 1000)+"\r\n")},
		"one header that never ends":               {"http", pour("HTTP/1.1 200 OK\r\nX-Filler: ", strings.Repeat("x", 1000))},
		"endless answers before the answer":        {"http", pour("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")},
		"endless trailers":                         {"http", pour(head+"Transfer-Encoding: chunked\r\n\r\n0\r\n", "X-Filler: "+strings.Repeat("x", 1000)+"\r\n")},
		"an accepted connection that says nothing": {"http", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }},
		"a body that stops": {"http", func(c net.Conn) {
			_, _ = io.WriteString(c, head+"Content-Length: 100\r\n\r\n{")
			_, _ = io.Copy(io.Discard, c)
		}},
		"a connection closed at once":            {"http", func(net.Conn) {}},
		"rubbish":                                {"http", func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH\r\n") }},
		"a TLS client that meets plain text":     {"https", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }},
		"a TLS handshake that is never answered": {"https", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }},
		"a TLS handshake that breaks off":        {"https", func(net.Conn) {}},
		"a gzip bomb": {"http", func(c net.Conn) {
			_, _ = io.WriteString(c, head+"Content-Encoding: gzip\r\nConnection: close\r\n\r\n")
			bomb(c)
		}},
		"a body that is shorter than it says":       {"http", func(c net.Conn) { _, _ = io.WriteString(c, head+"Content-Length: 100\r\n\r\n{}") }},
		"a Content-Length of many gigabytes":        {"http", pour(head+"Content-Length: 99999999999\r\n\r\n", strings.Repeat(" ", 1<<16))},
		"another status that has an endless body":   {"http", pour("HTTP/1.1 500 Oh\r\n\r\n", strings.Repeat(" ", 1<<16))},
		"a redirect that has an endless body":       {"http", pour("HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n", strings.Repeat(" ", 1<<16))},
		"a 304 that nobody asked for":               {"http", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 304 Not Modified\r\n\r\n") }},
		"an answer of another protocol, switched":   {"http", pour("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "x")},
		"a key set that trickles byte after byte":   {"http", trickle(append([]byte(head+"\r\n"), keySet...))},
		"a header that trickles byte after byte":    {"http", trickle([]byte(head + "\r\n" + string(keySet)))},
		"a good key set under a wrong content type": {"http", nil},
	} {
		for _, client := range []string{"its own client", "a user's client"} {
			t.Run(name+", with "+client, func(t *testing.T) {
				growth := keysMemory(t)
				goroutines := runtime.NumGoroutine()
				server := serveRaw(t, func(c net.Conn) {
					if test.serve != nil {
						test.serve(c)
						return
					}
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s", len(keySet), keySet)
				})
				network := &http.Client{Transport: &http.Transport{}}
				want, ttl := 503, time.Second
				if test.serve == nil {
					want, ttl = 200, 20*time.Minute // it has the time that a busy machine needs
				}
				g := keysGuard(t, issuer, func(c *m2mauth.Config) {
					c.JWKSURL = test.scheme + "://" + server.address + "/jwks"
					c.KeyTTL, c.FetchTimeout = ttl, ttl/10
					c.HTTPClient = nil
					if client == "a user's client" {
						c.HTTPClient = network
					}
				})
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				waited := keysEventually(t, g, token, want)
				runtime.ReadMemStats(&after)
				assert.Less(t, waited, keysPatience) // of 100 ms
				assert.LessOrEqual(t, server.accepted(), 5)
				if client == "its own client" {
					assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20), "allocated on the way")
					keysGoroutines(t, func() int { return goroutines + 1 + server.serving() }) // while the server holds on
				}
				server.close()
				network.CloseIdleConnections()
				keysGoroutines(t, func() int { return goroutines })
				for begin := time.Now(); growth() >= 4<<20; runtime.Gosched() { // a user's client reads 10 MB of headers, and lets them go in its time
					require.Less(t, time.Since(begin), keysPatience, "memory is held")
				}
			})
		}
	}
}

// keysPatience ends the wait for what does not come, on however busy a machine.
const keysPatience = 2 * time.Minute

// keysGoroutines waits until no more goroutines than that are left.
func keysGoroutines(t *testing.T, atMost func() int) {
	t.Helper()
	for begin := time.Now(); runtime.NumGoroutine() > atMost(); runtime.Gosched() {
		if time.Since(begin) > keysPatience {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines are left, and not %d:\n%s", runtime.NumGoroutine(), atMost(), stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func bomb(w io.Writer) {
	z := gzip.NewWriter(w)
	zeros := make([]byte, 1<<16)
	for range 1 << 14 { // 1 GiB of zeros
		if _, err := z.Write(zeros); err != nil {
			return
		}
	}
	_ = z.Close()
}

func trickle(data []byte) func(net.Conn) {
	return func(c net.Conn) {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := range data {
			if _, err := c.Write(data[i : i+1]); err != nil {
				return
			}
			<-tick.C
		}
	}
}

// rawServer hands each connection to a function and closes it after.
type rawServer struct {
	address string
	close   func()

	mu             sync.Mutex // guards the fields below
	active, served int
}

func (s *rawServer) accepted() int { s.mu.Lock(); defer s.mu.Unlock(); return s.served }
func (s *rawServer) serving() int  { s.mu.Lock(); defer s.mu.Unlock(); return s.active }

func serveRaw(t *testing.T, serve func(net.Conn)) *rawServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &rawServer{address: listener.Addr().String()}
	var wg sync.WaitGroup
	var conns sync.Map
	wg.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.active++
			s.served++
			s.mu.Unlock()
			conns.Store(c, true)
			wg.Go(func() {
				defer func() {
					_ = c.Close()
					s.mu.Lock()
					s.active--
					s.mu.Unlock()
				}()
				if _, err := c.Read(make([]byte, 4096)); err == nil {
					serve(c)
				}
			})
		}
	})
	s.close = sync.OnceFunc(func() {
		_ = listener.Close()
		conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		wg.Wait()
	})
	t.Cleanup(s.close)
	return s
}
