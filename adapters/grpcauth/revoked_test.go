package grpcauth_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/grpcauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// revoker is a Config.Revoked whose answer a test sets.
type revoker struct {
	answer atomic.Pointer[func(m2mauth.Claims) (bool, error)]
	asked  atomic.Int64
}

func (r *revoker) set(c *m2mauth.Config) {
	c.Revoked = func(_ context.Context, claims m2mauth.Claims) (bool, error) {
		r.asked.Add(1)
		if f := r.answer.Load(); f != nil {
			return (*f)(claims)
		}
		return false, nil
	}
}

func (r *revoker) says(f func(m2mauth.Claims) (bool, error)) { r.answer.Store(&f) }

func revoked(m2mauth.Claims) (bool, error) { return true, nil }

// openWith starts a stream with a token of the issuer's.
func openWith(t *testing.T, conn *grpc.ClientConn, authorization ...string) testpb.TestService_FullDuplexCallClient {
	t.Helper()
	stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(with(t.Context(), authorization...))
	require.NoError(t, err)
	return stream
}

func TestAStreamEndsWhenItsTokenIsRevoked(t *testing.T) {
	t.Parallel()
	for why, says := range map[string]struct {
		answer func(m2mauth.Claims) (bool, error)
		code   codes.Code
		reason string
		cause  error
		retry  bool
	}{
		"revoked":          {revoked, codes.Unauthenticated, "INVALID_TOKEN", m2mauth.ErrRevoked, false},
		"nobody knows":     {func(m2mauth.Claims) (bool, error) { return false, errors.New("secret") }, codes.Unavailable, "TEMPORARILY_UNAVAILABLE", m2mauth.ErrUnavailable, true},
		"who knows panics": {func(m2mauth.Claims) (bool, error) { panic("secret") }, codes.Internal, "SERVER_ERROR", m2mauth.ErrInternal, false},
	} {
		for name, handle := range map[string]func(s duplexServer) error{
			"waiting for a message": func(s duplexServer) error { _, err := s.Recv(); return err },
			"waiting for the context": func(s duplexServer) error {
				<-s.Context().Done()
				return s.Context().Err()
			},
			"late": func(duplexServer) error {
				time.Sleep(time.Hour)
				return nil
			},
			"busy": func(s duplexServer) error {
				for {
					if err := s.Send(someBytes); err != nil {
						return err
					}
					time.Sleep(10 * time.Millisecond)
				}
			},
		} {
			t.Run(why+", "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					issuer, r := m2mauthtest.NewIssuer(), new(revoker)
					auth := newInterceptor(t, grpcauth.Config{
						Guard: newGuard(t, issuer, r.set),
						Rules: map[string]m2mauth.Rule{duplexCall: m2mauth.AnyToken()},
					})
					conn := start(t, auth, &service{duplex: func(s duplexServer) error {
						defer func() {
							<-s.Context().Done()
							assert.ErrorIs(t, context.Cause(s.Context()), says.cause)
							assert.ErrorIs(t, s.Context().Err(), context.Canceled)
							assert.Equal(t, says.code, status.Code(s.Send(someBytes)))
							_, err := s.Recv()
							assert.Equal(t, says.code, status.Code(err))
						}()
						return handle(s)
					}})
					stream := openWith(t, conn, "Bearer "+issuer.Token(audience))
					begin := time.Now()
					time.AfterFunc(10*time.Second+300*time.Millisecond, func() { r.says(says.answer) })
					var err error
					for err == nil {
						_, err = stream.Recv()
					}
					info, retry := detailsOf(t, err)
					assert.Equal(t, says.code, status.Code(err), "%v", err)
					assert.Equal(t, says.reason, info.GetReason())
					assert.Equal(t, says.retry, retry != nil)
					assert.NotContains(t, err.Error(), "secret")
					assert.Equal(t, 11*time.Second, time.Since(begin))
					asked := r.asked.Load()
					assert.LessOrEqual(t, asked, int64(14))
					time.Sleep(2 * time.Hour) // for the handler that is late
					assert.Equal(t, asked, r.asked.Load(), "nobody asks on")
				})
			})
		}
	}
}

