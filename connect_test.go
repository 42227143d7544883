package m2mauth_test

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// net/http does not clean the path of a CONNECT request: an empty part of it moves
// the values of the wildcards, or makes PathValue panic.
func TestConnectHasNoPathValues(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, book := loggedGuard(t, issuer)
	token := issuer.Sign(m2mauthtest.Token{Audience: shop, OrganizationID: "acme"})
	reached := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux := http.NewServeMux()
	mux.Handle("/orgs/{org}/products", guard.RequireRule(m2mauth.OrganizationPath("org"))(reached))
	mux.Handle("/orgs/{org}/items/{item}", guard.RequireRule(m2mauth.OrganizationPath("org"))(reached))
	mux.Handle("/rest/{org...}", guard.RequireRule(m2mauth.OrganizationPath("org"))(reached))
	mux.Handle("/any/{org}", guard.RequireRule(m2mauth.Organization(func(r m2mauth.Request) string { return r.PathValue("org") }))(reached))
	server := httptest.NewServer(mux)
	defer server.Close()

	for _, test := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/orgs/acme/products", 204},
		{"GET", "/orgs/acme/items/1", 204},
		{"GET", "/orgs/other/products", 403},
		{"GET", "/orgs/%61cme/products", 204},
		{"GET", "/rest/acme", 204},
		{"GET", "/any/acme", 204},
		{"CONNECT", "/orgs//products", 403}, // PathValue panics
		{"CONNECT", "/orgs//items/acme", 403},
		{"CONNECT", "/orgs/acme/items/", 403},
		{"CONNECT", "/orgs/acme/products", 403},
		{"CONNECT", "/rest/acme", 403},
		{"CONNECT", "/any/", 403},
		{"CONNECT", "/any/acme", 403},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			_, err = conn.Write([]byte(test.method + " " + test.path + " HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer " + token + "\r\n\r\n"))
			require.NoError(t, err)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err, "a panic ends the connection")
			defer func() { _ = response.Body.Close() }()
			if test.path != "/any/" && test.path != "/orgs/acme/items/" { // which may have no route
				assert.Equal(t, test.status, response.StatusCode)
			}
			if test.method == "CONNECT" {
				assert.NotEqual(t, http.StatusNoContent, response.StatusCode)
			}
		})
	}
	for _, entry := range book.take() {
		assert.NotEqual(t, "internal error", entry.attrs["kind"])
	}
}

// A value that net/http cannot give is empty, and not a panic.
func TestAPathValueThatPanicsIsEmpty(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer)
	token := issuer.Sign(m2mauthtest.Token{Audience: shop, OrganizationID: "acme"})
	mux := http.NewServeMux()
	mux.HandleFunc("/orgs/{org}/products", func(w http.ResponseWriter, r *http.Request) {
		r.Method = http.MethodGet // as a middleware for X-HTTP-Method-Override would do
		r.Header.Set("Authorization", "Bearer "+token)
		require.Panics(t, func() { r.PathValue("org") }, "net/http is mended: this test shows nothing")
		_, err := guard.Check(r, m2mauth.OrganizationPath("org"))
		require.ErrorIs(t, err, m2mauth.ErrForbidden)
	})
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodConnect, "/", nil)
	r.URL.Path = "/orgs//products"
	mux.ServeHTTP(w, r)
	assert.Equal(t, http.StatusOK, w.Code)
}

// brokenRequest panics where its function says so.
type brokenRequest struct {
	headers
	header func(name string)
	path   func()
}

func (r brokenRequest) Header(name string) []string {
	if r.header != nil {
		r.header(name)
	}
	return r.headers.Header(name)
}

func (r brokenRequest) PathValue(string) string {
	if r.path != nil {
		r.path()
	}
	return ""
}

// A request whose fields cannot be read is none without credentials.
func TestAHeaderThatPanicsIsAnInternalError(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	token := issuer.Sign(m2mauthtest.Token{Audience: shop, OrganizationID: "acme"})
	fields := headers{fields: http.Header{"Authorization": {"Bearer " + token}, "X-Organization": {"acme"}}}
	of := func(field string, value any) func(string) {
		return func(name string) {
			if name == field {
				panic(value)
			}
		}
	}
	for _, test := range []struct {
		name  string
		rule  m2mauth.Rule
		panic func(string)
		cause string
	}{
		{"Authorization", m2mauth.AnyToken(), of("Authorization", errors.New("secret "+token)), "the request's Header panicked with a *errors.errorString"},
		{"Authorization, with an optional rule", m2mauth.Optional(m2mauth.AnyToken()), of("Authorization", "secret "+token), "the request's Header panicked with a string"},
		{"an index out of range", m2mauth.AnyToken(), func(string) { _ = []int{}[len(token)] }, "index out of range"},
		{"an organization's field", m2mauth.OrganizationHeader("X-Organization"), of("X-Organization", "broken"), "X-Organization"},
		{"an organization's field beside a part that is met", m2mauth.AllOf(m2mauth.AnyToken(), m2mauth.OrganizationHeader("X-Organization")), of("X-Organization", "broken"), "the request's Header panicked"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			guard, book := loggedGuard(t, issuer)
			claims, err := guard.CheckRequest(t.Context(), brokenRequest{headers: fields, header: test.panic}, test.rule)
			assert.True(t, claims.IsZero())
			require.ErrorIs(t, err, m2mauth.ErrInternal)
			var e *m2mauth.Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, 500, e.Status)
			entries := book.take()
			require.Len(t, entries, 1)
			assert.Contains(t, entries[0].attrs["cause"], test.cause)
			assert.NotContains(t, entries[0].attrs["cause"], token)
		})
	}

	guard := quietGuard(t, issuer)
	_, err := guard.CheckRequest(t.Context(), brokenRequest{headers: fields}, m2mauth.OrganizationHeader("X-Organization"))
	require.NoError(t, err, "without a panic")
	_, err = guard.Check(nil, m2mauth.Optional(m2mauth.AnyToken()))
	require.ErrorIs(t, err, m2mauth.ErrInternal, "no request at all")

	mistake := brokenRequest{headers: fields, path: func() { panic("a user's mistake") }}
	assert.PanicsWithValue(t, "a user's mistake", func() {
		_, _ = guard.CheckRequest(t.Context(), mistake, m2mauth.OrganizationPath("org"))
	}, "what is not the library's goes on to the server")
}
