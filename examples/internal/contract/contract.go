// Package contract has the test that every example server passes, so that the
// same requests have the same answers whatever the framework.
package contract

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const (
	audience = "https://shopping.api"
	app      = "w6z5pxrjv1vl8vk2vy9qk"
)

// Test tests the routes of an example server.
func Test(t *testing.T, routes func(*m2mauth.Guard) http.Handler) {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config(audience))
	require.NoError(t, err)
	server := routes(guard)
	bearer := func(scopes ...string) string {
		return "Bearer " + issuer.Sign(m2mauthtest.Token{AppID: app, Audience: audience, Scopes: scopes})
	}
	user := "Bearer " + issuer.Sign(m2mauthtest.Token{
		AppID: app, Audience: audience, Scopes: []string{"read:products"}, Claims: map[string]any{"sub": "u1s2e3r4i5d6"},
	})

	for _, test := range []struct {
		name          string
		method, path  string
		authorization string
		status        int
		body          string // JSON; "" = not looked at
	}{
		{"healthz is public", "GET", "/healthz", "", 200, `{"status":"ok"}`},
		{"read:products lists", "GET", "/products", bearer("read:products"), 200,
			`[{"id":1,"name":"Coffee grinder"},{"id":2,"name":"Kettle"}]`},
		{"write:products creates", "POST", "/products", bearer("write:products"), 201, `{"id":3,"name":"Teapot"}`},
		{"read:products does not create", "POST", "/products", bearer("read:products"), 403, ""},
		{"write:products does not list", "GET", "/products", bearer("write:products"), 403, ""},
		{"no token lists nothing", "GET", "/products", "", 401, ""},
		{"no token creates nothing", "POST", "/products", "", 401, ""},
		{"rubbish for a token", "GET", "/products", "Bearer rubbish", 401, ""},
		{"Bearer without a token", "GET", "/products", "Bearer", 400, ""},
		{"no token for whoami", "GET", "/whoami", "", 401, ""},
		{"whoami of an app", "GET", "/whoami", bearer("write:products", "read:products"), 200,
			`{"app_id":"` + app + `","client_id":"` + app + `","scopes":["write:products","read:products"]}`},
		{"whoami of an app without scopes has an empty array", "GET", "/whoami", bearer(), 200,
			`{"app_id":"` + app + `","client_id":"` + app + `","scopes":[]}`},
		{"whoami of a user has no app_id", "GET", "/whoami", user, 200,
			`{"app_id":"","client_id":"` + app + `","scopes":["read:products"]}`},
		{"HEAD is GET without a body", "HEAD", "/products", bearer("read:products"), 200, ""},
		{"HEAD without a token", "HEAD", "/products", "", 401, ""},
		{"HEAD with rubbish for a token", "HEAD", "/whoami", "Bearer rubbish", 401, ""},
		{"HEAD of healthz", "HEAD", "/healthz", "", 200, ""},
		{"a token of 16 KiB", "GET", "/products", "Bearer " + strings.Repeat("a", 16<<10), 400, ""},
		{"a method that no route has", "DELETE", "/products", bearer("read:products", "write:products"), 405, ""},
		{"a path that no route has", "GET", "/nothing", bearer("read:products"), 404, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, test.path, nil)
			if test.authorization != "" {
				r.Header.Set("Authorization", test.authorization)
			}
			w := httptest.NewRecorder()
			server.ServeHTTP(w, r)
			assert.Equal(t, test.status, w.Code)
			assert.Equal(t, test.status == 400 || test.status == 401 || test.status == 403, w.Header().Get("WWW-Authenticate") != "")
			if test.body != "" {
				assert.Contains(t, w.Header().Get("Content-Type"), "application/json")
				assert.JSONEq(t, test.body, w.Body.String())
			}
		})
	}
}
