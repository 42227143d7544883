package naive_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/naive"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
)

// forgeKey is a key of the forge: what is published of it, and what signs.
type forgeKey struct {
	kid    string // "" = none
	alg    string
	signer crypto.Signer
	hidden bool // not in the key set
}

// forge makes tokens from scripts: a good one, then bent as the bytes say.
type forge struct {
	keys   []*forgeKey
	jwks   []byte
	naive  []*naive.Key
	apis   []*forgeAPI
	kinds  map[string]int
	mu     sync.Mutex // guards the fields below and kinds
	passed int
	total  int
}

// forgeAPI is a guard and the naive verifier with the same rules.
type forgeAPI struct {
	guard *m2mauth.Guard
	rules naive.Rules
}

const (
	forgeIssuer   = "https://issuer.test/oidc"
	forgeAudience = "https://api.test"
)

// theForge is made once: RSA keys take their time.
var theForge = sync.OnceValue(newForge)

func newForge() *forge {
	ec := func(curve elliptic.Curve, scalar byte) *ecdsa.PrivateKey {
		size := (curve.Params().BitSize + 7) / 8
		key, err := ecdsa.ParseRawPrivateKey(curve, append(make([]byte, size-1), scalar))
		if err != nil {
			panic(err)
		}
		return key
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	ed := func(seed byte) crypto.Signer {
		return ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), seed))
	}
	f := &forge{kinds: map[string]int{}}
	f.keys = []*forgeKey{
		{kid: "ed", alg: "EdDSA", signer: ed(1)},
		{kid: "p256", alg: "ES256", signer: ec(elliptic.P256(), 7)},
		{kid: "twins", alg: "ES384", signer: ec(elliptic.P384(), 7)}, // two keys under one ID
		{kid: "twins", alg: "ES512", signer: ec(elliptic.P521(), 7)},
		{kid: "rsa", alg: "RS256", signer: rsaKey}, // published without alg
		{kid: "pss", alg: "PS256", signer: rsaKey},
		{alg: "EdDSA", signer: ed(2)},
		{kid: "ed", alg: "EdDSA", signer: ed(3), hidden: true},
		{kid: "old", alg: "EdDSA", signer: ed(4), hidden: true},
		{kid: "p256", alg: "ES256", signer: ec(elliptic.P256(), 9), hidden: true},
		{kid: "same", alg: "EdDSA", signer: ed(5)},
		{kid: "same", alg: "EdDSA", signer: ed(6)},
	}
	var list []json.RawMessage
	for _, k := range f.keys {
		if k.hidden {
			continue
		}
		jwk := k.jwk()
		parsed, err := naive.ParseKey(jwk, "RS256")
		if err != nil {
			panic(err)
		}
		list, f.naive = append(list, jwk), append(f.naive, parsed)
	}
	f.jwks, err = json.Marshal(map[string]any{"keys": list})
	if err != nil {
		panic(err)
	}
	usual := naive.Rules{
		Issuer: forgeIssuer, Audiences: []string{forgeAudience}, Types: []string{"at+jwt"}, ScopeClaims: []string{"scope"}, ClientClaims: []string{"client_id"},
		Algorithms: []string{"ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"}, Leeway: 30 * time.Second,
	}
	f.add(usual, m2mauth.Config{})
	lax := usual
	lax.Types, lax.ScopeClaims, lax.ClientClaims = []string{"at+jwt", "jwt", ""}, []string{"scope", "scp"}, []string{"client_id", "azp"}
	lax.InsecureAllowOrganizationTokens, lax.Audiences = true, []string{forgeAudience, "https://other.test"}
	f.add(lax, m2mauth.Config{
		TokenTypes: []string{"at+jwt", "application/JWT", ""}, ScopeClaims: lax.ScopeClaims, ClientClaims: lax.ClientClaims,
		InsecureAllowOrganizationTokens: true, OtherAudiences: []string{"https://other.test"},
	})
	strict := usual
	strict.Leeway, strict.MaxLifetime, strict.Algorithms = 0, time.Hour, []string{"EdDSA"}
	f.add(strict, m2mauth.Config{Leeway: -1, MaxLifetime: time.Hour, Algorithms: []string{"Ed25519"}, CacheBytes: -1})
	other := usual // as issuers do that are not of RFC 9068
	other.ScopeClaims, other.ClientClaims, other.OrganizationClaims = []string{"scope", "/realm/roles"}, []string{"client_id", "/azp"}, []string{"org_id", "/realm/org"}
	other.RequiredClaims = map[string][]string{"/iss": {"x", forgeIssuer}, "jti": {"1", "read"}}
	other.AllowMissingSubject, other.ClientsWithoutAudience, other.InsecureAllowOrganizationTokens = true, []string{"read", "app"}, true
	f.add(other, m2mauth.Config{
		ScopeClaims: other.ScopeClaims, ClientClaims: other.ClientClaims, OrganizationClaims: other.OrganizationClaims, RequiredClaims: other.RequiredClaims,
		AllowMissingSubject: true, ClientsWithoutAudience: other.ClientsWithoutAudience, InsecureAllowOrganizationTokens: true,
	})
	prefixed := usual
	prefixed.ScopePrefix = "re"
	f.add(prefixed, m2mauth.Config{ScopePrefix: "re", ImpliedScopes: map[string][]string{"ad": {"x"}}})
	within := usual
	within.ScopeClaims, within.ScopeOrganization = []string{"/realm/roles"}, "234"
	f.add(within, m2mauth.Config{ScopeClaims: within.ScopeClaims, ScopeOrganization: "234"})
	return f
}

