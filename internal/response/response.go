// Package response writes the response to a rejected request (RFC 6750), and keeps its
// status. Without a status, net/http sends 200, and a client would take that for success.
package response

import (
	"bufio"
	"net"
	"net/http"
	"strings"
)

// Writer is what Config.ErrorHandler writes to. Its status is the rejection's, unless
// WriteHeader is called with another one of 400 or more.
type Writer struct {
	http.ResponseWriter
	status   int
	replaced func(status int)
	begun    bool
}

// NewWriter makes a Writer for a rejection with the status. It calls replaced with any
// status below 400, and sends the rejection's status instead.
func NewWriter(w http.ResponseWriter, status int, replaced func(status int)) *Writer {
	return &Writer{ResponseWriter: w, status: status, replaced: replaced}
}

func (w *Writer) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		return // a hint: some frameworks take it for the response, and then send 200
	}
	if !w.begun {
		w.begun = true
		if status < 400 && !(status == http.StatusOK && hasOwnStatus(w.Header().Get("Content-Type"))) {
			w.replaced(status)
			status = w.status
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// hasOwnStatus reports whether a response of this type is of gRPC, gRPC-Web or a
// Connect stream. Those have the status 200 even for an error, and carry their own
// status in a trailer or at the end of the body.
func hasOwnStatus(contentType string) bool {
	contentType = strings.ToLower(contentType)
	return strings.HasPrefix(contentType, "application/grpc") || strings.HasPrefix(contentType, "application/connect+")
}

// Begin sends the rejection's status unless one was already sent.
func (w *Writer) Begin() {
	if !w.begun {
		w.WriteHeader(w.status)
	}
}

func (w *Writer) Write(p []byte) (int, error) {
	w.Begin()
	return w.ResponseWriter.Write(p)
}

// Flush is for handlers that look for an http.Flusher.
func (w *Writer) Flush() { _ = w.FlushError() }

// FlushError is for [http.ResponseController]. Without it, that would ask the inner
// writer, which begins its response with 200.
func (w *Writer) FlushError() error {
	w.Begin()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack leaves the response to the caller, who takes over the connection.
func (w *Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.begun = w.begun || err == nil
	return conn, buffer, err
}

// Unwrap is for [http.ResponseController].
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
