// Package attacks runs published attacks against a way into a guard. The attacks
// are the files of testdata/attacks, each with its source, its bytes and the
// answer that it must get, and families that are computed from a good token: its
// truncations, its flipped bits and so on.
//
// It is for tests only, of the core and of the adapters, and uses the public API.
package attacks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	corpus "github.com/m2mauth/m2mauth/testdata/attacks"
)

const (
	issuerURL = "https://issuer.test/oidc"
	audience  = "https://shopping.api"
)

// attack is one file. Its fields are as follows.
type attack struct {
	Source []string // CVE, GHSA, section of an RFC, paper, or issue of another project
	Attack string   // in a sentence
	Clock  int64    // in seconds since 1970

	Config struct{ Algorithms []string }
	Keys   json.RawMessage            // the issuer's key set
	Server map[string]json.RawMessage // what the issuer answers otherwise, by path: a reply

	// Control is a token that is good under Config and Keys on a route for
	// ControlScopes (Scopes, if there are none). It is sent first, so that the
	// refusal of the attack is due to the attack, and the control is remembered.
	Control       string
	ControlScopes []string        `json:"control_scopes"`
	LaterKeys     json.RawMessage `json:"later_keys"` // the key set after the control, 20 minutes on

	Target        string // of the request, "/products" if empty
	Body          string
	Header        http.Header
	Authorization []string // the fields, byte by byte
	Scopes        []string // that the route requires, all of them
	Rule          string   // that the route has in their place: a name in rules

	Status int     // of the answer
	Error  string  // the error code of the body
	Kind   string  // the sentinel of the error; "" = accepted
	Verify *string // the sentinel where Guard.Verify is asked about the token alone, if it differs
	Logged string  // stands in the log, so that an attack on the log is known to get there
}

// rules are those that attacks name, besides scopes.
var rules = map[string]m2mauth.Rule{
	"MachineToken()": m2mauth.MachineToken(), "UserToken()": m2mauth.UserToken(), `ClientID("billing")`: m2mauth.ClientID("billing"),
	`OrganizationHeader("X-Organization")`: m2mauth.OrganizationHeader("X-Organization"),
}

type reply struct {
	Status int
	Header map[string]string
	Body   string
	Spaces int // that follow the body
}

// A Request is what an [Entry] has to send.
type Request struct {
	Guard *m2mauth.Guard
	HTTP  *http.Request
	Token string       // what follows "Bearer " if there is one Authorization field, otherwise ""
	Rule  m2mauth.Rule // of the route
}

// An Answer is what came of it. What an entry does not have stays zero.
type Answer struct {
	Claims m2mauth.Claims // that the handler, or the caller, got
	Err    error          // of the guard
	Status int            // HTTP's, or that which the entry's own stands for
	Code   string         // the error code, where it does not stand in a Body
	Text   string         // what else the caller is told
	Header http.Header
	Body   []byte
}

// An Entry is a way into a guard.
type Entry struct {
	// TokenAlone says that the entry takes a token by itself, and no route:
	// Guard.Verify.
	TokenAlone bool

	// Skip are the attacks that the entry cannot be sent, with the reasons.
	Skip map[string]string

	// Send makes a request on a route with the rule of the Request, whose handler
	// hands the claims out. It runs in a bubble of testing/synctest.
	Send func(*testing.T, Request) Answer
}

// Kinds are all kinds of error by their names.
var Kinds = map[string]error{
	"ErrNoToken": m2mauth.ErrNoToken, "ErrRequest": m2mauth.ErrRequest, "ErrMalformed": m2mauth.ErrMalformed,
	"ErrAlgorithm": m2mauth.ErrAlgorithm, "ErrType": m2mauth.ErrType, "ErrIssuer": m2mauth.ErrIssuer,
	"ErrAudience": m2mauth.ErrAudience, "ErrExpired": m2mauth.ErrExpired, "ErrNotYetValid": m2mauth.ErrNotYetValid,
	"ErrClaims": m2mauth.ErrClaims, "ErrUnknownKey": m2mauth.ErrUnknownKey, "ErrSignature": m2mauth.ErrSignature,
	"ErrRevoked": m2mauth.ErrRevoked, "ErrScope": m2mauth.ErrScope, "ErrForbidden": m2mauth.ErrForbidden, "ErrBusy": m2mauth.ErrBusy,
	"ErrUnavailable": m2mauth.ErrUnavailable, "ErrInternal": m2mauth.ErrInternal,
}

