package m2mauth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/attempt"
	"github.com/m2mauth/m2mauth/internal/clock"
	"github.com/m2mauth/m2mauth/internal/keylog"
	"github.com/m2mauth/m2mauth/internal/keyset"
	"github.com/m2mauth/m2mauth/internal/refetch"
	"github.com/m2mauth/m2mauth/internal/scope"
	"github.com/m2mauth/m2mauth/internal/test/clocks"
)

// internalP256 is the key of RFC 7515 appendix A.3: nothing is verified with it.
const internalP256 = `{"kty":"EC","crv":"P-256",%s"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`

// A flood must not fill the memory, and nobody waits without bound.
func TestWhatAFloodLeavesBehindIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := New(Config{
			Issuer: "https://issuer.test", Audience: "https://api.test", JWKSURL: "https://issuer.test/jwks",
			Logger: slog.New(slog.DiscardHandler),
			HTTPClient: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				time.Sleep(time.Second)
				body := fmt.Sprintf(`{"keys":[`+internalP256+`]}`, `"kid":"a",`)
				return &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewBufferString(body)), Request: r}, nil
			})},
		})
		require.NoError(t, err)
		k := g.issuers[0].keys
		_, _, e := k.find(t.Context(), time.Now(), held{}, "a", true, "ES256", fromNobody)
		require.Nil(t, e)
		unknown, busy := 0, 0
		var mu sync.Mutex
		var wg sync.WaitGroup
		for round := range 20 {
			for i := range 10_000 {
				wg.Go(func() {
					_, _, e := k.find(t.Context(), time.Now(), held{}, fmt.Sprint(round, " ", i), true, "ES256", fromNobody)
					mu.Lock()
					defer mu.Unlock()
					switch e.Status {
					case 401:
						unknown++
					case 503:
						busy++
					}
				})
			}
			synctest.Wait()
			k.mu.Lock()
			assert.LessOrEqual(t, k.waiters, maxWaiters)
			k.mu.Unlock()
			wg.Wait()
			time.Sleep(31 * time.Second)
		}
		assert.Equal(t, 200_000, unknown+busy)
		assert.Positive(t, busy, "there is no place for 10,000")
		k.mu.Lock()
		defer k.mu.Unlock()
		assert.Zero(t, k.waiters)
		assert.Nil(t, k.flight)
	})
}

func fromNobody() string { return noRequest }

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// bounded is a key source with the durations of the defaults, and a set that was
// fetched now.
func bounded(answer roundTrip) (*keySource, *keySet) {
	k := &keySource{
		from: keyset.Source{
			Issuer: "https://issuer.test", RSAAlgorithm: "RS256", Timeout: defaultTimeout,
			Client: keyset.NewClient(&http.Client{Transport: answer}, defaultTimeout),
		},
		ttl: defaultKeyTTL, maxTTL: maxMaxAge, staleFor: defaultKeyStaleFor,
		log: keylog.Log{Logger: func() *slog.Logger { return slog.New(slog.DiscardHandler) }},
	}
	now := time.Now()
	set := &keySet{Set: new(keyset.Set), ttl: k.ttl, fetched: now, discovered: now}
	set.freshUntil = now.Add(k.ttl)
	set.refreshAt = set.freshUntil
	set.staleUntil = set.freshUntil.Add(k.staleFor)
	k.current.Store(set)
	return k, set
}

func answerWith(body string) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
}

func TestAnAbsentKeyIDIsLookedForAgainAfterThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _ := bounded(answerWith("{}"))
		var wanted refetch.Wanted
		wanted.Cause("gone", "somebody")
		k.unknown.Fetched(&wanted, time.Now(), func(string) bool { return false })
		time.Sleep(30*time.Second - 1)
		_, e := k.refetch(t.Context(), time.Now(), held{}, "gone", false, fromNobody)
		assert.Nil(t, e)
		assert.Zero(t, k.history.Begun)
		time.Sleep(time.Nanosecond)
		_, e = k.refetch(t.Context(), time.Now(), held{}, "gone", false, fromNobody)
		require.NotNil(t, e, "that fetch fails")
		assert.ErrorIs(t, e, ErrUnavailable)
		assert.Equal(t, 1, k.history.Begun)
	})
}

