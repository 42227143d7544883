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
	"unicode"

	"github.com/m2mauth/m2mauth"
)

// gateway decides about requests that proxies ask about.
type gateway struct {
	guard *m2mauth.Guard
	rules table
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

// decide returns either the fields that tell the API who calls, or a refusal.
func (g *gateway) decide(ctx context.Context, q question) (identity http.Header, no *refusal) {
	r, err := g.rowFor(q)
	if err != nil {
		return nil, refused(ctx, err)
	}
	if r.public {
		return identityHeader("", "", "", "", decisionPublic), nil
	}
	claims, err := g.guard.CheckRequest(ctx, asked{question: q, row: r}, r.rule)
	if err != nil {
		return nil, refused(ctx, err)
	}
	identity, err = identify(claims)
	if err != nil {
		return nil, refused(ctx, err)
	}
	return identity, nil
}

// rowFor returns the row that a request is held against. Where there is none
// that is the zero row: a caller without a good token gets 401, as everywhere
// else, and one with such a token 403.
func (g *gateway) rowFor(q question) (*row, error) {
	if err := trusted(q.header); err != nil {
		return nil, err
	}
	if !methodForm.MatchString(q.method) {
		return nil, ambiguous("the method must be upper-case letters")
	}
	path, err := parseTarget(q.target)
	if err != nil {
		return nil, err
	}
	r, err := g.rules.find(q.method, path)
	if r == nil && err == nil {
		r = &row{path: "(no row)"}
	}
	return r, err
}

// asked is a question as the guard sees it.
type asked struct {
	m2mauth.UnimplementedRequest // no path value: no rule of the table asks for one
	question
	row *row
}

func (a asked) Header(name string) []string { return a.header.Values(name) }
func (a asked) RemoteAddr() string          { return a.client }
func (a asked) Method() string              { return a.method }
func (a asked) Pattern() string             { return a.row.String() }

func (a asked) URL() *url.URL {
	u, _ := url.ParseRequestURI(a.target)
	return u
}

// identityFields tell the API who calls and what was decided. Whoever else writes
// them is a forger.
var identityFields = []string{"X-Auth-Subject", "X-Auth-Client", "X-Auth-App", "X-Auth-Scopes", "X-Auth-Decision"}

// Values of X-Auth-Decision.
const (
	decisionAllowed = "allowed" // the token satisfies the row
	decisionPublic  = "public"  // the row is public; no token was looked at
)

// identityHeader sets every identity field, also to an empty value: where the answer
// lacks a field, some proxies leave the caller's, and others write a placeholder.
func identityHeader(subject, client, app, scopes, decision string) http.Header {
	header := make(http.Header, len(identityFields))
	for i, value := range []string{subject, client, app, scopes, decision} {
		header.Set(identityFields[i], value)
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

// trusted refuses a request with a field that only the gateway may set, or by
// which the API could take the request for another.
func trusted(header http.Header) error {
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

var errIdentity = errors.New("the token's subject, client and scopes are too long to be handed on")

// identify returns the fields for a token's claims. What the token does not say is
// empty, such as X-Auth-App for a user's token.
func identify(c m2mauth.Claims) (http.Header, error) {
	var list []string
	for s := range c.Scopes().All() {
		list = append(list, fieldValue(s))
	}
	subject, client, app, scopes := fieldValue(c.Subject()), fieldValue(c.ClientID()), fieldValue(c.AppID()), strings.Join(list, " ")
	if len(subject)+len(client)+len(app)+len(scopes) > maxIdentityBytes {
		return nil, errIdentity
	}
	return identityHeader(subject, client, app, scopes, decisionAllowed), nil
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
func refused(ctx context.Context, err error) *refusal {
	var e *m2mauth.Error
	if errors.As(err, &e) {
		header, body := e.Response()
		return &refusal{e.Status, header, body}
	}
	status, code, text := http.StatusInternalServerError, "server_error", "the gateway failed"
	var two ambiguous
	switch {
	case errors.As(err, &two):
		status, code, text = http.StatusBadRequest, "invalid_request", two.Error()
	case errors.Is(err, errIdentity):
		status, code, text = http.StatusForbidden, "insufficient_scope", err.Error()
	}
	slog.InfoContext(ctx, "gateway: refused", "status", status, "reason", err)
	body, _ := json.Marshal(struct {
		Code string `json:"error"`
		Text string `json:"error_description"`
	}{code, text}) // two strings
	return &refusal{status, http.Header{
		"Cache-Control": {"no-store"},
		"Content-Type":  {"application/json"},
	}, append(body, '\n')}
}
