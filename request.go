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

// Request is what a [Guard] sees of a request, for what is not net/http. Whoever
// implements it embeds [UnimplementedRequest], so that a method which is added later
// breaks nobody.
type Request interface {
	// Header returns all values of a header field, whose name may be written
	// in any letter case. If it panics the request is refused with ErrInternal.
	Header(name string) []string
	// PathValue returns the value of a wildcard of the route's path, or "". It
	// is "" for every CONNECT request of net/http and the adapters.
	PathValue(name string) string
	// RemoteAddr returns the address of the peer, host:port.
	RemoteAddr() string
	// Method returns the request's method, or "" where there is none.
	Method() string
	// URL returns what the request asks for, or nil where that is not known.
	// Nobody may change it.
	URL() *url.URL
	// TLS describes the connection, or is nil where that is not known, as behind
	// a proxy that ends TLS.
	TLS() *tls.ConnectionState
	// Pattern returns the route's pattern for the log, or "".
	Pattern() string

	embedsUnimplementedRequest()
}

// UnimplementedRequest is a [Request] that says nothing.
type UnimplementedRequest struct{}

func (UnimplementedRequest) Header(string) []string    { return nil }
func (UnimplementedRequest) PathValue(string) string   { return "" }
func (UnimplementedRequest) RemoteAddr() string        { return "" }
func (UnimplementedRequest) Method() string            { return "" }
func (UnimplementedRequest) URL() *url.URL             { return nil }
func (UnimplementedRequest) TLS() *tls.ConnectionState { return nil }
func (UnimplementedRequest) Pattern() string           { return "" }

func (UnimplementedRequest) embedsUnimplementedRequest() {}

// httpRequest embeds nothing, so that it fits into an interface without a copy.
type httpRequest struct{ r *http.Request }

func (h httpRequest) Header(name string) []string { return h.r.Header.Values(name) }
func (h httpRequest) RemoteAddr() string          { return h.r.RemoteAddr }
func (h httpRequest) Method() string              { return h.r.Method }
func (h httpRequest) URL() *url.URL               { return h.r.URL }
func (h httpRequest) TLS() *tls.ConnectionState   { return h.r.TLS }
func (h httpRequest) Pattern() string             { return h.r.Pattern }
func (h httpRequest) embedsUnimplementedRequest() {}

// PathValue knows none of a CONNECT request, whose path net/http does not clean:
// in /orgs//items/acme its wildcards move, so that the item would be taken for
// the organization, or it panics.
func (h httpRequest) PathValue(name string) (value string) {
	if h.r.Method == http.MethodConnect {
		return ""
	}
	defer orEmpty()
	return h.r.PathValue(name)
}

// orEmpty is deferred where a panic of a framework is to be an empty value.
func orEmpty() { _ = recover() }

// hostOf is the default Config.QueueKey: the host of the peer's address, and for
// IPv6 its /64, which a single customer of a provider has to itself.
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

// fieldsOf returns the values of a header field. A panic is an error and not a
// request without the field, which a rule such as Optional would let through.
func fieldsOf(r Request, name string) (values []string, err error) {
	defer func() {
		if v := recover(); v != nil {
			values, err = nil, fmt.Errorf("the request's Header panicked with a %T", v) // its text may hold the token
			if mistake, ok := v.(runtime.Error); ok {
				err = fmt.Errorf("the request's Header panicked: %w", mistake)
			}
		}
	}()
	return r.Header(name), nil
}

// patternOf returns the route's pattern. It is for the log alone, so that no panic in
// it changes what has been decided.
func patternOf(r Request) (pattern string) {
	defer orEmpty()
	if r == nil {
		return ""
	}
	return r.Pattern()
}

// noRequest is the source of tokens that come by themselves, to Verify. No address
// and no header field, of which a Config.QueueKey may make one, is so written.
const noRequest = "\x00"

// source says whom a request that waits for a signature check counts as.
func (g *Guard) source(r Request) string {
	switch {
	case r == nil:
		return noRequest
	case g.queueKey == nil:
		return hostOf(r)
	}
	return g.queueKey(r)
}
