package fiberauth_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/cors"
	"github.com/gofiber/fiber/v3/middleware/recover"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/fiberauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/m2mauthtest/adaptertest"
)

const audience = "https://shopping.api"

func TestSuite(t *testing.T) {
	t.Parallel()
	adaptertest.TestAdapter(t, adaptertest.Adapter[fiber.Handler]{
		Package:      "fiberauth",
		Framework:    "fiber",
		Require:      fiberauth.Require,
		RequireAny:   fiberauth.RequireAny,
		RequireRule:  fiberauth.RequireRule,
		Authenticate: fiberauth.Authenticate,
		Mount:        func(groups []adaptertest.Group[fiber.Handler]) http.Handler { return served(appOf(groups)) },
		Routes: func(guard *m2mauth.Guard, table adaptertest.Table, groups []adaptertest.Group[fiber.Handler]) (http.Handler, error) {
			app := appOf(groups)
			table = table.ColonPaths()
			err := fiberauth.Routes(guard, app, table.Rules, table.Public...)
			return served(app), err
		},
	})
}

func appOf(groups []adaptertest.Group[fiber.Handler]) *fiber.App {
	app := fiber.New(fiber.Config{ReadBufferSize: 80 << 10}) // for tokens of 64 KiB
	app.Use(recover.New(), cors.New(cors.Config{
		AllowOrigins: []string{"https://app.test"},
		AllowMethods: []string{http.MethodGet},
		AllowHeaders: []string{fiber.HeaderAuthorization},
	}), callersContext)
	for _, g := range groups {
		group := app.Group(g.Prefix, asAny(g.Middlewares)...)
		for _, route := range g.Routes {
			handlers := asAny(append(slices.Clone(route.Middlewares), func(c fiber.Ctx) error {
				status, body := route.Handle(c.Context(), func() (m2mauth.Claims, bool) { return fiberauth.Claims(c) })
				return c.Status(status).JSON(body)
			}))
			group.Add([]string{route.Method}, route.ColonPath(), handlers[0], handlers[1:]...)
		}
	}
	return app
}

func served(app *fiber.App) http.Handler {
	app.Handler() // builds the routes
	return overTheWire{app}
}

func asAny(handlers []fiber.Handler) []any {
	list := make([]any, len(handlers))
	for i, h := range handlers {
		list[i] = h
	}
	return list
}

// overTheWire puts an app behind an http.Handler: requests go through a
// connection, as bytes, so that fasthttp reads them as it reads any other.
type overTheWire struct{ app *fiber.App }

func (o overTheWire) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	client, server := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- o.app.Server().ServeConn(connOf(server, r)) }()
	out := *r
	out.Close = true
	go func() { _ = out.Write(client) }() // cut short if the answer comes before all is read
	response, err := http.ReadResponse(bufio.NewReader(client), r)
	if err != nil {
		panic(err)
	}
	for name, values := range response.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(response.StatusCode)
	_, _ = io.Copy(w, response.Body)
	_ = client.Close()
	<-served
}

// conn is a connection that knows of its one request what http.Handlers see.
type conn struct {
	net.Conn
	caller caller
}

func (c conn) RemoteAddr() net.Addr { return c.caller }

type caller struct {
	ctx     context.Context
	address string
}

func (caller) Network() string  { return "tcp" }
func (c caller) String() string { return c.address }

// tlsConn is what fasthttp takes for a connection with TLS.
type tlsConn struct {
	conn
	state tls.ConnectionState
}

func (tlsConn) Handshake() error                       { return nil }
func (c tlsConn) ConnectionState() tls.ConnectionState { return c.state }

func connOf(c net.Conn, r *http.Request) net.Conn {
	plain := conn{c, caller{r.Context(), r.RemoteAddr}}
	if r.TLS == nil {
		return plain
	}
	return &tlsConn{plain, *r.TLS} // fasthttp keeps it as a key of a map
}

// callersContext stands for what ends c.Context() when nobody waits any more,
// which fasthttp does not notice.
func callersContext(c fiber.Ctx) error {
	c.SetContext(c.RequestCtx().RemoteAddr().(caller).ctx)
	return c.Next()
}

