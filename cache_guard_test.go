package m2mauth_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// known lets the guard verify a new token of the shop, and returns it.
func known(t *testing.T, guard *m2mauth.Guard, issuer *m2mauthtest.Issuer, scopes ...string) string {
	t.Helper()
	token := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Scopes: scopes, Lifetime: 1000 * time.Hour})
	_, err := guard.Verify(t.Context(), token)
	require.NoError(t, err)
	return token
}

// assertHits has the guard answer the token, as one that it remembers.
func assertHits(t *testing.T, guard *m2mauth.Guard, token string, msg ...any) {
	t.Helper()
	before := guard.Stats()
	_, err := guard.Verify(t.Context(), token)
	require.NoError(t, err, msg...)
	assert.Equal(t, before.Hits+1, guard.Stats().Hits, msg...)
}

func TestAWithdrawnKeysTokenIsRefusedThoughRemembered(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]struct {
		at   func(issuer *m2mauthtest.Issuer, kid string)
		want error
	}{
		"withdrawn": {func(issuer *m2mauthtest.Issuer, kid string) {
			issuer.Rotate("ES384")
			issuer.Withdraw(kid)
		}, m2mauth.ErrUnknownKey},
		"replaced under the same kid": {func(issuer *m2mauthtest.Issuer, kid string) { issuer.Replace(kid) }, m2mauth.ErrSignature},
		"replaced by a key of another kind": {func(issuer *m2mauthtest.Issuer, kid string) {
			issuer.Rotate("ES384")
			issuer.Withdraw(kid)
			issuer.PublishJWK(json.RawMessage(fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":%q,`+
				`"x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`, kid)))
		}, m2mauth.ErrUnknownKey},
		"marked as a key for encryption": {func(issuer *m2mauthtest.Issuer, kid string) {
			issuer.Rotate("ES384")
			issuer.Withdraw(kid)
			issuer.PublishJWK(json.RawMessage(fmt.Sprintf(`{"kty":"EC","use":"enc","kid":%q}`, kid)))
		}, m2mauth.ErrUnknownKey},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				guard := testguard.Quiet(t, issuer)
				token := known(t, guard, issuer)
				assertHits(t, guard, token)
				change.at(issuer, issuer.KeyIDs()[0])
				if kids := issuer.KeyIDs(); name != "replaced under the same kid" {
					require.Len(t, kids, 1)
				}
				// The token is the only traffic from here on.
				begin, refused := time.Now(), false
				for !refused && time.Since(begin) < time.Hour {
					assert.Equal(t, 1, issuer.Fetches().JWKS, "until the refresh")
					time.Sleep(10 * time.Second)
					_, err := guard.Verify(t.Context(), token)
					if refused = err != nil; refused {
						assert.ErrorIs(t, err, change.want)
					}
					if issuer.Fetches().JWKS > 1 && !refused { // this very request started the refresh
						time.Sleep(5 * time.Second)
						_, err = guard.Verify(t.Context(), token)
						require.ErrorIs(t, err, change.want)
						refused = true
					}
				}
				assert.LessOrEqual(t, time.Since(begin), testguard.KeysTTL+testguard.KeysTimeout)
				_, err := guard.Verify(t.Context(), token)
				assert.ErrorIs(t, err, change.want, "from then on")
			})
		})
	}
}

// RSA keys are for RS256 where the issuer does not say: it may say so later.
func TestAKeyForAnotherAlgorithmIsAnotherKey(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		kid := issuer.Rotate("RS256")
		guard := testguard.Quiet(t, issuer)
		token := known(t, guard, issuer)
		testguard.KeysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Header.Del("If-None-Match")
			full := httptest.NewRecorder()
			next.ServeHTTP(full, r)
			body := strings.Replace(full.Body.String(), `"kid":"`+kid+`"`, `"alg":"PS256","kid":"`+kid+`"`, 1)
			require.NotEqual(t, full.Body.String(), body)
			_, _ = w.Write([]byte(body))
		})
		assertHits(t, guard, token)
		time.Sleep(testguard.KeysTTL)
		_, err := guard.Verify(t.Context(), token)
		assert.ErrorIs(t, err, m2mauth.ErrUnknownKey)
		_, err = guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Algorithm: "PS256"}))
		assert.NoError(t, err)
	})
}

