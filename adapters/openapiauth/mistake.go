package openapiauth

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// maxMistakes bounds an error, whatever a document contains.
const maxMistakes = 200

// Mistake is one thing that is wrong with a document or with [Options]. The error of
// [Rules] joins all of them: use errors.As for the first, or Unwrap() []error for all.
type Mistake struct {
	Line  int    // of the document, from 1; 0 if the mistake has no line, such as one in Options
	Place string // such as "GET /products" or "Options.Public"; empty for the document as a whole
	Text  string
}

// Error returns the line, the place and the text.
func (m *Mistake) Error() string {
	text := "m2mauth: OpenAPI: "
	if m.Line > 0 {
		text += fmt.Sprintf("line %d: ", m.Line)
	}
	if m.Place != "" {
		text += m.Place + ": "
	}
	return text + m.Text
}

// mistakes collects them.
type mistakes struct {
	list []*Mistake
	more int // that are not in the list
}

// add reports false if there are too many.
func (m *mistakes) add(line int, place, format string, arguments ...any) bool {
	if len(m.list) >= maxMistakes {
		m.more++
		return false
	}
	m.list = append(m.list, &Mistake{Line: line, Place: place, Text: fmt.Sprintf(format, arguments...)})
	return true
}

// err returns them in the document's order.
func (m *mistakes) err() error {
	slices.SortStableFunc(m.list, func(a, b *Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Place, b.Place), cmp.Compare(a.Text, b.Text))
	})
	var list []error
	for i, mistake := range m.list {
		if i == 0 || *mistake != *m.list[i-1] {
			list = append(list, mistake)
		}
	}
	if m.more > 0 {
		list = append(list, fmt.Errorf("m2mauth: OpenAPI: and at least %d more mistakes", m.more))
	}
	return errors.Join(list...)
}
