package m2mauthtest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384 and crypto.SHA512
)

// defaultAppID is the app of tokens that name none.
const defaultAppID = "m2mauthtestapp0000000"

// Token says what a token signed by [Issuer.Sign] holds. The zero Token, but for
// its audience, is a good access token of a machine-to-machine app, with the
// header and the claims that Logto writes, in its order: alg, typ, kid, and jti,
// sub, iat, exp, scope, client_id, iss, aud.
type Token struct {
	// AppID is the sub and the client_id. "" means an app ID that is always the
	// same. Claims can give a user's token: {"sub": "another"}.
	AppID string

	// Audience is the aud.
	Audience string

	// Scopes is the scope, joined by spaces. If there are none there is no such
	// claim, as in Logto's tokens; one empty scope gives an empty claim.
	Scopes []string

	// OrganizationID is the organization_id, the first of the claims, of a token
	// that is limited to an organization. "" means that there is no such claim. An
	// organization token has none: its Audience is urn:logto:organization:ID.
	OrganizationID string

	// Lifetime is the time from iat, which is now, to exp, in whole seconds.
	// 0 means an hour. With a negative one the token has expired.
	Lifetime time.Duration

	// KeyID names the key that signs, one that the issuer has or had, and the
	// kid. "" means the current key.
	KeyID string

	// Algorithm is the alg, and what signs as far as the key can: an RSA key
	// can do RS256 to PS512, an EC key the hash of any ES algorithm, an Ed25519
	// key EdDSA and Ed25519. For "none" the signature is empty, for HS256, HS384
	// and HS512 it is made with Secret. For all else the key signs by its own
	// algorithm. "" means the algorithm of the key.
	Algorithm string

	// Secret is the key of HS256, HS384 and HS512.
	Secret []byte

	// Header holds members that replace the usual ones or follow them. A nil
	// value removes the member; json.RawMessage("null") writes null. What
	// signs does not depend on it.
	Header map[string]any

	// Claims does the same for the payload.
	Claims map[string]any

	// RawHeader, if not nil, is the header instead, byte for byte: for JSON
	// that no encoder writes, such as doubled members.
	RawHeader []byte

	// RawClaims does the same for the payload.
	RawClaims []byte
}

// Token returns a good access token of some machine-to-machine app. Nothing
// needs to be registered for it.
func (i *Issuer) Token(audience string, scopes ...string) string {
	return i.Sign(Token{Audience: audience, Scopes: scopes})
}

// Sign returns the token in the compact form of JWS (RFC 7515 section 7.1). It
// panics if the issuer never had the key, or a member cannot be written as JSON.
func (i *Issuer) Sign(t Token) string {
	k := i.signingKey(t.KeyID)
	if t.Algorithm == "" {
		t.Algorithm = k.alg
	}
	header, claims := t.RawHeader, t.RawClaims
	if header == nil {
		header = object([]member{
			{"alg", t.Algorithm},
			{"typ", "at+jwt"},
			{"kid", k.id},
		}, t.Header)
	}
	if claims == nil {
		claims = object(t.claims(i.URL()), t.Claims)
	}
	input := base64url(header) + "." + base64url(claims)
	return input + "." + base64url(k.sign(t.Algorithm, t.Secret, []byte(input)))
}

func (i *Issuer) signingKey(kid string) *key {
	i.mu.Lock()
	defer i.mu.Unlock()
	if kid == "" {
		return i.keys.current
	}
	return i.keys.get("Sign", kid)
}

func (t Token) claims(issuer string) []member {
	app := t.AppID
	if app == "" {
		app = defaultAppID
	}
	lifetime := t.Lifetime
	if lifetime == 0 {
		lifetime = time.Hour
	}
	jti := make([]byte, 32)
	outsideBubbles(func() { _, _ = rand.Read(jti) }) // never fails
	iat := time.Now().Unix()
	var claims []member
	if t.OrganizationID != "" {
		claims = append(claims, member{"organization_id", t.OrganizationID})
	}
	claims = append(claims,
		member{"jti", base64url(jti)},
		member{"sub", app},
		member{"iat", iat},
		member{"exp", iat + int64(lifetime/time.Second)},
	)
	if len(t.Scopes) > 0 {
		claims = append(claims, member{"scope", strings.Join(t.Scopes, " ")})
	}
	return append(claims,
		member{"client_id", app},
		member{"iss", issuer},
		member{"aud", t.Audience},
	)
}

