package pages_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A block of Go is, but for indentation and empty lines, a part of one file that is
// compiled. So it has no mistake that a compiler sees, and most are run too.
func TestEveryGoBlockIsPartOfAFileThatIsCompiled(t *testing.T) {
	t.Parallel()
	files := make(map[string]string)
	for _, name := range filesWith(t, ".go") {
		if code := readFile(t, name); !strings.Contains(code, "//go:build ignore") {
			files[name] = "\n" + trimLines(code)
		}
	}
	blocks := blocksIn(allPages(t), "go")
	require.NotEmpty(t, blocks)
	for _, b := range blocks {
		assert.NotEmpty(t, homeOf(files, b), "%s: no Go file has these lines, one after the other:\n%s", b.where(), b.text)
	}
	t.Logf("%d Go blocks are part of a file that is compiled", len(blocks))
}

// A guide shows the code of its own library, before and after, on one page.
func TestEachMigrationGuideShowsTheCodeBeforeAndAfter(t *testing.T) {
	t.Parallel()
	guides, code := 0, filesWith(t, ".go")
	for _, p := range allPages(t) {
		name, found := strings.CutPrefix(p.name, "docs/migrating/")
		if !found {
			continue
		}
		guides++
		assert.LessOrEqual(t, strings.Count(p.text, "\n"), 150, p.name)
		folder, want := strings.ReplaceAll(strings.TrimSuffix(name, ".md"), "-", ""), []string{"after", "before"}
		if name == "README.md" {
			folder, want = "infront", []string{"infront"}
		}
		own := make(map[string]string)
		for _, file := range code {
			if strings.HasPrefix(file, "e2e/migrating/"+folder+"/") {
				own[file] = "\n" + trimLines(readFile(t, file))
			}
		}
		var shown []string
		for _, b := range p.blocks {
			assert.Equal(t, "go", b.language, b.where())
			home := path.Base(path.Dir(homeOf(own, b)))
			shown = append(shown, strings.TrimRight(home, "23")) // of two versions of a library
		}
		slices.Sort(shown)
		assert.Equal(t, want, slices.Compact(shown), p.name)
	}
	require.Greater(t, guides, 5)
}

