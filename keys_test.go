package m2mauth_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
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

func TestKeysThatAreFreshServeFromMemory(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		assert.Equal(t, m2mauthtest.Fetches{}, issuer.Fetches(), "New does no I/O")
		assert.Equal(t, m2mauth.KeysNone, g.Keys().State)
		token := testguard.KeysToken(issuer, "")
		for range 400 { // 6 min 40 s: before the earliest refresh, at 70 % of 10 min
			testguard.KeysAtOnce(t, g, token, 200)
			time.Sleep(time.Second)
		}
		assert.Equal(t, m2mauthtest.Fetches{Discovery: 1, JWKS: 1}, issuer.Fetches())
	})
}

func TestKeysAreRefreshedAheadOnceAndNobodyWaits(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		token := testguard.KeysToken(issuer, "")
		testguard.KeysAtOnce(t, g, token, 200)
		fetched := time.Now()

		testguard.KeysSlow(issuer, 4*time.Second)
		var conditional int
		testguard.KeysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Header.Get("If-None-Match") != "" {
				conditional++
			}
			time.Sleep(4 * time.Second)
			next.ServeHTTP(w, r)
		})
		var begun time.Duration
		for time.Since(fetched) < testguard.KeysTTL+time.Minute {
			testguard.KeysAtOnce(t, g, token, 200)
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

func TestKeysAreRenewedByA304(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		token := testguard.KeysToken(issuer, "")
		var answers []int
		testguard.KeysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
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
			testguard.KeysAtOnce(t, g, token, 200)
			synctest.Wait()
			assert.Equal(t, m2mauth.KeysFresh, g.Keys().State)
			time.Sleep(9*time.Minute + time.Second)
		}
		assert.Equal(t, []int{200, 304, 304, 304}, answers)
		assert.Empty(t, g.Keys().LastError)
		assert.Len(t, g.Keys().Keys, 1)

		// A 304 that nobody asked for is no key set.
		other := testguard.KeysGuard(t, issuer)
		testguard.KeysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusNotModified) })
		testguard.KeysAtOnce(t, other, token, 503)
	})
}

func TestETagOfKeysIsSentToItsOwnURLOnly(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		token := testguard.KeysToken(issuer, "")
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
		testguard.KeysAtOnce(t, g, token, 200)
		path = "/oidc/moved"
		time.Sleep(testguard.KeysTTL + time.Second)
		testguard.KeysAtOnce(t, g, token, 200, "the last good keys serve")
		time.Sleep(2 * time.Second)
		testguard.KeysAtOnce(t, g, token, 200)
		synctest.Wait()
		assert.Equal(t, m2mauth.KeysFresh, g.Keys().State)
		assert.Equal(t, map[string][]string{"/oidc/jwks": {""}, "/oidc/moved": {""}}, sent)
	})
}

func TestMaxAgeOfKeysReplacesTheTTLWithinBounds(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"":                            testguard.KeysTTL,
		"no-cache, max-age=0":         testguard.KeysTTL, // Logto's
		"max-age=0":                   testguard.KeysTTL,
		"no-store":                    testguard.KeysTTL,
		"no-store, max-age=1800":      testguard.KeysTTL,
		"max-age=1800":                30 * time.Minute,
		"Public, Max-Age=1800":        30 * time.Minute,
		`max-age="1800"`:              30 * time.Minute,
		"max-age=5":                   time.Minute,
		"max-age=86400":               time.Hour,
		"max-age=99999999999999999":   time.Hour,
		"max-age=-1":                  testguard.KeysTTL,
		"max-age=soon":                testguard.KeysTTL,
		"s-maxage=1800":               testguard.KeysTTL,
		"max-age=1800, max-age=86400": testguard.KeysTTL,
	} {
		t.Run(header, func(t *testing.T) {
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				testguard.KeysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					rec := httptest.NewRecorder()
					next.ServeHTTP(rec, r)
					if header != "" {
						w.Header().Set("Cache-Control", header)
					}
					_, _ = w.Write(rec.Body.Bytes())
				})
				g := testguard.KeysGuard(t, issuer)
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

func TestKeysAreFetchedOnceForAThousandFirstRequests(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		testguard.KeysSlow(issuer, time.Second)
		g := testguard.KeysGuard(t, issuer)
		token := testguard.KeysToken(issuer, "")
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				waited := testguard.KeysEventually(t, g, token, 200)
				assert.Equal(t, 2*time.Second, waited)
			})
		}
		wg.Wait()
		assert.Equal(t, m2mauthtest.Fetches{Discovery: 1, JWKS: 1}, issuer.Fetches())
	})
}

