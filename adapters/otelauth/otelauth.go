// Package otelauth exports what a guard decides, and how its keys, its queue, its cache
// and its list of revoked tokens are, as OpenTelemetry metrics. It also sets attributes on
// the request's span.
//
// Make a [Telemetry] for each guard, before the guard, and let it observe the guard after:
//
//	telemetry, err := otelauth.New(otelauth.Options{})
//	config.OnDecision = telemetry.OnDecision
//	guard, err := m2mauth.New(config)
//	telemetry.ObserveGuard(guard)
//
// It runs no goroutine, and a collection waits for nothing. No attribute of a metric takes
// a value from a request: callers cannot add time series. docs/observability in the
// repository lists the metrics and the span's attributes.
package otelauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/revocation"
)

// Options configures [Telemetry]. The zero value is fine for a program with one guard.
type Options struct {
	// Guard is the value of the attribute m2mauth.guard. Give each guard of a program its
	// own, such as the name of the API: two with one name overwrite each other's values.
	// Default: "default".
	Guard string

	// MeterProvider gets the metrics. Default: the global one, [otel.GetMeterProvider].
	MeterProvider metric.MeterProvider

	// IncludeSubject sets enduser.id on the span to the token's sub, if it is the token of
	// a user. That is personal data, and whoever reads traces sees it. Default: false.
	IncludeSubject bool
}

// Telemetry holds the metrics of one guard. Its methods may be called concurrently.
type Telemetry struct {
	decisions      metric.Int64Counter
	durations      metric.Float64Histogram
	outcomes       map[m2mauth.Outcome]*outcome
	other          *outcome
	remembered     [2][]metric.RecordOption
	guardName      attribute.KeyValue
	includeSubject bool

	guard atomic.Pointer[m2mauth.Guard]
	list  atomic.Pointer[revocation.List]
}

// outcome is what decisions that ended in one way have in common.
type outcome struct {
	count     [2][]metric.AddOption // by ReportOnly
	attribute attribute.KeyValue
	errorType attribute.KeyValue // zero if the request was allowed, or not decided
}

const (
	guardKey      = attribute.Key("m2mauth.guard")
	outcomeKey    = attribute.Key("m2mauth.outcome")
	reportOnlyKey = attribute.Key("m2mauth.report_only")
	rememberedKey = attribute.Key("m2mauth.remembered")
	ruleKey       = attribute.Key("m2mauth.rule")
	clientKey     = attribute.Key("m2mauth.client.id")
	issuerKey     = attribute.Key("m2mauth.issuer")
	stateKey      = attribute.Key("m2mauth.keys.state")
	usableKey     = attribute.Key("m2mauth.keys.usable")

	// Of the semantic conventions, 1.43.
	errorTypeKey = attribute.Key("error.type")
	endUserKey   = attribute.Key("enduser.id")
	otherError   = "_OTHER"
)

// other is the outcome of an ErrorKind that the program made up. There may be many.
const other = "other"

// kinds are all errors that m2mauth has.
var kinds = []m2mauth.ErrorKind{
	m2mauth.ErrNoToken, m2mauth.ErrRequest, m2mauth.ErrMalformed, m2mauth.ErrAlgorithm, m2mauth.ErrType,
	m2mauth.ErrIssuer, m2mauth.ErrAudience, m2mauth.ErrExpired, m2mauth.ErrNotYetValid, m2mauth.ErrClaims,
	m2mauth.ErrUnknownKey, m2mauth.ErrSignature, m2mauth.ErrRevoked, m2mauth.ErrScope, m2mauth.ErrForbidden,
	m2mauth.ErrBusy, m2mauth.ErrUnavailable, m2mauth.ErrInternal,
}

