package revocation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/m2mauth/m2mauth/internal/clock"
)

const (
	callTimeout  = 5 * time.Second
	watchTimeout = time.Second
	retryAfter   = time.Second // fixed: a change must show within 2 s once the store is back
	roundPause   = 20 * time.Millisecond
	awayAfter    = callTimeout + watchTimeout + time.Second // without contact
	rereadAfter  = time.Minute                              // with a record that cannot be read
	repairAfter  = time.Second                              // at random: one replica is enough
	repairAgain  = 10 * time.Second
	repairBatch  = 500
)

var (
	errNotFollowed = errors.New("List.Run has not been called")
	errStopped     = errors.New("List.Run has ended")
	errNoContact   = errors.New("the store does not answer")
	errNoGenesis   = errors.New("the store was never set up, or has lost everything: see Init")
	errTwoEntries  = errors.New("two entries have the same id")
)

// doubt is why the list may not be up to date.
type doubt struct {
	read    bool      // all was read once
	contact time.Time // when the list was last up to date
	why     error
}

// verdict returns an error if the list must not answer.
func (d *doubt) verdict(o *Options, now time.Time) error {
	if !d.read {
		return fmt.Errorf("revocation: the store has not been read yet: %w", d.why)
	}
	if !o.InsecureFailOpen && clock.Age(now, d.contact) > o.StaleFor {
		return fmt.Errorf("revocation: the list has not been up to date for more than %v: %w", o.StaleFor, d.why)
	}
	return nil
}

// Ready returns nil if the list has read all of the Store and serves. It is for a readiness
// probe. It fails before the Store was read once, when the Store has lost records, when a
// record cannot be read, and when Revoked fails because the Store has been away too long.
// Without a Store it returns nil.
func (l *List) Ready(context.Context) error {
	if err := l.serves(time.Now()); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unready
}

// Status reports on a list at one moment, for dashboards and alerts.
type Status struct {
	Entries     int       // in force
	Used        int       // of MaxEntries: entries, and those undone within the last days
	MaxEntries  int       // see Options.MaxEntries
	Serves      bool      // Revoked answers; otherwise the guard answers 503
	Ready       bool      // Ready returns nil
	LastContact time.Time // when the list was last up to date; zero without a Store, or before it was read
}

// Status reports on the list. It does not wait for the Store.
func (l *List) Status() Status {
	now := time.Now()
	serves := l.serves(now) == nil
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prune(now, false)
	return Status{
		Entries:     len(l.entries),
		Used:        len(l.entries) + len(l.undone) + l.reserved,
		MaxEntries:  l.options.MaxEntries,
		Serves:      serves,
		Ready:       serves && l.unready == nil,
		LastContact: l.contact,
	}
}

// serves returns an error if the list must not answer.
func (l *List) serves(now time.Time) error {
	if d := l.doubt.Load(); d != nil {
		return d.verdict(&l.options, now)
	}
	return nil
}

