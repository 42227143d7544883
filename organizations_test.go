package m2mauth_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const organizationToken = "urn:logto:organization:"

func ofOrganizations(c *m2mauth.Config) { c.Audience = organizationToken }

// TestTokensOfOrganizationsOnEveryEntry has the three models of Logto and what an
// attacker would try: a role in one organization used in another or for all, and
// tokens of one model where another is expected.
func TestTokensOfOrganizationsOnEveryEntry(t *testing.T) {
	t.Parallel()
	const ok = ""
	issuer := m2mauthtest.NewIssuer()
	guards := map[string]*m2mauth.Guard{
		"API":           quietGuard(t, issuer),
		"organizations": quietGuard(t, issuer, ofOrganizations),
		"API, open":     quietGuard(t, issuer, func(c *m2mauth.Config) { c.InsecureAllowOrganizationTokens = true }),
	}
	acme := m2mauth.AllOf(m2mauth.OrganizationPath("org"), m2mauth.AllScopes("read"))
	for _, test := range []struct {
		name   string
		guard  string
		token  m2mauthtest.Token
		global string // Check with a rule of no organization
		acme   string // Check of /orgs/acme
		verify string // Verify, and Authenticate where that can be set up
	}{
		{"a token of no organization", "API", m2mauthtest.Token{}, ok, "ErrForbidden", ok},
		{"an API token of the organization", "API", m2mauthtest.Token{OrganizationID: "acme"}, "ErrForbidden", ok, "ErrForbidden"},
		{"an API token of another organization", "API", m2mauthtest.Token{OrganizationID: "globex"}, "ErrForbidden", "ErrForbidden", "ErrForbidden"},
		{"another letter case", "API", m2mauthtest.Token{OrganizationID: "ACME"}, "ErrForbidden", "ErrForbidden", "ErrForbidden"},
		{"a space after", "API", m2mauthtest.Token{OrganizationID: "acme "}, "ErrForbidden", "ErrForbidden", "ErrForbidden"},
		{"a prefix", "API", m2mauthtest.Token{OrganizationID: "acm"}, "ErrForbidden", "ErrForbidden", "ErrForbidden"},
		{"an empty organization", "API", m2mauthtest.Token{Claims: map[string]any{"organization_id": ""}}, "ErrClaims", "ErrClaims", "ErrClaims"},
		{"organizations in an array", "API", m2mauthtest.Token{Claims: map[string]any{"organization_id": []string{"acme"}}}, "ErrClaims", "ErrClaims", "ErrClaims"},
		{"an organization token", "API", m2mauthtest.Token{Audience: organizationToken + "acme"}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"an organization token that names the API too", "API", m2mauthtest.Token{Claims: map[string]any{"aud": []string{shop, organizationToken + "acme"}}}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"the reserved resource", "API", m2mauthtest.Token{Audience: "urn:logto:resource:organizations"}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"the reserved resource beside the API", "API", m2mauthtest.Token{Claims: map[string]any{"aud": []string{"urn:logto:resource:organizations", shop}}}, "ErrAudience", "ErrAudience", "ErrAudience"},

		{"an API token of the organization", "API, open", m2mauthtest.Token{OrganizationID: "acme"}, ok, ok, ok},
		{"an API token of another organization", "API, open", m2mauthtest.Token{OrganizationID: "globex"}, ok, "ErrForbidden", ok},
		{"an organization token", "API, open", m2mauthtest.Token{Audience: organizationToken + "acme"}, "ErrAudience", "ErrAudience", "ErrAudience"},

		{"an organization token", "organizations", m2mauthtest.Token{Audience: organizationToken + "acme"}, "ErrForbidden", ok, "ErrForbidden"},
		{"an organization token in an array", "organizations", m2mauthtest.Token{Claims: map[string]any{"aud": []string{organizationToken + "acme"}}}, "ErrForbidden", ok, "ErrForbidden"},
		{"a token of another organization", "organizations", m2mauthtest.Token{Audience: organizationToken + "globex"}, "ErrForbidden", "ErrForbidden", "ErrForbidden"},
		{"another letter case", "organizations", m2mauthtest.Token{Audience: organizationToken + "Acme"}, "ErrForbidden", "ErrForbidden", "ErrForbidden"},
		{"the prefix in another letter case", "organizations", m2mauthtest.Token{Audience: "urn:logto:Organization:acme"}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"an empty organization", "organizations", m2mauthtest.Token{Audience: organizationToken}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"two organizations", "organizations", m2mauthtest.Token{Claims: map[string]any{"aud": []string{organizationToken + "acme", organizationToken + "globex"}}}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"the same organization twice", "organizations", m2mauthtest.Token{Claims: map[string]any{"aud": []string{organizationToken + "acme", organizationToken + "acme"}}}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"no audience", "organizations", m2mauthtest.Token{Claims: map[string]any{"aud": []string{}}}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"an organization and an API", "organizations", m2mauthtest.Token{Claims: map[string]any{"aud": []string{organizationToken + "acme", shop}}}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"an organization in both places", "organizations", m2mauthtest.Token{Audience: organizationToken + "acme", OrganizationID: "acme"}, "ErrClaims", "ErrClaims", "ErrClaims"},
		{"an API token of the organization", "organizations", m2mauthtest.Token{Audience: shop, OrganizationID: "acme"}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"an API token", "organizations", m2mauthtest.Token{Audience: shop}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"the reserved resource", "organizations", m2mauthtest.Token{Audience: "urn:logto:resource:organizations"}, "ErrAudience", "ErrAudience", "ErrAudience"},
		{"an ID token", "organizations", m2mauthtest.Token{Audience: organizationToken + "acme", Header: map[string]any{"typ": "JWT"}}, "ErrType", "ErrType", "ErrType"},
	} {
		t.Run(test.name+" and a guard for "+test.guard, func(t *testing.T) {
			t.Parallel()
			guard := guards[test.guard]
			if test.token.Audience == "" {
				test.token.Audience = shop
			}
			test.token.Scopes = []string{"read"}
			raw := issuer.Sign(test.token)
			r := httptest.NewRequest(http.MethodGet, "/orgs/acme", nil)
			r.Header.Set("Authorization", "Bearer "+raw)
			r.SetPathValue("org", "acme")

			for range 2 { // at first sight, and remembered
				_, err := guard.Check(r, m2mauth.AllScopes("read"))
				assertKind(t, test.global, err)
				_, err = guard.Check(r, m2mauth.AnyToken())
				assertKind(t, test.verify, err)
				_, err = guard.Verify(t.Context(), raw)
				assertKind(t, test.verify, err)
				claims, err := guard.Check(r, acme)
				assertKind(t, test.acme, err)
				if test.acme == ok {
					assert.Equal(t, "acme", claims.OrganizationID())
				}
				if test.guard == "organizations" {
					continue // where Authenticate and Require panic at set-up
				}
				statuses := map[string]int{ok: 200, "ErrForbidden": 403, "ErrAudience": 401, "ErrClaims": 401}
				w := httptest.NewRecorder()
				guard.Authenticate(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
				assert.Equal(t, statuses[test.verify], w.Code, "Authenticate")
				w = httptest.NewRecorder()
				guard.Require("read")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
				assert.Equal(t, statuses[test.global], w.Code, "Require")
			}
		})
	}
}

// TestEveryGuardSeesOrganizations: there is no Config with which a rule that names
// an organization could never hold.
func TestEveryGuardSeesOrganizations(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	jwt := map[string]any{"typ": "JWT"}
	for _, test := range []struct {
		name   string
		change func(*m2mauth.Config)
		token  m2mauthtest.Token
	}{
		{"for an API", func(*m2mauth.Config) {}, m2mauthtest.Token{OrganizationID: "acme"}},
		{"for several APIs", func(c *m2mauth.Config) { c.OtherAudiences = []string{"https://other.api"} }, m2mauthtest.Token{OrganizationID: "acme"}},
		{"that lets all organizations through", func(c *m2mauth.Config) { c.InsecureAllowOrganizationTokens = true }, m2mauthtest.Token{OrganizationID: "acme"}},
		{"for other token types", func(c *m2mauth.Config) { c.TokenTypes = []string{"JWT"} }, m2mauthtest.Token{OrganizationID: "acme", Header: jwt}},
		{"with other claims", func(c *m2mauth.Config) {
			c.ScopeClaims, c.ClientClaims, c.MaxLifetime = []string{"roles"}, []string{"azp"}, time.Hour
		}, m2mauthtest.Token{OrganizationID: "acme", Claims: map[string]any{"azp": "app"}}},
		{"with claims that are the organization's", func(c *m2mauth.Config) {
			c.ScopeClaims, c.ClientClaims = []string{"organization_id"}, []string{"organization_id"}
		}, m2mauthtest.Token{OrganizationID: "acme"}},
		{"without machines", func(c *m2mauth.Config) { c.IsMachine = func(m2mauth.Claims) bool { return false } }, m2mauthtest.Token{OrganizationID: "acme"}},
		{"for organization tokens", ofOrganizations, m2mauthtest.Token{Audience: organizationToken + "acme"}},
		{"for organization tokens that lets all through", func(c *m2mauth.Config) { ofOrganizations(c); c.InsecureAllowOrganizationTokens = true },
			m2mauthtest.Token{Audience: organizationToken + "acme"}},
	} {
		t.Run("a guard "+test.name, func(t *testing.T) {
			t.Parallel()
			guard := quietGuard(t, issuer, test.change)
			if test.token.Audience == "" {
				test.token.Audience = shop
			}
			for _, guard := range []*m2mauth.Guard{guard, joined(t, guard)} {
				r := requestWith("Bearer " + issuer.Sign(test.token))
				r.SetPathValue("org", "acme")
				w := httptest.NewRecorder()
				guard.RequireRule(m2mauth.OrganizationPath("org"))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
				assert.Equal(t, http.StatusOK, w.Code)
			}
		})
	}
}

// TestTheRemedyFitsTheKindOfToken: an organization token without its organization
// would be no token at all.
func TestTheRemedyFitsTheKindOfToken(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	elsewhere := m2mauth.AnyOf(m2mauth.OrganizationHeader("X-Organization"), m2mauth.AnyToken()) // met, but not by the organization
	const remedy = "request a token without organization_id"
	api, organizations := quietGuard(t, issuer), quietGuard(t, issuer, ofOrganizations)
	for _, rule := range []m2mauth.Rule{m2mauth.AnyToken(), elsewhere} {
		_, err := api.Check(requestWith("Bearer "+issuer.Sign(m2mauthtest.Token{Audience: shop, OrganizationID: "acme"})), rule)
		require.ErrorIs(t, err, m2mauth.ErrForbidden)
		assert.ErrorContains(t, err, remedy)
		_, err = organizations.Check(requestWith("Bearer "+issuer.Token(organizationToken+"acme")), rule)
		require.ErrorIs(t, err, m2mauth.ErrForbidden)
		assert.ErrorContains(t, err, "no organization token opens it")
		assert.NotContains(t, err.Error(), remedy)
	}
}

func TestAGuardForOrganizationTokensMayLeaveTheOrganizationToItsHandlers(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer, ofOrganizations, func(c *m2mauth.Config) { c.InsecureAllowOrganizationTokens = true })
	assert.NotPanics(t, func() { guard.Require("read") })
	claims, err := guard.Verify(t.Context(), issuer.Token(organizationToken+"acme", "read"))
	require.NoError(t, err)
	assert.Equal(t, "acme", claims.OrganizationID())
}

