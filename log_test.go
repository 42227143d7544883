package m2mauth_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
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

// logBook is a [slog.Handler] that keeps every record as a map, with its
// context and its level.
type logBook struct {
	mu      sync.Mutex
	entries []logEntry
}

type logEntry struct {
	level slog.Level
	ctx   context.Context
	attrs map[string]any
}

func (*logBook) Enabled(context.Context, slog.Level) bool { return true }

func (b *logBook) WithAttrs([]slog.Attr) slog.Handler { return b }

func (b *logBook) WithGroup(string) slog.Handler { return b }

func (b *logBook) Handle(ctx context.Context, r slog.Record) error {
	entry := logEntry{level: r.Level, ctx: ctx, attrs: map[string]any{"msg": r.Message}}
	r.Attrs(func(a slog.Attr) bool {
		entry.attrs[a.Key] = a.Value.Resolve().Any()
		return true
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries = append(b.entries, entry)
	return nil
}

// take returns the entries since it was last called, without those that say that
// all is well with the keys: they come when a fetch has ended, and not a request.
func (b *logBook) take() []logEntry {
	b.mu.Lock()
	defer b.mu.Unlock()
	entries := slices.DeleteFunc(b.entries, func(e logEntry) bool {
		return e.attrs["keys_from"] != nil && e.level <= slog.LevelInfo && e.attrs["kind"] == nil
	})
	b.entries = nil
	return entries
}

func loggedGuard(tb testing.TB, issuer *m2mauthtest.Issuer, change ...func(*m2mauth.Config)) (*m2mauth.Guard, *logBook) {
	tb.Helper()
	book := new(logBook)
	change = append([]func(*m2mauth.Config){func(c *m2mauth.Config) { c.Logger = slog.New(book) }}, change...)
	return testguard.Quiet(tb, issuer, change...), book
}

func TestFirstRefusalOfAKindInAMinuteIsAWarning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard, book := loggedGuard(t, issuer)
		refuse := func(token string) logEntry {
			t.Helper()
			_, err := guard.Verify(t.Context(), token)
			require.Error(t, err)
			entries := book.take()
			require.Len(t, entries, 1, "one line for a refusal")
			return entries[0]
		}
		wrongAudience, opaque := issuer.Token("https://other.api"), "opaque"

		first := refuse(wrongAudience)
		assert.Equal(t, slog.LevelWarn, first.level)
		assert.NotContains(t, first.attrs, "before")
		for range 5 {
			time.Sleep(10 * time.Second)
			assert.Equal(t, slog.LevelDebug, refuse(wrongAudience).level)
		}
		assert.Equal(t, slog.LevelWarn, refuse(opaque).level, "another kind has a minute of its own")
		assert.Equal(t, slog.LevelDebug, refuse(opaque).level)

		time.Sleep(10*time.Second - 1)
		assert.Equal(t, slog.LevelDebug, refuse(wrongAudience).level, "the minute has not passed")
		time.Sleep(time.Nanosecond)
		again := refuse(wrongAudience)
		assert.Equal(t, slog.LevelWarn, again.level)
		assert.EqualValues(t, 6, again.attrs["before"], "those at Debug")
		assert.Equal(t, slog.LevelDebug, refuse(wrongAudience).level)

		time.Sleep(time.Hour)
		assert.EqualValues(t, 1, refuse(wrongAudience).attrs["before"])
		time.Sleep(time.Hour)
		last := refuse(wrongAudience)
		assert.Equal(t, slog.LevelWarn, last.level)
		assert.NotContains(t, last.attrs, "before", "none were left out")
	})
}

func TestRefusalsAreCountedUnderConcurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		guard, book := loggedGuard(t, m2mauthtest.NewIssuer())
		for range 100 {
			go func() { _, _ = guard.Verify(t.Context(), "opaque") }()
		}
		synctest.Wait()
		warnings := 0
		for _, entry := range book.take() {
			if entry.level == slog.LevelWarn {
				warnings++
			}
		}
		assert.Equal(t, 3, warnings, "the first, the tenth and the hundredth")
		time.Sleep(time.Minute)
		_, _ = guard.Verify(t.Context(), "opaque")
		assert.EqualValues(t, 97, book.take()[0].attrs["before"])
	})
}

