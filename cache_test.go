package m2mauth

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/jose"
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
		scopeClaims: claimNames([]string{"scope"}), clientClaims: claimNames([]string{"client_id"}), organizationClaims: claimNames([]string{"organization_id"}), scopes: new(scopePolicy),
	}
	claims, e := policy.read([]byte(payload), true, time.Unix(1700000000, 0))
	if e != nil {
		panic(e)
	}
	claims.signed = encode([]byte(header)) + "." + encode([]byte(payload))
	raw = claims.signed + "." + fmt.Sprintf("%0128d", i)
	t = &token{
		claims: claims,
		header: joseHeader{alg: "ES384", typ: "at+jwt", kid: strings.Clone(header[36:79]), hasTyp: true, hasKID: true},
	}
	t.forget(raw)
	return raw, t
}

const usualScope = `"scope":"read:products write:products",`

// contentsOf walks a generation of the shard, whose mutex is held. Each token is
// there once, where a look-up finds it.
func contentsOf(t *testing.T, c *tokenCache, s *cacheShard, g *generation) map[uint64]*token {
	t.Helper()
	tokens := make(map[uint64]*token)
	for i := range g.heads {
		for e := g.heads[i].Load(); e != nil; e = e.next {
			assert.NotContains(t, tokens, e.hash)
			assert.Same(t, e, g.find(e.hash))
			assert.Same(t, s, &c.shards[e.hash%cacheShards])
			tokens[e.hash] = e.token.Load()
		}
	}
	return tokens
}

func costOf(tokens map[uint64]*token) (sum int64) {
	for _, known := range tokens {
		sum += known.cost()
	}
	return sum
}

// limitOf is the room that a generation has when it is empty.
func limitOf(c *tokenCache, g *generation) int64 {
	if len(g.heads) == 1 && g.heads[0].Load() == nil && g.room == 0 {
		return 0 // that of a shard without tokens
	}
	return c.limit
}

// assertSound holds what is true of a memory whatever happened to it.
func assertSound(t *testing.T, c *tokenCache) (remembered int) {
	t.Helper()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		g := s.generations.Load()
		young, old := contentsOf(t, c, s, g.young), contentsOf(t, c, s, g.old)
		assert.Equal(t, costOf(young), limitOf(c, g.young)-g.young.room)
		assert.LessOrEqual(t, costOf(young), c.limit)
		assert.LessOrEqual(t, costOf(old), c.limit)
		assert.Len(t, young, g.young.count)
		for hash := range young {
			delete(old, hash)
		}
		assert.Len(t, old, g.old.count, "a token is counted once")
		remembered += len(young) + len(old)
		s.mu.Unlock()
	}
	return remembered
}

func TestATokenIsFoundByAllOfIt(t *testing.T) {
	t.Parallel()
	raw, known := seenToken(1, usualScope)
	otherRaw, other := seenToken(2, usualScope)
	last := strings.LastIndexByte(raw, '.')
	changed := func(at int) string { return raw[:at] + string(raw[at]^1) + raw[at+1:] }
	strangers := map[string]string{
		"another token":                           otherRaw,
		"its signed part with another signature":  raw[:last] + otherRaw[last:],
		"its signature on other claims":           otherRaw[:last] + raw[last:],
		"a prefix":                                raw[:len(raw)-1],
		"its signed part with an empty signature": raw[:last+1],
		"its signed part":                         raw[:last],
		"a suffix":                                raw[1:],
		"more at the end":                         raw + "A",
		"a part more":                             raw + ".A",
		"padding at the end":                      raw + "=",
		"another character for dot":               raw[:last] + "A" + raw[last+1:],
		"a bit in the header":                     changed(0),
		"a bit in the payload":                    changed(last - 1),
		"the signature's first bit":               changed(last + 1),
		"the signature's last bit":                changed(len(raw) - 1),
		"nothing":                                 "",
	}
	for i := last + 1; i < len(raw); i++ {
		strangers[fmt.Sprint("a bit in the signature's character ", i-last)] = changed(i)
	}
	for name, stranger := range strangers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newTokenCache(defaultCacheBytes)
			c.put(raw, known)
			assert.Nil(t, c.get(stranger))
			assert.False(t, c.has(stranger, nil))

			// Even with the hash of the token that is remembered, which no
			// caller can bring about.
			s, hash := c.shardOf(stranger)
			young := newGeneration(c.limit)
			young.add(hash, known)
			s.generations.Store(&generations{young: young, old: newGeneration(0)})
			assert.Nil(t, c.get(stranger))
			assert.False(t, c.has(stranger, nil))
		})
	}
	c := newTokenCache(defaultCacheBytes)
	assert.Nil(t, c.get(raw))
	c.put(raw, known)
	c.put(otherRaw, other)
	assert.Same(t, known, c.get(raw))
	assert.Same(t, other, c.get(otherRaw))
	assert.True(t, c.has(raw, nil))
	assert.False(t, c.has(raw, new(jose.Key)), "by another key it was not verified")
	assert.Equal(t, 2, assertSound(t, c))
}

