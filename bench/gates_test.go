package bench

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is compared is the same: both programs tell good tokens from bad ones, or
// StartGates fails, and each figure can be had.
func TestTheGatesAreMeasured(t *testing.T) {
	if os.Getenv("E2E") == "" {
		t.Skip("to build oauth2-proxy takes minutes: with E2E=required it is built")
	}
	dir := t.TempDir()
	require.NoError(t, BuildGates("..", dir))
	gates, err := StartGates(dir, "ES384")
	require.NoError(t, err)
	defer gates.Stop()
	for _, form := range GateForms {
		for _, many := range []bool{false, true} {
			cost, err := gates.Known(form, many, 50*time.Millisecond)
			require.NoError(t, err, form)
			assert.Positive(t, cost.Rate, form)
		}
	}
	latency, err := gates.KnownLatency("ext_authz", true, 100*time.Millisecond)
	require.NoError(t, err)
	assert.Zero(t, latency.Refused)
	answers, err := gates.Reloading("auth_request", 50*time.Millisecond, time.Second)
	require.NoError(t, err)
	assert.Zero(t, answers.Wrong)
	assert.Positive(t, answers.Right)
	assert.Positive(t, answers.Reloads)
}
