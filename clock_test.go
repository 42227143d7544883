package m2mauth

import (
	"context"
	"fmt"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// later returns a moment after t at which the clocks have gone on differently,
// which the clock of a synctest bubble never does.
func later(t time.Time, wall, monotonic time.Duration) time.Time {
	t = t.Add(wall)
	reading := (*struct {
		wall uint64
		ext  int64 // the monotonic reading, if there is one
	})(unsafe.Pointer(&t))
	if reading.wall>>63 != 0 {
		reading.ext += int64(monotonic - wall)
	}
	return t
}

const suspended = 72 * time.Hour

func TestOldByEitherClockIsOld(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		wall, monotonic, age time.Duration
	}{
		"both":                        {time.Hour, time.Hour, time.Hour},
		"a machine was suspended":     {suspended, 0, suspended},
		"the wall clock was set back": {-time.Hour, time.Minute, time.Minute},
		"the wall clock stands":       {0, time.Minute, time.Minute},
		"not yet, by neither":         {-time.Minute, -time.Hour, -time.Minute},
	} {
		then := later(now, test.wall, test.monotonic)
		require.Equal(t, test.wall, then.Round(0).Sub(now.Round(0)), name)
		require.Equal(t, test.monotonic, then.Sub(now), name)
		assert.Equal(t, test.age, age(then, now), name)
		assert.Equal(t, test.age >= 0, reached(then, now), name)
	}
	assert.True(t, reached(now, now))
	assert.True(t, reached(now, time.Time{}))
}

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
			k.flight = &flight{done: make(chan struct{})}
			gone, hangUp := context.WithCancel(t.Context())
			hangUp()
			serves := func(after time.Duration) bool {
				_, _, e := k.get(gone, clocks(now, after), held{})
				return e == nil
			}
			assert.True(t, serves(k.ttl-1))
			assert.False(t, serves(k.ttl), "nothing was tried lately")
			k.failedAt = now.Add(k.ttl)
			assert.True(t, serves(k.ttl+triedLately-1))
			assert.False(t, serves(k.ttl+triedLately), "a failure of a minute ago")
			k.failedAt = now.Add(k.ttl + k.staleFor - 1)
			assert.True(t, serves(k.ttl+k.staleFor-1))
			assert.False(t, serves(k.ttl+k.staleFor))

			// And no pause is longer by one of them.
			k.mu.Lock()
			k.flight, k.nextTry = nil, now.Add(time.Second)
			early, f := k.fetchLocked(clocks(now, time.Second-1)), k.fetchLocked(clocks(now, time.Second))
			k.mu.Unlock()
			assert.Nil(t, early)
			require.NotNil(t, f)
			<-f.done
		})
	}
}

func TestAKeySetThatIsOldByEitherClockIsDueForARefresh(t *testing.T) {
	for name, then := range map[string]func(time.Time) time.Time{
		"a machine was suspended":     func(t time.Time) time.Time { return later(t, 8*time.Minute, 0) },
		"the wall clock was set back": func(t time.Time) time.Time { return later(t, -time.Hour, 8*time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			k, set := bounded(answerWith("{}"))
			set.refreshAt = set.fetched.Add(8 * time.Minute)
			_, _, e := k.get(t.Context(), set.fetched, held{})
			require.Nil(t, e)
			assert.Zero(t, k.fetches)
			_, _, e = k.get(t.Context(), then(set.fetched), held{})
			require.Nil(t, e)
			k.mu.Lock()
			f, fetches := k.flight, k.fetches
			k.mu.Unlock()
			assert.Equal(t, 1, fetches)
			if f != nil {
				<-f.done
			}
		})
	}
}

// exp is wall time alone. A token that is remembered has been seen to age.
func TestATokenThatIsOldByEitherClockHasExpired(t *testing.T) {
	p := claimPolicy{issuer: "i", audiences: []string{"a"}, clientClaims: []string{"client_id"}, scopeClaims: []string{"scope"}, leeway: 30 * time.Second}
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
	assert.True(t, far.Equal(onBothClocks(now, far)), "what no clock of ours reaches")
	assert.Equal(t, c.expiresAt.Round(0), Claims{set: c}.ExpiresAt(), "users see a wall time")
}
