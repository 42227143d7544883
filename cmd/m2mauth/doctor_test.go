package main

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/cmd/m2mauth/internal/doctor"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// kit is the kit's issuer, which listens until the test ends.
func kit(t *testing.T) *m2mauthtest.Issuer {
	t.Helper()
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	return issuer
}

func TestDoctorExaminesTheKitsIssuer(t *testing.T) {
	t.Parallel()
	issuer := kit(t)
	status, stdout, stderr := call(t, "", nil, "doctor", "--issuer", issuer.URL())
	assert.Zero(t, status)
	assert.Empty(t, stderr)
	t.Log("\n" + stdout)
	for _, row := range []string{
		"pass  issuer.settings ",
		"pass  issuer.connection ",
		"skip  issuer.tls             http to a loopback host",
		"pass  issuer.key             kid ",
		"pass  issuer.clock           this clock and the issuer's agree",
		"pass  issuer.guard           a guard with these settings is ready: 1 usable key, fresh",
		" 0 failed, 0 to look at, 1 not checked",
	} {
		assert.Contains(t, stdout, row)
	}

	status, stdout, _ = call(t, "", nil, "doctor", "--issuer", strings.Replace(issuer.URL(), "http:", "https:", 1))
	assert.Equal(t, 1, status)
	assert.Contains(t, stdout, "fail  issuer.tls             the server does not speak TLS on this port")

	issuer.Intercept(func(http.Handler) http.Handler { return http.NotFoundHandler() })
	status, stdout, stderr = call(t, "", nil, "doctor", "--issuer", issuer.URL())
	assert.Equal(t, 1, status)
	assert.Empty(t, stderr)
	assert.Contains(t, stdout, "fail  issuer.discovery ")
}

// The page shows what the program prints, but for what differs from run to run.
func TestThePageShowsWhatDoctorPrints(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "doctor.md"))
	require.NoError(t, err)
	_, want, found := strings.Cut(string(page), "```text\n")
	require.True(t, found)
	want, _, _ = strings.Cut(want, "```")

	ca := newAuthority(t)
	origin := listen(t, ca.certificate(t, "localhost", time.Now().AddDate(0, 3, 0)), good)
	status, got, _ := call(t, "", nil, "doctor", "--issuer", origin+"/oidc/", "--ca-file", ca.file)
	assert.Equal(t, 1, status)
	host := strings.TrimPrefix(origin, "https://")
	got = strings.NewReplacer(host, "login.shop.example", "localhost", "login.shop.example").Replace(got)
	for pattern, shown := range map[string]string{
		`(::1, )?127\.0\.0\.1(, ::1)?\n`:  "203.0.113.7\n",
		`at (127\.0\.0\.1|\[::1\]):\d+\n`: "at 203.0.113.7:443\n",
		`until \d{4}-\d\d-\d\d`:           "until 2027-03-02",
		`in [0-9.]+m?s\n`:                 "in 12ms\n",
	} {
		got = regexp.MustCompile(pattern).ReplaceAllString(got, shown)
	}
	assert.Equal(t, want, got)
}

func TestAnInterruptedExaminationShowsNoReport(t *testing.T) {
	t.Parallel()
	issuer := kit(t)
	ctx, interrupt := context.WithCancel(t.Context())
	issuer.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			interrupt()
			<-r.Context().Done()
		})
	})
	var stdout, stderr strings.Builder
	status := run(ctx, []string{"doctor", "--issuer", issuer.URL()}, strings.NewReader(""), &stdout, &stderr, func(string) string { return "" })
	assert.Equal(t, 1, status)
	assert.Empty(t, stdout.String())
	assert.Equal(t, "m2mauth: context canceled\n", stderr.String())
}

