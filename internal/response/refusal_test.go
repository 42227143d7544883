package response

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/naive"
)

// statuses has each status of a rejection with its code.
var statuses = []struct {
	status    int
	code      string
	challenge bool
}{
	{400, "invalid_request", true},
	{401, "unauthorized", true},
	{401, "invalid_token", true},
	{403, "insufficient_scope", true},
	{429, "temporarily_unavailable", false},
	{500, "server_error", false},
	{503, "temporarily_unavailable", false},
}

func TestResponseOfEachStatus(t *testing.T) {
	t.Parallel()
	for _, test := range statuses {
		header, body := Refusal{Status: test.status, Code: test.code, Description: "T", Realm: "R"}.HTTP()
		want := http.Header{"Cache-Control": {"no-store"}, "Content-Type": {"application/json"}}
		switch {
		case test.code == "unauthorized":
			want["Www-Authenticate"] = []string{`Bearer realm="R"`}
		case test.challenge:
			want["Www-Authenticate"] = []string{`Bearer realm="R", error="` + test.code + `", error_description="T"`}
		}
		assert.Equal(t, want, header, test.status)
		assert.Equal(t, `{"error":"`+test.code+`","error_description":"T"}`+"\n", string(body))
	}
}

func TestTheChallengeHasAllItsParametersInThisOrder(t *testing.T) {
	t.Parallel()
	r := Refusal{Status: 401, Code: "invalid_token", Description: "T", Scopes: []string{"a", "b"}, Realm: "R", MetadataURL: "https://api.test/x"}
	header, _ := r.HTTP()
	assert.Equal(t, `Bearer realm="R", error="invalid_token", error_description="T", resource_metadata="https://api.test/x", scope="a b"`, header.Get("WWW-Authenticate"))
	r.Code = Unauthorized
	header, _ = r.HTTP()
	assert.Equal(t, `Bearer realm="R", resource_metadata="https://api.test/x", scope="a b"`, header.Get("WWW-Authenticate"))
}

func TestChallengeOfScopes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		scopes []string
		want   string // the end of the challenge
	}{
		{"one", []string{"read:products"}, `, scope="read:products"`},
		{"all of them, in order", []string{"write:b", "read:a"}, `, scope="write:b read:a"`},
		{"every character of RFC 6749 section 3.3", []string{"!#$%&'()*+,-./:;<=>?@[]^_`{|}~"}, ", scope=\"!#$%&'()*+,-./:;<=>?@[]^_`{|}~\""},
		{"none", nil, ""},
		{"one with a quote leaves all out", []string{"read", `wri"te`}, ""},
		{"one with a backslash leaves all out", []string{`wri\te`, "read"}, ""},
		{"one that is not ASCII leaves all out", []string{"lesen:ä"}, ""},
		{"one with a space leaves all out", []string{"a b"}, ""},
		{"one with a line break leaves all out", []string{"a\r\nb"}, ""},
		{"an empty one leaves all out", []string{""}, ""},
		{"one with DEL leaves all out", []string{"a\x7f"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			header, _ := Refusal{Status: 403, Code: "insufficient_scope", Description: "T", Realm: "R", Scopes: test.scopes}.HTTP()
			assert.Equal(t, `Bearer realm="R", error="insufficient_scope", error_description="T"`+test.want, header.Get("WWW-Authenticate"))
		})
	}
}

