package generated

import (
	"testing"

	"github.com/m2mauth/m2mauth/examples/openapi/internal/contract"
)

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	contract.Test(t, "/v1", Handler)
}
