package m2mauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/admission"
	"github.com/m2mauth/m2mauth/internal/keyset"
	"github.com/m2mauth/m2mauth/internal/test/naive"
)

// everyKind has all Err… variables with its answer.
var everyKind = []struct {
	name      string
	sentinel  ErrorKind
	status    int
	code      string
	challenge string // without the text; "" = no challenge
}{
	{"ErrNoToken", ErrNoToken, 401, "unauthorized", `Bearer realm="R"`},
	{"ErrRequest", ErrRequest, 400, "invalid_request", `Bearer realm="R", error="invalid_request", error_description="T"`},
	{"ErrMalformed", ErrMalformed, 401, "invalid_token", `Bearer realm="R", error="invalid_token", error_description="T"`},
	{"ErrAlgorithm", ErrAlgorithm, 401, "invalid_token", `Bearer realm="R", error="invalid_token", error_description="T"`},
	{"ErrType", ErrType, 401, "invalid_token", `Bearer realm="R", error="invalid_token", error_description="T"`},
	{"ErrIssuer", ErrIssuer, 401, "invalid_token", `Bearer realm="R", error="invalid_token", error_description="T"`},
	{"ErrAudience", ErrAudience, 401, "invalid_token", `Bearer realm="R", error="invalid_token", error_description="T"`},
	{"ErrExpired", ErrExpired, 401, "invalid_token", `Bearer realm="R", error="invalid_token", error_description="T"`},
	{"ErrNotYetValid", ErrNotYetValid, 401, "invalid_token", `Bearer realm="R", error="invalid_token", error_description="T"`},
	{"ErrClaims", ErrClaims, 401, "invalid_token", `Bearer realm="R", error="invalid_token", error_description="T"`},
	{"ErrUnknownKey", ErrUnknownKey, 401, "invalid_token", `Bearer realm="R", error="invalid_token", error_description="T"`},
	{"ErrSignature", ErrSignature, 401, "invalid_token", `Bearer realm="R", error="invalid_token", error_description="T"`},
	{"ErrScope", ErrScope, 403, "insufficient_scope", `Bearer realm="R", error="insufficient_scope", error_description="T"`},
	{"ErrForbidden", ErrForbidden, 403, "insufficient_scope", `Bearer realm="R", error="insufficient_scope", error_description="T"`},
	{"ErrBusy", ErrBusy, 429, "temporarily_unavailable", ""},
	{"ErrUnavailable", ErrUnavailable, 503, "temporarily_unavailable", ""},
	{"ErrInternal", ErrInternal, 500, "server_error", ""},
}

func TestResponseOfEachKind(t *testing.T) {
	t.Parallel()
	for _, test := range everyKind {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := newError(test.sentinel, "T")
			e.realm = "R"
			header, body := e.Response()
			want := http.Header{"Cache-Control": {"no-store"}, "Content-Type": {"application/json"}}
			if test.challenge != "" {
				want["Www-Authenticate"] = []string{test.challenge}
			}
			assert.Equal(t, want, header)
			assert.Equal(t, `{"error":"`+test.code+`","error_description":"T"}`+"\n", string(body))
			assert.Equal(t, test.status, e.Status)
			assert.Equal(t, test.code, e.Code)
		})
	}
}

func TestKindsMatchThemselvesAlone(t *testing.T) {
	t.Parallel()
	for _, one := range everyKind {
		e := newError(one.sentinel, "T")
		wrapped := fmt.Errorf("saving the order: %w", fmt.Errorf("asking: %w", error(e)))
		for _, other := range everyKind {
			same := one.name == other.name
			assert.Equal(t, same, errors.Is(e, other.sentinel), "%s is %s", one.name, other.name)
			assert.Equal(t, same, errors.Is(wrapped, other.sentinel), "wrapped %s is %s", one.name, other.name)
			assert.Equal(t, same, errors.Is(one.sentinel, other.sentinel), "the variables %s and %s", one.name, other.name)
		}
		var found *Error
		require.ErrorAs(t, wrapped, &found)
		assert.Same(t, e, found)
	}
	for _, one := range everyKind {
		assert.NotErrorIs(t, &Error{}, one.sentinel, "an Error of no kind")
	}
}

