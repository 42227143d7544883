// Package e2e tests the example servers as a caller sees them: as processes,
// with tokens of a real OpenID Connect server, over the network.
package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/e2e/internal/issuer"
	"github.com/m2mauth/m2mauth/e2e/internal/process"
)

// servers are the examples that have the routes of examples/shop.
var servers = []string{"shop", "chi", "gin", "echo", "echo4", "fiber", "fiber2"}

// patience ends the wait for what does not come. A pause of the guard takes up to
// 30 s of it, and a busy machine some more.
const patience = 3 * time.Minute

const (
	read  = "read:products"
	write = "write:products"
)

func TestMain(m *testing.M) { process.Main(m) }

// server is an example server that runs as a process.
type server struct {
	name    string
	url     string
	process *process.Process
}

// binaries builds examples and returns the folder with their binaries.
func binaries(t *testing.T, examples ...string) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	for _, example := range examples {
		args = append(args, "./"+example)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = "../examples"
	t.Logf("go %s", strings.Join(args, " "))
	output, ok := process.Run(t, 10*time.Minute, cmd)
	require.True(t, ok, output)
	return dir
}

// start starts an example server.
func start(t *testing.T, dir, example, address string, env ...string) server {
	t.Helper()
	cmd := exec.Command(filepath.Join(dir, example))
	cmd.Env = append(os.Environ(), "ADDR="+address, "AUDIENCE="+issuer.Shopping, "JWKS_URL=", "PLAIN_HTTP_HOSTS=")
	cmd.Env = append(cmd.Env, env...)
	s := server{example, "http://" + address, process.Start(t, cmd)}
	s.process.Ready(t, s.url+"/healthz")
	return s
}

// step is one part of a story, which ends if it fails.
func step(t *testing.T, name string, test func(*testing.T)) {
	t.Helper()
	if !t.Run(name, test) {
		t.FailNow()
	}
}

type answer struct {
	status      int
	challenge   string
	retryAfter  string
	body        string
	description string // error_description
}

// call sends a request with the token; "" is none.
func (s server) call(t *testing.T, method, path, token string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, nil)
	require.NoError(t, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	a := answer{
		status:     response.StatusCode,
		challenge:  response.Header.Get("WWW-Authenticate"),
		retryAfter: response.Header.Get("Retry-After"),
		body:       string(body),
	}
	if a.status >= 400 {
		var refusal struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}
		require.NoError(t, json.Unmarshal(body, &refusal), "%s", body)
		a.description = refusal.Description
	}
	t.Logf("%-13s %-4s %-22s %d %s", s.name, method, path, a.status, a.description)
	return a
}

// expect is call, for one status, and for a challenge where RFC 6750 wants it.
func (s server) expect(t *testing.T, status int, method, path, token string) answer {
	t.Helper()
	a := s.call(t, method, path, token)
	assert.Equal(t, status, a.status, "%s: %s %s: %s", s.name, method, path, a.body)
	switch status {
	case 401:
		assert.Contains(t, a.challenge, `Bearer realm="https://shopping.api"`, s.name)
		assert.Equal(t, token != "", strings.Contains(a.challenge, `error="invalid_token"`), "%s: %s", s.name, a.challenge)
	case 403:
		assert.Contains(t, a.challenge, `error="insufficient_scope"`, s.name)
	default:
		assert.Empty(t, a.challenge, s.name)
	}
	return a
}

// eventually asks for the products until the status is the one wanted, and until
// then accepts no other than meanwhile.
func (s server) eventually(t *testing.T, want, meanwhile int, token string) answer {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(250 * time.Millisecond) {
		a := s.call(t, "GET", "/products", token)
		if a.status == want {
			return a
		}
		require.Equal(t, meanwhile, a.status, "%s: %s", s.name, a.body)
		require.True(t, time.Now().Before(deadline), "%s: still %d", s.name, a.status)
	}
}

// algorithm returns the alg of a token's header.
func algorithm(t *testing.T, token string) string {
	t.Helper()
	part, _, _ := strings.Cut(token, ".")
	data, err := base64.RawURLEncoding.DecodeString(part)
	require.NoError(t, err)
	var header struct{ Alg, Typ string }
	require.NoError(t, json.Unmarshal(data, &header))
	assert.Equal(t, "at+jwt", header.Typ)
	return header.Alg
}

// servesWhoAmI finds GET /whoami, which is a route of these servers only, where it
// is given to a router.
var servesWhoAmI = regexp.MustCompile("[\"`](GET )?/whoami[\"`]")

