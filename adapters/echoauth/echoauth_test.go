package echoauth_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/echoauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/m2mauthtest/adaptertest"
)

const audience = "https://shopping.api"

func TestSuite(t *testing.T) {
	t.Parallel()
	adaptertest.TestAdapter(t, adaptertest.Adapter[echo.MiddlewareFunc]{
		Package:      "echoauth",
		Framework:    "echo",
		Require:      echoauth.Require,
		RequireAny:   echoauth.RequireAny,
		RequireRule:  echoauth.RequireRule,
		Authenticate: echoauth.Authenticate,
		Mount:        func(groups []adaptertest.Group[echo.MiddlewareFunc]) http.Handler { return echoOf(groups) },
		Routes: func(guard *m2mauth.Guard, table adaptertest.Table, groups []adaptertest.Group[echo.MiddlewareFunc]) (http.Handler, error) {
			e := echoOf(groups)
			table = table.ColonPaths()
			err := echoauth.Routes(guard, e, table.Rules, table.Public...)
			return e, err
		},
	})
}

func echoOf(groups []adaptertest.Group[echo.MiddlewareFunc]) *echo.Echo {
	e := echo.New()
	e.Use(middleware.Recover(), middleware.CORSWithConfig(middleware.CORSConfig{
		AllowOrigins: []string{"https://app.test"},
		AllowMethods: []string{http.MethodGet},
		AllowHeaders: []string{echo.HeaderAuthorization},
	}))
	for _, g := range groups {
		group := e.Group(g.Prefix, g.Middlewares...)
		for _, route := range g.Routes {
			group.Add(route.Method, route.ColonPath(), func(c *echo.Context) error {
				return c.JSON(route.Handle(c.Request().Context(), func() (m2mauth.Claims, bool) { return echoauth.Claims(c) }))
			}, route.Middlewares...)
		}
	}
	return e
}

func ExampleRequire() {
	issuer := m2mauthtest.NewIssuer() // in production: Logto
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		panic(err)
	}

	e := echo.New()
	e.GET("/products", func(c *echo.Context) error {
		claims, _ := echoauth.Claims(c)
		return c.String(http.StatusOK, claims.Scopes().String())
	}, echoauth.Require(guard, "read:products"))

	r := httptest.NewRequest("GET", "/products", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	// Output: 200 read:products
}

