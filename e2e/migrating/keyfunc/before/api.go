// Package before checks tokens with golang-jwt, and gets the keys by keyfunc.
package before

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

type claims struct {
	Scope string `json:"scope"`
	jwt.RegisteredClaims
}

type caller struct{}

// API returns the API. The keys are refreshed until ctx ends.
func API(ctx context.Context, issuer, audience string) (http.Handler, error) {
	keys, err := keyfunc.NewDefaultCtx(ctx, []string{issuer + "/jwks"})
	if err != nil {
		return nil, err
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"ES384"}), jwt.WithIssuer(issuer), jwt.WithAudience(audience))
	require := func(scope string, next http.HandlerFunc) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok {
				http.Error(w, "a bearer token is missing", http.StatusUnauthorized)
				return
			}
			var c claims
			if _, err := parser.ParseWithClaims(raw, &c, keys.Keyfunc); err != nil {
				http.Error(w, "the token is invalid", http.StatusUnauthorized)
				return
			}
			if !slices.Contains(strings.Fields(c.Scope), scope) {
				http.Error(w, "the token lacks the scope "+scope, http.StatusForbidden)
				return
			}
			next(w, r.WithContext(context.WithValue(r.Context(), caller{}, c.Subject)))
		})
	}
	mux := http.NewServeMux()
	mux.Handle("GET /products", require("read:products", list))
	mux.Handle("POST /products", require("write:products", create))
	return mux, nil
}

func list(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "products for %s\n", r.Context().Value(caller{}))
}

func create(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, "created by %s\n", r.Context().Value(caller{}))
}
