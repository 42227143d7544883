package m2mauth_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// since returns the lines of a log of keys that came after the first n.
func (l *keysLog) since(n int) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records[n:] {
		line := r.Level.String() + " " + strings.TrimPrefix(r.Message, "m2mauth: ")
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "kids" || a.Key == "keys" {
				line += " " + a.String()
			}
			return true
		})
		lines = append(lines, line)
	}
	return lines
}

func TestKeysThatComeAndGoAreLogged(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		var log keysLog
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		logged := 0
		expect := func(what string, lines ...string) {
			t.Helper()
			require.NoError(t, g.Warm(t.Context()))
			synctest.Wait()
			now := log.since(logged)
			assert.Equal(t, lines, now, what)
			logged += len(now)
		}
		first := issuer.KeyIDs()[0]
		expect("at first", "INFO the issuer's keys were fetched keys=1")
		expect("while they are fresh")
		time.Sleep(keysTTL)
		expect("a 304", "DEBUG the issuer's keys were fetched keys=1")

		second := issuer.Rotate("ES384")
		time.Sleep(keysTTL)
		expect("rotated in", "DEBUG the issuer's keys were fetched keys=2", "INFO the issuer publishes new keys kids="+second+" keys=1")

		issuer.Withdraw(first)
		time.Sleep(keysTTL)
		expect("withdrawn", "DEBUG the issuer's keys were fetched keys=1",
			"INFO the issuer has withdrawn keys, whose tokens are refused from now on kids="+first+" keys=1")

		issuer.Replace(second)
		time.Sleep(keysTTL)
		expect("replaced under its key ID", "DEBUG the issuer's keys were fetched keys=1", "INFO the issuer publishes new keys kids="+second+" keys=1",
			"INFO the issuer has withdrawn keys, whose tokens are refused from now on kids="+second+" keys=1")

		keysDown(issuer)
		time.Sleep(keysTTL)
		expect("an outage", "WARN the issuer's keys could not be fetched")
		issuer.Intercept(nil)
		time.Sleep(time.Second)
		expect("its end", "INFO the issuer's keys were fetched keys=1")
	})
}

func TestManyNewKeysAreOneLine(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		var log keysLog
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(&log) })
		require.NoError(t, g.Warm(t.Context()))
		keysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			keys := make([]string, 100)
			for i := range keys {
				keys[i] = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"evil \n` + strings.Repeat("x", 500+i) + `"}`
			}
			_, _ = w.Write([]byte(`{"keys":[` + strings.Join(append(keys, `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`), ",") + `]}`))
		})
		time.Sleep(keysTTL)
		require.NoError(t, g.Warm(t.Context()))
		synctest.Wait()
		var lines []string
		for _, line := range log.since(1) {
			if strings.HasPrefix(line, "INFO") {
				lines = append(lines, line)
			}
		}
		require.Len(t, lines, 2)
		assert.Less(t, len(lines[0]), 4000)
		assert.NotContains(t, lines[0], "\n")
		assert.Contains(t, lines[0], "keys=101")
	})
}
