package echo4auth_test

import (
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/m2mauth/m2mauth/adapters/echo4auth"
	"github.com/m2mauth/m2mauth/internal/test/attacks"
)

var entry = attacks.Entry{Send: func(_ *testing.T, r attacks.Request) (answer attacks.Answer) {
	e := echo.New()
	e.Any("/products", func(c echo.Context) error {
		answer.Claims, _ = echo4auth.Claims(c)
		return nil
	}, echo4auth.RequireRule(r.Guard, r.Rule))
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
