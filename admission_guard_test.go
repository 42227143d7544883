package m2mauth_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
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

// forger returns a maker of tokens that pass every check but the signature's.
func forger(issuer *m2mauthtest.Issuer) func(i int) string {
	return forgerOf(issuer.Token(testguard.Shop, "read"))
}

func forgerOf(good string) func(i int) string {
	signed := good[:strings.LastIndexByte(good, '.')+1]
	return func(i int) string {
		return signed + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%096d", i))
	}
}

// crowded makes a guard that has its keys, and whose places for signature checks
// are all taken until release has been called for each.
func crowded(t *testing.T, change ...func(*m2mauth.Config)) (issuer *m2mauthtest.Issuer, guard *m2mauth.Guard, release func()) {
	t.Helper()
	issuer = m2mauthtest.NewIssuer()
	issuer.Rotate("EdDSA") // whose checks are quick
	guard = testguard.Quiet(t, issuer, change...)
	require.NoError(t, guard.Warm(t.Context()))
	places, leave := m2mauth.HoldPlaces(guard)
	return issuer, guard, func() {
		for range places {
			leave()
		}
	}
}

// ask sends a request in the bubble, up to where it waits. The answer comes on
// the channel.
func ask(ctx context.Context, guard *m2mauth.Guard, address, token string) <-chan *httptest.ResponseRecorder {
	answer := make(chan *httptest.ResponseRecorder, 1)
	r := testguard.RequestWith("Bearer " + token).WithContext(ctx)
	r.RemoteAddr = address
	go func() {
		w := httptest.NewRecorder()
		guard.Require("read")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		answer <- w
	}()
	return answer
}

func assertTryLater(t *testing.T, w *httptest.ResponseRecorder, status int) {
	t.Helper()
	assert.Equal(t, status, w.Code)
	assert.Equal(t, "1", w.Header().Get("Retry-After"))
	assert.Empty(t, w.Header().Values("WWW-Authenticate"), "the token may be fine")
	assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	assert.JSONEq(t, `{"error":"temporarily_unavailable","error_description":"too many new tokens are being verified: try again later"}`, w.Body.String())
}

func TestAKnownTokenNeverQueues(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t)
		release()
		token := known(t, guard, issuer, "read")
		places, leave := m2mauth.HoldPlaces(guard)
		begin := time.Now()
		forged := forger(issuer)
		for i := range 1500 {
			ask(t.Context(), guard, "192.0.2.1:1", forged(i))
		}
		synctest.Wait()
		require.Equal(t, 1000, m2mauth.TracesOf(guard).Waiting)
		for range 100 {
			assert.Equal(t, http.StatusOK, (<-ask(t.Context(), guard, "192.0.2.1:1", token)).Code, "also from the source of the flood")
			_, err := guard.Verify(t.Context(), token)
			assert.NoError(t, err)
		}
		assert.Zero(t, time.Since(begin))
		assert.Equal(t, 1000, guard.Stats().Waiting)
		for range places {
			leave()
		}
		synctest.Wait()
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
		assert.EqualValues(t, 1000, guard.Stats().Waited)
		assert.Zero(t, guard.Stats().Waiting)
		assert.EqualValues(t, 500, guard.Stats().Refused)
	})
}

