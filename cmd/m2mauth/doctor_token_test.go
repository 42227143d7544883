package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/cmd/m2mauth/internal/doctor"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const shop = "https://shopping.api"

// shopIssuer is the kit's issuer with an API of two scopes and an app that may have one.
func shopIssuer(t *testing.T) (*m2mauthtest.Issuer, m2mauthtest.App) {
	t.Helper()
	issuer := kit(t)
	issuer.AddResource(shop, "read:products", "write:products")
	issuer.AddRole("reader", shop, "read:products")
	return issuer, issuer.AddApp("reader", "reader")
}

func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
	return name
}

func TestDoctorChecksATokenFromStandardInputOrAFile(t *testing.T) {
	t.Parallel()
	issuer, _ := shopIssuer(t)
	token := issuer.Token(shop, "read:products")
	args := []string{"doctor", "--issuer", issuer.URL(), "--audience", shop, "--scope", "read:products", "--token"}
	for _, stdin := range []string{token, token + "\n", "Bearer " + token + "\r\n", "  bearer  " + token} {
		status, stdout, stderr := call(t, stdin, nil, append(args, "-")...)
		assert.Zero(t, status, stdout)
		assert.Empty(t, stderr)
		assert.Contains(t, stdout, "pass  token.verdict ")
		assert.NotContains(t, stdout, token[strings.LastIndexByte(token, '.')+1:][:8])
	}
	status, stdout, _ := call(t, "", nil, append(args, file(t, token))...)
	assert.Zero(t, status, stdout)

	status, stdout, _ = call(t, token, nil, "doctor", "--issuer", issuer.URL(), "--audience", shop, "--scope", "read:products write:products", "--token", "-", "--json")
	assert.Equal(t, 1, status)
	var report struct {
		OK     bool
		Checks []doctor.Check
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &report))
	assert.False(t, report.OK)
	last := report.Checks[len(report.Checks)-1]
	assert.Equal(t, doctor.Check{
		ID: "token.verdict", Status: doctor.Fail, Remedy: "see token.scopes",
		Detail: "the guard refuses the token with 403: the token lacks a scope that this route requires",
	}, last)
	assert.Equal(t, 4+1+1, issuer.Fetches().Token, "the checks of the issuer ask, without credentials, and nobody requests a token")
}

func TestDoctorRequestsATokenForAnApp(t *testing.T) {
	t.Parallel()
	issuer, app := shopIssuer(t)
	args := []string{"doctor", "--issuer", issuer.URL(), "--audience", shop, "--scope", "read:products"}
	env := map[string]string{"M2MAUTH_APP_ID": app.ID, "M2MAUTH_APP_SECRET": app.Secret}
	status, stdout, stderr := call(t, "", env, args...)
	assert.Zero(t, status, stdout)
	assert.Empty(t, stderr)
	t.Log("\n" + stdout)
	for _, row := range []string{"pass  app.endpoint ", "pass  app.token ", "pass  token.scopes ", "pass  token.verdict "} {
		assert.Contains(t, stdout, row)
	}
	assert.NotContains(t, stdout, app.Secret)

	status, stdout, _ = call(t, "", map[string]string{"M2MAUTH_APP_ID": app.ID}, append(args, "--app-secret-file", file(t, app.Secret+"\n"))...)
	assert.Zero(t, status, stdout)
	assert.Contains(t, stdout, "pass  app.secret ")

	status, stdout, _ = call(t, "", env, append(args, "--scope", "write:products")...)
	assert.Equal(t, 1, status, stdout)
	assert.Contains(t, stdout, "fail  token.scopes ")

	env["M2MAUTH_APP_SECRET"] = "wrong-secret"
	status, stdout, stderr = call(t, "", env, args...)
	assert.Equal(t, 1, status, stdout)
	assert.Contains(t, stdout, "fail  app.token ")
	assert.NotContains(t, stdout+stderr, "wrong-secret")
}

// The page shows what the program prints, but for what differs from run to run.
func TestThePageShowsWhatDoctorPrintsAboutAnApp(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "doctor.md"))
	require.NoError(t, err)
	_, want, found := strings.Cut(string(page), "## An application")
	require.True(t, found)
	_, want, found = strings.Cut(want, "```text\n")
	require.True(t, found)
	want, _, _ = strings.Cut(want, "```")

	issuer, _ := shopIssuer(t)
	app := issuer.AddApp("new")
	env := map[string]string{"M2MAUTH_APP_ID": app.ID, "M2MAUTH_APP_SECRET": app.Secret}
	_, got, _ := call(t, "", env, "doctor", "--issuer", issuer.URL(), "--audience", shop, "--scope", "read:products")
	_, got, found = strings.Cut(got, "issuer.guard")
	require.True(t, found)
	_, got, _ = strings.Cut(got, "\n")
	got, _, _ = strings.Cut(got, "\n\n")
	normal := func(text string) string {
		text = strings.NewReplacer(app.ID, "APP", "wo6mujg2v26ai4qblwzf7", "APP", issuer.URL(), "ISSUER", "https://login.shop.example/oidc", "ISSUER").Replace(text)
		for pattern, shown := range map[string]string{
			`\d+ bytes`: "N bytes", `[\w-]{43}, for`: "KEY, for", `\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC`: "DATE",
			`issued (now|\d second ago)`: "issued N", `expires in (59 minutes \d\d seconds|1 hour)`: "expires N",
		} {
			text = regexp.MustCompile(pattern).ReplaceAllString(text, shown)
		}
		return text
	}
	assert.Equal(t, normal(want), normal(got+"\n"))
}

