// Package fiber2auth puts an [m2mauth.Guard] in front of the handlers of fiber v2:
//
//	app.Get("/products", fiber2auth.Require(guard, "read:products"), list)
//
//	func list(c *fiber.Ctx) error {
//		claims, _ := fiber2auth.Claims(c)
//		…
//	}
//
// Claims are in c.UserContext() too, where [m2mauth.FromContext] finds them. Pass
// that on, not c.Context(): fasthttp's is a [context.Context] as well, but has no claims.
//
// A refused request is answered by [m2mauth.Guard.WriteError], as it is with
// net/http, and what stands behind the guard is not called. fiber's ErrorHandler
// is told nothing of it, since the default one would answer with an error's
// text and its cause. Config.ErrorHandler gets the request without its body.
//
// What the guard and rules see of a request are copies, which may be kept though
// fasthttp overwrites its buffers with the next request. The [m2mauth.Request] that
// a rule's function gets is for the duration of its call alone.
//
// # What fiber does otherwise than net/http
//
//   - fasthttp refuses header fields of more than 4 KiB in all, with 431. Set
//     fiber.Config.ReadBufferSize to 16 KiB or more: tokens may have 8 KiB. With a
//     larger m2mauth.Config.MaxTokenBytes, set it to that and 8 KiB more.
//   - What fasthttp refuses before any handler, such as a control character in a
//     field, comes to fiber.Config.ErrorHandler, and the default one answers with a
//     text that has the header in it, the token included. Set one that answers with
//     the status alone, as the example does.
//   - This module asks for a newer fasthttp than fiber v2 itself, whose v1.51.0 lets
//     NUL and CR in header fields pass. Do not go back to that.
//   - fasthttp takes a field whose name is followed by white space, which RFC 9112
//     §5.1 has servers refuse.
//   - Nobody tells a handler that its caller has gone. The guard stops waiting for
//     keys when c.UserContext() ends, which is never unless something in front of it
//     sets one, as NewWithContext of fiber's timeout middleware does;
//     Config.FetchTimeout bounds the wait in any case.
//   - New of fiber's timeout middleware, which is deprecated, goes on with a *fiber.Ctx
//     that may be another request's by then. Never give it a guard.
//   - A panic ends the whole process. Put fiber's recover middleware in front of
//     the guard, for functions given to [m2mauth.Custom] and Config.ErrorHandler.
//   - Handlers run in the order in which they were registered. A route that was
//     registered before app.Use(guard) is not guarded; [Routes] guards it.
//   - A guard in app.Use or in a group runs for every path that begins as its prefix
//     does: with /admin for /administration too.
//   - app.Use("/orgs/:org", guard) does not run for a path in which :org would be
//     empty, and a route such as app.Get("/orgs/*") takes it: /orgs//products is open.
//     Give the guard to the route itself, or to app.Use of a prefix without parameters.
//   - Make the guard once, when the program starts. One that is made in a handler has
//     no keys and knows no tokens: it fetches keys for each request.
//   - A guard in app.Use or in a group sees the path parameters of its own prefix,
//     not those of the route that comes after: for all others
//     [m2mauth.OrganizationPath] refuses. Values are those of c.Params: percent
//     encoded unless fiber.Config.UnescapePath is set. In an app that is mounted at a
//     prefix with parameters, c.Params mixes the values up; use a group there.
//   - A cache in front of the guard answers without asking it, also when the token
//     has expired. Put fiber's cache middleware behind the guard.
//   - Rules see the method and the pattern that fiber routes by, and the URL as it was
//     sent. That is nil where net/http would answer 400.
//   - Of Host, Content-Type and User-Agent only the last field is seen.
//   - fasthttp puts the trailers of a chunked body among the header fields. The guard
//     and rules do not see them, nor, in such a request, fields that a middleware added.
package fiber2auth

import (
	"bytes"
	"crypto/tls"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/m2mauth/m2mauth"
)

// Require lets a request through if its token holds all of the scopes. It panics
// as [m2mauth.AllScopes] does, and where [m2mauth.Guard.ValidateRule] returns an
// error, as for a nil guard.
func Require(guard *m2mauth.Guard, scopes ...string) fiber.Handler {
	return handler(guard, m2mauth.AllScopes(scopes...))
}

