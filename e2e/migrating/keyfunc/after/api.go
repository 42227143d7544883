// Package after checks tokens with m2mauth.
package after

import (
	"fmt"
	"net/http"

	"github.com/m2mauth/m2mauth"
)

// Guard returns the guard of the API.
func Guard(issuer, audience string) (*m2mauth.Guard, error) {
	return m2mauth.New(m2mauth.Config{Issuer: issuer, Audience: audience})
}

// API returns the API.
func API(guard *m2mauth.Guard) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(list)))
	mux.Handle("POST /products", guard.Require("write:products")(http.HandlerFunc(create)))
	return mux
}

func list(w http.ResponseWriter, r *http.Request) {
	claims, _ := m2mauth.FromContext(r.Context())
	fmt.Fprintf(w, "products for %s\n", claims.Subject())
}

func create(w http.ResponseWriter, r *http.Request) {
	claims, _ := m2mauth.FromContext(r.Context())
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, "created by %s\n", claims.Subject())
}
