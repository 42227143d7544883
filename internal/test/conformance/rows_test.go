package conformance

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// Clauses of docs/conformance.md that no other test holds.

// RFC 8414 §6, OpenID Connect Discovery §7: whoever answers for the keys' server
// must have a certificate for its name that is trusted here.
func TestTheKeysServerMustProveWhoItIs(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	// at returns the client of the server, who finds it under any name and trusts
	// what made its certificate.
	at := func(server *httptest.Server) *http.Client {
		client := server.Client()
		client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		}
		return client
	}
	stranger := func(*httptest.Server) *http.Client { return nil } // the guard's own
	serve := func(t *testing.T, old bool) *httptest.Server {
		server := httptest.NewUnstartedServer(issuer)
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		if old {
			server.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
		}
		server.StartTLS()
		t.Cleanup(server.Close)
		return server
	}
	for _, test := range []struct {
		name   string
		old    bool // the server speaks TLS 1.1 at most
		host   string
		client func(*httptest.Server) *http.Client
		want   string // in the cause; "" = the keys are fetched
	}{
		{"a trusted certificate of that host", false, "example.com", at, ""},
		{"a trusted certificate of another host", false, "keys.test", at, "certificate is valid for"},
		{"a certificate that nobody vouches for", false, "127.0.0.1", stranger, "certificate"},
		{"TLS 1.1", true, "127.0.0.1", stranger, "protocol version"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, test.old)
			guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
				c.JWKSURL = strings.Replace(server.URL, "127.0.0.1", test.host, 1) + "/oidc/jwks"
				c.HTTPClient = test.client(server)
			})
			_, err := guard.Verify(t.Context(), issuer.Token(testguard.Shop))
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, m2mauth.ErrUnavailable)
			assert.ErrorContains(t, errors.Unwrap(err), test.want)
		})
	}
}

// RFC 8414 §3.1, OpenID Connect Discovery §4.1. The caller's token is nobody
// else's business, and the issuer's least of all (RFC 9700 §4.9.3).
func TestDocumentsAreAskedForByGET(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	asked := 0
	issuer.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			assert.Equal(t, http.MethodGet, r.Method, r.URL.Path)
			assert.Empty(t, r.URL.RawQuery)
			body, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			assert.Empty(t, body)
			assert.NotContains(t, r.Header, "Authorization")
			assert.NotContains(t, r.Header, "Cookie")
			next.ServeHTTP(w, r)
		})
	})
	r := testguard.RequestWith("Bearer " + issuer.Token(testguard.Shop))
	r.AddCookie(&http.Cookie{Name: "session", Value: "secret"})
	_, err := testguard.Quiet(t, issuer).Check(r, m2mauth.AnyToken())
	require.NoError(t, err)
	assert.Equal(t, 2, asked, "the discovery document and the key set")
}

// RFC 7519 §7.2, RFC 7515 §4.1.10: cty says that the payload is a token again,
// which is not read here.
func TestATokenThatSaysItNestsAnotherIsRefused(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	for cty, want := range map[any]error{
		"JWT": m2mauth.ErrMalformed, "jwt": m2mauth.ErrMalformed, "application/jwt": m2mauth.ErrMalformed, "Application/JWT": m2mauth.ErrMalformed,
		7: m2mauth.ErrMalformed, true: m2mauth.ErrMalformed,
		"json": nil, "application/json": nil, "application/jwtx": nil, "": nil,
	} {
		_, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"cty": cty}}))
		assert.ErrorIs(t, err, want, "%v", cty)
	}
	_, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"cty": json.RawMessage("null")}}))
	assert.ErrorIs(t, err, m2mauth.ErrMalformed, "null")
}

