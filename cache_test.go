package m2mauth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/jose"
)

// seenToken returns a token as it is remembered, with claims as Logto writes
// them, and as it was sent.
func seenToken(i int, more string) (raw string, t *token) {
	encode := base64.RawURLEncoding.EncodeToString
	payload := fmt.Sprintf(`{"jti":"%043d","sub":"9g3ysn2y3h2zzyxmacnuq","iat":1700000000,"exp":1700003600,%s`+
		`"client_id":"9g3ysn2y3h2zzyxmacnuq","iss":"https://your.logto.endpoint/oidc","aud":"https://shopping.api"}`, i, more)
	header := `{"alg":"ES384","typ":"at+jwt","kid":"SBasCVkyoYgWgue4kzY_7HWSxuJipg6mIzdecQY9B9w"}`
	policy := claimPolicy{
		issuer: "https://your.logto.endpoint/oidc", audiences: []string{"https://shopping.api"},
		scopeClaims: []string{"scope"}, clientClaims: []string{"client_id"},
	}
	claims, e := policy.read([]byte(payload), true, time.Unix(1700000000, 0))
	if e != nil {
		panic(e)
	}
	claims.signed = encode([]byte(header)) + "." + encode([]byte(payload))
	raw = claims.signed + "." + fmt.Sprintf("%0128d", i)
	t = &token{
		claims: claims,
		header: joseHeader{alg: "ES384", typ: "at+jwt", kid: strings.Clone(header[36:79]), hasTyp: true, hasKID: true},
	}
	t.forget(raw)
	return raw, t
}

const usualScope = `"scope":"read:products write:products",`

// assertSound holds what is true of a memory whatever happened to it.
func assertSound(t *testing.T, c *tokenCache) (remembered int) {
	t.Helper()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		bytes := func(generation map[uint64]*token) (sum int64) {
			for _, known := range generation {
				sum += known.cost()
			}
			return sum
		}
		assert.Equal(t, bytes(s.young), s.bytes)
		assert.LessOrEqual(t, s.bytes, c.limit)
		assert.LessOrEqual(t, bytes(s.old), c.limit)
		for hash := range s.old {
			assert.NotContains(t, s.young, hash, "a token is counted once")
		}
		remembered += len(s.young) + len(s.old)
		s.mu.RUnlock()
	}
	return remembered
}

func TestATokenIsFoundByAllOfIt(t *testing.T) {
	t.Parallel()
	raw, known := seenToken(1, usualScope)
	otherRaw, other := seenToken(2, usualScope)
	last := strings.LastIndexByte(raw, '.')
	changed := func(at int) string { return raw[:at] + string(raw[at]^1) + raw[at+1:] }
	strangers := map[string]string{
		"another token":                           otherRaw,
		"its signed part with another signature":  raw[:last] + otherRaw[last:],
		"its signature on other claims":           otherRaw[:last] + raw[last:],
		"a prefix":                                raw[:len(raw)-1],
		"its signed part with an empty signature": raw[:last+1],
		"its signed part":                         raw[:last],
		"a suffix":                                raw[1:],
		"more at the end":                         raw + "A",
		"a part more":                             raw + ".A",
		"padding at the end":                      raw + "=",
		"another character for dot":               raw[:last] + "A" + raw[last+1:],
		"a bit in the header":                     changed(0),
		"a bit in the payload":                    changed(last - 1),
		"the signature's first bit":               changed(last + 1),
		"the signature's last bit":                changed(len(raw) - 1),
		"nothing":                                 "",
	}
	for i := last + 1; i < len(raw); i++ {
		strangers[fmt.Sprint("a bit in the signature's character ", i-last)] = changed(i)
	}
	for name, stranger := range strangers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newTokenCache(defaultCacheBytes)
			c.put(raw, known)
			assert.Nil(t, c.get(stranger))
			assert.False(t, c.has(stranger, nil))

			// Even with the hash of the token that is remembered, which no
			// caller can bring about.
			s, hash := c.shardOf(stranger)
			s.young = map[uint64]*token{hash: known}
			assert.Nil(t, c.get(stranger))
			assert.False(t, c.has(stranger, nil))
		})
	}
	c := newTokenCache(defaultCacheBytes)
	assert.Nil(t, c.get(raw))
	c.put(raw, known)
	c.put(otherRaw, other)
	assert.Same(t, known, c.get(raw))
	assert.Same(t, other, c.get(otherRaw))
	assert.True(t, c.has(raw, nil))
	assert.False(t, c.has(raw, new(jose.Key)), "by another key it was not verified")
	assert.Equal(t, 2, assertSound(t, c))
}

