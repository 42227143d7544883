package main

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
	idle    bool // has no product for the first stream
}

func (s *shop) WatchProducts(_ *shoppb.WatchProductsRequest, stream grpc.ServerStreamingServer[shoppb.Product]) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	s.tokens = append(s.tokens, md.Get("authorization")...)
	if s.refuses && len(s.tokens) == 1 {
		return status.Error(codes.Unauthenticated, "the token is not good")
	}
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	first := len(s.tokens) == 1
	if !first || !s.idle {
		names := []string{"Kettle", "Teapot"}
		for n := range s.tokens {
			if err := stream.Send(&shoppb.Product{Id: int32(n + 1), Name: names[n]}); err != nil {
				return err
			}
		}
	}
	if first {
		return status.Error(codes.Unauthenticated, "the token has expired")
	}
	return status.Error(codes.Unavailable, "closed")
}

func runAgainst(t *testing.T, s *shop, prepare ...func(*m2mauthtest.Issuer)) (output string, err error) {
	t.Helper()
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	for _, f := range prepare {
		f(issuer)
	}
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
	for name, s := range map[string]*shop{"after a product": {}, "before there was a product": {idle: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			output, err := runAgainst(t, s)
			assert.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
			assert.Equal(t, "1\tKettle\n2\tTeapot\n", output)
			require.Len(t, s.tokens, 2)
			assert.True(t, strings.HasPrefix(s.tokens[0], "Bearer ey"))
		})
	}
}

// fakeShop opens streams that live for some time and end as if their token had
// expired, and refuses one more.
type fakeShop struct {
	shoppb.ShopClient
	opens int
	lives time.Duration
	began []time.Time
}

func (s *fakeShop) WatchProducts(ctx context.Context, _ *shoppb.WatchProductsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[shoppb.Product], error) {
	s.began = append(s.began, time.Now())
	switch refused := len(s.began) - s.opens; {
	case refused == 1:
		return &fakeStream{ctx: ctx}, nil
	case refused > 1:
		return nil, errors.New("the client came again after it was refused")
	}
	return &fakeStream{ctx: ctx, header: metadata.MD{}, lives: s.lives}, nil
}

type fakeStream struct {
	grpc.ClientStream
	ctx    context.Context
	header metadata.MD
	lives  time.Duration
}

func (s *fakeStream) Header() (metadata.MD, error) { return s.header, nil }

func (s *fakeStream) Recv() (*shoppb.Product, error) {
	select {
	case <-time.After(s.lives):
		return nil, status.Error(codes.Unauthenticated, "the token has expired")
	case <-s.ctx.Done():
		return nil, status.FromContextError(s.ctx.Err()).Err()
	}
}

func TestStreamsWithoutAProductAreOpenedAgainAndNeverMoreThanOneASecond(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ lives, between time.Duration }{
		"a stream that lives for an hour is followed by another at once": {time.Hour, time.Hour},
		"one that ends at once is followed by another a second after it": {0, time.Second},
		"one that lives for less than a second is too":                   {400 * time.Millisecond, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &fakeShop{opens: 3, lives: row.lives}
				err := watch(t.Context(), s, io.Discard)
				assert.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
				require.Len(t, s.began, 4)
				for n := range s.opens {
					assert.Equal(t, row.between, s.began[n+1].Sub(s.began[n]))
				}
			})
		})
	}
}

func TestTheClientCanBeStoppedBetweenTwoStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		s := &fakeShop{opens: 3}
		require.ErrorIs(t, watch(ctx, s, io.Discard), context.DeadlineExceeded)
		assert.Len(t, s.began, 1)
	})
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
