package m2mauth

import (
	"cmp"
	"slices"
	"time"

	"github.com/m2mauth/m2mauth/internal/clock"
)

// KeyState says how old the issuer's keys are.
type KeyState string

// The states of the keys. Requests are served in the first two.
const (
	KeysFresh   KeyState = "fresh"   // within KeyTTL, or static
	KeysStale   KeyState = "stale"   // past KeyTTL but within KeyStaleFor: the issuer fails, or no request came
	KeysExpired KeyState = "expired" // past both
	KeysNone    KeyState = "none"    // never fetched
)

// KeyStatus reports on the issuer's keys at one moment, for dashboards and alerts. For
// a readiness probe use [Guard.Warm], which also fetches. For a guard made by [Join] it
// is the status of the issuer whose keys are in the worst state, so that an alert sees
// it. Others has the other issuers, worst first.
type KeyStatus struct {
	Issuer      string
	State       KeyState
	CoolingDown bool          // unknown key IDs cause no fetch at the moment, and get 503
	LastSuccess time.Time     // zero if there was none, or the keys are static
	Age         time.Duration // since LastSuccess
	NextRefresh time.Time     // a request after this starts a fetch; zero if the keys are static
	ServesUntil time.Time     // the keys expire then unless a fetch succeeds; zero if there are none, or they are static
	Keys        []PublishedKey
	LastError   string // of the last fetch; "" if it succeeded
	Fetches     int    // attempts, including one in progress
	Failures    int
	Waiting     int         // requests that wait for a fetch now
	Others      []KeyStatus // nil unless the guard was made by Join
}

// PublishedKey is a key of the issuer's set. Algorithm is "" if the key is unusable.
type PublishedKey struct{ ID, Algorithm string }

// Stats counts what happened to tokens since the guard was made, and reports how things
// are now. Cached tokens wait for nothing.
type Stats struct {
	Hits, Misses uint64 // of the cache for verified tokens
	Evicted      uint64 // dropped to make room
	Shared       uint64 // waited for another request's check of the same token
	Waited       uint64 // waited for their turn to be verified
	Refused      uint64 // would have had to wait, or waited in vain: 429 and 503
	WouldRefuse  uint64 // requests that would be rejected, but passed: see Config.InsecureReportOnlyUntil

	Waiting         int       // requests that wait now, for their turn or for another's check
	Cached          int       // tokens in the cache
	CachedBytes     int64     // of Config.CacheBytes
	ReportOnlyUntil time.Time // when the dry run ends; zero if the guard rejects requests
}

// Stats returns the current counts. It does not wait.
func (g *Guard) Stats() (s Stats) {
	if !g.ready() {
		return s
	}
	cached, admitted := g.tokens.Stats(), g.admission.Stats()
	s.Hits, s.Misses, s.Evicted = cached.Hits, cached.Misses, cached.Evicted
	s.Shared, s.Waited, s.Refused = admitted.Shared, admitted.Waited, admitted.Refused
	s.WouldRefuse = g.wouldRefuse.Load()
	s.Waiting = admitted.Waiting + admitted.Sharing
	s.Cached, s.CachedBytes = cached.Kept, cached.Bytes
	if g.ReportOnly() {
		s.ReportOnlyUntil = g.dryRun.Until()
	}
	return s
}

// Keys reports on the issuer's keys. It does not wait and does not fetch.
func (g *Guard) Keys() KeyStatus {
	if !g.ready() {
		return KeyStatus{State: KeysNone}
	}
	all := make([]KeyStatus, len(g.issuers))
	for n, i := range g.issuers {
		all[n] = i.keys.status(time.Now())
		all[n].Issuer = i.claims.issuer
	}
	slices.SortFunc(all, func(a, b KeyStatus) int {
		return cmp.Or(
			cmp.Compare(severity[b.State], severity[a.State]),
			cmp.Compare(min(1, len(b.LastError)), min(1, len(a.LastError))), // one that fails now
			cmp.Compare(a.Issuer, b.Issuer),
		)
	})
	worst := all[0]
	if len(all) > 1 {
		worst.Others = all[1:]
	}
	return worst
}

var severity = map[KeyState]int{KeysFresh: 0, KeysStale: 1, KeysExpired: 2, KeysNone: 3}

func (k *keySource) status(now time.Time) KeyStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := KeyStatus{
		State:       KeysNone,
		CoolingDown: k.unknown.Paused(now),
		NextRefresh: k.history.Next,
		Fetches:     k.history.Begun,
		Failures:    k.history.Failures,
		Waiting:     k.waiters,
	}
	if k.history.Err != nil {
		s.LastError = k.history.Err.Error()
	}
	set := k.current.Load()
	if set.Set == nil {
		return s
	}
	for _, key := range set.Keys {
		id, _ := key.ID()
		s.Keys = append(s.Keys, PublishedKey{id, key.Algorithm()})
	}
	if s.State = set.state(now); s.State == keysDue {
		s.State = KeysFresh
	}
	if set.static {
		return s
	}
	if set.refreshAt.After(s.NextRefresh) {
		s.NextRefresh = set.refreshAt
	}
	s.LastSuccess, s.ServesUntil = set.fetched, set.staleUntil
	s.Age = clock.Age(now, s.LastSuccess)
	return s
}
