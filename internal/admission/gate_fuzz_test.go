package admission

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// gateModel is the gate as plain lists: who runs, who waits in order of arrival, and in
// which order networks and their sources will be served.
type gateModel struct {
	t      *testing.T
	gate   *gate
	places int
	most   int // places in the queue

	running []*gateRequest
	waiting []*gateRequest
	turns   map[string][]string // of networks under "", of sources under their network
	waited  uint64
	refused uint64
}

// gateRequest is a request that asks for a place, holds it until it is ended, and
// reports the result.
type gateRequest struct {
	source  string
	cost    int // places in the queue
	asked   time.Time
	cancel  context.CancelFunc
	begun   chan struct{}
	end     chan bool // true: with a panic
	result  chan error
	panics  chan any
	ordinal int
}

func (r *gateRequest) network() string {
	if strings.HasPrefix(r.source, "2001:db8:1:") {
		return "2001:db8:1::/48"
	}
	return r.source
}

func newGateModel(t *testing.T, most int) *gateModel {
	m := &gateModel{t: t, gate: newGate(), places: 2, most: most, turns: map[string][]string{}}
	m.gate.queue = newQueue(most, queuedBytes)
	m.gate.places = func() int { return m.places } // the same on any machine
	return m
}

// sum returns how many places the waiters take for which f returns true.
func (m *gateModel) sum(f func(*gateRequest) bool) (n int) {
	for _, r := range m.waiting {
		if f(r) {
			n += r.cost
		}
	}
	return n
}

// longest returns the most places of any queue, where f names a waiter's queue. It
// ignores waiters for which f returns "".
func (m *gateModel) longest(f func(*gateRequest) string) (most int) {
	sums := make(map[string]int)
	for _, r := range m.waiting {
		if name := f(r); name != "" {
			sums[name] += r.cost
			most = max(most, sums[name])
		}
	}
	return most
}

// ask sends a request and settles what must happen to it at once.
func (m *gateModel) ask(source string, cost, ordinal int) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &gateRequest{
		source: source, cost: cost, asked: time.Now(), cancel: cancel, ordinal: ordinal,
		begun: make(chan struct{}), end: make(chan bool, 1), result: make(chan error, 1), panics: make(chan any, 1),
	}
	go func() {
		defer cancel()
		defer func() {
			if p := recover(); p != nil {
				r.panics <- p
			}
		}()
		r.result <- m.gate.do(ctx, source, cost*queuedBytes, r.asked.Add(maxQueueTime), func() {
			close(r.begun)
			if <-r.end {
				panic("a panic of this check")
			}
		})
	}()
	synctest.Wait()
	if len(m.waiting) == 0 && len(m.running) < m.places {
		m.running = append(m.running, r)
		return
	}
	ofNetwork := m.sum(func(other *gateRequest) bool { return other.network() == r.network() })
	ofSource := m.sum(func(other *gateRequest) bool { return other.source == r.source })
	lacking := max(0, m.sum(func(*gateRequest) bool { return true })+cost-m.most)
	lackingInNetwork := max(lacking, ofNetwork+cost-m.most/2)
	longestNetwork := m.longest((*gateRequest).network)
	longestSource := m.longest(func(other *gateRequest) string {
		if other.network() != r.network() {
			return ""
		}
		return other.source
	})
	switch {
	case lacking > 0 && ofNetwork+cost <= longestNetwork-lacking:
		m.displaced(lacking, (*gateRequest).network, longestNetwork)
	case lackingInNetwork > 0 && ofSource+cost <= longestSource-lackingInNetwork:
		m.displaced(lackingInNetwork, func(r *gateRequest) string { return r.source }, longestSource)
	case lackingInNetwork > 0 && ofNetwork > 0:
		m.refuses(r, ErrOverShare)
		return
	case lackingInNetwork > 0:
		m.refuses(r, ErrFull)
		return
	}
	m.waiting = append(m.waiting, r)
	m.turn("", r.network(), true)
	m.turn(r.network(), r.source, true)
	m.waited++
	m.serve()
}

// turn adds a queue to those waiting for their turn, or removes it.
func (m *gateModel) turn(within, name string, waits bool) {
	turns := m.turns[within]
	if at := slices.Index(turns, name); waits && at < 0 {
		turns = append(turns, name)
	} else if !waits && at >= 0 {
		turns = slices.Delete(turns, at, at+1)
	}
	m.turns[within] = turns
}

