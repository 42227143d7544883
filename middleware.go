package m2mauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/m2mauth/m2mauth/internal/response"
)

// Require returns a middleware that lets a request through if its token has all of the
// scopes. It panics as [AllScopes] does.
func (g *Guard) Require(scopes ...string) func(http.Handler) http.Handler {
	return g.middleware("Require", scopeRule("Require", scopes, true))
}

// RequireAny returns a middleware that lets a request through if its token has at least
// one of the scopes. It panics as [AnyScope] does.
func (g *Guard) RequireAny(scopes ...string) func(http.Handler) http.Handler {
	return g.middleware("RequireAny", scopeRule("RequireAny", scopes, false))
}

// RequireRule returns a middleware that lets a request through if its token meets the
// rule. It panics if the rule is the zero Rule, which no token meets, or if the guard
// is for organization tokens and the rule names no organization.
func (g *Guard) RequireRule(rule Rule) func(http.Handler) http.Handler {
	return g.middleware("RequireRule", rule)
}

// Authenticate lets a request through if it carries any valid token. That is
// identification, not permission: with Logto, every machine-to-machine application of
// the tenant, even one without a role, gets a valid token for any registered API
// resource. To check permission, use [Guard.Require].
func (g *Guard) Authenticate(next http.Handler) http.Handler {
	return g.middleware("Authenticate", AnyToken())(next)
}

// ValidateRule returns an error if the rule cannot be used with this guard: it is the
// zero Rule, which no token meets, or it names no organization and the guard is for
// organization tokens, or the guard was not made by [New]. Adapters and tables of rules
// call it at set-up.
func (g *Guard) ValidateRule(rule Rule) error {
	if mistake := g.mistakeIn(rule); mistake != "" {
		return errors.New("m2mauth: " + mistake)
	}
	return nil
}

func (g *Guard) mistakeIn(rule Rule) string {
	switch {
	case !g.ready():
		return "the Guard is nil or was not made by New; was the error of New ignored?"
	case rule.demand == nil:
		return "the zero Rule lets nobody through; make one with AllScopes, AnyScope or AnyToken"
	case !rule.organization && g.needsOrganization():
		return fmt.Sprintf("%s names no organization, and this Guard is for organization tokens; add Organization, OrganizationPath or OrganizationHeader", rule)
	}
	g.refusals.oddScopes(rule) // only suspicious, so no error
	return ""
}

// middleware makes the middleware for a call. It panics at set-up in the name of the
// call.
func (g *Guard) middleware(call string, rule Rule) func(http.Handler) http.Handler {
	if mistake := g.mistakeIn(rule); mistake != "" {
		panic("m2mauth: " + call + ": " + mistake)
	}
	return func(next http.Handler) http.Handler {
		if f, isFunc := next.(http.HandlerFunc); next == nil || (isFunc && f == nil) {
			panic(fmt.Sprintf("m2mauth: %s: the handler is nil", call))
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, &rule, next) })
	}
}

// serve passes a request to next or responds to it.
func (g *Guard) serve(w http.ResponseWriter, r *http.Request, rule *Rule, next http.Handler) {
	if rule.optional { // a cache must not serve one caller's response to another
		w.Header().Add("Vary", "Authorization")
	}
	set, err := g.checkHTTP(r, rule)
	if err != nil {
		g.WriteError(w, r, err)
		return
	}
	next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), Claims{set: set})))
}

// Check checks a request without a middleware. It returns the token's claims if the
// request carries a valid token that meets the rule, and otherwise an [*Error] for
// [Guard.WriteError]. It logs rejections.
func (g *Guard) Check(r *http.Request, rule Rule) (Claims, error) {
	return claimsOf(g.checkHTTP(r, &rule))
}

