package doctor

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const shop = "https://shopping.api"

// tenant is an issuer with an API of two scopes, and an app whose role grants one.
func tenant(t *testing.T) (*m2mauthtest.Issuer, m2mauthtest.App) {
	t.Helper()
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	issuer.AddResource(shop, "read:products", "write:products")
	issuer.AddRole("reader", shop, "read:products")
	return issuer, issuer.AddApp("reader", "reader")
}

// found is what the checks of an issuer find out where nothing is wrong.
func found(t *testing.T, issuer *m2mauthtest.Issuer, change ...func(*m2mauth.Config)) Found {
	t.Helper()
	config := issuer.Config(shop)
	for _, f := range change {
		f(&config)
	}
	endpoint, err := url.Parse(issuer.TokenURL())
	require.NoError(t, err)
	return Found{Config: config, TokenEndpoint: endpoint}
}

func appOf(a m2mauthtest.App) App { return App{ID: a.ID, Secret: a.Secret, Resource: shop} }

// failures returns the checks that failed, without the guard's verdict.
func (r *Report) failures() (ids []string) {
	for _, c := range r.Checks {
		if c.Status == Fail && c.ID != tokenVerdict {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func (r *Report) check(t *testing.T, id string) Check {
	t.Helper()
	for _, c := range r.Checks {
		if c.ID == id {
			return c
		}
	}
	require.Fail(t, "there is no such check", id)
	return Check{}
}

func (r *Report) table(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, r.WriteTable(&b))
	return b.String()
}

// Each fault of a token or an app is named by the right check, with the right remedy.
func TestTokenFaults(t *testing.T) {
	t.Parallel()
	read := Demand{Scopes: []string{"read:products"}}
	for _, test := range []struct {
		fault  string
		run    func(t *testing.T, r *Report)
		checks []string // that fail, the cause first
		remedy string
	}{
		{"app without role", func(t *testing.T, r *Report) {
			issuer, _ := tenant(t)
			AppToken(t.Context(), found(t, issuer), appOf(issuer.AddApp("new")), read, r)
		}, []string{tokenScopes}, "the application has no role that grants read:products for https://shopping.api: give it one (Logto: a machine-to-machine role with that permission)"},
		{"scope not granted", func(t *testing.T, r *Report) {
			issuer, app := tenant(t)
			AppToken(t.Context(), found(t, issuer), appOf(app), Demand{Scopes: []string{"read:products", "write:products"}}, r)
		}, []string{tokenScopes}, "write:products was asked for and not granted: add it to a role of the application"},
		{"opaque token", func(t *testing.T, r *Report) {
			issuer, _ := tenant(t)
			Token(t.Context(), found(t, issuer), "J7rDxs0WmgWnL2wCVwmRStMT1OpvCDGzWkPxlTKvpVJ", read, r)
		}, []string{tokenShape}, "request the token with resource=https://shopping.api"},
		{"ID token", func(t *testing.T, r *Report) {
			issuer, app := tenant(t)
			Token(t.Context(), found(t, issuer), issuer.Sign(m2mauthtest.Token{
				AppID: "user00000001", Audience: app.ID, Header: map[string]any{"typ": "JWT"}, Claims: map[string]any{"client_id": nil, "jti": nil, "nonce": "n"},
			}), read, r)
		}, []string{tokenType, tokenAudience, tokenClaims}, "send the access_token of the response, not the id_token"},
		{"other audience", func(t *testing.T, r *Report) {
			issuer, _ := tenant(t)
			Token(t.Context(), found(t, issuer), issuer.Token(shop+"/", "read:products"), read, r)
		}, []string{tokenAudience}, "request the token with resource=https://shopping.api, byte by byte as the API is registered; or, if the API is registered as https://shopping.api/, set Audience to that"},
		{"organization token", func(t *testing.T, r *Report) {
			issuer, _ := tenant(t)
			Token(t.Context(), found(t, issuer), issuer.Token("urn:logto:organization:acme", "read:products"), read, r)
		}, []string{tokenAudience}, "an organization token opens no API resource: request one with resource=https://shopping.api"},
		{"token limited to an organization", func(t *testing.T, r *Report) {
			issuer, _ := tenant(t)
			Token(t.Context(), found(t, issuer), issuer.Sign(m2mauthtest.Token{Audience: shop, OrganizationID: "acme", Scopes: read.Scopes}), read, r)
		}, []string{tokenOrganization}, "let its rule name it (Organization, OrganizationPath, OrganizationHeader), and check with --organization acme"},
		{"rotated out key", func(t *testing.T, r *Report) {
			issuer, _ := tenant(t)
			token := issuer.Sign(m2mauthtest.Token{Audience: shop, Scopes: read.Scopes, Claims: map[string]any{"iat": time.Now().Add(-90 * time.Minute).Unix()}})
			issuer.Rotate("ES384")
			issuer.Rotate("ES384")
			Token(t.Context(), found(t, issuer), token, read, r)
		}, []string{tokenKey}, "the key was rotated out: request a new token (this one was issued 1 hour 30 minutes ago)"},
		{"key of another server", func(t *testing.T, r *Report) {
			issuer, _ := tenant(t)
			other, _ := tenant(t)
			Token(t.Context(), found(t, issuer, func(c *m2mauth.Config) { c.JWKSURL = other.JWKSURL() }), issuer.Token(shop, read.Scopes...), read, r)
		}, []string{tokenKey}, "JWKSURL has the keys of another server: the issuer itself names http://127.0.0.1:"},
	} {
		t.Run(test.fault, func(t *testing.T) {
			report := new(Report)
			test.run(t, report)
			assert.Equal(t, test.checks, report.failures(), report.table(t))
			cause := report.check(t, test.checks[0])
			assert.Contains(t, cause.Remedy, test.remedy)
			verdict := report.Checks[len(report.Checks)-1]
			assert.Equal(t, tokenVerdict, verdict.ID)
			assert.Equal(t, Fail, verdict.Status)
			t.Logf("| %s | %s | %s | %s |", test.fault, cause.ID, cause.Detail, cause.Remedy)
		})
	}
}

func TestAGoodAppPassesEveryCheck(t *testing.T) {
	t.Parallel()
	issuer, app := tenant(t)
	report := new(Report)
	AppToken(t.Context(), found(t, issuer), appOf(app), Demand{Scopes: []string{"read:products"}}, report)
	for _, c := range report.Checks {
		assert.Equal(t, Pass, c.Status, c)
	}
	assert.Contains(t, report.check(t, tokenScopes).Detail, "required: read:products; granted: read:products")
	assert.Equal(t, "of the application "+app.ID, report.check(t, tokenClaims).Detail)
	assert.NotContains(t, report.table(t), app.Secret)
}

// An organization's token for the API passes where the route belongs to it.
func TestAnAppOfAnOrganization(t *testing.T) {
	t.Parallel()
	issuer, app := tenant(t)
	issuer.AddOrganization("acme")
	issuer.AddOrganizationRole("buyer", shop, "write:products")
	issuer.AddToOrganization("acme", app.ID, "buyer")
	report := new(Report)
	AppToken(t.Context(), found(t, issuer), appOf(app), Demand{Scopes: []string{"write:products"}, Organization: "acme"}, report)
	assert.Empty(t, report.failures(), report.table(t))
	assert.Equal(t, Pass, report.check(t, tokenVerdict).Status)
	assert.Contains(t, report.check(t, tokenOrganization).Detail, "acme")

	report = new(Report)
	AppToken(t.Context(), found(t, issuer, func(c *m2mauth.Config) { c.Audience = "urn:logto:organization:" }),
		App{ID: app.ID, Secret: app.Secret, Resource: "urn:logto:organization:"}, Demand{Organization: "acme"}, report)
	assert.Empty(t, report.failures(), report.table(t))

	report = new(Report)
	AppToken(t.Context(), found(t, issuer), appOf(app), Demand{Organization: "globex"}, report)
	assert.Equal(t, []string{appToken}, report.failures(), report.table(t))
	assert.Contains(t, report.check(t, appToken).Remedy, "--organization")
}

// tokenEndpoint makes the issuer's token endpoint answer so.
func tokenEndpoint(issuer *m2mauthtest.Issuer, handler http.HandlerFunc) {
	issuer.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/token") {
				handler(w, r)
			} else {
				next.ServeHTTP(w, r)
			}
		})
	})
}

