// Package clocks makes moments at which the wall clock and the monotonic clock have gone
// on differently, which the clock of a synctest bubble never does.
package clocks

import (
	"time"
	"unsafe"
)

// Later returns a moment after t: by the wall clock, and by the monotonic clock if t has
// a reading of it.
func Later(t time.Time, wall, monotonic time.Duration) time.Time {
	t = t.Add(wall)
	reading := (*struct {
		wall uint64
		ext  int64 // the monotonic reading, if there is one
	})(unsafe.Pointer(&t))
	if reading.wall>>63 != 0 {
		reading.ext += int64(monotonic - wall)
	}
	return t
}
