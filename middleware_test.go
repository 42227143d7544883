package m2mauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestAuthorizationField(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	good := issuer.Token(testguard.Shop, "read:products")
	for _, test := range []struct {
		name   string
		fields []string
		want   error // nil: the token is taken and is good
	}{
		{"Bearer and a token", []string{"Bearer " + good}, nil},
		{"bearer in lower case", []string{"bearer " + good}, nil},
		{"BEARER in upper case", []string{"BEARER " + good}, nil},
		{"two spaces", []string{"Bearer  " + good}, nil},
		{"many spaces", []string{"Bearer" + strings.Repeat(" ", 100) + good}, nil},
		{"white space around", []string{" \tBearer " + good + "\t "}, nil},

		{"no field", nil, m2mauth.ErrNoToken},
		{"an empty field", []string{""}, m2mauth.ErrNoToken},
		{"a field of white space", []string{" \t "}, m2mauth.ErrNoToken},
		{"Basic credentials", []string{"Basic YTpi"}, m2mauth.ErrNoToken},
		{"another scheme with a good token", []string{"DPoP " + good}, m2mauth.ErrNoToken},
		{"a scheme that begins with Bearer", []string{"BearerX " + good}, m2mauth.ErrNoToken},
		{"a scheme that ends in Bearer", []string{"XBearer " + good}, m2mauth.ErrNoToken},
		{"Bearer and the token without a space", []string{"Bearer" + good}, m2mauth.ErrNoToken},
		{"a token alone", []string{good}, m2mauth.ErrNoToken},
		{"Bearer in Cyrillic letters", []string{"Веаrеr " + good}, m2mauth.ErrNoToken},
		{"a letter that is not ASCII in the scheme", []string{"Bearér " + good}, m2mauth.ErrNoToken},
		{"a quote before the scheme", []string{`"Bearer ` + good + `"`}, m2mauth.ErrNoToken},
		{"a form feed before the scheme", []string{"\fBearer " + good}, m2mauth.ErrNoToken},
		{"NUL before the scheme", []string{"\x00Bearer " + good}, m2mauth.ErrNoToken},
		{"a byte that is not UTF-8 before the scheme", []string{"\xffBearer " + good}, m2mauth.ErrNoToken},
		{"a comma before the scheme", []string{",Bearer " + good}, m2mauth.ErrNoToken},

		{"two fields", []string{"Bearer " + good, "Bearer " + good}, m2mauth.ErrRequest},
		{"two fields of which one is Basic", []string{"Basic YTpi", "Bearer " + good}, m2mauth.ErrRequest},
		{"two fields of which one is empty", []string{"Bearer " + good, ""}, m2mauth.ErrRequest},
		{"two empty fields", []string{"", ""}, m2mauth.ErrRequest},
		{"Bearer alone", []string{"Bearer"}, m2mauth.ErrRequest},
		{"Bearer and spaces", []string{"Bearer   "}, m2mauth.ErrRequest},
		{"two tokens", []string{"Bearer " + good + " " + good}, m2mauth.ErrRequest},
		{"two schemes in one field", []string{"Bearer " + good + ", Basic YTpi"}, m2mauth.ErrRequest},
		{"Bearer twice", []string{"Bearer Bearer " + good}, m2mauth.ErrRequest},
		{"a tab after Bearer", []string{"Bearer\t" + good}, m2mauth.ErrRequest},
		{"a space and a tab after Bearer", []string{"Bearer \t" + good}, m2mauth.ErrRequest},
		{"an equals sign after Bearer", []string{"Bearer=" + good}, m2mauth.ErrRequest},
		{"a slash after Bearer", []string{"Bearer/" + good}, m2mauth.ErrRequest},
		{"a comma after Bearer", []string{"Bearer," + good}, m2mauth.ErrRequest},
		{"a colon after Bearer", []string{"Bearer: " + good}, m2mauth.ErrRequest},
		{"NUL after Bearer", []string{"Bearer\x00" + good}, m2mauth.ErrRequest},
		{"a byte that is not UTF-8 after Bearer", []string{"Bearer\xff" + good}, m2mauth.ErrRequest},
		{"a no-break space after Bearer", []string{"Bearer\u00a0" + good}, m2mauth.ErrRequest},
		{"a quoted token", []string{`Bearer "` + good + `"`}, m2mauth.ErrRequest},
		{"a parameter in place of the token", []string{`Bearer token="` + good + `"`}, m2mauth.ErrRequest},
		{"equals signs alone", []string{"Bearer ==="}, m2mauth.ErrRequest},
		{"an equals sign before the token", []string{"Bearer =" + good}, m2mauth.ErrRequest},
		{"an equals sign within the token", []string{"Bearer a=" + good}, m2mauth.ErrRequest},
		{"a comma within the token", []string{"Bearer a," + good}, m2mauth.ErrRequest},
		{"a line break within the token", []string{"Bearer a\r\n" + good}, m2mauth.ErrRequest},
		{"NUL within the token", []string{"Bearer a\x00" + good}, m2mauth.ErrRequest},
		{"NUL after the token", []string{"Bearer " + good + "\x00"}, m2mauth.ErrRequest},
		{"a letter that is not ASCII in the token", []string{"Bearer ä" + good}, m2mauth.ErrRequest},
		{"a byte that is not UTF-8 in the token", []string{"Bearer \xff" + good}, m2mauth.ErrRequest},
		{"percent signs in the token", []string{"Bearer %20" + good}, m2mauth.ErrRequest},
		{"DEL in the token", []string{"Bearer " + good + "\x7f"}, m2mauth.ErrRequest},

		{"a token68 that is no JWT", []string{"Bearer ~"}, m2mauth.ErrMalformed},
		{"a token with padding", []string{"Bearer " + good + "="}, m2mauth.ErrMalformed},
		{"a token of the other base64 alphabet", []string{"Bearer +/+/.+/+/.+/+/"}, m2mauth.ErrMalformed},

		{"a token of 8 KiB", []string{"Bearer " + strings.Repeat("a", 8<<10)}, m2mauth.ErrMalformed},
		{"a token of 8 KiB and one byte", []string{"Bearer " + strings.Repeat("a", 8<<10+1)}, m2mauth.ErrRequest},
		{"a token of 8 KiB with white space around", []string{"  Bearer " + strings.Repeat("a", 8<<10) + "  "}, m2mauth.ErrMalformed},
		{"a field that is over 8 KiB by its spaces", []string{"Bearer" + strings.Repeat(" ", 8<<10) + good}, m2mauth.ErrRequest},
		{"a field of 1 MiB", []string{"Bearer " + strings.Repeat("a", 1<<20)}, m2mauth.ErrRequest},
		{"another scheme of 1 MiB", []string{"Basic " + strings.Repeat("a", 1<<20)}, m2mauth.ErrRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			claims, err := guard.Check(testguard.RequestWith(test.fields...), m2mauth.AllScopes("read:products"))
			if test.want == nil {
				require.NoError(t, err)
				require.False(t, claims.IsZero())
				return
			}
			assert.True(t, claims.IsZero(), "claims beside an error")
			require.ErrorIs(t, err, test.want)
		})
	}
}

