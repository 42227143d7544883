package strictjson

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/naive"
)

func TestPointersOfRFC6901(t *testing.T) {
	t.Parallel()
	doc := jsontext.Value(`{"foo":["bar","baz"],"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8,"o":{"p":{"q":9}}}`)
	for pointer, want := range map[string]string{
		"/foo": `["bar","baz"]`, "/foo/0": "", "/a~1b": "1", "/c%d": "2", "/e^f": "3", "/g|h": "4", `/i\j`: "5", `/k"l`: "6", "/ ": "7", "/m~0n": "8",
		"/o/p/q": "9", "/o/p": `{"q":9}`, "/o/q": "", "/O": "", "/a~1b/x": "",
	} {
		p, err := ParsePointer(pointer)
		require.NoError(t, err, pointer)
		assert.Equal(t, want, string(p.In(doc)), pointer)
		assert.Equal(t, pointer, p.String())
	}
	for _, bad := range []string{"", "a", "/", "//", "/a/", "/~", "/~2", "/a~", "/~~0", "#/a"} {
		_, err := ParsePointer(bad)
		assert.Error(t, err, bad)
	}
}

// Of a member that is there twice, a pointer finds neither.
func TestAPointerFindsNothingTwice(t *testing.T) {
	t.Parallel()
	assert.Nil(t, Pointer{"a"}.In(jsontext.Value(`{"a":1,"a":2}`)))
	assert.Nil(t, Pointer{"b", "a"}.In(jsontext.Value(`{"b":{"a":1,"a":2}}`)))
}

// A pointer leads where it leads a naive reader, and is written as it was read.
func FuzzPointer(f *testing.F) {
	for _, pointer := range []string{"/a", "/a/b", "/a~1b/~0", "/~01", "/~2", "/a//b", "/", "", "a", "/b/0", "/a/b/c"} {
		f.Add(pointer, []byte(`{"a":{"b":{"c":1}},"a/b":{"~":[1]},"~1":null,"b":[1]}`))
	}
	f.Add("/a/b", []byte(` {"\u0061" : {"b":1} } `))
	f.Add("/a/b", []byte(`{"a":{"b":1,"b":2}}`))
	f.Fuzz(func(t *testing.T, pointer string, data []byte) {
		path, good := naive.Pointer(pointer)
		p, err := ParsePointer(pointer)
		require.Equal(t, good, err == nil, "%q: %v", pointer, err)
		if !good {
			return
		}
		assert.Equal(t, path, []string(p))
		assert.Equal(t, pointer, p.String())
		if members, err := naive.Object(data); err == nil {
			want, there := naive.Find(members, path)
			found := p.In(data)
			require.Equal(t, there, found != nil, "%q in %q", pointer, data)
			assert.Equal(t, string(want), string(found))
		}
	})
}
