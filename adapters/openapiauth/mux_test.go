package openapiauth_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/adapters/openapiauth"
)

func TestValidateComparesWithTheServer(t *testing.T) {
	t.Parallel()
	table, err := openapiauth.Rules(document(`
paths:
  /a: {get: {}, head: {}, post: {}}
  /a/{id}: {get: {}}
  /b/: {get: {}}
  /c: {head: {}}
security: [{oauth: [read]}]`), options{})
	require.NoError(t, err)

	var mux openapiauth.Mux
	answer := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	for _, pattern := range []string{"GET /a", "POST\t /a", "GET /a/{id}", "HEAD /c"} {
		mux.HandleFunc(pattern, answer)
	}
	mux.Handle("GET /b/{$}", http.HandlerFunc(answer))
	require.NoError(t, table.Validate(mux.Patterns()...))
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/a/1", nil))
	assert.Equal(t, http.StatusNoContent, w.Code)

	err = table.Validate("GET /a", "GET /a/{product}", "GET /b/", "/c", "GET example.com/a", "DELETE /a")
	require.Error(t, err)
	assert.Equal(t, `m2mauth: OpenAPI: "/c" is served, and the document does not have it: it lets nobody through
m2mauth: OpenAPI: "DELETE /a" is served, and the document does not have it: it lets nobody through
m2mauth: OpenAPI: "GET /a/{product}" is served, and the document does not have it: it lets nobody through
m2mauth: OpenAPI: "GET /b/" is served, and the document does not have it: it lets nobody through
m2mauth: OpenAPI: "GET example.com/a" is served, and the document does not have it: it lets nobody through
m2mauth: OpenAPI: line 4: "POST /a" is in the document, and the server does not serve it
m2mauth: OpenAPI: line 5: "GET /a/{id}" is in the document, and the server does not serve it
m2mauth: OpenAPI: line 6: "GET /b/{$}" is in the document, and the server does not serve it
m2mauth: OpenAPI: line 7: "HEAD /c" is in the document, and the server does not serve it`, err.Error())
}

// A path that ends in a slash is that path alone, where net/http alone would take it for
// everything below.
func TestASlashAtTheEndIsNotEverythingBelow(t *testing.T) {
	t.Parallel()
	_, guard := newGuard(t)
	table, err := openapiauth.Rules(document("paths: {/open/: {get: {security: []}}}\n"), options{})
	require.NoError(t, err)
	var mux openapiauth.Mux
	mux.HandleFunc("GET /open/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	handler, err := guard.Routes(&mux.ServeMux, table.Rules(), table.Public()...)
	require.NoError(t, err)
	for _, path := range []string{"/open/", "/open/admin"} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		assert.Equal(t, http.StatusUnauthorized, w.Code, path)
	}
	require.Error(t, table.Validate(mux.Patterns()...))
}

func TestATableCannotBeChanged(t *testing.T) {
	t.Parallel()
	table, err := openapiauth.Rules(operation(`[]`), options{})
	require.NoError(t, err)
	table.Rows()[0].Path = "/changed"
	table.Public()[0] = "GET /changed"
	clear(table.Rules())
	assert.Equal(t, "GET /a → public", show(table))
	assert.Equal(t, []string{"GET /a"}, table.Public())
}
