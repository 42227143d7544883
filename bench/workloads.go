package bench

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// Algorithms are those compared; the first is Logto's default.
var Algorithms = []string{"ES384", "RS256", "ES256", "EdDSA"}

// Workload is a stream of requests with one kind of token.
type Workload struct {
	Name       string
	status     int  // of the answers
	unsettled  bool // or 503: m2mauth does not fetch the key set for every unknown key ID
	tokens     func(*Fixture) []string
	Parallel   bool  // on all cores
	cacheBytes int64 // m2mauth's
}

// firstSeenCache holds some 600 tokens: less than the ring of [Fixture], so that
// m2mauth has forgotten each token before it comes again. Every request pays for
// a miss, an insertion and an eviction; with the cache off, it would pay for none.
const firstSeenCache = 1 << 20 // the least there is

// Workloads are the ways in which tokens come.
var Workloads = []Workload{
	{Name: "repeated token", status: 200, tokens: func(f *Fixture) []string { return f.ring[:1] }},
	{Name: "first-seen token", status: 200, tokens: func(f *Fixture) []string { return f.ring }, cacheBytes: firstSeenCache},
	{Name: "1,000 tokens, all cores", status: 200, tokens: func(f *Fixture) []string { return f.ring[:1000] }, Parallel: true},
	{Name: "forged signature", status: 401, tokens: func(f *Fixture) []string { return f.forged }},
	{Name: "refused by its claims", status: 401, tokens: func(f *Fixture) []string { return f.otherAudience }},
	{Name: "made-up key ID", status: 401, unsettled: true, tokens: func(f *Fixture) []string { return f.madeUpKey }},
}

// accepts reports whether a contender may answer so.
func (w *Workload) accepts(status int) bool {
	return status == w.status || w.unsettled && status == http.StatusServiceUnavailable
}

// Fixture is an issuer in memory, and tokens of it.
type Fixture struct {
	issuer *m2mauthtest.Issuer
	target Target
	public crypto.PublicKey

	ring          []string // good, all different
	forged        []string // by their signatures, all different
	otherAudience []string // signed well
	madeUpKey     []string // each with another kid
}

// NewFixture makes an issuer with one key, and as many good tokens as are asked for.
func NewFixture(algorithm string, tokens int) (*Fixture, error) {
	issuer := m2mauthtest.NewIssuer()
	old := issuer.KeyIDs()[0]
	issuer.Rotate(algorithm)
	issuer.Withdraw(old)
	issuer.Intercept(nameAlgorithm)
	f := &Fixture{issuer: issuer, target: Target{
		Issuer: issuer.URL(), JWKS: issuer.JWKSURL(), Algorithm: algorithm, Client: issuer.Client(),
	}}
	set, err := keySet(f.target)
	if err != nil {
		return nil, err
	}
	f.public = set.Keys[0].Key
	good := m2mauthtest.Token{Audience: audience, Scopes: []string{scope, "write:products"}}
	other := m2mauthtest.Token{Audience: "https://other.api", Scopes: good.Scopes}
	f.ring = sign(issuer, tokens, func(int) m2mauthtest.Token { return good })
	f.otherAudience = sign(issuer, 16, func(int) m2mauthtest.Token { return other })
	f.madeUpKey = sign(issuer, 256, func(i int) m2mauthtest.Token {
		t := good
		t.Header = map[string]any{"kid": fmt.Sprintf("made-up-%036d", i)}
		return t
	})
	f.forged = forge(f.ring[0], 64)
	return f, nil
}

// nameAlgorithm writes alg into an RSA key of the set. Logto does not; m2mauth
// and golang-jwt need no such help, while auth0 and jwx refuse the key without it.
func nameAlgorithm(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorded := httptest.NewRecorder()
		next.ServeHTTP(recorded, r)
		body := recorded.Body.Bytes()
		if bytes.Contains(body, []byte(`"kty":"RSA"`)) {
			body = bytes.Replace(body, []byte(`"use":"sig"`), []byte(`"use":"sig","alg":"RS256"`), 1)
		}
		w.Header().Set("Content-Type", recorded.Header().Get("Content-Type"))
		w.WriteHeader(recorded.Code)
		_, _ = w.Write(body)
	})
}

func keySet(t Target) (set jose.JSONWebKeySet, err error) {
	response, err := t.Client.Get(t.JWKS)
	if err != nil {
		return set, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return set, err
	}
	return set, json.Unmarshal(body, &set)
}

// sign signs on two cores: RSA takes its time.
func sign(issuer *m2mauthtest.Issuer, n int, token func(int) m2mauthtest.Token) []string {
	tokens := make([]string, n)
	var all sync.WaitGroup
	for first := range 2 {
		all.Go(func() {
			for i := first; i < n; i += 2 {
				tokens[i] = issuer.Sign(token(i))
			}
		})
	}
	all.Wait()
	return tokens
}