func TestTheSameUnseenTokenIsVerifiedOnce(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t)
		good, forged := issuer.Token(testguard.Shop, "read"), forger(issuer)(1)
		var goods, bads []<-chan *httptest.ResponseRecorder
		for i := range 1000 {
			address := fmt.Sprintf("192.0.2.%d:1", i%200)
			goods = append(goods, ask(t.Context(), guard, address, good))
			bads = append(bads, ask(t.Context(), guard, address, forged))
		}
		synctest.Wait()
		assert.Equal(t, 2, m2mauth.TracesOf(guard).Waiting)
		assert.Equal(t, 2000, guard.Stats().Waiting, "those that share a check too")
		release()
		for i := range goods {
			assert.Equal(t, http.StatusOK, (<-goods[i]).Code)
			assert.Equal(t, http.StatusUnauthorized, (<-bads[i]).Code)
		}
		cached := guard.Stats().CachedBytes
		assert.Greater(t, cached, int64(len(good)))
		assert.Less(t, cached, int64(4<<10))
		assert.Equal(t, m2mauth.Stats{Misses: 2000, Shared: 1998, Waited: 2, Cached: 1, CachedBytes: cached}, guard.Stats())
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))

		assert.Equal(t, http.StatusOK, (<-ask(t.Context(), guard, "192.0.2.1:1", good)).Code)
		assert.Equal(t, http.StatusUnauthorized, (<-ask(t.Context(), guard, "192.0.2.1:1", forged)).Code)
		assert.Equal(t, m2mauth.Stats{Hits: 1, Misses: 2001, Shared: 1998, Waited: 2, Cached: 1, CachedBytes: cached}, guard.Stats(), "a failure is not remembered")
	})
}

// A handler may keep its claims for long. They must not keep the token that could
// be used, whichever of the requests made the check.
func TestClaimsOfASharedCheckKeepNoWholeToken(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t)
		token := issuer.Token(testguard.Shop, "read")
		claims := make(chan m2mauth.Claims)
		for range 2 {
			go func() {
				c, err := guard.Verify(t.Context(), token)
				assert.NoError(t, err)
				claims <- c
			}()
		}
		synctest.Wait()
		release()
		for range 2 {
			assert.False(t, m2mauth.KeepsWhole(<-claims, token))
		}
		assert.EqualValues(t, 1, guard.Stats().Shared)
	})
}

// TestTheSameUnseenTokenIsVerifiedOnce without a bubble, where requests are at any point of their way when
// the check ends. Source is asked for each check of a signature and for each that waits for one.
func TestTheSameUnseenTokenIsVerifiedOnceInTheWild(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	issuer.Rotate("EdDSA")
	for round := range 10 {
		var asked atomic.Int64
		guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
			c.QueueKey = func(m2mauth.Request) string { asked.Add(1); return "" }
		})
		if round%2 == 0 { // in the others, all look for the token before there are keys
			require.NoError(t, guard.Warm(t.Context()))
		}
		token := issuer.Token(testguard.Shop, "read")
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				_, err := guard.Check(testguard.RequestWith("Bearer "+token), m2mauth.AnyToken())
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		assert.EqualValues(t, 1, asked.Load()-int64(guard.Stats().Shared))
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	}
}

// One that found nothing in the memory, and comes to the check when another has
// just ended the same.
func TestOneWhoMissedTheTokenLooksAgain(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		verified := 0
		issuer := m2mauthtest.NewIssuer()
		testguard.KeysSlow(issuer, time.Second)
		guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
			c.QueueKey = func(m2mauth.Request) string { verified++; return "" }
		})
		token := issuer.Token(testguard.Shop, "read")
		answers := make(chan *httptest.ResponseRecorder, 2)
		go func() { answers <- <-ask(t.Context(), guard, "192.0.2.1:1", token) }()
		late := make(chan struct{})
		go func() { answers <- <-ask(lateContext{t.Context(), late}, guard, "192.0.2.2:1", token) }()
		assert.Equal(t, http.StatusOK, (<-answers).Code)
		synctest.Wait()
		close(late)
		assert.Equal(t, http.StatusOK, (<-answers).Code)
		assert.Equal(t, 1, verified)
		assert.Equal(t, m2mauth.Stats{Misses: 2, Cached: 1, CachedBytes: guard.Stats().CachedBytes}, guard.Stats())
	})
}

// lateContext holds a request up where it would wait, here for the keys.
type lateContext struct {
	context.Context
	late <-chan struct{}
}

func (c lateContext) Done() <-chan struct{} {
	<-c.late
	return nil
}

