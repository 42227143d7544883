package properties

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// The bounds of the queue for a check, and of those who wait for another's check
// of the same token; half of them for a source.
const (
	mostWaiting = 2000
	mostSharing = 8192
)

// request is one of a source.
type request struct {
	m2mauth.UnimplementedRequest
	source, token string
}

func (r request) Header(string) []string  { return []string{"Bearer " + r.token} }
func (r request) RemoteAddr() string      { return r.source }
func sourceOf(r m2mauth.Request) string   { return r.RemoteAddr() }
func sourceNumber(n int) (address string) { return fmt.Sprint("source ", n) }

// queueMachine is an API under floods. Which requests must wait is up to the
// machine that the test runs on; what each may get is not.
type queueMachine struct {
	issuer *m2mauthtest.Issuer
	guard  *m2mauth.Guard
	known  string
	forged func(int) string
	made   int
}

func newQueueMachine(rt *rapid.T) *queueMachine {
	m := &queueMachine{issuer: newIssuer()}
	m.guard = newGuard(rt, m.issuer, func(c *m2mauth.Config) { c.QueueKey = sourceOf })
	m.known = m.issuer.Token(audience)
	_, err := m.guard.Verify(context.Background(), m.known)
	require.NoError(rt, err)
	signed := m.known[:strings.LastIndexByte(m.known, '.')+1]
	m.forged = func(i int) string {
		return signed + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%064d", i))
	}
	return m
}

// flood sends requests of several sources at one moment.
func (m *queueMachine) flood(rt *rapid.T) {
	if m.guard.Keys().Age > 5*time.Minute { // no refresh in between
		time.Sleep(10 * time.Minute)
		require.NoError(rt, m.guard.Warm(context.Background()))
		m.known = m.issuer.Token(audience)
		_, err := m.guard.Verify(context.Background(), m.known)
		require.NoError(rt, err)
	}
	type sent struct {
		request
		good, known, canceled bool
		answer                answer
	}
	var all []*sent
	checks, sharing := make(map[string]int), make(map[string]int) // by source: requests that may have to wait for a place, and for another's check
	for n := range rapid.IntRange(1, 4).Draw(rt, "sources") {
		number := rapid.SampledFrom([]int{1, 10, 100, 300, 1100, 5000}).Draw(rt, "requests")
		goodEvery := rapid.SampledFrom([]int{1, 7, 50}).Draw(rt, "one in so many is good")
		cancelEvery := rapid.SampledFrom([]int{1 << 30, 13}).Draw(rt, "one in so many gives up")
		same := rapid.Bool().Draw(rt, "the good one is the same")
		good := m.issuer.Token(audience)
		for i := range number {
			s := &sent{good: i%goodEvery == 0, canceled: i%cancelEvery == 5}
			s.source = sourceNumber(n)
			m.made++
			checks[s.source]++
			switch {
			case s.good && same:
				s.token = good
				sharing[s.source]++
			case s.good && i < 200:
				s.token = m.issuer.Token(audience)
			default:
				s.good, s.token = false, m.forged(m.made)
			}
			all = append(all, s)
		}
		all = append(all, &sent{request: request{source: sourceNumber(n), token: m.known}, good: true, known: true})
	}
	before := m.guard.Stats()
	var group sync.WaitGroup
	for _, s := range all {
		group.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if s.canceled {
				go cancel()
			}
			s.answer.begin = time.Now()
			claims, err := m.guard.CheckRequest(ctx, s.request, m2mauth.AnyToken())
			s.answer = s.answer.of(claims, err)
		})
	}
	group.Wait()
	total := 0
	for _, n := range checks {
		total += n
	}
	refused := uint64(0)
	for _, s := range all {
		a := s.answer
		what := fmt.Sprintf("%s: status %d, %v", s.source, a.status, a.err)
		if a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable {
			refused++
			assert.Equal(rt, time.Second, a.retryAfter, what)
		}
		switch {
		case s.known:
			assert.Equal(rt, http.StatusOK, a.status, "a known token waits for nothing: %s", what)
		case a.status == http.StatusOK:
			assert.True(rt, s.good, "a forged token was accepted: %s", what)
		case a.status == http.StatusUnauthorized:
			assert.False(rt, s.good, "a good token was refused: %s", what)
		case a.status == http.StatusTooManyRequests: // over half of a queue, or over an even share of one that is full
			within := func(requests map[string]int, most int) bool {
				return requests[s.source] <= most/4 || requests[s.source] <= most/2 && total <= most
			}
			assert.False(rt, within(checks, mostWaiting) && within(sharing, mostSharing), "within its share: %s", what)
		case a.status == http.StatusServiceUnavailable:
			assert.True(rt, s.canceled, "there are four sources, and none waits in vain: %s", what)
		default:
			assert.Fail(rt, "no such answer", what)
		}
		assert.Zero(rt, a.end.Sub(a.begin), "nobody waits in vain: %s", what)
	}
	after := m.guard.Stats()
	assert.Equal(rt, refused, after.Refused-before.Refused)
	assert.Equal(rt, uint64(len(all)), after.Hits+after.Misses-before.Hits-before.Misses)

	// Nothing is left behind: all places are free again.
	for range runtime.GOMAXPROCS(0) {
		_, err := m.guard.CheckRequest(context.Background(), request{source: "another", token: m.issuer.Token(audience)}, m2mauth.AnyToken())
		assert.NoError(rt, err)
	}
	assert.Equal(rt, after.Waited, m.guard.Stats().Waited, "waited, though nobody else is there")
}

// Floods of good, forged and known tokens, of several sources, of which some give
// up: nobody gets an answer that is not its own, and no place is lost. The exact
// order in which sources are served is held by the core's own FuzzGate.
func TestAFloodTakesNothingFromOthers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4)) // so that some must wait on any machine
	waited := uint64(0)
	check(t, func(rt *rapid.T) {
		m := newQueueMachine(rt)
		for range rapid.IntRange(1, 2).Draw(rt, "floods") {
			m.flood(rt)
			time.Sleep(time.Minute)
		}
		waited += m.guard.Stats().Waited
	})
	t.Logf("%d checks had to wait", waited)
}
