package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// envoyServer answers Envoy's ext_authz. Its decisions are those of the gateway.
type envoyServer struct {
	authv3.UnimplementedAuthorizationServer
	gateway           *gateway
	keepAuthorization bool
}

func (g *gateway) register(server *grpc.Server, keepAuthorization bool) {
	authv3.RegisterAuthorizationServer(server, envoyServer{gateway: g, keepAuthorization: keepAuthorization})
}

// Check answers with an HTTP answer in every case: an error of gRPC would leave
// it to Envoy's configuration what becomes of the request. A panic, from which gRPC does
// not recover as net/http does, would end the process with everybody's requests.
func (s envoyServer) Check(ctx context.Context, r *authv3.CheckRequest) (answer *authv3.CheckResponse, _ error) {
	defer func() {
		if e := recover(); e != nil {
			answer = denied(s.gateway.refused(ctx, fmt.Errorf("panic: %v", e)))
		}
	}()
	q, err := envoyQuestion(r.GetAttributes())
	if err != nil {
		return denied(s.gateway.refused(ctx, err)), nil
	}
	yes, no := s.gateway.decide(ctx, q)
	if no != nil {
		return denied(no), nil
	}
	remove := []string{"authorization"} // done with; identity fields are overwritten
	if yes.keepAuthorization || s.keepAuthorization {
		remove = nil
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers:         options(yes.identity),
			HeadersToRemove: remove,
		}},
	}, nil
}

func denied(no *refusal) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codeOf(no.status))},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(no.status)},
			Headers: options(no.header),
			Body:    string(no.body),
		}},
	}
}

func codeOf(status int) codes.Code {
	switch status {
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Internal
}

// options writes fields, each with one value, in place of those that are there.
func options(header http.Header) []*corev3.HeaderValueOption {
	var list []*corev3.HeaderValueOption
	for name, values := range header {
		list = append(list, &corev3.HeaderValueOption{
			Header:         &corev3.HeaderValue{Key: strings.ToLower(name), Value: values[0]},
			AppendAction:   corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			KeepEmptyValue: true,
		})
	}
	slices.SortFunc(list, func(a, b *corev3.HeaderValueOption) int { return strings.Compare(a.Header.Key, b.Header.Key) })
	return list
}

// envoyQuestion takes the request out of what Envoy tells of it. Envoy gives the
// fields in one of two forms; in the first it has joined the values of a field
// with commas, so that the guard refuses two tokens as one that is malformed.
func envoyQuestion(a *authv3.AttributeContext) (q question, err error) {
	r := a.GetRequest().GetHttp()
	if r == nil {
		return q, ambiguous("the proxy must tell of an HTTP request")
	}
	q = question{method: r.GetMethod(), target: r.GetPath(), header: make(http.Header), client: clientOf(a)}
	if len(r.GetHeaders()) > 0 && len(r.GetHeaderMap().GetHeaders()) > 0 {
		return q, ambiguous("the proxy tells of the request's fields in two ways")
	}
	for name, value := range r.GetHeaders() {
		q.header.Add(name, value)
	}
	for _, field := range r.GetHeaderMap().GetHeaders() {
		if field.GetValue() != "" && len(field.GetRawValue()) > 0 {
			return q, ambiguous("the proxy tells of a field in two ways")
		}
		q.header.Add(field.GetKey(), field.GetValue()+string(field.GetRawValue()))
	}
	if differs(q.header.Values(":method"), q.method) || differs(q.header.Values(":path"), q.target) {
		return q, ambiguous("the proxy tells of two methods or two paths")
	}
	return q, nil
}

func clientOf(a *authv3.AttributeContext) string {
	address := a.GetSource().GetAddress().GetSocketAddress()
	return net.JoinHostPort(address.GetAddress(), strconv.FormatUint(uint64(address.GetPortValue()), 10))
}
