package pages_test

import (
	"encoding/xml"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http/httptest"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// Every field of Config has a row, and every row a field.
func TestConfigurationNamesEveryConfigFieldInItsTable(t *testing.T) {
	t.Parallel()
	text := readFile(t, "docs/configuration.md")
	var fields, rows []string
	for _, field := range reflect.VisibleFields(reflect.TypeFor[m2mauth.Config]()) {
		fields = append(fields, field.Name)
		assert.True(t, strings.Contains(text, "\n| `"+field.Name+"` |"), "no row for %s", field.Name)
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(text, -1) {
		rows = append(rows, row[1])
	}
	assert.Equal(t, fields, rows, "the order is that of Config")
}

// Every sentence that a caller can be told has a row with its remedy.
func TestTroubleshootingExplainsEveryMessage(t *testing.T) {
	t.Parallel()
	text := readFile(t, "docs/troubleshooting.md")
	messages := messages(t)
	require.NotEmpty(t, messages)
	for _, message := range messages {
		assert.True(t, strings.Contains(text, message), "no row for %q", message)
	}
	t.Logf("%d messages", len(messages))
}

// Every kind of error has a row with its name, its value, its status and its code.
func TestTroubleshootingNamesEveryKindOfError(t *testing.T) {
	t.Parallel()
	guard, err := m2mauth.New(m2mauthtest.NewIssuer().Config("https://shopping.api"))
	require.NoError(t, err)
	text := readFile(t, "docs/troubleshooting.md")
	kinds := kindsOfErrors(t)
	require.NotEmpty(t, kinds)
	for name, value := range kinds {
		w := httptest.NewRecorder()
		guard.WriteError(w, httptest.NewRequest("GET", "/", nil), &m2mauth.Error{Kind: m2mauth.ErrorKind(value)})
		code := regexp.MustCompile(`"error":"(\w+)"`).FindStringSubmatch(w.Body.String())
		require.NotNil(t, code, name)
		row := "\n| `" + name + "` | `" + value + "` | " + strconv.Itoa(w.Code) + " | `" + code[1] + "` |"
		assert.True(t, strings.Contains(text, row), "no row that begins %q", row)
	}
	assert.Equal(t, len(kinds), len(regexp.MustCompile("(?m)^\\| `Err").FindAllString(text, -1)), "a row of a kind that is none")
}

// Every reason that a log can give for keys that are not there, or for a place in
// the queue that is not, has a row.
func TestTroubleshootingExplainsEveryReason(t *testing.T) {
	t.Parallel()
	text := readFile(t, "docs/troubleshooting.md")
	reasons := reasons(t)
	require.NotEmpty(t, reasons)
	for _, reason := range reasons {
		assert.True(t, strings.Contains(text, reason), "no row for %q", reason)
	}
	t.Logf("%d reasons", len(reasons))
}

// Every line that a guard logs has a row.
func TestOperationsNamesEveryLineOfTheLog(t *testing.T) {
	t.Parallel()
	text := readFile(t, "docs/operations.md")
	lines := logLines(t)
	require.NotEmpty(t, lines)
	for _, line := range lines {
		assert.True(t, strings.Contains(text, "| `"+line+"` |"), "no row for %q", line)
	}
	t.Logf("%d lines of the log", len(lines))
}

// Of the Go releases there is one statement, and go.mod says the same.
func TestTheReadmeNamesTheOldestGoThatTheModuleTakes(t *testing.T) {
	t.Parallel()
	oldest := regexp.MustCompile(`(?m)^go (1\.\d+)`).FindStringSubmatch(readFile(t, "go.mod"))
	require.NotNil(t, oldest)
	stated := regexp.MustCompile(`the two latest Go releases, today (1\.\d+) and (1\.\d+)`).FindAllStringSubmatch(readFile(t, "README.md"), -1)
	require.Len(t, stated, 1)
	assert.Equal(t, oldest[1], stated[0][1])
	minor := func(release string) int {
		n, err := strconv.Atoi(strings.TrimPrefix(release, "1."))
		require.NoError(t, err)
		return n
	}
	assert.Equal(t, minor(stated[0][1])+1, minor(stated[0][2]))
	for _, p := range documentation(t) {
		if p.name != "README.md" && p.name != "docs/soak.md" { // which says what it was measured with
			assert.NotRegexp(t, `\bGo 1\.\d`, p.text, p.name)
		}
	}
}

func TestTheReadmeIsShort(t *testing.T) {
	t.Parallel()
	lines := strings.Count(readFile(t, "README.md"), "\n")
	assert.LessOrEqual(t, lines, 200)
	t.Logf("%d lines", lines)
}

// Where guards are joined, the page names the fields that only the first may set.
func TestThePageAboutIssuersNamesTheFieldsOfTheFirstGuard(t *testing.T) {
	t.Parallel()
	declared := regexp.MustCompile(`(?m)^var guardFields = \[\]string\{(.+)\}$`).FindStringSubmatch(readFile(t, "guard.go"))
	require.NotNil(t, declared)
	_, item, found := strings.Cut(readFile(t, "docs/issuers.md"), "- **The first guard's settings hold for all**")
	require.True(t, found)
	item, _, _ = strings.Cut(item, "\n- ")
	for field := range strings.SplitSeq(strings.ReplaceAll(declared[1], `"`, ""), ", ") {
		assert.Contains(t, item, "`"+field+"`")
	}
}

// sourceFiles parses the Go files of a folder but for its tests.
func sourceFiles(t *testing.T, folder string) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
	require.NoError(t, err)
	files := make(map[string]*ast.File)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		files[filepath.Base(name)] = file
	}
	return files
}

