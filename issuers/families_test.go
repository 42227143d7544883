package issuers_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/issuers"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// family is an issuer with the tokens that it signs, in the form that its
// documentation or its source code gives them. None of them was recorded.
type family struct {
	name    string
	setting string // as it stands in a program
	config  func() (m2mauth.Config, error)
	header  string // of access tokens; a token may have another
	tokens  []sample
}

type sample struct {
	shape          string // one of shapes, and perhaps more after a comma
	header, claims string
	rule           m2mauth.Rule
	verdict        error // nil: accepted
	client         string
	machine        bool
}

const (
	machine     = "machine"
	user        = "user"
	idToken     = "ID token"
	otherTenant = "another tenant's"
	attack      = "attack"
)

// readers are the routes of an API whose callers have scopes, and listed those of
// one that names its callers.
var (
	readers  = m2mauth.AllOf(m2mauth.AllScopes("read:products"), m2mauth.MachineToken())
	people   = m2mauth.AllOf(m2mauth.AllScopes("read:products"), m2mauth.UserToken())
	anybody  = m2mauth.AnyToken()
	jwtTyped = `{"alg":"RS256","typ":"JWT","kid":"KID"}`
	atJWT    = `{"alg":"RS256","typ":"at+jwt","kid":"KID"}`
	untyped  = `{"kid":"KID","alg":"RS256"}`
)

const (
	directory = "8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21"
	entraAPI  = "6e74172b-be56-4843-9ff4-e66a39bb12e3"
	accountID = "2c8e5a11-7d0b-4a0e-9a51-3f4f1f0f7a10"
	otherUID  = "91b7f3c2-1111-4222-8333-944445555666"
)

