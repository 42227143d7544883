package jose_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/test/naive"
)

// The standard library alone makes the signatures of these tests, and the JWKs are
// written by hand: nothing here shares code with what it tests.

var (
	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	edKey    = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	ecKeys   = map[string]*ecdsa.PrivateKey{"P-256": newEC(elliptic.P256()), "P-384": newEC(elliptic.P384()), "P-521": newEC(elliptic.P521())}
	hashes   = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}
	theInput = []byte("header.payload")
)

func newEC(c elliptic.Curve) *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(c, rand.Reader)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

type jwk map[string]any

// with returns a copy with these members; nil removes one.
func (k jwk) with(changes jwk) jwk {
	k = maps.Clone(k)
	for name, value := range changes {
		if k[name] = value; value == nil {
			delete(k, name)
		}
	}
	return k
}

func (k jwk) bytes() []byte { return must(json.Marshal(k)) }

func ecJWK(curve string) jwk {
	point := must(ecKeys[curve].PublicKey.Bytes())
	size := len(point) / 2
	return jwk{"kty": "EC", "kid": "1", "use": "sig", "crv": curve, "x": b64(point[1 : 1+size]), "y": b64(point[1+size:])}
}

func rsaJWK() jwk {
	return jwk{"kty": "RSA", "kid": "1", "use": "sig", "n": b64(rsaKey().N.Bytes()), "e": "AQAB"}
}

func edJWK() jwk {
	return jwk{"kty": "OKP", "kid": "1", "use": "sig", "crv": "Ed25519", "x": b64(edKey.Public().(ed25519.PublicKey))}
}

func digest(hash crypto.Hash, input []byte) []byte {
	h := hash.New()
	h.Write(input)
	return h.Sum(nil)
}

// sign makes a signature per RFC 7518 §3.
func sign(t testing.TB, alg string, key crypto.Signer, input []byte) []byte {
	t.Helper()
	if alg == "EdDSA" {
		return ed25519.Sign(key.(ed25519.PrivateKey), input)
	}
	hash := hashes[alg[2:]]
	switch alg[:2] {
	case "ES":
		ec := key.(*ecdsa.PrivateKey)
		size := (ec.Curve.Params().BitSize + 7) / 8
		r, s, err := ecdsa.Sign(rand.Reader, ec, digest(hash, input))
		require.NoError(t, err)
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case "RS":
		return must(rsa.SignPKCS1v15(rand.Reader, key.(*rsa.PrivateKey), hash, digest(hash, input)))
	}
	return signPSS(key.(*rsa.PrivateKey), hash, rsa.PSSSaltLengthEqualsHash, input)
}

// signPSS can make long salts too, which GODEBUG=fips140=only would forbid.
func signPSS(key *rsa.PrivateKey, hash crypto.Hash, salt int, input []byte) (signature []byte) {
	fips140.WithoutEnforcement(func() {
		signature = must(rsa.SignPSS(rand.Reader, key, hash, digest(hash, input), &rsa.PSSOptions{SaltLength: salt}))
	})
	return signature
}

// validKeys has a JWK and the private key of each algorithm.
func validKeys() map[string]struct {
	jwk    jwk
	signer crypto.Signer
} {
	type pair = struct {
		jwk    jwk
		signer crypto.Signer
	}
	keys := map[string]pair{
		"ES256": {ecJWK("P-256"), ecKeys["P-256"]},
		"ES384": {ecJWK("P-384"), ecKeys["P-384"]},
		"ES512": {ecJWK("P-521"), ecKeys["P-521"]},
		"EdDSA": {edJWK(), edKey},
	}
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} {
		keys[alg] = pair{rsaJWK().with(jwk{"alg": alg}), rsaKey()}
	}
	return keys
}

func parse(t testing.TB, k jwk) *jose.Key {
	t.Helper()
	key, err := jose.ParseKey(k.bytes(), "RS256")
	require.NoError(t, err)
	return key
}

func TestVerify(t *testing.T) {
	t.Parallel()
	for alg, pair := range validKeys() {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			key := parse(t, pair.jwk)
			assert.Equal(t, alg, key.Algorithm())
			id, ok := key.ID()
			assert.Equal(t, "1", id)
			assert.True(t, ok)
			signature := sign(t, alg, pair.signer, theInput)
			require.NoError(t, key.Verify(theInput, signature))
			require.NoError(t, key.Verify(theInput, signature), "a key can be used again")

			assert.Error(t, key.Verify([]byte("header.payloae"), signature), "another input")
			assert.Error(t, key.Verify(nil, signature), "no input")
			assert.Error(t, key.Verify(append(theInput[:len(theInput):len(theInput)], '.'), signature), "a longer input")
			for _, at := range []int{0, len(signature) / 2, len(signature) - 1} {
				wrong := append([]byte(nil), signature...)
				wrong[at] ^= 1
				assert.Error(t, key.Verify(theInput, wrong), "byte %d changed", at)
			}
			for name, wrong := range map[string][]byte{
				"nil":            nil,
				"empty":          {},
				"a byte":         {1},
				"zeros":          make([]byte, len(signature)),
				"one byte less":  signature[:len(signature)-1],
				"one byte more":  append(signature[:len(signature):len(signature)], 0),
				"a zero before":  append([]byte{0}, signature...),
				"twice":          append(signature[:len(signature):len(signature)], signature...),
				"the first half": signature[:len(signature)/2],
			} {
				assert.Error(t, key.Verify(theInput, wrong), "signature: %s", name)
			}
		})
	}
}

