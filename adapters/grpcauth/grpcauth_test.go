package grpcauth_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/grpcauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestAnswers(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	sign := func(token m2mauthtest.Token) []string {
		if token.Audience == "" {
			token.Audience = audience
		}
		return []string{"Bearer " + issuer.Sign(token)}
	}
	good := sign(m2mauthtest.Token{Scopes: []string{"read:products"}})
	secret := "the password of the database"
	customRule := func(err error) m2mauth.Rule {
		return m2mauth.Custom("stock", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return err })
	}
	down := m2mauthtest.NewIssuer()
	down.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, secret, http.StatusBadGateway) })
	})
	header := func(name string, value any) []string {
		return sign(m2mauthtest.Token{Header: map[string]any{name: value}})
	}
	claim := func(name string, value any) []string {
		return sign(m2mauthtest.Token{Claims: map[string]any{name: value}})
	}

	for name, row := range map[string]struct {
		issuer        *m2mauthtest.Issuer // default: issuer
		rule          m2mauth.Rule        // default: AnyToken
		authorization []string
		revoked       string // or the error of Config.Revoked
		kind          error
		code          codes.Code
		reason        string
		scope         string
		retry         bool
		text          string
	}{
		"a good token passes":          {authorization: good, rule: m2mauth.AllScopes("read:products"), code: codes.OK},
		"no credentials":               {kind: m2mauth.ErrNoToken, code: codes.Unauthenticated, reason: "UNAUTHORIZED"},
		"another scheme":               {authorization: []string{"Basic Zm9vOmJhcg=="}, kind: m2mauth.ErrNoToken, code: codes.Unauthenticated, reason: "UNAUTHORIZED"},
		"two entries":                  {authorization: []string{good[0], good[0]}, kind: m2mauth.ErrRequest, code: codes.Unauthenticated, reason: "INVALID_REQUEST"},
		"a good entry and another one": {authorization: []string{"Basic Zm9vOmJhcg==", good[0]}, kind: m2mauth.ErrRequest, code: codes.Unauthenticated, reason: "INVALID_REQUEST"},
		"Bearer without a token":       {authorization: []string{"Bearer"}, kind: m2mauth.ErrRequest, code: codes.Unauthenticated, reason: "INVALID_REQUEST"},
		"a token over 8 KiB":           {authorization: []string{"Bearer " + strings.Repeat("a", 8<<10+1)}, kind: m2mauth.ErrRequest, code: codes.Unauthenticated, reason: "INVALID_REQUEST"},
		"no JWS":                       {authorization: []string{"Bearer abc"}, kind: m2mauth.ErrMalformed, code: codes.Unauthenticated, reason: "INVALID_TOKEN"},
		"alg none":                     {authorization: sign(m2mauthtest.Token{Algorithm: "none"}), kind: m2mauth.ErrAlgorithm, code: codes.Unauthenticated, reason: "INVALID_TOKEN"},
		"an ID token":                  {authorization: header("typ", "JWT"), kind: m2mauth.ErrType, code: codes.Unauthenticated, reason: "INVALID_TOKEN"},
		"another issuer":               {authorization: claim("iss", "https://other.test"), kind: m2mauth.ErrIssuer, code: codes.Unauthenticated, reason: "INVALID_TOKEN"},
		"another audience":             {authorization: sign(m2mauthtest.Token{Audience: "https://other.api"}), kind: m2mauth.ErrAudience, code: codes.Unauthenticated, reason: "INVALID_TOKEN"},
		"an expired token":             {authorization: sign(m2mauthtest.Token{Expired: true}), kind: m2mauth.ErrExpired, code: codes.Unauthenticated, reason: "INVALID_TOKEN"},
		"a token of tomorrow":          {authorization: claim("nbf", time.Now().Add(24*time.Hour).Unix()), kind: m2mauth.ErrNotYetValid, code: codes.Unauthenticated, reason: "INVALID_TOKEN"},
		"a token without sub":          {authorization: claim("sub", nil), kind: m2mauth.ErrClaims, code: codes.Unauthenticated, reason: "INVALID_TOKEN"},
		"an unknown key":               {authorization: header("kid", "made up"), kind: m2mauth.ErrUnknownKey, code: codes.Unauthenticated, reason: "INVALID_TOKEN"},
		"a wrong signature":            {authorization: []string{good[0][:len(good[0])-8] + "AAAAAAAA"}, kind: m2mauth.ErrSignature, code: codes.Unauthenticated, reason: "INVALID_TOKEN"},
		"a scope too few": {authorization: good, rule: m2mauth.AllScopes("read:products", "write:products"), kind: m2mauth.ErrScope,
			code: codes.PermissionDenied, reason: "INSUFFICIENT_SCOPE", scope: "read:products write:products"},
		"another client":    {authorization: good, rule: m2mauth.ClientID("another"), kind: m2mauth.ErrForbidden, code: codes.PermissionDenied, reason: "INSUFFICIENT_SCOPE"},
		"a custom refusal":  {authorization: good, rule: customRule(m2mauth.Deny("sold out")), kind: m2mauth.ErrForbidden, code: codes.PermissionDenied, reason: "INSUFFICIENT_SCOPE", text: "sold out"},
		"no keys to be had": {issuer: down, authorization: []string{"Bearer " + down.Token(audience)}, kind: m2mauth.ErrUnavailable, code: codes.Unavailable, reason: "TEMPORARILY_UNAVAILABLE", retry: true},
		"a revoked token":   {revoked: "yes", authorization: good, kind: m2mauth.ErrRevoked, code: codes.Unauthenticated, reason: "INVALID_TOKEN"},
		"nobody knows whether it is revoked": {revoked: secret, authorization: good, kind: m2mauth.ErrUnavailable, code: codes.Unavailable,
			reason: "TEMPORARILY_UNAVAILABLE", retry: true},
		"a failed rule": {authorization: good, rule: customRule(errors.New(secret)), kind: m2mauth.ErrInternal, code: codes.Internal, reason: "SERVER_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if row.issuer == nil {
				row.issuer = issuer
			}
			if row.rule.String() == (m2mauth.Rule{}).String() {
				row.rule = m2mauth.AnyToken()
			}
			var refusals atomic.Pointer[m2mauth.Error]
			guard := newGuard(t, row.issuer, func(c *m2mauth.Config) {
				c.OnDecision = func(_ context.Context, d m2mauth.Decision) { refusals.Store(d.Err) }
				c.Revoked = func(context.Context, m2mauth.Claims) (bool, error) {
					if row.revoked == "" || row.revoked == "yes" {
						return row.revoked == "yes", nil
					}
					return true, errors.New(row.revoked)
				}
			})
			reached := false
			conn := start(t, newInterceptor(t, grpcauth.Config{
				Guard: guard,
				Rules: map[string]m2mauth.Rule{emptyCall: row.rule, upload: row.rule},
			}), &service{
				empty:  func(context.Context) error { reached = true; return nil },
				upload: func(s testpb.TestService_StreamingInputCallServer) error { reached = true; return s.SendAndClose(nil) },
			})

			for kind, call := range map[string]func(context.Context) error{
				"unary": func(ctx context.Context) error { return empty(ctx, conn) },
				"stream": func(ctx context.Context) error {
					stream, err := testpb.NewTestServiceClient(conn).StreamingInputCall(ctx)
					require.NoError(t, err)
					_, err = stream.CloseAndRecv()
					return err
				},
			} {
				reached = false
				err := call(with(t.Context(), row.authorization...))
				require.Equal(t, row.code, status.Code(err), "%s: %v", kind, err)
				assert.Equal(t, row.kind == nil, reached, kind)
				if row.kind == nil {
					continue
				}
				require.ErrorIs(t, refusals.Load(), row.kind, kind)
				info, retry := detailsOf(t, err)
				assert.Equal(t, row.reason, info.GetReason(), kind)
				assert.Equal(t, row.scope, info.GetMetadata()["scope"], kind)
				assert.Equal(t, row.retry, retry.GetRetryDelay().AsDuration() > 0, kind)
				assert.NotEmpty(t, status.Convert(err).Message(), kind)
				if row.text != "" {
					assert.Equal(t, row.text, status.Convert(err).Message(), kind)
				}
				whole := status.Convert(err).Proto().String()
				assert.NotContains(t, whole, secret, kind)
				if len(row.authorization) > 0 && len(row.authorization[0]) > 20 {
					assert.NotContains(t, whole, row.authorization[0][len("Bearer "):], kind)
				}
			}
		})
	}
}

