package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/m2mauth/m2mauth/revocation"
)

// listCommand shows what is revoked.
type listCommand struct {
	listFlags

	JSON bool `name:"json" help:"Print JSON, for scripts: {\"entries\":[…]}."`
}

// Help is shown below the flags.
func (listCommand) Help() string {
	return `The entries in force, the oldest first. Those with a time before may have ended for an API whose tokens live shorter than --max-token-lifetime.`
}

// Run prints the entries.
func (c *listCommand) Run(e *environment) error {
	return c.withList(e, func(_ context.Context, list *revocation.List) error {
		entries := list.All()
		if c.JSON {
			return writeJSON(e.stdout, struct {
				Entries []revocation.Entry `json:"entries"`
			}{entries})
		}
		var out bytes.Buffer
		table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tREVOKES\tFOR\tISSUERS\tBY\tAT\tREASON")
		for _, entry := range entries {
			by := entry.By
			if entry.Webhook {
				by += " (webhook)"
			}
			fmt.Fprintln(table, strings.Join([]string{
				entry.ID, selects(entry), until(entry), strings.Join(entry.Issuers, " "), by, entry.At.UTC().Format(time.RFC3339), entry.Reason,
			}, "\t"))
		}
		if err := table.Flush(); err != nil {
			return err
		}
		if len(entries) == 0 {
			out.Reset()
			fmt.Fprintln(&out, "Nothing is revoked.")
		}
		_, err := io.WriteString(e.stdout, printable(out.String()))
		return err
	})
}
