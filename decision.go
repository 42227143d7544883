package m2mauth

import (
	"context"
	"slices"
	"strings"
	"time"
)

// Decision is what Config.OnDecision is told after each check. Where a function
// of yours panics, that is told as "internal_error", and the panic goes on.
type Decision struct {
	// Rule is what the route demanded; its String is fit for an audit log.
	Rule Rule
	// Claims are the token's, if it was verified, also where the rule refused
	// it; otherwise nil.
	Claims *Claims
	// Outcome is from a closed set, fit for a metric's label: "allowed",
	// "anonymous" (an Optional rule and no credentials), or the kind of the
	// error: "no_access_token", "malformed_credentials", "malformed_token",
	// "algorithm_not_accepted", "type_not_accepted", "wrong_issuer",
	// "wrong_audience", "token_expired", "token_not_yet_valid",
	// "unacceptable_claims", "unknown_key", "wrong_signature",
	// "insufficient_scope", "forbidden", "too_many_requests",
	// "temporarily_unavailable", "internal_error".
	Outcome string
	// Err is the refusal, or nil.
	Err *Error
	// Remembered says that the token had been verified before.
	Remembered bool
	// Duration is how long the check took, waiting included.
	Duration time.Duration
}

// report tells Config.OnDecision. Its mistakes are not the caller's problem.
func (g *Guard) report(ctx context.Context, d Decision, anonymous bool) {
	defer func() {
		if v := recover(); v != nil {
			g.refusals.logger().ErrorContext(ctx, "m2mauth: Config.OnDecision panicked", "panic", v)
		}
	}()
	if d.Claims != nil {
		d.Claims = d.Claims.own()
	}
	switch {
	case anonymous:
		d.Outcome, d.Err = "anonymous", nil
	case d.Err != nil:
		d.Outcome = strings.ReplaceAll(d.Err.kind.name, " ", "_")
		refusal := *d.Err // the caller's may be changed by an ErrorHandler
		g.complete(&refusal)
		refusal.Scopes = slices.Clone(refusal.Scopes)
		d.Err = &refusal
	default:
		d.Outcome = "allowed"
	}
	g.onDecision(ctx, d)
}
