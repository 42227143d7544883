package otelauth_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/embedded"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/otelauth"
	"github.com/m2mauth/m2mauth/internal/test/logstore"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/revocation"
)

var quiet = slog.New(slog.DiscardHandler)

// observed is a guard whose metrics go to a reader of its own.
type observed struct {
	*otelauth.Telemetry
	reader *sdkmetric.ManualReader
	issuer *m2mauthtest.Issuer
	guard  *m2mauth.Guard
}

func observe(t testing.TB, options otelauth.Options, change ...func(*m2mauth.Config)) *observed {
	t.Helper()
	o := &observed{reader: sdkmetric.NewManualReader(), issuer: m2mauthtest.NewIssuer()}
	options.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(o.reader))
	var err error
	o.Telemetry, err = otelauth.New(options)
	require.NoError(t, err)
	o.guard = testguard.Quiet(t, o.issuer, append(change, func(c *m2mauth.Config) { c.OnDecision = o.OnDecision })...)
	o.ObserveGuard(o.guard)
	return o
}

// ask sends a request to an API that requires a scope, and returns the status.
func (o *observed) ask(ctx context.Context, token string) int {
	r := httptest.NewRequestWithContext(ctx, "GET", "/products", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	o.guard.Require("read:products")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
	return w.Code
}

// series returns the time series, each with its value, a histogram's count.
func (o *observed) series(t testing.TB) map[string]float64 {
	t.Helper()
	found := make(map[string]float64)
	put := func(name string, set attribute.Set, value float64) {
		for _, a := range set.ToSlice() { // the encoder would mend it, and an exporter fails
			assert.True(t, utf8.ValidString(a.Value.String()), "%s: %s is not UTF-8", name, a.Key)
		}
		found[name+"{"+set.Encoded(attribute.DefaultEncoder())+"}"] = value
	}
	for _, m := range o.collect(t) {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				put(m.Name, p.Attributes, float64(p.Value))
			}
		case metricdata.Gauge[int64]:
			for _, p := range data.DataPoints {
				put(m.Name, p.Attributes, float64(p.Value))
			}
		case metricdata.Gauge[float64]:
			for _, p := range data.DataPoints {
				put(m.Name, p.Attributes, p.Value)
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				put(m.Name, p.Attributes, float64(p.Count))
			}
		default:
			t.Fatalf("%s: %T", m.Name, data)
		}
	}
	return found
}

func (o *observed) collect(t testing.TB) []metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, o.reader.Collect(context.Background(), &all))
	require.Len(t, all.ScopeMetrics, 1)
	assert.Equal(t, "github.com/m2mauth/m2mauth/adapters/otelauth", all.ScopeMetrics[0].Scope.Name)
	return all.ScopeMetrics[0].Metrics
}

// nonzero drops the series that are 0 or do not match.
func nonzero(series map[string]float64, pattern string) map[string]float64 {
	found := make(map[string]float64)
	for name, value := range series {
		if value != 0 && regexp.MustCompile(pattern).MatchString(name) {
			found[name] = value
		}
	}
	return found
}

func TestDecisionsAreCountedByOutcome(t *testing.T) {
	t.Parallel()
	o := observe(t, otelauth.Options{})
	reader := o.issuer.Token(testguard.Shop, "read:products")
	assert.Equal(t, 200, o.ask(t.Context(), reader))
	assert.Equal(t, 200, o.ask(t.Context(), reader))
	assert.Equal(t, 403, o.ask(t.Context(), o.issuer.Token(testguard.Shop)))
	assert.Equal(t, 401, o.ask(t.Context(), ""))
	assert.Equal(t, map[string]float64{
		"m2mauth.decisions{m2mauth.guard=default,m2mauth.outcome=allowed,m2mauth.report_only=false}":            2,
		"m2mauth.decisions{m2mauth.guard=default,m2mauth.outcome=insufficient_scope,m2mauth.report_only=false}": 1,
		"m2mauth.decisions{m2mauth.guard=default,m2mauth.outcome=no_access_token,m2mauth.report_only=false}":    1,
		"m2mauth.decision.duration{m2mauth.guard=default,m2mauth.remembered=false}":                             3,
		"m2mauth.decision.duration{m2mauth.guard=default,m2mauth.remembered=true}":                              1,
		"m2mauth.cache.hits{m2mauth.guard=default}":                                                             1,
		"m2mauth.cache.misses{m2mauth.guard=default}":                                                           2,
		"m2mauth.cache.tokens{m2mauth.guard=default}":                                                           2,
		"m2mauth.cache.usage{m2mauth.guard=default}":                                                            float64(o.guard.Stats().CachedBytes),
	}, nonzero(o.series(t), "decision|cache|queue|would|report_only"))
}