func TestTokenLength(t *testing.T) {
	t.Parallel()
	guard := testguard.Quiet(t, m2mauthtest.NewIssuer())
	_, err := guard.Verify(t.Context(), strings.Repeat("a", 8<<10))
	assert.ErrorIs(t, err, m2mauth.ErrMalformed)
	_, err = guard.Verify(t.Context(), strings.Repeat("a", 8<<10+1))
	assert.ErrorIs(t, err, m2mauth.ErrRequest)
	_, err = guard.Verify(t.Context(), "")
	assert.ErrorIs(t, err, m2mauth.ErrMalformed)
}

func TestTokensElsewhereAreNotRead(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	good := issuer.Token(testguard.Shop)
	form := httptest.NewRequest(http.MethodPost, "/products?access_token="+good, strings.NewReader("access_token="+good))
	form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	form.AddCookie(&http.Cookie{Name: "access_token", Value: good})
	form.Header.Set("Proxy-Authorization", "Bearer "+good)
	form.Header.Set("X-Forwarded-Authorization", "Bearer "+good)
	_, err := guard.Check(form, m2mauth.AnyToken())
	require.ErrorIs(t, err, m2mauth.ErrNoToken)
	body, err := io.ReadAll(form.Body)
	require.NoError(t, err)
	assert.NotEmpty(t, body, "the body is the handler's")
}

