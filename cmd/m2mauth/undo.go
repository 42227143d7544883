package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/m2mauth/m2mauth/revocation"
)

// undoCommand ends an entry.
type undoCommand struct {
	listFlags
	byFlags

	ID string `arg:"" help:"The entry's ID, as m2mauth list shows it."`
}

// Help is shown below the flags.
func (undoCommand) Help() string {
	return `Ends an entry for good, once the store has that. Replicas accept its tokens again within about two seconds. To undo one again is no error.`
}

// Run undoes.
func (c *undoCommand) Run(e *environment) error {
	by, err := c.by(e.getenv)
	if err != nil {
		return err
	}
	if err := noToken(c.ID, by, c.Reason); err != nil {
		return err
	}
	return c.withList(e, func(ctx context.Context, list *revocation.List) error {
		err := list.Undo(ctx, c.ID, by, c.Reason)
		switch {
		case errors.Is(err, revocation.ErrInvalid):
			return usageError{err}
		case errors.Is(err, revocation.ErrNotFound):
			return err
		case err != nil:
			return unconfirmed("the undo", err)
		}
		_, err = fmt.Fprint(e.stdout, printable(fmt.Sprintf("Undone: entry %s. Replicas accept its tokens again within about two seconds, unless another entry has them too.\n", c.ID)))
		return err
	})
}
