package echo4auth

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/assert"
)

func TestTheValueOfACatchAllIsUnderItsStarAndOfConnectThereIsNone(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]string{http.MethodGet: "a/b", http.MethodConnect: ""} {
		reached := false
		e := echo.New()
		group := e.Group("/files", func(next echo.HandlerFunc) echo.HandlerFunc { // a group's middleware, as a guard may be
			return func(c echo.Context) error {
				reached = true
				assert.Equal(t, want, request{c: c}.PathValue("*"), method)
				assert.Equal(t, "/files/*", request{c: c}.Pattern())
				return next(c)
			}
		})
		group.Add(method, "/*", func(echo.Context) error { return nil })
		r := httptest.NewRequest(method, "/", nil)
		r.URL.Path = "/files/a/b"
		e.ServeHTTP(httptest.NewRecorder(), r)
		assert.True(t, reached, method)
	}
}

func TestPathValuesAreThoseThatTheHandlerReads(t *testing.T) {
	t.Parallel()
	e, seen := echo.New(), ""
	e.GET("/orgs/:org", func(c echo.Context) error {
		seen = request{c: c}.PathValue("org")
		assert.Equal(t, c.Param("org"), seen)
		return nil
	})
	for path, want := range map[string]string{
		"/orgs/acme": "acme", "/orgs/Acme": "Acme", "/orgs/a%20b": "a b", "/orgs/%61cme": "%61cme", "/orgs/acme%2Fx": "acme%2Fx",
	} {
		seen = "no handler"
		e.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
		assert.Equal(t, want, seen, path)
	}
}

func TestNothingIsKnownWithoutARequest(t *testing.T) {
	t.Parallel()
	without := request{}
	assert.Empty(t, without.RemoteAddr())
	assert.Empty(t, without.PathValue("org"))
	assert.Empty(t, without.Method())
	assert.Nil(t, without.URL())
	assert.Nil(t, without.TLS())
	assert.Empty(t, without.Pattern())
}
