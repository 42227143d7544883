package testguard

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
)

// Fate is what becomes of a request, in one character of a table: let through,
// refused for a scope (with the route's list), refused for all else, or failed.
type Fate byte

// What may become of a request.
const (
	Passes   Fate = '.'
	NoScope  Fate = 's'
	NoWay    Fate = 'f'
	Internal Fate = 'e'
	NoToken  Fate = 'u' // not authenticated: 401
)

// FateOf asks a route with the rule, through the middleware and through Check, and
// fails unless both say the same, in all that a caller can see. The pattern's
// wildcards and the request are the caller's.
func FateOf(t *testing.T, guard *m2mauth.Guard, rule m2mauth.Rule, pattern string, r *http.Request) Fate {
	t.Helper()
	var claims m2mauth.Claims
	var err error
	mux := http.NewServeMux()
	mux.HandleFunc(pattern, func(_ http.ResponseWriter, r *http.Request) { claims, err = guard.Check(r, rule) })
	mux.ServeHTTP(httptest.NewRecorder(), r)
	assert.Equal(t, err != nil, claims.IsZero(), "claims or an error")

	reached := false
	mux = http.NewServeMux()
	mux.Handle(pattern, guard.RequireRule(rule)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, reached = m2mauth.FromContext(r.Context())
		assert.True(t, reached, "claims in the handler")
	})))
	recorder := httptest.NewRecorder()
	mux.ServeHTTP(recorder, r)

	challenge := recorder.Header().Get("WWW-Authenticate")
	var result Fate
	switch recorder.Code {
	case http.StatusOK:
		result = Passes
		assert.NoError(t, err)
	case http.StatusForbidden:
		result = NoWay
		want := m2mauth.ErrForbidden
		if strings.Contains(challenge, ", scope=") {
			result, want = NoScope, m2mauth.ErrScope
		}
		assert.Contains(t, challenge, `error="insufficient_scope"`)
		require.ErrorIs(t, err, want)
	case http.StatusUnauthorized:
		result = NoToken
		assert.Error(t, err)
	case http.StatusInternalServerError:
		result = Internal
		assert.Empty(t, challenge)
		require.ErrorIs(t, err, m2mauth.ErrInternal)
	default:
		require.Failf(t, "another status", "%d", recorder.Code)
	}
	assert.Equal(t, result == Passes, reached)
	return result
}
