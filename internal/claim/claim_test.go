package claim

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/naive"
)

// A pointer to a member of the token is the member's name, so that no check on
// names can be avoided.
func TestAPointerToAMemberIsItsName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"scope": "scope", "/scope": "scope", "/a~0b": "a~b", "a/b": "a/b", "/a~1b": "a/b", "/~1a": "/~1a", "/a/b~1c": "/a/b~1c", "~1": "~1", "/~01": "~1",
	} {
		claim, err := ParseName(name)
		require.NoError(t, err, name)
		assert.Equal(t, want, claim.String(), name)
	}
}

func TestNamesThatAreNoPointers(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"/", "/a/", "/a//b", "/~2"} {
		parsed, err := ParseName(name)
		assert.Error(t, err, name)
		assert.Zero(t, parsed, name)
	}
	names := Names("b", "/a", "/a/b")
	assert.Equal(t, []string{"b", "a", "/a/b"}, Texts(names))
	assert.Empty(t, Names())
	assert.Empty(t, Texts(nil))
}

func TestNumericDate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		data string
		want float64 // seconds; -1: refused
	}{
		{`0`, 0},
		{`1`, 1},
		{`1516239022`, 1516239022},
		{`1516239022.5`, 1516239022.5},
		{`1.516239022e9`, 1516239022},
		{`15162390220E-1`, 1516239022},
		{`1e-400`, 0},
		{`253402300799`, 253402300799},
		{`253402300799.5`, 253402300799.5},
		{`253402300800`, -1},
		{`1e12`, -1},
		{`1e400`, -1},
		{`9223372036854775808`, -1},
		{`-1`, -1},
		{`-0`, -1},
		{`-1e-400`, -1},
		{`"1516239022"`, -1},
		{`null`, -1},
		{`true`, -1},
		{`[1516239022]`, -1},
		{`{}`, -1},
	} {
		at, err := Value(test.data).Time("exp")
		assert.Equal(t, test.want >= 0, err == nil, test.data)
		if err == nil {
			assert.InDelta(t, test.want, float64(at.UnixMilli())/1000, 0.001, test.data)
		} else {
			assert.EqualError(t, err, "the token's claim exp is not a number of seconds since 1970", test.data)
			assert.Zero(t, at, test.data)
		}
	}
}

func TestTextAndTexts(t *testing.T) {
	t.Parallel()
	const noText, noTexts = "the token's claim x is not a non-empty string", "the token's claim x is not a string or an array of strings"
	for _, test := range []struct {
		data  string
		text  string // "" for an error
		texts []string
		good  bool // an array of strings or a string
	}{
		{`"a"`, "a", []string{"a"}, true},
		{`"\u0061\""`, `a"`, []string{`a"`}, true},
		{`""`, "", []string{""}, true},
		{`["a","b"]`, "", []string{"a", "b"}, true},
		{`[]`, "", nil, true},
		{`["a",1,"b"]`, "", []string{"a"}, false},
		{`[1]`, "", nil, false},
		{`[["a"]]`, "", nil, false},
		{`1`, "", nil, false},
		{`null`, "", nil, false},
		{`true`, "", nil, false},
		{`{"a":"b"}`, "", nil, false},
	} {
		text, err := Value(test.data).Text("x")
		assert.Equal(t, test.text, text, test.data)
		if test.text == "" {
			assertMistake(t, err, "x", noText)
		} else {
			assert.NoError(t, err, test.data)
		}
		texts, err := Value(test.data).Texts("x")
		assert.Equal(t, test.texts, texts, test.data)
		if test.good {
			assert.NoError(t, err, test.data)
		} else {
			assertMistake(t, err, "x", noTexts)
		}
	}
	text, err := Value(nil).Text("x")
	assert.Empty(t, text)
	assertMistake(t, err, "x", "the token lacks the claim x")
	assertMistake(t, Missing("a or b"), "a or b", "the token lacks the claim a or b")
}

func assertMistake(t *testing.T, err error, claim, text string) {
	t.Helper()
	var m *Mistake
	require.ErrorAs(t, err, &m)
	assert.Equal(t, claim, m.Claim)
	assert.EqualError(t, err, text)
}