// Run sends every attack of the corpus by the entry, each to a guard of its own at
// its own clock.
func Run(t *testing.T, entry Entry) {
	t.Helper()
	names, err := fs.Glob(corpus.Files, "*.json")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	var sent atomic.Int32
	t.Cleanup(func() { t.Logf("%d of %d attacks sent, %d skipped by name", sent.Load(), len(names), len(entry.Skip)) })
	for name := range entry.Skip {
		require.Contains(t, names, name+".json", "skipped, and not in the corpus")
	}
	for _, file := range names {
		name := strings.TrimSuffix(file, ".json")
		if entry.Skip[name] != "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := read(t, file)
			if entry.TokenAlone && a.token() == "" {
				return // about the request and not about a token
			}
			sent.Add(1)
			synctest.Test(t, func(t *testing.T) { a.run(t, entry) })
		})
	}
}

func read(t *testing.T, name string) (a attack) {
	t.Helper()
	content, err := fs.ReadFile(corpus.Files, name)
	require.NoError(t, err)
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&a))
	require.NotEmpty(t, a.Source)
	require.NotEmpty(t, a.Attack)
	return a
}

// token is the token of an attack that is about one.
func (a attack) token() string {
	if len(a.Authorization) != 1 {
		return ""
	}
	token, ok := strings.CutPrefix(a.Authorization[0], "Bearer ")
	if !ok {
		return ""
	}
	return token
}

func (a attack) run(t *testing.T, entry Entry) {
	t.Helper()
	time.Sleep(time.Until(time.Unix(a.Clock, 0)))
	server := a.server(t)
	log := new(logbook)
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer: issuerURL, Audience: audience, Algorithms: a.Config.Algorithms,
		HTTPClient: &http.Client{Transport: server}, Logger: log.logger(),
	})
	require.NoError(t, err)

	if a.Control != "" {
		scopes := a.ControlScopes
		if scopes == nil {
			scopes = a.Scopes
		}
		assertAccepted(t, "the control", entry.Send(t, newRequest(guard, a.Control, scopes)))
	}
	if a.LaterKeys != nil {
		server.keys.Store(&a.LaterKeys)
		time.Sleep(20 * time.Minute)
	}
	answer := entry.Send(t, a.request(t, guard))
	kind, status := a.Kind, a.Status
	logged := a.Logged
	if entry.TokenAlone && a.Verify != nil {
		if kind = *a.Verify; kind == "" {
			logged = "" // there is no refusal to log
		}
	}
	if kind == "" {
		assertAccepted(t, a.Attack, answer)
	} else {
		assertRefused(t, answer, kind, status, a.Error, a.Scopes)
	}
	assert.Contains(t, log.String(), logged)
	assertQuiet(t, answer, log.String(), a.Authorization)
	assert.Zero(t, server.strays.Load(), "a URL that the token or another party names was fetched")
}

func newRequest(guard *m2mauth.Guard, token string, scopes []string) Request {
	r := httptest.NewRequest(http.MethodGet, "/products", nil)
	r.Header["Authorization"] = []string{"Bearer " + token}
	return Request{Guard: guard, HTTP: r, Token: token, Rule: m2mauth.AllScopes(scopes...)}
}

func (a attack) rule(t *testing.T) m2mauth.Rule {
	t.Helper()
	if a.Rule == "" {
		return m2mauth.AllScopes(a.Scopes...)
	}
	require.Contains(t, rules, a.Rule)
	return rules[a.Rule]
}

func (a attack) request(t *testing.T, guard *m2mauth.Guard) Request {
	t.Helper()
	target, method := a.Target, http.MethodGet
	if target == "" {
		target = "/products"
	}
	if a.Body != "" {
		method = http.MethodPost
	}
	r := httptest.NewRequest(method, target, strings.NewReader(a.Body))
	for name, values := range a.Header {
		r.Header[name] = values
	}
	if a.Authorization != nil {
		r.Header["Authorization"] = a.Authorization
	}
	return Request{Guard: guard, HTTP: r, Token: a.token(), Rule: a.rule(t)}
}

func assertAccepted(t *testing.T, what string, answer Answer) {
	t.Helper()
	require.NoError(t, answer.Err, what)
	require.False(t, answer.Claims.IsZero(), "%s: %d %s", what, answer.Status, answer.Body)
	if answer.Status != 0 {
		assert.Equal(t, http.StatusOK, answer.Status, what)
	}
}