func TestLogSaysWhatWasExpectedAndWhatCame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		other := m2mauthtest.NewIssuer()
		unknown := other.KeyIDs()[0]
		now := time.Now()
		for _, test := range []struct {
			name  string
			token string
			want  map[string]any // a part of the record
		}{
			{"no scope", issuer.Token(testguard.Shop), map[string]any{"kind": "insufficient scope", "status": int64(403), "required": `AllScopes("read")`, "scopes": ""}},
			{"another scope", issuer.Token(testguard.Shop, "write", "list"), map[string]any{"required": `AllScopes("read")`, "scopes": "write list"}},
			{"issuer", issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"iss": "https://other.example"}}),
				map[string]any{"kind": "wrong issuer", "status": int64(401), "expected": "https://issuer.test/oidc", "got": "https://other.example"}},
			{"audience", issuer.Token("https://other.api"), map[string]any{"kind": "wrong audience", "expected": testguard.Shop, "got": "https://other.api"}},
			{"audiences", issuer.Sign(m2mauthtest.Token{Claims: map[string]any{"aud": []string{"a", "b"}}}), map[string]any{"expected": testguard.Shop, "got": "a b"}},
			{"typ", issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"typ": "JWT"}}), map[string]any{"kind": "type not accepted", "expected": "at+jwt", "got": "JWT"}},
			{"alg", issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Algorithm: "HS256"}), map[string]any{"kind": "algorithm not accepted", "got": "HS256"}},
			{"kid", other.Token(testguard.Shop), map[string]any{"kind": "unknown key", "kid": unknown, "alg": "ES384", "keys_from": issuer.JWKSURL(), "keys": int64(1)}},
			{"signature", tampered(issuer.Token(testguard.Shop)), map[string]any{"kind": "wrong signature", "kid": issuer.KeyIDs()[0], "alg": "ES384"}},
			{"expiry", issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Lifetime: -time.Minute}), map[string]any{"kind": "token expired", "exp": now.Add(-time.Minute).UTC(), "now": now.UTC()}},
			{"nbf", issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"nbf": now.Unix() + 60}}), map[string]any{"kind": "token not yet valid", "nbf": now.Add(time.Minute).UTC(), "now": now.UTC()}},
			{"a claim", issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"sub": nil}}), map[string]any{"kind": "unacceptable claims", "claim": "sub"}},
			{"organization", issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"organization_id": "org1"}}), map[string]any{"kind": "forbidden", "organization_id": "org1", "rule": `AllScopes("read")`}},
		} {
			guard, book := loggedGuard(t, issuer)
			type key struct{}
			r := testguard.RequestWith("Bearer " + test.token)
			r = r.WithContext(context.WithValue(r.Context(), key{}, test.name))
			_, err := guard.Check(r, m2mauth.AllScopes("read"))
			var e *m2mauth.Error
			require.ErrorAs(t, err, &e, test.name)
			entries := book.take()
			require.Len(t, entries, 1, test.name)
			assert.Equal(t, "m2mauth: request refused", entries[0].attrs["msg"])
			assert.Equal(t, e.Description, entries[0].attrs["reason"], test.name)
			assert.Equal(t, test.name, entries[0].ctx.Value(key{}), "the request's context")
			for name, value := range test.want {
				assert.Equal(t, value, entries[0].attrs[name], "%s: %s", test.name, name)
			}
		}
	})
}

// tampered changes the signature but not its form.
func tampered(token string) string {
	at := strings.LastIndexByte(token, '.') + 1
	replacement := byte('A')
	if token[at] == 'A' {
		replacement = 'B'
	}
	return token[:at] + string(replacement) + token[at+1:]
}

