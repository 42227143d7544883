package revocation_test

import (
	"bytes"
	"context"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/revocation"
)

const (
	signingKey  = "0123456789abcdefghijABCDEFGHIJ01" // as long as Logto's
	logtoIssuer = "https://your.logto.endpoint/oidc"
	logtoDomain = "https://auth.example.com/oidc"
)

// hook is a webhook with the list that it fills and the log that it writes.
type hook struct {
	list    *revocation.List
	handler http.Handler
	buffer  bytes.Buffer // of its log
}

// log returns what the webhook logged. The list tells of each entry as well.
func (h *hook) log() (lines string) {
	for line := range strings.Lines(h.buffer.String()) {
		if !strings.Contains(line, `msg="revocation: revoked"`) && !strings.Contains(line, `msg="revocation: undone"`) {
			lines += line
		}
	}
	return lines
}

func newHook(t testing.TB, change ...func(*revocation.Options, *revocation.LogtoOptions)) *hook {
	t.Helper()
	h := new(hook)
	list := revocation.Options{MaxTokenLifetime: time.Hour, Logger: slog.New(slog.NewTextHandler(&h.buffer, nil))}
	options := revocation.LogtoOptions{Issuers: []string{logtoIssuer, logtoDomain}}
	for _, c := range change {
		c(&list, &options)
	}
	var err error
	h.list, err = revocation.New(list)
	require.NoError(t, err)
	h.handler, err = revocation.LogtoWebhook(h.list, signingKey, options)
	require.NoError(t, err)
	return h
}

// sign signs with short keys too, which GODEBUG=fips140=only forbids.
func sign(key, body string) (signature string) {
	fips140.WithoutEnforcement(func() {
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write([]byte(body))
		signature = hex.EncodeToString(mac.Sum(nil))
	})
	return signature
}

// send delivers a body as Logto does, but for what the changes make of it, and returns
// the status.
func (h *hook) send(body string, change ...func(*http.Request)) int {
	r := httptest.NewRequest("POST", "/webhooks/logto", strings.NewReader(body))
	r.Header.Set("User-Agent", "Logto (https://logto.io/)")
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Logto-Signature-Sha-256", sign(signingKey, body))
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, r)
	return w.Code
}

// held is what the list holds, sorted: what each entry selects, and its Before.
func (h *hook) held(t testing.TB) []string {
	t.Helper()
	all := []string{}
	for _, e := range h.list.All() {
		assert.ElementsMatch(t, []string{logtoIssuer, logtoDomain}, e.Issuers)
		assert.True(t, e.Webhook)
		assert.NotEmpty(t, e.By)
		assert.NotEmpty(t, e.Reason)
		assert.False(t, e.Before.IsZero())
		all = append(all, entry(e.Organization, e.Client, e.Subject, e.All, e.Before))
	}
	slices.Sort(all)
	return all
}

func entry(organization, client, subject string, all bool, before time.Time) string {
	return fmt.Sprintf("organization=%s client=%s subject=%s all=%t before=%s", organization, client, subject, all, before.UTC().Format(time.RFC3339Nano))
}

// at is a createdAt that long ago, as Logto writes it.
func at(ago time.Duration) string {
	return time.Now().Add(-ago).UTC().Format("2006-01-02T15:04:05.000Z")
}

// event is a delivery of two seconds ago: the members that all have, and those given.
func event(name, members string) string {
	return fmt.Sprintf(`{"event":%q,"createdAt":%q,"userAgent":"curl/8","ip":"::ffff:192.0.2.1",%s,"hookId":"jhcgbb09lfhk448jds1jr"}`, name, at(2*time.Second), members)
}

// call is what an event says about the call of the Management API that caused it.
func call(method, route, params string) string {
	return fmt.Sprintf(`"path":"/somewhere","method":%q,"status":200,"params":%s,"matchedRoute":%q`, method, params, route)
}

