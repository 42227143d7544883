package keyset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/naive"
)

// The readers of what an issuer, or an impostor, sends: each is compared with a naive
// reader of the same bytes, by the standard library.

// We accept a key set exactly if a naive reader does, except for duplicate members, and
// its keys are those that this reader finds.
func FuzzReadKeySet(f *testing.F) {
	key := func(jwk, kid string) string { return fmt.Sprintf(jwk, `"kid":`+strconv.Quote(kid)+",") }
	for _, seed := range []string{
		`{"keys":[` + key(p256JWK, "a") + `,` + key(ed25519JWK, "b") + `]}`,
		`{"keys":[` + key(unknownJWK, "a") + `,` + key(ed25519JWK, "a") + `],"more":{"keys":[]}}`,
		`{"keys":[],"keys":[` + key(p256JWK, "a") + `]}`,
		`{"Keys":[` + key(p256JWK, "a") + `],"k\u0065ys":[` + fmt.Sprintf(ed25519JWK, "") + `]}`,
		`{"keys":[{"kty":"EC","kty":"OKP"},null,1,[],"x",` + fmt.Sprintf(ed25519JWK, `"d":"AA",`) + `,` + fmt.Sprintf(ed25519JWK, `"use":"sig","alg":"Ed25519","key_ops":["verify"],`) + `]}`,
		`{"keys":[` + fmt.Sprintf(ed25519JWK, `"use":"enc",`) + `,` + fmt.Sprintf(ed25519JWK, `"use":"other",`) + `,` + fmt.Sprintf(ed25519JWK, "") + `]}`,
		`{"keys":[` + key(p256JWK, "a") + `],"deep":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`,
		`{"keys":[` + key(p256JWK, "a") + `],"too deep":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`,
		"{\"keys\":[" + key(p256JWK, "a") + "],\"\xff\":\"\\ud800\"}", `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`,
		"\ufeff" + `{"keys":[` + key(p256JWK, "a") + `,` + key(p256JWK, "a") + `,` + key(p256JWK, "b") + `,` + key(otherP256JWK, "a") + `]}`, "\ufeff\ufeff{\"keys\":[]}", " \ufeff{\"keys\":[]}",
		`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","d":null,"x5c":null,"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="},` + key(ed25519JWK, "a") + `]}`,
		`{"keys":{}}`, `{"keys":null}`, `[]`, `{"keys":[]}`, "{\"keys\":[" + key(ed25519JWK, "\xff") + "]}",
	} {
		f.Add([]byte(seed))
	}
	type published struct{ id, algorithm string }
	f.Fuzz(func(t *testing.T, body []byte) {
		raws, accepted := naiveKeySet(t, body)
		usable := 0
		var known []*naive.Key
		var want, found []published
		for _, raw := range raws {
			one, err := naive.ParseKey(raw, "RS256")
			if err != nil {
				continue
			}
			usable++
			if !slices.ContainsFunc(known, func(k *naive.Key) bool { return k.ID == one.ID && k.HasID == one.HasID && k.Same(one) }) {
				known, want = append(known, one), append(want, published{one.ID, one.Alg})
			}
		}
		s, err := Parse(body, "RS256", nil)
		require.Equal(t, accepted && usable > 0, err == nil, "%q: %v", body, err)
		if err != nil {
			assert.Nil(t, s)
			return
		}
		for _, key := range s.Keys {
			if id, _ := key.ID(); key.Algorithm() != "" {
				found = append(found, published{id, key.Algorithm()})
			}
		}
		assert.Equal(t, want, found, "%q", body)
		ambiguous := 0
		for _, o := range s.Oddities {
			if o.Kind == Ambiguous {
				ambiguous++
			}
		}
		assert.Len(t, raws, usable+len(s.Oddities)-ambiguous)

		for _, key := range s.Keys {
			id, has := key.ID()
			assert.Equal(t, has, slices.Contains(s.ByID[id], key))
			for _, alg := range []string{"ES256", "RS256", "EdDSA"} {
				one, _ := s.Find(id, has, alg)
				if one != nil {
					assert.Equal(t, alg, one.Algorithm())
				}
				var fitting []*naive.Key
				for _, k := range known {
					if k.Alg == alg && (!has || k.HasID && k.ID == id) && !slices.ContainsFunc(fitting, k.Same) {
						fitting = append(fitting, k)
					}
				}
				assert.Equal(t, len(fitting) == 1, one != nil, "%q: %q %s", body, id, alg)
			}
		}
	})
}

