package pages_test

import (
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/logs"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// The lines of the log that docs/operations.md shows are those that a guard writes,
// but for times and key IDs.
func TestTheSampleOfTheLogIsWhatAGuardWrites(t *testing.T) {
	t.Parallel()
	var sample []string
	for _, b := range blocksIn([]*page{readPage(t, "docs/operations.md")}, "text") {
		if b.mark == markLog {
			sample = append(sample, strings.Split(strings.TrimSpace(b.text), "\n")...)
		}
	}
	require.NotEmpty(t, sample)

	var log logs.Buffer
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		config := issuer.Config("https://shopping.api")
		config.Logger = slog.New(slog.NewTextHandler(&log, nil))
		guard, err := m2mauth.New(config)
		require.NoError(t, err)
		mux := http.NewServeMux()
		mux.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(list)))
		mux.Handle("POST /products", guard.Require("write:products")(http.HandlerFunc(create)))
		token := func(audience string) string {
			return issuer.Sign(m2mauthtest.Token{AppID: "reader", Audience: audience, Scopes: []string{"read:products"}})
		}
		ask := func(method, token string, want int) {
			t.Helper()
			assert.Equal(t, want, serve(mux, method, "/products", token).Code)
			synctest.Wait() // a fetch logs when its requests go on
		}

		ask("GET", token("https://shopping.api"), 200)
		ask("GET", token("https://billing.api"), 401)
		ask("POST", token("https://shopping.api"), 403)
		old := issuer.KeyIDs()[0]
		issuer.Rotate("ES384")
		ask("GET", token("https://shopping.api"), 200)
		issuer.Withdraw(old)
		time.Sleep(11 * time.Minute)
		ask("GET", token("https://shopping.api"), 200)
		issuer.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
		})
		time.Sleep(11 * time.Minute)
		ask("GET", token("https://shopping.api"), 200)
	})
	assert.Equal(t, withoutTimesAndKeys(log.String()), withoutTimesAndKeys(strings.Join(sample, "\n")+"\n"), "the guard wrote\n%s", log.String())
}

func withoutTimesAndKeys(log string) string {
	log = strings.ReplaceAll(log, "https://your.logto.endpoint/oidc", "https://issuer.test/oidc")
	log = regexp.MustCompile(`\b\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)`).ReplaceAllString(log, "TIME")
	return regexp.MustCompile(`[A-Za-z0-9_-]{43}`).ReplaceAllString(log, "KEY")
}