func TestAStreamOfTokensSeenOncePassesByThoseInUse(t *testing.T) {
	t.Parallel()
	c := newTokenCache(1 << 20)
	hotRaw, hot := seenToken(0, usualScope)
	idleRaw, idle := seenToken(1, usualScope)
	c.put(hotRaw, hot)
	c.put(idleRaw, idle)
	const stream = 20_000
	for i := range stream {
		raw, seen := seenToken(i+2, usualScope)
		c.put(raw, seen)
		if i%50 == 0 {
			require.Same(t, hot, c.get(hotRaw), i)
		}
	}
	assert.Nil(t, c.get(idleRaw), "one that is not in use goes")
	remembered := assertSound(t, c)
	assert.Greater(t, remembered, 250, "the memory is used")
	var evicted uint64
	for i := range c.shards {
		evicted += c.shards[i].evicted.Load()
	}
	assert.EqualValues(t, stream+2-remembered, evicted, "each is counted once, and those that were kept are not")
}

func TestATokenRememberedTwiceTakesRoomOnce(t *testing.T) {
	t.Parallel()
	c := newTokenCache(1 << 20)
	raw, known := seenToken(1, usualScope)
	for range 10_000 {
		_, again := seenToken(1, usualScope)
		c.put(raw, again)
	}
	assert.Equal(t, 1, assertSound(t, c))
	c.put(raw, known)
	assert.Same(t, known, c.get(raw), "the last one counts: its key may be newer")
}

func TestTooSmallAMemoryRemembersNothing(t *testing.T) {
	t.Parallel()
	for _, bytes := range []int64{0, 1, 2 * cacheShards * 1000} {
		c := newTokenCache(bytes)
		raw, seen := seenToken(1, usualScope)
		c.put(raw, seen)
		assert.Nil(t, c.get(raw), bytes)
		assert.Zero(t, assertSound(t, c))
	}
}

func TestATokenMayFillItsRoomToTheLastByte(t *testing.T) {
	t.Parallel()
	raw, seen := seenToken(1, usualScope)
	perToken := 2 * cacheShards * seen.cost()
	c := newTokenCache(perToken)
	require.Equal(t, seen.cost(), c.limit)
	c.put(raw, seen)
	assert.Same(t, seen, c.get(raw))
	assert.Equal(t, 1, assertSound(t, c))

	c = newTokenCache(perToken - 2*cacheShards) // a byte less
	c.put(raw, seen)
	assert.Nil(t, c.get(raw))

	c = newTokenCache(2 * perToken)
	c.put(raw, seen)
	shard, _ := c.shardOf(raw)
	for i := 2; shard.generations.Load().young.count == 1; i++ {
		otherRaw, other := seenToken(i, usualScope)
		if s, _ := c.shardOf(otherRaw); s == shard {
			c.put(otherRaw, other)
			require.Equal(t, seen.cost(), other.cost())
			break
		}
	}
	assert.Equal(t, 2, shard.generations.Load().young.count, "both have room in one generation")
	assert.Zero(t, shard.generations.Load().old.count)
}

