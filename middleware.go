package m2mauth

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/m2mauth/m2mauth/internal/jose"
)

// Guard lets requests through to handlers if they carry a valid access token
// that the route accepts. Make one with [New], once for an API, and share it: it
// holds the issuer's keys. A Guard is safe for concurrent use, needs no closing,
// and has no goroutine while nothing happens.
type Guard struct {
	claims         claimPolicy
	keys           *keySource
	algorithms     map[string]bool // under the names of internal/jose
	algorithmNames []string
	types          map[string]bool // as mediaType gives them
	typeNames      []string

	allowOrganizations bool
	realm              string
	maxTokenBytes      int
	waitingBytes       *atomic.Int64 // of tokens that wait for keys
	tokens             *tokenCache
	checks             *checks
	gate               *gate
	sourceOf           func(Request) string
	errorHandler       func(http.ResponseWriter, *http.Request, *Error)
	onDecision         func(context.Context, Decision)
	refusals           *refusalLog
	metadataURL        *atomic.Pointer[string] // for the challenge, once Metadata was called

	joined map[string]*Guard // by issuer; nil in a guard of one issuer
}

// New makes a Guard. It does no I/O and starts no goroutine: keys are fetched by
// the first request, or by [Guard.Warm]. The error names every mistake in the
// Config at once.
func New(config Config) (*Guard, error) {
	rsaAlgorithm := rsaWithoutAlg(config.Algorithms)
	c, err := config.checked()
	logger := func() *slog.Logger { return cmp.Or(c.Logger, slog.Default()) }
	keys, keysErr := newKeySource(&c, rsaAlgorithm, logger)
	if err := errors.Join(err, keysErr); err != nil {
		return nil, err
	}
	keys.maxTTL = cmp.Or(config.KeyTTL, keys.maxTTL)
	g := &Guard{
		keys: keys,
		claims: claimPolicy{
			issuer:       c.Issuer,
			audiences:    append([]string{c.Audience}, c.OtherAudiences...),
			scopeClaims:  c.ScopeClaims,
			clientClaims: c.ClientClaims,
			leeway:       c.Leeway,
			maxLifetime:  c.MaxLifetime,
			isMachine:    c.IsMachine,

			organizations: c.Audience == organizationAudience,
		},
		maxTokenBytes:      c.MaxTokenBytes,
		waitingBytes:       new(atomic.Int64),
		tokens:             newTokenCache(c.CacheBytes),
		checks:             newChecks(),
		gate:               newGate(),
		sourceOf:           c.Source,
		algorithms:         make(map[string]bool),
		algorithmNames:     c.Algorithms,
		types:              make(map[string]bool),
		typeNames:          c.TokenTypes,
		allowOrganizations: c.AllowOrganizations,
		realm:              c.Realm,
		errorHandler:       c.ErrorHandler,
		onDecision:         c.OnDecision,
		metadataURL:        new(atomic.Pointer[string]),
		refusals:           &refusalLog{logger: logger, counts: make(map[refusalKey]*refusalCount)},
	}
	for _, a := range c.Algorithms {
		name, _ := jose.Algorithm(a)
		g.algorithms[name] = true
	}
	for _, t := range c.TokenTypes {
		g.types[mediaType(t)] = true
	}
	return g, nil
}

// rsaWithoutAlg returns the algorithm of published RSA keys without alg: RS256
// (Logto's), or the only RSA algorithm of those configured, or none.
func rsaWithoutAlg(configured []string) string {
	if len(configured) == 0 {
		return "RS256"
	}
	rsa := slices.DeleteFunc(slices.Clone(configured), func(a string) bool { return !jose.IsRSA(a) })
	if slices.Sort(rsa); len(slices.Compact(rsa)) != 1 {
		return ""
	}
	return rsa[0]
}