func TestMiddlewares(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	type middleware = func(http.Handler) http.Handler
	for _, test := range []struct {
		name    string
		protect middleware
		scopes  []string
		want    int
		asks    string // by the challenge without a token
	}{
		{"Require with the scope", guard.Require("read"), []string{"read"}, 200, `, scope="read"`},
		{"Require with all scopes and more", guard.Require("read", "write"), []string{"delete", "write", "read"}, 200, `, scope="read write"`},
		{"Require with one of two", guard.Require("read", "write"), []string{"write"}, 403, `, scope="read write"`},
		{"Require with no scopes", guard.Require("read"), nil, 403, `, scope="read"`},
		{"RequireAny with one of two", guard.RequireAny("read", "write"), []string{"write"}, 200, `, scope="read"`},
		{"RequireAny with another", guard.RequireAny("read", "write"), []string{"delete"}, 403, `, scope="read"`},
		{"RequireRule AllScopes with one of two", guard.RequireRule(m2mauth.AllScopes("read", "write")), []string{"read"}, 403, `, scope="read write"`},
		{"RequireRule AnyScope with one of two", guard.RequireRule(m2mauth.AnyScope("read", "write")), []string{"read"}, 200, `, scope="read"`},
		{"RequireRule AnyToken with no scopes", guard.RequireRule(m2mauth.AnyToken()), nil, 200, ``},
		{"Authenticate with no scopes", guard.Authenticate, nil, 200, ``},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var seen m2mauth.Claims
			var reached bool
			api := test.protect(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				reached = true
				seen, _ = m2mauth.FromContext(r.Context())
			}))
			w := httptest.NewRecorder()
			api.ServeHTTP(w, testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, test.scopes...)))
			assert.Equal(t, test.want, w.Code)
			assert.Equal(t, test.want == 200, reached)
			if test.want == 200 {
				require.NotNil(t, seen)
				assert.Equal(t, strings.Join(test.scopes, " "), seen.Scopes().String())
			} else {
				assert.Contains(t, w.Header().Get("WWW-Authenticate"), `error="insufficient_scope"`)
			}

			reached = false
			w = httptest.NewRecorder()
			api.ServeHTTP(w, testguard.RequestWith())
			assert.Equal(t, 401, w.Code)
			assert.False(t, reached, "a handler was reached without a token")
			assert.Equal(t, `Bearer realm="https://shopping.api"`+test.asks, w.Header().Get("WWW-Authenticate"))
		})
	}
}

func TestChallengeNamesAllScopesOfTheRoute(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.Realm = "the shop" })
	w := httptest.NewRecorder()
	guard.Require("read:products", "write:products")(http.NotFoundHandler()).
		ServeHTTP(w, testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, "read:products")))
	assert.Equal(t, `Bearer realm="the shop", error="insufficient_scope", `+
		`error_description="the token lacks a scope that this route requires", scope="read:products write:products"`,
		w.Header().Get("WWW-Authenticate"))
}

func TestTheHandlerGetsTheRequestAsItWas(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	type key struct{}
	mux := http.NewServeMux()
	var value any
	var id, body string
	mux.Handle("POST /products/{id}", guard.Authenticate(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, id = r.Context().Value(key{}), r.PathValue("id")
		data, _ := io.ReadAll(r.Body)
		body = string(data)
	})))
	r := httptest.NewRequest(http.MethodPost, "/products/7", strings.NewReader("a body"))
	r.Header.Set("Authorization", "Bearer "+issuer.Token(testguard.Shop))
	r = r.WithContext(context.WithValue(r.Context(), key{}, "mine"))
	mux.ServeHTTP(httptest.NewRecorder(), r)
	assert.Equal(t, "mine", value)
	assert.Equal(t, "7", id)
	assert.Equal(t, "a body", body)
	_, ok := m2mauth.FromContext(r.Context())
	assert.False(t, ok, "the caller's request is not changed")
}