func (f *forge) add(rules naive.Rules, c m2mauth.Config) {
	c.Issuer, c.Audience, c.JWKS, c.Logger = forgeIssuer, forgeAudience, f.jwks, slog.New(slog.DiscardHandler)
	guard, err := m2mauth.New(c)
	if err != nil {
		panic(err)
	}
	f.apis = append(f.apis, &forgeAPI{guard, rules})
}

func (k *forgeKey) jwk() json.RawMessage {
	text := base64.RawURLEncoding.EncodeToString
	m := map[string]string{"alg": k.alg}
	if k.kid != "" {
		m["kid"] = k.kid
	}
	switch public := k.signer.Public().(type) {
	case ed25519.PublicKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", text(public)
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			panic(err)
		}
		size := len(point) / 2
		m["kty"], m["crv"], m["x"], m["y"] = "EC", public.Params().Name, text(point[1:1+size]), text(point[1+size:])
	case *rsa.PublicKey:
		m["kty"], m["n"], m["e"] = "RSA", text(public.N.Bytes()), text(big.NewInt(int64(public.E)).Bytes())
		if k.alg == "RS256" {
			delete(m, "alg")
		}
	}
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return raw
}

// sign signs as the algorithm has it, as far as the key can.
func (k *forgeKey) sign(input string) []byte {
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[k.alg[2:]]
	switch signer := k.signer.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, signer, naive.Digest(hash, []byte(input)))
		if err != nil {
			panic(err)
		}
		size := (signer.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case *rsa.PrivateKey:
		var opts crypto.SignerOpts = hash
		if k.alg == "PS256" {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		}
		signature, err := signer.Sign(rand.Reader, naive.Digest(hash, []byte(input)), opts)
		if err != nil {
			panic(err)
		}
		return signature
	default:
		return ed25519.Sign(signer.(ed25519.PrivateKey), []byte(input))
	}
}

// script is what the fuzzer writes. At its end it says 0 for ever.
type script []byte

func (s *script) next(n int) int {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return int(b) % n
}

func (s *script) take(n int) string {
	n = min(n, len(*s))
	taken := (*s)[:n]
	*s = (*s)[n:]
	return string(taken)
}

// forgeMember is a member as it will be written: name and value are raw JSON.
type forgeMember struct{ name, value string }

// token makes a token. base is the good one that it started from.
func (f *forge) token(s *script, now time.Time) (base, token string) {
	key := f.keys[s.next(len(f.keys))]
	header := []forgeMember{{`"alg"`, inQuotes(key.alg)}, {`"typ"`, `"at+jwt"`}}
	if key.kid != "" {
		header = append(header, forgeMember{`"kid"`, inQuotes(key.kid)})
	}
	at := now.Unix()
	payload := []forgeMember{
		{`"jti"`, `"1"`}, {`"sub"`, `"app"`}, {`"iat"`, fmt.Sprint(at)}, {`"exp"`, fmt.Sprint(at + 3600)}, {`"scope"`, `"read write"`},
		{`"client_id"`, `"app"`}, {`"iss"`, inQuotes(forgeIssuer)}, {`"aud"`, inQuotes(forgeAudience)},
	}
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	input := encode(written(header)) + "." + encode(written(payload))
	base = input + "." + encode(string(key.sign(input)))

	signer := key
	var before, after []func(string) string // done to header and payload as text, and to the encoded parts
	for range s.next(4) {
		switch what := s.next(16); {
		case what < 8:
			payload = f.bend(s, payload, claimNames, claimValues, at)
		case what < 12:
			header = f.bend(s, header, headerNames, headerValues, at)
		case what < 13:
			signer = f.keys[s.next(len(f.keys))]
		case what < 14:
			before = append(before, f.spoil(s))
		default:
			after = append(after, f.spoil(s))
		}
	}
	parts := []string{written(header), written(payload)}
	for _, spoil := range before {
		i := s.next(2)
		parts[i] = spoil(parts[i])
	}
	input = encode(parts[0]) + "." + encode(parts[1])
	if s.next(8) == 7 { // what is signed has been spoiled already
		for _, spoil := range after {
			input = spoil(input)
		}
		after = nil
	}
	token = input + "." + encode(string(signer.sign(input)))
	for _, spoil := range after {
		token = spoil(token)
	}
	return base, token
}

