package tally

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/clocks"
)

func TestTheFirstThe10thAndThe100thOfAMinuteAreLoud(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var tally Tally
		for minute, before := range []int{0, 1002, 1002} { // 1006, without those that are loud
			for n := 1; n <= 1006; n++ {
				want := Count{Number: n}
				switch n {
				case 1:
					want = Count{Loud: true, Number: 1, Before: before}
				case 10, 100, 1000:
					want.Loud = true
				case 1006:
					time.Sleep(window - time.Nanosecond) // still in the minute
				}
				require.Equal(t, want, tally.Add(Key{"a", "b"}), "minute %d", minute)
			}
			time.Sleep(time.Nanosecond)
		}
	})
}

// The model keeps every event, and counts by a map alone.
func TestCountsAreThoseOfAModel(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	type state struct {
		since         time.Time
		number, quiet int
	}
	synctest.Test(t, func(t *testing.T) {
		loud, over := 0, 0
		for range 20 {
			var tally Tally
			model := make(map[Key]*state)
			keys := 1 + random.IntN(2*maxKeys)
			for range 5000 {
				if random.IntN(50) == 0 {
					time.Sleep(time.Duration(random.Int64N(int64(window))))
				}
				n := random.IntN(keys)
				key := Key{[]string{"a", "b", "long"}[n%3], fmt.Sprint("reason ", n)} // many of one length
				if random.IntN(2) == 0 {
					key = Key{"often", "the same"}
				}
				want, now := key, time.Now()
				if model[want] == nil && len(model) >= maxKeys {
					want.Reason = ""
					over++
				}
				if model[want] == nil {
					model[want] = new(state)
				}
				s := model[want]
				var count Count
				if now.Sub(s.since) >= time.Minute {
					count = Count{true, 1, s.quiet}
					*s = state{now, 1, 0}
				} else {
					s.number++
					count = Count{Number: s.number}
					for ten := 10; ten <= s.number; ten *= 10 {
						count.Loud = count.Loud || s.number == ten
					}
					if !count.Loud {
						s.quiet++
					}
				}
				require.Equal(t, count, tally.Add(key), "%v", key)
				if count.Loud {
					loud++
				}
			}
			require.Len(t, tally.counts, len(model))
		}
		assert.Greater(t, loud, 1000)
		assert.Greater(t, over, 1000)
	})
}

// Whatever reasons there are, what is kept of them is bounded, and those over the
// bound are still counted.
func TestTheReasonsThatAreCountedAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var tally Tally
		for n := range 10 * maxKeys {
			c := tally.Add(Key{"forbidden", fmt.Sprint(n)})
			if n <= maxKeys {
				assert.True(t, c.Loud)
			}
		}
		assert.Len(t, tally.counts, maxKeys+1)
		c := tally.Add(Key{"forbidden", "one more"})
		assert.Equal(t, Count{Number: 9*maxKeys + 1}, c)
		assert.True(t, tally.Add(Key{"scope", "of another kind"}).Loud)
		assert.Len(t, tally.counts, maxKeys+2, "one for each kind")
		time.Sleep(time.Minute)
		assert.True(t, tally.Add(Key{"forbidden", "one more"}).Loud)
	})
}

// A machine that slept for days tells of the first event after that.
func TestEventsAreCountedAnewAfterASleep(t *testing.T) {
	t.Parallel()
	var tally Tally
	key := Key{Kind: "expired"}
	tally.Add(key)
	for name, before := range map[string]func(time.Time) time.Time{
		"a machine was suspended":     func(t time.Time) time.Time { return clocks.Later(t, -72*time.Hour, 0) },
		"the wall clock was set back": func(t time.Time) time.Time { return clocks.Later(t, time.Hour, -time.Minute) },
	} {
		tally.counts[key].since = before(time.Now())
		c := tally.Add(key)
		assert.True(t, c.Loud, name)
		assert.Equal(t, 1, c.Number, name)
		assert.False(t, tally.Add(key).Loud, name)
	}
}

func TestEventsAreCountedUnderConcurrency(t *testing.T) {
	t.Parallel()
	var tally Tally
	var all sync.WaitGroup
	var mu sync.Mutex
	numbers, loud := make(map[int]bool), 0
	for range 8 {
		all.Go(func() {
			for range 250 {
				c := tally.Add(Key{"a", "b"})
				mu.Lock()
				numbers[c.Number] = true
				if c.Loud {
					loud++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	assert.Len(t, numbers, 2000, "no number twice")
	assert.Equal(t, 4, loud, "the first, the 10th, the 100th and the 1000th")
}

// A flood of one kind reads no sentence and makes nothing.
func TestAddDoesNotAllocate(t *testing.T) {
	var tally Tally
	key := Key{"wrong_audience", "the token is for another resource than this API"}
	tally.Add(key)
	assert.Zero(t, testing.AllocsPerRun(100, func() { tally.Add(key) }))
	found := 0
	for _, c := range tally.recent {
		if c != nil {
			found++
			assert.Same(t, tally.counts[key], c)
		}
	}
	assert.Equal(t, 1, found, "where the next one is found without reading the key")
}

func TestOnceTellsWhatIsNew(t *testing.T) {
	t.Parallel()
	once := Once{Max: 3}
	var told []string
	for _, key := range []string{"a", "b", "a", "", "", "c", "b", "d"} {
		if once.First(key) {
			told = append(told, key)
		}
	}
	assert.Equal(t, []string{"a", "b", ""}, told, "c is over the limit")
	assert.Len(t, once.seen, 3)
	assert.False(t, new(Once).First("a"), "no limit was set")
}

func TestOnceUnderConcurrency(t *testing.T) {
	t.Parallel()
	once := Once{Max: 1000}
	var all sync.WaitGroup
	var mu sync.Mutex
	told := make(map[int]int)
	for range 8 {
		all.Go(func() {
			for n := range 100 {
				if once.First(fmt.Sprint(n)) {
					mu.Lock()
					told[n]++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	assert.Len(t, told, 100)
	for n, times := range told {
		assert.Equal(t, 1, times, n)
	}
}

func BenchmarkAdd(b *testing.B) {
	var tally Tally
	key := Key{"wrong_audience", "the token is for another resource than this API: request one with the resource parameter that names this API"}
	b.ReportAllocs()
	for b.Loop() {
		tally.Add(key)
	}
}