// RequireAny lets a request through if its token holds any of the scopes. It panics
// as [m2mauth.AnyScope] does, and where [m2mauth.Guard.ValidateRule] returns an error.
func RequireAny(guard *m2mauth.Guard, scopes ...string) fiber.Handler {
	return handler(guard, m2mauth.AnyScope(scopes...))
}

// RequireRule lets a request through if its token meets the rule, which may look
// at the request, its path parameters included. It panics where
// [m2mauth.Guard.ValidateRule] returns an error, as for the zero Rule.
func RequireRule(guard *m2mauth.Guard, rule m2mauth.Rule) fiber.Handler {
	return handler(guard, rule)
}

// Authenticate lets a request through if it has any valid token. That is
// identification, not permission: see [m2mauth.Guard.Authenticate]. It panics where
// [m2mauth.Guard.ValidateRule] returns an error.
func Authenticate(guard *m2mauth.Guard) fiber.Handler {
	return handler(guard, m2mauth.AnyToken())
}

// Claims returns the claims of the token that the request came with. Where no token
// was checked ok is false, and the claims are the zero Claims. They may be kept.
func Claims(c *fiber.Ctx) (claims m2mauth.Claims, ok bool) {
	return m2mauth.FromContext(c.UserContext())
}

func handler(guard *m2mauth.Guard, rule m2mauth.Rule) fiber.Handler {
	if err := guard.ValidateRule(rule); err != nil {
		panic("fiber2auth: " + err.Error())
	}
	return func(c *fiber.Ctx) error { return check(c, guard, rule) }
}

func check(c *fiber.Ctx, guard *m2mauth.Guard, rule m2mauth.Rule) error {
	if rule.IsOptional() { // a cache must not serve one caller's answer to another
		c.Vary(fiber.HeaderAuthorization) // in one field, since fiber's own middlewares read the first alone
	}
	ctx := c.UserContext()
	claims, err := guard.CheckRequest(ctx, request{c: c}, rule)
	if err != nil {
		refuse(c, guard, err)
		return nil
	}
	c.SetUserContext(m2mauth.NewContext(ctx, claims)) // zero where an optional rule met no token
	return c.Next()
}

// request is what the guard sees of a request. Nothing that it returns lies in a buffer
// of fasthttp's: the guard's queue, a rule's function or a log may hold it when the
// next request has been read into that.
type request struct {
	m2mauth.UnimplementedRequest
	c *fiber.Ctx
}

// Header looks at all fields itself. fasthttp finds a name only in the letter case
// in which it expects it (fiber.Config.DisableHeaderNormalizing) and lets a blank
// before the colon pass as part of the name, so that a second field could hide.
func (r request) Header(name string) (values []string) {
	wanted := []byte(name)
	for key, value := range received(&r.c.Request().Header) {
		if bytes.EqualFold(bytes.TrimSpace(key), wanted) {
			values = append(values, string(value))
		}
	}
	return values
}

// received returns the header fields without the trailers of a chunked body, which
// fasthttp puts among them, announced or not: a trailer comes after all that a proxy
// has checked (RFC 9110 §6.5.1). Where there are more fields of a name than the header
// section has, those that stand there with this value are taken: their order says
// nothing, since fasthttp moves fields about. In a chunked request, a field of a name
// that the header section does not have is none, even if a middleware added it.
func received(h *fasthttp.RequestHeader) iter.Seq2[[]byte, []byte] {
	chunked := false // fasthttp has forgotten it when the body has been read
	for name := range rawFields(h) {
		chunked = chunked || bytes.EqualFold(name, []byte(fiber.HeaderTransferEncoding))
	}
	if !chunked {
		return h.All()
	}
	type field struct{ name, value string }
	lower := func(name []byte) string { return strings.ToLower(string(bytes.TrimSpace(name))) }
	sent, asSent, seen := make(map[string]int), make(map[field]int), make(map[string]int)
	for name, value := range rawFields(h) {
		sent[lower(name)]++
		asSent[field{lower(name), string(value)}]++
	}
	for name := range h.All() {
		seen[lower(name)]++
	}
	return func(yield func(key, value []byte) bool) {
		for key, value := range h.All() {
			name := lower(key)
			if seen[name] > sent[name] {
				f := field{name, string(bytes.TrimSpace(value))}
				if asSent[f]--; asSent[f] < 0 {
					continue
				}
			}
			if !yield(key, value) {
				return
			}
		}
	}
}

