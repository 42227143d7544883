package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/m2mauth/m2mauth/examples/internal/contract"
)

func TestTheServerFetchesKeysWhenItStartsAndDoesNotWaitForThem(t *testing.T) {
	contract.TestStart(t, run)
}

func TestAServerThatIsStoppedAsItStartsEndsWell(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 { // whether it has begun to serve by then is chance
		assert.NoError(t, run(ctx, contract.Environment(t, "https://issuer.test")))
	}
}