// A zero in front of each half leaves the numbers unchanged, and must not be a second
// spelling of the signature. Nor must ASN.1.
func TestSignaturesOfECDSAHaveOneForm(t *testing.T) {
	t.Parallel()
	for _, curve := range []string{"P-256", "P-384", "P-521"} {
		key := parse(t, ecJWK(curve))
		private := ecKeys[curve]
		hash := hashes[key.Algorithm()[2:]]
		signature := sign(t, key.Algorithm(), private, theInput)
		half := len(signature) / 2
		padded := append(append([]byte{0}, signature[:half]...), append([]byte{0}, signature[half:]...)...)
		assert.Error(t, key.Verify(theInput, padded))
		assert.Error(t, key.Verify(theInput, must(ecdsa.SignASN1(rand.Reader, private, digest(hash, theInput)))))

		order := private.Params().N.Bytes()
		assert.Error(t, key.Verify(theInput, append(append([]byte(nil), order...), order...)), "r and s of the order")
		r := new(big.Int).SetBytes(signature[:half])
		if r.Add(r, private.Params().N); r.BitLen() <= 8*half {
			assert.Error(t, key.Verify(theInput, append(r.FillBytes(make([]byte, half)), signature[half:]...)), "r past the order")
		}
	}
}

// RFC 7518 §3.5: the salt is as long as the hash.
func TestSaltOfPSS(t *testing.T) {
	t.Parallel()
	for alg, hash := range map[string]crypto.Hash{"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512} {
		key := parse(t, rsaJWK().with(jwk{"alg": alg}))
		assert.NoError(t, key.Verify(theInput, signPSS(rsaKey(), hash, hash.Size(), theInput)))
		for _, salt := range []int{1, hash.Size() - 1, hash.Size() + 1, rsaKey().Size() - 2 - hash.Size()} { // the last is as long as possible
			assert.Error(t, key.Verify(theInput, signPSS(rsaKey(), hash, salt, theInput)), "%s with a salt of %d", alg, salt)
		}
	}
}

// A key has one algorithm (RFC 8725 §3.1): what another one would verify is wrong.
func TestAKeyVerifiesNoOtherAlgorithm(t *testing.T) {
	t.Parallel()
	for _, one := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} {
		signature := sign(t, one, rsaKey(), theInput)
		for _, other := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} {
			err := parse(t, rsaJWK().with(jwk{"alg": other})).Verify(theInput, signature)
			assert.Equal(t, one == other, err == nil, "%s under a key for %s", one, other)
		}
	}
	p256 := parse(t, ecJWK("P-256"))
	size := 32
	sum384, sum256 := sha512.Sum384(theInput), sha256.Sum256(theInput)
	for name, sum := range map[string][]byte{"SHA-384": sum384[:], "SHA-256": sum256[:]} {
		r, s, err := ecdsa.Sign(rand.Reader, ecKeys["P-256"], sum)
		require.NoError(t, err)
		err = p256.Verify(theInput, append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...))
		assert.Equal(t, name == "SHA-256", err == nil, "P-256 over %s", name)
	}
}

func TestAlgorithmOfAKey(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name         string
		jwk          jwk
		rsaAlgorithm string
		want         string
	}{
		{"EC without alg by its curve", ecJWK("P-384"), "RS256", "ES384"},
		{"EC with alg", ecJWK("P-521").with(jwk{"alg": "ES512"}), "", "ES512"},
		{"RSA without alg by the default", rsaJWK(), "RS256", "RS256"},
		{"RSA without alg by another default", rsaJWK(), "PS384", "PS384"},
		{"RSA with alg against the default", rsaJWK().with(jwk{"alg": "RS512"}), "RS256", "RS512"},
		{"RSA with alg without a default", rsaJWK().with(jwk{"alg": "PS256"}), "", "PS256"},
		{"OKP without alg", edJWK(), "", "EdDSA"},
		{"OKP with EdDSA", edJWK().with(jwk{"alg": "EdDSA"}), "", "EdDSA"},
		{"OKP with Ed25519", edJWK().with(jwk{"alg": "Ed25519"}), "", "EdDSA"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			key, err := jose.ParseKey(test.jwk.bytes(), test.rsaAlgorithm)
			require.NoError(t, err)
			assert.Equal(t, test.want, key.Algorithm())
		})
	}
}

