package m2mauth_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
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

// revoker is a Config.Revoked whose answer a test sets, and which counts the questions.
type revoker struct {
	revoked bool
	err     error
	asked   atomic.Int64
}

func (r *revoker) ask(context.Context, m2mauth.Claims) (bool, error) {
	r.asked.Add(1)
	return r.revoked, r.err
}

func (r *revoker) set(c *m2mauth.Config) { c.Revoked = r.ask }

// waysIn are all ways to get claims of a token, by a rule that needs the scope read but
// for Verify.
var waysIn = map[string]func(*m2mauth.Guard, string) (m2mauth.Claims, error){
	"Require": func(g *m2mauth.Guard, token string) (m2mauth.Claims, error) {
		var claims m2mauth.Claims
		w := httptest.NewRecorder()
		g.Require("read")(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			claims, _ = m2mauth.FromContext(r.Context())
		})).ServeHTTP(w, testguard.RequestWith("Bearer "+token))
		if w.Code != http.StatusOK {
			return claims, errors.New(w.Header().Get("WWW-Authenticate"))
		}
		return claims, nil
	},
	"Check": func(g *m2mauth.Guard, token string) (m2mauth.Claims, error) {
		return g.Check(testguard.RequestWith("Bearer "+token), m2mauth.AllScopes("read"))
	},
	"CheckRequest": func(g *m2mauth.Guard, token string) (m2mauth.Claims, error) {
		fields := http.Header{"Authorization": {"Bearer " + token}}
		return g.CheckRequest(context.Background(), testguard.Headers{Fields: fields}, m2mauth.AllScopes("read"))
	},
	"Check of an optional rule": func(g *m2mauth.Guard, token string) (m2mauth.Claims, error) {
		return g.Check(testguard.RequestWith("Bearer "+token), m2mauth.Optional(m2mauth.AllScopes("read")))
	},
	"Verify": func(g *m2mauth.Guard, token string) (m2mauth.Claims, error) {
		return g.Verify(context.Background(), token)
	},
	"Verify of an enforcing guard": func(g *m2mauth.Guard, token string) (m2mauth.Claims, error) {
		return g.Enforcing().Verify(context.Background(), token)
	},
	"a table of routes": func(g *m2mauth.Guard, token string) (m2mauth.Claims, error) {
		var claims m2mauth.Claims
		mux := http.NewServeMux()
		mux.HandleFunc("GET /products", func(_ http.ResponseWriter, r *http.Request) { claims, _ = m2mauth.FromContext(r.Context()) })
		api, err := g.Routes(mux, map[string]m2mauth.Rule{"GET /products": m2mauth.AllScopes("read")})
		if err != nil {
			return claims, err
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, testguard.RequestWith("Bearer "+token))
		if w.Code != http.StatusOK {
			return claims, errors.New(w.Header().Get("WWW-Authenticate"))
		}
		return claims, nil
	},
}

func TestEveryUseOfAVerifiedTokenIsAskedWhetherItWasRevoked(t *testing.T) {
	t.Parallel()
	for name, use := range waysIn {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issuer, r := m2mauthtest.NewIssuer(), new(revoker)
			guard := testguard.Quiet(t, issuer, r.set)
			token := issuer.Token(testguard.Shop, "read")
			for n := range 3 { // new, and then remembered
				claims, err := use(guard, token)
				require.NoError(t, err)
				assert.False(t, claims.IsZero())
				assert.EqualValues(t, n+1, r.asked.Load())
			}
			r.revoked = true
			claims, err := use(guard, token)
			require.ErrorContains(t, err, "the token has been revoked")
			assert.True(t, claims.IsZero())
			assert.EqualValues(t, 4, r.asked.Load())

			r.revoked, r.err = false, errors.New("no list yet")
			claims, err = use(guard, token)
			require.Error(t, err)
			assert.True(t, claims.IsZero())

			r.err = nil
			_, err = use(guard, token)
			require.NoError(t, err, "and it is taken again")
		})
	}
}

