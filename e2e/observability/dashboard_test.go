package observability

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/promauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// panel is a part of a dashboard.
type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               struct{ UID string }
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct {
		RefID, Expr string
		Datasource  struct{ UID string }
	}
}

type board struct {
	UID, Title string
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []panel
}

func dashboard(t *testing.T) (b board) {
	t.Helper()
	text, err := os.ReadFile("../../docs/observability/dashboard.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &b))
	return b
}

func TestTheDashboardCanBeImported(t *testing.T) {
	t.Parallel()
	b := dashboard(t)
	assert.NotEmpty(t, b.UID)
	assert.NotEmpty(t, b.Title)
	var variables []string
	for _, variable := range b.Templating.List {
		variables = append(variables, variable.Name)
	}
	assert.Equal(t, []string{"datasource", "job", "guard", "issuer"}, variables)
	assert.Equal(t, "datasource", b.Templating.List[0].Type)

	ids, titles := map[int]bool{}, map[string]bool{}
	for n, p := range b.Panels {
		assert.NotZero(t, p.ID, p.Title)
		assert.False(t, ids[p.ID], "two panels have the ID %d", p.ID)
		assert.False(t, titles[p.Title], "two panels have the title %q", p.Title)
		ids[p.ID], titles[p.Title] = true, true
		assert.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for _, other := range b.Panels[:n] {
			a, c := p.GridPos, other.GridPos
			assert.False(t, a.X < c.X+c.W && c.X < a.X+a.W && a.Y < c.Y+c.H && c.Y < a.Y+a.H, "%q covers %q", p.Title, other.Title)
		}
		if p.Type == "row" {
			continue
		}
		assert.NotEmpty(t, p.Description, p.Title)
		assert.Equal(t, "${datasource}", p.Datasource.UID, p.Title)
		assert.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			assert.Equal(t, "${datasource}", target.Datasource.UID, p.Title)
			// Each metric is limited to what the variables choose.
			assert.Equal(t, strings.Count(target.Expr, "m2mauth_"), strings.Count(target.Expr, `{job=~"$job", guard=~"$guard"`), "%s: %s", p.Title, target.Expr)
			assert.Equal(t, strings.Count(target.Expr, "m2mauth_keys_"), strings.Count(target.Expr, `, issuer=~"$issuer"`), "%s: %s", p.Title, target.Expr)
		}
	}
}

// exported returns the names of the metrics that promauth exports, and the values that
// their labels have in a guard that has done nothing yet.
func exported(t *testing.T) (names map[string]bool, labels map[string][]string) {
	t.Helper()
	registry := prom.NewRegistry()
	metrics, err := promauth.New(registry, promauth.Options{})
	require.NoError(t, err)
	guard, err := m2mauth.New(m2mauthtest.NewIssuer().Config(audience))
	require.NoError(t, err)
	metrics.ObserveGuard(guard)

	descriptions := make(chan *prom.Desc, 1000)
	registry.Describe(descriptions)
	close(descriptions)
	named := regexp.MustCompile(`fqName: "([^"]+)"`)
	names = make(map[string]bool)
	for d := range descriptions {
		found := named.FindStringSubmatch(d.String())
		require.NotNil(t, found, d.String())
		names[found[1]] = true
	}
	families, err := registry.Gather()
	require.NoError(t, err)
	labels = make(map[string][]string)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, pair := range m.GetLabel() {
				labels[pair.GetName()] = append(labels[pair.GetName()], pair.GetValue())
			}
		}
	}
	return names, labels
}

var metric = regexp.MustCompile(`\bm2mauth_[a-z0-9_]+\b`)

// values are those of labels in expressions.
var values = regexp.MustCompile(`\b(outcome|state|report_only|usable|remembered)(=|!=|=~|!~)"([^"]*)"`)

// Neither the dashboard nor the rules know a metric that does not exist, and the
// dashboard shows all that do.
func TestDashboardAndRulesNameOnlyMetricsThatAreExported(t *testing.T) {
	t.Parallel()
	names, known := exported(t)
	require.NotEmpty(t, names)
	shown := make(map[string]bool)
	check := func(where, expr string) {
		found := metric.FindAllString(expr, -1)
		assert.NotEmpty(t, found, "%s: %s", where, expr)
		for _, name := range found {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base, cut := strings.CutSuffix(name, suffix); cut && names[base] {
					name = base
				}
			}
			assert.True(t, names[name], "%s: promauth exports no %s", where, name)
			shown[name] = true
		}
		for _, found := range values.FindAllStringSubmatch(expr, -1) {
			for value := range strings.SplitSeq(found[3], "|") {
				assert.Contains(t, known[found[1]], value, "%s: %s", where, found[0])
			}
		}
	}
	for _, rule := range rules(t) {
		check(rule.Alert, rule.Expr)
	}
	clear(shown)
	b := dashboard(t)
	for _, variable := range b.Templating.List[1:] {
		check(variable.Name, variable.Definition)
	}
	for _, p := range b.Panels {
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
	}
	for name := range names {
		if name != "m2mauth_keys_last_success_timestamp_seconds" { // the panel of the age says the same
			assert.True(t, shown[name], "no panel shows %s", name)
		}
	}
}

// askAllOf asks Prometheus for what each panel of the dashboard has shown since then.
// All that can happen has happened.
func askAllOf(t *testing.T, b board, server *prometheus, since time.Time) {
	t.Helper()
	fill := strings.NewReplacer("$job", ".*", "$guard", ".*", "$issuer", ".*", "$__rate_interval", "5s")
	asked := 0
	for _, p := range b.Panels {
		for _, target := range p.Targets {
			var data struct{ Result []any }
			err := server.get("query_range", url.Values{
				"query": {fill.Replace(target.Expr)}, "step": {"2s"},
				"start": {fmt.Sprint(since.Unix())}, "end": {fmt.Sprint(time.Now().Unix())},
			}, &data)
			assert.NoError(t, err, p.Title)
			assert.NotEmpty(t, data.Result, "%s has nothing to show: %s", p.Title, target.Expr)
			asked++
		}
	}
	t.Logf("%d panels with %d queries: each is valid and has shown something", len(slices.DeleteFunc(b.Panels, func(p panel) bool { return p.Type == "row" })), asked)
}
