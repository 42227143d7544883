package revocation_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/logstore"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/revocation"
)

// admin is an admin API that a dry run of its guard does not open.
type admin struct {
	issuer  *m2mauthtest.Issuer
	list    *revocation.List
	handler http.Handler
	log     bytes.Buffer
}

func newAdmin(tb testing.TB, rule m2mauth.Rule, o revocation.Options) *admin {
	tb.Helper()
	a := &admin{issuer: m2mauthtest.NewIssuer()}
	o.Issuers = []string{a.issuer.URL()}
	o.Logger = slog.New(slog.NewTextHandler(&a.log, nil))
	a.list = newList(tb, o)
	guard := testguard.Quiet(tb, a.issuer, func(c *m2mauth.Config) { c.InsecureReportOnlyUntil = time.Now().Add(time.Hour) })
	a.handler = http.StripPrefix("/admin", a.list.Handler(guard, rule))
	return a
}

func (a *admin) token(app string, scopes ...string) string {
	return a.issuer.Sign(m2mauthtest.Token{AppID: app, Audience: testguard.Shop, Scopes: scopes})
}

func (a *admin) send(token, method, target, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	a.handler.ServeHTTP(w, r)
	return w
}

var adminRule = m2mauth.AllScopes("revoke:tokens")

func TestAdminsListRevokeAndUndo(t *testing.T) {
	t.Parallel()
	a := newAdmin(t, adminRule, revocation.Options{})
	token := a.token("ops", "revoke:tokens")
	claims := claimsOf(t, a.issuer, m2mauthtest.Token{AppID: "leaked"})
	assert.JSONEq(t, `{"entries":[]}`, a.send(token, "GET", "/admin/", "").Body.String())

	w := a.send(token, "POST", "/admin/", `{"client":"leaked","reason":"its secret is public"}`)
	require.Equal(t, 201, w.Code, w.Body)
	assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var e revocation.Entry
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e))
	assert.Equal(t, "ops", e.By)
	assert.Equal(t, "its secret is public", e.Reason)
	assert.Equal(t, []string{a.issuer.URL()}, e.Issuers, "by default all of the list's")
	assert.Equal(t, []revocation.Entry{e}, a.list.All())
	assert.True(t, isRevoked(t, a.list, claims))

	w = a.send(token, "GET", "/admin/", "")
	var listed struct{ Entries []revocation.Entry }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &listed))
	assert.Equal(t, a.list.All(), listed.Entries)
	assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))

	w = a.send(token, "DELETE", "/admin/"+e.ID+"?reason=a%20new%20secret", "")
	assert.Equal(t, 204, w.Code)
	assert.Empty(t, w.Body.String())
	assert.False(t, isRevoked(t, a.list, claims))
	assert.Contains(t, a.log.String(), "a new secret", "who and why is in the log")

	user := a.issuer.Sign(m2mauthtest.Token{AppID: "console", Audience: testguard.Shop, Scopes: []string{"revoke:tokens"}, Claims: map[string]any{"sub": "alice"}})
	w = a.send(user, "POST", "/admin/", `{"organization":"acme","subject":"bob","before":"`+time.Now().Format(time.RFC3339)+`","issuers":["`+a.issuer.URL()+`"]}`)
	require.Equal(t, 201, w.Code, w.Body)
	assert.Equal(t, "alice", a.list.All()[0].By)
}

