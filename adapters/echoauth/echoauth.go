// Package echoauth puts an [m2mauth.Guard] in front of the handlers of echo v5:
//
//	e.GET("/products", list, echoauth.Require(guard, "read:products"))
//
//	func list(c *echo.Context) error {
//		claims, _ := echoauth.Claims(c)
//		…
//	}
//
// A rejected request is left to echo's error handler, as with echo's own middlewares.
// The headers WWW-Authenticate, Retry-After and Cache-Control are set, and an error is
// returned:
//
//   - echo's default error handler writes the status and the body of
//     [m2mauth.Error.Response], as with net/http.
//   - [echo.StatusCode] returns the status, for an error handler of your own.
//   - [errors.As] finds the [*m2mauth.Error], and an [*echo.HTTPError] with its status
//     and text. The whole error is for logs only.
//
// If Config.ErrorHandler is set, it writes the response. echo's error handler then gets
// the error after the response is committed.
//
// Package echo4auth is for echo v4.
//
// # Traps
//
//   - group.Use guards only the routes that are added to the group after it, and no
//     route that is added to e itself. A route that was added before is open. [Routes] guards it.
//   - e.Pre and any middleware around all of echo run before echo has matched a route.
//     [m2mauth.OrganizationPath] finds no value there and rejects every request.
//   - Make the guard once, when the program starts. A guard made in a handler has no
//     keys and no cached tokens, and fetches keys for each request.
package echoauth

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"

	"github.com/labstack/echo/v5"

	"github.com/m2mauth/m2mauth"
)

// Require lets a request through if its token has all of the scopes. It panics as
// [m2mauth.AllScopes] does, and if [m2mauth.Guard.ValidateRule] returns an error, as
// for a nil guard.
func Require(guard *m2mauth.Guard, scopes ...string) echo.MiddlewareFunc {
	return middleware(guard, m2mauth.AllScopes(scopes...))
}

// RequireAny lets a request through if its token has at least one of the scopes. It
// panics as [m2mauth.AnyScope] does, and if [m2mauth.Guard.ValidateRule] returns an
// error.
func RequireAny(guard *m2mauth.Guard, scopes ...string) echo.MiddlewareFunc {
	return middleware(guard, m2mauth.AnyScope(scopes...))
}

// RequireRule lets a request through if its token meets the rule. The rule may use the
// request and its path parameters. It panics if [m2mauth.Guard.ValidateRule] returns an
// error, as for the zero Rule.
func RequireRule(guard *m2mauth.Guard, rule m2mauth.Rule) echo.MiddlewareFunc {
	return middleware(guard, rule)
}

// Authenticate lets a request through if it has any valid token. That is
// identification, not permission: see [m2mauth.Guard.Authenticate]. It panics if
// [m2mauth.Guard.ValidateRule] returns an error.
func Authenticate(guard *m2mauth.Guard) echo.MiddlewareFunc {
	return middleware(guard, m2mauth.AnyToken())
}

// Claims returns the claims of the request's token. If no token was checked, it returns
// the zero Claims and false.
func Claims(c *echo.Context) (claims m2mauth.Claims, ok bool) {
	return m2mauth.FromContext(c.Request().Context())
}

func middleware(guard *m2mauth.Guard, rule m2mauth.Rule) echo.MiddlewareFunc {
	if err := guard.ValidateRule(rule); err != nil {
		panic("echoauth: " + err.Error())
	}
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error { return check(c, guard, rule, next) }
	}
}

func check(c *echo.Context, guard *m2mauth.Guard, rule m2mauth.Rule, next echo.HandlerFunc) error {
	if rule.IsOptional() { // a cache must not serve one caller's answer to another
		c.Response().Header().Add(echo.HeaderVary, "Authorization")
	}
	r := c.Request()
	claims, err := guard.CheckRequest(r.Context(), request{c: c}, rule)
	if err != nil {
		return refuse(c, guard, err)
	}
	c.SetRequest(r.WithContext(m2mauth.NewContext(r.Context(), claims))) // zero where an optional rule met no token
	return next(c)
}

// refuse sets the header fields of the answer and returns the error from which
// echo's error handler makes the rest. What Config.ErrorHandler answers is sent.
func refuse(c *echo.Context, guard *m2mauth.Guard, err error) error {
	refused := &refusal{}
	if !errors.As(err, &refused.err) {
		return err // not to be had from a Guard
	}
	_, refused.body = refused.err.Response()

	w := answer{header: c.Response().Header()}
	guard.WriteError(&w, c.Request(), err)
	if w.status == refused.err.Status && bytes.Equal(w.body.Bytes(), refused.body) { // no ErrorHandler
		w.header.Del(echo.HeaderContentType) // that of another error handler may differ
		return refused
	}
	c.Response().WriteHeader(cmp.Or(w.status, refused.err.Status))
	_, _ = w.body.WriteTo(c.Response()) // the caller is gone: nobody is left to tell
	return refused
}

// answer keeps the body that a guard writes. What is informational (1xx) is not sent.
type answer struct {
	header http.Header // the response's own
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) } // the guard's writer sends a status before it

func (a *answer) WriteHeader(status int) {
	if status >= http.StatusOK {
		a.status = cmp.Or(a.status, status)
	}
}

// refusal is the error that echo's error handlers get.
type refusal struct {
	err  *m2mauth.Error
	body []byte
}

func (r *refusal) Error() string                { return r.err.Error() }
func (r *refusal) Unwrap() error                { return r.err }
func (r *refusal) StatusCode() int              { return r.err.Status }
func (r *refusal) MarshalJSON() ([]byte, error) { return r.body, nil }

// As makes refusals known to error handlers that look for a [*echo.HTTPError] and
// answer all else with 500.
func (r *refusal) As(target any) bool {
	httpError, ok := target.(**echo.HTTPError)
	if ok {
		*httpError = echo.NewHTTPError(r.err.Status, r.err.Description)
	}
	return ok
}

// request is what the guard sees of a request.
type request struct {
	m2mauth.UnimplementedRequest
	c *echo.Context
}

func (r request) Header(name string) []string { return r.c.Request().Header.Values(name) }

// PathValue knows none of a CONNECT request, as with net/http.
func (r request) PathValue(name string) (value string) {
	defer orEmpty()
	if r.c.Request().Method == http.MethodConnect {
		return ""
	}
	return r.c.Param(name)
}

func (r request) RemoteAddr() (address string) {
	defer orEmpty()
	return r.c.Request().RemoteAddr
}

func (r request) Method() (method string) {
	defer orEmpty()
	return r.c.Request().Method
}

func (r request) URL() (u *url.URL) {
	defer orEmpty()
	return r.c.Request().URL
}

func (r request) TLS() (state *tls.ConnectionState) {
	defer orEmpty()
	return r.c.Request().TLS
}

func (r request) Pattern() (pattern string) {
	defer orEmpty()
	return r.c.Path()
}

// orEmpty is deferred where a panic of echo is to be an empty value.
func orEmpty() { _ = recover() }
