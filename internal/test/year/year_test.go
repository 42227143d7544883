// Package year simulates guards over long times, and many at once.
package year

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

var yearSeeds = flag.Uint64("year.seeds", 0, "simulate so many years more than those of every run")

// A year of an issuer that rotates, deletes keys, fails, hangs, is slow and
// talks rubbish, and of three guards, which are restarted now and then: one with
// traffic all day, one with little, one that is idle most of the time. The model
// (see yearLog) says for each request which answers are right.
//
// A seed fixes what the issuer and the callers do. The guards' own jitter is
// random, so a seed that failed once may pass: it stays in this list all the same.
func TestAYearOfRotationsAndOutages(t *testing.T) {
	seeds := []uint64{1, 2, 1024} // 1 and 1024 failed once, for mistakes of the model
	if testing.Short() {
		seeds = seeds[:1]
	}
	for i := range *yearSeeds {
		seeds = append(seeds, 1000+i)
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newYear(t, seed).run() })
		})
	}
}

const yearDays = 365

// year is one simulation.
type year struct {
	t      *testing.T
	seed   uint64
	issuer *m2mauthtest.Issuer
	begin  time.Time
	end    time.Time
	faults []yearFault // in order, without overlap

	mu     sync.Mutex // guards the fields below
	keys   []*yearKey // in the order of their making
	madeUp int
	logs   map[string]*yearLog
}

// yearKey is a key and the time for which it was published.
type yearKey struct {
	kid       string
	token     string
	published time.Time
	withdrawn time.Time // zero while it is published
}

// yearFault is a time in which the issuer does not answer as it should.
type yearFault struct {
	kind     string
	from, to time.Time
	delay    time.Duration // of the slow kinds
}

// yearLog is the model's knowledge of one guard: all that the issuer answered
// it. Whatever the guard may know of keys, it knows from these documents.
type yearLog struct {
	mu      sync.Mutex // guards the fields below
	asked   []time.Time
	answers []yearAnswer // in order of time
}

// yearAnswer is what a guard got.
type yearAnswer struct {
	at   time.Time
	kids map[string]bool // of a good key set; nil if the request failed
}

// yearRequest is a request to an API, and what came of it.
type yearRequest struct {
	log        *yearLog
	key        *yearKey // nil for a made-up key ID
	begin, end time.Time
	status     int
}

func newYear(t *testing.T, seed uint64) *year {
	y := &year{t: t, seed: seed, issuer: m2mauthtest.NewIssuer(), begin: time.Now(), logs: map[string]*yearLog{}}
	y.end = y.begin.Add(yearDays * 24 * time.Hour)
	y.issuer.Rotate("EdDSA")
	y.issuer.Rotate("EdDSA") // the key of another algorithm that it began with is gone
	y.record()
	y.planFaults(rand.New(rand.NewPCG(seed, 0)))
	y.issuer.Intercept(y.answer)
	return y
}

func (y *year) run() {
	guards := []*yearGuard{
		{year: y, name: "busy", random: rand.New(rand.NewPCG(y.seed, 1)), every: time.Hour, afterEvent: 1, office: true},
		{year: y, name: "sparse", random: rand.New(rand.NewPCG(y.seed, 2)), every: 2 * time.Hour, afterEvent: 0.5},
		{year: y, name: "idle", random: rand.New(rand.NewPCG(y.seed, 3)), every: 3 * 24 * time.Hour, afterEvent: 0.2},
	}
	rotations := y.planRotations(rand.New(rand.NewPCG(y.seed, 4)))
	var events []time.Time
	for _, r := range rotations {
		events = append(events, r.at)
	}
	for _, f := range y.faults {
		events = append(events, f.from, f.to)
	}
	var wg sync.WaitGroup
	for _, g := range guards {
		wg.Go(func() { g.run(events) })
	}
	for _, r := range rotations {
		time.Sleep(time.Until(r.at))
		r.do()
		y.record()
	}
	wg.Wait()
	time.Sleep(time.Minute)

	for _, g := range guards {
		wrong := 0
		statuses := map[int]int{}
		for _, r := range g.requests {
			statuses[r.status]++
			if problem := y.problem(r); problem != "" {
				if wrong++; wrong <= 3 {
					y.t.Errorf("seed %d, %s: %s\n%s", y.seed, g.name, problem, y.explain(r))
				}
			}
		}
		fetches := 0
		for _, log := range g.logs {
			fetches += len(log.asked)
			y.checkRate(g.name, log)
		}
		y.t.Logf("%s: %d requests %v, %d wrong; %d guards, %.1f fetches a day", g.name, len(g.requests), statuses, wrong, len(g.logs), float64(fetches)/yearDays)
		assert.Zero(y.t, wrong, g.name)
		assert.Len(y.t, statuses, 3, "all kinds of answers occur")
	}
	y.t.Logf("seed %d: %d faults, %d changes of keys, %d keys", y.seed, len(y.faults), len(rotations), len(y.keys))
}

