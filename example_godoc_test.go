package m2mauth_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// call sends a request to the API, with the token unless it is empty, and prints the
// status and what a handler wrote.
func call(api http.Handler, path, token string) {
	r := httptest.NewRequest("GET", path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	if w.Code >= http.StatusBadRequest {
		fmt.Println(w.Code, http.StatusText(w.Code))
		return
	}
	fmt.Println(w.Code, w.Body)
}

// A handler behind a guard finds the claims of the token in the request's context.
func ExampleFromContext() {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}
	list := func(w http.ResponseWriter, r *http.Request) {
		claims, ok := m2mauth.FromContext(r.Context())
		if !ok { // no guard in front of this route
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "app %s may write: %v", claims.AppID(), claims.Scopes().Has("write:products"))
	}

	call(guard.Require("read:products")(http.HandlerFunc(list)), "/products", issuer.Sign(m2mauthtest.Token{
		AppID:    "my-app",
		Audience: "https://shopping.api",
		Scopes:   []string{"read:products"},
	}))
	call(http.HandlerFunc(list), "/products", "")
	// Output:
	// 200 app my-app may write: false
	// 500 Internal Server Error
}

// One of the scopes is enough.
func ExampleGuard_RequireAny() {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}
	stock := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "12 kettles") }

	mux := http.NewServeMux()
	mux.Handle("GET /stock", guard.RequireAny("read:stock", "manage:stock")(http.HandlerFunc(stock)))

	call(mux, "/stock", issuer.Token("https://shopping.api", "read:stock"))
	call(mux, "/stock", issuer.Token("https://shopping.api", "manage:stock"))
	call(mux, "/stock", issuer.Token("https://shopping.api", "read:orders"))
	// Output:
	// 200 12 kettles
	// 200 12 kettles
	// 403 Forbidden
}

// Any valid token is enough here. That identifies the caller and gives no permission:
// with Logto, every app of the tenant can get such a token.
func ExampleGuard_Authenticate() {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}
	whoami := func(w http.ResponseWriter, r *http.Request) {
		claims, _ := m2mauth.FromContext(r.Context())
		io.WriteString(w, claims.AppID())
	}

	mux := http.NewServeMux()
	mux.Handle("GET /whoami", guard.Authenticate(http.HandlerFunc(whoami)))

	call(mux, "/whoami", issuer.Sign(m2mauthtest.Token{AppID: "my-app", Audience: "https://shopping.api"}))
	call(mux, "/whoami", issuer.Token("https://billing.api"))
	call(mux, "/whoami", "")
	// Output:
	// 200 my-app
	// 401 Unauthorized
	// 401 Unauthorized
}

// A route that is public, and shows more to an app that may see more. A request with
// a token that is bad or lacks the scope is still rejected.
func ExampleOptional() {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}
	list := func(w http.ResponseWriter, r *http.Request) {
		if _, ok := m2mauth.FromContext(r.Context()); ok {
			io.WriteString(w, "products with purchase prices")
			return
		}
		io.WriteString(w, "products")
	}

	mux := http.NewServeMux()
	rule := m2mauth.Optional(m2mauth.AllScopes("read:prices"))
	mux.Handle("GET /products", guard.RequireRule(rule)(http.HandlerFunc(list)))

	call(mux, "/products", "")
	call(mux, "/products", issuer.Token("https://shopping.api", "read:prices"))
	call(mux, "/products", issuer.Token("https://shopping.api"))
	call(mux, "/products", "bad")
	// Output:
	// 200 products
	// 200 products with purchase prices
	// 403 Forbidden
	// 401 Unauthorized
}

