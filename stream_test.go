package m2mauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// streamLeeway is the Config.Leeway of the guards here.
const streamLeeway = 30 * time.Second

// whileAccepted returns a context that ends when the guard no longer accepts the token,
// and the guard's error as its cause. It goes on with claims of later tokens that come
// over renewed, which may be nil.
func whileAccepted(ctx context.Context, guard *m2mauth.Guard, claims m2mauth.Claims, renewed <-chan m2mauth.Claims) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	go func() {
		for {
			again, err := guard.Recheck(ctx, claims)
			if err != nil {
				end(err)
				return
			}
			select {
			case <-time.After(again):
			case claims = <-renewed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { end(nil) }
}

// whileValid is for answers that go on, such as server-sent events. Their context ends
// when the guard no longer accepts the token.
func whileValid(guard *m2mauth.Guard, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := m2mauth.FromContext(r.Context())
		ctx, end := whileAccepted(r.Context(), guard, claims, nil)
		defer end()

		// The server's WriteTimeout would end the answer sooner, and no context ends
		// the write to a caller that does not read.
		connection := http.NewResponseController(w)
		_ = connection.SetWriteDeadline(time.Time{})
		stop := context.AfterFunc(ctx, func() { _ = connection.SetWriteDeadline(time.Now().Add(time.Second)) })
		defer stop()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// events sends what comes from the feed until there is no more, or the context ends.
func events(feed <-chan string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		connection := http.NewResponseController(w)
		_ = connection.Flush() // the caller waits for the status, the feed may be silent
		for r.Context().Err() == nil {
			select {
			case event, more := <-feed:
				if !more {
					return
				}
				fmt.Fprintf(w, "data: %s\n\n", event)
			case <-r.Context().Done():
			}
			_ = connection.Flush()
		}
		var why *m2mauth.Error
		if errors.As(context.Cause(r.Context()), &why) { // otherwise the caller has gone
			fmt.Fprintf(w, "event: end\ndata: %s\n\n", why.Description)
		}
	})
}

// Server-sent events that end when the token expires or is revoked. A guard decides when
// a request arrives. It does not end a response that goes on after that.
func ExampleGuard_Recheck() {
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.Revoked = func(_ context.Context, claims m2mauth.Claims) (bool, error) {
		return claims.ClientID() == "leaked", nil
	}
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	feed := make(chan string, 2)
	mux := http.NewServeMux()
	mux.Handle("GET /prices", guard.Require("read:prices")(whileValid(guard, events(feed))))

	feed <- "kettle 29.90"
	feed <- "kettle 24.90"
	close(feed)
	r := httptest.NewRequest("GET", "/prices", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:prices"))
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	fmt.Print(w.Body)
	// Output:
	// data: kettle 29.90
	//
	// data: kettle 24.90
}

// A conversation is what goes on after a request was let through, such as a
// WebSocket: its caller may send a new token before the one in use ends.
type conversation struct {
	context.Context // ends when the guard no longer accepts the latest token
	close           context.CancelFunc

	guard   *m2mauth.Guard
	rule    m2mauth.Rule
	begun   *http.Request
	who     m2mauth.Claims
	renewed chan m2mauth.Claims
}

func converse(guard *m2mauth.Guard, rule m2mauth.Rule, r *http.Request) (*conversation, error) {
	claims, err := guard.Check(r, rule)
	if err != nil {
		return nil, err
	}
	renewed := make(chan m2mauth.Claims)
	ctx, end := whileAccepted(m2mauth.NewContext(r.Context(), claims), guard, claims, renewed)
	return &conversation{ctx, end, guard, rule, r, claims, renewed}, nil
}

// renew takes a token that came as a message. It must pass what the first one
// passed, and be the same caller's; after an error, close the connection.
func (c *conversation) renew(token string) error {
	r := c.begun.Clone(c)
	r.Header.Set("Authorization", "Bearer "+token)
	claims, err := c.guard.Check(r, c.rule)
	if err != nil {
		return err
	}
	if claims.Issuer() != c.who.Issuer() || claims.Subject() != c.who.Subject() ||
		claims.ClientID() != c.who.ClientID() || claims.OrganizationID() != c.who.OrganizationID() {
		return errors.New("the new token is another caller's")
	}
	select {
	case c.renewed <- claims:
		return nil
	case <-c.Done(): // what has ended stays so
		return context.Cause(c)
	}
}

// A connection on which the caller sends new tokens as messages, such as a WebSocket.
// Check lets the request through before the upgrade. The connection's context ends when
// the latest token expires or is revoked.
func ExampleGuard_Check_renewed() {
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.Leeway = streamLeeway
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/prices", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:prices"))

	c, err := converse(guard, m2mauth.AllScopes("read:prices"), r)
	if err != nil {
		log.Fatal(err) // with a ResponseWriter: guard.WriteError(w, r, err)
	}
	defer c.close()
	fmt.Println(c.renew(issuer.Token("https://shopping.api", "read:prices")))
	fmt.Println(errors.Is(c.renew(issuer.Token("https://shopping.api")), m2mauth.ErrScope))
	fmt.Println(c.renew(issuer.Sign(m2mauthtest.Token{AppID: "another", Audience: "https://shopping.api", Scopes: []string{"read:prices"}})))
	// Output:
	// <nil>
	// true
	// the new token is another caller's
}

