// Package leaks holds what guards, requests and faulty servers leave behind: goroutines,
// connections, memory.
package leaks

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"runtime"
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

// Guards need no closing. A bubble fails if a goroutine of it is left waiting,
// be it for a timer, when the test's function returns.
func TestDroppedGuardsLeaveNoGoroutine(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(context.Context, *m2mauthtest.Issuer, *m2mauth.Guard) error{
		"after a good token": func(ctx context.Context, issuer *m2mauthtest.Issuer, guard *m2mauth.Guard) error {
			_, err := guard.Verify(ctx, issuer.Token(testguard.Shop))
			return err
		},
		"after Warm": func(ctx context.Context, _ *m2mauthtest.Issuer, guard *m2mauth.Guard) error {
			return guard.Warm(ctx)
		},
		"after an unknown key": func(ctx context.Context, issuer *m2mauthtest.Issuer, guard *m2mauth.Guard) error {
			_, err := guard.Verify(ctx, issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"kid": "made up"}}))
			assert.ErrorIs(t, err, m2mauth.ErrUnknownKey)
			return nil
		},
		"after a refresh ahead of its time": func(ctx context.Context, issuer *m2mauthtest.Issuer, guard *m2mauth.Guard) error {
			if err := guard.Warm(ctx); err != nil {
				return err
			}
			time.Sleep(10*time.Minute - time.Second)
			_, err := guard.Verify(ctx, issuer.Token(testguard.Shop)) // leaves before the refresh is done
			return err
		},
		"with a caller who gives up": func(_ context.Context, issuer *m2mauthtest.Issuer, guard *m2mauth.Guard) error {
			testguard.KeysHanging(issuer)
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			_, err := guard.Verify(ctx, issuer.Token(testguard.Shop))
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			return nil
		},
		"with an issuer that hangs": func(ctx context.Context, issuer *m2mauthtest.Issuer, guard *m2mauth.Guard) error {
			testguard.KeysHanging(issuer)
			_, err := guard.Verify(ctx, issuer.Token(testguard.Shop))
			assert.ErrorIs(t, err, m2mauth.ErrUnavailable)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				for range 100 {
					issuer := m2mauthtest.NewIssuer()
					require.NoError(t, use(t.Context(), issuer, testguard.Quiet(t, issuer)))
				}
				time.Sleep(5 * time.Second) // the fetch timeout: what hangs has ended by then
			})
		})
	}
}

// The same with the guard's own client over the network, whose connections have
// goroutines too. Not parallel: it counts those of the process.
func TestDroppedGuardsLeaveNoConnection(t *testing.T) {
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	defer issuer.Close() // after the count: it would close connections that are left
	token := issuer.Token(testguard.Shop)
	check := func() {
		guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.HTTPClient = nil })
		_, err := guard.Verify(t.Context(), token)
		require.NoError(t, err)
	}
	before := runtime.NumGoroutine()
	for range 100 {
		check()
	}
	assert.LessOrEqual(t, settledGoroutines(before), before)
}

// settledGoroutines waits until there are no more than want, for as long as a busy
// machine may need: a closed connection's goroutines end a moment later.
func settledGoroutines(want int) int {
	for start := time.Now(); time.Since(start) < keysPatience; runtime.Gosched() {
		if n := runtime.NumGoroutine(); n <= want {
			return n
		}
	}
	return runtime.NumGoroutine()
}

// costly are credentials as large as may be, made to cost memory, and the kind
// of error that tells how far they are read.
type costly struct {
	fields []string
	kind   error
}

