package m2mauth

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

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

// envField is a field of Config with its variable, whose name follows the prefix.
type envField struct {
	name    string
	field   any         // points to the Config's field
	narrows bool        // the default accepts more, so an empty value must not mean the default
	weakens func() bool // whether the value protects less than the default
}

func (c *Config) settings() []envField {
	return []envField{
		{name: "ISSUER", field: &c.Issuer},
		{name: "AUDIENCE", field: &c.Audience},
		{name: "OTHER_AUDIENCES", field: &c.OtherAudiences},
		{name: "JWKS_URL", field: &c.JWKSURL},
		{name: "JWKS", field: &c.JWKS},
		{name: "INSECURE_HTTP_HOSTS", field: &c.InsecureHTTPHosts, weakens: func() bool { return len(c.InsecureHTTPHosts) > 0 }},
		{name: "ALGORITHMS", field: &c.Algorithms},
		{name: "TOKEN_TYPES", field: &c.TokenTypes, weakens: func() bool {
			return slices.ContainsFunc(c.TokenTypes, func(t string) bool { return mediaType(t) != accessTokenType })
		}},
		{name: "SCOPE_CLAIMS", field: &c.ScopeClaims},
		{name: "SCOPE_PREFIX", field: &c.ScopePrefix},
		{name: "SCOPE_ORGANIZATION", field: &c.ScopeOrganization},
		{name: "IMPLIED_SCOPES", field: &c.ImpliedScopes},
		{name: "CLIENT_CLAIMS", field: &c.ClientClaims},
		{name: "ORGANIZATION_CLAIMS", field: &c.OrganizationClaims, narrows: true},
		{name: "REQUIRED_CLAIMS", field: &c.RequiredClaims, narrows: true},
		{name: "ALLOW_MISSING_SUBJECT", field: &c.AllowMissingSubject, weakens: func() bool { return c.AllowMissingSubject }},
		{name: "CLIENTS_WITHOUT_AUDIENCE", field: &c.ClientsWithoutAudience, weakens: func() bool { return len(c.ClientsWithoutAudience) > 0 }},
		{name: "LEEWAY", field: &c.Leeway, weakens: func() bool { return c.Leeway > defaultLeeway }},
		{name: "MAX_LIFETIME", field: &c.MaxLifetime, narrows: true},
		{name: "KEY_TTL", field: &c.KeyTTL, weakens: func() bool { return c.KeyTTL > maxMaxAge }},
		{name: "KEY_STALE_FOR", field: &c.KeyStaleFor, weakens: func() bool { return c.KeyStaleFor > defaultKeyStaleFor }},
		{name: "FETCH_TIMEOUT", field: &c.FetchTimeout},
		{name: "MAX_TOKEN_BYTES", field: &c.MaxTokenBytes},
		{name: "CACHE_BYTES", field: &c.CacheBytes},
		{name: "QUEUE_KEY", field: &c.QueueKey},
		{name: "REALM", field: &c.Realm},
		{name: "HTTP_CLIENT", field: &c.HTTPClient},
		{name: "LOGGER", field: &c.Logger},
		{name: "ERROR_HANDLER", field: &c.ErrorHandler},
		{name: "INSECURE_ALLOW_ORGANIZATION_TOKENS", field: &c.InsecureAllowOrganizationTokens, weakens: func() bool { return c.InsecureAllowOrganizationTokens }},
		{name: "INSECURE_REPORT_ONLY_UNTIL", field: &c.InsecureReportOnlyUntil, weakens: func() bool { return time.Now().Before(c.InsecureReportOnlyUntil) }},
		{name: "IS_MACHINE", field: &c.IsMachine},
		{name: "ON_DECISION", field: &c.OnDecision},
	}
}

// configFrom is ConfigFromEnv for a given environment. It lists what weakens the
// protection only together with a usable Config.
func configFrom(prefix string, environ []string) (c Config, weakened []string, err error) {
	var mistakes []error
	settings := c.settings()
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		variable, value, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(variable, prefix)
		if !ours || setting.OfKubernetes.MatchString(name) || (prefix == "M2MAUTH_" && strings.HasPrefix(name, "GATEWAY_")) {
			continue
		}
		mistake := setting.Unknown
		if n := slices.IndexFunc(settings, func(f envField) bool { return f.name == name }); n >= 0 {
			s := settings[n]
			if value == "" && !s.narrows {
				continue
			}
			if mistake = setting.Parse(s.field, value); mistake == "" && s.weakens != nil && s.weakens() {
				weakened = append(weakened, variable)
			}
		}
		if mistake != "" {
			mistakes = append(mistakes, fmt.Errorf("m2mauth: %s %s", variable, mistake))
		}
	}
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
