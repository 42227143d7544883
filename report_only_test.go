package m2mauth_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const day = 24 * time.Hour

// reportOnly is a change of a Config.
func reportOnly(c *m2mauth.Config) { c.InsecureReportOnlyUntil = time.Now().Add(10 * day) }

// passing makes a handler that answers with 204 and what claims it found.
func passing() (h http.Handler, found func() m2mauth.Claims) {
	var claims m2mauth.Claims
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ = m2mauth.FromContext(r.Context())
		w.WriteHeader(http.StatusNoContent)
	}), func() m2mauth.Claims { return claims }
}

func TestWhatWouldBeRefusedPassesAndIsTold(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		book := new(logBook)
		guard, decisions := deciding(t, issuer, reportOnly, func(c *m2mauth.Config) { c.Logger = slog.New(book) })
		require.NoError(t, guard.Warm(t.Context()))
		good := issuer.Token(testguard.Shop, "read")
		outer := m2mauth.NewContext(t.Context(), m2mauthtest.Claims(t, "somebody-else"))
		book.take()
		wouldRefuse := uint64(0)
		for name, test := range map[string]struct {
			fields  []string
			outcome m2mauth.Outcome
			claims  bool
		}{
			"nothing":             {nil, "no_access_token", false},
			"two fields":          {[]string{"Bearer " + good, "Bearer " + good}, "malformed_credentials", false},
			"rubbish":             {[]string{"Bearer rubbish"}, "malformed_token", false},
			"forged":              {[]string{"Bearer " + tampered(good)}, "wrong_signature", false},
			"expired":             {[]string{"Bearer " + issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Scopes: []string{"read"}, Claims: map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}})}, "token_expired", false},
			"for another API":     {[]string{"Bearer " + issuer.Token("https://other.api", "read")}, "wrong_audience", false},
			"lacks the scope":     {[]string{"Bearer " + issuer.Token(testguard.Shop, "write")}, "insufficient_scope", true},
			"for an organization": {[]string{"Bearer " + issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Scopes: []string{"read"}, Claims: map[string]any{"organization_id": "acme"}})}, "forbidden", true},
			"good":                {[]string{"Bearer " + good}, "allowed", true},
		} {
			for way, send := range map[string]func() (m2mauth.Claims, error){
				"Require": func() (m2mauth.Claims, error) {
					w := httptest.NewRecorder()
					h, found := passing()
					guard.Require("read")(h).ServeHTTP(w, testguard.RequestWith(test.fields...).WithContext(outer))
					assert.Equal(t, http.StatusNoContent, w.Code, name)
					assert.Empty(t, w.Header(), name)
					return found(), nil
				},
				"Check": func() (m2mauth.Claims, error) {
					return guard.Check(testguard.RequestWith(test.fields...).WithContext(outer), m2mauth.AllScopes("read"))
				},
				"CheckRequest": func() (m2mauth.Claims, error) {
					return guard.CheckRequest(outer, testguard.Headers{Fields: http.Header{"Authorization": test.fields}}, m2mauth.AllScopes("read"))
				},
			} {
				claims, err := send()
				require.NoError(t, err, "%s %s", name, way)
				assert.Equal(t, test.claims, !claims.IsZero(), "%s %s", name, way)
				assert.NotEqual(t, "somebody-else", claims.ClientID(), "an outer context's are hidden")
				d := decisions.only(t)
				assert.True(t, d.ReportOnly)
				assert.Equal(t, test.outcome, d.Outcome, "%s %s", name, way)
				assert.Equal(t, test.claims, !d.Claims.IsZero(), name)
				assert.Equal(t, test.outcome == m2mauth.Allowed, d.Err == nil, name)
				if d.Err != nil {
					wouldRefuse++
				}
				for _, entry := range book.take() {
					assert.Equal(t, "m2mauth: request would be refused", entry.attrs["msg"])
				}
				assert.Equal(t, wouldRefuse, guard.Stats().WouldRefuse)
			}
			_, err := guard.Enforcing().Check(testguard.RequestWith(test.fields...), m2mauth.AllScopes("read"))
			assert.Equal(t, test.outcome == m2mauth.Allowed, err == nil, name)
			d := decisions.only(t)
			assert.Equal(t, test.outcome, d.Outcome, "the list is what an enforcing guard refuses")
			assert.False(t, d.ReportOnly)
			book.take()
		}
		assert.EqualValues(t, 24, wouldRefuse)
	})
}

