package m2mauth

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/strictjson"
)

// Claims holds the claims of a verified token. A [Guard] never returns Claims together
// with an error. The zero Claims is empty: its strings are empty, it has no scopes, and
// no method panics. Claims is immutable and cannot be compared with ==. Two requests
// with one token share the data behind it.
type Claims struct {
	_   [0]func() // makes Claims incomparable
	set *claimSet // nil in the zero Claims
}

// claimSet is never written to once its token has been read.
type claimSet struct {
	issuer, subject, clientID, id, organizationID string

	isMachine func(Claims) bool // Config.IsMachine
	audience  []string
	scopes    Scopes
	issuedAt  time.Time
	notBefore time.Time
	expiresAt time.Time
	signed    string // header and payload as received, for Decode

	read   int                         // at most how many bytes of the payload the strings above came from
	others atomic.Pointer[[]keptClaim] // what else stringsOf has read
}

var noClaims = new(claimSet)

// read returns the token's claims, or empty ones.
func (c Claims) read() *claimSet {
	if c.set == nil {
		return noClaims
	}
	return c.set
}

// IsZero reports whether c is the zero Claims, which no token has. A request without a
// caller has it.
func (c Claims) IsZero() bool { return c.set == nil }

// AppID returns the ID of the machine-to-machine application that the token was issued
// to. That is the client, and with Logto also sub. For a user's token AppID returns "",
// so that a user's ID is never taken for an application's.
func (c Claims) AppID() string {
	if !c.IsMachine() {
		return ""
	}
	return c.read().clientID
}

// IsMachine reports whether the token was issued to an application itself and not to a
// user of it: whether sub equals the client (RFC 9068 §2.2), or what Config.IsMachine
// returns. A token without sub (Config.AllowMissingSubject) is a machine's.
func (c Claims) IsMachine() bool { return c.read().machine() }

func (s *claimSet) machine() bool {
	if s.subject == "" { // a token without sub names no user; the zero Claims has no client either
		return s.clientID != ""
	}
	if s.isMachine != nil {
		return s.isMachine(Claims{set: s})
	}
	return s.subject == s.clientID
}

// Subject returns sub, an application's or a user's ID. It is "" only for a machine's
// token without sub, which Config.AllowMissingSubject accepts. See [Claims.AppID].
func (c Claims) Subject() string { return c.read().subject }

// ClientID returns the application that requested the token: client_id, or the claim
// that Config.ClientClaims names.
func (c Claims) ClientID() string { return c.read().clientID }

// Issuer returns iss, which equals Config.Issuer.
func (c Claims) Issuer() string { return c.read().issuer }

// ID returns jti, the token's identifier, or "" if it has none.
func (c Claims) ID() string { return c.read().id }

// OrganizationID returns the Logto organization that the token is limited to, or "" if
// there is none. It comes from organization_id or a claim of Config.OrganizationClaims,
// and in an organization token from the end of aud.
func (c Claims) OrganizationID() string { return c.read().organizationID }

// Audience returns a copy of aud.
func (c Claims) Audience() []string { return slices.Clone(c.read().audience) }

// Scopes returns the scopes of the token.
func (c Claims) Scopes() Scopes { return c.read().scopes }

// IssuedAt returns iat, or the zero time if the token has none.
func (c Claims) IssuedAt() time.Time { return c.read().issuedAt }

// ExpiresAt returns exp. The guard accepts the token for Config.Leeway longer. A long
// response that began with the token may continue until then: see the example.
func (c Claims) ExpiresAt() time.Time { return c.read().expiresAt.Round(0) }

// Decode stores the token's whole payload in the value that v points to, for claims of
// your own. It follows the rules of encoding/json/v2: names must match exactly
// (encoding/json would fill a field "sub" from a member "SUB").
func (c Claims) Decode(v any) error {
	payload, err := c.read().payload()
	if err != nil {
		return err
	}
	return json.Unmarshal(payload, v)
}

func (c *claimSet) payload() ([]byte, error) {
	_, encoded, ok := strings.Cut(c.signed, ".")
	if !ok {
		return nil, errors.New("m2mauth: Decode: these Claims come from no token")
	}
	return jose.DecodeBase64URL(encoded)
}

// claimName is the name of a claim in a Config or a rule.
type claimName struct {
	text    string // the only spelling of pointer: for a top-level member, its name
	pointer strictjson.Pointer
}

