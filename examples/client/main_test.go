package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const (
	shopping = "https://shopping.api"
	managing = "https://default.logto.app/api"
)

// world is a Logto server with two API resources, and the APIs behind a guard
// each: the shop at https://shop.test, the Management API at the issuer's own host.
type world struct {
	issuer                  *m2mauthtest.Issuer
	shop, management        http.Handler
	reader, manager, noRole m2mauthtest.App
}

func newWorld(t *testing.T) *world {
	t.Helper()
	issuer := m2mauthtest.NewIssuer()
	issuer.AddResource(shopping, "read:products", "write:products")
	issuer.AddResource(managing, "all")
	issuer.AddRole("product reader", shopping, "read:products")
	issuer.AddRole("Logto Management API access", managing, "all")

	shop := http.NewServeMux()
	shop.Handle("GET /products", newGuard(t, issuer, shopping).Require("read:products")(answer(`[{"id":1,"name":"Kettle"}]`)))
	management := http.NewServeMux()
	management.Handle("GET /api/applications", newGuard(t, issuer, managing).Require("all")(answer(
		`[{"tenantId":"default","id":"a1","name":"reader","secret":"SECRET OF READER","type":"MachineToMachine"},`+
			`{"tenantId":"default","id":"a2","name":"web site","secret":"SECRET OF WEB SITE","type":"SPA"}]`)))
	return &world{
		issuer: issuer, shop: shop, management: management,
		reader:  issuer.AddApp("reader", "product reader"),
		manager: issuer.AddApp("manager", "Logto Management API access"),
		noRole:  issuer.AddApp("no role"),
	}
}

func newGuard(t *testing.T, issuer *m2mauthtest.Issuer, audience string) *m2mauth.Guard {
	t.Helper()
	guard, err := m2mauth.New(issuer.Config(audience))
	require.NoError(t, err)
	return guard
}

func answer(body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(body)) })
}

// RoundTrip is the network of the world.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	handler := w.shop
	switch {
	case r.URL.Host == "issuer.test" && strings.HasPrefix(r.URL.Path, "/api/"):
		handler = w.management
	case r.URL.Host == "issuer.test":
		return w.issuer.Client().Transport.RoundTrip(r)
	case r.URL.Host != "shop.test":
		panic("a request to " + r.URL.String())
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, r)
	resp := recorder.Result()
	resp.Request = r
	return resp, nil
}

// program returns the client as the app would run it, with changes to its
// environment: NAME=value.
func (w *world) program(app m2mauthtest.App, changes ...string) (program, *strings.Builder) {
	env := map[string]string{
		"ISSUER": w.issuer.URL(), "ENDPOINT": "https://issuer.test", "API_URL": "https://shop.test",
		"APP_ID": app.ID, "APP_SECRET": app.Secret,
	}
	for _, change := range changes {
		name, value, _ := strings.Cut(change, "=")
		env[name] = value
	}
	var out strings.Builder
	return program{getenv: func(name string) string { return env[name] }, transport: w, out: &out}, &out
}

func TestClientPrintsTheShopsProducts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, test := range []struct {
		name    string
		changes []string
	}{
		{"token URL from the issuer", nil},
		{"a slash at the end of the addresses does not matter", []string{"ISSUER=" + w.issuer.URL() + "/", "API_URL=https://shop.test/"}},
		{"TOKEN_URL overrides ISSUER", []string{"ISSUER=https://nowhere.test", "TOKEN_URL=" + w.issuer.TokenURL()}},
		{"RESOURCE may be set", []string{"RESOURCE=" + shopping}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p, out := w.program(w.reader, test.changes...)
			require.NoError(t, p.listProducts(t.Context()))
			assert.Equal(t, `[{"id":1,"name":"Kettle"}]`, out.String())
		})
	}
}

func TestManagementPrintsApplicationsWithoutTheirSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, test := range []struct {
		name    string
		changes []string
	}{
		{"all derived from ENDPOINT", nil},
		{"a slash at the end of ENDPOINT does not matter", []string{"ENDPOINT=https://issuer.test/"}},
		{"TOKEN_URL and MANAGEMENT_RESOURCE set", []string{"TOKEN_URL=" + w.issuer.TokenURL(), "MANAGEMENT_RESOURCE=" + managing}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p, out := w.program(w.manager, test.changes...)
			require.NoError(t, p.listApplications(t.Context()))
			assert.Equal(t, "ID  NAME      TYPE\na1  reader    MachineToMachine\na2  web site  SPA\n", out.String())
		})
	}
}

func TestManagementResourceIsDerivedFromTheEndpoint(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]string{
		"https://mytenant.logto.app":         "https://mytenant.logto.app/api",
		"https://mytenant.logto.app:443":     "https://mytenant.logto.app/api",
		"http://localhost:3001":              managing,
		"https://logto.example.com":          managing,
		"https://mytenant.logto.app.example": managing,
	} {
		assert.Equal(t, want, managementResource(endpoint), endpoint)
	}
}

