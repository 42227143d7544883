package m2mauthtest_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// answering returns an issuer in memory that answers everything with h.
func answering(h http.HandlerFunc) *m2mauthtest.Issuer {
	issuer := m2mauthtest.NewIssuer()
	issuer.Intercept(func(http.Handler) http.Handler { return h })
	return issuer
}

func get(ctx context.Context, issuer *m2mauthtest.Issuer) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", issuer.JWKSURL(), nil)
	if err != nil {
		return nil, err
	}
	return issuer.Client().Do(req)
}

// Every test of the transport that runs in a bubble also shows that no goroutine
// stays behind, for synctest.Test waits for all of them and fails if they hang.

func TestAnEndlessBodyCanBeReadAsItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stopped := make(chan error, 1)
		issuer := answering(func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := io.WriteString(w, "x"); err != nil {
					<-r.Context().Done()
					stopped <- err
					return
				}
				time.Sleep(time.Minute)
			}
		})
		start := time.Now()
		resp, err := get(t.Context(), issuer)
		require.NoError(t, err)
		assert.Zero(t, time.Since(start), "the header comes at once")
		read := make([]byte, 60)
		_, err = io.ReadFull(resp.Body, read)
		require.NoError(t, err)
		assert.Equal(t, 59*time.Minute, time.Since(start))
		require.NoError(t, resp.Body.Close())
		assert.ErrorIs(t, <-stopped, io.ErrClosedPipe, "closing the body stops the handler")
	})
}

func TestTheEndOfTheContextEndsTheRequest(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
	}{
		{"while the handler hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"after the header", func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
		{"within the body", func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := io.WriteString(w, "x"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
		{"although the handler ignores it", func(http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				start := time.Now()
				resp, err := get(ctx, answering(tt.handler))
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					require.NoError(t, resp.Body.Close())
				}
				assert.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, 5*time.Second, time.Since(start))
				time.Sleep(time.Hour) // until the last handler has returned
			})
		})
	}
}

func TestAClientsTimeoutHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := answering(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		client := issuer.Client()
		client.Timeout = 3 * time.Second
		start := time.Now()
		_, err := client.Get(issuer.JWKSURL())
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		assert.True(t, timeout.Timeout())
		assert.Equal(t, 3*time.Second, time.Since(start))
		assert.Zero(t, issuer.Client().Timeout, "each call of Client gives a client of its own")
	})
}

func TestACanceledContextSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("had enough")
		cancel(why)
		_, err := get(ctx, issuer)
		assert.ErrorIs(t, err, why)
		synctest.Wait()
		assert.Zero(t, issuer.Fetches())
	})
}

// slowContext tells of its end only when the handler has answered, or a second
// after it was asked.
type slowContext struct {
	context.Context
	answered chan struct{}
}

func (c slowContext) Done() <-chan struct{} {
	select {
	case <-c.answered:
	case <-time.After(time.Second):
	}
	return c.Context.Done()
}

func TestAnAnswerToAClientThatHasGoneReachesNobody(t *testing.T) {
	for range 20 { // a select would take either
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			answered := make(chan struct{})
			issuer := answering(func(w http.ResponseWriter, r *http.Request) {
				cancel()
				<-r.Context().Done()
				w.WriteHeader(http.StatusServiceUnavailable)
				close(answered)
			})
			req, err := http.NewRequestWithContext(slowContext{ctx, answered}, "GET", issuer.JWKSURL(), nil)
			require.NoError(t, err)
			_, err = issuer.Client().Transport.RoundTrip(req)
			require.ErrorIs(t, err, context.Canceled)
		})
	}
}

func TestAHandlerThatBreaksOffGivesAnError(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"by aborting before the header", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "unexpected EOF"},
		{"by aborting within the body", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "x")
			panic(http.ErrAbortHandler)
		}, "unexpected EOF"},
		{"by a panic", func(http.ResponseWriter, *http.Request) { panic("oh") }, "m2mauthtest: the handler panicked: oh"},
		{"by a panic within the body", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "x")
			panic(errors.New("oh"))
		}, "m2mauthtest: the handler panicked: oh"},
		{"by the end of its goroutine", func(http.ResponseWriter, *http.Request) { runtime.Goexit() }, "unexpected EOF"},
		{"by less than it promised", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "3")
			_, _ = io.WriteString(w, "xx")
		}, "unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				resp, err := get(t.Context(), answering(tt.handler))
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					require.NoError(t, resp.Body.Close())
				}
				assert.ErrorContains(t, err, tt.want)
			})
		})
	}
}