// Run follows the Store until ctx ends, and then returns nil. It survives every failure of
// the Store: the list answers from what it has for Options.StaleFor, and catches up within
// two seconds once the Store is back. Run returns an error at once if it is running
// already. Without a Store it only waits.
//
// If the Store has lost records, a replica that may append to it writes back what the list
// holds. One that may not logs an error.
func (l *List) Run(ctx context.Context) error {
	if !l.running.CompareAndSwap(false, true) {
		return errors.New("revocation: Run is running already")
	}
	defer l.running.Store(false)
	if l.options.Store == nil {
		<-ctx.Done()
		return nil
	}
	var watching sync.WaitGroup
	watching.Go(func() { l.oversee(ctx) })
	defer func() {
		watching.Wait()
		l.lose(errStopped)
	}()
	f := follower{list: l}
	f.restart()
	for ctx.Err() == nil {
		wait := roundPause // bounds what a burst of records costs
		if err := f.round(ctx); err != nil && ctx.Err() == nil {
			l.lose(err)
			wait = retryAfter
		}
		pause(ctx, wait)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// lose notes that the list may not be up to date from now on.
func (l *List) lose(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doubt.Store(&doubt{read: l.read, contact: l.contact, why: why})
}

// oversee looks each second, by either clock, whether there is contact, and says once a
// minute what is wrong.
func (l *List) oversee(ctx context.Context) {
	var said time.Time
	for {
		pause(ctx, time.Second)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		l.mu.Lock()
		l.prune(now, false)
		if l.read && l.doubt.Load() == nil && clock.Age(now, l.contact) > awayAfter {
			l.doubt.Store(&doubt{read: true, contact: l.contact, why: errNoContact})
		}
		d, trouble := l.doubt.Load(), l.unready
		l.mu.Unlock()
		serves := true
		if d != nil {
			trouble = errors.Join(trouble, d.why)
			serves = d.verdict(&l.options, now) == nil
		}
		switch {
		case trouble != nil && (said.IsZero() || clock.Age(now, said) >= time.Minute):
			said = now
			attrs := []slog.Attr{slog.Bool("serves", serves), slog.Any("error", trouble)}
			if d != nil && d.read {
				attrs = append(attrs, slog.Time("since", d.contact))
			}
			l.options.Logger.LogAttrs(ctx, slog.LevelError, "revocation: the list is not up to date", attrs...)
		case trouble == nil && !said.IsZero():
			said = time.Time{}
			l.options.Logger.InfoContext(ctx, "revocation: the list is up to date again")
		}
	}
}

// follower is one Run's way through the Store.
type follower struct {
	list *List
	reading
	epoch int
	acks  int // of the list when the round began
	begun time.Time
	whole bool // the end of the log was reached; from then on, pages are taken one by one
	lost  bool // the Store lacks something that the list holds
	fold  fold

	repairAt time.Time
}

// fold is what was read but not yet taken into the list. What is read from the beginning is
// taken at once, so that no entry that was undone long ago is in force meanwhile.
type fold struct {
	entries map[string]*held
	undone  map[string]undo
}

// restart begins to read from the beginning. What the list holds stays.
func (f *follower) restart() {
	l := f.list
	l.mu.Lock()
	l.epoch++
	*f = follower{list: l, reading: reading{store: l.options.Store}, epoch: l.epoch, begun: time.Now(), repairAt: f.repairAt}
	l.mu.Unlock()
	f.fold = fold{make(map[string]*held), make(map[string]undo)}
}

// round reads what is new, repairs the Store if it must, and waits for more.
func (f *follower) round(ctx context.Context) error {
	if f.damage != nil && clock.Age(time.Now(), f.begun) >= rereadAfter {
		f.restart()
	}
	f.list.mu.Lock()
	f.acks = f.list.acks
	f.list.mu.Unlock()
	for done := false; !done; {
		var err error
		if done, err = f.page(ctx, f.take); err != nil {
			if !errors.Is(err, ErrGap) {
				return err
			}
			again := !f.whole
			f.restart()
			if again { // take a rest
				return err
			}
		}
		if done || f.whole {
			f.apply(time.Now())
		}
	}
	first := !f.whole
	f.whole = true
	missing := f.settle(time.Now(), first)
	if len(missing) > 0 && passed(time.Now(), f.repairAt) {
		f.repair(ctx, missing)
	}
	watch, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	if err := f.store.Watch(watch, f.position); err != nil && watch.Err() == nil {
		return err
	}
	return nil
}

// take adds a record to the fold.
func (f *follower) take(r record) error {
	if len(f.fold.entries)+len(f.fold.undone) >= 4*f.list.options.MaxEntries { // with those that an undo follows
		return ErrFull
	}
	if r.Undo != nil {
		f.fold.undone[r.Undo.ID] = *r.Undo
		return nil
	}
	now := time.Now()
	h := f.list.hold(*r.Entry, now)
	if h.over(now) { // a log has many of these after a while
		return nil
	}
	if known := f.fold.entries[h.ID]; known != nil && !known.revokesSame(h) {
		return errTwoEntries
	}
	f.fold.entries[h.ID] = h
	return nil
}

// apply takes the fold into the list. Undone is undone, in whatever order the two come.
func (f *follower) apply(now time.Time) {
	l := f.list
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, u := range f.fold.undone {
		delete(l.unread, "-"+id)
		switch e := l.undone[id]; {
		case e != nil:
			e.epoch = f.epoch
		case len(l.undone) >= 4*l.options.MaxEntries:
			f.damage = errors.Join(f.damage, ErrFull)
		default:
			l.remove(u, cmp.Or(l.entries[id], f.fold.entries[id]), now, f.epoch)
		}
	}
	l.prune(now, !f.whole) // an old log has many that ended long ago
	for id, h := range f.fold.entries {
		h.epoch = f.epoch
		delete(l.unread, id)
		_, undone := f.fold.undone[id]
		switch known := l.entries[id]; {
		case undone, l.undone[id] != nil:
		case known != nil && known.revokesSame(h):
			known.epoch = f.epoch
		case known != nil:
			f.damage = errors.Join(f.damage, errTwoEntries)
		case len(l.entries)+len(l.undone) >= 2*l.options.MaxEntries: // those who add count to MaxEntries, each on its own
			f.damage = errors.Join(f.damage, ErrFull)
		default:
			l.add(h)
		}
	}
	clear(f.fold.entries)
	clear(f.fold.undone)
}

// settle judges the list once the end of the log was read. It returns records that the
// Store lacks.
func (f *follower) settle(now time.Time, first bool) (missing [][]byte) {
	l := f.list
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.damage != nil {
		l.unready = fmt.Errorf("revocation: the store has a record that the list cannot take: %w", f.damage)
		l.doubt.Store(&doubt{read: l.read, contact: l.contact, why: f.damage})
		return nil
	}
	if l.genesis.olderThan(f.genesis) {
		l.genesis = f.genesis
	}
	if l.genesis == (genesis{}) {
		f.lost = true // perhaps: the list may hold an entry of its own
		l.doubt.Store(&doubt{why: errNoGenesis})
		return nil
	}
	count := 0
	if first || f.lost || l.misses(f.acks) {
		missing, count = l.lacks(f.epoch, f.acks)
	}
	if count == 0 && f.genesis.olderThan(l.genesis) { // last: with it, a replica that starts takes the log for whole
		missing = append(missing, mustEncode(record{Genesis: &l.genesis}))
	}
	wasLost := f.lost
	if f.lost = len(missing) > 0; !f.lost {
		l.unready = nil
	} else {
		if !wasLost {
			f.repairAt = now.Add(rand.N(repairAfter))
		}
		l.unready = fmt.Errorf("revocation: the store has lost %d of the records that the list holds, or its genesis", count)
	}
	// What is held and what was read is all there is.
	l.read, l.contact = true, now
	l.doubt.Store(nil)
	return missing
}

// misses reports whether the Store took a record from this list and does not have it. The
// mutex is held.
func (l *List) misses(acks int) bool {
	for id, ack := range l.unread {
		undone, isUndo := strings.CutPrefix(id, "-")
		switch {
		case isUndo && l.undone[undone] == nil, !isUndo && l.entries[id] == nil:
			delete(l.unread, id) // it matters no more
		case ack <= acks:
			return true
		}
	}
	return false
}

// lacks returns some records of what the list holds and the log of this epoch does not
// have, and how many there are in all. What the Store took after these acks may come yet.
// The mutex is held.
func (l *List) lacks(epoch, acks int) (missing [][]byte, count int) {
	add := func(id string, r record) {
		if l.unread[id] > acks {
			return
		}
		if count++; len(missing) < repairBatch {
			missing = append(missing, mustEncode(r))
		}
	}
	for id, e := range l.undone { // a map's order differs, so replicas write different parts
		if e.epoch != epoch {
			add("-"+id, record{Undo: &e.undo})
		}
	}
	for id, h := range l.entries {
		if h.epoch != epoch {
			add(id, record{Entry: &h.Entry})
		}
	}
	return missing, count
}

// mustEncode encodes what was encoded before.
func mustEncode(r record) []byte {
	data, err := encode(r)
	if err != nil {
		panic(err)
	}
	return data
}

// repair writes back what the Store has lost.
func (f *follower) repair(ctx context.Context, missing [][]byte) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	f.repairAt = time.Now()
	if err := f.store.Append(ctx, missing...); err != nil {
		f.repairAt = f.repairAt.Add(repairAgain)
		f.list.options.Logger.ErrorContext(ctx, "revocation: the store has lost records, and they cannot be written back from here", slog.Any("error", err))
		return
	}
	f.list.options.Logger.WarnContext(ctx, "revocation: wrote back what the store had lost", slog.Int("records", len(missing)))
}
