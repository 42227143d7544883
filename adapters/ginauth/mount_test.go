package ginauth_test

import (
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/ginauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// What the package comment says of Use, and of a rule in front of the router.
func TestTrapsOfMounting(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	require.NoError(t, err)
	router := gin.New()
	answer := func(c *gin.Context) { c.String(200, "open") }
	group := router.Group("/group")
	router.GET("/before", answer)
	group.GET("/before", answer)
	router.Use(ginauth.Authenticate(guard))
	group.Use(ginauth.Authenticate(guard))
	router.GET("/after", answer)
	group.GET("/after", answer)
	for path, status := range map[string]int{"/before": 200, "/group/before": 200, "/after": 401, "/group/after": 401} {
		w := httptest.NewRecorder()
		router.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		assert.Equal(t, status, w.Code, path)
	}

	rule := m2mauth.OrganizationPath("org")
	router = gin.New()
	router.GET("/outside/:org", answer)
	router.GET("/route/:org", ginauth.RequireRule(guard, rule), answer)
	token := "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: "https://shopping.api", OrganizationID: "o1"})
	ask := func(path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", token)
		w := httptest.NewRecorder()
		if path == "/outside/o1" {
			guard.RequireRule(rule)(router).ServeHTTP(w, r)
		} else {
			router.ServeHTTP(w, r)
		}
		return w
	}
	assert.Equal(t, 403, ask("/outside/o1").Code)
	assert.Equal(t, 200, ask("/route/o1").Code)
}