// Each refusal of a token endpoint has its remedy, and what the endpoint says is escaped,
// cut, and without the secret, even where it repeats that.
func TestRefusalsOfTheTokenEndpoint(t *testing.T) {
	t.Parallel()
	answers := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, body)
		}
	}
	for name, test := range map[string]struct {
		handler        http.HandlerFunc // nil for the kit's own
		change         func(*App)
		detail, remedy string
	}{
		"wrong secret":     {nil, func(a *App) { a.Secret = "another-one" }, "status 401, invalid_client: client authentication failed", "the secret is wrong or was replaced"},
		"unknown app":      {nil, func(a *App) { a.ID = "nobody" }, "status 400, invalid_client: invalid client nobody", "compare M2MAUTH_APP_ID"},
		"unknown resource": {nil, func(a *App) { a.Resource = shop + "/" }, "status 400, invalid_target: resource indicator is missing, or unknown", "no API resource https://shopping.api/, byte by byte"},
		"no resource":      {nil, func(a *App) { a.ResourceAs = AsNothing }, "invalid_target", "--resource"},
		"another scope":    {answers(400, `{"error":"invalid_scope"}`), nil, "status 400, invalid_scope", "compare --scope"},
		"another grant":    {answers(400, `{"error":"unauthorized_client"}`), nil, "status 400, unauthorized_client", "make it a machine-to-machine application"},
		"Keycloak's words": {answers(401, `{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}`), nil, "status 401, unauthorized_client", "the secret or the ID is wrong"},
		"Entra ID's words": {answers(400, `{"error":"invalid_resource"}`), nil, "invalid_resource", "no API resource https://shopping.api, byte by byte"},
		"no grant":         {answers(400, `{"error":"unsupported_grant_type"}`), nil, "unsupported_grant_type", "another server"},
		"denied":           {answers(403, `{"error":"access_denied","error_description":"no"}`), nil, "status 403, access_denied: no", "not in the organization"},
		"odd request":      {answers(400, `{"error":"invalid_request"}`), nil, "invalid_request", "--resource-as"},
		"something else":   {answers(418, `{"error":"teapot"}`), nil, "status 418, teapot", "issuer's log"},
		"404":              {answers(404, `<html>`), nil, "status 404, and no error as of RFC 6749", "--token-url"},
		"failing":          {answers(502, `bad gateway`), nil, "status 502", "try again later"},
		"no JSON":          {answers(200, `<html>`), nil, "the response is not JSON", "--token-url"},
		"no token":         {answers(200, `{}`), nil, "the response has no access_token", "--token-url"},
		"DPoP":             {answers(200, `{"access_token":"a","token_type":"DPoP"}`), nil, "not a bearer token", "DPoP"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, nil,
			"redirects, and the secret is not sent on", "--token-url"},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil, "EOF", "cannot reach http://127.0.0.1:"},
		"control characters": {answers(400, `{"error":"teapot","error_description":"\u001b[2Jall is well\n`+strings.Repeat("x", 500)+`"}`), nil,
			`status 400, teapot: \x1b[2Jall is well\nxxx`, "issuer's log"},
		"repeats the secret": {func(w http.ResponseWriter, r *http.Request) {
			id, secret, _ := r.BasicAuth()
			plain, _ := url.QueryUnescape(secret)
			answers(400, fmt.Sprintf(`{"error":"teapot","error_description":"%s %s %s %s"}`, id, secret, plain, r.Header.Get("Authorization")))(w, r)
		}, func(a *App) { a.Secret = "p:\u200b%sä" }, "teapot: ", "issuer's log"},
		"repeats the secret where it is cut": {func(w http.ResponseWriter, r *http.Request) {
			_, secret, _ := r.BasicAuth()
			answers(400, fmt.Sprintf(`{"error":"teapot","error_description":"%s%s"}`, strings.Repeat("x", maxShown-len("status 400, teapot: ")-6), secret))(w, r)
		}, nil, "teapot: xx", "issuer's log"},
		"repeats the secret, and speaks no HTTP": {func(w http.ResponseWriter, r *http.Request) {
			_, secret, _ := r.BasicAuth()
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				const before = `net/http: HTTP/1.x transport connection broken: malformed HTTP response "`
				_, _ = fmt.Fprintf(conn, "%s%s\r\n\r\n", strings.Repeat("x", maxShown-len(before)-6), secret)
				_ = conn.Close()
			}
		}, nil, "malformed HTTP response", "cannot reach http://127.0.0.1:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issuer, registered := tenant(t)
			if test.handler != nil {
				tokenEndpoint(issuer, test.handler)
			}
			app := appOf(registered)
			if test.change != nil {
				test.change(&app)
			}
			report := new(Report)
			AppToken(t.Context(), found(t, issuer), app, Demand{}, report)
			assert.Equal(t, []string{appToken}, report.failures())
			check := report.check(t, appToken)
			assert.Contains(t, check.Detail, test.detail)
			assert.Contains(t, check.Remedy, test.remedy)
			assert.Less(t, len(check.Detail), 2*maxShown)
			assert.NotContains(t, report.table(t), app.Secret[:6])
			assert.NotContains(t, report.table(t), printable(app.Secret)[:6])
			assert.NotContains(t, report.table(t), url.QueryEscape(app.Secret)[:6])
			assert.NotRegexp(t, "Basic [A-Za-z0-9]", report.table(t))
			assert.Equal(t, 1, issuer.Fetches().Token, "the secret is sent once")
		})
	}
}

