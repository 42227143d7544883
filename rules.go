package m2mauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/m2mauth/m2mauth/internal/ascii"
	"github.com/m2mauth/m2mauth/internal/claim"
	"github.com/m2mauth/m2mauth/internal/keyset"
	"github.com/m2mauth/m2mauth/internal/scope"
)

// Rule is what a route requires of a verified token. The functions of this package make
// Rules. They panic if the Rule could never be met. The zero Rule rejects everything. A
// Rule is immutable, and many routes and goroutines may use it.
type Rule struct {
	demand       demand
	odd          []string // some scopes that are mostly a mistake: a,b for two, and read:* for all that begin so
	organization bool     // a part compares the token's organization
	custom       bool     // a part is a user's function
	optional     bool
}

// demand is a rule or a part of one.
type demand interface {
	check(context.Context, *claimSet, Request, asking) verdict
	appendScopes(*scope.List, *scope.Policy) (some bool)
	appendText([]byte) []byte // as written in Go
}

// asking says how a check treats the user's functions.
type asking int

const (
	askNone   asking = iota // they count as met
	askLast                 // they are called if the demand is met without them
	askAtOnce               // the demand is known to be met without them
)

// verdict is the result of a demand for a token and a request.
type verdict struct {
	met   bool
	bound bool     // met by a part that compared the token's organization
	why   *refusal // if not met
	lost  *refusal // if met but not bound: why no bound part was met
}

var met = verdict{met: true}

func metIf(holds bool, otherwise *refusal) verdict {
	if holds {
		return met
	}
	return verdict{why: otherwise}
}

// refusal is why a demand is not met. Those without err are shared.
type refusal struct {
	scope   bool        // a scope is missing
	text    string      // for the caller
	err     error       // of a user's function; says nothing about the token
	denied  bool        // by Deny, which gave the text
	counted string      // how the log counts it, if not by text
	attrs   []slog.Attr // for the log
}

// with merges two reasons: an err outweighs a missing scope, which outweighs the rest.
func (a *refusal) with(b *refusal) *refusal {
	switch {
	case a == nil:
		return b
	case b == nil || a.err != nil:
		return a
	case b.err != nil || (b.scope && !a.scope):
		return b
	}
	return a
}

var (
	lacksScope        = &refusal{scope: true, text: "the token lacks a scope that this route requires"}
	otherKind         = &refusal{text: "the token is of the wrong kind for this route: it is for machine-to-machine applications only, or for users only"}
	otherClient       = &refusal{text: "the token's client is not one that this route is for"}
	otherActor        = &refusal{text: "the party that acts with the token (act) is not one that this route is for"}
	otherClaim        = &refusal{text: "a claim of the token does not have a value that this route requires"}
	otherOrganization = &refusal{text: "the token is not for the organization that this route belongs to"}
	noOrganization    = &refusal{text: "the token is for no organization, and this route belongs to one: request a token with organization_id"}
)

// AllScopes returns a rule that requires all of the scopes. It panics if there are
// none, or if one is empty, is not UTF-8, or contains white space or control
// characters, since no token can have such a scope (RFC 6749 §3.3). A comma or a star
// is part of the name. Since such a scope is probably a mistake, a guard logs it at
// set-up, at Warn.
func AllScopes(scopes ...string) Rule { return scopeRule("AllScopes", scopes, true) }

// AnyScope returns a rule that requires at least one of the scopes. It panics as
// [AllScopes] does.
func AnyScope(scopes ...string) Rule { return scopeRule("AnyScope", scopes, false) }

// scopeRule panics in the name of the call that the user wrote.
func scopeRule(call string, scopes []string, all bool) Rule {
	if len(scopes) == 0 {
		panic(fmt.Sprintf("m2mauth: %s: no scope given; for any valid token use AnyToken", call))
	}
	for _, s := range scopes {
		if !scope.Valid(s) {
			panic(fmt.Sprintf("m2mauth: %s: %q cannot be a scope; give each scope as an argument of its own, without white space", call, s))
		}
	}
	var names scope.List
	names.Add(scopes...)
	rule := Rule{demand: anyScope(names.Names)}
	if all {
		rule.demand = allScopes(names.Names)
	}
	for _, name := range names.Names {
		if len(rule.odd) < maxOddScopes && strings.ContainsAny(name, ",*") {
			rule.odd = append(rule.odd, name)
		}
	}
	return rule
}