// New makes the metrics of a guard. The error is that of the MeterProvider.
func New(options Options) (*Telemetry, error) {
	provider := options.MeterProvider
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	meter := provider.Meter("github.com/m2mauth/m2mauth/adapters/otelauth")
	t := &Telemetry{
		guardName: guardKey.String(utf8(cmp.Or(options.Guard, "default"))), includeSubject: options.IncludeSubject,
		outcomes: make(map[m2mauth.Outcome]*outcome),
	}
	var mistakes [3]error
	t.decisions, mistakes[0] = meter.Int64Counter("m2mauth.decisions",
		metric.WithDescription("Requests that the guard decided on, by outcome."), metric.WithUnit("{decision}"))
	t.durations, mistakes[1] = meter.Float64Histogram("m2mauth.decision.duration",
		metric.WithDescription("How long decisions took, waiting included."), metric.WithUnit("s"),
		// A known token takes microseconds, a signature up to milliseconds, the queue up to
		// 2 s, and a fetch of the keys up to 5 s.
		metric.WithExplicitBucketBoundaries(1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1, 2.5, 5, 10))
	mistakes[2] = t.register(meter)
	if err := errors.Join(mistakes[:]...); err != nil {
		return nil, fmt.Errorf("otelauth: %w", err)
	}

	for _, o := range []m2mauth.Outcome{m2mauth.Allowed, m2mauth.Anonymous, m2mauth.Undecided} {
		t.outcomes[o] = t.newOutcome(string(o), "")
	}
	for _, kind := range kinds {
		t.outcomes[m2mauth.Outcome(kind)] = t.newOutcome(string(kind), string(kind))
	}
	t.other = t.newOutcome(other, otherError)
	for i, remembered := range []bool{false, true} {
		t.remembered[i] = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(t.guardName, rememberedKey.Bool(remembered)))}
	}
	return t, nil
}

// newOutcome also exports the counters at 0, since a rate misses the first increase of a
// series that appears with it.
func (t *Telemetry) newOutcome(name, errorType string) *outcome {
	o := &outcome{attribute: outcomeKey.String(name)}
	if errorType != "" {
		o.errorType = errorTypeKey.String(errorType)
	}
	for i, reportOnly := range []bool{false, true} {
		set := attribute.NewSet(t.guardName, o.attribute, reportOnlyKey.Bool(reportOnly))
		o.count[i] = []metric.AddOption{metric.WithAttributeSet(set)}
		t.decisions.Add(context.Background(), 0, o.count[i]...)
	}
	return o
}

// OnDecision counts a decision, and sets attributes on the span in ctx: that of the
// handler around the guard, such as otelhttp's. It is for [m2mauth.Config.OnDecision]. If
// you have a function of your own there, call both from one. If several decisions share a
// span, it has the attributes of the last one.
//
// A rejection sets error.type to the kind of error. It does not set the span's status:
// by the semantic conventions, most rejections are the client's error and not the server's.
func (t *Telemetry) OnDecision(ctx context.Context, d m2mauth.Decision) {
	o := t.outcomes[d.Outcome]
	if o == nil {
		o = t.other
	}
	t.decisions.Add(ctx, 1, o.count[index(d.ReportOnly)]...)
	t.durations.Record(ctx, d.Duration.Seconds(), t.remembered[index(d.Remembered)]...)
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(t.attributes(o, d)...)
	}
}

// attributes has nothing that opens anything: no token, and no part of one but its claims.
func (t *Telemetry) attributes(o *outcome, d m2mauth.Decision) []attribute.KeyValue {
	all := []attribute.KeyValue{
		t.guardName, o.attribute, ruleKey.String(d.Rule.String()), rememberedKey.Bool(d.Remembered), reportOnlyKey.Bool(d.ReportOnly),
	}
	if o.errorType.Valid() && !d.ReportOnly { // what passed has not failed
		all = append(all, o.errorType)
	}
	if d.Claims.IsZero() {
		return all
	}
	all = append(all, issuerKey.String(d.Claims.Issuer()))
	if client := d.Claims.ClientID(); client != "" {
		all = append(all, clientKey.String(client))
	}
	if subject := d.Claims.Subject(); t.includeSubject && subject != "" && !d.Claims.IsMachine() {
		all = append(all, endUserKey.String(subject))
	}
	return all
}

// utf8 mends a setting: one that is not UTF-8 would fail the export of all metrics.
func utf8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ObserveGuard exports the guard's keys, queue and cache from now on, in the place of a
// guard that it observed before. For a guard made by [m2mauth.Join], observe the joined
// one: it has the keys of all issuers.
func (t *Telemetry) ObserveGuard(guard *m2mauth.Guard) { t.guard.Store(guard) }

// ObserveList exports how the guard's list of revoked tokens is from now on, in the place
// of a list that it observed before.
func (t *Telemetry) ObserveList(list *revocation.List) { t.list.Store(list) }

// instruments are those that are read when metrics are collected.
type instruments struct {
	keyState, keyFailing, keyCooling              metric.Int64ObservableGauge
	keyAge, keyRemaining                          metric.Float64ObservableGauge
	keyCount, keyWaiting                          metric.Int64ObservableUpDownCounter
	fetches, failures                             metric.Int64ObservableCounter
	waiting, tokens, bytes                        metric.Int64ObservableUpDownCounter
	waited, shared, refused, hits, misses, evicts metric.Int64ObservableCounter
	wouldRefuse                                   metric.Int64ObservableCounter
	reportOnlyRemaining, listAge                  metric.Float64ObservableGauge
	entries, used, limit                          metric.Int64ObservableUpDownCounter
	serves, ready                                 metric.Int64ObservableGauge
}