const streamAudience = "https://shopping.api"

// streamServer is a server as in production, whose connections are in memory.
type streamServer struct {
	issuer *m2mauthtest.Issuer
	guard  *m2mauth.Guard
	client *http.Client
	feed   chan string
	conns  chan net.Conn
	ended  chan error // why the context of the answer ended

	revoked atomic.Bool
}

func (s *streamServer) Accept() (net.Conn, error) {
	if conn, open := <-s.conns; open {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (s *streamServer) Close() error { return nil }

func (s *streamServer) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

func streamBubble(t *testing.T, test func(*testing.T, *streamServer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &streamServer{
			issuer: m2mauthtest.NewIssuer(), feed: make(chan string), conns: make(chan net.Conn), ended: make(chan error, 1),
		}
		s.guard = streamGuard(t, s.issuer, func(c *m2mauth.Config) {
			c.Revoked = func(context.Context, m2mauth.Claims) (bool, error) { return s.revoked.Load(), nil }
		})
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			events(s.feed).ServeHTTP(w, r)
			s.ended <- context.Cause(r.Context())
		})
		server := &http.Server{
			Handler:      s.guard.Require("read:prices")(whileValid(s.guard, handler)),
			ReadTimeout:  5 * time.Second,
			WriteTimeout: 10 * time.Second,
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = server.Serve(s)
		}()
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			s.conns <- theirs
			return ours, nil
		}}
		s.client = &http.Client{Transport: transport}

		test(t, s)

		transport.CloseIdleConnections()
		close(s.conns)
		<-served
		require.NoError(t, server.Close())
	})
}

func streamGuard(t *testing.T, issuer *m2mauthtest.Issuer, change ...func(*m2mauth.Config)) *m2mauth.Guard {
	t.Helper()
	return testguard.Quiet(t, issuer, append(change, func(c *m2mauth.Config) { c.Leeway = streamLeeway })...)
}

func streamToken(issuer *m2mauthtest.Issuer, lifetime time.Duration) string {
	return issuer.Sign(m2mauthtest.Token{Audience: streamAudience, Scopes: []string{"read:prices"}, Lifetime: lifetime})
}

// open asks for the events with a token of that lifetime.
func (s *streamServer) open(ctx context.Context, t *testing.T, lifetime time.Duration) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://api.test/prices", nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+streamToken(s.issuer, lifetime))
	opened := time.Now()
	answer, err := s.client.Do(r)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, answer.StatusCode)
	require.Zero(t, time.Since(opened), "the status does not wait for an event")
	return answer
}

const (
	farewell      = "event: end\ndata: the token has expired: get a new one; if it is new, the clocks of the issuer and of this API differ\n\n"
	farewellTaken = "event: end\ndata: the token has been revoked\n\n"
)

func TestAnIdleAnswerEndsWithItsToken(t *testing.T) {
	t.Parallel()
	for name, lifetime := range map[string]time.Duration{
		"a token of 2 s": 2 * time.Second,
		"a token that was accepted within the leeway": -10 * time.Second,
		"a token in the last second of its leeway":    -29 * time.Second,
		"a token of an hour, on a server of 10 s":     time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamBubble(t, func(t *testing.T, s *streamServer) {
				opened := time.Now()
				body, err := io.ReadAll(s.open(t.Context(), t, lifetime).Body)
				require.NoError(t, err)
				assert.Equal(t, farewell, string(body))
				assert.Equal(t, lifetime+streamLeeway, time.Since(opened))
				assert.ErrorIs(t, <-s.ended, m2mauth.ErrExpired)
			})
		})
	}
}

func TestABusyAnswerEndsWithItsToken(t *testing.T) {
	t.Parallel()
	streamBubble(t, func(t *testing.T, s *streamServer) {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				time.Sleep(time.Millisecond)
				select {
				case s.feed <- time.Now().Format(time.RFC3339Nano):
				case <-stop:
					return
				}
			}
		}()
		end := time.Now().Add(2*time.Second + streamLeeway)
		body, err := io.ReadAll(s.open(t.Context(), t, 2*time.Second).Body)
		require.NoError(t, err)
		close(stop)
		<-stopped
		sent, _ := strings.CutSuffix(string(body), farewell)
		sent = strings.TrimSuffix(sent, "\n\n")
		assert.Greater(t, strings.Count(sent, "data: "), 30_000)
		last, err := time.Parse(time.RFC3339Nano, sent[strings.LastIndex(sent, "data: ")+len("data: "):])
		require.NoError(t, err)
		assert.False(t, last.After(end))
		assert.Less(t, time.Since(end), 2*time.Millisecond)
		assert.ErrorIs(t, <-s.ended, m2mauth.ErrExpired)
	})
}

