package m2mauth

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// gateModel is the gate as plain lists: who runs, and who waits by source in the
// order in which the sources will be served.
type gateModel struct {
	t      *testing.T
	gate   *gate
	places int

	running []*gateRequest
	turns   []string
	queues  map[string][]*gateRequest
	waited  uint64
	refused uint64
}

// gateRequest is a request that asks for a place, holds it until told to end, and
// tells what came of it.
type gateRequest struct {
	source  string
	asked   time.Time
	cancel  context.CancelFunc
	begun   chan struct{}
	end     chan bool // true: by a panic
	result  chan *Error
	panics  chan any
	ordinal int
}

func newGateModel(t *testing.T) *gateModel {
	m := &gateModel{t: t, gate: newGate(), places: 2, queues: map[string][]*gateRequest{}}
	m.gate.free = m.places // on any machine
	return m
}

func (m *gateModel) waiting() (n int) {
	for _, q := range m.queues {
		n += len(q)
	}
	return n
}

// ask sends a request, and settles what must happen to it at once.
func (m *gateModel) ask(source string, ordinal int) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &gateRequest{
		source: source, asked: time.Now(), cancel: cancel, ordinal: ordinal,
		begun: make(chan struct{}), end: make(chan bool, 1), result: make(chan *Error, 1), panics: make(chan any, 1),
	}
	go func() {
		defer cancel()
		defer func() {
			if p := recover(); p != nil {
				r.panics <- p
			}
		}()
		r.result <- m.gate.do(ctx, source, r.asked.Add(maxQueueTime), func() {
			close(r.begun)
			if <-r.end {
				panic("a panic of this check")
			}
		})
	}()
	synctest.Wait()
	switch {
	case len(m.running) < m.places:
		m.running = append(m.running, r)
	case m.waiting() >= maxQueued:
		m.refuses(r, ErrUnavailable)
	case len(m.queues[source]) >= maxQueuedSource:
		m.refuses(r, ErrBusy)
	default:
		if len(m.queues[source]) == 0 {
			m.turns = append(m.turns, source)
		}
		m.queues[source] = append(m.queues[source], r)
		m.waited++
	}
}

func (m *gateModel) refuses(r *gateRequest, kind error) {
	m.refused++
	select {
	case e := <-r.result:
		require.NotNil(m.t, e)
		assert.ErrorIs(m.t, e, kind)
		assert.Positive(m.t, e.RetryAfter)
	default:
		require.Fail(m.t, "no answer", "request %d of %s", r.ordinal, r.source)
	}
	assert.False(m.t, isClosed(r.begun), "a refused check has not run")
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// finish ends a running check; its place goes to the source whose turn it is.
func (m *gateModel) finish(i int, byPanic bool) {
	r := m.running[i]
	r.end <- byPanic
	synctest.Wait()
	if byPanic {
		assert.Equal(m.t, "a panic of this check", <-r.panics)
	} else {
		assert.Nil(m.t, <-r.result)
	}
	m.running = slices.Delete(m.running, i, i+1)
	if len(m.turns) == 0 {
		return
	}
	source := m.turns[0]
	queue := m.queues[source]
	m.turns = m.turns[1:]
	m.running = append(m.running, queue[0])
	if m.queues[source] = queue[1:]; len(queue) > 1 {
		m.turns = append(m.turns, source)
	}
}

// leaves takes a waiter out that gave up.
func (m *gateModel) leaves(r *gateRequest) {
	m.refuses(r, ErrUnavailable)
	queue := m.queues[r.source]
	queue = slices.DeleteFunc(slices.Clone(queue), func(other *gateRequest) bool { return other == r })
	if m.queues[r.source] = queue; len(queue) == 0 {
		m.turns = slices.DeleteFunc(m.turns, func(s string) bool { return s == r.source })
	}
}

func (m *gateModel) cancel(source string, i int) {
	queue := m.queues[source]
	if len(queue) == 0 {
		return
	}
	r := queue[i%len(queue)]
	r.cancel()
	synctest.Wait()
	m.leaves(r)
}

// pass lets time go by; who waited too long is refused.
func (m *gateModel) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
	for _, source := range slices.Clone(m.turns) {
		for _, r := range slices.Clone(m.queues[source]) {
			if time.Since(r.asked) >= maxQueueTime {
				m.leaves(r)
			}
		}
	}
}

