// Package mcp tests MCP servers behind a guard with what the protocol's authors
// publish: the conformance suite and the client of the TypeScript SDK.
package mcp

import (
	"embed"
	"testing"

	"github.com/m2mauth/m2mauth/e2e/internal/npm"
	"github.com/m2mauth/m2mauth/e2e/internal/process"
)

//go:embed client.mjs token.mjs package.json package-lock.json
var files embed.FS

// The suite uses globSync of fs, which came with Node.js 22.
var packages = npm.Packages{Files: files, Node: 22}

func TestMain(m *testing.M) { process.Main(m) }

// install is Install of packages, and skips the test if -short was asked for.
func install(t *testing.T) (dir, node string) {
	t.Helper()
	if testing.Short() {
		process.Skip(t, "this takes a minute with an installation of npm's packages, and -short was asked for")
	}
	return packages.Install(t)
}
