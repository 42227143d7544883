// Package inmemory is a network in memory, from an HTTP client to one handler.
package inmemory

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// Transport is an [http.RoundTripper] that calls a handler in place of the
// network. Each request has a goroutine, which ends when the handler returns.
//
// All waiting is on channels made for the request, so that inside a bubble of
// testing/synctest time goes on while a handler hangs.
type Transport struct {
	Origin  string // the only one that it reaches: scheme and authority, no slash
	Handler http.Handler
}

// RoundTrip returns the response as soon as the handler has written its header
// or has returned. The body comes as the handler writes it: nothing is buffered,
// so a handler that nobody reads waits, as it does for a slow network.
//
// A handler that panics breaks the response off: RoundTrip fails or, if it has
// returned, the reading of the body does.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	sent := req.Body
	if sent == nil {
		sent = http.NoBody
	}
	closeSent := sync.OnceFunc(func() { _ = sent.Close() })
	if err := t.dial(req); err != nil {
		closeSent()
		return nil, err
	}

	// Of the client's context the server learns only that it ended.
	ctx, hangUp := context.WithCancel(context.Background())
	pipe, body := io.Pipe()
	w := &responseWriter{
		request: req,
		header:  http.Header{},
		body:    body,
		client:  &responseBody{PipeReader: pipe, hangUp: hangUp},
		started: make(chan result, 1),
	}
	stop := context.AfterFunc(req.Context(), func() {
		_ = body.CloseWithError(context.Cause(req.Context())) // what a reader gets
		closeSent()
		hangUp()
	})
	go func() {
		err := io.ErrUnexpectedEOF // as when a connection breaks
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				err = fmt.Errorf("m2mauthtest: the handler panicked: %v", v)
			}
			w.end(err)
			stop()
			closeSent()
			hangUp()
		}()
		t.Handler.ServeHTTP(w, serverRequest(ctx, req, sent))
		err = nil // no panic and no runtime.Goexit
	}()

	var r result
	select {
	case r = <-w.started:
	case <-req.Context().Done():
	}
	if req.Context().Err() != nil {
		// Whatever the handler says because the client has gone reaches nobody,
		// and a test must not depend on which of the two was faster.
		return nil, context.Cause(req.Context())
	}
	return r.response, r.err
}

// dial fails for what the transport does not reach as for an unknown host.
func (t *Transport) dial(req *http.Request) error {
	if req.Context().Err() != nil {
		return context.Cause(req.Context())
	}
	host := strings.ToLower(req.URL.Host)
	if req.URL.Scheme == "https" {
		host = strings.TrimSuffix(host, ":443")
	}
	if req.URL.Scheme+"://"+host == t.Origin {
		return nil
	}
	return &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{
		Err:        "no such host",
		Name:       req.URL.Host,
		IsNotFound: true,
	}}
}

// serverRequest returns the request as a server sees it.
func serverRequest(ctx context.Context, req *http.Request, body io.ReadCloser) *http.Request {
	r := &http.Request{
		Method:        req.Method,
		URL:           &url.URL{Path: req.URL.Path, RawPath: req.URL.RawPath, RawQuery: req.URL.RawQuery},
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        req.Header.Clone(),
		Body:          body,
		ContentLength: req.ContentLength,
		Host:          req.Host,
		RemoteAddr:    "192.0.2.1:1234", // RFC 5737
		RequestURI:    req.URL.RequestURI(),
	}
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	if r.URL.Path == "" {
		r.URL.Path = "/"
	}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if r.ContentLength == 0 && body != http.NoBody {
		r.ContentLength = -1 // a client's way to say unknown
	}
	if r.Host == "" {
		r.Host = req.URL.Host
	}
	return r.WithContext(ctx)
}

// responseWriter turns what a handler writes into a response. Only the handler's
// goroutine uses it; started and the pipe lead to the client.
type responseWriter struct {
	request *http.Request
	header  http.Header
	body    *io.PipeWriter
	client  *responseBody
	started chan result // has room for the one result

	status  int   // 0 until the header is written
	length  int64 // Content-Length; -1 if unknown
	written int64
}

type result struct {
	response *http.Response
	err      error
}

func (w *responseWriter) Header() http.Header { return w.header }

func (w *responseWriter) WriteHeader(status int) {
	if w.status != 0 || status < 200 { // clients see no 1xx response
		return
	}
	w.status = status
	header := w.header.Clone()
	w.length = -1
	if n, err := strconv.ParseUint(header.Get("Content-Length"), 10, 63); err == nil {
		w.length = int64(n)
	}
	w.started <- result{response: &http.Response{
		Status:        fmt.Sprintf("%d %s", status, http.StatusText(status)),
		StatusCode:    status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		Body:          w.client,
		ContentLength: w.length,
		Request:       w.request,
	}}
}

// Write waits until the client has read everything or closed the body.
func (w *responseWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	switch {
	case w.request.Method == http.MethodHead:
		return len(p), nil
	case !w.bodyAllowed():
		return 0, http.ErrBodyNotAllowed
	case w.length >= 0 && int64(len(p)) > w.length-w.written:
		return 0, http.ErrContentLength
	}
	n, err := w.body.Write(p)
	w.written += int64(n)
	return n, err
}

// Flush sends the header. Nothing else is ever held back.
func (w *responseWriter) Flush() { w.WriteHeader(http.StatusOK) }

func (w *responseWriter) bodyAllowed() bool {
	return w.request.Method != http.MethodHead &&
		w.status != http.StatusNoContent && w.status != http.StatusNotModified
}

// end finishes the response when the handler has ended, by itself if err is nil.
func (w *responseWriter) end(err error) {
	if err == nil {
		w.WriteHeader(http.StatusOK)
		if w.bodyAllowed() && w.written < w.length {
			err = io.ErrUnexpectedEOF // less than Content-Length promised
		}
	}
	if w.status == 0 {
		w.started <- result{err: err}
	}
	_ = w.body.CloseWithError(err) // nil gives io.EOF
}

// responseBody is the client's end of a response.
type responseBody struct {
	*io.PipeReader
	hangUp context.CancelFunc
}

// Close makes the handler's writes fail and ends its context.
func (b *responseBody) Close() error {
	b.hangUp()
	return b.PipeReader.Close()
}
