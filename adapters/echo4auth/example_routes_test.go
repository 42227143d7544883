package echo4auth_test

import (
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/labstack/echo/v4"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/echo4auth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// All rules in one place: what is missing there, or has no route, is a mistake at set-up.
func ExampleRoutes() {
	issuer := m2mauthtest.NewIssuer() // in production: Config.Issuer and Config.Audience
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}

	e := echo.New()
	e.GET("/healthz", ok)
	e.GET("/products", ok)
	e.DELETE("/products/:id", ok)
	err = echo4auth.Routes(guard, e, map[string]m2mauth.Rule{
		"GET /products":      m2mauth.AllScopes("read:products"),
		"/orgs/:org/members": m2mauth.OrganizationPath("org"), // all methods
	}, "GET /healthz") // after the last route
	if err != nil {
		fmt.Println(err)
	}

	r := httptest.NewRequest("GET", "/products", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	fmt.Println(w.Code)
	// Output:
	// m2mauth: Routes: "/orgs/:org/members" has a rule, and there is no such route
	// m2mauth: Routes: "DELETE /products/:id" has no rule and is not public: it lets nobody through
	// 200
}
