package main

import (
	"testing"

	"github.com/m2mauth/m2mauth/examples/internal/contract"
)

func TestTheServerFetchesKeysWhenItStartsAndDoesNotWaitForThem(t *testing.T) {
	contract.TestStart(t, run)
}
