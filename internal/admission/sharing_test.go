package admission

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// key stands for a token and its key.
type key [2]string

var theKey = key{"token", "key"}

// request starts a check in the bubble, and returns when it waits. By default, the
// check runs at once, or waits as long as any other.
func request(ctx context.Context, c *Controller[key], what key, source string, check Check) <-chan answer {
	check.Source = func() string { return source }
	if check.Deadline.IsZero() {
		check.Deadline = time.Now().Add(maxQueueTime)
	}
	if check.Known == nil {
		check.Known = func() bool { return false }
	}
	got := make(chan answer, 1)
	go func() {
		a := answer{}
		defer func() {
			a.panicked = recover()
			got <- a
		}()
		a.good, a.err = c.Do(ctx, what, check)
	}()
	synctest.Wait()
	return got
}

type answer struct {
	good     bool
	err      error
	panicked any
}

// lasts is a check that takes this long.
func lasts(d time.Duration, good bool) Check {
	return Check{Run: func() bool { time.Sleep(d); return good }}
}

func TestOneCheckServesAllWhoWaitForIt(t *testing.T) {
	t.Parallel()
	for name, good := range map[string]bool{"a good signature": true, "a wrong signature": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, runs := New[key](), 0
				check := Check{Run: func() bool {
					runs++
					time.Sleep(time.Second)
					return good
				}}
				var answers []<-chan answer
				for range 1000 {
					answers = append(answers, request(t.Context(), c, theKey, "a", check))
				}
				for _, got := range answers {
					assert.Equal(t, answer{good: good}, <-got)
				}
				assert.Equal(t, 1, runs)
				assert.Equal(t, Stats{Shared: 999, Free: halfOfCores()}, c.Stats())

				assert.NoError(t, (<-request(t.Context(), c, theKey, "a", check)).err)
				assert.Equal(t, 2, runs, "a result is for those who waited for it, and is not kept")
			})
		})
	}
}

func TestOnlyTheSameTokenAndKeyShareACheck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New[key]()
		c.gate.places = func() int { return 3 }
		begin := time.Now()
		good := request(t.Context(), c, theKey, "a", lasts(time.Second, true))
		otherToken := request(t.Context(), c, key{"tokem", "key"}, "a", lasts(time.Second, false))
		otherKey := request(t.Context(), c, key{"token", "kez"}, "a", lasts(time.Second, false))
		assert.Equal(t, 3, c.Stats().UnderWay)
		assert.True(t, (<-good).good)
		assert.False(t, (<-otherToken).good)
		assert.False(t, (<-otherKey).good)
		assert.Equal(t, time.Second, time.Since(begin))
	})
}

// A known check takes no place, and nobody calls its Source.
func TestAKnownCheckNeverQueues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New[key]()
		c.Hold()
		good, err := c.Do(t.Context(), theKey, Check{Known: func() bool { return true }})
		assert.True(t, good)
		assert.NoError(t, err)
		assert.Equal(t, Stats{}, c.Stats())

		first := request(t.Context(), c, theKey, "a", Check{Known: func() bool { time.Sleep(time.Second); return true }})
		shares := request(t.Context(), c, theKey, "b", Check{})
		assert.Equal(t, answer{good: true}, <-first)
		assert.Equal(t, answer{good: true}, <-shares)
	})
}

func TestOneWhoGivesUpFreesOnlyItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New[key]()
		ctx, cancel := context.WithCancel(t.Context())
		slow := lasts(time.Second, true)
		begin := time.Now()
		first := request(t.Context(), c, theKey, "a", slow)
		leaving := request(ctx, c, theKey, "a", slow)
		last := request(t.Context(), c, theKey, "a", slow)
		cancel()
		assert.Equal(t, answer{err: ErrGone}, <-leaving)
		assert.Zero(t, time.Since(begin))
		assert.True(t, (<-first).good)
		assert.True(t, (<-last).good)
		assert.Equal(t, time.Second, time.Since(begin))
		assert.Empty(t, c.underWay)
		assert.EqualValues(t, 1, c.Stats().Refused)
	})
}

// However the caller that runs the check ends without an answer, the next one runs it.
func TestACheckWithoutAnswerIsLeftToTheNext(t *testing.T) {
	t.Parallel()
	// fill takes all places for runs, and leaves so many waiters in the queue, one of
	// them from the first caller's source.
	fill := func(c *Controller[key], queued int) (undo func()) {
		queue := c.gate.queue
		c.gate.queue = newQueue(queued+1, queuedBytes)
		require.NoError(t, c.gate.queue.enter(newWaiter(nil), "a", 1))
		_, release := c.Hold()
		return func() {
			c.gate.queue = queue
			release()
		}
	}
	for name, test := range map[string]struct {
		places, queued int
		known          func(cancel func()) // what happens to the first before its run
		run            func()
		want           answer
	}{
		"its context ends":            {0, 10, func(cancel func()) { cancel() }, nil, answer{err: ErrGone}},
		"it panics":                   {1, 0, nil, func() { panic("broken") }, answer{panicked: "broken"}},
		"its goroutine ends":          {1, 0, nil, runtime.Goexit, answer{}},
		"its source is refused":       {0, 1, nil, nil, answer{err: ErrOverShare}},
		"and it had gone away before": {0, 1, func(cancel func()) { cancel() }, nil, answer{err: ErrOverShare}},
		"it waited too long":          {0, 10, nil, nil, answer{err: ErrWaitedTooLong}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := New[key]()
				c.gate.places = func() int { return 1 }
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				undo := func() {}
				first := request(ctx, c, theKey, "a", Check{
					Deadline: time.Now().Add(maxQueueTime * 3 / 8),
					Known: func() bool {
						time.Sleep(maxQueueTime / 4)
						if test.places == 0 {
							undo = fill(c, test.queued)
						}
						if test.known != nil {
							test.known(cancel)
						}
						return false
					},
					Run: func() bool { test.run(); return false },
				})
				var next []<-chan answer
				runs := 0
				for range 10 {
					next = append(next, request(t.Context(), c, theKey, "b", Check{
						Known: func() bool { time.Sleep(maxQueueTime / 4); return false },
						Run: func() bool {
							runs++
							time.Sleep(maxQueueTime / 4)
							return true
						},
					}))
				}
				assert.Equal(t, test.want, <-first)
				undo()
				for _, got := range next {
					assert.Equal(t, answer{good: true}, <-got)
				}
				assert.Equal(t, 1, runs)
				assert.Empty(t, c.underWay, "nobody is left to wait for")
				assert.Equal(t, 1, c.Stats().Free)
			})
		})
	}
}

