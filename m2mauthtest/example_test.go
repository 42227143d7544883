package m2mauthtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// NewAPI is the code under test: an API with a protected route.
func NewAPI(config m2mauth.Config) (http.Handler, error) {
	guard, err := m2mauth.New(config)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(listProducts)))
	return mux, nil
}

func listProducts(w http.ResponseWriter, r *http.Request) {
	claims, _ := m2mauth.FromContext(r.Context())
	fmt.Fprintf(w, "products for %s", claims.AppID())
}

// A protected handler, tested with a valid token. Without the scope the status is
// 403, and without the header 401.
func ExampleNewIssuer() {
	issuer := m2mauthtest.NewIssuer()
	api, _ := NewAPI(issuer.Config("https://shopping.api"))
	r, w := httptest.NewRequest("GET", "/products", nil), httptest.NewRecorder()
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
	api.ServeHTTP(w, r)

	fmt.Println(w.Code)
	// Output: 200
}

// A handler on its own, without a guard and a token.
func ExampleClaims() {
	t := new(testing.T) // in a real test it is the function's parameter

	claims := m2mauthtest.Claims(t, "my-app", "read:products")
	r, w := httptest.NewRequest("GET", "/products", nil), httptest.NewRecorder()
	listProducts(w, r.WithContext(m2mauth.NewContext(r.Context(), claims)))

	fmt.Println(w.Code, w.Body)
	// Output: 200 products for my-app
}

// An app gets its token as it would from Logto. Then the issuer is down. A guard that
// has the keys does not notice. A new guard responds with 503, not 401, since the token
// may be valid.
func ExampleIssuer_Intercept() {
	issuer := m2mauthtest.NewIssuer()
	issuer.AddResource("https://shopping.api", "read:products", "write:products")
	issuer.AddRole("reader", "https://shopping.api", "read:products")
	app := issuer.AddApp("reports", "reader")

	resp, err := issuer.Client().PostForm(issuer.TokenURL(), url.Values{
		"grant_type":    {"client_credentials"},
		"client_id":     {app.ID},
		"client_secret": {app.Secret},
		"resource":      {"https://shopping.api"},
		"scope":         {"read:products write:products"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
		Scope       string `json:"scope"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("granted:", answer.Scope)

	call := func(api http.Handler) int {
		r, w := httptest.NewRequest("GET", "/products", nil), httptest.NewRecorder()
		r.Header.Set("Authorization", "Bearer "+answer.AccessToken)
		api.ServeHTTP(w, r)
		return w.Code
	}
	running, _ := NewAPI(issuer.Config("https://shopping.api"))
	starting, _ := NewAPI(issuer.Config("https://shopping.api"))
	fmt.Println("issuer up:", call(running))

	issuer.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
		})
	})
	fmt.Println("issuer down:", call(running), call(starting))
	// Output:
	// granted: read:products
	// issuer up: 200
	// issuer down: 200 503
}
