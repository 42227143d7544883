// Package soak lets clients of every kind loose on the shop example, a process of
// its own, while its issuer's keys rotate and its issuer fails and returns. No
// answer may be wrong, and what the process takes of the system must stay flat.
//
//	SOAK=10m go test -count=1 -v -timeout 25m ./e2e/soak
//
// SOAK is how long the clients ask, but for the waits until the shop knows a
// new key; without it, a few seconds.
package soak

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	// So that go test does not repeat an old result when m2mauth changes.
	_ "github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/e2e/internal/process"
)

func TestMain(m *testing.M) { process.Main(m) }

// The bounds of what is flat: how much more the last third of the run may take
// than the first.
const (
	moreDescriptors = 32
	moreThreads     = 8
	moreResident    = 24 << 10 // KiB
	// KiB in a run of less than five minutes: a process gives back what the
	// connections of a flood took over some minutes.
	moreResidentShort = 64 << 10
	atRest            = 100 * time.Millisecond // of CPU, in a second without a request
)

// A run that is shorter than long leaves out what takes long by itself: the
// memory for tokens is not filled before, floods are small, and the issuer goes on
// before the shop knows its newest key, so that known tokens may have to be refused.
const long = 20 * time.Second

func duration(t *testing.T) time.Duration {
	t.Helper()
	value := os.Getenv("SOAK")
	if value == "" {
		if testing.Short() {
			return 2 * time.Second
		}
		return 5 * time.Second
	}
	lasts, err := time.ParseDuration(value)
	require.NoError(t, err, "SOAK")
	require.GreaterOrEqual(t, lasts, time.Second, "SOAK")
	return lasts
}

// shop is the example as a process.
type shop struct {
	*process.Process
	*watched
	address string
}

func startShop(t *testing.T, program string, issuer *issuer, but ...*watched) shop {
	t.Helper()
	address := process.FreeAddresses(t, 1)[0]
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "ADDR="+address, "ISSUER="+issuer.URL(), "AUDIENCE="+audience,
		"JWKS_URL=", "PLAIN_HTTP_HOSTS=", "GOTRACEBACK=all")
	p := process.Start(t, cmd)
	p.Ready(t, "http://"+address+"/healthz")
	return shop{p, watch(t, program, but...), address}
}

func TestSoak(t *testing.T) {
	lasts := duration(t)
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./shop")
	build.Dir = "../../examples"
	output, ok := process.Run(t, 10*time.Minute, build)
	require.True(t, ok, output)
	program := filepath.Join(dir, "shop")

	issuer := startIssuer(t)
	api := startShop(t, program, issuer)
	l := &load{
		judge:  &judge{t: t, issuer: issuer, began: time.Now(), counts: make(map[string]map[outcome]int)},
		shop:   api.address,
		forger: newForger(),
		done:   make(chan struct{}),
	}
	first := l.from("127.0.0.2", true)
	require.Equal(t, accepted, l.send(first, l.url(), l.anyToken(issuer.newest(), "the first")))
	if lasts >= long {
		l.fill(20_000)
	}
	l.closeIdle()

	sampled := make(chan error, 1)
	stopSamples := make(chan struct{})
	if api.watched != nil {
		go func() { sampled <- api.sample(stopSamples) }()
	} else {
		sampled <- nil
	}
	l.began = time.Now()
	l.start()
	marks := []time.Time{l.began}
	for n := range 4 { // the first to warm up, then three of the same
		cycle{t, l, lasts / 4, n}.run()
		marks = append(marks, time.Now())
	}
	close(stopSamples)
	require.NoError(t, <-sampled)
	close(l.done)
	l.clients.Wait()

	fresh := finale(t, l, program, api.watched)
	l.closeIdle()
	report(t, l, lasts >= long)
	if api.watched == nil {
		t.Log("descriptors, threads and memory are not looked at: only Linux has /proc")
		return
	}
	flat(t, api, marks)
	leftovers(t, l, api, fresh)
}

// cycle is a quarter of the run. All have the same parts.
type cycle struct {
	t     *testing.T
	load  *load
	lasts time.Duration
	n     int
}

func (c cycle) run() {
	c.rotations(0.10, "RS256", "ES256")
	c.rotations(0.05, "ES512") // whose checks take longest, for the flood
	c.flood(0.06, "127.0.1.1")
	c.fault(2*c.n, 0.04)
	c.rotations(0.07, "EdDSA", "PS256")
	c.fault(2*c.n+1, 0.11)
	c.outage()
}

// full says that the run is long.
func (c cycle) full() bool { return 4*c.lasts >= long }

// wait waits for a share of the cycle.
func (c cycle) wait(share float64) { <-time.After(time.Duration(share * float64(c.lasts))) }

