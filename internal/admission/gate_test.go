package admission

import (
	"context"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// maxQueueTime is how long the tests' callers wait.
const maxQueueTime = 2 * time.Second

// slowGate is a gate in a bubble. Each of its checks runs until leave ends it.
type slowGate struct {
	*gate
	ending chan struct{}
}

func (g slowGate) leave() {
	g.ending <- struct{}{}
	synctest.Wait()
}

// fullGate returns a gate with one place, which is taken.
func fullGate() slowGate {
	g := slowGate{newGate(), make(chan struct{})}
	g.places = func() int { return 1 }
	queueUp(context.Background(), g, "first")
	return g
}

// queueUp lets a source wait behind those that already wait. The channel gets the
// answer when its check has ended.
func queueUp(ctx context.Context, g slowGate, source string) <-chan error {
	answer := make(chan error, 1)
	go func() { answer <- g.do(ctx, source, 600, time.Now().Add(maxQueueTime), func() { <-g.ending }) }()
	synctest.Wait()
	return answer
}

func assertIdle(t *testing.T, g *gate, places int) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	assert.Equal(t, places, g.places()-g.busy, "no place is lost, and none is added")
	assertNobodyWaits(t, g.queue)
}

func assertNobodyWaits(t *testing.T, q *queue) {
	t.Helper()
	assert.Zero(t, q.waiting)
	assert.Zero(t, q.taken)
	assert.Empty(t, q.inside)
	assert.Empty(t, q.longest)
	assert.Zero(t, q.turns.Len())
}

func TestHalfOfTheCoresVerifyAtMost(t *testing.T) {
	t.Parallel()
	places := newGate().places()
	assert.Positive(t, places)
	assert.LessOrEqual(t, 2*places, max(2, runtime.GOMAXPROCS(0)))
}

func TestSourcesAreServedInTurn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, arrivals, served string }{
		{"one source, in the order of arrival", "a1 a2 a3", "a1 a2 a3"},
		{"three sources", "a1 a2 a3 a4 a5 b1 c1 c2", "a1 b1 c1 a2 c2 a3 a4 a5"},
		{"one who comes after a flood", "f" + strings.Repeat(" f", 99) + " g", "f g" + strings.Repeat(" f", 99)},
		{"two who come in turn", "a1 b1 a2 b2", "a1 b1 a2 b2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := fullGate()
				var served []string
				arrivals := strings.Fields(test.arrivals)
				for _, who := range arrivals {
					go g.do(t.Context(), who[:1], 600, time.Now().Add(maxQueueTime), func() {
						served = append(served, who) // one at a time, since there is one place
						<-g.ending
					})
					synctest.Wait()
				}
				for i := range arrivals {
					g.leave()
					assert.Len(t, served, i+1)
				}
				assert.Equal(t, test.served, strings.Join(served, " "))
				g.leave()
				assertIdle(t, g.gate, 1)
				assert.EqualValues(t, len(arrivals), g.waited)
				assert.Zero(t, g.refused.Load())
			})
		})
	}
}

func TestASourceFillsHalfOfTheQueueAtMost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := fullGate()
		var admitted []<-chan error
		fill := func(source string) {
			for range maxQueued / 2 {
				admitted = append(admitted, queueUp(t.Context(), g, source))
			}
			require.Equal(t, len(admitted), g.queue.waiting)
		}
		refused := func(source string, why error) {
			require.Equal(t, why, <-queueUp(t.Context(), g, source))
			assert.Equal(t, len(admitted), g.queue.waiting)
		}
		fill("a")
		refused("a", ErrOverShare)
		fill("b")
		assert.Equal(t, maxQueued, g.queue.waiting)
		refused("a", ErrOverShare)
		refused("b", ErrOverShare)
		assert.Len(t, g.queue.inside, 2, "who is refused leaves no queue behind")

		for range admitted {
			g.leave()
		}
		g.leave()
		for _, answer := range admitted {
			assert.Nil(t, <-answer)
		}
		assertIdle(t, g.gate, 1)
		assert.EqualValues(t, 3, g.refused.Load())
	})
}

func TestNobodyWaitsForATurnOverTwoSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := fullGate()
		begin := time.Now()
		early := queueUp(t.Context(), g, "a")
		late := queueUp(t.Context(), g, "a")
		assert.Equal(t, ErrWaitedTooLong, <-early)
		assert.Equal(t, 2*time.Second, time.Since(begin))
		assert.Equal(t, ErrWaitedTooLong, <-late)
		g.leave()
		assertIdle(t, g.gate, 1)

		queueUp(t.Context(), g, "a")
		next := queueUp(t.Context(), g, "b")
		time.Sleep(2*time.Second - 1)
		g.leave()
		time.Sleep(time.Second)
		assert.Empty(t, next, "its check has begun, and is not given up")
		g.leave()
		assert.Nil(t, <-next)
		assertIdle(t, g.gate, 1)
	})
}

func TestACancelledWaiterLeavesTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := fullGate()
		ctx, cancel := context.WithCancel(t.Context())
		first := queueUp(t.Context(), g, "a")
		leaving := queueUp(ctx, g, "b")
		last := queueUp(t.Context(), g, "c")
		begin := time.Now()
		cancel()
		assert.Equal(t, ErrGone, <-leaving)
		assert.Zero(t, time.Since(begin))
		assert.Equal(t, 2, g.queue.waiting)
		assert.Len(t, g.queue.inside, 2)

		g.leave()
		g.leave()
		assert.Nil(t, <-first)
		g.leave()
		assert.Nil(t, <-last, "the turn of one who left is nobody's")
		assertIdle(t, g.gate, 1)
	})
}

func TestWhoLeavesOnceItsCheckHasBegunStaysUntilItEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := fullGate()
		ctx, cancel := context.WithCancel(t.Context())
		leaving := queueUp(ctx, g, "a")
		last := queueUp(t.Context(), g, "a")
		g.leave()
		cancel()
		synctest.Wait()
		assert.Empty(t, leaving, "its check has begun")
		g.leave()
		assert.Nil(t, <-leaving)
		g.leave()
		assert.Nil(t, <-last)
		assertIdle(t, g.gate, 1)
		assert.Zero(t, g.refused.Load())
	})
}

// A waiting check runs in a goroutine in which no server recovers a panic.
func TestAPanicInACheckIsItsRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := fullGate()
		panicked := make(chan any, 1)
		go func() {
			defer func() { panicked <- recover() }()
			_ = g.do(t.Context(), "a", 600, time.Now().Add(maxQueueTime), func() { panic("a key that nobody expected") })
		}()
		synctest.Wait()
		next := queueUp(t.Context(), g, "a")
		g.leave()
		assert.Equal(t, "a key that nobody expected", <-panicked)
		g.leave()
		assert.Nil(t, <-next)
		assertIdle(t, g.gate, 1)
		assert.Panics(t, func() { _ = g.do(t.Context(), "a", 600, time.Now().Add(maxQueueTime), func() { panic("at once") }) })
		assertIdle(t, g.gate, 1)
	})
}

func TestTheGateUnderLoad(t *testing.T) {
	t.Parallel()
	const places, clients, rounds = 3, 64, 200
	g := newGate()
	g.places = func() int { return places }
	var inside, most, entered atomic.Int64
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			for range rounds {
				ctx, cancel := context.WithCancel(t.Context())
				if rand.IntN(4) == 0 {
					go cancel()
				}
				_ = g.do(ctx, string(rune('a'+client%8)), 600, time.Now().Add(maxQueueTime), func() {
					entered.Add(1)
					now := inside.Add(1)
					for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
					}
					runtime.Gosched()
					inside.Add(-1)
				})
				cancel()
			}
		})
	}
	wg.Wait()
	assert.LessOrEqual(t, most.Load(), int64(places))
	assert.EqualValues(t, clients*rounds, uint64(entered.Load())+g.refused.Load(), "everybody got an answer")
	assert.Eventually(t, func() bool { // if the last waiter gave up, its place is returned only afterwards
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.busy == 0
	}, time.Minute, time.Millisecond)
	assertIdle(t, g, places)
}
