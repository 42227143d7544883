package m2mauth_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const oddStatus = "m2mauth: Config.ErrorHandler answered a refused request with a status below 400; the refusal's was sent"

// Whatever an ErrorHandler does, a caller never takes a refusal for a success.
func TestARefusalNeverLooksLikeASuccess(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		handler  http.HandlerFunc
		status   int
		body     string
		replaced int64 // the status in the log
	}{
		{"it writes nothing", func(http.ResponseWriter, *http.Request) {}, 401, "", 0},
		{"it writes a body alone", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "no") }, 401, "no", 0},
		{"it copies a body", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, struct{ io.Reader }{strings.NewReader("no")})
		}, 401, "no", 0},
		{"it writes an empty body", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(nil) }, 401, "", 0},
		{"it sets a header field alone", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Mine", "yes") }, 401, "", 0},
		{"it chooses a status", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "hidden", http.StatusNotFound) }, 404, "hidden\n", 0},
		{"it chooses 400", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) }, 400, "", 0},
		{"it chooses 599", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(599) }, 599, "", 0},
		{"it chooses 200", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			_, _ = io.WriteString(w, "no")
		}, 401, "no", 200},
		{"it answers in gRPC", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc+proto")
			w.WriteHeader(200)
		}, 200, "", 0},
		{"it answers in gRPC-Web", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "Application/gRPC-Web")
			w.WriteHeader(200)
		}, 200, "", 0},
		{"it answers in a stream of Connect", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/connect+json")
			w.WriteHeader(200)
		}, 200, "", 0},
		{"it names gRPC and no status", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			_, _ = w.Write(nil)
		}, 401, "", 0},
		{"it names gRPC and another status", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.WriteHeader(204)
		}, 401, "", 204},
		{"it chooses 200 for JSON", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(200)
		}, 401, "", 200},
		{"it chooses 399", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(399) }, 401, "", 399},
		{"it redirects", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/sign-in", http.StatusFound) }, 401, "<a href=\"/sign-in\">Found</a>.\n\n", 302},
		{"it switches protocols", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(101) }, 401, "", 101},
		{"it chooses no status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(0) }, 401, "", 0},
		{"it flushes first", func(w http.ResponseWriter, _ *http.Request) {
			assert.NoError(t, http.NewResponseController(w).Flush())
			_, _ = io.WriteString(w, "no")
		}, 401, "no", 0},
		{"it flushes first, by the interface", func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "no")
		}, 401, "no", 0},
		{"it flushes after its status", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(418)
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "no")
		}, 418, "no", 0},
		{"it sets a deadline by the controller", func(w http.ResponseWriter, _ *http.Request) {
			assert.NoError(t, http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)))
		}, 401, "", 0},
		{"it takes the connection", func(w http.ResponseWriter, _ *http.Request) {
			conn, buffer, err := http.NewResponseController(w).Hijack()
			if assert.NoError(t, err) {
				_, _ = buffer.WriteString("HTTP/1.1 499 Mine\r\nContent-Length: 4\r\n\r\nmine")
				_ = buffer.Flush()
				_ = conn.Close()
			}
		}, 499, "mine", 0},
		{"it takes the connection, by the interface", func(w http.ResponseWriter, _ *http.Request) {
			conn, buffer, err := w.(http.Hijacker).Hijack()
			if assert.NoError(t, err) {
				_, _ = buffer.WriteString("HTTP/1.1 499 Mine\r\nContent-Length: 4\r\n\r\nmine")
				_ = buffer.Flush()
				_ = conn.Close()
			}
		}, 499, "mine", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			guard, book := loggedGuard(t, m2mauthtest.NewIssuer(), func(c *m2mauth.Config) {
				c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, e *m2mauth.Error) {
					e.Status = http.StatusOK // is the handler's own affair
					test.handler(w, r)
				}
			})
			server := httptest.NewUnstartedServer(guard.Require("read")(http.NotFoundHandler()))
			var complaints strings.Builder // net/http's, such as about a second status
			server.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(&complaints, nil), slog.LevelError)
			server.Start()
			client := server.Client()
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			response, err := client.Get(server.URL)
			require.NoError(t, err)
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			_ = response.Body.Close()
			server.Close()

			assert.Equal(t, test.status, response.StatusCode)
			assert.Equal(t, test.body, string(body))
			assert.Empty(t, complaints.String())
			odd := 0
			for _, entry := range book.take() {
				if entry.attrs["msg"] == oddStatus {
					odd++
					assert.Equal(t, test.replaced, entry.attrs["status"])
					assert.EqualValues(t, 401, entry.attrs["sent"])
					assert.Equal(t, slog.LevelWarn, entry.level)
				}
			}
			assert.Equal(t, strings.HasPrefix(test.name, "it chooses no") || test.replaced != 0, odd == 1, "%d lines", odd)
		})
	}
}

// A framework that takes a hint for the answer would send 200 after it.
func TestAnErrorHandlersHintsAreNotSent(t *testing.T) {
	t.Parallel()
	guard := quietGuard(t, m2mauthtest.NewIssuer(), func(c *m2mauth.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ *m2mauth.Error) {
			w.Header().Set("Link", "</error.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "no")
		}
	})
	server := httptest.NewServer(guard.Require("read")(http.NotFoundHandler()))
	defer server.Close()
	var hints []int
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { hints = append(hints, code); return nil },
	})
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
	require.NoError(t, err)
	response, err := server.Client().Do(r)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	assert.Empty(t, hints)
	assert.Equal(t, 401, response.StatusCode)
}

// plainWriter can do nothing but what a ResponseWriter must.
type plainWriter struct{ http.ResponseWriter }

func TestAnErrorHandlersWriterCanDoWhatTheServersCan(t *testing.T) {
	t.Parallel()
	var flush, hijack error
	guard := quietGuard(t, m2mauthtest.NewIssuer(), func(c *m2mauth.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ *m2mauth.Error) {
			inner, ok := w.(interface{ Unwrap() http.ResponseWriter })
			if assert.True(t, ok) {
				assert.IsType(t, plainWriter{}, inner.Unwrap())
			}
			_, _, hijack = http.NewResponseController(w).Hijack()
			flush = http.NewResponseController(w).Flush()
		}
	})
	w := httptest.NewRecorder()
	_, err := guard.Check(requestWith(), m2mauth.AnyToken())
	guard.WriteError(plainWriter{w}, requestWith(), err)
	require.ErrorIs(t, flush, errors.ErrUnsupported)
	require.ErrorIs(t, hijack, errors.ErrUnsupported)
	assert.Equal(t, 401, w.Code)
	assert.False(t, w.Flushed)
}

// A flood of refusals floods no log.
func TestAnErrorHandlersOddStatusIsLoggedOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		guard, book := loggedGuard(t, m2mauthtest.NewIssuer(), func(c *m2mauth.Config) {
			c.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ *m2mauth.Error) { w.WriteHeader(200) }
		})
		warnings := func(times int) (n int) {
			for range times {
				guard.Require("read")(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), requestWith())
			}
			for _, entry := range book.take() {
				if entry.attrs["msg"] == oddStatus && entry.level == slog.LevelWarn {
					n++
				}
			}
			return n
		}
		assert.Equal(t, 1, warnings(9))
		time.Sleep(time.Minute)
		assert.Equal(t, 1, warnings(1))
	})
}
