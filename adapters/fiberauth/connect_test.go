package fiberauth

import (
	"testing"

	"github.com/gofiber/fiber/v3"
	"github.com/stretchr/testify/assert"
)

// No part of the path comes under another's name, and of a CONNECT request none.
func TestPathValuesOfConnectAndOfEmptyParts(t *testing.T) {
	t.Parallel()
	app := fiber.New()
	seen, reached := map[string]string{}, false
	app.All("/orgs/:org/items/:item?", func(c fiber.Ctx) error {
		reached = true
		seen["org"], seen["item"] = request{c}.PathValue("org"), request{c}.PathValue("item")
		return nil
	})
	for _, test := range []struct{ method, path, org, item string }{
		{"GET", "/orgs/acme/items/1", "acme", "1"},
		{"GET", "/orgs//items/acme", "", "acme"},
		{"GET", "/orgs/acme/items/", "acme", ""},
		{"CONNECT", "/orgs//items/acme", "", ""},
		{"CONNECT", "/orgs/acme/items/1", "", ""},
	} {
		clear(seen)
		reached = false
		Exchange(t, app, test.method+" "+test.path+" HTTP/1.1\r\nHost: api.test\r\n\r\n")
		if reached { // an empty part may have no route
			assert.Equal(t, map[string]string{"org": test.org, "item": test.item}, seen, "%s %s", test.method, test.path)
		}
	}
	assert.True(t, reached, "a CONNECT request comes to its handler")
	assert.Empty(t, request{}.RemoteAddr(), "without a request")
	assert.Empty(t, request{}.PathValue("org"))
}
