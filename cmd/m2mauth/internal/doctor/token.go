package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/hint"
	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/keylog"
	"github.com/m2mauth/m2mauth/internal/keyset"
)

// The checks of a token, in the order of the guard's.
const (
	tokenForm         = "token.form"
	tokenShape        = "token.shape"
	tokenAlgorithm    = "token.algorithm"
	tokenType         = "token.type"
	tokenIssuer       = "token.issuer"
	tokenAudience     = "token.audience"
	tokenClaims       = "token.claims"
	tokenTimes        = "token.times"
	tokenKey          = "token.key"
	tokenSignature    = "token.signature"
	tokenOrganization = "token.organization"
	tokenScopes       = "token.scopes"
	tokenVerdict      = "token.verdict"
)

// Demand is what a route requires beside a valid token. The zero Demand requires
// nothing else.
type Demand struct {
	Scopes       []string // all of them
	Organization string   // that the route belongs to; "" if it belongs to none
}

// rule returns the rule of a route with this demand.
func (d Demand) rule() m2mauth.Rule {
	switch {
	case d.Organization == "" && len(d.Scopes) == 0:
		return m2mauth.AnyToken()
	case d.Organization == "":
		return m2mauth.AllScopes(d.Scopes...)
	case len(d.Scopes) == 0:
		return d.organizationRule()
	}
	return m2mauth.AllOf(d.organizationRule(), m2mauth.AllScopes(d.Scopes...))
}

func (d Demand) organizationRule() m2mauth.Rule {
	return m2mauth.Organization(func(m2mauth.Request) string { return d.Organization })
}

// Token checks a token as the API's guard does, with a row for each thing that the guard
// looks at, and the guard's verdict as the last row. It sends the token nowhere.
func Token(ctx context.Context, f Found, raw string, d Demand, r *Report) {
	token(ctx, f, raw, d, nil, r)
}

// usable reports whether a guard can have the settings.
func (f Found) usable() bool {
	f.Config.Logger = slog.New(slog.DiscardHandler)
	_, err := m2mauth.New(f.Config)
	return err == nil
}

// tokenExamination is one run of the checks of a token.
type tokenExamination struct {
	found  Found
	raw    string
	demand Demand
	grant  *grant // how the token was got, or nil
	now    time.Time
	report *Report
	reading
}

func token(ctx context.Context, f Found, raw string, d Demand, g *grant, r *Report) {
	if !f.usable() {
		r.Skip(tokenVerdict, "there is no guard with these settings: see "+checkSettings)
		return
	}
	x := &tokenExamination{found: f, raw: raw, demand: d, grant: g, now: time.Now(), report: r}
	x.reading = newProbes(ctx, f.Config).read(raw, d)
	x.row(tokenForm, func() string { return fmt.Sprintf("%d bytes, in one piece", len(raw)) }, x.formRemedy)
	x.row(tokenShape, func() string { return "a JWT of three parts, with a header and claims that can be read" }, x.shapeRemedy)
	x.row(tokenAlgorithm, func() string { return x.header.shown("alg") }, x.algorithmRemedy)
	x.row(tokenType, func() string { return cmp.Or(x.header.shown("typ"), "none") }, x.typeRemedy)
	x.row(tokenIssuer, func() string { return x.payload.shown("iss") }, x.issuerRemedy)
	x.row(tokenAudience, func() string { return cmp.Or(x.payload.shown("aud"), "none, which this client may leave out") }, x.audienceRemedy)
	x.row(tokenClaims, x.who, x.claimsRemedy)
	x.row(tokenTimes, func() string { return x.payload.times(x.now) }, x.timesRemedy)
	x.keyAndSignature(ctx)
	x.row(tokenOrganization, x.organization, x.organizationRemedy)
	x.scopes()
	x.verdict(ctx)
}

