//go:build unix

package gateway

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/m2mauth/m2mauth/e2e/internal/process"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const app = "w6z5pxrjv1vl8vk2vy9qk"

var identityFields = []string{"X-Auth-Issuer", "X-Auth-Subject", "X-Auth-Client", "X-Auth-App", "X-Auth-Organization", "X-Auth-Scopes", "X-Auth-Decision"}

var nobody = []string{"", "", "", "", "", "", "public"}

// caller is what the API is told of one whose token satisfies the row.
func (s *stack) caller(subject, client, app, scopes string) []string {
	return []string{s.issuer.URL(), subject, client, app, "", scopes, "allowed"}
}

// claimed returns what a request tells the API of its caller.
func claimed(r seen) (values []string) {
	for _, name := range identityFields {
		values = append(values, strings.Join(r.header.Values(name), "|"))
	}
	return values
}

func TestNginx(t *testing.T) {
	s := newStack(t)
	sign := func(token m2mauthtest.Token) string {
		token.Audience = audience
		return "Authorization: Bearer " + s.issuer.Sign(token)
	}
	reader := sign(m2mauthtest.Token{AppID: app, Scopes: []string{"read:products", "read:orders"}})
	isReader := s.caller(app, app, app, "read:products read:orders")

	t.Run("requests that are let through reach the API as they were sent", func(t *testing.T) {
		for _, test := range []struct {
			method, target string
			fields         []string
			caller         []string
		}{
			{"GET", "/healthz", nil, nobody},
			{"GET", "/healthz", []string{"Authorization: Bearer rubbish"}, nobody},
			{"GET", "/healthz", []string{reader}, nobody},
			{"HEAD", "/healthz", nil, nobody},
			{"GET", "/products", []string{reader}, isReader},
			{"HEAD", "/products", []string{reader}, isReader},
			{"GET", "/products?q=a%2fb&r=..//", []string{reader}, isReader},
			{"GET", "/products/a%40b", []string{reader}, isReader},
			{"GET", "/files/caf%c3%a9%20x", []string{sign(m2mauthtest.Token{AppID: app, Scopes: []string{"read:files"}})}, s.caller(app, app, app, "read:files")},
			{"GET", "/files/a/b.txt", []string{sign(m2mauthtest.Token{AppID: app, Scopes: []string{"read:files"}})}, s.caller(app, app, app, "read:files")},
			{"GET", "/whoami", []string{sign(m2mauthtest.Token{AppID: app, Claims: map[string]any{"sub": "user"}})}, s.caller("user", app, "", "")},
			{"GET", "/whoami", []string{sign(m2mauthtest.Token{AppID: app, Claims: map[string]any{"sub": "a\r\nX-Auth-Scopes: all $auth_app"}})},
				s.caller("a%0D%0AX-Auth-Scopes:%20all%20$auth_app", app, "", "")},
		} {
			name := test.method + " " + test.target
			resp, body := s.send(t, test.method, test.target, test.fields...)
			require.Equal(t, 200, resp.StatusCode, "%s: %s", name, body)
			assert.Equal(t, "yes", resp.Header.Get("X-Api"))
			got := s.api.take()
			require.Len(t, got, 1, name)
			assert.Equal(t, test.method, got[0].method)
			assert.Equal(t, test.target, got[0].target, "the API sees the path that the gateway decided about")
			assert.Equal(t, test.caller, claimed(got[0]), name)
			assert.Empty(t, got[0].header.Values("Authorization"))
			asked := s.asked.take()
			require.Len(t, asked, 1)
			assert.Equal(t, []string{test.method}, asked[0].header["X-Original-Method"])
			assert.Equal(t, []string{test.target}, asked[0].header["X-Original-Uri"])
			assert.Equal(t, []string{"127.0.0.1"}, asked[0].header["X-Real-Ip"])
		}
	})

	t.Run("a token of nearly 8 KiB and identity fields of as much", func(t *testing.T) {
		var scopes []string
		for len(strings.Join(scopes, " ")) < 5300 {
			scopes = append(scopes, "read:some-resource-with-a-long-name")
		}
		resp, body := s.send(t, "GET", "/whoami", sign(m2mauthtest.Token{AppID: app, Scopes: scopes}))
		require.Equal(t, 200, resp.StatusCode, body)
		got := s.api.take()
		require.Len(t, got, 1)
		assert.Equal(t, strings.Join(scopes, " "), claimed(got[0])[5])
		resp, body = s.send(t, "GET", "/whoami", "Authorization: Bearer "+strings.Repeat("x", 9000))
		assert.Equal(t, 400, resp.StatusCode)
		assert.Contains(t, body, "longer than 8 KiB")
	})

	t.Run("identity fields of the caller do not reach the API", func(t *testing.T) {
		for _, forged := range []string{
			"X-Auth-Subject: root", "x-auth-subject: root", "X-AUTH-SCOPES: all", "X-Auth-Client: root", "X-Auth-App: root", "X-Auth-Scopes: all", "X-Auth-Decision: root", "X_Auth_Decision: root", "X-Auth-Issuer: root", "x-auth-organization: root",
			"X_Auth_Subject: root", "X-Auth_Subject: root", "x_auth-scopes: all", "X.Auth.Subject: root",
			"X-Auth-Subject: root\r\nX-Auth-Subject: root", "X-Auth-Subject:\r\nX_Auth_Subject: root",
			"Connection: X-Auth-Subject", "Connection: close, X-Auth-App, X-Auth-Scopes",
		} {
			for target, caller := range map[string][]string{"/healthz": nobody, "/products": isReader} {
				resp, body := s.send(t, "GET", target, reader, forged)
				require.Equal(t, 200, resp.StatusCode, "%s: %s", forged, body)
				got := s.api.take()
				require.Len(t, got, 1)
				assert.Equal(t, caller, claimed(got[0]), forged)
				for name, values := range got[0].header {
					assert.NotContains(t, strings.Join(values, ""), "root", name)
					assert.NotContains(t, name, "_", forged)
				}
				assert.Empty(t, got[0].header["Connection"], forged)
			}
		}
	})

	t.Run("fields that would make another request of it for some do not reach the API", func(t *testing.T) {
		for _, field := range []string{"SCRIPT_NAME", "PATH_INFO", "X_Script_Name", "X_Forwarded_Prefix", "X_HTTP_Method_Override", "X.Original.URL"} {
			resp, body := s.send(t, "GET", "/healthz", field+": /healthz")
			require.Equal(t, 200, resp.StatusCode, "%s: %s", field, body)
			got := s.api.take()
			require.Len(t, got, 1)
			assert.NotContains(t, got[0].header, http.CanonicalHeaderKey(field))
		}
	})

	t.Run("fields that tell of the original request are nginx's alone", func(t *testing.T) {
		s.asked.take()
		resp, _ := s.send(t, "GET", "/products", "X-Original-URI: /healthz", "X-Original-Method: GET",
			"X-Forwarded-Uri: /healthz", "X-Forwarded-Method: GET", "X_Original_Uri: /healthz", "X-Real-IP: 203.0.113.7")
		assert.Equal(t, 401, resp.StatusCode)
		asked := s.asked.take()
		require.Len(t, asked, 1)
		assert.Equal(t, []string{"/products"}, asked[0].header["X-Original-Uri"])
		assert.Equal(t, []string{"127.0.0.1"}, asked[0].header["X-Real-Ip"])
		for name := range asked[0].header {
			assert.NotContains(t, []string{"X-Forwarded-Uri", "X-Forwarded-Method"}, name)
		}
		resp, _ = s.send(t, "GET", "/healthz", "X-Original-URI: /a", "X-Forwarded-Uri: /b", "X-Original-Method: PUT", "X-Forwarded-Method: PUT")
		assert.Equal(t, 200, resp.StatusCode)
		got := s.api.take()
		require.Len(t, got, 1)
		for name := range got[0].header {
			assert.NotContains(t, []string{"X-Forwarded-Uri", "X-Forwarded-Method", "X-Original-Uri", "X-Original-Method"}, name)
		}
	})

	t.Run("the API is told the caller's address by nginx alone", func(t *testing.T) {
		for _, forged := range [][]string{
			nil,
			{"X-Real-IP: 203.0.113.7"},
			{"X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 203.0.113.8"},
			{"Forwarded: for=203.0.113.7;proto=https", "forwarded: for=203.0.113.8"},
		} {
			resp, body := s.send(t, "GET", "/healthz", forged...)
			require.Equal(t, 200, resp.StatusCode, "%s: %s", forged, body)
			got := s.api.take()
			require.Len(t, got, 1)
			assert.Equal(t, []string{"127.0.0.1"}, got[0].header["X-Real-Ip"], forged)
			assert.Equal(t, []string{"127.0.0.1"}, got[0].header["X-Forwarded-For"], forged)
			assert.NotContains(t, got[0].header, "Forwarded", forged)
		}
	})

	t.Run("what could be read in two ways is refused", func(t *testing.T) {
		for _, target := range []string{
			"//products", "/healthz//", "/healthz//products", "/./healthz", "/healthz/../products", "/products/../healthz", "/..", "/../healthz",
			"/healthz/%2e%2e/products", "/healthz/.%2e/products", "/products/%2E", "/healthz%2fproducts", "/healthz/..%2fproducts", "/healthz%2F..%2Fproducts",
			"/%68ealthz", "/%70roducts", "/healthz;", "/healthz/..;/products", "/healthz;a=b/products", "/healthz%3b", `/healthz\..\products`,
			"/healthz%5c..%5cproducts", "/healthz%00", "/healthz%0a", "/healthz%0d%0aX-Auth-Subject:%20root", "/healthz%252e", "/healthz%3f", "/healthz%23",
			"/healthz#/products", "/products#/healthz", "/healthz.", "/healthz%20", "/healthz/%c0%ae%c0%ae/products", "/healthz/%u002e", "/healthz%", "/healthz/é",
			"/products/Export", "/products/export.json", "/products/EXPORT", "/products/%c3%a9xport", "/products/{id}", `/products/"`,
			"/products /healthz", "/products\t", "/products\x00", "*", "products",
		} {
			for _, method := range []string{"GET", "POST"} {
				resp, body := s.send(t, method, target, s.bearer("read:products", "write:products"))
				want := []int{400}
				if almost := strings.HasPrefix(strings.ToLower(target), "/products/e") || strings.HasPrefix(target, "/products/%c3"); almost && method == "POST" {
					want = []int{403} // that row is for GET
				}
				assert.Contains(t, want, resp.StatusCode, "%s %q: %s", method, target, body)
			}
		}
		assert.Empty(t, s.api.take(), "the API has seen one")
	})

	t.Run("absolute form is decided about by its path", func(t *testing.T) {
		resp, _ := s.send(t, "GET", "http://api.example.com/products")
		assert.Equal(t, 401, resp.StatusCode)
		resp, _ = s.send(t, "GET", "http://api.example.com/products", reader)
		assert.Equal(t, 200, resp.StatusCode)
		got := s.api.take()
		require.Len(t, got, 1)
		assert.Equal(t, "/products", got[0].target)
	})

	// Probes of some load balancers send neither HTTP/1.1 nor a Host.
	t.Run("HTTP/1.0 without a Host", func(t *testing.T) {
		for line, status := range map[string]int{"GET /healthz": 200, "HEAD /healthz": 200, "GET /products": 401} {
			conn, err := net.Dial("tcp", s.addr)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(timeout)))
			_, err = io.WriteString(conn, line+" HTTP/1.0\r\n\r\n")
			require.NoError(t, err)
			method, _, _ := strings.Cut(line, " ")
			resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
			require.NoError(t, err)
			assert.Equal(t, status, resp.StatusCode, line)
		}
		assert.Len(t, s.api.take(), 2)
	})

	t.Run("refusals have the guard's status, challenge and body", func(t *testing.T) {
		const realm = `Bearer realm="https://shopping.api"`
		for _, test := range []struct {
			name, method, target string
			fields               []string
			status               int
			challenge, code      string
		}{
			{"no token", "GET", "/products", nil, 401, realm, "unauthorized"},
			{"another scheme", "GET", "/products", []string{"Authorization: Basic YTpi"}, 401, realm, "unauthorized"},
			{"bad token", "GET", "/products", []string{reader + "x"}, 401, realm + `, error="invalid_token"`, "invalid_token"},
			{"expired", "GET", "/products", []string{sign(m2mauthtest.Token{Expired: true})}, 401, realm + `, error="invalid_token"`, "invalid_token"},
			{"scope missing", "POST", "/products", []string{reader}, 403, `scope="write:products"`, "insufficient_scope"},
			{"no row, no token", "GET", "/nothing", nil, 401, realm, "unauthorized"},
			{"no row", "GET", "/nothing", []string{reader}, 403, `error="insufficient_scope"`, "insufficient_scope"},
			{"another letter case", "GET", "/Products", []string{reader}, 403, `error="insufficient_scope"`, "insufficient_scope"},
			{"the gateway's own location", "GET", "/nginx", []string{reader}, 403, `error="insufficient_scope"`, "insufficient_scope"},
			{"OPTIONS has no row", "OPTIONS", "/products", []string{reader}, 403, `error="insufficient_scope"`, "insufficient_scope"},
			{"OPTIONS without a token", "OPTIONS", "/products", nil, 401, realm, "unauthorized"},
			{"HEAD without a token", "HEAD", "/products", nil, 401, realm, ""},
			{"HEAD with too few scopes", "HEAD", "/products/export", []string{reader}, 403, `scope="read:products export:products"`, ""},
			{"malformed credentials", "GET", "/products", []string{"Authorization: Bearer"}, 400, `error="invalid_request"`, "invalid_request"},
			{"another method for some", "GET", "/products", []string{reader, "X-HTTP-Method-Override: DELETE"}, 400, "", "invalid_request"},
			{"another path for some", "GET", "/healthz", []string{"X-Original-URL: /products"}, 400, "", "invalid_request"},
			{"another path for others", "GET", "/healthz", []string{"X-Rewrite-URL: /products"}, 400, "", "invalid_request"},
			{"another place in the API for WSGI", "GET", "/healthz", []string{"Script-Name: /healthz"}, 400, "", "invalid_request"},
			{"another path for CGI", "GET", "/healthz", []string{"Path-Info: /products"}, 400, "", "invalid_request"},
			{"a prefix that some cut off", "GET", "/healthz", []string{"X-Script-Name: /healthz"}, 400, "", "invalid_request"},
			{"a prefix that others cut off", "GET", "/healthz", []string{"X-Forwarded-Prefix: /healthz"}, 400, "", "invalid_request"},
			{"a field that the gateway cannot read", "GET", "/products", []string{reader, "X-Odd: a\x01b"}, 400, "", "invalid_request"},
		} {
			resp, body := s.send(t, test.method, test.target, test.fields...)
			assert.Equal(t, test.status, resp.StatusCode, "%s: %s", test.name, body)
			challenges := resp.Header.Values("WWW-Authenticate")
			if test.challenge == "" {
				assert.Empty(t, challenges, test.name)
			} else if assert.Len(t, challenges, 1, test.name) {
				assert.Contains(t, challenges[0], test.challenge, test.name)
			}
			assert.Equal(t, []string{"no-store"}, resp.Header.Values("Cache-Control"), test.name)
			assert.Empty(t, resp.Header.Values("Retry-After"), test.name)
			assert.Equal(t, "application/json", resp.Header.Get("Content-Type"), test.name)
			if test.method == "HEAD" {
				assert.Empty(t, body)
			} else {
				assert.Contains(t, body, `{"error":"`+test.code+`","error_description":"`, test.name)
			}
		}
		resp, _ := s.send(t, "GET", "/_gateway", reader)
		assert.Equal(t, 404, resp.StatusCode, "the location that asks is not for callers")
		assert.Empty(t, s.api.take(), "the API has seen one")
	})

	// nginx before 1.23 uses the first of two Authorization fields in some places.
	t.Run("two tokens are refused", func(t *testing.T) {
		for _, fields := range [][]string{{reader, reader}, {"Authorization: Bearer x", reader}, {reader, "authorization: Basic YTpi"}} {
			resp, _ := s.send(t, "GET", "/products", fields...)
			assert.Equal(t, 400, resp.StatusCode)
		}
		assert.Empty(t, s.api.take())
	})

	t.Run("the API's own answers are left alone", func(t *testing.T) {
		for _, status := range []string{"401", "403", "500", "503"} {
			resp, body := s.send(t, "GET", "/products?status="+status, reader)
			assert.Equal(t, status, resp.Status[:3])
			assert.Equal(t, "the API's own answer\n", body)
			assert.Equal(t, []string{"Api"}, resp.Header.Values("WWW-Authenticate"))
		}
		s.api.take()
	})

	t.Run("bodies go to the API and not to the gateway, on one connection", func(t *testing.T) {
		s.asked.take()
		conn, err := net.Dial("tcp", s.addr)
		require.NoError(t, err)
		defer conn.Close()
		in := bufio.NewReader(conn)
		writer := s.bearer("write:products")
		large := strings.Repeat("0123456789", 40_000)
		for _, step := range []struct {
			method, target, body string
			fields               []string
			status               int
		}{
			{"POST", "/products", `{"name":"Teapot"}`, []string{writer}, 200},
			{"POST", "/products", `{"name":"Teapot"}`, nil, 401},
			{"GET", "/healthz", "", nil, 200},
			{"POST", "/products", large, []string{reader}, 403},
			{"POST", "/products", large, []string{writer}, 200},
			{"POST", "/products", "5\r\nhello\r\n0\r\n\r\n", []string{writer, "Transfer-Encoding: chunked"}, 200},
			{"GET", "/products", "", []string{reader}, 200},
			// The last: to nginx this is a 500 of its own, after which it closes.
			{"POST", "/products;x", `{"name":"Teapot"}`, []string{writer}, 400},
		} {
			body, fields := step.body, step.fields
			if len(fields) == 2 { // chunked: without a length
				_, err := io.WriteString(conn, "POST "+step.target+" HTTP/1.1\r\nHost: a\r\n"+strings.Join(fields, "\r\n")+"\r\n\r\n"+body)
				require.NoError(t, err)
				resp, err := http.ReadResponse(in, nil)
				require.NoError(t, err)
				_, err = io.ReadAll(resp.Body)
				require.NoError(t, err)
				assert.Equal(t, step.status, resp.StatusCode)
				body = "hello"
			} else {
				resp, answer := exchange(t, conn, in, step.method, step.target, body, fields...)
				require.Equal(t, step.status, resp.StatusCode, answer)
			}
			asked := s.asked.take()
			require.Len(t, asked, 1)
			assert.Equal(t, "GET", asked[0].method)
			assert.Empty(t, asked[0].body)
			assert.Empty(t, asked[0].header.Values("Content-Length"))
			got := s.api.take()
			if step.status != 200 {
				assert.Empty(t, got)
			} else if assert.Len(t, got, 1) {
				assert.Equal(t, body, got[0].body)
			}
		}
	})
}