func TestRefusalsAreExplained(t *testing.T) {
	t.Parallel()
	products, applications := program.listProducts, program.listApplications
	for _, test := range []struct {
		name    string
		call    func(program, context.Context) error
		prepare func(*world)
		app     func(*world) m2mauthtest.App
		changes []string
		wants   []string
	}{
		{name: "nothing is set", call: products, changes: []string{"ISSUER=", "APP_ID=", "APP_SECRET="},
			wants: []string{"ISSUER (or TOKEN_URL) is not set", "APP_ID is not set", "APP_SECRET is not set"}},
		{name: "nothing is set for the Management API", call: applications, changes: []string{"ENDPOINT=", "APP_ID=", "APP_SECRET="},
			wants: []string{"ENDPOINT is not set", "APP_ID is not set", "APP_SECRET is not set"}},
		{name: "a wrong secret", call: products, changes: []string{"APP_SECRET=wrong"},
			wants: []string{"no access token: 401", "invalid_client", "APP_ID or APP_SECRET is wrong"}},
		{name: "an unknown app", call: products, changes: []string{"APP_ID=unknown"},
			wants: []string{"no access token: 400", "invalid_client", "APP_ID or APP_SECRET is wrong"}},
		{name: "a resource that differs by a slash", call: products, changes: []string{"RESOURCE=" + shopping + "/"},
			wants: []string{"invalid_target", "to the last slash"}},
		{name: "Logto Cloud's Management API at a custom domain", call: applications, changes: []string{"MANAGEMENT_RESOURCE=https://auth.example.com/api"},
			wants: []string{"invalid_target", "at no custom domain"}},
		{name: "an issuer without /oidc", call: products, changes: []string{"ISSUER=https://issuer.test"},
			wants: []string{"no access token: 404", "with /oidc"}},
		{name: "a token for another API", call: products, changes: []string{"RESOURCE=" + managing},
			wants: []string{"401 Unauthorized", "written exactly alike"}},
		{name: "an app without role", call: products, app: func(w *world) m2mauthtest.App { return w.noRole },
			wants: []string{"403 Forbidden", "does not hold the scope read:products", "machine-to-machine role"}},
		{name: "an app without the role for the Management API", call: applications,
			wants: []string{"403 Forbidden", "does not hold the scope all"}},
		{name: "an API that does not reach the issuer", call: products, prepare: func(w *world) { w.issuer.Intercept(tokensOnly) },
			wants: []string{"503 Service Unavailable", "keep it", "Retry-After: 1"}},
		{name: "an address without a shop", call: products, changes: []string{"API_URL=https://shop.test/wrong"},
			wants: []string{"404 Not Found", "is the address right?"}},
		{name: "Logto's own words", call: applications, prepare: func(w *world) {
			w.management = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusForbidden)
				w.Write([]byte(`{"code":"auth.forbidden","message":"Forbidden. Please check your user roles and permissions."}`))
			})
		}, wants: []string{"Please check your user roles"}},
		{name: "an ENDPOINT that is no Logto server", call: applications, prepare: func(w *world) { w.management = answer("<html>") },
			wants: []string{"is ENDPOINT a Logto server?"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if test.prepare != nil {
				test.prepare(w)
			}
			app := w.reader
			if test.app != nil {
				app = test.app(w)
			}
			p, out := w.program(app, test.changes...)
			err := test.call(p, t.Context())
			require.Error(t, err)
			for _, want := range test.wants {
				assert.ErrorContains(t, err, want)
			}
			assert.NotContains(t, err.Error(), app.Secret)
			assert.NotContains(t, err.Error(), "eyJ", "an access token")
			assert.Empty(t, out.String())
		})
	}
}

// tokensOnly lets only the token endpoint work.
func tokensOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/token") {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func TestATokenIsUsedUntilItExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		client := newClient(t.Context(), w, &clientcredentials.Config{
			ClientID: w.reader.ID, ClientSecret: w.reader.Secret, TokenURL: w.issuer.TokenURL(),
			Scopes: []string{"read:products"}, EndpointParams: map[string][]string{"resource": {shopping}},
		})
		for _, step := range []struct {
			after  time.Duration
			tokens int
		}{{0, 1}, {0, 1}, {59 * time.Minute, 1}, {2 * time.Minute, 2}, {0, 2}} {
			time.Sleep(step.after)
			_, err := get(t.Context(), client, "https://shop.test/products", "read:products")
			require.NoError(t, err)
			assert.Equal(t, step.tokens, w.issuer.Fetches().Token)
		}
	})
}

// The network of the test panics if it is asked for the other host.
func TestATokenDoesNotFollowARedirect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop = http.RedirectHandler("https://elsewhere.test/products", http.StatusFound)
	p, _ := w.program(w.reader)
	require.ErrorContains(t, p.listProducts(t.Context()), "302 Found")
}
