package m2mauth_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// publishing has these JWKs published beside the issuer's own.
func publishing(t *testing.T, issuer *m2mauthtest.Issuer, jwks func() []string) {
	t.Helper()
	own := strings.TrimSuffix(keysOf(t, issuer), "]}")
	keysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		_, _ = io.WriteString(w, strings.Join(append([]string{own}, jwks()...), ",")+"]}")
	})
}

// jwkOf returns the JWK of an issuer's only key, under another key ID.
func jwkOf(t *testing.T, issuer *m2mauthtest.Issuer, kid string) string {
	t.Helper()
	jwk := strings.TrimSuffix(strings.TrimPrefix(keysOf(t, issuer), `{"keys":[`), "]}")
	return strings.Replace(jwk, issuer.KeyIDs()[0], kid, 1)
}

// Issuers that publish odd keys are asked 169 times a day.
func TestAnOddKeyIsLoggedWhenItAppearsOrChanges(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		odd := func(kid, alg string) string { return fmt.Sprintf(`{"kty":"AKP","kid":%q,"alg":%q}`, kid, alg) }
		var log keysLog
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		jwks := []string{odd("1", "ML-DSA-44")}
		publishing(t, issuer, func() []string { return jwks })
		for _, step := range []struct {
			name  string
			jwks  []string
			lines int // so far
		}{
			{"it is there", []string{odd("1", "ML-DSA-44")}, 1},
			{"and still is", []string{odd("1", "ML-DSA-44")}, 1},
			{"in another order of its members", []string{`{ "alg":"ML-DSA-44", "kid":"1", "kty":"AKP" }`}, 1},
			{"twice", []string{odd("1", "ML-DSA-44"), odd("1", "ML-DSA-44")}, 1},
			{"it changes, and its reason does not", []string{odd("1", "ML-DSA-65")}, 2},
			{"another one appears", []string{odd("1", "ML-DSA-65"), odd("2", "ML-DSA-65")}, 3},
			{"both go", nil, 3},
			{"one comes back", []string{odd("2", "ML-DSA-65")}, 4},
			{"it changes in a way that is no JSON object", []string{`{"kid":"2","kid":"2"}`}, 5},
			{"which stays", []string{`{"kid":"2","kid":"2"}`}, 5},
		} {
			jwks = step.jwks
			for range 3 {
				require.NoError(t, g.Warm(t.Context()))
				synctest.Wait()
				assert.Equal(t, step.lines, log.count(slog.LevelWarn), step.name)
				time.Sleep(keysTTL)
			}
		}
		assert.Equal(t, 30, g.Keys().Fetches)

		issuer.Intercept(nil) // which answers 304 from the second time on
		issuer.PublishJWK([]byte(odd("3", "ML-DSA-44")))
		for range 5 {
			require.NoError(t, g.Warm(t.Context()))
			time.Sleep(keysTTL)
		}
		issuer.Rotate("ES384")
		for range 2 {
			require.NoError(t, g.Warm(t.Context()))
			time.Sleep(keysTTL)
		}
		assert.Equal(t, 6, log.count(slog.LevelWarn))
	})
}

func TestAKeyForEncryptionIsNoWarning(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		var log keysLog
		issuer := m2mauthtest.NewIssuer()
		for i := range 30 { // they take no other key's place in the log
			issuer.PublishJWK(fmt.Appendf(nil, `{"kty":"RSA","kid":"enc-%d","use":"enc","alg":"RSA-OAEP","n":"AQAB","e":"AQAB"}`, i))
		}
		issuer.PublishJWK([]byte(`{"kty":"AKP","kid":"odd"}`))
		g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		require.NoError(t, g.Warm(t.Context()))
		assert.Equal(t, 1, log.count(slog.LevelWarn), log.text())
		assert.Contains(t, log.text(), `kid "odd": unsupported kty`)
		assert.Equal(t, 10, log.count(slog.LevelDebug))
	})
}

// A set may hold a key twice, as after a merge of two files.
func TestAKeyThatIsPublishedTwiceIsOneKey(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		var log keysLog
		issuer := m2mauthtest.NewIssuer()
		kid := issuer.KeyIDs()[0]
		own, again := jwkOf(t, issuer, kid), jwkOf(t, issuer, "the same by another name")
		publishing(t, issuer, func() []string { return []string{own, again} })
		g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		keysAtOnce(t, g, keysToken(issuer, ""), 200)
		keysAtOnce(t, g, issuer.Sign(m2mauthtest.Token{Audience: keysAPI, Header: map[string]any{"kid": nil}}), 200, "there is only one")
		assert.Len(t, g.Keys().Keys, 2, "one for each name")
		assert.Zero(t, log.count(slog.LevelWarn), log.text())
	})
}

