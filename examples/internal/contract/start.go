package contract

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// TestStart tests that a server fetches keys when it starts and logs how that went,
// and that it listens meanwhile. It is not for parallel tests: it looks at what slog
// writes by default.
func TestStart(t *testing.T, run func(ctx context.Context, getenv func(string) string) error) {
	t.Run("with an issuer that is there", func(t *testing.T) {
		issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(issuer.Close)
		logged, stop := start(t, run, issuer.URL())
		wait(t, logged, slog.LevelInfo, "the issuer's keys are there")
		stop()
	})
	t.Run("with the names that m2mauth.ConfigFromEnv reads", func(t *testing.T) {
		issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(issuer.Close)
		t.Setenv("M2MAUTH_ISSUER", issuer.URL())
		t.Setenv("M2MAUTH_AUDIENCE", audience)
		logged, stop := start(t, run, "")
		wait(t, logged, slog.LevelInfo, "the issuer's keys are there")
		stop()
		t.Setenv("M2MAUTH_ISSUR", issuer.URL())
		assert.EqualError(t, run(t.Context(), Environment(t, issuer.URL())), "m2mauth: M2MAUTH_ISSUR is not a setting of m2mauth: docs/environment.md has them all")
	})
	t.Run("with an issuer that does not answer, and then fails", func(t *testing.T) {
		asked, answer := make(chan struct{}, 100), make(chan struct{})
		issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- struct{}{}
			<-answer
			w.WriteHeader(http.StatusBadGateway)
		}))
		t.Cleanup(issuer.Close)
		release := sync.OnceFunc(func() { close(answer) })
		t.Cleanup(release)
		logged, stop := start(t, run, issuer.URL)
		wait(t, logged, slog.LevelInfo, "listening") // and nobody has answered yet
		<-asked
		release()
		why := wait(t, logged, slog.LevelWarn, "the issuer's keys are not there yet; requests will ask for them")
		assert.Contains(t, why, "502")
		stop()
	})
}

// start runs a server with this issuer. To stop it checks that it ended well.
func start(t *testing.T, run func(context.Context, func(string) string) error, issuer string) (logged chan slog.Record, stop func()) {
	t.Helper()
	getenv := Environment(t, issuer)
	logged = make(chan slog.Record, 100)
	// SetDefault sends package log to slog as well, and does not take that back.
	before, flags := slog.Default(), log.Flags()
	slog.SetDefault(slog.New(records{slog.DiscardHandler, logged}))
	t.Cleanup(func() {
		slog.SetDefault(before)
		log.SetOutput(os.Stderr)
		log.SetFlags(flags)
	})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- run(ctx, getenv) }()
	return logged, func() {
		cancel()
		assert.NoError(t, <-served)
	}
}

// Environment returns the environment of a server with this issuer and any port.
func Environment(t *testing.T, issuer string) (getenv func(name string) string) {
	t.Helper()
	certificate, key := certify(t)
	environment := map[string]string{
		"ISSUER": issuer, "AUDIENCE": audience, "ADDR": "127.0.0.1:0",
		"TLS_CERT": certificate, "TLS_KEY": key, // of the gRPC server
	}
	return func(name string) string { return environment[name] }
}

// wait returns the record's error when it has been logged.
func wait(t *testing.T, logged chan slog.Record, level slog.Level, message string) (why string) {
	t.Helper()
	for record := range logged {
		if record.Message != message {
			require.False(t, level < slog.LevelWarn && record.Level >= slog.LevelWarn, "%q came before %q", record.Message, message)
			continue
		}
		assert.Equal(t, level, record.Level)
		record.Attrs(func(a slog.Attr) bool {
			if a.Key == "error" {
				why = a.Value.String()
			}
			return true
		})
		break
	}
	return why
}

// certify returns the files of a certificate of 127.0.0.1 and of its key.
func certify(t *testing.T) (certificate, key string) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	folder := t.TempDir()
	certificate, key = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	pair := server.TLS.Certificates[0]
	require.NoError(t, os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600))
	private, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return certificate, key
}

// records is a log that a test reads.
type records struct {
	slog.Handler
	to chan slog.Record
}

func (r records) Enabled(context.Context, slog.Level) bool { return true }

func (r records) Handle(_ context.Context, record slog.Record) error {
	r.to <- record
	return nil
}

func (r records) WithAttrs([]slog.Attr) slog.Handler { return r }
func (r records) WithGroup(string) slog.Handler      { return r }
