package attacks

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// RunFamilies sends what can be computed from a good token by the entry.
func RunFamilies(t *testing.T, entry Entry) {
	t.Helper()
	for name, family := range map[string]func(*testing.T, *target){
		"truncations":            truncations,
		"flipped bits":           flippedBits,
		"edges of ECDSA":         edgesOfECDSA,
		"public keys as secrets": publicKeysAsSecrets,
		"names that look alike":  lookAlikes,
		"numbers at their edges": edgesOfNumbers,
		"key IDs of all lengths": longKeyIDs,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &target{entry: entry}
				family(t, f)
				t.Logf("%d tokens", f.sent)
				require.NotZero(t, f.sent)
			})
		})
	}
}

// A target is where a family is tried: an issuer, a guard that trusts it, and the
// entry to it.
type target struct {
	entry  Entry
	issuer *m2mauthtest.Issuer
	guard  *m2mauth.Guard
	sent   int
}

// with sets up an issuer whose only key is of this algorithm.
func (f *target) with(t *testing.T, alg string) {
	t.Helper()
	f.issuer = m2mauthtest.NewIssuer()
	kid := f.issuer.Rotate(alg)
	for _, other := range f.issuer.KeyIDs() {
		if other != kid {
			f.issuer.Withdraw(other)
		}
	}
	config := f.issuer.Config(audience)
	config.Logger = slog.New(slog.DiscardHandler)
	var err error
	f.guard, err = m2mauth.New(config)
	require.NoError(t, err)
	f.accepts(t, f.good(nil))
}

// good is a token that is good on the route, with changes of its claims.
func (f *target) good(claims map[string]any) string {
	return f.issuer.Sign(m2mauthtest.Token{AppID: "app", Audience: audience, Scopes: []string{"read:products"}, Claims: claims})
}

func (f *target) send(t *testing.T, token string) Answer {
	t.Helper()
	f.sent++
	return f.entry.Send(t, newRequest(f.guard, token, []string{"read:products"}))
}

func (f *target) accepts(t *testing.T, token string) {
	t.Helper()
	answer := f.send(t, token)
	assertAccepted(t, token, answer)
	assert.Equal(t, "app", answer.Claims.Subject())
	assert.Equal(t, "app", answer.Claims.AppID())
	assert.Equal(t, []string{audience}, answer.Claims.Audience())
	assert.Equal(t, f.issuer.URL(), answer.Claims.Issuer())
}