// row adds the row of a check that a guard made, unless it could not get that far.
func (x *tokenExamination) row(id string, passed func() string, remedy func(*refusal) string) {
	switch refused, why := x.failed[id], x.skipped[id]; {
	case refused != nil:
		x.report.Fail(id, refused.detail(), remedy(refused))
	case why != "":
		x.report.Skip(id, why)
	default:
		x.report.Pass(id, passed())
	}
}

func (x *tokenExamination) formRemedy(*refusal) string {
	switch text := strings.TrimSpace(x.raw); {
	case text == "":
		return "there was no token: look at the response to the token request"
	case text[0] == '{':
		return "this is the whole response of the token endpoint: give only the value of its access_token"
	case strings.ContainsAny(text[:1], "\"'`"):
		return "give the token without quotes"
	case len(x.raw) > 1<<10 && !strings.ContainsAny(x.raw, " \t\r\n,"):
		return "make the token smaller: fewer claims in the claims script, fewer groups in the token; or raise MaxTokenBytes"
	}
	return "give the access_token exactly as it came: one line, without a second token, quotes, spaces and commas"
}

func (x *tokenExamination) shapeRemedy(*refusal) string {
	switch dots := strings.Count(x.raw, "."); {
	case dots == 0 && strings.HasPrefix(x.raw, "eyJ"):
		return "give the whole access_token: a variable, a column or a log may have cut it"
	case dots == 0:
		return fmt.Sprintf("request the token with resource=%s: without a resource Logto's tokens are opaque (for users, send it with the sign-in too)", Shown(x.found.Config.Audience))
	case dots == 4:
		return "have the issuer sign access tokens only, and not encrypt them"
	case dots != 2:
		return "give the access_token exactly as it came: it was changed or cut on its way"
	}
	return "give the access_token exactly as it came. If it is whole, the issuer must sign plain claims, with neither an extension nor a token within the token"
}

func (x *tokenExamination) algorithmRemedy(*refusal) string {
	alg := x.header.text("alg")
	if _, known := jose.Algorithm(alg); known {
		return fmt.Sprintf("if your issuer signs with %s, name it in Algorithms", alg)
	}
	return "have the issuer sign with ES384 or RS256: a signature that is made with a shared secret, or none, is never accepted"
}

func (x *tokenExamination) typeRemedy(*refusal) string {
	types := "only if your issuer gives access tokens this typ too, name it in TokenTypes (--issuer-kind does for Auth0, Entra ID and Keycloak)"
	if typ := jose.MediaType(x.header.text("typ")); typ == "" || typ == "jwt" {
		return "send the access_token of the response, not the id_token; " + types
	}
	return types
}

func (x *tokenExamination) issuerRemedy(refused *refusal) string {
	if refused.attrs["claim"] != "" {
		return "an access token names its issuer: send one, as RFC 9068 §2.2 has it"
	}
	want, got := Shown(x.found.Config.Issuer), x.payload.shown("iss")
	if strings.EqualFold(strings.TrimSuffix(want, "/"), strings.TrimSuffix(got, "/")) || strings.HasSuffix(got, "/oidc") && strings.TrimSuffix(want, "/")+"/oidc" == got {
		return "set Issuer to " + got + ", if that is your server"
	}
	return fmt.Sprintf("request the token from %s; or, if your callers' tokens come from %s, set Issuer to that", want, got)
}

func (x *tokenExamination) audienceRemedy(refused *refusal) string {
	want := Shown(x.found.Config.Audience)
	switch audiences := x.payload.texts("aud"); {
	case want == hint.OrganizationAudience:
		return "request the token with organization_id and without resource"
	case slices.ContainsFunc(audiences, func(a string) bool { return strings.HasPrefix(a, hint.OrganizationAudience) }):
		return "an organization token opens no API resource: request one with resource=" + want + " (and organization_id, if the API works within organizations)"
	case slices.Contains(audiences, x.payload.text("client_id")) || slices.Contains(audiences, x.payload.text("azp")) || x.failed[tokenType] != nil && refused.attrs["claim"] == "":
		return "an ID token is for the application that signed in: send the access_token, requested with resource=" + want
	case refused.attrs["claim"] != "":
		return "request the token with resource=" + want
	}
	return fmt.Sprintf("request the token with resource=%s, byte by byte as the API is registered; or, if the API is registered as %s, set Audience to that", want, x.payload.shown("aud"))
}

