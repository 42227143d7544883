package grpcauth_test

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/grpcauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const audience = "https://shopping.api"

// Methods of grpc-go's own test service.
const (
	emptyCall  = testpb.TestService_EmptyCall_FullMethodName
	unaryCall  = testpb.TestService_UnaryCall_FullMethodName
	download   = testpb.TestService_StreamingOutputCall_FullMethodName
	upload     = testpb.TestService_StreamingInputCall_FullMethodName
	duplexCall = testpb.TestService_FullDuplexCall_FullMethodName
)

// service answers by its fields; what is nil is not implemented.
type service struct {
	testpb.UnimplementedTestServiceServer
	empty    func(context.Context) error
	unary    func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error)
	download func(testpb.TestService_StreamingOutputCallServer) error
	upload   func(testpb.TestService_StreamingInputCallServer) error
	duplex   func(testpb.TestService_FullDuplexCallServer) error
}

func (s *service) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	if s.empty == nil {
		return &testpb.Empty{}, nil
	}
	return &testpb.Empty{}, s.empty(ctx)
}

func (s *service) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return s.unary(ctx, r)
}

func (s *service) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	return s.download(stream)
}

func (s *service) StreamingInputCall(stream testpb.TestService_StreamingInputCallServer) error {
	return s.upload(stream)
}

func (s *service) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	return s.duplex(stream)
}

func newGuard(tb testing.TB, issuer *m2mauthtest.Issuer, change func(*m2mauth.Config)) *m2mauth.Guard {
	tb.Helper()
	config := issuer.Config(audience)
	config.Logger = slog.New(slog.DiscardHandler)
	if change != nil {
		change(&config)
	}
	guard, err := m2mauth.New(config)
	require.NoError(tb, err)
	return guard
}

func newInterceptor(tb testing.TB, config grpcauth.Config) *grpcauth.Interceptor {
	tb.Helper()
	auth, err := grpcauth.New(config)
	require.NoError(tb, err)
	return auth
}

// start serves the test service in memory and returns a client.
func start(tb testing.TB, auth *grpcauth.Interceptor, s *service, options ...grpc.ServerOption) *grpc.ClientConn {
	tb.Helper()
	return startOn(tb, bufconn.Listen(1<<16), auth, s, options...)
}

func startOn(tb testing.TB, listener *bufconn.Listener, auth *grpcauth.Interceptor, s *service, options ...grpc.ServerOption) *grpc.ClientConn {
	tb.Helper()
	server := grpc.NewServer(append(auth.ServerOptions(), options...)...)
	testpb.RegisterTestServiceServer(server, s)
	return serve(tb, listener, server)
}

// serve serves until the test ends and returns a client.
func serve(tb testing.TB, listener *bufconn.Listener, server *grpc.Server) *grpc.ClientConn {
	tb.Helper()
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	tb.Cleanup(func() {
		server.Stop()
		require.NoError(tb, <-done)
	})
	return dial(tb, listener)
}

func dial(tb testing.TB, listener *bufconn.Listener) *grpc.ClientConn {
	tb.Helper()
	conn, err := grpc.NewClient("passthrough:///memory",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, conn.Close()) })
	return conn
}

// with returns a context for calls with these values of authorization.
func with(ctx context.Context, authorization ...string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.MD{"authorization": authorization})
}

func empty(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := testpb.NewTestServiceClient(conn).EmptyCall(ctx, &testpb.Empty{})
	return err
}

// reason returns the code of an error and the reason of its ErrorInfo.
func reason(tb testing.TB, err error) (codes.Code, string) {
	tb.Helper()
	info, _ := detailsOf(tb, err)
	return status.Code(err), info.GetReason()
}

// detailsOf returns the details of an error; both must be of this package.
func detailsOf(tb testing.TB, err error) (info *errdetails.ErrorInfo, retry *errdetails.RetryInfo) {
	tb.Helper()
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			require.Nil(tb, info)
			require.Equal(tb, grpcauth.Domain, detail.GetDomain())
			info = detail
		case *errdetails.RetryInfo:
			require.Nil(tb, retry)
			retry = detail
		default:
			require.Fail(tb, "another detail", "%v", detail)
		}
	}
	return info, retry
}