func TestMistakesOfAProgramPassToo(t *testing.T) {
	t.Parallel()
	guard, decisions := deciding(t, m2mauthtest.NewIssuer(), reportOnly)
	ask := func(want m2mauth.Outcome, claims m2mauth.Claims, err error) {
		t.Helper()
		assert.NoError(t, err)
		assert.True(t, claims.IsZero())
		assert.Equal(t, want, decisions.only(t).Outcome)
	}
	claims, err := guard.Check(nil, m2mauth.AnyToken())
	ask("internal_error", claims, err)
	claims, err = guard.CheckRequest(t.Context(), nil, m2mauth.AnyToken())
	ask("internal_error", claims, err)
	claims, err = guard.Check(testguard.RequestWith(), m2mauth.Rule{})
	ask("no_access_token", claims, err)

	assert.Panics(t, func() { guard.RequireRule(m2mauth.Rule{}) }, "a mistake at set-up is one")
	assert.Error(t, guard.ValidateRule(m2mauth.Rule{}))
	for _, none := range []*m2mauth.Guard{nil, new(m2mauth.Guard)} {
		assert.False(t, none.ReportOnly())
		assert.False(t, none.Enforcing().ReportOnly())
		_, err := none.Enforcing().Check(testguard.RequestWith(), m2mauth.AnyToken())
		assert.ErrorIs(t, err, m2mauth.ErrInternal)
	}
}

func TestAPanicOfAUsersFunctionGoesOnInADryRun(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, decisions := deciding(t, issuer, reportOnly)
	require.NoError(t, guard.Warm(t.Context()))
	rule := m2mauth.Custom("panics", func(context.Context, m2mauth.Claims, m2mauth.Request) error { panic("oh") })
	assert.PanicsWithValue(t, "oh", func() { _, _ = guard.Check(testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop)), rule) })
	d := decisions.only(t)
	assert.True(t, d.ReportOnly)
	assert.Equal(t, m2mauth.Outcome(m2mauth.ErrInternal), d.Outcome)

	fails := m2mauth.Custom("fails", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return errors.New("no database") })
	claims, err := guard.Check(testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop)), fails)
	require.NoError(t, err)
	assert.False(t, claims.IsZero())
	assert.Equal(t, m2mauth.Outcome(m2mauth.ErrInternal), decisions.only(t).Outcome)
}

func TestOptionalKeepsItsVaryInADryRun(t *testing.T) {
	t.Parallel()
	guard, decisions := deciding(t, m2mauthtest.NewIssuer(), reportOnly)
	h, _ := passing()
	for want, fields := range map[m2mauth.Outcome][]string{"anonymous": nil, "malformed_token": {"Bearer rubbish"}} {
		w := httptest.NewRecorder()
		guard.RequireRule(m2mauth.Optional(m2mauth.AnyToken()))(h).ServeHTTP(w, testguard.RequestWith(fields...))
		assert.Equal(t, http.StatusNoContent, w.Code)
		assert.Equal(t, http.Header{"Vary": {"Authorization"}}, w.Header())
		assert.Equal(t, want, decisions.only(t).Outcome)
	}
	assert.EqualValues(t, 1, guard.Stats().WouldRefuse)
}

