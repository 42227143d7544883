package m2mauth_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// The API as others compile against it: a changed signature does not compile here.
var _ = struct {
	new        func(m2mauth.Config) (*m2mauth.Guard, error)
	fromEnv    func(prefix string) (m2mauth.Config, error)
	join       func(*m2mauth.Guard, ...*m2mauth.Guard) (*m2mauth.Guard, error)
	rule       func(*m2mauth.Guard, m2mauth.Rule) func(http.Handler) http.Handler
	check      func(*m2mauth.Guard, *http.Request, m2mauth.Rule) (m2mauth.Claims, error)
	request    func(*m2mauth.Guard, context.Context, m2mauth.Request, m2mauth.Rule) (m2mauth.Claims, error)
	validate   func(*m2mauth.Guard, m2mauth.Rule) error
	verify     func(*m2mauth.Guard, context.Context, string) (m2mauth.Claims, error)
	writeError func(*m2mauth.Guard, http.ResponseWriter, *http.Request, error)
	metadata   func(*m2mauth.Guard, m2mauth.MetadataConfig) (string, http.Handler)
	warm       func(*m2mauth.Guard, context.Context) error
	keys       func(*m2mauth.Guard) m2mauth.KeyStatus
	stats      func(*m2mauth.Guard) m2mauth.Stats
	dry        func(*m2mauth.Guard) bool
	enforcing  func(*m2mauth.Guard) *m2mauth.Guard
	recheck    func(*m2mauth.Guard, context.Context, m2mauth.Claims) (time.Duration, error)
	until      func(*m2mauth.Guard, m2mauth.Claims) time.Time
	opens      func(*m2mauth.Guard, *http.Request, m2mauth.Claims, m2mauth.Rule) bool
	custom     func(string, func(context.Context, m2mauth.Claims, m2mauth.Request) error) m2mauth.Rule
	from       func(context.Context) (m2mauth.Claims, bool)
	into       func(context.Context, m2mauth.Claims) context.Context
	response   func(*m2mauth.Error) (http.Header, []byte)
	rules      []func(...string) m2mauth.Rule
	actor      func(m2mauth.Claims) (m2mauth.Actor, bool)
	prior      func(m2mauth.Actor) (m2mauth.Actor, bool)
	config     m2mauth.Config
	decision   m2mauth.Decision
	outcomes   []m2mauth.Outcome
}{
	m2mauth.New, m2mauth.ConfigFromEnv, m2mauth.Join, (*m2mauth.Guard).RequireRule, (*m2mauth.Guard).Check, (*m2mauth.Guard).CheckRequest,
	(*m2mauth.Guard).ValidateRule, (*m2mauth.Guard).Verify, (*m2mauth.Guard).WriteError, (*m2mauth.Guard).Metadata,
	(*m2mauth.Guard).Warm, (*m2mauth.Guard).Keys, (*m2mauth.Guard).Stats, (*m2mauth.Guard).ReportOnly, (*m2mauth.Guard).Enforcing, (*m2mauth.Guard).Recheck, (*m2mauth.Guard).AcceptedUntil, (*m2mauth.Guard).Opens, m2mauth.Custom, m2mauth.FromContext, m2mauth.NewContext,
	(*m2mauth.Error).Response, []func(...string) m2mauth.Rule{m2mauth.AllScopes, m2mauth.AnyScope, m2mauth.ClientID, m2mauth.ActedBy}, m2mauth.Claims.Actor, m2mauth.Actor.Actor,
	m2mauth.Config{
		InsecureHTTPHosts: []string{}, InsecureAllowOrganizationTokens: true,
		QueueKey: func(m2mauth.Request) string { return "" }, IsMachine: func(m2mauth.Claims) bool { return true },
		Revoked: func(context.Context, m2mauth.Claims) (bool, error) { return false, nil },
	},
	m2mauth.Decision{Claims: m2mauth.Claims{}, Outcome: m2mauth.Allowed},
	[]m2mauth.Outcome{m2mauth.Allowed, m2mauth.Anonymous, m2mauth.Undecided, m2mauth.Outcome(m2mauth.ErrScope)},
}

