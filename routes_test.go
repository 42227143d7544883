package m2mauth_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// routesAPI is a mux whose handlers answer with their own patterns, behind a table.
type routesAPI struct {
	issuer  *m2mauthtest.Issuer
	mux     *http.ServeMux
	handler http.Handler
	book    *logBook
}

func newRoutesAPI(t *testing.T, patterns []string, rules map[string]m2mauth.Rule, public ...string) *routesAPI {
	t.Helper()
	api := &routesAPI{issuer: m2mauthtest.NewIssuer(), mux: http.NewServeMux()}
	for _, pattern := range patterns {
		api.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			_, ok := m2mauth.FromContext(r.Context())
			_, _ = fmt.Fprintf(w, "%s %s %s %v", pattern, r.Pattern, r.PathValue("org"), ok)
		})
	}
	guard, book := loggedGuard(t, api.issuer)
	api.book = book
	var err error
	api.handler, err = guard.Routes(api.mux, rules, public...)
	require.NoError(t, err)
	return api
}

func (a *routesAPI) request(method, target string, scopes ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.Host = "api.test"
	r.Header.Set("Authorization", "Bearer "+a.issuer.Token(testguard.Shop, scopes...))
	return r
}

func (a *routesAPI) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	a.handler.ServeHTTP(w, r)
	return w
}

// mistakes are the lines about patterns without entries.
func (a *routesAPI) mistakes() []logEntry {
	return slices.DeleteFunc(a.book.take(), func(e logEntry) bool {
		return !strings.Contains(e.attrs["msg"].(string), "has no entry in the table of Guard.Routes")
	})
}

func TestRoutesPicksTheEntryOfAPattern(t *testing.T) {
	t.Parallel()
	rule := func(scope string) m2mauth.Rule { return m2mauth.AllScopes(scope) }
	api := newRoutesAPI(t,
		[]string{"GET /both", "POST /both", "DELETE  /both", "GET /a/{id}", "/a/", "/all", "GET api.test/host", "GET /host", "/tree/", "PUT /p/{x}/{y}", "GET /public", "POST /public", "GET /root/{$}"},
		map[string]m2mauth.Rule{
			"GET /both": rule("read"), "/both": rule("write"), "DELETE\t/both": rule("delete"),
			"/a/": rule("a"), "GET /all": rule("all"), "/host": rule("host"), "api.test/host": rule("api.test"), "/tree/": rule("tree"),
			"/public": rule("write"), "/root/{$}": rule("root"),
		}, "GET /public")
	for name, test := range map[string]struct {
		method, path string
		scope        string // that opens the route; "" where none does
	}{
		"an entry with the method":                         {"GET", "/both", "read"},
		"HEAD has the entry of GET, as its handler":        {"HEAD", "/both", "read"},
		"an entry for all methods of a path":               {"POST", "/both", "write"},
		"blanks between method and path do not count":      {"DELETE", "/both", "delete"},
		"a pattern below another inherits nothing":         {"GET", "/a/1", ""},
		"what the pattern above matches itself":            {"POST", "/a/1", "a"},
		"an entry for a method says nothing of all":        {"GET", "/all", ""},
		"a host's own entry":                               {"GET", "/host", "api.test"},
		"a subtree":                                        {"GET", "/tree/x/y", "tree"},
		"a pattern that no entry names":                    {"PUT", "/p/x/y", ""},
		"a path that is public for another method":         {"POST", "/public", "write"},
		"an end of a path":                                 {"GET", "/root/", "root"},
		"a path with escapes is matched as the mux does":   {"GET", "/tree/a%2Fb", "tree"},
		"an escape in a wildcard's part stays in its part": {"GET", "/a/b%2Fc", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, scope := range []string{"read", "write", "delete", "a", "all", "host", "api.test", "tree", "root"} {
				w := api.serve(api.request(test.method, test.path, scope))
				if want := map[bool]int{true: 200, false: 403}[scope == test.scope]; w.Code != want {
					t.Errorf("with %s: status %d, not %d: %s", scope, w.Code, want, w.Body)
				}
			}
		})
	}
	w := api.serve(httptest.NewRequest("GET", "/public", nil))
	assert.Equal(t, "200 GET /public GET /public  false", fmt.Sprint(w.Code, " ", w.Body))
}

