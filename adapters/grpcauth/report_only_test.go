package grpcauth_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/grpcauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// dry makes an interceptor with a guard that reports only for the first hour, and
// keeps its decisions.
func dry(t *testing.T, issuer *m2mauthtest.Issuer, rules map[string]m2mauth.Rule) (*grpcauth.Interceptor, *m2mauth.Guard, chan m2mauth.Decision) {
	t.Helper()
	decisions := make(chan m2mauth.Decision, 100)
	guard := newGuard(t, issuer, func(c *m2mauth.Config) {
		c.InsecureReportOnlyUntil = time.Now().Add(time.Hour)
		c.OnDecision = func(_ context.Context, d m2mauth.Decision) { decisions <- d }
	})
	require.NoError(t, guard.Warm(t.Context()))
	return newInterceptor(t, grpcauth.Config{Guard: guard, Rules: rules}), guard, decisions
}

func TestAMethodWithoutARuleIsServedWhileTheGuardReportsOnly(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	synctest.Test(t, func(t *testing.T) {
		auth, guard, decisions := dry(t, issuer, nil)
		var got m2mauth.Claims
		conn := start(t, auth, &service{
			empty: func(ctx context.Context) error { got, _ = m2mauth.FromContext(ctx); return nil },
			duplex: func(s duplexServer) error {
				_, ok := m2mauth.FromContext(s.Context())
				assert.False(t, ok)
				return s.Send(someBytes)
			},
		})
		require.NoError(t, empty(t.Context(), conn))
		assert.True(t, got.IsZero())
		assert.Equal(t, m2mauth.Outcome(m2mauth.ErrNoToken), (<-decisions).Outcome)
		require.NoError(t, empty(with(t.Context(), "Bearer "+issuer.Token(audience)), conn))
		assert.False(t, got.IsZero(), "a token that was verified has claims")
		d := <-decisions
		assert.True(t, d.ReportOnly)
		assert.Equal(t, m2mauth.Outcome(m2mauth.ErrForbidden), d.Outcome)
		stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(t.Context())
		require.NoError(t, err)
		_, err = stream.Recv()
		require.NoError(t, err)
		_, err = stream.Recv()
		require.ErrorIs(t, err, io.EOF)
		assert.EqualValues(t, 3, guard.Stats().WouldRefuse)

		time.Sleep(time.Hour)
		for _, ctx := range []context.Context{t.Context(), with(t.Context(), "Bearer "+issuer.Token(audience))} {
			code, why := reason(t, empty(ctx, conn))
			assert.Equal(t, codes.PermissionDenied, code)
			assert.Equal(t, grpcauth.ReasonNoRule, why)
		}
		assert.EqualValues(t, 3, guard.Stats().WouldRefuse)
	})
}

func TestAStreamOutlivesItsTokenWhileTheGuardReportsOnly(t *testing.T) {
	t.Parallel()
	for name, idle := range map[string]bool{"with messages": false, "idle": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issuer := m2mauthtest.NewIssuer()
			synctest.Test(t, func(t *testing.T) {
				auth, _, _ := dry(t, issuer, map[string]m2mauth.Rule{duplexCall: m2mauth.AnyToken()})
				ended := make(chan error, 1)
				conn := start(t, auth, &service{duplex: func(s duplexServer) error {
					claims, _ := m2mauth.FromContext(s.Context())
					assert.False(t, claims.IsZero())
					_, limited := s.Context().Deadline()
					assert.False(t, limited, "there is none without a guard")
					for {
						if _, err := s.Recv(); err != nil {
							ended <- err
							return err
						}
						if err := s.Send(someBytes); err != nil {
							return err
						}
					}
				}})
				stream := open(t, issuer, conn)
				echo := func() error {
					_ = stream.Send(&testpb.StreamingOutputCallRequest{})
					_, err := stream.Recv()
					return err
				}
				require.NoError(t, echo())
				time.Sleep(time.Hour - time.Second)
				require.NoError(t, echo(), "59 minutes after the token")
				require.Empty(t, ended)
				begin := time.Now()
				if idle {
					_, err := stream.Recv()
					assertExpired(t, err)
					assert.LessOrEqual(t, time.Since(begin), 61*time.Second)
				} else {
					time.Sleep(time.Second)
					assertExpired(t, echo())
					assert.Equal(t, time.Second, time.Since(begin))
				}
				assertExpired(t, <-ended)
			})
		})
	}
}

// A stream of a token that ends after the dry run ends with the token.
func TestAStreamThatBeganInADryRunEndsWithItsToken(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	synctest.Test(t, func(t *testing.T) {
		auth, guard, _ := dry(t, issuer, map[string]m2mauth.Rule{duplexCall: m2mauth.AnyToken()})
		conn := start(t, auth, &service{duplex: func(s duplexServer) error {
			_, err := s.Recv()
			return err
		}})
		time.Sleep(time.Hour - time.Second)
		require.NoError(t, guard.Warm(t.Context()), "else no claims are known")
		stream := open(t, issuer, conn) // for two seconds
		begin := time.Now()
		_, err := stream.Recv()
		assertExpired(t, err)
		assert.Equal(t, 2*time.Second, time.Since(begin))
	})
}
