package m2mauth

import (
	"crypto/ed25519"
	"reflect"
	"unsafe"

	"github.com/m2mauth/m2mauth/internal/admission"
	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/memory"
)

// What tests outside the package need to see of a guard, or to do to it.

// HoldPlaces takes every place for signature checks, so that all others wait.
// Each call of release gives one back.
func HoldPlaces(g *Guard) (places int, release func()) { return g.admission.Hold() }

// Traces is what requests left behind.
type Traces struct{ FreePlaces, Waiting, Sources, ChecksUnderWay, Sharing, Bytes int }

func TracesOf(g *Guard) Traces {
	s := g.admission.Stats()
	return Traces{s.Free, s.Waiting, s.Sources, s.UnderWay, s.Sharing, int(g.waitingBytes.Load())}
}

// Untouched are the traces of a guard that nobody asked.
func Untouched() Traces { return Traces{FreePlaces: admission.New[int]().Stats().Free} }

// ShrinkMemory gives the guard a smaller memory than New allows. No request may be
// under way.
func ShrinkMemory(g *Guard, bytes int64) { g.cacheBytes, g.tokens = bytes, memory.New[*token](bytes) }

// Remembered counts the tokens in the guard's memory.
func Remembered(g *Guard) int { return g.tokens.Stats().Kept }

// KeepsWhole reports whether claims keep the memory of the very string that their
// token came in, and so the whole token.
func KeepsWhole(c Claims, token string) bool {
	return unsafe.StringData(c.set.signed) == unsafe.StringData(token)
}

// BreakKeys makes every signature check of the guard panic, as an Ed25519 key of
// three bytes does, until mend is called. No request may be under way.
func BreakKeys(g *Guard) (mend func()) {
	var mends []func()
	for _, key := range g.issuers[0].keys.current.Load().Keys {
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
