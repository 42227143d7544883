package main

import (
	"errors"

	"github.com/m2mauth/m2mauth/cmd/m2mauth/internal/doctor"
)

// doctorCommand examines an issuer, and a token or an app if one is given.
type doctorCommand struct {
	guardFlags

	Token         string   `help:"Check an access token: - reads it from standard input, otherwise from this file." placeholder:"FILE"`
	AppSecretFile string   `help:"A file with the secret of the application M2MAUTH_APP_ID, instead of M2MAUTH_APP_SECRET. With both, a token is requested for it and checked." placeholder:"FILE"`
	TokenURL      string   `name:"token-url" help:"Where to send the application's secret. Default: the issuer's token endpoint, if that is of its own origin." placeholder:"URL"`
	Resource      string   `help:"The API that the token is requested for. Default: the audience." placeholder:"URL"`
	ResourceAs    string   `help:"How the request names the API: as resource, as audience, as default-scope (RESOURCE/.default), or none. Default: as the kind of issuer wants it, or resource." placeholder:"HOW"`
	Scope         []string `help:"A scope that the route requires. Can be repeated." placeholder:"SCOPE" sep:"none"`
	Organization  string   `help:"The organization that the route belongs to, as its rule has it." placeholder:"ID"`

	JSON bool `help:"Print the report as JSON, for scripts."`
}

// Run prints a report. A check that failed makes the exit status 1.
func (c *doctorCommand) Run(e *environment) error {
	report := new(doctor.Report)
	config, err := c.config()
	if _, theirs := errors.AsType[settingsError](err); theirs {
		report.Settings(err)
	} else if err != nil {
		return usageError{err}
	} else {
		examine, err := c.tokenChecks(e, config, report)
		if err != nil {
			return usageError{err}
		}
		examine(doctor.Issuer(e, config, report))
	}
	if err := e.Err(); err != nil { // interrupted: what was found by then would mislead
		return err
	}

	write := report.WriteTable
	if c.JSON {
		write = report.WriteJSON
	}
	if err := write(e.stdout); err != nil {
		return err
	}
	if report.Failed() {
		return errFound
	}
	return nil
}
