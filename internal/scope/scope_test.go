package scope

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestValid(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"read": true, "read:products": true, "read:*": true, "a,b": true, `say:"hi"`: true, "größe": true, "\u200b": true,
		"": false, " ": false, "read write": false, " read": false, "read\t": false, "read\n": false, "read\x00": false, "read\x7f": false,
		"read\u0085": false, "read\u00a0write": false, "read\xff": false,
	} {
		assert.Equal(t, want, Valid(name), "%q", name)
	}
}

func TestSplitAtSpacesAlone(t *testing.T) {
	t.Parallel()
	for claim, want := range map[string][]string{
		"": {}, "   ": {}, "a": {"a"}, "  write  read ": {"write", "read"}, "a\tb c": {"a\tb", "c"}, "a\nb": {"a\nb"}, "a\u00a0b": {"a\u00a0b"}, "a a": {"a", "a"},
	} {
		assert.Equal(t, want, Split(claim), "%q", claim)
	}
}

func TestListKeepsTheOrderWithoutRepeats(t *testing.T) {
	t.Parallel()
	var l List
	l.Add()
	assert.Empty(t, l.Names)
	l.Add("b", "a", "b")
	l.Add("a", "", "c")
	assert.Equal(t, []string{"b", "a", "", "c"}, l.Names)
}

var shop = map[string][]string{"admin": {"write", "audit"}, "write": {"read"}, "other": nil}

func TestReadGrantsWhatAScopeIncludes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		prefix   string
		implied  map[string][]string
		names    []string
		want     []string
		included int
	}{
		{"", nil, nil, nil, 0},
		{"", nil, []string{"b", "a", "b"}, []string{"b", "a", "b"}, 0},
		{"", shop, []string{"read"}, []string{"read"}, 0},
		{"", shop, []string{"write"}, []string{"write", "read"}, 1},
		{"", shop, []string{"x", "admin"}, []string{"x", "admin", "write", "audit", "read"}, 3},
		{"", shop, []string{"read", "admin"}, []string{"read", "admin", "write", "audit"}, 2},
		{"", shop, []string{"admin", "admin"}, []string{"admin", "admin", "write", "audit", "read"}, 3},
		{"s/", nil, []string{"s/a", "b", "s/", "S/c", "s/s/d"}, []string{"a", "s/d"}, 0},
		{"s/", nil, []string{"b"}, nil, 0},
		{"s/", shop, []string{"s/write", "admin"}, []string{"write", "read"}, 1},
	} {
		got, included := NewPolicy(test.prefix, test.implied).Read(test.names)
		assert.Equal(t, test.want, got, "%q of %q", test.names, test.prefix)
		assert.Equal(t, test.included, included, "%q of %q", test.names, test.prefix)
	}
}

func TestChallengeNamesNoMoreThanNeeded(t *testing.T) {
	t.Parallel()
	p := NewPolicy("s/", shop)
	for _, test := range []struct{ names, needed []string }{
		{[]string{"read"}, []string{"read"}},
		{[]string{"read", "write", "x"}, []string{"write", "x"}},
		{[]string{"read", "admin", "audit"}, []string{"admin"}},
	} {
		assert.Equal(t, test.needed, p.Needed(slices.Clone(test.names)))
		for _, none := range []*Policy{nil, new(Policy), NewPolicy("s/", nil)} {
			assert.Equal(t, test.names, none.Needed(slices.Clone(test.names)))
		}
	}
	for want, names := range map[string][]string{
		"read": {"admin", "write", "read"}, "write": {"write", "admin"}, "x": {"x", "admin", "read"}, "audit": {"admin", "audit", "read"}, "admin": {"admin"},
	} {
		assert.Equal(t, want, p.Least(names), "%q", names)
		for _, none := range []*Policy{nil, new(Policy)} {
			assert.Equal(t, names[0], none.Least(names))
		}
	}
	assert.True(t, p.IncludesAny())
	for _, none := range []*Policy{nil, new(Policy), NewPolicy("s/", nil)} {
		assert.False(t, none.IncludesAny())
	}
}

func TestCoversAll(t *testing.T) {
	t.Parallel()
	p := NewPolicy("", shop)
	for _, test := range []struct {
		held, asked []string
		want        bool
	}{
		{nil, nil, true},
		{nil, []string{"read"}, false},
		{[]string{"read"}, []string{"read"}, true},
		{[]string{"write"}, []string{"read", "write"}, true},
		{[]string{"admin"}, []string{"read", "audit"}, true},
		{[]string{"admin"}, []string{"read", "x"}, false},
		{[]string{"read"}, []string{"write"}, false},
	} {
		assert.Equal(t, test.want, p.CoversAll(test.held, test.asked), "%q of %q", test.asked, test.held)
	}
}

