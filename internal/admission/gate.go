package admission

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// halfOfCores is how many checks may run at a time, so that requests that need no check
// always have the other half. Measured on two cores, in a flood of forged ES384 tokens:
// a cached token takes 0.6 times as long as without the flood, and 3.6 times at the
// 99th percentile. With checks on both cores, it takes 25 and 110 times as long. The
// number is read again for each check, since Go follows a container's limits as they
// change.
func halfOfCores() int { return max(1, runtime.GOMAXPROCS(0)/2) }

func newGate() *gate {
	return &gate{places: halfOfCores, queue: newQueue(maxQueued, queuedBytes)}
}

// gate limits the checks in progress.
type gate struct {
	places  func() int // currently; at least one
	refused atomic.Uint64

	mu     sync.Mutex // guards the fields below
	busy   int        // places taken; at least one while somebody waits
	queue  *queue
	waited uint64
}

// do runs a check, and if necessary first waits for a place until the deadline. If it
// returns an error, the check has not run.
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
	<-w.done // a check that has begun ends soon
	if w.state == displaced {
		g.refused.Add(1)
		return ErrOverShare
	}
	if w.panicked != nil {
		panic(w.panicked) // a panic belongs to the request, whichever goroutine it happened in
	}
	return nil
}

// wait returns nil when ends or w.done is closed, and otherwise why it stopped waiting.
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

// giveUp takes a waiter out of its queue, unless its check has begun or another waiter
// took its place.
func (g *gate) giveUp(w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return w.leave(left)
}

// leave returns a place, or passes it to those who wait.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.queue.waiting == 0 || g.busy > g.places() {
		g.busy--
		return
	}
	go g.serve()
}

// serveMoreLocked uses a free place for those who wait, after the number of places has
// grown.
func (g *gate) serveMoreLocked() {
	if g.queue.waiting > 0 && g.busy < g.places() {
		g.busy++
		go g.serve()
	}
}

// serve keeps a place and runs the waiting checks until none is left. It has a thread
// of its own: an operating system that sees one thread use a core for long favors the
// others, and they serve callers that need no check.
func (g *gate) serve() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for w := g.next(); w != nil; {
		w.run()
		next := g.next() // frees or passes on the place before the request is answered
		close(w.done)
		runtime.Gosched() // what became ready on this core meanwhile goes first
		w = next
	}
}

func (w *waiter) run() {
	defer func() { w.panicked = recover() }()
	w.check()
}

// next returns the waiter whose turn it is. If there is none, or the number of places
// has shrunk, it frees the place.
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