// Another request may have had the keys refreshed while this one waited for the lock.
func TestKeysThatWereRefreshedMeanwhileAreNotFetchedAgain(t *testing.T) {
	k, set := bounded(answerWith("{}"))
	set.refreshAt = set.fetched.Add(time.Minute)
	got, waited, e := k.renew(t.Context(), set.refreshAt.Add(-1), held{})
	require.Nil(t, e)
	assert.Same(t, set, got)
	assert.False(t, waited)
	k.mu.Lock()
	defer k.mu.Unlock()
	assert.Zero(t, k.history.Begun)
}

func TestMaxAgeIsTenTimesTheFetchTimeoutAtLeast(t *testing.T) {
	k, _ := bounded(nil)
	k.from.Timeout = 30 * time.Second
	assert.Equal(t, 5*time.Minute, k.ttlOf(time.Minute), "so that a slow refresh ends before the keys do")
	k.from.Timeout = 5 * time.Second
	assert.Equal(t, time.Minute, k.ttlOf(time.Minute))
}

func TestMaxAgeIsBelievedWithinBounds(t *testing.T) {
	k, _ := bounded(nil)
	k.ttl = 7 * time.Minute
	for said, want := range map[time.Duration]time.Duration{
		0: 7 * time.Minute, -time.Second: 7 * time.Minute, time.Second: time.Minute, time.Minute + 1: time.Minute + 1,
		time.Hour: time.Hour, time.Hour + 1: time.Hour, 1 << 31 * time.Second: time.Hour,
	} {
		assert.Equal(t, want, k.ttlOf(said), said)
	}
}

func TestDiscoveryIsReadAgainAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		place := "old"
		k, _ := bounded(func(r *http.Request) (*http.Response, error) {
			body := fmt.Sprintf(`{"keys":[`+internalP256+`]}`, "")
			if strings.Contains(r.URL.Path, "/.well-known/") {
				body = `{"issuer":"https://issuer.test","jwks_uri":"https://issuer.test/` + place + `"}`
			}
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		})
		set, err := k.fetch(t.Context(), new(keySet), false)
		require.NoError(t, err)
		assert.Equal(t, "https://issuer.test/old", set.Address())
		discovered := time.Now()
		assert.Equal(t, discovered, set.discovered)

		place = "new"
		time.Sleep(rediscoverAfter - 1)
		set, err = k.fetch(t.Context(), set, false)
		require.NoError(t, err)
		assert.Equal(t, "https://issuer.test/old", set.Address())
		assert.Equal(t, discovered, set.discovered)
		time.Sleep(time.Nanosecond)
		set, err = k.fetch(t.Context(), set, false)
		require.NoError(t, err)
		assert.Equal(t, "https://issuer.test/new", set.Address())
		assert.Equal(t, time.Now(), set.discovered)
	})
}

// A failure may come of keys that moved.
func TestDiscoveryIsReadAgainAfterAFailure(t *testing.T) {
	asked := ""
	k, set := bounded(func(r *http.Request) (*http.Response, error) {
		asked += r.URL.Path + " "
		return nil, errors.New("down")
	})
	for _, failedBefore := range []bool{false, true} {
		asked = ""
		_, err := k.fetch(t.Context(), set, failedBefore)
		require.Error(t, err)
		assert.Equal(t, failedBefore, strings.Contains(asked, "/.well-known/openid-configuration"))
	}
}

