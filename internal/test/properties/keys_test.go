package properties

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// The table of the keys' life, in numbers.
const (
	longestPause = time.Minute      // what the issuer's Retry-After may ask for; longer than the backoff, and than an ID is held absent
	refetchPause = 10 * time.Second // of refetches, for one source
	firstPause   = time.Second
	triedLately  = time.Minute
)

// keysMachine is an issuer, an API, and what the model knows: all answers that
// the issuer gave. The model needs no clockwork of its own: from the answers it
// tells for each request what may and what must come of it.
type keysMachine struct {
	issuer   *m2mauthtest.Issuer
	guard    *m2mauth.Guard
	ttl      time.Duration // with the issuer's max-age
	staleFor time.Duration
	timeout  time.Duration
	maxAge   string

	mu          sync.Mutex // guards the fields below
	fault       string
	delay       time.Duration
	generations map[string]int // of the key under each ID
	tokens      []signedToken
	fetches     []*fetch
}

// signedToken is a token and the key that signed it.
type signedToken struct {
	kid        string
	generation int
	raw        string
}

// fetch is an attempt to get the key set, as the issuer saw it.
type fetch struct {
	begin, end time.Time      // end is zero while it is under way
	keys       map[string]int // published, with their generations; nil if it failed
}

func newKeysMachine(rt *rapid.T) *keysMachine {
	m := &keysMachine{issuer: newIssuer(), generations: map[string]int{}}
	m.ttl = rapid.SampledFrom([]time.Duration{time.Minute, 10 * time.Minute, 2 * time.Hour}).Draw(rt, "KeyTTL")
	m.staleFor = rapid.SampledFrom([]time.Duration{-1, 3 * time.Minute, time.Hour}).Draw(rt, "KeyStaleFor")
	m.timeout = rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second}).Draw(rt, "FetchTimeout")
	m.maxAge = rapid.SampledFrom([]string{"", "max-age=0", "max-age=5", "max-age=120", "max-age=7200"}).Draw(rt, "Cache-Control")
	inMemory := rapid.Bool().Draw(rt, "remembers tokens")
	discovers := rapid.Bool().Draw(rt, "discovers")
	m.guard = newGuard(rt, m.issuer, func(c *m2mauth.Config) {
		c.KeyTTL, c.KeyStaleFor, c.FetchTimeout = m.ttl, m.staleFor, m.timeout
		if !inMemory {
			c.CacheBytes = -1
		}
		if !discovers {
			c.JWKSURL = m.issuer.JWKSURL()
		}
	})
	m.staleFor = max(0, m.staleFor)
	switch m.maxAge {
	case "max-age=5": // under the least that is believed
		m.ttl = min(m.ttl, max(time.Minute, 10*m.timeout))
	case "max-age=120":
		m.ttl = min(m.ttl, 2*time.Minute)
	case "max-age=7200":
		m.ttl = min(m.ttl, 2*time.Hour)
	}
	m.sign()
	m.issuer.Intercept(m.answer)
	return m
}

// sign makes a token for each published key that has none yet.
func (m *keysMachine) sign() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, kid := range m.issuer.KeyIDs() {
		if !slices.ContainsFunc(m.tokens, func(s signedToken) bool { return s.kid == kid && s.generation == m.generations[kid] }) {
			raw := m.issuer.Sign(m2mauthtest.Token{Audience: audience, KeyID: kid, Lifetime: 10_000 * time.Hour})
			m.tokens = append(m.tokens, signedToken{kid, m.generations[kid], raw})
		}
	}
}

// answer is the hook around the issuer.
func (m *keysMachine) answer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/oidc/jwks" {
			next.ServeHTTP(w, r) // faults are the key set's, so that an attempt is one request
			return
		}
		m.mu.Lock()
		fault, delay := m.fault, m.delay
		f := &fetch{begin: time.Now()}
		m.fetches = append(m.fetches, f)
		m.mu.Unlock()
		ended := func(good bool) {
			m.mu.Lock()
			defer m.mu.Unlock()
			f.end = time.Now()
			if good {
				f.keys = map[string]int{}
				for _, kid := range m.issuer.KeyIDs() {
					f.keys[kid] = m.generations[kid]
				}
				if len(f.keys) == 0 { // an empty set is none
					f.keys = nil
				}
			}
		}
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			ended(false)
			return
		}
		switch fault {
		case "":
			ended(true)
			if m.maxAge != "" {
				w = maxAgeWriter{w, m.maxAge}
			}
			next.ServeHTTP(w, r)
		case "breaks":
			ended(false)
			panic(http.ErrAbortHandler)
		case "hangs":
			<-r.Context().Done()
			ended(false)
		case "HTML", "empty":
			ended(false)
			_, _ = io.WriteString(w, map[string]string{"HTML": "<html>", "empty": `{"keys":[]}`}[fault])
		default:
			ended(false)
			w.Header().Set("Retry-After", fault)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
}

