// Package jose reads signed tokens (RFC 7515) and public keys (RFC 7517), and checks the
// tokens' signatures with the keys. It is the only importer of jwx, which verifies with
// the standard library's cryptography. jwx reads keys less strictly than is safe here, so
// this package reads them itself, and jwx only sees valid keys.
package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// Limits of RSA moduli, in bits. RFC 7518 §3.3 requires at least 2048. A key over 8192
// would only make verifiers work.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// algorithms maps each name of a supported algorithm to a single one: RFC 9864 gives
// Ed25519 signatures, which RFC 8037 calls EdDSA, a second name.
var algorithms = map[string]string{
	"ES256": "ES256", "ES384": "ES384", "ES512": "ES512",
	"RS256": "RS256", "RS384": "RS384", "RS512": "RS512",
	"PS256": "PS256", "PS384": "PS384", "PS512": "PS512",
	"EdDSA": "EdDSA", "Ed25519": "EdDSA",
}

// Algorithm returns the name that this package uses for a signature algorithm. ok is
// false for any that it does not verify, such as none and HS256.
func Algorithm(name string) (canonical string, ok bool) {
	canonical, ok = algorithms[name]
	return canonical, ok
}

// IsRSA reports whether an algorithm verifies with an RSA key.
func IsRSA(alg string) bool { return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS") }

// RSAWithoutAlg returns the algorithm of published RSA keys without alg: RS256
// (Logto's), or the only RSA algorithm of those configured, or none.
func RSAWithoutAlg(configured []string) string {
	if len(configured) == 0 {
		return "RS256"
	}
	rsa := slices.DeleteFunc(slices.Clone(configured), func(a string) bool { return !IsRSA(a) })
	if slices.Sort(rsa); len(slices.Compact(rsa)) != 1 {
		return ""
	}
	return rsa[0]
}

// curves maps the name of a curve to the only algorithm that uses it.
var curves = map[string]struct {
	elliptic.Curve
	alg string
}{
	"P-256": {elliptic.P256(), "ES256"},
	"P-384": {elliptic.P384(), "ES384"},
	"P-521": {elliptic.P521(), "ES512"},
}

// Key is an issuer's public key for exactly one algorithm (RFC 8725 §3.1).
type Key struct {
	id        string
	hasID     bool
	algorithm string // "" if the key is unusable
	problem   error  // why the key is unusable
	public    crypto.PublicKey
	verifier  jws.Verifier
}

// ID returns the key's kid; ok is false if it has none.
func (k *Key) ID() (kid string, ok bool) { return k.id, k.hasID }

// Algorithm returns the key's algorithm, by the name that [Algorithm] returns, or ""
// for an unusable key.
func (k *Key) Algorithm() string { return k.algorithm }

// Problem returns why the key is unusable, or nil.
func (k *Key) Problem() error { return k.problem }

// Equal reports whether both keys have the same kid, algorithm and material.
func (k *Key) Equal(other *Key) bool {
	return k.id == other.id && k.hasID == other.hasID && k.Same(other)
}

// Same reports whether both keys verify the same signatures, whatever their kids.
func (k *Key) Same(other *Key) bool {
	public, ok := k.public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.algorithm == other.algorithm && public.Equal(other.public)
}

// privateMembers make a JWK a private or symmetric key (RFC 7518 §6.2.2, §6.3.2,
// §6.4.1).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// ErrEncryption is the problem of a key that is published for encryption. Many issuers
// have one.
var ErrEncryption = errors.New("use is enc: the key is for encryption")

// ParseKey reads one JWK. If it returns an error but could read the kid, it also
// returns a key that fits no algorithm, so that callers can distinguish a published kid
// from an unpublished one. It accepts an issuer's misspelling of a key if that means
// the same as the right spelling: padding, zeros before numbers, null for an absent
// member. rsaAlgorithm is the algorithm of an RSA key without alg. If it is "", such a
// key is an error.
func ParseKey(raw []byte, rsaAlgorithm string) (*Key, error) {
	var members jwkMembers
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, errors.New("not a JSON object without doubled members")
	}
	key := new(Key)
	var err error
	if key.id, key.hasID, err = members.text("kid"); err != nil {
		return nil, err
	}
	public, alg, err := members.publicKey(rsaAlgorithm)
	if err == nil {
		key.verifier, err = jws.NewVerifier(jwa.SignatureAlgorithm(alg))
	}
	if err != nil {
		key.problem = err
		return key, err
	}
	key.public, key.algorithm = public, alg
	return key, nil
}

