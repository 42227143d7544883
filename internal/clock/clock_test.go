package clock

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/clocks"
)

func TestOldByEitherClockIsOld(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		wall, monotonic, age time.Duration
	}{
		"both":                        {time.Hour, time.Hour, time.Hour},
		"a machine was suspended":     {72 * time.Hour, 0, 72 * time.Hour},
		"the wall clock was set back": {-time.Hour, time.Minute, time.Minute},
		"the wall clock stands":       {0, time.Minute, time.Minute},
		"not yet, by neither":         {-time.Minute, -time.Hour, -time.Minute},
	} {
		then := clocks.Later(now, test.wall, test.monotonic)
		require.Equal(t, test.wall, then.Round(0).Sub(now.Round(0)), name)
		require.Equal(t, test.monotonic, then.Sub(now), name)
		assert.Equal(t, test.age, Age(then, now), name)
		assert.Equal(t, test.age >= 0, Reached(then, now), name)
	}
	assert.True(t, Reached(now, now))
	assert.True(t, Reached(now, time.Time{}))
}

func TestAMomentOnBothClocks(t *testing.T) {
	now := time.Now()
	both := OnBoth(now, now.Round(0).Add(time.Hour))
	assert.True(t, both.Equal(now.Add(time.Hour)))
	assert.True(t, Reached(clocks.Later(now, -time.Hour, time.Hour), both), "by the monotonic clock")
	assert.False(t, Reached(clocks.Later(now, -time.Hour, time.Hour-1), both))
	assert.True(t, Reached(clocks.Later(now, time.Hour, 0), both), "by the wall clock")
	assert.False(t, Reached(clocks.Later(now, time.Hour-1, 0), both))

	far := time.Unix(1<<40, 0)
	assert.True(t, far.Equal(OnBoth(now, far)), "what no clock of ours reaches")
}
