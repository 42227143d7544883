package refetch

import (
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/clocks"
)

func nothing(string) bool { return false }

// only is a set that has these key IDs.
func only(kids ...string) func(string) bool {
	return func(kid string) bool { return slices.Contains(kids, kid) }
}

// wanted is what a fetch is for: the first key ID caused it.
func wanted(source string, kids ...string) *Wanted {
	w := new(Wanted)
	for i, kid := range kids {
		if i == 0 {
			w.Cause(kid, source)
		} else {
			w.Join(kid)
		}
	}
	return w
}

// The bucket, in seconds.
func TestRefetchesThatFindNothingComeOutOfABucketOfTwo(t *testing.T) {
	var l Limits
	begin := time.Now()
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	next := func(now time.Time) int { return int((now.Sub(begin) + l.Pause("another", now)) / time.Second) }
	for _, test := range []struct{ at, next int }{
		{0, 2}, {2, 6}, {6, 12}, {12, 18},
		{30, 32}, // the bucket is full again
		{32, 36},
		{50, 52}, {54, 56}, {57, 62},
		{67, 69}, // it was full but for a second
		{69, 74},
	} {
		l.Fetched(wanted("", "made up"), at(test.at), nothing)
		assert.Equal(t, test.next, next(at(test.at)), test.at)
	}
	l.Fetched(wanted("", "made up", "wanted"), at(120), only("wanted"))
	l.Fetched(new(Wanted), at(120), nothing)
	joined := new(Wanted)
	joined.Join("made up")
	l.Fetched(joined, at(120), nothing)
	assert.Equal(t, 74, next(at(70)), "one that brings a wanted key costs nothing, nor does one that nobody wanted, or that was due anyway")
}

func TestAPauseIsForAllAndALongerOneForTheSource(t *testing.T) {
	var l Limits
	now := time.Now()
	assert.False(t, l.Paused(now))
	assert.LessOrEqual(t, l.Pause("a", now), time.Duration(0))
	l.Fetched(wanted("a", "made up"), now, nothing)
	for _, test := range []struct {
		after, a, b time.Duration
		paused      bool
	}{
		{0, 10 * time.Second, 2 * time.Second, true},
		{2*time.Second - 1, 8*time.Second + 1, 1, true},
		{2 * time.Second, 8 * time.Second, 0, false},
		{10*time.Second - 1, 1, -8*time.Second + 1, false},
		{10 * time.Second, 0, -8 * time.Second, false},
	} {
		then := now.Add(test.after)
		assert.Equal(t, test.paused, l.Paused(then), test.after)
		assert.Equal(t, test.a, l.Pause("a", then), test.after)
		assert.Equal(t, test.b, l.Pause("b", then), test.after)
	}
	l.Fetched(wanted("b", "made up"), now, nothing)
	assert.Equal(t, 10*time.Second, l.Pause("b", now))
	assert.Equal(t, 6*time.Second, l.Pause("c", now), "the bucket is empty")
}

func TestARefetchThatBringsAJoinedKeyMarksTheSourceOfTheOtherAlone(t *testing.T) {
	var l Limits
	now := time.Now()
	l.Fetched(wanted("a", "made up", "new"), now, only("new"))
	assert.False(t, l.Paused(now))
	assert.Equal(t, 10*time.Second, l.Pause("a", now))
	assert.LessOrEqual(t, l.Pause("b", now), time.Duration(0))
	assert.Equal(t, Absent, l.State("made up", now, now))

	l = Limits{}
	l.Fetched(wanted("a", "new", "made up"), now, only("new"))
	assert.LessOrEqual(t, l.Pause("a", now), time.Duration(0), "it asked for a key that was there")
	assert.Equal(t, Unknown, l.State("made up", now, now), "it may be newer than the fetch")
	assert.Equal(t, Unknown, l.State("new", now, now), "it was there")
}

func TestStatesOfAKeyID(t *testing.T) {
	var l Limits
	fetched := time.Now()
	assert.Equal(t, Unknown, l.State("absent", fetched, fetched))
	l.Fetched(wanted("a", "absent", "joined"), fetched, nothing)
	l.Replaced(slices.Values([]string{"withdrawn"}))
	for _, test := range []struct {
		after time.Duration
		want  map[string]State
	}{
		{0, map[string]State{"absent": Absent, "withdrawn": Withdrawn, "joined": Unknown, "new": Unknown}},
		{30*time.Second - 1, map[string]State{"absent": Absent, "withdrawn": Withdrawn, "joined": Unknown, "new": Unknown}},
		{30 * time.Second, map[string]State{"absent": Unknown, "withdrawn": Doubtful, "joined": Unknown, "new": Unknown}},
		{time.Hour, map[string]State{"absent": Unknown, "withdrawn": Doubtful, "joined": Unknown, "new": Unknown}},
	} {
		for kid, want := range test.want {
			assert.Equal(t, want, l.State(kid, fetched.Add(test.after), fetched), "%s after %v", kid, test.after)
		}
	}
	later := fetched.Add(time.Hour)
	assert.Equal(t, Absent, l.State("absent", later, later), "the new set confirms it")
	l.Replaced(slices.Values([]string{"absent"}))
	assert.Equal(t, Withdrawn, l.State("absent", later, later), "it was published after all")
}

