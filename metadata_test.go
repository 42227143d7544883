package m2mauth_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// challengeOf returns the challenge that a refusal is answered with.
func challengeOf(err error) string {
	var e *m2mauth.Error
	if !errors.As(err, &e) {
		return ""
	}
	header, _ := e.Response()
	return header.Get("WWW-Authenticate")
}

func audienced(audience string) func(*m2mauth.Config) {
	return func(c *m2mauth.Config) { c.Audience = audience }
}

func metadataOf(t *testing.T, guard *m2mauth.Guard, method, url string, scopes ...string) *http.Response {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(guard.Metadata(m2mauth.MetadataConfig{Scopes: scopes}))
	r := httptest.NewRequest(method, url, nil)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w.Result()
}

func TestMetadataStandsWhereClientsLook(t *testing.T) {
	t.Parallel()
	const place = "https://shopping.api/.well-known/oauth-protected-resource"
	issuer := m2mauthtest.NewIssuer()
	for _, test := range []struct {
		name, audience, url string
		elsewhere           []string
	}{
		{"no path", "https://shopping.api", place, []string{place + "/", place + "/v1"}},
		{"a slash for a path", "https://shopping.api/", place, []string{place + "/"}},
		{"a port", "https://shopping.api:8443", "https://shopping.api:8443/.well-known/oauth-protected-resource", nil},
		{"a path", "https://shopping.api/v1/eu", place + "/v1/eu", []string{place, place + "/v1", place + "/v1/eu/"}},
		{"a path that ends in a slash", "https://shopping.api/v1/", place + "/v1/", []string{place, place + "/v1/eu"}},
		{"an escaped path", "https://shopping.api/a%20b/%7Bc%7D", place + "/a%20b/%7Bc%7D", []string{place + "/a%20b/c"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			guard := quietGuard(t, issuer, audienced(test.audience))
			resp := metadataOf(t, guard, "GET", test.url, "read:products", "write:products", "read:products")
			require.Equal(t, http.StatusOK, resp.StatusCode)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			assert.Equal(t, `{"resource":"`+test.audience+`","authorization_servers":["https://issuer.test/oidc"],`+
				`"scopes_supported":["read:products","write:products"],"bearer_methods_supported":["header"]}`, string(body))
			assert.Equal(t, "application/json", resp.Header.Get("Content-Type"))
			for _, url := range test.elsewhere {
				assert.NotEqual(t, http.StatusOK, metadataOf(t, guard, "GET", url).StatusCode, url)
			}
			_, err = guard.Check(requestWith(), m2mauth.AnyToken())
			assert.Equal(t, `Bearer realm="`+test.audience+`", resource_metadata="`+test.url+`"`, challengeOf(err))
		})
	}
}

func TestMetadataWithoutScopesSaysNothingOfScopes(t *testing.T) {
	t.Parallel()
	guard := quietGuard(t, m2mauthtest.NewIssuer())
	for _, scopes := range [][]string{nil, {}} {
		body, err := io.ReadAll(metadataOf(t, guard, "GET", "https://shopping.api/.well-known/oauth-protected-resource", scopes...).Body)
		require.NoError(t, err)
		assert.NotContains(t, string(body), "scopes_supported")
	}
}

func TestTheChallengeNamesTheMetadata(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer)
	api := guard.Require("read")(http.NotFoundHandler())
	challenge := func(fields ...string) (int, string) {
		w := httptest.NewRecorder()
		api.ServeHTTP(w, requestWith(fields...))
		return w.Code, w.Header().Get("WWW-Authenticate")
	}
	const named = `, resource_metadata="https://shopping.api/.well-known/oauth-protected-resource"`
	_, before := challenge()
	assert.NotContains(t, before, "resource_metadata", "nobody serves it yet")
	guard.Metadata(m2mauth.MetadataConfig{Scopes: []string{"read"}})
	for _, test := range []struct {
		status int
		fields []string
	}{
		{400, []string{"Bearer"}},
		{401, nil},
		{401, []string{"Bearer x"}},
		{403, []string{"Bearer " + issuer.Token(shop)}},
	} {
		status, said := challenge(test.fields...)
		assert.Equal(t, test.status, status)
		assert.Contains(t, said, named)
		if status == 403 {
			assert.Contains(t, said, `scope="read"`)
		}
	}
	issuer.Intercept(func(http.Handler) http.Handler { return http.NotFoundHandler() })
	down := quietGuard(t, issuer)
	down.Metadata(m2mauth.MetadataConfig{})
	_, err := down.Verify(t.Context(), issuer.Token(shop))
	require.ErrorIs(t, err, m2mauth.ErrUnavailable)
	assert.Empty(t, challengeOf(err), "a 503 has no challenge")
}