func (x *tokenExamination) claimsRemedy(refused *refusal) string {
	switch name := refused.attrs["claim"]; {
	case name == "cnf":
		return "request a token without DPoP or mutual TLS; or take cnf out of the claims script"
	case name == "client_id" || refused.attrs["claims"] != "":
		return "if the issuer names the client in another claim (azp, cid, appid), name that in ClientClaims; --issuer-kind does"
	case refused.attrs["expected"] != "":
		return "RequiredClaims names the values that this API accepts: request a token that has one, or correct the setting"
	}
	return "an access token has this claim by RFC 9068 §2.2: look at the issuer's claims script, or send an access token"
}

func (x *tokenExamination) timesRemedy(refused *refusal) string {
	ahead, leeway := x.found.ClockAhead, leewayOf(x.found.Config)
	switch {
	case ahead.Abs() > leeway && errors.Is(refused.err, m2mauth.ErrExpired):
		return fmt.Sprintf("this clock is %s ahead of the issuer's: run NTP here. If the token is old, get a new one", spell(ahead))
	case ahead.Abs() > leeway && errors.Is(refused.err, m2mauth.ErrNotYetValid):
		return fmt.Sprintf("this clock is %s behind the issuer's: run NTP here", spell(-ahead))
	case errors.Is(refused.err, m2mauth.ErrExpired):
		return "get a new token, before expires_in is over; if this one is new, run NTP here and at the issuer"
	case errors.Is(refused.err, m2mauth.ErrNotYetValid):
		return "run NTP here and at the issuer; or wait, if it was issued for later"
	case refused.attrs["claim"] != "":
		return "the issuer must write it as a number of seconds since 1970: look at its claims script"
	}
	return "shorten the lifetime of the API's tokens at the issuer, or raise MaxLifetime"
}

// keyAndSignature looks the token's key up in the set that was fetched, whether or not
// the guard gets that far.
func (x *tokenExamination) keyAndSignature(ctx context.Context) {
	why := "the token cannot be read"
	signed, signature, err := jose.Split(x.raw)
	header, headerErr := jose.ReadHeader(signed)
	alg, known := jose.Algorithm(header.Algorithm)
	if err == nil && headerErr == nil && !known {
		why = "no key is for this algorithm"
	}
	if err != nil || headerErr != nil || !known {
		x.report.Skip(tokenKey, why)
		x.report.Skip(tokenSignature, why)
		return
	}
	keys := x.found.Keys
	if keys == nil {
		if err = errors.New("see " + checkGuard); x.found.Guard == nil { // not asked yet
			keys, err = keysOf(ctx, x.found.Config)
		}
		if err != nil {
			x.report.Fail(tokenKey, "the issuer's keys are unavailable: "+err.Error(), "the checks of the issuer say why")
			x.report.Skip(tokenSignature, "there is no key to check it with")
			return
		}
	}
	key, _ := keys.Find(header.KeyID, header.HasKeyID, alg)
	if key == nil {
		detail := keylog.WhyNoKey(keys, header.KeyID, header.HasKeyID, alg)
		for _, attr := range keylog.NoKey(keys, header.KeyID, header.HasKeyID, alg) {
			if text := attr.Value.String(); text != "" && attr.Key != "keys_from" { // which the row of their URL says
				detail += fmt.Sprintf("; %s=%s", attr.Key, text)
			}
		}
		x.report.Fail(tokenKey, detail, x.keyRemedy(ctx, keys, header))
		x.report.Skip(tokenSignature, "there is no key to check it with")
		return
	}
	id, _ := key.ID()
	x.report.Pass(tokenKey, fmt.Sprintf("%s, for %s, is one of %d published", cmp.Or(Shown(id), "a key without an ID"), key.Algorithm(), len(keys.Keys)))
	if key.Verify([]byte(signed), signature) != nil {
		x.report.Fail(tokenSignature, "the token's signature is wrong", "give the token exactly as it came: it was changed on its way, or somebody forged it")
		return
	}
	x.report.Pass(tokenSignature, "made by that key")
}