// between returns a duration whose logarithm is evenly distributed.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return time.Duration(float64(least) * math.Exp(r.Float64()*math.Log(float64(most)/float64(least))))
}

func (y *year) planFaults(r *rand.Rand) {
	kinds := []string{"500", "429", "breaks", "hangs", "HTML", "truncated", "empty", "no discovery", "slow", "late", "too slow"}
	for at := y.begin.Add(between(r, time.Minute, 4*24*time.Hour)); at.Before(y.end); {
		f := yearFault{kind: kinds[r.IntN(len(kinds))], from: at, to: at.Add(between(r, 3*time.Second, 6*time.Hour))}
		switch f.kind {
		case "slow", "late":
			f.delay = between(r, 50*time.Millisecond, 4900*time.Millisecond)
		case "too slow":
			f.delay = between(r, 5100*time.Millisecond, time.Minute)
		}
		y.faults = append(y.faults, f)
		at = f.to.Add(between(r, time.Second, 30*24*time.Hour))
	}
}

func (y *year) faultAt(at time.Time) yearFault {
	i, _ := slices.BinarySearchFunc(y.faults, at, func(f yearFault, at time.Time) int {
		if f.to.After(at) {
			return 1
		}
		return -1
	})
	if i < len(y.faults) && !at.Before(y.faults[i].from) {
		return y.faults[i]
	}
	return yearFault{}
}

// faultBetween reports whether the issuer was at fault at any time in between.
func (y *year) faultBetween(from, to time.Time) bool {
	return slices.ContainsFunc(y.faults, func(f yearFault) bool { return f.from.Before(to) && f.to.After(from) })
}

type yearRotation struct {
	at time.Time
	do func()
}

func (y *year) planRotations(r *rand.Rand) (plan []yearRotation) {
	immediate := func() { y.issuer.Rotate("EdDSA") }
	for at := y.begin.Add(between(r, time.Minute, 3*24*time.Hour)); at.Before(y.end.Add(-8 * 24 * time.Hour)); {
		switch r.IntN(4) {
		case 0:
			plan = append(plan, yearRotation{at, immediate})
		case 1: // with a grace period
			plan = append(plan, yearRotation{at, func() { y.issuer.Stage("EdDSA") }})
			at = at.Add(between(r, 5*time.Second, 48*time.Hour))
			plan = append(plan, yearRotation{at, y.issuer.Activate})
		case 2: // the previous key is deleted
			plan = append(plan, yearRotation{at, func() {
				if ids := y.issuer.KeyIDs(); len(ids) > 1 {
					y.issuer.Withdraw(ids[1])
				}
			}})
		case 3: // a key that leaked is replaced and deleted
			plan = append(plan, yearRotation{at, immediate})
			at = at.Add(between(r, time.Second, 2*time.Hour))
			plan = append(plan, yearRotation{at, func() { y.issuer.Withdraw(y.issuer.KeyIDs()[1]) }})
		}
		at = at.Add(between(r, 2*time.Second, 40*24*time.Hour))
	}
	return plan
}

