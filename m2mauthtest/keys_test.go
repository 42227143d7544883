package m2mauthtest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// publishedKeys reads the issuer's key set as JSON, in its order.
func publishedKeys(t *testing.T, issuer *m2mauthtest.Issuer) []map[string]string {
	t.Helper()
	_, body := do(t, issuer, "GET", issuer.JWKSURL(), nil, "")
	var set struct{ Keys []map[string]string }
	require.NoError(t, json.Unmarshal([]byte(body), &set), body)
	return set.Keys
}

func keyIDs(keys []map[string]string) []string {
	var ids []string
	for _, k := range keys {
		ids = append(ids, k["kid"])
	}
	return ids
}

func decode(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	require.NoError(t, err)
	return b
}

// verified says whether the signature of a token is good by one of the keys,
// with nothing but the standard library and the RFCs.
func verified(t *testing.T, token string, keys []map[string]string) bool {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	var header struct{ Alg, Kid string }
	require.NoError(t, json.Unmarshal(decode(t, parts[0]), &header))
	at := slices.IndexFunc(keys, func(k map[string]string) bool { return k["kid"] == header.Kid })
	if at < 0 {
		return false
	}
	return verifies(t, keys[at], header.Alg, parts[0]+"."+parts[1], decode(t, parts[2]))
}

func verifies(t *testing.T, jwk map[string]string, alg, input string, signature []byte) bool {
	t.Helper()
	number := func(member string) *big.Int { return new(big.Int).SetBytes(decode(t, jwk[member])) }
	var digest []byte
	var algHash crypto.Hash
	switch {
	case strings.HasSuffix(alg, "256"):
		sum := sha256.Sum256([]byte(input))
		digest, algHash = sum[:], crypto.SHA256
	case strings.HasSuffix(alg, "384"):
		sum := sha512.Sum384([]byte(input))
		digest, algHash = sum[:], crypto.SHA384
	case strings.HasSuffix(alg, "512"):
		sum := sha512.Sum512([]byte(input))
		digest, algHash = sum[:], crypto.SHA512
	}
	switch jwk["kty"] {
	case "EC":
		curve := map[string]elliptic.Curve{
			"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521(),
		}[jwk["crv"]]
		size := map[string]int{"P-256": 32, "P-384": 48, "P-521": 66}[jwk["crv"]]
		require.Len(t, decode(t, jwk["x"]), size)
		require.Len(t, decode(t, jwk["y"]), size)
		require.Len(t, signature, 2*size)
		pub, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, decode(t, jwk["x"]), decode(t, jwk["y"])))
		require.NoError(t, err)
		r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
		return ecdsa.Verify(pub, digest, r, s)
	case "RSA":
		pub := &rsa.PublicKey{N: number("n"), E: int(number("e").Int64())}
		require.Equal(t, 2048, pub.N.BitLen())
		if strings.HasPrefix(alg, "PS") {
			opts := &rsa.PSSOptions{SaltLength: algHash.Size()}
			return rsa.VerifyPSS(pub, algHash, digest, signature, opts) == nil
		}
		return rsa.VerifyPKCS1v15(pub, algHash, digest, signature) == nil
	case "OKP":
		return ed25519.Verify(decode(t, jwk["x"]), []byte(input), signature)
	}
	t.Fatalf("kty %q", jwk["kty"])
	return false
}

