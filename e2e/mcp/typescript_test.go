package mcp

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/e2e/internal/process"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// request is what the client has sent, and what came back.
type request struct {
	Method, URL, Message, Tool string
	Status                     int
	Scope, Error               string // of the challenge
	Form                       *struct {
		GrantType       string `json:"grant_type"`
		Resource, Scope string
	}
}

// The client of the TypeScript SDK finds the issuer, gets a token, calls, is told which
// scope it lacks, and gets that.
func TestTypeScriptClient(t *testing.T) {
	dir, node := install(t)
	example := filepath.Join(t.TempDir(), "mcp")
	build := exec.Command("go", "build", "-o", example, "./mcp")
	build.Dir = "../../examples"
	output, ok := process.Run(t, 10*time.Minute, build)
	require.True(t, ok, output)

	for _, test := range []struct{ name, resource, url, metadata string }{
		{"at a path", "/mcp", "/mcp", "/.well-known/oauth-protected-resource/mcp"},
		{"at the root, with the slash of Logto's guide", "/", "", "/.well-known/oauth-protected-resource"},
		{"at the root, without a slash", "", "/", "/.well-known/oauth-protected-resource"},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := process.FreeAddresses(t, 1)[0]
			origin := "http://" + address
			resource := origin + test.resource
			issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
			require.NoError(t, err)
			t.Cleanup(issuer.Close)
			issuer.AddResource(resource, "read:products", "write:products", "admin:products")
			issuer.AddRole("editor", resource, "read:products", "write:products")
			app := issuer.AddApp("editor", "editor")

			server := exec.Command(example)
			server.Env = append(os.Environ(), "ADDR="+address, "ISSUER="+issuer.URL(), "AUDIENCE="+resource, "JWKS_URL=", "PLAIN_HTTP_HOSTS=")
			started := process.Start(t, server)
			started.Ready(t, origin+"/healthz")

			client := exec.Command(node, "client.mjs")
			client.Dir = dir
			client.Env = append(os.Environ(), "URL="+origin+test.url, "ISSUER="+issuer.URL(), "APP_ID="+app.ID, "APP_SECRET="+app.Secret,
				"SCOPE=read:products", `CALLS=[{"name":"list_products"},{"name":"create_product","arguments":{"name":"Teapot"}},`+
					`{"name":"list_products"},{"name":"remove_product","arguments":{"id":2}}]`)
			output, ok := process.Run(t, time.Minute, client)
			require.True(t, ok, output)
			var said struct {
				Tools    []string
				Results  []map[string]any
				Requests []request
			}
			require.NoError(t, json.Unmarshal([]byte(output), &said), output)

			assert.ElementsMatch(t, []string{"list_products", "create_product", "remove_product"}, said.Tools)
			require.Len(t, said.Results, 4)
			assert.Len(t, said.Results[0]["products"], 2)
			assert.Equal(t, "Teapot", said.Results[1]["name"])
			assert.Len(t, said.Results[2]["products"], 2)
			assert.Contains(t, said.Results[3]["error"], "403 after trying upscoping")

			var steps []string
			for _, r := range said.Requests {
				t.Logf("%-6s %s %s %s: %d %s %s", r.Method, strings.TrimPrefix(r.URL, origin), r.Message, r.Tool, r.Status, r.Error, r.Scope)
				switch {
				case r.Form != nil:
					assert.Equal(t, "client_credentials", r.Form.GrantType)
					assert.Equal(t, resource, r.Form.Resource, "as the metadata has it, to the last slash")
					steps = append(steps, "token for "+r.Form.Scope)
				case strings.HasPrefix(r.URL, issuer.URL()):
				case r.Method == "GET" && r.Status == 200 && r.URL == origin+test.metadata:
					steps = append(steps, "metadata")
				case r.Message == "initialize", r.Tool != "":
					steps = append(steps, strings.TrimSpace(r.Message+" "+r.Tool+" "+r.Error+" "+r.Scope)+" "+strconv.Itoa(r.Status))
				}
			}
			assert.Equal(t, []string{
				"initialize 401", "metadata", "token for read:products", "initialize 200",
				"tools/call list_products 200",
				"tools/call create_product insufficient_scope write:products 403", "metadata", "token for read:products write:products",
				"tools/call create_product 200",
				"tools/call list_products 200",
				"tools/call remove_product insufficient_scope admin:products 403", "metadata", "token for read:products write:products admin:products",
				"tools/call remove_product insufficient_scope admin:products 403", // the same challenge, by which it knows to give up
			}, steps)

			started.Stop()
			assert.Zero(t, started.ExitCode())
			assert.Contains(t, started.Output(), app.ID, "the log says whose calls these are")
			assert.NotContains(t, started.Output(), "eyJ", "a token")
		})
	}
}