// While the last good keys serve, a failed fetch is a warning that says until when.
func TestAFailedFetchIsAnErrorOnceNoKeysServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		k, set := bounded(nil)
		k.log.Logger = func() *slog.Logger { return slog.New(slog.NewTextHandler(&log, nil)) }
		fails := func() string {
			log.Reset()
			k.failLocked(errors.New("down"))()
			return log.String()
		}
		assert.Contains(t, fails(), "level=WARN")
		time.Sleep(time.Until(set.staleUntil) - 1)
		assert.Contains(t, fails(), "last_good_keys_serve_until="+set.staleUntil.UTC().Format("2006-01-02T15:04:05.000Z"))
		time.Sleep(time.Nanosecond)
		assert.Contains(t, fails(), "level=ERROR")
		k.current.Store(new(keySet))
		assert.Contains(t, fails(), "level=ERROR")
	})
}

func TestStateOfKeys(t *testing.T) {
	now := time.Now()
	set := &keySet{Set: new(keyset.Set), refreshAt: now.Add(1), freshUntil: now.Add(2), staleUntil: now.Add(3)}
	for after, want := range []KeyState{KeysFresh, keysDue, KeysStale, KeysExpired} {
		at := now.Add(time.Duration(after))
		assert.Equal(t, want, set.state(at))
		assert.Equal(t, want != KeysExpired, set.serves(at))
	}
	assert.Equal(t, KeysFresh, (&keySet{Set: new(keyset.Set), static: true}).state(now))
	assert.Equal(t, KeysNone, new(keySet).state(now))
	assert.False(t, new(keySet).serves(now))
}

var later = clocks.Later

// Whatever clock says so, keys that are old are refreshed, waited for, and end.
// The times are made by hand, since a bubble has one clock alone.
func TestKeysThatAreOldByEitherClock(t *testing.T) {
	for name, clocks := range map[string]func(time.Time, time.Duration) time.Time{
		"both":                        func(t time.Time, d time.Duration) time.Time { return later(t, d, d) },
		"a machine was suspended":     func(t time.Time, d time.Duration) time.Time { return later(t, d, 0) },
		"the wall clock was set back": func(t time.Time, d time.Duration) time.Time { return later(t, -time.Hour, d) },
	} {
		t.Run(name, func(t *testing.T) {
			k, set := bounded(answerWith("{}"))
			now := set.fetched
			for after, want := range map[time.Duration]KeyState{
				0: KeysFresh, k.ttl - 1: KeysFresh, k.ttl: KeysStale, k.ttl + k.staleFor - 1: KeysStale, k.ttl + k.staleFor: KeysExpired,
			} {
				then := clocks(now, after)
				assert.Equal(t, want, set.state(then), after)
				status := k.status(then)
				assert.Equal(t, want, status.State, after)
				assert.Equal(t, after, status.Age)
			}

			// A request that would wait gives up, since a fetch is under way that
			// does not end.
			k.flight = &flight{Attempt: new(attempt.Attempt)}
			gone, hangUp := context.WithCancel(t.Context())
			hangUp()
			serves := func(after time.Duration) bool {
				_, _, e := k.get(gone, clocks(now, after), held{})
				return e == nil
			}
			assert.True(t, serves(k.ttl-1))
			assert.False(t, serves(k.ttl), "nothing was tried lately")
			k.history.Failed(now.Add(k.ttl), errors.New("down"), 0, 0)
			assert.True(t, serves(k.ttl+time.Minute-1))
			assert.False(t, serves(k.ttl+time.Minute), "a failure of a minute ago")
			k.history.Failed(now.Add(k.ttl+k.staleFor-1), errors.New("down"), 0, 0)
			assert.True(t, serves(k.ttl+k.staleFor-1))
			assert.False(t, serves(k.ttl+k.staleFor))

			// And no pause is longer by one of them.
			k.mu.Lock()
			k.flight, k.history.Next = nil, now.Add(time.Second)
			early, f := k.fetchLocked(clocks(now, time.Second-1)), k.fetchLocked(clocks(now, time.Second))
			require.NotNil(t, f)
			ended, _ := f.Wait(t.Context(), &k.mu)
			k.mu.Unlock()
			assert.Nil(t, early)
			assert.True(t, ended)
		})
	}
}