func TestAThousandAndTwentyFourKeyIDsOfAKindAreKept(t *testing.T) {
	const most = 1024
	var l Limits
	now := time.Now()
	kept := func(kid string) State { return l.State(kid, now, now) }
	for i := range most {
		l.Fetched(wanted("", "absent "+strconv.Itoa(i)), now, nothing)
		l.Replaced(slices.Values([]string{"withdrawn " + strconv.Itoa(i)}))
	}
	for i := range most {
		require.Equal(t, Absent, kept("absent "+strconv.Itoa(i)))
		require.Equal(t, Withdrawn, kept("withdrawn "+strconv.Itoa(i)))
	}
	l.Fetched(wanted("", "absent one more"), now, nothing)
	assert.Equal(t, map[string]bool{"absent one more": true}, l.absent)
	l.Replaced(slices.Values([]string{"withdrawn one more"}))
	assert.Equal(t, map[string]bool{"withdrawn one more": true}, l.withdrawn)

	w := wanted("", "cause")
	for i := range 2 * most {
		w.Join(strconv.Itoa(i))
	}
	assert.Len(t, w.kids, most)
}

func TestTheOneThatCausedAFetchMayJoinItToo(t *testing.T) {
	var l Limits
	now := time.Now()
	l.Fetched(wanted("a", "made up", "made up", "other"), now, nothing)
	assert.True(t, l.Paused(now))
	assert.Equal(t, Absent, l.State("made up", now, now))
}

func TestSourcesOfAbsentKeyIDsAreForgotten(t *testing.T) {
	var l Limits
	begin := time.Now()
	for i := range 100 {
		l.Fetched(wanted(strconv.Itoa(i), "made up"), begin.Add(time.Duration(i)*6*time.Second), nothing)
		assert.LessOrEqual(t, len(l.sources), 2)
	}
	assert.Equal(t, []string{"98", "99"}, slices.Sorted(maps.Keys(l.sources)))
}

// No pause is longer by one of the clocks, and no set younger.
func TestWhatIsOverByEitherClockIsOver(t *testing.T) {
	now := time.Now()
	for name, later := range map[string]func(time.Duration) time.Time{
		"both":                        func(d time.Duration) time.Time { return clocks.Later(now, d, d) },
		"a machine was suspended":     func(d time.Duration) time.Time { return clocks.Later(now, d, 0) },
		"the wall clock was set back": func(d time.Duration) time.Time { return clocks.Later(now, -time.Hour, d) },
	} {
		t.Run(name, func(t *testing.T) {
			var l Limits
			l.Fetched(wanted("a", "absent"), now, nothing)
			l.Replaced(slices.Values([]string{"withdrawn"}))
			assert.True(t, l.Paused(later(2*time.Second-1)))
			assert.False(t, l.Paused(later(2*time.Second)))
			assert.EqualValues(t, 1, l.Pause("b", later(2*time.Second-1)))
			assert.EqualValues(t, 0, l.Pause("b", later(2*time.Second)))
			assert.EqualValues(t, 1, l.Pause("a", later(10*time.Second-1)))
			assert.EqualValues(t, 0, l.Pause("a", later(10*time.Second)))
			assert.Equal(t, Absent, l.State("absent", later(30*time.Second-1), now))
			assert.Equal(t, Unknown, l.State("absent", later(30*time.Second), now))
			assert.Equal(t, Withdrawn, l.State("withdrawn", later(30*time.Second-1), now))
			assert.Equal(t, Doubtful, l.State("withdrawn", later(30*time.Second), now))

			l.Fetched(wanted("b", "absent"), later(10*time.Second), nothing)
			assert.NotContains(t, l.sources, "a")
			assert.Equal(t, 2*time.Second, l.Pause("c", later(10*time.Second)), "the bucket was full")

			l.Fetched(wanted("b", "absent"), later(15*time.Second), nothing)
			assert.Equal(t, 2*time.Second, l.Pause("c", later(15*time.Second)), "the bucket has one again before that")
		})
	}
}

// A machine that sleeps fills the bucket by its wall clock alone.
func TestRefetchesAreTwoSecondsApartAfterASleepToo(t *testing.T) {
	var l Limits
	now := time.Now()
	l.Fetched(wanted("a", "absent"), now, nothing)
	now = clocks.Later(now, 5*time.Second, 3*time.Second)
	l.Fetched(wanted("b", "absent"), now, nothing)
	assert.Equal(t, 2*time.Second, l.Pause("c", now))
	assert.True(t, l.Paused(now.Add(2*time.Second-1)))
}
