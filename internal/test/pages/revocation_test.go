package pages_test

import (
	"bytes"
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/revocation"
)

// revocable is what docs/revocation.md sets up.
func revocable(ctx context.Context, config m2mauth.Config, store revocation.Store, signingKey string, products http.Handler) (http.Handler, *revocation.List, error) {
	list, err := revocation.New(revocation.Options{
		MaxTokenLifetime: time.Hour,               // the longest that your issuer gives an access token
		Issuers:          []string{config.Issuer}, // a Logto tenant with a custom domain has two
		Store:            store,                   // nil: this process alone, until it restarts
		Logger:           config.Logger,
	})
	if err != nil {
		return nil, nil, err
	}
	config.MaxLifetime = time.Hour
	admins, err := m2mauth.New(config) // without Revoked: see below
	if err != nil {
		return nil, nil, err
	}
	config.Revoked = list.Revoked
	guard, err := m2mauth.New(config)
	if err != nil {
		return nil, nil, err
	}
	webhook, err := revocation.LogtoWebhook(list, signingKey, revocation.LogtoOptions{
		Issuers:       []string{config.Issuer},
		MembersListed: true, // Logto 1.40 or newer, and Logto Cloud
	})
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /products", guard.Require("read:products")(products))
	mux.Handle("/admin/revocations/", http.StripPrefix("/admin/revocations",
		list.Handler(admins, m2mauth.AllScopes("revoke:tokens"))))
	mux.Handle("/webhooks/logto", webhook)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := list.Ready(r.Context()); err != nil {
			http.Error(w, "the list of revoked tokens is not ready", http.StatusServiceUnavailable)
		}
	})
	go list.Run(ctx)
	return mux, list, nil
}

// The commands of the runbook, in their order, do to a list what the runbook says.
func TestTheRunbookForALeakedSecret(t *testing.T) {
	t.Parallel()
	var steps []block
	for _, b := range blocksIn([]*page{readPage(t, "docs/revocation.md")}, "sh") {
		if b.mark == markRunbook {
			steps = append(steps, b)
		}
	}
	require.Len(t, steps, 6)
	for _, program := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			require.NotEqual(t, "required", os.Getenv("E2E"), "needs %s", program)
			t.Skip("needs " + program)
		}
	}
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.Logger = slog.New(slog.DiscardHandler)
	handler, list, err := revocable(t.Context(), config, nil, "0123456789abcdef", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	require.NoError(t, err)
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)

	environment := append(os.Environ(), "API="+server.URL, "ADMIN="+server.URL+"/admin/revocations", "CLIENT=leaked",
		"TOKEN="+issuer.Sign(m2mauthtest.Token{AppID: "operator", Audience: "https://shopping.api", Scopes: []string{"revoke:tokens"}}))
	run := func(step int, more ...string) string {
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", steps[step].text)
		cmd.Env = append(environment, more...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		require.NoError(t, cmd.Run(), "%s: %s%s", steps[step].where(), stdout.String(), stderr.String())
		return stdout.String()
	}
	signed := func(iat time.Time) string {
		return issuer.Sign(m2mauthtest.Token{AppID: "leaked", Audience: "https://shopping.api", Scopes: []string{"read:products"}, Claims: map[string]any{"iat": iat.Unix(), "exp": iat.Add(time.Hour).Unix()}})
	}
	status := func(token string) int { return serve(handler, "GET", "/products", token).Code }
	stolen := signed(time.Now().Add(-time.Minute))
	require.Equal(t, 200, status(stolen))

	// Block the client.
	assert.Contains(t, run(0), `"client":"leaked"`)
	require.Len(t, list.All(), 1)
	blocked := list.All()[0]
	assert.True(t, blocked.Before.IsZero())
	assert.Equal(t, "operator", blocked.By)
	assert.Equal(t, 401, status(stolen))
	assert.Equal(t, 401, status(signed(time.Now())), "a new token, for the leaked secret")

	// See that it is blocked.
	assert.Contains(t, run(1), blocked.ID)
	assert.Contains(t, run(2, "STOLEN="+stolen), "the token has been revoked")

	// Let the client in again, but not with what was issued before.
	run(3)
	require.Len(t, list.All(), 2)
	limited := list.All()[1]
	assert.WithinDuration(t, time.Now(), limited.Before, time.Minute)
	run(4, "ID="+blocked.ID)
	require.Equal(t, []revocation.Entry{limited}, list.All())
	assert.Equal(t, 401, status(stolen))
	assert.Equal(t, 200, status(signed(limited.Before.Add(30*time.Second))), "half a minute later")

	// Everybody out.
	run(5)
	all := list.All()
	require.Len(t, all, 2)
	assert.True(t, all[1].All)
	assert.False(t, all[1].Before.IsZero())
}

// Logto's console shows 204, not 401: what the page sets up takes signed webhooks.
func TestTheSetUpOfRevocationTakesWebhooks(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.Logger = slog.New(slog.DiscardHandler)
	handler, _, err := revocable(t.Context(), config, nil, "0123456789abcdef", http.NotFoundHandler())
	require.NoError(t, err)
	r := httptest.NewRequest("POST", "/webhooks/logto", strings.NewReader(`{}`))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	body, _ := io.ReadAll(w.Result().Body)
	assert.Equal(t, 403, w.Code, "%s", body)
	assert.Equal(t, 200, serve(handler, "GET", "/readyz", "").Code)
	assert.Equal(t, 401, serve(handler, "GET", "/admin/revocations/", "").Code)
	assert.Equal(t, 403, serve(handler, "GET", "/admin/revocations/", issuer.Token("https://shopping.api", "read:products")).Code)
}

// Every line that package revocation logs has a row.
func TestRevocationNamesEveryLineOfItsLog(t *testing.T) {
	t.Parallel()
	text, lines := readFile(t, "docs/revocation.md"), 0
	names, err := filepath.Glob(filepath.Join(root, "revocation", "*.go"))
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if called, ok := call.Fun.(*ast.SelectorExpr); !ok || !strings.HasSuffix(called.Sel.Name, "Context") && called.Sel.Name != "Warn" && called.Sel.Name != "LogAttrs" {
				return true
			}
			for _, argument := range call.Args {
				if literal, ok := argument.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					line, err := strconv.Unquote(literal.Value)
					require.NoError(t, err)
					if strings.HasPrefix(line, "revocation: ") {
						lines++
						assert.True(t, strings.Contains(text, "| `"+line+"` |"), "no row for %q", line)
					}
				}
			}
			return true
		})
	}
	assert.Greater(t, lines, 10)
}

// The rights in Redis are those that the store's tests use.
func TestRevocationShowsTheStoresRights(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(filepath.Join(root, "revocation", "redisstore")); err != nil {
		t.Skip("the store is a module of its own, which is not here")
	}
	page, rights := readFile(t, "docs/revocation.md"), 0
	for line := range strings.Lines(readFile(t, "revocation/redisstore/doc.go")) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "//"))
		if strings.HasPrefix(line, "user ") || strings.HasPrefix(line, "append") || strings.HasPrefix(line, "maxmemory") {
			rights++
			assert.Contains(t, page, "\n   "+line+"\n")
		}
	}
	assert.Equal(t, 6, rights)
}
