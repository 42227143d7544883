// Package adaptertest tests adapters: packages that put an [m2mauth.Guard] in front
// of the handlers of a web framework. Its suite sends the same requests to every
// adapter and expects the same answers, so that a guard protects as much behind one
// framework as behind another:
//
//	func TestSuite(t *testing.T) {
//		adaptertest.TestAdapter(t, adaptertest.Adapter[gin.HandlerFunc]{
//			Package:      "ginauth",
//			Require:      ginauth.Require,
//			RequireAny:   ginauth.RequireAny,
//			RequireRule:  ginauth.RequireRule,
//			Authenticate: ginauth.Authenticate,
//			Mount:        mount,
//		})
//	}
//
// It is for authors of adapters. To test an API, you need only package
// [github.com/m2mauth/m2mauth/m2mauthtest].
package adaptertest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/m2mauthtest/internal/inmemory"
)

// Adapter tells [TestAdapter] how to mount a guard in a framework whose middlewares have
// type M. For net/http it is:
//
//	adaptertest.Adapter[func(http.Handler) http.Handler]{
//		Package:      "m2mauth",
//		Require:      (*m2mauth.Guard).Require,
//		RequireAny:   (*m2mauth.Guard).RequireAny,
//		RequireRule:  (*m2mauth.Guard).RequireRule,
//		Authenticate: func(g *m2mauth.Guard) func(http.Handler) http.Handler { return g.Authenticate },
//		Mount:        mount,
//	}
type Adapter[M any] struct {
	// Package is the name of the adapter's package. Panics at set-up must begin with
	// it, as in "ginauth: ", or with "m2mauth: ".
	Package string

	// Framework is the name under which the suite lists the differences that the
	// framework forces. Default: Package.
	Framework string

	// Differences are further differences, which the suite does not list.
	Differences []Difference

	// The four ways to put a guard in front of a handler.
	Require      func(guard *m2mauth.Guard, scopes ...string) M
	RequireAny   func(guard *m2mauth.Guard, scopes ...string) M
	RequireRule  func(guard *m2mauth.Guard, rule m2mauth.Rule) M
	Authenticate func(guard *m2mauth.Guard) M

	// Mount returns an API with the routes of the groups. In front of them it puts,
	// in this order:
	//
	//   - the framework's recovery from panics, which responds with 500
	//   - its CORS middleware, which lets the origin https://app.test send GET with
	//     the header Authorization
	//
	// If these are options of the framework, Mount makes it respond with 405, and read
	// headers of 80 KiB in all. If the framework does not use net/http, Mount wraps it
	// in an http.Handler that passes on the request's RemoteAddr and TLS.
	Mount func(groups []Group[M]) http.Handler

	// Routes returns the API of Mount behind a table: the adapter's own Routes. The
	// middlewares that the groups have stand behind it. If it is nil, the adapter has no tables.
	Routes func(guard *m2mauth.Guard, table Table, groups []Group[M]) (http.Handler, error)
}

// Group is a set of routes with a common prefix and common middlewares.
type Group[M any] struct {
	Prefix      string // such as /open
	Middlewares []M    // the first sees a request first; may be empty
	Routes      []Route[M]
}

// Route is a route of a [Group].
type Route[M any] struct {
	Method      string
	Path        string // after the group's prefix, in the form /items/{id}
	Middlewares []M    // the first sees a request first; may be empty

	// Handle returns the response: a status, and a value to be sent as JSON. Call it
	// with the request's context, and with the adapter's function for the claims, or
	// with [m2mauth.FromContext] if it has none.
	Handle func(ctx context.Context, claims func() (m2mauth.Claims, bool)) (status int, body any)
}

// ColonPath returns Path in the form /items/:id.
func (r Route[M]) ColonPath() string {
	return colons(r.Path)
}

func colons(path string) string { return strings.NewReplacer("{", ":", "}", "").Replace(path) }

// Difference is a response that a framework forces to differ from that of net/http. The
// suite requires it instead of its own response, or instead of the panic at set-up. If
// the row is a rule, it applies to the tokens that the rule lets through.
type Difference struct {
	Row    string // the name in the suite, without that of the test
	Status int
	Why    string
}

