// Package before2 checks tokens with auth0/go-jwt-middleware v2.
package before2

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	jwtmiddleware "github.com/auth0/go-jwt-middleware/v2"
	"github.com/auth0/go-jwt-middleware/v2/jwks"
	"github.com/auth0/go-jwt-middleware/v2/validator"
)

type customClaims struct {
	Scope string `json:"scope"`
}

func (*customClaims) Validate(context.Context) error { return nil }

// API returns the API.
func API(_ context.Context, issuer, audience string) (http.Handler, error) {
	issuerURL, err := url.Parse(issuer)
	if err != nil {
		return nil, err
	}
	provider := jwks.NewCachingProvider(issuerURL, 5*time.Minute)
	v, err := validator.New(provider.KeyFunc, validator.ES384, issuer, []string{audience},
		validator.WithCustomClaims(func() validator.CustomClaims { return &customClaims{} }))
	if err != nil {
		return nil, err
	}
	middleware := jwtmiddleware.New(v.ValidateToken)
	require := func(scope string, next http.HandlerFunc) http.Handler {
		return middleware.CheckJWT(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			held := callerOf(r).CustomClaims.(*customClaims).Scope
			if !slices.Contains(strings.Split(held, " "), scope) {
				http.Error(w, "the token lacks the scope "+scope, http.StatusForbidden)
				return
			}
			next(w, r)
		}))
	}
	mux := http.NewServeMux()
	mux.Handle("GET /products", require("read:products", list))
	mux.Handle("POST /products", require("write:products", create))
	return mux, nil
}

func callerOf(r *http.Request) *validator.ValidatedClaims {
	return r.Context().Value(jwtmiddleware.ContextKey{}).(*validator.ValidatedClaims)
}

func list(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "products for %s\n", callerOf(r).RegisteredClaims.Subject)
}

func create(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, "created by %s\n", callerOf(r).RegisteredClaims.Subject)
}