// keyRemedy tells a key that was rotated out from the keys of another server, if the
// issuer itself says where its keys are.
func (x *tokenExamination) keyRemedy(ctx context.Context, keys *keyset.Set, h jose.Header) string {
	c := x.found.Config
	switch {
	case x.failed[tokenIssuer] != nil:
		return "see " + tokenIssuer
	case !h.HasKeyID:
		return "have the issuer write kid into the token's header, or give the one key of this algorithm in JWKS"
	case len(keys.ByID[h.KeyID]) > 0:
		return "have the issuer sign with a key that it publishes for signatures, under an ID of its own"
	case c.JWKSURL != "" || c.JWKS != nil:
		setting := "JWKS"
		if c.JWKSURL != "" {
			setting = "JWKSURL"
		}
		own := c
		own.JWKSURL, own.JWKS = "", nil
		if named, err := keysOf(ctx, own); err == nil && len(named.ByID[h.KeyID]) > 0 {
			return fmt.Sprintf("%s has the keys of another server: the issuer itself names %s, which has this key. Leave %s out, or correct it", setting, Shown(named.Address()), setting)
		}
		return fmt.Sprintf("request a new token. If new ones fail too, %s has the keys of another server: correct it", setting)
	}
	age := ""
	if issued := x.payload.time("iat"); !issued.IsZero() && x.now.After(issued) {
		age = fmt.Sprintf(" (this one was issued %s ago)", spell(x.now.Sub(issued)))
	}
	return fmt.Sprintf("the key was rotated out: request a new token%s. If new ones fail too, they come from another server that calls itself by this issuer's name", age)
}

// keysOf fetches an issuer's keys as a guard with this Config does.
func keysOf(ctx context.Context, c m2mauth.Config) (*keyset.Set, error) {
	rsa := jose.RSAWithoutAlg(c.Algorithms)
	if c.JWKS != nil {
		return keyset.Parse(c.JWKS, rsa, nil)
	}
	timeout := timeoutOf(c)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	source := keyset.Source{Issuer: c.Issuer, URL: c.JWKSURL, RSAAlgorithm: rsa, Client: keyset.NewClient(c.HTTPClient, timeout), Timeout: timeout}
	return source.Fetch(ctx, nil, false)
}

// who says whom the token was issued to.
func (x *tokenExamination) who() string {
	c := x.claims
	text := "of the application " + Shown(c.ClientID())
	if !c.IsMachine() {
		text = fmt.Sprintf("of the user %s, through the application %s", Shown(c.Subject()), Shown(c.ClientID()))
	}
	if actor, acts := c.Actor(); acts {
		text += ", acted with by " + Shown(actor.Subject)
	}
	return text
}

func (x *tokenExamination) organization() string {
	id := x.claims.OrganizationID()
	switch {
	case id == "":
		return "not limited to an organization"
	case x.demand.Organization == "":
		return "limited to the organization " + Shown(id) + ", which InsecureAllowOrganizationTokens lets pass"
	}
	return "limited to the organization " + Shown(id) + ", as the route is"
}

