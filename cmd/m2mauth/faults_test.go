package main

import (
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/cmd/m2mauth/internal/doctor"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// authority is a private certificate authority, as a company has one.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string // for --ca-file
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := new(authority).sign(t, "Shop's own authority", time.Now().AddDate(2, 0, 0))
	a.file = filepath.Join(t.TempDir(), "authority.pem")
	require.NoError(t, os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600))
	return a
}

// below makes an authority that this one vouches for.
func (a *authority) below(t *testing.T, until time.Time) *authority {
	t.Helper()
	return a.sign(t, "Shop's issuing authority", until)
}

func (a *authority) sign(t *testing.T, name string, until time.Time) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: until.AddDate(-3, 0, 0), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{key: key, cert: cert}
}

// certificate issues one for a name and for the loopback address.
func (a *authority) certificate(t *testing.T, name string, until time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: until.AddDate(-1, 0, 0), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// listen serves https at localhost until the test ends, and returns the origin.
func listen(t *testing.T, cert tls.Certificate, handler func(origin string) http.Handler) (origin string) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail as they should
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	origin = "https://localhost:" + port
	server.Config.Handler = handler(origin)
	server.StartTLS()
	t.Cleanup(server.Close)
	return origin
}

// good answers as a Logto server at an origin. The kit's issuer in memory has another.
func good(origin string) http.Handler {
	issuer := m2mauthtest.NewIssuer()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		issuer.ServeHTTP(answer, r)
		for name, values := range answer.Header() {
			if name != "Content-Length" {
				w.Header()[name] = values
			}
		}
		w.WriteHeader(answer.Code)
		_, _ = io.WriteString(w, strings.ReplaceAll(answer.Body.String(), "https://issuer.test", origin))
	})
}

