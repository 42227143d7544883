package adaptertest

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/m2mauth/m2mauth"
)

// requestRow is what a rule sees of a request, by a method of [m2mauth.Request]. Its
// route is PUT /requests/NAME/{org}/{item}.
type requestRow struct {
	name string // in the path with a - for each space
	sees func(m2mauth.Request) string
	want string
}

func (r requestRow) path(org, item string) string {
	return "/" + strings.ReplaceAll(r.name, " ", "-") + "/" + org + "/" + item
}

// rule is met where the rule sees what it is to see.
func (r requestRow) rule() m2mauth.Rule {
	return m2mauth.Custom(r.name, func(_ context.Context, _ m2mauth.Claims, request m2mauth.Request) error {
		if got := r.sees(request); got != r.want {
			return m2mauth.Deny("the rule sees " + got)
		}
		return nil
	})
}

const suiteHost = "api.test"

var requestRows = []requestRow{
	{"the method", m2mauth.Request.Method, http.MethodPut},
	{"the URL", func(r m2mauth.Request) string { return r.URL().RequestURI() }, "/requests/the-URL/acme/7?q=a%20b"},
	{"the TLS connection", func(r m2mauth.Request) string { return r.TLS().ServerName }, suiteHost},
	{rowPattern, func(r m2mauth.Request) string { return colons(strings.TrimPrefix(r.Pattern(), "PUT ")) }, "/requests/the-pattern/:org/:item"},
	{rowPathValues, func(r m2mauth.Request) string { return r.PathValue("org") + ", " + r.PathValue("item") }, "acme, 7"},
	{"a path value that the route does not have", func(r m2mauth.Request) string { return r.PathValue("none") }, ""},
	{"all values of a header field", func(r m2mauth.Request) string { return strings.Join(r.Header("x-twice"), ", ") }, "one, two"},
	{"a header field that did not come", func(r m2mauth.Request) string { return strings.Join(r.Header("X-None"), ", ") }, ""},
	{"the address of the peer and not what a header says", m2mauth.Request.RemoteAddr, "192.0.2.1:1234"},
}

// testRequests tests what rules see of a request.
func testRequests(t *testing.T, mount mounter, forced map[string]Difference) {
	a := newAPI(t, mount, nil)
	for _, test := range requestRows {
		t.Run("a rule sees "+test.name, func(t *testing.T) {
			r := row{test.name, "PUT", "/requests" + test.path("acme", "7") + "?q=a%20b", scoped(), http.StatusOK, "", ""}
			a.ask(t, r, http.Header{"X-Twice": {"one", "two"}, "X-Forwarded-For": {"198.51.100.1"}}, forced[test.name])
		})
	}
	t.Logf("%d rows", len(requestRows))
}

// pathRows hold that no part of a path comes under another's name, and of a CONNECT
// request none.
var pathRows = []struct {
	name, method, path string
	org, item          string
	routed             bool // an empty part may have no route
}{
	{rowGetPath, "GET", "/paths/acme/items/1", "acme", "1", true},
	{rowGroupPath, "GET", "/grouped/acme/items/1", "acme", "1", true},
	{rowEmptyPart, "GET", "/paths//items/acme", "", "acme", false},
	{"an empty part at the end of a path", "GET", "/paths/acme/items/", "acme", "", false},
	{"CONNECT", "CONNECT", "/paths/acme/items/1", "", "", true},
	{"CONNECT with an empty part in the middle of a path", "CONNECT", "/paths//items/acme", "", "", false},
	{"CONNECT with an empty part at the end of a path", "CONNECT", "/paths/acme/items/", "", "", false},
}

// pathRule is met where the path values are those that the header fields tell.
var pathRule = m2mauth.Custom("path values", func(_ context.Context, _ m2mauth.Claims, r m2mauth.Request) error {
	for name, field := range map[string]string{"org": "X-Org", "item": "X-Item"} {
		if got := r.PathValue(name); got != strings.Join(r.Header(field), ", ") {
			return m2mauth.Deny(name + " is " + got)
		}
	}
	return nil
})

func testPathValues(t *testing.T, mount mounter, forced map[string]Difference) {
	a := newAPI(t, mount, nil)
	for _, test := range pathRows {
		t.Run(test.name, func(t *testing.T) {
			header := a.authorization()
			header["X-Org"], header["X-Item"] = []string{test.org}, []string{test.item}
			got := a.send(t, test.method, test.path, header)
			switch difference := forced[test.name]; {
			case difference.Status != 0:
				equal(t, "status", got.status, difference.Status)
			case test.routed || got.status == http.StatusForbidden || got.status >= http.StatusInternalServerError:
				equal(t, "status", got.status, http.StatusOK)
			}
			if t.Failed() {
				t.Logf("%s", got.body)
			}
		})
	}
}
