package m2mauth_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// fate is what becomes of a request, in one character of a table: let through,
// refused for a scope (with the route's list), refused for all else, or failed.
type fate byte

const (
	passes   fate = '.'
	noScope  fate = 's'
	noWay    fate = 'f'
	internal fate = 'e'
	noToken  fate = 'u' // not authenticated: 401
)

// fateOf asks a route with the rule, through the middleware and through Check, and
// fails unless both say the same, in all that a caller can see. The pattern's
// wildcards and the request are the caller's.
func fateOf(t *testing.T, guard *m2mauth.Guard, rule m2mauth.Rule, pattern string, r *http.Request) fate {
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
	var result fate
	switch recorder.Code {
	case http.StatusOK:
		result = passes
		assert.NoError(t, err)
	case http.StatusForbidden:
		result = noWay
		want := m2mauth.ErrForbidden
		if strings.Contains(challenge, ", scope=") {
			result, want = noScope, m2mauth.ErrScope
		}
		assert.Contains(t, challenge, `error="insufficient_scope"`)
		require.ErrorIs(t, err, want)
	case http.StatusUnauthorized:
		result = noToken
		assert.Error(t, err)
	case http.StatusInternalServerError:
		result = internal
		assert.Empty(t, challenge)
		require.ErrorIs(t, err, m2mauth.ErrInternal)
	default:
		require.Failf(t, "another status", "%d", recorder.Code)
	}
	assert.Equal(t, result == passes, reached)
	return result
}

var errDown = errors.New("the database at db.internal is down")