// parseClaim reads a claim's name, which is a JSON Pointer if it begins with a slash.
func parseClaim(name string) (claimName, error) {
	if !strings.HasPrefix(name, "/") {
		return claimName{name, strictjson.Pointer{name}}, nil
	}
	pointer, err := strictjson.ParsePointer(name)
	if err != nil {
		return claimName{}, err
	}
	if len(pointer) == 1 && !strings.HasPrefix(pointer[0], "/") {
		return claimName{pointer[0], pointer}, nil
	}
	return claimName{pointer.String(), pointer}, nil
}

// claimNames parses names that New has already checked.
func claimNames(names []string) []claimName {
	claims := make([]claimName, len(names))
	for i, name := range names {
		claims[i], _ = parseClaim(name)
	}
	return claims
}

func namesOf(claims []claimName) []string {
	names := make([]string, len(claims))
	for i, claim := range claims {
		names[i] = claim.text
	}
	return names
}

// keptClaim is a claim that a rule asked for.
type keptClaim struct {
	name   string
	values []string
}

// memory returns the bytes it takes in addition to those of its values, rounded up.
func (k keptClaim) memory() int {
	return int(unsafe.Sizeof(k)) + 2*int(unsafe.Sizeof(""))*len(k.values)
}

// hasAny reports whether a claim is one of the values, or an array of strings that
// contains one.
func (c *claimSet) hasAny(claim claimName, values []string) bool {
	switch claim.text { // claims that were already read
	case "iss":
		return slices.Contains(values, c.issuer)
	case "sub":
		return slices.Contains(values, c.subject)
	case "jti":
		return c.id != "" && slices.Contains(values, c.id)
	}
	return slices.ContainsFunc(c.stringsOf(claim), func(value string) bool { return slices.Contains(values, value) })
}

// stringsOf returns the strings that a claim is or contains. It keeps only claims that
// rules ask for, and only within the bytes that token.cost counts for all claims. Any
// others are read each time.
func (c *claimSet) stringsOf(claim claimName) []string {
	if claim.text == "aud" {
		return c.audience
	}
	var kept []keptClaim
	if others := c.others.Load(); others != nil {
		kept = *others
	}
	for _, k := range kept {
		if k.name == claim.text {
			return k.values
		}
	}
	return c.readAndKeep(claim, kept)
}

func (c *claimSet) readAndKeep(claim claimName, kept []keptClaim) []string {
	read := keptClaim{name: claim.text}
	if payload, err := c.payload(); err == nil {
		if value := claim.pointer.In(payload); value != nil {
			if list, ok := strictjson.Strings(value); ok {
				read.values = list
			}
		}
	}
	shared := []string{c.clientID, c.organizationID} // other claims may name these too
	for i, value := range read.values {
		if at := slices.Index(shared, value); at >= 0 {
			read.values[i] = shared[at]
		}
	}
	all := append(slices.Clone(kept), read)
	held := c.read
	for _, k := range all {
		held += k.memory()
		for _, value := range k.values {
			if !slices.Contains(shared, value) {
				held += len(value)
			}
		}
	}
	if held <= len(c.signed) {
		c.others.Store(&all) // of two at the same time the last is kept, and the other is read again
	}
	return read.values
}

// claimPolicy is what Config says about claims.
type claimPolicy struct {
	issuer       string
	audiences    []string
	scopeClaims  []claimName
	clientClaims []claimName

	scopes             *scopePolicy
	organizationClaims []claimName // includes organization_id
	required           []claimName
	requiredValues     [][]string // for each claim of required

	missingSubject         bool     // machines' tokens may lack sub
	clientsWithoutAudience []string // their tokens may lack aud
	leeway                 time.Duration
	maxLifetime            time.Duration
	isMachine              func(Claims) bool

	// organizations says that the audience is that of Logto's organization tokens,
	// which ends in the organization's ID.
	organizations bool
}

const payloadText = "the token's payload is not one strict JSON object"

// claimValues are the members that the checks look at, as written in the payload.
type claimValues struct {
	iss, sub, aud, exp, nbf, iat, jti, cnf jsontext.Value

	scopes, clients, organizations, required []jsontext.Value // in the order of the policy's names
}