func costlyCredentials(issuer *m2mauthtest.Issuer) map[string]costly {
	const room = 8 << 10
	segment := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	header := segment(`{"alg":"ES384","typ":"at+jwt","kid":"made up"}`)
	// filled repeats a piece until the whole token has 8 KiB.
	filled := func(before, piece, after string) string {
		space := (room-len(header)-8)*3/4 - len(before) - len(after)
		return before + strings.Repeat(piece, space/len(piece)) + after
	}
	payload := func(before, piece, after string) []string {
		return []string{"Bearer " + header + "." + segment(filled(before, piece, after)) + ".AAAA"}
	}
	inHeader := func(before, piece, after string) []string {
		return []string{"Bearer " + segment(filled(before, piece, after)) + "." + segment(`{}`) + ".AAAA"}
	}
	// Claims that pass, so that everything is read and the key is looked for.
	const good = `"iss":"https://issuer.test/oidc","sub":"a","client_id":"a","iat":1,"jti":"a","exp":99999999999,"aud":["https://shopping.api"`
	members := func(format func(i int) string) string {
		var b strings.Builder
		for i := 0; b.Len() < 5800; i++ {
			b.WriteString(format(i))
		}
		return b.String()
	}
	number := func(i int) string { // short names, all different
		const digits = "abcdefghijklmnopqrstuvwxyz0123456789"
		return string([]byte{digits[i%36], digits[i/36%36], digits[i/1296%36]})
	}
	many := members(func(i int) string { return `"` + number(i) + `":0,` })
	escaped := members(func(i int) string { return `"\u0061` + number(i) + `":0,` })
	return map[string]costly{
		"a good token":                      {[]string{"Bearer " + issuer.Token(testguard.Shop, "read")}, nil},
		"a small token of another resource": {[]string{"Bearer " + issuer.Token("https://other.api")}, m2mauth.ErrAudience},
		"no token":                          {[]string{}, m2mauth.ErrNoToken},
		"a thousand fields":                 {strings.Split(strings.Repeat("Bearer a,", 1000), ","), m2mauth.ErrRequest},
		"an opaque token":                   {[]string{"Bearer " + strings.Repeat("a", room)}, m2mauth.ErrMalformed},
		"dots":                              {[]string{"Bearer a" + strings.Repeat(".", room-1)}, m2mauth.ErrMalformed},
		"two dots and nothing else":         {[]string{"Bearer " + strings.Repeat("a", room-3) + ".a."}, m2mauth.ErrMalformed},
		"an endless scheme":                 {[]string{strings.Repeat("a", room)}, m2mauth.ErrNoToken},
		"spaces":                            {[]string{"Bearer" + strings.Repeat(" ", room-1) + "a"}, m2mauth.ErrMalformed},
		"a huge signature":                  {[]string{"Bearer " + header + "." + segment(`{`+good+`]}`) + "." + strings.Repeat("A", 7600)}, m2mauth.ErrUnknownKey},
		"many members":                      {payload(`{`+many+`"z":"`, "a", `"}`), m2mauth.ErrClaims},
		"many escaped members":              {payload(`{`+escaped+`"z":"`, "a", `"}`), m2mauth.ErrClaims},
		"many members and good claims":      {payload(`{`+many[:5000]+`"z":"",`+good+`],"y":"`, "a", `"}`), m2mauth.ErrUnknownKey},
		"many members of a member":          {payload(`{"a":{`+many+`"z":"`, "a", `"}}`), m2mauth.ErrClaims},
		"many objects":                      {payload(`{"a":[`, `{"a":{}},`, `0]}`), m2mauth.ErrClaims},
		"many arrays":                       {payload(`{"a":[`, `[],`, `0]}`), m2mauth.ErrClaims},
		"deep nesting":                      {payload(`{"a":`, "[", ""), m2mauth.ErrMalformed},
		"deep objects":                      {payload(``, `{"a":`, ""), m2mauth.ErrMalformed},
		"many brackets in 32 levels":        {payload(strings.Repeat(`{"a":`, 31)+`[`, `{},`, `0]`+strings.Repeat(`}`, 31)), m2mauth.ErrMalformed},
		"one long string":                   {payload(`{"sub":"`, "a", `"}`), m2mauth.ErrClaims},
		"one long escaped string":           {payload(`{"iss":"`, `\u0061`, `"}`), m2mauth.ErrIssuer},
		"a long issuer":                     {payload(`{"iss":"`, "a", `"}`), m2mauth.ErrIssuer},
		"a long issuer of odd letters":      {payload(`{"iss":"`, "\u2028", `"}`), m2mauth.ErrIssuer},
		"a long URL as issuer":              {payload(`{"iss":"https://a.example/`, "%61", `"}`), m2mauth.ErrIssuer},
		"many audiences":                    {payload(`{"iss":"https://issuer.test/oidc","aud":[`, `"",`, `""]}`), m2mauth.ErrAudience},
		"many audiences and ours":           {payload(`{`+good+`,`, `"",`, `""]}`), m2mauth.ErrUnknownKey},
		"one long audience":                 {payload(`{"iss":"https://issuer.test/oidc","aud":"`, "a", `"}`), m2mauth.ErrAudience},
		"audiences of other spellings":      {payload(`{"iss":"https://issuer.test/oidc","aud":[`, `"https://shopping.aPI",`, `""]}`), m2mauth.ErrAudience},
		"a scope of spaces":                 {payload(`{`+good+`],"scope":"`, " ", `"}`), m2mauth.ErrUnknownKey},
		"a scope of single letters":         {payload(`{`+good+`],"scope":"`, "a ", `"}`), m2mauth.ErrUnknownKey},
		"scopes in an array":                {payload(`{`+good+`],"scope":[`, `"",`, `""]}`), m2mauth.ErrUnknownKey},
		"a long number":                     {payload(`{`+good+`],"nbf":0.`, "1", `}`), m2mauth.ErrUnknownKey},
		"a long client":                     {payload(`{`+good+`],"client_id2":"`, "a", `"}`), m2mauth.ErrUnknownKey},
		"a long organization":               {payload(`{`+good+`],"organization_id":"`, "a", `"}`), m2mauth.ErrUnknownKey},
		"white space":                       {payload(`{`, " ", `}`), m2mauth.ErrClaims},
		"zeros":                             {payload(``, "\x00", ``), m2mauth.ErrMalformed},
		"a header of many members":          {inHeader(`{`+many+`"z":"`, "a", `"}`), m2mauth.ErrAlgorithm},
		"a header with a long alg":          {inHeader(`{"alg":"`, "a", `"}`), m2mauth.ErrAlgorithm},
		"a header with a long typ":          {inHeader(`{"alg":"ES384","typ":"`, "a", `"}`), m2mauth.ErrType},
		"a header with a long typ of İ":     {inHeader(`{"alg":"ES384","typ":"`, "İ", `"}`), m2mauth.ErrType},
		"a header with a long kid":          {inHeader(`{"alg":"ES384","typ":"at+jwt","kid":"`, "\u2028", `"}`), m2mauth.ErrClaims},
		"a long kid and good claims": {[]string{"Bearer " + segment(`{"alg":"ES384","typ":"at+jwt","kid":"`+strings.Repeat("\u2028", 1800)+`"}`) + "." +
			segment(`{`+good+`]}`) + ".AAAA"}, m2mauth.ErrUnknownKey},
	}
}