func TestRoutesRefusesAPatternWithoutEntryForEverybody(t *testing.T) {
	t.Parallel()
	api := newRoutesAPI(t, []string{"GET /forgotten", "GET /other"}, nil)
	for range 3 {
		w := api.serve(httptest.NewRequest("GET", "/forgotten", nil))
		assert.Equal(t, 401, w.Code)
		w = api.serve(api.request("GET", "/forgotten", "read:products"))
		assert.Equal(t, 403, w.Code)
		assert.JSONEq(t, `{"error":"insufficient_scope","error_description":"this route lets nobody through"}`, w.Body.String())
	}
	api.serve(api.request("GET", "/other"))
	lines := api.mistakes()
	require.Len(t, lines, 2, "one for each pattern")
	assert.Equal(t, slog.LevelError, lines[0].level)
	assert.Equal(t, "GET /forgotten", lines[0].attrs["pattern"])
}

// TestRoutesLeavesTheRestToTheMux compares with the mux alone, without any token.
func TestRoutesLeavesTheRestToTheMux(t *testing.T) {
	t.Parallel()
	patterns := []string{"GET /products", "POST /products", "GET /orgs/{org}/", "/forgotten/", "GET /open/", "CONNECT /tree/{org}/", "/tree/"}
	api := newRoutesAPI(t, patterns, map[string]m2mauth.Rule{"/products": m2mauth.AnyToken(), "GET /orgs/{org}/": m2mauth.AnyToken(), "/tree/": m2mauth.AnyToken()}, "GET /open/")
	for _, request := range []string{
		"GET /nothing", "DELETE /products", "OPTIONS /products", "GET /orgs/acme", "HEAD /orgs/acme?a=b", "GET /products/",
		"GET //orgs//acme/", "GET /a/../orgs/acme/", "GET /forgotten", "GET /open", "GET /./open/x", "POST /open", "GET //nothing",
		"CONNECT /tree", "CONNECT /tree/acme", "CONNECT /nothing", "CONNECT /orgs", "OPTIONS *", "GET /orgs/a%2Fb", "BREW /nothing",
	} {
		method, target, _ := strings.Cut(request, " ")
		send := func(h http.Handler) *httptest.ResponseRecorder {
			r := httptest.NewRequest(method, "/", nil)
			r.RequestURI = target
			if target == "*" {
				r.URL.Path = "*"
			} else {
				r = httptest.NewRequest(method, "http://api.test"+target, nil)
				r.URL.Host = ""
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		want, got := send(api.mux), send(api.handler)
		require.NotEqual(t, 200, want.Code, request)
		assert.Equal(t, want.Code, got.Code, request)
		assert.Equal(t, want.Header(), got.Header(), request)
		assert.Equal(t, want.Body.String(), got.Body.String(), request)
	}
	assert.Empty(t, api.mistakes(), "no redirect is taken for its pattern")
}

// TestRoutesOfConnect: the mux names the path where it redirects CONNECT, as it came; it
// may read as any pattern.
func TestRoutesOfConnect(t *testing.T) {
	t.Parallel()
	api := newRoutesAPI(t, []string{"/{org}/", "GET /open/", "/a/{b}/"},
		map[string]m2mauth.Rule{"/open/": m2mauth.AnyToken(), "/{org}/": m2mauth.AnyToken()})
	for _, path := range []string{"/%7Borg%7D", "/{org}", "/{", "/a/{", "/a//{b}", "//{org}", "/a%2Fopen"} {
		r := httptest.NewRequest("CONNECT", "/", nil)
		r.URL.Path, r.URL.Host, r.Host = path, "", ""
		if strings.Contains(path, "%") {
			r.URL.RawPath, r.URL.Path = path, strings.NewReplacer("%7B", "{", "%7D", "}", "%2F", "/").Replace(path)
		}
		w := api.serve(r)
		assert.Contains(t, []int{301, 307, 404, 401}, w.Code, path)
	}
}

// TestRoutesSetsPathValues holds that the rule and the handler see the path values that
// the handler's pattern has, and no request those of another.
func TestRoutesSetsPathValues(t *testing.T) {
	t.Parallel()
	api := newRoutesAPI(t, []string{"GET /orgs/{org}/items", "GET /by/{org}/rest/{more...}"},
		map[string]m2mauth.Rule{"/orgs/{org}/items": m2mauth.OrganizationPath("org"), "GET /by/{org}/rest/{more...}": m2mauth.OrganizationPath("org")})
	token := api.issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, OrganizationID: "acme"})
	for path, want := range map[string]string{
		"/orgs/acme/items":     "200 GET /orgs/{org}/items GET /orgs/{org}/items acme true",
		"/by/acme/rest/globex": "200 GET /by/{org}/rest/{more...} GET /by/{org}/rest/{more...} acme true",
		"/orgs/globex/items":   "403",
		"/by/globex/rest/acme": "403",
		"/orgs/acme%2Fx/items": "403",
	} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := api.serve(r)
		if got := fmt.Sprint(w.Code, " ", w.Body); want != "403" || w.Code != 403 {
			assert.Equal(t, want, got, path)
		}
	}
}