func homeOf(files map[string]string, b block) string {
	wanted := "\n" + trimLines(b.text)
	for name, code := range files {
		if strings.Contains(code, wanted) {
			return name
		}
	}
	return ""
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

// The first program of the README is a file that can be pasted.
func TestTheProgramOfTheReadmeIsAWholeFile(t *testing.T) {
	t.Parallel()
	blocks := blocksIn([]*page{readPage(t, "README.md")}, "go")
	require.NotEmpty(t, blocks)
	assert.Equal(t, readFile(t, "examples/readme/main.go"), blocks[0].text)
}

func TestEveryJSONAndYAMLBlockParses(t *testing.T) {
	t.Parallel()
	pages := allPages(t)
	jsonBlocks, yamlBlocks := blocksIn(pages, "json"), blocksIn(pages, "yaml")
	for _, b := range jsonBlocks {
		values := 0
		for decoder := json.NewDecoder(strings.NewReader(b.text)); ; values++ { // of a log there are several
			var v any
			err := decoder.Decode(&v)
			if errors.Is(err, io.EOF) {
				break
			}
			if !assert.NoError(t, err, b.where()) {
				break
			}
		}
		assert.NotZero(t, values, b.where())
	}
	for _, b := range yamlBlocks {
		assert.YAMLEq(t, b.text, b.text, b.where())
	}
	t.Logf("%d JSON blocks and %d YAML blocks parse", len(jsonBlocks), len(yamlBlocks))
}

// Languages that no test knows could show anything.
func TestEveryBlockIsOfALanguageThatATestKnows(t *testing.T) {
	t.Parallel()
	// js is run in e2e, nginx too; text is what programs print, and tables of rules.
	known := []string{"go", "sh", "json", "yaml", "js", "nginx", "text"}
	for _, p := range documentation(t) {
		for _, b := range p.blocks {
			assert.Contains(t, known, b.language, b.where())
			mark := b.mark
			if strings.HasPrefix(mark, markNotRun) {
				mark = markNotRun
			}
			assert.Contains(t, marks[b.language], mark, "%s: a mark that does nothing", b.where())
		}
	}
}

// marks are those that a block of a language may have.
var marks = map[string][]string{
	"go": {""}, "json": {""}, "yaml": {""}, "js": {""}, "nginx": {""},
	"sh":   {"", markNotRun, markE2E, markRunbook},
	"text": {"", markOutput, markLog},
}

// Marks of blocks.
const (
	markNotRun = "not run: "  // and the reason
	markE2E    = "run by e2e" // which has an issuer
	markOutput = "its output" // of the sh block before
	markLog    = "log"        // lines that a test has a guard write

	markRunbook = "run by TestTheRunbookForALeakedSecret"
)

// notRun are the commands that no test runs as they stand, by their first lines.
var notRun = []string{
	"README.md: go test work",
	"README.md: go get github.com/m2mauth/m2mauth",
	"README.md: ISSUER=https://your.logto.endpoint/oidc AUDIENCE=https://shopping.api go run .",
	"docs/doctor.md: go run ./cmd/m2mauth doctor --issuer https://login.shop.example/oidc --audience https://shopping.api",
	"docs/doctor.md: go run ./cmd/m2mauth doctor --issuer https://login.shop.example/oidc --audience https://shopping.api \\",
	"docs/doctor.md: export M2MAUTH_APP_ID=wo6mujg2v26ai4qblwzf7",
	"docs/gateway.md: go run ./cmd/m2mauth-gateway cmd/m2mauth-gateway/gateway.yaml",
	"docs/logto.md: ISSUER=https://your.logto.endpoint/oidc AUDIENCE=https://shopping.api go run ./examples/shop",
	"docs/logto.md: curl -sS -u \"$APP_ID:$APP_SECRET\" \"$ISSUER/token\" \\",
	"docs/mcp.md: ISSUER=https://your.logto.endpoint/oidc AUDIENCE=http://localhost:3001/ ADDR=localhost:3001 go run ./examples/mcp",
	"docs/revocation.md: export M2MAUTH_ISSUER=https://your.logto.endpoint/oidc",
	"docs/revocation.md: REDIS=\"redis-cli …\" # with the host, the user and --tls",
	"docs/revocation.md: export API=https://api.example.com ADMIN=https://api.example.com/admin/revocations",
	"docs/soak.md: SOAK=10m go test -count=1 -v -timeout 25m ./e2e/soak",
	"docs/supply-chain.md: trivy fs --vex .vex/m2mauth.openvex.json .",
	"docs/supply-chain.md: go tool govulncheck ./...",
	"docs/testing.md: go run ./cmd/m2mauth issuer --resource \"https://shopping.api read:products write:products\" \\",
}

// Commands run as they stand in the root of the repository, but for those that are
// marked and listed.
func TestEveryCommandThatCanRunDoes(t *testing.T) {
	var run []block
	output := make(map[int]string) // of those that show it
	marked, e2e := []string{}, 0
	for _, p := range documentation(t) {
		for n, b := range p.blocks {
			switch reason, not := strings.CutPrefix(b.mark, markNotRun); {
			case b.language != "sh":
			case not:
				assert.NotEmpty(t, reason, b.where())
				marked = append(marked, b.firstLine())
			case b.mark == markE2E:
				e2e++
			case b.mark == markRunbook:
			default:
				assert.Empty(t, b.mark, b.where())
				if n+1 < len(p.blocks) && p.blocks[n+1].mark == markOutput {
					output[len(run)] = p.blocks[n+1].text
				}
				run = append(run, b)
			}
		}
	}
	assert.Equal(t, notRun, marked)
	assert.NotZero(t, e2e)
	assert.NotEmpty(t, run)
	t.Logf("%d blocks of commands are run here, %d in e2e, and %d nowhere:\n%s", len(run), e2e, len(marked), strings.Join(marked, "\n"))
	if testing.Short() {
		t.Skip("commands take a while")
	}
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("needs sh")
	}
	for n, b := range run {
		t.Run(b.where(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "sh", "-euc", b.text)
			cmd.Dir = root
			cmd.Env = append(os.Environ(), "GOWORK=") // as in a clone, whatever the tests run with
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			require.NoError(t, cmd.Run(), "%s%s", stdout.String(), stderr.String())
			if want, shown := output[n]; shown {
				assert.Equal(t, want, stdout.String())
			}
		})
	}
}
