package m2mauth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/jose"
)

// Keys of RFC 8037 appendix A.2, RFC 7515 appendix A.3 and RFC 7517 appendix A.1, and one for each test
// that needs another: only find looks at them, and nothing is verified.
const (
	internalEd25519   = `{"kty":"OKP","crv":"Ed25519",%s"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	internalP256      = `{"kty":"EC","crv":"P-256",%s"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	internalOtherP256 = `{"kty":"EC","crv":"P-256",%s"x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`
	internalUnknown   = `{"kty":"AKP",%s"alg":"ML-DSA-44"}`
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
		"the key with the kid":                         {[]string{key(internalP256, "a"), key(internalEd25519, "b")}, "a", true, "ES256", true, false},
		"a kid that is not published":                  {[]string{key(internalP256, "a")}, "b", true, "ES256", false, true},
		"a kid whose key is for another algorithm":     {[]string{key(internalP256, "a")}, "a", true, "EdDSA", false, false},
		"a kid whose key cannot be used":               {[]string{key(internalP256, "a"), key(internalUnknown, "b")}, "b", true, "ES256", false, false},
		"two keys with the kid, of which one fits":     {[]string{key(internalP256, "a"), key(internalEd25519, "a")}, "a", true, "EdDSA", true, false},
		"two keys with the kid that both fit":          {[]string{key(internalP256, "a"), key(internalOtherP256, "a")}, "a", true, "ES256", false, false},
		"a key that is there twice":                    {[]string{key(internalP256, "a"), key(internalP256, "a")}, "a", true, "ES256", true, false},
		"a key that is there twice, and another":       {[]string{key(internalP256, "a"), key(internalP256, "a"), key(internalOtherP256, "a")}, "a", true, "ES256", false, false},
		"no kid, and one key with two kids":            {[]string{key(internalP256, "a"), key(internalP256, "b")}, "", false, "ES256", true, false},
		"no kid, and one key with a kid and without":   {[]string{key(internalP256, "a"), bare(internalP256)}, "", false, "ES256", true, false},
		"no kid, and one key fits":                     {[]string{key(internalP256, "a"), key(internalEd25519, "b")}, "", false, "EdDSA", true, false},
		"no kid, and two keys fit":                     {[]string{key(internalP256, "a"), key(internalOtherP256, "b")}, "", false, "ES256", false, false},
		"no kid, and none fits":                        {[]string{key(internalP256, "a")}, "", false, "EdDSA", false, false},
		"no kid on either side":                        {[]string{bare(internalP256)}, "", false, "ES256", true, false},
		"a key without a kid is not the one asked for": {[]string{bare(internalP256)}, "a", true, "ES256", false, true},
		"an empty kid is a kid":                        {[]string{key(internalP256, ""), key(internalEd25519, "a")}, "", true, "ES256", true, false},
		"an empty kid is not an absent one":            {[]string{key(internalP256, "a")}, "", true, "ES256", false, true},
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
			g, err := New(Config{Issuer: "https://issuer.test", Audience: "https://api.test", JWKS: jwks.Bytes(), Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			found, refetch := g.keys.current.Load().find(test.kid, test.hasKID, test.alg)
			assert.Equal(t, test.found, found != nil)
			assert.Equal(t, test.refetch, refetch)
			if found != nil {
				assert.Equal(t, test.alg, found.Algorithm())
			}
		})
	}
}

// A flood must not fill the memory, and nobody waits without bound.
func TestWhatAFloodLeavesBehindIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := New(Config{
			Issuer: "https://issuer.test", Audience: "https://api.test", JWKSURL: "https://issuer.test/jwks",
			Logger: slog.New(slog.DiscardHandler),
			HTTPClient: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				time.Sleep(time.Second)
				body := fmt.Sprintf(`{"keys":[`+internalP256+`]}`, `"kid":"a",`)
				return &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewBufferString(body)), Request: r}, nil
			})},
		})
		require.NoError(t, err)
		k := g.keys
		_, _, e := k.find(t.Context(), time.Now(), held{}, "a", true, "ES256", fromNobody)
		require.Nil(t, e)
		unknown, busy := 0, 0
		var mu sync.Mutex
		var wg sync.WaitGroup
		for round := range 20 {
			for i := range 10_000 {
				wg.Go(func() {
					_, _, e := k.find(t.Context(), time.Now(), held{}, fmt.Sprint(round, " ", i), true, "ES256", fromNobody)
					mu.Lock()
					defer mu.Unlock()
					switch e.Status {
					case 401:
						unknown++
					case 503:
						busy++
					}
				})
			}
			synctest.Wait()
			k.mu.Lock()
			assert.LessOrEqual(t, k.waiters, maxWaiters)
			assert.LessOrEqual(t, len(k.absent), maxAbsent)
			if k.flight != nil {
				assert.LessOrEqual(t, len(k.flight.wanted), maxAbsent)
			}
			k.mu.Unlock()
			wg.Wait()
			time.Sleep(31 * time.Second)
		}
		assert.Equal(t, 200_000, unknown+busy)
		assert.Positive(t, busy, "there is no place for 10,000")
		k.mu.Lock()
		defer k.mu.Unlock()
		assert.Zero(t, k.waiters)
		assert.Nil(t, k.flight)
		assert.LessOrEqual(t, len(k.absent), maxAbsent)
	})
}

func fromNobody() string { return noRequest }

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// panickingHandler is a user's slog.Handler with a mistake.
type panickingHandler struct{ slog.Handler }

func (panickingHandler) Enabled(context.Context, slog.Level) bool  { return true }
func (panickingHandler) Handle(context.Context, slog.Record) error { panic("a user's mistake") }

func TestAPanickingLoggerDoesNotEndTheProcessFromTheFetch(t *testing.T) {
	k := &keySource{logger: func() *slog.Logger { return slog.New(panickingHandler{}) }}
	assert.NotPanics(t, func() { k.logFailure(errors.New("down"), nil, time.Now()) })
	assert.NotPanics(t, func() { k.logSuccess(nil, new(keySet), false) })
}

func TestAKeySetHasAThousandKeysAtMost(t *testing.T) {
	k := &keySource{rsaAlgorithm: "RS256"}
	keys := func(n int) []byte {
		return []byte(`{"keys":[` + strings.Repeat(fmt.Sprintf(internalUnknown, "")+",", n-1) + fmt.Sprintf(internalEd25519, "") + `]}`)
	}
	_, _, err := k.parse(keys(maxKeys))
	require.NoError(t, err)
	_, _, err = k.parse(keys(maxKeys + 1))
	assert.ErrorContains(t, err, "more than 1000 keys")
}

// bounded is a key source with the durations of the defaults, and a set that was
// fetched now.
func bounded(answer roundTrip) (*keySource, *keySet) {
	k := &keySource{
		issuer: "https://issuer.test", rsaAlgorithm: "RS256", ttl: defaultKeyTTL, maxTTL: maxMaxAge, staleFor: defaultKeyStaleFor, timeout: defaultTimeout,
		logger: func() *slog.Logger { return slog.New(slog.DiscardHandler) },
		absent: make(map[string]bool), withdrawn: make(map[string]bool), absentSources: make(map[string]time.Time), client: fetchClient(&http.Client{Transport: answer}, defaultTimeout),
	}
	now := time.Now()
	set := &keySet{url: "https://issuer.test/old", ttl: k.ttl, fetched: now, discovered: now}
	set.freshUntil = now.Add(k.ttl)
	set.staleUntil = set.freshUntil.Add(k.staleFor)
	k.current.Store(set)
	return k, set
}

func answerWith(body string) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
}

func TestAFailureSpeaksForStaleKeysForLessThanAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, set := bounded(nil)
		assert.False(t, k.triedLocked(set.fetched))
		for _, failedAt := range []time.Time{set.freshUntil.Add(-1), set.freshUntil} {
			k.failedAt = failedAt
			assert.True(t, k.triedLocked(k.failedAt.Add(triedLately-1)))
			assert.False(t, k.triedLocked(k.failedAt.Add(triedLately)))
		}
	})
}

func TestAThousandAndTwentyFourAbsentKeyIDsAreRemembered(t *testing.T) {
	absent := map[string]bool{}
	for i := range maxAbsent {
		remember(absent, strconv.Itoa(i))
	}
	assert.Len(t, absent, maxAbsent)
	remember(absent, "one more")
	assert.Equal(t, map[string]bool{"one more": true}, absent)
}

func TestAnAbsentKeyIDIsLookedForAgainAfterThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _ := bounded(answerWith("{}"))
		k.absent["gone"] = true
		time.Sleep(absentFor - 1)
		_, e := k.refetch(t.Context(), time.Now(), held{}, "gone", false, fromNobody)
		assert.Nil(t, e)
		assert.Zero(t, k.fetches)
		time.Sleep(time.Nanosecond)
		_, e = k.refetch(t.Context(), time.Now(), held{}, "gone", false, fromNobody)
		require.NotNil(t, e, "that fetch fails")
		assert.ErrorIs(t, e, ErrUnavailable)
		assert.Equal(t, 1, k.fetches)
	})
}

// Another request may have had the keys refreshed while this one waited for the lock.
func TestKeysThatWereRefreshedMeanwhileAreNotFetchedAgain(t *testing.T) {
	k, set := bounded(answerWith("{}"))
	set.refreshAt = set.fetched.Add(time.Minute)
	got, waited, e := k.renew(t.Context(), set.refreshAt.Add(-1), held{})
	require.Nil(t, e)
	assert.Same(t, set, got)
	assert.False(t, waited)
	k.mu.Lock()
	defer k.mu.Unlock()
	assert.Zero(t, k.fetches)
}

// The bucket, in seconds.
func TestRefetchesThatFindNothingComeOutOfABucketOfTwo(t *testing.T) {
	k, set := bounded(nil)
	begin := time.Now()
	seconds := func(at time.Time) int { return int(at.Sub(begin) / time.Second) }
	miss := func(at int) (next int) {
		k.chargeLocked(&flight{wanted: map[string]bool{"made up": true}}, set, begin.Add(time.Duration(at)*time.Second))
		return seconds(k.pausedUntil)
	}
	for _, test := range []struct{ at, next int }{
		{0, 2}, {2, 6}, {6, 12}, {12, 18},
		{30, 32}, // the bucket is full again
		{32, 36},
		{50, 52}, {54, 56}, {57, 62},
		{67, 69}, // it was full but for a second
		{69, 74},
	} {
		assert.Equal(t, test.next, miss(test.at), test.at)
	}
	set.byID = map[string][]*jose.Key{"wanted": {nil}}
	k.chargeLocked(&flight{wanted: map[string]bool{"made up": true, "wanted": false}}, set, begin.Add(time.Minute*2))
	k.chargeLocked(&flight{}, set, begin.Add(time.Minute*2))
	assert.Equal(t, 74, seconds(k.pausedUntil), "one that brings a wanted key costs nothing, nor does one that nobody wanted")
}

func TestSourcesOfAbsentKeyIDsAreForgotten(t *testing.T) {
	k, set := bounded(nil)
	begin := time.Now()
	for i := range 100 {
		k.chargeLocked(&flight{wanted: map[string]bool{"made up": true}, source: strconv.Itoa(i)}, set, begin.Add(time.Duration(i)*6*time.Second))
		assert.LessOrEqual(t, len(k.absentSources), 2)
	}
}

func TestMaxAgeIsTenTimesTheFetchTimeoutAtLeast(t *testing.T) {
	k, _ := bounded(nil)
	k.timeout = 30 * time.Second
	assert.Equal(t, 5*time.Minute, k.ttlOf(http.Header{"Cache-Control": {"max-age=60"}}), "so that a slow refresh ends before the keys do")
	k.timeout = 5 * time.Second
	assert.Equal(t, time.Minute, k.ttlOf(http.Header{"Cache-Control": {"max-age=60"}}))
}

func TestAClientThatEndsWithItsContextTellsWhatWasTooSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _ := bounded(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			time.Sleep(5 * time.Millisecond)
			return nil, errors.New("connecting took too long")
		})
		ctx, cancel := context.WithTimeout(t.Context(), k.timeout)
		defer cancel()
		_, err := k.fetchSafely(ctx, nil, false)
		assert.ErrorContains(t, err, "connecting took too long")
	})
}

func TestThreeRedirectsAreFollowedAndNoFourth(t *testing.T) {
	client := fetchClient(nil, time.Second)
	r, err := http.NewRequest(http.MethodGet, "https://issuer.test/jwks", nil)
	require.NoError(t, err)
	for requests, followed := range map[int]bool{1: true, 3: true, 4: false} {
		assert.Equal(t, followed, client.CheckRedirect(r, slices.Repeat([]*http.Request{r}, requests)) == nil, requests)
	}
}

func TestDiscoveryIsReadAgainAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, set := bounded(answerWith(`{"issuer":"https://issuer.test","jwks_uri":"https://issuer.test/new"}`))
		time.Sleep(rediscoverAfter - 1)
		address, discovered, err := k.discover(t.Context(), set, false)
		require.NoError(t, err)
		assert.Equal(t, "https://issuer.test/old", address)
		assert.Equal(t, set.discovered, discovered)
		time.Sleep(time.Nanosecond)
		address, discovered, err = k.discover(t.Context(), set, false)
		require.NoError(t, err)
		assert.Equal(t, "https://issuer.test/new", address)
		assert.Equal(t, time.Now(), discovered)
	})
}

func TestAJWKSURIThatIsNoAbsoluteURLIsToldAsThat(t *testing.T) {
	k, _ := bounded(nil)
	issuer, err := url.Parse(k.issuer)
	require.NoError(t, err)
	for _, uri := range []string{"", "/jwks", "https:jwks", "https://%zz/jwks"} {
		_, err := k.jwksURI(fmt.Appendf(nil, `{"issuer":"https://issuer.test","jwks_uri":%q}`, uri), issuer)
		assert.ErrorContains(t, err, "no jwks_uri that is an absolute URL", uri)
	}
}

func TestADocumentOfOneMiBIsReadWhole(t *testing.T) {
	whole := strings.Repeat(" ", maxDocumentBytes-2) + "{}"
	k, _ := bounded(answerWith(whole))
	doc, err := k.download(t.Context(), "https://issuer.test/jwks", "")
	require.NoError(t, err)
	assert.Equal(t, whole, string(doc.body))

	k, _ = bounded(answerWith(" " + whole))
	_, err = k.download(t.Context(), "https://issuer.test/jwks", "")
	assert.ErrorContains(t, err, "larger than 1 MiB")
}

// closeCounter is a body that knows whether it was closed.
type closeCounter struct {
	io.Reader
	closed int
}

func (c *closeCounter) Close() error { c.closed++; return nil }

// A body that stays open keeps its connection, and an issuer that fails is asked
// for days.
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
			k, _ := bounded(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: test.status, Header: http.Header{}, Body: body, Request: r}, nil
			})
			_, _ = k.download(t.Context(), "https://issuer.test/jwks", test.etag)
			assert.Positive(t, body.closed)
		})
	}
}
