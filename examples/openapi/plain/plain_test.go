package plain

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/adapters/openapiauth"
	"github.com/m2mauth/m2mauth/examples/openapi"
	"github.com/m2mauth/m2mauth/examples/openapi/internal/contract"
)

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	contract.Test(t, "", Handler)
}

// A route that is not in the document fails this test, and so does an operation that
// nobody serves.
func TestEveryRouteIsInTheDocument(t *testing.T) {
	t.Parallel()
	table, err := openapiauth.Rules(openapi.Shop, openapiauth.Options{AnyToken: []string{"GET /whoami"}})
	require.NoError(t, err)
	mux := routes()
	ours := slices.DeleteFunc(mux.Patterns(), func(pattern string) bool { return pattern == "GET /openapi.yaml" })
	require.NoError(t, table.Validate(ours...))

	mux.HandleFunc("GET /forgotten", answer(200))
	assert.ErrorContains(t, table.Validate(mux.Patterns()...), `"GET /forgotten" is served, and the document does not have it`)
}
