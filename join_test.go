package m2mauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
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

// tenant is an issuer under a name of its own, where the kit's all have one.
type tenant struct {
	*m2mauthtest.Issuer
	name string
}

func newTenant(name string) tenant { return tenant{m2mauthtest.NewIssuer(), name} }

// guard makes a guard of the shop for this issuer alone.
func (i tenant) guard(tb testing.TB, change ...func(*m2mauth.Config)) *m2mauth.Guard {
	tb.Helper()
	return testguard.Quiet(tb, i.Issuer, append([]func(*m2mauth.Config){func(c *m2mauth.Config) {
		c.Issuer, c.JWKSURL = i.name, i.JWKSURL()
	}}, change...)...)
}

func (i tenant) token(scopes ...string) string {
	return i.sign(m2mauthtest.Token{Audience: testguard.Shop, Scopes: scopes})
}

func (i tenant) sign(t m2mauthtest.Token) string {
	claims := map[string]any{"iss": i.name}
	for name, value := range t.Claims {
		claims[name] = value
	}
	t.Claims = claims
	return i.Sign(t)
}

func twoTenants(t *testing.T) (one, two tenant, both *m2mauth.Guard) {
	t.Helper()
	one, two = newTenant("https://one.logto.app/oidc"), newTenant("https://two.logto.app/oidc")
	return one, two, joined(t, one.guard(t), two.guard(t))
}

func joined(tb testing.TB, first *m2mauth.Guard, others ...*m2mauth.Guard) *m2mauth.Guard {
	tb.Helper()
	guard, err := m2mauth.Join(first, others...)
	require.NoError(tb, err)
	return guard
}

func TestAJoinedGuardTakesTokensOfEachIssuer(t *testing.T) {
	t.Parallel()
	one, two, both := twoTenants(t)
	api := both.Require("read:products")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := m2mauth.FromContext(r.Context())
		_, _ = io.WriteString(w, claims.Issuer())
	}))
	for range 2 { // new, then remembered
		for _, from := range []tenant{one, two} {
			w := httptest.NewRecorder()
			api.ServeHTTP(w, testguard.RequestWith("Bearer "+from.token("read:products")))
			assert.Equal(t, http.StatusOK, w.Code)
			assert.Equal(t, from.name, w.Body.String())

			w = httptest.NewRecorder()
			api.ServeHTTP(w, testguard.RequestWith("Bearer "+from.token()))
			assert.Equal(t, http.StatusForbidden, w.Code, "a rule holds for every issuer")
		}
	}
}

func TestOneServerUnderTwoDomainsIsTwoIssuersWithTheSameKeys(t *testing.T) {
	t.Parallel()
	server := m2mauthtest.NewIssuer()
	main, custom := tenant{server, "https://id.logto.app/oidc"}, tenant{server, "https://login.shop.example/oidc"}
	both := joined(t, main.guard(t), custom.guard(t))
	for _, domain := range []tenant{main, custom} {
		claims, err := both.Verify(t.Context(), domain.token())
		require.NoError(t, err)
		assert.Equal(t, domain.name, claims.Issuer())
	}
}

// Whatever a token says of its issuer, that issuer's guard checks everything.
func TestATokenOfAnotherIssuerThanItSays(t *testing.T) {
	t.Parallel()
	one, two, both := twoTenants(t)
	require.NoError(t, both.Warm(t.Context()))
	for _, test := range []struct {
		name, token string
		want        error
	}{
		{"of issuer 1, signed by issuer 2's key", two.sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"iss": one.name}}), m2mauth.ErrUnknownKey},
		{"the same, with issuer 1's kid", two.sign(m2mauthtest.Token{Audience: testguard.Shop,
			Claims: map[string]any{"iss": one.name}, Header: map[string]any{"kid": one.KeyIDs()[0]}}), m2mauth.ErrSignature},
		{"of issuer 2, signed by issuer 1's key, with issuer 2's kid", one.sign(m2mauthtest.Token{Audience: testguard.Shop,
			Claims: map[string]any{"iss": two.name}, Header: map[string]any{"kid": two.KeyIDs()[0]}}), m2mauth.ErrSignature},
		{"of the second of two iss", twiceIssued(one, two), m2mauth.ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for range 2 {
				claims, err := both.Verify(t.Context(), test.token)
				assert.ErrorIs(t, err, test.want)
				assert.True(t, claims.IsZero())
			}
		})
	}
}