// TestEveryRuleWithEveryToken asks for /orgs/acme/things with X-Organization: acme.
func TestEveryRuleWithEveryToken(t *testing.T) {
	t.Parallel()
	user := map[string]any{"sub": "alice", "tier": []string{"silver", "gold"}}
	type token = m2mauthtest.Token
	tokens := []token{ // the columns
		{AppID: "one", Scopes: []string{"a"}, Claims: map[string]any{"tier": "gold"}},
		{AppID: "one", Scopes: []string{"b"}, Claims: map[string]any{"tier": "golden"}},
		{AppID: "two", Scopes: []string{"b", "c", "a"}, Claims: map[string]any{"tier": []any{"gold", 1}}},
		{AppID: "two", Claims: map[string]any{"tier": 1}},
		{AppID: "two", Scopes: []string{""}},
		{AppID: "web", Scopes: []string{"a"}, Claims: user},
		{AppID: "web", Claims: user},

		{AppID: "one", Scopes: []string{"a", "b"}, OrganizationID: "acme", Claims: map[string]any{"tier": "gold"}},
		{AppID: "one", Scopes: []string{"b"}, OrganizationID: "acme"},
		{AppID: "one", OrganizationID: "acme"},
		{AppID: "web", Scopes: []string{"a"}, OrganizationID: "acme", Claims: user},
		{AppID: "one", Scopes: []string{"a", "b"}, OrganizationID: "globex", Claims: map[string]any{"tier": "gold"}},
		{AppID: "web", OrganizationID: "globex", Claims: user},
		{AppID: "one", Scopes: []string{"a", "b"}, OrganizationID: "Acme"},
	}
	a, b := m2mauth.AllScopes("a"), m2mauth.AllScopes("b")
	acme := m2mauth.OrganizationPath("org")
	custom := func(err error) m2mauth.Rule {
		return m2mauth.Custom("ask", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return err })
	}
	all, some := m2mauth.AllOf, m2mauth.AnyOf

	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer)
	for _, test := range []struct {
		rule m2mauth.Rule
		want string // no organization: machines a, b, bca, none, ""; users a, none; acme: ab, b, none, user a; globex: ab, user; Acme: ab
	}{
		{m2mauth.AnyToken(), "..... .. ffff ff f"},
		{a, ".s.ss .s ffff ff f"},
		{m2mauth.AllScopes("a", "b"), "ss.ss ss ffff ff f"},
		{m2mauth.AnyScope("a", "b"), "...ss .s ffff ff f"},
		{m2mauth.AnyScope("A"), "sssss ss ffff ff f"},
		{m2mauth.MachineToken(), "..... ff ffff ff f"},
		{m2mauth.UserToken(), "fffff .. ffff ff f"},
		{m2mauth.ClientID("one"), "..fff ff ffff ff f"},
		{m2mauth.ClientID("web", "two"), "ff... .. ffff ff f"},
		{m2mauth.ClientID("ONE"), "fffff ff ffff ff f"},
		{m2mauth.HasClaim("tier", "gold"), ".ffff .. ffff ff f"},
		{m2mauth.HasClaim("tier", "platinum", "silver"), "fffff .. ffff ff f"},
		{m2mauth.HasClaim("tier", "1"), "fffff ff ffff ff f"},
		{m2mauth.HasClaim("scope", "a"), ".ffff .f ffff ff f"},
		{m2mauth.HasClaim("none", "a"), "fffff ff ffff ff f"},
		{custom(nil), "..... .. ffff ff f"},
		{custom(m2mauth.Deny("no")), "fffff ff ffff ff f"},
		{custom(errDown), "eeeee ee ffff ff f"},

		{acme, "fffff ff .... ff f"},
		{m2mauth.OrganizationHeader("x-organization"), "fffff ff .... ff f"},
		{m2mauth.Organization(func(m2mauth.Request) string { return "globex" }), "fffff ff ffff .. f"},
		{m2mauth.Organization(func(m2mauth.Request) string { return "" }), "fffff ff ffff ff f"},

		// A token limited to an organization passes only by a part that compared it.
		{all(acme, a), "fsfss fs .ss. fs f"},
		{all(a, acme), "fsfss fs .ss. fs f"},
		{some(all(acme, a), b), "s..ss ss .fs. fs f"},
		{some(b, all(acme, a)), "s..ss ss .fs. fs f"},
		{some(acme, m2mauth.MachineToken()), "..... ff .... ff f"},
		{some(m2mauth.AnyToken(), acme), "..... .. .... ff f"},
		{all(some(acme, m2mauth.AnyToken()), a), ".s.ss .s .ss. fs f"},
		{all(some(m2mauth.AnyToken(), m2mauth.OrganizationPath("none")), a), ".s.ss .s fssf fs f"},
		{some(all(acme, custom(m2mauth.Deny("no"))), a), ".s.ss .s fssf fs f"},
		{some(all(acme, custom(nil)), all(m2mauth.ClientID("one"), a)), ".sfss fs .... fs f"},
		{all(acme, m2mauth.Organization(func(m2mauth.Request) string { return "globex" })), "fffff ff ffff ff f"},
		{some(acme, m2mauth.Organization(func(m2mauth.Request) string { return "globex" })), "fffff ff .... .. f"},

		// A scope is told if one was among the reasons; a failure outweighs it.
		{all(m2mauth.MachineToken(), a), ".s.ss fs ffff ff f"},
		{all(a, m2mauth.UserToken()), "fsfss .s ffff ff f"},
		{some(m2mauth.UserToken(), a), ".s.ss .. ffff ff f"},
		{some(all(m2mauth.UserToken(), a), all(m2mauth.MachineToken(), b)), "s..ss .s ffff ff f"},
		{all(a, custom(errDown)), "eseSS es ffff ff f"},
		{all(custom(errDown), a), "eseSS es ffff ff f"},
		{some(a, custom(errDown)), ".e.ee .e ffff ff f"},
		{some(custom(errDown), a), ".e.ee .e ffff ff f"},
		{all(a, some(m2mauth.ClientID("two"), custom(nil))), ".s.ss .s ffff ff f"},
		{all(a, all(b, some(m2mauth.AllScopes("c"), m2mauth.ClientID("none")))), "ss.ss ss ffff ff f"},

		{m2mauth.Optional(a), ".s.ss .s ffff ff f"},
		{m2mauth.Optional(all(acme, a)), "fsfss fs .ss. fs f"},
	} {
		t.Run(test.rule.String(), func(t *testing.T) {
			t.Parallel()
			want := strings.ToLower(strings.ReplaceAll(test.want, " ", ""))
			require.Len(t, want, len(tokens))
			got := make([]byte, len(tokens))
			for i, token := range tokens {
				token.Audience = shop
				r := httptest.NewRequest(http.MethodGet, "/orgs/acme/things", nil)
				r.Header.Set("Authorization", "Bearer "+issuer.Sign(token))
				r.Header.Set("X-Organization", "acme")
				got[i] = byte(fateOf(t, guard, test.rule, "GET /orgs/{org}/things", r))
			}
			assert.Equal(t, want, string(got))
		})
	}
}

const recordedOrganization = "vsxya5my4bm6"