func (x *tokenExamination) organizationRemedy(*refusal) string {
	id, want := Shown(x.claims.OrganizationID()), x.demand.Organization
	switch {
	case id == "":
		return "request the token with organization_id=" + Shown(want)
	case want == "":
		return fmt.Sprintf("request the token without organization_id; or, if the route belongs to an organization, let its rule name it (Organization, OrganizationPath, OrganizationHeader), and check with --organization %s", id)
	}
	return fmt.Sprintf("request the token with organization_id=%s: this one is for %s", Shown(want), id)
}

// scopes compares the token's scopes with those that the route requires.
func (x *tokenExamination) scopes() {
	if x.skipped[tokenScopes] != "" {
		x.report.Skip(tokenScopes, x.skipped[tokenScopes])
		return
	}
	granted, required := "none", strings.Join(x.demand.Scopes, " ")
	if s := x.claims.Scopes(); s.Len() > 0 {
		granted = Shown(s.String())
	}
	var lacking []string
	for _, s := range x.demand.Scopes {
		if !x.claims.Scopes().Has(s) {
			lacking = append(lacking, s)
		}
	}
	switch {
	case x.failed[tokenScopes] != nil:
		detail := fmt.Sprintf("%s; required: %s; granted: %s; lacking: %s", x.failed[tokenScopes].err.Description, Shown(required), granted, Shown(strings.Join(lacking, " ")))
		x.report.Fail(tokenScopes, detail, x.scopesRemedy(lacking))
	case required != "":
		x.report.Pass(tokenScopes, fmt.Sprintf("required: %s; granted: %s", Shown(required), granted))
	case x.claims.Scopes().Len() == 0:
		x.report.Warn(tokenScopes, "the token has no scopes: every application of the tenant can get such a token, and it opens only routes that require none",
			"give --scope with what the route requires, to see whether the token opens it")
	default:
		x.report.Pass(tokenScopes, "granted: "+granted+"; nothing was required by --scope")
	}
}

func (x *tokenExamination) scopesRemedy(lacking []string) string {
	names := Shown(strings.Join(lacking, " "))
	switch g := x.grant; {
	case g == nil:
		return fmt.Sprintf("send scope=%s in the token request, and give the application a role that has the permission; the next token has it", names)
	case g.says(lacking):
		return "the endpoint says that it granted them, and the guard does not find them: ScopeClaims must name the claim that holds scopes, and ScopePrefix what stands before them; --issuer-kind does both"
	case x.claims.Scopes().Len() == 0:
		return fmt.Sprintf("the application has no role that grants %s for %s: give it one (Logto: a machine-to-machine role with that permission). If it has one, the permission is spelled otherwise: names are compared exactly", names, Shown(g.resource))
	}
	return fmt.Sprintf("%s was asked for and not granted: add it to a role of the application. If it is there, it is spelled otherwise: names are compared exactly", names)
}

// verdict asks a guard with the API's settings.
func (x *tokenExamination) verdict(ctx context.Context) {
	config := x.found.Config
	if x.found.KeySet != nil { // the rows are about these, whatever the issuer sends to who asks again
		config.JWKS, config.JWKSURL = x.found.KeySet, ""
	}
	refused, claims := ask(ctx, config, x.raw, x.demand.rule())
	if refused == nil {
		x.report.Pass(tokenVerdict, fmt.Sprintf("the guard accepts the token on a route that requires %s; it expires %s", x.demand.words(), until(claims.ExpiresAt(), x.now)))
		return
	}
	var failed []string
	for _, c := range x.report.Checks {
		if c.Status == Fail && strings.HasPrefix(c.ID, "token.") {
			failed = append(failed, c.ID)
		}
	}
	status := refused.err.Status
	x.report.Fail(tokenVerdict, fmt.Sprintf("the guard refuses the token with %d: %s", status, refused.err.Description), "see "+strings.Join(failed, ", "))
}

func (d Demand) words() string {
	text := "no scope"
	if len(d.Scopes) > 0 {
		text = Shown(strings.Join(d.Scopes, " "))
	}
	if d.Organization != "" {
		text += " in the organization " + Shown(d.Organization)
	}
	return text
}
