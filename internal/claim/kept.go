package claim

import (
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/m2mauth/m2mauth/internal/strictjson"
)

// Kept holds claims of one token that were asked for, so that they are read once. The
// zero Kept is empty. It is safe for concurrent use.
type Kept struct{ claims atomic.Pointer[[]kept] }

type kept struct {
	name   string
	values []string
}

// memory returns the bytes it takes in addition to those of its values, rounded up.
func (k kept) memory() int {
	return int(unsafe.Sizeof(k)) + 2*int(unsafe.Sizeof(""))*len(k.values)
}

// Strings returns the strings that a claim is or contains. It reads them from the
// payload unless they are kept, and keeps them while all that it holds takes no more
// bytes than there is room for. Strings that equal a shared one, which the caller has
// anyway, take none.
func (k *Kept) Strings(name Name, payload func() ([]byte, error), shared []string, room int) []string {
	var claims []kept
	if all := k.claims.Load(); all != nil {
		claims = *all
	}
	for _, c := range claims {
		if c.name == name.text {
			return c.values
		}
	}
	return k.read(name, payload, shared, room, claims)
}

// read is apart from Strings, so that the latter allocates nothing.
func (k *Kept) read(name Name, payload func() ([]byte, error), shared []string, room int, claims []kept) []string {
	read := kept{name: name.text}
	if data, err := payload(); err == nil {
		if value := name.pointer.In(data); value != nil {
			if list, ok := strictjson.Strings(value); ok {
				read.values = list
			}
		}
	}
	for i, value := range read.values {
		if at := slices.Index(shared, value); at >= 0 {
			read.values[i] = shared[at]
		}
	}
	all := append(slices.Clone(claims), read)
	for _, c := range all {
		room -= c.memory()
		for _, value := range c.values {
			if !slices.Contains(shared, value) {
				room -= len(value)
			}
		}
	}
	if room >= 0 {
		k.claims.Store(&all) // of two at the same time the last is kept, and the other is read again
	}
	return read.values
}
