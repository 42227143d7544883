package fiber2auth

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What the package comment says of Use: a prefix with a parameter is not in front of
// all that a wildcard route takes; one without a parameter is.
func TestUseWithAParameterLeavesPathsOpen(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string]string{"/orgs/:org": "open", "/orgs": "guarded"} {
		app := fiber.New()
		app.Use(prefix, func(c *fiber.Ctx) error { return c.SendString("guarded") })
		app.Get("/orgs/*", func(c *fiber.Ctx) error { return c.SendString("open") })
		response, err := app.Test(httptest.NewRequest(http.MethodGet, "/orgs//products", nil), -1)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		assert.Equal(t, want, string(body), prefix)
	}
}
