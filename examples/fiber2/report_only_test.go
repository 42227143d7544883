package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/contract"
)

func TestReportOnly(t *testing.T) {
	open := fiber.New(fiber.Config{DisableStartupMessage: true, ReadBufferSize: 64 << 10, ErrorHandler: sayStatus}) // as routes makes it, without a guard
	open.Get("/healthz", healthz)
	open.Get("/products", list)
	open.Post("/products", create)
	open.Get("/whoami", whoami)
	_, err := open.Test(httptest.NewRequest("GET", "/", nil), -1) // starts fasthttp's clock outside of the bubble
	require.NoError(t, err)
	contract.TestReportOnly(t, func(guard *m2mauth.Guard) http.Handler { return handlerOf(t, routes(guard)) }, handlerOf(t, open))
}