func (t *Telemetry) register(meter metric.Meter) error {
	i, all, err := newInstruments(meter)
	if err != nil {
		return err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		t.observe(to, i)
		return nil
	}, all...)
	return err
}

func newInstruments(meter metric.Meter) (i *instruments, all []metric.Observable, err error) {
	i = new(instruments)
	var mistakes []error
	note := func(o metric.Observable, err error) { all, mistakes = append(all, o), append(mistakes, err) }
	counter := func(to *metric.Int64ObservableCounter, name, unit, description string) {
		var err error
		*to, err = meter.Int64ObservableCounter("m2mauth."+name, metric.WithUnit(unit), metric.WithDescription(description))
		note(*to, err)
	}
	sum := func(to *metric.Int64ObservableUpDownCounter, name, unit, description string) {
		var err error
		*to, err = meter.Int64ObservableUpDownCounter("m2mauth."+name, metric.WithUnit(unit), metric.WithDescription(description))
		note(*to, err)
	}
	state := func(to *metric.Int64ObservableGauge, name, description string) {
		var err error
		*to, err = meter.Int64ObservableGauge("m2mauth."+name, metric.WithUnit("{state}"), metric.WithDescription(description)) // 1 is for ratios: Prometheus would append _ratio to the name
		note(*to, err)
	}
	seconds := func(to *metric.Float64ObservableGauge, name, description string) {
		var err error
		*to, err = meter.Float64ObservableGauge("m2mauth."+name, metric.WithUnit("s"), metric.WithDescription(description))
		note(*to, err)
	}
	state(&i.keyState, "keys.state", "1 for the state that the issuer's keys are in, otherwise 0. Requests are served in the states fresh and stale.")
	seconds(&i.keyAge, "keys.age", "Time since the issuer's keys were fetched.")
	seconds(&i.keyRemaining, "keys.remaining", "Time until the issuer's keys expire and requests are rejected, unless a fetch succeeds before.")
	sum(&i.keyCount, "keys.published", "{key}", "Keys in the issuer's key set, by whether they can verify tokens.")
	counter(&i.fetches, "keys.fetch.attempts", "{fetch}", "Attempts to fetch the issuer's keys.")
	counter(&i.failures, "keys.fetch.failures", "{fetch}", "Attempts to fetch the issuer's keys that failed.")
	state(&i.keyFailing, "keys.fetch.failing", "1 if the last attempt to fetch the issuer's keys failed, otherwise 0.")
	state(&i.keyCooling, "keys.cooling_down", "1 while unknown key IDs cause no fetch and get 503, otherwise 0.")
	sum(&i.keyWaiting, "keys.waiting", "{request}", "Requests that wait for the issuer's keys now.")
	sum(&i.waiting, "queue.waiting", "{request}", "Requests that wait for a token to be verified now.")
	counter(&i.waited, "queue.waited", "{request}", "Requests that waited for their turn to be verified.")
	counter(&i.shared, "queue.shared", "{request}", "Requests that waited for another request's check of the same token.")
	counter(&i.refused, "queue.refused", "{request}", "Requests that got 429 or 503 since the queue was full or they waited too long.")
	counter(&i.hits, "cache.hits", "{request}", "Requests whose token was in the cache of verified tokens.")
	counter(&i.misses, "cache.misses", "{request}", "Requests whose token was not in the cache of verified tokens.")
	counter(&i.evicts, "cache.evicted", "{token}", "Tokens dropped from the cache to make room.")
	sum(&i.tokens, "cache.tokens", "{token}", "Tokens in the cache.")
	sum(&i.bytes, "cache.usage", "By", "Memory that the cache's tokens take.")
	counter(&i.wouldRefuse, "would_refuse", "{request}", "Requests that would have been rejected, but passed in a dry run.")
	seconds(&i.reportOnlyRemaining, "report_only.remaining", "Time until the dry run ends and the guard begins to reject requests.")
	sum(&i.entries, "revocation.entries", "{entry}", "Entries in force in the list of revoked tokens.")
	sum(&i.used, "revocation.usage", "{entry}", "Entries that take room in the list of revoked tokens, those undone lately included.")
	sum(&i.limit, "revocation.limit", "{entry}", "Entries that the list of revoked tokens has room for.")
	state(&i.serves, "revocation.serves", "1 if the list of revoked tokens answers, otherwise 0: the guard answers 503.")
	state(&i.ready, "revocation.ready", "1 if the list of revoked tokens is ready, otherwise 0.")
	seconds(&i.listAge, "revocation.age", "Time since the list of revoked tokens was last up to date with its store.")
	return i, all, errors.Join(mistakes...)
}