var families = []family{
	{
		name:    "Logto Cloud",
		setting: `LogtoCloud("shop1a", "https://shopping.api")`,
		config:  func() (m2mauth.Config, error) { return issuers.LogtoCloud("shop1a", "https://shopping.api") },
		header:  `{"alg":"ES384","typ":"at+jwt","kid":"KID"}`,
		tokens: []sample{
			{shape: machine, claims: `{"jti":"j1","sub":"app1","iat":IAT,"exp":EXP,"scope":"read:products","client_id":"app1","iss":"https://shop1a.logto.app/oidc","aud":"https://shopping.api"}`, rule: readers, client: "app1", machine: true},
			{shape: user, claims: `{"jti":"j2","sub":"user1","iat":IAT,"exp":EXP,"scope":"read:products","client_id":"web1","iss":"https://shop1a.logto.app/oidc","aud":"https://shopping.api"}`, rule: people, client: "web1"},
			{shape: idToken, header: `{"alg":"ES384","kid":"KID"}`, claims: `{"sub":"user1","at_hash":"x","aud":"web1","exp":EXP,"iat":IAT,"iss":"https://shop1a.logto.app/oidc"}`, rule: anybody, verdict: m2mauth.ErrType},
			{shape: otherTenant, claims: `{"jti":"j3","sub":"app1","iat":IAT,"exp":EXP,"scope":"read:products","client_id":"app1","iss":"https://other2.logto.app/oidc","aud":"https://shopping.api"}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", the Management API's token", claims: `{"jti":"j4","sub":"app1","iat":IAT,"exp":EXP,"scope":"all","client_id":"app1","iss":"https://shop1a.logto.app/oidc","aud":"https://shop1a.logto.app/api"}`, rule: anybody, verdict: m2mauth.ErrAudience},
		},
	},
	{
		name:    "Logto, self-hosted",
		setting: `Logto("https://login.shop.example", "https://shopping.api")`,
		config: func() (m2mauth.Config, error) {
			return issuers.Logto("https://login.shop.example/", "https://shopping.api")
		},
		header: `{"alg":"ES384","typ":"at+jwt","kid":"KID"}`,
		tokens: []sample{
			{shape: machine, claims: `{"jti":"j1","sub":"app1","iat":IAT,"exp":EXP,"scope":"read:products","client_id":"app1","iss":"https://login.shop.example/oidc","aud":"https://shopping.api"}`, rule: readers, client: "app1", machine: true},
			{shape: user, claims: `{"jti":"j2","sub":"user1","iat":IAT,"exp":EXP,"scope":"read:products","client_id":"web1","iss":"https://login.shop.example/oidc","aud":"https://shopping.api"}`, rule: people, client: "web1"},
			{shape: idToken, header: `{"alg":"ES384","kid":"KID"}`, claims: `{"sub":"user1","at_hash":"x","aud":"web1","exp":EXP,"iat":IAT,"iss":"https://login.shop.example/oidc"}`, rule: anybody, verdict: m2mauth.ErrType},
			{shape: otherTenant + ", the admin tenant's", claims: `{"jti":"j3","sub":"app1","iat":IAT,"exp":EXP,"scope":"read:products","client_id":"app1","iss":"https://admin.shop.example/oidc","aud":"https://shopping.api"}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", a token for one organization on a route that names none", claims: `{"organization_id":"org1","jti":"j4","sub":"app1","iat":IAT,"exp":EXP,"scope":"read:products","client_id":"app1","iss":"https://login.shop.example/oidc","aud":"https://shopping.api"}`, rule: readers, verdict: m2mauth.ErrForbidden},
		},
	},
	{
		name:    "Logto, organization tokens",
		setting: `LogtoOrganizations("https://login.shop.example")`,
		config:  func() (m2mauth.Config, error) { return issuers.LogtoOrganizations("https://login.shop.example") },
		header:  `{"alg":"ES384","typ":"at+jwt","kid":"KID"}`,
		tokens: []sample{
			{shape: machine, claims: `{"jti":"j1","sub":"app1","iat":IAT,"exp":EXP,"scope":"read:products","client_id":"app1","iss":"https://login.shop.example/oidc","aud":"urn:logto:organization:acme"}`, rule: m2mauth.AllOf(readers, acme()), client: "app1", machine: true},
			{shape: user, claims: `{"jti":"j2","sub":"user1","iat":IAT,"exp":EXP,"scope":"read:products","client_id":"web1","iss":"https://login.shop.example/oidc","aud":"urn:logto:organization:acme"}`, rule: m2mauth.AllOf(people, acme()), client: "web1"},
			{shape: idToken, header: `{"alg":"ES384","kid":"KID"}`, claims: `{"sub":"user1","at_hash":"x","aud":"web1","exp":EXP,"iat":IAT,"iss":"https://login.shop.example/oidc"}`, rule: acme(), verdict: m2mauth.ErrType},
			{shape: otherTenant, claims: `{"jti":"j3","sub":"app1","iat":IAT,"exp":EXP,"scope":"read:products","client_id":"app1","iss":"https://admin.shop.example/oidc","aud":"urn:logto:organization:acme"}`, rule: m2mauth.AllOf(readers, acme()), verdict: m2mauth.ErrIssuer},
			{shape: attack + ", another organization's token", claims: `{"jti":"j4","sub":"app1","iat":IAT,"exp":EXP,"scope":"read:products","client_id":"app1","iss":"https://login.shop.example/oidc","aud":"urn:logto:organization:other"}`, rule: m2mauth.AllOf(readers, acme()), verdict: m2mauth.ErrForbidden},
		},
	},
	{
		name:    "Auth0",
		setting: `Auth0("shop.eu.auth0.com", "https://shopping.api")`,
		config:  func() (m2mauth.Config, error) { return issuers.Auth0("shop.eu.auth0.com", "https://shopping.api") },
		header:  jwtTyped,
		tokens: []sample{
			{shape: machine, claims: `{"iss":"https://shop.eu.auth0.com/","sub":"nY7rC2mQv4Lx@clients","aud":"https://shopping.api","iat":IAT,"exp":EXP,"scope":"read:products","gty":"client-credentials","azp":"nY7rC2mQv4Lx"}`, rule: readers, client: "nY7rC2mQv4Lx", machine: true},
			{shape: machine + ", by the profile RFC 9068", header: atJWT, claims: `{"iss":"https://shop.eu.auth0.com/","sub":"nY7rC2mQv4Lx@clients","aud":"https://shopping.api","iat":IAT,"exp":EXP,"scope":"read:products","jti":"q8Zt1","client_id":"nY7rC2mQv4Lx"}`, rule: readers, client: "nY7rC2mQv4Lx", machine: true},
			{shape: machine + ", of an organization that the rule names", claims: `{"iss":"https://shop.eu.auth0.com/","sub":"nY7rC2mQv4Lx@clients","aud":"https://shopping.api","iat":IAT,"exp":EXP,"scope":"read:products","gty":"client-credentials","azp":"nY7rC2mQv4Lx","org_id":"acme"}`, rule: m2mauth.AllOf(readers, acme()), client: "nY7rC2mQv4Lx", machine: true},
			{shape: user, claims: `{"iss":"https://shop.eu.auth0.com/","sub":"auth0|65f0c2","aud":["https://shopping.api","https://shop.eu.auth0.com/userinfo"],"iat":IAT,"exp":EXP,"scope":"openid profile read:products","azp":"kP3wB9"}`, rule: people, client: "kP3wB9"},
			{shape: idToken, claims: `{"nickname":"ada","name":"Ada","iss":"https://shop.eu.auth0.com/","aud":"kP3wB9","sub":"auth0|65f0c2","iat":IAT,"exp":EXP,"sid":"s1","nonce":"n"}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: otherTenant, claims: `{"iss":"https://other.eu.auth0.com/","sub":"nY7rC2mQv4Lx@clients","aud":"https://shopping.api","iat":IAT,"exp":EXP,"scope":"read:products","azp":"nY7rC2mQv4Lx"}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", an organization's token on a route that names none", claims: `{"iss":"https://shop.eu.auth0.com/","sub":"nY7rC2mQv4Lx@clients","aud":"https://shopping.api","iat":IAT,"exp":EXP,"scope":"read:products","azp":"nY7rC2mQv4Lx","org_id":"acme"}`, rule: readers, verdict: m2mauth.ErrForbidden},
			{shape: attack + ", another organization's token", claims: `{"iss":"https://shop.eu.auth0.com/","sub":"nY7rC2mQv4Lx@clients","aud":"https://shopping.api","iat":IAT,"exp":EXP,"scope":"read:products","azp":"nY7rC2mQv4Lx","org_id":"other"}`, rule: m2mauth.AllOf(readers, acme()), verdict: m2mauth.ErrForbidden},
		},
	},
	{
		name:    "Microsoft Entra ID, version 2.0",
		setting: `EntraID("8b4f9c1e-…", "6e74172b-…")`,
		config:  func() (m2mauth.Config, error) { return issuers.EntraID(strings.ToUpper(directory), entraAPI) },
		header:  jwtTyped,
		tokens: []sample{
			{shape: machine, claims: `{"aud":"` + entraAPI + `","iss":"https://login.microsoftonline.com/` + directory + `/v2.0","iat":IAT,"nbf":IAT,"exp":EXP,"aio":"E2NgYA==","azp":"00001111-aaaa-2222-bbbb-3333cccc4444","azpacr":"1","idtyp":"app","oid":"d5a1e7f0-6b3c-4e0f-8a92-1c4b7e6f9d03","roles":["read:products"],"sub":"d5a1e7f0-6b3c-4e0f-8a92-1c4b7e6f9d03","tid":"` + directory + `","ver":"2.0"}`, rule: readers, client: "00001111-aaaa-2222-bbbb-3333cccc4444", machine: true},
			{shape: user + ", with an app role of the API", claims: `{"aud":"` + entraAPI + `","iss":"https://login.microsoftonline.com/` + directory + `/v2.0","iat":IAT,"nbf":IAT,"exp":EXP,"azp":"00001111-aaaa-2222-bbbb-3333cccc4444","azpacr":"0","name":"Ada","oid":"0d1c2b3a-0000-1111-2222-333344445555","roles":["read:products"],"scp":"access_as_user","sub":"hKk3aD0pZ","tid":"` + directory + `","ver":"2.0"}`, rule: people, client: "00001111-aaaa-2222-bbbb-3333cccc4444"},
			{shape: idToken, claims: `{"aud":"00001111-aaaa-2222-bbbb-3333cccc4444","iss":"https://login.microsoftonline.com/` + directory + `/v2.0","iat":IAT,"nbf":IAT,"exp":EXP,"name":"Ada","roles":["read:products"],"sub":"hKk3aD0pZ","tid":"` + directory + `","ver":"2.0"}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: idToken + ", of a client that is the API itself", claims: `{"aud":"` + entraAPI + `","iss":"https://login.microsoftonline.com/` + directory + `/v2.0","iat":IAT,"nbf":IAT,"exp":EXP,"name":"Ada","roles":["read:products"],"sub":"hKk3aD0pZ","tid":"` + directory + `","ver":"2.0"}`, rule: anybody, verdict: m2mauth.ErrClaims},
			{shape: otherTenant, claims: `{"aud":"` + entraAPI + `","iss":"https://login.microsoftonline.com/` + otherUID + `/v2.0","iat":IAT,"nbf":IAT,"exp":EXP,"azp":"00001111-aaaa-2222-bbbb-3333cccc4444","azpacr":"1","idtyp":"app","roles":["read:products"],"sub":"d5a1e7f0-6b3c-4e0f-8a92-1c4b7e6f9d03","tid":"` + otherUID + `","ver":"2.0"}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", an app of the tenant without a role of the API", claims: `{"aud":"` + entraAPI + `","iss":"https://login.microsoftonline.com/` + directory + `/v2.0","iat":IAT,"nbf":IAT,"exp":EXP,"azp":"99999999-aaaa-2222-bbbb-3333cccc4444","azpacr":"1","idtyp":"app","sub":"d5a1e7f0-6b3c-4e0f-8a92-1c4b7e6f9d03","tid":"` + directory + `","ver":"2.0"}`, rule: readers, verdict: m2mauth.ErrScope},
			{shape: attack + ", a user with an app role where only machines may go", claims: `{"aud":"` + entraAPI + `","iss":"https://login.microsoftonline.com/` + directory + `/v2.0","iat":IAT,"nbf":IAT,"exp":EXP,"azp":"00001111-aaaa-2222-bbbb-3333cccc4444","azpacr":"1","roles":["read:products"],"scp":"access_as_user","sub":"hKk3aD0pZ","tid":"` + directory + `","ver":"2.0"}`, rule: readers, verdict: m2mauth.ErrForbidden},
			{shape: attack + ", iss of this tenant and tid of another", claims: `{"aud":"` + entraAPI + `","iss":"https://login.microsoftonline.com/` + directory + `/v2.0","iat":IAT,"nbf":IAT,"exp":EXP,"azp":"00001111-aaaa-2222-bbbb-3333cccc4444","idtyp":"app","roles":["read:products"],"sub":"d5a1e7f0","tid":"` + otherUID + `","ver":"2.0"}`, rule: readers, verdict: m2mauth.ErrClaims},
		},
	},
	{
		name:    "Microsoft Entra ID, version 1.0",
		setting: `EntraIDv1("8b4f9c1e-…", "api://6e74172b-…")`,
		config:  func() (m2mauth.Config, error) { return issuers.EntraIDv1(directory, "api://"+entraAPI) },
		header:  `{"typ":"JWT","alg":"RS256","x5t":"KID","kid":"KID"}`,
		tokens: []sample{
			{shape: machine, claims: `{"aud":"api://` + entraAPI + `","iss":"https://sts.windows.net/` + directory + `/","iat":IAT,"nbf":IAT,"exp":EXP,"appid":"00001111-aaaa-2222-bbbb-3333cccc4444","appidacr":"1","idtyp":"app","roles":["read:products"],"sub":"d5a1e7f0-6b3c-4e0f-8a92-1c4b7e6f9d03","tid":"` + directory + `","ver":"1.0"}`, rule: readers, client: "00001111-aaaa-2222-bbbb-3333cccc4444", machine: true},
			{shape: user, claims: `{"aud":"api://` + entraAPI + `","iss":"https://sts.windows.net/` + directory + `/","iat":IAT,"nbf":IAT,"exp":EXP,"appid":"00001111-aaaa-2222-bbbb-3333cccc4444","appidacr":"0","roles":["read:products"],"scp":"access_as_user","sub":"hKk3aD0pZ","tid":"` + directory + `","unique_name":"ada@shop.example","ver":"1.0"}`, rule: people, client: "00001111-aaaa-2222-bbbb-3333cccc4444"},
			{shape: idToken, claims: `{"aud":"00001111-aaaa-2222-bbbb-3333cccc4444","iss":"https://sts.windows.net/` + directory + `/","iat":IAT,"nbf":IAT,"exp":EXP,"roles":["read:products"],"sub":"hKk3aD0pZ","tid":"` + directory + `","ver":"1.0"}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: otherTenant, claims: `{"aud":"api://` + entraAPI + `","iss":"https://sts.windows.net/` + otherUID + `/","iat":IAT,"nbf":IAT,"exp":EXP,"appid":"00001111-aaaa-2222-bbbb-3333cccc4444","idtyp":"app","roles":["read:products"],"sub":"d5a1e7f0","tid":"` + otherUID + `","ver":"1.0"}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", iss of this tenant and tid of another", claims: `{"aud":"api://` + entraAPI + `","iss":"https://sts.windows.net/` + directory + `/","iat":IAT,"nbf":IAT,"exp":EXP,"appid":"00001111-aaaa-2222-bbbb-3333cccc4444","idtyp":"app","roles":["read:products"],"sub":"d5a1e7f0","tid":"` + otherUID + `","ver":"1.0"}`, rule: readers, verdict: m2mauth.ErrClaims},
		},
	},
	{
		name:    "Keycloak",
		setting: `Keycloak("https://login.shop.example/realms/shop", "https://shopping.api")`,
		config: func() (m2mauth.Config, error) {
			return issuers.Keycloak("https://login.shop.example/realms/shop", "https://shopping.api")
		},
		header: jwtTyped,
		tokens: []sample{
			{shape: machine, claims: `{"exp":EXP,"iat":IAT,"jti":"trrtcc:4f1c","iss":"https://login.shop.example/realms/shop","aud":["https://shopping.api","account"],"sub":"` + accountID + `","typ":"Bearer","azp":"reader","acr":"1","realm_access":{"roles":["offline_access"]},"scope":"read:products email profile","clientHost":"192.0.2.7","preferred_username":"service-account-reader","client_id":"reader"}`, rule: readers, client: "reader", machine: true},
			{shape: user, claims: `{"exp":EXP,"iat":IAT,"auth_time":IAT,"jti":"onrtac:77aa","iss":"https://login.shop.example/realms/shop","aud":["https://shopping.api","account"],"sub":"` + otherUID + `","typ":"Bearer","azp":"web","sid":"s1","scope":"openid read:products profile","preferred_username":"ada"}`, rule: people, client: "web"},
			{shape: idToken, claims: `{"exp":EXP,"iat":IAT,"auth_time":IAT,"jti":"77ab","iss":"https://login.shop.example/realms/shop","aud":"web","sub":"` + otherUID + `","typ":"ID","azp":"web","nonce":"n","sid":"s1","at_hash":"x"}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: idToken + ", with the API's audience", claims: `{"exp":EXP,"iat":IAT,"auth_time":IAT,"jti":"77ab","iss":"https://login.shop.example/realms/shop","aud":["web","https://shopping.api"],"sub":"` + otherUID + `","typ":"ID","azp":"web","nonce":"n","sid":"s1","at_hash":"x"}`, rule: anybody, verdict: m2mauth.ErrClaims},
			{shape: otherTenant + ", of another realm", claims: `{"exp":EXP,"iat":IAT,"jti":"trrtcc:4f1c","iss":"https://login.shop.example/realms/other","aud":"https://shopping.api","sub":"` + accountID + `","typ":"Bearer","azp":"reader","scope":"read:products","client_id":"reader"}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", a user who took the name of a service account", claims: `{"exp":EXP,"iat":IAT,"jti":"onrtac:77aa","iss":"https://login.shop.example/realms/shop","aud":"https://shopping.api","sub":"` + otherUID + `","typ":"Bearer","azp":"web","scope":"read:products","preferred_username":"service-account-web"}`, rule: readers, verdict: m2mauth.ErrForbidden},
			{shape: attack + ", a token without aud, as there is by default", claims: `{"exp":EXP,"iat":IAT,"jti":"trrtcc:4f1d","iss":"https://login.shop.example/realms/shop","sub":"` + accountID + `","typ":"Bearer","azp":"reader","scope":"read:products","client_id":"reader"}`, rule: readers, verdict: m2mauth.ErrClaims},
		},
	},
	{
		name:    "Keycloak, with roles",
		setting: `Keycloak(…), ScopeClaims: "/resource_access/shopping/roles"`,
		config: func() (m2mauth.Config, error) {
			c, err := issuers.Keycloak("https://login.shop.example/realms/shop", "https://shopping.api")
			c.ScopeClaims = []string{"/resource_access/shopping/roles"}
			return c, err
		},
		header: jwtTyped,
		tokens: []sample{
			{shape: machine, claims: `{"exp":EXP,"iat":IAT,"jti":"trrtcc:4f1c","iss":"https://login.shop.example/realms/shop","aud":"https://shopping.api","sub":"` + accountID + `","typ":"Bearer","azp":"reader","resource_access":{"shopping":{"roles":["read:products"]}},"scope":"email","client_id":"reader"}`, rule: readers, client: "reader", machine: true},
			{shape: user, claims: `{"exp":EXP,"iat":IAT,"jti":"onrtac:77aa","iss":"https://login.shop.example/realms/shop","aud":"https://shopping.api","sub":"` + otherUID + `","typ":"Bearer","azp":"web","resource_access":{"shopping":{"roles":["read:products"]}},"scope":"openid"}`, rule: people, client: "web"},
			{shape: idToken, claims: `{"exp":EXP,"iat":IAT,"jti":"77ab","iss":"https://login.shop.example/realms/shop","aud":"web","sub":"` + otherUID + `","typ":"ID","azp":"web","resource_access":{"shopping":{"roles":["read:products"]}}}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: otherTenant, claims: `{"exp":EXP,"iat":IAT,"jti":"trrtcc:4f1c","iss":"https://login.shop.example/realms/other","aud":"https://shopping.api","sub":"` + accountID + `","typ":"Bearer","azp":"reader","resource_access":{"shopping":{"roles":["read:products"]}},"client_id":"reader"}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", a role of the same name at another client", claims: `{"exp":EXP,"iat":IAT,"jti":"trrtcc:4f1c","iss":"https://login.shop.example/realms/shop","aud":"https://shopping.api","sub":"` + accountID + `","typ":"Bearer","azp":"reader","resource_access":{"other":{"roles":["read:products"]}},"/resource_access/shopping/roles":["read:products"],"scope":"read:products","client_id":"reader"}`, rule: readers, verdict: m2mauth.ErrScope},
		},
	},
	{
		name:    "Okta",
		setting: `Okta("https://shop.okta.com/oauth2/default", "api://default")`,
		config: func() (m2mauth.Config, error) {
			return issuers.Okta("https://shop.okta.com/oauth2/default", "api://default")
		},
		header: untyped,
		tokens: []sample{
			{shape: machine, claims: `{"ver":1,"jti":"AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE","iss":"https://shop.okta.com/oauth2/default","aud":"api://default","iat":IAT,"exp":EXP,"cid":"0oa3c1reader","scp":["read:products"],"sub":"0oa3c1reader"}`, rule: readers, client: "0oa3c1reader", machine: true},
			{shape: user, claims: `{"ver":1,"jti":"AT.1","iss":"https://shop.okta.com/oauth2/default","aud":"api://default","sub":"ada@shop.example","iat":IAT,"exp":EXP,"cid":"0oa9web","uid":"00uid4BxXw6I6TV4m0g3","scp":["openid","read:products"],"auth_time":IAT}`, rule: people, client: "0oa9web"},
			{shape: idToken, claims: `{"sub":"00uid4BxXw6I6TV4m0g3","name":"Ada","ver":1,"iss":"https://shop.okta.com/oauth2/default","aud":"0oa9web","iat":IAT,"exp":EXP,"jti":"ID.1","amr":["pwd"],"idp":"00o1","auth_time":IAT,"at_hash":"x"}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: otherTenant + ", of the organization's own server", claims: `{"ver":1,"jti":"AT.2","iss":"https://shop.okta.com","aud":"https://shop.okta.com","sub":"ada@shop.example","iat":IAT,"exp":EXP,"cid":"0oa9web","uid":"00uid4","scp":["openid"]}`, rule: anybody, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", a user whose login is spelled as a client", claims: `{"ver":1,"jti":"AT.3","iss":"https://shop.okta.com/oauth2/default","aud":"api://default","sub":"0oa9web","iat":IAT,"exp":EXP,"cid":"0oa9web","uid":"00uid4BxXw6I6TV4m0g3","scp":["read:products"]}`, rule: readers, verdict: m2mauth.ErrForbidden},
			{shape: attack + ", a subject that is neither a client nor has an ID of a user", claims: `{"ver":1,"jti":"AT.4","iss":"https://shop.okta.com/oauth2/default","aud":"api://default","sub":"ada@shop.example","iat":IAT,"exp":EXP,"cid":"0oa9web","scp":["read:products"]}`, rule: readers, verdict: m2mauth.ErrForbidden},
		},
	},
	{
		name:    "Amazon Cognito",
		setting: `Cognito("eu-west-1_AbCdEf123", "https://shopping.api", "57cbishk4j24pabc1234567890")`,
		config: func() (m2mauth.Config, error) {
			return issuers.Cognito("eu-west-1_AbCdEf123", "https://shopping.api", "57cbishk4j24pabc1234567890", "1example23456789")
		},
		header: untyped,
		tokens: []sample{
			{shape: machine, claims: `{"sub":"57cbishk4j24pabc1234567890","token_use":"access","scope":"https://shopping.api/read:products","auth_time":IAT,"iss":"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123","exp":EXP,"iat":IAT,"version":2,"jti":"j1","client_id":"57cbishk4j24pabc1234567890"}`, rule: readers, client: "57cbishk4j24pabc1234567890", machine: true},
			{shape: user, claims: `{"sub":"` + otherUID + `","cognito:groups":["buyers"],"iss":"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123","version":2,"client_id":"1example23456789","origin_jti":"o1","token_use":"access","scope":"openid https://shopping.api/read:products","auth_time":IAT,"exp":EXP,"iat":IAT,"jti":"j2","username":"ada"}`, rule: people, client: "1example23456789"},
			{shape: user + ", for a resource (RFC 8707), of a client that is not listed", claims: `{"sub":"` + otherUID + `","iss":"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123","client_id":"2other","token_use":"access","aud":"https://shopping.api","scope":"https://shopping.api/read:products","exp":EXP,"iat":IAT,"jti":"j2","username":"ada"}`, rule: people, client: "2other"},
			{shape: idToken, claims: `{"sub":"` + otherUID + `","aud":"1example23456789","cognito:username":"ada","event_id":"e1","token_use":"id","auth_time":IAT,"iss":"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123","exp":EXP,"iat":IAT,"jti":"j3"}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: otherTenant + ", of another user pool", claims: `{"sub":"57cbishk4j24pabc1234567890","token_use":"access","scope":"https://shopping.api/read:products","iss":"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Other","exp":EXP,"iat":IAT,"jti":"j4","client_id":"57cbishk4j24pabc1234567890"}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", scopes of another resource server", claims: `{"sub":"57cbishk4j24pabc1234567890","token_use":"access","scope":"https://other.api/read:products read:products","iss":"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123","exp":EXP,"iat":IAT,"jti":"j5","client_id":"57cbishk4j24pabc1234567890"}`, rule: readers, verdict: m2mauth.ErrScope},
			{shape: attack + ", a client of another API in the same pool", claims: `{"sub":"3stranger","token_use":"access","scope":"https://shopping.api/read:products","iss":"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123","exp":EXP,"iat":IAT,"jti":"j6","client_id":"3stranger"}`, rule: readers, verdict: m2mauth.ErrClaims},
			{shape: attack + ", an ID token that names a client as access tokens do", claims: `{"sub":"` + otherUID + `","client_id":"1example23456789","token_use":"id","iss":"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123","exp":EXP,"iat":IAT,"jti":"j7"}`, rule: anybody, verdict: m2mauth.ErrClaims},
		},
	},
	{
		name:    "Zitadel",
		setting: `Zitadel("https://shop-a1b2c3.zitadel.cloud", "69234237810729019", "70669147545070419", "173817364526")`,
		config: func() (m2mauth.Config, error) {
			return issuers.Zitadel("https://shop-a1b2c3.zitadel.cloud", "69234237810729019", "70669147545070419", "173817364526")
		},
		header: jwtTyped,
		tokens: []sample{
			{shape: machine, claims: `{"iss":"https://shop-a1b2c3.zitadel.cloud","sub":"173817364526","aud":["69234237810729019"],"exp":EXP,"iat":IAT,"nbf":IAT,"client_id":"reader","jti":"V2_1","urn:zitadel:iam:org:project:69234237810729019:roles":{"read:products":{"70669147545070419":"shop.example"}}}`, rule: readers, client: "173817364526", machine: true},
			{shape: user, claims: `{"iss":"https://shop-a1b2c3.zitadel.cloud","sub":"165460784409","aud":["165467338479","69234237810729019"],"exp":EXP,"iat":IAT,"nbf":IAT,"client_id":"165467338479","jti":"V2_2","urn:zitadel:iam:org:project:69234237810729019:roles":{"read:products":{"70669147545070419":"shop.example"}}}`, rule: people, client: "165460784409"},
			{shape: idToken, claims: `{"iss":"https://shop-a1b2c3.zitadel.cloud","sub":"165460784409","aud":["165467338479"],"exp":EXP,"iat":IAT,"auth_time":IAT,"azp":"165467338479","client_id":"165467338479","amr":["pwd"],"at_hash":"x"}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: idToken + ", with the project in aud, as Zitadel writes it", claims: `{"iss":"https://shop-a1b2c3.zitadel.cloud","sub":"165460784409","aud":["165467338479","69234237810729019"],"exp":EXP,"iat":IAT,"auth_time":IAT,"azp":"165467338479","client_id":"165467338479","amr":["pwd"],"at_hash":"x","urn:zitadel:iam:org:project:69234237810729019:roles":{"read:products":{"70669147545070419":"shop.example"}}}`, rule: anybody, verdict: m2mauth.ErrClaims},
			{shape: otherTenant + ", of another instance", claims: `{"iss":"https://other-d4e5f6.zitadel.cloud","sub":"173817364526","aud":["69234237810729019"],"exp":EXP,"iat":IAT,"nbf":IAT,"client_id":"reader","jti":"V2_3","urn:zitadel:iam:org:project:69234237810729019:roles":{"read:products":{"70669147545070419":"shop.example"}}}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", a role that a granted organization assigned", claims: `{"iss":"https://shop-a1b2c3.zitadel.cloud","sub":"173817364526","aud":["69234237810729019"],"exp":EXP,"iat":IAT,"nbf":IAT,"client_id":"reader","jti":"V2_4","urn:zitadel:iam:org:project:69234237810729019:roles":{"read:products":{"99999999999999999":"partner.example"}}}`, rule: readers, verdict: m2mauth.ErrScope},
			{shape: attack + ", an organization that took the domain's name", claims: `{"iss":"https://shop-a1b2c3.zitadel.cloud","sub":"173817364526","aud":["69234237810729019"],"exp":EXP,"iat":IAT,"nbf":IAT,"client_id":"reader","jti":"V2_5","urn:zitadel:iam:org:project:69234237810729019:roles":{"read:products":{"99999999999999999":"70669147545070419"}}}`, rule: readers, verdict: m2mauth.ErrScope},
			{shape: attack + ", a role of the client's own project", claims: `{"iss":"https://shop-a1b2c3.zitadel.cloud","sub":"173817364526","aud":["69234237810729019"],"exp":EXP,"iat":IAT,"nbf":IAT,"client_id":"reader","jti":"V2_6","urn:zitadel:iam:org:project:roles":{"read:products":{"70669147545070419":"shop.example"}}}`, rule: readers, verdict: m2mauth.ErrScope},
			{shape: attack + ", a service account of the same name in another organization", claims: `{"iss":"https://shop-a1b2c3.zitadel.cloud","sub":"222222222222","aud":["69234237810729019"],"exp":EXP,"iat":IAT,"nbf":IAT,"client_id":"reader","jti":"V2_7"}`, rule: m2mauth.MachineToken(), verdict: m2mauth.ErrForbidden},
		},
	},
	{
		name:    "authentik",
		setting: `Authentik("https://login.shop.example/application/o/shop/", "kbyuFDidLLm280LIwVFiazOqjO3ty8KH")`,
		config: func() (m2mauth.Config, error) {
			return issuers.Authentik("https://login.shop.example/application/o/shop/", "kbyuFDidLLm280LIwVFiazOqjO3ty8KH")
		},
		header: jwtTyped,
		tokens: []sample{
			{shape: machine, claims: `{"iss":"https://login.shop.example/application/o/shop/","sub":"33c23a93d268","aud":"kbyuFDidLLm280LIwVFiazOqjO3ty8KH","exp":EXP,"iat":IAT,"auth_time":IAT,"acr":"goauthentik.io/providers/oauth2/default","entitlements":["read:products"],"user_type":"service_account","azp":"kbyuFDidLLm280LIwVFiazOqjO3ty8KH","uid":"u1"}`, rule: readers, client: "33c23a93d268", machine: true},
			{shape: user, claims: `{"iss":"https://login.shop.example/application/o/shop/","sub":"77aa1b","aud":"kbyuFDidLLm280LIwVFiazOqjO3ty8KH","exp":EXP,"iat":IAT,"auth_time":IAT,"amr":["pwd"],"sid":"s1","entitlements":["read:products"],"user_type":"internal","azp":"kbyuFDidLLm280LIwVFiazOqjO3ty8KH","uid":"u2"}`, rule: people, client: "77aa1b"},
			{shape: idToken + ", which has the same aud", claims: `{"iss":"https://login.shop.example/application/o/shop/","sub":"33c23a93d268","aud":"kbyuFDidLLm280LIwVFiazOqjO3ty8KH","exp":EXP,"iat":IAT,"auth_time":IAT,"nonce":"n","at_hash":"x","sid":"s1","entitlements":["read:products"],"user_type":"service_account"}`, rule: anybody, verdict: m2mauth.ErrClaims},
			{shape: otherTenant + ", of another application", claims: `{"iss":"https://login.shop.example/application/o/wiki/","sub":"33c23a93d268","aud":"wiki","exp":EXP,"iat":IAT,"entitlements":["read:products"],"user_type":"service_account","azp":"wiki","uid":"u3"}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", a scope that any account may ask for", claims: `{"iss":"https://login.shop.example/application/o/shop/","sub":"33c23a93d268","aud":"kbyuFDidLLm280LIwVFiazOqjO3ty8KH","exp":EXP,"iat":IAT,"scope":"read:products","user_type":"service_account","azp":"kbyuFDidLLm280LIwVFiazOqjO3ty8KH","uid":"u4"}`, rule: readers, verdict: m2mauth.ErrScope},
			{shape: attack + ", one application's token in an instance with one issuer for all", claims: `{"iss":"https://login.shop.example/application/o/shop/","sub":"33c23a93d268","aud":"wiki","exp":EXP,"iat":IAT,"entitlements":["read:products"],"azp":"wiki","uid":"u5"}`, rule: readers, verdict: m2mauth.ErrAudience},
		},
	},
	{
		name:    "Ory Hydra",
		setting: `Hydra("https://login.shop.example/", "https://shopping.api")`,
		config: func() (m2mauth.Config, error) {
			return issuers.Hydra("https://login.shop.example/", "https://shopping.api")
		},
		header: jwtTyped,
		tokens: []sample{
			{shape: machine, claims: `{"aud":["https://shopping.api"],"client_id":"` + accountID + `","exp":EXP,"ext":{},"iat":IAT,"iss":"https://login.shop.example/","jti":"j1","nbf":IAT,"scp":["read:products"],"sub":"` + accountID + `"}`, rule: readers, client: accountID, machine: true},
			{shape: user, claims: `{"aud":["https://shopping.api"],"client_id":"web","exp":EXP,"ext":{},"iat":IAT,"iss":"https://login.shop.example/","jti":"j2","nbf":IAT,"scp":["openid","read:products"],"sub":"ada"}`, rule: people, client: "web"},
			{shape: idToken, claims: `{"at_hash":"x","aud":["web"],"auth_time":IAT,"exp":EXP,"iat":IAT,"iss":"https://login.shop.example/","jti":"j3","nonce":"n","rat":IAT,"sid":"s1","sub":"ada"}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: otherTenant, claims: `{"aud":["https://shopping.api"],"client_id":"reader","exp":EXP,"iat":IAT,"iss":"https://login.other.example/","jti":"j4","nbf":IAT,"scp":["read:products"],"sub":"reader"}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", a token that asked for no audience", claims: `{"aud":[],"client_id":"reader","exp":EXP,"ext":{},"iat":IAT,"iss":"https://login.shop.example/","jti":"j5","nbf":IAT,"scp":["read:products"],"sub":"reader"}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: attack + ", scopes in claims that the consent app writes", claims: `{"aud":["https://shopping.api"],"client_id":"reader","exp":EXP,"ext":{"scp":["read:products"]},"scope":"read:products","iat":IAT,"iss":"https://login.shop.example/","jti":"j6","nbf":IAT,"scp":[],"sub":"reader"}`, rule: readers, verdict: m2mauth.ErrScope},
		},
	},
	{
		name:    "Duende IdentityServer",
		setting: `Duende("https://login.shop.example", "shopping")`,
		config:  func() (m2mauth.Config, error) { return issuers.Duende("https://login.shop.example", "shopping") },
		header:  atJWT,
		tokens: []sample{
			{shape: machine, claims: `{"iss":"https://login.shop.example","nbf":IAT,"iat":IAT,"exp":EXP,"aud":"shopping","scope":["read:products"],"client_id":"reader","jti":"A1"}`, rule: readers, client: "reader", machine: true},
			{shape: user, claims: `{"iss":"https://login.shop.example","nbf":IAT,"iat":IAT,"exp":EXP,"aud":"shopping","scope":["openid","read:products"],"amr":["pwd"],"client_id":"web","sub":"ada","auth_time":IAT,"idp":"local","sid":"S1","jti":"A2"}`, rule: people, client: "web"},
			{shape: idToken, header: jwtTyped, claims: `{"iss":"https://login.shop.example","nbf":IAT,"iat":IAT,"exp":EXP,"aud":"web","amr":["pwd"],"nonce":"n","at_hash":"x","sid":"S1","sub":"ada","auth_time":IAT,"idp":"local"}`, rule: anybody, verdict: m2mauth.ErrType},
			{shape: otherTenant, claims: `{"iss":"https://login.other.example","nbf":IAT,"iat":IAT,"exp":EXP,"aud":"shopping","scope":["read:products"],"client_id":"reader","jti":"A3"}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", a token of the whole server, with the static audience", claims: `{"iss":"https://login.shop.example","nbf":IAT,"iat":IAT,"exp":EXP,"aud":"https://login.shop.example/resources","scope":["read:products"],"client_id":"reader","jti":"A4"}`, rule: readers, verdict: m2mauth.ErrAudience},
			{shape: attack + ", a user's token where only machines may go", claims: `{"iss":"https://login.shop.example","nbf":IAT,"iat":IAT,"exp":EXP,"aud":"shopping","scope":["read:products"],"client_id":"web","sub":"ada","jti":"A5"}`, rule: readers, verdict: m2mauth.ErrForbidden},
			{shape: attack + ", an empty sub", claims: `{"iss":"https://login.shop.example","nbf":IAT,"iat":IAT,"exp":EXP,"aud":"shopping","scope":["read:products"],"client_id":"web","sub":"","jti":"A6"}`, rule: readers, verdict: m2mauth.ErrClaims},
		},
	},
	{
		name:    "OpenIddict",
		setting: `OpenIddict("https://login.shop.example/", "shopping")`,
		config:  func() (m2mauth.Config, error) { return issuers.OpenIddict("https://login.shop.example/", "shopping") },
		header:  atJWT,
		tokens: []sample{
			{shape: machine, claims: `{"sub":"reader","name":"Reader","oi_prst":"reader","client_id":"reader","oi_tkn_id":"t1","scope":"read:products","jti":"t1","aud":"shopping","iss":"https://login.shop.example/","exp":EXP,"iat":IAT}`, rule: readers, client: "reader", machine: true},
			{shape: user, claims: `{"sub":"ada","name":"Ada","oi_prst":"web","oi_au_id":"a1","client_id":"web","oi_tkn_id":"t2","scope":"openid read:products","jti":"t2","aud":"shopping","iss":"https://login.shop.example/","exp":EXP,"iat":IAT}`, rule: people, client: "web"},
			{shape: idToken, header: jwtTyped, claims: `{"sub":"ada","name":"Ada","oi_au_id":"a1","azp":"web","at_hash":"x","oi_tkn_id":"t3","aud":"web","iss":"https://login.shop.example/","exp":EXP,"iat":IAT}`, rule: anybody, verdict: m2mauth.ErrType},
			{shape: otherTenant, claims: `{"sub":"reader","client_id":"reader","scope":"read:products","jti":"t4","aud":"shopping","iss":"https://login.other.example/","exp":EXP,"iat":IAT}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", a refresh token", header: `{"alg":"RS256","typ":"oi_reft+jwt","kid":"KID"}`, claims: `{"sub":"ada","oi_prst":"web","client_id":"web","scope":"read:products","jti":"t5","aud":"shopping","iss":"https://login.shop.example/","exp":EXP,"iat":IAT}`, rule: people, verdict: m2mauth.ErrType},
		},
	},
	{
		name:    "Spring Authorization Server",
		setting: `SpringAuthorizationServer("https://login.shop.example", "https://shopping.api")`,
		config: func() (m2mauth.Config, error) {
			return issuers.SpringAuthorizationServer("https://login.shop.example", "https://shopping.api")
		},
		header: atJWT,
		tokens: []sample{
			{shape: machine + ", as the customizer makes it", claims: `{"sub":"reader","aud":"https://shopping.api","nbf":IAT,"scope":["read:products"],"iss":"https://login.shop.example","exp":EXP,"iat":IAT,"jti":"j1","client_id":"reader","grant_type":"client_credentials"}`, rule: readers, client: "reader", machine: true},
			{shape: user, claims: `{"sub":"ada","aud":"https://shopping.api","nbf":IAT,"scope":["openid","read:products"],"iss":"https://login.shop.example","exp":EXP,"iat":IAT,"jti":"j2","client_id":"web","grant_type":"authorization_code"}`, rule: people, client: "web"},
			{shape: idToken, header: `{"kid":"KID","alg":"RS256"}`, claims: `{"sub":"ada","aud":"web","azp":"web","auth_time":IAT,"iss":"https://login.shop.example","exp":EXP,"iat":IAT,"nonce":"n","jti":"j3","sid":"s1"}`, rule: anybody, verdict: m2mauth.ErrType},
			{shape: otherTenant, claims: `{"sub":"reader","aud":"https://shopping.api","scope":["read:products"],"iss":"https://login.other.example","exp":EXP,"iat":IAT,"jti":"j4","client_id":"reader","grant_type":"client_credentials"}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", a user with a client's name", claims: `{"sub":"web","aud":"https://shopping.api","nbf":IAT,"scope":["read:products"],"iss":"https://login.shop.example","exp":EXP,"iat":IAT,"jti":"j5","client_id":"web","grant_type":"authorization_code"}`, rule: readers, verdict: m2mauth.ErrForbidden},
			{shape: attack + ", a subject that a client's customizer put in", claims: `{"sub":"ada","aud":"https://shopping.api","nbf":IAT,"scope":["read:products"],"iss":"https://login.shop.example","exp":EXP,"iat":IAT,"jti":"j7","client_id":"web","grant_type":"client_credentials"}`, rule: readers, verdict: m2mauth.ErrForbidden},
			{shape: attack + ", a token without the customizer, for whichever client", header: untyped, claims: `{"sub":"reader","aud":"reader","nbf":IAT,"scope":["read:products"],"iss":"https://login.shop.example","exp":EXP,"iat":IAT,"jti":"j6"}`, rule: anybody, verdict: m2mauth.ErrType},
		},
	},
	{
		name:    "PingOne",
		setting: `PingOne("https://auth.pingone.eu/6991589d-…/as", "https://shopping.api")`,
		config: func() (m2mauth.Config, error) {
			return issuers.PingOne("https://auth.pingone.eu/6991589d-87eb-47f4-9131-284cebe106b3/as", "https://shopping.api")
		},
		header: untyped,
		tokens: []sample{
			{shape: machine, claims: `{"client_id":"a85f7a70-c9ae-46cc-99cb-ff78a4ce486e","iss":"https://auth.pingone.eu/6991589d-87eb-47f4-9131-284cebe106b3/as","jti":"j1","iat":IAT,"exp":EXP,"aud":["https://shopping.api"],"scope":"read:products"}`, rule: readers, client: "a85f7a70-c9ae-46cc-99cb-ff78a4ce486e", machine: true},
			{shape: machine + ", with typ", header: atJWT, claims: `{"client_id":"a85f7a70-c9ae-46cc-99cb-ff78a4ce486e","iss":"https://auth.pingone.eu/6991589d-87eb-47f4-9131-284cebe106b3/as","jti":"j1","iat":IAT,"exp":EXP,"aud":["https://shopping.api"],"scope":"read:products"}`, rule: readers, client: "a85f7a70-c9ae-46cc-99cb-ff78a4ce486e", machine: true},
			{shape: user, claims: `{"client_id":"web","iss":"https://auth.pingone.eu/6991589d-87eb-47f4-9131-284cebe106b3/as","jti":"j2","iat":IAT,"exp":EXP,"aud":["https://shopping.api"],"scope":"read:products","sub":"` + otherUID + `","sid":"s1","auth_time":IAT,"acr":"1Single_Factor"}`, rule: people, client: "web"},
			{shape: idToken, claims: `{"iss":"https://auth.pingone.eu/6991589d-87eb-47f4-9131-284cebe106b3/as","sub":"` + otherUID + `","aud":"web","iat":IAT,"exp":EXP,"acr":"1Single_Factor","amr":["pwd"],"auth_time":IAT,"at_hash":"x","sid":"s1","nonce":"n"}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: otherTenant + ", of another environment", claims: `{"client_id":"a85f7a70-c9ae-46cc-99cb-ff78a4ce486e","iss":"https://auth.pingone.eu/01d89b06-66d5-430e-9f28-65636843788b/as","jti":"j3","iat":IAT,"exp":EXP,"aud":["https://shopping.api"],"scope":"read:products"}`, rule: readers, verdict: m2mauth.ErrIssuer},
			{shape: attack + ", a worker's token for PingOne's own API", claims: `{"client_id":"worker","iss":"https://auth.pingone.eu/6991589d-87eb-47f4-9131-284cebe106b3/as","jti":"j4","iat":IAT,"exp":EXP,"aud":["https://api.pingone.eu"],"env":"6991589d-87eb-47f4-9131-284cebe106b3","org":"o1"}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: attack + ", sub is null", claims: `{"client_id":"web","iss":"https://auth.pingone.eu/6991589d-87eb-47f4-9131-284cebe106b3/as","jti":"j5","iat":IAT,"exp":EXP,"aud":["https://shopping.api"],"scope":"read:products","sub":null}`, rule: readers, verdict: m2mauth.ErrClaims},
		},
	},
	{
		name:    "Google service accounts",
		setting: `GoogleServiceAccounts("https://shopping.api", "110248495921238986420")`,
		config: func() (m2mauth.Config, error) {
			return issuers.GoogleServiceAccounts("https://shopping.api", "110248495921238986420")
		},
		header: jwtTyped,
		tokens: []sample{
			{shape: machine, claims: `{"aud":"https://shopping.api","azp":"110248495921238986420","email":"reader@shop.iam.gserviceaccount.com","email_verified":true,"exp":EXP,"iat":IAT,"iss":"https://accounts.google.com","sub":"110248495921238986420"}`, rule: m2mauth.AllOf(m2mauth.ClientID("110248495921238986420"), m2mauth.MachineToken()), client: "110248495921238986420", machine: true},
			{shape: user + ", whose token for a web app has the same issuer", claims: `{"iss":"https://accounts.google.com","azp":"1234-web.apps.googleusercontent.com","aud":"1234-web.apps.googleusercontent.com","sub":"104852002444754136271","email":"ada@shop.example","email_verified":true,"iat":IAT,"exp":EXP}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: idToken + ", of a user, with the API's audience", claims: `{"iss":"https://accounts.google.com","azp":"1234-web.apps.googleusercontent.com","aud":"https://shopping.api","sub":"104852002444754136271","email":"ada@shop.example","email_verified":true,"iat":IAT,"exp":EXP}`, rule: anybody, verdict: m2mauth.ErrClaims},
			{shape: otherTenant + ", an account of another customer for the same audience", claims: `{"aud":"https://shopping.api","azp":"999999999999999999999","email":"reader@other.iam.gserviceaccount.com","email_verified":true,"exp":EXP,"iat":IAT,"iss":"https://accounts.google.com","sub":"999999999999999999999"}`, rule: anybody, verdict: m2mauth.ErrClaims},
			{shape: attack + ", an account made anew under the same address", claims: `{"aud":"https://shopping.api","azp":"110248495921238986420","email":"reader@shop.iam.gserviceaccount.com","email_verified":true,"exp":EXP,"iat":IAT,"iss":"https://accounts.google.com","sub":"888888888888888888888"}`, rule: anybody, verdict: m2mauth.ErrClaims},
		},
	},
	{
		name:    "Kubernetes service accounts",
		setting: `KubernetesServiceAccounts("https://kubernetes.default.svc.cluster.local", "https://shopping.api", "2c8e5a11-…")`,
		config: func() (m2mauth.Config, error) {
			return issuers.KubernetesServiceAccounts("https://kubernetes.default.svc.cluster.local", "https://shopping.api", accountID)
		},
		header: untyped,
		tokens: []sample{
			{shape: machine, claims: `{"aud":["https://shopping.api"],"exp":EXP,"iat":IAT,"iss":"https://kubernetes.default.svc.cluster.local","jti":"j1","kubernetes.io":{"namespace":"shop","node":{"name":"n1","uid":"u1"},"pod":{"name":"reader-0","uid":"u2"},"serviceaccount":{"name":"reader","uid":"` + accountID + `"}},"nbf":IAT,"sub":"system:serviceaccount:shop:reader"}`, rule: m2mauth.AllOf(m2mauth.ClientID("system:serviceaccount:shop:reader"), m2mauth.MachineToken()), client: "system:serviceaccount:shop:reader", machine: true},
			{shape: user + ", whose token is of the users' issuer", claims: `{"iss":"https://login.shop.example","sub":"ada","aud":["https://shopping.api"],"exp":EXP,"iat":IAT}`, rule: anybody, verdict: m2mauth.ErrIssuer},
			{shape: idToken + ", a typ that the cluster does not write", header: jwtTyped, claims: `{"iss":"https://kubernetes.default.svc.cluster.local","sub":"ada","aud":["https://shopping.api"],"exp":EXP,"iat":IAT}`, rule: anybody, verdict: m2mauth.ErrType},
			{shape: otherTenant + ", another namespace's account for the same audience", claims: `{"aud":["https://shopping.api"],"exp":EXP,"iat":IAT,"iss":"https://kubernetes.default.svc.cluster.local","jti":"j2","kubernetes.io":{"namespace":"other","serviceaccount":{"name":"reader","uid":"` + otherUID + `"}},"nbf":IAT,"sub":"system:serviceaccount:other:reader"}`, rule: anybody, verdict: m2mauth.ErrClaims},
			{shape: attack + ", an account made anew under the same name", claims: `{"aud":["https://shopping.api"],"exp":EXP,"iat":IAT,"iss":"https://kubernetes.default.svc.cluster.local","jti":"j3","kubernetes.io":{"namespace":"shop","serviceaccount":{"name":"reader","uid":"` + otherUID + `"}},"nbf":IAT,"sub":"system:serviceaccount:shop:reader"}`, rule: anybody, verdict: m2mauth.ErrClaims},
			{shape: attack + ", the UID in a claim that is spelled as the way to it", claims: `{"aud":["https://shopping.api"],"exp":EXP,"iat":IAT,"iss":"https://kubernetes.default.svc.cluster.local","/kubernetes.io/serviceaccount/uid":"` + accountID + `","kubernetes.io/serviceaccount/uid":"` + accountID + `","kubernetes.io":{"pod":{"uid":"` + accountID + `"},"serviceaccount":{"name":"reader"}},"sub":"system:serviceaccount:shop:reader"}`, rule: anybody, verdict: m2mauth.ErrClaims},
			{shape: attack + ", a token for the API server", claims: `{"aud":["https://kubernetes.default.svc.cluster.local"],"exp":EXP,"iat":IAT,"iss":"https://kubernetes.default.svc.cluster.local","kubernetes.io":{"namespace":"shop","serviceaccount":{"name":"reader","uid":"` + accountID + `"}},"sub":"system:serviceaccount:shop:reader"}`, rule: anybody, verdict: m2mauth.ErrAudience},
		},
	},
	{
		name:    "GitHub Actions",
		setting: `GitHubActions("https://shopping.api", "65")`,
		config:  func() (m2mauth.Config, error) { return issuers.GitHubActions("https://shopping.api", "65") },
		header:  `{"typ":"JWT","alg":"RS256","x5t":"KID","kid":"KID"}`,
		tokens: []sample{
			{shape: machine, claims: `{"jti":"j1","sub":"repo:octo-org/octo-repo:environment:prod","environment":"prod","aud":"https://shopping.api","ref":"refs/heads/main","sha":"s","repository":"octo-org/octo-repo","repository_owner":"octo-org","actor_id":"12","repository_visibility":"private","repository_id":"74","repository_owner_id":"65","run_id":"1","run_number":"10","run_attempt":"2","actor":"octocat","workflow":"w","event_name":"workflow_dispatch","ref_type":"branch","job_workflow_ref":"octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main","iss":"https://token.actions.githubusercontent.com","nbf":IAT,"exp":EXP,"iat":IAT}`, rule: m2mauth.AllOf(m2mauth.ClientID("74"), m2mauth.HasClaim("environment", "prod"), m2mauth.MachineToken()), client: "74", machine: true},
			{shape: user + ", of whom GitHub Actions writes no token: a job that anybody started", claims: `{"sub":"repo:octo-org/octo-repo:pull_request","aud":"https://shopping.api","ref":"refs/pull/7/merge","repository":"octo-org/octo-repo","actor_id":"999","repository_id":"74","repository_owner_id":"65","event_name":"pull_request","iss":"https://token.actions.githubusercontent.com","exp":EXP,"iat":IAT}`, rule: m2mauth.AllOf(m2mauth.ClientID("74"), m2mauth.HasClaim("environment", "prod")), verdict: m2mauth.ErrForbidden},
			{shape: idToken + ", of the same job for another service", claims: `{"sub":"repo:octo-org/octo-repo:environment:prod","aud":"sts.amazonaws.com","repository_id":"74","repository_owner_id":"65","iss":"https://token.actions.githubusercontent.com","exp":EXP,"iat":IAT}`, rule: anybody, verdict: m2mauth.ErrAudience},
			{shape: otherTenant + ", another owner's job for the same audience", claims: `{"sub":"repo:evil/octo-repo:environment:prod","environment":"prod","aud":"https://shopping.api","repository":"evil/octo-repo","repository_owner":"evil","repository_id":"75","repository_owner_id":"66","iss":"https://token.actions.githubusercontent.com","exp":EXP,"iat":IAT}`, rule: anybody, verdict: m2mauth.ErrClaims},
			{shape: attack + ", an owner who took the name over", claims: `{"sub":"repo:octo-org/octo-repo:environment:prod","environment":"prod","aud":"https://shopping.api","repository":"octo-org/octo-repo","repository_owner":"octo-org","repository_id":"76","repository_owner_id":"66","iss":"https://token.actions.githubusercontent.com","exp":EXP,"iat":IAT}`, rule: anybody, verdict: m2mauth.ErrClaims},
			{shape: attack + ", the owner's ID as a number", claims: `{"sub":"repo:octo-org/octo-repo:environment:prod","aud":"https://shopping.api","repository_id":"74","repository_owner_id":65,"iss":"https://token.actions.githubusercontent.com","exp":EXP,"iat":IAT}`, rule: anybody, verdict: m2mauth.ErrClaims},
		},
	},
}

// acme is the rule of a route that belongs to one organization.
func acme() m2mauth.Rule {
	return m2mauth.Organization(func(m2mauth.Request) string { return "acme" })
}

// Each token of each family has its verdict, and the table that go test -v prints
// says so: family, shape, verdict and setting, with tabs between them.
func TestFamilies(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	kids := map[bool]string{true: issuer.KeyIDs()[0], false: issuer.Rotate("RS256")} // whether ES384 signs
	now := time.Now().Unix()
	var table strings.Builder
	for _, f := range families {
		config, err := f.config()
		require.NoError(t, err, f.name)
		_, err = m2mauth.New(config)
		require.NoError(t, err, "%s: as it is returned", f.name)
		config.JWKSURL, config.HTTPClient, config.Logger = issuer.JWKSURL(), issuer.Client(), slog.New(slog.DiscardHandler)
		guard, err := m2mauth.New(config)
		require.NoError(t, err, f.name)
		for _, shape := range []string{machine, user, idToken, otherTenant, attack} {
			assert.True(t, slices.ContainsFunc(f.tokens, func(k sample) bool { return strings.HasPrefix(k.shape, shape) }), "%s: no token of the shape %s", f.name, shape)
		}
		for _, k := range f.tokens {
			header := f.header
			if k.header != "" {
				header = k.header
			}
			kid := kids[strings.Contains(header, "ES384")]
			fill := strings.NewReplacer("KID", kid, "IAT", fmt.Sprint(now), "EXP", fmt.Sprint(now+3600))
			r := httptest.NewRequest("GET", "/products", nil)
			r.Header.Set("Authorization", "Bearer "+issuer.Sign(m2mauthtest.Token{
				KeyID: kid, RawHeader: []byte(fill.Replace(header)), RawClaims: []byte(fill.Replace(k.claims)),
			}))
			claims, err := guard.Check(r, k.rule)
			verdict := "accepted"
			if e := (*m2mauth.Error)(nil); errors.As(err, &e) {
				verdict = string(e.Kind)
			}
			fmt.Fprintf(&table, "%s\t%s\t%s\t%s\n", f.name, k.shape, verdict, f.setting)
			where := f.name + ": " + k.shape
			if k.verdict != nil {
				assert.ErrorIs(t, err, k.verdict, where)
				continue
			}
			if assert.NoError(t, err, where) {
				assert.Equal(t, k.client, claims.ClientID(), where)
				assert.Equal(t, k.machine, claims.IsMachine(), where)
				if k.machine {
					assert.Equal(t, k.client, claims.AppID(), where)
				} else {
					assert.Empty(t, claims.AppID(), where)
				}
			}
		}
	}
	t.Logf("family, shape, verdict, setting:\n%s", table.String())
}
