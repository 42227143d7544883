package muxtable

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// api is a mux whose handlers say what they see, and a table whose entries say who they
// are before that.
type api struct {
	mux   *http.ServeMux
	table *Table
}

func newAPI(t *testing.T, patterns []string, entries ...string) api {
	t.Helper()
	a := api{mux: http.NewServeMux()}
	for _, pattern := range patterns {
		a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprintf(w, "%s|%s|%s", pattern, r.Pattern, r.PathValue("org"))
		})
	}
	says := func(who string) Serve {
		return func(w http.ResponseWriter, r *http.Request, found http.Handler) {
			_, _ = fmt.Fprintf(w, "%s %s %s: ", who, r.Pattern, r.PathValue("org"))
			found.ServeHTTP(w, r)
		}
	}
	a.table = New(a.mux, says("unlisted"))
	for _, entry := range entries {
		if pattern, public := strings.CutPrefix(entry, "public "); public {
			require.NoError(t, a.table.AddPublic(pattern))
		} else {
			require.NoError(t, a.table.Add(entry, says("<"+entry+">")))
		}
	}
	return a
}

func (a api) get(method, path string) string {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, nil)
	r.Host = "api.test"
	a.table.ServeHTTP(w, r)
	return fmt.Sprint(w.Code, " ", w.Body)
}

func TestTheEntryOfAPattern(t *testing.T) {
	t.Parallel()
	a := newAPI(t,
		[]string{"GET /both", "POST /both", "DELETE  /both", "GET /a/{id}", "/a/", "/all", "GET api.test/host", "GET /host", "/tree/{org}/", "PUT /p/{x}/{y}", "GET /public", "POST /public", "GET /root/{$}"},
		"GET /both", "/both", "DELETE\t/both", "/a/", "GET /all", "/host", "api.test/host", "/tree/{org}/", "public GET /public", "/public", "/root/{$}")
	for request, want := range map[string]string{
		"GET /both":          "<GET /both> GET /both : GET /both|GET /both|",
		"HEAD /both":         "<GET /both> GET /both : GET /both|GET /both|",
		"POST /both":         "</both> POST /both : POST /both|POST /both|",
		"DELETE /both":       "<DELETE\t/both> DELETE  /both : DELETE  /both|DELETE  /both|",
		"GET /a/1":           "unlisted GET /a/{id} : GET /a/{id}|GET /a/{id}|",
		"POST /a/1":          "</a/> /a/ : /a/|/a/|",
		"GET /all":           "unlisted /all : /all|/all|",
		"GET /host":          "<api.test/host> GET api.test/host : GET api.test/host|GET api.test/host|",
		"GET /tree/x/y":      "</tree/{org}/> /tree/{org}/ x: /tree/{org}/|/tree/{org}/|x",
		"GET /tree/x%2Fy/z/": "</tree/{org}/> /tree/{org}/ x/y: /tree/{org}/|/tree/{org}/|x/y",
		"PUT /p/x/y":         "unlisted PUT /p/{x}/{y} : PUT /p/{x}/{y}|PUT /p/{x}/{y}|",
		"GET /public":        "GET /public|GET /public|",
		"POST /public":       "</public> POST /public : POST /public|POST /public|",
		"GET /root/":         "</root/{$}> GET /root/{$} : GET /root/{$}|GET /root/{$}|",
	} {
		method, path, _ := strings.Cut(request, " ")
		assert.Equal(t, "200 "+want, a.get(method, path), request)
	}
}

// A pattern without an entry is matched as the mux matches it, wildcards included.
func TestAnUnlistedPatternHasItsPathValues(t *testing.T) {
	t.Parallel()
	a := newAPI(t, []string{"GET /orgs/{org}/items"})
	assert.Equal(t, "200 unlisted GET /orgs/{org}/items acme: GET /orgs/{org}/items|GET /orgs/{org}/items|acme", a.get("GET", "/orgs/acme/items"))
}

// TestTheRestIsTheMuxs compares with the mux alone.
func TestTheRestIsTheMuxs(t *testing.T) {
	t.Parallel()
	a := newAPI(t, []string{"GET /products", "POST /products", "GET /orgs/{org}/", "/forgotten/", "GET /open/", "CONNECT /tree/{org}/", "/tree/"},
		"/products", "GET /orgs/{org}/", "/tree/", "public GET /open/")
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
		want, got := send(a.mux), send(a.table)
		require.NotEqual(t, 200, want.Code, request)
		assert.Equal(t, want.Code, got.Code, request)
		assert.Equal(t, want.Header(), got.Header(), request)
		assert.Equal(t, want.Body.String(), got.Body.String(), request)
	}
}

