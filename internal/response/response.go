// Package response keeps the status of a refused request. net/http gives an answer
// without a status 200, which a client takes for success.
package response

import (
	"bufio"
	"net"
	"net/http"
	"strings"
)

// Writer is what Config.ErrorHandler writes to. Its status is the refusal's until
// WriteHeader is called with another of 400 or more.
type Writer struct {
	http.ResponseWriter
	status   int
	replaced func(status int)
	begun    bool
}

// NewWriter makes a Writer for a refusal with the status. replaced is called with a
// status below 400, in place of which the refusal's is sent.
func NewWriter(w http.ResponseWriter, status int, replaced func(status int)) *Writer {
	return &Writer{ResponseWriter: w, status: status, replaced: replaced}
}

func (w *Writer) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		return // a hint, which some frameworks take for the answer, and send 200 then
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

// hasOwnStatus reports whether an answer of the type is of gRPC, gRPC-Web or
// Connect's streams. They are 200 even for an error, which stands in a trailer or
// at the end of the body.
func hasOwnStatus(contentType string) bool {
	contentType = strings.ToLower(contentType)
	return strings.HasPrefix(contentType, "application/grpc") || strings.HasPrefix(contentType, "application/connect+")
}

// Begin sends the refusal's status where none has been sent.
func (w *Writer) Begin() {
	if !w.begun {
		w.WriteHeader(w.status)
	}
}

func (w *Writer) Write(p []byte) (int, error) {
	w.Begin()
	return w.ResponseWriter.Write(p)
}

// Flush is there for handlers that look for an http.Flusher.
func (w *Writer) Flush() { _ = w.FlushError() }

// FlushError is for [http.ResponseController], which would ask the inner writer
// otherwise: that begins its answer with 200.
func (w *Writer) FlushError() error {
	w.Begin()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack leaves the answer to whoever takes the connection.
func (w *Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.begun = w.begun || err == nil
	return conn, buffer, err
}

// Unwrap is for [http.ResponseController].
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
