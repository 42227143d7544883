// Command fiber is examples/shop with fiber v3: an HTTP API that only M2M apps with
// the right permission may call.
//
//	ISSUER=https://your-tenant.logto.app/oidc AUDIENCE=https://shopping.api go run ./examples/fiber
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
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/recover"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/fiberauth"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

func main() {
	if err := run(context.Background(), os.Getenv); err != nil {
		fmt.Fprintf(os.Stderr, "fiber: cannot run:\n%v\n", err)
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
	return serve(ctx, listener, routes(guard))
}

func routes(guard *m2mauth.Guard) *fiber.App {
	app := fiber.New(fiber.Config{
		// For all header fields: fiber's 4 KiB are too few for a token of up to 8 KiB. So
		// much, so that the guard can say what is wrong with a longer one.
		ReadBufferSize: 64 << 10,
		ErrorHandler:   sayStatus,
		// The zero values of these mean no limit at all, so that a few slow clients
		// could hold every connection.
		ReadTimeout:  15 * time.Second,
		WriteTimeout: 30 * time.Second,
		IdleTimeout:  2 * time.Minute,
	})
	app.Use(recover.New()) // without it a panic ends the process
	app.Get("/healthz", healthz)
	app.Get("/products", fiberauth.Require(guard, "read:products"), list)
	app.Post("/products", fiberauth.Require(guard, "write:products"), create)
	// Authenticate tells who calls. It is no permission: with Logto every M2M app
	// of the tenant gets a valid token, also one without any role.
	app.Get("/whoami", fiberauth.Authenticate(guard), whoami)
	return app
}

// sayStatus answers with the status alone: the text of fasthttp's error about a
// malformed header has that header in it, and so perhaps the caller's token.
func sayStatus(c fiber.Ctx, err error) error {
	status := http.StatusInternalServerError
	var known *fiber.Error
	if errors.As(err, &known) {
		status = known.Code
	}
	return c.Status(status).SendString(http.StatusText(status))
}

func healthz(c fiber.Ctx) error {
	return c.JSON(fiber.Map{"status": "ok"})
}

func list(c fiber.Ctx) error {
	claims, _ := fiberauth.Claims(c)
	slog.DebugContext(c.Context(), "list products", "app", claims.AppID())
	return c.JSON(shopapi.Products())
}

func create(c fiber.Ctx) error {
	claims, _ := fiberauth.Claims(c)
	slog.DebugContext(c.Context(), "create a product", "app", claims.AppID())
	return c.Status(http.StatusCreated).JSON(shopapi.NewProduct())
}

func whoami(c fiber.Ctx) error {
	claims, _ := fiberauth.Claims(c)
	return c.JSON(shopapi.Identify(claims))
}

// shutdownTimeout is how long requests under way may take after the signal.
const shutdownTimeout = 10 * time.Second

// serve answers requests until ctx is done or the process gets SIGINT or SIGTERM,
// and then lets those under way finish. A second signal ends the process at once.
func serve(ctx context.Context, listener net.Listener, app *fiber.App) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- app.Listener(listener, fiber.ListenConfig{DisableStartupMessage: true}) }()
	slog.Info("listening", "url", "http://"+listener.Addr().String())

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stop() // from here on a second signal has its usual effect
	return app.ShutdownWithTimeout(shutdownTimeout)
}