func inQuotes(s string) string { return `"` + s + `"` }

func written(members []forgeMember) string {
	var list []string
	for _, m := range members {
		list = append(list, m.name+":"+m.value)
	}
	return "{" + strings.Join(list, ",") + "}"
}

var (
	claimNames = []string{
		`"jti"`, `"sub"`, `"iat"`, `"exp"`, `"scope"`, `"client_id"`, `"iss"`, `"aud"`, `"nbf"`, `"cnf"`, `"organization_id"`, `"scp"`, `"azp"`, `"act"`,
		`"SUB"`, `"ſub"`, `"\u0073ub"`, `"i\u0073s"`, `"\ud83d\ude00"`, `"\ud83d"`, `""`, `"roles"`, `"permissions"`,
		`"realm"`, `"org_id"`, `"r\u0065alm"`,
	}
	claimValues = []string{
		`"app"`, `""`, `null`, `true`, `0`, `-1`, `-0`, `1e400`, `1e-400`, `253402300799`, `253402300800`, `9223372036854775808`, `"1"`, `{}`, `[]`,
		`"user"`, `"read"`, `["read","write"]`, `["read",1]`, `"read\twrite  admin"`, `"https://api.test"`, `["https://api.test"]`, `["x","https://other.test"]`, `"https://api.test/"`,
		`["https://api.test","urn:logto:organization:a"]`, `["urn:logto:resource:organizations","https://api.test"]`, `"https://issuer.test/oidc/"`, `"https:\/\/issuer.test\/oidc"`, `"HTTPS://issuer.test/oidc"`,
		`{"roles":["read"],"org":"app"}`, `{"roles":"read admin","org":1}`, `[{"roles":["read"],"org":"user"}]`, `{"org":"us\u0065r"}`, `{"roles":null}`, `{"roles":[],"roles":[]}`,
		`{"roles":{"reader":{"234":"a"},"admin":{"999":"234"}}}`, `{"roles":{"reader":{"234":null}}}`, `{"roles":{"reader":["234"]}}`, `{"roles":{"":{"23\u0034":""},"x":{}}}`,
		`{"sub":"read"}`, `{"sub":"a","iss":"b","client_id":"c","exp":0,"act":{"sub":"app"}}`, `{"sub":"a","client_id":1}`, `{"sub":"a","iss":""}`, `{"sub":"a","act":null}`, `{"act":{"sub":"a"}}`,
		`{"sub":1,"act":{"act":{"act":{"act":{"act":{"act":{"sub":"8"},"sub":"7"},"sub":"6"},"sub":"5"},"sub":"4"},"sub":"3"},"sub":"2"}`,
		`{"sub":"1","act":{"act":{"act":{"act":{"act":{"act":{"act":{"sub":"8"},"sub":"7"},"sub":"6"},"sub":"5"},"sub":"4"},"sub":"3"},"sub":"2"}}`,
		`{"sub":"0","act":{"sub":"1","act":{"act":{"act":{"act":{"act":{"act":{"act":{"sub":"8"},"sub":"7"},"sub":"6"},"sub":"5"},"sub":"4"},"sub":"3"},"sub":"2"}}}`,
		`{"jkt":"x"}`, `{"a":1,"a":2}`, `"\ud83d\ude00"`, `"\ude00"`, `[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]`, `[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]`,
	}
	headerNames  = []string{`"alg"`, `"typ"`, `"kid"`, `"crit"`, `"b64"`, `"jwk"`, `"jku"`, `"x5u"`, `"cty"`, `"zip"`, `"ALG"`, `"a\u006cg"`, `"\u006bid"`}
	headerValues = []string{
		`"EdDSA"`, `"Ed25519"`, `"ES256"`, `"ES384"`, `"ES512"`, `"RS256"`, `"PS256"`, `"none"`, `"HS256"`, `"RS512"`, `"at+jwt"`, `"application/at+jwt"`, `"AT+JWT"`, `"JWT"`, `""`,
		`"application/"`, `"application/application/at+jwt"`, `null`, `1`, `[]`, `[""]`, `false`, `"ed"`, `"p256"`, `"twins"`, `"rsa"`, `"pss"`, `"old"`, `"same"`, `"\u0065d"`, `{"kty":"oct","k":"AA"}`,
	}
	// seconds from now on which something changes, for one of the guards
	forgeTimes = []int64{-3600, -3601, -31, -30, -29, -1, 0, 1, 2, 29, 30, 31, 60, 3599, 3600, 3601, 7200, 1 << 40}
)