func TestKind(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]byte{`null`: 'n', `-1`: '0', `7`: '0', `"a"`: '"', `[]`: '[', `{}`: '{', `true`: 't'} {
		assert.Equal(t, want, Value(data).Kind(), data)
	}
}

func TestWithinAnOrganization(t *testing.T) {
	t.Parallel()
	for data, want := range map[string][]string{
		`{}`:                                 nil,
		`{"reader":{"acme":"acme.example"}}`: {"reader"},
		`{"reader":{"other":"x","acme":""},"writer":{"other":"x"},"admin":{"\u0061cme":"x"}}`: {"reader", "admin"},
		`{"reader":{"acme":"x"},"odd":{"other":1}}`:                                           {"reader"},
		`{"reader":{"acme.example":"acme"}}`:                                                  nil,
	} {
		names, err := Value(data).Within("acme", "roles")
		require.NoError(t, err, data)
		assert.Equal(t, want, names, data)
	}
	for _, data := range []string{
		`null`, `"reader"`, `["reader"]`, `1`, `{"reader":"acme"}`, `{"reader":["acme"]}`, `{"reader":null}`, `{"reader":{"acme":1}}`, `{"reader":{"acme":null}}`,
		`{"reader":{"acme":"x"},"writer":1}`,
	} {
		names, err := Value(data).Within("acme", "roles")
		assert.Nil(t, names, data)
		assertMistake(t, err, "roles", "the token's claim roles is not an object of scopes, each with an object of organizations")
	}
}

func TestActor(t *testing.T) {
	t.Parallel()
	nested := func(depth int) string {
		return strings.Repeat(`{"sub":"a","act":`, depth-1) + `{"sub":"a"}` + strings.Repeat("}", depth-1)
	}
	for act, want := range map[string]*Actor{
		`{"sub":"agent"}`: {Subject: "agent"},
		`{"client_id":"app","exp":"never","sub":"agent","nbf":4e9,"aud":1,"iss":"https:\/\/i.test","Act":1}`: {Subject: "agent", ClientID: "app", Issuer: "https://i.test"},
		`{"act":{"s\u0075b":"before","act":{"sub":"\u00e9"}},"sub":"agent"}`:                                 {Subject: "agent", Prior: &Actor{Subject: "before", Prior: &Actor{Subject: "é"}}},
	} {
		got, err := Value(act).Actor()
		require.NoError(t, err, act)
		assert.Equal(t, want, got, act)
	}
	got, err := Value(nil).Actor()
	require.NoError(t, err)
	assert.Nil(t, got)
	assert.Zero(t, got.Bytes())
	got, err = Value(nested(8)).Actor()
	require.NoError(t, err)
	assert.GreaterOrEqual(t, got.Bytes(), int64(8*unsafe.Sizeof(*got)))
	for _, act := range []string{
		`null`, `"agent"`, `["agent"]`, `[{"sub":"agent"}]`, `true`, `1`, `{}`, `{"Sub":"agent"}`, `{"client_id":"app"}`, `{"iss":"i"}`, `{"sub":"a"} ` + `{}`,
		`{"sub":""}`, `{"sub":null}`, `{"sub":1}`, `{"sub":["agent"]}`, `{"sub":"a","client_id":""}`, `{"sub":"a","client_id":null}`, `{"sub":"a","iss":{}}`, `{"sub":"a","iss":""}`,
		`{"sub":"a","act":null}`, `{"sub":"a","act":{}}`, `{"sub":"a","act":"b"}`, `{"act":{"sub":"b"}}`, `{"sub":"a","sub":"a"}`, `{"sub":"a","act":{"sub":"b"},"act":{"sub":"b"}}`,
		`{"sub":"a","x":{"y":1,"y":2}}`, nested(9), nested(20), nested(40),
	} {
		got, err := Value(act).Actor()
		assert.Nil(t, got, act)
		assertMistake(t, err, "act", "the token's claim act is not a chain of at most 8 objects, each with a sub that is a non-empty string, as client_id and iss are if it has them")
	}
}

