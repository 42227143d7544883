package m2mauth

import (
	"crypto/ed25519"
	"reflect"
	"unsafe"

	"github.com/m2mauth/m2mauth/internal/jose"
)

// What tests outside the package need to see of a guard, or to do to it.

// HoldPlaces takes every place for signature checks, so that all others wait.
// Each call of release gives one back.
func HoldPlaces(g *Guard) (places int, release func()) {
	g.gate.mu.Lock()
	defer g.gate.mu.Unlock()
	places = g.gate.places() - g.gate.busy
	g.gate.busy = g.gate.places()
	return places, g.gate.leave
}

// Traces is what requests left behind.
type Traces struct{ FreePlaces, Waiting, Sources, ChecksUnderWay, Sharing, Bytes int }

func TracesOf(g *Guard) Traces {
	g.checks.mu.Lock()
	defer g.checks.mu.Unlock()
	g.gate.mu.Lock()
	defer g.gate.mu.Unlock()
	free, q := g.gate.places()-g.gate.busy, g.gate.queue
	return Traces{free, q.waiting, len(q.inside) + len(q.longest) + q.turns.Len(), len(g.checks.byKey), g.checks.queue.waiting, int(g.waitingBytes.Load())}
}

// Untouched are the traces of a guard that nobody asked.
func Untouched() Traces { return Traces{FreePlaces: verifications()} }

// ShrinkMemory gives the guard a smaller memory than New allows. No request may be
// under way.
func ShrinkMemory(g *Guard, bytes int64) { g.tokens = newTokenCache(bytes) }

// Remembered counts the tokens in the guard's memory.
func Remembered(g *Guard) (n int) {
	for i := range g.tokens.shards {
		s := &g.tokens.shards[i]
		s.mu.RLock()
		n += len(s.young) + len(s.old)
		s.mu.RUnlock()
	}
	return n
}

// KeepsWhole reports whether claims keep the memory of the very string that their
// token came in, and so the whole token.
func KeepsWhole(c *Claims, token string) bool {
	return unsafe.StringData(c.signed) == unsafe.StringData(token)
}

// BreakKeys makes every signature check of the guard panic, as an Ed25519 key of
// three bytes does, until mend is called. No request may be under way.
func BreakKeys(g *Guard) (mend func()) {
	var mends []func()
	for _, key := range g.keys.current.Load().keys {
		public := publicOf(key)
		good := public.Interface()
		public.Set(reflect.ValueOf(ed25519.PublicKey{1, 2, 3}))
		mends = append(mends, func() { public.Set(reflect.ValueOf(good)) })
	}
	return func() {
		for _, f := range mends {
			f()
		}
	}
}

func publicOf(key *jose.Key) reflect.Value {
	field := reflect.ValueOf(key).Elem().FieldByName("public")
	return reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
}
