//go:build unix

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/m2mauth/m2mauth/internal/test/redisserver"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/revocation"
	"github.com/m2mauth/m2mauth/revocation/redisstore"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// staticKeys is a key set, for issuers that nobody need ask.
const staticKeys = `'{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'`

// versioned is a configuration whose guard and table both say its version.
func versioned(listeners, version string) string {
	return fmt.Sprintf(`%s
issuers:
  - {issuer: "https://login.shop.example", audience: "https://shopping.api", jwks: %s}
realm: %s
rules:
  - GET /products scopes %s
end: true
`, listeners, staticKeys, version, version)
}

// write replaces a file as a whole, as careful programs do.
func write(t *testing.T, file, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(file+".new", file))
}

// running is a gateway that serves a file.
type running struct {
	*follower
	addresses map[string]net.Addr
	read      chan error // of each reading
}

// start serves a file until the test ends.
func start(t *testing.T, file string) *running {
	t.Helper()
	r := &running{
		follower:  &follower{file: file, environ: func() []string { return nil }, gateway: &gateway{metrics: newMetrics()}},
		addresses: make(map[string]net.Addr), read: make(chan error, 1000),
	}
	ctx, cancel := context.WithCancel(context.Background())
	require.NoError(t, r.start(ctx))
	listening := make(chan struct{}, 3)
	count := len(r.gateway.endpoints(r.gateway.current.Load().settings))
	var mu sync.Mutex
	r.listening = func(name string, address net.Addr) {
		mu.Lock()
		defer mu.Unlock()
		r.addresses[name] = address
		listening <- struct{}{}
	}
	r.reloaded = func(err error) { r.read <- err }
	r.settle, r.drain = time.Millisecond, time.Millisecond
	served := make(chan error, 1)
	go func() { served <- r.serve(ctx) }()
	for range count {
		select {
		case <-listening:
		case err := <-served:
			require.NoError(t, err)
		}
	}
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-served)
	})
	return r
}

// version asks for the version of the configuration in force.
func (r *running) version(t *testing.T) string {
	t.Helper()
	_, _, header := decision(t, r.gateway, "GET", "/products", "")
	return versionOf(t, header.Get("WWW-Authenticate"))
}

var challenge = regexp.MustCompile(`^Bearer realm="(\w+)", scope="(\w+)"$`)

// versionOf returns the version that guard and table agree on.
func versionOf(t *testing.T, header string) string {
	said := challenge.FindStringSubmatch(header)
	if assert.NotNil(t, said, header) && assert.Equal(t, said[1], said[2], "the guard is of one configuration, and the table of another") {
		return said[1]
	}
	return ""
}

// Under load over both protocols, every answer is that of one configuration, and none is
// missing.
func TestNoRequestSeesTwoConfigurations(t *testing.T) {
	dir, err := os.MkdirTemp("", "m2m") // short: the name of a socket has an end
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "gateway.yaml")
	listeners := fmt.Sprintf("http: {address: \"unix:%s/http\"}\ngrpc: {address: \"127.0.0.1:0\"}", dir)
	write(t, file, versioned(listeners, "v0"))
	r := start(t, file)

	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	var answers atomic.Int64
	seen := new(sync.Map)
	for range 3 {
		callers.Go(func() {
			conn, err := net.Dial("unix", dir+"/http")
			if !assert.NoError(t, err) {
				return
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			for ctx.Err() == nil {
				_, err := io.WriteString(conn, "GET /nginx HTTP/1.1\r\nHost: gateway\r\nX-Original-Method: GET\r\nX-Original-URI: /products\r\n\r\n")
				if !assert.NoError(t, err) {
					return
				}
				resp, err := http.ReadResponse(in, nil)
				if !assert.NoError(t, err) {
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				assert.Equal(t, 401, resp.StatusCode)
				seen.Store(versionOf(t, resp.Header.Get("WWW-Authenticate")), true)
				answers.Add(1)
			}
		})
	}
	conn, err := grpc.NewClient(r.addresses["grpc"].String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	callers.Go(func() {
		for ctx.Err() == nil {
			answer, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), check(toldByEnvoy("GET", "/products", nil, true)))
			if !assert.NoError(t, err) {
				return
			}
			for _, field := range answer.GetDeniedResponse().GetHeaders() {
				if field.GetHeader().GetKey() == "www-authenticate" {
					seen.Store(versionOf(t, field.GetHeader().GetValue()), true)
				}
			}
			answers.Add(1)
		}
	})

	const swaps = 200
	for n := 1; n <= swaps; n++ {
		before := answers.Load()
		write(t, file, versioned(listeners, fmt.Sprintf("v%d", n)))
		require.NoError(t, <-r.read)
		require.Equal(t, fmt.Sprintf("v%d", n), r.version(t))
		for answers.Load() == before && ctx.Err() == nil { // each is asked at least once
			resp := ask(r.gateway, "/healthz", nil)
			require.Equal(t, 200, resp.Code)
		}
	}
	stop()
	callers.Wait()
	count := 0
	seen.Range(func(any, any) bool { count++; return true })
	assert.Greater(t, count, swaps/2, "the callers saw the configurations change")
	t.Logf("%d answers, %d configurations, %d seen", answers.Load(), swaps+1, count)
}

func TestAConfigMapsLinkIsFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const http = "http: {address: \"127.0.0.1:0\"}"
	folder := func(version string) string { // as the kubelet writes it
		name := filepath.Join(dir, ".."+version)
		require.NoError(t, os.Mkdir(name, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(name, "gateway.yaml"), []byte(versioned(http, version)), 0o600))
		return filepath.Base(name)
	}
	file := filepath.Join(dir, "gateway.yaml")
	require.NoError(t, os.Symlink(folder("v1"), filepath.Join(dir, "..data")))
	require.NoError(t, os.Symlink("..data/gateway.yaml", file))
	r := start(t, file)
	require.Equal(t, "v1", r.version(t))
	for _, version := range []string{"v2", "v3"} {
		require.NoError(t, os.Symlink(folder(version), filepath.Join(dir, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		require.NoError(t, <-r.read)
		assert.Equal(t, version, r.version(t))
	}
}

// A document that changes after the configuration was read is of another moment.
func TestAllFilesAreOfOneMoment(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	swap := func(version string) {
		write(t, file, versioned(`http: {address: "127.0.0.1:0"}`, version))
	}
	swap("v0")
	swaps := 0
	read := func(changes int) (*generation, error) {
		swaps = 0
		return atOnce(func() (*generation, error) {
			g, err := examine(file, nil, nil, nil)
			if swaps < changes {
				swaps++
				swap(fmt.Sprintf("v%d", swaps))
			}
			return g, err
		})
	}
	g, err := read(2)
	require.NoError(t, err)
	assert.Equal(t, "v2", g.settings.Realm)
	_, err = read(100)
	assert.ErrorIs(t, err, errMoving)
	assert.Equal(t, 10, swaps)
}

func TestABadFileIsRefusedAsAWhole(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	const http = "http: {address: \"127.0.0.1:0\"}"
	write(t, file, versioned(http, "v1"))
	r := start(t, file)
	before := r.gateway.current.Load()
	const successful = `m2mauth_gateway_config_last_reload_successful 1`
	assert.Contains(t, scraped(t, r.gateway), successful)

	whole := versioned(http, "v2")
	half, _, _ := strings.Cut(whole, "end:")
	for name, text := range map[string]string{
		"half written": half, "a good guard and a bad table": strings.Replace(whole, "scopes v2", "scope v2", 1),
		"a good table and a bad guard": strings.Replace(whole, "audience: \"https://shopping.api\"", "audience: \"\"", 1),
		"not YAML":                     "{", "empty": "",
	} {
		write(t, file, text)
		require.Error(t, <-r.read, name)
		assert.Same(t, before, r.gateway.current.Load(), name)
		assert.Equal(t, "v1", r.version(t), name)
		assert.Contains(t, scraped(t, r.gateway), `m2mauth_gateway_config_last_reload_successful 0`, name)
		assert.False(t, r.changed(), "%s: it is not read again and again", name)
	}
	write(t, file, whole)
	require.NoError(t, <-r.read)
	assert.Equal(t, "v2", r.version(t))
	assert.Contains(t, scraped(t, r.gateway), successful)
	assert.Contains(t, scraped(t, r.gateway), `m2mauth_gateway_config_reloads_total{result="refused"} 5`)
	assert.Contains(t, scraped(t, r.gateway), `m2mauth_gateway_config_reloads_total{result="taken"} 2`)

	require.NoError(t, os.Remove(file))
	require.Error(t, <-r.read)
	assert.Equal(t, "v2", r.version(t))
	assert.False(t, r.changed(), "a file that is gone is told once")
}

func TestSIGHUPReadsTheFileAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	const http = "http: {address: \"127.0.0.1:0\"}"
	write(t, file, versioned(http, "v1"))
	r := start(t, file)
	before := r.gateway.current.Load()
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	require.NoError(t, <-r.read)
	after := r.gateway.current.Load()
	assert.NotSame(t, before, after)
	assert.Same(t, before.issuers[0].guard, after.issuers[0].guard)
}

// What is the same keeps its guard, and with it keys, known tokens and the dry run's end.
func TestUnchangedIssuersKeepTheirGuards(t *testing.T) {
	t.Parallel()
	ours, theirs := listenIssuer(t), listenIssuer(t)
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	text := fmt.Sprintf(`http: {address: "127.0.0.1:0"}
issuers:
  - {name: ours, issuer: %q, audience: "https://shopping.api"}
  - {name: theirs, issuer: %q, audience: "https://shopping.api"}
insecure_report_only_until: %s
rules:
  - GET /products scopes read:products
end: true
`, ours.URL(), theirs.URL(), until)
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, file, text)
	f := &follower{file: file, environ: func() []string { return nil }, gateway: &gateway{metrics: newMetrics()}}
	require.NoError(t, f.start(t.Context()))
	guards := func() (list []any) {
		for _, i := range f.gateway.current.Load().issuers {
			list = append(list, i.guard)
		}
		return list
	}
	reload := func(text string) {
		write(t, file, text)
		var told error
		f.reloaded = func(err error) { told = err }
		f.reload(t.Context())
		require.NoError(t, told)
	}
	first := guards()
	require.NoError(t, f.gateway.current.Load().issuers[0].guard.Warm(t.Context()))
	allowed := func() {
		_, told, _ := decision(t, f.gateway, "GET", "/products", "Bearer "+ours.Token(audience, "read:products", "write:products"))
		require.NotEmpty(t, told)
	}
	allowed()

	for name, changed := range map[string]string{
		"nothing": text, "a row": strings.Replace(text, "scopes read", "any-scope write:products read", 1),
		"another order": strings.Replace(text, "insecure_", "limits: {shutdown_timeout: 3s}\ninsecure_", 1),
		"a name":        strings.Replace(text, "name: theirs", "name: others", 1),
	} {
		reload(changed)
		assert.Equal(t, first, guards(), name)
	}
	reload(strings.Replace(text, "name: ours,", "name: ours, leeway: 1s,", 1))
	second := guards()
	assert.NotSame(t, first[0], second[0])
	assert.Same(t, first[1], second[1], "the other's guard is not touched")
	assert.EqualValues(t, 1, f.gateway.current.Load().issuers[0].guard.Keys().Fetches, "the new guard has fetched its keys before it is asked")
	allowed()

	reload(strings.Replace(text, "insecure_report_only_until: "+until, "realm: shop", 1))
	third := guards()
	assert.NotSame(t, second[1], third[1], "what holds for all is a change for each")
	status, _, _ := decision(t, f.gateway, "GET", "/products", "")
	assert.Equal(t, 401, status, "the dry run is over")

	gone := strings.Replace(text, fmt.Sprintf("  - {name: theirs, issuer: %q, audience: \"https://shopping.api\"}\n", theirs.URL()), "", 1)
	reload(gone)
	scrape := scraped(t, f.gateway)
	assert.Contains(t, scrape, `m2mauth_keys_fetches_total{guard="ours"`)
	assert.NotContains(t, scrape, `m2mauth_keys_fetches_total{guard="theirs"`)
}