func TestEachAudienceAndEachScopeCosts(t *testing.T) {
	t.Parallel()
	_, bare := seenToken(1, usualScope)
	for name, grow := range map[string]func(*claimSet){
		"audiences": func(c *claimSet) { c.audience = append(c.audience, make([]string, 100)...) },
		"scopes":    func(c *claimSet) { c.scopes.names = append(c.scopes.names, make([]string, 100)...) },
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
			scopes:    Scopes{names: splitScopes(strings.Clone(c.scopes.String()))},
			issuedAt:  c.issuedAt,
			expiresAt: c.expiresAt,
			signed:    signed,
		}
	}
	held := heldBytes()
	c := newTokenCache(defaultCacheBytes)
	most := int64(0)
	for i := range 1_000_000 {
		signed := header + "." + payload[:len(payload)-8] + strconv.Itoa(10_000_000+i)
		seen := &token{claims: clone(sample.claims, signed), header: sample.header}
		seen.header.kid, seen.header.alg = strings.Clone(seen.header.kid), strings.Clone(seen.header.alg)
		raw := signed + "." + fmt.Sprintf("%0128d", i)
		seen.forget(raw)
		c.put(raw, seen)
		if i%250_000 == 249_999 {
			most = max(most, held())
		}
	}
	remembered := assertSound(t, c)
	t.Logf("%.1f MiB for %d tokens", float64(most)/(1<<20), remembered)
	assert.Less(t, most, int64(40<<20))
	assert.Greater(t, remembered, 8_000)
	runtime.KeepAlive(c)
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
		"a long claim of their own": `"x":"` + strings.Repeat("a", 5200) + `",`,
	} {
		t.Run(name, func(t *testing.T) {
			held := heldBytes()
			c := newTokenCache(limit)
			_, sample := seenToken(0, claims)
			for i := range 3 * limit / int(sample.cost()) {
				raw, seen := seenToken(i, claims)
				c.put(raw, seen)
			}
			remembered := assertSound(t, c)
			t.Logf("%.1f MiB for %d tokens", float64(held())/(1<<20), remembered)
			assert.Less(t, held(), int64(limit+limit/8))
			assert.Positive(t, remembered)
			runtime.KeepAlive(c)
		})
	}
}

func TestAMemoryWithoutTokensIsSmall(t *testing.T) {
	held := heldBytes()
	var all [100]*tokenCache
	for i := range all {
		all[i] = newTokenCache(1 << 30)
	}
	assert.Less(t, held()/int64(len(all)), int64(16<<10))
	runtime.KeepAlive(all)
}

func TestChainsAreShortHoweverManyTokensThereAre(t *testing.T) {
	t.Parallel()
	for _, tokens := range []int{1, 1000, 300_000} {
		c := newTokenCache(int64(2 * tokens * 640)) // the most tokens that this memory takes, in old and young
		smallest := &token{claims: new(claimSet)}
		for i := range tokens {
			c.put(fmt.Sprintf("%064d", i), smallest)
		}
		for i := range c.shards {
			g := c.shards[i].generations.Load()
			for i := range g.young.heads {
				length := 0
				for e := g.young.heads[i].Load(); e != nil; e = e.next {
					length++
				}
				require.Less(t, length, 20, "of %d", tokens)
			}
		}
	}
}

// simpleMemory says what a memory does, with maps, and for one goroutine.
type simpleMemory struct {
	limit   int64
	shards  map[*cacheShard]*[2]map[string]*token // young, old
	evicted int
}