// messages finds the texts of errors in the source: the string literals in the
// second argument of newError, in the functions that choose it, in refusals, and in
// the units that read tokens.
func messages(t *testing.T) (found []string) {
	functions := make(map[string]*ast.FuncDecl)
	for _, folder := range []string{"internal/claim", "internal/jose"} {
		for _, file := range sourceFiles(t, folder) {
			found = append(found, slices.DeleteFunc(sentences(t, file), func(text string) bool {
				return !strings.HasPrefix(text, "the token") && text != "is not strict base64url" // others are not for callers
			})...)
		}
	}
	for _, file := range sourceFiles(t, ".") {
		ast.Inspect(file, func(node ast.Node) bool { // why a rule is not met
			if literal, ok := node.(*ast.CompositeLit); ok && isNamed(literal.Type, "refusal") {
				found = append(found, sentences(t, literal)...)
			}
			return true
		})
	}
	for _, folder := range []string{".", "internal/keylog"} {
		for _, file := range sourceFiles(t, folder) {
			for _, decl := range file.Decls {
				if function, ok := decl.(*ast.FuncDecl); ok {
					functions[function.Name.Name] = function
				}
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
				switch chooser := text.Fun.(type) {
				case *ast.Ident:
					if functions[chooser.Name] != nil {
						found = append(found, sentences(t, functions[chooser.Name].Body)...)
					}
				case *ast.SelectorExpr:
					found = append(found, sentencesOf(t, chooser)...)
				}
			}
			return true
		})
	}
	return found
}

// sentencesOf returns the sentences of a function of an internal package.
func sentencesOf(t *testing.T, chooser *ast.SelectorExpr) (found []string) {
	t.Helper()
	pkg, ok := chooser.X.(*ast.Ident)
	if !ok {
		return nil
	}
	for _, file := range sourceFiles(t, "internal/"+pkg.Name) {
		for _, decl := range file.Decls {
			if function, ok := decl.(*ast.FuncDecl); ok && function.Recv == nil && function.Name.Name == chooser.Sel.Name {
				found = append(found, sentences(t, function.Body)...)
			}
		}
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
	t.Helper()
	for _, text := range literals(t, root) {
		for part := range strings.SplitSeq(text, "%s") {
			if part = strings.Trim(part, ":;, "); strings.Count(part, " ") > 1 {
				found = append(found, part)
			}
		}
	}
	return found
}

func literals(t *testing.T, root ast.Node) (found []string) {
	t.Helper()
	ast.Inspect(root, func(node ast.Node) bool {
		if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			text, err := strconv.Unquote(literal.Value)
			require.NoError(t, err)
			found = append(found, text)
		}
		return true
	})
	return found
}

