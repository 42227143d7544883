package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// call runs the program with environment variables in pairs.
func call(t *testing.T, stdin string, variables map[string]string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(stdin), &out, &errs, func(name string) string { return variables[name] })
	return status, out.String(), errs.String()
}

func TestAWrongCallEndsWithTwoAndSaysWhere(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"no command":      {},
		"unknown command": {"doctro"},
		"unknown flag":    {"doctor", "--isuer", "https://login.shop.example/oidc"},
		"unknown kind":    {"doctor", "--issuer-kind", "logtoo", "--issuer", "https://login.shop.example/oidc"},
		"missing file":    {"doctor", "--issuer", "https://login.shop.example/oidc", "--ca-file", "no-such-file.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := call(t, "", nil, args...)
			assert.Equal(t, 2, status)
			assert.Empty(t, stdout)
			assert.True(t, strings.HasPrefix(stderr, "m2mauth: "), stderr)
		})
	}
}

func TestHelpEndsWithZero(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"doctor", "--help"}} {
		status, stdout, stderr := call(t, "", nil, args...)
		assert.Zero(t, status)
		assert.Contains(t, stdout, "Usage: m2mauth")
		assert.Empty(t, stderr)
	}
}
