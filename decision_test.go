package m2mauth_test

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/m2mauth/m2mauth/internal/test/testguard"
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
	"token_revoked":           m2mauth.ErrRevoked,
	"insufficient_scope":      m2mauth.ErrScope,
	"forbidden":               m2mauth.ErrForbidden,
	"too_many_requests":       m2mauth.ErrBusy,
	"temporarily_unavailable": m2mauth.ErrUnavailable,
	"internal_error":          m2mauth.ErrInternal,
}

// deciding makes a guard whose decisions are kept.
func deciding(tb testing.TB, issuer *m2mauthtest.Issuer, change ...func(*m2mauth.Config)) (*m2mauth.Guard, *decisions) {
	kept := new(decisions)
	return testguard.Quiet(tb, issuer, append(change, func(c *m2mauth.Config) { c.OnDecision = kept.add })...), kept
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
				token.Audience = testguard.Shop
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
			token := issuer.Token(testguard.Shop)
			return []string{"Bearer " + token[:strings.LastIndexByte(token, '.')+1] + strings.Repeat("A", 128)}
		}, false},
		"insufficient_scope": {read, signed(m2mauthtest.Token{Scopes: []string{"write"}}), true},
		"forbidden":          {m2mauth.UserToken(), signed(reader), true},
		"internal_error":     {fails, signed(reader), true},
		"temporarily_unavailable": {read, func(issuer *m2mauthtest.Issuer) []string {
			issuer.Intercept(func(http.Handler) http.Handler { return http.NotFoundHandler() })
			return []string{"Bearer " + issuer.Token(testguard.Shop, "read")}
		}, false},
		"too_many_requests": {}, // TestABusySourceIsTold
		"token_revoked":     {}, // TestWhatARevokedTokenIsAnswered
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
			_, err := guard.Check(testguard.RequestWith(test.fields(issuer)...), test.rule)
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
			token := issuer.Token(testguard.Shop)
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

	_, err := guard.Verify(t.Context(), issuer.Token(testguard.Shop))
	require.NoError(t, err)
	assert.Equal(t, "AnyToken()", kept.only(t).Rule.String())

	_, err = guard.CheckRequest(t.Context(), testguard.Headers{}, m2mauth.MachineToken())
	require.Error(t, err)
	assert.EqualValues(t, "no_access_token", kept.only(t).Outcome)

	w := httptest.NewRecorder()
	guard.Require("read")(http.NotFoundHandler()).ServeHTTP(w, testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop)))
	d := kept.only(t)
	assert.Equal(t, `AllScopes("read")`, d.Rule.String())
	assert.Equal(t, 403, d.Err.Status)
	header, _ := d.Err.Response()
	assert.Equal(t, w.Header().Get("WWW-Authenticate"), header.Get("WWW-Authenticate"))
	guard.WriteError(httptest.NewRecorder(), testguard.RequestWith(), d.Err)
	assert.Empty(t, kept.list, "an answer is no decision")
}

func TestDecisionsSayWhetherTheTokenWasRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard, kept := deciding(t, issuer)
		token := issuer.Token(testguard.Shop, "read")
		ask := func(scope string) m2mauth.Decision {
			_, _ = guard.Check(testguard.RequestWith("Bearer "+token), m2mauth.AllScopes(scope))
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
		token := issuer.Token(testguard.Shop)
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
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
		c.OnDecision = func(ctx context.Context, _ m2mauth.Decision) { seen = ctx.Value(key{}) }
	})
	r := testguard.RequestWith()
	_, _ = guard.Check(r.WithContext(context.WithValue(r.Context(), key{}, "this request")), m2mauth.AnyToken())
	assert.Equal(t, "this request", seen)
}

