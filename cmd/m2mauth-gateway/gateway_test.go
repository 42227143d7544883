package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	audience = "https://shopping.api"
	app      = "w6z5pxrjv1vl8vk2vy9qk"
)

func newGateway(t *testing.T, issuer *m2mauthtest.Issuer) *gateway {
	t.Helper()
	return gatewayOf(t, readRules(t), issuer.Config(audience))
}

// gatewayOf returns a gateway with these guards and this table, as a file makes it.
func gatewayOf(t *testing.T, rules table, configs ...m2mauth.Config) *gateway {
	t.Helper()
	g := &gateway{metrics: newMetrics()}
	gen := &generation{settings: new(settings), rules: rules}
	for _, config := range configs {
		guard, err := m2mauth.New(observed(config, g.metrics))
		require.NoError(t, err)
		gen.issuers = append(gen.issuers, &trusted{name: config.Issuer, issuer: config.Issuer, guard: guard})
	}
	require.NoError(t, g.metrics.observe(gen, time.Now()))
	g.current.Store(gen)
	return g
}

// fronts ask a gateway in every way there is. Envoy is in envoy_test.go.
var fronts = map[string]struct{ path, method, uri string }{
	"nginx":        {"/nginx", "X-Original-Method", "X-Original-URI"},
	"forward auth": {"/forward-auth", "X-Forwarded-Method", "X-Forwarded-Uri"},
}

func ask(g *gateway, path string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	g.routes().ServeHTTP(w, r)
	return w
}

// requests are what every front answers alike.
func requests(issuer *m2mauthtest.Issuer) []request {
	bearer := func(scopes ...string) string {
		return "Bearer " + issuer.Sign(m2mauthtest.Token{AppID: app, Audience: audience, Scopes: scopes})
	}
	user := "Bearer " + issuer.Sign(m2mauthtest.Token{AppID: app, Audience: audience, Claims: map[string]any{"sub": "u1"}})
	odd := "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: audience, Scopes: []string{"a,b", "é"},
		Claims: map[string]any{"sub": "x\r\nX-Auth-Scopes: all%0A\"é", "client_id": "auth0|1@clients"}})
	long := "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: audience, Claims: map[string]any{"sub": strings.Repeat("é", 1500)}})
	organization := "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: audience, OrganizationID: "acme", Scopes: []string{"read:products"}})
	reader := bearer("read:products")
	client := "https://app.example/" + strings.Repeat("a", 2048-20) // a client ID may be such a URL, and then also an app's sub
	byURL := "Bearer " + issuer.Sign(m2mauthtest.Token{AppID: client, Audience: audience, Scopes: []string{"read:products"}})

	return []request{
		{name: "public", method: "GET", target: "/healthz", status: 204},
		{name: "public with a bad token", method: "GET", target: "/healthz", authorization: "Bearer x", status: 204},
		{name: "the scope", method: "GET", target: "/products?page=2", authorization: reader, status: 204, identity: []string{app, app, app, "read:products"}},
		{name: "HEAD follows GET", method: "HEAD", target: "/products", authorization: reader, status: 204, identity: []string{app, app, app, "read:products"}},
		{name: "a wildcard", method: "GET", target: "/products/7", authorization: reader, status: 204, identity: []string{app, app, app, "read:products"}},
		{name: "one of two scopes", method: "GET", target: "/files/a/b", authorization: bearer("write:files"), status: 204, identity: []string{app, app, app, "write:files"}},
		{name: "no scopes", method: "GET", target: "/whoami", authorization: bearer(), status: 204, identity: []string{app, app, app, ""}},
		{name: "a user has no app", method: "GET", target: "/whoami", authorization: user, status: 204, identity: []string{"u1", app, "", ""}},
		{name: "odd claims are encoded", method: "GET", target: "/whoami", authorization: odd, status: 204,
			identity: []string{"x%0D%0AX-Auth-Scopes:%20all%250A%22%C3%A9", "auth0|1@clients", "", "a%2Cb %C3%A9"}},

		{name: "a client whose ID is a long URL", method: "GET", target: "/products", authorization: byURL, status: 204, identity: []string{client, client, client, "read:products"}},
		{name: "claims too long", method: "GET", target: "/whoami", authorization: long, status: 403, code: "insufficient_scope"},
		{name: "an organization's token", method: "GET", target: "/products", authorization: organization, status: 403, code: "insufficient_scope", challenged: true},
		{name: "scope missing", method: "POST", target: "/products", authorization: reader, status: 403, code: "insufficient_scope", challenged: true},
		{name: "one scope of two", method: "GET", target: "/products/export", authorization: reader, status: 403, code: "insufficient_scope", challenged: true},
		{name: "no token", method: "GET", target: "/products", status: 401, code: "unauthorized", challenged: true},
		{name: "bad token", method: "GET", target: "/products", authorization: reader + "x", status: 401, code: "invalid_token", challenged: true},
		{name: "Bearer without a token", method: "GET", target: "/products", authorization: "Bearer", status: 400, code: "invalid_request", challenged: true},
		{name: "no row, no token", method: "GET", target: "/nothing", status: 401, code: "unauthorized", challenged: true},
		{name: "no row", method: "GET", target: "/nothing", authorization: reader, status: 403, code: "insufficient_scope", challenged: true},
		{name: "no row for the method", method: "OPTIONS", target: "/products", authorization: reader, status: 403, code: "insufficient_scope", challenged: true},
		{name: "another letter case without a row", method: "GET", target: "/Products", authorization: reader, status: 403, code: "insufficient_scope", challenged: true},
		{name: "another letter case", method: "GET", target: "/products/Export", authorization: reader, status: 400, code: "invalid_request"},
		{name: "a trick", method: "GET", target: "/healthz/..;/products", authorization: reader, status: 400, code: "invalid_request"},
		{name: "method in lower case", method: "get", target: "/healthz", status: 400, code: "invalid_request"},
		{name: "method with a comma", method: "GET,POST", target: "/healthz", status: 400, code: "invalid_request"},
		{name: "forged subject", method: "GET", target: "/healthz", field: "X-Auth-Subject", status: 400, code: "invalid_request"},
		{name: "forged issuer", method: "GET", target: "/healthz", field: "X-Auth-Issuer", status: 400, code: "invalid_request"},
		{name: "forged organization", method: "GET", target: "/healthz", field: "x_auth_organization", status: 400, code: "invalid_request"},
		{name: "forged subject in lower case", method: "GET", target: "/healthz", field: "x-auth-subject", status: 400, code: "invalid_request"},
		{name: "forged scopes with underscores", method: "GET", target: "/healthz", field: "X_Auth_Scopes", status: 400, code: "invalid_request"},
		{name: "forged app with an underscore", method: "GET", target: "/healthz", field: "x-auth_app", status: 400, code: "invalid_request"},
		{name: "forged subject with dots", method: "GET", target: "/healthz", field: "X.Auth.Subject", status: 400, code: "invalid_request"},
		{name: "forged scopes with other signs", method: "GET", target: "/healthz", field: "X~Auth+Scopes", status: 400, code: "invalid_request"},
		{name: "another method for PHP", method: "GET", target: "/healthz", field: "X.HTTP.Method.Override", status: 400, code: "invalid_request"},
		{name: "another method for some", method: "GET", target: "/products", authorization: reader, field: "X-HTTP-Method-Override", status: 400, code: "invalid_request"},
		{name: "another method for others", method: "GET", target: "/products", authorization: reader, field: "X_Method_Override", status: 400, code: "invalid_request"},
		{name: "another path for some", method: "GET", target: "/healthz", field: "X-Original-URL", status: 400, code: "invalid_request"},
		{name: "another path for others", method: "GET", target: "/healthz", field: "X-Rewrite-Url", status: 400, code: "invalid_request"},
		{name: "a field of the API's own", method: "GET", target: "/healthz", field: "X-Auth-Token", status: 204},
	}
}