func ExampleRequire() {
	issuer := m2mauthtest.NewIssuer() // in production: Logto
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		panic(err)
	}

	app := fiber.New(fiber.Config{ReadBufferSize: 16 << 10}) // tokens may have 8 KiB
	app.Get("/products", fiberauth.Require(guard, "read:products"), func(c fiber.Ctx) error {
		claims, _ := fiberauth.Claims(c)
		return c.SendString(claims.Scopes().String())
	})

	r := httptest.NewRequest("GET", "/products", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
	response, err := app.Test(r, fiber.TestConfig{}) // for as long as it takes: the default is a second
	if err != nil {
		panic(err)
	}
	body, _ := io.ReadAll(response.Body)
	fmt.Println(response.StatusCode, string(body))
	// Output: 200 read:products
}

func newGuard(tb testing.TB, issuer *m2mauthtest.Issuer, change func(*m2mauth.Config)) *m2mauth.Guard {
	tb.Helper()
	config := issuer.Config(audience)
	config.Logger = slog.New(slog.DiscardHandler)
	if change != nil {
		change(&config)
	}
	guard, err := m2mauth.New(config)
	require.NoError(tb, err)
	return guard
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   string
}

func send(t *testing.T, app *fiber.App, method, target, token string) answer {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := app.Test(r, fiber.TestConfig{})
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return answer{response.StatusCode, response.Header, string(body)}
}

func unreachable(t *testing.T) fiber.Handler {
	return func(c fiber.Ctx) error {
		t.Errorf("the handler ran for %s %s", c.Method(), c.OriginalURL())
		return nil
	}
}

func noContent(c fiber.Ctx) error { return c.SendStatus(http.StatusNoContent) }

const noTokenBody = `{"error":"unauthorized","error_description":"this request needs an access token: Authorization: Bearer followed by the token"}` + "\n"

func TestARefusalIsFinalAndFibersErrorHandlerIsToldNothing(t *testing.T) {
	t.Parallel()
	guard := newGuard(t, m2mauthtest.NewIssuer(), nil)
	app := fiber.New(fiber.Config{ErrorHandler: func(_ fiber.Ctx, err error) error {
		t.Errorf("fiber's ErrorHandler was called: %v", err)
		return err
	}})
	app.Use(func(c fiber.Ctx) error {
		c.Set("X-Before", "kept")
		_, _ = c.WriteString("nothing of this is sent")
		assert.NoError(t, c.Next())
		assert.Equal(t, http.StatusUnauthorized, c.Response().StatusCode())
		return nil
	})
	app.Get("/products", fiberauth.Require(guard, "read:products"), unreachable(t))

	got := send(t, app, "GET", "/products", "")
	assert.Equal(t, http.StatusUnauthorized, got.status)
	assert.Equal(t, noTokenBody, got.body)
	assert.Equal(t, []string{`Bearer realm="https://shopping.api", scope="read:products"`}, got.header["Www-Authenticate"])
	assert.Equal(t, []string{"application/json"}, got.header["Content-Type"])
	assert.Equal(t, []string{"no-store"}, got.header["Cache-Control"])
	assert.Equal(t, []string{"kept"}, got.header["X-Before"])
}

func TestAnErrorOfTheHandlerIsForFibersErrorHandler(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	app := fiber.New()
	app.Get("/products", fiberauth.Authenticate(newGuard(t, issuer, nil)), func(fiber.Ctx) error {
		return fiber.NewError(http.StatusConflict, "taken")
	})
	got := send(t, app, "GET", "/products", issuer.Token(audience))
	assert.Equal(t, http.StatusConflict, got.status)
	assert.Equal(t, "taken", got.body)
	assert.Empty(t, got.header["Www-Authenticate"])
}

