package hint

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestIssuer(t *testing.T) {
	t.Parallel()
	const (
		text    = "the token is from another issuer than the one that this API trusts"
		differs = text + ": they differ by a trailing slash or by letter case alone, and are compared exactly"
		oidc    = text + ": the issuer of Logto ends in /oidc, and so must this API's Issuer setting"
		host    = text + ", though on the same host: scheme, port and path count too"
		server  = text + ": request it from the server and domain of that issuer; another domain of the same server is another issuer"
		admin   = "; Logto's admin tenant is an issuer of its own"
	)
	for name, test := range map[string]struct{ want, got, text string }{
		"a setting without /oidc":                    {"https://a.test", "https://a.test/oidc", oidc},
		"a setting with a slash and without oidc":    {"https://a.test/", "https://a.test/oidc", oidc},
		"a slash at the end of iss":                  {"https://a.test/oidc", "https://a.test/oidc/", differs},
		"a slash at the end of the setting":          {"https://a.test/oidc/", "https://a.test/oidc", differs},
		"another letter case":                        {"https://a.test/oidc", "https://A.test/OIDC", differs},
		"another port of a host":                     {"https://a.test:1/oidc", "https://a.test:2/oidc", host + admin},
		"another scheme":                             {"https://a.test/oidc", "http://a.test/oidc", host + admin},
		"another port, of another product":           {"https://a.test:1/realms/x", "https://a.test:2/realms/x", host},
		"another path, of another product":           {"https://a.test/oidcx", "https://a.test/oidc", host},
		"another domain":                             {"https://a.test/oidc", "https://b.test/oidc", server + admin},
		"another domain, of another product":         {"https://a.test", "https://b.test", server},
		"an issuer that has nothing to do with ours": {"https://a.test/oidc", "https://b.test/v2.0", text},
		"no URL":              {"https://a.test/oidc", "accounts", text},
		"no URL, of our path": {"https://a.test", "mailto:a@a.test", text},
		"a path alone":        {"https://a.test/oidc", "/oidc", text},
		"nothing":             {"https://a.test/oidc", "", text},
		"odd bytes":           {"https://a.test/oidc", "https://%zz/oidc", text},
		"odd bytes in the setting, which New would take": {"https://%zz/oidc", "https://b.test/oidc", text},
	} {
		assert.Equal(t, test.text, Issuer(test.want, test.got), name)
	}
}

func TestAudience(t *testing.T) {
	t.Parallel()
	const (
		text    = "the token is for another resource than this API"
		request = text + ": request one with the resource parameter that names this API"
		differs = text + ": the two differ by a trailing slash or by letter case alone, and are compared exactly"
		none    = text + ": it is not an organization token; request one with organization_id and without resource"
		is      = text + ": it is an organization token; request one with the resource parameter that names this API"
	)
	for name, test := range map[string]struct {
		want, got []string
		text      string
	}{
		"another resource":                     {[]string{"https://a.api"}, []string{"https://b.api"}, request},
		"none":                                 {[]string{"https://a.api"}, nil, request},
		"a slash at the end of aud":            {[]string{"https://a.api"}, []string{"https://a.api/"}, differs},
		"a slash at the end of the setting":    {[]string{"https://a.api/"}, []string{"https://a.api"}, differs},
		"another letter case":                  {[]string{"https://a.api"}, []string{"https://A.API"}, differs},
		"the last of several":                  {[]string{"https://a.api", "https://b.api"}, []string{"https://c.api", "https://b.api/"}, differs},
		"an organization token":                {[]string{"https://a.api"}, []string{"urn:logto:organization:x"}, is},
		"an organization's, and ours misspelt": {[]string{"https://a.api"}, []string{"https://a.api/", "urn:logto:organization:x"}, differs},
		"a guard for organization tokens":      {[]string{"urn:logto:organization:"}, []string{"https://a.api"}, none},
		"two slashes are not one":              {[]string{"https://a.api"}, []string{"https://a.api//"}, request},
	} {
		assert.Equal(t, test.text, Audience(test.want, test.got), name)
	}
}

func TestType(t *testing.T) {
	t.Parallel()
	const idToken = "the token's typ is not that of an access token: send an access token, not an ID token"
	assert.Contains(t, Type(false, ""), "the token has no typ: ")
	assert.Equal(t, idToken, Type(true, ""))
	assert.Equal(t, idToken, Type(true, "jwt"))
	assert.Contains(t, Type(true, "at+jwt"), "this API's TokenTypes must name it")
}
