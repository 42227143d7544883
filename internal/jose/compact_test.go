package jose_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/test/naive"
)

func TestSplit(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"":              "the token is empty",
		"eyJhbGciOiJF":  "the token is a part of a JWT: it was cut off on its way",
		"eyK":           "the token is opaque, not a JWT: request it with the resource parameter, which names this API",
		"opaque":        "the token is opaque, not a JWT: request it with the resource parameter, which names this API",
		"a.b.c.d.e":     "the token is encrypted (JWE), which this API does not accept",
		"a.b":           "the token is not a JWT of three parts",
		"a.b.c.d":       "the token is not a JWT of three parts",
		"a.b.c.d.e.f":   "the token is not a JWT of three parts",
		"e30.e30.YQ==":  "the token's signature is not strict base64url",
		"e30.e30.YR":    "the token's signature is not strict base64url",
		"e30.e30.Y\nQ":  "the token's signature is not strict base64url",
		"e30.e30.c2ln+": "the token's signature is not strict base64url",
	} {
		signed, signature, err := jose.Split(raw)
		assert.EqualError(t, err, want, raw)
		assert.Empty(t, signed, raw)
		assert.Nil(t, signature, raw)
	}
	for _, dots := range []int{1, 3, 5, 8000} {
		_, _, err := jose.Split(strings.Repeat(".", dots))
		assert.Equal(t, jose.DotsError(dots), err)
	}
	for raw, want := range map[string]string{"e30.e30.c2ln": "sig", "..": "", "!.?.YQ": "a"} {
		signed, signature, err := jose.Split(raw)
		require.NoError(t, err, raw)
		assert.Equal(t, raw[:strings.LastIndex(raw, ".")], signed)
		assert.Equal(t, want, string(signature))
	}
}

func TestReadHeader(t *testing.T) {
	t.Parallel()
	const odd = "the token's header is not one strict JSON object, or a member of it has the wrong type"
	const extension = "the token's header demands an extension (crit or b64), and none is supported"
	const nested = "the token's header says that its payload is another token (cty), and nested tokens are not accepted"
	for header, want := range map[string]string{
		``: odd, `[]`: odd, `null`: odd, `{"alg":"a","alg":"a"}`: odd, `{} {}`: odd, `{"alg":1}`: odd, `{"typ":null}`: odd, `{"kid":1}`: odd, `{"cty":[]}`: odd,
		`{"crit":["b64"]}`: extension, `{"crit":null}`: extension, `{"b64":true}`: extension, `{"b64":false,"cty":"JWT"}`: extension,
		`{"cty":"JWT"}`: nested, `{"cty":"jwt"}`: nested, `{"cty":"application/Jwt"}`: nested,
		`{"crit":[],"alg":1}`: odd,
	} {
		h, err := jose.ReadHeader(naiveBase64(header) + ".e30")
		assert.EqualError(t, err, want, header)
		assert.Zero(t, h, header)
	}
	for header, want := range map[string]jose.Header{
		`{}`: {},
		`{"alg":"Ed25519","typ":"Application/AT+JWT","kid":"k"}`: {Algorithm: "Ed25519", Type: "Application/AT+JWT", KeyID: "k", HasType: true, HasKeyID: true},
		`{"typ":"","kid":""}`:                            {HasType: true, HasKeyID: true},
		`{"\u0061lg":"none","Alg":"x","x5c":1,"jwk":{}}`: {Algorithm: "none"},
		`{"cty":"json","alg":"a"}`:                       {Algorithm: "a"},
		`{"cty":"application/","alg":"a"}`:               {Algorithm: "a"},
	} {
		for _, rest := range []string{"", ".e30", ".!"} {
			h, err := jose.ReadHeader(naiveBase64(header) + rest)
			require.NoError(t, err, header)
			assert.Equal(t, want, h, header)
		}
	}
	for _, encoded := range []string{"e30=", "e3 0", "e31", "!"} {
		h, err := jose.ReadHeader(encoded + ".e30")
		assert.EqualError(t, err, "the token's header is not strict base64url", encoded)
		assert.Zero(t, h)
	}
}

func TestMediaType(t *testing.T) {
	t.Parallel()
	for typ, want := range map[string]string{
		"at+jwt": "at+jwt", "AT+JWT": "at+jwt", "application/at+jwt": "at+jwt", "APPLICATION/AT+JWT": "at+jwt", "application/": "application/", "": "",
		"application/application/x": "application/x", "text/at+jwt": "text/at+jwt", "applicatİon/x": "applicatİon/x", "\u212awt": "\u212awt",
	} {
		assert.Equal(t, want, jose.MediaType(typ), typ)
	}
}

