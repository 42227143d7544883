// Package revocation takes access tokens back before they expire: in every replica of an
// API within about a second, and for as long as it was asked for.
//
// A [List] holds [Entry] values in memory and answers [m2mauth.Config.Revoked]. With a
// [Store], such as the one of module revocation/redisstore, all replicas share one list:
// call [Init] once for the store, [List.Run] in each replica, and [List.Ready] in its probe.
//
// In doubt, no token passes. A list that was never read fails, and the guard answers 503. A
// store that has lost something makes no replica forget.
package revocation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/clock"
)

// Options configures a [List]. MaxTokenLifetime is required.
type Options struct {
	// MaxTokenLifetime is the longest lifetime (exp minus iat) of the tokens that the
	// issuers of the entries issue. It decides when an entry with Before ends. A token
	// that lives longer counts as issued before any Before. Set
	// [m2mauth.Config.MaxLifetime] to the same, so that the guard accepts none. Required,
	// from 1 second to 1 year.
	MaxTokenLifetime time.Duration

	// Leeway is how far the clocks of the issuers, of Logto's webhooks and of who revokes
	// may differ: tokens issued that long after an entry's Before are revoked too. Use the
	// guard's. Default: 30 s. Negative: none. At most 10 minutes.
	Leeway time.Duration

	// Issuers, if set, are the only issuers that Revoke accepts, so that an issuer with a
	// typing error is a mistake rather than an entry that blocks nothing. Default: any.
	Issuers []string

	// MaxEntries is how many entries the list holds, those undone within the last days
	// included. What does not fit is refused. Webhooks get three quarters of it, so that
	// people can always revoke. From 4 to 10,000,000. Default: 200,000.
	MaxEntries int

	// Store is shared by all replicas. Call [List.Run] to follow it. Default: none, and
	// the list is this process's alone and starts empty.
	Store Store

	// StaleFor is how long the list answers after the last contact with the Store. After
	// that Revoked fails, and the guard answers 503. Default: 1 hour. Negative: not at
	// all. At most 7 days.
	StaleFor time.Duration

	// InsecureFailOpen answers from the last list for as long as the Store is away.
	// Tokens that were revoked meanwhile then pass. A list that was never read still
	// fails.
	InsecureFailOpen bool

	// Logger logs entries, and what happens to the Store. Default: slog.Default().
	Logger *slog.Logger
}

const (
	defaultLeeway     = 30 * time.Second
	maxLeeway         = 10 * time.Minute
	maxTokenLifetime  = 366 * 24 * time.Hour
	defaultMaxEntries = 200_000
	minMaxEntries     = 4
	maxMaxEntries     = 10_000_000
	defaultStaleFor   = time.Hour
	maxStaleFor       = 7 * 24 * time.Hour

	// undoneFor is how long an undone entry is remembered, so that a replica that was away
	// does not bring it back: longer than a replica serves without the Store.
	undoneFor = maxStaleFor
)

// List holds what was revoked. Its methods may be called concurrently.
type List struct {
	options Options
	index   index
	doubt   atomic.Pointer[doubt] // nil while Revoked may answer without a look at the clock
	running atomic.Bool

	mu       sync.Mutex // guards the fields below, and changes of the index
	entries  map[string]*held
	undone   map[string]*ended
	webhooks int       // entries of webhooks, those undone included
	reserved int       // entries on their way to the Store
	pruned   time.Time // when ended entries were looked for last

	// What is known of the Store.
	genesis genesis
	epoch   int            // counts the readings from the beginning
	acks    int            // counts what the Store took from this list
	unread  map[string]int // of that, what was not yet read back: entries, and undos after a minus
	contact time.Time      // when the list was last known to be up to date
	read    bool           // all of it, once
	unready error          // why Ready fails, though the list may serve
}

// held is an entry in force.
type held struct {
	Entry
	before int64     // as in a node
	end    time.Time // by both clocks; zero: none
	epoch  int       // when it was last seen in the Store; 0: never
}

// ended is an entry that was undone.
type ended struct {
	undo
	end     time.Time // when it can be forgotten
	epoch   int
	webhook bool // it takes room as one
}