func TestConfigErrorHandlerHasTheRequestAndTheWholeHeaderOfTheAnswer(t *testing.T) {
	t.Parallel()
	guard := newGuard(t, m2mauthtest.NewIssuer(), func(c *m2mauth.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, e *m2mauth.Error) {
			assert.Equal(t, http.MethodPost, r.Method)
			assert.Equal(t, "/products", r.URL.Path)
			assert.Equal(t, "yes", r.URL.Query().Get("dry"))
			assert.Equal(t, "/products?dry=yes", r.RequestURI)
			assert.Equal(t, "example.com", r.Host)
			assert.Equal(t, []string{"one", "two"}, r.Header.Values("X-Twice"))
			assert.Empty(t, r.Header.Values("Host"))
			assert.True(t, r.ProtoAtLeast(1, 1))
			assert.NotEmpty(t, r.RemoteAddr)
			assert.Equal(t, "of the request", r.Context().Value(contextKey{}))
			body, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			assert.Empty(t, body)

			assert.Equal(t, "gone", w.Header().Get("X-Before"))
			w.Header().Del("X-Before")
			w.Header().Add("Vary", "Accept")
			w.Header().Add("Set-Cookie", "a=1")
			w.WriteHeader(http.StatusEarlyHints) // says nothing yet
			w.WriteHeader(e.Status)
			w.WriteHeader(http.StatusOK)
			_, _ = io.WriteString(w, "mine, ")
			_, _ = io.WriteString(w, "and more")
		}
	})
	app := fiber.New()
	app.Use(func(c fiber.Ctx) error {
		c.SetContext(context.WithValue(c.Context(), contextKey{}, "of the request"))
		c.Vary("Origin")
		c.Set("X-Before", "gone")
		return c.Next()
	})
	app.Post("/products", fiberauth.Require(guard, "write:products"), unreachable(t))

	r := httptest.NewRequest(http.MethodPost, "/products?dry=yes", http.NoBody)
	r.Header["X-Twice"] = []string{"one", "two"}
	response, err := app.Test(r, fiber.TestConfig{})
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Equal(t, http.StatusUnauthorized, response.StatusCode)
	assert.Equal(t, "mine, and more", string(body))
	assert.Equal(t, []string{"Origin", "Accept"}, response.Header["Vary"])
	assert.Equal(t, []string{"a=1"}, response.Header["Set-Cookie"])
	assert.Equal(t, []string{`Bearer realm="https://shopping.api", scope="write:products"`}, response.Header["Www-Authenticate"])
	assert.NotContains(t, response.Header, "X-Before")
}

type contextKey struct{}

func TestClaimsAreInTheRequestsContextAndNotInFibers(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	app := fiber.New()
	app.Get("/products", fiberauth.Authenticate(newGuard(t, issuer, nil)), func(c fiber.Ctx) error {
		claims, ok := fiberauth.Claims(c)
		require.True(t, ok)
		inContext, _ := m2mauth.FromContext(c.Context())
		assert.Equal(t, claims, inContext)
		_, ok = m2mauth.FromContext(c)
		assert.False(t, ok, "the package comment says otherwise")
		return noContent(c)
	})
	app.Get("/open", func(c fiber.Ctx) error {
		_, ok := fiberauth.Claims(c)
		assert.False(t, ok)
		return noContent(c)
	})
	assert.Equal(t, http.StatusNoContent, send(t, app, "GET", "/products", issuer.Token(audience)).status)
	assert.Equal(t, http.StatusNoContent, send(t, app, "GET", "/open", issuer.Token(audience)).status)
}

func TestAnOptionalGuardHidesTheClaimsOfAnOuterOne(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := newGuard(t, issuer, nil)
	other := newGuard(t, issuer, nil)
	app := fiber.New()
	app.Use(fiberauth.Authenticate(other), func(c fiber.Ctx) error {
		c.Request().Header.Del("Authorization")
		return c.Next()
	})
	app.Get("/", fiberauth.RequireRule(guard, m2mauth.Optional(m2mauth.AnyToken())), func(c fiber.Ctx) error {
		_, ok := fiberauth.Claims(c)
		assert.False(t, ok)
		return noContent(c)
	})
	assert.Equal(t, http.StatusNoContent, send(t, app, "GET", "/", issuer.Token(audience)).status)
}

