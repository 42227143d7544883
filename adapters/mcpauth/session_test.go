package mcpauth_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/mcpauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestAHandlerSeesTheClaimsOfItsOwnMessage(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	server := newServer()
	addTool(server, "list", func(ctx context.Context, r *mcp.CallToolRequest) string {
		claims, ok := mcpauth.Claims(ctx)
		assert.True(t, ok)
		assert.Equal(t, claims.Scopes().String(), strings.Join(r.Extra.TokenInfo.Scopes, " "))
		assert.WithinDuration(t, claims.ExpiresAt().Add(30*time.Second), r.Extra.TokenInfo.Expiration, 0)
		assert.True(t, strings.HasPrefix(r.Extra.Header.Get("Authorization"), "Bearer ey"), "the header is the request's own")
		return "scopes: " + claims.Scopes().String()
	})
	handler := newAuth(t, rules(newGuard(t, issuer, nil))).Handler(server, nil)
	outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // another guard's claims, in the context of the first request
		handler.ServeHTTP(w, r.WithContext(m2mauth.NewContext(r.Context(), m2mauthtest.Claims(t, "outer"))))
	})
	p := newPeer(t, outer, mint(t, issuer, "app", "admin"))
	for _, scopes := range [][]string{{"read:products"}, {"read:products", "write:products"}} {
		w := p.post(mint(t, issuer, "app", scopes...), call("list"))
		assert.Contains(t, w.Body.String(), `scopes: `+strings.Join(scopes, " ")+`"`)
	}
	assert.Equal(t, 403, p.post(mint(t, issuer, "app"), call("list")).Code, "the scopes of the first request are not this one's")
}

func TestASessionIsItsCallers(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := newGuard(t, issuer, func(c *m2mauth.Config) {
		c.InsecureAllowOrganizationTokens = true
		c.AllowMissingSubject = true
	})
	handler := newAuth(t, rules(guard)).Handler(newServer(), nil)
	sign := func(claims map[string]any, organization string) string {
		return issuer.Sign(m2mauthtest.Token{Audience: audience, AppID: "app", OrganizationID: organization, Claims: claims})
	}
	callers := []string{
		sign(nil, ""), sign(nil, "acme"), sign(nil, "acme2"), sign(map[string]any{"sub": "user"}, ""), sign(map[string]any{"sub": "user"}, "acme"),
		sign(map[string]any{"client_id": "user"}, ""), sign(map[string]any{"sub": "app2"}, ""), sign(map[string]any{"sub": `app","`}, ""),
		sign(map[string]any{"sub": "app2", "client_id": "app2"}, ""), sign(map[string]any{"sub": nil}, ""), sign(map[string]any{"sub": nil, "client_id": "app2"}, ""),
	}
	for i, owner := range callers {
		p := newPeer(t, handler, owner)
		for k, token := range callers {
			want := 403
			if i == k {
				want = 200
			}
			w := p.post(token, calls["ping"])
			assert.Equal(t, want, w.Code, "session %d, token %d", i, k)
			if w.Code == 403 {
				assert.Contains(t, w.Body.String(), "session user mismatch")
				assert.Equal(t, 403, p.do(http.MethodGet, token, nil).Code)
				assert.Equal(t, 403, p.do(http.MethodDelete, token, nil).Code)
			}
		}
		assert.Equal(t, 204, p.do(http.MethodDelete, owner, nil).Code)
	}
}

func TestAServerTakesMessagesThroughItsGuardAlone(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	server := newServer()
	auth := newAuth(t, rules(newGuard(t, issuer, nil)))
	auth.Handler(server, nil)
	ours, theirs := mcp.NewInMemoryTransports()
	session, err := server.Connect(t.Context(), ours, nil)
	require.NoError(t, err)
	defer session.Close()
	_, err = mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil).Connect(t.Context(), theirs, nil)
	assert.ErrorContains(t, err, "this server takes messages through its guard alone")

	open := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true})
	p := &peer{tb: t, handler: open, header: http.Header{}}
	for name, body := range calls {
		if w := p.post("", body); w.Code == 200 {
			assert.NotContains(t, w.Body.String(), `"result"`, name)
			assert.Contains(t, w.Body.String(), "through its guard alone", name)
		}
	}
}

