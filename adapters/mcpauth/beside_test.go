package mcpauth_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// What the SDK's own middleware answers, with the same guard as its verifier and the scope
// that the least of the tools needs, beside this package.
func TestBesideTheSDKsOwnMiddleware(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := newGuard(t, issuer, nil)
	mux := http.NewServeMux()
	newAuth(t, rules(guard)).Mount(mux, "/mcp", newServer(), nil)
	verify := func(ctx context.Context, token string, _ *http.Request) (*auth.TokenInfo, error) {
		claims, err := guard.Verify(ctx, token)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", auth.ErrInvalidToken, err)
		}
		info := &auth.TokenInfo{Expiration: claims.ExpiresAt(), UserID: claims.Subject()}
		for scope := range claims.Scopes().All() {
			info.Scopes = append(info.Scopes, scope)
		}
		return info, nil
	}
	server := newServer()
	sdk := auth.RequireBearerToken(verify, &auth.RequireBearerTokenOptions{
		ResourceMetadataURL: "https://shopping.api/.well-known/oauth-protected-resource", Scopes: []string{"read:products"},
	})(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil))

	good := mint(t, issuer, "app", "read:products")
	user := func(organization string) string {
		return issuer.Sign(m2mauthtest.Token{Audience: audience, AppID: "app", OrganizationID: organization, Scopes: []string{"read:products"}, Claims: map[string]any{"sub": "user"}})
	}
	ours, theirs := newPeer(t, mux, good), newPeer(t, sdk, good)
	var table strings.Builder
	for _, test := range []struct {
		name, authorization, body string
		ours, theirs              string
	}{
		{"no token", "", call("list"), "401 -", "401 -"},
		{"another scheme", "Basic YTpi", call("list"), "401 -", "401 -"},
		{"two words", "Bearer a b", call("list"), "400 invalid_request", "401 -"},
		{"rubbish", "Bearer a", call("list"), "401 invalid_token", "401 -"},
		{"expired", "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: audience, Expired: true}), call("list"), "401 invalid_token", "401 -"},
		{"other audience", "Bearer " + issuer.Token("https://other.api"), call("list"), "401 invalid_token", "401 -"},
		{"no scope", "Bearer " + mint(t, issuer, "app"), calls["ping"], "200 -", "403 -"},
		{"no scope, tool", "Bearer " + mint(t, issuer, "app"), call("list"), "403 insufficient_scope", "403 -"},
		{"good", "Bearer " + good, call("list"), "200 -", "200 -"},
		{"more than its scope", "Bearer " + good, call("purge"), "403 insufficient_scope", "200 -"},
		{"a tool in two cases", "Bearer " + good, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list","Name":"purge"}}`, "400 invalid_request", "200 -"},
		{"another's session", "Bearer " + user(""), call("list"), "403 -", "403 -"},
	} {
		answer := func(p *peer) string {
			p.header.Set("Authorization", test.authorization)
			w := p.post("", test.body)
			kind := "-"
			if _, after, ok := strings.Cut(w.Header().Get("WWW-Authenticate"), ` error="`); ok {
				kind, _, _ = strings.Cut(after, `"`)
			}
			fmt.Fprintf(&table, "%-20s %3d %s\n", test.name, w.Code, w.Header().Get("WWW-Authenticate"))
			return fmt.Sprint(w.Code, " ", kind)
		}
		assert.Equal(t, test.ours, answer(ours), test.name)
		assert.Equal(t, test.theirs, answer(theirs), "the SDK's: %s", test.name)
	}
	t.Logf("each request, answered by this package and by the SDK's middleware:\n%s", &table)
}
