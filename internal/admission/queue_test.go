package admission

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A source that sends less than an even share is hardly ever refused while others
// flood. Checks take a millisecond. The floods send many times what can be checked.
func TestFloodsTakeNextToNothingFromOthers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		flood func(i int) string // sources
	}{
		{"one", func(int) string { return "192.0.2.1" }},
		{"three", func(i int) string { return fmt.Sprint("192.0.2.", i%3) }},
		{"fifty", func(i int) string { return fmt.Sprint("192.0.2.", i%50) }},
		{"the /64s of one IPv6 /48", func(i int) string { return fmt.Sprintf("2001:db8:1:%x::/64", i%65536) }},
		{"the /64s of fifty IPv6 /48s", func(i int) string { return fmt.Sprintf("2001:db8:%x:%x::/64", i%50, i%65536) }},
		{"the addresses of three /64s, by a Source of one's own", func(i int) string { return fmt.Sprintf("2001:db8:%x::%x", i%3, i) }},
	} {
		for _, innocent := range []string{"198.51.100.1", "2001:db8:ffff:1::/64"} {
			t.Run(test.name+", and "+innocent, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					const tick, ticks, perTick = 100 * time.Millisecond, 30, 500
					g := newGate()
					g.places = func() int { return 1 }
					ask := func(source string, answered *[3]atomic.Int64) {
						err := g.do(t.Context(), source, 600, time.Now().Add(maxQueueTime), func() { time.Sleep(time.Millisecond) })
						switch err {
						case nil:
							answered[0].Add(1)
						case ErrOverShare:
							answered[1].Add(1)
						default:
							answered[2].Add(1)
						}
					}
					var floods, others [3]atomic.Int64
					for n := range ticks {
						for i := range perTick {
							go ask(test.flood(n*perTick+i), &floods)
						}
						synctest.Wait()
						if n > 4 { // the queue is full
							go ask(innocent, &others)
						}
						time.Sleep(tick)
					}
					time.Sleep(2 * maxQueueTime)
					assert.EqualValues(t, ticks*perTick, floods[0].Load()+floods[1].Load()+floods[2].Load())
					assert.Greater(t, floods[1].Load()+floods[2].Load(), int64(ticks*perTick/2), "it is a flood")
					lost := others[1].Load() + others[2].Load()
					assert.LessOrEqual(t, 20*lost, lost+others[0].Load(), "5 %% at most")
					assertIdle(t, g, 1)
				})
			})
		}
	}
}

// The queue is full, with three sources. A source with less than an even share gets a
// place, and the newest of the longest queue gives it up.
func TestTheNewestOfTheLongestQueueMakesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := fullGate()
		g.queue = newQueue(10, queuedBytes)
		answers := map[string][]<-chan error{}
		ask := func(source string) { answers[source] = append(answers[source], queueUp(t.Context(), g, source)) }
		for _, source := range []string{"a", "a", "a", "a", "b", "b", "b", "b", "b", "c"} {
			ask(source)
		}
		displaced := func(source string, i int) {
			t.Helper()
			require.Len(t, answers[source][i], 1)
			require.Equal(t, ErrOverShare, <-answers[source][i])
		}
		ask("d")
		displaced("b", 4) // 4 4 1 1
		ask("c")          // 3 4 2 1, or 4 3 2 1
		ask("c")          // 3 3 3 1
		displaced("a", 3)
		displaced("b", 3)
		ask("c")
		displaced("c", 3)
		ask("d") // 3 3 2 2, from any of the three
		refused := 0
		for source, of := range answers {
			for _, answer := range of {
				refused += len(answer)
			}
			assert.GreaterOrEqual(t, len(of), 1, source)
		}
		assert.Equal(t, 1, refused)
		assert.Equal(t, 10, g.queue.taken)
		assert.EqualValues(t, 5, g.refused.Load())
		for range 11 {
			g.leave()
		}
		assertIdle(t, g.gate, 1)
	})
}

