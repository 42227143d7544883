package promauth_test

import (
	"context"
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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/promauth"
	"github.com/m2mauth/m2mauth/internal/test/logstore"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/revocation"
)

// observed is a guard whose metrics are in a registry of its own.
type observed struct {
	*prometheus.Registry
	*promauth.Metrics
	issuer *m2mauthtest.Issuer
	guard  *m2mauth.Guard
}

func observe(t testing.TB, options promauth.Options, change ...func(*m2mauth.Config)) *observed {
	t.Helper()
	o := &observed{Registry: prometheus.NewPedanticRegistry(), issuer: m2mauthtest.NewIssuer()}
	var err error
	o.Metrics, err = promauth.New(o.Registry, options)
	require.NoError(t, err)
	o.guard = testguard.Quiet(t, o.issuer, append(change, func(c *m2mauth.Config) { c.OnDecision = o.OnDecision })...)
	o.ObserveGuard(o.guard)
	return o
}

var quiet = slog.New(slog.DiscardHandler)

// ask sends a request to an API that requires a scope, and returns the status.
func (o *observed) ask(token string) int {
	r := httptest.NewRequest("GET", "/products", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	o.guard.Require("read:products")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
	return w.Code
}

// scrape returns the series as Prometheus names them, each with its value, a histogram's
// count.
func scrape(t testing.TB, gatherer prometheus.Gatherer) map[string]float64 {
	t.Helper()
	series := make(map[string]float64)
	for _, family := range gather(t, gatherer) {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+strconv.Quote(l.GetValue()))
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			series[family.GetName()+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return series
}

func gather(t testing.TB, gatherer prometheus.Gatherer) []*dto.MetricFamily {
	t.Helper()
	families, err := gatherer.Gather()
	require.NoError(t, err)
	return families
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
	o := observe(t, promauth.Options{})
	reader := o.issuer.Token(testguard.Shop, "read:products")
	assert.Equal(t, 200, o.ask(reader))
	assert.Equal(t, 200, o.ask(reader))
	assert.Equal(t, 403, o.ask(o.issuer.Token(testguard.Shop)))
	assert.Equal(t, 401, o.ask(""))
	assert.Equal(t, map[string]float64{
		`m2mauth_decisions_total{guard="default",outcome="allowed",report_only="false"}`:            2,
		`m2mauth_decisions_total{guard="default",outcome="insufficient_scope",report_only="false"}`: 1,
		`m2mauth_decisions_total{guard="default",outcome="no_access_token",report_only="false"}`:    1,
		`m2mauth_decision_duration_seconds{guard="default",remembered="false"}`:                     3,
		`m2mauth_decision_duration_seconds{guard="default",remembered="true"}`:                      1,
	}, nonzero(scrape(t, o), "decision"))
	assert.Equal(t, map[string]float64{
		`m2mauth_cache_hits_total{guard="default"}`:   1,
		`m2mauth_cache_misses_total{guard="default"}`: 2,
		`m2mauth_cache_tokens{guard="default"}`:       2,
		`m2mauth_cache_bytes{guard="default"}`:        float64(o.guard.Stats().CachedBytes),
	}, nonzero(scrape(t, o), "cache|queue|would"))
}

func TestWhatWouldBeRefusedIsToldApart(t *testing.T) {
	t.Parallel()
	until := time.Now().Add(time.Hour)
	o := observe(t, promauth.Options{Guard: "shop"}, func(c *m2mauth.Config) { c.InsecureReportOnlyUntil = until })
	require.NoError(t, o.guard.Warm(t.Context())) // in a dry run, nobody waits for keys
	assert.Equal(t, 200, o.ask(""))
	assert.Equal(t, 200, o.ask(o.issuer.Token(testguard.Shop, "read:products")))
	series := nonzero(scrape(t, o), "decisions|would|report_only_until")
	assert.InDelta(t, until.Unix(), series[`m2mauth_report_only_until_timestamp_seconds{guard="shop"}`], 1)
	delete(series, `m2mauth_report_only_until_timestamp_seconds{guard="shop"}`)
	assert.Equal(t, map[string]float64{
		`m2mauth_decisions_total{guard="shop",outcome="allowed",report_only="true"}`:         1,
		`m2mauth_decisions_total{guard="shop",outcome="no_access_token",report_only="true"}`: 1,
		`m2mauth_would_refuse_total{guard="shop"}`:                                           1,
	}, series)
	assert.NotContains(t, scrape(t, observe(t, promauth.Options{Guard: "shop"})), `m2mauth_report_only_until_timestamp_seconds{guard="shop"}`)
}

// A rate misses the first increase of a series that appears with it.
func TestEveryOutcomeIsThereFromTheStart(t *testing.T) {
	t.Parallel()
	series := scrape(t, observe(t, promauth.Options{}))
	all := append(outcomesOf(t, "../../errors.go", "ErrorKind"), outcomesOf(t, "../../decision.go", "Outcome")...)
	require.Greater(t, len(all), 20)
	for _, outcome := range append(all, "other") {
		for _, reportOnly := range []string{"false", "true"} {
			name := fmt.Sprintf("m2mauth_decisions_total{guard=%q,outcome=%q,report_only=%q}", "default", outcome, reportOnly)
			assert.Contains(t, series, name)
			delete(series, name)
		}
	}
	for name := range series {
		assert.NotContains(t, name, "decisions_total", "an outcome that m2mauth does not have")
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

// Whoever calls the API must not fill the memory of Prometheus.
func TestCallersAddNoSeries(t *testing.T) {
	t.Parallel()
	o := observe(t, promauth.Options{NativeHistograms: true})
	o.ask(o.issuer.Token(testguard.Shop)) // there are keys from now on
	before := len(scrape(t, o))
	stranger := m2mauthtest.NewIssuer()
	for i := range 100 {
		name := fmt.Sprint("app-", i)
		o.ask(o.issuer.Sign(m2mauthtest.Token{AppID: name, Audience: testguard.Shop, Scopes: []string{"read:products", name}}))
		o.ask(stranger.Sign(m2mauthtest.Token{AppID: name, Audience: name, Claims: map[string]any{"iss": "https://" + name}}))
		o.ask(name)
		o.OnDecision(t.Context(), m2mauth.Decision{Outcome: m2mauth.Outcome(name)})
	}
	series := scrape(t, o)
	assert.Len(t, series, before)
	assert.EqualValues(t, 100, series[`m2mauth_decisions_total{guard="default",outcome="other",report_only="false"}`])
}

func TestKeysAreReportedByIssuer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewPedanticRegistry()
		metrics, err := promauth.New(registry, promauth.Options{})
		require.NoError(t, err)
		issuer := m2mauthtest.NewIssuer()
		issuer.PublishJWK([]byte(`{"kty":"RSA","kid":"broken"}`))
		guard := testguard.KeysGuard(t, issuer)
		metrics.ObserveGuard(guard)
		of := func(labels string) string { return `{guard="default",issuer="` + issuer.URL() + `"` + labels + "}" }
		keys := func() map[string]float64 { return nonzero(scrape(t, registry), "m2mauth_keys") }
		assert.Equal(t, map[string]float64{"m2mauth_keys_state" + of(`,state="none"`): 1}, keys())

		begin := time.Now()
		require.NoError(t, guard.Warm(t.Context()))
		time.Sleep(time.Minute)
		seconds := func(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }
		fresh := map[string]float64{
			"m2mauth_keys_state" + of(`,state="fresh"`):            1,
			"m2mauth_keys_age_seconds" + of(""):                    60,
			"m2mauth_keys_last_success_timestamp_seconds" + of(""): seconds(begin),
			"m2mauth_keys_serve_until_timestamp_seconds" + of(""):  seconds(begin.Add(testguard.KeysTTL + testguard.KeysStaleFor)),
			"m2mauth_keys_published" + of(`,usable="true"`):        1,
			"m2mauth_keys_published" + of(`,usable="false"`):       1,
			"m2mauth_keys_fetches_total" + of(""):                  1,
		}
		assert.Equal(t, fresh, keys())

		testguard.KeysDown(issuer)
		time.Sleep(testguard.KeysTTL)
		_ = guard.Warm(t.Context())
		stale := keys()
		assert.EqualValues(t, 1, stale["m2mauth_keys_state"+of(`,state="stale"`)])
		assert.EqualValues(t, 1, stale["m2mauth_keys_fetch_failing"+of("")])
		assert.EqualValues(t, 1, stale["m2mauth_keys_fetch_failures_total"+of("")])
		assert.EqualValues(t, 2, stale["m2mauth_keys_fetches_total"+of("")])
		assert.NotContains(t, stale, "m2mauth_keys_state"+of(`,state="fresh"`))
		time.Sleep(testguard.KeysStaleFor)
		assert.EqualValues(t, 1, keys()["m2mauth_keys_state"+of(`,state="expired"`)])
	})
}

// A scrape that hangs as the issuer does would blind the operator in the very outage.
func TestAScrapeWaitsForNoFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewPedanticRegistry()
		metrics, err := promauth.New(registry, promauth.Options{})
		require.NoError(t, err)
		issuer := m2mauthtest.NewIssuer()
		testguard.KeysHanging(issuer)
		guard := testguard.KeysGuard(t, issuer)
		metrics.ObserveGuard(guard)
		store := new(logstore.Log).Connect(0)
		store.Set(logstore.Hangs)
		list, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour, Store: store, Logger: quiet})
		require.NoError(t, err)
		metrics.ObserveList(list)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- list.Run(ctx) }()
		go func() { _ = guard.Warm(t.Context()) }()
		synctest.Wait()
		begin := time.Now()
		series := scrape(t, registry)
		assert.Zero(t, time.Since(begin))
		assert.EqualValues(t, 1, series[`m2mauth_keys_waiting_requests{guard="default",issuer="`+issuer.URL()+`"}`])
		assert.EqualValues(t, 0, series[`m2mauth_revocation_serves{guard="default"}`])
		stop()
		require.NoError(t, <-ended)
		time.Sleep(2 * testguard.KeysTimeout) // the fetch ends
	})
}

