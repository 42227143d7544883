// Package admission limits how many expensive checks run at a time. The others wait in
// a queue that serves sources in turn, so that a flood from one source does not delay
// the others. Callers that ask for the same check share one run.
//
// The package knows neither what is checked nor who asks: a check has a key, a size and
// a source. Its errors are plain values, the same for all callers.
package admission

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Why a check has no result. [Controller.Do] returns no other errors.
var (
	// ErrOverShare: the source or its network already has its share of the queue, or
	// others with less of it took the caller's place.
	ErrOverShare = errors.New("its source or network has its share of the queue")
	// ErrFull: the queue has no place for one more source.
	ErrFull = errors.New("too many sources wait")
	// ErrWaitedTooLong: the deadline passed.
	ErrWaitedTooLong = errors.New("waited too long for other tokens to be verified")
	// ErrGone: the caller's context ended. Its cause says why.
	ErrGone = errors.New("the caller went away")
)

// Limits of the two queues: places, and the bytes that a caller may keep in memory per
// place.
const (
	maxQueued   = 2000 // wait for their turn, with 16 MiB in total
	queuedBytes = 8 << 10

	maxSharing   = 8192 // wait for another's run, with 24 MiB in total
	sharingBytes = 3 << 10
)

// Check is what one caller asks for.
type Check struct {
	Bytes    int           // that the caller keeps in memory while it waits
	Source   func() string // the caller's group; not called if the check is known
	Deadline time.Time     // the end of any wait; a run that has begun is not stopped
	Known    func() bool   // reports that the check is good without a run, since another one may just have ended
	Run      func() bool   // reports whether the check is good
}

// Controller decides when checks run and in which order. Checks with equal keys are the
// same check.
type Controller[K comparable] struct {
	gate    *gate
	refused atomic.Uint64 // callers that waited for another's run, or would have

	mu       sync.Mutex // guards the fields below
	underWay map[K]*run
	sharers  *queue // callers that wait for another's run
	shared   uint64
}

// New makes a Controller. It starts no goroutine.
func New[K comparable]() *Controller[K] {
	return &Controller[K]{
		gate:     newGate(),
		underWay: make(map[K]*run),
		sharers:  newQueue(maxSharing, sharingBytes),
	}
}

// run is a check that one caller runs, or waits to run, while others wait for it.
type run struct {
	done   chan struct{} // closed once state is final; guards the fields below
	state  runState
	good   bool   // the result, if it has one
	source string // the source that was refused
	err    error  // why it was refused
}

type runState int

const (
	begun     runState = iota
	answered           // for everyone who waits
	refused            // only for the same source, which would wait in the same queue
	abandoned          // its caller went away or panicked, and the next one runs the check
)

// Do returns the result of the check. It calls check.Run, unless another caller already
// runs the same check: then it waits for that result. A caller that gives up leaves the
// check to the next one, and a caller that is refused to the next one from another
// source. A panic in check.Run is a panic of Do. If Do returns an error, this caller's
// Run was not called.
func (c *Controller[K]) Do(ctx context.Context, key K, check Check) (good bool, err error) {
	for {
		r, own := c.join(key)
		if own {
			return c.run(ctx, key, r, check)
		}
		source := check.Source()
		err := c.share(ctx, r, source, check)
		if err == nil && r.state == refused && r.source == source {
			err = r.err
		}
		if err != nil {
			c.refused.Add(1)
			return false, err
		}
		if r.state == answered {
			return r.good, nil
		}
	}
}

// join returns the run in progress, or begins one for the caller.
func (c *Controller[K]) join(key K) (r *run, own bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r = c.underWay[key]; r == nil {
		r, own = &run{done: make(chan struct{})}, true
		c.underWay[key] = r
	}
	return r, own
}

func (c *Controller[K]) run(ctx context.Context, key K, r *run, check Check) (good bool, err error) {
	state := abandoned // unless it gets to the end
	defer func() {
		r.state = state
		c.mu.Lock()
		delete(c.underWay, key)
		c.mu.Unlock()
		close(r.done)
	}()
	if good = check.Known(); !good {
		r.source = check.Source()
		err = c.gate.do(ctx, r.source, check.Bytes, check.Deadline, func() { good = check.Run() })
	}
	switch {
	case err == nil:
		state, r.good = answered, good
	case ctx.Err() == nil:
		state, r.err = refused, err
	}
	return good, err
}

// share waits for another caller's run.
func (c *Controller[K]) share(ctx context.Context, r *run, source string, check Check) (err error) {
	w := newWaiter(nil)
	c.mu.Lock()
	if err = c.sharers.enter(w, source, check.Bytes); err == nil {
		c.shared++
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	defer func() { // however the wait ends, even by a panic in a user's context
		c.mu.Lock()
		defer c.mu.Unlock()
		if !w.leave(left) && err == nil { // it was displaced
			err = ErrOverShare
		}
	}()
	return w.wait(ctx, r.done, check.Deadline)
}

// Stats holds counts since the Controller was made, and the current state.
type Stats struct {
	Shared  uint64 // waited for another's run
	Waited  uint64 // waited for their turn
	Refused uint64 // got an error

	Free     int // free places for runs
	Waiting  int // callers waiting for their turn
	Sources  int // entries about those callers: 0 if there are none
	UnderWay int // checks in progress
	Sharing  int // callers waiting for another's run
}

// Stats returns the current counts.
func (c *Controller[K]) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	return Stats{
		Shared:  c.shared,
		Waited:  g.waited,
		Refused: c.refused.Load() + g.refused.Load(),

		Free:     g.places() - g.busy,
		Waiting:  g.queue.waiting,
		Sources:  len(g.queue.inside) + len(g.queue.longest) + g.queue.turns.Len(),
		UnderWay: len(c.underWay),
		Sharing:  c.sharers.waiting,
	}
}

// Hold takes all free places, so that tests can see what others do meanwhile. Each call
// of release returns one.
func (c *Controller[K]) Hold() (places int, release func()) {
	g := c.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	places = g.places() - g.busy
	g.busy = g.places()
	return places, g.leave
}
