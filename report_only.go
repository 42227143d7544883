package m2mauth

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/m2mauth/m2mauth/internal/dryrun"
)

// maxReportOnlyWait limits how long a request that passes in any case waits for a
// place in the queue of signature checks.
const maxReportOnlyWait = 100 * time.Millisecond

// dryRun is the time during which a guard lets every request through. Guards that share
// a dryRun end it together, for good.
type dryRun struct {
	*dryrun.Run
	log *refusalLog // counts what would be rejected separately from what is
}

// newDryRun returns nil if the Config asks for no dry run.
func newDryRun(now, until time.Time, logger func() *slog.Logger) *dryRun {
	if until.IsZero() {
		return nil
	}
	run := dryrun.New(now, until, func(state dryrun.State, left time.Duration) {
		line, attrs := "m2mauth: report-only ends soon: requests are refused from then on", []slog.Attr{slog.Time("until", until.UTC())}
		switch state {
		case dryrun.UnderWay:
			line = "m2mauth: report-only: every request passes until Config.InsecureReportOnlyUntil, and what would be refused is logged"
		case dryrun.Missed:
			line = "m2mauth: Config.InsecureReportOnlyUntil has passed: requests are refused, and the setting can go"
		case dryrun.Ended:
			line = "m2mauth: report-only has ended: requests are refused from now on"
		default:
			attrs = append(attrs, slog.String("left", left.Round(time.Minute).String()))
		}
		logger().LogAttrs(context.Background(), slog.LevelWarn, line, attrs...)
	})
	return &dryRun{Run: run, log: newRefusalLog(logger)}
}

// ReportOnly reports whether the guard lets every request through at the moment: see
// Config.InsecureReportOnlyUntil. It is for rejections that an adapter makes on its
// own, such as for a gRPC method without a rule. While ReportOnly is true, it must make
// none.
func (g *Guard) ReportOnly() bool {
	return g.ready() && g.dryRun != nil && g.dryRunUnderWay() // two functions, so that this one is inlined
}

func (g *Guard) dryRunUnderWay() bool { return !g.enforcing && g.dryRun.UnderWay(time.Now()) }

// Enforcing returns the same guard without Config.InsecureReportOnlyUntil, for single
// routes and for administration: it rejects from the first request on. The two guards
// share everything else, such as keys, cached tokens and counts.
func (g *Guard) Enforcing() *Guard {
	if !g.ready() {
		return g
	}
	e := *g
	e.enforcing = true
	return &e
}

// errUndecided is the cause if a request that passes in any case would have to wait for
// the decision.
var errUndecided = errors.New("the guard reports only, and does not hold up a request until it is decided")

func (e *Error) isUndecided() bool { return e != nil && errors.Is(e.cause, errUndecided) }