// refuses holds that the token is refused, and as one of these kinds. Of many
// unknown key IDs at once, most are not looked up.
func (f *target) refuses(t *testing.T, token string, kinds ...string) {
	t.Helper()
	answer := f.send(t, token)
	statuses := []int{http.StatusUnauthorized, http.StatusBadRequest, http.StatusForbidden}
	if slices.Contains(kinds, "ErrUnknownKey") {
		kinds, statuses = append(slices.Clip(kinds), "ErrUnavailable"), append(statuses, http.StatusServiceUnavailable)
	}
	if !answer.Claims.IsZero() || answer.Err == nil && !slices.Contains(statuses, answer.Status) {
		t.Fatalf("let through (%d): %s", answer.Status, token)
	}
	if answer.Err != nil {
		assert.True(t, slices.ContainsFunc(kinds, func(kind string) bool { return isKind(answer.Err, kind) }), "%v is none of %v: %s", answer.Err, kinds, token)
	}
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func decode(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	require.NoError(t, err)
	return b
}

// damage is what a damaged token may be refused as: it says something else, or
// what it says is not signed.
var damage = []string{"ErrRequest", "ErrMalformed", "ErrAlgorithm", "ErrType", "ErrIssuer", "ErrAudience", "ErrExpired",
	"ErrNotYetValid", "ErrClaims", "ErrUnknownKey", "ErrSignature"}

// truncations are a good token's beginnings and ends, and the token without a
// character, with one twice, and with one more.
func truncations(t *testing.T, f *target) {
	f.with(t, "ES256")
	token := f.good(nil)
	for i := range len(token) {
		f.refuses(t, token[:i], damage...)
		f.refuses(t, token[:i]+token[i+1:], damage...)
		f.refuses(t, token[:i]+token[i:i+1]+token[i:], damage...)
		f.refuses(t, token[:i]+"="+token[i:], damage...)
		if i > 0 {
			f.refuses(t, token[i:], damage...)
		}
	}
	f.accepts(t, token)
}

// flippedBits are a good token with each bit flipped, of its three parts and of
// its text. A check of ES512 takes milliseconds: there it is each seventh bit, which
// is one of each byte, and each of the eight in turn.
func flippedBits(t *testing.T, f *target) {
	for _, family := range []struct {
		alg    string
		stride int
	}{{"ES256", 1}, {"EdDSA", 1}, {"RS256", 1}, {"PS256", 1}, {"ES384", 1}, {"ES512", 7}} {
		f.with(t, family.alg)
		token := f.good(nil)
		parts := strings.Split(token, ".")
		for i, part := range parts {
			octets := decode(t, part)
			for bit := 0; bit < 8*len(octets); bit += family.stride {
				octets[bit/8] ^= 1 << (bit % 8)
				bent := slices.Clone(parts)
				bent[i] = encode(octets)
				f.refuses(t, strings.Join(bent, "."), damage...)
				octets[bit/8] ^= 1 << (bit % 8)
			}
		}
		text := []byte(token)
		for bit := 0; bit < 8*len(text); bit += family.stride {
			text[bit/8] ^= 1 << (bit % 8)
			f.refuses(t, string(text), damage...)
			text[bit/8] ^= 1 << (bit % 8)
		}
		f.accepts(t, token)
		if testing.Short() {
			return
		}
	}
}

// edgesOfECDSA are signatures whose r and s are each at an edge of their range.
func edgesOfECDSA(t *testing.T, f *target) {
	for alg, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		f.with(t, alg)
		token := f.good(nil)
		dot := strings.LastIndexByte(token, '.')
		signature := decode(t, token[dot+1:])
		size := len(signature) / 2
		n, p := curve.Params().N, curve.Params().P
		numbers := [][]byte{signature[:size], signature[size:]}
		for _, number := range []*big.Int{
			big.NewInt(0), big.NewInt(1), big.NewInt(2),
			new(big.Int).Sub(n, big.NewInt(1)), n, new(big.Int).Add(n, big.NewInt(1)), p,
			new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(8*size)), big.NewInt(1)),
			new(big.Int).Rsh(n, 1),
			curve.Params().Gx,
		} {
			numbers = append(numbers, number.FillBytes(make([]byte, size)))
		}
		for i, r := range numbers {
			for j, s := range numbers {
				if i != 0 || j != 1 {
					f.refuses(t, token[:dot+1]+encode(slices.Concat(r, s)), "ErrSignature")
				}
			}
		}
		for length := range 2*size + 40 {
			if length != 2*size {
				f.refuses(t, token[:dot+1]+encode(make([]byte, length)), "ErrSignature")
				f.refuses(t, token[:dot+1]+encode(append(slices.Clone(signature), make([]byte, 40)...)[:length]), "ErrSignature")
			}
		}
	}
}

// publicKeysAsSecrets are tokens of HS256 whose secret is a spelling of the
// issuer's public key (CVE-2015-9235 and its followers).
func publicKeysAsSecrets(t *testing.T, f *target) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"} {
		f.with(t, alg)
		for _, secret := range spellings(t, f.issuer) {
			for _, hmac := range []string{"HS256", "HS384", "HS512"} {
				for _, header := range []map[string]any{nil, {"kid": nil}, {"kid": "x"}, {"jwk": map[string]string{"kty": "oct", "k": encode(secret)}}} {
					f.refuses(t, f.issuer.Sign(m2mauthtest.Token{AppID: "app", Audience: audience, Algorithm: hmac, Secret: secret, Header: header}), "ErrAlgorithm")
				}
			}
		}
	}
}