// TestEveryRuleWithEveryRecordedToken asks for the organization of the recordings.
func TestEveryRuleWithEveryRecordedToken(t *testing.T) {
	t.Parallel()
	organization := m2mauth.OrganizationPath("org")
	read, write := m2mauth.AllScopes("read:products"), m2mauth.AllScopes("write:products")
	rules := []m2mauth.Rule{ // the columns
		read,
		write,
		m2mauth.AnyScope("read:products", "write:products"),
		m2mauth.AllScopes("read:products", "write:products"),

		m2mauth.MachineToken(),
		m2mauth.UserToken(),
		m2mauth.ClientID("n3yy35gu6stj54elg5a66"),
		m2mauth.HasClaim("tier", "gold"),
		m2mauth.HasClaim("roles", "shopper", "editor"),

		organization,
		m2mauth.AllOf(organization, read),
		m2mauth.AnyOf(m2mauth.AllOf(organization, read), write),
	}
	for _, test := range recordedFates {
		t.Run(test.file, func(t *testing.T) {
			t.Parallel()
			token, keys := strings.TrimSpace(string(recordedFile(t, test.file))), recordedFile(t, test.keys)
			synctest.Test(t, func(t *testing.T) {
				sleepUntil(time.Unix(test.clock, 0))
				guard, err := m2mauth.New(m2mauth.Config{
					Issuer: "http://localhost:3001/oidc", Audience: "https://shopping.api",
					JWKS: keys, Logger: slog.New(slog.DiscardHandler),
				})
				require.NoError(t, err)
				got := make([]byte, len(rules))
				for i, rule := range rules {
					r := httptest.NewRequest(http.MethodGet, "/orgs/"+recordedOrganization+"/things", nil)
					r.Header.Set("Authorization", "Bearer "+token)
					got[i] = byte(fateOf(t, guard, rule, "GET /orgs/{org}/things", r))
				}
				assert.Equal(t, strings.ReplaceAll(test.want, " ", ""), string(got))
			})
		})
	}
}

