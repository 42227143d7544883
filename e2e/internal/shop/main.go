// Command shop is an API whose guard is seen by Prometheus, for the end-to-end tests of
// that.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/promauth"
	"github.com/m2mauth/m2mauth/revocation"
	"github.com/m2mauth/m2mauth/revocation/redisstore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "shop: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	config, err := m2mauth.ConfigFromEnv("M2MAUTH_")
	if err != nil {
		return err
	}
	list, err := startList(ctx, os.Getenv("REDIS"), config.Issuer)
	if err != nil {
		return err
	}
	config.Revoked = list.Revoked
	if service := os.Getenv("SESSIONS"); service != "" {
		config.Revoked = loggedOut(service)
	}

	registry := prometheus.NewRegistry()
	metrics, err := promauth.New(registry, promauth.Options{Guard: "shop"})
	if err != nil {
		return err
	}
	config.OnDecision = metrics.OnDecision
	guard, err := m2mauth.New(config)
	if err != nil {
		return err
	}
	metrics.ObserveGuard(guard)
	metrics.ObserveList(list)

	mux := http.NewServeMux()
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "Coffee grinder") })
	mux.Handle("GET /products", guard.Require("read:products")(ok))
	mux.Handle("GET /offers", guard.RequireRule(m2mauth.Custom("has a contract", contract))(ok))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Addr: os.Getenv("ADDR"), Handler: mux}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// startList returns the list of revoked tokens: this process's own, in which one client
// is, or that of a Redis, whose absence it bears for 20 seconds.
func startList(ctx context.Context, redis, issuer string) (*revocation.List, error) {
	options := revocation.Options{MaxTokenLifetime: time.Hour, StaleFor: 20 * time.Second}
	if redis != "" {
		store, err := redisstore.New(redisstore.Config{Address: redis})
		if err != nil {
			return nil, err
		}
		options.Store = store
	}
	list, err := revocation.New(options)
	if err != nil {
		return nil, err
	}
	go list.Run(ctx)
	if redis == "" {
		_, err = list.Revoke(ctx, revocation.Entry{Issuers: []string{issuer}, Client: "revoked", By: "the test"})
	}
	return list, err
}

// loggedOut returns a function of the shop's own, which asks a service about each client.
func loggedOut(service string) func(context.Context, m2mauth.Claims) (bool, error) {
	return func(ctx context.Context, claims m2mauth.Claims) (bool, error) {
		r, err := http.NewRequestWithContext(ctx, "GET", service+"?client="+url.QueryEscape(claims.ClientID()), nil)
		if err != nil {
			return false, err
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			return false, err
		}
		response.Body.Close()
		switch response.StatusCode {
		case http.StatusOK:
			return false, nil
		case http.StatusGone:
			return true, nil
		}
		return false, errors.New(response.Status)
	}
}

// contract looks a client up, and cannot for one: a bug, such as a missing table.
func contract(_ context.Context, claims m2mauth.Claims, _ m2mauth.Request) error {
	if claims.ClientID() == "without-a-row" {
		return errors.New("no such table: contracts")
	}
	return nil
}
