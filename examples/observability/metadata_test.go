package observability_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// A client of the Model Context Protocol finds the issuer by nothing but the
// API's address. The test stands here since the core shall not need the module.
func TestAnMCPClientReadsTheMetadata(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "/mcp", "/v1/mcp/"} {
		t.Run("at "+path, func(t *testing.T) {
			t.Parallel()
			issuer := m2mauthtest.NewIssuer()
			mux := http.NewServeMux()
			server := httptest.NewTLSServer(mux)
			t.Cleanup(server.Close)
			resource := server.URL + path
			guard, err := m2mauth.New(issuer.Config(resource))
			require.NoError(t, err)
			mux.Handle(guard.Metadata(m2mauth.MetadataConfig{Scopes: []string{"read:products"}}))
			mux.Handle("POST "+strings.TrimSuffix(path, "/")+"/{$}", guard.Require("read:products")(http.NotFoundHandler()))

			url := challenged(t, t.Context(), server, strings.TrimSuffix(path, "/")+"/")
			metadata, err := oauthex.GetProtectedResourceMetadata(t.Context(), url, resource, server.Client())
			require.NoError(t, err)
			assert.Equal(t, []string{issuer.URL()}, metadata.AuthorizationServers)
			assert.Equal(t, []string{"read:products"}, metadata.ScopesSupported)
			assert.Equal(t, []string{"header"}, metadata.BearerMethodsSupported)
		})
	}
}

// challenged calls the API without a token, and returns where its challenge says
// that the metadata is.
func challenged(t *testing.T, ctx context.Context, server *httptest.Server, path string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+path, nil)
	require.NoError(t, err)
	resp, err := server.Client().Do(r)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	challenges, err := oauthex.ParseWWWAuthenticate(resp.Header.Values("WWW-Authenticate"))
	require.NoError(t, err)
	require.Len(t, challenges, 1)
	assert.Equal(t, "bearer", challenges[0].Scheme)
	return challenges[0].Params["resource_metadata"]
}