// bend changes, sets, doubles, renames, removes or swaps a member.
func (f *forge) bend(s *script, members []forgeMember, names, values []string, now int64) []forgeMember {
	members = slices.Clone(members)
	pick := func() int { return s.next(len(members)) }
	value := func(name string) string {
		isTime := name == `"exp"` || name == `"iat"` || name == `"nbf"`
		switch what := s.next(16); {
		case isTime && what < 14:
			return fmt.Sprint(now+forgeTimes[s.next(len(forgeTimes))]) + []string{"", ".5", ".0", "e0", ".999999"}[s.next(5)]
		case what == 15:
			return s.take(1 + s.next(8))
		}
		return values[s.next(len(values))]
	}
	name := func() string { return names[s.next(len(names))] }
	switch what := s.next(8) % 6; {
	case what == 1 || len(members) == 0:
		n := name()
		member := forgeMember{n, value(n)}
		if i := slices.IndexFunc(members, func(m forgeMember) bool { return m.name == n }); i >= 0 {
			members[i] = member
		} else {
			members = append(members, member)
		}
	case what == 0:
		i := pick()
		members[i].value = value(members[i].name)
	case what == 2:
		i := pick()
		members = slices.Delete(members, i, i+1)
	case what == 3:
		members = append(members, members[pick()])
	case what == 4:
		members[pick()].name = name()
	case what == 5:
		i, j := pick(), pick()
		members[i], members[j] = members[j], members[i]
	}
	return members
}

// spoil returns a change of a text that knows nothing of its structure.
func (f *forge) spoil(s *script) func(string) string {
	at := s.next(256)<<8 | s.next(256)
	what, bit := s.next(8), s.next(8)
	some := []string{"=", ".", "\n", " ", "\x00", "A", "_", "+", "\t", "{}", "é", "\xff", "\""}[s.next(13)]
	return func(text string) string {
		if text == "" {
			return some
		}
		i := at % len(text)
		switch what {
		case 0: // a bit
			b := []byte(text)
			b[i] ^= 1 << bit
			return string(b)
		case 1:
			return text[:i]
		case 2:
			return text[:i] + some + text[i:]
		case 3:
			return text[:i] + text[i+1:]
		case 4:
			return text + some
		case 5:
			return some + text
		case 6: // the last character, where spare bits may hide
			b := []byte(text)
			b[len(b)-1] ^= 1 << bit
			return string(b)
		default:
			return text + text[i:]
		}
	}
}

// compare has the guard and the naive verifier judge the token. They must agree,
// also once the guard remembers it.
func (f *forge) compare(t *testing.T, data []byte) {
	s := script(data)
	api := f.apis[s.next(len(f.apis))]
	before := time.Now()
	base, token := f.token(&s, before)
	if s.next(2) == 0 {
		_, _ = api.guard.Verify(t.Context(), base) // so that the memory has one that is close
	}
	for _, round := range []string{"at first", "then"} {
		claims, err := api.guard.Verify(t.Context(), token)
		want, naiveErr := api.rules.Verify(token, f.naive, before)
		later, laterErr := api.rules.Verify(token, f.naive, time.Now())
		if (naiveErr == nil) != (laterErr == nil) { // a second has just passed
			if naiveErr = nil; err != nil {
				continue
			}
			if want == nil {
				want = later
			}
		}
		require.Equal(t, naiveErr == nil, err == nil, "%s: %q\nguard: %v\nnaive: %v", round, token, err, naiveErr)
		f.count(round == "at first", err)
		if err != nil {
			require.True(t, claims.IsZero())
			continue
		}
		assertClaims(t, want, claims)
	}
}

