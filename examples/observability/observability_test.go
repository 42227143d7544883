package observability_test

import (
	"context"
	"encoding/json"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/otelauth"
	"github.com/m2mauth/m2mauth/adapters/promauth"
	"github.com/m2mauth/m2mauth/examples/observability"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const audience = "https://shopping.api"

// The snippet of docs/operations.md.
func Example() {
	metrics, err := promauth.New(prometheus.DefaultRegisterer, promauth.Options{})
	if err != nil {
		log.Fatal(err)
	}
	telemetry, err := otelauth.New(otelauth.Options{})
	if err != nil {
		log.Fatal(err)
	}
	audit := observability.Audit(slog.Default())
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer:   "https://your.logto.endpoint/oidc",
		Audience: "https://shopping.api",
		OnDecision: func(ctx context.Context, d m2mauth.Decision) {
			metrics.OnDecision(ctx, d)
			telemetry.OnDecision(ctx, d)
			audit(ctx, d)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	metrics.ObserveGuard(guard)
	telemetry.ObserveGuard(guard)

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.Handler())
	mux.Handle("GET /products", guard.Require("read:products")(http.NotFoundHandler()))
}

// What each module does is tested there. Here both and the audit log see each decision.
func TestEachSeesEveryDecision(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	metrics, err := promauth.New(registry, promauth.Options{})
	require.NoError(t, err)
	telemetry, err := otelauth.New(otelauth.Options{})
	require.NoError(t, err)
	var b strings.Builder
	audit := observability.Audit(slog.New(slog.NewJSONHandler(&b, nil)))

	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config(audience)
	config.Logger = slog.New(slog.DiscardHandler)
	config.OnDecision = func(ctx context.Context, d m2mauth.Decision) {
		metrics.OnDecision(ctx, d)
		telemetry.OnDecision(ctx, d)
		audit(ctx, d)
	}
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	metrics.ObserveGuard(guard)
	telemetry.ObserveGuard(guard)

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	ask := func(path, token string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w
	}
	reader := issuer.Sign(m2mauthtest.Token{AppID: "reader", Audience: audience, Scopes: []string{"read:products"}})
	other := issuer.Sign(m2mauthtest.Token{AppID: "other", Audience: audience})
	for _, token := range []string{reader, reader, other, ""} {
		ask("/products", token)
	}

	page := ask("/metrics", "").Body.String()
	assert.Contains(t, page, `m2mauth_decisions_total{guard="default",outcome="allowed",report_only="false"} 2`)
	assert.Contains(t, page, `m2mauth_decisions_total{guard="default",outcome="no_access_token",report_only="false"} 1`)
	assert.Contains(t, page, `m2mauth_cache_hits_total{guard="default"} 1`)

	var said []string
	for line := range strings.Lines(b.String()) {
		var entry struct {
			Outcome string
			Client  string `json:"client_id"`
			ID      string `json:"jti"`
		}
		require.NoError(t, json.Unmarshal([]byte(line), &entry))
		assert.NotEmpty(t, entry.ID)
		said = append(said, entry.Outcome+" "+entry.Client)
	}
	assert.Equal(t, []string{"allowed reader", "allowed reader", "insufficient_scope other"}, said)
	assert.NotContains(t, b.String(), "eyJ")
}