func TestWhatWouldBeRefusedIsToldApart(t *testing.T) {
	t.Parallel()
	o := observe(t, otelauth.Options{Guard: "shop"}, func(c *m2mauth.Config) { c.InsecureReportOnlyUntil = time.Now().Add(time.Hour) })
	require.NoError(t, o.guard.Warm(t.Context())) // in a dry run, nobody waits for keys
	assert.Equal(t, 200, o.ask(t.Context(), ""))
	series := nonzero(o.series(t), "decisions|would|report_only.rem")
	assert.InDelta(t, time.Hour.Seconds(), series["m2mauth.report_only.remaining{m2mauth.guard=shop}"], 60)
	delete(series, "m2mauth.report_only.remaining{m2mauth.guard=shop}")
	assert.Equal(t, map[string]float64{
		"m2mauth.decisions{m2mauth.guard=shop,m2mauth.outcome=no_access_token,m2mauth.report_only=true}": 1,
		"m2mauth.would_refuse{m2mauth.guard=shop}":                                                       1,
	}, series)
}

// A rate misses the first increase of a series that appears with it.
func TestEveryOutcomeIsThereFromTheStart(t *testing.T) {
	t.Parallel()
	series := observe(t, otelauth.Options{}).series(t)
	all := append(outcomesOf(t, "../../errors.go", "ErrorKind"), outcomesOf(t, "../../decision.go", "Outcome")...)
	require.Greater(t, len(all), 20)
	for _, outcome := range append(all, "other") {
		for _, reportOnly := range []bool{false, true} {
			name := fmt.Sprintf("m2mauth.decisions{m2mauth.guard=default,m2mauth.outcome=%s,m2mauth.report_only=%t}", outcome, reportOnly)
			assert.Contains(t, series, name)
			delete(series, name)
		}
	}
	for name := range series {
		assert.NotContains(t, name, "m2mauth.decisions", "an outcome that m2mauth does not have")
	}
}

// outcomesOf returns the constants of a type that a file declares.
func outcomesOf(t *testing.T, file, kind string) (values []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	ast.Inspect(parsed, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
			if of, ok := spec.Type.(*ast.Ident); ok && of.Name == kind {
				value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				require.NoError(t, err)
				values = append(values, value)
			}
		}
		return true
	})
	return values
}

// Whoever calls the API must not fill the memory of the backend.
func TestCallersAddNoSeries(t *testing.T) {
	t.Parallel()
	o := observe(t, otelauth.Options{IncludeSubject: true})
	o.ask(t.Context(), o.issuer.Token(testguard.Shop)) // there are keys from now on
	before := len(o.series(t))
	stranger := m2mauthtest.NewIssuer()
	for i := range 100 {
		name := fmt.Sprint("app-", i)
		o.ask(t.Context(), o.issuer.Sign(m2mauthtest.Token{AppID: name, Audience: testguard.Shop, Scopes: []string{"read:products", name}}))
		o.ask(t.Context(), stranger.Sign(m2mauthtest.Token{AppID: name, Audience: name, Claims: map[string]any{"iss": "https://" + name}}))
		o.ask(t.Context(), name)
		o.OnDecision(t.Context(), m2mauth.Decision{Outcome: m2mauth.Outcome(name)})
	}
	series := o.series(t)
	// The duration's two series appear with the first decision of each kind.
	assert.LessOrEqual(t, len(series), before+1)
	assert.EqualValues(t, 100, series["m2mauth.decisions{m2mauth.guard=default,m2mauth.outcome=other,m2mauth.report_only=false}"])
}