func TestEveryServerWithTheRoutesOfTheShopIsTested(t *testing.T) {
	t.Parallel()
	examples := os.DirFS("../examples")
	found := map[string]bool{}
	err := fs.WalkDir(examples, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.Name() == "internal": // what the examples and their tests share
			return fs.SkipDir
		case entry.Name() == "openapi": // handlers that are no programs, with tests beside them
			return fs.SkipDir
		case path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		source, err := fs.ReadFile(examples, name)
		if servesWhoAmI.Match(source) {
			found[path.Dir(name)] = true
		}
		return err
	})
	require.NoError(t, err)
	assert.ElementsMatch(t, slices.Collect(maps.Keys(found)), servers)
}

func TestExampleServers(t *testing.T) {
	oidc := issuer.Start(t)
	dir := binaries(t, servers...)
	addresses := process.FreeAddresses(t, len(servers)+1)
	var apis []server
	for i, example := range servers {
		apis = append(apis, start(t, dir, example, addresses[i], "ISSUER="+oidc.URL))
	}
	var tokens []string // all that were sent, which no log may show
	token := func(t *testing.T, app, resource string, scopes ...string) string {
		t.Helper()
		token := oidc.Token(t, app, resource, scopes...)
		tokens = append(tokens, token)
		return token
	}

	step(t, "scopes decide", func(t *testing.T) {
		reader := token(t, "reader", issuer.Shopping, read, write) // write is not granted, and left out
		writer := token(t, "writer", issuer.Shopping, write)
		editor := token(t, "editor", issuer.Shopping, read, write)
		noRole := token(t, "no-role", issuer.Shopping, read)
		assert.Equal(t, "ES384", algorithm(t, reader))
		for _, api := range apis {
			api.expect(t, 200, "GET", "/healthz", "")
			assert.Contains(t, api.expect(t, 200, "GET", "/products", reader).body, "Coffee grinder")
			refused := api.expect(t, 403, "POST", "/products", reader)
			assert.Contains(t, refused.challenge, `scope="write:products"`)
			api.expect(t, 201, "POST", "/products", writer)
			api.expect(t, 403, "GET", "/products", writer)
			api.expect(t, 200, "GET", "/products", editor)
			api.expect(t, 201, "POST", "/products", editor)
			api.expect(t, 403, "GET", "/products", noRole)
			api.expect(t, 403, "POST", "/products", noRole)
			assert.JSONEq(t, `{"app_id":"reader","client_id":"reader","scopes":["read:products"]}`,
				api.expect(t, 200, "GET", "/whoami", reader).body)
			assert.JSONEq(t, `{"app_id":"no-role","client_id":"no-role","scopes":[]}`,
				api.expect(t, 200, "GET", "/whoami", noRole).body)
		}
	})

	step(t, "no token and tokens for others are refused", func(t *testing.T) {
		good := token(t, "editor", issuer.Shopping, read)
		billing := token(t, "editor", issuer.Billing, read)
		opaque, err := oidc.Request(t, "editor", nil, read)
		require.NoError(t, err)
		require.NotContains(t, opaque, ".")
		organization, err := oidc.Request(t, "reader", url.Values{"organization_id": {issuer.Organization}}, "read:invoices")
		require.NoError(t, err)
		limited, err := oidc.Request(t, "reader",
			url.Values{"organization_id": {issuer.Organization}, "resource": {issuer.Shopping}}, read)
		require.NoError(t, err)
		tokens = append(tokens, opaque, organization, limited)
		for _, api := range apis {
			api.expect(t, 401, "GET", "/products", "")
			api.expect(t, 401, "POST", "/products", "")
			api.expect(t, 401, "GET", "/whoami", "")
			assert.Contains(t, api.expect(t, 401, "GET", "/products", billing).description, "another resource")
			assert.Contains(t, api.expect(t, 401, "GET", "/products", opaque).description, "opaque")
			assert.Contains(t, api.expect(t, 401, "GET", "/products", organization).description, "organization token")
			assert.Contains(t, api.expect(t, 403, "GET", "/products", limited).description, "limited to an organization")
			assert.Contains(t, api.expect(t, 401, "GET", "/whoami", forge(t, good)).description, "signature")
		}
	})

	step(t, "another issuer's tokens are refused", func(t *testing.T) {
		other := issuer.Start(t)
		foreign := other.Token(t, "reader", issuer.Shopping, read)
		tokens = append(tokens, foreign)
		for _, api := range apis {
			assert.Contains(t, api.expect(t, 401, "GET", "/products", foreign).description, "another issuer")
		}
		assert.Zero(t, other.Fetches(t), "nobody asks an issuer that only a token names")
	})

	step(t, "each server has asked for the keys once", func(t *testing.T) {
		assert.Equal(t, len(apis), oidc.Fetches(t))
	})

	step(t, "time counts, with 30 s of leeway", func(t *testing.T) {
		defer oidc.SetClock(t, 0)
		defer oidc.SetLifetime(t, time.Hour)
		for _, test := range []struct {
			name     string
			clock    time.Duration
			lifetime time.Duration
			status   int
			says     string
		}{
			{"expired an hour ago", -2 * time.Hour, time.Hour, 401, "expired"},
			{"lived two seconds, expired 38 s ago", -40 * time.Second, 2 * time.Second, 401, "expired"},
			{"lived two seconds, expired a second ago", -3 * time.Second, 2 * time.Second, 200, ""},
			{"the issuer's clock is 10 s ahead", 10 * time.Second, time.Hour, 200, ""},
			{"issued in an hour", time.Hour, time.Hour, 401, "not valid yet"},
		} {
			oidc.SetClock(t, test.clock)
			oidc.SetLifetime(t, test.lifetime)
			for _, api := range apis {
				t.Log(test.name)
				a := api.expect(t, test.status, "GET", "/products", token(t, "reader", issuer.Shopping, read))
				assert.Contains(t, a.description, test.says)
			}
		}
	})

	step(t, "keys rotate: ES384, RS256 and back", func(t *testing.T) {
		first := token(t, "reader", issuer.Shopping, read)
		for _, api := range apis {
			api.expect(t, 200, "GET", "/products", first)
		}
		fetches := oidc.Fetches(t)

		oidc.Rotate(t, "RS256")
		second := token(t, "reader", issuer.Shopping, read)
		require.Equal(t, "RS256", algorithm(t, second))
		for _, api := range apis {
			api.eventually(t, 200, 401, second) // 401 for the second after another fetch, at most
			api.expect(t, 200, "GET", "/products", first)
			api.expect(t, 200, "GET", "/whoami", first)
			api.expect(t, 403, "POST", "/products", second)
		}

		oidc.Rotate(t, "ES384")
		third := token(t, "reader", issuer.Shopping, read)
		require.Equal(t, "ES384", algorithm(t, third))
		for _, api := range apis {
			api.eventually(t, 200, 401, third)
			api.expect(t, 200, "GET", "/products", second)
		}
		assert.Equal(t, fetches+2*len(apis), oidc.Fetches(t), "each server asks once for each new key")

		for _, api := range apis { // it was remembered, and its key is gone
			assert.Contains(t, api.expect(t, 401, "GET", "/products", first).description, "key")
		}
	})

	step(t, "the issuer stops for a while", func(t *testing.T) {
		remembered := token(t, "reader", issuer.Shopping, read)
		for _, api := range apis {
			api.expect(t, 200, "GET", "/products", remembered)
		}
		unseen := token(t, "editor", issuer.Shopping, read)
		oidc.Rotate(t, "RS256")
		unknown := token(t, "reader", issuer.Shopping, read) // no server knows its key yet
		oidc.Stop()
		t.Log("the issuer is down")
		late := start(t, dir, "shop", addresses[len(servers)], "ISSUER="+oidc.URL)
		for _, api := range apis {
			api.expect(t, 200, "GET", "/products", remembered)
			api.expect(t, 200, "GET", "/products", unseen)
			api.expect(t, 403, "POST", "/products", unseen)
			api.expect(t, 401, "GET", "/products", "")
			a := api.eventually(t, 503, 401, unknown) // the token may be good: 401 would be a lie
			assert.NotEmpty(t, a.retryAfter)
			assert.Empty(t, a.challenge)
			api.expect(t, 200, "GET", "/products", remembered)
		}
		late.expect(t, 200, "GET", "/healthz", "")
		assert.NotEmpty(t, late.expect(t, 503, "GET", "/products", remembered).retryAfter)

		oidc.Restart(t)
		t.Log("the issuer is up")
		fresh := token(t, "reader", issuer.Shopping, read)
		for _, api := range append(apis, late) {
			api.eventually(t, 200, 503, unknown)
			api.expect(t, 200, "GET", "/products", fresh)
			api.expect(t, 200, "GET", "/products", remembered)
			api.expect(t, 200, "GET", "/products", unseen)
		}
		late.process.Stop()
		assert.Zero(t, late.process.ExitCode())
	})

	step(t, "servers stop in order, and their logs hold no token", func(t *testing.T) {
		for _, api := range apis {
			assert.True(t, api.process.Running(), api.name)
			api.process.Stop()
			assert.Zero(t, api.process.ExitCode(), api.name)
			log := api.process.Output()
			assert.Contains(t, log, "another resource", "%s logs why it refuses", api.name)
			for _, token := range tokens {
				for part := range strings.SplitSeq(token, ".") {
					if !strings.HasPrefix(part, "eyJhbGciOi") { // the header is the same in all
						assert.NotContains(t, log, part, api.name)
					}
				}
			}
		}
	})
}