// The caller's mistakes with a sentence that mends them, in Text and so in the answer.
func TestLogHints(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	from := func(iss string) string {
		return issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"iss": iss}})
	}
	claims := func(c map[string]any) string {
		return issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: c})
	}
	const (
		differs    = "they differ by a trailing slash or by letter case alone"
		sameHost   = "though on the same host: scheme, port and path count too; Logto's admin tenant is an issuer of its own"
		sameServer = "another domain of the same server is another issuer; Logto's admin tenant is an issuer of its own"
		audDiffers = "the two differ by a trailing slash or by letter case alone"
		askFor     = "request one with the resource parameter that names this API"
	)
	for _, test := range []struct {
		name, issuer, audience string // what the guard expects; "" = the kit's and the shop
		token                  string
		kind                   error
		want                   string
		not                    string // of another mistake
	}{
		{"an Issuer without /oidc", "https://issuer.test", "", from("https://issuer.test/oidc"), m2mauth.ErrIssuer, "the issuer of Logto ends in /oidc, and so must this API's Issuer setting", sameHost},
		{"an Issuer with a slash and without oidc", "https://issuer.test/", "", from("https://issuer.test/oidc"), m2mauth.ErrIssuer, "ends in /oidc", sameHost},
		{"the admin tenant on another port of a host", "https://logto.example:3001/oidc", "", from("https://logto.example:3002/oidc"), m2mauth.ErrIssuer, sameHost, differs},
		{"another domain", "https://auth.shop.example/oidc", "", from("https://tenant.logto.app/oidc"), m2mauth.ErrIssuer, sameServer, differs},
		{"another port, of another product", "https://login.example:1/realms/shop", "", from("https://login.example:2/realms/shop"), m2mauth.ErrIssuer, "though on the same host: scheme, port and path count too", "Logto"},
		{"another domain, of another product", "https://login.example", "", from("https://tenant.example"), m2mauth.ErrIssuer, "another domain of the same server is another issuer", "Logto"},
		{"the admin tenant, for a guard of another product", "https://login.example/oidcx", "", from("https://login.example/oidc"), m2mauth.ErrIssuer, "though on the same host", "Logto"},
		{"a slash at the end of iss", "", "", from("https://issuer.test/oidc/"), m2mauth.ErrIssuer, differs, sameHost},
		{"a slash at the end of the Issuer", "https://issuer.test/oidc/", "", from("https://issuer.test/oidc"), m2mauth.ErrIssuer, differs, sameHost},
		{"another letter case in iss", "", "", from("https://ISSUER.test/oidc"), m2mauth.ErrIssuer, differs, sameHost},
		{"an issuer that has nothing to do with ours", "", "", from("https://login.example/v2.0"), m2mauth.ErrIssuer, "from another issuer than the one that this API trusts", ":"},
		{"an issuer that is no URL", "", "", from("accounts"), m2mauth.ErrIssuer, "from another issuer", ":"},
		{"an issuer of odd bytes", "", "", from("https://%zz/oidc"), m2mauth.ErrIssuer, "from another issuer", ":"},

		{"another resource", "", "", issuer.Token("https://other.api"), m2mauth.ErrAudience, askFor, differs},
		{"a slash at the end of aud", "", "", issuer.Token(testguard.Shop + "/"), m2mauth.ErrAudience, audDiffers, askFor},
		{"a slash at the end of the Audience", "", testguard.Shop + "/", issuer.Token(testguard.Shop), m2mauth.ErrAudience, audDiffers, askFor},
		{"another letter case in aud", "", "", issuer.Token("https://Shopping.API"), m2mauth.ErrAudience, audDiffers, askFor},
		{"one of several with a slash", "", "", claims(map[string]any{"aud": []string{"https://a.example", testguard.Shop + "/"}}), m2mauth.ErrAudience, audDiffers, askFor},
		{"an organization token", "", "", issuer.Token("urn:logto:organization:org1"), m2mauth.ErrAudience, "it is an organization token; " + askFor, audDiffers},
		{"an empty aud", "", "", issuer.Token(""), m2mauth.ErrAudience, askFor, audDiffers},

		{"an organization's token for this API", "", "", claims(map[string]any{"organization_id": "org1"}), m2mauth.ErrForbidden, "limited to an organization, and this route is not: request a token without organization_id", askFor},
		{"an opaque token", "", "", "Xk3vJ9opaque_access_token", m2mauth.ErrMalformed, "the token is opaque, not a JWT: request it with the resource parameter, which names this API", "encrypted"},
		{"an encrypted token", "", "", "a.b.c.d.e", m2mauth.ErrMalformed, "encrypted (JWE)", "opaque"},
		{"two parts", "", "", "a.b", m2mauth.ErrMalformed, "not a JWT of three parts", "opaque"},
		{"an ID token", "", "", issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"typ": "JWT"}}), m2mauth.ErrType, "send an access token, not an ID token", "TokenTypes"},
		{"an ID token by its media type", "", "", issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"typ": "application/jwt"}}), m2mauth.ErrType, "send an access token, not an ID token", "TokenTypes"},
		{"an empty typ", "", "", issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"typ": ""}}), m2mauth.ErrType, "send an access token, not an ID token", "TokenTypes"},
		{"a typ of the issuer's own", "", "", issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"typ": "shop+jwt"}}), m2mauth.ErrType, "if the issuer marks access tokens so, this API's TokenTypes must name it", "ID token"},
		{"a token without typ", "", "", issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"typ": nil}}), m2mauth.ErrType, "send an access token, not an ID token; if the issuer's access tokens have none, this API's TokenTypes must hold the empty string", "scope"},
		{"no scopes", "", "", issuer.Token(testguard.Shop), m2mauth.ErrScope, "the token has no scopes: ask for them in the token request, and give the application a role that has them", "lacks"},
		{"other scopes", "", "", issuer.Token(testguard.Shop, "write"), m2mauth.ErrScope, "the token lacks a scope that this route requires", "no scopes"},
		{"an old token", "", "", issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Expired: true}), m2mauth.ErrExpired, "if it is new, the clocks of the issuer and of this API differ", "not valid yet"},
		{"a token from the future", "", "", claims(map[string]any{"iat": time.Now().Unix() + 3600}), m2mauth.ErrNotYetValid, "the clocks of the issuer and of this API differ, or it was issued for later", "expired"},
		{"a token for later", "", "", claims(map[string]any{"nbf": time.Now().Unix() + 3600}), m2mauth.ErrNotYetValid, "the clocks of the issuer and of this API differ, or it was issued for later", "expired"},
		{"a token bound to a key", "", "", claims(map[string]any{"cnf": map[string]any{"jkt": "x"}}), m2mauth.ErrClaims, "bound to a key of its sender (cnf)", "scope"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
				if test.issuer != "" {
					c.Issuer = test.issuer
				}
				if test.audience != "" {
					c.Audience = test.audience
				}
			})
			_, err := guard.Check(testguard.RequestWith("Bearer "+test.token), m2mauth.AllScopes("read"))
			require.ErrorIs(t, err, test.kind)
			var e *m2mauth.Error
			require.ErrorAs(t, err, &e)
			assert.Contains(t, e.Description, test.want)
			assert.NotContains(t, e.Description, test.not)
			w := httptest.NewRecorder()
			guard.WriteError(w, testguard.RequestWith(), err)
			assert.Contains(t, w.Header().Get("WWW-Authenticate"), e.Description, "a text that can stand in the challenge as it is")
			assert.Contains(t, w.Body.String(), e.Description)
		})
	}
}

