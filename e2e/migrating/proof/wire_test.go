package proof

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A server is a real one of net/http whose connections are in memory, so that it works
// in a bubble of synctest and what it writes is seen byte for byte.
type server struct {
	connections chan net.Conn
	closed      chan struct{}
	close       func()
}

func newServer(t *testing.T, handler http.Handler) *server {
	t.Helper()
	s := &server{connections: make(chan net.Conn), closed: make(chan struct{})}
	s.close = sync.OnceFunc(func() { close(s.closed) })
	h := &http.Server{Handler: handler}
	done := make(chan error, 1)
	go func() { done <- h.Serve(s) }()
	t.Cleanup(func() {
		require.NoError(t, h.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	})
	return s
}

func (s *server) Accept() (net.Conn, error) {
	select {
	case c := <-s.connections:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *server) Close() error { s.close(); return nil }

func (s *server) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80} }

// peer is a connection from an address, which m2mauth groups callers by.
type peer struct{ net.Conn }

func (peer) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711} }

// date is what the server itself writes, by its clock.
var date = regexp.MustCompile(`(?m)^Date: .*\r\n`)

// send returns the status, and all bytes of the response but those of the date.
func (s *server) send(t *testing.T, request []byte, method string) (status int, response string) {
	t.Helper()
	client, conn := net.Pipe()
	defer client.Close()
	s.connections <- peer{conn}
	go func() { _, _ = client.Write(request) }() // a server that refuses may not read all of it
	answer, err := io.ReadAll(client)
	require.NoError(t, err)
	parsed, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), &http.Request{Method: method})
	require.NoError(t, err, "%q", answer)
	require.NoError(t, parsed.Body.Close())
	response = date.ReplaceAllString(string(answer), "")
	require.NotEqual(t, string(answer), response, "a server of net/http writes a date")
	return parsed.StatusCode, response
}

type numberKey struct{}

// numbered tells the guard's OnDecision which request it is.
func numbered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), numberKey{}, r.Header.Get("X-Number"))))
	})
}

// write writes a request as a client would, whatever its fields hold.
func write(method, path, number string, fields []string) []byte {
	var b strings.Builder
	b.WriteString(method + " " + path + " HTTP/1.1\r\nHost: shopping.api\r\nConnection: close\r\nX-Number: " + number + "\r\n")
	for _, f := range fields {
		b.WriteString(f + "\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}
