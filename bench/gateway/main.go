// Gateway measures m2mauth-gateway and oauth2-proxy in turn, and writes the ratios
// to GATEWAY.md. It takes some minutes. What it measures in absolute terms goes to
// standard error alone, for it says more about the computer.
//
//	go run ./bench/gateway
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/perf/benchmath"

	"github.com/m2mauth/m2mauth/bench"
)

var (
	root   = flag.String("root", ".", "folder of the repository")
	out    = flag.String("out", "bench/GATEWAY.md", "file to write")
	rounds = flag.Int("rounds", 30, "measurements of each form, in turn with the others; three times as many of latencies")
	length = flag.Duration("benchtime", 300*time.Millisecond, "of one measurement")
	reload = flag.Duration("reload", 30*time.Second, "how long each form is asked while the file changes every second")
)

// algorithms are Logto's default, and the one whose check costs the least.
var algorithms = []string{"ES384", "RS256"}

const rival = "oauth2-proxy"

func main() {
	log.SetFlags(log.Ltime)
	flag.Parse()
	dir, err := os.MkdirTemp("", "m2mauth-gateway-")
	must(err)
	defer os.RemoveAll(dir)
	must(bench.BuildGates(*root, dir))
	var text bytes.Buffer
	preamble(&text)
	cost := map[string]map[string]*figures{}
	var flood map[string]*latencies
	var reloads map[string]bench.Answers
	for _, algorithm := range algorithms {
		noteLoad()
		gates, err := bench.StartGates(dir, algorithm)
		must(err)
		cost[algorithm] = measureCost(gates)
		if algorithm == algorithms[0] {
			flood, reloads = measureFlood(gates), measureReloads(gates)
		}
		noteLoad()
		gates.Stop()
	}
	writeCost(&text, cost)
	writeFlood(&text, flood)
	writeReloads(&text, reloads)
	writeLoads(&text)
	must(os.WriteFile(*out, text.Bytes(), 0o644))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// series are the measurements of one form, one of each round.
type series []float64

// ratio is the median of the ratios of each round, with benchstat's 95 %
// confidence interval. What else the computer did in a round cancels out.
func (s series) ratio(to series) benchmath.Summary {
	ratios := make([]float64, len(s))
	for i := range s {
		ratios[i] = s[i] / to[i]
	}
	return benchmath.AssumeNothing.Summary(benchmath.NewSample(ratios, &benchmath.DefaultThresholds), 0.95)
}

func (s series) median() float64 {
	return slices.Sorted(slices.Values(s))[len(s)/2]
}

// figures are the series of a form, by what they measure.
type figures map[string]series

func (f *figures) add(what string, value float64) {
	if *f == nil {
		*f = figures{}
	}
	(*f)[what] = append((*f)[what], value)
}

func newFigures() map[string]*figures {
	all := map[string]*figures{}
	for _, form := range bench.GateForms {
		all[form] = new(figures)
	}
	return all
}

func measureCost(g *bench.Gates) map[string]*figures {
	all := newFigures()
	for range *rounds {
		for _, form := range bench.GateForms {
			for what, many := range map[string]bool{"one": false, "many": true} {
				c, err := g.Known(form, many, *length)
				must(err)
				all[form].add(what+" rate", c.Rate)
				all[form].add(what+" cpu", c.CPU)
			}
		}
	}
	logAll(all)
	return all
}

// latencies are the times that answers took in each round.
type latencies struct {
	idle, flood [][]float64
	refused     int
}

func measureFlood(g *bench.Gates) map[string]*latencies {
	all := map[string]*latencies{}
	for range 3 * *rounds {
		for _, form := range bench.GateForms {
			if all[form] == nil {
				all[form] = new(latencies)
			}
			own := all[form]
			for _, flooded := range []bool{false, true} {
				l, err := g.KnownLatency(form, flooded, *length)
				must(err)
				to := &own.idle
				if flooded {
					to = &own.flood
				}
				*to, own.refused = append(*to, l.Times), own.refused+l.Refused
			}
		}
	}
	for form, own := range all {
		for _, q := range []int{50, 90, 99} {
			log.Printf("%s, %d %%: %.3g ms, in a flood %.3g ms", form, q, 1000*quantile(own.idle, q), 1000*quantile(own.flood, q))
		}
	}
	return all
}

// quantile is that of all rounds together: a hundredth of one is a few answers.
func quantile(rounds [][]float64, percent int) float64 {
	all := slices.Sorted(slices.Values(slices.Concat(rounds...)))
	return all[len(all)*percent/100]
}

// ratio compares quantiles, with a 95 % confidence interval by drawing the rounds
// anew.
func (l *latencies) ratio(percent int) string {
	const draws = 1000
	of := func(rounds func(n int) int) float64 {
		var idle, flood [][]float64
		for n := range l.idle {
			idle, flood = append(idle, l.idle[rounds(n)]), append(flood, l.flood[rounds(n)])
		}
		return quantile(flood, percent) / quantile(idle, percent)
	}
	drawn := make([]float64, draws)
	for n := range drawn {
		drawn[n] = of(func(int) int { return rand.IntN(len(l.idle)) })
	}
	slices.Sort(drawn)
	return fmt.Sprintf("%.2f (%.2f to %.2f)", of(func(n int) int { return n }), drawn[draws*25/1000], drawn[draws*975/1000])
}

func measureReloads(g *bench.Gates) map[string]bench.Answers {
	all := map[string]bench.Answers{}
	for _, form := range bench.GateForms {
		if form == rival {
			continue
		}
		a, err := g.Reloading(form, time.Second, *reload)
		must(err)
		log.Printf("%s: %+v", form, a)
		all[form] = a
	}
	return all
}

func logAll(all map[string]*figures) {
	for _, form := range bench.GateForms {
		for _, what := range slices.Sorted(maps.Keys(*all[form])) {
			log.Printf("%s, %s: %.6g", form, what, (*all[form])[what].median())
		}
	}
}

func preamble(w io.Writer) {
	text, err := os.ReadFile(filepath.Join(*root, "e2e", "proxies", "oauth2proxy", "go.mod"))
	must(err)
	module, err := modfile.Parse("go.mod", text, nil)
	must(err)
	var version string
	for _, r := range module.Require {
		if r.Mod.Path == module.Tool[0].Path {
			version = r.Mod.Version
		}
	}
	fmt.Fprintf(w, "# Speed of the gateway, compared\n\nWritten by `go run ./bench/gateway` on %s: %s, %s/%s, %s, %d cores.\n\n",
		time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH, bench.Processor(), runtime.NumCPU())
	fmt.Fprintf(w, `m2mauth-gateway beside oauth2-proxy %s, both as programs of their own on loopback, with the same client and the same
tokens. The client shares the cores with them, so the programs have less than all. Ratios are of %d measurements each, made in turn: the median, and ± the
95 %% confidence interval by benchstat's method.

oauth2-proxy runs with `+"`--skip-jwt-bearer-tokens`"+`, with the issuer as its provider, its logs off, and is asked at `+"`/oauth2/auth`"+`. It checks issuer, audience, lifetime and signature; the
gateway checks the table and the scopes as well, logs, and counts for its metrics. Before anything was measured, both had answered a good token with 2xx, and a forged
one and one for another audience with 401.
`, version, *rounds)
}

func writeCost(w io.Writer, cost map[string]map[string]*figures) {
	fmt.Fprint(w, "\n## Known tokens\n\n"+
		"Sixteen requests are under way at any time: over HTTP on as many connections that are kept alive, over gRPC on two, as from an Envoy with two workers.\n"+
		"*Rate*: decisions a second, oauth2-proxy = 1. *Processor*: how many times as much of the processor's time oauth2-proxy takes for a\n"+
		"decision; this leaves the client out.\n\n"+
		"| asked | algorithm | one token: rate | processor | 1,000 tokens: rate | processor |\n|---|---|---|---|---|---|\n")
	for _, algorithm := range algorithms {
		other := *cost[algorithm][rival]
		for _, form := range bench.GateForms {
			if form == rival {
				continue
			}
			own := *cost[algorithm][form]
			fmt.Fprintf(w, "| %s | %s |", title(form), algorithm)
			for _, what := range []string{"one", "many"} {
				fmt.Fprintf(w, " %s | %s |", format(own[what+" rate"].ratio(other[what+" rate"])), format(other[what+" cpu"].ratio(own[what+" cpu"])))
			}
			fmt.Fprintln(w)
		}
	}
}

func writeFlood(w io.Writer, flood map[string]*latencies) {
	fmt.Fprint(w, "\n## A flood of forged tokens\n\n"+
		"How long a decision about a known token takes while another caller's forged tokens come, each another, 32 at any time, as fast as they are refused. ES384.\n"+
		fmt.Sprintf("Quantiles of all %d rounds together, with and without the flood in turn; in brackets the 95 %% confidence interval, by drawing the rounds anew.\n\n", 3**rounds)+
		"| asked | median, without the flood = 1 | 90th percentile | 99th percentile | known tokens refused |\n|---|---|---|---|---|\n")
	for _, form := range bench.GateForms {
		own := flood[form]
		fmt.Fprintf(w, "| %s | %s | %s | %s | %d |\n", title(form), own.ratio(50), own.ratio(90), own.ratio(99), own.refused)
	}
}

func writeReloads(w io.Writer, reloads map[string]bench.Answers) {
	fmt.Fprint(w, "\n## The file changes every second\n\n"+
		"Each time it has another row, and every fifth time other settings of the issuer too, so that its guard begins with nothing remembered. Eight requests with a known\n"+
		"token and two with forged ones are under way at any time. *Wrong*: another answer than without a change. A connection that is closed or an\n"+
		"answer that does not come would end the measurement.\n\n"+
		"| asked | files taken over | answers | wrong | failed |\n|---|---|---|---|---|\n")
	for _, form := range bench.GateForms {
		if a, ok := reloads[form]; ok {
			fmt.Fprintf(w, "| %s | %d | %d | %d | 0 |\n", title(form), a.Reloads, a.Right+a.Wrong, a.Wrong)
		}
	}
}

// loads are the load averages of the last five minutes, where the system tells them.
var loads []string

func noteLoad() {
	text, _ := os.ReadFile("/proc/loadavg")
	if fields := strings.Fields(string(text)); len(fields) > 1 {
		loads = append(loads, fields[1])
	}
}

// writeLoads says what else the computer did, which no ratio takes out of a 99th
// percentile.
func writeLoads(w io.Writer) {
	if len(loads) > 0 {
		fmt.Fprintf(w, "\nThe load average (five minutes) was %s at the beginnings and ends of both parts, ES384 and RS256.\n", strings.Join(loads, ", "))
	}
}

func title(form string) string {
	switch form {
	case "auth_request":
		return "by nginx's `auth_request`"
	case "forward-auth":
		return "by forward authentication (Traefik, Caddy)"
	case "ext_authz":
		return "by Envoy's `ext_authz`, gRPC"
	}
	return form
}

// format writes a ratio with three digits or more.
func format(s benchmath.Summary) string {
	digits := 2
	switch {
	case s.Center >= 100:
		digits = 0
	case s.Center >= 10:
		digits = 1
	}
	return strings.Replace(fmt.Sprintf("%.*f ±%s", digits, s.Center, s.PctRangeString()), "±±", "±", 1)
}
