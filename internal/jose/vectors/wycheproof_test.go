package vectors_test

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"math/big"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/jose"
)

// hexBytes are bytes that Wycheproof writes in hexadecimal digits.
type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// vectorFile is one file of Wycheproof, as far as it is read here.
type vectorFile struct {
	NumberOfTests int
	TestGroups    []vectorGroup
}

type vectorGroup struct {
	Type         string
	Sha, MgfSha  string
	Mgf          string
	SaltLength   int `json:"sLen"`
	PublicKey    publicKey
	PrivateKey   publicKey // of the sets that are made for signers
	PublicKeyJWK json.RawMessage
	KeyJWK       json.RawMessage
	Comment      string
	Public       json.RawMessage // of the JSON Web sets: a JWK or a JWK Set
	Private      json.RawMessage
	Tests        []vector
}

type publicKey struct {
	Curve                   string
	Wx, Wy                  hexBytes
	Modulus, PublicExponent hexBytes
	Pk                      hexBytes
}

type vector struct {
	ID       int `json:"tcId"`
	Comment  string
	Flags    []string
	Msg, Sig hexBytes
	JWS, JWE json.RawMessage
	Result   string // valid, invalid, acceptable
}

func open(t *testing.T, name string) vectorFile {
	t.Helper()
	content, err := fs.ReadFile(wycheproof.TestVectors, name)
	require.NoError(t, err)
	var file vectorFile
	require.NoError(t, json.Unmarshal(content, &file))
	tests := 0
	for _, group := range file.TestGroups {
		tests += len(group.Tests)
	}
	require.NotZero(t, tests)
	require.Equal(t, file.NumberOfTests, tests, "every vector of the file has been read")
	return file
}