func TestJoinedGuardsReportEachIssuer(t *testing.T) {
	t.Parallel()
	o := observe(t, promauth.Options{})
	other := m2mauthtest.NewIssuer()
	config := other.Config(testguard.Shop)
	config.Issuer = "https://other.test/oidc"
	second, err := m2mauth.New(config)
	require.NoError(t, err)
	joined, err := m2mauth.Join(o.guard, second)
	require.NoError(t, err)
	o.ObserveGuard(joined)
	assert.Len(t, nonzero(scrape(t, o), "keys_state"), 2)
}

func TestTheListIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewPedanticRegistry()
		metrics, err := promauth.New(registry, promauth.Options{})
		require.NoError(t, err)
		store := new(logstore.Log).Connect(0)
		require.NoError(t, revocation.Init(t.Context(), store))
		list, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour, Store: store, MaxEntries: 10, Logger: quiet})
		require.NoError(t, err)
		assert.Empty(t, nonzero(scrape(t, registry), "revocation"))
		metrics.ObserveList(list)
		assert.Equal(t, map[string]float64{`m2mauth_revocation_max_entries{guard="default"}`: 10}, nonzero(scrape(t, registry), "revocation"))

		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- list.Run(ctx) }()
		synctest.Wait()
		for _, client := range []string{"a", "b"} {
			e, err := list.Revoke(t.Context(), revocation.Entry{Client: client, Issuers: []string{"i"}, By: "ops"})
			require.NoError(t, err)
			if client == "a" {
				require.NoError(t, list.Undo(t.Context(), e.ID, "ops", ""))
			}
		}
		contact := list.Status().LastContact
		require.False(t, contact.IsZero())
		assert.Equal(t, map[string]float64{
			`m2mauth_revocation_entries{guard="default"}`:                        1,
			`m2mauth_revocation_used_entries{guard="default"}`:                   2,
			`m2mauth_revocation_max_entries{guard="default"}`:                    10,
			`m2mauth_revocation_serves{guard="default"}`:                         1,
			`m2mauth_revocation_ready{guard="default"}`:                          1,
			`m2mauth_revocation_last_contact_timestamp_seconds{guard="default"}`: float64(contact.UnixMilli()) / 1000,
		}, nonzero(scrape(t, registry), "revocation"))
		stop()
		require.NoError(t, <-ended)
	})
}

