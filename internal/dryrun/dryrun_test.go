package dryrun

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/clocks"
)

// counter counts the changes that are told.
type counter struct{ begun, soon, ended atomic.Int32 }

func (c *counter) count(now State, _ time.Duration) {
	switch now {
	case LastThreeDays, LastTwoDays, LastDay:
		c.soon.Add(1)
	case Ended:
		c.ended.Add(1)
	default:
		c.begun.Add(1)
	}
}

// change is what is told of one.
type change struct {
	now  State
	left time.Duration
}

func TestEachStateIsToldOnceWithWhatIsLeft(t *testing.T) {
	t.Parallel()
	made := time.Now()
	for name, test := range map[string]struct {
		length time.Duration
		looks  []time.Duration // after it was made
		want   []change
	}{
		"a week": {7 * day, []time.Duration{0, 4*day - 1, 4 * day, 4*day + 1, 4*day + 1, 5 * day, 5*day + 1, 6 * day, 6*day + 1, 7*day - 1, 7 * day, 7*day + 1, 0}, []change{
			{UnderWay, 7 * day}, {LastThreeDays, 3*day - 1}, {LastTwoDays, 2*day - 1}, {LastDay, day - 1}, {Ended, 0},
		}},
		"nobody looked for days":       {7 * day, []time.Duration{6*day + day/2, day, 9 * day}, []change{{UnderWay, 7 * day}, {LastDay, day / 2}, {Ended, -2 * day}}},
		"a clock that was set back":    {7 * day, []time.Duration{5*day + 1, day, 4*day + 1, 5*day + 2}, []change{{UnderWay, 7 * day}, {LastTwoDays, 2*day - 1}}},
		"an hour":                      {time.Hour, []time.Duration{0, 0}, []change{{UnderWay, time.Hour}, {LastDay, time.Hour}}},
		"the end is the beginning":     {0, []time.Duration{0, -day}, []change{{Missed, 0}}},
		"the end was before":           {-day, []time.Duration{0, -2 * day}, []change{{Missed, -day}}},
		"the shortest there is":        {1, []time.Duration{0, 1}, []change{{UnderWay, 1}, {LastDay, 1}, {Ended, 0}}},
		"the end is further than ever": {200 * day, []time.Duration{90*day - 1, 90 * day}, []change{{UnderWay, 200 * day}, {Ended, 110 * day}}},
	} {
		var told []change
		d := New(made, made.Add(test.length), func(now State, left time.Duration) { told = append(told, change{now, left}) })
		ended := test.length <= 0
		for _, look := range test.looks {
			ended = ended || look >= min(test.length, 90*day)
			assert.Equal(t, !ended, d.UnderWay(made.Add(look)), "%s: after %v", name, look)
		}
		assert.Equal(t, test.want, told, name)
	}
}

// The model of a dry run: it is over when somebody looks at the end or after it, or 90
// days on, by either clock; and what is over stays so. Both clocks move at random: the
// wall clock goes on, jumps ahead and back; the monotonic one only goes on.
func TestNoClockBringsADryRunBack(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	within := func(most time.Duration) time.Duration { return time.Duration(random.Int64N(int64(most))) }
	ended, late := 0, 0
	for range 2000 {
		lines := new(counter)
		made := time.Now()
		length := within(Longest) + 1
		d := New(made, made.Add(length), lines.count)
		var wall, monotonic time.Duration // since made
		fewest, warned := 3, 0
		over := false
		for range 30 {
			switch step := within(10 * day); random.IntN(4) {
			case 0:
				wall += step
			case 1:
				wall -= step
			case 2: // a machine that sleeps
				wall, monotonic = wall+step, monotonic+step/4
			default:
				wall, monotonic = wall+step, monotonic+step
			}
			if random.IntN(3) == 0 {
				continue // nobody looks
			}
			over = over || wall >= length || monotonic >= Longest
			if over && wall < length {
				late++
			}
			if days := int((length - wall) / day); !over && days < fewest {
				fewest, warned = days, warned+1
			}
			require.Equal(t, !over, d.UnderWay(clocks.Later(made, wall, monotonic)), "%v of %v by the wall, %v by the monotonic clock", wall, length, monotonic)
		}
		assert.EqualValues(t, 1, lines.begun.Load())
		assert.EqualValues(t, warned, lines.soon.Load())
		assert.LessOrEqual(t, warned, 3)
		if over {
			ended++
		}
		assert.Equal(t, over, lines.ended.Load() == 1)
	}
	assert.Greater(t, ended, 500)
	assert.Greater(t, late, 100, "looks after the clock was set back behind the end")
}

func TestADryRunThatIsOverAtNewStaysSo(t *testing.T) {
	t.Parallel()
	lines := new(counter)
	made := time.Now()
	d := New(made, made.Add(-time.Hour), lines.count)
	assert.Zero(t, made.Add(-time.Hour).Compare(d.Until()))
	assert.False(t, d.UnderWay(clocks.Later(made, -2*time.Hour, 0)))
	assert.False(t, d.UnderWay(made))
	assert.EqualValues(t, 1, lines.begun.Load())
	assert.Zero(t, lines.ended.Load(), "New told it")
}

func TestADryRunEndsAfter90DaysWhateverTheWallClockSays(t *testing.T) {
	t.Parallel()
	made := time.Now()
	for name, wall := range map[string]time.Duration{"it stands": 0, "it was set back": -time.Hour, "it is slow": Longest / 2} {
		d := New(made, made.Add(Longest), func(State, time.Duration) {})
		assert.True(t, d.UnderWay(clocks.Later(made, wall, Longest-1)), name)
		assert.False(t, d.UnderWay(clocks.Later(made, wall, Longest)), name)
		assert.False(t, d.UnderWay(clocks.Later(made, wall, 0)), name)
	}
}

func TestADryRunEndsOnceForAllWhoLook(t *testing.T) {
	t.Parallel()
	lines := new(counter)
	made := time.Now()
	d := New(made, made.Add(time.Hour), lines.count)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 1000 {
				d.UnderWay(clocks.Later(made, time.Duration(n)*time.Minute, 0))
				if n >= 60 { // it has seen the end
					assert.False(t, d.UnderWay(clocks.Later(made, -time.Duration(i)*time.Hour, 0)))
				}
			}
		})
	}
	all.Wait()
	assert.EqualValues(t, 1, lines.soon.Load())
	assert.EqualValues(t, 1, lines.ended.Load())
}
