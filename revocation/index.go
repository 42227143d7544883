package revocation

import (
	"hash/maphash"
	"math"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/m2mauth/m2mauth"
)

// index finds what revokes a token: a hash table that is read without a lock and without a
// write while entries come and go.
type index struct {
	seed  maphash.Seed
	table atomic.Pointer[table]
	kinds atomic.Uint32 // a bit for each kind of key that the table has
	nodes int           // in the table, those that revoke nothing any more included; for writers
}

// table holds chains of nodes. A reader follows a chain while nodes are put at its head.
type table struct {
	heads []atomic.Pointer[node]
	// filter has two bits for each hash in the table, in one word, of 16 and more for each
	// node: so nearly every look-up ends in memory that fits into a core's cache.
	filter []atomic.Uint64
}

func newTable(nodes int) *table {
	size := 1 << bits.Len(uint(max(64, 2*nodes)-1))
	return &table{heads: make([]atomic.Pointer[node], size), filter: make([]atomic.Uint64, size/8)}
}

// has reports whether the table may have a node with the hash. It is small, to be inlined.
func (t *table) has(hash uint64) bool {
	bits := bitsOf(hash)
	return t.word(hash).Load()&bits == bits
}

func bitsOf(hash uint64) uint64 { return 1<<(hash&63) | 1<<(hash>>6&63) }

func (t *table) word(hash uint64) *atomic.Uint64 { return &t.filter[hash>>12&uint64(len(t.filter)-1)] }

func (t *table) head(hash uint64) *atomic.Pointer[node] {
	return &t.heads[hash>>32&uint64(len(t.heads)-1)]
}

// find returns the node of a key, or nil.
func (t *table) find(hash uint64, k key) *node {
	n := t.head(hash).Load()
	for n != nil && n.key != k {
		n = n.next
	}
	return n
}

// node stands for all entries with one key.
type node struct {
	key
	next   *node        // never changes
	before atomic.Int64 // revokes tokens issued before: Unix nanoseconds, or never or always
	held   []*held      // for writers
}

const (
	never  int64 = math.MinInt64
	always int64 = math.MaxInt64
)

// key is what an entry selects, at one issuer.
type key struct {
	kind   kind
	issuer string
	a, b   string
}

type kind uint8

const (
	byIssuer kind = iota
	byToken
	byClient
	bySubject
	byOrganization
	byOrganizationClient
	byOrganizationSubject
)

func (e *Entry) keyAt(issuer string) key {
	switch {
	case e.All:
		return key{kind: byIssuer, issuer: issuer}
	case e.Token != "":
		return key{kind: byToken, issuer: issuer, a: e.Token}
	case e.Organization != "" && e.Client != "":
		return key{kind: byOrganizationClient, issuer: issuer, a: e.Organization, b: e.Client}
	case e.Organization != "" && e.Subject != "":
		return key{kind: byOrganizationSubject, issuer: issuer, a: e.Organization, b: e.Subject}
	case e.Organization != "":
		return key{kind: byOrganization, issuer: issuer, a: e.Organization}
	case e.Client != "":
		return key{kind: byClient, issuer: issuer, a: e.Client}
	default:
		return key{kind: bySubject, issuer: issuer, a: e.Subject}
	}
}

// hash returns a hash that callers cannot predict.
func (x *index) hash(k key) uint64 {
	if k.kind == byIssuer {
		return mix(byIssuer, maphash.String(x.seed, k.issuer), 0)
	}
	if k.b == "" {
		return mix(k.kind, maphash.String(x.seed, k.a), 0)
	}
	return mix(k.kind, maphash.String(x.seed, k.a), maphash.String(x.seed, k.b))
}

func mix(k kind, a, b uint64) uint64 {
	return (a + uint64(k)*0x9e3779b97f4a7c15) ^ bits.RotateLeft64(b, 32)
}