var recordedFates = []struct {
	file, keys string
	clock      int64
	want       string // scopes; kind, client, claims; organization
}{
	{"m2m-read.jwt", "jwks-1-initial.json", 1795207147, ".s.s .f.ff ffs"},
	{"m2m-write.jwt", "jwks-1-initial.json", 1795207147, "s..s .ffff fs."},
	{"m2m-read-write.jwt", "jwks-1-initial.json", 1795207147, ".... .ffff ff."},
	{"m2m-write-read-order.jwt", "jwks-1-initial.json", 1795207147, ".... .ffff ff."},
	{"m2m-editor-asks-read-only.jwt", "jwks-1-initial.json", 1795207147, ".s.s .ffff ffs"},
	{"m2m-reader-asks-both.jwt", "jwks-1-initial.json", 1795207147, ".s.s .f.ff ffs"},
	{"m2m-reader-asks-write.jwt", "jwks-1-initial.json", 1795207147, "ssss .f.ff fss"},
	{"m2m-reader-asks-unknown.jwt", "jwks-1-initial.json", 1795207147, "ssss .f.ff fss"},
	{"m2m-reader-asks-read-and-unknown.jwt", "jwks-1-initial.json", 1795207147, ".s.s .f.ff ffs"},
	{"m2m-editor-no-scope-param.jwt", "jwks-1-initial.json", 1795207147, "ssss .ffff fss"},
	{"m2m-editor-empty-scope-param.jwt", "jwks-1-initial.json", 1795207147, "ssss .ffff fss"},
	{"m2m-no-role.jwt", "jwks-1-initial.json", 1795207148, "ssss .ffff fss"},
	{"m2m-editor-asks-openid-offline.jwt", "jwks-1-initial.json", 1795207148, ".s.s .ffff ffs"},
	{"m2m-editor-asks-all.jwt", "jwks-1-initial.json", 1795207148, "ssss .ffff fss"},
	{"m2m-editor-duplicate-scopes.jwt", "jwks-1-initial.json", 1795207148, ".... .ffff ff."},
	{"m2m-read-secret-in-body.jwt", "jwks-1-initial.json", 1795207148, ".s.s .f.ff ffs"},
	{"organization-resource.jwt", "jwks-1-initial.json", 1795207148, "ffff fffff ..."},
	{"organization-resource-read.jwt", "jwks-1-initial.json", 1795207148, "ffff fffff ..."},
	{"organization-resource-no-scope-param.jwt", "jwks-1-initial.json", 1795207148, "ffff fffff .ss"},
	{"organization-resource-asks-org-scope.jwt", "jwks-1-initial.json", 1795207148, "ffff fffff ..."},
	{"organization-resource-app-without-org-role.jwt", "jwks-1-initial.json", 1795207148, "ffff fffff .ss"},
	{"orgapp-resource-without-organization-id.jwt", "jwks-1-initial.json", 1795207148, "ssss .ffff fss"},
	{"user.jwt", "jwks-1-initial.json", 1795207250, ".s.s f.fff ffs"},
	{"user-asks-both.jwt", "jwks-1-initial.json", 1795207250, ".s.s f.fff ffs"},
	{"user-no-scope-param.jwt", "jwks-1-initial.json", 1795207250, "ssss f.fff fss"},
	{"user-no-role.jwt", "jwks-1-initial.json", 1795207250, "ssss f.fff fss"},
	{"user-spa-public-client.jwt", "jwks-1-initial.json", 1795207250, ".s.s f.fff ffs"},
	{"user-organization-resource.jwt", "jwks-1-initial.json", 1795207250, "ffff fffff ..."},
	{"user-editor.jwt", "jwks-7-after-cli-rotation.json", 1795207579, ".... f.fff ff."},
	{"user-with-actor.jwt", "jwks-7-after-cli-rotation.json", 1795207579, ".... f.fff ff."},
	{"user-custom-claims.jwt", "jwks-7-after-cli-rotation.json", 1795207579, ".s.s f.ff. ffs"},
	{"user-code-flow-resource-no-scope-param.jwt", "jwks-1-initial.json", 1795207251, ".s.s f.fff ffs"},
	{"user-code-flow-direct.jwt", "jwks-1-initial.json", 1795207251, ".s.s f.fff ffs"},
	{"m2m-ttl-2s.jwt", "jwks-1-initial.json", 1795207192, ".... .ffff ff."},
	{"m2m-ttl-1y.jwt", "jwks-1-initial.json", 1795207251, ".... .ffff ff."},
	{"m2m-default-resource-no-resource-param.jwt", "jwks-1-initial.json", 1795207255, ".s.s .f.ff ffs"},
	{"m2m-read-second-secret.jwt", "jwks-1-initial.json", 1795207255, ".s.s .f.ff ffs"},
	{"m2m-custom-claims.jwt", "jwks-1-initial.json", 1795207259, ".... .ff.f ff."},
	{"m2m-custom-claims-tries-to-override.jwt", "jwks-1-initial.json", 1795207259, "ffff fffff ffs"},
	{"m2m-custom-claims-script-throws.jwt", "jwks-1-initial.json", 1795207259, ".s.s .f.ff ffs"},
	{"m2m-no-role-custom-claims-fake-scope.jwt", "jwks-1-initial.json", 1795207325, "ssss .ffff fss"},
	{"es384-after-rotation.jwt", "jwks-2-after-ec-rotation.json", 1795207325, ".... .ffff ff."},
	{"m2m-reader-after-ec-rotation.jwt", "jwks-2-after-ec-rotation.json", 1795207325, ".s.s .f.ff ffs"},
	{"rs256-after-rotation.jwt", "jwks-3-after-rsa-rotation.json", 1795207327, ".... .ffff ff."},
	{"rs256-read.jwt", "jwks-3-after-rsa-rotation.json", 1795207327, ".s.s .f.ff ffs"},
	{"rs256-no-role.jwt", "jwks-3-after-rsa-rotation.json", 1795207327, "ssss .ffff fss"},
	{"rs256-organization-resource.jwt", "jwks-3-after-rsa-rotation.json", 1795207327, "ffff fffff ..."},
	{"staged-before-activation.jwt", "jwks-4-staged-before-activation.json", 1795207328, ".... .ffff ff."},
	{"staged-after-activation.jwt", "jwks-5-staged-after-activation.json", 1795207335, ".... .ffff ff."},
	{"after-cli-rotation-running-server.jwt", "jwks-7-after-cli-rotation.json", 1795207339, ".s.s .ffff ffs"},
	{"m2m-near-miss-scope-names.jwt", "jwks-7-after-cli-rotation.json", 1795208086, "ssss .ffff fss"},
	{"m2m-scope-names-needing-escapes.jwt", "jwks-7-after-cli-rotation.json", 1795208086, "ssss .ffff fss"},
	{"m2m-app-deleted-afterwards.jwt", "jwks-7-after-cli-rotation.json", 1795207579, ".s.s .ffff ffs"},

	// Refused before any rule is asked: for their audience, issuer, nbf or cnf, or as no JWTs.
	{"m2m-read-other-audience.jwt", "jwks-1-initial.json", 1795207148, "uuuu uuuuu uuu"},
	{"rs256-read-other-audience.jwt", "jwks-3-after-rsa-rotation.json", 1795207327, "uuuu uuuuu uuu"},
	{"management-api-all.jwt", "jwks-1-initial.json", 1795207148, "uuuu uuuuu uuu"},
	{"management-api-no-scope.jwt", "jwks-1-initial.json", 1795207148, "uuuu uuuuu uuu"},
	{"management-api-app-without-role.jwt", "jwks-1-initial.json", 1795207148, "uuuu uuuuu uuu"},
	{"management-api-ttl-2s.jwt", "jwks-1-initial.json", 1795207192, "uuuu uuuuu uuu"},
	{"rs256-management-api-all.jwt", "jwks-3-after-rsa-rotation.json", 1795207327, "uuuu uuuuu uuu"},
	{"management-api-all-admin-tenant.jwt", "jwks-admin-tenant.json", 1795207146, "uuuu uuuuu uuu"},
	{"m2m-custom-claims-nbf-in-future.jwt", "jwks-1-initial.json", 1795207325, "uuuu uuuuu uuu"},
	{"m2m-custom-claims-organization-id.jwt", "jwks-1-initial.json", 1795207325, "uuuu uuuuu uuu"},
	{"organization-resource-custom-claims-organization-id.jwt", "jwks-1-initial.json", 1795207325, "uuuu uuuuu uuu"},
	{"user-opaque-no-resource.txt", "jwks-1-initial.json", 1795207250, "uuuu uuuuu uuu"},
	{"user-openid-no-resource.txt", "jwks-1-initial.json", 1795207250, "uuuu uuuuu uuu"},
	{"user-code-flow-token-without-resource.txt", "jwks-1-initial.json", 1795207251, "uuuu uuuuu uuu"},
	{"refresh-token-opaque.txt", "jwks-1-initial.json", 1795207251, "uuuu uuuuu uuu"},
}