func twiceIssued(one, two tenant) string {
	now := time.Now().Unix()
	return two.Sign(m2mauthtest.Token{RawClaims: fmt.Appendf(nil,
		`{"iss":%q,"iss":%q,"aud":%q,"sub":"a","client_id":"a","jti":"j","iat":%d,"exp":%d}`, one.name, two.name, testguard.Shop, now, now+3600)})
}

// An administrator may choose key IDs, and two issuers may choose the same.
func TestTheSameKeyIDAtTwoIssuers(t *testing.T) {
	t.Parallel()
	one, two := newStaticIssuer(t, "https://one.test/oidc", "the key"), newStaticIssuer(t, "https://two.test/oidc", "the key")
	both := joined(t, one.guard(t), two.guard(t))
	for range 2 {
		for _, from := range []staticIssuer{one, two} {
			claims, err := both.Verify(t.Context(), from.token(from.name))
			require.NoError(t, err)
			assert.Equal(t, from.name, claims.Issuer())
		}
		_, err := both.Verify(t.Context(), one.token(two.name))
		assert.ErrorIs(t, err, m2mauth.ErrSignature)
		_, err = both.Verify(t.Context(), two.token(one.name))
		assert.ErrorIs(t, err, m2mauth.ErrSignature)
	}
}

// staticIssuer has a key under an ID of its choice.
type staticIssuer struct {
	name, kid string
	key       *ecdsa.PrivateKey
}

func newStaticIssuer(t *testing.T, name, kid string) staticIssuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return staticIssuer{name, kid, key}
}

func (i staticIssuer) guard(t *testing.T) *m2mauth.Guard {
	point, err := i.key.PublicKey.Bytes()
	require.NoError(t, err)
	encode := base64.RawURLEncoding.EncodeToString
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer: i.name, Audience: testguard.Shop, Logger: slog.New(slog.DiscardHandler),
		JWKS: fmt.Appendf(nil, `{"keys":[{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}]}`, i.kid, encode(point[1:33]), encode(point[33:])),
	})
	require.NoError(t, err)
	return guard
}

func (i staticIssuer) token(issuer string) string {
	now := time.Now().Unix()
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode(fmt.Appendf(nil, `{"alg":"ES256","typ":"at+jwt","kid":%q}`, i.kid)) + "." + encode(fmt.Appendf(nil,
		`{"iss":%q,"aud":%q,"sub":"a","client_id":"a","jti":"j","iat":%d,"exp":%d}`, issuer, testguard.Shop, now, now+3600))
	digest := sha256.Sum256([]byte(signed))
	r, s, _ := ecdsa.Sign(rand.Reader, i.key, digest[:])
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + encode(signature)
}

func TestATokenOfAnIssuerThatWasNotJoined(t *testing.T) {
	t.Parallel()
	synctest.Test(t, aTokenOfAnIssuerThatWasNotJoined)
}

