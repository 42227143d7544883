package properties

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const (
	memoryTTL    = 10 * time.Minute
	memoryLeeway = 30 * time.Second

	leastCost = 1500    // bytes of memory that a token of this test takes at least
	mostCost  = 4 << 10 // and at most
	parts     = 32      // into which the memory is divided: shards and generations
)

// memoryMachine is an API that remembers tokens, and the model of what it may
// remember: each token that it has accepted, until its key goes.
type memoryMachine struct {
	issuer    *m2mauthtest.Issuer
	guard     *m2mauth.Guard
	bytes     int64
	decisions []m2mauth.Decision

	generations map[string]int
	published   map[string]int // in the guard's set
	tokens      []*memoryToken
	accepted    int // tokens put into the memory, at most
	hits, calls uint64
	looked      int // of the decisions
}

type memoryToken struct {
	kid        string
	generation int
	raw        string
	expires    time.Time
	accepted   bool // once, so that the memory may have it
}

func newMemoryMachine(rt *rapid.T) *memoryMachine {
	m := &memoryMachine{issuer: newIssuer(), generations: map[string]int{}}
	m.bytes = rapid.SampledFrom([]int64{32 << 20, 1 << 20, -1}).Draw(rt, "CacheBytes")
	var mu sync.Mutex // OnDecision is called by many goroutines
	m.guard = newGuard(rt, m.issuer, func(c *m2mauth.Config) {
		c.CacheBytes = m.bytes
		c.OnDecision = func(_ context.Context, d m2mauth.Decision) {
			mu.Lock()
			defer mu.Unlock()
			m.decisions = append(m.decisions, d)
		}
	})
	m.refresh(rt)
	m.make(rt)
	return m
}

// refresh lets the guard learn which keys there are.
func (m *memoryMachine) refresh(rt *rapid.T) {
	time.Sleep(memoryTTL)
	assert.NoError(rt, m.guard.Warm(context.Background()))
	m.published = map[string]int{}
	for _, kid := range m.issuer.KeyIDs() {
		m.published[kid] = m.generations[kid]
	}
}

// fresh sees to it that no refresh takes place while requests are made.
func (m *memoryMachine) fresh(rt *rapid.T) {
	if m.guard.Keys().Age > memoryTTL/2 {
		m.refresh(rt)
	}
}

func (m *memoryMachine) make(rt *rapid.T) {
	kids := m.issuer.KeyIDs()
	kid := kids[rapid.IntRange(0, len(kids)-1).Draw(rt, "key")]
	lifetime := rapid.SampledFrom([]time.Duration{100 * time.Hour, time.Hour, time.Second}).Draw(rt, "lifetime")
	scopes := make([]string, rapid.SampledFrom([]int{1, 0, 10, 40}).Draw(rt, "scopes"))
	for i := range scopes {
		scopes[i] = fmt.Sprint("read:", i)
	}
	for range rapid.SampledFrom([]int{1, 60, 200}).Draw(rt, "number") { // 1 MiB has room for some 600
		m.tokens = append(m.tokens, &memoryToken{
			kid: kid, generation: m.generations[kid], expires: time.Unix(time.Now().Unix(), 0).Add(lifetime),
			raw: m.issuer.Sign(m2mauthtest.Token{Audience: audience, KeyID: kid, Scopes: scopes, Lifetime: lifetime}),
		})
	}
}

// want is the answer that the token must get now.
func (m *memoryMachine) want(t *memoryToken) int {
	generation, published := m.published[t.kid]
	if published && generation == t.generation && time.Now().Before(t.expires.Add(memoryLeeway)) {
		return http.StatusOK
	}
	return http.StatusUnauthorized
}

// verify sends a token, and returns whether the memory answered.
func (m *memoryMachine) verify(rt *rapid.T, t *memoryToken) bool {
	want := m.want(t)
	a := ask(context.Background(), m.guard, t.raw)
	synctest.Wait()
	m.calls++
	assert.Equal(rt, want, a.status, "%v", a.err)
	d := m.decisions[len(m.decisions)-1]
	small := int64(m.accepted+1)*mostCost <= m.bytes/parts // even if all were in one part, none has been forgotten
	if d.Remembered {
		assert.True(rt, t.accepted, "remembered though it was never accepted")
	} else if t.accepted && want == http.StatusOK && small {
		assert.True(rt, d.Remembered, "forgotten while there was room")
	}
	assert.False(rt, d.Remembered && m.bytes < 0, "remembered without a memory")
	if want == http.StatusOK && !t.accepted {
		t.accepted = true
		m.accepted++
	}
	return d.Remembered
}

func (m *memoryMachine) draw(rt *rapid.T) *memoryToken {
	return m.tokens[rapid.IntRange(0, len(m.tokens)-1).Draw(rt, "token")]
}

func (m *memoryMachine) request(rt *rapid.T) {
	m.fresh(rt)
	m.verify(rt, m.draw(rt))
}