func TestWhichChangesOfListenersTakeARestart(t *testing.T) {
	t.Parallel()
	const before = "http: {address: \"127.0.0.1:1\"}\ngrpc: {address: \"127.0.0.1:2\"}\n"
	started, err := parse("gateway.yaml", []byte(versioned(before, "v1")), nil)
	require.NoError(t, err)
	for text, same := range map[string]bool{
		before: true, "limits: {max_token_bytes: 4096}\n" + before: true,
		"limits: {max_header_bytes: 65536}\n" + before: false, "limits: {shutdown_timeout: 1s}\n" + before: false,
		strings.Replace(before, ":1", ":3", 1): false, strings.Replace(before, ":2\"", ":2\", keep_authorization: true", 1): false,
		before + "metrics: {address: \"127.0.0.1:4\"}\n": false, "http: {address: \"127.0.0.1:1\"}\n": false,
	} {
		now, err := parse("gateway.yaml", []byte(versioned(text, "v2")), nil)
		require.NoError(t, err, text)
		assert.Equal(t, same, started.sameListeners(now), text)
	}
	secure := *started
	secure.HTTP = &listener{Address: "127.0.0.1:1", TLS: new(tlsSettings)}
	assert.False(t, started.sameListeners(&secure))
	renamed := secure
	renamed.HTTP = &listener{Address: "127.0.0.1:1", TLS: &tlsSettings{Certificate: "other.crt"}}
	assert.True(t, secure.sameListeners(&renamed), "its files are read again")
}

