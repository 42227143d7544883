// Package observability shows how the decisions of a guard become metrics,
// trace events and an audit log. Copy what you need: each is one function for
// m2mauth.Config.OnDecision.
package observability

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/m2mauth/m2mauth"
)

// Prometheus counts decisions by outcome, and how long they took by whether the
// token was remembered. Both labels have few values: callers cannot add any. The
// ID of an app would be no good label, since there may be thousands.
func Prometheus(registry prometheus.Registerer) func(context.Context, m2mauth.Decision) {
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "m2mauth_decisions_total",
		Help: "Requests that the guard decided about, by outcome.",
	}, []string{"outcome"})
	durations := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "m2mauth_decision_duration_seconds",
		Help:    "How long a decision took, waiting included.",
		Buckets: []float64{1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10},
	}, []string{"remembered"})
	registry.MustRegister(decisions, durations)

	return func(_ context.Context, d m2mauth.Decision) {
		remembered := "no"
		if d.Remembered {
			remembered = "yes"
		}
		decisions.WithLabelValues(string(d.Outcome)).Inc()
		durations.WithLabelValues(remembered).Observe(d.Duration.Seconds())
	}
}

// OpenTelemetry counts decisions by outcome, and adds an event to the request's
// span. The span is that of the handler around the guard, such as otelhttp's.
func OpenTelemetry(meter metric.Meter) (func(context.Context, m2mauth.Decision), error) {
	decisions, err := meter.Int64Counter("m2mauth.decisions",
		metric.WithDescription("Requests that the guard decided about, by outcome."))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, d m2mauth.Decision) {
		outcome := attribute.String("m2mauth.outcome", string(d.Outcome))
		decisions.Add(ctx, 1, metric.WithAttributes(outcome))

		span := trace.SpanFromContext(ctx)
		if !span.IsRecording() {
			return
		}
		attributes := []attribute.KeyValue{
			outcome,
			attribute.String("m2mauth.rule", d.Rule.String()),
			attribute.Bool("m2mauth.remembered", d.Remembered),
		}
		if !d.Claims.IsZero() {
			attributes = append(attributes, attribute.String("m2mauth.client_id", d.Claims.ClientID()))
		}
		span.AddEvent("m2mauth.decision", trace.WithAttributes(attributes...))
	}, nil
}

// Audit writes who did what: the app, the token's ID, the rule and the outcome.
// Requests without a good token have no caller, and anybody can send any number
// of them: they are left to the metrics.
func Audit(logger *slog.Logger) func(context.Context, m2mauth.Decision) {
	return func(ctx context.Context, d m2mauth.Decision) {
		if d.Claims.IsZero() {
			return
		}
		logger.InfoContext(ctx, "decision",
			"outcome", d.Outcome,
			"rule", d.Rule.String(),
			"issuer", d.Claims.Issuer(),
			"client_id", d.Claims.ClientID(),
			"sub", d.Claims.Subject(),
			"jti", d.Claims.ID(),
			"organization_id", d.Claims.OrganizationID(),
		)
	}
}

// All tells several.
func All(each ...func(context.Context, m2mauth.Decision)) func(context.Context, m2mauth.Decision) {
	return func(ctx context.Context, d m2mauth.Decision) {
		for _, tell := range each {
			tell(ctx, d)
		}
	}
}