// jwkMembers are the members of a JWK under their exact names.
type jwkMembers map[string]jsontext.Value

func (m jwkMembers) text(name string) (s string, present bool, err error) {
	v, present := m[name]
	if !present {
		return "", false, nil
	}
	if v.Kind() != '"' || json.Unmarshal(v, &s) != nil {
		return "", true, fmt.Errorf("%s is not a string", name)
	}
	return s, true, nil
}

// octets reads a member that contains base64url, with or without padding. A size of 0
// allows any length.
func (m jwkMembers) octets(name string, size int) ([]byte, error) {
	s, _, err := m.text(name)
	if err != nil {
		return nil, err
	}
	b, err := DecodeBase64URL(unpadded(s))
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("%s is missing or not base64url", name)
	}
	if size != 0 && len(b) != size {
		return nil, fmt.Errorf("%s has %d bytes, not %d", name, len(b), size)
	}
	return b, nil
}

// unpadded removes the padding of RFC 4648 §3.2, if it is correct.
func unpadded(s string) string {
	if bare := strings.TrimRight(s, "="); len(s)%4 == 0 && len(s)-len(bare) <= 2 {
		return bare
	}
	return s
}

// publicKey returns the key and its only algorithm.
func (m jwkMembers) publicKey(rsaAlgorithm string) (public crypto.PublicKey, alg string, err error) {
	if err := m.checkUse(); err != nil {
		return nil, "", err
	}
	kty, _, err := m.text("kty")
	if err != nil {
		return nil, "", err
	}
	named, present, err := m.text("alg")
	if err != nil {
		return nil, "", err
	}
	named, known := Algorithm(named)
	if present && !known {
		return nil, "", errors.New("unsupported alg")
	}
	switch kty {
	case "EC":
		public, alg, err = m.ec()
	case "RSA":
		alg = rsaAlgorithm
		if present && IsRSA(named) {
			alg = named
		}
		public, err = m.rsa()
	case "OKP":
		alg = "EdDSA"
		public, err = m.ed25519()
	default:
		err = errors.New("unsupported kty")
	}
	switch {
	case err != nil:
	case alg == "":
		err = errors.New("an RSA key without alg, while not exactly one RSA algorithm is accepted")
	case present && named != alg:
		err = errors.New("alg does not fit the key")
	}
	return public, alg, err
}

// checkUse rejects keys that are published for another use (RFC 7517 §4.2, §4.3), and
// keys that should never have been published.
func (m jwkMembers) checkUse() error {
	for _, name := range privateMembers {
		if v, present := m[name]; present && v.Kind() != 'n' { // some issuers write null for an absent member
			return errors.New("a private or symmetric key is published")
		}
	}
	switch use, present, err := m.text("use"); {
	case use == "enc":
		return ErrEncryption
	case err != nil || (present && use != "sig"):
		return errors.New("use is not sig")
	}
	v, present := m["key_ops"]
	var operations []string
	if present && (v.Kind() != '[' || json.Unmarshal(v, &operations) != nil || !slices.Contains(operations, "verify")) {
		return errors.New("key_ops does not hold verify")
	}
	if slices.Sort(operations); len(slices.Compact(slices.Clone(operations))) != len(operations) {
		return errors.New("key_ops holds a value twice")
	}
	return nil
}

func (m jwkMembers) ec() (crypto.PublicKey, string, error) {
	crv, _, err := m.text("crv")
	if err != nil {
		return nil, "", err
	}
	curve, known := curves[crv]
	if !known {
		return nil, "", errors.New("unsupported crv")
	}
	size := (curve.Params().BitSize + 7) / 8 // RFC 7518 §6.2.1.2: full length, leading zeros included
	x, err := m.octets("x", size)
	if err != nil {
		return nil, "", err
	}
	y, err := m.octets("y", size)
	if err != nil {
		return nil, "", err
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve.Curve, slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil, "", errors.New("the point is not on the curve")
	}
	return public, curve.alg, nil
}

