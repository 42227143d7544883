// Command delegation is an API that a service calls on behalf of its users. A user
// calls the service; the service exchanges the user's token for one with which it calls
// this API (RFC 8693). The user stays sub, and the service is client_id. To see it at
// work, with an issuer of its own:
//
//	go run ./examples/delegation -demo
//
// With your Logto:
//
//	ISSUER=https://your-tenant.logto.app/oidc AUDIENCE=https://orders.api \
//		SERVICE=… AGENT=… go run ./examples/delegation
//
//	GET /healthz   everybody
//	GET /orders    the service for a user, with read:orders
//	POST /orders   the same with write:orders, if the agent acts for the user
//
// Environment:
//
//	ISSUER            the issuer of the tokens, as its discovery document names it
//	AUDIENCE          this API's resource indicator, as registered at the issuer
//	SERVICE           the app ID of the service that may call for users
//	AGENT             the ID of the user or app that may act for users
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
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

func main() {
	show := flag.Bool("demo", false, "run with an issuer of its own, and print what each caller gets")
	flag.Parse()
	err := error(nil)
	if *show {
		err = demo(context.Background(), os.Stdout)
	} else {
		err = run(context.Background(), os.Getenv)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "delegation: cannot run:\n%v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string) error {
	config, err := shopapi.ConfigFromEnv(getenv)
	if err != nil {
		return err // every mistake in the environment, one a line
	}
	guard, err := m2mauth.New(config)
	service, agent := getenv("SERVICE"), getenv("AGENT")
	if service == "" || agent == "" {
		err = errors.Join(err, errors.New("set SERVICE and AGENT: who may call and act for users"))
	}
	if err != nil {
		return err // every mistake in the configuration, one a line
	}
	listener, err := net.Listen("tcp", cmp.Or(getenv("ADDR"), "127.0.0.1:8080"))
	if err != nil {
		return err
	}
	shopapi.WarmUp(ctx, guard)
	return shopapi.Serve(ctx, listener, routes(guard, service, agent))
}

func routes(guard *m2mauth.Guard, service, agent string) http.Handler {
	forUser := m2mauth.AllOf(
		m2mauth.UserToken(),       // for a user: the service's own token does not pass
		m2mauth.ClientID(service), // by this service: the user's own apps do not pass
	)
	byAgent := m2mauth.AllOf(forUser, m2mauth.ActedBy(agent)) // and the agent acts for the user

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		shopapi.WriteJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.Handle("GET /orders",
		guard.RequireRule(m2mauth.AllOf(forUser, m2mauth.AllScopes("read:orders")))(http.HandlerFunc(list)))
	mux.Handle("POST /orders",
		guard.RequireRule(m2mauth.AllOf(byAgent, m2mauth.AllScopes("write:orders")))(http.HandlerFunc(create)))
	return mux
}

// order says whose it is, and who ordered.
type order struct {
	User  string `json:"user"`
	By    string `json:"by"`              // the service
	Agent string `json:"agent,omitempty"` // who acts for the user, if not the user
}

func list(w http.ResponseWriter, r *http.Request) {
	shopapi.WriteJSON(w, http.StatusOK, []order{orderOf(r)})
}

func create(w http.ResponseWriter, r *http.Request) {
	shopapi.WriteJSON(w, http.StatusCreated, orderOf(r))
}

func orderOf(r *http.Request) order {
	claims, _ := m2mauth.FromContext(r.Context())
	actor, _ := claims.Actor() // the zero Actor where nobody acts for the user
	slog.InfoContext(r.Context(), r.Pattern, "user", claims.Subject(), "service", claims.ClientID(), "agent", actor.Subject)
	return order{User: claims.Subject(), By: claims.ClientID(), Agent: actor.Subject}
}