// spanOf returns the attributes and the status of a span around one request.
func spanOf(t *testing.T, f func(ctx context.Context)) (attributes map[string]any, span sdktrace.ReadOnlySpan) {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	ctx, s := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test").Start(t.Context(), "GET /products")
	f(ctx)
	s.End()
	require.Len(t, spans.Ended(), 1)
	span = spans.Ended()[0]
	attributes = make(map[string]any)
	for _, a := range span.Attributes() {
		attributes[string(a.Key)] = a.Value.AsInterface()
	}
	return attributes, span
}

func TestTheSpanSaysWhatWasDecided(t *testing.T) {
	t.Parallel()
	const rule = `AllScopes("read:products")`
	user := m2mauthtest.Token{AppID: "console", Audience: testguard.Shop, Scopes: []string{"read:products"}, Claims: map[string]any{"sub": "alice"}}
	for name, test := range map[string]struct {
		options    otelauth.Options
		reportOnly bool
		token      func(issuer *m2mauthtest.Issuer) string
		want       map[string]any
	}{
		"allowed": {
			token: func(issuer *m2mauthtest.Issuer) string {
				return issuer.Sign(m2mauthtest.Token{AppID: "reader", Audience: testguard.Shop, Scopes: []string{"read:products"}})
			},
			want: map[string]any{"m2mauth.outcome": "allowed", "m2mauth.client.id": "reader"},
		},
		"a user, whose ID is nobody's business": {
			token: func(issuer *m2mauthtest.Issuer) string { return issuer.Sign(user) },
			want:  map[string]any{"m2mauth.outcome": "allowed", "m2mauth.client.id": "console"},
		},
		"a user, with the option": {
			options: otelauth.Options{IncludeSubject: true, Guard: "shop"},
			token:   func(issuer *m2mauthtest.Issuer) string { return issuer.Sign(user) },
			want:    map[string]any{"m2mauth.outcome": "allowed", "m2mauth.client.id": "console", "enduser.id": "alice", "m2mauth.guard": "shop"},
		},
		"an app, with the option": {
			options: otelauth.Options{IncludeSubject: true},
			token: func(issuer *m2mauthtest.Issuer) string {
				return issuer.Sign(m2mauthtest.Token{AppID: "reader", Audience: testguard.Shop, Scopes: []string{"read:products"}})
			},
			want: map[string]any{"m2mauth.outcome": "allowed", "m2mauth.client.id": "reader"},
		},
		"refused by the rule": {
			token: func(issuer *m2mauthtest.Issuer) string {
				return issuer.Sign(m2mauthtest.Token{AppID: "other", Audience: testguard.Shop})
			},
			want: map[string]any{"m2mauth.outcome": "insufficient_scope", "error.type": "insufficient_scope", "m2mauth.client.id": "other"},
		},
		"refused before": {
			token: func(issuer *m2mauthtest.Issuer) string {
				return issuer.Sign(m2mauthtest.Token{AppID: "mallory", Audience: "https://billing.api", Scopes: []string{"read:products"}})
			},
			want: map[string]any{"m2mauth.outcome": "wrong_audience", "error.type": "wrong_audience"},
		},
		"no token": {
			token: func(*m2mauthtest.Issuer) string { return "" },
			want:  map[string]any{"m2mauth.outcome": "no_access_token", "error.type": "no_access_token"},
		},
		"in a dry run": {
			reportOnly: true,
			token:      func(*m2mauthtest.Issuer) string { return "" },
			want:       map[string]any{"m2mauth.outcome": "no_access_token", "m2mauth.report_only": true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := observe(t, test.options, func(c *m2mauth.Config) {
				if test.reportOnly {
					c.InsecureReportOnlyUntil = time.Now().Add(time.Hour)
				}
			})
			token := test.token(o.issuer)
			got, span := spanOf(t, func(ctx context.Context) { o.ask(ctx, token) })
			want := map[string]any{
				"m2mauth.guard": "default", "m2mauth.rule": rule, "m2mauth.remembered": false, "m2mauth.report_only": false,
			}
			if test.want["m2mauth.client.id"] != nil {
				want["m2mauth.issuer"] = o.issuer.URL()
			}
			for key, value := range test.want {
				want[key] = value
			}
			assert.Equal(t, want, got)
			assert.Equal(t, codes.Unset, span.Status().Code, "it is the client's error")
			assert.Empty(t, span.Events())
			assert.NotContains(t, fmt.Sprint(got), "eyJ", "no part of a token")
		})
	}
}