func TestWhoeverIsAskedGetsTheClaimsAndTheRequestsContext(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "of the request")
	asked := 0
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
		c.Revoked = func(ctx context.Context, claims m2mauth.Claims) (bool, error) {
			asked++
			assert.Equal(t, "of the request", ctx.Value(key{}))
			_, limited := ctx.Deadline()
			assert.False(t, limited)
			assert.Equal(t, "app", claims.ClientID())
			return false, nil
		}
	})
	token := issuer.Sign(m2mauthtest.Token{AppID: "app", Audience: testguard.Shop})
	_, err := guard.Check(testguard.RequestWith("Bearer "+token).WithContext(ctx), m2mauth.AnyToken())
	require.NoError(t, err)
	claims, err := guard.Verify(ctx, token)
	require.NoError(t, err)
	_, err = guard.Recheck(ctx, claims)
	require.NoError(t, err)
	assert.Equal(t, 3, asked)
}

// Whoever answers must not be asked about what anybody can make up.
func TestNobodyIsAskedAboutATokenThatWasNotVerified(t *testing.T) {
	t.Parallel()
	issuer, other := m2mauthtest.NewIssuer(), m2mauthtest.NewIssuer()
	r := &revoker{revoked: true}
	guard := testguard.Quiet(t, issuer, r.set)
	good := issuer.Token(testguard.Shop, "read")
	for name, test := range map[string]struct {
		fields []string
		want   error
	}{
		"none":                {nil, m2mauth.ErrNoToken},
		"two":                 {[]string{"Bearer " + good, "Bearer " + good}, m2mauth.ErrRequest},
		"rubbish":             {[]string{"Bearer rubbish"}, m2mauth.ErrMalformed},
		"forged":              {[]string{"Bearer " + tampered(good)}, m2mauth.ErrSignature},
		"expired":             {[]string{"Bearer " + issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Expired: true})}, m2mauth.ErrExpired},
		"for another API":     {[]string{"Bearer " + issuer.Token("https://other.api")}, m2mauth.ErrAudience},
		"of another's keys":   {[]string{"Bearer " + other.Token(testguard.Shop)}, m2mauth.ErrUnknownKey},
		"forged but well put": {[]string{"Bearer " + other.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"kid": issuer.KeyIDs()[0]}})}, m2mauth.ErrSignature},
	} {
		_, err := guard.Check(testguard.RequestWith(test.fields...), m2mauth.AnyToken())
		assert.ErrorIs(t, err, test.want, name)
	}
	claims, err := guard.Check(testguard.RequestWith(), m2mauth.Optional(m2mauth.AnyToken()))
	require.NoError(t, err)
	assert.True(t, claims.IsZero())
	assert.Zero(t, r.asked.Load())
}

