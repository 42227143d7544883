// Package ginauth puts an [m2mauth.Guard] in front of gin's handlers:
//
//	router.GET("/products", ginauth.Require(guard, "read:products"), list)
//
//	func list(c *gin.Context) {
//		claims, _ := ginauth.Claims(c)
//		…
//	}
//
// A rejected request is aborted, and [m2mauth.Guard.WriteError] responds, as with
// net/http. To change the response, set Config.ErrorHandler. The error is not added to
// gin's c.Errors: a middleware that renders those, such as the one in gin's own
// documentation, would append a second body and show the error's cause to everyone. The
// guard's log says what was rejected and why.
//
// # Traps
//
//   - router.Use and group.Use guard only the routes that are added after them. A route
//     that was added before is open. [Routes] finds it.
//   - A middleware around the whole router, such as guard.RequireRule, runs before gin
//     has matched a route. [m2mauth.OrganizationPath] finds no value there and rejects
//     every request. Give such a rule to the route, or to a group whose path has the
//     parameter.
//   - Make the guard once, when the program starts. A guard made in a handler has no
//     keys and no cached tokens, and fetches keys for each request.
//   - Pass c.Request.Context() on to other functions: [m2mauth.FromContext] finds the
//     claims there. A *gin.Context as a [context.Context] finds only values with string
//     keys, unless Engine.ContextWithFallback is set.
package ginauth

import (
	"crypto/tls"
	"net/http"
	"net/url"

	"github.com/gin-gonic/gin"

	"github.com/m2mauth/m2mauth"
)

// Require lets a request through if its token has all of the scopes. It panics as
// [m2mauth.AllScopes] does, and if [m2mauth.Guard.ValidateRule] returns an error, as
// for a nil guard.
func Require(guard *m2mauth.Guard, scopes ...string) gin.HandlerFunc {
	return handler(guard, m2mauth.AllScopes(scopes...))
}

// RequireAny lets a request through if its token has at least one of the scopes. It
// panics as [m2mauth.AnyScope] does, and if [m2mauth.Guard.ValidateRule] returns an
// error.
func RequireAny(guard *m2mauth.Guard, scopes ...string) gin.HandlerFunc {
	return handler(guard, m2mauth.AnyScope(scopes...))
}

// RequireRule lets a request through if its token meets the rule. The rule may use the
// request and its path parameters. It panics if [m2mauth.Guard.ValidateRule] returns an
// error, as for the zero Rule.
func RequireRule(guard *m2mauth.Guard, rule m2mauth.Rule) gin.HandlerFunc {
	return handler(guard, rule)
}

// Authenticate lets a request through if it has any valid token. That is
// identification, not permission: see [m2mauth.Guard.Authenticate]. It panics if
// [m2mauth.Guard.ValidateRule] returns an error.
func Authenticate(guard *m2mauth.Guard) gin.HandlerFunc {
	return handler(guard, m2mauth.AnyToken())
}

// Claims returns the claims of the request's token. If no token was checked, it returns
// the zero Claims and false.
func Claims(c *gin.Context) (claims m2mauth.Claims, ok bool) {
	return m2mauth.FromContext(c.Request.Context())
}

func handler(guard *m2mauth.Guard, rule m2mauth.Rule) gin.HandlerFunc {
	if err := guard.ValidateRule(rule); err != nil {
		panic("ginauth: " + err.Error())
	}
	return func(c *gin.Context) { check(c, guard, rule) }
}

func check(c *gin.Context, guard *m2mauth.Guard, rule m2mauth.Rule) {
	if rule.IsOptional() { // a cache must not serve one caller's answer to another
		c.Writer.Header().Add("Vary", "Authorization")
	}
	ctx := c.Request.Context()
	claims, err := guard.CheckRequest(ctx, request{c: c}, rule)
	if err != nil {
		c.Abort()
		guard.WriteError(c.Writer, c.Request, err)
		return
	}
	c.Request = c.Request.WithContext(m2mauth.NewContext(ctx, claims)) // zero where an optional rule met no token
}

// request is what the guard sees of a request.
type request struct {
	m2mauth.UnimplementedRequest
	c *gin.Context
}

func (r request) Header(name string) []string { return r.c.Request.Header.Values(name) }

// PathValue knows none of a CONNECT request, as with net/http.
func (r request) PathValue(name string) (value string) {
	defer orEmpty()
	if r.c.Request.Method == http.MethodConnect {
		return ""
	}
	return r.c.Param(name)
}

func (r request) RemoteAddr() (address string) {
	defer orEmpty()
	return r.c.Request.RemoteAddr
}

func (r request) Method() (method string) {
	defer orEmpty()
	return r.c.Request.Method
}

func (r request) URL() (u *url.URL) {
	defer orEmpty()
	return r.c.Request.URL
}

func (r request) TLS() (state *tls.ConnectionState) {
	defer orEmpty()
	return r.c.Request.TLS
}

func (r request) Pattern() (pattern string) {
	defer orEmpty()
	return r.c.FullPath()
}

// orEmpty is deferred where a panic of gin is to be an empty value.
func orEmpty() { _ = recover() }