func TestAMadeUpKindIsAnErrorOfNoType(t *testing.T) {
	t.Parallel()
	o := observe(t, otelauth.Options{})
	got, _ := spanOf(t, func(ctx context.Context) { o.OnDecision(ctx, m2mauth.Decision{Outcome: "made up"}) })
	assert.Equal(t, "_OTHER", got["error.type"])
	assert.Equal(t, "other", got["m2mauth.outcome"])
}

func TestKeysAreReportedByIssuer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, otelauth.Options{})
		o.issuer.PublishJWK([]byte(`{"kty":"RSA","kid":"broken"}`))
		second := m2mauthtest.NewIssuer().Config(testguard.Shop)
		second.Issuer = "https://other.test/oidc"
		other, err := m2mauth.New(second)
		require.NoError(t, err)
		joined, err := m2mauth.Join(o.guard, other)
		require.NoError(t, err)
		o.ObserveGuard(joined)
		of := func(labels string) string {
			return "{m2mauth.guard=default,m2mauth.issuer=" + set(o.issuer.URL()) + labels + "}"
		}
		stranger := "m2mauth.keys.state{m2mauth.guard=default,m2mauth.issuer=" + set(second.Issuer) + ",m2mauth.keys.state=none}"
		assert.Equal(t, map[string]float64{stranger: 1, "m2mauth.keys.state" + of(",m2mauth.keys.state=none"): 1}, nonzero(o.series(t), "keys"))

		require.NoError(t, o.guard.Warm(t.Context()))
		time.Sleep(time.Minute)
		assert.Equal(t, map[string]float64{
			stranger: 1,
			"m2mauth.keys.state" + of(",m2mauth.keys.state=fresh"):      1,
			"m2mauth.keys.age" + of(""):                                 60,
			"m2mauth.keys.remaining" + of(""):                           (testguard.KeysTTL + testguard.KeysStaleFor - time.Minute).Seconds(),
			"m2mauth.keys.published" + of(",m2mauth.keys.usable=true"):  1,
			"m2mauth.keys.published" + of(",m2mauth.keys.usable=false"): 1,
			"m2mauth.keys.fetch.attempts" + of(""):                      1,
		}, nonzero(o.series(t), "keys"))

		testguard.KeysDown(o.issuer)
		time.Sleep(testguard.KeysTTL)
		_ = o.guard.Warm(t.Context())
		stale := nonzero(o.series(t), "keys")
		assert.EqualValues(t, 1, stale["m2mauth.keys.state"+of(",m2mauth.keys.state=stale")])
		assert.EqualValues(t, 1, stale["m2mauth.keys.fetch.failing"+of("")])
		assert.EqualValues(t, 1, stale["m2mauth.keys.fetch.failures"+of("")])
		time.Sleep(testguard.KeysStaleFor)
		expired := nonzero(o.series(t), "keys")
		assert.EqualValues(t, 1, expired["m2mauth.keys.state"+of(",m2mauth.keys.state=expired")])
		assert.Negative(t, expired["m2mauth.keys.remaining"+of("")])
	})
}

// One byte in a setting must not cost all metrics of the program.
func TestANameThatIsNotUTF8FailsNoExport(t *testing.T) {
	t.Parallel()
	o := observe(t, otelauth.Options{Guard: "\xff"}, func(c *m2mauth.Config) { c.Issuer = "https://issuer.test/\xff" })
	assert.Contains(t, o.series(t), "m2mauth.keys.state{m2mauth.guard="+set("\ufffd")+",m2mauth.issuer="+set("https://issuer.test/\ufffd")+",m2mauth.keys.state=none}")
}

// set is a value as the encoder of attributes writes it.
func set(value string) string {
	s := attribute.NewSet(attribute.String("k", value))
	return strings.TrimPrefix(s.Encoded(attribute.DefaultEncoder()), "k=")
}