// RFC 6750 §3 has %x20-21 / %x23-5B / %x5D-7E in error_description.
func TestNoParameterOfTheChallengeEndsEarly(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for c := range 256 {
		all.WriteByte(byte(c))
	}
	all.WriteString("ä€\u2028\U0001F600")
	header, body := Refusal{Status: 400, Code: all.String(), Description: all.String(), Realm: all.String(), MetadataURL: all.String()}.HTTP()
	var printable strings.Builder
	for c := byte(' '); c <= '~'; c++ {
		if c != '"' && c != '\\' {
			printable.WriteByte(c)
		}
	}
	p := printable.String()
	assert.Equal(t, `Bearer realm="`+p+`", error="`+p+`", error_description="`+p+`", resource_metadata="`+p+`"`, header.Get("WWW-Authenticate"))
	assert.True(t, json.Valid(body), "a body that is JSON whatever the text")

	header, body = Refusal{Status: 400, Code: "invalid_request", Description: "ä", Realm: "R"}.HTTP()
	assert.Equal(t, `Bearer realm="R", error="invalid_request"`, header.Get("WWW-Authenticate"), "no empty description")
	assert.Equal(t, `{"error":"invalid_request","error_description":"ä"}`+"\n", string(body))
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		after time.Duration
		want  string
	}{
		{0, ""},
		{-time.Second, ""},
		{1, "1"},
		{time.Second, "1"},
		{time.Second + 1, "2"},
		{29*time.Second + 500*time.Millisecond, "30"},
		{30 * time.Second, "30"},
		{time.Hour, "3600"},
	} {
		header, _ := Refusal{Status: 503, RetryAfter: test.after}.HTTP()
		assert.Equal(t, test.want, header.Get("Retry-After"), "%v", test.after)
	}
}

