package adaptertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// testSituations tests what is more than a request and its answer.
func testSituations(t *testing.T, mount mounter) {
	for _, situation := range []struct {
		name string
		test func(*testing.T, mounter)
	}{
		{"without keys the answer is 503 and no challenge", testIssuerDown},
		{"a revoked token is refused at its next use", testRevoked},
		{"Config.ErrorHandler answers", testErrorHandler},
		{"Config.ErrorHandler may write a status alone", testErrorHandlerWithoutBody},
		{"a preflight reaches no guard", testPreflight},
		{"a refusal can be read by the app that CORS lets in", testRefusalAcrossOrigins},
		{"a panicking handler is the framework's to recover", testPanic},
		{"a caller that has gone is not waited for", testCanceled},
		{"a token of nearly 64 KiB passes where Config.MaxTokenBytes is that", testLargeTokens},
		{"parallel requests see their own claims", testParallel},
	} {
		t.Run(situation.name, func(t *testing.T) { situation.test(t, mount) })
	}
}

func testIssuerDown(t *testing.T, mount mounter) {
	a := newAPI(t, mount, func(i *m2mauthtest.Issuer, _ *m2mauth.Config) {
		i.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
		})
	})
	got := a.send(t, "GET", "/open/read", a.authorization("read:products"))
	equal(t, "status", got.status, http.StatusServiceUnavailable)
	equal(t, "requests in the handler", a.reached.Load(), 0)
	equal(t, "Cache-Control", got.header.Get("Cache-Control"), "no-store")
	equal(t, "challenges", len(got.header.Values("WWW-Authenticate")), 0)
	if seconds, err := strconv.Atoi(got.header.Get("Retry-After")); err != nil || seconds < 1 {
		t.Errorf("Retry-After is %q, not a number of seconds", got.header.Get("Retry-After"))
	}
	code, _ := refusalOf(t, got.body)
	equal(t, "error", code, "temporarily_unavailable")
	equal(t, "status of a public route", a.send(t, "GET", "/open/public", nil).status, http.StatusOK)
}

// authorization is the header of a request with a good token.
func (a *api) authorization(scopes ...string) http.Header {
	return http.Header{"Authorization": {"Bearer " + a.issuer.Token(suiteAudience, scopes...)}}
}

// testRevoked needs an adapter that asks the guard about each request.
func testRevoked(t *testing.T, mount mounter) {
	var revoked func() (bool, error)
	a := newAPI(t, mount, func(_ *m2mauthtest.Issuer, c *m2mauth.Config) {
		c.Revoked = func(context.Context, m2mauth.Claims) (bool, error) { return revoked() }
	})
	authorization := a.authorization("read:products")
	for _, test := range []struct {
		name        string
		revoked     func() (bool, error)
		status      int
		code, retry string
	}{
		{"a good token", func() (bool, error) { return false, nil }, 200, "", ""},
		{"a revoked one", func() (bool, error) { return true, nil }, 401, "invalid_token", ""},
		{"where nobody knows", func() (bool, error) { return false, errors.New("secret") }, 503, "temporarily_unavailable", "1"},
		{"where Config.Revoked panics", func() (bool, error) { panic("adaptertest: Config.Revoked panics, and the framework recovers") }, 500, "", ""},
		{"one that was revoked by mistake", func() (bool, error) { return false, nil }, 200, "", ""},
	} {
		revoked = test.revoked
		for _, path := range []string{"/open/read", "/open/optional", "/guarded/read"} {
			what := test.name + " at " + path + ": "
			before := a.reached.Load()
			got := a.send(t, "GET", path, authorization)
			equal(t, what+"status", got.status, test.status)
			equal(t, what+"requests in the handler", a.reached.Load() > before, test.status == http.StatusOK)
			if test.code == "" {
				continue
			}
			code, text := refusalOf(t, got.body)
			equal(t, what+"error", code, test.code)
			equal(t, what+"the failure is shown", strings.Contains(text, "secret"), false)
			equal(t, what+"Retry-After", got.header.Get("Retry-After"), test.retry)
			equal(t, what+"challenge", strings.Contains(got.header.Get("WWW-Authenticate"), `error="invalid_token"`), test.status == http.StatusUnauthorized)
		}
	}
	equal(t, "status of a public route", a.send(t, "GET", "/open/public", authorization).status, http.StatusOK)
}

