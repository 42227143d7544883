// Package arrows holds which package may import which. The compiler forbids cycles
// alone, and not that a unit comes to know more than it should.
package arrows

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// units are the packages that the root is made of, each with what it may import of
// ours. All else under internal is for tests.
var units = map[string][]string{
	"internal/admission":  nil,
	"internal/ascii":      nil,
	"internal/clock":      nil,
	"internal/hint":       nil,
	"internal/memory":     nil,
	"internal/muxtable":   nil,
	"internal/response":   nil,
	"internal/scope":      nil,
	"internal/strictjson": nil,
	"internal/attempt":    {"internal/clock"},
	"internal/claim":      {"internal/strictjson"},
	"internal/dryrun":     {"internal/clock"},
	"internal/jose":       {"internal/ascii", "internal/strictjson"},
	"internal/keylog":     {"internal/jose", "internal/keyset"},
	"internal/keyset":     {"internal/ascii", "internal/jose", "internal/strictjson"},
	"internal/metadata":   {"internal/response"},
	"internal/refetch":    {"internal/clock"},
	"internal/setting":    {"internal/ascii", "internal/hint", "internal/keyset"},
	"internal/tally":      {"internal/clock"},
}

// forTests are for tests alone. Those in a unit live beside what they test.
var forTests = []string{"internal/test", "internal/jose/vectors"}

// file is a Go file of the repository, with what it imports.
type file struct {
	path, dir string
	ours      []string // directories; the root is "."
	others    []string
}

func (f file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// isUnder reports whether a directory is one of the parents, or within one.
func isUnder(dir string, parents ...string) bool {
	return slices.ContainsFunc(parents, func(parent string) bool { return dir == parent || strings.HasPrefix(dir, parent+"/") })
}

// files reads all Go files, whatever their build tags and their module.
func files(t *testing.T) (all []file) {
	t.Helper()
	const module = "github.com/m2mauth/m2mauth"
	top := filepath.Join("..", "..", "..")
	require.NoError(t, filepath.WalkDir(top, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.Name() == ".git":
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case entry.IsDir(), filepath.Ext(name) != ".go":
			return nil
		}
		inside, err := filepath.Rel(top, name)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		f := file{path: filepath.ToSlash(inside)}
		f.dir = path.Dir(f.path)
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if imported == module {
				f.ours = append(f.ours, ".")
			} else if directory, cut := strings.CutPrefix(imported, module+"/"); cut {
				f.ours = append(f.ours, directory)
			} else {
				f.others = append(f.others, imported)
			}
		}
		all = append(all, f)
		return nil
	}))
	return all
}

func TestUnitsImportOnlyWhatIsBelowThem(t *testing.T) {
	t.Parallel()
	found := make(map[string]bool)
	for _, f := range files(t) {
		if !isUnder(f.dir, "internal") || isUnder(f.dir, forTests...) {
			continue
		}
		allowed, isUnit := units[f.dir]
		require.True(t, isUnit, "%s is of no unit that this test knows", f.path)
		found[f.dir] = true
		for _, imported := range f.ours {
			if f.isTest() {
				assert.True(t, isUnder(imported, "internal"), "%s imports %s", f.path, imported)
			} else {
				assert.Contains(t, allowed, imported, "%s imports it", f.path)
			}
		}
	}
	for _, unit := range []string{"internal/admission", "internal/claim", "internal/jose", "internal/scope", "internal/strictjson"} {
		assert.True(t, found[unit], "%s is there", unit)
	}
}

// ofRevocation are the units that the list of what is revoked shares with the root.
var ofRevocation = []string{"internal/clock"}

// explainer is the program that says in words what a guard did. It reads as the guard
// does, and not in a way of its own that may differ.
const explainer = "cmd/m2mauth"

// Units are the root's, and one is the list's too. What users could not import, no
// adapter does.
func TestUnitsAreImportedByTheRootAndTheListAlone(t *testing.T) {
	t.Parallel()
	roots := 0
	for _, f := range files(t) {
		if f.dir == "." {
			roots++
		}
		if f.isTest() || f.dir == "." || isUnder(f.dir, "internal") {
			continue
		}
		for _, imported := range f.ours {
			shared := f.dir == "revocation" && slices.Contains(ofRevocation, imported)
			_, isUnit := units[imported]
			explained := isUnder(f.dir, explainer) && isUnit
			assert.False(t, isUnder(imported, "internal") && !shared && !explained, "%s imports %s", f.path, imported)
		}
	}
	assert.Greater(t, roots, 10, "the walk found the root")
}

// Who uses the core gets with it what it imports.
func TestTheRootImportsUnitsAlone(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		if f.dir != "." || f.isTest() {
			continue
		}
		for _, imported := range f.ours {
			_, isUnit := units[imported]
			assert.True(t, isUnit, "%s imports %s", f.path, imported)
		}
	}
}

// jwx is laxer than we are in many places, and no longer maintained in this
// version: it stays behind internal/jose. The modules that compare with it or
// drive servers may use what they like.
func TestOnlyJOSEImportsJWX(t *testing.T) {
	t.Parallel()
	var importers []string
	for _, f := range files(t) {
		if isUnder(f.dir, "bench", "e2e") {
			continue
		}
		for _, imported := range f.others {
			if strings.HasPrefix(imported, "github.com/lestrrat-go/jwx") {
				importers = append(importers, f.path)
			}
		}
	}
	assert.Equal(t, []string{"internal/jose/jose.go"}, slices.Compact(importers))
}

// A Config for an issuer is made of what any user has.
func TestIssuersImportTheRootAndTheStandardLibrary(t *testing.T) {
	t.Parallel()
	found := 0
	for _, f := range files(t) {
		if f.dir != "issuers" || f.isTest() {
			continue
		}
		found++
		for _, imported := range f.ours {
			assert.Equal(t, ".", imported, "%s imports it", f.path)
		}
		for _, imported := range f.others {
			first, _, _ := strings.Cut(imported, "/")
			assert.NotContains(t, first, ".", "%s imports %s", f.path, imported)
		}
	}
	assert.NotZero(t, found, "the walk found the package")
}

// A list of what is revoked gets no more with it than the guard that asks it, and its
// stores are modules of their own.
func TestRevocationImportsTheRootAndWhatTheRootDoes(t *testing.T) {
	t.Parallel()
	found := 0
	for _, f := range files(t) {
		if f.dir != "revocation" || f.isTest() {
			continue
		}
		found++
		for _, imported := range f.ours {
			assert.Contains(t, append(ofRevocation, "."), imported, "%s imports it", f.path)
		}
		for _, imported := range f.others {
			first, _, _ := strings.Cut(imported, "/")
			assert.True(t, !strings.Contains(first, ".") || isUnder(imported, "github.com/go-json-experiment/json"), "%s imports %s", f.path, imported)
		}
	}
	assert.NotZero(t, found, "the walk found the package")
}
