package issuers_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/issuers"
)

func TestMistakesNameTheFunctionAndTheArgument(t *testing.T) {
	t.Parallel()
	const api = "https://shopping.api"
	type maker = func() (m2mauth.Config, error)
	for _, test := range []struct {
		name string
		call maker
		want []string // each in a line of its own
	}{
		{"Logto Cloud, a domain for a tenant", func() (m2mauth.Config, error) { return issuers.LogtoCloud("shop1a.logto.app", api) },
			[]string{`issuers: LogtoCloud: tenantID is "shop1a.logto.app": give the first part of TENANT.logto.app, without https:// and domain`}},
		{"Logto Cloud, nothing", func() (m2mauth.Config, error) { return issuers.LogtoCloud("", "") },
			[]string{"issuers: LogtoCloud: tenantID is empty: give ", "issuers: LogtoCloud: audience is empty: give the API's identifier, "}},
		{"Logto, an endpoint with /oidc", func() (m2mauth.Config, error) { return issuers.Logto("https://login.shop.example/oidc", api) },
			[]string{"issuers: Logto: endpoint has a path: give it without one, such as https://login.shop.example; /oidc is appended"}},
		{"Logto, a host for an endpoint", func() (m2mauth.Config, error) { return issuers.LogtoOrganizations("login.shop.example") },
			[]string{"issuers: LogtoOrganizations: endpoint is not an absolute URL: give one such as https://login.shop.example"}},
		{"Auth0, a URL for a domain", func() (m2mauth.Config, error) { return issuers.Auth0("https://shop.eu.auth0.com/", api) },
			[]string{`issuers: Auth0: tenantDomain is "https://shop.eu.auth0.com/": give a domain without https:// and slash, such as shop.eu.auth0.com`}},
		{"Auth0, a line break", func() (m2mauth.Config, error) { return issuers.Auth0("shop.eu.auth0.com", api+"\n") },
			[]string{"issuers: Auth0: audience holds white space, perhaps a line break: give "}},
		{"Entra ID, common", func() (m2mauth.Config, error) { return issuers.EntraID("common", entraAPI) },
			[]string{`issuers: EntraID: tenantID is "common": give the directory (tenant) ID, a GUID, which iss holds, not a domain, common or organizations`}},
		{"Entra ID, an application ID URI", func() (m2mauth.Config, error) { return issuers.EntraID(directory, "api://"+entraAPI) },
			[]string{`issuers: EntraID: applicationID is "api://` + entraAPI + `": give the API's application (client) ID, a GUID, which is aud in tokens of version 2.0`}},
		{"Entra ID version 1.0, nothing", func() (m2mauth.Config, error) { return issuers.EntraIDv1("", "") },
			[]string{"issuers: EntraIDv1: tenantID is empty: ", "issuers: EntraIDv1: audience is empty: "}},
		{"Okta, the organization's server", func() (m2mauth.Config, error) { return issuers.Okta("https://shop.okta.com", api) },
			[]string{"issuers: Okta: issuer is not that of a custom authorization server: give one such as https://shop.okta.com/oauth2/default, since "}},
		{"Cognito, no clients", func() (m2mauth.Config, error) { return issuers.Cognito("AbCdEf123", api) },
			[]string{`issuers: Cognito: userPoolID is "AbCdEf123": give the user pool's ID, such as eu-west-1_AbCdEf123`, "issuers: Cognito: clients are missing: give the IDs of the app clients that may call the API; a machine's token has no aud, "}},
		{"Cognito, an empty client", func() (m2mauth.Config, error) { return issuers.Cognito("eu-west-1_AbCdEf123", api, "c1", "") },
			[]string{"issuers: Cognito: clients[1] is empty: "}},
		{"PingOne, the environment's ID", func() (m2mauth.Config, error) { return issuers.PingOne("6991589d", api) },
			[]string{"issuers: PingOne: issuer is not an absolute URL: "}},
		{"PingOne, without /as", func() (m2mauth.Config, error) { return issuers.PingOne("https://auth.pingone.eu/6991589d", api) },
			[]string{"issuers: PingOne: issuer does not end in /as: "}},
		{"Keycloak, the server", func() (m2mauth.Config, error) { return issuers.Keycloak("https://login.shop.example", api) },
			[]string{"issuers: Keycloak: realmURL is not a realm's: give one such as https://login.shop.example/realms/shop, without a slash at its end"}},
		{"Keycloak, a slash", func() (m2mauth.Config, error) {
			return issuers.Keycloak("https://login.shop.example/realms/shop/", api)
		},
			[]string{"issuers: Keycloak: realmURL is not a realm's: "}},
		{"Zitadel, names", func() (m2mauth.Config, error) {
			return issuers.Zitadel("https://x.zitadel.cloud", "shop", "acme", "reader")
		},
			[]string{`issuers: Zitadel: projectID is "shop": `, `issuers: Zitadel: organizationID is "acme": `, `issuers: Zitadel: serviceAccountIDs[0] is "reader": give the user IDs of service accounts, digits, not their names`}},
		{"authentik, no slash", func() (m2mauth.Config, error) {
			return issuers.Authentik("https://login.shop.example/application/o/shop", "c")
		},
			[]string{"issuers: Authentik: issuer does not end in a slash: "}},
		{"Hydra, nothing", func() (m2mauth.Config, error) { return issuers.Hydra("", "") },
			[]string{"issuers: Hydra: issuer is empty: ", "issuers: Hydra: audience is empty: "}},
		{"Duende, the static audience", func() (m2mauth.Config, error) {
			return issuers.Duende("https://login.shop.example", "https://login.shop.example/resources")
		}, []string{"issuers: Duende: audience is in every token of this server (EmitStaticAudienceClaim), so it proves nothing: give the name of an API resource"}},
		{"OpenIddict, nothing", func() (m2mauth.Config, error) { return issuers.OpenIddict("", "") },
			[]string{"issuers: OpenIddict: issuer is empty: ", "issuers: OpenIddict: audience is empty: "}},
		{"Spring, nothing", func() (m2mauth.Config, error) { return issuers.SpringAuthorizationServer("", "") },
			[]string{"issuers: SpringAuthorizationServer: issuer is empty: ", "issuers: SpringAuthorizationServer: audience is empty: "}},
		{"Google, no account", func() (m2mauth.Config, error) { return issuers.GoogleServiceAccounts(api) },
			[]string{"issuers: GoogleServiceAccounts: accountIDs are missing: give the numeric unique IDs of service accounts, not their email addresses; the caller chooses the audience, so without them anybody could call the API"}},
		{"Google, an address", func() (m2mauth.Config, error) {
			return issuers.GoogleServiceAccounts(api, "reader@shop.iam.gserviceaccount.com")
		},
			[]string{`issuers: GoogleServiceAccounts: accountIDs[0] is "reader@shop.iam.gserviceaccount.com": `}},
		{"Kubernetes, no account", func() (m2mauth.Config, error) { return issuers.KubernetesServiceAccounts("https://k8s.example", api) },
			[]string{"issuers: KubernetesServiceAccounts: accountUIDs are missing: "}},
		{"Kubernetes, a name", func() (m2mauth.Config, error) {
			return issuers.KubernetesServiceAccounts("https://k8s.example", api, "system:serviceaccount:shop:reader")
		}, []string{`issuers: KubernetesServiceAccounts: accountUIDs[0] is "system:serviceaccount:shop:reader": give the UIDs of service accounts, not their names: kubectl get serviceaccount NAME -o jsonpath={.metadata.uid}`}},
		{"GitHub, no owner", func() (m2mauth.Config, error) { return issuers.GitHubActions(api) },
			[]string{"issuers: GitHubActions: ownerIDs are missing: "}},
		{"GitHub, an empty owner", func() (m2mauth.Config, error) { return issuers.GitHubActions(api, "") },
			[]string{"issuers: GitHubActions: ownerIDs[0] is empty: "}},
		{"GitHub, a name", func() (m2mauth.Config, error) { return issuers.GitHubActions(api, "octo-org") },
			[]string{`issuers: GitHubActions: ownerIDs[0] is "octo-org": give the numeric IDs of the repositories' owners, as https://api.github.com/users/NAME shows them`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config, err := test.call()
			require.Error(t, err)
			lines := strings.Split(err.Error(), "\n")
			require.Len(t, lines, len(test.want), "%v", err)
			for i, want := range test.want {
				assert.True(t, strings.HasPrefix(lines[i], want), "%s\nbegins with\n%s", lines[i], want)
			}
			assert.Zero(t, config.Issuer+config.Audience, "who overlooks the mistake has nothing that New accepts")
		})
	}
}

