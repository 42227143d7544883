package grpcauth_test

import (
	"context"
	"io"
	"net/http"
	"runtime"
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
	"google.golang.org/grpc/test/bufconn"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/grpcauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

type duplexServer = testpb.TestService_FullDuplexCallServer

// open starts a stream whose token lives for 2 s.
func open(t *testing.T, issuer *m2mauthtest.Issuer, conn *grpc.ClientConn) testpb.TestService_FullDuplexCallClient {
	t.Helper()
	token := issuer.Sign(m2mauthtest.Token{Audience: audience, Lifetime: 2 * time.Second})
	stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(with(t.Context(), "Bearer "+token))
	require.NoError(t, err)
	return stream
}

func guardDuplex(t *testing.T, issuer *m2mauthtest.Issuer) *grpcauth.Interceptor {
	t.Helper()
	return newInterceptor(t, grpcauth.Config{
		Guard: newGuard(t, issuer, nil),
		Rules: map[string]m2mauth.Rule{duplexCall: m2mauth.AnyToken()},
	})
}

func assertExpired(t *testing.T, err error) {
	t.Helper()
	code, reason := reason(t, err)
	assert.Equal(t, codes.Unauthenticated, code, "%v", err)
	assert.Equal(t, "INVALID_TOKEN", reason)
}

var someBytes = &testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, 1<<10)}}

func TestAStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]func(t *testing.T, s duplexServer) error{
		"idle, waiting for a message": func(t *testing.T, s duplexServer) error {
			_, err := s.Recv()
			assertExpired(t, err)
			return err
		},
		"idle, waiting for the context": func(_ *testing.T, s duplexServer) error {
			<-s.Context().Done()
			return nil
		},
		"idle, with a handler that returns its context's error": func(_ *testing.T, s duplexServer) error {
			<-s.Context().Done()
			return s.Context().Err()
		},
		"idle, with a handler that is late": func(*testing.T, duplexServer) error {
			time.Sleep(time.Hour)
			return nil
		},
		"busy sending": func(t *testing.T, s duplexServer) error {
			for {
				if err := s.Send(someBytes); err != nil {
					assertExpired(t, err)
					return err
				}
				time.Sleep(10 * time.Millisecond)
			}
		},
		"busy sending and receiving": func(t *testing.T, s duplexServer) error {
			go func() {
				for s.Send(someBytes) == nil {
					time.Sleep(10 * time.Millisecond)
				}
			}()
			for {
				if _, err := s.Recv(); err != nil {
					assertExpired(t, err)
					return err
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				begin := time.Now()
				conn := start(t, guardDuplex(t, issuer), &service{duplex: func(s duplexServer) error {
					defer func() {
						<-s.Context().Done() // a message may learn it from the clock before
						assert.ErrorIs(t, context.Cause(s.Context()), m2mauth.ErrExpired)
						assert.ErrorIs(t, s.Context().Err(), context.DeadlineExceeded)
						assertExpired(t, s.Send(someBytes))
						_, err := s.Recv()
						assertExpired(t, err)
					}()
					deadline, _ := s.Context().Deadline()
					assert.WithinDuration(t, begin.Add(2*time.Second), deadline, 0)
					return handle(t, s)
				}})
				stream := open(t, issuer, conn)
				done := make(chan struct{})
				go func() {
					defer close(done)
					for name == "busy sending and receiving" && stream.Send(&testpb.StreamingOutputCallRequest{}) == nil {
						time.Sleep(7 * time.Millisecond)
					}
				}()
				var err error
				messages := -1
				for ; err == nil; messages++ {
					_, err = stream.Recv()
				}
				assertExpired(t, err)
				assert.Equal(t, 2*time.Second, time.Since(begin))
				if busy := name[0] == 'b'; busy {
					assert.GreaterOrEqual(t, messages, 199)
				}
				<-done
				time.Sleep(2 * time.Hour) // for the handler that is late
			})
		})
	}
}

// A caller that does not read must not hold a stream open past its token.
func TestAStreamThatWaitsToSendEndsWithItsToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		begin := time.Now()
		ended := make(chan time.Duration, 1)
		conn := start(t, guardDuplex(t, issuer), &service{duplex: func(s duplexServer) error {
			for {
				if err := s.Send(someBytes); err != nil {
					assertExpired(t, err)
					ended <- time.Since(begin)
					return err
				}
			}
		}})
		open(t, issuer, conn)
		assert.Equal(t, 2*time.Second, <-ended)
	})
}

