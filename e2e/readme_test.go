package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/e2e/internal/issuer"
	"github.com/m2mauth/m2mauth/e2e/internal/process"
)

// What the README and docs show to callers, as it stands there, with the variables
// that it names.
func TestReadme(t *testing.T) {
	process.Need(t, "sh", "curl", "sed")
	oidc := issuer.Start(t)
	dir := binaries(t, "shop", "client")
	api := start(t, dir, "shop", process.FreeAddresses(t, 1)[0], "ISSUER="+oidc.URL)
	variables := map[string]string{
		"ISSUER":     oidc.URL,
		"API_URL":    api.url,
		"APP_ID":     "reader",
		"APP_SECRET": issuer.Secret("reader"),
	}
	env := os.Environ()
	for name, value := range variables {
		env = append(env, name+"="+value)
	}
	run := func(t *testing.T, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = env
		output, ok := process.Run(t, time.Minute, cmd)
		t.Logf("%s", output)
		require.True(t, ok, output)
		return output
	}

	step(t, "curl", func(t *testing.T) {
		export := regexp.MustCompile(`(?m)^export .*\n`)
		status := regexp.MustCompile(`(?m)^curl .*# (\d+)`)
		answered := regexp.MustCompile(`(?m)^HTTP/\S+ (\d+)`)
		tested := 0
		for _, block := range blocks(t, "<!-- run by e2e -->\n```sh") {
			tested++
			for name := range variables {
				assert.Regexp(t, `(?m)^export .*\b`+name+`=`, block)
			}
			output := run(t, "sh", "-euc", export.ReplaceAllString(block, ""))
			promised := second(status.FindAllStringSubmatch(block, -1))
			require.NotEmpty(t, promised)
			assert.Equal(t, promised, second(answered.FindAllStringSubmatch(output, -1)))
		}
		assert.NotZero(t, tested)
	})
	step(t, "Node.js", func(t *testing.T) {
		snippets := blocks(t, "```js")
		require.NotEmpty(t, snippets)
		for _, snippet := range snippets {
			file := filepath.Join(t.TempDir(), "snippet.mjs")
			require.NoError(t, os.WriteFile(file, []byte(snippet), 0o600))
			output := run(t, "node", file)
			assert.Contains(t, output, "200 [")
			assert.Contains(t, output, "Coffee grinder")
		}
	})
	step(t, "examples/client", func(t *testing.T) {
		assert.Contains(t, run(t, filepath.Join(dir, "client")), "Coffee grinder")
	})
}

// blocks returns the blocks of code that begin so. internal/test/pages runs the
// others.
func blocks(t *testing.T, fence string) (found []string) {
	t.Helper()
	pages, err := filepath.Glob("../docs/*.md")
	require.NoError(t, err)
	for _, page := range append(pages, "../README.md") {
		data, err := os.ReadFile(page)
		require.NoError(t, err)
		text := strings.ReplaceAll(string(data), "\r\n", "\n")
		found = append(found, second(regexp.MustCompile("(?s)"+fence+"\n(.*?)```").FindAllStringSubmatch(text, -1))...)
	}
	return found
}

func second(matches [][]string) (groups []string) {
	for _, match := range matches {
		groups = append(groups, match[1])
	}
	return groups
}
