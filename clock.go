package m2mauth

import "time"

// age returns how long ago a moment was, by the clock that says more. A machine
// that is suspended stops the monotonic clock, and somebody may set the wall clock
// back: by one clock alone, old keys and tokens would be young again.
func age(now, moment time.Time) time.Duration {
	return max(now.Sub(moment), now.Round(0).Sub(moment.Round(0)))
}

// reached reports whether a moment has come, by either clock.
func reached(now, moment time.Time) bool {
	return !now.Before(moment) || !now.Round(0).Before(moment.Round(0))
}

// onBothClocks returns a moment that only has a wall time as one that both clocks
// reach, as they are now. One that is too far away stays as it is.
func onBothClocks(now, moment time.Time) time.Time {
	if both := now.Add(moment.Sub(now)); both.Equal(moment) {
		return both
	}
	return moment
}
