package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/logs"
)

// startIssuer runs the command until the test ends it, and returns what it printed first.
func startIssuer(t *testing.T, args ...string) (s started, stderr *logs.Buffer, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	ended := make(chan int, 1)
	stderr = new(logs.Buffer)
	go func() {
		ended <- run(ctx, append([]string{"issuer", "--listen", "127.0.0.1:0", "--json"}, args...), strings.NewReader(""), write, stderr, func(string) string { return "" })
		write.Close()
	}()
	stop = func() int { cancel(); return <-ended }
	decoder := json.NewDecoder(read)
	if err := decoder.Decode(&s); err != nil {
		require.NoError(t, err, "%d: %s", stop(), stderr.String())
	}
	go io.Copy(io.Discard, read)
	return s, stderr, stop
}

// requestToken asks for a token by the client credentials grant.
func requestToken(t *testing.T, s started, app startedApp, params url.Values) (token, refusal string) {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {app.ID}, "client_secret": {app.Secret}}
	for name, values := range params {
		form[name] = values
	}
	response, err := http.PostForm(s.TokenURL, form)
	require.NoError(t, err)
	defer response.Body.Close()
	var body struct {
		AccessToken string `json:"access_token"`
		Error       string `json:"error"`
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&body))
	return body.AccessToken, body.Error
}

// verified returns the scopes of a token that the API takes, in the organization or without.
func verified(t *testing.T, guard *m2mauth.Guard, raw, organization string) string {
	t.Helper()
	rule := m2mauth.AnyToken()
	if organization != "" {
		rule = m2mauth.Organization(func(m2mauth.Request) string { return organization })
	}
	request := httptest.NewRequest("GET", "/", nil)
	request.Header.Set("Authorization", "Bearer "+raw)
	claims, err := guard.Check(request, rule)
	require.NoError(t, err)
	return claims.Scopes().String()
}

// One flag is enough to develop against: the guard of an API takes what the app gets.
func TestAnIssuerForLocalWork(t *testing.T) {
	t.Parallel()
	const api = "https://api.example.com"
	s, stderr, stop := startIssuer(t, "--resource", api+" read:products write:products")
	assert.Contains(t, stderr.String(), "for development alone")
	assert.Regexp(t, `^http://127\.0\.0\.1:[0-9]+/oidc$`, s.Issuer)
	assert.Equal(t, api, s.Audience)
	require.Len(t, s.Apps, 1)
	assert.Equal(t, "app", s.Apps[0].Name)

	guard, err := m2mauth.New(m2mauth.Config{Issuer: s.Issuer, Audience: s.Audience})
	require.NoError(t, err)
	raw, refusal := requestToken(t, s, s.Apps[0], url.Values{"resource": {api}, "scope": {"read:products"}})
	require.Empty(t, refusal)
	claims, err := guard.Verify(t.Context(), raw)
	require.NoError(t, err)
	assert.Equal(t, s.Apps[0].ID, claims.AppID())
	assert.Equal(t, "read:products", claims.Scopes().String())

	assert.Zero(t, stop())
	_, err = http.Get(s.Issuer + "/.well-known/openid-configuration")
	assert.Error(t, err, "it has stopped")
}

func TestTheIssuersFlags(t *testing.T) {
	t.Parallel()
	const api = "https://api.example.com/a,b" // a comma separates nothing
	s, _, stop := startIssuer(t, "--resource", api+" read write", "--role", "reader "+api+" read", "--app", "billing reader", "--app", "other",
		"--organization", "acme", "--organization-role", "buyer "+api+" write", "--organization-role", "clerk - invite", "--member", "acme billing buyer clerk")
	defer stop()
	guard, err := m2mauth.New(m2mauth.Config{Issuer: s.Issuer, Audience: api})
	require.NoError(t, err)
	scopes := func(app startedApp, params url.Values) string {
		params["resource"], params["scope"] = []string{api}, []string{"read write"}
		raw, refusal := requestToken(t, s, app, params)
		require.Empty(t, refusal)
		return verified(t, guard, raw, params.Get("organization_id"))
	}
	require.Len(t, s.Apps, 2)
	assert.Equal(t, "read", scopes(s.Apps[0], url.Values{}))
	assert.Empty(t, scopes(s.Apps[1], url.Values{}))
	assert.Equal(t, "write", scopes(s.Apps[0], url.Values{"organization_id": {"acme"}}))
	raw, _ := requestToken(t, s, s.Apps[0], url.Values{"organization_id": {"acme"}, "scope": {"invite"}})
	_, stdout, _ := call(t, raw, nil, "decode")
	assert.Contains(t, stdout, `"urn:logto:organization:acme"`)
	assert.Contains(t, stdout, `"invite"`)
	_, refusal := requestToken(t, s, s.Apps[1], url.Values{"organization_id": {"acme"}})
	assert.Equal(t, "access_denied", refusal, "other is no member")
}

// The example of the help, with an ID and a secret that stay.
func TestTheIssuersFile(t *testing.T) {
	t.Parallel()
	help := issuerCommand{}.Help()
	_, help, _ = strings.Cut(help, "may be left out:\n")
	example, _, found := strings.Cut(help, "\n\n")
	require.True(t, found)
	file := filepath.Join(t.TempDir(), "tenant.json")
	require.NoError(t, os.WriteFile(file, []byte(example), 0o600))
	s, _, stop := startIssuer(t, "--file", file, "--app", "another reader")
	defer stop()
	require.Len(t, s.Apps, 2)
	assert.Equal(t, "billing", s.Apps[0].ID)
	assert.Equal(t, "for-local-work", s.Apps[0].Secret)
	guard, err := m2mauth.New(m2mauth.Config{Issuer: s.Issuer, Audience: s.Audience})
	require.NoError(t, err)
	for _, params := range []url.Values{{}, {"organization_id": {"acme"}, "resource": {s.Audience}}} { // the first by the default resource
		params["scope"] = []string{"read:products"}
		raw, refusal := requestToken(t, s, s.Apps[0], params)
		require.Empty(t, refusal)
		assert.Equal(t, "read:products", verified(t, guard, raw, params.Get("organization_id")))
	}
}

