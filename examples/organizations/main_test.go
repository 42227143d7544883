package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config(resource)
	forAPI, forOrganizations, err := newGuards(config)
	require.NoError(t, err)
	api := routes(forAPI, forOrganizations)
	const organization = "urn:logto:organization:"
	bearer := func(audience, organization string, scopes ...string) string {
		return "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: audience, OrganizationID: organization, Scopes: scopes})
	}
	const products = `"products":[{"id":1,"name":"Coffee grinder"},{"id":2,"name":"Kettle"}]}`

	for _, test := range []struct {
		name, path, authorization string
		status                    int
		body                      string // JSON; "" = not looked at
	}{
		{"healthz is public", "/healthz", "", 200, `{"status":"ok"}`},
		{"products of all", "/products", bearer(resource, "", "read:products"), 200, `{` + products},
		{"products of all need the scope", "/products", bearer(resource, "", "read:invoices"), 403, ""},
		{"products of all are not for an organization's token", "/products", bearer(resource, "acme", "read:products"), 403, ""},
		{"products of all are not for an organization token", "/products", bearer(organization+"acme", "", "read:products"), 401, ""},
		{"products of all without a token", "/products", "", 401, ""},

		{"an organization's products", "/orgs/acme/products", bearer(resource, "acme", "read:products"), 200, `{"organization":"acme",` + products},
		{"an organization's products need the scope", "/orgs/acme/products", bearer(resource, "acme"), 403, ""},
		{"another organization's products", "/orgs/globex/products", bearer(resource, "acme", "read:products"), 403, ""},
		{"an organization's products and a token of none", "/orgs/acme/products", bearer(resource, "", "read:products"), 403, ""},
		{"an organization's products and an organization token", "/orgs/acme/products", bearer(organization+"acme", "", "read:products"), 401, ""},

		{"an organization's invoices", "/orgs/acme/invoices", bearer(organization+"acme", "", "read:invoices"), 200, `{"organization":"acme","invoices":[1,2]}`},
		{"an organization's invoices need the scope", "/orgs/acme/invoices", bearer(organization+"acme", "", ""), 403, ""},
		{"another organization's invoices", "/orgs/globex/invoices", bearer(organization+"acme", "", "read:invoices"), 403, ""},
		{"an organization's invoices and an API token of it", "/orgs/acme/invoices", bearer(resource, "acme", "read:invoices"), 401, ""},
		{"an organization's invoices and the reserved resource", "/orgs/acme/invoices", bearer("urn:logto:resource:organizations", "", "read:invoices"), 401, ""},
		{"no organization", "/orgs//invoices", bearer(organization+"acme", "", "read:invoices"), 307, ""},
		{"a path that no route has", "/orgs/acme", bearer(organization+"acme", "", "read:invoices"), 404, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodGet, test.path, nil)
			if test.authorization != "" {
				r.Header.Set("Authorization", test.authorization)
			}
			w := httptest.NewRecorder()
			api.ServeHTTP(w, r)
			assert.Equal(t, test.status, w.Code)
			if test.body != "" {
				assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
				assert.JSONEq(t, test.body, w.Body.String())
			}
		})
	}
}

func TestDemoPrintsWhatEachCallerGets(t *testing.T) {
	var out strings.Builder
	require.NoError(t, demo(t.Context(), &out))
	assert.Equal(t, 14, strings.Count(out.String(), "\n"))
	assert.NotContains(t, out.String(), "NOT EXPECTED")
	assert.Regexp(t, `partner +for https://shopping.api in acme +GET /orgs/globex/products +403 +the token is of acme\n`, out.String())
}

func TestRunReadsTheEnvironment(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // so that run stops as soon as it has started
	env := map[string]string{
		"ISSUER": "http://logto:3001/oidc", "AUDIENCE": resource, "JWKS_URL": "http://keys/oidc/jwks",
		"PLAIN_HTTP_HOSTS": "logto, keys", "ADDR": "127.0.0.1:0",
	}
	assert.NoError(t, run(ctx, func(name string) string { return env[name] }))
	err := run(ctx, func(string) string { return "" })
	assert.ErrorContains(t, err, "Config.Issuer")
	assert.ErrorContains(t, err, "Config.Audience")
}