func TestMembersThatMayBeThereOrNot(t *testing.T) {
	t.Parallel()
	for name, k := range map[string]jwk{
		"no use":                     ecJWK("P-384").with(jwk{"use": nil}),
		"key_ops with verify":        ecJWK("P-384").with(jwk{"use": nil, "key_ops": []string{"verify"}}),
		"key_ops with more":          ecJWK("P-384").with(jwk{"key_ops": []string{"sign", "verify"}}),
		"unknown members":            ecJWK("P-384").with(jwk{"x5c": []string{"rubbish"}, "x5t": 7, "exp": "never", "nested": jwk{"d": 1}}),
		"other letters of kty":       ecJWK("P-384").with(jwk{"KTY": "RSA", "Crv": "P-256"}),
		"a private member's capital": ecJWK("P-384").with(jwk{"D": "AAAA", "K": "AAAA"}),
		"coordinates in capitals":    ecJWK("P-384").with(jwk{"X": ecJWK("P-384")["y"], "Y": "rubbish"}),
		"an RSA member":              ecJWK("P-384").with(jwk{"n": "AQAB", "e": "AQAB"}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := parse(t, k)
			require.NoError(t, key.Verify(theInput, sign(t, "ES384", ecKeys["P-384"], theInput)))
		})
	}
	key := parse(t, ecJWK("P-384").with(jwk{"kid": nil}))
	_, ok := key.ID()
	assert.False(t, ok)
	key = parse(t, ecJWK("P-384").with(jwk{"kid": ""}))
	id, ok := key.ID()
	assert.True(t, ok, "an empty kid is a kid")
	assert.Empty(t, id)
}

// jwx ignores the case of names: of "n" and "N" it takes the last, whichever that is.
func TestNamesInOtherLettersAreNotRead(t *testing.T) {
	t.Parallel()
	attacker := must(rsa.GenerateKey(rand.Reader, 2048))
	plain := string(rsaJWK().bytes())
	foreign := b64(attacker.N.Bytes())
	for name, raw := range map[string]string{
		"N after n":  strings.TrimSuffix(plain, "}") + `,"N":"` + foreign + `"}`,
		"N before n": `{"N":"` + foreign + `",` + strings.TrimPrefix(plain, "{"),
		"E after e":  strings.TrimSuffix(plain, "}") + `,"E":"Aw"}`,
	} {
		key, err := jose.ParseKey([]byte(raw), "RS256")
		require.NoError(t, err, name)
		assert.NoError(t, key.Verify(theInput, sign(t, "RS256", rsaKey(), theInput)), name)
		assert.Error(t, key.Verify(theInput, sign(t, "RS256", attacker, theInput)), name)
	}
	_, err := jose.ParseKey(rsaJWK().with(jwk{"n": nil, "N": rsaJWK()["n"]}).bytes(), "RS256")
	assert.ErrorContains(t, err, "n is missing or not base64url")
	_, err = jose.ParseKey(ecJWK("P-256").with(jwk{"crv": nil, "CRV": "P-256"}).bytes(), "")
	assert.ErrorContains(t, err, "unsupported crv")
	_, err = jose.ParseKey(ecJWK("P-256").with(jwk{"kty": nil, "Kty": "EC"}).bytes(), "")
	assert.ErrorContains(t, err, "unsupported kty")
}

