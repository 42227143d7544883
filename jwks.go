package m2mauth

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/jose"
)

// The issuer's keys. A keySource holds one immutable keySet, the last good one,
// whose age decides what a request does:
//
//	none      the request waits for a fetch
//	fresh     the set serves; from 80 % of its TTL on, a request starts a refresh
//	          and does not wait for it
//	stale     past the TTL. The first request after a pause waits for a refresh;
//	          for a minute after that failed, the set serves without waiting
//	expired   past KeyStaleFor too: as none
//
// A key ID that is not in the set moves nothing but causes a fetch of its own, a
// refetch, of which there are few a minute. It is 401 only if the issuer is known
// not to publish it, and else 503. There is one fetch at a time, a goroutine that ends by
// itself, which all who need it share. After a failed one none is started
// until the backoff has passed, and whoever would wait for it gets 503 at once.
//
// Config has the durations that users may need to change. These need no change:
const (
	// refreshFrom and refreshSpread say when in the TTL a refresh is due: at 80 %,
	// moved by up to 10 % at random, so that a fleet's refreshes spread out.
	refreshFrom, refreshSpread = 0.8, 0.1

	// maxAge of the issuer's Cache-Control is believed within these bounds; a
	// Config.KeyTTL that was set takes the place of the upper one.
	minMaxAge, maxMaxAge = time.Minute, time.Hour

	// Retries after a failed fetch wait the first, then twice as long each time;
	// while no keys serve, and every request is refused, not over keylessBackoff.
	firstBackoff, lastBackoff, keylessBackoff = time.Second, 30 * time.Second, 10 * time.Second

	// An issuer that asks for a longer pause gets it, up to so long.
	maxRetryAfter = time.Minute

	// Refetches that find none of the key IDs they are for come out of a bucket of
	// two, which one is added to every refetchEvery, and are refetchPause apart:
	// made-up IDs cost the issuer twelve a minute.
	refetchEvery, refetchPause = 6 * time.Second, 2 * time.Second

	// A source whose ID was not found causes no refetch for so long, more than
	// refetchEvery: one source's made-up IDs leave the bucket to the others.
	absentSourceFor = 10 * time.Second

	// An ID that its fetch did not find causes no other for absentFor; so many
	// such IDs are remembered, and of those that left the set.
	absentFor, maxAbsent = 30 * time.Second, 1024

	// triedLately is how long after a failed attempt requests with stale keys
	// need not wait for another: longer than our own backoff and a fetch take.
	triedLately = time.Minute

	// maxWaiters bounds the requests that wait for a fetch, and maxHeldBytes what
	// their tokens take together, of all issuers of a guard. With those who wait for
	// signature checks (queuedBytes, sharingBytes) that is 64 MiB.
	maxWaiters   = 8192
	maxHeldBytes = 24 << 20

	// rediscoverAfter is how long a jwks_uri is believed.
	rediscoverAfter = 24 * time.Hour

	maxDocumentBytes = 1 << 20
	maxHeaderBytes   = 64 << 10
	maxKeys          = 1000
	maxRedirects     = 3
	maxOddKeysLogged = 10
	maxKIDsLogged    = 10
)

// keySet is one fetched key set. It is never changed: a refresh makes a new one.
type keySet struct {
	keys []*jose.Key
	byID map[string][]*jose.Key
	odd  map[string]bool // the oddities that were logged of it
	new  map[string]bool // key IDs that the set before lacked

	url, etag  string        // what an If-None-Match may be sent for
	discovered time.Time     // when a discovery document named url; zero with Config.JWKSURL
	ttl        time.Duration // Config.KeyTTL, or the issuer's max-age
	begun      time.Time     // when its fetch began: later, the issuer may have published more
	fetched    time.Time
	refreshAt  time.Time
	freshUntil time.Time
	staleUntil time.Time
}

// address says where the keys are from.
func (s *keySet) address() string {
	return cmp.Or(query.ReplaceAllString(s.url, ""), "Config.JWKS")
}

// index takes the keys into a set that is being made.
func (s *keySet) index(keys []*jose.Key) {
	s.keys, s.byID = keys, make(map[string][]*jose.Key)
	for _, k := range keys {
		if id, ok := k.ID(); ok {
			s.byID[id] = append(s.byID[id], k)
		}
	}
}