// TestRoutesRunsTheHandlerThatWasChecked: a mux may get routes while it serves.
func TestRoutesRunsTheHandlerThatWasChecked(t *testing.T) {
	t.Parallel()
	issuer, mux := m2mauthtest.NewIssuer(), http.NewServeMux()
	guard := testguard.Quiet(t, issuer)
	mux.HandleFunc("GET /{name}", func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, "the old one") })
	handler, err := guard.Routes(mux, map[string]m2mauth.Rule{"GET /{name}": m2mauth.Custom("late", func(_ context.Context, _ m2mauth.Claims, _ m2mauth.Request) error {
		mux.HandleFunc("GET /secret", func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, "secret") })
		return nil
	})})
	require.NoError(t, err)
	r := httptest.NewRequest("GET", "/secret", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token(testguard.Shop))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	assert.Equal(t, "the old one", w.Body.String())
	w = httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	assert.Equal(t, 403, w.Code, "the new pattern has no entry")
}

// TestRoutesHandsOverTheResponseWriter: a handler may want to flush or hijack.
func TestRoutesHandsOverTheResponseWriter(t *testing.T) {
	t.Parallel()
	api := newRoutesAPI(t, nil, map[string]m2mauth.Rule{"/ruled": m2mauth.AnyToken()}, "/public")
	var got http.ResponseWriter
	for _, pattern := range []string{"GET /ruled", "GET /public"} {
		api.mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { got = w })
	}
	for _, path := range []string{"/ruled", "/public"} {
		w := api.serve(api.request("GET", path))
		assert.Same(t, w, got, path)
	}
}

// TestRoutesOfMuxesInMuxes: a mux in a mux is one pattern, and may have a table of its own.
func TestRoutesOfMuxesInMuxes(t *testing.T) {
	t.Parallel()
	inner := newRoutesAPI(t, []string{"GET /api/{org}/x", "GET /api/forgotten"}, map[string]m2mauth.Rule{"/api/{org}/x": m2mauth.OrganizationPath("org")})
	outer := newRoutesAPI(t, nil, nil, "/api/")
	outer.mux.Handle("/api/", inner.handler)
	for path, want := range map[string]int{"/api/acme/x": 200, "/api/globex/x": 403, "/api/forgotten": 403, "/api/nothing": 404} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer "+inner.issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, OrganizationID: "acme"}))
		assert.Equal(t, want, outer.serve(r).Code, path)
	}
}

