package echoauth

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/assert"
)

// No part of the path comes under another's name, and of a CONNECT request none.
func TestPathValuesOfConnectAndOfEmptyParts(t *testing.T) {
	t.Parallel()
	e := echo.New()
	seen, reached := map[string]string{}, false
	record := func(c *echo.Context) error {
		reached = true
		seen["org"], seen["item"] = request{c}.PathValue("org"), request{c}.PathValue("item")
		return nil
	}
	for _, method := range []string{http.MethodGet, http.MethodConnect} {
		e.Add(method, "/orgs/:org/items/:item", record)
		e.Add(method, "/rest/*", record)
	}
	for _, test := range []struct{ method, path, org, item string }{
		{"GET", "/orgs/acme/items/1", "acme", "1"},
		{"GET", "/orgs//items/acme", "", "acme"},
		{"GET", "/orgs/acme/items/", "acme", ""},
		{"CONNECT", "/rest/acme", "", ""},
		{"CONNECT", "/orgs//items/acme", "", ""},
		{"CONNECT", "/orgs/acme/items/1", "", ""},
	} {
		clear(seen)
		reached = false
		r := httptest.NewRequest(test.method, "/", nil)
		r.URL.Path = test.path
		e.ServeHTTP(httptest.NewRecorder(), r)
		if reached { // an empty part may have no route
			assert.Equal(t, map[string]string{"org": test.org, "item": test.item}, seen, "%s %s", test.method, test.path)
		}
	}
	assert.True(t, reached, "a CONNECT request comes to its handler")
	assert.Empty(t, request{}.RemoteAddr(), "without a request")
	assert.Empty(t, request{}.PathValue("org"))
}
