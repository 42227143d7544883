package keyset

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Keys of RFC 8037 appendix A.2, RFC 7515 appendix A.3 and RFC 7517 appendix A.1, and
// one for each test that needs another: only Find looks at them, and nothing is
// verified.
const (
	ed25519JWK   = `{"kty":"OKP","crv":"Ed25519",%s"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	p256JWK      = `{"kty":"EC","crv":"P-256",%s"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	otherP256JWK = `{"kty":"EC","crv":"P-256",%s"x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`
	unknownJWK   = `{"kty":"AKP",%s"alg":"ML-DSA-44"}`
)

func TestWhichKeyFits(t *testing.T) {
	key := func(jwk, kid string) string { return fmt.Sprintf(jwk, `"kid":`+strconv.Quote(kid)+",") }
	bare := func(jwk string) string { return fmt.Sprintf(jwk, "") }
	for name, test := range map[string]struct {
		keys    []string
		kid     string
		hasKID  bool
		alg     string
		found   bool
		refetch bool
	}{
		"the key with the kid":                         {[]string{key(p256JWK, "a"), key(ed25519JWK, "b")}, "a", true, "ES256", true, false},
		"a kid that is not published":                  {[]string{key(p256JWK, "a")}, "b", true, "ES256", false, true},
		"a kid whose key is for another algorithm":     {[]string{key(p256JWK, "a")}, "a", true, "EdDSA", false, false},
		"a kid whose key cannot be used":               {[]string{key(p256JWK, "a"), key(unknownJWK, "b")}, "b", true, "ES256", false, false},
		"two keys with the kid, of which one fits":     {[]string{key(p256JWK, "a"), key(ed25519JWK, "a")}, "a", true, "EdDSA", true, false},
		"two keys with the kid that both fit":          {[]string{key(p256JWK, "a"), key(otherP256JWK, "a")}, "a", true, "ES256", false, false},
		"a key that is there twice":                    {[]string{key(p256JWK, "a"), key(p256JWK, "a")}, "a", true, "ES256", true, false},
		"a key that is there twice, and another":       {[]string{key(p256JWK, "a"), key(p256JWK, "a"), key(otherP256JWK, "a")}, "a", true, "ES256", false, false},
		"no kid, and one key with two kids":            {[]string{key(p256JWK, "a"), key(p256JWK, "b")}, "", false, "ES256", true, false},
		"no kid, and one key with a kid and without":   {[]string{key(p256JWK, "a"), bare(p256JWK)}, "", false, "ES256", true, false},
		"no kid, and one key fits":                     {[]string{key(p256JWK, "a"), key(ed25519JWK, "b")}, "", false, "EdDSA", true, false},
		"no kid, and two keys fit":                     {[]string{key(p256JWK, "a"), key(otherP256JWK, "b")}, "", false, "ES256", false, false},
		"no kid, and none fits":                        {[]string{key(p256JWK, "a")}, "", false, "EdDSA", false, false},
		"no kid on either side":                        {[]string{bare(p256JWK)}, "", false, "ES256", true, false},
		"a key without a kid is not the one asked for": {[]string{bare(p256JWK)}, "a", true, "ES256", false, true},
		"an empty kid is a kid":                        {[]string{key(p256JWK, ""), key(ed25519JWK, "a")}, "", true, "ES256", true, false},
		"an empty kid is not an absent one":            {[]string{key(p256JWK, "a")}, "", true, "ES256", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			var jwks bytes.Buffer
			jwks.WriteString(`{"keys":[`)
			for i, k := range test.keys {
				if i > 0 {
					jwks.WriteByte(',')
				}
				jwks.WriteString(k)
			}
			jwks.WriteString(`]}`)
			set, err := Parse(jwks.Bytes(), "RS256", nil)
			require.NoError(t, err)
			found, refetch := set.Find(test.kid, test.hasKID, test.alg)
			assert.Equal(t, test.found, found != nil)
			assert.Equal(t, test.refetch, refetch)
			if found != nil {
				assert.Equal(t, test.alg, found.Algorithm())
			}
		})
	}
}

func TestADocumentWithoutKeysIsToldAsThat(t *testing.T) {
	t.Parallel()
	for _, document := range []string{`{}`, `{"kty":"EC"}`} {
		_, err := Parse([]byte(document), "", nil)
		assert.ErrorContains(t, err, "no member keys", document)
	}
}

func TestAKeySetHasAThousandKeysAtMost(t *testing.T) {
	keys := func(n int) []byte {
		return []byte(`{"keys":[` + strings.Repeat(fmt.Sprintf(unknownJWK, "")+",", n-1) + fmt.Sprintf(ed25519JWK, "") + `]}`)
	}
	_, err := Parse(keys(maxKeys), "RS256", nil)
	require.NoError(t, err)
	_, err = Parse(keys(maxKeys+1), "RS256", nil)
	assert.ErrorContains(t, err, "more than 1000 keys")
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// asking is the source of an issuer with these answers.
func asking(answer roundTrip) *Source {
	return &Source{
		Issuer: "https://issuer.test", RSAAlgorithm: "RS256", Timeout: 5 * time.Second,
		Client: NewClient(&http.Client{Transport: answer}, 5*time.Second),
	}
}

func answerWith(body string) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
}

func TestThreeRedirectsAreFollowedAndNoFourth(t *testing.T) {
	client := NewClient(nil, time.Second)
	r, err := http.NewRequest(http.MethodGet, "https://issuer.test/jwks", nil)
	require.NoError(t, err)
	for requests, followed := range map[int]bool{1: true, 3: true, 4: false} {
		assert.Equal(t, followed, client.CheckRedirect(r, slices.Repeat([]*http.Request{r}, requests)) == nil, requests)
	}
}

func TestAJWKSURIThatIsNoAbsoluteURLIsToldAsThat(t *testing.T) {
	s := asking(nil)
	issuer, err := url.Parse(s.Issuer)
	require.NoError(t, err)
	for _, uri := range []string{"", "/jwks", "https:jwks", "https://%zz/jwks"} {
		_, _, err := s.jwksURI(fmt.Appendf(nil, `{"issuer":"https://issuer.test","jwks_uri":%q}`, uri), issuer)
		assert.ErrorContains(t, err, "no jwks_uri that is an absolute URL", uri)
	}
}

func TestADocumentOfOneMiBIsReadWhole(t *testing.T) {
	whole := strings.Repeat(" ", 1<<20-2) + "{}"
	s := asking(answerWith(whole))
	doc, e := s.download(t.Context(), "https://issuer.test/jwks", "")
	require.Nil(t, e)
	assert.Equal(t, whole, string(doc.body))

	s = asking(answerWith(" " + whole))
	_, e = s.download(t.Context(), "https://issuer.test/jwks", "")
	assert.ErrorContains(t, e, "larger than 1 MiB")
}

// closeCounter is a body that knows whether it was closed.
type closeCounter struct {
	io.Reader
	closed int
}

func (c *closeCounter) Close() error { c.closed++; return nil }

// A body that stays open keeps its connection, and a failing issuer is asked for days.
func TestTheBodyOfEveryAnswerIsClosed(t *testing.T) {
	broken := io.MultiReader(strings.NewReader("{"), iotest.ErrReader(errors.New("the connection broke")))
	for name, test := range map[string]struct {
		status int
		etag   string
		body   io.Reader
	}{
		"200":                          {200, "", strings.NewReader("{}")},
		"200 with a body that breaks":  {200, "", broken},
		"200 with a body over 1 MiB":   {200, "", strings.NewReader(strings.Repeat(" ", maxDocumentBytes+1))},
		"204":                          {204, "", strings.NewReader("")},
		"302 without a Location":       {302, "", strings.NewReader("elsewhere")},
		"304":                          {304, `"tag"`, strings.NewReader("")},
		"304 that was not asked for":   {304, "", strings.NewReader("")},
		"401":                          {401, "", strings.NewReader("who are you?")},
		"404":                          {404, "", strings.NewReader("nothing")},
		"429":                          {429, "", strings.NewReader("later")},
		"500":                          {500, "", strings.NewReader("down")},
		"503 with a body over 1 MiB":   {503, "", strings.NewReader(strings.Repeat(" ", maxDocumentBytes+1))},
		"a status that nobody defined": {799, "", strings.NewReader("?")},
	} {
		t.Run(name, func(t *testing.T) {
			body := &closeCounter{Reader: test.body}
			s := asking(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: test.status, Header: http.Header{}, Body: body, Request: r}, nil
			})
			_, _ = s.download(t.Context(), "https://issuer.test/jwks", test.etag)
			assert.Positive(t, body.closed)
		})
	}
}

// Whatever coding a response has, the document is what a plain reader reads, or the
// reason names the coding. It is 1 MiB at most.
func FuzzContentCoding(f *testing.F) {
	pack := func(text string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := io.WriteString(z, text)
		require.NoError(f, err)
		require.NoError(f, z.Close())
		return b.Bytes()
	}
	for _, coding := range []string{"", "identity", "gzip", "X-GZIP", " gzip ", "gzip, gzip", "br", "deflate", "gzip\x85"} {
		f.Add(coding, pack("{}"))
	}
	f.Add("gzip", []byte("{}"))
	f.Add("gzip", pack(strings.Repeat(" ", maxDocumentBytes+1)))
	f.Add("gzip", append(pack("{"), pack("}")...))
	f.Add("gzip", append(pack("{}"), 0))
	f.Fuzz(func(t *testing.T, coding string, sent []byte) {
		body := &closeCounter{Reader: bytes.NewReader(sent)}
		s := asking(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Encoding": {coding}}, Body: body, Request: r}, nil
		})
		doc, e := s.download(t.Context(), "https://issuer.test/jwks", "")
		assert.Positive(t, body.closed)

		want, wantErr := sent, error(nil)
		switch strings.ToLower(strings.Trim(coding, " \t")) {
		case "", "identity":
		case "gzip", "x-gzip":
			var z *gzip.Reader
			if z, wantErr = gzip.NewReader(bytes.NewReader(sent)); wantErr == nil {
				want, wantErr = io.ReadAll(io.LimitReader(z, maxDocumentBytes+1))
			}
		default:
			require.ErrorContains(t, e, "content coding")
			return
		}
		require.Equal(t, wantErr == nil && len(want) <= maxDocumentBytes, e == nil, "%q %x: %v", coding, sent, e)
		if e == nil {
			assert.Equal(t, want, doc.body)
		}
	})
}

func TestTwoHundredCharactersAreLoggedWhole(t *testing.T) {
	t.Parallel()
	whole := strings.Repeat("a", 200)
	assert.Equal(t, whole, Loggable(whole))
	assert.Equal(t, whole+"...", Loggable(whole+"b"))
}
