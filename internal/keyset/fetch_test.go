package keyset

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// answers is an issuer whose answers can change between fetches.
type answers struct {
	documents map[string]string // by path; any other path is 503
	header    http.Header
	asked     []string
}

func (a *answers) answer(r *http.Request) (*http.Response, error) {
	a.asked = append(a.asked, r.URL.String())
	response := &http.Response{StatusCode: 503, Header: a.header.Clone(), Body: http.NoBody, Request: r}
	if document, ok := a.documents[r.URL.Path]; ok {
		response.StatusCode, response.Body = 200, io.NopCloser(strings.NewReader(document))
	}
	if tag := a.header.Get("ETag"); tag != "" && r.Header.Get("If-None-Match") == tag {
		response.StatusCode, response.Body = 304, http.NoBody
	}
	return response, nil
}

func (a *answers) taken() (asked []string) {
	asked, a.asked = a.asked, nil
	return asked
}

func named(jwksURI string) string {
	return fmt.Sprintf(`{"issuer":"https://issuer.test","jwks_uri":%q}`, jwksURI)
}

func keysNamed(kids ...string) string {
	var jwks []string
	for _, kid := range kids {
		jwks = append(jwks, fmt.Sprintf(p256JWK, fmt.Sprintf(`"kid":%q,`, kid)))
	}
	return `{"keys":[` + strings.Join(jwks, ",") + `]}`
}

func TestTheDiscoveryDocumentIsReadWhenItIsSaid(t *testing.T) {
	a := &answers{documents: map[string]string{openIDDocument: named("https://issuer.test/one"), "/one": keysNamed("a"), "/two": keysNamed("b")}}
	s := asking(a.answer)
	one, err := s.Fetch(t.Context(), nil, false)
	require.NoError(t, err)
	assert.Equal(t, []string{"https://issuer.test" + openIDDocument, "https://issuer.test/one"}, a.taken())
	assert.Equal(t, Found{Discovered: true}, one.Found)

	a.documents[openIDDocument] = named("https://issuer.test/two")
	again, err := s.Fetch(t.Context(), one, false)
	require.NoError(t, err)
	assert.Equal(t, []string{"https://issuer.test/one"}, a.taken())
	assert.Equal(t, Found{}, again.Found)
	assert.Equal(t, "https://issuer.test/one", again.Address())

	two, err := s.Fetch(t.Context(), again, true)
	require.NoError(t, err)
	assert.Equal(t, []string{"https://issuer.test" + openIDDocument, "https://issuer.test/two"}, a.taken())
	assert.Equal(t, Found{Discovered: true}, two.Found)
	assert.Equal(t, "https://issuer.test/two", two.Address())

	s.URL = "https://elsewhere.test/one"
	for _, old := range []*Set{nil, two} {
		set, err := s.Fetch(t.Context(), old, true)
		require.NoError(t, err)
		assert.Equal(t, []string{"https://elsewhere.test/one"}, a.taken())
		assert.Equal(t, Found{}, set.Found)
	}
}

// What a fetch found on its way is reported whether the keys came or not.
func TestADiscoveryDocumentThatCannotBeReadAgain(t *testing.T) {
	a := &answers{documents: map[string]string{openIDDocument: named("https://issuer.test/jwks"), "/jwks": keysNamed("a")}}
	s := asking(a.answer)
	old, err := s.Fetch(t.Context(), nil, false)
	require.NoError(t, err)
	delete(a.documents, openIDDocument)
	set, err := s.Fetch(t.Context(), old, true)
	require.NoError(t, err)
	assert.False(t, set.Discovered)
	assert.EqualError(t, set.NotReread, "GET https://issuer.test"+openIDDocument+": status 503")
	set, err = s.Fetch(t.Context(), set, false)
	require.NoError(t, err)
	assert.NoError(t, set.NotReread, "which was of another fetch")

	for name, keys := range map[string]string{"no answer": "", "no keys": "{}"} {
		t.Run(name, func(t *testing.T) {
			delete(a.documents, "/jwks")
			if keys != "" {
				a.documents["/jwks"] = keys
			}
			_, err := s.Fetch(t.Context(), old, true)
			failed, ok := errors.AsType[*Error](err)
			require.True(t, ok)
			assert.EqualError(t, failed.NotReread, "GET https://issuer.test"+openIDDocument+": status 503")
			assert.Contains(t, failed.Error(), "GET https://issuer.test/jwks: ")
		})
	}

	_, err = s.Fetch(t.Context(), nil, false)
	failed, ok := errors.AsType[*Error](err)
	require.True(t, ok)
	assert.EqualError(t, failed, "GET https://issuer.test"+openIDDocument+": status 503")
	assert.Equal(t, Found{}, failed.Found)
}

