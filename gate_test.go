package m2mauth

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
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

// fullGate returns a gate of one place, which is taken.
func fullGate(t *testing.T) *gate {
	t.Helper()
	g := newGate()
	g.free = 1
	require.Nil(t, g.enter(t.Context(), "first"))
	return g
}

// queueUp lets a source wait in the bubble, behind those who wait already. The
// answer comes on the channel.
func queueUp(ctx context.Context, g *gate, source string) <-chan *Error {
	answer := make(chan *Error, 1)
	go func() { answer <- g.enter(ctx, source) }()
	synctest.Wait()
	return answer
}

func assertIdle(t *testing.T, g *gate, places int) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	assert.Equal(t, places, g.free, "no place is lost, and none is added")
	assert.Zero(t, g.waiting)
	assert.Empty(t, g.sources)
	assert.Zero(t, g.turns.Len())
}

func TestHalfOfTheCoresVerifyAtMost(t *testing.T) {
	t.Parallel()
	places := newGate().free
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
				g := fullGate(t)
				var served []string
				arrivals := strings.Fields(test.arrivals)
				for _, who := range arrivals {
					go func() {
						if g.enter(t.Context(), who[:1]) == nil {
							served = append(served, who) // one at a time: there is one place
						}
					}()
					synctest.Wait()
				}
				for range arrivals {
					g.leave()
					synctest.Wait()
				}
				assert.Equal(t, test.served, strings.Join(served, " "))
				g.leave()
				assertIdle(t, g, 1)
				assert.EqualValues(t, len(arrivals), g.waited)
				assert.Zero(t, g.refused)
			})
		})
	}
}

func TestASourceFillsHalfOfTheQueueAtMost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := fullGate(t)
		var admitted []<-chan *Error
		fill := func(source string) {
			for range maxQueuedSource {
				answer := make(chan *Error, 1)
				go func() { answer <- g.enter(t.Context(), source) }()
				admitted = append(admitted, answer)
			}
			synctest.Wait()
			require.Equal(t, len(admitted), g.waiting)
		}
		refused := func(source string, kind error) {
			e := <-queueUp(t.Context(), g, source)
			require.ErrorIs(t, e, kind)
			assert.Equal(t, time.Second, e.RetryAfter)
			assert.Equal(t, map[error]int{ErrBusy: 429, ErrUnavailable: 503}[kind], e.Status)
			assert.Equal(t, len(admitted), g.waiting)
		}
		fill("a")
		refused("a", ErrBusy)
		fill("b")
		assert.Equal(t, maxQueued, g.waiting)
		refused("a", ErrUnavailable)
		refused("c", ErrUnavailable)
		assert.Len(t, g.sources, 2, "who is refused leaves no queue behind")

		for range admitted {
			g.leave()
			synctest.Wait()
		}
		for _, answer := range admitted {
			assert.Nil(t, <-answer)
		}
		g.leave()
		assertIdle(t, g, 1)
		assert.EqualValues(t, 3, g.refused)
	})
}

func TestNobodyWaitsForATurnOverTwoSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := fullGate(t)
		begin := time.Now()
		early := queueUp(t.Context(), g, "a")
		late := queueUp(t.Context(), g, "a")
		e := <-early
		assert.Equal(t, 2*time.Second, time.Since(begin))
		require.ErrorIs(t, e, ErrUnavailable)
		assert.Equal(t, time.Second, e.RetryAfter)
		assert.ErrorIs(t, <-late, ErrUnavailable)
		g.leave()
		assertIdle(t, g, 1)

		require.Nil(t, g.enter(t.Context(), "a"))
		next := queueUp(t.Context(), g, "b")
		time.Sleep(2*time.Second - 1)
		g.leave()
		assert.Nil(t, <-next)
		g.leave()
		assertIdle(t, g, 1)
	})
}

func TestACancelledWaiterLeavesTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := fullGate(t)
		gone := errors.New("the client is gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		first := queueUp(t.Context(), g, "a")
		leaving := queueUp(ctx, g, "b")
		last := queueUp(t.Context(), g, "c")
		begin := time.Now()
		cancel(gone)
		e := <-leaving
		assert.Zero(t, time.Since(begin))
		assert.ErrorIs(t, e, ErrUnavailable)
		assert.ErrorIs(t, e, gone)
		assert.Equal(t, 2, g.waiting)
		assert.Len(t, g.sources, 2)

		g.leave()
		assert.Nil(t, <-first)
		g.leave()
		assert.Nil(t, <-last, "the turn of one who left is nobody's")
		g.leave()
		assertIdle(t, g, 1)
	})
}

// A place may be handed over at the very moment at which the waiter gives up.
func TestAPlaceHandedOverToOneWhoGaveUpIsPassedOn(t *testing.T) {
	t.Parallel()
	for name, giveUp := range map[string]func(context.CancelFunc){
		"by the end of its context": func(cancel context.CancelFunc) { cancel() },
		"by the time":               func(context.CancelFunc) { time.Sleep(time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := fullGate(t)
				ctx, cancel := context.WithCancel(t.Context())
				leaving := queueUp(ctx, g, "a")
				time.Sleep(maxQueueTime - time.Second)
				next := queueUp(t.Context(), g, "b")
				g.mu.Lock() // until we are done, the one who gives up cannot leave the queue
				giveUp(cancel)
				g.handOverLocked()
				g.mu.Unlock()
				require.ErrorIs(t, <-leaving, ErrUnavailable)
				assert.Nil(t, <-next)
				g.leave()
				assertIdle(t, g, 1)
				cancel()
			})
		})
	}
}

func TestTheGateUnderLoad(t *testing.T) {
	t.Parallel()
	const places, clients, rounds = 3, 64, 200
	g := newGate()
	g.free = places
	var inside, most, entered atomic.Int64
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			for range rounds {
				ctx, cancel := context.WithCancel(t.Context())
				if rand.IntN(4) == 0 {
					go cancel()
				}
				if g.enter(ctx, string(rune('a'+client%8))) == nil {
					entered.Add(1)
					now := inside.Add(1)
					for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
					}
					runtime.Gosched()
					inside.Add(-1)
					g.leave()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	assert.LessOrEqual(t, most.Load(), int64(places))
	assert.EqualValues(t, clients*rounds, uint64(entered.Load())+g.refused, "everybody got an answer")
	assertIdle(t, g, places)
}

func TestSourceOfARequest(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, address, want string }{
		{"IPv4", "192.0.2.1:1234", "192.0.2.1"},
		{"IPv6", "[2001:db8:1:2:3:4:5:6]:1234", "2001:db8:1:2::/64"},
		{"IPv6 with a zone", "[fe80::1%eth0]:1234", "fe80::/64"},
		{"IPv4 in IPv6, of which not all are one source", "[::ffff:192.0.2.1]:1234", "::ffff:192.0.2.1"},
		{"no port", "192.0.2.1", "192.0.2.1"},
		{"IPv6 without port", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"a name", "client.example:1234", "client.example"},
		{"a Unix socket", "@", "@"},
		{"nothing", "", ""},
		{"rubbish", "[::1", "[::1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.want, hostOf(httpRequest{&http.Request{RemoteAddr: test.address}}))
		})
	}
}
