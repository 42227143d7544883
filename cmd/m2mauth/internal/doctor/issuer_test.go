package doctor_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/cmd/m2mauth/internal/doctor"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// rows returns what a report says in one check.
func rows(r *doctor.Report, id string) (all []string) {
	for _, c := range r.Checks {
		if c.ID == id {
			all = append(all, string(c.Status)+": "+c.Detail)
		}
	}
	return all
}

func octets(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }

func rsaKey(t *testing.T, bits int, more string) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	require.NoError(t, err)
	return fmt.Sprintf(`{"kty":"RSA","n":"%s","e":"AQAB"%s}`, octets(key.N), more)
}

func ecKey(t *testing.T, more string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	public, err := key.PublicKey.Bytes()
	require.NoError(t, err)
	x, y := public[1:33], public[33:]
	return fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":"%s","y":"%s"%s}`,
		base64.RawURLEncoding.EncodeToString(x), base64.RawURLEncoding.EncodeToString(y), more)
}

// Each key has a row, and exactly those pass that a guard verifies with.
func TestEachKeyHasARowThatAgreesWithTheGuard(t *testing.T) {
	t.Parallel()
	sound := ecKey(t, `,"kid":"sound"`)
	for name, test := range map[string]struct {
		keys       []string
		algorithms []string
		want       []string
	}{
		"sound":                        {[]string{sound}, nil, []string{"pass: kid sound verifies ES256"}},
		"RSA without alg":              {[]string{rsaKey(t, 2048, `,"kid":"old"`)}, nil, []string{"pass: kid old verifies RS256"}},
		"RSA without alg, PS512 named": {[]string{rsaKey(t, 2048, `,"kid":"old"`)}, []string{"PS512", "PS512"}, []string{"pass: kid old verifies PS512"}},
		"RSA without alg, two named":   {[]string{rsaKey(t, 2048, `,"kid":"old"`), sound}, []string{"RS256", "PS256", "ES256"}, []string{"warn: kid old is left out: an RSA key without alg, while not exactly one RSA algorithm is accepted", "pass: kid sound verifies ES256"}},
		"weak RSA":                     {[]string{rsaKey(t, 1024, `,"kid":"weak"`), sound}, nil, []string{"warn: kid weak is left out: a modulus of 1024 bits, not 2048 to 8192", "pass: kid sound verifies ES256"}},
		"for encryption":               {[]string{ecKey(t, `,"kid":"enc","use":"enc"`), sound}, nil, []string{"skip: kid enc is left out: it is for encryption, which is no fault", "pass: kid sound verifies ES256"}},
		"a private key":                {[]string{ecKey(t, `,"kid":"mine","d":"AQAB"`), sound}, nil, []string{"warn: kid mine is left out: a private or symmetric key is published", "pass: kid sound verifies ES256"}},
		"an algorithm not accepted":    {[]string{sound, rsaKey(t, 2048, `,"kid":"rsa"`)}, []string{"RS256"}, []string{"warn: kid sound is for ES256, which Algorithms does not name", "pass: kid rsa verifies RS256"}},
		"no kid":                       {[]string{ecKey(t, ``)}, nil, []string{"pass: a key without kid verifies ES256"}},
		"no object":                    {[]string{`7`, sound}, nil, []string{"warn: a key without kid is left out: not a JSON object without doubled members", "pass: kid sound verifies ES256"}},
		"a kid for a terminal":         {[]string{ecKey(t, `,"kid":"\u001b[2J"`)}, nil, []string{`pass: kid \x1b[2J verifies ES256`}},
		"one kid, two keys": {[]string{sound, ecKey(t, `,"kid":"sound"`)}, nil, []string{"pass: kid sound verifies ES256", "pass: kid sound verifies ES256",
			"warn: different keys are published under one name: kid \"sound\", alg ES256"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := `{"keys":[` + strings.Join(test.keys, ",") + `]}`
			issuer := m2mauthtest.NewIssuer()
			issuer.Intercept(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, "/jwks") {
						_, _ = io.WriteString(w, body)
						return
					}
					next.ServeHTTP(w, r)
				})
			})
			fetched, given := new(doctor.Report), new(doctor.Report)
			found := doctor.Issuer(t.Context(), m2mauth.Config{Issuer: issuer.URL(), HTTPClient: issuer.Client(), Algorithms: test.algorithms}, fetched)
			doctor.Issuer(t.Context(), m2mauth.Config{Issuer: issuer.URL(), JWKS: []byte(body), Algorithms: test.algorithms}, given)
			assert.Equal(t, test.want, rows(fetched, "issuer.key"))
			assert.Equal(t, test.want, rows(given, "issuer.key"), "from JWKS")
			assert.False(t, fetched.Failed() || given.Failed())

			published, read := 0, 0
			for _, k := range found.Guard.Keys().Keys {
				if k.Algorithm != "" {
					published++
				}
			}
			for _, k := range found.Keys.Keys {
				if k.Problem() == nil {
					read++
				}
			}
			assert.Equal(t, published, read)
		})
	}
}