// kindsOfErrors returns the constants of type ErrorKind, with their values.
func kindsOfErrors(t *testing.T) map[string]string {
	t.Helper()
	kinds := make(map[string]string)
	for _, file := range sourceFiles(t, ".") {
		ast.Inspect(file, func(node ast.Node) bool {
			if spec, ok := node.(*ast.ValueSpec); ok && isNamed(spec.Type, "ErrorKind") {
				kinds[spec.Names[0].Name] = literals(t, spec)[0]
			}
			return true
		})
	}
	return kinds
}

// reasons finds the texts of errors of the files that fetch keys and let requests
// wait: what stands in errors.New, fmt.Errorf and absent, between what is filled in.
func reasons(t *testing.T) (found []string) {
	t.Helper()
	for folder, wanted := range map[string]string{".": "jwks.go", "internal/keyset": "", "internal/attempt": "", "internal/admission": ""} {
		for name, file := range sourceFiles(t, folder) {
			if wanted != "" && !slices.Contains(strings.Fields(wanted), name) {
				continue
			}
			ast.Inspect(file, func(node ast.Node) bool {
				call, ok := node.(*ast.CallExpr)
				if !ok || len(call.Args) == 0 || !makesError(call.Fun) {
					return true
				}
				for _, text := range literals(t, call.Args[0]) {
					for _, part := range regexp.MustCompile(`%\w`).Split(text, -1) {
						if part = strings.Trim(part, `:;, "{}[]…`); strings.Count(part, " ") > 1 && !strings.HasPrefix(part, "m2mauth") {
							found = append(found, part)
						}
					}
				}
				return true
			})
		}
	}
	return found
}

func makesError(function ast.Expr) bool {
	if isNamed(function, "absent") {
		return true
	}
	selector, ok := function.(*ast.SelectorExpr)
	return ok && (isNamed(selector.X, "errors") && selector.Sel.Name == "New" || isNamed(selector.X, "fmt") && selector.Sel.Name == "Errorf")
}

// logLines finds the texts of the log: literals that begin with the name of the
// package, where they are no error's and no panic's.
func logLines(t *testing.T) (found []string) {
	t.Helper()
	for _, folder := range []string{".", "internal/keylog", "internal/keyset", "internal/admission"} {
		for _, file := range sourceFiles(t, folder) {
			ast.Inspect(file, func(node ast.Node) bool {
				switch node := node.(type) {
				case *ast.CallExpr:
					if isNamed(node.Fun, "panic") || makesError(node.Fun) {
						return false
					}
					if selector, ok := node.Fun.(*ast.SelectorExpr); ok && isNamed(selector.X, "fmt") {
						return false
					}
				case *ast.BasicLit:
					if node.Kind != token.STRING {
						return true
					}
					text, err := strconv.Unquote(node.Value)
					require.NoError(t, err)
					if strings.HasPrefix(text, "m2mauth: ") && strings.Count(strings.TrimRight(text, ": "), " ") > 1 {
						found = append(found, text)
					}
				}
				return true
			})
		}
	}
	return found
}

// The pictures can be read in a light and in a dark page, and by who sees none.
func TestPictures(t *testing.T) {
	t.Parallel()
	shown := 0
	for _, p := range documentation(t) {
		for _, l := range p.links {
			if path.Ext(l.target) != ".svg" {
				continue
			}
			shown++
			checkPicture(t, path.Join(path.Dir(p.name), l.target))
		}
	}
	assert.GreaterOrEqual(t, shown, 2)
}

func checkPicture(t *testing.T, name string) {
	t.Helper()
	text := readFile(t, name)
	decoder := xml.NewDecoder(strings.NewReader(text))
	decoder.Strict = true
	elements := make(map[string]int)
	for {
		part, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err, name)
		if element, ok := part.(xml.StartElement); ok {
			elements[element.Name.Local]++
			for _, attribute := range element.Attr {
				assert.NotContains(t, []string{"href", "src"}, attribute.Name.Local, "%s: a picture loads nothing", name)
			}
		}
	}
	assert.Equal(t, 1, elements["title"], name)
	assert.Equal(t, 1, elements["desc"], name)
	assert.Zero(t, elements["script"], name)
	assert.Contains(t, text, "@media (prefers-color-scheme: dark)", name)
}
