package fiber2auth_test

import (
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/gofiber/fiber/v2"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/fiber2auth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// All rules in one place: what is missing there, or has no route, is a mistake at set-up.
func ExampleRoutes() {
	issuer := m2mauthtest.NewIssuer() // in production: Config.Issuer and Config.Audience
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}

	app := fiber.New()
	app.Get("/healthz", ok)
	app.Get("/products", ok)
	app.Delete("/products/:id", ok)
	err = fiber2auth.Routes(guard, app, map[string]m2mauth.Rule{
		"GET /products":      m2mauth.AllScopes("read:products"),
		"/orgs/:org/members": m2mauth.OrganizationPath("org"), // all methods
	}, "GET /healthz") // after the last route
	if err != nil {
		fmt.Println(err)
	}

	r := httptest.NewRequest("GET", "/products", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
	response, err := app.Test(r, -1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(response.StatusCode)
	// Output:
	// m2mauth: Routes: "/orgs/:org/members" has a rule, and there is no such route
	// m2mauth: Routes: "DELETE /products/:id" has no rule and is not public: it lets nobody through
	// 200
}
