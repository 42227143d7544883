// Package tokens runs the tokens of testdata through guards, each with the answer that
// it must get.
package tokens

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

//go:generate go run -C ../../.. ./internal/test/fixtures

// fixture is one row of testdata/fixtures.json, which internal/test/fixtures writes
// and explains.
type fixture struct {
	Name, Rule     string
	Token, Keys    string
	Clock          int64
	Config         fixtureConfig
	All, Any       []string
	Error          string
	VerifyError    string `json:"verify_error"`
	Status         int
	ChallengeScope string         `json:"challenge_scope"`
	KeyFetches     int            `json:"key_fetches"`
	Claims         map[string]any `json:"claims"`
}

// fixtureConfig is what a row changes in the Config; times are in seconds.
type fixtureConfig struct {
	Algorithms                      []string
	TokenTypes                      []string      `json:"token_types"`
	ScopeClaims                     []string      `json:"scope_claims"`
	ClientClaims                    []string      `json:"client_claims"`
	OtherAudiences                  []string      `json:"other_audiences"`
	Leeway                          time.Duration `json:"leeway"`
	MaxLifetime                     time.Duration `json:"max_lifetime"`
	InsecureAllowOrganizationTokens bool          `json:"allow_organizations"`
}

// codes are the error codes by status: those of RFC 6750 §3.1, and for 503 one
// that stands in the body alone.
var codes = map[int]string{
	http.StatusBadRequest:         "invalid_request",
	http.StatusUnauthorized:       "invalid_token",
	http.StatusForbidden:          "insufficient_scope",
	http.StatusServiceUnavailable: "temporarily_unavailable",
}

// fixtures are all of testdata/fixtures.json.
type fixtures struct {
	Issuer, Audience string
	Keys             map[string]string
	Rows             []fixture
}

var readFixtures = sync.OnceValues(func() (table fixtures, err error) {
	content, err := os.ReadFile("../../../testdata/fixtures.json")
	if err != nil {
		return table, err
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(&table)
	return table, err
})

func TestTokenSizeAndCharacters(t *testing.T)    { runRules(t, "1 size", "1 token68") }
func TestTokenSegments(t *testing.T)             { runRules(t, "3 dots", "3 base64url") }
func TestStrictJSON(t *testing.T)                { runRules(t, "3 JSON", "3 names") }
func TestAlgorithm(t *testing.T)                 { runRules(t, "4 alg") }
func TestTokenType(t *testing.T)                 { runRules(t, "4 typ", "5 other types") }
func TestCriticalHeader(t *testing.T)            { runRules(t, "4 crit") }
func TestKeysInTheHeaderAreIgnored(t *testing.T) { runRules(t, "4 key in header") }
func TestKeysByTheirID(t *testing.T)             { runRules(t, "4 kid", "6 kid") }
func TestIssuer(t *testing.T)                    { runRules(t, "5 iss") }
func TestAudience(t *testing.T)                  { runRules(t, "5 aud") }
func TestExpiryAndLeeway(t *testing.T)           { runRules(t, "5 exp") }
func TestNotBeforeAndLeeway(t *testing.T)        { runRules(t, "5 nbf") }
func TestIssuedAtAndLeeway(t *testing.T)         { runRules(t, "5 iat") }
func TestClocksAndLeeway(t *testing.T)           { runRules(t, "5 clock") }
func TestLifetime(t *testing.T)                  { runRules(t, "5 lifetime") }
func TestSubject(t *testing.T)                   { runRules(t, "5 sub") }
func TestClientID(t *testing.T)                  { runRules(t, "5 client_id") }
func TestTokenID(t *testing.T)                   { runRules(t, "5 jti") }
func TestSenderConstrainedTokens(t *testing.T)   { runRules(t, "5 cnf") }
func TestScopeClaim(t *testing.T)                { runRules(t, "5 scope") }
func TestKeysThatFit(t *testing.T)               { runRules(t, "6 fit", "6 use") }
func TestKeysOfRSA(t *testing.T)                 { runRules(t, "6 RSA") }
func TestKeysThatAreOdd(t *testing.T)            { runRules(t, "6 odd key", "6 spelling") }
func TestSignature(t *testing.T)                 { runRules(t, "7 signature", "7 salt", "7 Ed25519") }
func TestScopesOfRoutes(t *testing.T)            { runRules(t, "8 scopes", "8 rules") }
func TestOrganizationTokens(t *testing.T)        { runRules(t, "8 organization") }

// Rows of a rule that no test above names would not run.
func TestEveryFixtureRuns(t *testing.T) {
	t.Parallel()
	table, err := readFixtures()
	require.NoError(t, err)
	source, err := os.ReadFile("fixtures_test.go")
	require.NoError(t, err)
	named := make(map[string]bool)
	for _, call := range regexp.MustCompile(`(?m)^func Test\w+\(t \*testing\.T\) +\{ runRules\(t, (.+)\) \}$`).FindAllStringSubmatch(string(source), -1) {
		for rule := range strings.SplitSeq(call[1], ", ") {
			assert.False(t, named[rule], "%s twice", rule)
			named[rule] = true
		}
	}
	require.NotEmpty(t, table.Rows)
	for _, row := range table.Rows {
		assert.True(t, named[strconv.Quote(row.Rule)], row.Rule)
	}
}

// runRules runs the rows of these rules, each at its own clock.
func runRules(t *testing.T, rules ...string) {
	t.Helper()
	t.Parallel()
	table, err := readFixtures()
	require.NoError(t, err)
	discovery := `{"issuer":"` + table.Issuer + `","jwks_uri":"` + table.Issuer + `/jwks"}`
	for _, rule := range rules {
		rows := slices.DeleteFunc(slices.Clone(table.Rows), func(row fixture) bool { return row.Rule != rule })
		require.NotEmpty(t, rows, rule)
		for _, row := range rows {
			t.Run(row.Rule+": "+row.Name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					testguard.SleepUntil(time.Unix(row.Clock, 0))
					server := &documentServer{issuer: table.Issuer, discovery: []byte(discovery), keys: []byte(table.Keys[row.Keys])}
					guard, err := m2mauth.New(row.config(table.Issuer, table.Audience, server))
					require.NoError(t, err)
					runFixture(t, guard, server, row)
				})
			})
		}
	}
}

