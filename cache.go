package m2mauth

import (
	"context"
	"crypto/sha256"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/m2mauth/m2mauth/internal/jose"
)

const cacheShards = 16

// tokenCache remembers tokens that passed every check, within a bound of bytes.
// Each shard has two generations. Tokens enter the young one; when that is full
// it becomes the old one, and what was old is forgotten. A hit moves a token back
// to the young generation, so a stream of tokens seen once passes by those in use.
type tokenCache struct {
	bytes  int64 // in all
	limit  int64 // bytes of one generation of one shard
	seed   maphash.Seed
	shards [cacheShards]cacheShard
}

// indexedBytes is how much of a token's end its hash is of: signatures differ there.
const indexedBytes = 64

// cacheShard finds tokens by a hash that is quick and that no caller can aim,
// but is no proof of identity: that is for token.is.
type cacheShard struct {
	hits, misses, evicted atomic.Uint64

	mu         sync.RWMutex // guards the fields below
	young, old map[uint64]*token
	bytes      int64 // of young

	_ [64]byte // shards do not share a cache line
}

func newTokenCache(bytes int64) *tokenCache {
	return &tokenCache{bytes: bytes, limit: bytes / 2 / cacheShards, seed: maphash.MakeSeed()}
}

// is reports whether raw is this very token: all of it, since taking one token
// for another by a part or a short hash is how others came to let strangers in.
func (t *token) is(raw string) bool {
	return strings.HasPrefix(raw, t.kept) && sha256Of(raw[len(t.kept):]) == t.restHash
}

// forget lets go of what only the signature check needed. Of the second half of
// the signature a SHA-256 is kept, so that no token that could be used lies in a
// heap dump: what is missing is s of ECDSA, S of EdDSA, and of RSA's more than
// Coppersmith's method finds with any exponent. To hash more would cost a hit
// twice as much.
func (t *token) forget(raw string) {
	half := len(raw) - (len(raw)-len(t.claims.signed))/2
	t.kept = strings.Clone(raw[:half]) // of the request's memory nothing stays
	t.claims.signed = t.kept[:len(t.claims.signed)]
	t.restHash = sha256Of(raw[half:])
	t.signature = nil
}

func sha256Of(s string) [sha256.Size]byte { return sha256.Sum256(bytesOf(s)) }

// bytesOf returns a string's bytes where they lie, for functions that only read them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// cost is what a remembered token takes of memory, in bytes, with its share of
// the map: measured, and rounded up. Claims hold what is in signed once more, and
// a scope of one letter takes a string header.
func (t *token) cost() int64 {
	return 640 + int64(len(t.kept)+len(t.claims.signed)) + 32*int64(len(t.claims.scopes.names)+len(t.claims.audience))
}

// get returns what is remembered of a token, or nil. What depends on the clock,
// the keys and the route has to be checked again.
func (c *tokenCache) get(raw string) *token {
	s, hash := c.shardOf(raw)
	t, young := s.find(hash)
	if t == nil || !t.is(raw) {
		s.misses.Add(1)
		return nil
	}
	s.hits.Add(1)
	if !young {
		c.put(raw, t)
	}
	return t
}

// has is get for one who missed the token a moment ago: it counts nothing.
func (c *tokenCache) has(raw string, key *jose.Key) bool {
	s, hash := c.shardOf(raw)
	t, _ := s.find(hash)
	return t != nil && t.key == key && t.is(raw)
}

func (c *tokenCache) shardOf(raw string) (*cacheShard, uint64) {
	hash := maphash.String(c.seed, raw[max(0, len(raw)-indexedBytes):])
	return &c.shards[hash%cacheShards], hash
}

func (s *cacheShard) find(hash uint64) (t *token, young bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t, young = s.young[hash]; !young {
		t = s.old[hash]
	}
	return t, young
}

