// Package ascii knows the letter case and the sets of characters of HTTP and JOSE. They
// are ASCII, whatever Unicode makes of other characters.
package ascii

import "strings"

// Lower changes only ASCII letters. The functions of package strings also turn letters
// such as ſ and İ into s and i.
func Lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// Sets of characters: those of a token, such as an authentication scheme or a header's
// name (RFC 9110 §5.6.2), and those of a token68 (§11.2) but for the equals signs at
// its end.
var (
	tokenChars   = charSet("!#$%&'*+-.^_`|~")
	token68Chars = charSet("-._~+/")
)

func charSet(others string) (set [256]bool) {
	for _, c := range "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" + others {
		set[c] = true
	}
	return set
}

// span returns how many characters at the start of s are in the set.
func span(s string, set *[256]bool) int {
	n := 0
	for n < len(s) && set[s[n]] {
		n++
	}
	return n
}

// TokenSpan returns how many characters at the start of s are those of a token.
func TokenSpan(s string) int { return span(s, &tokenChars) }

// IsToken reports whether s is a token.
func IsToken(s string) bool { return s != "" && TokenSpan(s) == len(s) }

// IsToken68 reports whether s is a token68.
func IsToken68(s string) bool {
	s = strings.TrimRight(s, "=")
	return s != "" && span(s, &token68Chars) == len(s)
}