func TestAFloodFromOneSourceGets429AndDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name         string
		flood        func(i int) string // addresses
		other, share string             // another source's address, and another of the same source
		source       func(m2mauth.Request) string
	}{
		{"by IPv4 address", func(i int) string { return fmt.Sprintf("192.0.2.1:%d", i) }, "192.0.2.2:1", "192.0.2.1:9", nil},
		{"by IPv6 /64", func(i int) string { return fmt.Sprintf("[2001:db8:0:1::%x]:1", i) }, "[2001:db8:1:2::1]:1", "[2001:db8:0:1:ffff::]:1", nil},
		{"by Config.QueueKey", func(i int) string { return fmt.Sprintf("192.0.2.%d:1", i%250) }, "198.51.100.1:1", "192.0.2.254:1",
			func(r m2mauth.Request) string { return r.RemoteAddr()[:3] }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer, guard, release := crowded(t, func(c *m2mauth.Config) { c.QueueKey = test.source })
				forged := forger(issuer)
				var flood []<-chan *httptest.ResponseRecorder
				for i := range 1000 {
					flood = append(flood, ask(t.Context(), guard, test.flood(i), forged(i)))
				}
				synctest.Wait()
				assertTryLater(t, <-ask(t.Context(), guard, test.share, issuer.Token(testguard.Shop, "read")), http.StatusTooManyRequests)

				other := ask(t.Context(), guard, test.other, issuer.Token(testguard.Shop, "read"))
				synctest.Wait()
				release()
				assert.Equal(t, http.StatusOK, (<-other).Code)
				for _, answer := range flood {
					assert.Equal(t, http.StatusUnauthorized, (<-answer).Code)
				}
				assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
			})
		})
	}
}

// A Source may be made of what the client sent, such as a header field.
func TestAFullSourceIsFitForTheLog(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]string{
		"a line break":        "x\nlevel=ERROR msg=\"all is lost\"",
		"a terminal's escape": "x\x1b[31m\u202e",
		"endless":             strings.Repeat("x", 1<<16),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testguard.KeysBubble(t, func(t *testing.T) {
				book := new(logBook)
				issuer, guard, release := crowded(t, func(c *m2mauth.Config) {
					c.QueueKey = func(m2mauth.Request) string { return source }
					c.Logger = slog.New(book)
				})
				forged := forger(issuer)
				for i := range 1000 {
					ask(t.Context(), guard, "192.0.2.1:1", forged(i))
				}
				synctest.Wait()
				assertTryLater(t, <-ask(t.Context(), guard, "192.0.2.1:1", issuer.Token(testguard.Shop, "read")), http.StatusTooManyRequests)
				entries := book.take()
				require.Len(t, entries, 1)
				assert.Contains(t, entries[0].attrs["source"], "x")
				assertLoggable(t, entries[0])
				release()
				synctest.Wait()
			})
		})
	}
}

// A client's own share does not decide about those who sent the same token.
func TestAFullSourceDoesNotRefuseOthersWithTheSameToken(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t, func(c *m2mauth.Config) {
			c.QueueKey = func(r m2mauth.Request) string { return r.RemoteAddr()[:5] }
		})
		forged, token := forger(issuer), issuer.Token(testguard.Shop, "read")
		for i := range 1000 {
			ask(t.Context(), guard, "flood:1", forged(i))
		}
		synctest.Wait()
		assertTryLater(t, <-ask(t.Context(), guard, "flood:1", token), http.StatusTooManyRequests)
		other := ask(t.Context(), guard, "other:1", token)
		synctest.Wait()
		shares := ask(t.Context(), guard, "flood:1", token)
		synctest.Wait()
		release()
		assert.Equal(t, http.StatusOK, (<-other).Code)
		assert.Equal(t, http.StatusOK, (<-shares).Code, "it costs nothing to share what another waits for")
	})
}

