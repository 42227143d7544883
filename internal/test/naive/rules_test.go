package naive_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

var modelRules = flag.Int("rules.count", 4000, "compare so many random rules with the model")

// modelToken is what the model knows of a token.
type modelToken struct {
	client, user, organization, tier string
	actors                           []string // the current one first
	scopes                           []string
}

// modelPart is a rule with what the model needs to judge it. A leaf has no parts.
type modelPart struct {
	rule         m2mauth.Rule
	met          func(modelToken, modelRequest) bool // of a leaf: without asking a function
	organization bool
	function     *modelFunction
	all          bool // of a rule with parts: AllOf, else AnyOf
	parts        []modelPart
}

// modelFunction is a function of the user's, which permits, denies or fails.
type modelFunction struct {
	err   error
	calls int
}

// modelRequest is a request that names an organization in its path and its header.
type modelRequest struct {
	m2mauth.Request

	path, header, credentials string
}

func (r modelRequest) PathValue(string) string { return r.path }

func (r modelRequest) RemoteAddr() string { return "192.0.2.1:1234" }

func (r modelRequest) Header(name string) []string {
	if name == "Authorization" {
		return []string{"Bearer " + r.credentials}
	}
	return []string{r.header}
}

// sets returns every set of leaves that meets a rule if all in the set are met.
func (p modelPart) sets() (sets [][]modelPart) {
	switch {
	case p.parts == nil:
		return [][]modelPart{{p}}
	case !p.all:
		for _, part := range p.parts {
			sets = append(sets, part.sets()...)
		}
		return sets
	}
	sets = [][]modelPart{nil}
	for _, part := range p.parts {
		var longer [][]modelPart
		for _, begun := range sets {
			for _, more := range part.sets() {
				longer = append(longer, slices.Concat(begun, more))
			}
		}
		sets = longer
	}
	return sets
}

// passes is the law: a token passes by a set of parts that are all met, and one that is
// limited to an organization only if one of them compared the organization. holds says
// what a function counts as that returns the error.
func (p modelPart) passes(token modelToken, r modelRequest, unlimited bool, holds func(error) bool) bool {
	return slices.ContainsFunc(p.sets(), func(set []modelPart) bool {
		compared := token.organization == "" || unlimited
		for _, leaf := range set {
			if !leaf.met(token, r) || leaf.function != nil && !holds(leaf.function.err) {
				return false
			}
			compared = compared || leaf.organization
		}
		return compared
	})
}

func (p modelPart) functions() (all []*modelFunction) {
	if p.function != nil {
		return []*modelFunction{p.function}
	}
	for _, part := range p.parts {
		all = append(all, part.functions()...)
	}
	return all
}

var errModel = errors.New("the database is down")

func modelLeaf(chance *rand.Rand) modelPart {
	is := func(f func(modelToken) bool) func(modelToken, modelRequest) bool {
		return func(t modelToken, _ modelRequest) bool { return f(t) }
	}
	scope := string("ab"[chance.IntN(2)])
	has := func(t modelToken) bool { return slices.Contains(t.scopes, scope) }
	function := func(err error) modelPart {
		f := &modelFunction{err: err}
		return modelPart{function: f, met: is(func(modelToken) bool { return true }),
			rule: m2mauth.Custom(fmt.Sprint(err), func(context.Context, m2mauth.Claims, m2mauth.Request) error {
				f.calls++
				return f.err
			})}
	}
	inPath := func(t modelToken, r modelRequest) bool { return t.organization != "" && t.organization == r.path }
	inHeader := func(t modelToken, r modelRequest) bool { return t.organization != "" && t.organization == r.header }
	switch chance.IntN(15) {
	case 0:
		return modelPart{rule: m2mauth.AllScopes(scope), met: is(has)}
	case 1:
		return modelPart{rule: m2mauth.AnyScope(scope, "none"), met: is(has)}
	case 2:
		return modelPart{rule: m2mauth.AllScopes("a", "b"), met: is(func(t modelToken) bool { return len(t.scopes) == 2 })}
	case 3:
		return modelPart{rule: m2mauth.AnyToken(), met: is(func(modelToken) bool { return true })}
	case 4:
		return modelPart{rule: m2mauth.MachineToken(), met: is(func(t modelToken) bool { return t.user == "" })}
	case 5:
		return modelPart{rule: m2mauth.UserToken(), met: is(func(t modelToken) bool { return t.user != "" })}
	case 6:
		return modelPart{rule: m2mauth.ClientID("one"), met: is(func(t modelToken) bool { return t.client == "one" })}
	case 7:
		return modelPart{rule: m2mauth.HasClaim("tier", "gold"), met: is(func(t modelToken) bool { return t.tier == "gold" })}
	case 8:
		return modelPart{organization: true, rule: m2mauth.OrganizationPath("org"), met: inPath}
	case 9:
		return modelPart{organization: true, rule: m2mauth.OrganizationHeader("X-Organization"), met: inHeader}
	case 10:
		return modelPart{organization: true, met: inPath,
			rule: m2mauth.Organization(func(r m2mauth.Request) string { return r.PathValue("org") })}
	case 11:
		return function(nil)
	case 12:
		return function(m2mauth.Deny("no"))
	case 13:
		return modelPart{rule: m2mauth.ActedBy("agent", "one"), met: is(func(t modelToken) bool { return len(t.actors) > 0 && t.actors[0] == "agent" })}
	default:
		return function(errModel)
	}
}