func TestErrorUnwrapsToItsCause(t *testing.T) {
	t.Parallel()
	cause := errors.New("dial tcp: refused")
	e := newError(ErrUnavailable, "try again later")
	assert.NoError(t, errors.Unwrap(e), "no cause")
	e.cause = fmt.Errorf("GET https://a.example: %w", cause)
	assert.ErrorIs(t, e, cause)
	assert.ErrorIs(t, e, ErrUnavailable)
	assert.Equal(t, "m2mauth: temporarily unavailable: try again later: GET https://a.example: dial tcp: refused", e.Error())
	assert.Equal(t, "m2mauth: a text", (&Error{Description: "a text"}).Error())
	assert.Equal(t, "m2mauth: wrong issuer", ErrIssuer.Error())
}

// TestAnErrorIsOfOneKind whatever it was caused by, such as the refusal of another
// guard that a user's function asked.
func TestAnErrorIsOfOneKind(t *testing.T) {
	t.Parallel()
	guard, err := New(goodConfig())
	require.NoError(t, err)
	own := errors.New("the user's own")
	for _, test := range []struct {
		name  string
		cause error
		own   bool
	}{
		{"a guard's error", newError(ErrScope, "T"), false},
		{"a guard's error, wrapped", fmt.Errorf("asking: %w", newError(ErrScope, "T")), false},
		{"the kind itself", fmt.Errorf("asking: %w", ErrScope), false},
		{"a guard's error and one of the user's", errors.Join(newError(ErrScope, "T"), own), true},
		{"a guard's error caused by one of the user's", &Error{Kind: ErrScope, cause: own}, true},
		{"one of the user's", fmt.Errorf("asking: %w", own), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			rule := Custom("ask", func(context.Context, Claims, Request) error { return test.cause })
			e := guard.issuers[0].authorize(t.Context(), claimsWith("a"), nil, rule)
			require.NotNil(t, e)
			wrapped := fmt.Errorf("the handler: %w", e)
			for _, kind := range everyKind {
				assert.Equal(t, kind.sentinel == ErrInternal, errors.Is(wrapped, kind.sentinel), kind.name)
			}
			assert.Equal(t, test.own, errors.Is(wrapped, own))
			var found *Error
			require.ErrorAs(t, wrapped, &found)
			assert.Same(t, e, found)
			assert.ErrorContains(t, errors.Unwrap(e), test.cause.Error(), "the cause can still be told")
		})
	}
	e, ours := asError(fmt.Errorf("asking: %w", ErrScope))
	assert.False(t, ours)
	assert.NotErrorIs(t, e, ErrScope)

	var syntax *json.SyntaxError
	e = internalError(fmt.Errorf("reading: %w", &json.SyntaxError{Offset: 7}))
	require.ErrorAs(t, e, &syntax)
	assert.EqualValues(t, 7, syntax.Offset)
}

func TestResponseShowsNothingOfTheCause(t *testing.T) {
	t.Parallel()
	e := newError(ErrUnavailable, "T", slog.String("got", "secret"))
	e.cause = errors.New("secret")
	header, body := e.Response()
	assert.NotContains(t, fmt.Sprint(header, string(body)), "secret")
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
			e := newError(ErrScope, "T")
			e.realm, e.Scopes = "R", test.scopes
			header, _ := e.Response()
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
	e := newError(ErrRequest, all.String())
	e.realm = all.String()
	e.Code = all.String()
	header, body := e.Response()
	var printable strings.Builder
	for c := byte(' '); c <= '~'; c++ {
		if c != '"' && c != '\\' {
			printable.WriteByte(c)
		}
	}
	p := printable.String()
	assert.Equal(t, `Bearer realm="`+p+`", error="`+p+`", error_description="`+p+`"`, header.Get("WWW-Authenticate"))
	assert.True(t, json.Valid(body), "a body that is JSON whatever the text")

	e = newError(ErrRequest, "ä")
	e.realm = "R"
	header, body = e.Response()
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
		e := newError(ErrUnavailable, "T")
		e.RetryAfter = test.after
		header, _ := e.Response()
		assert.Equal(t, test.want, header.Get("Retry-After"), "%v", test.after)
	}
}