// displaced looks for those that had to go: only as many as necessary, all from one
// queue, which had the most, and each the newest of the longest queue at its time.
func (m *gateModel) displaced(lacking int, queueOf func(*gateRequest) string, longest int) {
	var gone []*gateRequest
	for _, r := range m.waiting {
		if len(r.result) > 0 {
			gone = append(gone, r)
		}
	}
	require.NotEmpty(m.t, gone)
	queue := queueOf(gone[0])
	assert.Equal(m.t, longest, m.sum(func(r *gateRequest) bool { return queueOf(r) == queue }))
	least := gone[0].cost
	for _, r := range gone {
		assert.Equal(m.t, queue, queueOf(r))
		least = max(least, r.cost)
		lacking -= r.cost
	}
	assert.LessOrEqual(m.t, lacking, 0, "there is room")
	assert.Positive(m.t, lacking+least, "and nobody had to go in vain")
	for _, r := range gone {
		m.leaves(r, ErrOverShare)
	}
	for _, r := range gone {
		ofSource := func(source string) int { return m.sum(func(other *gateRequest) bool { return other.source == source }) }
		before := ofSource(r.source)
		for _, other := range gone {
			if other.source == r.source && other.ordinal <= r.ordinal {
				before += other.cost
			}
		}
		for _, other := range m.waiting {
			if other.network() == r.network() {
				assert.LessOrEqual(m.t, ofSource(other.source), before)
			}
			assert.False(m.t, other.source == r.source && other.ordinal > r.ordinal, "the newest goes")
		}
	}
}

func (m *gateModel) refuses(r *gateRequest, why error) {
	m.refused++
	select {
	case err := <-r.result:
		assert.Equal(m.t, why, err)
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

// finish ends a running check. Its place goes to the source whose turn it is.
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
	m.serve()
}

// serve gives free places to those whose turn it is.
func (m *gateModel) serve() {
	for len(m.running) < m.places && len(m.waiting) > 0 {
		network := m.turns[""][0]
		source := m.turns[network][0]
		i := slices.IndexFunc(m.waiting, func(r *gateRequest) bool { return r.source == source })
		r := m.waiting[i]
		m.turns[""] = append(m.turns[""][1:], network)
		m.turns[network] = append(m.turns[network][1:], source)
		m.running = append(m.running, r)
		m.removes(r)
	}
}

func (m *gateModel) removes(r *gateRequest) {
	m.waiting = slices.DeleteFunc(m.waiting, func(other *gateRequest) bool { return other == r })
	m.turn("", r.network(), slices.ContainsFunc(m.waiting, func(other *gateRequest) bool { return other.network() == r.network() }))
	m.turn(r.network(), r.source, slices.ContainsFunc(m.waiting, func(other *gateRequest) bool { return other.source == r.source }))
}

// leaves removes a waiter that gave up or was displaced.
func (m *gateModel) leaves(r *gateRequest, why error) {
	m.refuses(r, why)
	m.removes(r)
}

func (m *gateModel) cancel(i int) {
	if len(m.waiting) == 0 {
		return
	}
	r := m.waiting[i%len(m.waiting)]
	r.cancel()
	synctest.Wait()
	m.leaves(r, ErrGone)
}

// pass lets time pass. Those that waited too long are refused.
func (m *gateModel) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
	for _, r := range slices.Clone(m.waiting) {
		if time.Since(r.asked) >= maxQueueTime {
			m.leaves(r, ErrWaitedTooLong)
		}
	}
}

// check compares the gate with the model.
func (m *gateModel) check() {
	m.t.Helper()
	for _, r := range m.running {
		require.True(m.t, isClosed(r.begun), "request %d of %s has its place", r.ordinal, r.source)
	}
	for _, r := range m.waiting {
		require.False(m.t, isClosed(r.begun), "request %d of %s waits", r.ordinal, r.source)
	}
	m.gate.mu.Lock()
	defer m.gate.mu.Unlock()
	assert.Equal(m.t, len(m.running), m.gate.busy)
	m.compare(m.gate.queue, "", m.waiting)
	assert.Equal(m.t, m.waited, m.gate.waited)
	assert.Equal(m.t, m.refused, m.gate.refused.Load())
}

