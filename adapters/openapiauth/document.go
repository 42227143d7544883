package openapiauth

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v4"
)

// document is what rules need of an OpenAPI document: its paths, their parameters, and
// what each operation says about security.
type document struct {
	model       *openapi3.T
	defaultSize int            // values of a security of its own, also an empty one; 0 without
	budget      int            // values of it that may yet be read for operations without their own
	lines       map[string]int // by JSON Pointer (RFC 6901)
}

// Fields that the specification has and rules do not need.
var (
	otherRootFields      = []string{"externalDocs", "info", "jsonSchemaDialect", "servers", "tags", "webhooks"}
	otherItemFields      = []string{"description", "servers", "summary"}
	otherOperationFields = []string{"callbacks", "deprecated", "description", "externalDocs", "requestBody", "responses", "servers", "summary", "tags"}
	methodFields         = []string{"delete", "get", "head", "options", "patch", "post", "put", "trace"}
	flowFields           = []string{"authorizationCode", "clientCredentials", "implicit", "password"}
)

var versionForm = regexp.MustCompile(`^3\.[01](\.[0-9]+)?$`)

// readDocument returns nil if a mistake is such that the rest cannot be read.
func readDocument(data []byte, m *mistakes) *document {
	root, mistake := parse(data)
	if mistake != nil {
		m.add(mistake.Line, "", "%s", mistake.Text)
		return nil
	}
	r := reader{mistakes: m, lines: make(map[string]int), refs: make(map[string]part), targets: make(map[string]bool), budget: maxNodes}
	needed := r.document(root)
	if r.budget < 0 || !r.checkRefs() {
		return nil
	}
	d := &document{model: new(openapi3.T), lines: r.lines, defaultSize: size(get(needed, "security")), budget: maxNodes}
	if err := needed.Decode(d.model); err != nil {
		m.add(0, "", "kin-openapi: %s", limited(err.Error()))
		return nil
	}
	loader := openapi3.NewLoader() // which follows no external $ref
	if err := loader.ResolveRefsIn(d.model, nil); err != nil {
		m.add(0, "", "kin-openapi: %s", limited(err.Error()))
		return nil
	}
	return d
}

// reader copies what rules need into a tree of its own. Nothing else reaches
// kin-openapi, so that neither a schema nor an example can make it follow a $ref, fail,
// or take long.
type reader struct {
	mistakes *mistakes
	lines    map[string]int
	refs     map[string]part // each $ref by the pointer of what has it; its name is where it leads
	targets  map[string]bool // pointers of parameters and security schemes
	budget   int             // nodes that may yet be read; aliases and path items with $ref could multiply them
}

// at is where something is.
type at struct {
	pointer string // JSON Pointer
	place   string // for people
	line    int
}

// part is a value that has a name, or a number, within another.
type part struct {
	at
	name  string
	value *yaml.Node
}

func (r *reader) mistake(a at, format string, arguments ...any) {
	r.mistakes.add(a.line, limited(a.place), format, arguments...)
}

// visit counts a value, and follows an alias. It reports false where the budget is spent.
func (r *reader) visit(p *part) bool {
	if p.value.Kind == yaml.AliasNode {
		p.value = p.value.Alias
	}
	r.spend(p.at, 1)
	return r.budget >= 0
}

func (r *reader) spend(a at, nodes int) {
	if r.budget >= 0 && r.budget < nodes {
		r.mistake(a, "the document is too large: more than %d values are about paths and security, with each alias and $ref counted as what it stands for", maxNodes)
	}
	r.budget -= nodes
}

