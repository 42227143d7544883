package m2mauth_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestBadDocumentsAreRefusedAsAWhole(t *testing.T) {
	write := func(status int, body string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	redirect := func(to string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, to, http.StatusFound)
		}
	}
	forever := func(pause time.Duration, chunk string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, chunk); err != nil {
					return
				}
				time.Sleep(pause)
			}
		}
	}
	key := `{"kty":"EC","kid":"%d","crv":"P-384","alg":"ES384","x":"AA","y":"AA"}`
	var many strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&many, key+",", i)
	}
	for name, test := range map[string]struct {
		answer    func(w http.ResponseWriter, r *http.Request, next http.Handler)
		discovery bool // of the discovery document, and not of the key set
		perTry    int  // requests that one attempt may cost; 0 = 1
	}{
		"HTML with 200":       {answer: write(200, "<!doctype html><title>Welcome</title>")},
		"204":                 {answer: write(204, "")},
		"an empty body":       {answer: write(200, "")},
		"401":                 {answer: write(401, `{"keys":[]}`)},
		"403 with HTML":       {answer: write(403, "<html>")},
		"404":                 {answer: write(404, "")},
		"500":                 {answer: write(500, "")},
		"truncated JSON":      {answer: write(200, `{"keys":[{"kty":"EC","kid":"a`)},
		"a broken connection": {answer: func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }},
		"a body that breaks off": {answer: func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			_, _ = io.WriteString(w, `{"keys"`)
			panic(http.ErrAbortHandler)
		}},
		"something after the document": {answer: write(200, `{"keys":[]} {}`)},
		"null":                         {answer: write(200, "null")},
		"an array":                     {answer: write(200, "[]")},
		"no keys":                      {answer: write(200, "{}")},
		"empty keys":                   {answer: write(200, `{"keys":[]}`)},
		"keys that is null":            {answer: write(200, `{"keys":null}`)},
		"keys that is no array":        {answer: write(200, `{"keys":{"kty":"EC"}}`)},
		"keys twice":                   {answer: write(200, `{"keys":[],"keys":[]}`)},
		"nested too deep":              {answer: write(200, `{"keys":[`+strings.Repeat("[", 100_000))},
		"10,000 keys":                  {answer: write(200, `{"keys":[`+strings.TrimSuffix(many.String(), ",")+`]}`)},
		"over 1 MiB":                   {answer: write(200, strings.Repeat(" ", 1<<20)+`{"keys":[]}`)},
		"an endless body":              {answer: forever(0, strings.Repeat(" ", 1<<16))},
		"a body that trickles":         {answer: forever(time.Second, " ")},
		"an answer that never comes":   {answer: func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }},
		"an answer after 6 seconds": {answer: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			time.Sleep(6 * time.Second)
			next.ServeHTTP(w, r)
		}},
		"redirect to another origin": {answer: redirect("https://evil.test/oidc/jwks")},
		"redirect to another port":   {answer: redirect("https://issuer.test:8443/oidc/jwks")},
		"redirect to http":           {answer: redirect("http://issuer.test/oidc/jwks")},
		"redirect in a loop":         {answer: redirect("/oidc/jwks"), perTry: 4},
		"redirect to nowhere":        {answer: write(302, "")},

		"discovery of another issuer":                   {answer: write(200, `{"issuer":"https://issuer.test/oidc/","jwks_uri":"https://issuer.test/oidc/jwks"}`), discovery: true},
		"discovery without an issuer":                   {answer: write(200, `{"jwks_uri":"https://issuer.test/oidc/jwks"}`), discovery: true},
		"discovery with two issuers":                    {answer: write(200, `{"issuer":"https://issuer.test/oidc","issuer":"https://issuer.test/oidc","jwks_uri":"https://issuer.test/oidc/jwks"}`), discovery: true},
		"discovery without jwks_uri":                    {answer: write(200, `{"issuer":"https://issuer.test/oidc"}`), discovery: true},
		"discovery with a relative jwks_uri":            {answer: write(200, `{"issuer":"https://issuer.test/oidc","jwks_uri":"/oidc/jwks"}`), discovery: true},
		"discovery with a number for jwks_uri":          {answer: write(200, `{"issuer":"https://issuer.test/oidc","jwks_uri":1}`), discovery: true},
		"jwks_uri on another host":                      {answer: write(200, `{"issuer":"https://issuer.test/oidc","jwks_uri":"https://evil.test/oidc/jwks"}`), discovery: true},
		"jwks_uri on another port":                      {answer: write(200, `{"issuer":"https://issuer.test/oidc","jwks_uri":"https://issuer.test:444/oidc/jwks"}`), discovery: true},
		"jwks_uri over http on another port":            {answer: write(200, `{"issuer":"https://issuer.test/oidc","jwks_uri":"http://issuer.test:8080/oidc/jwks"}`), discovery: true},
		"jwks_uri with the issuer before an @":          {answer: write(200, `{"issuer":"https://issuer.test/oidc","jwks_uri":"https://issuer.test@evil.test/oidc/jwks"}`), discovery: true},
		"HTML with 200 for discovery":                   {answer: write(200, "<html>"), discovery: true, perTry: 3},
		"500 for discovery":                             {answer: write(500, ""), discovery: true},
		"an endless discovery document":                 {answer: forever(0, strings.Repeat(" ", 1<<16)), discovery: true},
		"a discovery document that redirects elsewhere": {answer: redirect("https://evil.test/oidc/.well-known/openid-configuration"), discovery: true},
	} {
		path := "/oidc/jwks"
		if test.discovery {
			path = "/.well-known/"
		}
		perTry := max(test.perTry, 1)

		t.Run(name+", at start", func(t *testing.T) {
			growth := testguard.KeysMemory(t)
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				testguard.KeysHookAt(issuer, path, test.answer)
				g := testguard.KeysGuard(t, issuer)
				token := testguard.KeysToken(issuer, "")
				waited := testguard.KeysEventually(t, g, token, 503)
				assert.LessOrEqual(t, waited, testguard.KeysTimeout)
				first := issuer.Fetches()
				assert.LessOrEqual(t, first.JWKS, perTry)
				assert.LessOrEqual(t, first.Discovery, perTry)
				testguard.KeysAtOnce(t, g, token, 503)
				assert.Equal(t, first, issuer.Fetches(), "no fetch while the backoff runs")
				assert.NotEmpty(t, g.Keys().LastError)
				assert.Less(t, len(g.Keys().LastError), 2000, "an error that can be logged")
				for range 59 {
					time.Sleep(time.Second)
					testguard.KeysEventually(t, g, token, 503)
				}
				assert.LessOrEqual(t, issuer.Fetches().JWKS, 9*perTry)
				assert.LessOrEqual(t, issuer.Fetches().Discovery, 9*perTry)
				issuer.Intercept(nil)
				time.Sleep(testguard.KeysBackoff)
				testguard.KeysAtOnce(t, g, token, 200)
			})
			assert.Less(t, growth(), int64(4<<20))
		})
		if test.discovery {
			continue
		}
		t.Run(name+", after good keys", func(t *testing.T) {
			growth := testguard.KeysMemory(t)
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := testguard.KeysGuard(t, issuer)
				token := testguard.KeysToken(issuer, "")
				testguard.KeysAtOnce(t, g, token, 200)
				begin := time.Now()
				testguard.KeysHookAt(issuer, path, test.answer)
				for time.Since(begin) < testguard.KeysTTL+10*time.Minute {
					testguard.KeysAtOnce(t, g, token, 200, time.Since(begin))
					time.Sleep(15 * time.Second)
				}
				assert.Equal(t, m2mauth.KeysStale, g.Keys().State)
				assert.InDelta(t, g.Keys().Failures, g.Keys().Fetches-1, 1, "one may be under way")
				assert.LessOrEqual(t, issuer.Fetches().JWKS, 1+(5+13*2)*perTry)
				issuer.Intercept(nil)
				time.Sleep(testguard.KeysBackoff)
				testguard.KeysAtOnce(t, g, token, 200)
				synctest.Wait()
				assert.Equal(t, m2mauth.KeysFresh, g.Keys().State)
			})
			assert.Less(t, growth(), int64(4<<20))
		})
	}
}

