// Package promauth exports what a guard decides, and how its keys, its queue, its cache
// and its list of revoked tokens are, as Prometheus metrics.
//
// Make a [Metrics] for each guard, before the guard, and let it observe the guard after:
//
//	metrics, err := promauth.New(prometheus.DefaultRegisterer, promauth.Options{})
//	config.OnDecision = metrics.OnDecision
//	guard, err := m2mauth.New(config)
//	metrics.ObserveGuard(guard)
//
// It runs no goroutine, and a scrape waits for nothing. No label takes a value from a
// request: callers cannot add time series. docs/observability in the repository lists the
// metrics, with alerts and a dashboard.
package promauth

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/revocation"
)

// Options configures [Metrics]. The zero value is fine for a program with one guard.
type Options struct {
	// Guard is the value of the label guard. Give each guard of a registry its own, such as
	// the name of the API. Default: "default".
	Guard string

	// NativeHistograms adds a native histogram to the duration's classic one, for a
	// Prometheus that scrapes them. Default: only the classic one.
	NativeHistograms bool
}

// Metrics are the metrics of one guard. Its methods may be called concurrently.
type Metrics struct {
	decisions map[m2mauth.Outcome]*byReportOnly
	other     *byReportOnly
	durations [2]prometheus.Observer // by Remembered

	guard atomic.Pointer[m2mauth.Guard]
	list  atomic.Pointer[revocation.List]
}

// byReportOnly are the counters of one outcome.
type byReportOnly [2]prometheus.Counter

// other is the label of an outcome that no release of m2mauth has: an ErrorKind that the
// program made up. There may be many.
const other = "other"

// outcomes are all that m2mauth has. They are exported from the start, since a rate misses
// the first increase of a series that appears with it.
var outcomes = []m2mauth.Outcome{
	m2mauth.Allowed, m2mauth.Anonymous, m2mauth.Undecided,
	m2mauth.Outcome(m2mauth.ErrNoToken), m2mauth.Outcome(m2mauth.ErrRequest),
	m2mauth.Outcome(m2mauth.ErrMalformed), m2mauth.Outcome(m2mauth.ErrAlgorithm), m2mauth.Outcome(m2mauth.ErrType),
	m2mauth.Outcome(m2mauth.ErrIssuer), m2mauth.Outcome(m2mauth.ErrAudience), m2mauth.Outcome(m2mauth.ErrExpired),
	m2mauth.Outcome(m2mauth.ErrNotYetValid), m2mauth.Outcome(m2mauth.ErrClaims), m2mauth.Outcome(m2mauth.ErrUnknownKey),
	m2mauth.Outcome(m2mauth.ErrSignature), m2mauth.Outcome(m2mauth.ErrRevoked), m2mauth.Outcome(m2mauth.ErrScope),
	m2mauth.Outcome(m2mauth.ErrForbidden), m2mauth.Outcome(m2mauth.ErrBusy), m2mauth.Outcome(m2mauth.ErrUnavailable),
	m2mauth.Outcome(m2mauth.ErrInternal),
}

// New registers the metrics of a guard. The error says if those of a guard with the same
// name are registered already; then nothing was registered.
func New(registerer prometheus.Registerer, options Options) (*Metrics, error) {
	labels := prometheus.Labels{"guard": cmp.Or(options.Guard, "default")}
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "m2mauth_decisions_total", ConstLabels: labels,
		Help: "Requests that the guard decided on, by outcome.",
	}, []string{"outcome", "report_only"})
	histogram := prometheus.HistogramOpts{
		Name: "m2mauth_decision_duration_seconds", ConstLabels: labels,
		Help: "How long decisions took, waiting included.",
		// A known token takes microseconds, a signature up to milliseconds, the queue up to
		// 2 s, and a fetch of the keys up to 5 s.
		Buckets: []float64{1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1, 2.5, 5, 10},
	}
	if options.NativeHistograms {
		histogram.NativeHistogramBucketFactor = 1.1
		histogram.NativeHistogramMaxBucketNumber = 100
		histogram.NativeHistogramMinResetDuration = time.Hour
	}
	durations := prometheus.NewHistogramVec(histogram, []string{"remembered"})

	m := &Metrics{decisions: make(map[m2mauth.Outcome]*byReportOnly)}
	counters := func(outcome string) *byReportOnly {
		return &byReportOnly{decisions.WithLabelValues(outcome, "false"), decisions.WithLabelValues(outcome, "true")}
	}
	for _, outcome := range outcomes {
		m.decisions[outcome] = counters(string(outcome))
	}
	m.other = counters(other)
	m.durations = [2]prometheus.Observer{durations.WithLabelValues("false"), durations.WithLabelValues("true")}

	c := newCollector(m, labels)
	c.counted = []prometheus.Collector{decisions, durations}
	if err := registerer.Register(c); err != nil {
		return nil, fmt.Errorf("promauth: the metrics of guard %q: %w", labels["guard"], err)
	}
	return m, nil
}

