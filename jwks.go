package m2mauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/keyset"
)

// This file decides which of the issuer's key sets serves, and when to fetch the next
// one. Package keyset knows how to fetch. A keySource holds one immutable keySet, the
// last good one. Its state decides what a request does:
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
// own, a refetch, and there are few of those per minute. The token gets 401 only if the
// issuer is known not to publish the key ID, and 503 otherwise.
//
// There is one fetch at a time. It is a goroutine that ends on its own, and everyone
// who needs the keys shares it. After a failed fetch none starts until the backoff has
// passed, and a request that would wait for one gets 503 at once.
//
// Config has the durations that users may need to change. These need no change:
const (
	// refreshFrom and refreshSpread say when in the TTL a refresh is due: at 80 %,
	// moved by up to 10 % at random, so that the refreshes of many replicas spread out.
	refreshFrom, refreshSpread = 0.8, 0.1

	// A max-age in the issuer's Cache-Control counts only within these bounds. If
	// Config.KeyTTL is set, it replaces the upper bound.
	minMaxAge, maxMaxAge = time.Minute, time.Hour

	// The first retry after a failed fetch waits for firstBackoff, and each later one
	// twice as long as the one before, up to lastBackoff. While no keys serve, and
	// every request is rejected, the limit is keylessBackoff.
	firstBackoff, lastBackoff, keylessBackoff = time.Second, 30 * time.Second, 10 * time.Second

	// If the issuer asks for a longer pause, it gets one, up to this limit.
	maxRetryAfter = time.Minute

	// Refetches that find none of the key IDs they are for come out of a bucket. It
	// holds two, regains one every refetchEvery, and such refetches are refetchPause
	// apart. So made-up IDs cost the issuer twelve a minute.
	refetchEvery, refetchPause = 6 * time.Second, 2 * time.Second

	// A source whose ID was not found causes no refetch for this long. It is more than
	// refetchEvery, so that made-up IDs of one source leave the bucket to the others.
	absentSourceFor = 10 * time.Second

	// An ID that its fetch did not find causes no other fetch for absentFor. Up to
	// maxAbsent such IDs are kept, and as many of earlier sets.
	absentFor, maxAbsent = 30 * time.Second, 1024

	// triedLately is how long after a failed attempt requests with stale keys need not
	// wait for another attempt. It is longer than our backoff and a fetch together.
	triedLately = time.Minute

	// maxWaiters limits the requests that wait for a fetch, and maxHeldBytes the bytes
	// of their tokens, over all issuers of a guard. Together with requests that wait
	// for signature checks (queuedBytes, sharingBytes) that is 64 MiB.
	maxWaiters   = 8192
	maxHeldBytes = 24 << 20

	// rediscoverAfter is how long a jwks_uri is used before it is read again.
	rediscoverAfter = 24 * time.Hour

	maxOddKeysLogged = 10
	maxKIDsLogged    = 10
)

// keySet is one key set, and how long it serves. It is immutable: a refresh makes a new
// one.
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

// state says what the set is good for. The set may be nil.
func (s *keySet) state(now time.Time) KeyState {
	switch {
	case s == nil:
		return KeysNone
	case s.static || !reached(now, s.refreshAt):
		return KeysFresh
	case !reached(now, s.freshUntil):
		return keysDue
	case !reached(now, s.staleUntil):
		return KeysStale
	}
	return KeysExpired
}

// serves reports whether the set may verify tokens.
func (s *keySet) serves(now time.Time) bool {
	state := s.state(now)
	return state != KeysNone && state != KeysExpired
}

// address says where the keys come from.
func (s *keySet) address() string { return cmp.Or(s.Address(), "Config.JWKS") }

// whyNoKey says why find found no key.
func whyNoKey(s *keySet, kid string, hasKID bool, alg string) string {
	fits := func(k *jose.Key) bool { return k.Algorithm() == alg }
	switch {
	case hasKID && len(s.ByID[kid]) == 0:
		return "the issuer publishes no key with the token's key ID: it was rotated out, or this API has the keys of another server"
	case hasKID && !slices.ContainsFunc(s.ByID[kid], fits):
		return "the issuer publishes the token's key, but it cannot be used: its use, its algorithm or its form does not fit the token"
	case hasKID:
		return "the issuer publishes several different keys with the token's key ID, and which one signed it cannot be told"
	case slices.ContainsFunc(s.Keys, fits):
		return "the token names no key, and the issuer publishes several that may have signed it"
	}
	return "the token names no key, and the issuer publishes none for its algorithm"
}