func TestKeysRotatedInPlaceAreGoneWithTheNextRefresh(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		old := testguard.KeysToken(issuer, "")
		testguard.KeysAtOnce(t, g, old, 200)
		issuer.Replace(issuer.KeyIDs()[0])
		token := testguard.KeysToken(issuer, "")
		time.Sleep(testguard.KeysTTL)
		testguard.KeysAtOnce(t, g, old, 401)
		testguard.KeysAtOnce(t, g, token, 200)
		assert.Equal(t, 2, issuer.Fetches().JWKS)
	})
}

// An issuer may change the algorithm with the key, and nobody has to tell the API.
func TestKeysOfThreeAlgorithmsAreRotatedIn(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		var tokens []string // from the oldest on
		for _, alg := range []string{"ES384", "RS256", "EdDSA"} {
			if tokens != nil {
				issuer.Rotate(alg)
			}
			tokens = append(tokens, testguard.KeysToken(issuer, ""))
			time.Sleep(testguard.KeysAbsent)
			for age, token := range tokens[max(0, len(tokens)-2):] { // an issuer publishes two keys
				testguard.KeysAtOnce(t, g, token, 200, "%s came, key %d of the two", alg, age)
			}
			keys := g.Keys().Keys
			require.NotEmpty(t, keys)
			assert.Equal(t, alg, keys[0].Algorithm, "the current one")
		}
		testguard.KeysAtOnce(t, g, tokens[0], 401, "the third key took the first one's place")
		issuer.Withdraw(issuer.KeyIDs()[1])
		time.Sleep(testguard.KeysTTL)
		for i, want := range []int{401, 401, 200} {
			testguard.KeysAtOnce(t, g, tokens[i], want, i)
		}
	})
}

func TestKeysThatAreWithdrawnAreRefusedFromTheNextRefreshOn(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		kid := issuer.KeyIDs()[0]
		token := testguard.KeysToken(issuer, kid)
		issuer.Rotate("ES384")
		testguard.KeysAtOnce(t, g, token, 200)
		issuer.Withdraw(kid)
		withdrawn, last := time.Now(), time.Duration(0)
		for time.Since(withdrawn) < 2*testguard.KeysTTL {
			if status, _ := testguard.KeysAnswer(t.Context(), g, token); status == 200 {
				last = time.Since(withdrawn)
			}
			time.Sleep(time.Second)
		}
		assert.LessOrEqual(t, last, testguard.KeysTTL)
		assert.Positive(t, last)
	})
}