// list returns the names in a list as a token sees it.
func list(tb testing.TB, p *peer, token, method, of, by string) []string {
	tb.Helper()
	w := p.post(token, `{"jsonrpc":"2.0","id":1,"method":"`+method+`"}`)
	require.Equal(tb, 200, w.Code)
	_, data, _ := strings.Cut(w.Body.String(), "data: ")
	var answer struct{ Result map[string]json.RawMessage }
	require.NoError(tb, json.Unmarshal([]byte(data), &answer), w.Body)
	var items []map[string]any
	require.NoError(tb, json.Unmarshal(answer.Result[of], &items))
	require.NotNil(tb, items, "null")
	names := []string{}
	for _, item := range items {
		names = append(names, item[by].(string))
	}
	return names
}

func TestListsShowWhatTheTokenOpens(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	decisions := 0
	config := rules(newGuard(t, issuer, func(c *m2mauth.Config) {
		c.OnDecision = func(context.Context, m2mauth.Decision) { decisions++ }
	}))
	config.HideForbidden = true
	hiding := newAuth(t, config).Handler(newServer(), nil)
	showing := newAuth(t, rules(newGuard(t, issuer, nil))).Handler(newServer(), nil)
	for _, test := range []struct {
		method, of, by string
		all            []string
		opened         map[string][]string
	}{
		{"tools/list", "tools", "name", []string{"create", "forgotten", "list", "purge"},
			map[string][]string{"": {}, "read:products": {"list"}, "write:products": {"create"}, "admin": {"purge"}}},
		{"prompts/list", "prompts", "name", []string{"order"}, map[string][]string{"": {}, "read:products": {}, "write:products": {"order"}}},
		{"resources/list", "resources", "uri", []string{"shop://catalog", "shop://ledger"},
			map[string][]string{"": {}, "read:products": {"shop://catalog"}, "write:products": {}}},
		{"resources/templates/list", "resourceTemplates", "uriTemplate", []string{"shop://products/{id}"},
			map[string][]string{"": {}, "read:products": {}, "write:products": {"shop://products/{id}"}}},
	} {
		for scope, want := range test.opened {
			token := issuer.Sign(m2mauthtest.Token{Audience: audience, AppID: "app", Scopes: strings.Fields(scope)})
			p := newPeer(t, hiding, token)
			before := decisions
			assert.Equal(t, want, list(t, p, token, test.method, test.of, test.by), "%s: %s", test.method, scope)
			assert.Equal(t, 1, decisions-before, "a hidden one is no refusal")
			assert.Equal(t, test.all, list(t, newPeer(t, showing, token), token, test.method, test.of, test.by))
		}
	}
	// What a list or a resource says is of one caller, whatever the SDK's default for caches.
	token := mint(t, issuer, "app", "read:products")
	p := newPeer(t, hiding, token)
	for _, name := range []string{"tools", "prompts", "resources", "templates", "catalog"} {
		assert.Contains(t, p.post(token, calls[name]).Body.String(), `"cacheScope":"private"`, name)
	}
	assert.Contains(t, newPeer(t, showing, token).post(token, calls["catalog"]).Body.String(), `"cacheScope":"private"`)
	assert.Contains(t, newPeer(t, showing, token).post(token, calls["tools"]).Body.String(), `"cacheScope":"public"`)
}