// read returns the claims of a token's payload if they are acceptable now. accessToken
// says that the header's typ is at+jwt, for which RFC 9068 §2.2 requires more claims
// than for other types.
func (p *claimPolicy) read(payload []byte, accessToken bool, now time.Time) (*claimSet, *Error) {
	values, err := p.collect(payload)
	if err != nil {
		return nil, newError(ErrMalformed, payloadText)
	}
	c := &claimSet{isMachine: p.isMachine, read: values.bytes()}
	for _, check := range []func(*claimSet, *claimValues) *Error{
		p.checkIssuer,
		p.checkAudience,
		p.checkConfirmation,
		p.readTimes,
		p.readSubject,
		p.readClient,
		p.readID,
		p.readScopes,
		p.readOrganization,
		p.checkRequired,
	} {
		if e := check(c, values); e != nil {
			return nil, e
		}
	}
	if e := p.checkTimes(c, now); e != nil {
		return nil, e
	}
	c.expiresAt = onBothClocks(now, c.expiresAt)
	if accessToken && values.iat == nil {
		return nil, missing("iat")
	}
	if accessToken && values.jti == nil {
		return nil, missing("jti")
	}
	return c, nil
}

func (p *claimPolicy) collect(payload []byte) (*claimValues, error) {
	v := &claimValues{
		scopes:  make([]jsontext.Value, len(p.scopeClaims)),
		clients: make([]jsontext.Value, len(p.clientClaims)),

		organizations: make([]jsontext.Value, len(p.organizationClaims)),
		required:      make([]jsontext.Value, len(p.required)),
	}
	err := strictjson.Object(payload, func(name []byte, value jsontext.Value) error {
		switch string(name) {
		case "iss":
			v.iss = value
		case "sub":
			v.sub = value
		case "aud":
			v.aud = value
		case "exp":
			v.exp = value
		case "nbf":
			v.nbf = value
		case "iat":
			v.iat = value
		case "jti":
			v.jti = value
		case "cnf":
			v.cnf = value
		}
		pick(v.scopes, p.scopeClaims, name, value)
		pick(v.clients, p.clientClaims, name, value)
		pick(v.organizations, p.organizationClaims, name, value)
		pick(v.required, p.required, name, value)
		return nil
	})
	return v, err
}

// pick stores the values of those claims that a member of the payload is or contains.
func pick(values []jsontext.Value, claims []claimName, name []byte, member jsontext.Value) {
	for i, claim := range claims {
		if string(name) == claim.pointer[0] {
			values[i] = claim.pointer[1:].In(member)
		}
	}
}

// bytes returns at most how many bytes the strings take that are read from the values.
func (v *claimValues) bytes() int {
	n := len(v.iss) + len(v.sub) + len(v.aud) + len(v.jti)
	for _, values := range [][]jsontext.Value{v.scopes, v.clients, v.organizations} {
		for _, value := range values {
			n += len(value)
		}
	}
	return n
}

var errMember = errors.New("a member has the wrong type")

func missing(claim string) *Error {
	return newError(ErrClaims, "the token lacks the claim "+claim, slog.String("claim", claim))
}

func mistyped(claim, want string) *Error {
	return newError(ErrClaims, fmt.Sprintf("the token's claim %s is not %s", claim, want), slog.String("claim", claim))
}

// requiredString reads a claim that must be present and not empty.
func requiredString(claim string, v jsontext.Value) (string, *Error) {
	if v == nil {
		return "", missing(claim)
	}
	s, ok := strictjson.String(v)
	if !ok || s == "" {
		return "", mistyped(claim, "a non-empty string")
	}
	return s, nil
}

func (p *claimPolicy) checkIssuer(c *claimSet, v *claimValues) (e *Error) {
	if c.issuer, e = requiredString("iss", v.iss); e != nil {
		return e
	}
	if c.issuer != p.issuer {
		return newError(ErrIssuer, issuerHint(p.issuer, c.issuer), expected(p.issuer), got(c.issuer))
	}
	return nil
}

