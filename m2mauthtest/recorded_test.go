package m2mauthtest_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const (
	recordings     = "../testdata/logto"
	recordedOrigin = "http://localhost:3001"

	recordedOrganization = "vsxya5my4bm6"
)

// exchange is a request and the answer of the recorded server.
type exchange struct {
	method, path string
	sent         http.Header
	sentBody     string
	status       int
	header       http.Header
	body         string
}

// readExchanges returns the recorded exchanges by name, the first of each name.
func readExchanges(t *testing.T) map[string]exchange {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(recordings, "http-exchanges.txt"))
	require.NoError(t, err)
	exchanges := map[string]exchange{}
	for part := range strings.SplitSeq(string(file), "\n--- ") {
		name, part, _ := strings.Cut(part, "\n")
		e := exchange{sent: http.Header{}, header: http.Header{}}
		header, body := e.sent, &e.sentBody
		inBody := false
		for line := range strings.Lines(part) {
			line = strings.TrimRight(line, "\n")
			rest, isResponse := strings.CutPrefix(line, "<")
			rest, isRequest := strings.CutPrefix(rest, ">")
			rest = strings.TrimPrefix(rest, " ")
			field, value, _ := strings.Cut(rest, ": ")
			switch {
			case !isRequest && !isResponse: // between exchanges
			case isRequest && e.method == "":
				words := strings.Fields(rest)
				e.method, e.path = words[0], words[1]
			case isResponse && e.status == 0:
				e.status, err = strconv.Atoi(strings.Fields(rest)[1])
				require.NoError(t, err, name)
				header, body, inBody = e.header, &e.body, false
			case rest == "":
				inBody = true
			case inBody:
				*body = rest
			default:
				header.Add(field, value)
			}
		}
		if _, ok := exchanges[name]; !ok && e.method != "" {
			exchanges[name] = e
		}
	}
	require.NotEmpty(t, exchanges)
	return exchanges
}

// sameHeaders compares the fields that the kit models.
func sameHeaders(t *testing.T, want, got http.Header) {
	t.Helper()
	for _, field := range []string{
		"Content-Type", "Cache-Control", "WWW-Authenticate", "Vary",
		"Access-Control-Allow-Origin", "Access-Control-Expose-Headers",
	} {
		assert.Equal(t, want.Get(field), got.Get(field), field)
	}
	assert.Equal(t, want.Get("ETag") != "", got.Get("ETag") != "", "ETag is there or not")
}

// do sends a request to the issuer in memory.
func do(t *testing.T, issuer *m2mauthtest.Issuer, method, url string, header http.Header, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	if header != nil {
		req.Header = header
	}
	resp, err := issuer.Client().Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	read, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(read)
}

func TestDocumentsAreAnsweredAsRecorded(t *testing.T) {
	t.Parallel()
	exchanges := readExchanges(t)
	issuer := m2mauthtest.NewIssuer()
	origin := strings.TrimSuffix(issuer.URL(), "/oidc")
	for _, name := range []string{
		"discovery", "oauth-as-metadata", "discovery-at-root-without-oidc", "oauth-as-metadata-rfc8414-path",
		"jwks-initial", "jwks-head", "token-get",
	} {
		t.Run(name, func(t *testing.T) {
			e, ok := exchanges[name]
			require.True(t, ok)
			resp, body := do(t, issuer, e.method, origin+e.path, nil, "")
			assert.Equal(t, e.status, resp.StatusCode)
			sameHeaders(t, e.header, resp.Header)
			if name == "jwks-initial" {
				assert.Equal(t, shape(t, e.body), shape(t, body))
				assert.Equal(t, len(e.body), len(body))
				return
			}
			if name == "jwks-head" {
				assert.Equal(t, e.header.Get("Content-Length"), resp.Header.Get("Content-Length"))
			}
			assert.Equal(t, strings.ReplaceAll(e.body, recordedOrigin, origin), body)
		})
	}
}

// shape replaces the values of key IDs and coordinates by their lengths.
func shape(t *testing.T, jwks string) string {
	t.Helper()
	values := regexp.MustCompile(`"(kid|x|y|e|n)":"([A-Za-z0-9_-]*)"`)
	return values.ReplaceAllStringFunc(jwks, func(member string) string {
		m := values.FindStringSubmatch(member)
		return m[1] + strconv.Itoa(len(m[2]))
	})
}