// A caller that does not read makes writes wait, where no context reaches.
func TestAnAnswerThatNobodyReadsEndsWithItsToken(t *testing.T) {
	t.Parallel()
	streamBubble(t, func(t *testing.T, s *streamServer) {
		opened := time.Now()
		answer := s.open(t.Context(), t, 2*time.Second)
		defer answer.Body.Close()
		long := strings.Repeat("x", 1<<20) // more than the buffers of both ends hold
		s.feed <- long
		assert.ErrorIs(t, <-s.ended, m2mauth.ErrExpired)
		assert.Equal(t, 2*time.Second+streamLeeway+time.Second, time.Since(opened))
	})
}

func TestAnAnswerWhoseCallerLeavesDoesNotEndAsExpired(t *testing.T) {
	t.Parallel()
	streamBubble(t, func(t *testing.T, s *streamServer) {
		ctx, leave := context.WithCancel(t.Context())
		answer := s.open(ctx, t, time.Hour)
		leave()
		_, err := io.ReadAll(answer.Body)
		assert.ErrorIs(t, err, context.Canceled)
		assert.ErrorIs(t, <-s.ended, context.Canceled)
	})
}

func TestOnlyWhatTheGuardSaysIsTheEndOfAnAnswer(t *testing.T) {
	t.Parallel()
	said := &m2mauth.Error{Kind: m2mauth.ErrRevoked, Description: "the token has been revoked"}
	for cause, want := range map[error]string{said: farewellTaken, context.Canceled: "", http.ErrServerClosed: ""} {
		ctx, end := context.WithCancelCause(t.Context())
		end(cause)
		w := httptest.NewRecorder()
		events(nil).ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/prices", nil))
		assert.Equal(t, want, w.Body.String(), "%v", cause)
	}
}

func TestAnAnswerEndsWhenItsTokenIsRevoked(t *testing.T) {
	t.Parallel()
	streamBubble(t, func(t *testing.T, s *streamServer) {
		opened := time.Now()
		answer := s.open(t.Context(), t, time.Hour)
		time.AfterFunc(time.Minute+time.Millisecond, func() { s.revoked.Store(true) })
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		assert.Equal(t, farewellTaken, string(body))
		assert.Equal(t, time.Minute+time.Second, time.Since(opened))
		assert.ErrorIs(t, <-s.ended, m2mauth.ErrRevoked)
	})
}

func TestAnAnswerThatNobodyReadsEndsWhenItsTokenIsRevoked(t *testing.T) {
	t.Parallel()
	streamBubble(t, func(t *testing.T, s *streamServer) {
		opened := time.Now()
		answer := s.open(t.Context(), t, time.Hour)
		defer answer.Body.Close()
		s.feed <- strings.Repeat("x", 1<<20)
		time.AfterFunc(time.Minute+time.Millisecond, func() { s.revoked.Store(true) })
		assert.ErrorIs(t, <-s.ended, m2mauth.ErrRevoked)
		assert.Equal(t, time.Minute+2*time.Second, time.Since(opened))
	})
}

func TestAConversationEndsWhenItsLatestTokenIsRevoked(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		var revoked sync.Map // by jti
		guard := streamGuard(t, issuer, func(c *m2mauth.Config) {
			c.Revoked = func(_ context.Context, claims m2mauth.Claims) (bool, error) {
				_, found := revoked.Load(claims.ID())
				return found, nil
			}
		})
		token := func(id string) string {
			return issuer.Sign(m2mauthtest.Token{Audience: streamAudience, Claims: map[string]any{"jti": id}})
		}
		c, err := converse(guard, m2mauth.AnyToken(), streamRequest(token("first")))
		require.NoError(t, err)
		require.NoError(t, c.renew(token("second")))
		revoked.Store("first", true)
		time.Sleep(time.Minute)
		require.NoError(t, c.Err(), "its latest token is another")
		revoked.Store("second", true)
		begin := time.Now()
		<-c.Done()
		assert.LessOrEqual(t, time.Since(begin), time.Second)
		assert.ErrorIs(t, context.Cause(c), m2mauth.ErrRevoked)
		assert.ErrorIs(t, c.renew(token("third")), m2mauth.ErrRevoked, "what has ended stays so")
	})
}

