package huma

import (
	"context"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/adapters/openapiauth"
	"github.com/m2mauth/m2mauth/examples/openapi/internal/contract"
)

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	contract.Test(t, "", Handler)
}

// An operation that huma serves and hides from the document is reported at set-up.
func TestAHiddenOperationIsNotForgotten(t *testing.T) {
	t.Parallel()
	var mux openapiauth.Mux
	shop := api(&mux)
	huma.Register(shop, huma.Operation{OperationID: "hidden", Method: "GET", Path: "/hidden", Hidden: true},
		func(context.Context, *struct{}) (*struct{}, error) { return nil, nil })
	document, err := shop.OpenAPI().YAML()
	require.NoError(t, err)
	table, err := openapiauth.Rules(document, openapiauth.Options{AnyToken: []string{"whoami"}})
	require.NoError(t, err)
	assert.EqualError(t, table.Validate(mux.Patterns()...), `m2mauth: OpenAPI: "GET /hidden" is served, and the document does not have it: it lets nobody through`)
}
