package admission

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// halfOfCores is the number of checks at one time, so that whatever needs no check
// always has the other half. Measured with two cores, in a flood of forged ES384
// tokens: a known token takes 0.6 times as long as alone, and 3.6 times at the 99th
// percentile; with checks on both cores, 25 and 110 times. It is asked anew for each
// check, since Go follows the limits of a container as they change.
func halfOfCores() int { return max(1, runtime.GOMAXPROCS(0)/2) }

func newGate() *gate {
	return &gate{places: halfOfCores, queue: newQueue(maxQueued, queuedBytes)}
}

// gate bounds the checks under way.
type gate struct {
	places  func() int // at this moment, at least one
	refused atomic.Uint64

	mu     sync.Mutex // guards the fields below
	busy   int        // places taken; at least one while somebody waits
	queue  *queue
	waited uint64
}

// do runs a check, after waiting for a place until the deadline if need be. After an
// error the check has not run.
func (g *gate) do(ctx context.Context, source string, bytes int, deadline time.Time, check func()) error {
	g.mu.Lock()
	if g.queue.waiting == 0 && g.busy < g.places() {
		g.busy++
		g.mu.Unlock()
		defer g.leave()
		check()
		return nil
	}
	w := newWaiter(check)
	if err := g.queue.enter(w, source, bytes); err != nil {
		g.mu.Unlock()
		g.refused.Add(1)
		return err
	}
	g.waited++
	g.serveMoreLocked()
	g.mu.Unlock()

	if err := w.wait(ctx, w.done, deadline); err != nil && g.giveUp(w) {
		g.refused.Add(1)
		return err
	}
	<-w.done // a check that has begun is over soon
	if w.state == displaced {
		g.refused.Add(1)
		return ErrOverShare
	}
	if w.panicked != nil {
		panic(w.panicked) // a panic is the request's, whichever goroutine it came up in
	}
	return nil
}

// wait waits for what ends, for its own end or until the deadline, and returns
// why it waited in vain.
func (w *waiter) wait(ctx context.Context, ends <-chan struct{}, deadline time.Time) error {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-ends:
	case <-w.done:
	case <-ctx.Done():
		return ErrGone
	case <-timer.C:
		return ErrWaitedTooLong
	}
	return nil
}

// giveUp takes a waiter out of its queue, unless its check has begun or another
// has its place.
func (g *gate) giveUp(w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return w.leave(left)
}

// leave gives a place back, or to those who wait.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.queue.waiting == 0 || g.busy > g.places() {
		g.busy--
		return
	}
	go g.serve()
}

// serveMoreLocked puts a place that is free into use for those who wait: there
// are more places than there were.
func (g *gate) serveMoreLocked() {
	if g.queue.waiting > 0 && g.busy < g.places() {
		g.busy++
		go g.serve()
	}
}

// serve keeps a place and makes the checks that wait, until none is left. It has
// a thread to itself: an operating system that sees one thread take a core for
// long favours the others, which serve callers that need no check.
func (g *gate) serve() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for w := g.next(); w != nil; {
		w.run()
		next := g.next() // its place is given up before its request is answered
		close(w.done)
		runtime.Gosched() // what became ready on this core meanwhile goes first
		w = next
	}
}

func (w *waiter) run() {
	defer func() { w.panicked = recover() }()
	w.check()
}

// next returns the waiter whose turn it is. If there is none, or there are fewer
// places than there were, the place is free.
func (g *gate) next() *waiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	var w *waiter
	if g.busy <= g.places() {
		w = g.queue.next()
	}
	if w == nil {
		g.busy--
		return nil
	}
	g.serveMoreLocked()
	return w
}