func TestAJWKSURIOverHTTPIsTold(t *testing.T) {
	a := &answers{documents: map[string]string{openIDDocument: named("http://issuer.test/jwks?key=secret"), "/jwks": keysNamed("a")}}
	set, err := asking(a.answer).Fetch(t.Context(), nil, false)
	require.NoError(t, err)
	assert.Equal(t, Found{Discovered: true, HTTPKeys: "http://issuer.test/jwks"}, set.Found)
	assert.Equal(t, "https://issuer.test/jwks?key=secret", a.taken()[1])
	assert.Equal(t, "https://issuer.test/jwks", set.Address())

	delete(a.documents, "/jwks")
	_, err = asking(a.answer).Fetch(t.Context(), nil, false)
	failed, ok := errors.AsType[*Error](err)
	require.True(t, ok)
	assert.Equal(t, Found{Discovered: true, HTTPKeys: "http://issuer.test/jwks"}, failed.Found)
	assert.EqualError(t, failed, "GET https://issuer.test/jwks status 503", "the colon counts as part of the query")
}

func TestAnIssuerOverHTTPMayNameItsKeysOverHTTP(t *testing.T) {
	a := &answers{documents: map[string]string{openIDDocument: `{"issuer":"http://localhost","jwks_uri":"http://localhost/jwks"}`, "/jwks": keysNamed("a")}}
	s := asking(a.answer)
	s.Issuer = "http://localhost"
	set, err := s.Fetch(t.Context(), nil, false)
	require.NoError(t, err)
	assert.Equal(t, Found{Discovered: true}, set.Found)
	assert.Equal(t, "http://localhost/jwks", set.Address())
}

func TestWhatTheIssuerIsAskedWith(t *testing.T) {
	var header http.Header
	status := 200
	s := asking(func(r *http.Request) (*http.Response, error) {
		header = r.Header
		return &http.Response{StatusCode: status, Header: http.Header{"Etag": {`"tag"`}}, Body: io.NopCloser(strings.NewReader(keysNamed("a"))), Request: r}, nil
	})
	s.URL = "https://issuer.test/jwks"
	set, err := s.Fetch(t.Context(), nil, false)
	require.NoError(t, err)
	want := http.Header{"Accept": {"application/jwk-set+json, application/json"}, "Cache-Control": {"max-age=0"}, "User-Agent": {"m2mauth"}}
	assert.Equal(t, want, header)
	status = 304
	_, err = s.Fetch(t.Context(), set, false)
	require.NoError(t, err)
	want["If-None-Match"] = []string{`"tag"`}
	assert.Equal(t, want, header)
	_, err = s.Fetch(t.Context(), nil, false)
	assert.ErrorContains(t, err, "304 Not Modified, which was not asked for")
}

// Reading an openIDDocument again leaves time for the keys.
func TestReadingDiscoveryAgainTakesHalfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{documents: map[string]string{openIDDocument: named("https://issuer.test/jwks"), "/jwks": keysNamed("a")}}
		slow := false
		s := asking(func(r *http.Request) (*http.Response, error) {
			if slow && r.URL.Path == openIDDocument {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return a.answer(r)
		})
		old, err := s.Fetch(t.Context(), nil, false)
		require.NoError(t, err)
		slow = true
		begin := time.Now()
		set, err := s.Fetch(t.Context(), old, true)
		require.NoError(t, err)
		assert.Error(t, set.NotReread)
		assert.Equal(t, s.Timeout/2, time.Since(begin))
	})
}

func TestKeysThatStayAreTheSame(t *testing.T) {
	a := &answers{documents: map[string]string{"/jwks": keysNamed("a", "b")}}
	s := asking(a.answer)
	s.URL = "https://issuer.test/jwks"
	old, err := s.Fetch(t.Context(), nil, false)
	require.NoError(t, err)
	a.documents["/jwks"] = keysNamed("c", "a", "a")
	set, err := s.Fetch(t.Context(), old, false)
	require.NoError(t, err)
	require.Len(t, set.Keys, 2)
	assert.NotSame(t, old.Keys[0], set.Keys[0])
	assert.Same(t, old.Keys[0], set.Keys[1])
	assert.Same(t, old.Keys[0], set.ByID["a"][0])
	assert.Empty(t, set.ByID["b"])
	assert.Len(t, old.Keys, 2, "the old set stays as it was")
	assert.NotEmpty(t, old.ByID["b"])
}