func TestClaimsThatAreZeroSayNothing(t *testing.T) {
	t.Parallel()
	claims, ok := m2mauth.FromContext(context.Background())
	assert.False(t, ok)
	assert.True(t, claims.IsZero())
	for _, text := range []string{claims.AppID(), claims.Subject(), claims.ClientID(), claims.Issuer(), claims.ID(), claims.OrganizationID()} {
		assert.Empty(t, text)
	}
	assert.Empty(t, claims.Audience())
	assert.Zero(t, claims.Scopes().Len())
	assert.False(t, claims.Scopes().HasAll("read"))
	assert.True(t, claims.IssuedAt().IsZero())
	assert.True(t, claims.ExpiresAt().IsZero())
	assert.False(t, claims.IsMachine())
	assert.Error(t, claims.Decode(new(map[string]any)))
	assert.False(t, reflect.TypeFor[m2mauth.Claims]().Comparable(), "nobody is to compare what is behind it")
}

// An Error of the user's needs a kind alone, and no Error lets anybody through.
func TestErrorsOfAKindCanBeAnswered(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	shared := &m2mauth.Error{Kind: m2mauth.ErrForbidden, Description: "no"}
	for name, test := range map[string]struct {
		err       error
		status    int
		code      string
		challenge string
	}{
		"a kind":                {shared, 403, "insufficient_scope", `Bearer realm="https://shopping.api", error="insufficient_scope", error_description="no"`},
		"a kind of 401":         {&m2mauth.Error{Kind: m2mauth.ErrNoToken}, 401, "unauthorized", `Bearer realm="https://shopping.api"`},
		"a status of its own":   {&m2mauth.Error{Kind: m2mauth.ErrForbidden, Status: 404, Code: "not_found"}, 404, "not_found", ""},
		"wrapped":               {fmt.Errorf("saving: %w", &m2mauth.Error{Kind: m2mauth.ErrBusy, RetryAfter: time.Second}), 429, "temporarily_unavailable", ""},
		"a kind nobody knows":   {&m2mauth.Error{Kind: "token_eaten"}, 500, "server_error", ""},
		"a status that permits": {&m2mauth.Error{Kind: m2mauth.ErrForbidden, Status: 200, Description: "no"}, 403, "insufficient_scope", `Bearer realm="https://shopping.api", error="insufficient_scope", error_description="no"`},
		"no kind":               {&m2mauth.Error{Status: 200, Description: "secret"}, 500, "server_error", ""},
	} {
		w := httptest.NewRecorder()
		guard.WriteError(w, testguard.RequestWith(), test.err)
		assert.Equal(t, test.status, w.Code, name)
		var body map[string]string
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
		assert.Equal(t, test.code, body["error"], name)
		assert.NotContains(t, w.Body.String(), "secret")
		assert.Equal(t, test.challenge, w.Header().Get("WWW-Authenticate"), name)
	}
	assert.Equal(t, &m2mauth.Error{Kind: m2mauth.ErrForbidden, Description: "no"}, shared, "is not written to")
	assert.ErrorIs(t, shared, m2mauth.ErrForbidden)
	assert.NotErrorIs(t, shared, m2mauth.ErrScope)
	var kind m2mauth.ErrorKind
	require.ErrorAs(t, error(m2mauth.ErrScope), &kind)
	assert.Equal(t, "m2mauth: insufficient scope", kind.Error())
}

func TestValidateRuleSaysWhatAGuardHasAgainstARule(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	organizations := testguard.Quiet(t, issuer, audienced("urn:logto:organization:"))
	assert.NoError(t, guard.ValidateRule(m2mauth.AllScopes("read")))
	assert.NoError(t, organizations.ValidateRule(m2mauth.OrganizationPath("org")))
	for name, err := range map[string]error{
		"the zero Rule":           guard.ValidateRule(m2mauth.Rule{}),
		"names no organization":   organizations.ValidateRule(m2mauth.AllScopes("read")),
		"was not made by New":     new(m2mauth.Guard).ValidateRule(m2mauth.AnyToken()),
		"the Guard is nil or was": (*m2mauth.Guard)(nil).ValidateRule(m2mauth.AnyToken()),
	} {
		assert.ErrorContains(t, err, name)
		assert.ErrorContains(t, err, "m2mauth: ")
	}
}

// seen is a Request that says something of everything.
type seen struct {
	m2mauth.UnimplementedRequest
	token string
}