// TestRecordedOrganizationTokens has what the recorded server grants without a
// resource, and what a guard for such tokens must refuse of what it grants else.
func TestRecordedOrganizationTokens(t *testing.T) {
	t.Parallel()
	organization := m2mauth.OrganizationPath("org")
	rules := []m2mauth.Rule{ // the columns
		organization,
		m2mauth.AllOf(organization, m2mauth.AllScopes("read:invoices")),
		m2mauth.AllOf(organization, m2mauth.AllScopes("manage:members", "read:invoices")),
		m2mauth.AllOf(organization, m2mauth.MachineToken()),
		m2mauth.AllOf(organization, m2mauth.AllScopes("read:products")),
	}
	for _, test := range recordedOrganizationFates {
		t.Run(test.file+" for "+test.path, func(t *testing.T) {
			t.Parallel()
			token, keys := strings.TrimSpace(string(recordedFile(t, test.file))), recordedFile(t, test.keys)
			synctest.Test(t, func(t *testing.T) {
				sleepUntil(time.Unix(test.clock, 0))
				config := m2mauth.Config{
					Issuer: "http://localhost:3001/oidc", Audience: organizationToken, JWKS: keys,
					Logger: slog.New(slog.DiscardHandler),
				}
				guard, err := m2mauth.New(config)
				require.NoError(t, err)
				got := make([]byte, len(rules))
				for i, rule := range rules {
					r := httptest.NewRequest(http.MethodGet, "/orgs/"+test.path+"/invoices", nil)
					r.Header.Set("Authorization", "Bearer "+token)
					got[i] = byte(fateOf(t, guard, rule, "GET /orgs/{org}/invoices", r))
				}
				assert.Equal(t, test.want, string(got))

				if test.organization != "" {
					config.InsecureAllowOrganizationTokens = true
					guard, err = m2mauth.New(config)
					require.NoError(t, err)
					claims, err := guard.Verify(t.Context(), token)
					require.NoError(t, err)
					assert.Equal(t, test.organization, claims.OrganizationID())
				}
			})
		})
	}
}