func TestAnAnswerThatTheClientHasIsNotSentAgain(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	want := readExchanges(t)["jwks-if-none-match"]
	for _, url := range []string{issuer.JWKSURL(), issuer.URL() + "/.well-known/openid-configuration"} {
		resp, body := do(t, issuer, "GET", url, nil, "")
		tag := resp.Header.Get("ETag")
		require.Regexp(t, `^"[^"]+"$`, tag, "a strong tag")
		require.NotEmpty(t, body)

		for _, condition := range []string{tag, `"other", ` + tag, "W/" + tag, "*"} {
			resp, body = do(t, issuer, "GET", url, http.Header{"If-None-Match": {condition}}, "")
			assert.Equal(t, http.StatusNotModified, resp.StatusCode)
			assert.Empty(t, body)
			assert.Equal(t, tag, resp.Header.Get("ETag"))
			if url == issuer.JWKSURL() {
				sameHeaders(t, want.header, resp.Header)
			}
		}
		resp, _ = do(t, issuer, "GET", url, http.Header{"If-None-Match": {`"other"`}}, "")
		assert.Equal(t, http.StatusOK, resp.StatusCode)

		issuer.Rotate("RS256")
		resp, _ = do(t, issuer, "GET", url, http.Header{"If-None-Match": {tag}}, "")
		assert.Equal(t, http.StatusOK, resp.StatusCode, "the document has changed")
		assert.NotEqual(t, tag, resp.Header.Get("ETag"))
	}
}

func TestDiscoveryFollowsTheKeysAsRecorded(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile(filepath.Join(recordings, "openid-configuration-after-rsa-rotation.json"))
	require.NoError(t, err)
	issuer := m2mauthtest.NewIssuer()
	issuer.Rotate("RS256")
	_, body := do(t, issuer, "GET", issuer.URL()+"/.well-known/openid-configuration", nil, "")
	assert.Equal(t, strings.ReplaceAll(string(want), recordedOrigin, "https://issuer.test"), body)
}