// scopes returns those that a token needs, as the issuer names them, without those that
// others of them include. Of alternatives it names those of the first that has any and
// includes no other's, so that no client asks for more than it needs.
func (r Rule) scopes(p *scope.Policy) []string {
	var list scope.List
	switch d := r.demand.(type) {
	case nil:
		return nil
	case allScopes: // most rules, which need no list
		list.Names = slices.Clone(d)
	case anyScope:
		list.Names = []string{p.Least(d)}
	default:
		d.appendScopes(&list, p)
	}
	return p.AsIssued(p.Needed(list.Names))
}

type allScopes []string

func (s allScopes) appendText(b []byte) []byte { return appendCall(b, "AllScopes", s...) }

func (s allScopes) appendScopes(names *scope.List, _ *scope.Policy) bool {
	names.Add(s...)
	return true
}

func (s allScopes) check(_ context.Context, c *claimSet, _ Request, _ asking) verdict {
	return metIf(c.scopes.HasAll(s...), lacksScope)
}

type anyScope []string

func (s anyScope) appendText(b []byte) []byte { return appendCall(b, "AnyScope", s...) }

func (s anyScope) appendScopes(names *scope.List, p *scope.Policy) bool {
	names.Add(p.Least(s))
	return true
}

func (s anyScope) check(_ context.Context, c *claimSet, _ Request, _ asking) verdict {
	return metIf(c.scopes.HasAny(s...), lacksScope)
}

// noScopes is embedded in demands that name no scope.
type noScopes struct{}

func (noScopes) appendScopes(*scope.List, *scope.Policy) bool { return false }

// AnyToken returns a rule that requires only a valid token. That is identification, not
// permission: see [Guard.Authenticate].
func AnyToken() Rule { return Rule{demand: anyToken{}} }

type anyToken struct{ noScopes }

func (anyToken) appendText(b []byte) []byte { return append(b, "AnyToken()"...) }

func (anyToken) check(context.Context, *claimSet, Request, asking) verdict { return met }

// MachineToken returns a rule that requires a token of an application itself:
// [Claims.IsMachine].
func MachineToken() Rule { return Rule{demand: machine{is: true}} }

// UserToken returns a rule that requires a token that an application got for a user.
func UserToken() Rule { return Rule{demand: machine{is: false}} }

type machine struct {
	noScopes
	is bool
}

func (m machine) appendText(b []byte) []byte {
	if m.is {
		return append(b, "MachineToken()"...)
	}
	return append(b, "UserToken()"...)
}

func (m machine) check(_ context.Context, c *claimSet, _ Request, _ asking) verdict {
	return metIf(c.machine() == m.is, otherKind)
}

// ClientID returns a rule that requires a token that one of these applications
// requested, for itself or for a user: [Claims.ClientID].
func ClientID(ids ...string) Rule {
	mustHaveValues("ClientID", 1, ids...)
	return Rule{demand: client{ids: slices.Clone(ids)}}
}

func mustHaveValues(call string, least int, values ...string) {
	if len(values) < least || slices.Contains(values, "") {
		panic(fmt.Sprintf("m2mauth: %s: nothing given, or something empty, which no token can match", appendCall(nil, call, values...)))
	}
}

type client struct {
	noScopes
	ids []string
}

func (d client) appendText(b []byte) []byte { return appendCall(b, "ClientID", d.ids...) }

func (d client) check(_ context.Context, c *claimSet, _ Request, _ asking) verdict {
	return metIf(slices.Contains(d.ids, c.clientID), otherClient)
}

// ActedBy returns a rule that requires a token with which one of these acts for the
// token's subject: the sub within act, byte by byte, if that names no other issuer. It
// looks at the current actor alone, never at those before it (RFC 8693 §4.1): see
// [Claims.Actor]. For the client within act, which is not the one that acts, use
// HasClaim("/act/client_id", …).
func ActedBy(ids ...string) Rule {
	mustHaveValues("ActedBy", 1, ids...)
	return Rule{demand: actedBy{ids: slices.Clone(ids)}}
}

type actedBy struct {
	noScopes
	ids []string
}

func (d actedBy) appendText(b []byte) []byte { return appendCall(b, "ActedBy", d.ids...) }

func (d actedBy) check(_ context.Context, c *claimSet, _ Request, _ asking) verdict {
	a := c.actor
	return metIf(a != nil && (a.Issuer == "" || a.Issuer == c.issuer) && slices.Contains(d.ids, a.Subject), otherActor)
}

