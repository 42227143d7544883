package m2mauth_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// outcomes are all of the closed set: a test fails if another is ever told.
var outcomes = map[string]error{
	"allowed":                 nil,
	"anonymous":               nil,
	"no_access_token":         m2mauth.ErrNoToken,
	"malformed_credentials":   m2mauth.ErrRequest,
	"malformed_token":         m2mauth.ErrMalformed,
	"algorithm_not_accepted":  m2mauth.ErrAlgorithm,
	"type_not_accepted":       m2mauth.ErrType,
	"wrong_issuer":            m2mauth.ErrIssuer,
	"wrong_audience":          m2mauth.ErrAudience,
	"token_expired":           m2mauth.ErrExpired,
	"token_not_yet_valid":     m2mauth.ErrNotYetValid,
	"unacceptable_claims":     m2mauth.ErrClaims,
	"unknown_key":             m2mauth.ErrUnknownKey,
	"wrong_signature":         m2mauth.ErrSignature,
	"insufficient_scope":      m2mauth.ErrScope,
	"forbidden":               m2mauth.ErrForbidden,
	"too_many_requests":       m2mauth.ErrBusy,
	"temporarily_unavailable": m2mauth.ErrUnavailable,
	"internal_error":          m2mauth.ErrInternal,
}

// deciding makes a guard whose decisions are kept.
func deciding(tb testing.TB, issuer *m2mauthtest.Issuer, change ...func(*m2mauth.Config)) (*m2mauth.Guard, *decisions) {
	kept := new(decisions)
	return quietGuard(tb, issuer, append(change, func(c *m2mauth.Config) { c.OnDecision = kept.add })...), kept
}

type decisions struct {
	mu   sync.Mutex // guards the fields below
	list []m2mauth.Decision
}

func (d *decisions) add(_ context.Context, decision m2mauth.Decision) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, decision)
}

// only returns the one decision since it was last asked.
func (d *decisions) only(tb testing.TB) m2mauth.Decision {
	tb.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.list
	d.list = nil
	require.Len(tb, list, 1)
	return list[0]
}