// Each event in the shape that Logto's documentation gives it, or that issues and tests of
// Logto show where the documentation does not.
func TestLogtoEventsBecomeEntries(t *testing.T) {
	t.Parallel()
	const user = `"data":{"id":"u1","username":null,"primaryEmail":"a@example.com","customData":{"id":"u9","isSuspended":false},"isSuspended":%t,"createdAt":1795207087000}`
	suspended, reactivated := fmt.Sprintf(user, true), fmt.Sprintf(user, false)
	ids := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("%012d", i)
		}
		text, _ := json.Marshal(list)
		return string(text)
	}
	for name, test := range map[string]struct {
		event, members string
		status         int
		want           []string // organization, client, subject
		logged         string
	}{
		"a user is deleted":                        {"User.Deleted", call("DELETE", "/users/:userId", `{"userId":"u1"}`) + "," + reactivated, 204, []string{"//u1"}, ""},
		"a user is deleted, in older versions":     {"User.Deleted", call("DELETE", "/users/:userId", `{"userId":"u1"}`) + `,"data":null`, 204, []string{"//u1"}, ""},
		"a user is deleted, without its ID":        {"User.Deleted", call("DELETE", "/users/:userId", `{}`) + `,"data":null`, 500, nil, "level=ERROR"},
		"a user is deleted, with an empty ID":      {"User.Deleted", `"data":{"id":""}`, 500, nil, "level=ERROR"},
		"a user is deleted, with a number for ID":  {"User.Deleted", `"data":{"id":1}`, 500, nil, "level=ERROR"},
		"a user is deleted, with a list for data":  {"User.Deleted", `"data":["u1"]`, 500, nil, "level=ERROR"},
		"a user is suspended":                      {"User.SuspensionStatus.Updated", call("PATCH", "/users/:userId/is-suspended", `{"userId":"u1"}`) + "," + suspended, 204, []string{"//u1"}, ""},
		"a user is reactivated":                    {"User.SuspensionStatus.Updated", call("PATCH", "/users/:userId/is-suspended", `{"userId":"u1"}`) + "," + reactivated, 204, nil, ""},
		"a suspension that does not say which":     {"User.SuspensionStatus.Updated", `"data":{"id":"u1"}`, 204, []string{"//u1"}, ""},
		"a suspension that says it oddly":          {"User.SuspensionStatus.Updated", `"data":{"id":"u1","isSuspended":"false"}`, 204, []string{"//u1"}, ""},
		"a suspension without ID":                  {"User.SuspensionStatus.Updated", `"data":{"isSuspended":true}`, 500, nil, "level=ERROR"},
		"a suspension without data":                {"User.SuspensionStatus.Updated", `"data":null`, 500, nil, "level=ERROR"},
		"a reactivation without ID takes nothing":  {"User.SuspensionStatus.Updated", `"data":{"isSuspended":false}`, 204, nil, ""},
		"a user leaves an organization":            {"Organization.Membership.Updated", call("DELETE", "/organizations/:id/users/:userId", `{"id":"o1","userId":"u1"}`) + `,"organizationId":"o1","removedUserIds":["u1"],"data":null`, 204, []string{"o1//u1"}, ""},
		"an app leaves an organization":            {"Organization.Membership.Updated", call("DELETE", "/organizations/:id/applications/:applicationId", `{"id":"o1","applicationId":"a1"}`) + `,"organizationId":"o1","removedApplicationIds":["a1"]`, 204, []string{"o1/a1/"}, ""},
		"a user leaves, in older versions":         {"Organization.Membership.Updated", call("DELETE", "/organizations/:id/users/:userId", `{"id":"o1","userId":"u1"}`) + `,"organizationId":"o1"`, 204, []string{"o1//u1"}, ""},
		"an app leaves, in older versions":         {"Organization.Membership.Updated", call("DELETE", "/organizations/:id/applications/:applicationId", `{"id":"o1","applicationId":"a1"}`) + `,"organizationId":"o1"`, 204, []string{"o1/a1/"}, ""},
		"users are replaced":                       {"Organization.Membership.Updated", call("PUT", "/organizations/:id/users", `{"id":"o1"}`) + `,"organizationId":"o1","addedUserIds":["u3"],"removedUserIds":["u1","u2"]`, 204, []string{"o1//u1", "o1//u2"}, ""},
		"apps are replaced":                        {"Organization.Membership.Updated", call("PUT", "/organizations/:id/applications", `{"id":"o1"}`) + `,"organizationId":"o1","addedApplicationIds":["b"],"removedApplicationIds":["a"]`, 204, []string{"o1/a/"}, ""},
		"users are replaced, and none left":        {"Organization.Membership.Updated", call("PUT", "/organizations/:id/users", `{"id":"o1"}`) + `,"organizationId":"o1","addedUserIds":["u3"]`, 204, nil, ""},
		"users are replaced, in older versions":    {"Organization.Membership.Updated", call("PUT", "/organizations/:id/users", `{"id":"o1"}`) + `,"organizationId":"o1"`, 204, []string{"o1//"}, "level=WARN"},
		"members leave in a way that is not known": {"Organization.Membership.Updated", call("PATCH", "/organizations/:id/users", `{"id":"o1"}`) + `,"organizationId":"o1"`, 204, []string{"o1//"}, "level=WARN"},
		"users are added":                          {"Organization.Membership.Updated", call("POST", "/organizations/:id/users", `{"id":"o1"}`) + `,"organizationId":"o1","addedUserIds":["u1"]`, 204, nil, ""},
		"users are added, in older versions":       {"Organization.Membership.Updated", call("POST", "/organizations/:id/users", `{"id":"o1"}`) + `,"organizationId":"o1"`, 204, nil, ""},
		"an invitation is accepted":                {"Organization.Membership.Updated", call("PUT", "/organization-invitations/:id/status", `{"id":"i1"}`) + `,"organizationId":"o1"`, 204, nil, ""},
		"a user joins while signing in":            {"Organization.Membership.Updated", `"interactionEvent":"SignIn","sessionId":"s","organizationId":"o1"`, 204, nil, ""},
		"members leave no organization":            {"Organization.Membership.Updated", `"organizationId":"","removedUserIds":["u1"]`, 500, nil, "level=ERROR"},
		"members leave, and one is no ID":          {"Organization.Membership.Updated", `"organizationId":"o1","removedUserIds":["u1",2]`, 204, []string{"o1//"}, "level=WARN"},
		"members leave, and one is empty":          {"Organization.Membership.Updated", `"organizationId":"o1","removedApplicationIds":["a1",""]`, 204, []string{"o1//"}, "level=WARN"},
		"null leaves":                              {"Organization.Membership.Updated", `"organizationId":"o1","removedUserIds":null`, 204, []string{"o1//"}, "level=WARN"},
		"an empty list leaves":                     {"Organization.Membership.Updated", `"organizationId":"o1","removedUserIds":[]`, 204, nil, ""},
		"5,000 users leave":                        {"Organization.Membership.Updated", `"organizationId":"o1","removedUserIds":` + ids(5000), 204, []string{"o1//"}, "level=WARN"},
		"5,000 apps leave, and a user":             {"Organization.Membership.Updated", `"organizationId":"o1","removedUserIds":["u1"],"removedApplicationIds":` + ids(5000), 204, []string{"o1//"}, "level=WARN"},
		"an organization is deleted":               {"Organization.Deleted", call("DELETE", "/organizations/:id", `{"id":"o1"}`) + `,"data":null`, 204, []string{"o1//"}, ""},
		"an organization is deleted, without ID":   {"Organization.Deleted", `"data":null`, 500, nil, "level=ERROR"},
		"a role is deleted":                        {"Role.Deleted", call("DELETE", "/roles/:id", `{"id":"r1"}`) + `,"data":null`, 204, nil, "level=WARN"},
		"a role loses a permission":                {"Role.Scopes.Updated", call("DELETE", "/roles/:id/scopes/:scopeId", `{"id":"r1","scopeId":"s1"}`) + `,"data":[]`, 204, nil, "level=WARN"},
		"a role gets a permission":                 {"Role.Scopes.Updated", call("POST", "/roles/:id/scopes", `{"id":"r1"}`) + `,"data":[{"id":"s1","name":"read"}]`, 204, nil, ""},
		"a permission is deleted":                  {"Scope.Deleted", call("DELETE", "/resources/:resourceId/scopes/:scopeId", `{}`), 204, nil, "level=WARN"},
		"an organization role is deleted":          {"OrganizationRole.Deleted", call("DELETE", "/organization-roles/:id", `{"id":"r1"}`), 204, nil, "level=WARN"},
		"permissions of an organization role":      {"OrganizationRole.Scopes.Updated", call("PUT", "/organization-roles/:id/scopes", `{"id":"r1"}`), 204, nil, "level=WARN"},
		"an organization's permission is deleted":  {"OrganizationScope.Deleted", call("DELETE", "/organization-scopes/:id", `{"id":"s1"}`), 204, nil, "level=WARN"},
		"a user signs in":                          {"PostSignIn", `"userId":"u1","user":{"id":"u1","isSuspended":true}`, 204, nil, ""},
		"a user is created":                        {"User.Created", suspended, 204, nil, ""},
		"a user changes":                           {"User.Data.Updated", suspended, 204, nil, ""},
		"an organization is created":               {"Organization.Created", `"data":{"id":"o1"}`, 204, nil, ""},
		"an identifier is locked out":              {"Identifier.Lockout", `"type":"email","value":"a@example.com"`, 204, nil, ""},
		"an event of the future":                   {"Application.Deleted", `"data":{"id":"a1"}`, 204, nil, ""},
		"a name in other letters":                  {"user.deleted", suspended, 204, nil, ""},
		// What the button "Send test payload" of Logto's console sends.
		"a test of a deletion":    {"User.Deleted", `"path":"/fake-path/:id","method":"POST","status":200,"params":{"id":"fake-id"},"data":{"result":"success"}`, 204, nil, "level=INFO"},
		"a test of a membership":  {"Organization.Membership.Updated", `"path":"/fake-path/:id","method":"POST","status":200,"params":{"id":"fake-id"},"data":{"result":"success"}`, 204, nil, "level=INFO"},
		"a test of a role":        {"Role.Deleted", `"path":"/fake-path/:id","method":"POST","status":200,"params":{"id":"fake-id"},"data":{"result":"success"}`, 204, nil, "level=INFO"},
		"a test of another event": {"User.Created", `"path":"/fake-path/:id","method":"POST","status":200,"params":{"id":"fake-id"},"data":{"result":"success"}`, 204, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHook(t)
				body := event(test.event, test.members)
				want := []string{}
				for _, w := range test.want {
					part := strings.Split(w, "/")
					want = append(want, entry(part[0], part[1], part[2], false, time.Now().Add(-2*time.Second)))
				}
				assert.Equal(t, test.status, h.send(body))
				assert.Equal(t, want, h.held(t))
				if test.logged == "" {
					assert.Empty(t, h.log())
				} else {
					assert.Equal(t, 1, strings.Count(h.log(), "\n"), h.log())
					assert.Contains(t, h.log(), test.logged)
				}
				if test.status == 500 {
					assert.Contains(t, h.log(), "names nobody")
				}
				time.Sleep(time.Second)
				assert.Equal(t, test.status, h.send(body), "sent again")
				assert.Equal(t, want, h.held(t), "the same delivery twice is one entry")
				assert.NotContains(t, h.log(), sign(signingKey, body))
				assert.NotContains(t, h.log(), signingKey)
				assert.NotContains(t, h.log(), "192.0.2.1")
			})
		})
	}
}

