// Package fiberauth puts an [m2mauth.Guard] in front of the handlers of fiber v3:
//
//	app.Get("/products", fiberauth.Require(guard, "read:products"), list)
//
//	func list(c fiber.Ctx) error {
//		claims, _ := fiberauth.Claims(c)
//		…
//	}
//
// [m2mauth.Guard.WriteError] responds to a rejected request, as with net/http. fiber's
// ErrorHandler does not see the error: the default one would show its text and its
// cause. To change the response, set Config.ErrorHandler of the guard. It gets the
// request without its body.
//
// # Traps
//
//   - fasthttp rejects headers of more than 4 KiB in all, with 431. A token may have 8
//     KiB: set fiber.Config.ReadBufferSize to 16 KiB or more. With a larger
//     Config.MaxTokenBytes of the guard, set it to that plus 8 KiB.
//   - fiber.Config.ErrorHandler handles what fasthttp rejects before any handler runs,
//     such as a control character in a header. The default one responds with a text that
//     contains the header, and so the token. Set one that writes only the status.
//   - A panic ends the process. Put fiber's recover middleware in front of the guard,
//     for functions given to [m2mauth.Custom] and for Config.ErrorHandler.
//   - Handlers run in the order of registration. A route that was registered before
//     app.Use(guard) is open; [Routes] guards it.
//   - app.Use("/orgs/:org", guard) does not run if :org is empty, but a route such as
//     app.Get("/orgs/*") does: /orgs//products is open. Give the guard to the route
//     itself, or to app.Use with a prefix without parameters.
//   - A cache in front of the guard responds without asking the guard, even when the
//     token has expired. Put fiber's cache middleware behind the guard.
//   - Make the guard once, when the program starts. A guard made in a handler has no
//     keys and no cached tokens, and fetches keys for each request.
//   - Pass c.Context() on to other functions: [m2mauth.FromContext] finds the claims
//     there. A [fiber.Ctx] is a [context.Context] too, but a different one.
//   - c.Context() does not end when the caller leaves, unless a middleware such as
//     fiber's timeout sets one that does. Config.FetchTimeout limits the wait for keys.
package fiberauth

import (
	"bytes"
	"crypto/tls"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"

	"github.com/m2mauth/m2mauth"
)

// Require lets a request through if its token has all of the scopes. It panics as
// [m2mauth.AllScopes] does, and if [m2mauth.Guard.ValidateRule] returns an error, as
// for a nil guard.
func Require(guard *m2mauth.Guard, scopes ...string) fiber.Handler {
	return handler(guard, m2mauth.AllScopes(scopes...))
}

// RequireAny lets a request through if its token has at least one of the scopes. It
// panics as [m2mauth.AnyScope] does, and if [m2mauth.Guard.ValidateRule] returns an
// error.
func RequireAny(guard *m2mauth.Guard, scopes ...string) fiber.Handler {
	return handler(guard, m2mauth.AnyScope(scopes...))
}

// RequireRule lets a request through if its token meets the rule. The rule may use the
// request and its path parameters. It panics if [m2mauth.Guard.ValidateRule] returns an
// error, as for the zero Rule.
//
// What a rule sees of the request differs from net/http:
//
//   - In app.Use or a group, a rule sees the path parameters of its own prefix, and not
//     those of the route. For any other, [m2mauth.OrganizationPath] rejects the request.
//   - Path parameters are those of c.Params: percent-encoded, unless
//     fiber.Config.UnescapePath is set. In an app that is mounted at a prefix with
//     parameters, c.Params mixes up the values: use a group instead.
//   - The method and the pattern are those by which fiber routes. The URL is as it was
//     sent, or nil where net/http would respond with 400.
//   - Only the last Host, Content-Type and User-Agent is seen.
//   - fasthttp accepts white space between a header's name and the colon, although RFC
//     9112 §5.1 tells servers to reject it.
//   - fasthttp puts the trailers of a chunked body among the headers. The guard and its
//     rules do not see them. In such a request, they also do not see headers that a
//     middleware added.
//   - Values are copies and may be kept, although fasthttp reuses its buffers for the
//     next request. The [m2mauth.Request] itself is valid only during the call.
func RequireRule(guard *m2mauth.Guard, rule m2mauth.Rule) fiber.Handler {
	return handler(guard, rule)
}

// Authenticate lets a request through if it has any valid token. That is
// identification, not permission: see [m2mauth.Guard.Authenticate]. It panics if
// [m2mauth.Guard.ValidateRule] returns an error.
func Authenticate(guard *m2mauth.Guard) fiber.Handler {
	return handler(guard, m2mauth.AnyToken())
}

// Claims returns the claims of the request's token. If no token was checked, it returns
// the zero Claims and false. The claims may be kept after the request.
func Claims(c fiber.Ctx) (claims m2mauth.Claims, ok bool) {
	return m2mauth.FromContext(c.Context())
}

func handler(guard *m2mauth.Guard, rule m2mauth.Rule) fiber.Handler {
	if err := guard.ValidateRule(rule); err != nil {
		panic("fiberauth: " + err.Error())
	}
	return func(c fiber.Ctx) error { return check(c, guard, rule) }
}

func check(c fiber.Ctx, guard *m2mauth.Guard, rule m2mauth.Rule) error {
	if rule.IsOptional() { // a cache must not serve one caller's answer to another
		c.Vary(fiber.HeaderAuthorization) // in one field, since fiber's own middlewares read the first alone
	}
	ctx := c.Context()
	claims, err := guard.CheckRequest(ctx, request{c: c}, rule)
	if err != nil {
		refuse(c, guard, err)
		return nil
	}
	c.SetContext(m2mauth.NewContext(ctx, claims)) // zero where an optional rule met no token
	return c.Next()
}

// request is what the guard sees of a request. All that it returns is copied: the
// guard's queue, a rule's function or a log may hold it when fasthttp has read the
// next request into the same buffers.
type request struct {
	m2mauth.UnimplementedRequest
	c fiber.Ctx
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
	return r.c.RequestCtx().RemoteAddr().String()
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
	return r.c.RequestCtx().TLSConnectionState()
}

func (r request) Pattern() (pattern string) {
	defer orEmpty()
	return strings.Clone(r.c.FullPath())
}

// refuse answers a request. It is the one place with an http.Request, for
// Config.ErrorHandler; requests that are let through have none.
func refuse(c fiber.Ctx, guard *m2mauth.Guard, err error) {
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
func httpRequest(c fiber.Ctx) *http.Request {
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
	return r.WithContext(c.Context())
}

// orEmpty is deferred where a panic of fiber is to be an empty value.
func orEmpty() { _ = recover() }
