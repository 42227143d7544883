package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
	"github.com/m2mauth/m2mauth/testdata/attacks"
)

// TestReportOnly sends 2,000 requests, good and bad, to an example server three times:
// with a guard that reports only, with one that enforces, and without one, which is open.
// The first answers byte for byte as the last does, and what it lists is what the second
// rejects. The date apart, which is the clock's.
//
// One answer shows claims, that of /whoami, and a server without a guard has none to
// show: with a token that was verified it must be that token's.
func TestReportOnly(t *testing.T, routes func(*m2mauth.Guard) http.Handler, open http.Handler) {
	t.Helper()
	corpus := NewCorpus(t)
	synctest.Test(t, func(t *testing.T) {
		dry, enforcing := corpus.Guards(t)
		dryServer, enforcingServer := routes(dry.Guard), routes(enforcing.Guard)
		for range 2000 {
			r := corpus.draw()
			send := func(to http.Handler) (*httptest.ResponseRecorder, string) {
				w, request := httptest.NewRecorder(), r()
				to.ServeHTTP(w, request)
				result := w.Result()
				result.Header.Del("Date")
				result.Request = request // whose method says whether a body follows
				var answer bytes.Buffer
				require.NoError(t, result.Write(&answer))
				return w, answer.String()
			}
			w, answer := send(dryServer)
			_, enforced := send(enforcingServer)
			_, unguarded := send(open)

			decision, asked := SameDecision(t, dry, enforcing)
			if asked && decision.Err == nil {
				require.Equal(t, enforced, answer, "what is allowed")
			}
			if r := r(); asked && !decision.Claims.IsZero() && r.URL.Path == "/whoami" {
				require.Equal(t, http.StatusOK, w.Code)
				if r.Method != http.MethodHead {
					var identity shopapi.Identity
					require.NoError(t, json.Unmarshal(w.Body.Bytes(), &identity))
					require.Equal(t, shopapi.Identify(decision.Claims), identity)
				}
				continue
			}
			require.Equal(t, unguarded, answer, "%s %s %q", r().Method, r().URL, r().Header["Authorization"])
		}
		AssertTotals(t, dry, enforcing)
	})
}

// Observed is a guard and its decisions.
type Observed struct {
	Guard   *m2mauth.Guard
	latest  []m2mauth.Decision
	refused int
	kinds   map[m2mauth.Outcome]int
}

// SameDecision holds that the two guards decided alike about the latest request, but
// for what became of it. Where none was asked, asked is false.
func SameDecision(t *testing.T, dry, enforcing *Observed) (d m2mauth.Decision, asked bool) {
	t.Helper()
	of, want := dry.take(), enforcing.take()
	require.Len(t, of, len(want))
	if len(of) == 0 {
		return d, false
	}
	require.Len(t, of, 1)
	d = of[0]
	require.True(t, d.ReportOnly)
	require.False(t, want[0].ReportOnly)
	require.Equal(t, want[0].Outcome, d.Outcome)
	require.Equal(t, want[0].Rule.String(), d.Rule.String())
	require.Equal(t, want[0].Err == nil, d.Err == nil)
	require.Equal(t, want[0].Claims.ID(), d.Claims.ID())
	if d.Err != nil {
		require.Equal(t, want[0].Err.Error(), d.Err.Error())
	}
	return d, true
}

func (o *Observed) take() []m2mauth.Decision {
	latest := o.latest
	o.latest = nil
	for _, d := range latest {
		o.kinds[d.Outcome]++
		if d.Err != nil {
			o.refused++
		}
	}
	return latest
}

// AssertTotals holds that the requests were of many kinds, and the counts equal.
func AssertTotals(t *testing.T, dry, enforcing *Observed) {
	t.Helper()
	assert.Equal(t, enforcing.kinds, dry.kinds)
	assert.EqualValues(t, dry.refused, dry.Guard.Stats().WouldRefuse)
	assert.Zero(t, enforcing.Guard.Stats().WouldRefuse)
	assert.Zero(t, dry.kinds[m2mauth.Undecided], "the keys are there")
	assert.Greater(t, len(dry.kinds), 8)
	assert.Greater(t, dry.kinds[m2mauth.Allowed], 100)
	assert.Greater(t, dry.refused, 500)
	t.Logf("%d requests would be refused, as they were: %v", dry.refused, dry.kinds)
}

// Corpus are requests drawn from testdata/attacks and from the rows of
// testdata/fixtures.json, and the keys that verify their tokens.
type Corpus struct {
	random *rand.Rand
	keys   []byte
	good   []http.Header
	bad    []http.Header
}

const (
	corpusIssuer = "https://issuer.test/oidc"
	corpusClock  = 1_800_000_000 // in seconds since 1970, as almost all of them have it
)

