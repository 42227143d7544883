package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/claim"
	"github.com/m2mauth/m2mauth/internal/hint"
	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/strictjson"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// A guard stops at the first thing that it refuses. This file finds the others too,
// without reading the rules a second time: it replaces in the token what one guard
// refused by what it accepts, and asks the next guard about the rest. A guard reads all
// claims before it looks for the key, so these tokens need no valid signature. The
// route's rule comes after the signature: for that, the claims are signed anew, with a
// key that only the guard that is asked knows.

// refusal is why a guard refused a token.
type refusal struct {
	err   *m2mauth.Error
	attrs map[string]string // what the guard logs: expected, got, claim
}

// detail returns the guard's sentence, with what was expected and what came.
func (r *refusal) detail() string {
	text := r.err.Description
	for _, name := range []string{"got", "expected"} {
		if value := r.attrs[name]; value != "" {
			text += fmt.Sprintf("; %s: %s", name, Shown(value))
		}
	}
	return text
}

// row returns the check that the refusal belongs to.
func (r *refusal) row() string {
	switch r.err.Kind {
	case m2mauth.ErrNoToken, m2mauth.ErrRequest:
		return tokenForm
	case m2mauth.ErrMalformed:
		return tokenShape
	case m2mauth.ErrAlgorithm:
		return tokenAlgorithm
	case m2mauth.ErrType:
		return tokenType
	case m2mauth.ErrIssuer:
		return tokenIssuer
	case m2mauth.ErrAudience:
		return tokenAudience
	case m2mauth.ErrExpired, m2mauth.ErrNotYetValid:
		return tokenTimes
	case m2mauth.ErrClaims:
		return rowOfClaim(r.attrs)
	case m2mauth.ErrSignature:
		return tokenSignature
	case m2mauth.ErrForbidden:
		return tokenOrganization
	case m2mauth.ErrScope:
		return tokenScopes
	}
	return tokenKey
}

func rowOfClaim(attrs map[string]string) string {
	name, named := attrs["claim"]
	switch {
	case name == "iss":
		return tokenIssuer
	case name == "aud":
		return tokenAudience
	case slices.Contains(timeClaims, name):
		return tokenTimes
	case !named && attrs["expected"] != "": // Config.MaxLifetime
		return tokenTimes
	}
	return tokenClaims
}

var timeClaims = []string{"exp", "nbf", "iat"}

// ask asks a guard about a token.
func ask(ctx context.Context, c m2mauth.Config, token string, rule m2mauth.Rule) (*refusal, m2mauth.Claims) {
	// A dry run would let everything pass, and functions of the API are not called for a
	// request that nobody made. IsMachine stays, since it only reads claims.
	c.InsecureReportOnlyUntil, c.Revoked, c.OnDecision, c.ErrorHandler, c.QueueKey = time.Time{}, nil, nil, nil, nil
	said := new(attrsLogged)
	c.Logger, c.CacheBytes = slog.New(said), -1
	guard, err := m2mauth.New(c)
	if err != nil {
		return refusedFor(err), m2mauth.Claims{}
	}
	r := (&http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}}).WithContext(ctx)
	claims, err := guard.Check(r, rule)
	if err == nil {
		return nil, claims
	}
	refused := refusedFor(err)
	refused.attrs = said.attrs
	return refused, m2mauth.Claims{}
}

func refusedFor(err error) *refusal {
	if e, ok := errors.AsType[*m2mauth.Error](err); ok {
		return &refusal{err: e}
	}
	return &refusal{err: &m2mauth.Error{Kind: m2mauth.ErrInternal, Status: http.StatusInternalServerError, Description: err.Error()}}
}

// attrsLogged keeps what was logged about a refusal.
type attrsLogged struct{ attrs map[string]string }

func (l *attrsLogged) Enabled(context.Context, slog.Level) bool { return true }
func (l *attrsLogged) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *attrsLogged) WithGroup(string) slog.Handler            { return l }

func (l *attrsLogged) Handle(_ context.Context, r slog.Record) error {
	attrs := make(map[string]string)
	r.Attrs(func(a slog.Attr) bool { attrs[a.Key] = a.Value.String(); return true })
	if attrs["kind"] != "" { // other lines are about keys
		l.attrs = attrs
	}
	return nil
}

// reading is what guards say about a token.
type reading struct {
	header, payload object              // as they are in the token
	failed          map[string]*refusal // by check
	skipped         map[string]string   // by check, why
	claims          m2mauth.Claims      // of the token as far as it can be read
}

