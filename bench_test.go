package m2mauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"net/http"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// BenchmarkCheck measures one request from its Authorization field to the
// decision. Compare with BenchmarkSignatureES384 of the same run.
func BenchmarkCheck(b *testing.B) {
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(b, issuer)
	require.NoError(b, guard.Warm(b.Context()))
	madeUp := issuer.Sign(m2mauthtest.Token{Audience: shop, Scopes: []string{"read"}, Header: map[string]any{"kid": "made up"}})
	_, err := guard.Verify(b.Context(), madeUp) // the one fetch that it causes
	require.ErrorIs(b, err, m2mauth.ErrUnknownKey)

	for _, benchmark := range []struct {
		name   string
		fields []string
		want   error
	}{
		{"a good ES384 token", []string{"Bearer " + issuer.Token(shop, "read")}, nil},
		{"a token of another resource", []string{"Bearer " + issuer.Token("https://other.api", "read")}, m2mauth.ErrAudience},
		{"an opaque token", []string{"Bearer Xk3vJ9opaque_access_token_of_43_characters_"}, m2mauth.ErrMalformed},
		{"a made-up key ID in the cooldown", []string{"Bearer " + madeUp}, m2mauth.ErrUnknownKey},
		{"no token", nil, m2mauth.ErrNoToken},
	} {
		b.Run(benchmark.name, func(b *testing.B) {
			r, rule := requestWith(benchmark.fields...), m2mauth.AllScopes("read")
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
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(b, err)
	input := make([]byte, 600)
	sum := sha512.Sum384(input)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		sum := sha512.Sum384(input)
		if !ecdsa.Verify(&key.PublicKey, sum[:], r, s) {
			b.Fatal("a wrong signature")
		}
	}
}

// rulesToMeasure are a plain rule and nested ones, met by a token with the scope
// read that is of no organization or, for the last, of acme.
func rulesToMeasure() map[string]m2mauth.Rule {
	own := m2mauth.AllOf(m2mauth.OrganizationPath("org"), m2mauth.AllScopes("read"))
	return map[string]m2mauth.Rule{
		"a plain rule": m2mauth.AllScopes("read"),
		"a nested rule": m2mauth.AnyOf(m2mauth.AllOf(m2mauth.UserToken(), m2mauth.AnyScope("write", "admin")),
			m2mauth.AllOf(m2mauth.MachineToken(), m2mauth.ClientID("another", "app"), m2mauth.AnyScope("write", "read"))),
		"a claim's rule":         m2mauth.AllOf(m2mauth.HasClaim("client_id", "app"), m2mauth.HasClaim("iss", "https://issuer.test/oidc")),
		"an organization's rule": m2mauth.AnyOf(m2mauth.AllScopes("admin"), m2mauth.AllOf(own, m2mauth.MachineToken())),
	}
}

// knownRequest has a token that the guard has seen before.
func knownRequest(tb testing.TB, guard *m2mauth.Guard, issuer *m2mauthtest.Issuer, rule string) *http.Request {
	token := m2mauthtest.Token{Audience: shop, AppID: "app", Scopes: []string{"read"}}
	if rule == "an organization's rule" {
		token.OrganizationID = "acme"
	}
	r := requestWith("Bearer " + issuer.Sign(token))
	r.SetPathValue("org", "acme")
	_, err := guard.Check(r, rulesToMeasure()[rule])
	require.NoError(tb, err)
	return r
}

// BenchmarkRule measures Check of a token that was seen before. A nested rule may
// add 100 ns to a plain one.
func BenchmarkRule(b *testing.B) {
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(b, issuer)
	for _, name := range []string{"a plain rule", "a nested rule", "a claim's rule", "an organization's rule"} {
		b.Run(name, func(b *testing.B) {
			r, rule := knownRequest(b, guard, issuer, name), rulesToMeasure()[name]
			b.ReportAllocs()
			for b.Loop() {
				if _, err := guard.Check(r, rule); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkKnownTokenAllCores is what a few busy callers cost: one token, on every
// core. Run it with -cpu 1,2 and so on. It gains from a core what
// BenchmarkNothingSharedAllCores of the same run does.
func BenchmarkKnownTokenAllCores(b *testing.B) {
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(b, issuer)
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

// BenchmarkRuleSetUp makes rules of that many parts and mounts them. It grows in
// proportion to the parts.
func BenchmarkRuleSetUp(b *testing.B) {
	guard := quietGuard(b, m2mauthtest.NewIssuer())
	for _, parts := range []int{1000, 10_000} {
		scopes := make([]string, parts)
		for i := range scopes {
			scopes[i] = "read:" + strconv.Itoa(i)
		}
		b.Run(strconv.Itoa(parts), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rules := make([]m2mauth.Rule, parts)
				for i := range rules {
					rules[i] = m2mauth.AllOf(m2mauth.ClientID("app", scopes[i]), m2mauth.HasClaim("iss", scopes[i]), m2mauth.HasClaim("sub", scopes[i]), m2mauth.AllScopes(scopes[i]))
				}
				guard.RequireRule(m2mauth.AllOf(m2mauth.AnyOf(rules...), m2mauth.AllScopes(scopes...)))
			}
		})
	}
}

// BenchmarkFoldedRule makes, mounts and checks a rule that was folded so many times,
// as a loop over a list does. It grows in proportion to them.
func BenchmarkFoldedRule(b *testing.B) {
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(b, issuer)
	r := requestWith("Bearer " + issuer.Token(shop, "read"))
	permit := m2mauth.Custom("permit", func(context.Context, m2mauth.Claims, m2mauth.Request) error { return nil })
	for _, folds := range []int{1000, 10_000} {
		b.Run(strconv.Itoa(folds), func(b *testing.B) {
			for b.Loop() {
				rule := permit
				for i := range folds {
					rule = m2mauth.AllOf(rule, m2mauth.AnyScope("read", strconv.Itoa(i)))
				}
				guard.RequireRule(rule)
				if _, err := guard.Check(r, rule); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestRulesAllocateNothingForAKnownToken(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer)
	allocs := map[string]float64{}
	for name, rule := range rulesToMeasure() {
		r := knownRequest(t, guard, issuer, name)
		allocs[name] = testing.AllocsPerRun(1000, func() { _, _ = guard.Check(r, rule) })
	}
	for name, n := range allocs {
		assert.Zero(t, n, name)
	}
}