// NewCorpus reads the requests. Those with bytes that no HTTP client sends are left out.
func NewCorpus(t *testing.T) *Corpus {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := &Corpus{random: rand.New(rand.NewPCG(seed, 0))}
	var keys []json.RawMessage
	keys = append(keys, c.addAttacks(t)...)
	keys = append(keys, c.addFixtures(t)...)
	var err error
	c.keys, err = json.Marshal(map[string]any{"keys": keys})
	require.NoError(t, err)
	require.Greater(t, len(c.bad), 800)
	require.NotEmpty(t, c.good)
	return c
}

// addAttacks returns the keys that most of the attacks have.
func (c *Corpus) addAttacks(t *testing.T) []json.RawMessage {
	t.Helper()
	names, err := fs.Glob(attacks.Files, "*.json")
	require.NoError(t, err)
	count := make(map[string]int)
	for _, name := range names {
		content, err := fs.ReadFile(attacks.Files, name)
		require.NoError(t, err)
		var attack struct {
			Keys          json.RawMessage
			Control       string
			Header        http.Header
			Authorization []string
		}
		require.NoError(t, json.Unmarshal(content, &attack))
		count[string(attack.Keys)]++
		header := attack.Header.Clone()
		if header == nil {
			header = make(http.Header)
		}
		if attack.Authorization != nil {
			header["Authorization"] = attack.Authorization
		}
		c.bad = appendSendable(c.bad, header)
		if attack.Control != "" {
			c.good = appendSendable(c.good, http.Header{"Authorization": {"Bearer " + attack.Control}})
		}
	}
	most := ""
	for keys, n := range count {
		if n > count[most] {
			most = keys
		}
	}
	return keysOf(t, most)
}

func (c *Corpus) addFixtures(t *testing.T) (keys []json.RawMessage) {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	content, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../../../testdata/fixtures.json"))
	require.NoError(t, err)
	var table struct {
		Keys map[string]string
		Rows []struct{ Token, Error string }
	}
	require.NoError(t, json.Unmarshal(content, &table))
	for _, row := range table.Rows {
		header := http.Header{"Authorization": {"Bearer " + row.Token}}
		if row.Error == "" {
			c.good = appendSendable(c.good, header)
		} else {
			c.bad = appendSendable(c.bad, header)
		}
	}
	for _, set := range []string{"ES384", "ES256", "RS256", "EdDSA"} {
		require.Contains(t, table.Keys, set)
		for _, key := range keysOf(t, table.Keys[set]) {
			if !slices.ContainsFunc(keys, func(k json.RawMessage) bool { return bytes.Equal(k, key) }) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

func keysOf(t *testing.T, set string) []json.RawMessage {
	t.Helper()
	var parsed struct{ Keys []json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(set), &parsed))
	return parsed.Keys
}

func appendSendable(to []http.Header, header http.Header) []http.Header {
	for _, values := range header {
		for _, value := range values {
			odd := strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' })
			if odd || strings.TrimSpace(value) != value || len(value) > 10<<10 {
				return to
			}
		}
	}
	return append(to, header)
}

// Guards makes, in a bubble at the time of the requests, one that reports only and one
// that enforces.
func (c *Corpus) Guards(t *testing.T) (dry, enforcing *Observed) {
	t.Helper()
	time.Sleep(time.Until(time.Unix(corpusClock, 0)))
	guard := func(until time.Time) *Observed {
		o := &Observed{kinds: make(map[m2mauth.Outcome]int)}
		var err error
		o.Guard, err = m2mauth.New(m2mauth.Config{
			Issuer: corpusIssuer, Audience: audience, JWKS: c.keys, InsecureReportOnlyUntil: until,
			OnDecision: func(_ context.Context, d m2mauth.Decision) { o.latest = append(o.latest, d) },
			Logger:     slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		return o
	}
	return guard(time.Now().Add(time.Hour)), guard(time.Time{})
}

// Header draws the header fields of a request: one in four is good, and one in ten has
// no credentials.
func (c *Corpus) Header() http.Header {
	from := c.bad
	switch n := c.random.IntN(20); {
	case n < 5:
		from = c.good
	case n < 7:
		return http.Header{}
	}
	return from[c.random.IntN(len(from))]
}

// Pick draws one of the values.
func (c *Corpus) Pick(values ...string) string { return values[c.random.IntN(len(values))] }

// draw returns a maker of one request, as often as it is needed.
func (c *Corpus) draw() func() *http.Request {
	method := c.Pick("GET", "GET", "GET", "POST", "HEAD", "DELETE")
	target := c.Pick("/products", "/products", "/products?access_token=secret", "/whoami", "/healthz", "/nothing")
	body := c.Pick("", `{"name":"Teapot"}`)
	header := c.Header()
	return func() *http.Request {
		r := httptest.NewRequest(method, target, strings.NewReader(body))
		for name, values := range header {
			r.Header[name] = slices.Clone(values)
		}
		return r
	}
}