func TestVerifyIsOneSource(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		asked := false
		issuer, guard, release := crowded(t, func(c *m2mauth.Config) {
			c.QueueKey = func(r m2mauth.Request) string { asked = r == nil; return r.RemoteAddr() }
		})
		forged := forger(issuer)
		for i := range 1000 {
			go func() { _, _ = guard.Verify(t.Context(), forged(i)) }()
		}
		synctest.Wait()
		_, err := guard.Verify(t.Context(), issuer.Token(testguard.Shop))
		assert.ErrorIs(t, err, m2mauth.ErrBusy)
		other := ask(t.Context(), guard, "192.0.2.1:1", issuer.Token(testguard.Shop, "read"))
		synctest.Wait()
		release()
		assert.Equal(t, http.StatusOK, (<-other).Code)
		assert.False(t, asked, "Source is asked about requests alone")
	})
}

func TestAQueueFullOfSourcesGets503(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t)
		forged := forger(issuer)
		for i := range 2000 {
			ask(t.Context(), guard, fmt.Sprintf("10.0.%d.%d:1", i/250, i%250), forged(i))
		}
		synctest.Wait()
		begin := time.Now()
		assertTryLater(t, <-ask(t.Context(), guard, "192.0.2.9:1", issuer.Token(testguard.Shop, "read")), http.StatusServiceUnavailable)
		assert.Zero(t, time.Since(begin))
		release()
		synctest.Wait()
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	})
}

func TestANewTokenWaitsTwoSecondsAtMost(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t)
		token := issuer.Token(testguard.Shop, "read")
		begin := time.Now()
		first := ask(t.Context(), guard, "192.0.2.1:1", token)
		time.Sleep(time.Second)
		shares := ask(t.Context(), guard, "192.0.2.1:1", token)
		other := ask(t.Context(), guard, "192.0.2.2:1", token)
		assertTryLater(t, <-first, http.StatusServiceUnavailable)
		assertTryLater(t, <-shares, http.StatusServiceUnavailable)
		assert.Equal(t, 2*time.Second, time.Since(begin))
		assertTryLater(t, <-other, http.StatusServiceUnavailable)
		assert.Equal(t, 3*time.Second, time.Since(begin), "another source has a turn, and two seconds, of its own")
		assert.EqualValues(t, 3, guard.Stats().Refused)
		release()
		assert.Equal(t, http.StatusOK, (<-ask(t.Context(), guard, "192.0.2.1:1", token)).Code, "that too was not remembered")
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	})
}

// A Source that finds nothing makes one source of all such requests, but not of
// tokens that come without a request.
func TestVerifyIsASourceOfItsOwn(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t, func(c *m2mauth.Config) {
			c.QueueKey = func(r m2mauth.Request) string { return strings.Join(r.Header("X-Real-IP"), "") }
		})
		forged := forger(issuer)
		for i := range 1001 {
			ask(t.Context(), guard, "192.0.2.1:1", forged(i))
		}
		synctest.Wait()
		require.EqualValues(t, 1, guard.Stats().Refused, "the share of a source is full")
		verified := make(chan error, 1)
		go func() {
			_, err := guard.Verify(t.Context(), issuer.Token(testguard.Shop, "read"))
			verified <- err
		}()
		synctest.Wait()
		release()
		assert.NoError(t, <-verified)
	})
}

func TestATokenThatExpiresWhileItWaitsIsRefused(t *testing.T) {
	t.Parallel()
	for wait, status := range map[time.Duration]int{999 * time.Millisecond: http.StatusOK, time.Second: http.StatusUnauthorized} {
		synctest.Test(t, func(t *testing.T) {
			issuer, guard, release := crowded(t, func(c *m2mauth.Config) { c.Leeway = -1 })
			token := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Scopes: []string{"read"}, Lifetime: time.Second})
			answer := ask(t.Context(), guard, "192.0.2.1:1", token)
			time.Sleep(wait)
			release()
			assert.Equal(t, status, (<-answer).Code, wait)
		})
	}
}

