package m2mauthtest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
)

// Rotate makes a new key, publishes it, signs with it from now on, and returns its key
// ID. The key that signed until now stays published as the previous key. The key that
// was the previous one is no longer published. This is Logto's rotation without a
// grace period.
//
// alg is ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA or
// Ed25519. RSA keys have 2048 bits. EdDSA and Ed25519 are two names for one algorithm:
// tokens and the key set use the name given here. The key ID is the SHA-256 thumbprint
// of RFC 7638. A published key has the members that Logto writes: an RS256 key has no
// alg, any other key has one.
//
// A guard caches keys. It fetches the key set again when it sees the first token of
// the new key, so that token is accepted. Without one, the guard keeps accepting a key
// that is no longer published until Config.KeyTTL has passed (10 minutes by default).
// Let that time pass in a bubble of [testing/synctest]: see [Issuer.Withdraw].
//
// Rotate panics if a staged key waits for [Issuer.Activate], since Logto refuses that.
func (i *Issuer) Rotate(alg string) (kid string) {
	k := newKey(alg) // outside the lock: an RSA key takes its time
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys.stage("Rotate", k)
	i.keys.activate()
	return k.id
}

// Stage makes and publishes the next key, and returns its key ID. The current key
// signs until [Issuer.Activate] is called. This is the start of Logto's rotation with
// a grace period. For alg see [Issuer.Rotate]. Stage panics if a key is already staged.
func (i *Issuer) Stage(alg string) (kid string) {
	k := newKey(alg)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys.stage("Stage", k)
	return k.id
}

// Activate completes the rotation that [Issuer.Stage] started. The staged key signs
// from now on. The key that signed until now becomes the previous key. The key that
// was the previous one is no longer published. Activate panics if no key is staged.
func (i *Issuer) Activate() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.keys.next == nil {
		mistake("Activate", "no key is staged")
	}
	i.keys.activate()
}

// Withdraw removes a key from the key set. If it is the current key, it still signs,
// but nobody can verify its tokens. [Issuer.Sign] can sign with a withdrawn key by its
// ID. Withdraw panics if the issuer never had the key.
//
// A guard caches keys: it accepts a withdrawn key until it fetches the key set again,
// at the latest when Config.KeyTTL has passed (10 minutes by default). A token of a
// known key causes no fetch. Let the time pass in a bubble of [testing/synctest]:
//
//	issuer.Rotate("ES384") // publish another key first
//	issuer.Withdraw(kid)
//	time.Sleep(10 * time.Minute) // Config.KeyTTL: 401 from now on
//
// Do not withdraw the only key. A guard treats a key set without keys as a failure of
// the issuer: it keeps the old keys for Config.KeyStaleFor (an hour) more, and then
// responds with 503.
func (i *Issuer) Withdraw(kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys.get("Withdraw", kid)
	i.keys.withdrawn[kid] = true
}

// Replace replaces a key by a new one with the same key ID and algorithm, as some
// issuers do when they restore a backup. The published key no longer verifies tokens
// that were signed with the old one. Replace panics if the issuer never had the key.
func (i *Issuer) Replace(kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	old := i.keys.get("Replace", kid)
	i.keys.replace(newKey(old.alg).withID(kid))
}

// PublishJWK appends a key to the key set, byte for byte. It need be neither a valid
// key nor valid JSON. It follows the real keys and those added earlier. Nil removes all
// keys that PublishJWK added.
func (i *Issuer) PublishJWK(jwk json.RawMessage) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if jwk == nil {
		i.keys.odd = nil
		return
	}
	i.keys.odd = append(i.keys.odd, slices.Clone(jwk))
}

// KeyIDs returns the IDs of the published keys in the order of the key set: current,
// staged, previous. It leaves out the keys that [Issuer.PublishJWK] added.
func (i *Issuer) KeyIDs() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var ids []string
	for _, k := range i.keys.published() {
		ids = append(ids, k.id)
	}
	return ids
}

// keyring holds the keys of an issuer, whose mutex guards it.
type keyring struct {
	current, next, previous *key // next and previous may be nil
	all                     map[string]*key
	withdrawn               map[string]bool
	odd                     [][]byte
}

func newKeyring(current *key) keyring {
	return keyring{
		current:   current,
		all:       map[string]*key{current.id: current},
		withdrawn: map[string]bool{},
	}
}

func (r *keyring) stage(method string, k *key) {
	if r.next != nil {
		mistake(method, "a staged key waits for Activate")
	}
	r.next = k
	r.all[k.id] = k
}

func (r *keyring) activate() {
	r.current, r.next, r.previous = r.next, nil, r.current
}

func (r *keyring) replace(k *key) {
	for _, place := range []**key{&r.current, &r.next, &r.previous} {
		if *place != nil && (*place).id == k.id {
			*place = k
		}
	}
	r.all[k.id] = k
}