func TestMetadataNeedsAnAudienceThatIsAnHTTPSURL(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	for _, audience := range []string{
		"shopping", "http://shopping.api", "urn:shop:api", "api://shop", "https:///path", "https:shopping.api", "//shopping.api",
		"https://shopping.api?x=1", "https://shopping.api?", "https://shopping.api#", "https://shopping.api/#part", "https://me:secret@shopping.api",
		"https://shopping.api//", "https://shopping.api/a//b", "https://shopping.api/a/../b", "https://shopping.api/.", "https://shopping.api/%2e%2e/b",
		"https://münchen.example", `https://shopping.api/"`, "https://shopping\u00a0api", "urn:logto:organization:",
	} {
		guard := quietGuard(t, issuer, audienced(audience))
		assert.Panics(t, func() { guard.Metadata(m2mauth.MetadataConfig{}) }, audience)
		_, err := guard.Check(requestWith(), m2mauth.AnyToken())
		assert.NotContains(t, challengeOf(err), "resource_metadata", "nothing is served")
	}
	good := quietGuard(t, issuer)
	for _, scope := range []string{"", "read write", "a\n"} {
		assert.PanicsWithValue(t, "m2mauth: Metadata: "+quoted(scope)+" cannot be a scope; give each scope as an argument of its own, without white space",
			func() { good.Metadata(m2mauth.MetadataConfig{Scopes: []string{scope}}) })
	}
	assert.Panics(t, func() { (*m2mauth.Guard)(nil).Metadata(m2mauth.MetadataConfig{}) })
	assert.Panics(t, func() { new(m2mauth.Guard).Metadata(m2mauth.MetadataConfig{}) })
}

func quoted(s string) string { b, _ := json.Marshal(s); return string(b) }

func TestNothingInTheMetadataComesFromTheRequest(t *testing.T) {
	t.Parallel()
	guard := quietGuard(t, m2mauthtest.NewIssuer())
	_, handler := guard.Metadata(m2mauth.MetadataConfig{})
	answer := func(host string) (*httptest.ResponseRecorder, string) {
		r := httptest.NewRequest("GET", "/.well-known/oauth-protected-resource?resource=https://evil.example", nil)
		r.Host = host
		r.Header.Set("X-Forwarded-Host", host)
		r.Header.Set("Forwarded", "host="+host)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w, w.Body.String()
	}
	w, ours := answer("shopping.api")
	other, theirs := answer("evil.example")
	assert.Equal(t, ours, theirs)
	assert.Equal(t, w.Header(), other.Header())
	assert.NotContains(t, theirs, "evil")

	r := requestWith()
	r.Host = "evil.example"
	_, err := guard.Check(r, m2mauth.AnyToken())
	assert.NotContains(t, challengeOf(err), "evil")
}

func TestMethodsOfTheMetadata(t *testing.T) {
	t.Parallel()
	guard := quietGuard(t, m2mauthtest.NewIssuer())
	mux := http.NewServeMux()
	mux.Handle(guard.Metadata(m2mauth.MetadataConfig{Scopes: []string{"read"}}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	for _, test := range []struct {
		method string
		status int
		body   bool
	}{
		{"GET", 200, true}, {"HEAD", 200, false}, {"OPTIONS", 204, false}, {"POST", 405, false}, {"DELETE", 405, false}, {"PUT", 405, false},
	} {
		r, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+"/.well-known/oauth-protected-resource", nil)
		require.NoError(t, err)
		r.Header.Set("Origin", "https://app.example")
		r.Header.Set("Access-Control-Request-Headers", "mcp-protocol-version")
		resp, err := server.Client().Do(r)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, test.status, resp.StatusCode, test.method)
		assert.Equal(t, test.body, len(body) > 0, test.method)
		assert.Equal(t, "*", resp.Header.Get("Access-Control-Allow-Origin"), test.method)
		assert.Empty(t, resp.Header.Get("Access-Control-Allow-Credentials"), "it is public, and nobody's")
		switch test.status {
		case 204:
			assert.Equal(t, "GET, HEAD", resp.Header.Get("Access-Control-Allow-Methods"))
			assert.Equal(t, "*", resp.Header.Get("Access-Control-Allow-Headers"))
		case 405:
			assert.Equal(t, "GET, HEAD, OPTIONS", resp.Header.Get("Allow"))
		case 200:
			assert.Equal(t, "public, max-age=3600", resp.Header.Get("Cache-Control"))
		}
	}
}

func TestMetadataOfAJoinedGuardListsAllIssuers(t *testing.T) {
	t.Parallel()
	one, two, both := twoTenants(t)
	resp := metadataOf(t, both, "GET", "https://shopping.api/.well-known/oauth-protected-resource")
	var said struct {
		Issuers []string `json:"authorization_servers"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&said))
	assert.Equal(t, []string{one.name, two.name}, said.Issuers)
	_, err := both.Verify(t.Context(), two.sign(m2mauthtest.Token{Audience: "https://other.api"}))
	assert.Contains(t, challengeOf(err), "resource_metadata")
}

// An issuer whose tokens the joined guard takes for another resource alone is
// none for this one.
func TestMetadataOfAJoinedGuardListsTheIssuersOfItsResource(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	other := quietGuard(t, issuer, func(c *m2mauth.Config) { c.Issuer, c.Audience = "https://other.test/oidc", "https://other.api" })
	joined, err := m2mauth.Join(quietGuard(t, issuer), other)
	require.NoError(t, err)
	_, handler := joined.Metadata(m2mauth.MetadataConfig{})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	assert.Contains(t, w.Body.String(), issuer.URL())
	assert.NotContains(t, w.Body.String(), "other.test")
}