func TestForeignErrorsAreLoggedAndNotShown(t *testing.T) {
	t.Parallel()
	guard, book := loggedGuard(t, m2mauthtest.NewIssuer())
	for range 3 { // each may be another one: none is left out
		w := httptest.NewRecorder()
		guard.WriteError(w, testguard.RequestWith(), errors.New("database password hunter2"))
		assert.Equal(t, 500, w.Code)
		assert.NotContains(t, w.Body.String(), "hunter2")
		entries := book.take()
		require.Len(t, entries, 1)
		assert.Equal(t, slog.LevelError, entries[0].level)
		assert.Equal(t, "database password hunter2", entries[0].attrs["cause"])
	}
}

func TestUnavailabilityIsLoggedWithItsCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		issuer.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) })
		})
		guard, book := loggedGuard(t, issuer)
		_, err := guard.Verify(t.Context(), issuer.Token(testguard.Shop))
		require.ErrorIs(t, err, m2mauth.ErrUnavailable)
		var refusals []logEntry
		for _, entry := range book.take() {
			if entry.attrs["msg"] == "m2mauth: request refused" {
				refusals = append(refusals, entry)
			}
		}
		require.Len(t, refusals, 1)
		assert.Equal(t, slog.LevelWarn, refusals[0].level)
		assert.Contains(t, refusals[0].attrs["cause"], "status 502")
		assert.EqualValues(t, 503, refusals[0].attrs["status"])
	})
}