func TestGuardsShareARegistry(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	for _, name := range []string{"", "shop", "billing"} {
		metrics, err := promauth.New(registry, promauth.Options{Guard: name})
		require.NoError(t, err)
		metrics.ObserveGuard(testguard.Quiet(t, m2mauthtest.NewIssuer()))
	}
	count := len(scrape(t, registry))
	_, err := promauth.New(registry, promauth.Options{Guard: "shop"})
	require.ErrorContains(t, err, `promauth: the metrics of guard "shop"`)
	require.ErrorAs(t, err, new(prometheus.AlreadyRegisteredError))
	assert.Len(t, scrape(t, registry), count, "those registered first stay")
	_, err = promauth.New(registry, promauth.Options{Guard: "\xff"})
	require.Error(t, err)
}

// What was registered before the mistake would be in the way of the next attempt.
func TestNothingIsLeftAfterAFailure(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	own := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "m2mauth_cache_bytes", Help: "Memory that the cache's tokens take.", ConstLabels: prometheus.Labels{"guard": "default"},
	})
	registry.MustRegister(own)
	_, err := promauth.New(registry, promauth.Options{})
	require.Error(t, err)
	assert.Len(t, scrape(t, registry), 1)
	registry.Unregister(own)
	_, err = promauth.New(registry, promauth.Options{})
	require.NoError(t, err)
}

// One byte in a setting must not cost all metrics of the program.
func TestAnIssuerThatIsNotUTF8FailsNoScrape(t *testing.T) {
	t.Parallel()
	o := observe(t, promauth.Options{}, func(c *m2mauth.Config) { c.Issuer = "https://issuer.test/\xff" })
	assert.Contains(t, scrape(t, o), `m2mauth_keys_state{guard="default",issuer="https://issuer.test/�",state="none"}`)
}

