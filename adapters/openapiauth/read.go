package openapiauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// What a document may cost.
const (
	maxBytes    = 2 << 20 // of which each may take 120 bytes of memory
	maxDepth    = 100
	maxNodes    = 100_000     // read, with each alias counted as what it stands for
	maxName     = 250         // bytes of a name that is read, such as a path: it is part of where each thing in it is
	maxText     = 4 * maxName // such as a $ref to something of a path, percent-encoded
	maxRefs     = 10          // of which one leads to the next
	maxCompared = 5_000_000   // segments of paths
)

// parse reads a document as a tree with line numbers. JSON is YAML but for the
// surrogate pairs of its strings, so it has a reader of its own.
func parse(data []byte) (*yaml.Node, *Mistake) {
	switch {
	case len(data) > maxBytes:
		return nil, &Mistake{Text: fmt.Sprintf("the document has %d bytes; at most %d are read: leave out schemas and examples, which rules do not need", len(data), maxBytes)}
	case !utf8.Valid(data):
		return nil, &Mistake{Text: "the document is not UTF-8"}
	}
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' {
		if root, err := parseJSON(data); err == nil {
			return root, nil
		}
	}
	if i := bytes.IndexAny(data, "\u0085\u2028\u2029"); i >= 0 { // the reader would end a comment there
		c, _ := utf8.DecodeRune(data[i:])
		return nil, &Mistake{Line: 1 + bytes.Count(data[:i], []byte("\n")), Text: fmt.Sprintf("%U, which ends a line in YAML 1.1 and not in 1.2: write it as \\u%04[1]X in quotation marks, or leave it out", c)}
	}
	var document yaml.Node
	if err := yaml.Load(data, &document, yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth)))); err != nil {
		return nil, syntaxMistake(err)
	}
	return document.Content[0], nil
}

func syntaxMistake(err error) *Mistake {
	var at *yaml.LoadError
	if errors.As(err, &at) {
		return &Mistake{Line: at.Mark.Line, Text: "not YAML or JSON: " + limited(at.Message)}
	}
	return &Mistake{Text: "not YAML or JSON: " + limited(err.Error())}
}

// parseJSON makes of JSON the tree that the YAML reader makes.
func parseJSON(data []byte) (*yaml.Node, error) {
	p := jsonParser{data: data, decoder: json.NewDecoder(bytes.NewReader(data)), line: 1}
	p.decoder.UseNumber()
	root, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := p.decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the document")
	}
	return root, nil
}

type jsonParser struct {
	data    []byte
	decoder *json.Decoder
	counted int64 // bytes that line counts
	line    int
}

func (p *jsonParser) value(depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("more than %d levels", maxDepth)
	}
	token, err := p.decoder.Token()
	if err != nil {
		return nil, err
	}
	end := p.decoder.InputOffset()
	p.line += bytes.Count(p.data[p.counted:end], []byte("\n"))
	p.counted = end
	node := &yaml.Node{Kind: yaml.ScalarNode, Line: p.line}
	switch token := token.(type) {
	case string:
		node.Tag, node.Value, node.Style = "!!str", token, yaml.DoubleQuotedStyle
		return node, nil
	case json.Number:
		node.Tag, node.Value = "!!float", token.String()
		return node, nil
	case bool:
		node.Tag, node.Value = "!!bool", fmt.Sprint(token)
		return node, nil
	case nil:
		node.Tag, node.Value = "!!null", "null"
		return node, nil
	}
	node.Kind, node.Tag = yaml.MappingNode, "!!map"
	if token == json.Delim('[') {
		node.Kind, node.Tag = yaml.SequenceNode, "!!seq"
	}
	for p.decoder.More() { // of an object, the names are strings or the decoder fails
		child, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		node.Content = append(node.Content, child)
	}
	_, err = p.decoder.Token() // the closing bracket
	return node, err
}

// limited makes what comes from a document short, and one line, so that an error stays
// readable.
func limited(text string) string {
	const most = 200
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// quote is for what a document says.
func quote(text string) string { return `"` + limited(text) + `"` }