func TestAStreamOfTokensSeenOncePassesByThoseInUse(t *testing.T) {
	t.Parallel()
	c := newTokenCache(1 << 20)
	hotRaw, hot := seenToken(0, usualScope)
	idleRaw, idle := seenToken(1, usualScope)
	c.put(hotRaw, hot)
	c.put(idleRaw, idle)
	const stream = 20_000
	for i := range stream {
		raw, seen := seenToken(i+2, usualScope)
		c.put(raw, seen)
		if i%50 == 0 {
			require.Same(t, hot, c.get(hotRaw), i)
		}
	}
	assert.Nil(t, c.get(idleRaw), "one that is not in use goes")
	remembered := assertSound(t, c)
	assert.Greater(t, remembered, 250, "the memory is used")
	var evicted uint64
	for i := range c.shards {
		evicted += c.shards[i].evicted.Load()
	}
	assert.EqualValues(t, stream+2-remembered, evicted, "each is counted once, and those that were kept are not")
}

func TestATokenRememberedTwiceTakesRoomOnce(t *testing.T) {
	t.Parallel()
	c := newTokenCache(1 << 20)
	raw, known := seenToken(1, usualScope)
	for range 10_000 {
		_, again := seenToken(1, usualScope)
		c.put(raw, again)
	}
	assert.Equal(t, 1, assertSound(t, c))
	c.put(raw, known)
	assert.Same(t, known, c.get(raw), "the last one counts: its key may be newer")
}

func TestTooSmallAMemoryRemembersNothing(t *testing.T) {
	t.Parallel()
	for _, bytes := range []int64{0, 1, 2 * cacheShards * 1000} {
		c := newTokenCache(bytes)
		raw, seen := seenToken(1, usualScope)
		c.put(raw, seen)
		assert.Nil(t, c.get(raw), bytes)
		assert.Zero(t, assertSound(t, c))
	}
}

func TestATokenMayFillItsRoomToTheLastByte(t *testing.T) {
	t.Parallel()
	raw, seen := seenToken(1, usualScope)
	perToken := 2 * cacheShards * seen.cost()
	c := newTokenCache(perToken)
	require.Equal(t, seen.cost(), c.limit)
	c.put(raw, seen)
	assert.Same(t, seen, c.get(raw))
	assert.Equal(t, 1, assertSound(t, c))

	c = newTokenCache(perToken - 2*cacheShards) // a byte less
	c.put(raw, seen)
	assert.Nil(t, c.get(raw))

	c = newTokenCache(2 * perToken)
	c.put(raw, seen)
	shard, _ := c.shardOf(raw)
	for i := 2; len(shard.young) == 1; i++ {
		otherRaw, other := seenToken(i, usualScope)
		if s, _ := c.shardOf(otherRaw); s == shard {
			c.put(otherRaw, other)
			require.Equal(t, seen.cost(), other.cost())
			break
		}
	}
	assert.Len(t, shard.young, 2, "both have room in one generation")
	assert.Empty(t, shard.old)
}