// maxAgeWriter puts another Cache-Control in place of the issuer's.
type maxAgeWriter struct {
	http.ResponseWriter
	maxAge string
}

func (w maxAgeWriter) WriteHeader(status int) {
	w.Header().Set("Cache-Control", w.maxAge)
	w.ResponseWriter.WriteHeader(status)
}

// known is what the guard may know of keys at one moment.
type known struct {
	keys                   map[string]int  // of the last good answer; nil if there was none
	had                    map[string]bool // key IDs of all good answers
	freshUntil, staleUntil time.Time
	lastFailure            time.Time // after that answer
	lastEnd                time.Time // of any attempt
	underWay               bool
	attempts               int
}

func (m *keysMachine) known() known {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.knownOf(m.fetches)
}

// knownFrom is what was known after each fetch that began and ended at one moment.
func (m *keysMachine) knownFrom(at time.Time) (all []known) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, f := range m.fetches {
		if f.end.Equal(at) {
			all = append(all, m.knownOf(m.fetches[:i+1]))
		}
	}
	return all
}

func (m *keysMachine) knownOf(fetches []*fetch) (k known) {
	k.attempts = len(fetches)
	k.had = map[string]bool{}
	for _, f := range fetches {
		switch {
		case f.end.IsZero():
			k.underWay = true
			continue
		case f.keys == nil:
			k.lastFailure = f.end
		default:
			k.keys, k.lastFailure = f.keys, time.Time{}
			for kid := range f.keys {
				k.had[kid] = true
			}
			k.freshUntil = f.end.Add(m.ttl)
			k.staleUntil = k.freshUntil.Add(m.staleFor)
		}
		k.lastEnd = f.end
	}
	return k
}

func (k known) holds(t signedToken) bool {
	generation, published := k.keys[t.kid]
	return published && generation == t.generation
}

// judge says what is wrong with an answer, if anything is, given what was known
// when the request came and what was known once it was answered.
func (m *keysMachine) judge(t signedToken, a answer, before, after known, canceled bool) (problem string) {
	must := func(holds bool, text string) {
		if !holds && problem == "" {
			problem = text
		}
	}
	atOnce := a.end.Equal(a.begin)
	_, published := before.keys[t.kid]
	fresh := before.keys != nil && a.begin.Before(before.freshUntil)
	usable := before.keys != nil && a.begin.Before(before.staleUntil)
	tried := !before.lastFailure.IsZero() && a.begin.Sub(before.lastFailure) < triedLately
	asked := after.attempts > before.attempts || before.underWay
	failed := !after.lastFailure.IsZero()
	// Refetches that bring nothing are followed by a pause, and a set that was asked
	// for before the request came does not tell of its key.
	unsettled := !published && !before.lastEnd.IsZero() && a.begin.Sub(before.lastEnd) < refetchPause || before.underWay

	must(slices.Contains([]int{200, 401, 503}, a.status), "no such answer")
	must(a.end.Sub(a.begin) <= m.timeout+time.Second, "waited for more than one fetch")
	must(a.status != 503 || a.retryAfter >= time.Second && a.retryAfter <= longestPause, "Retry-After is out of range")

	// Never accepted wrongly.
	if a.status == 200 {
		must(before.holds(t) || after.holds(t), "accepted by a key that no document had")
		if !after.holds(t) {
			must(usable, "accepted by expired keys")
			must(fresh || tried || failed, "accepted by stale keys that nobody tried to renew")
		}
		must(before.holds(t) || a.end.Before(after.staleUntil), "accepted by expired keys")
	}
	// Never refused wrongly.
	switch {
	case canceled && a.status == 503:
	case published && (fresh || usable && tried):
		must(atOnce, "waited while good keys were there")
		must(a.status == map[bool]int{true: 200, false: 401}[before.holds(t)], "good keys were there, and say otherwise")
	case before.had[t.kid] && !published && (fresh || usable && tried):
		must(atOnce && a.status == 401, "its key has left the set")
	case a.status == 401:
		must(!after.holds(t) || usable && !before.holds(t), "refused though its key is published")
		must(usable || after.keys != nil && a.end.Before(after.staleUntil), "401 without keys")
		must(published || before.had[t.kid] || asked || a.begin.Sub(before.lastEnd) < longestPause, "an unknown key was not asked for")
	case a.status == 503 && unsettled:
	case a.status == 503:
		if asked {
			must(failed, "503 though the fetch went well")
		} else {
			must(!before.lastFailure.IsZero(), "503 without an attempt")
			must(a.begin.Sub(before.lastFailure) <= longestPause, "503 at once, though no backoff can last so long")
			must(atOnce, "waited for no attempt")
		}
		// The keys may have ended while a refresh was waited for.
		must(!usable || !published || !a.end.Before(before.staleUntil), "503 while last good keys serve")
	}
	if problem != "" {
		problem += fmt.Sprintf(": status %d after %v for key %.6s/%d at %v\nbefore: %v\nafter: %v\nerror: %v", a.status, a.end.Sub(a.begin), t.kid, t.generation, a.begin, before, after, a.err)
	}
	return problem
}

