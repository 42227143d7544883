//go:build unix

package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/m2mauth/m2mauth/e2e/internal/process"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	audience = "https://shopping.api"
	program  = "../../cmd/m2mauth-gateway"

	// Long, and waited for only by what fails.
	timeout      = 2 * time.Minute
	buildTimeout = 5 * time.Minute
)

// nginxPath returns where nginx is: Debian puts it where only root looks.
func nginxPath(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	process.Skip(t, "nginx is not installed")
	return ""
}

func TestMain(m *testing.M) { process.Main(m) }

// startGateway builds the gateway, starts it as a process and returns its address.
func startGateway(t testing.TB, issuer string, more ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gateway")
	out, ok := process.Run(t, buildTimeout, exec.Command("go", "build", "-C", program, "-o", path, "."))
	require.True(t, ok, out)
	addr := process.FreeAddresses(t, 1)[0]
	command := exec.Command(path, gatewayFile(t, issuer, addr, more...))
	process.Start(t, command).Ready(t, "http://"+addr+"/healthz")
	return addr
}

// gatewayFile writes the gateway.yaml beside the program, with another issuer and address,
// and returns its name. Lines that are added follow the address.
func gatewayFile(t testing.TB, issuer, addr string, more ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(program, "gateway.yaml"))
	require.NoError(t, err)
	config := string(text)
	for _, change := range [][2]string{
		{"  address: 127.0.0.1:8080\n", "  address: " + addr + "\n" + strings.Join(more, "\n") + "\n"},
		{"  - preset:\n      name: logto\n      endpoint: https://your.logto.endpoint\n      audience: https://shopping.api\n",
			"  - issuer: " + issuer + "\n    audience: " + audience + "\n"},
	} {
		require.Equal(t, 1, strings.Count(config, change[0]), "gateway.yaml must have this once: %s", change[0])
		config = strings.Replace(config, change[0], change[1], 1)
	}
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	return file
}

// around is what /etc/nginx/nginx.conf is to the file in conf.d.
const around = `
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
    access_log off;
    client_max_body_size 20m; # the default is 1m
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include gateway.conf;
}
`

// configuration is the nginx.conf beside the gateway, with other addresses.
func configuration(t testing.TB, nginx, gateway, api string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(program, "nginx.conf"))
	require.NoError(t, err)
	config := string(text)
	for _, change := range [][2]string{
		{"listen 127.0.0.1:8000;", "listen " + nginx + ";"},
		{"server 127.0.0.1:8080;", "server " + gateway + ";"},
		{"server 127.0.0.1:9000;", "server " + api + ";"},
	} {
		require.Equal(t, 1, strings.Count(config, change[0]), "nginx.conf must have this once: %s", change[0])
		config = strings.Replace(config, change[0], change[1], 1)
	}
	return config
}

// startNginx starts an nginx in a folder of its own, and waits until it accepts
// connections at addr. It needs no privileges; from root's, its worker turns to
// nobody's.
func startNginx(t testing.TB, config, addr string) {
	t.Helper()
	path := nginxPath(t)
	main := around
	if os.Getuid() == 0 {
		nobody, err := user.Lookup("nobody")
		require.NoError(t, err)
		group, err := user.LookupGroupId(nobody.Gid)
		require.NoError(t, err)
		main = "user nobody " + group.Name + ";" + main
	}
	dir, err := os.MkdirTemp("", "m2mauth-nginx-") // t.TempDir is in a folder that is closed to nobody
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(main), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "gateway.conf"), []byte(config), 0o644))

	listening(t, process.Start(t, exec.Command(path, "-p", dir, "-c", "nginx.conf", "-e", "stderr")), addr)
}

// listening waits until a proxy accepts connections.
func listening(t testing.TB, proxy *process.Process, addr string) {
	t.Helper()
	for deadline := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return
		}
		require.True(t, proxy.Running() && time.Now().Before(deadline), "the proxy does not listen on %s: %s", addr, proxy.Output())
	}
}

// seen is a request that reached the API or the gateway.
type seen struct {
	method, target string
	header         http.Header
	body           string
	trailer        http.Header
}

// recorder remembers requests.
type recorder struct {
	mu   sync.Mutex // guards the field below
	list []seen
}

func (rec *recorder) add(r *http.Request) {
	body, _ := io.ReadAll(r.Body) // a body that is cut off is recorded so
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.list = append(rec.list, seen{r.Method, r.RequestURI, r.Header.Clone(), string(body), r.Trailer.Clone()})
}

// take returns the requests since it was called last.
func (rec *recorder) take() []seen {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	list := rec.list
	rec.list = nil
	return list
}

// stack is everything: nginx or Caddy, what it asks, and the API behind it.
type stack struct {
	issuer *m2mauthtest.Issuer
	addr   string // of the proxy
	h2     string // where it speaks HTTP/2 without TLS
	api    *recorder
	asked  *recorder // what the proxy asked the gateway
	judged *judge    // what the gateway answered
}

// apiServer starts an API that answers everything with 200, or with the status
// that the query asks for, and returns its address. It takes every upgrade that it is
// offered, and says what comes back through the tunnel.
func apiServer(t testing.TB) (*recorder, string) {
	rec := new(recorder)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec.add(r)
		w.Header().Set("X-Api", "yes")
		if protocol := r.Header.Get("Upgrade"); protocol != "" {
			tunnel(w, protocol)
			return
		}
		if status, err := strconv.Atoi(r.URL.Query().Get("status")); err == nil {
			w.Header().Set("WWW-Authenticate", "Api")
			http.Error(w, "the API's own answer", status)
			return
		}
		io.WriteString(w, "the API")
	}))
	t.Cleanup(server.Close)
	return rec, server.Listener.Addr().String()
}

