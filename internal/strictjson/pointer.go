package strictjson

import (
	"errors"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Pointer is a JSON Pointer (RFC 6901) through members of objects only, as a list of
// unescaped names. It leads nowhere through an array, whatever the name.
type Pointer []string

var (
	errPointerStart  = errors.New("a JSON Pointer begins with a slash (RFC 6901)")
	errPointerEmpty  = errors.New("a part of the JSON Pointer is empty")
	errPointerEscape = errors.New("in a JSON Pointer, ~ stands only in ~0 for itself and ~1 for a slash (RFC 6901)")
)

var (
	pointerEscape   = strings.NewReplacer("~", "~0", "/", "~1")
	pointerUnescape = strings.NewReplacer("~0", "~", "~1", "/")
)

// ParsePointer parses a JSON Pointer. It rejects what RFC 6901 §3 does not allow, and
// empty names, which are more often mistakes than members.
func ParsePointer(s string) (Pointer, error) {
	rest, ok := strings.CutPrefix(s, "/")
	if !ok {
		return nil, errPointerStart
	}
	p := Pointer(strings.Split(rest, "/"))
	for i, name := range p {
		if name == "" {
			return nil, errPointerEmpty
		}
		if strings.Count(name, "~") != strings.Count(name, "~0")+strings.Count(name, "~1") {
			return nil, errPointerEscape
		}
		p[i] = pointerUnescape.Replace(name)
	}
	return p, nil
}

// String returns the pointer as RFC 6901 writes it.
func (p Pointer) String() string {
	var b strings.Builder
	for _, name := range p {
		b.WriteByte('/')
		_, _ = pointerEscape.WriteString(&b, name)
	}
	return b.String()
}

// In returns the value in v that the pointer leads to, as a part of v, or nil if there
// is none. [Object] must have read v before.
func (p Pointer) In(v jsontext.Value) jsontext.Value {
	for _, step := range p {
		var found jsontext.Value
		err := Object(v, func(name []byte, value jsontext.Value) error {
			if string(name) == step {
				found = value
			}
			return nil
		})
		if err != nil { // also where the step before found nothing
			return nil
		}
		v = found
	}
	return v
}