// A collection that hangs as the issuer does would blind the operator in the very outage.
func TestACollectionWaitsForNoFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, otelauth.Options{})
		testguard.KeysHanging(o.issuer)
		store := new(logstore.Log).Connect(0)
		store.Set(logstore.Hangs)
		list, stop := follow(t, store)
		o.ObserveList(list)
		go func() { _ = o.guard.Warm(t.Context()) }()
		synctest.Wait()
		begin := time.Now()
		series := o.series(t)
		assert.Zero(t, time.Since(begin))
		assert.EqualValues(t, 1, series["m2mauth.keys.waiting{m2mauth.guard=default,m2mauth.issuer="+set(o.issuer.URL())+"}"])
		assert.EqualValues(t, 0, series["m2mauth.revocation.serves{m2mauth.guard=default}"])
		stop()
		time.Sleep(2 * testguard.KeysTimeout) // the fetch ends
	})
}

// follow returns a list that follows a store until stop is called.
func follow(t *testing.T, store revocation.Store) (list *revocation.List, stop func()) {
	t.Helper()
	list, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour, Store: store, MaxEntries: 10, Logger: quiet})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- list.Run(ctx) }()
	return list, func() {
		cancel()
		require.NoError(t, <-ended)
	}
}

func TestTheListIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, otelauth.Options{})
		store := new(logstore.Log).Connect(0)
		require.NoError(t, revocation.Init(t.Context(), store))
		list, stop := follow(t, store)
		synctest.Wait()
		assert.Empty(t, nonzero(o.series(t), "revocation"))
		o.ObserveList(list)
		for _, client := range []string{"a", "b"} {
			e, err := list.Revoke(t.Context(), revocation.Entry{Client: client, Issuers: []string{"i"}, By: "ops"})
			require.NoError(t, err)
			if client == "a" {
				require.NoError(t, list.Undo(t.Context(), e.ID, "ops", ""))
			}
		}
		store.Set(logstore.Down)
		last := list.Status().LastContact
		time.Sleep(time.Minute)
		got := nonzero(o.series(t), "revocation")
		assert.InDelta(t, time.Since(last).Seconds(), got["m2mauth.revocation.age{m2mauth.guard=default}"], 2)
		delete(got, "m2mauth.revocation.age{m2mauth.guard=default}")
		assert.Equal(t, map[string]float64{
			"m2mauth.revocation.entries{m2mauth.guard=default}": 1,
			"m2mauth.revocation.usage{m2mauth.guard=default}":   2,
			"m2mauth.revocation.limit{m2mauth.guard=default}":   10,
			"m2mauth.revocation.serves{m2mauth.guard=default}":  1,
			"m2mauth.revocation.ready{m2mauth.guard=default}":   1,
		}, got)
		stop()
	})
}

// The page that dashboards are written by.
func TestThePageNamesEachMetricAndAttribute(t *testing.T) {
	t.Parallel()
	o := observe(t, otelauth.Options{}, func(c *m2mauth.Config) { c.InsecureReportOnlyUntil = time.Now().Add(time.Hour) })
	require.NoError(t, o.guard.Warm(t.Context()))
	o.ask(t.Context(), "")
	store := new(logstore.Log).Connect(0)
	require.NoError(t, revocation.Init(t.Context(), store))
	list, stop := follow(t, store)
	t.Cleanup(stop)
	require.Eventually(t, func() bool { return list.Ready(t.Context()) == nil }, time.Minute, time.Millisecond)
	o.ObserveList(list)

	var want []string
	for _, m := range o.collect(t) {
		kind, keys := "gauge", attribute.Set{}
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			keys, kind = data.DataPoints[0].Attributes, "updowncounter"
			if data.IsMonotonic {
				kind = "counter"
			}
		case metricdata.Gauge[int64]:
			keys = data.DataPoints[0].Attributes
		case metricdata.Gauge[float64]:
			keys = data.DataPoints[0].Attributes
		case metricdata.Histogram[float64]:
			keys, kind = data.DataPoints[0].Attributes, "histogram"
		}
		var names []string
		for _, key := range keys.ToSlice() {
			if key.Key != "m2mauth.guard" { // which all have
				names = append(names, "`"+string(key.Key)+"`")
			}
		}
		want = append(want, fmt.Sprintf("| `%s` | %s | `%s` | %s | %s |", m.Name, kind, m.Unit, strings.Join(names, ", "), strings.TrimSuffix(m.Description, ".")))
	}
	page, err := os.ReadFile("../../docs/observability/README.md")
	require.NoError(t, err)
	text := strings.ReplaceAll(string(page), "\r\n", "\n")
	rows := regexp.MustCompile("(?m)^\\| `m2mauth\\.[a-z._]+` \\| (?:counter|updowncounter|gauge|histogram) .*$").FindAllString(text, -1)
	slices.Sort(rows)
	slices.Sort(want)
	assert.Equal(t, strings.Join(want, "\n"), strings.Join(rows, "\n"))

	o = observe(t, otelauth.Options{IncludeSubject: true})
	token := o.issuer.Sign(m2mauthtest.Token{AppID: "console", Audience: testguard.Shop, Claims: map[string]any{"sub": "alice"}})
	attributes, _ := spanOf(t, func(ctx context.Context) { o.ask(ctx, token) })
	var named []string
	for _, row := range regexp.MustCompile("(?m)^\\| `((?:m2mauth|error|enduser)\\.[a-z._]+)` \\| (?:string|boolean) ").FindAllStringSubmatch(text, -1) {
		named = append(named, row[1])
		assert.Contains(t, attributes, row[1])
	}
	assert.Len(t, attributes, len(named), "%v", named)
}

