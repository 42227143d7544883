package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/redis/go-redis/v9"

	"github.com/m2mauth/m2mauth/revocation"
)

// initCommand sets a new store up.
type initCommand struct {
	storeFlags

	AcceptLoss bool `help:"Set it up even though the server may lose entries that it has acknowledged."`
}

// Help is shown below the flags.
func (initCommand) Help() string {
	return `Call it once, by hand, when a new store is put to use. Never call it after a loss: a store that was set up again looks like one in which nobody was revoked, and revoked tokens pass.

First the server is asked for the settings that could lose an entry. That needs the right +config|get too. Without it, a warning says so.`
}

// Run sets the store up.
func (c *initCommand) Run(e *environment) error {
	store, err := c.open(e.getenv)
	if err != nil {
		return err
	}
	defer store.Close()
	ctx, cancel := context.WithTimeout(e, c.Timeout)
	defer cancel()
	page, err := store.Since(ctx, "")
	if err != nil {
		return c.explain(err)
	}
	if page.Len > 0 {
		return fmt.Errorf("the store has a list already, of %d records: nothing was changed. m2mauth list shows what is in force", page.Len)
	}
	var refused redis.Error
	var network net.Error
	switch err := store.Durable(ctx); {
	case errors.As(err, &network):
		return c.explain(err)
	case errors.As(err, &refused):
		fmt.Fprintf(e.stderr, "m2mauth: warning: the server does not say whether it could lose entries, since this user may not ask (+config|get): "+
			"see that appendonly is yes, appendfsync always and maxmemory-policy noeviction (%s)\n", printable(refused.Error()))
	case err != nil && c.AcceptLoss:
		fmt.Fprintf(e.stderr, "m2mauth: warning: %s\n", printable(err.Error()))
	case err != nil:
		return c.explain(fmt.Errorf("nothing was set up: %w\nthe server may lose entries that it has acknowledged: change that, or add --accept-loss", err))
	}
	if err := revocation.Init(ctx, store); err != nil {
		return c.explain(err)
	}
	_, err = fmt.Fprintln(e.stdout, "The store is set up. Replicas serve with it within about two seconds.")
	return err
}
