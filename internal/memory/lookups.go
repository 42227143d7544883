package memory

import (
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// lookups counts hits and misses. There are several times as many stripes as cores, and
// goroutines are spread over them, so cores that count at the same time seldom share
// one.
type lookups struct {
	stripes []stripe
	shift   int // leaves of a hash as many bits as there are stripes for
}

type stripe struct {
	hits, misses atomic.Uint64

	_ [112]byte // two cache lines, since processors fetch them in pairs
}

func newLookups() lookups {
	n := bits.Len(uint(max(64, 4*runtime.GOMAXPROCS(0)) - 1))
	return lookups{make([]stripe, 1<<n), 64 - n}
}

// own returns the stripe of the goroutine, by the address of its stack: no two
// goroutines share the 2 KiB that a stack has at the least. Nothing is read through the
// address, and a stack that moves only gets another stripe.
func (c *lookups) own() *stripe {
	var here byte
	const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio keeps neighbors apart
	return &c.stripes[uint64(uintptr(unsafe.Pointer(&here)))>>11*golden>>c.shift]
}

func (c *lookups) count(hit bool) {
	if s := c.own(); hit {
		s.hits.Add(1)
	} else {
		s.misses.Add(1)
	}
}

func (c *lookups) sum() (hits, misses uint64) {
	for i := range c.stripes {
		hits += c.stripes[i].hits.Load()
		misses += c.stripes[i].misses.Load()
	}
	return hits, misses
}
