package mcpauth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/mcpauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// bearer sends a token, which may change meanwhile.
type bearer struct{ token atomic.Pointer[string] }

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+*b.token.Load())
	return http.DefaultTransport.RoundTrip(r)
}

// The SDK's client over the network, with sessions and their streams, and without, by the
// protocol that has none.
func TestTheSDKsClient(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	config := rules(newGuard(t, issuer, nil))
	config.HideForbidden = true
	auth := newAuth(t, config)
	for name, options := range map[string]*mcp.StreamableHTTPOptions{"sessions": nil, "stateless": {Stateless: true}} {
		server := httptest.NewServer(auth.Handler(newServer(), options))
		defer server.Close()
		var group sync.WaitGroup
		for i := range 10 {
			group.Go(func() {
				app := fmt.Sprint("app", i)
				b := new(bearer)
				with := func(scopes ...string) {
					token := mint(t, issuer, app, scopes...)
					b.token.Store(&token)
				}
				with("read:products")
				session, err := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil).
					Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: server.URL, HTTPClient: &http.Client{Transport: b}, MaxRetries: -1}, nil)
				if !assert.NoError(t, err, name) {
					return
				}
				defer session.Close()
				call := func(tool string) (string, error) {
					result, err := session.CallTool(context.WithoutCancel(t.Context()), &mcp.CallToolParams{Name: tool})
					if err != nil {
						return "", err
					}
					return result.Content[0].(*mcp.TextContent).Text, nil
				}
				tools, err := session.ListTools(t.Context(), nil)
				if assert.NoError(t, err, name) && assert.Len(t, tools.Tools, 1, name) {
					assert.Equal(t, "list", tools.Tools[0].Name)
				}
				text, err := call("list")
				assert.NoError(t, err, name)
				assert.Equal(t, "list for "+app, text)
				_, err = call("create")
				var refused *jsonrpc.Error
				if assert.ErrorAs(t, err, &refused, name) {
					assert.EqualValues(t, mcpauth.CodeForbidden, refused.Code)
					assert.Equal(t, "insufficient_scope: the token lacks a scope that this route requires", refused.Message)
					assert.Contains(t, string(refused.Data), `"error":"insufficient_scope"`)
				}
				with("read:products", "write:products")
				text, err = call("create")
				assert.NoError(t, err, "%s: the session goes on", name)
				assert.Equal(t, "create for "+app, text)
			})
		}
		group.Wait()
	}
}

func TestTheBodyOfARefusal(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	p := newPeer(t, newAuth(t, rules(newGuard(t, issuer, nil))).Handler(newServer(), nil), mint(t, issuer, "app"))
	const usual = `{"error":"insufficient_scope","error_description":"the token has no scopes: ask for them in the token request, and give the application a role that has them"}`
	token := mint(t, issuer, "app")
	for id, written := range map[string]string{`"a\u003cb"`: `"a\u003cb"`, `7`: `7`, ` "x" `: `"x"`} {
		w := p.post(token, `{"jsonrpc":"2.0","id":`+id+`,"method":"tools/call","params":{"name":"list"}}`)
		assert.Equal(t, 403, w.Code)
		assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		assert.JSONEq(t, `{"jsonrpc":"2.0","id":`+written+`,"error":{"code":-32043,"data":`+usual+`,
			"message":"insufficient_scope: the token has no scopes: ask for them in the token request, and give the application a role that has them"}}`, w.Body.String())
	}
	assert.JSONEq(t, usual, p.post(token, calls["batch"]).Body.String(), "a batch has no id")
	assert.JSONEq(t, usual, p.post(token, `{"jsonrpc":"2.0","id":{"a":1},"method":"tools/call","params":{"name":"list"}}`).Body.String())

	p = newPeer(t, newAuth(t, rules(newGuard(t, issuer, func(c *m2mauth.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, e *m2mauth.Error) {
			w.WriteHeader(e.Status)
			_, _ = w.Write([]byte("ours"))
		}
	}))).Handler(newServer(), nil), token)
	w := p.post(token, call("list"))
	assert.Equal(t, 403, w.Code)
	assert.Equal(t, "ours", w.Body.String())
	assert.Contains(t, w.Header().Get("WWW-Authenticate"), "insufficient_scope")

	// A handler that writes the usual body with its length.
	p = newPeer(t, newAuth(t, rules(newGuard(t, issuer, func(c *m2mauth.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, e *m2mauth.Error) {
			_, body := e.Response()
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			w.WriteHeader(e.Status)
			_, _ = w.Write(body)
		}
	}))).Handler(newServer(), nil), token)
	w = p.post(token, call("list"))
	assert.Contains(t, w.Body.String(), "-32043")
	assert.NotContains(t, w.Header(), "Content-Length", "it would cut the longer body")
}
