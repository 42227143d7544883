package m2mauthtest_test

import (
	"net/http"
	"net/url"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// TestOrganizationTokensAreGrantedAsRecorded covers what no recorded exchange, but
// a recorded token shows, and the ways between the organizations.
func TestOrganizationTokensAreGrantedAsRecorded(t *testing.T) {
	t.Parallel()
	const api, other = "https://shopping.api", "globex"
	issuer := m2mauthtest.NewIssuer()
	issuer.AddResource(api, "read:products", "write:products")
	issuer.AddRole("writer", api, "write:products")
	issuer.AddOrganizationRole("accountant", "", "read:invoices")
	issuer.AddOrganizationRole("manager", "", "manage:members", "read:invoices")
	issuer.AddOrganizationRole("reader", api, "read:products")
	issuer.AddOrganization(recordedOrganization)
	issuer.AddOrganization(other)
	member := issuer.AddApp("member", "writer")
	issuer.AddToOrganization(recordedOrganization, member.ID, "accountant", "manager")
	issuer.AddToOrganization(recordedOrganization, member.ID, "reader")
	issuer.AddToOrganization(other, member.ID, "accountant")
	without := issuer.AddApp("member without a role", "writer")
	issuer.AddToOrganization(recordedOrganization, without.ID)
	outside := issuer.AddApp("in no organization", "writer")

	const denied = `"error":"access_denied","error_description":"app has not associated with the organization"`
	for _, test := range []struct {
		name                          string
		app                           m2mauthtest.App
		organization, resource, scope string
		status                        int
		want                          string // in the body
		form                          string // a recorded token; "" = not compared
	}{
		{"an organization token", member, recordedOrganization, "", "manage:members read:invoices", 200, `"scope":"read:invoices manage:members"`, "organization.jwt"},
		{"an organization token without scopes", member, recordedOrganization, "", "", 200, `"scope":""`, "organization-no-scope-param.jwt"},
		{"an organization token of a member without a role", without, recordedOrganization, "", "read:invoices", 200, `"scope":""`, "organization-app-without-org-role.jwt"},
		{"a permission asked for twice", member, recordedOrganization, "", "read:invoices read:invoices", 200, `"scope":"read:invoices"`, ""},
		{"an API's scope in an organization token", member, recordedOrganization, "", "read:products", 200, `"scope":""`, ""},
		{"a role in another organization", member, other, "", "manage:members read:invoices", 200, `"scope":"read:invoices"`, ""},

		{"a token for an API", member, recordedOrganization, api, "read:products", 200, `"scope":"read:products"`, "organization-resource-read.jwt"},
		{"a token for an API without scopes", member, recordedOrganization, api, "", 200, `"token_type":"Bearer"}`, "organization-resource-no-scope-param.jwt"},
		{"an organization permission in a token for an API", member, recordedOrganization, api, "manage:members read:products", 200, `"scope":"read:products"`, "organization-resource-asks-org-scope.jwt"},
		{"a token for an API of a member without a role", without, recordedOrganization, api, "read:products write:products", 200, `"token_type":"Bearer"}`, "organization-resource-app-without-org-role.jwt"},
		{"the tenant's roles do not count in an organization", member, recordedOrganization, api, "write:products", 200, `"token_type":"Bearer"}`, ""},
		{"a role in another organization is none for an API", member, other, api, "read:products", 200, `"token_type":"Bearer"}`, ""},
		{"an organization's roles do not count outside", member, "", api, "read:products", 200, `"token_type":"Bearer"}`, "orgapp-resource-without-organization-id.jwt"},

		{"the reserved resource gives every app every permission", outside, "", "urn:logto:resource:organizations", "manage:members", 200, `"scope":"manage:members"`, "organization-reserved-resource.jwt"},

		{"the reserved resource gives no API's scope", outside, "", "urn:logto:resource:organizations", "manage:members read:products", 200, `"scope":"manage:members"`, ""},
		{"no member", outside, recordedOrganization, "", "", 403, denied, ""},
		{"no member, with a resource", outside, recordedOrganization, api, "", 403, denied, ""},
		{"an unknown organization", member, "nowhere", "", "", 403, denied, ""},
		{"the organization in another letter case", member, "Globex", "", "", 403, denied, ""},
		{"an unknown resource", member, recordedOrganization, api + "/", "", 400, `"error":"invalid_target"`, ""},
		{"an organization's audience as the resource", member, recordedOrganization, "urn:logto:organization:" + recordedOrganization, "", 400, `"error":"invalid_target"`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			form := url.Values{
				"grant_type": {"client_credentials"}, "client_id": {test.app.ID}, "client_secret": {test.app.Secret},
				"organization_id": {test.organization}, "resource": {test.resource}, "scope": {test.scope},
			}
			resp, body := do(t, issuer, "POST", issuer.TokenURL(), http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, form.Encode())
			assert.Equal(t, test.status, resp.StatusCode)
			assert.Contains(t, body, test.want)
			if test.form != "" {
				token := regexp.MustCompile(`"access_token":"([^"]*)"`).FindStringSubmatch(body)
				require.NotNil(t, token)
				sameForm(t, test.form, token[1])
			}
		})
	}
}