func streamRequest(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/prices", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func TestAConversationLastsAsLongAsItsLastToken(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard := streamGuard(t, issuer)
		begun := time.Now()
		c, err := converse(guard, m2mauth.AllScopes("read:prices"), streamRequest(streamToken(issuer, time.Minute)))
		require.NoError(t, err)
		for range 5 {
			time.Sleep(time.Minute + streamLeeway - time.Second)
			require.NoError(t, c.renew(streamToken(issuer, time.Minute)))
			require.NoError(t, c.Err())
		}
		<-c.Done()
		assert.Equal(t, 6*(time.Minute+streamLeeway)-5*time.Second, time.Since(begun))
		assert.ErrorIs(t, context.Cause(c), m2mauth.ErrExpired)

		assert.ErrorIs(t, c.renew(streamToken(issuer, time.Hour)), m2mauth.ErrExpired)
		assert.Error(t, c.Err(), "what has ended stays so")
	})
}

func TestAConversationIsNotRenewedByABadToken(t *testing.T) {
	t.Parallel()
	for name, token := range map[string]func(*m2mauthtest.Issuer) string{
		"without the scope": func(i *m2mauthtest.Issuer) string { return i.Token(streamAudience, "write:prices") },
		"expired":           func(i *m2mauthtest.Issuer) string { return streamToken(i, -time.Minute) },
		"empty":             func(*m2mauthtest.Issuer) string { return "" },
		"two":               func(i *m2mauthtest.Issuer) string { return streamToken(i, time.Hour) + " " + streamToken(i, time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testguard.KeysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				begun := time.Now()
				c, err := converse(streamGuard(t, issuer), m2mauth.AllScopes("read:prices"), streamRequest(streamToken(issuer, time.Minute)))
				require.NoError(t, err)
				assert.Error(t, c.renew(token(issuer)))
				<-c.Done()
				assert.Equal(t, time.Minute+streamLeeway, time.Since(begun))
			})
		})
	}
}

func TestAConversationIsNotRenewedByAnothersToken(t *testing.T) {
	t.Parallel()
	var issuers [2]*m2mauthtest.Issuer
	var guards [2]*m2mauth.Guard
	for n := range issuers {
		var err error
		issuers[n], err = m2mauthtest.ListenIssuer("127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(issuers[n].Close)
		config := issuers[n].Config(streamAudience)
		config.InsecureAllowOrganizationTokens = true
		guards[n], err = m2mauth.New(config)
		require.NoError(t, err)
	}
	guard, err := m2mauth.Join(guards[0], guards[1])
	require.NoError(t, err)

	for _, test := range []struct {
		name   string
		issuer int
		token  m2mauthtest.Token
		same   bool
	}{
		{"the same caller's", 0, m2mauthtest.Token{}, true},
		{"another app's", 0, m2mauthtest.Token{Claims: map[string]any{"sub": "app", "client_id": "another"}}, false},
		{"a user's of the same app", 0, m2mauthtest.Token{Claims: map[string]any{"sub": "u1s2e3r4i5d6"}}, false},
		{"an organization's", 0, m2mauthtest.Token{OrganizationID: "o1r2g3"}, false},
		{"the same app's of another issuer", 1, m2mauthtest.Token{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, err := converse(guard, m2mauth.AnyToken(), streamRequest(issuers[0].Sign(m2mauthtest.Token{AppID: "app", Audience: streamAudience})))
			require.NoError(t, err)
			defer c.close()
			test.token.AppID, test.token.Audience = "app", streamAudience
			err = c.renew(issuers[test.issuer].Sign(test.token))
			assert.Equal(t, test.same, err == nil, "%v", err)
		})
	}
}

func TestAConversationDoesNotBeginWithoutAToken(t *testing.T) {
	t.Parallel()
	guard := streamGuard(t, m2mauthtest.NewIssuer())
	_, err := converse(guard, m2mauth.AnyToken(), httptest.NewRequest(http.MethodGet, "/prices", nil))
	assert.ErrorIs(t, err, m2mauth.ErrNoToken)
}

// A key that was withdrawn ends no context. Check does see it, for the price of a
// remembered token.
func TestCheckAgainSeesAWithdrawnKey(t *testing.T) {
	t.Parallel()
	testguard.KeysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard := streamGuard(t, issuer)
		r := streamRequest(streamToken(issuer, time.Hour))
		rule := m2mauth.AllScopes("read:prices")
		c, err := converse(guard, rule, r)
		require.NoError(t, err)
		kid := issuer.KeyIDs()[0]
		issuer.Rotate("ES384")
		issuer.Withdraw(kid)
		time.Sleep(testguard.KeysTTL + testguard.KeysTimeout)
		require.NoError(t, c.Err())
		_, err = guard.Check(r, rule)
		assert.ErrorIs(t, err, m2mauth.ErrUnknownKey)
		<-c.Done()
	})
}
