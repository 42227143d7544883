package m2mauthtest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestAnIssuerInMemoryHasAFixedName(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	assert.Equal(t, "https://issuer.test/oidc", issuer.URL())
	assert.Equal(t, "https://issuer.test/oidc/token", issuer.TokenURL())
	assert.Equal(t, "https://issuer.test/oidc/jwks", issuer.JWKSURL())
	issuer.Close()
	resp, _ := do(t, issuer, "GET", issuer.JWKSURL(), nil, "")
	assert.Equal(t, http.StatusOK, resp.StatusCode, "there was nothing to close")
}

func TestFetchesAreCounted(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	for _, path := range []string{
		"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server",
		"/jwks", "/token", "/elsewhere", "",
	} {
		do(t, issuer, "GET", issuer.URL()+path, nil, "")
	}
	do(t, issuer, "POST", issuer.TokenURL(), nil, "")
	assert.Equal(t, m2mauthtest.Fetches{Discovery: 2, JWKS: 1, Token: 2}, issuer.Fetches())

	issuer.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			assert.Equal(t, 2, issuer.Fetches().JWKS, "counted before the hook, which may ask")
			panic(http.ErrAbortHandler)
		})
	})
	_, err := issuer.Client().Get(issuer.JWKSURL())
	require.Error(t, err)
	assert.Equal(t, 2, issuer.Fetches().JWKS)
}

func TestAHookWrapsEveryAnswer(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	made, served := 0, 0
	issuer.Intercept(func(next http.Handler) http.Handler {
		made++
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served++
			w.Header().Set("X-Hook", "yes")
			next.ServeHTTP(w, r)
		})
	})
	for range 2 {
		resp, _ := do(t, issuer, "GET", issuer.JWKSURL(), nil, "")
		assert.Equal(t, http.StatusOK, resp.StatusCode)
		assert.Equal(t, "yes", resp.Header.Get("X-Hook"))
	}
	assert.Equal(t, []int{1, 2}, []int{made, served})

	issuer.Intercept(func(http.Handler) http.Handler { return http.NotFoundHandler() })
	resp, _ := do(t, issuer, "GET", issuer.JWKSURL(), nil, "")
	assert.Equal(t, http.StatusNotFound, resp.StatusCode)
	assert.Equal(t, 2, served, "a new hook takes the place of the one before")

	issuer.Intercept(nil)
	resp, _ = do(t, issuer, "GET", issuer.JWKSURL(), nil, "")
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Empty(t, resp.Header.Get("X-Hook"))
}

func TestAnIssuerIsAHandler(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	w := httptest.NewRecorder()
	issuer.ServeHTTP(w, httptest.NewRequest("GET", "/oidc/jwks", nil))
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Equal(t, 1, issuer.Fetches().JWKS)
}

// The race detector finds what is wrong here.
func TestAnIssuerIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	issuer, app := shop()
	var wg sync.WaitGroup
	for range 4 {
		for _, f := range []func(){
			func() { issuer.Rotate("ES256") },
			func() { issuer.Replace(issuer.KeyIDs()[0]) },
			func() { issuer.PublishJWK(json.RawMessage(`{}`)) },
			func() { issuer.Token("https://shopping.api") },
			func() { issuer.AddRole("editor", "https://billing.api", "read:bills") },
			func() { issuer.Intercept(func(next http.Handler) http.Handler { return next }) },
			func() { issuer.Fetches() },
			func() { request(t, issuer, app, nil) },
			func() {
				resp, err := issuer.Client().Get(issuer.JWKSURL())
				if assert.NoError(t, err) {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			},
		} {
			wg.Go(f)
		}
	}
	wg.Wait()
}