var recordedOrganizationFates = []struct {
	file, keys   string
	clock        int64
	path         string
	want         string
	organization string
}{
	{"organization.jwt", "jwks-1-initial.json", 1795207148, recordedOrganization, "....s", recordedOrganization},
	{"organization.jwt", "jwks-1-initial.json", 1795207148, "another", "ffffs", ""},
	{"organization.jwt", "jwks-1-initial.json", 1795207148, "VSXYA5MY4BM6", "ffffs", ""},
	{"organization-no-scope-param.jwt", "jwks-1-initial.json", 1795207148, recordedOrganization, ".ss.s", recordedOrganization},
	{"organization-app-without-org-role.jwt", "jwks-1-initial.json", 1795207148, recordedOrganization, ".ss.s", recordedOrganization},
	{"rs256-organization.jwt", "jwks-3-after-rsa-rotation.json", 1795207327, recordedOrganization, "....s", recordedOrganization},
	{"user-organization.jwt", "jwks-1-initial.json", 1795207250, recordedOrganization, "..sfs", recordedOrganization},
	{"organization-reserved-resource.jwt", "jwks-1-initial.json", 1795207148, recordedOrganization, "uuuuu", ""},
	{"organization-resource.jwt", "jwks-1-initial.json", 1795207148, recordedOrganization, "uuuuu", ""},
	{"m2m-read.jwt", "jwks-1-initial.json", 1795207147, recordedOrganization, "uuuuu", ""},
	{"id-token.jwt", "jwks-1-initial.json", 1795207251, recordedOrganization, "uuuuu", ""},
}

