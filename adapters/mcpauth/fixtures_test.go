package mcpauth_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/mcpauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const audience = "https://shopping.api"

func newGuard(tb testing.TB, issuer *m2mauthtest.Issuer, change func(*m2mauth.Config)) *m2mauth.Guard {
	tb.Helper()
	config := issuer.Config(audience)
	config.Logger = slog.New(slog.DiscardHandler)
	if change != nil {
		change(&config)
	}
	guard, err := m2mauth.New(config)
	require.NoError(tb, err)
	return guard
}

// rules are those of newServer's parts.
func rules(guard *m2mauth.Guard) mcpauth.Config {
	return mcpauth.Config{
		Guard: guard,
		Tools: map[string]m2mauth.Rule{
			"list":   m2mauth.AllScopes("read:products"),
			"create": m2mauth.AllScopes("write:products"),
			"purge":  m2mauth.AllScopes("admin"),
		},
		Resources: map[string]m2mauth.Rule{
			"shop://catalog":       m2mauth.AllScopes("read:products"),
			"shop://products/{id}": m2mauth.AllScopes("write:products"),
		},
		Prompts: map[string]m2mauth.Rule{"order": m2mauth.AllScopes("write:products")},
	}
}

// newServer is a shop. Its tools answer with the subject that they see.
func newServer() *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "shop", Version: "1"}, &mcp.ServerOptions{
		SubscribeHandler:   func(context.Context, *mcp.SubscribeRequest) error { return nil },
		UnsubscribeHandler: func(context.Context, *mcp.UnsubscribeRequest) error { return nil },
		CompletionHandler: func(context.Context, *mcp.CompleteRequest) (*mcp.CompleteResult, error) {
			return &mcp.CompleteResult{Completion: mcp.CompletionResultDetails{Values: []string{"completed"}}}, nil
		},
	})
	for _, name := range []string{"list", "create", "purge", "forgotten"} {
		addTool(server, name, func(ctx context.Context, _ *mcp.CallToolRequest) string {
			claims, _ := mcpauth.Claims(ctx)
			return name + " for " + claims.Subject()
		})
	}
	read := func(_ context.Context, r *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: r.Params.URI, Text: "read"}}}, nil
	}
	server.AddResource(&mcp.Resource{Name: "catalog", URI: "shop://catalog"}, read)
	server.AddResource(&mcp.Resource{Name: "ledger", URI: "shop://ledger"}, read)
	server.AddResourceTemplate(&mcp.ResourceTemplate{Name: "product", URITemplate: "shop://products/{id}"}, read)
	server.AddPrompt(&mcp.Prompt{Name: "order"}, func(context.Context, *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
		return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{Role: "user", Content: &mcp.TextContent{Text: "prompted"}}}}, nil
	})
	return server
}

func addTool(server *mcp.Server, name string, answer func(context.Context, *mcp.CallToolRequest) string) {
	server.AddTool(&mcp.Tool{Name: name, InputSchema: map[string]any{"type": "object"}},
		func(ctx context.Context, r *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: answer(ctx, r)}}}, nil
		})
}

func newAuth(tb testing.TB, config mcpauth.Config) *mcpauth.Auth {
	tb.Helper()
	auth, err := mcpauth.New(config)
	require.NoError(tb, err)
	return auth
}

// mint returns the claims of a machine's token with these scopes, signed.
func mint(tb testing.TB, issuer *m2mauthtest.Issuer, app string, scopes ...string) string {
	tb.Helper()
	return issuer.Sign(m2mauthtest.Token{Audience: audience, AppID: app, Scopes: scopes})
}

// peer is a client by hand.
type peer struct {
	tb      testing.TB
	handler http.Handler
	session string
	header  http.Header
}

// newPeer begins a session with a token.
func newPeer(tb testing.TB, handler http.Handler, token string) *peer {
	tb.Helper()
	return newPeerWith(tb, &peer{tb: tb, handler: handler, header: http.Header{}}, token)
}

func newPeerWith(tb testing.TB, p *peer, token string) *peer {
	tb.Helper()
	w := p.post(token, `{"jsonrpc":"2.0","id":"init","method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`)
	require.Equal(tb, 200, w.Code, w.Body)
	p.session = w.Header().Get("Mcp-Session-Id")
	require.NotEmpty(tb, p.session)
	w = p.post(token, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	require.Equal(tb, 202, w.Code, w.Body)
	return p
}

func (p *peer) post(token, body string) *httptest.ResponseRecorder {
	p.tb.Helper()
	return p.do(http.MethodPost, token, strings.NewReader(body))
}

func (p *peer) do(method, token string, body io.Reader) *httptest.ResponseRecorder {
	p.tb.Helper()
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, p.request(method, token, body))
	return w
}

func (p *peer) request(method, token string, body io.Reader) *http.Request {
	r := httptest.NewRequest(method, "/mcp", body)
	r.Header = p.header.Clone()
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if p.session != "" {
		r.Header.Set("Mcp-Session-Id", p.session)
	}
	return r
}

func call(tool string) string {
	return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + tool + `","arguments":{}}}`
}