// find returns the only key that fits the algorithm: of those with the kid, or
// of all if the token names none. refetch says that a newer set might have it.
func (s *keySet) find(kid string, hasKID bool, alg string) (key *jose.Key, refetch bool) {
	candidates := s.keys
	if hasKID {
		candidates = s.byID[kid]
		refetch = len(candidates) == 0
	}
	for _, k := range candidates {
		if k.Algorithm() != alg {
			continue
		}
		if key != nil && !key.Same(k) {
			return nil, false // which one is meant cannot be told
		}
		key = cmp.Or(key, k)
	}
	return key, refetch
}

// whyNoKey says why find found none.
func whyNoKey(s *keySet, kid string, hasKID bool, alg string) string {
	fits := func(k *jose.Key) bool { return k.Algorithm() == alg }
	switch {
	case hasKID && len(s.byID[kid]) == 0:
		return "the issuer publishes no key with the token's key ID: it was rotated out, or this API has the keys of another server"
	case hasKID && !slices.ContainsFunc(s.byID[kid], fits):
		return "the issuer publishes the token's key, but it cannot be used: its use, its algorithm or its form does not fit the token"
	case hasKID:
		return "the issuer publishes several different keys with the token's key ID, and which one signed it cannot be told"
	case slices.ContainsFunc(s.keys, fits):
		return "the token names no key, and the issuer publishes several that may have signed it"
	}
	return "the token names no key, and the issuer publishes none for its algorithm"
}

// published says for the log what is known of the key that a token names.
func (s *keySet) published(kid string, hasKID bool) slog.Attr {
	var all []string
	if hasKID {
		for _, k := range s.byID[kid] {
			if err := k.Problem(); err != nil {
				all = append(all, err.Error())
			} else {
				all = append(all, "for "+k.Algorithm())
			}
		}
	}
	return slog.String("published", loggable(strings.Join(all, "; ")))
}

// keySource gets and keeps an issuer's keys.
type keySource struct {
	issuer        string
	jwksURL       string // "" = discovery
	client        *http.Client
	rsaAlgorithm  string
	ttl, staleFor time.Duration
	maxTTL        time.Duration // of the issuer's max-age
	timeout       time.Duration
	logger        func() *slog.Logger
	static        bool
	httpKeys      sync.Once // tells of a jwks_uri over http

	current atomic.Pointer[keySet] // nil until the first fetch succeeded

	mu            sync.Mutex // guards the fields below; never held while waiting
	flight        *flight    // the fetch under way
	waiters       int
	fetches       int       // begun so far
	failures      int       // of these
	failedAt      time.Time // when the last attempt failed; zero if it did not
	nextTry       time.Time
	backoff       time.Duration
	lastErr       error
	bucketFull    time.Time            // when the bucket of refetches is full
	pausedUntil   time.Time            // no refetch before
	absentSources map[string]time.Time // who asked for an absent key ID causes none until then
	absent        map[string]bool      // key IDs that a fetch of their own did not find
	withdrawn     map[string]bool      // key IDs that left the set
}

// flight is a fetch that requests wait for.
type flight struct {
	begun  time.Time
	wanted map[string]bool // key IDs that requests wait for; true for the one that caused the fetch
	source string          // of that one
	done   chan struct{}   // closed when the fetch has been settled
	err    error           // set before done is closed
}

func newKeySource(c *Config, rsaAlgorithm string, logger func() *slog.Logger) (*keySource, error) {
	k := &keySource{
		issuer:       c.Issuer,
		jwksURL:      c.JWKSURL,
		rsaAlgorithm: rsaAlgorithm,
		ttl:          c.KeyTTL,
		maxTTL:       maxMaxAge,
		staleFor:     c.KeyStaleFor,
		timeout:      c.FetchTimeout,
		logger:       logger,

		absentSources: make(map[string]time.Time),
		absent:        make(map[string]bool),
		withdrawn:     make(map[string]bool),
	}
	if c.JWKS != nil {
		keys, odd, err := k.parse(c.JWKS)
		if err != nil {
			return nil, fmt.Errorf("m2mauth: Config.JWKS: %w", err)
		}
		set := new(keySet)
		set.index(keys)
		set.odd = k.logOddities(set.address(), append(odd, severalFit(keys)...), nil)
		k.current.Store(set)
		k.static = true
		return k, nil
	}
	k.client = fetchClient(c.HTTPClient, c.FetchTimeout)
	return k, nil
}

