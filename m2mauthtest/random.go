package m2mauthtest

import (
	"crypto/fips140"
	"crypto/rand"
	"sync"
)

// In FIPS 140 mode (GODEBUG=fips140=on or only), Go seeds its random generators from
// the jitter of the clock. In a bubble of testing/synctest the clock stands still, and
// seeding panics. A generator that was seeded earlier does not reliably help: each
// concurrent reader gets its own, and a garbage collection drops them. So everything
// that needs random bytes runs on one goroutine outside of every bubble, which lives
// as long as the process.
var apart struct {
	mu    sync.Mutex
	start chan func()
	done  chan struct{}
}

func init() {
	if !fips140.Enabled() {
		return
	}
	apart.start, apart.done = make(chan func()), make(chan struct{})
	go func() {
		for f := range apart.start {
			f()
			apart.done <- struct{}{}
		}
	}()
}

// outsideBubbles runs f, which may read random bytes and must not panic.
func outsideBubbles(f func()) {
	if apart.start == nil {
		f()
		return
	}
	apart.mu.Lock()
	defer apart.mu.Unlock()
	apart.start <- f
	<-apart.done
}

func randomText() (text string) {
	outsideBubbles(func() { text = rand.Text() })
	return text
}
