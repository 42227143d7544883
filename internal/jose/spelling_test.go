package jose_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/test/naive"
)

// spellings are wrong spellings of keys that real issuers use and that we accept, each
// with the right one.
func spellings() map[string]struct{ wrong, right jwk } {
	null := json.RawMessage("null")
	zeros := func(octets string, n int) string { // of base64url
		return b64(append(make([]byte, n), must(base64.RawURLEncoding.DecodeString(octets))...))
	}
	padded := func(octets string) string {
		return octets + strings.Repeat("=", (4-len(octets)%4)%4)
	}
	all := func(k jwk, names ...string) jwk {
		for _, name := range names {
			k = k.with(jwk{name: padded(k[name].(string))})
		}
		return k
	}
	private := jwk{"d": null, "p": null, "q": null, "dp": null, "dq": null, "qi": null, "oth": null, "k": null}
	certificate := jwk{"x5c": null, "x5t": null, "x5u": null, "x5t#S256": null}
	ec, okp, rsa := ecJWK("P-256"), edJWK(), rsaJWK()
	n, e := rsa["n"].(string), rsa["e"].(string)
	return map[string]struct{ wrong, right jwk }{
		"n with a zero in front":              {rsa.with(jwk{"n": zeros(n, 1)}), rsa},
		"n with a hundred zeros in front":     {rsa.with(jwk{"n": zeros(n, 100)}), rsa},
		"e with a zero in front":              {rsa.with(jwk{"e": zeros(e, 1)}), rsa},
		"e filled up to the length of n":      {rsa.with(jwk{"e": zeros(e, 253)}), rsa},
		"n and e with padding":                {all(rsa, "n", "e"), rsa},
		"n with a zero in front, and padding": {all(rsa.with(jwk{"n": zeros(n, 2)}), "n"), rsa},
		"x and y with padding":                {all(ec, "x", "y"), ec},
		"x of Ed25519 with padding":           {all(okp, "x"), okp},
		"an EC key's null":                    {ec.with(private).with(certificate), ec},
		"an RSA key's null":                   {rsa.with(private).with(certificate), rsa},
		"an Ed25519 key's null":               {okp.with(private).with(certificate), okp},
	}
}

func TestWrongSpellingsThatSayTheSame(t *testing.T) {
	t.Parallel()
	for name, test := range spellings() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.NotEqual(t, string(test.right.bytes()), string(test.wrong.bytes()))
			assert.True(t, parse(t, test.right).Equal(parse(t, test.wrong)), "one key")
			read, err := naive.ParseKey(test.wrong.bytes(), "RS256")
			require.NoError(t, err)
			assert.True(t, parse(t, test.right).Equal(parse(t, spelledRight(t, read))), "by another reader too")
		})
	}
}

// If another reader could read a spelling as another key than we do, or as none, we
// reject it. FuzzParseKey looks for more.
func TestSpellingsThatHaveTwoReadings(t *testing.T) {
	t.Parallel()
	ec, okp, rsa := ecJWK("P-256"), edJWK(), rsaJWK()
	x, n := ec["x"].(string), rsa["n"].(string)
	for name, key := range map[string]jwk{
		"a coordinate without its first byte":   ec.with(jwk{"x": b64(must(base64.RawURLEncoding.DecodeString(x))[1:])}),
		"a coordinate with a zero in front":     ec.with(jwk{"x": b64(append([]byte{0}, must(base64.RawURLEncoding.DecodeString(x))...))}),
		"the same of Ed25519":                   okp.with(jwk{"x": b64(append(must(base64.RawURLEncoding.DecodeString(okp["x"].(string))), 0))}),
		"padding, and more after it":            rsa.with(jwk{"n": n + "==" + n + "=="}),
		"padding in the middle":                 rsa.with(jwk{"n": n[:8] + "====" + n[8:]}),
		"padding that hides bits":               rsa.with(jwk{"e": "AR=="}),
		"padding that is one too short":         rsa.with(jwk{"n": n + "="}),
		"padding that is a group too long":      rsa.with(jwk{"n": n + "======"}),
		"the other alphabet of base64":          rsa.with(jwk{"n": "+" + n[1:]}),
		"padding as an escape of a URL":         rsa.with(jwk{"n": n + "%3D%3D"}),
		"white space at the end":                rsa.with(jwk{"n": n + "== "}),
		"a line break before the padding":       rsa.with(jwk{"n": n + "\n=="}),
		"an exponent that is another at 32 bit": rsa.with(jwk{"e": b64([]byte{0, 1, 0, 0, 0, 3})}),
		"a private member that is not null":     rsa.with(jwk{"d": false}),
		"n twice":                               nil,
	} {
		raw := []byte(strings.Replace(string(rsa.bytes()), `"n":`, `"n":null,"n":`, 1))
		if key != nil {
			raw = key.bytes()
		}
		_, err := jose.ParseKey(raw, "RS256")
		assert.Error(t, err, name)
		_, err = naive.ParseKey(raw, "RS256")
		assert.Error(t, err, name)
	}
}

// spelledRight writes a key as the RFCs require.
func spelledRight(t *testing.T, k *naive.Key) jwk {
	t.Helper()
	written := jwk{"alg": k.Alg}
	if k.HasID {
		written["kid"] = k.ID
	}
	switch public := k.Public.(type) {
	case *rsa.PublicKey:
		return written.with(jwk{"kty": "RSA", "n": b64(public.N.Bytes()), "e": b64(big.NewInt(int64(public.E)).Bytes())})
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, x, y
		require.NoError(t, err)
		size := (len(point) - 1) / 2
		return written.with(jwk{"kty": "EC", "crv": public.Params().Name, "x": b64(point[1 : 1+size]), "y": b64(point[1+size:])})
	case ed25519.PublicKey:
		return written.with(jwk{"kty": "OKP", "crv": "Ed25519", "x": b64(public)})
	}
	require.Fail(t, "a key of another kind")
	return nil
}