// fetchClient returns a client that follows redirects within an origin alone:
// another origin must not get to say which keys sign the issuer's tokens.
func fetchClient(configured *http.Client, timeout time.Duration) *http.Client {
	client := http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: timeout}).DialContext, // connecting is not ended by the request's context
		TLSHandshakeTimeout:    timeout,
		DisableKeepAlives:      true, // minutes lie between fetches: keep no connection and no goroutine
		MaxResponseHeaderBytes: maxHeaderBytes,
	}}
	if configured != nil {
		client = *configured
	}
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if !sameOrigin(r.URL, via[0].URL) {
			return errors.New("redirected to another origin")
		}
		if len(via) > maxRedirects {
			return errors.New("redirected too often")
		}
		return nil
	}
	return &client
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && lowerASCII(a.Hostname()) == lowerASCII(b.Hostname()) && port(a) == port(b)
}

// sameButForTLS reports whether a URL is an origin's in all but that it has http
// for https.
func sameButForTLS(plain, origin *url.URL) bool {
	return plain.Scheme == "http" && lowerASCII(plain.Hostname()) == lowerASCII(origin.Hostname()) &&
		(port(plain) == port(origin) || port(plain) == "80" && port(origin) == "443")
}

func port(u *url.URL) string {
	return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
}

// find returns the key that a token is to be verified with. It waits for one
// fetch at most; waited says that this was for keys past their end, and so that
// now may be past. A key that a refetch brought is none that verified a token.
// source is whom the request counts as.
func (k *keySource) find(ctx context.Context, now time.Time, h held, kid string, hasKID bool, alg string, source func() string) (key *jose.Key, waited bool, e *Error) {
	set, waited, e := k.get(ctx, now, h)
	if e != nil {
		return nil, waited, e
	}
	key, refetch := set.find(kid, hasKID, alg)
	if refetch {
		if set, e = k.refetch(ctx, now, h, kid, waited, source); e != nil {
			return nil, waited, e
		}
		key, _ = set.find(kid, hasKID, alg)
	}
	if key == nil {
		return nil, waited, newError(ErrUnknownKey, whyNoKey(set, kid, hasKID, alg), slog.String("kid", loggable(kid)), slog.String("alg", alg),
			set.published(kid, hasKID), slog.String("keys_from", set.address()), slog.Int("keys", len(set.keys)))
	}
	return key, waited, nil
}

// get returns the keys that may be trusted now, and sees to it that they are
// refreshed when that is due; waited says that it waited for that.
func (k *keySource) get(ctx context.Context, now time.Time, h held) (set *keySet, waited bool, e *Error) {
	set = k.current.Load()
	if set != nil && (k.static || !reached(now, set.refreshAt)) {
		return set, false, nil
	}
	return k.renew(ctx, now, h)
}

// renew is get for keys that were missing or due a moment ago.
func (k *keySource) renew(ctx context.Context, now time.Time, h held) (set *keySet, waited bool, e *Error) {
	k.mu.Lock()
	set = k.current.Load()
	if set != nil && !reached(now, set.refreshAt) { // refreshed while we waited for the lock
		k.mu.Unlock()
		return set, false, nil
	}
	f := k.fetchLocked(now)
	if set != nil && (!reached(now, set.freshUntil) || !reached(now, set.staleUntil) && k.triedLocked(now)) {
		k.mu.Unlock()
		return set, false, nil
	}
	ended, e := k.waitAndUnlock(ctx, h, f)
	set = k.current.Load()
	if ended && set != nil && !reached(time.Now(), set.staleUntil) {
		return set, true, nil // refreshed, or stale and tried
	}
	return nil, true, cmp.Or(e, heldUp(time.Second, errors.New("the keys expired while they were waited for")))
}

// triedLocked reports whether a failed attempt speaks for serving stale keys
// without another: one so late that requests have not paused. Otherwise requests
// wait, or after a pause a key that was withdrawn long ago would open one last
// request, though the outage is over.
func (k *keySource) triedLocked(now time.Time) bool {
	return !k.failedAt.IsZero() && age(now, k.failedAt) < triedLately
}

// refetch returns the set to look an unknown kid up in once more: one that settles
// whether the issuer publishes it. A request that has waited already does not wait
// again. Where nothing is settled, the token may be fine, and the answer is 503.
func (k *keySource) refetch(ctx context.Context, now time.Time, h held, kid string, waited bool, source func() string) (*keySet, *Error) {
	if k.static {
		return k.current.Load(), nil
	}
	from := source() // a user's function, and so not under the lock
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
	return nil, unsettled(kid, k.pauseLocked(from)) // it joined a fetch that began before it came
}

