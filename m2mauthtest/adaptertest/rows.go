package adaptertest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// credentials make the Authorization fields of a request.
type credentials func(*m2mauthtest.Issuer) []string

func fields(values ...string) credentials {
	return func(*m2mauthtest.Issuer) []string { return values }
}

func bearer(token m2mauthtest.Token) credentials {
	token.Audience = cmp.Or(token.Audience, suiteAudience)
	return func(i *m2mauthtest.Issuer) []string { return []string{"Bearer " + i.Sign(token)} }
}

func scoped(scopes ...string) credentials { return bearer(m2mauthtest.Token{Scopes: scopes}) }

func claiming(name string, value any) credentials {
	return bearer(m2mauthtest.Token{Scopes: []string{"read:products"}, Claims: map[string]any{name: value}})
}

// machine are the credentials of an application itself, limited to the
// organization unless that is "".
func machine(organization string, scopes ...string) credentials {
	return bearer(m2mauthtest.Token{AppID: "app", OrganizationID: organization, Scopes: scopes, Claims: map[string]any{"tier": "gold"}})
}

// user are those of an application's user.
func user(organization string, scopes ...string) credentials {
	claims := map[string]any{"sub": "alice", "tier": []string{"silver", "gilded"}}
	return bearer(m2mauthtest.Token{AppID: "web", OrganizationID: organization, Scopes: scopes, Claims: claims})
}

// altered changes the field that other credentials make.
func altered(c credentials, change func(field string) []string) credentials {
	return func(i *m2mauthtest.Issuer) []string { return change(c(i)[0]) }
}

// row is a request and its answer. A code makes the answer a refusal of the
// guard's; otherwise 200 is a handler's, and all else is the router's.
//
// ErrUnavailable has a test of its own. ErrBusy, which needs a flood, has none.
type row struct {
	name         string
	method, path string
	credentials  credentials
	status       int
	code         string // the member error of the body
	scope        string // of the challenge
}

