package echoauth

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/assert"
)

func TestRulesSeeWhatTheRequestHas(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodGet, "/orgs/acme/files/a", nil)
	r.RemoteAddr = "192.0.2.7:4711"
	r.Header.Set("X-Forwarded-For", "198.51.100.1") // anyone can send it
	r.Header.Add("X-Twice", "one")
	r.Header.Add("X-Twice", "two")

	e := echo.New()
	group := e.Group("/orgs/:org", func(next echo.HandlerFunc) echo.HandlerFunc { // a group's middleware, as a guard may be
		return func(c *echo.Context) error {
			seen := request{c}
			assert.Equal(t, "acme", seen.PathValue("org"))
			assert.Equal(t, "a", seen.PathValue("file"))
			assert.Empty(t, seen.PathValue("none"))
			assert.Equal(t, []string{"one", "two"}, seen.Header("x-twice"))
			assert.Empty(t, seen.Header("Authorization"))
			assert.Equal(t, "192.0.2.7:4711", seen.RemoteAddr())
			assert.Equal(t, "/orgs/:org/files/:file", seen.Pattern())
			return next(c)
		}
	})
	group.GET("/files/:file", func(c *echo.Context) error { return c.NoContent(http.StatusNoContent) })

	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	assert.Equal(t, http.StatusNoContent, w.Code)
}