// The keys of an issuer may be at an address that is as good as a password.
func TestAURLIsShownWithoutWhatMayBeSecret(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	for name, hook := range map[string]func(http.Handler) http.Handler{
		"good": nil,
		"gone": func(http.Handler) http.Handler { return http.NotFoundHandler() },
		"page": func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "<html>")
			})
		},
		"elsewhere": func(http.Handler) http.Handler {
			return http.RedirectHandler("https://login.shop.example/jwks?code=hidden", http.StatusFound)
		},
		"user in the document": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, `{"issuer":"https://issuer.test/oidc","jwks_uri":"https://user:hidden@issuer.test/jwks"}`)
			})
		},
		"user in the issuer": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, `{"issuer":"https://user:hidden@issuer.test/oidc?hidden"}`)
			})
		},
	} {
		issuer.Intercept(hook)
		for _, jwksURL := range []string{"", issuer.JWKSURL() + "?key=hidden"} {
			report := new(doctor.Report)
			doctor.Issuer(t.Context(), m2mauth.Config{Issuer: issuer.URL(), HTTPClient: issuer.Client(), JWKSURL: jwksURL}, report)
			assert.NotContains(t, fmt.Sprint(report), "hidden", name)
			assert.Equal(t, name == "good", !report.Failed(), name)
		}
	}
}

// There is no time but that of the bubble, in which the server never answers.
func TestAServerThatNeverAnswersEndsTheExaminationAtTheTimeout(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/.well-known/": "issuer.response: issuer.test did not answer within 5s",
		"/jwks":         "issuer.keys: https://issuer.test/oidc/jwks did not answer within 5s",
		"/token":        "issuer.token-endpoint: https://issuer.test/oidc/token did not answer within 5s",
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				issuer.Intercept(func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if strings.Contains(r.URL.Path, path) {
							<-r.Context().Done()
							return
						}
						next.ServeHTTP(w, r)
					})
				})
				began, report := time.Now(), new(doctor.Report)
				doctor.Issuer(t.Context(), m2mauth.Config{Issuer: issuer.URL(), HTTPClient: issuer.Client()}, report)
				id, detail, _ := strings.Cut(want, ": ")
				assert.Equal(t, []string{"fail: " + detail}, rows(report, id))
				assert.Equal(t, 5*time.Second, time.Since(began))
			})
		})
	}
}

// Date has whole seconds, and a cache keeps the one of when it fetched.
func TestClocksAreComparedByDateAndLeeway(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		off    time.Duration // of the issuer's clock
		age    string
		leeway time.Duration
		want   string
	}{
		"same":                           {0, "", 0, "pass: this clock and the issuer's agree"},
		"a cache kept it for an hour":    {-time.Hour, "3600", 0, "pass: this clock and the issuer's agree"},
		"and says nonsense of it":        {0, "-5", 0, "pass: this clock and the issuer's agree"},
		"10 seconds":                     {10 * time.Second, "", 0, "pass: this clock is 10s behind the issuer's; Leeway is 30s"},
		"20 seconds":                     {20 * time.Second, "", 0, "warn: this clock is 20s behind the issuer's; Leeway is 30s"},
		"31 seconds":                     {31 * time.Second, "", 0, "fail: this clock is 31s behind the issuer's; Leeway is 30s"},
		"31 seconds the other way":       {-32 * time.Second, "", 0, "fail: this clock is 31s ahead of the issuer's; Leeway is 30s"},
		"10 minutes with as much leeway": {10 * time.Minute, "", 10 * time.Minute, "warn: this clock is 10m0s behind the issuer's; Leeway is 10m0s"},
		"2 seconds without leeway":       {2 * time.Second, "", -1, "fail: this clock is 2s behind the issuer's; Leeway is 0s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				report := new(doctor.Report)
				issuer := heading(func(h http.Header) {
					h.Set("Date", time.Now().Add(test.off).UTC().Format(http.TimeFormat))
					if test.age != "" {
						h.Set("Age", test.age)
					}
				})
				doctor.Issuer(t.Context(), m2mauth.Config{Issuer: issuer.URL(), HTTPClient: issuer.Client(), Leeway: test.leeway}, report)
				assert.Equal(t, []string{test.want}, rows(report, "issuer.clock"))
			})
		})
	}
}