// fiber's own middlewares read the first Vary field alone, and write it anew.
func TestVaryStaysOneFieldWhateverElseVaries(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	app := fiber.New()
	app.Use(func(c fiber.Ctx) error {
		c.Vary("Origin")
		return c.Next()
	})
	app.Get("/", fiberauth.RequireRule(newGuard(t, issuer, nil), m2mauth.Optional(m2mauth.AllScopes("read:products"))), func(c fiber.Ctx) error {
		c.Vary("Accept")
		return noContent(c)
	})
	assert.Equal(t, []string{"Origin, Authorization, Accept"}, send(t, app, "GET", "/", "").header["Vary"])
	assert.Equal(t, []string{"Origin, Authorization, Accept"}, send(t, app, "GET", "/", issuer.Token(audience, "read:products")).header["Vary"])
	assert.Equal(t, []string{"Origin, Authorization"}, send(t, app, "GET", "/", issuer.Token(audience)).header["Vary"])
}

func TestNoSpellingOfAPathGetsAroundAGuard(t *testing.T) {
	t.Parallel()
	guard := newGuard(t, m2mauthtest.NewIssuer(), nil)
	reader := fiberauth.Require(guard, "read:products")
	for n := range 8 {
		config := fiber.Config{CaseSensitive: n&1 > 0, StrictRouting: n&2 > 0, UnescapePath: n&4 > 0}
		app := fiber.New(config)
		secret := unreachable(t)
		app.Get("/read", reader, secret) // GET and, automatically, HEAD
		app.All("/all/:id?", reader, secret)
		app.Group("/group/:org", reader).Get("/read", secret)
		used := app.Group("/used")
		used.Use(reader)
		used.Get("/read", secret)
		inner := fiber.New(config)
		inner.Get("/read", secret)
		app.Use("/outer", reader)
		app.Use("/outer", inner)
		guarded := fiber.New(config)
		guarded.Use(reader)
		guarded.Get("/read", secret)
		app.Use("/inner", guarded)
		app.RouteChain("/chain").Get(reader, secret)

		for _, prefix := range []string{"", "/all", "/group/acme", "/used", "/outer", "/inner", "/chain"} {
			for _, rest := range []string{"", "/", "/read", "/READ", "/read/", "//read", "/./read", "/x/../read", "/%72ead", "/%2e/read",
				"/read%2f", "/read%00", "/read;a=b", "/read?a=b", "/read#a", "/%2fread", "\\read"} {
				for _, path := range []string{prefix + rest, "/" + prefix + rest, "/." + prefix + rest} {
					for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
						raw := method + " " + path + " HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n"
						assert.NotEqual(t, []int{http.StatusOK}, fiberauth.Exchange(t, app, raw), raw)
					}
				}
			}
		}
		for _, path := range []string{"/read", "/all/7", "/all", "/group/acme/read", "/used/read", "/outer/read", "/inner/read", "/chain"} {
			for _, method := range []string{"GET", "HEAD"} {
				got := send(t, app, method, path, "")
				assert.Equal(t, http.StatusUnauthorized, got.status, "%s %s", method, path)
				assert.Equal(t, method == "GET", got.body == noTokenBody, "%s %s", method, path)
			}
		}
	}
}

