package attempt

import (
	"time"

	"github.com/m2mauth/m2mauth/internal/clock"
)

const (
	// The first retry after a failed attempt waits for firstBackoff, and each later one
	// twice as long as the one before, up to lastBackoff. While nothing serves, and every
	// request is rejected, the limit is lastBackoffWithout.
	firstBackoff, lastBackoff, lastBackoffWithout = time.Second, 30 * time.Second, 10 * time.Second

	// If a longer pause is asked for, it is made, up to this limit.
	maxAsked = time.Minute

	// lately is how long after a failed attempt nobody need wait for another one. It is
	// longer than our backoff and an attempt together.
	lately = time.Minute
)

// History is what came of the attempts so far. In the zero History there were none. Its
// methods may not be called at the same time.
type History struct {
	Begun, Failures int
	Err             error     // of the last attempt; nil if it succeeded
	Next            time.Time // no attempt may begin before this; zero if the last one succeeded

	failedAt time.Time // when the last attempt failed; zero if it succeeded
	backoff  time.Duration
}

// Ready reports whether an attempt may begin.
func (h *History) Ready(now time.Time) bool { return clock.Reached(now, h.Next) }

// Failing reports whether the last attempt failed.
func (h *History) Failing() bool { return !h.failedAt.IsZero() }

// FailedLately reports whether the last attempt failed, and that not long ago.
func (h *History) FailedLately(now time.Time) bool { return clock.Age(now, h.failedAt) < lately }

// Failed says that an attempt failed. serving is how long an earlier result still
// serves, and asked how long a pause the other side asks for.
func (h *History) Failed(now time.Time, err error, serving, asked time.Duration) {
	h.Failures++
	h.failedAt, h.Err = now, err
	h.backoff = min(max(2*h.backoff, firstBackoff), lastBackoff)
	wait := min(h.backoff, serving+lastBackoffWithout)
	h.Next = now.Add(max(wait, min(asked, maxAsked)))
}

// Succeeded says that an attempt succeeded.
func (h *History) Succeeded() { *h = History{Begun: h.Begun, Failures: h.Failures} }