func files(t *testing.T, patterns ...string) (names []string) {
	t.Helper()
	for _, pattern := range patterns {
		found, err := fs.Glob(wycheproof.TestVectors, pattern)
		require.NoError(t, err)
		require.NotEmpty(t, found, pattern)
		names = append(names, found...)
	}
	return names
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func jwk(members map[string]string) []byte {
	b, err := json.Marshal(members)
	if err != nil {
		panic(err) // a map of strings is JSON
	}
	return b
}

// A tally compares what jose did with what the vectors say. A difference must be
// one of those listed, and each that is listed must occur as often as it says.
type tally struct {
	deviations []deviation
	counts     []int
	accepted   int
	refused    int
}

// A deviation is a kind of vectors whose result is not Wycheproof's. Where that is
// "acceptable", both answers are deviations, so that ours is on record.
type deviation struct {
	reason   string
	accepted bool   // by us
	files    string // a pattern
	flag     string // that the vectors have; "" stands for any
	comment  string // of the group or the vector; "" stands for any
	count    int
}

func newTally(deviations []deviation) *tally {
	return &tally{deviations: deviations, counts: make([]int, len(deviations))}
}

func (c *tally) add(t *testing.T, file string, group vectorGroup, v vector, accepted bool) {
	t.Helper()
	if accepted {
		c.accepted++
	} else {
		c.refused++
	}
	if v.Result == "valid" && accepted || v.Result == "invalid" && !accepted {
		return
	}
	for i, d := range c.deviations {
		matches, err := path.Match(d.files, file)
		require.NoError(t, err)
		if matches && d.accepted == accepted && (d.flag == "" || slices.Contains(v.Flags, d.flag)) &&
			(d.comment == "" || d.comment == v.Comment || d.comment == group.Comment) {
			c.counts[i]++
			return
		}
	}
	t.Errorf("%s, vector %d (%s %s, %v): accepted is %t, and the vector is %s",
		file, v.ID, group.Comment, v.Comment, v.Flags, accepted, v.Result)
}

func (c *tally) report(t *testing.T) {
	t.Helper()
	differ := 0
	for i, d := range c.deviations {
		assert.Equal(t, d.count, c.counts[i], "vectors of %s %s %s: %s", d.files, d.flag, d.comment, d.reason)
		differ += c.counts[i]
	}
	t.Logf("%d vectors: %d accepted, %d refused; %d differ from their result, all listed", c.accepted+c.refused, c.accepted, c.refused, differ)
}

// joseCurves are the curves of RFC 7518 §3.4, each with its only hash.
var joseCurves = map[string]struct{ crv, sha, alg string }{
	"secp256r1": {"P-256", "SHA-256", "ES256"},
	"secp384r1": {"P-384", "SHA-384", "ES384"},
	"secp521r1": {"P-521", "SHA-512", "ES512"},
}

var curveBytes = map[string]int{"P-256": 32, "P-384": 48, "P-521": 66}

// ecJWK writes a point under the name of a curve, in that curve's length.
func ecJWK(crv string, key publicKey) []byte {
	size := curveBytes[crv]
	if len(bytes.TrimLeft(key.Wx, "\x00")) > size || len(bytes.TrimLeft(key.Wy, "\x00")) > size {
		return nil
	}
	coordinate := func(b []byte) string { return encode(new(big.Int).SetBytes(b).FillBytes(make([]byte, size))) }
	return jwk(map[string]string{"kty": "EC", "kid": "none", "crv": crv, "x": coordinate(key.Wx), "y": coordinate(key.Wy)})
}

func TestECDSA(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("tens of thousands of signature checks, none at the same time as another")
	}
	c := newTally([]deviation{
		{reason: "secp256k1 (RFC 8812) is no algorithm of RFC 7518", files: "ecdsa_secp256k1_*", count: 2195},
		{reason: "curves that JOSE has no name for", files: "ecdsa_brainpool*", count: 2913},
		{reason: "curves that JOSE has no name for", files: "ecdsa_secp1*", count: 1409},
		{reason: "curves that JOSE has no name for", files: "ecdsa_secp2[0-2]*", count: 2547},
		{reason: "ES256 has SHA-256 alone (RFC 7518 §3.4)", files: "ecdsa_secp256r1_sha3*", count: 421},
		{reason: "ES256 has SHA-256 alone (RFC 7518 §3.4)", files: "ecdsa_secp256r1_sha512*", count: 485},
		{reason: "ES256 has SHA-256 alone (RFC 7518 §3.4)", files: "ecdsa_secp256r1_shake*", count: 351},
		{reason: "ES384 has SHA-384 alone", files: "ecdsa_secp384r1_sha3_*", count: 431},
		{reason: "ES384 has SHA-384 alone", files: "ecdsa_secp384r1_sha256*", count: 162},
		{reason: "ES384 has SHA-384 alone", files: "ecdsa_secp384r1_sha512*", count: 461},
		{reason: "ES384 has SHA-384 alone", files: "ecdsa_secp384r1_shake*", count: 465},
		{reason: "ES512 has SHA-512 alone", files: "ecdsa_secp521r1_sha3*", count: 232},
		{reason: "ES512 has SHA-512 alone", files: "ecdsa_secp521r1_shake*", count: 467},
	})
	encoded, asDER := 0, 0
	for _, name := range files(t, "ecdsa_*_test.json") {
		for _, group := range open(t, name).TestGroups {
			if group.Type != "EcdsaVerify" && group.Type != "EcdsaP1363Verify" && group.Type != "EcdsaBitcoinVerify" {
				t.Fatalf("%s: unknown type %s", name, group.Type)
			}
			der := group.Type != "EcdsaP1363Verify"
			curve, named := joseCurves[group.PublicKey.Curve]
			if !named {
				refusedAsKeys(t, name, group)
				for _, v := range group.Tests {
					c.add(t, name, group, v, false)
				}
				continue
			}
			key, err := jose.ParseKey(ecJWK(curve.crv, group.PublicKey), "")
			require.NoError(t, err, name)
			require.Equal(t, curve.alg, key.Algorithm())
			assertSameKey(t, name, key, group.PublicKeyJWK)
			for _, v := range group.Tests {
				if !der {
					c.add(t, name, group, v, key.Verify(v.Msg, v.Sig) == nil)
					continue
				}
				encoded++
				assert.Error(t, key.Verify(v.Msg, v.Sig), "%s, vector %d: a signature in ASN.1 is none of JOSE (RFC 7518 §3.4)", name, v.ID)
				if signature, ok := fixedWidth(v.Sig, curveBytes[curve.crv]); ok {
					asDER++
					c.add(t, name, group, v, key.Verify(v.Msg, signature) == nil)
				} else {
					assert.Equal(t, "invalid", v.Result, "%s, vector %d has no form of fixed width", name, v.ID)
				}
			}
		}
	}
	c.report(t)
	t.Logf("%d signatures in ASN.1 were refused as they are; %d of them are DER of numbers that fit, and were tried in JOSE's form too", encoded, asDER)
}

