package m2mauth

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/m2mauth/m2mauth/internal/claim"
	"github.com/m2mauth/m2mauth/internal/clock"
	"github.com/m2mauth/m2mauth/internal/hint"
	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/scope"
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
	actor     *claim.Actor      // from act, or nil
	audience  []string
	scopes    Scopes
	issuedAt  time.Time
	notBefore time.Time
	expiresAt time.Time
	signed    string // header and payload as received, for Decode

	read   int        // at most how many bytes of the payload the strings above came from
	others claim.Kept // what else stringsOf has read
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
// returns. A token without sub (Config.AllowMissingSubject) is a machine's. An act does
// not matter: see [Claims.Actor].
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
	if c.signed == "" {
		return nil, errors.New("m2mauth: Decode: these Claims come from no token")
	}
	return jose.DecodePayload(c.signed)
}

// hasAny reports whether a claim is one of the values, or an array of strings that
// contains one.
func (c *claimSet) hasAny(name claim.Name, values []string) bool {
	switch name.String() { // claims that were already read
	case "iss":
		return slices.Contains(values, c.issuer)
	case "sub":
		return slices.Contains(values, c.subject)
	case "jti":
		return c.id != "" && slices.Contains(values, c.id)
	}
	return slices.ContainsFunc(c.stringsOf(name), func(value string) bool { return slices.Contains(values, value) })
}

// stringsOf returns the strings that a claim is or contains. It keeps only claims that
// rules ask for, and only within the bytes that token.cost counts for all claims. Any
// others are read each time.
func (c *claimSet) stringsOf(name claim.Name) []string {
	if name.String() == "aud" {
		return c.audience
	}
	return c.others.Strings(name, c.payload, []string{c.clientID, c.organizationID}, len(c.signed)-c.read)
}

// claimPolicy is what Config says about claims.
type claimPolicy struct {
	issuer    string
	audiences []string
	sought    claim.Sought // Organizations includes organization_id

	scopes            *scope.Policy
	scopeOrganization string
	requiredValues    [][]string // for each claim of sought.Required

	missingSubject         bool     // machines' tokens may lack sub
	clientsWithoutAudience []string // their tokens may lack aud
	leeway                 time.Duration
	maxLifetime            time.Duration
	isMachine              func(Claims) bool

	// organizations says that the audience is that of Logto's organization tokens,
	// which ends in the organization's ID.
	organizations bool
}

// read returns the claims of a token's payload if they are acceptable now. accessToken
// says that the header's typ is at+jwt, for which RFC 9068 §2.2 requires more claims
// than for other types.
func (p *claimPolicy) read(payload []byte, accessToken bool, now time.Time) (*claimSet, *Error) {
	values, err := p.sought.Collect(payload)
	if err != nil {
		return nil, unacceptable(err)
	}
	c := &claimSet{isMachine: p.isMachine, read: values.Bytes()}
	for _, check := range []func(*claimSet, *claim.Values) error{
		p.checkIssuer,
		p.checkAudience,
		p.checkConfirmation,
		p.readTimes,
		p.readSubject,
		p.readClient,
		p.readID,
		p.readActor,
		p.readScopes,
		p.readOrganization,
		p.checkRequired,
	} {
		if err := check(c, values); err != nil {
			return nil, unacceptable(err)
		}
	}
	if e := p.checkTimes(c, now); e != nil {
		return nil, e
	}
	c.expiresAt = clock.OnBoth(now, c.expiresAt)
	if accessToken && values.IssuedAt == nil {
		return nil, missing("iat")
	}
	if accessToken && values.ID == nil {
		return nil, missing("jti")
	}
	return c, nil
}

// unacceptable returns the error for one caller of what is wrong with a token.
func unacceptable(err error) *Error {
	switch err := err.(type) {
	case *Error:
		return err
	case *claim.Mistake:
		return newError(ErrClaims, err.Error(), slog.String("claim", err.Claim))
	case jose.DotsError:
		return newError(ErrMalformed, err.Error(), slog.Int("dots", int(err)))
	}
	return newError(ErrMalformed, err.Error())
}

func missing(name string) *Error { return unacceptable(claim.Missing(name)) }

func (p *claimPolicy) checkIssuer(c *claimSet, v *claim.Values) (err error) {
	if c.issuer, err = v.Issuer.Text("iss"); err != nil {
		return err
	}
	if c.issuer != p.issuer {
		return newError(ErrIssuer, hint.Issuer(p.issuer, c.issuer), expected(p.issuer), got(c.issuer))
	}
	return nil
}