func TestNginxWhenTheIssuerIsDown(t *testing.T) {
	nginxPath(t)
	issuer := newIssuer(t)
	issuer.Intercept(func(http.Handler) http.Handler { // from the start: the gateway fetches keys at once
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	})
	s := newStackFor(t, issuer, (*stack).behind)
	resp, body := s.send(t, "GET", "/products", s.bearer("read:products"))
	assert.Equal(t, 503, resp.StatusCode)
	assert.Contains(t, body, `"error":"temporarily_unavailable"`)
	assert.Len(t, resp.Header.Values("Retry-After"), 1)
	assert.Empty(t, resp.Header.Values("WWW-Authenticate"))
	assert.Empty(t, s.api.take())
	resp, _ = s.send(t, "GET", "/healthz")
	assert.Equal(t, 200, resp.StatusCode, "what is public needs no keys")
}

// What a gateway can answer that the real one cannot easily be brought to.
func TestNginxWithAnyAnswerOfTheGateway(t *testing.T) {
	nginxPath(t)
	var answer atomic.Value // of func(http.ResponseWriter)
	gate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer.Load().(func(http.ResponseWriter))(w) }))
	t.Cleanup(gate.Close)
	s := new(stack)
	s.behind(t, gate.Listener.Addr().String())

	refuse := func(status int, fields ...string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			for i := 0; i < len(fields); i += 2 {
				w.Header().Set(fields[i], fields[i+1])
			}
			w.WriteHeader(status)
			io.WriteString(w, "not what the caller gets")
		}
	}
	const sent, unavailable = `{"error":"sent"}`, `"error":"temporarily_unavailable"`
	for _, test := range []struct {
		name       string
		answer     func(http.ResponseWriter)
		status     int
		retryAfter string
		body       string
	}{
		{"429", refuse(429, "Retry-After", "7", "X-Auth-Body", sent), 429, "7", sent},
		{"503", refuse(503, "Retry-After", "9", "X-Auth-Body", sent), 503, "9", sent},
		{"500", refuse(500, "X-Auth-Body", sent), 500, "", sent},
		{"400 without our body", refuse(400), 400, "", `"error":"invalid_request"`},
		{"404: the wrong service answers", refuse(404), 503, "5", unavailable},
		{"a redirect", refuse(302, "Location", "https://elsewhere.example.com"), 503, "5", unavailable},
		{"the connection breaks", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, 503, "5", unavailable},
	} {
		answer.Store(test.answer)
		resp, body := s.send(t, "GET", "/products")
		assert.Equal(t, test.status, resp.StatusCode, test.name)
		assert.Equal(t, test.retryAfter, strings.Join(resp.Header.Values("Retry-After"), "|"), test.name)
		assert.Contains(t, body, test.body, test.name)
		assert.Empty(t, resp.Header.Get("Location"), test.name)
		assert.Empty(t, s.api.take(), test.name)
	}
	gate.Close()
	resp, body := s.send(t, "GET", "/healthz")
	assert.Equal(t, 503, resp.StatusCode, "nothing is let through while the gateway is down")
	assert.Equal(t, "5", resp.Header.Get("Retry-After"))
	assert.Contains(t, body, unavailable)
	assert.Empty(t, s.api.take())
}

