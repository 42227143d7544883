package main

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/oauth"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/grpc/shoppb"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const audience = "https://shopping.api"

// setUp serves the shop over TLS until the test ends. connect connects an app that
// has the roles, or nobody if it is given none.
func setUp(t *testing.T) (connect func(roles ...string) *grpc.ClientConn) {
	t.Helper()
	issuer := m2mauthtest.NewIssuer()
	issuer.AddResource(audience, "read:products", "write:products")
	issuer.AddRole("reader", audience, "read:products")
	issuer.AddRole("writer", audience, "write:products")
	guard, err := m2mauth.New(issuer.Config(audience))
	require.NoError(t, err)

	certified := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate of 127.0.0.1
	t.Cleanup(certified.Close)
	server, err := newServer(guard, credentials.NewServerTLSFromCert(&certified.TLS.Certificates[0]))
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, listener, server) }()
	t.Cleanup(func() {
		stop()
		assert.NoError(t, <-served)
	})

	roots := x509.NewCertPool()
	roots.AddCert(certified.Certificate())
	return func(roles ...string) *grpc.ClientConn {
		options := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, ""))}
		if len(roles) > 0 {
			app := issuer.AddApp("app of "+roles[0], roles...)
			config := clientcredentials.Config{
				ClientID:       app.ID,
				ClientSecret:   app.Secret,
				TokenURL:       issuer.TokenURL(),
				Scopes:         []string{"read:products", "write:products"},
				EndpointParams: url.Values{"resource": {audience}},
			}
			source := config.TokenSource(context.WithValue(context.Background(), oauth2.HTTPClient, issuer.Client()))
			options = append(options, grpc.WithPerRPCCredentials(oauth.TokenSource{TokenSource: source}))
		}
		conn, err := grpc.NewClient(listener.Addr().String(), options...)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, conn.Close()) })
		return conn
	}
}

func TestTheShopLetsThoseThroughWhoMay(t *testing.T) {
	t.Parallel()
	connect := setUp(t)
	conns := map[string]*grpc.ClientConn{"nobody": connect(), "reader": connect("reader"), "writer": connect("writer")}
	for _, row := range []struct {
		who, method string
		call        func(context.Context, shoppb.ShopClient) error
		want        codes.Code
	}{
		{"nobody", "ListProducts", list, codes.Unauthenticated},
		{"reader", "ListProducts", list, codes.OK},
		{"writer", "ListProducts", list, codes.PermissionDenied},
		{"nobody", "CreateProduct", create, codes.Unauthenticated},
		{"reader", "CreateProduct", create, codes.PermissionDenied},
		{"writer", "CreateProduct", create, codes.OK},
		{"nobody", "WatchProducts", watchOne, codes.Unauthenticated},
		{"reader", "WatchProducts", watchOne, codes.OK},
		{"writer", "WatchProducts", watchOne, codes.PermissionDenied},
		{"nobody", "WhoAmI", whoami, codes.Unauthenticated},
		{"writer", "WhoAmI", whoami, codes.OK},
	} {
		err := row.call(t.Context(), shoppb.NewShopClient(conns[row.who]))
		assert.Equal(t, row.want, status.Code(err), "%s calls %s: %v", row.who, row.method, err)
	}

	_, err := healthpb.NewHealthClient(conns["nobody"]).Check(t.Context(), &healthpb.HealthCheckRequest{})
	assert.NoError(t, err)
	answer, err := shoppb.NewShopClient(conns["reader"]).WhoAmI(t.Context(), &shoppb.WhoAmIRequest{})
	require.NoError(t, err)
	assert.NotEmpty(t, answer.GetAppId())
	assert.Equal(t, answer.GetAppId(), answer.GetClientId())
	assert.Equal(t, []string{"read:products"}, answer.GetScopes())
}

func list(ctx context.Context, client shoppb.ShopClient) error {
	_, err := client.ListProducts(ctx, &shoppb.ListProductsRequest{})
	return err
}

func create(ctx context.Context, client shoppb.ShopClient) error {
	_, err := client.CreateProduct(ctx, &shoppb.CreateProductRequest{Name: "Teapot"})
	return err
}

func watchOne(ctx context.Context, client shoppb.ShopClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.WatchProducts(ctx, &shoppb.WatchProductsRequest{})
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func whoami(ctx context.Context, client shoppb.ShopClient) error {
	_, err := client.WhoAmI(ctx, &shoppb.WhoAmIRequest{})
	return err
}

func TestNewProductsReachThoseWhoWatch(t *testing.T) {
	t.Parallel()
	connect := setUp(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := shoppb.NewShopClient(connect("reader")).WatchProducts(ctx, &shoppb.WatchProductsRequest{})
	require.NoError(t, err)
	var names []string
	receive := func() {
		product, err := stream.Recv()
		require.NoError(t, err)
		names = append(names, product.GetName())
	}
	receive()
	receive()
	require.NoError(t, create(t.Context(), shoppb.NewShopClient(connect("writer"))))
	receive()
	assert.Equal(t, []string{"Coffee grinder", "Kettle", "Teapot"}, names)
}

// emptyShop is what a stream of a shop without products sees.
type emptyShop struct {
	grpc.ServerStream
	ctx    context.Context
	opened bool
}

func (s *emptyShop) Context() context.Context     { return s.ctx }
func (s *emptyShop) SendHeader(metadata.MD) error { s.opened = true; return nil }
func (s *emptyShop) Send(*shoppb.Product) error   { return errors.New("there is no product") }

// By the header a client tells a stream whose token expired from one refused.
func TestWhoWatchesAnEmptyShopIsToldThatTheStreamIsOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		stream := &emptyShop{ctx: ctx}
		ended := make(chan error, 1)
		go func() { ended <- (&shop{more: make(chan struct{})}).WatchProducts(nil, stream) }()
		synctest.Wait()
		assert.True(t, stream.opened)
		cancel()
		assert.ErrorIs(t, <-ended, context.Canceled)
	})
}

func TestTokensAreNotSentWithoutTLS(t *testing.T) {
	t.Parallel()
	_, err := grpc.NewClient("127.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(oauth.TokenSource{TokenSource: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "secret"})}))
	require.ErrorContains(t, err, "transport")
}

func TestEveryMistakeInTheEnvironmentIsNamed(t *testing.T) {
	t.Parallel()
	err := run(t.Context(), func(string) string { return "" })
	require.ErrorContains(t, err, "Issuer")
	require.ErrorContains(t, err, "Audience")
	require.ErrorContains(t, err, "TLS_CERT and TLS_KEY")
}