func TestAStreamOverNetHTTPEndsWithItsToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		server := grpc.NewServer(guardDuplex(t, issuer).ServerOptions()...)
		testpb.RegisterTestServiceServer(server, &service{duplex: func(s duplexServer) error {
			_, err := s.Recv()
			assertExpired(t, err)
			return err
		}})
		listener := bufconn.Listen(1 << 16)
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		httpServer := &http.Server{Handler: server, Protocols: protocols}
		go func() { assert.ErrorIs(t, httpServer.Serve(listener), http.ErrServerClosed) }()
		t.Cleanup(func() { assert.NoError(t, httpServer.Close()) })
		conn := dial(t, listener)

		begin := time.Now()
		_, err := open(t, issuer, conn).Recv()
		assertExpired(t, err)
		assert.Equal(t, 2*time.Second, time.Since(begin))
	})
}

func TestLeewayLengthensStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		auth := newInterceptor(t, grpcauth.Config{
			Guard:  newGuard(t, issuer, nil),
			Rules:  map[string]m2mauth.Rule{duplexCall: m2mauth.AnyToken()},
			Leeway: 30 * time.Second,
		})
		conn := start(t, auth, &service{duplex: func(s duplexServer) error { <-s.Context().Done(); return nil }})
		begin := time.Now()
		_, err := open(t, issuer, conn).Recv()
		assertExpired(t, err)
		assert.Equal(t, 32*time.Second, time.Since(begin))
	})
}

func TestAStreamDoesNotBeginWithinTheGuardsLeeway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		auth := newInterceptor(t, grpcauth.Config{
			Guard: newGuard(t, issuer, nil),
			Rules: map[string]m2mauth.Rule{duplexCall: m2mauth.AnyToken(), emptyCall: m2mauth.AnyToken()},
		})
		conn := start(t, auth, &service{}) // a stream's handler would panic
		ctx := with(t.Context(), "Bearer "+issuer.Sign(m2mauthtest.Token{Audience: audience, Lifetime: time.Second}))
		time.Sleep(time.Second)
		require.NoError(t, empty(ctx, conn))
		stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(ctx)
		require.NoError(t, err)
		_, err = stream.Recv()
		assertExpired(t, err)
	})
}

func TestAStreamThatEndsBeforeItsTokenEndsByItself(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		ctx    func(context.Context) (context.Context, context.CancelFunc)
		handle func(duplexServer) error
		want   codes.Code
		after  time.Duration
	}{
		"by the caller's deadline": {
			func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Second)
			},
			func(s duplexServer) error { _, err := s.Recv(); return err },
			codes.DeadlineExceeded, time.Second,
		},
		"by the caller's leaving": {
			func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(time.Second, cancel)
				return ctx, cancel
			},
			func(s duplexServer) error { _, err := s.Recv(); return err },
			codes.Canceled, time.Second,
		},
		"by the handler's error": {
			context.WithCancel,
			func(duplexServer) error {
				time.Sleep(time.Second)
				return status.Error(codes.NotFound, "no such thing")
			},
			codes.NotFound, time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				conn := start(t, guardDuplex(t, issuer), &service{duplex: func(s duplexServer) error {
					err := row.handle(s)
					assert.Error(t, err) // the caller's deadline may come as its leaving
					assert.NotEqual(t, codes.Unauthenticated, status.Code(err), "%v", err)
					assert.NotErrorIs(t, context.Cause(s.Context()), m2mauth.ErrExpired)
					return err
				}})
				begin := time.Now()
				ctx, cancel := row.ctx(with(t.Context(), "Bearer "+issuer.Sign(m2mauthtest.Token{Audience: audience, Lifetime: 2 * time.Second})))
				defer cancel()
				stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(ctx)
				require.NoError(t, err)
				_, err = stream.Recv()
				assert.Equal(t, row.want, status.Code(err), "%v", err)
				assert.Equal(t, row.after, time.Since(begin))
				synctest.Wait()
			})
		})
	}
}

func TestAStreamWithoutATokenHasNoEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		auth := newInterceptor(t, grpcauth.Config{
			Guard: newGuard(t, m2mauthtest.NewIssuer(), nil),
			Rules: map[string]m2mauth.Rule{duplexCall: m2mauth.Optional(m2mauth.AnyToken())},
		})
		conn := start(t, auth, &service{duplex: func(s duplexServer) error {
			time.Sleep(24 * time.Hour)
			return s.Send(someBytes)
		}})
		stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(t.Context())
		require.NoError(t, err)
		_, err = stream.Recv()
		require.NoError(t, err)
		_, err = stream.Recv()
		require.ErrorIs(t, err, io.EOF)
	})
}

// A transport that cannot be answered at once passes no message that came late.
func TestOnAnotherTransportNoMessagePassesAfterTheToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		auth := guardDuplex(t, issuer)
		token := issuer.Sign(m2mauthtest.Token{Audience: audience, Lifetime: 2 * time.Second})
		other := &otherTransport{ctx: metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+token))}
		err := auth.Stream(nil, other, &grpc.StreamServerInfo{FullMethod: duplexCall}, func(_ any, s grpc.ServerStream) error {
			assert.NoError(t, s.RecvMsg(nil))
			assert.NoError(t, s.SendMsg(nil))
			assertExpired(t, s.RecvMsg(nil))
			assertExpired(t, s.RecvMsg(nil))
			assertExpired(t, s.SendMsg(nil))
			assert.ErrorIs(t, context.Cause(s.Context()), m2mauth.ErrExpired)
			return nil
		})
		assertExpired(t, err)
		assert.Equal(t, 3, other.messages, "later ones are not asked for")
	})
}

// otherTransport passes a message a second, knowing nothing of the context.
type otherTransport struct {
	grpc.ServerStream
	ctx      context.Context
	messages int
}

func (o *otherTransport) Context() context.Context { return o.ctx }
func (o *otherTransport) RecvMsg(any) error {
	o.messages++
	time.Sleep(time.Second * time.Duration(o.messages))
	return nil
}
func (o *otherTransport) SendMsg(any) error { o.messages++; return nil }

// Not parallel: it counts the goroutines of the process.
func TestAStreamHasNoGoroutineOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams = 100
		issuer := m2mauthtest.NewIssuer()
		auth := newInterceptor(t, grpcauth.Config{
			Guard:  newGuard(t, issuer, nil),
			Rules:  map[string]m2mauth.Rule{duplexCall: m2mauth.AnyToken()},
			Public: []string{upload, emptyCall},
		})
		conn := start(t, auth, &service{
			duplex: func(s duplexServer) error { _, err := s.Recv(); return err },
			upload: func(s testpb.TestService_StreamingInputCallServer) error { _, err := s.Recv(); return err },
		})
		client := testpb.NewTestServiceClient(conn)
		ctx, cancel := context.WithCancel(with(t.Context(), "Bearer "+issuer.Token(audience)))
		// added returns how many goroutines a hundred streams have, client included.
		added := func(open func() (grpc.ClientStream, error)) int {
			require.NoError(t, empty(ctx, conn)) // the connection's own
			synctest.Wait()
			before := runtime.NumGoroutine()
			for range streams {
				_, err := open()
				require.NoError(t, err)
			}
			synctest.Wait()
			return runtime.NumGoroutine() - before
		}
		public := added(func() (grpc.ClientStream, error) { return client.StreamingInputCall(ctx) })
		guarded := added(func() (grpc.ClientStream, error) { return client.FullDuplexCall(ctx) })
		assert.GreaterOrEqual(t, public, streams)
		assert.InDelta(t, public, guarded, streams/10, "but for others of the process, which come and go")
		cancel()
		synctest.Wait()
	})
}

// timeoutStream has a context that ends sooner than the call.
type timeoutStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s timeoutStream) Context() context.Context { return s.ctx }

func TestAnInterceptorsOwnTimeoutIsNoExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		conn := start(t, guardDuplex(t, issuer), &service{duplex: func(s duplexServer) error {
			<-s.Context().Done()
			synctest.Wait()
			return s.Context().Err()
		}}, grpc.StreamInterceptor(func(server any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			ctx, cancel := context.WithTimeout(ss.Context(), time.Second)
			defer cancel()
			return handler(server, timeoutStream{ss, ctx})
		}))
		_, err := open(t, issuer, conn).Recv()
		assert.Equal(t, codes.DeadlineExceeded, status.Code(err), "%v", err)
	})
}