// A refusal applies only to callers of the same source, which would wait in the same
// queue.
func TestARefusalIsSharedWithinItsSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New[key]()
		c.Hold()
		c.gate.queue = newQueue(2, queuedBytes)
		other := request(t.Context(), c, key{"other"}, "a", Check{})
		tries := 0
		check := Check{Known: func() bool {
			tries++
			time.Sleep(time.Second)
			return false
		}}
		var answers []<-chan answer
		for range 10 {
			answers = append(answers, request(t.Context(), c, theKey, "a", check))
		}
		for _, got := range answers {
			assert.Equal(t, answer{err: ErrOverShare}, <-got)
		}
		assert.Equal(t, 1, tries)
		assert.EqualValues(t, 9, c.shared)
		assert.EqualValues(t, 9, c.refused.Load(), "but for the one whom the gate counts")
		assert.EqualValues(t, 10, c.Stats().Refused)
		assert.Equal(t, answer{err: ErrWaitedTooLong}, <-other)
	})
}

// The caller would learn that it went away, and the others did not.
func TestARefusalOfOneWhoWentAwayIsNotShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New[key]()
		_, release := c.Hold()
		ctx, cancel := context.WithCancel(t.Context())
		first := request(ctx, c, theKey, "a", Check{})
		next := request(t.Context(), c, theKey, "a", lasts(0, true))
		cancel()
		assert.Equal(t, answer{err: ErrGone}, <-first)
		release()
		assert.Equal(t, answer{good: true}, <-next)
	})
}

// Whoever runs the check, nobody waits longer than the queue allows.
func TestOneWhoSharesACheckWaitsNoLongerThanItsOwnDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, begin := New[key](), time.Now()
		first := request(t.Context(), c, theKey, "a", lasts(time.Minute, true))
		second := <-request(t.Context(), c, theKey, "b", lasts(0, true))
		assert.Equal(t, answer{err: ErrWaitedTooLong}, second)
		assert.Equal(t, maxQueueTime, time.Since(begin))
		assert.EqualValues(t, 1, c.refused.Load())
		assert.True(t, (<-first).good)
	})
}

// Among those who share, too, a source with less displaces the newest of the source
// with the most, and each takes places by its bytes.
func TestThoseWhoShareHaveTheirSharesToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New[key]()
		c.sharers = newQueue(6, sharingBytes)
		first := request(t.Context(), c, theKey, "a", lasts(time.Second, true))
		share := func(source string, places int) <-chan answer {
			return request(t.Context(), c, theKey, source, Check{Bytes: places * sharingBytes})
		}
		longest := share("a", 3)
		assert.Equal(t, answer{err: ErrOverShare}, <-share("a", 1))
		others := []<-chan answer{first, share("b", 2), share("c", 1)}
		assert.Empty(t, longest)
		others = append(others, share("d", 1))
		require.Len(t, longest, 1)
		assert.Equal(t, answer{err: ErrOverShare}, <-longest)
		assert.Equal(t, Stats{Shared: 4, Refused: 2, Free: halfOfCores() - 1, UnderWay: 1, Sharing: 3}, c.Stats())
		for _, got := range others {
			assert.Equal(t, answer{good: true}, <-got)
		}
		assertNobodyWaits(t, c.sharers)
	})
}

type doneThatPanics struct{ context.Context }

func (doneThatPanics) Done() <-chan struct{} { panic("a context of the user's") }

func TestAPanickingContextKeepsNoPlaceAmongThoseWhoShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, end := New[key](), make(chan struct{})
		first := request(t.Context(), c, theKey, "a", Check{Run: func() bool { <-end; return true }})
		for range 100 {
			assert.NotNil(t, (<-request(doneThatPanics{t.Context()}, c, theKey, "a", Check{})).panicked)
		}
		assertNobodyWaits(t, c.sharers)
		close(end)
		assert.Equal(t, answer{good: true}, <-first)
	})
}

// For those who wait, Hold looks like other checks.
func TestHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New[key]()
		c.gate.places = func() int { return 3 }
		first := request(t.Context(), c, key{"first"}, "a", lasts(time.Second, true))
		places, release := c.Hold()
		assert.Equal(t, 2, places)
		assert.Zero(t, c.Stats().Free)
		last := request(t.Context(), c, key{"last"}, "b", lasts(0, true))
		assert.Equal(t, Stats{Waited: 1, Waiting: 1, Sources: 3, UnderWay: 2}, c.Stats())
		release()
		assert.Equal(t, answer{good: true}, <-last)
		release()
		<-first
		synctest.Wait()
		assert.Equal(t, Stats{Waited: 1, Free: 3}, c.Stats())
	})
}
