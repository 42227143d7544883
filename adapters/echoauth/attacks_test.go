package echoauth_test

import (
	"testing"

	"github.com/labstack/echo/v5"

	"github.com/m2mauth/m2mauth/adapters/echoauth"
	"github.com/m2mauth/m2mauth/internal/test/attacks"
)

var entry = attacks.Entry{Send: func(_ *testing.T, r attacks.Request) (answer attacks.Answer) {
	e := echo.New()
	e.Any("/products", func(c *echo.Context) error {
		answer.Claims, _ = echoauth.Claims(c)
		return nil
	}, echoauth.RequireRule(r.Guard, r.Rule))
	w := serve(e, r.HTTP)
	answer.Status = w.Code
	if answer.Claims.IsZero() {
		answer.Header, answer.Body = w.Header(), w.Body.Bytes()
	}
	return answer
}}

func TestAttacks(t *testing.T) {
	t.Parallel()
	attacks.Run(t, entry)
}

func TestAttackFamilies(t *testing.T) {
	t.Parallel()
	attacks.RunFamilies(t, entry)
}