// settledLocked returns the present set if that says whether the issuer publishes
// a kid, to a request that came at now, and has waited for a set since then or not.
func (k *keySource) settledLocked(now time.Time, kid string, waited bool) *keySet {
	set := k.current.Load()
	switch old := age(time.Now(), set.fetched) >= absentFor; {
	case len(set.byID[kid]) > 0, waited && !set.begun.Before(now):
		return set
	case k.withdrawn[kid]:
		// Those who still have its tokens shall renew them, and not wait. But a
		// set that lacked it may have come from a replica that was late.
		if old {
			k.fetchLocked(time.Now())
		}
		return set
	// Each new set tells of all absent IDs that they still are: together they
	// cause no more fetches than one of them.
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
	e.attrs = append(e.attrs, slog.String("kid", loggable(kid)))
	return e
}

// fetchLocked returns the fetch under way, which it starts if there is none. It
// returns nil while a failure's backoff lasts.
func (k *keySource) fetchLocked(now time.Time) *flight {
	if k.flight == nil && reached(now, k.nextTry) {
		k.fetches++
		k.flight = &flight{begun: time.Now(), wanted: make(map[string]bool), done: make(chan struct{})}
		go k.run(k.flight, k.current.Load(), !k.failedAt.IsZero())
	}
	return k.flight
}

// waitAndUnlock waits for a fetch, after it has unlocked; ended says that the
// fetch has ended, well or badly. The end of ctx frees the one who waits and
// leaves the fetch alone.
func (k *keySource) waitAndUnlock(ctx context.Context, h held, f *flight) (ended bool, e *Error) {
	defer k.mu.Unlock()
	if f == nil {
		return true, unavailable(time.Until(k.nextTry), k.lastErr)
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

// waitUnlocked waits for a fetch without the lock, and has it again when it ends,
// also by a panic in a context of the user's.
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

// held is what a request that waits holds: bytes of its token, of a guard's total.
// The zero held is that of one without a token.
type held struct {
	total *atomic.Int64
	bytes int
}

// waitsFor is what a request holds that waits for keys with a token.
func (g *Guard) waitsFor(raw string) held { return held{g.waitingBytes, len(raw)} }

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
	e := newError(ErrUnavailable, "the token cannot be checked at the moment, since the issuer's keys cannot be had: try again later")
	e.RetryAfter = max(retryAfter, time.Second)
	e.cause = cause
	return e
}

// heldUp is unavailable for a cause that is no failed fetch, and hides none.
func heldUp(retryAfter time.Duration, cause error) *Error {
	e := unavailable(retryAfter, cause)
	e.counted = countedAs(cause)
	return e
}

// run fetches on behalf of all who wait, and of no one of them.
func (k *keySource) run(f *flight, old *keySet, rediscover bool) {
	ctx, cancel := context.WithTimeout(context.Background(), k.timeout)
	defer cancel()
	set, err := k.fetchSafely(ctx, old, rediscover)
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
		k.logSuccess(old, set, rediscover)
	}
}

// fetchSafely is fetch within the time of ctx, whatever a user's HTTPClient
// does: panic, end its goroutine as a failing test does, or not heed ctx.
func (k *keySource) fetchSafely(ctx context.Context, old *keySet, rediscover bool) (*keySet, error) {
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
		r.set, r.err = k.fetch(ctx, old, rediscover)
	}()
	select {
	case r := <-ended:
		return r.set, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-ended: // as it should be: with an error that says what was too slow
		return r.set, r.err
	case <-time.After(10 * time.Millisecond):
		return nil, errors.New("the HTTPClient does not end with its request's context")
	}
}

func (k *keySource) logFailure(err error, old *keySet, retry time.Time) {
	defer func() { _ = recover() }() // a user's slog.Handler must not end the process from this goroutine
	level := slog.LevelError
	attrs := []slog.Attr{slog.String("issuer", k.issuer), slog.String("reason", err.Error()), slog.Time("next_attempt", retry.UTC())}
	if old != nil && !reached(time.Now(), old.staleUntil) {
		level = slog.LevelWarn
		attrs = append(attrs, slog.Time("last_good_keys_serve_until", old.staleUntil.UTC()))
	}
	k.logger().LogAttrs(context.Background(), level, "m2mauth: the issuer's keys could not be fetched", attrs...)
}