// naiveKeySet returns the elements of the one member named keys.
func naiveKeySet(t *testing.T, body []byte) (keys []json.RawMessage, accepted bool) {
	t.Helper()
	body = bytes.TrimPrefix(body, []byte{0xef, 0xbb, 0xbf})
	var set map[string]json.RawMessage // its names match exactly
	if json.Unmarshal(body, &set) != nil || set == nil || depthOf(t, body) > naive.MaxDepth || timesNamed(t, body, "keys") != 1 {
		return nil, false
	}
	if list := set["keys"]; list[0] != '[' || json.Unmarshal(list, &keys) != nil || len(keys) > 1000 {
		return nil, false
	}
	return keys, true
}

// depthOf returns how deep arrays and objects nest.
func depthOf(t *testing.T, data []byte) (deepest int) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(data))
	for depth := 0; ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return deepest
		}
		require.NoError(t, err)
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
			deepest = max(deepest, depth)
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
}

// timesNamed counts the members of an object with this name.
func timesNamed(t *testing.T, object []byte, name string) (n int) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(object))
	_, err := decoder.Token()
	require.NoError(t, err)
	for decoder.More() {
		found, err := decoder.Token()
		require.NoError(t, err)
		if found == name {
			n++
		}
		var value json.RawMessage
		require.NoError(t, decoder.Decode(&value))
	}
	return n
}

// A discovery document is accepted only if it is the issuer's own and names an address
// at the issuer's origin. If all of it is plain, it is accepted.
func FuzzDiscovery(f *testing.F) {
	for _, address := range []string{
		"https://issuer.test/oidc/jwks", "https://issuer.test:443/jwks", "HTTPS://ISSUER.test/", "http://issuer.test/jwks", "https://issuer.test.evil.test/jwks",
		"https://issuer.test@evil.test/jwks", "https://evil.test#@issuer.test/", "//issuer.test/jwks", "https://issuer.test:8443/jwks", "https://issuer.test\\@evil.test/", "/jwks",
		"https://user:secret@issuer.test/jwks", "https://@issuer.test/jwks", "https://issuer.test/a%2Fb?c#d", "https://issuer.test/%zz", "HTTP\u017f://issuer.test/",
		"https://[::1]/", "https://issuer.test:/jwks", "https://evil.test?https://issuer.test",
	} {
		f.Add(fmt.Appendf(nil, `{"issuer":"https://issuer.test/oidc","jwks_uri":%q}`, address))
	}
	f.Add([]byte(`{"issuer":"https://issuer.test/oidc","issuer":"x","jwks_uri":"https://issuer.test/"}`))
	f.Add([]byte(`{"Issuer":"https://issuer.test/oidc","JWKS_URI":"https://issuer.test/"}`))
	f.Add([]byte(`{"issuer":"https://issuer.test/oidc/","jwks_uri":"https://issuer.test/"}`))
	f.Add([]byte(`{"issuer":"https://issuer.test/oidc","jwks_uri":null}`))
	f.Add([]byte(`null`))
	s := Source{Issuer: "https://issuer.test/oidc"}
	issuer, err := url.Parse(s.Issuer)
	require.NoError(f, err)
	httpURI := regexp.MustCompile(`^(?i:http://issuer\.test)(?:|:|:80|:443)([/?#].*|)$`)
	own := regexp.MustCompile(`^https://issuer\.test(:(443)?)?([/?#]|$)`)
	const char = `([a-z0-9._~!$&'()*+,;=:@/-]|%[0-9a-f][0-9a-f])` // RFC 3986 §3.3
	plain := regexp.MustCompile(`^(https://issuer\.test(:(443)?)?|http://issuer\.test(:(80|443)?)?)(/` + char + `*)?(\?(` + char + `|\?)*)?(#(` + char + `|\?)*)?$`)
	f.Fuzz(func(t *testing.T, body []byte) {
		address, overHTTP, err := s.jwksURI(body, issuer)
		if document, naiveErr := naive.Object(body); naiveErr == nil {
			id, _ := naive.String(document["issuer"])
			uri, _ := naive.String(document["jwks_uri"])
			if id == "https://issuer.test/oidc" && plain.MatchString(naive.Lower(uri)) {
				require.NoError(t, err, "%q", body)
			}
		}
		if err != nil {
			assert.Empty(t, address)
			assert.Empty(t, overHTTP)
			return
		}
		require.True(t, utf8.Valid(body), "%q", body)
		var members map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(body, &members), "%q", body)
		id, ok := naive.String(members["issuer"])
		assert.True(t, ok && id == "https://issuer.test/oidc", "%q", body)
		uri, ok := naive.String(members["jwks_uri"])
		if strings.HasPrefix(naive.Lower(uri), "https:") {
			assert.True(t, ok && uri == address, "%q", body)
			assert.Empty(t, overHTTP, "%q", body)
		} else { // over https at the issuer itself, with the rest unchanged
			parts := httpURI.FindStringSubmatch(uri)
			require.NotNil(t, parts, "%q", body)
			rest, found := strings.CutPrefix(address, "https://issuer.test")
			want, err := url.Parse("https://issuer.test" + parts[1])
			require.True(t, found && err == nil, "%q: %s", body, address)
			assert.Equal(t, want.String(), "https://issuer.test"+rest, "%q", body)
			assert.NotEmpty(t, overHTTP, "%q", body)
			assert.NotContains(t, overHTTP, "?", "%q", body)
		}
		assert.Regexp(t, own, naive.Lower(address))
	})
}