func TestASetThatHasNotChanged(t *testing.T) {
	a := &answers{
		documents: map[string]string{openIDDocument: named("https://issuer.test/one"), "/one": strings.TrimSuffix(keysNamed("a"), "]}") + `,{"kty":"AKP","kid":"odd"}]}`},
		header:    http.Header{"Etag": {`"tag"`}, "Cache-Control": {"max-age=60"}},
	}
	s := asking(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == openIDDocument {
			return (&answers{documents: a.documents}).answer(r)
		}
		return a.answer(r)
	})
	old, err := s.Fetch(t.Context(), nil, false)
	require.NoError(t, err)
	assert.Equal(t, time.Minute, old.MaxAge)
	require.Len(t, old.Oddities, 1)
	delete(a.documents, "/one")
	for seconds := range 2 { // the tag is kept
		before := *old
		a.header["Cache-Control"] = []string{fmt.Sprintf("max-age=%d", 90+seconds)}
		set, err := s.Fetch(t.Context(), old, false)
		require.NoError(t, err)
		assert.Equal(t, time.Duration(90+seconds)*time.Second, set.MaxAge)
		assert.Equal(t, old.Keys, set.Keys)
		assert.Equal(t, old.ByID, set.ByID)
		assert.Equal(t, old.Oddities, set.Oddities)
		assert.Equal(t, Found{}, set.Found)
		assert.Equal(t, before, *old, "the old set stays as it was")
		old = set
	}

	a.documents[openIDDocument], a.documents["/two"] = named("https://issuer.test/two"), keysNamed("b")
	set, err := s.Fetch(t.Context(), old, true)
	require.NoError(t, err)
	assert.NotEmpty(t, set.ByID["b"], "no tag is sent elsewhere than it is from")
}

func TestOddities(t *testing.T) {
	odd := func(jwks ...string) (all []Oddity) {
		t.Helper()
		set, err := Parse([]byte(`{"keys":[`+strings.Join(append(jwks, fmt.Sprintf(ed25519JWK, "")), ",")+`]}`), "RS256", nil)
		require.NoError(t, err)
		return set.Oddities
	}
	one := odd(`{"kty":"AKP","kid":"1"}`)
	require.Len(t, one, 1)
	assert.Equal(t, Unusable, one[0].Kind)
	assert.Contains(t, one[0].Reason, `kid "1": `)
	assert.Equal(t, one, odd(`{ "kid" : "1", "kty":"AKP" }`), "the order of members does not count")
	other := odd(`{"kty":"AKP","kid":"1","use":"sig"}`)
	assert.NotEqual(t, one[0].ID, other[0].ID)

	encryption := odd(fmt.Sprintf(p256JWK, `"use":"enc",`))
	require.Len(t, encryption, 1)
	assert.Equal(t, ForEncryption, encryption[0].Kind)

	two := odd(fmt.Sprintf(p256JWK, `"kid":"a",`), fmt.Sprintf(otherP256JWK, `"kid":"a",`), fmt.Sprintf(p256JWK, ""), fmt.Sprintf(otherP256JWK, ""))
	assert.Equal(t, []Oddity{
		{Ambiguous, `kid "a", alg ES256`, `kid "a", alg ES256`},
		{Ambiguous, "no kid, alg ES256", "no kid, alg ES256"},
	}, two)
	var three []string
	for seed := range byte(3) {
		public, _ := ed25519.NewKeyFromSeed(append(make([]byte, 31), seed)).Public().(ed25519.PublicKey)
		three = append(three, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":"a","x":%q}`, base64.RawURLEncoding.EncodeToString(public)))
	}
	assert.Len(t, odd(three...), 1, "of many under one name it is told once")
	assert.Empty(t, odd(fmt.Sprintf(p256JWK, `"kid":"",`), fmt.Sprintf(otherP256JWK, "")), "an empty kid is one")
	long := strings.Repeat("a", 300)
	assert.Empty(t, odd(fmt.Sprintf(p256JWK, `"kid":"`+long+`b",`), fmt.Sprintf(otherP256JWK, `"kid":"`+long+`c",`)), "names are compared whole")
	assert.Len(t, odd(`{"kty":"AKP","kid":"1"}`, `{"kty":"AKP","kid":"1"}`, `{"kty":"AKP","kid":"1","use":"sig"}`), 3, "keys that cannot be used are not in each other's way")
}

func TestASetWithoutUsableKeyNamesTheFirstReason(t *testing.T) {
	for body, want := range map[string]string{
		`{"keys":[]}`: "the key set has no usable key: of 0, the first: none",
		`{"keys":[{"kty":"AKP","kid":"1"},{"kty":"EC"}]}`: `the key set has no usable key: of 2, the first: kid "1": `,
	} {
		_, err := Parse([]byte(body), "RS256", nil)
		assert.ErrorContains(t, err, want)
	}
}

func TestRetryAfterIsReadInBothForms(t *testing.T) {
	now := time.Date(1994, 11, 6, 8, 49, 30, 0, time.UTC)
	for field, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "7.5": 0, "soon": 0, "99999999999": (1<<31 - 1) * time.Second,
		"Sun, 06 Nov 1994 08:49:37 GMT": 7 * time.Second, "Sun, 06 Nov 1994 08:49:29 GMT": -time.Second,
	} {
		for status, counts := range map[int]bool{429: true, 503: true, 403: true, 404: false} {
			_, e := asking(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {field}}, Body: http.NoBody, Request: r}, nil
			}).download(t.Context(), "https://issuer.test/jwks", "")
			require.NotNil(t, e)
			if !counts {
				assert.Zero(t, e.RetryAfter(now), field)
				continue
			}
			assert.Equal(t, want, e.RetryAfter(now), "%d %s", status, field)
		}
	}
}