// TestEveryRecordedTokenStandsInAMatrix, so that a new one cannot be forgotten.
func TestEveryRecordedTokenStandsInAMatrix(t *testing.T) {
	t.Parallel()
	named := []string{"http-exchanges.txt"} // no token
	for _, test := range recordedFates {
		named = append(named, test.file)
	}
	for _, test := range recordedOrganizationFates {
		named = append(named, test.file)
	}
	recordings, err := os.ReadDir(filepath.Join("testdata", "logto"))
	require.NoError(t, err)
	for _, file := range recordings {
		if name := file.Name(); strings.HasSuffix(name, ".jwt") || strings.HasSuffix(name, ".txt") {
			assert.Contains(t, named, name)
		}
	}
}

func TestARuleSaysWhyItRefuses(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	a, b := m2mauth.AllScopes("a"), m2mauth.AnyScope("b", "c")
	ask := m2mauth.Custom("stock", func(_ context.Context, c m2mauth.Claims, _ m2mauth.Request) error {
		if c.Scopes().Has("denied") {
			return fmt.Errorf("look-up: %w", m2mauth.Deny("out of stock"))
		}
		return errDown
	})
	for _, test := range []struct {
		name   string
		rule   m2mauth.Rule
		token  m2mauthtest.Token
		kind   error
		scopes []string
		text   string
		logged string // besides
	}{
		{"all scopes of the route, in order and once, and of alternatives the first", m2mauth.AllOf(b, m2mauth.AnyOf(a, m2mauth.AllScopes("c", "d"))),
			m2mauthtest.Token{Scopes: []string{"x"}}, m2mauth.ErrScope, []string{"b", "a"}, "lacks a scope", "AllOf(AnyScope"},
		{"a token without scopes", m2mauth.AllOf(m2mauth.MachineToken(), a), m2mauthtest.Token{}, m2mauth.ErrScope, []string{"a"}, "the token has no scopes", ""},
		{"a scope among the reasons", m2mauth.AllOf(m2mauth.UserToken(), a), m2mauthtest.Token{Scopes: []string{"x"}}, m2mauth.ErrScope, []string{"a"}, "lacks a scope", ""},
		{"the kind alone", m2mauth.AllOf(m2mauth.UserToken(), a), m2mauthtest.Token{Scopes: []string{"a"}}, m2mauth.ErrForbidden, nil, "wrong kind", "rule=AllOf(UserToken(), AllScopes(a))"},
		{"the client alone", m2mauth.AllOf(a, m2mauth.ClientID("x")), m2mauthtest.Token{AppID: "y", Scopes: []string{"a"}}, m2mauth.ErrForbidden, nil, "client", "client_id=y"},
		{"a claim alone", m2mauth.AllOf(a, m2mauth.HasClaim("tier", "gold")), m2mauthtest.Token{Scopes: []string{"a"}}, m2mauth.ErrForbidden, nil, "claim", ""},
		{"the organization alone", m2mauth.AllOf(a, m2mauth.OrganizationPath("org")), m2mauthtest.Token{Scopes: []string{"a"}, OrganizationID: "globex"},
			m2mauth.ErrForbidden, nil, "not for the organization", "organization_id=globex"},
		{"a route of no organization", a, m2mauthtest.Token{Scopes: []string{"a"}, OrganizationID: "globex"},
			m2mauth.ErrForbidden, nil, "limited to an organization, and this route is not", "organization_id=globex"},
		{"a function's no", m2mauth.AllOf(a, ask), m2mauthtest.Token{Scopes: []string{"a", "denied"}}, m2mauth.ErrForbidden, nil, "out of stock", ""},
		{"a function's failure", m2mauth.AllOf(a, ask), m2mauthtest.Token{Scopes: []string{"a"}},
			m2mauth.ErrInternal, nil, "could not be authorized because of an internal error", "db.internal"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			guard := quietGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			test.token.Audience = shop
			r := httptest.NewRequest(http.MethodGet, "/orgs/acme/things", nil)
			r.Header.Set("Authorization", "Bearer "+issuer.Sign(test.token))
			mux := http.NewServeMux()
			mux.Handle("GET /orgs/{org}/things", guard.RequireRule(test.rule)(http.NotFoundHandler()))
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)

			_, err := guard.Check(r, test.rule)
			require.ErrorIs(t, err, test.kind)
			var e *m2mauth.Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, test.scopes, e.Scopes)
			assert.Contains(t, e.Description, test.text)
			assert.Equal(t, e.Status, w.Code)
			assert.Contains(t, w.Body.String(), test.text)
			assert.NotContains(t, w.Body.String()+fmt.Sprint(w.Header()), "db.internal", "nothing internal")
			plain := strings.NewReplacer(`\`, "", `"`, "").Replace(log.String())
			assert.Contains(t, plain, test.logged)
			if test.kind != m2mauth.ErrInternal {
				assert.Contains(t, plain, "pattern=GET /orgs/{org}/things")
			}
		})
	}
}