// Require returns a middleware that lets a request through if its token holds
// all of the scopes. It panics as [AllScopes] does.
func (g *Guard) Require(scopes ...string) func(http.Handler) http.Handler {
	return g.middleware("Require", scopeRule("Require", scopes, true))
}

// RequireAny returns a middleware that lets a request through if its token holds
// any of the scopes. It panics as [AnyScope] does.
func (g *Guard) RequireAny(scopes ...string) func(http.Handler) http.Handler {
	return g.middleware("RequireAny", scopeRule("RequireAny", scopes, false))
}

// RequireRule returns a middleware that lets a request through if its token
// meets the rule. It panics if the rule is the zero Rule, which nothing meets, or
// names no organization where the guard is for organization tokens.
func (g *Guard) RequireRule(rule Rule) func(http.Handler) http.Handler {
	return g.middleware("RequireRule", rule)
}

// Authenticate lets a request through if it has any valid token. That is
// identification, not permission: with Logto every machine-to-machine
// application of the tenant, even one without a role, gets a valid token for
// any registered API resource. Where that is not what you mean, use [Guard.Require].
func (g *Guard) Authenticate(next http.Handler) http.Handler {
	return g.middleware("Authenticate", AnyToken())(next)
}

// middleware makes the middleware of a call, in whose name it panics at set-up.
func (g *Guard) middleware(call string, rule Rule) func(http.Handler) http.Handler {
	if !g.ready() {
		panic(fmt.Sprintf("m2mauth: %s: the Guard is nil or was not made by New; was the error of New ignored?", call))
	}
	if rule.demand == nil {
		panic(fmt.Sprintf("m2mauth: %s: the zero Rule lets nobody through; make one with AllScopes, AnyScope or AnyToken", call))
	}
	if !rule.organization && g.needsOrganization() {
		panic(fmt.Sprintf("m2mauth: %s: %s names no organization, and this Guard is for organization tokens; add Organization, OrganizationPath or OrganizationHeader", call, rule))
	}
	g.refusals.oddScopes(rule)
	return func(next http.Handler) http.Handler {
		if f, isFunc := next.(http.HandlerFunc); next == nil || (isFunc && f == nil) {
			panic(fmt.Sprintf("m2mauth: %s: the handler is nil", call))
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if rule.optional { // a cache must not serve one caller's answer to another
				w.Header().Add("Vary", "Authorization")
			}
			set, err := g.checkHTTP(r, rule)
			if err != nil {
				g.WriteError(w, r, err)
				return
			}
			next.ServeHTTP(w, r.WithContext(newContext(r.Context(), set)))
		})
	}
}

func (g *Guard) ready() bool { return g != nil && g.keys != nil }

// tokenBytes is Config.MaxTokenBytes; for a guard that is none, decide has the answer.
func (g *Guard) tokenBytes() int {
	if !g.ready() {
		return 0
	}
	return g.maxTokenBytes
}

// Check decides about a request without a middleware: it returns the token's
// claims if the request carries a valid token that meets the rule, and otherwise
// an [*Error], for [Guard.WriteError]. It logs refusals.
func (g *Guard) Check(r *http.Request, rule Rule) (*Claims, error) {
	return ownClaims(g.checkHTTP(r, rule))
}

func (g *Guard) checkHTTP(r *http.Request, rule Rule) (*claimSet, error) {
	if r == nil {
		return g.decide(context.Background(), "", internalError(errors.New("Check was given no request")), nil, rule)
	}
	token, e := bearerToken(r.Header["Authorization"], g.tokenBytes()) // under the one name that net/http has for it
	return g.decide(r.Context(), token, e, httpRequest{r}, rule)
}

// Request is what a [Guard] sees of a request, for what is not net/http. If it has
// a method Pattern() string too, that names the route in the log.
type Request interface {
	// Header returns all values of a header field, whose name may be written
	// in any letter case. If it panics the request is refused with ErrInternal.
	Header(name string) []string
	// PathValue returns the value of a wildcard of the route's path, or "". It
	// is "" for every CONNECT request of net/http and the adapters.
	PathValue(name string) string
	// RemoteAddr returns the address of the peer, host:port.
	RemoteAddr() string
}

