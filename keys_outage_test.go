package m2mauth_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
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
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestKeysThatAreKnownServeWhileARefreshHangs(t *testing.T) {
	for name, every := range map[string]time.Duration{"busy": 3 * time.Second, "sparse": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := testguard.KeysGuard(t, issuer)
				token := testguard.KeysToken(issuer, "")
				testguard.KeysAtOnce(t, g, token, 200)
				begin := time.Now()
				testguard.KeysHanging(issuer)
				for time.Since(begin) < testguard.KeysTTL+testguard.KeysStaleFor {
					testguard.KeysAtOnce(t, g, token, 200, time.Since(begin))
					time.Sleep(every)
				}
				fetches := issuer.Fetches()
				t.Logf("%d attempts in an outage of 70 minutes", fetches.JWKS+fetches.Discovery)
				assert.LessOrEqual(t, fetches.JWKS, 1+5+62*60/35, "each attempt takes 5 s, and the backoff 30 s")
				waited := testguard.KeysEventually(t, g, token, 503)
				assert.LessOrEqual(t, waited, testguard.KeysTimeout)
			})
		})
	}
}

func TestGoodKeysOutliveADeadIssuerForKeyStaleFor(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		var log testguard.KeysLog
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		token := testguard.KeysToken(issuer, "")
		testguard.KeysAtOnce(t, g, token, 200)
		begin := time.Now()
		testguard.KeysDown(issuer)
		for time.Since(begin) < testguard.KeysTTL+testguard.KeysStaleFor {
			testguard.KeysAtOnce(t, g, token, 200, time.Since(begin))
			time.Sleep(5 * time.Second)
		}
		assert.Positive(t, log.Count(slog.LevelWarn), "served loudly")
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
		time.Sleep(testguard.KeysBackoff)
		testguard.KeysAtOnce(t, g, token, 200, "the first request after the backoff")
	})
}

func TestKeysThatExpireWhileAFetchIsWaitedForServeNobody(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		token := testguard.KeysToken(issuer, "")
		testguard.KeysAtOnce(t, g, token, 200)
		testguard.KeysHanging(issuer)
		time.Sleep(testguard.KeysTTL + testguard.KeysStaleFor - time.Second)
		assert.Equal(t, testguard.KeysTimeout, testguard.KeysEventually(t, g, token, 503))
	})
}

func TestKeyStaleForNegativeServesNoStaleKeys(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.KeyStaleFor = -1 })
		token := testguard.KeysToken(issuer, "")
		testguard.KeysAtOnce(t, g, token, 200)
		testguard.KeysDown(issuer)
		time.Sleep(testguard.KeysTTL - 1)
		testguard.KeysAtOnce(t, g, token, 200)
		time.Sleep(time.Nanosecond)
		testguard.KeysAtOnce(t, g, token, 503)
	})
}

func TestAnIssuerThatIsDownAtStart(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		testguard.KeysHanging(issuer)
		g := testguard.KeysGuard(t, issuer)
		token := testguard.KeysToken(issuer, "")
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() { assert.Equal(t, testguard.KeysTimeout, testguard.KeysEventually(t, g, token, 503)) })
		}
		wg.Wait()
		assert.Equal(t, m2mauthtest.Fetches{Discovery: 1}, issuer.Fetches())
		for range 9 { // while the backoff runs
			testguard.KeysAtOnce(t, g, token, 503)
			assert.Error(t, g.Warm(t.Context()))
			time.Sleep(100 * time.Millisecond)
		}
		assert.Equal(t, 1, issuer.Fetches().Discovery)

		testguard.KeysDown(issuer)
		var attempts []int
		begin := time.Now()
		for last := 1; time.Since(begin) < 5*time.Minute; time.Sleep(100 * time.Millisecond) {
			testguard.KeysAtOnce(t, g, token, 503)
			if now := issuer.Fetches().Discovery; now != last {
				attempts = append(attempts, int(time.Since(begin).Round(time.Second).Seconds()))
				last = now
			}
		}
		require.Greater(t, len(attempts), 5)
		assert.Equal(t, []int{0, 2, 6, 14, 24, 34}, attempts[:6], "from 1 s, twice as long each time, to 10 s")
		assert.Equal(t, 294, attempts[len(attempts)-1])

		issuer.Intercept(nil)
		time.Sleep(testguard.KeysKeyless)
		testguard.KeysAtOnce(t, g, token, 200)
		assert.Empty(t, g.Keys().LastError)
	})
}

func TestTheBackoffBeginsAnewAfterASuccess(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		testguard.KeysDown(issuer)
		g := testguard.KeysGuard(t, issuer)
		known := testguard.KeysToken(issuer, "")
		for range 300 { // up to the longest backoff
			testguard.KeysAtOnce(t, g, known, 503)
			time.Sleep(time.Second)
		}
		issuer.Intercept(nil)
		time.Sleep(testguard.KeysBackoff)
		testguard.KeysAtOnce(t, g, known, 200)

		issuer.Rotate("ES384")
		token := testguard.KeysToken(issuer, "")
		testguard.KeysDown(issuer)
		testguard.KeysAtOnce(t, g, token, 503, "it fails once more")
		issuer.Intercept(nil)
		time.Sleep(time.Second)
		testguard.KeysAtOnce(t, g, token, 200, "after the first backoff, and not the longest")
	})
}