func TestParseKeyRefuses(t *testing.T) {
	t.Parallel()
	ec, okp := ecJWK("P-256"), edJWK()
	x := must(base64.RawURLEncoding.DecodeString(ec["x"].(string)))
	modulus := func(bits int) string { // odd, with so many bits
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
		return b64(n.SetBit(n, 0, 1).Bytes())
	}
	for _, test := range []struct {
		name string
		jwk  jwk
		want string
	}{
		{"no kty", ec.with(jwk{"kty": nil}), "unsupported kty"},
		{"an unknown kty", ec.with(jwk{"kty": "AKP"}), "unsupported kty"},
		{"kty in lower case", ec.with(jwk{"kty": "ec"}), "unsupported kty"},
		{"kty that is no string", ec.with(jwk{"kty": 1}), "kty is not a string"},
		{"a symmetric key", jwk{"kty": "oct", "kid": "1", "k": "AAAA"}, "a private or symmetric key is published"},
		{"a symmetric key without k", jwk{"kty": "oct", "kid": "1"}, "unsupported kty"},
		{"an EC key with d", ec.with(jwk{"d": "AAAA"}), "a private or symmetric key is published"},
		{"an EC key with an empty d", ec.with(jwk{"d": ""}), "a private or symmetric key is published"},
		{"an EC key with k", ec.with(jwk{"k": "AAAA"}), "a private or symmetric key is published"},
		{"an OKP key with d", okp.with(jwk{"d": "AAAA"}), "a private or symmetric key is published"},
		{"an RSA key with p", rsaJWK().with(jwk{"p": "AAAA"}), "a private or symmetric key is published"},
		{"an RSA key with q", rsaJWK().with(jwk{"q": "AAAA"}), "a private or symmetric key is published"},
		{"an RSA key with dp", rsaJWK().with(jwk{"dp": "AAAA"}), "a private or symmetric key is published"},
		{"an RSA key with dq", rsaJWK().with(jwk{"dq": "AAAA"}), "a private or symmetric key is published"},
		{"an RSA key with qi", rsaJWK().with(jwk{"qi": "AAAA"}), "a private or symmetric key is published"},
		{"an RSA key with oth", rsaJWK().with(jwk{"oth": []int{}}), "a private or symmetric key is published"},

		{"use enc", ec.with(jwk{"use": "enc"}), "use is enc: the key is for encryption"},
		{"an empty use", ec.with(jwk{"use": ""}), "use is not sig"},
		{"use that is no string", ec.with(jwk{"use": 1}), "use is not sig"},
		{"use null", ec.with(jwk{"use": json.RawMessage("null")}), "use is not sig"},
		{"key_ops without verify", ec.with(jwk{"key_ops": []string{"sign"}}), "key_ops does not hold verify"},
		{"empty key_ops", ec.with(jwk{"key_ops": []string{}}), "key_ops does not hold verify"},
		{"key_ops null", ec.with(jwk{"key_ops": json.RawMessage("null")}), "key_ops does not hold verify"},
		{"key_ops with a value twice", ec.with(jwk{"key_ops": []string{"verify", "sign", "verify"}}), "key_ops holds a value twice"},
		{"key_ops with another value twice", ec.with(jwk{"key_ops": []string{"sign", "verify", "sign"}}), "key_ops holds a value twice"},
		{"key_ops that is a string", ec.with(jwk{"key_ops": "verify"}), "key_ops does not hold verify"},
		{"key_ops of no strings", ec.with(jwk{"key_ops": []any{"verify", 1}}), "key_ops does not hold verify"},
		{"kid that is no string", ec.with(jwk{"kid": 1}), "kid is not a string"},
		{"kid null", ec.with(jwk{"kid": json.RawMessage("null")}), "kid is not a string"},

		{"alg that is no string", ec.with(jwk{"alg": 256}), "alg is not a string"},
		{"alg null", ec.with(jwk{"alg": json.RawMessage("null")}), "alg is not a string"},
		{"an empty alg", ec.with(jwk{"alg": ""}), "unsupported alg"},
		{"an unknown alg", ec.with(jwk{"alg": "ES256K"}), "unsupported alg"},
		{"alg none", ec.with(jwk{"alg": "none"}), "unsupported alg"},
		{"a P-256 key for ES384", ec.with(jwk{"alg": "ES384"}), "alg does not fit the key"},
		{"a P-256 key for RS256", ec.with(jwk{"alg": "RS256"}), "alg does not fit the key"},
		{"a P-256 key for HS256", ec.with(jwk{"alg": "HS256"}), "unsupported alg"},
		{"a P-256 key for ECDH-ES", ec.with(jwk{"alg": "ECDH-ES"}), "unsupported alg"},
		{"an RSA key for ES256", rsaJWK().with(jwk{"alg": "ES256"}), "alg does not fit the key"},
		{"an RSA key for HS256", rsaJWK().with(jwk{"alg": "HS256"}), "unsupported alg"},
		{"an RSA key for RSA-OAEP", rsaJWK().with(jwk{"alg": "RSA-OAEP"}), "unsupported alg"},
		{"an RSA key whose alg is no string", rsaJWK().with(jwk{"alg": 1}), "alg is not a string"},
		{"an Ed25519 key for ES256", okp.with(jwk{"alg": "ES256"}), "alg does not fit the key"},
		{"an Ed25519 key for Ed448", okp.with(jwk{"alg": "Ed448"}), "unsupported alg"},

		{"no crv", ec.with(jwk{"crv": nil}), "unsupported crv"},
		{"an unknown crv", ec.with(jwk{"crv": "secp256k1"}), "unsupported crv"},
		{"an OKP curve for EC", ec.with(jwk{"crv": "Ed25519"}), "unsupported crv"},
		{"crv that is no string", ec.with(jwk{"crv": 256}), "crv is not a string"},
		{"no x", ec.with(jwk{"x": nil}), "x is missing or not base64url"},
		{"no y", ec.with(jwk{"y": nil}), "y is missing or not base64url"},
		{"x that is no string", ec.with(jwk{"x": 1}), "x is not a string"},
		{"y null", ec.with(jwk{"y": json.RawMessage("null")}), "y is not a string"},
		{"x with too much padding", ec.with(jwk{"x": ec["x"].(string) + "=="}), "x is missing or not base64url"},
		{"x with padding inside", ec.with(jwk{"x": ec["x"].(string)[:8] + "=" + ec["x"].(string)[9:] + "="}), "x is missing or not base64url"},
		{"x of padding alone", ec.with(jwk{"x": "===="}), "x is missing or not base64url"},
		{"x with a line break", ec.with(jwk{"x": ec["x"].(string)[:8] + "\n" + ec["x"].(string)[8:]}), "x is missing or not base64url"},
		{"x with a plus", ec.with(jwk{"x": "+" + ec["x"].(string)[1:]}), "x is missing or not base64url"},
		{"x with a space", ec.with(jwk{"x": ec["x"].(string) + " "}), "x is missing or not base64url"},
		{"a short x", ec.with(jwk{"x": b64(x[1:])}), `x has \d+ bytes, not 32`},
		{"a long x", ec.with(jwk{"x": b64(append([]byte{0}, x...))}), `x has \d+ bytes, not 32`},
		{"a short y", ec.with(jwk{"y": b64(x[:31])}), `y has \d+ bytes, not 32`},
		{"an empty y", ec.with(jwk{"y": ""}), "y is missing or not base64url"},
		{"coordinates of another curve", ecJWK("P-384").with(jwk{"crv": "P-256"}), `x has \d+ bytes, not 32`},
		{"a point off the curve", ec.with(jwk{"y": ec["x"]}), "the point is not on the curve"},
		{"the point at infinity", ec.with(jwk{"x": b64(make([]byte, 32)), "y": b64(make([]byte, 32))}), "the point is not on the curve"},
		{"coordinates past the prime", ec.with(jwk{"x": b64([]byte(strings.Repeat("\xff", 32)))}), "the point is not on the curve"},

		{"no n", rsaJWK().with(jwk{"n": nil}), "n is missing or not base64url"},
		{"no e", rsaJWK().with(jwk{"e": nil}), "e is missing or not base64url"},
		{"n that is no string", rsaJWK().with(jwk{"n": 1}), "n is not a string"},
		{"e that is a number", rsaJWK().with(jwk{"e": 65537}), "e is not a string"},
		{"n with too little padding", rsaJWK().with(jwk{"n": rsaJWK()["n"].(string) + "="}), "n is missing or not base64url"},
		{"e with padding that it needs not", rsaJWK().with(jwk{"e": "AQAB===="}), "e is missing or not base64url"},
		{"n that is null", rsaJWK().with(jwk{"n": json.RawMessage("null")}), "n is not a string"},
		{"kty null", rsaJWK().with(jwk{"kty": json.RawMessage("null")}), "kty is not a string"},
		{"e with bits left over", rsaJWK().with(jwk{"e": "Ax"}), "e is missing or not base64url"},
		{"an empty n", rsaJWK().with(jwk{"n": ""}), "n is missing or not base64url"},
		{"an empty e", rsaJWK().with(jwk{"e": ""}), "e is missing or not base64url"},
		{"n of zeros", rsaJWK().with(jwk{"n": b64(make([]byte, 256))}), "a modulus of 0 bits, not 2048 to 8192"},
		{"n of 1024 bits with zeros in front", rsaJWK().with(jwk{"n": b64(append(make([]byte, 128), must(base64.RawURLEncoding.DecodeString(modulus(1024)))...))}), "a modulus of 1024 bits, not 2048 to 8192"},
		{"e of zeros", rsaJWK().with(jwk{"e": "AAAA"}), "n or e is even, or e is out of range"},
		{"an exponent of 1 with zeros in front", rsaJWK().with(jwk{"e": "AAAB"}), "n or e is even, or e is out of range"},
		{"1024 bits", rsaJWK().with(jwk{"n": modulus(1024)}), "a modulus of 1024 bits, not 2048 to 8192"},
		{"2047 bits", rsaJWK().with(jwk{"n": modulus(2047)}), "a modulus of 2047 bits, not 2048 to 8192"},
		{"8193 bits", rsaJWK().with(jwk{"n": modulus(8193)}), "a modulus of 8193 bits, not 2048 to 8192"},
		{"an even modulus", rsaJWK().with(jwk{"n": b64(new(big.Int).Lsh(big.NewInt(1), 2047).Bytes())}), "n or e is even, or e is out of range"},
		{"an exponent of 1", rsaJWK().with(jwk{"e": "AQ"}), "n or e is even, or e is out of range"},
		{"an even exponent", rsaJWK().with(jwk{"e": "Ag"}), "n or e is even, or e is out of range"},
		{"an exponent of 32 bits", rsaJWK().with(jwk{"e": "gAAAAQ"}), "n or e is even, or e is out of range"},
		{"an exponent that overflows", rsaJWK().with(jwk{"e": b64([]byte{1, 0, 0, 0, 0, 0, 1, 0, 1})}), "n or e is even, or e is out of range"},

		{"no crv of OKP", okp.with(jwk{"crv": nil}), "unsupported crv"},
		{"X25519", okp.with(jwk{"crv": "X25519"}), "unsupported crv"},
		{"Ed448", okp.with(jwk{"crv": "Ed448"}), "unsupported crv"},
		{"no x of OKP", okp.with(jwk{"x": nil}), "x is missing or not base64url"},
		{"an Ed25519 key of 3 bytes", okp.with(jwk{"x": "AAAA"}), `x has \d+ bytes, not 32`},
		{"an Ed25519 key of 31 bytes", okp.with(jwk{"x": b64(make([]byte, 31))}), `x has \d+ bytes, not 32`},
		{"an Ed25519 key of 33 bytes", okp.with(jwk{"x": b64(make([]byte, 33))}), `x has \d+ bytes, not 32`},
		{"an empty Ed25519 key", okp.with(jwk{"x": ""}), "x is missing or not base64url"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			key, err := jose.ParseKey(test.jwk.bytes(), "RS256")
			require.Error(t, err)
			assert.Regexp(t, "^("+test.want+")$", err.Error())
			if strings.HasPrefix(test.want, "kid") {
				assert.Nil(t, key, "nothing is known of it")
				return
			}
			require.NotNil(t, key, "its kid is known")
			id, ok := key.ID()
			assert.Equal(t, "1", id)
			assert.True(t, ok)
			assert.Empty(t, key.Algorithm(), "it fits no token")
			assert.Equal(t, err, key.Problem(), "and knows why")
			assert.Error(t, key.Verify(theInput, make([]byte, 64)))
		})
	}
	_, err := jose.ParseKey(rsaJWK().bytes(), "")
	assert.ErrorContains(t, err, "an RSA key without alg, while not exactly one RSA algorithm is accepted")
}

