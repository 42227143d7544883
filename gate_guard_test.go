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
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// forger returns a maker of tokens that pass every check but the signature's.
func forger(issuer *m2mauthtest.Issuer) func(i int) string {
	return forgerOf(issuer.Token(shop, "read"))
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
	guard = quietGuard(t, issuer, change...)
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
	r := requestWith("Bearer " + token).WithContext(ctx)
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
	keysBubble(t, func(t *testing.T) {
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
		for range places {
			leave()
		}
		synctest.Wait()
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
		assert.EqualValues(t, 1000, guard.Stats().Waited)
		assert.EqualValues(t, 500, guard.Stats().Refused)
	})
}

func TestTheSameUnseenTokenIsVerifiedOnce(t *testing.T) {
	t.Parallel()
	keysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t)
		good, forged := issuer.Token(shop, "read"), forger(issuer)(1)
		var goods, bads []<-chan *httptest.ResponseRecorder
		for i := range 1000 {
			address := fmt.Sprintf("192.0.2.%d:1", i%200)
			goods = append(goods, ask(t.Context(), guard, address, good))
			bads = append(bads, ask(t.Context(), guard, address, forged))
		}
		synctest.Wait()
		assert.Equal(t, 2, m2mauth.TracesOf(guard).Waiting)
		release()
		for i := range goods {
			assert.Equal(t, http.StatusOK, (<-goods[i]).Code)
			assert.Equal(t, http.StatusUnauthorized, (<-bads[i]).Code)
		}
		assert.Equal(t, m2mauth.Stats{Misses: 2000, Shared: 1998, Waited: 2}, guard.Stats())
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))

		assert.Equal(t, http.StatusOK, (<-ask(t.Context(), guard, "192.0.2.1:1", good)).Code)
		assert.Equal(t, http.StatusUnauthorized, (<-ask(t.Context(), guard, "192.0.2.1:1", forged)).Code)
		assert.Equal(t, m2mauth.Stats{Hits: 1, Misses: 2001, Shared: 1998, Waited: 2}, guard.Stats(), "a failure is not remembered")
	})
}

