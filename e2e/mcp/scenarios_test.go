package mcp

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/mcpauth"
	"github.com/m2mauth/m2mauth/e2e/internal/process"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// The scenarios auth/* of the suite are for clients. Each stands on what a server does:
// that is what its test here looks at.
var scenarios = map[string]func(*testing.T){
	"auth/metadata-default": func(t *testing.T) {
		s := serve(t, "https://mcp.test/mcp", nil)
		named := s.post("", initialize).challenge["resource_metadata"]
		assert.Equal(t, "https://mcp.test/.well-known/oauth-protected-resource/mcp", named)
		assert.Equal(t, "https://mcp.test/mcp", s.metadata(t, named).Resource)
		assert.Equal(t, []string{s.issuer.URL()}, s.metadata(t, named).Issuers)
		assert.Equal(t, 404, s.get("/.well-known/oauth-protected-resource").Code, "the root is another resource")
	},
	"auth/metadata-var1": func(t *testing.T) { // the place is not named: it follows from the URL
		s := serve(t, "https://mcp.test/mcp", nil)
		for _, place := range []string{"/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource/mcp/"} {
			assert.Equal(t, "https://mcp.test/mcp", s.metadata(t, place).Resource)
		}
	},
	"auth/metadata-var2": func(t *testing.T) { // at the root
		for _, resource := range []string{"https://mcp.test", "https://mcp.test/", "http://localhost:3001/"} {
			s := serve(t, resource, nil)
			for _, place := range []string{"/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/"} {
				assert.Equal(t, resource, s.metadata(t, place).Resource)
			}
		}
	},
	"auth/metadata-var3": func(t *testing.T) { // the challenge names a place that is not to be guessed
		s := serve(t, "https://mcp.test/tenant1/mcp/", nil)
		named := s.post("", initialize).challenge["resource_metadata"]
		assert.Equal(t, "https://mcp.test/tenant1/mcp/", s.metadata(t, named).Resource)
	},
	"auth/basic-cimd": func(t *testing.T) {
		s := serve(t, "https://mcp.test/mcp", nil)
		id := "https://client.test/" + strings.Repeat("a", 2048-len("https://client.test/"))
		token := s.issuer.Sign(m2mauthtest.Token{Audience: s.resource, AppID: id, Claims: map[string]any{"sub": "user"}})
		assert.Equal(t, 200, s.post(token, initialize).Code)
	},
	"auth/scope-from-www-authenticate": func(t *testing.T) {
		s := serve(t, "https://mcp.test/mcp", []string{"basic", "write"}, m2mauth.AllScopes("basic"))
		assert.Equal(t, "basic", s.post("", initialize).challenge["scope"], "what the session needs")
		assert.Equal(t, "write", s.post(s.token("basic"), call("write")).challenge["scope"])
	},
	"auth/scope-from-scopes-supported": func(t *testing.T) { // no scope in the challenge: all of these
		s := serve(t, "https://mcp.test/mcp", []string{"basic", "write"})
		a := s.post("", initialize)
		assert.NotContains(t, a.challenge, "scope")
		assert.Equal(t, []string{"basic", "write"}, s.metadata(t, a.challenge["resource_metadata"]).Scopes)
	},
	"auth/scope-omitted-when-undefined": func(t *testing.T) { // neither names a scope, and none is needed
		s := serve(t, "https://mcp.test/mcp", nil)
		a := s.post("", initialize)
		assert.NotContains(t, a.challenge, "scope")
		assert.NotContains(t, s.get("/.well-known/oauth-protected-resource/mcp").Body.String(), "scopes_supported")
		assert.Equal(t, 200, s.post(s.token(), initialize).Code)
	},
	"auth/scope-step-up": func(t *testing.T) {
		s := serve(t, "https://mcp.test/mcp", nil)
		session := s.begin(t, s.token("basic"))
		assert.Equal(t, 200, s.post(s.token("basic"), call("basic"), session).Code)
		a := s.post(s.token("basic"), call("write"), session)
		assert.Equal(t, 403, a.Code)
		assert.Equal(t, "insufficient_scope", a.challenge["error"])
		assert.Equal(t, "https://mcp.test/.well-known/oauth-protected-resource/mcp", a.challenge["resource_metadata"])
		a = s.post(s.token("basic", a.challenge["scope"]), call("write"), session)
		assert.Equal(t, 200, a.Code, "the session goes on with the new token")
		assert.Contains(t, a.Body.String(), "write for app")
	},
	"auth/scope-retry-limit": func(t *testing.T) { // clients give up when a challenge comes twice
		s := serve(t, "https://mcp.test/mcp", nil)
		session := s.begin(t, s.token("basic"))
		first, second := s.post(s.token("basic"), call("write"), session), s.post(s.token("basic"), call("write"), session)
		assert.Equal(t, 403, second.Code)
		assert.Equal(t, first.Header().Get("WWW-Authenticate"), second.Header().Get("WWW-Authenticate"))
	},
	"auth/token-endpoint-auth-basic": opensHoweverItWasIssued(func(r *http.Request, app m2mauthtest.App) { r.SetBasicAuth(app.ID, app.Secret) }),
	"auth/token-endpoint-auth-post": opensHoweverItWasIssued(func(r *http.Request, app m2mauthtest.App) {
		r.PostForm.Set("client_id", app.ID)
		r.PostForm.Set("client_secret", app.Secret)
	}),
	"auth/token-endpoint-auth-none":             aUsersTokenOpens, // of a client without a secret
	"auth/pre-registration":                     namesNoRegistration,
	"auth/2025-03-26-oauth-metadata-backcompat": isNoIssuer,
	"auth/2025-03-26-oauth-endpoint-fallback":   isNoIssuer,
	"auth/resource-mismatch":                    theResourceIsTheConfiguredOne,
	"auth/offline-access-scope":                 offlineAccessOpensNothing,
	"auth/offline-access-not-supported":         offlineAccessOpensNothing,
	"auth/client-credentials-jwt":               aMachinesTokenOpens,
	"auth/client-credentials-basic":             aMachinesTokenOpens,
	"auth/cross-app-access-complete-flow":       aUsersTokenOpens, // that another issuer vouches for is the issuer's business
}