func TestTheAdminAPIIsNeverOpen(t *testing.T) {
	t.Parallel()
	a := newAdmin(t, adminRule, revocation.Options{})
	optional := newAdmin(t, m2mauth.Optional(adminRule), revocation.Options{})
	for _, method := range []string{"GET", "POST", "DELETE", "PUT"} {
		for _, target := range []string{"/admin/", "/admin/x", "/admin/x/y"} {
			body := `{"client":"leaked"}`
			assert.Equal(t, 401, a.send("", method, target, body).Code, "not even in a dry run")
			assert.Equal(t, 401, a.send(a.token("ops", "revoke:tokens")+"A", method, target, body).Code)
			assert.Equal(t, 403, a.send(a.token("ops", "read"), method, target, body).Code)
			assert.Equal(t, 403, optional.send("", method, target, body).Code)
		}
	}
	assert.Empty(t, a.list.All())
	assert.Empty(t, optional.list.All())
	assert.Panics(t, func() { a.list.Handler(testguard.Quiet(t, a.issuer), m2mauth.Rule{}) })
	assert.Panics(t, func() { a.list.Handler(nil, adminRule) })
}

func TestTheAdminAPIRefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	a := newAdmin(t, adminRule, revocation.Options{MaxEntries: 4})
	token := a.token("ops", "revoke:tokens")
	for name, row := range map[string]struct {
		method, target, body string
		want                 int
		text                 string
	}{
		"no JSON":                       {"POST", "/admin/", "client=leaked", 400, "not an entry in JSON"},
		"no body":                       {"POST", "/admin/", "", 400, "not an entry in JSON"},
		"null":                          {"POST", "/admin/", "null", 400, "selects no tokens"},
		"an array":                      {"POST", "/admin/", "[]", 400, "not an entry in JSON"},
		"no selector":                   {"POST", "/admin/", "{}", 400, "selects no tokens"},
		"an empty selector":             {"POST", "/admin/", `{"client":""}`, 400, "selects no tokens"},
		"an unknown member":             {"POST", "/admin/", `{"client":"a","app":"b"}`, 400, "app"},
		"a member in other case":        {"POST", "/admin/", `{"Client":"a"}`, 400, "Client"},
		"a doubled member":              {"POST", "/admin/", `{"client":"a","client":"b"}`, 400, "duplicate"},
		"who":                           {"POST", "/admin/", `{"client":"a","by":"alice"}`, 400, "by"},
		"an ID":                         {"POST", "/admin/", `{"client":"a","id":"x"}`, 400, "id"},
		"a webhook's":                   {"POST", "/admin/", `{"client":"a","webhook":true}`, 400, "webhook"},
		"a wrong type":                  {"POST", "/admin/", `{"client":1}`, 400, "client"},
		"a time that is none":           {"POST", "/admin/", `{"client":"a","before":"now"}`, 400, "before"},
		"a time far ahead":              {"POST", "/admin/", `{"client":"a","before":"2150-01-01T00:00:00Z"}`, 400, "ahead"},
		"another issuer":                {"POST", "/admin/", `{"client":"a","issuers":["https://other.example"]}`, 400, "Options.Issuers"},
		"two values":                    {"POST", "/admin/", `{"client":"a"}{"client":"b"}`, 400, "not an entry in JSON"},
		"not UTF-8":                     {"POST", "/admin/", "{\"client\":\"\xff\"}", 400, "not an entry in JSON"},
		"a long body":                   {"POST", "/admin/", `{"client":"a"` + strings.Repeat(" ", 16<<10) + `}`, 413, ""},
		"the caller's own client":       {"POST", "/admin/", `{"client":"ops"}`, 409, "could not undo"},
		"all tokens":                    {"POST", "/admin/", `{"all":true}`, 409, "could not undo"},
		"an unknown ID":                 {"DELETE", "/admin/unknown", "", 404, "no such entry"},
		"a reason with a control":       {"DELETE", "/admin/unknown?reason=%0a", "", 400, "reason"},
		"undoing all":                   {"DELETE", "/admin/", "", 405, ""},
		"another method":                {"PUT", "/admin/", `{"client":"a"}`, 405, ""},
		"another path":                  {"POST", "/admin/x", `{"client":"a"}`, 405, ""},
		"a path below an entry":         {"DELETE", "/admin/a/b", "", 404, ""},
		"all tokens before a time":      {"POST", "/admin/", `{"all":true,"before":"` + time.Now().Format(time.RFC3339) + `"}`, 201, ""},
		"the caller's client until now": {"POST", "/admin/", `{"client":"ops","before":"` + time.Now().Format(time.RFC3339) + `"}`, 201, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := a.send(token, row.method, row.target, row.body)
			assert.Equal(t, row.want, w.Code, w.Body)
			assert.Contains(t, w.Body.String(), row.text)
			assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			if row.text != "" {
				var body map[string]string
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
				assert.NotEmpty(t, body["error"])
			}
		})
	}
	require.Len(t, a.list.All(), 2)
	for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded"} {
		r := httptest.NewRequest("POST", "/admin/", strings.NewReader(`{"client":"a"}`))
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		a.handler.ServeHTTP(w, r)
		assert.Equal(t, 415, w.Code)
	}
	for _, want := range []int{201, 201, 507} {
		assert.Equal(t, want, a.send(token, "POST", "/admin/", `{"client":"a"}`).Code)
	}
}