// A discovery document that names another server's token endpoint gets no secret there.
func TestDoctorSendsNoSecretToAnotherOrigin(t *testing.T) {
	t.Parallel()
	issuer, app := shopIssuer(t)
	thief := kit(t)
	issuer.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
				_, _ = w.Write([]byte(`{"issuer":"` + issuer.URL() + `","jwks_uri":"` + issuer.JWKSURL() + `","token_endpoint":"` + thief.TokenURL() + `"}`))
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	env := map[string]string{"M2MAUTH_APP_ID": app.ID, "M2MAUTH_APP_SECRET": app.Secret}
	args := []string{"doctor", "--issuer", issuer.URL(), "--audience", shop}
	status, stdout, _ := call(t, "", env, args...)
	assert.Equal(t, 1, status)
	assert.Contains(t, stdout, "fail  app.endpoint ")
	assert.Zero(t, thief.Fetches().Token)

	status, stdout, _ = call(t, "", env, append(args, "--token-url", issuer.TokenURL())...)
	assert.Zero(t, status, stdout)
	assert.Zero(t, thief.Fetches().Token)
}

// Without keys, or without valid settings, a token is not called good.
func TestDoctorChecksATokenThoughTheIssuerFails(t *testing.T) {
	t.Parallel()
	issuer, app := shopIssuer(t)
	token := issuer.Token(shop)
	issuer.Intercept(func(http.Handler) http.Handler { return http.NotFoundHandler() })
	status, stdout, _ := call(t, token, nil, "doctor", "--issuer", issuer.URL(), "--audience", shop, "--token", "-")
	assert.Equal(t, 1, status)
	assert.Contains(t, stdout, "pass  token.audience ")
	assert.Contains(t, stdout, "fail  token.key              the issuer's keys are unavailable: see issuer.guard")
	assert.Contains(t, stdout, "the guard refuses the token with 503")

	for _, stdin := range []string{token, ""} {
		args := []string{"doctor", "--issuer", "http://logto.internal/oidc", "--audience", shop, "--token-url", issuer.TokenURL()}
		if stdin != "" {
			args = append(args, "--token", "-")
		}
		status, stdout, _ = call(t, stdin, map[string]string{"M2MAUTH_APP_ID": app.ID, "M2MAUTH_APP_SECRET": app.Secret}, args...)
		assert.Equal(t, 1, status)
		assert.Contains(t, stdout, "see issuer.settings")
		assert.NotContains(t, stdout, "pass  token.")
	}
	assert.Equal(t, 0, issuer.Fetches().Token, "the secret is not sent for nothing")
}

func TestWrongUseOfDoctorsTokenFlags(t *testing.T) {
	t.Parallel()
	const issuer = "https://login.shop.example/oidc"
	secret := map[string]string{"M2MAUTH_APP_ID": "app", "M2MAUTH_APP_SECRET": "hidden-secret"}
	for name, test := range map[string]struct {
		stdin  string
		env    map[string]string
		args   []string
		stderr string
	}{
		"a scope and no token":      {args: []string{"--audience", shop, "--scope", "a"}, stderr: "--scope and --organization"},
		"a token and no audience":   {args: []string{"--token", "-"}, stderr: "set M2MAUTH_AUDIENCE"},
		"an app and no audience":    {env: secret, stderr: "--audience"},
		"a secret and no ID":        {env: map[string]string{"M2MAUTH_APP_SECRET": "hidden-secret"}, args: []string{"--audience", shop}, stderr: "M2MAUTH_APP_ID"},
		"an ID and no secret":       {env: map[string]string{"M2MAUTH_APP_ID": "app"}, args: []string{"--audience", shop}, stderr: "M2MAUTH_APP_SECRET"},
		"an empty scope":            {env: secret, args: []string{"--audience", shop, "--scope", "a\x00b"}, stderr: "no token can have such a scope"},
		"another way":               {env: secret, args: []string{"--audience", shop, "--resource-as", "aud"}, stderr: "--resource-as aud"},
		"no such file of a secret":  {env: secret, args: []string{"--audience", shop, "--app-secret-file", "no-such-file"}, stderr: "--app-secret-file takes the name of a file"},
		"the secret as an argument": {env: map[string]string{"M2MAUTH_APP_ID": "app"}, args: []string{"--audience", shop, "--app-secret-file", "hidden-secret"}, stderr: "no such file"},
		"where to send no secret":   {args: []string{"--audience", shop, "--token-url", issuer + "/token"}, stderr: "M2MAUTH_APP_ID"},
		"an API for no request":     {args: []string{"--audience", shop, "--resource", shop}, stderr: "M2MAUTH_APP_ID"},
		"a way for no request":      {args: []string{"--audience", shop, "--resource-as", "audience"}, stderr: "M2MAUTH_APP_ID"},
		"the token as an argument":  {args: []string{"--audience", shop, "--token", "eyJhbGciOiJFUzM4NCJ9.eyJ9.c2ln"}, stderr: "--token takes the name of a file"},
		"far more than a token":     {stdin: strings.Repeat("a", 1<<18), args: []string{"--audience", shop, "--token", "-"}, stderr: "longer than any token"},
		"an opaque one as argument": {args: []string{"--audience", shop, "--token", "J7rDxs0WmgWnL2wCVwmRStMT1OpvCDGz"}, stderr: "--token takes the name of a file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := call(t, test.stdin, test.env, append([]string{"doctor", "--issuer", issuer}, test.args...)...)
			assert.Equal(t, 2, status)
			assert.Empty(t, stdout)
			assert.Contains(t, stderr, test.stderr)
			for _, hidden := range []string{"hidden-secret", "eyJhbGciOiJFUzM4NCJ9", "J7rDxs0WmgWnL2wCVwmRStMT1OpvCDGz"} {
				assert.NotContains(t, stderr, hidden)
			}
		})
	}
}
