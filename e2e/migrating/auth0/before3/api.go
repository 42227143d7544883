// Package before3 checks tokens with auth0/go-jwt-middleware v3.
package before3

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	jwtmiddleware "github.com/auth0/go-jwt-middleware/v3"
	"github.com/auth0/go-jwt-middleware/v3/jwks"
	"github.com/auth0/go-jwt-middleware/v3/validator"
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
	provider, err := jwks.NewCachingProvider(jwks.WithIssuerURL(issuerURL))
	if err != nil {
		return nil, err
	}
	v, err := validator.New(
		validator.WithKeyFunc(provider.KeyFunc),
		validator.WithAlgorithm(validator.ES384),
		validator.WithIssuer(issuer),
		validator.WithAudience(audience),
		validator.WithCustomClaims(func() *customClaims { return &customClaims{} }),
	)
	if err != nil {
		return nil, err
	}
	middleware, err := jwtmiddleware.New(jwtmiddleware.WithValidator(v))
	if err != nil {
		return nil, err
	}
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
	return jwtmiddleware.MustGetClaims[*validator.ValidatedClaims](r.Context())
}

func list(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "products for %s\n", callerOf(r).RegisteredClaims.Subject)
}

func create(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, "created by %s\n", callerOf(r).RegisteredClaims.Subject)
}