// What the challenge says is read again by a strict reader of RFC 9110 §11.6.1,
// and each parameter has the characters of RFC 6750 §3 alone.
func FuzzChallenge(f *testing.F) {
	for i := range statuses {
		f.Add(byte(i), "https://api.test", "the token has expired", "read:a write:b", "https://api.test/.well-known", int64(1_500_000_000))
	}
	f.Add(byte(2), `a"b\c`, "x\", error=\"none\r\nSet-Cookie: a=b\x00\x7f\u00e4\xff", "a\n\"b", "\"", int64(-1))
	f.Add(byte(13), "", "", "", "", int64(0))
	f.Add(byte(12), "\\", "\\", "a  b", "", int64(0))
	characters := regexp.MustCompile(`^[\x20\x21\x23-\x5B\x5D-\x7E]*$`)
	scopeTokens := regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]+( [\x21\x23-\x5B\x5D-\x7E]+)*$`)
	f.Fuzz(func(t *testing.T, kind byte, realm, text, scopes, metadata string, wait int64) {
		row := statuses[int(kind)%len(statuses)]
		e := Refusal{Status: row.status, Code: row.code, Description: text, Realm: realm, MetadataURL: metadata, RetryAfter: time.Duration(wait)}
		if row.status == 403 {
			e.Scopes = strings.Split(scopes, ",")
		}
		h, body := e.HTTP()

		var members map[string]string
		require.NoError(t, json.Unmarshal(body, &members), "%q", body)
		assert.Len(t, members, 2)
		assert.Equal(t, row.code, members["error"])
		assert.Equal(t, string([]rune(text)), members["error_description"], "each byte that is not UTF-8 is one U+FFFD")
		if retry := h.Get("Retry-After"); wait > 0 {
			seconds, err := strconv.ParseUint(retry, 10, 63)
			require.NoError(t, err)
			assert.GreaterOrEqual(t, float64(seconds), time.Duration(wait).Seconds())
			assert.Less(t, float64(seconds), time.Duration(wait).Seconds()+1)
		} else {
			assert.Empty(t, retry)
		}
		values := h.Values("WWW-Authenticate")
		if !row.challenge {
			assert.Empty(t, values)
			return
		}
		require.Len(t, values, 1)
		scheme, params, err := readChallenge(values[0])
		require.NoError(t, err, "%q", values[0])
		assert.Equal(t, "Bearer", scheme)
		require.Contains(t, params, "realm")
		for name, value := range params {
			assert.Regexp(t, characters, value, name)
			switch name {
			case "realm":
				assert.Equal(t, allowedOnly(realm), value)
			case "error":
				assert.Equal(t, row.code, value)
			case "error_description":
				assert.Equal(t, allowedOnly(text), value)
			case "scope":
				assert.Equal(t, 403, row.status)
				assert.Regexp(t, scopeTokens, value)
				assert.Equal(t, e.Scopes, strings.Split(value, " "), "all of them or none")
			case "resource_metadata":
				assert.Equal(t, allowedOnly(metadata), value)
			default:
				assert.Fail(t, "an unknown parameter", "%q", values[0])
			}
		}
		_, hasError := params["error"]
		_, hasText := params["error_description"]
		assert.Equal(t, row.code != "unauthorized", hasError, "RFC 6750 §3.1")
		assert.True(t, hasError || !hasText)
	})
}

func allowedOnly(s string) string {
	var b []byte
	for _, c := range []byte(s) {
		if c == 0x20 || c == 0x21 || (c >= 0x23 && c <= 0x5b) || (c >= 0x5d && c <= 0x7e) {
			b = append(b, c)
		}
	}
	return string(b)
}

// readChallenge reads one challenge with parameters (RFC 9110 §11.3, §11.6.1).
func readChallenge(field string) (scheme string, params map[string]string, err error) {
	const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
	param := regexp.MustCompile("^(" + token + `)[ \t]*=[ \t]*(?:(` + token + `)|"((?:[\t \x21\x23-\x5B\x5D-\x7E\x80-\xFF]|\\[\t \x21-\x7E\x80-\xFF])*)")`)
	scheme = regexp.MustCompile("^" + token).FindString(field)
	rest := strings.TrimPrefix(field, scheme)
	if scheme == "" || !strings.HasPrefix(rest, " ") {
		return "", nil, errors.New("no scheme, or nothing after it")
	}
	rest = strings.TrimLeft(rest, " ")
	params = map[string]string{}
	for {
		m := param.FindStringSubmatch(rest)
		if m == nil {
			return "", nil, fmt.Errorf("no parameter at %q", rest)
		}
		name := naive.Lower(m[1])
		if _, doubled := params[name]; doubled { // §11.2: once in a challenge
			return "", nil, fmt.Errorf("%s twice", name)
		}
		params[name] = m[2] + regexp.MustCompile(`\\(.)`).ReplaceAllString(m[3], "$1")
		rest = strings.TrimLeft(rest[len(m[0]):], " \t")
		if rest == "" {
			return scheme, params, nil
		}
		if rest[0] != ',' {
			return "", nil, fmt.Errorf("no comma at %q", rest)
		}
		rest = strings.TrimLeft(rest[1:], " \t")
	}
}

func TestQuotableIsWhatTheGrammarAllows(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		s := "a" + string([]byte{byte(c)}) + "b"
		assert.Equal(t, allowedOnly(s), Quotable(s), "%q", s)
		assert.Equal(t, allowedOnly(s) == s, isQuotable(s), "%q", s)
	}
	assert.Empty(t, Quotable(""))
	assert.True(t, isQuotable(""))
}

// The headers are made in one piece, and yet each is its own.
func TestHeadersShareNoMemory(t *testing.T) {
	t.Parallel()
	r := Refusal{Status: 401, Code: "invalid_token", Description: "T", Realm: "R", RetryAfter: time.Second}
	want, _ := r.HTTP()
	for name := range want {
		header, _ := r.HTTP()
		header[name] = append(header[name], "more")
		header[name][0] = "changed"
		for other := range want {
			if other != name {
				assert.Equal(t, want[other], header[other], "%s after %s", other, name)
			}
		}
	}
	assert.Len(t, want, 4)
}

// A challenge longer than what is on the stack is as complete.
func TestALongChallenge(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	header, body := Refusal{Status: 403, Code: "insufficient_scope", Description: long, Realm: long, Scopes: []string{long}}.HTTP()
	assert.Equal(t, `Bearer realm="`+long+`", error="insufficient_scope", error_description="`+long+`", scope="`+long+`"`, header.Get("WWW-Authenticate"))
	assert.True(t, json.Valid(body))
}

func TestARefusalMakesFewObjects(t *testing.T) {
	r := Refusal{Status: 401, Code: "invalid_token", Description: strings.Repeat("a sentence ", 20), Realm: "https://shopping.api", Scopes: []string{"a"}}
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() { r.HTTP() }), 5.0)
}
