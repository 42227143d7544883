package mcpauth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/mcpauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func Example() {
	issuer := m2mauthtest.NewIssuer() // in production: Issuer and Audience of your own
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		panic(err)
	}
	server := mcp.NewServer(&mcp.Implementation{Name: "shop", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "list_products"}, func(ctx context.Context, _ *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		claims, _ := mcpauth.Claims(ctx)
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "products for " + claims.AppID()}}}, nil, nil
	})

	auth, err := mcpauth.New(mcpauth.Config{
		Guard: guard,
		Tools: map[string]m2mauth.Rule{"list_products": m2mauth.AllScopes("read:products")},
	})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	auth.Mount(mux, "/mcp", server, &mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true})
	if err := auth.Validate(server); err != nil {
		panic(err)
	}

	for _, scopes := range [][]string{{"read:products"}, {"read:orders"}} {
		r := httptest.NewRequest("POST", "/mcp", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_products","arguments":{}}}`))
		r.Header = http.Header{
			"Authorization": {"Bearer " + issuer.Sign(m2mauthtest.Token{Audience: "https://shopping.api", AppID: "desk", Scopes: scopes})},
			"Content-Type":  {"application/json"},
			"Accept":        {"application/json, text/event-stream"},
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.Contains(w.Body.String(), "products for desk"), strings.Contains(w.Header().Get("WWW-Authenticate"), `scope="read:products"`))
	}
	// Output:
	// 200 true false
	// 403 false true
}
