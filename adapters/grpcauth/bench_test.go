package grpcauth_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/grpcauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// What a known token costs is guarded less public: both send it. Interceptor is
// that alone, without the call. Compare within one run, allocations first.
func BenchmarkUnary(b *testing.B) {
	issuer := m2mauthtest.NewIssuer()
	auth := newInterceptor(b, grpcauth.Config{
		Guard:  newGuard(b, issuer, nil),
		Rules:  map[string]m2mauth.Rule{emptyCall: m2mauth.AllScopes("read:products")},
		Public: []string{unaryCall},
	})
	conn := start(b, auth, &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		return &testpb.SimpleResponse{}, nil
	}})
	token := "Bearer " + issuer.Token(audience, "read:products")
	ctx := with(b.Context(), token)

	for _, bench := range []struct{ name, method string }{{"public", unaryCall}, {"guarded", emptyCall}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				require.NoError(b, conn.Invoke(ctx, bench.method, &testpb.Empty{}, &testpb.Empty{}))
			}
		})
	}
	b.Run("interceptor", func(b *testing.B) {
		ctx := metadata.NewIncomingContext(b.Context(), metadata.Pairs("authorization", token))
		info := &grpc.UnaryServerInfo{FullMethod: emptyCall}
		handler := func(context.Context, any) (any, error) { return nil, nil }
		b.ReportAllocs()
		for b.Loop() {
			if _, err := auth.Unary(ctx, nil, info, handler); err != nil {
				b.Fatal(err)
			}
		}
	})
}
