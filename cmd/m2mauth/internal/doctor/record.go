package doctor

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"time"
)

// maxBody limits what is kept of a response, but for one byte that tells a longer one.
// The guard itself reads no more.
const maxBody = 1 << 20

// recorder records what a guard's client sends and receives. So the reasons in a report
// are about the very requests that decided whether the guard has keys.
type recorder struct {
	base http.RoundTripper

	mu        sync.Mutex // guards the fields below
	exchanges []*exchange
}

// exchange is a request and what became of it.
type exchange struct {
	url        *url.URL
	redirected bool // the one before it led here

	lookedUp  string // the host whose addresses were asked for
	addresses []string
	lookupErr error

	connecting bool
	connected  string // the address
	connectErr error

	shaking bool
	tls     *tls.ConnectionState
	tlsErr  error

	response *http.Response // without its body
	sent     time.Time
	received time.Time // when the header came
	body     bytes.Buffer
	err      error // that ended the exchange
}

// took is how long the response took.
func (e *exchange) took() time.Duration { return e.received.Sub(e.sent) }

// begin gives each request a fresh exchange, which later hooks of the transport fill in:
// they may still run when the request has ended.
func (r *recorder) begin(request *http.Request) *exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &exchange{url: request.URL, redirected: request.Response != nil, sent: time.Now()}
	r.exchanges = append(r.exchanges, e)
	return e
}

// RoundTrip implements [http.RoundTripper].
func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	e := r.begin(request)
	note := func(change func()) {
		r.mu.Lock()
		defer r.mu.Unlock()
		change()
	}
	trace := &httptrace.ClientTrace{
		DNSStart: func(i httptrace.DNSStartInfo) { note(func() { e.lookedUp = i.Host }) },
		DNSDone: func(i httptrace.DNSDoneInfo) {
			note(func() {
				e.lookupErr = i.Err
				for _, a := range i.Addrs {
					e.addresses = append(e.addresses, a.String())
				}
			})
		},
		ConnectStart: func(string, string) { note(func() { e.connecting = true }) },
		ConnectDone: func(_, address string, err error) {
			note(func() {
				if err == nil {
					e.connected = address
				} else {
					e.connectErr = err
				}
			})
		},
		TLSHandshakeStart: func() { note(func() { e.shaking = true }) },
		TLSHandshakeDone: func(s tls.ConnectionState, err error) {
			note(func() {
				if e.tlsErr = err; err == nil {
					e.tls = &s
				}
			})
		},
	}
	response, err := r.base.RoundTrip(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	note(func() {
		if e.err = err; err == nil {
			e.received = time.Now()
			kept := *response
			kept.Body = nil
			e.response = &kept
		}
	})
	if err == nil {
		response.Body = &recordedBody{response.Body, r, e}
	}
	return response, err
}

// recordedBody keeps what is read.
type recordedBody struct {
	io.ReadCloser
	r *recorder
	e *exchange
}

func (b *recordedBody) Read(p []byte) (n int, err error) {
	n, err = b.ReadCloser.Read(p)
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	b.e.body.Write(p[:min(n, max(0, maxBody+1-b.e.body.Len()))])
	if err != nil && !errors.Is(err, io.EOF) {
		b.e.err = err
	}
	return n, err
}

// recorded returns what happened until now. The hooks of connections that lost a race do
// not change it any more.
func (r *recorder) recorded() (all []exchange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.exchanges {
		c := *e
		c.addresses, c.body = slices.Clone(e.addresses), *bytes.NewBuffer(bytes.Clone(e.body.Bytes()))
		all = append(all, c)
	}
	return all
}
