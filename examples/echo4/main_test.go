package main

import (
	"testing"

	"github.com/m2mauth/m2mauth/examples/internal/contract"
)

func TestContract(t *testing.T) { contract.Test(t, routes) }
