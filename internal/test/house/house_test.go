// Package house holds the map in CONTRIBUTING.md to the tree, and the tree to its order.
package house

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

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

// A newcomer reads the files of a token's way from the top, and need not climb back.
func TestNoFileOfATokensWayCallsTheOneThatItIsEnteredFrom(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	require.NoError(t, err)
	_, drawing, found := strings.Cut(string(page), "```text\nmiddleware.go")
	require.True(t, found)
	drawing, _, _ = strings.Cut("middleware.go"+drawing, "```")
	calls := callsBetweenFiles(t)
	require.Contains(t, calls["middleware.go"], "token.go", "calls were found")
	var way, drawn []string // the file of each step to the left, and all that were seen
	for line := range strings.Lines(drawing) {
		step := strings.IndexFunc(line, unicode.IsLetter)
		require.NotEqual(t, -1, step, line)
		depth := utf8.RuneCountInString(line[:step]) / 4
		require.LessOrEqual(t, depth, len(way), line)
		for _, name := range regexp.MustCompile(`^[a-z_]+\.go(?:, [a-z_]+\.go)*`).FindAllString(line[step:], 1) {
			for _, file := range strings.Split(name, ", ") {
				require.Contains(t, calls, file, "the drawing's files make calls")
				for _, above := range way[:depth] {
					assert.Empty(t, calls[file][above], "%s calls back into %s", file, above)
				}
				for _, before := range drawn {
					assert.False(t, len(calls[file][before]) > 0 && len(calls[before][file]) > 0, "%s and %s call each other", before, file)
				}
				way, drawn = append(way[:depth], file), append(drawn, file)
			}
		}
	}
	for _, file := range []string{"errors.go", "scopes.go"} {
		assert.Empty(t, calls[file], "%s knows no other file", file)
	}
}

// callsBetweenFiles returns which functions and variables of the root's other files each
// of its files uses. What packages are imported for does not matter here.
func callsBetweenFiles(t *testing.T) map[string]map[string][]string {
	t.Helper()
	set, calls := token.NewFileSet(), make(map[string]map[string][]string)
	var files []*ast.File
	for _, name := range matches(t, "*.go", false) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, filepath.Join(root, name), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		files, calls[name] = append(files, file), make(map[string][]string)
	}
	info := types.Info{Uses: make(map[*ast.Ident]types.Object)}
	checker := types.Config{Importer: noPackages{}, Error: func(error) {}} // those of what is not imported
	pkg, _ := checker.Check("m2mauth", set, files, &info)
	for used, object := range info.Uses {
		_, isFunc := object.(*types.Func)
		if _, isVar := object.(*types.Var); object.Pkg() != pkg || !isFunc && (!isVar || object.Parent() != pkg.Scope()) {
			continue
		}
		from, to := filepath.Base(set.Position(used.Pos()).Filename), filepath.Base(set.Position(object.Pos()).Filename)
		if from != to {
			calls[from][to] = append(calls[from][to], object.Name())
		}
	}
	return calls
}

type noPackages struct{}

func (noPackages) Import(string) (*types.Package, error) { return nil, errors.New("not imported") }
