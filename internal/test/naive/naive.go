// Package naive reads JSON, keys and tokens by the letter of the RFCs, slowly and
// with the standard library alone. It shares no code with what it judges: tests
// and fuzz targets hold the guard's answers against its answers.
package naive

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxDepth is how deep objects and arrays may nest.
const MaxDepth = 32

// Object reads the one JSON object that data holds. It refuses what is not
// UTF-8, halves of surrogate pairs, doubled members at any depth, and what nests
// deeper than [MaxDepth].
func Object(data []byte) (map[string]json.RawMessage, error) {
	if err := Strict(data); err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, err
	}
	if members == nil {
		return nil, errors.New("null")
	}
	return members, nil
}

// Strict returns an error unless data is one JSON value that has one reading.
func Strict(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	if !json.Valid(data) {
		return errors.New("not JSON")
	}
	if !surrogatesPaired(data) {
		return errors.New("half a surrogate pair")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	return walk(decoder, 0)
}

func walk(decoder *json.Decoder, depth int) error {
	token, err := decoder.Token()
	if err != nil {
		return err
	}
	open, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	if depth++; depth > MaxDepth {
		return errors.New("too deep")
	}
	seen := map[string]bool{}
	for decoder.More() {
		if open == '{' {
			name, err := decoder.Token()
			if err != nil {
				return err
			}
			if seen[name.(string)] {
				return errors.New("a doubled member")
			}
			seen[name.(string)] = true
		}
		if err := walk(decoder, depth); err != nil {
			return err
		}
	}
	_, err = decoder.Token()
	return err
}

// surrogatesPaired looks at the escapes of valid JSON.
func surrogatesPaired(data []byte) bool {
	unit := func(at int) int64 { // of the escape at a backslash; -1 for another
		if at+6 > len(data) || data[at] != '\\' || data[at+1] != 'u' {
			return -1
		}
		n, err := strconv.ParseInt(string(data[at+2:at+6]), 16, 32)
		if err != nil {
			return -1
		}
		return n
	}
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		switch u := unit(i); {
		case u >= 0xd800 && u < 0xdc00:
			if low := unit(i + 6); low < 0xdc00 || low > 0xdfff {
				return false
			}
			i += 11
		case u >= 0xdc00 && u <= 0xdfff:
			return false
		case u >= 0:
			i += 5
		default:
			i++
		}
	}
	return true
}

// String reads a JSON string.
func String(v json.RawMessage) (s string, ok bool) {
	if len(v) == 0 || v[0] != '"' {
		return "", false
	}
	return s, json.Unmarshal(v, &s) == nil
}

// Strings reads an array of strings, or one string.
func Strings(v json.RawMessage) (list []string, ok bool) {
	if s, ok := String(v); ok {
		return []string{s}, true
	}
	var elements []json.RawMessage
	if len(v) == 0 || v[0] != '[' || json.Unmarshal(v, &elements) != nil {
		return nil, false
	}
	for _, e := range elements {
		s, ok := String(e)
		if !ok {
			return nil, false
		}
		list = append(list, s)
	}
	return list, true
}

// Base64URL reads base64url without padding (RFC 7515 §2), of which bytes have
// one spelling.
func Base64URL(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil && base64.RawURLEncoding.EncodeToString(b) != s {
		err = errors.New("not the one spelling")
	}
	return b, err
}

// keyOctets is Base64URL, or the same with its padding, which stands in some key sets.
func keyOctets(s string) ([]byte, error) {
	if b, err := base64.URLEncoding.DecodeString(s); err == nil && base64.URLEncoding.EncodeToString(b) == s {
		return b, nil
	}
	return Base64URL(s)
}

// Key is a public key for one algorithm.
type Key struct {
	ID     string
	HasID  bool
	Alg    string
	Public crypto.PublicKey
}

// smallOrder has y of the points of Ed25519 whose order divides the cofactor, in
// hexadecimal, the last byte without the sign of x. The list is known from the
// literature: RFC 8032 has none.
var smallOrder = []string{
	"0100000000000000000000000000000000000000000000000000000000000000", // order 1
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // order 2
	"0000000000000000000000000000000000000000000000000000000000000000", // order 4
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", // order 8
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", // order 8
}

// isWeak reports whether an Ed25519 key is one under which one signature is good
// for many texts, or is not in the one spelling of its point, which may hide that:
// y is below 2^255-19 (RFC 8032 §5.1.3).
func isWeak(x []byte) bool {
	y := slices.Clone(x)
	y[31] &= 0x7f
	spelled := hex.EncodeToString(y)
	over := strings.TrimLeft(spelled[2:62], "f") == "" && y[31] == 0x7f && y[0] >= 0xed
	return over || slices.Contains(smallOrder, spelled)
}

