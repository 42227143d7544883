package m2mauthtest

import (
	"context"
	"log/slog"
	"testing"

	"github.com/m2mauth/m2mauth"
)

// Config returns the configuration of a guard for the API resource. Issuer, Audience
// and HTTPClient are set. Change other fields as you like, and pass it to [m2mauth.New].
func (i *Issuer) Config(audience string) m2mauth.Config {
	return m2mauth.Config{
		Issuer:     i.URL(),
		Audience:   audience,
		HTTPClient: i.Client(),
	}
}

// Claims returns the claims of a machine-to-machine app that holds the scopes. It is
// for unit tests of handlers: put the claims into the request's context with
// [m2mauth.NewContext]. If appID is empty, the app is an arbitrary one. The audience is
// https://api.test, and the claims expire in an hour.
//
// As in production, the claims come from a token that a guard has verified. If the
// guard rejects the token, the test fails immediately.
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