// New makes a List. It does no I/O and starts no goroutine. The error lists every mistake
// in the Options at once.
func New(options Options) (*List, error) {
	o := options
	var list []error
	check := func(name string, value *time.Duration, byDefault, most time.Duration) {
		switch d := *value; {
		case d == 0:
			*value = byDefault
		case d < 0:
			*value = 0
		case d > most:
			list = append(list, fmt.Errorf("revocation: Options.%s: %v is over %v", name, d, most))
		case d < time.Millisecond:
			list = append(list, fmt.Errorf("revocation: Options.%s: %v is too little: did you mean %d * time.Second?", name, d, int64(d)))
		}
	}
	check("Leeway", &o.Leeway, defaultLeeway, maxLeeway)
	check("StaleFor", &o.StaleFor, defaultStaleFor, maxStaleFor)
	if d := o.MaxTokenLifetime; d < time.Second || d > maxTokenLifetime {
		list = append(list, fmt.Errorf("revocation: Options.MaxTokenLifetime: %v is not from 1s to %v; set the longest lifetime that your issuer gives access tokens", d, maxTokenLifetime))
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = defaultMaxEntries
	}
	if o.MaxEntries < minMaxEntries || o.MaxEntries > maxMaxEntries {
		list = append(list, fmt.Errorf("revocation: Options.MaxEntries: %d is not from %d to %d", o.MaxEntries, minMaxEntries, maxMaxEntries))
	}
	if n := len(o.Issuers); n > maxIssuers {
		list = append(list, fmt.Errorf("revocation: Options.Issuers: %d are more than %d", n, maxIssuers))
	}
	o.Issuers = slices.Clone(o.Issuers)
	for i, issuer := range o.Issuers {
		if issuer == "" || slices.Contains(o.Issuers[:i], issuer) {
			list = append(list, errors.New("revocation: Options.Issuers: one is empty, or named twice"))
		}
	}
	if err := errors.Join(list...); err != nil {
		return nil, err
	}
	o.Logger = cmp.Or(o.Logger, slog.Default())
	l := &List{
		options: o, index: index{seed: maphash.MakeSeed()}, pruned: time.Now(),
		entries: make(map[string]*held), undone: make(map[string]*ended), unread: make(map[string]int),
	}
	l.index.build(nil)
	if o.Store != nil {
		l.doubt.Store(&doubt{why: errNotFollowed})
	}
	return l, nil
}

var (
	// ErrInvalid: an entry or an undo has mistakes, which the error names.
	ErrInvalid = errors.New("revocation: invalid")
	// ErrFull: there is no room for the entry. See Options.MaxEntries.
	ErrFull = errors.New("revocation: the list is full")
	// ErrNotFound: no entry in force has this ID.
	ErrNotFound = errors.New("revocation: no such entry")
)

// Revoke adds an entry and returns it with ID and At filled in. When it returns without an
// error, the Store has the entry for good, this list shows it, and the lists of other
// replicas do within about a second. After an error the Store may have it nevertheless.
//
// A webhook's entry that was added before is returned as it is: the same delivery twice is
// one entry. It stays undone if somebody has undone it. If it is so old that no token of
// its time can be alive, it is not added.
func (l *List) Revoke(ctx context.Context, e Entry) (Entry, error) {
	now := time.Now()
	e, err := l.prepare(e, now)
	if err != nil {
		return Entry{}, err
	}
	data, err := encode(record{Entry: &e})
	if err != nil {
		return Entry{}, err
	}
	h := l.hold(e, now)
	if h.over(now) && !e.Webhook {
		return Entry{}, fmt.Errorf("%w: Before: no token that was issued before it can be alive, by Options.MaxTokenLifetime", ErrInvalid)
	}

	l.mu.Lock()
	l.prune(now, false)
	added := false
	switch known := l.entries[e.ID]; {
	case known != nil:
		e = known.public()
	case h.over(now) || l.undone[e.ID] != nil:
	case !l.isRoom(e.Webhook):
		err = ErrFull
	default:
		l.reserved++
		l.mu.Unlock()
		err = l.append(ctx, data)
		l.mu.Lock()
		l.reserved--
		added = err == nil
		if added && l.undone[e.ID] == nil && l.entries[e.ID] == nil { // Run may have read it
			l.add(h)
			l.acknowledged(e.ID)
		}
	}
	l.mu.Unlock()
	if err != nil {
		return Entry{}, err
	}
	if added {
		l.options.Logger.InfoContext(ctx, "revocation: revoked", slog.Any("entry", e))
	}
	return e, nil
}

func (l *List) append(ctx context.Context, data []byte) error {
	if l.options.Store == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := l.options.Store.Append(ctx, data); err != nil {
		return fmt.Errorf("revocation: the store did not confirm it: %w", err)
	}
	return nil
}

// acknowledged notes that the Store took a record, so that it is missed if it is never read
// back. The mutex is held.
func (l *List) acknowledged(id string) {
	if l.options.Store != nil {
		l.acks++
		l.unread[id] = l.acks
	}
}

// isRoom reports whether another entry fits. It counts webhooks apart, so that they leave a
// quarter to people.
func (l *List) isRoom(webhook bool) bool {
	if webhook && l.webhooks+l.reserved >= l.options.MaxEntries/4*3 {
		return false
	}
	return len(l.entries)+len(l.undone)+l.reserved < l.options.MaxEntries
}