// Each situation in which no key is found has its own answer, and the log says more.
func TestWhyThereIsNoKey(t *testing.T) {
	const (
		notPublished = "the issuer publishes no key with the token's key ID: it was rotated out, or this API has the keys of another server"
		unusable     = "the issuer publishes the token's key, but it cannot be used: its use, its algorithm or its form does not fit the token"
		several      = "the issuer publishes several different keys with the token's key ID, and which one signed it cannot be told"
		manyFit      = "the token names no key, and the issuer publishes several that may have signed it"
		noneFits     = "the token names no key, and the issuer publishes none for its algorithm"
	)
	other := m2mauthtest.NewIssuer()
	for name, test := range map[string]struct {
		jwks      func(t *testing.T, kid string) []string // beside the issuer's own
		header    map[string]any
		text      string
		published string
		warned    string // by the fetch
	}{
		"not published": {nil, map[string]any{"kid": "gone"}, notPublished, "", ""},
		"for encryption": {func(*testing.T, string) []string {
			return []string{strings.Replace(ed25519JWK, "{", `{"kid":"enc","use":"enc",`, 1)}
		}, map[string]any{"kid": "enc"}, unusable, "use is enc: the key is for encryption", ""},
		"of an unknown kind":        {func(*testing.T, string) []string { return []string{`{"kty":"AKP","kid":"new"}`} }, map[string]any{"kid": "new"}, unusable, "unsupported kty", `kid "new": unsupported kty`},
		"for another algorithm":     {nil, map[string]any{"alg": "ES256"}, unusable, "for ES384", ""},
		"two of which neither fits": {func(_ *testing.T, kid string) []string { return []string{`{"kty":"AKP","kid":"` + kid + `"}`} }, map[string]any{"alg": "ES256"}, unusable, "for ES384; unsupported kty", "unsupported kty"},
		"two that both fit":         {func(t *testing.T, kid string) []string { return []string{jwkOf(t, other, kid)} }, nil, several, "for ES384; for ES384", "different keys are published under one name"},
		"no kid, and two keys fit":  {func(t *testing.T, _ string) []string { return []string{jwkOf(t, other, "other")} }, map[string]any{"kid": nil}, manyFit, "", ""},
		"no kid, and no key fits":   {nil, map[string]any{"kid": nil, "alg": "ES256"}, noneFits, "", ""},
		"no kid, nor have the keys that fit": {func(t *testing.T, _ string) []string {
			bare := strings.Replace(jwkOf(t, other, "x"), `"kid":"x",`, "", 1)
			return []string{strings.Replace(jwkOf(t, m2mauthtest.NewIssuer(), "x"), `"kid":"x",`, "", 1), bare}
		}, map[string]any{"kid": nil}, manyFit, "", "no kid, alg ES384"},
	} {
		t.Run(name, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				if test.jwks != nil {
					more := test.jwks(t, issuer.KeyIDs()[0])
					publishing(t, issuer, func() []string { return more })
				}
				guard, book := loggedGuard(t, issuer)
				require.NoError(t, guard.Warm(t.Context()))
				fetched := fmt.Sprint(book.take())
				if test.warned == "" {
					assert.NotContains(t, fetched, "WARN")
				} else {
					assert.Contains(t, fetched, test.warned)
				}
				_, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: shop, Header: test.header}))
				var e *m2mauth.Error
				require.ErrorAs(t, err, &e)
				require.ErrorIs(t, err, m2mauth.ErrUnknownKey)
				assert.Equal(t, 401, e.Status)
				assert.Equal(t, test.text, e.Description)
				entries := book.take()
				require.NotEmpty(t, entries)
				assert.Equal(t, test.published, entries[len(entries)-1].attrs["published"])
			})
		})
	}
}

// A query may hold a secret. It stands in no log line, whether keys are odd, the
// same or none.
func TestTheQueryOfJWKSURLIsInNoLogLineOfGoodKeys(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		var log keysLog
		issuer, other := m2mauthtest.NewIssuer(), m2mauthtest.NewIssuer()
		publishing(t, issuer, func() []string {
			return []string{`{"kty":"AKP","kid":"odd"}`, jwkOf(t, other, "two"), jwkOf(t, m2mauthtest.NewIssuer(), "two")}
		})
		g := keysGuard(t, issuer, func(c *m2mauth.Config) {
			c.JWKSURL, c.Logger = issuer.JWKSURL()+"?key=secret", slog.New(&log)
		})
		for _, header := range []map[string]any{{"kid": "odd"}, {"kid": "two"}, {"kid": "gone"}} {
			_, err := g.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: keysAPI, Header: header}))
			require.ErrorIs(t, err, m2mauth.ErrUnknownKey)
			assert.NotContains(t, err.Error(), "secret")
		}
		assert.Contains(t, log.text(), "url="+issuer.JWKSURL())
		assert.Contains(t, log.text(), "keys_from="+issuer.JWKSURL())
		assert.NotContains(t, log.text(), "secret")
	})
}