// forbidden are the fields that no caller may send, in whatever spelling.
var forbidden = []string{
	"X-Auth-Issuer", "X-Auth-Subject", "X-Auth-Client", "X-Auth-App", "X-Auth-Organization", "X-Auth-Scopes", "X-Auth-Decision",
	"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override",
	"X-Original-URL", "X-Rewrite-URL",
	"Script-Name", "Path-Info", "X-Script-Name", "X-Forwarded-Prefix",
}

// spellings returns a field's name as some API could take it for the same.
func spellings(name string) []string {
	return []string{
		name, strings.ToLower(name), strings.ToUpper(name), strings.Replace(name, "-", "_", 1),
		strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", "."), strings.ReplaceAll(name, "-", "~"),
	}
}

func TestNoFieldThatIsForbiddenIsLetThroughInAnySpelling(t *testing.T) {
	t.Parallel()
	assert.ElementsMatch(t, forbidden, slices.Concat(identityFields, overrides))
	page, err := os.ReadFile("../../docs/gateway.md")
	require.NoError(t, err)
	g := newGateway(t, m2mauthtest.NewIssuer())
	client := envoy(t, g)
	for _, name := range forbidden {
		assert.True(t, strings.Contains(string(page), "`"+name+"`"), "docs/gateway.md does not name %s", name)
		for _, spelled := range spellings(name) {
			for front, f := range fronts {
				header := http.Header{spelled: {"/"}}
				header.Set(f.method, "GET")
				header.Set(f.uri, "/healthz")
				assert.Equal(t, 400, ask(g, f.path, header).Code, "%s: %s", front, spelled)
			}
			for _, raw := range []bool{false, true} {
				answer, err := client.Check(t.Context(), check(toldByEnvoy("GET", "/healthz", http.Header{spelled: {"/"}}, raw)))
				require.NoError(t, err)
				assert.EqualValues(t, 400, answer.GetDeniedResponse().GetStatus().GetCode(), "Envoy: %s", spelled)
			}
		}
	}
}