func TestAsIssued(t *testing.T) {
	t.Parallel()
	names := []string{"a", "b"}
	assert.Equal(t, []string{"s/a", "s/b"}, NewPolicy("s/", nil).AsIssued(names))
	assert.Equal(t, []string{"a", "b"}, names)
	for _, none := range []*Policy{nil, new(Policy), NewPolicy("", shop)} {
		assert.Equal(t, names, none.AsIssued(names))
	}
}

func TestCommonHoldsForEveryIssuer(t *testing.T) {
	t.Parallel()
	one := NewPolicy("s/", map[string][]string{"admin": {"write", "audit"}, "write": {"read"}})
	assert.Same(t, one, Common(one))
	same := Common(one, NewPolicy("s/", map[string][]string{"admin": {"write"}, "other": {"x"}}))
	assert.Equal(t, []string{"s/a"}, same.AsIssued([]string{"a"}))
	assert.True(t, same.CoversAll([]string{"admin"}, []string{"write"}))
	for held, asked := range map[string]string{"admin": "audit", "write": "read", "other": "x"} {
		assert.False(t, same.CoversAll([]string{held}, []string{asked}), "%s includes %s", held, asked)
	}
	assert.True(t, one.CoversAll([]string{"admin"}, []string{"audit", "read"}), "that of the first is not changed")
	for _, others := range [][]*Policy{{NewPolicy("t/", nil)}, {NewPolicy("", nil)}, {NewPolicy("t/", nil), NewPolicy("s/", nil)}} {
		assert.Equal(t, []string{"a"}, Common(append([]*Policy{one}, others...)...).AsIssued([]string{"a"}), "no prefix of all")
	}
}

func TestCycle(t *testing.T) {
	t.Parallel()
	for want, implied := range map[string]map[string][]string{
		"a > a":         {"a": {"a"}},
		"b > c > b":     {"a": {"b"}, "b": {"c"}, "c": {"b"}},
		"a > b > c > a": {"x": {"a"}, "a": {"b"}, "b": {"y", "c"}, "c": {"a"}},
		"p > q > p":     {"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "p": {"d", "q"}, "q": {"p"}},
	} {
		assert.Equal(t, want, strings.Join(Cycle(implied), " > "))
	}
	for _, implied := range []map[string][]string{nil, shop, {"a": {"b", "c"}, "b": {"d"}, "c": {"d"}}, {"a": {"b", "b"}}} {
		assert.Nil(t, Cycle(implied), "%v", implied)
	}
}

// A model that follows each implication, name by name.
func TestPoliciesAgreeWithAModel(t *testing.T) {
	t.Parallel()
	chance := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		implied := make(map[string][]string)
		for range chance.IntN(8) { // never a cycle: only what comes later in the order is included
			whole := chance.IntN(6)
			implied[string(rune('a'+whole))] = append(implied[string(rune('a'+whole))], string(rune('a'+whole+1+chance.IntN(7-whole))))
		}
		assert.Nil(t, Cycle(implied))
		var reach func(string, map[string]bool)
		reach = func(name string, all map[string]bool) {
			for _, next := range implied[name] {
				all[next] = true
				reach(next, all)
			}
		}
		held := make([]string, 1+chance.IntN(3))
		want, covered := make(map[string]bool), make(map[string]bool)
		for i := range held {
			held[i] = string(rune('a' + chance.IntN(7)))
			want[held[i]] = true
			reach(held[i], want)
			reach(held[i], covered)
		}
		p := NewPolicy("", implied)
		says := fmt.Sprint(implied, held)
		all, included := p.Read(slices.Clone(held))
		assert.Equal(t, slices.Sorted(maps.Keys(want)), slices.Compact(slices.Sorted(slices.Values(all))), says)
		assert.Equal(t, held, all[:len(all)-included], says)
		assert.Equal(t, slices.DeleteFunc(slices.Clone(held), func(name string) bool { return covered[name] }), p.Needed(slices.Clone(held)), says)
		for name := 'a'; name <= 'h'; name++ {
			assert.Equal(t, want[string(name)], p.CoversAll(held, []string{string(name)}), says)
		}
		least := p.Least(held)
		for _, name := range held[slices.Index(held, least)+1:] {
			includes := make(map[string]bool)
			reach(least, includes)
			assert.False(t, includes[name], "%s: of them %s is not the least", says, least)
		}
	}
}
