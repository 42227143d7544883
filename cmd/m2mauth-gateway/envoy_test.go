package main

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
)

// envoy serves a gateway on a loopback port and returns a client of it.
func envoy(t *testing.T, g *gateway) authv3.AuthorizationClient {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	g.register(server, false)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return authv3.NewAuthorizationClient(conn)
}

func check(r *authv3.AttributeContext_HttpRequest) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: r},
	}}
}

// toldByEnvoy is a request with its fields in one of the two forms.
func toldByEnvoy(method, target string, header http.Header, raw bool) *authv3.AttributeContext_HttpRequest {
	r := &authv3.AttributeContext_HttpRequest{Method: method, Path: target, Headers: map[string]string{}, HeaderMap: &corev3.HeaderMap{}}
	for field, values := range header {
		field = strings.ToLower(field)
		if raw {
			r.HeaderMap.Headers = append(r.HeaderMap.Headers, &corev3.HeaderValue{Key: field, RawValue: []byte(values[0])})
		} else {
			r.Headers[field] = values[0]
		}
	}
	return r
}

func fieldsOf(options []*corev3.HeaderValueOption) http.Header {
	h := http.Header{}
	for _, o := range options {
		if o.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD && o.GetKeepEmptyValue() {
			h.Add(o.GetHeader().GetKey(), o.GetHeader().GetValue())
		}
	}
	return h
}

func TestEnvoyIsAnsweredAsTheOthers(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	client := envoy(t, newGateway(t, issuer))
	grpcCodes := map[int]codes.Code{204: codes.OK, 400: codes.InvalidArgument, 401: codes.Unauthenticated, 403: codes.PermissionDenied}

	for _, raw := range []bool{false, true} {
		for _, test := range requests(issuer) {
			name := test.name
			if raw {
				name += " raw"
			}
			t.Run(name, func(t *testing.T) {
				answer, err := client.Check(t.Context(), check(toldByEnvoy(test.method, test.target, test.header(), raw)))
				require.NoError(t, err)
				assert.Equal(t, grpcCodes[test.status], codes.Code(answer.GetStatus().GetCode()))
				if test.status == 204 {
					ok := answer.GetOkResponse()
					require.NotNil(t, ok)
					header := fieldsOf(ok.GetHeaders())
					assert.Equal(t, test.told(issuer.URL()), told(header))
					assert.Equal(t, []string{"authorization"}, ok.GetHeadersToRemove(), "what is removed cannot be overwritten")
					return
				}
				no := answer.GetDeniedResponse()
				require.NotNil(t, no)
				assert.Equal(t, test.status, int(no.GetStatus().GetCode()))
				assert.Contains(t, no.GetBody(), `"error":"`+test.code+`"`)
				header := fieldsOf(no.GetHeaders())
				assert.Equal(t, test.challenged, header.Get("WWW-Authenticate") != "")
				assert.Equal(t, "application/json", header.Get("Content-Type"))
				assert.Equal(t, "no-store", header.Get("Cache-Control"))
			})
		}
	}
}

func TestEnvoyMustTellOfOneRequest(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	client := envoy(t, newGateway(t, issuer))
	reader := "Bearer " + issuer.Token(audience, "read:products")
	value := func(key, value string) *corev3.HeaderValue { return &corev3.HeaderValue{Key: key, Value: value} }

	for _, test := range []struct {
		name    string
		request *authv3.CheckRequest
		code    codes.Code
	}{
		{"pseudo fields that agree", check(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/healthz",
			Headers: map[string]string{":method": "GET", ":path": "/healthz"}}), codes.OK},
		{"nothing", &authv3.CheckRequest{}, codes.InvalidArgument},
		{"no HTTP", check(nil), codes.InvalidArgument},
		{"no method", check(&authv3.AttributeContext_HttpRequest{Path: "/healthz"}), codes.InvalidArgument},
		{"no path", check(&authv3.AttributeContext_HttpRequest{Method: "GET"}), codes.InvalidArgument},
		{"another method in a pseudo field", check(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/healthz",
			Headers: map[string]string{":method": "POST"}}), codes.InvalidArgument},
		{"another path in a pseudo field", check(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/healthz",
			Headers: map[string]string{":path": "/products"}}), codes.InvalidArgument},
		{"fields in two forms", check(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/healthz",
			Headers: map[string]string{"a": "b"}, HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{value("a", "b")}}}), codes.InvalidArgument},
		{"a value in two forms", check(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/healthz",
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "a", Value: "b", RawValue: []byte("c")}}}}), codes.InvalidArgument},
		{"two tokens, joined", check(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/products",
			Headers: map[string]string{"authorization": reader + "," + reader}}), codes.InvalidArgument},
		{"two tokens, in two letter cases", check(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/products",
			Headers: map[string]string{"authorization": reader, "Authorization": reader}}), codes.InvalidArgument},
		{"two tokens, apart", check(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/products",
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{value("authorization", reader), value("authorization", reader)}}}), codes.InvalidArgument},
	} {
		answer, err := client.Check(t.Context(), test.request)
		require.NoError(t, err, test.name)
		assert.Equal(t, test.code, codes.Code(answer.GetStatus().GetCode()), test.name)
		assert.Equal(t, test.code == codes.OK, answer.GetOkResponse() != nil, test.name)
	}
	for name, target := range tricks {
		if strings.ToValidUTF8(target, "") != target {
			continue // not a string of protobuf
		}
		answer, err := client.Check(t.Context(), check(&authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: target, Headers: map[string]string{"authorization": reader}}))
		require.NoError(t, err, name)
		assert.Equal(t, codes.InvalidArgument, codes.Code(answer.GetStatus().GetCode()), name)
	}
}

func TestEnvoyIsTold503WithRetryAfter(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	issuer.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	})
	answer, err := envoy(t, newGateway(t, issuer)).Check(t.Context(), check(&authv3.AttributeContext_HttpRequest{
		Method: "GET", Path: "/products", Headers: map[string]string{"authorization": "Bearer " + issuer.Token(audience, "read:products")}}))
	require.NoError(t, err)
	assert.Equal(t, codes.Unavailable, codes.Code(answer.GetStatus().GetCode()))
	assert.Equal(t, 503, int(answer.GetDeniedResponse().GetStatus().GetCode()))
	assert.NotEmpty(t, fieldsOf(answer.GetDeniedResponse().GetHeaders()).Get("Retry-After"))
}

func TestEnvoysCallerIsTheSource(t *testing.T) {
	t.Parallel()
	q, err := envoyQuestion(&authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "2001:db8::1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 1234}},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{}},
	})
	require.NoError(t, err)
	assert.Equal(t, "[2001:db8::1]:1234", q.client)
}

func TestAPanicRefusesOneRequest(t *testing.T) {
	t.Parallel()
	answer, err := envoyServer{gateway: &gateway{}}.Check(t.Context(), check(toldByEnvoy("GET", "/healthz", nil, true))) // it has no configuration
	require.NoError(t, err)
	assert.EqualValues(t, 500, answer.GetDeniedResponse().GetStatus().GetCode())
	assert.NotContains(t, answer.GetDeniedResponse().GetBody(), "nil pointer")
}
