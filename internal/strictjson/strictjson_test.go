package strictjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/naive"
)

// member is what Object found. The value is a part of the document.
type member struct {
	name  string
	value jsontext.Value
}

func membersOf(data []byte, opts ...jsontext.Options) (list []member, err error) {
	err = Object(data, func(name []byte, value jsontext.Value) error {
		list = append(list, member{string(name), value})
		return nil
	}, opts...)
	return list, err
}

func elementsOf(data []byte) (list []jsontext.Value, err error) {
	err = Array(data, func(value jsontext.Value) error {
		list = append(list, value)
		return nil
	})
	return list, err
}

func TestObjectIsStrict(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, data string
		want       string // name=value of each member; "refused" for an error
	}{
		{"the empty object", `{}`, ""},
		{"white space around", " \t\r\n{ \"a\" : 1 } \n", "a=1"},
		{"values of every kind", `{"a":null,"b":true,"c":-1.5e3,"d":"x","e":[1, 2],"f":{"g":{}}}`, `a=null b=true c=-1.5e3 d="x" e=[1, 2] f={"g":{}}`},
		{"an escaped name is the name", `{"\u0069ss":"x"}`, `iss="x"`},
		{"names that differ by case are two", `{"iss":1,"ISS":2}`, "iss=1 ISS=2"},
		{"a long s folds to no s", `{"i\u017Fs":1,"iſs2":2}`, "iſs=1 iſs2=2"},
		{"an empty name", `{"":1}`, "=1"},
		{"an escaped surrogate pair", `{"\ud83d\ude00":1}`, "\U0001F600=1"},

		{"nothing", ``, "refused"},
		{"white space alone", ` `, "refused"},
		{"null", `null`, "refused"},
		{"a string", `"{}"`, "refused"},
		{"a number", `1`, "refused"},
		{"an array", `[{}]`, "refused"},
		{"an array of numbers", `[1,2]`, "refused"},
		{"an array like a member", `["a",1]`, "refused"},
		{"doubled members", `{"a":1,"a":1}`, "refused"},
		{"doubled members, once escaped", `{"a":1,"\u0061":1}`, "refused"},
		{"doubled members further in", `{"a":[{"b":{"c":1,"c":2}}]}`, "refused"},
		{"a second object", `{}{}`, "refused"},
		{"something after the object", `{} x`, "refused"},
		{"a bracket after the object", `{}}`, "refused"},
		{"a comma after the object", `{},`, "refused"},
		{"NUL after the object", "{}\x00", "refused"},
		{"a no-break space after the object", "{}\u00a0", "refused"},
		{"a byte order mark", "\ufeff{}", "refused"},
		{"a cut object", `{"a":1`, "refused"},
		{"a cut string", `{"a":"b`, "refused"},
		{"a cut name", `{"a`, "refused"},
		{"a member without value", `{"a"}`, "refused"},
		{"a member without name", `{1}`, "refused"},
		{"a name that is a number", `{1:1}`, "refused"},
		{"a name without quotes", `{a:1}`, "refused"},
		{"single quotes", `{'a':1}`, "refused"},
		{"a comma at the end", `{"a":1,}`, "refused"},
		{"a comma at the start", `{,"a":1}`, "refused"},
		{"no comma", `{"a":1 "b":2}`, "refused"},
		{"a comment", `{/**/}`, "refused"},
		{"brackets that do not match", `{"a":[}]`, "refused"},
		{"an object ended as an array", `{"a":1]`, "refused"},
		{"a number with a zero in front", `{"a":01}`, "refused"},
		{"a number with a plus", `{"a":+1}`, "refused"},
		{"a number without digits after the point", `{"a":1.}`, "refused"},
		{"a hexadecimal number", `{"a":0x1}`, "refused"},
		{"NaN", `{"a":NaN}`, "refused"},
		{"True", `{"a":True}`, "refused"},
		{"a line break in a string", "{\"a\":\"\n\"}", "refused"},
		{"a control character in a string", "{\"a\":\"\x01\"}", "refused"},
		{"an unknown escape", `{"a":"\x"}`, "refused"},
		{"a name that is not UTF-8", "{\"\xff\":1}", "refused"},
		{"a string that is not UTF-8", "{\"a\":\"\xff\"}", "refused"},
		{"a string further in that is not UTF-8", "{\"a\":[\"\xc3\x28\"]}", "refused"},
		{"an overlong encoding", "{\"a\":\"\xc0\xaf\"}", "refused"},
		{"an encoded surrogate", "{\"a\":\"\xed\xa0\x80\"}", "refused"},
		{"half an escaped surrogate pair", `{"a":"\ud800"}`, "refused"},
		{"an escaped surrogate pair turned round", `{"a":"\ude00\ud83d"}`, "refused"},
		{"UTF-16", "\xff\xfe{\x00}\x00", "refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			list, err := membersOf([]byte(test.data))
			if test.want == "refused" {
				require.Error(t, err, "%v", list)
				return
			}
			require.NoError(t, err)
			var found []string
			for _, m := range list {
				found = append(found, m.name+"="+string(m.value))
			}
			assert.Equal(t, test.want, strings.Join(found, " "))
			assertAsEncodingJSON(t, []byte(test.data))
		})
	}
}

