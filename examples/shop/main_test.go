package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const audience = "https://shopping.api"

func newShop(t *testing.T, issuer *m2mauthtest.Issuer) http.Handler {
	t.Helper()
	guard, err := m2mauth.New(issuer.Config(audience))
	require.NoError(t, err)
	return routes(guard)
}

// ask sends a request with these Authorization fields.
func ask(shop http.Handler, method, path string, authorization ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for _, field := range authorization {
		r.Header.Add("Authorization", field)
	}
	w := httptest.NewRecorder()
	shop.ServeHTTP(w, r)
	return w
}

func TestContract(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	shop := newShop(t, issuer)
	const app = "w6z5pxrjv1vl8vk2vy9qk"
	bearer := func(scopes ...string) []string {
		return []string{"Bearer " + issuer.Sign(m2mauthtest.Token{AppID: app, Audience: audience, Scopes: scopes})}
	}
	user := []string{"Bearer " + issuer.Sign(m2mauthtest.Token{
		AppID: app, Audience: audience, Scopes: []string{"read:products"}, Claims: map[string]any{"sub": "u1s2e3r4i5d6"},
	})}
	const products = `[{"id":1,"name":"Coffee grinder"},{"id":2,"name":"Kettle"}]`

	for _, test := range []struct {
		name          string
		method, path  string
		authorization []string
		status        int
		body          string // JSON; "" = not looked at
	}{
		{"healthz is public", "GET", "/healthz", nil, 200, `{"status":"ok"}`},
		{"healthz does not look at tokens", "GET", "/healthz", []string{"Bearer rubbish"}, 200, `{"status":"ok"}`},
		{"read:products lists", "GET", "/products", bearer("read:products"), 200, products},
		{"one scope of several is enough", "GET", "/products", bearer("write:products", "read:products"), 200, products},
		{"HEAD follows GET", "HEAD", "/products", bearer("read:products"), 200, ""},
		{"HEAD needs the scope of GET", "HEAD", "/products", bearer("write:products"), 403, ""},
		{"write:products creates", "POST", "/products", bearer("write:products"), 201, `{"id":3,"name":"Teapot"}`},
		{"read:products does not create", "POST", "/products", bearer("read:products"), 403, ""},
		{"write:products does not list", "GET", "/products", bearer("write:products"), 403, ""},
		{"a token without scopes does not list", "GET", "/products", bearer(), 403, ""},
		{"no token", "GET", "/products", nil, 401, ""},
		{"no token for whoami", "GET", "/whoami", nil, 401, ""},
		{"another scheme", "GET", "/products", []string{"Basic YTpi"}, 401, ""},
		{"rubbish for a token", "GET", "/products", []string{"Bearer rubbish"}, 401, ""},
		{"another API's token", "GET", "/products", []string{"Bearer " + issuer.Token("https://billing.api", "read:products")}, 401, ""},
		{"two Authorization fields", "GET", "/products", append(bearer("read:products"), "Basic YTpi"), 400, ""},
		{"Bearer without a token", "GET", "/products", []string{"Bearer"}, 400, ""},
		{"a method that no route has", "DELETE", "/products", bearer("read:products", "write:products"), 405, ""},
		{"a path that no route has", "GET", "/nothing", bearer("read:products"), 404, ""},
		{"whoami of an app", "GET", "/whoami", bearer("write:products", "read:products"), 200,
			`{"app_id":"` + app + `","client_id":"` + app + `","scopes":["write:products","read:products"]}`},
		{"whoami of an app without scopes has an empty array", "GET", "/whoami", bearer(), 200,
			`{"app_id":"` + app + `","client_id":"` + app + `","scopes":[]}`},
		{"whoami of a user has no app_id", "GET", "/whoami", user, 200,
			`{"app_id":"","client_id":"` + app + `","scopes":["read:products"]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := ask(shop, test.method, test.path, test.authorization...)
			assert.Equal(t, test.status, w.Code)
			if test.body != "" {
				assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
				assert.JSONEq(t, test.body, w.Body.String())
			}
		})
	}
}

func TestRefusalsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	shop := newShop(t, issuer)
	reader := "Bearer " + issuer.Token(audience, "read:products")

	for _, test := range []struct {
		name          string
		authorization []string
		status        int
		challenge     []string // parts of it
		code          string
	}{
		{"no token", nil, 401, []string{`Bearer realm="https://shopping.api"`}, "unauthorized"},
		{"two fields", []string{reader, reader}, 400, []string{`error="invalid_request"`}, "invalid_request"},
		{"bad token", []string{reader + "x"}, 401, []string{`error="invalid_token"`}, "invalid_token"},
		{"scope missing", []string{reader}, 403, []string{`error="insufficient_scope"`, `scope="write:products"`}, "insufficient_scope"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := ask(shop, "POST", "/products", test.authorization...)
			assert.Equal(t, test.status, w.Code)
			for _, part := range test.challenge {
				assert.Contains(t, w.Header().Get("WWW-Authenticate"), part)
			}
			assert.Contains(t, w.Body.String(), `"error":"`+test.code+`"`)
			assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		})
	}
}

func TestAnIssuerThatIsDownIs503AndLeavesPublicRoutesAlone(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	issuer.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	})
	shop := newShop(t, issuer)

	w := ask(shop, "GET", "/products", "Bearer "+issuer.Token(audience, "read:products"))
	assert.Equal(t, 503, w.Code)
	assert.NotEmpty(t, w.Header().Get("Retry-After"))
	assert.Empty(t, w.Header().Get("WWW-Authenticate"), "a challenge would make the caller fetch another token")
	assert.Contains(t, w.Body.String(), `"error":"temporarily_unavailable"`)
	assert.Equal(t, 200, ask(shop, "GET", "/healthz").Code)
}

func TestMistakesInTheEnvironmentAreNamedOneALine(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { busy.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // so that a mistake that is not found ends run, and fails the test

	for _, test := range []struct {
		name  string
		env   map[string]string
		lines []string // the error has a line with each of these, and no others
	}{
		{"nothing is set", nil, []string{"Issuer", "Audience"}},
		{"issuer over http", map[string]string{"ISSUER": "http://logto:3001/oidc", "AUDIENCE": audience}, []string{"Issuer"}},
		{"another host is allowed", map[string]string{
			"ISSUER": "http://logto:3001/oidc", "AUDIENCE": audience, "PLAIN_HTTP_HOSTS": "other",
		}, []string{"Issuer"}},
		{"key set over ftp", map[string]string{
			"ISSUER": "https://issuer.test/oidc", "AUDIENCE": audience, "JWKS_URL": "ftp://issuer.test/jwks",
		}, []string{"JWKSURL"}},
		{"address in use", map[string]string{
			"ISSUER": "https://issuer.test/oidc", "AUDIENCE": audience, "ADDR": busy.Addr().String(),
		}, []string{busy.Addr().String()}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := run(ctx, func(name string) string { return test.env[name] })
			require.Error(t, err)
			assert.Len(t, strings.Split(err.Error(), "\n"), len(test.lines), "%v", err)
			for _, part := range test.lines {
				assert.ErrorContains(t, err, part)
			}
		})
	}
}

func TestPlainHTTPHostsMayHaveBlanksAndEmptyParts(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // so that run stops as soon as it has started
	env := map[string]string{
		"ISSUER": "http://logto:3001/oidc", "AUDIENCE": audience, "JWKS_URL": "http://keys/oidc/jwks",
		"PLAIN_HTTP_HOSTS": " logto , ,keys,", "ADDR": "127.0.0.1:0",
	}
	assert.NoError(t, run(ctx, func(name string) string { return env[name] }))
}