func (g *Guard) checkHTTP(r *http.Request, rule *Rule) (*claimSet, error) {
	if r == nil {
		return g.decide(context.Background(), "", internalError(errors.New("Check was given no request")), nil, rule, g.ReportOnly())
	}
	token, e := bearerToken(r.Header["Authorization"], g.tokenBytes()) // net/http stores the header under this one name
	return g.decide(r.Context(), token, e, httpRequest{r}, rule, g.ReportOnly())
}

// CheckRequest is [Guard.Check] for requests other than net/http's. The end of ctx ends
// a wait for keys. A nil Request is rejected with ErrInternal, and so is one whose
// Header panics.
func (g *Guard) CheckRequest(ctx context.Context, r Request, rule Rule) (Claims, error) {
	if r == nil {
		return claimsOf(g.decide(ctx, "", internalError(errors.New("CheckRequest was given no Request")), nil, &rule, g.ReportOnly()))
	}
	fields, err := fieldsOf(r, "Authorization")
	if err != nil {
		return claimsOf(g.decide(ctx, "", internalError(err), r, &rule, g.ReportOnly()))
	}
	token, e := bearerToken(fields, g.tokenBytes())
	return claimsOf(g.decide(ctx, token, e, r, &rule, g.ReportOnly()))
}

// Verify checks a token alone, for queues and WebSockets. It checks everything that a
// middleware checks, except what a route requires. It logs rejections.
func (g *Guard) Verify(ctx context.Context, token string) (Claims, error) {
	rule := AnyToken()
	return claimsOf(g.decide(ctx, token, nil, nil, &rule, false))
}

// Recheck checks again, while a response such as a stream or a WebSocket goes on, what
// can change after the request was let through: whether the token of these claims was
// revoked (Config.Revoked) or has expired (with Config.Leeway). If it returns an error,
// an [*Error], end the response. Otherwise call it again after the duration that it
// returns. That is when the token expires, or 1 s if it may be revoked until then.
//
// Recheck does not look at the route's rule or at the issuer's keys: [Guard.Check] does.
// Claims that are zero get [ErrNoToken]. So do not call it for a caller whom an
// [Optional] rule let through without a token. In a dry run
// (Config.InsecureReportOnlyUntil) there is no error, until it ends. A panic of
// Config.Revoked is [ErrInternal]: nothing would recover it where a timer calls Recheck.
// It logs rejections, and does not call Config.OnDecision.
func (g *Guard) Recheck(ctx context.Context, claims Claims) (again time.Duration, err error) {
	switch {
	case !g.ready():
		return 0, newError(ErrInternal, "this API's guard was not set up")
	case g.ReportOnly():
		return recheckAfter, nil
	}
	again, e := g.recheck(ctx, claims.set)
	if e != nil {
		return 0, g.refuse(ctx, e, nil, claims.set)
	}
	return again, nil
}

// AcceptedUntil returns when the guard stops accepting the token of these claims: its
// expiry and Config.Leeway. It is the zero time for claims that are zero or of an issuer
// that is not the guard's. A token may be revoked before: see [Guard.Recheck].
func (g *Guard) AcceptedUntil(claims Claims) time.Time {
	if claims.IsZero() || !g.ready() {
		return time.Time{}
	}
	i := g.issuerNamed(claims.set.issuer)
	if i == nil {
		return time.Time{}
	}
	return claims.set.expiresAt.Add(i.claims.leeway)
}

// Opens reports whether the rule would let a request with these claims through, for lists
// that show a caller only what it may call. In a dry run everything is open. It does not
// check the token, logs nothing and does not call Config.OnDecision: use [Guard.Check]
// to decide. Functions given to [Custom] are called.
func (g *Guard) Opens(r *http.Request, claims Claims, rule Rule) bool {
	switch {
	case !g.ready() || r == nil:
		return false
	case g.ReportOnly():
		return true
	case claims.IsZero():
		return false
	}
	i := g.issuerNamed(claims.set.issuer)
	return i != nil && i.authorize(r.Context(), claims.set, httpRequest{r}, rule) == nil
}