// Rows in which a known framework differs.
const (
	rowOptions      = "OPTIONS without a route for it is the router's business"
	rowUnknownInner = "an unknown path in a guarded group is not found"
	rowNilGuard     = "a nil guard in Authenticate"
	rowEmptyGuard   = "a guard that New did not make in Authenticate"
	rowNoOrg        = "no organization for a guard of organization tokens in Authenticate"
	rowPathValue    = "the organization in the path"
	rowPathRule     = "a rule of the organization in the path"
	rowPathAndScope = "a rule of the organization in the path and a scope"
	rowPathValues   = "the path values"
	rowGetPath      = "every part of a path under its name"
	rowGroupPath    = "every part of a path, seen by a group's rule"
	rowEmptyPart    = "an empty part in the middle of a path"
	rowPattern      = "the pattern"
)

// differences are those of frameworks that the suite knows, by Adapter.Framework.
var differences = map[string][]Difference{
	"chi": {
		{rowUnknownInner, http.StatusUnauthorized, "a router of chi's that is mounted at a prefix runs its middlewares before it looks for the route"},
		{rowGroupPath, http.StatusForbidden, "as an unknown path"},
	},
	"echo": {
		{rowOptions, http.StatusNoContent, "echo answers OPTIONS itself, with the methods that there are"},
		{rowUnknownInner, http.StatusUnauthorized, "a group of echo's has a route for all else, so that its middlewares see those requests too"},
	},
	"fiber": {
		{rowUnknownInner, http.StatusUnauthorized, "the middlewares of a group of fiber's run for every path with its prefix"},
		{rowGroupPath, http.StatusForbidden, "a middleware of fiber's sees the parameters of its own prefix alone"},
	},
	"echo v4": {
		{rowOptions, http.StatusNoContent, "as echo"},
		{rowUnknownInner, http.StatusUnauthorized, "as echo"},
		{rowNilGuard, http.StatusInternalServerError, "echo.WrapMiddleware calls the middleware, here the method Authenticate, for each request and not at set-up"},
		{rowEmptyGuard, http.StatusInternalServerError, "as a nil guard"},
		{rowNoOrg, http.StatusInternalServerError, "as a nil guard"},
		{rowPathValue, http.StatusForbidden, "echo v4 does not tell net/http the values of its path parameters"},
		{rowPathRule, http.StatusForbidden, "as the path value alone"},
		{rowPathAndScope, http.StatusForbidden, "as the path value alone"},
		{rowPathValues, http.StatusForbidden, "as the path value alone"},
		{rowGetPath, http.StatusForbidden, "as the path value alone"},
		{rowGroupPath, http.StatusForbidden, "as the path value alone"},
		{rowEmptyPart, http.StatusForbidden, "as the path value alone"},
		{rowPattern, http.StatusForbidden, "echo v4 does not tell net/http its pattern"},
	},
}

// TestAdapter runs the suite. It checks that the same requests get the same responses
// whatever the framework is, and that no rejected request reaches a handler. Only the
// listed differences are allowed.
func TestAdapter[M any](t *testing.T, adapter Adapter[M]) {
	if adapter.Framework == "" {
		adapter.Framework = adapter.Package
	}
	calls := badCallsOf(t, adapter)
	forced := differencesOf(t, adapter, calls)
	t.Run("set-up", func(t *testing.T) {
		t.Parallel()
		testSetUp(t, adapter, calls, forced)
	})
	for _, order := range []struct {
		name    string
		reverse bool
	}{
		{"in order", false},
		{"registered the other way round", true},
	} {
		t.Run(order.name, func(t *testing.T) {
			t.Parallel()
			testAPI(t, func(guard *m2mauth.Guard, a *api) http.Handler {
				return adapter.Mount(arranged(groupsOf(adapter, guard, a), order.reverse))
			}, forced)
		})
		if adapter.Routes == nil {
			continue
		}
		t.Run("behind a table, "+order.name, func(t *testing.T) {
			t.Parallel()
			testAPI(t, func(guard *m2mauth.Guard, a *api) http.Handler {
				table, groups := tableOf(adapter, guard, arranged(groupsOf(ruleAdapter, guard, a), order.reverse))
				handler, err := adapter.Routes(guard, table, groups)
				if err != nil {
					t.Fatal(err)
				}
				return handler
			}, withTable(forced))
		})
	}
}