// The end of a dry run outlives a reading of the file.
func TestTheDryRunDoesNotBeginAgainWithAReading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "gateway.yaml")
		text := strings.Replace(versioned(`http: {address: "127.0.0.1:0"}`, "v1"), "realm:", "insecure_report_only_until: "+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+"\nrealm:", 1)
		write(t, file, text)
		f := &follower{file: file, environ: func() []string { return nil }, gateway: &gateway{metrics: newMetrics()}}
		require.NoError(t, f.start(t.Context()))
		ask := func() int {
			status, _, _ := decision(t, f.gateway, "GET", "/products", "")
			return status
		}
		guard := f.gateway.current.Load().issuers[0].guard
		assert.Equal(t, 204, ask())
		f.reload(t.Context())
		assert.Equal(t, 204, ask())
		assert.True(t, guard.ReportOnly())
		time.Sleep(2 * time.Hour)
		assert.Equal(t, 401, ask())
		write(t, file, strings.Replace(text, "scopes v1", "scopes v2", 1))
		f.reload(t.Context())
		assert.Equal(t, 401, ask())
		assert.Same(t, guard, f.gateway.current.Load().issuers[0].guard, "the guard, and with it the latch")
	})
}

// A guard that is made later does not begin a dry run that another has ended, even if the
// clock says that it is not over.
func TestANewGuardDoesNotBeginAnEndedDryRun(t *testing.T) {
	t.Parallel()
	text := func(until time.Duration, more string) string {
		return strings.Replace(versioned(`http: {address: "127.0.0.1:0"}`, "v1"), "realm:", more+"insecure_report_only_until: "+time.Now().Add(until).UTC().Format(time.RFC3339)+"\nrealm:", 1)
	}
	read := func(text string, before *generation) *generation {
		s, err := parse("gateway.yaml", []byte(text), nil)
		require.NoError(t, err)
		g := newGeneration(s, before, nil)
		require.NoError(t, s.reader.mistakes.sorted())
		return g
	}
	const changed = "limits: {max_token_bytes: 4096}\n"
	first := text(time.Hour, "")
	before := read(first, nil)
	assert.True(t, before.issuers[0].guard.ReportOnly())
	after := strings.Replace(first, "insecure_", changed+"insecure_", 1)
	assert.True(t, read(after, before).issuers[0].guard.ReportOnly(), "it is under way")
	before.issuers[0].guard = before.issuers[0].guard.Enforcing() // as after its end
	ended := read(after, before)
	assert.False(t, ended.issuers[0].guard.ReportOnly())
	assert.False(t, read(first, ended).issuers[0].guard.ReportOnly(), "nor does one after that")
	assert.True(t, read(text(2*time.Hour, ""), ended).issuers[0].guard.ReportOnly(), "another time is another dry run")
}