// spellings are the ways to write an issuer's public key.
func spellings(t *testing.T, issuer *m2mauthtest.Issuer) (secrets [][]byte) {
	t.Helper()
	response, err := issuer.Client().Get(issuer.JWKSURL())
	require.NoError(t, err)
	defer response.Body.Close()
	document, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	var set struct{ Keys []json.RawMessage }
	require.NoError(t, json.Unmarshal(document, &set))
	require.Len(t, set.Keys, 1)
	var members map[string]string
	require.NoError(t, json.Unmarshal(set.Keys[0], &members))

	required := map[string]string{} // those of RFC 7638
	for _, name := range []string{"crv", "e", "kty", "n", "x", "y"} {
		if value, ok := members[name]; ok {
			required[name] = value
		}
	}
	canonical, err := json.Marshal(required)
	require.NoError(t, err)
	sorted, err := json.Marshal(members)
	require.NoError(t, err)
	indented, err := json.MarshalIndent(members, "", "  ")
	require.NoError(t, err)
	secrets = append(secrets, document, set.Keys[0], canonical, sorted, indented, []byte(members["kid"]), nil)
	for _, name := range []string{"n", "x", "y"} {
		if value, ok := members[name]; ok {
			secrets = append(secrets, []byte(value), decode(t, value))
		}
	}

	public := publicKey(t, members)
	pkix, err := x509.MarshalPKIXPublicKey(public)
	require.NoError(t, err)
	blocks := map[string][]byte{"PUBLIC KEY": pkix, "CERTIFICATE": pkix}
	switch key := public.(type) {
	case *rsa.PublicKey:
		blocks["RSA PUBLIC KEY"] = x509.MarshalPKCS1PublicKey(key)
		secrets = append(secrets, append([]byte{0}, key.N.Bytes()...), []byte(key.N.String()), []byte(key.N.Text(16)))
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		require.NoError(t, err)
		size := (len(point) - 1) / 2
		secrets = append(secrets, point, point[1:], append([]byte{2 + point[len(point)-1]&1}, point[1:1+size]...))
	}
	for name, der := range blocks {
		text := pem.EncodeToMemory(&pem.Block{Type: name, Bytes: der})
		bare := strings.TrimSpace(string(text))
		secrets = append(secrets, der, text, []byte(bare), []byte("\n"+bare), []byte(strings.ReplaceAll(string(text), "\n", "\r\n")),
			[]byte(strings.ReplaceAll(bare, "\n", "")), []byte(strings.ReplaceAll(bare, "\n", `\n`)), append(slices.Clone(text), 0),
			[]byte(base64.StdEncoding.EncodeToString(der)), []byte(encode(der)))
	}
	return secrets
}

func publicKey(t *testing.T, members map[string]string) any {
	t.Helper()
	switch members["kty"] {
	case "RSA":
		return &rsa.PublicKey{N: new(big.Int).SetBytes(decode(t, members["n"])), E: int(new(big.Int).SetBytes(decode(t, members["e"])).Int64())}
	case "OKP":
		return ed25519.PublicKey(decode(t, members["x"]))
	}
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[members["crv"]]
	key, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, decode(t, members["x"]), decode(t, members["y"])))
	require.NoError(t, err)
	return key
}