func testAPI(t *testing.T, mount mounter, forced map[string]Difference) {
	testRows(t, mount, forced)
	testRules(t, mount, forced)
	testRequests(t, mount, forced)
	testPathValues(t, mount, forced)
	testErrorHandlers(t, mount, forced)
	testSituations(t, mount)
}

func arranged[M any](groups []Group[M], reverse bool) []Group[M] {
	if reverse {
		slices.Reverse(groups)
		for _, g := range groups {
			slices.Reverse(g.Routes)
		}
	}
	return groups
}

// differencesOf returns, by row, what is forced to differ.
func differencesOf[M any](t *testing.T, adapter Adapter[M], calls []badCall[M]) map[string]Difference {
	t.Helper()
	statuses := make(map[string]int)
	for _, r := range rows {
		statuses[r.name] = r.status
	}
	for _, r := range ruleRows {
		statuses[r.name] = http.StatusOK
	}
	for _, r := range requestRows {
		statuses[r.name] = http.StatusOK
	}
	for _, r := range pathRows {
		statuses[r.name] = http.StatusOK
	}
	for _, r := range errorHandlerRows {
		statuses[r.name] = r.status
	}
	for _, m := range calls {
		statuses[m.name] = 0
	}
	forced := make(map[string]Difference)
	for _, d := range slices.Concat(differences[adapter.Framework], adapter.Differences) {
		status, ok := statuses[d.Row]
		switch {
		case !ok:
			t.Fatalf("the suite has no row %q that could differ", d.Row)
		case status == d.Status:
			t.Fatalf("%q does not differ: it has the status %d", d.Row, d.Status)
		case d.Why == "":
			t.Fatalf("%q differs for no reason", d.Row)
		}
		forced[d.Row] = d
	}
	return forced
}

const (
	suiteAudience = "https://shopping.api"
	suiteOrigin   = "https://app.test"
)

// mounter puts the suite's routes behind a guard. It has forgotten the
// framework's type of middlewares.
type mounter func(*m2mauth.Guard, *api) http.Handler

// api is the API under test, with its issuer.
type api struct {
	issuer  *m2mauthtest.Issuer
	handler http.Handler
	reached atomic.Int64 // requests that a guarded handler has seen
	meeting *meeting
}

// newAPI makes an API. If change is not nil it may change the configuration, or
// break the issuer.
func newAPI(t *testing.T, mount mounter, change func(*m2mauthtest.Issuer, *m2mauth.Config)) *api {
	t.Helper()
	a := &api{issuer: m2mauthtest.NewIssuer(), meeting: newMeeting(meetingSize)}
	config := a.issuer.Config(suiteAudience)
	config.Logger = slog.New(slog.DiscardHandler)
	if change != nil {
		change(a.issuer, &config)
	}
	guard, err := m2mauth.New(config)
	if err != nil {
		t.Fatal(err)
	}
	a.handler = mount(guard, a)
	return a
}