// The request after a pause waits, so that a key withdrawn long ago does not
// open one last request.
func TestKeysThatAreWithdrawnDoNotOpenTheFirstRequestAfterAPause(t *testing.T) {
	setUp := func(t *testing.T) (*m2mauthtest.Issuer, *m2mauth.Guard, string) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		kid := issuer.KeyIDs()[0]
		token := testguard.KeysToken(issuer, kid)
		testguard.KeysAtOnce(t, g, token, 200)
		issuer.Rotate("ES384")
		issuer.Withdraw(kid)
		time.Sleep(testguard.KeysTTL)
		return issuer, g, token
	}
	t.Run("the issuer answers", func(t *testing.T) {
		testguard.KeysBubble(t, func(t *testing.T) {
			issuer, g, token := setUp(t)
			testguard.KeysSlow(issuer, 2*time.Second)
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { assert.Equal(t, 2*time.Second, testguard.KeysEventually(t, g, token, 401)) })
			}
			wg.Wait()
			assert.Equal(t, 2, issuer.Fetches().JWKS)
		})
	})
	t.Run("a client that hangs up at once is not let through", func(t *testing.T) {
		testguard.KeysBubble(t, func(t *testing.T) {
			issuer, g, token := setUp(t)
			testguard.KeysSlow(issuer, 2*time.Second)
			ctx, hangUp := context.WithCancel(t.Context())
			hangUp()
			status, waited := testguard.KeysAnswer(ctx, g, token)
			assert.Equal(t, 503, status)
			assert.Zero(t, waited)
			ctx, hangUp = context.WithTimeout(t.Context(), time.Second)
			defer hangUp()
			status, waited = testguard.KeysAnswer(ctx, g, token)
			assert.Equal(t, 503, status)
			assert.Equal(t, time.Second, waited)
			time.Sleep(2 * time.Second)
			assert.Equal(t, m2mauth.KeysFresh, g.Keys().State, "the fetch went on")
			assert.Equal(t, 2, issuer.Fetches().JWKS)
			testguard.KeysEventually(t, g, token, 401)
		})
	})
	t.Run("nor is one for whom there is no place to wait", func(t *testing.T) {
		testguard.KeysBubble(t, func(t *testing.T) {
			issuer, g, token := setUp(t)
			testguard.KeysSlow(issuer, 2*time.Second)
			var mu sync.Mutex
			answers := map[int]int{}
			var wg sync.WaitGroup
			for range 10_000 {
				wg.Go(func() {
					status, _ := testguard.KeysAnswer(t.Context(), g, token)
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
		testguard.KeysBubble(t, func(t *testing.T) {
			issuer, g, token := setUp(t)
			testguard.KeysHanging(issuer)
			assert.Equal(t, testguard.KeysTimeout, testguard.KeysEventually(t, g, token, 200))
			for range 600 { // no other request waits, however slow the issuer
				testguard.KeysAtOnce(t, g, token, 200)
				time.Sleep(time.Second)
			}
		})
	})
}

func TestStaticKeysNeedNoNetwork(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		w := httptest.NewRecorder()
		issuer.ServeHTTP(w, httptest.NewRequest("GET", issuer.JWKSURL(), nil))
		jwks := w.Body.Bytes()
		before := issuer.Fetches()
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) {
			c.JWKS = jwks
			c.HTTPClient = &http.Client{Transport: testguard.RoundTripper(func(*http.Request) (*http.Response, error) { panic("asked the network") })}
		})
		clear(jwks) // New has copied it
		token, madeUp := testguard.KeysToken(issuer, ""), testguard.KeysMadeUp(issuer)
		for range 48 {
			testguard.KeysAtOnce(t, g, token, 200)
			testguard.KeysAtOnce(t, g, madeUp("made-up"), 401)
			require.NoError(t, g.Warm(t.Context()))
			assert.Equal(t, m2mauth.KeysFresh, g.Keys().State)
			time.Sleep(time.Hour / 2)
		}
		assert.Equal(t, before, issuer.Fetches())
		assert.Len(t, g.Keys().Keys, 1)

		c := issuer.Config(testguard.KeysAPI)
		for _, bad := range []string{"", "{}", `{"keys":[]}`, `{"keys":[{"kty":"oct","k":"AA"}]}`, "<html>"} {
			c.JWKS = []byte(bad)
			_, err := m2mauth.New(c)
			assert.ErrorContains(t, err, "Config.JWKS", bad)
		}
	})
}

func TestWarmFetchesKeys(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		require.NoError(t, g.Warm(t.Context()))
		require.NoError(t, g.Warm(t.Context()))
		assert.Equal(t, m2mauthtest.Fetches{Discovery: 1, JWKS: 1}, issuer.Fetches())

		testguard.KeysDown(issuer)
		cold := testguard.KeysGuard(t, issuer)
		begin := time.Now()
		for range 100 {
			assert.ErrorIs(t, cold.Warm(t.Context()), m2mauth.ErrUnavailable)
		}
		assert.Zero(t, time.Since(begin))
		assert.Equal(t, 2, issuer.Fetches().Discovery, "it respects the backoff")

		testguard.KeysHanging(issuer)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, cold.Warm(ctx), context.DeadlineExceeded)
		assert.Equal(t, 3, issuer.Fetches().Discovery)
	})
}

// keysMaxAge has the key set sent with a Cache-Control of max-age.
func keysMaxAge(issuer *m2mauthtest.Issuer, maxAge string) {
	testguard.KeysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		w.Header().Set("Cache-Control", "max-age="+maxAge)
		_, _ = w.Write(rec.Body.Bytes())
	})
}

// Whoever sets KeyTTL counts with it: the issuer may say less, and never more.
func TestMaxAgeOfKeysIsBoundedByAKeyTTLThatIsSet(t *testing.T) {
	for name, test := range map[string]struct {
		keyTTL time.Duration
		maxAge string
		want   time.Duration
	}{
		"more than KeyTTL":                  {time.Minute, "86400", time.Minute},
		"less than KeyTTL":                  {10 * time.Minute, "120", 2 * time.Minute},
		"the default, set":                  {testguard.KeysTTL, "1800", testguard.KeysTTL},
		"under the minute that is believed": {10 * time.Minute, "5", time.Minute},
		"the same with a KeyTTL under that": {20 * time.Second, "5", 20 * time.Second},
		"a KeyTTL over an hour":             {24 * time.Hour, "7200", 2 * time.Hour},
		"no max-age":                        {24 * time.Hour, "0", 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				keysMaxAge(issuer, test.maxAge)
				g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.KeyTTL = test.keyTTL })
				require.NoError(t, g.Warm(t.Context()))
				time.Sleep(test.want - 1)
				assert.Equal(t, m2mauth.KeysFresh, g.Keys().State)
				time.Sleep(time.Nanosecond)
				assert.Equal(t, m2mauth.KeysStale, g.Keys().State)
			})
		})
	}
}