// get returns a key that the issuer has or had, and panics if there is none.
func (r *keyring) get(method, kid string) *key {
	k := r.all[kid]
	if k == nil {
		mistake(method, "the issuer has no key with the ID %q", kid)
	}
	return k
}

func (r *keyring) published() []*key {
	var keys []*key
	for _, k := range []*key{r.current, r.next, r.previous} {
		if k != nil && !r.withdrawn[k.id] {
			keys = append(keys, k)
		}
	}
	return keys
}

func (r *keyring) jwks() []byte {
	var jwks [][]byte
	for _, k := range r.published() {
		jwks = append(jwks, k.jwk())
	}
	jwks = append(jwks, r.odd...)
	return slices.Concat([]byte(`{"keys":[`), bytes.Join(jwks, []byte(",")), []byte(`]}`))
}

// signingAlgs returns what discovery lists for ID tokens. Logto lists every algorithm
// that fits a published key, so an RSA key, which signs RS256, adds PS256.
func (r *keyring) signingAlgs() []string {
	algs := []string{} // never null
	for _, k := range r.published() {
		can := []string{k.alg}
		if k.alg == "RS256" {
			can = []string{"PS256", "RS256"}
		}
		for _, alg := range can {
			if !slices.Contains(algs, alg) {
				algs = append(algs, alg)
			}
		}
	}
	return algs
}

// key is a signing key. It is immutable.
type key struct {
	id     string
	alg    string
	signer crypto.Signer // *ecdsa.PrivateKey, *rsa.PrivateKey or ed25519.PrivateKey
}

func newKey(alg string) *key {
	var signer crypto.Signer
	var err error
	outsideBubbles(func() { signer, err = generate(alg) })
	if err != nil {
		panic("m2mauthtest: making a key: " + err.Error())
	}
	if signer == nil {
		panic(fmt.Sprintf("m2mauthtest: no key can be made for the algorithm %q", alg))
	}
	k := &key{alg: alg, signer: signer}
	thumbprint := sha256.Sum256(k.thumbprintInput())
	k.id = base64url(thumbprint[:])
	return k
}

// generate returns nil for an unknown algorithm.
func generate(alg string) (signer crypto.Signer, err error) {
	switch alg {
	case "ES256":
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		signer, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case "EdDSA", "Ed25519":
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	}
	return signer, err
}

func (k *key) withID(kid string) *key {
	return &key{id: kid, alg: k.alg, signer: k.signer}
}

// jwk returns the public key as a JWK (RFC 7517, RFC 7518 section 6, RFC 8037),
// with the members in Logto's order.
func (k *key) jwk() []byte {
	head := fmt.Sprintf(`"use":"sig","kid":%s`, marshal(k.id))
	if k.alg != "RS256" {
		head += fmt.Sprintf(`,"alg":%q`, k.alg)
	}
	switch pub := k.signer.Public().(type) {
	case *ecdsa.PublicKey:
		x, y := coordinates(pub)
		return fmt.Appendf(nil, `{"kty":"EC",%s,"crv":%q,"x":%q,"y":%q}`, head, pub.Params().Name, x, y)
	case *rsa.PublicKey:
		return fmt.Appendf(nil, `{"kty":"RSA",%s,"e":%q,"n":%q}`, head, exponent(pub), base64url(pub.N.Bytes()))
	default:
		return fmt.Appendf(nil, `{"kty":"OKP",%s,"crv":"Ed25519","x":%q}`, head, base64url(pub.(ed25519.PublicKey)))
	}
}

// thumbprintInput returns the members that a thumbprint covers, in the order of
// their names (RFC 7638 section 3, RFC 8037 section 2).
func (k *key) thumbprintInput() []byte {
	switch pub := k.signer.Public().(type) {
	case *ecdsa.PublicKey:
		x, y := coordinates(pub)
		return fmt.Appendf(nil, `{"crv":%q,"kty":"EC","x":%q,"y":%q}`, pub.Params().Name, x, y)
	case *rsa.PublicKey:
		return fmt.Appendf(nil, `{"e":%q,"kty":"RSA","n":%q}`, exponent(pub), base64url(pub.N.Bytes()))
	default:
		return fmt.Appendf(nil, `{"crv":"Ed25519","kty":"OKP","x":%q}`, base64url(pub.(ed25519.PublicKey)))
	}
}

// coordinates returns the point's coordinates at full length, as RFC 7518
// section 6.2.1.2 demands.
func coordinates(pub *ecdsa.PublicKey) (x, y string) {
	point, err := pub.Bytes() // 4, then both coordinates
	if err != nil {
		panic("m2mauthtest: " + err.Error())
	}
	size := len(point) / 2
	return base64url(point[1 : 1+size]), base64url(point[1+size:])
}

func exponent(pub *rsa.PublicKey) string {
	return base64url(big.NewInt(int64(pub.E)).Bytes())
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