func TestWriteError(t *testing.T) {
	t.Parallel()
	const internal = `{"error":"server_error","error_description":"the request could not be authorized because of an internal error"}` + "\n"
	scope := newError(ErrScope, "T")
	scope.realm, scope.Scopes = "R", []string{"a"}
	const scopeBody = `{"error":"insufficient_scope","error_description":"T"}` + "\n"
	var typedNil *Error
	for _, test := range []struct {
		name   string
		err    error
		status int
		body   string
		logged string // in the one record; "" = none
	}{
		{"an error of a guard, which has logged it", scope, 403, scopeBody, ""},
		{"a wrapped error of a guard", fmt.Errorf("order 7: %w", scope), 403, scopeBody, ""},
		{"an error joined with others", errors.Join(errors.New("hunter2"), scope), 403, scopeBody, ""},
		{"a foreign error", errors.New("password hunter2 is wrong"), 500, internal, "hunter2"},
		{"no error at all", nil, 500, internal, "internal error"},
		{"a nil *Error", typedNil, 500, internal, "internal error"},
		{"a wrapped nil *Error", fmt.Errorf("order 7: %w", typedNil), 500, internal, "internal error"},
		{"an Error that no guard made", &Error{Status: 200, Code: "ok", Description: "come in"}, 500, internal, "internal error"},
		{"an Error of nobody", &Error{}, 500, internal, "internal error"},
		{"a variable alone", ErrScope, 500, internal, "insufficient scope"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var output bytes.Buffer
			config := goodConfig()
			config.Logger = slog.New(slog.NewTextHandler(&output, &slog.HandlerOptions{Level: slog.LevelDebug}))
			var handled *Error
			handlerSaw := make(http.Header)
			custom := config
			custom.Logger = slog.New(slog.DiscardHandler)
			custom.ErrorHandler = func(w http.ResponseWriter, r *http.Request, e *Error) {
				handled, handlerSaw = e, w.Header().Clone()
				w.WriteHeader(e.Status)
			}
			guard, err := New(config)
			require.NoError(t, err)
			customGuard, err := New(custom)
			require.NoError(t, err)
			r := httptest.NewRequest("GET", "/", nil)

			w := httptest.NewRecorder()
			guard.WriteError(w, r, test.err)
			assert.Equal(t, test.status, w.Code)
			assert.Equal(t, test.body, w.Body.String())
			assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
			assert.NotContains(t, fmt.Sprint(w.Header()), "hunter2")
			if test.status == 403 {
				assert.Equal(t, `Bearer realm="R", error="insufficient_scope", error_description="T", scope="a"`, w.Header().Get("WWW-Authenticate"))
			} else {
				assert.NotContains(t, w.Header(), "Www-Authenticate")
			}
			if test.logged == "" {
				assert.Empty(t, output.String(), "logged twice")
			} else {
				assert.Equal(t, 1, strings.Count(output.String(), "\n"))
				assert.Contains(t, output.String(), "level=ERROR")
				assert.Contains(t, output.String(), test.logged)
			}

			w = httptest.NewRecorder()
			customGuard.WriteError(w, r, test.err)
			require.NotNil(t, handled)
			assert.Equal(t, test.status, handled.Status)
			assert.NotContains(t, handled.Description, "hunter2")
			assert.Equal(t, "no-store", handlerSaw.Get("Cache-Control"))
			assert.NotContains(t, handlerSaw, "Content-Type", "the handler's own")
			assert.Equal(t, test.status == 403, handlerSaw.Get("WWW-Authenticate") != "")
			assert.Empty(t, w.Body.String(), "the body is the handler's alone")
		})
	}
}

func TestWriteErrorOfAGuardThatIsNone(t *testing.T) {
	t.Parallel()
	var missing *Guard
	for name, guard := range map[string]*Guard{"nil": missing, "zero": {}} {
		for _, err := range []error{errors.New("hunter2"), nil, newError(ErrInternal, "T")} {
			w := httptest.NewRecorder()
			guard.WriteError(w, httptest.NewRequest("GET", "/", nil), err)
			assert.Equal(t, 500, w.Code, name)
			assert.NotContains(t, w.Body.String(), "hunter2", name)
		}
	}
}