func TestADryRunWaitsForNoKeys(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		book := new(logBook)
		guard, decisions := deciding(t, issuer, reportOnly, func(c *m2mauth.Config) { c.Logger = slog.New(book) })
		good := issuer.Token(testguard.Shop, "read")
		begin := time.Now()
		pass := func(token string) m2mauth.Decision {
			t.Helper()
			claims, err := guard.Check(testguard.RequestWith("Bearer "+token), m2mauth.AllScopes("read"))
			require.NoError(t, err)
			require.Zero(t, time.Since(begin), "waited")
			d := decisions.only(t)
			assert.Equal(t, d.Claims.IsZero(), claims.IsZero())
			return d
		}
		undecided := func(token string) {
			t.Helper()
			d := pass(token)
			assert.Equal(t, m2mauth.Undecided, d.Outcome)
			assert.True(t, d.ReportOnly)
			assert.True(t, d.Claims.IsZero())
			assert.Equal(t, http.StatusServiceUnavailable, d.Err.Status)
		}
		slow := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(time.Second)
				next.ServeHTTP(w, r)
			})
		}
		issuer.Intercept(slow)
		later := func(by time.Duration) { time.Sleep(by); begin = time.Now() }

		undecided(good) // there are no keys yet
		undecided(good)
		assert.Equal(t, 1, guard.Keys().Fetches, "one was started")
		later(3 * time.Second)
		assert.Equal(t, m2mauth.Allowed, pass(good).Outcome)

		later(3 * time.Hour) // keys that expired
		undecided(issuer.Token(testguard.Shop, "read"))
		later(3 * time.Second)
		later(20 * time.Minute) // keys that are stale
		undecided(issuer.Token(testguard.Shop, "read"))
		later(3 * time.Second)
		fetches := guard.Keys().Fetches
		unknown := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"kid": "made up"}})
		undecided(unknown)
		later(3 * time.Second)
		assert.Equal(t, fetches+1, guard.Keys().Fetches)
		assert.Equal(t, m2mauth.Outcome(m2mauth.ErrUnknownKey), pass(unknown).Outcome)
		assert.EqualValues(t, 1, guard.Stats().WouldRefuse, "what is undecided would not be refused for certain")

		// The issuer is down: an enforcing guard would refuse at once.
		issuer.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
		})
		later(3 * time.Hour)
		undecided(issuer.Token(testguard.Shop, "read"))
		later(time.Millisecond)
		assert.Equal(t, m2mauth.Outcome(m2mauth.ErrUnavailable), pass(issuer.Token(testguard.Shop, "read")).Outcome)

		var lines []string
		for _, entry := range book.take() {
			if line := entry.attrs["msg"].(string); strings.Contains(line, "undecided") {
				lines = append(lines, line)
				assert.Contains(t, entry.attrs["cause"], "does not hold up a request")
			}
		}
		assert.Contains(t, lines, "m2mauth: request passed undecided")
	})
}

func TestADryRunWaits100msForAPlace(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		var decisions decisions
		book := new(logBook)
		issuer, guard, release := crowded(t, reportOnly, func(c *m2mauth.Config) { c.OnDecision, c.Logger = decisions.add, slog.New(book) })
		begin := time.Now()
		claims, err := guard.Check(testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, "read")), m2mauth.AllScopes("read"))
		require.NoError(t, err)
		assert.True(t, claims.IsZero())
		assert.Equal(t, 100*time.Millisecond, time.Since(begin))
		d := decisions.only(t)
		assert.Equal(t, m2mauth.Undecided, d.Outcome)
		assert.Zero(t, guard.Stats().WouldRefuse)

		// One that waits with it, and may wait longer, is not refused for it.
		token := issuer.Token(testguard.Shop, "read")
		passed := ask(t.Context(), guard, "192.0.2.1:1", token)
		synctest.Wait()
		enforced := ask(t.Context(), guard.Enforcing(), "192.0.2.1:1", token)
		synctest.Wait()
		shared := ask(t.Context(), guard, "192.0.2.1:1", token)
		begin = time.Now()
		assert.Equal(t, http.StatusOK, (<-passed).Code)
		assert.Equal(t, http.StatusOK, (<-shared).Code)
		assert.Equal(t, 100*time.Millisecond, time.Since(begin))
		time.Sleep(time.Second)
		release()
		assert.Equal(t, http.StatusOK, (<-enforced).Code)

		// A caller that goes away gets what it would get.
		_, leave := m2mauth.HoldPlaces(guard)
		ctx, hangUp := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer hangUp()
		decisions.list = nil
		book.take()
		_, err = guard.Check(testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, "read")).WithContext(ctx), m2mauth.AllScopes("read"))
		require.NoError(t, err)
		assert.Equal(t, m2mauth.Outcome(m2mauth.ErrUnavailable), decisions.only(t).Outcome)
		leave()
		entries := book.take()
		require.Len(t, entries, 1)
		assert.Equal(t, slog.LevelWarn, entries[0].level, "what was undecided before does not hide it")
	})
}

