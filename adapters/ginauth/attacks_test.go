package ginauth_test

import (
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/m2mauth/m2mauth/adapters/ginauth"
	"github.com/m2mauth/m2mauth/internal/test/attacks"
)

var entry = attacks.Entry{Send: func(_ *testing.T, r attacks.Request) (answer attacks.Answer) {
	router := gin.New()
	router.Any("/products", ginauth.RequireRule(r.Guard, r.Rule), func(c *gin.Context) {
		answer.Claims, _ = ginauth.Claims(c)
	})
	w := serve(router, r.HTTP)
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
