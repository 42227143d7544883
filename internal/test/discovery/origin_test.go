package discovery

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// Here every origin answers, and with the issuer's good keys: what is refused is
// refused for its origin alone, as it must be where that origin is an attacker's.
func TestKeysComeFromTheIssuersOriginAlone(t *testing.T) {
	const issuerURL = "https://issuer.test/oidc"
	jwksAt := func(address string) func(*m2mauthtest.Issuer) http.RoundTripper {
		return everyOrigin(func(w http.ResponseWriter, r *http.Request, keys http.Handler) {
			if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
				_, _ = w.Write([]byte(`{"issuer":"` + issuerURL + `","jwks_uri":"` + address + `"}`))
				return
			}
			keys.ServeHTTP(w, r)
		})
	}
	redirect := func(path, to string) func(*m2mauthtest.Issuer) http.RoundTripper {
		return everyOrigin(func(w http.ResponseWriter, r *http.Request, keys http.Handler) {
			if r.URL.Host == "issuer.test" && r.URL.Scheme == "https" && r.URL.Path == path {
				http.Redirect(w, r, to, http.StatusFound)
				return
			}
			keys.ServeHTTP(w, r)
		})
	}
	loop := 0
	for name, test := range map[string]struct {
		transport func(*m2mauthtest.Issuer) http.RoundTripper
		want      int
	}{
		"jwks_uri of the issuer's origin":                {jwksAt("https://issuer.test/oidc/jwks"), http.StatusOK},
		"the same with its default port":                 {jwksAt("https://issuer.test:443/oidc/jwks"), http.StatusOK},
		"the same in other letter case":                  {jwksAt("https://ISSUER.test/oidc/jwks"), http.StatusOK},
		"jwks_uri on another host":                       {jwksAt("https://evil.test/oidc/jwks"), http.StatusServiceUnavailable},
		"jwks_uri on another port":                       {jwksAt("https://issuer.test:8443/oidc/jwks"), http.StatusServiceUnavailable},
		"jwks_uri over http on another port":             {jwksAt("http://issuer.test:8080/oidc/jwks"), http.StatusServiceUnavailable},
		"jwks_uri on a host that begins as the issuer's": {jwksAt("https://issuer.test.evil.test/oidc/jwks"), http.StatusServiceUnavailable},
		"a redirect that comes back to itself":           {redirect("/oidc/jwks", "/oidc/./jwks?again"), http.StatusServiceUnavailable},
		"a redirect to another path of the origin":       {redirect("/oidc/jwks", "https://issuer.test/moved/jwks"), http.StatusOK},
		"a redirect to another host":                     {redirect("/oidc/jwks", "https://evil.test/oidc/jwks"), http.StatusServiceUnavailable},
		"a redirect to another port":                     {redirect("/oidc/jwks", "https://issuer.test:8443/oidc/jwks"), http.StatusServiceUnavailable},
		"a redirect to http":                             {redirect("/oidc/jwks", "http://issuer.test/oidc/jwks"), http.StatusServiceUnavailable},
		"a redirect of the discovery document":           {redirect("/oidc/.well-known/openid-configuration", "https://evil.test/oidc/.well-known/openid-configuration"), http.StatusServiceUnavailable},
		"more redirects than three": {everyOrigin(func(w http.ResponseWriter, r *http.Request, keys http.Handler) {
			if loop++; strings.HasSuffix(r.URL.Path, "/jwks") && loop < 7 { // the discovery document is the first
				http.Redirect(w, r, r.URL.Path, http.StatusFound)
				return
			}
			keys.ServeHTTP(w, r)
		}), http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			issuer := m2mauthtest.NewIssuer()
			config := issuer.Config("https://shopping.api")
			require.Equal(t, issuerURL, config.Issuer)
			config.HTTPClient = &http.Client{Transport: test.transport(issuer)}
			guard, err := m2mauth.New(config)
			require.NoError(t, err)
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api"))
			w := httptest.NewRecorder()
			guard.Authenticate(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
			assert.Equal(t, test.want, w.Code)
		})
	}
}

// everyOrigin answers for all hosts, ports and schemes.
func everyOrigin(answer func(w http.ResponseWriter, r *http.Request, keys http.Handler)) func(*m2mauthtest.Issuer) http.RoundTripper {
	return func(issuer *m2mauthtest.Issuer) http.RoundTripper {
		keys := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/jwks") {
				r.URL.Path = "/oidc/jwks"
			}
			issuer.ServeHTTP(w, r)
		})
		return testguard.RoundTripper(func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			in := r.Clone(r.Context())
			answer(w, in, keys)
			response := w.Result()
			response.Request = r
			return response, nil
		})
	}
}

