package ginauth_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/ginauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestWhateverAConfigErrorHandlerDoesARefusalIsNoSuccess(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		handler func(http.ResponseWriter)
		status  int
		body    string
	}{
		{"nothing", func(http.ResponseWriter) {}, 401, ""},
		{"a body", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "no") }, 401, "no"},
		{"200 and a body", func(w http.ResponseWriter) { w.WriteHeader(200); _, _ = io.WriteString(w, "no") }, 401, "no"},
		{"a hint and a body", func(w http.ResponseWriter) { w.WriteHeader(103); _, _ = io.WriteString(w, "no") }, 401, "no"},
		{"a status", func(w http.ResponseWriter) { w.WriteHeader(404) }, 404, ""},
		{"a flush and a body", func(w http.ResponseWriter) { w.(http.Flusher).Flush(); _, _ = io.WriteString(w, "no") }, 401, "no"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config := m2mauthtest.NewIssuer().Config("https://shopping.api")
			config.Logger = slog.New(slog.DiscardHandler)
			config.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ *m2mauth.Error) { test.handler(w) }
			guard, err := m2mauth.New(config)
			require.NoError(t, err)
			engine := gin.New()
			engine.GET("/products", ginauth.Authenticate(guard), func(*gin.Context) { panic("not reached") })
			w := httptest.NewRecorder()
			engine.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/products", nil))
			assert.Equal(t, test.status, w.Code)
			assert.Equal(t, test.body, w.Body.String())
			assert.NotEmpty(t, w.Header().Get("WWW-Authenticate"))
		})
	}
}
