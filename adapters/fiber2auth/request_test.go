package fiber2auth

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Exchange sends messages as they are to an app, in one connection, and returns
// the status of each answer.
func Exchange(t *testing.T, app *fiber.App, messages ...string) (statuses []int) {
	t.Helper()
	app.Handler() // builds the routes
	w := newWire(messages...)
	_ = app.Server().ServeConn(w) // ends with what is to be read; refused bytes are an error of it too
	answers := bufio.NewReader(&w.out)
	for _, message := range messages {
		method, _, _ := strings.Cut(message, " ")
		response, err := http.ReadResponse(answers, &http.Request{Method: method})
		require.NoError(t, err, message)
		_, err = io.Copy(io.Discard, response.Body)
		require.NoError(t, err, message)
		statuses = append(statuses, response.StatusCode)
	}
	return statuses
}

// wire is a connection on which all has been sent already. A read gives one message
// at most, so that each is written over the one before it.
type wire struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func newWire(messages ...string) *wire {
	readers := make([]io.Reader, len(messages))
	for i, message := range messages {
		readers[i] = strings.NewReader(message)
	}
	conn, _ := net.Pipe() // for all but reading and writing
	return &wire{Conn: conn, in: io.MultiReader(readers...)}
}

func (w *wire) Read(p []byte) (int, error)  { return w.in.Read(p) }
func (w *wire) Write(p []byte) (int, error) { return w.out.Write(p) }
func (w *wire) RemoteAddr() net.Addr        { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711} }

func TestEveryAuthorizationFieldOnTheWireIsSeen(t *testing.T) {
	t.Parallel()
	const begin, end = "GET / HTTP/1.1\r\nHost: api.test\r\n", "\r\n\r\n"
	const chunked = "POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n"
	for _, test := range []struct {
		name    string
		message string
		status  int
		fields  []string
	}{
		{"none", begin + "Accept: a/b" + end, 200, nil},
		{"one", begin + "Authorization: Bearer a.b.c" + end, 200, []string{"Bearer a.b.c"}},
		{"in another letter case", begin + "aUTHORIZATION: Bearer a" + end, 200, []string{"Bearer a"}},
		{"empty", begin + "Authorization:" + end, 200, []string{""}},
		{"blanks around the value", begin + "Authorization:  \t Bearer a \t " + end, 200, []string{"Bearer a"}},
		{"no blank before the value", begin + "Authorization:Bearer a" + end, 200, []string{"Bearer a"}},
		{"two", begin + "Authorization: Bearer a\r\nAuthorization: Bearer b" + end, 200, []string{"Bearer a", "Bearer b"}},
		{"two that are the same", begin + "Authorization: Bearer a\r\nAuthorization: Bearer a" + end, 200, []string{"Bearer a", "Bearer a"}},
		{"two with others between", begin + "Authorization: Bearer a\r\nCookie: a=b\r\nX: y\r\nAuthorization: Bearer b" + end, 200, []string{"Bearer a", "Bearer b"}},
		{"two in several letter cases", begin + "Authorization: Bearer a\r\nauthorization: Bearer b" + end, 200, []string{"Bearer a", "Bearer b"}},
		{"two, of which one is empty", begin + "Authorization:\r\nAuthorization: Bearer b" + end, 200, []string{"", "Bearer b"}},
		{"two, of which one has a blank before the colon", begin + "Authorization : Bearer a\r\nAuthorization: Bearer b" + end, 200, []string{"Bearer a", "Bearer b"}},
		{"two that a line feed separates", begin + "Authorization: Bearer a\nAuthorization: Bearer b" + end, 200, []string{"Bearer a", "Bearer b"}},
		{"a tab before the colon", begin + "Authorization\t: Bearer a\r\nAuthorization: Bearer b" + end, 400, nil},
		{"folded", begin + "Authorization: Bearer\r\n a.b.c" + end, 200, []string{"Bearer a.b.c"}},
		{"folded, with what looks like a second field", begin + "Authorization: Bearer a\r\n Authorization: Bearer b" + end, 200, []string{"Bearer a Authorization: Bearer b"}},
		{"a part of another field", begin + "X: y\r\n Authorization: Bearer b" + end, 200, nil},
		{"a part of another name", begin + "X-Authorization: Bearer a\r\nAuthorization-X: Bearer b" + end, 200, nil},
		{"a NUL in the value", begin + "Authorization: Bearer a\x00b" + end, 400, nil},
		{"a NUL in the name", begin + "Authorization\x00: Bearer a" + end, 400, nil},
		{"a carriage return in the value", begin + "Authorization: Bearer a\rb" + end, 400, nil},
		{"a line without a colon between", begin + "Authorization: Bearer a\r\n1\r\nAuthorization: Bearer b" + end, 400, nil},
		{"a letter that folds to one of the name", begin + "Author\u0131zation: Bearer a" + end, 400, nil},
		{"bytes that are not ASCII", begin + "Authorization: Bearer \xff\xe9" + end, 200, []string{"Bearer \xff\xe9"}},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nAuthorization: Bearer a" + end, 200, []string{"Bearer a"}},
		{"a trailer", chunked + "\r\n0\r\nAuthorization: Bearer t" + end, 400, nil},
		{"a trailer that was announced", chunked + "Trailer: Authorization\r\n\r\n0\r\nAuthorization: Bearer t" + end, 400, nil},
		{"one and a trailer", chunked + "Authorization: Bearer a\r\n\r\n0\r\nAuthorization: Bearer t" + end, 400, nil},
	} {
		for _, disabled := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, DisableHeaderNormalizing %t", test.name, disabled), func(t *testing.T) {
				t.Parallel()
				var fields []string
				app := fiber.New(fiber.Config{DisableHeaderNormalizing: disabled})
				app.All("/", func(c *fiber.Ctx) error {
					fields = request{c: c}.Header("authorization")
					return nil
				})
				assert.Equal(t, []int{test.status}, Exchange(t, app, test.message))
				assert.Equal(t, test.fields, fields)
			})
		}
	}
}