func (m *simpleMemory) get(s *cacheShard, raw string) *token {
	g := m.shard(s)
	if t := g[0][raw]; t != nil {
		return t
	}
	t := g[1][raw]
	if t != nil {
		m.put(s, raw, t)
	}
	return t
}

func (m *simpleMemory) put(s *cacheShard, raw string, t *token) {
	g := m.shard(s)
	if t.cost() > m.limit {
		return
	}
	delete(g[1], raw)
	bytes := t.cost()
	for _, other := range g[0] {
		bytes += other.cost()
	}
	if g[0][raw] == nil && bytes > m.limit {
		m.evicted += len(g[1])
		g[0], g[1] = make(map[string]*token), g[0]
	}
	g[0][raw] = t
}

func (m *simpleMemory) shard(s *cacheShard) *[2]map[string]*token {
	if m.shards[s] == nil {
		m.shards[s] = &[2]map[string]*token{{}, {}}
	}
	return m.shards[s]
}

func (m *simpleMemory) remembered() (n int) {
	for _, g := range m.shards {
		n += len(g[0]) + len(g[1])
	}
	return n
}

// tokensOfOneShard returns tokens of several sizes, each in two versions of one
// size, as they are before and after its key was replaced.
func tokensOfOneShard(c *tokenCache, number int) (raws []string, versions [][2]*token) {
	var shard *cacheShard
	for i := 0; len(raws) < number; i++ {
		scopes := `"scope":"` + strings.Repeat("read ", i%7) + `read",`
		raw, first := seenToken(i, scopes)
		s, _ := c.shardOf(raw)
		if shard == nil {
			shard = s
		}
		if s == shard {
			_, second := seenToken(i, scopes)
			raws, versions = append(raws, raw), append(versions, [2]*token{first, second})
		}
	}
	return raws, versions
}

func TestTheMemoryDoesWhatASimpleOneDoes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		c := newTokenCache(2 * cacheShards * (2000 + random.Int64N(12_000))) // one token to eight
		m := &simpleMemory{limit: c.limit, shards: make(map[*cacheShard]*[2]map[string]*token)}
		raws, versions := tokensOfOneShard(c, 30)
		shard, _ := c.shardOf(raws[0])
		var hits, misses uint64
		for range 2000 {
			i := random.IntN(1 + random.IntN(len(raws))) // some come often
			switch random.IntN(3) {
			case 0:
				known := versions[i][random.IntN(2)]
				c.put(raws[i], known)
				m.put(shard, raws[i], known)
			case 1:
				want := m.get(shard, raws[i])
				require.Same(t, want, c.get(raws[i]), "seed %d", seed)
				if want != nil {
					hits++
				} else {
					misses++
				}
			case 2:
				g := m.shard(shard)
				require.Equal(t, g[0][raws[i]] != nil || g[1][raws[i]] != nil, c.has(raws[i], nil), "seed %d", seed)
			}
		}
		assert.Equal(t, m.remembered(), assertSound(t, c), "seed %d", seed)
		assert.EqualValues(t, m.evicted, shard.evicted.Load(), "seed %d", seed)
		gotHits, gotMisses := c.lookups.sum()
		assert.Equal(t, []uint64{hits, misses}, []uint64{gotHits, gotMisses}, "seed %d", seed)
	}
}

