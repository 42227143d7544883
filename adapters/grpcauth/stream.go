package grpcauth

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/m2mauth/m2mauth"
)

// Stream is the [grpc.StreamServerInterceptor].
//
// It checks the token when the stream begins. Config.Leeway after the token expires,
// the stream ends. If the token is revoked (Config.Revoked of the guard), or nobody can
// say whether it was, the stream ends within 2 s. Its context ends with the cause
// [m2mauth.ErrExpired], [m2mauth.ErrRevoked] or [m2mauth.ErrUnavailable]. Messages in
// either direction fail with Unauthenticated or Unavailable. The caller gets that status
// at once, even if the handler is busy or waits for a message. What the handler returns
// is then ignored. A stream without a token has no such end: that of a public method, or
// one that [m2mauth.Optional] let through.
//
// Each stream costs a timer and no goroutine, and one more timer if tokens can be
// revoked. To send the status at once, Stream uses a part of grpc-go that is not
// documented. On a transport without it (another in-process one, or a later grpc-go), a
// handler that waits in RecvMsg waits until the caller sends something or leaves. No
// message gets through there either.
func (i *Interceptor) Stream(server any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if i.public[info.FullMethod] {
		return handler(server, ss)
	}
	ctx := ss.Context()
	reportOnly := i.guard.ReportOnly() // before the check: what it lets pass after all is checked again
	claims, err := i.check(ctx, info.FullMethod, nil)
	if err != nil {
		return statusOf(ctx, err).Err()
	}
	guarded := &stream{ServerStream: ss, ctx: m2mauth.NewContext(ctx, claims), auth: i, method: info.FullMethod, undecided: reportOnly}
	guarded.take(claims)
	if claims.IsZero() && !reportOnly {
		return handler(server, guarded)
	}
	defer guarded.watch()()
	if why := guarded.ended(); why != nil { // within the guard's leeway
		return why.Err()
	}

	err = handler(server, guarded)
	if thrown := guarded.thrown.Load(); thrown != nil {
		panic(*thrown) // here, where the server's interceptors recover
	}
	if why := guarded.ended(); why != nil { // what the caller was told already, whatever the handler says
		return why.Err()
	}
	return err
}

// stream is a stream that ends when the guard would no longer accept its token.
type stream struct {
	grpc.ServerStream
	ctx    context.Context
	cancel context.CancelCauseFunc
	auth   *Interceptor
	method string
	end    atomic.Pointer[time.Time]     // of the token and Config.Leeway; nil without a token
	why    atomic.Pointer[status.Status] // the stream was stopped
	thrown atomic.Pointer[any]           // by a function given to the guard

	// For the timer alone, once it runs.
	timer     *time.Timer // nil if nothing but the context's deadline ends the stream
	claims    m2mauth.Claims
	undecided bool // the stream began in a dry run
}

func (s *stream) take(claims m2mauth.Claims) {
	if s.claims = claims; !claims.IsZero() {
		end := claims.ExpiresAt().Add(s.auth.leeway)
		s.end.Store(&end)
	}
}

// watch gives the stream a context that ends when the stream must. A guard that reports
// only shows the handler no deadline.
func (s *stream) watch() (stop func()) {
	s.ctx, s.cancel = context.WithCancelCause(s.ctx)
	release := func() {}
	if !s.undecided {
		s.ctx, release = context.WithDeadlineCause(s.ctx, *s.end.Load(), m2mauth.ErrExpired)
	}
	forget := context.AfterFunc(s.ctx, s.answer)
	if again, due := s.recheck(); due {
		s.timer = time.AfterFunc(math.MaxInt64, s.look) // not before timer is set
		s.timer.Reset(again)
	}
	return func() {
		forget() // before the others, which would start it
		release()
		s.cancel(nil)
		if s.timer != nil {
			s.timer.Stop()
		}
	}
}

