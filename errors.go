package m2mauth

import (
	"cmp"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth/internal/response"
)

// ErrorKind is a kind of failure. Every error that a [Guard] returns is an [*Error] of
// exactly one kind. [errors.Is] finds the kind: errors.Is(err, m2mauth.ErrScope). It is
// one of a fixed set, safe as a metric label.
type ErrorKind string

const (
	// ErrNoToken: the request has no Authorization header, an empty one, or one with
	// another scheme than Bearer. 401 without an error code (RFC 6750 §3.1).
	ErrNoToken ErrorKind = "no_access_token"
	// ErrRequest: the credentials are malformed (two Authorization headers, Bearer
	// without a token or with more than one, a token over Config.MaxTokenBytes). 400
	// invalid_request.
	ErrRequest ErrorKind = "malformed_credentials"
	// ErrMalformed: the token is not a compact JWS of strict JSON (RFC 7515 §7.1), or
	// its header requires an extension (crit). 401.
	ErrMalformed ErrorKind = "malformed_token"
	// ErrAlgorithm: alg is not one of Config.Algorithms (RFC 8725 §3.1). 401.
	ErrAlgorithm ErrorKind = "algorithm_not_accepted"
	// ErrType: typ is not one of Config.TokenTypes (RFC 9068 §4), as with an ID token.
	// 401.
	ErrType ErrorKind = "type_not_accepted"
	// ErrIssuer: iss is not Config.Issuer. 401.
	ErrIssuer ErrorKind = "wrong_issuer"
	// ErrAudience: aud does not contain Config.Audience. 401.
	ErrAudience ErrorKind = "wrong_audience"
	// ErrExpired: exp has passed. 401.
	ErrExpired ErrorKind = "token_expired"
	// ErrNotYetValid: nbf or iat is in the future. 401.
	ErrNotYetValid ErrorKind = "token_not_yet_valid"
	// ErrClaims: a claim is missing, has the wrong type, or makes the token unusable
	// here (cnf, a lifetime over Config.MaxLifetime). 401.
	ErrClaims ErrorKind = "unacceptable_claims"
	// ErrUnknownKey: the issuer publishes no key that fits the token, or several
	// different ones. 401.
	ErrUnknownKey ErrorKind = "unknown_key"
	// ErrSignature: the signature is wrong. 401.
	ErrSignature ErrorKind = "wrong_signature"
	// ErrRevoked: Config.Revoked says that the token was revoked. 401.
	ErrRevoked ErrorKind = "token_revoked"
	// ErrScope: the token is valid but lacks a scope that the route requires. 403
	// insufficient_scope.
	ErrScope ErrorKind = "insufficient_scope"
	// ErrForbidden: the token is valid, but the route does not accept it, whatever its
	// scopes. 403 insufficient_scope, without a list of scopes.
	ErrForbidden ErrorKind = "forbidden"
	// ErrBusy: this caller has more waiting requests than its share. 429.
	ErrBusy ErrorKind = "too_many_requests"
	// ErrUnavailable: the token could not be checked, since the issuer's keys are
	// unavailable at the moment, or Config.Revoked failed. 503, never 401: the token may
	// be valid.
	ErrUnavailable ErrorKind = "temporarily_unavailable"
	// ErrInternal: something failed on the API's side. 500.
	ErrInternal ErrorKind = "internal_error"
)

// Error returns the kind in words.
func (k ErrorKind) Error() string { return "m2mauth: " + k.words() }

func (k ErrorKind) words() string { return strings.ReplaceAll(string(k), "_", " ") }

// statusAndCode returns the response for a kind: its status, and the error code of its
// body and challenge, of which RFC 6750 §3.1 has three. An unknown kind is a mistake in
// the program, and must not grant access.
func (k ErrorKind) statusAndCode() (status int, code string) {
	switch k {
	case ErrNoToken:
		return http.StatusUnauthorized, response.Unauthorized
	case ErrRequest:
		return http.StatusBadRequest, "invalid_request"
	case ErrMalformed, ErrAlgorithm, ErrType, ErrIssuer, ErrAudience, ErrExpired, ErrNotYetValid, ErrClaims, ErrUnknownKey, ErrSignature, ErrRevoked:
		return http.StatusUnauthorized, "invalid_token"
	case ErrScope, ErrForbidden:
		return http.StatusForbidden, "insufficient_scope"
	case ErrBusy:
		return http.StatusTooManyRequests, "temporarily_unavailable"
	case ErrUnavailable:
		return http.StatusServiceUnavailable, "temporarily_unavailable"
	}
	return http.StatusInternalServerError, "server_error"
}

