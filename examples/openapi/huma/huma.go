// Package huma serves an API of huma, whose code is the source of its OpenAPI document,
// with the rules of that document.
package huma

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/openapiauth"
)

// Handler returns the API behind its rules.
func Handler(guard *m2mauth.Guard) (http.Handler, error) {
	var mux openapiauth.Mux
	document, err := api(&mux).OpenAPI().YAML()
	if err != nil {
		return nil, err
	}
	table, err := openapiauth.Rules(document, openapiauth.Options{AnyToken: []string{"whoami"}})
	if err != nil {
		return nil, err // every mistake of the document, one a line
	}
	if err := table.Validate(mux.Patterns()...); err != nil {
		return nil, err // an operation with Hidden is in no document
	}
	return guard.Routes(&mux.ServeMux, table.Rules(), table.Public()...)
}

func api(mux humago.Mux) huma.API {
	config := huma.DefaultConfig("Shop", "1")
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", "" // or give these routes to guard.Routes as public
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"oauth": {
		Type: "oauth2",
		Flows: &huma.OAuthFlows{ClientCredentials: &huma.OAuthFlow{
			TokenURL: "https://your.logto.endpoint/oidc/token",
			Scopes: map[string]string{"read:products": "List products", "write:products": "Create products",
				"delete:products": "Delete products", "admin": "All of it"},
		}},
	}}
	api := humago.New(mux, config)
	register := func(id, method, path string, status int, security ...requirement) {
		huma.Register(api, huma.Operation{OperationID: id, Method: method, Path: path, DefaultStatus: status, Security: security},
			func(context.Context, *struct{}) (*struct{}, error) { return nil, nil }) // without a body: the example is about who may call
	}
	register("health", "GET", "/healthz", http.StatusNoContent, public...)
	register("list-products", "GET", "/products", http.StatusOK, scopes("read:products"), scopes("admin"))
	register("create-product", "POST", "/products", http.StatusCreated, scopes("write:products"))
	register("delete-product", "DELETE", "/products/{id}", http.StatusNoContent, scopes("write:products", "delete:products"))
	register("whoami", "GET", "/whoami", http.StatusOK, scopes())
	return api
}

type requirement = map[string][]string

// public is empty and not nil: huma leaves a nil Security out, which is a mistake.
var public = []requirement{}

func scopes(names ...string) requirement {
	return requirement{"oauth": append([]string{}, names...)} // [] in the document, and not null
}
