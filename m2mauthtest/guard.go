package m2mauthtest

import (
	"context"
	"log/slog"
	"testing"

	"github.com/m2mauth/m2mauth"
)

// Config returns the configuration of a guard for the API resource, ready for
// [m2mauth.New] or to be changed first. Issuer, Audience and HTTPClient are set.
func (i *Issuer) Config(audience string) m2mauth.Config {
	return m2mauth.Config{
		Issuer:     i.URL(),
		Audience:   audience,
		HTTPClient: i.Client(),
	}
}

// Claims returns the claims of a machine-to-machine app that holds the scopes,
// for unit tests of handlers: put them into the request's context with
// [m2mauth.NewContext]. An empty appID stands for some app. The audience is
// https://api.test, and they expire in an hour.
//
// They are the claims of a token that a guard verified, as in production. If it
// refuses the token, the test fails at once.
func Claims(tb testing.TB, appID string, scopes ...string) m2mauth.Claims {
	tb.Helper()
	const audience = "https://api.test"
	issuer := NewIssuer()
	config := issuer.Config(audience)
	config.Logger = slog.New(slog.DiscardHandler) // tb gets the error
	guard, err := m2mauth.New(config)
	if err != nil {
		tb.Fatalf("m2mauthtest: Claims: %v", err)
	}
	token := issuer.Sign(Token{AppID: appID, Audience: audience, Scopes: scopes})
	claims, err := guard.Verify(context.Background(), token)
	if err != nil {
		tb.Fatalf("m2mauthtest: Claims: %v", err)
	}
	return claims
}