func TestRulesSeeWhatTheRequestHas(t *testing.T) {
	t.Parallel()
	app := fiber.New(fiber.Config{ // c.IP is what the header says
		ProxyHeader: "X-Forwarded-For", EnableTrustedProxyCheck: true, TrustedProxies: []string{"192.0.2.7"},
	})
	group := app.Group("/orgs/:org", func(c *fiber.Ctx) error { // a group's middleware, as a guard may be
		seen := request{c: c}
		assert.Equal(t, "acme", seen.PathValue("org"))
		assert.Empty(t, seen.PathValue("file"), "a parameter of the route that comes after")
		assert.Equal(t, "/orgs/:org", seen.Pattern())
		return c.Next()
	})
	group.Get("/files/:file/*", func(c *fiber.Ctx) error {
		seen := request{c: c}
		assert.Equal(t, "acme", seen.PathValue("org"))
		assert.Equal(t, "a", seen.PathValue("file"))
		assert.Equal(t, "b/c", seen.PathValue("*"))
		assert.Empty(t, seen.PathValue("none"))
		assert.Empty(t, seen.PathValue(""))
		assert.Equal(t, []string{"one", "two"}, seen.Header("x-twice"))
		assert.Equal(t, []string{"api.test"}, seen.Header("host"))
		assert.Empty(t, seen.Header("Authorization"))
		assert.Equal(t, "198.51.100.1", c.IP())
		assert.Equal(t, "192.0.2.7:4711", seen.RemoteAddr())
		assert.Equal(t, "/orgs/:org/files/:file/*", seen.Pattern())
		assert.Equal(t, http.MethodGet, seen.Method())
		assert.Equal(t, &url.URL{Path: "/orgs/acme/files/a/b/c", RawQuery: "q=1"}, seen.URL())
		assert.Nil(t, seen.TLS())
		return c.SendStatus(http.StatusNoContent)
	})
	assert.Equal(t, []int{http.StatusNoContent}, Exchange(t, app, "GET /orgs/acme/files/a/b/c?q=1 HTTP/1.1\r\nHost: api.test\r\n"+
		"X-Forwarded-For: 198.51.100.1\r\nX-Twice: one\r\nX-Twice: two\r\n\r\n"))
}

func TestNothingIsKnownWithoutARequest(t *testing.T) {
	t.Parallel()
	without := request{}
	assert.Empty(t, without.RemoteAddr())
	assert.Empty(t, without.PathValue("org"))
	assert.Empty(t, without.Method())
	assert.Nil(t, without.URL())
	assert.Nil(t, without.TLS())
	assert.Empty(t, without.Pattern())
}

func TestWhatNobodyCanParseIsNoURL(t *testing.T) {
	t.Parallel()
	app, reached := fiber.New(), false
	app.All("/*", func(c *fiber.Ctx) error {
		reached = true
		assert.Nil(t, request{c: c}.URL())
		assert.Equal(t, "/%zz", httpRequest(c).URL.Path)
		return nil
	})
	assert.Equal(t, []int{http.StatusOK}, Exchange(t, app, "GET /%zz HTTP/1.1\r\nHost: api.test\r\n\r\n"))
	assert.True(t, reached)
}

func TestPathValuesAreThoseThatTheHandlerReads(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		config fiber.Config
		path   string
		org    string
	}{
		{"as it came", fiber.Config{}, "/orgs/Acme", "Acme"},
		{"an optional one that is missing", fiber.Config{}, "/orgs", ""},
		{"an optional one that is empty", fiber.Config{}, "/orgs/", ""},
		{"a slash at the end", fiber.Config{}, "/orgs/acme/", "acme"},
		{"percent encoded", fiber.Config{}, "/orgs/%61cme", "%61cme"},
		{"percent encoded, and to be decoded", fiber.Config{UnescapePath: true}, "/orgs/%61cme", "acme"},
		{"after one that was longer", fiber.Config{}, "/orgs/a", "a"},
		{"copied by fiber", fiber.Config{Immutable: true}, "/orgs/acme", "acme"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			reached := false
			app := fiber.New(test.config)
			app.Get("/orgs/:org?", func(c *fiber.Ctx) error {
				reached = true
				assert.Equal(t, test.org, request{c: c}.PathValue("org"))
				assert.Equal(t, test.org, c.Params("org"))
				return nil
			})
			assert.Equal(t, []int{http.StatusOK}, Exchange(t, app, "GET "+test.path+" HTTP/1.1\r\nHost: api.test\r\n\r\n"))
			assert.True(t, reached)
		})
	}
}

// fiber gives the parameters of a mounted app the values of those of its prefix, which
// the package comment warns of. Guard and handler at least read the same.
func TestAPrefixWithParametersMixesUpThoseOfAMountedApp(t *testing.T) {
	t.Parallel()
	inner, app := fiber.New(), fiber.New()
	reached := false
	inner.Get("/orgs/:org", func(c *fiber.Ctx) error {
		reached = true
		assert.Equal(t, "tenant", request{c: c}.PathValue("org"), "fiber is mended: take the warning out of the package comment")
		assert.Equal(t, c.Params("org"), request{c: c}.PathValue("org"))
		return nil
	})
	app.Mount("/tenants/:tenant", inner)
	Exchange(t, app, "GET /tenants/tenant/orgs/acme HTTP/1.1\r\nHost: api.test\r\n\r\n")
	assert.True(t, reached)
}
