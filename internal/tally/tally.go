// Package tally decides which of many like events are worth a line in a log, so that no
// flood fills the log, and none hides behind a single event. It knows neither the events
// nor the log.
package tally

import (
	"sync"
	"time"

	"github.com/m2mauth/m2mauth/internal/clock"
)

// window is how long an event makes later ones of its key quiet.
const window = time.Minute

// maxKeys limits the memory. Keys over the limit are counted by their kind alone.
const maxKeys = 256

// Key is what events are counted by, so that one reason does not hide another.
type Key struct{ Kind, Reason string }

// Count is the place of an event among those of its key.
type Count struct {
	Loud   bool // the first of a window, or the 10th, the 100th and so on
	Number int  // since the first of the window, with it
	Before int  // for the first: how many of the window before were quiet
}

// Tally counts events by key. The zero Tally is ready for use, also concurrently.
type Tally struct {
	mu     sync.Mutex // guards the fields below
	counts map[Key]*count
	recent [32]*count // of counts, by slot
}

type count struct {
	key   Key
	since time.Time
	number,
	quiet int
}

// Add counts an event.
func (t *Tally) Add(key Key) Count {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.find(key)
	if clock.Age(now, c.since) >= window {
		before := c.quiet
		c.since, c.number, c.quiet = now, 1, 0
		return Count{Loud: true, Number: 1, Before: before}
	}
	if c.number++; isPowerOfTen(c.number) {
		return Count{Loud: true, Number: c.number}
	}
	c.quiet++
	return Count{Number: c.number}
}

// find looks at the count that was last in the key's slot first: a map reads the whole
// key, often a sentence, while texts of one constant are equal by their address.
func (t *Tally) find(key Key) *count {
	slot := &t.recent[(len(key.Kind)+len(key.Reason))%len(t.recent)]
	if c := *slot; c != nil && c.key == key {
		return c
	}
	c := t.counts[key]
	if c == nil && len(t.counts) >= maxKeys {
		key.Reason = ""
		c = t.counts[key]
	}
	if c == nil {
		if t.counts == nil {
			t.counts = make(map[Key]*count)
		}
		c = &count{key: key}
		t.counts[key] = c
	}
	*slot = c
	return c
}

// isPowerOfTen is for numbers above 0.
func isPowerOfTen(n int) bool {
	for n%10 == 0 {
		n /= 10
	}
	return n == 1
}

// Once tells which keys are new, of at most Max. It is ready for use, also concurrently.
type Once struct {
	Max int

	mu   sync.Mutex // guards the field below
	seen map[string]bool
}

// First reports whether the key is new. Over Max no key is.
func (o *Once) First(key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen[key] || len(o.seen) >= o.Max {
		return false
	}
	if o.seen == nil {
		o.seen = make(map[string]bool)
	}
	o.seen[key] = true
	return true
}
