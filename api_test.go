package m2mauth_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// The API as others compile against it: a changed signature does not compile here.
var _ = struct {
	new        func(m2mauth.Config) (*m2mauth.Guard, error)
	join       func(*m2mauth.Guard, ...*m2mauth.Guard) (*m2mauth.Guard, error)
	rule       func(*m2mauth.Guard, m2mauth.Rule) func(http.Handler) http.Handler
	check      func(*m2mauth.Guard, *http.Request, m2mauth.Rule) (m2mauth.Claims, error)
	request    func(*m2mauth.Guard, context.Context, m2mauth.Request, m2mauth.Rule) (m2mauth.Claims, error)
	validate   func(*m2mauth.Guard, m2mauth.Rule) error
	verify     func(*m2mauth.Guard, context.Context, string) (m2mauth.Claims, error)
	writeError func(*m2mauth.Guard, http.ResponseWriter, *http.Request, error)
	metadata   func(*m2mauth.Guard, m2mauth.MetadataConfig) (string, http.Handler)
	warm       func(*m2mauth.Guard, context.Context) error
	keys       func(*m2mauth.Guard) m2mauth.KeyStatus
	stats      func(*m2mauth.Guard) m2mauth.Stats
	custom     func(string, func(context.Context, m2mauth.Claims, m2mauth.Request) error) m2mauth.Rule
	from       func(context.Context) (m2mauth.Claims, bool)
	into       func(context.Context, m2mauth.Claims) context.Context
	response   func(*m2mauth.Error) (http.Header, []byte)
	rules      []func(...string) m2mauth.Rule
	config     m2mauth.Config
	decision   m2mauth.Decision
	outcomes   []m2mauth.Outcome
}{
	m2mauth.New, m2mauth.Join, (*m2mauth.Guard).RequireRule, (*m2mauth.Guard).Check, (*m2mauth.Guard).CheckRequest,
	(*m2mauth.Guard).ValidateRule, (*m2mauth.Guard).Verify, (*m2mauth.Guard).WriteError, (*m2mauth.Guard).Metadata,
	(*m2mauth.Guard).Warm, (*m2mauth.Guard).Keys, (*m2mauth.Guard).Stats, m2mauth.Custom, m2mauth.FromContext, m2mauth.NewContext,
	(*m2mauth.Error).Response, []func(...string) m2mauth.Rule{m2mauth.AllScopes, m2mauth.AnyScope, m2mauth.ClientID},
	m2mauth.Config{
		InsecureHTTPHosts: []string{}, InsecureAllowOrganizationTokens: true,
		QueueKey: func(m2mauth.Request) string { return "" }, IsMachine: func(m2mauth.Claims) bool { return true },
	},
	m2mauth.Decision{Claims: m2mauth.Claims{}, Outcome: m2mauth.Allowed},
	[]m2mauth.Outcome{m2mauth.Allowed, m2mauth.Anonymous, m2mauth.Outcome(m2mauth.ErrScope)},
}

func TestClaimsThatAreZeroSayNothing(t *testing.T) {
	t.Parallel()
	claims, ok := m2mauth.FromContext(context.Background())
	assert.False(t, ok)
	assert.True(t, claims.IsZero())
	for _, text := range []string{claims.AppID(), claims.Subject(), claims.ClientID(), claims.Issuer(), claims.ID(), claims.OrganizationID()} {
		assert.Empty(t, text)
	}
	assert.Empty(t, claims.Audience())
	assert.Zero(t, claims.Scopes().Len())
	assert.False(t, claims.Scopes().HasAll("read"))
	assert.True(t, claims.IssuedAt().IsZero())
	assert.True(t, claims.ExpiresAt().IsZero())
	assert.False(t, claims.IsMachine())
	assert.Error(t, claims.Decode(new(map[string]any)))
	assert.False(t, reflect.TypeFor[m2mauth.Claims]().Comparable(), "nobody is to compare what is behind it")
}

