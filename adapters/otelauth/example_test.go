package otelauth_test

import (
	"log"
	"net/http"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/otelauth"
)

// The metrics go to the global meter provider, and the attributes to the span that a
// handler around the mux begins, such as otelhttp's.
func Example() {
	telemetry, err := otelauth.New(otelauth.Options{})
	if err != nil {
		log.Fatal(err)
	}
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer:     "https://your.logto.endpoint/oidc",
		Audience:   "https://shopping.api",
		OnDecision: telemetry.OnDecision,
	})
	if err != nil {
		log.Fatal(err)
	}
	telemetry.ObserveGuard(guard)

	mux := http.NewServeMux()
	mux.Handle("GET /products", guard.Require("read:products")(http.NotFoundHandler()))
	// Output:
}