func (p *claimPolicy) checkAudience(c *claimSet, v *claimValues) *Error {
	if v.aud == nil {
		if p.readClient(c, v) == nil && slices.Contains(p.clientsWithoutAudience, c.clientID) {
			return nil
		}
		return missing("aud")
	}
	var ok bool
	if c.audience, ok = strictjson.Strings(v.aud); !ok {
		return mistyped("aud", "a string or an array of strings")
	}
	switch {
	case p.organizations:
		return p.readOrganizationAudience(c)
	case slices.ContainsFunc(c.audience, isOrganizationAudience): // its scopes belong to another API
		return p.wrongAudience(c)
	}
	for _, own := range p.audiences {
		if slices.Contains(c.audience, own) { // byte by byte, since Logto distinguishes https://a and https://a/
			return nil
		}
	}
	return p.wrongAudience(c)
}

func (p *claimPolicy) wrongAudience(c *claimSet) *Error {
	return newError(ErrAudience, audienceHint(p.audiences, c.audience),
		expected(strings.Join(p.audiences, " ")), got(strings.Join(c.audience, " ")))
}

func isOrganizationAudience(audience string) bool {
	return audience == organizationsResource || strings.HasPrefix(audience, organizationAudience)
}

// readOrganizationAudience reads the organization of an organization token from its
// only audience.
func (p *claimPolicy) readOrganizationAudience(c *claimSet) *Error {
	if len(c.audience) == 1 {
		if id, ok := strings.CutPrefix(c.audience[0], organizationAudience); ok && id != "" {
			c.organizationID = id
			return nil
		}
	}
	return p.wrongAudience(c)
}

// checkConfirmation rejects tokens that are bound to their sender's key (RFC 7800,
// 8705, 9449). Accepted as a plain bearer token, a stolen one could be replayed.
func (p *claimPolicy) checkConfirmation(_ *claimSet, v *claimValues) *Error {
	if v.cnf != nil {
		return newError(ErrClaims, "the token is bound to a key of its sender (cnf), and cannot be used as a plain bearer token",
			slog.String("claim", "cnf"))
	}
	return nil
}

func (p *claimPolicy) readTimes(c *claimSet, v *claimValues) *Error {
	for _, t := range []struct {
		claim string
		value jsontext.Value
		to    *time.Time
	}{{"exp", v.exp, &c.expiresAt}, {"nbf", v.nbf, &c.notBefore}, {"iat", v.iat, &c.issuedAt}} {
		if t.value == nil {
			continue
		}
		at, ok := numericDate(t.value)
		if !ok {
			return mistyped(t.claim, "a number of seconds since 1970")
		}
		*t.to = at
	}
	if v.exp == nil {
		return missing("exp")
	}
	return nil
}

// endOfTime is the end of the year 9999 in seconds. A later date is a mistake.
const endOfTime = 253402300800

