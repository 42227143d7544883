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
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/observability"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const audience = "https://shopping.api"

// The snippet of docs/operations.md.
func Example() {
	onOpenTelemetry, err := observability.OpenTelemetry(otel.Meter("shopping.api"))
	if err != nil {
		log.Fatal(err)
	}
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer:   "https://your.logto.endpoint/oidc",
		Audience: "https://shopping.api",
		OnDecision: observability.All(
			observability.Prometheus(prometheus.DefaultRegisterer),
			onOpenTelemetry,
			observability.Audit(slog.Default()),
		),
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.Handler())
	mux.Handle("GET /products", guard.Require("read:products")(http.NotFoundHandler()))
	// Output:
}

// ask sends three requests to an API whose guard tells onDecision: a reader
// twice, a token without the scope, and none.
func ask(t *testing.T, ctx context.Context, onDecision func(context.Context, m2mauth.Decision)) {
	t.Helper()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config(audience)
	config.OnDecision = onDecision
	config.Logger = slog.New(slog.DiscardHandler)
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	api := guard.Require("read:products")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	reader := issuer.Sign(m2mauthtest.Token{AppID: "reader", Audience: audience, Scopes: []string{"read:products"}})
	other := issuer.Sign(m2mauthtest.Token{AppID: "other", Audience: audience})
	for _, token := range []string{reader, reader, other, ""} {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/products", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		api.ServeHTTP(httptest.NewRecorder(), r)
	}
}

func TestPrometheus(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	ask(t, t.Context(), observability.Prometheus(registry))
	assert.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP m2mauth_decisions_total Requests that the guard decided about, by outcome.
# TYPE m2mauth_decisions_total counter
m2mauth_decisions_total{outcome="allowed"} 2
m2mauth_decisions_total{outcome="insufficient_scope"} 1
m2mauth_decisions_total{outcome="no_access_token"} 1
`), "m2mauth_decisions_total"))
	families, err := registry.Gather()
	require.NoError(t, err)
	count := make(map[string]uint64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if h := m.GetHistogram(); h != nil {
				count[m.GetLabel()[0].GetValue()] = h.GetSampleCount()
			}
		}
	}
	assert.Equal(t, map[string]uint64{"yes": 1, "no": 3}, count)
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	assert.Empty(t, problems)
}

func TestOpenTelemetry(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	onDecision, err := observability.OpenTelemetry(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test"))
	require.NoError(t, err)
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")

	ctx, span := tracer.Start(t.Context(), "the request")
	ask(t, ctx, onDecision)
	span.End()

	require.Len(t, spans.Ended(), 1)
	var outcomes []string
	for _, event := range spans.Ended()[0].Events() {
		require.Equal(t, "m2mauth.decision", event.Name)
		set := attribute.NewSet(event.Attributes...)
		outcome, _ := set.Value("m2mauth.outcome")
		client, _ := set.Value("m2mauth.client_id")
		outcomes = append(outcomes, outcome.AsString()+" "+client.AsString())
		rule, _ := set.Value("m2mauth.rule")
		assert.Equal(t, `AllScopes("read:products")`, rule.AsString())
	}
	assert.Equal(t, []string{"allowed reader", "allowed reader", "insufficient_scope other", "no_access_token "}, outcomes)

	var metrics metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &metrics))
	require.Len(t, metrics.ScopeMetrics, 1)
	sum, ok := metrics.ScopeMetrics[0].Metrics[0].Data.(metricdata.Sum[int64])
	require.True(t, ok)
	count := make(map[string]int64)
	for _, point := range sum.DataPoints {
		outcome, _ := point.Attributes.Value("m2mauth.outcome")
		count[outcome.AsString()] = point.Value
	}
	assert.Equal(t, map[string]int64{"allowed": 2, "insufficient_scope": 1, "no_access_token": 1}, count)
}

func TestWithoutASpanThereIsOnlyTheCounter(t *testing.T) {
	t.Parallel()
	onDecision, err := observability.OpenTelemetry(sdkmetric.NewMeterProvider().Meter("test"))
	require.NoError(t, err)
	ask(t, t.Context(), onDecision)
}

func TestAuditNamesCallersAndNoToken(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	ask(t, t.Context(), observability.All(observability.Audit(slog.New(slog.NewJSONHandler(&b, nil)))))
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