// TestWhereTheOrganizationOfARequestIsMissing: it never equals anything.
func TestWhereTheOrganizationOfARequestIsMissing(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	sign := func(organization string) string {
		return "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: shop, OrganizationID: organization})
	}
	path, header := m2mauth.OrganizationPath("org"), m2mauth.OrganizationHeader("X-Organization")
	for _, test := range []struct {
		name          string
		rule          m2mauth.Rule
		pattern, path string
		headers       []string
		organization  string // of the token
		want          fate
	}{
		{"the organization in the path", path, "GET /orgs/{org}", "/orgs/acme", nil, "acme", passes},
		{"the path's bytes as they were meant", path, "GET /orgs/{org}", "/orgs/%61cme", nil, "acme", passes},
		{"an organization ID with a slash", path, "GET /orgs/{org}", "/orgs/ac%2Fme", nil, "ac/me", passes},
		{"an umlaut in two normal forms", path, "GET /orgs/{org}", "/orgs/a%CC%88", nil, "\u00e4", noWay},
		{"a longer path value", path, "GET /orgs/{org...}", "/orgs/acme/x", nil, "acme", noWay},
		{"an empty path value", path, "GET /orgs/{org...}", "/orgs/", nil, "acme", noWay},
		{"an empty path value and a token of no organization", path, "GET /orgs/{org...}", "/orgs/", nil, "", noWay},
		{"another wildcard", path, "GET /orgs/{organization}", "/orgs/acme", nil, "acme", noWay},
		{"another wildcard and a token of no organization", path, "GET /orgs/{organization}", "/orgs/acme", nil, "", noWay},
		{"a header in place of the path", path, "GET /orgs", "/orgs", []string{"acme"}, "acme", noWay},

		{"the organization in the header", header, "GET /", "/", []string{"acme"}, "acme", passes},
		{"no header", header, "GET /", "/", nil, "acme", noWay},
		{"no header and a token of no organization", header, "GET /", "/", nil, "", noWay},
		{"an empty header", header, "GET /", "/", []string{""}, "acme", noWay},
		{"an empty header and a token of no organization", header, "GET /", "/", []string{""}, "", noWay},
		{"the header twice", header, "GET /", "/", []string{"acme", "acme"}, "acme", noWay},
		{"the header twice, the other first", header, "GET /", "/", []string{"globex", "acme"}, "acme", noWay},
		{"the header twice, the other last", header, "GET /", "/", []string{"acme", "globex"}, "acme", noWay},
		{"two in a header", header, "GET /", "/", []string{"acme, acme"}, "acme", noWay},
		{"another letter case in the header", header, "GET /", "/", []string{"Acme"}, "acme", noWay},
		{"a space in the header", header, "GET /", "/", []string{"acme "}, "acme", noWay},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			guard := quietGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			r := httptest.NewRequest(http.MethodGet, test.path, nil)
			r.Header.Set("Authorization", sign(test.organization))
			if test.headers != nil {
				r.Header["X-Organization"] = test.headers
			}
			assert.Equal(t, string(test.want), string(fateOf(t, guard, test.rule, test.pattern, r)))
			if test.want == noWay {
				assert.Contains(t, log.String(), `pattern="`+test.pattern+`"`)
			}
		})
	}
}