func TestWhatARevokedTokenIsAnswered(t *testing.T) {
	t.Parallel()
	const secret = "redis://admin:hunter2@store"
	for _, test := range []struct {
		name       string
		revoked    bool
		failure    error
		rule       m2mauth.Rule
		kind       m2mauth.ErrorKind
		status     int
		challenge  string
		retryAfter string
		body       string
	}{
		{"revoked", true, nil, m2mauth.AllScopes("read"), m2mauth.ErrRevoked, 401,
			`Bearer realm="` + testguard.Shop + `", error="invalid_token", error_description="the token has been revoked", scope="read"`, "",
			`{"error":"invalid_token","error_description":"the token has been revoked"}` + "\n"},
		{"revoked, before a rule that it does not meet", true, nil, m2mauth.ClientID("another"), m2mauth.ErrRevoked, 401,
			`Bearer realm="` + testguard.Shop + `", error="invalid_token", error_description="the token has been revoked"`, "",
			`{"error":"invalid_token","error_description":"the token has been revoked"}` + "\n"},
		{"revoked, with an optional rule", true, nil, m2mauth.Optional(m2mauth.AnyToken()), m2mauth.ErrRevoked, 401,
			`Bearer realm="` + testguard.Shop + `", error="invalid_token", error_description="the token has been revoked"`, "",
			`{"error":"invalid_token","error_description":"the token has been revoked"}` + "\n"},
		{"nobody knows", false, errors.New(secret), m2mauth.AllScopes("read"), m2mauth.ErrUnavailable, 503, "", "1",
			`{"error":"temporarily_unavailable","error_description":"whether the token was revoked cannot be checked at the moment: try again later"}` + "\n"},
		{"revoked, and an error", true, errors.New(secret), m2mauth.AnyToken(), m2mauth.ErrUnavailable, 503, "", "1",
			`{"error":"temporarily_unavailable","error_description":"whether the token was revoked cannot be checked at the moment: try again later"}` + "\n"},
		{"an error of a kind that is not this one's", false, &m2mauth.Error{Kind: m2mauth.ErrForbidden, Status: 200, Description: secret}, m2mauth.AnyToken(), m2mauth.ErrUnavailable, 503, "", "1",
			`{"error":"temporarily_unavailable","error_description":"whether the token was revoked cannot be checked at the moment: try again later"}` + "\n"},
		{"an error of Deny", false, m2mauth.Deny(secret), m2mauth.AnyToken(), m2mauth.ErrUnavailable, 503, "", "1",
			`{"error":"temporarily_unavailable","error_description":"whether the token was revoked cannot be checked at the moment: try again later"}` + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			issuer, r := m2mauthtest.NewIssuer(), &revoker{revoked: test.revoked, err: test.failure}
			guard, kept := deciding(t, issuer, r.set)
			book := new(logBook)
			loud := testguard.Quiet(t, issuer, r.set, func(c *m2mauth.Config) { c.Logger = slog.New(book) })
			token := issuer.Sign(m2mauthtest.Token{AppID: "leaked", Audience: testguard.Shop, Scopes: []string{"read"}})
			for n := range 2 {
				w := httptest.NewRecorder()
				guard.RequireRule(test.rule)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
					t.Error("the handler was reached")
				})).ServeHTTP(w, testguard.RequestWith("Bearer "+token))
				assert.Equal(t, test.status, w.Code)
				assert.Equal(t, test.challenge, w.Header().Get("WWW-Authenticate"))
				assert.Equal(t, test.retryAfter, w.Header().Get("Retry-After"))
				assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
				assert.Equal(t, test.body, w.Body.String())
				d := kept.only(t)
				assert.EqualValues(t, test.kind, d.Outcome)
				require.ErrorIs(t, d.Err, test.kind)
				assert.Equal(t, "leaked", d.Claims.ClientID(), "the token was verified")
				assert.Equal(t, n > 0, d.Remembered)
			}

			_, err := loud.Check(testguard.RequestWith("Bearer "+token), test.rule)
			require.ErrorIs(t, err, test.kind)
			require.NotErrorIs(t, err, m2mauth.ErrForbidden)
			if test.failure != nil {
				require.ErrorIs(t, err, test.failure, "for the program that calls Check")
			}
			var lines []logEntry
			for _, entry := range book.take() {
				if entry.attrs["msg"] == "m2mauth: request refused" {
					lines = append(lines, entry)
				}
			}
			require.Len(t, lines, 1)
			assert.Equal(t, slog.LevelWarn, lines[0].level)
			assert.Equal(t, "leaked", lines[0].attrs["client_id"])
			if test.failure != nil {
				assert.Contains(t, lines[0].attrs["cause"], "Config.Revoked: ")
				assert.Contains(t, lines[0].attrs["cause"], secret)
			}
		})
	}
}

// Neither 100 texts nor callers that leave may hide that the list fails.
func TestACallerThatLeavesHidesNoFailureOfRevoked(t *testing.T) {
	t.Parallel()
	issuer, book := m2mauthtest.NewIssuer(), new(logBook)
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
		c.Logger = slog.New(book)
		c.Revoked = func(ctx context.Context, _ m2mauth.Claims) (bool, error) {
			if ctx.Err() != nil {
				return false, errors.New("the store did not answer")
			}
			return false, errors.New("the list is too old")
		}
	})
	token := issuer.Token(testguard.Shop)
	_, err := guard.Verify(t.Context(), token) // so that it is known
	require.ErrorIs(t, err, m2mauth.ErrUnavailable)
	book.take()
	for _, gone := range []error{errors.New("the caller hung up"), errors.New("its connection broke"), nil} {
		ctx, leave := context.WithCancelCause(t.Context())
		if gone != nil {
			leave(gone)
		}
		_, err := guard.Verify(ctx, token)
		require.ErrorIs(t, err, m2mauth.ErrUnavailable)
		assert.Equal(t, gone != nil, errors.Is(err, gone) && gone != nil)
		leave(nil)
	}
	var levels []slog.Level
	for _, entry := range book.take() {
		levels = append(levels, entry.level)
	}
	assert.Equal(t, []slog.Level{slog.LevelWarn, slog.LevelDebug, slog.LevelDebug}, levels, "callers that leave count on their own")
}