func TestAClientsEndFreesItsRequestAndNotTheFetch(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		testguard.KeysSlow(issuer, time.Second)
		g := testguard.KeysGuard(t, issuer)
		token := testguard.KeysToken(issuer, "")
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*time.Millisecond)
				defer cancel()
				status, waited := testguard.KeysAnswer(ctx, g, token)
				assert.Equal(t, 503, status)
				assert.Equal(t, time.Duration(i+1)*time.Millisecond, waited)
			})
		}
		wg.Wait()
		testguard.KeysEventually(t, g, token, 200)
		assert.Equal(t, m2mauthtest.Fetches{Discovery: 1, JWKS: 1}, issuer.Fetches())

		issuer.Rotate("ES384")
		rotated := testguard.KeysToken(issuer, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := g.Verify(ctx, rotated)
		assert.ErrorIs(t, err, m2mauth.ErrUnavailable)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Second)
		testguard.KeysAtOnce(t, g, rotated, 200)
		assert.Equal(t, 2, issuer.Fetches().JWKS)
	})
}

// Callers who hang up while they wait must not use the places up: there are 8,192.
func TestThoseWhoGaveUpWaitingTakeNoPlace(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		testguard.KeysSlow(issuer, time.Second)
		g := testguard.KeysGuard(t, issuer)
		token := testguard.KeysToken(issuer, "")
		ctx, hangUp := context.WithCancel(t.Context())
		hangUp()
		for range 8192 {
			_, err := g.Verify(ctx, token)
			require.ErrorIs(t, err, context.Canceled)
		}
		assert.Zero(t, g.Keys().Waiting)
		go func() { _ = g.Warm(t.Context()) }()
		synctest.Wait()
		assert.Equal(t, 1, g.Keys().Waiting)
		assert.Equal(t, 2*time.Second, testguard.KeysEventually(t, g, token, 200))
		synctest.Wait()
		assert.Zero(t, g.Keys().Waiting)
	})
}

// A request that has waited for one fetch does not wait for a second.
func TestNoRequestWaitsLongerThanTheFetchTimeout(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		testguard.KeysSlow(issuer, 2*time.Second) // 4 s for the first fetch, with discovery
		g := testguard.KeysGuard(t, issuer)
		madeUp := testguard.KeysMadeUp(issuer)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				want := 503 // to all who came after the fetch began
				if i == 0 {
					want = 401
				}
				assert.LessOrEqual(t, testguard.KeysEventually(t, g, madeUp(strconv.Itoa(i)), want), testguard.KeysTimeout)
			})
		}
		wg.Wait()
		assert.LessOrEqual(t, issuer.Fetches().JWKS, 2)
	})
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
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := testguard.KeysGuard(t, issuer)
				token := testguard.KeysToken(issuer, "")
				testguard.KeysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
					h := header
					if strings.HasSuffix(h, "HTTP-date") {
						h = time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat)
					}
					if h != "" {
						w.Header().Set("Retry-After", h)
					}
					w.WriteHeader(http.StatusTooManyRequests)
				})
				testguard.KeysAtOnce(t, g, token, 503)
				issuer.Intercept(nil)
				time.Sleep(want - time.Millisecond)
				testguard.KeysAtOnce(t, g, token, 503)
				assert.Equal(t, 1, issuer.Fetches().JWKS)
				time.Sleep(time.Millisecond)
				testguard.KeysAtOnce(t, g, token, 200)
			})
		})
	}
}

// Who is told to come back is told when the guard will ask again.
func TestA503SaysWhenTheNextAttemptIs(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		testguard.KeysDown(issuer)
		token := testguard.KeysToken(issuer, "")
		for range 300 {
			_, err := g.Verify(t.Context(), token)
			var e *m2mauth.Error
			require.ErrorAs(t, err, &e)
			assert.GreaterOrEqual(t, e.RetryAfter, time.Until(g.Keys().NextRefresh), "too early to ask again")
			assert.LessOrEqual(t, e.RetryAfter, testguard.KeysBackoff)
			time.Sleep(time.Second)
		}
	})
}