func TestRSABoundsAreAccepted(t *testing.T) {
	t.Parallel()
	for _, bits := range []uint{2048, 8192} {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		_, err := jose.ParseKey(rsaJWK().with(jwk{"n": b64(n.SetBit(n, 0, 1).Bytes())}).bytes(), "RS256")
		assert.NoError(t, err, "%d bits", bits)
	}
	for _, e := range []string{"Aw", "AQAB", "f____w"} { // 3, 65537, 2^31-1
		_, err := jose.ParseKey(rsaJWK().with(jwk{"e": e}).bytes(), "RS256")
		assert.NoError(t, err, e)
	}
}

// Each of these keys encodes a point of small order that crypto/ed25519 decodes. Under
// it, the neutral point and the number zero are a valid signature of some texts or of
// all. The test shows that before it shows that the key is rejected.
func TestEd25519KeysOfSmallOrderAreRefused(t *testing.T) {
	t.Parallel()
	zero := append([]byte{1}, make([]byte, 63)...)
	for _, y := range []string{ // big-endian, without the sign
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000001",
		"05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826",
		"7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7",
		"7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffec",
		"7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed",
		"7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffee",
	} {
		for _, sign := range []byte{0, 0x80} {
			x := must(hex.DecodeString(y))
			slices.Reverse(x)
			x[31] |= sign
			good := 0
			for text := range 256 {
				if ed25519.Verify(x, []byte{byte(text)}, zero) {
					good++
				}
			}
			assert.Positive(t, good, "%s %x", y, sign)
			_, err := jose.ParseKey(edJWK().with(jwk{"x": b64(x)}).bytes(), "")
			assert.ErrorContains(t, err, "small order", "%s %x", y, sign)
		}
	}
	for y := range 2048 { // from 2 on: the neighbors of 0 and 1 are keys, or would be if they were points
		x := make([]byte, ed25519.PublicKeySize)
		binary.LittleEndian.PutUint32(x, uint32(y+2))
		_, err := jose.ParseKey(edJWK().with(jwk{"x": b64(x)}).bytes(), "")
		require.NoError(t, err, y+2)
	}
}