func TestDoctorReadsTheSettingsThatTheAPIHas(t *testing.T) {
	issuer := kit(t)
	t.Setenv("SHOP_ISSUER", issuer.URL())
	t.Setenv("SHOP_AUDIENCE", "https://shopping.api")
	t.Setenv("SHOP_ALGORITHMS", "RS256")
	status, report := examine(t, "--env-prefix", "SHOP_")
	assert.Zero(t, status)
	assert.Contains(t, of(report, "warn"), "issuer.key", "the kit's key is for ES384")

	t.Setenv("M2MAUTH_ISSUER", issuer.URL())
	t.Setenv("M2MAUTH_AUDIENCE", "https://shopping.api")
	t.Setenv("M2MAUTH_APP_SECRET", "is of this program, and no setting of a guard")
	status, report = examine(t)
	assert.Zero(t, status)
	assert.Empty(t, of(report, "warn"))
	assert.NotEmpty(t, os.Getenv("M2MAUTH_APP_SECRET"))

	t.Setenv("M2MAUTH_ISSUR", "hidden")
	status, report = examine(t)
	assert.Equal(t, 1, status)
	assert.Equal(t, []doctor.Check{{
		ID: "issuer.settings", Status: doctor.Fail,
		Detail: "M2MAUTH_ISSUR is not a setting of m2mauth: docs/environment.md has them all",
		Remedy: "correct the variables: docs/environment.md has them all",
	}}, report.Checks)
}

func TestDoctorSaysWhereTheIssuerIsMissing(t *testing.T) {
	status, _, stderr := call(t, "", nil, "doctor", "--env-prefix", "NOTHING_SET")
	assert.Equal(t, 2, status)
	assert.Equal(t, "m2mauth: no issuer: give --issuer or --issuer-kind, or set NOTHING_SET_ISSUER\n", stderr)
}

func TestEachKindOfIssuerHasItsSettings(t *testing.T) {
	t.Parallel()
	const guid = "6e74172b-be56-4843-9ff4-e66a39bb12e3"
	const url, api = "https://login.shop.example", "https://shopping.api"
	for kind, flags := range map[string]guardFlags{
		"auth0":               {Issuer: "shop.eu.auth0.com", Audience: api},
		"authentik":           {Issuer: url + "/application/o/shop/", Audience: "shop"},
		"cognito":             {Issuer: "eu-west-1_AbCdEf123", Audience: api, Allow: []string{"client1", "client2"}},
		"duende":              {Issuer: url, Audience: api},
		"entra-id":            {Issuer: guid, Audience: guid},
		"entra-id-v1":         {Issuer: guid, Audience: "api://" + guid},
		"github-actions":      {Audience: api, Allow: []string{"1234"}},
		"google":              {Audience: api, Allow: []string{"1234"}},
		"hydra":               {Issuer: url + "/", Audience: api},
		"keycloak":            {Issuer: url + "/realms/shop", Audience: api},
		"kubernetes":          {Issuer: "https://kubernetes.default.svc.cluster.local", Audience: api, Allow: []string{guid}},
		"logto":               {Issuer: url, Audience: api},
		"logto-cloud":         {Issuer: "shop1", Audience: api},
		"logto-organizations": {Issuer: url},
		"okta":                {Issuer: "https://shop.okta.com/oauth2/default", Audience: api},
		"openiddict":          {Issuer: url + "/", Audience: api},
		"pingone":             {Issuer: "https://auth.pingone.eu/" + guid + "/as", Audience: api},
		"spring":              {Issuer: url, Audience: api},
		"zitadel":             {Issuer: "https://shop-a1b2c3.zitadel.cloud", Audience: "1234", OrganizationID: "2345", Allow: []string{"3456"}},
	} {
		flags.IssuerKind = kind
		c, err := flags.config()
		require.NoError(t, err, kind)
		_, err = m2mauth.New(c)
		assert.NoError(t, err, kind)

		_, err = (&guardFlags{IssuerKind: kind}).config()
		assert.ErrorContains(t, err, "issuers: ", "%s without anything", kind)
	}
	assert.Len(t, kinds, exported(t, filepath.Join("..", "..", "issuers")), "every function of package issuers has a kind")
}

// exported counts the functions that a package exports.
func exported(t *testing.T, dir string) (n int) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range f.Decls {
			if function, ok := d.(*ast.FuncDecl); ok && function.Recv == nil && function.Name.IsExported() {
				n++
			}
		}
	}
	return n
}