func aTokenOfAnIssuerThatWasNotJoined(t *testing.T) {
	one, two, _ := twoTenants(t)
	book := new(logBook)
	both := joined(t, one.guard(t, func(c *m2mauth.Config) { c.Logger = slog.New(book) }), two.guard(t))
	for _, test := range []struct {
		name string
		iss  any
		want error
	}{
		{"by a slash at the end", one.name + "/", m2mauth.ErrIssuer},
		{"by letter case", strings.ToUpper(one.name), m2mauth.ErrIssuer},
		{"by the case of the host", "https://ONE.logto.app/oidc", m2mauth.ErrIssuer},
		{"by the default port", "https://one.logto.app:443/oidc", m2mauth.ErrIssuer},
		{"by the scheme", "http://one.logto.app/oidc", m2mauth.ErrIssuer},
		{"by a slash too many", "https://one.logto.app//oidc", m2mauth.ErrIssuer},
		{"by an escape", "https://one.logto.app/%6fidc", m2mauth.ErrIssuer},
		{"by white space", one.name + " ", m2mauth.ErrIssuer},
		{"by everything", "https://evil.example/oidc", m2mauth.ErrIssuer},
		{"empty", "", m2mauth.ErrClaims},
		{"absent", nil, m2mauth.ErrClaims},
		{"null", json.RawMessage("null"), m2mauth.ErrClaims},
		{"a list of one that is known", []string{one.name}, m2mauth.ErrClaims},
	} {
		_, err := both.Verify(t.Context(), one.sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"iss": test.iss}}))
		assert.ErrorIs(t, err, test.want, test.name)
	}
	for _, token := range []string{"opaque", "a.b", "a.!.c", "e30.e30.!", "e30.W10.e30", "e30..e30", "a.b.c.d.e"} {
		_, err := both.Verify(t.Context(), token)
		assert.ErrorIs(t, err, m2mauth.ErrMalformed, token)
	}
	assert.Zero(t, one.Fetches())
	assert.Zero(t, two.Fetches())
	for _, line := range book.take() {
		if line.attrs["kind"] == "wrong issuer" && line.level == slog.LevelWarn {
			assert.Contains(t, line.attrs["expected"], one.name)
			assert.Contains(t, line.attrs["expected"], two.name)
			return
		}
	}
	assert.Fail(t, "the log says nothing of the issuers")
}

func TestAFloodOfMadeUpIssuersCausesNoFetch(t *testing.T) {
	t.Parallel()
	one, two, both := twoTenants(t)
	for n := range 1000 {
		_, err := both.Verify(t.Context(), one.sign(m2mauthtest.Token{Audience: testguard.Shop,
			Claims: map[string]any{"iss": fmt.Sprintf("https://%d.example/oidc", n)}}))
		require.ErrorIs(t, err, m2mauth.ErrIssuer)
	}
	assert.Zero(t, one.Fetches())
	assert.Zero(t, two.Fetches())
	assert.Zero(t, m2mauth.Remembered(both))
	assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(both))
}

func TestADeadIssuerDelaysNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dead, alive, both := twoTenants(t)
		testguard.KeysHanging(dead.Issuer)
		begin := time.Now()
		var waiting sync.WaitGroup
		for range 100 { // more than there are places for signature checks
			token := dead.token()
			waiting.Go(func() {
				_, err := both.Verify(t.Context(), token)
				assert.ErrorIs(t, err, m2mauth.ErrUnavailable)
			})
		}
		synctest.Wait()
		for range 10 {
			_, err := both.Verify(t.Context(), alive.token())
			assert.NoError(t, err)
		}
		assert.NoError(t, both.Warm(t.Context()), "ready for the tokens of one")
		assert.Zero(t, time.Since(begin))
		waiting.Wait()
		assert.Equal(t, 5*time.Second, time.Since(begin))
	})
}

func TestWarmOfAJoinedGuard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two, both := twoTenants(t)
		down := func(http.Handler) http.Handler { return http.NotFoundHandler() }
		one.Intercept(down)
		two.Intercept(down)
		err := both.Warm(t.Context())
		require.ErrorIs(t, err, m2mauth.ErrUnavailable)
		assert.Equal(t, 2, strings.Count(err.Error(), "404"), "both failures are told: %v", err)

		two.Intercept(nil)
		time.Sleep(time.Minute)
		require.NoError(t, both.Warm(t.Context()))
		synctest.Wait()
		assert.Equal(t, m2mauth.KeysNone, both.Keys().State)
	})
}