func (f fixture) config(issuer, audience string, server http.RoundTripper) m2mauth.Config {
	return m2mauth.Config{
		Issuer:                          issuer,
		Audience:                        audience,
		HTTPClient:                      &http.Client{Transport: server},
		Algorithms:                      f.Config.Algorithms,
		TokenTypes:                      f.Config.TokenTypes,
		ScopeClaims:                     f.Config.ScopeClaims,
		ClientClaims:                    f.Config.ClientClaims,
		OtherAudiences:                  f.Config.OtherAudiences,
		Leeway:                          f.Config.Leeway * time.Second,
		MaxLifetime:                     f.Config.MaxLifetime * time.Second,
		InsecureAllowOrganizationTokens: f.Config.InsecureAllowOrganizationTokens,
	}
}

func (f fixture) rule() m2mauth.Rule {
	switch {
	case f.All != nil:
		return m2mauth.AllScopes(f.All...)
	case f.Any != nil:
		return m2mauth.AnyScope(f.Any...)
	}
	return m2mauth.AnyToken()
}

func runFixture(t *testing.T, guard *m2mauth.Guard, server *documentServer, row fixture) {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, "/products", nil)
	request.Header["Authorization"] = []string{"Bearer " + row.Token}

	claims, err := guard.Check(request, row.rule())
	testguard.AssertKind(t, row.Error, err)
	assert.Equal(t, err == nil, !claims.IsZero(), "claims or an error, never both")
	if err == nil {
		assertFixtureClaims(t, row, claims)
	}
	// The same token again, by the other ways in.
	reached := false
	recorder := httptest.NewRecorder()
	guard.RequireRule(row.rule())(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached = true
		seen, ok := m2mauth.FromContext(r.Context())
		require.True(t, ok)
		assertFixtureClaims(t, row, seen)
	})).ServeHTTP(recorder, request)
	assert.Equal(t, row.Status, recorder.Code)
	assert.Equal(t, row.Status == http.StatusOK, reached, "the handler is reached if and only if the answer is 200")
	if row.Status != http.StatusOK {
		assertRefusal(t, recorder, row)
	}

	verifyError := row.Error
	switch {
	case row.VerifyError != "":
		verifyError = row.VerifyError
	case row.Error == "ErrScope":
		verifyError = "" // Verify has no route
	}
	claims, err = guard.Verify(t.Context(), row.Token)
	testguard.AssertKind(t, verifyError, err)
	assert.Equal(t, err == nil, !claims.IsZero(), "claims or an error, never both")

	switch fetches := int(server.keyFetches.Load()); row.KeyFetches {
	case 0:
		assert.Zero(t, server.fetches(), "refused by what it says, it costs no fetch")
	case 1:
		assert.Equal(t, 1, fetches, "one fetch of the key set serves all three")
	default:
		assert.LessOrEqual(t, fetches, row.KeyFetches, "fetches of the key set by all three")
	}
	assert.Zero(t, server.others.Load(), "a URL in a token is never fetched")
}