// An Error of the user's needs a kind alone, and no Error lets anybody through.
func TestErrorsOfAKindCanBeAnswered(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer)
	shared := &m2mauth.Error{Kind: m2mauth.ErrForbidden, Description: "no"}
	for name, test := range map[string]struct {
		err       error
		status    int
		code      string
		challenge string
	}{
		"a kind":                {shared, 403, "insufficient_scope", `Bearer realm="https://shopping.api", error="insufficient_scope", error_description="no"`},
		"a kind of 401":         {&m2mauth.Error{Kind: m2mauth.ErrNoToken}, 401, "unauthorized", `Bearer realm="https://shopping.api"`},
		"a status of its own":   {&m2mauth.Error{Kind: m2mauth.ErrForbidden, Status: 404, Code: "not_found"}, 404, "not_found", ""},
		"wrapped":               {fmt.Errorf("saving: %w", &m2mauth.Error{Kind: m2mauth.ErrBusy, RetryAfter: time.Second}), 429, "temporarily_unavailable", ""},
		"a kind nobody knows":   {&m2mauth.Error{Kind: "token_eaten"}, 500, "server_error", ""},
		"a status that permits": {&m2mauth.Error{Kind: m2mauth.ErrForbidden, Status: 200, Description: "no"}, 403, "insufficient_scope", `Bearer realm="https://shopping.api", error="insufficient_scope", error_description="no"`},
		"no kind":               {&m2mauth.Error{Status: 200, Description: "secret"}, 500, "server_error", ""},
	} {
		w := httptest.NewRecorder()
		guard.WriteError(w, requestWith(), test.err)
		assert.Equal(t, test.status, w.Code, name)
		var body map[string]string
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
		assert.Equal(t, test.code, body["error"], name)
		assert.NotContains(t, w.Body.String(), "secret")
		assert.Equal(t, test.challenge, w.Header().Get("WWW-Authenticate"), name)
	}
	assert.Equal(t, &m2mauth.Error{Kind: m2mauth.ErrForbidden, Description: "no"}, shared, "is not written to")
	assert.ErrorIs(t, shared, m2mauth.ErrForbidden)
	assert.NotErrorIs(t, shared, m2mauth.ErrScope)
	var kind m2mauth.ErrorKind
	require.ErrorAs(t, error(m2mauth.ErrScope), &kind)
	assert.Equal(t, "m2mauth: insufficient scope", kind.Error())
}

func TestValidateRuleSaysWhatAGuardHasAgainstARule(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer)
	organizations := quietGuard(t, issuer, audienced("urn:logto:organization:"))
	assert.NoError(t, guard.ValidateRule(m2mauth.AllScopes("read")))
	assert.NoError(t, organizations.ValidateRule(m2mauth.OrganizationPath("org")))
	for name, err := range map[string]error{
		"the zero Rule":           guard.ValidateRule(m2mauth.Rule{}),
		"names no organization":   organizations.ValidateRule(m2mauth.AllScopes("read")),
		"was not made by New":     new(m2mauth.Guard).ValidateRule(m2mauth.AnyToken()),
		"the Guard is nil or was": (*m2mauth.Guard)(nil).ValidateRule(m2mauth.AnyToken()),
	} {
		assert.ErrorContains(t, err, name)
		assert.ErrorContains(t, err, "m2mauth: ")
	}
}

// seen is a Request that says something of everything.
type seen struct {
	m2mauth.UnimplementedRequest
	token string
}

func (s seen) Header(string) []string { return []string{"Bearer " + s.token} }
func (seen) Method() string           { return "PATCH" }

