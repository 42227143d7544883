package properties

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const audience = "https://api.test"

// check runs a property on many sequences, each in a bubble.
func check(t *testing.T, property func(*rapid.T)) {
	t.Helper()
	rapid.Check(t, func(rt *rapid.T) {
		var failure any
		synctest.Test(t, func(*testing.T) {
			defer time.Sleep(10 * time.Minute)     // what is under way ends, and the bubble with it
			defer func() { failure = recover() }() // rapid stops a case by a panic, which must leave the bubble
			property(rt)
		})
		switch {
		case failure == nil:
		case fmt.Sprintf("%T", failure) == "rapid.invalidData":
			panic(failure) // rapid tells panics apart by their line: this is none of the property's
		default:
			panic(failure)
		}
	})
}

func newGuard(rt *rapid.T, issuer *m2mauthtest.Issuer, change func(*m2mauth.Config)) *m2mauth.Guard {
	c := issuer.Config(audience)
	c.Logger = slog.New(slog.DiscardHandler)
	change(&c)
	guard, err := m2mauth.New(c)
	require.NoError(rt, err)
	return guard
}

// newIssuer has Ed25519 keys alone, which cost little.
func newIssuer() *m2mauthtest.Issuer {
	issuer := m2mauthtest.NewIssuer()
	issuer.Rotate("EdDSA")
	issuer.Rotate("EdDSA")
	return issuer
}

// answer is what became of a token.
type answer struct {
	status     int
	retryAfter time.Duration
	begin, end time.Time
	err        error
}

func ask(ctx context.Context, guard *m2mauth.Guard, token string) (a answer) {
	a.begin = time.Now()
	claims, err := guard.Verify(ctx, token)
	return a.of(claims, err)
}

func (a answer) of(claims m2mauth.Claims, err error) answer {
	a.end, a.err = time.Now(), err
	var e *m2mauth.Error
	switch {
	case claims.IsZero() == (err == nil):
		a.status = 0 // claims beside an error, or neither
	case err == nil:
		a.status = http.StatusOK
	case errors.As(err, &e):
		a.status, a.retryAfter = e.Status, e.RetryAfter
	}
	return a
}
