package m2mauth

import (
	"context"
	"slices"
	"time"
)

// Decision is passed to Config.OnDecision after each check. If one of your functions
// panics, the decision is [ErrInternal], and the panic continues.
type Decision struct {
	// Rule is the rule of the route. Its String is meant for an audit log.
	Rule Rule
	// Claims holds the claims of the token if it was verified, even if the rule
	// rejected it. Otherwise it is zero.
	Claims Claims
	// Outcome says how the check ended.
	Outcome Outcome
	// Err says why the request was rejected, would be, or could not be decided. It is nil
	// if it was allowed.
	Err *Error
	// ReportOnly reports whether the request passed whatever the outcome, since the guard
	// was in a dry run: see Config.InsecureReportOnlyUntil.
	ReportOnly bool
	// Remembered reports whether the token was in the cache of verified tokens.
	Remembered bool
	// Duration is how long the check took, including waiting.
	Duration time.Duration
}

// Outcome is [Allowed], [Anonymous], [Undecided], or the [ErrorKind] of the error, such as
// "insufficient_scope". It is one of a fixed set, safe as a metric label.
type Outcome string

const (
	Allowed   Outcome = "allowed"
	Anonymous Outcome = "anonymous" // a request without credentials and an Optional rule
	Undecided Outcome = "undecided" // in a dry run, a request that would have had to wait
)

// report calls Config.OnDecision. A panic in it must not reach the caller.
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
		if d.Err.isUndecided() {
			d.Outcome = Undecided
		}
		refusal := *d.Err // a copy, since an ErrorHandler may change the caller's
		g.complete(&refusal)
		refusal.Scopes = slices.Clone(refusal.Scopes)
		d.Err = &refusal
	default:
		d.Outcome = Allowed
	}
	g.onDecision(ctx, d)
}
