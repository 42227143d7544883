package echoauth_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/assert"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/echoauth"
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
			guard := newGuard(t, m2mauthtest.NewIssuer(), func(w http.ResponseWriter, _ *http.Request, _ *m2mauth.Error) { test.handler(w) })
			e := echo.New()
			e.GET("/products", func(*echo.Context) error { panic("not reached") }, echoauth.Authenticate(guard))
			w := serve(e, request(""))
			assert.Equal(t, test.status, w.Code)
			assert.Equal(t, test.body, w.Body.String())
			assert.NotEmpty(t, w.Header().Get("WWW-Authenticate"))
		})
	}
}