func newGuard(tb testing.TB, issuer *m2mauthtest.Issuer, errorHandler func(http.ResponseWriter, *http.Request, *m2mauth.Error)) *m2mauth.Guard {
	tb.Helper()
	config := issuer.Config(audience)
	config.Logger = slog.New(slog.DiscardHandler)
	config.ErrorHandler = errorHandler
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

func TestAnErrorHandlerOfOnesOwnMakesTheBodyAndKeepsTheChallenge(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := newGuard(t, issuer, nil)
	e := echo.New()
	e.HTTPErrorHandler = func(c *echo.Context, err error) {
		var refusal *m2mauth.Error
		require.ErrorAs(t, err, &refusal)
		assert.ErrorIs(t, err, m2mauth.ErrScope)
		assert.Equal(t, []string{"read:products"}, refusal.Scopes)
		response, status := echo.ResolveResponseStatus(c.Response(), err)
		assert.False(t, response.Committed)
		assert.NoError(t, c.HTML(status, fmt.Sprintf("<h1>%d</h1>", echo.StatusCode(err))))
	}
	e.GET("/products", func(*echo.Context) error { panic("not reached") }, echoauth.Require(guard, "read:products"))

	w := serve(e, request(issuer.Token(audience)))
	assert.Equal(t, http.StatusForbidden, w.Code)
	assert.Equal(t, "<h1>403</h1>", w.Body.String())
	assert.Equal(t, "text/html; charset=UTF-8", w.Header().Get("Content-Type"))
	assert.Contains(t, w.Header().Get("WWW-Authenticate"), `error="insufficient_scope"`)
	assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
}

func TestAnErrorHandlerThatKnowsHTTPErrorAloneSeesTheStatus(t *testing.T) {
	t.Parallel()
	guard := newGuard(t, m2mauthtest.NewIssuer(), nil)
	e := echo.New()
	e.HTTPErrorHandler = func(c *echo.Context, err error) {
		var httpError *echo.HTTPError
		if !errors.As(err, &httpError) {
			httpError = echo.NewHTTPError(http.StatusInternalServerError, "internal")
		}
		assert.NoError(t, c.String(httpError.Code, httpError.Message))
	}
	e.GET("/products", func(*echo.Context) error { panic("not reached") }, echoauth.Require(guard, "read:products"))

	w := serve(e, request(""))
	assert.Equal(t, http.StatusUnauthorized, w.Code)
	assert.Equal(t, "this request needs an access token: Authorization: Bearer followed by the token", w.Body.String())
}

func TestMiddlewaresAroundTheGuardSeeTheError(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name         string
		errorHandler func(http.ResponseWriter, *http.Request, *m2mauth.Error)
		committed    bool
	}{
		{"before the answer", nil, false},
		{"after that of Config.ErrorHandler", func(w http.ResponseWriter, _ *http.Request, e *m2mauth.Error) {
			w.WriteHeader(e.Status)
			_, _ = io.WriteString(w, "mine")
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			guard := newGuard(t, m2mauthtest.NewIssuer(), test.errorHandler)
			e := echo.New()
			seen := 0
			e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c *echo.Context) error {
					err := next(c)
					seen++
					assert.ErrorIs(t, err, m2mauth.ErrNoToken)
					response, status := echo.ResolveResponseStatus(c.Response(), err)
					assert.Equal(t, http.StatusUnauthorized, status)
					assert.Equal(t, test.committed, response.Committed)
					return err
				}
			})
			e.GET("/products", func(*echo.Context) error { panic("not reached") }, echoauth.Require(guard, "read:products"))
			w := serve(e, request(""))
			assert.Equal(t, http.StatusUnauthorized, w.Code)
			assert.Equal(t, 1, seen)
			assert.Equal(t, test.committed, w.Body.String() == "mine", "the body is %q", w.Body)
		})
	}
}

func TestNothingOfACauseIsShownEvenByAnErrorHandlerThatExposesErrors(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	issuer.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "hunter2", http.StatusBadGateway) })
	})
	e := echo.New()
	e.HTTPErrorHandler = echo.DefaultHTTPErrorHandler(true)
	e.GET("/products", func(*echo.Context) error { panic("not reached") }, echoauth.Authenticate(newGuard(t, issuer, nil)))

	w := serve(e, request(issuer.Token(audience)))
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	assert.NotEmpty(t, w.Header().Get("Retry-After"))
	assert.NotContains(t, w.Body.String(), "issuer.test")
	assert.Contains(t, w.Body.String(), `"error":"temporarily_unavailable"`)
}

// What the adapter costs is echo+echoauth less echo and less what the guard costs,
// http+guard less http. Compare within one run, allocations first.
func BenchmarkRequest(b *testing.B) {
	issuer := m2mauthtest.NewIssuer()
	guard := newGuard(b, issuer, nil)
	issuer.Rotate("RS256") // the cheapest check, so that the rest shows
	token := issuer.Token(audience, "read:products")

	bare := http.NewServeMux()
	bare.Handle("GET /products", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	guarded := http.NewServeMux()
	guarded.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })))
	echoBare := echo.New()
	echoBare.GET("/products", func(c *echo.Context) error { return c.NoContent(http.StatusOK) })
	echoGuarded := echo.New()
	echoGuarded.GET("/products", func(c *echo.Context) error { return c.NoContent(http.StatusOK) }, echoauth.Require(guard, "read:products"))

	for _, bench := range []struct {
		name    string
		handler http.Handler
	}{
		{"http", bare},
		{"http+guard", guarded},
		{"echo", echoBare},
		{"echo+echoauth", echoGuarded},
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