// numericDate reads a NumericDate (RFC 7519 §2): a JSON number of seconds, with
// fractions, from 1970 to 9999.
func numericDate(v jsontext.Value) (time.Time, bool) {
	if v.Kind() != '0' || v[0] == '-' {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseFloat(string(v), 64)
	if err != nil || seconds >= endOfTime {
		return time.Time{}, false
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), true
}

// checkTimes is separate from readTimes, since a cached token must be checked again.
func (p *claimPolicy) checkTimes(c *claimSet, now time.Time) *Error {
	if reached(now, c.expiresAt.Add(p.leeway)) {
		return newError(ErrExpired, "the token has expired: get a new one; if it is new, the clocks of the issuer and of this API differ",
			slog.Time("exp", c.expiresAt.UTC()), slog.Time("now", now.UTC()))
	}
	if latest := now.Add(p.leeway); c.notBefore.After(latest) {
		return notYetValid("nbf", c.notBefore, now)
	} else if c.issuedAt.After(latest) {
		return notYetValid("iat", c.issuedAt, now)
	}
	if p.maxLifetime > 0 {
		if c.issuedAt.IsZero() {
			return missing("iat")
		}
		if lifetime := c.expiresAt.Sub(c.issuedAt); lifetime > p.maxLifetime {
			return newError(ErrClaims, "the token lives longer than this API accepts",
				slog.Duration("expected", p.maxLifetime), slog.Duration("got", lifetime))
		}
	}
	return nil
}

func notYetValid(claim string, at, now time.Time) *Error {
	return newError(ErrNotYetValid, "the token is not valid yet: the clocks of the issuer and of this API differ, or it was issued for later",
		slog.Time(claim, at.UTC()), slog.Time("now", now.UTC()))
}

func (p *claimPolicy) readSubject(c *claimSet, v *claimValues) (e *Error) {
	if v.sub == nil && p.missingSubject {
		return nil
	}
	c.subject, e = requiredString("sub", v.sub)
	return e
}

// readClient reads the client from the policy's claims. Two that differ are an error,
// since another reader could choose the other one.
func (p *claimPolicy) readClient(c *claimSet, v *claimValues) *Error {
	for i, value := range v.clients {
		if value == nil {
			continue
		}
		client, e := requiredString(p.clientClaims[i].text, value)
		if e != nil {
			return e
		}
		if c.clientID != "" && c.clientID != client {
			return newError(ErrClaims, "the token names two different clients", slog.Any("claims", namesOf(p.clientClaims)))
		}
		c.clientID = client
	}
	if c.clientID == "" {
		return missing(strings.Join(namesOf(p.clientClaims), " or "))
	}
	return nil
}

func (p *claimPolicy) readID(c *claimSet, v *claimValues) (e *Error) {
	if v.jti != nil {
		c.id, e = requiredString("jti", v.jti)
	}
	return e
}

// readScopes reads scopes only from the policy's claims: a claims script of a Logto
// tenant can write scp, roles and permissions, but not scope. Duende IdentityServer and
// Spring write scope as an array.
func (p *claimPolicy) readScopes(c *claimSet, v *claimValues) *Error {
	var names []string
	for i, value := range v.scopes {
		if value == nil {
			continue
		}
		if p.scopes.organization != "" {
			held, ok := scopesWithin(p.scopes.organization, value)
			if !ok {
				return mistyped(p.scopeClaims[i].text, "an object of scopes, each with an object of organizations")
			}
			names = append(names, held...)
			continue
		}
		list, ok := strictjson.Strings(value)
		if !ok {
			return mistyped(p.scopeClaims[i].text, "a string or an array of strings")
		}
		if value.Kind() != '[' { // an element of an array is one scope, even with spaces
			list = splitScopes(list[0])
		}
		names = append(names, list...)
	}
	c.scopes = p.scopes.read(names)
	return nil
}

// scopesWithin returns the member names of an object whose values name the
// organization. Other members hold elsewhere: with Zitadel, an organization that was
// granted a project assigns the project's roles itself.
func scopesWithin(organization string, v jsontext.Value) (names []string, ok bool) {
	err := strictjson.Object(v, func(name []byte, holds jsontext.Value) error {
		if holds.Kind() != '{' {
			return errMember
		}
		switch in := (strictjson.Pointer{organization}).In(holds); {
		case in == nil:
		case in.Kind() != '"':
			return errMember
		default:
			names = append(names, string(name))
		}
		return nil
	})
	return names, err == nil
}

// readOrganization reads the organization from the policy's claims. Two that differ are
// an error, since another reader could choose the other one.
func (p *claimPolicy) readOrganization(c *claimSet, v *claimValues) *Error {
	for i, value := range v.organizations {
		if value == nil {
			continue
		}
		name := p.organizationClaims[i].text
		if p.organizations { // if it is named twice, another reader could choose the other one
			return newError(ErrClaims, "the token names an organization both in its audience and in "+name, slog.String("claim", name))
		}
		id, e := requiredString(name, value)
		if e != nil {
			return e
		}
		if c.organizationID != "" && c.organizationID != id {
			return newError(ErrClaims, "the token names two different organizations", slog.Any("claims", namesOf(p.organizationClaims)))
		}
		c.organizationID = id
	}
	return nil
}

// checkRequired checks the claims of Config.RequiredClaims, as HasClaim does.
func (p *claimPolicy) checkRequired(_ *claimSet, v *claimValues) *Error {
	for i, value := range v.required {
		name := p.required[i].text
		if value == nil {
			return missing(name)
		}
		if value.Kind() != 'n' && slices.Contains(p.requiredValues[i], AnyValue) {
			continue
		}
		list, ok := strictjson.Strings(value)
		if !ok || !slices.ContainsFunc(list, func(s string) bool { return slices.Contains(p.requiredValues[i], s) }) {
			return newError(ErrClaims, fmt.Sprintf("the token's claim %s does not have a value that this API requires", name),
				slog.String("claim", name), expected(strings.Join(p.requiredValues[i], " ")), got(strings.Join(list, " ")))
		}
	}
	return nil
}