// record notes which keys the issuer publishes now.
func (y *year) record() {
	now, ids := time.Now(), y.issuer.KeyIDs()
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, k := range y.keys {
		if k.withdrawn.IsZero() && !slices.Contains(ids, k.kid) {
			k.withdrawn = now
		}
	}
	for _, id := range ids {
		if !slices.ContainsFunc(y.keys, func(k *yearKey) bool { return k.kid == id }) {
			token := y.issuer.Sign(m2mauthtest.Token{Audience: testguard.KeysAPI, KeyID: id, Lifetime: 2 * yearDays * 24 * time.Hour})
			y.keys = append(y.keys, &yearKey{kid: id, token: token, published: now})
		}
	}
}

// answer is the hook around the issuer: it answers as the fault of the moment
// has it, and writes into the log what a guard gets.
func (y *year) answer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log := y.log(r.Header.Get(yearGuardHeader))
		log.ask()
		fault := y.faultAt(time.Now())
		keySet := r.URL.Path == "/oidc/jwks"
		good := func() {
			if keySet {
				log.add(y.issuer.KeyIDs())
			}
			next.ServeHTTP(w, r)
		}
		bad := func(status int, body string) {
			log.add(nil)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
		switch fault.kind {
		case "":
			good()
		case "500":
			bad(http.StatusInternalServerError, "")
		case "429":
			w.Header().Set("Retry-After", "3600")
			bad(http.StatusTooManyRequests, "")
		case "HTML":
			bad(http.StatusOK, "<html>")
		case "truncated":
			bad(http.StatusOK, `{"keys":[`)
		case "empty":
			bad(http.StatusOK, `{"keys":[]}`)
		case "breaks":
			log.add(nil)
			panic(http.ErrAbortHandler)
		case "hangs":
			<-r.Context().Done()
			log.add(nil)
		case "no discovery":
			if keySet {
				good()
			} else {
				bad(http.StatusBadGateway, "")
			}
		case "slow", "too slow": // the answer is made late
			if !sleepIn(r.Context(), fault.delay) {
				log.add(nil)
				return
			}
			good()
		case "late": // the answer is made at once and arrives late
			ids, made := y.issuer.KeyIDs(), httptest.NewRecorder()
			next.ServeHTTP(made, r)
			if !sleepIn(r.Context(), fault.delay) {
				log.add(nil)
				return
			}
			if keySet {
				log.add(ids)
			}
			maps.Copy(w.Header(), made.Header())
			w.WriteHeader(made.Code)
			_, _ = w.Write(made.Body.Bytes())
		}
	})
}

func sleepIn(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// yearGuardHeader tells the issuer which guard asks.
const yearGuardHeader = "X-Guard"

func (y *year) log(number string) *yearLog {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.logs[number]
}

func (l *yearLog) ask() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, time.Now())
}

