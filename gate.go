package m2mauth

import (
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
	maxQueued    = 2000 // waiting in all
	maxQueueTime = 2 * time.Second

	// queuedBytes is what a token may have for one of these places: 16 MiB in all.
	queuedBytes = 8 << 10
)

// verifications is the number of signature checks at one time: half of the
// cores, so that known tokens and handlers always have the other half. Measured
// with two cores, in a flood of forged ES384 tokens: a known token takes 0.6 times
// as long as alone, and 3.6 times at the 99th percentile; with checks on both
// cores, 25 and 110 times. It is asked anew for each check, since Go follows the
// limits of a container as they change.
func verifications() int { return max(1, runtime.GOMAXPROCS(0)/2) }

func newGate() *gate {
	return &gate{places: verifications, queue: newQueue(maxQueued, queuedBytes)}
}

// gate bounds the signature checks under way.
type gate struct {
	places func() int // at this moment, at least one

	mu      sync.Mutex // guards the fields below
	busy    int        // places taken; at least one while somebody waits
	queue   *queue
	waited  uint64
	refused uint64
}

var errWaitedTooLong = errors.New("waited too long for other tokens to be verified")

// gone is what a caller's context ended with.
type gone struct{ error }

func (g gone) Unwrap() error { return g.error }

// do runs a signature check of a token of so many bytes, after waiting for a place
// until the deadline if need be. After an error the check has not run.
func (g *gate) do(ctx context.Context, source string, bytes int, deadline time.Time, check func()) *Error {
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
		g.refused++
		g.mu.Unlock()
		return noRoom(err, source)
	}
	g.waited++
	g.serveMoreLocked()
	g.mu.Unlock()

	if cause := w.wait(ctx, w.done, deadline); cause != nil && g.giveUp(w) {
		return busy(ErrUnavailable, cause)
	}
	<-w.done // a check that has begun is over soon
	if w.displaced {
		g.count(&g.refused)
		return noRoom(errOverShare, source)
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
		return gone{context.Cause(ctx)}
	case <-timer.C:
		return errWaitedTooLong
	}
	return nil
}

// giveUp takes a waiter out of its queue, unless its check has begun or another
// has its place.
func (g *gate) giveUp(w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !w.leave() {
		return false
	}
	g.refused++
	return true
}

func (g *gate) count(n *uint64) {
	g.mu.Lock()
	*n++
	g.mu.Unlock()
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

// noRoom makes the error of one whom a queue refused.
func noRoom(err error, source string) *Error {
	if err == errFull {
		return busy(ErrUnavailable, err)
	}
	return busy(ErrBusy, nil, slog.String("source", loggable(source)))
}

func busy(kind, cause error, attrs ...slog.Attr) *Error {
	e := newError(kind, "too many new tokens are being verified: try again later", attrs...)
	e.RetryAfter = time.Second
	e.cause = cause
	if cause != nil {
		e.counted = countedAs(cause)
	}
	return e
}

// countedAs tells a caller who goes away, and hides nothing so, from all other causes.
func countedAs(cause error) string {
	if errors.As(cause, new(gone)) {
		return "the caller went away"
	}
	return cause.Error()
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
