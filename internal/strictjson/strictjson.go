// Package strictjson reads one JSON object or array so strictly that no other reader
// can read it differently. It accepts what RFC 8259 allows, in UTF-8 and with only
// white space around the value, but rejects:
//
//   - a member name that occurs twice in one object, at any depth
//   - half a surrogate pair
//   - arrays and objects nested more than 32 deep
//
// Names are compared byte by byte after their escapes are undone. The guard uses it to
// read the headers and claims of tokens. With [Lenient], it reads issuers' documents,
// and then their parts strictly. The package does not know what the JSON means.
package strictjson

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth limits how deep arrays and objects may nest. Real tokens nest three deep.
// The decoder itself would accept thousands of levels.
const maxDepth = 32

var (
	errNotObject = errors.New("not a JSON object")
	errNotArray  = errors.New("not a JSON array")
	errDepth     = errors.New("JSON nested too deep")
	errTrailing  = errors.New("something follows the JSON value")
)

// Lenient is for documents whose parts are then read strictly one by one, so that a
// part with duplicate members does not spoil the others.
var Lenient = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

type jsonReader struct {
	buf bytes.Buffer
	dec jsontext.Decoder
}

var jsonReaders = sync.Pool{New: func() any { return new(jsonReader) }}

// Object calls f for each member of the one JSON object in data, with the unquoted name
// and the bytes of the value, which are parts of data. It rejects everything that two
// readers could read differently: duplicate members at any depth, names or strings that
// are not UTF-8, and anything but white space after the object.
func Object(data []byte, f func(name []byte, value jsontext.Value) error, opts ...jsontext.Options) error {
	return readJSON(data, '{', errNotObject, opts, func(r *jsonReader) error {
		name, err := r.next(data)
		if err != nil {
			return err
		}
		value, err := r.next(data)
		if err != nil {
			return err
		}
		return f(unquoted(name), value)
	})
}

// Array is [Object] for the elements of an array.
func Array(data []byte, f func(value jsontext.Value) error, opts ...jsontext.Options) error {
	return readJSON(data, '[', errNotArray, opts, func(r *jsonReader) error {
		value, err := r.next(data)
		if err != nil {
			return err
		}
		return f(value)
	})
}

func readJSON(data []byte, open jsontext.Kind, wrong error, opts []jsontext.Options, each func(*jsonReader) error) error {
	if deeperThan(data, maxDepth) {
		return errDepth
	}
	r := jsonReaders.Get().(*jsonReader)
	defer func() {
		r.buf = bytes.Buffer{} // so that the pool keeps no token in memory
		r.dec.Reset(&r.buf)
		jsonReaders.Put(r)
	}()
	r.buf = *bytes.NewBuffer(data)
	r.dec.Reset(&r.buf, opts...)

	begin, err := r.dec.ReadToken()
	if err != nil {
		return err
	}
	if begin.Kind() != open {
		return wrong
	}
	for r.dec.PeekKind() != open+2 { // in ASCII '}' is '{'+2, and ']' is '['+2
		if err := each(r); err != nil {
			return err
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	if _, err := r.dec.ReadToken(); err != io.EOF {
		return errTrailing
	}
	return nil
}

// next returns the next value as a part of data. That stays valid, unlike what the
// decoder returns.
func (r *jsonReader) next(data []byte) (jsontext.Value, error) {
	v, err := r.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	end := r.dec.InputOffset()
	return jsontext.Value(data[end-int64(len(v)) : end]), nil
}

// deeperThan counts brackets outside strings. For invalid JSON the count may be wrong,
// but only after the point where the decoder stops.
func deeperThan(data []byte, limit int) bool {
	if bytes.Count(data, []byte{'{'})+bytes.Count(data, []byte{'['}) <= limit { // a quick check that is enough for all real tokens
		return false
	}
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString:
			switch c {
			case '\\':
				i++
			case '"':
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > limit {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// unquoted returns the content of a JSON string. v comes from a decoder.
func unquoted(v jsontext.Value) []byte {
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1]
	}
	s, _ := jsontext.AppendUnquote(nil, v)
	return s
}

// String returns v as a string. ok is false for any other JSON value.
func String(v jsontext.Value) (s string, ok bool) {
	if v.Kind() != '"' {
		return "", false
	}
	return string(unquoted(v)), true
}

// Strings returns the strings of an array that contains nothing else, or a single
// string as the only one.
func Strings(v jsontext.Value) (list []string, ok bool) {
	if s, ok := String(v); ok {
		return []string{s}, true
	}
	err := Array(v, func(element jsontext.Value) error {
		s, ok := String(element)
		if !ok {
			return errNotArray
		}
		list = append(list, s)
		return nil
	})
	return list, err == nil
}
