package m2mauth

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/setting"
)

// ConfigFromEnv reads a [Config] from the environment variables that begin with prefix.
// Each is named after its field: with the prefix M2MAUTH_, M2MAUTH_ISSUER sets Issuer,
// M2MAUTH_JWKS_URL sets JWKSURL, and M2MAUTH_INSECURE_HTTP_HOSTS sets
// InsecureHTTPHosts. If prefix does not end in an underscore, one is added. An empty
// variable counts as not set, and a field that is not set keeps its zero value, the
// default. MAX_LIFETIME, ORGANIZATION_CLAIMS and REQUIRED_CLAIMS must not be empty,
// since their default accepts more. Functions, HTTPClient and Logger can only be set in
// code, in the returned Config.
//
//   - Lists are separated by commas: ES256,EdDSA. In TokenTypes, none means a
//     token without typ.
//   - Maps are written as a=b c;d=e.
//   - Durations and numbers are written as in Go, but not zero, which would mean the
//     default. Times are as in RFC 3339, and a bool is true or false.
//
// The error lists all mistakes at once, and never a value, which might be a secret. A
// variable that begins with prefix but is not a setting is a mistake, so that a typo
// does not drop a setting. The exceptions are variables that Kubernetes adds for a
// Service whose name begins like prefix, and those of the gateway, M2MAUTH_GATEWAY_….
// So if one program uses two prefixes, neither may begin with the other. [New] detects
// missing settings and settings that conflict.
//
// Settings that weaken the protection are listed in one line at Warn, in
// [slog.Default].
func ConfigFromEnv(prefix string) (Config, error) {
	if prefix == "" {
		return Config{}, errors.New("m2mauth: ConfigFromEnv needs a prefix, such as M2MAUTH_")
	}
	c, weakened, err := configFrom(strings.TrimSuffix(prefix, "_")+"_", os.Environ())
	if len(weakened) > 0 {
		slog.Warn("m2mauth: settings from the environment weaken the protection", "variables", strings.Join(weakened, ", "))
	}
	return c, err
}

// settings has every field of Config with its variable, whose name follows the prefix.
func (c *Config) settings() []setting.Variable {
	return []setting.Variable{
		{Name: "ISSUER", Field: &c.Issuer},
		{Name: "AUDIENCE", Field: &c.Audience},
		{Name: "OTHER_AUDIENCES", Field: &c.OtherAudiences},
		{Name: "JWKS_URL", Field: &c.JWKSURL},
		{Name: "JWKS", Field: &c.JWKS},
		{Name: "INSECURE_HTTP_HOSTS", Field: &c.InsecureHTTPHosts, Weakens: func() bool { return len(c.InsecureHTTPHosts) > 0 }},
		{Name: "ALGORITHMS", Field: &c.Algorithms},
		{Name: "TOKEN_TYPES", Field: &c.TokenTypes, Weakens: func() bool {
			return slices.ContainsFunc(c.TokenTypes, func(t string) bool { return jose.MediaType(t) != accessTokenType })
		}},
		{Name: "SCOPE_CLAIMS", Field: &c.ScopeClaims},
		{Name: "SCOPE_PREFIX", Field: &c.ScopePrefix},
		{Name: "SCOPE_ORGANIZATION", Field: &c.ScopeOrganization},
		{Name: "IMPLIED_SCOPES", Field: &c.ImpliedScopes},
		{Name: "CLIENT_CLAIMS", Field: &c.ClientClaims},
		{Name: "ORGANIZATION_CLAIMS", Field: &c.OrganizationClaims, Narrows: true},
		{Name: "REQUIRED_CLAIMS", Field: &c.RequiredClaims, Narrows: true},
		{Name: "ALLOW_MISSING_SUBJECT", Field: &c.AllowMissingSubject, Weakens: func() bool { return c.AllowMissingSubject }},
		{Name: "CLIENTS_WITHOUT_AUDIENCE", Field: &c.ClientsWithoutAudience, Weakens: func() bool { return len(c.ClientsWithoutAudience) > 0 }},
		{Name: "LEEWAY", Field: &c.Leeway, Weakens: func() bool { return c.Leeway > defaultLeeway }},
		{Name: "MAX_LIFETIME", Field: &c.MaxLifetime, Narrows: true},
		{Name: "KEY_TTL", Field: &c.KeyTTL, Weakens: func() bool { return c.KeyTTL > maxMaxAge }},
		{Name: "KEY_STALE_FOR", Field: &c.KeyStaleFor, Weakens: func() bool { return c.KeyStaleFor > defaultKeyStaleFor }},
		{Name: "FETCH_TIMEOUT", Field: &c.FetchTimeout},
		{Name: "MAX_TOKEN_BYTES", Field: &c.MaxTokenBytes},
		{Name: "CACHE_BYTES", Field: &c.CacheBytes},
		{Name: "QUEUE_KEY", Field: &c.QueueKey},
		{Name: "REALM", Field: &c.Realm},
		{Name: "HTTP_CLIENT", Field: &c.HTTPClient},
		{Name: "LOGGER", Field: &c.Logger},
		{Name: "ERROR_HANDLER", Field: &c.ErrorHandler},
		{Name: "INSECURE_ALLOW_ORGANIZATION_TOKENS", Field: &c.InsecureAllowOrganizationTokens, Weakens: func() bool { return c.InsecureAllowOrganizationTokens }},
		{Name: "INSECURE_REPORT_ONLY_UNTIL", Field: &c.InsecureReportOnlyUntil, Weakens: func() bool { return time.Now().Before(c.InsecureReportOnlyUntil) }},
		{Name: "IS_MACHINE", Field: &c.IsMachine},
		{Name: "REVOKED", Field: &c.Revoked},
		{Name: "ON_DECISION", Field: &c.OnDecision},
	}
}

// configFrom is ConfigFromEnv for a given environment. It lists what weakens the
// protection only together with a usable Config.
func configFrom(prefix string, environ []string) (c Config, weakened []string, err error) {
	other := ""
	if prefix == "M2MAUTH_" {
		other = "GATEWAY_"
	}
	weakened, mistakes := setting.FromEnviron(c.settings(), environ, prefix, other)
	if len(mistakes) > 0 {
		return Config{}, nil, errors.Join(mistakes...)
	}
	for i, t := range c.TokenTypes {
		if t == "none" {
			c.TokenTypes[i] = ""
		}
	}
	return c, weakened, nil
}