type httpRequest struct{ r *http.Request }

func (h httpRequest) Header(name string) []string { return h.r.Header.Values(name) }
func (h httpRequest) RemoteAddr() string          { return h.r.RemoteAddr }
func (h httpRequest) Pattern() string             { return h.r.Pattern }

// PathValue knows none of a CONNECT request, whose path net/http does not clean:
// in /orgs//items/acme its wildcards move, so that the item would be taken for
// the organization, or it panics.
func (h httpRequest) PathValue(name string) (value string) {
	if h.r.Method == http.MethodConnect {
		return ""
	}
	defer orEmpty()
	return h.r.PathValue(name)
}

// orEmpty is deferred where a panic of a framework is to be an empty value.
func orEmpty() { _ = recover() }

// fieldsOf returns the values of a header field. A panic is an error and not a
// request without the field, which a rule such as Optional would let through.
func fieldsOf(r Request, name string) (values []string, err error) {
	defer func() {
		if v := recover(); v != nil {
			values, err = nil, fmt.Errorf("the request's Header panicked with a %T", v) // its text may hold the token
			if mistake, ok := v.(runtime.Error); ok {
				err = fmt.Errorf("the request's Header panicked: %w", mistake)
			}
		}
	}()
	return r.Header(name), nil
}

// CheckRequest is [Guard.Check] for requests that are not net/http's. The
// context's end frees the caller where a fetch of keys is waited for. A nil
// Request is refused with ErrInternal, and so is one whose Header panics.
func (g *Guard) CheckRequest(ctx context.Context, r Request, rule Rule) (*Claims, error) {
	if r == nil {
		return ownClaims(g.decide(ctx, "", internalError(errors.New("CheckRequest was given no Request")), nil, rule))
	}
	fields, err := fieldsOf(r, "Authorization")
	if err != nil {
		return ownClaims(g.decide(ctx, "", internalError(err), r, rule))
	}
	token, e := bearerToken(fields, g.tokenBytes())
	return ownClaims(g.decide(ctx, token, e, r, rule))
}

// Verify checks a token by itself, for queues and WebSockets: all that a
// middleware checks, but for what a route demands. It logs refusals.
func (g *Guard) Verify(ctx context.Context, token string) (*Claims, error) {
	return ownClaims(g.decide(ctx, token, nil, nil, AnyToken()))
}

// decide is the one way to claims. They are never returned beside an error, and
// are nil without one where an optional rule met no token.
func (g *Guard) decide(ctx context.Context, raw string, e *Error, r Request, rule Rule) (*claimSet, error) {
	if !g.ready() {
		return nil, newError(ErrInternal, "this API's guard was not set up")
	}
	var begin time.Time
	var claims *Claims
	remembered, told := false, g.onDecision == nil
	if !told {
		begin = time.Now()
		defer func() {
			if !told { // a function of the user's panicked, and the panic goes on
				failed := internalError(errors.New("a panic in a function given to the guard"))
				g.report(ctx, Decision{Rule: rule, Claims: claims, Err: failed, Remembered: remembered, Duration: time.Since(begin)}, false)
			}
		}()
	}
	if e == nil {
		var t *token
		if t, remembered, e = g.verify(ctx, raw, r); e == nil {
			claims = t.claims
			e = t.guard.authorize(ctx, claims, r, rule)
		}
	}
	anonymous := rule.optional && e != nil && e.kind == ErrNoToken
	if !told {
		told = true
		g.report(ctx, Decision{Rule: rule, Claims: claims, Err: e, Remembered: remembered, Duration: time.Since(begin)}, anonymous)
	}
	switch {
	case anonymous:
		return nil, nil
	case e != nil:
		return nil, g.refuse(ctx, e, r, claims)
	}
	return claims.claimSet, nil
}

