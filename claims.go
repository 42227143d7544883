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

// Claims holds the claims of a verified token. A [Guard] never returns Claims
// together with an error. The zero Claims says nothing: its strings are empty, it
// holds no scopes, and no method of it panics. Claims cannot be changed, and cannot
// be compared with ==; two requests with one token share what is behind them.
type Claims struct {
	_   [0]func() // what is behind set is nobody's to compare
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
	signed    string // header and payload as they came, for Decode

	read   int                         // bytes of the payload that the strings above are from, at most
	others atomic.Pointer[[]keptClaim] // what stringsOf has read beside them
}

var noClaims = new(claimSet)

// read returns the claims of a token, or those that say nothing.
func (c Claims) read() *claimSet {
	if c.set == nil {
		return noClaims
	}
	return c.set
}

// IsZero reports whether c is the zero Claims, which no token has: those of a
// request without a caller.
func (c Claims) IsZero() bool { return c.set == nil }

// AppID returns the ID of the machine-to-machine application that the token was
// issued to: the client, which with Logto is sub too, where the token is a
// machine's. For a user's token it returns "", so that a user's ID is never
// taken for an application's.
func (c Claims) AppID() string {
	if !c.IsMachine() {
		return ""
	}
	return c.read().clientID
}

// IsMachine reports whether the token speaks for an application itself and not
// for a user of it: whether sub equals the client (RFC 9068 §2.2), or what
// Config.IsMachine says.
func (c Claims) IsMachine() bool { return c.read().machine() }

func (s *claimSet) machine() bool {
	if s.isMachine != nil {
		return s.isMachine(Claims{set: s})
	}
	return s.subject != "" && s.subject == s.clientID
}

// Subject returns sub: an application's ID or a user's. See [Claims.AppID].
func (c Claims) Subject() string { return c.read().subject }

// ClientID returns the application that asked for the token: client_id, or the
// claim that Config.ClientClaims names.
func (c Claims) ClientID() string { return c.read().clientID }

// Issuer returns iss, which equals Config.Issuer.
func (c Claims) Issuer() string { return c.read().issuer }

// ID returns jti, the token's identifier, or "" if it has none.
func (c Claims) ID() string { return c.read().id }

// OrganizationID returns the Logto organization that the token is limited to, or
// "" if it is not limited to one: organization_id, or for an organization token
// the end of aud.
func (c Claims) OrganizationID() string { return c.read().organizationID }

// Audience returns a copy of aud.
func (c Claims) Audience() []string { return slices.Clone(c.read().audience) }

// Scopes returns the permissions that the token holds.
func (c Claims) Scopes() Scopes { return c.read().scopes }

// IssuedAt returns iat, or the zero time if the token has none.
func (c Claims) IssuedAt() time.Time { return c.read().issuedAt }

// ExpiresAt returns exp. The guard accepts the token for Config.Leeway longer, and
// so long may an answer go on that was begun with it: see the example.
func (c Claims) ExpiresAt() time.Time { return c.read().expiresAt.Round(0) }

// Decode stores the token's whole payload in the value that v points to, for
// claims of your own. It follows the rules of encoding/json/v2: names match
// exactly (encoding/json would fill a field "sub" from a member "SUB").
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

// keptClaim is a claim of which a rule asked.
type keptClaim struct {
	name   string
	values []string
}

// memory is what it takes beside the bytes of its values, rounded up.
func (k keptClaim) memory() int {
	return int(unsafe.Sizeof(k)) + 2*int(unsafe.Sizeof(""))*len(k.values)
}

// hasAny reports whether a claim is one of the values, or an array of strings that
// holds one.
func (c *claimSet) hasAny(claim string, values []string) bool {
	switch claim { // what has been read is not read again
	case "iss":
		return slices.Contains(values, c.issuer)
	case "sub":
		return slices.Contains(values, c.subject)
	case "jti":
		return c.id != "" && slices.Contains(values, c.id)
	}
	return slices.ContainsFunc(c.stringsOf(claim), func(value string) bool { return slices.Contains(values, value) })
}

// stringsOf returns the strings that a claim is or holds. Only claims that rules
// ask for are kept, within the bytes that token.cost counts for all that claims
// hold: what is over that is read each time.
func (c *claimSet) stringsOf(claim string) []string {
	if claim == "aud" {
		return c.audience
	}
	var kept []keptClaim
	if others := c.others.Load(); others != nil {
		kept = *others
	}
	for _, k := range kept {
		if k.name == claim {
			return k.values
		}
	}
	return c.readAndKeep(claim, kept)
}

func (c *claimSet) readAndKeep(claim string, kept []keptClaim) []string {
	read := keptClaim{name: claim}
	if payload, err := c.payload(); err == nil {
		_ = strictjson.Object(payload, func(name []byte, value jsontext.Value) error { // has been read before
			if list, ok := strictjson.Strings(value); ok && string(name) == claim {
				read.values = list
			}
			return nil
		})
	}
	shared := []string{c.clientID, c.organizationID} // which other claims may name too
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
		c.others.Store(&all) // of two at the same time the last stays, and the other is read again
	}
	return read.values
}

