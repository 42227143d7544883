package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/oauth2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/m2mauth/m2mauth/m2mauthtest"
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
		"none failed":         {failing{}, true, 1, 0},
		"a reset connection":  {failing{times: 1, err: errors.New("reset")}, true, 2, firstWait},
		"three resets":        {failing{times: 3, err: errors.New("reset")}, true, 4, 7 * firstWait},
		"a server in trouble": {failing{times: 2, err: answered(503)}, true, 3, 3 * firstWait},
		"too many requests":   {failing{times: 1, err: answered(429)}, true, 2, firstWait},
		"a wrong secret":      {failing{times: 9, err: answered(401)}, false, 1, 0},
		"an outage":           {failing{times: 99, err: errors.New("refused")}, false, 6, 31 * firstWait},
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

// The whole client, whose token endpoint resets the first connection.
func TestAResetConnectionEndsNothing(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	s := &shop{}
	output, err := runAgainst(t, s, func(issuer *m2mauthtest.Issuer) {
		issuer.Intercept(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) > 1 {
					next.ServeHTTP(w, r)
					return
				}
				conn, _, err := http.NewResponseController(w).Hijack()
				if assert.NoError(t, err) {
					assert.NoError(t, conn.(*net.TCPConn).SetLinger(0)) // Close resets
					assert.NoError(t, conn.Close())
				}
			})
		})
	})
	assert.Equal(t, codes.Unavailable, status.Code(err), "%v", err) // how this shop ends the second stream
	assert.Equal(t, "1\tKettle\n2\tTeapot\n", output)
	assert.Len(t, s.tokens, 2)
	assert.EqualValues(t, 2, requests.Load(), "one that was reset, and one whose token serves both streams")
}
