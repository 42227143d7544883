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

// ErrorKind is a kind of failure. Every error that a [Guard] returns is an [*Error]
// of exactly one kind; [errors.Is] finds it: errors.Is(err, m2mauth.ErrScope). Its
// value is one of a fixed set, safe as a metric label.
type ErrorKind string

const (
	// ErrNoToken: the request has no Authorization field, an empty one, or
	// one of another scheme than Bearer. 401 without an error code (RFC 6750 §3.1).
	ErrNoToken ErrorKind = "no_access_token"
	// ErrRequest: the credentials are malformed (two Authorization fields,
	// Bearer without a token or with more than one, over Config.MaxTokenBytes). 400 invalid_request.
	ErrRequest ErrorKind = "malformed_credentials"
	// ErrMalformed: the token is not a compact JWS of strict JSON (RFC 7515
	// §7.1), or its header asks for what nobody here understands (crit). 401.
	ErrMalformed ErrorKind = "malformed_token"
	// ErrAlgorithm: alg is not one of Config.Algorithms (RFC 8725 §3.1). 401.
	ErrAlgorithm ErrorKind = "algorithm_not_accepted"
	// ErrType: typ is not one of Config.TokenTypes (RFC 9068 §4), as an ID
	// token's is not. 401.
	ErrType ErrorKind = "type_not_accepted"
	// ErrIssuer: iss is not Config.Issuer. 401.
	ErrIssuer ErrorKind = "wrong_issuer"
	// ErrAudience: aud does not hold Config.Audience. 401.
	ErrAudience ErrorKind = "wrong_audience"
	// ErrExpired: exp has passed. 401.
	ErrExpired ErrorKind = "token_expired"
	// ErrNotYetValid: nbf or iat lies ahead. 401.
	ErrNotYetValid ErrorKind = "token_not_yet_valid"
	// ErrClaims: a claim is missing, has the wrong type, or makes the token one
	// that cannot be used here (cnf, a lifetime over Config.MaxLifetime). 401.
	ErrClaims ErrorKind = "unacceptable_claims"
	// ErrUnknownKey: the issuer publishes no key that fits the token, or several
	// different ones. 401.
	ErrUnknownKey ErrorKind = "unknown_key"
	// ErrSignature: the signature is wrong. 401.
	ErrSignature ErrorKind = "wrong_signature"
	// ErrScope: the token is good but lacks a scope that the route requires.
	// 403 insufficient_scope.
	ErrScope ErrorKind = "insufficient_scope"
	// ErrForbidden: the token is good, but the route is not for it, whatever
	// its scopes. 403 insufficient_scope, without a list of scopes.
	ErrForbidden ErrorKind = "forbidden"
	// ErrBusy: this caller has more requests waiting than its share. 429.
	ErrBusy ErrorKind = "too_many_requests"
	// ErrUnavailable: the token could not be checked, since the issuer's keys
	// cannot be had at the moment. 503, never 401: the token may be fine.
	ErrUnavailable ErrorKind = "temporarily_unavailable"
	// ErrInternal: something on the API's own side failed. 500.
	ErrInternal ErrorKind = "internal_error"
)

// Error returns the kind in words.
func (k ErrorKind) Error() string { return "m2mauth: " + k.words() }

func (k ErrorKind) words() string { return strings.ReplaceAll(string(k), "_", " ") }

// statusAndCode are the answer that a kind gets. One that is unknown is a mistake of
// the program, and no permission.
func (k ErrorKind) statusAndCode() (status int, code string) {
	switch k {
	case ErrNoToken:
		return http.StatusUnauthorized, codeUnauthorized
	case ErrRequest:
		return http.StatusBadRequest, codeInvalidRequest
	case ErrMalformed, ErrAlgorithm, ErrType, ErrIssuer, ErrAudience, ErrExpired, ErrNotYetValid, ErrClaims, ErrUnknownKey, ErrSignature:
		return http.StatusUnauthorized, codeInvalidToken
	case ErrScope, ErrForbidden:
		return http.StatusForbidden, codeInsufficientScope
	case ErrBusy:
		return http.StatusTooManyRequests, codeTemporarilyUnavailable
	case ErrUnavailable:
		return http.StatusServiceUnavailable, codeTemporarilyUnavailable
	}
	return http.StatusInternalServerError, codeServerError
}

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