// claimPolicy is what Config says of claims.
type claimPolicy struct {
	issuer       string
	audiences    []string
	scopeClaims  []string
	clientClaims []string
	leeway       time.Duration
	maxLifetime  time.Duration
	isMachine    func(Claims) bool

	// organizations: the audience is that of Logto's organization tokens, which
	// ends in the organization's ID.
	organizations bool
}

const payloadText = "the token's payload is not one strict JSON object"

// claimValues are the members that the checks look at, as they stand in the payload.
type claimValues struct {
	iss, sub, aud, exp, nbf, iat, jti, cnf, organizationID jsontext.Value

	scopes, clients []jsontext.Value // in the order of the policy's names
}

// read turns a token's payload into claims, if they are acceptable now.
// accessToken says that the header's typ is at+jwt, for which RFC 9068 §2.2
// requires more claims than other types have.
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
		case "organization_id":
			v.organizationID = value
		}
		for i, claim := range p.scopeClaims {
			if string(name) == claim {
				v.scopes[i] = value
			}
		}
		for i, claim := range p.clientClaims {
			if string(name) == claim {
				v.clients[i] = value
			}
		}
		return nil
	})
	return v, err
}

// bytes is what the strings take that are read of the values, at most.
func (v *claimValues) bytes() int {
	n := len(v.iss) + len(v.sub) + len(v.aud) + len(v.jti) + len(v.organizationID)
	for _, values := range [][]jsontext.Value{v.scopes, v.clients} {
		for _, value := range values {
			n += len(value)
		}
	}
	return n
}

func missing(claim string) *Error {
	return newError(ErrClaims, "the token lacks the claim "+claim, slog.String("claim", claim))
}

func mistyped(claim, want string) *Error {
	return newError(ErrClaims, fmt.Sprintf("the token's claim %s is not %s", claim, want), slog.String("claim", claim))
}

// requiredString reads a claim that must be there and hold something.
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
		return missing("aud")
	}
	var ok bool
	if c.audience, ok = strictjson.Strings(v.aud); !ok {
		return mistyped("aud", "a string or an array of strings")
	}
	switch {
	case p.organizations:
		return p.readOrganizationAudience(c)
	case slices.ContainsFunc(c.audience, isOrganizationAudience): // the scopes of such a token are another API's
		return p.wrongAudience(c)
	}
	for _, own := range p.audiences {
		if slices.Contains(c.audience, own) { // byte by byte: Logto keeps https://a and https://a/ apart
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

// readOrganizationAudience takes the organization of an organization token from
// its only audience.
func (p *claimPolicy) readOrganizationAudience(c *claimSet) *Error {
	if len(c.audience) == 1 {
		if id, ok := strings.CutPrefix(c.audience[0], organizationAudience); ok && id != "" {
			c.organizationID = id
			return nil
		}
	}
	return p.wrongAudience(c)
}

// checkConfirmation refuses tokens bound to their sender's key (RFC 7800, 8705,
// 9449): taken as a plain bearer token, such a token could be replayed by a thief.
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

// endOfTime is the end of the year 9999 in seconds, past which a date is a mistake.
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

// checkTimes is apart from readTimes since a remembered token's clock goes on.
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
	c.subject, e = requiredString("sub", v.sub)
	return e
}

// readClient takes the client from the first of the policy's claims that the
// token has. Two of them that disagree could be read in two ways.
func (p *claimPolicy) readClient(c *claimSet, v *claimValues) *Error {
	for i, value := range v.clients {
		if value == nil {
			continue
		}
		client, e := requiredString(p.clientClaims[i], value)
		if e != nil {
			return e
		}
		if c.clientID != "" && c.clientID != client {
			return newError(ErrClaims, "the token names two different clients", slog.Any("claims", p.clientClaims))
		}
		c.clientID = client
	}
	if c.clientID == "" {
		return missing(strings.Join(p.clientClaims, " or "))
	}
	return nil
}

func (p *claimPolicy) readID(c *claimSet, v *claimValues) (e *Error) {
	if v.jti != nil {
		c.id, e = requiredString("jti", v.jti)
	}
	return e
}

// readScopes takes permissions from the policy's claims and from nowhere else:
// a Logto tenant's claims script can write scp, roles and permissions, but not scope.
// Duende's IdentityServer and Spring write scope as an array.
func (p *claimPolicy) readScopes(c *claimSet, v *claimValues) *Error {
	for i, value := range v.scopes {
		if value == nil {
			continue
		}
		list, ok := strictjson.Strings(value)
		if !ok {
			return mistyped(p.scopeClaims[i], "a string or an array of strings")
		}
		if value.Kind() != '[' { // an element of an array is one scope, whatever spaces it holds
			list = splitScopes(list[0])
		}
		c.scopes.names = append(c.scopes.names, list...)
	}
	return nil
}

func (p *claimPolicy) readOrganization(c *claimSet, v *claimValues) (e *Error) {
	if v.organizationID != nil {
		if p.organizations { // named twice, an organization could be read in two ways
			return newError(ErrClaims, "the token names an organization both in its audience and in organization_id", slog.String("claim", "organization_id"))
		}
		c.organizationID, e = requiredString("organization_id", v.organizationID)
	}
	return e
}