// compare checks that a queue holds the waiters and leads to them in turn.
func (m *gateModel) compare(q *queue, name string, waiting []*gateRequest) {
	m.t.Helper()
	taken := 0
	for _, r := range waiting {
		taken += r.cost
	}
	require.Equal(m.t, len(waiting), q.waiting)
	assert.Equal(m.t, taken, q.taken)
	assert.LessOrEqual(m.t, taken, q.most)
	if q.inside == nil {
		assert.Equal(m.t, len(waiting), q.turns.Len())
		return
	}
	var turns []string
	for element := q.turns.Front(); element != nil; element = element.Next() {
		inner := element.Value.(*queue)
		turns = append(turns, inner.name)
		assert.Same(m.t, inner, q.inside[inner.name])
		assert.Same(m.t, inner, q.longest[inner.index])
		assert.GreaterOrEqual(m.t, q.longest[0].taken, inner.taken)
		m.compare(inner, inner.name, slices.DeleteFunc(slices.Clone(waiting), func(r *gateRequest) bool {
			return inner.inside != nil && r.network() != inner.name || inner.inside == nil && r.source != inner.name
		}))
	}
	assert.ElementsMatch(m.t, m.turns[name], turns)
	assert.Equal(m.t, fmt.Sprint(m.turns[name]), fmt.Sprint(turns))
	assert.Len(m.t, q.inside, len(turns))
	assert.Len(m.t, q.longest, len(turns))
}

var gateSources = []string{"192.0.2.1", "2001:db8:1:1::/64", "2001:db8:1:2::7", "a name"}

// run does what the bytes say. Each is an action with an argument.
func (m *gateModel) run(acts []byte) {
	for i, act := range acts {
		source := gateSources[act>>4&3]
		switch act & 15 {
		case 0, 1, 2, 3:
			m.ask(source, 1, 100*i)
		case 4: // a large token
			m.ask(source, 2+int(act>>6), 100*i)
		case 5: // many at once
			for n := range 37 {
				m.ask(source, 1, 100*i+n)
			}
		case 6, 7, 8, 9:
			if len(m.running) > 0 {
				m.finish(int(act>>4)%len(m.running), false)
			}
		case 10:
			if len(m.running) > 0 {
				m.finish(int(act>>4)%len(m.running), true)
			}
		case 11:
			m.cancel(int(act >> 4))
		case 12: // Go may use more cores, or fewer
			m.places = 1 + int(act>>6)
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
	assert.Zero(m.t, m.gate.busy, "all places are back")
}

// The gate does what the model does: places, turns, limits, displacement, time,
// cancellation and panics, in any order.
func FuzzGate(f *testing.F) {
	f.Add([]byte{0, 0, 16, 32, 6, 6, 6, 6})
	f.Add([]byte{0, 0, 16, 11, 13, 0xfd, 0xfd, 10, 10})
	random := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		f.Add(randomActs(random))
	}
	f.Fuzz(func(t *testing.T, acts []byte) {
		for _, most := range []int{maxQueued, 16} {
			synctest.Test(t, func(t *testing.T) { newGateModel(t, most).run(acts[:min(len(acts), 200)]) })
		}
	})
}

func randomActs(random *rand.Rand) []byte {
	acts := make([]byte, 20+random.IntN(80))
	for i := range acts {
		acts[i] = byte(random.Uint32())
	}
	return acts
}

// A short script cannot reach the limits.
func TestTheGateKeepsItsModelAtItsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGateModel(t, 200)
		for i := range 105 {
			m.ask("one", 1, i)
		}
		for i := range 90 {
			m.ask("two", 1, i)
		}
		for i := range 20 {
			m.ask("three", 1, i)
		}
		m.check()
		random := rand.New(rand.NewPCG(7, 8))
		for n := range 60 {
			for i := range 3 {
				m.ask([]string{"one", "two", "three", "four"}[random.IntN(4)], 1, 1000+10*n+i)
			}
			m.finish(0, false)
			m.cancel(random.IntN(100))
			m.check()
		}
		m.pass(maxQueueTime)
		m.check()
		for len(m.running) > 0 {
			m.finish(0, false)
		}
		m.check()
		assert.Zero(t, m.gate.busy)
	})
}