func TestParseKeyOfWhatIsNoObject(t *testing.T) {
	t.Parallel()
	ec := string(ecJWK("P-256").bytes())
	for name, raw := range map[string]string{
		"nothing":                        "",
		"an array":                       "[" + ec + "]",
		"a string":                       `"key"`,
		"a number":                       "1",
		"cut":                            ec[:len(ec)-1],
		"two objects":                    ec + ec,
		"a member twice":                 strings.TrimSuffix(ec, "}") + `,"kid":"2"}`,
		"a member twice, once escaped":   strings.TrimSuffix(ec, "}") + `,"\u006bid":"2"}`,
		"a member twice further in":      strings.TrimSuffix(ec, "}") + `,"a":{"b":1,"b":2}}`,
		"a kid that is not UTF-8":        `{"kty":"EC","kid":"` + "\xff" + `"}`,
		"a kid that is half a surrogate": `{"kty":"EC","kid":"\ud800"}`,
	} {
		key, err := jose.ParseKey([]byte(raw), "RS256")
		require.Error(t, err, name)
		assert.Nil(t, key, name)
	}
	key, err := jose.ParseKey([]byte("null"), "RS256")
	require.Error(t, err)
	if key != nil {
		_, ok := key.ID()
		assert.False(t, ok)
		assert.Empty(t, key.Algorithm())
	}
}

