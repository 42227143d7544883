package m2mauthtest

import (
	"crypto/fips140"
	"crypto/rand"
	"sync"
)

// In FIPS 140 mode, Go seeds a generator of its own from the jitter of the clock.
// In a bubble of testing/synctest the clock stands still, and the seeding panics. A
// generator that was seeded before does not help for sure: each that reads at the
// same time gets one of its own, and a garbage collection drops them. So what needs
// random bytes runs on a goroutine that belongs to no bubble.
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

// outsideBubbles runs f, which needs random bytes and must not panic.
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