func TestAMethodWithoutRuleLetsNobodyThrough(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	var decisions atomic.Int64
	auth := newInterceptor(t, grpcauth.Config{
		Guard: newGuard(t, issuer, func(c *m2mauth.Config) {
			c.OnDecision = func(context.Context, m2mauth.Decision) { decisions.Add(1) }
		}),
		Rules: map[string]m2mauth.Rule{unaryCall: m2mauth.AnyToken()},
	})
	// Handlers that are nil would panic.
	conn := start(t, auth, &service{}, grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		t.Error("the handler of unknown services ran")
		return nil
	}))
	for _, method := range []string{
		emptyCall,
		download,
		duplexCall,
		"/grpc.testing.TestService/NoSuchMethod",
		"/grpc.testing.testservice/UnaryCall",
		"//grpc.testing.TestService/UnaryCall",
		"/other.Service/UnaryCall",
	} {
		for _, authorization := range [][]string{nil, {"Bearer " + issuer.Token(audience)}} {
			err := conn.Invoke(with(t.Context(), authorization...), method, &testpb.Empty{}, &testpb.Empty{})
			code, reason := reason(t, err)
			assert.Equal(t, codes.PermissionDenied, code, "%s: %v", method, err)
			assert.Equal(t, grpcauth.ReasonNoRule, reason, method)
		}
	}
	assert.Zero(t, decisions.Load(), "nothing of the token is looked at")
}