func TestTheFirstGuardIsAskedForTokensOfAllIssuers(t *testing.T) {
	t.Parallel()
	one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
	var asked []string
	both := joined(t, one.guard(t, func(c *m2mauth.Config) {
		c.Revoked = func(_ context.Context, claims m2mauth.Claims) (bool, error) {
			asked = append(asked, claims.Issuer())
			return claims.Issuer() == two.name, nil
		}
	}), two.guard(t))
	_, err := both.Verify(t.Context(), one.token())
	require.NoError(t, err)
	_, err = both.Verify(t.Context(), two.token())
	require.ErrorIs(t, err, m2mauth.ErrRevoked)
	_, err = both.Enforcing().Verify(t.Context(), two.token())
	require.ErrorIs(t, err, m2mauth.ErrRevoked)
	assert.Equal(t, []string{one.name, two.name, two.name}, asked)
}

func TestARevokedTokensHandlerGetsNoClaimsInADryRun(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, r, book := m2mauthtest.NewIssuer(), new(revoker), new(logBook)
		guard, decisions := deciding(t, issuer, r.set, reportOnly, func(c *m2mauth.Config) { c.Logger = slog.New(book) })
		require.NoError(t, guard.Warm(t.Context()))
		token := issuer.Sign(m2mauthtest.Token{AppID: "leaked", Audience: testguard.Shop, Scopes: []string{"read"}})
		lines := func() (lines []string) {
			for _, entry := range book.take() {
				lines = append(lines, entry.attrs["msg"].(string))
			}
			return lines
		}
		lines()
		for n, test := range []struct {
			revoked bool
			err     error
			outcome m2mauth.Outcome
		}{{false, nil, m2mauth.Allowed}, {true, nil, m2mauth.Outcome(m2mauth.ErrRevoked)}, {false, errors.New("no list"), m2mauth.Outcome(m2mauth.ErrUnavailable)}} {
			r.revoked, r.err = test.revoked, test.err
			h, found := passing()
			w := httptest.NewRecorder()
			guard.Require("read")(h).ServeHTTP(w, testguard.RequestWith("Bearer "+token))
			assert.Equal(t, http.StatusNoContent, w.Code)
			assert.Equal(t, n > 0, found().IsZero())
			d := decisions.only(t)
			assert.Equal(t, test.outcome, d.Outcome)
			assert.True(t, d.ReportOnly)
			assert.Equal(t, "leaked", d.Claims.ClientID())
			assert.EqualValues(t, n, guard.Stats().WouldRefuse)
			if n == 0 {
				assert.Empty(t, lines())
			} else {
				assert.Equal(t, []string{"m2mauth: request would be refused"}, lines())
			}
			_, err := guard.Verify(t.Context(), token)
			assert.Equal(t, n > 0, err != nil, "Verify always refuses")
			decisions.only(t)
			_, err = guard.Enforcing().Check(testguard.RequestWith("Bearer "+token), m2mauth.AllScopes("read"))
			assert.Equal(t, n > 0, err != nil)
			decisions.only(t)
			lines()
		}
	})
}

func TestADryRunWaits100msForRevoked(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, book := m2mauthtest.NewIssuer(), new(logBook)
		takes := time.Hour
		guard, decisions := deciding(t, issuer, reportOnly, func(c *m2mauth.Config) {
			c.Logger = slog.New(book)
			c.Revoked = func(ctx context.Context, _ m2mauth.Claims) (bool, error) {
				select {
				case <-ctx.Done():
					return false, ctx.Err()
				case <-time.After(takes):
					return false, nil
				}
			}
		})
		require.NoError(t, guard.Warm(t.Context()))
		book.take()
		token := issuer.Token(testguard.Shop, "read")
		check := func(ctx context.Context) (m2mauth.Claims, m2mauth.Decision, time.Duration) {
			begin := time.Now()
			claims, err := guard.Check(testguard.RequestWith("Bearer "+token).WithContext(ctx), m2mauth.AllScopes("read"))
			require.NoError(t, err)
			return claims, decisions.only(t), time.Since(begin)
		}
		claims, d, took := check(t.Context())
		assert.Equal(t, 100*time.Millisecond, took)
		assert.True(t, claims.IsZero())
		assert.Equal(t, m2mauth.Undecided, d.Outcome)
		assert.Zero(t, guard.Stats().WouldRefuse)
		lines := book.take()
		require.Len(t, lines, 1)
		assert.Equal(t, "m2mauth: request passed undecided", lines[0].attrs["msg"])

		leaving, leave := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer leave()
		claims, d, took = check(leaving)
		assert.Equal(t, 50*time.Millisecond, took)
		assert.True(t, claims.IsZero())
		assert.Equal(t, m2mauth.Outcome(m2mauth.ErrUnavailable), d.Outcome)

		takes = 99 * time.Millisecond
		claims, d, _ = check(t.Context())
		assert.False(t, claims.IsZero())
		assert.Equal(t, m2mauth.Allowed, d.Outcome)
	})
}