// look is called by the timer, whose goroutine has nobody to recover.
func (s *stream) look() {
	defer func() {
		if thrown := recover(); thrown != nil {
			s.thrown.Store(&thrown)
			s.stop(errors.New("a function given to the guard panicked"))
		}
	}()
	if again, due := s.recheck(); due {
		s.timer.Reset(again)
	}
}

// lookAgain is how often a stream asks whether the dry run in which it began is over, and
// after its token has expired, whether that was revoked.
const lookAgain = time.Second

// recheck stops the stream if the guard would no longer let it begin, or says when to ask
// again, if that is due before the context ends on its own.
func (s *stream) recheck() (again time.Duration, due bool) {
	switch {
	case s.ctx.Err() != nil:
		return 0, false
	case s.undecided && s.auth.guard.ReportOnly():
		return lookAgain, true
	case s.undecided:
		claims, err := s.auth.check(s.ctx, s.method, nil)
		if err != nil {
			s.stop(err)
			return 0, false
		}
		s.undecided = false
		s.take(claims)
	}
	end := s.end.Load()
	if end == nil { // an optional rule and no token
		return 0, false
	}
	left := time.Until(*end)
	if left <= 0 {
		s.stop(m2mauth.ErrExpired)
		return 0, false
	}
	again, err := s.auth.guard.Recheck(s.ctx, s.claims)
	if errors.Is(err, m2mauth.ErrExpired) { // for the guard, whose leeway is shorter
		again, err = lookAgain, nil
	}
	if err != nil {
		s.stop(err)
		return 0, false
	}
	deadline, limited := s.ctx.Deadline()
	return min(again, left), again < left || !limited || deadline.After(*end)
}

// stop ends the stream, unless its caller or its token did before.
func (s *stream) stop(err error) {
	if s.ctx.Err() != nil {
		return
	}
	cause, why := error(m2mauth.ErrInternal), statusOf(s.ctx, err)
	var kind m2mauth.ErrorKind
	var e *m2mauth.Error
	switch {
	case errors.As(err, &e):
		cause = e.Kind
	case errors.As(err, &kind):
		cause = kind
	case err == errNoRule:
		cause = m2mauth.ErrForbidden
	}
	if cause == m2mauth.ErrExpired {
		why = expired
	}
	s.why.CompareAndSwap(nil, why)
	s.cancel(cause)
}

// ended returns why the stream ended because of its token, or nil. It asks the clock as
// well, since timers stand still while a machine sleeps.
func (s *stream) ended() *status.Status {
	if why := s.why.Load(); why != nil {
		return why
	}
	end := s.end.Load()
	if errors.Is(context.Cause(s.ctx), m2mauth.ErrExpired) || end != nil && !time.Now().Before(*end) && !s.auth.guard.ReportOnly() {
		return expired
	}
	return nil
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) SendMsg(message any) error {
	return s.unlessEnded(s.ServerStream.SendMsg, message)
}

func (s *stream) RecvMsg(message any) error {
	return s.unlessEnded(s.ServerStream.RecvMsg, message)
}

func (s *stream) unlessEnded(pass func(any) error, message any) error {
	if why := s.ended(); why != nil {
		return why.Err()
	}
	err := pass(message)
	if why := s.ended(); why != nil { // meanwhile: a message that waited is one too late
		return why.Err()
	}
	return err
}

// answer ends the call if its context ended because of its token. Waiting RecvMsg and
// SendMsg return then. Left to them, grpc would answer with the code of the ended context
// before the handler says anything.
func (s *stream) answer() {
	why := s.why.Load()
	if errors.Is(context.Cause(s.ctx), m2mauth.ErrExpired) {
		why = expired
	}
	if why == nil {
		return
	}
	transport := grpc.ServerTransportStreamFromContext(s.ctx)
	if writer, ok := transport.(interface{ WriteStatus(*status.Status) error }); ok {
		_ = writer.WriteStatus(why) // the caller is gone: nobody is left to tell
	}
}
