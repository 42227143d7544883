package echo4auth_test

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/echo4auth"
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

func ok(c echo.Context) error { return c.String(200, "ok") }

func TestRoutesNamesEveryMistake(t *testing.T) {
	t.Parallel()
	issuer, guard := guardForRoutes(t)
	e := echo.New()
	e.GET("products", ok)
	e.PUT("/orgs/:org", ok)
	e.GET("/forgotten/:id", ok)
	e.GET("/zero", ok)
	group := e.Group("/group", echo4auth.Authenticate(guard)) // for which echo adds routes of its own, for 404
	group.GET("/x", ok)
	err := echo4auth.Routes(guard, e, map[string]m2mauth.Rule{
		"GET /products": m2mauth.AllScopes("read:products"), "/orgs/:org": m2mauth.OrganizationPath("org"), "/group/x": m2mauth.AnyToken(),
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
	for request, want := range map[string]int{"GET /products": 200, "GET /zero": 403, "GET /forgotten/1": 403, "GET /nothing": 404, "GET /group/x": 200} {
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
	e.RouteNotFound("/public/*", func(c echo.Context) error { return c.String(410, "gone") })
	e.Host("other.test").GET("/hosted", ok)

	require.NoError(t, echo4auth.Routes(guard, e, map[string]m2mauth.Rule{
		"/products": m2mauth.AllScopes("read:products"), "POST /products": m2mauth.AllScopes("write:products"), "/any": m2mauth.AllScopes("any"),
		"/hosted": m2mauth.AllScopes("hosted"),
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
	for request, want := range map[string]int{"GET /products": 401, "GET /late": 401, "DELETE /products": 405, "GET /public/x": 200, "POST /public/x": 401, "GET http://other.test/hosted": 401, "GET http://other.test/products": 404} {
		assert.Equal(t, want, status(e, request, ""), request)
	}
}

// TestRoutesOfAChangedMethod: middlewares that change the method after echo has found the
// route, as MethodOverride does in e.Use, must not pick another route's rule, or none.
func TestRoutesOfAChangedMethod(t *testing.T) {
	t.Parallel()
	issuer, guard := guardForRoutes(t)
	reader, writer := issuer.Token("https://shopping.api", "read:products"), issuer.Token("https://shopping.api", "write:products")
	override := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if method := c.Request().Header.Get("X-Method"); method != "" {
				c.Request().Method = method
			}
			return next(c)
		}
	}
	// echo looks for the route of the request as it came in, not of this copy.
	copied := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.SetRequest(c.Request().WithContext(c.Request().Context()))
			return next(c)
		}
	}
	for name, test := range map[string]struct {
		before, after func(*echo.Echo)
		want          map[string]int // by X-Method, for a reader
	}{
		"in Use, which has no effect on the route": {func(e *echo.Echo) { e.Use(override) }, nil, map[string]int{"": 403, "GET": 403, "FOO": 403, "POST": 403}},
		"in Pre, as echo says":                     {func(e *echo.Echo) { e.Pre(override) }, nil, map[string]int{"": 403, "GET": 200, "FOO": 405, "POST": 403}},
		"in Pre after Routes":                      {nil, func(e *echo.Echo) { e.Pre(override) }, map[string]int{"": 403, "GET": 200, "FOO": 405, "POST": 403}},
		"in Pre, behind one that hides it from echo": {func(e *echo.Echo) { e.Pre(copied, override) }, nil,
			map[string]int{"": 403, "GET": 403, "FOO": 403, "PUT": 403, "OPTIONS": 403, "POST": 403}},
		"the same after Routes": {nil, func(e *echo.Echo) { e.Pre(copied, override) },
			map[string]int{"": 403, "GET": 403, "FOO": 403, "PUT": 403, "OPTIONS": 403, "POST": 403}},
		"in Use after Routes": {nil, func(e *echo.Echo) { e.Use(override) }, map[string]int{"": 403, "GET": 403, "FOO": 403}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := echo.New()
			if test.before != nil {
				test.before(e)
			}
			e.GET("/products", ok)
			e.POST("/products", ok)
			e.RouteNotFound("/products", func(c echo.Context) error { return c.NoContent(405) })
			require.NoError(t, echo4auth.Routes(guard, e, map[string]m2mauth.Rule{
				"GET /products": m2mauth.AllScopes("read:products"), "POST /products": m2mauth.AllScopes("write:products"),
			}))
			e.PUT("/late", ok)
			if test.after != nil {
				test.after(e)
			}
			for method, want := range test.want {
				r := httptest.NewRequest("POST", "/products", nil)
				r.Header.Set("X-Method", method)
				r.Header.Set("Authorization", "Bearer "+reader)
				w := httptest.NewRecorder()
				e.ServeHTTP(w, r)
				assert.Equal(t, want, w.Code, "X-Method: %s", method)
			}
			assert.Equal(t, 200, status(e, "POST /products", writer))
		})
	}
}

// TestRoutesOfAChangedPath: the route that runs is that of the first path.
func TestRoutesOfAChangedPath(t *testing.T) {
	t.Parallel()
	issuer, guard := guardForRoutes(t)
	reader := issuer.Token("https://shopping.api", "read:products")
	rewrite := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.Request().URL.Path = "/products"
			return next(c)
		}
	}
	for name, test := range map[string]struct {
		mount func(*echo.Echo)
		want  int
	}{
		"in Pre": {func(e *echo.Echo) { e.Pre(rewrite) }, 200},
		"in Use": {func(e *echo.Echo) { e.Use(rewrite) }, 403},
	} {
		e := echo.New()
		test.mount(e)
		e.GET("/products", ok)
		e.GET("/orders", ok)
		rules := map[string]m2mauth.Rule{"GET /products": m2mauth.AllScopes("read:products"), "GET /orders": m2mauth.AllScopes("read:products")}
		require.NoError(t, echo4auth.Routes(guard, e, rules))
		assert.Equal(t, test.want, status(e, "GET /orders", reader), name)
	}
}

func TestRoutesOfAGuardThatIsNone(t *testing.T) {
	t.Parallel()
	e := echo.New()
	e.GET("/products", ok)
	require.ErrorContains(t, echo4auth.Routes(nil, e, map[string]m2mauth.Rule{"GET /products": m2mauth.AnyToken()}), "the Guard is nil or was not made by New")
	assert.Equal(t, 500, status(e, "GET /products", ""))
}