func TestASocketIsForItsGroup(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "m2m")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "gateway.sock")
	l, err := listen(unixPrefix + path)
	require.NoError(t, err)
	info, err := os.Lstat(path)
	require.NoError(t, err)
	assert.Equal(t, os.ModeSocket|0o660, info.Mode())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing else is left")

	_, err = listen(unixPrefix + path)
	assert.ErrorContains(t, err, "in use")
	conn, err := net.Dial("unix", path)
	require.NoError(t, err)
	conn.Close()
	require.NoError(t, l.Close())
	assert.NoFileExists(t, path)
	assert.ErrorIs(t, l.Close(), net.ErrClosed)

	stale, err := net.Listen("unix", path)
	require.NoError(t, err)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())
	l, err = listen(unixPrefix + path)
	require.NoError(t, err, "one that a killed process left is replaced")
	require.NoError(t, l.Close())

	busy, err := net.ListenPacket("unixgram", path)
	require.NoError(t, err)
	_, err = listen(unixPrefix + path)
	assert.ErrorContains(t, err, "in use", "of one that answers otherwise nobody knows that it was left")
	require.NoError(t, errors.Join(busy.Close(), os.Remove(path)))

	// The next gateway may put its socket there as soon as this one listens no more.
	replaced := &socket{path: path, Listener: closing(func() { require.NoError(t, os.WriteFile(path, nil, 0o600)) })}
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, replaced.Close())
	assert.FileExists(t, path, "its own is removed before")

	_, err = listen(unixPrefix + path)
	assert.ErrorContains(t, err, "no socket")
	assert.FileExists(t, path)
	_, err = listen(unixPrefix + filepath.Join(dir, "none", "s"))
	assert.Error(t, err)
}

// closing is a listener that calls itself at its end.
type closing func()

func (c closing) Close() error              { c(); return nil }
func (c closing) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (c closing) Addr() net.Addr            { return nil }

func TestListenersWithTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "gateway.yaml")
	put := func(name string, content []byte) {
		write(t, filepath.Join(dir, name), string(content))
	}
	certificate, key := certify(t, "first")
	put("tls.crt", certificate)
	put("tls.key", key)
	proxy, proxyKey := certify(t, "proxy")
	put("proxies.crt", proxy)
	write(t, file, versioned(`http: {address: "127.0.0.1:0", tls: {certificate: tls.crt, key: tls.key, client_ca: proxies.crt}}
grpc: {address: "127.0.0.1:0", tls: {certificate: tls.crt, key: tls.key}}
metrics: {address: "127.0.0.1:0", tls: {certificate: tls.crt, key: tls.key}}`, "v1"))
	r := start(t, file)

	// name returns whose certificate a listener shows to a client with these of its own.
	name := func(listener string, own ...tls.Certificate) (string, error) {
		conn, err := tls.Dial("tcp", r.addresses[listener].String(), &tls.Config{InsecureSkipVerify: true, Certificates: own, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			return "", err
		}
		defer conn.Close()
		if _, err = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err == nil {
			_, err = conn.Read(make([]byte, 1)) // in TLS 1.3 the server's refusal comes here
		}
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName, err
	}
	own, err := tls.X509KeyPair(proxy, proxyKey)
	require.NoError(t, err)
	for _, listener := range []string{"http", "grpc", "metrics"} {
		shown, err := name(listener, own)
		assert.NoError(t, err, listener)
		assert.Equal(t, "first", shown, listener)
	}
	_, err = name("http")
	assert.Error(t, err, "the proxy must show a certificate")
	otherProxy, otherKey := certify(t, "proxy")
	other, err := tls.X509KeyPair(otherProxy, otherKey)
	require.NoError(t, err)
	_, err = name("http", other)
	assert.Error(t, err, "one of the authorities'")
	_, err = tls.Dial("tcp", r.addresses["grpc"].String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11})
	assert.Error(t, err)

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "first"}}}
	resp, err := client.Get("https://" + r.addresses["metrics"].String() + "/metrics")
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Contains(t, string(text), "m2mauth_gateway_config_last_reload_successful 1\n")
	client.CloseIdleConnections()

	// Half of a renewal is a mistake: the old one serves on. The rest makes it whole.
	certificate, key = certify(t, "second")
	put("tls.crt", certificate)
	require.Error(t, <-r.read)
	shown, err := name("grpc")
	assert.NoError(t, err)
	assert.Equal(t, "first", shown)
	put("tls.key", key)
	require.NoError(t, <-r.read)
	for _, listener := range []string{"http", "grpc", "metrics"} {
		shown, err := name(listener, own)
		assert.NoError(t, err, listener)
		assert.Equal(t, "second", shown, listener)
	}
}