func (s seen) Header(string) []string { return []string{"Bearer " + s.token} }

func (seen) Method() string { return "PATCH" }

func TestARequestSaysWhatItKnows(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	type facts struct {
		method, pattern string
		url             *url.URL
		tls             *tls.ConnectionState
	}
	var got facts
	rule := m2mauth.Custom("look", func(_ context.Context, _ m2mauth.Claims, r m2mauth.Request) error {
		got = facts{r.Method(), r.Pattern(), r.URL(), r.TLS()}
		return nil
	})
	token := issuer.Token(testguard.Shop)
	r := httptest.NewRequest("PUT", "https://shopping.api/orders/7?draft", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	mux := http.NewServeMux()
	mux.Handle("PUT /orders/{id}", guard.RequireRule(rule)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	mux.ServeHTTP(httptest.NewRecorder(), r)
	assert.Equal(t, facts{"PUT", "PUT /orders/{id}", r.URL, r.TLS}, got)
	require.NotNil(t, r.TLS)

	_, err := guard.CheckRequest(t.Context(), seen{token: token}, rule)
	require.NoError(t, err)
	assert.Equal(t, facts{method: "PATCH"}, got)
	nothing := m2mauth.UnimplementedRequest{}
	assert.Empty(t, nothing.RemoteAddr()+nothing.PathValue("id"))
	_, err = guard.CheckRequest(t.Context(), nothing, rule)
	assert.ErrorIs(t, err, m2mauth.ErrNoToken)
}

func TestMetadataHasTheMembersThatWereGiven(t *testing.T) {
	t.Parallel()
	guard := testguard.Quiet(t, m2mauthtest.NewIssuer())
	document := func(config m2mauth.MetadataConfig) map[string]any {
		_, handler := guard.Metadata(config)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		var members map[string]any
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &members))
		return members
	}
	assert.Len(t, document(m2mauth.MetadataConfig{}), 3)
	full := document(m2mauth.MetadataConfig{
		Scopes: []string{"read"}, Name: "Shop", Documentation: "https://shop.example/docs",
		Policy: "https://shop.example/policy", TermsOfService: "https://shop.example/terms",
	})
	assert.Equal(t, []any{"read"}, full["scopes_supported"])
	assert.Equal(t, "Shop", full["resource_name"])
	assert.Equal(t, "https://shop.example/docs", full["resource_documentation"])
	assert.Equal(t, "https://shop.example/policy", full["resource_policy_uri"])
	assert.Equal(t, "https://shop.example/terms", full["resource_tos_uri"])
	for _, page := range []string{"http://shop.example", "/docs", "javascript:alert(1)", "https://me:secret@shop.example", "https:"} {
		for _, config := range []m2mauth.MetadataConfig{{Documentation: page}, {Policy: page}, {TermsOfService: page}} {
			assert.Panics(t, func() { guard.Metadata(config) }, page)
		}
	}
}

// The challenge of a 401 names the scopes to ask for, and of alternatives the first.
func TestTheChallengeAsksForTheFirstAlternative(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(slog.DiscardHandler) })
	a, b, c := m2mauth.AllScopes("a"), m2mauth.AllScopes("b", "x"), m2mauth.AnyScope("c", "d")
	for want, rule := range map[string]m2mauth.Rule{
		"":      m2mauth.AnyToken(),
		"a":     m2mauth.AnyOf(a, b),
		"b x":   m2mauth.AnyOf(b, a),
		"c":     c,
		"a c":   m2mauth.AllOf(a, c, a),
		"b x c": m2mauth.AnyOf(m2mauth.AllOf(b, m2mauth.AnyOf(c, a)), a),
	} {
		for _, fields := range [][]string{nil, {"Bearer rubbish"}, {"Bearer " + issuer.Token(testguard.Shop, "none")}} {
			_, err := guard.Check(testguard.RequestWith(fields...), rule)
			if want == "" && len(fields) == 1 && fields[0] != "Bearer rubbish" {
				assert.NoError(t, err)
				continue
			}
			var e *m2mauth.Error
			require.True(t, errors.As(err, &e), "%s", rule)
			if want == "" {
				assert.NotContains(t, challengeOf(err), "scope=")
			} else {
				assert.Contains(t, challengeOf(err), `, scope="`+want+`"`, "%s", rule)
			}
		}
	}
	_, err := guard.Check(testguard.RequestWith("Bearer a", "Bearer b"), a)
	assert.NotContains(t, challengeOf(err), "scope=", "a 400 is no lack of scopes")
}

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
			guard := testguard.Quiet(t, issuer, audienced(test.audience))
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
			_, err = guard.Check(testguard.RequestWith(), m2mauth.AnyToken())
			assert.Equal(t, `Bearer realm="`+test.audience+`", resource_metadata="`+test.url+`"`, challengeOf(err))
		})
	}
}

