package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// A table of rules for chi: a route that was forgotten is a mistake at set-up.
func Example_routes() {
	issuer := m2mauthtest.NewIssuer() // in production: Config.Issuer and Config.Audience
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		fmt.Println(err)
		return
	}
	answer := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	router := chi.NewRouter()
	router.Use(middleware.Recoverer)
	router.Get("/healthz", answer)
	router.Route("/products", func(r chi.Router) {
		r.Get("/", answer)
		r.Post("/", answer)
		r.Delete("/{id}", answer)
	})

	rules := map[string]m2mauth.Rule{
		"/products":     m2mauth.AllScopes("write:products"), // all methods without an entry of their own
		"GET /products": m2mauth.AllScopes("read:products"),
	}
	_, err = protect(guard, router, rules, "GET /healthz")
	fmt.Println(err)

	rules["DELETE /products/{id}"] = m2mauth.AllScopes("delete:products")
	handler, err := protect(guard, router, rules, "GET /healthz")
	fmt.Println(err)
	for _, request := range []string{"GET /products", "POST /products", "DELETE /products/7"} {
		method, path, _ := strings.Cut(request, " ")
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(request, w.Code)
	}
	// Output:
	// m2mauth: Routes: "DELETE /products/{id}" has no rule and is not public: it lets nobody through
	// <nil>
	// GET /products 204
	// POST /products 403
	// DELETE /products/7 403
}

func TestProtectServesWhatTheTableKnowsAlone(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	require.NoError(t, err)
	answer := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, text, " ", chi.URLParam(r, "org")) }
	}
	router := chi.NewRouter()
	router.NotFound(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	router.Get("/", answer("root"))
	router.Get("/a/", answer("a"))
	router.Get("/b", answer("b"))
	router.Get("/b/", answer("b/"))
	router.Route("/orgs/{org}", func(r chi.Router) {
		r.Get("/", answer("org"))
		r.Mount("/members", http.HandlerFunc(answer("members")))
		inner := chi.NewRouter()
		inner.Get("/{id}", answer("item"))
		r.Mount("/items", inner)
	})
	router.Mount("/debug", answer("debug"))
	_, err = protect(guard, router, nil)
	require.ErrorContains(t, err, `"GET /orgs/{org}" has no rule`)
	require.ErrorContains(t, err, `"QUERY /debug/*" has no rule`)

	rules := map[string]m2mauth.Rule{"/debug/*": m2mauth.AnyToken(), "/b": m2mauth.AnyToken(), "/orgs/{org}": m2mauth.OrganizationPath("org"), "/orgs/{org}/items/{id}": m2mauth.OrganizationPath("org"),
		"/orgs/{org}/members/*": m2mauth.OrganizationPath("org")}
	handler, err := protect(guard, router, rules, "GET /", "GET /a")
	require.NoError(t, err)
	token := issuer.Sign(m2mauthtest.Token{Audience: "https://shopping.api", OrganizationID: "acme"})
	for request, want := range map[string]string{
		"GET /": "200 root ", "GET /a": "200 a ", "GET /a/": "200 a ", "GET /nothing": "410 ", "POST /b": "405 ",
		"GET /orgs/acme": "200 org acme", "GET /orgs/acme/": "200 org acme", "GET /orgs/globex/": "403", "GET /orgs/acme/items/1": "200 item acme", "GET /orgs/globex/items/1": "403",
		"POST /orgs/acme/members/x": "200 members acme", "GET /orgs/globex/members/x": "403", "GET /b": "403", "GET /b/": "403", "GET /debug/x": "403", "GET /debug/": "403", "GET /debug": "410 ",
	} {
		method, path, _ := strings.Cut(request, " ")
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		got := fmt.Sprint(w.Code, " ", w.Body)
		if want == "403" {
			got = fmt.Sprint(w.Code)
		}
		assert.Equal(t, want, got, request)
	}
}