func TestAMistakeInOnDecisionIsNotTheCallersProblem(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	book := new(logBook)
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
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
		api.ServeHTTP(w, testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, test.scope)))
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
		{"Revoked", m2mauth.AnyToken(), m2mauthtest.Token{}, func(c *m2mauth.Config) {
			c.Revoked = func(context.Context, m2mauth.Claims) (bool, error) { panic(mistake) }
		}, true},
		{"QueueKey", m2mauth.AnyToken(), m2mauthtest.Token{}, func(c *m2mauth.Config) {
			c.QueueKey = func(m2mauth.Request) string { panic(mistake) }
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			issuer, kept := m2mauthtest.NewIssuer(), new(decisions)
			guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
				if c.OnDecision = kept.add; test.change != nil {
					test.change(c)
				}
			})
			test.token.Audience = testguard.Shop
			r := testguard.RequestWith("Bearer " + issuer.Sign(test.token))
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
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
		c.OnDecision = func(_ context.Context, d m2mauth.Decision) {
			if !d.Claims.IsZero() && d.Outcome == "allowed" {
				count[0].Add(1)
			} else {
				count[1].Add(1)
			}
		}
	})
	good, bad := issuer.Token(testguard.Shop, "read"), issuer.Token(testguard.Shop)
	var all sync.WaitGroup
	for n := range 200 {
		token := []string{good, bad}[n%2]
		all.Go(func() { _, _ = guard.Check(testguard.RequestWith("Bearer "+token), m2mauth.AllScopes("read")) })
	}
	all.Wait()
	assert.EqualValues(t, 100, count[0].Load())
	assert.EqualValues(t, 100, count[1].Load())
}

// Not parallel: it counts allocations of the process.
func TestDecisionsCostNothingWhereNobodyIsTold(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	allocations := func(change func(*m2mauth.Config)) float64 {
		guard := testguard.Quiet(t, issuer, change)
		r, rule := testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, "read")), m2mauth.AllScopes("read")
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

const noteOfWarnings = "more of this kind go to Debug for a minute"

// A flood cannot hide behind the one probe that came before it.
func TestTheTenthAndTheHundredthRefusalAreLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		guard, book := loggedGuard(t, m2mauthtest.NewIssuer())
		var warned []int64
		for n := range 1100 {
			_, _ = guard.Verify(t.Context(), "opaque")
			for _, entry := range book.take() {
				if entry.level == slog.LevelDebug {
					assert.NotContains(t, entry.attrs, "note")
					assert.NotContains(t, entry.attrs, "in_this_minute")
					continue
				}
				assert.Equal(t, slog.LevelWarn, entry.level)
				assert.Equal(t, noteOfWarnings, entry.attrs["note"])
				if n == 0 {
					assert.NotContains(t, entry.attrs, "in_this_minute")
				} else {
					assert.EqualValues(t, n+1, entry.attrs["in_this_minute"])
				}
				warned = append(warned, int64(n+1))
			}
		}
		assert.Equal(t, []int64{1, 10, 100, 1000}, warned)

		time.Sleep(time.Minute)
		_, _ = guard.Verify(t.Context(), "opaque")
		first := book.take()[0]
		assert.EqualValues(t, 1096, first.attrs["before"], "those at Debug")
		assert.NotContains(t, first.attrs, "in_this_minute", "a new minute counts anew")
		for range 9 {
			_, _ = guard.Verify(t.Context(), "opaque")
		}
		assert.EqualValues(t, 10, book.take()[8].attrs["in_this_minute"])
	})
}

