// Command grpc is examples/shop as a gRPC server: an API that only M2M apps with
// the right permission may call. It needs a certificate, since a token that
// travels in the clear is anybody's. One to try it out:
//
//	go run $(go env GOROOT)/src/crypto/tls/generate_cert.go --host localhost --ecdsa-curve P256
//	ISSUER=https://your-tenant.logto.app/oidc AUDIENCE=https://shopping.api \
//	TLS_CERT=cert.pem TLS_KEY=key.pem go run ./examples/grpc
//
//	ListProducts    tokens with read:products
//	CreateProduct   tokens with write:products
//	WatchProducts   tokens with read:products; the stream ends when the token does
//	WhoAmI          any valid token
//
// The health service is public. The environment is that of examples/shop, ISSUER,
// AUDIENCE, ADDR, JWKS_URL and PLAIN_HTTP_HOSTS, or M2MAUTH_ISSUER and so on, and
// TLS_CERT and TLS_KEY, the files of the certificate and its key. The client is examples/grpc/grpc-client.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/grpcauth"
	"github.com/m2mauth/m2mauth/examples/grpc/shoppb"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		fmt.Fprintf(os.Stderr, "grpc: cannot run:\n%v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string) error {
	config, err := shopapi.ConfigFromEnv(getenv)
	if err != nil {
		return err // every mistake in the environment, one a line
	}
	guard, err := m2mauth.New(config)
	tls, tlsErr := credentials.NewServerTLSFromFile(getenv("TLS_CERT"), getenv("TLS_KEY"))
	if tlsErr != nil {
		tlsErr = fmt.Errorf("TLS_CERT and TLS_KEY: %w", tlsErr)
	}
	if err := errors.Join(err, tlsErr); err != nil {
		return err // every mistake in the configuration, one a line
	}
	server, err := newServer(guard, tls)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", cmp.Or(getenv("ADDR"), "127.0.0.1:8443"))
	if err != nil {
		return err
	}
	shopapi.WarmUp(ctx, guard)
	return serve(ctx, listener, server)
}

// newServer makes the server. Its error names each method that was forgotten and
// each that is misspelt, so that neither gets as far as a caller.
func newServer(guard *m2mauth.Guard, tls credentials.TransportCredentials) (*grpc.Server, error) {
	auth, err := grpcauth.New(grpcauth.Config{
		Guard: guard,
		Rules: map[string]m2mauth.Rule{
			shoppb.Shop_ListProducts_FullMethodName:  m2mauth.AllScopes("read:products"),
			shoppb.Shop_CreateProduct_FullMethodName: m2mauth.AllScopes("write:products"),
			shoppb.Shop_WatchProducts_FullMethodName: m2mauth.AllScopes("read:products"),
			// AnyToken tells who calls. It is no permission: with Logto every M2M app
			// of the tenant gets a valid token, also one without any role.
			shoppb.Shop_WhoAmI_FullMethodName: m2mauth.AnyToken(),
		},
		Public: []string{
			healthpb.Health_Check_FullMethodName,
			healthpb.Health_List_FullMethodName,
			healthpb.Health_Watch_FullMethodName,
		},
	})
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer(append(auth.ServerOptions(), grpc.Creds(tls))...)
	shoppb.RegisterShopServer(server, newShop())
	healthpb.RegisterHealthServer(server, health.NewServer())
	return server, auth.Validate(server)
}

// shutdownTimeout is how long calls under way may take after the signal.
const shutdownTimeout = 10 * time.Second

// serve answers calls until ctx is done.
func serve(ctx context.Context, listener net.Listener, server *grpc.Server) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	slog.Info("listening", "address", listener.Addr().String())
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	force := time.AfterFunc(shutdownTimeout, server.Stop) // a stream may be open for as long as its token lives
	defer force.Stop()
	server.GracefulStop()
	if err := <-served; !errors.Is(err, grpc.ErrServerStopped) { // that is: stopped before it began
		return err
	}
	return nil
}

// shop keeps its products in memory.
type shop struct {
	shoppb.UnimplementedShopServer

	mu       sync.Mutex // guards the fields below
	products []*shoppb.Product
	more     chan struct{} // closed when there is another product
}

func newShop() *shop {
	s := &shop{more: make(chan struct{})}
	for _, p := range shopapi.Products() {
		s.products = append(s.products, &shoppb.Product{Id: int32(p.ID), Name: p.Name})
	}
	return s
}

// from returns the products but for the first n, and what is closed when there
// are more.
func (s *shop) from(n int) ([]*shoppb.Product, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.products[n:]), s.more
}

func (s *shop) ListProducts(ctx context.Context, _ *shoppb.ListProductsRequest) (*shoppb.ListProductsResponse, error) {
	claims, _ := m2mauth.FromContext(ctx)
	slog.DebugContext(ctx, "list products", "app", claims.AppID())
	products, _ := s.from(0)
	return &shoppb.ListProductsResponse{Products: products}, nil
}

func (s *shop) CreateProduct(ctx context.Context, r *shoppb.CreateProductRequest) (*shoppb.Product, error) {
	claims, _ := m2mauth.FromContext(ctx)
	slog.DebugContext(ctx, "create a product", "app", claims.AppID())
	s.mu.Lock()
	defer s.mu.Unlock()
	product := &shoppb.Product{Id: int32(len(s.products) + 1), Name: r.GetName()}
	s.products = append(s.products, product)
	close(s.more)
	s.more = make(chan struct{})
	return product, nil
}

func (s *shop) WatchProducts(_ *shoppb.WatchProductsRequest, stream grpc.ServerStreamingServer[shoppb.Product]) error {
	// A caller who is refused gets no header. Left to the first product, it might
	// not have come when the token expires, and the caller could not tell the two apart.
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	for sent := 0; ; {
		products, more := s.from(sent)
		for _, product := range products {
			if err := stream.Send(product); err != nil {
				return err
			}
			sent++
		}
		select {
		case <-more:
		case <-stream.Context().Done(): // the caller has gone, or its token has expired
			return stream.Context().Err()
		}
	}
}

func (s *shop) WhoAmI(ctx context.Context, _ *shoppb.WhoAmIRequest) (*shoppb.WhoAmIResponse, error) {
	claims, _ := m2mauth.FromContext(ctx)
	identity := shopapi.Identify(claims)
	return &shoppb.WhoAmIResponse{AppId: identity.AppID, ClientId: identity.ClientID, Scopes: identity.Scopes}, nil
}