func TestArrayIsStrict(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, data string
		want       int // -1: refused
	}{
		{"the empty array", `[]`, 0},
		{"elements of every kind", ` [null, 1, "a", [], {}] `, 5},
		{"an object", `{}`, -1},
		{"a string", `"[]"`, -1},
		{"nothing", ``, -1},
		{"a second array", `[][]`, -1},
		{"a comma at the end", `[1,]`, -1},
		{"an array ended as an object", `[1}`, -1},
		{"a cut array", `[1`, -1},
		{"doubled members in an element", `[{"a":1,"a":2}]`, -1},
		{"a string that is not UTF-8", "[\"\xff\"]", -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			list, err := elementsOf([]byte(test.data))
			if test.want < 0 {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			assert.Len(t, list, test.want)
			var other []json.RawMessage
			require.NoError(t, json.Unmarshal([]byte(test.data), &other))
			assert.Len(t, other, test.want)
		})
	}
}

// assertAsEncodingJSON checks that encoding/json accepts what we accepted, and reads
// the same.
func assertAsEncodingJSON(t *testing.T, data []byte) {
	t.Helper()
	list, err := membersOf(data)
	if err != nil {
		return
	}
	var other map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(data, &other), "encoding/json refuses %q", data)
	require.Len(t, list, len(other), "%q", data)
	for _, m := range list {
		require.Contains(t, other, m.name, "%q", data)
		assert.Equal(t, string(other[m.name]), string(m.value), "%q", data)
		if s, ok := String(m.value); ok {
			var same string
			require.NoError(t, json.Unmarshal(m.value, &same))
			assert.Equal(t, same, s, "%q", data)
		}
	}
}

// assertAsJSONText checks that we accept exactly what jsontext accepts with its strict
// defaults, except for the depth, and that it is what a naive reader accepts, which
// also checks the depth.
func assertAsJSONText(t *testing.T, data []byte) {
	t.Helper()
	list, err := membersOf(data)
	strict := jsontext.Value(data).IsValid() && jsontext.Value(data).Kind() == '{'
	if err == nil {
		require.True(t, strict, "jsontext refuses %q", data)
	} else if strict {
		require.ErrorIs(t, err, errDepth, "%q", data)
	}
	members, naiveErr := naive.Object(data)
	require.Equal(t, naiveErr == nil, err == nil, "%q: %v, %v", data, naiveErr, err)
	if err != nil {
		return
	}
	for _, m := range list {
		assert.Equal(t, string(members[m.name]), string(m.value))
		want, isStrings := naive.Strings(json.RawMessage(m.value))
		found, ok := Strings(m.value)
		assert.Equal(t, isStrings, ok, "%q", m.value)
		if ok {
			assert.Equal(t, want, found, "%q", m.value)
		}
	}
}

