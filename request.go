package m2mauth

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
)

// Request is a request as a [Guard] and its rules see it, whatever the framework. An
// implementation must embed [UnimplementedRequest], so that methods can be added later
// without breaking it.
type Request interface {
	// Header returns all values of a header. The letter case of the name does not
	// matter. If Header panics, the request is rejected with ErrInternal.
	Header(name string) []string
	// PathValue returns the value of a wildcard in the route's path, or "". With
	// net/http and the adapters, it returns "" for every CONNECT request.
	PathValue(name string) string
	// RemoteAddr returns the address of the peer, host:port.
	RemoteAddr() string
	// Method returns the request's method, or "" if there is none.
	Method() string
	// URL returns the URL of the request, or nil if it is unknown. It must not be changed.
	URL() *url.URL
	// TLS returns the state of the TLS connection, or nil if it is unknown, as behind
	// a proxy that terminates TLS.
	TLS() *tls.ConnectionState
	// Pattern returns the route's pattern for the log, or "".
	Pattern() string

	embedsUnimplementedRequest()
}

// UnimplementedRequest is a [Request] whose methods return zero values.
type UnimplementedRequest struct{}

func (UnimplementedRequest) Header(string) []string    { return nil }
func (UnimplementedRequest) PathValue(string) string   { return "" }
func (UnimplementedRequest) RemoteAddr() string        { return "" }
func (UnimplementedRequest) Method() string            { return "" }
func (UnimplementedRequest) URL() *url.URL             { return nil }
func (UnimplementedRequest) TLS() *tls.ConnectionState { return nil }
func (UnimplementedRequest) Pattern() string           { return "" }

func (UnimplementedRequest) embedsUnimplementedRequest() {}

// httpRequest embeds nothing, so that an interface holds it without an allocation.
type httpRequest struct{ r *http.Request }

func (h httpRequest) Header(name string) []string { return h.r.Header.Values(name) }
func (h httpRequest) RemoteAddr() string          { return h.r.RemoteAddr }
func (h httpRequest) Method() string              { return h.r.Method }
func (h httpRequest) URL() *url.URL               { return h.r.URL }
func (h httpRequest) TLS() *tls.ConnectionState   { return h.r.TLS }
func (h httpRequest) Pattern() string             { return h.r.Pattern }
func (h httpRequest) embedsUnimplementedRequest() {}

// PathValue returns "" for a CONNECT request, whose path net/http does not clean. With
// the path /orgs//items/acme, the wildcards would shift and the item would be taken
// for the organization, or PathValue would panic.
func (h httpRequest) PathValue(name string) (value string) {
	if h.r.Method == http.MethodConnect {
		return ""
	}
	defer orEmpty()
	return h.r.PathValue(name)
}

// orEmpty is deferred where a panic of a framework must result in an empty value.
func orEmpty() { _ = recover() }

// hostOf is the default Config.QueueKey: the host of the peer's address, or for IPv6
// its /64, which one customer of a provider has alone.
func hostOf(r Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr())
	if err != nil {
		host = r.RemoteAddr()
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() && !ip.Is4In6() {
		prefix, _ := ip.Prefix(64)
		return prefix.String()
	}
	return host
}

// fieldsOf returns the values of a header. A panic is an error. It must not look like a
// request without the header, which a rule such as Optional would let through.
func fieldsOf(r Request, name string) (values []string, err error) {
	defer func() {
		if v := recover(); v != nil {
			values, err = nil, panicIn("the request's Header", v)
		}
	}()
	return r.Header(name), nil
}

// panicIn makes an error of a panic, for the log. It has only the type of what was
// thrown, whose text may hold the token.
func panicIn(what string, v any) error {
	if mistake, ok := v.(runtime.Error); ok {
		return fmt.Errorf("%s panicked: %w", what, mistake)
	}
	return fmt.Errorf("%s panicked with a %T", what, v)
}

// patternOf returns the route's pattern. It is only for the log, so a panic must not
// change the decision.
func patternOf(r Request) (pattern string) {
	defer orEmpty()
	if r == nil {
		return ""
	}
	return r.Pattern()
}

// noRequest is the source of tokens that are passed to Verify, without a request. It is
// no address and no header, so no Config.QueueKey returns it by accident.
const noRequest = "\x00"

// source returns the group in which a request waits for a signature check.
func (g *Guard) source(r Request) string {
	switch {
	case r == nil:
		return noRequest
	case g.queueKey == nil:
		return hostOf(r)
	}
	return g.queueKey(r)
}
