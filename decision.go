package m2mauth

import (
	"context"
	"slices"
	"time"
)

// Decision is what Config.OnDecision is told after each check. Where a function
// of yours panics, that is [ErrInternal], and the panic goes on.
type Decision struct {
	// Rule is what the route demanded; its String is fit for an audit log.
	Rule Rule
	// Claims are the token's, if it was verified, also where the rule refused
	// it; otherwise zero.
	Claims Claims
	// Outcome says how the check ended.
	Outcome Outcome
	// Err is the refusal, or nil.
	Err *Error
	// Remembered says that the token had been verified before.
	Remembered bool
	// Duration is how long the check took, waiting included.
	Duration time.Duration
}

// Outcome is [Allowed], [Anonymous], or the [ErrorKind] of the refusal, such as
// "insufficient_scope": one of a fixed set, safe as a metric label.
type Outcome string

const (
	Allowed   Outcome = "allowed"
	Anonymous Outcome = "anonymous" // an Optional rule, and a request without credentials
)

// report tells Config.OnDecision. Its mistakes are not the caller's problem.
func (g *Guard) report(ctx context.Context, d Decision, anonymous bool) {
	defer func() {
		if v := recover(); v != nil {
			g.refusals.logger().ErrorContext(ctx, "m2mauth: Config.OnDecision panicked", "panic", v)
		}
	}()
	switch {
	case anonymous:
		d.Outcome, d.Err = Anonymous, nil
	case d.Err != nil:
		d.Outcome = Outcome(d.Err.Kind)
		refusal := *d.Err // the caller's may be changed by an ErrorHandler
		g.complete(&refusal)
		refusal.Scopes = slices.Clone(refusal.Scopes)
		d.Err = &refusal
	default:
		d.Outcome = Allowed
	}
	g.onDecision(ctx, d)
}