func TestKeysThatAreOldByEitherClockAreDueForARefresh(t *testing.T) {
	for name, then := range map[string]func(time.Time) time.Time{
		"a machine was suspended":     func(t time.Time) time.Time { return later(t, 8*time.Minute, 0) },
		"the wall clock was set back": func(t time.Time) time.Time { return later(t, -time.Hour, 8*time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			k, set := bounded(answerWith("{}"))
			set.refreshAt = set.fetched.Add(8 * time.Minute)
			_, _, e := k.get(t.Context(), set.fetched, held{})
			require.Nil(t, e)
			assert.Zero(t, k.history.Begun)
			_, _, e = k.get(t.Context(), then(set.fetched), held{})
			require.Nil(t, e)
			k.mu.Lock()
			defer k.mu.Unlock()
			assert.Equal(t, 1, k.history.Begun)
			if k.flight != nil {
				_, _ = k.flight.Wait(t.Context(), &k.mu)
			}
		})
	}
}

// exp is wall time alone. A token that is remembered has been seen to age.
func TestATokenThatIsOldByEitherClockHasExpired(t *testing.T) {
	p := claimPolicy{issuer: "i", audiences: []string{"a"}, sought: usualClaims, scopes: new(scope.Policy), leeway: 30 * time.Second}
	now := time.Now()
	payload := fmt.Sprintf(`{"iss":"i","aud":"a","sub":"s","client_id":"s","exp":%d}`, now.Unix()+3600)
	c, e := p.read([]byte(payload), false, now)
	require.Nil(t, e)
	life := c.expiresAt.Sub(now) + p.leeway
	for name, then := range map[string]func(time.Duration) time.Time{
		"both":                        func(d time.Duration) time.Time { return later(now, d, d) },
		"a machine was suspended":     func(d time.Duration) time.Time { return later(now, d, 0) },
		"the wall clock was set back": func(d time.Duration) time.Time { return later(now, -time.Hour, d) },
	} {
		assert.Nil(t, p.checkTimes(c, then(life-1)), name)
		e := p.checkTimes(c, then(life))
		require.NotNil(t, e, name)
		assert.ErrorIs(t, e, ErrExpired, name)
	}
	far := time.Unix(1<<40, 0)
	assert.True(t, far.Equal(clock.OnBoth(now, far)), "what no clock of ours reaches")
	assert.Equal(t, c.expiresAt.Round(0), Claims{set: c}.ExpiresAt(), "users see a wall time")
}

// Whatever Retry-After says, the next attempt is at least the backoff and at most
// a minute away; within that it is believed in both of its forms.
func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{
		"", "0", "7", "29", "3600", "-1", "+5", "99999999999999999999", "2170000000A", "1.5", "1e1", " 7", "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 2094 08:49:37 GMT", "Sun, 06 Nov 2094 08:49:37 GMD",
		"Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "٧", "0x10", "1_0",
	} {
		f.Add(seed)
	}
	digits := regexp.MustCompile(`^[0-9]+$`)
	f.Fuzz(func(t *testing.T, value string) {
		k, _ := bounded(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 429, Header: http.Header{"Retry-After": {value}}, Body: http.NoBody, Request: r}, nil
		})
		_, err := k.fetch(t.Context(), new(keySet), false)
		require.ErrorContains(t, err, "status 429")
		begin := time.Now()
		k.failLocked(err)
		wait := k.history.Next.Sub(begin)
		took := time.Since(begin)
		want := time.Second
		if at, err := time.Parse(http.TimeFormat, value); err == nil {
			want = min(max(want, at.Sub(begin)), time.Minute)
		} else if digits.MatchString(value) {
			if n, err := strconv.Atoi(value); err != nil || n > 60 {
				want = time.Minute
			} else {
				want = max(want, time.Duration(n)*time.Second)
			}
		} else if _, err := http.ParseTime(value); err == nil {
			assert.LessOrEqual(t, wait, time.Minute+took)
			return
		}
		assert.GreaterOrEqual(t, wait, want-took, "%q", value)
		assert.LessOrEqual(t, wait, want+took, "%q", value)
	})
}