// A handler may keep its claims for long. They must not keep the token that could
// be used, whichever of the requests made the check.
func TestClaimsOfASharedCheckKeepNoWholeToken(t *testing.T) {
	t.Parallel()
	keysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t)
		token := issuer.Token(shop, "read")
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
		guard := quietGuard(t, issuer, func(c *m2mauth.Config) {
			c.QueueKey = func(m2mauth.Request) string { asked.Add(1); return "" }
		})
		if round%2 == 0 { // in the others, all look for the token before there are keys
			require.NoError(t, guard.Warm(t.Context()))
		}
		token := issuer.Token(shop, "read")
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				_, err := guard.Check(requestWith("Bearer "+token), m2mauth.AnyToken())
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
	keysBubble(t, func(t *testing.T) {
		verified := 0
		issuer := m2mauthtest.NewIssuer()
		keysSlow(issuer, time.Second)
		guard := quietGuard(t, issuer, func(c *m2mauth.Config) {
			c.QueueKey = func(m2mauth.Request) string { verified++; return "" }
		})
		token := issuer.Token(shop, "read")
		answers := make(chan *httptest.ResponseRecorder, 2)
		go func() { answers <- <-ask(t.Context(), guard, "192.0.2.1:1", token) }()
		late := make(chan struct{})
		go func() { answers <- <-ask(lateContext{t.Context(), late}, guard, "192.0.2.2:1", token) }()
		assert.Equal(t, http.StatusOK, (<-answers).Code)
		synctest.Wait()
		close(late)
		assert.Equal(t, http.StatusOK, (<-answers).Code)
		assert.Equal(t, 1, verified)
		assert.Equal(t, m2mauth.Stats{Misses: 2}, guard.Stats())
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
			keysBubble(t, func(t *testing.T) {
				issuer, guard, release := crowded(t, func(c *m2mauth.Config) { c.QueueKey = test.source })
				forged := forger(issuer)
				var flood []<-chan *httptest.ResponseRecorder
				for i := range 1000 {
					flood = append(flood, ask(t.Context(), guard, test.flood(i), forged(i)))
				}
				synctest.Wait()
				assertTryLater(t, <-ask(t.Context(), guard, test.share, issuer.Token(shop, "read")), http.StatusTooManyRequests)

				other := ask(t.Context(), guard, test.other, issuer.Token(shop, "read"))
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
			keysBubble(t, func(t *testing.T) {
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
				assertTryLater(t, <-ask(t.Context(), guard, "192.0.2.1:1", issuer.Token(shop, "read")), http.StatusTooManyRequests)
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
	keysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t, func(c *m2mauth.Config) {
			c.QueueKey = func(r m2mauth.Request) string { return r.RemoteAddr()[:5] }
		})
		forged, token := forger(issuer), issuer.Token(shop, "read")
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
	keysBubble(t, func(t *testing.T) {
		asked := false
		issuer, guard, release := crowded(t, func(c *m2mauth.Config) {
			c.QueueKey = func(r m2mauth.Request) string { asked = r == nil; return r.RemoteAddr() }
		})
		forged := forger(issuer)
		for i := range 1000 {
			go func() { _, _ = guard.Verify(t.Context(), forged(i)) }()
		}
		synctest.Wait()
		_, err := guard.Verify(t.Context(), issuer.Token(shop))
		assert.ErrorIs(t, err, m2mauth.ErrBusy)
		other := ask(t.Context(), guard, "192.0.2.1:1", issuer.Token(shop, "read"))
		synctest.Wait()
		release()
		assert.Equal(t, http.StatusOK, (<-other).Code)
		assert.False(t, asked, "Source is asked about requests alone")
	})
}

func TestAQueueFullOfSourcesGets503(t *testing.T) {
	t.Parallel()
	keysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t)
		forged := forger(issuer)
		for i := range 2000 {
			ask(t.Context(), guard, fmt.Sprintf("10.0.%d.%d:1", i/250, i%250), forged(i))
		}
		synctest.Wait()
		begin := time.Now()
		assertTryLater(t, <-ask(t.Context(), guard, "192.0.2.9:1", issuer.Token(shop, "read")), http.StatusServiceUnavailable)
		assert.Zero(t, time.Since(begin))
		release()
		synctest.Wait()
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	})
}

func TestANewTokenWaitsTwoSecondsAtMost(t *testing.T) {
	t.Parallel()
	keysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t)
		token := issuer.Token(shop, "read")
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
	keysBubble(t, func(t *testing.T) {
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
			_, err := guard.Verify(t.Context(), issuer.Token(shop, "read"))
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
			token := issuer.Sign(m2mauthtest.Token{Audience: shop, Scopes: []string{"read"}, Lifetime: time.Second})
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
				keysBubble(t, func(t *testing.T) {
					issuer := m2mauthtest.NewIssuer()
					guard := keysGuard(t, issuer, func(c *m2mauth.Config) { c.Leeway = -1 })
					token := issuer.Sign(m2mauthtest.Token{Audience: keysAPI, Lifetime: keysTTL + time.Minute})
					keysAtOnce(t, guard, token, http.StatusOK)
					time.Sleep(keysTTL + time.Minute - left)
					issuer.Intercept(func(next http.Handler) http.Handler {
						return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							time.Sleep(wait)
							if !spoil(w) {
								next.ServeHTTP(w, r)
							}
						})
					})
					assert.Equal(t, wait, keysEventually(t, guard, token, status))
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
			keysBubble(t, func(t *testing.T) {
				issuer, guard, release := crowded(t)
				token := issuer.Token(shop, "read")
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

func TestASourceThatPanicsOrBlocksHarmsOnlyItsRequest(t *testing.T) {
	t.Parallel()
	keysBubble(t, func(t *testing.T) {
		unblock := make(chan struct{})
		issuer, guard, release := crowded(t, func(c *m2mauth.Config) {
			c.QueueKey = func(r m2mauth.Request) string {
				switch r.RemoteAddr() {
				case "panics":
					panic("Source")
				case "blocks":
					<-unblock
				}
				return r.RemoteAddr()
			}
		})
		release()
		blocked := ask(t.Context(), guard, "blocks", issuer.Token(shop, "read"))
		synctest.Wait()
		r := requestWith("Bearer " + issuer.Token(shop, "read"))
		r.RemoteAddr = "panics"
		assert.PanicsWithValue(t, "Source", func() { _, _ = guard.Check(r, m2mauth.AnyToken()) })
		r.RemoteAddr = "fine"
		_, err := guard.Check(r, m2mauth.AnyToken())
		assert.NoError(t, err, "the same token")
		assert.Equal(t, http.StatusOK, (<-ask(t.Context(), guard, "fine", issuer.Token(shop, "read"))).Code)
		assert.NotPanics(t, func() { guard.Stats() }, "no lock is held")
		close(unblock)
		assert.Equal(t, http.StatusOK, (<-blocked).Code)
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	})
}

func TestAPanicLeavesNoWaiterBehind(t *testing.T) {
	t.Parallel()
	keysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t)
		token := issuer.Token(shop, "read")
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
			assert.PanicsWithValue(t, "handler", func() { handler.ServeHTTP(httptest.NewRecorder(), requestWith("Bearer "+token)) })
		}
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	})
}
