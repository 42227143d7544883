package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// The file is read by go.yaml.in/yaml, the YAML project's own continuation of the reader
// that most Go programs have, which package openapiauth brings along. It is used for the
// tree of nodes alone, which have their lines: what a field is, and what its value may be,
// is decided here. Strict decoders stop at the first mistake, or convert what was meant as
// text.

// maxFileBytes bounds the file: more than a ConfigMap may hold.
const maxFileBytes = 1 << 20

// mistake is what is wrong with a setting, and where.
type mistake struct {
	where string // "gateway.yaml:12", or the name of a variable
	order int    // of the file: 0 is the configuration, and documents follow
	line  int    // 0 for variables
	text  string
}

// mistakes are all of a configuration, as an error with one line for each.
type mistakes []mistake

func (m mistakes) Error() string {
	lines := make([]string, len(m))
	for i, one := range m {
		lines[i] = one.where + ": " + one.text
	}
	return strings.Join(lines, "\n")
}

// sorted returns the mistakes by their lines, or nil if there are none.
func (m mistakes) sorted() error {
	if len(m) == 0 {
		return nil
	}
	slices.SortStableFunc(m, func(a, b mistake) int { return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.line, b.line)) })
	return m
}

// reader reads a document into structs whose fields have the tag yaml. It knows the line
// of every setting by its path, such as "issuers[0].leeway".
type reader struct {
	file      string
	lines     map[string]int
	variables map[string]string // by the paths of what they set
	wrong     map[string]bool   // the paths of the mistakes
	mistakes  mistakes
}

func newReader(file string) *reader {
	return &reader{file: file, lines: make(map[string]int), variables: make(map[string]string), wrong: make(map[string]bool)}
}

// add notes a mistake in the setting with this path, or in what it is part of.
func (r *reader) add(path, format string, args ...any) {
	r.wrong[path] = true
	text := fmt.Sprintf(format, args...)
	if variable, ok := r.variables[path]; ok {
		r.mistakes = append(r.mistakes, mistake{where: variable, text: text})
		return
	}
	line, at := 0, path
	for {
		var known bool
		if line, known = r.lines[at]; known || at == "" {
			break
		}
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
	if path != "" {
		text = path + ": " + text
	}
	r.mistakes = append(r.mistakes, mistake{where: fmt.Sprintf("%s:%d", r.file, max(line, 1)), line: max(line, 1), text: text})
}

func (r *reader) addLine(line int, format string, args ...any) {
	r.addIn(r.file, 0, line, format, args...)
}

// addIn notes a mistake in a line of a file. The files' mistakes follow in this order.
func (r *reader) addIn(file string, order, line int, format string, args ...any) {
	r.mistakes = append(r.mistakes, mistake{where: fmt.Sprintf("%s:%d", file, line), order: order, line: line, text: fmt.Sprintf(format, args...)})
}

// hiddenLineEnd is what ends a line for the YAML reader, as in YAML 1.1, and not in many
// editors: what they show as a comment could go on with a row of the table.
var hiddenLineEnd = regexp.MustCompile("[\u0085\u2028\u2029]|\r([^\n]|$)")

// document reads a text into the struct that target points to.
func (r *reader) document(text []byte, target any) {
	if len(text) > maxFileBytes {
		r.addLine(1, "the file is larger than %d bytes", maxFileBytes)
		return
	}
	if at := hiddenLineEnd.FindIndex(text); at != nil {
		sign, _ := utf8.DecodeRune(text[at[0]:])
		r.addLine(1+bytes.Count(text[:at[0]], []byte("\n")), "%U, which ends a line for some readers only: leave it out", sign)
		return
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	var root yaml.Node
	if err := decoder.Decode(&root); err != nil {
		r.syntax(err)
		return
	}
	var more yaml.Node
	switch err := decoder.Decode(&more); {
	case err == nil:
		r.addLine(max(more.Line, 1), "a second document begins here: the file must be one")
		return
	case !errors.Is(err, io.EOF):
		r.syntax(err)
		return
	}
	if len(root.Content) != 1 || root.Content[0].Kind != yaml.MappingNode {
		r.addLine(1, "the file must be a mapping of settings to values")
		return
	}
	if !r.plain(root.Content[0]) {
		return
	}
	r.value("", root.Content[0], reflect.ValueOf(target).Elem())
}

// syntax notes an error of the YAML reader, whose text begins with the line.
func (r *reader) syntax(err error) {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if rest, found := strings.CutPrefix(text, "line "); found {
		number, after, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			line, text = n, after
		}
	}
	if text == "EOF" {
		text = "the file is empty"
	}
	r.addLine(line, "not YAML: %s", text)
}

// plain refuses what makes a document mean something else than it shows: anchors, aliases
// (which can also grow without end), merges and tags.
func (r *reader) plain(n *yaml.Node) bool {
	ok := true
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.addLine(n.Line, "anchors and aliases are not accepted: write the value out")
		return false
	case n.Style&yaml.TaggedStyle != 0 || n.Tag == "!!merge":
		r.addLine(n.Line, "tags and merges are not accepted: %q", n.Tag) // not the value, which may be a secret
		ok = false
	}
	for _, child := range n.Content {
		ok = r.plain(child) && ok
	}
	return ok
}

// custom is a type that reads itself.
type custom interface {
	read(r *reader, path string, n *yaml.Node)
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	timeType     = reflect.TypeFor[time.Time]()
)

