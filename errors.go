package m2mauth

import (
	"cmp"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// The kinds of failure, for [errors.Is]. Every error that a [Guard] returns is
// an [*Error] of exactly one kind.
var (
	// ErrNoToken: the request has no Authorization field, an empty one, or
	// one of another scheme than Bearer. 401 without an error code (RFC 6750 §3.1).
	ErrNoToken error = &kind{"no access token", http.StatusUnauthorized, codeUnauthorized}
	// ErrRequest: the credentials are malformed (two Authorization fields,
	// Bearer without a token or with more than one, over Config.MaxTokenBytes). 400 invalid_request.
	ErrRequest error = &kind{"malformed credentials", http.StatusBadRequest, codeInvalidRequest}
	// ErrMalformed: the token is not a compact JWS of strict JSON (RFC 7515
	// §7.1), or its header asks for what nobody here understands (crit). 401.
	ErrMalformed error = &kind{"malformed token", http.StatusUnauthorized, codeInvalidToken}
	// ErrAlgorithm: alg is not one of Config.Algorithms (RFC 8725 §3.1). 401.
	ErrAlgorithm error = &kind{"algorithm not accepted", http.StatusUnauthorized, codeInvalidToken}
	// ErrType: typ is not one of Config.TokenTypes (RFC 9068 §4), as an ID
	// token's is not. 401.
	ErrType error = &kind{"type not accepted", http.StatusUnauthorized, codeInvalidToken}
	// ErrIssuer: iss is not Config.Issuer. 401.
	ErrIssuer error = &kind{"wrong issuer", http.StatusUnauthorized, codeInvalidToken}
	// ErrAudience: aud does not hold Config.Audience. 401.
	ErrAudience error = &kind{"wrong audience", http.StatusUnauthorized, codeInvalidToken}
	// ErrExpired: exp has passed. 401.
	ErrExpired error = &kind{"token expired", http.StatusUnauthorized, codeInvalidToken}
	// ErrNotYetValid: nbf or iat lies ahead. 401.
	ErrNotYetValid error = &kind{"token not yet valid", http.StatusUnauthorized, codeInvalidToken}
	// ErrClaims: a claim is missing, has the wrong type, or makes the token one
	// that cannot be used here (cnf, a lifetime over Config.MaxLifetime). 401.
	ErrClaims error = &kind{"unacceptable claims", http.StatusUnauthorized, codeInvalidToken}
	// ErrUnknownKey: the issuer publishes no key that fits the token, or several
	// different ones. 401.
	ErrUnknownKey error = &kind{"unknown key", http.StatusUnauthorized, codeInvalidToken}
	// ErrSignature: the signature is wrong. 401.
	ErrSignature error = &kind{"wrong signature", http.StatusUnauthorized, codeInvalidToken}
	// ErrScope: the token is good but lacks a scope that the route requires.
	// 403 insufficient_scope.
	ErrScope error = &kind{"insufficient scope", http.StatusForbidden, codeInsufficientScope}
	// ErrForbidden: the token is good, but the route is not for it, whatever
	// its scopes. 403 insufficient_scope, without a list of scopes.
	ErrForbidden error = &kind{"forbidden", http.StatusForbidden, codeInsufficientScope}
	// ErrBusy: this caller has more requests waiting than its share. 429.
	ErrBusy error = &kind{"too many requests", http.StatusTooManyRequests, codeTemporarilyUnavailable}
	// ErrUnavailable: the token could not be checked, since the issuer's keys
	// cannot be had at the moment. 503, never 401: the token may be fine.
	ErrUnavailable error = &kind{"temporarily unavailable", http.StatusServiceUnavailable, codeTemporarilyUnavailable}
	// ErrInternal: something on the API's own side failed. 500.
	ErrInternal error = &kind{"internal error", http.StatusInternalServerError, codeServerError}
)

// Values of the member error of an answer's body. The middle three are RFC
// 6750's and also stand in the challenge.
const (
	codeUnauthorized           = "unauthorized"
	codeInvalidRequest         = "invalid_request"
	codeInvalidToken           = "invalid_token"
	codeInsufficientScope      = "insufficient_scope"
	codeTemporarilyUnavailable = "temporarily_unavailable"
	codeServerError            = "server_error"
)

// kind is what a sentinel holds: its name and the answer that it gets.
type kind struct {
	name   string
	status int
	code   string
}

func (k *kind) Error() string { return "m2mauth: " + k.name }

// Error says why a request was refused, and how to answer it. Its exported
// fields are fit for the caller's eyes: nothing of the token, of the keys or of
// an internal error is in them. Errors come from a [Guard]; find one in a chain
// of errors with [errors.As], and its kind with [errors.Is] and the Err…
// variables.
type Error struct {
	// Status is the HTTP status: 400, 401, 403, 429, 500 or 503.
	Status int
	// Code is the error code of the body, and but for "unauthorized" that of
	// the challenge too (RFC 6750 §3.1).
	Code string
	// Text says in a sentence what is wrong and, where that is known, what mends it.
	Text string
	// Scopes are all scopes that the route requires, where the token lacks one
	// (ErrScope); otherwise nil.
	Scopes []string
	// RetryAfter is how long the caller should wait (429 and 503); otherwise 0.
	RetryAfter time.Duration

	kind  *kind
	cause error
	realm string

	metadataURL string      // of RFC 9728
	attrs       []slog.Attr // what was expected and what came: for the log alone
	counted     string      // what the log counts it as, where Text does not tell
}

// key returns what the error counts as in the log.
func (e *Error) key() refusalKey { return refusalKey{e.kind, cmp.Or(e.counted, e.Text)} }

// newError makes an error of a kind, which must be one of the Err… variables.
func newError(sentinel error, text string, attrs ...slog.Attr) *Error {
	k := sentinel.(*kind)
	return &Error{Status: k.status, Code: k.code, Text: text, kind: k, attrs: attrs}
}

// Error returns the kind, the text and, where there is one, the cause, which
// may name internal things such as URLs: log it, and show callers Text.
func (e *Error) Error() string {
	s := "m2mauth: " + e.Text
	if e.kind != nil {
		s = e.kind.Error() + ": " + e.Text
	}
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Is reports whether the error is of the kind that target, one of the Err…
// variables, stands for.
func (e *Error) Is(target error) bool {
	k, ok := target.(*kind)
	return ok && k == e.kind
}

// Unwrap returns the cause, such as the failure of a fetch, or nil. What is in
// it is found by [errors.Is] and [errors.As], but for the kinds of errors of this
// package: an Error has one, and a function given to [Custom] may return another
// guard's.
func (e *Error) Unwrap() error {
	if e.cause == nil {
		return nil
	}
	return cause{e.cause}
}

// cause has no Unwrap, by which errors.Is would get past its Is.
type cause struct{ err error }

func (c cause) Error() string { return c.err.Error() }

func (c cause) Is(target error) bool {
	_, ours := target.(*kind)
	return !ours && errors.Is(c.err, target)
}

func (c cause) As(target any) bool { return errors.As(c.err, target) }

// Response returns the header fields and the body that answer the error as RFC
// 6750 says, for adapters to things that are not net/http: WWW-Authenticate
// (400, 401 and 403), Retry-After (where set), Cache-Control: no-store, and a
// JSON object with the members error and error_description.
func (e *Error) Response() (http.Header, []byte) {
	h := http.Header{
		"Cache-Control": {"no-store"},
		"Content-Type":  {"application/json"},
	}
	switch e.Status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		h.Set("WWW-Authenticate", e.challenge())
	}
	if e.RetryAfter > 0 {
		seconds := (e.RetryAfter + time.Second - 1) / time.Second
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	body := append(make([]byte, 0, 256), `{"error":`...)
	body, _ = jsontext.AppendQuote(body, e.Code) // its errors: what is not UTF-8 has been replaced
	body = append(body, `,"error_description":`...)
	body, _ = jsontext.AppendQuote(body, e.Text)
	return h, append(body, "}\n"...)
}

// challenge returns the value of WWW-Authenticate. A realm always stands in it,
// since RFC 6750 §3 wants at least one parameter.
func (e *Error) challenge() string {
	var b strings.Builder
	b.WriteString(`Bearer realm="` + quotable(e.realm) + `"`)
	if e.Code != codeUnauthorized { // §3.1: no error code for a caller that showed no credentials
		b.WriteString(`, error="` + quotable(e.Code) + `"`)
		if text := quotable(e.Text); text != "" {
			b.WriteString(`, error_description="` + text + `"`)
		}
	}
	if e.metadataURL != "" {
		b.WriteString(`, resource_metadata="` + quotable(e.metadataURL) + `"`)
	}
	if len(e.Scopes) > 0 && writable(e.Scopes) {
		b.WriteString(`, scope="` + strings.Join(e.Scopes, " ") + `"`)
	}
	return b.String()
}

// quotable returns s without the characters that RFC 6750 §3 keeps out of
// error_description. Quotes and backslashes go too, since not every client
// undoes their escapes; and with them goes every way to end the parameter early.
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, s)
}

// writable reports whether every scope is a scope-token of RFC 6749 §3.3. Logto
// takes other names as well, and half a list would mislead: it is all or none.
func writable(scopes []string) bool {
	for _, s := range scopes {
		if s == "" || strings.Contains(s, " ") || quotable(s) != s {
			return false
		}
	}
	return true
}

// internalError tells the caller nothing of its cause.
func internalError(cause error, attrs ...slog.Attr) *Error {
	e := newError(ErrInternal, "the request could not be authorized because of an internal error", attrs...)
	e.cause = cause
	return e
}

// asError finds the *Error in err, or makes one that tells nothing of err to
// the caller. A nil error is a mistake of the program, and no permission.
func asError(err error) (e *Error, ours bool) {
	var found *Error
	if errors.As(err, &found) {
		if found != nil && found.kind != nil {
			return found, true
		}
		err = errors.New("an *Error that no guard made")
	}
	return internalError(err), false
}
