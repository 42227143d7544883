package ginauth_test

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/ginauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func guardForRoutes(t *testing.T) (*m2mauthtest.Issuer, *m2mauth.Guard) {
	t.Helper()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config(audience)
	config.Logger = slog.New(slog.DiscardHandler)
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	return issuer, guard
}

func status(router *gin.Engine, method, path, token string) int {
	r := httptest.NewRequest(method, path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	router.ServeHTTP(w, r)
	return w.Code
}

func ok(c *gin.Context) { c.String(200, "ok") }

func TestRoutesNamesEveryMistake(t *testing.T) {
	t.Parallel()
	issuer, guard := guardForRoutes(t)
	router := gin.New()
	early := router.Group("/early")
	router.GET("/before", ok)
	router.GET("/open", ok)
	validate := ginauth.Routes(guard, router, map[string]m2mauth.Rule{
		"GET /products": m2mauth.AllScopes("read:products"), "/orgs/:org": m2mauth.OrganizationPath("org"),
		"POST /gone": m2mauth.AnyToken(), "/unused": m2mauth.AnyToken(), "GET /zero": {}, "products": m2mauth.AnyToken(),
		"/before": m2mauth.AnyToken(), "GET /early/x": m2mauth.AnyToken(),
	}, "GET /healthz", "/open", "/products", "GET /zero")
	router.GET("/products", ok)
	router.PUT("/orgs/:org", ok)
	router.GET("/forgotten/:id", ok)
	router.GET("/zero", ok)
	early.GET("/x", ok)
	assert.Equal(t, 500, status(router, "GET", "/products", issuer.Token(audience, "read:products")), "not validated")

	assert.Equal(t, strings.TrimSpace(`
m2mauth: Routes: "GET /zero": m2mauth: the zero Rule lets nobody through; make one with AllScopes, AnyScope or AnyToken
m2mauth: Routes: "products" is no route: write a method and a path, such as GET /products, or a path alone
m2mauth: Routes: "GET /zero" has a rule and is public
m2mauth: Routes: "/products" is public, and there is no such route
m2mauth: Routes: "/unused" has a rule, and there is no such route
m2mauth: Routes: "GET /forgotten/:id" has no rule and is not public: it lets nobody through
m2mauth: Routes: "GET /healthz" is public, and there is no such route
m2mauth: Routes: "POST /gone" has a rule, and there is no such route
ginauth: Routes: "GET /before" was made, or its group was, before Routes was called, so that it is open
ginauth: Routes: "GET /early/x" was made, or its group was, before Routes was called, so that it is open`), validate().Error())
	for _, path := range []string{"/products", "/forgotten/1", "/zero"} {
		assert.Equal(t, 500, status(router, "GET", path, issuer.Token(audience, "read:products")), path)
	}
	assert.Equal(t, 404, status(router, "GET", "/nothing", ""))
}

func TestRoutesRefusesALaterRouteWithoutEntry(t *testing.T) {
	t.Parallel()
	issuer, guard := guardForRoutes(t)
	router := gin.New()
	validate := ginauth.Routes(guard, router, map[string]m2mauth.Rule{"/products": m2mauth.AllScopes("read:products"), "POST /products": m2mauth.AllScopes("write:products")})
	router.GET("/products", ok)
	router.POST("/products", ok)
	require.NoError(t, validate())
	router.GET("/late", ok)
	router.PUT("/products", ok)
	reader := issuer.Token(audience, "read:products")
	for request, want := range map[string]int{"GET /products": 200, "POST /products": 403, "PUT /products": 200, "GET /late": 403, "GET /late/": 301} {
		method, path, _ := strings.Cut(request, " ")
		assert.Equal(t, want, status(router, method, path, reader), request)
	}
	assert.Equal(t, 401, status(router, "GET", "/late", ""))
}

// TestRoutesOfAnEscapedColon: gin drops the backslash when it starts to serve.
func TestRoutesOfAnEscapedColon(t *testing.T) {
	t.Parallel()
	issuer, guard := guardForRoutes(t)
	for _, key := range []string{`GET /items\:export`, "GET /items:export", `/items\:export`} {
		router := gin.New()
		validate := ginauth.Routes(guard, router, map[string]m2mauth.Rule{key: m2mauth.AllScopes("read:products")}, `/open\:x`)
		router.GET(`/items\:export`, ok)
		router.GET(`/open\:x`, ok)
		require.NoError(t, validate(), key)
		for range 2 {
			assert.Equal(t, 200, status(router, "GET", "/items:export", issuer.Token(audience, "read:products")), key)
			assert.Equal(t, 403, status(router, "GET", "/items:export", issuer.Token(audience)), key)
			assert.Equal(t, 200, status(router, "GET", "/open:x", ""), key)
			require.NoError(t, validate(), key)
		}
	}
	router := gin.New()
	validate := ginauth.Routes(guard, router, map[string]m2mauth.Rule{`GET /items\:x`: m2mauth.AllScopes("write:products"), "GET /items:x": m2mauth.AllScopes("read:products")})
	router.GET(`/items\:x`, ok)
	router.GET("/items:x", ok)
	require.ErrorContains(t, validate(), "GET /items", "while it serves, gin has one name for the two, so one rule cannot be told from the other")
}

// TestRoutesOfAChangedMethod: the handler that runs is that of the method by which gin
// found the route, and so must the rule be.
func TestRoutesOfAChangedMethod(t *testing.T) {
	t.Parallel()
	issuer, guard := guardForRoutes(t)
	router := gin.New()
	override := func(again bool) gin.HandlerFunc {
		return func(c *gin.Context) {
			if method := c.Request.Header.Get("X-Method"); method != "" && method != c.Request.Method {
				if c.Request.Method = method; again {
					router.HandleContext(c)
					c.Abort()
				}
			}
		}
	}
	for _, again := range []bool{false, true} {
		router = gin.New()
		router.Use(override(again))
		validate := ginauth.Routes(guard, router, map[string]m2mauth.Rule{
			"GET /products": m2mauth.AllScopes("read:products"), "POST /products": m2mauth.AllScopes("write:products"),
		})
		router.GET("/products", ok)
		router.POST("/products", func(c *gin.Context) { c.String(201, "made") })
		require.NoError(t, validate())
		for method, want := range map[string][2]int{"": {403, 403}, "POST": {403, 403}, "FOO": {403, 404}, "GET": {403, 200}} {
			r := httptest.NewRequest("POST", "/products", nil)
			r.Header.Set("X-Method", method)
			r.Header.Set("Authorization", "Bearer "+issuer.Token(audience, "read:products"))
			w := httptest.NewRecorder()
			router.ServeHTTP(w, r)
			assert.Equal(t, want[map[bool]int{true: 1}[again]], w.Code, "X-Method: %s, HandleContext: %v", method, again)
		}
	}
}

func TestRoutesOfAGuardThatIsNone(t *testing.T) {
	t.Parallel()
	router := gin.New()
	validate := ginauth.Routes(nil, router, map[string]m2mauth.Rule{"GET /products": m2mauth.AnyToken()})
	router.GET("/products", ok)
	require.ErrorContains(t, validate(), "the Guard is nil or was not made by New")
	assert.Equal(t, 500, status(router, "GET", "/products", ""))
}