func TestKeysThatAreWithdrawnLiveNoLongerThanTheKeyTTLThatWasSet(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		keysMaxAge(issuer, "86400")
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.KeyTTL = time.Minute })
		kid := issuer.KeyIDs()[0]
		token := testguard.KeysToken(issuer, kid)
		issuer.Rotate("ES384")
		testguard.KeysAtOnce(t, g, token, 200)
		issuer.Withdraw(kid)
		withdrawn := time.Now()
		for time.Since(withdrawn) < time.Minute {
			testguard.KeysAnswer(t.Context(), g, token)
			time.Sleep(time.Second)
		}
		testguard.KeysAtOnce(t, g, token, 401)
	})
}

// A key that cannot be used is no news at each fetch: nothing was signed with it.
func TestKeysThatCannotBeUsedAreNeitherNewNorWithdrawn(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		var log testguard.KeysLog
		issuer := m2mauthtest.NewIssuer()
		issuer.PublishJWK([]byte(`{"kty":"RSA","kid":"enc1","use":"enc","alg":"RSA-OAEP","n":"AQAB","e":"AQAB"}`))
		testguard.KeysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Header.Del("If-None-Match")
			next.ServeHTTP(w, r)
		})
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		require.NoError(t, g.Warm(t.Context()))
		synctest.Wait()
		n := len(log.Since(0))
		for range 3 {
			time.Sleep(testguard.KeysTTL)
			require.NoError(t, g.Warm(t.Context()))
			synctest.Wait()
		}
		for _, l := range log.Since(n) {
			assert.NotContains(t, l, "INFO")
		}
	})
}

func TestKeysThatComeAndGoAreLogged(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		var log testguard.KeysLog
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		logged := 0
		expect := func(what string, lines ...string) {
			t.Helper()
			require.NoError(t, g.Warm(t.Context()))
			synctest.Wait()
			now := log.Since(logged)
			assert.Equal(t, lines, now, what)
			logged += len(now)
		}
		first := issuer.KeyIDs()[0]
		expect("at first", "INFO the issuer's keys were fetched keys=1")
		expect("while they are fresh")
		time.Sleep(testguard.KeysTTL)
		expect("a 304", "DEBUG the issuer's keys were fetched keys=1")

		second := issuer.Rotate("ES384")
		time.Sleep(testguard.KeysTTL)
		expect("rotated in", "DEBUG the issuer's keys were fetched keys=2", "INFO the issuer publishes new keys kids="+second+" keys=1")

		issuer.Withdraw(first)
		time.Sleep(testguard.KeysTTL)
		expect("withdrawn", "DEBUG the issuer's keys were fetched keys=1",
			"INFO the issuer has withdrawn keys, whose tokens are refused from now on kids="+first+" keys=1")

		issuer.Replace(second)
		time.Sleep(testguard.KeysTTL)
		expect("replaced under its key ID", "DEBUG the issuer's keys were fetched keys=1", "INFO the issuer publishes new keys kids="+second+" keys=1",
			"INFO the issuer has withdrawn keys, whose tokens are refused from now on kids="+second+" keys=1")

		testguard.KeysDown(issuer)
		time.Sleep(testguard.KeysTTL)
		expect("an outage", "WARN the issuer's keys could not be fetched")
		issuer.Intercept(nil)
		time.Sleep(time.Second)
		expect("its end", "INFO the issuer's keys were fetched keys=1")
	})
}

func TestManyNewKeysAreOneLine(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		var log testguard.KeysLog
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		require.NoError(t, g.Warm(t.Context()))
		testguard.KeysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			keys := make([]string, 100)
			for i := range keys {
				keys[i] = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"evil \n` + strings.Repeat("x", 500+i) + `"}`
			}
			_, _ = w.Write([]byte(`{"keys":[` + strings.Join(append(keys, `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`), ",") + `]}`))
		})
		time.Sleep(testguard.KeysTTL)
		require.NoError(t, g.Warm(t.Context()))
		synctest.Wait()
		var lines []string
		for _, line := range log.Since(1) {
			if strings.HasPrefix(line, "INFO") {
				lines = append(lines, line)
			}
		}
		require.Len(t, lines, 2)
		assert.Less(t, len(lines[0]), 4000)
		assert.NotContains(t, lines[0], "\n")
		assert.Contains(t, lines[0], "keys=101")
	})
}
