//go:build unix

package gateway

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/m2mauth/m2mauth/e2e/internal/process"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// caddies are the releases of Caddy that all tests run with.
var caddies = []struct {
	name    string
	path    func(t testing.TB) string
	version func(t testing.TB) string
}{
	{"Debian's", func(t testing.TB) string {
		process.Need(t, "caddy")
		return "caddy"
	}, func(t testing.TB) string { return versionOf(t, exec.Command("caddy", "version")) }},
	{"current", func(t testing.TB) string { return strings.TrimSpace(ofCaddysModule(t, "tool", "-n", "caddy")) },
		func(t testing.TB) string {
			return strings.TrimSpace(ofCaddysModule(t, "list", "-m", "-f", `{{slice .Version 1}}`, "github.com/caddyserver/caddy/v2"))
		}},
}

// ofCaddysModule runs go in e2e/proxies/caddy, where go tool -n builds that Caddy unless that
// was done before, and says where it is.
func ofCaddysModule(t testing.TB, args ...string) string {
	t.Helper()
	if os.Getenv("E2E") == "" {
		t.Skip("to build the current Caddy takes minutes: with E2E=required it is built")
	}
	command := exec.Command("go", args...)
	command.Dir = "../proxies/caddy"
	command.Env = append(os.Environ(), "GOWORK=off")
	out, err := command.Output()
	if err != nil {
		process.Skip(t, "the current Caddy cannot be built: %v", err)
	}
	return string(out)
}

// versionOf returns what a program says of its version, without a v.
func versionOf(t testing.TB, command *exec.Cmd) string {
	t.Helper()
	out, err := command.CombinedOutput()
	require.NoError(t, err)
	found := regexp.MustCompile(`\d+\.\d+\.\d+`).FindString(string(out))
	require.NotEmpty(t, found, "%s", out)
	return found
}

// caddyfile is the Caddyfile beside the gateway, with other addresses and without TLS.
// A second address speaks HTTP/2 too.
func caddyfile(t testing.TB, caddy, h2, gateway, api string) string {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(program, "Caddyfile"))
	require.NoError(t, err)
	text := string(file)
	port := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
	for _, change := range [][2]string{
		{"api.example.com {\n", "http://api.example.com:" + port(caddy) + ", http://api.example.com:" + port(h2) + " {\n\tbind 127.0.0.1\n"},
		{"forward_auth 127.0.0.1:8080 {", "forward_auth " + gateway + " {"},
		{"reverse_proxy 127.0.0.1:9000 {", "reverse_proxy " + api + " {"},
	} {
		require.Equal(t, 1, strings.Count(text, change[0]), "the Caddyfile must have this once: %s", change[0])
		text = strings.Replace(text, change[0], change[1], 1)
	}
	return "{\n\tadmin off\n\tauto_https off\n\tservers " + h2 + " {\n\t\tprotocols h1 h2 h2c\n\t}\n}\n" + text
}

// behindCaddy starts a Caddy and an API, for the gateway at an address.
func behindCaddy(path string) func(s *stack, t *testing.T, gateway string) {
	return func(s *stack, t *testing.T, gateway string) {
		t.Helper()
		var api string
		s.api, api = apiServer(t)
		addresses := process.FreeAddresses(t, 2)
		s.addr, s.h2 = addresses[0], addresses[1]
		dir := t.TempDir()
		file := filepath.Join(dir, "Caddyfile")
		require.NoError(t, os.WriteFile(file, []byte(caddyfile(t, s.addr, s.h2, gateway, api)), 0o600))
		command := exec.Command(path, "run", "--config", file, "--adapter", "caddyfile")
		command.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
		listening(t, process.Start(t, command), s.addr)
	}
}

func TestCaddy(t *testing.T) {
	for _, caddy := range caddies {
		t.Run(caddy.name, func(t *testing.T) { testCaddy(t, newStackOf(t, behindCaddy(caddy.path(t)))) })
	}
}

