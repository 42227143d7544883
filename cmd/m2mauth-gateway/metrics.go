package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/promauth"
	"github.com/m2mauth/m2mauth/revocation"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are those of the guards, by the names of their issuers, and of the gateway. A nil
// pointer counts nothing.
type metrics struct {
	registry   *prometheus.Registry
	passes     *prometheus.CounterVec
	refusals   *prometheus.CounterVec
	reloads    *prometheus.CounterVec
	successful prometheus.Gauge
	lastLoaded prometheus.Gauge

	mu     sync.RWMutex // guards the field below
	guards map[string]*promauth.Metrics
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		passes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "m2mauth_gateway_passed_total", Help: "Requests that were let through, by the value of X-Auth-Decision."}, []string{"decision"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "m2mauth_gateway_refused_total", Help: "Requests that were refused, by what refused them: a guard, or the gateway for a reason of its own."}, []string{"reason"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "m2mauth_gateway_config_reloads_total", Help: "Readings of a changed configuration, by whether it was taken over."}, []string{"result"}),
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "m2mauth_gateway_config_last_reload_successful", Help: "1 if the configuration that was read last is in force, 0 if it was refused and an older one serves."}),
		lastLoaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "m2mauth_gateway_config_last_reload_success_timestamp_seconds", Help: "When the configuration in force was taken over."}),
		guards: make(map[string]*promauth.Metrics),
	}
	m.registry.MustRegister(m.passes, m.refusals, m.reloads, m.successful, m.lastLoaded,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, decision := range []string{decisionAllowed, decisionPublic, decisionAnonymous, decisionReportOnly} {
		m.passes.WithLabelValues(decision)
	}
	for _, reason := range []string{"guard", "ambiguous", "identity", "failure"} {
		m.refusals.WithLabelValues(reason)
	}
	for _, result := range []string{"taken", "refused"} {
		m.reloads.WithLabelValues(result)
	}
	return m
}

func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}

func (m *metrics) passed(decision string) {
	if m != nil {
		m.passes.WithLabelValues(decision).Inc()
	}
}

func (m *metrics) refused(reason string) {
	if m != nil {
		m.refusals.WithLabelValues(reason).Inc()
	}
}

// decided counts a decision of the guard with this name.
func (m *metrics) decided(ctx context.Context, name string, d m2mauth.Decision) {
	if m == nil {
		return
	}
	m.mu.RLock()
	guard := m.guards[name]
	m.mu.RUnlock()
	if guard != nil {
		guard.OnDecision(ctx, d)
	}
}

// observe exports the guards and the list of a generation from now on. Counts of an issuer
// that is gone stay, as those of a process do.
func (m *metrics) observe(g *generation, now time.Time) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var list *revocation.List
	if g.list != nil {
		list = g.list.List
	}
	in := make(map[string]bool)
	for _, t := range g.issuers {
		in[t.name] = true
		if m.guards[t.name] == nil {
			made, err := promauth.New(m.registry, promauth.Options{Guard: t.name})
			if err != nil {
				return err
			}
			m.guards[t.name] = made
		}
		m.guards[t.name].ObserveGuard(t.guard)
		m.guards[t.name].ObserveList(list)
	}
	for name, guard := range m.guards {
		if !in[name] {
			guard.ObserveGuard(nil)
			guard.ObserveList(nil)
		}
	}
	m.reloads.WithLabelValues("taken").Inc()
	m.successful.Set(1)
	m.lastLoaded.Set(float64(now.UnixMilli()) / 1000)
	return nil
}

// failed notes that a configuration was refused.
func (m *metrics) failed() {
	if m != nil {
		m.reloads.WithLabelValues("refused").Inc()
		m.successful.Set(0)
	}
}