func TestARequestSaysWhatItKnows(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer)
	type facts struct {
		method, pattern string
		url             *url.URL
		tls             *tls.ConnectionState
	}
	var got facts
	rule := m2mauth.Custom("look", func(_ context.Context, _ m2mauth.Claims, r m2mauth.Request) error {
		got = facts{r.Method(), r.Pattern(), r.URL(), r.TLS()}
		return nil
	})
	token := issuer.Token(shop)
	r := httptest.NewRequest("PUT", "https://shopping.api/orders/7?draft", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	mux := http.NewServeMux()
	mux.Handle("PUT /orders/{id}", guard.RequireRule(rule)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	mux.ServeHTTP(httptest.NewRecorder(), r)
	assert.Equal(t, facts{"PUT", "PUT /orders/{id}", r.URL, r.TLS}, got)
	require.NotNil(t, r.TLS)

	_, err := guard.CheckRequest(t.Context(), seen{token: token}, rule)
	require.NoError(t, err)
	assert.Equal(t, facts{method: "PATCH"}, got)
	nothing := m2mauth.UnimplementedRequest{}
	assert.Empty(t, nothing.RemoteAddr()+nothing.PathValue("id"))
	_, err = guard.CheckRequest(t.Context(), nothing, rule)
	assert.ErrorIs(t, err, m2mauth.ErrNoToken)
}

func TestMetadataHasTheMembersThatWereGiven(t *testing.T) {
	t.Parallel()
	guard := quietGuard(t, m2mauthtest.NewIssuer())
	document := func(config m2mauth.MetadataConfig) map[string]any {
		_, handler := guard.Metadata(config)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		var members map[string]any
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &members))
		return members
	}
	assert.Len(t, document(m2mauth.MetadataConfig{}), 3)
	full := document(m2mauth.MetadataConfig{
		Scopes: []string{"read"}, Name: "Shop", Documentation: "https://shop.example/docs",
		Policy: "https://shop.example/policy", TermsOfService: "https://shop.example/terms",
	})
	assert.Equal(t, []any{"read"}, full["scopes_supported"])
	assert.Equal(t, "Shop", full["resource_name"])
	assert.Equal(t, "https://shop.example/docs", full["resource_documentation"])
	assert.Equal(t, "https://shop.example/policy", full["resource_policy_uri"])
	assert.Equal(t, "https://shop.example/terms", full["resource_tos_uri"])
	for _, page := range []string{"http://shop.example", "/docs", "javascript:alert(1)", "https://me:secret@shop.example", "https:"} {
		for _, config := range []m2mauth.MetadataConfig{{Documentation: page}, {Policy: page}, {TermsOfService: page}} {
			assert.Panics(t, func() { guard.Metadata(config) }, page)
		}
	}
}

// The challenge of a 401 names the scopes to ask for, and of alternatives the first.
func TestTheChallengeAsksForTheFirstAlternative(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := quietGuard(t, issuer, func(c *m2mauth.Config) { c.Logger = slog.New(slog.DiscardHandler) })
	a, b, c := m2mauth.AllScopes("a"), m2mauth.AllScopes("b", "x"), m2mauth.AnyScope("c", "d")
	for want, rule := range map[string]m2mauth.Rule{
		"":      m2mauth.AnyToken(),
		"a":     m2mauth.AnyOf(a, b),
		"b x":   m2mauth.AnyOf(b, a),
		"c":     c,
		"a c":   m2mauth.AllOf(a, c, a),
		"b x c": m2mauth.AnyOf(m2mauth.AllOf(b, m2mauth.AnyOf(c, a)), a),
	} {
		for _, fields := range [][]string{nil, {"Bearer rubbish"}, {"Bearer " + issuer.Token(shop, "none")}} {
			_, err := guard.Check(requestWith(fields...), rule)
			if want == "" && len(fields) == 1 && fields[0] != "Bearer rubbish" {
				assert.NoError(t, err)
				continue
			}
			var e *m2mauth.Error
			require.True(t, errors.As(err, &e), "%s", rule)
			if want == "" {
				assert.NotContains(t, challengeOf(err), "scope=")
			} else {
				assert.Contains(t, challengeOf(err), `, scope="`+want+`"`, "%s", rule)
			}
		}
	}
	_, err := guard.Check(requestWith("Bearer a", "Bearer b"), a)
	assert.NotContains(t, challengeOf(err), "scope=", "a 400 is no lack of scopes")
}