// A file whose store does not answer is not taken over, and one without a store at the
// start makes the guards answer 503.
func TestAListThatCannotBeReadLetsNobodyThrough(t *testing.T) {
	t.Parallel()
	issuer := listenIssuer(t)
	const list = "revocation:\n  max_token_lifetime: 1h\n  redis: {address: \"127.0.0.1:1\", timeout: 50ms}\n"
	text := fmt.Sprintf("http: {address: \"127.0.0.1:0\"}\nissuers:\n  - {issuer: %q, audience: \"https://shopping.api\"}\nrules:\n  - GET /products any-token\n%send: true\n", issuer.URL(), list)
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, file, text)
	r := start(t, file)
	token := "Bearer " + issuer.Sign(m2mauthtest.Token{AppID: app, Audience: audience})
	status, _, header := decision(t, r.gateway, "GET", "/products", token)
	assert.Equal(t, 503, status)
	assert.NotEmpty(t, header.Get("Retry-After"))
	assert.Equal(t, 503, ask(r.gateway, "/readyz", nil).Code)
	assert.Equal(t, 200, ask(r.gateway, "/healthz", nil).Code)
	assert.Contains(t, scraped(t, r.gateway), `m2mauth_revocation_serves{guard=`)

	write(t, file, strings.Replace(text, list, "", 1))
	require.NoError(t, <-r.read)
	status, _, _ = decision(t, r.gateway, "GET", "/products", token)
	assert.Equal(t, 204, status)
	assert.Equal(t, 200, ask(r.gateway, "/readyz", nil).Code)

	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it would wait for ten seconds
	s, err := load(file, nil)
	require.NoError(t, err)
	s.Revocation = &revocationSettings{MaxTokenLifetime: time.Hour, Redis: redisSettings{Address: "127.0.0.1:1"}}
	g := newGeneration(s, r.gateway.current.Load(), nil)
	assert.ErrorIs(t, r.prepare(ctx, g, r.gateway.current.Load()), context.Canceled)

	other := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, other, strings.Replace(text, list, "", 1))
	f := &follower{file: other, environ: func() []string { return nil }, gateway: &gateway{metrics: newMetrics()}}
	require.NoError(t, f.start(t.Context()))
	before := f.gateway.current.Load()
	write(t, other, text)
	f.reload(ctx)
	assert.Same(t, before, f.gateway.current.Load())
	assert.True(t, f.changed(), "a store may answer later, and the file is as it was: it is tried again")
}

// A client that is revoked in the store is out, and the list outlives a reading of the file
// that does not touch it.
func TestTheListOfARealStore(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t, "--requirepass", "hunter2")
	store, err := redisstore.New(redisstore.Config{Address: server.Addr, Password: "hunter2"})
	require.NoError(t, err)
	t.Cleanup(func() { store.Close() })
	require.NoError(t, revocation.Init(t.Context(), store))
	issuer := listenIssuer(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "gateway.yaml")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "password"), []byte("hunter2\n"), 0o600))
	text := fmt.Sprintf("http: {address: \"127.0.0.1:0\"}\nissuers:\n  - {issuer: %q, audience: \"https://shopping.api\"}\nrules:\n  - GET /products any-token\nend: true\n", issuer.URL())
	write(t, file, text)
	r := start(t, file)

	listed := strings.Replace(text, "end:", fmt.Sprintf("revocation:\n  max_token_lifetime: 1h\n  redis: {address: %q, password_file: password}\nend:", server.Addr), 1)
	write(t, file, listed)
	require.NoError(t, <-r.read)
	list := r.gateway.current.Load().list
	require.NotNil(t, list)
	assert.NoError(t, list.Ready(t.Context()), "it was read before the configuration was taken over")
	status := func(client string) int {
		code, _, _ := decision(t, r.gateway, "GET", "/products", "Bearer "+issuer.Sign(m2mauthtest.Token{AppID: client, Audience: audience}))
		return code
	}
	assert.Equal(t, 204, status("leaked"))
	_, err = list.Revoke(t.Context(), revocation.Entry{Issuers: []string{issuer.URL()}, Client: "leaked", By: "test", Reason: "test"})
	require.NoError(t, err)
	assert.Equal(t, 401, status("leaked"))
	assert.Equal(t, 204, status("other"))

	write(t, file, strings.Replace(listed, "GET /products", "GET  /products", 1))
	require.NoError(t, <-r.read)
	assert.Same(t, list, r.gateway.current.Load().list)
	assert.Equal(t, 401, status("leaked"))

	write(t, file, strings.Replace(listed, "max_token_lifetime: 1h", "max_token_lifetime: 2h", 1))
	require.NoError(t, <-r.read)
	assert.NotSame(t, list, r.gateway.current.Load().list)
	assert.Equal(t, 401, status("leaked"), "the new list has read the store before it is asked")
	<-list.ended // the old one follows the store no more
}