// After a pause of any length a withdrawn key does not open one last request.
func TestAWithdrawnKeysTokenIsRefusedAtOnceAfterAPause(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard := testguard.Quiet(t, issuer)
		token, kid := known(t, guard, issuer), issuer.KeyIDs()[0]
		issuer.Rotate("ES384")
		issuer.Withdraw(kid)
		time.Sleep(testguard.KeysTTL)
		_, err := guard.Verify(t.Context(), token)
		assert.ErrorIs(t, err, m2mauth.ErrUnknownKey)
	})
}

func TestTokensStayRememberedWhenTheSameKeysAreFetchedAgain(t *testing.T) {
	t.Parallel()
	for name, hook := range map[string]func(http.ResponseWriter, *http.Request){
		"not modified":     func(http.ResponseWriter, *http.Request) {},
		"sent in full":     func(_ http.ResponseWriter, r *http.Request) { r.Header.Del("If-None-Match") },
		"with another key": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				verified := 0
				guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
					c.QueueKey = func(m2mauth.Request) string { verified++; return "" }
				})
				request := testguard.RequestWith("Bearer " + issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Lifetime: 10 * time.Hour}))
				require.NoError(t, guard.Warm(t.Context()))
				if hook == nil {
					issuer.Stage("EdDSA")
				} else {
					testguard.KeysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
						hook(w, r)
						next.ServeHTTP(w, r)
					})
				}
				for range 100 {
					_, err := guard.Check(request, m2mauth.AnyToken())
					require.NoError(t, err)
					time.Sleep(time.Minute)
				}
				assert.GreaterOrEqual(t, issuer.Fetches().JWKS, 10, "hits start the refreshes that are due")
				assert.Equal(t, 1, verified)
				assert.Equal(t, m2mauth.Stats{Hits: 99, Misses: 1, Cached: 1, CachedBytes: guard.Stats().CachedBytes}, guard.Stats())
			})
		})
	}
}

func TestARememberedTokenIsRefusedOnceTheKeysExpired(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard := testguard.Quiet(t, issuer)
		token := known(t, guard, issuer)
		testguard.KeysDown(issuer)
		const end = testguard.KeysTTL + time.Hour // KeyStaleFor
		for begin := time.Now(); time.Since(begin) < end-time.Minute; time.Sleep(time.Minute) {
			assertHits(t, guard, token, time.Since(begin))
		}
		time.Sleep(time.Minute)
		_, err := guard.Verify(t.Context(), token)
		var e *m2mauth.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, http.StatusServiceUnavailable, e.Status)
		assert.Positive(t, e.RetryAfter)

		issuer.Intercept(nil)
		time.Sleep(time.Minute)
		assertHits(t, guard, token, "the issuer is back, and has the key that verified it")
	})
}

func TestARememberedTokenIsRefusedAtTheSecondItExpires(t *testing.T) {
	t.Parallel()
	for name, leeway := range map[string]time.Duration{"with the default leeway": 0, "without leeway": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.Leeway = leeway })
				token := issuer.Token(testguard.Shop)
				claims, err := guard.Verify(t.Context(), token)
				require.NoError(t, err)
				end := claims.ExpiresAt()
				if leeway == 0 {
					end = end.Add(30 * time.Second)
				}
				testguard.SleepUntil(end.Add(-time.Minute))
				require.NoError(t, guard.Warm(t.Context()))
				testguard.SleepUntil(end.Add(-1))
				assertHits(t, guard, token, "a nanosecond before")
				testguard.SleepUntil(end)
				_, err = guard.Verify(t.Context(), token)
				assert.ErrorIs(t, err, m2mauth.ErrExpired)
				assert.EqualValues(t, 2, guard.Stats().Hits, "though it is remembered")
			})
		})
	}
}