var rows = []row{
	// Let through.
	{"a public route needs no token", "GET", "/open/public", fields(), 200, "", ""},
	{"a public route has no claims, whatever the token", "GET", "/open/public", scoped("read:products"), 200, "", ""},
	{"the scope of the route", "GET", "/open/read", scoped("read:products"), 200, "", ""},
	{"the scope of the route among others", "GET", "/open/read", scoped("write:products", "read:products"), 200, "", ""},
	{"HEAD with the scope", "HEAD", "/open/read", scoped("read:products"), 200, "", ""},
	{"POST with the scope", "POST", "/open/read", scoped("read:products"), 200, "", ""},
	{"all scopes of the route", "GET", "/open/both", scoped("write:products", "read:products"), 200, "", ""},
	{"one of any scopes", "GET", "/open/any", scoped("write:products"), 200, "", ""},
	{"the scope of a rule", "GET", "/open/rule", scoped("write:products"), 200, "", ""},
	{"a scope that no challenge can hold", "GET", "/open/unwritable", scoped(`read:"products"`), 200, "", ""},
	{"any token, even without scopes", "GET", "/open/whoami", scoped(), 200, "", ""},
	{"a route with a wildcard", "GET", "/open/items/7", scoped("read:products"), 200, "", ""},
	{"two guards that both agree", "GET", "/open/twice", scoped("read:products", "write:products"), 200, "", ""},
	{"a guarded group", "GET", "/guarded/whoami", scoped(), 200, "", ""},
	{"a guarded route in a guarded group", "GET", "/guarded/read", scoped("read:products"), 200, "", ""},
	{"the scheme in any letter case", "GET", "/open/read", altered(scoped("read:products"), func(field string) []string {
		return []string{"bEARER" + strings.TrimPrefix(field, "Bearer")}
	}), 200, "", ""},

	// ErrNoToken.
	{"no token", "GET", "/open/read", fields(), 401, "unauthorized", "read:products"},
	{"an empty field", "GET", "/open/read", fields(""), 401, "unauthorized", "read:products"},
	{"another scheme", "GET", "/open/read", fields("Basic YTpi"), 401, "unauthorized", "read:products"},
	{"HEAD without a token", "HEAD", "/open/read", fields(), 401, "unauthorized", "read:products"},
	{"POST without a token", "POST", "/open/read", fields(), 401, "unauthorized", "read:products"},
	{"no token for any scopes", "GET", "/open/any", fields(), 401, "unauthorized", "read:products"},
	{"no token for a rule", "GET", "/open/rule", fields(), 401, "unauthorized", "write:products"},
	{"no token where any would do", "GET", "/open/whoami", fields(), 401, "unauthorized", ""},
	{"no token for a route with a wildcard", "GET", "/open/items/7", fields(), 401, "unauthorized", "read:products"},
	{"no token for a guarded group", "GET", "/guarded/whoami", fields(), 401, "unauthorized", ""},
	{"no token before two guards is answered once", "GET", "/open/twice", fields(), 401, "unauthorized", "read:products"},
	{"a token in the query is not looked at", "GET", "/open/read?access_token=a.b.c", fields(), 401, "unauthorized", "read:products"},

	// ErrRequest.
	{"two Authorization fields", "GET", "/open/read", altered(scoped("read:products"), func(field string) []string {
		return []string{field, "Basic YTpi"}
	}), 400, "invalid_request", ""},
	{"the same Authorization field twice", "GET", "/open/read", altered(scoped("read:products"), func(field string) []string {
		return []string{field, field}
	}), 400, "invalid_request", ""},
	{"Bearer without a token", "GET", "/open/read", fields("Bearer"), 400, "invalid_request", ""},
	{"two tokens in a field", "GET", "/open/read", fields("Bearer a.b.c a.b.c"), 400, "invalid_request", ""},
	{"a token over 8 KiB", "GET", "/open/read", claiming("filler", strings.Repeat("x", 8<<10)), 400, "invalid_request", ""},
	{"HEAD with malformed credentials", "HEAD", "/open/read", fields("Bearer"), 400, "invalid_request", ""},

	// A bad token, in the order of the checks.
	{"an opaque token", "GET", "/open/read", fields("Bearer opaque"), 401, "invalid_token", "read:products"},
	{"an algorithm that is not accepted", "GET", "/open/read", bearer(m2mauthtest.Token{Algorithm: "HS256", Secret: []byte("secret")}), 401, "invalid_token", "read:products"},
	{"an ID token", "GET", "/open/read", bearer(m2mauthtest.Token{Header: map[string]any{"typ": "JWT"}}), 401, "invalid_token", "read:products"},
	{"another issuer's token", "GET", "/open/read", claiming("iss", "https://other.test/oidc"), 401, "invalid_token", "read:products"},
	{"another API's token", "GET", "/open/read", bearer(m2mauthtest.Token{Audience: "https://billing.api"}), 401, "invalid_token", "read:products"},
	{"a token bound to its sender's key", "GET", "/open/read", claiming("cnf", map[string]string{"jkt": "x"}), 401, "invalid_token", "read:products"},
	{"an expired token", "GET", "/open/read", bearer(m2mauthtest.Token{Expired: true}), 401, "invalid_token", "read:products"},
	{"a token that is not valid yet", "GET", "/open/read", claiming("nbf", int64(32472144000)), 401, "invalid_token", "read:products"},
	{"a key that nobody knows", "GET", "/open/read", bearer(m2mauthtest.Token{Header: map[string]any{"kid": "unknown"}}), 401, "invalid_token", "read:products"},
	{"a wrong signature", "GET", "/open/read", func(i *m2mauthtest.Issuer) []string {
		return []string{"Bearer " + m2mauthtest.NewIssuer().Sign(m2mauthtest.Token{Audience: suiteAudience, Header: map[string]any{"kid": i.KeyIDs()[0]}})}
	}, 401, "invalid_token", "read:products"},
	{"HEAD with a bad token", "HEAD", "/open/read", fields("Bearer opaque"), 401, "invalid_token", "read:products"},
	{"a bad token for a guarded group", "GET", "/guarded/whoami", fields("Bearer opaque"), 401, "invalid_token", ""},

	// ErrScope and ErrForbidden.
	{"a scope is missing", "GET", "/open/read", scoped("write:products"), 403, "insufficient_scope", "read:products"},
	{"there are no scopes", "GET", "/open/read", scoped(), 403, "insufficient_scope", "read:products"},
	{"the challenge names all scopes of the route", "GET", "/open/both", scoped("read:products"), 403, "insufficient_scope", "read:products write:products"},
	{"none of any scopes: the challenge names the first", "GET", "/open/any", scoped("read:orders"), 403, "insufficient_scope", "read:products"},
	{"the scope of a rule is missing", "GET", "/open/rule", scoped("read:products"), 403, "insufficient_scope", "write:products"},
	{"a missing scope that no challenge can hold is not named", "GET", "/open/unwritable", scoped("read:products"), 403, "insufficient_scope", ""},
	{"HEAD without the scope", "HEAD", "/open/read", scoped("write:products"), 403, "insufficient_scope", "read:products"},
	{"POST without the scope", "POST", "/open/read", scoped("write:products"), 403, "insufficient_scope", "read:products"},
	{"the second of two guards refuses", "GET", "/open/twice", scoped("read:products"), 403, "insufficient_scope", "write:products"},
	{"a guarded route refuses in a guarded group", "GET", "/guarded/read", scoped(), 403, "insufficient_scope", "read:products"},
	{"a token that is limited to an organization", "GET", "/open/read", claiming("organization_id", "org1"), 403, "insufficient_scope", ""},

	// Rules that look at the request.
	{rowPathValue, "GET", "/open/orgs/acme/products", machine("acme", "read:products"), 200, "", ""},
	{"the organization in the path without the scope", "GET", "/open/orgs/acme/products", machine("acme"), 403, "insufficient_scope", "read:products"},
	{"another organization in the path", "GET", "/open/orgs/globex/products", machine("acme", "read:products"), 403, "insufficient_scope", ""},
	{"the organization in another letter case", "GET", "/open/orgs/Acme/products", machine("acme", "read:products"), 403, "insufficient_scope", ""},
	{"a token of no organization for one in the path", "GET", "/open/orgs/acme/products", scoped("read:products"), 403, "insufficient_scope", ""},
	{"no token for an organization in the path", "GET", "/open/orgs/acme/products", fields(), 401, "unauthorized", "read:products"},

	// A function of the user's.
	{"a function says yes", "GET", "/open/ask", scoped(), 200, "", ""},
	{"a function says no", "GET", "/open/ask", scoped("deny"), 403, "insufficient_scope", ""},
	{"a function fails", "GET", "/open/ask", scoped("fail"), 500, "server_error", ""},
	{"a function fails where another part is met", "GET", "/open/ask", bearer(m2mauthtest.Token{Scopes: []string{"fail"}, Claims: map[string]any{"tier": "gold"}}), 200, "", ""},
	{"a user where machines are asked for", "GET", "/open/ask", claiming("sub", "alice"), 403, "insufficient_scope", ""},

	// Optional.
	{"no token where one is optional", "GET", "/open/optional", fields(), 200, "", ""},
	{"another scheme where a token is optional", "GET", "/open/optional", fields("Basic YTpi"), 200, "", ""},
	{"a token where one is optional", "GET", "/open/optional", scoped("read:products"), 200, "", ""},
	{"a bad token where one is optional", "GET", "/open/optional", fields("Bearer opaque"), 401, "invalid_token", "read:products"},
	{"malformed credentials where a token is optional", "GET", "/open/optional", fields("Bearer"), 400, "invalid_request", ""},
	{"a token without the scope where one is optional", "GET", "/open/optional", scoped(), 403, "insufficient_scope", "read:products"},

	// The router's.
	{"an unknown path is not found", "GET", "/nothing", fields(), 404, "", ""},
	{"an unknown path beside guarded routes is not found", "GET", "/open/nothing", scoped("read:products"), 404, "", ""},
	{rowUnknownInner, "GET", "/guarded/nothing", fields(), 404, "", ""},
	{"a method without a route is not allowed, whatever the token", "DELETE", "/open/read", scoped("read:products"), 405, "", ""},
	{rowOptions, "OPTIONS", "/open/whoami", fields(), 405, "", ""},
}