// lookAlikes are tokens with members whose names look like, or fold to, those
// that are read. Beside the true member they change nothing; in its place they
// are not it.
func lookAlikes(t *testing.T, f *target) {
	f.with(t, "EdDSA")
	for name, missing := range map[string]string{"alg": "ErrAlgorithm", "typ": "ErrType", "kid": "", "crit": "", "b64": ""} {
		for _, variant := range variants(name) {
			token := func(header map[string]any) string {
				return f.issuer.Sign(m2mauthtest.Token{AppID: "app", Audience: audience, Scopes: []string{"read:products"}, Header: header})
			}
			f.accepts(t, token(map[string]any{variant: []string{"none"}}))
			if missing != "" {
				value := map[string]string{"alg": "EdDSA", "typ": "at+jwt"}[name]
				f.refuses(t, token(map[string]any{name: nil, variant: value}), missing)
			}
		}
	}
	values := map[string]any{"iss": f.issuer.URL(), "sub": "app", "aud": audience, "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "jti": "x", "client_id": "app"}
	for _, name := range []string{"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope", "nbf", "cnf", "organization_id"} {
		for _, variant := range variants(name) {
			f.accepts(t, f.good(map[string]any{variant: "admin"}))
			if value, required := values[name]; required {
				f.refuses(t, f.good(map[string]any{name: nil, variant: value}), "ErrClaims")
			}
			if name == "scope" && !f.entry.TokenAlone {
				f.refuses(t, f.good(map[string]any{name: nil, variant: "read:products"}), "ErrScope")
			}
		}
	}
}

// variants are names that are not name.
func variants(name string) (list []string) {
	alike := map[rune]string{'a': "аａᵃ", 'b': "ｂЬ", 'c': "сｃ", 'd': "ԁｄ", 'e': "еｅ", 'g': "ɡｇ", 'i': "іｉıİ", 'j': "јｊ", 'k': "Kｋ", 'l': "ｌ1I",
		'n': "ｎ", 'o': "оｏ0", 'p': "рｐ", 'r': "ｒ", 's': "ſѕｓ", 't': "ｔ", 'u': "ｕ", 'x': "хｘ", 'y': "уｙ", 'z': "ｚ", '_': "＿-", '4': "４", '6': "６"}
	for i, r := range name {
		for _, other := range alike[r] {
			list = append(list, name[:i]+string(other)+name[i+1:])
		}
		if upper := strings.ToUpper(string(r)); upper != string(r) {
			list = append(list, name[:i]+upper+name[i+1:])
		}
	}
	for _, more := range []string{" ", "\t", "\x00", "\u200d", "\ufeff", "\u00ad", "\u0301", "\u202e", ".", "[]", "\u00a0"} {
		list = append(list, more+name, name+more)
	}
	list = append(list, strings.ToUpper(name), strings.ToUpper(name[:1])+name[1:], name+name, "$"+name, "__proto__", "")
	slices.Sort(list)
	return slices.Compact(list)
}

// edgesOfNumbers are tokens whose dates are at the edges of integers, of floating
// point numbers and of JSON. What must come of them is worked out with exact
// fractions.
func edgesOfNumbers(t *testing.T, f *target) {
	f.with(t, "EdDSA")
	now := time.Now().Unix()
	literals := []string{
		"0", "-0", "0.0", "-0.0", "0e0", "1", "-1", "1e0", "1E+0", "1e-0", "0.1", "1e-400", "-1e-400", "5e-324", "2.2250738585072014e-308",
		"2147483647", "2147483648", "4294967295", "4294967296", "-2147483648", "-2147483649",
		"9007199254740991", "9007199254740992", "9007199254740993",
		"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616",
		"9223372036854775807.5", "9223372036.854775807", "9223372036.854775808", "9223372037", "18446744073.709551616",
		"253402300799", "253402300799.5", "253402300800", "253402300801", "2534023007990e-1", "0.253402300799e12",
		"1e10", "1e11", "1e12", "1e18", "1e19", "1e30", "1e99", "1e308", "1.7976931348623157e308", "1.7976931348623159e308", "1e309", "1e999", "-1e999",
		"1e+9", "1E9", "10e8", "0.946684800e9", "9466848000000e-4",
		"00", "01", "+1", ".5", "5.", "1e", "1e+", "0x10", "0b1", "0o7", "1_000", "NaN", "Infinity", "-Infinity", "nan", "1,5", "١", "true", "null", `""`, `"1"`, "[1]", "{}",
	}
	for _, around := range []int64{-31, -30, -29, -1, 0, 1, 29, 30, 31} {
		at := big.NewInt(now + around).String()
		literals = append(literals, at, at+".0", at+".5", at+"e0", at+"0e-1")
	}
	for _, claim := range []string{"exp", "nbf", "iat"} {
		for _, literal := range literals {
			payload := payloadWith(f, claim, literal, now)
			token := f.issuer.Sign(m2mauthtest.Token{RawClaims: []byte(payload)})
			switch want := dateKind(claim, literal, now); want {
			case "":
				f.accepts(t, token)
			default:
				f.refuses(t, token, want)
			}
		}
	}
}

func payloadWith(f *target, claim, literal string, now int64) string {
	dates := map[string]string{"exp": big.NewInt(now + 3600).String(), "iat": big.NewInt(now).String(), "nbf": big.NewInt(now).String()}
	dates[claim] = literal
	return `{"jti":"x","sub":"app","client_id":"app","scope":"read:products","iss":"` + f.issuer.URL() + `","aud":"` + audience +
		`","exp":` + dates["exp"] + `,"iat":` + dates["iat"] + `,"nbf":` + dates["nbf"] + `}`
}

// dateKind is what a token whose claim is the literal must be refused as, if at
// all: a NumericDate is a JSON number from 1970 to 9999, the leeway is 30 s.
func dateKind(claim, literal string, now int64) string {
	if !json.Valid([]byte(literal)) {
		return "ErrMalformed"
	}
	exact, ok := new(big.Rat).SetString(literal)
	if !ok || literal[0] == '-' || exact.Cmp(big.NewRat(253402300800, 1)) >= 0 {
		return "ErrClaims"
	}
	switch {
	case claim == "exp" && exact.Cmp(big.NewRat(now-30, 1)) <= 0:
		return "ErrExpired"
	case claim != "exp" && exact.Cmp(big.NewRat(now+30, 1)) > 0:
		return "ErrNotYetValid"
	}
	return ""
}

// longKeyIDs are tokens around the bound of 8 KiB, and far past it.
func longKeyIDs(t *testing.T, f *target) {
	f.with(t, "EdDSA")
	token := func(length int) string {
		return f.issuer.Sign(m2mauthtest.Token{AppID: "app", Audience: audience, Header: map[string]any{"kid": strings.Repeat("x", length)}})
	}
	for length := 5500; length < 5800; length++ {
		switch raw := token(length); {
		case len(raw) > 8<<10:
			f.refuses(t, raw, "ErrRequest")
		default:
			f.refuses(t, raw, "ErrUnknownKey")
		}
	}
	f.refuses(t, token(1_000_000), "ErrRequest")
	f.accepts(t, f.good(nil))
}