// assertSameKey holds that a JWK of Wycheproof, where there is one, is read as the
// key that is made here of the same numbers.
func assertSameKey(t *testing.T, name string, key *jose.Key, published json.RawMessage) {
	t.Helper()
	if published == nil {
		return
	}
	theirs, err := jose.ParseKey(published, "")
	require.NoError(t, err, name)
	assert.True(t, key.Equal(theirs), "%s: the published JWK is the same key", name)
}

// refusedAsKeys holds that a key of another curve is none here, whatever name it
// comes under: a point of secp256k1 under the name P-256 is an invalid-curve attack.
func refusedAsKeys(t *testing.T, name string, group vectorGroup) {
	t.Helper()
	candidates := [][]byte{jwk(map[string]string{"kty": "EC", "crv": group.PublicKey.Curve, "x": encode(group.PublicKey.Wx), "y": encode(group.PublicKey.Wy)})}
	if group.PublicKeyJWK != nil {
		candidates = append(candidates, group.PublicKeyJWK)
	}
	for crv := range curveBytes {
		if disguised := ecJWK(crv, group.PublicKey); disguised != nil {
			candidates = append(candidates, disguised)
		}
	}
	for _, raw := range candidates {
		_, err := jose.ParseKey(raw, "")
		assert.Error(t, err, "%s: %s", name, raw)
	}
}

// fixedWidth turns a signature from DER into JOSE's form, if it is DER of two
// numbers that have such a form.
func fixedWidth(der []byte, size int) ([]byte, bool) {
	var pair struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &pair)
	if err != nil || len(rest) > 0 || pair.R.Sign() < 0 || pair.S.Sign() < 0 ||
		pair.R.BitLen() > 8*size || pair.S.BitLen() > 8*size {
		return nil, false
	}
	if again, err := asn1.Marshal(pair); err != nil || !bytes.Equal(again, der) {
		return nil, false
	}
	return append(pair.R.FillBytes(make([]byte, size)), pair.S.FillBytes(make([]byte, size))...), true
}

// joseHashes are the hashes of RFC 7518 §3.3 and §3.5: the end of an algorithm's
// name, and their length in bytes.
var joseHashes = map[string]struct {
	suffix string
	size   int
}{"SHA-256": {"256", 32}, "SHA-384": {"384", 48}, "SHA-512": {"512", 64}}

// rsaAlgorithm is the algorithm that a group of RSA signatures is of, or "".
func (g vectorGroup) rsaAlgorithm() string {
	hash, ok := joseHashes[g.Sha]
	switch {
	case !ok:
		return ""
	case strings.HasPrefix(g.Type, "RsassaPkcs1"):
		return "RS" + hash.suffix
	case g.Mgf == "MGF1" && g.MgfSha == g.Sha && g.SaltLength == hash.size:
		return "PS" + hash.suffix
	}
	return ""
}

var rsaAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}

