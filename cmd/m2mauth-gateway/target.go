package main

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ambiguous is a reason to refuse a request with 400: the proxy, the gateway and
// the API could each read it in another way. Its text is fit for the caller.
type ambiguous string

func (a ambiguous) Error() string { return string(a) }

// parseTarget reads a request target in origin form (RFC 9112 §3.2.1) and returns
// the segments of its path as they were sent. Nothing is normalised: the API sees
// what the caller sent, so what could be read in two ways is refused.
func parseTarget(target string) ([]string, error) {
	path, query, _ := strings.Cut(target, "?")
	if !printable(query) || strings.Contains(query, "#") {
		return nil, ambiguous("the query has a character that cannot stand there")
	}
	segments, err := split(path)
	if err != nil {
		return nil, err
	}
	for _, s := range segments {
		if err := readSegment(s); err != nil {
			return nil, err
		}
	}
	return segments, nil
}

// split cuts a path at its slashes. An empty segment can only be the last, of a
// path that ends in a slash: some merge the slashes of //, and some do not.
func split(path string) ([]string, error) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil, ambiguous("the request target must be a path that begins with a slash")
	}
	if strings.Contains(path, "//") {
		return nil, ambiguous("the path has an empty segment (//)")
	}
	return strings.Split(rest, "/"), nil
}

// readSegment refuses a segment of a path that not everybody reads alike.
func readSegment(s string) error {
	for i := 0; i < len(s); i++ {
		if s[i] != '%' && !mayStandRaw(s[i]) { // ; begins parameters for some, \ is a slash for some, # ends a path for some
			return ambiguous("the path has a character that must not stand there unencoded, a semicolon, or a backslash")
		}
	}
	decoded, err := url.PathUnescape(s)
	if err != nil {
		return ambiguous("the path has a percent sign that begins no encoding")
	}
	if strings.HasSuffix(decoded, ".") || strings.HasPrefix(decoded, " ") || strings.HasSuffix(decoded, " ") {
		// Also . and .. itself, and what Windows takes for the name without them.
		return ambiguous("a segment of the path ends in a dot, or begins or ends in a space")
	}
	for i := 0; i+2 < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		// What needs no encoding has two spellings, which are the same only for
		// those who decode before they compare (RFC 3986 §6.2.2.2).
		if b := unhex(s[i+1])<<4 | unhex(s[i+2]); isUnreserved(b) {
			return ambiguous("the path has a letter, a digit or one of -._~ percent-encoded")
		}
	}
	for _, r := range decoded {
		switch {
		case r < utf8.RuneSelf && (unicode.IsControl(r) || strings.ContainsRune(`%/\;?#`, r)):
			return ambiguous(`the path has a control character, or one of %/\;?#, percent-encoded`)
		case r >= utf8.RuneSelf && !unicode.In(r, unicode.L, unicode.M, unicode.N): // U+FFFD too, which stands for what is not UTF-8
			return ambiguous("the path has a sign outside ASCII that is no letter and no digit, or is not UTF-8")
		}
	}
	return nil
}

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}

func isUnreserved(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || strings.IndexByte("-._~", b) >= 0
}

// mayStandRaw reports whether a byte is one of a segment (RFC 3986 §3.3), and no
// semicolon.
func mayStandRaw(b byte) bool {
	return isUnreserved(b) || strings.IndexByte("!$&'()*+,=:@", b) >= 0
}

// printable reports whether s consists of ASCII that can be seen.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