// Not parallel: it counts allocations of the process.
func TestWhereNobodyIsAskedNothingIsPaid(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	for want, change := range map[float64]func(*m2mauth.Config){
		1: func(*m2mauth.Config) {},
		2: func(c *m2mauth.Config) {
			c.Revoked = func(context.Context, m2mauth.Claims) (bool, error) { return false, nil }
		},
	} {
		guard := testguard.Quiet(t, issuer, change)
		token := issuer.Token(testguard.Shop, "read")
		r, rule := testguard.RequestWith("Bearer "+token), m2mauth.AllScopes("read")
		claims, err := guard.Check(r, rule)
		require.NoError(t, err)
		runtime.GC()
		assert.LessOrEqual(t, testing.AllocsPerRun(200, func() { _, _ = guard.Check(r, rule) }), want)
		assert.Zero(t, testing.AllocsPerRun(200, func() { _, _ = guard.Recheck(t.Context(), claims) }))
	}
}

func TestRecheck(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, r, book := m2mauthtest.NewIssuer(), new(revoker), new(logBook)
		guard, decisions := deciding(t, issuer, r.set, func(c *m2mauth.Config) { c.Leeway, c.Logger = 10*time.Second, slog.New(book) })
		claims, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{AppID: "app", Audience: testguard.Shop, Lifetime: time.Minute}))
		require.NoError(t, err)
		decisions.only(t)
		recheck := func(claims m2mauth.Claims) (time.Duration, error) { return guard.Recheck(t.Context(), claims) }

		for n := range 5 {
			again, err := recheck(claims)
			require.NoError(t, err)
			assert.Equal(t, time.Second, again)
			assert.EqualValues(t, n+2, r.asked.Load())
		}
		book.take()
		r.revoked = true
		_, err = recheck(claims)
		require.ErrorIs(t, err, m2mauth.ErrRevoked)
		lines := book.take()
		require.Len(t, lines, 1)
		assert.Equal(t, "m2mauth: request refused", lines[0].attrs["msg"])
		assert.Equal(t, "app", lines[0].attrs["client_id"])
		var e *m2mauth.Error
		require.ErrorAs(t, err, &e)
		assert.Contains(t, challengeOf(e), `Bearer realm="https://shopping.api", error="invalid_token"`)

		r.err = errors.New("no list")
		_, err = recheck(claims)
		require.ErrorIs(t, err, m2mauth.ErrUnavailable)
		require.ErrorIs(t, err, r.err)
		r.revoked, r.err = false, nil

		_, err = recheck(m2mauth.Claims{})
		require.ErrorIs(t, err, m2mauth.ErrNoToken)
		asked := r.asked.Load()
		other := newTenant("https://other.test/oidc")
		others, err := other.guard(t).Verify(t.Context(), other.token())
		require.NoError(t, err)
		_, err = recheck(others)
		require.ErrorIs(t, err, m2mauth.ErrIssuer)
		assert.Equal(t, asked, r.asked.Load())

		time.Sleep(69*time.Second + 500*time.Millisecond)
		again, err := recheck(claims)
		require.NoError(t, err, "within the leeway")
		assert.Equal(t, 500*time.Millisecond, again)
		time.Sleep(again - time.Nanosecond)
		_, err = recheck(claims)
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = recheck(claims)
		require.ErrorIs(t, err, m2mauth.ErrExpired)
		r.revoked = true
		_, err = recheck(claims)
		require.ErrorIs(t, err, m2mauth.ErrRevoked, "for streams that go on after exp")
		assert.Empty(t, decisions.list, "what goes on is no decision")
	})
}

