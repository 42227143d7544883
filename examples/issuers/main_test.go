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

const table = `An API takes tokens of two issuers. GET /products needs read:products:

WHO              ANSWER                       WHY
app of issuer 1  200 OK                       its issuer is one of the two
app of issuer 2  200 OK                       its issuer is the other
app of issuer 2  403 insufficient_scope       its token has no scope
forger           401 invalid_token            issuer 2 signed what says it is of issuer 1
another name     401 invalid_token            its issuer has a slash more than issuer 1
stranger         401 invalid_token            nobody knows its issuer, which is not even asked
app of issuer 2  503 temporarily_unavailable  issuer 2 has a new key, and is down
app of issuer 1  200 OK                       that is no matter of issuer 1
`

func TestDemoPrintsWhatEachCallerGot(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, demo(t.Context(), &out))
	assert.Equal(t, table, out.String())
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	issuers := make([]*m2mauthtest.Issuer, 2)
	names := make([]string, 2)
	for n := range issuers {
		issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(issuer.Close)
		issuers[n], names[n] = issuer, issuer.URL()
	}
	guard, err := newGuard(names, m2mauth.Config{Audience: demoAudience})
	require.NoError(t, err)
	api := routes(guard)
	ask := func(path, token string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		return w
	}
	assert.JSONEq(t, `{"status":"ok"}`, ask("/healthz", "").Body.String())
	assert.JSONEq(t, `{"`+names[0]+`":"none","`+names[1]+`":"none"}`, ask("/status", "").Body.String())
	for _, issuer := range issuers {
		w := ask("/products", issuer.Token(demoAudience, "read:products"))
		assert.Equal(t, http.StatusOK, w.Code)
		assert.JSONEq(t, `[{"id":1,"name":"Coffee grinder"},{"id":2,"name":"Kettle"}]`, w.Body.String())
		assert.Equal(t, http.StatusForbidden, ask("/products", issuer.Token(demoAudience)).Code)
		assert.Equal(t, http.StatusUnauthorized, ask("/products", issuer.Token("https://other.api", "read:products")).Code)
	}
	assert.JSONEq(t, `{"`+names[0]+`":"fresh","`+names[1]+`":"fresh"}`, ask("/status", "").Body.String())
	assert.Equal(t, http.StatusUnauthorized, ask("/products", "").Code)
}

func TestTheEnvironment(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // so that serve stops as soon as it has started
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { busy.Close() })
	const one, two = "https://one.logto.app/oidc", "https://two.logto.app/oidc"
	for _, test := range []struct {
		name  string
		env   map[string]string
		lines []string // the error has a line with each of these, and no others
	}{
		{"a list", map[string]string{"ISSUERS": one + ", " + two, "AUDIENCE": demoAudience}, nil},
		{"two by themselves", map[string]string{"ISSUER": one, "ISSUER_2": two, "AUDIENCE": demoAudience}, nil},
		{"one", map[string]string{"ISSUER": one, "AUDIENCE": demoAudience}, nil},
		{"an audience that has no metadata", map[string]string{"ISSUER": one, "AUDIENCE": "shop"}, nil},
		{"none", nil, []string{"ISSUERS is empty"}},
		{"no audience", map[string]string{"ISSUERS": one}, []string{"Audience"}},
		{"the same twice", map[string]string{"ISSUERS": one + "," + one, "AUDIENCE": demoAudience}, []string{"guard 2 has the issuer of another"}},
		{"two that are wrong", map[string]string{"ISSUERS": "one,http://two.logto.app", "AUDIENCE": demoAudience}, []string{"Issuer must be", "Issuer must be https"}},
		{"one issuer's keys for two", map[string]string{"ISSUERS": one + "," + two, "AUDIENCE": demoAudience, "JWKS_URL": one + "/jwks"}, []string{"are for one issuer"}},
		{"one issuer's keys for it", map[string]string{"ISSUERS": one, "AUDIENCE": demoAudience, "JWKS_URL": one + "/jwks"}, nil},
		{"address in use", map[string]string{"ISSUERS": one, "AUDIENCE": demoAudience, "ADDR": busy.Addr().String()}, []string{"address"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.env["ADDR"] == "" && test.env != nil {
				test.env["ADDR"] = "127.0.0.1:0"
			}
			err := serve(ctx, func(name string) string { return test.env[name] })
			if test.lines == nil {
				assert.NoError(t, err)
				return
			}
			require.Error(t, err)
			assert.Len(t, strings.Split(err.Error(), "\n"), len(test.lines), "%v", err)
			for _, text := range test.lines {
				assert.ErrorContains(t, err, text)
			}
		})
	}
}
