package ginauth

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
)

func TestRulesSeeWhatTheRequestHas(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodGet, "/orgs/acme/files/a/b", nil)
	r.RemoteAddr = "192.0.2.7:4711"
	r.Header.Set("X-Forwarded-For", "198.51.100.1") // anyone can send it
	r.Header.Add("X-Twice", "one")
	r.Header.Add("X-Twice", "two")

	router := gin.New()
	group := router.Group("/orgs/:org", func(c *gin.Context) { // a group's middleware, as a guard may be
		seen := request{c}
		assert.Equal(t, "acme", seen.PathValue("org"))
		assert.Equal(t, "/a/b", seen.PathValue("path"))
		assert.Empty(t, seen.PathValue("none"))
		assert.Equal(t, []string{"one", "two"}, seen.Header("x-twice"))
		assert.Empty(t, seen.Header("Authorization"))
		assert.Equal(t, "192.0.2.7:4711", seen.RemoteAddr())
		assert.Equal(t, "/orgs/:org/files/*path", seen.Pattern())
	})
	group.GET("/files/*path", func(c *gin.Context) { c.Status(http.StatusNoContent) })

	w := httptest.NewRecorder()
	router.ServeHTTP(w, r)
	assert.Equal(t, http.StatusNoContent, w.Code)
}