func TestTheAdminAPISaysWhenTheStoreIsAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		handle := log.Connect(0)
		a := newAdmin(t, adminRule, revocation.Options{Store: handle})
		token := a.token("ops", "revoke:tokens")
		w := a.send(token, "GET", "/admin/", "")
		assert.Equal(t, 503, w.Code, "an empty list would be a lie")
		assert.Equal(t, "1", w.Header().Get("Retry-After"))
		w = a.send(token, "DELETE", "/admin/unread", "")
		assert.Equal(t, 503, w.Code, "not found would say that it has ended")
		w = a.send(token, "POST", "/admin/", `{"client":"leaked"}`)
		assert.Equal(t, 201, w.Code, "a tool may revoke without reading all")

		handle.Set(logstore.Down)
		for _, w := range []*httptest.ResponseRecorder{
			a.send(token, "POST", "/admin/", `{"client":"leaked too"}`),
			a.send(token, "DELETE", "/admin/"+a.list.All()[0].ID, ""),
		} {
			assert.Equal(t, 503, w.Code)
			body, err := io.ReadAll(w.Body)
			require.NoError(t, err)
			assert.NotContains(t, string(body), "logstore", "what failed is for the log")
		}
		assert.Equal(t, 4, strings.Count(a.log.String(), "a request of the admin API failed"))
	})
}

// FuzzAdmin sends bodies that may be anything: none brings an entry that Revoke would not
// take, or one in another's name.
func FuzzAdmin(f *testing.F) {
	for _, seed := range []string{
		`{"client":"leaked"}`, `{"all":true,"before":"2026-01-01T00:00:00Z"}`, `{"organization":"a","subject":"b","reason":"c"}`,
		`{"client":"a","by":"b"}`, `{"issuers":["x"]}`, `null`, `{"token":"\u0000"}`,
	} {
		f.Add(seed)
	}
	a := newAdmin(f, adminRule, revocation.Options{MaxEntries: 10_000_000, MaxTokenLifetime: 366 * 24 * time.Hour})
	token := a.token("ops", "revoke:tokens")
	f.Fuzz(func(t *testing.T, body string) {
		w := a.send(token, "POST", "/admin/", body)
		if w.Code != 201 {
			assert.Contains(t, []int{400, 409, 413}, w.Code, w.Body)
			require.Empty(t, a.list.All())
			return
		}
		all := a.list.All()
		require.Len(t, all, 1)
		e := all[0]
		require.Equal(t, "ops", e.By)
		require.False(t, e.Webhook)
		require.NoError(t, a.list.Undo(t.Context(), e.ID, "ops", ""))
		again, err := a.list.Revoke(t.Context(), e)
		require.NoError(t, err)
		e.ID, e.At = again.ID, again.At
		require.Equal(t, e, again)
		require.NoError(t, a.list.Undo(t.Context(), again.ID, "ops", ""))
	})
}