// member is a member of a JSON object whose order matters.
type member struct {
	name  string
	value any
}

// object writes the members, changed as [Token.Header] says. New members follow
// in the order of their names, so that equal Tokens look alike.
func object(members []member, changes map[string]any) []byte {
	members = slices.Clone(members)
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		at := slices.IndexFunc(members, func(m member) bool { return m.name == name })
		switch value := changes[name]; {
		case at < 0 && value != nil:
			members = append(members, member{name, value})
		case at >= 0 && value == nil:
			members = slices.Delete(members, at, at+1)
		case at >= 0:
			members[at].value = value
		}
	}
	var b bytes.Buffer
	b.WriteByte('{')
	for n, m := range members {
		if n > 0 {
			b.WriteByte(',')
		}
		b.Write(marshal(m.name))
		b.WriteByte(':')
		b.Write(marshal(m.value))
	}
	b.WriteByte('}')
	return b.Bytes()
}

// sign signs by the algorithm as [Token.Algorithm] says.
func (k *key) sign(alg string, secret, input []byte) []byte {
	family, hash := parseAlgorithm(alg)
	switch family {
	case "none":
		return nil
	case "HS":
		return signHMAC(hash, secret, input)
	}
	ownFamily, ownHash := parseAlgorithm(k.alg)
	switch signer := k.signer.(type) {
	case *ecdsa.PrivateKey:
		if family != "ES" {
			hash = ownHash
		}
		return signECDSA(signer, digest(hash, input))
	case *rsa.PrivateKey:
		if family != "RS" && family != "PS" {
			family, hash = ownFamily, ownHash
		}
		var opts crypto.SignerOpts = hash
		if family == "PS" {
			// RFC 7518 section 3.5: a salt as long as the hash.
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		}
		return signRSA(signer, digest(hash, input), opts)
	default:
		return ed25519.Sign(signer.(ed25519.PrivateKey), input)
	}
}

// parseAlgorithm splits the name of an algorithm (RFC 7518 section 3.1). The
// hash is 0 where there is none, and the family "" where it is unknown.
func parseAlgorithm(alg string) (family string, hash crypto.Hash) {
	hashes := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}
	if alg == "none" {
		return alg, 0
	}
	for _, family := range []string{"ES", "RS", "PS", "HS"} {
		if size, ok := strings.CutPrefix(alg, family); ok && hashes[size] != 0 {
			return family, hashes[size]
		}
	}
	return "", 0
}

func digest(hash crypto.Hash, input []byte) []byte {
	h := hash.New()
	h.Write(input)
	return h.Sum(nil)
}

// signHMAC signs with short secrets too, which GODEBUG=fips140=only forbids.
func signHMAC(hash crypto.Hash, secret, input []byte) (signature []byte) {
	fips140.WithoutEnforcement(func() {
		mac := hmac.New(hash.New, secret)
		mac.Write(input)
		signature = mac.Sum(nil)
	})
	return signature
}

// signECDSA returns r and s, each as long as the curve's order, in place of
// ASN.1 (RFC 7518 section 3.4).
func signECDSA(k *ecdsa.PrivateKey, digest []byte) []byte {
	var r, s *big.Int
	var err error
	outsideBubbles(func() { r, s, err = ecdsa.Sign(rand.Reader, k, digest) })
	if err != nil {
		panic("m2mauthtest: signing: " + err.Error())
	}
	size := (k.Params().N.BitLen() + 7) / 8
	signature := make([]byte, 2*size)
	r.FillBytes(signature[:size])
	s.FillBytes(signature[size:])
	return signature
}

func signRSA(k *rsa.PrivateKey, digest []byte, opts crypto.SignerOpts) (signature []byte) {
	var err error
	outsideBubbles(func() { signature, err = k.Sign(rand.Reader, digest, opts) })
	if err != nil {
		panic("m2mauthtest: signing: " + err.Error())
	}
	return signature
}
