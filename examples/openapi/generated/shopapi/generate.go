// Package shopapi is the code that oapi-codegen makes of shop.yaml.
package shopapi

//go:generate go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2 -package shopapi -generate std-http-server,models -o shop.gen.go ../../shop.yaml