// check compares the gate with the model.
func (m *gateModel) check() {
	m.t.Helper()
	for _, r := range m.running {
		require.True(m.t, isClosed(r.begun), "request %d of %s has its place", r.ordinal, r.source)
	}
	for _, queue := range m.queues {
		for _, r := range queue {
			require.False(m.t, isClosed(r.begun), "request %d of %s waits", r.ordinal, r.source)
		}
	}
	m.gate.mu.Lock()
	defer m.gate.mu.Unlock()
	assert.Equal(m.t, m.places-len(m.running), m.gate.free)
	assert.Equal(m.t, m.waiting(), m.gate.waiting)
	assert.Equal(m.t, len(m.turns), m.gate.turns.Len())
	assert.Len(m.t, m.gate.sources, len(m.turns))
	assert.Equal(m.t, m.waited, m.gate.waited)
	assert.Equal(m.t, m.refused, m.gate.refused)
}

// run does what the bytes say, each an act with an argument.
func (m *gateModel) run(acts []byte) {
	for i, act := range acts {
		source := fmt.Sprint("source ", act>>4&3)
		switch act & 15 {
		case 0, 1, 2, 3, 4:
			m.ask(source, i)
		case 5: // many at once
			for range 37 {
				m.ask(source, i)
			}
		case 6, 7, 8, 9:
			if len(m.running) > 0 {
				m.finish(int(act>>4)%len(m.running), false)
			}
		case 10:
			if len(m.running) > 0 {
				m.finish(int(act>>4)%len(m.running), true)
			}
		case 11, 12:
			m.cancel(source, int(act>>6))
		case 13:
			m.pass(time.Duration(1+act>>4) * 150 * time.Millisecond)
		case 14:
			m.pass(time.Duration(act) * time.Millisecond)
		case 15:
			for range 3 {
				if len(m.running) > 0 {
					m.finish(0, false)
				}
			}
		}
		m.check()
	}
	for len(m.running) > 0 {
		m.finish(0, false)
	}
	m.check()
	assert.Equal(m.t, m.places, m.gate.free, "all places are back")
}

// The gate does what the model does: places, turns, bounds, time, cancelling and
// panics, in any order.
func FuzzGate(f *testing.F) {
	f.Add([]byte{0, 0, 16, 32, 6, 6, 6, 6})
	f.Add([]byte{0, 0, 16, 11, 13, 0xfd, 0xfd, 10, 10})
	random := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		f.Add(randomActs(random))
	}
	f.Fuzz(func(t *testing.T, acts []byte) {
		synctest.Test(t, func(t *testing.T) { newGateModel(t).run(acts[:min(len(acts), 200)]) })
	})
}

func randomActs(random *rand.Rand) []byte {
	acts := make([]byte, 20+random.IntN(80))
	for i := range acts {
		acts[i] = byte(random.Uint32())
	}
	return acts
}

// The bounds are out of a short script's reach.
func TestTheGateKeepsItsModelAtItsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGateModel(t)
		for i := range maxQueuedSource + 5 {
			m.ask("one", i)
		}
		for i := range maxQueuedSource - 10 {
			m.ask("two", i)
		}
		for i := range 20 {
			m.ask("three", i)
		}
		m.check()
		random := rand.New(rand.NewPCG(7, 8))
		for range 20 {
			for i := range 3 {
				m.ask([]string{"one", "two", "three", "four"}[random.IntN(4)], i)
			}
			m.finish(0, false)
			m.cancel("one", random.IntN(100))
		}
		m.check()
		m.pass(maxQueueTime)
		m.check()
		for len(m.running) > 0 {
			m.finish(0, false)
		}
		m.check()
		assert.Equal(t, m.places, m.gate.free)
	})
}