// probes makes guards that know only the key of a kit.
type probes struct {
	ctx    context.Context
	kit    *m2mauthtest.Issuer
	config m2mauth.Config // the API's, with the kit's key
}

func newProbes(ctx context.Context, c m2mauth.Config) *probes {
	p := &probes{ctx: ctx, kit: m2mauthtest.NewIssuer(), config: c}
	p.config.HTTPClient, p.config.JWKSURL, p.config.JWKS = nil, "", nil
	if response, err := p.kit.Client().Get(p.kit.JWKSURL()); err == nil { // in memory
		p.config.JWKS, _ = io.ReadAll(response.Body)
		response.Body.Close()
	}
	return p
}

const (
	kitAlgorithm = "ES384"
	largestToken = 64 << 10 // the most that a Config can accept
)

// read asks guards until one has no objection.
func (p *probes) read(raw string, d Demand) reading {
	r := reading{failed: make(map[string]*refusal), skipped: make(map[string]string)}
	config, text := p.config, raw
	var header, payload object // as changed
	for {
		refused, _ := ask(p.ctx, config, text, m2mauth.AnyToken())
		row := tokenKey
		if refused != nil {
			row = refused.row()
		}
		if header == nil && row != tokenForm && row != tokenShape {
			r.header, r.payload = parts(raw)
			header, payload = slices.Clone(r.header), slices.Clone(r.payload)
		}
		switch {
		case row == tokenKey || row == tokenSignature:
			p.checkRules(&r, header, payload, d)
			return r
		case r.failed[row] != nil: // another reason for the same row
			r.skip("the checks before it failed in more than one way", tokenClaims, tokenTimes, tokenOrganization, tokenScopes)
			return r
		}
		r.failed[row] = refused
		switch row {
		case tokenForm:
			r.skip("the guard looks no further", tokenShape)
			fallthrough
		case tokenShape:
			r.skip("the token cannot be read", tokenAlgorithm, tokenType, tokenIssuer, tokenAudience, tokenClaims, tokenTimes, tokenOrganization, tokenScopes)
			return r
		case tokenClaims:
			p.checkTimes(&r, header, payload)
			r.skip("the claims do not say whom the token is for", tokenOrganization, tokenScopes)
			return r
		case tokenAlgorithm:
			header = header.with("alg", kitAlgorithm)
			config.Algorithms = p.algorithms()
		case tokenType:
			header = p.acceptedType(header)
		case tokenIssuer:
			payload = payload.with("iss", config.Issuer)
		case tokenAudience:
			payload = payload.with("aud", p.acceptedAudience())
		case tokenTimes:
			payload = p.acceptedTimes(payload)
		}
		config.MaxTokenBytes = largestToken
		text = header.encode() + "." + payload.encode() + "." + signatureOf(raw)
	}
}

func (r *reading) skip(why string, rows ...string) {
	for _, row := range rows {
		if r.failed[row] == nil && r.skipped[row] == "" {
			r.skipped[row] = why
		}
	}
}

// checkRules checks what a route requires, by claims that a guard accepts so far.
func (p *probes) checkRules(r *reading, header, payload object, d Demand) {
	header = header.with("alg", kitAlgorithm).with("kid", p.kit.KeyIDs()[0])
	signed := p.kit.Sign(m2mauthtest.Token{RawHeader: header.bytes(), RawClaims: payload.bytes()})
	strict := p.config
	strict.Algorithms, strict.MaxTokenBytes = p.algorithms(), largestToken
	open := strict
	open.InsecureAllowOrganizationTokens = true
	var refused *refusal
	if refused, r.claims = ask(p.ctx, open, signed, m2mauth.AnyToken()); refused != nil {
		r.failed[tokenClaims] = refused // cannot be, since a guard has accepted the same before
	}
	if r.failed[tokenAudience] != nil {
		r.skip("the token is for another API, and so are its scopes", tokenOrganization, tokenScopes)
		return
	}
	rule := m2mauth.AnyToken()
	if d.Organization != "" {
		rule = d.organizationRule()
	}
	if refused, _ := ask(p.ctx, strict, signed, rule); refused != nil {
		r.failed[tokenOrganization] = refused
	}
	if len(d.Scopes) == 0 {
		return
	}
	if refused, _ := ask(p.ctx, open, signed, m2mauth.AllScopes(d.Scopes...)); refused != nil {
		r.failed[tokenScopes] = refused
	}
}