// logSuccess tells of keys that come and go, and of the end of an outage.
func (k *keySource) logSuccess(old, set *keySet, failedBefore bool) {
	defer func() { _ = recover() }() // as in logFailure
	level := slog.LevelInfo
	if old != nil && !failedBefore {
		level = slog.LevelDebug
	}
	log := func(level slog.Level, message string, attrs ...slog.Attr) {
		attrs = append([]slog.Attr{slog.String("issuer", k.issuer), slog.String("keys_from", set.address())}, attrs...)
		k.logger().LogAttrs(context.Background(), level, message, attrs...)
	}
	log(level, "m2mauth: the issuer's keys were fetched", slog.Int("keys", len(set.keys)), slog.Time("next_refresh", set.refreshAt.UTC()))
	if old == nil {
		return
	}
	for _, change := range []struct {
		message string
		keys    []*jose.Key
	}{ // of keys that can be used: of the others logOddities tells
		{"m2mauth: the issuer publishes new keys", without(set.keys, old.keys)},
		{"m2mauth: the issuer has withdrawn keys, whose tokens are refused from now on", without(old.keys, set.keys)},
	} {
		if len(change.keys) > 0 {
			log(slog.LevelInfo, change.message, slog.String("kids", kidsOf(change.keys)), slog.Int("keys", len(change.keys)))
		}
	}
}

// without returns those keys that can be used and that the others lack.
func without(keys, others []*jose.Key) []*jose.Key {
	return slices.DeleteFunc(slices.Clone(keys), func(k *jose.Key) bool { return k.Problem() != nil || slices.Contains(others, k) })
}

// kidsOf names some keys for a log.
func kidsOf(keys []*jose.Key) string {
	var kids []string
	for _, key := range keys[:min(len(keys), maxKIDsLogged)] {
		id, _ := key.ID()
		kids = append(kids, loggable(id))
	}
	return strings.Join(kids, " ")
}

func (k *keySource) failLocked(err error) {
	now := time.Now()
	k.failedAt = now
	k.failures++
	k.lastErr = err
	k.backoff = min(max(2*k.backoff, firstBackoff), lastBackoff)
	serving := time.Duration(0) // for how long old keys do
	if set := k.current.Load(); set != nil {
		serving = max(0, -age(now, set.staleUntil))
	}
	wait := min(k.backoff, serving+keylessBackoff)
	var failed *fetchError
	if errors.As(err, &failed) {
		wait = max(wait, min(failed.retryAfter, maxRetryAfter))
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
		set.new = lacking(old.byID, set.byID)
		for kid := range lacking(set.byID, old.byID) {
			if !old.new[kid] { // else a replica that is late may have answered
				remember(k.withdrawn, kid)
			}
		}
	}
	k.chargeLocked(f, set, now)
}

// lacking returns the key IDs that one set lacks of another's.
func lacking(in, of map[string][]*jose.Key) map[string]bool {
	kids := make(map[string]bool)
	for kid := range of {
		if in[kid] == nil {
			kids[kid] = true
		}
	}
	return kids
}

