// Command issuers is an HTTP API that takes tokens of several issuers, such as
// two Logto tenants or one server under two domains:
//
//	ISSUERS=https://one.logto.app/oidc,https://two.logto.app/oidc AUDIENCE=https://shopping.api go run ./examples/issuers
//
//	GET /healthz    everybody
//	GET /status     everybody: how old each issuer's keys are
//	GET /products   tokens of any of the issuers with read:products
//	GET /.well-known/oauth-protected-resource  where clients find the issuers (RFC 9728), if AUDIENCE is an https URL
//
// To see it work without a server or an account:
//
//	go run ./examples/issuers -demo
//
// Environment:
//
//	ISSUERS           the issuers, comma-separated; or ISSUER, and ISSUER_2 for another
//	AUDIENCE          this API's resource indicator, as registered at each issuer
//	ADDR              the address to listen on; default 127.0.0.1:8080
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
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

func main() {
	demonstrate := flag.Bool("demo", false, "run two issuers and the API in this process, and print what each caller got")
	flag.Parse()
	run := func() error { return serve(context.Background(), os.Getenv) }
	if *demonstrate {
		slog.SetDefault(slog.New(slog.DiscardHandler)) // the table says it all
		run = func() error { return demo(context.Background(), os.Stdout) }
	}
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "issuers: cannot run:\n%v\n", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, getenv func(string) string) error {
	config, err := shopapi.ConfigFromEnv(getenv)
	if err != nil {
		return err // every mistake in the environment, one a line
	}
	issuers := shopapi.SplitList(cmp.Or(getenv("ISSUERS"), config.Issuer+","+getenv("ISSUER_2")))
	guard, err := newGuard(issuers, config)
	if err != nil {
		return err // every mistake in the configuration, one a line
	}
	listener, err := net.Listen("tcp", cmp.Or(getenv("ADDR"), "127.0.0.1:8080"))
	if err != nil {
		return err
	}
	shopapi.WarmUp(ctx, guard)
	mux := routes(guard)
	if strings.HasPrefix(config.Audience, "https://") {
		mux.Handle(guard.Metadata(m2mauth.MetadataConfig{Scopes: []string{"read:products"}}))
	}
	return shopapi.Serve(ctx, listener, mux)
}

// newGuard makes one guard of one for each issuer. Here they differ by the issuer
// alone; each could have its own audience, algorithms and claims.
func newGuard(issuers []string, config m2mauth.Config) (*m2mauth.Guard, error) {
	if len(issuers) == 0 {
		return nil, errors.New("ISSUERS is empty: name the issuers, comma-separated")
	}
	if len(issuers) > 1 && (config.JWKSURL != "" || config.JWKS != nil) {
		return nil, errors.New("JWKS_URL, M2MAUTH_JWKS_URL and M2MAUTH_JWKS are for one issuer: with these keys it could sign tokens of the others")
	}
	guards := make([]*m2mauth.Guard, len(issuers))
	var mistakes []error
	for n, issuer := range issuers {
		config.Issuer = issuer
		guard, err := m2mauth.New(config)
		guards[n] = guard
		mistakes = append(mistakes, err)
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	return m2mauth.Join(guards[0], guards[1:]...)
}

func routes(guard *m2mauth.Guard) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		shopapi.WriteJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		worst := guard.Keys()
		states := make(map[string]m2mauth.KeyState)
		for _, status := range append(worst.Others, worst) {
			states[status.Issuer] = status.State
		}
		shopapi.WriteJSON(w, http.StatusOK, states)
	})
	mux.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(list)))
	return mux
}

// list logs the issuer with the app: an app's ID is unique at its issuer only.
func list(w http.ResponseWriter, r *http.Request) {
	claims, _ := m2mauth.FromContext(r.Context())
	slog.InfoContext(r.Context(), "list products", "issuer", claims.Issuer(), "app", claims.AppID())
	shopapi.WriteJSON(w, http.StatusOK, shopapi.Products())
}