func TestRecheckIsDueAtTheExpiryWhereNothingCanBeRevoked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard := testguard.Quiet(t, issuer)
		claims, err := guard.Verify(t.Context(), issuer.Token(testguard.Shop))
		require.NoError(t, err)
		again, err := guard.Recheck(t.Context(), claims)
		require.NoError(t, err)
		assert.Equal(t, time.Hour+30*time.Second, again)
		time.Sleep(again)
		_, err = guard.Recheck(t.Context(), claims)
		require.ErrorIs(t, err, m2mauth.ErrExpired)
	})
}

func TestAcceptedUntilIsTheExpiryAndTheIssuersLeeway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard := testguard.Quiet(t, issuer)
		claims, err := guard.Verify(t.Context(), issuer.Token(testguard.Shop))
		require.NoError(t, err)
		assert.Equal(t, claims.ExpiresAt().Add(30*time.Second), guard.AcceptedUntil(claims))
		time.Sleep(time.Until(guard.AcceptedUntil(claims)) - 1)
		_, err = guard.Recheck(t.Context(), claims)
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = guard.Recheck(t.Context(), claims)
		require.ErrorIs(t, err, m2mauth.ErrExpired)

		assert.Zero(t, guard.AcceptedUntil(m2mauth.Claims{}))
		assert.Zero(t, newTenant("https://one.test/oidc").guard(t).AcceptedUntil(claims), "of another issuer")
		assert.Zero(t, (*m2mauth.Guard)(nil).AcceptedUntil(claims))
		assert.Zero(t, new(m2mauth.Guard).AcceptedUntil(claims))
	})
}

func TestOpensSaysWhatCheckWouldAndTellsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		told, until := 0, time.Time{}
		guard := func() *m2mauth.Guard {
			config := issuer.Config(testguard.Shop)
			config.Logger, config.InsecureReportOnlyUntil = slog.New(slog.DiscardHandler), until
			config.OnDecision = func(context.Context, m2mauth.Decision) { told++ }
			g, err := m2mauth.New(config)
			require.NoError(t, err)
			return g
		}
		strict := guard()
		until = time.Now().Add(time.Hour)
		dry := guard()
		read := m2mauth.AllScopes("read")
		for name, test := range map[string]struct {
			token m2mauthtest.Token
			rule  m2mauth.Rule
			want  bool
		}{
			"its scope":            {m2mauthtest.Token{Scopes: []string{"read"}}, read, true},
			"another scope":        {m2mauthtest.Token{Scopes: []string{"write"}}, read, false},
			"the zero rule":        {m2mauthtest.Token{Scopes: []string{"read"}}, m2mauth.Rule{}, false},
			"of an organization":   {m2mauthtest.Token{Scopes: []string{"read"}, OrganizationID: "acme"}, read, false},
			"the organization's":   {m2mauthtest.Token{OrganizationID: "acme"}, m2mauth.OrganizationHeader("X-Organization"), true},
			"what a function says": {m2mauthtest.Token{}, m2mauth.Custom("no", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return m2mauth.Deny("no") }), false},
		} {
			test.token.Audience = testguard.Shop
			r := httptest.NewRequest("GET", "/", nil)
			r.Header = http.Header{"Authorization": {"Bearer " + issuer.Sign(test.token)}, "X-Organization": {"acme"}}
			claims, err := strict.Check(r, m2mauth.AnyOf(m2mauth.AnyToken(), m2mauth.OrganizationHeader("X-Organization")))
			require.NoError(t, err, name)
			_, err = strict.Check(r, test.rule)
			assert.Equal(t, test.want, err == nil, name)
			before := told
			assert.Equal(t, test.want, strict.Opens(r, claims, test.rule), name)
			assert.True(t, dry.Opens(r, claims, test.rule), name)
			assert.Equal(t, before, told, name)
		}
		r := httptest.NewRequest("GET", "/", nil)
		assert.True(t, dry.Opens(r, m2mauth.Claims{}, read), "in a dry run without a token too")
		assert.False(t, strict.Opens(r, m2mauth.Claims{}, m2mauth.AnyToken()))
		assert.True(t, strict.Opens(r, m2mauthtest.Claims(t, "app", "read"), read))
		assert.False(t, newTenant("https://one.test/oidc").guard(t).Opens(r, m2mauthtest.Claims(t, "app", "read"), read), "of another issuer")
		assert.False(t, strict.Opens(nil, m2mauthtest.Claims(t, "app", "read"), read))
		assert.False(t, new(m2mauth.Guard).Opens(r, m2mauthtest.Claims(t, "app", "read"), read))
	})
}

