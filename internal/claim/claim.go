// Package claim reads the claims in a JWT's payload (RFC 7519 §4), each as what it
// should be. It knows nothing of signatures, and not which claims are acceptable.
package claim

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/strictjson"
)

// Name is the name of a claim in a setting or a rule.
type Name struct {
	text    string // the only spelling of pointer: for a top-level member, its name
	pointer strictjson.Pointer
}

// ParseName reads a claim's name, which is a JSON Pointer if it begins with a slash.
func ParseName(name string) (Name, error) {
	if !strings.HasPrefix(name, "/") {
		return Name{name, strictjson.Pointer{name}}, nil
	}
	pointer, err := strictjson.ParsePointer(name)
	if err != nil {
		return Name{}, err
	}
	if len(pointer) == 1 && !strings.HasPrefix(pointer[0], "/") {
		return Name{pointer[0], pointer}, nil
	}
	return Name{pointer.String(), pointer}, nil
}

// Names parses names that are known to be good.
func Names(names ...string) []Name {
	parsed := make([]Name, len(names))
	for i, name := range names {
		parsed[i], _ = ParseName(name)
	}
	return parsed
}

// String returns the name in the one spelling that there is for each claim.
func (n Name) String() string { return n.text }

// Texts returns the names in the one spelling of each.
func Texts(names []Name) []string {
	texts := make([]string, len(names))
	for i, name := range names {
		texts[i] = name.text
	}
	return texts
}

// Mistake is what is wrong with a claim. Its text is for whoever sent the token.
type Mistake struct {
	Claim string
	want  string // what it is not; "" if it is missing
}

func (m *Mistake) Error() string {
	if m.want == "" {
		return "the token lacks the claim " + m.Claim
	}
	return "the token's claim " + m.Claim + " is not " + m.want
}

// Missing returns the error of a claim that must be there.
func Missing(claim string) error { return &Mistake{Claim: claim} }

// Value is a claim as written in the payload, and nil if the token lacks it.
type Value jsontext.Value

// Kind returns the first byte of the value: n for null, 0 for a number, or " or [ or {.
func (v Value) Kind() byte { return byte(jsontext.Value(v).Kind()) }

// Text returns the value of a claim that must be there, a string, and not empty.
func (v Value) Text(claim string) (string, error) {
	if v == nil {
		return "", Missing(claim)
	}
	s, ok := strictjson.String(jsontext.Value(v))
	if !ok || s == "" {
		return "", &Mistake{claim, "a non-empty string"}
	}
	return s, nil
}

// Texts returns the strings of an array of nothing else, or a string as the only one.
// Beside an error, it returns those before the first element that is none.
func (v Value) Texts(claim string) ([]string, error) {
	list, ok := strictjson.Strings(jsontext.Value(v))
	if !ok {
		return list, &Mistake{claim, "a string or an array of strings"}
	}
	return list, nil
}

// endOfTime is the end of the year 9999 in seconds. A later date is a mistake.
const endOfTime = 253402300800

// Time reads a NumericDate (RFC 7519 §2): a JSON number of seconds, with fractions, from
// 1970 to 9999.
func (v Value) Time(claim string) (time.Time, error) {
	if v.Kind() == '0' && v[0] != '-' {
		seconds, err := strconv.ParseFloat(string(v), 64)
		if err == nil && seconds < endOfTime {
			whole, fraction := math.Modf(seconds)
			return time.Unix(int64(whole), int64(fraction*1e9)), nil
		}
	}
	return time.Time{}, &Mistake{claim, "a number of seconds since 1970"}
}

var errMember = errors.New("a member has the wrong type")

// Within returns the member names of an object whose values, objects too, have a member
// that is named like the organization. Others hold elsewhere: with Zitadel, an
// organization that was granted a project assigns the project's roles itself.
func (v Value) Within(organization, claim string) (names []string, err error) {
	err = strictjson.Object(v, func(name []byte, holds jsontext.Value) error {
		if holds.Kind() != '{' {
			return errMember
		}
		switch in := (strictjson.Pointer{organization}).In(holds); {
		case in == nil:
		case in.Kind() != '"':
			return errMember
		default:
			names = append(names, string(name))
		}
		return nil
	})
	if err != nil {
		return nil, &Mistake{claim, "an object of scopes, each with an object of organizations"}
	}
	return names, nil
}

// ErrDiffer is the error of claims that should say the same.
var ErrDiffer = errors.New("two claims differ")

// Same returns the one text of all those claims that are there, or "" if none is. Two
// that differ are an error, since another reader could choose the other one.
func Same(names []Name, values []Value) (text string, err error) {
	for i, value := range values {
		if value == nil {
			continue
		}
		s, err := value.Text(names[i].text)
		if err != nil {
			return "", err
		}
		if text != "" && text != s {
			return "", ErrDiffer
		}
		text = s
	}
	return text, nil
}