func TestZeroRuleInCheckLetsNobodyThrough(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	claims, err := guard.Check(testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop, "read")), m2mauth.Rule{})
	assert.True(t, claims.IsZero())
	require.ErrorIs(t, err, m2mauth.ErrForbidden)
	w := httptest.NewRecorder()
	guard.WriteError(w, testguard.RequestWith(), err)
	assert.Equal(t, 403, w.Code)
	assert.NotContains(t, w.Header().Get("WWW-Authenticate"), "scope=\"")
}

// A program that ignored the error of New must not be open.
func TestGuardThatIsNoneRefusesEverything(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	good := issuer.Token(testguard.Shop, "read")
	var missing *m2mauth.Guard
	for name, guard := range map[string]*m2mauth.Guard{"nil": missing, "zero": new(m2mauth.Guard)} {
		for call, f := range map[string]func() (m2mauth.Claims, error){
			"Check": func() (m2mauth.Claims, error) {
				return guard.Check(testguard.RequestWith("Bearer "+good), m2mauth.AnyToken())
			},
			"CheckRequest": func() (m2mauth.Claims, error) {
				return guard.CheckRequest(t.Context(), testguard.Headers{}, m2mauth.AnyToken())
			},
			"Verify": func() (m2mauth.Claims, error) { return guard.Verify(t.Context(), good) },
			"Warm":   func() (m2mauth.Claims, error) { return m2mauth.Claims{}, guard.Warm(t.Context()) },
		} {
			claims, err := f()
			assert.True(t, claims.IsZero(), "%s of a %s Guard", call, name)
			require.ErrorIs(t, err, m2mauth.ErrInternal, "%s of a %s Guard", call, name)
			w := httptest.NewRecorder()
			guard.WriteError(w, testguard.RequestWith(), err)
			assert.Equal(t, 500, w.Code)
		}
	}
}

func TestCheckRequestAndVerify(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	good := issuer.Sign(m2mauthtest.Token{AppID: "reader", Audience: testguard.Shop, Scopes: []string{"read"}})

	claims, err := guard.CheckRequest(t.Context(), testguard.Headers{Fields: http.Header{"Authorization": {"Bearer " + good}}}, m2mauth.AllScopes("read"))
	require.NoError(t, err)
	assert.Equal(t, "reader", claims.AppID())
	_, err = guard.CheckRequest(t.Context(), testguard.Headers{Fields: http.Header{"Authorization": {"Bearer " + good}}}, m2mauth.AllScopes("write"))
	require.ErrorIs(t, err, m2mauth.ErrScope)
	_, err = guard.CheckRequest(t.Context(), testguard.Headers{}, m2mauth.AnyToken())
	require.ErrorIs(t, err, m2mauth.ErrNoToken)

	claims, err = guard.Verify(t.Context(), good)
	require.NoError(t, err)
	assert.Equal(t, "reader", claims.AppID())
	claims, err = guard.Verify(t.Context(), "Bearer "+good)
	assert.True(t, claims.IsZero())
	require.ErrorIs(t, err, m2mauth.ErrMalformed, "a token by itself")
}

// Scopes that hold within one organization must not open the API for all.
func TestOrganizationTokensAreRefusedEverywhere(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	token := issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Scopes: []string{"read"}, Claims: map[string]any{"organization_id": "org1"}})
	guard := testguard.Quiet(t, issuer)
	r := testguard.RequestWith("Bearer " + token)
	for name, middleware := range map[string]func(http.Handler) http.Handler{
		"Require": guard.Require("read"), "RequireAny": guard.RequireAny("read"),
		"RequireRule": guard.RequireRule(m2mauth.AllScopes("read")), "Authenticate": guard.Authenticate,
	} {
		w := httptest.NewRecorder()
		middleware(http.NotFoundHandler()).ServeHTTP(w, r)
		assert.Equal(t, 403, w.Code, name)
		assert.NotContains(t, w.Header().Get("WWW-Authenticate"), "scope=\"", name)
	}
	claims, err := guard.Verify(t.Context(), token)
	assert.True(t, claims.IsZero())
	require.ErrorIs(t, err, m2mauth.ErrForbidden)
	_, err = guard.Check(r, m2mauth.AnyToken())
	require.ErrorIs(t, err, m2mauth.ErrForbidden)

	open := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.InsecureAllowOrganizationTokens = true })
	claims, err = open.Check(r, m2mauth.AllScopes("read"))
	require.NoError(t, err)
	assert.Equal(t, "org1", claims.OrganizationID())
}