func TestKeysThatAreOddDoNotSpoilTheOthers(t *testing.T) {
	const (
		zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
		p256x = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"
		p256y = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
	)
	modulus := func(bits int) string {
		n := make([]byte, bits/8)
		for i := range n {
			n[i] = 0xff
		}
		return base64.RawURLEncoding.EncodeToString(n)
	}
	ec := func(more string) string {
		return fmt.Sprintf(`{"kty":"EC","kid":"odd","crv":"P-256","x":%q,"y":%q%s}`, p256x, p256y, more)
	}
	rsa := func(bits int, e string) string {
		return fmt.Sprintf(`{"kty":"RSA","kid":"odd","n":%q,"e":%q}`, modulus(bits), e)
	}
	for name, test := range map[string]struct {
		jwk   string
		noKID bool // the kid cannot be read
		quiet bool // nothing is wrong with it
	}{
		"use enc":                          {jwk: ec(`,"use":"enc"`), quiet: true},
		"use that is a number":             {jwk: ec(`,"use":1`)},
		"key_ops without verify":           {jwk: ec(`,"key_ops":["encrypt"]`)},
		"key_ops that is no array":         {jwk: ec(`,"key_ops":"verify"`)},
		"a private member":                 {jwk: ec(`,"d":"` + zeros + `"`)},
		"an alg that does not fit":         {jwk: ec(`,"alg":"ES384"`)},
		"an alg unknown":                   {jwk: ec(`,"alg":"ES256K"`)},
		"a symmetric key":                  {jwk: `{"kty":"oct","kid":"odd","alg":"HS256","k":"` + zeros + `"}`},
		"RSA of 1024 bits":                 {jwk: rsa(1024, "AQAB")},
		"RSA of 16,384 bits":               {jwk: rsa(16384, "AQAB")},
		"RSA with exponent 1":              {jwk: rsa(2048, "AQ")},
		"RSA with an even exponent":        {jwk: rsa(2048, "AQAA")},
		"RSA with a huge exponent":         {jwk: rsa(2048, "AQAAAAAAAAAB")},
		"RSA without n":                    {jwk: `{"kty":"RSA","kid":"odd","e":"AQAB"}`},
		"an EC point off its curve":        {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":"` + p256x + `","y":"` + p256x + `"}`},
		"the EC point at infinity":         {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":"` + zeros + `","y":"` + zeros + `"}`},
		"short EC coordinates":             {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":"AQ","y":"AQ"}`},
		"long EC coordinates":              {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":"AAAA` + p256x + `","y":"AAAA` + p256y + `"}`},
		"EC coordinates padded too much":   {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":"` + p256x + `==","y":"` + p256y + `=="}`},
		"P-256 coordinates called P-384":   {jwk: `{"kty":"EC","kid":"odd","crv":"P-384","x":"` + p256x + `","y":"` + p256y + `"}`},
		"secp256k1":                        {jwk: `{"kty":"EC","kid":"odd","crv":"secp256k1","x":"` + p256x + `","y":"` + p256y + `"}`},
		"X25519":                           {jwk: `{"kty":"OKP","kid":"odd","crv":"X25519","x":"` + zeros + `"}`},
		"Ed448":                            {jwk: `{"kty":"OKP","kid":"odd","crv":"Ed448","x":"` + zeros + `"}`},
		"an Ed25519 key of three bytes":    {jwk: `{"kty":"OKP","kid":"odd","crv":"Ed25519","x":"AAAA"}`},
		"ML-DSA":                           {jwk: `{"kty":"AKP","kid":"odd","alg":"ML-DSA-44","pub":"` + modulus(8*1312) + `"}`},
		"no kty":                           {jwk: `{"kid":"odd"}`},
		"kty that is a number":             {jwk: `{"kty":3,"kid":"odd"}`},
		"a kid that is a number":           {jwk: `{"kty":"EC","kid":7,"crv":"P-256","x":"` + p256x + `","y":"` + p256y + `"}`, noKID: true},
		"a doubled member":                 {jwk: ec(`,"kty":"EC"`), noKID: true},
		"a string that is no UTF-8":        {jwk: ec(",\"a\":\"\xff\""), noKID: true},
		"null":                             {jwk: `null`, noKID: true},
		"a string":                         {jwk: `"odd"`, noKID: true},
		"a number":                         {jwk: `1`, noKID: true},
		"an array":                         {jwk: `[]`, noKID: true},
		"an empty object":                  {jwk: `{}`, noKID: true},
		"members in another letter case":   {jwk: `{"KTY":"EC","KID":"odd","CRV":"P-256","X":"` + p256x + `","Y":"` + p256y + `"}`, noKID: true},
		"a coordinate that is a number":    {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":1,"y":"` + p256y + `"}`},
		"a coordinate with a line break":   {jwk: `{"kty":"EC","kid":"odd","crv":"P-256","x":"` + p256x + `\n","y":"` + p256y + `"}`},
		"RSA with alg of another key type": {jwk: `{"kty":"RSA","kid":"odd","alg":"ES256","n":"` + modulus(2048) + `","e":"AQAB"}`},
	} {
		t.Run(name, func(t *testing.T) {
			testguard.KeysBubble(t, func(t *testing.T) {
				var log testguard.KeysLog
				issuer := m2mauthtest.NewIssuer()
				issuer.PublishJWK([]byte(test.jwk))
				g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
				testguard.KeysAtOnce(t, g, testguard.KeysToken(issuer, ""), 200)
				level := slog.LevelWarn
				if test.quiet {
					level = slog.LevelDebug
					assert.Zero(t, log.Count(slog.LevelWarn))
				}
				assert.Equal(t, 1, log.Count(level), "skipped and logged")
				for _, alg := range []string{"ES256", "ES384", "RS256", "EdDSA"} {
					odd := issuer.Sign(m2mauthtest.Token{Audience: testguard.KeysAPI, Header: map[string]any{"kid": "odd", "alg": alg}})
					testguard.KeysAtOnce(t, g, odd, 401)
				}
				want := 1
				if test.noKID {
					want = 2
				}
				assert.Equal(t, want, issuer.Fetches().JWKS, "a key ID that is published causes no fetch")

				// Alone it makes no key set.
				alone := testguard.KeysGuard(t, issuer)
				testguard.KeysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
					fmt.Fprintf(w, `{"keys":[%s]}`, test.jwk)
				})
				testguard.KeysAtOnce(t, alone, testguard.KeysToken(issuer, ""), 503)
			})
		})
	}
}

func TestAHundredOddKeysAreLoggedInAFewLines(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		var log testguard.KeysLog
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		for i := range 900 {
			issuer.PublishJWK(fmt.Appendf(nil, `{"kty":"AKP","kid":"%d-%s"}`, i, strings.Repeat("x", 500)))
		}
		testguard.KeysAtOnce(t, g, testguard.KeysToken(issuer, ""), 200)
		assert.LessOrEqual(t, log.Count(slog.LevelWarn), 20)

		issuer.Withdraw(issuer.KeyIDs()[0])
		alone := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		testguard.KeysAtOnce(t, alone, testguard.KeysToken(issuer, ""), 503)
		assert.Less(t, len(alone.Keys().LastError), 8<<10)
	})
}

func TestKeysWithOneKeyID(t *testing.T) {
	jwkOf := func(t *testing.T, issuer *m2mauthtest.Issuer) string {
		r := httptest.NewRequest("GET", issuer.JWKSURL(), nil)
		w := httptest.NewRecorder()
		issuer.ServeHTTP(w, r)
		list, found := strings.CutPrefix(w.Body.String(), `{"keys":[`)
		require.True(t, found)
		return strings.TrimSuffix(list, `]}`)
	}
	for name, test := range map[string]struct {
		alg  string
		want int
	}{
		"of different types: the one that fits": {"EdDSA", 200},
		"of the same type: none":                {"ES384", 401},
	} {
		t.Run(name, func(t *testing.T) {
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer, other := m2mauthtest.NewIssuer(), m2mauthtest.NewIssuer()
				kid := issuer.KeyIDs()[0]
				old := other.KeyIDs()[0]
				if test.alg != "ES384" {
					other.Rotate(test.alg)
					other.Withdraw(old)
				}
				jwk := strings.Replace(jwkOf(t, other), other.KeyIDs()[0], kid, 1)
				issuer.PublishJWK([]byte(jwk))
				g := testguard.KeysGuard(t, issuer)
				testguard.KeysAtOnce(t, g, testguard.KeysToken(issuer, ""), test.want)
				assert.Equal(t, 1, issuer.Fetches().JWKS)
			})
		})
	}
}

func TestParametersThatContradictEachOtherAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*m2mauth.Config)
		names  string
	}{
		"keys given and fetched":                    {func(c *m2mauth.Config) { c.JWKS, c.JWKSURL = []byte("{}"), c.Issuer }, "Config.JWKS"},
		"a fetch may take more than a tenth of TTL": {func(c *m2mauth.Config) { c.KeyTTL, c.FetchTimeout = time.Minute, 7*time.Second }, "Config.FetchTimeout"},
		"the same against the default TTL":          {func(c *m2mauth.Config) { c.FetchTimeout = 61 * time.Second }, "Config.FetchTimeout"},
		"a negative fetch timeout":                  {func(c *m2mauth.Config) { c.FetchTimeout = -1 }, "Config.FetchTimeout"},
		"a TTL under a second":                      {func(c *m2mauth.Config) { c.KeyTTL = time.Millisecond }, "Config.KeyTTL"},
		"a negative TTL":                            {func(c *m2mauth.Config) { c.KeyTTL = -time.Minute }, "Config.KeyTTL"},
		"a TTL over a day":                          {func(c *m2mauth.Config) { c.KeyTTL = 25 * time.Hour }, "Config.KeyTTL"},
		"stale for over a week":                     {func(c *m2mauth.Config) { c.KeyStaleFor = 8 * 24 * time.Hour }, "Config.KeyStaleFor"},
		"plain http":                                {func(c *m2mauth.Config) { c.JWKSURL = "http://logto/oidc/jwks" }, "Config.JWKSURL"},
		"not a URL":                                 {func(c *m2mauth.Config) { c.JWKSURL = "logto/oidc/jwks" }, "Config.JWKSURL"},
		"another scheme":                            {func(c *m2mauth.Config) { c.JWKSURL = "file:///etc/jwks" }, "Config.JWKSURL"},
		"a password in the URL":                     {func(c *m2mauth.Config) { c.JWKSURL = "https://user:secret@logto/jwks" }, "Config.JWKSURL"},
	} {
		t.Run(name, func(t *testing.T) {
			c := m2mauthtest.NewIssuer().Config(testguard.KeysAPI)
			test.change(&c)
			_, err := m2mauth.New(c)
			require.ErrorContains(t, err, test.names)
			assert.NotContains(t, err.Error(), "secret")
		})
	}
}

