package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/m2mauth/m2mauth"
)

// gateway decides about requests that proxies ask about.
type gateway struct {
	current  atomic.Pointer[generation]
	metrics  *metrics // nil: none
	refusals oncePerMinute
}

// oncePerMinute keeps a flood of refusals out of the log: of each kind the first in a minute
// is logged at Info, as those of the guard are at Warn.
type oncePerMinute struct {
	mu   sync.Mutex // guards the field below
	last map[string]time.Time
}

// level returns the level for a refusal with one of the gateway's texts, which are few.
func (o *oncePerMinute) level(text string, now time.Time) slog.Level {
	o.mu.Lock()
	defer o.mu.Unlock()
	if last, ok := o.last[text]; ok && now.Sub(last) < time.Minute {
		return slog.LevelDebug
	}
	if o.last == nil {
		o.last = make(map[string]time.Time)
	}
	o.last[text] = now
	return slog.LevelInfo
}

// question is a request as a proxy tells of it.
type question struct {
	method string
	target string      // as the API will see it: path and query
	header http.Header // the caller's fields
	client string      // the caller's address, as the proxy vouches for it
}

// refusal is the answer to a request that is not let through.
type refusal struct {
	status int
	header http.Header
	body   []byte
}

// grant is the answer to a request that is let through.
type grant struct {
	identity http.Header
	// keepAuthorization says that the API gets the token: an older check behind the
	// gateway may need it.
	keepAuthorization bool
}

// decide returns either the fields that tell the API who calls, or a refusal. One
// configuration decides, whatever replaces it meanwhile.
func (g *gateway) decide(ctx context.Context, q question) (*grant, *refusal) {
	yes, err := g.current.Load().decide(ctx, q)
	if err != nil {
		return nil, g.refused(ctx, err)
	}
	g.metrics.passed(yes.identity.Get(decisionField))
	return yes, nil
}

func (gen *generation) decide(ctx context.Context, q question) (*grant, error) {
	r, path, err := gen.rowFor(q)
	if err != nil {
		return nil, err
	}
	if r.public {
		return &grant{identity: identityHeader(decisionPublic, identity{})}, nil
	}
	c := &call{generation: gen, issuer: gen.issuerFor(q.header)}
	claims, err := c.issuer.guard.CheckRequest(context.WithValue(ctx, callKey{}, c), asked{question: q, row: r, path: path}, r.rule)
	if err != nil {
		return nil, err
	}
	if c.decision.Err != nil { // passes in a dry run alone
		return &grant{identityHeader(decisionReportOnly, identity{}), true}, nil
	}
	if c.decision.Outcome == m2mauth.Anonymous {
		return &grant{identity: identityHeader(decisionAnonymous, identity{})}, nil
	}
	who, err := identify(claims)
	if err != nil {
		return nil, err
	}
	return &grant{identity: identityHeader(decisionAllowed, who)}, nil
}

// rowFor returns the row that a request is held against, and the path's segments. Where
// there is none that is the zero row: a caller without a good token gets 401, as everywhere
// else, and one with such a token 403.
func (gen *generation) rowFor(q question) (*row, []string, error) {
	if err := untampered(q.header); err != nil {
		return nil, nil, err
	}
	f, path, err := gen.rules.search(q.method, q.target)
	switch {
	case err != nil:
		return nil, nil, err
	case f.rival != nil:
		return nil, nil, errRival
	case f.row == nil:
		return &row{path: "(no row)"}, path, nil
	}
	return f.row, path, nil
}

// search is look for a request as a proxy tells of it.
func (t table) search(method, target string) (f found, path []string, err error) {
	if !methodForm.MatchString(method) {
		return f, nil, ambiguous("the method must be upper-case letters")
	}
	if path, err = parseTarget(target); err != nil {
		return f, nil, err
	}
	return t.look(method, path), path, nil
}

// asked is a question as the guard sees it.
type asked struct {
	m2mauth.UnimplementedRequest
	question
	row  *row
	path []string
}

func (a asked) Header(name string) []string  { return a.header.Values(name) }
func (a asked) PathValue(name string) string { return a.row.value(name, a.path) }
func (a asked) RemoteAddr() string           { return a.client }
func (a asked) Method() string               { return a.method }
func (a asked) Pattern() string              { return a.row.String() }

func (a asked) URL() *url.URL {
	u, _ := url.ParseRequestURI(a.target)
	return u
}

// identityFields tell the API who calls and what was decided. Whoever else writes
// them is a forger.
var identityFields = []string{"X-Auth-Issuer", "X-Auth-Subject", "X-Auth-Client", "X-Auth-App", "X-Auth-Organization", "X-Auth-Scopes", decisionField}

const decisionField = "X-Auth-Decision"