var jsonSeeds = []string{
	`{"iss":"https://issuer.test/oidc","aud":["a","b"],"exp":1e3,"x":{"y":[null,true,-0.5]}}`,
	`{"a":"\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00","\u0061b":{"c":[[],{}]}}`,
	" {\"\" : \"ä€\U0001F600\"\n}\t",
}

// Thousands of documents, of which some are just valid: encoding/json reads those that
// we accept as we do.
func TestObjectAcceptsNothingThatEncodingJSONRefuses(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{`{`, `}`, `[`, `]`, `"`, `\`, `,`, `:`, ` `, "\n", `0`, `1`, `-`, `.`, `e`, `a`, `u`, `null`, `"a":`, `\ud800`, "\xff", "\x00", `{"a":1}`, `,"b":[]`}
	accepted := 0
	for range 30_000 {
		data := []byte(jsonSeeds[random.IntN(len(jsonSeeds))])
		for range 1 + random.IntN(3) {
			at := random.IntN(len(data) + 1)
			end := min(len(data), at+random.IntN(3))
			data = append(data[:at:at], append([]byte(pieces[random.IntN(len(pieces))]), data[end:]...)...)
		}
		if _, err := membersOf(data); err == nil {
			accepted++
		}
		assertAsEncodingJSON(t, data)
	}
	assert.Greater(t, accepted, 500, "too few documents are good ones for this to say much")
}

func FuzzObject(f *testing.F) {
	for _, seed := range jsonSeeds {
		f.Add([]byte(seed))
	}
	f.Add([]byte(strings.Repeat(`{"a":`, 40)))
	f.Add([]byte(strings.Repeat(`{"a":`, 32) + "1" + strings.Repeat("}", 32)))
	f.Add([]byte(strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33)))
	f.Add([]byte(`{"a":[` + strings.Repeat(`[],`, 40) + `[]],"b":"]"}`))
	f.Add([]byte(`{"a":["x","\ud83d\ude00",""],"b":[null],"c":[],"d":"\ud83d"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		assertAsEncodingJSON(t, data)
		assertAsJSONText(t, data)
	})
}

func TestDepthIsBounded(t *testing.T) {
	t.Parallel()
	nested := func(objects, arrays int) []byte { // the outermost is an object
		return []byte(strings.Repeat(`{"a":`, objects) + strings.Repeat(`[`, arrays) + "1" +
			strings.Repeat(`]`, arrays) + strings.Repeat(`}`, objects))
	}
	brackets := strings.Repeat(`[{`, 500)
	for _, test := range []struct {
		name string
		data []byte
		deep bool
	}{
		{"32 objects", nested(32, 0), false},
		{"33 objects", nested(33, 0), true},
		{"31 arrays in an object", nested(1, 31), false},
		{"32 arrays in an object", nested(1, 32), true},
		{"16 and 16", nested(16, 16), false},
		{"16 and 17", nested(16, 17), true},
		{"6,000 arrays", nested(1, 6000), true},
		{"6,000 brackets that nothing closes", []byte(`{"a":` + strings.Repeat("[", 6000)), true},
		{"many beside one another", []byte(`{"a":[` + strings.Repeat(`[],`, 500) + `[]]}`), false},
		{"31 arrays in an object, and one beside them", []byte(`{"a":[],"b":` + string(nested(0, 31)) + `}`), false},
		{"brackets in a string", []byte(`{"a":"` + brackets + `"}`), false},
		{"brackets in a name", []byte(`{"` + brackets + `":1}`), false},
		{"brackets after an escaped quote", []byte(`{"a":"\"` + brackets + `"}`), false},
		{"brackets after an escaped backslash and an escaped quote", []byte(`{"a":"\\\"` + brackets + `"}`), false},
		{"brackets after a string that ends in an escaped backslash", []byte(`{"a":"\\","b":` + string(nested(0, 32)) + `}`), true},
		{"closing brackets in a string count for nothing", []byte(`{"a":"]]]]}}}}","b":` + string(nested(0, 32)) + `}`), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := membersOf(test.data)
			if test.deep {
				assert.ErrorIs(t, err, errDepth)
			} else {
				assert.NoError(t, err)
			}
		})
	}
	_, err := elementsOf(nested(0, 32))
	require.NoError(t, err)
	_, err = elementsOf(nested(0, 33))
	require.ErrorIs(t, err, errDepth)
}

// The readers come from a pool, and reuse the decoder's buffers.
func TestValuesOutliveTheirReader(t *testing.T) {
	t.Parallel()
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for round := range 200 {
				text := fmt.Sprintf("%d-%d", worker, round)
				data := fmt.Appendf(nil, `{"a":"%s","\u0062":["%[1]s",{"c":"%[1]s"}]}`, text)
				list, err := membersOf(data)
				if !assert.NoError(t, err) || !assert.Len(t, list, 2) {
					return
				}
				for range 3 { // other documents, good and bad
					_, _ = membersOf([]byte(`{"zzzzzzzzzzzz":"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz","y":[1,2,3]}`))
					_, _ = membersOf([]byte(`{"zzzzzzzzzzzz":"zzzzz`))
				}
				assert.Equal(t, "a", list[0].name)
				assert.Equal(t, `"`+text+`"`, string(list[0].value))
				assert.Equal(t, "b", list[1].name)
				assert.Equal(t, `["`+text+`",{"c":"`+text+`"}]`, string(list[1].value))
			}
		})
	}
	group.Wait()
}

