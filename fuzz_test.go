package m2mauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/naive"
)

// The readers of what strangers send, each held against a naive reading of the
// same bytes by the standard library.

func fuzzGuard(tb testing.TB) *Guard {
	tb.Helper()
	g, err := New(Config{
		Issuer: "https://issuer.test/oidc", Audience: "https://api.test",
		JWKS:       fmt.Appendf(nil, `{"keys":[`+internalP256+`]}`, `"kid":"a",`),
		TokenTypes: []string{"at+jwt", ""}, Algorithms: []string{"ES256", "EdDSA"},
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(tb, err)
	return g
}

// A token is taken apart in the one way in which RFC 7515 §7.1 reads it, and its
// header says what encoding/json reads in it.
func FuzzReadToken(f *testing.F) {
	encode := func(header string) string {
		return naiveBase64(header) + "." + naiveBase64("{}") + "." + naiveBase64("sig")
	}
	for _, header := range []string{
		`{"alg":"ES256","typ":"at+jwt","kid":"a"}`, `{"typ":"application/AT+JWT","alg":"Ed25519"}`, `{"alg":"EdDSA"}`,
		`{"alg":"none"}`, `{"alg":"ES256","alg":"none"}`, `{"\u0061lg":"ES256","Alg":"none","typ":null}`, `{"alg":"ES256","crit":["b64"],"b64":false}`, `{"alg":"ES256","typ":"at+jwt","cty":"Application/JWT"}`,
		`{"alg":"ES256","typ":"","kid":"\ud83d"}`, `{"alg":"ES256","typ":"application/","kid":1}`, `[]`, ` {"alg":"ES256"} `, `{"alg":"ES256"}{}`,
	} {
		f.Add(encode(header), []byte(header))
	}
	f.Add("a.b.c.d.e", []byte{})
	f.Add("...", []byte{})
	f.Add("YQ.YR.YQ==", []byte{})
	g := fuzzGuard(f)
	rules := naiveHeader{algorithms: []string{"ES256", "EdDSA"}, types: []string{"at+jwt", ""}}
	f.Fuzz(func(t *testing.T, raw string, header []byte) {
		parts := strings.Split(raw, ".")
		good := len(parts) == 3
		for _, p := range parts[max(0, len(parts)-1):] {
			_, err := naive.Base64URL(p)
			good = good && err == nil
		}
		signed, signature, e := splitToken(raw)
		require.Equal(t, good, e == nil, "%q", raw)
		if good {
			assert.Equal(t, parts[0]+"."+parts[1], signed)
			assert.Equal(t, parts[2], naiveBase64(string(signature)))
			rules.compare(t, g, parts[0])
		}
		rules.compare(t, g, naiveBase64(string(header)))
	})
}

func naiveBase64(s string) string {
	// By hand: encoding/base64 is what the reader stands on.
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	var out strings.Builder
	bits, n := 0, 0
	for i := range len(s) {
		bits, n = bits<<8|int(s[i]), n+8
		for n >= 6 {
			n -= 6
			out.WriteByte(letters[bits>>n&63])
		}
		bits &= 1<<n - 1
	}
	if n > 0 {
		out.WriteByte(letters[bits<<(6-n)&63])
	}
	return out.String()
}

type naiveHeader struct{ algorithms, types []string }

func (n naiveHeader) compare(t *testing.T, g *Guard, encoded string) {
	t.Helper()
	want, accepted := n.read(encoded)
	got, e := g.issuers[0].readHeader(encoded)
	require.Equal(t, accepted, e == nil, "%q: %v", encoded, e)
	if accepted {
		assert.Equal(t, want, got, "%q", encoded)
	}
}

func (n naiveHeader) read(encoded string) (h joseHeader, accepted bool) {
	data, err := naive.Base64URL(encoded)
	if err != nil {
		return h, false
	}
	members, err := naive.Object(data)
	if err != nil {
		return h, false
	}
	good := true
	text := func(name string) (s string, present bool) {
		v, present := members[name]
		s, ok := naive.String(v)
		good = good && (ok || !present)
		return s, present
	}
	h.alg, _ = text("alg")
	h.typ, h.hasTyp = text("typ")
	h.kid, h.hasKID = text("kid")
	cty, _ := text("cty")
	nested := strings.EqualFold(cty, "JWT") || strings.EqualFold(cty, "application/jwt") // no letter past ASCII folds into these
	if h.alg == "Ed25519" {
		h.alg = "EdDSA"
	}
	_, crit := members["crit"]
	_, b64 := members["b64"]
	typ := strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII {
			return r // unicode.ToLower makes an i of İ
		}
		return unicode.ToLower(r)
	}, h.typ)
	typ = strings.TrimPrefix(typ, "application/")
	good = good && !crit && !b64 && !nested && slices.Contains(n.algorithms, h.alg) && slices.Contains(n.types, typ) && (typ != "" || !h.hasTyp)
	return h, good
}

