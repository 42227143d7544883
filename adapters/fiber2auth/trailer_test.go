package fiber2auth

import (
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/assert"
)

// A trailer comes after all that a proxy has looked at, so it is no header field:
// not for OrganizationHeader and the queue, nor for Config.ErrorHandler.
func TestTrailersAreNoFields(t *testing.T) {
	t.Parallel()
	const chunked = "POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n"
	for _, test := range []struct {
		name, message string
		want          []string
	}{
		{"not announced", chunked + "\r\n0\r\nX-Organization: acme\r\n\r\n", nil},
		{"announced", chunked + "Trailer: X-Organization\r\n\r\n0\r\nX-Organization: acme\r\n\r\n", nil},
		{"after a body", chunked + "\r\n3\r\nabc\r\n0\r\nX-Organization: acme\r\n\r\n", nil},
		{"in another letter case", chunked + "\r\n0\r\nx-ORGANIZATION: acme\r\n\r\n", nil},
		{"beside a field", chunked + "X-Organization: globex\r\n\r\n0\r\nX-Organization: acme\r\n\r\n", []string{"globex"}},
		{"beside a field with a blank before its colon", chunked + "X-Organization : globex\r\n\r\n0\r\nX-Organization: acme\r\n\r\n", []string{"globex"}},
		{"beside two fields", chunked + "X-Organization: a\r\nx-organization: b\r\n\r\n0\r\nX-Organization: acme\r\n\r\n", []string{"a", "b"}},
		{"no trailer", chunked + "X-Organization: acme\r\n\r\n0\r\n\r\n", []string{"acme"}},
		{"no chunks", "GET / HTTP/1.1\r\nHost: api.test\r\nX-Organization: acme\r\n\r\n", []string{"acme"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, config := range []fiber.Config{{}, {StreamRequestBody: true}} {
				app, reached := fiber.New(config), false
				app.All("/", func(c *fiber.Ctx) error {
					reached = true
					_ = c.Body()                                                               // with StreamRequestBody it is read now
					assert.ElementsMatch(t, test.want, request{c: c}.Header("X-Organization")) // fasthttp exchanges them
					assert.ElementsMatch(t, test.want, httpRequest(c).Header.Values("X-Organization"))
					return nil
				})
				Exchange(t, app, test.message)
				assert.True(t, reached)
			}
		})
	}
}

// fasthttp's Del exchanges fields, and its Set leaves a trailer beside the new value.
func TestTrailersAreNoFieldsWhereAMiddlewareChangedSome(t *testing.T) {
	t.Parallel()
	const message = "POST / HTTP/1.1\r\nHost: api.test\r\nA: 1\r\nX-Organization: globex\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Organization: acme\r\nB: 2\r\n\r\n"
	for name, test := range map[string]struct {
		change func(*fiber.Ctx)
		want   []string
	}{
		"another deleted": {func(c *fiber.Ctx) { c.Request().Header.Del("A") }, []string{"globex"}},
		"two deleted":     {func(c *fiber.Ctx) { c.Request().Header.Del("A"); c.Request().Header.Del("B") }, []string{"globex"}},
		"set":             {func(c *fiber.Ctx) { c.Request().Header.Set("X-Organization", "acme") }, nil},
		"deleted":         {func(c *fiber.Ctx) { c.Request().Header.Del("X-Organization") }, nil},
		"added":           {func(c *fiber.Ctx) { c.Request().Header.Add("X-Organization", "acme") }, []string{"globex"}},
	} {
		t.Run(name, func(t *testing.T) {
			app, reached := fiber.New(), false
			app.All("/", func(c *fiber.Ctx) error {
				reached = true
				test.change(c)
				assert.Equal(t, test.want, request{c: c}.Header("X-Organization"))
				return nil
			})
			Exchange(t, app, message)
			assert.True(t, reached)
		})
	}
}