// HasClaim returns a rule that requires a claim to be one of the values, or an array of
// strings that contains one. Values are compared byte by byte. Numbers and booleans
// match nothing. With Logto, keep in mind that a claims script writes such claims. A name
// that begins with a slash is a JSON Pointer, as in [Config].ScopeClaims:
// /kubernetes.io/namespace. HasClaim panics if a name or a value is empty, no value is
// given, or the pointer is invalid.
func HasClaim(name string, values ...string) Rule {
	mustHaveValues("HasClaim", 2, append([]string{name}, values...)...)
	parsed, err := claim.ParseName(name)
	if err != nil {
		panic(fmt.Sprintf("m2mauth: %s: %v", appendCall(nil, "HasClaim", append([]string{name}, values...)...), err))
	}
	return Rule{demand: hasClaim{name: parsed, values: slices.Clone(values)}}
}

type hasClaim struct {
	noScopes
	name   claim.Name
	values []string
}

func (d hasClaim) appendText(b []byte) []byte {
	return appendCall(b, "HasClaim", append([]string{d.name.String()}, d.values...)...)
}

func (d hasClaim) check(_ context.Context, c *claimSet, _ Request, _ asking) verdict {
	return metIf(c.hasAny(d.name, d.values), otherClaim)
}

// Organization returns a rule that requires a token limited to the organization that of
// returns for the request, compared byte by byte. If of returns "", nothing passes.
// Only a rule with such a part accepts tokens with organization_id.
func Organization(of func(Request) string) Rule {
	if of == nil {
		panic("m2mauth: Organization: the function is nil")
	}
	return organizationRule("Organization(func)", func(r Request) (string, error) { return of(r), nil })
}

// OrganizationPath is [Organization] with the organization from a wildcard of the
// route's path: OrganizationPath("org") for /orgs/{org}/products. If the request has no
// such path value, nothing passes. It panics if the name is empty or contains pattern
// syntax, such as {org} or :org.
func OrganizationPath(wildcard string) Rule {
	mustHaveValues("OrganizationPath", 1, wildcard)
	if strings.ContainsAny(wildcard, "{}:*/") {
		panic(fmt.Sprintf("m2mauth: OrganizationPath(%q): give the wildcard's name alone, such as org for /orgs/{org}", wildcard))
	}
	return organizationRule(string(appendCall(nil, "OrganizationPath", wildcard)),
		func(r Request) (string, error) { return r.PathValue(wildcard), nil }, slog.String("wildcard", wildcard))
}

// OrganizationHeader is [Organization] with the organization from a header. A header
// that occurs twice names none. It panics if no header of that name (RFC 9110 §5.1) can
// name an organization: Host, Authorization, and hop-by-hop headers.
func OrganizationHeader(field string) Rule {
	mustHaveValues("OrganizationHeader", 1, field)
	name := string(appendCall(nil, "OrganizationHeader", field))
	if !ascii.IsToken(field) || slices.Contains(unusableHeaders, http.CanonicalHeaderKey(field)) {
		panic(fmt.Sprintf("m2mauth: %s: no header field of that name can bring an organization; use one such as X-Organization", name))
	}
	return organizationRule(name, func(r Request) (string, error) {
		values, err := fieldsOf(r, field)
		if len(values) != 1 {
			return "", err
		}
		return values[0], nil
	}, slog.String("field", field))
}

