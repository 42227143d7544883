package m2mauth

import (
	"crypto/sha256"
	"hash/maphash"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/m2mauth/m2mauth/internal/jose"
)

const cacheShards = 16

// tokenCache keeps tokens that passed every check, within a limit of bytes. Each shard
// has two generations. Tokens enter the young one. When that is full it becomes the old
// one, and the previous old one is dropped. A hit in the old one enters its token into
// the young one too, so one-off tokens do not evict tokens in use.
//
// A few busy callers send the same token on every core. So a cached token is found
// without a lock, and without a write to memory that cores share.
type tokenCache struct {
	bytes   int64 // in total
	limit   int64 // bytes per generation and shard
	seed    maphash.Seed
	shards  [cacheShards]cacheShard
	lookups lookupCounts
}

// indexedBytes is how much of a token's end is hashed. That is where signatures differ.
const indexedBytes = 64

// cacheShard finds tokens by a fast hash that callers cannot predict. The hash proves
// no identity: token.is does.
type cacheShard struct {
	generations atomic.Pointer[generations]
	evicted     atomic.Uint64

	mu sync.Mutex // guards changes of the generations and of their tokens, room and count

	_ [64]byte // shards do not share a cache line
}

// generations are those of a shard at one moment. A look-up in both finds every token,
// even one that is entered into the young one meanwhile.
type generations struct{ young, old *generation }

// generation is a hash table that is read while tokens enter. No token leaves it: all
// are dropped at once.
type generation struct {
	heads []atomic.Pointer[cacheEntry] // of chains
	room  int64                        // bytes left
	count int                          // tokens, except those also in a younger generation
}

type cacheEntry struct {
	hash  uint64
	token atomic.Pointer[token] // replaced when verified again, since its key may be newer
	next  *cacheEntry           // never changes
}

// headBytes is how many bytes of tokens share a chain. A token takes at least two
// thirds of that and usually more, so chains are short.
const headBytes = 1024

func newTokenCache(bytes int64) *tokenCache {
	c := &tokenCache{bytes: bytes, limit: bytes / 2 / cacheShards, seed: maphash.MakeSeed()}
	none := newGeneration(0) // has no room, so it is never written to
	for i := range c.shards {
		c.shards[i].generations.Store(&generations{young: none, old: none})
	}
	return c
}

func newGeneration(limit int64) *generation {
	return &generation{heads: make([]atomic.Pointer[cacheEntry], limit/headBytes+1), room: limit}
}

// head returns where a hash's chain begins. It uses the hash's upper bits, since the
// lower ones select the shard.
func (g *generation) head(hash uint64) *atomic.Pointer[cacheEntry] {
	i, _ := bits.Mul64(hash, uint64(len(g.heads)))
	return &g.heads[i]
}

func (g *generation) find(hash uint64) *cacheEntry {
	e := g.head(hash).Load()
	for e != nil && e.hash != hash {
		e = e.next
	}
	return e
}

// add puts a new entry at the head of its chain, so concurrent readers miss nothing.
func (g *generation) add(hash uint64, t *token) {
	head := g.head(hash)
	e := &cacheEntry{hash: hash, next: head.Load()}
	e.token.Store(t)
	head.Store(e)
	g.room -= t.cost()
	g.count++
}

// lookupCounts counts hits and misses. Each core counts in its own stripe, which the
// pool returns to it.
type lookupCounts struct {
	stripes [64]lookupStripe
	pool    sync.Pool     // of pointers to stripes
	handed  atomic.Uint64 // stripes handed out; with more than 64 cores, some are shared
}

type lookupStripe struct {
	hits, misses atomic.Uint64

	_ [112]byte // two cache lines, since processors fetch them in pairs
}

func (c *lookupCounts) count(hit bool) {
	s, _ := c.pool.Get().(*lookupStripe)
	if s == nil {
		s = &c.stripes[c.handed.Add(1)%uint64(len(c.stripes))]
	}
	if hit {
		s.hits.Add(1)
	} else {
		s.misses.Add(1)
	}
	c.pool.Put(s)
}

func (c *lookupCounts) sum() (hits, misses uint64) {
	for i := range c.stripes {
		hits += c.stripes[i].hits.Load()
		misses += c.stripes[i].misses.Load()
	}
	return hits, misses
}

// is reports whether raw is exactly this token. It compares all of it: others that
// compared only a part or a short hash have let strangers in.
func (t *token) is(raw string) bool {
	return strings.HasPrefix(raw, t.kept) && sha256Of(raw[len(t.kept):]) == t.restHash
}

// forget drops what only the signature check needed. Of the second half of the
// signature it keeps a SHA-256, so that a heap dump contains no usable token. What is
// missing is s of ECDSA, S of EdDSA, and of RSA more than Coppersmith's method can find
// with any exponent. Hashing more would make a hit twice as expensive.
func (t *token) forget(raw string) {
	half := len(raw) - (len(raw)-len(t.claims.signed))/2
	t.kept = strings.Clone(raw[:half]) // keeps nothing of the request's memory
	t.claims.signed = t.kept[:len(t.claims.signed)]
	t.restHash = sha256Of(raw[half:])
	t.signature = nil
}

func sha256Of(s string) [sha256.Size]byte { return sha256.Sum256(bytesOf(s)) }

// bytesOf returns a string's bytes without a copy, for functions that only read them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// cost returns how many bytes of memory a cached token takes, with its share of the
// table: measured, and rounded up. Claims hold the content of signed once more, and
// even a scope of one letter takes a string header.
func (t *token) cost() int64 {
	return 640 + int64(len(t.kept)+len(t.claims.signed)) + 32*int64(len(t.claims.scopes.names)+len(t.claims.audience))
}

// get returns a cached token, or nil. What depends on the clock, the keys and the route
// must be checked again.
func (c *tokenCache) get(raw string) *token {
	t, young := c.find(raw)
	c.lookups.count(t != nil)
	if t != nil && !young {
		c.put(raw, t)
	}
	return t
}

// has is get for a caller that missed the token a moment ago. It counts nothing.
func (c *tokenCache) has(raw string, key *jose.Key) bool {
	t, _ := c.find(raw)
	return t != nil && t.key == key
}

func (c *tokenCache) find(raw string) (t *token, young bool) {
	s, hash := c.shardOf(raw)
	g := s.generations.Load()
	e := g.young.find(hash)
	if young = e != nil; !young {
		e = g.old.find(hash)
	}
	if e == nil {
		return nil, false
	}
	if t = e.token.Load(); !t.is(raw) {
		return nil, false
	}
	return t, young
}

func (c *tokenCache) shardOf(raw string) (*cacheShard, uint64) {
	hash := maphash.String(c.seed, raw[max(0, len(raw)-indexedBytes):])
	return &c.shards[hash%cacheShards], hash
}

// put caches a token, which must not change afterwards. A token that exceeds the limit
// alone is not cached.
func (c *tokenCache) put(raw string, t *token) {
	cost := t.cost()
	if cost > c.limit {
		return
	}
	s, hash := c.shardOf(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.generations.Load()
	if known := g.young.find(hash); known != nil {
		g.young.room += known.token.Swap(t).cost() - cost
		return
	}
	if g.old.find(hash) != nil { // only once, since young has it from now on
		g.old.count--
	}
	if g.young.room < cost {
		s.evicted.Add(uint64(g.old.count))
		g = &generations{young: newGeneration(c.limit), old: g.young}
		s.generations.Store(g)
	}
	g.young.add(hash, t)
}
