package mcpauth

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
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

// guarded is a server whose handler can be made to let everything through, so that its
// middleware decides alone.
type guarded struct {
	issuer  *m2mauthtest.Issuer
	auth    *Auth
	handler *handler
	called  atomic.Int32
	pause   time.Duration // in the middleware before ours
}

func newGuarded(tb testing.TB, rule m2mauth.Rule, change func(*m2mauth.Config)) *guarded {
	g := &guarded{issuer: m2mauthtest.NewIssuer()}
	config := g.issuer.Config("https://shopping.api")
	config.Logger = slog.New(slog.DiscardHandler)
	if change != nil {
		change(&config)
	}
	guard, err := m2mauth.New(config)
	require.NoError(tb, err)
	g.auth, err = New(Config{Guard: guard, Tools: map[string]m2mauth.Rule{"a": rule}, Methods: map[string]m2mauth.Rule{"own/method": rule}})
	require.NoError(tb, err)
	server := mcp.NewServer(&mcp.Implementation{Name: "s", Version: "1"}, nil)
	server.AddTool(&mcp.Tool{Name: "a", InputSchema: map[string]any{"type": "object"}}, func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		g.called.Add(1)
		return &mcp.CallToolResult{}, nil
	})
	for _, method := range []string{"own/method", "own/forgotten"} {
		require.NoError(tb, mcp.AddReceivingCustomMethod(server, method, func(context.Context, *mcp.ServerSession, *ownParams) (*ownResult, error) {
			g.called.Add(1)
			return &ownResult{}, nil
		}))
	}
	g.handler = g.auth.Handler(server, &mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true}).(*handler)
	server.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, request mcp.Request) (mcp.Result, error) {
			time.Sleep(g.pause)
			return next(ctx, method, request)
		}
	})
	return g
}

func (g *guarded) request(body string, scopes ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
		"Authorization": {"Bearer " + g.issuer.Token("https://shopping.api", scopes...)}}
	return r
}

func (g *guarded) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	g.handler.ServeHTTP(w, r)
	return w
}

// serveUnseen is what a body would meet that the handler read in another way.
func (g *guarded) serveUnseen(tb testing.TB, r *http.Request) *httptest.ResponseRecorder {
	claims, err := g.auth.guard.Check(r, g.auth.session)
	require.NoError(tb, err)
	inner := r.WithContext(context.WithValue(r.Context(), arrivalKey{}, &arrival{auth: g.auth, request: r, claims: claims}))
	w := httptest.NewRecorder()
	g.handler.next.ServeHTTP(w, inner)
	return w
}

const callA = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{}}}`

func TestTheMiddlewareDecidesWithoutTheHandlersLook(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, m2mauth.AllScopes("read"), nil)
	for _, body := range []string{
		callA,
		strings.Replace(callA, `"a"`, `"b"`, 1),
		`{"jsonrpc":"2.0","id":1,"method":"own/method","params":{}}`,
		`{"jsonrpc":"2.0","id":1,"method":"own/forgotten","params":{}}`,
		`{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a:b"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"a"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"argument":{"name":"a","value":"b"}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"a:b"}}`,
	} {
		w := g.serveUnseen(t, g.request(body))
		assert.Contains(t, w.Body.String(), `"code":-32043`, body)
	}
	assert.Contains(t, g.serveUnseen(t, g.request(callA)).Body.String(), `"message":"insufficient_scope: `)
	assert.Zero(t, g.called.Load())
	assert.Contains(t, g.serveUnseen(t, g.request(callA, "read")).Body.String(), `"result"`)
	assert.Contains(t, g.serveUnseen(t, g.request(`{"jsonrpc":"2.0","id":1,"method":"own/method","params":{}}`, "read")).Body.String(), `"result"`)
	assert.EqualValues(t, 2, g.called.Load())
	assert.Contains(t, g.serveUnseen(t, g.request(strings.Replace(callA, `"a"`, `"b"`, 1), "read")).Body.String(), `"code":-32043`)
}

func TestADecisionIsForOneMessageAndOneSecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		var revoked atomic.Bool
		var mu sync.Mutex
		var decisions []string
		rule := m2mauth.Custom("count", func(context.Context, m2mauth.Claims, m2mauth.Request) error { calls.Add(1); return nil })
		g := newGuarded(t, rule, func(c *m2mauth.Config) {
			c.Revoked = func(context.Context, m2mauth.Claims) (bool, error) { return revoked.Load(), nil }
			c.OnDecision = func(_ context.Context, d m2mauth.Decision) {
				mu.Lock()
				defer mu.Unlock()
				decisions = append(decisions, d.Rule.String())
			}
		})
		assert.Equal(t, 200, g.serve(g.request(callA)).Code)
		assert.Equal(t, []string{"AnyToken()", `Custom("count")`}, decisions)
		r := g.request("[" + callA + "," + strings.Replace(callA, `"id":1`, `"id":2`, 1) + "]")
		assert.Equal(t, 200, g.serve(r).Code)
		assert.EqualValues(t, 3, calls.Load(), "once for each message")
		assert.EqualValues(t, 3, g.called.Load())

		g.pause = 2 * time.Second
		time.AfterFunc(time.Second, func() { revoked.Store(true) })
		w := g.serve(g.request(callA))
		assert.Contains(t, w.Body.String(), `"code":-32043`)
		assert.Contains(t, w.Body.String(), "revoked")
		assert.EqualValues(t, 3, g.called.Load())
	})
	a := new(arrival)
	a.put(target{aTool, "a"})
	assert.False(t, a.take(target{aPrompt, "a"}))
	assert.False(t, a.take(target{aTool, "b"}))
	assert.True(t, a.take(target{aTool, "a"}))
	assert.False(t, a.take(target{aTool, "a"}))
}

func TestAPanicOfARuleIsNoPanicOfTheServer(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, m2mauth.Custom("panic", func(context.Context, m2mauth.Claims, m2mauth.Request) error { panic("a secret") }), nil)
	w := g.serveUnseen(t, g.request(callA))
	assert.Contains(t, w.Body.String(), `"message":"the call could not be checked"`)
	assert.NotContains(t, w.Body.String(), "secret")
	assert.Zero(t, g.called.Load())
}

func TestMessagesOfAnotherGuardAreRefused(t *testing.T) {
	t.Parallel()
	g, other := newGuarded(t, m2mauth.AnyToken(), nil), newGuarded(t, m2mauth.AnyToken(), nil)
	r := g.request(callA)
	inner := r.WithContext(context.WithValue(r.Context(), arrivalKey{}, &arrival{auth: other.auth, request: r}))
	w := httptest.NewRecorder()
	g.handler.next.ServeHTTP(w, inner)
	assert.Contains(t, w.Body.String(), "through its guard alone")
	assert.Zero(t, g.called.Load())
}

// The SDK keeps the first request's context as long as the session, and so the arrival.
func TestASessionDoesNotKeepTheBodyOfItsFirstRequest(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, m2mauth.AnyToken(), nil)
	var kept *arrival
	next := g.handler.next
	g.handler.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kept = r.Context().Value(arrivalKey{}).(*arrival)
		next.ServeHTTP(w, r)
	})
	assert.Equal(t, 200, g.serve(g.request("["+callA+","+strings.Replace(callA, `"id":1`, `"id":2`, 1)+"]")).Code)
	assert.Equal(t, http.NoBody, kept.request.Body)
	assert.Empty(t, kept.decided)
}

func TestTheBodyReachesTheSDKUnchanged(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, m2mauth.AnyToken(), nil)
	body := " \n" + strings.Replace(callA, `{}`, `{"x": 1.0e0, "y" :"\u00e4"}`, 1) + "\t"
	r := g.request(body)
	var got []byte
	g.handler.next = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = make([]byte, len(body)+1)
		n, _ := r.Body.Read(got)
		got = got[:n]
	})
	g.serve(r)
	assert.Equal(t, body, string(got))

	g.handler.limit = int64(len(body)) - 1
	w := g.serve(g.request(body))
	assert.Equal(t, 413, w.Code)
	r = g.request(body)
	r.Header.Set("Content-Type", "text/plain")
	g = newGuarded(t, m2mauth.AnyToken(), nil)
	r.Header.Set("Authorization", "Bearer "+g.issuer.Token("https://shopping.api"))
	assert.Equal(t, 415, g.serve(r).Code)
	assert.Zero(t, g.called.Load())
}