// assertRefusal checks the answer of RFC 6750 §3.
func assertRefusal(t *testing.T, recorder *httptest.ResponseRecorder, row fixture) {
	t.Helper()
	code := codes[row.Status]
	challenge := recorder.Header().Get("WWW-Authenticate")
	if row.Status == http.StatusServiceUnavailable {
		assert.Empty(t, challenge, "a new token would not help")
		assert.NotEmpty(t, recorder.Header().Get("Retry-After"))
	} else {
		assert.True(t, strings.HasPrefix(challenge, `Bearer realm="https://shopping.api", error="`+code+`"`), challenge)
	}
	scope := row.ChallengeScope
	if row.Status == http.StatusUnauthorized { // so that the next token is the right one
		scope = strings.Join(append(row.All, row.Any[:min(1, len(row.Any))]...), " ")
	}
	if scope == "" {
		assert.NotContains(t, challenge, `scope="`)
	} else {
		assert.Contains(t, challenge, `, scope="`+scope+`"`)
	}
	assert.Equal(t, "no-store", recorder.Header().Get("Cache-Control"))
	var body map[string]string
	require.NoError(t, json.Unmarshal(recorder.Body.Bytes(), &body), recorder.Body)
	assert.Equal(t, code, body["error"])
	assert.NotEmpty(t, body["error_description"])
	assert.Len(t, body, 2)
}

func assertFixtureClaims(t *testing.T, row fixture, claims m2mauth.Claims) {
	t.Helper()
	scopes := []any{}
	for scope := range claims.Scopes().All() {
		scopes = append(scopes, scope)
	}
	audience := []any{}
	for _, aud := range claims.Audience() {
		audience = append(audience, aud)
	}
	said := map[string]any{
		"app_id":          claims.AppID(),
		"subject":         claims.Subject(),
		"client_id":       claims.ClientID(),
		"issuer":          claims.Issuer(),
		"id":              claims.ID(),
		"organization_id": claims.OrganizationID(),
		"audience":        audience,
		"scopes":          scopes,
		"is_machine":      claims.IsMachine(),
		"issued_at":       claims.IssuedAt().UTC().Format(time.RFC3339Nano),
		"expires_at":      claims.ExpiresAt().UTC().Format(time.RFC3339Nano),
	}
	for name, want := range row.Claims {
		require.Contains(t, said, name)
		assert.Equal(t, want, said[name], name)
	}
	var decoded struct {
		Subject string `json:"sub"`
		Issuer  string `json:"iss"`
	}
	require.NoError(t, claims.Decode(&decoded))
	assert.Equal(t, claims.Subject(), decoded.Subject, "Decode reads the members that the guard read")
	assert.Equal(t, claims.Issuer(), decoded.Issuer, "Decode reads the members that the guard read")
}