func TestATokenTakesPlacesByItsBytes(t *testing.T) {
	t.Parallel()
	q := newQueue(100, 1000)
	enter := func(source string, bytes int) error { return q.enter(newWaiter(nil), source, bytes) }
	for _, test := range []struct{ bytes, places int }{{0, 1}, {1, 1}, {1000, 1}, {1001, 2}, {20_000, 20}} {
		before := q.taken
		require.NoError(t, enter("a", test.bytes))
		assert.Equal(t, test.places, q.taken-before)
	}
	require.NoError(t, enter("a", 25_000))
	assert.Equal(t, ErrOverShare, enter("a", 1), "half of the places")
	for range 5 {
		require.NoError(t, enter("b", 10_000))
	}
	require.NoError(t, enter("c", 9_000), "which displaces what has as much at least")
	assert.LessOrEqual(t, q.taken, 100)
	assert.Equal(t, 9, q.inside["c"].taken)
	assert.Equal(t, ErrFull, enter("d", 64_000), "no queue has so many places to give")
	for range 7 {
		q.next()
	}
	assert.Equal(t, ErrFull, newQueue(100, 1000).enter(newWaiter(nil), "a", 100_001), "nor has an empty one")
	for q.next() != nil {
	}
	assertNobodyWaits(t, q)
}

func TestNetworkOfASource(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		"2001:db8:1:2::/64":  "2001:db8:1::/48",
		"2001:db8:1:2::7":    "2001:db8:1::/48",
		"2001:db8:1::7%eth0": "2001:db8:1::/48",
		"2001:db8:1::/48":    "2001:db8:1::/48",
		"2001:db8:1::5/48":   "2001:db8:1::/48",
		"2001:db8::/32":      "2001:db8::/32",
		"192.0.2.1":          "192.0.2.1",
		"192.0.2.0/24":       "192.0.2.0/24",
		"::ffff:192.0.2.1":   "::ffff:192.0.2.1",
		"client.example":     "client.example",
		"":                   "",
		"\x00":               "\x00",
	} {
		assert.Equal(t, want, networkOf(source), source)
	}
}

// Go changes GOMAXPROCS when a container's limits change.
func TestPlacesFollowTheCores(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := slowGate{newGate(), make(chan struct{})}
		var places atomic.Int64
		g.places = func() int { return int(places.Load()) }
		begun := func() int { return g.busy }
		places.Store(1)
		for range 12 {
			queueUp(context.Background(), g, "a")
		}
		require.Equal(t, 1, begun())
		places.Store(4)
		g.leave() // one place stays in use, and each waiter gets it from the one before
		assert.Equal(t, 4, begun())
		assert.Equal(t, 7, g.queue.waiting)
		places.Store(2)
		g.leave()
		g.leave()
		assert.Equal(t, 2, begun())
		assert.Equal(t, 7, g.queue.waiting, "they wait for one of the two")
		places.Store(3)
		queueUp(context.Background(), g, "a")
		assert.Equal(t, 3, begun(), "and need not wait for a check to end where there is a place")
		places.Store(1)
		for range 10 {
			g.leave()
			assert.LessOrEqual(t, begun(), 3)
		}
		assert.Equal(t, 0, begun())
		assertIdle(t, g.gate, 1)
	})
}

func TestA64HasItsShareOfItsNetwork(t *testing.T) {
	t.Parallel()
	q := newQueue(100, 1000)
	for i := range 50 {
		require.NoError(t, q.enter(newWaiter(nil), []string{"2001:db8:1:1::/64", "2001:db8:1:2::/64"}[i/40], 1))
	}
	assert.Equal(t, ErrOverShare, q.enter(newWaiter(nil), "2001:db8:1:1::/64", 1))
	require.NoError(t, q.enter(newWaiter(nil), "2001:db8:1:2::/64", 1), "it has less than the other")
	require.NoError(t, q.enter(newWaiter(nil), "2001:db8:1:3::/64", 1))
	require.NoError(t, q.enter(newWaiter(nil), "2001:db8:2:1::/64", 1), "there is room in the queue")
	assert.Equal(t, 50, q.inside["2001:db8:1::/48"].taken)
	assert.Equal(t, 38, q.inside["2001:db8:1::/48"].inside["2001:db8:1:1::/64"].taken)
	assert.Equal(t, 51, q.taken)
}