// newStack starts all of it. Between nginx and the gateway a recorder hands on
// every request.
func newStack(t *testing.T) *stack {
	t.Helper()
	nginxPath(t) // before anything is built
	return newStackOf(t, (*stack).behind)
}

// newStackOf starts all of it, with another proxy for nginx.
func newStackOf(t *testing.T, behind func(s *stack, t *testing.T, gateway string), more ...string) *stack {
	t.Helper()
	return newStackFor(t, newIssuer(t), behind, more...)
}

func newIssuer(t *testing.T) *m2mauthtest.Issuer {
	t.Helper()
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	return issuer
}

// newStackFor starts all of it but the issuer.
func newStackFor(t *testing.T, issuer *m2mauthtest.Issuer, behind func(s *stack, t *testing.T, gateway string), more ...string) *stack {
	t.Helper()
	return newStackAt(t, issuer, startGateway(t, issuer.URL(), more...), behind)
}

// newStackAt starts a proxy and an API for a gateway that runs already.
func newStackAt(t *testing.T, issuer *m2mauthtest.Issuer, gateway string, behind func(s *stack, t *testing.T, gateway string)) *stack {
	t.Helper()
	s := &stack{issuer: issuer, asked: new(recorder), judged: new(judge)}
	between := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			s.asked.add(r.In)
			r.Out.Header = r.In.Header.Clone() // all that the proxy wrote, whatever it is
			r.SetURL(&url.URL{Scheme: "http", Host: gateway})
		},
		ModifyResponse: func(r *http.Response) error {
			s.judged.add(decisionOf(r))
			return nil
		},
	})
	t.Cleanup(between.Close)

	behind(s, t, between.Listener.Addr().String())
	return s
}

// behind starts nginx and an API, for the gateway at this address.
func (s *stack) behind(t *testing.T, gateway string) {
	t.Helper()
	var api string
	s.api, api = apiServer(t)
	addresses := process.FreeAddresses(t, 2)
	s.addr, s.h2 = addresses[0], addresses[1]
	config := configuration(t, s.addr, gateway, api)
	startNginx(t, strings.Replace(config, "listen "+s.addr+";", "listen "+s.addr+"; listen "+s.h2+" http2;", 1), s.addr)
}

func (s *stack) bearer(scopes ...string) string {
	return "Authorization: Bearer " + s.issuer.Token(audience, scopes...)
}

// send writes a request as it stands, on a connection of its own.
func (s *stack) send(t testing.TB, method, target string, fields ...string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	require.NoError(t, err)
	defer conn.Close()
	return exchange(t, conn, bufio.NewReader(conn), method, target, "", fields...)
}

// exchange writes a request and reads its answer. A body has its length.
func exchange(t testing.TB, conn net.Conn, in *bufio.Reader, method, target, body string, fields ...string) (*http.Response, string) {
	t.Helper()
	require.NoError(t, conn.SetDeadline(time.Now().Add(timeout)))
	if body != "" {
		fields = append(fields, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	_, err := io.WriteString(conn, method+" "+target+" HTTP/1.1\r\nHost: api.example.com\r\n"+strings.Join(append(fields, "\r\n"), "\r\n")+body)
	require.NoError(t, err)
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	require.NoError(t, err)
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(answer)
}

// reportOnly is the setting of a dry run.
func reportOnly() string {
	return "insecure_report_only_until: " + time.Now().Add(24*time.Hour).UTC().Format(time.RFC3339)
}

// reportsOnly tests a stack whose gateway is in a dry run.
func (s *stack) reportsOnly(t *testing.T) {
	t.Helper()
	reader := s.bearer("read:products")
	for deadline := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) { // a dry run does not wait for keys
		s.send(t, "GET", "/products", reader)
		if got := s.api.take(); got[0].header.Get("X-Auth-Decision") == "allowed" {
			break
		}
		require.True(t, time.Now().Before(deadline), "the keys were never fetched")
	}
	for _, test := range []struct {
		method, target, authorization string
		decision, passed              string
	}{
		{"GET", "/products", reader, "allowed", ""},
		{"GET", "/healthz", reader, "public", ""},
		{"POST", "/products", reader, "report-only", strings.TrimPrefix(reader, "Authorization: ")},
		{"GET", "/products", "Authorization: Bearer old", "report-only", "Bearer old"},
		{"GET", "/products", "Authorization: Basic b2xk", "report-only", "Basic b2xk"},
		{"GET", "/products", "X-Other: none", "report-only", ""},
		{"GET", "/nothing", "X-Api-Key: old", "report-only", ""},
	} {
		name := test.method + " " + test.target + " " + test.authorization
		resp, body := s.send(t, test.method, test.target, test.authorization)
		require.Equal(t, 200, resp.StatusCode, "%s: %s", name, body)
		got := s.api.take()
		require.Len(t, got, 1, name)
		claims := claimed(got[0])
		assert.Equal(t, test.decision, claims[len(claims)-1], name)
		if test.decision == "report-only" {
			assert.Empty(t, strings.Join(claims[:len(claims)-1], ""), name)
		}
		assert.Equal(t, test.passed, got[0].header.Get("Authorization"), name)
	}
	for _, target := range []string{"/products/Export", "/products;x", "//products"} {
		resp, _ := s.send(t, "GET", target, reader)
		assert.Equal(t, 400, resp.StatusCode, "%s: the gateway refuses by itself", target)
		assert.Empty(t, s.api.take(), target)
	}
}