// keysOf returns the issuer's key set as it is published.
func keysOf(t *testing.T, issuer *m2mauthtest.Issuer) string {
	t.Helper()
	w := httptest.NewRecorder()
	issuer.ServeHTTP(w, httptest.NewRequest("GET", issuer.JWKSURL(), nil))
	require.Equal(t, 200, w.Code)
	return w.Body.String()
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, text)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.String()
}

// Some servers compress whether they are asked to or not, and some transports
// leave it to their user to undo that.
func TestKeysMayBeCompressed(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer() // only signs
	token, keys := testguard.KeysToken(issuer, ""), keysOf(t, issuer)
	zipped := gzipped(t, keys)
	for name, test := range map[string]struct {
		codings []string
		body    string
		want    int
		reason  string
	}{
		"as it is":                         {nil, keys, 200, ""},
		"identity":                         {[]string{"identity"}, keys, 200, ""},
		"gzip":                             {[]string{"gzip"}, zipped, 200, ""},
		"gzip in other letters":            {[]string{"GZip"}, zipped, 200, ""},
		"gzip by its older name":           {[]string{"x-gzip"}, zipped, 200, ""},
		"gzip in two members":              {[]string{"gzip"}, gzipped(t, keys[:40]) + gzipped(t, keys[40:]), 200, ""},
		"gzip that is none":                {[]string{"gzip"}, keys, 503, "gzip"},
		"gzip that is cut":                 {[]string{"gzip"}, zipped[:len(zipped)-12], 503, "unexpected EOF"},
		"gzip that is empty":               {[]string{"gzip"}, "", 503, "EOF"},
		"gzip with a wrong sum":            {[]string{"gzip"}, zipped[:len(zipped)-8] + "\x00\x00\x00\x00" + zipped[len(zipped)-4:], 503, "gzip: invalid checksum"},
		"gzip that is over 1 MiB unpacked": {[]string{"gzip"}, gzipped(t, strings.Repeat(" ", 1<<20)+keys), 503, "larger than 1 MiB"},
		"gzip without a word about it":     {nil, zipped, 503, "not a JSON Web Key Set"},
		"another coding":                   {[]string{"br"}, "\x0b", 503, "content coding br"},
		"another coding after gzip":        {[]string{"gzip, zstd"}, zipped, 503, "content coding gzip, zstd"},
		"a coding to break the log":        {[]string{"x\u0085level=ERROR"}, keys, 503, `content coding "x\u0085level=ERROR"`},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, coding := range test.codings {
				w.Header().Add("Content-Encoding", coding)
			}
			_, _ = io.WriteString(w, test.body)
		}))
		t.Cleanup(server.Close)
		for client, transport := range map[string]http.RoundTripper{
			"the guard's own client":        nil,
			"a user's client":               &http.Transport{DisableKeepAlives: true},
			"a user's that decodes nothing": &http.Transport{DisableKeepAlives: true, DisableCompression: true},
			"a user's that asks by itself":  asking{&http.Transport{DisableKeepAlives: true}},
		} {
			t.Run(name+", with "+client, func(t *testing.T) {
				t.Parallel()
				g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) {
					c.JWKSURL, c.HTTPClient = server.URL+"/jwks", nil
					if transport != nil {
						c.HTTPClient = &http.Client{Transport: transport}
					}
				})
				testguard.KeysEventually(t, g, token, test.want)
				if test.reason != "" {
					assert.Contains(t, g.Keys().LastError, test.reason)
				}
			})
		}
	}
}

