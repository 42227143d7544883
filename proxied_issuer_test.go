package m2mauth_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

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
			keysBubble(t, func(t *testing.T) {
				var log keysLog
				var asked []string
				issuer := m2mauthtest.NewIssuer()
				c := issuer.Config(keysAPI)
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
				token := issuer.Sign(m2mauthtest.Token{Audience: keysAPI, Claims: map[string]any{"iss": test.issuer}, Lifetime: 1000 * time.Hour})
				if test.asked == "" {
					keysEventually(t, g, token, 503)
					assert.Empty(t, asked)
					assert.NotContains(t, log.text(), "TRUST_PROXY_HEADER")
				} else {
					for range 4 { // days, on each of which the document is read again
						keysEventually(t, g, token, 200)
						time.Sleep(25 * time.Hour)
					}
					assert.Subset(t, []string{test.asked}, asked)
					assert.NotEmpty(t, asked)
					assert.Equal(t, 1, log.count(slog.LevelWarn), log.text())
					assert.Contains(t, log.text(), "TRUST_PROXY_HEADER=1")
				}
				assert.NotContains(t, log.text(), "secret")
			})
		})
	}
}