// observe reads counts and states that need no wait: a fetch in progress, or a store that
// is away, must not hold up a collection.
func (t *Telemetry) observe(to metric.Observer, i *instruments) {
	if guard := t.guard.Load(); guard != nil {
		keys := guard.Keys()
		for _, s := range append([]m2mauth.KeyStatus{keys}, keys.Others...) {
			t.observeKeys(to, i, s)
		}
		t.observeStats(to, i, guard.Stats())
	}
	if list := t.list.Load(); list != nil {
		t.observeList(to, i, list.Status())
	}
}

func (t *Telemetry) observeStats(to metric.Observer, i *instruments, s m2mauth.Stats) {
	plain := metric.WithAttributeSet(attribute.NewSet(t.guardName))
	to.ObserveInt64(i.waiting, int64(s.Waiting), plain)
	to.ObserveInt64(i.waited, int64(s.Waited), plain)
	to.ObserveInt64(i.shared, int64(s.Shared), plain)
	to.ObserveInt64(i.refused, int64(s.Refused), plain)
	to.ObserveInt64(i.hits, int64(s.Hits), plain)
	to.ObserveInt64(i.misses, int64(s.Misses), plain)
	to.ObserveInt64(i.evicts, int64(s.Evicted), plain)
	to.ObserveInt64(i.tokens, int64(s.Cached), plain)
	to.ObserveInt64(i.bytes, s.CachedBytes, plain)
	to.ObserveInt64(i.wouldRefuse, int64(s.WouldRefuse), plain)
	if !s.ReportOnlyUntil.IsZero() {
		to.ObserveFloat64(i.reportOnlyRemaining, time.Until(s.ReportOnlyUntil).Seconds(), plain)
	}
}

func (t *Telemetry) observeList(to metric.Observer, i *instruments, s revocation.Status) {
	plain := metric.WithAttributeSet(attribute.NewSet(t.guardName))
	to.ObserveInt64(i.entries, int64(s.Entries), plain)
	to.ObserveInt64(i.used, int64(s.Used), plain)
	to.ObserveInt64(i.limit, int64(s.MaxEntries), plain)
	to.ObserveInt64(i.serves, int64(index(s.Serves)), plain)
	to.ObserveInt64(i.ready, int64(index(s.Ready)), plain)
	if !s.LastContact.IsZero() {
		to.ObserveFloat64(i.listAge, time.Since(s.LastContact).Seconds(), plain)
	}
}

func (t *Telemetry) observeKeys(to metric.Observer, i *instruments, s m2mauth.KeyStatus) {
	issuer := issuerKey.String(utf8(s.Issuer))
	of := func(more ...attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(append(more, t.guardName, issuer)...))
	}
	for _, state := range []m2mauth.KeyState{m2mauth.KeysFresh, m2mauth.KeysStale, m2mauth.KeysExpired, m2mauth.KeysNone} {
		to.ObserveInt64(i.keyState, int64(index(s.State == state)), of(stateKey.String(string(state))))
	}
	if !s.LastSuccess.IsZero() {
		to.ObserveFloat64(i.keyAge, s.Age.Seconds(), of())
		to.ObserveFloat64(i.keyRemaining, time.Until(s.ServesUntil).Seconds(), of())
	}
	usable := 0
	for _, key := range s.Keys {
		usable += index(key.Algorithm != "")
	}
	to.ObserveInt64(i.keyCount, int64(usable), of(usableKey.Bool(true)))
	to.ObserveInt64(i.keyCount, int64(len(s.Keys)-usable), of(usableKey.Bool(false)))
	to.ObserveInt64(i.fetches, int64(s.Fetches), of())
	to.ObserveInt64(i.failures, int64(s.Failures), of())
	to.ObserveInt64(i.keyFailing, int64(index(s.LastError != "")), of())
	to.ObserveInt64(i.keyCooling, int64(index(s.CoolingDown)), of())
	to.ObserveInt64(i.keyWaiting, int64(s.Waiting), of())
}