func TestNativeHistogramsAreAnOption(t *testing.T) {
	t.Parallel()
	for _, native := range []bool{false, true} {
		o := observe(t, promauth.Options{NativeHistograms: native})
		o.ask("")
		for _, family := range gather(t, o) {
			if family.GetName() == "m2mauth_decision_duration_seconds" {
				h := family.GetMetric()[0].GetHistogram()
				assert.Equal(t, native, h.Schema != nil)
				assert.Len(t, h.GetBucket(), 14, "the classic ones in any case")
			}
		}
	}
}

func TestTheLinterHasNothingToSay(t *testing.T) {
	t.Parallel()
	problems, err := testutil.GatherAndLint(everything(t))
	require.NoError(t, err)
	assert.Empty(t, problems)
}

// everything returns a registry with each metric there is.
func everything(t *testing.T) prometheus.Gatherer {
	t.Helper()
	o := observe(t, promauth.Options{}, func(c *m2mauth.Config) { c.InsecureReportOnlyUntil = time.Now().Add(time.Hour) })
	require.NoError(t, o.guard.Warm(t.Context()))
	store := new(logstore.Log).Connect(0)
	require.NoError(t, revocation.Init(t.Context(), store))
	list, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour, Store: store, Logger: quiet})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- list.Run(ctx) }()
	t.Cleanup(func() { stop(); require.NoError(t, <-ended) })
	require.Eventually(t, func() bool { return list.Ready(ctx) == nil }, time.Minute, time.Millisecond)
	o.ObserveList(list)
	return o
}

// The page that alerts and dashboards are written by.
func TestThePageNamesEachMetric(t *testing.T) {
	t.Parallel()
	var want []string
	for _, family := range gather(t, everything(t)) {
		var labels []string
		for _, l := range family.GetMetric()[0].GetLabel() {
			if l.GetName() != "guard" { // which all have
				labels = append(labels, "`"+l.GetName()+"`")
			}
		}
		want = append(want, fmt.Sprintf("| `%s` | %s | %s | %s |", family.GetName(),
			strings.ToLower(family.GetType().String()), strings.Join(labels, ", "), strings.TrimSuffix(family.GetHelp(), ".")))
	}
	page, err := os.ReadFile("../../docs/observability/README.md")
	require.NoError(t, err)
	rows := regexp.MustCompile("(?m)^\\| `m2mauth_.*$").FindAllString(strings.ReplaceAll(string(page), "\r\n", "\n"), -1)
	slices.Sort(rows)
	slices.Sort(want)
	assert.Equal(t, strings.Join(want, "\n"), strings.Join(rows, "\n"))
}

func TestADecisionAllocatesNothing(t *testing.T) { // alone: AllocsPerRun counts what others allocate
	for _, native := range []bool{false, true} {
		o := observe(t, promauth.Options{NativeHistograms: native})
		d := m2mauth.Decision{Outcome: m2mauth.Allowed, Remembered: true, Duration: time.Microsecond}
		assert.Zero(t, testing.AllocsPerRun(1000, func() { o.OnDecision(t.Context(), d) }))
	}
}

// For the race detector.
func TestScrapesAndDecisionsGoTogether(t *testing.T) {
	t.Parallel()
	o := observe(t, promauth.Options{NativeHistograms: true})
	token := o.issuer.Token(testguard.Shop, "read:products")
	list, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour})
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				assert.Equal(t, 200, o.ask(token))
				o.ObserveGuard(o.guard)
				o.ObserveList(list)
			}
		})
		all.Go(func() {
			for range 20 {
				_, err := o.Gather()
				assert.NoError(t, err)
			}
		})
	}
	all.Wait()
	assert.EqualValues(t, 800, scrape(t, o)[`m2mauth_decisions_total{guard="default",outcome="allowed",report_only="false"}`])
}

// BenchmarkCheck is a request with a known token, with and without metrics.
func BenchmarkCheck(b *testing.B) {
	metrics, err := promauth.New(prometheus.NewRegistry(), promauth.Options{})
	require.NoError(b, err)
	native, err := promauth.New(prometheus.NewRegistry(), promauth.Options{NativeHistograms: true})
	require.NoError(b, err)
	for name, onDecision := range map[string]func(context.Context, m2mauth.Decision){
		"without": nil, "empty": func(context.Context, m2mauth.Decision) {}, "promauth": metrics.OnDecision, "native": native.OnDecision,
	} {
		b.Run(name, func(b *testing.B) {
			issuer := m2mauthtest.NewIssuer()
			guard := testguard.Quiet(b, issuer, func(c *m2mauth.Config) { c.OnDecision = onDecision })
			r, rule := testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, "read:products")), m2mauth.AllScopes("read:products")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := guard.Check(r, rule); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
