package pages_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"expvar"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// What the other pages show and no example has.

func healthz(http.ResponseWriter, *http.Request) {}

func list(w http.ResponseWriter, r *http.Request) {
	claims, _ := m2mauth.FromContext(r.Context())
	fmt.Fprint(w, claims.AppID())
}

func create(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }

func quietGuard(t *testing.T, change func(*m2mauth.Config)) (*m2mauthtest.Issuer, *m2mauth.Guard) {
	t.Helper()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.Logger = slog.New(slog.DiscardHandler)
	change(&config)
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	return issuer, guard
}

func serve(handler http.Handler, method, path, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func TestEverythingButHealthz(t *testing.T) {
	t.Parallel()
	issuer, guard := quietGuard(t, func(*m2mauth.Config) {})

	api := http.NewServeMux()
	api.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(list)))
	api.Handle("POST /products", guard.Require("write:products")(http.HandlerFunc(create)))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)  // public
	mux.Handle("/", guard.Authenticate(api)) // every other path needs a valid token

	api.HandleFunc("GET /forgotten", func(http.ResponseWriter, *http.Request) {})
	reader := issuer.Token("https://shopping.api", "read:products")
	for _, test := range []struct {
		method, path, token string
		status              int
	}{
		{"GET", "/healthz", "", 200},
		{"GET", "/products", "", 401},
		{"GET", "/products", reader, 200},
		{"POST", "/products", reader, 403},
		{"GET", "/forgotten", "", 401},
		{"GET", "/forgotten", reader, 200},
		{"GET", "/unknown", "", 401},
		{"GET", "/unknown", reader, 404},
	} {
		assert.Equal(t, test.status, serve(mux, test.method, test.path, test.token).Code, "%s %s", test.method, test.path)
	}
}

// asProblem writes rejections as problem details (RFC 9457).
func asProblem(w http.ResponseWriter, _ *http.Request, e *m2mauth.Error) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"type":   "about:blank",
		"title":  http.StatusText(e.Status),
		"status": e.Status,
		"detail": e.Description,
	})
}

func TestProblemDetails(t *testing.T) {
	t.Parallel()
	_, guard := quietGuard(t, func(c *m2mauth.Config) { c.ErrorHandler = asProblem })
	w := serve(api(guard), "GET", "/products", "")
	assert.Equal(t, 401, w.Code)
	assert.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	assert.Contains(t, w.Header().Get("WWW-Authenticate"), "Bearer realm=")
	assert.JSONEq(t, `{"type":"about:blank","title":"Unauthorized","status":401,
		"detail":"this request needs an access token: Authorization: Bearer followed by the token"}`, w.Body.String())
}

func TestTwoAudiences(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()

	config := m2mauth.Config{
		Issuer:         "https://your.logto.endpoint/oidc",
		Audience:       "https://shopping.api",
		OtherAudiences: []string{"https://shopping.api/", "https://old-name.api"},
	}

	config.Issuer, config.HTTPClient = issuer.URL(), issuer.Client()
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	for _, audience := range []string{"https://shopping.api", "https://shopping.api/", "https://old-name.api"} {
		assert.Equal(t, 200, serve(api(guard), "GET", "/products", issuer.Token(audience, "read:products")).Code)
	}
	assert.Equal(t, 401, serve(api(guard), "GET", "/products", issuer.Token("https://old-name.api/", "read:products")).Code)
}

func TestKeysFromAFile(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	answer, err := issuer.Client().Get(issuer.JWKSURL())
	require.NoError(t, err)
	defer answer.Body.Close()
	file := filepath.Join(t.TempDir(), "keys.json")
	to, err := os.Create(file)
	require.NoError(t, err)
	_, err = to.ReadFrom(answer.Body)
	require.NoError(t, err)
	require.NoError(t, to.Close())
	guard, err := withoutNetwork(issuer.URL(), file)
	require.NoError(t, err)
	assert.Equal(t, 200, serve(api(guard), "GET", "/products", issuer.Token("https://shopping.api", "read:products")).Code)
	_, err = withoutNetwork(issuer.URL(), file+"?")
	assert.Error(t, err)
}

// withoutNetwork returns a guard whose keys are in a file: a copy of {issuer}/jwks.
func withoutNetwork(issuer, file string) (*m2mauth.Guard, error) {
	keys, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return m2mauth.New(m2mauth.Config{
		Issuer:   issuer,
		Audience: "https://shopping.api",
		JWKS:     keys,
	})
}

