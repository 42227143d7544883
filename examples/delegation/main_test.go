package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config(ordersAPI))
	require.NoError(t, err)
	api := routes(guard, "checkout", "shopagent")
	type claims = map[string]any
	bearer := func(app string, claims claims, scopes ...string) string {
		return "Bearer " + issuer.Sign(m2mauthtest.Token{AppID: app, Audience: ordersAPI, Scopes: scopes, Claims: claims})
	}
	alice := claims{"sub": "alice"}
	acted := func(by any) claims { return claims{"sub": "alice", "act": by} }

	for _, test := range []struct {
		name, method, path, authorization string
		status                            int
		body                              string // JSON; "" = not looked at
	}{
		{"healthz is public", "GET", "/healthz", "", 200, `{"status":"ok"}`},
		{"no token", "GET", "/orders", "", 401, ""},
		{"the service for a user", "GET", "/orders", bearer("checkout", alice, "read:orders"), 200, `[{"user":"alice","by":"checkout"}]`},
		{"the service for a user, whoever acts", "GET", "/orders", bearer("checkout", acted(claims{"sub": "bob"}), "read:orders"), 200, `[{"user":"alice","by":"checkout","agent":"bob"}]`},
		{"the service for a user without the scope", "GET", "/orders", bearer("checkout", alice, "write:orders"), 403, ""},
		{"the service for itself", "GET", "/orders", bearer("checkout", nil, "read:orders"), 403, ""},
		{"another service for a user", "GET", "/orders", bearer("other", alice, "read:orders"), 403, ""},

		{"the agent for a user", "POST", "/orders", bearer("checkout", acted(claims{"sub": "shopagent"}), "write:orders"), 201, `{"user":"alice","by":"checkout","agent":"shopagent"}`},
		{"the agent without the scope", "POST", "/orders", bearer("checkout", acted(claims{"sub": "shopagent"}), "read:orders"), 403, ""},
		{"nobody acts", "POST", "/orders", bearer("checkout", alice, "write:orders"), 403, ""},
		{"another agent", "POST", "/orders", bearer("checkout", acted(claims{"sub": "bob"}), "write:orders"), 403, ""},
		{"the agent acted before", "POST", "/orders", bearer("checkout", acted(claims{"sub": "bob", "act": claims{"sub": "shopagent"}}), "write:orders"), 403, ""},
		{"the agent by another service", "POST", "/orders", bearer("other", acted(claims{"sub": "shopagent"}), "write:orders"), 403, ""},
		{"the agent's name alone", "POST", "/orders", bearer("checkout", acted("shopagent"), "write:orders"), 401, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(test.method, test.path, nil)
			if test.authorization != "" {
				r.Header.Set("Authorization", test.authorization)
			}
			w := httptest.NewRecorder()
			api.ServeHTTP(w, r)
			assert.Equal(t, test.status, w.Code)
			if test.body != "" {
				assert.JSONEq(t, test.body, w.Body.String())
			}
		})
	}
}

func TestDemoPrintsWhatEachCallerGets(t *testing.T) {
	var out strings.Builder
	require.NoError(t, demo(t.Context(), &out))
	assert.Equal(t, 10, strings.Count(out.String(), "\n"))
	assert.NotContains(t, out.String(), "NOT EXPECTED")
	assert.Regexp(t, `checkout +alice's, shopagent acts +POST /orders +201 +`, out.String())
}

func TestAnExchangeThatIsRefusedSaysWhy(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"error":"invalid_grant"}`:      `exchange the user's token: status 400, error "invalid_grant"`,
		`<html>`:                         `exchange the user's token: status 400, error ""`,
		`{"access_token":"not granted"}`: `exchange the user's token: status 400, error ""`,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(body))
		}))
		t.Cleanup(server.Close)
		token, err := exchange(t.Context(), server.URL, "app", "secret", "user's", "", ordersAPI, "read:orders")
		assert.EqualError(t, err, want)
		assert.Empty(t, token)
	}
}

func TestRunReadsTheEnvironment(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // so that run stops as soon as it has started
	env := map[string]string{
		"ISSUER": "http://logto:3001/oidc", "AUDIENCE": ordersAPI, "JWKS_URL": "http://keys/oidc/jwks",
		"PLAIN_HTTP_HOSTS": "logto, keys", "ADDR": "127.0.0.1:0", "SERVICE": "checkout", "AGENT": "shopagent",
	}
	assert.NoError(t, run(ctx, func(name string) string { return env[name] }))
	err := run(ctx, func(string) string { return "" })
	for _, mistake := range []string{"Config.Issuer", "Config.Audience", "SERVICE and AGENT"} {
		assert.ErrorContains(t, err, mistake)
	}
	for _, name := range []string{"SERVICE", "AGENT"} {
		assert.ErrorContains(t, run(ctx, func(n string) string {
			if n == name {
				return ""
			}
			return env[n]
		}), "SERVICE and AGENT")
	}
}
