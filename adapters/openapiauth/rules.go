package openapiauth

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/m2mauth/m2mauth"
)

// Options says what a document does not. The zero Options accepts only documents in which
// each operation requires a scope, or is public by an empty list of security.
//
// In the lists an operation is named by its operationId, or by its method and its path as
// the document has them ("GET /products/{id}"). A name that matches no operation is a
// mistake, and so is one of an operation that does not need it: a list says nothing
// that the document does not ask for.
type Options struct {
	// BasePath stands before each path of the document, such as "/v1". The default is
	// none. The document's servers are not read: they say where clients go, which
	// may be a proxy, and not what the API sees.
	BasePath string

	// Public names operations without any security that are meant to be open to
	// everyone.
	Public []string

	// Optional names operations that are meant to serve requests without credentials
	// too ({} among the alternatives): their rule is made by [m2mauth.Optional].
	Optional []string

	// AnyToken names operations for which any valid token is meant to be enough: an
	// empty list of scopes, or a scheme of type http and scheme bearer, which has no
	// scopes. See [m2mauth.AnyToken]: that is identification, not permission.
	AnyToken []string

	// Elsewhere names operations whose schemes of other types (apiKey, http basic,
	// mutualTLS) something else checks. This table then requires nothing in place of
	// those schemes: an alternative that has nothing else is open as far as the table
	// goes, so that the operation is optional, or public if there is no other
	// alternative.
	Elsewhere []string
}

// Row is the rule of an operation.
type Row struct {
	// Method is in upper case. A row of GET holds for HEAD too, as in net/http. If the
	// document has both, both have rows with the same rule.
	Method string

	// Path begins with Options.BasePath. Each parameter is a segment {name}, in which
	// characters other than letters, digits and _ are written as _ (as by oapi-codegen). A
	// slash at the end means only that path.
	Path string

	Rule        m2mauth.Rule // the zero Rule if Public
	Public      bool         // open to everyone
	OperationID string       // "" if the document has none
	Line        int          // of the operation in the document
}

// Pattern returns the row as a pattern of [net/http.ServeMux]: "GET /v1/products/{id}".
// A path that ends in a slash ends in {$} here, since net/http would take it for
// everything below.
func (r Row) Pattern() string {
	pattern := r.Method + " " + r.Path
	if strings.HasSuffix(r.Path, "/") {
		pattern += "{$}"
	}
	return pattern
}

// Table is what [Rules] makes. It cannot be changed.
type Table struct{ rows []Row }

// Rows returns all rows, by path and method.
func (t *Table) Rows() []Row { return slices.Clone(t.rows) }

// Rules returns the rules by pattern, for [m2mauth.Guard.Routes].
func (t *Table) Rules() map[string]m2mauth.Rule {
	rules := make(map[string]m2mauth.Rule)
	for _, row := range t.rows {
		if !row.Public {
			rules[row.Pattern()] = row.Rule
		}
	}
	return rules
}

// Public returns the patterns that are open to everyone, for [m2mauth.Guard.Routes].
func (t *Table) Public() []string {
	var public []string
	for _, row := range t.rows {
		if row.Public {
			public = append(public, row.Pattern())
		}
	}
	return public
}

// Rules makes the table of an OpenAPI document, which is JSON or YAML. If there is an
// error, there is no table. The error joins every mistake as a [*Mistake], in the order of
// the document's lines. Webhooks and callbacks are requests that the API sends: they have
// no rows.
func Rules(document []byte, options Options) (*Table, error) {
	var m mistakes
	d := readDocument(document, &m)
	if d == nil {
		return nil, m.err()
	}
	b := builder{document: d, mistakes: &m, base: options.BasePath}
	b.checkBase()
	b.collect()
	b.find(options)
	var rows []Row
	for _, op := range b.operations {
		rows = append(rows, b.row(op))
	}
	b.compareAll(rows)
	b.unused()
	if len(m.list) > 0 {
		return nil, m.err()
	}
	return &Table{rows}, nil
}

// builder makes rows of a document.
type builder struct {
	document   *document
	mistakes   *mistakes
	base       string
	operations []*operation
	names      []*mention
}

// operation is one of the document's, with what Options says about it.
type operation struct {
	openapi3.Operation
	method   string
	path     string // as the document has it
	template template
	pointer  string
	line     int
	meant    map[string]*mention // by list
}

func (op *operation) String() string { return op.method + " " + op.path }

// mention is an entry of a list of Options.
type mention struct {
	list, text string
	used       bool
}

// Lists of Options.
const (
	listPublic    = "Options.Public"
	listOptional  = "Options.Optional"
	listAnyToken  = "Options.AnyToken"
	listElsewhere = "Options.Elsewhere"
)

func (b *builder) checkBase() {
	if b.base == "" {
		return
	}
	t, err := parseTemplate(b.base)
	switch {
	case err != nil:
		b.mistakes.add(0, "Options.BasePath", "%s: %v", quote(b.base), err)
	case t[len(t)-1] == (segment{}) || strings.Contains(b.base, "{"):
		b.mistakes.add(0, "Options.BasePath", "%s: write it without parameters and without a slash at its end, such as /v1", quote(b.base))
	}
}