func TestWhatARouteDemandsIsAskedOfRememberedTokensToo(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	reader := issuer.Token(testguard.Shop, "read:products")
	member := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Scopes: []string{"read:products"}, Claims: map[string]any{"organization_id": "org"}})
	read, write := m2mauth.AllScopes("read:products"), m2mauth.AllScopes("write:products")
	for range 3 {
		_, err := guard.Check(testguard.RequestWith("Bearer "+reader), read)
		assert.NoError(t, err)
		claims, err := guard.Check(testguard.RequestWith("Bearer "+reader), write)
		assert.ErrorIs(t, err, m2mauth.ErrScope)
		assert.True(t, claims.IsZero())
		_, err = guard.Check(testguard.RequestWith("Bearer "+member), read)
		assert.ErrorIs(t, err, m2mauth.ErrForbidden, "the scopes of a member hold within the organization")
		_, err = guard.Verify(t.Context(), member)
		assert.ErrorIs(t, err, m2mauth.ErrForbidden)
	}
	assert.EqualValues(t, 2, guard.Stats().Misses)
}

func TestTokensLikeARememberedOneAreVerifiedByThemselves(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	for _, alg := range []string{"ES384", "RS256", "EdDSA"} {
		issuer.Rotate(alg)
		guard := testguard.Quiet(t, issuer)
		token, other := known(t, guard, issuer, "read"), issuer.Token(testguard.Shop, "write")
		last := strings.LastIndexByte(token, '.')
		strangers := []string{token[:len(token)-1], token[:len(token)-4], token + "AAAA", token[4:], token[:last+1], token[:last] + other[strings.LastIndexByte(other, '.'):]}
		for range 50 { // bits of the signature, but those of its last character, which may be none
			at := last + 1 + rand.IntN(len(token)-last-2)
			changed := []byte(token)
			for changed[at] == token[at] {
				changed[at] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[rand.IntN(64)]
			}
			strangers = append(strangers, string(changed))
		}
		for _, stranger := range strangers {
			claims, err := guard.Verify(t.Context(), stranger)
			assert.Error(t, err, stranger)
			assert.True(t, claims.IsZero())
			assertHits(t, guard, token)
		}
		assert.Equal(t, 1, m2mauth.Remembered(guard))
	}
}

func TestGuardsShareNothing(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	token := known(t, guard, issuer)
	for _, test := range []struct {
		name   string
		change func(*m2mauth.Config)
		want   error
	}{
		{"another audience", func(c *m2mauth.Config) { c.Audience = "https://other.api" }, m2mauth.ErrAudience},
		{"shorter lifetimes", func(c *m2mauth.Config) { c.MaxLifetime = time.Minute }, m2mauth.ErrClaims},
		{"other algorithms", func(c *m2mauth.Config) { c.Algorithms = []string{"EdDSA"} }, m2mauth.ErrAlgorithm},
		{"other keys", func(c *m2mauth.Config) { c.JWKS = []byte(oneKeySet) }, m2mauth.ErrUnknownKey},
	} {
		second := testguard.Quiet(t, issuer, test.change)
		_, err := second.Verify(t.Context(), token)
		assert.ErrorIs(t, err, test.want, test.name)
		assertHits(t, guard, token)
		_, err = second.Verify(t.Context(), token)
		assert.ErrorIs(t, err, test.want, test.name)
		assert.Zero(t, m2mauth.Remembered(second), test.name)
	}
}

const oneKeySet = `{"keys":[{"kty":"EC","crv":"P-256","kid":"1",` +
	`"x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}`