// An issuer that is asked for another resource is one that operators hear of too.
func TestAJoinedGuardTellsOfIssuersOfOtherResources(t *testing.T) {
	t.Parallel()
	one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
	book := new(logBook)
	both := joined(t, one.guard(t, func(c *m2mauth.Config) { c.Logger = slog.New(book) }), two.guard(t, audienced("https://other.api")))
	two.Intercept(func(http.Handler) http.Handler { return http.NotFoundHandler() })
	require.NoError(t, both.Warm(t.Context()))
	_, err := both.Verify(t.Context(), two.sign(m2mauthtest.Token{Audience: "https://other.api"}))
	require.ErrorIs(t, err, m2mauth.ErrUnavailable)
	s := both.Keys()
	assert.Equal(t, two.name, s.Issuer)
	assert.Equal(t, m2mauth.KeysNone, s.State)
	require.Len(t, s.Others, 1)
	assert.Equal(t, one.name, s.Others[0].Issuer)

	_, err = both.Verify(t.Context(), one.sign(m2mauthtest.Token{Audience: testguard.Shop, Claims: map[string]any{"iss": "https://three.test/oidc"}}))
	require.ErrorIs(t, err, m2mauth.ErrIssuer)
	entries := book.take()
	assert.Equal(t, one.name+" "+two.name, entries[len(entries)-1].attrs["expected"])
}

func TestKeysOfAJoinedGuardShowTheWorstOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two, three := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc"), newTenant("https://three.test/oidc")
		all := joined(t, one.guard(t), two.guard(t), three.guard(t))
		states := func() (said []string) {
			s := all.Keys()
			require.Len(t, s.Others, 2)
			for _, s := range append([]m2mauth.KeyStatus{s}, s.Others...) {
				said = append(said, s.Issuer+" "+string(s.State))
			}
			return said
		}
		assert.Equal(t, []string{one.name + " none", three.name + " none", two.name + " none"}, states())

		for _, i := range []tenant{one, three} {
			_, err := all.Verify(t.Context(), i.token())
			require.NoError(t, err)
		}
		assert.Equal(t, []string{two.name + " none", one.name + " fresh", three.name + " fresh"}, states())

		_, err := all.Verify(t.Context(), two.token())
		require.NoError(t, err)
		three.Intercept(func(http.Handler) http.Handler { return http.NotFoundHandler() })
		time.Sleep(10*time.Minute - time.Second) // within the TTL: fresh, though the refresh fails
		for _, i := range []tenant{one, two, three} {
			_, err := all.Verify(t.Context(), i.token())
			require.NoError(t, err)
		}
		synctest.Wait()
		assert.Equal(t, []string{three.name + " fresh", one.name + " fresh", two.name + " fresh"}, states(), "one whose last fetch failed is worse off")
		assert.NotEmpty(t, all.Keys().LastError)
		time.Sleep(time.Minute)
		assert.Equal(t, three.name+" stale", states()[0])
	})
	assert.Equal(t, "https://one.test/oidc", newTenant("https://one.test/oidc").guard(t).Keys().Issuer)
}