// Values of X-Auth-Decision.
const (
	decisionAllowed    = "allowed"     // the token satisfies the row
	decisionPublic     = "public"      // the row is public; no token was looked at
	decisionAnonymous  = "anonymous"   // the row's token is optional, and there was none
	decisionReportOnly = "report-only" // the guard would have refused, and is in a dry run
)

// identity is what the API is told of the caller.
type identity struct{ issuer, subject, client, app, organization, scopes string }

// identityHeader sets every identity field, also to an empty value: where the answer
// lacks a field, some proxies leave the caller's, and others write a placeholder.
func identityHeader(decision string, who identity) http.Header {
	header := make(http.Header, len(identityFields))
	for i, value := range []string{who.issuer, who.subject, who.client, who.app, who.organization, who.scopes, decision} {
		header[identityFields[i]] = []string{value}
	}
	return header
}

// overrides are fields for which some frameworks act on another method or path
// than those of the request, which then are not what was decided about. Script-Name
// and Path-Info are CGI's own variables, which some servers took from a caller's
// SCRIPT_NAME (benoitc/gunicorn#2650).
var overrides = []string{
	"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override",
	"X-Original-URL", "X-Rewrite-URL",
	"Script-Name", "Path-Info", "X-Script-Name", "X-Forwarded-Prefix",
}

// untampered refuses a request with a field that only the gateway may set, or by
// which the API could take the request for another.
func untampered(header http.Header) error {
	for name := range header {
		switch {
		case isSpelling(name, identityFields):
			return ambiguous("the request has a field that tells APIs who calls, and that only the gateway may set")
		case isSpelling(name, overrides):
			return ambiguous("the request has a field that would make it another request for some APIs")
		}
	}
	return nil
}

// isSpelling reports whether a field's name is one of the names for an API to
// which letter case and all signs are the same, as in CGI, WSGI and PHP: dashes
// become underscores there, and in PHP so do dots and others.
func isSpelling(name string, names []string) bool {
	name = dashed(name)
	for _, n := range names {
		if strings.EqualFold(name, n) {
			return true
		}
	}
	return false
}

// dashed returns a field's name with a dash for all that is no letter and no digit.
func dashed(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return '-'
	}, name)
}

// maxIdentityBytes bounds what the API is told of the caller: proxies bound the
// header that they read of an answer (16 KiB in nginx.conf).
const maxIdentityBytes = 8 << 10

var errIdentity = errors.New("the token's issuer, subject, client, organization and scopes are too long to be handed on")

// identify returns what a token's claims say. What they do not say is empty, such as
// X-Auth-App for a user's token.
func identify(c m2mauth.Claims) (who identity, err error) {
	var list []string
	for s := range c.Scopes().All() {
		list = append(list, fieldValue(s))
	}
	who = identity{
		issuer: fieldValue(c.Issuer()), subject: fieldValue(c.Subject()), client: fieldValue(c.ClientID()),
		app: fieldValue(c.AppID()), organization: fieldValue(c.OrganizationID()), scopes: strings.Join(list, " "),
	}
	if len(who.issuer)+len(who.subject)+len(who.client)+len(who.app)+len(who.organization)+len(who.scopes) > maxIdentityBytes {
		return identity{}, errIdentity
	}
	return who, nil
}

// fieldValue returns a claim as the value of a field. Claims hold any character,
// line breaks too, so what is not visible ASCII is percent-encoded; so are the
// percent sign, which keeps two claims from becoming one value, and what some
// split or unquote a value at.
func fieldValue(claim string) string {
	var b strings.Builder
	for i := 0; i < len(claim); i++ {
		if c := claim[i]; c <= ' ' || c > '~' || strings.IndexByte(`%,;"\`, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// refused makes the answer to an error, which the guard has logged if it is its own.
func (g *gateway) refused(ctx context.Context, err error) *refusal {
	var e *m2mauth.Error
	if errors.As(err, &e) {
		g.metrics.refused("guard")
		header, body := e.Response()
		return &refusal{e.Status, header, body}
	}
	status, code, text, reason := http.StatusInternalServerError, "server_error", "the gateway failed", "failure"
	var two ambiguous
	switch {
	case errors.As(err, &two):
		status, code, text, reason = http.StatusBadRequest, "invalid_request", two.Error(), "ambiguous"
	case errors.Is(err, errIdentity):
		status, code, text, reason = http.StatusForbidden, "insufficient_scope", err.Error(), "identity"
	}
	g.metrics.refused(reason)
	slog.Log(ctx, g.refusals.level(text, time.Now()), "gateway: request refused", "status", status, "reason", err)
	body, _ := json.Marshal(struct {
		Code string `json:"error"`
		Text string `json:"error_description"`
	}{code, text}) // two strings
	return &refusal{status, http.Header{
		"Cache-Control": {"no-store"},
		"Content-Type":  {"application/json"},
	}, append(body, '\n')}
}
