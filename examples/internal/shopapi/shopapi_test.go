package shopapi_test

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestSplitListIgnoresBlanksAndEmptyParts(t *testing.T) {
	t.Parallel()
	for list, want := range map[string][]string{
		"":                        nil,
		" , ,":                    nil,
		"logto":                   {"logto"},
		" logto:3001 ,\tkeys , ,": {"logto:3001", "keys"},
	} {
		assert.Equal(t, want, shopapi.SplitList(list), "%q", list)
	}
}

func TestSettingsHaveTheirShortNamesToo(t *testing.T) {
	short := map[string]string{
		"ISSUER": "https://short.test/oidc", "AUDIENCE": "https://short.api", "JWKS_URL": "https://short.test/jwks", "PLAIN_HTTP_HOSTS": "short, other",
	}
	getenv := func(name string) string { return short[name] }
	config, err := shopapi.ConfigFromEnv(getenv)
	require.NoError(t, err)
	assert.Equal(t, m2mauth.Config{
		Issuer: "https://short.test/oidc", Audience: "https://short.api", JWKSURL: "https://short.test/jwks", InsecureHTTPHosts: []string{"short", "other"},
	}, config)

	for name, value := range map[string]string{
		"M2MAUTH_ISSUER": "https://long.test/oidc", "M2MAUTH_AUDIENCE": "https://long.api", "M2MAUTH_JWKS_URL": "https://long.test/jwks",
		"M2MAUTH_INSECURE_HTTP_HOSTS": "long", "M2MAUTH_LEEWAY": "10s",
	} {
		t.Setenv(name, value)
	}
	long := m2mauth.Config{
		Issuer: "https://long.test/oidc", Audience: "https://long.api", JWKSURL: "https://long.test/jwks",
		InsecureHTTPHosts: []string{"long"}, Leeway: 10 * time.Second,
	}
	for _, getenv := range []func(string) string{getenv, func(string) string { return "" }} {
		config, err = shopapi.ConfigFromEnv(getenv)
		require.NoError(t, err)
		assert.Equal(t, long, config, "the long names go before")
	}
	t.Setenv("M2MAUTH_LEEWAY", "10")
	config, err = shopapi.ConfigFromEnv(getenv)
	assert.ErrorContains(t, err, "M2MAUTH_LEEWAY")
	assert.Zero(t, config)
}

// listener says when it is closed, which is the first that a shutdown does.
type listener struct {
	net.Listener
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// serve starts the server with a handler that answers when it is released.
func serve(t *testing.T, ctx context.Context) (l *listener, served chan error, release func(), answer chan string) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l = &listener{Listener: tcp, closed: make(chan struct{})}
	started, released := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(started)
		<-released
		io.WriteString(w, "finished")
	})
	served, answer = make(chan error, 1), make(chan string, 1)
	go func() { served <- shopapi.Serve(ctx, l, handler) }()
	go func() {
		resp, err := http.Get("http://" + tcp.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- string(body)
	}()
	<-started
	return l, served, sync.OnceFunc(func() { close(released) }), answer
}

func TestServeLetsTheRequestUnderWayFinish(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	l, served, release, answer := serve(t, ctx)
	defer release()

	cancel()
	<-l.closed
	select {
	case err := <-served:
		require.Fail(t, "Serve did not wait for the request", "%v", err)
	default:
	}
	release()
	assert.Equal(t, "finished", <-answer)
	assert.NoError(t, <-served)
}

// Not parallel: the signal reaches every Serve of this process.
func TestServeStopsOnSIGTERM(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot send itself a signal")
	}
	l, served, release, answer := serve(t, t.Context())
	defer release()

	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, self.Signal(syscall.SIGTERM))
	<-l.closed
	release()
	assert.Equal(t, "finished", <-answer)
	assert.NoError(t, <-served)
}

func TestServeReturnsTheErrorOfAListenerThatFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	assert.ErrorIs(t, shopapi.Serve(t.Context(), l, http.NotFoundHandler()), net.ErrClosed)
}

// entries is a log whose lines can be waited for.
type entries chan string

func (entries) Enabled(context.Context, slog.Level) bool { return true }
func (e entries) WithAttrs([]slog.Attr) slog.Handler     { return e }
func (e entries) WithGroup(string) slog.Handler          { return e }
func (e entries) Handle(_ context.Context, r slog.Record) error {
	e <- r.Level.String() + " " + r.Message
	return nil
}

func TestWarmUpLogsTheOutcomeAndDelaysNothing(t *testing.T) {
	// SetDefault sends package log to slog as well, and does not take that back.
	before, flags := slog.Default(), log.Flags()
	defer func() {
		slog.SetDefault(before)
		log.SetOutput(os.Stderr)
		log.SetFlags(flags)
	}()
	issuer := m2mauthtest.NewIssuer()
	for name, test := range map[string]struct {
		hook func(http.Handler) http.Handler
		want string
	}{
		"keys that are there": {nil, "INFO the issuer's keys are there"},
		"an issuer that is down": {func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
		}, "WARN the issuer's keys are not there yet; requests will ask for them"},
	} {
		t.Run(name, func(t *testing.T) {
			lines := make(entries, 10)
			slog.SetDefault(slog.New(lines))
			released := make(chan struct{})
			issuer.Intercept(func(next http.Handler) http.Handler {
				if test.hook != nil {
					next = test.hook(next)
				}
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					<-released
					next.ServeHTTP(w, r)
				})
			})
			config := issuer.Config("https://shopping.api")
			config.Logger = slog.New(slog.DiscardHandler)
			guard, err := m2mauth.New(config)
			require.NoError(t, err)
			shopapi.WarmUp(t.Context(), guard) // returns, though the issuer does not answer
			close(released)
			assert.Equal(t, test.want, <-lines)
		})
	}
}

func TestWarmUpAsksNoIssuerWhereTheProgramHasEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		issuer.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the issuer was asked") })
		})
		guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		shopapi.WarmUp(ctx, guard)
		synctest.Wait()
	})
}