func TestWhatAHandlerWritesIsWhatAClientGets(t *testing.T) {
	tests := []struct {
		name, method string
		handler      http.HandlerFunc
		status       int
		length       int64
		body         string
	}{
		{"nothing", "GET", func(http.ResponseWriter, *http.Request) {}, 200, -1, ""},
		{"a body alone", "GET", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "a")
			_, _ = io.WriteString(w, "b")
		}, 200, -1, "ab"},
		{"a status alone", "GET", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, 503, -1, ""},
		{"the first status of two", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(500)
			w.WriteHeader(200)
		}, 500, -1, ""},
		{"not more than it promised", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			_, _ = io.WriteString(w, "ab")
			_, err := io.WriteString(w, "c")
			assert.ErrorIs(t, err, http.ErrContentLength)
		}, 200, 2, "ab"},
		{"no body to HEAD", "HEAD", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			_, err := io.WriteString(w, "ab")
			assert.NoError(t, err)
		}, 200, 2, ""},
		{"no body with 304", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotModified)
			_, err := io.WriteString(w, "ab")
			assert.ErrorIs(t, err, http.ErrBodyNotAllowed)
		}, 304, -1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer := answering(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-Before", "yes")
					tt.handler(w, r)
					w.Header().Set("X-After", "no")
				})
				req, err := http.NewRequestWithContext(t.Context(), tt.method, issuer.JWKSURL(), nil)
				require.NoError(t, err)
				resp, err := issuer.Client().Do(req)
				require.NoError(t, err)
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				assert.Equal(t, tt.status, resp.StatusCode)
				assert.Equal(t, tt.length, resp.ContentLength)
				assert.Equal(t, tt.body, string(body))
				assert.Equal(t, "yes", resp.Header.Get("X-Before"))
				if tt.body != "" {
					assert.Empty(t, resp.Header.Get("X-After"))
				}
			})
		})
	}
}

func TestARequestArrivesAsOnAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		issuer := answering(func(w http.ResponseWriter, r *http.Request) {
			assert.Equal(t, "PUT", r.Method)
			assert.Equal(t, "/a%2Fb?c=d", r.RequestURI)
			assert.Equal(t, "/a/b", r.URL.Path)
			assert.Equal(t, "d", r.URL.Query().Get("c"))
			assert.Empty(t, r.URL.Host)
			assert.Equal(t, "issuer.test", r.Host)
			assert.Equal(t, "yes", r.Header.Get("X-Test"))
			assert.NotEmpty(t, r.RemoteAddr)
			assert.Nil(t, r.Context().Value(key{}), "the client's context stays with the client")
			_, hasDeadline := r.Context().Deadline()
			assert.False(t, hasDeadline)
			assert.EqualValues(t, -1, r.ContentLength)
			_, _ = io.Copy(w, bufio.NewReader(r.Body))
		})
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, 1), time.Hour)
		defer cancel()
		reader, writer := io.Pipe()
		go func() {
			for _, s := range []string{"one ", "two"} {
				time.Sleep(time.Minute)
				_, _ = io.WriteString(writer, s)
			}
			_ = writer.Close()
		}()
		req, err := http.NewRequestWithContext(ctx, "PUT", "https://ISSUER.test:443/a%2Fb?c=d", reader)
		require.NoError(t, err)
		req.Host = "issuer.test"
		req.Header.Set("X-Test", "yes")
		resp, err := issuer.Client().Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, "one two", string(body))
	})
}

// closing tells when a body is closed.
type closing struct {
	io.Reader
	closed chan struct{}
}

func (c closing) Close() error { close(c.closed); return nil } // a second call would panic

func TestTheBodyOfARequestIsClosedOnce(t *testing.T) {
	for _, url := range []string{"https://issuer.test/oidc/token", "https://elsewhere.test/"} {
		synctest.Test(t, func(t *testing.T) {
			body := closing{strings.NewReader("x"), make(chan struct{})}
			req, err := http.NewRequestWithContext(t.Context(), "POST", url, body)
			require.NoError(t, err)
			resp, err := m2mauthtest.NewIssuer().Client().Transport.RoundTrip(req)
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			<-body.closed
		})
	}
	synctest.Test(t, func(t *testing.T) { // a handler that waits for the rest of a body
		reader, writer := io.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "POST", "https://issuer.test/oidc/token", reader)
		require.NoError(t, err)
		req.Header = formType.Clone()
		_, err = m2mauthtest.NewIssuer().Client().Do(req)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		_, err = writer.Write([]byte("x"))
		assert.ErrorIs(t, err, io.ErrClosedPipe)
	})
}

func TestOtherHostsAreUnknown(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	for _, url := range []string{
		"https://issuer.example/oidc/jwks",
		"http://issuer.test/oidc/jwks",
		"https://issuer.test:8443/oidc/jwks",
		"https://sub.issuer.test/oidc/jwks",
	} {
		_, err := issuer.Client().Get(url)
		var dns *net.DNSError
		require.ErrorAs(t, err, &dns, url)
		assert.True(t, dns.IsNotFound)
	}
	assert.Zero(t, issuer.Fetches())
}

func TestRedirectsAreFollowed(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	issuer.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/here":
				http.Redirect(w, r, "/oidc/jwks", http.StatusFound)
			case "/away":
				http.Redirect(w, r, "https://elsewhere.test/jwks", http.StatusFound)
			default:
				next.ServeHTTP(w, r)
			}
		})
	})
	resp, body := do(t, issuer, "GET", "https://issuer.test/here", nil, "")
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.True(t, strings.HasPrefix(body, `{"keys":[`))
	assert.Equal(t, m2mauthtest.Fetches{JWKS: 1}, issuer.Fetches())

	_, err := issuer.Client().Get("https://issuer.test/away")
	assert.ErrorContains(t, err, "no such host")
}

func TestABigBodyArrivesWhole(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	_, body := do(t, answering(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(big) }), "GET", "https://issuer.test/", nil, "")
	assert.True(t, string(big) == body)
}
