package attacks

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
)

// logbook is a [slog.Handler] that writes values as they are, as the simplest
// handlers do: a value with a line break in it shows as two lines.
type logbook struct {
	mu     sync.Mutex // guards the field below
	buffer bytes.Buffer
}

func (l *logbook) logger() *slog.Logger { return slog.New(l) }

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}

func (*logbook) Enabled(context.Context, slog.Level) bool { return true }

func (l *logbook) Handle(_ context.Context, record slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(&l.buffer, "level=%s msg=%s", record.Level, record.Message)
	record.Attrs(func(attr slog.Attr) bool {
		fmt.Fprintf(&l.buffer, " %s=%v", attr.Key, attr.Value.Any())
		return true
	})
	l.buffer.WriteByte('\n')
	return nil
}

func (l *logbook) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *logbook) WithGroup(string) slog.Handler      { return l }
