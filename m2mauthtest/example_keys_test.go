package m2mauthtest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// statusOf calls the API with the token and returns the status of the response.
func statusOf(api http.Handler, token string) int {
	r, w := httptest.NewRequest("GET", "/products", nil), httptest.NewRecorder()
	r.Header.Set("Authorization", "Bearer "+token)
	api.ServeHTTP(w, r)
	return w.Code
}

// Tokens that an API must reject: one that has expired, one for another API, and
// one that is signed with another key under the same key ID.
func ExampleIssuer_Sign() {
	issuer := m2mauthtest.NewIssuer()
	api, err := NewAPI(issuer.Config("https://shopping.api"))
	if err != nil {
		fmt.Println(err)
		return
	}
	good := m2mauthtest.Token{Audience: "https://shopping.api", Scopes: []string{"read:products"}}

	expired := good
	expired.Expired = true

	otherAudience := good
	otherAudience.Audience = "https://billing.api"

	otherKey := good
	otherKey.Header = map[string]any{"kid": issuer.KeyIDs()[0]}

	fmt.Println("good:", statusOf(api, issuer.Sign(good)))
	fmt.Println("expired:", statusOf(api, issuer.Sign(expired)))
	fmt.Println("other audience:", statusOf(api, issuer.Sign(otherAudience)))
	fmt.Println("other key:", statusOf(api, m2mauthtest.NewIssuer().Sign(otherKey)))
	// Output:
	// good: 200
	// expired: 401
	// other audience: 401
	// other key: 401
}

// A user's token, and a token that is limited to an organization.
func ExampleIssuer_Sign_claims() {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		fmt.Println(err)
		return
	}
	check := func(token string, rule m2mauth.Rule) {
		r := httptest.NewRequest("GET", "/products", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("X-Organization", "acme")
		claims, err := guard.Check(r, rule)
		fmt.Printf("sub=%q organization=%q err=%v\n", claims.Subject(), claims.OrganizationID(), err)
	}

	check(issuer.Sign(m2mauthtest.Token{
		Audience: "https://shopping.api",
		Claims:   map[string]any{"sub": "some-user"}, // client_id stays the app
	}), m2mauth.UserToken())

	check(issuer.Sign(m2mauthtest.Token{
		AppID:          "my-app",
		Audience:       "https://shopping.api",
		OrganizationID: "acme",
	}), m2mauth.OrganizationHeader("X-Organization"))
	// Output:
	// sub="some-user" organization="" err=<nil>
	// sub="my-app" organization="acme" err=<nil>
}

// A rotation needs no restart. The guard fetches the key set when it sees the first
// token of the new key, and the previous key stays published.
func ExampleIssuer_Rotate() {
	issuer := m2mauthtest.NewIssuer()
	api, err := NewAPI(issuer.Config("https://shopping.api"))
	if err != nil {
		fmt.Println(err)
		return
	}
	before := issuer.Token("https://shopping.api", "read:products")
	fmt.Println("before:", statusOf(api, before))

	issuer.Rotate("ES384")
	after := issuer.Token("https://shopping.api", "read:products")
	fmt.Println("after:", statusOf(api, after), statusOf(api, before))
	fmt.Println("fetches of the key set:", issuer.Fetches().JWKS)
	// Output:
	// before: 200
	// after: 200 200
	// fetches of the key set: 2
}

// A guard accepts a withdrawn key until it fetches the key set again. In a bubble of
// testing/synctest, the ten minutes pass at once.
func ExampleIssuer_Withdraw() {
	t := new(testing.T) // in a real test it is the function's parameter

	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		api, err := NewAPI(issuer.Config("https://shopping.api"))
		if err != nil {
			t.Fatal(err)
		}
		kid := issuer.KeyIDs()[0]
		token := issuer.Token("https://shopping.api", "read:products")
		fmt.Println("published:", statusOf(api, token))

		issuer.Rotate("ES384") // a guard accepts no key set without keys
		issuer.Withdraw(kid)
		fmt.Println("withdrawn:", statusOf(api, token))

		time.Sleep(10 * time.Minute) // Config.KeyTTL
		fmt.Println("10 minutes later:", statusOf(api, token))
	})
	// Output:
	// published: 200
	// withdrawn: 200
	// 10 minutes later: 401
}

// An outage of the issuer is not one of the API: a guard uses the keys that it has
// for KeyTTL and KeyStaleFor. Then it responds with 503, and recovers without a
// restart.
func ExampleIssuer_Intercept_outage() {
	t := new(testing.T) // in a real test it is the function's parameter

	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		api, err := NewAPI(issuer.Config("https://shopping.api"))
		if err != nil {
			t.Fatal(err)
		}
		token := func() string { return issuer.Token("https://shopping.api", "read:products") }
		fmt.Println("up:", statusOf(api, token()))

		issuer.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				<-r.Context().Done() // hang until the guard gives up
			})
		})
		time.Sleep(time.Hour)
		fmt.Println("down for an hour:", statusOf(api, token()))
		time.Sleep(10 * time.Minute)
		fmt.Println("down for 70 minutes:", statusOf(api, token()))

		issuer.Intercept(nil)
		time.Sleep(30 * time.Second) // until the guard tries again
		fmt.Println("up again:", statusOf(api, token()))
	})
	// Output:
	// up: 200
	// down for an hour: 200
	// down for 70 minutes: 503
	// up again: 200
}