func TestAFunctionIsAskedLastAndOnlyOfTokensThatPass(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer)
	a, acme := m2mauth.AllScopes("a"), m2mauth.OrganizationPath("org")
	asked := 0
	ask := m2mauth.Custom("ask", func(ctx context.Context, c m2mauth.Claims, r m2mauth.Request) error {
		asked++
		assert.Equal(t, "value", ctx.Value(contextKey{}))
		assert.Equal(t, []string{"seen"}, r.Header("x-test"))
		assert.NotEmpty(t, c.ClientID())
		return nil
	})
	for _, test := range []struct {
		rule  m2mauth.Rule
		token m2mauthtest.Token
		want  int
	}{
		{ask, m2mauthtest.Token{}, 1},
		{ask, m2mauthtest.Token{OrganizationID: "acme"}, 0},
		{m2mauth.AllOf(ask, a), m2mauthtest.Token{Scopes: []string{"a"}}, 1},
		{m2mauth.AllOf(ask, a), m2mauthtest.Token{}, 0},
		{m2mauth.AllOf(a, ask), m2mauthtest.Token{}, 0},
		{m2mauth.AllOf(m2mauth.AllOf(ask, m2mauth.AnyToken()), a), m2mauthtest.Token{}, 0},
		{m2mauth.AllOf(m2mauth.AnyOf(m2mauth.UserToken(), ask), a), m2mauthtest.Token{}, 0},
		{m2mauth.AnyOf(a, ask), m2mauthtest.Token{Scopes: []string{"a"}}, 0},
		{m2mauth.AnyOf(a, ask), m2mauthtest.Token{}, 1},
		{m2mauth.AllOf(ask, acme), m2mauthtest.Token{OrganizationID: "globex"}, 0},
	} {
		asked = 0
		test.token.Audience = shop
		r := httptest.NewRequest(http.MethodGet, "/orgs/acme", nil)
		r = r.WithContext(context.WithValue(t.Context(), contextKey{}, "value"))
		r.Header.Set("X-Test", "seen")
		r.Header.Set("Authorization", "Bearer "+issuer.Sign(test.token))
		_, _ = guard.Check(r, test.rule)
		assert.Equal(t, test.want, asked, "%s of %+v", test.rule, test.token)
	}
}

type contextKey struct{}

func TestOptional(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer)
	rule := m2mauth.Optional(m2mauth.AllScopes("a"))
	assert.True(t, rule.IsOptional())
	assert.False(t, m2mauth.AllScopes("a").IsOptional())
	good := "Bearer " + issuer.Token(shop, "a")
	for _, test := range []struct {
		name   string
		fields []string
		status int
		caller bool
	}{
		{"no field", nil, 200, false},
		{"an empty field", []string{""}, 200, false},
		{"another scheme", []string{"Basic YTpi"}, 200, false},
		{"a good token", []string{good}, 200, true},
		{"a token without the scope", []string{"Bearer " + issuer.Token(shop, "b")}, 403, false},
		{"a bad token", []string{good + "x"}, 401, false},
		{"Bearer alone", []string{"Bearer"}, 400, false},
		{"two fields", []string{good, good}, 400, false},
		{"another scheme beside a token", []string{"Basic YTpi", good}, 400, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			claims, err := guard.Check(requestWith(test.fields...), rule)
			assert.Equal(t, test.status != 200, err != nil)
			assert.Equal(t, test.caller, !claims.IsZero())

			reached := false
			w := httptest.NewRecorder()
			w.Header().Set("Vary", "Origin")
			guard.RequireRule(rule)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				reached = true
				_, caller := m2mauth.FromContext(r.Context())
				assert.Equal(t, test.caller, caller)
			})).ServeHTTP(w, requestWith(test.fields...))
			assert.Equal(t, test.status, w.Code)
			assert.Equal(t, test.status == 200, reached)
			assert.Equal(t, []string{"Origin", "Authorization"}, w.Header().Values("Vary"))
		})
	}
}