func TestEachAudienceAndEachScopeCosts(t *testing.T) {
	t.Parallel()
	_, bare := seenToken(1, usualScope)
	for name, grow := range map[string]func(*claimSet){
		"audiences": func(c *claimSet) { c.audience = append(c.audience, make([]string, 100)...) },
		"scopes":    func(c *claimSet) { c.scopes.names = append(c.scopes.names, make([]string, 100)...) },
	} {
		_, more := seenToken(1, usualScope)
		grow(more.claims.claimSet)
		assert.GreaterOrEqual(t, more.cost()-bare.cost(), int64(100*unsafe.Sizeof("")), name)
	}
}

// heldBytes returns what the heap holds more than when it was made. Not for
// parallel tests.
func heldBytes() func() int64 {
	held := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools hold goes in the second
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := held()
	return func() int64 { return held() - before }
}

// One million distinct tokens, of the size of Logto's.
func TestMemoryOfAMillionTokens(t *testing.T) {
	_, sample := seenToken(0, usualScope)
	header, payload, _ := strings.Cut(sample.claims.signed, ".")
	clone := func(c *Claims, signed string) *Claims { // with memory of its own, as read gives it
		return &Claims{&claimSet{
			issuer: strings.Clone(c.issuer), subject: strings.Clone(c.subject), clientID: strings.Clone(c.clientID), id: strings.Clone(c.id),
			audience:  []string{strings.Clone(c.audience[0])},
			scopes:    Scopes{splitScopes(strings.Clone(c.scopes.String()))},
			issuedAt:  c.issuedAt,
			expiresAt: c.expiresAt,
			signed:    signed,
		}}
	}
	held := heldBytes()
	c := newTokenCache(defaultCacheBytes)
	most := int64(0)
	for i := range 1_000_000 {
		signed := header + "." + payload[:len(payload)-8] + strconv.Itoa(10_000_000+i)
		seen := &token{claims: clone(sample.claims, signed), header: sample.header}
		seen.header.kid, seen.header.alg = strings.Clone(seen.header.kid), strings.Clone(seen.header.alg)
		raw := signed + "." + fmt.Sprintf("%0128d", i)
		seen.forget(raw)
		c.put(raw, seen)
		if i%250_000 == 249_999 {
			most = max(most, held())
		}
	}
	remembered := assertSound(t, c)
	t.Logf("%.1f MiB for %d tokens", float64(most)/(1<<20), remembered)
	assert.Less(t, most, int64(40<<20))
	assert.Greater(t, remembered, 8_000)
	runtime.KeepAlive(c)
}

// What a token takes depends on what the issuer put in. The bound holds for all.
func TestMemoryIsCountedWhateverTokensHold(t *testing.T) {
	const limit = 8 << 20
	for name, claims := range map[string]string{
		"Logto's":                   usualScope,
		"no scope":                  "",
		"one long scope":            `"scope":"` + strings.Repeat("a", 5200) + `",`,
		"scopes of a single letter": `"scope":"` + strings.Repeat("a ", 2600) + `",`,
		"scopes of two letters":     `"scope":"` + strings.Repeat("aa ", 1700) + `",`,
		"a long claim of their own": `"x":"` + strings.Repeat("a", 5200) + `",`,
	} {
		t.Run(name, func(t *testing.T) {
			held := heldBytes()
			c := newTokenCache(limit)
			_, sample := seenToken(0, claims)
			for i := range 3 * limit / int(sample.cost()) {
				raw, seen := seenToken(i, claims)
				c.put(raw, seen)
			}
			remembered := assertSound(t, c)
			t.Logf("%.1f MiB for %d tokens", float64(held())/(1<<20), remembered)
			assert.Less(t, held(), int64(limit+limit/8))
			assert.Positive(t, remembered)
			runtime.KeepAlive(c)
		})
	}
}

func TestTheMemoryUnderLoad(t *testing.T) {
	t.Parallel()
	const tokens = 300
	c := newTokenCache(200 << 10) // less than they need
	raws, seen := make([]string, tokens), make([]*token, tokens)
	for i := range tokens {
		raws[i], seen[i] = seenToken(i, usualScope)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5_000 {
				i := rand.IntN(tokens)
				if known := c.get(raws[i]); known == nil {
					c.put(raws[i], seen[i])
				} else if known != seen[i] {
					t.Errorf("one token is taken for another")
				}
			}
		})
	}
	wg.Wait()
	assert.Positive(t, assertSound(t, c))
}

