package m2mauth

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
						seen.claims.hasAny(claim, []string{"another"})
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
		assert.True(t, c.hasAny(claim, []string{"x", value}), claim)
		assert.False(t, c.hasAny(claim, []string{"x"}), claim)
	}
	require.Nil(t, c.others.Load())
	for claim, own := range map[string]string{"client_id": c.clientID, "azp": c.clientID, "organization_id": "acme", "o": "acme"} {
		assert.True(t, c.hasAny(claim, []string{own}), claim)
		kept := *c.others.Load()
		got := kept[len(kept)-1].values[0]
		want := map[string]string{c.clientID: c.clientID, "acme": c.organizationID}[own]
		assert.Same(t, unsafe.StringData(want), unsafe.StringData(got), claim)
	}
	assert.Zero(t, testing.AllocsPerRun(100, func() { c.hasAny("sub", []string{"x"}); c.hasAny("o", []string{"x"}) }))
}

func TestWhatAbsentClaimsEqual(t *testing.T) {
	t.Parallel()
	c := Claims{}.read()
	for _, claim := range []string{"iss", "sub", "jti", "aud", "client_id", "absent"} {
		assert.False(t, c.hasAny(claim, []string{"x"}), claim)
	}
}

func TestClaimsOverTheBoundAreReadAgain(t *testing.T) {
	t.Parallel()
	for _, number := range []int{1, 5, 1000} {
		_, seen := seenToken(1, `"groups":["`+strings.Repeat(`g","`, number-1)+`last"],`)
		for range 2 {
			list := seen.claims.stringsOf("groups")
			require.Len(t, list, number)
			assert.Equal(t, "last", list[number-1])
		}
		assert.Equal(t, number < 1000, seen.claims.others.Load() != nil)
	}
	_, seen := seenToken(1, usualScope)
	for i := range 100 {
		assert.Empty(t, seen.claims.stringsOf(fmt.Sprint("c", i)))
	}
	assert.NotEmpty(t, *seen.claims.others.Load())
	assert.Less(t, len(*seen.claims.others.Load()), 20)
}
