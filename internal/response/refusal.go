package response

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Unauthorized is the code of a request without credentials. It occurs in the body, but
// not in the challenge (RFC 6750 §3.1).
const Unauthorized = "unauthorized"

// Refusal is what the response to a rejected request says.
type Refusal struct {
	Status      int
	Code        string // the member error of the body, and of the challenge
	Description string
	Scopes      []string
	RetryAfter  time.Duration
	Realm       string
	MetadataURL string // of RFC 9728; "" for none
}

// HTTP returns the headers and the body of the response, per RFC 6750. It is what a flood
// of bad requests costs most after the tokens, so it makes as few objects as it can.
func (r Refusal) HTTP() (http.Header, []byte) {
	values := [4]string{"no-store", "application/json"} // of one header each
	h := http.Header{
		"Cache-Control": values[0:1:1],
		"Content-Type":  values[1:2:2],
	}
	switch r.Status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		values[2] = r.challenge()
		h["Www-Authenticate"] = values[2:3:3]
	}
	if r.RetryAfter > 0 {
		seconds := (r.RetryAfter + time.Second - 1) / time.Second
		values[3] = strconv.FormatInt(int64(seconds), 10)
		h["Retry-After"] = values[3:4:4]
	}
	body := append(make([]byte, 0, 64+len(r.Code)+len(r.Description)), `{"error":`...)
	body, _ = jsontext.AppendQuote(body, r.Code) // it fails only for invalid UTF-8, and replaces that
	body = append(body, `,"error_description":`...)
	body, _ = jsontext.AppendQuote(body, r.Description)
	return h, append(body, "}\n"...)
}

// challenge returns the value of WWW-Authenticate. It always has a realm, since RFC
// 6750 §3 requires at least one parameter.
func (r Refusal) challenge() string {
	var buffer [512]byte // on the stack
	b := appendParameter(append(buffer[:0], "Bearer "...), "realm", Quotable(r.Realm))
	if r.Code != Unauthorized {
		b = appendParameter(append(b, ", "...), "error", Quotable(r.Code))
		if text := Quotable(r.Description); text != "" {
			b = appendParameter(append(b, ", "...), "error_description", text)
		}
	}
	if r.MetadataURL != "" {
		b = appendParameter(append(b, ", "...), "resource_metadata", Quotable(r.MetadataURL))
	}
	if len(r.Scopes) > 0 && writable(r.Scopes) {
		b = appendParameter(append(b, ", "...), "scope", strings.Join(r.Scopes, " "))
	}
	return string(b)
}

func appendParameter(b []byte, name, value string) []byte {
	b = append(append(b, name...), `="`...)
	return append(append(b, value...), '"')
}

// Quotable returns s without the characters that RFC 6750 §3 does not allow in
// error_description. It also removes quotes and backslashes, since not every client
// undoes their escapes. So nothing can end the parameter early.
func Quotable(s string) string {
	if isQuotable(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, s)
}

// isQuotable reports whether Quotable would leave s as it is, as it does nearly always.
func isQuotable(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// writable reports whether every scope is a scope-token of RFC 6749 §3.3. Logto allows
// other names too. Half a list would mislead, so it is all or none.
func writable(scopes []string) bool {
	for _, s := range scopes {
		if s == "" || strings.Contains(s, " ") || !isQuotable(s) {
			return false
		}
	}
	return true
}