func TestEachIssuerHasItsOwnSettings(t *testing.T) {
	t.Parallel()
	one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
	two.Rotate("RS256")
	both := joined(t,
		one.guard(t, func(c *m2mauth.Config) { c.Algorithms = []string{"ES384"} }),
		two.guard(t, func(c *m2mauth.Config) {
			c.Audience, c.Algorithms, c.TokenTypes = "api://shop", []string{"RS256"}, []string{"JWT"}
			c.ScopeClaims, c.ClientClaims, c.MaxLifetime = []string{"roles"}, []string{"azp"}, 10*time.Minute
			c.InsecureAllowOrganizationTokens = true
			c.IsMachine = func(c m2mauth.Claims) bool { return c.Subject() == "service" }
		}))
	other := func(claims map[string]any) m2mauthtest.Token {
		all := map[string]any{"client_id": nil, "azp": "the app", "sub": "service", "roles": []string{"read:products"}}
		for name, value := range claims {
			all[name] = value
		}
		return m2mauthtest.Token{Audience: "api://shop", Lifetime: time.Minute, Header: map[string]any{"typ": "JWT"}, Claims: all}
	}
	with := func(t m2mauthtest.Token, change func(*m2mauthtest.Token)) m2mauthtest.Token { change(&t); return t }
	good := m2mauthtest.Token{Audience: testguard.Shop, Scopes: []string{"read:products"}}
	for _, test := range []struct {
		name  string
		from  tenant
		token m2mauthtest.Token
		want  error
	}{
		{"a token in issuer 1's form", one, good, nil},
		{"a token in issuer 2's form", two, other(nil), nil},
		{"issuer 1 and the audience of issuer 2", one, with(good, func(t *m2mauthtest.Token) { t.Audience = "api://shop" }), m2mauth.ErrAudience},
		{"issuer 2 and the audience of issuer 1", two, with(other(nil), func(t *m2mauthtest.Token) { t.Audience = testguard.Shop }), m2mauth.ErrAudience},
		{"issuer 1 and the typ of issuer 2", one, with(good, func(t *m2mauthtest.Token) { t.Header = map[string]any{"typ": "JWT"} }), m2mauth.ErrType},
		{"issuer 2 and the typ of issuer 1", two, with(other(nil), func(t *m2mauthtest.Token) { t.Header = nil }), m2mauth.ErrType},
		{"issuer 2 and the alg of issuer 1", two, with(other(nil), func(t *m2mauthtest.Token) { t.KeyID = two.KeyIDs()[1] }), m2mauth.ErrAlgorithm},
		{"issuer 1 and the client claim of issuer 2", one, with(good, func(t *m2mauthtest.Token) {
			t.Claims = map[string]any{"client_id": nil, "azp": "the app"}
		}), m2mauth.ErrClaims},
		{"issuer 1 and the scope claim of issuer 2", one, with(good, func(t *m2mauthtest.Token) {
			t.Scopes, t.Claims = nil, map[string]any{"roles": []string{"read:products"}}
		}), m2mauth.ErrScope},
		{"issuer 2 and a lifetime over its bound", two, with(other(nil), func(t *m2mauthtest.Token) { t.Lifetime = time.Hour }), m2mauth.ErrClaims},
		{"issuer 2, which allows organizations", two, other(map[string]any{"organization_id": "acme"}), nil},
		{"issuer 1, which does not", one, with(good, func(t *m2mauthtest.Token) { t.Claims = map[string]any{"organization_id": "acme"} }), m2mauth.ErrForbidden},
		{"issuer 2 and what is a user there", two, other(map[string]any{"sub": "somebody"}), m2mauth.ErrForbidden},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			rule := m2mauth.AllOf(m2mauth.AllScopes("read:products"), m2mauth.MachineToken())
			token := test.from.sign(test.token)
			for range 2 {
				_, err := both.Check(testguard.RequestWith("Bearer "+token), rule)
				if test.want == nil {
					assert.NoError(t, err)
				} else {
					assert.ErrorIs(t, err, test.want)
				}
			}
		})
	}
}

func TestIssuersShareOneBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
		first := one.guard(t)
		m2mauth.ShrinkMemory(first, 200_000)
		both := joined(t, first, two.guard(t)) // the first's bound, not the second's
		for n := range 600 {
			_, err := both.Verify(t.Context(), []tenant{one, two}[n%2].token())
			require.NoError(t, err)
		}
		assert.Less(t, m2mauth.Remembered(both), 200)
		assert.NotZero(t, both.Stats().Evicted)
		assert.EqualValues(t, 600, both.Stats().Misses)

		_, release := m2mauth.HoldPlaces(both)
		var waiting sync.WaitGroup
		for _, i := range []tenant{one, two} {
			token := i.token()
			waiting.Go(func() {
				_, err := both.Verify(t.Context(), token)
				assert.NoError(t, err)
			})
		}
		synctest.Wait()
		assert.EqualValues(t, 2, both.Stats().Waited, "a place taken is taken for all issuers")
		release()
		waiting.Wait()
	})
}

func TestRememberedTokensStayWithTheirIssuer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two, both := twoTenants(t)
		tokens := map[tenant]string{one: one.token("read"), two: two.token("read")}
		for range 3 {
			for i, token := range tokens {
				claims, err := both.Verify(t.Context(), token)
				require.NoError(t, err)
				assert.Equal(t, i.name, claims.Issuer())
			}
		}
		assert.EqualValues(t, 4, both.Stats().Hits)

		old := two.KeyIDs()[0]
		two.Rotate("ES384")
		two.Withdraw(old)
		time.Sleep(11 * time.Minute)
		_, err := both.Verify(t.Context(), tokens[one])
		assert.NoError(t, err)
		_, err = both.Verify(t.Context(), tokens[two])
		assert.ErrorIs(t, err, m2mauth.ErrUnknownKey, "remembered, and its own issuer's key is gone")
	})
}