// known waits until the shop has proven that it knows the newest key; if that
// takes too long, the judge says so of an answer. So the shop always knows one key
// that is published: known tokens have to be accepted all the time.
func (c cycle) known() {
	if !c.full() {
		return
	}
	newest := c.load.issuer.newest()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * showsWithin); time.Now().Before(deadline); <-tick.C {
		if c.load.issuer.good() == newest {
			return
		}
	}
	require.Fail(c.t, "the shop does not get to know the newest key")
}

// rotations makes new keys, and withdraws the ones before ahead of their time.
func (c cycle) rotations(share float64, algs ...string) {
	if share*c.lasts.Seconds() < 5*float64(len(algs)) {
		algs = algs[:1] // the shop does not look for new keys at any time
	}
	share /= float64(len(algs))
	for _, alg := range algs {
		c.load.issuer.rotate(alg)
		c.known()
		c.wait(share / 2)
		c.load.issuer.withdraw()
		c.wait(share / 2)
	}
}

// fault plays one of the faults but that of an outage.
func (c cycle) fault(n int, share float64) {
	names := slices.Sorted(maps.Keys(faults))
	names = slices.DeleteFunc(names, func(name string) bool { return name == refused })
	c.load.issuer.fail(names[n%len(names)], "ES384")
	c.wait(share)
	c.load.issuer.recover(c.t)
	c.known()
}

// outage stops the issuer. In the run of ten minutes that is for longer than the
// key set may be cached.
func (c cycle) outage() {
	c.load.issuer.fail(refused, "ES256")
	c.wait(0.20)
	c.flood(0.05, "127.0.1.1", "127.0.1.2", "127.0.1.3")
	c.wait(0.25)
	c.load.issuer.recover(c.t)
	c.known()
	c.wait(0.07)
}

// flood fills one source's share of the queue for signature checks, or with many
// sources the queue.
func (c cycle) flood(share float64, sources ...string) {
	lasts, connections := time.Duration(share*float64(c.lasts)), 100
	if c.full() {
		lasts, connections = max(lasts, 1500*time.Millisecond), 1200
		if len(sources) > 1 {
			connections = 720
		}
	}
	c.load.flood(lasts, connections, sources...)
}

// until asks until the outcome is the one wanted, and until then accepts no other
// than those given. The judge looks at each as well.
func until(t *testing.T, want outcome, ask func() outcome, meanwhile ...outcome) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * showsWithin); ; <-tick.C {
		got := ask()
		if got == want {
			return
		}
		require.Contains(t, meanwhile, got)
		require.True(t, time.Now().Before(deadline), "still %q, not %q", got, want)
	}
}

// finale is the story of a rotation and of an outage once more, in order and
// without the load. It returns a shop that was started in the outage.
func finale(t *testing.T, l *load, program string, but *watched) shop {
	client := l.from("127.0.0.2", true)
	send := func(r request) func() outcome {
		return func() outcome { return l.send(client, l.url(), r) }
	}
	const name = "at the end"

	l.issuer.rotate("ES384")
	old := l.anyToken(l.issuer.newest(), name)
	until(t, accepted, send(old), invalid, noKeys) // noKeys: a fault may have ended a moment ago

	l.issuer.fail(refused, "ES256")
	unknown := l.anyToken(l.issuer.newest(), name)
	until(t, noKeys, send(unknown), invalid)
	assert.Equal(t, accepted, send(old)())
	assert.Equal(t, accepted, send(l.anyToken(old.key, name))())
	fresh := startShop(t, program, l.issuer, but)
	early := func() outcome { // not for the judge, who knows one shop
		r, err := http.NewRequest(old.method, "http://"+fresh.address+old.path, nil)
		require.NoError(t, err)
		r.Header["Authorization"] = old.authorization
		response, err := client.Do(r)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		got, problem := read(old, response, string(body))
		assert.Empty(t, problem)
		return got
	}
	require.Equal(t, noKeys, early())

	l.issuer.recover(t)
	until(t, accepted, send(unknown), noKeys)
	until(t, accepted, early, noKeys)
	assert.Equal(t, accepted, send(old)())

	l.issuer.withdraw() // the key of old
	l.issuer.rotate("ES256")
	until(t, accepted, send(l.anyToken(l.issuer.newest(), name)), invalid)
	require.Equal(t, invalid, send(old)())
	return fresh
}