type request struct {
	name, method, target, authorization string
	field                               string // the name of one more field
	status                              int
	code                                string
	challenged                          bool
	identity                            []string // subject, client, app and scopes
}

// told returns the identity fields of an answer, each with all its values.
func told(h http.Header) map[string][]string {
	fields := map[string][]string{}
	for _, name := range identityFields {
		if values := h.Values(name); len(values) > 0 {
			fields[name] = values
		}
	}
	return fields
}

// told returns what told must return for the request's answer: every field, or
// none where it is refused.
func (r request) told(issuer string) map[string][]string {
	fields := map[string][]string{}
	if r.status != 204 {
		return fields
	}
	values := []string{"", "", "", "", "", "", "public"}
	if i := r.identity; i != nil {
		values = []string{issuer, i[0], i[1], i[2], "", i[3], "allowed"}
	}
	for i, name := range identityFields {
		fields[name] = values[i : i+1]
	}
	return fields
}

func (r request) header() http.Header {
	h := http.Header{}
	if r.authorization != "" {
		h.Set("Authorization", r.authorization)
	}
	if r.field != "" {
		h[r.field] = []string{"root"}
	}
	return h
}

func TestEveryFrontAnswersAlike(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	g := newGateway(t, issuer)
	for front, f := range fronts {
		for _, test := range requests(issuer) {
			t.Run(front+" "+test.name, func(t *testing.T) {
				header := test.header()
				header.Set(f.method, test.method)
				header.Set(f.uri, test.target)
				w := ask(g, f.path, header)
				require.Equal(t, test.status, w.Code, w.Body)
				assert.Equal(t, test.told(issuer.URL()), told(w.Header()))
				assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
				assert.Equal(t, test.challenged, w.Header().Get("WWW-Authenticate") != "")
				if test.status == 204 {
					assert.Empty(t, w.Body)
					return
				}
				assert.Contains(t, w.Body.String(), `"error":"`+test.code+`"`)
				if f.path == "/nginx" {
					assert.Equal(t, w.Body.String(), w.Header().Get(bodyField)+"\n")
				} else {
					assert.Empty(t, w.Header().Get(bodyField))
				}
			})
		}
	}
}

func TestEveryTrickIsRefusedByEveryFront(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	g := newGateway(t, issuer)
	token := "Bearer " + issuer.Token(audience, "read:products", "write:products", "read:files")
	for _, f := range fronts {
		for name, target := range tricks {
			w := ask(g, f.path, http.Header{
				"Authorization": {token}, http.CanonicalHeaderKey(f.method): {"GET"}, http.CanonicalHeaderKey(f.uri): {target},
			})
			assert.Equal(t, 400, w.Code, name)
		}
	}
}