// opensHoweverItWasIssued returns a test with a token from the token endpoint.
func opensHoweverItWasIssued(authenticate func(*http.Request, m2mauthtest.App)) func(*testing.T) {
	return func(t *testing.T) {
		s := serve(t, "https://mcp.test/mcp", nil)
		s.issuer.AddResource(s.resource, "basic")
		s.issuer.AddRole("reader", s.resource, "basic")
		app := s.issuer.AddApp("app", "reader")
		r := httptest.NewRequest(http.MethodPost, s.issuer.TokenURL(), nil)
		r.PostForm = url.Values{"grant_type": {"client_credentials"}, "resource": {s.resource}, "scope": {"basic"}}
		authenticate(r, app)
		request, err := http.NewRequestWithContext(t.Context(), r.Method, s.issuer.TokenURL(), strings.NewReader(r.PostForm.Encode()))
		require.NoError(t, err)
		request.Header = r.Header
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		response, err := s.issuer.Client().Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		var granted struct {
			AccessToken string `json:"access_token"`
		}
		require.NoError(t, json.NewDecoder(response.Body).Decode(&granted))
		assert.Equal(t, 200, s.post(granted.AccessToken, call("basic"), s.begin(t, granted.AccessToken)).Code)
	}
}

func aUsersTokenOpens(t *testing.T) {
	s := serve(t, "https://mcp.test/mcp", nil)
	token := s.issuer.Sign(m2mauthtest.Token{Audience: s.resource, AppID: "client", Claims: map[string]any{"sub": "user"}, Scopes: []string{"basic"}})
	a := s.post(token, call("basic"), s.begin(t, token))
	assert.Equal(t, 200, a.Code)
	assert.Contains(t, a.Body.String(), "basic for user")
}

func aMachinesTokenOpens(t *testing.T) {
	s := serve(t, "https://mcp.test/mcp", nil)
	a := s.post(s.token("basic"), call("basic"), s.begin(t, s.token("basic")))
	assert.Equal(t, 200, a.Code)
	assert.Contains(t, a.Body.String(), "basic for app")
}

// Clients register at the issuer, if at all.
func namesNoRegistration(t *testing.T) {
	s := serve(t, "https://mcp.test/mcp", nil)
	for _, path := range []string{"/register", "/.well-known/oauth-client"} {
		assert.Equal(t, 404, s.get(path).Code, path)
	}
	assert.NotContains(t, s.get("/.well-known/oauth-protected-resource/mcp").Body.String(), "registration")
}

// Clients of 2025-03-26 take a server without metadata for its own issuer.
func isNoIssuer(t *testing.T) {
	s := serve(t, "https://mcp.test/mcp", nil)
	for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/oauth-authorization-server/mcp",
		"/.well-known/openid-configuration", "/authorize", "/token", "/register"} {
		assert.Equal(t, 404, s.get(path).Code, path)
	}
}

func theResourceIsTheConfiguredOne(t *testing.T) {
	s := serve(t, "https://mcp.test/mcp", nil)
	r := httptest.NewRequest(http.MethodGet, "https://evil.test/.well-known/oauth-protected-resource/mcp", nil)
	r.Header.Set("X-Forwarded-Host", "evil.test")
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	assert.NotContains(t, w.Body.String(), "evil")
	assert.Contains(t, w.Body.String(), `"https://mcp.test/mcp"`)
	for _, other := range []string{"https://evil.test/mcp", "https://mcp.test/mcp/", "https://mcp.test"} {
		a := s.post(s.issuer.Sign(m2mauthtest.Token{Audience: other, Scopes: []string{"basic"}}), initialize)
		assert.Equal(t, 401, a.Code, other)
		assert.Equal(t, "invalid_token", a.challenge["error"])
	}
}