// OnDecision counts a decision. It is for [m2mauth.Config.OnDecision]. If you have a
// function of your own there, call both from one. It allocates nothing.
func (m *Metrics) OnDecision(_ context.Context, d m2mauth.Decision) {
	counters := m.decisions[d.Outcome]
	if counters == nil {
		counters = m.other
	}
	counters[index(d.ReportOnly)].Inc()
	m.durations[index(d.Remembered)].Observe(d.Duration.Seconds())
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ObserveGuard exports the guard's keys, queue and cache from now on, in the place of a
// guard that it observed before. For a guard made by [m2mauth.Join], observe the joined
// one: it has the keys of all issuers.
func (m *Metrics) ObserveGuard(guard *m2mauth.Guard) { m.guard.Store(guard) }

// ObserveList exports how the guard's list of revoked tokens is from now on, in the place
// of a list that it observed before.
func (m *Metrics) ObserveList(list *revocation.List) { m.list.Store(list) }

// collector has all metrics, to be registered at once. It reads the guard and the list
// when it is scraped.
type collector struct {
	metrics *Metrics
	counted []prometheus.Collector // by OnDecision
	all     []*prometheus.Desc     // of the others

	keyState, keyAge, keySuccess, keyServe, keyCount    *prometheus.Desc
	fetches, failures, failing, coolingDown, keyWaiting *prometheus.Desc
	waiting, waited, shared, refused                    *prometheus.Desc
	hits, misses, evicted, tokens, bytes                *prometheus.Desc
	wouldRefuse, reportOnlyUntil                        *prometheus.Desc
	entries, used, limit, serves, ready, contact        *prometheus.Desc
}

func newCollector(m *Metrics, labels prometheus.Labels) *collector {
	c := &collector{metrics: m}
	desc := func(name, help string, variable ...string) *prometheus.Desc {
		d := prometheus.NewDesc("m2mauth_"+name, help, variable, labels)
		c.all = append(c.all, d)
		return d
	}
	c.keyState = desc("keys_state", "1 for the state that the issuer's keys are in, otherwise 0. Requests are served in the states fresh and stale.", "issuer", "state")
	c.keyAge = desc("keys_age_seconds", "Time since the issuer's keys were fetched.", "issuer")
	c.keySuccess = desc("keys_last_success_timestamp_seconds", "When the issuer's keys were fetched last.", "issuer")
	c.keyServe = desc("keys_serve_until_timestamp_seconds", "When the issuer's keys expire and requests are rejected, unless a fetch succeeds before.", "issuer")
	c.keyCount = desc("keys_published", "Keys in the issuer's key set, by whether they can verify tokens.", "issuer", "usable")
	c.fetches = desc("keys_fetches_total", "Attempts to fetch the issuer's keys.", "issuer")
	c.failures = desc("keys_fetch_failures_total", "Attempts to fetch the issuer's keys that failed.", "issuer")
	c.failing = desc("keys_fetch_failing", "1 if the last attempt to fetch the issuer's keys failed, otherwise 0.", "issuer")
	c.coolingDown = desc("keys_cooling_down", "1 while unknown key IDs cause no fetch and get 503, otherwise 0.", "issuer")
	c.keyWaiting = desc("keys_waiting_requests", "Requests that wait for the issuer's keys now.", "issuer")
	c.waiting = desc("queue_waiting_requests", "Requests that wait for a token to be verified now.")
	c.waited = desc("queue_waited_total", "Requests that waited for their turn to be verified.")
	c.shared = desc("queue_shared_total", "Requests that waited for another request's check of the same token.")
	c.refused = desc("queue_refused_total", "Requests that got 429 or 503 since the queue was full or they waited too long.")
	c.hits = desc("cache_hits_total", "Requests whose token was in the cache of verified tokens.")
	c.misses = desc("cache_misses_total", "Requests whose token was not in the cache of verified tokens.")
	c.evicted = desc("cache_evicted_total", "Tokens dropped from the cache to make room.")
	c.tokens = desc("cache_tokens", "Tokens in the cache.")
	c.bytes = desc("cache_bytes", "Memory that the cache's tokens take.")
	c.wouldRefuse = desc("would_refuse_total", "Requests that would have been rejected, but passed in a dry run.")
	c.reportOnlyUntil = desc("report_only_until_timestamp_seconds", "When the dry run ends and the guard begins to reject requests.")
	c.entries = desc("revocation_entries", "Entries in force in the list of revoked tokens.")
	c.used = desc("revocation_used_entries", "Entries that take room in the list of revoked tokens, those undone lately included.")
	c.limit = desc("revocation_max_entries", "Entries that the list of revoked tokens has room for.")
	c.serves = desc("revocation_serves", "1 if the list of revoked tokens answers, otherwise 0: the guard answers 503.")
	c.ready = desc("revocation_ready", "1 if the list of revoked tokens is ready, otherwise 0.")
	c.contact = desc("revocation_last_contact_timestamp_seconds", "When the list of revoked tokens was last up to date with its store.")
	return c
}

func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, counted := range c.counted {
		counted.Describe(descs)
	}
	for _, d := range c.all {
		descs <- d
	}
}