func TestTheOriginalRequestIsToldOnceAndInOneWay(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	g := newGateway(t, issuer)
	const (
		om, ou = "X-Original-Method", "X-Original-Uri"
		fm, fu = "X-Forwarded-Method", "X-Forwarded-Uri"
	)
	get, healthz := []string{"GET"}, []string{"/healthz"}
	for _, test := range []struct {
		name   string
		path   string
		header http.Header
		status int
	}{
		{"nginx", "/nginx", http.Header{om: get, ou: healthz}, 204},
		{"forwarded", "/forward-auth", http.Header{fm: get, fu: healthz}, 204},
		{"both agree", "/nginx", http.Header{om: get, ou: healthz, fm: get, fu: healthz}, 204},
		{"both agree, forwarded", "/forward-auth", http.Header{om: get, ou: healthz, fm: get, fu: healthz}, 204},
		{"nothing", "/nginx", http.Header{}, 400},
		{"nothing forwarded", "/forward-auth", http.Header{}, 400},
		{"the other's fields", "/nginx", http.Header{fm: get, fu: healthz}, 400},
		{"the other's fields, forwarded", "/forward-auth", http.Header{om: get, ou: healthz}, 400},
		{"no method", "/nginx", http.Header{ou: healthz}, 400},
		{"no URI", "/nginx", http.Header{om: get}, 400},
		{"empty method", "/nginx", http.Header{om: {""}, ou: healthz}, 400},
		{"empty URI", "/nginx", http.Header{om: get, ou: {""}}, 400},
		{"two methods", "/nginx", http.Header{om: {"GET", "POST"}, ou: healthz}, 400},
		{"two methods that agree", "/nginx", http.Header{om: {"GET", "GET"}, ou: healthz}, 400},
		{"two URIs", "/nginx", http.Header{om: get, ou: {"/healthz", "/products"}}, 400},
		{"two URIs, forwarded", "/forward-auth", http.Header{fm: get, fu: {"/healthz", "/products"}}, 400},
		{"methods disagree", "/nginx", http.Header{om: get, ou: healthz, fm: {"POST"}}, 400},
		{"URIs disagree", "/nginx", http.Header{om: get, ou: healthz, fu: {"/products"}}, 400},
		{"URIs disagree, forwarded", "/forward-auth", http.Header{fm: get, fu: healthz, ou: {"/products"}}, 400},
		{"one of two disagrees", "/forward-auth", http.Header{fm: get, fu: healthz, ou: {"/healthz", "/products"}}, 400},
		{"underscores", "/nginx", http.Header{om: get, ou: healthz, "X_original_uri": healthz}, 400},
		{"dots", "/nginx", http.Header{om: get, ou: healthz, "X.original.uri": healthz}, 400},
		{"dots, forwarded", "/forward-auth", http.Header{fm: get, fu: healthz, "X.forwarded.method": get}, 400},
		{"two tokens", "/nginx", http.Header{om: get, ou: {"/products"}, "Authorization": {"Bearer a", "Bearer b"}}, 400},
	} {
		assert.Equal(t, test.status, ask(g, test.path, test.header).Code, test.name)
	}
}

func TestTheGatewayAnswersNothingElse(t *testing.T) {
	t.Parallel()
	g := newGateway(t, m2mauthtest.NewIssuer())
	assert.Equal(t, 200, ask(g, "/healthz", nil).Code)
	assert.Equal(t, 404, ask(g, "/products", nil).Code)
	w := httptest.NewRecorder()
	g.routes().ServeHTTP(w, httptest.NewRequest("POST", "/nginx", nil))
	assert.Equal(t, 405, w.Code)
}

func TestAnIssuerThatIsDownIs503WithRetryAfter(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	issuer.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	})
	g := newGateway(t, issuer)
	for _, f := range fronts {
		header := http.Header{"Authorization": {"Bearer " + issuer.Token(audience, "read:products")}}
		header.Set(f.method, "GET")
		header.Set(f.uri, "/products")
		w := ask(g, f.path, header)
		assert.Equal(t, 503, w.Code)
		assert.NotEmpty(t, w.Header().Get("Retry-After"))
		assert.Empty(t, w.Header().Get("WWW-Authenticate"))
	}
}

// A flood from one caller must not be taken for one from the proxy, behind which
// all callers are.
func TestTheGuardSeesTheCallersAddress(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		fields fields
		header http.Header
		want   string
	}{
		{"nginx", nginxFields, http.Header{"X-Real-Ip": {"203.0.113.7"}}, "203.0.113.7:0"},
		{"IPv6", nginxFields, http.Header{"X-Real-Ip": {"2001:db8::1"}}, "[2001:db8::1]:0"},
		{"none", nginxFields, http.Header{}, "192.0.2.1:1234"},
		{"rubbish", nginxFields, http.Header{"X-Real-Ip": {"caller"}}, "192.0.2.1:1234"},
		{"the last hop", forwardedFields, http.Header{"X-Forwarded-For": {"198.51.100.1, 203.0.113.7"}}, "203.0.113.7:0"},
		{"the last field", forwardedFields, http.Header{"X-Forwarded-For": {"198.51.100.1", "203.0.113.7"}}, "203.0.113.7:0"},
		{"the other's field", forwardedFields, http.Header{"X-Real-Ip": {"203.0.113.7"}}, "192.0.2.1:1234"},
	} {
		r := httptest.NewRequest("GET", "/nginx", nil)
		r.Header = test.header
		assert.Equal(t, test.want, test.fields.clientOf(r), test.name)
		assert.Equal(t, test.want, asked{question: question{client: test.want}, row: &row{}}.RemoteAddr())
	}
}

func TestTheGuardSeesTheRequestThatTheProxyAsksAbout(t *testing.T) {
	t.Parallel()
	a := asked{question: question{method: "PUT", target: "/orgs/acme?q=1"}, row: &row{path: "/orgs/{org}"}}
	assert.Equal(t, "PUT", a.Method())
	assert.Equal(t, &url.URL{Path: "/orgs/acme", RawQuery: "q=1"}, a.URL())
	assert.Nil(t, a.TLS())
	assert.Contains(t, a.Pattern(), "/orgs/{org}")
}

func get(t *testing.T, handler http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}
