package m2mauth

import (
	"cmp"
	"context"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/m2mauth/m2mauth/internal/keyset"
)

// refusalLog writes rejections so that an operator sees why they happen, and a flood of
// bad requests cannot fill the log. Of each kind and reason it logs at Warn the first
// in a minute, with the number suppressed before it, and the 10th, the 100th and so on,
// so that a flood cannot hide behind one probe. It logs the rest at Debug. Failures on
// the API's side are always at Error.
type refusalLog struct {
	logger func() *slog.Logger

	mu     sync.Mutex // guards the fields below
	counts map[refusalKey]*refusalCount
	odd    []string // scopes already logged
}

// refusalKey is what rejections are counted by, so that one mistake of a kind does not
// hide a second one. All texts of Deny, of which there may be any number, count as one.
type refusalKey struct {
	kind   ErrorKind
	reason string
}

// key returns what the error counts as in the log.
func (e *Error) key() refusalKey { return refusalKey{e.Kind, cmp.Or(e.counted, e.Description)} }

// maxRefusalKeys bounds the memory; the texts of this package are fewer. What is
// over it counts by kind alone.
const maxRefusalKeys = 256

// Of odd scopes so many are logged, with so many bytes of their rule: a rule of ten
// thousand is mounted in milliseconds.
const maxOddScopes, maxRuleLogged = 100, 1 << 10

type refusalCount struct {
	since      time.Time
	number     int // of rejections since then
	suppressed int // how many of them went to Debug
}

func newRefusalLog(logger func() *slog.Logger) *refusalLog {
	return &refusalLog{logger: logger, counts: make(map[refusalKey]*refusalCount)}
}

// Log lines, by what happened to the request.
const (
	lineRefused     = "m2mauth: request refused"
	lineWouldRefuse = "m2mauth: request would be refused"
	lineUndecided   = "m2mauth: request passed undecided"
)

// write logs a rejection. The request and the claims may be nil.
func (l *refusalLog) write(ctx context.Context, line string, e *Error, r Request, c *claimSet) {
	level, number, suppressed := slog.LevelError, 0, 0
	if e.Kind != ErrInternal {
		level, number, suppressed = l.count(e.key())
	}
	logger := l.logger()
	if !logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("kind", e.Kind.words()), slog.Int("status", e.Status), slog.String("reason", e.Description)}
	attrs = append(attrs, e.attrs...)
	if pattern := patternOf(r); pattern != "" {
		attrs = append(attrs, slog.String("pattern", pattern))
	}
	if c != nil { // of a verified token
		attrs = append(attrs, slog.String("client_id", keyset.Loggable(c.clientID)))
	}
	if e.cause != nil {
		attrs = append(attrs, slog.String("cause", e.cause.Error()))
	}
	attrs = append(attrs, countAttrs(level, number, suppressed)...)
	logger.LogAttrs(ctx, level, line, attrs...)
}

// countAttrs tells a reader of Warn about the lines at Debug.
func countAttrs(level slog.Level, number, suppressed int) (attrs []slog.Attr) {
	if level != slog.LevelWarn {
		return nil
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("before", suppressed))
	}
	if number > 1 {
		attrs = append(attrs, slog.Int("in_this_minute", number))
	}
	return append(attrs, slog.String("note", "more of this kind go to Debug for a minute"))
}

// replacedStatus logs a mistake in Config.ErrorHandler.
func (l *refusalLog) replacedStatus(ctx context.Context, status, sent int) {
	level, number, suppressed := l.count(refusalKey{reason: "Config.ErrorHandler"})
	attrs := append([]slog.Attr{slog.Int("status", status), slog.Int("sent", sent)}, countAttrs(level, number, suppressed)...)
	l.logger().LogAttrs(ctx, level, "m2mauth: Config.ErrorHandler answered a refused request with a status below 400; the refusal's was sent", attrs...)
}

// oddScopes logs required scopes that are valid names for Logto but probably a mistake:
// a,b for two scopes, or read:* for all that begin so. It logs each once.
func (l *refusalLog) oddScopes(rule Rule) {
	l.mu.Lock()
	var found []string
	for _, scope := range rule.odd {
		if len(l.odd) < maxOddScopes && !slices.Contains(l.odd, scope) {
			l.odd, found = append(l.odd, scope), append(found, scope)
		}
	}
	l.mu.Unlock()
	if len(found) == 0 {
		return
	}
	text := rule.String()
	if len(text) > maxRuleLogged {
		text = strings.ToValidUTF8(text[:maxRuleLogged], "") + "..."
	}
	for _, scope := range found {
		l.logger().Warn("m2mauth: a scope that a route requires holds a comma or a star, and is one name all the same",
			"scope", scope, "rule", text)
	}
}

// count returns the level of the next rejection, its number since the first of the
// minute, and, for the first, how many before it went to Debug.
func (l *refusalLog) count(key refusalKey) (level slog.Level, number, suppressed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	c := l.counts[key]
	if c == nil && len(l.counts) >= maxRefusalKeys {
		key.reason = ""
		c = l.counts[key]
	}
	if c == nil {
		c = new(refusalCount)
		l.counts[key] = c
	}
	if age(now, c.since) >= time.Minute {
		suppressed = c.suppressed
		*c = refusalCount{since: now, number: 1}
		return slog.LevelWarn, 1, suppressed
	}
	if c.number++; isPowerOfTen(c.number) {
		return slog.LevelWarn, c.number, 0
	}
	c.suppressed++
	return slog.LevelDebug, c.number, 0
}

func isPowerOfTen(n int) bool {
	for n > 1 && n%10 == 0 {
		n /= 10
	}
	return n == 1
}

func expected(s string) slog.Attr { return slog.String("expected", s) }
func got(s string) slog.Attr      { return slog.String("got", keyset.Loggable(s)) }

// issuerHint says what to do about a token from another issuer. Mistakes that are
// common with Logto get their own sentence.
func issuerHint(want, got string) string {
	const text = "the token is from another issuer than the one that this API trusts"
	w, err1 := url.Parse(want)
	g, err2 := url.Parse(got)
	logto := "" // empty for users of other issuers
	if err1 == nil && strings.HasSuffix(w.Path, "/oidc") {
		logto = "; Logto's admin tenant is an issuer of its own"
	}
	switch {
	case sameButForSpelling(want, got):
		return text + ": they differ by a trailing slash or by letter case alone, and are compared exactly"
	case got == strings.TrimSuffix(want, "/")+"/oidc":
		return text + ": the issuer of Logto ends in /oidc, and so must this API's Issuer setting"
	case err1 != nil || err2 != nil || g.Host == "":
		return text
	case w.Hostname() == g.Hostname():
		return text + ", though on the same host: scheme, port and path count too" + logto
	case w.Path == g.Path:
		return text + ": request it from the server and domain of that issuer; another domain of the same server is another issuer" + logto
	}
	return text
}

// audienceHint is issuerHint for a token for another resource.
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