func TestNobodyIsAskedAboutAStreamWhoseCallerHasLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer, r := m2mauthtest.NewIssuer(), new(revoker)
		auth := newInterceptor(t, grpcauth.Config{
			Guard: newGuard(t, issuer, r.set),
			Rules: map[string]m2mauth.Rule{duplexCall: m2mauth.AnyToken()},
		})
		conn := start(t, auth, &service{duplex: func(duplexServer) error { time.Sleep(time.Minute); return nil }})
		ctx, leave := context.WithCancel(with(t.Context(), "Bearer "+issuer.Token(audience)))
		_, err := testpb.NewTestServiceClient(conn).FullDuplexCall(ctx)
		require.NoError(t, err)
		time.Sleep(10*time.Second + 500*time.Millisecond)
		asked := r.asked.Load()
		assert.EqualValues(t, 12, asked, "at the start, for the first look, and ten times")
		leave()
		time.Sleep(time.Hour)
		assert.Equal(t, asked, r.asked.Load())
	})
}

func TestAStreamDoesNotBeginWithARevokedToken(t *testing.T) {
	t.Parallel()
	issuer, r := m2mauthtest.NewIssuer(), new(revoker)
	auth := newInterceptor(t, grpcauth.Config{
		Guard: newGuard(t, issuer, r.set),
		Rules: map[string]m2mauth.Rule{duplexCall: m2mauth.Optional(m2mauth.AnyToken()), emptyCall: m2mauth.AnyToken()},
	})
	conn := start(t, auth, &service{}) // a stream's handler would panic
	token := "Bearer " + issuer.Token(audience)
	require.NoError(t, empty(with(t.Context(), token), conn))
	for n := range int64(2) { // between the check and the first look, too
		before := r.asked.Load()
		r.says(func(m2mauth.Claims) (bool, error) { return r.asked.Load()-before > n, nil })
		_, err := openWith(t, conn, token).Recv()
		code, why := reason(t, err)
		assert.Equal(t, codes.Unauthenticated, code)
		assert.Equal(t, "INVALID_TOKEN", why)
	}
	r.says(revoked)
	require.Equal(t, codes.Unauthenticated, status.Code(empty(with(t.Context(), token), conn)))
}

// The stream's own leeway may be longer than the guard's.
func TestAStreamThatOutlivesItsTokenEndsWhenThatIsRevoked(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]time.Duration{10 * time.Second: 11 * time.Second, 50*time.Second + 1: 51 * time.Second, time.Hour: 62 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			issuer, r := m2mauthtest.NewIssuer(), new(revoker)
			auth := newInterceptor(t, grpcauth.Config{
				Guard:  newGuard(t, issuer, r.set),
				Rules:  map[string]m2mauth.Rule{duplexCall: m2mauth.AnyToken()},
				Leeway: time.Minute,
			})
			conn := start(t, auth, &service{duplex: func(s duplexServer) error { _, err := s.Recv(); return err }})
			begin := time.Now()
			time.AfterFunc(after, func() { r.says(revoked) })
			_, err := open(t, issuer, conn).Recv()
			code, why := reason(t, err)
			assert.Equal(t, codes.Unauthenticated, code)
			assert.Equal(t, "INVALID_TOKEN", why)
			assert.Equal(t, after < time.Hour, status.Convert(err).Message() == "the token has been revoked")
			assert.LessOrEqual(t, time.Since(begin), want)
			assert.Greater(t, time.Since(begin), want-2*time.Second)
			time.Sleep(time.Hour)
		})
	}
}

