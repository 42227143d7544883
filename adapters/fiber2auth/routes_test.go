package fiber2auth_test

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/fiber2auth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func guardForRoutes(t *testing.T) (*m2mauthtest.Issuer, *m2mauth.Guard) {
	t.Helper()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.Logger = slog.New(slog.DiscardHandler)
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	return issuer, guard
}

// status sends a request such as "GET /products".
func status(t *testing.T, app *fiber.App, request, token string) int {
	t.Helper()
	method, target, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, target, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := app.Test(r, -1)
	require.NoError(t, err)
	return response.StatusCode
}

func ok(c *fiber.Ctx) error { return c.SendString("ok") }

func TestRoutesNamesEveryMistake(t *testing.T) {
	t.Parallel()
	issuer, guard := guardForRoutes(t)
	app := fiber.New()
	app.Use("/products", func(c *fiber.Ctx) error { return c.Next() })
	app.Get("/products", ok)
	app.Put("/orgs/:org", ok)
	app.Get("/forgotten/:id", ok)
	app.Get("/zero", ok)
	err := fiber2auth.Routes(guard, app, map[string]m2mauth.Rule{
		"GET /products": m2mauth.AllScopes("read:products"), "/orgs/:org": m2mauth.OrganizationPath("org"),
		"POST /gone": m2mauth.AnyToken(), "/unused": m2mauth.AnyToken(), "GET /zero": {}, "products": m2mauth.AnyToken(),
	}, "GET /healthz", "/products", "GET /zero")
	require.Error(t, err)
	assert.Equal(t, strings.TrimSpace(`
m2mauth: Routes: "GET /zero": m2mauth: the zero Rule lets nobody through; make one with AllScopes, AnyScope or AnyToken
m2mauth: Routes: "products" is no route: write a method and a path, such as GET /products, or a path alone
m2mauth: Routes: "GET /zero" has a rule and is public
m2mauth: Routes: "/products" is public, and there is no such route
m2mauth: Routes: "/unused" has a rule, and there is no such route
m2mauth: Routes: "GET /forgotten/:id" has no rule and is not public: it lets nobody through
m2mauth: Routes: "GET /healthz" is public, and there is no such route
m2mauth: Routes: "POST /gone" has a rule, and there is no such route`), err.Error())
	reader := issuer.Token("https://shopping.api", "read:products")
	for request, want := range map[string]int{"GET /products": 200, "GET /zero": 403, "GET /forgotten/1": 403, "GET /nothing": 404} {
		assert.Equal(t, want, status(t, app, request, reader), request)
	}
}

func TestRoutesGuardsWhatFiberRuns(t *testing.T) {
	t.Parallel()
	issuer, guard := guardForRoutes(t)
	app, inner := fiber.New(), fiber.New()
	app.Get("/products", ok)
	app.Post("/products", ok)
	app.Put("/products", ok)
	app.All("/all", ok)
	app.Get("/explicit", ok)
	app.Head("/explicit", ok)
	app.Get("/twice/:id", func(c *fiber.Ctx) error { return c.Next() })
	app.Get("/twice/2", ok)
	app.Get("/healthz", ok)
	inner.Get("/:name", ok)
	app.Mount("/mounted", inner)
	app.Use("/files", ok)
	require.NoError(t, fiber2auth.Routes(guard, app, map[string]m2mauth.Rule{
		"/products": m2mauth.AllScopes("read:products"), "POST /products": m2mauth.AllScopes("write:products"), "/all": m2mauth.AllScopes("all"),
		"GET /explicit":  m2mauth.AllScopes("read:products"),
		"GET /twice/:id": m2mauth.AllScopes("read:products"), "GET /twice/2": m2mauth.AllScopes("write:products"),
		"GET /mounted/:name": m2mauth.AllScopes("inner"),
	}, "GET /healthz"))
	reader := issuer.Token("https://shopping.api", "read:products")
	for request, want := range map[string]int{
		"GET /products": 200, "HEAD /products": 200, "POST /products": 403, "PUT /products": 200, "DELETE /products": 405,
		"GET /all": 403, "PATCH /all": 403, "GET /explicit": 200, "HEAD /explicit": 200, "GET /twice/2": 403, "GET /mounted/x": 403, "HEAD /mounted/x": 403,
		"GET /PRODUCTS/": 200, "GET /nothing": 404, "GET /files/x": 200,
	} {
		assert.Equal(t, want, status(t, app, request, reader), request)
	}
	for request, want := range map[string]int{"GET /products": 401, "HEAD /products": 401, "HEAD /mounted/x": 401, "DELETE /products": 405, "GET /healthz": 200, "HEAD /healthz": 200, "GET /PRODUCTS/": 401} {
		assert.Equal(t, want, status(t, app, request, ""), request)
	}
	assert.PanicsWithError(t, "fiber2auth: GET /late is registered after Routes, which knows nothing of it: call Routes last", func() { app.Add("GET", "/late", ok) })
}

func TestRoutesOfAGuardThatIsNone(t *testing.T) {
	t.Parallel()
	app := fiber.New()
	app.Get("/products", ok)
	require.ErrorContains(t, fiber2auth.Routes(nil, app, map[string]m2mauth.Rule{"GET /products": m2mauth.AnyToken()}), "the Guard is nil or was not made by New")
	assert.Equal(t, 500, status(t, app, "GET /products", ""))
}