func TestVerifyRefusesInADryRun(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, decisions := deciding(t, issuer, reportOnly)
	require.True(t, guard.ReportOnly())
	_, err := guard.Verify(t.Context(), "rubbish")
	require.ErrorIs(t, err, m2mauth.ErrMalformed)
	assert.False(t, decisions.only(t).ReportOnly)
	_, err = guard.Verify(t.Context(), issuer.Token(testguard.Shop))
	require.NoError(t, err, "and waits for keys")
	assert.Zero(t, guard.Stats().WouldRefuse)
}

func TestAnEnforcingGuardSharesAll(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, reportOnly)
	enforcing := guard.Enforcing()
	assert.True(t, guard.ReportOnly())
	assert.False(t, enforcing.ReportOnly())
	require.NoError(t, enforcing.Warm(t.Context()))
	assert.Equal(t, 1, guard.Keys().Fetches)
	token := "Bearer " + issuer.Token(testguard.Shop, "read")
	_, err := guard.Check(testguard.RequestWith(token), m2mauth.AnyToken())
	require.NoError(t, err)
	_, err = enforcing.Check(testguard.RequestWith(token), m2mauth.AnyToken())
	require.NoError(t, err)
	assert.EqualValues(t, 1, guard.Stats().Hits)
	_, err = guard.Check(testguard.RequestWith(), m2mauth.AnyToken())
	require.NoError(t, err)
	assert.EqualValues(t, 1, enforcing.Stats().WouldRefuse)
	counts := guard.Stats()
	counts.ReportOnlyUntil = time.Time{}
	assert.Equal(t, counts, enforcing.Stats())

	guard.Metadata(m2mauth.MetadataConfig{})
	_, err = enforcing.Check(testguard.RequestWith(), m2mauth.AnyToken())
	require.ErrorIs(t, err, m2mauth.ErrNoToken)
	assert.Contains(t, challengeOf(err), "resource_metadata")

	without := testguard.Quiet(t, issuer)
	assert.False(t, without.ReportOnly())
	_, err = without.Enforcing().Check(testguard.RequestWith(), m2mauth.AnyToken())
	assert.ErrorIs(t, err, m2mauth.ErrNoToken)
}

func TestADryRunEndsAtItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		book := new(logBook)
		issuer := m2mauthtest.NewIssuer()
		until := time.Now().Add(10 * day)
		guard := testguard.Quiet(t, issuer, reportOnly, func(c *m2mauth.Config) { c.Logger = slog.New(book) })
		enforcing := guard.Enforcing()
		refused := func() bool {
			_, err := guard.Check(testguard.RequestWith(), m2mauth.AnyToken())
			return err != nil
		}
		var lines []string
		take := func() []string {
			lines = nil
			for _, entry := range book.take() {
				if line := entry.attrs["msg"].(string); strings.Contains(line, "report-only") {
					assert.Equal(t, slog.LevelWarn, entry.level)
					assert.Equal(t, until.UTC(), entry.attrs["until"])
					lines = append(lines, strings.TrimPrefix(line, "m2mauth: "))
				}
			}
			return lines
		}
		require.Len(t, take(), 1)
		assert.Contains(t, lines[0], "report-only: every request passes until")
		for time.Until(until) > 3*day {
			require.False(t, refused())
			require.True(t, guard.Stats().ReportOnlyUntil.Equal(until))
			require.Zero(t, enforcing.Stats().ReportOnlyUntil)
			require.Empty(t, take())
			time.Sleep(day)
		}
		for range 3 {
			time.Sleep(time.Nanosecond)
			require.False(t, refused())
			require.Len(t, take(), 1)
			assert.Contains(t, lines[0], "report-only ends soon")
			time.Sleep(day - 2*time.Nanosecond)
			require.False(t, refused())
			require.Empty(t, take(), "the first request of a day")
			time.Sleep(time.Nanosecond)
		}
		require.Zero(t, time.Until(until))
		_, err := enforcing.Check(testguard.RequestWith(), m2mauth.AnyToken())
		require.Error(t, err)
		require.Empty(t, take(), "it refused all along")
		require.True(t, refused())
		require.Len(t, take(), 1)
		assert.Equal(t, "report-only has ended: requests are refused from now on", lines[0])
		require.True(t, refused())
		require.Empty(t, take())
		assert.False(t, guard.ReportOnly())
		assert.Zero(t, guard.Stats().ReportOnlyUntil)
	})
}

