package grpcauth

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/m2mauth/m2mauth"
)

// Domain is the domain of the ErrorInfo (google.rpc.ErrorInfo) in the details of every
// status from this package. The message of the status is the Description of the
// [m2mauth.Error].
//
// The reason of the ErrorInfo is the error's Code in capital letters (UNAUTHORIZED,
// INVALID_REQUEST, INVALID_TOKEN, INSUFFICIENT_SCOPE, TEMPORARILY_UNAVAILABLE or
// SERVER_ERROR), or [ReasonNoRule]. If the error has Scopes, the metadata has them under
// "scope", separated by spaces. If the caller should wait, the details also have a
// RetryInfo.
//
// A missing or invalid token (401 over HTTP) and malformed credentials, such as two
// authorization entries (400), are both Unauthenticated. InvalidArgument is about the
// message of a call. Config.ErrorHandler of the guard is for HTTP and is not called.
const Domain = "github.com/m2mauth/m2mauth"

// ReasonNoRule is the reason if a method has no rule and is not public.
const ReasonNoRule = "METHOD_WITHOUT_RULE"

var (
	noRule  = newStatus(codes.PermissionDenied, "this method lets nobody through, since it has no rule", &errdetails.ErrorInfo{Reason: ReasonNoRule, Domain: Domain})
	expired = newStatus(codes.Unauthenticated, "the token has expired, and the stream with it: open another with a new token", &errdetails.ErrorInfo{Reason: "INVALID_TOKEN", Domain: Domain})
)

// errNoRule is the error of check for a method that has no rule and is not public.
var errNoRule = errors.New("a method without a rule")

// statusOf returns the answer to a call that was refused.
func statusOf(ctx context.Context, err error) *status.Status {
	if err == errNoRule {
		return noRule
	}
	var e *m2mauth.Error
	if !errors.As(err, &e) {
		return newStatus(codes.Internal, "the call could not be authorized because of an internal error", &errdetails.ErrorInfo{Reason: "SERVER_ERROR", Domain: Domain})
	}
	// Whoever stopped waiting for the keys learnt nothing of its token, and the
	// issuer may be up.
	if ctx.Err() != nil && e.Status >= http.StatusInternalServerError {
		return status.FromContextError(ctx.Err())
	}
	info := &errdetails.ErrorInfo{Reason: strings.ToUpper(e.Code), Domain: Domain}
	if len(e.Scopes) > 0 {
		info.Metadata = map[string]string{"scope": strings.Join(e.Scopes, " ")}
	}
	details := []protoadapt.MessageV1{info}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	return newStatus(codeOf(e.Status), e.Description, details...)
}

func codeOf(httpStatus int) codes.Code {
	switch httpStatus {
	case http.StatusBadRequest, http.StatusUnauthorized:
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

func newStatus(code codes.Code, text string, details ...protoadapt.MessageV1) *status.Status {
	plain := status.New(code, text)
	detailed, err := plain.WithDetails(details...)
	if err != nil { // a scope that is not UTF-8, which no rule takes
		return plain
	}
	return detailed
}