func TestPublicMethodsLookAtNoToken(t *testing.T) {
	t.Parallel()
	auth := newInterceptor(t, grpcauth.Config{
		Guard:  newGuard(t, m2mauthtest.NewIssuer(), nil),
		Public: []string{emptyCall, duplexCall},
	})
	noClaims := func(ctx context.Context) {
		_, ok := m2mauth.FromContext(ctx)
		assert.False(t, ok)
	}
	conn := start(t, auth, &service{
		empty: func(ctx context.Context) error { noClaims(ctx); return nil },
		duplex: func(s testpb.TestService_FullDuplexCallServer) error {
			noClaims(s.Context())
			return s.Send(&testpb.StreamingOutputCallResponse{})
		},
	})
	ctx := with(t.Context(), "Bearer rubbish", "Bearer rubbish")
	require.NoError(t, empty(ctx, conn))
	stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(ctx)
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
}

func TestHandlersFindTheClaims(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	for name, row := range map[string]struct {
		rule          m2mauth.Rule
		authorization []string
		app           string
	}{
		"of a token":                         {m2mauth.AnyToken(), []string{"bearer " + issuer.Sign(m2mauthtest.Token{Audience: audience, AppID: "cron"})}, "cron"},
		"of a token that need not have come": {m2mauth.Optional(m2mauth.AnyToken()), []string{"Bearer " + issuer.Sign(m2mauthtest.Token{Audience: audience, AppID: "cron"})}, "cron"},
		"none where no token came":           {m2mauth.Optional(m2mauth.AnyToken()), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			auth := newInterceptor(t, grpcauth.Config{
				Guard: newGuard(t, issuer, nil),
				Rules: map[string]m2mauth.Rule{emptyCall: row.rule, duplexCall: row.rule},
			})
			sees := func(ctx context.Context) error {
				claims, ok := m2mauth.FromContext(ctx)
				if assert.Equal(t, row.app != "", ok) && ok {
					assert.Equal(t, row.app, claims.AppID())
				}
				return nil
			}
			conn := start(t, auth, &service{empty: sees, duplex: func(s testpb.TestService_FullDuplexCallServer) error { return sees(s.Context()) }})
			ctx := with(t.Context(), row.authorization...)
			require.NoError(t, empty(ctx, conn))
			stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(ctx)
			require.NoError(t, err)
			_, err = stream.Recv()
			require.EqualError(t, err, "EOF")
		})
	}
}

