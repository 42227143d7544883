// Package refetch decides which key IDs may have an issuer's key set fetched because the
// current set lacks them. Anybody can make such IDs up, so these fetches, refetches, are
// few. It knows key IDs, sources of requests, and moments that its caller tells it; what
// is old by either clock is old.
package refetch

import (
	"iter"
	"maps"
	"time"

	"github.com/m2mauth/m2mauth/internal/clock"
)

const (
	// Refetches that find none of the key IDs they are for come out of a bucket. It
	// holds two, regains one every regained, and such refetches are a pause apart. So
	// made-up IDs cost the issuer twelve a minute.
	regained, pause = 6 * time.Second, 2 * time.Second

	// A source whose ID was not found causes no refetch for this long. It is more than
	// regained, so that made-up IDs of one source leave the bucket to the others.
	absentSourceFor = 10 * time.Second

	// An ID that its fetch did not find causes no other fetch for absentFor. Up to maxIDs
	// such IDs are kept, as many of earlier sets, and as many that one fetch is for.
	absentFor, maxIDs = 30 * time.Second, 1024
)

// State is what is known about a key ID that the current set lacks.
type State int

// The states of a key ID.
const (
	Unknown   State = iota // the issuer may publish it: only a fetch can tell
	Absent                 // a fetch for it did not find it
	Withdrawn              // an earlier set had it: clients should renew their tokens now
	Doubtful               // withdrawn, but the current set is old, and may be from a replica that lagged behind: fetch the next one
)

// Limits knows what refetches found, and when the next may start. The zero Limits allows
// one. Its methods may not be called at the same time.
type Limits struct {
	bucketFull time.Time            // when the bucket is full again
	bucketHas  time.Time            // when it has one again, and
	apart      time.Time            // when the last one is a pause ago: no refetch before both
	sources    map[string]time.Time // no refetch for these sources before this
	absent     map[string]bool      // key IDs that their own fetch did not find
	withdrawn  map[string]bool      // key IDs of earlier sets
}

// State returns what is known about a key ID that the current set, fetched at a moment,
// lacks. Each new set confirms all absent IDs at once, so together they cause no more
// fetches than one of them.
func (l *Limits) State(kid string, now, fetched time.Time) State {
	switch old := clock.Age(now, fetched) >= absentFor; {
	case l.withdrawn[kid] && old:
		return Doubtful
	case l.withdrawn[kid]:
		return Withdrawn
	case l.absent[kid] && !old:
		return Absent
	}
	return Unknown
}

// Paused reports whether no source may cause a refetch.
func (l *Limits) Paused(now time.Time) bool {
	return !clock.Reached(now, l.bucketHas) || !clock.Reached(now, l.apart)
}

// Pause returns for how long a source may cause no refetch. It may cause one if that is
// not positive.
func (l *Limits) Pause(source string, now time.Time) time.Duration {
	return max(-clock.Age(now, l.bucketHas), -clock.Age(now, l.apart), -clock.Age(now, l.sources[source]))
}

// Wanted are the key IDs that requests wait for during one fetch. The zero Wanted is
// that of a fetch which was due anyway.
type Wanted struct {
	kids   map[string]bool // true for the one that caused the fetch
	source string          // of the request that caused the fetch
}

// Cause says that a source's request for a key ID caused the fetch.
func (w *Wanted) Cause(kid, source string) {
	w.source = source
	w.add(kid, true)
}

// Join says that a request for a key ID joined the fetch.
func (w *Wanted) Join(kid string) { w.add(kid, w.kids[kid]) }

func (w *Wanted) add(kid string, cause bool) {
	if w.kids == nil {
		w.kids = make(map[string]bool)
	}
	if len(w.kids) < maxIDs {
		w.kids[kid] = cause
	}
}

// Replaced says that a new set takes the place of one with these key IDs.
func (l *Limits) Replaced(kids iter.Seq[string]) {
	for kid := range kids {
		keep(&l.withdrawn, kid)
	}
}

// Fetched says that a fetch has brought a set, with the key IDs that has reports. A
// refetch that brought none of the wanted keys is charged to the bucket, and the source
// and the key ID that caused it are kept.
func (l *Limits) Fetched(w *Wanted, now time.Time, has func(kid string) bool) {
	found, caused := false, false
	for kid, cause := range w.kids {
		caused = caused || cause
		switch {
		case has(kid):
			found = true
		case cause: // requests that joined may have a key newer than the fetch
			keep(&l.absent, kid)
			l.keepSource(w.source, now)
		}
	}
	if found || !caused { // a fetch that was due costs nothing, whoever joined it
		return
	}
	if clock.Reached(now, l.bucketFull) {
		l.bucketFull = now
	}
	l.bucketHas, l.bucketFull, l.apart = l.bucketFull, l.bucketFull.Add(regained), now.Add(pause)
}

func (l *Limits) keepSource(source string, now time.Time) {
	if l.sources == nil {
		l.sources = make(map[string]time.Time)
	}
	maps.DeleteFunc(l.sources, func(_ string, until time.Time) bool { return clock.Reached(now, until) })
	l.sources[source] = now.Add(absentSourceFor)
}

// keep adds a key ID to a set whose size is limited.
func keep(kids *map[string]bool, kid string) {
	if *kids == nil || len(*kids) >= maxIDs {
		*kids = make(map[string]bool)
	}
	(*kids)[kid] = true
}
