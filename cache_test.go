package m2mauth

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/claim"
	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/memory"
	"github.com/m2mauth/m2mauth/internal/scope"
)

// seenToken returns a token as it is remembered, with claims as Logto writes
// them, and as it was sent.
func seenToken(i int, more string) (raw string, t *token) {
	encode := base64.RawURLEncoding.EncodeToString
	payload := fmt.Sprintf(`{"jti":"%043d","sub":"9g3ysn2y3h2zzyxmacnuq","iat":1700000000,"exp":1700003600,%s`+
		`"client_id":"9g3ysn2y3h2zzyxmacnuq","iss":"https://your.logto.endpoint/oidc","aud":"https://shopping.api"}`, i, more)
	header := `{"alg":"ES384","typ":"at+jwt","kid":"SBasCVkyoYgWgue4kzY_7HWSxuJipg6mIzdecQY9B9w"}`
	policy := claimPolicy{
		issuer: "https://your.logto.endpoint/oidc", audiences: []string{"https://shopping.api"},
		sought: usualClaims, scopes: new(scope.Policy),
	}
	claims, e := policy.read([]byte(payload), true, time.Unix(1700000000, 0))
	if e != nil {
		panic(e)
	}
	claims.signed = encode([]byte(header)) + "." + encode([]byte(payload))
	raw = claims.signed + "." + fmt.Sprintf("%0128d", i)
	t = &token{
		claims: claims,
		header: jose.Header{Algorithm: "ES384", Type: "at+jwt", KeyID: strings.Clone(header[36:79]), HasType: true, HasKeyID: true},
	}
	t.forget(raw)
	return raw, t
}

// costOf is what the cache counts a token as.
func costOf(raw string, t *token) int64 { return t.cost() + int64(len(t.forget(raw))) }

const usualScope = `"scope":"read:products write:products",`

func TestATokenIsKnownByTheKeyThatVerifiedIt(t *testing.T) {
	t.Parallel()
	g := &Guard{tokens: memory.New[*token](defaultCacheBytes)}
	raw, known := seenToken(1, usualScope)
	assert.False(t, g.has(raw, nil))
	g.keep(raw, known)
	assert.True(t, g.has(raw, nil))
	assert.False(t, g.has(raw, new(jose.Key)), "by another key it was not verified")
	otherRaw, _ := seenToken(2, usualScope)
	assert.False(t, g.has(otherRaw, nil))
}

func TestEachAudienceAndEachScopeCosts(t *testing.T) {
	t.Parallel()
	_, bare := seenToken(1, usualScope)
	for name, grow := range map[string]func(*claimSet){
		"audiences": func(c *claimSet) { c.audience = append(c.audience, make([]string, 100)...) },
		"actors": func(c *claimSet) {
			for range 100 {
				c.actor = &claim.Actor{Prior: c.actor}
			}
		},
		"scopes": func(c *claimSet) { c.scopes.names = append(c.scopes.names, make([]string, 100)...) },
	} {
		_, more := seenToken(1, usualScope)
		grow(more.claims)
		assert.GreaterOrEqual(t, more.cost()-bare.cost(), int64(100*unsafe.Sizeof("")), name)
	}
}

// heldBytes returns what the heap holds more than when it was made. Not for
// parallel tests.
func heldBytes() func() int64 {
	held := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools hold goes in the second
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := held()
	return func() int64 { return held() - before }
}

// One million distinct tokens, of the size of Logto's.
func TestMemoryOfAMillionTokens(t *testing.T) {
	_, sample := seenToken(0, usualScope)
	header, payload, _ := strings.Cut(sample.claims.signed, ".")
	clone := func(c *claimSet, signed string) *claimSet { // with memory of its own, as read gives it
		return &claimSet{
			issuer: strings.Clone(c.issuer), subject: strings.Clone(c.subject), clientID: strings.Clone(c.clientID), id: strings.Clone(c.id),
			audience:  []string{strings.Clone(c.audience[0])},
			scopes:    Scopes{names: scope.Split(strings.Clone(c.scopes.String()))},
			issuedAt:  c.issuedAt,
			expiresAt: c.expiresAt,
			signed:    signed,
		}
	}
	held := heldBytes()
	g := &Guard{tokens: memory.New[*token](defaultCacheBytes)}
	most := int64(0)
	for i := range 1_000_000 {
		signed := header + "." + payload[:len(payload)-8] + strconv.Itoa(10_000_000+i)
		seen := &token{claims: clone(sample.claims, signed), header: sample.header}
		seen.header.KeyID, seen.header.Algorithm = strings.Clone(seen.header.KeyID), strings.Clone(seen.header.Algorithm)
		raw := signed + "." + fmt.Sprintf("%0128d", i)
		g.keep(raw, seen)
		if i%250_000 == 249_999 {
			most = max(most, held())
		}
	}
	remembered := g.tokens.Stats().Kept
	t.Logf("%.1f MiB for %d tokens", float64(most)/(1<<20), remembered)
	assert.Less(t, most, int64(40<<20))
	assert.Greater(t, remembered, 8_000)
	runtime.KeepAlive(g)
}

