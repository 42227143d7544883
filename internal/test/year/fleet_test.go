package year

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// A thousand processes that are started in the same second and are busy from
// then on: without the jitter all of them would refresh in the same second, 80 %
// into each TTL.
func TestAFleetSpreadsItsRefreshes(t *testing.T) {
	const fleet = 1000
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		begin := time.Now()
		var mu sync.Mutex
		perSecond := map[int]int{}
		testguard.KeysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			mu.Lock()
			perSecond[int(time.Since(begin)/time.Second)]++
			mu.Unlock()
			next.ServeHTTP(w, r)
		})
		guards := make([]*m2mauth.Guard, fleet)
		for i := range guards {
			guards[i] = testguard.KeysGuard(t, issuer)
		}
		for time.Since(begin) < 3*testguard.KeysTTL {
			for _, g := range guards {
				require.NoError(t, g.Warm(t.Context()))
			}
			time.Sleep(time.Second)
		}
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, fleet, perSecond[0])
		delete(perSecond, 0)

		peak := func(from, to time.Duration) (peak int) {
			for second, n := range perSecond {
				if at := time.Duration(second) * time.Second; at >= from && at < to {
					peak = max(peak, n)
				}
			}
			return peak
		}
		seconds := make([]int, 0, len(perSecond))
		for s := range perSecond {
			seconds = append(seconds, s)
		}
		slices.Sort(seconds)
		t.Logf("the most fetches in a second: %d in the first round, %d after it; without the jitter %d; first refresh at %d s", peak(0, testguard.KeysTTL), peak(testguard.KeysTTL, 3*testguard.KeysTTL), fleet, seconds[0])
		// 1,000 over 120 s are 8.3 a second; more than 30 in one of them is
		// less likely than one in a million runs.
		assert.LessOrEqual(t, peak(0, 3*testguard.KeysTTL), 30)
		assert.GreaterOrEqual(t, seconds[0], 420)
	})
}

// The guards of a fleet that starts while the issuer is down try again at the
// same moments, since nothing but their start is known of them.
func TestAFleetThatStartsDuringAnOutage(t *testing.T) {
	const fleet = 1000
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		begin := time.Now()
		var mu sync.Mutex
		perSecond := map[int]int{}
		issuer.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				mu.Lock()
				perSecond[int(time.Since(begin)/time.Second)]++
				mu.Unlock()
				w.WriteHeader(http.StatusBadGateway)
			})
		})
		guards := make([]*m2mauth.Guard, fleet)
		for i := range guards {
			guards[i] = testguard.KeysGuard(t, issuer)
		}
		for time.Since(begin) < 5*time.Minute {
			for _, g := range guards {
				_ = g.Warm(t.Context())
			}
			time.Sleep(time.Second)
		}
		mu.Lock()
		defer mu.Unlock()
		total, peak := 0, 0
		for second, n := range perSecond {
			total += n
			if second > 60 {
				peak = max(peak, n)
			}
		}
		t.Logf("%d attempts of %d guards in five minutes, the most in a second after the first minute: %d", total, fleet, peak)
		assert.LessOrEqual(t, total, fleet*(4+30))
	})
}