// Each goroutine uses a token in common before it enters another one, so that it is
// in use in every generation: a generation has room for more tokens than there are
// goroutines. Whatever moves meanwhile, it is always found.
func TestATokenInUseIsAlwaysFound(t *testing.T) {
	t.Parallel()
	const goroutines, rounds = 8, 2000
	c := newTokenCache(2 * cacheShards * 40_000)
	raws, versions := tokensOfOneShard(c, 200)
	largest := int64(0)
	for _, version := range versions {
		largest = max(largest, version[0].cost())
	}
	require.Greater(t, c.limit/largest, int64(2*goroutines))
	c.put(raws[0], versions[0][0])
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range rounds {
				if c.get(raws[0]) != versions[0][0] {
					t.Errorf("a token in use is missed")
				}
				i := 1 + rand.IntN(len(raws)-1)
				if known := c.get(raws[i]); known != nil && known != versions[i][0] && known != versions[i][1] {
					t.Errorf("one token is taken for another")
				}
				c.put(raws[i], versions[i][rand.IntN(2)])
			}
		})
	}
	wg.Wait()
	shard, _ := c.shardOf(raws[0])
	assert.Greater(t, shard.evicted.Load(), uint64(1000), "many generations have passed")
	assertSound(t, c)
	hits, misses := c.lookups.sum()
	assert.EqualValues(t, 2*goroutines*rounds, hits+misses, "each look-up is counted once, on whatever core")
}

func TestTheMemoryUnderLoad(t *testing.T) {
	t.Parallel()
	const tokens = 300
	c := newTokenCache(200 << 10) // less than they need
	raws, seen := make([]string, tokens), make([]*token, tokens)
	for i := range tokens {
		raws[i], seen[i] = seenToken(i, usualScope)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5_000 {
				i := rand.IntN(tokens)
				if known := c.get(raws[i]); known == nil {
					c.put(raws[i], seen[i])
				} else if known != seen[i] {
					t.Errorf("one token is taken for another")
				}
			}
		})
	}
	wg.Wait()
	assert.Positive(t, assertSound(t, c))
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
		"an organization":             `"organization_id":"` + long + `",`,
		"small claims, all asked for": `"x0":"a","x1":"a","x2":"a","x3":"a","x4":"a","x5":"a",`,
	} {
		for _, asked := range [][]string{all, slices.Sorted(slices.Values(all))} {
			t.Run(name+", asked for "+asked[0], func(t *testing.T) {
				held := heldBytes()
				c := newTokenCache(limit)
				_, sample := seenToken(0, more)
				for i := range 3 * limit / int(sample.cost()) {
					raw, seen := seenToken(i, more)
					for _, claim := range asked {
						seen.claims.hasAny(named(claim), []string{"another"})
					}
					c.put(raw, seen)
				}
				remembered := assertSound(t, c)
				t.Logf("%.1f MiB for %d tokens", float64(held())/(1<<20), remembered)
				counted := int64(0)
				for i := range c.shards {
					s := &c.shards[i]
					g := s.generations.Load()
					for _, generation := range []*generation{g.young, g.old} {
						for _, seen := range contentsOf(t, c, s, generation) {
							counted += seen.cost()
						}
					}
				}
				assert.LessOrEqual(t, held(), counted+counted/20, "what is held is counted")
				assert.Positive(t, remembered)
				runtime.KeepAlive(c)
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
	require.Nil(t, c.others.Load())
	for claim, own := range map[string]string{"client_id": c.clientID, "azp": c.clientID, "organization_id": "acme", "o": "acme"} {
		assert.True(t, c.hasAny(named(claim), []string{own}), claim)
		kept := *c.others.Load()
		got := kept[len(kept)-1].values[0]
		want := map[string]string{c.clientID: c.clientID, "acme": c.organizationID}[own]
		assert.Same(t, unsafe.StringData(want), unsafe.StringData(got), claim)
	}
	sub, o := named("sub"), named("o")
	assert.Zero(t, testing.AllocsPerRun(100, func() { c.hasAny(sub, []string{"x"}); c.hasAny(o, []string{"x"}) }))
}

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
		assert.Equal(t, number < 1000, seen.claims.others.Load() != nil)
	}
	_, seen := seenToken(1, usualScope)
	for i := range 100 {
		assert.Empty(t, seen.claims.stringsOf(named(fmt.Sprint("c", i))))
	}
	assert.NotEmpty(t, *seen.claims.others.Load())
	assert.Less(t, len(*seen.claims.others.Load()), 20)
}