func TestLogtoMembersUpTo4999AreNamedOneByOne(t *testing.T) {
	t.Parallel()
	h := newHook(t)
	users := make([]string, 4999)
	for i := range users {
		users[i] = fmt.Sprintf("%012d", i)
	}
	list, err := json.Marshal(users)
	require.NoError(t, err)
	body := event("Organization.Membership.Updated", `"organizationId":"o1","removedUserIds":`+string(list))
	assert.Equal(t, 204, h.send(body))
	assert.Equal(t, 204, h.send(body))
	held := h.held(t)
	require.Len(t, held, len(users))
	assert.Contains(t, held[4998], "organization=o1 client= subject=000000004998 ")
}

func TestLogtoRoleEventsTakeAllTokensBackIfSetSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHook(t, func(_ *revocation.Options, o *revocation.LogtoOptions) { o.RevokeAllOnRoleEvents = true })
		assert.Equal(t, 204, h.send(event("Role.Scopes.Updated", call("POST", "/roles/:id/scopes", `{"id":"r1"}`))))
		assert.Empty(t, h.held(t), "a permission more takes none away")
		assert.Equal(t, 204, h.send(event("Role.Deleted", call("DELETE", "/roles/:id", `{"id":"r1"}`))))
		assert.Equal(t, []string{entry("", "", "", true, time.Now().Add(-2*time.Second))}, h.held(t))
		assert.Contains(t, h.log(), "level=WARN")
	})
}

