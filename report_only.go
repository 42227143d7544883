package m2mauth

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// maxReportOnly limits Config.InsecureReportOnlyUntil.
	maxReportOnly = 90 * 24 * time.Hour

	// maxReportOnlyWait limits how long a request that passes in any case waits for a
	// place in the queue of signature checks.
	maxReportOnlyWait = 100 * time.Millisecond
)

// dryRun is the time during which a guard lets every request through. Guards that share
// a dryRun end it together, for good.
type dryRun struct {
	until time.Time // by the wall clock
	made  time.Time
	log   *refusalLog // counts what would be rejected separately from what is

	ended    atomic.Bool
	daysLeft atomic.Int32 // the fewest days already logged
}

// newDryRun returns nil if the Config asks for no dry run.
func newDryRun(now, until time.Time, logger func() *slog.Logger) *dryRun {
	if until.IsZero() {
		return nil
	}
	d := &dryRun{until: until.Round(0), made: now, log: newRefusalLog(logger)}
	d.daysLeft.Store(3)
	if !d.made.Before(d.until) {
		d.ended.Store(true)
		d.warn("m2mauth: Config.InsecureReportOnlyUntil has passed: requests are refused, and the setting can go")
		return d
	}
	d.warn("m2mauth: report-only: every request passes until Config.InsecureReportOnlyUntil, and what would be refused is logged")
	return d
}

// underWay reports whether requests still pass. The first caller to see the end ends it
// for all, so setting the clock back afterwards opens nothing. Setting it back before
// cannot make the dry run last longer than New allows.
func (d *dryRun) underWay(now time.Time) bool {
	if d.ended.Load() {
		return false
	}
	left := d.until.Sub(now)
	if left <= 0 || age(now, d.made) >= maxReportOnly {
		if d.ended.CompareAndSwap(false, true) {
			d.warn("m2mauth: report-only has ended: requests are refused from now on")
		}
		return false
	}
	const day = 24 * time.Hour
	if days, logged := int32(left/day), d.daysLeft.Load(); days < logged && d.daysLeft.CompareAndSwap(logged, days) {
		d.warn("m2mauth: report-only ends soon: requests are refused from then on", slog.String("left", left.Round(time.Minute).String()))
	}
	return true
}

func (d *dryRun) warn(line string, attrs ...slog.Attr) {
	attrs = append([]slog.Attr{slog.Time("until", d.until.UTC())}, attrs...)
	d.log.logger().LogAttrs(context.Background(), slog.LevelWarn, line, attrs...)
}

// ReportOnly reports whether the guard lets every request through at the moment: see
// Config.InsecureReportOnlyUntil. It is for rejections that an adapter makes on its
// own, such as for a gRPC method without a rule. While ReportOnly is true, it must make
// none.
func (g *Guard) ReportOnly() bool {
	return g.ready() && g.dryRun != nil && !g.enforcing && g.dryRun.underWay(time.Now())
}

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
