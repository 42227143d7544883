// Report measures m2mauth and its peers in turn, and writes the ratios to
// REPORT.md and report.svg. It takes half an hour. What it measures in absolute
// terms goes to standard error alone, for it says more about the computer.
//
//	go run ./bench/report
package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/perf/benchmath"

	"github.com/m2mauth/m2mauth/bench"
)

var (
	rounds = flag.Int("rounds", 30, "measurements of each contender, in turn with the others")
	length = flag.Duration("benchtime", 100*time.Millisecond, "of one measurement in memory; those of servers take five times as long")
	parts  = flag.String("parts", "requests,servers,memory", "what to measure; files are written only if it is everything")
	only   = flag.String("only", "", "a regular expression for ALGORITHM/WORKLOAD")
	tokens = flag.Int("tokens", 1_000_000, "remembered in the measurement of memory")
	out    = flag.String("out", "bench", "folder for REPORT.md and report.svg")
)

func main() {
	bench.ServeIfAsked()
	log.SetFlags(log.Ltime)
	testing.Init() // declares test.benchtime
	flag.Parse()
	must(flag.Set("test.benchtime", length.String()))

	var text bytes.Buffer
	var rows []row
	preamble(&text)
	if strings.Contains(*parts, "requests") {
		rows = measureRequests()
		writeRequests(&text, rows)
	}
	if strings.Contains(*parts, "servers") {
		writeServers(&text)
	}
	if strings.Contains(*parts, "memory") {
		bytes, err := bench.Memory(*tokens)
		must(err)
		fmt.Fprintf(&text, "\n## Memory\n\n%d distinct tokens leave %.1f MiB on the heap, with the default `CacheBytes`.\n", *tokens, float64(bytes)/(1<<20))
	}
	if *only != "" || *parts != flag.Lookup("parts").DefValue {
		_, _ = os.Stdout.Write(text.Bytes())
		return
	}
	must(os.WriteFile(filepath.Join(*out, "REPORT.md"), text.Bytes(), 0o644))
	must(writeChart(filepath.Join(*out, "report.svg"), rows))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// series are the measurements of one contender, one of each round.
type series []float64

// ratio is the median of the ratios of each round, with the 95 % confidence
// interval of benchstat. What else the computer did in a round cancels out.
func (s series) ratio(to series) benchmath.Summary {
	ratios := make([]float64, len(s))
	for i := range s {
		ratios[i] = s[i] / to[i]
	}
	return s.summary(ratios)
}

func (series) summary(values []float64) benchmath.Summary {
	return benchmath.AssumeNothing.Summary(benchmath.NewSample(values, &benchmath.DefaultThresholds), 0.95)
}

func (s series) median() float64 { return s.summary(s).Center }

// row is a workload with an algorithm.
type row struct {
	algorithm, workload string
	cost                map[string]series // by contender, in nanoseconds
	allocs              map[string]int64
	fetches             map[string]float64 // of the key set, per request
}

func measureRequests() (rows []row) {
	filter := regexp.MustCompile(*only)
	for _, algorithm := range bench.Algorithms {
		fixture, err := bench.NewFixture(algorithm, 1024)
		must(err)
		for _, workload := range bench.Workloads {
			if filter.MatchString(algorithm + "/" + workload.Name) {
				rows = append(rows, measureRow(fixture, algorithm, workload))
			}
		}
	}
	return rows
}

func measureRow(fixture *bench.Fixture, algorithm string, workload bench.Workload) row {
	r := row{algorithm, workload.Name, map[string]series{}, map[string]int64{}, map[string]float64{}}
	runs := map[string]*bench.Run{}
	for _, name := range contenders() {
		run, err := fixture.Prepare(name, workload)
		must(err)
		defer run.Stop()
		runs[name] = run
	}
	for range *rounds {
		for _, name := range contenders() {
			before := runs[name].Fetches()
			result := testing.Benchmark(runs[name].Benchmark)
			if result.N == 0 {
				log.Fatalf("%s failed at %s/%s", name, algorithm, workload.Name)
			}
			cost := result.Extra[bench.CPU]
			if workload.Parallel || cost == 0 {
				cost = float64(result.T.Nanoseconds()) / float64(result.N)
			}
			r.cost[name] = append(r.cost[name], cost)
			r.allocs[name] = result.AllocsPerOp()
			r.fetches[name] = float64(runs[name].Fetches()-before) / float64(result.N)
		}
	}
	log.Printf("%s/%s", algorithm, workload.Name)
	for _, name := range contenders() {
		log.Printf("  %-10s %10.0f ns  %3d allocs", name, r.cost[name].median(), r.allocs[name])
	}
	return r
}

// contenders returns the floor, m2mauth, and the peers.
func contenders() []string {
	names := []string{bench.Floor}
	for _, c := range bench.Contenders {
		names = append(names, c.Name)
	}
	return names
}

func peers() []string { return contenders()[2:] }

func (r row) ours() series { return r.cost[bench.Ours] }

func (r row) bestPeer() string {
	return slices.MinFunc(peers(), func(a, b string) int {
		return cmp.Compare(r.cost[a].ratio(r.ours()).Center, r.cost[b].ratio(r.ours()).Center)
	})
}

func preamble(w io.Writer) {
	info, _ := debug.ReadBuildInfo()
	versions := map[string]string{}
	for _, m := range info.Deps {
		versions[m.Path] = m.Version
	}
	fmt.Fprintf(w, "# Speed, compared\n\nWritten by `go run ./bench/report` on %s: %s, %s/%s, %s, %d cores.\n\n",
		time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH, bench.Processor(), runtime.NumCPU())
	fmt.Fprintf(w, "All figures are ratios of %d measurements each, made in turn: the median, and ± the 95 %% confidence interval\n"+
		"by benchstat's method. Compared are, each set up as its README says:\n\n", *rounds)
	for _, c := range bench.Contenders[1:] {
		fmt.Fprintf(w, "- %s: `%s` %s\n", c.Name, c.Module, versions[c.Module])
	}
	fmt.Fprintf(w, "- `%s`: the bare check of a signature with the standard library\n\n"+
		"auth0 is built with the jwx v3 above, which is newer than the one it asks for. golang-jwt has its keys in a map here;\n"+
		"keyfunc fetches them for it, in the newest release whose dependencies could be had, which is not the current one.\n"+
		"All can do all four algorithms.\n\n![Cost of a request](report.svg)\n", bench.Floor)
}

func writeRequests(w io.Writer, rows []row) {
	fmt.Fprint(w, "\n## Requests through a handler with a scope check\n\n"+
		"How many times as much of the processor's time as m2mauth a peer takes, garbage collection included (on all\n"+
		"cores: how many times as long); **we lose** where that is less than 1 for certain. `floor` is the same of m2mauth in units\n"+
		"of the bare check. The issuer is in memory: a peer that fetches keys for a bad token\n"+
		"(in brackets: fetches per request) would wait for the network as well.\n\n")
	fmt.Fprintf(w, "| workload | floor | %s | m2mauth allocs |\n|---|---|%s---|\n", strings.Join(peers(), " | "), strings.Repeat("---|", len(peers())))
	for _, r := range rows {
		fmt.Fprintf(w, "| %s, %s | %s |", r.workload, r.algorithm, format(r.ours().ratio(r.cost[bench.Floor])))
		for _, name := range peers() {
			s := r.cost[name].ratio(r.ours())
			cell := format(s)
			if s.Hi < 1 {
				cell = "**we lose** " + cell
			}
			if r.fetches[name] > 0.01 {
				cell += fmt.Sprintf(" (%.2g)", r.fetches[name])
			}
			if name == r.bestPeer() {
				cell = "best: " + cell
			}
			fmt.Fprintf(w, " %s |", cell)
		}
		fmt.Fprintf(w, " %d |\n", r.allocs[bench.Ours])
	}
}

// format writes a ratio with three digits or more.
func format(s benchmath.Summary) string {
	digits := "%.0f"
	switch {
	case s.Center < 0.1:
		digits = "%.4f"
	case s.Center < 1.1: // who is ahead must show
		digits = "%.3f"
	case s.Center < 10:
		digits = "%.2f"
	case s.Center < 100:
		digits = "%.1f"
	}
	return fmt.Sprintf(digits, s.Center) + " ±" + s.PctRangeString()
}

// writeServers compares m2mauth's server with that of the fastest peer.
func writeServers(w io.Writer) {
	names := []string{bench.Ours, "golang-jwt"}
	servers, values := map[string]*bench.Server{}, map[string]map[string]series{}
	for _, name := range names {
		server, err := bench.StartServer(name)
		must(err)
		defer server.Stop()
		servers[name], values[name] = server, map[string]series{}
	}
	for range *rounds {
		for _, name := range names {
			for key, value := range measureServer(servers[name]) {
				values[name][key] = append(values[name][key], value)
			}
		}
	}
	for _, name := range names {
		for _, key := range slices.Sorted(maps.Keys(values[name])) {
			log.Printf("%s, %s: %.6g", name, key, values[name][key].median())
		}
	}
	fmt.Fprint(w, "\n## More cores\n\n"+
		"A hit in the cache takes no lock and writes nothing that all cores share (but for the rare one that takes a token over\n"+
		"into the next table): the table is only read. Hits are counted in stripes, at least 64 and four or more for each core, and\n"+
		"the address of a goroutine's stack chooses one. So 64 cores should serve nearly 64 times what one does: at any moment\n"+
		"about one in five of them counts in a stripe that another one uses too. This is an estimate, for a machine with so many\n"+
		"was not at hand.\n"+
		"`go test -run '^$' -bench AllCores -cpu 1,2 .` measures it beside a loop that shares nothing.\n")
	fmt.Fprint(w, "\n## A whole server, in a process of its own, over loopback\n\n"+
		"Client and server share the cores, so the server has less than all of them.\n\n"+
		"| measured | m2mauth | golang-jwt |\n|---|---|---|\n")
	for _, line := range []struct{ name, of, to string }{
		{"`/products` with a known token: rate, `/healthz` = 1", "known", "health"},
		{"`/products` with 1,000 tokens: rate, `/healthz` = 1", "many", "health"},
		{"known token, 32 connections send forged ones: median, alone = 1", "flood p50", "idle p50"},
		{"the same: 99th percentile, alone = 1", "flood p99", "idle p99"},
	} {
		fmt.Fprintf(w, "| %s |", line.name)
		for _, name := range names {
			fmt.Fprintf(w, " %s |", format(values[name][line.of].ratio(values[name][line.to])))
		}
		fmt.Fprintln(w)
	}
	for _, line := range []struct {
		name string
		show func(map[string]series) string
	}{
		{"new good tokens from another address, in a flood of forged ones: refused", func(v map[string]series) string {
			return fmt.Sprint(slices.Max(v["new refused"]))
		}},
		{"the same: the median within 100 ms", func(v map[string]series) string { return fmt.Sprint(v["new p50"].median() < 0.1) }},
		{"the same: forged tokens sent, what can be verified = 1 (10 was tried)", func(v map[string]series) string {
			return fmt.Sprintf("%.1f", v["new times"].median())
		}},
	} {
		fmt.Fprintf(w, "| %s | %s | %s |\n", line.name, line.show(values[names[0]]), line.show(values[names[1]]))
	}
}

func measureServer(s *bench.Server) map[string]float64 {
	d := 5 * *length
	values := map[string]float64{}
	var err error
	values["health"], values["known"], values["many"], err = s.Rates(d)
	must(err)
	for key, flooded := range map[string]bool{"idle": false, "flood": true} {
		l, err := s.KnownLatency(flooded, d)
		must(err)
		values[key+" p50"], values[key+" p99"] = l.P50, l.P99
	}
	l, times, err := s.NewLatency(2 * d)
	must(err)
	values["new p50"], values["new refused"], values["new times"] = l.P50, float64(l.Refused), times
	return values
}