// What a second mistake says is not hidden by the first of the same kind.
func TestEachReasonOfAKindHasAMinuteOfItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard, book := loggedGuard(t, issuer)
		levels := func(check func(*http.Request) error, token m2mauthtest.Token) (levels []slog.Level) {
			t.Helper()
			token.Audience = testguard.Shop
			for range 2 {
				require.Error(t, check(testguard.RequestWith("Bearer "+issuer.Sign(token))))
			}
			for _, entry := range book.take() {
				levels = append(levels, entry.level)
			}
			return levels
		}
		rule := func(rule m2mauth.Rule) func(*http.Request) error {
			return func(r *http.Request) error { _, err := guard.Check(r, rule); return err }
		}
		for name, test := range map[string]struct {
			check func(*http.Request) error
			token m2mauthtest.Token
		}{
			"no sub":           {rule(m2mauth.AnyToken()), m2mauthtest.Token{Claims: map[string]any{"sub": nil}}},
			"no jti":           {rule(m2mauth.AnyToken()), m2mauthtest.Token{Claims: map[string]any{"jti": nil}}},
			"jti is a number":  {rule(m2mauth.AnyToken()), m2mauthtest.Token{Claims: map[string]any{"jti": 1}}},
			"the wrong kind":   {rule(m2mauth.UserToken()), m2mauthtest.Token{}},
			"the wrong client": {rule(m2mauth.ClientID("billing")), m2mauthtest.Token{}},
			"a claim":          {rule(m2mauth.HasClaim("department", "sales")), m2mauthtest.Token{}},
			"an organization":  {rule(m2mauth.AnyToken()), m2mauthtest.Token{OrganizationID: "acme"}},
			"no organization":  {rule(m2mauth.OrganizationHeader("X-Organization")), m2mauthtest.Token{}},
			"found none":       {rule(m2mauth.OrganizationHeader("X-Organization")), m2mauthtest.Token{OrganizationID: "acme"}},
			"another one": {func(r *http.Request) error {
				r.Header.Set("X-Organization", "globex")
				return rule(m2mauth.OrganizationHeader("X-Organization"))(r)
			}, m2mauthtest.Token{OrganizationID: "acme"}},
			"a scope of several": {rule(m2mauth.AllScopes("a", "b")), m2mauthtest.Token{Scopes: []string{"a"}}},
			"no scopes":          {rule(m2mauth.AllScopes("a", "b")), m2mauthtest.Token{}},
		} {
			assert.Equal(t, []slog.Level{slog.LevelWarn, slog.LevelDebug}, levels(test.check, test.token), name)
		}

		n := 0
		deny := m2mauth.Custom("denies", func(context.Context, m2mauth.Claims, m2mauth.Request) error {
			n++
			return m2mauth.Deny(fmt.Sprintf("order %d is not yours", n))
		})
		assert.Equal(t, []slog.Level{slog.LevelWarn, slog.LevelDebug}, levels(rule(deny), m2mauthtest.Token{}), "all texts of Deny are one reason")
		assert.Equal(t, []slog.Level{slog.LevelDebug, slog.LevelDebug}, levels(rule(deny), m2mauthtest.Token{}))
	})
}

func TestInternalErrorsAreLoggedAtErrorEachTime(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, book := loggedGuard(t, issuer)
	fail := m2mauth.Custom("fails", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return errors.New("no database") })
	r := testguard.RequestWith("Bearer " + issuer.Token(testguard.Shop))
	r.Pattern = "GET /products"
	for range 12 {
		_, err := guard.Check(r, fail)
		require.ErrorIs(t, err, m2mauth.ErrInternal)
	}
	entries := book.take()
	require.Len(t, entries, 12)
	for _, entry := range entries {
		assert.Equal(t, slog.LevelError, entry.level)
		assert.NotContains(t, entry.attrs, "note", "none goes to Debug")
		assert.Equal(t, "GET /products", entry.attrs["pattern"])
		assert.Equal(t, "m2mauthtestapp0000000", entry.attrs["client_id"])
	}
}

func TestARefusalNamesTheRouteAndTheClientOfAVerifiedToken(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, book := loggedGuard(t, issuer)
	mux := http.NewServeMux()
	mux.Handle("GET /products/{id}", guard.Require("read")(http.NotFoundHandler()))
	for _, test := range []struct {
		name   string
		field  string
		client any
	}{
		{"no token", "Basic YTpi", nil},
		{"an opaque token", "Bearer opaque", nil},
		{"an expired token", "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, AppID: "app", Expired: true}), nil},
		{"a forged token", "Bearer " + tampered(issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, AppID: "app"})), nil},
		{"no scope", "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, AppID: "app"}), "app"},
		{"an organization's token", "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, AppID: "app", OrganizationID: "acme"}), "app"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/products/1", nil)
		r.Header.Set("Authorization", test.field)
		mux.ServeHTTP(httptest.NewRecorder(), r)
		entries := book.take()
		require.Len(t, entries, 1, test.name)
		assert.Equal(t, "GET /products/{id}", entries[0].attrs["pattern"], test.name)
		assert.Equal(t, test.client, entries[0].attrs["client_id"], test.name)
	}

	w := httptest.NewRecorder()
	r := testguard.RequestWith()
	r.Pattern = "/own"
	guard.WriteError(w, r, errors.New("not ours"))
	assert.Equal(t, "/own", book.take()[0].attrs["pattern"], "of another's error too")
	_, err := guard.Check(testguard.RequestWith("Bearer opaque"), m2mauth.AnyToken())
	require.Error(t, err)
	assert.NotContains(t, book.take()[0].attrs, "pattern", "there is none")
}

