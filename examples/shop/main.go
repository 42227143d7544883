// Command shop is an HTTP API that only M2M apps with the right permission may
// call. It needs an issuer, such as your Logto, and nothing else:
//
//	ISSUER=https://your-tenant.logto.app/oidc AUDIENCE=https://shopping.api go run ./examples/shop
//
//	GET  /healthz    everybody
//	GET  /products   tokens with read:products
//	POST /products   tokens with write:products
//	GET  /whoami     any valid token
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
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

func main() {
	if err := run(context.Background(), os.Getenv); err != nil {
		fmt.Fprintf(os.Stderr, "shop: cannot run:\n%v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string) error {
	config, err := shopapi.ConfigFromEnv(getenv)
	if err != nil {
		return err // every mistake in the environment, one a line
	}
	guard, err := m2mauth.New(config)
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

func routes(guard *m2mauth.Guard) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)
	mux.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(list)))
	mux.Handle("POST /products", guard.Require("write:products")(http.HandlerFunc(create)))
	// Authenticate tells who calls. It is no permission: with Logto every M2M app
	// of the tenant gets a valid token, also one without any role.
	mux.Handle("GET /whoami", guard.Authenticate(http.HandlerFunc(whoami)))
	return mux
}

func healthz(w http.ResponseWriter, _ *http.Request) {
	shopapi.WriteJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

func list(w http.ResponseWriter, r *http.Request) {
	claims, _ := m2mauth.FromContext(r.Context())
	slog.DebugContext(r.Context(), "list products", "app", claims.AppID())
	shopapi.WriteJSON(w, http.StatusOK, shopapi.Products())
}

func create(w http.ResponseWriter, r *http.Request) {
	claims, _ := m2mauth.FromContext(r.Context())
	slog.DebugContext(r.Context(), "create a product", "app", claims.AppID())
	shopapi.WriteJSON(w, http.StatusCreated, shopapi.NewProduct())
}

func whoami(w http.ResponseWriter, r *http.Request) {
	claims, _ := m2mauth.FromContext(r.Context())
	shopapi.WriteJSON(w, http.StatusOK, shopapi.Identify(claims))
}
