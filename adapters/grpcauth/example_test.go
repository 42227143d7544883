package grpcauth_test

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/grpcauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func Example() {
	issuer := m2mauthtest.NewIssuer() // in production: Logto
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		panic(err)
	}
	auth, err := grpcauth.New(grpcauth.Config{
		Guard: guard,
		Rules: map[string]m2mauth.Rule{
			testpb.ReconnectService_Start_FullMethodName: m2mauth.AllScopes("write:tests"),
		},
		Public: []string{
			healthpb.Health_Check_FullMethodName,
			healthpb.Health_List_FullMethodName,
			healthpb.Health_Watch_FullMethodName,
		},
	})
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer(auth.ServerOptions()...)
	healthpb.RegisterHealthServer(server, health.NewServer())
	testpb.RegisterReconnectServiceServer(server, reconnect{})
	fmt.Println(auth.Validate(server))
	// Output: grpcauth: /grpc.testing.ReconnectService/Stop has no rule and is not public: every call of it is refused
}

type reconnect struct {
	testpb.UnimplementedReconnectServiceServer
}

func (reconnect) Start(ctx context.Context, _ *testpb.ReconnectParams) (*testpb.Empty, error) {
	claims, _ := m2mauth.FromContext(ctx)
	fmt.Println(claims.AppID())
	return &testpb.Empty{}, nil
}