// at lets a handler answer the paths that contain one, and good the others.
func at(path string, answer func(w http.ResponseWriter, origin string, next http.Handler, r *http.Request)) func(string) http.Handler {
	return func(origin string) http.Handler {
		next := good(origin)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, path) {
				answer(w, origin, next, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// saying lets good answer with other words at a path. ORIGIN is the server's own.
func saying(path string, pairs ...string) func(string) http.Handler {
	return at(path, func(w http.ResponseWriter, origin string, next http.Handler, r *http.Request) {
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		var words []string
		for _, text := range pairs {
			words = append(words, strings.ReplaceAll(text, "ORIGIN", origin))
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = strings.NewReplacer(words...).WriteString(w, answer.Body.String())
	})
}

// serving answers a path with a fixed body.
func serving(path, contentType, body string) func(string) http.Handler {
	return at(path, func(w http.ResponseWriter, _ string, _ http.Handler, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, body)
	})
}

// compressing compresses what good answers, whatever the client asked for.
func compressing(path, coding string) func(string) http.Handler {
	return at(path, func(w http.ResponseWriter, _ string, next http.Handler, r *http.Request) {
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		if coding != "" {
			w.Header().Set("Content-Encoding", coding)
		}
		w.Header().Set("Content-Type", "application/json")
		z := gzip.NewWriter(w)
		_, _ = z.Write(answer.Body.Bytes())
		_ = z.Close()
	})
}

const (
	discoveryPath = "/.well-known/openid-configuration"
	wellKnown     = "/.well-known/" // where the guard looks for discovery documents
	everything    = ""
)

// fault is one that is seeded, and how doctor names it.
type fault struct {
	name   string
	issuer func(origin string) http.Handler
	cert   func(t *testing.T, a *authority) tls.Certificate // default: a valid one
	args   func(origin string) []string                     // default: the server's true issuer
	check  string
	status doctor.Status // default: fail
	beside bool          // the guard works all the same
	alone  bool          // not in parallel, since time is short
	detail string
	remedy []string // words of it
}

var issuerFaults = []fault{
	{
		name: "wrong path", args: issuerAt("/auth"), issuer: good,
		check: "issuer.discovery", detail: "status 404", remedy: []string{"set Issuer to https://localhost:", "/oidc"},
	},
	{
		name: "trailing slash", args: issuerAt("/oidc/"), issuer: good,
		check: "issuer.identity", detail: "/oidc, not of https://localhost:", remedy: []string{"trailing slash", "compared exactly"},
	},
	{
		name: "other domain", issuer: saying(discoveryPath, `"issuer":"ORIGIN/oidc"`, `"issuer":"https://login.shop.example/oidc"`),
		check: "issuer.identity", detail: "https://login.shop.example/oidc", remedy: []string{"another domain", "ENDPOINT"},
	},
	{
		name: "proxy loses the scheme", issuer: func(origin string) http.Handler {
			return saying(discoveryPath, origin, strings.Replace(origin, "https:", "http:", 1))(origin)
		},
		check: "issuer.identity", detail: "of issuer http://localhost:", remedy: []string{"X-Forwarded-Proto", "ENDPOINT", "TRUST_PROXY_HEADER"},
	},
	{
		name: "proxy loses the scheme of the endpoints", issuer: func(origin string) http.Handler {
			plain := strings.Replace(origin, "https:", "http:", 1)
			return saying(discoveryPath, `"jwks_uri":"`+origin, `"jwks_uri":"`+plain, `"token_endpoint":"`+origin, `"token_endpoint":"`+plain)(origin)
		},
		check: "issuer.token-endpoint", beside: true, detail: "is http", remedy: []string{"X-Forwarded-Proto", "TRUST_PROXY_HEADER"},
	},
	{
		name: "proxy loses the scheme of the key set", issuer: func(origin string) http.Handler {
			return saying(discoveryPath, `"jwks_uri":"`+origin, `"jwks_uri":"`+strings.Replace(origin, "https:", "http:", 1))(origin)
		},
		check: "issuer.keys-url", status: doctor.Warn, beside: true, detail: "the guard asks for it over https", remedy: []string{"X-Forwarded-Proto"},
	},
	{
		name: "http to the port of https", issuer: good,
		args: func(origin string) []string {
			return []string{"--issuer", strings.Replace(origin, "https:", "http:", 1) + "/oidc"}
		},
		check: "issuer.discovery", detail: "status 400, since it wants https", remedy: []string{"https://"},
	},
	{
		name: "expired certificate", issuer: good,
		cert: func(t *testing.T, a *authority) tls.Certificate {
			return a.certificate(t, "localhost", time.Now().AddDate(0, 0, -3))
		},
		check: "issuer.tls", detail: "expired on ", remedy: []string{"renew the issuer's certificate"},
	},
	{
		name: "expired certificate of the chain", issuer: good,
		cert: func(t *testing.T, a *authority) tls.Certificate {
			between := a.below(t, time.Now().AddDate(0, 0, -3))
			cert := between.certificate(t, "localhost", time.Now().AddDate(0, 3, 0))
			cert.Certificate = append(cert.Certificate, between.cert.Raw)
			return cert
		},
		check: "issuer.tls", detail: "the chain has a certificate, of Shop's issuing authority, that expired on ", remedy: []string{"renew the issuer's certificate"},
	},
	{
		name: "certificate not valid yet", issuer: good,
		cert: func(t *testing.T, a *authority) tls.Certificate {
			return a.certificate(t, "localhost", time.Now().AddDate(2, 0, 0))
		},
		check: "issuer.tls", detail: "the certificate is not valid before ", remedy: []string{"check the clock of this machine"},
	},
	{
		name: "certificate of another name", issuer: good,
		cert: func(t *testing.T, a *authority) tls.Certificate {
			return a.certificate(t, "login.shop.example", time.Now().AddDate(0, 3, 0))
		},
		check: "issuer.tls", detail: "is for login.shop.example, not for localhost", remedy: []string{"use the name that the certificate is for"},
	},
	{
		name: "unknown authority", issuer: good,
		cert: func(t *testing.T, _ *authority) tls.Certificate {
			return newAuthority(t).certificate(t, "localhost", time.Now().AddDate(0, 3, 0))
		},
		check: "issuer.tls", detail: "unknown authority", remedy: []string{"Config.HTTPClient", "--ca-file", "intermediate"},
	},
	{
		name: "certificate that ends soon", issuer: good,
		cert: func(t *testing.T, a *authority) tls.Certificate {
			return a.certificate(t, "localhost", time.Now().AddDate(0, 0, 3))
		},
		check: "issuer.tls", status: doctor.Warn, beside: true, detail: "in 2 days", remedy: []string{"renew"},
	},
	{
		name: "clock 10 minutes behind", issuer: atDate(10 * time.Minute),
		check: "issuer.clock", beside: true, detail: "behind the issuer's; Leeway is 30s", remedy: []string{"NTP", "not valid yet"},
	},
	{
		name: "clock 10 minutes ahead", issuer: atDate(-10 * time.Minute),
		check: "issuer.clock", beside: true, detail: "ahead of the issuer's; Leeway is 30s", remedy: []string{"NTP", "expired"},
	},
	{
		name: "gzip that nothing tells of", issuer: compressing(wellKnown, ""),
		check: "issuer.encoding", detail: "compressed by gzip, but no Content-Encoding", remedy: []string{"switch compression off"},
	},
	{
		name: "gzip of the keys that nothing tells of", issuer: compressing("/jwks", ""),
		check: "issuer.encoding", detail: "/oidc/jwks is compressed by gzip", remedy: []string{"switch compression off"},
	},
	{
		name: "gzip unasked", issuer: compressing("/jwks", "gzip"),
		check: "issuer.encoding", status: doctor.Warn, beside: true, detail: "even for clients that ask for no compression", remedy: []string{"Accept-Encoding"},
	},
	{
		name: "brotli unasked", issuer: compressing(discoveryPath, "br"),
		check: "issuer.encoding", detail: "content coding br", remedy: []string{"Accept-Encoding", "only gzip"},
	},
	{
		name: "empty key set", issuer: serving("/jwks", "application/json", `{"keys":[]}`),
		check: "issuer.keys", detail: "the key set is empty", remedy: []string{"signing key"},
	},
	{
		name: "use: enc only", issuer: saying("/jwks", `"use":"sig"`, `"use":"enc"`),
		check: "issuer.keys", detail: "for encryption alone (use: enc)", remedy: []string{"publish its signing keys", "use: sig"},
	},
	{
		name: "404 for the keys", issuer: at("/jwks", func(w http.ResponseWriter, _ string, _ http.Handler, r *http.Request) { http.NotFound(w, r) }),
		check: "issuer.keys", detail: "status 404", remedy: []string{"jwks_uri", "JWKSURL"},
	},
	{
		name: "404", issuer: func(string) http.Handler { return http.NotFoundHandler() },
		check: "issuer.discovery", detail: discoveryPath + " answers with status 404", remedy: []string{"correct the path of Issuer", "/oidc", "/realms/NAME"},
	},
	{
		name: "a document of 2 MiB", issuer: saying(discoveryPath, `{`, `{"pad":"`+strings.Repeat("x", 2<<20)+`",`),
		check: "issuer.discovery", detail: "larger than 1 MiB", remedy: []string{"JWKSURL"},
	},
	{
		name: "a key set of 2 MiB", issuer: saying("/jwks", `{`, `{"pad":"`+strings.Repeat("x", 2<<20)+`",`),
		check: "issuer.keys", detail: "larger than 1 MiB", remedy: []string{"keys that nobody needs"},
	},
	{
		name: "HTML", issuer: serving(everything, "text/html; charset=utf-8", "<!DOCTYPE html><html><title>Sign in</title></html>"),
		check: "issuer.discovery", detail: "a page for people (HTML)", remedy: []string{"a website's", "a login page"},
	},
	{
		name: "HTML for the keys", issuer: serving("/jwks", "text/html", "<html><title>Sign in</title></html>"),
		check: "issuer.keys", detail: "a page for people (HTML)", remedy: []string{"jwks_uri", "JWKSURL"},
	},
	{
		name: "a login before the issuer", issuer: at(everything, func(w http.ResponseWriter, _ string, _ http.Handler, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
		}),
		check: "issuer.discovery", detail: "status 403", remedy: []string{"without one"},
	},
	{
		name: "issuer down behind its proxy", issuer: at(everything, func(w http.ResponseWriter, _ string, _ http.Handler, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
		}),
		check: "issuer.discovery", detail: "status 502", remedy: []string{"a proxy before it"},
	},
	{
		name: "timeout", issuer: at(everything, func(_ http.ResponseWriter, _ string, _ http.Handler, r *http.Request) { <-r.Context().Done() }),
		args:  func(origin string) []string { return []string{"--issuer", origin + "/oidc", "--timeout", "1s"} },
		alone: true,
		check: "issuer.response", detail: "did not answer within 1s", remedy: []string{"hangs", "FetchTimeout", "--timeout"},
	},
	{
		name: "connection broken off", issuer: at(everything, func(http.ResponseWriter, string, http.Handler, *http.Request) { panic(http.ErrAbortHandler) }),
		check: "issuer.response", detail: "no response from localhost", remedy: []string{"closed the connection"},
	},
	{
		name: "response broken off", issuer: at(wellKnown, func(w http.ResponseWriter, _ string, _ http.Handler, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"issuer":`)
		}),
		check: "issuer.response", detail: "broke off: unexpected EOF", remedy: []string{"cuts responses off"},
	},
	{
		name: "nothing listens", issuer: good,
		args:  func(string) []string { return []string{"--issuer", "https://localhost:1/oidc"} },
		check: "issuer.connection", detail: "connection refused", remedy: []string{"port", "firewall", "JWKSURL"},
	},
	{
		name: "keys of another origin", issuer: saying(discoveryPath, `"jwks_uri":"ORIGIN`, `"jwks_uri":"https://keys.shop.example`),
		check: "issuer.keys-url", detail: "https://keys.shop.example/oidc/jwks, of another origin", remedy: []string{"set JWKSURL", "Host header"},
	},
	{
		name: "no jwks_uri", issuer: saying(discoveryPath, `"jwks_uri"`, `"jwks_url"`),
		check: "issuer.keys-url", detail: "no jwks_uri", remedy: []string{"set JWKSURL"},
	},
	{
		name: "redirect to another origin", issuer: at(discoveryPath, func(w http.ResponseWriter, _ string, _ http.Handler, r *http.Request) {
			http.Redirect(w, r, "https://login.shop.example/?token=hidden", http.StatusFound)
		}),
		check: "issuer.discovery", detail: "to https://login.shop.example/", remedy: []string{"another origin must not choose the keys"},
	},
	{
		name: "no token endpoint at its address", issuer: at("/token", func(w http.ResponseWriter, _ string, _ http.Handler, r *http.Request) { http.NotFound(w, r) }),
		check: "issuer.token-endpoint", beside: true, detail: "status 404", remedy: []string{"no token endpoint is there"},
	},
	{
		name: "token endpoint of another origin", issuer: saying(discoveryPath, `"token_endpoint":"ORIGIN`, `"token_endpoint":"https://evil.example`),
		check: "issuer.token-endpoint", status: doctor.Warn, beside: true, detail: "was not asked", remedy: []string{"--token-url"},
	},
	{
		name: "token endpoint of another port", issuer: saying(discoveryPath, `"token_endpoint":"ORIGIN`, `"token_endpoint":"https://localhost:1`),
		check: "issuer.token-endpoint", status: doctor.Warn, beside: true, detail: "was not asked", remedy: []string{"--token-url"},
	},
	{
		name: "settings that New refuses", issuer: good,
		args:  func(origin string) []string { return []string{"--issuer", origin + "/oidc/jwks"} },
		check: "issuer.settings", beside: true, detail: "must not be the token endpoint or the key set", remedy: []string{"docs/configuration.md"},
	},
}

func issuerAt(path string) func(string) []string {
	return func(origin string) []string { return []string{"--issuer", origin + path} }
}

// atDate answers with another time of day.
func atDate(off time.Duration) func(string) http.Handler {
	return at(everything, func(w http.ResponseWriter, _ string, next http.Handler, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
		next.ServeHTTP(w, r)
	})
}

// examine runs doctor, and returns its report and its exit status.
func examine(t *testing.T, args ...string) (status int, report doctor.Report) {
	t.Helper()
	status, stdout, stderr := call(t, "", nil, append([]string{"doctor", "--json"}, args...)...)
	require.Empty(t, stderr)
	require.NoError(t, json.Unmarshal([]byte(stdout), &report))
	require.NotEmpty(t, report.Checks)
	return status, report
}

// of returns the checks that ended with a status.
func of(r doctor.Report, s doctor.Status) (ids []string) {
	for _, c := range r.Checks {
		if c.Status == s {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func TestIssuerFaults(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for _, f := range issuerFaults {
		t.Run(f.name, func(t *testing.T) {
			if !f.alone {
				t.Parallel()
			}
			cert := ca.certificate(t, "localhost", time.Now().AddDate(0, 3, 0))
			if f.cert != nil {
				cert = f.cert(t, ca)
			}
			args := issuerAt("/oidc")
			if f.args != nil {
				args = f.args
			}
			status, report := examine(t, append(args(listen(t, cert, f.issuer)), "--ca-file", ca.file)...)

			want, failed := f.status, []string{f.check, "issuer.guard"}
			if want == "" {
				want = doctor.Fail
			}
			switch {
			case want == doctor.Warn:
				failed = nil
				assert.Equal(t, []string{f.check}, of(report, doctor.Warn))
			case f.beside:
				failed = []string{f.check}
			}
			assert.Equal(t, failed, of(report, doctor.Fail))
			assert.Equal(t, min(1, len(failed)), status)
			for _, c := range report.Checks {
				if c.ID != f.check || c.Status != want {
					continue
				}
				t.Logf("| %s | %s | %s | %s | %s |", f.name, c.Status, c.ID, c.Detail, c.Remedy)
				assert.Contains(t, c.Detail, f.detail)
				for _, words := range f.remedy {
					assert.Contains(t, c.Remedy, words)
				}
			}
			assert.NotContains(t, fmt.Sprint(report), "hidden")
		})
	}
}

func TestAGoodIssuerPassesEveryCheck(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	origin := listen(t, ca.certificate(t, "localhost", time.Now().AddDate(0, 3, 0)), good)
	status, report := examine(t, "--issuer", origin+"/oidc", "--ca-file", ca.file)
	assert.Zero(t, status)
	for _, c := range report.Checks {
		assert.Equal(t, doctor.Pass, c.Status, "%s: %s", c.ID, c.Detail)
		t.Logf("%s %s: %s", c.Status, c.ID, c.Detail)
	}
	assert.Len(t, report.Checks, 15)
}