func groupsOf[M any](adapter Adapter[M], guard *m2mauth.Guard, a *api) []Group[M] {
	guarded := func(method, path string, middlewares ...M) Route[M] {
		return Route[M]{method, path, middlewares, a.handleGuarded}
	}
	reader := adapter.Require(guard, "read:products")
	authenticate := adapter.Authenticate(guard)
	rules := Group[M]{Prefix: "/rules"}
	for _, r := range ruleRows {
		rules.Routes = append(rules.Routes, guarded("GET", r.path("{org}"), adapter.RequireRule(guard, r.rule)))
	}
	requests := Group[M]{Prefix: "/requests"}
	for _, r := range requestRows {
		requests.Routes = append(requests.Routes, guarded("PUT", r.path("{org}", "{item}"), adapter.RequireRule(guard, r.rule())))
	}
	return []Group[M]{
		{Prefix: "/open", Routes: []Route[M]{
			{Method: "GET", Path: "/public", Handle: handle},
			guarded("GET", "/read", reader),
			guarded("HEAD", "/read", reader),
			guarded("POST", "/read", reader),
			guarded("GET", "/both", adapter.Require(guard, "read:products", "write:products")),
			guarded("GET", "/any", adapter.RequireAny(guard, "read:products", "write:products")),
			guarded("GET", "/rule", adapter.RequireRule(guard, m2mauth.AllScopes("write:products"))),
			guarded("GET", "/unwritable", adapter.Require(guard, `read:"products"`)),
			guarded("GET", "/whoami", authenticate),
			guarded("GET", "/items/{id}", reader),
			guarded("GET", "/orgs/{org}/products", adapter.RequireRule(guard,
				m2mauth.AllOf(m2mauth.OrganizationPath("org"), m2mauth.AllScopes("read:products")))),
			guarded("GET", "/ask", adapter.RequireRule(guard, m2mauth.AnyOf(
				m2mauth.AllOf(m2mauth.MachineToken(), m2mauth.Custom("ask", ask)), m2mauth.HasClaim("tier", "gold")))),
			guarded("GET", "/optional", adapter.RequireRule(guard, m2mauth.Optional(m2mauth.AllScopes("read:products")))),
			guarded("GET", "/twice", reader, adapter.Require(guard, "write:products")),
			{"GET", "/meeting", []M{reader}, a.handleMeeting},
			{"GET", "/panic", []M{reader}, handlePanic},
		}},
		{Prefix: "/guarded", Middlewares: []M{authenticate}, Routes: []Route[M]{
			guarded("GET", "/whoami"),
			guarded("GET", "/read", reader),
		}},
		rules,
		requests,
		{Prefix: "/paths", Routes: []Route[M]{
			guarded("GET", "/{org}/items/{item}", adapter.RequireRule(guard, pathRule)),
			guarded("CONNECT", "/{org}/items/{item}", adapter.RequireRule(guard, pathRule)),
		}},
		{Prefix: "/grouped", Middlewares: []M{adapter.RequireRule(guard, pathRule)}, Routes: []Route[M]{
			guarded("GET", "/{org}/items/{item}"),
		}},
	}
}

// ask is what a user's function may do, as the token's scopes have it.
func ask(_ context.Context, claims m2mauth.Claims, _ m2mauth.Request) error {
	switch {
	case claims.Scopes().Has("fail"):
		return errors.New("the database is down")
	case claims.Scopes().Has("deny"):
		return m2mauth.Deny("not today")
	}
	return nil
}

// seen is what a handler answers: the claims that it found.
type seen struct {
	OK       bool   `json:"ok"`
	AppID    string `json:"app_id"`
	Scopes   string `json:"scopes"`
	Accessor string `json:"accessor"` // what the accessor gave, compared with the context's claims
}

func handle(ctx context.Context, accessor func() (m2mauth.Claims, bool)) (int, any) {
	claims, ok := m2mauth.FromContext(ctx)
	s := seen{OK: ok, Accessor: "the same"}
	if ok {
		s.AppID, s.Scopes = claims.AppID(), claims.Scopes().String()
	}
	if other, otherOK := accessor(); !same(other, claims) || otherOK != ok {
		s.Accessor = "something else"
	}
	return http.StatusOK, s
}

// same reports whether both are claims of one token, or none.
func same(a, b m2mauth.Claims) bool {
	return a.IsZero() == b.IsZero() && a.ID() == b.ID() && a.Issuer() == b.Issuer()
}

func (a *api) handleGuarded(ctx context.Context, accessor func() (m2mauth.Claims, bool)) (int, any) {
	a.reached.Add(1)
	return handle(ctx, accessor)
}

// handleMeeting looks for the claims when all requests have arrived.
func (a *api) handleMeeting(ctx context.Context, accessor func() (m2mauth.Claims, bool)) (int, any) {
	a.meeting.attend(ctx)
	return handle(ctx, accessor)
}

func handlePanic(context.Context, func() (m2mauth.Claims, bool)) (int, any) {
	panic("adaptertest: this handler panics, and the framework recovers")
}

// meeting holds its participants up until all are there.
type meeting struct {
	missing atomic.Int64
	begun   chan struct{}
}

func newMeeting(size int64) *meeting {
	m := &meeting{begun: make(chan struct{})}
	m.missing.Store(size)
	return m
}

func (m *meeting) attend(ctx context.Context) {
	if m.missing.Add(-1) == 0 {
		close(m.begun)
	}
	select {
	case <-m.begun:
	case <-ctx.Done(): // the test has failed: another request was not let through
	}
}

// patience is how long the suite waits for what has failed if it does not come.
const patience = time.Minute

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send sends a request with the header fields to the API.
func (a *api) send(t *testing.T, method, path string, header http.Header) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	response, err := a.request(ctx, method, path, header)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: the body: %v", method, path, err)
	}
	return answer{response.StatusCode, response.Header, body}
}