// unusableHeaders are the headers that proxies and servers keep to themselves (RFC 9110
// §7.6.1; net/http takes Host out too), and the one that carries the token.
var unusableHeaders = []string{
	"Authorization", "Connection", "Host", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

type organization struct {
	noScopes
	text string
	of   func(Request) (string, error)
	none *refusal // for when of returns ""
}

// organizationRule has its own refusal for a request that names no organization. Most
// likely, the rule then asks for something that the route does not have.
func organizationRule(text string, of func(Request) (string, error), where ...slog.Attr) Rule {
	none := *otherOrganization
	none.counted = "found no organization"
	none.attrs = append(where, slog.String("value", ""))
	return Rule{demand: organization{text: text, of: of, none: &none}, organization: true}
}

func (d organization) appendText(b []byte) []byte { return append(b, d.text...) }

func (d organization) check(_ context.Context, c *claimSet, r Request, _ asking) verdict {
	switch {
	case c.organizationID == "":
		return verdict{why: noOrganization}
	case r == nil:
		return verdict{why: otherOrganization}
	}
	switch id, err := d.of(r); {
	case err != nil:
		return verdict{why: &refusal{err: fmt.Errorf("%s: %w", d.text, err)}}
	case id == "":
		return verdict{why: d.none}
	case id != c.organizationID:
		return verdict{why: otherOrganization}
	}
	return verdict{met: true, bound: true}
}

// Custom returns a rule that calls f, such as for a look-up in a database. If f returns
// nil, the request passes. An error of [Deny] rejects it with 403 and its text. Any
// other error is logged and gets 500. f is not called for a token that another part of
// the rule rejects. name stands for f in Rule.String.
func Custom(name string, f func(context.Context, Claims, Request) error) Rule {
	if f == nil {
		panic(fmt.Sprintf("m2mauth: Custom(%q): the function is nil", name))
	}
	return Rule{demand: custom{name: name, f: f}, custom: true}
}

type custom struct {
	noScopes
	name string
	f    func(context.Context, Claims, Request) error
}

func (d custom) appendText(b []byte) []byte { return appendCall(b, "Custom", d.name) }

func (d custom) check(ctx context.Context, c *claimSet, r Request, ask asking) verdict {
	if ask == askNone {
		return met
	}
	err := d.f(ctx, Claims{set: c}, r)
	var no *denied
	switch {
	case err == nil:
		return met
	case errors.As(err, &no):
		return verdict{why: &refusal{text: no.text, denied: true, counted: "Deny"}}
	}
	return verdict{why: &refusal{err: fmt.Errorf("%s: %w", d.appendText(nil), err)}}
}

// Deny returns the error with which a function given to [Custom] rejects a request. The
// caller sees the text.
func Deny(text string) error { return &denied{strings.ToValidUTF8(text, "?")} }

type denied struct{ text string }

func (d *denied) Error() string { return "m2mauth: denied: " + d.text }

// AllOf returns a rule that requires all of the rules. Functions given to [Custom] are
// called last. It panics if no rule is given, or if both [MachineToken] and [UserToken]
// are among them, since no token is of both kinds.
func AllOf(rules ...Rule) Rule {
	all := ruleOf(allOf(demandsOf("AllOf", rules)), rules)
	demands := all.demand.(allOf)
	if slices.ContainsFunc(demands, isMachine(true)) && slices.ContainsFunc(demands, isMachine(false)) {
		panic(fmt.Sprintf("m2mauth: %s: no token can meet this: it is either a machine's or a user's", all))
	}
	return all
}

func isMachine(is bool) func(demand) bool {
	return func(d demand) bool { return d == demand(machine{is: is}) }
}

// AnyOf returns a rule that requires at least one of the rules. It panics if no rule is
// given.
func AnyOf(rules ...Rule) Rule {
	return ruleOf(anyOf(demandsOf("AnyOf", rules)), rules)
}

func demandsOf(call string, rules []Rule) []demand {
	if len(rules) == 0 {
		panic(fmt.Sprintf("m2mauth: %s: no rule given", call))
	}
	demands := make([]demand, len(rules))
	for i, r := range rules {
		if r.demand == nil || r.optional {
			panic(fmt.Sprintf("m2mauth: %s: %s cannot be part of another rule", call, r))
		}
		demands[i] = r.demand
	}
	return demands
}

// ruleOf makes a rule of parts and derives from them what applies to the whole.
func ruleOf(d demand, parts []Rule) Rule {
	whole := Rule{demand: d}
	for _, part := range parts {
		whole.organization = whole.organization || part.organization
		whole.custom = whole.custom || part.custom
		whole.odd = append(whole.odd, part.odd[:min(len(part.odd), maxOddScopes-len(whole.odd))]...)
	}
	return whole
}

type allOf []demand

func (d allOf) appendText(b []byte) []byte { return appendParts(b, "AllOf", d) }

func (d allOf) appendScopes(names *scope.List, p *scope.Policy) (some bool) {
	for _, part := range d {
		some = part.appendScopes(names, p) || some
	}
	return some
}

// check calls functions last, and none once a part is not met. Only a part that is met
// after those calls is bound: a part that a function rejects binds nothing.
func (d allOf) check(ctx context.Context, c *claimSet, r Request, ask asking) verdict {
	if ask == askLast {
		if without := d.check(ctx, c, r, askNone); !without.met {
			return without
		}
		ask = askAtOnce // for the parts too, since all of them are met
	}
	all := met
	for _, part := range d {
		v := part.check(ctx, c, r, ask)
		all.met, all.bound = all.met && v.met, all.bound || v.bound
		all.why, all.lost = all.why.with(v.why), all.lost.with(v.lost)
		if ask == askAtOnce && !all.met {
			break
		}
	}
	if !all.met {
		return verdict{why: all.why}
	}
	return all
}

type anyOf []demand

func (d anyOf) appendText(b []byte) []byte { return appendParts(b, "AnyOf", d) }

func (d anyOf) appendScopes(names *scope.List, p *scope.Policy) bool {
	if p.IncludesAny() {
		var least []string
		for _, part := range d {
			var list scope.List
			if part.appendScopes(&list, p); len(list.Names) > 0 && (least == nil || p.CoversAll(least, list.Names)) {
				least = list.Names
			}
		}
		names.Add(least...)
		return least != nil
	}
	return slices.ContainsFunc(d, func(part demand) bool { return part.appendScopes(names, p) })
}

// check continues after a part that is met but not bound if the token is limited to an
// organization, since only a bound part may accept such a token.
func (d anyOf) check(ctx context.Context, c *claimSet, r Request, ask asking) verdict {
	if ask == askAtOnce {
		ask = askLast // we do not know which part is met
	}
	var some verdict
	for _, part := range d {
		v := part.check(ctx, c, r, ask)
		if v.met && (v.bound || c.organizationID == "") {
			return verdict{met: true, bound: v.bound}
		}
		some.met = some.met || v.met
		some.why = some.why.with(v.why).with(v.lost)
	}
	if some.met {
		return verdict{met: true, lost: some.why}
	}
	return some
}

// Optional returns a rule that lets a request without credentials pass as one without a
// caller: [FromContext] finds no claims, and [Guard.Check] returns no claims and no
// error. A request with a token must meet the rule, and an invalid token is rejected.
// Responses carry Vary: Authorization. Optional cannot be part of another rule.
func Optional(rule Rule) Rule {
	if rule.demand == nil || rule.optional {
		panic(fmt.Sprintf("m2mauth: Optional: %s cannot be optional", rule))
	}
	rule.optional = true
	return rule
}

// IsOptional reports whether [Optional] made the rule. An adapter then adds Vary:
// Authorization to every response of the route.
func (r Rule) IsOptional() bool { return r.optional }

// String returns the rule as written in Go.
func (r Rule) String() string {
	switch {
	case r.demand == nil:
		return "Rule{}"
	case r.optional:
		return "Optional(" + string(r.demand.appendText(nil)) + ")"
	}
	return string(r.demand.appendText(nil))
}

func appendParts(b []byte, call string, parts []demand) []byte {
	return appendList(b, call, parts, func(b []byte, part demand) []byte { return part.appendText(b) })
}

func appendCall(b []byte, call string, arguments ...string) []byte {
	return appendList(b, call, arguments, strconv.AppendQuote)
}

func appendList[T any](b []byte, call string, list []T, appendOne func([]byte, T) []byte) []byte {
	b = append(append(b, call...), '(')
	for i, one := range list {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = appendOne(b, one)
	}
	return append(b, ')')
}

// authorize checks what a route requires of a verified token.
func (i *issuer) authorize(ctx context.Context, c *claimSet, r Request, rule Rule) *Error {
	if rule.demand == nil {
		return newError(ErrForbidden, "this route lets nobody through")
	}
	// The scopes of a token limited to an organization hold only within it. Otherwise,
	// a role in one customer's organization would open the API for all.
	limited := c.organizationID != "" && !i.allowOrganizations
	if limited && !rule.organization {
		return i.limited(c, rule)
	}
	v := rule.demand.check(ctx, c, r, askNone)
	if rule.custom && v.met && (v.bound || !limited) { // not called for a token that the rest of the rule rejects
		v = rule.demand.check(ctx, c, r, askAtOnce)
	}
	why := v.why
	switch {
	case v.met && limited && !v.bound && v.lost != nil && (v.lost.err != nil || v.lost.denied):
		why = v.lost // what a function said about the organization's own part
	case v.met && limited && !v.bound:
		return i.limited(c, rule)
	case v.met:
		return nil
	}
	switch {
	case why.err != nil:
		return internalError(why.err, slog.String("rule", rule.String()))
	case !why.scope:
		e := newError(ErrForbidden, why.text, append([]slog.Attr{slog.String("rule", rule.String()),
			slog.String("organization_id", keyset.Loggable(c.organizationID))}, why.attrs...)...)
		e.counted = why.counted
		return e
	}
	text := why.text
	if c.scopes.Len() == 0 {
		text = "the token has no scopes: ask for them in the token request, and give the application a role that has them"
	}
	e := newError(ErrScope, text, slog.String("required", rule.String()), slog.String("scopes", keyset.Loggable(c.scopes.String())))
	e.Scopes = rule.scopes(i.claims.scopes)
	return e
}

func (i *issuer) limited(c *claimSet, rule Rule) *Error {
	text := "the token is limited to an organization, and this route is not: request a token without organization_id"
	if i.claims.organizations { // this guard accepts no other tokens
		text = "the token is an organization token, and this route belongs to no organization: no organization token opens it"
	}
	return newError(ErrForbidden, text,
		slog.String("organization_id", keyset.Loggable(c.organizationID)), slog.String("rule", rule.String()))
}
