// Package clock compares moments by the wall clock and the monotonic clock.
package clock

import "time"

// Age returns how long ago a moment was, by the clock that says more. A machine
// that is suspended stops the monotonic clock, and somebody may set the wall clock
// back: by one clock alone, old keys and tokens would be young again.
func Age(now, moment time.Time) time.Duration {
	return max(now.Sub(moment), now.Round(0).Sub(moment.Round(0)))
}

// Reached reports whether a moment has come, by either clock.
func Reached(now, moment time.Time) bool {
	if !now.Before(moment) {
		return true
	}
	seconds, at := now.Unix(), moment.Unix() // Round(0) does the same in three times as long
	return seconds > at || seconds == at && now.Nanosecond() >= moment.Nanosecond()
}

// OnBoth returns a moment that only has a wall time as one that both clocks reach, as
// they are now. One that is too far away stays as it is.
func OnBoth(now, moment time.Time) time.Time {
	if both := now.Add(moment.Sub(now)); both.Equal(moment) {
		return both
	}
	return moment
}
