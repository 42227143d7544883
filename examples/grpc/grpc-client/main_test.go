package main

import (
	"context"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/m2mauth/m2mauth/examples/grpc/shoppb"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const audience = "https://shopping.api"

// shop ends the first stream as a guard ends one whose token has expired.
type shop struct {
	shoppb.UnimplementedShopServer
	tokens  []string
	refuses bool
}

func (s *shop) WatchProducts(_ *shoppb.WatchProductsRequest, stream grpc.ServerStreamingServer[shoppb.Product]) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	s.tokens = append(s.tokens, md.Get("authorization")...)
	if s.refuses {
		return status.Error(codes.Unauthenticated, "the token has expired")
	}
	names := []string{"Kettle", "Teapot"}
	for n := range s.tokens {
		if err := stream.Send(&shoppb.Product{Id: int32(n + 1), Name: names[n]}); err != nil {
			return err
		}
	}
	if len(s.tokens) == 1 {
		return status.Error(codes.Unauthenticated, "the token has expired")
	}
	return status.Error(codes.Unavailable, "closed")
}

func runAgainst(t *testing.T, s *shop) (output string, err error) {
	t.Helper()
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	issuer.AddResource(audience, "read:products")
	issuer.AddRole("reader", audience, "read:products")
	app := issuer.AddApp("reader", "reader")

	certified := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate of 127.0.0.1
	t.Cleanup(certified.Close)
	file := filepath.Join(t.TempDir(), "cert.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certified.Certificate().Raw}), 0o600))
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&certified.TLS.Certificates[0])))
	shoppb.RegisterShopServer(server, s)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		assert.NoError(t, <-served)
	})

	environment := map[string]string{
		"ISSUER": issuer.URL(), "APP_ID": app.ID, "APP_SECRET": app.Secret,
		"SERVER": listener.Addr().String(), "CA_CERT": file,
	}
	var out strings.Builder
	err = run(t.Context(), func(name string) string { return environment[name] }, &out)
	return out.String(), err
}

func TestTheClientOpensAnotherStreamWhenTheTokenExpires(t *testing.T) {
	t.Parallel()
	s := &shop{}
	output, err := runAgainst(t, s)
	assert.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	assert.Equal(t, "1\tKettle\n2\tTeapot\n", output)
	require.Len(t, s.tokens, 2)
	assert.True(t, strings.HasPrefix(s.tokens[0], "Bearer ey"))
}

func TestTheClientGivesUpWhereItsTokenIsNotAccepted(t *testing.T) {
	t.Parallel()
	s := &shop{refuses: true}
	_, err := runAgainst(t, s)
	assert.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
	assert.Len(t, s.tokens, 1)
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	err := run(context.Background(), func(string) string { return "" }, nil)
	require.EqualError(t, err, "ISSUER is not set\nAPP_ID is not set\nAPP_SECRET is not set")
}