func testErrorHandler(t *testing.T, mount mounter) {
	a := newAPI(t, mount, func(_ *m2mauthtest.Issuer, c *m2mauth.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, e *m2mauth.Error) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusTeapot)
			_, _ = fmt.Fprintf(w, "%s %s, ", r.Method, r.URL.Path)
			_, _ = fmt.Fprintf(w, "%d %s %v", e.Status, e.Code, e.Scopes)
		}
	})
	got := a.send(t, "GET", "/open/read", a.authorization("write:products"))
	equal(t, "status", got.status, http.StatusTeapot)
	equal(t, "requests in the handler", a.reached.Load(), 0)
	equal(t, "Content-Type", got.header.Get("Content-Type"), "text/plain")
	equal(t, "body", string(got.body), "GET /open/read, 403 insufficient_scope [read:products]")
	if challenge := got.header.Get("WWW-Authenticate"); !strings.Contains(challenge, `scope="read:products"`) {
		t.Errorf("the challenge is lost: %q", challenge)
	}
}

func testErrorHandlerWithoutBody(t *testing.T, mount mounter) {
	a := newAPI(t, mount, func(_ *m2mauthtest.Issuer, c *m2mauth.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, e *m2mauth.Error) { w.WriteHeader(e.Status) }
	})
	got := a.send(t, "GET", "/open/read", nil)
	equal(t, "status", got.status, http.StatusUnauthorized)
	equal(t, "requests in the handler", a.reached.Load(), 0)
	equal(t, "body", string(got.body), "")
	equal(t, "challenge", got.header.Get("WWW-Authenticate"), `Bearer realm="`+suiteAudience+`", scope="read:products"`)
}

// errorHandlerRows are what a Config.ErrorHandler may do to the answer of a request
// without a token.
var errorHandlerRows = []struct {
	name    string
	handler func(http.ResponseWriter)
	status  int
	body    string
}{
	{"an ErrorHandler that does nothing", func(http.ResponseWriter) {}, 401, ""},
	{"an ErrorHandler that writes a body", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "no") }, 401, "no"},
	{"an ErrorHandler that writes 200 and a body", func(w http.ResponseWriter) { w.WriteHeader(200); _, _ = io.WriteString(w, "no") }, 401, "no"},
	{"an ErrorHandler that writes a hint and a body", func(w http.ResponseWriter) { w.WriteHeader(103); _, _ = io.WriteString(w, "no") }, 401, "no"},
	{"an ErrorHandler that writes a status", func(w http.ResponseWriter) { w.WriteHeader(404) }, 404, ""},
	{"an ErrorHandler that flushes and writes a body", func(w http.ResponseWriter) { w.(http.Flusher).Flush(); _, _ = io.WriteString(w, "no") }, 401, "no"},
}

// testErrorHandlers holds that a refusal is no success, whatever Config.ErrorHandler does.
func testErrorHandlers(t *testing.T, mount mounter, forced map[string]Difference) {
	for _, test := range errorHandlerRows {
		t.Run(test.name, func(t *testing.T) {
			a := newAPI(t, mount, func(_ *m2mauthtest.Issuer, c *m2mauth.Config) {
				c.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ *m2mauth.Error) { test.handler(w) }
			})
			got := a.send(t, "GET", "/open/whoami", nil)
			equal(t, "status", got.status, cmp.Or(forced[test.name].Status, test.status))
			equal(t, "requests in the handler", a.reached.Load(), 0)
			equal(t, "body", string(got.body), test.body)
			equal(t, "challenges", len(got.header.Values("WWW-Authenticate")), 1)
		})
	}
}

func testPreflight(t *testing.T, mount mounter) {
	a := newAPI(t, mount, nil)
	got := a.send(t, "OPTIONS", "/open/read", http.Header{
		"Origin":                         {suiteOrigin},
		"Access-Control-Request-Method":  {"GET"},
		"Access-Control-Request-Headers": {"authorization"},
	})
	if got.status != http.StatusOK && got.status != http.StatusNoContent {
		t.Errorf("the status is %d, not one that browsers accept", got.status)
	}
	equal(t, "requests in the handler", a.reached.Load(), 0)
	equal(t, "challenges", len(got.header.Values("WWW-Authenticate")), 0)
	equal(t, "Access-Control-Allow-Origin", got.header.Get("Access-Control-Allow-Origin"), suiteOrigin)
	if allowed := got.header.Get("Access-Control-Allow-Headers"); !strings.EqualFold(allowed, "Authorization") {
		t.Errorf("Access-Control-Allow-Headers is %q", allowed)
	}
}

