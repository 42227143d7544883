package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// newShop returns the server for a resource, and a function that sends it a JSON-RPC
// message with a token that has the scopes.
func newShop(t *testing.T, resource string) (handler http.Handler, post func(path, message string, scopes ...string) *httptest.ResponseRecorder) {
	t.Helper()
	var session []string // once there is one
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config(resource)
	config.ImpliedScopes = hierarchy
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	handler, err = routes(guard, resource)
	require.NoError(t, err)
	return handler, func(path, message string, scopes ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(message))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Header.Set("Authorization", "Bearer "+issuer.Sign(m2mauthtest.Token{Audience: resource, Scopes: scopes}))
		r.Header["Mcp-Session-Id"] = session
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if message == initialize {
			session = w.Header()["Mcp-Session-Id"]
		}
		return w
	}
}

const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}`

func TestEachToolNeedsItsScopeOrOneThatIncludesIt(t *testing.T) {
	t.Parallel()
	_, post := newShop(t, "https://shop.test/mcp")
	require.Equal(t, 200, post("/mcp", initialize).Code, "any token begins a session")
	for _, test := range []struct {
		tool, arguments string
		opens           map[string]bool
	}{
		{"list_products", `{}`, map[string]bool{"": false, "read:products": true, "write:products": true, "admin:products": true}},
		{"create_product", `{"name":"Teapot"}`, map[string]bool{"": false, "read:products": false, "write:products": true, "admin:products": true}},
		{"remove_product", `{"id":2}`, map[string]bool{"": false, "read:products": false, "write:products": false, "admin:products": true}},
	} {
		for scope, opens := range test.opens {
			w := post("/mcp", `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"`+test.tool+`","arguments":`+test.arguments+`}}`, scope)
			if opens {
				assert.Equal(t, 200, w.Code, "%s with %q: %s", test.tool, scope, w.Body)
				assert.Contains(t, w.Body.String(), `"structuredContent"`, test.tool)
				continue
			}
			assert.Equal(t, 403, w.Code, "%s with %q", test.tool, scope)
			assert.Contains(t, w.Header().Get("WWW-Authenticate"), `error="insufficient_scope"`)
		}
	}
}

func TestTheServerIsAtThePathOfItsResource(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ resource, path, metadata, elsewhere string }{
		{"https://shop.test", "/", "/.well-known/oauth-protected-resource", "/mcp"},
		{"http://localhost:3001/", "/", "/.well-known/oauth-protected-resource", "/mcp"}, // as Logto's guide has it
		{"https://shop.test/mcp", "/mcp", "/.well-known/oauth-protected-resource/mcp", "/"},
		{"https://shop.test/mcp/", "/mcp/", "/.well-known/oauth-protected-resource/mcp", "/mcp/more"},
	} {
		handler, post := newShop(t, test.resource)
		get := func(path string) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			return w
		}
		assert.Equal(t, 200, post(test.path, initialize).Code, test.resource)
		assert.Equal(t, 404, post(test.elsewhere, initialize).Code, test.resource)
		assert.Equal(t, 401, get(test.path).Code, test.resource)
		assert.JSONEq(t, `{"status":"ok"}`, get("/healthz").Body.String())
		for _, slash := range []string{"", "/"} {
			w := get(test.metadata + slash)
			require.Equal(t, 200, w.Code, "%s%s", test.metadata, slash)
			var document struct {
				Resource string
				Scopes   []string `json:"scopes_supported"`
			}
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &document))
			assert.Equal(t, test.resource, document.Resource)
			assert.Equal(t, []string{"read:products"}, document.Scopes)
		}
	}
}

// That of shopapi.Serve is shorter than a stream.
func TestAStreamOutlivesTheServersWriteTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		listener := &oneConnection{ours: ours, closed: make(chan struct{})}
		server := &http.Server{ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second,
			Handler: unhurried(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for range 3 {
					time.Sleep(time.Minute)
					io.WriteString(w, "event\n")
					http.NewResponseController(w).Flush()
				}
				assert.NoError(t, r.Context().Err())
			}))}
		go server.Serve(listener)
		defer server.Close()
		go io.WriteString(theirs, "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
		all, err := io.ReadAll(theirs)
		require.NoError(t, err)
		assert.Equal(t, 3, strings.Count(string(all), "event\n"), "%s", all)
	})
}

// oneConnection is a listener with one caller.
type oneConnection struct {
	ours   net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *oneConnection) Accept() (conn net.Conn, err error) {
	l.once.Do(func() { conn = l.ours })
	if conn == nil {
		<-l.closed
		err = net.ErrClosed
	}
	return conn, err
}

func (l *oneConnection) Close() error   { close(l.closed); return nil }
func (l *oneConnection) Addr() net.Addr { return l.ours.LocalAddr() }

func TestDemoPrintsTheExchange(t *testing.T) {
	var out strings.Builder
	require.NoError(t, demo(t.Context(), &out))
	for _, row := range []string{
		`editor +POST /mcp server/discover +401 +metadata is at /\.well-known/oauth-protected-resource/mcp`,
		`editor +GET /\.well-known/oauth-protected-resource/mcp +200 +scopes=read:products, issuer=/oidc`,
		`editor +POST /oidc/token, scope=read:products +200 +granted: read:products`,
		`editor +POST /mcp tools/list +200`,
		`editor +POST /mcp tools/call list_products +200`,
		`editor +POST /mcp tools/call create_product +403 +insufficient_scope: scope=write:products\n`,
		`editor +POST /oidc/token, scope=read:products write:products +200 +granted: read:products write:products`,
		`editor +POST /mcp tools/call create_product +200`,
		`editor +POST /mcp tools/call remove_product +403 +insufficient_scope: scope=admin:products`,
		`owner +POST /mcp tools/call remove_product +200`,
	} {
		assert.Regexp(t, row, out.String())
	}
	assert.NotContains(t, out.String(), "NOT EXPECTED")
	assert.Equal(t, 3, strings.Count(out.String(), "remove_product"), "nobody tries again what is not granted")
	assert.NotContains(t, out.String(), "eyJ", "a token")
}

func TestRunReadsTheEnvironment(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // so that run stops as soon as it has started
	env := map[string]string{
		"ISSUER": "http://logto:3001/oidc", "AUDIENCE": "http://localhost:3001/", "JWKS_URL": "http://keys/oidc/jwks",
		"PLAIN_HTTP_HOSTS": "logto, keys", "ADDR": "127.0.0.1:0",
	}
	assert.NoError(t, run(ctx, func(name string) string { return env[name] }))
	err := run(ctx, func(string) string { return "" })
	assert.ErrorContains(t, err, "Config.Issuer")
	assert.ErrorContains(t, err, "Config.Audience")
}
