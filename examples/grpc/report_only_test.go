package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/m2mauth/m2mauth/examples/grpc/shoppb"
	"github.com/m2mauth/m2mauth/examples/internal/contract"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

// As contract.TestReportOnly, over gRPC: the answer is the status with its details, the
// messages, the header and the trailer.
func TestReportOnly(t *testing.T) {
	t.Parallel()
	corpus := contract.NewCorpus(t)
	synctest.Test(t, func(t *testing.T) {
		dry, enforcing := corpus.Guards(t)
		connect := func(server *grpc.Server, err error) *grpc.ClientConn {
			t.Helper()
			require.NoError(t, err)
			return inMemory(t, server)
		}
		open := grpc.NewServer() // as newServer makes it, without a guard
		shoppb.RegisterShopServer(open, newShop())
		healthpb.RegisterHealthServer(open, health.NewServer())
		dryConn, enforcingConn := connect(newServer(dry.Guard, insecure.NewCredentials())), connect(newServer(enforcing.Guard, insecure.NewCredentials()))
		openConn := connect(open, nil)
		for range 2000 {
			method := corpus.Pick(shoppb.Shop_ListProducts_FullMethodName, shoppb.Shop_CreateProduct_FullMethodName, shoppb.Shop_WatchProducts_FullMethodName,
				shoppb.Shop_WhoAmI_FullMethodName, healthpb.Health_Check_FullMethodName, "/shop.v1.Shop/Nothing")
			fields := make(metadata.MD)
			for name, values := range corpus.Header() {
				fields[strings.ToLower(name)] = values
			}
			answer, enforced, unguarded := call(t, dryConn, method, fields), call(t, enforcingConn, method, fields), call(t, openConn, method, fields)

			decision, asked := contract.SameDecision(t, dry, enforcing)
			// Products are those that were created before, and a stream ends with its token
			// without the leeway that the guard allows: neither is the guard's decision.
			if asked && decision.Err == nil && method != shoppb.Shop_WatchProducts_FullMethodName {
				require.Equal(t, enforced.status, answer.status, "what is allowed")
			}
			if asked && !decision.Claims.IsZero() && method == shoppb.Shop_WhoAmI_FullMethodName {
				identity := shopapi.Identify(decision.Claims)
				require.Equal(t, []string{string(marshal(t, &shoppb.WhoAmIResponse{AppId: identity.AppID, ClientId: identity.ClientID, Scopes: identity.Scopes}))}, answer.messages)
				continue
			}
			require.Equal(t, unguarded, answer, "%s %v", method, fields)
		}
		contract.AssertTotals(t, dry, enforcing)
	})
}

// inMemory serves until the test ends.
func inMemory(t *testing.T, server *grpc.Server) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, conn.Close())
		server.Stop()
		assert.NoError(t, <-served)
	})
	return conn
}

type answer struct {
	status          string
	messages        []string
	header, trailer metadata.MD
}

// call makes a call; of a stream it takes two messages.
func call(t *testing.T, conn *grpc.ClientConn, method string, fields metadata.MD) (a answer) {
	t.Helper()
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(t.Context(), fields))
	defer cancel()
	var err error
	if method == shoppb.Shop_WatchProducts_FullMethodName {
		a, err = watchTwo(ctx, t, conn)
	} else {
		var request proto.Message = &shoppb.ListProductsRequest{}
		response := map[string]proto.Message{
			shoppb.Shop_CreateProduct_FullMethodName: &shoppb.Product{},
			shoppb.Shop_WhoAmI_FullMethodName:        &shoppb.WhoAmIResponse{},
			healthpb.Health_Check_FullMethodName:     &healthpb.HealthCheckResponse{},
		}[method]
		if response == nil {
			response = &shoppb.ListProductsResponse{}
		}
		if method == shoppb.Shop_CreateProduct_FullMethodName {
			request = &shoppb.CreateProductRequest{Name: "Teapot"}
		}
		if err = conn.Invoke(ctx, method, request, response, grpc.Header(&a.header), grpc.Trailer(&a.trailer)); err == nil {
			a.messages = []string{string(marshal(t, response))}
		}
	}
	require.NotContains(t, []codes.Code{codes.Internal, codes.Unavailable, codes.Unknown}, status.Code(err), "%v", err)
	a.status = fmt.Sprintf("%x", marshal(t, status.Convert(err).Proto()))
	return a
}

func watchTwo(ctx context.Context, t *testing.T, conn *grpc.ClientConn) (a answer, err error) {
	t.Helper()
	stream, err := shoppb.NewShopClient(conn).WatchProducts(ctx, &shoppb.WatchProductsRequest{})
	require.NoError(t, err)
	for range 2 {
		product, err := stream.Recv()
		if err != nil {
			a.trailer = stream.Trailer()
			return a, err
		}
		a.messages = append(a.messages, string(marshal(t, product)))
	}
	a.header, err = stream.Header()
	return a, err
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	require.NoError(t, err)
	return content
}