// checkIn runs once in the bubble, up to where it waits. The answer comes on the
// channel.
func checkIn(ctx context.Context, c *checks, key check, source string, f func() (bool, *Error)) <-chan checkAnswer {
	answer := make(chan checkAnswer, 1)
	go func() {
		a := checkAnswer{}
		defer func() {
			a.panicked = recover()
			answer <- a
		}()
		a.verified, a.e = c.once(ctx, key, func() string { return source }, time.Now().Add(maxQueueTime), f)
	}()
	synctest.Wait()
	return answer
}

type checkAnswer struct {
	verified bool
	e        *Error
	panicked any
}

func TestOneCheckServesAllWhoWaitForIt(t *testing.T) {
	t.Parallel()
	for name, verified := range map[string]bool{"a good signature": true, "a wrong signature": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, key, runs := newChecks(), check{"token", new(jose.Key)}, 0
				f := func() (bool, *Error) {
					runs++
					time.Sleep(time.Second)
					return verified, nil
				}
				var answers []<-chan checkAnswer
				for range 1000 {
					answer := make(chan checkAnswer, 1)
					go func() {
						verified, e := c.once(t.Context(), key, func() string { return "a" }, time.Now().Add(maxQueueTime), f)
						answer <- checkAnswer{verified: verified, e: e}
					}()
					answers = append(answers, answer)
				}
				for _, answer := range answers {
					assert.Equal(t, checkAnswer{verified: verified}, <-answer)
				}
				assert.Equal(t, 1, runs)
				assert.EqualValues(t, 999, c.saved)
				assert.Empty(t, c.byKey)

				_, e := c.once(t.Context(), key, func() string { return "a" }, time.Now().Add(maxQueueTime), f)
				assert.Nil(t, e)
				assert.Equal(t, 2, runs, "a result is for those who waited for it, and is not kept")
			})
		})
	}
}

func TestOnlyTheSameTokenAndKeyShareACheck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, key := newChecks(), new(jose.Key)
		begin := time.Now()
		slow := func(verified bool) func() (bool, *Error) {
			return func() (bool, *Error) { time.Sleep(time.Second); return verified, nil }
		}
		good := checkIn(t.Context(), c, check{"token", key}, "a", slow(true))
		otherToken := checkIn(t.Context(), c, check{"tokem", key}, "a", slow(false))
		otherKey := checkIn(t.Context(), c, check{"token", new(jose.Key)}, "a", slow(false))
		assert.True(t, (<-good).verified)
		assert.False(t, (<-otherToken).verified)
		assert.False(t, (<-otherKey).verified)
		assert.Equal(t, time.Second, time.Since(begin))
	})
}

func TestOneWhoGivesUpFreesOnlyItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, key, gone := newChecks(), check{"token", new(jose.Key)}, errors.New("the client is gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		slow := func() (bool, *Error) { time.Sleep(time.Second); return true, nil }
		begin := time.Now()
		first := checkIn(t.Context(), c, key, "a", slow)
		leaving := checkIn(ctx, c, key, "a", slow)
		last := checkIn(t.Context(), c, key, "a", slow)
		cancel(gone)
		a := <-leaving
		assert.Zero(t, time.Since(begin))
		assert.ErrorIs(t, a.e, ErrUnavailable)
		assert.ErrorIs(t, a.e, gone)
		assert.Equal(t, time.Second, a.e.RetryAfter)
		assert.True(t, (<-first).verified)
		assert.True(t, (<-last).verified)
		assert.Equal(t, time.Second, time.Since(begin))
		assert.Empty(t, c.byKey)
	})
}