// What a token takes depends on what the issuer put in. The bound holds for all.
func TestMemoryIsCountedWhateverTokensHold(t *testing.T) {
	const limit = 8 << 20
	for name, claims := range map[string]string{
		"Logto's":                   usualScope,
		"no scope":                  "",
		"one long scope":            `"scope":"` + strings.Repeat("a", 5200) + `",`,
		"scopes of a single letter": `"scope":"` + strings.Repeat("a ", 2600) + `",`,
		"scopes of two letters":     `"scope":"` + strings.Repeat("aa ", 1700) + `",`,
		"actors":                    `"act":{` + strings.Repeat(`"sub":"a","iss":"b","client_id":"c","act":{`, 7) + `"sub":"a"` + strings.Repeat("}", 8) + `,` + usualScope,
		"a long actor":              `"act":{"sub":"` + strings.Repeat("a", 3000) + `","x":"` + strings.Repeat("a", 2000) + `"},`,
		"a long claim of their own": `"x":"` + strings.Repeat("a", 5200) + `",`,
	} {
		t.Run(name, func(t *testing.T) {
			held := heldBytes()
			g := &Guard{tokens: memory.New[*token](limit)}
			cost := costOf(seenToken(0, claims))
			for i := range 3 * limit / cost {
				raw, seen := seenToken(int(i), claims)
				g.keep(raw, seen)
			}
			remembered := g.tokens.Stats().Kept
			t.Logf("%.1f MiB for %d tokens", float64(held())/(1<<20), remembered)
			assert.Less(t, held(), int64(limit+limit/8))
			assert.Positive(t, remembered)
			runtime.KeepAlive(g)
		})
	}
}

// What rules ask of remembered tokens' claims must not outgrow CacheBytes. Not
// parallel: it counts the process's memory.
func TestMemoryIsCountedWhateverRulesAskFor(t *testing.T) {
	const limit = 2 << 20
	long := strings.Repeat("s", 3000)
	all := []string{"sub", "iss", "jti", "aud", "client_id", "organization_id", "scope", "groups", "absent", "tier", "x0", "x1", "x2", "x3", "x4", "x5"}
	for name, more := range map[string]string{
		"Logto's":                     usualScope,
		"one long scope":              `"scope":"` + long + long + `",`,
		"scopes of a letter":          `"scope":"` + strings.Repeat("a ", 800) + `",`,
		"groups of a letter":          `"groups":["` + strings.Repeat(`g","`, 1500) + `last"],`,
		"some groups":                 `"groups":["one","two","three"],"tier":"gold",`,
		"a long claim":                `"tier":"` + long + `","x":"` + long + `",`,
		"a long actor":                `"act":{"sub":"` + long + `"},"groups":"` + long + `",`,
		"actors":                      `"act":{` + strings.Repeat(`"sub":"a","iss":"b","client_id":"c","act":{`, 7) + `"sub":"a"` + strings.Repeat("}", 8) + `,"tier":"gold",`,
		"an organization":             `"organization_id":"` + long + `",`,
		"small claims, all asked for": `"x0":"a","x1":"a","x2":"a","x3":"a","x4":"a","x5":"a",`,
	} {
		for _, asked := range [][]string{all, slices.Sorted(slices.Values(all))} {
			t.Run(name+", asked for "+asked[0], func(t *testing.T) {
				held := heldBytes()
				g := &Guard{tokens: memory.New[*token](limit)}
				cost := costOf(seenToken(0, more))
				for i := range 3 * limit / cost {
					raw, seen := seenToken(int(i), more)
					for _, claim := range asked {
						seen.claims.hasAny(named(claim), []string{"another"})
					}
					require.Equal(t, cost, costOf(raw, seen))
					g.keep(raw, seen)
				}
				remembered := g.tokens.Stats().Kept
				t.Logf("%.1f MiB for %d tokens", float64(held())/(1<<20), remembered)
				counted := int64(remembered) * cost
				assert.LessOrEqual(t, held(), counted+counted/20, "what is held is counted")
				assert.Positive(t, remembered)
				runtime.KeepAlive(g)
			})
		}
	}
}

// Not parallel: it counts the process's allocations.
func TestAClaimThatHasBeenReadIsNotKeptTwice(t *testing.T) {
	_, seen := seenToken(1, `"organization_id":"acme","azp":"9g3ysn2y3h2zzyxmacnuq","o":"acme",`+usualScope)
	c := seen.claims
	for claim, value := range map[string]string{
		"iss": c.issuer, "sub": c.subject, "jti": c.id, "aud": "https://shopping.api",
	} {
		assert.True(t, c.hasAny(named(claim), []string{"x", value}), claim)
		assert.False(t, c.hasAny(named(claim), []string{"x"}), claim)
	}
	require.False(t, keepsClaims(c))
	for claim, own := range map[string]string{"client_id": c.clientID, "azp": c.clientID, "organization_id": "acme", "o": "acme"} {
		assert.True(t, c.hasAny(named(claim), []string{own}), claim)
		got := c.stringsOf(named(claim))[0]
		want := map[string]string{c.clientID: c.clientID, "acme": c.organizationID}[own]
		assert.Same(t, unsafe.StringData(want), unsafe.StringData(got), claim)
	}
	sub, o := named("sub"), named("o")
	assert.Zero(t, testing.AllocsPerRun(100, func() { c.hasAny(sub, []string{"x"}); c.hasAny(o, []string{"x"}) }))
}

// keepsClaims reports whether claims that a rule asked for are kept.
func keepsClaims(c *claimSet) bool { return !reflect.ValueOf(&c.others).Elem().IsZero() }

func TestWhatAbsentClaimsEqual(t *testing.T) {
	t.Parallel()
	c := Claims{}.read()
	for _, claim := range []string{"iss", "sub", "jti", "aud", "client_id", "absent"} {
		assert.False(t, c.hasAny(named(claim), []string{"x"}), claim)
	}
}

func TestClaimsOverTheBoundAreReadAgain(t *testing.T) {
	t.Parallel()
	for _, number := range []int{1, 5, 1000} {
		_, seen := seenToken(1, `"groups":["`+strings.Repeat(`g","`, number-1)+`last"],`)
		for range 2 {
			list := seen.claims.stringsOf(named("groups"))
			require.Len(t, list, number)
			assert.Equal(t, "last", list[number-1])
		}
		assert.Equal(t, number < 1000, keepsClaims(seen.claims))
	}
}