// privateCA returns a client for an issuer whose certificate your own authority signed.
func privateCA(pemFile string) (*http.Client, error) {
	certificates, err := os.ReadFile(pemFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(certificates) {
		return nil, fmt.Errorf("%s holds no certificate", pemFile)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	return &http.Client{Transport: transport}, nil
}

func TestAPrivateCertificateAuthority(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	server := httptest.NewTLSServer(issuer)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pemOf(server.Certificate()), 0o600))
	_, without := quietGuard(t, func(c *m2mauth.Config) {
		c.HTTPClient, c.JWKSURL = nil, server.URL+"/oidc/jwks"
	})
	assert.ErrorContains(t, without.Warm(t.Context()), "certificate signed by unknown authority")

	client, err := privateCA(file)
	require.NoError(t, err)
	_, with := quietGuard(t, func(c *m2mauth.Config) {
		c.HTTPClient, c.JWKSURL = client, server.URL+"/oidc/jwks"
	})
	assert.NoError(t, with.Warm(t.Context()))
	_, err = privateCA(file + "?")
	assert.Error(t, err)
}

func pemOf(certificate *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
}

// departmentOf reads a claim of your own.
func departmentOf(claims m2mauth.Claims) (string, error) {
	var own struct {
		Department string `json:"department"`
	}
	err := claims.Decode(&own)
	return own.Department, err
}

func TestWhoActsForAUser(t *testing.T) {
	t.Parallel()
	issuer, guard := quietGuard(t, func(*m2mauth.Config) {})

	byAgent := m2mauth.AllOf(
		m2mauth.UserToken(),
		m2mauth.ClientID("checkoutapp"), // exchanged the token, and named the actor
		m2mauth.ActedBy("shopagent"),
	)

	for _, test := range []struct {
		client string
		claims map[string]any
		status int
	}{
		{"checkoutapp", map[string]any{"sub": "alice", "act": map[string]any{"sub": "shopagent"}}, 200},
		{"checkoutapp", map[string]any{"sub": "alice"}, 403},
		{"checkoutapp", map[string]any{"sub": "alice", "act": map[string]any{"sub": "checkoutapp"}}, 403},
		{"checkoutapp", map[string]any{"act": map[string]any{"sub": "shopagent"}}, 403},
		{"other", map[string]any{"sub": "alice", "act": map[string]any{"sub": "shopagent"}}, 403},
		{"checkoutapp", map[string]any{"sub": "alice", "act": "shopagent"}, 401},
	} {
		token := issuer.Sign(m2mauthtest.Token{AppID: test.client, Audience: "https://shopping.api", Claims: test.claims})
		handler := guard.RequireRule(byAgent)(http.HandlerFunc(list))
		assert.Equal(t, test.status, serve(handler, "GET", "/", token).Code, "%s, %v", test.client, test.claims)
	}
}

func TestAnOwnCheckOnAClaim(t *testing.T) {
	t.Parallel()
	issuer, guard := quietGuard(t, func(*m2mauth.Config) {})

	sales := m2mauth.AllOf(
		m2mauth.AllScopes("read:products"),
		m2mauth.HasClaim("department", "sales", "support"),
	)
	contract := m2mauth.Custom("level 3 or more", func(_ context.Context, claims m2mauth.Claims, _ m2mauth.Request) error {
		var own struct {
			Level int `json:"level"`
		}
		if err := claims.Decode(&own); err != nil || own.Level < 3 {
			return m2mauth.Deny("this route needs a contract of level 3 or more")
		}
		return nil
	})

	token := func(claims map[string]any) string {
		return issuer.Sign(m2mauthtest.Token{Audience: "https://shopping.api", Scopes: []string{"read:products"}, Claims: claims})
	}
	for _, test := range []struct {
		rule   m2mauth.Rule
		claims map[string]any
		status int
	}{
		{sales, map[string]any{"department": "sales"}, 200},
		{sales, map[string]any{"department": []string{"it", "support"}}, 200},
		{sales, map[string]any{"department": "it"}, 403},
		{sales, nil, 403},
		{contract, map[string]any{"level": 3}, 200},
		{contract, map[string]any{"level": 2}, 403},
		{contract, map[string]any{"level": "3"}, 403},
		{contract, nil, 403},
	} {
		handler := guard.RequireRule(test.rule)(http.HandlerFunc(list))
		assert.Equal(t, test.status, serve(handler, "GET", "/", token(test.claims)).Code, "%s, %v", test.rule, test.claims)
	}
	claims, err := guard.Verify(t.Context(), token(map[string]any{"department": "sales"}))
	require.NoError(t, err)
	department, err := departmentOf(claims)
	require.NoError(t, err)
	assert.Equal(t, "sales", department)
}

