package infront

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheAPIAnswersAndTheListHasWhy(t *testing.T) {
	var log bytes.Buffer
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(was) })
	api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })

	guard, err := ReportOnly("https://issuer.test/oidc", "https://shopping.api", time.Now().AddDate(0, 0, 14))
	require.NoError(t, err)
	call := func(method, path string, guarded http.Handler) int {
		w := httptest.NewRecorder()
		guarded.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code
	}
	for _, test := range []struct{ method, path string }{{"GET", "/products"}, {"POST", "/products"}, {"PUT", "/products"}, {"GET", "/other"}} {
		assert.Equal(t, http.StatusTeapot, call(test.method, test.path, InFront(guard, api)))
	}
	assert.NotEqual(t, http.StatusTeapot, call("GET", "//products", InFront(guard, api)), "the mux redirects it, as the page says")
	assert.Equal(t, http.StatusUnauthorized, call("GET", "/products", InFront(guard.Enforcing(), api)))
	assert.Equal(t, http.StatusTeapot, call("GET", "/other", InFront(guard.Enforcing(), api)))
	assert.Equal(t, 2, bytes.Count(log.Bytes(), []byte(`msg="would be rejected"`)), log.String())
	assert.Contains(t, log.String(), "read:products")
	assert.Contains(t, log.String(), `why="this request needs an access token`)
}
