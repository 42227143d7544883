// Package echo4auth puts an [m2mauth.Guard] in front of the handlers of echo v4:
//
//	e.GET("/products", list, echo4auth.Require(guard, "read:products"))
//
//	func list(c echo.Context) error {
//		claims, _ := echo4auth.Claims(c)
//		…
//	}
//
// A refused request is left to echo's error handler, as echo's own middlewares
// do: the header fields of the answer are set (WWW-Authenticate, Retry-After,
// Cache-Control), and an error is returned, for which
//
//   - echo's default error handler writes the status and the body of
//     [m2mauth.Error.Response], as with net/http;
//   - an error handler of your own gets an [*echo.HTTPError]: its Code is the status,
//     and its Message is that body as JSON and a text for people with fmt.Sprint;
//   - [errors.As] finds the [*m2mauth.Error]. The whole error is for logs alone.
//
// If Config.ErrorHandler is set, that answers instead: the error that echo's
// error handler gets then comes after a response that is committed.
//
// Take it rather than echo.WrapMiddleware(guard.Require("read:products")), which hides
// the path parameters from rules, so that [m2mauth.OrganizationPath] refuses all.
//
// # Traps
//
//   - group.Use guards only the routes that are added to the group after it, and none
//     that is added to e itself. A route that was added before is open. [Routes] guards it.
//   - e.Pre runs before echo has matched a route: [m2mauth.OrganizationPath] finds no
//     value there, and refuses everybody; so does a middleware around all of echo.
//   - Path values are those of c.Param, which echo does not decode where the path came
//     with more percent signs than it needs: /orgs/%61cme is not for acme.
//   - Make the guard once, when the program starts. One that is made in a handler has
//     no keys and knows no tokens: it fetches keys for each request.
package echo4auth

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"

	"github.com/labstack/echo/v4"

	"github.com/m2mauth/m2mauth"
)

// Require lets a request through if its token holds all of the scopes. It panics
// as [m2mauth.AllScopes] does, and where [m2mauth.Guard.ValidateRule] returns an
// error, as for a nil guard.
func Require(guard *m2mauth.Guard, scopes ...string) echo.MiddlewareFunc {
	return middleware(guard, m2mauth.AllScopes(scopes...))
}

// RequireAny lets a request through if its token holds any of the scopes. It panics
// as [m2mauth.AnyScope] does, and where [m2mauth.Guard.ValidateRule] returns an error.
func RequireAny(guard *m2mauth.Guard, scopes ...string) echo.MiddlewareFunc {
	return middleware(guard, m2mauth.AnyScope(scopes...))
}

// RequireRule lets a request through if its token meets the rule, which may look
// at the request, its path parameters included. It panics where
// [m2mauth.Guard.ValidateRule] returns an error, as for the zero Rule.
func RequireRule(guard *m2mauth.Guard, rule m2mauth.Rule) echo.MiddlewareFunc {
	return middleware(guard, rule)
}

// Authenticate lets a request through if it has any valid token. That is
// identification, not permission: see [m2mauth.Guard.Authenticate]. It panics where
// [m2mauth.Guard.ValidateRule] returns an error.
func Authenticate(guard *m2mauth.Guard) echo.MiddlewareFunc {
	return middleware(guard, m2mauth.AnyToken())
}

// Claims returns the claims of the token that the request came with. Where no token
// was checked ok is false, and the claims are the zero Claims.
func Claims(c echo.Context) (claims m2mauth.Claims, ok bool) {
	return m2mauth.FromContext(c.Request().Context())
}

func middleware(guard *m2mauth.Guard, rule m2mauth.Rule) echo.MiddlewareFunc {
	if err := guard.ValidateRule(rule); err != nil {
		panic("echo4auth: " + err.Error())
	}
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error { return check(c, guard, rule, next) }
	}
}

func check(c echo.Context, guard *m2mauth.Guard, rule m2mauth.Rule, next echo.HandlerFunc) error {
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
func refuse(c echo.Context, guard *m2mauth.Guard, err error) error {
	var refused *m2mauth.Error
	if !errors.As(err, &refused) {
		return err // not to be had from a Guard
	}
	_, body := refused.Response()
	// The default error handler knows an HTTPError only where it is not wrapped.
	httpError := &echo.HTTPError{Code: refused.Status, Message: message{refused.Description, body}, Internal: refused}

	w := answer{header: c.Response().Header()}
	guard.WriteError(&w, c.Request(), err)
	if w.status == refused.Status && bytes.Equal(w.body.Bytes(), body) { // no ErrorHandler
		w.header.Del(echo.HeaderContentType) // that of another error handler may differ
		return httpError
	}
	c.Response().WriteHeader(w.status)
	_, _ = w.body.WriteTo(c.Response()) // the caller is gone: nobody is left to tell
	return httpError
}

// answer keeps what a guard writes, whose writer sends a status before a body, and none
// that is informational (1xx).
type answer struct {
	header http.Header // the response's own
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = cmp.Or(a.status, status) } // the first is sent
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

// message is the Message of the error that echo's error handlers get.
type message struct {
	text string
	body []byte
}

func (m message) String() string               { return m.text }
func (m message) MarshalJSON() ([]byte, error) { return m.body, nil }

// request is what the guard sees of a request.
type request struct {
	m2mauth.UnimplementedRequest
	c echo.Context
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