func TestRulesSeeValuesOfTheMessage(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	auth := newInterceptor(t, grpcauth.Config{
		Guard: newGuard(t, issuer, nil),
		Rules: map[string]m2mauth.Rule{unaryCall: m2mauth.OrganizationPath("org"), duplexCall: m2mauth.OrganizationPath("org")},
		Values: func(method string, message any, name string) string {
			assert.Equal(t, unaryCall, method)
			assert.Equal(t, "org", name)
			return string(message.(*testpb.SimpleRequest).GetPayload().GetBody())
		},
	})
	conn := start(t, auth, &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		return &testpb.SimpleResponse{}, nil
	}})
	client := testpb.NewTestServiceClient(conn)
	ctx := with(t.Context(), "Bearer "+issuer.Sign(m2mauthtest.Token{Audience: audience, OrganizationID: "acme"}))
	for org, want := range map[string]codes.Code{"acme": codes.OK, "other": codes.PermissionDenied, "": codes.PermissionDenied} {
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: []byte(org)}})
		assert.Equal(t, want, status.Code(err), "%q: %v", org, err)
	}

	stream, err := client.FullDuplexCall(ctx)
	require.NoError(t, err)
	_, err = stream.Recv()
	assert.Equal(t, codes.PermissionDenied, status.Code(err), "the message of a stream comes after the decision")
}

func TestACallerWhoDoesNotWaitGetsItsOwnCode(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		end  error
		want codes.Code
	}{
		"canceled": {context.Canceled, codes.Canceled},
		"too late": {context.DeadlineExceeded, codes.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issuer := m2mauthtest.NewIssuer()
			asked := make(chan struct{})
			once := sync.OnceFunc(func() { close(asked) })
			issuer.Intercept(func(http.Handler) http.Handler {
				return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					once()
					<-r.Context().Done()
				})
			})
			auth := newInterceptor(t, grpcauth.Config{
				Guard: newGuard(t, issuer, nil),
				Rules: map[string]m2mauth.Rule{emptyCall: m2mauth.AnyToken()},
			})
			ctx := &endingContext{
				Context: metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+issuer.Token(audience))),
				done:    asked,
				err:     row.end,
			}
			_, err := auth.Unary(ctx, &testpb.Empty{}, &grpc.UnaryServerInfo{FullMethod: emptyCall}, func(context.Context, any) (any, error) {
				t.Error("the handler ran")
				return nil, nil
			})
			assert.Equal(t, row.want, status.Code(err), "%v", err)
			// A bad token stays one, whoever waits.
			ctx.Context = metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer rubbish"))
			_, err = auth.Unary(ctx, &testpb.Empty{}, &grpc.UnaryServerInfo{FullMethod: emptyCall}, nil)
			assert.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
		})
	}
}

// endingContext ends with err when done is closed.
type endingContext struct {
	context.Context
	done chan struct{}
	err  error
}

func (c *endingContext) Done() <-chan struct{} { return c.done }
func (c *endingContext) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

func TestNewNamesEveryMistake(t *testing.T) {
	t.Parallel()
	_, err := grpcauth.New(grpcauth.Config{
		Guard: newGuard(t, m2mauthtest.NewIssuer(), nil),
		Rules: map[string]m2mauth.Rule{
			emptyCall:                    m2mauth.AnyToken(),
			unaryCall:                    {},
			"grpc.testing.TestService/A": m2mauth.AnyToken(),
			"/grpc.testing.TestService":  m2mauth.AnyToken(),
			"/grpc.testing.TestService/": m2mauth.AnyToken(),
			"//UnaryCall":                m2mauth.AnyToken(),
			"":                           m2mauth.AnyToken(),
		},
		Public: []string{emptyCall, "/grpc.health.v1.Health/*"},
		Leeway: -1,
	})
	require.EqualError(t, err, `grpcauth: Leeway is negative (-1ns)
grpcauth: Public: "/grpc.health.v1.Health/*" is not a method in full: /package.Service/Method
grpcauth: Rules: "" is not a method in full: /package.Service/Method
grpcauth: Rules: "//UnaryCall" is not a method in full: /package.Service/Method
grpcauth: Rules: "/grpc.testing.TestService" is not a method in full: /package.Service/Method
grpcauth: Rules: "/grpc.testing.TestService/" is not a method in full: /package.Service/Method
grpcauth: /grpc.testing.TestService/EmptyCall has a rule and is public; it can be one of them
grpcauth: Rules: /grpc.testing.TestService/UnaryCall: m2mauth: the zero Rule lets nobody through; make one with AllScopes, AnyScope or AnyToken
grpcauth: Rules: "grpc.testing.TestService/A" is not a method in full: /package.Service/Method`)

	_, err = grpcauth.New(grpcauth.Config{Rules: map[string]m2mauth.Rule{emptyCall: m2mauth.AnyToken()}})
	require.EqualError(t, err, "grpcauth: Guard is nil; was the error of m2mauth.New ignored?")
	_, err = grpcauth.New(grpcauth.Config{Guard: new(m2mauth.Guard), Rules: map[string]m2mauth.Rule{emptyCall: m2mauth.AnyToken()}})
	require.ErrorContains(t, err, "was not made by New")
}

