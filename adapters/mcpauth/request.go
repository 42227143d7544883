package mcpauth

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/m2mauth/m2mauth"
)

// check checks what a target requires, for the HTTP request that brought the message.
func (a *Auth) check(ctx context.Context, r *http.Request, t target) (claims m2mauth.Claims, err error) {
	for _, rule := range a.rulesFor(t) {
		if claims, err = a.guard.CheckRequest(ctx, request{r: r, target: t}, rule); err != nil {
			return m2mauth.Claims{}, err
		}
	}
	return claims, nil
}

// request is what the guard and its rules see of a message: the HTTP request.
type request struct {
	m2mauth.UnimplementedRequest
	r      *http.Request
	target target
}

func (q request) Header(name string) []string  { return q.r.Header.Values(name) }
func (q request) PathValue(name string) string { return q.r.PathValue(name) }
func (q request) RemoteAddr() string           { return q.r.RemoteAddr }
func (q request) Method() string               { return q.r.Method }
func (q request) URL() *url.URL                { return q.r.URL }
func (q request) TLS() *tls.ConnectionState    { return q.r.TLS }

// maxLogged limits what a caller can write into the log.
const maxLogged = 128

// Pattern says which tool it was, for the log.
func (q request) Pattern() string {
	if q.target.kind == aSession || q.target.kind == nothing {
		return q.r.Pattern
	}
	name := q.target.name
	return strings.TrimSpace(q.r.Pattern + " " + string(q.target.kind) + " " + strconv.Quote(name[:min(len(name), maxLogged)]))
}