// checkTimes checks the times of a token whose other claims are refused.
func (p *probes) checkTimes(r *reading, header, payload object) {
	c := m2mauth.Config{
		Issuer: p.config.Issuer, Audience: p.config.Audience, JWKS: p.config.JWKS, MaxTokenBytes: largestToken,
		Algorithms: p.config.Algorithms, TokenTypes: p.config.TokenTypes, Leeway: p.config.Leeway, MaxLifetime: p.config.MaxLifetime,
	}
	good := object{}.with("iss", c.Issuer).with("aud", p.acceptedAudience()).with("sub", "doctor").with("client_id", "doctor").with("jti", "doctor")
	for _, m := range payload {
		if slices.Contains(timeClaims, m.name) {
			good = append(good, m)
		}
	}
	header = header.with("alg", kitAlgorithm)
	c.Algorithms = p.algorithms()
	refused, _ := ask(p.ctx, c, header.encode()+"."+good.encode()+".", m2mauth.AnyToken())
	if refused != nil && refused.row() == tokenTimes {
		r.failed[tokenTimes] = refused
	}
}

// algorithms are the accepted ones, and that of the kit's key.
func (p *probes) algorithms() []string {
	if len(p.config.Algorithms) == 0 {
		return nil
	}
	return append(slices.Clone(p.config.Algorithms), kitAlgorithm)
}

func (p *probes) acceptedType(header object) object {
	if types := p.config.TokenTypes; len(types) > 0 {
		if types[0] == "" {
			return header.without("typ")
		}
		return header.with("typ", types[0])
	}
	return header.with("typ", "at+jwt")
}

func (p *probes) acceptedAudience() string {
	if p.config.Audience == hint.OrganizationAudience {
		return p.config.Audience + "doctor"
	}
	return p.config.Audience
}

func (p *probes) acceptedTimes(payload object) object {
	now, lifetime := time.Now(), time.Minute
	if most := p.config.MaxLifetime; most > 0 {
		lifetime = min(lifetime, most)
	}
	return payload.without("nbf").with("iat", now.Unix()).with("exp", now.Unix()+int64(lifetime/time.Second))
}

// object is a JSON object in its order, each value as it was written.
type object []member

type member struct {
	name  string
	value jsontext.Value
}

// parts reads the header and the claims of a token that a guard could read.
func parts(raw string) (header, payload object) {
	signed, _, _ := jose.Split(raw)
	encoded, _, _ := strings.Cut(signed, ".")
	decoded, _ := jose.DecodeBase64URL(encoded)
	claims, _ := jose.DecodePayload(signed)
	return objectOf(decoded), objectOf(claims)
}

func signatureOf(raw string) string { return raw[strings.LastIndexByte(raw, '.')+1:] }

func objectOf(data []byte) (o object) {
	o = object{}
	_ = strictjson.Object(data, func(name []byte, value jsontext.Value) error {
		o = append(o, member{string(name), value})
		return nil
	})
	return o
}

func (o object) without(name string) object {
	return slices.DeleteFunc(slices.Clone(o), func(m member) bool { return m.name == name })
}

func (o object) with(name string, value any) object {
	return append(o.without(name), member{name, mustMarshal(value)})
}

// mustMarshal encodes strings and numbers.
func mustMarshal(v any) []byte {
	encoded, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return encoded
}

func (o object) bytes() []byte {
	b := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, mustMarshal(m.name)...), ':'), m.value...)
	}
	return append(b, '}')
}

func (o object) encode() string { return base64url.EncodeToString(o.bytes()) }

func (o object) value(name string) claim.Value {
	for _, m := range o {
		if m.name == name {
			return claim.Value(m.value)
		}
	}
	return nil
}

// text returns a member that is a string, or "".
func (o object) text(name string) string {
	s, _ := o.value(name).Text(name)
	return s
}

// texts returns the strings that a member is or holds.
func (o object) texts(name string) []string {
	if o.value(name) == nil {
		return nil
	}
	list, _ := o.value(name).Texts(name)
	return list
}

// shown returns a member for people, or "" if it is absent.
func (o object) shown(name string) string {
	if list := o.texts(name); len(list) > 0 {
		return Shown(strings.Join(list, " "))
	}
	return Shown(string(o.value(name)))
}

// time returns a member that is a date, or the zero time.
func (o object) time(name string) time.Time {
	if o.value(name) == nil {
		return time.Time{}
	}
	at, _ := o.value(name).Time(name)
	return at
}

// times says when a token is valid.
func (o object) times(now time.Time) string {
	var said []string
	for _, c := range []struct{ name, words string }{{"iat", "issued "}, {"nbf", "valid from "}, {"exp", "expires "}} {
		if at := o.time(c.name); !at.IsZero() {
			said = append(said, c.words+until(at, now))
		}
	}
	return strings.Join(said, "; ") + "; this clock says " + moment(now)
}