// Error says why a request was refused, and how to answer it. Its exported
// fields are fit for the caller's eyes: nothing of the token, of the keys or of
// an internal error is in them. Errors come from a [Guard]; find one in a chain
// of errors with [errors.As]. One that you make needs a Kind alone.
type Error struct {
	// Kind is the kind of failure.
	Kind ErrorKind
	// Status is the HTTP status: 400, 401, 403, 429, 500 or 503. 0 means that of Kind.
	Status int
	// Code is the error code of the body, and but for "unauthorized" that of
	// the challenge too (RFC 6750 §3.1). "" means that of Kind.
	Code string
	// Description says in a sentence what is wrong and, where that is known, what mends it.
	Description string
	// Scopes are the scopes to ask for: those that the route requires, and of
	// alternatives those of the first, so that no client asks for more than it
	// needs. With a 401 and with ErrScope; otherwise nil.
	Scopes []string
	// RetryAfter is how long the caller should wait (429 and 503); otherwise 0.
	RetryAfter time.Duration

	cause error
	realm string

	metadataURL string      // of RFC 9728
	attrs       []slog.Attr // what was expected and what came: for the log alone
	counted     string      // what the log counts it as, where Description does not tell
}

// key returns what the error counts as in the log.
func (e *Error) key() refusalKey { return refusalKey{e.Kind, cmp.Or(e.counted, e.Description)} }

// gone is what a caller's context ended with.
type gone struct{ error }

func (g gone) Unwrap() error { return g.error }

// countedAs tells a caller who goes away, and hides nothing so, from all other causes.
func countedAs(cause error) string {
	if errors.As(cause, new(gone)) {
		return "the caller went away"
	}
	return cause.Error()
}

func newError(kind ErrorKind, description string, attrs ...slog.Attr) *Error {
	status, code := kind.statusAndCode()
	return &Error{Kind: kind, Status: status, Code: code, Description: description, attrs: attrs}
}

// answered returns the error with the status and the code that it is answered with:
// its kind's, where it has none of its own. No status reads as a permission.
func (e *Error) answered() *Error {
	status, code := e.Kind.statusAndCode()
	if 400 <= e.Status && e.Status <= 599 {
		status = e.Status
	}
	if code = cmp.Or(e.Code, code); status == e.Status && code == e.Code {
		return e
	}
	full := *e
	full.Status, full.Code = status, code
	return &full
}

// Error returns the kind, the description and, where there is one, the cause, which
// may name internal things such as URLs: log it, and show callers Description.
func (e *Error) Error() string {
	s := "m2mauth: " + e.Description
	if e.Kind != "" {
		s = e.Kind.Error() + ": " + e.Description
	}
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Is reports whether target is the error's kind.
func (e *Error) Is(target error) bool {
	kind, ok := target.(ErrorKind)
	return ok && kind == e.Kind
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
	_, ours := target.(ErrorKind)
	return !ours && errors.Is(c.err, target)
}

func (c cause) As(target any) bool { return errors.As(c.err, target) }

// Response returns the header fields and the body that answer the error as RFC
// 6750 says, for adapters to things that are not net/http: WWW-Authenticate
// (400, 401 and 403), Retry-After (where set), Cache-Control: no-store, and a
// JSON object with the members error and error_description.
func (e *Error) Response() (http.Header, []byte) {
	e = e.answered()
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
	body, _ = jsontext.AppendQuote(body, e.Description)
	return h, append(body, "}\n"...)
}

// challenge returns the value of WWW-Authenticate. A realm always stands in it,
// since RFC 6750 §3 wants at least one parameter.
func (e *Error) challenge() string {
	var b strings.Builder
	b.WriteString(`Bearer realm="` + quotable(e.realm) + `"`)
	if e.Code != codeUnauthorized { // §3.1: no error code for a caller that showed no credentials
		b.WriteString(`, error="` + quotable(e.Code) + `"`)
		if text := quotable(e.Description); text != "" {
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
		if found != nil && found.Kind != "" {
			return found.answered(), true
		}
		err = errors.New("an *Error without a Kind")
	}
	return internalError(err), false
}