// add notes an answer at the moment at which it reaches the guard.
func (l *yearLog) add(kids []string) {
	a := yearAnswer{at: time.Now()}
	if kids != nil {
		a.kids = make(map[string]bool)
		for _, kid := range kids {
			a.kids[kid] = true
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers = append(l.answers, a)
}

// yearGuard is an API and its callers.
type yearGuard struct {
	year       *year
	name       string
	random     *rand.Rand
	every      time.Duration // between bursts of requests, on average
	afterEvent float64       // how likely requests follow a rotation, an outage or its end
	office     bool          // requests every minute in office hours

	guard    *m2mauth.Guard
	logs     []*yearLog // of each restart
	mu       sync.Mutex // guards requests
	requests []yearRequest
}

// restart makes a new guard with a log of its own.
func (g *yearGuard) restart() {
	log, number := new(yearLog), fmt.Sprint(g.name, " ", len(g.logs))
	g.logs = append(g.logs, log)
	g.year.mu.Lock()
	g.year.logs[number] = log
	g.year.mu.Unlock()
	inside := g.year.issuer.Client().Transport
	g.guard = testguard.KeysGuard(g.year.t, g.year.issuer, func(c *m2mauth.Config) {
		c.HTTPClient = &http.Client{Transport: testguard.RoundTripper(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.Header.Set(yearGuardHeader, number)
			return inside.RoundTrip(r)
		})}
	})
}

// moments returns when bursts of requests come.
func (g *yearGuard) moments(events []time.Time) (at []time.Time) {
	y, r := g.year, g.random
	for t := y.begin; t.Before(y.end); t = t.Add(time.Duration(r.ExpFloat64() * float64(g.every))) {
		at = append(at, t)
	}
	for _, e := range events {
		if r.Float64() >= g.afterEvent {
			continue
		}
		t := e.Add(-between(r, time.Millisecond, 2*time.Minute))
		for range 4 + r.IntN(16) { // some before, most after
			at = append(at, t)
			t = t.Add(between(r, 20*time.Millisecond, 4*time.Minute))
		}
		if r.IntN(4) == 0 { // around the end of the keys' time
			t := e.Add(testguard.KeysTTL + testguard.KeysStaleFor - 2*time.Minute)
			for range 10 {
				at = append(at, t)
				t = t.Add(between(r, time.Second, 2*time.Minute))
			}
		}
		if r.IntN(20) == 0 { // a flood of made-up key IDs, or what comes close
			for i := range 100 {
				at = append(at, e.Add(time.Duration(i)*700*time.Millisecond+time.Millisecond))
			}
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	return at
}

func (g *yearGuard) run(events []time.Time) {
	y, r := g.year, g.random
	g.restart()
	nextRestart := y.begin.Add(between(r, time.Hour, 40*24*time.Hour))
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, at := range g.moments(events) {
		if at.After(y.end) {
			break
		}
		g.idleUntil(at, &wg)
		if at.After(nextRestart) {
			g.restart()
			nextRestart = at.Add(between(r, time.Minute, 40*24*time.Hour))
		}
		for range 1 + r.IntN(3) {
			g.request(&wg)
		}
	}
}

// idleUntil waits, with requests that ask nothing but whether there are keys.
func (g *yearGuard) idleUntil(at time.Time, wg *sync.WaitGroup) {
	for g.office && time.Until(at) > time.Minute {
		now := time.Now()
		if h := now.Hour(); h < 8 || h >= 18 || now.Weekday() == time.Sunday || now.Weekday() == time.Saturday {
			break
		}
		time.Sleep(time.Minute)
		guard := g.guard
		wg.Go(func() { _ = guard.Warm(context.Background()) })
	}
	time.Sleep(time.Until(at))
}

// request sends a request with some token.
func (g *yearGuard) request(wg *sync.WaitGroup) {
	y, r := g.year, g.random
	y.mu.Lock()
	var key *yearKey
	token := ""
	last := len(y.keys) - 1
	switch p := r.IntN(20); {
	case p < 12: // the current key, the one before or the next
		key = y.keys[max(0, last-r.IntN(2))]
	case p < 18: // some key of late
		key = y.keys[max(0, last-r.IntN(6))]
	default:
		y.madeUp++
		token = fmt.Sprint("made up ", y.madeUp%200)
	}
	y.mu.Unlock()
	if key == nil {
		token = testguard.KeysMadeUp(y.issuer)(token)
	} else {
		token = key.token
	}
	guard, log := g.guard, g.logs[len(g.logs)-1]
	wg.Go(func() {
		q := yearRequest{log: log, key: key, begin: time.Now()}
		q.status, _ = testguard.KeysAnswer(context.Background(), guard, token)
		q.end = time.Now()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.requests = append(g.requests, q)
	})
}

// problem is the model: it says what is wrong with the answer to a request, and
// "" if it is right. It knows the rules of the table, the times at which keys
// were published and what the issuer answered, and nothing of how guards work.
func (y *year) problem(r yearRequest) string {
	const slack = 50 * time.Millisecond
	if waited := r.end.Sub(r.begin); waited > testguard.KeysTimeout+slack {
		return fmt.Sprintf("waited %v", waited)
	}
	if problem := y.problemByTheClock(r); problem != "" {
		return problem
	}

	// What the guard knew when the request came, and what it learned since.
	kid := "made up"
	if r.key != nil {
		kid = r.key.kid
	}
	var known *yearAnswer // the last good key set before
	var failed time.Time  // the last failure before, if no good key set followed
	var old, learned []yearAnswer
	for _, a := range r.log.before(r.end) {
		switch {
		case !a.at.Before(r.begin):
			learned = append(learned, a)
			continue
		case a.kids == nil:
			failed = a.at
		default:
			known, failed = &a, time.Time{}
		}
		if r.begin.Sub(a.at) <= testguard.KeysAbsent+slack {
			old = append(old, a)
		}
	}
	failure := slices.ContainsFunc(learned, func(a yearAnswer) bool { return a.kids == nil })
	lately := append(old, learned...)
	absent := slices.ContainsFunc(lately, func(a yearAnswer) bool { return a.kids != nil && !a.kids[kid] })
	paused := slices.ContainsFunc(lately, func(a yearAnswer) bool { // since a refetch that may have brought nothing
		return a.kids != nil && !a.kids[kid] && r.begin.Sub(a.at) <= testguard.KeysPause+slack
	})
	appeared := slices.ContainsFunc(learned, func(a yearAnswer) bool { return a.kids[kid] })
	replaced := slices.ContainsFunc(learned, func(a yearAnswer) bool { return a.kids != nil && !a.kids[kid] })

	age := time.Duration(math.MaxInt64)
	if known != nil {
		age = r.begin.Sub(known.at)
	}
	fresh, stale := age < testguard.KeysTTL, age >= testguard.KeysTTL && age < testguard.KeysTTL+testguard.KeysStaleFor
	// The issuer failed so lately that callers did not pause.
	tried := !failed.IsZero() && r.begin.Sub(failed) < time.Minute
	holds := known != nil && known.kids[kid]

	if holds && (fresh || stale && tried) && !replaced {
		switch {
		case r.status != 200:
			return "the key is known and good keys serve"
		case r.end != r.begin && len(learned) == 0:
			return "waited, though the key is known"
		}
		return ""
	}
	switch r.status {
	case 200:
		if appeared || holds && (fresh || stale && (tried || failure)) {
			return ""
		}
		return "accepted by a key that is in no key set that may serve"
	case 401:
		if absent || known != nil && !holds && r.log.had(kid, r.begin) {
			return ""
		}
		return "401, though no key set of the last 30 s lacks the key, and it has not left one"
	case 503:
		backoff := !failed.IsZero() && r.begin.Sub(failed) <= testguard.KeysRetry+slack
		expiring := age+r.end.Sub(r.begin) >= testguard.KeysTTL+testguard.KeysStaleFor
		if (backoff || failure) && (!holds || !(fresh || stale) || expiring) || paused && !holds {
			return ""
		}
		return "503, though the guard has the key or nothing has failed"
	}
	return "an answer that is none of 200, 401 and 503"
}

// problemByTheClock judges without looking at what the guard asked.
func (y *year) problemByTheClock(r yearRequest) string {
	if r.key == nil {
		if r.status == 200 {
			return "accepted with a made-up key ID"
		}
		return ""
	}
	publishedFor := func(for_ time.Duration) bool {
		return (r.key.withdrawn.IsZero() || r.key.withdrawn.After(r.end)) && r.begin.Sub(r.key.published) > for_
	}
	healthy := func(for_ time.Duration) bool { return !y.faultBetween(r.begin.Add(-for_), r.end) }
	gone := r.key.withdrawn
	switch {
	case !gone.IsZero() && r.status == 200 && r.end.Sub(gone) > testguard.KeysTTL+testguard.KeysStaleFor+testguard.KeysTimeout:
		return "a withdrawn key is accepted for longer than any outage excuses"
	case !gone.IsZero() && r.status == 200 && !y.faultBetween(gone.Add(-testguard.KeysTTL), r.end) && r.end.Sub(gone) > testguard.KeysTTL+testguard.KeysTimeout:
		return "a withdrawn key is accepted past TTL and fetch timeout, and there was no outage"
	case publishedFor(testguard.KeysAbsent+testguard.KeysTimeout) && healthy(testguard.KeysRetry+2*testguard.KeysTimeout) && r.status != 200:
		return "a published key is refused by day, half a minute after its rotation"
	case r.status == 503 && publishedFor(testguard.KeysPause+testguard.KeysTimeout) && healthy(testguard.KeysRetry+2*testguard.KeysTimeout):
		return "503, though the issuer is well and has been for longer than the backoff"
	}
	return ""
}

// had reports whether a key set before a moment had the key.
func (l *yearLog) had(kid string, end time.Time) bool {
	return slices.ContainsFunc(l.answers, func(a yearAnswer) bool { return a.at.Before(end) && a.kids[kid] })
}

// before returns the answers up to a moment, beginning with the last good key set
// that is older than half a minute before it.
func (l *yearLog) before(end time.Time) []yearAnswer {
	n, _ := slices.BinarySearchFunc(l.answers, end, func(a yearAnswer, end time.Time) int {
		if a.at.After(end) {
			return 1
		}
		return -1
	})
	first := n
	for first > 0 {
		first--
		if a := l.answers[first]; a.kids != nil && end.Sub(a.at) > time.Minute {
			break
		}
	}
	return l.answers[first:n]
}

// explain tells what happened around a request.
func (y *year) explain(r yearRequest) string {
	s := fmt.Sprintf("  at %v, answer %d after %v", r.begin.Sub(y.begin), r.status, r.end.Sub(r.begin))
	if r.key != nil {
		s += fmt.Sprintf("; key published for %v", r.begin.Sub(r.key.published))
		if !r.key.withdrawn.IsZero() {
			s += fmt.Sprintf(", withdrawn for %v", r.begin.Sub(r.key.withdrawn))
		}
	}
	answers := r.log.before(r.end)
	for _, a := range answers[max(0, len(answers)-6):] {
		s += fmt.Sprintf("\n  %v before its end: ", r.end.Sub(a.at))
		switch {
		case a.kids == nil:
			s += "a failure"
		case r.key != nil && a.kids[r.key.kid]:
			s += "a key set with the key"
		default:
			s += "a key set without the key"
		}
	}
	for _, f := range y.faults {
		if f.from.Before(r.end) && f.to.After(r.begin.Add(-2*time.Hour)) {
			s += fmt.Sprintf("\n  fault %q (%v) from %v to %v after its begin", f.kind, f.delay, f.from.Sub(r.begin), f.to.Sub(r.begin))
		}
	}
	return s
}

// checkRate bounds what a guard may ask of the issuer, whatever happens.
func (y *year) checkRate(name string, l *yearLog) {
	y.t.Helper()
	for _, bound := range []struct {
		within time.Duration
		most   int
	}{
		// An attempt is one request, or two with discovery, or four where its
		// document is at none of its three places. While the issuer fails some
		// are 1, 2, 4, 8 s apart, and all others 10 s or more; for unknown key
		// IDs there are twelve a minute, of one source six.
		{time.Minute, 4 * (9 + 12)},
		{time.Hour, 4 * (4 + 6*60)},
	} {
		for i, first := range l.asked {
			if j := i + bound.most; j < len(l.asked) && l.asked[j].Sub(first) < bound.within {
				y.t.Errorf("seed %d, %s: over %d requests to the issuer within %v", y.seed, name, bound.most, bound.within)
				break
			}
		}
	}
}