// A refresh keeps those keys of the old set that the new one has too.
func TestEqual(t *testing.T) {
	t.Parallel()
	edwards, other := edJWK(), ed25519.NewKeyFromSeed(slices.Repeat([]byte{1}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	for name, test := range map[string]struct {
		a, b jwk
		want bool
	}{
		"a key and itself read again":            {edwards, edwards, true},
		"an RSA key and itself read again":       {rsaJWK(), rsaJWK(), true},
		"keys without kid":                       {edwards.with(jwk{"kid": nil}), edwards.with(jwk{"kid": nil}), true},
		"another kid":                            {edwards, edwards.with(jwk{"kid": "2"}), false},
		"a kid that is gone":                     {edwards, edwards.with(jwk{"kid": nil}), false},
		"a kid that is empty, and none":          {edwards.with(jwk{"kid": ""}), edwards.with(jwk{"kid": nil}), false},
		"other material under the same kid":      {edwards, edwards.with(jwk{"x": b64(other)}), false},
		"another kind of key under the same kid": {edwards, ecJWK("P-256"), false},
		"another algorithm":                      {rsaJWK(), rsaJWK().with(jwk{"alg": "PS256"}), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.want, parse(t, test.a).Equal(parse(t, test.b)))
			assert.Equal(t, test.want, parse(t, test.b).Equal(parse(t, test.a)))
		})
	}
	unusable, err := jose.ParseKey(edwards.with(jwk{"use": "enc"}).bytes(), "RS256")
	require.Error(t, err)
	require.NotNil(t, unusable)
	assert.False(t, unusable.Equal(unusable), "of a key that cannot be used nothing is known")
}

func TestAlgorithm(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"} {
		canonical, ok := jose.Algorithm(name)
		assert.True(t, ok, name)
		assert.Equal(t, name, canonical)
		assert.Equal(t, name[:2] == "RS" || name[:2] == "PS", jose.IsRSA(name), name)
	}
	canonical, ok := jose.Algorithm("Ed25519")
	assert.True(t, ok)
	assert.Equal(t, "EdDSA", canonical, "two names of one algorithm")
	for _, name := range []string{"", "none", "None", "NONE", "HS256", "HS384", "HS512", "es256", "ES256K", "Ed448", "EDDSA", "RS1", "RS256 ", "RS256\x00", "ſS256"} {
		canonical, ok := jose.Algorithm(name)
		assert.False(t, ok, name)
		assert.Empty(t, canonical, name)
	}
}

func TestDecodeBase64URL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text, want string
		ok               bool
	}{
		{"nothing", "", "", true},
		{"one byte", "YQ", "a", true},
		{"two bytes", "YWI", "ab", true},
		{"three bytes", "YWJj", "abc", true},
		{"the letters of base64url", "-_-_", "\xfb\xff\xbf", true},
		{"padding", "YQ==", "", false},
		{"half of the padding", "YQ=", "", false},
		{"padding that is not needed", "YWJj=", "", false},
		{"bits left over", "YR", "", false},
		{"bits left over of two bytes", "YWJ", "", false},
		{"one letter", "Y", "", false},
		{"one letter too many", "YWJjY", "", false},
		{"the letters of base64", "+/+/", "", false},
		{"CR", "YW\rI", "", false},
		{"LF", "YW\nI", "", false},
		{"LF at the end", "YWJj\n", "", false},
		{"CR and LF alone", "\r\n", "", false},
		{"CR at the beginning", "\rYWJj", "", false},
		{"LF at the beginning", "\nYWJj", "", false},
		{"a space", "YW I", "", false},
		{"a tab", "YWJj\t", "", false},
		{"NUL", "YWJj\x00", "", false},
		{"a dot", "YW.I", "", false},
		{"a letter that is not ASCII", "YWJä", "", false},
		{"a percent escape", "YQ%3D%3D", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b, err := jose.DecodeBase64URL(test.text)
			assert.Equal(t, test.ok, err == nil)
			if test.ok {
				assert.Equal(t, test.want, string(b))
			}
		})
	}
}

