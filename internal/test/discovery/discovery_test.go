// Package discovery tests where a guard looks for an issuer's keys, and where it must not.
package discovery

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
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

func TestDiscovery(t *testing.T) {
	const (
		openid   = "/.well-known/openid-configuration"
		appended = "/.well-known/oauth-authorization-server"
	)
	document := func(issuer, jwks string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"unknown":[{}]}`, issuer, jwks)
		}
	}
	for name, test := range map[string]struct {
		issuer string
		at     string // where the document is
		asked  []string
	}{
		"OpenID Connect":                       {"https://issuer.test/oidc", "/oidc" + openid, []string{"/oidc" + openid}},
		"RFC 8414 appended, as Logto has it":   {"https://issuer.test/oidc", "/oidc" + appended, []string{"/oidc" + openid, "/oidc" + appended}},
		"RFC 8414 inserted":                    {"https://issuer.test/oidc", appended + "/oidc", []string{"/oidc" + openid, "/oidc" + appended, appended + "/oidc"}},
		"one trailing slash is stripped":       {"https://issuer.test/oidc/", "/oidc" + openid, []string{"/oidc" + openid}},
		"and only one":                         {"https://issuer.test/oidc//", "/oidc/" + openid, []string{"/oidc/" + openid}},
		"an issuer without a path":             {"https://issuer.test", openid, []string{openid}},
		"an issuer that is a slash":            {"https://issuer.test/", openid, []string{openid}},
		"RFC 8414 inserted, with the slash":    {"https://issuer.test/oidc/", appended + "/oidc", []string{"/oidc" + openid, "/oidc" + appended, appended + "/oidc"}},
		"an issuer with an escape in its path": {"https://issuer.test/a%2Fb", "/a%2Fb" + openid, []string{"/a%2Fb" + openid}},
	} {
		t.Run(name, func(t *testing.T) {
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				var asked []string
				issuer.Intercept(func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/oidc/jwks" {
							next.ServeHTTP(w, r)
							return
						}
						asked = append(asked, r.URL.EscapedPath())
						if r.URL.EscapedPath() != test.at {
							http.NotFound(w, r)
							return
						}
						document(test.issuer, issuer.JWKSURL())(w, r)
					})
				})
				g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.Issuer = test.issuer })
				token := issuer.Sign(m2mauthtest.Token{Audience: testguard.KeysAPI, Claims: map[string]any{"iss": test.issuer}})
				testguard.KeysAtOnce(t, g, token, 200)
				assert.Equal(t, test.asked, asked)
				if other, found := strings.CutSuffix(test.issuer, "/"); found {
					token := issuer.Sign(m2mauthtest.Token{Audience: testguard.KeysAPI, Claims: map[string]any{"iss": other}})
					testguard.KeysAtOnce(t, g, token, 401, "never stripped for comparing")
				}
			})
		})
	}

	t.Run("a failure that says nothing of documents falls back to nothing", func(t *testing.T) {
		testguard.KeysBubble(t, func(t *testing.T) {
			issuer := m2mauthtest.NewIssuer()
			testguard.KeysHookAt(issuer, "/oidc"+openid, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(500) })
			g := testguard.KeysGuard(t, issuer)
			testguard.KeysAtOnce(t, g, testguard.KeysToken(issuer, ""), 503)
			assert.Equal(t, m2mauthtest.Fetches{Discovery: 1}, issuer.Fetches())
		})
	})

	t.Run("is read again once a day", func(t *testing.T) {
		testguard.KeysBubble(t, func(t *testing.T) {
			issuer := m2mauthtest.NewIssuer()
			g := testguard.KeysGuard(t, issuer)
			for range 3 * 24 * 60 {
				require.NoError(t, g.Warm(t.Context()))
				time.Sleep(time.Minute)
			}
			synctest.Wait()
			t.Logf("%+v in three days", issuer.Fetches())
			assert.InDelta(t, 3, issuer.Fetches().Discovery, 1)
			assert.LessOrEqual(t, issuer.Fetches().JWKS, 3*24*60/7+1)
		})
	})

	t.Run("failing to read it again costs nothing but time", func(t *testing.T) {
		testguard.KeysBubble(t, func(t *testing.T) {
			issuer := m2mauthtest.NewIssuer()
			g := testguard.KeysGuard(t, issuer)
			token := testguard.KeysToken(issuer, "")
			testguard.KeysAtOnce(t, g, token, 200)
			testguard.KeysHookAt(issuer, "/oidc"+openid, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() })
			time.Sleep(25 * time.Hour)
			issuer.Rotate("ES384")
			assert.LessOrEqual(t, testguard.KeysEventually(t, g, testguard.KeysToken(issuer, ""), 200), testguard.KeysTimeout)
		})
	})

	t.Run("is read again with the next refresh where that failed", func(t *testing.T) {
		testguard.KeysBubble(t, func(t *testing.T) {
			issuer := m2mauthtest.NewIssuer()
			g := testguard.KeysGuard(t, issuer)
			require.NoError(t, g.Warm(t.Context()))
			testguard.KeysHookAt(issuer, "/oidc"+openid, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(500) })
			time.Sleep(24 * time.Hour)
			require.NoError(t, g.Warm(t.Context()))
			assert.Equal(t, m2mauthtest.Fetches{Discovery: 2, JWKS: 2}, issuer.Fetches())
			issuer.Intercept(nil)
			for range 2 { // and then it is believed for a day
				time.Sleep(testguard.KeysTTL)
				require.NoError(t, g.Warm(t.Context()))
				assert.Equal(t, 3, issuer.Fetches().Discovery)
			}
		})
	})

	// The key set moves, and what its old URL says then.
	for name, gone := range map[string]http.HandlerFunc{
		"404":              func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
		"500":              func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) },
		"200 with HTML":    func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"an empty key set": func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) },
		"redirect elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.test/", http.StatusFound)
		},
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		for where, follow := range map[string]bool{"https://issuer.test/oidc/moved": true, "https://evil.test/oidc/moved": false, "http://issuer.test/oidc/moved": true} {
			t.Run("a key set moved to "+where+", the old URL says "+name, func(t *testing.T) {
				testguard.KeysBubble(t, func(t *testing.T) {
					issuer := m2mauthtest.NewIssuer()
					moved := false
					issuer.Intercept(func(next http.Handler) http.Handler {
						return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							switch {
							case moved && strings.Contains(r.URL.Path, ".well-known"):
								document(issuer.URL(), where)(w, r)
							case moved && r.URL.Path == "/oidc/jwks":
								gone(w, r)
							case moved && r.URL.Path == "/oidc/moved":
								r.URL.Path = "/oidc/jwks"
								next.ServeHTTP(w, r)
							default:
								next.ServeHTTP(w, r)
							}
						})
					})
					g := testguard.KeysGuard(t, issuer)
					testguard.KeysAtOnce(t, g, testguard.KeysToken(issuer, ""), 200)
					moved = true
					time.Sleep(time.Minute)
					issuer.Rotate("ES384")
					token := testguard.KeysToken(issuer, "")
					testguard.KeysEventually(t, g, token, 503, "the attempt that finds the old URL failing")
					time.Sleep(2 * time.Second)
					want := 503
					if follow {
						want = 200
					}
					testguard.KeysEventually(t, g, token, want)
				})
			})
		}
	}
}

func TestJWKSURLMayBeOnAnotherOrigin(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.Issuer, c.JWKSURL = "https://elsewhere.test", issuer.JWKSURL() })
		token := issuer.Sign(m2mauthtest.Token{Audience: testguard.KeysAPI, Claims: map[string]any{"iss": "https://elsewhere.test"}})
		testguard.KeysAtOnce(t, g, token, 200)
		assert.Equal(t, m2mauthtest.Fetches{JWKS: 1}, issuer.Fetches())
	})
}

// In compose and Kubernetes the issuer's identifier has a name that browsers
// know, and its keys are fetched under the name of the service.
func TestDiscoveryOfASplitHorizon(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		const identifier = "http://localhost:3001/oidc"
		issuer := m2mauthtest.NewIssuer()
		var asked []string
		inside := &http.Client{Transport: testguard.RoundTripper(func(r *http.Request) (*http.Response, error) {
			asked = append(asked, r.URL.String())
			if r.URL.Host != "logto:3001" {
				return nil, errors.New("connection refused")
			}
			r = r.Clone(r.Context())
			r.URL.Scheme, r.URL.Host = "https", "issuer.test"
			return issuer.Client().Transport.RoundTrip(r)
		})}
		token := issuer.Sign(m2mauthtest.Token{Audience: testguard.KeysAPI, Claims: map[string]any{"iss": identifier}})
		config := func(c *m2mauth.Config) {
			c.Issuer, c.JWKSURL, c.HTTPClient = identifier, "http://logto:3001/oidc/jwks", inside
		}
		for _, hosts := range [][]string{{"logto"}, {"logto:3001"}, {"LOGTO"}} {
			g := testguard.KeysGuard(t, issuer, config, func(c *m2mauth.Config) { c.InsecureHTTPHosts = hosts })
			testguard.KeysAtOnce(t, g, token, 200)
		}
		assert.Equal(t, []string{"http://logto:3001/oidc/jwks", "http://logto:3001/oidc/jwks", "http://logto:3001/oidc/jwks"}, asked)

		c := issuer.Config(testguard.KeysAPI)
		config(&c)
		for _, hosts := range [][]string{nil, {"logto:3002"}, {"ogto"}, {"other"}} {
			c.InsecureHTTPHosts = hosts
			_, err := m2mauth.New(c)
			assert.ErrorContains(t, err, "JWKSURL")
		}
	})
}

// A secret in the key set's URL reaches neither a log nor an error.
func TestTheQueryOfJWKSURLIsNotShown(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){
		"500":     func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(500) },
		"rubbish": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = io.WriteString(w, "<html>") },
		"hangs":   func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() },
		"breaks":  func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) },
		"redirects": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, "https://evil.test/?key=secret", http.StatusFound)
		},
		"an odd key": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			_, _ = io.WriteString(w, `{"keys":[{"kty":"oct","k":"secret"}]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			testguard.KeysBubble(t, func(t *testing.T) {
				var log testguard.KeysLog
				issuer := m2mauthtest.NewIssuer()
				testguard.KeysHook(issuer, answer)
				g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) {
					c.JWKSURL = issuer.JWKSURL() + "?key=secret"
					c.Logger = slog.New(&log)
				})
				err := g.Warm(t.Context())
				require.Error(t, err)
				synctest.Wait()
				assert.Positive(t, len(log.Text()))
				assert.NotContains(t, err.Error()+g.Keys().LastError+log.Text(), "secret")
			})
		})
	}
}

// The error of the place where the document is, and not of those where it is not.
func TestDiscoveryTellsOfThePlaceThatFailed(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		issuer.Intercept(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "openid-configuration") {
					http.NotFound(w, r)
					return
				}
				w.Header().Set("Retry-After", "40")
				http.Error(w, "down", http.StatusServiceUnavailable)
			})
		})
		g := testguard.KeysGuard(t, issuer)
		err := g.Warm(t.Context())
		var e *m2mauth.Error
		require.True(t, errors.As(err, &e))
		assert.Equal(t, 40*time.Second, e.RetryAfter)
		assert.Contains(t, err.Error(), "503")
	})
}

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
			testguard.KeysBubble(t, func(t *testing.T) {
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
				g := testguard.KeysGuard(t, issuer)
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
	testguard.KeysBubble(t, func(t *testing.T) {
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
		g := testguard.KeysGuard(t, issuer)
		require.Error(t, g.Warm(t.Context()))
		assert.Contains(t, g.Keys().LastError, "/oidc/.well-known/openid-configuration: status 403")
	})
}
