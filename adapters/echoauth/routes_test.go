package echoauth_test

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/echoauth"
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

// status sends a request, such as "GET /products" or "GET http://other.test/products".
func status(e *echo.Echo, request, token string) int {
	method, target, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, target, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	return w.Code
}

func ok(c *echo.Context) error { return c.String(200, "ok") }

func TestRoutesNamesEveryMistake(t *testing.T) {
	t.Parallel()
	issuer, guard := guardForRoutes(t)
	e := echo.New()
	e.GET("products", ok)
	e.PUT("/orgs/:org", ok)
	e.GET("/forgotten/:id", ok)
	e.GET("/zero", ok)
	e.Any("/any", ok)
	group := e.Group("/group", echoauth.Authenticate(guard)) // for which echo adds routes of its own, for 404
	group.GET("/x", ok)
	err := echoauth.Routes(guard, e, map[string]m2mauth.Rule{
		"GET /products": m2mauth.AllScopes("read:products"), "/orgs/:org": m2mauth.OrganizationPath("org"), "/group/x": m2mauth.AnyToken(),
		"POST /gone": m2mauth.AnyToken(), "/unused": m2mauth.AnyToken(), "GET /zero": {}, "products": m2mauth.AnyToken(),
	}, "GET /healthz", "/products", "GET /zero")
	require.Error(t, err)
	assert.Equal(t, strings.TrimSpace(`
m2mauth: Routes: "GET /zero": m2mauth: the zero Rule lets nobody through; make one with AllScopes, AnyScope or AnyToken
m2mauth: Routes: "products" is no route: write a method and a path, such as GET /products, or a path alone
m2mauth: Routes: "GET /zero" has a rule and is public
m2mauth: Routes: "/any" has no rule and is not public: it lets nobody through
m2mauth: Routes: "/products" is public, and there is no such route
m2mauth: Routes: "/unused" has a rule, and there is no such route
m2mauth: Routes: "GET /forgotten/:id" has no rule and is not public: it lets nobody through
m2mauth: Routes: "GET /healthz" is public, and there is no such route
m2mauth: Routes: "POST /gone" has a rule, and there is no such route`), err.Error())
	reader := issuer.Token("https://shopping.api", "read:products")
	for request, want := range map[string]int{"GET /products": 200, "GET /zero": 403, "GET /forgotten/1": 403, "GET /any": 403, "GET /nothing": 404, "GET /group/x": 200} {
		assert.Equal(t, want, status(e, request, reader), request)
	}
}

func TestRoutesTellsRoutesFromWhatEchoAnswersItself(t *testing.T) {
	t.Parallel()
	issuer, guard := guardForRoutes(t)
	e := echo.New()
	e.GET("/products", ok)
	e.POST("/products", ok)
	e.Any("/any", ok)
	e.GET("/public/*", ok)
	e.RouteNotFound("/public/*", func(c *echo.Context) error { return c.String(410, "gone") })
	require.NoError(t, echoauth.Routes(guard, e, map[string]m2mauth.Rule{
		"/products": m2mauth.AllScopes("read:products"), "POST /products": m2mauth.AllScopes("write:products"), "/any": m2mauth.AllScopes("any"),
	}, "GET /public/*"))
	e.GET("/late", ok)
	e.PUT("/products", ok) // has the entry of its path
	e.POST("/public/*", ok)
	reader := issuer.Token("https://shopping.api", "read:products")
	for request, want := range map[string]int{
		"GET /products": 200, "POST /products": 403, "PUT /products": 200, "DELETE /products": 405, "OPTIONS /products": 204,
		"GET /any": 403, "PATCH /any": 403, "GET /late": 403, "POST /late": 405, "GET /public/x": 200, "POST /public/x": 403, "PUT /public/x": 410, "GET /nothing": 404,
	} {
		assert.Equal(t, want, status(e, request, reader), request)
	}
	for request, want := range map[string]int{"GET /products": 401, "GET /late": 401, "DELETE /products": 405, "GET /public/x": 200, "POST /public/x": 401} {
		assert.Equal(t, want, status(e, request, ""), request)
	}
}

func TestRoutesOfAGuardThatIsNone(t *testing.T) {
	t.Parallel()
	e := echo.New()
	e.GET("/products", ok)
	require.ErrorContains(t, echoauth.Routes(nil, e, map[string]m2mauth.Rule{"GET /products": m2mauth.AnyToken()}), "the Guard is nil or was not made by New")
	assert.Equal(t, 500, status(e, "GET /products", ""))
}