// An API for many organizations. The token must be limited to the organization in the
// path, so that a role in one does not open the data of another.
func ExampleOrganizationPath() {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}
	list := func(w http.ResponseWriter, r *http.Request) {
		claims, _ := m2mauth.FromContext(r.Context())
		fmt.Fprintf(w, "products of %s", claims.OrganizationID())
	}

	mux := http.NewServeMux()
	rule := m2mauth.AllOf(m2mauth.AllScopes("read:products"), m2mauth.OrganizationPath("org"))
	mux.Handle("GET /orgs/{org}/products", guard.RequireRule(rule)(http.HandlerFunc(list)))

	token := issuer.Sign(m2mauthtest.Token{
		Audience:       "https://shopping.api",
		Scopes:         []string{"read:products"},
		OrganizationID: "acme",
	})
	call(mux, "/orgs/acme/products", token)
	call(mux, "/orgs/globex/products", token)
	call(mux, "/orgs/acme/products", issuer.Token("https://shopping.api", "read:products"))
	// Output:
	// 200 products of acme
	// 403 Forbidden
	// 403 Forbidden
}

// Counts for a metric, and a line for an audit log. Outcome is one of a fixed set, so
// it is safe as a label.
func ExampleConfig_onDecision() {
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.OnDecision = func(_ context.Context, d m2mauth.Decision) {
		// decisions.WithLabelValues(string(d.Outcome)).Inc()
		fmt.Printf("outcome=%s client=%q rule=%s\n", d.Outcome, d.Claims.ClientID(), d.Rule)
	}
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	api := guard.Require("read:products")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))

	for _, token := range []m2mauthtest.Token{
		{AppID: "reports", Audience: "https://shopping.api", Scopes: []string{"read:products"}},
		{AppID: "reports", Audience: "https://shopping.api"},
		{AppID: "reports", Audience: "https://shopping.api", Expired: true},
	} {
		r := httptest.NewRequest("GET", "/products", nil)
		r.Header.Set("Authorization", "Bearer "+issuer.Sign(token))
		api.ServeHTTP(httptest.NewRecorder(), r)
	}
	// Output:
	// outcome=allowed client="reports" rule=AllScopes("read:products")
	// outcome=insufficient_scope client="reports" rule=AllScopes("read:products")
	// outcome=token_expired client="" rule=AllScopes("read:products")
}

// An API behind a reverse proxy or a load balancer, where all requests come from the
// proxy's address. Each proxy appends the address that called it to X-Forwarded-For.
// Read it from the right, and believe an entry only if a proxy of yours wrote it.
func ExampleConfig_queueKey() {
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")

	proxies := netip.MustParsePrefix("10.1.0.0/16") // only proxies have addresses in here
	config.QueueKey = func(r m2mauth.Request) string {
		peer, err := netip.ParseAddrPort(r.RemoteAddr())
		if err != nil {
			return r.RemoteAddr()
		}
		caller := peer.Addr().Unmap()
		hops := strings.Split(strings.Join(r.Header("X-Forwarded-For"), ","), ",")
		for i := len(hops) - 1; i >= 0 && proxies.Contains(caller); i-- {
			hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
			if err != nil {
				break
			}
			caller = hop.Unmap()
		}
		if caller.Is6() { // one customer of a provider has a whole /64
			network, _ := caller.Prefix(64)
			return network.String()
		}
		return caller.String()
	}
	if _, err := m2mauth.New(config); err != nil {
		log.Fatal(err)
	}

	show := func(peer, forwardedFor string) {
		fmt.Println(config.QueueKey(request{peer: peer, forwardedFor: forwardedFor}))
	}
	show("10.1.0.7:4711", "203.0.113.9")
	show("10.1.0.7:4711", "192.0.2.1, 203.0.113.9, 10.1.0.8") // the caller itself sent 192.0.2.1
	show("10.1.0.7:4711", "2001:db8:1:2:3:4:5:6")
	show("198.51.100.4:4711", "192.0.2.1") // not through a proxy
	// Output:
	// 203.0.113.9
	// 203.0.113.9
	// 2001:db8:1:2::/64
	// 198.51.100.4
}

// request is a request as a QueueKey sees it.
type request struct {
	m2mauth.UnimplementedRequest
	peer, forwardedFor string
}

func (r request) RemoteAddr() string     { return r.peer }
func (r request) Header(string) []string { return []string{r.forwardedFor} }
