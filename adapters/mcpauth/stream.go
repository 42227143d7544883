package mcpauth

import (
	"context"
	"math"
	"time"

	"github.com/m2mauth/m2mauth"
)

// A stream looks after lookFirst, and from then on when the guard says, but not later than
// lookAgain: timers stand still while a machine sleeps.
const (
	lookFirst = time.Second
	lookAgain = time.Minute
)

// watch returns a context that ends when the guard would no longer accept the token: with
// it, the SDK ends the response. It costs a timer and no goroutine.
func (a *Auth) watch(parent context.Context, claims m2mauth.Claims) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	var timer *time.Timer
	look := func() {
		if ctx.Err() != nil {
			return
		}
		again, err := a.guard.Recheck(ctx, claims)
		if err != nil {
			cancel(err)
			return
		}
		timer.Reset(min(again, lookAgain))
	}
	first := lookFirst
	if !claims.IsZero() {
		first = min(first, time.Until(a.guard.AcceptedUntil(claims)))
	}
	timer = time.AfterFunc(math.MaxInt64, look) // not before timer is set
	timer.Reset(first)
	return ctx, func() {
		cancel(nil)
		timer.Stop()
	}
}