func testRows(t *testing.T, mount mounter, forced map[string]Difference) {
	a := newAPI(t, mount, nil)
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { a.ask(t, r, http.Header{}, forced[r.name]) })
	}
	t.Logf("%d rows", len(rows))
}

// ask sends the row's request, with the header fields besides, and checks the
// answer. The zero Difference is none.
func (a *api) ask(t *testing.T, r row, header http.Header, difference Difference) {
	t.Helper()
	reached := a.reached.Load()
	authorization := r.credentials(a.issuer)
	header["Authorization"] = authorization
	got := a.send(t, r.method, r.path, header)

	if difference.Status != 0 {
		equal(t, "status", got.status, difference.Status)
		equal(t, "requests in the handler", a.reached.Load()-reached, 0)
		return
	}
	equal(t, "status", got.status, r.status)
	varies := slices.ContainsFunc(got.header.Values("Vary"), func(v string) bool { return strings.Contains(v, "Authorization") })
	equal(t, "Vary names Authorization", varies, strings.Contains(r.path, "optional"))
	switch {
	case r.code != "":
		equal(t, "requests in the handler", a.reached.Load()-reached, 0)
		checkRefusal(t, r, got)
	case r.status == http.StatusOK:
		checkHandled(t, r, authorization, got)
	default:
		equal(t, "requests in the handler", a.reached.Load()-reached, 0)
		equal(t, "WWW-Authenticate", got.header.Get("WWW-Authenticate"), "")
	}
}