// TestTokenRequestsAreAnsweredAsRecorded sends every recorded request for client
// credentials again and expects what the real server answered: status, header,
// body and the form of the token.
func TestTokenRequestsAreAnsweredAsRecorded(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	issuer.AddResource("https://shopping.api", "read:products", "write:products")
	issuer.AddResource("https://billing.api", "read:products")
	issuer.AddResource("https://default.logto.app/api", "all")
	issuer.AddRole("reader", "https://shopping.api", "read:products")
	issuer.AddRole("writer", "https://shopping.api", "write:products")
	issuer.AddRole("editor", "https://shopping.api", "read:products", "write:products")
	issuer.AddRole("management", "https://default.logto.app/api", "all")

	issuer.AddOrganization(recordedOrganization)
	issuer.AddOrganizationRole("accountant", "", "read:invoices", "manage:members")
	issuer.AddOrganizationRole("accountant", "https://shopping.api", "read:products", "write:products")

	apps := map[string]m2mauthtest.App{ // by the recorded ID
		"n3yy35gu6stj54elg5a66": issuer.AddApp("reads", "reader"),
		"yff3m04i9womqi9t1lwr5": issuer.AddApp("writes", "writer"),
		"gpw3s14tu6d1hr5oqf6ii": issuer.AddApp("edits", "editor"),
		"7dcgcy07ukch3ug8bxpjm": issuer.AddApp("no role"),
		"f5l9o797p9lgos6o9fome": issuer.AddApp("manages", "management"),
		"jr8bqla2lc2yyc6a8jfle": issuer.AddApp("in an organization"),
		"dgsif0qc8vvctnnr9ldu0": issuer.AddApp("deleted"),
		"nosuchclient":          {ID: "nosuchclient", Secret: "any"},
	}
	issuer.RemoveApp(apps["dgsif0qc8vvctnnr9ldu0"].ID)
	issuer.AddToOrganization(recordedOrganization, apps["jr8bqla2lc2yyc6a8jfle"].ID, "accountant")

	notModelled := map[string]string{
		"user":                                   "users",
		"user-no-role":                           "users",
		"user-opaque-no-resource":                "users",
		"err-web-app-client-credentials":         "web apps",
		"err-user-not-in-organization":           "users",
		"err-subject-token-unknown":              "users",
		"err-expired-secret":                     "secrets that expire",
		"err-custom-claims-deny-access":          "claims scripts",
		"m2m-custom-claims":                      "claims scripts",
		"m2m-default-resource-no-resource-param": "has its own test",
		"rs256-after-rotation":                   "has its own test",
	}

	replayed := 0
	for name, e := range readExchanges(t) {
		if e.path != "/oidc/token" || e.method != "POST" || notModelled[name] != "" {
			continue
		}
		replayed++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header := e.sent.Clone()
			header.Del("Content-Length")
			basic := regexp.MustCompile(`Basic <(\w+):(\w+)>`).FindStringSubmatch(header.Get("Authorization"))
			if basic != nil {
				app, ok := apps[basic[1]]
				require.True(t, ok, basic[1])
				secret := basic[2]
				if secret == "secret" {
					secret = app.Secret
				}
				header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(app.ID+":"+secret)))
			}
			sent, want := e.sentBody, e.body
			challenge := strings.ReplaceAll(e.header.Get("WWW-Authenticate"), recordedOrigin, "https://issuer.test")
			for id, app := range apps {
				if strings.Contains(sent, "client_id="+id) {
					sent = strings.ReplaceAll(sent, "<secret>", app.Secret)
				}
				sent = strings.ReplaceAll(sent, id, app.ID)
				want = strings.ReplaceAll(want, id, app.ID)
			}
			if challenge != "" {
				e.header.Set("WWW-Authenticate", challenge)
			}

			resp, body := do(t, issuer, e.method, issuer.TokenURL(), header, sent)
			assert.Equal(t, e.status, resp.StatusCode)
			sameHeaders(t, e.header, resp.Header)
			if e.status != http.StatusOK {
				assert.Equal(t, want, body)
				return
			}
			token := regexp.MustCompile(`"access_token":"([^"]*)"`).FindStringSubmatch(body)
			require.NotNil(t, token)
			mark := regexp.MustCompile(`"access_token":"(<[^"]*>)"`).FindStringSubmatch(want)
			assert.Equal(t, want, strings.Replace(body, token[1], mark[1], 1))
			if recorded, ok := strings.CutSuffix(strings.TrimPrefix(mark[1], "<"), ".jwt>"); ok {
				sameForm(t, recorded+".jwt", token[1])
			}
		})
	}
	assert.Equal(t, 35, replayed)
}

// sameForm compares the members of a token with those of a recorded one: names
// and order, and the values that do not depend on app, time and key.
func sameForm(t *testing.T, file, token string) {
	t.Helper()
	recorded, err := os.ReadFile(filepath.Join(recordings, file))
	require.NoError(t, err)
	want := strings.Split(strings.TrimSpace(string(recorded)), ".")
	got := strings.Split(token, ".")
	require.Len(t, got, 3)
	assert.Len(t, got[2], len(want[2]), "length of the signature")
	for n := range 2 {
		wantNames, wantValues := members(t, want[n])
		gotNames, gotValues := members(t, got[n])
		assert.Equal(t, wantNames, gotNames)
		for _, name := range []string{"alg", "typ", "scope", "aud", "organization_id"} {
			assert.Equal(t, wantValues[name], gotValues[name], name)
		}
		assert.Equal(t, len(str(wantValues["jti"])), len(str(gotValues["jti"])), "length of jti")
		assert.Equal(t, len(str(wantValues["kid"])), len(str(gotValues["kid"])), "length of kid")
		assert.Equal(t, len(str(wantValues["sub"])), len(str(gotValues["sub"])), "length of sub")
		assert.Equal(t, gotValues["sub"], gotValues["client_id"])
	}
}

func str(v any) string {
	s, _ := v.(string)
	return s
}

// members returns the names in their order, and the values.
func members(t *testing.T, part string) ([]string, map[string]any) {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(part)
	require.NoError(t, err)
	var values map[string]any
	require.NoError(t, json.Unmarshal(b, &values))
	var names []string
	dec := json.NewDecoder(bytes.NewReader(b))
	_, err = dec.Token()
	require.NoError(t, err)
	for dec.More() {
		name, err := dec.Token()
		require.NoError(t, err)
		names = append(names, name.(string))
		var value json.RawMessage
		require.NoError(t, dec.Decode(&value))
	}
	return names, values
}
