package ginauth_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/ginauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/m2mauthtest/adaptertest"
)

const audience = "https://shopping.api"

func TestMain(m *testing.M) {
	gin.SetMode(gin.TestMode)
	m.Run()
}

func TestSuite(t *testing.T) {
	t.Parallel()
	adaptertest.TestAdapter(t, adaptertest.Adapter[gin.HandlerFunc]{
		Package:      "ginauth",
		Framework:    "gin",
		Require:      ginauth.Require,
		RequireAny:   ginauth.RequireAny,
		RequireRule:  ginauth.RequireRule,
		Authenticate: ginauth.Authenticate,
		Mount: func(groups []adaptertest.Group[gin.HandlerFunc]) http.Handler {
			router := newRouter()
			addRoutes(router, groups)
			return router
		},
		Routes: func(guard *m2mauth.Guard, table adaptertest.Table, groups []adaptertest.Group[gin.HandlerFunc]) (http.Handler, error) {
			router := newRouter()
			table = table.ColonPaths()
			validate := ginauth.Routes(guard, router, table.Rules, table.Public...)
			addRoutes(router, groups)
			return router, validate()
		},
	})
}

func newRouter() *gin.Engine {
	router := gin.New()
	router.HandleMethodNotAllowed = true // otherwise gin answers 404
	router.Use(gin.RecoveryWithWriter(io.Discard), allowOrigin)
	return router
}

func addRoutes(router *gin.Engine, groups []adaptertest.Group[gin.HandlerFunc]) {
	for _, g := range groups {
		group := router.Group(g.Prefix, g.Middlewares...)
		for _, route := range g.Routes {
			group.Handle(route.Method, route.ColonPath(), slices.Concat(route.Middlewares, []gin.HandlerFunc{
				func(c *gin.Context) {
					c.JSON(route.Handle(c.Request.Context(), func() (m2mauth.Claims, bool) { return ginauth.Claims(c) }))
				},
			})...)
		}
	}
}

// allowOrigin is CORS in short; gin has its middleware in another module.
func allowOrigin(c *gin.Context) {
	c.Header("Access-Control-Allow-Origin", "https://app.test")
	if c.Request.Method == http.MethodOptions && c.GetHeader("Access-Control-Request-Method") != "" {
		c.Header("Access-Control-Allow-Headers", "Authorization")
		c.AbortWithStatus(http.StatusNoContent)
	}
}

func ExampleRequire() {
	issuer := m2mauthtest.NewIssuer() // in production: Logto
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		panic(err)
	}

	router := gin.New()
	router.GET("/products", ginauth.Require(guard, "read:products"), func(c *gin.Context) {
		claims, _ := ginauth.Claims(c)
		c.JSON(http.StatusOK, gin.H{"scopes": claims.Scopes().String()})
	})

	r := httptest.NewRequest("GET", "/products", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
	w := httptest.NewRecorder()
	router.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	// Output: 200 {"scopes":"read:products"}
}

func newGuard(tb testing.TB, issuer *m2mauthtest.Issuer) *m2mauth.Guard {
	tb.Helper()
	config := issuer.Config(audience)
	config.Logger = slog.New(slog.DiscardHandler)
	guard, err := m2mauth.New(config)
	require.NoError(tb, err)
	return guard
}

func request(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/products", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

func serve(handler http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func TestARefusalIsFinalForWhatRunsAroundTheGuard(t *testing.T) {
	t.Parallel()
	guard := newGuard(t, m2mauthtest.NewIssuer())
	router := gin.New()
	// The error middleware of gin's documentation: it does not ask whether
	// there is a body already.
	router.Use(func(c *gin.Context) {
		c.Next()
		assert.True(t, c.IsAborted())
		assert.Equal(t, http.StatusUnauthorized, c.Writer.Status())
		if len(c.Errors) > 0 {
			c.JSON(http.StatusInternalServerError, gin.H{"message": c.Errors.Last().Error()})
		}
	})
	router.GET("/products", ginauth.Require(guard, "read:products"), func(*gin.Context) { t.Error("the handler ran") })

	w := serve(router, request(""))
	assert.Equal(t, http.StatusUnauthorized, w.Code)
	assert.JSONEq(t, `{"error":"unauthorized","error_description":"this request needs an access token: Authorization: Bearer followed by the token"}`, w.Body.String())
}

func TestClaimsAreInTheRequestsContextAndNotInGins(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := newGuard(t, issuer)
	for _, fallback := range []bool{false, true} {
		router := gin.New()
		router.ContextWithFallback = fallback
		router.GET("/products", ginauth.Authenticate(guard), func(c *gin.Context) {
			claims, ok := ginauth.Claims(c)
			require.True(t, ok)
			inContext, _ := m2mauth.FromContext(c.Request.Context())
			assert.Equal(t, claims, inContext)
			_, ok = m2mauth.FromContext(c)
			assert.Equal(t, fallback, ok, "of *gin.Context itself, which the package comment speaks of")
		})
		assert.Equal(t, http.StatusOK, serve(router, request(issuer.Token(audience))).Code)
	}
}

func TestAGuardInFrontOfTheWholeRouterGuardsUnknownPathsToo(t *testing.T) {
	t.Parallel()
	router := gin.New()
	router.Use(ginauth.Authenticate(newGuard(t, m2mauthtest.NewIssuer())))
	assert.Equal(t, http.StatusUnauthorized, serve(router, request("")).Code)
}

// What the adapter costs is gin+ginauth less gin and less what the guard costs,
// http+guard less http. Compare within one run, allocations first.
func BenchmarkRequest(b *testing.B) {
	issuer := m2mauthtest.NewIssuer()
	guard := newGuard(b, issuer)
	issuer.Rotate("RS256") // the cheapest check, so that the rest shows
	token := issuer.Token(audience, "read:products")

	bare := http.NewServeMux()
	bare.Handle("GET /products", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	guarded := http.NewServeMux()
	guarded.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })))
	ginBare := gin.New()
	ginBare.GET("/products", func(c *gin.Context) { c.Status(http.StatusOK) })
	ginGuarded := gin.New()
	ginGuarded.GET("/products", ginauth.Require(guard, "read:products"), func(c *gin.Context) { c.Status(http.StatusOK) })

	for _, bench := range []struct {
		name    string
		handler http.Handler
	}{
		{"http", bare},
		{"http+guard", guarded},
		{"gin", ginBare},
		{"gin+ginauth", ginGuarded},
	} {
		b.Run(bench.name, func(b *testing.B) {
			r := request(token)
			require.Equal(b, http.StatusOK, serve(bench.handler, r).Code)
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				bench.handler.ServeHTTP(w, r)
			}
		})
	}
}
