// Command connect is the shop as remote procedures: a service of Connect
// (https://connectrpc.com), whose handlers are http.Handlers, behind the guard's
// own middlewares.
//
//	ISSUER=https://your-tenant.logto.app/oidc AUDIENCE=https://shopping.api go run ./examples/connect
//
//	GET /healthz                           everybody
//	/shop.v1.ShopService/ListProducts      tokens with read:products
//	/shop.v1.ShopService/CreateProduct     tokens with write:products
//
//	curl -H "Authorization: Bearer $TOKEN" --json {} http://127.0.0.1:8080/shop.v1.ShopService/ListProducts
//
// Clients may speak the Connect protocol or gRPC-Web. For gRPC, which needs
// HTTP/2, serve TLS, or set [http.Server.Protocols].
//
// Environment:
//
//	ISSUER            the issuer of the tokens, as its discovery document names it
//	AUDIENCE          this API's resource indicator, as registered at the issuer
//	ADDR              the address to listen on; default 127.0.0.1:8080
//	JWKS_URL          where the issuer's keys are; default: found by discovery
//	PLAIN_HTTP_HOSTS  hosts that may be asked for keys over http, comma-separated;
//	                  loopback always may
//
// And all settings that [m2mauth.ConfigFromEnv] reads, such as M2MAUTH_ISSUER, which
// goes before ISSUER, and M2MAUTH_INSECURE_HTTP_HOSTS, before PLAIN_HTTP_HOSTS.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"connectrpc.com/connect"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/connect/shopv1"
	"github.com/m2mauth/m2mauth/examples/connect/shopv1/shopv1connect"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

func main() {
	if err := run(context.Background(), os.Getenv); err != nil {
		fmt.Fprintf(os.Stderr, "connect: cannot run:\n%v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string) error {
	config, err := shopapi.ConfigFromEnv(getenv)
	if err != nil {
		return err // every mistake in the environment, one a line
	}
	guard, err := newGuard(config)
	if err != nil {
		return err // every mistake in the configuration, one a line
	}
	listener, err := net.Listen("tcp", cmp.Or(getenv("ADDR"), "127.0.0.1:8080"))
	if err != nil {
		return err
	}
	shopapi.WarmUp(ctx, guard)
	return shopapi.Serve(ctx, listener, routes(guard))
}

func newGuard(config m2mauth.Config) (*m2mauth.Guard, error) {
	config.ErrorHandler = refuse
	return m2mauth.New(config)
}

// routes mounts the service once for each procedure, with the rule of that
// procedure: one that is added to the service and forgotten here is open to nobody.
func routes(guard *m2mauth.Guard) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		shopapi.WriteJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	_, service := shopv1connect.NewShopServiceHandler(shop{})
	for procedure, rule := range map[string]m2mauth.Rule{
		shopv1connect.ShopServiceListProductsProcedure:  m2mauth.AllScopes("read:products"),
		shopv1connect.ShopServiceCreateProductProcedure: m2mauth.AllScopes("write:products"),
	} {
		mux.Handle(procedure, guard.RequireRule(rule)(service))
	}
	return mux
}

var errorWriter = connect.NewErrorWriter()

// refuse answers in the caller's protocol, so that its error has our text too.
// Without it a client still gets an error, whose code it makes from the status.
func refuse(w http.ResponseWriter, r *http.Request, refusal *m2mauth.Error) {
	err := connect.NewError(code(refusal.Status), errors.New(refusal.Description))
	_ = errorWriter.Write(w, r, err) // the caller is gone: nobody is left to tell
}

// code returns the code that the Connect protocol writes as the same status.
func code(status int) connect.Code {
	switch status {
	case http.StatusBadRequest:
		return connect.CodeInvalidArgument
	case http.StatusUnauthorized:
		return connect.CodeUnauthenticated
	case http.StatusForbidden:
		return connect.CodePermissionDenied
	case http.StatusTooManyRequests:
		return connect.CodeResourceExhausted
	case http.StatusServiceUnavailable:
		return connect.CodeUnavailable
	}
	return connect.CodeInternal
}

// shop is the service. It needs nothing of Connect to know its caller.
type shop struct{}

func (shop) ListProducts(ctx context.Context, _ *shopv1.ListProductsRequest) (*shopv1.ListProductsResponse, error) {
	claims, _ := m2mauth.FromContext(ctx)
	slog.DebugContext(ctx, "list products", "app", claims.AppID())
	response := new(shopv1.ListProductsResponse)
	for _, p := range shopapi.Products() {
		response.Products = append(response.Products, message(p))
	}
	return response, nil
}

func (shop) CreateProduct(ctx context.Context, _ *shopv1.CreateProductRequest) (*shopv1.CreateProductResponse, error) {
	claims, _ := m2mauth.FromContext(ctx)
	slog.DebugContext(ctx, "create a product", "app", claims.AppID())
	return &shopv1.CreateProductResponse{Product: message(shopapi.NewProduct())}, nil
}

func message(p shopapi.Product) *shopv1.Product {
	return &shopv1.Product{Id: int64(p.ID), Name: p.Name}
}