func TestGuardsOfGroupsAndMountedApps(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := newGuard(t, issuer, nil)
	products := fiber.New()
	products.Use(fiberauth.Authenticate(guard))
	products.Get("/", noContent)
	products.Post("/", fiberauth.Require(guard, "write:products"), noContent)
	app := fiber.New()
	app.Get("/healthz", noContent)
	app.Use("/products", products)
	admin := app.Group("/admin", fiberauth.Require(guard, "admin"))
	admin.Get("/keys", noContent)

	for _, test := range []struct {
		name         string
		method, path string
		token        string
		status       int
	}{
		{"what is before the guards is public", "GET", "/healthz", "", 204},
		{"a mounted app without a token", "GET", "/products", "", 401},
		{"a mounted app", "GET", "/products", issuer.Token(audience), 204},
		{"HEAD of a mounted app", "HEAD", "/products", issuer.Token(audience), 204},
		{"HEAD of a mounted app without a token", "HEAD", "/products", "", 401},
		{"a guarded route of a mounted app without its scope", "POST", "/products", issuer.Token(audience), 403},
		{"a guarded route of a mounted app", "POST", "/products", issuer.Token(audience, "write:products"), 204},
		{"a method that a mounted app has no route for", "DELETE", "/products", issuer.Token(audience), 405},
		{"an unknown path of a mounted app", "GET", "/products/nothing", "", 401},
		{"a group without its scope", "GET", "/admin/keys", issuer.Token(audience), 403},
		{"a group", "GET", "/admin/keys", issuer.Token(audience, "admin"), 204},
		{"a path that begins as a group's does", "GET", "/administration", "", 404},
		{"OPTIONS of a route", "OPTIONS", "/healthz", "", 405},
		{"OPTIONS of a guarded group", "OPTIONS", "/admin/keys", "", 401},
	} {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.status, send(t, app, test.method, test.path, test.token).status)
		})
	}
}

func TestAPanicOfARulesFunctionIsFibersToRecover(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	rule := m2mauth.Custom("panics", func(context.Context, m2mauth.Claims, m2mauth.Request) error { panic(errors.New("hunter2")) })
	app := fiber.New(fiber.Config{ErrorHandler: func(c fiber.Ctx, err error) error {
		assert.EqualError(t, err, "hunter2")
		return c.SendStatus(http.StatusInternalServerError)
	}})
	app.Use(recover.New())
	app.Get("/", fiberauth.RequireRule(newGuard(t, issuer, nil), rule), unreachable(t))
	got := send(t, app, "GET", "/", issuer.Token(audience))
	assert.Equal(t, http.StatusInternalServerError, got.status)
	assert.Empty(t, got.header["Www-Authenticate"])
}

// What the adapter costs is fiber+fiberauth less fiber and less what the guard
// costs, http+guard less http. Compare within one run, allocations first.
func BenchmarkRequest(b *testing.B) {
	issuer := m2mauthtest.NewIssuer()
	guard := newGuard(b, issuer, nil)
	issuer.Rotate("RS256") // the cheapest check, so that the rest shows
	token := issuer.Token(audience, "read:products")

	ok := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
	bare := http.NewServeMux()
	bare.HandleFunc("GET /products", ok)
	guarded := http.NewServeMux()
	guarded.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(ok)))
	for _, bench := range []struct {
		name    string
		handler http.Handler
	}{{"http", bare}, {"http+guard", guarded}} {
		b.Run(bench.name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/products", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			bench.handler.ServeHTTP(w, r)
			require.Equal(b, http.StatusOK, w.Code)
			b.ReportAllocs()
			for b.Loop() {
				bench.handler.ServeHTTP(w, r)
			}
		})
	}

	fiberOK := func(c fiber.Ctx) error { return c.SendStatus(http.StatusOK) }
	fiberBare, fiberGuarded := fiber.New(), fiber.New()
	fiberBare.Get("/products", fiberOK)
	fiberGuarded.Get("/products", fiberauth.Require(guard, "read:products"), fiberOK)
	for _, bench := range []struct {
		name   string
		app    *fiber.App
		token  string
		status int
	}{
		{"fiber", fiberBare, token, http.StatusOK},
		{"fiber+fiberauth", fiberGuarded, token, http.StatusOK},
		{"fiber+fiberauth refuses", fiberGuarded, "", http.StatusUnauthorized},
	} {
		b.Run(bench.name, func(b *testing.B) {
			serve := bench.app.Handler()
			c := &fasthttp.RequestCtx{}
			c.Request.Header.SetMethod("GET")
			c.Request.SetRequestURI("/products")
			if bench.token != "" {
				c.Request.Header.Set("Authorization", "Bearer "+bench.token)
			}
			serve(c)
			require.Equal(b, bench.status, c.Response.StatusCode())
			b.ReportAllocs()
			for b.Loop() {
				c.Response.Reset()
				serve(c)
			}
		})
	}
}
