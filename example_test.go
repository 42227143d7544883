package m2mauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// The lines that protect a route. New does no I/O, and a request without a token is
// rejected without a request to the issuer.
func Example() {
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer:   "https://your.logto.endpoint/oidc",
		Audience: "https://shopping.api",
	})
	if err != nil {
		log.Fatal(err) // names every mistake in the Config at once
	}

	mux := http.NewServeMux()
	mux.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(list)))
	mux.Handle("POST /products", guard.Require("write:products")(http.HandlerFunc(create)))

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/products", nil))
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output: 401 Bearer realm="https://shopping.api", scope="read:products"
}

func list(w http.ResponseWriter, r *http.Request) {
	claims, _ := m2mauth.FromContext(r.Context())
	slog.Info("list products", "app", claims.AppID())
}

func create(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }

// A token with all scopes of the route, and one that lacks a scope.
func ExampleGuard_Require() {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}
	api := guard.Require("write:products")(http.HandlerFunc(create))

	call := func(scopes ...string) {
		r := httptest.NewRequest("POST", "/products", nil)
		r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", scopes...))
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	call("read:products", "write:products")
	call("read:products")
	// Output:
	// 201
	// 403
}

// Check is Require without the middleware. It is for a handler that decides on its own,
// and for adapters to other routers.
func ExampleGuard_Check() {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		claims, err := guard.Check(r, m2mauth.AnyScope("read:products", "write:products"))
		if err != nil {
			guard.WriteError(w, r, err)
			return
		}
		fmt.Fprintln(w, "may write:", claims.Scopes().Has("write:products"))
	}

	r := httptest.NewRequest("GET", "/products", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
	w := httptest.NewRecorder()
	handler(w, r)
	fmt.Print(w.Body)
	// Output: may write: false
}

// A token that did not come in an Authorization header, but in a message of a queue, for
// example. Verify does not check scopes: look at the claims.
func ExampleGuard_Verify() {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}
	token := issuer.Token("https://shopping.api", "read:products")

	claims, err := guard.Verify(context.Background(), token)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(claims.IsMachine(), claims.Scopes())

	_, err = guard.Verify(context.Background(), token+"x")
	fmt.Println(errors.Is(err, m2mauth.ErrMalformed))
	// Output:
	// true read:products
	// true
}

// Rejections as problem details (RFC 9457). The status and the challenge of RFC 6750
// are ready. The handler only writes the body.
func ExampleConfig_errorHandler() {
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.ErrorHandler = func(w http.ResponseWriter, r *http.Request, refusal *m2mauth.Error) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(refusal.Status)
		json.NewEncoder(w).Encode(map[string]any{
			"title":    http.StatusText(refusal.Status),
			"status":   refusal.Status,
			"detail":   refusal.Description,
			"instance": r.URL.Path,
		})
	}
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	api := guard.Require("read:products")(http.HandlerFunc(list))

	r := httptest.NewRequest("GET", "/products", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api"))
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)

	var problem struct{ Title, Instance string }
	if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil {
		log.Fatal(err)
	}
	fmt.Println(w.Code, problem.Title, problem.Instance)
	fmt.Println(w.Header().Get("WWW-Authenticate") != "")
	// Output:
	// 403 Forbidden /products
	// true
}