// assertRefused checks as much of an answer as the entry has.
func assertRefused(t *testing.T, answer Answer, kind string, status int, code string, scopes []string) {
	t.Helper()
	require.Contains(t, Kinds, kind)
	assert.True(t, answer.Claims.IsZero(), "claims of a refused request")
	assert.True(t, answer.Err != nil || answer.Status != 0, "refused somehow")
	if answer.Err != nil {
		for name, sentinel := range Kinds {
			assert.Equal(t, name == kind, errors.Is(answer.Err, sentinel), "want %s, and %q is compared with %s", kind, answer.Err, name)
		}
	}
	if answer.Status != 0 {
		assert.Equal(t, status, answer.Status)
	}
	if answer.Code != "" {
		assert.Equal(t, code, answer.Code)
	}
	if answer.Header != nil {
		challenge := answer.Header.Get("WWW-Authenticate")
		switch code {
		case "temporarily_unavailable":
			assert.Empty(t, challenge)
		case "unauthorized":
			assert.Equal(t, `Bearer realm="`+audience+`", scope="`+strings.Join(scopes, " ")+`"`, challenge)
		default:
			assert.Truef(t, strings.HasPrefix(challenge, `Bearer realm="`+audience+`", error="`+code+`"`), "%s", challenge)
		}
		assert.Equal(t, "no-store", answer.Header.Get("Cache-Control"))
	}
	if answer.Body != nil {
		var body map[string]string
		require.NoError(t, json.Unmarshal(answer.Body, &body), "%s", answer.Body)
		assert.Equal(t, code, body["error"])
		assert.Len(t, body, 2)
	}
}

// assertQuiet holds that nothing of a token comes back or is logged, and that
// what is logged can neither end its line nor move a terminal's cursor.
func assertQuiet(t *testing.T, answer Answer, log string, authorization []string) {
	t.Helper()
	var header strings.Builder
	if err := answer.Header.Write(&header); err != nil {
		t.Error(err)
	}
	for name, values := range answer.Header {
		for _, value := range values {
			assert.Equal(t, printable(value), value, name)
		}
	}
	told := header.String() + string(answer.Body) + answer.Text
	assert.NotContains(t, told, "CANARY")
	if answer.Err != nil {
		assert.NotContains(t, answer.Err.Error(), "CANARY")
		assert.Equal(t, printable(answer.Err.Error()), answer.Err.Error())
	}
	for _, field := range authorization {
		parts := strings.FieldsFunc(field, func(r rune) bool { return strings.ContainsRune(` .,"`, r) })
		for _, part := range parts {
			if len(part) < 24 {
				continue
			}
			assert.NotContains(t, log, part, "a part of a token is logged")
			assert.NotContains(t, told, part, "a part of a token comes back")
		}
	}
	assert.LessOrEqual(t, len(log), 16<<10, "bytes of log for two requests")
	for line := range strings.Lines(log) {
		line = strings.TrimSuffix(line, "\n")
		assert.Equal(t, printable(line), line)
		assert.True(t, strings.HasPrefix(line, "level="), line)
	}
}

// printable is s without all but the printable characters of ASCII.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
}

// server is an [http.RoundTripper] that answers for the issuer from memory.
type server struct {
	replies map[string]reply
	keys    atomic.Pointer[json.RawMessage]
	strays  atomic.Int32 // requests to anybody else
}

func (a attack) server(t *testing.T) *server {
	t.Helper()
	s := &server{replies: map[string]reply{}}
	for path, raw := range a.Server {
		var r reply
		require.NoError(t, json.Unmarshal(raw, &r))
		s.replies[path] = r
	}
	s.keys.Store(&a.Keys)
	return s
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme+"://"+r.URL.Host != "https://issuer.test" {
		s.strays.Add(1)
		return nil, fmt.Errorf("a request for %s", r.URL)
	}
	w := httptest.NewRecorder()
	other, ok := s.replies[r.URL.Path]
	switch {
	case ok:
		for name, value := range other.Header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(other.Status)
		w.Body.WriteString(other.Body + strings.Repeat(" ", other.Spaces))
	case r.URL.Path == "/oidc/.well-known/openid-configuration":
		w.Body.WriteString(`{"issuer":"` + issuerURL + `","jwks_uri":"` + issuerURL + `/jwks"}`)
	case r.URL.Path == "/oidc/jwks":
		w.Body.Write(*s.keys.Load())
	case r.URL.Path == "/oidc/.well-known/oauth-authorization-server", r.URL.Path == "/.well-known/oauth-authorization-server/oidc":
		w.WriteHeader(http.StatusNotFound) // RFC 8414's places
	default:
		s.strays.Add(1)
		w.WriteHeader(http.StatusNotFound)
	}
	response := w.Result()
	response.Request = r
	return response, nil
}

func isKind(err error, name string) bool {
	kind, ok := Kinds[name]
	return ok && errors.Is(err, kind)
}
