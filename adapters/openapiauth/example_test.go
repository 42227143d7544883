package openapiauth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/openapiauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func Example() {
	document := []byte(`
openapi: 3.1.0
info: {title: Shop, version: '1'}
paths:
  /healthz:
    get: {security: []}
  /products:
    get: {security: [{oauth: ['read:products']}]}
    post: {security: [{oauth: ['write:products']}]}
components:
  securitySchemes:
    oauth:
      type: oauth2
      flows:
        clientCredentials:
          tokenUrl: https://your.logto.endpoint/oidc/token
          scopes: {'read:products': List products, 'write:products': Create products}
`)
	table, err := openapiauth.Rules(document, openapiauth.Options{BasePath: "/v1"})
	if err != nil {
		fmt.Println(err) // every mistake of the document, one a line
		return
	}

	issuer := m2mauthtest.NewIssuer() // in production: Config.Issuer and Config.Audience
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		fmt.Println(err)
		return
	}
	answer := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	var mux openapiauth.Mux // a http.ServeMux that keeps its patterns
	mux.HandleFunc("GET /v1/healthz", answer)
	mux.HandleFunc("GET /v1/products", answer)
	mux.HandleFunc("POST /v1/products", answer)
	mux.HandleFunc("DELETE /v1/products", answer)

	fmt.Println(table.Validate(mux.Patterns()...))
	handler, err := guard.Routes(&mux.ServeMux, table.Rules(), table.Public()...)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, method := range []string{"GET", "POST", "DELETE"} {
		r := httptest.NewRequest(method, "/v1/products", nil)
		r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(method, w.Code)
	}
	// Output:
	// m2mauth: OpenAPI: "DELETE /v1/products" is served, and the document does not have it: it lets nobody through
	// GET 204
	// POST 403
	// DELETE 403
}