// Same reports whether two keys verify the same signatures.
func (k *Key) Same(other *Key) bool {
	return k.Alg == other.Alg && k.Public.(interface{ Equal(crypto.PublicKey) bool }).Equal(other.Public)
}

// ParseKey reads a JWK (RFC 7517, 7518 §6, 8037 §2), and some spellings of it that
// say the same: zeros before n and e, padding, and null for a member of private
// keys. rsaAlgorithm is what an RSA key without alg is for.
func ParseKey(raw []byte, rsaAlgorithm string) (*Key, error) {
	var m map[string]json.RawMessage
	if err := Strict(raw); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	text := map[string]string{}
	for _, name := range []string{"kid", "kty", "use", "alg", "crv", "x", "y", "n", "e"} {
		if v, present := m[name]; present {
			s, ok := String(v)
			if !ok {
				if name == "kty" || name == "kid" || name == "use" || name == "alg" {
					return nil, fmt.Errorf("%s is not a string", name)
				}
				continue // of no use to the key, or found missing below
			}
			text[name] = s
		}
	}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if v, present := m[name]; present && string(v) != "null" {
			return nil, errors.New("private")
		}
	}
	if use, present := text["use"]; present && use != "sig" {
		return nil, errors.New("use")
	}
	if v, present := m["key_ops"]; present {
		list, ok := operations(v)
		if !ok || !slices.Contains(list, "verify") {
			return nil, errors.New("key_ops")
		}
		for i, operation := range list {
			if slices.Contains(list[i+1:], operation) {
				return nil, errors.New("key_ops twice")
			}
		}
	}
	k := &Key{ID: text["kid"]}
	_, k.HasID = text["kid"]
	var algs []string // that the key could be for; the first without alg
	switch text["kty"] {
	case "EC":
		curve, alg := curveOf(text["crv"])
		if curve == nil {
			return nil, errors.New("crv")
		}
		size := (curve.Params().BitSize + 7) / 8
		x, err1 := keyOctets(text["x"])
		y, err2 := keyOctets(text["y"])
		if err1 != nil || err2 != nil || len(x) != size || len(y) != size {
			return nil, errors.New("coordinates")
		}
		if !onCurve(curve, new(big.Int).SetBytes(x), new(big.Int).SetBytes(y)) {
			return nil, errors.New("off the curve")
		}
		public, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y)) // SEC 1 §2.3.4
		if err != nil {
			return nil, err
		}
		k.Public, algs = public, []string{alg}
	case "RSA":
		n, err1 := keyOctets(text["n"])
		e, err2 := keyOctets(text["e"])
		n, e = bytes.TrimLeft(n, "\x00"), bytes.TrimLeft(e, "\x00")
		if err1 != nil || err2 != nil || len(n) < 256 || len(n) > 1024 || len(e) == 0 || len(e) > 4 {
			return nil, errors.New("n or e")
		}
		modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e).Int64()
		if modulus.BitLen() < 2048 || modulus.Bit(0) == 0 || exponent < 3 || exponent&1 == 0 || exponent > 1<<31-1 {
			return nil, errors.New("n or e")
		}
		k.Public = &rsa.PublicKey{N: modulus, E: int(exponent)}
		algs = []string{rsaAlgorithm, "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	case "OKP":
		x, err := keyOctets(text["x"])
		if err != nil || text["crv"] != "Ed25519" || len(x) != ed25519.PublicKeySize || isWeak(x) {
			return nil, errors.New("crv or x")
		}
		k.Public, algs = ed25519.PublicKey(x), []string{"EdDSA"}
	default:
		return nil, errors.New("kty")
	}
	k.Alg = algs[0]
	if alg, present := text["alg"]; present {
		k.Alg = oneName(alg)
		if !slices.Contains(algs, k.Alg) {
			return nil, errors.New("alg")
		}
	}
	if k.Alg == "" {
		return nil, errors.New("several algorithms")
	}
	return k, nil
}

func operations(v json.RawMessage) ([]string, bool) {
	if len(v) == 0 || v[0] != '[' {
		return nil, false
	}
	return Strings(v)
}

func oneName(alg string) string {
	if alg == "Ed25519" { // RFC 9864 §2.2
		return "EdDSA"
	}
	return alg
}