func TestLogtoMembershipWithoutListsIsNoChangeIfSetSo(t *testing.T) {
	t.Parallel()
	h := newHook(t, func(_ *revocation.Options, o *revocation.LogtoOptions) { o.MembersListed = true })
	assert.Equal(t, 204, h.send(event("Organization.Membership.Updated", call("PUT", "/organizations/:id/users", `{"id":"o1"}`)+`,"organizationId":"o1"`)))
	assert.Empty(t, h.held(t))
	assert.Empty(t, h.log())
	assert.Equal(t, 204, h.send(event("Organization.Membership.Updated", call("DELETE", "/organizations/:id/users/:userId", `{"id":"o1","userId":"u1"}`)+`,"organizationId":"o1"`)))
	assert.Len(t, h.held(t), 1, "a removal always counts")
}

// What comes before the time of the event is taken back, and a time that is missing or
// odd takes back more, never less.
func TestLogtoCreatedAt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		createdAt string // JSON
		want      time.Duration
		none      bool
		logged    string
	}{
		"an hour ago":              {`"1999-12-31T23:00:00.123Z"`, -time.Hour + 123*time.Millisecond, false, ""},
		"in another zone":          {`"2000-01-01T01:59:00+02:00"`, -time.Minute, false, ""},
		"five minutes ahead":       {`"2000-01-01T00:05:00Z"`, 5 * time.Minute, false, ""},
		"a year ahead":             {`"2001-01-01T00:00:00Z"`, 10 * time.Minute, false, "level=ERROR"},
		"in the year 9999":         {`"9999-12-31T23:59:59Z"`, 10 * time.Minute, false, "level=ERROR"},
		"missing":                  {``, time.Minute, false, "level=ERROR"},
		"null":                     {`null`, time.Minute, false, "level=ERROR"},
		"a number":                 {`946684800000`, time.Minute, false, "level=ERROR"},
		"no date":                  {`"yesterday"`, time.Minute, false, "level=ERROR"},
		"empty":                    {`""`, time.Minute, false, "level=ERROR"},
		"without zone":             {`"2000-01-01T00:00:00"`, time.Minute, false, "level=ERROR"},
		"the year one":             {`"0001-01-01T00:00:00Z"`, 0, true, ""},
		"before any token alive":   {`"1999-12-31T22:00:00Z"`, 0, true, ""},
		"a year ago":               {`"1999-01-01T00:00:00Z"`, 0, true, ""},
		"while a token may live":   {`"1999-12-31T22:59:45Z"`, -time.Hour - 15*time.Second, false, ""},
		"ten minutes after, still": {`"1999-12-31T22:50:00Z"`, -time.Hour - 10*time.Minute, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHook(t)
				member := `"createdAt":` + test.createdAt + `,`
				if test.createdAt == "" {
					member = ""
				}
				assert.Equal(t, 204, h.send(`{`+member+`"event":"User.Deleted","data":{"id":"u1"}}`))
				want := []string{}
				if !test.none {
					want = append(want, entry("", "", "u1", false, time.Now().Add(test.want)))
				}
				assert.Equal(t, want, h.held(t))
				if test.logged == "" {
					assert.Empty(t, h.log())
				} else {
					assert.Contains(t, h.log(), test.logged)
				}
			})
		})
	}
}

// Where the time of receipt counts, a recorded delivery that is sent all the time does not
// fill the list.
func TestLogtoReplaysWithoutATimeMakeOneEntryAMinute(t *testing.T) {
	t.Parallel()
	for _, createdAt := range []string{"", `"createdAt":"2001-01-01T00:00:00Z",`} {
		synctest.Test(t, func(t *testing.T) {
			h := newHook(t)
			for range 60 {
				assert.Equal(t, 204, h.send(`{`+createdAt+`"event":"User.Deleted","data":{"id":"u1"}}`))
				time.Sleep(3 * time.Second)
			}
			assert.Len(t, h.held(t), 3)
		})
	}
}

func TestLogtoRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	header := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[name] = values }
	}
	const signature, contentType, coding = "Logto-Signature-Sha-256", "Content-Type", "Content-Encoding"
	good := event("User.Deleted", `"data":{"id":"u1"}`)
	right := sign(signingKey, good)
	big := event("User.Deleted", `"data":{"id":"u1","customData":{"a":"`+strings.Repeat("x", 1<<20)+`"}}`)
	fits := event("User.Deleted", `"data":{"id":"u1"}`)
	fits += strings.Repeat(" ", 1<<20-len(fits))
	for name, test := range map[string]struct {
		body   string
		change func(*http.Request)
		status int
	}{
		"as it should be":                    {good, func(*http.Request) {}, 204},
		"GET":                                {good, func(r *http.Request) { r.Method = "GET" }, 405},
		"PUT":                                {good, func(r *http.Request) { r.Method = "PUT" }, 405},
		"HEAD":                               {good, func(r *http.Request) { r.Method = "HEAD" }, 405},
		"no content type":                    {good, header(contentType), 415},
		"two content types":                  {good, header(contentType, "application/json", "application/json"), 415},
		"a form":                             {good, header(contentType, "application/x-www-form-urlencoded"), 415},
		"a content type that does not parse": {good, header(contentType, "application/json; ="), 415},
		"with a charset":                     {good, header(contentType, "application/json; charset=utf-8"), 204},
		"in capitals":                        {good, header(contentType, "Application/JSON"), 204},
		"gzip":                               {good, header(coding, "gzip"), 415},
		"gzip, and identity":                 {good, header(coding, "identity", "gzip"), 415},
		"identity":                           {good, header(coding, "identity"), 204},
		"no signature":                       {good, header(signature), 403},
		"an empty signature":                 {good, header(signature, ""), 403},
		"two signatures, both right":         {good, header(signature, right, right), 403},
		"two signatures in one":              {good, header(signature, right+","+right), 403},
		"a signature in capitals":            {good, header(signature, strings.ToUpper(right)), 204},
		"half a signature":                   {good, header(signature, right[:32]), 403},
		"a signature and more":               {good, header(signature, right+"00"), 403},
		"no hexadecimal":                     {good, header(signature, strings.Repeat("x", 64)), 403},
		"another key":                        {good, header(signature, sign(signingKey+"!", good)), 403},
		"the empty key":                      {good, header(signature, sign("", good)), 403},
		"of another body":                    {good, header(signature, sign(signingKey, good+" ")), 403},
		"of no body":                         {good, header(signature, sign(signingKey, "")), 403},
		"a prefix":                           {good, header(signature, "sha256="+right), 403},
		"under another name":                 {good, func(r *http.Request) { r.Header.Del(signature); r.Header.Set("X-Hub-Signature-256", right) }, 403},
		"over 1 MiB":                         {big, func(*http.Request) {}, 413},
		"over 1 MiB, of a length not told":   {big, func(r *http.Request) { r.ContentLength = -1 }, 413},
		"1 MiB exactly":                      {fits, func(*http.Request) {}, 204},
		"no body":                            {"", func(*http.Request) {}, 500},
		"no JSON":                            {"{", func(*http.Request) {}, 500},
		"JSON of two values":                 {good + "{}", func(*http.Request) {}, 500},
		"no object":                          {"[" + good + "]", func(*http.Request) {}, 500},
		"null":                               {"null", func(*http.Request) {}, 500},
		"no event":                           {`{"createdAt":"2000-01-01T00:00:00Z"}`, func(*http.Request) {}, 500},
		"an event that is no string":         {`{"event":1}`, func(*http.Request) {}, 500},
		"an event twice":                     {`{"event":"User.Created","event":"User.Deleted","data":{"id":"u1"}}`, func(*http.Request) {}, 500},
		"an event twice, once escaped":       {`{"event":"User.Created","\u0065vent":"User.Deleted","data":{"id":"u1"}}`, func(*http.Request) {}, 500},
		"an ID twice":                        {event("User.Deleted", `"data":{"id":"u2","id":"u1"}`), func(*http.Request) {}, 500},
		"a member twice deep down":           {event("User.Deleted", `"data":{"id":"u1","customData":[{"a":1,"a":2}]}`), func(*http.Request) {}, 500},
		"bytes that are no UTF-8":            {event("User.Deleted", "\"data\":{\"id\":\"u1\",\"name\":\"\xff\"}"), func(*http.Request) {}, 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHook(t)
			assert.Equal(t, test.status, h.send(test.body, test.change))
			if test.status == 204 {
				assert.Len(t, h.held(t), 1)
			} else {
				assert.Empty(t, h.held(t))
				assert.NotEmpty(t, h.log())
				assert.NotContains(t, h.log(), right)
			}
			assert.NotContains(t, h.log(), "u1")
		})
	}
}

// A user may write custom data that nests deeply. It does not keep the user's own
// suspension from being read.
func TestLogtoUsersCannotHideTheirSuspension(t *testing.T) {
	t.Parallel()
	for name, custom := range map[string]string{
		"deep objects":   strings.Repeat(`{"a":`, 9900) + "1" + strings.Repeat("}", 9900),
		"deep arrays":    strings.Repeat("[", 9900) + strings.Repeat("]", 9900),
		"like the whole": `{"event":"User.Created","data":{"id":"u2","isSuspended":false},"isSuspended":false,"id":"u2"}`,
		"escapes":        `{"\u0069d":"u2","\ud83d\ude00":"\u0000"}`,
		"large":          `{"a":"` + strings.Repeat("x", 1<<20-1000) + `"}`,
	} {
		h := newHook(t)
		assert.Equal(t, 204, h.send(event("User.SuspensionStatus.Updated", `"data":{"customData":`+custom+`,"id":"u1","isSuspended":true}`)), name)
		require.Len(t, h.held(t), 1, name)
		assert.Contains(t, h.held(t)[0], "subject=u1", name)
	}
}

