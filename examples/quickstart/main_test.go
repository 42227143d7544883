package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const table = `Three M2M apps ask the issuer for a token for https://shopping.api, with the scopes
read:products and write:products, and call the API with what they get:

WHO       CALL            ANSWER                  WHY
reader    GET /products   200 OK                  its role grants read:products
reader    POST /products  403 insufficient_scope  its role does not grant write:products
writer    POST /products  201 Created             its role grants write:products
no role   GET /products   403 insufficient_scope  its token is good, but grants nothing
forger    POST /products  401 invalid_token       it wrote write:products into the reader's token
stranger  GET /products   401 unauthorized        it sent no token

To call the API yourself:            go run ./examples/quickstart -serve
To protect an API with your issuer:  see examples/shop
`

func TestQuickstartPrintsWhoGotWhatAndWhy(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, run(t.Context(), &out, false))
	assert.Equal(t, table, out.String())
}

func TestAnAnswerThatIsNotExpectedIsAnErrorAndMarkedInTheTable(t *testing.T) {
	t.Parallel()
	issuer, apps, err := startIssuer()
	require.NoError(t, err)
	defer issuer.Close()
	open := httptest.NewServer(answer(http.StatusOK, "[]"))
	defer open.Close()

	var out strings.Builder
	err = callAll(t.Context(), &out, issuer.TokenURL(), open.URL, apps)
	require.EqualError(t, err, "5 of 6 answers are not the expected ones")
	assert.Contains(t, out.String(), "NOT EXPECTED: should be 401, since it sent no token")
}

func TestServePrintsCurlLinesThatWork(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "curl", "sed"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs " + program)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, write := io.Pipe()
	go func() { write.CloseWithError(run(ctx, write, true)) }()

	lines := bufio.NewScanner(read)
	var script strings.Builder
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Issuer and API keep running") {
	}
	for lines.Scan() {
		script.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "-X POST") {
			break
		}
	}
	require.NoError(t, lines.Err())

	for _, app := range []struct {
		name  string
		wants []string
	}{
		{"reader", []string{"200 OK", "403 Forbidden"}},
		{"writer", []string{"200 OK", "201 Created"}},
		{"no role", []string{"403 Forbidden", "403 Forbidden"}},
	} {
		out, err := exec.CommandContext(ctx, "bash", "-c", choose(script.String(), app.name)).CombinedOutput()
		require.NoError(t, err, string(out))
		var got []string
		for line := range strings.Lines(string(out)) {
			// A refusal's body may end without a line break.
			if _, status, found := strings.Cut(line, "HTTP/1.1 "); found {
				got = append(got, strings.TrimSpace(status))
			}
		}
		assert.Equal(t, app.wants, got, app.name)
	}

	cancel()
	_, err := io.ReadAll(read)
	assert.NoError(t, err, "Ctrl-C is no failure")
}

// choose does what a reader of the lines would do: it takes the # away from the
// app's line, and leaves out the other apps'.
func choose(script, app string) string {
	var chosen strings.Builder
	for line := range strings.Lines(script) {
		if strings.Contains(line, "APP='") {
			if !strings.HasSuffix(line, "# "+app+"\n") {
				continue
			}
			line = strings.TrimPrefix(line, "# ")
		}
		chosen.WriteString(line)
	}
	return chosen.String()
}