func TestMetadataWithoutScopesSaysNothingOfScopes(t *testing.T) {
	t.Parallel()
	guard := testguard.Quiet(t, m2mauthtest.NewIssuer())
	for _, scopes := range [][]string{nil, {}} {
		body, err := io.ReadAll(metadataOf(t, guard, "GET", "https://shopping.api/.well-known/oauth-protected-resource", scopes...).Body)
		require.NoError(t, err)
		assert.NotContains(t, string(body), "scopes_supported")
	}
}

func TestTheChallengeNamesTheMetadata(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	api := guard.Require("read")(http.NotFoundHandler())
	challenge := func(fields ...string) (int, string) {
		w := httptest.NewRecorder()
		api.ServeHTTP(w, testguard.RequestWith(fields...))
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
		{403, []string{"Bearer " + issuer.Token(testguard.Shop)}},
	} {
		status, said := challenge(test.fields...)
		assert.Equal(t, test.status, status)
		assert.Contains(t, said, named)
		if status == 403 {
			assert.Contains(t, said, `scope="read"`)
		}
	}
	issuer.Intercept(func(http.Handler) http.Handler { return http.NotFoundHandler() })
	down := testguard.Quiet(t, issuer)
	down.Metadata(m2mauth.MetadataConfig{})
	_, err := down.Verify(t.Context(), issuer.Token(testguard.Shop))
	require.ErrorIs(t, err, m2mauth.ErrUnavailable)
	assert.Empty(t, challengeOf(err), "a 503 has no challenge")
}

// RFC 9728 §1.2 wants https. MCP servers under development have none, and Logto's guide
// for them registers http://localhost:3001/.
func TestMetadataOfAnHTTPAudienceIsForLoopbackAndNamedHosts(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	const wellKnown = "/.well-known/oauth-protected-resource"
	of := func(audience string, hosts ...string) *m2mauth.Guard {
		return testguard.Quiet(t, issuer, audienced(audience), func(c *m2mauth.Config) { c.InsecureHTTPHosts = hosts })
	}
	for _, test := range []struct {
		audience, url string
		hosts         []string
	}{
		{"http://localhost:3001/", "http://localhost:3001" + wellKnown, nil},
		{"http://localhost:3001", "http://localhost:3001" + wellKnown, nil},
		{"http://LocalHost/mcp", "http://LocalHost" + wellKnown + "/mcp", nil},
		{"http://127.0.0.1:3001/mcp/", "http://127.0.0.1:3001" + wellKnown + "/mcp/", nil},
		{"http://[::1]:3001/", "http://[::1]:3001" + wellKnown, nil},
		{"http://shop:8080/", "http://shop:8080" + wellKnown, []string{"logto", "SHOP"}},
		{"http://shop:8080/", "http://shop:8080" + wellKnown, []string{"shop:8080"}},
		{"http://shop/", "http://shop" + wellKnown, []string{"shop:80"}},
	} {
		guard := of(test.audience, test.hosts...)
		resp := metadataOf(t, guard, "GET", test.url)
		require.Equal(t, http.StatusOK, resp.StatusCode, test.audience)
		var document struct{ Resource string }
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&document))
		assert.Equal(t, test.audience, document.Resource)
		_, err := guard.Check(testguard.RequestWith(), m2mauth.AnyToken())
		assert.Equal(t, `Bearer realm="`+test.audience+`", resource_metadata="`+test.url+`"`, challengeOf(err))
	}
	for _, test := range []struct {
		audience string
		hosts    []string
	}{
		{"http://shop/", nil},
		{"http://shop:8080/", []string{"shop:3001", "shopping", "op"}},
		{"http://shop.localhost/", nil},
		{"http://localhost.evil.example/", nil},
		{"http://0.0.0.0:3001/", nil},
		{"http://192.168.1.2/", nil},
		{"http://localhost:3001/?x=1", nil},
		{"http://me@localhost:3001/", nil},
	} {
		assert.Panics(t, func() { of(test.audience, test.hosts...).Metadata(m2mauth.MetadataConfig{}) }, test.audience)
	}

	// The audience of joined guards is the first one's, and so are the hosts.
	one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
	shop := audienced("http://shop/")
	hosts := func(c *m2mauth.Config) { c.InsecureHTTPHosts = []string{"shop"} }
	resp := metadataOf(t, joined(t, one.guard(t, shop, hosts), two.guard(t, shop)), "GET", "http://shop"+wellKnown)
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Panics(t, func() { joined(t, one.guard(t, shop), two.guard(t, shop, hosts)).Metadata(m2mauth.MetadataConfig{}) })
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
		guard := testguard.Quiet(t, issuer, audienced(audience))
		assert.Panics(t, func() { guard.Metadata(m2mauth.MetadataConfig{}) }, audience)
		_, err := guard.Check(testguard.RequestWith(), m2mauth.AnyToken())
		assert.NotContains(t, challengeOf(err), "resource_metadata", "nothing is served")
	}
	good := testguard.Quiet(t, issuer)
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
	guard := testguard.Quiet(t, m2mauthtest.NewIssuer())
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

	r := testguard.RequestWith()
	r.Host = "evil.example"
	_, err := guard.Check(r, m2mauth.AnyToken())
	assert.NotContains(t, challengeOf(err), "evil")
}