// A URL that the discovery document names is logged where it fails.
func TestAPasswordInJWKSURIIsNotShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		config := issuer.Config("https://shopping.api")
		var log strings.Builder
		config.Logger = slog.New(slog.NewTextHandler(&log, nil))
		config.HTTPClient = &http.Client{Transport: everyOrigin(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
				_, _ = w.Write([]byte(`{"issuer":"https://issuer.test/oidc","jwks_uri":"https://user:hunter2@issuer.test/oidc/jwks"}`))
				return
			}
			http.Error(w, "down", http.StatusInternalServerError)
		})(issuer)}
		guard, err := m2mauth.New(config)
		require.NoError(t, err)
		require.Error(t, guard.Warm(t.Context()))
		synctest.Wait() // the failure is logged after those who waited were told
		for where, text := range map[string]string{"log": log.String(), "status": guard.Keys().LastError} {
			assert.Contains(t, text, "jwks_uri", where)
			assert.NotContains(t, text, "hunter2", where)
		}
	})
}

// A Logto server behind a proxy that ends TLS does not know that callers come by
// https unless it is told.
func TestAJWKSURIOverHTTPIsAskedOverHTTPS(t *testing.T) {
	for _, test := range []struct{ name, issuer, jwks, asked string }{
		{"the same host", "https://issuer.test/oidc", "http://issuer.test/oidc/jwks", "https://issuer.test/oidc/jwks"},
		{"in other letters", "https://issuer.test/oidc", "http://Issuer.TEST/oidc/jwks", "https://issuer.test/oidc/jwks"},
		{"with the default port of http", "https://issuer.test/oidc", "http://issuer.test:80/oidc/jwks", "https://issuer.test/oidc/jwks"},
		{"with the default port of https", "https://issuer.test/oidc", "http://issuer.test:443/oidc/jwks", "https://issuer.test/oidc/jwks"},
		{"an issuer with the default port", "https://issuer.test:443/oidc", "http://issuer.test/oidc/jwks", "https://issuer.test:443/oidc/jwks"},
		{"the same port", "https://issuer.test:8443/oidc", "http://issuer.test:8443/oidc/jwks", "https://issuer.test:8443/oidc/jwks"},
		{"a path with escapes, and a query", "https://issuer.test/oidc", "http://issuer.test/a%2Fb/jwks?key=secret", "https://issuer.test/a%2Fb/jwks?key=secret"},

		{"another host", "https://issuer.test/oidc", "http://keys.issuer.test/oidc/jwks", ""},
		{"another port", "https://issuer.test/oidc", "http://issuer.test:8080/oidc/jwks", ""},
		{"no port where the issuer has one", "https://issuer.test:8443/oidc", "http://issuer.test/oidc/jwks", ""},
		{"the port of http where the issuer has another", "https://issuer.test:8443/oidc", "http://issuer.test:80/oidc/jwks", ""},
		{"a password", "https://issuer.test/oidc", "http://user:secret@issuer.test/oidc/jwks", ""},
		{"another scheme than http", "https://issuer.test/oidc", "ftp://issuer.test/oidc/jwks", ""},
		{"https, which an http issuer may not become", "http://localhost/oidc", "https://localhost/oidc/jwks", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			testguard.KeysBubble(t, func(t *testing.T) {
				var log testguard.KeysLog
				var asked []string
				issuer := m2mauthtest.NewIssuer()
				c := issuer.Config(testguard.KeysAPI)
				c.Issuer, c.Logger = test.issuer, slog.New(&log)
				answer := everyOrigin(func(w http.ResponseWriter, r *http.Request, keys http.Handler) {
					if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
						fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, test.issuer, test.jwks)
						return
					}
					asked = append(asked, r.URL.String())
					keys.ServeHTTP(w, r)
				})(issuer)
				c.HTTPClient = &http.Client{Transport: answer}
				g, err := m2mauth.New(c)
				require.NoError(t, err)
				token := issuer.Sign(m2mauthtest.Token{Audience: testguard.KeysAPI, Claims: map[string]any{"iss": test.issuer}, Lifetime: 1000 * time.Hour})
				if test.asked == "" {
					testguard.KeysEventually(t, g, token, 503)
					assert.Empty(t, asked)
					assert.NotContains(t, log.Text(), "TRUST_PROXY_HEADER")
				} else {
					for range 4 { // days, on each of which the document is read again
						testguard.KeysEventually(t, g, token, 200)
						time.Sleep(25 * time.Hour)
					}
					assert.Subset(t, []string{test.asked}, asked)
					assert.NotEmpty(t, asked)
					assert.Equal(t, 1, log.Count(slog.LevelWarn), log.Text())
					assert.Contains(t, log.Text(), "TRUST_PROXY_HEADER=1")
				}
				assert.NotContains(t, log.Text(), "secret")
			})
		})
	}
}