func TestEveryOutcomeIsToldAndIsFitForALabel(t *testing.T) {
	t.Parallel()
	label := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	for outcome := range outcomes {
		assert.Regexp(t, label, outcome)
	}
	signed := func(token m2mauthtest.Token) func(*m2mauthtest.Issuer) []string {
		return func(issuer *m2mauthtest.Issuer) []string {
			if token.Audience == "" {
				token.Audience = shop
			}
			return []string{"Bearer " + issuer.Sign(token)}
		}
	}
	fields := func(list ...string) func(*m2mauthtest.Issuer) []string {
		return func(*m2mauthtest.Issuer) []string { return list }
	}
	read := m2mauth.AllScopes("read")
	reader := m2mauthtest.Token{Scopes: []string{"read"}}
	fails := m2mauth.Custom("fails", func(context.Context, m2mauth.Claims, m2mauth.Request) error {
		return errors.New("the database is down")
	})

	tests := map[string]struct { // by outcome
		rule   m2mauth.Rule
		fields func(*m2mauthtest.Issuer) []string
		claims bool
	}{
		"allowed":                {read, signed(reader), true},
		"anonymous":              {m2mauth.Optional(read), fields(), false},
		"no_access_token":        {read, fields(), false},
		"malformed_credentials":  {read, fields("Bearer"), false},
		"malformed_token":        {read, fields("Bearer opaque"), false},
		"algorithm_not_accepted": {read, signed(m2mauthtest.Token{Algorithm: "none"}), false},
		"type_not_accepted":      {read, signed(m2mauthtest.Token{Header: map[string]any{"typ": "JWT"}}), false},
		"wrong_issuer":           {read, signed(m2mauthtest.Token{Claims: map[string]any{"iss": "https://other.test/oidc"}}), false},
		"wrong_audience":         {read, signed(m2mauthtest.Token{Audience: "https://other.api"}), false},
		"token_expired":          {read, signed(m2mauthtest.Token{Expired: true}), false},
		"token_not_yet_valid":    {read, signed(m2mauthtest.Token{Claims: map[string]any{"nbf": 4e9}}), false},
		"unacceptable_claims":    {read, signed(m2mauthtest.Token{Claims: map[string]any{"sub": nil}}), false},
		"unknown_key":            {read, signed(m2mauthtest.Token{Header: map[string]any{"kid": "made up"}}), false},
		"wrong_signature": {read, func(issuer *m2mauthtest.Issuer) []string {
			token := issuer.Token(shop)
			return []string{"Bearer " + token[:strings.LastIndexByte(token, '.')+1] + strings.Repeat("A", 128)}
		}, false},
		"insufficient_scope": {read, signed(m2mauthtest.Token{Scopes: []string{"write"}}), true},
		"forbidden":          {m2mauth.UserToken(), signed(reader), true},
		"internal_error":     {fails, signed(reader), true},
		"temporarily_unavailable": {read, func(issuer *m2mauthtest.Issuer) []string {
			issuer.Intercept(func(http.Handler) http.Handler { return http.NotFoundHandler() })
			return []string{"Bearer " + issuer.Token(shop, "read")}
		}, false},
		"too_many_requests": {}, // TestABusySourceIsTold
	}
	for outcome, kind := range outcomes {
		require.Contains(t, tests, outcome)
		test := tests[outcome]
		if test.fields == nil {
			continue
		}
		t.Run(outcome, func(t *testing.T) {
			t.Parallel()
			issuer := m2mauthtest.NewIssuer()
			guard, kept := deciding(t, issuer)
			_, err := guard.Check(requestWith(test.fields(issuer)...), test.rule)
			d := kept.only(t)
			assert.EqualValues(t, outcome, d.Outcome)
			assert.Equal(t, test.rule.String(), d.Rule.String())
			assert.Equal(t, test.claims, !d.Claims.IsZero())
			assert.False(t, d.Remembered)
			if kind == nil {
				assert.NoError(t, err)
				assert.Nil(t, d.Err)
				return
			}
			assert.ErrorIs(t, err, kind)
			assert.ErrorIs(t, d.Err, kind)
		})
	}
}

func TestABusySourceIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard, kept := deciding(t, issuer)
		require.NoError(t, guard.Warm(t.Context()))
		places, release := m2mauth.HoldPlaces(guard)
		var waiting sync.WaitGroup
		for range 1001 {
			token := issuer.Token(shop)
			waiting.Go(func() { _, _ = guard.Verify(t.Context(), token) })
		}
		synctest.Wait()
		d := kept.only(t)
		assert.EqualValues(t, "too_many_requests", d.Outcome)
		assert.True(t, d.Claims.IsZero())
		for range places {
			release()
		}
		waiting.Wait()
	})
}

func TestDecisionsOfTheOtherWaysIn(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, kept := deciding(t, issuer)

	_, err := guard.Verify(t.Context(), issuer.Token(shop))
	require.NoError(t, err)
	assert.Equal(t, "AnyToken()", kept.only(t).Rule.String())

	_, err = guard.CheckRequest(t.Context(), headers{}, m2mauth.MachineToken())
	require.Error(t, err)
	assert.EqualValues(t, "no_access_token", kept.only(t).Outcome)

	w := httptest.NewRecorder()
	guard.Require("read")(http.NotFoundHandler()).ServeHTTP(w, requestWith("Bearer "+issuer.Token(shop)))
	d := kept.only(t)
	assert.Equal(t, `AllScopes("read")`, d.Rule.String())
	assert.Equal(t, 403, d.Err.Status)
	header, _ := d.Err.Response()
	assert.Equal(t, w.Header().Get("WWW-Authenticate"), header.Get("WWW-Authenticate"))
	guard.WriteError(httptest.NewRecorder(), requestWith(), d.Err)
	assert.Empty(t, kept.list, "an answer is no decision")
}