func TestKeysReportThroughAnOutage(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		s := g.Keys()
		assert.Equal(t, m2mauth.KeyStatus{Issuer: issuer.URL(), State: m2mauth.KeysNone}, s)

		require.NoError(t, g.Warm(t.Context()))
		begin := time.Now()
		time.Sleep(time.Minute)
		s = g.Keys()
		assert.Equal(t, m2mauth.KeysFresh, s.State)
		assert.Equal(t, time.Minute, s.Age)
		assert.True(t, s.LastSuccess.Equal(begin))
		assert.True(t, s.ServesUntil.Equal(begin.Add(testguard.KeysTTL+testguard.KeysStaleFor)))
		assert.Equal(t, []m2mauth.PublishedKey{{ID: issuer.KeyIDs()[0], Algorithm: "ES384"}}, s.Keys)
		assert.Equal(t, 1, s.Fetches)
		assert.Zero(t, s.Failures)
		assert.False(t, s.CoolingDown)
		s.Keys[0] = m2mauth.PublishedKey{}
		assert.NotEmpty(t, g.Keys().Keys[0].ID, "a report is its reader's own")

		testguard.KeysDown(issuer)
		states := map[m2mauth.KeyState]time.Duration{}
		for time.Since(begin) < testguard.KeysTTL+testguard.KeysStaleFor+time.Minute {
			_ = g.Warm(t.Context())
			synctest.Wait()
			s = g.Keys()
			if _, seen := states[s.State]; !seen {
				states[s.State] = time.Since(begin)
			}
			time.Sleep(time.Second)
		}
		assert.Equal(t, map[m2mauth.KeyState]time.Duration{
			m2mauth.KeysFresh: time.Minute, m2mauth.KeysStale: testguard.KeysTTL, m2mauth.KeysExpired: testguard.KeysTTL + testguard.KeysStaleFor,
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
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				var mistaken atomic.Bool
				mistaken.Store(true)
				g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) {
					c.HTTPClient = &http.Client{Transport: testguard.RoundTripper(func(r *http.Request) (*http.Response, error) {
						if mistaken.Load() {
							return misbehave(r)
						}
						return issuer.Client().Transport.RoundTrip(r)
					})}
				})
				token := testguard.KeysToken(issuer, "")
				ctx, cancel := context.WithTimeout(t.Context(), 2*testguard.KeysTimeout)
				defer cancel()
				status, waited := testguard.KeysAnswer(ctx, g, token)
				assert.Equal(t, 503, status)
				assert.LessOrEqual(t, waited, testguard.KeysTimeout+10*time.Millisecond)
				mistaken.Store(false)
				if name == "answers an hour late" {
					time.Sleep(time.Hour - 2*testguard.KeysTimeout)
					for range 100 { // while the late answer comes in
						testguard.KeysEventually(t, g, token, 200)
						issuer.Rotate("EdDSA")
						token = testguard.KeysToken(issuer, "")
						time.Sleep(time.Second)
					}
				}
				time.Sleep(2 * time.Hour)
				ctx, cancel = context.WithTimeout(t.Context(), 2*testguard.KeysTimeout)
				defer cancel()
				status, _ = testguard.KeysAnswer(ctx, g, token)
				assert.Equal(t, 200, status, "recovers by itself")
			})
		})
	}
}

type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("a user's mistake") }

// An outage that ended says nothing of now: after a pause the first request waits,
// or a key that was withdrawn meanwhile would open it.
func TestAnOutageThatEndedSparesNoWait(t *testing.T) {
	for name, test := range map[string]struct {
		pause time.Duration
		want  int
	}{
		"half a minute after the last failure":   {30 * time.Second, 200},
		"a minute after":                         {time.Minute, 401},
		"most of an hour after":                  {55 * time.Minute, 401},
		"past KeyStaleFor, for want of any keys": {70 * time.Minute, 401},
	} {
		t.Run(name, func(t *testing.T) {
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := testguard.KeysGuard(t, issuer)
				kid := issuer.KeyIDs()[0]
				token := testguard.KeysToken(issuer, kid)
				testguard.KeysAtOnce(t, g, token, 200)
				testguard.KeysDown(issuer)
				time.Sleep(testguard.KeysTTL)
				testguard.KeysAtOnce(t, g, token, 200, "in the outage")
				issuer.Intercept(nil)
				issuer.Rotate("ES384")
				issuer.Withdraw(kid)
				testguard.KeysSlow(issuer, time.Second)
				time.Sleep(test.pause)
				waited := testguard.KeysEventually(t, g, token, test.want)
				assert.Equal(t, test.want == 401, waited > 0)
			})
		})
	}
}

// A failure before the last success says nothing either.
func TestAFailureBeforeTheLastSuccessSparesNoWait(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.KeyTTL = 10 * time.Second })
		kid := issuer.KeyIDs()[0]
		token := testguard.KeysToken(issuer, kid)
		testguard.KeysDown(issuer)
		testguard.KeysAtOnce(t, g, token, 503)
		issuer.Intercept(nil)
		time.Sleep(time.Second)
		testguard.KeysAtOnce(t, g, token, 200)
		issuer.Rotate("ES384")
		issuer.Withdraw(kid)
		time.Sleep(10 * time.Second)
		testguard.KeysAtOnce(t, g, token, 401)
	})
}

// An issuer that asks for a pause gets it, though keys are old, and callers are
// served meanwhile; after it one request finds out.
func TestRetryAfterOfAnIssuerThatFailsWhileOldKeysServe(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		token := testguard.KeysToken(issuer, "")
		testguard.KeysAtOnce(t, g, token, 200)
		testguard.KeysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		time.Sleep(testguard.KeysTTL)
		for range 30 * 60 {
			testguard.KeysAtOnce(t, g, token, 200)
			time.Sleep(time.Second)
		}
		assert.InDelta(t, 31, issuer.Fetches().JWKS, 1)
	})
}
