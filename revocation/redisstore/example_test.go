package redisstore_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/revocation"
	"github.com/m2mauth/m2mauth/revocation/redisstore"
)

// A replica of an API follows the list, and is ready once it has read all of it.
func Example() {
	run := func(ctx context.Context) error {
		store, err := redisstore.New(redisstore.Config{
			Address:  "redis.internal:6379",
			Username: "m2mauth-replica",
			Password: os.Getenv("REDIS_PASSWORD"),
			TLS:      &tls.Config{},
		})
		if err != nil {
			return err
		}
		defer store.Close()
		list, err := revocation.New(revocation.Options{Store: store, MaxTokenLifetime: time.Hour})
		if err != nil {
			return err
		}
		guard, err := m2mauth.New(m2mauth.Config{
			Issuer:      "https://your.logto.endpoint/oidc",
			Audience:    "https://shopping.api",
			MaxLifetime: time.Hour,
			Revoked:     list.Revoked,
		})
		if err != nil {
			return err
		}
		go list.Run(ctx)

		http.Handle("GET /products", guard.Require("read:products")(http.NotFoundHandler()))
		http.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
			if err := list.Ready(r.Context()); err != nil {
				slog.Error("not ready", "error", err)
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		return http.ListenAndServe(":8080", nil)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// Whoever sets a server up asks it first whether it keeps what it acknowledges.
func ExampleStore_Durable() {
	setUp := func(ctx context.Context, store *redisstore.Store) error {
		if err := store.Durable(ctx); err != nil {
			return err
		}
		return revocation.Init(ctx, store)
	}
	_ = setUp
}
