package ginauth

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
)

func TestTheValueOfACatchAllBeginsWithASlashAndOfConnectThereIsNone(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]string{http.MethodGet: "/a/b", http.MethodConnect: ""} {
		reached := false
		router := gin.New()
		group := router.Group("/files", func(c *gin.Context) { // a group's middleware, as a guard may be
			reached = true
			assert.Equal(t, want, request{c: c}.PathValue("path"), method)
			assert.Equal(t, "/files/*path", request{c: c}.Pattern())
		})
		group.Handle(method, "/*path", func(*gin.Context) {})
		r := httptest.NewRequest(method, "/", nil)
		r.URL.Path = "/files/a/b"
		router.ServeHTTP(httptest.NewRecorder(), r)
		assert.True(t, reached, method)
	}
}

func TestNothingIsKnownWithoutARequest(t *testing.T) {
	t.Parallel()
	without := request{c: &gin.Context{}}
	assert.Empty(t, without.RemoteAddr())
	assert.Empty(t, without.PathValue("org"))
	assert.Empty(t, without.Method())
	assert.Nil(t, without.URL())
	assert.Nil(t, without.TLS())
	assert.Empty(t, without.Pattern())
}
