package mcpauth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// open sends a request whose response goes on. The channel closes when it ends.
func (p *peer) open(method, token, body string) (ended <-chan struct{}, leave func(), w *httptest.ResponseRecorder) {
	p.tb.Helper()
	r := p.request(method, token, strings.NewReader(body))
	ctx, cancel := context.WithCancel(p.tb.Context())
	done := make(chan struct{})
	w = httptest.NewRecorder()
	go func() {
		defer close(done)
		p.handler.ServeHTTP(w, r.WithContext(ctx))
	}()
	return done, cancel, w
}

// lasts returns how long a response goes on.
func lasts(ended <-chan struct{}) time.Duration {
	begin := time.Now()
	<-ended
	return time.Since(begin)
}

func TestAStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		handler := newAuth(t, rules(newGuard(t, issuer, func(c *m2mauth.Config) { c.Leeway = 10 * time.Second }))).Handler(newServer(), nil)
		token := issuer.Sign(m2mauthtest.Token{Audience: audience, AppID: "app", Lifetime: 5 * time.Minute})
		p := newPeer(t, handler, token)
		ended, _, w := p.open(http.MethodGet, token, "")
		assert.Equal(t, 5*time.Minute+10*time.Second, lasts(ended))
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, 401, p.post(token, calls["ping"]).Code)

		next := mint(t, issuer, "app")
		ended, leave, _ := p.open(http.MethodGet, next, "") // the session goes on with another token
		time.Sleep(time.Minute)
		leave()
		<-ended
		assert.Equal(t, 204, p.do(http.MethodDelete, next, nil).Code)
	})
}

func TestAStreamEndsWhenItsTokenIsRevoked(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func() (bool, error){
		"revoked": func() (bool, error) { return true, nil },
		"unknown": func() (bool, error) { return false, errors.New("the store is down") },
		"panic":   func() (bool, error) { panic("the store") },
	} {
		synctest.Test(t, func(t *testing.T) {
			issuer := m2mauthtest.NewIssuer()
			var revoked atomic.Bool
			guard := newGuard(t, issuer, func(c *m2mauth.Config) {
				c.Revoked = func(context.Context, m2mauth.Claims) (bool, error) {
					if revoked.Load() {
						return answer()
					}
					return false, nil
				}
			})
			handler := newAuth(t, rules(guard)).Handler(newServer(), nil)
			token := mint(t, issuer, "app")
			p := newPeer(t, handler, token)
			ended, _, _ := p.open(http.MethodGet, token, "")
			time.Sleep(10*time.Minute + 300*time.Millisecond)
			revoked.Store(true)
			assert.LessOrEqual(t, lasts(ended), 2*time.Second, name)
			revoked.Store(false)
			assert.Equal(t, 204, p.do(http.MethodDelete, token, nil).Code)
		})
	}
}

// listen is subscriptions/listen of the protocol 2026-07-28.
const listen = `{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"resourceSubscriptions":["shop://catalog"]},
	"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`

func TestASubscriptionEndsWithItsToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		handler := newAuth(t, rules(newGuard(t, issuer, func(c *m2mauth.Config) { c.Leeway = 10 * time.Second }))).
			Handler(newServer(), &mcp.StreamableHTTPOptions{Stateless: true})
		p := &peer{tb: t, handler: handler, header: http.Header{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"subscriptions/listen"}}}
		w := p.post(mint(t, issuer, "app"), listen)
		assert.Equal(t, 403, w.Code, w.Body)
		assert.Contains(t, w.Header().Get("WWW-Authenticate"), `scope="read:products"`)

		token := issuer.Sign(m2mauthtest.Token{Audience: audience, AppID: "app", Scopes: []string{"read:products"}, Lifetime: 5 * time.Minute})
		ended, _, w := p.open(http.MethodPost, token, listen)
		assert.Equal(t, 5*time.Minute+10*time.Second, lasts(ended))
		assert.Contains(t, w.Body.String(), "acknowledged")
	})
}

func TestACallGoesOnToItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		server := newServer()
		addTool(server, "list", func(context.Context, *mcp.CallToolRequest) string {
			time.Sleep(time.Hour)
			return "late"
		})
		handler := newAuth(t, rules(newGuard(t, issuer, nil))).Handler(server, nil)
		token := issuer.Sign(m2mauthtest.Token{Audience: audience, AppID: "app", Scopes: []string{"read:products"}, Lifetime: 5 * time.Minute})
		p := newPeer(t, handler, token)
		w := p.post(token, call("list"))
		assert.Contains(t, w.Body.String(), "late")
		assert.Equal(t, 204, p.do(http.MethodDelete, mint(t, issuer, "app"), nil).Code)
	})
}

func TestADryRunRefusesNothingAndThenEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		guard := newGuard(t, issuer, func(c *m2mauth.Config) { c.InsecureReportOnlyUntil = time.Now().Add(time.Hour) })
		handler := newAuth(t, rules(guard)).Handler(newServer(), nil)
		enforcing := newAuth(t, rules(guard.Enforcing())).Handler(newServer(), nil)
		assert.Equal(t, 401, (&peer{tb: t, handler: enforcing, header: http.Header{}}).post("", calls["ping"]).Code)

		good := mint(t, issuer, "app", "read:products")
		p := newPeer(t, handler, "")
		for _, token := range []string{"", "rubbish", good, mint(t, issuer, "other"), issuer.Sign(m2mauthtest.Token{Audience: audience, Expired: true})} {
			for _, name := range []string{"list", "create", "forgotten", "product", "ledger", "prompt", "batch, create", "ping"} {
				assert.Equal(t, 200, p.post(token, calls[name]).Code, "%s: %q", name, token)
			}
		}
		assert.Contains(t, p.post("", call("list")).Body.String(), "list for ")
		ended, _, _ := p.open(http.MethodGet, "", "")
		time.Sleep(30 * time.Minute)
		select {
		case <-ended:
			require.Fail(t, "the stream ended in the dry run")
		default:
		}
		assert.LessOrEqual(t, lasts(ended), 30*time.Minute+2*time.Second)
		assert.Equal(t, 401, p.post("", calls["ping"]).Code)
		good = mint(t, issuer, "app", "read:products")
		assert.Equal(t, 200, p.post(good, call("list")).Code)
		assert.Equal(t, 403, p.post(good, call("create")).Code)
		assert.Equal(t, 204, p.do(http.MethodDelete, good, nil).Code)
	})
}

// late is a body that comes after a while.
type late struct {
	body  *strings.Reader
	after time.Duration
}

func (l *late) Read(into []byte) (int, error) {
	time.Sleep(l.after)
	l.after = 0
	return l.body.Read(into)
}

func TestATokenThatExpiresWhileTheBodyComesIsTooLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		handler := newAuth(t, rules(newGuard(t, issuer, nil))).Handler(newServer(), nil)
		owner := newPeer(t, handler, mint(t, issuer, "app"))
		for _, name := range []string{"tools", "response", "notification", "list", "batch"} {
			token := issuer.Sign(m2mauthtest.Token{Audience: audience, AppID: "app", Scopes: []string{"read:products"}, Lifetime: 5 * time.Minute})
			w := owner.do(http.MethodPost, token, &late{strings.NewReader(calls[name]), 4 * time.Minute})
			assert.Less(t, w.Code, 300, name)
			w = owner.do(http.MethodPost, token, &late{strings.NewReader(calls[name]), 2 * time.Minute})
			assert.Equal(t, 401, w.Code, name)
			assert.Contains(t, w.Header().Get("WWW-Authenticate"), `error="invalid_token"`, name)
		}
		assert.Equal(t, 204, owner.do(http.MethodDelete, mint(t, issuer, "app"), nil).Code)
	})
}
