package m2mauth

import (
	"fmt"
	"log/slog"
	"strings"
)

// bearerToken takes the token out of the request's Authorization fields (RFC
// 6750 §2.1, RFC 9110 §11.4). Tokens in a query, a form or a cookie are never read.
func bearerToken(fields []string, most int) (string, *Error) {
	switch len(fields) {
	case 0:
		return "", noToken()
	case 1:
	default: // two could be read in two ways by us and by a proxy before us
		return "", newError(ErrRequest, "the request has more than one Authorization field", slog.Int("fields", len(fields)))
	}
	field := strings.Trim(fields[0], " \t")
	if len(field) > len("Bearer ")+most {
		return "", newError(ErrRequest, fmt.Sprintf("the Authorization field is longer than %s", inBytes(most)), slog.Int("bytes", len(field)))
	}
	end := span(field, &schemeChars)
	if !strings.EqualFold(field[:end], "Bearer") {
		return "", noToken()
	}
	token := strings.TrimLeft(field[end:], " ")
	if token == "" {
		return "", newError(ErrRequest, "the Authorization field has no token after Bearer")
	}
	if field[end] != ' ' {
		return "", notOneToken()
	}
	return token, nil // whether it is a token68 is asked when it is not remembered
}

func noToken() *Error {
	return newError(ErrNoToken, "this request needs an access token: Authorization: Bearer followed by the token")
}

// Sets of characters: those of an authentication scheme (RFC 9110 §5.6.2), and
// those of a token68 (§11.2) but for the equals signs at its end.
var (
	schemeChars  = charSet("!#$%&'*+-.^_`|~")
	token68Chars = charSet("-._~+/")
)

func charSet(others string) (set [256]bool) {
	for _, c := range "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" + others {
		set[c] = true
	}
	return set
}

// span returns how many characters at the beginning of s are in the set.
func span(s string, set *[256]bool) int {
	n := 0
	for n < len(s) && set[s[n]] {
		n++
	}
	return n
}