// A handler that goes as far as the language lets it.
func TestNoHandlerChangesWhatTheNextRequestSees(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	token := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Scopes: []string{"read", "write"}, Claims: map[string]any{
		"aud": []string{testguard.Shop, "https://other.api"}, "tags": []any{"a"}, "nested": map[string]any{"a": "b"},
	}})
	type seen struct {
		app, scopes string
		audience    []string
		expires     time.Time
		payload     string
		decoded     map[string]any
	}
	look := func(c m2mauth.Claims) (s seen) {
		s = seen{app: c.AppID(), scopes: c.Scopes().String(), audience: c.Audience(), expires: c.ExpiresAt()}
		var raw json.RawMessage
		require.NoError(t, c.Decode(&raw))
		s.payload = string(raw)
		require.NoError(t, c.Decode(&s.decoded))
		return s
	}
	var want seen
	handler := guard.Require("read", "write")(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		claims, _ := m2mauth.FromContext(r.Context())
		s := look(claims)
		if want.app == "" {
			want = look(claims)
			want.audience = []string{testguard.Shop, "https://other.api"}
		}
		assert.Equal(t, want, s)

		s.audience[0] = "changed"
		_ = append(s.audience[:1], "changed")
		s.decoded["sub"] = "changed"
		s.decoded["nested"].(map[string]any)["a"] = "changed"
		s.decoded["tags"].([]any)[0] = "changed"
		var raw json.RawMessage
		_ = claims.Decode(&raw)
		clear(raw)
		var greedy keepsBytes
		_ = claims.Decode(&greedy)
		clear(greedy)
		for scope := range claims.Scopes().All() {
			scope += "changed"
			_ = scope
		}
	}))
	for range 3 { // verified, and twice remembered
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, testguard.RequestWith("Bearer "+token))
		require.Equal(t, http.StatusOK, w.Code)
	}
	assert.EqualValues(t, 2, guard.Stats().Hits)
}

// keepsBytes is a decoder of a user's own that keeps what it is given.
type keepsBytes []byte

func (k *keepsBytes) UnmarshalJSON(b []byte) error {
	*k = b
	return nil
}

func TestAFloodOfGoodTokensLeavesTheHotOneRemembered(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	issuer.Rotate("EdDSA")
	guard := testguard.Quiet(t, issuer)
	m2mauth.ShrinkMemory(guard, 512<<10)
	hot := known(t, guard, issuer)
	for i := range 2000 {
		known(t, guard, issuer)
		if i%30 == 0 {
			assertHits(t, guard, hot, i)
		}
	}
	stats := guard.Stats()
	assert.EqualValues(t, 2001, stats.Misses)
	assert.EqualValues(t, 2001-m2mauth.Remembered(guard), stats.Evicted)
	assert.Greater(t, stats.Evicted, uint64(1000))
}

func TestForgedTokensNeverEnterTheMemory(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	require.NoError(t, guard.Warm(t.Context()))
	forger := m2mauthtest.NewIssuer()
	forged := forger.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"kid": issuer.KeyIDs()[0]}})
	good := issuer.Token(testguard.Shop)
	last := strings.LastIndexByte(good, '.')
	for name, test := range map[string]struct {
		token string
		want  error
	}{
		"another key":         {forged, m2mauth.ErrSignature},
		"another's signature": {good[:last] + forged[strings.LastIndexByte(forged, '.'):], m2mauth.ErrSignature},
		"no signature":        {good[:last+1], m2mauth.ErrSignature},
		"expired":             {issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Expired: true}), m2mauth.ErrExpired},
		"not yet valid":       {issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}}), m2mauth.ErrNotYetValid},
		"another's audience":  {issuer.Token("https://other.api"), m2mauth.ErrAudience},
		"an unknown key":      {issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"kid": "made up"}}), m2mauth.ErrUnknownKey},
	} {
		for range 3 {
			claims, err := guard.Verify(t.Context(), test.token)
			assert.ErrorIs(t, err, test.want, name)
			assert.True(t, claims.IsZero(), name)
		}
		assert.Zero(t, m2mauth.Remembered(guard), name)
	}
	assert.Zero(t, guard.Stats().Hits)
	assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
}

func TestWithoutMemoryEveryTokenIsVerified(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.CacheBytes = -1 })
	token := issuer.Token(testguard.Shop)
	for range 5 {
		_, err := guard.Verify(t.Context(), token)
		require.NoError(t, err)
	}
	assert.Equal(t, m2mauth.Stats{Misses: 5}, guard.Stats())
	assert.Zero(t, m2mauth.Remembered(guard))
}

