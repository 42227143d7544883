package grpcauth

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/m2mauth/m2mauth"
)

func TestRulesSeeWhatTheCallHas(t *testing.T) {
	t.Parallel()
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("x-twice", "one", "x-twice", "two", "trace-bin", "\x00\x01", "x-forwarded-for", "198.51.100.1", ":authority", "api.test"))
	ctx = peer.NewContext(ctx, &peer.Peer{
		Addr:     &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711},
		AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{ServerName: "api.test"}},
	})
	seen := &request{ctx: ctx, method: "/shop.v1.Shop/List", message: "message", values: func(method string, message any, name string) string {
		return method + " " + message.(string) + " " + name
	}}
	assert.Equal(t, []string{"one", "two"}, seen.Header("X-Twice"))
	assert.Empty(t, seen.Header("Authorization"))
	assert.Empty(t, seen.Header("Trace-Bin"))
	assert.Equal(t, "/shop.v1.Shop/List message org", seen.PathValue("org"))
	assert.Equal(t, "192.0.2.7:4711", seen.RemoteAddr())
	assert.Equal(t, "/shop.v1.Shop/List", seen.Pattern())
	assert.Equal(t, "POST", seen.Method())
	assert.Equal(t, &url.URL{Host: "api.test", Path: "/shop.v1.Shop/List"}, seen.URL())
	require.NotNil(t, seen.TLS())
	assert.Equal(t, "api.test", seen.TLS().ServerName)

	bare := &request{ctx: t.Context(), message: "message"}
	assert.Empty(t, bare.Header("Authorization"))
	assert.Empty(t, bare.PathValue("org"), "no function")
	assert.Empty(t, bare.RemoteAddr())
	assert.Empty(t, bare.URL().Host)
	assert.Nil(t, bare.TLS())
	bare.ctx = peer.NewContext(t.Context(), &peer.Peer{})
	assert.Empty(t, bare.RemoteAddr())
	assert.Nil(t, bare.TLS())
	seen.message = nil
	assert.Empty(t, seen.PathValue("org"), "of a stream")
}

// What cannot be provoked from outside without flooding a guard.
func TestStatusOf(t *testing.T) {
	t.Parallel()
	busy := statusOf(t.Context(), &m2mauth.Error{Status: 429, Code: "temporarily_unavailable", Description: "too many", RetryAfter: 1500 * time.Millisecond})
	assert.Equal(t, codes.ResourceExhausted, busy.Code())
	assert.Equal(t, "too many", busy.Message())
	require.Len(t, busy.Details(), 2)
	assert.Equal(t, "TEMPORARILY_UNAVAILABLE", busy.Details()[0].(*errdetails.ErrorInfo).GetReason())
	assert.Equal(t, 1500*time.Millisecond, busy.Details()[1].(*errdetails.RetryInfo).GetRetryDelay().AsDuration())

	foreign := statusOf(t.Context(), errors.New("the password"))
	assert.Equal(t, codes.Internal, foreign.Code())
	assert.NotContains(t, foreign.Proto().String(), "password")

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for httpStatus, want := range map[int]codes.Code{400: codes.Unauthenticated, 401: codes.Unauthenticated, 403: codes.PermissionDenied, 429: codes.ResourceExhausted, 500: codes.Canceled, 503: codes.Canceled} {
		assert.Equal(t, want, statusOf(gone, &m2mauth.Error{Status: httpStatus}).Code(), httpStatus)
	}
}
