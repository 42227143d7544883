package vectors_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/jose"
)

// keysOf reads a JWK or each JWK of a set, without those that cannot be used.
func keysOf(t *testing.T, raw json.RawMessage) (keys []*jose.Key) {
	t.Helper()
	var set struct{ Keys []json.RawMessage }
	require.NoError(t, json.Unmarshal(raw, &set))
	if set.Keys == nil {
		set.Keys = []json.RawMessage{raw}
	}
	for _, one := range set.Keys {
		if key, err := jose.ParseKey(one, ""); err == nil {
			keys = append(keys, key)
		}
	}
	return keys
}

// verifyCompact reads a JWS in compact serialization with no more than jose has
// to offer, and tries it under the key of its kid and alg.
func verifyCompact(keys []*jose.Key, compact string) bool {
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return false
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = jose.DecodeBase64URL(part); err != nil {
			return false
		}
	}
	var header map[string]any
	if json.Unmarshal(decoded[0], &header) != nil {
		return false
	}
	name, _ := header["alg"].(string)
	alg, known := jose.Algorithm(name)
	for _, key := range keys {
		kid, _ := key.ID()
		if given, ok := header["kid"]; ok && given != kid {
			continue
		}
		if known && key.Algorithm() == alg && key.Verify([]byte(parts[0]+"."+parts[1]), decoded[2]) == nil {
			return true
		}
	}
	return false
}

// TestJSONWeb runs the vectors that are whole JWS with JWKs. A guard with the same
// keys must refuse all of them: none has the claims of an access token.
func TestJSONWeb(t *testing.T) {
	t.Parallel()
	const hmac = "HMAC: an issuer's keys are public here, and none is shared"
	c := newTally([]deviation{
		{reason: hmac, files: "json_web_*_test.json", comment: "hs256", count: 1},
		{reason: hmac, files: "json_web_*_test.json", comment: "Figure35", count: 2},
		{reason: hmac, files: "json_web_*_test.json", comment: "base64", count: 7},
		{reason: hmac, files: "json_web_*_test.json", comment: "jws_keyset", count: 2},
		{reason: hmac, files: "json_web_*_test.json", comment: "jws_aes", count: 1},
		{reason: hmac, files: "json_web_*_test.json", comment: "long_key", count: 3},
		{reason: "the JWK says PS256 and the signature, that of RFC 7520 §4.2, is of PS384", files: "json_web_signature_test.json", comment: "Figure20", count: 2},
		{reason: "the JWK says ES521, which is no algorithm: ES512 is meant", files: "json_web_signature_test.json", comment: "Figure27", count: 2},
		{reason: "encrypted tokens (JWE) are not read", files: "json_web_crypto_test.json", comment: "jwe_aes", count: 1},
		{reason: "encrypted tokens (JWE) are not read", files: "json_web_crypto_test.json", comment: "jwe_ec", count: 1},
		{reason: "encrypted tokens (JWE) are not read", files: "json_web_encryption_test.json", count: 65},
		{reason: "a key of the weak generator of CVE-2017-15361 is not recognised: an issuer that publishes one has to replace it",
			accepted: true, files: "json_web_*_test.json", comment: "rejectsKeyWithRocaVulnerability", count: 2},
	})
	for _, name := range files(t, "json_web_signature_test.json", "json_web_key_test.json", "json_web_crypto_test.json", "json_web_encryption_test.json") {
		for _, group := range open(t, name).TestGroups {
			raw := group.Public
			if raw == nil {
				raw = group.Private
			}
			keys := keysOf(t, raw)
			guard := newGuard(t, raw)
			for _, v := range group.Tests {
				token := compactOf(t, v)
				c.add(t, name, group, v, verifyCompact(keys, token))
				claims, err := guard.Verify(t.Context(), token)
				require.Error(t, err)
				require.True(t, claims.IsZero())
			}
		}
	}
	c.report(t)
}

// compactOf is the vector's text: a JSON serialization stays JSON.
func compactOf(t *testing.T, v vector) string {
	t.Helper()
	raw := v.JWS
	if raw == nil {
		raw = v.JWE
	}
	require.NotNil(t, raw)
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return string(raw)
	}
	return text
}

// newGuard returns a guard whose issuer publishes these keys beside one that can be used.
func newGuard(t *testing.T, raw json.RawMessage) *m2mauth.Guard {
	t.Helper()
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	require.NoError(t, json.Unmarshal(raw, &set))
	if set.Keys == nil {
		set.Keys = []json.RawMessage{raw}
	}
	set.Keys = append(set.Keys, json.RawMessage(`{"kty":"OKP","kid":"RFC 8037","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`))
	jwks, err := json.Marshal(set)
	require.NoError(t, err)
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer: "https://issuer.test", Audience: "https://shopping.api", JWKS: jwks,
		TokenTypes: []string{"at+jwt", "JWT", ""},
	})
	require.NoError(t, err)
	return guard
}
