// Command replica is one of several servers that share a list of what was revoked, over
// HTTP and gRPC, for the end-to-end tests of that.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/grpcauth"
	"github.com/m2mauth/m2mauth/revocation"
	"github.com/m2mauth/m2mauth/revocation/redisstore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "replica: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	store, err := redisstore.New(redisstore.Config{
		Address:  os.Getenv("REDIS"),
		Username: os.Getenv("REDIS_USER"),
		Password: os.Getenv("REDIS_PASSWORD"),
	})
	if err != nil {
		return err
	}
	defer store.Close()
	list, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour, Store: store})
	if err != nil {
		return err
	}
	config := m2mauth.Config{Issuer: os.Getenv("ISSUER"), Audience: os.Getenv("AUDIENCE")}
	admins, err := m2mauth.New(config) // who must get in while the list cannot answer
	if err != nil {
		return err
	}
	config.Revoked = list.Revoked
	guard, err := m2mauth.New(config)
	if err != nil {
		return err
	}

	mux := http.NewServeMux()
	mux.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "Coffee grinder")
	})))
	mux.Handle("/revocations/", http.StripPrefix("/revocations", list.Handler(admins, m2mauth.AllScopes("revoke"))))
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := list.Ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	web := &http.Server{Addr: os.Getenv("ADDR"), Handler: mux}

	auth, err := grpcauth.New(grpcauth.Config{
		Guard: guard,
		Rules: map[string]m2mauth.Rule{healthpb.Health_Watch_FullMethodName: m2mauth.AllScopes("read:products")},
	})
	if err != nil {
		return err
	}
	rpc := grpc.NewServer(auth.ServerOptions()...)
	healthpb.RegisterHealthServer(rpc, health.NewServer()) // its Watch is a stream that stays open
	listener, err := net.Listen("tcp", os.Getenv("GRPC_ADDR"))
	if err != nil {
		return err
	}

	failed := make(chan error, 3)
	go func() { failed <- list.Run(ctx) }()
	go func() { failed <- rpc.Serve(listener) }()
	go func() { failed <- web.ListenAndServe() }()
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	rpc.Stop()
	web.Close()
	return err
}
