// Command gin is examples/shop with gin: an HTTP API that only M2M apps with
// the right permission may call.
//
//	ISSUER=https://your-tenant.logto.app/oidc AUDIENCE=https://shopping.api go run ./examples/gin
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

	"github.com/gin-gonic/gin"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/ginauth"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

func main() {
	if err := run(context.Background(), os.Getenv); err != nil {
		fmt.Fprintf(os.Stderr, "gin: cannot run:\n%v\n", err)
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
	router := gin.New()
	// gin.Default logs queries, which may hold a token of somebody who put it there.
	router.Use(gin.LoggerWithConfig(gin.LoggerConfig{SkipQueryString: true}), gin.Recovery())
	router.HandleMethodNotAllowed = true // 405 with the methods that there are, in place of 404
	router.GET("/healthz", healthz)
	router.GET("/products", ginauth.Require(guard, "read:products"), list)
	router.POST("/products", ginauth.Require(guard, "write:products"), create)
	// Authenticate tells who calls. It is no permission: with Logto every M2M app
	// of the tenant gets a valid token, also one without any role.
	router.GET("/whoami", ginauth.Authenticate(guard), whoami)
	return shopapi.HeadAsGet(router)
}

func healthz(c *gin.Context) {
	c.JSON(http.StatusOK, gin.H{"status": "ok"})
}

func list(c *gin.Context) {
	claims, _ := ginauth.Claims(c)
	slog.DebugContext(c.Request.Context(), "list products", "app", claims.AppID())
	c.JSON(http.StatusOK, shopapi.Products())
}

func create(c *gin.Context) {
	claims, _ := ginauth.Claims(c)
	slog.DebugContext(c.Request.Context(), "create a product", "app", claims.AppID())
	c.JSON(http.StatusCreated, shopapi.NewProduct())
}

func whoami(c *gin.Context) {
	claims, _ := ginauth.Claims(c)
	c.JSON(http.StatusOK, shopapi.Identify(claims))
}
