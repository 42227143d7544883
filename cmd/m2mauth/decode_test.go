package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// People paste what the token endpoint said.
func TestDecodeSaysThatAWholeResponseIsNoToken(t *testing.T) {
	t.Parallel()
	token := m2mauthtest.NewIssuer().Token("a")
	for _, input := range []string{`{"access_token":"` + token + `","token_type":"Bearer"}`, `"` + token + `"`} {
		status, stdout, stderr := call(t, input, nil, "decode")
		assert.Equal(t, 1, status, stderr)
		assert.Contains(t, stdout, "the value of access_token alone")
		assert.NotContains(t, stdout, "iss")
	}
}

func TestDecodeShowsHeaderClaimsAndTimesInWords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		token := issuer.Sign(m2mauthtest.Token{AppID: "billing", Audience: "https://api.example.com", Scopes: []string{"read:products"}})
		signature := token[strings.LastIndexByte(token, '.')+1:]
		for name, stdin := range map[string]string{
			"the token alone":       token,
			"a line":                token + "\r\n",
			"an Authorization":      "Bearer " + token,
			"and much space around": " \n\tbearer  " + token + "  \n\n",
		} {
			status, stdout, stderr := call(t, stdin, nil, "decode")
			assert.Zero(t, status, "%s: %s", name, stdout)
			assert.Empty(t, stderr, name)
			assert.Contains(t, stdout, `alg          "ES384"`, name)
			assert.Contains(t, stdout, `sub          "billing"`, name)
			assert.Contains(t, stdout, `exp          946688400  2000-01-01 01:00:00 UTC, expires in 60 minutes`, name)
			assert.Contains(t, stdout, `iat          946684800  2000-01-01 00:00:00 UTC, just now`, name)
			assert.Contains(t, stdout, "NOT VERIFIED", name)
			assert.NotContains(t, stdout, "odd", name)
			for i := range len(signature) - 8 {
				require.NotContains(t, stdout, signature[i:i+8], "a part of the signature")
			}
		}
		time.Sleep(time.Hour + 5*time.Minute)
		status, stdout, _ := call(t, token, nil, "decode")
		assert.Zero(t, status, "an expired token is not odd")
		assert.Contains(t, stdout, "expired 5 minutes ago")
		assert.Contains(t, stdout, "UTC, 65 minutes ago")
	})
}

