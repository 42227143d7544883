package m2mauth

import (
	"cmp"
	"slices"
	"time"
)

// KeyState says how old the issuer's keys are.
type KeyState string

// The states of the keys. Requests are served in the first two.
const (
	KeysFresh   KeyState = "fresh"   // within KeyTTL, or static
	KeysStale   KeyState = "stale"   // past it, and within KeyStaleFor: the issuer fails, or nobody asked
	KeysExpired KeyState = "expired" // past both
	KeysNone    KeyState = "none"    // never fetched
)

// Status is a report on the issuer's keys at one moment, for dashboards and
// alarms. For a readiness probe use [Guard.Warm], which also fetches. That of a
// guard made by [Join] is the status of the issuer whose keys are worst off, so
// that an alarm sees it, and Others are those of the other issuers, worst first.
type Status struct {
	Issuer      string
	State       KeyState
	CoolingDown bool          // unknown key IDs cause no fetch at the moment, and get 503
	LastSuccess time.Time     // zero if there was none, or the keys are static
	Age         time.Duration // since LastSuccess
	NextRefresh time.Time     // from then on a request starts a fetch; zero if the keys are static
	Keys        []PublishedKey
	LastError   string // of the last fetch; "" if it succeeded
	Fetches     int    // attempts, that under way included
	Failures    int
	Others      []Status // nil unless the guard was made by Join
}

// PublishedKey is a key of the issuer's set. Algorithm is "" if it cannot be used.
type PublishedKey struct{ ID, Algorithm string }

// Stats counts what became of tokens since the guard was made. Known tokens are
// answered from memory, and wait for nothing.
type Stats struct {
	Hits, Misses uint64 // of the memory for verified tokens
	Evicted      uint64 // forgotten for want of room
	Shared       uint64 // waited for another request's check of the same token
	Waited       uint64 // waited for their turn to be verified
	Refused      uint64 // of those that would have had to wait, or waited in vain: 429 and 503
}

// Stats returns the counts at this moment.
func (g *Guard) Stats() (s Stats) {
	if !g.ready() {
		return s
	}
	for i := range g.tokens.shards {
		shard := &g.tokens.shards[i]
		s.Hits += shard.hits.Load()
		s.Misses += shard.misses.Load()
		s.Evicted += shard.evicted.Load()
	}
	g.checks.mu.Lock()
	s.Shared, s.Refused = g.checks.saved, g.checks.refused
	g.checks.mu.Unlock()
	g.gate.mu.Lock()
	s.Waited, s.Refused = g.gate.waited, s.Refused+g.gate.refused
	g.gate.mu.Unlock()
	return s
}

// Status reports on the issuer's keys. It waits for nothing and fetches nothing.
func (g *Guard) Status() Status {
	if !g.ready() {
		return Status{State: KeysNone}
	}
	if g.joined != nil {
		return g.statusJoined()
	}
	s := g.keys.status(time.Now())
	s.Issuer = g.claims.issuer
	return s
}

func (g *Guard) statusJoined() Status {
	var all []Status
	for _, issuer := range g.issuers() {
		all = append(all, g.joined[issuer].Status())
	}
	slices.SortStableFunc(all, func(a, b Status) int {
		return cmp.Or(
			cmp.Compare(badness[b.State], badness[a.State]),
			cmp.Compare(min(1, len(b.LastError)), min(1, len(a.LastError))), // one that fails now
		)
	})
	s := all[0]
	s.Others = all[1:]
	return s
}

var badness = map[KeyState]int{KeysFresh: 0, KeysStale: 1, KeysExpired: 2, KeysNone: 3}

func (k *keySource) status(now time.Time) Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := Status{
		State:       KeysNone,
		CoolingDown: !reached(now, k.pausedUntil),
		NextRefresh: k.nextTry,
		Fetches:     k.fetches,
		Failures:    k.failures,
	}
	if k.lastErr != nil {
		s.LastError = k.lastErr.Error()
	}
	set := k.current.Load()
	if set == nil {
		return s
	}
	for _, key := range set.keys {
		id, _ := key.ID()
		s.Keys = append(s.Keys, PublishedKey{id, key.Algorithm()})
	}
	if k.static {
		s.State = KeysFresh
		return s
	}
	s.State = set.state(now)
	if set.refreshAt.After(s.NextRefresh) {
		s.NextRefresh = set.refreshAt
	}
	s.LastSuccess = set.fetched
	s.Age = age(now, s.LastSuccess)
	return s
}

func (s *keySet) state(now time.Time) KeyState {
	switch {
	case reached(now, s.staleUntil):
		return KeysExpired
	case reached(now, s.freshUntil):
		return KeysStale
	}
	return KeysFresh
}
