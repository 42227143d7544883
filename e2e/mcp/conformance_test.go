package mcp

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/e2e/internal/process"
	"github.com/m2mauth/m2mauth/e2e/mcp/everything"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const (
	suite    = "node_modules/@modelcontextprotocol/conformance/dist/index.js"
	sdk      = "github.com/modelcontextprotocol/go-sdk"
	audience = "https://mcp.test/mcp"
)

// The suite has no scenario for a server that needs a token, so token.mjs adds it. Behind
// the guard the SDK's own conformance server must pass and fail what it does without.
func TestConformance(t *testing.T) {
	dir, node := install(t)
	plain, guarded := build(t)
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	token := issuer.Sign(m2mauthtest.Token{Audience: audience, Scopes: []string{everything.Tools, everything.Resources, everything.Prompts}})

	for _, mode := range []struct{ name, stateless string }{{"with sessions", "false"}, {"without sessions", "true"}} {
		t.Run(mode.name, func(t *testing.T) {
			run := func(program string) map[string][]string {
				address := process.FreeAddresses(t, 1)[0]
				cmd := exec.Command(program, "-http", address, "-stateless="+mode.stateless)
				cmd.Env = append(os.Environ(), "ISSUER="+issuer.URL(), "AUDIENCE="+audience)
				server := process.Start(t, cmd)
				status := listening(t, server, "http://"+address+"/mcp")
				if program == guarded {
					require.Equal(t, http.StatusUnauthorized, status, "without a token")
				} else {
					require.NotEqual(t, http.StatusUnauthorized, status)
				}
				return results(t, dir, node, "http://"+address+"/mcp", token)
			}
			without, with := run(plain), run(guarded)
			assert.Len(t, without, 32)
			assert.Equal(t, without, with)
			for scenario, checks := range with {
				t.Logf("%-32s %s", scenario, strings.Join(checks, ", "))
				if mode.stateless == "false" {
					assert.NotContains(t, strings.Join(checks, ", "), "FAILURE", scenario)
				}
			}
		})
	}
}

// build builds the SDK's conformance server, as it is and behind a guard.
func build(t *testing.T) (plain, guarded string) {
	t.Helper()
	dir := t.TempDir()
	goCommand := func(args ...string) string {
		cmd := exec.Command("go", args...)
		output, ok := process.Run(t, 10*time.Minute, cmd)
		require.True(t, ok, "go %s: %s", strings.Join(args, " "), output)
		return strings.TrimSpace(output)
	}
	plain, guarded = filepath.Join(dir, "plain"), filepath.Join(dir, "guarded")
	goCommand("build", "-o", plain, sdk+"/conformance/everything-server")

	source, err := os.ReadFile(filepath.Join(goCommand("list", "-m", "-f", "{{.Dir}}", sdk), "conformance", "everything-server", "main.go"))
	require.NoError(t, err)
	changed := string(source)
	for _, change := range []struct{ from, to string }{
		{"mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server {\n\t\t\treturn server\n\t\t}, ", "everything.Handler(server, "},
		{"import (\n", "import (\n\t\"github.com/m2mauth/m2mauth/e2e/mcp/everything\"\n"},
	} {
		require.Equal(t, 1, strings.Count(changed, change.from), "the SDK's server has changed: %s", change.from)
		changed = strings.Replace(changed, change.from, change.to, 1)
	}
	main := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(main, []byte(changed), 0o600))
	here, err := os.Getwd()
	require.NoError(t, err)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(here, "guarded", "main.go"): main}})
	require.NoError(t, err)
	list := filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(list, overlay, 0o600))
	goCommand("build", "-overlay", list, "-o", guarded, "./guarded")
	return plain, guarded
}

// listening waits until the server listens, and returns what it answers to a ping.
func listening(t *testing.T, server *process.Process, url string) int {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		require.True(t, server.Running())
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"ping"}`))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		if response, err := http.DefaultClient.Do(r); err == nil {
			response.Body.Close()
			return response.StatusCode
		}
	}
	require.Fail(t, "the server does not listen")
	return 0
}

var timestamp = regexp.MustCompile(`-\d{4}-\d\d-\d\dT[-0-9]+Z$`)

// results runs the server scenarios and returns the checks of each with their outcome.
func results(t *testing.T, dir, node, url, token string) map[string][]string {
	t.Helper()
	out := t.TempDir()
	cmd := exec.Command(node, "--import", "./token.mjs", suite, "server", "--url", url, "--suite", "all", "--output-dir", out)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TOKEN="+token)
	output, _ := process.Run(t, 2*time.Minute, cmd) // its exit status says whether all pass
	folders, err := os.ReadDir(out)
	require.NoError(t, err)
	require.NotEmpty(t, folders, output)
	found := make(map[string][]string)
	for _, folder := range folders {
		data, err := os.ReadFile(filepath.Join(out, folder.Name(), "checks.json"))
		require.NoError(t, err)
		var checks []struct{ ID, Status string }
		require.NoError(t, json.Unmarshal(data, &checks))
		scenario := strings.TrimPrefix(timestamp.ReplaceAllString(folder.Name(), ""), "server-")
		found[scenario] = []string{}
		for _, check := range checks {
			if check.Status != "INFO" { // each request, and when it came
				found[scenario] = append(found[scenario], check.ID+" "+check.Status)
			}
		}
	}
	return found
}
