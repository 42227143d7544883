package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/cmd/m2mauth/internal/doctor"
	"github.com/m2mauth/m2mauth/internal/scope"
)

// tokenChecks returns what to do about a token once the issuer was examined: check the
// given one, or request one for the application, or nothing.
func (c *doctorCommand) tokenChecks(e *environment, config m2mauth.Config, r *doctor.Report) (func(doctor.Found), error) {
	demand, err := c.demand()
	if err != nil {
		return nil, err
	}
	id, secret := e.getenv("M2MAUTH_APP_ID"), e.getenv("M2MAUTH_APP_SECRET")
	switch {
	case c.Token == "" && id == "" && secret == "" && c.AppSecretFile == "":
		if c.TokenURL != "" || c.Resource != "" || c.ResourceAs != "" {
			return nil, errors.New("--token-url, --resource and --resource-as say how a token is requested: set M2MAUTH_APP_ID, and M2MAUTH_APP_SECRET or --app-secret-file")
		}
		if len(c.Scope) > 0 || c.Organization != "" {
			return nil, errors.New("--scope and --organization say what a token is checked for: give --token, or M2MAUTH_APP_ID and a secret")
		}
		return func(doctor.Found) {}, nil
	case config.Audience == "":
		return nil, errors.New("a token is checked for an API: give --audience, or set " + strings.TrimSuffix(c.EnvPrefix, "_") + "_AUDIENCE")
	case c.Token != "":
		token, err := readToken(e, c.Token)
		if err != nil {
			return nil, err
		}
		return func(f doctor.Found) { doctor.Token(e, f, token, demand, r) }, nil
	case id == "":
		return nil, errors.New("there is the secret of an application, and not its ID: set M2MAUTH_APP_ID")
	}
	app := doctor.App{ID: id, Secret: secret, TokenURL: c.TokenURL, Resource: cmp.Or(c.Resource, config.Audience)}
	if app.ResourceAs, err = c.resourceAs(); err != nil {
		return nil, err
	}
	if c.AppSecretFile != "" {
		if app.Secret, err = doctor.ReadSecret(c.AppSecretFile, r); err != nil {
			return nil, fmt.Errorf("--app-secret-file takes the name of a file: %w", withoutName(err))
		}
	}
	if app.Secret == "" {
		return nil, errors.New("the application has no secret: set M2MAUTH_APP_SECRET, or give --app-secret-file")
	}
	return func(f doctor.Found) { doctor.AppToken(e, f, app, demand, r) }, nil
}

// demand reads --scope, which may also hold several with spaces, as a token request does.
func (c *doctorCommand) demand() (doctor.Demand, error) {
	d := doctor.Demand{Organization: c.Organization}
	for _, text := range c.Scope {
		d.Scopes = append(d.Scopes, strings.Fields(text)...)
	}
	if i := slices.IndexFunc(d.Scopes, func(s string) bool { return !scope.Valid(s) }); i >= 0 {
		return d, fmt.Errorf("--scope %s: no token can have such a scope", doctor.Shown(d.Scopes[i]))
	}
	return d, nil
}

// maxTokenFile is more than any guard accepts as a token.
const maxTokenFile = 128 << 10

// readToken reads a token from standard input or a file, with or without Bearer before
// it.
func readToken(e *environment, name string) (string, error) {
	from := e.stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("--token takes the name of a file, or - for standard input: %w", withoutName(err))
		}
		defer file.Close()
		from = file
	}
	content, err := io.ReadAll(io.LimitReader(from, maxTokenFile+1))
	if err != nil {
		return "", err
	}
	if len(content) > maxTokenFile {
		return "", errors.New("--token: this is longer than any token")
	}
	return bare(string(content)), nil
}

// withoutName is the error of a file without its name, since that may be a token or a
// secret that was given by mistake.
func withoutName(err error) error {
	if wrapped, ok := errors.AsType[*os.PathError](err); ok {
		return wrapped.Err
	}
	return err
}

// resourcesAs has the kinds of issuers that do not know resource.
var resourcesAs = map[string]doctor.ResourceAs{
	"auth0":       doctor.AsAudience,
	"entra-id":    doctor.AsDefaultScope,
	"entra-id-v1": doctor.AsDefaultScope,
	"hydra":       doctor.AsAudience,
}

func (c *doctorCommand) resourceAs() (doctor.ResourceAs, error) {
	switch how := doctor.ResourceAs(c.ResourceAs); how {
	case "":
		return resourcesAs[c.IssuerKind], nil
	case doctor.AsResource, doctor.AsAudience, doctor.AsDefaultScope, doctor.AsNothing:
		return how, nil
	}
	return "", fmt.Errorf("--resource-as %s is none of resource, audience, default-scope, none", doctor.Shown(c.ResourceAs))
}
