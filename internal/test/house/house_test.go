// Package house holds the map in CONTRIBUTING.md to the tree, and the tree to its order.
package house

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = "../../.."

// A newcomer finds what is where in the map: a file that it lacks is found by chance
// alone, and one that is gone misleads.
func TestTheMapIsThatOfTheTree(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	require.NoError(t, err)
	_, section, found := strings.Cut(string(page), "\n## The map\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	var named []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		named = append(named, row[1])
		_, err := os.Stat(filepath.Join(root, filepath.FromSlash(row[1])))
		assert.NoError(t, err, "the map names %s", row[1])
	}
	there := slices.DeleteFunc(matches(t, "*.go", false), func(name string) bool { return strings.HasSuffix(name, "_test.go") })
	require.Contains(t, there, "middleware.go", "the repository was found")
	for _, name := range slices.Concat(there, matches(t, "internal/*", true), matches(t, "internal/test/*", true)) {
		if name != "internal/test/" { // only holds others
			assert.Contains(t, named, name, "the map")
		}
	}
}

// matches returns the files that match, or the folders, as the map writes them.
func matches(t *testing.T, pattern string, folders bool) (names []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
	require.NoError(t, err)
	for _, path := range paths {
		info, err := os.Stat(path)
		require.NoError(t, err)
		name, err := filepath.Rel(root, path)
		require.NoError(t, err)
		switch {
		case info.IsDir() != folders:
		case folders:
			names = append(names, filepath.ToSlash(name)+"/")
		default:
			names = append(names, name)
		}
	}
	return names
}

// The root's tests are found by their topic: few files, each read in one sitting.
func TestTheRootsTestFilesAreFewAndShort(t *testing.T) {
	t.Parallel()
	names := slices.DeleteFunc(matches(t, "*.go", false), func(name string) bool { return !strings.HasSuffix(name, "_test.go") })
	require.Contains(t, names, "middleware_test.go", "the repository was found")
	assert.LessOrEqual(t, len(names), 26, "%v", names)
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		assert.LessOrEqual(t, strings.Count(string(content), "\n"), 800, "lines of %s", name)
	}
}
