package revocation

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/m2mauth/m2mauth/internal/clock"
	"github.com/m2mauth/m2mauth/internal/test/clocks"
)

// A list is old by either clock, and an entry is over by both: in doubt, a token does not
// pass.
func TestClocksThatDifferLetNoTokenPass(t *testing.T) {
	t.Parallel()
	now := time.Now()
	d := &doubt{read: true, contact: now, why: errors.New("away")}
	end := clock.OnBoth(now, now.Add(time.Hour).Round(0))
	for name, row := range map[string]struct {
		wall, monotonic time.Duration
		old, over       bool
	}{
		"an hour by both":              {time.Hour, time.Hour, false, true},
		"less by both":                 {time.Hour - 1, time.Hour - 1, false, false},
		"more by both":                 {time.Hour + 1, time.Hour + 1, true, true},
		"a machine that was suspended": {2 * time.Hour, 0, true, false},
		"a wall clock set back":        {-time.Hour, 2 * time.Hour, true, false},
		"a wall clock set ahead":       {1000 * time.Hour, time.Minute, true, false},
	} {
		then := clocks.Later(now, row.wall, row.monotonic)
		assert.Equal(t, row.old, d.verdict(&Options{StaleFor: time.Hour}, then) != nil, name)
		assert.Equal(t, row.over, (&held{end: end}).over(then), name)
	}
}