// published describes for the log the published keys with the key ID of a token.
func (s *keySet) published(kid string, hasKID bool) slog.Attr {
	var all []string
	if hasKID {
		for _, k := range s.ByID[kid] {
			if err := k.Problem(); err != nil {
				all = append(all, err.Error())
			} else {
				all = append(all, "for "+k.Algorithm())
			}
		}
	}
	return slog.String("published", keyset.Loggable(strings.Join(all, "; ")))
}

// keySource fetches and keeps an issuer's keys.
type keySource struct {
	from          keyset.Source
	ttl, staleFor time.Duration
	maxTTL        time.Duration // of the issuer's max-age
	logger        func() *slog.Logger
	httpKeys      sync.Once // logs a jwks_uri over http

	current atomic.Pointer[keySet] // nil until the first fetch succeeded

	mu            sync.Mutex // guards the fields below; never held while waiting
	flight        *flight    // the fetch in progress
	waiters       int
	fetches       int       // started so far
	failures      int       // failed so far
	failedAt      time.Time // when the last attempt failed; zero if it succeeded
	nextTry       time.Time
	backoff       time.Duration
	lastErr       error
	bucketFull    time.Time            // when the bucket of refetches is full again
	pausedUntil   time.Time            // no refetch before this
	absentSources map[string]time.Time // no refetch for these sources before this
	absent        map[string]bool      // key IDs that their own fetch did not find
	withdrawn     map[string]bool      // key IDs of earlier sets
}

// flight is a fetch that requests wait for.
type flight struct {
	begun  time.Time
	wanted map[string]bool // key IDs that requests wait for; true for the one that caused the fetch
	source string          // of the request that caused the fetch
	done   chan struct{}   // closed when the result is stored
	err    error           // set before done is closed
}

