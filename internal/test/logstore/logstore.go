// Package logstore is a revocation.Store in memory that can fail in every way that a
// server can. For tests alone.
package logstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/m2mauth/m2mauth/revocation"
)

// Errors of a Handle that is down, and of one that may not append.
var (
	ErrDown     = errors.New("logstore: down")
	ErrReadOnly = errors.New("logstore: may not append")
)

// Log is what the store holds. The zero Log is empty.
type Log struct {
	mu      sync.Mutex // guards the fields below
	records []record
	last    int
	changed chan struct{}
}

type record struct {
	id   int
	data []byte
}

// Append adds records as a foreign program would.
func (l *Log) Append(records ...[]byte) {
	l.change(func(all []record) []record {
		for _, data := range records {
			l.last++
			all = append(all, record{l.last, slices.Clone(data)})
		}
		return all
	})
}

// Records returns a copy of what the log holds.
func (l *Log) Records() (all [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		all = append(all, slices.Clone(r.data))
	}
	return all
}

// Keep drops all records but those from one index to before another, as a flush, a restored
// backup, or somebody who trims the log does. A negative index counts from the end.
func (l *Log) Keep(from, to int) {
	l.change(func(all []record) []record {
		if from < 0 {
			from += len(all)
		}
		if to < 0 {
			to += len(all)
		}
		return slices.Clone(all[from:to])
	})
}

func (l *Log) change(f func([]record) []record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = f(l.records)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Handle is one replica's connection to a Log.
type Handle struct {
	Log *Log

	mu       sync.Mutex // guards the fields below
	fault    Fault
	pageSize int
}

// Fault is how a Handle fails.
type Fault int

const (
	None     Fault = iota
	Down           // every call fails
	Hangs          // every call takes until its ctx ends
	ReadOnly       // Append fails
	Deaf           // Append adds the records, and fails
	Sleepy         // Watch does not see new records
)

// Connect returns a Handle. A pageSize of 0 is 100 records.
func (l *Log) Connect(pageSize int) *Handle {
	if pageSize == 0 {
		pageSize = 100
	}
	return &Handle{Log: l, pageSize: pageSize}
}

// Set sets the fault from now on.
func (h *Handle) Set(f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = f
}

func (h *Handle) enter(ctx context.Context) (Fault, error) {
	h.mu.Lock()
	fault := h.fault
	h.mu.Unlock()
	switch fault {
	case Down:
		return fault, ErrDown
	case Hangs:
		<-ctx.Done()
	}
	return fault, ctx.Err()
}

// Append implements [revocation.Store].
func (h *Handle) Append(ctx context.Context, records ...[]byte) error {
	if n := len(records); n == 0 || n > 500 {
		return fmt.Errorf("logstore: %d records at once", n)
	}
	switch fault, err := h.enter(ctx); {
	case err != nil:
		return err
	case fault == ReadOnly:
		return ErrReadOnly
	case fault == Deaf:
		h.Log.Append(records...)
		return ErrDown
	}
	h.Log.Append(records...)
	return nil
}

// Since implements [revocation.Store].
func (h *Handle) Since(ctx context.Context, position string) (revocation.Page, error) {
	if _, err := h.enter(ctx); err != nil {
		return revocation.Page{}, err
	}
	l := h.Log
	l.mu.Lock()
	defer l.mu.Unlock()
	from := 0
	if position != "" {
		from = 1 + slices.IndexFunc(l.records, func(r record) bool { return strconv.Itoa(r.id) == position })
		if from == 0 {
			return revocation.Page{}, revocation.ErrGap
		}
	}
	page := revocation.Page{Next: position, Len: len(l.records)}
	for _, r := range l.records[from:min(len(l.records), from+h.pageSize)] {
		page.Records = append(page.Records, slices.Clone(r.data))
		page.Next = strconv.Itoa(r.id)
	}
	return page, nil
}

// Watch implements [revocation.Store].
func (h *Handle) Watch(ctx context.Context, position string) error {
	fault, err := h.enter(ctx)
	if fault == Sleepy {
		<-ctx.Done()
		return nil
	}
	if err != nil {
		return err
	}
	l := h.Log
	l.mu.Lock()
	if n := len(l.records); n > 0 && strconv.Itoa(l.records[n-1].id) != position {
		l.mu.Unlock()
		return nil
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	changed := l.changed
	l.mu.Unlock()
	select {
	case <-changed:
	case <-ctx.Done():
	}
	return nil
}
