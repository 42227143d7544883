package m2mauth_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// Where a document is not, servers say 403, 401, 405 or 410, or show a page.
func TestDiscoveryGoesOnWhereADocumentIsNot(t *testing.T) {
	const openid, oauth = "/oidc/.well-known/openid-configuration", "/oidc/.well-known/oauth-authorization-server"
	const inserted = "/.well-known/oauth-authorization-server/oidc"
	for name, test := range map[string]struct {
		status int
		body   string
		goesOn bool
	}{
		"400":                               {400, "", true},
		"401":                               {401, `{"error":"unauthorized"}`, true},
		"403":                               {403, "<html>", true},
		"404":                               {404, "", true},
		"405":                               {405, "", true},
		"410":                               {410, "", true},
		"451":                               {451, "", true},
		"499":                               {499, "", true},
		"200 with a page":                   {200, "<!doctype html><title>Welcome</title>", true},
		"200 with nothing":                  {200, "", true},
		"200 with an array":                 {200, "[]", true},
		"200 with null":                     {200, "null", true},
		"200 with JSON that is cut":         {200, `{"issuer":"https://issuer.test/oidc"`, true},
		"200 with two objects":              {200, `{}{}`, true},
		"429":                               {429, "", false},
		"500":                               {500, "", false},
		"503":                               {503, "", false},
		"204":                               {204, "", false},
		"302":                               {302, "", false},
		"another issuer's document":         {200, `{"issuer":"https://evil.test","jwks_uri":"https://issuer.test/oidc/jwks"}`, false},
		"a document without jwks_uri":       {200, `{"issuer":"https://issuer.test/oidc"}`, false},
		"an empty document":                 {200, `{}`, false},
		"a document with two issuers":       {200, `{"issuer":"https://issuer.test/oidc","issuer":"x","jwks_uri":"https://issuer.test/oidc/jwks"}`, false},
		"a document with a number for them": {200, `{"issuer":1,"jwks_uri":"https://issuer.test/oidc/jwks"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				var asked []string
				issuer.Intercept(func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if !strings.Contains(r.URL.Path, "/.well-known/") {
							next.ServeHTTP(w, r)
							return
						}
						asked = append(asked, r.URL.Path)
						switch r.URL.Path {
						case inserted:
							fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, issuer.URL(), issuer.JWKSURL())
						default:
							w.WriteHeader(test.status)
							_, _ = io.WriteString(w, test.body)
						}
					})
				})
				g := keysGuard(t, issuer)
				err := g.Warm(t.Context())
				synctest.Wait()
				if test.goesOn {
					require.NoError(t, err)
					assert.Equal(t, []string{openid, oauth, inserted}, asked)
				} else {
					require.Error(t, err)
					assert.Equal(t, []string{openid}, asked)
				}
			})
		})
	}
}

// What is told is why the first address had none.
func TestDiscoveryThatIsNowhereTellsOfTheFirstPlace(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		status := map[string]int{"/oidc/.well-known/openid-configuration": 403}
		issuer.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if s := status[r.URL.Path]; s != 0 {
					w.WriteHeader(s)
					return
				}
				_, _ = io.WriteString(w, "<html>")
			})
		})
		g := keysGuard(t, issuer)
		require.Error(t, g.Warm(t.Context()))
		assert.Contains(t, g.Keys().LastError, "/oidc/.well-known/openid-configuration: status 403")
	})
}