// Whoever reads the log must be safe from what a caller chose: line breaks,
// escape sequences, endless values.
func TestLogHoldsNoControlCharactersAndNoLongValues(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	nasty := "x\r\n2026-01-01 ERROR fake \x1b[31m \u202e \u2028 \x00 \u0085 \" \\ ä"
	long := strings.Repeat("é\x1b", 400) // of one that is over 8 KiB nothing is read
	sign := func(t m2mauthtest.Token) string {
		t.Audience = testguard.Shop
		return issuer.Sign(t)
	}
	for _, value := range []string{nasty, long, strings.Repeat("a", 4000)} {
		scope, organization := m2mauth.AllScopes("read"), m2mauth.OrganizationHeader("X-Organization")
		for name, test := range map[string]struct {
			token m2mauthtest.Token
			rule  m2mauth.Rule
			told  string // the attribute that has the value
		}{
			"iss":       {m2mauthtest.Token{Claims: map[string]any{"iss": value}}, scope, "got"},
			"aud":       {m2mauthtest.Token{Claims: map[string]any{"aud": value}}, scope, "got"},
			"aud array": {m2mauthtest.Token{Claims: map[string]any{"aud": []string{"a", value}}}, scope, "got"},
			"alg":       {m2mauthtest.Token{Header: map[string]any{"alg": value}}, scope, "got"},
			"typ":       {m2mauthtest.Token{Header: map[string]any{"typ": value}}, scope, "got"},
			"kid":       {m2mauthtest.Token{Header: map[string]any{"kid": value}}, scope, "kid"},
			"scope":     {m2mauthtest.Token{Scopes: []string{value}}, scope, "scopes"},
			"organization_id of a route that belongs to none":     {m2mauthtest.Token{Claims: map[string]any{"organization_id": value}}, scope, "organization_id"},
			"organization_id of a route that belongs to another":  {m2mauthtest.Token{Claims: map[string]any{"organization_id": value}}, organization, "organization_id"},
			"organization_id that a part compares with no other":  {m2mauthtest.Token{Claims: map[string]any{"organization_id": value}}, m2mauth.AnyOf(m2mauth.AnyToken(), organization), "organization_id"},
			"client_id of a route that is for another":            {m2mauthtest.Token{Claims: map[string]any{"client_id": value}}, m2mauth.ClientID("another"), "client_id"},
			"sub within act of a route that is for another actor": {m2mauthtest.Token{Claims: map[string]any{"act": map[string]any{"sub": value}}}, m2mauth.ActedBy("another"), "actor"},
			"scope of a route that demands an organization first": {m2mauthtest.Token{Scopes: []string{value}}, m2mauth.AllOf(organization, scope), "scopes"},
		} {
			guard, book := loggedGuard(t, issuer)
			_, err := guard.Check(testguard.RequestWith("Bearer "+sign(test.token)), test.rule)
			require.Error(t, err)
			entries := book.take()
			require.NotEmpty(t, entries, name)
			said, _ := entries[len(entries)-1].attrs[test.told].(string)
			assert.Regexp(t, "[xa]", said, "%s: the value is not told at all", name)
			for _, entry := range entries {
				assertLoggable(t, entry, name)
			}
		}
	}
}