// chargeLocked takes a refetch that brought none of the wanted keys out of the
// bucket, and remembers who caused it, and for which key ID.
func (k *keySource) chargeLocked(f *flight, set *keySet, now time.Time) {
	found, caused := false, false
	for kid, cause := range f.wanted {
		caused = caused || cause
		switch {
		case len(set.byID[kid]) > 0:
			found = true
		case cause: // those who joined may have a key that is newer than the fetch
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

// remember adds a key ID to a set of them that stays small.
func remember(kids map[string]bool, kid string) {
	if len(kids) >= maxAbsent {
		clear(kids)
	}
	kids[kid] = true
}

// fetchError is a failed request for a document.
type fetchError struct {
	url        string
	err        error
	retryAfter time.Duration
}

// query matches the queries of URLs, which may hold secrets.
var query = regexp.MustCompile(`\?[^\s"]*`)

func (e *fetchError) Error() string {
	return query.ReplaceAllString("GET "+e.url+": "+e.err.Error(), "")
}
func (e *fetchError) Unwrap() error { return e.err }

// fetch gets the key set, and the discovery document first if that is due. A
// set is refused as a whole or replaces the old one as a whole, so that a
// withdrawn key is gone.
func (k *keySource) fetch(ctx context.Context, old *keySet, rediscover bool) (*keySet, error) {
	next := &keySet{url: k.jwksURL}
	if k.jwksURL == "" {
		var err error
		if next.url, next.discovered, err = k.discover(ctx, old, rediscover); err != nil {
			return nil, err
		}
	}
	if old != nil && old.url == next.url {
		next.etag = old.etag
	}
	doc, err := k.download(ctx, next.url, next.etag)
	if err != nil {
		return nil, err
	}
	next.ttl = k.ttlOf(doc.header)
	if doc.notModified {
		next.keys, next.byID, next.odd = old.keys, old.byID, old.odd
		return next, nil
	}
	keys, odd, err := k.parse(doc.body)
	if err != nil {
		return nil, &fetchError{url: next.url, err: err}
	}
	var known map[string]bool
	if old != nil {
		known = old.odd
		for i, key := range keys {
			if same := slices.IndexFunc(old.keys, key.Equal); same >= 0 {
				keys[i] = old.keys[same] // tokens that it verified stay remembered
			}
		}
	}
	next.index(keys)
	next.odd = k.logOddities(next.address(), append(odd, severalFit(keys)...), known)
	next.etag = doc.header.Get("ETag")
	return next, nil
}

// oddity is what an operator may want to know of a key set that is taken.
type oddity struct {
	level        slog.Level
	text, reason string
	of           string // what tells it from others with the same reason
}

// logOddities logs those that are not known from the set before, and returns what
// is to be known of this one.
func (k *keySource) logOddities(address string, odd []oddity, known map[string]bool) map[string]bool {
	seen, logged := make(map[string]bool), make(map[slog.Level]int)
	for _, o := range odd {
		id := o.reason + o.of
		if !seen[id] && !known[id] && logged[o.level] < maxOddKeysLogged {
			logged[o.level]++
			k.logger().Log(context.Background(), o.level, o.text, "url", address, "reason", o.reason, "odd_keys", len(odd))
		}
		seen[id] = true
	}
	return seen
}

// severalFit finds the keys that make each other useless, since a token names no
// one of them.
func severalFit(keys []*jose.Key) (odd []oddity) {
	type name struct {
		id    string
		hasID bool
		alg   string
	}
	counts := make(map[name]int)
	for _, key := range keys {
		id, hasID := key.ID()
		n := name{id, hasID, key.Algorithm()}
		if n.alg == "" {
			continue
		}
		if counts[n]++; counts[n] == 2 {
			reason := fmt.Sprintf("kid %q, alg %s", loggable(id), n.alg)
			if !hasID {
				reason = "no kid, alg " + n.alg
			}
			odd = append(odd, oddity{level: slog.LevelWarn, reason: reason,
				text: "m2mauth: different keys are published under one name, and the tokens that they sign are refused"})
		}
	}
	return odd
}

// ttlOf takes the TTL from max-age, if it is positive, within bounds. Logto says
// no-cache and max-age=0: taken literally, every request would ask it.
func (k *keySource) ttlOf(h http.Header) time.Duration {
	age, seen := time.Duration(0), false
	for _, directive := range strings.Split(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-cache", "no-store":
			return k.ttl
		case "max-age":
			seconds, ok := deltaSeconds(strings.Trim(value, `"`))
			if seen || !ok {
				return k.ttl
			}
			age, seen = seconds, true
		}
	}
	if age <= 0 {
		return k.ttl
	}
	return min(max(age, minMaxAge, 10*k.timeout), k.maxTTL)
}

// discover returns the jwks_uri of the issuer's discovery document, which it
// reads again once a day, and after a failure, since the keys may have moved.
// While the jwks_uri of old keys is known, a failure to read it again is none.
func (k *keySource) discover(ctx context.Context, old *keySet, again bool) (string, time.Time, error) {
	if old == nil {
		address, err := k.readDiscovery(ctx)
		return address, time.Now(), err
	}
	if !again && age(time.Now(), old.discovered) < rediscoverAfter {
		return old.url, old.discovered, nil
	}
	ctx, cancel := context.WithTimeout(ctx, k.timeout/2) // leaves time for the keys
	defer cancel()
	address, err := k.readDiscovery(ctx)
	if err != nil {
		k.logger().Warn("m2mauth: the discovery document could not be read again; its last jwks_uri is used", "reason", err.Error())
		return old.url, old.discovered, nil
	}
	return address, time.Now(), nil
}

// Where discovery documents are: at an issuer, and for the second also between
// its host and path.
const (
	openIDDocument = "/.well-known/openid-configuration"
	oauthDocument  = "/.well-known/oauth-authorization-server"
)

// readDiscovery asks for OpenID Connect's document, and where there is none (any
// 4xx but 429, or something else than a JSON object) for RFC 8414's: appended to the issuer, as Logto serves it, and inserted before its
// path, as the RFC has it (§3.1).
func (k *keySource) readDiscovery(ctx context.Context) (string, error) {
	base := strings.TrimSuffix(k.issuer, "/")
	issuer, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	var first error
	for _, address := range []string{
		base + openIDDocument,
		base + oauthDocument,
		issuer.Scheme + "://" + issuer.Host + oauthDocument + issuer.EscapedPath(),
	} {
		doc, err := k.download(ctx, address, "")
		if err == nil {
			var endpoint string
			endpoint, err = k.jwksURI(doc.body, issuer)
			if err == nil {
				return endpoint, nil
			}
			err = &fetchError{url: address, err: err}
		}
		if !errors.Is(err, errNotHere) { // it is here, and this is what is wrong with it
			return "", err
		}
		first = cmp.Or(first, err)
	}
	return "", first
}

// jwksURI reads a discovery document (OpenID Connect Discovery §3, RFC 8414 §2).
func (k *keySource) jwksURI(body []byte, issuer *url.URL) (string, error) {
	var metadata struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if object := jsontext.Value(body); object.Kind() != '{' || !object.IsValid(lenient...) { // a page for people, say
		return "", absent("not a discovery document: no JSON object")
	}
	if err := json.Unmarshal(body, &metadata); err != nil {
		return "", errors.New("not a discovery document: a member has the wrong type or is there twice, or a string is not UTF-8")
	}
	if metadata.Issuer != k.issuer {
		return "", fmt.Errorf("the document is of issuer %s, not of Config.Issuer", loggable(metadata.Issuer))
	}
	u, err := url.Parse(metadata.JWKSURI)
	if err != nil || u.Host == "" || u.User != nil { // which is not shown: it may have a password
		return "", errors.New("the document has no jwks_uri that is an absolute URL without user and password")
	}
	if issuer.Scheme == "https" && sameButForTLS(u, issuer) {
		k.httpKeys.Do(func() {
			k.logger().Warn("m2mauth: the issuer names its key set over http, and it is asked for over https: at a Logto behind a proxy that ends TLS set TRUST_PROXY_HEADER=1",
				"issuer", k.issuer, "jwks_uri", loggable(query.ReplaceAllString(metadata.JWKSURI, "")))
		})
		u.Scheme, u.Host = issuer.Scheme, issuer.Host
		return u.String(), nil
	}
	// A Logto document's jwks_uri follows the Host header of the request, so a
	// poisoned cache could move it.
	if !sameOrigin(u, issuer) {
		return "", fmt.Errorf("jwks_uri %s is not of the issuer's origin: if the keys are there indeed, set Config.JWKSURL", loggable(metadata.JWKSURI))
	}
	return metadata.JWKSURI, nil
}

// document is what a URL answered.
type document struct {
	header      http.Header
	body        []byte
	notModified bool
}

// absent says that there is no document at an address, so that there may be one
// at another.
type absent string

var errNotHere = errors.New("no document")

func (a absent) Error() string        { return string(a) }
func (a absent) Is(target error) bool { return target == errNotHere }

func (k *keySource) download(ctx context.Context, address, etag string) (*document, error) {
	failed := func(err error, retryAfter time.Duration) (*document, error) {
		return nil, &fetchError{address, err, retryAfter}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return failed(errors.New("not a URL that can be asked"), 0)
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	// A cache on the way may still have the keys of before a rotation. With no-cache,
	// which says as much, Logto would never answer 304.
	r.Header.Set("Cache-Control", "max-age=0")
	r.Header.Set("User-Agent", "m2mauth")
	if etag != "" {
		r.Header.Set("If-None-Match", etag)
	}
	response, err := k.client.Do(r)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) { // its text has the whole URL
			err = wrapped.Err
		}
		return failed(err, 0)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		if etag == "" {
			return failed(errors.New("304 Not Modified, which was not asked for"), 0)
		}
		return &document{header: response.Header, notModified: true}, nil
	case http.StatusNotFound:
		return failed(absent("404 Not Found"), 0)
	default:
		if response.StatusCode/100 == 4 && response.StatusCode != http.StatusTooManyRequests {
			return failed(absent(fmt.Sprintf("status %d", response.StatusCode)), retryAfter(response.Header))
		}
		return failed(fmt.Errorf("status %d", response.StatusCode), retryAfter(response.Header))
	}
	decoded, err := decode(response)
	if err != nil {
		return failed(err, 0)
	}
	body, err := io.ReadAll(io.LimitReader(decoded, maxDocumentBytes+1))
	if err != nil {
		return failed(err, 0)
	}
	if len(body) > maxDocumentBytes {
		return failed(errors.New("the document is larger than 1 MiB"), 0)
	}
	return &document{header: response.Header, body: body}, nil
}

// decode undoes gzip that the transport left: it undoes only what it asked for
// itself, and some servers compress unasked.
func decode(response *http.Response) (io.Reader, error) {
	coding := strings.Join(response.Header.Values("Content-Encoding"), ", ")
	switch lowerASCII(strings.Trim(coding, " \t")) {
	case "", "identity":
		return response.Body, nil
	case "gzip", "x-gzip": // RFC 9110 §8.4.1.3
		return gzip.NewReader(response.Body)
	}
	return nil, fmt.Errorf("the document has the content coding %s, which cannot be read", loggable(coding))
}

// retryAfter reads both forms of the field (RFC 9110 §10.2.3). What cannot be
// read is 0; who takes it puts a bound on it.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if at, err := http.ParseTime(value); err == nil {
		return time.Until(at)
	}
	seconds, _ := deltaSeconds(value)
	return seconds
}