func testRefusalAcrossOrigins(t *testing.T, mount mounter) {
	a := newAPI(t, mount, nil)
	got := a.send(t, "GET", "/open/read", http.Header{"Origin": {suiteOrigin}})
	equal(t, "status", got.status, http.StatusUnauthorized)
	equal(t, "challenges", len(got.header.Values("WWW-Authenticate")), 1)
	equal(t, "Access-Control-Allow-Origin", got.header.Get("Access-Control-Allow-Origin"), suiteOrigin)
}

func testPanic(t *testing.T, mount mounter) {
	a := newAPI(t, mount, nil)
	got := a.send(t, "GET", "/open/panic", a.authorization("read:products"))
	equal(t, "status", got.status, http.StatusInternalServerError)
	equal(t, "challenges", len(got.header.Values("WWW-Authenticate")), 0)

	// What the framework keeps for the next request has nothing left of this one.
	got = a.send(t, "GET", "/open/public", nil)
	equal(t, "status afterwards", got.status, http.StatusOK)
	equal(t, "what the next handler saw", seenIn(t, got), seen{Accessor: "the same"})
}

func testCanceled(t *testing.T, mount mounter) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := newAPI(t, mount, func(i *m2mauthtest.Issuer, c *m2mauth.Config) {
		i.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				cancel() // the caller goes while the guard waits for this answer
				select {
				case <-r.Context().Done():
				case <-t.Context().Done(): // the test has ended
				}
			})
		})
		// Longer than the suite has patience, so that nothing else ends the wait.
		c.KeyTTL, c.FetchTimeout = time.Hour, 5*time.Minute
	})
	served := make(chan struct{})
	inner := a.handler
	a.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(served)
		inner.ServeHTTP(w, r)
	})

	response, err := a.request(ctx, "GET", "/open/read", a.authorization("read:products"))
	if err == nil {
		_ = response.Body.Close()
		t.Errorf("the answer was %d before the caller had gone", response.StatusCode)
	}
	select {
	case <-served:
	case <-time.After(patience):
		t.Error("the guard waits on for keys though the caller has gone")
	}
	equal(t, "requests in the handler", a.reached.Load(), 0)
}

// testLargeTokens needs a server that reads such fields. What is wrong with a longer
// token is for the guard to say.
func testLargeTokens(t *testing.T, mount mounter) {
	a := newAPI(t, mount, func(_ *m2mauthtest.Issuer, c *m2mauth.Config) { c.MaxTokenBytes = 64 << 10 })
	for _, size := range []struct{ filler, status int }{{9 << 10, 200}, {47 << 10, 200}, {49 << 10, 400}} { // a third more in base64url
		token := claiming("filler", strings.Repeat("x", size.filler))(a.issuer)
		got := a.send(t, "GET", "/open/read", http.Header{"Authorization": token})
		equal(t, fmt.Sprintf("status with %d bytes", len(token[0])), got.status, size.status)
	}
	equal(t, "requests in the handler", a.reached.Load(), 2)
}

const meetingSize = 200

func testParallel(t *testing.T, mount mounter) {
	a := newAPI(t, mount, nil)
	a.issuer.Rotate("EdDSA") // 200 new ES384 tokens at once take seconds where the race detector slows them
	var group sync.WaitGroup
	for n := range meetingSize {
		app := fmt.Sprintf("app-%03d", n)
		scopes := []string{"read:products", "scope-of-" + app}
		token := a.issuer.Sign(m2mauthtest.Token{AppID: app, Audience: suiteAudience, Scopes: scopes})
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			response, err := a.request(ctx, "GET", "/open/meeting", http.Header{"Authorization": {"Bearer " + token}})
			if err != nil {
				t.Errorf("%s: %v", app, err)
				return
			}
			defer response.Body.Close()
			body, _ := io.ReadAll(response.Body)
			want := seen{OK: true, AppID: app, Scopes: strings.Join(scopes, " "), Accessor: "the same"}
			equal(t, "what the handler saw", seenIn(t, answer{response.StatusCode, response.Header, body}), want)
		})
	}
	group.Wait()
}
