package response

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheStatusIsNeverOneOfSuccess(t *testing.T) {
	t.Parallel()
	write := func(w http.ResponseWriter) { _, _ = io.WriteString(w, "no") }
	status := func(status int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(status) }
	}
	typed := func(contentType string, then ...func(http.ResponseWriter)) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", contentType)
			for _, f := range then {
				f(w)
			}
		}
	}
	for name, test := range map[string]struct {
		handler  func(http.ResponseWriter)
		want     int
		replaced []int
	}{
		"nothing is written":            {func(http.ResponseWriter) {}, 401, nil},
		"a body alone":                  {write, 401, nil},
		"an empty body":                 {func(w http.ResponseWriter) { _, _ = w.Write(nil) }, 401, nil},
		"400":                           {status(400), 400, nil},
		"599":                           {status(599), 599, nil},
		"399":                           {status(399), 401, []int{399}},
		"200":                           {status(200), 401, []int{200}},
		"302":                           {status(302), 401, []int{302}},
		"0":                             {status(0), 401, []int{0}},
		"99":                            {status(99), 401, []int{99}},
		"101":                           {status(101), 401, []int{101}},
		"100 is a hint":                 {status(100), 401, nil},
		"103 is a hint":                 {func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(404) }, 404, nil},
		"199 is a hint":                 {status(199), 401, nil},
		"200 after a status":            {func(w http.ResponseWriter) { w.WriteHeader(404); w.WriteHeader(200) }, 404, nil},
		"200 after a body":              {func(w http.ResponseWriter) { write(w); w.WriteHeader(200) }, 401, nil},
		"200 for gRPC":                  {typed("application/grpc+proto", status(200)), 200, nil},
		"200 for gRPC in other letters": {typed("Application/gRPC-Web", status(200)), 200, nil},
		"200 for a stream of Connect":   {typed("application/connect+json", status(200)), 200, nil},
		"200 for JSON":                  {typed("application/json", status(200)), 401, []int{200}},
		"200 for Connect without +":     {typed("application/connect", status(200)), 401, []int{200}},
		"204 for gRPC":                  {typed("application/grpc", status(204)), 401, []int{204}},
		"no status for gRPC":            {typed("application/grpc", write), 401, nil},
		"flush by the interface":        {func(w http.ResponseWriter) { w.(http.Flusher).Flush(); write(w) }, 401, nil},
		"flush by the controller":       {func(w http.ResponseWriter) { assert.NoError(t, http.NewResponseController(w).Flush()) }, 401, nil},
		"flush after a status":          {func(w http.ResponseWriter) { w.WriteHeader(418); w.(http.Flusher).Flush() }, 418, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			recorder := httptest.NewRecorder()
			var replaced []int
			w := NewWriter(recorder, 401, func(status int) { replaced = append(replaced, status) })
			test.handler(w)
			w.Begin()
			w.Begin()
			assert.Equal(t, test.want, recorder.Code)
			assert.Equal(t, test.replaced, replaced)
		})
	}
}

func TestTheWriterPassesOnWhatItGets(t *testing.T) {
	t.Parallel()
	recorder := httptest.NewRecorder()
	w := NewWriter(recorder, 401, nil)
	n, err := w.Write([]byte("no"))
	require.NoError(t, err)
	assert.Equal(t, 2, n)
	assert.Equal(t, "no", recorder.Body.String())
	assert.Same(t, recorder, w.Unwrap())
	assert.False(t, recorder.Flushed)
	require.NoError(t, w.FlushError())
	assert.True(t, recorder.Flushed)
}

// hijacked is a ResponseWriter whose connection can be taken, or not.
type hijacked struct {
	*httptest.ResponseRecorder
	err error
}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	server, _ := net.Pipe()
	return server, bufio.NewReadWriter(nil, nil), h.err
}

func TestWhoTakesTheConnectionWritesTheResponse(t *testing.T) {
	t.Parallel()
	for _, err := range []error{nil, errors.New("it is in use")} {
		recorder := httptest.NewRecorder()
		w := NewWriter(hijacked{recorder, err}, 401, nil)
		conn, buffer, got := w.Hijack()
		assert.Equal(t, err, got)
		assert.NotNil(t, conn)
		assert.NotNil(t, buffer)
		w.Begin()
		want := 401
		if err == nil {
			want = 200 // the recorder's own: nothing was written
		}
		assert.Equal(t, want, recorder.Code)
	}
	w := NewWriter(hijacked{httptest.NewRecorder(), errors.New("it is in use")}, 401, nil)
	w.Begin()
	_, _, err := w.Hijack()
	require.Error(t, err)
	assert.True(t, w.begun, "what has begun has")
}

// plain can do nothing but what a ResponseWriter must.
type plain struct{ http.ResponseWriter }

func TestWhatTheInnerWriterCannotDoFails(t *testing.T) {
	t.Parallel()
	recorder := httptest.NewRecorder()
	w := NewWriter(plain{recorder}, 401, nil)
	_, _, err := w.Hijack()
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorIs(t, w.FlushError(), errors.ErrUnsupported)
	assert.Equal(t, 401, recorder.Code)
	assert.False(t, recorder.Flushed)
}