// Collect reads counts and states that need no wait: a fetch in progress, or a store that
// is away, must not hold up a scrape.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	for _, counted := range c.counted {
		counted.Collect(metrics)
	}
	to := sink(metrics)
	if guard := c.metrics.guard.Load(); guard != nil {
		keys := guard.Keys()
		for _, s := range append([]m2mauth.KeyStatus{keys}, keys.Others...) {
			c.keys(to, s)
		}
		c.stats(to, guard.Stats())
	}
	if list := c.metrics.list.Load(); list != nil {
		c.listStatus(to, list.Status())
	}
}

func (c *collector) keys(to sink, s m2mauth.KeyStatus) {
	issuer := strings.ToValidUTF8(s.Issuer, "\uFFFD") // another value would fail the scrape
	for _, state := range []m2mauth.KeyState{m2mauth.KeysFresh, m2mauth.KeysStale, m2mauth.KeysExpired, m2mauth.KeysNone} {
		to.flag(c.keyState, s.State == state, issuer, string(state))
	}
	if !s.LastSuccess.IsZero() {
		to.gauge(c.keyAge, s.Age.Seconds(), issuer)
	}
	to.timestamp(c.keySuccess, s.LastSuccess, issuer)
	to.timestamp(c.keyServe, s.ServesUntil, issuer)
	usable := 0
	for _, key := range s.Keys {
		usable += index(key.Algorithm != "")
	}
	to.gauge(c.keyCount, float64(usable), issuer, "true")
	to.gauge(c.keyCount, float64(len(s.Keys)-usable), issuer, "false")
	to.counter(c.fetches, uint64(s.Fetches), issuer)
	to.counter(c.failures, uint64(s.Failures), issuer)
	to.flag(c.failing, s.LastError != "", issuer)
	to.flag(c.coolingDown, s.CoolingDown, issuer)
	to.gauge(c.keyWaiting, float64(s.Waiting), issuer)
}

func (c *collector) stats(to sink, s m2mauth.Stats) {
	to.gauge(c.waiting, float64(s.Waiting))
	to.counter(c.waited, s.Waited)
	to.counter(c.shared, s.Shared)
	to.counter(c.refused, s.Refused)
	to.counter(c.hits, s.Hits)
	to.counter(c.misses, s.Misses)
	to.counter(c.evicted, s.Evicted)
	to.gauge(c.tokens, float64(s.Cached))
	to.gauge(c.bytes, float64(s.CachedBytes))
	to.counter(c.wouldRefuse, s.WouldRefuse)
	to.timestamp(c.reportOnlyUntil, s.ReportOnlyUntil)
}

func (c *collector) listStatus(to sink, s revocation.Status) {
	to.gauge(c.entries, float64(s.Entries))
	to.gauge(c.used, float64(s.Used))
	to.gauge(c.limit, float64(s.MaxEntries))
	to.flag(c.serves, s.Serves)
	to.flag(c.ready, s.Ready)
	to.timestamp(c.contact, s.LastContact)
}

// sink takes the metrics of one scrape.
type sink chan<- prometheus.Metric

func (to sink) gauge(d *prometheus.Desc, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (to sink) counter(d *prometheus.Desc, value uint64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
}

func (to sink) flag(d *prometheus.Desc, value bool, labels ...string) {
	to.gauge(d, float64(index(value)), labels...)
}

// timestamp exports nothing if there is no time yet: 0 would be one long ago.
func (to sink) timestamp(d *prometheus.Desc, t time.Time, labels ...string) {
	if !t.IsZero() {
		to.gauge(d, float64(t.UnixMilli())/1000, labels...)
	}
}
