package pages_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// What docs/testing.md shows stands here, and the README's test.

func TestProductsNeedReadProducts(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	require.NoError(t, err)
	r := httptest.NewRequest("GET", "/products", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
	w := httptest.NewRecorder()
	api(guard).ServeHTTP(w, r)
	assert.Equal(t, 200, w.Code)
}

func TestHandlerAloneSeesTheClaims(t *testing.T) {
	claims := m2mauthtest.Claims(t, "the-app-id", "read:products")
	r := httptest.NewRequest("GET", "/products", nil)
	r = r.WithContext(m2mauth.NewContext(r.Context(), claims))

	got, ok := m2mauth.FromContext(r.Context())
	require.True(t, ok)
	assert.Equal(t, "the-app-id", got.AppID())
}

func api(guard *m2mauth.Guard) http.Handler {
	return guard.Require("read:products")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
}

// newAPI returns an issuer, and an API behind a guard that accepts its tokens.
func newAPI(t *testing.T) (*m2mauthtest.Issuer, http.Handler) {
	t.Helper()
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	require.NoError(t, err)
	return issuer, api(guard)
}

// call sends the token, and returns the status of the response.
func call(api http.Handler, token string) int {
	r := httptest.NewRequest("GET", "/products", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	return w.Code
}

func TestAGoodToken(t *testing.T) {
	issuer, api := newAPI(t)
	assert.Equal(t, http.StatusOK, call(api, issuer.Token("https://shopping.api", "read:products")))
	assert.Equal(t, http.StatusForbidden, call(api, issuer.Token("https://shopping.api", "write:products")))
}

func TestAnExpiredToken(t *testing.T) {
	issuer, api := newAPI(t)
	expired := issuer.Sign(m2mauthtest.Token{
		Audience: "https://shopping.api",
		Scopes:   []string{"read:products"},
		Expired:  true, // a negative Lifetime within Config.Leeway would still pass
	})
	assert.Equal(t, http.StatusUnauthorized, call(api, expired))
}

func TestATokenForAnotherAPI(t *testing.T) {
	issuer, api := newAPI(t)
	assert.Equal(t, http.StatusUnauthorized, call(api, issuer.Token("https://billing.api", "read:products")))
	assert.Equal(t, http.StatusUnauthorized, call(api, issuer.Token("https://shopping.api/", "read:products")))
}

func TestARotatedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, api := newAPI(t)
		before := issuer.Token("https://shopping.api", "read:products")
		assert.Equal(t, http.StatusOK, call(api, before))

		oldKey := issuer.KeyIDs()[0]
		issuer.Rotate("ES384") // the old key stays published
		assert.Equal(t, http.StatusOK, call(api, issuer.Token("https://shopping.api", "read:products")))
		assert.Equal(t, http.StatusOK, call(api, before))

		issuer.Withdraw(oldKey)
		time.Sleep(11 * time.Minute) // the guard keeps keys for 10 minutes; in the bubble this takes no time
		assert.Equal(t, http.StatusUnauthorized, call(api, before))
	})
}

func TestTheIssuerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, running := newAPI(t)
		token := issuer.Sign(m2mauthtest.Token{
			Audience: "https://shopping.api",
			Scopes:   []string{"read:products"},
			Lifetime: 24 * time.Hour,
		})
		assert.Equal(t, http.StatusOK, call(running, token))

		issuer.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "down for maintenance", http.StatusBadGateway)
			})
		})
		time.Sleep(time.Hour) // stale keys still serve
		assert.Equal(t, http.StatusOK, call(running, token))
		time.Sleep(time.Hour) // past KeyTTL and KeyStaleFor: 503, since the token may be good
		assert.Equal(t, http.StatusServiceUnavailable, call(running, token))

		issuer.Intercept(nil)
		time.Sleep(10 * time.Second) // the longest pause between two attempts without keys
		assert.Equal(t, http.StatusOK, call(running, token))
	})
}

func TestAUsersToken(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	require.NoError(t, err)

	claims, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{
		Audience: "https://shopping.api",
		Scopes:   []string{"read:products"},
		Claims:   map[string]any{"sub": "the-user-id"}, // client_id stays the application
	}))
	require.NoError(t, err)
	assert.Equal(t, "the-user-id", claims.Subject())
	assert.Empty(t, claims.AppID())
}

func TestATokenFromTheTokenEndpoint(t *testing.T) {
	issuer, api := newAPI(t)
	issuer.AddResource("https://shopping.api", "read:products", "write:products")
	issuer.AddRole("reader", "https://shopping.api", "read:products")
	app := issuer.AddApp("reports", "reader")

	answer, err := issuer.Client().PostForm(issuer.TokenURL(), url.Values{
		"grant_type":    {"client_credentials"},
		"client_id":     {app.ID},
		"client_secret": {app.Secret},
		"resource":      {"https://shopping.api"},
		"scope":         {"read:products write:products"},
	})
	require.NoError(t, err)
	defer answer.Body.Close()
	var granted struct {
		AccessToken string `json:"access_token"`
		Scope       string `json:"scope"`
	}
	require.NoError(t, json.NewDecoder(answer.Body).Decode(&granted))
	assert.Equal(t, "read:products", granted.Scope)
	assert.Equal(t, http.StatusOK, call(api, granted.AccessToken))
}
