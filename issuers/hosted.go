package issuers

import (
	"regexp"
	"strings"

	"github.com/m2mauth/m2mauth"
)

var tenantName = regexp.MustCompile(`^[0-9a-z]([0-9a-z-]*[0-9a-z])?$`)

// LogtoCloud is for a tenant of Logto Cloud and an API resource, by its identifier.
// The tenant's ID is the first part of its domain, TENANT.logto.app. For a custom
// domain, whose tokens have another iss, see [Logto].
func LogtoCloud(tenantID, audience string) (m2mauth.Config, error) {
	a := arguments{function: "LogtoCloud"}
	a.form("tenantID", tenantID, tenantName, "the first part of TENANT.logto.app, without https:// and domain")
	a.text("audience", audience, audienceIs)
	return a.config(m2mauth.Config{
		Issuer:   "https://" + tenantID + ".logto.app/oidc",
		Audience: audience,
	})
}

// Logto is for a Logto server of your own, or a custom domain of Logto Cloud, and
// an API resource. The endpoint is what the server's ENDPOINT says, such as
// https://login.shop.example: without /oidc, which is appended.
func Logto(endpoint, audience string) (m2mauth.Config, error) {
	a := arguments{function: "Logto"}
	a.text("audience", audience, audienceIs)
	return a.config(m2mauth.Config{
		Issuer:   a.logto(endpoint),
		Audience: audience,
	})
}

// LogtoOrganizations is for Logto's organization tokens, whose scopes are those of
// the organization template. Every rule must then name the organization. For an API
// resource that is used within organizations, see [Logto].
func LogtoOrganizations(endpoint string) (m2mauth.Config, error) {
	a := arguments{function: "LogtoOrganizations"}
	return a.config(m2mauth.Config{
		Issuer:   a.logto(endpoint),
		Audience: "urn:logto:organization:",
	})
}

func (a *arguments) logto(endpoint string) string {
	u := a.url("endpoint", endpoint, "https://login.shop.example")
	if strings.Trim(u.Path, "/") != "" {
		a.add("endpoint", "has a path: give it without one, such as https://login.shop.example; /oidc is appended")
	}
	return strings.TrimRight(endpoint, "/") + "/oidc"
}

var domain = regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z.-]*[0-9A-Za-z])?\.[0-9A-Za-z-]*[0-9A-Za-z]$`)

// Auth0 is for a tenant or a custom domain of Auth0, such as shop.eu.auth0.com, and
// an API, by its identifier. It reads both token profiles, Auth0 and RFC 9068.
// Scopes are those of scope.
//
// A token that is limited to an organization (org_id) gets 403 unless the rule
// names the organization: see [m2mauth.Organization].
func Auth0(tenantDomain, audience string) (m2mauth.Config, error) {
	a := arguments{function: "Auth0"}
	a.form("tenantDomain", tenantDomain, domain, "a domain without https:// and slash, such as shop.eu.auth0.com")
	a.text("audience", audience, audienceIs)
	return a.config(m2mauth.Config{
		Issuer:             "https://" + tenantDomain + "/",
		Audience:           audience,
		Algorithms:         []string{"RS256"},
		TokenTypes:         []string{"JWT", "at+jwt"},
		ClientClaims:       []string{"azp", "client_id"},
		OrganizationClaims: []string{"org_id"},
		IsMachine: func(c m2mauth.Claims) bool {
			return c.Subject() == c.ClientID()+"@clients"
		},
	})
}

// EntraID is for an API that is registered in a tenant of Microsoft Entra ID, by
// the IDs of both, with access tokens of version 2.0. Scopes are application
// permissions, which are in roles; what users delegate is in scp.
//
// Entra ID says that a token is a machine's in the claim idtyp, which you must add to
// the API's access tokens. Without it no token is a machine's.
func EntraID(tenantID, applicationID string) (m2mauth.Config, error) {
	a := arguments{function: "EntraID"}
	tenantID, applicationID = strings.ToLower(tenantID), strings.ToLower(applicationID)
	a.entraTenant(tenantID)
	a.form("applicationID", applicationID, guid, "the API's application (client) ID, a GUID, which is aud in tokens of version 2.0")
	return a.config(m2mauth.Config{
		Issuer:         "https://login.microsoftonline.com/" + tenantID + "/v2.0",
		Audience:       applicationID,
		Algorithms:     []string{"RS256"},
		TokenTypes:     []string{"JWT"},
		ClientClaims:   []string{"azp"},
		ScopeClaims:    []string{"roles"},
		RequiredClaims: map[string][]string{"ver": {"2.0"}, "tid": {tenantID}},
		IsMachine:      entraMachine,
	})
}

// EntraIDv1 is [EntraID] for access tokens of version 1.0, the default of an API
// whose manifest leaves requestedAccessTokenVersion out. Their aud is the API's
// application ID URI, such as api://6e74172b-be56-4843-9ff4-e66a39bb12e3, or its
// application ID, as the caller asked for it.
func EntraIDv1(tenantID, audience string) (m2mauth.Config, error) {
	a := arguments{function: "EntraIDv1"}
	tenantID = strings.ToLower(tenantID)
	a.entraTenant(tenantID)
	a.text("audience", audience, "the API's application ID URI, such as api://6e74172b-be56-4843-9ff4-e66a39bb12e3")
	return a.config(m2mauth.Config{
		Issuer:         "https://sts.windows.net/" + tenantID + "/",
		JWKSURL:        "https://login.microsoftonline.com/" + tenantID + "/discovery/keys",
		Audience:       audience,
		Algorithms:     []string{"RS256"},
		TokenTypes:     []string{"JWT"},
		ClientClaims:   []string{"appid"},
		ScopeClaims:    []string{"roles"},
		RequiredClaims: map[string][]string{"ver": {"1.0"}, "tid": {tenantID}},
		IsMachine:      entraMachine,
	})
}

func (a *arguments) entraTenant(id string) {
	a.form("tenantID", id, guid, "the directory (tenant) ID, a GUID, which iss holds, not a domain, common or organizations")
}

func entraMachine(c m2mauth.Claims) bool {
	var own struct {
		Type string `json:"idtyp"`
	}
	return c.Decode(&own) == nil && own.Type == "app"
}

// Okta is for a custom authorization server of Okta, such as
// https://shop.okta.com/oauth2/default, and its audience. What the organization's
// own server signs is for Okta alone.
func Okta(issuer, audience string) (m2mauth.Config, error) {
	const example = "https://shop.okta.com/oauth2/default"
	a := arguments{function: "Okta"}
	if u := a.url("issuer", issuer, example); u.Host != "" && !strings.HasPrefix(u.Path, "/oauth2/") {
		a.add("issuer", "is not that of a custom authorization server: give one such as %s, since an API cannot verify what the organization's own server signs", example)
	}
	a.text("audience", audience, audienceIs)
	return a.config(m2mauth.Config{
		Issuer:       issuer,
		Audience:     audience,
		Algorithms:   []string{"RS256"},
		TokenTypes:   []string{""},
		ClientClaims: []string{"cid"},
		ScopeClaims:  []string{"scp"},
		// sub is a user's login, which may be spelled as a client's ID is; uid is
		// Okta's own ID of a user, and machines have none.
		IsMachine: func(c m2mauth.Claims) bool {
			var own struct {
				User any `json:"uid"`
			}
			return c.Subject() == c.ClientID() && c.Decode(&own) == nil && own.User == nil
		},
	})
}

var userPool = regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)+_[0-9A-Za-z]+$`)

