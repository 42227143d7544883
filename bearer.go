package m2mauth

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/m2mauth/m2mauth/internal/ascii"
)

// bearerToken takes the token from the request's Authorization headers (RFC 6750 §2.1,
// RFC 9110 §11.4). Tokens in a query, a form or a cookie are never read.
func bearerToken(fields []string, most int) (string, *Error) {
	switch len(fields) {
	case 0:
		return "", noToken()
	case 1:
	default: // a proxy in front of us might read another one than we do
		return "", newError(ErrRequest, "the request has more than one Authorization field", slog.Int("fields", len(fields)))
	}
	token, ok := strings.CutPrefix(fields[0], "Bearer ")
	if ok && 0 < len(token) && len(token) <= most && token[0] > ' ' && token[len(token)-1] > ' ' {
		return token, nil // as nearly every client writes it
	}
	field := strings.Trim(fields[0], " \t")
	if len(field) > len("Bearer ")+most {
		return "", newError(ErrRequest, fmt.Sprintf("the Authorization field is longer than %s", inBytes(most)), slog.Int("bytes", len(field)))
	}
	end := ascii.TokenSpan(field)
	if !strings.EqualFold(field[:end], "Bearer") {
		return "", noToken()
	}
	token = strings.TrimLeft(field[end:], " ")
	if token == "" {
		return "", newError(ErrRequest, "the Authorization field has no token after Bearer")
	}
	if field[end] != ' ' {
		return "", notOneToken()
	}
	return token, nil // verifyNew checks for a token68, so a cached token skips that
}

func noToken() *Error {
	return newError(ErrNoToken, "this request needs an access token: Authorization: Bearer followed by the token")
}

func notOneToken() *Error {
	return newError(ErrRequest, "the Authorization field must be Bearer and one token, without quotes, spaces and line breaks")
}

// inBytes writes a number of bytes for people.
func inBytes(n int) string {
	if n%1024 == 0 {
		return fmt.Sprintf("%d KiB", n/1024)
	}
	return fmt.Sprintf("%d bytes", n)
}
