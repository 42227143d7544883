package m2mauth_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// The two snippets of "Test your handler", which the README shows as they stand here.

func TestProductsNeedReadProducts(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	require.NoError(t, err)
	r := httptest.NewRequest("GET", "/products", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
	w := httptest.NewRecorder()
	api(guard).ServeHTTP(w, r)
	assert.Equal(t, 200, w.Code)
}

func TestHandlerAloneSeesTheClaims(t *testing.T) {
	claims := m2mauthtest.Claims(t, "the-app-id", "read:products")
	r := httptest.NewRequest("GET", "/products", nil)
	r = r.WithContext(m2mauth.NewContext(r.Context(), claims))

	got, ok := m2mauth.FromContext(r.Context())
	require.True(t, ok)
	assert.Equal(t, "the-app-id", got.AppID())
}

func api(guard *m2mauth.Guard) http.Handler {
	return guard.Require("read:products")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
}

func TestReadmeShowsGoCodeThatIsCompiledSomewhere(t *testing.T) {
	t.Parallel()
	var code strings.Builder
	for _, file := range goFiles(t, ".") {
		code.WriteString(trimLines(readFile(t, file)))
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readFile(t, "README.md"), -1)
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		for paragraph := range strings.SplitSeq(block[1], "\n\n") {
			assert.True(t, strings.Contains(code.String(), trimLines(paragraph)), "no Go file has these lines of the README:\n%s", paragraph)
		}
	}
}

func TestReadmeNamesEveryConfigFieldInItsTable(t *testing.T) {
	t.Parallel()
	readme := readFile(t, "README.md")
	for _, field := range reflect.VisibleFields(reflect.TypeFor[m2mauth.Config]()) {
		assert.True(t, strings.Contains(readme, "\n| `"+field.Name+"` |"), "no row for %s", field.Name)
	}
}

// Every sentence that a caller can be told has a row with its remedy.
func TestReadmeExplainsEveryMessage(t *testing.T) {
	t.Parallel()
	readme := readFile(t, "README.md")
	messages := messages(t)
	require.NotEmpty(t, messages)
	for _, message := range messages {
		assert.True(t, strings.Contains(readme, message), "no row for %q", message)
	}
}

// messages finds the texts of errors in the source: the string literals in the
// second argument of newError, in the functions that choose it, and in refusals.
func messages(t *testing.T) (found []string) {
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	functions := make(map[string]*ast.FuncDecl)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(node ast.Node) bool { // why a rule is not met
			if literal, ok := node.(*ast.CompositeLit); ok && isNamed(literal.Type, "refusal") {
				found = append(found, sentences(t, literal)...)
			}
			return true
		})
		for _, decl := range file.Decls {
			if function, ok := decl.(*ast.FuncDecl); ok {
				functions[function.Name.Name] = function
			}
		}
	}
	for _, function := range functions {
		ast.Inspect(function, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok || len(call.Args) < 2 || !isNamed(call.Fun, "newError") {
				return true
			}
			found = append(found, sentences(t, call.Args[1])...)
			switch text := call.Args[1].(type) {
			case *ast.Ident: // a variable of this function
				found = append(found, sentences(t, function.Body)...)
			case *ast.CallExpr:
				if chooser, ok := text.Fun.(*ast.Ident); ok && functions[chooser.Name] != nil {
					found = append(found, sentences(t, functions[chooser.Name].Body)...)
				}
			}
			return true
		})
	}
	return found
}

func isNamed(expression ast.Expr, name string) bool {
	identifier, ok := expression.(*ast.Ident)
	return ok && identifier.Name == name
}

// sentences returns the string literals of more than two words, without what
// joins them to others.
func sentences(t *testing.T, root ast.Node) (found []string) {
	ast.Inspect(root, func(node ast.Node) bool {
		if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			text, err := strconv.Unquote(literal.Value)
			require.NoError(t, err)
			for part := range strings.SplitSeq(text, "%s") {
				if part = strings.Trim(part, ":;, "); strings.Count(part, " ") > 1 {
					found = append(found, part)
				}
			}
		}
		return true
	})
	return found
}

// goFiles returns the Go files of all modules of the repository. Where the core
// is looked at alone, as in the module cache, there are fewer than the README needs.
func goFiles(t *testing.T, dir string) []string {
	if _, err := os.Stat(filepath.Join(dir, "examples")); err != nil {
		t.Skip("the examples are not here: this is not the repository")
	}
	var files []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".go" {
			files = append(files, path)
		}
		return err
	}))
	return files
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")))
}

// trimLines takes away indentation and empty lines, so that lines compare
// wherever they stand.
func trimLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}