// checkRefusal checks an answer against the table of RFC 6750's errors.
func checkRefusal(t *testing.T, r row, got answer) {
	t.Helper()
	equal(t, "Cache-Control", got.header.Get("Cache-Control"), "no-store")
	challenges := got.header.Values("WWW-Authenticate")
	if r.method == http.MethodHead { // the description, which stands in the body, is not looked at
		equal(t, "body of HEAD", string(got.body), "")
		equal(t, "number of challenges", len(challenges), 1)
		challenge := got.header.Get("WWW-Authenticate")
		if code := `, error="` + r.code + `"`; !strings.HasPrefix(challenge, `Bearer realm="`+suiteAudience+`"`) ||
			strings.Contains(challenge, code) != (r.code != "unauthorized") {
			t.Errorf("the challenge %q is not one of %s", challenge, r.code)
		}
		return
	}
	equal(t, "Content-Type", got.header.Get("Content-Type"), "application/json")
	code, description := refusalOf(t, got.body)
	equal(t, "error", code, r.code)
	if r.status == http.StatusInternalServerError { // says nothing of the token, nor of what failed
		equal(t, "challenges", strings.Join(challenges, "\n"), "")
		equal(t, "description", description, "the request could not be authorized because of an internal error")
		return
	}
	challenge := `Bearer realm="` + suiteAudience + `"`
	if r.code != "unauthorized" {
		challenge += `, error="` + r.code + `", error_description="` + description + `"`
	}
	if r.scope != "" {
		challenge += `, scope="` + r.scope + `"`
	}
	equal(t, "challenges", strings.Join(challenges, "\n"), challenge)
}

// refusalOf reads a body that is one object of two strings.
func refusalOf(t *testing.T, body []byte) (code, description string) {
	t.Helper()
	var members map[string]string
	if err := json.Unmarshal(body, &members); err != nil || len(members) != 2 || members["error_description"] == "" {
		t.Fatalf("the body is not error and error_description: %q (%v)", body, err)
	}
	return members["error"], members["error_description"]
}

// checkHandled checks that a handler answered, and saw the claims of its request.
func checkHandled(t *testing.T, r row, authorization []string, got answer) {
	t.Helper()
	for _, field := range []string{"WWW-Authenticate", "Cache-Control", "Retry-After"} {
		equal(t, field, got.header.Get(field), "")
	}
	if r.method == http.MethodHead {
		equal(t, "body of HEAD", string(got.body), "")
		return
	}
	want := seen{Accessor: "the same"}
	if len(authorization) > 0 && strings.HasPrefix(strings.ToLower(authorization[0]), "bearer ") && !strings.HasSuffix(r.path, "/public") {
		want.OK = true
		want.AppID, want.Scopes = claimsOf(t, authorization[0])
	}
	equal(t, "what the handler saw", seenIn(t, got), want)
}

func seenIn(t *testing.T, got answer) (s seen) {
	t.Helper()
	if err := json.Unmarshal(got.body, &s); err != nil {
		t.Errorf("status %d with a body that is not the handler's: %q", got.status, got.body)
	}
	return s
}

// claimsOf reads a token's claims without the package under test. A user's token
// has no app.
func claimsOf(t *testing.T, field string) (app, scopes string) {
	t.Helper()
	var claims struct {
		Sub, Scope string
		ClientID   string `json:"client_id"`
	}
	_, token, _ := strings.Cut(field, " ")
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if claims.Sub == claims.ClientID {
		app = claims.Sub
	}
	return app, claims.Scope
}