// request sends one request, to its end.
func (m *keysMachine) request(rt *rapid.T) {
	t := m.drawToken(rt)
	before := m.known()
	a := ask(context.Background(), m.guard, t.raw)
	synctest.Wait() // a refresh that need not wait for anything is done
	assert.Empty(rt, m.judge(t, a, before, m.known(), false))
}

func (m *keysMachine) drawToken(rt *rapid.T) signedToken {
	m.mu.Lock()
	defer m.mu.Unlock()
	made := rapid.IntRange(-1, len(m.tokens)-1).Draw(rt, "token")
	if made < 0 {
		kid := rapid.SampledFrom([]string{"made up", "made up too", ""}).Draw(rt, "kid")
		raw := m.issuer.Sign(m2mauthtest.Token{Audience: audience, Header: map[string]any{"kid": kid}, Lifetime: 10_000 * time.Hour})
		return signedToken{kid, 0, raw}
	}
	return m.tokens[len(m.tokens)-1-made] // the newest are the simplest
}

// crowd sends requests at the same moment, of which some give up.
func (m *keysMachine) crowd(rt *rapid.T) {
	type request struct {
		token  signedToken
		giveUp time.Duration // 0 = never
		answer answer
	}
	requests := make([]*request, rapid.IntRange(2, 12).Draw(rt, "requests"))
	before := m.known()
	for i := range requests {
		r := &request{token: m.drawToken(rt), giveUp: time.Duration(rapid.IntRange(0, 4).Draw(rt, "gives up")) * 300 * time.Millisecond}
		requests[i] = r
	}
	var all sync.WaitGroup
	for _, r := range requests {
		all.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if r.giveUp > 0 {
				time.AfterFunc(r.giveUp, cancel)
			}
			r.answer = ask(ctx, m.guard, r.token.raw)
		})
	}
	all.Wait()
	synctest.Wait()
	after := m.known()
	assert.LessOrEqual(rt, after.attempts-before.attempts, 2, "a crowd shares its fetch")
	for _, r := range requests {
		problem := m.judge(r.token, r.answer, before, after, r.giveUp > 0)
		for _, then := range m.knownFrom(r.answer.begin) { // of the moment's requests some come after its fetch
			if problem != "" && m.judge(r.token, r.answer, then, after, r.giveUp > 0) == "" {
				problem = ""
			}
		}
		assert.Empty(rt, problem)
	}
}

func (m *keysMachine) pass(rt *rapid.T) {
	unit := rapid.SampledFrom([]time.Duration{100 * time.Millisecond, time.Second, 10 * time.Second, m.ttl / 10, m.ttl, m.staleFor}).Draw(rt, "unit")
	time.Sleep(unit * time.Duration(rapid.IntRange(1, 10).Draw(rt, "times")))
	synctest.Wait()
}

