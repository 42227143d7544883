package m2mauth_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

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
			token.Audience = shop
			for range 2 {
				require.Error(t, check(requestWith("Bearer "+issuer.Sign(token))))
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
	r := requestWith("Bearer " + issuer.Token(shop))
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
		{"an expired token", "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: shop, AppID: "app", Expired: true}), nil},
		{"a forged token", "Bearer " + tampered(issuer.Sign(m2mauthtest.Token{Audience: shop, AppID: "app"})), nil},
		{"no scope", "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: shop, AppID: "app"}), "app"},
		{"an organization's token", "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: shop, AppID: "app", OrganizationID: "acme"}), "app"},
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
	r := requestWith()
	r.Pattern = "/own"
	guard.WriteError(w, r, errors.New("not ours"))
	assert.Equal(t, "/own", book.take()[0].attrs["pattern"], "of another's error too")
	_, err := guard.Check(requestWith("Bearer opaque"), m2mauth.AnyToken())
	require.Error(t, err)
	assert.NotContains(t, book.take()[0].attrs, "pattern", "there is none")
}

// brokenPattern has a name for the log that cannot be read.
type brokenPattern struct{ headers }

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
	token := issuer.Sign(m2mauthtest.Token{Audience: shop, OrganizationID: "acme"})
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
			r := requestWith("Bearer " + token)
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
		token := issuer.Token(shop)
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
	keysBubble(t, func(t *testing.T) {
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
			return issuer.Sign(m2mauthtest.Token{Audience: shop, Header: map[string]any{"kid": kid}})
		}
		for n := range 4 {
			_, err := guard.Verify(t.Context(), madeUp(fmt.Sprint(n)))
			require.Error(t, err)
		}
		require.Len(t, warned(), 1)
		keysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusBadGateway) })
		time.Sleep(10 * time.Second)
		_, err := guard.Verify(t.Context(), madeUp("another"))
		require.ErrorIs(t, err, m2mauth.ErrUnavailable)
		causes := warned()
		require.Len(t, causes, 1)
		assert.Contains(t, causes[0], "502")
	})
}