// TestRoutesInADryRun: the answers are those of the mux alone, a pattern without an entry
// included, and the list is what an enforcing guard refuses.
func TestRoutesInADryRun(t *testing.T) {
	t.Parallel()
	issuer, mux := m2mauthtest.NewIssuer(), http.NewServeMux()
	for _, pattern := range []string{"GET /products", "POST /products", "GET /forgotten", "/orgs/{org}/", "GET /open"} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Route", r.Pattern+" "+r.PathValue("org"))
			_, _ = w.Write([]byte("ok"))
		})
	}
	book := new(logBook)
	guard, decisions := deciding(t, issuer, reportOnly, func(c *m2mauth.Config) { c.Logger = slog.New(book) })
	require.NoError(t, guard.Warm(t.Context()))
	rules := map[string]m2mauth.Rule{"/products": m2mauth.AllScopes("read"), "POST /products": m2mauth.AllScopes("write"), "/orgs/{org}/": m2mauth.OrganizationPath("org")}
	dry, err := guard.Routes(mux, rules, "GET /open")
	require.NoError(t, err)
	enforcing, err := guard.Enforcing().Routes(mux, rules, "GET /open")
	require.NoError(t, err)
	send := func(h http.Handler, method, path, token string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	refused := uint64(0)
	for _, request := range []string{"GET /products", "HEAD /products", "POST /products", "DELETE /products", "GET /forgotten", "GET /orgs/acme/x", "GET /orgs/acme", "GET //open", "GET /open", "GET /nothing"} {
		for _, token := range []string{"", "rubbish", issuer.Token(testguard.Shop, "read"), issuer.Token("https://other.api", "read")} {
			method, path, _ := strings.Cut(request, " ")
			want, got := send(mux, method, path, token), send(dry, method, path, token)
			assert.Equal(t, []any{want.Code, want.Header(), want.Body.String()}, []any{got.Code, got.Header(), got.Body.String()}, request)
			told := decisions.list
			decisions.list = nil
			strict := send(enforcing, method, path, token)
			require.Len(t, decisions.list, len(told), request)
			for i, d := range told {
				assert.True(t, d.ReportOnly)
				assert.Equal(t, decisions.list[i].Outcome, d.Outcome, request)
				assert.Equal(t, strict.Code >= 400, d.Err != nil, request)
				if d.Err != nil {
					refused++
				}
			}
			decisions.list = nil
		}
	}
	assert.EqualValues(t, 18, refused)
	assert.Equal(t, refused, guard.Stats().WouldRefuse)
	told := 0
	for _, entry := range book.take() {
		if entry.attrs["pattern"] == "GET /forgotten" && entry.level == slog.LevelError {
			told++
		}
	}
	assert.Equal(t, 2, told, "once by each table")
}

func TestRoutesNamesEveryMistake(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.Audience = "urn:logto:organization:" })
	org := m2mauth.OrganizationHeader("X-Organization")
	handler, err := guard.Routes(nil, map[string]m2mauth.Rule{
		"GET": org, "": org, "GET /{": org, "GET /a//b": org, "G(T /x": org,
		"GET /zero": {}, "GET /scopes": m2mauth.AllScopes("read:products"), "GET /fine": m2mauth.Optional(org),
		"GET /twice": org, "GET  /twice": org, "GET /both": org,
	}, "GET /both", "/public", "/public", "no slash")
	require.Error(t, err)
	assert.Equal(t, strings.TrimSpace(`
m2mauth: Routes: the mux is nil
m2mauth: Routes: "": not a net/http pattern: http: invalid pattern
m2mauth: Routes: "G(T /x": not a net/http pattern: parsing "G(T /x": at offset 0: invalid method "G(T"
m2mauth: Routes: "GET": not a net/http pattern: parsing "GET": at offset 0: host/path missing /
m2mauth: Routes: "GET /a//b": not a net/http pattern: parsing "GET /a//b": at offset 4: non-CONNECT pattern with unclean path can never match
m2mauth: Routes: "GET /scopes": AllScopes("read:products") names no organization, and this Guard is for organization tokens; add Organization, OrganizationPath or OrganizationHeader
m2mauth: Routes: "GET /twice": it comes twice
m2mauth: Routes: "GET /zero": the zero Rule lets nobody through; make one with AllScopes, AnyScope or AnyToken
m2mauth: Routes: "GET /{": not a net/http pattern: parsing "GET /{": at offset 5: bad wildcard segment (must end with '}')
m2mauth: Routes: "GET /both": it has a rule and is public
m2mauth: Routes: "/public": it comes twice
m2mauth: Routes: "no slash": not a net/http pattern: parsing "no slash": at offset 3: host/path missing /`), err.Error())
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/public", nil))
	assert.Equal(t, 500, w.Code, "beside an error nothing is served")

	for _, none := range []*m2mauth.Guard{nil, {}} {
		handler, err = none.Routes(http.NewServeMux(), map[string]m2mauth.Rule{"GET /x": m2mauth.AnyToken()}, "/public")
		require.EqualError(t, err, "m2mauth: Routes: the Guard is nil or was not made by New; was the error of New ignored?")
		w = httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "/public", nil))
		assert.Equal(t, 500, w.Code)
	}
}