func TestMemoryOfAGuardIsBounded(t *testing.T) {
	const bound = 1 << 20
	issuer := m2mauthtest.NewIssuer()
	issuer.Rotate("EdDSA")
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.CacheBytes = bound })
	known(t, guard, issuer)
	held := testguard.KeysMemory(t)
	for range 2500 {
		known(t, guard, issuer)
	}
	grown := held()
	t.Logf("%.1f MiB for %d tokens", float64(grown)/(1<<20), m2mauth.Remembered(guard))
	assert.Less(t, grown, int64(bound+bound/4))
	assert.Greater(t, m2mauth.Remembered(guard), 250)
	runtime.KeepAlive(guard)
}

// A dump of the heap, as one may attach to a bug report, must not hold tokens
// that could be used. Not parallel: tests that use the name would spoil it.
func TestAHeapDumpShowsNoRememberedToken(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	const mask = 0x5a // what is looked for must not lie in the heap itself
	var masked [2][]byte
	done := make(chan struct{})
	go func() { // on a stack of its own, which ends
		defer close(done)
		token := known(t, guard, issuer, "a-scope-to-be-found")
		signature := token[strings.LastIndexByte(token, '.')+1:]
		raw, err := base64.RawURLEncoding.DecodeString(signature)
		assert.NoError(t, err)
		for i, part := range []string{signature, string(raw)} {
			for _, c := range []byte(part[len(part)/2:]) { // the first half is kept
				masked[i] = append(masked[i], c^mask)
			}
		}
		clear(raw)
	}()
	<-done
	require.Equal(t, 1, m2mauth.Remembered(guard))
	runtime.GC()
	runtime.GC()

	file, err := os.Create(filepath.Join(t.TempDir(), "heap"))
	require.NoError(t, err)
	debug.WriteHeapDump(file.Fd())
	require.NoError(t, file.Close())
	dump, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	assert.Contains(t, string(dump), "a-scope-to-be-found", "the claims are in it")
	for i := range dump {
		dump[i] ^= mask
	}
	const window = 12 // bytes: enough for none to be there by chance
	for i, form := range []string{"as it was sent", "decoded"} {
		for at := range len(masked[i]) - window + 1 {
			if !assert.False(t, bytes.Contains(dump, masked[i][at:at+window]), "the signature's second half, %s, is in the heap from byte %d on", form, at) {
				break
			}
		}
	}
	runtime.KeepAlive(guard)
}

// Not parallel: it counts the process's allocations.
func TestAHitMakesTwoAllocationsAtMost(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	handler := guard.Require("read")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r, w := testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, "read")), httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	require.Equal(t, http.StatusOK, w.Code)
	assert.LessOrEqual(t, testing.AllocsPerRun(1000, func() { handler.ServeHTTP(w, r) }), 2.0)
	assert.EqualValues(t, 1, guard.Stats().Misses)
}

// Everything at once, for the race detector: good tokens known and new, forged
// ones, callers that give up, a memory that is too small, and keys that change.
func TestGuardUnderLoad(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	issuer.Rotate("EdDSA")
	guard := testguard.Quiet(t, issuer)
	m2mauth.ShrinkMemory(guard, 128<<10)
	handler := guard.Require("read")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := m2mauth.FromContext(r.Context())
		assert.Equal(t, "read", claims.Scopes().String())
	}))
	hot := issuer.Token(testguard.Shop, "read")
	forged := hot[:len(hot)-20] + strings.Repeat("A", 20)
	var wg sync.WaitGroup
	for client := range 16 {
		wg.Go(func() {
			for i := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				token, want := hot, http.StatusOK
				switch i % 4 {
				case 1:
					token = issuer.Token(testguard.Shop, "read")
				case 2:
					token, want = forged, http.StatusUnauthorized
				case 3:
					go cancel()
				}
				r := testguard.RequestWith("Bearer " + token).WithContext(ctx)
				r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", client%5)
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				if w.Code != want && (i%4 != 3 || w.Code != http.StatusServiceUnavailable) {
					t.Errorf("%d instead of %d: %s", w.Code, want, w.Body)
				}
				cancel()
				if client == 0 && i%20 == 0 {
					issuer.PublishJWK(json.RawMessage(fmt.Sprintf(`{"kty":"odd","kid":"%d"}`, i)))
					_, _ = guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"kid": fmt.Sprint(i)}}))
				}
			}
		})
	}
	wg.Wait()
	assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	stats := guard.Stats()
	assert.Positive(t, stats.Hits)
	assert.Positive(t, stats.Evicted)
}