func TestDecisionsSayWhetherTheTokenWasRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard, kept := deciding(t, issuer)
		token := issuer.Token(shop, "read")
		ask := func(scope string) m2mauth.Decision {
			_, _ = guard.Check(requestWith("Bearer "+token), m2mauth.AllScopes(scope))
			return kept.only(t)
		}
		assert.False(t, ask("read").Remembered)
		assert.True(t, ask("read").Remembered)
		refused := ask("write")
		assert.True(t, refused.Remembered)
		assert.EqualValues(t, "insufficient_scope", refused.Outcome)
		assert.Equal(t, "read", refused.Claims.Scopes().String())

		time.Sleep(2 * time.Hour)
		expired := ask("read")
		assert.EqualValues(t, "token_expired", expired.Outcome)
		assert.True(t, expired.Remembered)
		assert.True(t, expired.Claims.IsZero(), "as of an expired token that is new")
	})
}

func TestTheDurationOfADecisionIncludesWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		issuer.Intercept(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(time.Second)
				next.ServeHTTP(w, r)
			})
		})
		guard, kept := deciding(t, issuer)
		token := issuer.Token(shop)
		for _, want := range []time.Duration{2 * time.Second, 0} { // discovery and keys, then neither
			_, err := guard.Verify(t.Context(), token)
			require.NoError(t, err)
			assert.Equal(t, want, kept.only(t).Duration)
		}
	})
}

func TestADecisionHasTheRequestsContext(t *testing.T) {
	t.Parallel()
	type key struct{}
	issuer := m2mauthtest.NewIssuer()
	var seen any
	guard := quietGuard(t, issuer, func(c *m2mauth.Config) {
		c.OnDecision = func(ctx context.Context, _ m2mauth.Decision) { seen = ctx.Value(key{}) }
	})
	r := requestWith()
	_, _ = guard.Check(r.WithContext(context.WithValue(r.Context(), key{}, "this request")), m2mauth.AnyToken())
	assert.Equal(t, "this request", seen)
}

func TestAMistakeInOnDecisionIsNotTheCallersProblem(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	book := new(logBook)
	guard := quietGuard(t, issuer, func(c *m2mauth.Config) {
		c.Logger = slog.New(book)
		c.OnDecision = func(_ context.Context, d m2mauth.Decision) {
			if d.Err != nil {
				d.Err.Status, d.Err.Description = 200, "changed"
				if d.Err.Scopes != nil {
					d.Err.Scopes[0] = "changed"
				}
			}
			panic("a mistake")
		}
	})
	api := guard.Require("read")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for _, test := range []struct {
		scope string
		want  int
	}{{"read", 204}, {"write", 403}, {"write", 403}} {
		w := httptest.NewRecorder()
		api.ServeHTTP(w, requestWith("Bearer "+issuer.Token(shop, test.scope)))
		assert.Equal(t, test.want, w.Code)
		if test.want == 403 {
			assert.Contains(t, w.Header().Get("WWW-Authenticate"), `scope="read"`)
			assert.NotContains(t, w.Body.String(), "changed")
		}
	}
	panics := 0
	for _, line := range book.take() {
		if strings.Contains(line.attrs["msg"].(string), "OnDecision panicked") {
			panics++
			assert.Equal(t, slog.LevelError, line.level)
		}
	}
	assert.Equal(t, 3, panics, "and the operator sees it")
}

