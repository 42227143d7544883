package observability

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/m2mauth/m2mauth/e2e/internal/process"
)

const (
	rulesFile = "../../docs/observability/alerts.yml"
	pageFile  = "../../docs/observability/alerts.md"
	pageURL   = "https://github.com/m2mauth/m2mauth/blob/main/docs/observability/alerts.md#"
)

// factor is how much faster time passes for the rules here: a minute is a second.
const factor = 60

// rule is an alert of the file.
type rule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	require.NoError(t, err)
	var file struct{ Groups []struct{ Rules []rule } }
	require.NoError(t, yaml.Unmarshal(text, &file))
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	require.NotEmpty(t, all)
	return all
}

// scaledRules returns the rules with all times divided by factor, and nothing else
// changed: the values of for and keep_firing_for, ranges as in [5m], and numbers that
// are times, which end in "* 60".
func scaledRules(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	require.NoError(t, err)
	var file yaml.Node
	require.NoError(t, yaml.Unmarshal(text, &file))
	scale(t, "", &file)
	scaled, err := yaml.Marshal(&file)
	require.NoError(t, err)
	return scaled
}

var (
	inBrackets = regexp.MustCompile(`\[[^]]*\]`)
	inMinutes  = regexp.MustCompile(`\* 60\b(?: [^*]|$|\n)`)
)

func scale(t *testing.T, key string, n *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			scale(t, n.Content[i].Value, n.Content[i+1])
		}
		return
	case yaml.ScalarNode:
	default:
		for _, child := range n.Content {
			scale(t, key, child)
		}
		return
	}
	switch key {
	case "for", "keep_firing_for", "interval":
		n.Value = scaledDuration(t, n.Value)
	case "expr":
		n.Value = inBrackets.ReplaceAllStringFunc(n.Value, func(s string) string {
			return "[" + scaledDuration(t, strings.Trim(s, "[]")) + "]"
		})
		n.Value = inMinutes.ReplaceAllStringFunc(n.Value, func(s string) string { return strings.Replace(s, "60", fmt.Sprint(60/factor), 1) })
		assert.NotContains(t, n.Value, "offset", "is not scaled")
	}
}

func scaledDuration(t *testing.T, s string) string {
	t.Helper()
	if days, found := strings.CutSuffix(s, "d"); found {
		s = days + "h"
		return seconds(t, s, 24)
	}
	return seconds(t, s, 1)
}

func seconds(t *testing.T, s string, times time.Duration) string {
	t.Helper()
	d, err := time.ParseDuration(s)
	require.NoError(t, err)
	d = d * times / factor
	require.Zero(t, d%time.Second, "%s is no whole number of seconds when scaled", s)
	return fmt.Sprintf("%ds", d/time.Second)
}

func TestRulesAreScaledInTheirTimesAlone(t *testing.T) {
	t.Parallel()
	var n yaml.Node
	require.NoError(t, yaml.Unmarshal([]byte(`
groups:
  - interval: 2m
    rules:
      - alert: A60m
        expr: rate(a{b="60"}[5m]) > 60 and c - time() < 3 * 24 * 60 * 60
        for: 1h
      - expr: time() - c > 5 * 60 or increase(d[1d]) > 0
        for: 2m
        keep_firing_for: 3m
`), &n))
	scale(t, "", &n)
	scaled, err := yaml.Marshal(&n)
	require.NoError(t, err)
	assert.YAMLEq(t, `
groups:
  - interval: 2s
    rules:
      - alert: A60m
        expr: rate(a{b="60"}[5s]) > 60 and c - time() < 3 * 24 * 60 * 1
        for: 60s
      - expr: time() - c > 5 * 1 or increase(d[1440s]) > 0
        for: 2s
        keep_firing_for: 3s
`, string(scaled))
}

func TestEachAlertSaysWhatToDo(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(pageFile)
	require.NoError(t, err)
	headings := regexp.MustCompile(`(?m)^### (M2MAuth\w+)$`).FindAllStringSubmatch(string(page), -1)
	var described []string
	for _, heading := range headings {
		described = append(described, heading[1])
	}
	var named []string
	for _, rule := range rules(t) {
		named = append(named, rule.Alert)
		assert.Contains(t, []string{"critical", "warning"}, rule.Labels["severity"], rule.Alert)
		assert.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
		assert.NotEmpty(t, rule.Annotations["description"], rule.Alert)
		assert.Equal(t, pageURL+strings.ToLower(rule.Alert), rule.Annotations["runbook_url"])
	}
	assert.Equal(t, named, described, "alerts, and the headings of the page")
}

// The unit tests of the rules play hours, in which everything is as it should be but for
// what each is about.
func TestPromtoolChecksAndTestsTheRules(t *testing.T) {
	t.Parallel()
	process.Need(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "--lint-fatal", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = "../../docs/observability"
		output, ok := process.Run(t, 3*time.Minute, cmd)
		assert.True(t, ok, output)
	}
	tests, err := os.ReadFile("../../docs/observability/alerts_test.yml")
	require.NoError(t, err)
	for _, rule := range rules(t) {
		assert.Contains(t, string(tests), `alertname="`+rule.Alert+`"`, "no unit test lets it fire")
	}
}
