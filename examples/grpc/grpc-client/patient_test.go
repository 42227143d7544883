package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// failing is a token source that fails so many times.
type failing struct {
	times int
	err   error
	asked int
}

func (f *failing) Token() (*oauth2.Token, error) {
	if f.asked++; f.asked <= f.times {
		return nil, f.err
	}
	return &oauth2.Token{AccessToken: "token"}, nil
}

func answered(status int) error {
	return &oauth2.RetrieveError{Response: &http.Response{StatusCode: status}}
}

func TestATokenRequestThatFailedIsMadeAgain(t *testing.T) {
	for name, test := range map[string]struct {
		source failing
		good   bool
		asked  int
		waited time.Duration
	}{
		"none failed":            {failing{}, true, 1, 0},
		"a reset connection":     {failing{times: 1, err: errors.New("reset")}, true, 2, firstWait},
		"three resets":           {failing{times: 3, err: errors.New("reset")}, true, 4, 7 * firstWait},
		"503 and 429 are passed": {failing{times: 2, err: answered(503)}, true, 3, 3 * firstWait},
		"too many requests":      {failing{times: 1, err: answered(429)}, true, 2, firstWait},
		"a wrong secret":         {failing{times: 9, err: answered(401)}, false, 1, 0},
		"an outage":              {failing{times: 99, err: errors.New("refused")}, false, 6, 31 * firstWait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				token, err := patient{t.Context(), &test.source}.Token()
				assert.Equal(t, test.good, err == nil, err)
				assert.Equal(t, test.good, token != nil)
				assert.Equal(t, test.asked, test.source.asked)
				assert.Equal(t, test.waited, time.Since(begin))
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := patient{ctx, &failing{times: 9, err: errors.New("reset")}}.Token()
		assert.ErrorIs(t, err, context.Canceled)
	})
}

// The token endpoint resets the first connection.
func TestAResetConnectionEndsNothing(t *testing.T) {
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) == 1 {
			conn, _, err := http.NewResponseController(w).Hijack()
			if assert.NoError(t, err) {
				assert.NoError(t, conn.(*net.TCPConn).SetLinger(0))
				conn.Close()
			}
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":"token","token_type":"Bearer"}`))
	}))
	defer server.Close()
	config := &clientcredentials.Config{ClientID: "app", ClientSecret: "secret", TokenURL: server.URL, AuthStyle: oauth2.AuthStyleInHeader}
	token, err := patient{t.Context(), config.TokenSource(t.Context())}.Token()
	require.NoError(t, err)
	assert.Equal(t, "token", token.AccessToken)
	assert.EqualValues(t, 2, requests.Load())
}