func TestSame(t *testing.T) {
	t.Parallel()
	names := Names("a", "b", "c")
	value := func(text string) Value {
		if text == "" {
			return nil
		}
		return Value(text)
	}
	for _, test := range []struct {
		a, b, c string
		want    string
		err     error // nil if none, or if it is a Mistake in the claim that is named
		mistake string
	}{
		{"", "", "", "", nil, ""},
		{"", `"x"`, "", "x", nil, ""},
		{`"x"`, `"x"`, `"\u0078"`, "x", nil, ""},
		{`"x"`, "", `"y"`, "", ErrDiffer, ""},
		{`"x"`, `"y"`, `1`, "", ErrDiffer, ""},
		{`"x"`, `1`, `"y"`, "", nil, "b"},
		{`""`, `"x"`, "", "", nil, "a"},
		{"", "", `null`, "", nil, "c"},
	} {
		text, err := Same(names, []Value{value(test.a), value(test.b), value(test.c)})
		assert.Equal(t, test.want, text, "%v", test)
		if test.mistake != "" {
			assertMistake(t, err, test.mistake, "the token's claim "+test.mistake+" is not a non-empty string")
		} else {
			assert.Equal(t, test.err, err, "%v", test)
		}
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	sought := Sought{
		Scopes: Names("scope", "/realm_access/roles"), Clients: Names("client_id", "azp"),
		Organizations: Names("organization_id", "/org/id"), Required: Names("iss", "/a/b/c"),
	}
	v, err := sought.Collect([]byte(`{"iss":1,"sub":2,"aud":[3],"exp":4,"nbf":5,"iat":6,"jti":"7","cnf":{},"act":[8],"azp":"9","Sub":0,"i\u0073s2":0,` +
		`"scope":"s","realm_access":{"roles":["r"],"x":{}},"client_id":"c","organization_id":"o","org":{"id":"i"},"a":{"b":{"c":null}}}`))
	require.NoError(t, err)
	assert.Equal(t, &Values{
		Issuer: Value(`1`), Subject: Value(`2`), Audience: Value(`[3]`), ExpiresAt: Value(`4`), NotBefore: Value(`5`), IssuedAt: Value(`6`), ID: Value(`"7"`), Confirmation: Value(`{}`), Actor: Value(`[8]`),
		Scopes: []Value{Value(`"s"`), Value(`["r"]`)}, Clients: []Value{Value(`"c"`), Value(`"9"`)},
		Organizations: []Value{Value(`"o"`), Value(`"i"`)}, Required: []Value{Value(`1`), Value(`null`)},
	}, v)
	assert.Equal(t, 1+1+3+3+3+(3+5)+(3+3)+(3+3), v.Bytes(), "of what strings are made of")

	v, err = sought.Collect([]byte(`{"\u0069ss":"x","org":"acme","a":{"b":[{"c":1}]},"/org/id":"no"}`))
	require.NoError(t, err)
	assert.Equal(t, &Values{
		Issuer: Value(`"x"`), Scopes: make([]Value, 2), Clients: make([]Value, 2), Organizations: make([]Value, 2), Required: []Value{Value(`"x"`), nil},
	}, v)
	for _, bad := range []string{``, `[]`, `{"iss":"a","iss":"b"}`, `{} {}`, `{"a":{"b":1,"b":2}}`, "{\"a\":\"\xff\"}"} {
		v, err := sought.Collect([]byte(bad))
		assert.Nil(t, v, bad)
		require.EqualError(t, err, "the token's payload is not one strict JSON object", bad)
		_, err = Issuer([]byte(bad))
		require.EqualError(t, err, "the token's payload is not one strict JSON object", bad)
	}
}

func TestIssuerAlone(t *testing.T) {
	t.Parallel()
	issuer, err := Issuer([]byte(`{"a":{"iss":"no"},"ISS":"no","\u0069ss":"yes","sub":"no"}`))
	require.NoError(t, err)
	assert.Equal(t, "yes", issuer)
	_, err = Issuer([]byte(`{"sub":"x"}`))
	assertMistake(t, err, "iss", "the token lacks the claim iss")
	_, err = Issuer([]byte(`{"iss":["x"]}`))
	assertMistake(t, err, "iss", "the token's claim iss is not a non-empty string")
}

// What is collected from any bytes is what a naive reader finds there.
func FuzzCollect(f *testing.F) {
	for _, payload := range []string{
		`{"iss":"i","sub":"s","aud":["a","b"],"exp":1e9,"nbf":1,"iat":2.5,"jti":"j","cnf":{"x":1},"act":{"sub":"a","act":{"sub":"b"}},"scope":"a b","azp":"c","client_id":"c"}`,
		`{"realm_access":{"roles":["a","\u0062"]},"\u0069ss":"","scope":{"a":{"o":"x"},"b":{"p":"y"}}}`, `{"exp":-1,"iss":null}`, `[]`, `{"a":1,"a":2}`, `{"exp":253402300800}`, `{"act":{}}`,
	} {
		f.Add([]byte(payload))
	}
	sought := Sought{Scopes: Names("scope", "/realm_access/roles"), Clients: Names("client_id", "azp")}
	f.Fuzz(func(t *testing.T, payload []byte) {
		members, naiveErr := naive.Object(payload)
		v, err := sought.Collect(payload)
		require.Equal(t, naiveErr == nil, err == nil, "%q: %v", payload, naiveErr)
		issuer, issuerErr := Issuer(payload)
		if err != nil {
			require.Error(t, issuerErr)
			return
		}
		bytes := 0
		for path, got := range map[string]Value{
			"iss": v.Issuer, "sub": v.Subject, "aud": v.Audience, "exp": v.ExpiresAt, "nbf": v.NotBefore, "iat": v.IssuedAt, "jti": v.ID, "cnf": v.Confirmation, "act": v.Actor,
			"scope": v.Scopes[0], "realm_access roles": v.Scopes[1], "client_id": v.Clients[0], "azp": v.Clients[1],
		} {
			want, there := naive.Find(members, strings.Fields(path))
			require.Equal(t, there, got != nil, path)
			assert.Equal(t, string(want), string(got), path)
			if path != "exp" && path != "nbf" && path != "iat" && path != "cnf" {
				bytes += len(want)
			}
			checkValue(t, got, want, there)
		}
		chain, known := naive.Actors(members["act"])
		actor, err := v.Actor.Actor()
		require.Equal(t, known, err == nil, "%q", v.Actor)
		if !known {
			assert.Nil(t, actor)
			chain = nil // as far as it was read
		}
		for ; actor != nil; actor, chain = actor.Prior, chain[1:] {
			assert.Equal(t, chain[0], naive.Actor{Subject: actor.Subject, ClientID: actor.ClientID, Issuer: actor.Issuer})
		}
		assert.Empty(t, chain)
		assert.Equal(t, bytes, v.Bytes())
		want, ok := naive.String(members["iss"])
		require.Equal(t, ok && want != "", issuerErr == nil)
		if issuerErr == nil {
			assert.Equal(t, want, issuer)
		}
	})
}

// checkValue compares what a value is read as with what a naive reader makes of it.
func checkValue(t *testing.T, v Value, raw json.RawMessage, there bool) {
	t.Helper()
	s, isString := naive.String(raw)
	text, err := v.Text("x")
	require.Equal(t, isString && s != "", err == nil, "%q", raw)
	if err == nil {
		assert.Equal(t, s, text)
	}
	if !there {
		return
	}
	list, isList := naive.Strings(raw)
	texts, err := v.Texts("x")
	require.Equal(t, isList, err == nil, "%q", raw)
	if isList {
		assert.Equal(t, list, texts)
	}
	var seconds float64
	isTime := raw[0] >= '0' && raw[0] <= '9' && json.Unmarshal(raw, &seconds) == nil && seconds < 253402300800
	at, err := v.Time("x")
	require.Equal(t, isTime, err == nil, "%q", raw)
	if isTime {
		assert.InDelta(t, seconds, float64(at.UnixMilli())/1000, 0.001, "%q", raw)
	}
}

func payloadOf(data string, calls *int) func() ([]byte, error) {
	return func() ([]byte, error) { *calls++; return []byte(data), nil }
}

func TestKeptClaimsAreReadOnce(t *testing.T) {
	t.Parallel()
	for data, want := range map[string][]string{
		`{"g":["a","\u0062"]}`: {"a", "b"}, `{"g":"a"}`: {"a"}, `{"g":[]}`: nil, `{"g":["a",1]}`: nil, `{"g":1}`: nil, `{"h":"a"}`: nil, `[]`: nil,
	} {
		var k Kept
		calls := 0
		for range 3 {
			assert.Equal(t, want, k.Strings(Names("g")[0], payloadOf(data, &calls), nil, 1000), data)
		}
		assert.Equal(t, 1, calls, data)
	}
	var k Kept
	fails := func() ([]byte, error) { return []byte(`{"g":"a"}`), errors.New("no payload") }
	assert.Empty(t, k.Strings(Names("g")[0], fails, nil, 1000))
}

func TestKeptClaimsByTheirNames(t *testing.T) {
	t.Parallel()
	var k Kept
	calls := 0
	payload := payloadOf(`{"a":"1","b":{"a":"2"},"/b/a":"3"}`, &calls)
	for range 2 {
		for name, want := range map[string]string{"a": "1", "/a": "1", "/b/a": "2", "/~1b~1a": "3"} {
			assert.Equal(t, []string{want}, k.Strings(Names(name)[0], payload, nil, 1000), name)
		}
	}
	assert.Equal(t, 3, calls)
}

// A claim costs its struct, two string headers for each of its values, and the bytes of
// those that are not shared.
func TestKeptClaimsStayWithinTheirRoom(t *testing.T) {
	t.Parallel()
	const header, each = int(unsafe.Sizeof("") + unsafe.Sizeof([]string{})), 2 * int(unsafe.Sizeof(""))
	payload := `{"a":["abc","shared"],"b":["abc"],"s":"shared"}`
	keeps := func(room int, names ...string) (kept int) {
		var k Kept
		calls := 0
		for range 2 {
			for _, name := range names {
				k.Strings(Names(name)[0], payloadOf(payload, &calls), []string{"", "shared"}, room)
			}
		}
		return 2*len(names) - calls
	}
	one := header + 2*each + len("abc")
	assert.Equal(t, 1, keeps(one, "a"))
	assert.Equal(t, 0, keeps(one-1, "a"))
	both := one + header + each + len("abc")
	assert.Equal(t, 2, keeps(both, "a", "b"))
	assert.Equal(t, 1, keeps(both-1, "a", "b"))
	assert.Equal(t, 1, keeps(header+each, "s"))
	assert.Equal(t, 0, keeps(header+each-1, "s"))
	assert.Equal(t, 1, keeps(header, "absent"))
	assert.Equal(t, 0, keeps(header-1, "absent"))
	many := make([]string, 100)
	for i := range many {
		many[i] = fmt.Sprint("c", i)
	}
	assert.Equal(t, 15, keeps(15*header+header-1, many...), "as many as there is room for")
}

// Not parallel: it counts the process's allocations.
func TestKeptClaimsShareStringsAndAllocateNothing(t *testing.T) {
	var k Kept
	shared := []string{strings.Clone("client"), strings.Clone("acme")}
	payload := func() ([]byte, error) { return []byte(`{"azp":"client","o":["x","acme"]}`), nil }
	for name, want := range map[string]string{"azp": shared[0], "o": shared[1]} {
		list := k.Strings(Names(name)[0], payload, shared, 1000)
		assert.Same(t, unsafe.StringData(want), unsafe.StringData(list[len(list)-1]), name)
	}
	o := Names("o")[0]
	assert.Zero(t, testing.AllocsPerRun(100, func() { k.Strings(o, payload, shared, 1000) }))
}

func TestKeptClaimsAtTheSameTime(t *testing.T) {
	t.Parallel()
	var k Kept
	payload := func() ([]byte, error) { return []byte(`{"c0":"0","c1":"1","c2":"2","c3":"3"}`), nil }
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for range 200 {
				for j := range 4 {
					n := fmt.Sprint((i + j) % 4)
					assert.Equal(t, []string{n}, k.Strings(Names("c" + n)[0], payload, nil, 1000))
				}
			}
		})
	}
	group.Wait()
}