// However the one who runs the check ends without an answer, the next runs it.
func TestACheckWithoutAnswerIsLeftToTheNext(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(cancel func()) *Error{
		"its context ends": func(cancel func()) *Error {
			cancel()
			return busy(ErrUnavailable, context.Canceled)
		},
		"it panics":             func(func()) *Error { panic("broken") },
		"its goroutine ends":    func(func()) *Error { runtime.Goexit(); return nil },
		"its source is refused": func(func()) *Error { return busy(ErrBusy, nil) },
		"it waited too long":    func(func()) *Error { return busy(ErrUnavailable, errWaitedTooLong) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, key := newChecks(), check{"token", new(jose.Key)}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				first := checkIn(ctx, c, key, "a", func() (bool, *Error) {
					time.Sleep(maxQueueTime / 4)
					return false, end(cancel)
				})
				var next []<-chan checkAnswer
				runs := 0
				for range 10 {
					next = append(next, checkIn(t.Context(), c, key, "b", func() (bool, *Error) {
						runs++
						time.Sleep(maxQueueTime / 4)
						return true, nil
					}))
				}
				for _, answer := range next {
					assert.Equal(t, checkAnswer{verified: true}, <-answer)
				}
				assert.Equal(t, 1, runs)
				assert.False(t, (<-first).verified)
				assert.Empty(t, c.byKey, "nobody is left to wait for")
			})
		})
	}
}

// Each request completes its error with its own realm, and logs it. Only the
// race detector sees that they do not do so to the same one.
func TestSharedErrorsAreEachTheirOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, key := newChecks(), check{"token", new(jose.Key)}
		var answers []<-chan checkAnswer
		for range 10 {
			answer := make(chan checkAnswer, 1)
			go func() {
				_, e := c.once(t.Context(), key, func() string { return "a" }, time.Now().Add(maxQueueTime), func() (bool, *Error) {
					time.Sleep(time.Second)
					return false, busy(ErrUnavailable, errors.New("no place"))
				})
				e.realm = "realm"
				answer <- checkAnswer{e: e}
			}()
			answers = append(answers, answer)
		}
		seen := make(map[*Error]bool)
		for _, answer := range answers {
			e := (<-answer).e
			assert.ErrorIs(t, e, ErrUnavailable)
			assert.Equal(t, time.Second, e.RetryAfter)
			seen[e] = true
		}
		assert.Len(t, seen, 10)
		assert.EqualValues(t, 9, c.saved)
		assert.EqualValues(t, 9, c.refused, "but for the one whom the gate counts")
	})
}

// A source's refusal is for those of that source: they would wait in the same queue.
func TestARefusalIsSharedWithinItsSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, key, runs := newChecks(), check{"token", new(jose.Key)}, 0
		refused := func() (bool, *Error) {
			runs++
			time.Sleep(time.Second)
			return false, busy(ErrBusy, nil)
		}
		first := checkIn(t.Context(), c, key, "a", refused)
		second := checkIn(t.Context(), c, key, "a", refused)
		assert.ErrorIs(t, (<-first).e, ErrBusy)
		assert.ErrorIs(t, (<-second).e, ErrBusy)
		assert.Equal(t, 1, runs)
	})
}

// Whoever runs the check, nobody waits longer than the queue lets one wait.
func TestOneWhoSharesACheckWaitsNoLongerThanItsOwnDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, key, begin := newChecks(), check{"token", new(jose.Key)}, time.Now()
		first := checkIn(t.Context(), c, key, "a", func() (bool, *Error) { time.Sleep(time.Minute); return true, nil })
		second := <-checkIn(t.Context(), c, key, "b", func() (bool, *Error) { return true, nil })
		assert.ErrorIs(t, second.e, ErrUnavailable)
		assert.ErrorIs(t, second.e, errWaitedTooLong)
		assert.Equal(t, maxQueueTime, time.Since(begin))
		assert.EqualValues(t, 1, c.refused)
		assert.True(t, (<-first).verified)
	})
}