func offlineAccessOpensNothing(t *testing.T) {
	s := serve(t, "https://mcp.test/mcp", []string{"basic"})
	assert.NotContains(t, s.get("/.well-known/oauth-protected-resource/mcp").Body.String(), "offline_access")
	token := s.token("offline_access")
	a := s.post(token, call("basic"), s.begin(t, token))
	assert.Equal(t, 403, a.Code)
	assert.Equal(t, "basic", a.challenge["scope"])
}

func TestWhatTheSuiteExpectsOfServers(t *testing.T) {
	t.Parallel()
	for name, test := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

func TestEveryScenarioOfTheSuiteAboutAuthorizationHasATest(t *testing.T) {
	dir, node := install(t)
	cmd := exec.Command(node, suite, "list")
	cmd.Dir = dir
	output, ok := process.Run(t, time.Minute, cmd)
	require.True(t, ok, output)
	var ours []string
	for name := range scenarios {
		ours = append(ours, name)
	}
	assert.ElementsMatch(t, regexp.MustCompile(`auth/\S+`).FindAllString(output, -1), ours)
}

// server is an MCP server behind a guard, with the tools basic and write, each of which
// needs the scope of its name.
type server struct {
	resource string
	issuer   *m2mauthtest.Issuer
	handler  http.Handler
}

func serve(t *testing.T, resource string, supported []string, session ...m2mauth.Rule) server {
	t.Helper()
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config(resource))
	require.NoError(t, err)
	auth, err := mcpauth.New(mcpauth.Config{
		Guard:    guard,
		Session:  m2mauth.AllOf(append(session, m2mauth.AnyToken())...),
		Tools:    map[string]m2mauth.Rule{"basic": m2mauth.AllScopes("basic"), "write": m2mauth.AllScopes("write")},
		Metadata: m2mauth.MetadataConfig{Scopes: supported},
	})
	require.NoError(t, err)
	sdk := mcp.NewServer(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	for _, name := range []string{"basic", "write"} {
		mcp.AddTool(sdk, &mcp.Tool{Name: name}, func(ctx context.Context, _ *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
			claims, _ := mcpauth.Claims(ctx)
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: name + " for " + claims.Subject()}}}, nil, nil
		})
	}
	at, err := url.Parse(resource)
	require.NoError(t, err)
	mux := http.NewServeMux()
	path := cmp.Or(at.Path, "/")
	if strings.HasSuffix(path, "/") {
		path += "{$}"
	}
	auth.Mount(mux, path, sdk, &mcp.StreamableHTTPOptions{JSONResponse: true})
	require.NoError(t, auth.Validate(sdk))
	return server{resource, issuer, mux}
}

// token returns a token of the machine app.
func (s server) token(scopes ...string) string {
	return s.issuer.Sign(m2mauthtest.Token{AppID: "app", Audience: s.resource, Scopes: scopes})
}

// answer is what came back, with the parameters of its challenge.
type answer struct {
	*httptest.ResponseRecorder
	challenge map[string]string
}

// post sends a message, in a session if there is one.
func (s server) post(token, message string, session ...string) answer {
	r := httptest.NewRequest(http.MethodPost, s.resource, strings.NewReader(message))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	r.Header["Mcp-Session-Id"] = session
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	a := answer{httptest.NewRecorder(), map[string]string{}}
	s.handler.ServeHTTP(a, r)
	challenges, err := oauthex.ParseWWWAuthenticate(a.Header().Values("WWW-Authenticate"))
	for _, c := range challenges {
		a.challenge = c.Params
	}
	if err != nil {
		a.challenge["unreadable"] = err.Error()
	}
	return a
}

// begin begins a session and returns its ID.
func (s server) begin(t *testing.T, token string) string {
	t.Helper()
	a := s.post(token, initialize)
	require.Equal(t, 200, a.Code, a.Body)
	id := a.Header().Get("Mcp-Session-Id")
	require.NotEmpty(t, id)
	require.Equal(t, 202, s.post(token, `{"jsonrpc":"2.0","method":"notifications/initialized"}`, id).Code)
	return id
}

func (s server) get(path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

type document struct {
	Resource string
	Issuers  []string `json:"authorization_servers"`
	Scopes   []string `json:"scopes_supported"`
}

// metadata returns the document at a place, which must be there for clients on pages of
// other origins too.
func (s server) metadata(t *testing.T, place string) (d document) {
	t.Helper()
	w := s.get(place)
	require.Equal(t, 200, w.Code, place)
	assert.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"), place)
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &d))
	return d
}

const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}`

func call(tool string) string {
	return `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"` + tool + `","arguments":{}}}`
}
