package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/m2mauth/m2mauth"
)

// table says who may do what: the rows of the file, in its order.
type table []row

// row is a line of the table. The zero row refuses everybody.
type row struct {
	method, path string // as written
	pattern      []segment
	public       bool
	rule         m2mauth.Rule // zero in a public row
	demand       string       // as written
	narrowed     string       // to an issuer, clients and an organization
	issuer       string       // whose tokens alone it takes; "" is every one's
	whole        string       // all that it demands, made once: each request compares it with that of every row
	line         int
	file         string // of the line: a document's, or "" for the configuration
	order        int    // of the file
}

func (r *row) String() string { return r.method + " " + r.path }

// where says where the row stands, to somebody who reads the configuration.
func (r *row) where() string {
	if r.file == "" {
		return fmt.Sprintf("line %d", r.line)
	}
	return fmt.Sprintf("%s:%d", r.file, r.line)
}

// sameDemand compares what rows demand.
func (r *row) sameDemand(other *row) bool { return r.whole == other.whole }

// segment is what stands between two slashes of a row's path.
type segment struct {
	literal  string // "" is the end of a path with a slash there
	wildcard bool
	rest     bool   // a wildcard for one or more segments
	name     string // of the wildcard
}

// Words of the column DEMAND.
const (
	demandPublic   = "public"
	demandAnyToken = "any-token"
	demandScopes   = "scopes"
	demandAnyScope = "any-scope"
)

var (
	methodForm   = regexp.MustCompile(`^[A-Z]+$`)
	wildcardForm = regexp.MustCompile(`^\{[A-Za-z0-9_]+(\.\.\.)?\}$`)
)

// readRows reads the rows of the file, and adds those of its documents. What is wrong with
// one is told with the row, of which the line is known.
func readRows(rows rowList, described []row, issuers []*trusted, wrong func(at *row, err error)) (t table) {
	add := func(r row) {
		// The text of a rule does not have all of it: each organization is Organization(func) there.
		r.whole = fmt.Sprintf("%t %q %s", r.public, r.narrowed, r.rule)
		for n := range t {
			if err := conflict(&t[n], &r); err != nil {
				wrong(&r, err)
			}
		}
		t = append(t, r)
	}
	for i := range rows {
		s := &rows[i]
		r, err := parseRow(strings.Fields(s.Row))
		if err == nil {
			err = r.narrow(s, issuers)
		}
		r.line = s.line
		if err != nil {
			wrong(&r, err)
			continue
		}
		add(r)
	}
	for _, r := range described {
		add(r)
	}
	return t
}

func parseRow(fields []string) (r row, err error) {
	if len(fields) < 3 {
		return r, errors.New("a row is a method, a path and a demand")
	}
	r.method, r.path = fields[0], fields[1]
	switch {
	case r.method == http.MethodHead:
		return r, errors.New("HEAD needs no row of its own: it follows GET")
	case !methodForm.MatchString(r.method):
		return r, fmt.Errorf("%q is no method: methods are upper-case letters", r.method)
	}
	if r.pattern, err = parsePattern(r.path); err != nil {
		return r, err
	}
	r.demand = strings.Join(fields[2:], " ")
	return r, r.readDemand(fields[2], fields[3:])
}

func (r *row) readDemand(word string, scopes []string) error {
	withScopes := word == demandScopes || word == demandAnyScope
	switch {
	case withScopes && len(scopes) == 0:
		return fmt.Errorf("%s needs at least one scope", word)
	case !withScopes && len(scopes) > 0:
		return fmt.Errorf("nothing may follow %s", word)
	}
	for _, s := range scopes {
		if err := readScope(s); err != nil {
			return err
		}
	}
	switch word {
	case demandPublic:
		r.public = true
	case demandAnyToken:
		r.rule = m2mauth.AnyToken()
	case demandScopes:
		r.rule = m2mauth.AllScopes(scopes...)
	case demandAnyScope:
		r.rule = m2mauth.AnyScope(scopes...)
	default:
		return fmt.Errorf("%q is no demand: use %s, %s, %s or %s", word, demandPublic, demandAnyToken, demandScopes, demandAnyScope)
	}
	return nil
}

