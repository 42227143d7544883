package metadata

import (
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPlace(t *testing.T) {
	t.Parallel()
	for resource, want := range map[string][2]string{
		"HTTPS://a.api":          {"https://a.api/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource"},
		"https://a.api":          {"https://a.api/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource"},
		"https://a.api/":         {"https://a.api/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource"},
		"https://a.api:8443/x":   {"https://a.api:8443/.well-known/oauth-protected-resource/x", "/.well-known/oauth-protected-resource/x"},
		"https://a.api/x/":       {"https://a.api/.well-known/oauth-protected-resource/x/", "/.well-known/oauth-protected-resource/x/{$}"},
		"https://a.api/x%2Fy/z":  {"https://a.api/.well-known/oauth-protected-resource/x%2Fy/z", "/.well-known/oauth-protected-resource/x%2Fy/z"},
		"https://a.api/x.y/..z/": {"https://a.api/.well-known/oauth-protected-resource/x.y/..z/", "/.well-known/oauth-protected-resource/x.y/..z/{$}"},
	} {
		address, pattern, ok := Place(resource, nil)
		assert.True(t, ok, resource)
		assert.Equal(t, want, [2]string{address, pattern}, resource)
	}
	for _, resource := range []string{
		"", "shopping", "ftp://shopping.api", "http:///path", "http://:3001/", "https://:443", "urn:shop:api", "api://shop", "https:///path", "https:shopping.api", "//shopping.api",
		"https://shopping.api?x=1", "https://shopping.api?", "https://shopping.api#", "https://shopping.api/#part", "https://me:secret@shopping.api",
		"https://me@shopping.api", "https://%zz", "http://me:secret@localhost", "http://me@localhost", "http:localhost", "http://localhost?x=1", "http://localhost#", "http://localhost//",
		"https://shopping.api//", "https://shopping.api/a//b", "https://shopping.api/a/../b", "https://shopping.api/.", "https://shopping.api/%2e%2e/b",
		"https://münchen.example", `https://shopping.api/"`, "https://shopping\u00a0api", "https://shopping.api/\\", "urn:logto:organization:",
	} {
		_, _, ok := Place(resource, func(*url.URL) bool { return true })
		assert.False(t, ok, resource)
	}
}

func TestPlaceOfAnHTTPResource(t *testing.T) {
	t.Parallel()
	loopback := func(u *url.URL) bool { return u.Hostname() == "localhost" }
	for resource, want := range map[string][2]string{
		"http://localhost:3001":      {"http://localhost:3001/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource"},
		"http://localhost:3001/":     {"http://localhost:3001/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource"},
		"http://localhost:3001/mcp":  {"http://localhost:3001/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource/mcp"},
		"http://localhost:3001/mcp/": {"http://localhost:3001/.well-known/oauth-protected-resource/mcp/", "/.well-known/oauth-protected-resource/mcp/{$}"},
	} {
		address, pattern, ok := Place(resource, loopback)
		assert.True(t, ok, resource)
		assert.Equal(t, want, [2]string{address, pattern}, resource)
	}
	for _, resource := range []string{"http://shopping.api", "http://localhost.evil.example/", "ftp://localhost", "ws://localhost"} {
		_, _, ok := Place(resource, loopback)
		assert.False(t, ok, resource)
	}
}

func TestTheDocumentHasWhatWasGiven(t *testing.T) {
	t.Parallel()
	served := func(d Document) string {
		handler, err := d.Handler()
		require.NoError(t, err)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		return w.Body.String()
	}
	d := Document{Resource: "https://a.api", Issuers: []string{"https://one.test", "https://two.test"}, BearerBy: []string{"header"}}
	assert.Equal(t, `{"resource":"https://a.api","authorization_servers":["https://one.test","https://two.test"],"bearer_methods_supported":["header"]}`, served(d))
	d.Scopes, d.Name = []string{"read"}, "Läden"
	d.Documentation, d.Policy, d.TermsOfService = "https://a.api/docs", "https://a.api/policy", "https://a.api/terms"
	assert.JSONEq(t, `{"resource":"https://a.api","authorization_servers":["https://one.test","https://two.test"],"scopes_supported":["read"],
		"bearer_methods_supported":["header"],"resource_name":"Läden","resource_documentation":"https://a.api/docs",
		"resource_policy_uri":"https://a.api/policy","resource_tos_uri":"https://a.api/terms"}`, served(d))
}

func TestPagesAreAbsoluteHTTPSURLs(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"docs", "/docs", "http://a.api/docs", "https:docs", "https://", "https://me:secret@a.api", "https://me@a.api", "https://%zz"} {
		for name, d := range map[string]Document{"documentation": {Documentation: page}, "policy": {Policy: page}, "terms": {TermsOfService: page}} {
			_, err := d.Handler()
			assert.EqualError(t, err, "m2mauth: Metadata: Documentation, Policy and TermsOfService must be absolute https URLs without user and password", "%s %s", name, page)
		}
	}
	handler, err := Document{Name: "\xff"}.Handler()
	assert.ErrorContains(t, err, "m2mauth: Metadata: ", "what is no UTF-8 is no JSON")
	assert.Nil(t, handler)
}

func TestMethods(t *testing.T) {
	t.Parallel()
	handler, err := Document{Resource: "https://a.api"}.Handler()
	require.NoError(t, err)
	for method, want := range map[string]struct {
		status int
		header map[string][]string
	}{
		"GET":     {200, map[string][]string{"Content-Type": {"application/json"}, "Cache-Control": {"public, max-age=3600"}}},
		"HEAD":    {200, map[string][]string{"Content-Type": {"application/json"}, "Cache-Control": {"public, max-age=3600"}}},
		"OPTIONS": {204, map[string][]string{"Access-Control-Allow-Methods": {"GET, HEAD"}, "Access-Control-Allow-Headers": {"*"}}},
		"POST":    {405, map[string][]string{"Allow": {"GET, HEAD, OPTIONS"}}},
		"DELETE":  {405, map[string][]string{"Allow": {"GET, HEAD, OPTIONS"}}},
		"get":     {405, map[string][]string{"Allow": {"GET, HEAD, OPTIONS"}}},
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(method, "/?resource=https://evil.example", nil))
		assert.Equal(t, want.status, w.Code, method)
		want.header["Access-Control-Allow-Origin"] = []string{"*"}
		assert.Equal(t, want.header, map[string][]string(w.Header()), method)
		assert.Equal(t, want.status == 200, w.Body.Len() > 0, method)
	}
}
