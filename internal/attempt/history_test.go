package attempt

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/m2mauth/m2mauth/internal/test/clocks"
)

var errDown = errors.New("down")

func TestPausesAfterFailuresDouble(t *testing.T) {
	for name, test := range map[string]struct {
		serving time.Duration
		want    []int // seconds
	}{
		"an earlier result serves":          {time.Hour, []int{1, 2, 4, 8, 16, 30, 30, 30}},
		"it serves for a while":             {12 * time.Second, []int{1, 2, 4, 8, 16, 22, 22, 22}},
		"it has just ended, or never was":   {0, []int{1, 2, 4, 8, 10, 10, 10, 10}},
		"it serves for less than the pause": {time.Second, []int{1, 2, 4, 8, 11, 11, 11, 11}},
	} {
		var h History
		now := time.Now()
		for i, want := range test.want {
			h.Begun++
			h.Failed(now, errDown, test.serving, 0)
			assert.Equal(t, time.Duration(want)*time.Second, h.Next.Sub(now), "%s, the %d. time", name, i)
			assert.False(t, h.Ready(h.Next.Add(-1)))
			assert.True(t, h.Ready(h.Next))
			assert.Equal(t, i+1, h.Failures)
			now = h.Next
		}
		assert.Equal(t, errDown, h.Err)
		assert.True(t, h.Failing())
		h.Succeeded()
		assert.Equal(t, History{Begun: len(test.want), Failures: len(test.want)}, h, "the counts stay")
		assert.False(t, h.Failing())
		assert.True(t, h.Ready(now))
		h.Failed(now, errDown, test.serving, 0)
		assert.Equal(t, time.Second, h.Next.Sub(now), "they begin anew")
	}
}

func TestAPauseThatIsAskedForIsAMinuteAtMost(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{
		-time.Hour: time.Second, 0: time.Second, time.Second: time.Second, time.Second + 1: time.Second + 1,
		time.Minute: time.Minute, time.Minute + 1: time.Minute, time.Hour: time.Minute,
	} {
		var h History
		now := time.Now()
		h.Failed(now, errDown, 0, asked)
		assert.Equal(t, want, h.Next.Sub(now), asked)
	}
}

func TestAFailureWasLatelyForLessThanAMinute(t *testing.T) {
	now := time.Now()
	for name, later := range map[string]func(time.Duration) time.Time{
		"both":                        func(d time.Duration) time.Time { return clocks.Later(now, d, d) },
		"a machine was suspended":     func(d time.Duration) time.Time { return clocks.Later(now, d, 0) },
		"the wall clock was set back": func(d time.Duration) time.Time { return clocks.Later(now, -time.Hour, d) },
	} {
		var h History
		assert.True(t, h.Ready(now), name)
		assert.False(t, h.Failing(), name)
		assert.False(t, h.FailedLately(now), name)
		h.Failed(now, errDown, time.Hour, 0)
		assert.True(t, h.FailedLately(now), name)
		assert.True(t, h.FailedLately(later(time.Minute-1)), name)
		assert.False(t, h.FailedLately(later(time.Minute)), name)
		assert.False(t, h.Ready(later(time.Second-1)), name)
		assert.True(t, h.Ready(later(time.Second)), name)
		h.Succeeded()
		assert.False(t, h.FailedLately(now), name)
	}
}