// Not parallel: it counts the goroutines of the process.
func TestAThousandStreamsEndWithinTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams = 1000
		issuer, r := m2mauthtest.NewIssuer(), new(revoker)
		auth := newInterceptor(t, grpcauth.Config{
			Guard:  newGuard(t, issuer, r.set),
			Rules:  map[string]m2mauth.Rule{duplexCall: m2mauth.AnyToken()},
			Public: []string{upload, emptyCall},
		})
		conn := start(t, auth, &service{
			duplex: func(s duplexServer) error { _, err := s.Recv(); return err },
			upload: func(s testpb.TestService_StreamingInputCallServer) error { _, err := s.Recv(); return err },
		})
		client := testpb.NewTestServiceClient(conn)
		require.NoError(t, empty(t.Context(), conn)) // the connection's own goroutines
		added := func(open func(n int)) int {
			synctest.Wait()
			before := runtime.NumGoroutine()
			for n := range streams {
				open(n)
			}
			time.Sleep(10 * time.Second) // so that every timer has fired
			synctest.Wait()
			return runtime.NumGoroutine() - before
		}
		ctx, cancel := context.WithCancel(t.Context())
		public := added(func(int) {
			_, err := client.StreamingInputCall(ctx)
			require.NoError(t, err)
		})
		apps := [2]string{
			"Bearer " + issuer.Sign(m2mauthtest.Token{AppID: "leaked", Audience: audience}),
			"Bearer " + issuer.Sign(m2mauthtest.Token{AppID: "other", Audience: audience}),
		}
		all := make([]testpb.TestService_FullDuplexCallClient, streams)
		guarded := added(func(n int) {
			var err error
			all[n], err = client.FullDuplexCall(with(ctx, apps[n%2]))
			require.NoError(t, err)
			time.Sleep(time.Millisecond)
		})
		assert.InDelta(t, public, guarded, streams/10, "no goroutine while idle")

		at := time.Now()
		r.says(func(claims m2mauth.Claims) (bool, error) { return claims.ClientID() == "leaked", nil })
		var ended sync.WaitGroup
		for _, stream := range all[:streams] {
			ended.Go(func() {
				_, err := stream.Recv()
				if time.Since(at) > 2*time.Second { // canceled below
					assert.Equal(t, codes.Canceled, status.Code(err))
					return
				}
				assert.Equal(t, codes.Unauthenticated, status.Code(err))
				assert.LessOrEqual(t, time.Since(at), time.Second)
			})
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		for n, stream := range all {
			if n%2 == 1 {
				require.NoError(t, stream.Context().Err(), "the other app's goes on")
			}
		}
		cancel()
		ended.Wait()
		synctest.Wait()
	})
}

// Not parallel: it counts allocations of the process.
func TestAStreamLooksAgainOnlyWhereThereIsSomethingToSee(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	allocations := func(change func(*m2mauth.Config)) float64 {
		auth := newInterceptor(t, grpcauth.Config{Guard: newGuard(t, issuer, change), Rules: map[string]m2mauth.Rule{duplexCall: m2mauth.AnyToken()}})
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+issuer.Token(audience)))
		info := &grpc.StreamServerInfo{FullMethod: duplexCall}
		return testing.AllocsPerRun(100, func() {
			if err := auth.Stream(nil, bareStream{ctx: ctx}, info, func(any, grpc.ServerStream) error { return nil }); err != nil {
				panic(err)
			}
		})
	}
	runtime.GC()
	none, some := allocations(nil), allocations(new(revoker).set)
	assert.Less(t, none, some, "a timer")
	t.Logf("%.0f and %.0f allocations", none, some)
}

