package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth/revocation"
)

// revokeCommand adds an entry to the list. It takes what is given of [revocation.Entry].
type revokeCommand struct {
	listFlags
	byFlags

	Issuer       []string `sep:"none" help:"iss of the tokens, exactly as they have it. Can be repeated: a Logto tenant with a custom domain has two. By default M2MAUTH_ISSUER." placeholder:"URL"`
	JTI          string   `name:"jti" help:"One token, by its claim jti (m2mauth decode shows it). Never give the token itself." placeholder:"JTI" group:"Which tokens"`
	Client       string   `help:"Those of a client, by its ID." placeholder:"ID" group:"Which tokens"`
	Subject      string   `help:"Those of a subject, such as a user." placeholder:"SUB" group:"Which tokens"`
	Organization string   `help:"Those for an organization; with --client or --subject, those of this member for it." placeholder:"ID" group:"Which tokens"`
	All          bool     `help:"All tokens of the issuers. Needs --before or --until-undone." group:"Which tokens"`
	Before       string   `xor:"end" help:"Only tokens issued before this time: now, or as in RFC 3339. The entry ends by itself." placeholder:"TIME" group:"For how long"`
	UntilUndone  bool     `xor:"end" help:"Also tokens issued later, until m2mauth undo. This is the default, except for --all." group:"For how long"`
	JSON         bool     `name:"json" help:"Print the entry as JSON, for scripts."`
}

// Help is shown below the flags.
func (revokeCommand) Help() string {
	return `Returns once the store has the entry for good. Every replica refuses these tokens within about two seconds.`
}

// Run revokes.
func (c *revokeCommand) Run(e *environment) error {
	entry, err := c.entry(e.getenv, time.Now())
	if err != nil {
		return err
	}
	return c.withList(e, func(ctx context.Context, list *revocation.List) error {
		entry, err := list.Revoke(ctx, entry)
		if errors.Is(err, revocation.ErrInvalid) {
			return usageError{err}
		}
		if err != nil {
			return unconfirmed("the entry", err)
		}
		if c.JSON {
			return writeJSON(e.stdout, entry)
		}
		_, err = fmt.Fprint(e.stdout, printable(fmt.Sprintf(
			"Revoked %s of %s, %s.\nEntry %s is in the store: replicas refuse these tokens within about two seconds.\nTo end it: m2mauth undo %[4]s --reason …\n",
			selects(entry), strings.Join(entry.Issuers, " and "), until(entry), entry.ID)))
		return err
	})
}

// entry reads the flags. What it does not check, the list does.
func (c *revokeCommand) entry(getenv func(string) string, now time.Time) (revocation.Entry, error) {
	by, err := c.by(getenv)
	if err != nil {
		return revocation.Entry{}, err
	}
	entry := revocation.Entry{
		Issuers: c.Issuer, Token: c.JTI, Client: c.Client, Subject: c.Subject, Organization: c.Organization, All: c.All, By: by, Reason: c.Reason,
	}
	if issuer := getenv("M2MAUTH_ISSUER"); len(entry.Issuers) == 0 && issuer != "" {
		entry.Issuers = []string{issuer}
	}
	if len(entry.Issuers) == 0 {
		return entry, usageError{errors.New("whose tokens? Give --issuer, or set M2MAUTH_ISSUER")}
	}
	if err := noToken(append(entry.Issuers[:len(entry.Issuers):len(entry.Issuers)], c.JTI, c.Client, c.Subject, c.Organization, by, c.Reason)...); err != nil {
		return entry, err
	}
	switch {
	case c.Before == "now":
		entry.Before = now
	case c.Before != "":
		if entry.Before, err = time.Parse(time.RFC3339, c.Before); err != nil {
			return entry, usageError{errors.New("--before is neither now nor a time such as 2026-01-31T12:00:00Z")}
		}
	case c.All && !c.UntilUndone:
		return entry, usageError{errors.New("--all shuts out everybody: say --before now, or --until-undone if tokens that are issued later shall be refused too")}
	}
	return entry, nil
}

// noToken refuses a whole token: the store would keep it, and everybody read it.
func noToken(values ...string) error {
	for _, value := range values {
		if _, token, found := strings.Cut(value, "eyJ"); found && strings.Contains(token, ".") {
			return usageError{errors.New("a flag has a whole token: give the value of its claim, which m2mauth decode shows")}
		}
	}
	return nil
}

// selects says whose tokens an entry revokes.
func selects(e revocation.Entry) string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	add("token", e.Token)
	add("client", e.Client)
	add("subject", e.Subject)
	add("organization", e.Organization)
	if e.All {
		parts = append(parts, "all tokens")
	}
	return strings.Join(parts, " in ")
}

// until says for how long an entry is in force.
func until(e revocation.Entry) string {
	if e.Before.IsZero() {
		return "until undone"
	}
	return "issued before " + e.Before.UTC().Format(time.RFC3339)
}