func TestRSA(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("tens of thousands of signature checks, none at the same time as another")
	}
	c := newTally([]deviation{
		{reason: "RS256, 384 and 512 have the hash of their name (RFC 7518 §3.3)", files: "rsa_signature_*_sha224_*", count: 8},
		{reason: "SHA-3 is no hash of RFC 7518", files: "rsa_signature_*_sha3_*", count: 56},
		{reason: "a truncated SHA-512 is no hash of RFC 7518", files: "rsa_signature_*_sha512_2*", count: 32},
		{reason: "an algorithm identifier without NULL is another encoding: refused by the standard library", files: "rsa_signature_*", flag: "MissingNull", count: 12},
		{reason: "under 2048 bits, RFC 7518 §3.3", files: "rsa_pkcs1_1*_sig_gen_test.json", count: 65},
		{reason: "SHA-1 and SHA-224 are no hashes of RFC 7518", files: "rsa_pkcs1_*_sig_gen_test.json", flag: "WeakHash", count: 8},
		{reason: "a public exponent of 3 is as good as the padding check, which is exact", accepted: true, files: "rsa_pkcs1_*_sig_gen_test.json", flag: "SmallPublicKey", count: 5},
		{reason: "a hash that is none of RFC 7518", files: "rsa_pkcs1_*_sig_gen_test.json", count: 8},
		{reason: "PS256, 384 and 512 have MGF1 with, and a salt as long as, their own hash (RFC 7518 §3.5)", files: "rsa_pss_*", count: 1633},
	})
	crossed := 0
	for _, name := range files(t, "rsa_signature_*_test.json", "rsa_pss_*_test.json", "rsa_pkcs1_*_sig_gen_test.json") {
		for _, group := range open(t, name).TestGroups {
			public := group.PublicKey
			if group.Type == "RsassaPkcs1Generate" {
				public = group.PrivateKey
			}
			modulus := bytes.TrimLeft(public.Modulus, "\x00")
			members := map[string]string{"kty": "RSA", "kid": "none", "n": encode(modulus), "e": encode(bytes.TrimLeft(public.PublicExponent, "\x00"))}
			if len(modulus) < 2048/8 {
				_, err := jose.ParseKey(jwk(members), "RS256")
				assert.Error(t, err, name)
				for _, v := range group.Tests {
					c.add(t, name, group, v, false)
				}
				continue
			}
			own := group.rsaAlgorithm()
			for _, alg := range rsaAlgorithms {
				key, err := jose.ParseKey(jwk(members), alg)
				require.NoError(t, err, name)
				if alg == own {
					assertSameKey(t, name, key, group.KeyJWK)
					assertSameKey(t, name, key, group.PublicKeyJWK)
				}
				for _, v := range group.Tests {
					switch {
					case alg == own:
						c.add(t, name, group, v, key.Verify(v.Msg, v.Sig) == nil)
					case v.Result != "invalid": // the invalid ones may be good under what they were made with
						crossed++
						assert.Error(t, key.Verify(v.Msg, v.Sig), "%s, vector %d: a signature of %s %s under %s", name, v.ID, group.Type, group.Sha, alg)
					}
				}
			}
			if own != "" {
				continue
			}
			for _, v := range group.Tests {
				if v.Result != "invalid" {
					c.add(t, name, group, v, false) // under each algorithm, as asserted above
				}
			}
		}
	}
	c.report(t)
	t.Logf("good signatures tried under the other algorithms of their keys: %d, all refused", crossed)
}

func TestEdDSA(t *testing.T) {
	t.Parallel()
	c := newTally([]deviation{
		{reason: "Ed448 is not in the standard library", files: "ed448_test.json", count: 17},
	})
	for _, name := range files(t, "ed25519_test.json", "ed448_test.json") {
		for _, group := range open(t, name).TestGroups {
			key, err := jose.ParseKey(group.PublicKeyJWK, "")
			if name == "ed448_test.json" {
				assert.Error(t, err)
				_, err = jose.ParseKey(jwk(map[string]string{"kty": "OKP", "crv": "Ed25519", "x": encode(group.PublicKey.Pk)}), "")
				assert.Error(t, err, "under the name Ed25519")
			} else {
				require.NoError(t, err)
				require.Equal(t, "EdDSA", key.Algorithm())
			}
			for _, v := range group.Tests {
				c.add(t, name, group, v, err == nil && key.Verify(v.Msg, v.Sig) == nil)
			}
		}
	}
	c.report(t)
}
