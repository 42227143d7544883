package observability

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/e2e/internal/process"
)

// prometheus is a running Prometheus server.
type prometheus struct{ url string }

// startPrometheus starts a server that scrapes these jobs every second, each one address,
// and evaluates the rules as often.
func startPrometheus(t *testing.T, rules []byte, jobs map[string]string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	config := strings.Builder{}
	config.WriteString("global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [rules.yml]\nscrape_configs:\n")
	for job, address := range jobs {
		fmt.Fprintf(&config, "  - {job_name: %q, static_configs: [{targets: [%q]}]}\n", job, address)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config.String()), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rules.yml"), rules, 0o600))

	p := &prometheus{"http://" + process.FreeAddresses(t, 1)[0]}
	cmd := exec.Command("prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
		"--web.listen-address="+strings.TrimPrefix(p.url, "http://"), "--log.level=warn")
	cmd.Dir = dir
	process.Start(t, cmd).Ready(t, p.url+"/-/ready")
	return p
}

// get asks the HTTP API, and decodes the data of its answer.
func (p *prometheus) get(path string, parameters url.Values, data any) error {
	client := http.Client{Timeout: time.Minute}
	response, err := client.Get(p.url + "/api/v1/" + path + "?" + parameters.Encode())
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s: %w: %s", path, err, body)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", parameters.Encode(), answer.Error)
	}
	return nil
}

// sample is one series of the result of a query.
type sample struct {
	Metric map[string]string
	Value  [2]any // the time, and the value as a string
}

func (p *prometheus) query(expr string) ([]sample, error) {
	var data struct{ Result []sample }
	err := p.get("query", url.Values{"query": {expr}}, &data)
	return data.Result, err
}

// firing returns the names of the alerts that fire for a job, sorted.
func (p *prometheus) firing(job string) ([]string, error) {
	var data struct {
		Alerts []struct {
			Labels, Annotations map[string]string
			State               string
		}
	}
	if err := p.get("alerts", nil, &data); err != nil {
		return nil, err
	}
	var names []string
	for _, alert := range data.Alerts {
		if alert.Labels["job"] != job || alert.State != "firing" {
			continue
		}
		for name, text := range alert.Annotations {
			if strings.Contains(text, "<no value>") || strings.Contains(text, "error expanding") || strings.Contains(text, "  ") {
				return nil, fmt.Errorf("%s of %s: %s", name, alert.Labels["alertname"], text)
			}
		}
		names = append(names, alert.Labels["alertname"])
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
