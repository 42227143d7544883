// Package contract is what all servers here are tested with.
package contract

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// Test asks who may call the shop.
func Test(t *testing.T, base string, handler func(*m2mauth.Guard) (http.Handler, error)) {
	t.Helper()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.Logger = slog.New(slog.DiscardHandler)
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	api, err := handler(guard)
	require.NoError(t, err)
	for _, test := range []struct {
		method, path string
		scopes       []string // nil for a request without a token
		status       int
	}{
		{"GET", "/healthz", nil, 204},
		{"GET", "/products", nil, 401},
		{"GET", "/products", []string{"read:products"}, 200},
		{"HEAD", "/products", []string{"read:products"}, 200},
		{"HEAD", "/products", []string{"write:products"}, 403},
		{"GET", "/products", []string{"admin"}, 200},
		{"GET", "/products", []string{"write:products"}, 403},
		{"POST", "/products", []string{"write:products"}, 201},
		{"POST", "/products", []string{"admin"}, 403},
		{"DELETE", "/products/7", nil, 401},
		{"DELETE", "/products/7", []string{"write:products"}, 403},
		{"DELETE", "/products/7", []string{"write:products", "delete:products"}, 204},
		{"GET", "/whoami", nil, 401},
		{"GET", "/whoami", []string{}, 200},
		{"GET", "/nothing", nil, 404},
	} {
		r := httptest.NewRequest(test.method, base+test.path, nil)
		if test.scopes != nil {
			r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", test.scopes...))
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		assert.Equal(t, test.status, w.Code, "%s %s with %q", test.method, test.path, test.scopes)
	}
}
