package m2mauth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/m2mauth/m2mauth/internal/admission"
	"github.com/m2mauth/m2mauth/internal/keyset"
)

func TestSourceOfARequest(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, address, want string }{
		{"IPv4", "192.0.2.1:1234", "192.0.2.1"},
		{"IPv6", "[2001:db8:1:2:3:4:5:6]:1234", "2001:db8:1:2::/64"},
		{"IPv6 with a zone", "[fe80::1%eth0]:1234", "fe80::/64"},
		{"IPv4 in IPv6, of which not all are one source", "[::ffff:192.0.2.1]:1234", "::ffff:192.0.2.1"},
		{"no port", "192.0.2.1", "192.0.2.1"},
		{"IPv6 without port", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"a name", "client.example:1234", "client.example"},
		{"a Unix socket", "@", "@"},
		{"nothing", "", ""},
		{"rubbish", "[::1", "[::1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.want, hostOf(httpRequest{&http.Request{RemoteAddr: test.address}}))
		})
	}
}

// Each caller completes its error with its own realm, and logs it.
func TestWhoIsNotAdmittedGetsAnErrorOfItsOwn(t *testing.T) {
	t.Parallel()
	away := errors.New("the client is gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(away)
	for _, test := range []struct {
		err, kind, cause error
		status           int
		counted          string
		source           bool
	}{
		{admission.ErrOverShare, ErrBusy, nil, 429, "", true},
		{admission.ErrFull, ErrUnavailable, admission.ErrFull, 503, "too many sources wait", false},
		{admission.ErrWaitedTooLong, ErrUnavailable, admission.ErrWaitedTooLong, 503, "waited too long for other tokens to be verified", false},
		{admission.ErrGone, ErrUnavailable, away, 503, "the caller went away", false},
	} {
		e := notAdmitted(ctx, test.err, "192.0.2.1\n")
		assert.NotSame(t, e, notAdmitted(ctx, test.err, "192.0.2.1\n"))
		assert.ErrorIs(t, e, test.kind)
		assert.Equal(t, test.status, e.Status)
		assert.Equal(t, "too many new tokens are being verified: try again later", e.Description)
		assert.Equal(t, time.Second, e.RetryAfter)
		assert.Equal(t, test.counted, e.counted)
		if test.cause == nil {
			assert.NoError(t, e.Unwrap())
		} else {
			assert.ErrorIs(t, e, test.cause)
			assert.Contains(t, e.Error(), test.cause.Error())
		}
		if test.source {
			assert.Equal(t, []slog.Attr{slog.String("source", keyset.Loggable("192.0.2.1\n"))}, e.attrs)
		} else {
			assert.Empty(t, e.attrs)
		}
	}
}