// max-age is what a strict reader of RFC 9111 §5.2 finds, and never negative, whatever
// the header contains.
func FuzzCacheControl(f *testing.F) {
	for _, seed := range []string{
		"", "max-age=300", "max-age=5", "max-age=0", "public, max-age=300", "no-cache, max-age=0, must-revalidate", "MAX-AGE=\"90\"", "max-age=1,max-age=2", "max-age=-1",
		"max-age=99999999999999999999", "max-age", "max-age=3 00", " ,, max-age=61\t,", `private="x", max-age=301`, "max-age=+70", "s-maxage=100", "max-age=1e3", "max-age=61;x",
	} {
		f.Add(seed, "")
	}
	f.Add("max-age=300", "no-store")
	f.Add("max-age=300", "max-age=300")
	directive := regexp.MustCompile(`^[ \t]*([!#$%&'*+.^_|~0-9A-Za-z` + "`" + `-]+)(?:=([!#$%&'*+.^_|~0-9A-Za-z` + "`" + `-]+|"[0-9]*"))?[ \t]*$`)
	f.Fuzz(func(t *testing.T, one, two string) {
		h := http.Header{"Cache-Control": {one, two}}
		age := maxAge(h)
		assert.GreaterOrEqual(t, age, time.Duration(0))
		want, ages := time.Duration(0), 0
		for d := range strings.SplitSeq(one+","+two, ",") {
			if strings.Trim(d, " \t") == "" {
				continue // RFC 9110 §5.6.1.2 has recipients skip empty elements
			}
			m := directive.FindStringSubmatch(d)
			if m == nil {
				return // not valid by the grammar, or with a quoted comma
			}
			switch strings.ToLower(m[1]) {
			case "no-cache", "no-store":
				ages += 2
			case "max-age":
				ages++
				seconds := strings.Trim(m[2], `"`)
				if !regexp.MustCompile(`^[0-9]+$`).MatchString(seconds) {
					ages += 2
					continue
				}
				digits := strings.TrimLeft(seconds, "0")
				switch {
				case digits == "":
				default: // RFC 9111 §1.2.2 uses 2^31 for larger numbers, or another large one
					n, err := strconv.Atoi(digits)
					if err != nil || n > math.MaxInt32 {
						n = math.MaxInt32
					}
					want = time.Duration(n) * time.Second
				}
			}
		}
		if ages != 1 {
			want = 0
		}
		assert.Equal(t, want, age, "%q %q", one, two)
	})
}