// Cognito is for a user pool of Amazon Cognito, by its ID, a resource server, by its
// identifier, and the IDs of the app clients that may call the API without naming it. An
// access token of Cognito names no audience unless a user's client asked for a resource, so
// it is its scopes that say which API it is for: those of other resource servers are
// dropped, and the rest are read without the resource server's identifier. A token whose
// aud is the resource server is accepted whichever client of the pool asked for it: to keep
// to the list there too, add client_id to Config.RequiredClaims.
func Cognito(userPoolID, resourceServer string, clients ...string) (m2mauth.Config, error) {
	a := arguments{function: "Cognito"}
	a.form("userPoolID", userPoolID, userPool, "the user pool's ID, such as eu-west-1_AbCdEf123")
	a.text("resourceServer", resourceServer, "the resource server's identifier, such as https://shopping.api")
	a.forms("clients", clients, anyWord, "the IDs of the app clients that may call the API",
		"a machine's token has no aud, and is accepted for its client alone")
	region, _, _ := strings.Cut(userPoolID, "_")
	host := "cognito-idp." + region + ".amazonaws.com"
	if strings.HasPrefix(region, "cn-") {
		host += ".cn"
	}
	return a.config(m2mauth.Config{
		Issuer:                 "https://" + host + "/" + userPoolID,
		Audience:               resourceServer,
		Algorithms:             []string{"RS256"},
		TokenTypes:             []string{""},
		ScopePrefix:            resourceServer + "/",
		ClientsWithoutAudience: append([]string(nil), clients...),
		RequiredClaims:         map[string][]string{"token_use": {"access"}},
	})
}

// PingOne is for an environment of PingOne, by its issuer, such as
// https://auth.pingone.eu/ENVIRONMENT/as, and a custom resource, by its audience.
// Machines' tokens have no sub.
func PingOne(issuer, audience string) (m2mauth.Config, error) {
	const example = "https://auth.pingone.eu/ENVIRONMENT/as"
	a := arguments{function: "PingOne"}
	if u := a.url("issuer", issuer, example); u.Host != "" && !strings.HasSuffix(u.Path, "/as") {
		a.add("issuer", "does not end in /as: give the environment's issuer, such as %s", example)
	}
	a.text("audience", audience, audienceIs)
	return a.config(m2mauth.Config{
		Issuer:              issuer,
		Audience:            audience,
		Algorithms:          []string{"RS256"},
		TokenTypes:          []string{"at+jwt", ""}, // typ is optional
		AllowMissingSubject: true,
	})
}
