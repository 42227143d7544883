// Package issuer runs a real OpenID Connect server: the npm package
// oidc-provider, on which Logto is built, configured as Logto configures it.
package issuer

import (
	"embed"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/m2mauth/m2mauth/e2e/internal/npm"
	"github.com/m2mauth/m2mauth/e2e/internal/process"
)

// What server.mjs has: two API resources, the four apps that it lists, whose
// secrets are Secret of their IDs, and one organization.
const (
	Shopping     = "https://shopping.api"
	Billing      = "https://billing.api"
	Organization = "acme" // its one member is the app reader
)

// Secret returns the App Secret of an app.
func Secret(app string) string { return "secret-of-" + app }

//go:embed server.mjs package.json package-lock.json
var files embed.FS

var packages = npm.Packages{Files: files, Node: 20}

// Issuer is a running server. Its methods must not be called at the same time.
type Issuer struct {
	URL string // the issuer's identifier, which ends in /oidc

	address string
	keys    string // the file with the keys, which outlive a stop
	process *process.Process
}

// Start starts a server with a new ES384 key, on a free port of 127.0.0.1. The
// test is skipped where there is no Node.js or the packages cannot be had.
func Start(t testing.TB) *Issuer {
	t.Helper()
	if testing.Short() {
		process.Skip(t, "the end-to-end tests take half a minute, and -short was asked for")
	}
	packages.Install(t)
	address := process.FreeAddresses(t, 1)[0]
	i := &Issuer{
		URL:     "http://" + address + "/oidc",
		address: address,
		keys:    filepath.Join(t.TempDir(), "keys.json"),
	}
	i.Restart(t)
	return i
}

// Restart starts a stopped server again, with its keys and its address.
func (i *Issuer) Restart(t testing.TB) {
	t.Helper()
	_, port, err := net.SplitHostPort(i.address)
	require.NoError(t, err)
	dir, node := packages.Install(t)
	cmd := exec.Command(node, "server.mjs")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PORT="+port, "KEYS="+i.keys)
	i.process = process.Start(t, cmd)
	i.process.Ready(t, i.URL+"/.well-known/openid-configuration")
}

// Stop ends the server.
func (i *Issuer) Stop() { i.process.Stop() }

// Rotate lets a new key sign, of algorithm ES384 or RS256. The one before stays
// published, as with Logto; the one before that does not.
func (i *Issuer) Rotate(t testing.TB, algorithm string) {
	t.Helper()
	i.order(t, http.MethodPost, "rotate?alg="+algorithm)
}

// SetClock lets the server's clock run ahead of the machine's, or behind it.
func (i *Issuer) SetClock(t testing.TB, ahead time.Duration) {
	t.Helper()
	i.order(t, http.MethodPost, fmt.Sprintf("clock?offset=%v", ahead.Seconds()))
}

// SetLifetime sets the lifetime of access tokens issued from now on; it is an
// hour at first.
func (i *Issuer) SetLifetime(t testing.TB, lifetime time.Duration) {
	t.Helper()
	i.order(t, http.MethodPost, fmt.Sprintf("lifetime?seconds=%v", lifetime.Seconds()))
}

// Fetches returns how often the key set has been asked for since the start.
func (i *Issuer) Fetches(t testing.TB) int {
	t.Helper()
	n, err := strconv.Atoi(i.order(t, http.MethodGet, "fetches"))
	require.NoError(t, err)
	return n
}

func (i *Issuer) order(t testing.TB, method, path string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+i.address+"/test/"+path, nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode)
	return string(body)
}

// Token gets a token of an app for an API resource at the token endpoint, with
// those of the scopes that its role grants.
func (i *Issuer) Token(t testing.TB, app, resource string, scopes ...string) string {
	t.Helper()
	token, err := i.Request(t, app, url.Values{"resource": {resource}}, scopes...)
	require.NoError(t, err)
	assert.Equal(t, 2, strings.Count(token, "."), "a JWT")
	return token
}

// Request asks the token endpoint for a token with these parameters beside those
// of the client credentials grant, such as resource and organization_id.
func (i *Issuer) Request(t testing.TB, app string, parameters url.Values, scopes ...string) (string, error) {
	config := clientcredentials.Config{
		ClientID:       app,
		ClientSecret:   Secret(app),
		TokenURL:       i.URL + "/token",
		Scopes:         scopes,
		EndpointParams: parameters,
		AuthStyle:      oauth2.AuthStyleInHeader,
	}
	token, err := config.Token(t.Context())
	if err != nil {
		return "", err
	}
	return token.AccessToken, nil
}
