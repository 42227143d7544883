package m2mauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/m2mauth/m2mauth/internal/response"
)

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

// ValidateRule returns what the guard has against a rule, for adapters and for
// tables of rules, at set-up: the rule is the zero Rule, which nothing meets, or it
// names no organization where the guard is for organization tokens; or the guard
// was not made by [New].
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
	g.refusals.oddScopes(rule) // no mistake for certain
	return ""
}

// middleware makes the middleware of a call, in whose name it panics at set-up.
func (g *Guard) middleware(call string, rule Rule) func(http.Handler) http.Handler {
	if mistake := g.mistakeIn(rule); mistake != "" {
		panic("m2mauth: " + call + ": " + mistake)
	}
	return func(next http.Handler) http.Handler {
		if f, isFunc := next.(http.HandlerFunc); next == nil || (isFunc && f == nil) {
			panic(fmt.Sprintf("m2mauth: %s: the handler is nil", call))
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, rule, next) })
	}
}

// serve lets a request through to next, or answers it.
func (g *Guard) serve(w http.ResponseWriter, r *http.Request, rule Rule, next http.Handler) {
	if rule.optional { // a cache must not serve one caller's answer to another
		w.Header().Add("Vary", "Authorization")
	}
	set, err := g.checkHTTP(r, rule)
	if err != nil {
		g.WriteError(w, r, err)
		return
	}
	next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), Claims{set: set})))
}

// Check decides about a request without a middleware: it returns the token's
// claims if the request carries a valid token that meets the rule, and otherwise
// an [*Error], for [Guard.WriteError]. It logs refusals.
func (g *Guard) Check(r *http.Request, rule Rule) (Claims, error) {
	return claimsOf(g.checkHTTP(r, rule))
}

func (g *Guard) checkHTTP(r *http.Request, rule Rule) (*claimSet, error) {
	if r == nil {
		return g.decide(context.Background(), "", internalError(errors.New("Check was given no request")), nil, rule, g.ReportOnly())
	}
	token, e := bearerToken(r.Header["Authorization"], g.tokenBytes()) // under the one name that net/http has for it
	return g.decide(r.Context(), token, e, httpRequest{r}, rule, g.ReportOnly())
}

// CheckRequest is [Guard.Check] for requests that are not net/http's. The
// context's end frees the caller where a fetch of keys is waited for. A nil
// Request is refused with ErrInternal, and so is one whose Header panics.
func (g *Guard) CheckRequest(ctx context.Context, r Request, rule Rule) (Claims, error) {
	if r == nil {
		return claimsOf(g.decide(ctx, "", internalError(errors.New("CheckRequest was given no Request")), nil, rule, g.ReportOnly()))
	}
	fields, err := fieldsOf(r, "Authorization")
	if err != nil {
		return claimsOf(g.decide(ctx, "", internalError(err), r, rule, g.ReportOnly()))
	}
	token, e := bearerToken(fields, g.tokenBytes())
	return claimsOf(g.decide(ctx, token, e, r, rule, g.ReportOnly()))
}

// Verify checks a token by itself, for queues and WebSockets: all that a
// middleware checks, but for what a route demands. It logs refusals.
func (g *Guard) Verify(ctx context.Context, token string) (Claims, error) {
	return claimsOf(g.decide(ctx, token, nil, nil, AnyToken(), false))
}

// decide is the one way to claims. They are never returned beside an error, and
// are nil without one where an optional rule met no token, and in a dry run where none
// was verified.
func (g *Guard) decide(ctx context.Context, raw string, e *Error, r Request, rule Rule, dry bool) (*claimSet, error) {
	if !g.ready() {
		return nil, newError(ErrInternal, "this API's guard was not set up")
	}
	var begin time.Time
	var claims *claimSet
	remembered, reported := false, g.onDecision == nil
	if !reported {
		begin = time.Now()
		defer func() {
			if !reported { // a function of the user's panicked, and the panic goes on
				failed := internalError(errors.New("a panic in a function given to the guard"))
				g.report(ctx, Decision{Rule: rule, Claims: Claims{set: claims}, Err: failed, ReportOnly: dry, Remembered: remembered, Duration: time.Since(begin)}, false)
			}
		}()
	}
	if e == nil {
		var t *token
		if t, remembered, e = g.verify(ctx, raw, r, dry); e == nil {
			claims = t.claims
			e = t.issuer.authorize(ctx, claims, r, rule)
		}
	}
	if e != nil && e.Status == http.StatusUnauthorized { // RFC 6750 §3: so a client can ask for the right token at once
		e.Scopes = rule.scopes(g.scopes)
	}
	anonymous := rule.optional && e != nil && e.Kind == ErrNoToken
	if !reported {
		reported = true
		g.report(ctx, Decision{Rule: rule, Claims: Claims{set: claims}, Err: e, ReportOnly: dry, Remembered: remembered, Duration: time.Since(begin)}, anonymous)
	}
	switch {
	case anonymous:
		return nil, nil
	case e == nil:
		return claims, nil
	case dry:
		g.letPass(ctx, e, r, claims)
		return claims, nil
	}
	return nil, g.refuse(ctx, e, r, claims)
}

// refuse completes and logs an error on its way out.
func (g *Guard) refuse(ctx context.Context, e *Error, r Request, c *claimSet) error {
	g.complete(e)
	g.refusals.write(ctx, lineRefused, e, r, c)
	return e
}

// letPass counts and logs an error that is no answer, since the guard reports only.
func (g *Guard) letPass(ctx context.Context, e *Error, r Request, c *claimSet) {
	line := lineUndecided
	if !e.isUndecided() {
		line = lineWouldRefuse
		g.wouldRefuse.Add(1)
	}
	g.dryRun.log.write(ctx, line, e, r, c)
}

// complete tells an error what the challenge needs to know of the guard.
func (g *Guard) complete(e *Error) {
	e.realm = g.realm
	if url := g.metadataURL.Load(); url != nil {
		e.metadataURL = *url
	}
}

// WriteError answers a request with an error of [Guard.Check]: header fields
// first, then Config.ErrorHandler or a small JSON body. An [*Error] of your own needs
// a Kind. Any other error is logged and answered with 500, and nothing of it is shown.
// The status is never below 400, whatever the ErrorHandler does: see there for gRPC.
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
		sent := e.Status // e is the ErrorHandler's to change
		rw := response.NewWriter(w, sent, func(status int) { g.refusals.replacedStatus(r.Context(), status, sent) })
		g.errorHandler(rw, r, e)
		rw.Begin()
		return
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // the caller is gone: nobody is left to tell
}