// A star is no path: a mux of which every pattern is open does not serve it either.
func TestAStarIsServedByNoHandler(t *testing.T) {
	t.Parallel()
	a := newAPI(t, []string{"/"}, "public /")
	r := httptest.NewRequest("OPTIONS", "*", nil)
	w := httptest.NewRecorder()
	a.table.ServeHTTP(w, r)
	assert.NotEqual(t, 200, w.Code)
	assert.NotContains(t, w.Body.String(), "|")
}

// The mux names the path where it redirects CONNECT, as it came; it may read as any
// pattern, or as none.
func TestRedirectsOfConnect(t *testing.T) {
	t.Parallel()
	refuse := func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(401) }
	mux := http.NewServeMux()
	for _, pattern := range []string{"/{org}/", "GET /open/", "/a/{b}/"} {
		mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) { t.Error(pattern, "was served") })
	}
	a := api{mux, New(mux, refuse)}
	require.NoError(t, a.table.Add("/open/", refuse))
	require.NoError(t, a.table.Add("/{org}/", refuse))
	for _, path := range []string{"/%7Borg%7D", "/{org}", "/{", "/a/{", "/a//{b}", "//{org}", "/a%2Fopen"} {
		r := httptest.NewRequest("CONNECT", "/", nil)
		r.URL.Path, r.URL.Host, r.Host = path, "", ""
		if strings.Contains(path, "%") {
			r.URL.RawPath, r.URL.Path = path, strings.NewReplacer("%7B", "{", "%7D", "}", "%2F", "/").Replace(path)
		}
		w := httptest.NewRecorder()
		a.table.ServeHTTP(w, r)
		assert.Contains(t, []int{301, 307, 404, 401}, w.Code, path)
	}
}

// A mux may get routes while it serves: the handler is that of the entry that was asked.
func TestTheHandlerIsThatOfTheEntry(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{name}", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "the old one") })
	refused := func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(403) }
	table := New(mux, refused)
	require.NoError(t, table.Add("GET /{name}", func(w http.ResponseWriter, r *http.Request, found http.Handler) {
		mux.HandleFunc("GET /secret", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "secret") })
		found.ServeHTTP(w, r)
	}))
	a := api{mux, table}
	assert.Equal(t, "200 the old one", a.get("GET", "/secret"))
	assert.Equal(t, "403 ", a.get("GET", "/secret"), "the new pattern has no entry")
}

// A handler may want to flush or hijack, and an entry too.
func TestTheResponseWriterIsHandedOver(t *testing.T) {
	t.Parallel()
	var got []http.ResponseWriter
	mux := http.NewServeMux()
	for _, pattern := range []string{"GET /ruled", "GET /public", "GET /unlisted"} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { got = append(got, w) })
	}
	serve := func(w http.ResponseWriter, r *http.Request, found http.Handler) {
		got = append(got, w)
		found.ServeHTTP(w, r)
	}
	table := New(mux, serve)
	require.NoError(t, table.Add("/ruled", serve))
	require.NoError(t, table.AddPublic("/public"))
	for path, want := range map[string]int{"/ruled": 2, "/public": 1, "/unlisted": 2} {
		got = nil
		w := httptest.NewRecorder()
		table.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		require.Len(t, got, want, path)
		for _, writer := range got {
			assert.Same(t, w, writer, path)
		}
	}
}

func TestAddSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	table := New(http.NewServeMux(), nil)
	serve := func(http.ResponseWriter, *http.Request, http.Handler) {}
	require.NoError(t, table.Add("GET /a", serve))
	require.NoError(t, table.AddPublic("/a"), "all methods but GET")
	for _, pattern := range []string{"GET /a", "GET  /a", "GET\t/a"} {
		assert.EqualError(t, table.Add(pattern, serve), "it comes twice", pattern)
		assert.EqualError(t, table.AddPublic(pattern), "it has a rule and is public", pattern)
	}
	assert.EqualError(t, table.Add("/a", serve), "it has a rule and is public")
	assert.EqualError(t, table.AddPublic("/a"), "it comes twice")
	assert.EqualError(t, table.Add("", serve), "not a net/http pattern: http: invalid pattern")
	assert.ErrorContains(t, table.AddPublic("GET a"), "not a net/http pattern: ")
	assert.ErrorContains(t, table.Add("/{", serve), "not a net/http pattern: ")
	assert.Len(t, table.routes, 2)
}