func TestTheConfigCanBeChangedAfterwards(t *testing.T) {
	t.Parallel()
	config := grpcauth.Config{
		Guard: newGuard(t, m2mauthtest.NewIssuer(), nil),
		Rules: map[string]m2mauth.Rule{emptyCall: m2mauth.AnyToken()},
	}
	auth := newInterceptor(t, config)
	config.Rules[emptyCall] = m2mauth.Optional(m2mauth.AnyToken())
	code, _ := reason(t, empty(t.Context(), start(t, auth, &service{})))
	assert.Equal(t, codes.Unauthenticated, code)
}

func TestValidateNamesEveryMistake(t *testing.T) {
	t.Parallel()
	rules := map[string]m2mauth.Rule{
		unaryCall: m2mauth.AnyToken(),
		testpb.TestService_CacheableUnaryCall_FullMethodName: m2mauth.AnyToken(),
		download: m2mauth.AnyToken(),
		upload:   m2mauth.AnyToken(),
		testpb.TestService_HalfDuplexCall_FullMethodName:    m2mauth.AnyToken(),
		testpb.TestService_UnimplementedCall_FullMethodName: m2mauth.AnyToken(),
	}
	public := []string{healthpb.Health_Check_FullMethodName, healthpb.Health_List_FullMethodName}
	guard := newGuard(t, m2mauthtest.NewIssuer(), nil)
	server := grpc.NewServer()
	testpb.RegisterTestServiceServer(server, &service{})
	healthpb.RegisterHealthServer(server, health.NewServer())

	rules["/grpc.testing.TestService/EmptyCal"] = m2mauth.AnyToken()
	rules["/grpc.testing.Testservice/FullDuplexCall"] = m2mauth.AnyToken()
	auth := newInterceptor(t, grpcauth.Config{Guard: guard, Rules: rules, Public: append(public, "/grpc.health.v1.Health/watch")})
	require.EqualError(t, auth.Validate(server), `grpcauth: /grpc.health.v1.Health/Watch has no rule and is not public: every call of it is refused
grpcauth: /grpc.testing.TestService/EmptyCall has no rule and is not public: every call of it is refused
grpcauth: /grpc.testing.TestService/FullDuplexCall has no rule and is not public: every call of it is refused
grpcauth: Rules: the server has no method /grpc.testing.TestService/EmptyCal
grpcauth: Rules: the server has no method /grpc.testing.Testservice/FullDuplexCall
grpcauth: Public: the server has no method /grpc.health.v1.Health/watch`)

	delete(rules, "/grpc.testing.TestService/EmptyCal")
	delete(rules, "/grpc.testing.Testservice/FullDuplexCall")
	rules[emptyCall], rules[duplexCall] = m2mauth.AnyToken(), m2mauth.AnyToken()
	auth = newInterceptor(t, grpcauth.Config{Guard: guard, Rules: rules, Public: append(public, healthpb.Health_Watch_FullMethodName)})
	require.NoError(t, auth.Validate(server))
}