// Error says why a request was rejected, and how to respond to it. Its exported fields
// are safe to show to the caller: they contain nothing of the token, of the keys or of
// an internal error. Errors come from a [Guard]. Use [errors.As] to find one in a chain
// of errors. One that you make yourself needs only a Kind.
type Error struct {
	// Kind is the kind of failure.
	Kind ErrorKind
	// Status is the HTTP status: 400, 401, 403, 429, 500 or 503. 0 means that of Kind.
	Status int
	// Code is the error code of the body and, unless it is "unauthorized", of the
	// challenge (RFC 6750 §3.1). "" means that of Kind.
	Code string
	// Description says in a sentence what is wrong and, if known, how to fix it.
	Description string
	// Scopes are the scopes to ask for: those that the route requires, and of
	// alternatives the first, so that no client asks for more than it needs. Set with a
	// 401 and with ErrScope, otherwise nil.
	Scopes []string
	// RetryAfter is how long the caller should wait (429 and 503). Otherwise 0.
	RetryAfter time.Duration

	cause error
	realm string

	metadataURL string      // of RFC 9728
	attrs       []slog.Attr // what was expected and what came, only for the log
	counted     string      // how the log counts it, if not by Description, as all texts of Deny
}

// gone is what a caller's context ended with.
type gone struct{ error }

func (g gone) Unwrap() error { return g.error }

// countedAs separates callers that went away from all other causes, so that they hide
// none.
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

func unavailable(retryAfter time.Duration, cause error) *Error {
	e := newError(ErrUnavailable, "the token cannot be checked at the moment, since the issuer's keys are unavailable: try again later")
	e.RetryAfter = max(retryAfter, time.Second)
	e.cause = cause
	return e
}

// heldUp is unavailable for a cause other than a failed fetch. The log counts it
// separately, so that it hides no failed fetch.
func heldUp(retryAfter time.Duration, cause error) *Error {
	e := unavailable(retryAfter, cause)
	e.counted = countedAs(cause)
	return e
}

// answered returns the error with the status and code of the response. If it has none
// of its own, they are its kind's. The status is never one of success.
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

// Error returns the kind, the description and the cause, if there is one. The cause may
// name internal things such as URLs: log it, and show callers only Description.
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

// Unwrap returns the cause, such as the failure of a fetch, or nil. [errors.Is] and
// [errors.As] find what is in it, except an ErrorKind: an Error has exactly one kind, and a
// function given to [Custom] may return another guard's error.
func (e *Error) Unwrap() error {
	if e.cause == nil {
		return nil
	}
	return cause{e.cause}
}

// cause has no Unwrap, since errors.Is would use it to bypass Is.
type cause struct{ err error }

func (c cause) Error() string { return c.err.Error() }

func (c cause) Is(target error) bool {
	_, ours := target.(ErrorKind)
	return !ours && errors.Is(c.err, target)
}

func (c cause) As(target any) bool { return errors.As(c.err, target) }

// Response returns the headers and the body of the response, per RFC 6750, for adapters
// to other libraries than net/http. The headers are WWW-Authenticate (400, 401 and
// 403), Retry-After (if set) and Cache-Control: no-store. The body is a JSON object
// with the members error and error_description.
func (e *Error) Response() (http.Header, []byte) {
	e = e.answered()
	return response.Refusal{
		Status: e.Status, Code: e.Code, Description: e.Description, Scopes: e.Scopes,
		RetryAfter: e.RetryAfter, Realm: e.realm, MetadataURL: e.metadataURL,
	}.HTTP()
}

// internalError shows the caller nothing of its cause.
func internalError(cause error, attrs ...slog.Attr) *Error {
	e := newError(ErrInternal, "the request could not be authorized because of an internal error", attrs...)
	e.cause = cause
	return e
}

// asError finds the *Error in err, makes one if err is a kind of rejection alone, or makes
// one that shows the caller nothing of err. A nil error, or a kind that does not exist, is
// a mistake in the program, and must not grant access.
func asError(err error) (e *Error, ours bool) {
	if kind, bare := err.(ErrorKind); bare {
		if e = newError(kind, kind.words()); e.Status != http.StatusInternalServerError {
			return e, true
		}
	}
	if found, is := errors.AsType[*Error](err); is {
		if found != nil && found.Kind != "" {
			return found.answered(), true
		}
		err = errors.New("an *Error without a Kind")
	}
	return internalError(err), false
}