// Past the TTL a request waits for fresh keys, with a remembered token too.
func TestARememberedTokenThatExpiresWhileItWaitsForKeysIsRefused(t *testing.T) {
	t.Parallel()
	const wait = 2 * time.Second
	for name, spoil := range map[string]func(http.ResponseWriter) bool{
		"the keys come": func(http.ResponseWriter) bool { return false },
		"the issuer fails": func(w http.ResponseWriter) bool {
			http.Error(w, "down", http.StatusBadGateway)
			return true
		},
	} {
		for left, status := range map[time.Duration]int{wait: http.StatusUnauthorized, wait + time.Millisecond: http.StatusOK} {
			t.Run(fmt.Sprint(name, ", ", left, " left"), func(t *testing.T) {
				testguard.KeysBubble(t, func(t *testing.T) {
					issuer := m2mauthtest.NewIssuer()
					guard := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.Leeway = -1 })
					token := issuer.Sign(m2mauthtest.Token{Audience: testguard.KeysAPI, Lifetime: testguard.KeysTTL + time.Minute})
					testguard.KeysAtOnce(t, guard, token, http.StatusOK)
					time.Sleep(testguard.KeysTTL + time.Minute - left)
					issuer.Intercept(func(next http.Handler) http.Handler {
						return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							time.Sleep(wait)
							if !spoil(w) {
								next.ServeHTTP(w, r)
							}
						})
					})
					assert.Equal(t, wait, testguard.KeysEventually(t, guard, token, status))
					assert.NotZero(t, guard.Stats().Hits)
				})
			})
		}
	}
}

func TestACallerWhoGivesUpFreesOnlyItself(t *testing.T) {
	t.Parallel()
	for name, leaves := range map[string]int{"the one who waits for a place": 0, "one who waits for its answer": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer, guard, release := crowded(t)
				token := issuer.Token(testguard.Shop, "read")
				ctx, cancel := context.WithCancel(t.Context())
				var answers []<-chan *httptest.ResponseRecorder
				for i := range 10 {
					who := t.Context()
					if i == leaves {
						who = ctx
					}
					answers = append(answers, ask(who, guard, "192.0.2.1:1", token))
					synctest.Wait()
				}
				begin := time.Now()
				cancel()
				assert.Equal(t, http.StatusServiceUnavailable, (<-answers[leaves]).Code)
				assert.Zero(t, time.Since(begin))
				synctest.Wait()
				assert.Equal(t, 1, m2mauth.TracesOf(guard).Waiting)
				release()
				for i, answer := range answers {
					if i != leaves {
						assert.Equal(t, http.StatusOK, (<-answer).Code)
					}
				}
				assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
			})
		})
	}
}

func TestAQueueKeyThatPanicsOrBlocksHarmsOnlyItsRequest(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		unblock := make(chan struct{})
		issuer, guard, release := crowded(t, func(c *m2mauth.Config) {
			c.QueueKey = func(r m2mauth.Request) string {
				switch r.RemoteAddr() {
				case "panics":
					panic("QueueKey")
				case "blocks":
					<-unblock
				}
				return r.RemoteAddr()
			}
		})
		release()
		blocked := ask(t.Context(), guard, "blocks", issuer.Token(testguard.Shop, "read"))
		synctest.Wait()
		r := testguard.RequestWith("Bearer " + issuer.Token(testguard.Shop, "read"))
		r.RemoteAddr = "panics"
		assert.PanicsWithValue(t, "QueueKey", func() { _, _ = guard.Check(r, m2mauth.AnyToken()) })
		r.RemoteAddr = "fine"
		_, err := guard.Check(r, m2mauth.AnyToken())
		assert.NoError(t, err, "the same token")
		assert.Equal(t, http.StatusOK, (<-ask(t.Context(), guard, "fine", issuer.Token(testguard.Shop, "read"))).Code)
		assert.NotPanics(t, func() { guard.Stats() }, "no lock is held")
		close(unblock)
		assert.Equal(t, http.StatusOK, (<-blocked).Code)
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	})
}