func TestErrorHandlerWritesTheAnswer(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	var before http.Header
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, e *m2mauth.Error) {
			before = w.Header().Clone()
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(e.Status)
			_, _ = io.WriteString(w, `{"instance":"`+r.URL.Path+`"}`)
			if e.Scopes != nil {
				e.Scopes[0] = "changed"
			}
		}
	})
	api := guard.Require("read")(http.NotFoundHandler())
	for range 2 { // the handler's changes reach no other request
		w := httptest.NewRecorder()
		api.ServeHTTP(w, testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop)))
		assert.Equal(t, 403, w.Code)
		assert.Equal(t, `{"instance":"/products"}`, w.Body.String())
		assert.NotContains(t, before, "Content-Type")
		assert.Contains(t, before.Get("WWW-Authenticate"), `scope="read"`)
		assert.Equal(t, "no-store", before.Get("Cache-Control"))
	}

	issuer.Intercept(func(http.Handler) http.Handler { return http.NotFoundHandler() })
	down := testguard.Quiet(t, issuer, func(c *m2mauth.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, e *m2mauth.Error) {
			before = w.Header().Clone()
			w.WriteHeader(e.Status)
		}
	})
	w := httptest.NewRecorder()
	down.Authenticate(http.NotFoundHandler()).ServeHTTP(w, testguard.RequestWith("Bearer "+issuer.Token(testguard.Shop)))
	assert.Equal(t, 503, w.Code)
	assert.Equal(t, "1", before.Get("Retry-After"))
	assert.NotContains(t, before, "Www-Authenticate")
}

func TestFromContext(t *testing.T) {
	t.Parallel()
	claims, ok := m2mauth.FromContext(context.Background())
	assert.True(t, claims.IsZero())
	assert.False(t, ok)

	claims, ok = m2mauth.FromContext(m2mauth.NewContext(context.Background(), m2mauth.Claims{}))
	assert.True(t, claims.IsZero())
	assert.False(t, ok, "no claims are no permission")

	mine := m2mauthtest.Claims(t, "reader")
	ctx := m2mauth.NewContext(m2mauth.NewContext(context.Background(), m2mauthtest.Claims(t, "writer")), mine)
	claims, ok = m2mauth.FromContext(ctx)
	assert.True(t, ok)
	assert.Equal(t, mine.ID(), claims.ID(), "the innermost guard's")
}

// fmt prints what a field points to for every verb but %v, if nothing stops it.
func TestAPrintedContextShowsNoClaims(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer)
	token := issuer.Sign(m2mauthtest.Token{AppID: "an-app-to-be-found", Audience: testguard.Shop, Scopes: []string{"a-scope-to-be-found"}})
	claims, err := guard.Verify(t.Context(), token)
	require.NoError(t, err)
	reached := false
	telling := append([]string{"an-app-to-be-found", "a-scope-to-be-found", claims.ID()}, tellingParts(token)...)
	guard.Require("a-scope-to-be-found")(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached = true
		child, cancel := context.WithCancel(r.Context())
		defer cancel()
		for _, ctx := range []context.Context{r.Context(), child, m2mauth.NewContext(child, m2mauth.Claims{})} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
				text := fmt.Sprintf(verb, ctx)
				for _, part := range telling {
					assert.NotContains(t, text, part, verb)
				}
			}
		}
	})).ServeHTTP(httptest.NewRecorder(), testguard.RequestWith("Bearer "+token))
	assert.True(t, reached)
}

// An absent typ may be allowed, and then no odd spelling of nothing is.
func TestTypeThatIsAPrefixAloneIsNotAnAbsentOne(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.TokenTypes = []string{""} })
	for _, typ := range []string{"", "application/", "APPLICATION/", " "} {
		_, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"typ": typ}}))
		assert.ErrorIs(t, err, m2mauth.ErrType, "%q", typ)
	}
	_, err := guard.Verify(t.Context(), issuer.Sign(m2mauthtest.Token{Audience: testguard.Shop, Header: map[string]any{"typ": nil}}))
	assert.NoError(t, err)
}

