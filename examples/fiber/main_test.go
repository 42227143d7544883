package main

import (
	"io"
	"net/http"
	"testing"

	"github.com/gofiber/fiber/v3"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/contract"
)

func TestContract(t *testing.T) {
	contract.Test(t, func(guard *m2mauth.Guard) http.Handler {
		app := routes(guard)
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
	})
}
