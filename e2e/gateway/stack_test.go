//go:build unix

package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/stretchr/testify/require"
)

const (
	audience = "https://shopping.api"
	example  = "../../examples/gateway"

	// startTimeout is long, and is waited for only by what does not start.
	startTimeout = 30 * time.Second
)

// nginxPath returns where nginx is.
func nginxPath(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		// Debian puts it where only root looks.
		path, err = exec.LookPath("/usr/sbin/nginx")
	}
	if err != nil {
		if os.Getenv("M2MAUTH_E2E") == "required" {
			require.Fail(t, "nginx is not installed, and M2MAUTH_E2E=required")
		}
		t.Skip("nginx is not installed: apt-get install nginx")
	}
	return path
}

// output keeps what a process prints, to be shown if the test fails.
type output struct {
	mu   sync.Mutex // guards the field below
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start starts a process that is ended with the test, and waits until it accepts
// connections at addr.
func start(t testing.TB, command *exec.Cmd, addr string) {
	t.Helper()
	out := new(output)
	command.Stdout, command.Stderr = out, out
	require.NoError(t, command.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait() // it is killed: its status says nothing
	}()
	t.Cleanup(func() {
		_ = command.Process.Kill() // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("%s printed:\n%s", filepath.Base(command.Path), out)
		}
	})
	for deadline := time.Now().Add(startTimeout); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-ended:
			require.Fail(t, "the process has ended", "%v\n%s", command, out)
		case <-time.After(20 * time.Millisecond):
		}
		require.True(t, time.Now().Before(deadline), "%v does not listen on %s", command, addr)
	}
}

// freeAddr returns a loopback address that nothing listens on.
func freeAddr(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// built is the folder that the gateway is built into, once.
var built string

func TestMain(m *testing.M) {
	var err error
	if built, err = os.MkdirTemp("", "m2mauth-e2e-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(built)
	os.Exit(code)
}

var buildGateway = sync.OnceValues(func() (string, error) {
	path := filepath.Join(built, "gateway")
	if out, err := exec.Command("go", "build", "-C", example, "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the gateway: %w\n%s", err, out)
	}
	return path, nil
})

// startGateway starts the gateway as a process and returns its address.
func startGateway(t testing.TB, issuer string) string {
	t.Helper()
	path, err := buildGateway()
	require.NoError(t, err)
	addr := freeAddr(t)
	command := exec.Command(path)
	command.Env = append(os.Environ(), "ADDR="+addr, "ISSUER="+issuer, "AUDIENCE="+audience, "RULES="+filepath.Join(example, "rules.txt"))
	start(t, command, addr)
	return addr
}

// around is what /etc/nginx/nginx.conf is to the file in conf.d.
const around = `
daemon off;
master_process off; # one process, which is gone when it is killed
pid nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
    access_log off;
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
	text, err := os.ReadFile(filepath.Join(example, "nginx.conf"))
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

// startNginx starts an nginx without privileges in a folder of its own.
func startNginx(t testing.TB, config, addr string) {
	t.Helper()
	path := nginxPath(t)
	dir, err := os.MkdirTemp("", "m2mauth-nginx-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(around), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "gateway.conf"), []byte(config), 0o644))

	command := exec.Command(path, "-p", dir, "-c", "nginx.conf", "-e", "stderr")
	command.Dir = dir
	if os.Getuid() == 0 {
		const nobody = 65534
		require.NoError(t, os.Chown(dir, nobody, nobody))
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	start(t, command, addr)
}

// seen is a request that reached the API or the gateway.
type seen struct {
	method, target string
	header         http.Header
	body           string
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
	rec.list = append(rec.list, seen{r.Method, r.RequestURI, r.Header.Clone(), string(body)})
}

// take returns the requests since it was called last.
func (rec *recorder) take() []seen {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	list := rec.list
	rec.list = nil
	return list
}

// stack is everything: nginx, what it asks, and the API behind it.
type stack struct {
	issuer *m2mauthtest.Issuer
	addr   string // of nginx
	api    *recorder
	asked  *recorder // what nginx asked the gateway
}

// apiServer starts an API that answers everything with 200, or with the status
// that the query asks for, and returns its address.
func apiServer(t testing.TB) (*recorder, string) {
	rec := new(recorder)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec.add(r)
		w.Header().Set("X-Api", "yes")
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
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	s := &stack{issuer: issuer, asked: new(recorder)}

	gateway := &url.URL{Scheme: "http", Host: startGateway(t, issuer.URL())}
	between := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		s.asked.add(r.In)
		r.SetURL(gateway)
	}})
	t.Cleanup(between.Close)

	s.behind(t, between.Listener.Addr().String())
	return s
}

// behind starts nginx and an API, for the gateway at this address.
func (s *stack) behind(t *testing.T, gateway string) {
	t.Helper()
	var api string
	s.api, api = apiServer(t)
	s.addr = freeAddr(t)
	startNginx(t, configuration(t, s.addr, gateway, api), s.addr)
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
	require.NoError(t, conn.SetDeadline(time.Now().Add(startTimeout)))
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