func TestAThousandSessions(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	handler := newAuth(t, rules(newGuard(t, issuer, nil))).Handler(newServer(), &mcp.StreamableHTTPOptions{JSONResponse: true})
	const apps = 20
	var tokens [apps]string
	for i := range tokens {
		tokens[i] = mint(t, issuer, fmt.Sprint("app", i), "read:products")
		newPeer(t, handler, tokens[i]) // known from now on: only the sessions come all at once
	}
	var group sync.WaitGroup
	for i := range 1000 {
		group.Go(func() {
			mine, other := tokens[i%apps], tokens[(i+1)%apps]
			p := newPeer(t, handler, mine)
			assert.Contains(t, p.post(mine, call("list")).Body.String(), fmt.Sprintf("list for app%d\"", i%apps))
			assert.Equal(t, 403, p.post(mine, call("create")).Code)
			assert.Equal(t, 403, p.post(other, call("list")).Code)
			assert.Equal(t, 204, p.do(http.MethodDelete, mine, nil).Code)
		})
	}
	group.Wait()
}

func TestTheLogSaysWhichToolAndNoToken(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	issuer := m2mauthtest.NewIssuer()
	config := rules(newGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = logger }))
	handler := newAuth(t, config).Handler(newServer(), &mcp.StreamableHTTPOptions{Logger: logger})
	tokens := []string{mint(t, issuer, "app"), mint(t, issuer, "app", "read:products"), mint(t, issuer, "other"),
		issuer.Sign(m2mauthtest.Token{Audience: audience, Expired: true}), mint(t, m2mauthtest.NewIssuer(), "forged")}
	p := newPeer(t, handler, tokens[0])
	for _, token := range tokens {
		for _, body := range calls {
			p.post(token, body)
		}
		p.post(token, strings.Replace(call("x"), `"x"`, `"`+strings.Repeat("x", 10_000)+`"`, 1))
	}
	for _, what := range []string{`"Tools \"create\""`, `"Tools \"forgotten\""`, `"Resources \"shop://ledger\""`, `"Methods \"own/method\""`} {
		assert.Contains(t, log.String(), what)
	}
	assert.NotContains(t, log.String(), strings.Repeat("x", 200))
	for _, token := range tokens {
		assert.NotContains(t, log.String(), token)
		assert.NotContains(t, log.String(), token[strings.LastIndexByte(token, '.'):])
	}
}

func TestRulesSeeTheHTTPRequest(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	config := rules(newGuard(t, issuer, nil))
	config.HideForbidden = true // lists ask the same rules, with the same request
	seen := 0
	config.Tools["list"] = m2mauth.Custom("look", func(_ context.Context, claims m2mauth.Claims, r m2mauth.Request) error {
		seen++
		assert.Equal(t, "app", claims.AppID())
		assert.Equal(t, []string{"a", "b"}, r.Header("x-seen"))
		assert.Equal(t, "acme", r.PathValue("org"))
		assert.Equal(t, "192.0.2.1:1234", r.RemoteAddr())
		assert.Equal(t, "POST", r.Method())
		assert.Equal(t, "/orgs/acme/mcp", r.URL().Path)
		assert.NotNil(t, r.TLS())
		assert.Equal(t, `/orgs/{org}/mcp Tools "list"`, r.Pattern())
		return nil
	})
	mux := http.NewServeMux()
	newAuth(t, config).Mount(mux, "/orgs/{org}/mcp", newServer(), &mcp.StreamableHTTPOptions{Stateless: true})
	p := &peer{tb: t, handler: mux, header: http.Header{"X-Seen": {"a", "b"}}}
	r := p.request("POST", mint(t, issuer, "app"), strings.NewReader(call("list")))
	r.URL.Path, r.TLS = "/orgs/acme/mcp", &tls.ConnectionState{}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	assert.Equal(t, 200, w.Code)
	assert.Equal(t, 1, seen)
	r = p.request("POST", mint(t, issuer, "app"), strings.NewReader(calls["tools"]))
	r.URL.Path, r.TLS = "/orgs/acme/mcp", &tls.ConnectionState{}
	w = httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	assert.Contains(t, w.Body.String(), `"name":"list"`)
	assert.Equal(t, 2, seen)
}