func TestWriteErrorKeepsHeadersOfOthers(t *testing.T) {
	t.Parallel()
	guard, err := New(goodConfig())
	require.NoError(t, err)
	w := httptest.NewRecorder()
	w.Header().Set("X-Request-Id", "7")
	w.Header().Set("Cache-Control", "public, max-age=60")
	w.Header().Set("WWW-Authenticate", "Basic")
	guard.WriteError(w, httptest.NewRequest("GET", "/", nil), newError(ErrNoToken, "T"))
	assert.Equal(t, "7", w.Header().Get("X-Request-Id"))
	assert.Equal(t, []string{"no-store"}, w.Header().Values("Cache-Control"))
	assert.Equal(t, []string{`Bearer realm="https://shopping.api"`}, w.Header().Values("WWW-Authenticate"), "one challenge, ours")
}

// Whatever reasons there are, what is kept of them is bounded, and those over the
// bound are still counted.
func TestTheReasonsThatAreCountedAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &refusalLog{counts: make(map[refusalKey]*refusalCount)}
		forbidden := ErrForbidden
		for n := range 10 * maxRefusalKeys {
			level, _, _ := l.count(refusalKey{forbidden, fmt.Sprint(n)})
			if n <= maxRefusalKeys {
				assert.Equal(t, slog.LevelWarn, level)
			}
		}
		assert.Len(t, l.counts, maxRefusalKeys+1)
		level, number, _ := l.count(refusalKey{forbidden, "one more"})
		assert.Equal(t, slog.LevelDebug, level)
		assert.Equal(t, 9*maxRefusalKeys+1, number)
		level, _, _ = l.count(refusalKey{ErrScope, "of another kind"})
		assert.Equal(t, slog.LevelWarn, level)
		time.Sleep(time.Minute)
		level, _, _ = l.count(refusalKey{forbidden, "one more"})
		assert.Equal(t, slog.LevelWarn, level)
	})
}

func TestSourceOfARequest(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, address, want string }{
		{"IPv4", "192.0.2.1:1234", "192.0.2.1"},
		{"IPv6", "[2001:db8:1:2:3:4:5:6]:1234", "2001:db8:1:2::/64"},
		{"IPv6 with a zone", "[fe80::1%eth0]:1234", "fe80::/64"},
		{"IPv4 in IPv6, of which not all are one source", "[::ffff:192.0.2.1]:1234", "::ffff:192.0.2.1"},
		{"no port", "192.0.2.1", "192.0.2.1"},
		{"IPv6 without port", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"a name", "client.example:1234", "client.example"},
		{"a Unix socket", "@", "@"},
		{"nothing", "", ""},
		{"rubbish", "[::1", "[::1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.want, hostOf(httpRequest{&http.Request{RemoteAddr: test.address}}))
		})
	}
}

// Each caller completes its error with its own realm, and logs it.
func TestWhoIsNotAdmittedGetsAnErrorOfItsOwn(t *testing.T) {
	t.Parallel()
	away := errors.New("the client is gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(away)
	for _, test := range []struct {
		err, kind, cause error
		status           int
		counted          string
		source           bool
	}{
		{admission.ErrOverShare, ErrBusy, nil, 429, "", true},
		{admission.ErrFull, ErrUnavailable, admission.ErrFull, 503, "too many sources wait", false},
		{admission.ErrWaitedTooLong, ErrUnavailable, admission.ErrWaitedTooLong, 503, "waited too long for other tokens to be verified", false},
		{admission.ErrGone, ErrUnavailable, away, 503, "the caller went away", false},
	} {
		e := notAdmitted(ctx, test.err, "192.0.2.1\n")
		assert.NotSame(t, e, notAdmitted(ctx, test.err, "192.0.2.1\n"))
		assert.ErrorIs(t, e, test.kind)
		assert.Equal(t, test.status, e.Status)
		assert.Equal(t, "too many new tokens are being verified: try again later", e.Description)
		assert.Equal(t, time.Second, e.RetryAfter)
		assert.Equal(t, test.counted, e.counted)
		if test.cause == nil {
			assert.NoError(t, e.Unwrap())
		} else {
			assert.ErrorIs(t, e, test.cause)
			assert.Contains(t, e.Error(), test.cause.Error())
		}
		if test.source {
			assert.Equal(t, []slog.Attr{slog.String("source", keyset.Loggable("192.0.2.1\n"))}, e.attrs)
		} else {
			assert.Empty(t, e.attrs)
		}
	}
}

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

type authorizationFields struct {
	UnimplementedRequest
	values []string
}

func (a authorizationFields) Header(string) []string { return a.values }

func (authorizationFields) RemoteAddr() string { return "192.0.2.1:1" }

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