// brokenPattern has a name for the log that cannot be read.
type brokenPattern struct{ testguard.Headers }

func (brokenPattern) Pattern() string { panic("broken") }

func TestAPatternThatPanicsChangesNoRefusal(t *testing.T) {
	t.Parallel()
	guard, book := loggedGuard(t, m2mauthtest.NewIssuer())
	_, err := guard.CheckRequest(t.Context(), brokenPattern{}, m2mauth.AnyToken())
	require.ErrorIs(t, err, m2mauth.ErrNoToken)
	assert.Len(t, book.take(), 1)
}

// The usual mistake of an organization rule is that the route lacks the wildcard.
func TestARefusalSaysWhereAnOrganizationRuleFoundNone(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	token := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, OrganizationID: "acme"})
	for _, test := range []struct {
		name   string
		rule   m2mauth.Rule
		fields []string // X-Organization
		want   map[string]any
	}{
		{"a wildcard", m2mauth.OrganizationPath("org"), nil, map[string]any{"wildcard": "org", "value": ""}},
		{"a field", m2mauth.OrganizationHeader("X-Organization"), nil, map[string]any{"field": "X-Organization", "value": ""}},
		{"a field that came twice", m2mauth.OrganizationHeader("X-Organization"), []string{"acme", "acme"}, map[string]any{"field": "X-Organization", "value": ""}},
		{"a function", m2mauth.Organization(func(m2mauth.Request) string { return "" }), nil, map[string]any{"value": ""}},
		{"in a larger rule", m2mauth.AllOf(m2mauth.AnyToken(), m2mauth.OrganizationPath("org")), nil, map[string]any{"wildcard": "org", "value": ""}},
		{"another organization", m2mauth.OrganizationHeader("X-Organization"), []string{"other"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			guard, book := loggedGuard(t, issuer)
			r := testguard.RequestWith("Bearer " + token)
			r.Header["X-Organization"] = test.fields
			_, err := guard.Check(r, test.rule)
			require.ErrorIs(t, err, m2mauth.ErrForbidden)
			attrs := book.take()[0].attrs
			for _, name := range []string{"wildcard", "field", "value"} {
				assert.Equal(t, test.want[name], attrs[name], name)
			}
			assert.Equal(t, "acme", attrs["organization_id"])
		})
	}
}

// A caller who goes away must not hide that the issuer is down.
func TestACallerThatWentHidesNoOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		issuer.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(time.Second)
				w.WriteHeader(http.StatusBadGateway)
			})
		})
		guard, book := loggedGuard(t, issuer)
		token := issuer.Token(testguard.Shop)
		gone, cancel := context.WithCancel(t.Context())
		go func() { _, _ = guard.Verify(gone, token) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		_, err := guard.Verify(t.Context(), token)
		require.ErrorIs(t, err, m2mauth.ErrUnavailable)
		var levels []slog.Level
		for _, entry := range book.take() {
			if entry.attrs["msg"] == "m2mauth: request refused" {
				levels = append(levels, entry.level)
			}
		}
		assert.Equal(t, []slog.Level{slog.LevelWarn, slog.LevelWarn}, levels)
	})
}

// Made-up key IDs cause 503s of their own, which must not hide that the issuer is down.
func TestMadeUpKeyIDsHideNoOutage(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard, book := loggedGuard(t, issuer)
		warned := func() (causes []string) {
			for _, entry := range book.take() {
				if entry.attrs["msg"] == "m2mauth: request refused" && entry.level == slog.LevelWarn && fmt.Sprint(entry.attrs["status"]) == "503" {
					causes = append(causes, fmt.Sprint(entry.attrs["cause"]))
				}
			}
			return causes
		}
		madeUp := func(kid string) string {
			return issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"kid": kid}})
		}
		for n := range 4 {
			_, err := guard.Verify(t.Context(), madeUp(fmt.Sprint(n)))
			require.Error(t, err)
		}
		require.Len(t, warned(), 1)
		testguard.KeysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusBadGateway) })
		time.Sleep(10 * time.Second)
		_, err := guard.Verify(t.Context(), madeUp("another"))
		require.ErrorIs(t, err, m2mauth.ErrUnavailable)
		causes := warned()
		require.Len(t, causes, 1)
		assert.Contains(t, causes[0], "502")
	})
}