func TestMistakesInRulesPanic(t *testing.T) {
	t.Parallel()
	a := m2mauth.AllScopes("a")
	optional := m2mauth.Optional(a)
	guard := quietGuard(t, m2mauthtest.NewIssuer())
	organizations := quietGuard(t, m2mauthtest.NewIssuer(), func(c *m2mauth.Config) { c.Audience = "urn:logto:organization:" })
	for _, test := range []struct {
		want string
		make func()
	}{
		{`AllOf: no rule given`, func() { m2mauth.AllOf() }},
		{`AnyOf: no rule given`, func() { m2mauth.AnyOf() }},
		{`AllOf: Rule{} cannot be part of another rule`, func() { m2mauth.AllOf(a, m2mauth.Rule{}) }},
		{`AnyOf: Rule{} cannot be part of another rule`, func() { m2mauth.AnyOf(m2mauth.Rule{}) }},
		{`AllOf: Optional(AllScopes("a")) cannot be part of another rule`, func() { m2mauth.AllOf(optional, a) }},
		{`AnyOf: Optional(AllScopes("a")) cannot be part of another rule`, func() { m2mauth.AnyOf(a, optional) }},
		{`Optional: Optional(AllScopes("a")) cannot be optional`, func() { m2mauth.Optional(optional) }},
		{`Optional: Rule{} cannot be optional`, func() { m2mauth.Optional(m2mauth.Rule{}) }},
		{`AllOf(MachineToken(), AllScopes("a"), UserToken()): no token can meet this`, func() { m2mauth.AllOf(m2mauth.MachineToken(), a, m2mauth.UserToken()) }},
		{`AllOf(MachineToken(), UserToken()): no token can meet this`, func() { m2mauth.AnyOf(a, m2mauth.AllOf(m2mauth.MachineToken(), m2mauth.UserToken())) }},
		{`ClientID(): nothing given`, func() { m2mauth.ClientID() }},
		{`ClientID("x", ""): nothing given, or something empty`, func() { m2mauth.ClientID("x", "") }},
		{`HasClaim("tier"): nothing given`, func() { m2mauth.HasClaim("tier") }},
		{`HasClaim("tier", ""): nothing given, or something empty`, func() { m2mauth.HasClaim("tier", "") }},
		{`HasClaim("", "gold"): nothing given, or something empty`, func() { m2mauth.HasClaim("", "gold") }},
		{`OrganizationPath(""): nothing given, or something empty`, func() { m2mauth.OrganizationPath("") }},
		{`OrganizationPath("{org}"): give the wildcard's name alone`, func() { m2mauth.OrganizationPath("{org}") }},
		{`OrganizationPath(":org"): give the wildcard's name alone`, func() { m2mauth.OrganizationPath(":org") }},
		{`OrganizationHeader(""): nothing given, or something empty`, func() { m2mauth.OrganizationHeader("") }},
		{`OrganizationHeader("Host"): no header field of that name`, func() { m2mauth.OrganizationHeader("Host") }},
		{`OrganizationHeader("host"): no header field of that name`, func() { m2mauth.OrganizationHeader("host") }},
		{`OrganizationHeader("authorization"): no header field of that name`, func() { m2mauth.OrganizationHeader("authorization") }},
		{`OrganizationHeader("TE"): no header field of that name`, func() { m2mauth.OrganizationHeader("TE") }},
		{`OrganizationHeader("Transfer-Encoding"): no header field of that name`, func() { m2mauth.OrganizationHeader("Transfer-Encoding") }},
		{`OrganizationHeader("proxy-authorization"): no header field of that name`, func() { m2mauth.OrganizationHeader("proxy-authorization") }},
		{`OrganizationHeader("X Organization"): no header field of that name`, func() { m2mauth.OrganizationHeader("X Organization") }},
		{`OrganizationHeader("X-Organization:"): no header field of that name`, func() { m2mauth.OrganizationHeader("X-Organization:") }},
		{`OrganizationHeader("X-Organization\n"): no header field of that name`, func() { m2mauth.OrganizationHeader("X-Organization\n") }},
		{`OrganizationHeader(":authority"): no header field of that name`, func() { m2mauth.OrganizationHeader(":authority") }},
		{`OrganizationHeader("X-Größe"): no header field of that name`, func() { m2mauth.OrganizationHeader("X-Größe") }},
		{`Organization: the function is nil`, func() { m2mauth.Organization(nil) }},
		{`Custom("stock"): the function is nil`, func() { m2mauth.Custom("stock", nil) }},
		{`RequireRule: the zero Rule lets nobody through`, func() { guard.RequireRule(m2mauth.Rule{}) }},
		{`RequireRule: AllOf(MachineToken(), AllScopes("a")) names no organization`, func() { organizations.RequireRule(m2mauth.AllOf(m2mauth.MachineToken(), a)) }},
		{`Require: AllScopes("a") names no organization`, func() { organizations.Require("a") }},
		{`RequireAny: AnyScope("a") names no organization`, func() { organizations.RequireAny("a") }},
		{`Authenticate: AnyToken() names no organization`, func() { organizations.Authenticate(http.NotFoundHandler()) }},
	} {
		t.Run(test.want, func(t *testing.T) {
			t.Parallel()
			want := "m2mauth: " + strings.ReplaceAll(test.want, "AllOf(a, ", `AllOf(AllScopes("a"), `)
			message := ""
			func() {
				defer func() { message, _ = recover().(string) }()
				test.make()
			}()
			require.NotEmpty(t, message, "no panic")
			assert.Contains(t, message, want)
		})
	}
	assert.NotPanics(t, func() {
		m2mauth.AnyOf(m2mauth.MachineToken(), m2mauth.UserToken())
		m2mauth.AllOf(m2mauth.MachineToken(), m2mauth.MachineToken(), m2mauth.AnyOf(m2mauth.UserToken(), a)) // a part that routes share
		organizations.RequireRule(m2mauth.AnyOf(a, m2mauth.OrganizationPath("org")))
		m2mauth.OrganizationHeader("x_organization.id")
	})
}