func (p *claimPolicy) checkAudience(c *claimSet, v *claim.Values) (err error) {
	if v.Audience == nil {
		if p.readClient(c, v) == nil && slices.Contains(p.clientsWithoutAudience, c.clientID) {
			return nil
		}
		return claim.Missing("aud")
	}
	if c.audience, err = v.Audience.Texts("aud"); err != nil {
		return err
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
	return newError(ErrAudience, hint.Audience(p.audiences, c.audience),
		expected(strings.Join(p.audiences, " ")), got(strings.Join(c.audience, " ")))
}

func isOrganizationAudience(audience string) bool {
	return audience == organizationsResource || strings.HasPrefix(audience, organizationAudience)
}

// readOrganizationAudience reads the organization of an organization token from its
// only audience.
func (p *claimPolicy) readOrganizationAudience(c *claimSet) error {
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
func (p *claimPolicy) checkConfirmation(_ *claimSet, v *claim.Values) error {
	if v.Confirmation != nil {
		return newError(ErrClaims, "the token is bound to a key of its sender (cnf), and cannot be used as a plain bearer token",
			slog.String("claim", "cnf"))
	}
	return nil
}

func (p *claimPolicy) readTimes(c *claimSet, v *claim.Values) (err error) {
	for _, t := range []struct {
		name  string
		value claim.Value
		to    *time.Time
	}{{"exp", v.ExpiresAt, &c.expiresAt}, {"nbf", v.NotBefore, &c.notBefore}, {"iat", v.IssuedAt, &c.issuedAt}} {
		if t.value == nil {
			continue
		}
		if *t.to, err = t.value.Time(t.name); err != nil {
			return err
		}
	}
	if v.ExpiresAt == nil {
		return claim.Missing("exp")
	}
	return nil
}

// checkTimes is separate from readTimes, since a cached token must be checked again.
func (p *claimPolicy) checkTimes(c *claimSet, now time.Time) *Error {
	// Most tokens are valid without leeway. Comparing that first is faster.
	if clock.Reached(now, c.expiresAt) && clock.Reached(now, c.expiresAt.Add(p.leeway)) {
		return newError(ErrExpired, "the token has expired: get a new one; if it is new, the clocks of the issuer and of this API differ",
			slog.Time("exp", c.expiresAt.UTC()), slog.Time("now", now.UTC()))
	}
	if c.notBefore.After(now) && c.notBefore.After(now.Add(p.leeway)) {
		return notYetValid("nbf", c.notBefore, now)
	}
	if c.issuedAt.After(now) && c.issuedAt.After(now.Add(p.leeway)) {
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

func (p *claimPolicy) readSubject(c *claimSet, v *claim.Values) (err error) {
	if v.Subject == nil && p.missingSubject {
		return nil
	}
	c.subject, err = v.Subject.Text("sub")
	return err
}

// readClient reads the client from the policy's claims, which must not differ.
func (p *claimPolicy) readClient(c *claimSet, v *claim.Values) (err error) {
	names := p.sought.Clients
	c.clientID, err = claim.Same(names, v.Clients)
	switch {
	case err == claim.ErrDiffer:
		return newError(ErrClaims, "the token names two different clients", slog.Any("claims", claim.Texts(names)))
	case err == nil && c.clientID == "":
		return claim.Missing(strings.Join(claim.Texts(names), " or "))
	}
	return err
}

func (p *claimPolicy) readID(c *claimSet, v *claim.Values) (err error) {
	if v.ID != nil {
		c.id, err = v.ID.Text("jti")
	}
	return err
}

// readScopes reads scopes only from the policy's claims: a claims script of a Logto
// tenant can write scp, roles and permissions, but not scope. Duende IdentityServer and
// Spring write scope as an array.
func (p *claimPolicy) readScopes(c *claimSet, v *claim.Values) error {
	var names []string
	for i, value := range v.Scopes {
		if value == nil {
			continue
		}
		var list []string
		var err error
		if name := p.sought.Scopes[i].String(); p.scopeOrganization == "" {
			list, err = value.Texts(name)
		} else {
			list, err = value.Within(p.scopeOrganization, name)
		}
		if err != nil {
			return err
		}
		if value.Kind() == '"' { // an element of an array is one scope, even with spaces
			list = scope.Split(list[0])
		}
		names = append(names, list...)
	}
	c.scopes.names, c.scopes.implied = p.scopes.Read(names)
	return nil
}

// readOrganization reads the organization from the policy's claims, which must not
// differ.
func (p *claimPolicy) readOrganization(c *claimSet, v *claim.Values) (err error) {
	names := p.sought.Organizations
	if p.organizations { // if it is named twice, another reader could choose the other one
		for i, value := range v.Organizations {
			if value != nil {
				name := names[i].String()
				return newError(ErrClaims, "the token names an organization both in its audience and in "+name, slog.String("claim", name))
			}
		}
		return nil
	}
	if c.organizationID, err = claim.Same(names, v.Organizations); err == claim.ErrDiffer {
		return newError(ErrClaims, "the token names two different organizations", slog.Any("claims", claim.Texts(names)))
	}
	return err
}

// checkRequired checks the claims of Config.RequiredClaims, as HasClaim does.
func (p *claimPolicy) checkRequired(_ *claimSet, v *claim.Values) error {
	for i, value := range v.Required {
		name := p.sought.Required[i].String()
		if value == nil {
			return claim.Missing(name)
		}
		if value.Kind() != 'n' && slices.Contains(p.requiredValues[i], AnyValue) {
			continue
		}
		list, err := value.Texts(name)
		if err != nil || !slices.ContainsFunc(list, func(s string) bool { return slices.Contains(p.requiredValues[i], s) }) {
			return newError(ErrClaims, fmt.Sprintf("the token's claim %s does not have a value that this API requires", name),
				slog.String("claim", name), expected(strings.Join(p.requiredValues[i], " ")), got(strings.Join(list, " ")))
		}
	}
	return nil
}