func TestReadersNest(t *testing.T) {
	t.Parallel()
	var found []string
	err := Object([]byte(`{"aud":["a","b"],"other":["c"]}`), func(_ []byte, value jsontext.Value) error {
		list, ok := Strings(value)
		assert.True(t, ok)
		found = append(found, list...)
		return nil
	})
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b", "c"}, found)
}

func TestTheReadersErrorStopsTheReading(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	calls := 0
	err := Object([]byte(`{"a":1,"b":2}`), func([]byte, jsontext.Value) error { calls++; return stop })
	assert.ErrorIs(t, err, stop)
	assert.Equal(t, 1, calls)
	list, err := membersOf([]byte(`{"c":3}`))
	require.NoError(t, err, "the next reader begins anew")
	assert.Len(t, list, 1)
}

func TestLenientReading(t *testing.T) {
	t.Parallel()
	list, err := membersOf([]byte("{\"a\":1,\"a\":{\"b\":1,\"b\":2},\"c\":\"\xff\"}"), Lenient...)
	require.NoError(t, err)
	assert.Len(t, list, 3)
	_, err = membersOf([]byte(`{"a":1,"a":2}`))
	assert.Error(t, err, "the next reader is strict again")
	_, err = membersOf([]byte(`{"a":1} x`), Lenient...)
	assert.Error(t, err)
}

func TestStrings(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		data string
		want []string
		ok   bool
	}{
		{`["a","\u0062",""]`, []string{"a", "b", ""}, true},
		{`[]`, nil, true},
		{`["a",1]`, nil, false},
		{`[null]`, nil, false},
		{`[["a"]]`, nil, false},
		{`"a"`, []string{"a"}, true},
		{`null`, nil, false},
	} {
		list, ok := Strings(jsontext.Value(test.data))
		assert.Equal(t, test.ok, ok, test.data)
		if ok {
			assert.Equal(t, test.want, list, test.data)
		}
	}
	for _, data := range []string{`null`, `1`, `["a"]`, `{}`, `true`} {
		_, ok := String(jsontext.Value(data))
		assert.False(t, ok, data)
	}
}

// The pool must neither keep the last token of each reader in memory nor pass it on.
func TestPoolKeepsNoDocument(t *testing.T) {
	_, err := membersOf([]byte(`{"a":"secret secret secret"}`))
	require.NoError(t, err)
	r := jsonReaders.Get().(*jsonReader)
	defer jsonReaders.Put(r)
	assert.Zero(t, r.buf.Cap())
	assert.Empty(t, r.dec.UnreadBuffer())
}