func TestMistakesInWhatTheIssuerKnows(t *testing.T) {
	t.Parallel()
	const resource = "--resource=https://api.example.com read"
	for name, test := range map[string]struct {
		file string
		args []string
		want string
	}{
		"nothing":                   {"", nil, "no resource"},
		"not loopback":              {"", []string{resource, "--listen", "192.0.2.1:0"}, "not on loopback"},
		"every address":             {"", []string{resource, "--listen", "0.0.0.0:0"}, "not on loopback"},
		"no port":                   {"", []string{resource, "--listen", "127.0.0.1"}, "not HOST:PORT"},
		"no such file":              {"", []string{"--file", "no-such-file.json"}, "no-such-file.json"},
		"an unknown member":         {`{"resources":[{"indicator":"urn:x","scope":["a"]}]}`, nil, "unknown object member"},
		"a doubled member":          {`{"apps":[],"apps":[]}`, nil, "duplicate"},
		"not JSON":                  {`resources:`, nil, "--file"},
		"a role without scope":      {"", []string{resource, "--role", "reader"}, "too few words"},
		"an unknown scope":          {"", []string{resource, "--role", "r https://api.example.com write"}, `has no scope "write"`},
		"an unknown role":           {"", []string{resource, "--app", "billing writer"}, `the role "writer" is unknown`},
		"a resource twice":          {`{"resources":[{"indicator":"https://api.example.com"}]}`, []string{resource}, "exists already"},
		"an app without name":       {`{"apps":[{"id":"x"}]}`, []string{resource}, "an app has no name"},
		"an ID twice":               {`{"apps":[{"name":"a","id":"x"},{"name":"b","id":"x"}]}`, []string{resource}, `the ID "x" already`},
		"a lifetime":                {`{"resources":[{"indicator":"urn:x","token_lifetime":"1 hour"}]}`, nil, "not a duration"},
		"a short lifetime":          {`{"resources":[{"indicator":"urn:x","token_lifetime":"1ms"}]}`, nil, "shorter than a second"},
		"a member that is no app":   {"", []string{resource, "--organization", "acme", "--member", "acme nobody"}, `"nobody"`},
		"no such organization":      {"", []string{resource, "--app", "billing", "--member", "acme billing"}, `the organization "acme" is unknown`},
		"an unknown default":        {`{"default_resource":"urn:y"}`, []string{resource}, `"urn:y" is unknown`},
		"a role of an organization": {"", []string{resource, "--organization-role", "r urn:y a"}, `"urn:y" is unknown`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"issuer", "--listen", "127.0.0.1:0"}, test.args...)
			if test.file != "" {
				file := filepath.Join(t.TempDir(), "tenant.json")
				require.NoError(t, os.WriteFile(file, []byte(test.file), 0o600))
				args = append(args, "--file", file)
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel() // what starts nevertheless ends at once
			var stdout, stderr strings.Builder
			status := run(ended, args, strings.NewReader(""), &stdout, &stderr, func(string) string { return "" })
			assert.Equal(t, 2, status, stderr.String())
			assert.Empty(t, stdout.String())
			assert.Contains(t, stderr.String(), test.want)
			assert.NotContains(t, stderr.String(), "m2mauthtest")
		})
	}
}

// A process like a user's: it prints lines for a shell, the line for a token works, and
// SIGTERM ends it.
func TestTheIssuerAsAProcess(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no SIGTERM, and no POSIX shell")
	}
	t.Parallel()
	const inside = "RUN_AS_ISSUER"
	if os.Getenv(inside) != "" {
		os.Args = []string{"m2mauth", "issuer", "--listen", "127.0.0.1:0", "--resource", "https://api.example.com read:it's", "--role", "r https://api.example.com read:it's", "--app", "it's r"}
		main()
	}
	process := exec.Command(os.Args[0], "-test.run=^TestTheIssuerAsAProcess$")
	process.Env = append(os.Environ(), inside+"=1")
	stdout, err := process.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, process.Start())
	defer process.Process.Kill()
	lines := bufio.NewScanner(stdout)
	var printed []string
	for len(printed) < 6 && lines.Scan() {
		printed = append(printed, lines.Text())
	}
	require.Len(t, printed, 6)
	assert.Regexp(t, `^export M2MAUTH_ISSUER=http://127\.0\.0\.1:[0-9]+/oidc$`, printed[1])
	assert.Equal(t, "export M2MAUTH_AUDIENCE=https://api.example.com", printed[2])
	if _, err := exec.LookPath("curl"); err == nil {
		answer, err := exec.Command("sh", "-c", printed[5]).Output()
		require.NoError(t, err)
		assert.Regexp(t, regexp.MustCompile(`"scope":"read:it's"`), string(answer))
	}
	require.NoError(t, process.Process.Signal(syscall.SIGTERM))
	assert.False(t, lines.Scan())
	require.NoError(t, process.Wait(), "status 0")
}
