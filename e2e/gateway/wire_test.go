//go:build unix

package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// closed is the status of a connection that ended without an answer.
const closed = "closed"

// send writes the request on a connection of its own, and returns the answer's status.
func (r sent) send(t testing.TB, s *stack) string {
	t.Helper()
	addr := s.addr
	if r.h2 {
		addr = s.h2
	}
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(timeout)))
	if r.h2 {
		return r.send2(t, conn)
	}
	return r.send1(t, conn)
}

// send1 is send for HTTP/1.
func (r sent) send1(t testing.TB, conn net.Conn) string {
	t.Helper()
	fields := append([]string{"Host: api.example.com"}, r.fields...)
	body := r.body
	switch {
	case r.chunked:
		fields = append(fields, "Transfer-Encoding: chunked")
		var b strings.Builder
		for len(body) > 0 {
			n := min(len(body), 64<<10)
			fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
			body = body[n:]
		}
		body = b.String() + "0\r\n" + strings.Join(append(r.trailers, "\r\n"), "\r\n")
		if len(r.trailers) == 0 {
			body = b.String() + "0\r\n\r\n"
		}
	case body != "":
		fields = append(fields, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	if r.expect {
		fields = append(fields, "Expect: 100-continue")
	}
	head := r.method + " " + r.target + " HTTP/" + r.version + "\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n"
	written := make(chan struct{})
	write := sync.OnceFunc(func() {
		defer close(written)
		_, _ = io.WriteString(conn, body) // the proxy may answer and close before it has read all
	})
	_, err := io.WriteString(conn, head)
	require.NoError(t, err)
	if r.expect {
		// Nobody waits forever to be asked for the body (RFC 9110 §10.1.1); Caddy 2.11 refuses
		// once it has come, or after a minute.
		timer := time.AfterFunc(2*time.Second, write)
		defer timer.Stop()
	} else {
		go write()
	}
	in := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: r.method})
		if err != nil {
			return closed
		}
		if resp.StatusCode == http.StatusContinue && r.expect {
			go write() // once: a proxy may say it, and the API once more
			continue
		}
		if resp.StatusCode == http.StatusSwitchingProtocols {
			<-written
			_, err := io.WriteString(conn, "ping")
			require.NoError(t, err)
			echo := make([]byte, 4)
			_, err = io.ReadFull(in, echo)
			require.NoError(t, err)
			assert.Equal(t, "ping", string(echo), r.heading())
			return "101"
		}
		_, _ = io.Copy(io.Discard, resp.Body) // the status is what counts
		return fmt.Sprint(resp.StatusCode)
	}
}

// send2 is send for HTTP/2, frame by frame, so that what no client would send can be sent.
func (r sent) send2(t testing.TB, conn net.Conn) string {
	t.Helper()
	_, err := io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	field := func(name, value string) {
		require.NoError(t, encoder.WriteField(hpack.HeaderField{Name: name, Value: value}))
	}
	fields := func(list []string) {
		for _, f := range list {
			name, value, _ := strings.Cut(f, ": ")
			field(name, value)
		}
	}
	field(":method", r.method)
	field(":authority", "api.example.com")
	if r.method != "CONNECT" {
		field(":scheme", "http")
		field(":path", r.target)
	}
	fields(r.fields)
	ends := r.body == "" && len(r.trailers) == 0
	steps := []func() error{
		func() error { return framer.WriteSettings() },
		func() error {
			return framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: ends})
		},
	}
	if !ends {
		steps = append(steps, func() error { return framer.WriteData(1, len(r.trailers) == 0, []byte(r.body)) })
	}
	if len(r.trailers) > 0 {
		steps = append(steps, func() error {
			block.Reset()
			fields(r.trailers)
			return framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
		})
	}
	for _, step := range steps {
		if step() != nil {
			break // the proxy has closed: what it answered may still be read
		}
	}
	status := closed
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return status
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				_ = framer.WritePing(true, frame.Data)
			}
		case *http2.MetaHeadersFrame:
			if value := frame.PseudoValue("status"); value != "" && value[0] != '1' {
				status = value
			}
			if frame.StreamEnded() {
				return status
			}
		case *http2.DataFrame:
			if frame.StreamEnded() {
				return status
			}
		case *http2.RSTStreamFrame:
			return status
		case *http2.GoAwayFrame:
			if frame.ErrCode != http2.ErrCodeNo {
				return status
			}
		}
	}
}
