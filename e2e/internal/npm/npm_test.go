package npm

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A registry in the lock file would be asked by everybody, also by those who
// have another one.
func TestLockFilesPinContentAndNameNoRegistry(t *testing.T) {
	t.Parallel()
	for file, has := range map[string]string{
		"../issuer/package-lock.json": "oidc-provider",
		"../../mcp/package-lock.json": "@modelcontextprotocol/conformance",
	} {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		var lock struct {
			Packages map[string]struct{ Version, Integrity, Resolved string }
		}
		require.NoError(t, json.Unmarshal(data, &lock))
		require.Contains(t, lock.Packages, "node_modules/"+has)
		for name, locked := range lock.Packages {
			assert.Empty(t, locked.Resolved, "%s: npm install --omit-lockfile-registry-resolved", name)
			if name != "" { // "" is the package itself
				assert.Contains(t, locked.Integrity, "sha512-", name)
			}
		}
	}
}