// put remembers a token, which must not change from then on. One that is over
// the limit by itself is not remembered.
func (c *tokenCache) put(raw string, t *token) {
	cost := t.cost()
	if cost > c.limit {
		return
	}
	s, hash := c.shardOf(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.old, hash)
	if known := s.young[hash]; known != nil {
		s.bytes -= known.cost()
	} else if s.young == nil || s.bytes+cost > c.limit {
		s.evicted.Add(uint64(len(s.old)))
		s.old, s.young, s.bytes = s.young, make(map[uint64]*token), 0
	}
	s.young[hash] = t
	s.bytes += cost
}

// maxSharing bounds the requests that wait for others' checks, and sharingBytes is
// what a token may have for one of these places: 24 MiB in all.
const (
	maxSharing   = 8192
	sharingBytes = 3 << 10
)

// checks shares a signature check among requests with the same token, of which
// a client may send many at once.
type checks struct {
	mu      sync.Mutex // guards the fields below
	byKey   map[check]*checkUnderWay
	queue   *queue // of those who wait for another's check
	saved   uint64 // runs of f
	refused uint64 // of those who wait, or would have
}

func newChecks() *checks {
	return &checks{byKey: make(map[check]*checkUnderWay), queue: newQueue(maxSharing, sharingBytes)}
}

// check is what is checked: a token, against a key.
type check struct {
	raw string
	key *jose.Key
}

type checkUnderWay struct {
	done     chan struct{}
	settled  bool // verified is the answer
	verified bool
	e        *Error // why its source gets no answer; with neither, its caller gave up
	source   string
}

// once runs f, or waits until the deadline for the one who runs it for the same
// check already. One that gives up, since its ctx ended or it panicked, leaves f
// to the next; one that is refused leaves it to the next of another source, whose
// place in the queue is another.
func (c *checks) once(ctx context.Context, key check, source func() string, deadline time.Time, f func() (bool, *Error)) (bool, *Error) {
	for {
		c.mu.Lock()
		running := c.byKey[key]
		if running == nil {
			running = &checkUnderWay{done: make(chan struct{})}
			c.byKey[key] = running
			c.mu.Unlock()
			return c.run(ctx, key, running, source, f)
		}
		c.mu.Unlock()
		own := source()
		if e := c.share(ctx, running, own, len(key.raw), deadline); e != nil {
			return false, c.refuse(e)
		}
		if running.e != nil && running.source == own {
			return false, c.refuse(running.e)
		}
		if running.settled {
			return running.verified, nil
		}
	}
}

func (c *checks) run(ctx context.Context, key check, running *checkUnderWay, source func() string, f func() (bool, *Error)) (bool, *Error) {
	defer func() {
		c.mu.Lock()
		delete(c.byKey, key)
		c.mu.Unlock()
		close(running.done)
	}()
	verified, e := f()
	running.verified, running.settled = verified, e == nil
	if e != nil && ctx.Err() == nil {
		shared := *e // e itself is completed by the caller
		running.e, running.source = &shared, source()
	}
	return verified, e
}

// share waits for a check that another runs.
func (c *checks) share(ctx context.Context, running *checkUnderWay, source string, bytes int, deadline time.Time) *Error {
	w := newWaiter(nil)
	c.mu.Lock()
	err := c.queue.enter(w, source, bytes)
	if err == nil {
		c.saved++
	}
	c.mu.Unlock()
	if err != nil {
		return noRoom(err, source)
	}
	cause := c.waitFor(ctx, w, running, deadline)
	switch {
	case cause != nil:
		return busy(ErrUnavailable, cause)
	case w.displaced:
		return noRoom(errOverShare, source)
	}
	return nil
}

// waitFor gives the place back however the wait ends, also by a panic in a context of
// the user's.
func (c *checks) waitFor(ctx context.Context, w *waiter, running *checkUnderWay, deadline time.Time) error {
	defer func() {
		c.mu.Lock()
		w.leave()
		c.mu.Unlock()
	}()
	return w.wait(ctx, running.done, deadline)
}

// refuse counts, and returns the error as one of the caller's own to complete.
func (c *checks) refuse(e *Error) *Error {
	c.mu.Lock()
	c.refused++
	c.mu.Unlock()
	own := *e
	return &own
}
