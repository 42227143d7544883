package m2mauthtest_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestMistakesInTheSetUpPanicWithASentence(t *testing.T) {
	t.Parallel()
	const api = "https://shopping.api"
	tests := []struct {
		name    string
		mistake func(*m2mauthtest.Issuer)
		want    string
	}{
		{"a resource twice", func(i *m2mauthtest.Issuer) { i.AddResource(api) },
			`AddResource: the resource "https://shopping.api" is empty or exists already`},
		{"a resource without indicator", func(i *m2mauthtest.Issuer) { i.AddResource("") },
			`AddResource: the resource "" is empty or exists already`},
		{"a scope twice", func(i *m2mauthtest.Issuer) { i.AddResource("urn:x", "a", "b", "a") },
			`AddResource: the scope "a" is given twice`},
		{"a scope without name", func(i *m2mauthtest.Issuer) { i.AddResource("urn:x", "") },
			`AddResource: the scope "" is empty or has white space`},
		{"a scope with a space", func(i *m2mauthtest.Issuer) { i.AddResource("urn:x", "read products") },
			`AddResource: the scope "read products" is empty or has white space`},
		{"a scope with an ideographic space", func(i *m2mauthtest.Issuer) { i.AddResource("urn:x", "a\u3000b") },
			`AddResource: the scope "a\u3000b" is empty or has white space`},
		{"a role for an unknown resource", func(i *m2mauthtest.Issuer) { i.AddRole("r", api+"/", "read:products") },
			`AddRole: the resource "https://shopping.api/" is unknown`},
		{"a role with an unknown scope", func(i *m2mauthtest.Issuer) { i.AddRole("r", api, "READ:products") },
			`AddRole: the resource "https://shopping.api" has no scope "READ:products"`},
		{"a role of both kinds", func(i *m2mauthtest.Issuer) { i.AddUserRole("reader", api, "read:products") },
			`AddUserRole: the role "reader" is for machine-to-machine apps`},
		{"an app with a role for users", func(i *m2mauthtest.Issuer) { i.AddApp("x", "customer") },
			`AddApp: the role "customer" is for users, not for machine-to-machine apps`},
		{"an app with an unknown role", func(i *m2mauthtest.Issuer) { i.AddApp("x", "reader", "writer") },
			`AddApp: the role "writer" is unknown`},
		{"an app twice", func(i *m2mauthtest.Issuer) { i.AddApp("app") },
			`AddApp: there is an app named "app" already`},
		{"registering an app twice", func(i *m2mauthtest.Issuer) { i.RegisterApp(m2mauthtest.App{Name: "app"}) },
			`RegisterApp: there is an app named "app" already`},
		{"an app's ID twice", func(i *m2mauthtest.Issuer) {
			i.RegisterApp(m2mauthtest.App{Name: "x", ID: "id"})
			i.RegisterApp(m2mauthtest.App{Name: "z", ID: "id"})
		}, `RegisterApp: there is an app with the ID "id" already`},
		{"removing an unknown app", func(i *m2mauthtest.Issuer) { i.RemoveApp("app") },
			`RemoveApp: there is no app with the ID "app"`},
		{"a lifetime for an unknown resource", func(i *m2mauthtest.Issuer) { i.SetTokenLifetime("urn:x", time.Hour) },
			`SetTokenLifetime: the resource "urn:x" is unknown`},
		{"a lifetime too short", func(i *m2mauthtest.Issuer) { i.SetTokenLifetime(api, time.Millisecond) },
			`SetTokenLifetime: 1ms is shorter than a second`},
		{"an unknown default resource", func(i *m2mauthtest.Issuer) { i.SetDefaultResource("urn:x") },
			`SetDefaultResource: the resource "urn:x" is unknown`},
		{"an organization without ID", func(i *m2mauthtest.Issuer) { i.AddOrganization("") },
			`AddOrganization: the organization "" is empty or exists already`},
		{"an organization twice", func(i *m2mauthtest.Issuer) { i.AddOrganization("acme") },
			`AddOrganization: the organization "acme" is empty or exists already`},
		{"an organization role for an unknown resource", func(i *m2mauthtest.Issuer) { i.AddOrganizationRole("r", "urn:x", "a") },
			`AddOrganizationRole: the resource "urn:x" is unknown`},
		{"an organization role with an unknown scope", func(i *m2mauthtest.Issuer) { i.AddOrganizationRole("r", api, "READ:products") },
			`AddOrganizationRole: the resource "https://shopping.api" has no scope "READ:products"`},
		{"an organization permission with a space", func(i *m2mauthtest.Issuer) { i.AddOrganizationRole("r", "", "read invoices") },
			`AddOrganizationRole: the permission "read invoices" is empty or has white space`},
		{"a member of an unknown organization", func(i *m2mauthtest.Issuer) { i.AddToOrganization("globex", "app") },
			`AddToOrganization: the organization "globex" is unknown`},
		{"an unknown app as a member", func(i *m2mauthtest.Issuer) { i.AddToOrganization("acme", "app") },
			`AddToOrganization: there is no app with the ID "app"`},
		{"a member with a role that is none of organizations", func(i *m2mauthtest.Issuer) {
			i.AddToOrganization("acme", i.AddApp("member").ID, "reader")
		}, `AddToOrganization: the organization role "reader" is unknown`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			issuer := m2mauthtest.NewIssuer()
			issuer.AddResource(api, "read:products", "write:products")
			issuer.AddRole("reader", api, "read:products")
			issuer.AddUserRole("customer", api, "read:products")
			issuer.AddApp("app", "reader")
			issuer.AddOrganization("acme")
			assert.PanicsWithValue(t, "m2mauthtest: "+tt.want, func() { tt.mistake(issuer) })
			issuer.AddApp("another", "reader") // the issuer still works
		})
	}
}

func TestAnAppLooksLikeLogtos(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	a, b := issuer.AddApp("a"), issuer.AddApp("b")
	assert.Regexp(t, `^[a-z0-9]{21}$`, a.ID)
	assert.Equal(t, "a", a.Name)
	assert.NotEmpty(t, a.Secret)
	assert.NotEqual(t, a.ID, b.ID)
	assert.NotEqual(t, a.Secret, b.Secret)
}

// A team's settings name an app, which stays the same with every start of an issuer.
func TestARegisteredAppKeepsItsIDAndItsSecret(t *testing.T) {
	t.Parallel()
	issuer, _ := shop()
	given := m2mauthtest.App{Name: "billing", ID: "billing-id", Secret: "billing-secret"}
	assert.Equal(t, given, issuer.RegisterApp(given, "editor"))
	status, answer := request(t, issuer, given, url.Values{"scope": {"read:products"}})
	require.Equal(t, http.StatusOK, status)
	assert.Equal(t, "read:products", *answer.Scope)
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	require.NoError(t, err)
	claims, err := guard.Verify(t.Context(), answer.AccessToken)
	require.NoError(t, err)
	assert.Equal(t, "billing-id", claims.AppID())

	made := issuer.RegisterApp(m2mauthtest.App{Name: "another"})
	assert.Regexp(t, `^[a-z0-9]{21}$`, made.ID)
	assert.NotEmpty(t, made.Secret)
}
