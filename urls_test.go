package m2mauth

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Many issuers publish their keys under /.well-known/, and one has them below its
// discovery document's name.
func TestJWKSURLUnderWellKnown(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"https://tenant.eu.auth0.com/.well-known/jwks.json",
		"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc/.well-known/jwks.json",
		"https://hydra.example/.well-known/jwks.json",
		"https://token.actions.githubusercontent.com/.well-known/jwks",
		"https://demo.duendesoftware.com/.well-known/openid-configuration/jwks",
		"https://keys.example/.well-known/openid-configurations",
		"https://keys.example/jwks?for=/.well-known/openid-configuration",
	} {
		_, err := New(configWith(func(c *Config) { c.JWKSURL = address }))
		assert.NoError(t, err, address)
	}
	for _, address := range []string{
		"https://your.logto.endpoint/oidc/.well-known/openid-configuration",
		"https://your.logto.endpoint/oidc/.well-known/openid-configuration/",
		"https://your.logto.endpoint/oidc/.well-known/openid-configuration?v=1",
		"https://your.logto.endpoint/oidc/.well-known/oauth-authorization-server",
		"https://your.logto.endpoint/.well-known/oauth-authorization-server/oidc",
		"https://your.logto.endpoint/oidc/.well-known/openid%2Dconfiguration",
	} {
		_, err := New(configWith(func(c *Config) { c.JWKSURL = address }))
		require.Error(t, err, address)
		assert.ErrorContains(t, err, "Config.JWKSURL must not be the discovery document", address)
		assert.ErrorContains(t, err, "/oidc/jwks", address)
	}
}

// No issuer's identifier is under /.well-known/: whoever sets one means another field.
func TestIssuerUnderWellKnown(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"https://a.example/.well-known/openid-configuration":            "Config.Issuer must not be the discovery document",
		"https://a.example/.well-known/openid-configuration/":           "Config.Issuer must not be the discovery document",
		"https://a.example/oidc/.well-known/oauth-authorization-server": "Config.Issuer must not be the discovery document",
		"https://a.example/.well-known/oauth-authorization-server/oidc": "Config.Issuer must not be the discovery document",
		"https://a.example/.well-known/jwks.json":                       "Config.Issuer must not be the token endpoint or the key set",
	} {
		_, err := New(configWith(func(c *Config) { c.Issuer = address }))
		assert.ErrorContains(t, err, want, address)
	}
}

// What keeps http out is that keys could be anyone's: an issuer that is never
// asked is a name.
func TestAnHTTPIssuerThatIsNeverAsked(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"keys given":      func(c *Config) { c.JWKS = []byte(oneKeySet) },
		"keys from a URL": func(c *Config) { c.JWKSURL = "https://keys.example/jwks" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := New(configWith(func(c *Config) { c.Issuer = "http://logto.internal:3001/oidc" }, change))
			assert.NoError(t, err)
			_, err = New(configWith(func(c *Config) { c.Issuer = "ftp://logto.internal/oidc" }, change))
			assert.ErrorContains(t, err, "Config.Issuer must be an absolute https URL", "but a URL it is")
		})
	}
	_, err := New(configWith(func(c *Config) { c.Issuer, c.JWKSURL = "http://a.example/oidc", "http://a.example/oidc/jwks" }))
	assert.ErrorContains(t, err, "Config.JWKSURL must be https", "that one is asked")
	assert.NotContains(t, err.Error(), "Config.Issuer")
}

func configWith(changes ...func(*Config)) Config {
	c := Config{Issuer: "https://your.logto.endpoint/oidc", Audience: "https://shopping.api"}
	for _, change := range changes {
		change(&c)
	}
	return c
}
