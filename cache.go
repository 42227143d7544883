package m2mauth

import (
	"strings"
	"unsafe"

	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/memory"
)

// tokenCache keeps tokens that passed every check, within a limit of bytes. What depends
// on the clock, the keys and the route must be checked again for a cached token.
type tokenCache = memory.Table[*token]

// keep caches a token whose signature is good. It must not change afterwards.
func (g *Guard) keep(raw string, t *token) {
	g.tokens.Put(raw, t.forget(raw), t, t.cost())
}

// has reports whether a token that was not cached a moment ago has been since, verified
// by the key.
func (g *Guard) has(raw string, key *jose.Key) bool {
	t, ok := g.tokens.Peek(raw)
	return ok && t.key == key
}

// forget lets go of the request's memory, and returns what the cache keeps of the token:
// all but the second half of its signature, so that a heap dump contains no usable token.
// What is missing is s of ECDSA, S of EdDSA, and of RSA more than Coppersmith's method can
// find with any exponent. The cache has a SHA-256 of it. Hashing more would make a hit
// twice as expensive.
func (t *token) forget(raw string) (kept string) {
	half := len(raw) - (len(raw)-len(t.claims.signed))/2
	kept = strings.Clone(raw[:half])
	t.claims.signed = kept[:len(t.claims.signed)]
	return kept
}

// cost returns how many bytes of memory a cached token takes, except those that forget
// returned: measured, and rounded up. Claims hold the content of signed once more, and
// even a scope of one letter takes a string header.
func (t *token) cost() int64 {
	return 640 + int64(len(t.claims.signed)) + 32*int64(len(t.claims.scopes.names)+len(t.claims.audience)) + t.claims.actor.Bytes()
}

// bytesOf returns a string's bytes without a copy, for functions that only read them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
