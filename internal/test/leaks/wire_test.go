package leaks

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// Faults that only a real connection has. Goroutines must end and memory must
// not grow, though the guard's own client meets them.
func TestFaultsOnTheWire(t *testing.T) {
	issuer := m2mauthtest.NewIssuer() // only signs
	token := testguard.KeysToken(issuer, "")
	rec := httptest.NewRecorder()
	issuer.ServeHTTP(rec, httptest.NewRequest("GET", issuer.JWKSURL(), nil))
	keySet := rec.Body.Bytes()

	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	pour := func(first, chunk string) func(net.Conn) {
		endless := []byte(chunk) // once: what the server allocates is counted with the rest
		return func(c net.Conn) {
			_, err := io.WriteString(c, first)
			for err == nil {
				_, err = c.Write(endless)
			}
		}
	}
	for name, test := range map[string]struct {
		scheme string
		serve  func(net.Conn) // after the request's first bytes
	}{
		"an endless body":                          {"http", pour(head+"\r\n", strings.Repeat(" ", 1<<16))},
		"an endless body, chunked":                 {"http", pour(head+"Transfer-Encoding: chunked\r\n\r\n", "10000\r\n"+strings.Repeat(" ", 1<<16)+"\r\n")},
		"headers that never end":                   {"http", pour("HTTP/1.1 200 OK\r\n", "X-Filler: "+strings.Repeat("x", 1000)+"\r\n")},
		"one header that never ends":               {"http", pour("HTTP/1.1 200 OK\r\nX-Filler: ", strings.Repeat("x", 1000))},
		"endless answers before the answer":        {"http", pour("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")},
		"endless trailers":                         {"http", pour(head+"Transfer-Encoding: chunked\r\n\r\n0\r\n", "X-Filler: "+strings.Repeat("x", 1000)+"\r\n")},
		"an accepted connection that says nothing": {"http", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }},
		"a body that stops": {"http", func(c net.Conn) {
			_, _ = io.WriteString(c, head+"Content-Length: 100\r\n\r\n{")
			_, _ = io.Copy(io.Discard, c)
		}},
		"a connection closed at once":            {"http", func(net.Conn) {}},
		"rubbish":                                {"http", func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH\r\n") }},
		"a TLS client that meets plain text":     {"https", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }},
		"a TLS handshake that is never answered": {"https", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }},
		"a TLS handshake that breaks off":        {"https", func(net.Conn) {}},
		"a gzip bomb": {"http", func(c net.Conn) {
			_, _ = io.WriteString(c, head+"Content-Encoding: gzip\r\nConnection: close\r\n\r\n")
			bomb(c)
		}},
		"a body that is shorter than it says":       {"http", func(c net.Conn) { _, _ = io.WriteString(c, head+"Content-Length: 100\r\n\r\n{}") }},
		"a Content-Length of many gigabytes":        {"http", pour(head+"Content-Length: 99999999999\r\n\r\n", strings.Repeat(" ", 1<<16))},
		"another status that has an endless body":   {"http", pour("HTTP/1.1 500 Oh\r\n\r\n", strings.Repeat(" ", 1<<16))},
		"a redirect that has an endless body":       {"http", pour("HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n", strings.Repeat(" ", 1<<16))},
		"a 304 that nobody asked for":               {"http", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 304 Not Modified\r\n\r\n") }},
		"an answer of another protocol, switched":   {"http", pour("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "x")},
		"a key set that trickles byte after byte":   {"http", trickle(append([]byte(head+"\r\n"), keySet...))},
		"a header that trickles byte after byte":    {"http", trickle([]byte(head + "\r\n" + string(keySet)))},
		"a good key set under a wrong content type": {"http", nil},
	} {
		for _, client := range []string{"its own client", "a user's client"} {
			t.Run(name+", with "+client, func(t *testing.T) {
				growth := testguard.KeysMemory(t)
				goroutines := runtime.NumGoroutine()
				server := serveRaw(t, func(c net.Conn) {
					if test.serve != nil {
						test.serve(c)
						return
					}
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s", len(keySet), keySet)
				})
				network := &http.Client{Transport: &http.Transport{}}
				want, ttl := 503, time.Second
				if test.serve == nil {
					want, ttl = 200, 20*time.Minute // it has the time that a busy machine needs
				}
				g := testguard.KeysGuard(t, issuer, func(c *m2mauth.Config) {
					c.JWKSURL = test.scheme + "://" + server.address + "/jwks"
					c.KeyTTL, c.FetchTimeout = ttl, ttl/10
					c.HTTPClient = nil
					if client == "a user's client" {
						c.HTTPClient = network
					}
				})
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				waited := testguard.KeysEventually(t, g, token, want)
				runtime.ReadMemStats(&after)
				assert.Less(t, waited, keysPatience) // of 100 ms
				assert.LessOrEqual(t, server.accepted(), 5)
				if client == "its own client" {
					assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20), "allocated on the way")
					keysGoroutines(t, func() int { return goroutines + 1 + server.serving() }) // while the server holds on
				}
				server.close()
				network.CloseIdleConnections()
				keysGoroutines(t, func() int { return goroutines })
				for begin := time.Now(); growth() >= 4<<20; runtime.Gosched() { // a user's client reads 10 MB of headers, and lets them go in its time
					require.Less(t, time.Since(begin), keysPatience, "memory is held")
				}
			})
		}
	}
}

// keysPatience ends the wait for what does not come, on however busy a machine.
const keysPatience = 2 * time.Minute

// keysGoroutines waits until no more goroutines than that are left.
func keysGoroutines(t *testing.T, atMost func() int) {
	t.Helper()
	for begin := time.Now(); runtime.NumGoroutine() > atMost(); runtime.Gosched() {
		if time.Since(begin) > keysPatience {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines are left, and not %d:\n%s", runtime.NumGoroutine(), atMost(), stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func bomb(w io.Writer) {
	z := gzip.NewWriter(w)
	zeros := make([]byte, 1<<16)
	for range 1 << 14 { // 1 GiB of zeros
		if _, err := z.Write(zeros); err != nil {
			return
		}
	}
	_ = z.Close()
}

func trickle(data []byte) func(net.Conn) {
	return func(c net.Conn) {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := range data {
			if _, err := c.Write(data[i : i+1]); err != nil {
				return
			}
			<-tick.C
		}
	}
}

// rawServer hands each connection to a function and closes it after.
type rawServer struct {
	address string
	close   func()

	mu             sync.Mutex // guards the fields below
	active, served int
}

func (s *rawServer) accepted() int { s.mu.Lock(); defer s.mu.Unlock(); return s.served }

func (s *rawServer) serving() int { s.mu.Lock(); defer s.mu.Unlock(); return s.active }

func serveRaw(t *testing.T, serve func(net.Conn)) *rawServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &rawServer{address: listener.Addr().String()}
	var wg sync.WaitGroup
	var conns sync.Map
	wg.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.active++
			s.served++
			s.mu.Unlock()
			conns.Store(c, true)
			wg.Go(func() {
				defer func() {
					_ = c.Close()
					s.mu.Lock()
					s.active--
					s.mu.Unlock()
				}()
				if _, err := c.Read(make([]byte, 4096)); err == nil {
					serve(c)
				}
			})
		}
	})
	s.close = sync.OnceFunc(func() {
		_ = listener.Close()
		conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		wg.Wait()
	})
	t.Cleanup(s.close)
	return s
}
