// Package observability loads the dashboard and the alert rules of docs/observability
// into a real Prometheus, which scrapes shops whose issuers, stores and clients fail.
package observability

import (
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/e2e/internal/process"
	"github.com/m2mauth/m2mauth/internal/test/redisserver"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/revocation"
	"github.com/m2mauth/m2mauth/revocation/redisstore"
)

func TestMain(m *testing.M) { process.Main(m) }

// patience ends the wait for what does not come, also on a machine that is busy.
const patience = 4 * time.Minute

// The alerts.
const (
	issuerFails     = "M2MAuthIssuerFails"
	keysExpireSoon  = "M2MAuthKeysExpireSoon"
	keysUnavailable = "M2MAuthKeysUnavailable"
	manyRejected    = "M2MAuthManyTokensRejected"
	forgedTokens    = "M2MAuthForgedTokens"
	clocksDiffer    = "M2MAuthClocksDiffer"
	queueFull       = "M2MAuthQueueFull"
	unavailable     = "M2MAuthUnavailable"
	internalErrors  = "M2MAuthInternalErrors"
	listOutdated    = "M2MAuthRevocationListOutdated"
	dryRunEnds      = "M2MAuthReportOnlyEndsSoon"
)

// fault is something that happens to a shop. Its name is the shop's job.
type fault struct {
	name string
	env  []string // of the shop
	// early says that the shop starts with the fault.
	early  bool
	inject func(*place) (mend func())
	// fires are the alerts that fire together, one step after the other.
	fires [][]string
}

// Keys are fetched anew after 20 seconds at the latest, so that a fault shows soon. A
// shorter KeyTTL would leave a fetch too little time on a busy machine. Where the keys
// shall expire, KeyStaleFor is scaled as the rules are: by default it is an hour.
var (
	short   = []string{"M2MAUTH_KEY_TTL=20s", "M2MAUTH_KEY_STALE_FOR=60s"}
	lasting = []string{"M2MAUTH_KEY_TTL=20s", "M2MAUTH_KEY_STALE_FOR=1h"}
)