func TestMethodsOfTheMetadata(t *testing.T) {
	t.Parallel()
	guard := testguard.Quiet(t, m2mauthtest.NewIssuer())
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
	other := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.Issuer, c.Audience = "https://other.test/oidc", "https://other.api" })
	joined, err := m2mauth.Join(testguard.Quiet(t, issuer), other)
	require.NoError(t, err)
	_, handler := joined.Metadata(m2mauth.MetadataConfig{})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	assert.Contains(t, w.Body.String(), issuer.URL())
	assert.NotContains(t, w.Body.String(), "other.test")
}

// net/http does not clean the path of a CONNECT request: an empty part of it moves
// the values of the wildcards, or makes PathValue panic.
func TestConnectHasNoPathValues(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, book := loggedGuard(t, issuer)
	token := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, OrganizationID: "acme"})
	reached := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux := http.NewServeMux()
	mux.Handle("/orgs/{org}/products", guard.RequireRule(m2mauth.OrganizationPath("org"))(reached))
	mux.Handle("/orgs/{org}/items/{item}", guard.RequireRule(m2mauth.OrganizationPath("org"))(reached))
	mux.Handle("/rest/{org...}", guard.RequireRule(m2mauth.OrganizationPath("org"))(reached))
	mux.Handle("/any/{org}", guard.RequireRule(m2mauth.Organization(func(r m2mauth.Request) string { return r.PathValue("org") }))(reached))
	server := httptest.NewServer(mux)
	defer server.Close()

	for _, test := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/orgs/acme/products", 204},
		{"GET", "/orgs/acme/items/1", 204},
		{"GET", "/orgs/other/products", 403},
		{"GET", "/orgs/%61cme/products", 204},
		{"GET", "/rest/acme", 204},
		{"GET", "/any/acme", 204},
		{"CONNECT", "/orgs//products", 403}, // PathValue panics
		{"CONNECT", "/orgs//items/acme", 403},
		{"CONNECT", "/orgs/acme/items/", 403},
		{"CONNECT", "/orgs/acme/products", 403},
		{"CONNECT", "/rest/acme", 403},
		{"CONNECT", "/any/", 403},
		{"CONNECT", "/any/acme", 403},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			_, err = conn.Write([]byte(test.method + " " + test.path + " HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer " + token + "\r\n\r\n"))
			require.NoError(t, err)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err, "a panic ends the connection")
			defer func() { _ = response.Body.Close() }()
			if test.path != "/any/" && test.path != "/orgs/acme/items/" { // which may have no route
				assert.Equal(t, test.status, response.StatusCode)
			}
			if test.method == "CONNECT" {
				assert.NotEqual(t, http.StatusNoContent, response.StatusCode)
			}
		})
	}
	for _, entry := range book.take() {
		assert.NotEqual(t, "internal error", entry.attrs["kind"])
	}
}