// deltaSeconds reads digits alone (RFC 9111 §1.2.2). What is over the range is
// the range's end.
func deltaSeconds(s string) (d time.Duration, ok bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, _ := strconv.ParseUint(s, 10, 31)
	return time.Duration(n) * time.Second, true
}

// parse reads a key set (RFC 7517 §5). Keys that cannot be used are left out and
// told in odd, so that a new kind of key does not take the others along; but
// their IDs stay known. A set without any usable key is refused.
func (k *keySource) parse(body []byte) (keys []*jose.Key, odd []oddity, err error) {
	body = bytes.TrimPrefix(body, []byte("\ufeff")) // RFC 8259 §8.1 lets readers skip it
	var list jsontext.Value
	err = readObject(body, func(name []byte, value jsontext.Value) error {
		if string(name) != "keys" {
			return nil
		}
		if list != nil {
			return errors.New("two members named keys")
		}
		list = value
		return nil
	}, lenient...)
	if err != nil {
		return nil, nil, errors.New("not a JSON Web Key Set: " + err.Error())
	}
	if list == nil {
		return nil, nil, errors.New("not a JSON Web Key Set: no member keys; a single key is put as {\"keys\":[…]}")
	}
	total, usable := 0, 0
	byID := make(map[string][]*jose.Key)
	err = readArray(list, func(raw jsontext.Value) error {
		if total++; total > maxKeys {
			return fmt.Errorf("more than %d keys", maxKeys)
		}
		key, err := jose.ParseKey(raw, k.rsaAlgorithm)
		if err != nil {
			odd = append(odd, oddKey(key, raw, err))
		} else {
			usable++
		}
		if key == nil {
			return nil
		}
		if id, _ := key.ID(); !slices.ContainsFunc(byID[id], key.Equal) { // one that is there twice is one
			keys, byID[id] = append(keys, key), append(byID[id], key)
		}
		return nil
	}, lenient...)
	if err != nil {
		return nil, nil, errors.New("not a JSON Web Key Set: " + err.Error())
	}
	if usable == 0 {
		first := "none"
		if len(odd) > 0 {
			first = odd[0].reason
		}
		return nil, nil, fmt.Errorf("the key set has no usable key: of %d, the first: %s", total, first)
	}
	return keys, odd, nil
}

func oddKey(key *jose.Key, raw jsontext.Value, err error) oddity {
	o := oddity{level: slog.LevelWarn, text: "m2mauth: a published key cannot be used and is left out", reason: err.Error()}
	if errors.Is(err, jose.ErrEncryption) { // many issuers have one, and nothing is wrong with it
		o.level = slog.LevelDebug
	}
	if key != nil {
		id, _ := key.ID()
		o.reason = fmt.Sprintf("kid %q: %s", loggable(id), o.reason)
	}
	form := raw.Clone() // in which the order of members does not count
	if form.Canonicalize() != nil {
		form = raw
	}
	sum := sha256.Sum256(form)
	o.of = string(sum[:])
	return o
}
