package revocation

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Store is a log of records that the replicas of an API share. What a record holds is the
// List's affair: a store keeps its bytes, at most 8 KiB each, and gives it a position. Its
// methods may be called concurrently, and return when ctx ends. They must not log records
// or put them into errors.
type Store interface {
	// Append adds records at the end of the log, in this order, and returns once the store
	// has them for good: they survive a restart of the store, and every Since that begins
	// later finds them. It gets at most 500 at a time. After an error any of them may have
	// been added.
	Append(ctx context.Context, records ...[]byte) error

	// Since reads the records after a position, in their order and without a gap: as many
	// as fit into one answer, at least one if there is one. "" is the position before the
	// first. If the store does not hold the record at that position (any more), the error
	// is [ErrGap]. An empty or missing log is no error: it has no record.
	Since(ctx context.Context, position string) (Page, error)

	// Watch returns nil as soon as there may be a record after the position, and when ctx
	// ends, which is its way to end if there is none: the list calls it with a second's
	// deadline, and reads Since whenever it returns. So a missed call costs a second.
	Watch(ctx context.Context, position string) error
}

// Page is what [Store.Since] read, all at one moment.
type Page struct {
	Records [][]byte
	Next    string // the position of the last of Records; without any, the position asked for
	Len     int    // how many records the log has in all, those before the position included
}

// ErrGap: the store does not hold the record that was read last. See [Store].
var ErrGap = errors.New("revocation: the store does not have the record that was read last")

// Init sets a store up. Call it once, by hand, when a new store is put to use, and never
// from a program that starts: a store that was lost and is set up again looks like one that
// nobody has revoked anything in. Replicas serve only with a store that was set up. If it
// was already, Init does nothing.
func Init(ctx context.Context, store Store) error {
	r := reading{store: store}
	for done := false; !done; {
		var err error
		if done, err = r.page(ctx, func(r record) error { return nil }); err != nil {
			return err
		}
		if r.damage != nil {
			return r.damage
		}
	}
	if r.genesis != (genesis{}) {
		return nil
	}
	data, err := encode(record{Genesis: &genesis{ID: newID(), At: time.Now().UTC().Round(0)}})
	if err != nil {
		return err
	}
	return store.Append(ctx, data)
}

// reading is a walk through a store's log from its beginning.
type reading struct {
	store    Store
	position string
	count    int     // records read
	genesis  genesis // the newest
	damage   error   // a record that cannot be read
}

// page reads a page and calls take for each entry and undo in it. It reports whether that
// was the end of the log. A record that cannot be read or taken is the reading's damage,
// and does not keep those after it back.
func (r *reading) page(ctx context.Context, take func(record) error) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	page, err := r.store.Since(ctx, r.position)
	if err != nil {
		return false, err
	}
	if len(page.Records) > 0 && page.Next == r.position { // the same records again, as if they were the rest
		return false, errors.New("the store's position does not move")
	}
	r.count += len(page.Records)
	if r.count > page.Len || len(page.Records) == 0 && r.count < page.Len {
		return false, fmt.Errorf("%w: it has %d records, of which %d were read", ErrGap, page.Len, r.count)
	}
	r.position = page.Next
	for _, data := range page.Records {
		rec, err := decode(data)
		if err == nil && rec.Genesis != nil {
			if r.genesis.olderThan(*rec.Genesis) {
				r.genesis = *rec.Genesis
			}
			continue
		}
		if err == nil {
			err = take(rec)
		}
		if err != nil && r.damage == nil {
			r.damage = fmt.Errorf("up to position %.100q: %w", r.position, err)
		}
	}
	return r.count == page.Len, nil
}
