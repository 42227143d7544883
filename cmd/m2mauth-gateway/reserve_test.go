package main

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTheReserveIsForWhoSetsNothing(t *testing.T) {
	for _, test := range []struct {
		environ []string
		want    int
	}{
		{nil, reserveBytes},
		{[]string{"HOME=/", "GOGC=", "GOMEMLIMITS=1GiB"}, reserveBytes},
		{[]string{"GOGC=100"}, 0},
		{[]string{"GOGC=off", "HOME=/"}, 0},
		{[]string{"HOME=/", "GOMEMLIMIT=100MiB"}, 0},
	} {
		assert.Len(t, newReserve(test.environ), test.want, test.environ)
	}
}

// It counts as kept, so that as much garbage may be there before it is collected.
func TestTheReserveLetsGarbageBe(t *testing.T) {
	reserve := newReserve(nil)
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	assert.GreaterOrEqual(t, stats.NextGC, uint64(2*reserveBytes))
	runtime.KeepAlive(reserve)
}