func curveOf(crv string) (elliptic.Curve, string) {
	switch crv {
	case "P-256":
		return elliptic.P256(), "ES256"
	case "P-384":
		return elliptic.P384(), "ES384"
	case "P-521":
		return elliptic.P521(), "ES512"
	}
	return nil, ""
}

// onCurve checks y² = x³ - 3x + b.
func onCurve(curve elliptic.Curve, x, y *big.Int) bool {
	p := curve.Params()
	if x.Cmp(p.P) >= 0 || y.Cmp(p.P) >= 0 {
		return false
	}
	right := new(big.Int).Exp(x, big.NewInt(3), p.P)
	right.Sub(right, new(big.Int).Mul(big.NewInt(3), x))
	right.Add(right, p.B)
	return new(big.Int).Exp(y, big.NewInt(2), p.P).Cmp(right.Mod(right, p.P)) == 0
}

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

// Verify reports whether the signature is the key's (RFC 7518 §3, RFC 8037 §3.1).
func (k *Key) Verify(input, signature []byte) bool {
	if k.Alg == "EdDSA" {
		return len(signature) == ed25519.SignatureSize && ed25519.Verify(k.Public.(ed25519.PublicKey), input, signature)
	}
	hash := hashes[k.Alg[2:]]
	digest := Digest(hash, input)
	switch k.Alg[:2] {
	case "ES":
		public := k.Public.(*ecdsa.PublicKey)
		size := (public.Params().BitSize + 7) / 8
		if len(signature) != 2*size {
			return false
		}
		r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
		return ecdsa.Verify(public, digest, r, s)
	case "RS":
		return rsa.VerifyPKCS1v15(k.Public.(*rsa.PublicKey), hash, digest, signature) == nil
	case "PS":
		return rsa.VerifyPSS(k.Public.(*rsa.PublicKey), hash, digest, signature, &rsa.PSSOptions{SaltLength: hash.Size()}) == nil
	}
	return false
}

// Digest returns the hash of the input.
func Digest(hash crypto.Hash, input []byte) []byte {
	switch hash {
	case crypto.SHA256:
		d := sha256.Sum256(input)
		return d[:]
	case crypto.SHA384:
		d := sha512.Sum384(input)
		return d[:]
	default:
		d := sha512.Sum512(input)
		return d[:]
	}
}

// Rules are what an API accepts.
type Rules struct {
	Issuer       string
	Audiences    []string
	Types        []string // in lower case, without application/; "" = no typ
	Algorithms   []string
	ScopeClaims  []string
	ClientClaims []string
	Leeway       time.Duration
	MaxLifetime  time.Duration // 0 = none

	InsecureAllowOrganizationTokens bool

	OrganizationClaims     []string // beside organization_id
	RequiredClaims         map[string][]string
	AllowMissingSubject    bool
	ClientsWithoutAudience []string
	ScopePrefix            string
	ScopeOrganization      string
}

// Claims are what an accepted token says.
type Claims struct {
	Issuer, Subject, ClientID, ID, OrganizationID string

	Audience, Scopes []string
	Actors           []Actor
	Issued           bool
	IssuedAt, Expiry float64 // seconds since 1970
}

// Verify accepts a token that any route may accept (RFC 9068 §4), signed by one of the keys.
func (r *Rules) Verify(token string, keys []*Key, now time.Time) (*Claims, error) {
	if len(token) > 8192 {
		return nil, errors.New("too long")
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("not three parts")
	}
	var decoded [3][]byte
	for i, p := range parts {
		b, err := Base64URL(p)
		if err != nil {
			return nil, err
		}
		decoded[i] = b
	}
	header, err := Object(decoded[0])
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	payload, err := Object(decoded[1])
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	alg, accessToken, err := r.header(header)
	if err != nil {
		return nil, err
	}
	c, err := r.claims(payload, accessToken, float64(now.UnixNano())/1e9)
	if err != nil {
		return nil, err
	}
	var fitting []*Key
	for _, k := range keys {
		if kid, present := header["kid"]; present {
			if id, _ := String(kid); !k.HasID || k.ID != id {
				continue
			}
		}
		if k.Alg == alg && !slices.ContainsFunc(fitting, k.Same) { // one that is published twice is one
			fitting = append(fitting, k)
		}
	}
	if len(fitting) != 1 {
		return nil, fmt.Errorf("%d keys fit", len(fitting))
	}
	if !fitting[0].Verify([]byte(parts[0]+"."+parts[1]), decoded[2]) {
		return nil, errors.New("signature")
	}
	return c, nil
}