// A value that net/http cannot give is empty, and not a panic.
func TestAPathValueThatPanicsIsEmpty(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	token := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, OrganizationID: "acme"})
	mux := http.NewServeMux()
	mux.HandleFunc("/orgs/{org}/products", func(w http.ResponseWriter, r *http.Request) {
		r.Method = http.MethodGet // as a middleware for X-HTTP-Method-Override would do
		r.Header.Set("Authorization", "Bearer "+token)
		require.Panics(t, func() { r.PathValue("org") }, "net/http is mended: this test shows nothing")
		_, err := guard.Check(r, m2mauth.OrganizationPath("org"))
		require.ErrorIs(t, err, m2mauth.ErrForbidden)
	})
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodConnect, "/", nil)
	r.URL.Path = "/orgs//products"
	mux.ServeHTTP(w, r)
	assert.Equal(t, http.StatusOK, w.Code)
}

// brokenRequest panics where its function says so.
type brokenRequest struct {
	testguard.Headers
	header func(name string)
	path   func()
}

func (r brokenRequest) Header(name string) []string {
	if r.header != nil {
		r.header(name)
	}
	return r.Headers.Header(name)
}

func (r brokenRequest) PathValue(string) string {
	if r.path != nil {
		r.path()
	}
	return ""
}

// A request whose fields cannot be read is none without credentials.
func TestAHeaderThatPanicsIsAnInternalError(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	token := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, OrganizationID: "acme"})
	fields := testguard.Headers{Fields: http.Header{"Authorization": {"Bearer " + token}, "X-Organization": {"acme"}}}
	of := func(field string, value any) func(string) {
		return func(name string) {
			if name == field {
				panic(value)
			}
		}
	}
	for _, test := range []struct {
		name  string
		rule  m2mauth.Rule
		panic func(string)
		cause string
	}{
		{"Authorization", m2mauth.AnyToken(), of("Authorization", errors.New("secret "+token)), "the request's Header panicked with a *errors.errorString"},
		{"Authorization, with an optional rule", m2mauth.Optional(m2mauth.AnyToken()), of("Authorization", "secret "+token), "the request's Header panicked with a string"},
		{"an index out of range", m2mauth.AnyToken(), func(string) { _ = []int{}[len(token)] }, "index out of range"},
		{"an organization's field", m2mauth.OrganizationHeader("X-Organization"), of("X-Organization", "broken"), "X-Organization"},
		{"an organization's field beside a part that is met", m2mauth.AllOf(m2mauth.AnyToken(), m2mauth.OrganizationHeader("X-Organization")), of("X-Organization", "broken"), "the request's Header panicked"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			guard, book := loggedGuard(t, issuer)
			claims, err := guard.CheckRequest(t.Context(), brokenRequest{Headers: fields, header: test.panic}, test.rule)
			assert.True(t, claims.IsZero())
			require.ErrorIs(t, err, m2mauth.ErrInternal)
			var e *m2mauth.Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, 500, e.Status)
			entries := book.take()
			require.Len(t, entries, 1)
			assert.Contains(t, entries[0].attrs["cause"], test.cause)
			assert.NotContains(t, entries[0].attrs["cause"], token)
		})
	}

	guard := testguard.Quiet(t, issuer)
	_, err := guard.CheckRequest(t.Context(), brokenRequest{Headers: fields}, m2mauth.OrganizationHeader("X-Organization"))
	require.NoError(t, err, "without a panic")
	_, err = guard.Check(nil, m2mauth.Optional(m2mauth.AnyToken()))
	require.ErrorIs(t, err, m2mauth.ErrInternal, "no request at all")

	mistake := brokenRequest{Headers: fields, path: func() { panic("a user's mistake") }}
	assert.PanicsWithValue(t, "a user's mistake", func() {
		_, _ = guard.CheckRequest(t.Context(), mistake, m2mauth.OrganizationPath("org"))
	}, "what is not the library's goes on to the server")
}