// An issuer's address may hold a password by mistake, and errors end up in logs.
func TestMistakesShowNoPassword(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"https://user:s3cret@login.shop.example/realms/shop", "https://login.shop.example/realms/shop?key=s3cret", "ftp://user:s3cret@login.shop.example/", "user:s3cret@login.shop.example"} {
		for _, function := range []func(a, b string) (m2mauth.Config, error){issuers.Logto, issuers.Okta, issuers.PingOne, issuers.Keycloak, issuers.Authentik, issuers.Hydra, issuers.Duende, issuers.OpenIddict, issuers.SpringAuthorizationServer} {
			_, err := function(address, "https://shopping.api")
			require.Error(t, err)
			assert.NotContains(t, err.Error(), "s3cret")
		}
	}
}

// Whoever keeps the slice cannot let others in later.
func TestListsAreCopied(t *testing.T) {
	t.Parallel()
	ids := []string{"65"}
	config, err := issuers.GitHubActions("https://shopping.api", ids...)
	require.NoError(t, err)
	ids[0] = "66"
	assert.Equal(t, []string{"65"}, config.RequiredClaims["repository_owner_id"])
}

// The tokens of each function's family are tested, and each has a row on the page
// with a source.
func TestEveryFunctionHasAFamilyAndARow(t *testing.T) {
	t.Parallel()
	page := rows(t)
	for _, name := range functions(t) {
		assert.True(t, slices.ContainsFunc(families, func(f family) bool { return strings.HasPrefix(f.setting, name+"(") }), "%s has no family", name)
		row, found := page[name]
		if assert.True(t, found, "docs/issuers.md has no row for %s", name) {
			assert.Contains(t, row, "](https://", "%s: the row has no source", name)
		}
		delete(page, name)
	}
	assert.Empty(t, page, "rows without a function")
}
