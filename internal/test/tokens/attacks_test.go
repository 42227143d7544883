package tokens

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/attacks"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
)

//go:generate go run -C ../../.. ./internal/test/fixtures attacks

// entries are the ways into a guard that the core has.
var entries = map[string]attacks.Entry{
	"Require": {Send: func(t *testing.T, r attacks.Request) (answer attacks.Answer) {
		recorder := httptest.NewRecorder()
		r.Guard.RequireRule(r.Rule)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			answer.Claims, _ = m2mauth.FromContext(r.Context())
		})).ServeHTTP(recorder, r.HTTP)
		answer.Status = recorder.Code
		if answer.Claims.IsZero() {
			answer.Header, answer.Body = recorder.Header(), recorder.Body.Bytes()
		}
		return answer
	}},
	"Check": {Send: func(_ *testing.T, r attacks.Request) (answer attacks.Answer) {
		answer.Claims, answer.Err = r.Guard.Check(r.HTTP, r.Rule)
		return answer
	}},
	"CheckRequest": {Send: func(t *testing.T, r attacks.Request) (answer attacks.Answer) {
		answer.Claims, answer.Err = r.Guard.CheckRequest(t.Context(), testguard.Headers{Fields: r.HTTP.Header}, r.Rule)
		return answer
	}},
	"Verify": {TokenAlone: true, Send: func(t *testing.T, r attacks.Request) (answer attacks.Answer) {
		answer.Claims, answer.Err = r.Guard.Verify(t.Context(), r.Token)
		return answer
	}},
}

// TestAttacks runs the corpus of testdata/attacks.
func TestAttacks(t *testing.T) {
	t.Parallel()
	for name, entry := range entries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			attacks.Run(t, entry)
		})
	}
}

// TestAttackFamilies runs what can be computed from a good token.
func TestAttackFamilies(t *testing.T) {
	t.Parallel()
	for name, entry := range entries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			attacks.RunFamilies(t, entry)
		})
	}
}
