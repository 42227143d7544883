package m2mauthtest_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func listen(t *testing.T) *m2mauthtest.Issuer {
	t.Helper()
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	return issuer
}

func TestAListeningIssuerIsNamedByItsAddress(t *testing.T) {
	t.Parallel()
	issuer := listen(t)
	assert.Regexp(t, `^http://127\.0\.0\.1:[1-9]\d*/oidc$`, issuer.URL())
	resp, body := do(t, issuer, "GET", issuer.URL()+"/.well-known/openid-configuration", nil, "")
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Contains(t, body, `"issuer":"`+issuer.URL()+`"`)
	assert.Contains(t, body, `"jwks_uri":"`+issuer.JWKSURL()+`"`)
	assert.NotContains(t, body, recordedOrigin)
	assert.True(t, verified(t, issuer.Token("a"), publishedKeys(t, issuer)))
	assert.Equal(t, m2mauthtest.Fetches{Discovery: 1, JWKS: 1}, issuer.Fetches())

	named, err := m2mauthtest.ListenIssuer("localhost:0")
	require.NoError(t, err)
	defer named.Close()
	assert.True(t, strings.HasPrefix(named.URL(), "http://localhost:"))
}

func TestAClosedIssuerIsGone(t *testing.T) {
	t.Parallel()
	issuer := listen(t)
	do(t, issuer, "GET", issuer.JWKSURL(), nil, "")
	issuer.Close()
	issuer.Close()
	_, err := issuer.Client().Get(issuer.JWKSURL())
	var dial *net.OpError
	require.ErrorAs(t, err, &dial)
	assert.Equal(t, "dial", dial.Op)
}

func TestCloseEndsRequestsThatHang(t *testing.T) {
	t.Parallel()
	issuer := listen(t)
	began, ended := make(chan struct{}), make(chan struct{})
	issuer.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
			close(ended)
		})
	})
	answered := make(chan error, 1)
	go func() {
		resp, err := issuer.Client().Get(issuer.JWKSURL())
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		answered <- err
	}()
	<-began
	issuer.Close()
	<-ended
	<-answered
}

func TestAnAddressMustBeUsableAsAName(t *testing.T) {
	t.Parallel()
	taken := listen(t)
	for addr, want := range map[string]string{
		":0":             `listen address ":0": name a host`,
		"0.0.0.0:0":      "name a host",
		"[::]:0":         "name a host",
		"127.0.0.1":      "missing port",
		"":               "missing port",
		"127.0.0.1:nope": "listen tcp",
		strings.TrimSuffix(strings.TrimPrefix(taken.URL(), "http://"), "/oidc"): "bind: ", // then the words of the system
	} {
		_, err := m2mauthtest.ListenIssuer(addr)
		assert.ErrorContains(t, err, want, addr)
	}
}