func TestErrorsOfAGuardAreTyped(t *testing.T) {
	t.Parallel()
	guard := testguard.Quiet(t, m2mauthtest.NewIssuer())
	_, err := guard.Check(testguard.RequestWith(), m2mauth.AnyToken())
	var e *m2mauth.Error
	require.True(t, errors.As(err, &e))
	assert.Equal(t, 401, e.Status)
	assert.Equal(t, "unauthorized", e.Code)
	assert.NotEmpty(t, e.Description)
	assert.Nil(t, e.Scopes)
	assert.Zero(t, e.RetryAfter)
}

const oddStatus = "m2mauth: Config.ErrorHandler answered a refused request with a status below 400; the refusal's was sent"

// Whatever an ErrorHandler does, a caller never takes a refusal for a success.
func TestARefusalNeverLooksLikeASuccess(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		handler  http.HandlerFunc
		status   int
		body     string
		replaced int64 // the status in the log
	}{
		{"it writes nothing", func(http.ResponseWriter, *http.Request) {}, 401, "", 0},
		{"it writes a body alone", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "no") }, 401, "no", 0},
		{"it copies a body", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, struct{ io.Reader }{strings.NewReader("no")})
		}, 401, "no", 0},
		{"it writes an empty body", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(nil) }, 401, "", 0},
		{"it sets a header field alone", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Mine", "yes") }, 401, "", 0},
		{"it chooses a status", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "hidden", http.StatusNotFound) }, 404, "hidden\n", 0},
		{"it chooses 400", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) }, 400, "", 0},
		{"it chooses 599", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(599) }, 599, "", 0},
		{"it chooses 200", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			_, _ = io.WriteString(w, "no")
		}, 401, "no", 200},
		{"it answers in gRPC", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc+proto")
			w.WriteHeader(200)
		}, 200, "", 0},
		{"it answers in gRPC-Web", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "Application/gRPC-Web")
			w.WriteHeader(200)
		}, 200, "", 0},
		{"it answers in a stream of Connect", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/connect+json")
			w.WriteHeader(200)
		}, 200, "", 0},
		{"it names gRPC and no status", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			_, _ = w.Write(nil)
		}, 401, "", 0},
		{"it names gRPC and another status", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.WriteHeader(204)
		}, 401, "", 204},
		{"it chooses 200 for JSON", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(200)
		}, 401, "", 200},
		{"it chooses 399", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(399) }, 401, "", 399},
		{"it redirects", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/sign-in", http.StatusFound) }, 401, "<a href=\"/sign-in\">Found</a>.\n\n", 302},
		{"it switches protocols", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(101) }, 401, "", 101},
		{"it chooses no status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(0) }, 401, "", 0},
		{"it flushes first", func(w http.ResponseWriter, _ *http.Request) {
			assert.NoError(t, http.NewResponseController(w).Flush())
			_, _ = io.WriteString(w, "no")
		}, 401, "no", 0},
		{"it flushes first, by the interface", func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "no")
		}, 401, "no", 0},
		{"it flushes after its status", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(418)
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "no")
		}, 418, "no", 0},
		{"it sets a deadline by the controller", func(w http.ResponseWriter, _ *http.Request) {
			assert.NoError(t, http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)))
		}, 401, "", 0},
		{"it takes the connection", func(w http.ResponseWriter, _ *http.Request) {
			conn, buffer, err := http.NewResponseController(w).Hijack()
			if assert.NoError(t, err) {
				_, _ = buffer.WriteString("HTTP/1.1 499 Mine\r\nContent-Length: 4\r\n\r\nmine")
				_ = buffer.Flush()
				_ = conn.Close()
			}
		}, 499, "mine", 0},
		{"it takes the connection, by the interface", func(w http.ResponseWriter, _ *http.Request) {
			conn, buffer, err := w.(http.Hijacker).Hijack()
			if assert.NoError(t, err) {
				_, _ = buffer.WriteString("HTTP/1.1 499 Mine\r\nContent-Length: 4\r\n\r\nmine")
				_ = buffer.Flush()
				_ = conn.Close()
			}
		}, 499, "mine", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			guard, book := loggedGuard(t, m2mauthtest.NewIssuer(), func(c *m2mauth.Config) {
				c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, e *m2mauth.Error) {
					e.Status = http.StatusOK // is the handler's own affair
					test.handler(w, r)
				}
			})
			server := httptest.NewUnstartedServer(guard.Require("read")(http.NotFoundHandler()))
			var complaints strings.Builder // net/http's, such as about a second status
			server.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(&complaints, nil), slog.LevelError)
			server.Start()
			client := server.Client()
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			response, err := client.Get(server.URL)
			require.NoError(t, err)
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			_ = response.Body.Close()
			server.Close()

			assert.Equal(t, test.status, response.StatusCode)
			assert.Equal(t, test.body, string(body))
			assert.Empty(t, complaints.String())
			odd := 0
			for _, entry := range book.take() {
				if entry.attrs["msg"] == oddStatus {
					odd++
					assert.Equal(t, test.replaced, entry.attrs["status"])
					assert.EqualValues(t, 401, entry.attrs["sent"])
					assert.Equal(t, slog.LevelWarn, entry.level)
				}
			}
			assert.Equal(t, strings.HasPrefix(test.name, "it chooses no") || test.replaced != 0, odd == 1, "%d lines", odd)
		})
	}
}

