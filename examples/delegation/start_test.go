package main

import (
	"context"
	"testing"

	"github.com/m2mauth/m2mauth/examples/internal/contract"
)

func TestTheServerFetchesKeysWhenItStartsAndDoesNotWaitForThem(t *testing.T) {
	contract.TestStart(t, func(ctx context.Context, getenv func(string) string) error {
		return run(ctx, func(name string) string {
			if name == "SERVICE" || name == "AGENT" {
				return "someone"
			}
			return getenv(name)
		})
	})
}
