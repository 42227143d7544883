package m2mauth

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"
)

// A signature check takes up to 2 ms of a core, and anyone can send tokens that
// need one. So only some run at a time; the rest wait in a queue, which serves
// sources in turn, so that a flood from one does not delay the others.
const (
	maxQueued       = 2000          // waiting in all
	maxQueuedSource = maxQueued / 2 // waiting of one source
	maxQueueTime    = 2 * time.Second
)

// verifications is the number of signature checks at one time: half of the
// cores, so that known tokens and handlers always have the other half. Measured
// with two cores, in a flood of forged ES384 tokens: a known token takes 0.6 times
// as long as alone, and 3.6 times at the 99th percentile; with checks on both
// cores, 25 and 110 times.
func verifications() int { return max(1, runtime.GOMAXPROCS(0)/2) }

func newGate() *gate { return &gate{free: verifications(), sources: make(map[string]*list.Element)} }

// gate bounds the signature checks under way.
type gate struct {
	mu      sync.Mutex // guards the fields below
	free    int        // places left
	waiting int
	sources map[string]*list.Element // of turns
	turns   list.List                // of *sourceQueue that have waiters; the front is served next
	waited  uint64
	refused uint64
}

type sourceQueue struct {
	source  string
	waiters list.List // of *waiter
}

// waiter is a check that waits for a place. Once begun, it is in no queue.
type waiter struct {
	check    func()
	begun    bool          // guarded by gate.mu
	panicked any           // what check panicked with
	done     chan struct{} // closed after that
}

var errWaitedTooLong = errors.New("waited too long for other tokens to be verified")

// do runs a signature check, after waiting for a place until the deadline if need
// be. After an error the check has not run.
func (g *gate) do(ctx context.Context, source string, deadline time.Time, check func()) *Error {
	g.mu.Lock()
	if g.free > 0 { // then nobody waits
		g.free--
		g.mu.Unlock()
		defer g.leave()
		check()
		return nil
	}
	queue, e := g.queueLocked(source)
	if e != nil {
		g.refused++
		g.mu.Unlock()
		return e
	}
	w := &waiter{check: check, done: make(chan struct{})}
	place := queue.waiters.PushBack(w)
	g.waiting++
	g.waited++
	g.mu.Unlock()

	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	var cause error
	select {
	case <-w.done:
	case <-ctx.Done():
		cause = context.Cause(ctx)
	case <-timer.C:
		cause = errWaitedTooLong
	}
	if cause != nil && g.giveUp(queue, place) {
		return busy(ErrUnavailable, cause)
	}
	<-w.done // a check that has begun is over soon
	if w.panicked != nil {
		panic(w.panicked) // a panic is the request's, whichever goroutine it came up in
	}
	return nil
}

// giveUp takes a waiter out of its queue, unless its check has begun.
func (g *gate) giveUp(queue *sourceQueue, place *list.Element) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if place.Value.(*waiter).begun {
		return false
	}
	g.removeLocked(queue, place)
	g.refused++
	return true
}

// leave gives a place back, or to those who wait.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting == 0 {
		g.free++
		return
	}
	go g.serve()
}

// serve keeps a place and makes the checks that wait, until none is left. It has
// a thread to itself: an operating system that sees one thread take a core for
// long favours the others, which answer requests with known tokens.
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

// next returns the waiter whose turn it is. If there is none, the place is free.
func (g *gate) next() *waiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	front := g.turns.Front()
	if front == nil {
		g.free++
		return nil
	}
	queue := front.Value.(*sourceQueue)
	g.turns.MoveToBack(front)
	first := queue.waiters.Front()
	g.removeLocked(queue, first)
	w := first.Value.(*waiter)
	w.begun = true
	return w
}

// queueLocked returns a source's queue if a place in it is left.
func (g *gate) queueLocked(source string) (*sourceQueue, *Error) {
	if g.waiting >= maxQueued {
		return nil, busy(ErrUnavailable, errors.New("too many tokens wait to be verified"))
	}
	element := g.sources[source]
	if element == nil {
		element = g.turns.PushBack(&sourceQueue{source: source})
		g.sources[source] = element
	}
	queue := element.Value.(*sourceQueue)
	if queue.waiters.Len() >= maxQueuedSource {
		return nil, busy(ErrBusy, nil, slog.String("source", loggable(source)))
	}
	return queue, nil
}

func busy(kind, cause error, attrs ...slog.Attr) *Error {
	e := newError(kind, "too many new tokens are being verified: try again later", attrs...)
	e.RetryAfter = time.Second
	e.cause = cause
	return e
}

func (g *gate) removeLocked(queue *sourceQueue, place *list.Element) {
	queue.waiters.Remove(place)
	g.waiting--
	if queue.waiters.Len() == 0 {
		g.turns.Remove(g.sources[queue.source])
		delete(g.sources, queue.source)
	}
}

// hostOf is the default Config.Source: the host of the peer's address, and for
// IPv6 its /64, which a single customer of a provider has to itself.
func hostOf(r Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr())
	if err != nil {
		host = r.RemoteAddr()
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() && !ip.Is4In6() {
		prefix, _ := ip.Prefix(64)
		return prefix.String()
	}
	return host
}
