package m2mauth_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// Names and values that rules give are compared byte by byte, never by letter case.
func TestRulesCompareNamesAndValuesByteByByte(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer)
	department := func(value any) m2mauthtest.Token {
		return m2mauthtest.Token{Claims: map[string]any{"department": value}}
	}
	sales := m2mauth.HasClaim("department", "sales")
	for _, test := range []struct {
		name  string
		rule  m2mauth.Rule
		token m2mauthtest.Token
		want  error
	}{
		{"the value", sales, department("sales"), nil},
		{"an array with the value", sales, department([]string{"it", "sales"}), nil},
		{"another letter case", sales, department("Sales"), m2mauth.ErrForbidden},
		{"another letter case, of the rule's", m2mauth.HasClaim("department", "SALES"), department("sales"), m2mauth.ErrForbidden},
		{"another letter case in an array", sales, department([]string{"it", "SALES"}), m2mauth.ErrForbidden},
		{"a letter that folds to one of the value", sales, department("\u017fales"), m2mauth.ErrForbidden},
		{"white space around", sales, department(" sales "), m2mauth.ErrForbidden},
		{"a value that begins so", sales, department("sales-emea"), m2mauth.ErrForbidden},
		{"the claim in another letter case", sales, m2mauthtest.Token{Claims: map[string]any{"Department": "sales"}}, m2mauth.ErrForbidden},
		{"the client", m2mauth.ClientID("billing"), m2mauthtest.Token{AppID: "billing"}, nil},
		{"the client in another letter case", m2mauth.ClientID("billing"), m2mauthtest.Token{AppID: "Billing"}, m2mauth.ErrForbidden},
		{"the scope in another letter case", m2mauth.AllScopes("read"), m2mauthtest.Token{Scopes: []string{"READ"}}, m2mauth.ErrScope},
		{"any scope in another letter case", m2mauth.AnyScope("read"), m2mauthtest.Token{Scopes: []string{"Read"}}, m2mauth.ErrScope},
		{"the organization", m2mauth.OrganizationHeader("X-Organization"), m2mauthtest.Token{OrganizationID: "acme"}, nil},
		{"the organization in another letter case", m2mauth.OrganizationHeader("X-Organization"), m2mauthtest.Token{OrganizationID: "ACME"}, m2mauth.ErrForbidden},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.token.Audience = shop
			r := requestWith("Bearer " + issuer.Sign(test.token))
			r.Header.Set("X-Organization", "acme")
			for range 2 { // what is remembered too
				_, err := guard.Check(r, test.rule)
				require.ErrorIs(t, err, test.want)
			}
		})
	}
}