// heading is an issuer whose responses have more in their header.
func heading(add func(http.Header)) *m2mauthtest.Issuer {
	issuer := m2mauthtest.NewIssuer()
	issuer.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			add(w.Header())
			next.ServeHTTP(w, r)
		})
	})
	return issuer
}

func TestACacheThatKeepsKeysForLongIsSaidSo(t *testing.T) {
	t.Parallel()
	for age, want := range map[string]string{"600": "pass: Cache-Control: ", "601": "warn: Cache-Control: "} {
		report := new(doctor.Report)
		issuer := heading(func(h http.Header) { h.Set("Age", age) })
		doctor.Issuer(t.Context(), m2mauth.Config{Issuer: issuer.URL(), HTTPClient: issuer.Client()}, report)
		require.Len(t, rows(report, "issuer.caching"), 1)
		assert.Contains(t, rows(report, "issuer.caching")[0], want)
	}
}

func TestANameThatDoesNotResolveIsSaidSo(t *testing.T) {
	t.Parallel()
	broken := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no resolver here") }
	dialer := &net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: broken}}
	report := new(doctor.Report)
	doctor.Issuer(t.Context(), m2mauth.Config{
		Issuer:     "https://login.shop.example/oidc",
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}},
	}, report)
	require.Len(t, rows(report, "issuer.name"), 1)
	assert.Contains(t, rows(report, "issuer.name")[0], "fail: the name login.shop.example does not resolve: ")
	assert.Equal(t, []string{"skip: not reached, since issuer.name failed"}, rows(report, "issuer.tls"))
}

func TestAProxyThatRefusesIsNamed(t *testing.T) {
	t.Parallel()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(proxy.Close)
	address, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	address.User = url.UserPassword("shop", "hidden")
	report := new(doctor.Report)
	doctor.Issuer(t.Context(), m2mauth.Config{
		Issuer:     "https://login.shop.example/oidc",
		HTTPClient: &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(address)}},
	}, report)
	got := rows(report, "issuer.connection")
	require.Len(t, got, 1)
	assert.Contains(t, got[0], "fail: no tunnel to login.shop.example through the proxy "+address.Host+": Forbidden")
	assert.NotContains(t, fmt.Sprint(report), "hidden")
}

// What goes on the wire is what docs/doctor.md says.
func TestNothingButTheIssuerIsAskedAndNothingIsSentToIt(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	var sent []string
	issuer.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			sent = append(sent, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization")+string(body)))
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			next.ServeHTTP(w, r)
		})
	})
	report := new(doctor.Report)
	found := doctor.Issuer(t.Context(), m2mauth.Config{Issuer: issuer.URL(), HTTPClient: issuer.Client()}, report)
	assert.False(t, report.Failed())
	assert.Equal(t, []string{
		"GET /oidc/.well-known/openid-configuration",
		"GET /oidc/jwks",
		"GET /oidc/jwks", // without compression
		"POST /oidc/token grant_type=client_credentials",
	}, sent)
	assert.Equal(t, issuer.TokenURL(), found.TokenEndpoint.String())
	assert.True(t, slices.ContainsFunc(found.Guard.Keys().Keys, func(k m2mauth.PublishedKey) bool { return k.Algorithm == "ES384" }))
}