// report shows what was asked and answered.
func report(t *testing.T, l *load, full bool) {
	var b strings.Builder
	for _, client := range slices.Sorted(maps.Keys(l.counts)) {
		fmt.Fprintf(&b, "\n%s:", client)
		for _, o := range slices.Sorted(maps.Keys(l.counts[client])) {
			fmt.Fprintf(&b, " %d %s;", l.counts[client][o], o)
		}
	}
	i := l.issuer
	rotations, slowest := 0, time.Duration(0)
	for _, k := range i.keys {
		if k.from > 1 && !k.shown.IsZero() && !i.troubles.overlap(k.born, k.shown) {
			rotations++
			slowest = max(slowest, k.shown.Sub(k.born))
		}
	}
	fetches := i.Fetches()
	t.Logf("%d answers, %d of them wrong:%s", l.answers, l.wrong, b.String())
	t.Logf("%d keys; of %d rotations while the issuer was well the slowest showed after %.1f s; %d documents fetched, and %d more in faults that can be asked",
		len(i.keys), rotations, slowest.Seconds(), fetches.Discovery+fetches.JWKS-i.badDocs, i.badDocs)
	assert.Zero(t, l.wrong, "wrong answers")
	for _, client := range []string{"known tokens", "known tokens, each on a connection of its own"} {
		all := 0
		for _, n := range l.counts[client] {
			all += n
		}
		// All but those that were made just before their key went, and sent after.
		if others := all - l.counts[client][accepted]; full {
			assert.LessOrEqual(t, 1000*others, all, "%s: the shop knew a published key all the time", client)
		}
		assert.NotZero(t, l.counts[client][accepted], client)
	}
	// After each success for a new key the pauses double again, and after each
	// fault: 1 s, 2 s … 30 s. Ahead of its end a key set is fetched once.
	minutes := int(time.Since(l.began)/time.Minute) + 1
	assert.Less(t, fetches.Discovery+fetches.JWKS, 12*len(i.keys)+4*minutes, "the issuer is hammered")
}

// flat compares the last third with the first.
func flat(t *testing.T, api shop, marks []time.Time) {
	warmUp, _ := api.between(marks[0], marks[1])
	first, ok1 := api.between(marks[1], marks[2])
	middle, _ := api.between(marks[2], marks[3])
	last, ok2 := api.between(marks[3], marks[4])
	t.Logf("warm-up: %v\nfirst third: %v\nmiddle third: %v\nlast third: %v", warmUp, first, middle, last)
	if marks[4].Sub(marks[0]) < long {
		return // a third is too short: it has what one kind of client happens to have open
	}
	require.True(t, ok1 && ok2, "too few samples")
	assert.LessOrEqual(t, last.descriptors, first.descriptors+moreDescriptors, "open descriptors")
	assert.LessOrEqual(t, last.mostThreads, first.mostThreads+moreThreads, "threads")
	more := moreResident
	if marks[4].Sub(marks[0]) < 5*time.Minute {
		more = moreResidentShort
	}
	assert.LessOrEqual(t, last.resident, first.resident+more, "resident memory, in KiB")
}

// leftovers looks at what the shop holds when nobody asks it any more, beside a
// shop that has hardly been asked.
func leftovers(t *testing.T, l *load, api, fresh shop) {
	http.DefaultClient.CloseIdleConnections() // of process.Ready
	for name, s := range map[string]shop{"the shop": api, "a new shop": fresh} {
		assert.Eventually(t, func() bool { return s.sockets(t) == 1 }, 2*showsWithin, 100*time.Millisecond, "%s has more open than its listener", name)
	}
	idle, err := fresh.look()
	require.NoError(t, err)
	before, err := api.look()
	require.NoError(t, err)
	assert.Equal(t, idle.descriptors, before.descriptors, "open descriptors, at the end and of a new shop")
	<-time.After(time.Second)
	after, err := api.look()
	require.NoError(t, err)
	assert.LessOrEqual(t, after.cpu-before.cpu, atRest, "CPU in a second without a request")

	log := api.Output()
	least, left := goroutines(t, fresh), goroutines(t, api)
	assert.Len(t, left, len(least), "goroutines, at the end and of a new shop:\n%s", strings.Join(left, "\n\n"))
	t.Logf("at the end: %d descriptors, %d threads, %d goroutines (a new shop: %d, %d, %d); CPU %.1f s in all, %v in a second at rest; %d lines of log",
		after.descriptors, after.threads, len(left), idle.descriptors, idle.threads, len(least),
		after.cpu.Seconds(), after.cpu-before.cpu, strings.Count(log, "\n"))
	assert.NotContains(t, log, "eyJ", "the log holds a part of a token")
	assert.NotContains(t, log, "panic", "a handler panicked")
}

// goroutines ends a shop with the signal that has it write its goroutines, and
// returns those that the runtime did not start for itself.
func goroutines(t *testing.T, s shop) (found []string) {
	t.Helper()
	log := len(s.Output())
	running, err := os.FindProcess(s.pid)
	require.NoError(t, err)
	require.NoError(t, running.Signal(syscall.SIGQUIT))
	require.Equal(t, 2, s.ExitCode())
	for part := range strings.SplitSeq(s.Output()[log:], "\n\n") {
		if goroutine.MatchString(part) && !strings.Contains(part, "\ncreated by runtime.") {
			found = append(found, part)
		}
	}
	require.NotEmpty(t, found)
	return found
}

// goroutine matches one in a dump; 0 is a thread's own.
var goroutine = regexp.MustCompile(`^goroutine [1-9][0-9]* `)