// GHSA-4mq7-pvjg-xp2r: what one server had vouched for was found in the memory
// when another was to be asked about the same token.
func TestATokenThatOneServerVouchesForIsNotRememberedForAnother(t *testing.T) {
	t.Parallel()
	const kid = "the key"
	one, third := newStaticIssuer(t, "https://one.test/oidc", kid), newStaticIssuer(t, "https://three.test/oidc", kid)
	namesake, sameKey := newStaticIssuer(t, one.name, kid), one
	sameKey.name = "https://two.test/oidc"
	for name, other := range map[string]struct {
		issuer staticIssuer
		want   error
	}{
		"another key under the same name and key ID": {namesake, m2mauth.ErrSignature},
		"the same key under another name":            {sameKey, m2mauth.ErrIssuer},
	} {
		for kind, guardOf := range map[string]func(staticIssuer) *m2mauth.Guard{
			"a guard alone": func(i staticIssuer) *m2mauth.Guard { return i.guard(t) },
			"joined guards": func(i staticIssuer) *m2mauth.Guard { return joined(t, i.guard(t), third.guard(t)) },
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				ours, theirs, token := guardOf(one), guardOf(other.issuer), one.token(one.name)
				for range 3 {
					_, err := ours.Verify(t.Context(), token)
					require.NoError(t, err)
					_, err = theirs.Verify(t.Context(), token)
					assert.ErrorIs(t, err, other.want)
				}
				assert.EqualValues(t, 2, ours.Stats().Hits)
				assert.Zero(t, theirs.Stats().Hits)
			})
		}
	}
}

func TestJoinNamesEveryMistake(t *testing.T) {
	t.Parallel()
	one, two, both := twoTenants(t)
	first, second := one.guard(t), two.guard(t)
	for _, test := range []struct {
		name   string
		guards []*m2mauth.Guard
		says   []string
	}{
		{"nil first", []*m2mauth.Guard{nil, second}, []string{"guard 1 is nil"}},
		{"nil second", []*m2mauth.Guard{first, nil}, []string{"guard 2 is nil"}},
		{"a guard that New did not make", []*m2mauth.Guard{first, {}}, []string{"guard 2 is nil or was not made by New"}},
		{"joined before", []*m2mauth.Guard{both}, []string{"guard 1", "was joined already"}},
		{"the same guard twice", []*m2mauth.Guard{first, second, first}, []string{"guard 3 has the issuer of another, " + one.name}},
		{"two guards of one issuer", []*m2mauth.Guard{first, one.guard(t)}, []string{"guard 2 has the issuer of another, " + one.name}},
		{"all at once", []*m2mauth.Guard{nil, first, first, both}, []string{"guard 1", "guard 3", "guard 4"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			guard, err := m2mauth.Join(test.guards[0], test.guards[1:]...)
			require.Error(t, err)
			assert.Nil(t, guard)
			assert.Len(t, strings.Split(err.Error(), "\n"), max(1, len(test.says)-strings.Count(test.name, "joined")), "%v", err)
			for _, text := range test.says {
				assert.ErrorContains(t, err, text)
			}
		})
	}
}

