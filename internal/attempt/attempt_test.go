package attempt

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const timeout = 5 * time.Second

// start is an attempt whose result is stored nowhere.
func start(try func(context.Context) (int, error)) *Attempt {
	return Start(timeout, try, func(int, error) func() { return func() {} })
}

// wait waits for an attempt with a lock of its own.
func wait(ctx context.Context, a *Attempt) (ended bool, err error) {
	var mu sync.Mutex
	mu.Lock()
	defer mu.Unlock()
	return a.Wait(ctx, &mu)
}

func TestAnAttemptIsStoredBeforeThoseGoOnWhoWaitAndReportedAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("down")
		for _, want := range []struct {
			result int
			err    error
		}{{7, nil}, {0, down}} {
			stored, reported := make(chan struct{}), make(chan struct{})
			a := Start(timeout, func(context.Context) (int, error) {
				time.Sleep(time.Second)
				return want.result, want.err
			}, func(result int, err error) func() {
				assert.Equal(t, want.result, result)
				assert.Equal(t, want.err, err)
				time.Sleep(time.Second)
				close(stored)
				return func() {
					time.Sleep(time.Second)
					close(reported)
				}
			})
			begin := time.Now()
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					ended, err := wait(t.Context(), a)
					assert.True(t, ended)
					assert.Equal(t, want.err, err)
					<-stored
					assert.Equal(t, 2*time.Second, time.Since(begin))
				})
			}
			all.Wait()
			<-reported
			assert.Equal(t, 3*time.Second, time.Since(begin))
			ended, err := wait(t.Context(), a)
			assert.True(t, ended)
			assert.Equal(t, want.err, err)
		}
	})
}

// Others need the lock while one waits, and the one has it again when it goes on.
func TestWhoWaitsDoesNotHoldTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		a := start(func(context.Context) (int, error) { <-end; return 0, nil })
		var mu sync.Mutex
		mu.Lock()
		go func() {
			synctest.Wait()
			if assert.True(t, mu.TryLock()) {
				mu.Unlock()
			}
			close(end)
		}()
		ended, err := a.Wait(t.Context(), &mu)
		assert.True(t, ended)
		assert.NoError(t, err)
		assert.False(t, mu.TryLock())
	})
}

func TestTheEndOfAContextEndsTheWaitAndNotTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(func(ctx context.Context) (int, error) {
			time.Sleep(time.Second)
			return 0, ctx.Err()
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		wentAway := errors.New("the caller went away")
		cancel(wentAway)
		ended, err := wait(ctx, a)
		assert.False(t, ended)
		assert.Equal(t, wentAway, err)
		ended, err = wait(t.Context(), a)
		assert.True(t, ended)
		assert.NoError(t, err)
	})
}

type panickingContext struct{ context.Context }

func (panickingContext) Done() <-chan struct{} { panic("a user's mistake") }

func TestTheLockIsHeldAgainAfterAPanicInAContext(t *testing.T) {
	var mu sync.Mutex
	mu.Lock()
	assert.PanicsWithValue(t, "a user's mistake", func() { _, _ = new(Attempt).Wait(panickingContext{t.Context()}, &mu) })
	assert.False(t, mu.TryLock())
}

func TestAnAttemptEndsInTimeWhateverItDoes(t *testing.T) {
	for name, test := range map[string]struct {
		try  func(context.Context) (int, error)
		err  string // "" for success
		took time.Duration
	}{
		"it succeeds":    {func(context.Context) (int, error) { return 7, nil }, "", 0},
		"it fails":       {func(context.Context) (int, error) { return 0, errors.New("down") }, "down", 0},
		"it panics":      {func(context.Context) (int, error) { panic("a user's mistake") }, "the HTTPClient panicked: a user's mistake", 0},
		"it goes away":   {func(context.Context) (int, error) { runtime.Goexit(); return 0, nil }, "the HTTPClient ended the fetch", 0},
		"it is too slow": {func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() }, context.DeadlineExceeded.Error(), timeout},
		"it says what was too slow": {func(ctx context.Context) (int, error) {
			<-ctx.Done()
			time.Sleep(5 * time.Millisecond)
			return 0, errors.New("connecting took too long")
		}, "connecting took too long", timeout + 5*time.Millisecond},
		"it ends in the last moment": {func(ctx context.Context) (int, error) {
			<-ctx.Done()
			time.Sleep(5 * time.Millisecond)
			return 7, nil
		}, "", timeout + 5*time.Millisecond},
		"it does not end with its context": {func(ctx context.Context) (int, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			return 7, nil
		}, "the HTTPClient does not end with its request's context", timeout + 10*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, stored := time.Now(), make(chan int, 1)
				a := Start(timeout, test.try, func(result int, err error) func() {
					stored <- result
					return func() {}
				})
				ended, err := wait(t.Context(), a)
				assert.True(t, ended)
				assert.Equal(t, test.took, time.Since(begin))
				if test.err != "" {
					assert.EqualError(t, err, test.err)
					assert.Zero(t, <-stored)
				} else {
					assert.NoError(t, err)
					assert.Equal(t, 7, <-stored)
				}
				time.Sleep(timeout) // it is over
			})
		})
	}
}

// Who waits for nothing in particular leaves no timer and no context behind.
func TestTheContextOfAnAttemptEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var its context.Context
		a := start(func(ctx context.Context) (int, error) {
			its = ctx
			deadline, ok := ctx.Deadline()
			assert.True(t, ok)
			assert.Equal(t, timeout, time.Until(deadline))
			return 0, nil
		})
		_, err := wait(t.Context(), a)
		require.NoError(t, err)
		synctest.Wait()
		assert.Equal(t, context.Canceled, its.Err())
	})
}
