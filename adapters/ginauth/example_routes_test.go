package ginauth_test

import (
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/gin-gonic/gin"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/ginauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// All rules in one place: what is missing there, or has no route, is a mistake at set-up.
func ExampleRoutes() {
	issuer := m2mauthtest.NewIssuer() // in production: Config.Issuer and Config.Audience
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}

	router := gin.New()
	router.Use(gin.Recovery())
	validate := ginauth.Routes(guard, router, map[string]m2mauth.Rule{
		"GET /products":      m2mauth.AllScopes("read:products"),
		"/orgs/:org/members": m2mauth.OrganizationPath("org"), // all methods
	}, "GET /healthz") // before any route or group
	router.GET("/healthz", ok)
	router.GET("/products", ok)
	router.DELETE("/products/:id", ok)
	if err := validate(); err != nil { // after the last route
		fmt.Println(err)
	}

	r := httptest.NewRequest("GET", "/products", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
	w := httptest.NewRecorder()
	router.ServeHTTP(w, r)
	fmt.Println(w.Code) // nothing is served before all is right
	// Output:
	// m2mauth: Routes: "/orgs/:org/members" has a rule, and there is no such route
	// m2mauth: Routes: "DELETE /products/:id" has no rule and is not public: it lets nobody through
	// 500
}