func TestATimeThatIsPastEnforces(t *testing.T) {
	t.Parallel()
	book := new(logBook)
	for _, until := range []time.Time{time.Now().Add(-time.Second), time.Unix(0, 0), time.Now()} {
		guard, _ := loggedGuard(t, m2mauthtest.NewIssuer(), func(c *m2mauth.Config) {
			c.InsecureReportOnlyUntil, c.Logger = until, slog.New(book)
		})
		assert.False(t, guard.ReportOnly())
		_, err := guard.Check(testguard.RequestWith(), m2mauth.AnyToken())
		assert.ErrorIs(t, err, m2mauth.ErrNoToken)
		entries := book.take()
		require.NotEmpty(t, entries)
		assert.Equal(t, slog.LevelWarn, entries[0].level)
		assert.Contains(t, entries[0].attrs["msg"], "has passed")
	}
}

func TestADryRunLasts90DaysAtMost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := m2mauthtest.NewIssuer().Config(testguard.Shop)
		config.Logger = slog.New(slog.DiscardHandler)
		config.InsecureReportOnlyUntil = time.Now().Add(90 * day)
		_, err := m2mauth.New(config)
		require.NoError(t, err)
		config.InsecureReportOnlyUntil = time.Date(2000, 4, 1, 0, 0, 0, 0, time.UTC)
		_, err = m2mauth.New(config)
		require.EqualError(t, err, "m2mauth: Config.InsecureReportOnlyUntil: 2000-04-01T00:00:00Z is more than 90 days ahead, and until then the guard rejects nobody: choose an earlier date, which you can move later")
		config.InsecureReportOnlyUntil = time.Unix(1<<60, 0)
		_, err = m2mauth.New(config)
		require.ErrorContains(t, err, "more than 90 days ahead")
	})
}

// A joined guard is in the dry run of the first, and they end it together.
func TestJoinedGuardsShareADryRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
		first, second := one.guard(t, reportOnly), two.guard(t)
		all := joined(t, first, second)
		assert.True(t, all.ReportOnly())
		assert.False(t, second.ReportOnly())
		_, err := all.Check(testguard.RequestWith("Bearer rubbish"), m2mauth.AnyToken())
		require.NoError(t, err)
		assert.EqualValues(t, 1, all.Stats().WouldRefuse)
		assert.Zero(t, first.Stats().WouldRefuse)
		assert.False(t, joined(t, first.Enforcing(), second).ReportOnly())
		time.Sleep(10 * day)
		assert.False(t, first.ReportOnly())
		assert.False(t, all.ReportOnly())
	})
}

// A flood of what would be refused neither fills the log nor hides what is.
func TestWhatWouldBeRefusedIsThinnedOnItsOwn(t *testing.T) {
	t.Parallel()
	guard, book := loggedGuard(t, m2mauthtest.NewIssuer(), reportOnly)
	book.take()
	var requests sync.WaitGroup
	for range 50 {
		requests.Go(func() { _, _ = guard.Check(testguard.RequestWith(), m2mauth.AnyToken()) })
	}
	requests.Wait()
	warned := 0
	for _, entry := range book.take() {
		if entry.level == slog.LevelWarn {
			warned++
		}
	}
	assert.Equal(t, 2, warned, "the first and the tenth")
	_, err := guard.Enforcing().Check(testguard.RequestWith(), m2mauth.AnyToken())
	require.Error(t, err)
	entries := book.take()
	require.Len(t, entries, 1)
	assert.Equal(t, slog.LevelWarn, entries[0].level)
	assert.Equal(t, "m2mauth: request refused", entries[0].attrs["msg"])
}