// forge returns different tokens with a wrong signature. It is wrong in its first
// half, where it costs the whole check to find out: r of ECDSA, R of EdDSA.
func forge(token string, n int) (forged []string) {
	dot := strings.LastIndexByte(token, '.')
	signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil {
		panic(err) // a mistake of ours
	}
	for i := range n {
		binary.BigEndian.PutUint32(signature[len(signature)/4:], uint32(i))
		forged = append(forged, token[:dot+1]+base64.RawURLEncoding.EncodeToString(signature))
	}
	return forged
}

// Run is a contender that is ready to do a workload.
type Run struct {
	fixture  *Fixture
	workload Workload
	handler  http.Handler
	fields   []string      // Authorization
	checks   []func() bool // in place of handler and fields: the floor
	next     int           // in the ring: a later Benchmark must not begin with tokens of the last
	fetches  int
	stop     context.CancelFunc
}

// Prepare makes a Run, with keys fetched and, for m2mauth, tokens seen. [Run.Stop]
// ends it. The floor does the same in each workload: it checks good signatures.
func (f *Fixture) Prepare(contender string, w Workload) (*Run, error) {
	ctx, stop := context.WithCancel(context.Background())
	run := &Run{fixture: f, workload: w, fetches: f.issuer.Fetches().JWKS, stop: stop}
	if contender == Floor {
		tokens := f.ring
		if w.status == 200 {
			tokens = w.tokens(f)
		}
		for _, token := range tokens {
			run.checks = append(run.checks, signatureCheck(f.public, token))
		}
		return run, nil
	}
	target := f.target
	target.CacheBytes = w.cacheBytes
	var err error
	if run.handler, err = protect(ctx, contender, target, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})); err != nil {
		stop()
		return nil, fmt.Errorf("%s: %w", contender, err)
	}
	for _, token := range w.tokens(f) {
		run.fields = append(run.fields, "Bearer "+token)
	}
	seen := 1
	if contender == Ours {
		seen = len(run.fields)
	}
	c := newCaller(run)
	for i := range seen {
		if got := c.call(i); !w.accepts(got) {
			stop()
			return nil, fmt.Errorf("%s answered %q with %d", contender, w.Name, got)
		}
	}
	run.fetches = f.issuer.Fetches().JWKS
	return run, nil
}

func protect(ctx context.Context, contender string, t Target, next http.Handler) (http.Handler, error) {
	for _, c := range Contenders {
		if c.Name == contender {
			return c.Protect(ctx, t, next)
		}
	}
	return nil, fmt.Errorf("no contender has the name %q", contender)
}

// Stop ends what the contender does in the background.
func (r *Run) Stop() { r.stop() }

// Fetches returns how often the key set was fetched since Prepare.
func (r *Run) Fetches() int { return r.fixture.issuer.Fetches().JWKS - r.fetches }

// CPU is the unit of the processor time that a request takes, with that of
// garbage collection: what else runs on the computer matters less to it.
const CPU = "cpu-ns/op"

// Benchmark does the workload b.N times, on all cores if that is the workload.
func (r *Run) Benchmark(b *testing.B) {
	b.ReportAllocs()
	before := cpuTime()
	defer func() { b.ReportMetric(float64(cpuTime()-before)/float64(b.N), CPU) }()
	if r.workload.Parallel {
		b.RunParallel(func(pb *testing.PB) {
			c := newCaller(r)
			for i := rand.IntN(1000); pb.Next(); i++ {
				if got := c.call(i); !r.workload.accepts(got) {
					b.Errorf("answered with %d", got)
				}
			}
		})
		return
	}
	c := newCaller(r)
	for b.Loop() {
		r.next++
		if got := c.call(r.next); !r.workload.accepts(got) && got != c.want {
			b.Fatalf("answered with %d", got)
		}
	}
}

// caller makes requests and costs next to nothing itself. It is for one goroutine.
type caller struct {
	run     *Run
	request *http.Request
	field   []string
	header  http.Header
	status  int
	want    int
}

func newCaller(r *Run) *caller {
	c := &caller{run: r, field: []string{""}, header: http.Header{}, want: r.workload.status}
	if r.checks != nil {
		c.want = 200
	}
	c.request = httptest.NewRequest("GET", "/products", nil)
	c.request.Header["Authorization"] = c.field
	return c
}

// call sends the i-th token of the ring and returns the status of the answer.
func (c *caller) call(i int) int {
	c.status = http.StatusOK
	if checks := c.run.checks; checks != nil {
		if !checks[i%len(checks)]() {
			return http.StatusUnauthorized
		}
		return http.StatusOK
	}
	c.field[0] = c.run.fields[i%len(c.run.fields)]
	clear(c.header)
	c.run.handler.ServeHTTP(c, c.request)
	return c.status
}

func (c *caller) Header() http.Header         { return c.header }
func (c *caller) WriteHeader(status int)      { c.status = status }
func (c *caller) Write(p []byte) (int, error) { return len(p), nil }