// TestCredentials holds the forms of the Authorization field (RFC 6750 §2.1,
// RFC 9110 §11.4). GOOD stands for a token that the route accepts.
func TestCredentials(t *testing.T) {
	t.Parallel()
	long := func(size int) string { return "Bearer " + strings.Repeat("a", size) }
	tests := []struct {
		name   string
		fields []string
		want   string
	}{
		{"no field", nil, "ErrNoToken"},
		{"an empty field", []string{""}, "ErrNoToken"},
		{"a field of spaces", []string{"  "}, "ErrNoToken"},
		{"Basic credentials", []string{"Basic dXNlcjpwYXNz"}, "ErrNoToken"},
		{"Basic credentials that look like a token", []string{"Basic GOOD"}, "ErrNoToken"},
		{"DPoP", []string{"DPoP GOOD"}, "ErrNoToken"},
		{"a token without a scheme", []string{"GOOD"}, "ErrNoToken"},
		{"a scheme that begins like Bearer", []string{"Bearerx GOOD"}, "ErrNoToken"},
		{"a scheme that ends like Bearer", []string{"xBearer GOOD"}, "ErrNoToken"},
		{"a scheme of a look-alike letter", []string{"Веarer GOOD"}, "ErrNoToken"},
		{"Basic and Bearer in one field", []string{"Basic x, Bearer GOOD"}, "ErrNoToken"},

		{"Bearer and a token", []string{"Bearer GOOD"}, ""},
		{"bearer in lower case", []string{"bearer GOOD"}, ""},
		{"BEARER in upper case", []string{"BEARER GOOD"}, ""},
		{"bEaReR in mixed case", []string{"bEaReR GOOD"}, ""},
		{"white space around the field", []string{" \tBearer GOOD \t"}, ""},
		{"several spaces before the token", []string{"Bearer   GOOD"}, ""},

		{"Bearer alone", []string{"Bearer"}, "ErrRequest"},
		{"Bearer and a space", []string{"Bearer "}, "ErrRequest"},
		{"Bearer and spaces", []string{"Bearer    "}, "ErrRequest"},
		{"a tab before the token", []string{"Bearer\tGOOD"}, "ErrRequest"},
		{"a space and a tab before the token", []string{"Bearer \tGOOD"}, "ErrRequest"},
		{"an equals sign in place of the space", []string{"Bearer=GOOD"}, "ErrRequest"},
		{"a slash in place of the space", []string{"Bearer/GOOD"}, "ErrRequest"},
		{"a comma before the token", []string{"Bearer ,GOOD"}, "ErrRequest"},
		{"a comma after the token", []string{"Bearer GOOD,"}, "ErrRequest"},
		{"two tokens", []string{"Bearer GOOD GOOD"}, "ErrRequest"},
		{"two tokens with a comma", []string{"Bearer GOOD,GOOD"}, "ErrRequest"},
		{"two schemes in one field", []string{"Bearer GOOD, Basic x"}, "ErrRequest"},
		{"Bearer twice", []string{"Bearer Bearer GOOD"}, "ErrRequest"},
		{"a parameter in place of a token", []string{`Bearer token="GOOD"`}, "ErrRequest"},
		{"quotes around the token", []string{`Bearer "GOOD"`}, "ErrRequest"},
		{"a letter outside ASCII", []string{"Bearer é"}, "ErrRequest"},
		{"a byte outside UTF-8", []string{"Bearer \xff"}, "ErrRequest"},
		{"padding alone", []string{"Bearer =="}, "ErrRequest"},
		{"padding inside the token", []string{"Bearer a=b"}, "ErrRequest"},
		{"a star", []string{"Bearer *"}, "ErrRequest"},

		{"two fields", []string{"Bearer GOOD", "Bearer GOOD"}, "ErrRequest"},
		{"two fields, the first Basic", []string{"Basic x", "Bearer GOOD"}, "ErrRequest"},
		{"two fields, the first empty", []string{"", "Bearer GOOD"}, "ErrRequest"},
		{"two empty fields", []string{"", ""}, "ErrRequest"},

		{"token68 with every character and padding", []string{"Bearer aZ09-._~+/=="}, "ErrMalformed"},
		{"8192 bytes that are no token", []string{long(8192)}, "ErrMalformed"},
		{"8193 bytes", []string{long(8193)}, "ErrRequest"},
		{"a megabyte", []string{long(1 << 20)}, "ErrRequest"},
		{"8193 dots", []string{"Bearer " + strings.Repeat(".", 8193)}, "ErrRequest"},
		{"8192 dots", []string{"Bearer " + strings.Repeat(".", 8192)}, "ErrMalformed"},
	}
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	require.NoError(t, err)
	good := issuer.Token("https://shopping.api", "read:products")

	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			request := httptest.NewRequest(http.MethodGet, "/products", nil)
			for _, field := range test.fields {
				request.Header.Add("Authorization", strings.ReplaceAll(field, "GOOD", good))
			}
			claims, err := guard.Check(request, m2mauth.AllScopes("read:products"))
			testguard.AssertKind(t, test.want, err)
			assert.Equal(t, err == nil, !claims.IsZero())
			claims, err = guard.CheckRequest(t.Context(), testguard.Headers{Fields: request.Header}, m2mauth.AllScopes("read:products"))
			testguard.AssertKind(t, test.want, err)
			assert.Equal(t, err == nil, !claims.IsZero())

			recorder := httptest.NewRecorder()
			guard.Require("read:products")(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusNoContent)
			})).ServeHTTP(recorder, request)
			switch test.want {
			case "":
				assert.Equal(t, http.StatusNoContent, recorder.Code)
			case "ErrNoToken":
				assert.Equal(t, http.StatusUnauthorized, recorder.Code)
				assert.Equal(t, []string{`Bearer realm="https://shopping.api", scope="read:products"`}, recorder.Header().Values("WWW-Authenticate"),
					"without credentials no error is told (RFC 6750 §3.1)")
				assert.JSONEq(t, `"unauthorized"`, member(t, recorder, "error"))
				assert.Equal(t, "no-store", recorder.Header().Get("Cache-Control"))
			case "ErrRequest":
				assert.Equal(t, http.StatusBadRequest, recorder.Code)
				assertRefusal(t, recorder, fixture{Status: http.StatusBadRequest})
			case "ErrMalformed":
				assert.Equal(t, http.StatusUnauthorized, recorder.Code)
				assertRefusal(t, recorder, fixture{Status: http.StatusUnauthorized, All: []string{"read:products"}})
			}
		})
	}
}