// failing is a meter provider whose instruments cannot be made.
type failing struct{ embedded.MeterProvider }

func (failing) Meter(string, ...metric.MeterOption) metric.Meter { return failingMeter{} }

type failingMeter struct{ noop.Meter }

func (failingMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return noop.Int64Counter{}, errors.New("no counters here")
}

func (failingMeter) Int64ObservableGauge(string, ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	return noop.Int64ObservableGauge{}, errors.New("no gauges here")
}

func TestAProvidersErrorsAreReturned(t *testing.T) {
	t.Parallel()
	_, err := otelauth.New(otelauth.Options{MeterProvider: failing{}})
	require.ErrorContains(t, err, "otelauth: no counters here")
	assert.ErrorContains(t, err, "no gauges here")
	_, err = otelauth.New(otelauth.Options{})
	assert.NoError(t, err, "the global provider does nothing by default")
}

func TestADecisionAllocatesNothing(t *testing.T) { // alone: AllocsPerRun counts what others allocate
	o := observe(t, otelauth.Options{})
	d := m2mauth.Decision{Outcome: m2mauth.Allowed, Remembered: true, Duration: time.Microsecond}
	assert.Zero(t, testing.AllocsPerRun(1000, func() { o.OnDecision(context.Background(), d) }))
}

// For the race detector.
func TestCollectionsAndDecisionsGoTogether(t *testing.T) {
	t.Parallel()
	o := observe(t, otelauth.Options{})
	token := o.issuer.Token(testguard.Shop, "read:products")
	list, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour})
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				assert.Equal(t, 200, o.ask(t.Context(), token))
				o.ObserveGuard(o.guard)
				o.ObserveList(list)
			}
		})
		all.Go(func() {
			for range 20 {
				assert.NoError(t, o.reader.Collect(t.Context(), new(metricdata.ResourceMetrics)))
			}
		})
	}
	all.Wait()
	assert.EqualValues(t, 800, o.series(t)["m2mauth.decisions{m2mauth.guard=default,m2mauth.outcome=allowed,m2mauth.report_only=false}"])
}

// BenchmarkCheck is a request with a known token, with and without telemetry.
func BenchmarkCheck(b *testing.B) {
	telemetry, err := otelauth.New(otelauth.Options{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))})
	require.NoError(b, err)
	ctx, span := sdktrace.NewTracerProvider().Tracer("test").Start(b.Context(), "request")
	defer span.End()
	for _, test := range []struct {
		name       string
		ctx        context.Context
		onDecision func(context.Context, m2mauth.Decision)
	}{
		{"without", b.Context(), nil}, {"empty", b.Context(), func(context.Context, m2mauth.Decision) {}},
		{"otelauth", b.Context(), telemetry.OnDecision}, {"with a span", ctx, telemetry.OnDecision},
	} {
		b.Run(test.name, func(b *testing.B) {
			issuer := m2mauthtest.NewIssuer()
			guard := testguard.Quiet(b, issuer, func(c *m2mauth.Config) { c.OnDecision = test.onDecision })
			r, rule := testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, "read:products")).WithContext(test.ctx), m2mauth.AllScopes("read:products")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := guard.Check(r, rule); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
