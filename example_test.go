package m2mauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
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

func (r request) RemoteAddr() string { return r.peer }

func (r request) Header(string) []string { return []string{r.forwardedFor} }

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

// Probes for Kubernetes. The API is ready while the guard has keys, even stale ones, so
// an outage of the issuer does not take every replica out of service at once. Liveness
// does not depend on the issuer, since a restart would only lose the keys.
func ExampleGuard_Warm() {
	issuer := m2mauthtest.NewIssuer() // in production: Config.Issuer alone
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := guard.Warm(r.Context()); err != nil {
			slog.Warn("not ready", "error", err, "keys", guard.Keys().State)
			http.Error(w, "no keys to check tokens with", http.StatusServiceUnavailable)
		}
	})

	for _, path := range []string{"/livez", "/readyz"} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		fmt.Println(path, w.Code)
	}
	fmt.Println("keys:", guard.Keys().State)
	// Output:
	// /livez 200
	// /readyz 200
	// keys: fresh
}

// What ExampleGuard_Warm promises, with a probe every ten seconds.
func TestReadinessThroughAnOutage(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		testguard.KeysDown(issuer)
		probe := func() bool { return g.Warm(t.Context()) == nil }
		for range 6 {
			assert.False(t, probe(), "an API without keys is not ready")
			time.Sleep(10 * time.Second)
		}
		issuer.Intercept(nil)
		time.Sleep(testguard.KeysBackoff)
		assert.True(t, probe())
		last := time.Now()

		testguard.KeysHanging(issuer)
		for time.Since(last) < testguard.KeysTTL+testguard.KeysStaleFor {
			begin := time.Now()
			assert.True(t, probe(), "an outage of the issuer is not one of the API")
			assert.Zero(t, time.Since(begin))
			time.Sleep(10 * time.Second)
		}
		assert.False(t, probe(), "until KeyStaleFor has passed")
		issuer.Intercept(nil)
		time.Sleep(testguard.KeysBackoff + testguard.KeysTimeout)
		assert.True(t, probe())
		assert.Equal(t, m2mauth.KeysFresh, g.Keys().State)
	})
}

// Callers and the API know the issuer by different host names, as in Compose and
// Kubernetes.
func ExampleNew_splitHorizon() {
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer:            "http://localhost:3001/oidc",
		Audience:          "https://shopping.api",
		JWKSURL:           "http://logto:3001/oidc/jwks",
		InsecureHTTPHosts: []string{"logto"},
	})
	fmt.Println(guard.Keys().State, err)
	// Output: none <nil>
}

// All rules in one place: a route that is missing there lets nobody through.
func ExampleGuard_Routes() {
	issuer := m2mauthtest.NewIssuer() // in production: Config.Issuer and Config.Audience
	config := issuer.Config("https://shopping.api")
	config.Logger = slog.New(slog.DiscardHandler) // says which route is missing
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("GET /products", list)
	mux.HandleFunc("POST /products", create)
	mux.HandleFunc("DELETE /products/{id}", remove) // forgotten below

	handler, err := guard.Routes(mux, map[string]m2mauth.Rule{
		"GET /products":  m2mauth.AllScopes("read:products"),
		"POST /products": m2mauth.AllScopes("write:products"),
	}, "GET /healthz") // public
	if err != nil {
		log.Fatal(err) // names every mistake in the table at once
	}

	for _, request := range []string{"GET /healthz", "GET /products", "POST /products", "DELETE /products/7", "GET /nothing"} {
		method, path, _ := strings.Cut(request, " ")
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(request, w.Code)
	}
	// Output:
	// GET /healthz 200
	// GET /products 200
	// POST /products 403
	// DELETE /products/7 403
	// GET /nothing 404
}

func healthz(http.ResponseWriter, *http.Request) {}

func remove(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// A program whose settings come from its environment. What is not text is set in code,
// and every mistake is named at once.
func ExampleConfigFromEnv() {
	newGuard := func() (*m2mauth.Guard, error) {
		config, err := m2mauth.ConfigFromEnv("SHOP_")
		if err != nil {
			return nil, err // every mistake in the environment, one a line
		}
		config.Logger = slog.Default().With("guard", "shop")
		return m2mauth.New(config)
	}

	os.Setenv("SHOP_ISSUER", "https://your.logto.endpoint/oidc")
	os.Setenv("SHOP_AUDIENCE", "https://shopping.api")
	os.Setenv("SHOP_LEEWAY", "10s")
	guard, err := newGuard()
	fmt.Println(guard.Keys().Issuer, err)

	os.Setenv("SHOP_LEEWAY", "10")
	os.Setenv("SHOP_AUDIENCES", "https://old.api")
	_, err = newGuard()
	fmt.Println(err)
	for _, name := range []string{"SHOP_ISSUER", "SHOP_AUDIENCE", "SHOP_LEEWAY", "SHOP_AUDIENCES"} {
		os.Unsetenv(name)
	}
	// Output:
	// https://your.logto.endpoint/oidc <nil>
	// m2mauth: SHOP_AUDIENCES is not a setting of m2mauth: docs/environment.md has them all
	// m2mauth: SHOP_LEEWAY must be a duration with its unit, such as 90s or 1h30m
}

// reportWouldReject is a Config.OnDecision that lists what a dry run would reject.
func reportWouldReject(_ context.Context, d m2mauth.Decision) {
	switch {
	case !d.ReportOnly || d.Err == nil:
	case d.Outcome == m2mauth.Undecided:
		fmt.Println("undecided:", d.Rule)
	default:
		fmt.Printf("would be rejected: %s by %q: %s\n", d.Rule, d.Claims.ClientID(), d.Err.Description)
	}
}

// A team guards an API that already has callers. For two weeks nobody is rejected, and
// the list says who would be. The administration is guarded at once.
func ExampleGuard_Enforcing() {
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.Logger = slog.New(slog.DiscardHandler)
	config.InsecureReportOnlyUntil = time.Now().AddDate(0, 0, 14) // in production a date, such as that of a release
	config.OnDecision = reportWouldReject
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	if err := guard.Warm(context.Background()); err != nil { // or the first requests are undecided
		log.Print(err)
	}

	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	mux := http.NewServeMux()
	mux.Handle("GET /products", guard.Require("read:products")(ok))
	mux.Handle("POST /admin/prices", guard.Enforcing().Require("write:prices")(ok))

	billing := issuer.Sign(m2mauthtest.Token{AppID: "billing", Audience: "https://shopping.api", Scopes: []string{"read:invoices"}})
	send := func(method, path, token string) {
		r := httptest.NewRequest(method, path, nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(method, path, w.Code)
	}
	send("GET", "/products", issuer.Token("https://shopping.api", "read:products"))
	send("GET", "/products", billing)
	send("GET", "/products", "")
	send("POST", "/admin/prices", billing)
	fmt.Println(guard.Stats().WouldRefuse, "would be rejected")
	// Output:
	// GET /products 200
	// would be rejected: AllScopes("read:products") by "billing": the token lacks a scope that this route requires
	// GET /products 200
	// would be rejected: AllScopes("read:products") by "": this request needs an access token: Authorization: Bearer followed by the token
	// GET /products 200
	// POST /admin/prices 403
	// 2 would be rejected
}
