package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/issuers"
)

// guardFlags are the settings of the API's guard. They come from the environment that
// the API has, unless --issuer or --issuer-kind is given; single ones can be changed by
// flags.
type guardFlags struct {
	Issuer           string        `help:"The issuer's identifier, as in Config.Issuer. With --issuer-kind what that kind is found by: a URL, a domain or a tenant's ID. Without it, settings are read from the environment." placeholder:"URL"`
	Audience         string        `help:"The API's resource indicator, as in Config.Audience." placeholder:"AUDIENCE"`
	IssuerKind       string        `help:"Take the settings of package issuers for this kind of issuer: ${kinds}." placeholder:"KIND"`
	OrganizationID   string        `help:"With --issuer-kind zitadel: the organization whose roles count." placeholder:"ID"`
	Allow            []string      `help:"With the kinds that accept only listed callers (cognito, github-actions, google, kubernetes, zitadel): whom to accept. Can be repeated." placeholder:"ID"`
	EnvPrefix        string        `help:"Prefix of the environment variables that ConfigFromEnv reads." default:"M2MAUTH_"`
	JWKSURL          string        `name:"jwks-url" help:"The URL of the key set, as in Config.JWKSURL." placeholder:"URL"`
	InsecureHTTPHost []string      `name:"insecure-http-host" help:"A host that may be contacted over http, as in Config.InsecureHTTPHosts. Can be repeated." placeholder:"HOST"`
	Timeout          time.Duration `help:"How long each request may take, as in Config.FetchTimeout." placeholder:"5s"`
	CAFile           string        `name:"ca-file" help:"A file of certificate authorities in PEM that are trusted instead of the system's." placeholder:"FILE"`
}

// config returns the Config that the API's guard has. Audience may be empty.
func (f *guardFlags) config() (c m2mauth.Config, err error) {
	switch {
	case f.IssuerKind != "":
		kind, ok := kinds[f.IssuerKind]
		if !ok {
			return c, fmt.Errorf("--issuer-kind %s is none of %s", f.IssuerKind, kindNames())
		}
		c, err = kind(f)
	case f.Issuer == "":
		c, err = fromEnv(f.EnvPrefix)
		c.Audience = cmp.Or(f.Audience, c.Audience)
	default:
		c = m2mauth.Config{Issuer: f.Issuer, Audience: f.Audience}
	}
	if err != nil {
		return c, err
	}
	if f.JWKSURL != "" {
		c.JWKSURL, c.JWKS = f.JWKSURL, nil
	}
	c.InsecureHTTPHosts = append(c.InsecureHTTPHosts, f.InsecureHTTPHost...)
	c.FetchTimeout = cmp.Or(f.Timeout, c.FetchTimeout)
	if f.CAFile != "" {
		c.HTTPClient, err = clientTrusting(f.CAFile)
	}
	return c, err
}

// settingsError is a mistake in the API's own settings, rather than in a call of this
// program.
type settingsError struct{ error }

// ownVariables begin like the settings of a guard, but are for this program alone.
var ownVariables = []string{"M2MAUTH_APP_ID", "M2MAUTH_APP_SECRET", "M2MAUTH_REDIS_PASSWORD"}

// fromEnv is [m2mauth.ConfigFromEnv], to which this program's own variables would be
// misspelled settings.
func fromEnv(prefix string) (m2mauth.Config, error) {
	for _, name := range ownVariables {
		if value, set := os.LookupEnv(name); set {
			_ = os.Unsetenv(name) // fails for names that cannot be set alone
			defer func() { _ = os.Setenv(name, value) }()
		}
	}
	c, err := m2mauth.ConfigFromEnv(prefix)
	if err != nil {
		return c, settingsError{err}
	}
	if c.Issuer == "" {
		err = errors.New("no issuer: give --issuer or --issuer-kind, or set " + strings.TrimSuffix(prefix, "_") + "_ISSUER")
	}
	return c, err
}

// clientTrusting returns a client that trusts the authorities of a file alone.
func clientTrusting(name string) (*http.Client, error) {
	pem, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca-file %s has no certificate in PEM", name)
	}
	return &http.Client{Transport: &http.Transport{
		Proxy:             http.ProxyFromEnvironment,
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		DisableKeepAlives: true,
	}}, nil
}

// kinds are the functions of package issuers by name.
var kinds = map[string]func(*guardFlags) (m2mauth.Config, error){
	"auth0":          ofTwo(issuers.Auth0),
	"authentik":      ofTwo(issuers.Authentik),
	"cognito":        ofTwoAndList(issuers.Cognito),
	"duende":         ofTwo(issuers.Duende),
	"entra-id":       ofTwo(issuers.EntraID),
	"entra-id-v1":    ofTwo(issuers.EntraIDv1),
	"github-actions": ofList(issuers.GitHubActions),
	"google":         ofList(issuers.GoogleServiceAccounts),
	"hydra":          ofTwo(issuers.Hydra),
	"keycloak":       ofTwo(issuers.Keycloak),
	"kubernetes":     ofTwoAndList(issuers.KubernetesServiceAccounts),
	"logto":          ofTwo(issuers.Logto),
	"logto-cloud":    ofTwo(issuers.LogtoCloud),
	"logto-organizations": func(f *guardFlags) (m2mauth.Config, error) {
		return issuers.LogtoOrganizations(f.Issuer)
	},
	"okta":       ofTwo(issuers.Okta),
	"openiddict": ofTwo(issuers.OpenIddict),
	"pingone":    ofTwo(issuers.PingOne),
	"spring":     ofTwo(issuers.SpringAuthorizationServer),
	"zitadel": func(f *guardFlags) (m2mauth.Config, error) {
		return issuers.Zitadel(f.Issuer, f.Audience, f.OrganizationID, f.Allow...)
	},
}

func kindNames() string { return strings.Join(slices.Sorted(maps.Keys(kinds)), ", ") }

func ofTwo(kind func(issuer, audience string) (m2mauth.Config, error)) func(*guardFlags) (m2mauth.Config, error) {
	return func(f *guardFlags) (m2mauth.Config, error) { return kind(f.Issuer, f.Audience) }
}

func ofTwoAndList(kind func(issuer, audience string, allowed ...string) (m2mauth.Config, error)) func(*guardFlags) (m2mauth.Config, error) {
	return func(f *guardFlags) (m2mauth.Config, error) { return kind(f.Issuer, f.Audience, f.Allow...) }
}

func ofList(kind func(audience string, allowed ...string) (m2mauth.Config, error)) func(*guardFlags) (m2mauth.Config, error) {
	return func(f *guardFlags) (m2mauth.Config, error) { return kind(f.Audience, f.Allow...) }
}