// member returns a member of a recorded JSON object, in JSON.
func member(t *testing.T, recorder *httptest.ResponseRecorder, name string) string {
	t.Helper()
	var body map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(recorder.Body.Bytes(), &body))
	return string(body[name])
}

// TestCredentialsElsewhere holds that the Authorization field is the only place
// where a token is looked for.
func TestCredentialsElsewhere(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	require.NoError(t, err)
	good := issuer.Token("https://shopping.api", "read:products")

	form := httptest.NewRequest(http.MethodPost, "/products", strings.NewReader("access_token="+good))
	form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	query := httptest.NewRequest(http.MethodGet, "/products?access_token="+good, nil)
	cookie := httptest.NewRequest(http.MethodGet, "/products", nil)
	cookie.AddCookie(&http.Cookie{Name: "access_token", Value: good})
	proxy := httptest.NewRequest(http.MethodGet, "/products", nil)
	proxy.Header.Set("Proxy-Authorization", "Bearer "+good)
	forwarded := httptest.NewRequest(http.MethodGet, "/products", nil)
	forwarded.Header.Set("X-Forwarded-Authorization", "Bearer "+good)

	for name, request := range map[string]*http.Request{
		"a token in a form":                              form,
		"a token in the query":                           query,
		"a token in a cookie":                            cookie,
		"a token in the field Proxy-Authorization":       proxy,
		"a token in the field X-Forwarded-Authorization": forwarded,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims, err := guard.Check(request, m2mauth.AnyToken())
			testguard.AssertKind(t, "ErrNoToken", err)
			assert.True(t, claims.IsZero())
			if request == form {
				require.NoError(t, request.ParseForm())
				assert.Equal(t, good, request.PostForm.Get("access_token"), "the body is left to the handler")
			}
		})
	}
}

// TestZeroRule holds that a Rule nobody made lets nobody through.
func TestZeroRule(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	require.NoError(t, err)
	request := httptest.NewRequest(http.MethodGet, "/products", nil)
	request.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
	claims, err := guard.Check(request, m2mauth.Rule{})
	testguard.AssertKind(t, "ErrForbidden", err)
	assert.True(t, claims.IsZero())
	assert.Panics(t, func() { guard.RequireRule(m2mauth.Rule{}) }, "a route that nobody can open is a mistake of its author")
}
