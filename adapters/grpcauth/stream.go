package grpcauth

import (
	"context"
	"errors"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/m2mauth/m2mauth"
)

// Stream is the [grpc.StreamServerInterceptor].
//
// It checks the token when the stream begins. Config.Leeway after the token expires,
// the stream ends. Its context ends with the cause [m2mauth.ErrExpired]. Messages in
// either direction fail with Unauthenticated. The caller gets that status at once, even
// if the handler is busy or waits for a message. What the handler returns is then
// ignored. A stream without a token has no such end: that of a public method, or one
// that [m2mauth.Optional] let through.
//
// Each stream costs a timer and no goroutine. To send the status at once, Stream uses
// a part of grpc-go that is not documented. On a transport without it (another
// in-process one, or a later grpc-go), a handler that waits in RecvMsg waits until the
// caller sends something or leaves. No message gets through there either.
func (i *Interceptor) Stream(server any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if i.public[info.FullMethod] {
		return handler(server, ss)
	}
	ctx := ss.Context()
	claims, err := i.check(ctx, info.FullMethod, nil)
	if err != nil {
		return err
	}
	guarded := &stream{ServerStream: ss, ctx: m2mauth.NewContext(ctx, claims)}
	if claims.IsZero() {
		return handler(server, guarded)
	}

	guarded.end, guarded.reportOnly = claims.ExpiresAt().Add(i.leeway), i.guard.ReportOnly
	if guarded.expired() { // within the guard's leeway
		return expired.Err()
	}
	cancel := guarded.endWithToken()
	defer cancel()
	stop := context.AfterFunc(guarded.ctx, guarded.answer)
	defer stop() // before cancel, which would start it

	err = handler(server, guarded)
	if guarded.expired() { // what the caller was told already, whatever the handler says
		return expired.Err()
	}
	return err
}

// stream is a stream that ends when its token does.
type stream struct {
	grpc.ServerStream
	ctx context.Context
	end time.Time // zero if no token came

	reportOnly func() bool
}

// endWithToken gives the stream a context that ends with the token. A guard that reports
// only is asked anew, until it refuses, and shows the handler no deadline.
func (s *stream) endWithToken() (stop func()) {
	if !s.reportOnly() {
		var cancel context.CancelFunc
		s.ctx, cancel = context.WithDeadlineCause(s.ctx, s.end, m2mauth.ErrExpired)
		return cancel
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	s.ctx = ctx
	var timer *time.Timer
	timer = time.AfterFunc(math.MaxInt64, func() { // not before timer is set
		if s.expired() {
			cancel(m2mauth.ErrExpired)
		} else if ctx.Err() == nil {
			timer.Reset(lookAgain)
		}
	})
	timer.Reset(time.Until(s.end))
	return func() {
		cancel(nil)
		timer.Stop()
	}
}

// lookAgain is how often a stream that outlives its token asks whether the guard still
// reports only.
const lookAgain = time.Minute

func (s *stream) Context() context.Context { return s.ctx }

// expired asks the clock as well, since the timer of the context stands still
// while a machine sleeps.
func (s *stream) expired() bool {
	return !s.end.IsZero() && (errors.Is(context.Cause(s.ctx), m2mauth.ErrExpired) || !time.Now().Before(s.end) && !s.reportOnly())
}

func (s *stream) SendMsg(message any) error {
	return s.unlessExpired(s.ServerStream.SendMsg, message)
}

func (s *stream) RecvMsg(message any) error {
	return s.unlessExpired(s.ServerStream.RecvMsg, message)
}

func (s *stream) unlessExpired(pass func(any) error, message any) error {
	if s.expired() {
		return expired.Err()
	}
	err := pass(message)
	if s.expired() { // meanwhile: a message that waited is one too late
		return expired.Err()
	}
	return err
}

// answer ends the call if its context ended because the token did. Waiting
// RecvMsg and SendMsg return then. Left to them, grpc would answer with the
// code of the ended context before the handler says anything.
func (s *stream) answer() {
	if !errors.Is(context.Cause(s.ctx), m2mauth.ErrExpired) {
		return
	}
	transport := grpc.ServerTransportStreamFromContext(s.ctx)
	if writer, ok := transport.(interface{ WriteStatus(*status.Status) error }); ok {
		_ = writer.WriteStatus(expired) // the caller is gone: nobody is left to tell
	}
}
