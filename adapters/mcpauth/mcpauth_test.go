package mcpauth_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/mcpauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestACallNeedsItsToolsRule(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	auth := newAuth(t, rules(newGuard(t, issuer, nil)))
	mux := http.NewServeMux()
	auth.Mount(mux, "/mcp", newServer(), nil)
	token := mint(t, issuer, "app", "read:products")
	p := newPeer(t, mux, token)
	w := p.post(token, call("list"))
	require.Equal(t, 200, w.Code, w.Body)
	assert.Contains(t, w.Body.String(), "list for app")
	w = p.post(token, call("create"))
	assert.Equal(t, 403, w.Code)
	assert.Contains(t, w.Header().Get("WWW-Authenticate"), `error="insufficient_scope"`)
	assert.Contains(t, w.Header().Get("WWW-Authenticate"), `scope="write:products"`)
	assert.Contains(t, w.Header().Get("WWW-Authenticate"), `resource_metadata="https://shopping.api/.well-known/oauth-protected-resource"`)
	assert.Equal(t, 403, p.post(token, call("forgotten")).Code)
	assert.Equal(t, 401, p.post("", call("list")).Code)
}

func TestValidateNamesWhatWasForgotten(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	config := rules(newGuard(t, issuer, nil))
	config.Tools["misspelt"] = config.Tools["list"]
	auth := newAuth(t, config)
	server := newServer()
	auth.Handler(server, nil)
	assert.EqualError(t, auth.Validate(server), `mcpauth: Resources: "shop://ledger" has no rule
mcpauth: Tools: "forgotten" has no rule
mcpauth: Tools: the server has no "misspelt"`)
}

func TestNewNamesEveryMistake(t *testing.T) {
	t.Parallel()
	guard := newGuard(t, m2mauthtest.NewIssuer(), nil)
	one := m2mauth.AllScopes("a")
	_, err := mcpauth.New(mcpauth.Config{
		Guard:     guard,
		Tools:     map[string]m2mauth.Rule{"": one, "zero": {}, "optional": m2mauth.Optional(one)},
		Resources: map[string]m2mauth.Rule{"shop://{": one, "shop://{id}": one},
		Methods:   map[string]m2mauth.Rule{"tools/call": one, "ping": one, "own/method": one},
		Session:   m2mauth.Optional(one),
	})
	assert.EqualError(t, err, `mcpauth: Session: Optional(AllScopes("a")): every request needs a token
mcpauth: Tools: a name is empty
mcpauth: Tools: "optional": Optional(AllScopes("a")): every request needs a token
mcpauth: Tools: "zero": m2mauth: the zero Rule lets nobody through; make one with AllScopes, AnyScope or AnyToken
mcpauth: Resources: "shop://{" is not a URI template: incomplete expression: shop://{_
mcpauth: Methods: ping is the protocol's: see Config for what it requires
mcpauth: Methods: tools/call is the protocol's: see Config for what it requires`)

	_, err = mcpauth.New(mcpauth.Config{Tools: map[string]m2mauth.Rule{"a": one}})
	assert.EqualError(t, err, "mcpauth: Guard is nil; was the error of m2mauth.New ignored?")
	assert.PanicsWithValue(t, "mcpauth: Handler: the server is nil", func() { newAuth(t, mcpauth.Config{Guard: guard}).Handler(nil, nil) })
}

func TestValidateIsContentWithAWholeTable(t *testing.T) {
	t.Parallel()
	config := rules(newGuard(t, m2mauthtest.NewIssuer(), nil))
	config.Tools["forgotten"] = m2mauth.AnyToken()
	config.Resources["shop://ledger"] = m2mauth.AnyToken()
	config.Methods = map[string]m2mauth.Rule{"own/method": m2mauth.AnyToken()}
	config.HideForbidden = true // does not hide anything from Validate
	auth, server := newAuth(t, config), newServer()
	auth.Handler(server, nil)
	assert.NoError(t, auth.Validate(server))
	assert.NoError(t, auth.Validate(newServer()), "before there is a handler")
	assert.EqualError(t, auth.Validate(mcp.NewServer(&mcp.Implementation{Name: "empty", Version: "1"}, nil)), `mcpauth: Prompts: the server has no "order"
mcpauth: Resources: the server has no "shop://catalog"
mcpauth: Resources: the server has no "shop://ledger"
mcpauth: Resources: the server has no "shop://products/{id}"
mcpauth: Tools: the server has no "create"
mcpauth: Tools: the server has no "forgotten"
mcpauth: Tools: the server has no "list"
mcpauth: Tools: the server has no "purge"`)
	assert.ErrorContains(t, newAuth(t, config).Validate(server), "mcpauth: Validate: ", "another Auth's")
}

