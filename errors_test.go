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
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/admission"
	"github.com/m2mauth/m2mauth/internal/claim"
	"github.com/m2mauth/m2mauth/internal/jose"
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
	{"ErrRevoked", ErrRevoked, 401, "invalid_token", `Bearer realm="R", error="invalid_token", error_description="T"`},
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
		{"a kind that wraps nothing, in an error that is not ours", fmt.Errorf("order 7: %w", ErrScope), 500, internal, "insufficient scope"},
		{"the kind of a failure on our side alone", ErrInternal, 500, internal, "internal error"},
		{"a kind that does not exist", ErrorKind("hunter2"), 500, internal, "hunter2"},
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

// An ErrorKind is an error, so it is easily passed where an *Error is meant.
func TestWriteErrorOfAKindAlone(t *testing.T) {
	t.Parallel()
	config := goodConfig()
	config.Realm, config.Logger = "R", slog.New(slog.DiscardHandler)
	guard, err := New(config)
	require.NoError(t, err)
	for _, test := range everyKind {
		description := strings.ReplaceAll(string(test.sentinel), "_", " ")
		if test.sentinel == ErrInternal {
			description = "the request could not be authorized because of an internal error"
		}
		w := httptest.NewRecorder()
		guard.WriteError(w, httptest.NewRequest("GET", "/", nil), test.sentinel)
		assert.Equal(t, test.status, w.Code, test.name)
		assert.Equal(t, `{"error":"`+test.code+`","error_description":"`+description+`"}`+"\n", w.Body.String())
		assert.Equal(t, strings.Replace(test.challenge, `"T"`, `"`+description+`"`, 1), w.Header().Get("WWW-Authenticate"), test.name)
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

// What a unit finds wrong with a token becomes an error for one caller, and the log
// gets what the unit counted or named.
func TestErrorsOfUnitsAreMadeForOneCaller(t *testing.T) {
	t.Parallel()
	_, _, dots := jose.Split("a.b.c.d")
	_, _, opaque := jose.Split("opaque")
	ours := newError(ErrAudience, "ours")
	for _, test := range []struct {
		err   error
		kind  ErrorKind
		attrs []slog.Attr
	}{
		{dots, ErrMalformed, []slog.Attr{slog.Int("dots", 3)}},
		{opaque, ErrMalformed, nil},
		{claim.Missing("tid"), ErrClaims, []slog.Attr{slog.String("claim", "tid")}},
	} {
		e := unacceptable(test.err)
		assert.Equal(t, test.kind, e.Kind)
		assert.Equal(t, test.err.Error(), e.Description)
		assert.Equal(t, test.attrs, e.attrs)
		assert.NotSame(t, e, unacceptable(test.err))
	}
	assert.Same(t, ours, unacceptable(ours))
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

// Of a header that has been read, the algorithm and the type decide, as a naive reader
// compares them.
func FuzzHeaderIsAccepted(f *testing.F) {
	for _, alg := range []string{"ES256", "Ed25519", "EdDSA", "none", "", "es256", "RS256"} {
		for _, typ := range []string{"at+jwt", "application/AT+JWT", "application/", "", "JWT", "at+jwt ", "applicatİon/at+jwt"} {
			f.Add(alg, typ, true)
		}
		f.Add(alg, "", false)
	}
	g := fuzzGuard(f)
	f.Fuzz(func(t *testing.T, alg, typ string, hasTyp bool) {
		if !hasTyp {
			typ = ""
		}
		h := jose.Header{Algorithm: alg, Type: typ, HasType: hasTyp, KeyID: "a", HasKeyID: true}
		want := h
		if want.Algorithm == "Ed25519" {
			want.Algorithm = "EdDSA"
		}
		short := strings.TrimPrefix(naive.Lower(typ), "application/")
		accepted := slices.Contains([]string{"ES256", "EdDSA"}, want.Algorithm) && slices.Contains([]string{"at+jwt", ""}, short) && (short != "" || !hasTyp)
		e := g.issuers[0].checkHeader(&h)
		require.Equal(t, accepted, e == nil, "%q %q: %v", alg, typ, e)
		if accepted {
			assert.Equal(t, want, h)
		}
	})
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
