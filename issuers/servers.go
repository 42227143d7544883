package issuers

import (
	"fmt"
	"strings"

	"github.com/m2mauth/m2mauth"
)

// Keycloak is for a realm, by its address, such as
// https://login.shop.example/realms/shop, and the audience that a mapper of the type
// Audience writes. Without such a mapper a token has no aud of yours, and gets 401.
// Scopes are those of scope; for roles set Config.ScopeClaims to
// /realm_access/roles, or to /resource_access/CLIENT/roles for a client's.
func Keycloak(realmURL, audience string) (m2mauth.Config, error) {
	const example = "https://login.shop.example/realms/shop"
	a := arguments{function: "Keycloak"}
	if u := a.url("realmURL", realmURL, example); u.Host != "" && (!strings.Contains(u.Path, "/realms/") || strings.HasSuffix(u.Path, "/")) {
		a.add("realmURL", "is not a realm's: give one such as %s, without a slash at its end", example)
	}
	a.text("audience", audience, audienceIs)
	return a.config(m2mauth.Config{
		Issuer:       realmURL,
		Audience:     audience,
		TokenTypes:   []string{"JWT", "at+jwt"},
		ClientClaims: []string{"azp"},
		// The payload has a typ too, which is ID, Refresh or Logout in other tokens.
		RequiredClaims: map[string][]string{"typ": {"Bearer"}},
		IsMachine: func(c m2mauth.Claims) bool {
			var own struct {
				Service string `json:"client_id"` // of service accounts alone
			}
			return c.Decode(&own) == nil && own.Service == c.ClientID()
		},
	})
}

// Zitadel is for an instance, such as https://shop-a1b2c3.zitadel.cloud, and a
// project, by its ID, which is the audience. Its roles are the scopes, but only
// where they are assigned in the organization with the given ID: organizations that
// the project is granted to assign its roles by themselves.
//
// The client is the account, by its user ID, since two organizations may have a
// service account of one name. The accounts given are machines, and all others are
// users. Any account of the instance gets a token for the project, so each route
// must require a role.
func Zitadel(issuer, projectID, organizationID string, serviceAccountIDs ...string) (m2mauth.Config, error) {
	a := arguments{function: "Zitadel"}
	a.url("issuer", issuer, "https://shop-a1b2c3.zitadel.cloud")
	a.form("projectID", projectID, digits, "the project's resource ID, digits")
	a.form("organizationID", organizationID, digits, "the ID of the organization whose roles count, digits")
	machines := make(map[string]bool, len(serviceAccountIDs))
	for i, id := range serviceAccountIDs {
		a.form(fmt.Sprintf("serviceAccountIDs[%d]", i), id, digits, "the user IDs of service accounts, digits, not their names")
		machines[id] = true
	}
	return a.config(m2mauth.Config{
		Issuer:            issuer,
		Audience:          projectID,
		Algorithms:        []string{"RS256"},
		TokenTypes:        []string{"JWT"},
		ClientClaims:      []string{"sub"},
		ScopeClaims:       []string{"urn:zitadel:iam:org:project:" + projectID + ":roles"},
		ScopeOrganization: organizationID,
		// An ID token has the project in aud too, and perhaps roles, but no jti.
		RequiredClaims: map[string][]string{"jti": {m2mauth.AnyValue}},
		IsMachine:      func(c m2mauth.Claims) bool { return machines[c.Subject()] },
	})
}

// Authentik is for an OAuth2 provider of authentik, by its issuer, such as
// https://login.shop.example/application/o/shop/, and its client ID, which is the
// audience of all its tokens. Callers are accounts, each with a token of this
// provider, and Claims.AppID is the account's sub. Scopes are the application's
// entitlements.
//
// A token is a machine's if the claim user_type says service_account or
// internal_service_account. A scope mapping of yours must write it.
func Authentik(issuer, clientID string) (m2mauth.Config, error) {
	const example = "https://login.shop.example/application/o/shop/"
	a := arguments{function: "Authentik"}
	if u := a.url("issuer", issuer, example); u.Host != "" && !strings.HasSuffix(u.Path, "/") {
		a.add("issuer", "does not end in a slash: give one such as %s", example)
	}
	a.text("clientID", clientID, "the provider's client ID")
	return a.config(m2mauth.Config{
		Issuer:       issuer,
		Audience:     clientID,
		TokenTypes:   []string{"JWT"},
		ClientClaims: []string{"sub"},
		ScopeClaims:  []string{"entitlements"},
		// An ID token has the same aud, but no azp.
		RequiredClaims: map[string][]string{"azp": {clientID}},
		IsMachine: func(c m2mauth.Claims) bool {
			var own struct {
				Type string `json:"user_type"`
			}
			return c.Decode(&own) == nil && (own.Type == "service_account" || own.Type == "internal_service_account")
		},
	})
}

// Hydra is for an Ory Hydra, or a project of Ory Network, with access tokens in the
// form of JWTs. Scopes are those of scp, an array.
func Hydra(issuer, audience string) (m2mauth.Config, error) {
	a := arguments{function: "Hydra"}
	a.url("issuer", issuer, "https://login.shop.example/")
	a.text("audience", audience, audienceIs)
	return a.config(m2mauth.Config{
		Issuer:      issuer,
		Audience:    audience,
		TokenTypes:  []string{"JWT"},
		ScopeClaims: []string{"scp"},
	})
}

// Duende is for a Duende IdentityServer and an API resource, by its name. Machines'
// tokens have no sub.
func Duende(issuer, audience string) (m2mauth.Config, error) {
	a := arguments{function: "Duende"}
	a.url("issuer", issuer, "https://login.shop.example")
	a.text("audience", audience, audienceIs)
	if issuer != "" && audience == strings.TrimRight(issuer, "/")+"/resources" {
		a.add("audience", "is in every token of this server (EmitStaticAudienceClaim), so it proves nothing: give the name of an API resource")
	}
	return a.config(m2mauth.Config{
		Issuer:              issuer,
		Audience:            audience,
		AllowMissingSubject: true,
	})
}

// OpenIddict is for a server that is built with OpenIddict, with access tokens that
// are not encrypted. Issuer often ends in a slash.
func OpenIddict(issuer, audience string) (m2mauth.Config, error) {
	a := arguments{function: "OpenIddict"}
	a.url("issuer", issuer, "https://login.shop.example/")
	a.text("audience", audience, audienceIs)
	return a.config(m2mauth.Config{
		Issuer:   issuer,
		Audience: audience,
	})
}

// SpringAuthorizationServer is for a server that is built with Spring Authorization
// Server. Of itself that writes the client into aud, and neither a typ nor the
// client: an OAuth2TokenCustomizer of yours must write into access tokens the typ
// at+jwt, the API as aud, client_id, and the grant type as grant_type. A token is a
// machine's if grant_type is client_credentials, since a user may have the name of
// a client.
func SpringAuthorizationServer(issuer, audience string) (m2mauth.Config, error) {
	a := arguments{function: "SpringAuthorizationServer"}
	a.url("issuer", issuer, "https://login.shop.example")
	a.text("audience", audience, audienceIs)
	return a.config(m2mauth.Config{
		Issuer:   issuer,
		Audience: audience,
		IsMachine: func(c m2mauth.Claims) bool {
			var own struct {
				Grant string `json:"grant_type"`
			}
			return c.Subject() == c.ClientID() && c.Decode(&own) == nil && own.Grant == "client_credentials"
		},
	})
}