// asking sets Accept-Encoding itself, whereupon Go's transport decodes nothing.
type asking struct{ http.RoundTripper }

func (a asking) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Accept-Encoding", "gzip, br")
	return a.RoundTripper.RoundTrip(r)
}

// Logto answers 304 only where the request does not say no-cache, which the kit's
// issuer has from it.
func TestARefreshCostsTheIssuerNoKeySet(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer)
		token := testguard.KeysToken(issuer, "")
		var answers []int
		testguard.KeysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			answers = append(answers, rec.Code)
			for name, values := range rec.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
		})
		for range 3 {
			require.NoError(t, g.Warm(t.Context()))
			testguard.KeysAtOnce(t, g, token, 200)
			time.Sleep(testguard.KeysTTL)
		}
		assert.Equal(t, []int{200, 304, 304}, answers)
	})
}

// A cache between the guard and its issuer that has the keys of before a rotation
// is told to ask for them again.
func TestACacheOnTheWayDoesNotHideARotation(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		cache := map[string]*httptest.ResponseRecorder{}
		var told []string
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) {
			c.HTTPClient = &http.Client{Transport: testguard.RoundTripper(func(r *http.Request) (*http.Response, error) {
				told = append(told, r.Header.Get("Cache-Control"))
				kept := cache[r.URL.String()]
				if kept == nil || strings.Contains(r.Header.Get("Cache-Control"), "max-age=0") { // RFC 9111 §5.2.1.1
					kept = httptest.NewRecorder()
					asked := r.Clone(r.Context())
					asked.Header.Del("If-None-Match")
					issuer.ServeHTTP(kept, asked)
					cache[r.URL.String()] = kept
				}
				response := &http.Response{StatusCode: kept.Code, Header: kept.Header(), Body: io.NopCloser(bytes.NewReader(kept.Body.Bytes())), Request: r}
				return response, nil
			})}
		})
		testguard.KeysAtOnce(t, g, testguard.KeysToken(issuer, ""), 200)
		issuer.Rotate("ES384")
		testguard.KeysAtOnce(t, g, testguard.KeysToken(issuer, ""), 200)
		assert.Equal(t, []string{"max-age=0", "max-age=0", "max-age=0"}, told, "for the discovery document and for each key set")
	})
}