// TestARouteThatNoMemberOpensIsAMistakeInAnyOrder: one whose rule names no
// organization, where every token is limited to one.
func TestARouteThatNoMemberOpensIsAMistakeInAnyOrder(t *testing.T) {
	t.Parallel()
	api := newTenant("https://api.test/oidc").guard(t)
	organizations := newTenant("https://one.test/oidc").guard(t, ofOrganizations)
	others := newTenant("https://two.test/oidc").guard(t, ofOrganizations)
	open := newTenant("https://open.test/oidc").guard(t, ofOrganizations, func(c *m2mauth.Config) { c.InsecureAllowOrganizationTokens = true })
	for _, test := range []struct {
		name    string
		guards  []*m2mauth.Guard
		mistake bool
	}{
		{"organization tokens alone", []*m2mauth.Guard{organizations, others}, true},
		{"organization tokens of one issuer", []*m2mauth.Guard{organizations}, true},
		{"an API's tokens too", []*m2mauth.Guard{organizations, api}, false},
		{"an API's tokens too, among several", []*m2mauth.Guard{organizations, others, api}, false},
		{"one that leaves organizations to handlers", []*m2mauth.Guard{organizations, open}, false},
		{"that one alone", []*m2mauth.Guard{open}, false},
		{"that one and an API", []*m2mauth.Guard{open, api}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for n := range test.guards { // each of them first
				both := joined(t, test.guards[n], append(slices.Clone(test.guards[:n]), test.guards[n+1:]...)...)
				assert.NotPanics(t, func() { both.RequireRule(m2mauth.OrganizationPath("org")) })
				if test.mistake {
					assert.Panics(t, func() { both.Require("read") }, "guard %d first", n+1)
				} else {
					assert.NotPanics(t, func() { both.Require("read") }, "guard %d first", n+1)
				}
			}
		})
	}
}

func TestJoinedGuardsGoOnWorkingByThemselves(t *testing.T) {
	t.Parallel()
	one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
	first, second := one.guard(t), two.guard(t)
	both := joined(t, first, second)
	both.Metadata(m2mauth.MetadataConfig{})
	for _, i := range []tenant{one, two} {
		_, err := both.Verify(t.Context(), i.token())
		require.NoError(t, err)
	}
	_, err := first.Verify(t.Context(), one.token())
	assert.NoError(t, err)
	_, err = first.Verify(t.Context(), two.token())
	require.ErrorIs(t, err, m2mauth.ErrIssuer)
	assert.NotContains(t, challengeOf(err), "resource_metadata", "the joined guard's document is not the first's")
	_, err = second.Verify(t.Context(), two.token())
	assert.NoError(t, err)
	_, err = second.Verify(t.Context(), one.token())
	assert.ErrorIs(t, err, m2mauth.ErrIssuer)
	assert.Equal(t, 1, one.Fetches().JWKS, "they share the keys")
	assert.Equal(t, 1, m2mauth.Remembered(first))
	assert.Equal(t, 2, m2mauth.Remembered(both))

	alone := joined(t, first)
	_, err = alone.Verify(t.Context(), one.token())
	assert.NoError(t, err)
	assert.Empty(t, alone.Keys().Others)
}

// Nor does one wait for the other.
func TestAJoinedGuardAndItsFirstShareNoBoundAndNoCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
		first := one.guard(t)
		both := joined(t, first, two.guard(t))
		require.NoError(t, first.Warm(t.Context()))
		token := one.token()
		places, leave := m2mauth.HoldPlaces(first)
		begin := time.Now()
		var waiting sync.WaitGroup
		waiting.Go(func() {
			_, err := first.Verify(t.Context(), token)
			assert.NoError(t, err)
		})
		synctest.Wait()
		for _, token := range []string{token, one.token(), two.token()} { // the one that the first is about to check, too
			_, err := both.Verify(t.Context(), token)
			assert.NoError(t, err)
		}
		assert.Zero(t, time.Since(begin))
		for range places {
			leave()
		}
		waiting.Wait()
		assert.Equal(t, m2mauth.Stats{Misses: 1, Waited: 1, Cached: 1, CachedBytes: first.Stats().CachedBytes}, first.Stats())
		assert.Equal(t, m2mauth.Stats{Misses: 3, Cached: 3, CachedBytes: both.Stats().CachedBytes}, both.Stats())
	})
}