// readNothing is a body that nobody may read.
type readNothing struct{ t *testing.T }

func (r readNothing) Read([]byte) (int, error) {
	r.t.Error("the body was read")
	return 0, errors.New("the body was read")
}

func TestLogtoReadsNoBodyWithoutASignature(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*http.Request){
		func(r *http.Request) { r.Header.Del("Logto-Signature-Sha-256") },
		func(r *http.Request) { r.Header.Set("Content-Encoding", "br") },
		func(r *http.Request) { r.ContentLength = 1<<20 + 1 },
		func(r *http.Request) { r.Method = "DELETE" },
	} {
		h := newHook(t)
		assert.GreaterOrEqual(t, h.send("", change, func(r *http.Request) { r.Body = io.NopCloser(readNothing{t}) }), 400)
	}
}

// 1,000 deliveries, good and bad, in any order and often again: the list holds what the
// good ones say, each once.
func TestLogtoDeliveriesOfAllKinds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 16))
			h := newHook(t)
			want := make(map[string]bool)
			type delivery struct {
				body    string
				entries []string
			}
			var good []delivery
			pick := func(prefix string) string { return fmt.Sprintf("%s%d", prefix, random.IntN(5)) }
			damage := map[string]func(r *http.Request, body []byte) []byte{
				"another key": func(r *http.Request, body []byte) []byte {
					r.Header.Set("Logto-Signature-Sha-256", sign(pick("another key of attackers "), string(body)))
					return body
				},
				"no key": func(r *http.Request, body []byte) []byte {
					r.Header.Set("Logto-Signature-Sha-256", sign("", string(body)))
					return body
				},
				"no signature": func(r *http.Request, body []byte) []byte {
					r.Header.Del("Logto-Signature-Sha-256")
					return body
				},
				"the hash alone": func(r *http.Request, body []byte) []byte {
					sum := sha256.Sum256(body)
					r.Header.Set("Logto-Signature-Sha-256", hex.EncodeToString(sum[:]))
					return body
				},
				"a bit of the signature": func(r *http.Request, body []byte) []byte {
					mac, _ := hex.DecodeString(r.Header.Get("Logto-Signature-Sha-256"))
					mac[random.IntN(len(mac))] ^= 1 << random.IntN(8)
					r.Header.Set("Logto-Signature-Sha-256", hex.EncodeToString(mac))
					return body
				},
				"a bit of the body": func(_ *http.Request, body []byte) []byte {
					body[random.IntN(len(body))] ^= 1 << random.IntN(8)
					return body
				},
				"cut":          func(_ *http.Request, body []byte) []byte { return body[:random.IntN(len(body))] },
				"more":         func(_ *http.Request, body []byte) []byte { return append(body, ' ') },
				"another hook": func(_ *http.Request, body []byte) []byte { return bytes.Replace(body, []byte(`"h"`), []byte(`"i"`), 1) },
				"another event": func(_ *http.Request, body []byte) []byte {
					return bytes.Replace(body, []byte("event"), []byte("Event"), 1)
				},
				"a later time": func(_ *http.Request, body []byte) []byte { return bytes.Replace(body, []byte("Z"), []byte("z"), 1) },
				"compressed": func(r *http.Request, body []byte) []byte {
					r.Header.Set("Content-Encoding", "gzip")
					return body
				},
			}
			kinds := make([]string, 0, len(damage))
			for kind := range damage {
				kinds = append(kinds, kind)
			}
			slices.Sort(kinds)
			for n := range 200 {
				when := time.Now().Add(-time.Duration(random.IntN(60*60)) * time.Second)
				event := func(name, members string) string {
					return fmt.Sprintf(`{"hookId":"h","event":%q,"createdAt":%q,%s}`, name, when.UTC().Format("2006-01-02T15:04:05.000Z"), members)
				}
				var d delivery
				switch user, app, org := pick("u"), pick("a"), pick("o"); random.IntN(6) {
				case 0:
					d = delivery{event("User.Deleted", `"data":{"id":"`+user+`"}`), []string{entry("", "", user, false, when)}}
				case 1:
					d = delivery{event("User.SuspensionStatus.Updated", `"data":{"id":"`+user+`","isSuspended":true}`), []string{entry("", "", user, false, when)}}
				case 2: // which undoes nothing
					d = delivery{event("User.SuspensionStatus.Updated", `"data":{"id":"`+user+`","isSuspended":false}`), nil}
				case 3:
					d = delivery{event("Organization.Membership.Updated", `"organizationId":"`+org+`","removedUserIds":["`+user+`"],"removedApplicationIds":["`+app+`"]`),
						[]string{entry(org, "", user, false, when), entry(org, app, "", false, when)}}
				case 4: // which undoes nothing either
					d = delivery{event("Organization.Membership.Updated", `"organizationId":"`+org+`","addedUserIds":["`+user+`"]`), nil}
				case 5:
					d = delivery{event("User.Created", `"data":{"id":"`+user+`"}`), nil}
				}
				switch random.IntN(3) {
				case 0:
					require.Equal(t, 204, h.send(d.body), d.body)
					good = append(good, d)
				case 1:
					kind := kinds[random.IntN(len(kinds))]
					code := h.send(d.body, func(r *http.Request) {
						body := damage[kind](r, []byte(d.body))
						r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
					})
					require.GreaterOrEqual(t, code, 400, "%d: %s: %s", n, kind, d.body)
					d.entries = nil
				case 2: // an old one again, out of order
					if len(good) == 0 {
						continue
					}
					d = good[random.IntN(len(good))]
					require.Equal(t, 204, h.send(d.body), d.body)
				}
				for _, e := range d.entries {
					want[e] = true
				}
				expected := []string{}
				for e := range want {
					expected = append(expected, e)
				}
				slices.Sort(expected)
				require.Equal(t, expected, h.held(t), "seed %d, delivery %d", seed, n)
			}
			require.NotEmpty(t, want)
		})
	}
}