func TestDecodeForScripts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		token := m2mauthtest.NewIssuer().Sign(m2mauthtest.Token{AppID: "billing", Audience: "https://api.example.com"})
		status, stdout, stderr := call(t, token, nil, "decode", "--json")
		assert.Zero(t, status)
		assert.Empty(t, stderr)
		var got struct {
			Header, Claims map[string]any
			Times          []moment
			Odd            []string
			Verified       *bool
		}
		require.NoError(t, json.Unmarshal([]byte(stdout), &got))
		assert.Equal(t, "at+jwt", got.Header["typ"])
		assert.Equal(t, "billing", got.Claims["client_id"])
		assert.Equal(t, []moment{
			{"iat", time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), "just now"},
			{"exp", time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC), "expires in 60 minutes"},
		}, got.Times)
		assert.Equal(t, []string{}, got.Odd)
		require.NotNil(t, got.Verified)
		assert.False(t, *got.Verified)
		assert.NotContains(t, stdout, token[strings.LastIndexByte(token, '.')+1:])
	})
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// An odd token is shown as far as it goes. What would be in the place of a signature is not.
func TestDecodeSaysWhatIsOdd(t *testing.T) {
	t.Parallel()
	const header = `{"alg":"ES256","typ":"at+jwt"}`
	const claims = `{"iss":"https://i.example","aud":"https://api.example.com","exp":4102444800}`
	token := func(header, claims string) string { return encode(header) + "." + encode(claims) + ".SECRETSIG" }
	for name, test := range map[string]struct {
		token string
		odd   []string // each in a line of its own
		shown []string
	}{
		"opaque":         {"opaque-access-token_123", []string{"opaque", "resource parameter"}, nil},
		"empty":          {"  \n", []string{"empty"}, nil},
		"cut off":        {token(header, claims)[:30], []string{"cut off", "strict JSON object"}, []string{`"ES256"`}},
		"two parts":      {encode(header) + "." + encode(claims), []string{"three parts"}, []string{`"ES256"`, `"https://i.example"`}},
		"no claims":      {encode(header) + ".SECRETSIG", []string{"three parts", "payload is not"}, []string{`"ES256"`}},
		"detached":       {encode(header) + "..SECRETSIG", []string{"payload is not a JSON object"}, []string{`"ES256"`}},
		"four parts":     {token(header, claims) + ".SECRETSIG", []string{"three parts"}, []string{`"https://i.example"`}},
		"encrypted":      {encode(`{"alg":"dir","enc":"A256GCM"}`) + "." + encode(`{"key":"SECRETSIG"}`) + ".SECRETSIG.SECRETSIG.SECRETSIG", []string{"encrypted", "alg is none that m2mauth verifies"}, []string{`"A256GCM"`}},
		"wrapped":        {strings.Replace(token(header, claims), ".", ".\r\n  ", 1), []string{"white space is within"}, []string{`"https://i.example"`}},
		"padded":         {encode(header) + "." + base64.URLEncoding.EncodeToString([]byte(claims+" ")) + ".SECRETSIG", []string{"payload is not strict base64url"}, []string{`"https://i.example"`}},
		"no base64url":   {"eyJ!." + encode(claims) + ".SECRETSIG", []string{"header is not strict base64url"}, []string{`"https://i.example"`}},
		"bad signature":  {strings.Replace(token(header, claims), "SECRETSIG", "SECRETSIG===", 1), []string{"signature is not strict base64url"}, []string{`"https://i.example"`}},
		"alg none":       {token(`{"alg":"none","typ":"at+jwt"}`, claims), []string{"alg is none that m2mauth verifies"}, []string{`"none"`}},
		"crit":           {token(`{"alg":"ES256","crit":["x"],"x":1}`, claims), []string{"demands an extension"}, []string{`["x"]`}},
		"array":          {token(header, `["iss"]`), []string{"payload is not a JSON object"}, []string{`"ES256"`}},
		"doubled claim":  {token(header, `{"iss":"https://i.example","iss":"https://j.example","aud":"a","exp":4102444800}`), []string{`"iss" twice`, "strict JSON"}, []string{`"https://i.example"`}},
		"doubled within": {token(header, `{"iss":"https://i.example","aud":"a","exp":4102444800,"x":{"a":1,"a":2}}`), []string{"strict JSON"}, []string{`{"a":1,"a":2}`}},
		"broken JSON":    {token(header, `{"iss":"https://i.example","aud":`), []string{"strict JSON", "lacks the claim aud", "lacks the claim exp"}, []string{`"https://i.example"`}},
		"not UTF-8":      {token(header, "{\"iss\":\"a\xffb\",\"aud\":\"a\",\"exp\":4102444800}"), []string{"strict JSON"}, []string{"\"a\uFFFDb\""}},
		"no exp":         {token(header, `{"iss":"i","aud":["a"]}`), []string{"lacks the claim exp"}, []string{`["a"]`}},
		"exp as text":    {token(header, `{"iss":"i","aud":"a","exp":"4102444800"}`), []string{"claim exp is not a number"}, []string{`"4102444800"`}},
		"no iss, no aud": {token(header, `{"exp":4102444800}`), []string{"lacks the claim iss", "lacks the claim aud"}, nil},
		"iss as number":  {token(header, `{"iss":1,"aud":2,"exp":4102444800}`), []string{"claim iss is not", "claim aud is not"}, nil},
		"not yet valid":  {token(header, `{"iss":"i","aud":"a","exp":4102444800,"nbf":4102444700,"iat":4102444700}`), []string{"not valid yet", "issued in the future"}, []string{"valid in "}},
		"far future":     {token(header, `{"iss":"i","aud":"a","exp":253402300799,"nbf":0,"iat":1e12}`), []string{"claim iat is not a number"}, []string{"expires in 7", "valid since 5"}},
		"huge":           {token(header, strings.TrimSuffix(claims, "}")+`,"x":"`+strings.Repeat("x", 8<<10)+`"}`), []string{"MaxTokenBytes"}, []string{`"https://i.example"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := call(t, test.token, nil, "decode")
			assert.Equal(t, 1, status)
			assert.Empty(t, stderr, "it is all on standard output")
			shown, odd, found := strings.Cut(stdout, "odd\n")
			require.True(t, found, stdout)
			for _, words := range test.odd {
				assert.Contains(t, odd, words)
			}
			for _, words := range test.shown {
				assert.Contains(t, shown, words)
			}
			assert.NotContains(t, stdout, "SECRETSIG")
			assert.NotContains(t, stdout, "opaque-access")

			status, stdout, _ = call(t, test.token, nil, "decode", "--json")
			assert.Equal(t, 1, status)
			var report struct{ Odd []string }
			require.NoError(t, json.Unmarshal([]byte(stdout), &report))
			assert.NotEmpty(t, report.Odd)
			for _, what := range report.Odd {
				assert.Contains(t, odd, "  - "+what+"\n", "both say the same")
			}
			assert.NotContains(t, stdout, "SECRETSIG")
		})
	}
}

// A token may be made to command the terminal of who looks at it, or to look like another.
func TestDecodeEscapesWhatATerminalObeys(t *testing.T) {
	t.Parallel()
	claims := "{\"iss\":\"\x7f\u009b31m\u202eb\u200b\",\"\\n\\nodd\\u001b[2J\":\"\\u001b]0;x\\u0007\",\"aud\":\"\U000e0001\",\"exp\":4102444800}"
	for _, args := range [][]string{{"decode"}, {"decode", "--json"}} {
		status, stdout, _ := call(t, encode(`{"alg":"ES256"}`)+"."+encode(claims)+".c2ln", nil, args...)
		assert.Zero(t, status)
		assert.NotRegexp(t, `[^\n\x20-\x7e]`, stdout)
		assert.Contains(t, stdout, `\u009b31m\u202eb\u200b`)
		assert.Contains(t, stdout, `\udb40\udc01`)
		assert.NotContains(t, stdout, "\nodd", "a line that the token wrote")
		if len(args) > 1 {
			var got struct{ Claims map[string]any }
			require.NoError(t, json.Unmarshal([]byte(stdout), &got))
			assert.Equal(t, "\x7f\u009b31m\u202eb\u200b", got.Claims["iss"], "escapes in JSON mean the same")
		}
	}
}

// Arguments are kept by the history of a shell, and what is written by a log.
func TestAnArgumentThatMayBeASecretIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"decode", "eyJhbGciOiJub25lIn0.e30."}, {"eyJhbGciOiJub25lIn0.e30."}, {"decode", "--json", "8pXyR2mQ7tLk4vNw9sZb3cHf"}, {"list", "--redis-password=eyJhbGciOiJub25lIn0.e30."}, {"doctor", "--timeout=eyJhbGciOiJub25lIn0.e30."}} {
		status, stdout, stderr := call(t, "", nil, args...)
		assert.Equal(t, 2, status)
		assert.Empty(t, stdout)
		assert.NotContains(t, stderr, "eyJ")
		assert.NotContains(t, stderr, "8pX")
	}
	_, _, stderr := call(t, "", nil, "decode", "eyJhbGciOiJub25lIn0.e30.")
	assert.Contains(t, stderr, "standard input")
}

func TestDecodeReadsNoMoreThanAToken(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := call(t, strings.Repeat("x", 1<<20+1), nil, "decode")
	assert.Equal(t, 2, status)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "it is no token")
}

func TestTimesInWords(t *testing.T) {
	t.Parallel()
	now := time.Unix(4_000_000_000, 0)
	for seconds, want := range map[int64]string{
		0: "expired just now", 1: "expired 1 second ago", -1: "expires in 1 second", 119: "expired 119 seconds ago", 120: "expired 2 minutes ago",
		-3600: "expires in 60 minutes", 7200: "expired 2 hours ago", 2 * 86400: "expired 2 days ago", -365 * 2 * 86400: "expires in 2 years",
	} {
		assert.Equal(t, want, words("exp", now.Add(-time.Duration(seconds)*time.Second), now))
	}
	assert.Equal(t, "valid since 2 minutes ago", words("nbf", now.Add(-2*time.Minute), now))
	assert.Equal(t, "valid in 2 minutes", words("nbf", now.Add(2*time.Minute), now))
	assert.Equal(t, "2 minutes ago", words("iat", now.Add(-2*time.Minute), now))
}

func FuzzDecode(f *testing.F) {
	f.Add("Bearer " + m2mauthtest.NewIssuer().Sign(m2mauthtest.Token{Audience: "a"}))
	f.Add(encode(`{"alg":"none"}`) + "." + encode("{\"iss\":\"\x1b\",\"iss\":[{\"a\":1,\"a\":2}],\"exp\":-1}") + ".")
	f.Fuzz(func(t *testing.T, input string) {
		d := decode(bare(input), time.Now())
		var text, script bytes.Buffer
		require.NoError(t, d.writeText(&text))
		require.NoError(t, d.writeJSON(&script))
		for _, shown := range []string{printable(text.String()), script.String()} {
			require.False(t, strings.ContainsFunc(shown, unprintable), "%q", shown)
		}
		require.True(t, json.Valid(script.Bytes()), "%q", script.String())
		if d.Header == nil {
			require.NotEmpty(t, d.Odd)
		}
	})
}
