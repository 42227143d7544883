package m2mauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/m2mauth/m2mauth/internal/attempt"
	"github.com/m2mauth/m2mauth/internal/clock"
	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/keylog"
	"github.com/m2mauth/m2mauth/internal/keyset"
	"github.com/m2mauth/m2mauth/internal/refetch"
)

// This file decides which of the issuer's key sets serves, and when to fetch the next
// one. Package keyset knows how to fetch, and package keylog what to log about it. A
// keySource holds one immutable keySet, the last good one. Its state decides what a
// request does:
//
//	KeysNone      the request waits for a fetch
//	KeysFresh     the set serves
//	keysDue       from 80 % of the TTL on, a request starts a refresh and does not
//	              wait for it
//	KeysStale     past the TTL. The first request after a pause waits for a refresh;
//	              for a minute after that failed, the set serves without waiting
//	KeysExpired   past KeyStaleFor too: as KeysNone
//
// A key ID that is not in the set does not change the state. It causes a fetch of its
// own, a refetch, and package refetch allows few of those per minute. The token gets 401
// only if the issuer is known not to publish the key ID, and 503 otherwise.
//
// There is one fetch at a time. It is a goroutine that ends on its own, and everyone
// who needs the keys shares it. After a failed fetch none starts until the backoff of
// package attempt has passed, and a request that would wait for one gets 503 at once.
//
// Config has the durations that users may need to change. These need no change:
const (
	// refreshFrom and refreshSpread say when in the TTL a refresh is due: at 80 %,
	// moved by up to 10 % at random, so that the refreshes of many replicas spread out.
	refreshFrom, refreshSpread = 0.8, 0.1

	// A max-age in the issuer's Cache-Control counts only within these bounds. If
	// Config.KeyTTL is set, it replaces the upper bound.
	minMaxAge, maxMaxAge = time.Minute, time.Hour

	// maxWaiters limits the requests that wait for a fetch, and maxHeldBytes the bytes
	// of their tokens, over all issuers of a guard. Together with requests that wait
	// for signature checks (queuedBytes, sharingBytes) that is 64 MiB.
	maxWaiters   = 8192
	maxHeldBytes = 24 << 20

	// rediscoverAfter is how long a jwks_uri is used before it is read again.
	rediscoverAfter = 24 * time.Hour
)

// keySet is one key set, and how long it serves. It is immutable: a refresh makes a new
// one. The zero keySet is that of no fetch yet.
type keySet struct {
	*keyset.Set
	static bool // from Config.JWKS

	discovered time.Time     // when a discovery document named its URL; zero with Config.JWKSURL
	ttl        time.Duration // Config.KeyTTL, or the issuer's max-age
	begun      time.Time     // when its fetch began; the issuer may have published more since
	fetched    time.Time
	refreshAt  time.Time
	freshUntil time.Time
	staleUntil time.Time
}

// keysDue is the state of fresh keys that should be refreshed. Users see KeysFresh.
const keysDue KeyState = "due"

// state says what the set is good for.
func (s *keySet) state(now time.Time) KeyState {
	switch {
	case s.Set == nil:
		return KeysNone
	case s.static || !clock.Reached(now, s.refreshAt):
		return KeysFresh
	case !clock.Reached(now, s.freshUntil):
		return keysDue
	case !clock.Reached(now, s.staleUntil):
		return KeysStale
	}
	return KeysExpired
}

// serves reports whether the set may verify tokens.
func (s *keySet) serves(now time.Time) bool {
	state := s.state(now)
	return state != KeysNone && state != KeysExpired
}

// keySource fetches and keeps an issuer's keys.
type keySource struct {
	from          keyset.Source
	ttl, staleFor time.Duration
	maxTTL        time.Duration // of the issuer's max-age
	log           keylog.Log

	current atomic.Pointer[keySet] // never nil

	mu      sync.Mutex // guards the fields below; never held while waiting
	flight  *flight    // the fetch in progress
	waiters int
	history attempt.History // of fetches
	unknown refetch.Limits  // what unknown key IDs may cause
}

// flight is a fetch that requests wait for.
type flight struct {
	*attempt.Attempt
	begun  time.Time
	wanted refetch.Wanted
}

func newKeySource(c *Config, rsaAlgorithm string, logger func() *slog.Logger) (*keySource, error) {
	k := &keySource{ttl: c.KeyTTL, maxTTL: maxMaxAge, staleFor: c.KeyStaleFor, log: keylog.Log{Issuer: c.Issuer, Logger: logger}}
	k.current.Store(new(keySet))
	if c.JWKS != nil {
		set, err := keyset.Parse(c.JWKS, rsaAlgorithm, nil)
		if err != nil {
			return nil, fmt.Errorf("m2mauth: Config.JWKS: %w", err)
		}
		k.current.Store(&keySet{Set: set, static: true})
		k.log.Odd(set, nil)
		return k, nil
	}
	k.from = keyset.Source{
		Issuer: c.Issuer, URL: c.JWKSURL, RSAAlgorithm: rsaAlgorithm,
		Client: keyset.NewClient(c.HTTPClient, c.FetchTimeout), Timeout: c.FetchTimeout,
	}
	return k, nil
}