func (r *Rules) header(h map[string]json.RawMessage) (alg string, accessToken bool, err error) {
	for _, name := range []string{"crit", "b64"} {
		if _, present := h[name]; present {
			return "", false, errors.New(name)
		}
	}
	for _, name := range []string{"alg", "typ", "kid", "cty"} {
		if v, present := h[name]; present {
			s, ok := String(v)
			if !ok {
				return "", false, fmt.Errorf("%s is not a string", name)
			}
			if name == "cty" && (strings.EqualFold(s, "JWT") || strings.EqualFold(s, "application/jwt")) {
				return "", false, errors.New("nested")
			}
		}
	}
	alg, _ = String(h["alg"])
	if alg = oneName(alg); !slices.Contains(r.Algorithms, alg) {
		return "", false, errors.New("alg")
	}
	typ, present := String(h["typ"])
	if present {
		typ = Lower(typ)
		typ = strings.TrimPrefix(typ, "application/")
		if typ == "" {
			return "", false, errors.New("an empty typ")
		}
	}
	if !slices.Contains(r.Types, typ) {
		return "", false, errors.New("typ")
	}
	return alg, typ == "at+jwt", nil
}

func (r *Rules) claims(p map[string]json.RawMessage, accessToken bool, now float64) (*Claims, error) {
	text := func(name string, required bool) (string, error) {
		v, present := named(p, name)
		if !present && !required {
			return "", nil
		}
		if s, ok := String(v); ok && s != "" {
			return s, nil
		}
		return "", fmt.Errorf("%s is not a non-empty string", name)
	}
	c, ok := new(Claims), false
	var errs [5]error
	c.Issuer, errs[0] = text("iss", true)
	if _, present := p["sub"]; present || !r.AllowMissingSubject {
		c.Subject, errs[1] = text("sub", true)
	}
	c.ID, errs[2] = text("jti", accessToken)
	for _, name := range append([]string{"organization_id"}, r.OrganizationClaims...) {
		organization, err := text(name, false)
		if err != nil {
			return nil, err
		}
		if c.OrganizationID != "" && organization != "" && organization != c.OrganizationID {
			return nil, errors.New("two organizations")
		}
		c.OrganizationID += strings.TrimPrefix(organization, c.OrganizationID)
	}
	for name, values := range r.RequiredClaims {
		v, _ := named(p, name)
		list, ok := Strings(v)
		if !ok || !slices.ContainsFunc(list, func(s string) bool { return slices.Contains(values, s) }) {
			return nil, fmt.Errorf("%s has another value", name)
		}
	}
	for _, name := range r.ClientClaims {
		client, err := text(name, false)
		if err != nil {
			return nil, err
		}
		if client != "" && c.ClientID != "" && client != c.ClientID {
			return nil, errors.New("two clients")
		}
		if client != "" {
			c.ClientID = client
		}
	}
	if c.ClientID == "" {
		errs[4] = errors.New("no client")
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	if c.Issuer != r.Issuer {
		return nil, errors.New("another issuer")
	}
	if c.OrganizationID != "" && !r.InsecureAllowOrganizationTokens {
		return nil, errors.New("an organization's token")
	}
	if _, present := p["cnf"]; present {
		return nil, errors.New("bound to a key")
	}
	if c.Actors, ok = Actors(p["act"]); !ok {
		return nil, errors.New("act")
	}
	aud, present := p["aud"]
	if present || !slices.Contains(r.ClientsWithoutAudience, c.ClientID) {
		if err := r.audience(c, aud); err != nil {
			return nil, err
		}
	}
	if err := r.times(c, p, accessToken, now); err != nil {
		return nil, err
	}
	return c, r.scopes(c, p)
}

func (r *Rules) audience(c *Claims, aud json.RawMessage) error {
	var ok bool
	if c.Audience, ok = Strings(aud); !ok {
		return errors.New("aud")
	}
	mine := false
	for _, a := range c.Audience {
		if a == "urn:logto:resource:organizations" || strings.HasPrefix(a, "urn:logto:organization:") {
			return errors.New("an organization token")
		}
		mine = mine || slices.Contains(r.Audiences, a)
	}
	if !mine {
		return errors.New("another audience")
	}
	return nil
}

func (r *Rules) times(c *Claims, p map[string]json.RawMessage, accessToken bool, now float64) error {
	at := map[string]float64{}
	for _, name := range []string{"exp", "nbf", "iat"} {
		v, present := p[name]
		if !present {
			continue
		}
		var seconds float64
		if v[0] < '0' || v[0] > '9' || json.Unmarshal(v, &seconds) != nil || seconds >= 253402300800 {
			return fmt.Errorf("%s is no time", name)
		}
		at[name] = seconds
	}
	leeway := r.Leeway.Seconds()
	exp, expires := at["exp"]
	iat, issued := at["iat"]
	switch {
	case !expires || now >= exp+leeway:
		return errors.New("expired")
	case at["nbf"] > now+leeway, iat > now+leeway:
		return errors.New("not yet valid")
	case !issued && (accessToken || r.MaxLifetime > 0):
		return errors.New("no iat")
	case r.MaxLifetime > 0 && exp-iat > r.MaxLifetime.Seconds():
		return errors.New("lives too long")
	}
	c.Expiry, c.IssuedAt, c.Issued = exp, iat, issued
	return nil
}

func (r *Rules) scopes(c *Claims, p map[string]json.RawMessage) error {
	for _, name := range r.ScopeClaims {
		v, present := named(p, name)
		if !present {
			continue
		}
		list, ok := r.within(v)
		if r.ScopeOrganization == "" {
			list, ok = Strings(v)
		}
		if !ok {
			return fmt.Errorf("%s is neither a string nor an array of strings", name)
		}
		if v[0] == '"' {
			list = slices.DeleteFunc(strings.Split(list[0], " "), func(s string) bool { return s == "" })
		}
		for _, scope := range list {
			if r.ScopePrefix == "" || strings.HasPrefix(scope, r.ScopePrefix) && scope != r.ScopePrefix {
				c.Scopes = append(c.Scopes, scope[len(r.ScopePrefix):])
			}
		}
	}
	return nil
}

// within returns the names of the members that hold in the organization, sorted.
func (r *Rules) within(v json.RawMessage) (names []string, ok bool) {
	members, err := Object(v)
	if err != nil {
		return nil, false
	}
	for name, value := range members {
		organizations, err := Object(value)
		if err != nil {
			return nil, false
		}
		if domain, present := organizations[r.ScopeOrganization]; present {
			if _, ok := String(domain); !ok {
				return nil, false
			}
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, true
}

// Actor is who acts with a token, or did before.
type Actor struct{ Subject, ClientID, Issuer string }

// Actors reads act (RFC 8693 §4.1), the current actor first.
func Actors(act json.RawMessage) (chain []Actor, ok bool) {
	if act == nil {
		return nil, true
	}
	members, err := Object(act)
	if err != nil {
		return nil, false
	}
	text := func(name string) string {
		v, present := members[name]
		s, isString := String(v)
		ok = ok && (!present || isString && s != "")
		return s
	}
	ok = true
	actor := Actor{text("sub"), text("client_id"), text("iss")}
	before, known := Actors(members["act"])
	return append([]Actor{actor}, before...), ok && known && actor.Subject != "" && len(before) < 8
}

// Lower has no word for letters outside ASCII, some of which strings.ToLower turns
// into those of ASCII.
func Lower(s string) string {
	return strings.Map(func(r rune) rune {
		if i := strings.IndexRune("ABCDEFGHIJKLMNOPQRSTUVWXYZ", r); i >= 0 {
			return rune("abcdefghijklmnopqrstuvwxyz"[i])
		}
		return r
	}, s)
}

// Pointer reads a JSON Pointer (RFC 6901) without empty parts, letter by letter.
func Pointer(s string) (path []string, ok bool) {
	if s == "" || s[0] != '/' {
		return nil, false
	}
	for s != "" {
		part := ""
		s = s[1:]
		for s != "" && s[0] != '/' {
			letter := s[:1]
			if s[0] == '~' {
				if len(s) == 1 || s[1] != '0' && s[1] != '1' {
					return nil, false
				}
				letter = map[byte]string{'0': "~", '1': "/"}[s[1]]
				s = s[1:]
			}
			part += letter
			s = s[1:]
		}
		if part == "" {
			return nil, false
		}
		path = append(path, part)
	}
	return path, true
}

// Find goes from member to member.
func Find(members map[string]json.RawMessage, path []string) (json.RawMessage, bool) {
	v, present := members[path[0]]
	if !present || len(path) == 1 {
		return v, present
	}
	inner, err := Object(v)
	if err != nil {
		return nil, false
	}
	return Find(inner, path[1:])
}

// named finds a claim by the name that a Config has for it.
func named(members map[string]json.RawMessage, name string) (json.RawMessage, bool) {
	if path, ok := Pointer(name); ok {
		return Find(members, path)
	}
	v, present := members[name]
	return v, present
}
