package tokens

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
)

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
				testguard.SleepUntil(time.Unix(test.clock, 0))
				guard, err := m2mauth.New(m2mauth.Config{
					Issuer: "http://localhost:3001/oidc", Audience: "https://shopping.api",
					JWKS: keys, Logger: slog.New(slog.DiscardHandler),
				})
				require.NoError(t, err)
				got := make([]byte, len(rules))
				for i, rule := range rules {
					r := httptest.NewRequest(http.MethodGet, "/orgs/"+recordedOrganization+"/things", nil)
					r.Header.Set("Authorization", "Bearer "+token)
					got[i] = byte(testguard.FateOf(t, guard, rule, "GET /orgs/{org}/things", r))
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
	recordings, err := os.ReadDir(recordings)
	require.NoError(t, err)
	for _, file := range recordings {
		if name := file.Name(); strings.HasSuffix(name, ".jwt") || strings.HasSuffix(name, ".txt") {
			assert.Contains(t, named, name)
		}
	}
}

// TestRecordedOrganizationTokens has what the recorded server grants without a
// resource, and what a guard for such tokens must refuse of what it grants else.
func TestRecordedOrganizationTokens(t *testing.T) {
	t.Parallel()
	organization := m2mauth.OrganizationPath("org")
	rules := []m2mauth.Rule{ // the columns
		organization,
		m2mauth.AllOf(organization, m2mauth.AllScopes("read:invoices")),
		m2mauth.AllOf(organization, m2mauth.AllScopes("manage:members", "read:invoices")),
		m2mauth.AllOf(organization, m2mauth.MachineToken()),
		m2mauth.AllOf(organization, m2mauth.AllScopes("read:products")),
	}
	for _, test := range recordedOrganizationFates {
		t.Run(test.file+" for "+test.path, func(t *testing.T) {
			t.Parallel()
			token, keys := strings.TrimSpace(string(recordedFile(t, test.file))), recordedFile(t, test.keys)
			synctest.Test(t, func(t *testing.T) {
				testguard.SleepUntil(time.Unix(test.clock, 0))
				config := m2mauth.Config{
					Issuer: "http://localhost:3001/oidc", Audience: testguard.OrganizationToken, JWKS: keys,
					Logger: slog.New(slog.DiscardHandler),
				}
				guard, err := m2mauth.New(config)
				require.NoError(t, err)
				got := make([]byte, len(rules))
				for i, rule := range rules {
					r := httptest.NewRequest(http.MethodGet, "/orgs/"+test.path+"/invoices", nil)
					r.Header.Set("Authorization", "Bearer "+token)
					got[i] = byte(testguard.FateOf(t, guard, rule, "GET /orgs/{org}/invoices", r))
				}
				assert.Equal(t, test.want, string(got))

				if test.organization != "" {
					config.InsecureAllowOrganizationTokens = true
					guard, err = m2mauth.New(config)
					require.NoError(t, err)
					claims, err := guard.Verify(t.Context(), token)
					require.NoError(t, err)
					assert.Equal(t, test.organization, claims.OrganizationID())
				}
			})
		})
	}
}

var recordedOrganizationFates = []struct {
	file, keys   string
	clock        int64
	path         string
	want         string
	organization string
}{
	{"organization.jwt", "jwks-1-initial.json", 1795207148, recordedOrganization, "....s", recordedOrganization},
	{"organization.jwt", "jwks-1-initial.json", 1795207148, "another", "ffffs", ""},
	{"organization.jwt", "jwks-1-initial.json", 1795207148, "VSXYA5MY4BM6", "ffffs", ""},
	{"organization-no-scope-param.jwt", "jwks-1-initial.json", 1795207148, recordedOrganization, ".ss.s", recordedOrganization},
	{"organization-app-without-org-role.jwt", "jwks-1-initial.json", 1795207148, recordedOrganization, ".ss.s", recordedOrganization},
	{"rs256-organization.jwt", "jwks-3-after-rsa-rotation.json", 1795207327, recordedOrganization, "....s", recordedOrganization},
	{"user-organization.jwt", "jwks-1-initial.json", 1795207250, recordedOrganization, "..sfs", recordedOrganization},
	{"organization-reserved-resource.jwt", "jwks-1-initial.json", 1795207148, recordedOrganization, "uuuuu", ""},
	{"organization-resource.jwt", "jwks-1-initial.json", 1795207148, recordedOrganization, "uuuuu", ""},
	{"m2m-read.jwt", "jwks-1-initial.json", 1795207147, recordedOrganization, "uuuuu", ""},
	{"id-token.jwt", "jwks-1-initial.json", 1795207251, recordedOrganization, "uuuuu", ""},
}