func TestTheFirstGuardsQueueKeyIsAskedForEveryIssuer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
		one.Rotate("EdDSA") // whose checks are quick
		two.Rotate("EdDSA")
		both := joined(t,
			one.guard(t, func(c *m2mauth.Config) {
				c.QueueKey = func(r m2mauth.Request) string { return r.Header("X-Client")[0] }
			}),
			two.guard(t))
		for _, i := range []tenant{one, two} { // the keys first
			_, err := both.Verify(t.Context(), i.token())
			require.NoError(t, err)
		}
		places, leave := m2mauth.HoldPlaces(both)
		var flood sync.WaitGroup
		check := func(client, token string) error {
			r := testguard.RequestWith("Bearer " + token)
			r.Header.Set("X-Client", client)
			_, err := both.Check(r, m2mauth.AnyToken())
			return err
		}
		forged := []func(int) string{forgerOf(one.token()), forgerOf(two.token())}
		for i := range 1000 {
			flood.Go(func() { assert.ErrorIs(t, check("a", forged[i%2](i)), m2mauth.ErrSignature) })
		}
		synctest.Wait()
		assert.ErrorIs(t, check("a", one.token()), m2mauth.ErrBusy)
		assert.ErrorIs(t, check("a", two.token()), m2mauth.ErrBusy)
		for _, i := range []tenant{one, two} {
			flood.Go(func() { assert.NoError(t, check("b", i.token())) })
		}
		synctest.Wait()
		for range places {
			leave()
		}
		flood.Wait()
	})
}

// What would be ignored is a mistake. Each field of the Config is the whole guard's or
// an issuer's: a new one must be put on one of the two lists.
func TestJoinRefusesWhatOnlyTheFirstGuardMaySet(t *testing.T) {
	t.Parallel()
	ofTheGuard := map[string]any{
		"CacheBytes":              int64(1 << 20),
		"ErrorHandler":            func(http.ResponseWriter, *http.Request, *m2mauth.Error) {},
		"InsecureReportOnlyUntil": time.Now().Add(time.Hour),
		"MaxTokenBytes":           16 << 10,
		"OnDecision":              func(context.Context, m2mauth.Decision) {},
		"QueueKey":                func(m2mauth.Request) string { return "" },
		"Realm":                   "shop",
		"Revoked":                 func(context.Context, m2mauth.Claims) (bool, error) { return false, nil },
	}
	ofAnIssuer := []string{
		"Algorithms", "Audience", "ClientClaims", "FetchTimeout", "HTTPClient", "InsecureAllowOrganizationTokens", "InsecureHTTPHosts",
		"IsMachine", "Issuer", "JWKS", "JWKSURL", "KeyStaleFor", "KeyTTL", "Leeway", "Logger", "MaxLifetime", "OtherAudiences", "ScopeClaims", "TokenTypes",
		"AllowMissingSubject", "ClientsWithoutAudience", "ImpliedScopes", "OrganizationClaims", "RequiredClaims", "ScopeOrganization", "ScopePrefix",
	}
	var fields []string
	for field := range reflect.TypeFor[m2mauth.Config]().Fields() {
		fields = append(fields, field.Name)
	}
	assert.ElementsMatch(t, fields, append(slices.Collect(maps.Keys(ofTheGuard)), ofAnIssuer...))

	one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
	for name, value := range ofTheGuard {
		set := func(c *m2mauth.Config) { reflect.ValueOf(c).Elem().FieldByName(name).Set(reflect.ValueOf(value)) }
		_, err := m2mauth.Join(one.guard(t, set), two.guard(t))
		require.NoError(t, err, name)
		_, err = m2mauth.Join(one.guard(t), two.guard(t, set))
		require.EqualError(t, err, "m2mauth: Join: guard 2 sets "+name+", which only the first guard may: it holds for all")
	}
	_, err := m2mauth.Join(one.guard(t), two.guard(t, func(c *m2mauth.Config) { c.Leeway, c.Logger = time.Minute, slog.Default() }))
	require.NoError(t, err, "an issuer's own")
}

func TestAJoinedGuardAnswersAsTheFirst(t *testing.T) {
	t.Parallel()
	one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
	var decided []string
	both := joined(t,
		one.guard(t, func(c *m2mauth.Config) {
			c.Realm = "the first"
			c.OnDecision = func(_ context.Context, d m2mauth.Decision) { decided = append(decided, string(d.Outcome)) }
		}),
		two.guard(t))
	_, err := both.Check(testguard.RequestWith("Bearer "+two.token()), m2mauth.AllScopes("read"))
	require.ErrorIs(t, err, m2mauth.ErrScope)
	assert.Contains(t, challengeOf(err), `realm="the first"`)
	assert.Equal(t, []string{"insufficient_scope"}, decided)
}