// What a dry run let through is decided again at its end, as a new stream is.
func TestAStreamThatBeganInADryRunIsDecidedAtItsEnd(t *testing.T) {
	t.Parallel()
	signed := func(token m2mauthtest.Token) func(*m2mauthtest.Issuer) []string {
		token.Audience = audience
		return func(i *m2mauthtest.Issuer) []string { return []string{"Bearer " + i.Sign(token)} }
	}
	nothing := func(*m2mauthtest.Issuer) []string { return nil }
	rubbish := func(*m2mauthtest.Issuer) []string { return []string{"Bearer rubbish"} }
	reader := signed(m2mauthtest.Token{AppID: "app", Scopes: []string{"read"}, Lifetime: 2 * time.Hour})
	read := m2mauth.AllScopes("read")
	hour := time.Hour
	for name, test := range map[string]struct {
		rule   m2mauth.Rule
		token  func(*m2mauthtest.Issuer) []string
		code   codes.Code
		reason string
		cause  error
		after  time.Duration // until it ends
	}{
		"no token":              {read, nothing, codes.Unauthenticated, "UNAUTHORIZED", m2mauth.ErrNoToken, hour},
		"rubbish":               {read, rubbish, codes.Unauthenticated, "INVALID_TOKEN", m2mauth.ErrMalformed, hour},
		"rubbish, and optional": {m2mauth.Optional(read), rubbish, codes.Unauthenticated, "INVALID_TOKEN", m2mauth.ErrMalformed, hour},
		"without the scope":     {read, signed(m2mauthtest.Token{Lifetime: 2 * hour}), codes.PermissionDenied, "INSUFFICIENT_SCOPE", m2mauth.ErrScope, hour},
		"a method without rule": {m2mauth.Rule{}, reader, codes.PermissionDenied, grpcauth.ReasonNoRule, m2mauth.ErrForbidden, hour},
		"an expired token":      {read, signed(m2mauthtest.Token{Scopes: []string{"read"}, Lifetime: time.Minute}), codes.Unauthenticated, "INVALID_TOKEN", m2mauth.ErrExpired, hour},
		"a token in the guard's leeway": {read, signed(m2mauthtest.Token{Scopes: []string{"read"}, Lifetime: hour - 10*time.Second}), codes.Unauthenticated, "INVALID_TOKEN",
			m2mauth.ErrExpired, hour},
		"a good token": {read, reader, codes.Unauthenticated, "INVALID_TOKEN", m2mauth.ErrExpired, 2 * hour},
		"a revoked token": {read, signed(m2mauthtest.Token{AppID: "leaked", Scopes: []string{"read"}, Lifetime: 2 * hour}), codes.Unauthenticated, "INVALID_TOKEN",
			m2mauth.ErrRevoked, hour},
		"no token, and optional": {m2mauth.Optional(read), nothing, codes.OK, "", nil, 24 * hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				issuer, r := m2mauthtest.NewIssuer(), new(revoker)
				r.says(func(claims m2mauth.Claims) (bool, error) { return claims.ClientID() == "leaked", nil })
				guard := newGuard(t, issuer, func(c *m2mauth.Config) {
					r.set(c)
					c.InsecureReportOnlyUntil = time.Now().Add(hour)
				})
				require.NoError(t, guard.Warm(t.Context()))
				rules := map[string]m2mauth.Rule{duplexCall: test.rule}
				if test.reason == grpcauth.ReasonNoRule {
					rules = nil
				}
				conn := start(t, newInterceptor(t, grpcauth.Config{Guard: guard, Rules: rules}), &service{duplex: func(s duplexServer) error {
					select {
					case <-s.Context().Done():
						assert.ErrorIs(t, context.Cause(s.Context()), test.cause)
						assert.Equal(t, test.code, status.Code(s.Send(someBytes)))
						return s.Context().Err()
					case <-time.After(24 * hour):
						return nil
					}
				}})
				authorization := test.token(issuer)
				time.AfterFunc(hour-time.Second, func() { assert.NoError(t, guard.Warm(t.Context())) })
				begin := time.Now()
				// A deadline of the caller's must not pass for that of the token.
				ctx, cancel := context.WithTimeout(with(t.Context(), authorization...), 48*hour)
				defer cancel()
				stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(ctx)
				require.NoError(t, err)
				_, err = stream.Recv()
				assert.InDelta(t, test.after.Seconds(), time.Since(begin).Seconds(), 2)
				assert.GreaterOrEqual(t, time.Since(begin), test.after)
				if test.code == codes.OK {
					require.ErrorIs(t, err, io.EOF)
					return
				}
				code, why := reason(t, err)
				assert.Equal(t, test.code, code, "%v", err)
				assert.Equal(t, test.reason, why)
			})
		})
	}
}

// A function of the user's that panics when a timer asks it must not end the process past
// all interceptors that recover.
func TestAPanicAtTheEndOfADryRunReachesTheInterceptorsThatRecover(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		panics := m2mauth.Custom("panics", func(context.Context, m2mauth.Claims, m2mauth.Request) error {
			if time.Now().Minute() > 0 {
				panic("a mistake")
			}
			return nil
		})
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		guard := newGuard(t, issuer, func(c *m2mauth.Config) { c.InsecureReportOnlyUntil = time.Now().Add(5 * time.Minute) })
		require.NoError(t, guard.Warm(t.Context()))
		auth := newInterceptor(t, grpcauth.Config{Guard: guard, Rules: map[string]m2mauth.Rule{duplexCall: panics}})
		recovered := make(chan any, 1)
		conn := start(t, auth, &service{duplex: func(s duplexServer) error { <-s.Context().Done(); return nil }},
			grpc.StreamInterceptor(func(server any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
				defer func() {
					recovered <- recover()
					err = status.Error(codes.Internal, "recovered") // the client reads this, or what ended the stream
				}()
				return handler(server, ss)
			}))
		_, err := openWith(t, conn, "Bearer "+issuer.Token(audience)).Recv()
		assert.Equal(t, codes.Internal, status.Code(err), "%v", err)
		assert.NotContains(t, err.Error(), "mistake")
		assert.Equal(t, "a mistake", <-recovered)
	})
}
