// Package ginauth puts an [m2mauth.Guard] in front of gin's handlers:
//
//	router.GET("/products", ginauth.Require(guard, "read:products"), list)
//
//	func list(c *gin.Context) {
//		claims, _ := ginauth.Claims(c)
//		…
//	}
//
// A refused request is aborted and answered by [m2mauth.Guard.WriteError], as it
// is with net/http: Config.ErrorHandler changes the answer. The error is not
// added to gin's c.Errors: error middlewares that render what they find there,
// as the one in gin's own documentation does, would append a second body, with
// the error's cause for everyone to read. What was refused and why is in the
// guard's log.
//
// A *gin.Context as a [context.Context] finds values by string keys alone unless
// Engine.ContextWithFallback is set. Pass c.Request.Context() on, where
// [m2mauth.FromContext] finds the claims.
//
// # Traps
//
//   - router.Use and group.Use guard only the routes that are added after them. A
//     route that was added before is open.
//   - A middleware in front of gin, such as guard.RequireRule around the whole
//     router, runs before gin has matched a route: [m2mauth.OrganizationPath] finds
//     no value there, and refuses everybody. Give such rules to the route or to a group
//     whose path has the parameter.
//   - Make the guard once, when the program starts. One that is made in a handler has
//     no keys and knows no tokens: it fetches keys for each request.
package ginauth

import (
	"crypto/tls"
	"net/http"
	"net/url"

	"github.com/gin-gonic/gin"

	"github.com/m2mauth/m2mauth"
)

// Require lets a request through if its token holds all of the scopes. It panics
// as [m2mauth.AllScopes] does, and where [m2mauth.Guard.ValidateRule] returns an
// error, as for a nil guard.
func Require(guard *m2mauth.Guard, scopes ...string) gin.HandlerFunc {
	return handler(guard, m2mauth.AllScopes(scopes...))
}

// RequireAny lets a request through if its token holds any of the scopes. It panics
// as [m2mauth.AnyScope] does, and where [m2mauth.Guard.ValidateRule] returns an error.
func RequireAny(guard *m2mauth.Guard, scopes ...string) gin.HandlerFunc {
	return handler(guard, m2mauth.AnyScope(scopes...))
}

// RequireRule lets a request through if its token meets the rule, which may look
// at the request, its path parameters included. It panics where
// [m2mauth.Guard.ValidateRule] returns an error, as for the zero Rule.
func RequireRule(guard *m2mauth.Guard, rule m2mauth.Rule) gin.HandlerFunc {
	return handler(guard, rule)
}

// Authenticate lets a request through if it has any valid token. That is
// identification, not permission: see [m2mauth.Guard.Authenticate]. It panics where
// [m2mauth.Guard.ValidateRule] returns an error.
func Authenticate(guard *m2mauth.Guard) gin.HandlerFunc {
	return handler(guard, m2mauth.AnyToken())
}

// Claims returns the claims of the token that the request came with. Where no token
// was checked ok is false, and the claims are the zero Claims.
func Claims(c *gin.Context) (claims m2mauth.Claims, ok bool) {
	return m2mauth.FromContext(c.Request.Context())
}

func handler(guard *m2mauth.Guard, rule m2mauth.Rule) gin.HandlerFunc {
	if err := guard.ValidateRule(rule); err != nil {
		panic("ginauth: " + err.Error())
	}
	return func(c *gin.Context) {
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
