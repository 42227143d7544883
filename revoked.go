package m2mauth

import (
	"context"
	"fmt"
	"time"
)

// checkRevoked asks Config.Revoked about a verified token. If it cannot say, the request
// does not pass. In a dry run, it gets as long as everything else that a request waits
// for.
func (g *Guard) checkRevoked(ctx context.Context, c *claimSet, dry bool) *Error {
	if g.revoked == nil {
		return nil
	}
	if dry {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, maxReportOnlyWait, errUndecided)
		defer cancel()
	}
	revoked, err := g.revoked(ctx, Claims{set: c})
	switch {
	case err != nil:
		e := newError(ErrUnavailable, "whether the token was revoked cannot be checked at the moment: try again later")
		e.RetryAfter = time.Second
		e.cause = fmt.Errorf("Config.Revoked: %w", err)
		if ctx.Err() != nil {
			if e.cause = context.Cause(ctx); e.cause != errUndecided {
				e.cause = gone{e.cause}
			}
			e.counted = countedAs(e.cause)
		}
		return e
	case revoked:
		return newError(ErrRevoked, "the token has been revoked")
	}
	return nil
}

// recheckAfter is how long a revoked token's stream or WebSocket may go on.
const recheckAfter = time.Second

// recheck returns how long its answer holds. A panic is an error, see [Guard.Recheck].
func (g *Guard) recheck(ctx context.Context, c *claimSet) (again time.Duration, e *Error) {
	defer func() {
		if v := recover(); v != nil {
			e = internalError(panicIn("Config.Revoked", v))
		}
	}()
	if c == nil {
		return 0, noToken()
	}
	i := g.issuerNamed(c.issuer)
	if i == nil {
		return 0, g.notAmongIssuers(c.issuer)
	}
	if e := g.checkRevoked(ctx, c, false); e != nil { // first, for callers that take an expired token for a while
		return 0, e
	}
	now := time.Now()
	again = c.expiresAt.Add(i.claims.leeway).Sub(now)
	if g.revoked != nil {
		again = min(again, recheckAfter)
	}
	return again, i.claims.checkTimes(c, now)
}
