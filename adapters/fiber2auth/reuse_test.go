package fiber2auth_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/fiber2auth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// keeper keeps strings as an audit log does, each beside a copy that was made at once.
type keeper struct {
	mu   sync.Mutex // the fetch of keys logs on its own
	kept []keptString
}

type keptString struct{ what, kept, copied string }

func (k *keeper) keep(what, s string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = append(k.kept, keptString{what, s, strings.Clone(s)})
}

func (k *keeper) keepClaims(who string, claims m2mauth.Claims) {
	k.keep(who+": sub", claims.Subject())
	k.keep(who+": client_id", claims.ClientID())
	k.keep(who+": jti", claims.ID())
	k.keep(who+": organization_id", claims.OrganizationID())
	k.keep(who+": scope", claims.Scopes().String())
}

// keepRequest keeps what a guard, and through it a user's function, sees.
func (k *keeper) keepRequest(who string, r m2mauth.Request) {
	for _, name := range []string{"Authorization", "X-Org", "Host", "User-Agent", "Cookie"} {
		for _, value := range r.Header(name) {
			k.keep(who+": "+name, value)
		}
	}
	k.keep(who+": org", r.PathValue("org"))
	k.keep(who+": *", r.PathValue("*"))
	k.keep(who+": address", r.RemoteAddr())
	k.keep(who+": method", r.Method())
	k.keep(who+": URL's path", r.URL().Path)
	k.keep(who+": URL's query", r.URL().RawQuery)
	k.keep(who+": pattern", r.Pattern())
}

// Handle makes a keeper a slog.Handler.
func (k *keeper) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(a slog.Attr) bool {
		if a.Value.Kind() == slog.KindString {
			k.keep("log: "+a.Key, a.Value.String())
		}
		return true
	})
	return nil
}
func (k *keeper) Enabled(context.Context, slog.Level) bool { return true }
func (k *keeper) WithAttrs([]slog.Attr) slog.Handler       { return k }
func (k *keeper) WithGroup(string) slog.Handler            { return k }

// message is a request of a fixed length, so that the next one of another letter
// is written over it byte by byte.
func message(letter, authorization string) string {
	filler, method := strings.Repeat(letter, 8), "GET"
	if letter == "z" {
		method = "PUT"
	}
	return method + " /orgs/" + filler + "/" + filler + "?q=" + filler + " HTTP/1.1\r\nHost: " + filler + "\r\nUser-Agent: " + filler +
		"\r\nCookie: " + filler + "=" + filler + "\r\nX-Org: " + filler + "\r\nAuthorization: " + authorization + "\r\n\r\n"
}

func TestNothingIsReadFromABufferThatHoldsAnotherRequest(t *testing.T) {
	t.Parallel()
	const rounds = 40 // under the race detector sync.Pool gives things back only at times
	issuer := m2mauthtest.NewIssuer()
	issuer.Rotate("EdDSA") // quick to sign
	k := &keeper{}
	decisions := map[string]int{}
	guard := newGuard(t, issuer, func(c *m2mauth.Config) {
		c.Logger = slog.New(k)
		c.QueueKey = func(r m2mauth.Request) string {
			k.keepRequest("QueueKey", r)
			return r.Header("X-Org")[0]
		}
		c.OnDecision = func(_ context.Context, d m2mauth.Decision) {
			decisions[fmt.Sprint(d.Outcome, " ", d.Remembered)]++
			if !d.Claims.IsZero() {
				k.keepClaims("OnDecision", d.Claims)
			}
		}
		c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, e *m2mauth.Error) {
			w.WriteHeader(e.Status)
			k.keep("ErrorHandler: method", r.Method)
			k.keep("ErrorHandler: protocol", r.Proto)
			k.keep("ErrorHandler: host", r.Host)
			k.keep("ErrorHandler: address", r.RemoteAddr)
			k.keep("ErrorHandler: URI", r.RequestURI)
			k.keep("ErrorHandler: path", r.URL.Path)
			k.keep("ErrorHandler: query", r.URL.RawQuery)
			for name, values := range r.Header {
				k.keep("ErrorHandler: a field's name", name)
				k.keep("ErrorHandler: "+name, values[0])
			}
		}
	})
	rule := m2mauth.AllOf(m2mauth.OrganizationPath("org"), m2mauth.Custom("keep", func(_ context.Context, claims m2mauth.Claims, r m2mauth.Request) error {
		k.keepClaims("Custom", claims)
		k.keepRequest("Custom", r)
		return nil
	}))
	app := fiber.New()
	app.All("/orgs/:org/*", fiber2auth.RequireRule(guard, rule), func(c *fiber.Ctx) error {
		claims, _ := fiber2auth.Claims(c)
		k.keepClaims("handler", claims)
		return nil
	})

	var messages []string
	var statuses []int
	add := func(status int, message string) {
		messages, statuses = append(messages, message), append(statuses, status)
	}
	for n := range rounds {
		good := "Bearer " + issuer.Sign(m2mauthtest.Token{
			Audience: audience, AppID: fmt.Sprintf("app-%03d", n), Scopes: []string{"read"}, OrganizationID: "aaaaaaaa",
		})
		rubbish := "Bearer " + strings.Repeat("z", len(good)-len("Bearer "))
		add(http.StatusOK, message("a", good))
		add(http.StatusUnauthorized, message("z", rubbish))
		add(http.StatusForbidden, message("b", good)) // for another organization
		add(http.StatusUnauthorized, message("z", rubbish))
		add(http.StatusOK, message("a", good))
		add(http.StatusUnauthorized, message("z", rubbish))
	}
	require.Equal(t, statuses, fiber2auth.Exchange(t, app, messages...))

	assert.Equal(t, map[string]int{"allowed false": rounds, "allowed true": rounds, "forbidden true": rounds, "malformed_token false": 3 * rounds}, decisions)
	seen := map[string]bool{}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.kept {
		seen[s.what] = true
		require.Equal(t, s.copied, s.kept, s.what)
	}
	for _, what := range []string{"QueueKey: X-Org", "Custom: Authorization", "Custom: org", "Custom: *", "Custom: Cookie", "Custom: method", "Custom: URL's path", "Custom: URL's query", "OnDecision: sub", "handler: jti",
		"ErrorHandler: Authorization", "ErrorHandler: path", "ErrorHandler: query", "log: pattern"} {
		assert.True(t, seen[what], "nothing was kept of %s", what)
	}
}