func (m jwkMembers) rsa() (crypto.PublicKey, error) {
	n, err := m.octets("n", 0)
	if err != nil {
		return nil, err
	}
	e, err := m.octets("e", 0)
	if err != nil {
		return nil, err
	}
	// Contrary to RFC 7518 §2, some issuers put a zero in front, as if for a sign. It
	// is the same number.
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	if bits := modulus.BitLen(); bits < minRSABits || bits > maxRSABits {
		return nil, fmt.Errorf("a modulus of %d bits, not %d to %d", bits, minRSABits, maxRSABits)
	}
	if modulus.Bit(0) == 0 || exponent.Bit(0) == 0 || exponent.BitLen() < 2 || exponent.BitLen() > 31 {
		return nil, errors.New("n or e is even, or e is out of range")
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

func (m jwkMembers) ed25519() (crypto.PublicKey, error) {
	if crv, _, err := m.text("crv"); err != nil || crv != "Ed25519" {
		return nil, errors.New("unsupported crv")
	}
	x, err := m.octets("x", ed25519.PublicKeySize) // the verifier panics for any other length
	if err == nil && isOfSmallOrder(x) {
		err = errors.New("x is a point of small order, or not in its one spelling")
	}
	return ed25519.PublicKey(x), err
}

// The order of the field of RFC 8032 §5.1, and the y of a point of order 8.
var (
	fieldOrder, _ = new(big.Int).SetString("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed", 16)
	orderEight, _ = new(big.Int).SetString("05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826", 16)
)

// isOfSmallOrder reports whether a public key is one of the eight points for which one
// signature is valid for every text, or for many. Their y is 0, 1, or that of order 8,
// or adds up to 0 with one of them. Go's decoder also accepts a y that is not less than
// the field's order.
func isOfSmallOrder(x []byte) bool {
	bigEndian := slices.Clone(x)
	slices.Reverse(bigEndian)
	bigEndian[0] &= 0x7f // the sign of the other coordinate
	y := new(big.Int).SetBytes(bigEndian)
	negative := new(big.Int).Sub(fieldOrder, y)
	if negative.Cmp(y) < 0 {
		y = negative
	}
	return y.Cmp(big.NewInt(1)) <= 0 || y.Cmp(orderEight) == 0
}

// Verify returns nil if signature is this key's signature of input, in its algorithm.
func (k *Key) Verify(input, signature []byte) error {
	if k.verifier == nil {
		return errors.New("jose: the key cannot be used")
	}
	if hash, ok := pssHashes[k.algorithm]; ok {
		return verifyPSS(k.public, hash, input, signature)
	}
	return k.verifier.Verify(input, signature, k.public)
}

var pssHashes = map[string]crypto.Hash{"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512}

// verifyPSS replaces jwx, which accepts a salt of any length. RFC 7518 §3.5 requires
// the length of the hash.
func verifyPSS(public crypto.PublicKey, hash crypto.Hash, input, signature []byte) error {
	key, ok := public.(*rsa.PublicKey)
	if !ok {
		return errors.New("jose: not an RSA key")
	}
	h := hash.New()
	h.Write(input)
	return rsa.VerifyPSS(key, hash, h.Sum(nil), signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
}

// DecodeBase64URL decodes base64url as RFC 7515 §2 defines it: no padding, no line
// breaks (which Go's decoder skips), and no bits left over, so that bytes have only one
// spelling.
func DecodeBase64URL(s string) ([]byte, error) {
	if strings.IndexByte(s, '\r') >= 0 || strings.IndexByte(s, '\n') >= 0 {
		return nil, errors.New("line break in base64url")
	}
	return strictBase64URL.DecodeString(s)
}

var strictBase64URL = base64.RawURLEncoding.Strict()