func TestQueriesAreInNoText(t *testing.T) {
	s := asking(func(*http.Request) (*http.Response, error) {
		return nil, errors.New(`dial "https://issuer.test/jwks?key=secret": down`)
	})
	s.URL = "https://issuer.test/jwks?key=secret"
	_, err := s.Fetch(t.Context(), nil, false)
	assert.EqualError(t, err, `GET https://issuer.test/jwks dial "https://issuer.test/jwks": down`)
	assert.Equal(t, "", new(Set).Address())
}

func TestPlacesOfDiscoveryDocuments(t *testing.T) {
	for path, want := range map[string]bool{
		"/oidc/.well-known/openid-configuration": true, "/oidc/.well-known/openid-configuration/": true, "/.well-known/oauth-authorization-server": true,
		"/.well-known/oauth-authorization-server/oidc": true, "/.well-known/openid-configuration/jwks": false, "/.well-known/jwks.json": false, "/": false,
	} {
		assert.Equal(t, want, IsDiscovery(path), path)
	}
}

func TestTextIsLoggable(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "plain ~text": "plain ~text", "a\nb": `"a\nb"`, `a"b`: `"a\"b"`, `a\b`: `"a\\b"`, "\x7f": `"\x7f"`, "é": `"\u00e9"`, "\xff": `"\xff"`,
	} {
		assert.Equal(t, want, Loggable(in))
	}
}