// forge changes the payload of a token and leaves its signature as it is.
func forge(t *testing.T, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	forged := bytes.Replace(payload, []byte(read), []byte(read+" "+write), 1)
	require.NotEqual(t, payload, forged)
	parts[1] = base64.RawURLEncoding.EncodeToString(forged)
	return strings.Join(parts, ".")
}

func TestOrganizations(t *testing.T) {
	oidc := issuer.Start(t)
	dir := binaries(t, "organizations")
	api := start(t, dir, "organizations", process.FreeAddresses(t, 1)[0], "ISSUER="+oidc.URL)
	organization := url.Values{"organization_id": {issuer.Organization}}
	both := url.Values{"organization_id": {issuer.Organization}, "resource": {issuer.Shopping}}

	step(t, "a token of no organization", func(t *testing.T) {
		token := oidc.Token(t, "reader", issuer.Shopping, read)
		api.expect(t, 200, "GET", "/products", token)
		api.expect(t, 403, "GET", "/orgs/acme/products", token)
		assert.Equal(t, 401, api.call(t, "GET", "/orgs/acme/invoices", token).status)
	})
	step(t, "a token for the API, of an organization", func(t *testing.T) {
		token, err := oidc.Request(t, "reader", both, read)
		require.NoError(t, err)
		api.expect(t, 403, "GET", "/products", token)
		api.expect(t, 200, "GET", "/orgs/acme/products", token)
		api.expect(t, 403, "GET", "/orgs/other/products", token)
		assert.Equal(t, 401, api.call(t, "GET", "/orgs/acme/invoices", token).status)
	})
	step(t, "an organization token", func(t *testing.T) {
		token, err := oidc.Request(t, "reader", organization, "read:invoices")
		require.NoError(t, err)
		api.expect(t, 401, "GET", "/products", token)
		api.expect(t, 401, "GET", "/orgs/acme/products", token)
		api.expect(t, 200, "GET", "/orgs/acme/invoices", token)
		api.expect(t, 403, "GET", "/orgs/other/invoices", token)
	})
	step(t, "who is no member gets no token", func(t *testing.T) {
		_, err := oidc.Request(t, "editor", both, read)
		require.ErrorContains(t, err, "access_denied")
	})
}