// latest returns the latest time of all entries that select the token.
func (x *index) latest(c m2mauth.Claims) int64 {
	kinds := x.kinds.Load() // before the table, which has at least these
	if kinds == 0 {
		return never
	}
	t := x.table.Load()
	// Nearly always the filter knows, by hashes that several keys share.
	may := false
	if kinds&(1<<byIssuer) != 0 {
		may = t.has(mix(byIssuer, maphash.String(x.seed, c.Issuer()), 0))
	}
	if kinds&(1<<byToken) != 0 {
		may = may || t.has(mix(byToken, maphash.String(x.seed, c.ID()), 0))
	}
	if kinds&^(1<<byIssuer|1<<byToken) != 0 {
		client := maphash.String(x.seed, c.ClientID())
		subject := client // a machine's, with Logto
		if c.Subject() != c.ClientID() {
			subject = maphash.String(x.seed, c.Subject())
		}
		may = may || t.has(mix(byClient, client, 0)) || t.has(mix(bySubject, subject, 0))
		if id := c.OrganizationID(); id != "" && kinds&(1<<byOrganization|1<<byOrganizationClient|1<<byOrganizationSubject) != 0 {
			organization := maphash.String(x.seed, id)
			may = may || t.has(mix(byOrganization, organization, 0)) ||
				t.has(mix(byOrganizationClient, organization, client)) || t.has(mix(byOrganizationSubject, organization, subject))
		}
	}
	if !may {
		return never
	}
	return x.exact(t, c)
}

// exact compares every byte.
func (x *index) exact(t *table, c m2mauth.Claims) int64 {
	latest, issuer := never, c.Issuer()
	for _, k := range [...]key{
		{byIssuer, issuer, "", ""},
		{byToken, issuer, c.ID(), ""},
		{byClient, issuer, c.ClientID(), ""},
		{bySubject, issuer, c.Subject(), ""},
		{byOrganization, issuer, c.OrganizationID(), ""},
		{byOrganizationClient, issuer, c.OrganizationID(), c.ClientID()},
		{byOrganizationSubject, issuer, c.OrganizationID(), c.Subject()},
	} {
		if n := t.find(x.hash(k), k); n != nil {
			latest = max(latest, n.before.Load())
		}
	}
	return latest
}

// add puts an entry under all its keys. One writer at a time calls it, and only if isRoom.
func (x *index) add(h *held) {
	t := x.table.Load()
	for _, issuer := range h.Issuers {
		k := h.keyAt(issuer)
		hash := x.hash(k)
		n := t.find(hash, k)
		if n == nil {
			head := t.head(hash)
			n = &node{key: k, next: head.Load()}
			n.before.Store(never)
			head.Store(n)
			x.nodes++
		}
		n.held = append(n.held, h)
		n.before.Store(max(n.before.Load(), h.before))
		t.word(hash).Or(bitsOf(hash))
		x.kinds.Or(1 << k.kind)
	}
}

// isRoom reports whether chains stay short with this many nodes more.
func (x *index) isRoom(more int) bool { return x.nodes+more <= len(x.table.Load().heads)/2 }

// remove takes an entry out. Its nodes stay, and revoke nothing, until the next build.
func (x *index) remove(h *held) {
	t := x.table.Load()
	for _, issuer := range h.Issuers {
		k := h.keyAt(issuer)
		n := t.find(x.hash(k), k)
		before, rest := never, n.held[:0]
		for _, other := range n.held {
			if other != h {
				before, rest = max(before, other.before), append(rest, other)
			}
		}
		clear(n.held[len(rest):])
		n.held = rest
		n.before.Store(before)
	}
}

// build replaces the table with one of these entries and room for half as many more.
func (x *index) build(entries map[string]*held) {
	keys := 0
	for _, h := range entries {
		keys += len(h.Issuers)
	}
	next := index{seed: x.seed}
	next.table.Store(newTable(keys + keys/2 + maxIssuers))
	for _, h := range entries {
		next.add(h)
	}
	x.nodes = next.nodes
	x.table.Store(next.table.Load())
	x.kinds.Store(next.kinds.Load()) // after the table: see latest
}

// covers reports whether a time of latest revokes a token that the entry selects.
func (l *List) covers(before int64, c m2mauth.Claims) bool {
	switch before {
	case never:
		return false
	case always:
		return true
	}
	issued := c.IssuedAt()
	// Without iat or with a longer life than any, the token may be older than it looks.
	return issued.IsZero() || issued.Before(time.Unix(0, before)) || c.ExpiresAt().Sub(issued) > l.options.MaxTokenLifetime
}