// TestAPanicOfAFunctionIsTold and goes on to the server, which knows what to do.
func TestAPanicOfAFunctionIsTold(t *testing.T) {
	t.Parallel()
	mistake := errors.New("a mistake")
	custom := m2mauth.Custom("mistaken", func(context.Context, m2mauth.Claims, m2mauth.Request) error { panic(mistake) })
	for _, test := range []struct {
		name   string
		rule   m2mauth.Rule
		token  m2mauthtest.Token
		change func(*m2mauth.Config)
		claims bool // the token had been verified
	}{
		{"Custom", custom, m2mauthtest.Token{}, nil, true},
		{"Custom in an optional rule", m2mauth.Optional(custom), m2mauthtest.Token{}, nil, true},
		{"Custom and OnDecision as well", custom, m2mauthtest.Token{}, func(c *m2mauth.Config) {
			tell := c.OnDecision
			c.OnDecision = func(ctx context.Context, d m2mauth.Decision) { tell(ctx, d); panic("another mistake") }
		}, true},
		{"Organization", m2mauth.Organization(func(m2mauth.Request) string { panic(mistake) }), m2mauthtest.Token{OrganizationID: "acme"}, nil, true},
		{"IsMachine", m2mauth.MachineToken(), m2mauthtest.Token{}, func(c *m2mauth.Config) {
			c.IsMachine = func(m2mauth.Claims) bool { panic(mistake) }
		}, true},
		{"Source", m2mauth.AnyToken(), m2mauthtest.Token{}, func(c *m2mauth.Config) {
			c.QueueKey = func(m2mauth.Request) string { panic(mistake) }
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			issuer, kept := m2mauthtest.NewIssuer(), new(decisions)
			guard := quietGuard(t, issuer, func(c *m2mauth.Config) {
				if c.OnDecision = kept.add; test.change != nil {
					test.change(c)
				}
			})
			test.token.Audience = shop
			r := requestWith("Bearer " + issuer.Sign(test.token))
			for n := range 2 {
				assert.PanicsWithError(t, "a mistake", func() { _, _ = guard.Check(r, test.rule) })
				d := kept.only(t)
				assert.EqualValues(t, "internal_error", d.Outcome)
				require.ErrorIs(t, d.Err, m2mauth.ErrInternal)
				assert.Equal(t, test.rule.String(), d.Rule.String())
				assert.Equal(t, test.claims, !d.Claims.IsZero())
				assert.Equal(t, test.claims && n > 0, d.Remembered)
			}
		})
	}
}

func TestARequestThatIsNilIsRefusedAndTold(t *testing.T) {
	t.Parallel()
	guard, kept := deciding(t, m2mauthtest.NewIssuer())
	for _, rule := range []m2mauth.Rule{m2mauth.AnyToken(), m2mauth.Optional(m2mauth.AnyToken())} {
		claims, err := guard.CheckRequest(t.Context(), nil, rule)
		assert.True(t, claims.IsZero())
		require.ErrorIs(t, err, m2mauth.ErrInternal)
		assert.ErrorContains(t, err, "no Request")
		assert.EqualValues(t, "internal_error", kept.only(t).Outcome)
	}
}

func TestDecisionsUnderConcurrency(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	var count [2]atomic.Int64
	guard := quietGuard(t, issuer, func(c *m2mauth.Config) {
		c.OnDecision = func(_ context.Context, d m2mauth.Decision) {
			if !d.Claims.IsZero() && d.Outcome == "allowed" {
				count[0].Add(1)
			} else {
				count[1].Add(1)
			}
		}
	})
	good, bad := issuer.Token(shop, "read"), issuer.Token(shop)
	var all sync.WaitGroup
	for n := range 200 {
		token := []string{good, bad}[n%2]
		all.Go(func() { _, _ = guard.Check(requestWith("Bearer "+token), m2mauth.AllScopes("read")) })
	}
	all.Wait()
	assert.EqualValues(t, 100, count[0].Load())
	assert.EqualValues(t, 100, count[1].Load())
}

// Not parallel: it counts allocations of the process.
func TestDecisionsCostNothingWhereNobodyIsTold(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	allocations := func(change func(*m2mauth.Config)) float64 {
		guard := quietGuard(t, issuer, change)
		r, rule := requestWith("Bearer "+issuer.Token(shop, "read")), m2mauth.AllScopes("read")
		return testing.AllocsPerRun(200, func() {
			if _, err := guard.Check(r, rule); err != nil {
				panic(err)
			}
		})
	}
	runtime.GC()
	assert.LessOrEqual(t, allocations(func(*m2mauth.Config) {}), 1.0, "a known token")
	assert.LessOrEqual(t, allocations(func(c *m2mauth.Config) { c.OnDecision = func(context.Context, m2mauth.Decision) {} }), 2.0,
		"and claims of its own for the one who is told")
}
