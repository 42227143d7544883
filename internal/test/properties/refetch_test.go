package properties

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/m2mauth/m2mauth/internal/refetch"
	"github.com/m2mauth/m2mauth/internal/test/clocks"
)

// moment is what both clocks say, since the sequence began.
type moment struct{ wall, monotonic time.Duration }

func (m moment) plus(d time.Duration) moment { return moment{m.wall + d, m.monotonic + d} }
func (m moment) minus(o moment) moment       { return moment{m.wall - o.wall, m.monotonic - o.monotonic} }

// most is what the clock says that says more.
func (m moment) most() time.Duration { return max(m.wall, m.monotonic) }

// bucket is the model of the pause for all sources: a bucket of two, which fills as time
// passes by either clock.
type bucket struct {
	used    bool
	last    moment // the last refetch that brought nothing
	content moment // after that one; six seconds are one refetch
}

const oneRefetch, twoRefetches = 6 * time.Second, 12 * time.Second

// at is what is in the bucket.
func (b *bucket) at(now moment) moment {
	gone := now.minus(b.last)
	content := moment{b.content.wall + gone.wall, b.content.monotonic + gone.monotonic}
	if !b.used || content.most() >= twoRefetches {
		return moment{twoRefetches, twoRefetches}
	}
	return content
}

func (b *bucket) miss(now moment) {
	b.content = b.at(now).plus(-oneRefetch)
	b.used, b.last = true, now
}

// pause is how long no refetch may start.
func (b *bucket) pause(now moment) time.Duration {
	if !b.used {
		return 0
	}
	return max(0, oneRefetch-b.at(now).most(), 2*time.Second-now.minus(b.last).most())
}

// refetchMachine is a caller of refetch.Limits, and the model of what it must say: a log
// of all that happened, which is searched anew for each answer.
type refetchMachine struct {
	limits  refetch.Limits
	begin   time.Time
	now     moment
	fetched moment // the current set
	current map[string]bool

	bucket    bucket
	asked     map[string]moment // sources whose ID was not found, with the last time
	absent    map[string]bool
	withdrawn map[string]bool
}

var (
	refetchKIDs    = []string{"a", "b", "c", "d", "made up", "made up too", ""}
	refetchSources = []string{"one", "two", "three", ""}
)

func newRefetchMachine() *refetchMachine {
	return &refetchMachine{
		begin: time.Now(), current: map[string]bool{"a": true},
		asked: make(map[string]moment), absent: make(map[string]bool), withdrawn: make(map[string]bool),
	}
}

func (m *refetchMachine) time(at moment) time.Time {
	return clocks.Later(m.begin, at.wall, at.monotonic)
}

// pass lets both clocks go on.
func (m *refetchMachine) pass(rt *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{1, time.Second, 2*time.Second - 1, 6 * time.Second, 10 * time.Second, 30*time.Second - 1, time.Minute}).Draw(rt, "time")
	m.now = m.now.plus(d * time.Duration(rapid.IntRange(1, 3).Draw(rt, "times")))
}

// sleep is the machine's, which stops the monotonic clock.
func (m *refetchMachine) sleep(rt *rapid.T) {
	m.now.wall += time.Duration(rapid.IntRange(1, 100).Draw(rt, "asleep")) * time.Second
}

// setBack is somebody who sets the wall clock.
func (m *refetchMachine) setBack(rt *rapid.T) {
	m.now.wall -= time.Duration(rapid.IntRange(1, 100).Draw(rt, "back")) * time.Second
}

// fetch brings a set, which a request, a refresh that was due, or both are for.
func (m *refetchMachine) fetch(rt *rapid.T) {
	var wanted refetch.Wanted
	cause, source := "", rapid.SampledFrom(refetchSources).Draw(rt, "source")
	caused := rapid.Bool().Draw(rt, "caused by a request")
	if caused {
		cause = rapid.SampledFrom(refetchKIDs).Draw(rt, "cause")
		wanted.Cause(cause, source)
	}
	joined := rapid.SliceOfN(rapid.SampledFrom(refetchKIDs), 0, 3).Draw(rt, "joined")
	for _, kid := range joined {
		wanted.Join(kid)
	}
	set := make(map[string]bool)
	for _, kid := range rapid.SliceOfNDistinct(rapid.SampledFrom(refetchKIDs[:4]), 0, 4, rapid.ID).Draw(rt, "set") {
		set[kid] = true
	}
	m.limits.Replaced(maps.Keys(m.current))
	m.limits.Fetched(&wanted, m.time(m.now), func(kid string) bool { return set[kid] })

	maps.Copy(m.withdrawn, m.current)
	m.current, m.fetched = set, m.now
	if !caused {
		return
	}
	if !set[cause] {
		m.absent[cause] = true
		maps.DeleteFunc(m.asked, func(_ string, then moment) bool { return m.now.minus(then).most() >= 10*time.Second })
		m.asked[source] = m.now
	}
	if !slices.ContainsFunc(append(joined, cause), func(kid string) bool { return set[kid] }) {
		m.bucket.miss(m.now)
	}
}

// agree compares all that can be asked.
func (m *refetchMachine) agree(rt *rapid.T) {
	now := m.time(m.now)
	pause := m.bucket.pause(m.now)
	assert.Equal(rt, pause > 0, m.limits.Paused(now))
	for _, source := range refetchSources {
		want := pause
		if asked, ok := m.asked[source]; ok {
			want = max(want, 10*time.Second-m.now.minus(asked).most())
		}
		assert.Equal(rt, want, max(0, m.limits.Pause(source, now)), "source %q", source)
	}
	for _, kid := range refetchKIDs {
		want, old := refetch.Unknown, m.now.minus(m.fetched).most() >= 30*time.Second
		switch {
		case m.withdrawn[kid]:
			want = refetch.Withdrawn
			if old {
				want = refetch.Doubtful
			}
		case m.absent[kid] && !old:
			want = refetch.Absent
		}
		assert.Equal(rt, want, m.limits.State(kid, now, m.time(m.fetched)), "kid %q", kid)
	}
}

// However fetches, made-up key IDs and clocks follow each other, refetches are as few as
// the model says, and no longer apart.
func TestRefetchesAreLimitedAsInTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newRefetchMachine()
		rt.Repeat(map[string]func(*rapid.T){"pass": m.pass, "sleep": m.sleep, "set back": m.setBack, "fetch": m.fetch, "": m.agree})
	})
}