func TestSeveralIssuers(t *testing.T) {
	one, two, stranger := issuer.Start(t), issuer.Start(t), issuer.Start(t)
	dir := binaries(t, "issuers")
	api := start(t, dir, "issuers", process.FreeAddresses(t, 1)[0], "ISSUERS="+one.URL+","+two.URL)

	step(t, "tokens of both", func(t *testing.T) {
		for _, oidc := range []*issuer.Issuer{one, two} {
			assert.Equal(t, 200, api.call(t, "GET", "/products", oidc.Token(t, "reader", issuer.Shopping, read)).status)
			assert.Equal(t, 403, api.call(t, "GET", "/products", oidc.Token(t, "writer", issuer.Shopping, write)).status)
			assert.Equal(t, 1, oidc.Fetches(t))
		}
	})
	step(t, "not of a third", func(t *testing.T) {
		assert.Equal(t, 401, api.call(t, "GET", "/products", stranger.Token(t, "reader", issuer.Shopping, read)).status)
		assert.Zero(t, stranger.Fetches(t))
	})
	step(t, "one rotates while the other is down", func(t *testing.T) {
		two.Stop()
		one.Rotate(t, "RS256")
		api.eventually(t, 200, 401, one.Token(t, "reader", issuer.Shopping, read))
	})
}

// The claims of a real server's token, as a handler sees them. That this imports
// m2mauth also keeps go test from repeating an old result when m2mauth changes.
func TestClaims(t *testing.T) {
	oidc := issuer.Start(t)
	guard, err := m2mauth.New(m2mauth.Config{Issuer: oidc.URL, Audience: issuer.Shopping})
	require.NoError(t, err)
	require.NoError(t, guard.Warm(t.Context()))
	claims, err := guard.Verify(t.Context(), oidc.Token(t, "editor", issuer.Shopping, write, read))
	require.NoError(t, err)
	assert.Equal(t, "editor", claims.AppID())
	assert.Equal(t, "editor", claims.Subject())
	assert.Equal(t, "editor", claims.ClientID())
	assert.True(t, claims.IsMachine())
	assert.Equal(t, oidc.URL, claims.Issuer())
	assert.Equal(t, []string{issuer.Shopping}, claims.Audience())
	assert.Equal(t, "write:products read:products", claims.Scopes().String())
	assert.Equal(t, time.Hour, claims.ExpiresAt().Sub(claims.IssuedAt()))
	assert.Empty(t, claims.OrganizationID())
	assert.Len(t, claims.ID(), 43)
	assert.Equal(t, 1, oidc.Fetches(t))
}