func TestRecheckOfAJoinedGuard(t *testing.T) {
	t.Parallel()
	one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
	three := newTenant("https://three.test/oidc")
	r := new(revoker)
	both := joined(t, one.guard(t, r.set), two.guard(t))
	for _, i := range []tenant{one, two} {
		claims, err := both.Verify(t.Context(), i.token())
		require.NoError(t, err)
		_, err = both.Recheck(t.Context(), claims)
		require.NoError(t, err)
		r.revoked = true
		_, err = both.Recheck(t.Context(), claims)
		require.ErrorIs(t, err, m2mauth.ErrRevoked)
		r.revoked = false
	}
	claims, err := three.guard(t).Verify(t.Context(), three.token())
	require.NoError(t, err)
	_, err = both.Recheck(t.Context(), claims)
	require.ErrorIs(t, err, m2mauth.ErrIssuer)
}

func TestRecheckRefusesNobodyInADryRun(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer, r := m2mauthtest.NewIssuer(), &revoker{revoked: true}
		guard := testguard.Quiet(t, issuer, r.set, func(c *m2mauth.Config) { c.InsecureReportOnlyUntil = time.Now().Add(time.Minute) })
		require.NoError(t, guard.Warm(t.Context()))
		r.revoked = false
		claims, err := guard.Verify(t.Context(), issuer.Token(testguard.Shop))
		require.NoError(t, err)
		r.revoked = true
		for _, c := range []m2mauth.Claims{claims, {}} {
			again, err := guard.Recheck(t.Context(), c)
			require.NoError(t, err)
			assert.Equal(t, time.Second, again)
			_, err = guard.Enforcing().Recheck(t.Context(), c)
			require.Error(t, err)
		}
		time.Sleep(time.Minute)
		_, err = guard.Recheck(t.Context(), claims)
		require.ErrorIs(t, err, m2mauth.ErrRevoked)
		_, err = guard.Recheck(t.Context(), m2mauth.Claims{})
		require.ErrorIs(t, err, m2mauth.ErrNoToken)
	})
}

// A timer may call Recheck, where nothing but it stands between a panic and the end of
// the process.
func TestAPanicOfRevokedIsAnErrorOfRecheck(t *testing.T) {
	t.Parallel()
	issuer, book := m2mauthtest.NewIssuer(), new(logBook)
	var thrown any
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
		c.Logger = slog.New(book)
		c.Revoked = func(context.Context, m2mauth.Claims) (bool, error) {
			if thrown != nil {
				panic(thrown)
			}
			return false, nil
		}
	})
	claims, err := guard.Verify(t.Context(), issuer.Token(testguard.Shop))
	require.NoError(t, err)
	for want, v := range map[string]any{"Config.Revoked panicked with a string": "secret", "Config.Revoked panicked: runtime error: index": mistake()} {
		book.take()
		thrown = v
		again, err := guard.Recheck(t.Context(), claims)
		require.ErrorIs(t, err, m2mauth.ErrInternal)
		assert.Zero(t, again)
		lines := book.take()
		require.Len(t, lines, 1)
		assert.Equal(t, slog.LevelError, lines[0].level)
		assert.Contains(t, lines[0].attrs["cause"], want)
		assert.NotContains(t, lines[0].attrs["cause"], "secret")
	}
}

// mistake returns what the runtime throws.
func mistake() (v any) {
	defer func() { v = recover() }()
	var none []int
	return none[len(os.Args)]
}

func TestRecheckOfAGuardThatIsNone(t *testing.T) {
	t.Parallel()
	for _, none := range []*m2mauth.Guard{nil, new(m2mauth.Guard)} {
		_, err := none.Recheck(t.Context(), m2mauthtest.Claims(t, "app"))
		require.ErrorIs(t, err, m2mauth.ErrInternal)
	}
}
