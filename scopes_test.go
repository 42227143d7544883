package m2mauth

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestScopesHas(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, claim, scope string
		want               bool
	}{
		{"the only one", "read", "read", true},
		{"the last of several", "read write delete", "delete", true},
		{"one that is not there", "read write", "delete", false},
		{"none in nothing", "", "read", false},
		{"never the empty one", "read  write", "", false},
		{"never the empty one of nothing", "", "", false},
		{"case matters", "read:products", "READ:products", false},
		{"a part is not the whole", "read:products", "read", false},
		{"the whole is not a part", "read", "read:products", false},
		{"two are not one", "read write", "read write", false},
		{"a star means itself", "read:*", "read:products", false},
		{"a star is found by itself", "read:*", "read:*", true},
		{"a quote is a letter like others", `say:"hi"`, `say:"hi"`, true},
		{"composed and decomposed letters differ", "lesen:\u00e4", "lesen:a\u0308", false},
		{"a tab parts nothing", "read\twrite", "write", false},
		{"a line break parts nothing", "read\nwrite", "read", false},
		{"a no-break space parts nothing", "read\u00a0write", "read", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			scopes := Scopes{names: splitScopes(test.claim)}
			assert.Equal(t, test.want, scopes.Has(test.scope))
			assert.Equal(t, test.want, scopes.HasAny("missing", test.scope))
			assert.Equal(t, test.want, scopes.HasAll(test.scope, test.scope))
		})
	}
}

// An array of a claims script may hold what no scope string can.
func TestTheEmptyScopeIsNeverHeld(t *testing.T) {
	t.Parallel()
	scopes := Scopes{names: []string{"", "read"}}
	assert.False(t, scopes.Has(""))
	assert.False(t, scopes.HasAny(""))
	assert.False(t, scopes.HasAll("read", ""))
}

func TestScopesHasAllAndHasAny(t *testing.T) {
	t.Parallel()
	scopes := Scopes{names: splitScopes("a b c")}
	for _, test := range []struct {
		name     string
		asked    []string
		all, any bool
	}{
		{"nothing", nil, false, false},
		{"an empty list", []string{}, false, false},
		{"one of them", []string{"b"}, true, true},
		{"all of them", []string{"c", "b", "a"}, true, true},
		{"one and another", []string{"b", "z"}, false, true},
		{"others", []string{"y", "z"}, false, false},
		{"one and the empty one", []string{"b", ""}, false, true},
		{"the empty one", []string{""}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.all, scopes.HasAll(test.asked...))
			assert.Equal(t, test.any, scopes.HasAny(test.asked...))
			assert.False(t, Scopes{}.HasAll(test.asked...), "of no scopes")
			assert.False(t, Scopes{}.HasAny(test.asked...), "of no scopes")
		})
	}
}

func TestScopesInTheTokensOrder(t *testing.T) {
	t.Parallel()
	scopes := Scopes{names: splitScopes("  write  read:products ")}
	assert.Equal(t, []string{"write", "read:products"}, slices.Collect(scopes.All()))
	assert.Equal(t, 2, scopes.Len())
	assert.Equal(t, "write read:products", scopes.String())
	for scope := range scopes.All() {
		assert.Equal(t, "write", scope)
		break // a loop may end early
	}

	var none Scopes
	assert.Empty(t, slices.Collect(none.All()))
	assert.Zero(t, none.Len())
	assert.Empty(t, none.String())
	assert.Zero(t, Scopes{names: splitScopes("   ")}.Len())
}

func TestWhatAllReturnsIsNoWayIn(t *testing.T) {
	t.Parallel()
	scopes := Scopes{names: splitScopes("a b")}
	list := slices.Collect(scopes.All())
	list[0] = "admin"
	_ = append(list[:1], "admin")
	assert.Equal(t, "a b", scopes.String())
}