// collect makes the list of operations, by path and method.
func (b *builder) collect() {
	paths := b.document.model.Paths.Map()
	byID := make(map[string]*operation)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := paths[path]
		pointer := "/paths/" + escapePointer(path)
		line := b.document.lines[pointer]
		t, err := parseTemplate(path)
		if err != nil {
			b.mistakes.add(line, limited(path), "%v", err)
		}
		b.checkParameters(line, path, item.Parameters)
		if item.Ref != "" {
			pointer = targetOf(item.Ref)
		}
		for _, method := range slices.Sorted(maps.Keys(item.Operations())) {
			op := &operation{Operation: *item.Operations()[method], method: method, path: path, template: t,
				pointer: pointer + "/" + strings.ToLower(method), meant: make(map[string]*mention)}
			op.line = b.document.lines[op.pointer]
			b.checkParameters(op.line, op.String(), op.Parameters)
			if other := byID[op.OperationID]; other != nil && op.OperationID != "" {
				b.mistakes.add(op.line, limited(op.String()), "its operationId %s is that of %s too", quote(op.OperationID), limited(other.String()))
			}
			byID[op.OperationID] = op
			b.operations = append(b.operations, op)
		}
	}
	if len(b.operations) == 0 && len(b.mistakes.list) == 0 {
		b.mistakes.add(0, "", "the document has no operations: a table of it would refuse everything")
	}
}

// checkParameters refuses parameters whose place in a path is not a plain segment.
func (b *builder) checkParameters(line int, place string, parameters openapi3.Parameters) {
	for _, ref := range parameters {
		switch {
		case ref == nil || ref.Value == nil:
			b.mistakes.add(line, limited(place), "a parameter has a $ref that leads nowhere")
		case ref.Value.In == openapi3.ParameterInPath && (ref.Value.Style == openapi3.SerializationMatrix || ref.Value.Style == openapi3.SerializationLabel):
			b.mistakes.add(line, limited(place), "the parameter %s has the style %s, which puts a semicolon or a dot before its value: no pattern of net/http can say that", quote(ref.Value.Name), ref.Value.Style)
		}
	}
}

// find looks for the operations that Options names.
func (b *builder) find(options Options) {
	lists := map[string][]string{listPublic: options.Public, listOptional: options.Optional, listAnyToken: options.AnyToken, listElsewhere: options.Elsewhere}
	byName := make(map[string]*operation)
	for _, op := range b.operations {
		if op.OperationID != "" {
			byName[op.OperationID] = op
		}
	}
	for _, op := range b.operations {
		if other := byName[op.String()]; other != nil && other != op {
			b.mistakes.add(other.line, limited(other.String()), "its operationId is the method and path of another operation")
		}
		byName[op.String()] = op
	}
	for _, list := range slices.Sorted(maps.Keys(lists)) {
		for _, text := range lists[list] {
			switch op := byName[text]; {
			case op == nil:
				b.mistakes.add(0, list, "%s is no operation of the document: write an operationId, or a method and a path as the document has them", quote(text))
			case op.meant[list] != nil:
				b.mistakes.add(0, list, "%s is there twice", quote(text))
			default:
				op.meant[list] = &mention{list: list, text: text}
				b.names = append(b.names, op.meant[list])
			}
		}
	}
}

// unused reports what Options names without need.
func (b *builder) unused() {
	for _, n := range b.names {
		if !n.used {
			b.mistakes.add(0, n.list, "%s does not need it: the document has nothing of that kind there", quote(n.text))
		}
	}
}

// means reports whether Options names an operation in a list.
func (op *operation) means(list string) bool {
	n := op.meant[list]
	if n != nil {
		n.used = true
	}
	return n != nil
}

func (b *builder) row(op *operation) Row {
	row := Row{Method: op.method, OperationID: op.OperationID, Line: op.line}
	row.Path = b.base + op.template.path()
	row.Rule, row.Public = b.demand(op)
	return row
}

// compareAll refuses paths that two templates share where it is not clear which of two
// demands holds.
func (b *builder) compareAll(rows []Row) {
	demands := make([]string, len(rows))
	var seen tree
	budget := maxCompared
	for i, op := range b.operations {
		if demands[i] = rows[i].Rule.String(); op.template == nil {
			continue
		}
		numbers, visited := seen.sharing(op.template)
		if budget -= visited + len(numbers); budget < 0 {
			b.mistakes.add(op.line, limited(op.String()), "so many templates share paths that comparing them all would take too long")
			return
		}
		for _, j := range numbers {
			other := b.operations[j]
			if demands[i] == demands[j] || !isUnclear(op, other) {
				continue
			}
			late, early := op, other
			if late.line < early.line {
				late, early = early, late
			}
			if !b.mistakes.add(late.line, limited(late.String()), "shares paths with %s (line %d), which requires something else, and servers differ in which of the two they take", limited(early.String()), early.line) {
				return // there may be millions
			}
		}
		seen.insert(op.template, i)
	}
}

// isUnclear reports whether a request can be of both, and servers differ. GET serves HEAD
// too, so HEAD takes no path from a GET that is more literal.
func isUnclear(a, b *operation) bool {
	switch p := compare(a.template, b.template); {
	case a.method == b.method:
		return p == unclear
	case a.method == http.MethodGet && b.method == http.MethodHead:
		return p == unclear || p == first
	case a.method == http.MethodHead && b.method == http.MethodGet:
		return p == unclear || p == second
	}
	return false
}