// find returns the key to verify a token with. It waits for at most one fetch. waited
// says that it waited because the keys had expired, so that now may be outdated. It is
// false for a refetch: a key from a refetch has not verified any cached token. source
// returns the group of the request.
func (k *keySource) find(ctx context.Context, now time.Time, h held, kid string, hasKID bool, alg string, source func() string) (key *jose.Key, waited bool, e *Error) {
	set, waited, e := k.get(ctx, now, h)
	if e != nil {
		return nil, waited, e
	}
	key, lacking := set.Find(kid, hasKID, alg)
	if lacking {
		if set, e = k.refetch(ctx, now, h, kid, waited, source); e != nil {
			return nil, waited, e
		}
		key, _ = set.Find(kid, hasKID, alg)
	}
	if key == nil {
		return nil, waited, newError(ErrUnknownKey, keylog.WhyNoKey(set.Set, kid, hasKID, alg), keylog.NoKey(set.Set, kid, hasKID, alg)...)
	}
	return key, waited, nil
}

// get returns the keys that may be trusted now, and starts a refresh when it is due.
// waited says that it waited for one.
func (k *keySource) get(ctx context.Context, now time.Time, h held) (set *keySet, waited bool, e *Error) {
	set = k.current.Load()
	if set.state(now) == KeysFresh {
		return set, false, nil
	}
	return k.renew(ctx, now, h)
}

// renew is get for keys that were missing or due a moment ago.
func (k *keySource) renew(ctx context.Context, now time.Time, h held) (set *keySet, waited bool, e *Error) {
	k.mu.Lock()
	set = k.current.Load()
	state := set.state(now)
	if state == KeysFresh { // refreshed while we waited for the lock
		k.mu.Unlock()
		return set, false, nil
	}
	f := k.fetchLocked(now)
	// Stale keys serve without another attempt only if one failed lately and requests have
	// not paused since. Otherwise, after a pause, a key that was withdrawn long ago could
	// open one last request, even though the outage is over.
	if state == keysDue || state == KeysStale && k.history.FailedLately(now) {
		k.mu.Unlock()
		return set, false, nil
	}
	ended, e := k.waitAndUnlock(ctx, h, f)
	set = k.current.Load()
	if ended && set.serves(time.Now()) {
		return set, true, nil // refreshed, or stale after an attempt
	}
	return nil, true, cmp.Or(e, heldUp(time.Second, errors.New("the keys expired while they were waited for")))
}

// refetch returns a set that settles whether the issuer publishes an unknown kid. A
// request that has already waited does not wait again. If nothing is settled, the token
// may be fine, and the response is 503.
func (k *keySource) refetch(ctx context.Context, now time.Time, h held, kid string, waited bool, source func() string) (*keySet, *Error) {
	if set := k.current.Load(); set.static {
		return set, nil
	}
	from := source() // a user's function, so not called with the lock held
	k.mu.Lock()
	if set := k.settledLocked(now, kid, waited); set != nil {
		k.mu.Unlock()
		return set, nil
	}
	pause := k.unknown.Pause(from, time.Now())
	if waited || pause > 0 {
		defer k.mu.Unlock()
		return nil, unsettled(kid, max(pause, time.Until(k.history.Next)))
	}
	joined := k.flight != nil
	f := k.fetchLocked(time.Now())
	switch {
	case joined:
		f.wanted.Join(kid)
	case f != nil:
		f.wanted.Cause(kid, from)
	}
	if _, e := k.waitAndUnlock(ctx, h, f); e != nil {
		return nil, e
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if set := k.settledLocked(now, kid, true); set != nil {
		return set, nil
	}
	return nil, unsettled(kid, k.unknown.Pause(from, time.Now())) // it joined a fetch that began before the request came
}

// settledLocked returns the current set if it settles whether the issuer publishes a
// kid. The request came at now; waited says that it has waited for a set since.
func (k *keySource) settledLocked(now time.Time, kid string, waited bool) *keySet {
	set := k.current.Load()
	if len(set.ByID[kid]) > 0 || waited && !set.begun.Before(now) {
		return set
	}
	switch k.unknown.State(kid, time.Now(), set.fetched) {
	case refetch.Unknown:
		return nil
	case refetch.Doubtful:
		k.fetchLocked(time.Now())
	}
	return set
}

func unsettled(kid string, retryAfter time.Duration) *Error {
	e := heldUp(retryAfter, errors.New("the key set lacks the token's key ID, and is not fetched for every unknown one"))
	e.attrs = append(e.attrs, slog.String("kid", keyset.Loggable(kid)))
	return e
}

// fetchLocked returns the fetch in progress, and starts one if there is none. It
// returns nil during the backoff after a failure.
func (k *keySource) fetchLocked(now time.Time) *flight {
	if k.flight != nil || !k.history.Ready(now) {
		return k.flight
	}
	k.history.Begun++
	f, old, failedBefore := &flight{begun: time.Now()}, k.current.Load(), k.history.Failing()
	f.Attempt = attempt.Start(k.from.Timeout, func(ctx context.Context) (*keySet, error) {
		return k.fetch(ctx, old, failedBefore)
	}, func(set *keySet, err error) (report func()) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.flight = nil
		if err != nil {
			return k.failLocked(err)
		}
		k.succeedLocked(f, set)
		return func() { k.log.Fetched(set.Set, old.Set, set.refreshAt, failedBefore) }
	})
	k.flight = f
	return f
}

