package issuers_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// functions returns the names of what the package exports.
func functions(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		for _, declaration := range file.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.IsExported() {
				names = append(names, f.Name.Name)
			}
		}
	}
	require.Greater(t, len(names), 15)
	return names
}

// rows returns the rows of docs/issuers.md that begin with a function's name.
func rows(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "issuers.md"))
	require.NoError(t, err)
	_, section, there := strings.Cut(string(page), "\n## A function for each issuer\n")
	require.True(t, there)
	section, _, _ = strings.Cut(section, "\n## ")
	found := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|.*$").FindAllStringSubmatch(section, -1) {
		found[row[1]] = row[0]
	}
	return found
}