func TestDecodePayload(t *testing.T) {
	t.Parallel()
	payload, err := jose.DecodePayload("!.e30")
	require.NoError(t, err)
	assert.Equal(t, "{}", string(payload))
	for _, encoded := range []string{"e30=", "e31", "!", "e\n30"} {
		payload, err := jose.DecodePayload("e30." + encoded)
		assert.EqualError(t, err, "the token's payload is not strict base64url", encoded)
		assert.Nil(t, payload)
	}
}

// A token is taken apart in the one way in which RFC 7515 §7.1 reads it, and its
// header says what encoding/json reads in it.
func FuzzReadToken(f *testing.F) {
	encode := func(header string) string {
		return naiveBase64(header) + "." + naiveBase64("{}") + "." + naiveBase64("sig")
	}
	for _, header := range []string{
		`{"alg":"ES256","typ":"at+jwt","kid":"a"}`, `{"typ":"application/AT+JWT","alg":"Ed25519"}`, `{"alg":"EdDSA"}`,
		`{"alg":"none"}`, `{"alg":"ES256","alg":"none"}`, `{"\u0061lg":"ES256","Alg":"none","typ":null}`, `{"alg":"ES256","crit":["b64"],"b64":false}`, `{"alg":"ES256","typ":"at+jwt","cty":"Application/JWT"}`,
		`{"alg":"ES256","typ":"","kid":"\ud83d"}`, `{"alg":"ES256","typ":"application/","kid":1}`, `[]`, ` {"alg":"ES256"} `, `{"alg":"ES256"}{}`,
	} {
		f.Add(encode(header), []byte(header))
	}
	f.Add("a.b.c.d.e", []byte{})
	f.Add("...", []byte{})
	f.Add("YQ.YR.YQ==", []byte{})
	f.Add("e30.00.", []byte{}) // stray bits in the payload
	f.Fuzz(func(t *testing.T, raw string, header []byte) {
		parts := strings.Split(raw, ".")
		good := len(parts) == 3
		for _, p := range parts[max(0, len(parts)-1):] {
			_, err := naive.Base64URL(p)
			good = good && err == nil
		}
		signed, signature, err := jose.Split(raw)
		require.Equal(t, good, err == nil, "%q", raw)
		if good {
			assert.Equal(t, parts[0]+"."+parts[1], signed)
			assert.Equal(t, parts[2], naiveBase64(string(signature)))
			compareHeader(t, signed)
			want, naiveErr := naive.Base64URL(parts[1])
			payload, err := jose.DecodePayload(signed)
			require.Equal(t, naiveErr == nil, err == nil, "%q", raw)
			if err == nil {
				assert.Equal(t, string(want), string(payload))
			} else {
				assert.Nil(t, payload)
			}
		}
		compareHeader(t, naiveBase64(string(header)))
	})
}

func naiveBase64(s string) string {
	// By hand: encoding/base64 is what the reader stands on.
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	var out strings.Builder
	bits, n := 0, 0
	for i := range len(s) {
		bits, n = bits<<8|int(s[i]), n+8
		for n >= 6 {
			n -= 6
			out.WriteByte(letters[bits>>n&63])
		}
		bits &= 1<<n - 1
	}
	if n > 0 {
		out.WriteByte(letters[bits<<(6-n)&63])
	}
	return out.String()
}

func compareHeader(t *testing.T, signed string) {
	t.Helper()
	encoded, _, _ := strings.Cut(signed, ".")
	want, good := naiveHeader(encoded)
	got, err := jose.ReadHeader(signed)
	require.Equal(t, good, err == nil, "%q: %v", encoded, err)
	if good {
		assert.Equal(t, want, got, "%q", encoded)
		typ := strings.TrimPrefix(naive.Lower(want.Type), "application/")
		if typ != "" && utf8.ValidString(typ) {
			assert.Equal(t, typ, jose.MediaType(want.Type))
		}
	}
}

func naiveHeader(encoded string) (h jose.Header, good bool) {
	data, err := naive.Base64URL(encoded)
	if err != nil {
		return h, false
	}
	members, err := naive.Object(data)
	if err != nil {
		return h, false
	}
	good = true
	text := func(name string) (s string, present bool) {
		v, present := members[name]
		s, ok := naive.String(v)
		good = good && (ok || !present)
		return s, present
	}
	h.Algorithm, _ = text("alg")
	h.Type, h.HasType = text("typ")
	h.KeyID, h.HasKeyID = text("kid")
	cty, _ := text("cty")
	nested := strings.EqualFold(cty, "JWT") || strings.EqualFold(cty, "application/jwt") // no letter past ASCII folds into these
	_, crit := members["crit"]
	_, b64 := members["b64"]
	return h, good && !crit && !b64 && !nested
}