// Editors and libraries of Windows write a byte order mark before the document.
func TestAByteOrderMark(t *testing.T) {
	const mark = "\ufeff"
	for form, want := range map[string]int{"%s": 200, mark + "%s": 200, mark + " %s": 200, mark + mark + "%s": 503, " " + mark + "%s": 503, "%s" + mark: 503} {
		testguard.KeysBubble(t, func(t *testing.T) {
			issuer := m2mauthtest.NewIssuer()
			document := strings.Replace(form, "%s", keysOf(t, issuer), 1)
			testguard.KeysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = io.WriteString(w, document) })
			testguard.KeysEventually(t, testguard.KeysGuard(t, issuer), testguard.KeysToken(issuer, ""), want, "%q", form)
			c := issuer.Config(testguard.KeysAPI)
			c.JWKS = []byte(document)
			_, err := m2mauth.New(c)
			assert.Equal(t, want == 200, err == nil, "%q", form)
		})
	}

	issuer := m2mauthtest.NewIssuer()
	token := testguard.KeysToken(issuer, "")
	g := testguard.KeysGuard(t, issuer)
	for _, part := range []int{0, 1} { // in a token it is one more spelling
		parts := strings.Split(token, ".")
		plain, err := base64.RawURLEncoding.DecodeString(parts[part])
		require.NoError(t, err)
		parts[part] = base64.RawURLEncoding.EncodeToString(append([]byte(mark), plain...))
		_, err = g.Verify(t.Context(), strings.Join(parts, "."))
		assert.ErrorIs(t, err, m2mauth.ErrMalformed)
	}
}

// publishing has these JWKs published beside the issuer's own.
func publishing(t *testing.T, issuer *m2mauthtest.Issuer, jwks func() []string) {
	t.Helper()
	own := strings.TrimSuffix(keysOf(t, issuer), "]}")
	testguard.KeysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		_, _ = io.WriteString(w, strings.Join(append([]string{own}, jwks()...), ",")+"]}")
	})
}

// jwkOf returns the JWK of an issuer's only key, under another key ID.
func jwkOf(t *testing.T, issuer *m2mauthtest.Issuer, kid string) string {
	t.Helper()
	jwk := strings.TrimSuffix(strings.TrimPrefix(keysOf(t, issuer), `{"keys":[`), "]}")
	return strings.Replace(jwk, issuer.KeyIDs()[0], kid, 1)
}