func TestLogtoReplaysOfAnOldDeliveryBringNothingBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHook(t)
		suspension := event("User.SuspensionStatus.Updated", `"data":{"id":"u1","isSuspended":true}`)
		time.Sleep(time.Minute)
		reactivation := event("User.SuspensionStatus.Updated", `"data":{"id":"u1","isSuspended":false}`)
		require.Equal(t, 204, h.send(suspension))
		require.Equal(t, 204, h.send(reactivation))
		held := h.held(t)
		require.Len(t, held, 1, "a webhook undoes nothing")
		require.NoError(t, h.list.Undo(t.Context(), h.list.All()[0].ID, "an operator", ""))
		require.Equal(t, 204, h.send(suspension))
		assert.Empty(t, h.held(t), "what a person undid stays so")
		time.Sleep(3 * time.Hour)
		require.Equal(t, 204, h.send(suspension))
		assert.Empty(t, h.held(t), "no token is that old")
	})
}

// failing is a store that takes nothing, or if err is nil, all of whose caller waits.
type failing struct {
	err     error
	appends atomic.Int32
}

func (f *failing) Append(ctx context.Context, _ ...[]byte) error {
	f.appends.Add(1)
	return errors.Join(f.err, ctx.Err())
}

func (f *failing) Since(_ context.Context, position string) (revocation.Page, error) {
	return revocation.Page{Next: position}, f.err
}

func (f *failing) Watch(ctx context.Context, _ string) error {
	<-ctx.Done()
	return nil
}

func TestLogtoIsToldToSendAgainWhatTheListDidNotTake(t *testing.T) {
	t.Parallel()
	store := &failing{err: errors.New("away")}
	h := newHook(t, func(o *revocation.Options, _ *revocation.LogtoOptions) { o.Store = store })
	body := event("Organization.Membership.Updated", `"organizationId":"o1","removedUserIds":["`+strings.Join(strings.Split(strings.Repeat("u", 1000), ""), `","`)+`"]`)
	assert.Equal(t, 503, h.send(body))
	assert.Equal(t, 1, strings.Count(h.log(), "\n"))
	assert.Contains(t, h.log(), "level=ERROR")
	assert.NotContains(t, h.log(), signingKey)
	assert.Less(t, store.appends.Load(), int32(100), "what failed once is not tried for each")

	h = newHook(t, func(o *revocation.Options, _ *revocation.LogtoOptions) { o.MaxEntries = 4 })
	for n := range 3 {
		assert.Equal(t, 204, h.send(event("User.Deleted", fmt.Sprintf(`"data":{"id":"u%d"}`, n))))
	}
	assert.Empty(t, h.log())
	assert.Equal(t, 503, h.send(event("User.Deleted", `"data":{"id":"u3"}`)), "the rest is for people")
	assert.Contains(t, h.log(), "level=ERROR")
	assert.Len(t, h.held(t), 3)
}

// Logto waits for 10 seconds, and does not send again what it gave up on.
func TestLogtoWhoLeavesBeforeTheEndStopsNothing(t *testing.T) {
	t.Parallel()
	h := newHook(t, func(o *revocation.Options, _ *revocation.LogtoOptions) { o.Store = new(failing) })
	assert.Equal(t, 204, h.send(event("User.Deleted", `"data":{"id":"u1"}`), func(r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		*r = *r.WithContext(ctx)
	}))
	assert.Len(t, h.held(t), 1)
}

func TestLogtoSaysWhichMethodItTakes(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	newHook(t).handler.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	assert.Equal(t, "POST", w.Header().Get("Allow")) // RFC 9110 §15.5.6
}

// One member that no entry can name keeps no other from being taken back.
func TestLogtoAnIDThatIsTooLongHidesNoOther(t *testing.T) {
	t.Parallel()
	h := newHook(t)
	assert.Equal(t, 500, h.send(event("Organization.Membership.Updated", `"organizationId":"o1","removedUserIds":["`+strings.Repeat("x", 5000)+`","u1"]`)))
	require.Len(t, h.held(t), 1)
	assert.Contains(t, h.held(t)[0], "organization=o1 client= subject=u1")
	assert.Contains(t, h.log(), "level=ERROR")
	assert.NotContains(t, h.log(), "xxx")
}

