package m2mauthtest_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// The recorded exchanges are replayed in recorded_test.go. Here is what they
// leave out.

var formType = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}

func shop() (*m2mauthtest.Issuer, m2mauthtest.App) {
	issuer := m2mauthtest.NewIssuer()
	issuer.AddResource("https://shopping.api", "read:products", "write:products", "délete")
	issuer.AddResource("https://billing.api", "read:bills")
	issuer.AddRole("editor", "https://shopping.api", "read:products", "write:products")
	return issuer, issuer.AddApp("edits", "editor")
}

// answer is any answer of the token endpoint.
type answer struct {
	AccessToken string  `json:"access_token"`
	ExpiresIn   int64   `json:"expires_in"`
	TokenType   string  `json:"token_type"`
	Scope       *string `json:"scope"`
	Error       string  `json:"error"`
	Description string  `json:"error_description"`
}

// request asks for a token with client_secret_post and the parameters given.
func request(t *testing.T, issuer *m2mauthtest.Issuer, app m2mauthtest.App, params url.Values) (int, answer) {
	t.Helper()
	form := url.Values{
		"grant_type":    {"client_credentials"},
		"client_id":     {app.ID},
		"client_secret": {app.Secret},
		"resource":      {"https://shopping.api"},
	}
	for name, values := range params {
		form[name] = values
	}
	return send(t, issuer, formType.Clone(), form.Encode())
}

func send(t *testing.T, issuer *m2mauthtest.Issuer, header http.Header, body string) (int, answer) {
	t.Helper()
	resp, got := do(t, issuer, "POST", issuer.TokenURL(), header, body)
	var a answer
	require.NoError(t, json.Unmarshal([]byte(got), &a), got)
	return resp.StatusCode, a
}

func TestScopesAreGrantedInTheOrderOfTheRequest(t *testing.T) {
	t.Parallel()
	issuer, app := shop()
	tests := []struct{ name, asked, granted string }{
		{"as asked", "read:products write:products", "read:products write:products"},
		{"the other way round", "write:products read:products", "write:products read:products"},
		{"each once", "read:products write:products read:products", "read:products write:products"},
		{"doubled spaces are cleaned", " read:products  write:products ", "read:products write:products"},
		{"less than the role grants", "write:products", "write:products"},
		{"unknown ones are dropped", "nope read:products offline_access", "read:products"},
		{"ungranted ones are dropped", "délete write:products", "write:products"},
		{"another resource's are dropped", "read:bills", ""},
		{"letter case matters", "READ:PRODUCTS", ""},
		{"only U+0020 separates", "read:products\twrite:products", ""},
		{"nothing asked", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			status, a := request(t, issuer, app, url.Values{"scope": {tt.asked}})
			require.Equal(t, http.StatusOK, status)
			_, claims := members(t, strings.Split(a.AccessToken, ".")[1])
			if tt.granted == "" {
				assert.Nil(t, a.Scope)
				assert.NotContains(t, claims, "scope")
				return
			}
			require.NotNil(t, a.Scope)
			assert.Equal(t, tt.granted, *a.Scope)
			assert.Equal(t, tt.granted, claims["scope"])
		})
	}
}

func TestARoleGrowsWithItsNextScopes(t *testing.T) {
	t.Parallel()
	issuer, app := shop()
	bills := url.Values{"resource": {"https://billing.api"}, "scope": {"read:bills read:products"}}
	_, a := request(t, issuer, app, bills)
	assert.Nil(t, a.Scope)

	issuer.AddRole("editor", "https://billing.api", "read:bills")
	_, a = request(t, issuer, app, bills)
	require.NotNil(t, a.Scope)
	assert.Equal(t, "read:bills", *a.Scope)

	issuer.AddRole("editor", "https://shopping.api", "délete")
	_, a = request(t, issuer, app, url.Values{"scope": {"délete read:products"}})
	require.NotNil(t, a.Scope)
	assert.Equal(t, "délete read:products", *a.Scope)
}

func TestTheDefaultResourceFillsIn(t *testing.T) {
	t.Parallel()
	issuer, app := shop()
	issuer.SetDefaultResource("https://shopping.api")
	status, a := request(t, issuer, app, url.Values{"resource": nil, "scope": {"read:products"}})
	require.Equal(t, http.StatusOK, status)
	sameForm(t, "m2m-default-resource-no-resource-param.jwt", a.AccessToken)

	status, a = request(t, issuer, app, url.Values{"resource": {"https://nope.api"}})
	assert.Equal(t, http.StatusBadRequest, status, "it is no fallback for an unknown one")
	assert.Equal(t, "invalid_target", a.Error)

	issuer.SetDefaultResource("")
	status, _ = request(t, issuer, app, url.Values{"resource": nil})
	assert.Equal(t, http.StatusBadRequest, status)
}

