package m2mauth_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

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
func TestCompressedKeySets(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer() // only signs
	token, keys := keysToken(issuer, ""), keysOf(t, issuer)
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
				g := keysGuard(t, issuer, func(c *m2mauth.Config) {
					c.JWKSURL, c.HTTPClient = server.URL+"/jwks", nil
					if transport != nil {
						c.HTTPClient = &http.Client{Transport: transport}
					}
				})
				keysEventually(t, g, token, test.want)
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
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		token := keysToken(issuer, "")
		var answers []int
		keysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
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
			keysAtOnce(t, g, token, 200)
			time.Sleep(keysTTL)
		}
		assert.Equal(t, []int{200, 304, 304}, answers)
	})
}

// A cache between the guard and its issuer that has the keys of before a rotation
// is told to ask for them again.
func TestACacheOnTheWayDoesNotHideARotation(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		cache := map[string]*httptest.ResponseRecorder{}
		var told []string
		g := keysGuard(t, issuer, func(c *m2mauth.Config) {
			c.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
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
		keysAtOnce(t, g, keysToken(issuer, ""), 200)
		issuer.Rotate("ES384")
		keysAtOnce(t, g, keysToken(issuer, ""), 200)
		assert.Equal(t, []string{"max-age=0", "max-age=0", "max-age=0"}, told, "for the discovery document and for each key set")
	})
}

// Editors and libraries of Windows write a byte order mark before the document.
func TestAByteOrderMark(t *testing.T) {
	const mark = "\ufeff"
	for form, want := range map[string]int{"%s": 200, mark + "%s": 200, mark + " %s": 200, mark + mark + "%s": 503, " " + mark + "%s": 503, "%s" + mark: 503} {
		keysBubble(t, func(t *testing.T) {
			issuer := m2mauthtest.NewIssuer()
			document := strings.Replace(form, "%s", keysOf(t, issuer), 1)
			keysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = io.WriteString(w, document) })
			keysEventually(t, keysGuard(t, issuer), keysToken(issuer, ""), want, "%q", form)
			c := issuer.Config(keysAPI)
			c.JWKS = []byte(document)
			_, err := m2mauth.New(c)
			assert.Equal(t, want == 200, err == nil, "%q", form)
		})
	}

	issuer := m2mauthtest.NewIssuer()
	token := keysToken(issuer, "")
	g := keysGuard(t, issuer)
	for _, part := range []int{0, 1} { // in a token it is one more spelling
		parts := strings.Split(token, ".")
		plain, err := base64.RawURLEncoding.DecodeString(parts[part])
		require.NoError(t, err)
		parts[part] = base64.RawURLEncoding.EncodeToString(append([]byte(mark), plain...))
		_, err = g.Verify(t.Context(), strings.Join(parts, "."))
		assert.ErrorIs(t, err, m2mauth.ErrMalformed)
	}
}
