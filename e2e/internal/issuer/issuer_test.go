package issuer

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A registry in the lock file would be asked by everybody, also by those who
// have another one.
func TestLockFilePinsContentAndNamesNoRegistry(t *testing.T) {
	t.Parallel()
	data, err := files.ReadFile("package-lock.json")
	require.NoError(t, err)
	var lock struct {
		Packages map[string]struct{ Version, Integrity, Resolved string }
	}
	require.NoError(t, json.Unmarshal(data, &lock))
	require.Contains(t, lock.Packages, "node_modules/oidc-provider")
	for name, locked := range lock.Packages {
		assert.Empty(t, locked.Resolved, "%s: npm install --omit-lockfile-registry-resolved", name)
		if name != "" { // "" is the package itself
			assert.Contains(t, locked.Integrity, "sha512-", name)
		}
	}
}
