package adaptertest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// ruleTokens are the columns of ruleRows: who asks.
var ruleTokens = []struct {
	name        string
	credentials credentials
}{
	{"a machine with the scope", machine("", "read:products")},
	{"a machine", machine("")},
	{"a user with the scope", user("", "read:products")},
	{"a user", user("")},

	{"a machine of acme with the scope", machine("acme", "read:products")},
	{"a machine of acme", machine("acme")},
	{"a user of acme with the scope", user("acme", "read:products")},
	{"a user of acme", user("acme")},

	{"a machine of globex with the scope", machine("globex", "read:products")},
	{"a machine of globex", machine("globex")},
	{"a user of globex with the scope", user("globex", "read:products")},
	{"a user of globex", user("globex")},

	{"another machine with more scopes", bearer(m2mauthtest.Token{AppID: "other", Scopes: []string{"write:products", "read:products"}, Claims: map[string]any{"tier": 1, "act": map[string]string{"sub": "agent"}}})},
	{"nobody", fields()},
}

// ruleRow is a rule, which guards /rules/{org}/NAME, and what becomes of each of
// ruleTokens that asks for the organization acme.
type ruleRow struct {
	name         string // in the path with a - for each space; of an optional rule it holds "optional"
	rule         m2mauth.Rule
	organization []string // the fields X-Organization of the requests
	scope        string   // of the challenge where a scope or the token is missing
	want         string   // a key of fates for each token: of no organization; acme; globex; the other machine; nobody
}

func (r ruleRow) path(organization string) string {
	return "/" + organization + "/" + strings.ReplaceAll(r.name, " ", "-")
}

// fates are the answers in ruleRow.want.
var fates = map[rune]struct {
	status int
	code   string
}{
	'.': {http.StatusOK, ""},
	'u': {http.StatusUnauthorized, "unauthorized"},    // and the challenge names ruleRow.scope
	's': {http.StatusForbidden, "insufficient_scope"}, // likewise
	'f': {http.StatusForbidden, "insufficient_scope"}, // for all else
	'e': {http.StatusInternalServerError, "server_error"},
}

