package m2mauth

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// Whatever reasons there are, what is kept of them is bounded, and those over the
// bound are still counted.
func TestTheReasonsThatAreCountedAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &refusalLog{counts: make(map[refusalKey]*refusalCount)}
		forbidden := ErrForbidden
		for n := range 10 * maxRefusalKeys {
			level, _, _ := l.count(refusalKey{forbidden, fmt.Sprint(n)})
			if n <= maxRefusalKeys {
				assert.Equal(t, slog.LevelWarn, level)
			}
		}
		assert.Len(t, l.counts, maxRefusalKeys+1)
		level, number, _ := l.count(refusalKey{forbidden, "one more"})
		assert.Equal(t, slog.LevelDebug, level)
		assert.Equal(t, 9*maxRefusalKeys+1, number)
		level, _, _ = l.count(refusalKey{ErrScope, "of another kind"})
		assert.Equal(t, slog.LevelWarn, level)
		time.Sleep(time.Minute)
		level, _, _ = l.count(refusalKey{forbidden, "one more"})
		assert.Equal(t, slog.LevelWarn, level)
	})
}