func testCaddy(t *testing.T, s *stack) {
	sign := func(token m2mauthtest.Token) string {
		token.Audience = audience
		return "Authorization: Bearer " + s.issuer.Sign(token)
	}
	reader := sign(m2mauthtest.Token{AppID: app, Scopes: []string{"read:products", "read:orders"}})
	user := sign(m2mauthtest.Token{AppID: app, Claims: map[string]any{"sub": "user"}})
	isReader := s.caller(app, app, app, "read:products read:orders")
	isUser := s.caller("user", app, "", "")

	t.Run("requests that are let through reach the API as they were sent", func(t *testing.T) {
		for _, test := range []struct {
			method, target string
			fields         []string
			caller         []string
		}{
			{"GET", "/healthz", nil, nobody},
			{"GET", "/healthz", []string{reader}, nobody},
			{"HEAD", "/products", []string{reader}, isReader},
			{"GET", "/products?q=a%2fb&r=..//", []string{reader}, isReader},
			{"GET", "/products/a%40b", []string{reader}, isReader},
			{"GET", "/whoami", []string{user}, isUser},
			{"GET", "/whoami", []string{user, "Connection: X-Auth-Issuer, X-Auth-Subject, x-auth-client, X-Auth-App, X-Auth-Organization, X-Auth-Scopes, X-Auth-Decision"}, isUser},
			{"GET", "/products", []string{reader, "Connection: close, X-Auth-App", "Connection: X-Auth-Decision"}, isReader},
		} {
			name := test.method + " " + test.target + " " + strings.Join(test.fields, " ")
			resp, body := s.send(t, test.method, test.target, test.fields...)
			require.Equal(t, 200, resp.StatusCode, "%s: %s", name, body)
			got := s.api.take()
			require.Len(t, got, 1, name)
			assert.Equal(t, test.method, got[0].method)
			assert.Equal(t, test.target, got[0].target, "the API sees the path that the gateway decided about")
			assert.Equal(t, test.caller, claimed(got[0]), name)
			for _, field := range identityFields {
				assert.Len(t, got[0].header.Values(field), 1, "%s: %s", name, field)
			}
			assert.Empty(t, got[0].header.Values("Authorization"), name)
			asked := s.asked.take()
			require.Len(t, asked, 1)
			assert.Equal(t, []string{test.method}, asked[0].header["X-Forwarded-Method"])
			assert.Equal(t, []string{test.target}, asked[0].header["X-Forwarded-Uri"])
			assert.Equal(t, []string{"127.0.0.1"}, asked[0].header["X-Forwarded-For"])
		}
	})

	t.Run("identity fields of the caller do not reach the API", func(t *testing.T) {
		for _, field := range identityFields {
			for _, spelled := range []string{field, strings.ToLower(field), strings.ReplaceAll(field, "-", "_"), strings.ReplaceAll(field, "-", ".")} {
				for _, target := range []string{"/healthz", "/whoami"} {
					for _, more := range []string{"X-Other: x", "Connection: " + spelled} {
						resp, body := s.send(t, "GET", target, user, spelled+": root", more)
						got := s.api.take()
						if resp.StatusCode == 400 {
							assert.Contains(t, body, "invalid_request")
							assert.Empty(t, got, spelled)
							continue
						}
						require.Equal(t, 200, resp.StatusCode, body)
						require.Len(t, got, 1)
						taken := strings.HasPrefix(more, "Connection") || !strings.Contains(spelled, "-") // the current one takes other spellings away
						assert.True(t, taken, "only what Caddy takes away before it asks is let through: %s", spelled)
						assert.Equal(t, map[string][]string{"/healthz": nobody, "/whoami": isUser}[target], claimed(got[0]), "%s, %s", spelled, more)
						for name, values := range got[0].header {
							assert.NotContains(t, strings.Join(values, ""), "root", name)
						}
					}
				}
			}
		}
	})

	t.Run("refusals have the guard's status, challenge and body", func(t *testing.T) {
		for _, test := range []struct {
			method, target string
			fields         []string
			status         int
			code           string
		}{
			{"GET", "/products", nil, 401, "unauthorized"},
			{"GET", "/products", []string{reader + "x"}, 401, "invalid_token"},
			{"GET", "/products", []string{reader, reader}, 400, "invalid_request"},
			{"POST", "/products", []string{reader}, 403, "insufficient_scope"},
			{"GET", "/nothing", []string{reader}, 403, "insufficient_scope"},
			{"GET", "/healthz/..%2fproducts", []string{reader}, 400, "invalid_request"},
			{"GET", "/healthz/../products", []string{reader}, 400, "invalid_request"},
			{"GET", "//healthz", []string{reader}, 400, "invalid_request"},
			{"GET", "/products", []string{"X-Forwarded-Uri: /healthz", "X-Forwarded-Method: GET"}, 401, "unauthorized"},
			{"GET", "/products", []string{"X-Original-URI: /healthz"}, 400, "invalid_request"},
		} {
			resp, body := s.send(t, test.method, test.target, test.fields...)
			assert.Equal(t, test.status, resp.StatusCode, "%s %s: %s", test.method, test.target, body)
			assert.Contains(t, body, `{"error":"`+test.code+`"`)
			if test.status != http.StatusBadRequest {
				assert.Len(t, resp.Header.Values("WWW-Authenticate"), 1)
			}
		}
		assert.Empty(t, s.api.take(), "the API has seen one")
	})
}

func TestCaddyLetsNothingThroughWithoutTheGateway(t *testing.T) {
	for _, caddy := range caddies {
		t.Run(caddy.name, func(t *testing.T) {
			s := new(stack)
			behindCaddy(caddy.path(t))(s, t, process.FreeAddresses(t, 1)[0])
			resp, _ := s.send(t, "GET", "/healthz")
			assert.Equal(t, http.StatusBadGateway, resp.StatusCode)
			assert.Empty(t, s.api.take())
		})
	}
}

func TestCaddyReportsOnly(t *testing.T) {
	for _, caddy := range caddies {
		t.Run(caddy.name, func(t *testing.T) { newStackOf(t, behindCaddy(caddy.path(t)), reportOnly()).reportsOnly(t) })
	}
}