// Bytes have one spelling: what is decoded is encoded to the same again. We accept a
// text as base64url exactly if a naive reader does, with the same bytes, and all bytes
// have a text.
func FuzzDecodeBase64URL(f *testing.F) {
	for _, seed := range []string{"", "YQ", "YWI", "-_-_", "YR", "YW\nI", "YQ==", "A", "+/", "\xff\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want, naiveErr := naive.Base64URL(text)
		got, err := jose.DecodeBase64URL(text)
		require.Equal(t, naiveErr == nil, err == nil, "%q: %v", text, err)
		if err == nil {
			assert.Equal(t, want, got)
			assert.Equal(t, text, b64(got))
		}
		back, err := jose.DecodeBase64URL(b64([]byte(text)))
		require.NoError(t, err)
		assert.Equal(t, text, string(back))
	})
}

// We accept a JWK as a key exactly if a naive reader does, with the same ID and
// algorithm, and it verifies what that reader's key verifies. Nothing panics.
func FuzzParseKey(f *testing.F) {
	type signed struct{ alg, signature string }
	var good []signed // with the private keys of the seeds
	for alg, pair := range validKeys() {
		f.Add(pair.jwk.bytes(), make([]byte, 64))
		good = append(good, signed{alg, string(sign(f, alg, pair.signer, theInput))})
	}
	good = append(good, signed{"PS256 without salt", string(signPSS(rsaKey(), crypto.SHA256, 0, theInput))})
	f.Add(edJWK().with(jwk{"x": "AAAA"}).bytes(), make([]byte, 64))
	f.Add(edJWK().with(jwk{"x": b64(make([]byte, 32))}).bytes(), append([]byte{1}, make([]byte, 63)...)) // a point of small order
	f.Add(edJWK().with(jwk{"key_ops": []string{"sign"}}).bytes(), make([]byte, 64))
	f.Add(ecJWK("P-256").with(jwk{"x": b64(make([]byte, 32))}).bytes(), make([]byte, 64))
	f.Add(edJWK().with(jwk{"alg": "Ed25519", "key_ops": []string{"sign", "verify"}}).bytes(), []byte(nil))
	f.Add(rsaJWK().with(jwk{"e": "AAAAAQAB", "alg": "PS512"}).bytes(), []byte(nil))
	for _, spelling := range spellings() {
		f.Add(spelling.wrong.bytes(), make([]byte, 64))
	}
	f.Add([]byte(`{"kty":"OKP","crv":"Ed25519","x":"","k\u0065y_ops":[["verify"]]}`), []byte(nil))
	f.Fuzz(func(t *testing.T, raw, signature []byte) {
		for _, rsaAlgorithm := range []string{"RS256", ""} {
			key, err := jose.ParseKey(raw, rsaAlgorithm)
			want, naiveErr := naive.ParseKey(raw, rsaAlgorithm)
			if err != nil {
				require.Error(t, naiveErr, "%q: %v", raw, err)
				if key != nil {
					assert.Empty(t, key.Algorithm())
					assert.Error(t, key.Verify(theInput, signature))
				}
				continue
			}
			require.NoError(t, naiveErr, "%q", raw)
			id, has := key.ID()
			assert.Equal(t, []any{want.ID, want.HasID, want.Alg}, []any{id, has, key.Algorithm()}, "%q", raw)
			spelled, err := jose.ParseKey(spelledRight(t, want).bytes(), "")
			require.NoError(t, err, "%q", raw)
			assert.True(t, spelled.Equal(key), "%q is not the key that its right spelling is", raw)
			assert.Equal(t, want.Verify(theInput, signature), key.Verify(theInput, signature) == nil, "%q %x", raw, signature)
			for _, s := range good {
				assert.Equal(t, want.Verify(theInput, []byte(s.signature)), key.Verify(theInput, []byte(s.signature)) == nil, "%q by %s", raw, s.alg)
			}
		}
	})
}

func TestDefaultAlgorithmOfRSAKeysWithoutAlg(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		algorithms []string
		want       string
	}{
		{"by default Logto's", nil, "RS256"},
		{"the only one", []string{"ES384", "PS512"}, "PS512"},
		{"the only one, named twice", []string{"PS256", "PS256"}, "PS256"},
		{"none of two", []string{"RS256", "PS256"}, ""},
		{"none where there is none", []string{"ES384"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.want, jose.RSAWithoutAlg(test.algorithms))
		})
	}
}
