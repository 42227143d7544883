package echo4auth_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/echo4auth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/m2mauthtest/adaptertest"
)

// What users have who came before this package: safe, but for its blindness to path
// parameters, which the package comment names.
func TestSuiteOfWrapMiddleware(t *testing.T) {
	t.Parallel()
	adaptertest.TestAdapter(t, adaptertest.Adapter[echo.MiddlewareFunc]{
		Package:   "m2mauth",
		Framework: "echo v4",
		Require: func(guard *m2mauth.Guard, scopes ...string) echo.MiddlewareFunc {
			return echo.WrapMiddleware(guard.Require(scopes...))
		},
		RequireAny: func(guard *m2mauth.Guard, scopes ...string) echo.MiddlewareFunc {
			return echo.WrapMiddleware(guard.RequireAny(scopes...))
		},
		RequireRule: func(guard *m2mauth.Guard, rule m2mauth.Rule) echo.MiddlewareFunc {
			return echo.WrapMiddleware(guard.RequireRule(rule))
		},
		Authenticate: func(guard *m2mauth.Guard) echo.MiddlewareFunc {
			return echo.WrapMiddleware(guard.Authenticate)
		},
		Mount: func(groups []adaptertest.Group[echo.MiddlewareFunc]) http.Handler { return echoOf(groups) },
	})
}

func TestOrganizationOfThePath(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config(audience)
	config.Logger = slog.New(slog.DiscardHandler)
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	ok := func(c echo.Context) error { return c.NoContent(http.StatusNoContent) }
	rule := m2mauth.OrganizationPath("org")
	wrapped := echo.WrapMiddleware(guard.RequireRule(rule))
	setOrganization := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.Request().SetPathValue("org", c.Param("org"))
			return next(c)
		}
	}
	e := echo.New()
	e.GET("/orgs/:org", ok, echo4auth.RequireRule(guard, rule))
	e.GET("/hidden/:org", ok, wrapped)
	e.GET("/set/:org", ok, setOrganization, wrapped)
	for path, status := range map[string]int{
		"/orgs/acme": 204, "/orgs/globex": 403,
		"/hidden/acme": 403, "/set/acme": 204, "/set/globex": 403,
	} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Authorization", "Bearer "+issuer.Sign(m2mauthtest.Token{Audience: audience, OrganizationID: "acme"}))
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		assert.Equal(t, status, w.Code, path)
	}
}
