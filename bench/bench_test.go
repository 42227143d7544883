package bench

import (
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
)

func TestMain(m *testing.M) {
	ServeIfAsked()
	os.Exit(m.Run())
}

// BenchmarkRequest measures a request through a handler that wants a scope.
// fetches/op is how often the issuer was asked for its keys.
func BenchmarkRequest(b *testing.B) {
	for _, algorithm := range Algorithms {
		fixture, err := NewFixture(algorithm, 1024)
		require.NoError(b, err)
		for _, workload := range Workloads {
			for _, name := range names() {
				b.Run(algorithm+"/"+workload.Name+"/"+name, func(b *testing.B) {
					run, err := fixture.Prepare(name, workload)
					require.NoError(b, err)
					defer run.Stop()
					b.ResetTimer()
					run.Benchmark(b)
					b.ReportMetric(float64(run.Fetches())/float64(b.N), "fetches/op")
				})
			}
		}
	}
}

func names() []string {
	list := []string{Floor}
	for _, c := range Contenders {
		list = append(list, c.Name)
	}
	return list
}

func TestEveryContenderAcceptsGoodTokensAndRefusesBadOnes(t *testing.T) {
	t.Parallel()
	for _, algorithm := range Algorithms {
		fixture, err := NewFixture(algorithm, 2)
		require.NoError(t, err)
		for _, c := range Contenders {
			for name, row := range map[string]struct {
				token string
				want  int
			}{
				"a good token":                {fixture.ring[1], http.StatusOK},
				"a forged one":                {fixture.forged[0], http.StatusUnauthorized},
				"one of another resource":     {fixture.otherAudience[0], http.StatusUnauthorized},
				"one with a made-up key ID":   {fixture.madeUpKey[0], http.StatusUnauthorized},
				"a good one without a scope":  {fixture.issuer.Token(audience), http.StatusForbidden},
				"a good one of another scope": {fixture.issuer.Token(audience, "write:products"), http.StatusForbidden},
			} {
				run, err := fixture.Prepare(c.Name, Workload{status: row.want, tokens: func(*Fixture) []string { return []string{row.token} }})
				assert.NoError(t, err, "%s, %s, %s", algorithm, c.Name, name)
				if err == nil {
					run.Stop()
				}
			}
		}
	}
}

// The ring is as long in the benchmarks.
// What is measured is what answers should be: a contender that answers otherwise is not
// ready.
func TestEveryContenderIsReadyForEveryWorkload(t *testing.T) {
	t.Parallel()
	fixture, err := NewFixture("ES256", 1000)
	require.NoError(t, err)
	for _, workload := range Workloads {
		for _, name := range names() {
			run, err := fixture.Prepare(name, workload)
			require.NoError(t, err)
			run.Stop()
		}
	}
	_, err = fixture.Prepare(Ours, Workload{status: http.StatusOK, tokens: func(f *Fixture) []string { return f.forged }})
	assert.Error(t, err)
}

func TestTokensOfTheFirstSeenWorkloadAreNeverRemembered(t *testing.T) {
	t.Parallel()
	fixture, err := NewFixture("EdDSA", 1024)
	require.NoError(t, err)
	config := fixture.issuer.Config(audience)
	config.CacheBytes = firstSeenCache
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	for range 2 {
		for _, token := range fixture.ring {
			_, err := guard.Verify(t.Context(), token)
			require.NoError(t, err)
		}
	}
	stats := guard.Stats()
	assert.Zero(t, stats.Hits)
	assert.NotZero(t, stats.Evicted)
}

func TestAServerInItsOwnProcessAnswersDuringAFlood(t *testing.T) {
	t.Parallel()
	server, err := StartServer(Ours)
	require.NoError(t, err)
	defer server.Stop()
	health, known, many, err := server.Rates(50 * time.Millisecond)
	require.NoError(t, err)
	assert.Positive(t, min(health, known, many))
	latency, err := server.KnownLatency(true, 50*time.Millisecond)
	require.NoError(t, err)
	assert.Positive(t, latency.P50)
	assert.Zero(t, latency.Refused)
	// How many of the new ones are refused is a figure of the report: on a machine
	// that is slow enough, some wait longer than the queue lets them.
	latency, sent, err := server.NewLatency(50 * time.Millisecond)
	require.NoError(t, err)
	assert.Positive(t, latency.P50)
	assert.Positive(t, sent)
}
