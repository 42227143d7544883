// Package conformance holds docs/conformance.md and SECURITY.md to the tests that they
// name, and has the tests of clauses that no other test holds.
package conformance

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = "../../.."

// specifications are those that docs/conformance.md goes through.
var specifications = []string{
	"RFC 6750", "RFC 7515", "RFC 7517", "RFC 7519", "RFC 8414", "RFC 8693", "RFC 8707", "RFC 8725",
	"RFC 9068", "RFC 9110", "RFC 9700", "RFC 9728", "OpenID Connect Discovery 1.0",
}

// reasons are what may stand in place of a test, or before one.
var reasons = map[string]int{
	"*the issuer's*": another, "*the client's*": another, "*the user's*": another,
	"*not offered*": notOffered, "*departs*": departure,
}

// The columns of the table of counts.
const (
	clauses = iota
	held
	another
	notOffered
	departure
	columns
)

var (
	section   = regexp.MustCompile(`^## (.+?)(?:: .*)?$`)
	level     = regexp.MustCompile(`^(MUST|MUST NOT|SHOULD|SHOULD NOT|MAY|–)$`)
	codeSpan  = regexp.MustCompile("^`([^`]+)`$")
	reference = regexp.MustCompile(`^(?:([a-z0-9/]+)\.)?((?:Test|Fuzz)\w+)(?:/(.+)|: (.+))?$`)
)

// Every clause has a test or a reason, and every test that is named is there.
func TestConformance(t *testing.T) {
	t.Parallel()
	page := readFile(t, "docs/conformance.md")
	tests := &testIndex{folders: make(map[string]*testFolder)}
	rows := make(map[string][columns]int)
	specification := ""
	for n, line := range strings.Split(page, "\n") {
		if heading := section.FindStringSubmatch(line); heading != nil {
			specification = heading[1]
			continue
		}
		if specification == "" || !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| § |") {
			continue
		}
		where := fmt.Sprintf("docs/conformance.md:%d", n+1)
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "| "), " |"), " | ")
		require.Len(t, cells, 5, where)
		for _, cell := range cells {
			assert.NotEmpty(t, strings.TrimSpace(cell), where)
		}
		assert.Regexp(t, level, cells[1], where)

		count := rows[specification]
		count[clauses]++
		reason, names, both := strings.Cut(cells[4], "; ")
		kind, excused := reasons[reason]
		if excused {
			count[kind]++
			if kind == departure {
				assert.NotEqual(t, "–", cells[3], "%s: a departure says why", where)
			}
		} else {
			names, both = cells[4], true
			count[held]++
		}
		rows[specification] = count
		if !both {
			continue
		}
		for name := range strings.SplitSeq(names, "`, `") {
			name = "`" + strings.Trim(name, "`") + "`"
			span := codeSpan.FindStringSubmatch(name)
			if assert.NotNil(t, span, "%s: %s is neither a test nor a reason", where, name) {
				assert.NoError(t, tests.find(t, span[1]), where)
			}
		}
	}

	var table strings.Builder
	var sum [columns]int
	line := func(name string, count [columns]int) {
		fmt.Fprintf(&table, "| %s |", name)
		for i, n := range count {
			fmt.Fprintf(&table, " %d |", n)
			sum[i] += n
		}
		table.WriteByte('\n')
	}
	for _, s := range specifications {
		assert.NotZero(t, rows[s][clauses], "no clause of %s", s)
		line(s, rows[s])
	}
	assert.Len(t, rows, len(specifications), "a specification that is not in the list")
	line("all", sum)
	t.Logf("clauses, held by a test, another's, not offered, departures:\n%s", table.String())
	assert.True(t, strings.Contains(page, table.String()), "the counts on the page should be:\n%s", table.String())
}

// The threat model names tests too.
func TestSecurityNamesTestsThatAreThere(t *testing.T) {
	t.Parallel()
	tests := &testIndex{folders: make(map[string]*testFolder)}
	page := readFile(t, "SECURITY.md")
	named := 0
	for _, span := range regexp.MustCompile("`((?:[a-z0-9/]+\\.)?Test[^`]+)`").FindAllStringSubmatch(page, -1) {
		named++
		assert.NoError(t, tests.find(t, span[1]))
	}
	t.Logf("%d tests are named", named)
	for line := range strings.SplitSeq(page, "\n") {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| ") && len(cells) == 4 && !strings.HasPrefix(line, "| who ") {
			assert.Regexp(t, "`.*Test|\\*\\*not stopped\\*\\*", line, "a threat without a test")
		}
	}
}

