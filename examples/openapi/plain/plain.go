// Package plain serves the handlers of a net/http mux with the rules of an OpenAPI
// document.
package plain

import (
	"net/http"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/openapiauth"
	"github.com/m2mauth/m2mauth/examples/openapi"
)

// Handler returns the API behind its rules.
func Handler(guard *m2mauth.Guard) (http.Handler, error) {
	table, err := openapiauth.Rules(openapi.Shop, openapiauth.Options{AnyToken: []string{"GET /whoami"}})
	if err != nil {
		return nil, err // every mistake of the document, one a line
	}
	mux := routes()
	return guard.Routes(&mux.ServeMux, table.Rules(), append(table.Public(), "GET /openapi.yaml")...)
}

// routes is apart so that a test can compare it with the document.
func routes() *openapiauth.Mux {
	mux := new(openapiauth.Mux)
	mux.HandleFunc("GET /healthz", answer(http.StatusNoContent))
	mux.HandleFunc("GET /products", answer(http.StatusOK))
	mux.HandleFunc("POST /products", answer(http.StatusCreated))
	mux.HandleFunc("DELETE /products/{product_id}", answer(http.StatusNoContent))
	mux.HandleFunc("GET /whoami", answer(http.StatusOK))
	mux.HandleFunc("GET /openapi.yaml", answer(http.StatusOK)) // the document does not describe itself
	return mux
}

// answer has no body: the example is about who may call.
func answer(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}