// fields returns the parts of a mapping. A name that occurs twice is a mistake: readers
// differ in which of the two holds.
func (r *reader) fields(of part) []part {
	if !r.visit(&of) {
		return nil
	}
	if of.value.Kind != yaml.MappingNode || of.value.Tag != "!!map" {
		r.mistake(of.at, "not an object")
		return nil
	}
	var parts []part
	seen := make(map[string]bool)
	for i := 0; i+1 < len(of.value.Content); i += 2 {
		key := of.value.Content[i]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if len(key.Value) > maxName {
			r.mistake(at{place: of.place, line: key.Line}, "the name %s has more than %d bytes", quote(key.Value), maxName)
			continue
		}
		here := at{of.pointer + "/" + escapePointer(key.Value), of.place, key.Line}
		switch name := key.Value; {
		case key.Kind != yaml.ScalarNode || isMerge(key):
			r.mistake(here, "a merge (<<) or a name that is not a string is not read here: write the fields out")
		case key.Tag != "!!str":
			r.mistake(here, "the name %s is not a string: put it in quotation marks", quote(name))
		case seen[name]:
			r.mistake(here, "%s occurs twice", quote(name))
		default:
			seen[name] = true
			r.lines[here.pointer] = key.Line
			parts = append(parts, part{here, name, of.value.Content[i+1]})
		}
	}
	return parts
}

func isMerge(key *yaml.Node) bool {
	return key.Tag == "!!merge" || key.Value == "<<" && key.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0
}

func escapePointer(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// items returns the parts of a list.
func (r *reader) items(of part) []part {
	if !r.visit(&of) {
		return nil
	}
	if of.value.Kind != yaml.SequenceNode || of.value.Tag != "!!seq" {
		r.mistake(of.at, "not a list")
		return nil
	}
	parts := make([]part, len(of.value.Content))
	for i, value := range of.value.Content {
		here := at{fmt.Sprintf("%s/%d", of.pointer, i), fmt.Sprintf("%s[%d]", of.place, i), value.Line}
		r.lines[here.pointer] = value.Line
		parts[i] = part{here, "", value}
	}
	return parts
}

func (r *reader) text(p part) *yaml.Node {
	if !r.visit(&p) {
		return textNode("")
	}
	if p.value.Kind != yaml.ScalarNode || p.value.Tag != "!!str" {
		r.mistake(p.at, "not a string")
		return textNode("")
	}
	if len(p.value.Value) > maxText {
		r.mistake(p.at, "%s has more than %d bytes", quote(p.value.Value), maxText)
		return textNode("")
	}
	return textNode(p.value.Value)
}

func textNode(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: text}
}

func mappingNode() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"} }

