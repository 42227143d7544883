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

// tokenCache remembers tokens that passed every check, within a bound of bytes.
// Each shard has two generations. Tokens enter the young one; when that is full
// it becomes the old one, and what was old is forgotten. A hit in the old one enters
// its token into the young one too, so one-off tokens do not evict tokens in use.
//
// A few busy callers send one token on every core: a known token is found without a
// lock and without a write to memory that cores share.
type tokenCache struct {
	bytes   int64 // in all
	limit   int64 // bytes of one generation of one shard
	seed    maphash.Seed
	shards  [cacheShards]cacheShard
	lookups lookupCounts
}

// indexedBytes is how much of a token's end its hash is of: signatures differ there.
const indexedBytes = 64

// cacheShard finds tokens by a hash that is quick and that no caller can aim,
// but is no proof of identity: that is for token.is.
type cacheShard struct {
	generations atomic.Pointer[generations]
	evicted     atomic.Uint64

	mu sync.Mutex // guards changes of the generations and of their tokens, room and count

	_ [64]byte // shards do not share a cache line
}

// generations are a shard's at one moment, so that a look-up in both misses no token
// that is entered into the young one meanwhile.
type generations struct{ young, old *generation }

// generation is a hash table that is read while tokens enter. None leaves: all are
// forgotten at once.
type generation struct {
	heads []atomic.Pointer[cacheEntry] // of chains
	room  int64                        // bytes that are left
	count int                          // tokens, but for those that are in a younger generation too
}

type cacheEntry struct {
	hash  uint64
	token atomic.Pointer[token] // replaced when it is verified again: its key may be newer
	next  *cacheEntry           // never changes
}

// headBytes is how many bytes of tokens share a chain. A token takes at least two
// thirds of that and mostly more, so chains are short.
const headBytes = 1024

func newTokenCache(bytes int64) *tokenCache {
	c := &tokenCache{bytes: bytes, limit: bytes / 2 / cacheShards, seed: maphash.MakeSeed()}
	none := newGeneration(0) // has no room, and so is never written to
	for i := range c.shards {
		c.shards[i].generations.Store(&generations{young: none, old: none})
	}
	return c
}

func newGeneration(limit int64) *generation {
	return &generation{heads: make([]atomic.Pointer[cacheEntry], limit/headBytes+1), room: limit}
}

// head is where a hash's chain begins. The hash's upper bits choose it, since the
// lower ones chose the shard.
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

// add puts a new entry before its chain, where those who read the chain miss nothing.
func (g *generation) add(hash uint64, t *token) {
	head := g.head(hash)
	e := &cacheEntry{hash: hash, next: head.Load()}
	e.token.Store(t)
	head.Store(e)
	g.room -= t.cost()
	g.count++
}

// lookupCounts are hits and misses. Each core counts in a stripe of its own, which
// the pool gives back to it.
type lookupCounts struct {
	stripes [64]lookupStripe
	pool    sync.Pool     // of pointers to stripes
	handed  atomic.Uint64 // stripes handed out, also again: above 64 cores, some share one
}

type lookupStripe struct {
	hits, misses atomic.Uint64

	_ [112]byte // two cache lines, which processors fetch together
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
	t, young := c.find(raw)
	c.lookups.count(t != nil)
	if t != nil && !young {
		c.put(raw, t)
	}
	return t
}

// has is get for one who missed the token a moment ago: it counts nothing.
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
	g := s.generations.Load()
	if known := g.young.find(hash); known != nil {
		g.young.room += known.token.Swap(t).cost() - cost
		return
	}
	if g.old.find(hash) != nil { // once, since it is found in young from now on
		g.old.count--
	}
	if g.young.room < cost {
		s.evicted.Add(uint64(g.old.count))
		g = &generations{young: newGeneration(c.limit), old: g.young}
		s.generations.Store(g)
	}
	g.young.add(hash, t)
}