func assertClaims(t *testing.T, want *naive.Claims, claims m2mauth.Claims) {
	t.Helper()
	assert.Equal(t, []string{want.Issuer, want.Subject, want.ClientID, want.ID, want.OrganizationID},
		[]string{claims.Issuer(), claims.Subject(), claims.ClientID(), claims.ID(), claims.OrganizationID()})
	assert.Equal(t, want.Audience, claims.Audience())
	assert.Equal(t, strings.Join(want.Scopes, "|"), strings.Join(slices.Collect(claims.Scopes().All()), "|"))
	assert.Equal(t, want.Subject == want.ClientID || want.Subject == "", claims.IsMachine())
	chain := want.Actors
	for actor, ok := claims.Actor(); ok; actor, ok = actor.Actor() {
		require.NotEmpty(t, chain)
		assert.Equal(t, chain[0], naive.Actor{Subject: actor.Subject, ClientID: actor.ClientID, Issuer: actor.Issuer})
		chain = chain[1:]
	}
	assert.Empty(t, chain)
	assert.InDelta(t, want.Expiry, float64(claims.ExpiresAt().UnixMicro())/1e6, 1e-3)
	assert.Equal(t, want.Issued, !claims.IssuedAt().IsZero())
	if want.Issued {
		assert.InDelta(t, want.IssuedAt, float64(claims.IssuedAt().UnixMicro())/1e6, 1e-3)
	}
}

func (f *forge) count(first bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !first {
		return
	}
	f.total++
	if err == nil {
		f.passed++
		return
	}
	for name, sentinel := range testguard.Sentinels {
		if sentinel != nil && errors.Is(err, sentinel) {
			f.kinds[name]++
		}
	}
}

// A guard accepts a token if and only if a naive verifier, which shares no code
// with it, accepts it, and both read the same in it.
func FuzzVerify(f *testing.F) {
	forge := theForge()
	for api := range forge.apis {
		for key := range forge.keys {
			f.Add([]byte{byte(api), byte(key)})
		}
	}
	for i, data := range simpleScripts() {
		if i%40 == 0 {
			f.Add(data)
		}
	}
	random := mathrand.New(mathrand.NewPCG(1, 2))
	for range 100 {
		f.Add(randomScript(random))
	}
	f.Fuzz(func(t *testing.T, data []byte) { forge.compare(t, data) })
}

// simpleScripts make, for each guard, tokens with one member set to each value.
func simpleScripts() (all [][]byte) {
	const inPayload, inHeader, set, aTime, aValue = 0, 8, 1, 0, 14
	for api := range theForge().apis {
		begin := []byte{byte(api), 0, 1}
		for name, text := range claimNames {
			for value := range claimValues {
				all = append(all, append(slices.Clone(begin), inPayload, set, byte(name), aValue, byte(value)))
			}
			if text == `"exp"` || text == `"iat"` || text == `"nbf"` {
				for at := range forgeTimes {
					for fraction := range 5 {
						all = append(all, append(slices.Clone(begin), inPayload, set, byte(name), aTime, byte(at), byte(fraction)))
					}
				}
			}
		}
		for name := range headerNames {
			for value := range headerValues {
				all = append(all, append(slices.Clone(begin), inHeader, set, byte(name), aValue, byte(value)))
			}
		}
	}
	return all
}

func randomScript(random *mathrand.Rand) []byte {
	data := make([]byte, 8+random.IntN(40))
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	return data
}

// The forge's tokens, without the fuzzer: enough are good, and enough are bad for
// each reason, for the comparison to say much.
func TestTheGuardAgreesWithANaiveVerifier(t *testing.T) {
	forge := newForge()
	number := 2500
	if testing.Short() {
		number = 800
	}
	for _, data := range simpleScripts() {
		forge.compare(t, data)
	}
	random := mathrand.New(mathrand.NewPCG(3, 4))
	for range number {
		forge.compare(t, randomScript(random))
	}
	t.Logf("%d tokens, %d accepted; refused: %v", forge.total, forge.passed, forge.kinds)
	assert.Greater(t, forge.passed, 500)
	for _, kind := range []string{
		"ErrMalformed", "ErrAlgorithm", "ErrType", "ErrIssuer", "ErrAudience", "ErrExpired", "ErrNotYetValid", "ErrClaims", "ErrUnknownKey", "ErrSignature",
	} {
		assert.Greater(t, forge.kinds[kind], 20, kind)
	}
}