// A framework that takes a hint for the answer would send 200 after it.
func TestAnErrorHandlersHintsAreNotSent(t *testing.T) {
	t.Parallel()
	guard := testguard.Quiet(t, m2mauthtest.NewIssuer(), func(c *m2mauth.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ *m2mauth.Error) {
			w.Header().Set("Link", "</error.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "no")
		}
	})
	server := httptest.NewServer(guard.Require("read")(http.NotFoundHandler()))
	defer server.Close()
	var hints []int
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { hints = append(hints, code); return nil },
	})
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
	require.NoError(t, err)
	response, err := server.Client().Do(r)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	assert.Empty(t, hints)
	assert.Equal(t, 404, response.StatusCode, "a hint takes no status's place")
}

// plainWriter can do nothing but what a ResponseWriter must.
type plainWriter struct{ http.ResponseWriter }

func TestAnErrorHandlersWriterCanDoWhatTheServersCan(t *testing.T) {
	t.Parallel()
	var flush, hijack error
	guard := testguard.Quiet(t, m2mauthtest.NewIssuer(), func(c *m2mauth.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ *m2mauth.Error) {
			inner, ok := w.(interface{ Unwrap() http.ResponseWriter })
			if assert.True(t, ok) {
				assert.IsType(t, plainWriter{}, inner.Unwrap())
			}
			_, _, hijack = http.NewResponseController(w).Hijack()
			flush = http.NewResponseController(w).Flush()
		}
	})
	w := httptest.NewRecorder()
	_, err := guard.Check(testguard.RequestWith(), m2mauth.AnyToken())
	guard.WriteError(plainWriter{w}, testguard.RequestWith(), err)
	require.ErrorIs(t, flush, errors.ErrUnsupported)
	require.ErrorIs(t, hijack, errors.ErrUnsupported)
	assert.Equal(t, 401, w.Code)
	assert.False(t, w.Flushed)
}

// A flood of refusals floods no log.
func TestAnErrorHandlersOddStatusIsLoggedOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		guard, book := loggedGuard(t, m2mauthtest.NewIssuer(), func(c *m2mauth.Config) {
			c.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ *m2mauth.Error) { w.WriteHeader(200) }
		})
		warnings := func(times int) (n int) {
			for range times {
				guard.Require("read")(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), testguard.RequestWith())
			}
			for _, entry := range book.take() {
				if entry.attrs["msg"] == oddStatus && entry.level == slog.LevelWarn {
					n++
				}
			}
			return n
		}
		assert.Equal(t, 1, warnings(9))
		time.Sleep(time.Minute)
		assert.Equal(t, 1, warnings(1))
	})
}