// readScope refuses what was hardly meant as a scope. The words of a comment, of
// which any-scope would make scopes that let through, are such.
func readScope(s string) error {
	switch {
	case strings.HasPrefix(s, "#"):
		return fmt.Errorf("%q cannot be a scope: a comment has a line of its own", s)
	case strings.Contains(s, ","):
		return fmt.Errorf("%q cannot be a scope: scopes have spaces between them, and no commas", s)
	case !printable(s): // AllScopes would panic at some of these
		return fmt.Errorf("%q cannot be a scope", s)
	}
	return nil
}

func parsePattern(path string) ([]segment, error) {
	parts, err := split(path)
	if err != nil {
		return nil, err
	}
	pattern := make([]segment, len(parts))
	for i, part := range parts {
		s := segment{literal: part}
		if strings.ContainsAny(part, "{}") {
			if !wildcardForm.MatchString(part) {
				return nil, fmt.Errorf("%q is no wildcard: write {name}, or {name...} at the end", part)
			}
			s = segment{wildcard: true, rest: strings.HasSuffix(part, "...}"), name: strings.Trim(part, "{.}")}
			if s.rest && i < len(parts)-1 {
				return nil, fmt.Errorf("%q may stand only at the end of a path", part)
			}
		} else if strings.Contains(part, "%") {
			return nil, fmt.Errorf("%q: a row's path has no percent-encoding: use a wildcard", part)
		} else if err := readSegment(part); err != nil {
			return nil, fmt.Errorf("%q: %w", path, err)
		}
		pattern[i] = s
	}
	return pattern, nil
}

// conflict refuses two rows for one path of which neither is the more literal:
// an API's own router could take either.
func conflict(a, b *row) error {
	if a.method != b.method {
		return nil
	}
	overlap, aMore, bMore := compare(a.pattern, b.pattern)
	if overlap && aMore == bMore {
		place := a.where()
		if a.file == "" && b.file != "" {
			place = "rules, " + place
		}
		return fmt.Errorf("%s and %s (%s) match the same paths, and neither is the more literal", b, a, place)
	}
	return nil
}

// compare says whether a path can match both patterns, and which is more literal.
func compare(a, b []segment) (overlap, aMore, bMore bool) {
	for i := 0; ; i++ {
		switch {
		case i == len(a) || i == len(b):
			return len(a) == len(b), aMore, bMore
		case a[i].rest || b[i].rest:
			return true, aMore || !a[i].rest, bMore || !b[i].rest
		case a[i].wildcard && b[i].wildcard:
		case a[i].wildcard:
			if b[i].literal == "" {
				return false, false, false
			}
			bMore = true
		case b[i].wildcard:
			if a[i].literal == "" {
				return false, false, false
			}
			aMore = true
		case a[i].literal != b[i].literal:
			return false, false, false
		}
	}
}

// found is what the table says about a request.
type found struct {
	row     *row   // decides; nil: none
	matched []*row // match the path, the deciding one among them
	rival   *row   // has another demand, and some routers would take the path for one of it
}

const errRival = ambiguous("some routers would take the path for one of another rule: it has another letter case, an encoded character, one outside ASCII, an extension, a colon or a plus sign, a slash more or less at its end, nothing for a wildcard, or several segments for one")

// find returns the row for a request, or nil if there is none. It refuses a path
// that an API's router could take for one of another row with another demand.
func (t table) find(method string, path []string) (*row, error) {
	f := t.look(method, path)
	if f.rival != nil {
		return nil, errRival
	}
	return f.row, nil
}

// look is find, with the rows that were compared, for explain.
func (t table) look(method string, path []string) (f found) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	var matched, certain []reading // of the rows that net/http matches, and that every router does
	for i := range t {
		r := &t[i]
		if r.method != method || !matches(r.pattern, path) {
			continue
		}
		how, _ := read(r.pattern, path)
		matched, f.matched = append(matched, how), append(f.matched, r)
		if last := len(r.pattern) - 1; !r.pattern[last].rest || path[last] != "" { // some let {name...} stand for nothing, and some do not
			certain = append(certain, how)
		}
		if f.row == nil {
			f.row = r
		} else if _, more, _ := compare(r.pattern, f.row.pattern); more {
			f.row = r
		}
	}
	if f.row == nil {
		return f
	}
	for i := range t {
		r := &t[i]
		if r.method != method || r.sameDemand(f.row) {
			continue
		}
		how, ok := read(r.pattern, path)
		others := certain
		if slices.Contains(how, below) {
			others = matched
		}
		if ok && !slices.ContainsFunc(others, how.yieldsTo) {
			f.rival = r
			return f
		}
	}
	return f
}