// fiber and fasthttp use the things of one request for the next.
func TestClaimsOfOneRequestAreNotSeenByTheNextOnItsConnection(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := newGuard(t, issuer, nil)
	var seen []string
	see := func(c *fiber.Ctx) error {
		claims, ok := fiber2auth.Claims(c)
		same, _ := m2mauth.FromContext(c.UserContext())
		assert.Equal(t, claims, same)
		if !ok {
			seen = append(seen, "nobody")
			return nil
		}
		seen = append(seen, claims.AppID())
		return nil
	}
	app := fiber.New()
	app.Get("/guarded", fiber2auth.Authenticate(guard), see)
	app.Get("/optional", fiber2auth.RequireRule(guard, m2mauth.Optional(m2mauth.AnyToken())), see)
	app.Get("/public", see)
	get := func(path, app string) string {
		message := "GET " + path + " HTTP/1.1\r\nHost: api.test\r\n"
		if app != "" {
			message += "Authorization: Bearer " + issuer.Sign(m2mauthtest.Token{Audience: audience, AppID: app}) + "\r\n"
		}
		return message + "\r\n"
	}
	statuses := fiber2auth.Exchange(t, app,
		get("/guarded", "the-app"), get("/public", ""),
		get("/guarded", "the-app"), get("/public", "another"),
		get("/guarded", "the-app"), get("/optional", ""),
		get("/guarded", "the-app"), get("/guarded", ""),
		get("/guarded", "another"), get("/missing", ""), get("/public", ""))
	assert.Equal(t, []int{200, 200, 200, 200, 200, 200, 200, 401, 200, 404, 200}, statuses)
	assert.Equal(t, []string{"the-app", "nobody", "the-app", "nobody", "the-app", "nobody", "the-app", "another", "nobody"}, seen)
}

func TestATokenWhoseCallerHasGoneIsVerifiedThoughItsBufferHoldsAnother(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	ctx, leave := context.WithCancel(t.Context())
	overwritten := make(chan struct{})
	issuer.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			leave() // the fetch of keys goes on
			select {
			case <-overwritten:
			case <-r.Context().Done():
			}
			next.ServeHTTP(w, r)
		})
	})
	guard := newGuard(t, issuer, nil)
	app := fiber.New()
	requests := 0
	app.Use(func(c *fiber.Ctx) error {
		requests++
		switch requests {
		case 1:
			c.SetUserContext(ctx)
		case 3:
			close(overwritten)
		}
		return c.Next()
	})
	app.All("/orgs/:org/*", fiber2auth.Require(guard, "read"), func(c *fiber.Ctx) error {
		claims, _ := fiber2auth.Claims(c)
		assert.Equal(t, "the-app", claims.AppID())
		return nil
	})
	good := "Bearer " + issuer.Sign(m2mauthtest.Token{Audience: audience, AppID: "the-app", Scopes: []string{"read"}})
	rubbish := "Bearer " + strings.Repeat("z", len(good)-len("Bearer "))
	assert.Equal(t, []int{http.StatusServiceUnavailable, http.StatusUnauthorized, http.StatusOK},
		fiber2auth.Exchange(t, app, message("a", good), message("z", rubbish), message("a", good)))
}
