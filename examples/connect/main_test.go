package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/connect/shopv1"
	"github.com/m2mauth/m2mauth/examples/connect/shopv1/shopv1connect"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const audience = "https://shopping.api"

// protocols are what one server speaks to its clients.
var protocols = map[string]connect.ClientOption{
	"Connect":          connect.WithClientOptions(),
	"Connect with GET": connect.WithHTTPGet(),
	"gRPC":             connect.WithGRPC(),
	"gRPC-Web":         connect.WithGRPCWeb(),
}

// bearing sends each request with these Authorization fields.
type bearing struct {
	http.RoundTripper
	fields []string
}

func (b bearing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header["Authorization"] = b.fields
	return b.RoundTripper.RoundTrip(r)
}

// serve starts a server that speaks HTTP/2, and returns how clients reach it.
func serve(t *testing.T, handler http.Handler) func(option connect.ClientOption, fields ...string) shopv1connect.ShopServiceClient {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return func(option connect.ClientOption, fields ...string) shopv1connect.ShopServiceClient {
		client := &http.Client{Transport: bearing{server.Client().Transport, fields}}
		return shopv1connect.NewShopServiceClient(client, server.URL, option)
	}
}

// guards returns a guard as this program has it, and one without ErrorHandler.
func guards(t *testing.T, issuer *m2mauthtest.Issuer) (ours, plain *m2mauth.Guard) {
	t.Helper()
	config := issuer.Config(audience)
	plain, err := m2mauth.New(config)
	require.NoError(t, err)
	ours, err = newGuard(config)
	require.NoError(t, err)
	return ours, plain
}

func TestTheServiceAnswersWhoMayCall(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, _ := guards(t, issuer)
	client := serve(t, routes(guard))
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reader := client(protocol, "Bearer "+issuer.Token(audience, "read:products"))
			list, err := reader.ListProducts(t.Context(), &shopv1.ListProductsRequest{})
			require.NoError(t, err)
			require.Len(t, list.GetProducts(), 2)
			assert.Equal(t, "Coffee grinder", list.GetProducts()[0].GetName())
			_, err = reader.CreateProduct(t.Context(), &shopv1.CreateProductRequest{})
			assert.Equal(t, connect.CodePermissionDenied, connect.CodeOf(err))

			writer := client(protocol, "Bearer "+issuer.Token(audience, "write:products"))
			created, err := writer.CreateProduct(t.Context(), &shopv1.CreateProductRequest{})
			require.NoError(t, err)
			assert.Equal(t, "Teapot", created.GetProduct().GetName())
			_, err = writer.ListProducts(t.Context(), &shopv1.ListProductsRequest{})
			assert.Equal(t, connect.CodePermissionDenied, connect.CodeOf(err))
		})
	}
}