// Whoever sends nonsense to an open endpoint writes a line a minute, and each reason has
// its own.
func TestLogtoRefusalsAreLoggedOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHook(t)
		lines := func() int { return strings.Count(h.log(), "\n") }
		forge := func(r *http.Request) { r.Header.Set("Logto-Signature-Sha-256", strings.Repeat("0", 64)) }
		for range 100 {
			h.send("{}", forge)
		}
		assert.Equal(t, 1, lines())
		assert.Contains(t, h.log(), "level=WARN")
		h.send("{}", func(r *http.Request) { r.Method = "GET" })
		assert.Equal(t, 2, lines())
		time.Sleep(61 * time.Second)
		h.send("{}", forge)
		assert.Equal(t, 3, lines())
	})
}

func TestLogtoSetUpNamesEveryMistake(t *testing.T) {
	t.Parallel()
	list, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour})
	require.NoError(t, err)
	only, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour, Issuers: []string{logtoIssuer}})
	require.NoError(t, err)
	good := revocation.LogtoOptions{Issuers: []string{logtoIssuer}}
	for _, test := range []struct {
		name    string
		list    *revocation.List
		key     string
		options revocation.LogtoOptions
		want    []string
	}{
		{"all is well", list, signingKey, good, nil},
		{"no key", list, "", good, []string{"the signing key"}},
		{"a short key", list, "0123456789abcde", good, []string{"the signing key"}},
		{"a line break after the key", list, signingKey + "\n", good, []string{"the signing key"}},
		{"no list", nil, signingKey, good, []string{"the list"}},
		{"no issuer", list, signingKey, revocation.LogtoOptions{}, []string{"Issuers"}},
		{"an empty issuer", list, signingKey, revocation.LogtoOptions{Issuers: []string{""}}, []string{"Issuers"}},
		{"an issuer that the list does not take", only, signingKey, revocation.LogtoOptions{Issuers: []string{logtoIssuer, logtoDomain}}, []string{"Issuers"}},
		{"nothing is right", nil, "", revocation.LogtoOptions{}, []string{"the list", "the signing key", "Issuers"}},
	} {
		handler, err := revocation.LogtoWebhook(test.list, test.key, test.options)
		if test.want == nil {
			assert.NoError(t, err, test.name)
			assert.NotNil(t, handler, test.name)
			continue
		}
		assert.Nil(t, handler, test.name)
		for _, want := range test.want {
			assert.ErrorContains(t, err, want, test.name)
		}
		if test.key != "" {
			assert.NotContains(t, err.Error(), test.key[:15], test.name)
		}
	}
}

// The issuers of the options are the caller's: changing them later changes nothing.
func TestLogtoDoesNotShareItsOptions(t *testing.T) {
	t.Parallel()
	issuers := []string{logtoIssuer, logtoDomain}
	h := newHook(t, func(_ *revocation.Options, o *revocation.LogtoOptions) { o.Issuers = issuers })
	issuers[0] = "https://elsewhere.example"
	assert.Equal(t, 204, h.send(event("User.Deleted", `"data":{"id":"u1"}`)))
	assert.Len(t, h.held(t), 1)
}

func TestLogtoDeliveriesAtOnce(t *testing.T) {
	t.Parallel()
	h := newHook(t)
	bodies := make([]string, 20)
	for i := range bodies {
		bodies[i] = event("User.Deleted", fmt.Sprintf(`"data":{"id":"u%d"}`, i))
	}
	var all sync.WaitGroup
	for range 5 {
		for _, body := range bodies {
			all.Go(func() {
				assert.Equal(t, 204, h.send(body))
				h.send(body, func(r *http.Request) { r.Header.Del("Logto-Signature-Sha-256") })
			})
		}
	}
	all.Wait()
	assert.Len(t, h.held(t), len(bodies))
}

// From Logto's delivery to a rejected token: the user's tokens of before are rejected at
// both domains, those of others and later ones are not.
func TestLogtoEventRejectsTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		h := newHook(t, func(_ *revocation.Options, o *revocation.LogtoOptions) { o.Issuers = []string{issuer.URL()} })
		config := issuer.Config("https://shopping.api")
		config.Logger = slog.New(slog.DiscardHandler)
		config.Revoked = h.list.Revoked
		config.InsecureAllowOrganizationTokens = true // no route names an organization here
		guard, err := m2mauth.New(config)
		require.NoError(t, err)
		token := func(user, organization string) string {
			return issuer.Sign(m2mauthtest.Token{AppID: "spa", Audience: "https://shopping.api", OrganizationID: organization, Claims: map[string]any{"sub": user}})
		}
		old, member, other := token("u1", ""), token("u2", "o1"), token("u2", "")
		check := func(token string) error {
			_, err := guard.Verify(t.Context(), token)
			return err
		}
		time.Sleep(10 * time.Second)
		for _, token := range []string{old, member, other} {
			require.NoError(t, check(token))
		}
		require.Equal(t, 204, h.send(event("User.Deleted", `"data":{"id":"u1"}`)))
		require.Equal(t, 204, h.send(event("Organization.Membership.Updated", `"organizationId":"o1","removedUserIds":["u2"]`)))
		assert.ErrorIs(t, check(old), m2mauth.ErrRevoked)
		assert.ErrorIs(t, check(member), m2mauth.ErrRevoked)
		assert.NoError(t, check(other), "the user's other tokens are not the organization's")
		time.Sleep(time.Minute)
		assert.NoError(t, check(token("u1", "")), "a token of later")
	})
}