func TestDiscoveryGoesOnWhereNoDocumentIs(t *testing.T) {
	const openID, appended, inserted = "https://issuer.test/oidc" + openIDDocument, "https://issuer.test/oidc" + oauthDocument, "https://issuer.test" + oauthDocument + "/oidc"
	for name, test := range map[string]struct {
		status int
		body   string
		goesOn bool
	}{
		"399":                {399, "", false},
		"400":                {400, "", true},
		"404":                {404, "", true},
		"429":                {429, "", false},
		"499":                {499, "", true},
		"500":                {500, "", false},
		"a page":             {200, "<html>", true},
		"an array":           {200, "[]", true},
		"two objects":        {200, "{}{}", true},
		"no document at all": {200, "", true},
		"another issuer's":   {200, `{"issuer":"https://evil.test","jwks_uri":"https://issuer.test/jwks"}`, false},
		"without jwks_uri":   {200, `{"issuer":"https://issuer.test/oidc"}`, false},
		"of another type":    {200, `{"issuer":1}`, false},
		"doubled members":    {200, `{"issuer":"https://issuer.test/oidc","issuer":"https://issuer.test/oidc"}`, false},
	} {
		for _, last := range []bool{false, true} {
			var asked []string
			s := asking(func(r *http.Request) (*http.Response, error) {
				asked = append(asked, r.URL.String())
				response := &http.Response{StatusCode: test.status, Body: io.NopCloser(strings.NewReader(test.body)), Request: r}
				if last && r.URL.String() == inserted {
					response.StatusCode, response.Body = 200, io.NopCloser(strings.NewReader(`{"issuer":"https://issuer.test/oidc","jwks_uri":"https://issuer.test/jwks"}`))
				}
				return response, nil
			})
			s.Issuer = "https://issuer.test/oidc"
			address, _, e := s.readDiscovery(t.Context())
			if !test.goesOn {
				assert.Equal(t, []string{openID}, asked, name)
				assert.ErrorContains(t, e, "GET "+openID+": ", name)
				continue
			}
			assert.Equal(t, []string{openID, appended, inserted}, asked, name)
			if last {
				require.Nil(t, e, name)
				assert.Equal(t, "https://issuer.test/jwks", address, name)
			} else {
				assert.ErrorContains(t, e, "GET "+openID+": ", name, "the first place's")
			}
		}
	}
}

func TestOrigins(t *testing.T) {
	parsed := func(s string) *url.URL {
		u, err := url.Parse(s)
		require.NoError(t, err)
		return u
	}
	for _, test := range []struct {
		of, origin         string
		same, sameButNoTLS bool
	}{
		{"https://a.test/x", "https://a.test", true, false},
		{"https://A.test:443", "https://a.test", true, false},
		{"http://a.test:80", "http://a.test", true, true},
		{"https://b.test", "https://a.test", false, false},
		{"https://a.test:8443", "https://a.test", false, false},
		{"http://a.test", "https://a.test", false, true},
		{"http://A.test:443", "https://a.test", false, true},
		{"http://a.test:8443", "https://a.test:8443", false, true},
		{"http://a.test:8080", "https://a.test", false, false},
		{"http://a.test", "https://a.test:8443", false, false},
		{"http://b.test", "https://a.test", false, false},
		{"ftp://a.test:443", "https://a.test", false, false},
		{"https://a.test", "http://a.test", false, false},
	} {
		assert.Equal(t, test.same, SameOrigin(parsed(test.of), parsed(test.origin)), test)
		assert.Equal(t, test.sameButNoTLS, sameButForTLS(parsed(test.of), parsed(test.origin)), test)
	}
}

func TestRedirectsStayWithinTheOrigin(t *testing.T) {
	for to, want := range map[string]string{"https://issuer.test/moved": "", "https://evil.test/jwks": "redirected to another origin", "/jwks?again": "redirected too often"} {
		s := asking(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/moved" {
				return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
			}
			return &http.Response{StatusCode: 302, Header: http.Header{"Location": {to}}, Body: http.NoBody, Request: r}, nil
		})
		_, e := s.download(t.Context(), "https://issuer.test/jwks", "")
		if want == "" {
			assert.Nil(t, e)
		} else {
			assert.ErrorContains(t, e, want)
		}
	}
}

func TestTheClientIsTheConfiguredOneButForRedirects(t *testing.T) {
	configured := &http.Client{Timeout: time.Second}
	client := NewClient(configured, time.Minute)
	assert.Equal(t, time.Second, client.Timeout)
	assert.Nil(t, configured.CheckRedirect)

	own, ok := NewClient(nil, time.Minute).Transport.(*http.Transport)
	require.True(t, ok)
	assert.True(t, own.DisableKeepAlives)
	assert.Equal(t, time.Minute, own.TLSHandshakeTimeout)
	assert.EqualValues(t, 64<<10, own.MaxResponseHeaderBytes)
}

func TestAnErrorTellsItsCause(t *testing.T) {
	cause := errors.New("down")
	s := asking(func(*http.Request) (*http.Response, error) { return nil, cause })
	s.URL = "https://issuer.test/jwks"
	_, err := s.Fetch(t.Context(), nil, false)
	assert.ErrorIs(t, err, cause)
	s.URL = "https://issuer.test/%zz"
	_, err = s.Fetch(t.Context(), nil, false)
	assert.ErrorContains(t, err, "not a URL that can be asked")
}