// ruleRows have every kind of rule: what an adapter does to a rule, or hides from
// it, shows in one of them.
var ruleRows = func() []ruleRow {
	all, some := m2mauth.AllOf, m2mauth.AnyOf
	read, write := m2mauth.AllScopes("read:products"), m2mauth.AllScopes("write:products")
	path := m2mauth.OrganizationPath("org")
	header := m2mauth.OrganizationHeader("x-organization")
	last := m2mauth.Organization(func(r m2mauth.Request) string {
		values := r.Header("X-Organization")
		return values[len(values)-1]
	})
	custom := func(err error) m2mauth.Rule {
		return m2mauth.Custom("ask", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return err })
	}
	deny, fail := custom(m2mauth.Deny("not today")), custom(errors.New("the database is down"))
	acme := []string{"acme"}
	return []ruleRow{
		{"any token", m2mauth.AnyToken(), acme, "", ".... ffff ffff . u"},
		{"a scope", read, acme, "read:products", ".s.s ffff ffff . u"},
		{"all of two scopes", m2mauth.AllScopes("read:products", "write:products"), acme, "read:products write:products", "ssss ffff ffff . u"},
		{"any of two scopes", m2mauth.AnyScope("read:orders", "read:products"), acme, "read:orders", ".s.s ffff ffff . u"},
		{"a machine", m2mauth.MachineToken(), acme, "", "..ff ffff ffff . u"},
		{"a user", m2mauth.UserToken(), acme, "", "ff.. ffff ffff f u"},
		{"a client", m2mauth.ClientID("app"), acme, "", "..ff ffff ffff f u"},
		{"one of two clients", m2mauth.ClientID("web", "other"), acme, "", "ff.. ffff ffff . u"},
		{"an actor", m2mauth.ActedBy("agent"), acme, "", "ffff ffff ffff . u"},
		{"a claim", m2mauth.HasClaim("tier", "gold"), acme, "", "..ff ffff ffff f u"},
		{"a claim in an array", m2mauth.HasClaim("tier", "platinum", "silver"), acme, "", "ff.. ffff ffff f u"},
		{"a function that says yes", custom(nil), acme, "", ".... ffff ffff . u"},
		{"a function that says no", deny, acme, "", "ffff ffff ffff f u"},
		{"a function that fails", fail, acme, "", "eeee ffff ffff e u"},

		{rowPathRule, path, nil, "", "ffff .... ffff f u"},
		{rowPathAndScope, all(path, read), nil, "read:products", "fsfs .s.s fsfs f u"},
		{"another wildcard", m2mauth.OrganizationPath("organization"), acme, "", "ffff ffff ffff f u"},
		{"an organization in the header", header, acme, "", "ffff .... ffff f u"},
		{"another organization in the header", header, []string{"globex"}, "", "ffff ffff .... f u"},
		{"no header", header, nil, "", "ffff ffff ffff f u"},
		{"an empty header", header, []string{""}, "", "ffff ffff ffff f u"},
		{"the header twice", header, []string{"acme", "acme"}, "", "ffff ffff ffff f u"},
		{"two organizations in headers", header, []string{"acme", "globex"}, "", "ffff ffff ffff f u"},
		{"an organization that a function takes from the last header", last, []string{"acme", "globex"}, "", "ffff ffff .... f u"},

		{"the organization and a scope", all(header, read), acme, "read:products", "fsfs .s.s fsfs f u"},
		{"the organization or any token", some(m2mauth.AnyToken(), header), acme, "", ".... .... ffff . u"},
		{"the organization with a scope or a machine", some(all(header, read), m2mauth.MachineToken()), acme, "read:products", "..fs .f.s fffs . u"},
		{"the organization and a function that says no", all(header, deny), acme, "", "ffff ffff ffff f u"},
		{"the organization and a function that fails", all(header, fail), acme, "", "ffff eeee ffff f u"},
		{"a machine with a scope", all(m2mauth.MachineToken(), read), acme, "read:products", ".sfs ffff ffff . u"},
		{"a scope for machines and another for users", some(all(m2mauth.MachineToken(), write), all(m2mauth.UserToken(), read)), acme, "write:products", "ss.s ffff ffff . u"},
		{"a scope or a function that fails", some(read, fail), acme, "read:products", ".e.e ffff ffff . u"},

		{"an optional scope", m2mauth.Optional(read), acme, "read:products", ".s.s ffff ffff . ."},
		{"an optional organization with a scope", m2mauth.Optional(all(header, read)), acme, "read:products", "fsfs .s.s fsfs f ."},
	}
}()

// testRules asks every route of ruleRows with every token.
func testRules(t *testing.T, mount mounter, forced map[string]Difference) {
	a := newAPI(t, mount, nil)
	authorizations := make([][]string, len(ruleTokens)) // signed once, so that the rules see remembered tokens too
	for i, token := range ruleTokens {
		authorizations[i] = token.credentials(a.issuer)
	}
	for _, test := range ruleRows {
		t.Run(test.name, func(t *testing.T) {
			want := []rune(strings.ReplaceAll(test.want, " ", ""))
			if len(want) != len(ruleTokens) {
				t.Fatalf("%d answers for %d tokens", len(want), len(ruleTokens))
			}
			for i, token := range ruleTokens {
				t.Run(token.name, func(t *testing.T) {
					fate, difference := fates[want[i]], Difference{}
					r := row{token.name, "GET", "/rules" + test.path("acme"), fields(authorizations[i]...), fate.status, fate.code, ""}
					switch want[i] {
					case '.':
						difference = forced[test.name]
					case 's', 'u':
						r.scope = test.scope
					}
					a.ask(t, r, http.Header{"X-Organization": test.organization}, difference)
				})
			}
		})
	}
	t.Logf("%d rules, %d tokens", len(ruleRows), len(ruleTokens))
}