// prices is a handler of a route that anybody may call, and where callers who are
// known get more.
func prices(w http.ResponseWriter, r *http.Request) {
	claims, ok := m2mauth.FromContext(r.Context())
	if !ok {
		fmt.Fprint(w, "list prices")
		return
	}
	fmt.Fprintf(w, "prices for the app %s", claims.AppID())
}

func TestAnOptionalRoute(t *testing.T) {
	t.Parallel()
	issuer, guard := quietGuard(t, func(*m2mauth.Config) {})
	mux := http.NewServeMux()

	rule := m2mauth.Optional(m2mauth.AllScopes("read:prices"))
	mux.Handle("GET /prices", guard.RequireRule(rule)(http.HandlerFunc(prices)))

	assert.Equal(t, "list prices", serve(mux, "GET", "/prices", "").Body.String())
	reader := issuer.Sign(m2mauthtest.Token{AppID: "reader", Audience: "https://shopping.api", Scopes: []string{"read:prices"}})
	assert.Equal(t, "prices for the app reader", serve(mux, "GET", "/prices", reader).Body.String())
	assert.Equal(t, 403, serve(mux, "GET", "/prices", issuer.Token("https://shopping.api")).Code)
	assert.Equal(t, 401, serve(mux, "GET", "/prices", reader+"x").Code)
}

func TestWhoCalled(t *testing.T) {
	t.Parallel()
	claims := m2mauthtest.Claims(t, "reader", "read:products")
	r := httptest.NewRequest("GET", "/products", nil)
	r = r.WithContext(m2mauth.NewContext(r.Context(), claims))
	var b strings.Builder
	logger := slog.New(slog.NewTextHandler(&b, nil))
	whoCalled(r, logger)
	assert.Contains(t, b.String(), "app=reader client=reader subject=reader issuer=https://issuer.test/oidc")
}

func whoCalled(r *http.Request, logger *slog.Logger) {
	claims, ok := m2mauth.FromContext(r.Context())
	if !ok {
		return // no guard, or an optional rule and no token
	}
	logger.InfoContext(r.Context(), "request",
		"app", claims.AppID(), // empty for a user's token
		"client", claims.ClientID(),
		"subject", claims.Subject(), // the app or the user
		"issuer", claims.Issuer(),
		"token", claims.ID(),
	)
}

// fromNginx is for a proxy that writes the caller's address into X-Real-IP itself,
// whatever the caller sent.
func fromNginx(r m2mauth.Request) string {
	if values := r.Header("X-Real-IP"); len(values) == 1 {
		return networkOf(values[0])
	}
	return "past the proxy"
}

// fromLoadBalancer is for a proxy that appends the caller's address to
// X-Forwarded-For: what stands before it, the caller may have made up.
func fromLoadBalancer(r m2mauth.Request) string {
	const appended = 1 // addresses that your proxies append; Google Cloud's load balancer appends 2
	all := strings.Split(strings.Join(r.Header("X-Forwarded-For"), ","), ",")
	if len(all) < appended {
		return "past the proxy"
	}
	return networkOf(strings.TrimSpace(all[len(all)-appended]))
}

// networkOf returns an IPv4 address as it is, and the /64 of an IPv6 address, which
// one customer of a provider has to itself.
func networkOf(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Unmap().Is4() {
		return address
	}
	network, _ := ip.Prefix(64)
	return network.String()
}

// fields is a request of header fields alone.
type fields struct {
	m2mauth.UnimplementedRequest
	header http.Header
}

func (f fields) Header(name string) []string { return f.header.Values(name) }

