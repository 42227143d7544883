// Package before checks Logto's tokens in code of its own, as many do who began with a guide.
package before

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
)

type caller struct{}

// API fetches the keys once and returns the API.
func API(ctx context.Context, issuer, audience string) (http.Handler, error) {
	keys, err := jwk.Fetch(ctx, issuer+"/jwks")
	if err != nil {
		return nil, err
	}
	require := func(scope string, next http.HandlerFunc) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok {
				http.Error(w, "a bearer token is missing", http.StatusUnauthorized)
				return
			}
			token, err := jwt.ParseString(raw, jwt.WithKeySet(keys), jwt.WithIssuer(issuer))
			if err != nil {
				http.Error(w, "the token is invalid", http.StatusUnauthorized)
				return
			}
			if err := verifyPayload(token, audience, scope); err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
				return
			}
			subject, _ := token.Subject()
			next(w, r.WithContext(context.WithValue(r.Context(), caller{}, subject)))
		})
	}
	mux := http.NewServeMux()
	mux.Handle("GET /products", require("read:products", list))
	mux.Handle("POST /products", require("write:products", create))
	return mux, nil
}

func verifyPayload(token jwt.Token, audience, scope string) error {
	if audiences, _ := token.Audience(); !slices.Contains(audiences, audience) {
		return errors.New("the token is for another API")
	}
	var scopes string
	_ = token.Get("scope", &scopes) // fails if there is none
	if !slices.Contains(strings.Fields(scopes), scope) {
		return errors.New("the token lacks the scope " + scope)
	}
	return nil
}

func list(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "products for %s\n", r.Context().Value(caller{}))
}

func create(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, "created by %s\n", r.Context().Value(caller{}))
}
