package testguard

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// The defaults that these tests count with, written down again on purpose.
const (
	KeysAPI      = "https://api.test"
	KeysTTL      = 10 * time.Minute
	KeysStaleFor = time.Hour
	KeysTimeout  = 5 * time.Second
	KeysBackoff  = 30 * time.Second // the longest
	KeysRetry    = time.Minute      // the longest Retry-After of the issuer
	KeysKeyless  = 10 * time.Second // the longest while no keys serve
	KeysAbsent   = 30 * time.Second // for which a key ID found absent causes no fetch
	KeysPause    = 10 * time.Second // the longest between refetches for one source
)

// KeysGuard makes a guard that logs nothing, for tokens of [KeysToken].
func KeysGuard(t testing.TB, issuer *m2mauthtest.Issuer, changes ...func(*m2mauth.Config)) *m2mauth.Guard {
	t.Helper()
	c := issuer.Config(KeysAPI)
	c.Logger = slog.New(slog.DiscardHandler)
	for _, change := range changes {
		change(&c)
	}
	g, err := m2mauth.New(c)
	require.NoError(t, err)
	return g
}

// KeysBubble runs a test in a bubble of its own, and then lets a fetch that is
// still under way end: if a goroutine remains after that, the test fails.
func KeysBubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer time.Sleep(2 * KeysTimeout)
		test(t)
	})
}

// KeysAnswer returns the HTTP status that a token gets, and how long it waited.
func KeysAnswer(ctx context.Context, g *m2mauth.Guard, token string) (status int, waited time.Duration) {
	begin := time.Now()
	_, err := g.Verify(ctx, token)
	waited = time.Since(begin)
	var e *m2mauth.Error
	switch {
	case err == nil:
		return http.StatusOK, waited
	case errors.As(err, &e):
		return e.Status, waited
	}
	return 0, waited
}

// KeysAtOnce asserts the answer to a token, and that it came without waiting.
func KeysAtOnce(t testing.TB, g *m2mauth.Guard, token string, want int, msg ...any) {
	t.Helper()
	status, waited := KeysAnswer(t.Context(), g, token)
	assert.Equal(t, want, status, msg...)
	assert.Zero(t, waited, msg...)
}

// KeysEventually asserts the answer alone.
func KeysEventually(t testing.TB, g *m2mauth.Guard, token string, want int, msg ...any) (waited time.Duration) {
	t.Helper()
	status, waited := KeysAnswer(t.Context(), g, token)
	assert.Equal(t, want, status, msg...)
	return waited
}

// KeysToken signs a token that lives for the whole test, with the key of that ID; ""
// stands for the current one.
func KeysToken(issuer *m2mauthtest.Issuer, kid string) string {
	return issuer.Sign(m2mauthtest.Token{Audience: KeysAPI, KeyID: kid, Lifetime: 1000 * time.Hour})
}

// KeysMadeUp returns a maker of tokens whose kid no issuer has. They are cheap:
// nobody will look at their signature.
func KeysMadeUp(issuer *m2mauthtest.Issuer) func(kid string) string {
	_, rest, _ := strings.Cut(KeysToken(issuer, ""), ".")
	return func(kid string) string {
		header := fmt.Sprintf(`{"alg":"ES384","typ":"at+jwt","kid":%q}`, kid)
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
	}
}

// KeysHook has the key set answered by f, and all else by the issuer.
func KeysHook(issuer *m2mauthtest.Issuer, f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	KeysHookAt(issuer, "/oidc/jwks", f)
}

// KeysHookAt has a path answered by f; one that ends in a slash is part of many.
func KeysHookAt(issuer *m2mauthtest.Issuer, path string, f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	issuer.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path || strings.HasSuffix(path, "/") && strings.Contains(r.URL.Path, path) {
				f(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
}

// KeysDown has everything answered with a failure.
func KeysDown(issuer *m2mauthtest.Issuer) {
	issuer.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "down", http.StatusBadGateway)
		})
	})
}

// KeysHanging lets every request wait until its client gives up.
func KeysHanging(issuer *m2mauthtest.Issuer) {
	issuer.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	})
}

// KeysSlow delays every answer.
func KeysSlow(issuer *m2mauthtest.Issuer, delay time.Duration) {
	issuer.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(delay) // in a bubble
			next.ServeHTTP(w, r)
		})
	})
}

// KeysMemory returns a function that tells how much memory is held since.
func KeysMemory(testing.TB) func() int64 {
	held := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := held()
	return func() int64 { return held() - before }
}

// RoundTripper is an [http.RoundTripper].
type RoundTripper func(*http.Request) (*http.Response, error)

// RoundTrip calls f.
func (f RoundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// KeysLog is a [slog.Handler] that keeps what it is told.
type KeysLog struct {
	mu      sync.Mutex // guards the fields below
	records []slog.Record
}

// Enabled is for all levels.
func (l *KeysLog) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs returns l.
func (l *KeysLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup returns l.
func (l *KeysLog) WithGroup(string) slog.Handler { return l }

// Handle keeps a record.
func (l *KeysLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
	return nil
}

// Count returns how many records about the issuer's keys had the level.
func (l *KeysLog) Count(level slog.Level) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		if r.Level == level && !strings.Contains(r.Message, "refused") {
			n++
		}
	}
	return n
}

// Text returns all messages with their attributes.
func (l *KeysLog) Text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, r := range l.records {
		b.WriteString(r.Message)
		r.Attrs(func(a slog.Attr) bool { b.WriteString(" " + a.String()); return true })
		b.WriteByte('\n')
	}
	return b.String()
}

// Since returns the lines of a log of keys that came after the first n.
func (l *KeysLog) Since(n int) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records[n:] {
		line := r.Level.String() + " " + strings.TrimPrefix(r.Message, "m2mauth: ")
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "kids" || a.Key == "keys" {
				line += " " + a.String()
			}
			return true
		})
		lines = append(lines, line)
	}
	return lines
}