// What one request makes the API allocate, log lines included, is at most 20
// times what the client sent and 8 KiB. Not parallel: it counts the process's
// allocations. In a bubble, so that the key ID that is absent stays so.
func TestMemoryOfARequestIsBounded(t *testing.T) {
	synctest.Test(t, memoryOfARequestIsBounded)
}

func memoryOfARequestIsBounded(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config(testguard.Shop)
	config.Logger = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	require.NoError(t, guard.Warm(t.Context()))
	_, err = guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"kid": "made up"}}))
	require.ErrorIs(t, err, m2mauth.ErrUnknownKey, "the kid is known to be absent, and causes no fetch below")
	fetches := issuer.Fetches()

	for name, test := range costlyCredentials(issuer) {
		sent := 0
		for _, field := range test.fields {
			sent += len(field)
		}
		r := testguard.RequestWith(test.fields...)
		_, err := guard.Check(r, m2mauth.AllScopes("read"))
		if !errors.Is(err, m2mauth.ErrUnavailable) || test.kind != m2mauth.ErrUnknownKey { // in the pause between refetches
			require.ErrorIs(t, err, test.kind, name)
		}
		bound := uint64(20*sent + 8<<10)
		assert.LessOrEqual(t, leastAllocated(func() { _, _ = guard.Check(r, m2mauth.AllScopes("read")) }), bound, name)
	}
	assert.LessOrEqual(t, issuer.Fetches().JWKS, fetches.JWKS+1, "a fetch would count as well")
}

// leastAllocated returns the bytes that f allocates; of several runs the least,
// since other goroutines allocate too.
func leastAllocated(f func()) uint64 {
	least := ^uint64(0)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}
