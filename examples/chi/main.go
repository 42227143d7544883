// Command chi is examples/shop with chi: an HTTP API that only M2M apps with
// the right permission may call.
//
//	ISSUER=https://your-tenant.logto.app/oidc AUDIENCE=https://shopping.api go run ./examples/chi
//
//	GET  /healthz    everybody
//	GET  /products   tokens with read:products
//	POST /products   tokens with write:products
//	GET  /whoami     any valid token
//
// The environment is that of examples/shop: ISSUER, AUDIENCE, ADDR, JWKS_URL and
// PLAIN_HTTP_HOSTS, or M2MAUTH_ISSUER and so on.
//
// chi needs no adapter: its middlewares are those of net/http.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

func main() {
	if err := run(context.Background(), os.Getenv); err != nil {
		fmt.Fprintf(os.Stderr, "chi: cannot run:\n%v\n", err)
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
	router := chi.NewRouter()
	router.Use(middleware.Recoverer)
	router.Get("/healthz", healthz)
	router.With(guard.Require("read:products")).Get("/products", list)
	router.With(guard.Require("write:products")).Post("/products", create)
	// Authenticate tells who calls. It is no permission: with Logto every M2M app
	// of the tenant gets a valid token, also one without any role.
	router.With(guard.Authenticate).Get("/whoami", whoami)
	return shopapi.HeadAsGet(router)
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
