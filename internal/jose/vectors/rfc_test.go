package vectors_test

import (
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/jose"
)

// rfcExamples is testdata/rfc.json: the JWKs and the JWS of the RFCs.
type rfcExamples struct {
	Keys []struct {
		Source    string
		Key       json.RawMessage
		Algorithm string // "" = not a key for us
		Reason    string // why it is none
	}
	JWS []struct {
		Source   string
		Key      map[string]any
		JWS      string
		Accepted bool
		Reason   string // why it is refused
	}
}

func readRFCs(t *testing.T) (examples rfcExamples) {
	t.Helper()
	content, err := os.ReadFile("testdata/rfc.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(content, &examples))
	return examples
}

func TestRFCKeys(t *testing.T) {
	t.Parallel()
	for _, example := range readRFCs(t).Keys {
		t.Run(example.Source, func(t *testing.T) {
			key, err := jose.ParseKey(example.Key, "RS256")
			if example.Algorithm == "" {
				require.NotEmpty(t, example.Reason)
				require.Error(t, err, example.Reason)
				assert.Empty(t, key.Algorithm())
				return
			}
			require.NoError(t, err)
			assert.Equal(t, example.Algorithm, key.Algorithm())
			assertCertifies(t, example.Key)
		})
	}
}

// assertCertifies holds that the key of an example with a certificate is that of
// the certificate: the example is the published one.
func assertCertifies(t *testing.T, raw json.RawMessage) {
	t.Helper()
	var members struct {
		N   string
		X5c []string
	}
	require.NoError(t, json.Unmarshal(raw, &members))
	for _, encoded := range members.X5c {
		der, err := base64.StdEncoding.DecodeString(encoded)
		require.NoError(t, err)
		certificate, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		assert.Equal(t, members.N, encode(certificate.PublicKey.(*rsa.PublicKey).N.Bytes()))
	}
}

// TestRFCSignatures checks each signature with the example's own key. An RFC
// prints private keys, which are refused as such, so their public part is used.
func TestRFCSignatures(t *testing.T) {
	t.Parallel()
	accepted := 0
	examples := readRFCs(t).JWS
	for _, example := range examples {
		whole, err := json.Marshal(example.Key)
		require.NoError(t, err)
		if _, private := example.Key["d"]; private {
			_, err = jose.ParseKey(whole, "RS256")
			require.Error(t, err, example.Source)
		}
		for _, name := range []string{"d", "p", "q", "dp", "dq", "qi"} {
			delete(example.Key, name)
		}
		public, err := json.Marshal(example.Key)
		require.NoError(t, err)
		good := verifiesSomehow(public, example.JWS)
		assert.Equal(t, example.Accepted, good, "%s %s", example.Source, example.Reason)
		assert.Equal(t, example.Accepted, example.Reason == "", "%s: what is refused is so for a reason", example.Source)
		assertHMAC(t, example.Source, example.Key, example.JWS)
		if good {
			accepted++
			changed := []byte(example.JWS)
			changed[len(changed)-20] ^= 1
			assert.False(t, verifiesSomehow(public, string(changed)), "%s with a bit changed", example.Source)
		}
	}
	t.Logf("%d examples: %d accepted, %d refused for their reasons", len(examples), accepted, len(examples)-accepted)
}

// verifiesSomehow takes an RSA key for each RSA algorithm in turn: the RFCs print
// keys without alg.
func verifiesSomehow(public json.RawMessage, compact string) bool {
	for _, alg := range rsaAlgorithms {
		if key, err := jose.ParseKey(public, alg); err == nil && verifyCompact([]*jose.Key{key}, compact) {
			return true
		}
	}
	return false
}

// assertHMAC holds that an example that is refused for its HS256 is the published
// one: its MAC is right.
func assertHMAC(t *testing.T, source string, key map[string]any, compact string) {
	t.Helper()
	parts := strings.Split(compact, ".")
	if key["kty"] != "oct" || parts[1] == "" { // detached
		return
	}
	secret, err := base64.RawURLEncoding.DecodeString(key["k"].(string))
	require.NoError(t, err)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(parts[0] + "." + parts[1]))
	assert.Equal(t, parts[2], encode(mac.Sum(nil)), source)
}
