package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/e2e/internal/issuer"
	"github.com/m2mauth/m2mauth/e2e/internal/process"
)

// The gRPC server as its client's user sees it: one program calls the other.
func TestGRPC(t *testing.T) {
	oidc := issuer.Start(t)
	dir := binaries(t, "grpc", "grpc/grpc-client")
	certificate, key := certificate(t)
	address := process.FreeAddresses(t, 1)[0]

	command := exec.Command(filepath.Join(dir, "grpc"))
	command.Env = append(os.Environ(), "ADDR="+address, "ISSUER="+oidc.URL, "AUDIENCE="+issuer.Shopping,
		"TLS_CERT="+certificate, "TLS_KEY="+key, "JWKS_URL=", "PLAIN_HTTP_HOSTS=")
	server := process.Start(t, command)
	until(t, server, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	client := func(app string) *process.Process {
		command := exec.Command(filepath.Join(dir, "grpc-client"))
		command.Env = append(os.Environ(), "SERVER="+address, "ISSUER="+oidc.URL, "RESOURCE="+issuer.Shopping,
			"CA_CERT="+certificate, "APP_ID="+app, "APP_SECRET="+issuer.Secret(app))
		return process.Start(t, command)
	}

	step(t, "scopes decide", func(t *testing.T) {
		reader := client("reader")
		until(t, reader, func() bool { return strings.Contains(reader.Output(), "Coffee grinder") })
		reader.Stop()
		noRole := client("no-role")
		assert.NotZero(t, noRole.ExitCode())
		assert.Contains(t, noRole.Output(), "PermissionDenied")
		assert.NotContains(t, noRole.Output(), "Coffee grinder")
	})
	step(t, "a stream ends with its token, and the client opens another", func(t *testing.T) {
		defer oidc.SetLifetime(t, time.Hour)
		oidc.SetLifetime(t, 2*time.Second)
		reader := client("reader")
		until(t, reader, func() bool { return strings.Contains(reader.Output(), "Coffee grinder") })
		oidc.Rotate(t, "RS256") // whoever comes now has a key that the server must fetch
		fetches := oidc.Fetches(t)
		until(t, reader, func() bool { return oidc.Fetches(t) > fetches })
		reader.Stop()
		assert.Equal(t, 1, strings.Count(reader.Output(), "Coffee grinder"), "it is known already")
	})
	step(t, "the server stops in order", func(t *testing.T) {
		server.Stop()
		assert.Zero(t, server.ExitCode())
	})
}

// until waits for what a program does, for as long as the program runs.
func until(t *testing.T, p *process.Process, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(50 * time.Millisecond) {
		require.True(t, p.Running(), "it has ended: %s", p.Output())
		require.True(t, time.Now().Before(deadline), "it waits for too long: %s", p.Output())
	}
}

// certificate writes a certificate for 127.0.0.1 and its key.
func certificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:         true, BasicConstraintsValid: true,
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, kind string, data []byte) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600))
		return name
	}
	return write("cert.pem", "CERTIFICATE", signed), write("key.pem", "PRIVATE KEY", encoded)
}

func TestConnect(t *testing.T) {
	oidc := issuer.Start(t)
	api := start(t, binaries(t, "connect"), "connect", process.FreeAddresses(t, 1)[0], "ISSUER="+oidc.URL)
	reader := oidc.Token(t, "reader", issuer.Shopping, read)
	for _, test := range []struct {
		procedure, token string
		status           int
		says             string
	}{
		{"ListProducts", reader, 200, "Coffee grinder"},
		{"CreateProduct", reader, 403, `"code":"permission_denied"`},
		{"CreateProduct", oidc.Token(t, "writer", issuer.Shopping, write), 200, `"product"`},
		{"ListProducts", oidc.Token(t, "reader", issuer.Billing, read), 401, `"code":"unauthenticated"`},
		{"ListProducts", "", 401, `"code":"unauthenticated"`},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", api.url+"/shop.v1.ShopService/"+test.procedure, strings.NewReader("{}"))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		if test.token != "" {
			r.Header.Set("Authorization", "Bearer "+test.token)
		}
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		t.Logf("%-14s %d %s", test.procedure, response.StatusCode, body)
		assert.Equal(t, test.status, response.StatusCode, test.procedure)
		assert.Contains(t, string(body), test.says, test.procedure)
	}
	api.process.Stop()
	assert.Zero(t, api.process.ExitCode())
}
