package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// asProgram has the test's own process be the program.
const asProgram = "README_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// program starts the program of the README, and returns the lines that it logs.
func program(t *testing.T, environment ...string) *bufio.Scanner {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), append(environment, asProgram+"=yes", "ADDR=127.0.0.1:0")...)
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		_, _ = io.Copy(io.Discard, log)
		_ = cmd.Wait() // it was killed, or has ended by itself
	})
	return bufio.NewScanner(log)
}

func TestTheProgramOfTheReadme(t *testing.T) {
	t.Parallel()
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	log := program(t, "ISSUER="+issuer.URL(), "AUDIENCE=https://shopping.api")
	address := ""
	for address == "" && log.Scan() {
		_, address, _ = strings.Cut(log.Text(), "listening on ")
	}
	require.NotEmpty(t, address)

	reader := issuer.Sign(m2mauthtest.Token{AppID: "reader", Audience: "https://shopping.api", Scopes: []string{"read:products"}})
	for _, call := range []struct {
		method, path, token string
		status              int
		body                string
	}{
		{"GET", "/healthz", "", 200, "ok\n"},
		{"GET", "/products", "", 401, ""},
		{"GET", "/products", reader, 200, "products for the app reader\n"},
		{"POST", "/products", reader, 403, ""},
		{"POST", "/products", issuer.Token("https://shopping.api", "write:products"), 201, ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), call.method, address+call.path, nil)
		require.NoError(t, err)
		if call.token != "" {
			r.Header.Set("Authorization", "Bearer "+call.token)
		}
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		assert.Equal(t, call.status, answer.StatusCode, "%s %s", call.method, call.path)
		if call.body != "" {
			assert.Equal(t, call.body, string(body))
		}
	}
}

func TestTheProgramOfTheReadmeNamesEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	log := program(t, "ISSUER=", "AUDIENCE=")
	var lines strings.Builder
	for log.Scan() {
		lines.WriteString(log.Text() + "\n")
	}
	assert.Contains(t, lines.String(), "Config.Issuer is empty")
	assert.Contains(t, lines.String(), "Config.Audience is empty")
}
