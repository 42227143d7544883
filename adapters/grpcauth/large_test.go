package grpcauth_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/grpcauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestTokensOfNearly64KiB(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	conn := start(t, newInterceptor(t, grpcauth.Config{
		Guard: newGuard(t, issuer, func(c *m2mauth.Config) { c.MaxTokenBytes = 64 << 10 }),
		Rules: map[string]m2mauth.Rule{emptyCall: m2mauth.AnyToken()},
	}), &service{empty: func(context.Context) error { return nil }})
	sized := func(filler int) string {
		return "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: audience, Claims: map[string]any{"filler": strings.Repeat("x", filler)}})
	}
	require.NoError(t, conn.Invoke(with(t.Context(), sized(47<<10)), emptyCall, &testpb.Empty{}, &testpb.Empty{}))
	code, reason := reason(t, conn.Invoke(with(t.Context(), sized(49<<10)), emptyCall, &testpb.Empty{}, &testpb.Empty{}))
	assert.Equal(t, codes.Unauthenticated, code)
	assert.Equal(t, "INVALID_REQUEST", reason)
}
