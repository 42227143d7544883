package m2mauth

import (
	"cmp"
	"context"
	"log/slog"
	"strings"

	"github.com/m2mauth/m2mauth/internal/keyset"
	"github.com/m2mauth/m2mauth/internal/tally"
)

// refusalLog writes rejections so that an operator sees why they happen, and a flood of
// bad requests cannot fill the log. Of each kind and reason it logs at Warn the first
// in a minute, with the number suppressed before it, and the 10th, the 100th and so on,
// so that a flood cannot hide behind one probe. It logs the rest at Debug. Failures on
// the API's side are always at Error.
type refusalLog struct {
	logger func() *slog.Logger

	tally tally.Tally
	odd   tally.Once // scopes already logged
}

// Of odd scopes so many are logged, with so many bytes of their rule: a rule of ten
// thousand is mounted in milliseconds.
const maxOddScopes, maxRuleLogged = 100, 1 << 10

func newRefusalLog(logger func() *slog.Logger) *refusalLog {
	return &refusalLog{logger: logger, odd: tally.Once{Max: maxOddScopes}}
}

// Log lines, by what happened to the request.
const (
	lineRefused     = "m2mauth: request refused"
	lineWouldRefuse = "m2mauth: request would be refused"
	lineUndecided   = "m2mauth: request passed undecided"
)

// write logs a rejection. The request and the claims may be nil.
func (l *refusalLog) write(ctx context.Context, line string, e *Error, r Request, c *claimSet) {
	level, count := slog.LevelError, tally.Count{}
	if e.Kind != ErrInternal {
		level, count = l.count(string(e.Kind), cmp.Or(e.counted, e.Description))
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
		if c.actor != nil {
			attrs = append(attrs, slog.String("actor", keyset.Loggable(c.actor.Subject)))
		}
	}
	if e.cause != nil {
		attrs = append(attrs, slog.String("cause", e.cause.Error()))
	}
	attrs = append(attrs, countAttrs(count)...)
	logger.LogAttrs(ctx, level, line, attrs...)
}

// countAttrs tells a reader of Warn about the lines at Debug.
func countAttrs(c tally.Count) (attrs []slog.Attr) {
	if !c.Loud {
		return nil
	}
	if c.Before > 0 {
		attrs = append(attrs, slog.Int("before", c.Before))
	}
	if c.Number > 1 {
		attrs = append(attrs, slog.Int("in_this_minute", c.Number))
	}
	return append(attrs, slog.String("note", "more of this kind go to Debug for a minute"))
}

// replacedStatus logs a mistake in Config.ErrorHandler.
func (l *refusalLog) replacedStatus(ctx context.Context, status, sent int) {
	level, count := l.count("", "Config.ErrorHandler")
	attrs := append([]slog.Attr{slog.Int("status", status), slog.Int("sent", sent)}, countAttrs(count)...)
	l.logger().LogAttrs(ctx, level, "m2mauth: Config.ErrorHandler answered a refused request with a status below 400; the refusal's was sent", attrs...)
}

// oddScopes logs required scopes that are valid names for Logto but probably a mistake:
// a,b for two scopes, or read:* for all that begin so. It logs each once.
func (l *refusalLog) oddScopes(rule Rule) {
	var found []string
	for _, scope := range rule.odd {
		if l.odd.First(scope) {
			found = append(found, scope)
		}
	}
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

// count counts a line, by its kind and its reason so that one mistake of a kind does not
// hide a second one, and returns its level.
func (l *refusalLog) count(kind, reason string) (slog.Level, tally.Count) {
	count := l.tally.Add(tally.Key{Kind: kind, Reason: reason})
	if count.Loud {
		return slog.LevelWarn, count
	}
	return slog.LevelDebug, count
}

func expected(s string) slog.Attr { return slog.String("expected", s) }
func got(s string) slog.Attr      { return slog.String("got", keyset.Loggable(s)) }