func TestAPanicLeavesNoWaiterBehind(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t)
		token := issuer.Token(testguard.Shop, "read")
		mend := m2mauth.BreakKeys(guard)
		panicked := make(chan any)
		const callers = 10
		for range callers {
			go func() {
				defer func() { panicked <- recover() }()
				_, _ = guard.Verify(t.Context(), token)
			}()
		}
		synctest.Wait()
		release()
		for range callers {
			assert.NotNil(t, <-panicked, "each ran the check in its turn")
		}
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
		assert.Zero(t, m2mauth.Remembered(guard))
		mend()

		handler := guard.Require("read")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("handler") }))
		for range 100 {
			assert.PanicsWithValue(t, "handler", func() { handler.ServeHTTP(httptest.NewRecorder(), testguard.RequestWith("Bearer "+token)) })
		}
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	})
}

// Those who wait for another's check of the same new token are counted: half of
// 8,192 from one source, and a source that wants less displaces one that has most.
func TestWaitersOnOneNewTokenAreBounded(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t)
		token := issuer.Token(testguard.Shop, "read")
		send := func(source, number int) (answers []<-chan *httptest.ResponseRecorder) {
			for range number {
				answers = append(answers, ask(t.Context(), guard, fmt.Sprintf("192.0.2.%d:1", source), token))
			}
			synctest.Wait()
			return answers
		}
		begin := time.Now()
		busy := func(answers []<-chan *httptest.ResponseRecorder) (n int) {
			for _, answer := range answers {
				if len(answer) > 0 {
					n++
				}
			}
			return n
		}
		first := send(1, 18_600)
		assert.Equal(t, 18_600-1-4096, busy(first))
		second := send(2, 4100)
		assert.Equal(t, 4100-4096, busy(second))
		innocent := send(3, 100)
		assert.Zero(t, busy(innocent))
		assert.Equal(t, 18_600-1-4096+4+100, busy(first)+busy(second))
		assert.Equal(t, 8192, m2mauth.TracesOf(guard).Sharing)
		assert.EqualValues(t, 18_600-1-4096+4+100, guard.Stats().Refused)
		assert.Zero(t, time.Since(begin))
		release()
		for i, answers := range [][]<-chan *httptest.ResponseRecorder{first, second, innocent} {
			for _, answer := range answers {
				if w := <-answer; w.Code != http.StatusOK {
					assertTryLater(t, w, http.StatusTooManyRequests)
					assert.NotEqual(t, 2, i)
				}
			}
		}
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	})
}

// tokenOf returns a good token of so many bytes, or one more where base64url does not allow that.
func tokenOf(t *testing.T, issuer *m2mauthtest.Issuer, bytes int) string {
	t.Helper()
	sized := func(filler int) string {
		return issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Scopes: []string{"read"}, Claims: map[string]any{"filler": strings.Repeat("x", filler)}})
	}
	filler := (bytes - len(sized(0))) * 3 / 4
	for len(sized(filler)) < bytes {
		filler++
	}
	return sized(filler)
}

func TestTokensUpToTheConfiguredLength(t *testing.T) {
	t.Parallel()
	for most, text := range map[int]string{0: "8 KiB", 4 << 10: "4 KiB", 5000: "5000 bytes", 64 << 10: "64 KiB"} {
		issuer := m2mauthtest.NewIssuer()
		guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.MaxTokenBytes = most })
		if most == 0 {
			most = 8 << 10
		}
		check := func(token string) (*httptest.ResponseRecorder, error) {
			w := httptest.NewRecorder()
			guard.Require("read")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, testguard.RequestWith("Bearer "+token))
			_, err := guard.Verify(t.Context(), token)
			return w, err
		}
		w, err := check(tokenOf(t, issuer, most-2))
		require.NoError(t, err, text)
		assert.Equal(t, http.StatusOK, w.Code, text)
		w, err = check(tokenOf(t, issuer, most+1))
		require.ErrorIs(t, err, m2mauth.ErrRequest)
		assert.ErrorContains(t, err, "the access token is longer than "+text)
		assert.Equal(t, http.StatusBadRequest, w.Code, text)
		assert.Contains(t, w.Body.String(), "the Authorization field is longer than "+text)
	}
}