// The secret goes to the issuer's own origin or to --token-url, and nowhere else.
// An issuer whose claims script puts the secret into tokens is not ours to correct, but
// the report does not pass it on.
func TestASecretThatIsInTheTokenIsNotShown(t *testing.T) {
	t.Parallel()
	issuer, app := tenant(t)
	report := new(Report)
	f := found(t, issuer)
	tokenEndpoint(issuer, func(w http.ResponseWriter, r *http.Request) {
		token := issuer.Sign(m2mauthtest.Token{Audience: shop, Scopes: []string{app.Secret}, Claims: map[string]any{"iss": app.Secret, "sub": app.Secret}})
		_, _ = fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","scope":%q}`, token, app.Secret)
	})
	AppToken(t.Context(), f, appOf(app), Demand{Scopes: []string{"read:products"}}, report)
	assert.NotContains(t, report.table(t), app.Secret)
	assert.Contains(t, report.check(t, tokenIssuer).Detail, "got: [secret]")
}

func TestWhereTheSecretGoes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		issuer, endpoint, tokenURL string
		insecure                   []string
		want                       string // "" for nowhere
		remedy                     string
	}{
		"own origin":                      {issuer: "https://login.shop.example/oidc", endpoint: "https://login.shop.example/oidc/token", want: "https://login.shop.example/oidc/token"},
		"own origin by its port":          {issuer: "https://login.shop.example/oidc", endpoint: "https://LOGIN.shop.example:443/oidc/token", want: "https://LOGIN.shop.example:443/oidc/token"},
		"loopback":                        {issuer: "http://127.0.0.1:3001/oidc", endpoint: "http://127.0.0.1:3001/oidc/token", want: "http://127.0.0.1:3001/oidc/token"},
		"other host":                      {issuer: "https://login.shop.example/oidc", endpoint: "https://attacker.example/oidc/token", remedy: "--token-url"},
		"other host that folds into it":   {issuer: "https://login.shop.example/oidc", endpoint: "https://login.ſhop.example/oidc/token", remedy: "--token-url"},
		"other port":                      {issuer: "https://login.shop.example/oidc", endpoint: "https://login.shop.example:8443/oidc/token", remedy: "--token-url"},
		"other host that begins like it":  {issuer: "https://login.shop.example/oidc", endpoint: "https://login.shop.example.evil.example/oidc/token", remedy: "--token-url"},
		"user in the URL":                 {issuer: "https://login.shop.example/oidc", endpoint: "https://login.shop.example@attacker.example/token", remedy: "--token-url"},
		"user at the own host":            {issuer: "https://login.shop.example/oidc", endpoint: "https://a:b@login.shop.example/token", remedy: "--token-url"},
		"http where the issuer has https": {issuer: "https://login.shop.example/oidc", endpoint: "http://login.shop.example/oidc/token", remedy: "X-Forwarded-Proto"},
		"loopback over http for https":    {issuer: "https://localhost/oidc", endpoint: "http://localhost/oidc/token", remedy: "X-Forwarded-Proto"},
		"http elsewhere":                  {issuer: "http://logto:3001/oidc", endpoint: "http://logto:3001/oidc/token", insecure: []string{"logto"}, remedy: "--token-url"},
		"none":                            {issuer: "https://login.shop.example/oidc", remedy: "--token-url"},
		"told":                            {issuer: "https://login.shop.example/oidc", endpoint: "https://attacker.example/t", tokenURL: "https://token.example/t", want: "https://token.example/t"},
		"told over http":                  {issuer: "https://login.shop.example/oidc", tokenURL: "http://token.example/t", remedy: "--insecure-http-host token.example"},
		"told over http, and trusted":     {issuer: "https://login.shop.example/oidc", tokenURL: "http://logto:3001/t", insecure: []string{"logto:3001"}, want: "http://logto:3001/t"},
		"told as the guard takes it":      {issuer: "https://login.shop.example/oidc", tokenURL: "http://LOGTO/t", insecure: []string{"Logto:80"}, want: "http://LOGTO/t"},
		"told a look-alike of localhost":  {issuer: "https://login.shop.example/oidc", tokenURL: "http://localhoſt/t", remedy: "https"},
		"told with a password":            {issuer: "https://login.shop.example/oidc", tokenURL: "https://a:b@token.example/t", remedy: "without"},
		"told nonsense":                   {issuer: "https://login.shop.example/oidc", tokenURL: "token", remedy: "https://login.shop.example/oidc/token"},
		"told another scheme":             {issuer: "https://login.shop.example/oidc", tokenURL: "ftp://localhost/t", remedy: "https"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sent []string
			f := Found{Config: m2mauth.Config{
				Issuer: test.issuer, Audience: shop, InsecureHTTPHosts: test.insecure,
				HTTPClient: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
					sent = append(sent, r.URL.String())
					return nil, assert.AnError
				})},
			}}
			if test.endpoint != "" {
				endpoint, err := url.Parse(test.endpoint)
				require.NoError(t, err)
				f.TokenEndpoint = endpoint
			}
			report := new(Report)
			AppToken(t.Context(), f, App{ID: "app", Secret: "hidden", TokenURL: test.tokenURL, Resource: shop}, Demand{}, report)
			if test.want != "" {
				assert.Equal(t, []string{test.want}, sent)
				assert.Equal(t, Pass, report.check(t, appEndpoint).Status)
				return
			}
			assert.Empty(t, sent)
			assert.Equal(t, Fail, report.check(t, appEndpoint).Status)
			assert.Contains(t, report.check(t, appEndpoint).Detail+report.check(t, appEndpoint).Remedy, test.remedy)
			assert.Equal(t, Skip, report.check(t, appToken).Status)
		})
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