func listNode() *yaml.Node { return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"} }

// set adds a field, if there is a value.
func set(mapping *yaml.Node, name string, value *yaml.Node) {
	if value != nil {
		mapping.Content = append(mapping.Content, textNode(name), value)
	}
}

func get(mapping *yaml.Node, name string) *yaml.Node {
	for i := 0; mapping != nil && i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == name {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// under is a part with a place of its own.
func (p part) under(place string) part {
	if p.place != "" {
		place = p.place + ": " + place
	}
	p.place = place
	return p
}

func isExtension(name string) bool { return strings.HasPrefix(name, "x-") }

func (r *reader) document(root *yaml.Node) *yaml.Node {
	out := mappingNode()
	var version part
	for _, f := range r.fields(part{value: root, at: at{line: root.Line}}) {
		switch name := f.name; {
		case name == "openapi":
			version = f
		case name == "paths":
			set(out, name, r.paths(f))
		case name == "components":
			set(out, name, r.components(f))
		case name == "security":
			set(out, name, r.security(f.under(name)))
		case !isExtension(name) && !slices.Contains(otherRootFields, name):
			r.mistake(f.at, "%s is no field of an OpenAPI 3 document", quote(name))
		}
	}
	switch v := version.value; {
	case v == nil:
		r.mistakes.add(0, "", "no openapi: only documents of OpenAPI 3.0 and 3.1 are read")
	case v.Kind != yaml.ScalarNode || !versionForm.MatchString(v.Value):
		r.mistake(version.at, "openapi: %s: only documents of OpenAPI 3.0 and 3.1 are read", quote(v.Value))
	default:
		set(out, "openapi", textNode(v.Value))
	}
	r.checkItemRefs(out)
	return out
}

func (r *reader) paths(of part) *yaml.Node {
	out := mappingNode()
	for _, f := range r.fields(of) {
		switch {
		case isExtension(f.name):
		case !strings.HasPrefix(f.name, "/"):
			r.mistake(f.at, "%s is no path: a path begins with a slash", quote(f.name))
		default:
			set(out, f.name, r.item(f))
		}
	}
	return out
}

// item reads a path item.
func (r *reader) item(of part) *yaml.Node {
	out := mappingNode()
	path := of.name
	for _, f := range r.fields(of.under(path)) {
		switch name := f.name; {
		case slices.Contains(methodFields, name):
			f.place = strings.ToUpper(name) + " " + path
			set(out, name, r.operation(f))
		case name == "parameters":
			set(out, name, r.parameters(f.under(name)))
		case name == "$ref":
			set(out, name, r.ref(f, "#/components/pathItems/", "#/paths/"))
		case !isExtension(name) && !slices.Contains(otherItemFields, name):
			r.mistake(f.at, "%s is no field of a path item of OpenAPI 3.0 or 3.1", quote(name))
		}
	}
	return out
}

// ref reads a $ref. What leads out of the document is a mistake, and followed by nobody.
func (r *reader) ref(f part, prefixes ...string) *yaml.Node {
	text := r.text(f)
	if !slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(text.Value, prefix) }) {
		r.mistake(f.at, "$ref: %s is not followed: it must begin with %s; put the parts of a document into one file", quote(text.Value), strings.Join(prefixes, " or "))
		return nil
	}
	return text
}

// componentRef is ref for what may lead to any part of its kind.
func (r *reader) componentRef(f part) *yaml.Node {
	text := r.ref(f, "#/")
	if text != nil {
		r.refs[strings.TrimSuffix(f.pointer, "/$ref")] = part{at: f.at, name: targetOf(text.Value)}
	}
	return text
}

// checkRefs refuses those that lead nowhere, or to something large, which the library
// would copy, and long chains, which it walks again from each of their parts.
func (r *reader) checkRefs() bool {
	fine := true
	for _, ref := range r.refs {
		steps := 0
		for next, ok := ref, true; ok && steps <= maxRefs; next, ok = r.refs[next.name] {
			steps++
		}
		switch {
		case !r.targets[ref.name]:
			r.mistake(ref.at, "$ref: %s leads nowhere, or not to a parameter or a security scheme", quote("#"+ref.name))
		case steps > maxRefs:
			r.mistake(ref.at, "$ref: %s leads to a chain of more than %d", quote("#"+ref.name), maxRefs)
		default:
			continue
		}
		fine = false
	}
	return fine
}

// checkItemRefs refuses what the specification or the library leave undefined, and takes
// it out.
func (r *reader) checkItemRefs(root *yaml.Node) {
	lists := map[string]*yaml.Node{"/paths/": get(root, "paths"), "/components/pathItems/": get(get(root, "components"), "pathItems")}
	var wrong []*yaml.Node
	for prefix, list := range lists {
		for i := 0; list != nil && i+1 < len(list.Content); i += 2 {
			name, item := list.Content[i].Value, list.Content[i+1]
			ref := get(item, "$ref")
			if ref == nil {
				continue
			}
			target, text := itemTarget(item, ref.Value, lists)
			if text != "" {
				r.mistake(at{place: name, line: r.lines[prefix+escapePointer(name)+"/$ref"]}, "$ref: %s", text)
				wrong = append(wrong, item)
			}
			if r.spend(at{place: name}, size(target)); r.budget < 0 {
				return
			}
		}
	}
	for _, item := range wrong {
		item.Content = nil
	}
}

func size(n *yaml.Node) int {
	if n == nil {
		return 0
	}
	count := 1
	for _, part := range n.Content {
		count += size(part)
	}
	return count
}

func itemTarget(item *yaml.Node, ref string, lists map[string]*yaml.Node) (target *yaml.Node, mistake string) {
	if len(item.Content) > 2 {
		return nil, "the path item has operations or parameters too, and OpenAPI does not say which hold"
	}
	for prefix, targets := range lists {
		if !strings.HasPrefix(ref, "#"+prefix) {
			continue
		}
		name := strings.TrimPrefix(targetOf(ref), prefix)
		switch target = get(targets, strings.NewReplacer("~1", "/", "~0", "~").Replace(name)); {
		case target == nil || strings.Contains(name, "/"): // which would be a part of a path item
			return nil, quote(ref) + " leads nowhere"
		case get(target, "$ref") != nil:
			return nil, quote(ref) + " leads to another $ref"
		}
		break
	}
	return target, ""
}

// targetOf returns the JSON Pointer to which a $ref within the document leads.
func targetOf(ref string) string {
	pointer := strings.TrimPrefix(ref, "#")
	if decoded, err := url.PathUnescape(pointer); err == nil {
		return decoded
	}
	return pointer
}

func (r *reader) operation(of part) *yaml.Node {
	out := mappingNode()
	for _, f := range r.fields(of) {
		switch name := f.name; {
		case name == "operationId":
			set(out, name, r.text(f.under(name)))
		case name == "security":
			set(out, name, r.security(f.under(name)))
		case name == "parameters":
			set(out, name, r.parameters(f.under(name)))
		case !isExtension(name) && !slices.Contains(otherOperationFields, name):
			r.mistake(f.at, "%s is no field of an operation of OpenAPI 3.0 or 3.1", quote(name))
		}
	}
	return out
}

func (r *reader) security(of part) *yaml.Node {
	out := listNode()
	for _, alternative := range r.items(of) {
		schemes := mappingNode()
		for _, f := range r.fields(alternative) {
			scopes := listNode()
			for _, item := range r.items(f.under(f.name)) {
				scopes.Content = append(scopes.Content, r.text(item))
			}
			set(schemes, f.name, scopes)
		}
		out.Content = append(out.Content, schemes)
	}
	return out
}

func (r *reader) parameters(of part) *yaml.Node {
	out := listNode()
	for _, item := range r.items(of) {
		out.Content = append(out.Content, r.texts(item, "name", "in", "style"))
	}
	return out
}

// texts reads some fields of an object, and its $ref.
func (r *reader) texts(of part, names ...string) *yaml.Node {
	r.targets[of.pointer] = true
	out := mappingNode()
	for _, f := range r.fields(of) {
		switch {
		case slices.Contains(names, f.name):
			set(out, f.name, r.text(f.under(f.name)))
		case f.name == "$ref":
			set(out, f.name, r.componentRef(f))
		}
	}
	return out
}

func (r *reader) components(of part) *yaml.Node {
	out := mappingNode()
	for _, f := range r.fields(of) {
		var read func(part) *yaml.Node
		switch f.name {
		case "securitySchemes":
			read = r.scheme
		case "parameters":
			read = func(p part) *yaml.Node { return r.texts(p, "name", "in", "style") }
		case "pathItems":
			read = r.item
		default:
			continue
		}
		named := mappingNode()
		for _, component := range r.fields(f.under("components." + f.name)) {
			if f.name != "pathItems" {
				component = component.under(component.name)
			}
			set(named, component.name, read(component))
		}
		set(out, f.name, named)
	}
	return out
}

func (r *reader) scheme(of part) *yaml.Node {
	r.targets[of.pointer] = true
	out := mappingNode()
	for _, f := range r.fields(of) {
		switch f.name {
		case "type", "scheme":
			set(out, f.name, r.text(f.under(f.name)))
		case "$ref":
			set(out, f.name, r.componentRef(f))
		case "flows":
			flows := mappingNode()
			for _, flow := range r.fields(f.under(f.name)) {
				if slices.Contains(flowFields, flow.name) {
					set(flows, flow.name, r.flow(flow.under(flow.name)))
				}
			}
			set(out, f.name, flows)
		}
	}
	return out
}

func (r *reader) flow(of part) *yaml.Node {
	out, scopes := mappingNode(), mappingNode()
	for _, f := range r.fields(of) {
		if f.name == "scopes" {
			for _, scope := range r.fields(f.under(f.name)) {
				set(scopes, scope.name, textNode(""))
			}
		}
	}
	set(out, "scopes", scopes)
	return out
}
