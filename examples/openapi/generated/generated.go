// Package generated serves code that oapi-codegen made of an OpenAPI document, with the
// rules of the same document.
package generated

import (
	"net/http"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/openapiauth"
	"github.com/m2mauth/m2mauth/examples/openapi"
	"github.com/m2mauth/m2mauth/examples/openapi/generated/shopapi"
)

// Handler returns the API behind its rules.
func Handler(guard *m2mauth.Guard) (http.Handler, error) {
	table, err := openapiauth.Rules(openapi.Shop, openapiauth.Options{
		BasePath: "/v1",
		AnyToken: []string{"whoami"}, // which says who calls, and nothing else
	})
	if err != nil {
		return nil, err // every mistake of the document, one a line
	}
	var mux openapiauth.Mux
	shopapi.HandlerFromMuxWithBaseURL(shop{}, &mux, "/v1")
	if err := table.Validate(mux.Patterns()...); err != nil {
		return nil, err // the code was made of another document
	}
	return guard.Routes(&mux.ServeMux, table.Rules(), table.Public()...)
}

// shop answers with nothing: the example is about who may call.
type shop struct{}

func (shop) Health(w http.ResponseWriter, _ *http.Request)        { w.WriteHeader(http.StatusNoContent) }
func (shop) ListProducts(w http.ResponseWriter, _ *http.Request)  { w.WriteHeader(http.StatusOK) }
func (shop) CreateProduct(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }
func (shop) Whoami(w http.ResponseWriter, _ *http.Request)        { w.WriteHeader(http.StatusOK) }

func (shop) DeleteProduct(w http.ResponseWriter, _ *http.Request, _ int) {
	w.WriteHeader(http.StatusNoContent)
}
