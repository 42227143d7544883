package m2mauth_test

import (
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestARequiredClaimOfAnyValue(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.RequiredClaims = map[string][]string{"tenant": {m2mauth.AnyValue}, "/of/it": {"one", m2mauth.AnyValue}}
	config.Logger = slog.New(slog.DiscardHandler)
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	nested := map[string]any{"it": 1}
	for _, test := range []struct {
		name   string
		claims map[string]any
		want   error
	}{
		{"a string", map[string]any{"tenant": "acme", "of": nested}, nil},
		{"an empty string", map[string]any{"tenant": "", "of": nested}, nil},
		{"a number", map[string]any{"tenant": 7, "of": nested}, nil},
		{"an object", map[string]any{"tenant": map[string]any{}, "of": nested}, nil},
		{"null", map[string]any{"tenant": json.RawMessage("null"), "of": nested}, m2mauth.ErrClaims},
		{"not there", map[string]any{"of": nested}, m2mauth.ErrClaims},
		{"not there within an object", map[string]any{"tenant": "acme", "of": map[string]any{}}, m2mauth.ErrClaims},
	} {
		_, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: "https://shopping.api", Claims: test.claims}))
		if test.want == nil {
			assert.NoError(t, err, test.name)
		} else {
			assert.ErrorIs(t, err, test.want, test.name)
		}
	}
}
