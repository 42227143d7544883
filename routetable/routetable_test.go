package routetable_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/routetable"
)

type route = routetable.Route

func newGuard(t *testing.T, audience string) *m2mauth.Guard {
	t.Helper()
	guard, err := m2mauth.New(m2mauthtest.NewIssuer().Config(audience))
	require.NoError(t, err)
	return guard
}

func TestAnEntryIsPickedByMethodAndPath(t *testing.T) {
	t.Parallel()
	read, write := m2mauth.AllScopes("read"), m2mauth.AllScopes("write")
	table := routetable.New(newGuard(t, "https://shopping.api"), map[string]m2mauth.Rule{
		"GET /products": read, "/products": write, "PUT  /blanks": read, "POST /mixed": write,
	}, "/healthz", "GET /mixed")
	for _, test := range []struct {
		route  route
		rule   m2mauth.Rule
		public bool
	}{
		{route{"GET", "/products"}, read, false},
		{route{"POST", "/products"}, write, false},
		{route{"", "/products"}, write, false},
		{route{"HEAD", "/products"}, write, false},
		{route{"get", "/products"}, write, false},
		{route{"PUT", "/blanks"}, read, false},
		{route{"GET", "/healthz"}, m2mauth.Rule{}, true},
		{route{"GET", "/mixed"}, m2mauth.Rule{}, true},
		{route{"POST", "/mixed"}, write, false},
		{route{"DELETE", "/mixed"}, m2mauth.Rule{}, false},
		{route{"GET", "/products/"}, m2mauth.Rule{}, false},
		{route{"GET", "/products/:id"}, m2mauth.Rule{}, false},
		{route{"GET", "/healthz/deep"}, m2mauth.Rule{}, false},
		{route{"GET", ""}, m2mauth.Rule{}, false},
		{route{"", ""}, m2mauth.Rule{}, false},
	} {
		rule, public := table.Rule(test.route)
		assert.Equal(t, test.rule.String(), rule.String(), test.route)
		assert.Equal(t, test.public, public, test.route)
	}
	assert.True(t, table.Has(route{"GET", "/products"}))
	assert.False(t, table.Has(route{"HEAD", "/products"}))
	require.NoError(t, table.Validate(route{"GET", "/products"}, route{"", "/products"}, route{"PUT", "/blanks"},
		route{"POST", "/mixed"}, route{"GET", "/mixed"}, route{"GET", "/healthz"}, route{"GET", "/healthz"}))
}

func TestValidateNamesEveryMistake(t *testing.T) {
	t.Parallel()
	org := m2mauth.OrganizationPath("org")
	table := routetable.New(newGuard(t, "urn:logto:organization:"), map[string]m2mauth.Rule{
		"GET /zero": {}, "GET /scopes": m2mauth.AllScopes("read"), "GET /both": org, "GET /twice": org, "GET  /twice": org,
		"": org, "GET": org, "products": org, "GET\t/tab": org, "GET /a b": org, "/spare": org, "GET /spare": org,
	}, "GET /both", "GET /public", "/public2", "/public2")
	err := table.Validate(route{"GET", "/zero"}, route{"GET", "/scopes"}, route{"GET", "/both"}, route{"GET", "/twice"},
		route{"GET", "/forgotten"}, route{"GET", "/forgotten"}, route{"", "/all"}, route{"GET", "/spare"})
	require.Error(t, err)
	assert.Equal(t, strings.TrimSpace(`
m2mauth: Routes: "" is no route: write a method and a path, such as GET /products, or a path alone
m2mauth: Routes: "GET" is no route: write a method and a path, such as GET /products, or a path alone
m2mauth: Routes: "GET\t/tab" is no route: write a method and a path, such as GET /products, or a path alone
m2mauth: Routes: "GET /a b" is no route: write a method and a path, such as GET /products, or a path alone
m2mauth: Routes: "GET /scopes": m2mauth: AllScopes("read") names no organization, and this Guard is for organization tokens; add Organization, OrganizationPath or OrganizationHeader
m2mauth: Routes: "GET /twice" comes twice
m2mauth: Routes: "GET /zero": m2mauth: the zero Rule lets nobody through; make one with AllScopes, AnyScope or AnyToken
m2mauth: Routes: "products" is no route: write a method and a path, such as GET /products, or a path alone
m2mauth: Routes: "GET /both" has a rule and is public
m2mauth: Routes: "/public2" comes twice
m2mauth: Routes: "/all" has no rule and is not public: it lets nobody through
m2mauth: Routes: "/public2" is public, and there is no such route
m2mauth: Routes: "/spare" has a rule, and there is no such route
m2mauth: Routes: "GET /forgotten" has no rule and is not public: it lets nobody through
m2mauth: Routes: "GET /public" is public, and there is no such route`), err.Error())
	for _, path := range []string{"/zero", "/scopes", "/both"} {
		rule, public := table.Rule(route{"GET", path})
		assert.Equal(t, "Rule{} false", rule.String()+map[bool]string{false: " false", true: " true"}[public], path)
	}
}

func TestAGuardThatIsNone(t *testing.T) {
	t.Parallel()
	for _, guard := range []*m2mauth.Guard{nil, {}} {
		table := routetable.New(guard, map[string]m2mauth.Rule{"GET /products": m2mauth.AnyToken()}, "/healthz")
		require.ErrorContains(t, table.Validate(), "m2mauth: Routes: m2mauth: the Guard is nil or was not made by New")
		_, public := table.Rule(route{"GET", "/healthz"})
		assert.False(t, public)
	}
}
