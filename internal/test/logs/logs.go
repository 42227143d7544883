// Package logs keeps what goroutines write at the same time, for tests that read it.
package logs

import (
	"bytes"
	"strings"
	"sync"
)

// Buffer is a buffer that several goroutines may use.
type Buffer struct {
	mu sync.Mutex // guards the field below
	b  bytes.Buffer
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns all that was written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Count returns how often a text was written.
func (b *Buffer) Count(text string) int { return strings.Count(b.String(), text) }
