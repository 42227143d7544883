// Command echo is examples/shop with echo v5: an HTTP API that only M2M apps with
// the right permission may call.
//
//	ISSUER=https://your-tenant.logto.app/oidc AUDIENCE=https://shopping.api go run ./examples/echo
//
//	GET  /healthz    everybody
//	GET  /products   tokens with read:products
//	POST /products   tokens with write:products
//	GET  /whoami     any valid token
//
// The environment is that of examples/shop: ISSUER, AUDIENCE, ADDR, JWKS_URL and
// PLAIN_HTTP_HOSTS, or M2MAUTH_ISSUER and so on.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/echoauth"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

func main() {
	if err := run(context.Background(), os.Getenv); err != nil {
		fmt.Fprintf(os.Stderr, "echo: cannot run:\n%v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string) error {
	config, err := shopapi.ConfigFromEnv(getenv)
	if err != nil {
		return err // every mistake in the environment, one a line
	}
	guard, err := m2mauth.New(config)
	if err != nil {
		return err // every mistake in the configuration, one a line
	}
	listener, err := net.Listen("tcp", cmp.Or(getenv("ADDR"), "127.0.0.1:8080"))
	if err != nil {
		return err
	}
	shopapi.WarmUp(ctx, guard)
	return shopapi.Serve(ctx, listener, routes(guard))
}

func routes(guard *m2mauth.Guard) http.Handler {
	e := echo.New()
	e.Use(middleware.Recover())
	e.GET("/healthz", healthz)
	e.GET("/products", list, echoauth.Require(guard, "read:products"))
	e.POST("/products", create, echoauth.Require(guard, "write:products"))
	// Authenticate tells who calls. It is no permission: with Logto every M2M app
	// of the tenant gets a valid token, also one without any role.
	e.GET("/whoami", whoami, echoauth.Authenticate(guard))
	return shopapi.HeadAsGet(e)
}

func healthz(c *echo.Context) error {
	return c.JSON(http.StatusOK, map[string]string{"status": "ok"})
}

func list(c *echo.Context) error {
	claims, _ := echoauth.Claims(c)
	slog.DebugContext(c.Request().Context(), "list products", "app", claims.AppID())
	return c.JSON(http.StatusOK, shopapi.Products())
}

func create(c *echo.Context) error {
	claims, _ := echoauth.Claims(c)
	slog.DebugContext(c.Request().Context(), "create a product", "app", claims.AppID())
	return c.JSON(http.StatusCreated, shopapi.NewProduct())
}

func whoami(c *echo.Context) error {
	claims, _ := echoauth.Claims(c)
	return c.JSON(http.StatusOK, shopapi.Identify(claims))
}