// Client ID Metadata Documents make a URL of up to 2,048 characters a client's ID. It is
// one as any other, and in logs it is short.
func TestAClientsIDMayBeALongURL(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	var seen []string
	guard, book := loggedGuard(t, issuer, func(c *m2mauth.Config) {
		c.OnDecision = func(_ context.Context, d m2mauth.Decision) { seen = append(seen, d.Claims.ClientID()) }
	})
	client := "https://app.example/oauth/" + strings.Repeat("a", 2048-26)
	for sub, app := range map[string]string{client: client, "alice": ""} {
		seen = nil
		r := testguard.RequestWith("Bearer " + issuer.Sign(m2mauthtest.Token{AppID: client, Audience: testguard.Shop, Claims: map[string]any{"sub": sub}}))
		for range 2 { // what is remembered too
			claims, err := guard.Check(r, m2mauth.ClientID("other", client))
			require.NoError(t, err)
			assert.Equal(t, []string{client, sub, app}, []string{claims.ClientID(), claims.Subject(), claims.AppID()})
		}
		for _, other := range []string{client[:2047], client + "a", strings.Replace(client, "https", "HTTPS", 1)} {
			_, err := guard.Check(r, m2mauth.ClientID(other))
			require.ErrorIs(t, err, m2mauth.ErrForbidden)
			assert.NotContains(t, challengeOf(err), "app.example", "of a client nothing is answered")
		}
		assert.Equal(t, slices.Repeat([]string{client}, 5), seen)
		refused := 0
		for _, entry := range book.take() {
			if entry.attrs["msg"] == "m2mauth: request refused" {
				assert.Equal(t, client[:200]+"...", entry.attrs["client_id"])
				refused++
			}
		}
		assert.Equal(t, 3, refused)
	}
}

// assertLoggable asserts that no attribute of a line could make another line, or
// a terminal do something, whatever handler writes it.
func assertLoggable(t *testing.T, entry logEntry, msg ...any) {
	t.Helper()
	for key, attr := range entry.attrs {
		text, ok := attr.(string)
		if !ok {
			continue
		}
		assert.LessOrEqual(t, len(text), 1000, "%v: %s is too long", msg, key)
		assert.False(t, strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }), "%v: %s has a character that a terminal may obey: %q", msg, key, text)
	}
}

// An issuer is believed about its keys, and not about the log of its APIs; and a
// document may be of somebody else.
func TestWhatAnIssuerPublishesIsFitForTheLog(t *testing.T) {
	t.Parallel()
	discovery := func(issuer, jwks string) string {
		document, err := json.Marshal(map[string]string{"issuer": issuer, "jwks_uri": jwks})
		require.NoError(t, err)
		return string(document)
	}
	const odd = `{"kty":"AKP","kid":"x\nlevel=ERROR msg=lost \u001b[31m \u202e"}`
	long := strings.Repeat("x", 1<<16)
	for name, test := range map[string]struct{ path, body, says string }{
		"an issuer with a line break":            {"/oidc/.well-known/openid-configuration", discovery("https://x.test\nlevel=ERROR", "https://issuer.test/jwks"), "of issuer"},
		"an issuer with a terminal's escape":     {"/oidc/.well-known/openid-configuration", discovery("https://x.test/\x1b[31m\u202e", "https://issuer.test/jwks"), "of issuer"},
		"an endless issuer":                      {"/oidc/.well-known/openid-configuration", discovery("https://x.test/"+long, "https://issuer.test/jwks"), "of issuer"},
		"a jwks_uri with a line break":           {"/oidc/.well-known/openid-configuration", discovery("https://issuer.test/oidc", "https://x.test/\nlevel=ERROR"), "jwks_uri"},
		"a jwks_uri with line breaks of Unicode": {"/oidc/.well-known/openid-configuration", discovery("https://issuer.test/oidc", "https://x.test/\u2028\u0085level=ERROR\u202e"), "not of the issuer's origin"},
		"an endless jwks_uri":                    {"/oidc/.well-known/openid-configuration", discovery("https://issuer.test/oidc", "https://x.test/"+long), "not of the issuer's origin"},
		"the kid of a key of a new kind":         {"/oidc/jwks", `{"keys":[` + odd + `,` + ed25519JWK + `]}`, "kid"},
		"the kid of the only key":                {"/oidc/jwks", `{"keys":[` + odd + `]}`, "kid"},
		"an endless kid":                         {"/oidc/jwks", `{"keys":[` + strings.Replace(odd, "lost", long, 1) + `,` + ed25519JWK + `]}`, "kid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				testguard.KeysHookAt(issuer, test.path, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = io.WriteString(w, test.body) })
				guard, book := loggedGuard(t, issuer)
				err := guard.Warm(t.Context())
				synctest.Wait()
				entries := book.take()
				require.Len(t, entries, 1)
				assert.Contains(t, entries[0].attrs["reason"], test.says)
				assertLoggable(t, entries[0])
				assertLoggable(t, logEntry{attrs: map[string]any{"the error": fmt.Sprint(err), "the status": guard.Keys().LastError}})
			})
		})
	}
}