// noRequest is the source of tokens that come by themselves, to Verify. No address
// and no header field, of which a Config.Source may make one, is so written.
const noRequest = "\x00"

// source says whom a request that waits for a signature check counts as.
func (g *Guard) source(r Request) string {
	switch {
	case r == nil:
		return noRequest
	case g.sourceOf == nil:
		return hostOf(r)
	}
	return g.sourceOf(r)
}

// refuse completes and logs an error on its way out.
func (g *Guard) refuse(ctx context.Context, e *Error, r Request, c *Claims) error {
	g.complete(e)
	g.refusals.write(ctx, e, r, c)
	return e
}

// complete tells an error what the challenge needs to know of the guard.
func (g *Guard) complete(e *Error) {
	e.realm = g.realm
	if url := g.metadataURL.Load(); url != nil {
		e.metadataURL = *url
	}
}

// WriteError answers a request with an error of [Guard.Check]: header fields
// first, then Config.ErrorHandler or a small JSON body. An error that is not of
// this package is logged and answered with 500, and nothing of it is shown. The
// status is never below 400, whatever the ErrorHandler does: see there for gRPC.
func (g *Guard) WriteError(w http.ResponseWriter, r *http.Request, err error) {
	e, ours := asError(err)
	if !ours && g.ready() {
		_ = g.refuse(r.Context(), e, httpRequest{r}, nil)
	}
	header, body := e.Response()
	custom := g.ready() && g.errorHandler != nil
	for name, values := range header {
		if !custom || name != "Content-Type" {
			w.Header()[name] = values
		}
	}
	if custom {
		refusal := &refusalWriter{ResponseWriter: w, status: e.Status}
		refusal.replace = func(status int) { g.refusals.replacedStatus(r.Context(), status, refusal.status) }
		g.errorHandler(refusal, r, e)
		refusal.begin()
		return
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // the caller is gone: nobody is left to tell
}

// refusalWriter is what Config.ErrorHandler writes to. net/http makes an answer
// without a status 200, which a client takes for success: here it is the refusal's.
type refusalWriter struct {
	http.ResponseWriter
	status  int              // of the refusal
	replace func(status int) // is called with a status below 400, in place of which the refusal's is sent
	begun   bool
}

func (w *refusalWriter) WriteHeader(status int) {
	informational := status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
	if !w.begun && !informational {
		w.begun = true
		if status < 400 && !(status == http.StatusOK && hasOwnStatus(w.Header().Get("Content-Type"))) {
			w.replace(status)
			status = w.status
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// hasOwnStatus reports whether an answer of the type is of gRPC, gRPC-Web or
// Connect's streams. They are 200 even for an error, which stands in a trailer or
// at the end of the body.
func hasOwnStatus(contentType string) bool {
	contentType = lowerASCII(contentType)
	return strings.HasPrefix(contentType, "application/grpc") || strings.HasPrefix(contentType, "application/connect+")
}

// begin sends the refusal's status where none has been sent.
func (w *refusalWriter) begin() {
	if !w.begun {
		w.WriteHeader(w.status)
	}
}

func (w *refusalWriter) Write(p []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(p)
}

// Flush is there for handlers that look for an http.Flusher.
func (w *refusalWriter) Flush() { _ = w.FlushError() }

// FlushError is for [http.ResponseController], which would ask the inner writer
// otherwise: that begins its answer with 200.
func (w *refusalWriter) FlushError() error {
	w.begin()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack leaves the answer to whoever takes the connection.
func (w *refusalWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.begun = w.begun || err == nil
	return conn, buffer, err
}

// Unwrap is for [http.ResponseController].
func (w *refusalWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Warm fetches the issuer's keys if there are none that are fresh, so that the
// first request need not wait. It is never needed. Its error, an [*Error] of kind
// ErrUnavailable, says why keys cannot be had; while retries back off it returns
// at once. Ending ctx ends the wait, not the fetch.
func (g *Guard) Warm(ctx context.Context) error {
	if !g.ready() {
		return newError(ErrInternal, "the guard was not made by New")
	}
	if g.joined != nil {
		return g.warmJoined(ctx)
	}
	if _, _, e := g.keys.get(ctx, time.Now(), held{}); e != nil {
		return e
	}
	return nil
}

// bearerToken takes the token out of the request's Authorization fields (RFC
// 6750 §2.1, RFC 9110 §11.4). Tokens in a query, a form or a cookie are never read.
func bearerToken(fields []string, most int) (string, *Error) {
	switch len(fields) {
	case 0:
		return "", noToken()
	case 1:
	default: // two could be read in two ways by us and by a proxy before us
		return "", newError(ErrRequest, "the request has more than one Authorization field", slog.Int("fields", len(fields)))
	}
	field := strings.Trim(fields[0], " \t")
	if len(field) > len("Bearer ")+most {
		return "", newError(ErrRequest, fmt.Sprintf("the Authorization field is longer than %s", inBytes(most)), slog.Int("bytes", len(field)))
	}
	end := span(field, &schemeChars)
	if !strings.EqualFold(field[:end], "Bearer") {
		return "", noToken()
	}
	token := strings.TrimLeft(field[end:], " ")
	if token == "" {
		return "", newError(ErrRequest, "the Authorization field has no token after Bearer")
	}
	if field[end] != ' ' {
		return "", notOneToken()
	}
	return token, nil // whether it is a token68 is asked when it is not remembered
}

func notOneToken() *Error {
	return newError(ErrRequest, "the Authorization field must be Bearer and one token, without quotes, spaces and line breaks")
}

func noToken() *Error {
	return newError(ErrNoToken, "this request needs an access token: Authorization: Bearer followed by the token")
}

// Sets of characters: those of an authentication scheme (RFC 9110 §5.6.2), and
// those of a token68 (§11.2) but for the equals signs at its end.
var (
	schemeChars  = charSet("!#$%&'*+-.^_`|~")
	token68Chars = charSet("-._~+/")
)

func charSet(others string) (set [256]bool) {
	for _, c := range "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" + others {
		set[c] = true
	}
	return set
}

// span returns how many characters at the beginning of s are in the set.
func span(s string, set *[256]bool) int {
	n := 0
	for n < len(s) && set[s[n]] {
		n++
	}
	return n
}

func isToken68(s string) bool {
	s = strings.TrimRight(s, "=")
	return s != "" && span(s, &token68Chars) == len(s)
}

type contextKey struct{}

// claimsContext is what context.WithValue would make, and has room for a
// request's own Claims: one allocation for both.
type claimsContext struct {
	context.Context
	claims *Claims // nil hides those of an outer context
	own    Claims
}

func (c *claimsContext) Value(key any) any {
	if key == (contextKey{}) {
		return c.claims
	}
	return c.Context.Value(key)
}

// String is for fmt, which without it would print the token's claims for %s.
func (c *claimsContext) String() string {
	return fmt.Sprint(c.Context) + ".WithClaims"
}

// NewContext returns a context that carries the claims, for adapters and tests.
func NewContext(ctx context.Context, claims *Claims) context.Context {
	return &claimsContext{Context: ctx, claims: claims}
}

func newContext(ctx context.Context, set *claimSet) context.Context {
	c := &claimsContext{Context: ctx, own: Claims{set}}
	if set != nil {
		c.claims = &c.own
	}
	return c
}

// FromContext returns the claims of the token that the request came with; ok is
// false where no guard let the request through.
func FromContext(ctx context.Context) (claims *Claims, ok bool) {
	claims, _ = ctx.Value(contextKey{}).(*Claims)
	return claims, claims != nil
}