// Issuers that publish odd keys are asked 169 times a day.
func TestAnOddKeyIsLoggedWhenItAppearsOrChanges(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		odd := func(kid, alg string) string { return fmt.Sprintf(`{"kty":"AKP","kid":%q,"alg":%q}`, kid, alg) }
		var log testguard.KeysLog
		issuer := m2mauthtest.NewIssuer()
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		jwks := []string{odd("1", "ML-DSA-44")}
		publishing(t, issuer, func() []string { return jwks })
		for _, step := range []struct {
			name  string
			jwks  []string
			lines int // so far
		}{
			{"it is there", []string{odd("1", "ML-DSA-44")}, 1},
			{"and still is", []string{odd("1", "ML-DSA-44")}, 1},
			{"in another order of its members", []string{`{ "alg":"ML-DSA-44", "kid":"1", "kty":"AKP" }`}, 1},
			{"twice", []string{odd("1", "ML-DSA-44"), odd("1", "ML-DSA-44")}, 1},
			{"it changes, and its reason does not", []string{odd("1", "ML-DSA-65")}, 2},
			{"another one appears", []string{odd("1", "ML-DSA-65"), odd("2", "ML-DSA-65")}, 3},
			{"both go", nil, 3},
			{"one comes back", []string{odd("2", "ML-DSA-65")}, 4},
			{"it changes in a way that is no JSON object", []string{`{"kid":"2","kid":"2"}`}, 5},
			{"which stays", []string{`{"kid":"2","kid":"2"}`}, 5},
		} {
			jwks = step.jwks
			for range 3 {
				require.NoError(t, g.Warm(t.Context()))
				synctest.Wait()
				assert.Equal(t, step.lines, log.Count(slog.LevelWarn), step.name)
				time.Sleep(testguard.KeysTTL)
			}
		}
		assert.Equal(t, 30, g.Keys().Fetches)

		issuer.Intercept(nil) // which answers 304 from the second time on
		issuer.PublishJWK([]byte(odd("3", "ML-DSA-44")))
		for range 5 {
			require.NoError(t, g.Warm(t.Context()))
			time.Sleep(testguard.KeysTTL)
		}
		issuer.Rotate("ES384")
		for range 2 {
			require.NoError(t, g.Warm(t.Context()))
			time.Sleep(testguard.KeysTTL)
		}
		assert.Equal(t, 6, log.Count(slog.LevelWarn))
	})
}

func TestAKeyForEncryptionIsNoWarning(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		var log testguard.KeysLog
		issuer := m2mauthtest.NewIssuer()
		for i := range 30 { // they take no other key's place in the log
			issuer.PublishJWK(fmt.Appendf(nil, `{"kty":"RSA","kid":"enc-%d","use":"enc","alg":"RSA-OAEP","n":"AQAB","e":"AQAB"}`, i))
		}
		issuer.PublishJWK([]byte(`{"kty":"AKP","kid":"odd"}`))
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		require.NoError(t, g.Warm(t.Context()))
		assert.Equal(t, 1, log.Count(slog.LevelWarn), log.Text())
		assert.Contains(t, log.Text(), `kid "odd": unsupported kty`)
		assert.Equal(t, 10, log.Count(slog.LevelDebug))
	})
}

// A set may hold a key twice, as after a merge of two files.
func TestKeysThatArePublishedTwiceAreOneKey(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		var log testguard.KeysLog
		issuer := m2mauthtest.NewIssuer()
		kid := issuer.KeyIDs()[0]
		own, again := jwkOf(t, issuer, kid), jwkOf(t, issuer, "the same by another name")
		publishing(t, issuer, func() []string { return []string{own, again} })
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		testguard.KeysAtOnce(t, g, testguard.KeysToken(issuer, ""), 200)
		testguard.KeysAtOnce(t, g, issuer.Sign(m2mauthtest.Token{Audience: testguard.KeysAPI, Header: map[string]any{"kid": nil}}), 200, "there is only one")
		assert.Len(t, g.Keys().Keys, 2, "one for each name")
		assert.Zero(t, log.Count(slog.LevelWarn), log.Text())
	})
}