// Servers register the reflection service in two versions, of which clients ask for
// either.
func TestReflectionIsPublicOnceBothItsVersionsAreNamed(t *testing.T) {
	t.Parallel()
	const (
		v1      = reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName
		v1alpha = reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName
	)
	guard := newGuard(t, m2mauthtest.NewIssuer(), nil)
	for name, row := range map[string]struct {
		public  []string
		mistake string
		codes   map[string]codes.Code
	}{
		"none is named": {nil, `grpcauth: ` + v1 + ` has no rule and is not public: every call of it is refused
grpcauth: ` + v1alpha + ` has no rule and is not public: every call of it is refused`,
			map[string]codes.Code{v1: codes.PermissionDenied, v1alpha: codes.PermissionDenied}},
		"one is named": {[]string{v1}, `grpcauth: ` + v1alpha + ` has no rule and is not public: every call of it is refused`,
			map[string]codes.Code{v1: codes.OK, v1alpha: codes.PermissionDenied}},
		"both are named": {[]string{v1, v1alpha}, "", map[string]codes.Code{v1: codes.OK, v1alpha: codes.OK}},
	} {
		auth := newInterceptor(t, grpcauth.Config{Guard: guard, Public: row.public})
		server := grpc.NewServer(auth.ServerOptions()...)
		reflection.Register(server)
		if err := auth.Validate(server); row.mistake == "" {
			assert.NoError(t, err, name)
		} else {
			assert.EqualError(t, err, row.mistake, name)
		}
		conn := serve(t, bufconn.Listen(1<<16), server)
		for method, code := range row.codes {
			assert.Equal(t, code, status.Code(reflect(t, conn, method)), "%s: %s", name, method)
		}
	}
	server := grpc.NewServer()
	reflection.RegisterV1(server)
	auth := newInterceptor(t, grpcauth.Config{Guard: guard, Public: []string{v1, v1alpha}})
	assert.EqualError(t, auth.Validate(server), `grpcauth: Public: the server has no method `+v1alpha)
}

// reflect asks for the services without a token. The messages of both versions are alike.
func reflect(t *testing.T, conn *grpc.ClientConn, method string) error {
	t.Helper()
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	require.NoError(t, err)
	ask := &reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}
	_ = stream.SendMsg(ask) // of a stream that was refused RecvMsg tells
	var answer reflectionv1.ServerReflectionResponse
	if err := stream.RecvMsg(&answer); err != nil {
		return err
	}
	assert.Len(t, answer.GetListServicesResponse().GetService(), 2, method)
	return stream.CloseSend()
}

// Each call has an app of its own, so that claims which got mixed up would show.
func TestManyCallsAtOnceKeepTheirClaimsApart(t *testing.T) {
	t.Parallel()
	const calls, apps = 10_000, 50
	issuer := m2mauthtest.NewIssuer()
	auth := newInterceptor(t, grpcauth.Config{
		Guard: newGuard(t, issuer, nil),
		Rules: map[string]m2mauth.Rule{unaryCall: m2mauth.AllScopes("read:products")},
	})
	// With less room than all calls need, the two ends of the one connection
	// would wait for each other.
	conn := startOn(t, bufconn.Listen(16<<20), auth, &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		claims, _ := m2mauth.FromContext(ctx)
		return &testpb.SimpleResponse{Username: claims.AppID()}, nil
	}})
	client := testpb.NewTestServiceClient(conn)
	issuer.Rotate("RS256") // quick to verify
	tokens := make([]string, apps)
	for n := range tokens {
		tokens[n] = "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: audience, AppID: appName(n), Scopes: []string{"read:products"}})
	}
	poor := "Bearer " + issuer.Token(audience, "write:products")
	for _, token := range append(tokens, poor) { // where all are new at once, some must wait too long on a slow machine
		_, _ = client.UnaryCall(with(t.Context(), token), &testpb.SimpleRequest{})
	}

	var wg sync.WaitGroup
	var passed, refused atomic.Int64
	for n := range calls {
		wg.Go(func() {
			if n%10 == 0 {
				_, err := client.UnaryCall(with(t.Context(), poor), &testpb.SimpleRequest{})
				if assert.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err) {
					refused.Add(1)
				}
				return
			}
			answer, err := client.UnaryCall(with(t.Context(), tokens[n%apps]), &testpb.SimpleRequest{})
			if assert.NoError(t, err) && assert.True(t, proto.Equal(&testpb.SimpleResponse{Username: appName(n % apps)}, answer)) {
				passed.Add(1)
			}
		})
	}
	wg.Wait()
	assert.EqualValues(t, calls/10, refused.Load())
	assert.EqualValues(t, calls-calls/10, passed.Load())
	assert.EqualValues(t, 1, issuer.Fetches().JWKS)
}

func appName(n int) string { return "app" + string(rune('A'+n)) }