// rawFields are the fields of the header section as it came.
func rawFields(h *fasthttp.RequestHeader) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for line := range bytes.Lines(h.RawHeaders()) {
			name, value, ok := bytes.Cut(line, []byte{':'})
			if ok && line[0] != ' ' && line[0] != '\t' && !yield(bytes.TrimSpace(name), bytes.TrimSpace(value)) {
				return
			}
		}
	}
}

// PathValue knows none of a CONNECT request, as with net/http.
func (r request) PathValue(name string) (value string) {
	defer orEmpty()
	if r.c.Method() == fiber.MethodConnect {
		return ""
	}
	return strings.Clone(r.c.Params(name))
}

// RemoteAddr is not c.IP, which may be what a header says.
func (r request) RemoteAddr() (address string) {
	defer orEmpty()
	return r.c.Context().RemoteAddr().String()
}

func (r request) Method() (method string) {
	defer orEmpty()
	return strings.Clone(r.c.Method())
}

// URL is nil for what net/http answers with 400.
func (r request) URL() (u *url.URL) {
	defer orEmpty()
	u, _ = url.ParseRequestURI(strings.Clone(r.c.OriginalURL()))
	return u
}

func (r request) TLS() (state *tls.ConnectionState) {
	defer orEmpty()
	return r.c.Context().TLSConnectionState()
}

func (r request) Pattern() (pattern string) {
	defer orEmpty()
	return r.c.Route().Path // of the registration, and in no buffer
}

// refuse answers a request. It is the one place with an http.Request, for
// Config.ErrorHandler; requests that are let through have none.
func refuse(c *fiber.Ctx, guard *m2mauth.Guard, err error) {
	c.Response().ResetBody()
	w := &answer{response: c.Response(), before: http.Header{}}
	for name, value := range w.response.Header.All() {
		w.before.Add(string(name), string(value))
	}
	w.before.Del(fiber.HeaderContentType) // a default, which nobody has set
	w.header = w.before.Clone()
	guard.WriteError(w, httpRequest(c), err)
}

// answer is the response as Config.ErrorHandler sees it.
type answer struct {
	response       *fasthttp.Response
	before, header http.Header
	written        bool
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.written || status < http.StatusOK {
		return
	}
	a.written = true
	a.response.SetStatusCode(status)
	for name := range a.before {
		if len(a.header[name]) == 0 {
			a.response.Header.Del(name)
		}
	}
	for name, values := range a.header {
		if slices.Equal(values, a.before[name]) {
			continue
		}
		a.response.Header.Del(name)
		for _, value := range values {
			a.response.Header.Add(name, value)
		}
	}
}

// Write comes after a status: the guard's writer sees to that.
func (a *answer) Write(p []byte) (int, error) {
	a.response.AppendBody(p)
	return len(p), nil
}

// httpRequest returns a copy of the request, without its body.
func httpRequest(c *fiber.Ctx) *http.Request {
	in, seen := c.Request(), request{c: c}
	r := &http.Request{
		Method:     seen.Method(),
		URL:        seen.URL(),
		Proto:      string(in.Header.Protocol()),
		Header:     http.Header{},
		Body:       http.NoBody,
		Host:       string(in.Host()),
		RemoteAddr: seen.RemoteAddr(),
		RequestURI: string(in.Header.RequestURI()),
		TLS:        seen.TLS(),
	}
	r.ProtoMajor, r.ProtoMinor, _ = http.ParseHTTPVersion(r.Proto)
	for name, value := range received(&in.Header) {
		r.Header.Add(string(bytes.TrimSpace(name)), string(value))
	}
	r.Header.Del(fiber.HeaderHost) // as with net/http
	if r.URL == nil {
		r.URL = &url.URL{Path: string(in.URI().Path())}
	}
	return r.WithContext(c.UserContext())
}

// orEmpty is deferred where a panic of fiber is to be an empty value.
func orEmpty() { _ = recover() }
