// Command gateway is the guard as a service that a proxy asks before it lets a
// request through to an API, in whatever language that is written. It answers
// nginx's auth_request, the forward authentication of Traefik and Caddy, and
// Envoy's ext_authz over gRPC:
//
//	ISSUER=https://your-tenant.logto.app/oidc AUDIENCE=https://shopping.api \
//	RULES=examples/gateway/rules.txt go run ./examples/gateway
//
//	GET /nginx         asks about X-Original-Method and X-Original-URI
//	GET /forward-auth  asks about X-Forwarded-Method and X-Forwarded-Uri
//	GET /healthz       200, for probes of the gateway itself
//
// An answer of 2xx lets the request through, with the caller in the fields
// X-Auth-Subject, X-Auth-Client, X-Auth-App, X-Auth-Scopes and X-Auth-Decision.
// README.md beside this file says what each proxy must be told, and what the
// gateway refuses.
//
// Environment:
//
//	ISSUER            the issuer of the tokens, as its discovery document names it
//	AUDIENCE          the APIs' resource indicator, as registered at the issuer
//	RULES             the file that says who may do what; rules.txt is an example
//	ADDR              the address to listen on; default 127.0.0.1:8080
//	GRPC_ADDR         the address for Envoy; default: none, Envoy is not answered
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
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/m2mauth/m2mauth"
	"google.golang.org/grpc"
)

func main() {
	if err := run(context.Background(), os.Getenv); err != nil {
		fmt.Fprintf(os.Stderr, "gateway: cannot run:\n%v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string) error {
	config, err := m2mauth.ConfigFromEnv("M2MAUTH_")
	if err != nil {
		return err // every mistake in the environment, one a line
	}
	config.Issuer = cmp.Or(config.Issuer, getenv("ISSUER"))
	config.Audience = cmp.Or(config.Audience, getenv("AUDIENCE"))
	config.JWKSURL = cmp.Or(config.JWKSURL, getenv("JWKS_URL"))
	if config.InsecureHTTPHosts == nil {
		config.InsecureHTTPHosts = strings.FieldsFunc(getenv("PLAIN_HTTP_HOSTS"), func(r rune) bool { return r == ',' || r == ' ' })
	}
	guard, configErr := m2mauth.New(config)
	rules, rulesErr := readTable(getenv("RULES"))
	if err := errors.Join(configErr, rulesErr); err != nil {
		return err // every mistake, one a line
	}
	g := &gateway{guard: guard, rules: rules}

	forHTTP, err := net.Listen("tcp", cmp.Or(getenv("ADDR"), "127.0.0.1:8080"))
	if err != nil {
		return err
	}
	var forGRPC net.Listener
	if addr := getenv("GRPC_ADDR"); addr != "" {
		if forGRPC, err = net.Listen("tcp", addr); err != nil {
			return errors.Join(err, forHTTP.Close())
		}
	}
	return serve(ctx, g, forHTTP, forGRPC)
}

func readTable(file string) (table, error) {
	if file == "" {
		return nil, errors.New("RULES is empty: set it to the file that says who may do what")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("RULES: %w", err)
	}
	rules, err := parseTable(string(text))
	if err != nil {
		return nil, fmt.Errorf("RULES: %s:\n%w", file, err)
	}
	return rules, nil
}

const (
	// shutdownTimeout is how long requests under way may take after the signal.
	shutdownTimeout = 10 * time.Second

	// maxHeaderBytes is more than nginx accepts of a caller (4 × 16 KiB in
	// nginx.conf): what the gateway cannot read would be answered with 500.
	maxHeaderBytes = 128 << 10
)

// serve answers proxies until ctx is done or the process gets SIGINT or SIGTERM,
// and then lets the requests under way finish. forGRPC may be nil.
func serve(ctx context.Context, g *gateway, forHTTP, forGRPC net.Listener) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	server := &http.Server{
		Handler:           g.routes(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second, // longer than a request may wait for the issuer's keys (m2mauth.Config.FetchTimeout)
		IdleTimeout:       2 * time.Minute,  // longer than nginx keeps an idle connection, so that it never asks on one just closed
		MaxHeaderBytes:    maxHeaderBytes,
	}
	envoy := grpc.NewServer()
	g.register(envoy)

	served := make(chan error, 2)
	go func() { served <- server.Serve(forHTTP) }()
	slog.Info("listening", "url", "http://"+forHTTP.Addr().String())
	if forGRPC != nil {
		go func() { served <- envoy.Serve(forGRPC) }()
		slog.Info("listening for Envoy", "address", forGRPC.Addr().String())
	}

	select {
	case err := <-served:
		envoy.Stop()
		return errors.Join(err, server.Close())
	case <-ctx.Done():
	}
	stop() // from here on a second signal has its usual effect

	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	defer context.AfterFunc(grace, envoy.Stop)() // ends GracefulStop
	err := server.Shutdown(grace)
	if err != nil {
		err = errors.Join(err, server.Close())
	}
	envoy.GracefulStop()
	return err
}
