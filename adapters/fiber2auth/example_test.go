package fiber2auth_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/gofiber/fiber/v2"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/fiber2auth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// A public route, and two that require a scope.
func Example() {
	issuer := m2mauthtest.NewIssuer() // in production: Config.Issuer and Config.Audience
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}

	app := fiber.New(fiber.Config{
		ReadBufferSize: 16 << 10, // fiber's 4 KiB are too few for long tokens
	})
	app.Get("/healthz", func(*fiber.Ctx) error { return nil })
	app.Get("/products", fiber2auth.Require(guard, "read:products"), func(c *fiber.Ctx) error {
		claims, _ := fiber2auth.Claims(c)
		fmt.Println("list products, app:", claims.AppID())
		return nil
	})
	app.Post("/products", fiber2auth.Require(guard, "write:products"), func(c *fiber.Ctx) error {
		return c.SendStatus(http.StatusCreated)
	})

	call := func(method, path, token string) {
		r := httptest.NewRequest(method, path, nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := app.Test(r, -1) // no timeout
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(method, path, response.StatusCode)
	}
	call("GET", "/healthz", "")
	call("GET", "/products", "")
	call("GET", "/products", issuer.Sign(m2mauthtest.Token{
		AppID:    "my-app",
		Audience: "https://shopping.api",
		Scopes:   []string{"read:products"},
	}))
	call("POST", "/products", issuer.Token("https://shopping.api", "read:products"))
	// Output:
	// GET /healthz 200
	// GET /products 401
	// list products, app: my-app
	// GET /products 200
	// POST /products 403
}
