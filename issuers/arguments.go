package issuers

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/m2mauth/m2mauth"
)

// arguments checks those of one function, and gathers what is wrong with them.
type arguments struct {
	function string
	mistakes []error
}

func (a *arguments) add(argument, format string, args ...any) {
	a.mistakes = append(a.mistakes, fmt.Errorf("issuers: "+a.function+": "+argument+" "+format, args...))
}

// config returns the Config, or the mistakes and a Config that New refuses.
func (a *arguments) config(c m2mauth.Config) (m2mauth.Config, error) {
	if len(a.mistakes) > 0 {
		return m2mauth.Config{}, errors.Join(a.mistakes...)
	}
	return c, nil
}

// text reports whether an argument is one word. What it must be else, New checks.
func (a *arguments) text(argument, value, what string) bool {
	switch {
	case value == "":
		a.add(argument, "is empty: give %s", what)
	case strings.ContainsAny(value, " \t\r\n"):
		a.add(argument, "holds white space, perhaps a line break: give %s", what)
	default:
		return true
	}
	return false
}

// form holds an argument to a pattern.
func (a *arguments) form(argument, value string, pattern *regexp.Regexp, what string) {
	if a.text(argument, value, what) && !pattern.MatchString(value) {
		a.add(argument, "is %q: give %s", value, what)
	}
}

// forms holds every value of a list to a pattern, and requires at least one.
func (a *arguments) forms(argument string, values []string, pattern *regexp.Regexp, what, why string) {
	if len(values) == 0 {
		a.add(argument, "are missing: give %s; %s", what, why)
	}
	for i, value := range values {
		a.form(fmt.Sprintf("%s[%d]", argument, i), value, pattern, what)
	}
}

// url reads an issuer's address. Mistakes never show it: it may hold a password.
func (a *arguments) url(argument, value, example string) *url.URL {
	if !a.text(argument, value, "an absolute URL, such as "+example) {
		return &url.URL{}
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") {
		a.add(argument, "is not an absolute URL: give one such as %s", example)
		return &url.URL{}
	}
	if u.User != nil || strings.ContainsAny(value, "?#") {
		a.add(argument, "holds a user name, a query or a fragment: give an address alone, such as %s", example)
	}
	return u
}

// anyWord matches an argument that [arguments.text] alone checks.
var anyWord = regexp.MustCompile(`^\S+$`)

var (
	guid   = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`) // issuers write it so
	digits = regexp.MustCompile(`^[0-9]+$`)
)

const audienceIs = "the API's identifier, as it stands in aud, such as https://shopping.api"

// always is IsMachine where the issuer has no users, or the accepted accounts are
// named one by one.
func always(m2mauth.Claims) bool { return true }
