// Package openapi is the description of a shop's API. The servers in the folders below
// take their rules from it: plain has a net/http mux, and generated is code that
// oapi-codegen made. The server of huma makes its description of its code.
package openapi

import _ "embed"

// Shop is the OpenAPI document.
//
//go:embed shop.yaml
var Shop []byte
