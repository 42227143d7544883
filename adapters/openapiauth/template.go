package openapiauth

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// template is a path of the document, cut at its slashes.
type template []segment

type segment struct {
	literal  string // "" is the end of a path with a slash there
	folded   string // literal without letter case
	wildcard string // its name; "" for a literal
}

var (
	wildcardForm = regexp.MustCompile(`^\{([A-Za-z_][A-Za-z0-9_]*([.-][A-Za-z0-9_]+)*)\}$`)
	literalForm  = regexp.MustCompile(`^[A-Za-z0-9._~!$&'()*+,=:@-]+$`)
	unfitForName = regexp.MustCompile(`[^A-Za-z0-9_]`)
)

// parseTemplate refuses what a pattern of net/http cannot say, and what proxies and
// servers read in different ways.
func parseTemplate(path string) (template, error) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil, errors.New("a path begins with a slash")
	}
	parts := strings.Split(rest, "/")
	t := make(template, len(parts))
	names := make(map[string]bool)
	for i, part := range parts {
		match := wildcardForm.FindStringSubmatch(part)
		switch {
		case match != nil:
			// As oapi-codegen names them, since net/http wants identifiers of Go.
			name := unfitForName.ReplaceAllLiteralString(match[1], "_")
			if names[name] {
				return nil, fmt.Errorf("the parameter %s occurs twice, which no pattern of net/http can say", quote(name))
			}
			names[name] = true
			t[i].wildcard = name
		case strings.ContainsAny(part, "{}"):
			return nil, fmt.Errorf("%s: a parameter must be a whole segment of the path, such as {id}: a pattern of net/http can say nothing else, and would have to let through more than the document says", quote(part))
		case part == "" && i == len(parts)-1:
		case part == "":
			return nil, errors.New("an empty segment (//), which some servers take out and some do not")
		case strings.Contains(part, "%"):
			return nil, fmt.Errorf("%s: percent-encoding, which servers compare in different ways", quote(part))
		case !literalForm.MatchString(part):
			return nil, fmt.Errorf("%s has a character that servers read in different ways, or that cannot stand in a path", quote(part))
		case strings.HasSuffix(part, "."):
			return nil, fmt.Errorf("%s: a segment that ends in a dot, which servers read in different ways", quote(part))
		default:
			t[i].literal, t[i].folded = part, strings.ToLower(part)
		}
	}
	return t, nil
}

// path returns the template as a path with {name} for each parameter.
func (t template) path() string {
	var b strings.Builder
	for _, s := range t {
		b.WriteByte('/')
		if s.wildcard != "" {
			b.WriteString("{" + s.wildcard + "}")
		}
		b.WriteString(s.literal)
	}
	return b.String()
}

// precedence says what holds for the paths that two templates share.
type precedence int

const (
	apart precedence = iota // they share none
	first                   // every router that prefers the more literal one prefers the first
	second
	unclear
)

// compare treats as shared what a router that ignores case, or a slash at the end,
// would take for the other.
func compare(a, b template) precedence {
	a, aSlash := a.cutSlash()
	b, bSlash := b.cutSlash()
	aMore, bMore, similar := false, false, aSlash != bSlash
	for i := range a {
		switch {
		case a[i].wildcard != "" && b[i].wildcard != "":
		case a[i].wildcard != "":
			bMore = true
		case b[i].wildcard != "":
			aMore = true
		case a[i].literal != b[i].literal:
			similar = true
		}
	}
	switch {
	case aMore == bMore || similar:
		return unclear
	case aMore:
		return first
	}
	return second
}

func (t template) cutSlash() (template, bool) {
	if last := len(t) - 1; t[last] == (segment{}) {
		return t[:last], true
	}
	return t, false
}

// tree holds templates by segment, so that few of them need to be compared.
type tree struct {
	literals map[string]*tree // by folded literal
	wildcard *tree
	here     []int // the numbers of the templates that end here
}

func (n *tree) insert(t template, number int) {
	t, _ = t.cutSlash()
	for _, s := range t {
		var below *tree
		if s.wildcard != "" {
			if n.wildcard == nil {
				n.wildcard = new(tree)
			}
			below = n.wildcard
		} else if below = n.literals[s.folded]; below == nil {
			if n.literals == nil {
				n.literals = make(map[string]*tree)
			}
			below = new(tree)
			n.literals[s.folded] = below
		}
		n = below
	}
	n.here = append(n.here, number)
}

// sharing returns the numbers of templates that share paths with t, but for letter case
// and a slash at the end, and how many segments it visited.
func (n *tree) sharing(t template) (numbers []int, visited int) {
	t, _ = t.cutSlash()
	at := []*tree{n}
	for _, s := range t {
		var next []*tree
		for _, n := range at {
			if n.wildcard != nil {
				next = append(next, n.wildcard)
			}
			if s.wildcard != "" {
				next = slices.AppendSeq(next, maps.Values(n.literals))
			} else if below := n.literals[s.folded]; below != nil {
				next = append(next, below)
			}
		}
		at = next
		visited += len(at)
	}
	for _, n := range at {
		numbers = append(numbers, n.here...)
	}
	slices.Sort(numbers)
	return numbers, visited
}