// The length is known before the issuer is, so it is the first guard's.
func TestJoinedGuardsHaveTheFirstsTokenLength(t *testing.T) {
	t.Parallel()
	one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
	long := func(c *m2mauth.Config) { c.MaxTokenBytes = 32 << 10 }
	both := joined(t, one.guard(t, long), two.guard(t))
	_, err := both.Verify(t.Context(), strings.Repeat("a", 32<<10))
	assert.ErrorIs(t, err, m2mauth.ErrMalformed)
	_, err = both.Verify(t.Context(), strings.Repeat("a", 32<<10+1))
	assert.ErrorIs(t, err, m2mauth.ErrRequest)
}

// What waits for keys is bounded in bytes too: 24 MiB for all issuers of a guard.
func TestTokensThatWaitForKeysAreBoundedInBytes(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		issuer.Rotate("EdDSA")
		token := tokenOf(t, issuer, 32<<10-2)
		testguard.KeysSlow(issuer, time.Second)
		guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.MaxTokenBytes = 64 << 10 })
		var answers []<-chan *httptest.ResponseRecorder
		for i := range 1000 {
			answers = append(answers, ask(t.Context(), guard, fmt.Sprintf("10.0.%d.%d:1", i/250, i%250), token))
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		refused := 0
		for _, answer := range answers {
			refused += len(answer)
		}
		fit := 24 << 20 / len(token)
		assert.Equal(t, 1000-fit, refused)
		assert.LessOrEqual(t, m2mauth.TracesOf(guard).Bytes, 24<<20)
		_, err := guard.Verify(t.Context(), token)
		assert.ErrorIs(t, err, m2mauth.ErrUnavailable)
		for _, answer := range answers {
			switch w := <-answer; w.Code {
			case http.StatusServiceUnavailable:
				assert.NotEmpty(t, w.Header().Get("Retry-After"))
				refused--
			default:
				assert.Equal(t, http.StatusOK, w.Code)
			}
		}
		// Those whose wait for the keys is over share one check, with 11 of 8,192 places each,
		// if it has not ended before the last of them comes.
		assert.LessOrEqual(t, refused, 0)
		assert.LessOrEqual(t, -refused, fit-8192/11)
		synctest.Wait()
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	})
}

// Of the largest tokens, fewer wait for a check.
func TestTokensThatWaitForACheckAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t, func(c *m2mauth.Config) { c.MaxTokenBytes = 64 << 10 })
		forged := forgerOf(tokenOf(t, issuer, 64<<10-200))
		for i := range 300 { // each takes 8 of 2,000 places
			ask(t.Context(), guard, fmt.Sprintf("10.0.%d.%d:1", i/250, i%250), forged(i))
		}
		synctest.Wait()
		assert.Equal(t, 250, m2mauth.TracesOf(guard).Waiting)
		assert.EqualValues(t, 50, guard.Stats().Refused)
		var same []<-chan *httptest.ResponseRecorder
		for i := range 500 { // each takes 22 of 8,192 places
			same = append(same, ask(t.Context(), guard, fmt.Sprintf("10.1.%d.%d:1", i/250, i%250), forged(0)))
		}
		synctest.Wait()
		assert.Equal(t, 8192/22, m2mauth.TracesOf(guard).Sharing)
		release()
		for _, answer := range same {
			w := <-answer
			assert.Contains(t, []int{http.StatusUnauthorized, http.StatusServiceUnavailable}, w.Code)
		}
		synctest.Wait()
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	})
}