func thumbprint(t *testing.T, jwk map[string]string) string {
	t.Helper()
	required := map[string]string{}
	for _, name := range map[string][]string{
		"EC": {"crv", "kty", "x", "y"}, "RSA": {"e", "kty", "n"}, "OKP": {"crv", "kty", "x"},
	}[jwk["kty"]] {
		required[name] = jwk[name]
	}
	b, err := json.Marshal(required) // sorts the names
	require.NoError(t, err)
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestEveryAlgorithmSignsWithAPublishedKey(t *testing.T) {
	t.Parallel()
	tests := []struct{ alg, form string }{
		{"ES256", `{"kty":"EC","use":"sig",kid43,"alg":"ES256","crv":"P-256",x43,y43}`},
		{"ES384", `{"kty":"EC","use":"sig",kid43,"alg":"ES384","crv":"P-384",x64,y64}`},
		{"ES512", `{"kty":"EC","use":"sig",kid43,"alg":"ES512","crv":"P-521",x88,y88}`},
		{"RS256", `{"kty":"RSA","use":"sig",kid43,e4,n342}`},
		{"RS384", `{"kty":"RSA","use":"sig",kid43,"alg":"RS384",e4,n342}`},
		{"RS512", `{"kty":"RSA","use":"sig",kid43,"alg":"RS512",e4,n342}`},
		{"PS256", `{"kty":"RSA","use":"sig",kid43,"alg":"PS256",e4,n342}`},
		{"PS384", `{"kty":"RSA","use":"sig",kid43,"alg":"PS384",e4,n342}`},
		{"PS512", `{"kty":"RSA","use":"sig",kid43,"alg":"PS512",e4,n342}`},
		{"EdDSA", `{"kty":"OKP","use":"sig",kid43,"alg":"EdDSA","crv":"Ed25519",x43}`},
		{"Ed25519", `{"kty":"OKP","use":"sig",kid43,"alg":"Ed25519","crv":"Ed25519",x43}`},
	}
	for _, tt := range tests {
		t.Run(tt.alg, func(t *testing.T) {
			t.Parallel()
			issuer := m2mauthtest.NewIssuer()
			kid := issuer.Rotate(tt.alg)
			_, body := do(t, issuer, "GET", issuer.JWKSURL(), nil, "")
			assert.Contains(t, shape(t, body), `{"keys":[`+tt.form+`,`)

			keys := publishedKeys(t, issuer)
			assert.Equal(t, kid, keys[0]["kid"])
			assert.Equal(t, thumbprint(t, keys[0]), kid)

			token := issuer.Token("https://shopping.api", "read:products")
			_, header := members(t, strings.Split(token, ".")[0])
			assert.Equal(t, map[string]any{"alg": tt.alg, "typ": "at+jwt", "kid": kid}, header)
			assert.True(t, verified(t, token, keys))
			assert.False(t, verified(t, strings.Replace(token, ".", ".e30", 1), keys), "another payload")
		})
	}
}

func TestAnAlgorithmThatTheKeyCanDoIsUsed(t *testing.T) {
	t.Parallel()
	tests := []struct{ key, written, used string }{
		{"ES384", "ES256", "ES256"},
		{"ES384", "RS256", "ES384"},
		{"ES384", "nonsense", "ES384"},
		{"EdDSA", "Ed25519", "Ed25519"},
		{"EdDSA", "ES256", "EdDSA"},
		{"RS256", "RS384", "RS384"},
		{"RS256", "RS512", "RS512"},
		{"RS256", "PS256", "PS256"},
		{"RS256", "PS384", "PS384"},
		{"PS512", "RS256", "RS256"},
		{"PS512", "ES256", "PS512"},
		{"RS256", "RS2", "RS256"},
	}
	for _, tt := range tests {
		t.Run(tt.key+" key and "+tt.written, func(t *testing.T) {
			t.Parallel()
			issuer := m2mauthtest.NewIssuer()
			issuer.Rotate(tt.key)
			parts := strings.Split(issuer.Sign(m2mauthtest.Token{Algorithm: tt.written}), ".")
			_, header := members(t, parts[0])
			assert.Equal(t, tt.written, header["alg"])
			jwk := publishedKeys(t, issuer)[0]
			assert.True(t, verifies(t, jwk, tt.used, parts[0]+"."+parts[1], decode(t, parts[2])))
		})
	}
}

func TestSymmetricAndEmptySignatures(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	for alg, newHash := range map[string]func() hash.Hash{"HS256": sha256.New, "HS384": sha512.New384, "HS512": sha512.New} {
		secret := []byte("a secret that both sides know")
		token := issuer.Sign(m2mauthtest.Token{Algorithm: alg, Secret: secret})
		dot := strings.LastIndexByte(token, '.')
		mac := hmac.New(newHash, secret)
		mac.Write([]byte(token[:dot]))
		assert.Equal(t, mac.Sum(nil), decode(t, token[dot+1:]), alg)
	}
	token := issuer.Sign(m2mauthtest.Token{Algorithm: "none"})
	assert.True(t, strings.HasSuffix(token, "."))
	_, header := members(t, strings.Split(token, ".")[0])
	assert.Equal(t, "none", header["alg"])
}

func TestRotationKeepsOnePreviousKey(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	first := issuer.KeyIDs()[0]
	token := issuer.Token("https://shopping.api")

	second := issuer.Rotate("ES384")
	assert.Equal(t, []string{second, first}, issuer.KeyIDs())
	assert.True(t, verified(t, token, publishedKeys(t, issuer)))

	third := issuer.Rotate("ES256")
	assert.Equal(t, []string{third, second}, issuer.KeyIDs())
	assert.Equal(t, []string{third, second}, keyIDs(publishedKeys(t, issuer)))
	assert.False(t, verified(t, token, publishedKeys(t, issuer)), "the first key has gone")

	old := issuer.Sign(m2mauthtest.Token{KeyID: first})
	_, header := members(t, strings.Split(old, ".")[0])
	assert.Equal(t, map[string]any{"alg": "ES384", "typ": "at+jwt", "kid": first}, header, "but it can sign")
}

func TestAStagedKeyIsPublishedBeforeItSigns(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	previous := issuer.KeyIDs()[0]
	current := issuer.Rotate("ES384")
	staged := issuer.Stage("EdDSA")
	assert.Equal(t, []string{current, staged, previous}, keyIDs(publishedKeys(t, issuer)))
	assert.Equal(t, current, kidOf(t, issuer.Token("a")))

	assert.Panics(t, func() { issuer.Rotate("ES384") })
	assert.Panics(t, func() { issuer.Stage("ES384") })

	issuer.Activate()
	assert.Equal(t, []string{staged, current}, keyIDs(publishedKeys(t, issuer)))
	assert.Equal(t, staged, kidOf(t, issuer.Token("a")))
	assert.Panics(t, func() { issuer.Activate() })
}

func TestAWithdrawnKeySignsButIsNotPublished(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	old := issuer.KeyIDs()[0]
	current := issuer.Rotate("ES384")
	issuer.Withdraw(old)
	assert.Equal(t, []string{current}, issuer.KeyIDs())
	assert.Equal(t, old, kidOf(t, issuer.Sign(m2mauthtest.Token{KeyID: old})))

	issuer.Withdraw(current)
	assert.Empty(t, issuer.KeyIDs())
	_, body := do(t, issuer, "GET", issuer.JWKSURL(), nil, "")
	assert.Equal(t, `{"keys":[]}`, body)
	_, body = do(t, issuer, "GET", issuer.URL()+"/.well-known/openid-configuration", nil, "")
	assert.Contains(t, body, `"id_token_signing_alg_values_supported":[]`)
	assert.Equal(t, current, kidOf(t, issuer.Token("a")))

	next := issuer.Rotate("ES384")
	assert.Equal(t, []string{next}, issuer.KeyIDs(), "as the previous key it stays withdrawn")
	assert.Panics(t, func() { issuer.Withdraw("unknown") })
}

func TestAReplacedKeyHasTheSameID(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	kid := issuer.KeyIDs()[0]
	before := issuer.Token("a")
	was := publishedKeys(t, issuer)[0]

	issuer.Replace(kid)
	now := publishedKeys(t, issuer)
	assert.Equal(t, []string{kid}, keyIDs(now))
	assert.NotEqual(t, was["x"], now[0]["x"])
	assert.Equal(t, was["alg"], now[0]["alg"])
	assert.False(t, verified(t, before, now))
	assert.True(t, verified(t, issuer.Token("a"), now))
	assert.True(t, verified(t, issuer.Sign(m2mauthtest.Token{KeyID: kid}), now))
	assert.Panics(t, func() { issuer.Replace("unknown") })
}

func TestOddKeysArePublishedByteForByte(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	_, plain := do(t, issuer, "GET", issuer.JWKSURL(), nil, "")
	odd := json.RawMessage(`{ "kty" : "odd", "kty":1 }`)
	issuer.PublishJWK(odd)
	issuer.PublishJWK(json.RawMessage(`{`))
	copy(odd, "changed later")
	_, body := do(t, issuer, "GET", issuer.JWKSURL(), nil, "")
	assert.Equal(t, strings.TrimSuffix(plain, "]}")+`,{ "kty" : "odd", "kty":1 },{]}`, body)
	assert.Len(t, issuer.KeyIDs(), 1)

	issuer.PublishJWK(nil)
	_, body = do(t, issuer, "GET", issuer.JWKSURL(), nil, "")
	assert.Equal(t, plain, body)
}

func TestNoKeyForAnUnknownAlgorithm(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"", "none", "HS256", "es256", "ES256K"} {
		assert.PanicsWithValue(t, fmt.Sprintf("m2mauthtest: no key can be made for the algorithm %q", alg),
			func() { m2mauthtest.NewIssuer().Rotate(alg) })
	}
}

func kidOf(t *testing.T, token string) string {
	t.Helper()
	_, header := members(t, strings.Split(token, ".")[0])
	return str(header["kid"])
}
