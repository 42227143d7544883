package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/gofiber/fiber/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/contract"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestContract(t *testing.T) {
	contract.Test(t, func(guard *m2mauth.Guard) http.Handler { return handlerOf(t, routes(guard)) })
}

func handlerOf(t *testing.T, app *fiber.App) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		response, err := app.Test(r, fiber.TestConfig{})
		if err != nil {
			t.Error(err)
			return
		}
		for name, values := range response.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
	})
}

// fasthttp's errors about a header have the header in them.
func TestAMalformedHeaderIsNotEchoed(t *testing.T) {
	guard, err := m2mauth.New(m2mauthtest.NewIssuer().Config("https://shopping.api"))
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, listener, routes(guard)) }()
	for field, status := range map[string]string{
		"Authorization: Bearer secret\x01": "400 Bad Request",
		"Authorization\t: Bearer secret":   "400 Bad Request",
	} {
		connection, err := net.Dial("tcp", listener.Addr().String())
		require.NoError(t, err)
		_, err = fmt.Fprintf(connection, "GET /products HTTP/1.1\r\nHost: shop\r\n%s\r\nConnection: close\r\n\r\n", field)
		require.NoError(t, err)
		answer, err := io.ReadAll(connection)
		require.NoError(t, err)
		assert.Contains(t, string(answer), status)
		assert.NotContains(t, string(answer), "secret")
		assert.NoError(t, connection.Close())
	}
	stop()
	assert.NoError(t, <-served)
}