// value reads a node into v.
func (r *reader) value(path string, n *yaml.Node, v reflect.Value) {
	if v.CanAddr() {
		if c, ok := v.Addr().Interface().(custom); ok {
			c.read(r, path, n)
			return
		}
	}
	switch {
	case n.Tag == "!!null":
		r.add(path, "has no value: leave the field out for the default")
	case v.Type() == timeType || v.Kind() != reflect.Struct && v.Kind() != reflect.Pointer && v.Kind() != reflect.Slice && v.Kind() != reflect.Map:
		r.scalar(path, n, v)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		r.value(path, n, v.Elem())
	case v.Kind() == reflect.Struct:
		r.fields(path, n, v)
	case v.Kind() == reflect.Slice:
		r.list(path, n, v)
	default:
		r.mapping(path, n, v)
	}
}

// fields reads a mapping into a struct: every field at most once, and no other.
func (r *reader) fields(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		r.add(path, "must be a mapping of settings to values")
		return
	}
	names := settingsOf(v.Type())
	r.pairs(path, n, func(name, inner string, value *yaml.Node) {
		index, known := names[name]
		if !known {
			r.add(inner, "there is no such setting%s", hintFor(name, names))
			return
		}
		r.value(inner, value, v.Field(index))
	})
}

// pairs calls f for each member of a mapping, and refuses one that comes twice.
func (r *reader) pairs(path string, n *yaml.Node, f func(name, inner string, value *yaml.Node)) {
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			r.addLine(key.Line, "a setting's name must be one word")
			continue
		}
		inner := strings.TrimPrefix(path+"."+key.Value, ".")
		if first, twice := seen[key.Value]; twice {
			r.addLine(key.Line, "%s: comes twice: it is in line %d already", inner, first)
			continue
		}
		seen[key.Value] = key.Line
		r.lines[inner] = key.Line
		f(key.Value, inner, value)
	}
}

func settingsOf(t reflect.Type) map[string]int {
	names := make(map[string]int)
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "" {
			names[name] = i
		}
	}
	return names
}

// hintFor names the setting that was probably meant.
func hintFor(name string, names map[string]int) string {
	if strings.Contains(name, "password") && !strings.HasSuffix(name, "_file") {
		return ": a secret does not stand in this file; set password_file, or the variable " + prefix + "REVOCATION_REDIS_PASSWORD"
	}
	squeezed := func(s string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s)) }
	for known := range names {
		if squeezed(known) == squeezed(name) || squeezed(known) == squeezed(name)+"s" || squeezed(known)+"s" == squeezed(name) {
			return fmt.Sprintf(": did you mean %s?", known)
		}
	}
	return ""
}

func (r *reader) list(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		r.add(path, "must be a list")
		return
	}
	if len(n.Content) == 0 {
		r.add(path, "is an empty list: leave the field out for the default")
	}
	for i, item := range n.Content {
		inner := fmt.Sprintf("%s[%d]", path, i)
		r.lines[inner] = item.Line
		one := reflect.New(v.Type().Elem()).Elem()
		r.value(inner, item, one)
		v.Set(reflect.Append(v, one))
	}
}

// mapping reads names with a list of strings each.
func (r *reader) mapping(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		r.add(path, "must be a mapping of names to lists")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	r.pairs(path, n, func(name, inner string, value *yaml.Node) {
		one := reflect.New(v.Type().Elem()).Elem()
		r.value(inner, value, one)
		v.SetMapIndex(reflect.ValueOf(name), one)
	})
}

// scalar reads a single value. A word that YAML takes for a number is no string, and the
// other way round: 1.10 would become 1.1 for one who reads numbers.
func (r *reader) scalar(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		r.add(path, "must be a single value")
		return
	}
	if want := wantOf(v.Type()); !slices.Contains(want.tags, n.Tag) {
		r.add(path, "must be %s", want.text)
		return
	}
	if err := setScalar(v, n.Value); err != nil {
		r.add(path, "%v", err)
	}
}

// wanted are the tags that YAML gives to the words that a type is written as.
type wanted struct {
	tags []string
	text string
}

func wantOf(t reflect.Type) wanted {
	switch {
	case t == timeType:
		return wanted{[]string{"!!timestamp", "!!str"}, "a time as in RFC 3339, such as 2026-12-24T18:00:00Z"}
	case t == durationType:
		return wanted{[]string{"!!str", "!!int"}, "a duration with its unit, such as 30s"}
	case t.Kind() == reflect.String:
		return wanted{[]string{"!!str"}, "text: put it between quotes"}
	case t.Kind() == reflect.Bool:
		return wanted{[]string{"!!bool"}, "true or false"}
	}
	return wanted{[]string{"!!int"}, "a whole number"}
}

var (
	errEmpty = errors.New("is empty: leave the field out for the default")
	errZero  = errors.New("is zero, which would mean the default: leave the field out for that")
)

// setScalar sets v from a text, as files and variables have it. The error does not repeat
// the text: a variable may hold a secret by mistake.
func setScalar(v reflect.Value, text string) error {
	switch {
	case text == "":
		return errEmpty
	case v.Type() == durationType:
		d, err := time.ParseDuration(text)
		if err != nil {
			return errors.New("must be a duration with its unit, such as 30s or 1h30m")
		}
		if d == 0 {
			return errZero
		}
		v.SetInt(int64(d))
	case v.Type() == timeType:
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return errors.New("must be a time as in RFC 3339, such as 2026-12-24T18:00:00Z")
		}
		v.Set(reflect.ValueOf(at))
	case v.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			return errors.New("must be true or false")
		}
		v.SetBool(text == "true")
	case v.Kind() == reflect.String:
		v.SetString(text)
	default:
		number, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v.OverflowInt(number) || text != strconv.FormatInt(number, 10) { // 010 is eight to YAML 1.1, and ten to 1.2
			return errors.New("must be a whole number")
		}
		if number == 0 {
			return errZero
		}
		v.SetInt(number)
	}
	return nil
}
