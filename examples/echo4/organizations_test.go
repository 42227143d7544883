package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// TestOrganizationOfThePath has what the README says of it: the guard sees no path
// parameters through echo.WrapMiddleware, unless a middleware before sets them.
func TestOrganizationOfThePath(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.Logger = slog.New(slog.DiscardHandler)
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	ok := func(c echo.Context) error { return c.NoContent(http.StatusNoContent) }
	theirs := echo.WrapMiddleware(guard.RequireRule(m2mauth.OrganizationPath("org")))
	setOrganization := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.Request().SetPathValue("org", c.Param("org"))
			return next(c)
		}
	}
	e := echo.New()
	e.GET("/hidden/:org", ok, theirs)
	e.GET("/set/:org", ok, setOrganization, theirs)
	for path, status := range map[string]int{"/hidden/acme": 403, "/set/acme": 204, "/set/globex": 403} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Authorization", "Bearer "+issuer.Sign(m2mauthtest.Token{Audience: "https://shopping.api", OrganizationID: "acme"}))
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		assert.Equal(t, status, w.Code, path)
	}
}
