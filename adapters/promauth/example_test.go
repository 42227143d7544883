package promauth_test

import (
	"context"
	"log"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/promauth"
	"github.com/m2mauth/m2mauth/revocation"
)

// The metrics of a guard at /metrics.
func Example() {
	metrics, err := promauth.New(prometheus.DefaultRegisterer, promauth.Options{})
	if err != nil {
		log.Fatal(err)
	}
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer:     "https://your.logto.endpoint/oidc",
		Audience:   "https://shopping.api",
		OnDecision: metrics.OnDecision,
	})
	if err != nil {
		log.Fatal(err)
	}
	metrics.ObserveGuard(guard)

	mux := http.NewServeMux()
	mux.Handle("GET /products", guard.Require("read:products")(http.NotFoundHandler()))
	mux.Handle("GET /metrics", promhttp.Handler())
}

// A function of the program's own for each decision, and the metrics of a list of revoked
// tokens.
func ExampleMetrics_ObserveList() {
	metrics, err := promauth.New(prometheus.NewRegistry(), promauth.Options{Guard: "shop"})
	if err != nil {
		log.Fatal(err)
	}
	list, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	metrics.ObserveList(list)
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer:   "https://your.logto.endpoint/oidc",
		Audience: "https://shopping.api",
		Revoked:  list.Revoked,
		OnDecision: func(ctx context.Context, d m2mauth.Decision) {
			metrics.OnDecision(ctx, d)
			slog.DebugContext(ctx, "decision", "outcome", d.Outcome)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	metrics.ObserveGuard(guard)
	// Output:
}
