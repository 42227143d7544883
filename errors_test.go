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
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