func TestTheLifetimeOfAResource(t *testing.T) {
	t.Parallel()
	issuer, app := shop()
	issuer.SetTokenLifetime("https://shopping.api", 2*time.Second)
	_, a := request(t, issuer, app, nil)
	_, claims := members(t, strings.Split(a.AccessToken, ".")[1])
	assert.EqualValues(t, 2, a.ExpiresIn)
	assert.EqualValues(t, 2, claims["exp"].(float64)-claims["iat"].(float64))

	_, a = request(t, issuer, app, url.Values{"resource": {"https://billing.api"}})
	assert.EqualValues(t, 3600, a.ExpiresIn)
}

func TestTokensAreSignedWithTheCurrentKey(t *testing.T) {
	t.Parallel()
	issuer, app := shop()
	for _, alg := range []string{"ES384", "RS256"} {
		kid := issuer.Rotate(alg)
		_, a := request(t, issuer, app, url.Values{"scope": {"read:products write:products"}})
		assert.Equal(t, kid, kidOf(t, a.AccessToken))
		assert.True(t, verified(t, a.AccessToken, publishedKeys(t, issuer)))
		if alg == "RS256" {
			recorded, _ := members(t, strings.Split(a.AccessToken, ".")[1])
			assert.Equal(t, []string{"jti", "sub", "iat", "exp", "scope", "client_id", "iss", "aud"}, recorded)
		}
	}
}

func TestARemovedAppGetsNoToken(t *testing.T) {
	t.Parallel()
	issuer, app := shop()
	issuer.RemoveApp(app.ID)
	status, a := request(t, issuer, app, nil)
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Equal(t, answer{Error: "invalid_client", Description: "invalid client " + app.ID}, a)
}

func TestBasicCredentialsAreFormEncoded(t *testing.T) {
	t.Parallel()
	issuer, app := shop()
	percent := func(s string) string {
		var b strings.Builder
		for _, c := range []byte(s) {
			fmt.Fprintf(&b, "%%%02X", c)
		}
		return b.String()
	}
	body := url.Values{"grant_type": {"client_credentials"}, "resource": {"https://shopping.api"}}.Encode()
	basic := func(credentials string) (int, answer) {
		h := formType.Clone()
		h.Set("Authorization", "bAsIc "+base64.StdEncoding.EncodeToString([]byte(credentials)))
		return send(t, issuer, h, body)
	}
	status, _ := basic(percent(app.ID) + ":" + percent(app.Secret))
	assert.Equal(t, http.StatusOK, status)

	for _, malformed := range []string{app.ID, app.ID + ":%zz", "%zz:" + app.Secret} {
		status, a := basic(malformed)
		assert.Equal(t, http.StatusBadRequest, status)
		assert.Equal(t, "invalid_request", a.Error)
	}
}

func TestRequestsThatAreNotOfTheProtocol(t *testing.T) {
	t.Parallel()
	issuer, app := shop()
	auth := "Basic " + base64.StdEncoding.EncodeToString([]byte(app.ID+":"+app.Secret))
	good := "grant_type=client_credentials&resource=https%3A%2F%2Fshopping.api"
	tests := []struct {
		name, contentType, authorization, body, want string
	}{
		{"two mechanisms", formType.Get("Content-Type"), auth, good + "&client_secret=x", "invalid_request"},
		{"a bearer token", formType.Get("Content-Type"), "Bearer x", good, "invalid_request"},
		{"a parameter twice", formType.Get("Content-Type"), auth, good + "&scope=a&scope=b", "invalid_request"},
		{"a form that is none", formType.Get("Content-Type"), auth, good + "&x=%zz", "invalid_request"},
		{"JSON that is none", "application/json", auth, good, "invalid_request"},
		{"too much", formType.Get("Content-Type"), auth, good + "&x=" + strings.Repeat("x", 64<<10), "invalid_request"},
		{"another content type", "text/plain", auth, good, "invalid_request"},
		{"a fragment", formType.Get("Content-Type"), auth, good + "%23f", "invalid_target"},
		{"two resources in JSON", "application/json", auth,
			`{"grant_type":"client_credentials","resource":["https://shopping.api","https://billing.api"]}`, "invalid_target"},
		{"an organization", formType.Get("Content-Type"), auth, good + "&organization_id=x", "access_denied"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{"Content-Type": {tt.contentType}, "Authorization": {tt.authorization}}
			status, a := send(t, issuer, h, tt.body)
			assert.Contains(t, []int{http.StatusBadRequest, http.StatusForbidden}, status)
			assert.Equal(t, tt.want, a.Error)
			assert.NotContains(t, a.Description, app.Secret)
			assert.Empty(t, a.AccessToken)
		})
	}
	status, _ := send(t, issuer, http.Header{"Content-Type": formType["Content-Type"], "Authorization": {auth}}, good)
	assert.Equal(t, http.StatusOK, status, "the request that they change is good")
}