// waitAndUnlock unlocks, and waits for a fetch. ended says that the fetch has ended,
// with or without success. The end of ctx ends the wait and not the fetch.
func (k *keySource) waitAndUnlock(ctx context.Context, h held, f *flight) (ended bool, e *Error) {
	defer k.mu.Unlock()
	if f == nil {
		return true, unavailable(time.Until(k.history.Next), k.history.Err)
	}
	if h.never {
		return false, heldUp(time.Second, errUndecided)
	}
	if k.waiters >= maxWaiters || !h.take() {
		return false, heldUp(time.Second, errors.New("too many requests wait for the issuer's keys"))
	}
	defer h.give()
	k.waiters++
	defer func() { k.waiters-- }()
	ended, err := f.Wait(ctx, &k.mu)
	switch {
	case !ended:
		return false, heldUp(time.Second, gone{err})
	case err != nil:
		return true, unavailable(time.Until(k.history.Next), err)
	}
	return true, nil
}

// held is what a waiting request holds: the bytes of its token, out of a guard's total.
// The zero held is for a wait without a token.
type held struct {
	total *atomic.Int64
	bytes int
	never bool // it passes in any case, and does not wait
}

func (h held) take() bool {
	if h.total == nil || h.total.Add(int64(h.bytes)) <= maxHeldBytes {
		return true
	}
	h.give()
	return false
}

func (h held) give() {
	if h.total != nil {
		h.total.Add(-int64(h.bytes))
	}
}

func (k *keySource) failLocked(err error) (report func()) {
	now, last, asked := time.Now(), k.current.Load(), time.Duration(0)
	if failed, ok := errors.AsType[*keyset.Error](err); ok {
		asked = failed.RetryAfter(now)
	}
	k.history.Failed(now, err, max(0, -clock.Age(now, last.staleUntil)), asked)
	retry := k.history.Next
	return func() {
		k.log.Failed(err, retry, last.serves(time.Now()), last.staleUntil)
	}
}

func (k *keySource) succeedLocked(f *flight, set *keySet) {
	now := time.Now()
	jitter := refreshFrom + refreshSpread*(2*rand.Float64()-1)
	set.begun = f.begun
	set.fetched = now
	set.refreshAt = now.Add(time.Duration(float64(set.ttl) * jitter))
	set.freshUntil = now.Add(set.ttl)
	set.staleUntil = set.freshUntil.Add(k.staleFor)
	if old := k.current.Swap(set); old.Set != nil {
		k.unknown.Replaced(maps.Keys(old.ByID))
	}
	k.history.Succeeded()
	k.unknown.Fetched(&f.wanted, now, func(kid string) bool { return len(set.ByID[kid]) > 0 })
}

// fetch fetches a new set, and logs what is odd about it or about the discovery.
func (k *keySource) fetch(ctx context.Context, old *keySet, failedBefore bool) (*keySet, error) {
	rediscover := failedBefore || clock.Age(time.Now(), old.discovered) >= rediscoverAfter // the keys may have moved
	set, err := k.from.Fetch(ctx, old.Set, rediscover)
	if err != nil {
		if failed, ok := errors.AsType[*keyset.Error](err); ok {
			k.log.Found(failed.Found)
		}
		return nil, err
	}
	k.log.Found(set.Found)
	next := &keySet{Set: set, ttl: k.ttlOf(set.MaxAge), discovered: old.discovered}
	if set.Discovered {
		next.discovered = time.Now()
	}
	k.log.Odd(set, old.Set)
	return next, nil
}

// ttlOf returns the issuer's max-age within bounds, if it is positive. Logto sends
// no-cache and max-age=0. Taken literally, every request would cause a fetch.
func (k *keySource) ttlOf(maxAge time.Duration) time.Duration {
	if maxAge <= 0 {
		return k.ttl
	}
	return min(max(maxAge, minMaxAge, 10*k.from.Timeout), k.maxTTL)
}