// What would let a row pass without a test is told here.
func TestConformanceMissesNothing(t *testing.T) {
	t.Parallel()
	tests := &testIndex{folders: make(map[string]*testFolder)}
	for _, name := range []string{
		"internal/test/tokens.TestAudience", "internal/test/tokens.TestClocksAndLeeway: a good token a second later", "internal/test/tokens.TestCriticalHeader: all of 4 crit",
		"internal/test/tokens.TestCredentials/two fields",
		"internal/jose.TestDecodeBase64URL", "internal/jose.TestDecodeBase64URL/padding", "m2mauthtest/adaptertest.TestNetHTTP",
	} {
		assert.NoError(t, tests.find(t, name), name)
	}
	for _, name := range []string{
		"internal/test/tokens.TestAudienc", "internal/test/tokens.testAudience", "TestAudience",
		"internal/test/tokens.TestClocksAndLeeway: a good token a second", "internal/test/tokens.TestCriticalHeader: all of 4 cri",
		"internal/test/tokens.TestCriticalHeader: 4 crit", "internal/test/tokens.TestAudience: all of 4 crit",
		"internal/test/tokens.TestCredentials: a good token a second later", "internal/test/tokens.TestCredentials: no row",
		"internal/test/tokens.TestCredentials/two field", "internal/test/tokens.TestCredentials/", "TestDecodeBase64URL", "internal/jose.TestCredentials",
		"internal/jose.TestDecodeBase64URL/two fields", "internal/nowhere.TestCredentials", "TestMain", "readFile", "", "MUST",
	} {
		assert.Error(t, tests.find(t, name), name)
	}
}

// testIndex knows the tests of the folders that it was asked about.
type testIndex struct {
	folders  map[string]*testFolder
	fixtures map[string]string // the rule of a row's name, and of "all of " with its own name
}

// testFolder has what its test files declare.
type testFolder struct {
	files map[string]string          // of a test
	texts map[string]map[string]bool // of a file: its string literals
	rules map[string]map[string]bool // of a test: its string literals, which may be rules of fixtures
}

// find returns nil if what a reference names is there.
func (x *testIndex) find(t *testing.T, name string) error {
	parts := reference.FindStringSubmatch(name)
	if parts == nil {
		return fmt.Errorf("%q is no reference to a test", name)
	}
	folder, test, subtest, row := parts[1], parts[2], parts[3], parts[4]
	if _, err := os.Stat(filepath.Join(root, "examples")); err != nil && (strings.HasPrefix(folder, "adapters/") || strings.HasPrefix(folder, "examples/")) {
		return nil // nested modules are not here where the core is looked at alone
	}
	known, err := x.folder(folder)
	if err != nil {
		return err
	}
	file, found := known.files[test]
	rule := x.rules(t)[row]
	switch {
	case !found:
		return fmt.Errorf("%s: no test of this name", name)
	case subtest != "" && !known.texts[file][subtest]:
		return fmt.Errorf("%s: %s has no case of this name", name, file)
	case row != "" && (folder != "internal/test/tokens" || rule == "" || !known.rules[test][rule]):
		return fmt.Errorf("%s: %s runs no row of this name in testdata/fixtures.json", name, test)
	}
	return nil
}

func (x *testIndex) folder(path string) (*testFolder, error) {
	if known := x.folders[path]; known != nil {
		return known, nil
	}
	names, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(path), "*_test.go"))
	if err != nil {
		return nil, err
	}
	folder := &testFolder{files: make(map[string]string), texts: make(map[string]map[string]bool), rules: make(map[string]map[string]bool)}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && isTest(f) {
				folder.files[f.Name.Name] = name
				folder.rules[f.Name.Name] = literals(f)
			}
		}
		folder.texts[name] = literals(file)
	}
	x.folders[path] = folder
	return folder, nil
}

// literals returns the string literals in a piece of code.
func literals(code ast.Node) map[string]bool {
	texts := make(map[string]bool)
	ast.Inspect(code, func(node ast.Node) bool {
		if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if text, err := strconv.Unquote(literal.Value); err == nil {
				texts[text] = true
			}
		}
		return true
	})
	return texts
}

// isTest reports whether the function has the one parameter of a test, which
// TestMain has not.
func isTest(f *ast.FuncDecl) bool {
	if len(f.Type.Params.List) != 1 {
		return false
	}
	pointer, ok := f.Type.Params.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	kind, ok := pointer.X.(*ast.SelectorExpr)
	return ok && (kind.Sel.Name == "T" || kind.Sel.Name == "F")
}

func (x *testIndex) rules(t *testing.T) map[string]string {
	t.Helper()
	if x.fixtures == nil {
		var table struct {
			Rows []struct{ Name, Rule string }
		}
		require.NoError(t, json.Unmarshal([]byte(readFile(t, "testdata/fixtures.json")), &table))
		x.fixtures = make(map[string]string)
		for _, row := range table.Rows {
			x.fixtures[row.Name], x.fixtures["all of "+row.Rule] = row.Rule, row.Rule
		}
	}
	return x.fixtures
}

// readFile has line breaks as they are in the repository.
func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	require.NoError(t, err)
	return strings.ReplaceAll(string(data), "\r\n", "\n")
}