// decide is the only way to get claims. It never returns them together with an error.
// Without an error they are nil in two cases: an optional rule saw no token, or a dry
// run verified none that is not revoked.
func (g *Guard) decide(ctx context.Context, raw string, e *Error, r Request, rule *Rule, dry bool) (*claimSet, error) {
	if !g.ready() {
		return nil, newError(ErrInternal, "this API's guard was not set up")
	}
	var begin time.Time
	var claims, usable *claimSet // of a verified token, and of one that is not revoked either
	remembered, reported := false, g.onDecision == nil
	if !reported {
		begin = time.Now()
		defer func() {
			if !reported { // a user's function panicked; the panic continues
				failed := internalError(errors.New("a panic in a function given to the guard"))
				g.report(ctx, Decision{Rule: *rule, Claims: Claims{set: claims}, Err: failed, ReportOnly: dry, Remembered: remembered, Duration: time.Since(begin)}, false)
			}
		}()
	}
	if e == nil {
		var t *token
		if t, remembered, e = g.verify(ctx, raw, r, dry); e == nil {
			claims = t.claims
			if e = g.checkRevoked(ctx, claims, dry); e == nil {
				usable = claims
				e = t.issuer.authorize(ctx, claims, r, *rule)
			}
		}
	}
	if e != nil && e.Status == http.StatusUnauthorized { // RFC 6750 §3: so a client can ask for the right token at once
		e.Scopes = rule.scopes(g.scopes)
	}
	anonymous := rule.optional && e != nil && e.Kind == ErrNoToken
	if !reported {
		reported = true
		g.report(ctx, Decision{Rule: *rule, Claims: Claims{set: claims}, Err: e, ReportOnly: dry, Remembered: remembered, Duration: time.Since(begin)}, anonymous)
	}
	switch {
	case anonymous:
		return nil, nil
	case e == nil:
		return usable, nil
	case dry:
		g.letPass(ctx, e, r, claims)
		return usable, nil
	}
	return nil, g.refuse(ctx, e, r, claims)
}

// refuse completes and logs an error that the caller gets.
func (g *Guard) refuse(ctx context.Context, e *Error, r Request, c *claimSet) error {
	g.complete(e)
	g.refusals.write(ctx, lineRefused, e, r, c)
	return e
}

// letPass counts and logs an error that the caller does not get, because of a dry run.
func (g *Guard) letPass(ctx context.Context, e *Error, r Request, c *claimSet) {
	line := lineUndecided
	if !e.isUndecided() {
		line = lineWouldRefuse
		g.wouldRefuse.Add(1)
	}
	g.dryRun.log.write(ctx, line, e, r, c)
}

// WriteError answers a request with an error of [Guard.Check]: header fields
// first, then Config.ErrorHandler or a small JSON body. An [*Error] of your own needs
// a Kind, and an [ErrorKind] alone will do. Any other error is logged and answered with
// 500, and nothing of it is shown. The status is never below 400, whatever the
// ErrorHandler does: see there for gRPC.
func (g *Guard) WriteError(w http.ResponseWriter, r *http.Request, err error) {
	e, ours := asError(err)
	if !ours && g.ready() {
		_ = g.refuse(r.Context(), e, httpRequest{r}, nil)
	}
	if ours && g.ready() && e.realm == "" { // made by a user, who may share it
		own := *e
		e = &own
		g.complete(e)
	}
	header, body := e.Response()
	custom := g.ready() && g.errorHandler != nil
	for name, values := range header {
		if !custom || name != "Content-Type" {
			w.Header()[name] = values
		}
	}
	if custom {
		sent := e.Status // the ErrorHandler may change e
		rw := response.NewWriter(w, sent, func(status int) { g.refusals.replacedStatus(r.Context(), status, sent) })
		g.errorHandler(rw, r, e)
		rw.Begin()
		return
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // if this fails, the caller is gone
}