func TestARuleOfEveryTemplateThatMatches(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	config := rules(newGuard(t, issuer, nil))
	config.Resources = map[string]m2mauth.Rule{
		"shop://products/{id}": m2mauth.AllScopes("a"), "shop://{kind}/{id}": m2mauth.AllScopes("b"), "shop://products/free": m2mauth.AnyToken(),
	}
	p := newPeer(t, newAuth(t, config).Handler(newServer(), nil), mint(t, issuer, "app"))
	read := func(uri string, scopes ...string) int {
		return p.post(mint(t, issuer, "app", scopes...), `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"`+uri+`"}}`).Code
	}
	assert.Equal(t, 403, read("shop://products/7", "a"))
	assert.Equal(t, 403, read("shop://products/7", "b"))
	assert.Equal(t, 200, read("shop://products/7", "a", "b"))
	assert.Equal(t, 200, read("shop://products/free"))
	assert.Equal(t, 403, read("shop://products/free/7", "a", "b"))
	assert.Equal(t, 403, read("Shop://products/7", "a", "b"))
}

// The handler of a template decodes what it matches, so it may serve what has a rule of
// its own under another spelling.
func TestAnotherSpellingDoesNotEscapeTheRuleOfAURI(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	config := rules(newGuard(t, issuer, nil))
	config.Resources = map[string]m2mauth.Rule{
		"shop://products/{id}": m2mauth.AllScopes("a"), "shop://products/secret": m2mauth.AllScopes("b"), "shop://products/d%C3%A9j%C3%A0": m2mauth.AllScopes("b"),
	}
	p := newPeer(t, newAuth(t, config).Handler(newServer(), nil), mint(t, issuer, "app"))
	read := func(uri string, scopes ...string) int {
		return p.post(mint(t, issuer, "app", scopes...), `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"`+uri+`"}}`).Code
	}
	assert.Equal(t, 200, read("shop://products/secret", "b"))
	for _, uri := range []string{"shop://products/secre%74", "shop://products/%73%65%63%72%65%74", "shop://products/d%c3%a9j%C3%A0", "shop://products/%64%C3%A9j%C3%A0"} {
		assert.Equal(t, 403, read(uri, "a"), uri)
		assert.Equal(t, 403, read(uri, "b"), uri)
		assert.Equal(t, 200, read(uri, "a", "b"), uri)
	}
	assert.Equal(t, 200, read("shop://products/secre%2574", "a"), "decoded once, it is another one")
	assert.Equal(t, 403, read("shop://products/%zz", "a", "b"))
}

func TestMetadataWithAndWithoutASlash(t *testing.T) {
	t.Parallel()
	for audience, places := range map[string][]string{
		"http://localhost:3001/":     {"/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/"},
		"https://shopping.api":       {"/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/"},
		"https://shopping.api/mcp":   {"/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource/mcp/"},
		"http://127.0.0.1:3001/mcp/": {"/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource/mcp/"},
	} {
		guard, err := m2mauth.New(m2mauthtest.NewIssuer().Config(audience))
		require.NoError(t, err)
		mux := http.NewServeMux()
		newAuth(t, mcpauth.Config{Guard: guard, Metadata: m2mauth.MetadataConfig{Name: "shop"}}).Mount(mux, "/", newServer(), nil)
		for _, place := range places {
			for _, method := range []string{"GET", "OPTIONS"} {
				w := httptest.NewRecorder()
				mux.ServeHTTP(w, httptest.NewRequest(method, place, nil))
				assert.Equal(t, map[string]int{"GET": 200, "OPTIONS": 204}[method], w.Code, "%s %s", method, place)
				assert.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
				if method == "GET" {
					assert.Contains(t, w.Body.String(), `"resource":"`+audience+`"`)
				}
			}
		}
		for _, place := range []string{"/", places[1] + "more", places[0] + "x"} {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest("POST", place, nil))
			assert.Equal(t, 401, w.Code, place)
			assert.Contains(t, w.Header().Get("WWW-Authenticate"), places[0])
		}
	}
}

func TestTheBodyIsBounded(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	token := mint(t, issuer, "app", "read:products")
	padded := func(n int) string { return call("list") + strings.Repeat(" ", n-len(call("list"))) }
	for option, limit := range map[int64]int{200: 200, 0: 4 << 20, -1: 4 << 20} {
		handler := newAuth(t, rules(newGuard(t, issuer, nil))).Handler(newServer(), &mcp.StreamableHTTPOptions{MaxRequestBodyBytes: option, Stateless: true})
		p := &peer{tb: t, handler: handler, header: http.Header{}}
		assert.Equal(t, 200, p.post(token, padded(limit)).Code, option)
		assert.Equal(t, 413, p.post(token, padded(limit+1)).Code, option)
		assert.Equal(t, 401, p.post("", padded(limit+1)).Code, "nobody else makes the server read")
		broken := p.request("POST", token, iotest.ErrReader(errors.New("gone")))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, broken)
		assert.Equal(t, 400, w.Code)
	}
}