func (a *api) request(ctx context.Context, method, path string, header http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "https://"+suiteHost+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header = header
	server := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{ServerName: suiteHost}
		a.handler.ServeHTTP(w, r)
	})
	return (&inmemory.Transport{Origin: "https://" + suiteHost, Handler: server}).RoundTrip(request)
}

// badCall is a call that panics when routes are set up.
type badCall[M any] struct {
	name       string
	mistake    string // that the panic names
	middleware func() M
}

func badCallsOf[M any](t *testing.T, adapter Adapter[M]) (calls []badCall[M]) {
	t.Helper()
	mistake := "the Guard is nil or was not made by New"
	add := func(name, call string, middleware func() M) {
		calls = append(calls, badCall[M]{name + " in " + call, mistake, middleware})
	}
	for _, bad := range []struct {
		name  string
		guard *m2mauth.Guard
	}{
		{"a nil guard", nil},
		{"a guard that New did not make", &m2mauth.Guard{}},
	} {
		add(bad.name, "Require", func() M { return adapter.Require(bad.guard, "read:products") })
		add(bad.name, "RequireAny", func() M { return adapter.RequireAny(bad.guard, "read:products") })
		add(bad.name, "RequireRule", func() M { return adapter.RequireRule(bad.guard, m2mauth.AnyToken()) })
		add(bad.name, "Authenticate", func() M { return adapter.Authenticate(bad.guard) })
	}

	guard, err := m2mauth.New(m2mauthtest.NewIssuer().Config(suiteAudience))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		name    string
		mistake string
		scopes  []string
	}{
		{"no scope", "no scope given", nil},
		{"an empty scope", `"" cannot be a scope`, []string{"read:products", ""}},
		{"two scopes in one", `"read:products write:products" cannot be a scope`, []string{"read:products write:products"}},
		{"a scope with a tab", `"read:products\t" cannot be a scope`, []string{"read:products\t"}},
	} {
		mistake = bad.mistake
		add(bad.name, "Require", func() M { return adapter.Require(guard, bad.scopes...) })
		add(bad.name, "RequireAny", func() M { return adapter.RequireAny(guard, bad.scopes...) })
	}
	organizations, err := m2mauth.New(m2mauthtest.NewIssuer().Config("urn:logto:organization:"))
	if err != nil {
		t.Fatal(err)
	}
	mistake = "names no organization, and this Guard is for organization tokens"
	const noOrganization = "no organization for a guard of organization tokens"
	add(noOrganization, "Require", func() M { return adapter.Require(organizations, "read:invoices") })
	add(noOrganization, "RequireAny", func() M { return adapter.RequireAny(organizations, "read:invoices") })
	add(noOrganization, "RequireRule", func() M { return adapter.RequireRule(organizations, m2mauth.MachineToken()) })
	add(noOrganization, "Authenticate", func() M { return adapter.Authenticate(organizations) })
	mistake = "the zero Rule lets nobody through"
	add("the zero Rule", "RequireRule", func() M { return adapter.RequireRule(guard, m2mauth.Rule{}) })
	return calls
}

func testSetUp[M any](t *testing.T, adapter Adapter[M], calls []badCall[M], forced map[string]Difference) {
	for _, m := range calls {
		mount := func() http.Handler {
			return adapter.Mount([]Group[M]{{Prefix: "/setup", Routes: []Route[M]{
				{Method: "GET", Path: "/mistake", Middlewares: []M{m.middleware()}, Handle: handle},
			}}})
		}
		t.Run(m.name, func(t *testing.T) {
			if difference, ok := forced[m.name]; ok {
				a := &api{handler: mount()}
				equal(t, "status", a.send(t, "GET", "/setup/mistake", nil).status, difference.Status)
				return
			}
			defer func() {
				got := fmt.Sprint(recover())
				if !strings.HasPrefix(got, adapter.Package+": ") && !strings.HasPrefix(got, "m2mauth: ") || !strings.Contains(got, m.mistake) {
					t.Errorf("the panic %q does not begin with %s or m2mauth, or does not say: %s", got, adapter.Package, m.mistake)
				}
			}()
			mount()
		})
	}
	t.Logf("%d rows", len(calls))
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\ngot  %v\nwant %v", what, got, want)
	}
}