// TestRuleIsPrintedAsItIsWritten is for reviews and logs.
func TestRuleIsPrintedAsItIsWritten(t *testing.T) {
	t.Parallel()
	none := func(context.Context, m2mauth.Claims, m2mauth.Request) error { return nil }
	rule := m2mauth.Optional(m2mauth.AnyOf(
		m2mauth.AllOf(m2mauth.Custom("stock", none), m2mauth.OrganizationPath("org"), m2mauth.AllScopes("a", "b")),
		m2mauth.AllOf(m2mauth.MachineToken(), m2mauth.ClientID("x", "y"), m2mauth.HasClaim("tier", "gold", "silver")),
		m2mauth.AllOf(m2mauth.UserToken(), m2mauth.OrganizationHeader("X-Org")),
		m2mauth.Organization(func(m2mauth.Request) string { return "" }),
	))
	assert.Equal(t, `Optional(AnyOf(AllOf(Custom("stock"), OrganizationPath("org"), AllScopes("a", "b")), `+
		`AllOf(MachineToken(), ClientID("x", "y"), HasClaim("tier", "gold", "silver")), `+
		`AllOf(UserToken(), OrganizationHeader("X-Org")), Organization(func)))`, rule.String())
}

// TestClaimsOfARuleAreReadByManyRequests has several rules ask the same token at once.
func TestClaimsOfARuleAreReadByManyRequests(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer)
	token := m2mauthtest.Token{Audience: shop, Claims: map[string]any{"tier": "gold", "roles": []string{"editor", "admin"}}}
	r := requestWith("Bearer " + issuer.Sign(token))
	require.NoError(t, guard.Warm(t.Context()))
	for range 20 {
		for want, rule := range map[bool]m2mauth.Rule{
			true:  m2mauth.AllOf(m2mauth.HasClaim("tier", "gold"), m2mauth.HasClaim("roles", "admin")),
			false: m2mauth.AnyOf(m2mauth.HasClaim("roles", "gold"), m2mauth.HasClaim("none", "gold"), m2mauth.HasClaim("tier", "admin")),
		} {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				_, err := guard.Check(r, rule)
				assert.Equal(t, want, err == nil)
			})
		}
	}
}

// TestARuleIsNotChangedThroughWhatItWasMadeOf keeps a rule apart from its caller's memory.
func TestARuleIsNotChangedThroughWhatItWasMadeOf(t *testing.T) {
	t.Parallel()
	clients, values := []string{"x"}, []string{"gold"}
	parts := []m2mauth.Rule{m2mauth.ClientID(clients...), m2mauth.HasClaim("tier", values...)}
	rule := m2mauth.AllOf(parts...)
	clients[0], values[0], parts[0] = "changed", "changed", m2mauth.AnyToken()
	assert.Equal(t, `AllOf(ClientID("x"), HasClaim("tier", "gold"))`, rule.String())
}
