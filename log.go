package m2mauth

import (
	"context"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// refusalLog writes refusals so that an operator sees why, and a flood of bad
// requests cannot fill the log: the first of each kind in a minute at Warn with
// the number of those before it, the rest at Debug.
type refusalLog struct {
	logger func() *slog.Logger

	mu    sync.Mutex // guards the fields below
	kinds map[*kind]*refusalCount
}

type refusalCount struct {
	since      time.Time
	suppressed int
}

func (l *refusalLog) write(ctx context.Context, e *Error) {
	level, suppressed := l.count(e.kind)
	if e.Status >= 500 && e.kind == ErrInternal {
		level = slog.LevelError
	}
	logger := l.logger()
	if !logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("kind", e.kind.name), slog.Int("status", e.Status), slog.String("reason", e.Text)}
	attrs = append(attrs, e.attrs...)
	if e.cause != nil {
		attrs = append(attrs, slog.String("cause", e.cause.Error()))
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("before", suppressed))
	}
	logger.LogAttrs(ctx, level, "m2mauth: request refused", attrs...)
}

func (l *refusalLog) count(k *kind) (level slog.Level, suppressed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	c := l.kinds[k]
	if c == nil {
		c = new(refusalCount)
		l.kinds[k] = c
	}
	if now.Sub(c.since) < time.Minute {
		c.suppressed++
		return slog.LevelDebug, 0
	}
	suppressed = c.suppressed
	*c = refusalCount{since: now}
	return slog.LevelWarn, suppressed
}

func expected(s string) slog.Attr { return slog.String("expected", s) }
func got(s string) slog.Attr      { return slog.String("got", loggable(s)) }

// loggable makes a string that a caller chose fit for a log: short, and without
// control characters that a handler might write as they are.
func loggable(s string) string {
	const limit = 200
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	if quotable(s) == s {
		return s
	}
	return strconv.QuoteToASCII(s)
}

// issuerHint says what to do about a token of another issuer. The common
// mistakes of those who begin with Logto get a sentence of their own.
func issuerHint(want, got string) string {
	const text = "the token is from another issuer than the one that this API trusts"
	w, err1 := url.Parse(want)
	g, err2 := url.Parse(got)
	switch {
	case sameButForSpelling(want, got):
		return text + ": they differ by a trailing slash or by letter case alone, and are compared exactly"
	case got == strings.TrimSuffix(want, "/")+"/oidc":
		return text + ": the issuer of Logto ends in /oidc, and so must this API's Issuer setting"
	case err1 != nil || err2 != nil || g.Host == "":
		return text
	case w.Hostname() == g.Hostname():
		return text + ", though on the same host: scheme, port and path count too, and Logto's admin tenant is an issuer of its own"
	case w.Path == g.Path:
		return text + ": request it from the server and domain of that issuer; another domain of the same server is another issuer, and so is Logto's admin tenant"
	}
	return text
}

// audienceHint is issuerHint for a token that is for another resource.
func audienceHint(want, got []string) string {
	const text = "the token is for another resource than this API"
	if slices.Equal(want, []string{organizationAudience}) {
		return text + ": it is not an organization token; request one with organization_id and without resource"
	}
	for _, g := range got {
		if strings.HasPrefix(g, organizationAudience) {
			return text + ": it is an organization token; request one with the resource parameter that names this API"
		}
		for _, w := range want {
			if sameButForSpelling(w, g) {
				return text + ": the two differ by a trailing slash or by letter case alone, and are compared exactly"
			}
		}
	}
	return text + ": request one with the resource parameter that names this API"
}

func sameButForSpelling(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "/"), strings.TrimSuffix(b, "/"))
}
