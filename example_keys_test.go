package m2mauth_test

import (
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// Probes for Kubernetes. The API is ready while the guard has keys, even stale ones, so
// an outage of the issuer does not take every replica out of service at once. Liveness
// does not depend on the issuer, since a restart would only lose the keys.
func ExampleGuard_Warm() {
	issuer := m2mauthtest.NewIssuer() // in production: Config.Issuer alone
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := guard.Warm(r.Context()); err != nil {
			slog.Warn("not ready", "error", err, "keys", guard.Keys().State)
			http.Error(w, "no keys to check tokens with", http.StatusServiceUnavailable)
		}
	})

	for _, path := range []string{"/livez", "/readyz"} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		fmt.Println(path, w.Code)
	}
	fmt.Println("keys:", guard.Keys().State)
	// Output:
	// /livez 200
	// /readyz 200
	// keys: fresh
}

// What ExampleGuard_Warm promises, with a probe every ten seconds.
func TestReadinessThroughAnOutage(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		keysDown(issuer)
		probe := func() bool { return g.Warm(t.Context()) == nil }
		for range 6 {
			assert.False(t, probe(), "an API without keys is not ready")
			time.Sleep(10 * time.Second)
		}
		issuer.Intercept(nil)
		time.Sleep(keysBackoff)
		assert.True(t, probe())
		last := time.Now()

		keysHanging(issuer)
		for time.Since(last) < keysTTL+keysStaleFor {
			begin := time.Now()
			assert.True(t, probe(), "an outage of the issuer is not one of the API")
			assert.Zero(t, time.Since(begin))
			time.Sleep(10 * time.Second)
		}
		assert.False(t, probe(), "until KeyStaleFor has passed")
		issuer.Intercept(nil)
		time.Sleep(keysBackoff + keysTimeout)
		assert.True(t, probe())
		assert.Equal(t, m2mauth.KeysFresh, g.Keys().State)
	})
}

// Callers and the API know the issuer by different host names, as in Compose and
// Kubernetes.
func ExampleNew_splitHorizon() {
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer:            "http://localhost:3001/oidc",
		Audience:          "https://shopping.api",
		JWKSURL:           "http://logto:3001/oidc/jwks",
		InsecureHTTPHosts: []string{"logto"},
	})
	fmt.Println(guard.Keys().State, err)
	// Output: none <nil>
}
