package keylog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/keyset"
)

// Keys of RFC 7515 appendix A.3 and RFC 8037 appendix A.2, and one more. Nothing is
// verified with them.
const (
	p256      = `"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"`
	otherP256 = `"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"`
	ed25519   = `"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`
	unknown   = `"kty":"AKP"`
)

// key is a key of a set, with this ID unless it is "".
func key(members, kid string) string {
	if kid != "" {
		members += fmt.Sprintf(`,"kid":%q`, kid)
	}
	return "{" + members + "}"
}

func document(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

// parsed is a set of these keys. Those that are in old too are the same.
func parsed(t *testing.T, old *keyset.Set, keys ...string) *keyset.Set {
	t.Helper()
	set, err := keyset.Parse([]byte(document(keys...)), "RS256", old)
	require.NoError(t, err)
	return set
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// fetched is such a set from the issuer.
func fetched(t *testing.T, keys ...string) *keyset.Set {
	t.Helper()
	source := keyset.Source{URL: "https://issuer.test/jwks?key=secret", Client: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(document(keys...))), Request: r}, nil
	})}}
	set, err := source.Fetch(t.Context(), nil, false)
	require.NoError(t, err)
	return set
}

// logging is a log whose lines can be read.
func logging() (*Log, func() []string) {
	var written bytes.Buffer
	handler := slog.NewTextHandler(&written, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	return &Log{Issuer: "https://issuer.test", Logger: func() *slog.Logger { return slog.New(handler) }}, func() (lines []string) {
		defer written.Reset()
		for line := range strings.Lines(written.String()) {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
		return lines
	}
}

var (
	zone = time.FixedZone("east", 3600)
	one  = time.Date(2026, 1, 2, 4, 4, 5, 0, zone)
	two  = time.Date(2026, 1, 2, 5, 4, 5, 0, zone)
)

func TestAFailedFetchIsAWarningWhileTheLastGoodKeysServe(t *testing.T) {
	t.Parallel()
	l, lines := logging()
	l.Failed(errors.New("down"), one, false, time.Time{})
	assert.Equal(t, []string{`level=ERROR msg="m2mauth: the issuer's keys could not be fetched" issuer=https://issuer.test reason=down next_attempt=2026-01-02T03:04:05.000Z`}, lines())
	l.Failed(errors.New("down"), one, true, two)
	assert.Equal(t, []string{`level=WARN msg="m2mauth: the issuer's keys could not be fetched" issuer=https://issuer.test reason=down next_attempt=2026-01-02T03:04:05.000Z last_good_keys_serve_until=2026-01-02T04:04:05.000Z`}, lines())
}

func TestAFetchIsOfInterestIfItIsTheFirstOrAfterAFailure(t *testing.T) {
	t.Parallel()
	l, lines := logging()
	set := fetched(t, key(p256, "a"), key(ed25519, "b"))
	const text = ` msg="m2mauth: the issuer's keys were fetched" issuer=https://issuer.test keys_from=https://issuer.test/jwks keys=2 next_refresh=2026-01-02T03:04:05.000Z`
	l.Fetched(set, nil, one, false)
	assert.Equal(t, []string{"level=INFO" + text}, lines())
	l.Fetched(set, nil, one, true)
	assert.Equal(t, []string{"level=INFO" + text}, lines())
	l.Fetched(set, set, one, false)
	assert.Equal(t, []string{"level=DEBUG" + text}, lines())
	l.Fetched(set, set, one, true)
	assert.Equal(t, []string{"level=INFO" + text}, lines())
}

func TestUsableKeysThatComeAndGoAreLogged(t *testing.T) {
	t.Parallel()
	l, lines := logging()
	old := parsed(t, nil, key(p256, "a"), key(ed25519, "b\n"), key(unknown, "odd"))
	set := parsed(t, old, key(p256, "a"), key(otherP256, ""), key(ed25519, "c"), key(unknown, "odd too"))
	l.Fetched(set, old, one, false)
	const from = " issuer=https://issuer.test keys_from=Config.JWKS "
	assert.Equal(t, []string{
		`level=INFO msg="m2mauth: the issuer publishes new keys"` + from + `kids=" c" keys=2`,
		`level=INFO msg="m2mauth: the issuer has withdrawn keys, whose tokens are refused from now on"` + from + `kids="\"b\\n\"" keys=1`,
	}, lines()[1:])

	var many []string
	for i := range 11 {
		many = append(many, key(p256, string(rune('a'+i))))
	}
	l.Fetched(parsed(t, set, many[:10]...), set, one, false)
	assert.Contains(t, lines()[1], `kids="b c d e f g h i j" keys=9`, "a is there already")
	l.Fetched(parsed(t, nil, many...), set, one, false)
	assert.Contains(t, lines()[1], `kids="a b c d e f g h i j" keys=11`, "ten are named")
}

func TestWhatAFetchFoundOnItsWayIsLogged(t *testing.T) {
	t.Parallel()
	l, lines := logging()
	l.Found(keyset.Found{Discovered: true})
	assert.Empty(t, lines())
	for range 2 {
		l.Found(keyset.Found{NotReread: errors.New("down")})
		assert.Equal(t, []string{`level=WARN msg="m2mauth: the discovery document could not be read again; its last jwks_uri is used" reason=down`}, lines())
	}
	l.Found(keyset.Found{Discovered: true, HTTPKeys: "http://issuer.test/jwks"})
	assert.Equal(t, []string{
		`level=WARN msg="m2mauth: the issuer names its key set over http, and it is asked for over https: at a Logto behind a proxy that ends TLS set TRUST_PROXY_HEADER=1" issuer=https://issuer.test jwks_uri=http://issuer.test/jwks`,
	}, lines())
	l.Found(keyset.Found{Discovered: true, HTTPKeys: "http://issuer.test/jwks"})
	assert.Empty(t, lines(), "once is enough")
}

func TestWhatIsOddAboutASetIsLoggedOnce(t *testing.T) {
	t.Parallel()
	l, lines := logging()
	enc := p256 + `,"use":"enc"`
	old := fetched(t, key(ed25519, "good"), key(unknown, "odd"), key(unknown, "odd"), key(enc, "e"), key(p256, "same"), key(otherP256, "same"))
	l.Odd(old, nil)
	got := lines()
	require.Len(t, got, 3)
	const url = " url=https://issuer.test/jwks reason="
	assert.Contains(t, got[0], `level=WARN msg="m2mauth: a published key cannot be used and is left out"`+url+`"kid \"odd\": `)
	assert.Contains(t, got[1], `level=DEBUG msg="m2mauth: a published key cannot be used and is left out"`+url+`"kid \"e\": `)
	assert.Equal(t, `level=WARN msg="m2mauth: different keys are published under one name, and the tokens that they sign are refused"`+url+`"kid \"same\", alg ES256" odd_keys=4`, got[2])
	for _, line := range got {
		assert.True(t, strings.HasSuffix(line, " odd_keys=4"), line)
	}

	l.Odd(old, old)
	assert.Empty(t, lines())
	l.Odd(parsed(t, old, key(ed25519, "good"), key(unknown, "odd"), key(unknown, "odd too")), old)
	got = lines()
	require.Len(t, got, 1)
	assert.Contains(t, got[0], `url=Config.JWKS reason="kid \"odd too\": `)
}

func TestTenOddKeysOfALevelAreLogged(t *testing.T) {
	t.Parallel()
	l, lines := logging()
	keys := []string{key(ed25519, "good")}
	for i := range 11 {
		keys = append(keys, key(unknown, fmt.Sprint(i)), key(p256+`,"use":"enc"`, fmt.Sprint("enc ", i)))
	}
	l.Odd(parsed(t, nil, keys...), nil)
	levels := make(map[string]int)
	for _, line := range lines() {
		level, _, _ := strings.Cut(line, " ")
		levels[level]++
		assert.NotContains(t, line, "10")
	}
	assert.Equal(t, map[string]int{"level=WARN": 10, "level=DEBUG": 10}, levels)
}

// panickingHandler is a user's slog.Handler with a mistake.
type panickingHandler struct{ slog.Handler }

func (panickingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (panickingHandler) Handle(context.Context, slog.Record) error { panic("a user's mistake") }

func TestAPanickingLoggerDoesNotEndTheProcessFromTheFetch(t *testing.T) {
	t.Parallel()
	l := Log{Logger: func() *slog.Logger { return slog.New(panickingHandler{}) }}
	assert.NotPanics(t, func() { l.Failed(errors.New("down"), time.Now(), false, time.Time{}) })
	assert.NotPanics(t, func() { l.Fetched(new(keyset.Set), nil, time.Now(), false) })
}

func TestWhyThereIsNoKeyForAToken(t *testing.T) {
	t.Parallel()
	set := fetched(t, key(p256, "a"), key(p256, "both"), key(otherP256, "both"), key(unknown, "odd"), key(ed25519, "ed"))
	problem := set.ByID["odd"][0].Problem().Error()
	for name, test := range map[string]struct {
		kid            string
		hasKID         bool
		alg            string
		why, published string
	}{
		"a key ID that is not there":          {"b\n", true, "ES256", "the issuer publishes no key with the token's key ID: it was rotated out, or this API has the keys of another server", ""},
		"one whose key is for something else": {"a", true, "EdDSA", "the issuer publishes the token's key, but it cannot be used: its use, its algorithm or its form does not fit the token", "for ES256"},
		"one whose key cannot be used":        {"odd", true, "ES256", "the issuer publishes the token's key, but it cannot be used: its use, its algorithm or its form does not fit the token", keyset.Loggable(problem)},
		"one of several keys":                 {"both", true, "ES256", "the issuer publishes several different keys with the token's key ID, and which one signed it cannot be told", "for ES256; for ES256"},
		"none, and several keys":              {"", false, "ES256", "the token names no key, and the issuer publishes several that may have signed it", ""},
		"none, and no key":                    {"", false, "RS256", "the token names no key, and the issuer publishes none for its algorithm", ""},
	} {
		assert.Equal(t, test.why, WhyNoKey(set, test.kid, test.hasKID, test.alg), name)
		want := fmt.Sprintf("[kid=%s alg=%s published=%s keys_from=https://issuer.test/jwks keys=5]", keyset.Loggable(test.kid), test.alg, test.published)
		assert.Equal(t, want, fmt.Sprint(NoKey(set, test.kid, test.hasKID, test.alg)), name)
	}
	assert.NotEmpty(t, problem)
	without := NoKey(parsed(t, nil, key(p256, ""), key(otherP256, "")), "", false, "ES256")
	assert.Equal(t, "[kid= alg=ES256 published= keys_from=Config.JWKS keys=2]", fmt.Sprint(without), "keys without an ID are not the token's")
	empty := parsed(t, nil, key(p256+`,"kid":""`, ""))
	assert.Contains(t, fmt.Sprint(NoKey(empty, "", false, "EdDSA")), "published= ", "an empty ID is not an absent one")
	assert.Contains(t, fmt.Sprint(NoKey(empty, "", true, "EdDSA")), "published=for ES256 ")
}