// forgery sends what is close to a token that the memory may have.
func (m *memoryMachine) forgery(rt *rapid.T) {
	m.fresh(rt)
	t, other := m.draw(rt), m.draw(rt)
	m.verify(rt, t)
	raw := t.raw
	switch rapid.IntRange(0, 4).Draw(rt, "change") {
	case 0: // a bit of any character
		at, bit := rapid.IntRange(0, len(raw)-1).Draw(rt, "at"), rapid.IntRange(0, 7).Draw(rt, "bit")
		b := []byte(raw)
		b[at] ^= 1 << bit
		raw = string(b)
	case 1: // the beginning of the one and the end of the other
		at := rapid.IntRange(0, min(len(raw), len(other.raw))).Draw(rt, "at")
		raw = raw[:at] + other.raw[at:]
	case 2:
		raw = raw[:rapid.IntRange(0, len(raw)-1).Draw(rt, "at")]
	case 3:
		raw += rapid.SampledFrom([]string{"=", "A", ".", "\n", " "}).Draw(rt, "end")
	case 4: // the same end, from which the memory finds tokens
		at := rapid.IntRange(0, len(raw)-1).Draw(rt, "at")
		raw = raw[:at] + "A" + raw[at:]
	}
	for _, t := range m.tokens {
		if raw == t.raw {
			return
		}
	}
	a := ask(context.Background(), m.guard, raw)
	m.calls++
	assert.Contains(rt, []int{400, 401}, a.status, "a token that nobody signed: %q", raw)
	assert.False(rt, m.decisions[len(m.decisions)-1].Remembered, "%q", raw)
}

// crowd sends one token many times at once.
func (m *memoryMachine) crowd(rt *rapid.T) {
	m.fresh(rt)
	t := m.draw(rt)
	want := m.want(t)
	number := rapid.IntRange(2, 20).Draw(rt, "number")
	answers := make([]answer, number)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = ask(context.Background(), m.guard, t.raw) })
	}
	all.Wait()
	m.calls += uint64(number)
	for _, a := range answers {
		assert.Equal(rt, want, a.status, "%v", a.err)
	}
	if want == http.StatusOK && !t.accepted {
		t.accepted = true
		m.accepted++
	}
}

// count goes through all tokens twice: of the second time, those that the memory
// answers are not more than fit into it.
func (m *memoryMachine) count(rt *rapid.T) {
	m.fresh(rt)
	remembered := int64(0)
	for _, t := range m.tokens {
		m.verify(rt, t)
	}
	for _, t := range m.tokens {
		if m.verify(rt, t) {
			remembered++
		}
	}
	assert.LessOrEqual(rt, remembered*leastCost, max(0, m.bytes), "more is remembered than CacheBytes")
}

func (m *memoryMachine) changeKeys(rt *rapid.T) {
	kids := m.issuer.KeyIDs()
	kid := kids[rapid.IntRange(0, len(kids)-1).Draw(rt, "key")]
	switch rapid.IntRange(0, 2).Draw(rt, "change") {
	case 0:
		m.issuer.Rotate("EdDSA")
	case 1:
		m.generations[kid]++
		m.issuer.Replace(kid)
	case 2:
		m.issuer.Rotate("EdDSA")
		m.issuer.Withdraw(m.issuer.KeyIDs()[1])
	}
	m.refresh(rt)
}

func (m *memoryMachine) pass(rt *rapid.T) {
	time.Sleep(rapid.SampledFrom([]time.Duration{time.Second, memoryLeeway, time.Minute, time.Hour}).Draw(rt, "time"))
}

func (m *memoryMachine) invariant(rt *rapid.T) {
	for _, d := range m.decisions[m.looked:] {
		if d.Remembered {
			m.hits++
		}
		assert.False(rt, d.Err == nil && d.Claims.IsZero(), "a decision for nobody")
	}
	m.looked = len(m.decisions)
	s := m.guard.Stats()
	assert.Equal(rt, m.calls, uint64(len(m.decisions)))
	assert.Equal(rt, m.calls, s.Hits+s.Misses, "each token is looked up once")
	assert.GreaterOrEqual(rt, s.Hits, m.hits)
	assert.Zero(rt, s.Refused)
}

// Tokens come, expire and are forged; keys are rotated, withdrawn and replaced
// under their IDs; the memory has room for all, for few or for none.
func TestTheMemoryRemembersWhatWasAcceptedAndNothingElse(t *testing.T) {
	check(t, func(rt *rapid.T) {
		m := newMemoryMachine(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"request":     m.request,
			"requests":    m.request,
			"forgery":     m.forgery,
			"crowd":       m.crowd,
			"all":         m.count,
			"new tokens":  m.make,
			"keys":        m.changeKeys,
			"time passes": m.pass,
			"":            m.invariant,
		})
	})
}
