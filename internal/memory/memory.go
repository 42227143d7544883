// Package memory keeps values under long names such as tokens, within a limit of bytes.
// It knows nothing of tokens.
package memory

import (
	"crypto/sha256"
	"hash/maphash"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"
)

const shards = 16

// Table keeps values within a limit of bytes. Each shard has two generations. Values
// enter the young one. When that is full it becomes the old one, and the previous old
// one is dropped. A hit in the old one enters its value into the young one too, so
// values that are asked for once do not evict those in use.
//
// The same few values may be asked for on every core. So one is found without a lock,
// and without a write to memory that cores share.
type Table[T any] struct {
	limit   int64 // bytes per generation and shard
	seed    maphash.Seed
	shards  [shards]shard[T]
	lookups lookups
}

// indexedBytes is how much of a name's end is hashed. That is where signatures differ.
const indexedBytes = 64

// shard finds values by a fast hash that callers cannot predict. The hash proves no
// identity: record.is does.
type shard[T any] struct {
	generations atomic.Pointer[generations[T]]
	evicted     atomic.Uint64

	mu sync.Mutex // guards changes of the generations and of their records, room and count

	_ [64]byte // shards do not share a cache line
}

// generations are those of a shard at one moment. A look-up in both finds every value,
// even one that is entered into the young one meanwhile.
type generations[T any] struct{ young, old *generation[T] }

// generation is a hash table that is read while values enter. No value leaves it: all
// are dropped at once.
type generation[T any] struct {
	heads []atomic.Pointer[link[T]] // of chains
	room  int64                     // bytes left
	size  int64                     // room of the empty generation
	count int                       // values, except those also in a younger generation
}

type link[T any] struct {
	hash   uint64
	next   *link[T]                  // never changes
	record atomic.Pointer[record[T]] // replaced when its value is put again
}

// record is a name and its value. It never changes.
type record[T any] struct {
	kept     string            // the name's beginning
	restHash [sha256.Size]byte // of the rest
	cost     int64
	value    T
}

// is reports whether name is exactly this record's. It compares all of it: others that
// compared only a part or a short hash have let strangers in.
func (r *record[T]) is(name string) bool {
	return strings.HasPrefix(name, r.kept) && sha256Of(name[len(r.kept):]) == r.restHash
}

func sha256Of(s string) [sha256.Size]byte {
	return sha256.Sum256(unsafe.Slice(unsafe.StringData(s), len(s))) // without a copy
}

// headBytes is how many bytes of values share a chain. A value's cost is at least two
// thirds of that and usually more, so chains are short.
const headBytes = 1024

// New returns a table for values that cost so many bytes together.
func New[T any](bytes int64) *Table[T] {
	t := &Table[T]{limit: bytes / 2 / shards, seed: maphash.MakeSeed(), lookups: newLookups()}
	none := newGeneration[T](0) // has no room, so it is never written to
	for i := range t.shards {
		t.shards[i].generations.Store(&generations[T]{young: none, old: none})
	}
	return t
}

func newGeneration[T any](limit int64) *generation[T] {
	return &generation[T]{heads: make([]atomic.Pointer[link[T]], limit/headBytes+1), room: limit, size: limit}
}

// head returns where a hash's chain begins. It uses the hash's upper bits, since the
// lower ones select the shard.
func (g *generation[T]) head(hash uint64) *atomic.Pointer[link[T]] {
	i, _ := bits.Mul64(hash, uint64(len(g.heads)))
	return &g.heads[i]
}

func (g *generation[T]) find(hash uint64) *link[T] {
	l := g.head(hash).Load()
	for l != nil && l.hash != hash {
		l = l.next
	}
	return l
}

// add puts a link to a record at the head of its chain, so concurrent readers miss
// nothing.
func (g *generation[T]) add(l *link[T], r *record[T]) {
	head := g.head(l.hash)
	l.next = head.Load()
	l.record.Store(r)
	head.Store(l)
	g.room -= r.cost
	g.count++
}

// Get returns the value under a name, and counts a hit or a miss.
func (t *Table[T]) Get(name string) (value T, ok bool) {
	s, hash := t.shardOf(name)
	r, young := s.find(hash, name)
	t.lookups.count(r != nil)
	if r == nil {
		return value, false
	}
	if !young {
		s.enter(t.limit, &link[T]{hash: hash}, r)
	}
	return r.value, true
}

// Peek is Get for a caller that missed the value a moment ago. It counts nothing, and
// the value counts as unused.
func (t *Table[T]) Peek(name string) (value T, ok bool) {
	s, hash := t.shardOf(name)
	if r, _ := s.find(hash, name); r != nil {
		return r.value, true
	}
	return value, false
}

func (s *shard[T]) find(hash uint64, name string) (r *record[T], young bool) {
	g := s.generations.Load()
	l := g.young.find(hash)
	if young = l != nil; !young {
		l = g.old.find(hash)
	}
	if l == nil {
		return nil, false
	}
	if r = l.record.Load(); !r.is(name) {
		return nil, false
	}
	return r, young
}

func (t *Table[T]) shardOf(name string) (*shard[T], uint64) {
	hash := maphash.String(t.seed, name[max(0, len(name)-indexedBytes):])
	return &t.shards[hash%shards], hash
}

// Put keeps a value under a name, in the place of an earlier one. Of the name, only kept
// is stored, with which it begins, and a SHA-256 of the rest. Bytes is what the value
// takes, with up to 150 for the table; kept is counted here. A value that exceeds the
// limit alone is not kept.
func (t *Table[T]) Put(name, kept string, value T, bytes int64) {
	cost := bytes + int64(len(kept))
	if cost > t.limit {
		return
	}
	s, hash := t.shardOf(name)
	// Link and record are two objects: a record that moves to the young generation must not
	// hold the chain of the old one.
	s.enter(t.limit, &link[T]{hash: hash}, &record[T]{kept, sha256Of(name[len(kept):]), cost, value})
}

// enter puts a record into the young generation.
func (s *shard[T]) enter(limit int64, l *link[T], r *record[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.generations.Load()
	if known := g.young.find(l.hash); known != nil {
		g.young.room += known.record.Swap(r).cost - r.cost
		return
	}
	if g.old.find(l.hash) != nil { // only once, since young has it from now on
		g.old.count--
	}
	if g.young.room < r.cost {
		s.evicted.Add(uint64(g.old.count))
		g = &generations[T]{young: newGeneration[T](limit), old: g.young}
		s.generations.Store(g)
	}
	g.young.add(l, r)
}

// Stats counts what happened to values since the table was made.
type Stats struct {
	Hits, Misses uint64 // of Get
	Evicted      uint64 // values dropped to make room
	Kept         int    // values that are there now
	Bytes        int64  // that they cost, of the table's limit
}

// Stats returns the current counts.
func (t *Table[T]) Stats() (s Stats) {
	s.Hits, s.Misses = t.lookups.sum()
	for i := range t.shards {
		shard := &t.shards[i]
		s.Evicted += shard.evicted.Load()
		shard.mu.Lock()
		g := shard.generations.Load()
		s.Kept += g.young.count + g.old.count
		for _, each := range []*generation[T]{g.young, g.old} {
			s.Bytes += each.size - each.room
		}
		shard.mu.Unlock()
	}
	return s
}