func newKeySource(c *Config, rsaAlgorithm string, logger func() *slog.Logger) (*keySource, error) {
	k := &keySource{
		ttl:      c.KeyTTL,
		maxTTL:   maxMaxAge,
		staleFor: c.KeyStaleFor,
		logger:   logger,

		absentSources: make(map[string]time.Time),
		absent:        make(map[string]bool),
		withdrawn:     make(map[string]bool),
	}
	if c.JWKS != nil {
		set, err := keyset.Parse(c.JWKS, rsaAlgorithm, nil)
		if err != nil {
			return nil, fmt.Errorf("m2mauth: Config.JWKS: %w", err)
		}
		static := &keySet{Set: set, static: true}
		k.logOddities(static, nil)
		k.current.Store(static)
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
	key, refetch := set.Find(kid, hasKID, alg)
	if refetch {
		if set, e = k.refetch(ctx, now, h, kid, waited, source); e != nil {
			return nil, waited, e
		}
		key, _ = set.Find(kid, hasKID, alg)
	}
	if key == nil {
		return nil, waited, newError(ErrUnknownKey, whyNoKey(set, kid, hasKID, alg), slog.String("kid", keyset.Loggable(kid)), slog.String("alg", alg),
			set.published(kid, hasKID), slog.String("keys_from", set.address()), slog.Int("keys", len(set.Keys)))
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
	if state == keysDue || state == KeysStale && k.triedLocked(now) {
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

// triedLocked reports whether stale keys may serve without another attempt, because one
// failed lately and requests have not paused since. Otherwise requests wait. Without
// that, after a pause, a key that was withdrawn long ago could open one last request,
// even though the outage is over.
func (k *keySource) triedLocked(now time.Time) bool {
	return !k.failedAt.IsZero() && age(now, k.failedAt) < triedLately
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
	pause := k.pauseLocked(from)
	if waited || pause > 0 {
		defer k.mu.Unlock()
		return nil, unsettled(kid, max(pause, time.Until(k.nextTry)))
	}
	joined := k.flight != nil
	f := k.fetchLocked(time.Now())
	if f != nil && len(f.wanted) < maxAbsent {
		f.wanted[kid] = f.wanted[kid] || !joined
		if !joined {
			f.source = from
		}
	}
	if _, e := k.waitAndUnlock(ctx, h, f); e != nil {
		return nil, e
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if set := k.settledLocked(now, kid, true); set != nil {
		return set, nil
	}
	return nil, unsettled(kid, k.pauseLocked(from)) // it joined a fetch that began before the request came
}

// settledLocked returns the current set if it settles whether the issuer publishes a
// kid. The request came at now; waited says that it has waited for a set since.
func (k *keySource) settledLocked(now time.Time, kid string, waited bool) *keySet {
	set := k.current.Load()
	switch old := age(time.Now(), set.fetched) >= absentFor; {
	case len(set.ByID[kid]) > 0, waited && !set.begun.Before(now):
		return set
	case k.withdrawn[kid]:
		// Clients with its tokens should renew them now rather than wait. But the set
		// may have come from a replica that lagged behind.
		if old {
			k.fetchLocked(time.Now())
		}
		return set
	// Each new set confirms all absent IDs at once, so together they cause no more
	// fetches than one of them.
	case k.absent[kid] && !old:
		return set
	}
	return nil
}

// pauseLocked returns how long a source causes no refetch.
func (k *keySource) pauseLocked(source string) time.Duration {
	now := time.Now()
	return max(-age(now, k.pausedUntil), -age(now, k.absentSources[source]))
}

func unsettled(kid string, retryAfter time.Duration) *Error {
	e := heldUp(retryAfter, errors.New("the key set lacks the token's key ID, and is not fetched for every unknown one"))
	e.attrs = append(e.attrs, slog.String("kid", keyset.Loggable(kid)))
	return e
}

// fetchLocked returns the fetch in progress, and starts one if there is none. It
// returns nil during the backoff after a failure.
func (k *keySource) fetchLocked(now time.Time) *flight {
	if k.flight == nil && reached(now, k.nextTry) {
		k.fetches++
		k.flight = &flight{begun: time.Now(), wanted: make(map[string]bool), done: make(chan struct{})}
		go k.run(k.flight, k.current.Load(), !k.failedAt.IsZero())
	}
	return k.flight
}

// waitAndUnlock unlocks, and waits for a fetch. ended says that the fetch has ended,
// with or without success. The end of ctx ends the wait and not the fetch.
func (k *keySource) waitAndUnlock(ctx context.Context, h held, f *flight) (ended bool, e *Error) {
	defer k.mu.Unlock()
	if f == nil {
		return true, unavailable(time.Until(k.nextTry), k.lastErr)
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
	if ended, e = waitUnlocked(&k.mu, ctx, f); ended && f.err != nil {
		e = unavailable(time.Until(k.nextTry), f.err)
	}
	return ended, e
}

// waitUnlocked waits for a fetch without the lock. It holds the lock again when it
// returns, even by a panic in a user's context.
func waitUnlocked(mu *sync.Mutex, ctx context.Context, f *flight) (ended bool, e *Error) {
	mu.Unlock()
	defer mu.Lock()
	select {
	case <-f.done:
		return true, nil
	case <-ctx.Done():
		return false, heldUp(time.Second, gone{context.Cause(ctx)})
	}
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

func unavailable(retryAfter time.Duration, cause error) *Error {
	e := newError(ErrUnavailable, "the token cannot be checked at the moment, since the issuer's keys are unavailable: try again later")
	e.RetryAfter = max(retryAfter, time.Second)
	e.cause = cause
	return e
}

// heldUp is unavailable for a cause other than a failed fetch. The log counts it
// separately, so that it hides no failed fetch.
func heldUp(retryAfter time.Duration, cause error) *Error {
	e := unavailable(retryAfter, cause)
	e.counted = countedAs(cause)
	return e
}

// run fetches for everyone who waits, so no caller's context can end it.
func (k *keySource) run(f *flight, old *keySet, failedBefore bool) {
	ctx, cancel := context.WithTimeout(context.Background(), k.from.Timeout)
	defer cancel()
	set, err := k.fetchSafely(ctx, old, failedBefore)
	k.mu.Lock()
	if err != nil {
		k.failLocked(err)
	} else {
		k.succeedLocked(f, set)
	}
	k.flight = nil
	retry := k.nextTry
	k.mu.Unlock()
	f.err = err
	close(f.done)
	if err != nil {
		k.logFailure(err, old, retry)
	} else {
		k.logSuccess(old, set, failedBefore)
	}
}

// fetchSafely is fetch limited to the time of ctx, even if a user's HTTPClient panics,
// ends its goroutine as a failing test does, or ignores ctx.
func (k *keySource) fetchSafely(ctx context.Context, old *keySet, failedBefore bool) (*keySet, error) {
	type result struct {
		set *keySet
		err error
	}
	ended := make(chan result, 1)
	go func() {
		r := result{err: errors.New("the HTTPClient ended the fetch")}
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("the HTTPClient panicked: %v", p)
			}
			ended <- r
		}()
		r.set, r.err = k.fetch(ctx, old, failedBefore)
	}()
	select {
	case r := <-ended:
		return r.set, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-ended: // the normal case: the error says what was too slow
		return r.set, r.err
	case <-time.After(10 * time.Millisecond):
		return nil, errors.New("the HTTPClient does not end with its request's context")
	}
}

func (k *keySource) logFailure(err error, old *keySet, retry time.Time) {
	defer func() { _ = recover() }() // a user's slog.Handler must not crash the process from this goroutine
	level := slog.LevelError
	attrs := []slog.Attr{slog.String("issuer", k.from.Issuer), slog.String("reason", err.Error()), slog.Time("next_attempt", retry.UTC())}
	if old.serves(time.Now()) {
		level = slog.LevelWarn
		attrs = append(attrs, slog.Time("last_good_keys_serve_until", old.staleUntil.UTC()))
	}
	k.logger().LogAttrs(context.Background(), level, "m2mauth: the issuer's keys could not be fetched", attrs...)
}

// logSuccess logs new and withdrawn keys, and the end of an outage.
func (k *keySource) logSuccess(old, set *keySet, failedBefore bool) {
	defer func() { _ = recover() }() // as in logFailure
	level := slog.LevelInfo
	if old != nil && !failedBefore {
		level = slog.LevelDebug
	}
	log := func(level slog.Level, message string, attrs ...slog.Attr) {
		attrs = append([]slog.Attr{slog.String("issuer", k.from.Issuer), slog.String("keys_from", set.address())}, attrs...)
		k.logger().LogAttrs(context.Background(), level, message, attrs...)
	}
	log(level, "m2mauth: the issuer's keys were fetched", slog.Int("keys", len(set.Keys)), slog.Time("next_refresh", set.refreshAt.UTC()))
	if old == nil {
		return
	}
	for _, change := range []struct {
		message string
		keys    []*jose.Key
	}{ // of usable keys; logOddities logs the others
		{"m2mauth: the issuer publishes new keys", without(set.Keys, old.Keys)},
		{"m2mauth: the issuer has withdrawn keys, whose tokens are refused from now on", without(old.Keys, set.Keys)},
	} {
		if len(change.keys) > 0 {
			log(slog.LevelInfo, change.message, slog.String("kids", kidsOf(change.keys)), slog.Int("keys", len(change.keys)))
		}
	}
}

// without returns the usable keys that others lacks.
func without(keys, others []*jose.Key) []*jose.Key {
	return slices.DeleteFunc(slices.Clone(keys), func(k *jose.Key) bool { return k.Problem() != nil || slices.Contains(others, k) })
}

// kidsOf lists some key IDs for the log.
func kidsOf(keys []*jose.Key) string {
	var kids []string
	for _, key := range keys[:min(len(keys), maxKIDsLogged)] {
		id, _ := key.ID()
		kids = append(kids, keyset.Loggable(id))
	}
	return strings.Join(kids, " ")
}

func (k *keySource) failLocked(err error) {
	now := time.Now()
	k.failedAt = now
	k.failures++
	k.lastErr = err
	k.backoff = min(max(2*k.backoff, firstBackoff), lastBackoff)
	serving := time.Duration(0) // how long old keys still serve
	if set := k.current.Load(); set != nil {
		serving = max(0, -age(now, set.staleUntil))
	}
	wait := min(k.backoff, serving+keylessBackoff)
	if failed, ok := errors.AsType[*keyset.Error](err); ok {
		wait = max(wait, min(failed.RetryAfter(now), maxRetryAfter))
	}
	k.nextTry = now.Add(wait)
}

func (k *keySource) succeedLocked(f *flight, set *keySet) {
	now := time.Now()
	jitter := refreshFrom + refreshSpread*(2*rand.Float64()-1)
	set.begun = f.begun
	set.fetched = now
	set.refreshAt = now.Add(time.Duration(float64(set.ttl) * jitter))
	set.freshUntil = now.Add(set.ttl)
	set.staleUntil = set.freshUntil.Add(k.staleFor)
	old := k.current.Swap(set)
	k.failedAt, k.nextTry, k.backoff, k.lastErr = time.Time{}, time.Time{}, 0, nil
	if old != nil {
		for kid := range old.ByID {
			remember(k.withdrawn, kid)
		}
	}
	k.chargeLocked(f, set, now)
}

// chargeLocked charges a refetch that brought none of the wanted keys to the bucket,
// and keeps the source and the key ID that caused it.
func (k *keySource) chargeLocked(f *flight, set *keySet, now time.Time) {
	found, caused := false, false
	for kid, cause := range f.wanted {
		caused = caused || cause
		switch {
		case len(set.ByID[kid]) > 0:
			found = true
		case cause: // requests that joined may have a key newer than the fetch
			remember(k.absent, kid)
			maps.DeleteFunc(k.absentSources, func(_ string, until time.Time) bool { return reached(now, until) })
			k.absentSources[f.source] = now.Add(absentSourceFor)
		}
	}
	if found || !caused { // a refresh that was due costs nothing, whoever joined it
		return
	}
	if reached(now, k.bucketFull) {
		k.bucketFull = now
	}
	k.pausedUntil = k.bucketFull
	if next := now.Add(refetchPause); k.pausedUntil.Before(next) {
		k.pausedUntil = next
	}
	k.bucketFull = k.bucketFull.Add(refetchEvery)
}

// remember adds a key ID to a set whose size is limited.
func remember(kids map[string]bool, kid string) {
	if len(kids) >= maxAbsent {
		clear(kids)
	}
	kids[kid] = true
}

// fetch fetches a new set, and logs what is odd about it or about the discovery.
func (k *keySource) fetch(ctx context.Context, old *keySet, failedBefore bool) (*keySet, error) {
	var last *keyset.Set
	rediscover := failedBefore // the keys may have moved
	if old != nil {
		last = old.Set
		rediscover = rediscover || age(time.Now(), old.discovered) >= rediscoverAfter
	}
	set, err := k.from.Fetch(ctx, last, rediscover)
	if err != nil {
		if failed, ok := errors.AsType[*keyset.Error](err); ok {
			k.logFound(failed.Found)
		}
		return nil, err
	}
	k.logFound(set.Found)
	next := &keySet{Set: set, ttl: k.ttlOf(set.MaxAge)}
	switch {
	case set.Discovered:
		next.discovered = time.Now()
	case old != nil:
		next.discovered = old.discovered
	}
	k.logOddities(next, old)
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

func (k *keySource) logFound(found keyset.Found) {
	if found.NotReread != nil {
		k.logger().Warn("m2mauth: the discovery document could not be read again; its last jwks_uri is used", "reason", found.NotReread.Error())
	}
	if found.HTTPKeys != "" {
		k.httpKeys.Do(func() {
			k.logger().Warn("m2mauth: the issuer names its key set over http, and it is asked for over https: at a Logto behind a proxy that ends TLS set TRUST_PROXY_HEADER=1",
				"issuer", k.from.Issuer, "jwks_uri", found.HTTPKeys)
		})
	}
}

// oddityLines says how each kind of oddity is logged.
var oddityLines = map[keyset.OddityKind]struct {
	level slog.Level
	text  string
}{
	keyset.Unusable:      {slog.LevelWarn, "m2mauth: a published key cannot be used and is left out"},
	keyset.ForEncryption: {slog.LevelDebug, "m2mauth: a published key cannot be used and is left out"},
	keyset.Ambiguous:     {slog.LevelWarn, "m2mauth: different keys are published under one name, and the tokens that they sign are refused"},
}

// logOddities logs the oddities that the previous set did not have.
func (k *keySource) logOddities(set, old *keySet) {
	known, logged := make(map[string]bool), make(map[slog.Level]int)
	if old != nil {
		for _, o := range old.Oddities {
			known[o.ID] = true
		}
	}
	for _, o := range set.Oddities {
		line := oddityLines[o.Kind]
		if !known[o.ID] && logged[line.level] < maxOddKeysLogged {
			logged[line.level]++
			k.logger().Log(context.Background(), line.level, line.text, "url", set.address(), "reason", o.Reason, "odd_keys", len(set.Oddities))
		}
		known[o.ID] = true
	}
}