func modelRule(chance *rand.Rand, depth int) modelPart {
	if depth == 0 || chance.IntN(5) == 0 {
		return modelLeaf(chance)
	}
	p := modelPart{all: chance.IntN(2) == 0}
	var rules []m2mauth.Rule
	for range 1 + chance.IntN(3) {
		part := modelRule(chance, depth-1)
		p.parts, rules = append(p.parts, part), append(rules, part.rule)
	}
	switch {
	case !p.all:
		p.rule = m2mauth.AnyOf(rules...)
	case slices.ContainsFunc(rules, isRule("MachineToken()")) && slices.ContainsFunc(rules, isRule("UserToken()")):
		return modelRule(chance, depth) // AllOf panics, and says so
	default:
		p.rule = m2mauth.AllOf(rules...)
	}
	return p
}

func anyOfModels(parts ...modelPart) modelPart {
	p := modelPart{parts: parts}
	var rules []m2mauth.Rule
	for _, part := range parts {
		rules = append(rules, part.rule)
	}
	p.rule = m2mauth.AnyOf(rules...)
	return p
}

func isRule(text string) func(m2mauth.Rule) bool {
	return func(r m2mauth.Rule) bool { return r.String() == text }
}

// TestRulesComposeByTheLaw compares random rules, nested three deep and some four, with the model:
// the answer to each token and request, that a function was asked for no token that
// the rest of the rule refuses, and that it is an internal error if a failed function
// made the difference, and none if no function failed. Longer: go test -run TestRulesComposeByTheLaw ./internal/test/naive -rules.count=200000
func TestRulesComposeByTheLaw(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	issuer.Rotate("EdDSA")
	issuer.Rotate("EdDSA")
	var tokens []modelToken
	var signed []string
	for _, user := range []string{"", "alice"} {
		for _, organization := range []string{"", "acme", "globex"} {
			for i, scopes := range [][]string{nil, {"a"}, {"a", "b"}} {
				token := modelToken{client: []string{"one", "two"}[i%2], user: user, organization: organization, scopes: scopes, tier: []string{"gold", "tin"}[i/2],
					actors: [][]string{{"agent", "other"}, nil, {"other", "agent"}}[i]}
				tokens = append(tokens, token)
				claims := map[string]any{"tier": token.tier}
				if user != "" {
					claims["sub"] = user
				}
				if token.actors != nil { // the client within act is not the one that acts
					claims["act"] = map[string]any{"sub": token.actors[0], "client_id": "agent", "act": map[string]any{"sub": token.actors[1]}}
				}
				signed = append(signed, issuer.Sign(m2mauthtest.Token{
					Audience: testguard.Shop, AppID: token.client, OrganizationID: organization, Scopes: scopes, Claims: claims,
				}))
			}
		}
	}
	guards := map[bool]*m2mauth.Guard{
		false: testguard.Quiet(t, issuer),
		true:  testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.InsecureAllowOrganizationTokens = true }),
	}
	chance := rand.New(rand.NewPCG(3, 4))
	passed, refusedByFunction := 0, 0
	for range *modelRules {
		rule := modelRule(chance, 3)
		if chance.IntN(4) == 0 { // a fourth level, where AnyOf asks parts that ask their functions last
			rule = anyOfModels(rule, modelRule(chance, 3))
		}
		i := chance.IntN(len(tokens))
		unlimited := chance.IntN(4) == 0
		names := []string{"acme", "globex", ""}
		r := modelRequest{path: names[chance.IntN(3)], header: names[chance.IntN(3)], credentials: signed[i]}

		_, err := guards[unlimited].CheckRequest(t.Context(), r, rule.rule)
		want := rule.passes(tokens[i], r, unlimited, func(err error) bool { return err == nil })
		possible := rule.passes(tokens[i], r, unlimited, func(error) bool { return true })
		unlessFailed := rule.passes(tokens[i], r, unlimited, func(err error) bool { return err == nil || errors.Is(err, errModel) })
		about := fmt.Sprintf("%s\nby %+v\nat path %q, header %q, organizations allowed: %t", rule.rule, tokens[i], r.path, r.header, unlimited)
		require.Equal(t, want, err == nil, "%s\n%v", about, err)
		failed, calls := false, 0
		for _, f := range rule.functions() {
			calls += f.calls
			failed = failed || f.calls > 0 && f.err != nil && errors.Is(f.err, errModel)
		}
		if !possible {
			require.Zero(t, calls, "functions are asked though the rest refuses: %s", about)
		}
		if errors.Is(err, m2mauth.ErrInternal) {
			require.True(t, failed, about)
		} else {
			require.Equal(t, want, unlessFailed, "a function failed that decided, and nobody is told: %s\n%v", about, err)
		}
		if err == nil {
			passed++
		} else if possible {
			refusedByFunction++
		}
	}
	require.Greater(t, passed, *modelRules/10, "else this tested little")
	require.Greater(t, refusedByFunction, *modelRules/20, "else this tested little")
}