func matches(pattern []segment, path []string) bool {
	for i, s := range pattern {
		switch {
		case i == len(path):
			return false
		case s.rest:
			return true
		case s.wildcard && path[i] == "", !s.wildcard && s.literal != path[i]:
			return false
		}
	}
	return len(pattern) == len(path)
}

// reading says how a router matches a path with a pattern: by what it takes each
// segment of the path, and last the path's end.
type reading []closeness

// closeness orders what a segment is taken by. Routers prefer the closer.
type closeness int

const (
	behind   closeness = iota // what comes behind a swallowed segment
	below                     // a slash at the pattern's end, which to net/http means all that is below
	rest                      // {name...}, also with nothing left for it
	swallow                   // {name} at the pattern's end, which Echo gives all that is left
	empty                     // {name} with nothing in it
	wildcard                  // {name}
	similar                   // a literal that is not quite the segment, or a slash at the end more or less
	exact
)

// read returns the closest reading of any router, and whether there is one.
func read(pattern []segment, path []string) (how reading, ok bool) {
	if s := pattern[0]; s.literal != "" && path[0] != s.literal && !resembles(path[0], s.literal) {
		return nil, false // most rows of a large table, at no cost
	}
	how = make(reading, 0, len(path)+1)
	through := func(c closeness) (reading, bool) { // from here to the end
		for len(how) <= len(path) {
			how = append(how, c)
		}
		return how, true
	}
	for i, s := range pattern {
		last := i == len(pattern)-1 || i == len(pattern)-2 && pattern[i+1] == segment{} // but for a slash
		slash := !s.wildcard && s.literal == ""                                         // at the pattern's end
		switch {
		case s.rest:
			return through(rest)
		case i == len(path):
			switch {
			case slash:
				return through(similar)
			case !s.wildcard:
				return nil, false
			case last:
				return through(empty)
			}
			return nil, false
		case slash && path[i] != "":
			return through(below)
		case s.wildcard && last && i < len(path)-1 && path[i+1] != "":
			how = append(how, swallow)
			return through(behind)
		case s.wildcard && path[i] == "":
			how = append(how, empty)
		case s.wildcard:
			how = append(how, wildcard)
		case s.literal == path[i]:
			how = append(how, exact)
		case resembles(path[i], s.literal):
			how = append(how, similar)
		default:
			return nil, false
		}
	}
	if len(how) == len(path)-1 && path[len(how)] == "" {
		how = append(how, similar)
	}
	return append(how, exact), len(how) == len(path)
}

// yieldsTo reports whether every router that reads so prefers the other reading,
// which it has too: that is nowhere less close, and somewhere closer. Where routes
// are tried in order, whoever wrote them must put the more literal ones first.
func (how reading) yieldsTo(other reading) bool {
	closer := false
	for i := range how {
		if other[i] < how[i] {
			return false
		}
		closer = closer || other[i] > how[i]
	}
	return closer
}

// resembles reports whether a router that ignores case, encoding or an extension
// could take a segment of a path for a row's literal. What Windows and some
// frameworks write after a colon is an extension too (admin::$DATA), and a plus
// sign is a space to some, who then cut it off. A sign outside ASCII could be any
// letter: ı is an I in upper case, İ an i in lower case, ａ is an a to whoever
// normalises, and some take accents off. No list of such foldings is complete, and
// literals are of ASCII, so every segment with such a sign resembles every literal.
func resembles(sent, literal string) bool {
	decoded, err := url.PathUnescape(sent)
	if err != nil {
		return true
	}
	decoded = strings.TrimLeft(decoded, "+")
	for i := range len(decoded) {
		if decoded[i] >= utf8.RuneSelf {
			return true
		}
		if strings.IndexByte(".:+", decoded[i]) >= 0 && strings.EqualFold(decoded[:i], literal) {
			return true
		}
	}
	return strings.EqualFold(decoded, literal)
}