// ed25519JWK is a good key: that of RFC 8037 appendix A.2.
const ed25519JWK = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`

// badCredentials has refused credentials of every kind, whose parts stand
// neither in a log nor in an answer.
func badCredentials(issuer *m2mauthtest.Issuer) map[string][]string {
	other := m2mauthtest.NewIssuer()
	good := issuer.Token(testguard.Shop, "read")
	part := strings.Split(good, ".")
	bearer := func(token string) []string { return []string{"Bearer " + token} }
	claims := func(name string, value any) []string {
		return bearer(issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{name: value}}))
	}
	header := func(name string, value any) []string {
		return bearer(issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{name: value}}))
	}
	return map[string][]string{
		"opaque":               bearer("c2VjcmV0LW9wYXF1ZS10b2tlbg"),
		"two fields":           {"Bearer " + good, "Bearer " + issuer.Token(testguard.Shop)},
		"two tokens":           bearer(good + " " + good),
		"another scheme":       {"Basic c2VjcmV0LWFwcDpzZWNyZXQ="},
		"a token alone":        {good},
		"no space":             {"Bearer" + good},
		"a quoted token":       bearer(`"` + good + `"`),
		"too long":             bearer(good + strings.Repeat("A", 8<<10)),
		"two parts":            bearer(part[0] + "." + part[1]),
		"five parts":           bearer(good + ".c2VjcmV0LXBhcnQ.c2VjcmV0LXBhcnQy"),
		"no signature":         bearer(part[0] + "." + part[1] + "."),
		"odd base64 header":    bearer(part[0] + "=." + part[1] + "." + part[2]),
		"odd base64 payload":   bearer(part[0] + "." + part[1] + "=." + part[2]),
		"odd base64 signature": bearer(good + "="),
		"tampered":             bearer(tampered(good)),
		"other claims":         bearer(part[0] + "." + strings.Split(issuer.Token(testguard.Shop, "admin"), ".")[1] + "." + part[2]),
		"unknown key":          bearer(other.Token(testguard.Shop)),
		"another key":          bearer(other.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"kid": issuer.KeyIDs()[0]}})),
		"header no JSON":       bearer(issuer.Sign(m2mauthtest.Token{RawHeader: []byte(`{"alg":"ES384","secret-header"`)})),
		"header doubled":       bearer(issuer.Sign(m2mauthtest.Token{RawHeader: []byte(`{"alg":"ES384","secret-member":1,"secret-member":2}`)})),
		"payload no JSON":      bearer(issuer.Sign(m2mauthtest.Token{RawClaims: []byte(`{"secret-claim":"secret-value"`)})),
		"payload doubled":      bearer(issuer.Sign(m2mauthtest.Token{RawClaims: []byte(`{"secret-claim":1,"secret-claim":2}`)})),
		"none":                 bearer(issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Algorithm: "none"})),
		"HS256":                bearer(issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Algorithm: "HS256", Secret: []byte("secret")})),
		"crit":                 header("crit", []string{"secret-extension"}),
		"cty":                  header("cty", "JWT"),
		"typ":                  header("typ", "JWT"),
		"kid no string":        header("kid", 7),
		"iss":                  claims("iss", "https://other.example/oidc"),
		"aud":                  claims("aud", "https://other.api"),
		"expired":              bearer(issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Expired: true})),
		"iat ahead":            claims("iat", time.Now().Unix()+7200),
		"cnf":                  claims("cnf", map[string]any{"jkt": "secret-thumbprint"}),
		"no sub":               claims("sub", nil),
		"sub no string":        claims("sub", []string{"secret-subject"}),
		"scope no string":      claims("scope", []any{"secret-scope", 1}),
		"exp no number":        claims("exp", "secret-date"),
		"jti no string":        claims("jti", map[string]any{"secret-id": 1}),
		"organization":         claims("organization_id", "org1"),
		"no scope":             bearer(issuer.Token(testguard.Shop)),
	}
}

func TestNoPartOfATokenIsLoggedOrAnswered(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	var output bytes.Buffer
	var mu sync.Mutex
	logger := slog.New(slog.NewJSONHandler(lockedWriter{&mu, &output}, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}))
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.Logger = logger })
	api := guard.Require("read")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a handler was reached") }))

	for name, fields := range badCredentials(issuer) {
		t.Run(name, func(t *testing.T) {
			mu.Lock()
			output.Reset()
			mu.Unlock()
			w := httptest.NewRecorder()
			api.ServeHTTP(w, testguard.RequestWith(fields...))
			assert.GreaterOrEqual(t, w.Code, 400)
			assert.Less(t, w.Code, 500)
			_, refusal := guard.Check(testguard.RequestWith(fields...), m2mauth.AllScopes("read"))
			require.Error(t, refusal)
			_, err := guard.Verify(t.Context(), strings.TrimPrefix(strings.Join(fields, ","), "Bearer ")) // a few are good by themselves
			mu.Lock()
			logged := output.String()
			mu.Unlock()
			require.Contains(t, logged, "request refused")
			answer := fmt.Sprint(w.Header(), w.Body)

			for _, part := range tellingParts(strings.Join(fields, " ")) {
				for where, text := range map[string]string{"the log": logged, "the answer": answer, "the error": fmt.Sprint(refusal, err)} {
					assert.NotContains(t, text, part, "in %s", where)
				}
			}
			for _, value := range []string{issuer.KeyIDs()[0], "other.example", "other.api", "ES384", "HS256", "JWT\"", "org1", "m2mauthtestapp"} {
				assert.NotContains(t, answer, value, "the answer echoes what the token says")
			}
			if _, rule, _ := strings.Cut(logged, `"status":403`); rule == "" {
				assert.NotContains(t, logged, "m2mauthtestapp", "what a token says that was not verified")
			} else {
				assert.NotContains(t, strings.ReplaceAll(logged, `"client_id":"m2mauthtestapp0000000"`, ""), "m2mauthtestapp", "sub is personal")
			}
		})
	}
}

// tellingParts splits credentials into everything that must not be seen: the
// segments, the strings that they hold in plain text but for what the log is to
// name, and words that begin with secret.
func tellingParts(credentials string) (parts []string) {
	for _, segment := range strings.FieldsFunc(credentials, func(r rune) bool { return strings.ContainsRune(` ."=`, r) }) {
		if len(segment) >= 16 {
			parts = append(parts, segment, segment[:16], segment[len(segment)-16:])
		}
		if plain, err := base64.RawURLEncoding.DecodeString(segment); err == nil {
			var object map[string]any
			if json.Unmarshal(plain, &object) == nil && object["jti"] != nil {
				if id, ok := object["jti"].(string); ok {
					parts = append(parts, id)
				}
			}
		}
	}
	return append(parts, "secret")
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func TestNothingIsLoggedAboutRequestsThatPass(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, book := loggedGuard(t, issuer)
	_, err := guard.Check(testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, "read")), m2mauth.AllScopes("read"))
	require.NoError(t, err)
	assert.Empty(t, book.take())
}

// A program that sets slog's default later than its guards means that one too.
func TestLoggerIsTheDefaultOfTheMoment(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config(testguard.Shop))
	require.NoError(t, err)
	before, output, flags := slog.Default(), log.Writer(), log.Flags()
	defer func() {
		slog.SetDefault(before)
		log.SetOutput(output) // SetDefault leads package log to slog, and not back
		log.SetFlags(flags)
	}()
	book := new(logBook)
	slog.SetDefault(slog.New(book))
	_, err = guard.Verify(t.Context(), "opaque")
	require.Error(t, err)
	assert.Len(t, book.take(), 1)
}
