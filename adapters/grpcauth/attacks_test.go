package grpcauth_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/grpcauth"
	"github.com/m2mauth/m2mauth/internal/test/attacks"
)

// httpStatuses are the statuses of the answers over HTTP, by the code and the
// reason that stand for them: the table of the package comment.
var httpStatuses = map[codes.Code]map[string]int{
	codes.Unauthenticated:   {"INVALID_REQUEST": http.StatusBadRequest, "UNAUTHORIZED": http.StatusUnauthorized, "INVALID_TOKEN": http.StatusUnauthorized},
	codes.PermissionDenied:  {"INSUFFICIENT_SCOPE": http.StatusForbidden},
	codes.ResourceExhausted: {"TEMPORARILY_UNAVAILABLE": http.StatusTooManyRequests},
	codes.Unavailable:       {"TEMPORARILY_UNAVAILABLE": http.StatusServiceUnavailable},
	codes.Internal:          {"SERVER_ERROR": http.StatusInternalServerError},
}

// inexpressible are the attacks that no call can make.
var inexpressible = map[string]string{
	"request-query": "a method has no query",
	"request-form":  "a call's message is none of a form",
}

// unprintable are the attacks with a byte that grpc-go's client does not send as
// metadata. They go to the interceptor itself.
func unprintable(md metadata.MD) bool {
	for _, values := range md {
		for _, value := range values {
			if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
				return true
			}
		}
	}
	return false
}

// servers are those of one run, by guard and rule: making one for each call would
// take most of the time.
type servers struct {
	mu sync.Mutex // guards the field below
	of map[serverKey]*server
}

type serverKey struct {
	guard *m2mauth.Guard
	rule  string
}

type server struct {
	auth   *grpcauth.Interceptor
	conn   *grpc.ClientConn
	claims m2mauth.Claims // that the last handler got
}

func (s *servers) get(t *testing.T, r attacks.Request) *server {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	key := serverKey{r.Guard, r.Rule.String()}
	if found := s.of[key]; found != nil {
		return found
	}
	made := &server{auth: newInterceptor(t, grpcauth.Config{Guard: r.Guard, Rules: map[string]m2mauth.Rule{emptyCall: r.Rule, upload: r.Rule}})}
	made.conn = start(t, made.auth, &service{
		empty: func(ctx context.Context) error { made.claims, _ = m2mauth.FromContext(ctx); return nil },
		upload: func(s testpb.TestService_StreamingInputCallServer) error {
			made.claims, _ = m2mauth.FromContext(s.Context())
			return s.SendAndClose(&testpb.StreamingInputCallResponse{})
		},
	})
	s.of[key] = made
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.of, key)
	})
	return made
}

// entry sends by a call; direct is the interceptor without a server.
func entry(call, direct func(context.Context, *server) error) attacks.Entry {
	all := &servers{of: make(map[serverKey]*server)}
	return attacks.Entry{Skip: inexpressible, Send: func(t *testing.T, r attacks.Request) (answer attacks.Answer) {
		md := metadata.MD{}
		for name, values := range r.HTTP.Header {
			md[strings.ToLower(name)] = values
		}
		s := all.get(t, r)
		s.claims = m2mauth.Claims{}
		var err error
		if unprintable(md) {
			err = direct(metadata.NewIncomingContext(t.Context(), md), s)
		} else {
			err = call(metadata.NewOutgoingContext(t.Context(), md), s)
		}
		answer.Claims = s.claims
		if err == nil {
			return answer
		}
		code, why := reason(t, err)
		answer.Status = httpStatuses[code][why]
		require.NotZero(t, answer.Status, "%s %s", code, err)
		answer.Code, answer.Text = strings.ToLower(why), status.Convert(err).Proto().String()
		return answer
	}}
}

func unary(ctx context.Context, s *server) error { return empty(ctx, s.conn) }

func streamed(ctx context.Context, s *server) error {
	stream, err := testpb.NewTestServiceClient(s.conn).StreamingInputCall(ctx)
	if err != nil {
		return err
	}
	_, err = stream.CloseAndRecv()
	return err
}

func directUnary(ctx context.Context, s *server) error {
	_, err := s.auth.Unary(ctx, &testpb.Empty{}, &grpc.UnaryServerInfo{FullMethod: emptyCall}, func(ctx context.Context, _ any) (any, error) {
		s.claims, _ = m2mauth.FromContext(ctx)
		return nil, nil
	})
	return err
}

func directStream(ctx context.Context, s *server) error {
	return s.auth.Stream(nil, bareStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: upload}, func(_ any, stream grpc.ServerStream) error {
		s.claims, _ = m2mauth.FromContext(stream.Context())
		return nil
	})
}

// bareStream is a stream that has a context and nothing else.
type bareStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s bareStream) Context() context.Context { return s.ctx }

func TestAttacks(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]attacks.Entry{"unary": entry(unary, directUnary), "stream": entry(streamed, directStream)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			attacks.Run(t, e)
		})
	}
}

// TestAttackFamilies makes unary calls alone: a stream refuses as expired what is
// within the guard's leeway, too.
func TestAttackFamilies(t *testing.T) {
	t.Parallel()
	attacks.RunFamilies(t, entry(unary, directUnary))
}