func TestQueueKeys(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		of     func(m2mauth.Request) string
		fields http.Header
		want   string
	}{
		{fromNginx, http.Header{"X-Real-Ip": {"192.0.2.1"}}, "192.0.2.1"},
		{fromNginx, http.Header{"X-Real-Ip": {"2001:db8:1:2:3::4"}}, "2001:db8:1:2::/64"},
		{fromNginx, http.Header{"X-Real-Ip": {"192.0.2.1", "192.0.2.2"}}, "past the proxy"},
		{fromNginx, nil, "past the proxy"},
		{fromLoadBalancer, http.Header{"X-Forwarded-For": {"192.0.2.1"}}, "192.0.2.1"},
		{fromLoadBalancer, http.Header{"X-Forwarded-For": {"made up, 192.0.2.1"}}, "192.0.2.1"},
		{fromLoadBalancer, http.Header{"X-Forwarded-For": {"made up", "192.0.2.1"}}, "192.0.2.1"},
		{fromLoadBalancer, http.Header{"X-Forwarded-For": {"made up,2001:db8:1:2:3::4"}}, "2001:db8:1:2::/64"},
	} {
		assert.Equal(t, test.want, test.of(fields{header: test.fields}), "%v", test.fields)
	}
	assert.Empty(t, fromLoadBalancer(fields{}), "nobody is known by that")

	_, err := m2mauth.New(m2mauth.Config{
		Issuer:   "https://your.logto.endpoint/oidc",
		Audience: "https://shopping.api",
		QueueKey: fromNginx,
	})
	require.NoError(t, err)
}

func TestMetricsOfTheStandardLibrary(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.Logger = slog.New(slog.DiscardHandler)

	decisions := expvar.NewMap("m2mauth_decisions")
	config.OnDecision = func(_ context.Context, d m2mauth.Decision) {
		decisions.Add(string(d.Outcome), 1)
	}

	guard, err := m2mauth.New(config)
	require.NoError(t, err)

	expvar.Publish("m2mauth_keys", expvar.Func(func() any { return guard.Keys() }))
	expvar.Publish("m2mauth_stats", expvar.Func(func() any { return guard.Stats() }))

	serve(api(guard), "GET", "/products", "")
	serve(api(guard), "GET", "/products", issuer.Token("https://shopping.api", "read:products"))
	assert.JSONEq(t, `{"no_access_token":1,"allowed":1}`, decisions.String())
	assert.Contains(t, expvar.Get("m2mauth_keys").String(), `"State":"fresh"`)
	assert.Contains(t, expvar.Get("m2mauth_stats").String(), `"Misses":1`)
}

func TestAKeyTTLOfYourOwn(t *testing.T) {
	t.Parallel()
	config := m2mauth.Config{
		Issuer:      "https://your.logto.endpoint/oidc",
		Audience:    "https://shopping.api",
		KeyTTL:      5 * time.Minute,
		KeyStaleFor: 4 * time.Hour,
		MaxLifetime: time.Hour,
	}

	_, err := m2mauth.New(config)
	assert.NoError(t, err)
}

// message is what comes out of a queue in place of a request.
type message struct {
	m2mauth.UnimplementedRequest // says nothing of what a message does not have
	header                       map[string]string
	peer                         net.Addr
}

func (m message) Header(name string) []string {
	for key, value := range m.header {
		if strings.EqualFold(key, name) {
			return []string{value}
		}
	}
	return nil
}

func (m message) RemoteAddr() string { return m.peer.String() }

func TestAMessageIsARequest(t *testing.T) {
	t.Parallel()
	issuer, guard := quietGuard(t, func(*m2mauth.Config) {})
	m := message{
		header: map[string]string{"authorization": "Bearer " + issuer.Token("https://shopping.api", "write:products")},
		peer:   &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1234},
	}
	handled := ""
	reply := func(status int, _ http.Header, body []byte) { handled = fmt.Sprint(status, " ", string(body)) }
	handle := func(ctx context.Context, m message) {

		claims, err := guard.CheckRequest(ctx, m, m2mauth.AllScopes("write:products"))
		var refused *m2mauth.Error
		if errors.As(err, &refused) {
			header, body := refused.Response()
			reply(refused.Status, header, body)
			return
		}

		handled = claims.AppID()
	}
	handle(t.Context(), m)
	assert.NotEmpty(t, handled)
	delete(m.header, "authorization")
	handle(t.Context(), m)
	assert.Contains(t, handled, "401 {")
}
