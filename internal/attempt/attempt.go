// Package attempt is about getting something that may fail, for all who need it: an
// attempt is shared, it ends in time, and after failures the next one waits.
package attempt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Attempt is one that anybody can wait for.
type Attempt struct {
	done chan struct{} // closed when the result is stored
	err  error         // set before done is closed
}

// Start makes an attempt in a goroutine that ends on its own. No caller's context can
// end it, since it is for everyone who waits. It calls try, then store with the result,
// and then lets those go on who wait. What store returns is called last.
func Start[T any](timeout time.Duration, try func(context.Context) (T, error), store func(T, error) (report func())) *Attempt {
	a := &Attempt{done: make(chan struct{})}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		result, err := inTime(ctx, try)
		report := store(result, err)
		a.err = err
		close(a.done)
		report()
	}()
	return a
}

// Wait waits for the attempt without the lock that its caller holds, and returns the
// attempt's error. The lock is held again when it returns, even by a panic in a user's
// context. ended is false if ctx ended first, which does not end the attempt.
func (a *Attempt) Wait(ctx context.Context, held sync.Locker) (ended bool, err error) {
	held.Unlock()
	defer held.Lock()
	select {
	case <-a.done:
		return true, a.err
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// inTime is try limited to the time of ctx, even if a user's HTTPClient in it panics,
// ends its goroutine as a failing test does, or ignores ctx.
func inTime[T any](ctx context.Context, try func(context.Context) (T, error)) (result T, err error) {
	type outcome struct {
		result T
		err    error
	}
	ended := make(chan outcome, 1)
	go func() {
		o := outcome{err: errors.New("the HTTPClient ended the fetch")}
		defer func() {
			if p := recover(); p != nil {
				o.err = fmt.Errorf("the HTTPClient panicked: %v", p)
			}
			ended <- o
		}()
		o.result, o.err = try(ctx)
	}()
	select {
	case o := <-ended:
		return o.result, o.err
	case <-ctx.Done():
	}
	select {
	case o := <-ended: // the normal case: the error says what was too slow
		return o.result, o.err
	case <-time.After(10 * time.Millisecond):
		return result, errors.New("the HTTPClient does not end with its request's context")
	}
}
