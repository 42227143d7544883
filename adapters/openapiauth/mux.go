package openapiauth

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Mux is a [net/http.ServeMux] that keeps its patterns, which a ServeMux alone does not
// list. Generated code and huma register on it as on a ServeMux. The zero Mux is empty.
// Register all routes before it serves.
type Mux struct {
	http.ServeMux
	patterns []string
}

// Handle is [net/http.ServeMux.Handle].
func (m *Mux) Handle(pattern string, handler http.Handler) {
	m.ServeMux.Handle(pattern, handler)
	m.patterns = append(m.patterns, pattern)
}

// HandleFunc is [net/http.ServeMux.HandleFunc].
func (m *Mux) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	m.ServeMux.HandleFunc(pattern, handler)
	m.patterns = append(m.patterns, pattern)
}

// Patterns returns the patterns as they were registered.
func (m *Mux) Patterns() []string { return slices.Clone(m.patterns) }

// Validate compares the table with the patterns of a server. The error names each pattern
// that the document does not have, which lets nobody through, and each operation that no
// pattern serves. Call it at set-up, or in a test, without the patterns that are meant
// to be in no document.
//
// Patterns are compared as [m2mauth.Guard.Routes] compares them: by their text. The names
// of parameters count, and a pattern for all methods is in no document. An operation of
// HEAD is served by a pattern of GET too.
func (t *Table) Validate(patterns ...string) error {
	described := make(map[string]bool)
	for _, row := range t.rows {
		described[row.Pattern()] = true
	}
	served := make(map[string]bool)
	var errs []error
	for _, pattern := range slices.Sorted(slices.Values(patterns)) {
		key := strings.Join(strings.Fields(pattern), " ")
		if !described[key] {
			errs = append(errs, fmt.Errorf("m2mauth: OpenAPI: %q is served, and the document does not have it: it lets nobody through", pattern))
		}
		served[key] = true
	}
	for _, row := range t.rows {
		pattern := row.Pattern()
		if rest, isHead := strings.CutPrefix(pattern, "HEAD "); !served[pattern] && !(isHead && served["GET "+rest]) {
			errs = append(errs, fmt.Errorf("m2mauth: OpenAPI: line %d: %q is in the document, and the server does not serve it", row.Line, pattern))
		}
	}
	return errors.Join(errs...)
}
