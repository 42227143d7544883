// Package dryrun decides when a dry run ends. It knows neither requests nor the log.
package dryrun

import (
	"sync/atomic"
	"time"

	"github.com/m2mauth/m2mauth/internal/clock"
)

// Longest is how long a dry run may last.
const Longest = 90 * day

const day = 24 * time.Hour

// State of a dry run. It only grows, so setting a clock back opens nothing again.
type State int32

const (
	UnderWay State = iota
	LastThreeDays
	LastTwoDays
	LastDay
	Ended
	Missed // its end had come before it began
)

// Run is a dry run. Guards that share one end it together, for good. It is safe for
// concurrent use.
type Run struct {
	until   time.Time // by the wall clock
	made    time.Time
	state   atomic.Int32
	changed func(now State, left time.Duration)
}

// New starts a dry run, unless its end has already come. It calls changed with the state
// that it begins with, and each state that it enters is passed to changed once. What is
// left of the dry run goes with it.
func New(made, until time.Time, changed func(now State, left time.Duration)) *Run {
	r := &Run{until: until.Round(0), made: made, changed: changed}
	left := r.until.Sub(made)
	if left <= 0 {
		r.state.Store(int32(Missed))
	}
	changed(State(r.state.Load()), left)
	return r
}

// Until returns when the dry run ends by the wall clock.
func (r *Run) Until() time.Time { return r.until }

// UnderWay reports whether the dry run still goes on. The first caller to see its end
// ends it for all. Setting the clock back before that cannot make it last longer than
// Longest.
func (r *Run) UnderWay(now time.Time) bool {
	before := State(r.state.Load())
	if before >= Ended {
		return false
	}
	left := r.until.Sub(now)
	state := UnderWay
	switch {
	case left <= 0 || clock.Age(now, r.made) >= Longest:
		if State(r.state.Swap(int32(Ended))) != Ended {
			r.changed(Ended, left)
		}
		return false
	case left < day:
		state = LastDay
	case left < 2*day:
		state = LastTwoDays
	case left < 3*day:
		state = LastThreeDays
	}
	if state > before && r.state.CompareAndSwap(int32(before), int32(state)) {
		r.changed(state, left)
	}
	return true
}
