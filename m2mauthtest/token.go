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

// defaultAppID is the app of a token that names none.
const defaultAppID = "m2mauthtestapp0000000"

// Token describes a token for [Issuer.Sign]. A Token with only an Audience is a valid
// access token of a machine-to-machine app. It has the header members and claims that
// Logto writes, in Logto's order: alg, typ, kid, and jti, sub, iat, exp, scope,
// client_id, iss, aud.
type Token struct {
	// AppID is the sub and the client_id. "" means a fixed app ID. For a user's
	// token, set sub in Claims: {"sub": "another"}.
	AppID string

	// Audience is the aud.
	Audience string

	// Scopes is the scope, joined by spaces. Without scopes the token has no such
	// claim, as with Logto. A single empty scope makes an empty claim.
	Scopes []string

	// OrganizationID is the organization_id, the first claim of a token that is
	// limited to an organization. "" means no such claim. An organization token has
	// none: its Audience is urn:logto:organization:ID.
	OrganizationID string

	// Lifetime is the time from iat, which is now, to exp, in whole seconds. 0
	// means an hour. A guard accepts a token until its Config.Leeway after exp, 30
	// seconds by default: so it still accepts one with a Lifetime of -time.Second.
	// For a token that every guard rejects, set Expired.
	Lifetime time.Duration

	// Expired makes a token that expired an hour ago, which is more than any
	// Config.Leeway. Its iat is two hours ago. Sign panics if Lifetime is set too.
	Expired bool

	// KeyID is the key that signs, and the kid. The issuer must have or have had
	// the key. "" means the current key.
	KeyID string

	// Algorithm is the alg. The key signs with this algorithm if it can: an RSA
	// key with RS256 to PS512, an EC key with the hash of any ES algorithm, an
	// Ed25519 key with EdDSA or Ed25519. Otherwise the key signs with its own
	// algorithm. For "none" the signature is empty. For HS256, HS384 and HS512,
	// Secret signs. "" means the algorithm of the key.
	Algorithm string

	// Secret is the key for HS256, HS384 and HS512.
	Secret []byte

	// Header holds members that replace the usual ones or follow them. A nil value
	// removes the member. json.RawMessage("null") writes null. Header does not
	// change which key and algorithm sign.
	Header map[string]any

	// Claims does the same for the payload.
	Claims map[string]any

	// RawHeader, if not nil, replaces the whole header, byte for byte. It is for
	// JSON that no encoder writes, such as duplicate members.
	RawHeader []byte

	// RawClaims does the same for the payload.
	RawClaims []byte
}

// Token returns a valid access token of an arbitrary machine-to-machine app. Nothing
// needs to be registered for it.
func (i *Issuer) Token(audience string, scopes ...string) string {
	return i.Sign(Token{Audience: audience, Scopes: scopes})
}

// Sign signs the token and returns it in the compact form (RFC 7515 section 7.1). It
// panics if the issuer never had the key, if a member cannot be encoded as JSON, or if
// both Expired and Lifetime are set.
func (i *Issuer) Sign(t Token) string {
	if t.Expired && t.Lifetime != 0 {
		mistake("Sign", "Expired and Lifetime exclude each other: leave Lifetime out")
	}
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
	if t.Expired {
		iat -= int64(2 * time.Hour / time.Second)
	}
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

// member is a member of a JSON object, in which order matters here.
type member struct {
	name  string
	value any
}

// object encodes the members, changed as [Token.Header] says. New members follow in
// the order of their names, so that equal Tokens have the same form.
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

// sign signs with the algorithm, as [Token.Algorithm] says.
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

// parseAlgorithm splits the name of an algorithm (RFC 7518 section 3.1). The hash is
// 0 if there is none, and the family is "" if it is unknown.
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

// signHMAC also signs with short secrets, which GODEBUG=fips140=only forbids.
func signHMAC(hash crypto.Hash, secret, input []byte) (signature []byte) {
	fips140.WithoutEnforcement(func() {
		mac := hmac.New(hash.New, secret)
		mac.Write(input)
		signature = mac.Sum(nil)
	})
	return signature
}

// signECDSA returns r and s, each as long as the curve's order, instead of ASN.1 (RFC
// 7518 section 3.4).
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