// Each situation in which no key is found has its own answer, and the log says more.
func TestWhyThereIsNoKey(t *testing.T) {
	const (
		notPublished = "the issuer publishes no key with the token's key ID: it was rotated out, or this API has the keys of another server"
		unusable     = "the issuer publishes the token's key, but it cannot be used: its use, its algorithm or its form does not fit the token"
		several      = "the issuer publishes several different keys with the token's key ID, and which one signed it cannot be told"
		manyFit      = "the token names no key, and the issuer publishes several that may have signed it"
		noneFits     = "the token names no key, and the issuer publishes none for its algorithm"
	)
	other := m2mauthtest.NewIssuer()
	for name, test := range map[string]struct {
		jwks      func(t *testing.T, kid string) []string // beside the issuer's own
		header    map[string]any
		text      string
		published string
		warned    string // by the fetch
	}{
		"not published": {nil, map[string]any{"kid": "gone"}, notPublished, "", ""},
		"for encryption": {func(*testing.T, string) []string {
			return []string{strings.Replace(ed25519JWK, "{", `{"kid":"enc","use":"enc",`, 1)}
		}, map[string]any{"kid": "enc"}, unusable, "use is enc: the key is for encryption", ""},
		"of an unknown kind":        {func(*testing.T, string) []string { return []string{`{"kty":"AKP","kid":"new"}`} }, map[string]any{"kid": "new"}, unusable, "unsupported kty", `kid "new": unsupported kty`},
		"for another algorithm":     {nil, map[string]any{"alg": "ES256"}, unusable, "for ES384", ""},
		"two of which neither fits": {func(_ *testing.T, kid string) []string { return []string{`{"kty":"AKP","kid":"` + kid + `"}`} }, map[string]any{"alg": "ES256"}, unusable, "for ES384; unsupported kty", "unsupported kty"},
		"two that both fit":         {func(t *testing.T, kid string) []string { return []string{jwkOf(t, other, kid)} }, nil, several, "for ES384; for ES384", "different keys are published under one name"},
		"no kid, and two keys fit":  {func(t *testing.T, _ string) []string { return []string{jwkOf(t, other, "other")} }, map[string]any{"kid": nil}, manyFit, "", ""},
		"no kid, and no key fits":   {nil, map[string]any{"kid": nil, "alg": "ES256"}, noneFits, "", ""},
		"no kid, nor have the keys that fit": {func(t *testing.T, _ string) []string {
			bare := strings.Replace(jwkOf(t, other, "x"), `"kid":"x",`, "", 1)
			return []string{strings.Replace(jwkOf(t, m2mauthtest.NewIssuer(), "x"), `"kid":"x",`, "", 1), bare}
		}, map[string]any{"kid": nil}, manyFit, "", "no kid, alg ES384"},
	} {
		t.Run(name, func(t *testing.T) {
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				if test.jwks != nil {
					more := test.jwks(t, issuer.KeyIDs()[0])
					publishing(t, issuer, func() []string { return more })
				}
				guard, book := loggedGuard(t, issuer)
				require.NoError(t, guard.Warm(t.Context()))
				fetched := fmt.Sprint(book.take())
				if test.warned == "" {
					assert.NotContains(t, fetched, "WARN")
				} else {
					assert.Contains(t, fetched, test.warned)
				}
				_, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: test.header}))
				var e *m2mauth.Error
				require.ErrorAs(t, err, &e)
				require.ErrorIs(t, err, m2mauth.ErrUnknownKey)
				assert.Equal(t, 401, e.Status)
				assert.Equal(t, test.text, e.Description)
				entries := book.take()
				require.NotEmpty(t, entries)
				assert.Equal(t, test.published, entries[len(entries)-1].attrs["published"])
			})
		})
	}
}

// A query may hold a secret. It stands in no log line, whether keys are odd, the
// same or none.
func TestTheQueryOfJWKSURLIsInNoLogLineOfGoodKeys(t *testing.T) {
	testguard.KeysBubble(t, func(t *testing.T) {
		var log testguard.KeysLog
		issuer, other := m2mauthtest.NewIssuer(), m2mauthtest.NewIssuer()
		publishing(t, issuer, func() []string {
			return []string{`{"kty":"AKP","kid":"odd"}`, jwkOf(t, other, "two"), jwkOf(t, m2mauthtest.NewIssuer(), "two")}
		})
		g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) {
			c.JWKSURL, c.Logger = issuer.JWKSURL()+"?key=secret", slog.New(&log)
		})
		for _, header := range []map[string]any{{"kid": "odd"}, {"kid": "two"}, {"kid": "gone"}} {
			_, err := g.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: testguard.KeysAPI, Header: header}))
			require.ErrorIs(t, err, m2mauth.ErrUnknownKey)
			assert.NotContains(t, err.Error(), "secret")
		}
		assert.Contains(t, log.Text(), "url="+issuer.JWKSURL())
		assert.Contains(t, log.Text(), "keys_from="+issuer.JWKSURL())
		assert.NotContains(t, log.Text(), "secret")
	})
}
