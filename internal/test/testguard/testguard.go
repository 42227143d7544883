// Package testguard has what tests of guards need in more than one package: guards,
// requests, and issuers that fail. For tests alone.
package testguard

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// Shop is the audience of the guards that [Quiet] makes.
const Shop = "https://shopping.api"

// Quiet makes a guard of the shop that logs nothing.
func Quiet(tb testing.TB, issuer *m2mauthtest.Issuer, change ...func(*m2mauth.Config)) *m2mauth.Guard {
	tb.Helper()
	config := issuer.Config(Shop)
	config.Logger = slog.New(slog.DiscardHandler)
	for _, f := range change {
		f(&config)
	}
	guard, err := m2mauth.New(config)
	require.NoError(tb, err)
	return guard
}

// RequestWith makes a request with these Authorization fields, byte for byte.
func RequestWith(fields ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/products", nil)
	if len(fields) > 0 {
		r.Header["Authorization"] = fields
	}
	return r
}

// OrganizationToken begins the audience of a token that is for an organization alone.
const OrganizationToken = "urn:logto:organization:"

// Sentinels are all kinds of error by name; "" stands for no error.
var Sentinels = map[string]error{
	"":               nil,
	"ErrNoToken":     m2mauth.ErrNoToken,
	"ErrRequest":     m2mauth.ErrRequest,
	"ErrMalformed":   m2mauth.ErrMalformed,
	"ErrAlgorithm":   m2mauth.ErrAlgorithm,
	"ErrType":        m2mauth.ErrType,
	"ErrIssuer":      m2mauth.ErrIssuer,
	"ErrAudience":    m2mauth.ErrAudience,
	"ErrExpired":     m2mauth.ErrExpired,
	"ErrNotYetValid": m2mauth.ErrNotYetValid,
	"ErrClaims":      m2mauth.ErrClaims,
	"ErrUnknownKey":  m2mauth.ErrUnknownKey,
	"ErrSignature":   m2mauth.ErrSignature,
	"ErrRevoked":     m2mauth.ErrRevoked,
	"ErrScope":       m2mauth.ErrScope,
	"ErrForbidden":   m2mauth.ErrForbidden,
	"ErrBusy":        m2mauth.ErrBusy,
	"ErrUnavailable": m2mauth.ErrUnavailable,
	"ErrInternal":    m2mauth.ErrInternal,
}

// AssertKind fails unless err is of the named kind and of no other.
func AssertKind(t *testing.T, want string, err error) {
	t.Helper()
	require.Contains(t, Sentinels, want)
	if want == "" {
		assert.NoError(t, err)
		return
	}
	for name, sentinel := range Sentinels {
		if sentinel != nil {
			assert.Equal(t, name == want, errors.Is(err, sentinel), "want %s, and %q is compared with %s", want, err, name)
		}
	}
}

// Headers is a [m2mauth.Request] that is not net/http's.
type Headers struct {
	m2mauth.UnimplementedRequest
	Fields http.Header
}

// Header returns the values of a field.
func (h Headers) Header(name string) []string { return h.Fields.Values(name) }

// RemoteAddr is that of one caller.
func (Headers) RemoteAddr() string { return "192.0.2.1:1234" }

// SleepUntil brings the clock of a bubble, which starts in the year 2000, to t.
func SleepUntil(t time.Time) { time.Sleep(time.Until(t)) }
