package echo4auth_test

import (
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/echo4auth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// What the package comment says of a group's Use, and of Pre.
func TestTrapsOfMounting(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	require.NoError(t, err)
	token := "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: "https://shopping.api", OrganizationID: "o1"})
	ask := func(e *echo.Echo, path, authorization string) int {
		r := httptest.NewRequest("GET", path, nil)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		return w.Code
	}
	answer := func(c echo.Context) error { return c.String(200, "open") }

	e := echo.New()
	group := e.Group("/group")
	group.GET("/before", answer)
	group.Use(echo4auth.Authenticate(guard))
	group.GET("/after", answer)
	e.GET("/group/beside", answer)
	for path, status := range map[string]int{"/group/before": 200, "/group/beside": 200, "/group/after": 401} {
		assert.Equal(t, status, ask(e, path, ""), path)
	}

	organization := echo4auth.RequireRule(guard, m2mauth.OrganizationPath("org"))
	e = echo.New()
	e.GET("/:org", answer, organization)
	assert.Equal(t, 200, ask(e, "/o1", token))
	e = echo.New()
	e.Pre(organization)
	e.GET("/:org", answer)
	assert.Equal(t, 403, ask(e, "/o1", token))
}