func faults(t *testing.T) []fault {
	redis := redisserver.Start(t)
	store, err := redisstore.New(redisstore.Config{Address: redis.Addr})
	require.NoError(t, err)
	defer store.Close()
	require.NoError(t, revocation.Init(t.Context(), store))

	var sessionsDown atomic.Bool
	sessions := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case sessionsDown.Load():
			w.WriteHeader(http.StatusInternalServerError)
		case r.FormValue("client") == "revoked":
			w.WriteHeader(http.StatusGone)
		}
	}))
	t.Cleanup(sessions.Close)

	down := func(p *place) func() {
		p.issuer.stop()
		return p.issuer.start
	}
	tokens := func(perSecond float64, path string, edit func(*m2mauthtest.Token)) func(*place) func() {
		return func(p *place) func() {
			return p.every(perSecond, path, func() string { return p.token(edit) })
		}
	}
	all := []fault{
		{name: "the issuer is down", env: short, inject: down,
			fires: [][]string{{issuerFails}, {issuerFails, keysExpireSoon}, {issuerFails, keysUnavailable}}},
		{name: "the issuer is down from the start", env: lasting, early: true, inject: down,
			fires: [][]string{{issuerFails, keysUnavailable}}},
		{name: "a client asks for the wrong resource", fires: [][]string{{manyRejected}},
			inject: tokens(15, "/products", func(t *m2mauthtest.Token) { t.Audience = "https://billing.api" })},
		{name: "a client lost its role", fires: [][]string{{manyRejected}},
			inject: tokens(15, "/products", func(t *m2mauthtest.Token) { t.Scopes = nil })},
		{name: "forged tokens", fires: [][]string{{forgedTokens}},
			inject: func(p *place) func() { return p.every(20, "/products", p.forger()) }},
		{name: "the issuer's clock is ahead", fires: [][]string{{clocksDiffer}},
			inject: tokens(2, "/products", func(t *m2mauthtest.Token) {
				t.Claims = map[string]any{"iat": time.Now().Add(10 * time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix()}
			})},
		{name: "a function fails", fires: [][]string{{internalErrors}},
			inject: tokens(1, "/offers", func(t *m2mauthtest.Token) { t.AppID = "without-a-row" })},
		{name: "the store of revocations is down", env: []string{"REDIS=" + redis.Addr}, fires: [][]string{{listOutdated}},
			inject: func(*place) func() { redis.Kill(); return redis.Run }},
		{name: "the Config.Revoked of the API fails", env: []string{"SESSIONS=" + sessions.URL}, fires: [][]string{{unavailable}},
			inject: func(*place) func() {
				sessionsDown.Store(true)
				return func() { sessionsDown.Store(false) }
			}},
		{name: "the dry run ends soon", fires: [][]string{{dryRunEnds}},
			inject: func(p *place) func() {
				p.open("M2MAUTH_INSECURE_REPORT_ONLY_UNTIL=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
				return func() { p.open() }
			}},
	}
	for how, answer := range wrongAnswers {
		all = append(all, fault{name: "the issuer " + how, env: lasting, fires: [][]string{{issuerFails}},
			inject: func(p *place) func() {
				p.issuer.fail(answer)
				return p.issuer.mend
			}})
	}
	return all
}

// wrongAnswers are the soak's.
var wrongAnswers = map[string]http.HandlerFunc{
	"hangs": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	"fails": func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "down for maintenance", http.StatusInternalServerError)
	},
	"sends an HTML page": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<!doctype html><title>Welcome</title>")
	},
	"sends half of the answer": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"keys":[{"kty":"EC",`)
	},
	"publishes no keys":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) },
	"breaks the connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	"redirects to a stranger": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
	},
	"sends without an end": func(w http.ResponseWriter, r *http.Request) {
		drip := time.NewTicker(50 * time.Millisecond)
		defer drip.Stop()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-drip.C:
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
			}
		}
	},
}

// A flood of new tokens fills the queue. It takes the machine's cores too, so it comes
// when the other faults are over.
var flood = fault{name: "a flood of forged tokens", env: []string{"GOMAXPROCS=1"}, fires: [][]string{{forgedTokens, queueFull}},
	inject: func(p *place) func() {
		over, forged := make(chan struct{}), p.forger()
		for range 1500 { // a source has half of a queue of 2,000
			p.clients.Go(func() {
				for {
					select {
					case <-over:
						return
					case <-p.ended:
						return
					default:
						p.send(p.client, "/products", forged())
					}
				}
			})
		}
		return sync.OnceFunc(func() { close(over) })
	}}

// quiet is a shop to which nothing happens but what does every day: the issuer rotates
// its keys, and somebody makes key IDs up.
const quiet = "nothing"

func TestAlertsFireWhenTheyShouldAndAtNoOtherTime(t *testing.T) {
	if testing.Short() {
		process.Skip(t, "this takes two minutes, and -short was asked for")
	}
	process.Need(t, "prometheus")
	dir := t.TempDir()
	output, ok := process.Run(t, 10*time.Minute, exec.Command("go", "build", "-o", dir, "../internal/shop"))
	require.True(t, ok, output)

	all := append(faults(t), flood)
	everyAlertHasAFault(t, all)
	quietPlace := newPlace(t, filepath.Join(dir, "shop"))
	jobs, places := map[string]string{quiet: quietPlace.address}, make([]*place, len(all))
	for n, f := range all {
		places[n] = newPlace(t, quietPlace.program, f.env...)
		jobs[f.name] = places[n].address
	}
	server := startPrometheus(t, scaledRules(t), jobs)
	quietPlace.open()
	quietPlace.customers()
	quietPlace.rotations()
	// A source that makes key IDs up has no new key fetched for 10 seconds, which are not
	// scaled. It is a stranger's, or they would be 10 minutes of 503 for the customers.
	quietPlace.everyBy(quietPlace.stranger, 0.5, "/products", func() string {
		return quietPlace.token(func(t *m2mauthtest.Token) { t.Header = map[string]any{"kid": rand.Text()} })
	})
	for n, f := range all {
		if !f.early {
			places[n].open()
			places[n].customers()
		}
	}
	server.awaitQuiet(t, len(all)) // the one that starts with its fault is not there yet

	began := time.Now()
	run := &run{t: t, server: server}
	var others sync.WaitGroup
	for n, f := range all[:len(all)-1] {
		others.Go(func() { run.play(f, places[n]) })
	}
	others.Wait()
	run.play(flood, places[len(all)-1])
	slices.Sort(run.lines)
	t.Logf("| fault | alerts, and the seconds until they fired | seconds until all were over, once the fault was |\n%s", strings.Join(run.lines, "\n"))

	run.fired(all)
	askAllOf(t, dashboard(t), server, began)
	quietPlace.close()
}

// everyAlertHasAFault fails if a rule was added that nothing here lets fire.
func everyAlertHasAFault(t *testing.T, all []fault) {
	t.Helper()
	fired := make(map[string]bool)
	for _, f := range all {
		for _, name := range slices.Concat(f.fires...) {
			fired[name] = true
		}
	}
	for _, rule := range rules(t) {
		assert.True(t, fired[rule.Alert], "no fault lets %s fire", rule.Alert)
	}
}

// awaitQuiet waits until Prometheus has evaluated the rules for so many jobs more often
// than a rule waits: 10 minutes after a range of 5 minutes.
func (p *prometheus) awaitQuiet(t *testing.T, jobs int) {
	t.Helper()
	const longest = (10 + 5) * 60 / factor
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Second / 2) {
		samples, err := p.query(fmt.Sprintf("count_over_time(up[1h]) > %d and up == 1", longest+5))
		require.NoError(t, err)
		if len(samples) == jobs {
			break
		}
		require.True(t, time.Now().Before(deadline), "%d of %d shops were scraped", len(samples), jobs)
	}
	samples, err := p.query("ALERTS{alertstate=\"firing\"}")
	require.NoError(t, err)
	require.Empty(t, samples, "alerts fire although nothing has happened")
}

// run is the faults as they are played, several at a time.
type run struct {
	t      *testing.T
	server *prometheus

	mu    sync.Mutex // guards lines
	lines []string
}

// play injects a fault, waits until what should fire does, mends it, and waits until
// nothing does. Whatever else fires meanwhile is a mistake.
func (r *run) play(f fault, p *place) {
	defer p.close()
	began := time.Now()
	mend := f.inject(p)
	if f.early {
		p.open()
		p.customers()
	}
	after := make(map[string]float64)
	var before []string
	for _, want := range f.fires {
		if !r.await(f.name, want, before) {
			mend()
			return
		}
		for _, name := range want {
			if _, seen := after[name]; !seen {
				after[name] = time.Since(began).Seconds()
			}
		}
		before = want
	}
	mend()
	mended := time.Now()
	over := r.await(f.name, nil, before)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !over {
		return
	}
	var fired []string
	for _, name := range slices.Sorted(maps.Keys(after)) {
		fired = append(fired, fmt.Sprintf("%s %.0f", name, after[name]))
	}
	r.lines = append(r.lines, fmt.Sprintf("| %s | %s | %.0f |", f.name, strings.Join(fired, ", "), time.Since(mended).Seconds()))
}

// await waits until exactly these alerts fire for a job. Until then only those of before
// may.
func (r *run) await(job string, want, before []string) bool {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Second / 2) {
		got, err := r.server.firing(job)
		if !assert.NoError(r.t, err, job) {
			return false
		}
		if slices.Equal(got, want) {
			return true
		}
		if !assert.Subset(r.t, append(slices.Clone(want), before...), got, "%s: what fires", job) ||
			!assert.True(r.t, time.Now().Before(deadline), "%s: %v fire, not %v", job, got, want) {
			return false
		}
	}
}

// fired looks at what Prometheus has written down: whatever has fired for a moment.
func (r *run) fired(all []fault) {
	want := make(map[string][]string)
	for _, f := range all {
		want[f.name] = slices.Concat(f.fires...)
		slices.Sort(want[f.name])
		want[f.name] = slices.Compact(want[f.name])
	}
	samples, err := r.server.query(`group by (job, alertname) (count_over_time(ALERTS{alertstate="firing"}[1h]))`)
	require.NoError(r.t, err)
	got := make(map[string][]string)
	for _, s := range samples {
		got[s.Metric["job"]] = append(got[s.Metric["job"]], s.Metric["alertname"])
	}
	for job := range got {
		slices.Sort(got[job])
	}
	assert.Equal(r.t, want, got, "the alerts that ever fired")
}