// RFC 7515 §5.3, RFC 8414 §4: escapes are undone, and nothing else is. The two
// spellings of é look alike, and are the same to whoever normalizes (NFC, NFD).
func TestStringsAreComparedByCodePoint(t *testing.T) {
	t.Parallel()
	const composed, decomposed = "caf\u00e9", "cafe\u0301"
	const name = "https://issuer.test/oidc/" + composed
	issuer := m2mauthtest.NewIssuer()
	discovery := `"https://issuer.test/oidc/` + composed + `"`
	issuer.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/.well-known/") {
				fmt.Fprintf(w, `{"issuer":%s,"jwks_uri":"https:\/\/issuer.test\/oidc\/jwks"}`, discovery)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	guard := func() *m2mauth.Guard {
		return testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.Issuer, c.Audience = name, composed })
	}
	token := func(claims map[string]any) string {
		all := map[string]any{"iss": name, "aud": composed, "scope": composed}
		for claim, value := range claims {
			all[claim] = value
		}
		return issuer.Sign(m2mauthtest.Token{Claims: all})
	}
	for _, test := range []struct {
		name, document string
		want           error
	}{
		{"as it is", discovery, nil},
		{"with escapes", `"https:\/\/issuer\u002etest\/oidc\/caf\u00e9"`, nil},
		{"in the other form", `"https://issuer.test/oidc/` + decomposed + `"`, m2mauth.ErrUnavailable},
		{"with an escape within an escape", `"https://issuer.test/oidc/caf\\u00e9"`, m2mauth.ErrUnavailable},
		{"with a percent escape", `"https://issuer.test/oidc/caf%C3%A9"`, m2mauth.ErrUnavailable},
	} {
		t.Run("the issuer of the discovery document "+test.name, func(t *testing.T) {
			discovery = test.document
			_, err := guard().Verify(t.Context(), token(nil))
			if test.want == nil {
				assert.NoError(t, err)
			} else {
				assert.ErrorIs(t, err, test.want)
			}
		})
	}
	discovery = `"` + name + `"`
	g := guard()
	for _, test := range []struct {
		claim string
		value string
		want  error
	}{
		{"iss", "https://issuer.test/oidc/" + decomposed, m2mauth.ErrIssuer},
		{"aud", decomposed, m2mauth.ErrAudience},
		{"scope", decomposed, m2mauth.ErrScope},
	} {
		t.Run(test.claim+" in the other form", func(t *testing.T) {
			check := func(claims map[string]any) error {
				_, err := g.Check(testguard.RequestWith("Bearer "+token(claims)), m2mauth.AllScopes(composed))
				return err
			}
			assert.NoError(t, check(nil))
			assert.ErrorIs(t, check(map[string]any{test.claim: test.value}), test.want)
		})
	}
}

// RFC 6750 §3.1 would have 400 for a token that comes by two methods. A form and
// a query are the handler's, so they are not looked at: they neither help a
// request nor harm it.
func TestATokenBesideTheFieldDecidesNothing(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	good := issuer.Token(testguard.Shop)
	for _, test := range []struct {
		name, field, elsewhere string
		want                   error
	}{
		{"a bad one beside a good one", good, "rubbish", nil},
		{"a good one beside a good one", good, good, nil},
		{"a good one beside a bad one", "rubbish", good, m2mauth.ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodPost, "/?access_token="+test.elsewhere, strings.NewReader("access_token="+test.elsewhere))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Authorization", "Bearer "+test.field)
			claims, err := guard.Check(r, m2mauth.AnyToken())
			assert.Equal(t, test.want == nil, !claims.IsZero())
			if test.want == nil {
				assert.NoError(t, err)
			} else {
				assert.ErrorIs(t, err, test.want)
			}
		})
	}
}

// RFC 7517 §4: the values of kty, use, key_ops and alg have letter case, and so
// have the names of curves.
func TestMembersOfKeysHaveLetterCase(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, members string
		good          bool
	}{
		{"as it should be", `"kty":"EC","crv":"P-256","use":"sig","key_ops":["verify"],"alg":"ES256"`, true},
		{"kty ec", `"kty":"ec","crv":"P-256"`, false},
		{"crv p-256", `"kty":"EC","crv":"p-256"`, false},
		{"use SIG", `"kty":"EC","crv":"P-256","use":"SIG"`, false},
		{"key_ops Verify", `"kty":"EC","crv":"P-256","key_ops":["Verify"]`, false},
		{"alg es256", `"kty":"EC","crv":"P-256","alg":"es256"`, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config := m2mauthtest.NewIssuer().Config(testguard.Shop)
			config.HTTPClient = nil
			config.JWKS = []byte(`{"keys":[{` + test.members +
				`,"x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}`)
			_, err := m2mauth.New(config)
			if test.good {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, "no usable key")
			}
		})
	}
}
