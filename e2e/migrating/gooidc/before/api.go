// Package before checks tokens with go-oidc, whose verifier is made for ID tokens.
package before

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
)

type caller struct{}

// API returns the API. The issuer must be up.
func API(ctx context.Context, issuer, audience string) (http.Handler, error) {
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return nil, err
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: audience})
	require := func(scope string, next http.HandlerFunc) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok {
				http.Error(w, "a bearer token is missing", http.StatusUnauthorized)
				return
			}
			token, err := verifier.Verify(r.Context(), raw)
			if err != nil {
				http.Error(w, "the token is invalid", http.StatusUnauthorized)
				return
			}
			var claims struct {
				Scope string `json:"scope"`
			}
			if err := token.Claims(&claims); err != nil || !slices.Contains(strings.Fields(claims.Scope), scope) {
				http.Error(w, "the token lacks the scope "+scope, http.StatusForbidden)
				return
			}
			next(w, r.WithContext(context.WithValue(r.Context(), caller{}, token.Subject)))
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