// Whatever Retry-After says, the next attempt is at least the backoff and at most
// a minute away; within that it is believed in both of its forms.
func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{
		"", "0", "7", "29", "3600", "-1", "+5", "99999999999999999999", "2170000000A", "1.5", "1e1", " 7", "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 2094 08:49:37 GMT", "Sun, 06 Nov 2094 08:49:37 GMD",
		"Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "٧", "0x10", "1_0",
	} {
		f.Add(seed)
	}
	digits := regexp.MustCompile(`^[0-9]+$`)
	f.Fuzz(func(t *testing.T, value string) {
		k, _ := bounded(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 429, Header: http.Header{"Retry-After": {value}}, Body: http.NoBody, Request: r}, nil
		})
		_, err := k.fetch(t.Context(), nil, false)
		require.ErrorContains(t, err, "status 429")
		begin := time.Now()
		k.failLocked(err)
		wait := k.nextTry.Sub(begin)
		took := time.Since(begin)
		want := firstBackoff
		if at, err := time.Parse(http.TimeFormat, value); err == nil {
			want = min(max(want, at.Sub(begin)), time.Minute)
		} else if digits.MatchString(value) {
			if n, err := strconv.Atoi(value); err != nil || n > 60 {
				want = time.Minute
			} else {
				want = max(want, time.Duration(n)*time.Second)
			}
		} else if _, err := http.ParseTime(value); err == nil {
			assert.LessOrEqual(t, wait, time.Minute+took)
			return
		}
		assert.GreaterOrEqual(t, wait, want-took, "%q", value)
		assert.LessOrEqual(t, wait, want+took, "%q", value)
	})
}

type authorizationFields struct {
	UnimplementedRequest
	values []string
}

func (a authorizationFields) Header(string) []string { return a.values }
func (authorizationFields) RemoteAddr() string       { return "192.0.2.1:1" }

// Of an Authorization field we take the token that a strict reader of RFC 9110
// §11.4 takes, and answer as RFC 6750 §3.1 has it where there is none.
func FuzzAuthorization(f *testing.F) {
	const good = "eyJh.e30.c2ln"
	for _, seed := range []string{
		"", " ", "Bearer", "Bearer ", "Bearer " + good, "bEARER   " + good + "\t ", "\tBearer " + good, "Bearer\t" + good, "Bearer " + good + " x", "Bearer " + good + ", Bearer x",
		"Bearer realm=\"x\"", "Bearer a==", "Bearer ==", "Bearer a=b", "Basic YTpi", "Bearer" + good, "Bearer," + good, "Bearer: " + good, "\"Bearer\" x", "Bearer \x00", "Bearer\u00a0" + good,
		"BearerX " + good, "Béarer x", "Bearer " + strings.Repeat("a", 8193),
	} {
		f.Add(seed, "", byte(1))
	}
	f.Add("Bearer "+good, "Bearer "+good, byte(2))
	f.Add("", "", byte(0))
	strict := regexp.MustCompile(`^ +([A-Za-z0-9._~+/-]+=*)$`)
	scheme := regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]*")
	g := fuzzGuard(f)
	f.Fuzz(func(t *testing.T, one, two string, count byte) {
		fields := []string{one, two}[:count%3]
		var want error
		token := ""
		switch len(fields) {
		case 0:
			want = ErrNoToken
		case 2:
			want = ErrRequest
		case 1:
			field := strings.TrimRight(strings.TrimLeft(one, " \t"), " \t") // OWS around a field's value is none of it
			name := scheme.FindString(field)
			m := strict.FindStringSubmatch(field[len(name):])
			switch {
			case len(field) > 8192+7:
				want = ErrRequest
			case naive.Lower(name) != "bearer":
				want = ErrNoToken
			case m == nil || len(m[1]) > 8192:
				want = ErrRequest
			default:
				token = m[1]
			}
		}
		claims, err := g.CheckRequest(t.Context(), authorizationFields{values: fields}, AnyToken())
		assert.True(t, claims.IsZero(), "no key has signed anything")
		if want != nil {
			require.ErrorIs(t, err, want, "%q", fields)
			return
		}
		require.NotErrorIs(t, err, ErrNoToken, "%q", fields)
		require.NotErrorIs(t, err, ErrRequest, "%q", fields)
		taken, e := bearerToken(fields, defaultTokenBytes)
		require.Nil(t, e)
		assert.Equal(t, token, taken)
	})
}

// What the challenge says is read again by a strict reader of RFC 9110 §11.6.1,
// and each parameter has the characters of RFC 6750 §3 alone.
func FuzzChallenge(f *testing.F) {
	for i := range everyKind {
		f.Add(byte(i), "https://api.test", "the token has expired", "read:a write:b", "https://api.test/.well-known", int64(1_500_000_000))
	}
	f.Add(byte(2), `a"b\c`, "x\", error=\"none\r\nSet-Cookie: a=b\x00\x7f\u00e4\xff", "a\n\"b", "\"", int64(-1))
	f.Add(byte(13), "", "", "", "", int64(0))
	f.Add(byte(12), "\\", "\\", "a  b", "", int64(0))
	characters := regexp.MustCompile(`^[\x20\x21\x23-\x5B\x5D-\x7E]*$`)
	scopeTokens := regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]+( [\x21\x23-\x5B\x5D-\x7E]+)*$`)
	f.Fuzz(func(t *testing.T, kind byte, realm, text, scopes, metadata string, wait int64) {
		row := everyKind[int(kind)%len(everyKind)]
		e := newError(row.sentinel, text)
		e.realm, e.metadataURL, e.RetryAfter = realm, metadata, time.Duration(wait)
		if row.sentinel == ErrScope {
			e.Scopes = strings.Split(scopes, ",")
		}
		h, body := e.Response()

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
		if row.challenge == "" {
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
				assert.Equal(t, ErrScope, row.sentinel)
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
		assert.Equal(t, row.sentinel != ErrNoToken, hasError, "RFC 6750 §3.1")
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