// grow lets the keys become stale, or expire, to within a second.
func (m *keysMachine) grow(rt *rapid.T) {
	k := m.known()
	until := rapid.SampledFrom([]time.Time{k.freshUntil, k.staleUntil}).Draw(rt, "age")
	if wait := time.Until(until); wait > 0 && k.keys != nil {
		time.Sleep(wait + time.Duration(rapid.IntRange(-1, 2).Draw(rt, "seconds"))*time.Second)
		synctest.Wait()
	}
}

// flood asks for key IDs that nobody has, one a second.
func (m *keysMachine) flood(rt *rapid.T) {
	good := m.issuer.Token(audience)
	for i := range rapid.IntRange(10, 150).Draw(rt, "seconds") {
		kid := fmt.Sprint("flood ", i)
		header := fmt.Sprintf(`{"alg":"EdDSA","typ":"at+jwt","kid":%q}`, kid)
		t := signedToken{kid, 0, base64.RawURLEncoding.EncodeToString([]byte(header)) + good[strings.IndexByte(good, '.'):]}
		before := m.known()
		a := ask(context.Background(), m.guard, t.raw)
		synctest.Wait()
		assert.Empty(rt, m.judge(t, a, before, m.known(), false))
		time.Sleep(time.Second)
	}
}

func (m *keysMachine) setFault(rt *rapid.T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = rapid.SampledFrom([]string{"", "", "", "breaks", "hangs", "HTML", "empty", "7", "3600", "soon"}).Draw(rt, "fault")
	m.delay = m.timeout * time.Duration(rapid.SampledFrom([]int{0, 0, 0, 3, 9, 11}).Draw(rt, "delay")) / 10
}

func (m *keysMachine) rotate(rt *rapid.T) {
	switch kids := m.issuer.KeyIDs(); rapid.IntRange(0, 3).Draw(rt, "rotation") {
	case 0, 1:
		m.issuer.Rotate("EdDSA")
	case 2:
		if len(kids) > 0 {
			m.issuer.Withdraw(kids[len(kids)-1])
		}
	case 3:
		if len(kids) > 0 {
			kid := rapid.SampledFrom(kids).Draw(rt, "kid")
			m.mu.Lock()
			m.generations[kid]++
			m.issuer.Replace(kid)
			m.mu.Unlock()
		}
	}
	m.sign()
}

// invariant holds at any moment.
func (m *keysMachine) invariant(rt *rapid.T) {
	m.mu.Lock()
	begins := make([]time.Time, 0, len(m.fetches))
	var keys map[string]int
	for _, f := range m.fetches {
		brought := slices.ContainsFunc(slices.Collect(maps.Keys(f.keys)), func(kid string) bool { _, had := keys[kid]; return !had })
		if f.keys != nil {
			keys = f.keys
		}
		if !brought { // a rotation is the issuer's doing
			begins = append(begins, f.begin)
		}
	}
	m.mu.Unlock()
	for i := range max(0, len(begins)-2) {
		// One may be due as another ends; a third needs a pause.
		assert.GreaterOrEqual(rt, begins[i+2].Sub(begins[i]), firstPause, "the issuer is hammered")
	}
	k, s := m.known(), m.guard.Keys()
	if k.underWay {
		return
	}
	want := m2mauth.KeysNone
	switch now := time.Now(); {
	case k.keys == nil:
	case now.Before(k.freshUntil):
		want = m2mauth.KeysFresh
	case now.Before(k.staleUntil):
		want = m2mauth.KeysStale
	default:
		want = m2mauth.KeysExpired
	}
	require.Equal(rt, want, s.State)
	require.Equal(rt, k.attempts, s.Fetches)
	var ids []string
	for _, key := range s.Keys {
		ids = append(ids, key.ID)
	}
	assert.ElementsMatch(rt, slices.Collect(maps.Keys(k.keys)), ids)
}

// The issuer rotates, withdraws and replaces keys, fails and is slow; the clock
// jumps; requests come alone and in crowds, and give up.
func TestKeysAreNeverTrustedNorMissedWrongly(t *testing.T) {
	check(t, func(rt *rapid.T) {
		m := newKeysMachine(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"request":     m.request,
			"requests":    m.request, // twice as likely as the rest
			"crowd":       m.crowd,
			"time passes": m.pass,
			"time flies":  m.grow,
			"fault":       m.setFault,
			"flood":       m.flood,
			"rotation":    m.rotate,
			"":            m.invariant,
		})
	})
}