// hold makes an entry ready for the index.
func (l *List) hold(e Entry, now time.Time) *held {
	h := &held{Entry: e, before: always}
	if !e.Before.IsZero() {
		late := e.Before.Add(l.options.Leeway)
		h.before = late.UnixNano()
		h.end = clock.OnBoth(now, late.Add(l.options.MaxTokenLifetime+endMargin))
	}
	return h
}

// over reports whether no token that the entry revokes can be alive.
func (h *held) over(now time.Time) bool { return !h.end.IsZero() && passed(now, h.end) }

// revokesSame reports whether two entries with one ID are one.
func (h *held) revokesSame(other *held) bool {
	return slices.Equal(h.Issuers, other.Issuers) && h.keyAt("") == other.keyAt("") && h.before == other.before
}

func (h *held) public() Entry {
	e := h.Entry
	e.Issuers = slices.Clone(e.Issuers)
	return e
}

// add takes an entry into the list. The mutex is held.
func (l *List) add(h *held) {
	l.entries[h.ID] = h
	if h.Webhook {
		l.webhooks++
	}
	if l.index.isRoom(len(h.Issuers)) {
		l.index.add(h)
	} else {
		l.index.build(l.entries)
	}
}

// remove takes note of an undo. The mutex is held. h is the entry, or nil if it is not
// known.
func (l *List) remove(u undo, h *held, now time.Time, epoch int) {
	e := &ended{undo: u, epoch: epoch, end: clock.OnBoth(now, u.At.Add(undoneFor))}
	if h != nil && h.end.After(e.end) { // until then, a webhook's delivery may come again
		e.end = h.end
	}
	if h != nil && h.Webhook {
		e.webhook = true
		l.webhooks++
	}
	l.undone[u.ID] = e
	if h := l.entries[u.ID]; h != nil {
		l.index.remove(h)
		l.drop(h)
	}
}

// drop takes an entry out of the list, but not of the index.
func (l *List) drop(h *held) {
	delete(l.entries, h.ID)
	if h.Webhook {
		l.webhooks--
	}
}

// prune forgets what is over. It looks once a minute, since that takes some milliseconds,
// or if it must. The mutex is held.
func (l *List) prune(now time.Time, must bool) {
	if !must && clock.Age(now, l.pruned) < time.Minute {
		return
	}
	l.pruned = now
	count := len(l.entries)
	for _, h := range l.entries {
		if h.over(now) {
			l.drop(h)
		}
	}
	for id, e := range l.undone {
		if passed(now, e.end) {
			delete(l.undone, id)
			if e.webhook {
				l.webhooks--
			}
		}
	}
	if len(l.entries) < count {
		l.index.build(l.entries)
	}
}

// Undo ends an entry for good. Undoing it again is no error. The list must have read the
// entry, or the error is ErrNotFound, and that of Revoked while the list cannot answer.
// Like Revoke, Undo returns once the Store has it.
func (l *List) Undo(ctx context.Context, id, by, reason string) error {
	now := time.Now()
	u := undo{ID: id, By: by, Reason: reason, At: now.UTC().Round(0)}
	if err := u.mistakes(); err != nil {
		return err
	}
	data, err := encode(record{Undo: &u})
	if err != nil {
		return err
	}
	l.mu.Lock()
	known, again := l.entries[id] != nil, l.undone[id] != nil
	l.mu.Unlock()
	switch {
	case again:
		return nil
	case !known:
		if err := l.serves(now); err != nil {
			return err
		}
		return ErrNotFound
	}
	if err := l.append(ctx, data); err != nil {
		return err
	}
	l.mu.Lock()
	if l.undone[id] == nil {
		l.remove(u, l.entries[id], now, 0)
		l.acknowledged("-" + id)
	}
	l.mu.Unlock()
	l.options.Logger.InfoContext(ctx, "revocation: undone", slog.Any("undo", u))
	return nil
}

// All returns the entries in force, the oldest first.
func (l *List) All() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prune(time.Now(), true)
	all := make([]Entry, 0, len(l.entries))
	for _, h := range l.entries {
		all = append(all, h.public())
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
	return all
}

// Revoked reports whether the token of these claims was revoked. It is for
// [m2mauth.Config.Revoked]: it takes no lock and allocates nothing. It fails before the
// Store was read once, and when the Store has been away for longer than StaleFor.
func (l *List) Revoked(_ context.Context, claims m2mauth.Claims) (bool, error) {
	if d := l.doubt.Load(); d != nil {
		if err := d.verdict(&l.options, time.Now()); err != nil {
			return false, err
		}
	}
	return l.covers(l.index.latest(claims), claims), nil
}

// passed reports whether a moment has passed by both clocks. Forgetting an entry early
// would bring tokens back.
func passed(now, moment time.Time) bool {
	return !now.Before(moment) && !now.Round(0).Before(moment.Round(0))
}
