package m2mauth_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func ExampleJoin() {
	main, err1 := m2mauth.New(m2mauth.Config{
		Issuer:   "https://your.logto.endpoint/oidc",
		Audience: "https://shopping.api",
	})
	partner, err2 := m2mauth.New(m2mauth.Config{
		Issuer:     "https://login.partner.example/realms/shop",
		Audience:   "https://shopping.api",
		TokenTypes: []string{"JWT"},
	})
	if err := errors.Join(err1, err2); err != nil {
		log.Fatal(err)
	}
	guard, err := m2mauth.Join(main, partner)
	if err != nil {
		log.Fatal(err)
	}

	w := httptest.NewRecorder()
	guard.Authenticate(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("GET", "/products", nil))
	fmt.Println(w.Code, guard.Keys().State)
	// Output: 401 none
}

func ExampleGuard_Metadata() {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api/v1"))
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()

	mux.Handle(guard.Metadata(m2mauth.MetadataConfig{Scopes: []string{"read:products", "write:products"}}))

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/.well-known/oauth-protected-resource/v1", nil))
	fmt.Println(w.Code, w.Body)
	// Output: 200 {"resource":"https://shopping.api/v1","authorization_servers":["https://issuer.test/oidc"],"scopes_supported":["read:products","write:products"],"bearer_methods_supported":["header"]}
}

func ExampleGuard_RequireRule() {
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.Logger = slog.New(slog.DiscardHandler)
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	list := func(w http.ResponseWriter, r *http.Request) {
		claims, _ := m2mauth.FromContext(r.Context())
		fmt.Fprintf(w, "products of %s", claims.OrganizationID())
	}

	rule := m2mauth.AllOf(
		m2mauth.MachineToken(),
		m2mauth.AnyScope("read:products", "write:products"),
		m2mauth.OrganizationPath("org"),
	)
	mux.Handle("GET /orgs/{org}/products", guard.RequireRule(rule)(http.HandlerFunc(list)))

	token := issuer.Sign(m2mauthtest.Token{
		Audience: "https://shopping.api",
		Scopes:   []string{"read:products"},
		Claims:   map[string]any{"organization_id": "acme"},
	})
	for _, path := range []string{"/orgs/acme/products", "/orgs/other/products"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 products of acme
	// 403 {"error":"insufficient_scope","error_description":"the token is not for the organization that this route belongs to"}
}

// orders stands for a database.
var orders = func(_ context.Context, app, order string) (open bool, err error) { return app == order, nil }

func ExampleCustom() {
	ownOrder := m2mauth.Custom("own order", func(ctx context.Context, claims m2mauth.Claims, r m2mauth.Request) error {
		own, err := orders(ctx, claims.AppID(), r.PathValue("order"))
		if err != nil {
			return err // 500: the log has the error, the caller sees nothing of it
		}
		if !own {
			return m2mauth.Deny("this order is another application's") // 403, with this text
		}
		return nil
	})
	fmt.Println(m2mauth.AllOf(m2mauth.AllScopes("read:orders"), ownOrder))
	// Output: AllOf(AllScopes("read:orders"), Custom("own order"))
}