// What a client sees of each status, with this program's ErrorHandler and with
// none. docs/frameworks.md has the same table.
func TestWhatAClientSees(t *testing.T) {
	t.Parallel()
	issuer, down := m2mauthtest.NewIssuer(), m2mauthtest.NewIssuer()
	down.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	})
	good := "Bearer " + issuer.Token(audience, "read:products")
	failing := m2mauth.Custom("failing", func(context.Context, m2mauth.Claims, m2mauth.Request) error {
		return errors.New("the database is down")
	})
	rules := func(rule m2mauth.Rule) func(*m2mauth.Guard) http.Handler {
		_, service := shopv1connect.NewShopServiceHandler(shop{})
		return func(guard *m2mauth.Guard) http.Handler { return guard.RequireRule(rule)(service) }
	}
	// The answer to a source over its share, which takes a flood to see.
	busy := func(guard *m2mauth.Guard) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := guard.Check(r, m2mauth.AnyToken())
			var refusal *m2mauth.Error
			if !assert.ErrorAs(t, err, &refusal) {
				return
			}
			refusal.Status, refusal.Description = http.StatusTooManyRequests, "too many new tokens are being verified: try again later"
			guard.WriteError(w, r, refusal)
		})
	}

	for _, test := range []struct {
		name        string
		issuer      *m2mauthtest.Issuer
		routes      func(*m2mauth.Guard) http.Handler
		fields      []string
		ours, plain connect.Code
		text        string
		header      string // one that must come with it
	}{
		{"400: two Authorization fields", issuer, routes, []string{good, good}, connect.CodeInvalidArgument, connect.CodeInternal,
			"the request has more than one Authorization field", "WWW-Authenticate"},
		{"401: no token", issuer, routes, nil, connect.CodeUnauthenticated, connect.CodeUnauthenticated,
			"this request needs an access token: Authorization: Bearer followed by the token", "WWW-Authenticate"},
		{"401: a bad token", issuer, routes, []string{good + "A"}, connect.CodeUnauthenticated, connect.CodeUnauthenticated,
			"the token's signature is not strict base64url", "WWW-Authenticate"},
		{"403: a scope is missing", issuer, routes, []string{"Bearer " + issuer.Token(audience, "write:products")},
			connect.CodePermissionDenied, connect.CodePermissionDenied, "the token lacks a scope that this route requires", "WWW-Authenticate"},
		{"429: over its share", issuer, busy, nil, connect.CodeResourceExhausted, connect.CodeUnavailable,
			"too many new tokens are being verified: try again later", ""},
		{"500: a rule fails", issuer, rules(failing), []string{good}, connect.CodeInternal, connect.CodeUnknown,
			"the request could not be authorized because of an internal error", ""},
		{"503: no keys", down, routes, []string{"Bearer " + down.Token(audience, "read:products")},
			connect.CodeUnavailable, connect.CodeUnavailable,
			"the token cannot be checked at the moment, since the issuer's keys are unavailable: try again later", "Retry-After"},
	} {
		ours, plain := guards(t, test.issuer)
		ourClient, plainClient := serve(t, test.routes(ours)), serve(t, test.routes(plain))
		for name, protocol := range protocols {
			t.Run(test.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				see := func(client func(connect.ClientOption, ...string) shopv1connect.ShopServiceClient) *connect.Error {
					_, err := client(protocol, test.fields...).ListProducts(t.Context(), &shopv1.ListProductsRequest{})
					var seen *connect.Error
					require.ErrorAs(t, err, &seen)
					return seen
				}
				assert.Equal(t, test.plain, see(plainClient).Code(), "without ErrorHandler")
				seen := see(ourClient)
				assert.Equal(t, test.ours, seen.Code())
				assert.Equal(t, test.text, seen.Message())
				if test.header != "" {
					assert.NotEmpty(t, seen.Meta().Get(test.header))
				}
			})
		}
	}
}

// The Connect protocol has statuses, and they stay those of RFC 6750.
func TestTheStatusStays(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 403, 429, 500, 503} {
		w := httptest.NewRecorder()
		refuse(w, httptest.NewRequest(http.MethodPost, shopv1connect.ShopServiceListProductsProcedure, nil), &m2mauth.Error{Status: status})
		assert.Equal(t, status, w.Code)
	}
}

func TestEveryProcedureHasARule(t *testing.T) {
	t.Parallel()
	guard, _ := guards(t, m2mauthtest.NewIssuer())
	api := routes(guard)
	ask := func(path string) int {
		w := httptest.NewRecorder()
		api.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
		return w.Code
	}
	service := shopv1.File_shop_proto.Services().Get(0)
	require.Positive(t, service.Methods().Len())
	for i := range service.Methods().Len() {
		path := "/" + string(service.FullName()) + "/" + string(service.Methods().Get(i).Name())
		assert.Equal(t, http.StatusUnauthorized, ask(path), "%s", path)
	}
	assert.Equal(t, http.StatusNotFound, ask("/"+string(service.FullName())+"/Nothing"))
	assert.Equal(t, http.StatusNotFound, ask("/"+string(service.FullName())+"%2FListProducts"))
}

func TestHealthzIsPublic(t *testing.T) {
	t.Parallel()
	guard, _ := guards(t, m2mauthtest.NewIssuer())
	w := httptest.NewRecorder()
	routes(guard).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
	assert.Equal(t, http.StatusOK, w.Code)
}

func TestTheEnvironment(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // so that run stops as soon as it has started
	env := map[string]string{"ISSUER": "https://your-tenant.logto.app/oidc", "AUDIENCE": audience, "ADDR": "127.0.0.1:0"}
	assert.NoError(t, run(ctx, func(name string) string { return env[name] }))
	env["ADDR"] = "not an address"
	assert.ErrorContains(t, run(ctx, func(name string) string { return env[name] }), "address")
	assert.ErrorContains(t, run(ctx, func(string) string { return "" }), "Issuer")
}
