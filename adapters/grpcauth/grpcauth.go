// Package grpcauth puts an [m2mauth.Guard] in front of the methods of a gRPC server.
// Every method has a rule or is public. A method that is neither is rejected:
//
//	auth, err := grpcauth.New(grpcauth.Config{
//		Guard: guard,
//		Rules: map[string]m2mauth.Rule{
//			shoppb.Shop_ListProducts_FullMethodName:  m2mauth.AllScopes("read:products"),
//			shoppb.Shop_CreateProduct_FullMethodName: m2mauth.AllScopes("write:products"),
//		},
//		Public: []string{healthpb.Health_Check_FullMethodName},
//	})
//	server := grpc.NewServer(auth.ServerOptions()...)
//	shoppb.RegisterShopServer(server, …)
//	err = auth.Validate(server) // names every method without a rule, and every rule without a method
//
// Handlers find the claims with [m2mauth.FromContext]. A stream ends when its token
// expires or is revoked: see [Interceptor.Stream]. A rejected call ends with one of these codes, and
// with details that [Domain] describes:
//
//   - Unauthenticated: the token is missing or invalid, or the credentials are malformed.
//   - PermissionDenied: the token does not meet the rule, or the method has no rule.
//   - ResourceExhausted: this caller has more calls waiting than its share.
//   - Unavailable: the token could not be checked. It may be valid.
//   - Internal: something on the API's own side failed.
//   - Canceled or DeadlineExceeded: the caller did not wait for the check.
//
// # Traps
//
//   - A server made without [Interceptor.ServerOptions] is open. With only one of the two
//     interceptors, it is open to unary calls or to streams. [Interceptor.Validate] cannot
//     see that.
//   - A panic ends the process. Add interceptors that recover, with
//     [grpc.UnaryInterceptor] and [grpc.StreamInterceptor], which run before these.
//   - Make the guard once, when the program starts. A guard made in a method has no keys
//     and no cached tokens, and fetches keys for each call.
//   - The message of a unary call is read before its interceptors run, even without a
//     token. [grpc.MaxRecvMsgSize] limits it to 4 MiB by default.
//   - While [m2mauth.Guard.ReportOnly] is true, methods without a rule are served, and
//     streams outlive their tokens. Within 2 s after that time, streams that began before
//     are checked as new ones are, and those that would be rejected end.
package grpcauth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/m2mauth/m2mauth"
)

// Config says what each method of a server requires. Method names are full names,
// /package.Service/Method, such as the constants …_FullMethodName of generated code.
//
// Rules see the method POST, a URL with the gRPC method as its path and the authority as
// its host, and the TLS connection of [credentials.NewTLS].
type Config struct {
	// Guard checks the tokens. Required.
	Guard *m2mauth.Guard
	// Rules are the rules of the methods. There is no rule for a whole service, so
	// that a method which is added to the service later is not open by accident.
	Rules map[string]m2mauth.Rule
	// Public are the methods that anyone may call, such as those of health checks and
	// reflection. Tokens are ignored, and the context has no claims.
	Public []string
	// Values returns what rules get from [m2mauth.Request.PathValue]: a value from
	// the request message, for the name that a rule such as
	// [m2mauth.OrganizationPath] asks for, or "". It is called only for unary methods,
	// since the message of a stream comes after the decision. For streams every value
	// is "", so OrganizationPath rejects them: use [m2mauth.OrganizationHeader], or
	// check messages in the handler. Default: none, so that every value is "".
	Values func(method string, message any, name string) string
	// Leeway is how long a stream may go on after its token has expired. The guard's
	// leeway lets a call begin, but does not extend a stream: a stream that begins
	// with an expired token is rejected. Default: 0. It must not be negative.
	Leeway time.Duration
}

// Interceptor guards a gRPC server. Make one with [New]. It is safe for
// concurrent use.
type Interceptor struct {
	guard  *m2mauth.Guard
	rules  map[string]m2mauth.Rule
	public map[string]bool
	values func(method string, message any, name string) string
	leeway time.Duration
}

// New returns an Interceptor. The error names every mistake in the Config at once.
func New(config Config) (*Interceptor, error) {
	i := &Interceptor{
		guard:  config.Guard,
		rules:  maps.Clone(config.Rules),
		public: make(map[string]bool),
		values: config.Values,
		leeway: config.Leeway,
	}
	var mistakes []error
	add := func(format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("grpcauth: "+format, args...))
	}
	if i.guard == nil {
		add("Guard is nil; was the error of m2mauth.New ignored?")
	}
	if i.leeway < 0 {
		add("Leeway is negative (%s)", i.leeway)
	}
	for _, method := range config.Public {
		i.public[method] = true
		if !isFullMethod(method) {
			add("Public: %q is not a method in full: /package.Service/Method", method)
		}
	}
	for _, method := range slices.Sorted(maps.Keys(i.rules)) {
		if !isFullMethod(method) {
			add("Rules: %q is not a method in full: /package.Service/Method", method)
		}
		if i.public[method] {
			add("%s has a rule and is public; it can be one of them", method)
		}
		if i.guard == nil {
			continue
		}
		if err := i.guard.ValidateRule(i.rules[method]); err != nil {
			add("Rules: %s: %w", method, err)
		}
	}
	if mistakes != nil {
		return nil, errors.Join(mistakes...)
	}
	return i, nil
}