// BenchmarkCheck measures one request from its Authorization field to the
// decision. Compare with BenchmarkSignatureES384 of the same run.
func BenchmarkCheck(b *testing.B) {
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(b, issuer)
	require.NoError(b, guard.Warm(b.Context()))
	madeUp := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Scopes: []string{"read"}, Header: map[string]any{"kid": "made up"}})
	_, err := guard.Verify(b.Context(), madeUp) // the one fetch that it causes
	require.ErrorIs(b, err, m2mauth.ErrUnknownKey)

	for _, benchmark := range []struct {
		name   string
		fields []string
		want   error
	}{
		{"a good ES384 token", []string{"Bearer " + issuer.Token(testguard.Shop, "read")}, nil},
		{"a token of another resource", []string{"Bearer " + issuer.Token("https://other.api", "read")}, m2mauth.ErrAudience},
		{"an opaque token", []string{"Bearer Xk3vJ9opaque_access_token_of_43_characters_"}, m2mauth.ErrMalformed},
		{"a made-up key ID in the cooldown", []string{"Bearer " + madeUp}, m2mauth.ErrUnknownKey},
		{"no token", nil, m2mauth.ErrNoToken},
	} {
		b.Run(benchmark.name, func(b *testing.B) {
			r, rule := testguard.RequestWith(benchmark.fields...), m2mauth.AllScopes("read")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := guard.Check(r, rule); (err == nil) != (benchmark.want == nil) {
					b.Fatal(err)
				}
			}
			_, err := guard.Check(r, rule)
			require.ErrorIs(b, err, benchmark.want)
		})
	}
}

// BenchmarkSignatureES384 is the least that a good token can cost: SHA-384 over
// 600 bytes and one verification with the standard library.
func BenchmarkSignatureES384(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), cryptorand.Reader)
	require.NoError(b, err)
	input := make([]byte, 600)
	sum := sha512.Sum384(input)
	r, s, err := ecdsa.Sign(cryptorand.Reader, key, sum[:])
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		sum := sha512.Sum384(input)
		if !ecdsa.Verify(&key.PublicKey, sum[:], r, s) {
			b.Fatal("a wrong signature")
		}
	}
}

// knownRequest has a token that the guard has seen before.
func knownRequest(tb testing.TB, guard *m2mauth.Guard, issuer *m2mauthtest.Issuer, rule string) *http.Request {
	token := m2mauthtest.Token{Audience: testguard.Shop, AppID: "app", Scopes: []string{"read"}}
	if rule == "an organization's rule" {
		token.OrganizationID = "acme"
	}
	r := testguard.RequestWith("Bearer " + issuer.Sign(token))
	r.SetPathValue("org", "acme")
	_, err := guard.Check(r, rulesToMeasure()[rule])
	require.NoError(tb, err)
	return r
}

// BenchmarkKnownTokenAllCores is what a few busy callers cost: one token, on every
// core. Run it with -cpu 1,2 and so on. It gains from a core what
// BenchmarkNothingSharedAllCores of the same run does.
func BenchmarkKnownTokenAllCores(b *testing.B) {
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(b, issuer)
	known, rule := knownRequest(b, guard, issuer, "a plain rule"), m2mauth.AllScopes("read")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := known.Clone(b.Context())
		for pb.Next() {
			if _, err := guard.Check(r, rule); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkNothingSharedAllCores is a loop of about the same length on memory of
// each core's own.
func BenchmarkNothingSharedAllCores(b *testing.B) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		own := make([]byte, 600)
		for pb.Next() {
			sum := sha256.Sum256(own)
			copy(own, sum[:])
		}
	})
}