// The price of the gate is told and not judged: it is that of this machine, on
// which the callers, nginx, the gateway and the API share the processors.
func TestThroughputWithAndWithoutTheGate(t *testing.T) {
	nginxPath(t)
	if testing.Short() {
		process.Skip(t, "a measurement, left out by -short")
	}
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the API") }))
	t.Cleanup(api.Close)

	addresses := process.FreeAddresses(t, 2)
	gated, open := addresses[0], addresses[1]
	config := configuration(t, gated, startGateway(t, issuer.URL()), api.Listener.Addr().String())
	startNginx(t, config, gated)
	require.Contains(t, config, "auth_request /_gateway;")
	without := strings.Replace(config, "auth_request /_gateway;", "", 1)
	startNginx(t, strings.Replace(without, gated, open, 1), open)

	token := "Bearer " + issuer.Token(audience, "read:products")
	const callers, requests, rounds = 16, 4000, 3
	measure := func(addr string) float64 {
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
		defer client.CloseIdleConnections()
		begin := time.Now()
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range requests / callers {
					r, _ := http.NewRequest("GET", "http://"+addr+"/products", nil)
					r.Header.Set("Authorization", token)
					resp, err := client.Do(r)
					if !assert.NoError(t, err) {
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is kept
					resp.Body.Close()
					assert.Equal(t, 200, resp.StatusCode)
				}
			})
		}
		wg.Wait()
		return requests / time.Since(begin).Seconds()
	}
	measure(open)
	measure(gated)
	var best [2]float64
	for range rounds { // in turn, so that what else the machine does hits both
		best[0] = max(best[0], measure(open))
		best[1] = max(best[1], measure(gated))
	}
	t.Logf("requests per second, the best of %d rounds: %.0f without the gate, %.0f with it; ratio %.2f", rounds, best[0], best[1], best[1]/best[0])
}

func TestNginxReportsOnly(t *testing.T) {
	nginxPath(t) // before anything is built
	newStackOf(t, (*stack).behind, reportOnly()).reportsOnly(t)
}