// isFullMethod reports whether a name has the form /package.Service/Method. A
// star stands for nothing here: an entry with one would match no method.
func isFullMethod(name string) bool {
	last := strings.LastIndexByte(name, '/')
	return last > 1 && last < len(name)-1 && name[0] == '/' && !strings.ContainsAny(name, "* ")
}

// ServerOptions returns both interceptors, for [grpc.NewServer]. With only one of them,
// the methods of the other kind would be open. Interceptors from
// [grpc.UnaryInterceptor] and [grpc.StreamInterceptor] run before them. Those from
// [grpc.ChainUnaryInterceptor] and [grpc.ChainStreamInterceptor] run in the order of
// the options.
func (i *Interceptor) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(i.Unary), grpc.ChainStreamInterceptor(i.Stream)}
}

// Validate compares the rules with the methods of the server. Call it after all
// services are registered. The error names every method that has no rule and is not
// public, and every rule or public method that the server does not have, such as a
// misspelled one. Validate cannot see what [grpc.UnknownServiceHandler] forwards.
func (i *Interceptor) Validate(server *grpc.Server) error {
	var mistakes []error
	served := make(map[string]bool)
	for service, info := range server.GetServiceInfo() {
		for _, method := range info.Methods {
			served["/"+service+"/"+method.Name] = true
		}
	}
	for _, method := range slices.Sorted(maps.Keys(served)) {
		if _, ruled := i.rules[method]; !ruled && !i.public[method] {
			mistakes = append(mistakes, fmt.Errorf("grpcauth: %s has no rule and is not public: every call of it is refused", method))
		}
	}
	for _, method := range slices.Sorted(maps.Keys(i.rules)) {
		if !served[method] {
			mistakes = append(mistakes, fmt.Errorf("grpcauth: Rules: the server has no method %s", method))
		}
	}
	for _, method := range slices.Sorted(maps.Keys(i.public)) {
		if !served[method] {
			mistakes = append(mistakes, fmt.Errorf("grpcauth: Public: the server has no method %s", method))
		}
	}
	return errors.Join(mistakes...)
}

// Unary is the [grpc.UnaryServerInterceptor].
func (i *Interceptor) Unary(ctx context.Context, message any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if i.public[info.FullMethod] {
		return handler(ctx, message)
	}
	claims, err := i.check(ctx, info.FullMethod, message)
	if err != nil {
		return nil, statusOf(ctx, err).Err()
	}
	return handler(m2mauth.NewContext(ctx, claims), message)
}

// check decides about a call. Its error is the guard's, or errNoRule.
func (i *Interceptor) check(ctx context.Context, method string, message any) (m2mauth.Claims, error) {
	rule, ruled := i.rules[method]       // the zero Rule refuses everybody, which a guard that reports only tells
	if !ruled && !i.guard.ReportOnly() { // before the token: the answer is the same for everybody
		return m2mauth.Claims{}, errNoRule
	}
	// The claims are zero where an optional rule met no token.
	return i.guard.CheckRequest(ctx, &request{ctx: ctx, method: method, message: message, values: i.values}, rule)
}

// request is what the guard sees of a call.
type request struct {
	m2mauth.UnimplementedRequest
	ctx     context.Context
	method  string
	message any // nil for a stream
	values  func(method string, message any, name string) string
}

// Header returns the values of a metadata key. Those of a key in -bin are bytes
// and no header field's text, so rules do not see them.
func (r *request) Header(name string) []string {
	if name = strings.ToLower(name); strings.HasSuffix(name, "-bin") {
		return nil
	}
	return metadata.ValueFromIncomingContext(r.ctx, name)
}

func (r *request) PathValue(name string) string {
	if r.values == nil || r.message == nil {
		return ""
	}
	return r.values(r.method, r.message, name)
}

// RemoteAddr is empty where the address of a transport of the user's panics.
func (r *request) RemoteAddr() (address string) {
	defer func() { _ = recover() }()
	if p, ok := peer.FromContext(r.ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}

// Method is that of every gRPC call.
func (r *request) Method() string { return http.MethodPost }

// URL has the method as its path, and the host that the caller named, if any.
func (r *request) URL() *url.URL {
	u := &url.URL{Path: r.method}
	if authority := metadata.ValueFromIncomingContext(r.ctx, ":authority"); len(authority) == 1 {
		u.Host = authority[0]
	}
	return u
}

// TLS is nil on connections whose credentials are not those of [credentials.NewTLS].
func (r *request) TLS() *tls.ConnectionState {
	if p, ok := peer.FromContext(r.ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			return &info.State
		}
	}
	return nil
}

func (r *request) Pattern() string { return r.method }
