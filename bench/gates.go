package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// What proxies ask about a request: m2mauth-gateway beside oauth2-proxy. Each is
// the program that users run, in a process of its own.

const (
	gatewayModule     = "cmd/m2mauth-gateway"
	oauth2ProxyModule = "e2e/proxies/oauth2proxy"
	oauth2Proxy       = "github.com/oauth2-proxy/oauth2-proxy/v7"
)

// GateForms are the ways to ask for a decision. The last is oauth2-proxy's.
var GateForms = []string{"auth_request", "forward-auth", "ext_authz", "oauth2-proxy"}

// Gates are both programs, with the tokens of one issuer.
type Gates struct {
	issuer  *m2mauthtest.Issuer
	gateway *program
	rival   *program
	file    string // the gateway's configuration
	version int
	metrics string // the address of the gateway's

	servers map[string]*Server // by form
}

// program is one that runs.
type program struct {
	command *exec.Cmd
	output  *bufio.Reader
}

func run(path string, args ...string) (*program, error) {
	command := exec.Command(path, args...)
	output, err := command.StderrPipe()
	if err != nil {
		return nil, err
	}
	return &program{command, bufio.NewReader(output)}, command.Start()
}

func (p *program) stop() {
	if p != nil && p.command.Process != nil {
		_ = p.command.Process.Kill()
		_ = p.command.Wait()
	}
}

// cpu returns the processor time that the process has taken, or 0 where the
// system does not tell it as Linux does.
func (p *program) cpu() time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// BuildGates builds both programs into a folder. Root is that of the repository.
func BuildGates(root, dir string) error {
	for name, args := range map[string][]string{
		"gateway":      {"-C", filepath.Join(root, gatewayModule), "-o", filepath.Join(dir, "gateway"), "."},
		"oauth2-proxy": {"-C", filepath.Join(root, oauth2ProxyModule), "-o", filepath.Join(dir, "oauth2-proxy"), oauth2Proxy},
	} {
		command := exec.Command("go", append([]string{"build"}, args...)...)
		if name == "oauth2-proxy" {
			command.Env = append(os.Environ(), "GOWORK=off")
		}
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("%s was not built: %w\n%s", name, err, out)
		}
	}
	return nil
}

// StartGates starts the programs of a folder, for an issuer with a key for the
// algorithm. Both have been seen to tell good tokens from bad ones.
func StartGates(dir, algorithm string) (_ *Gates, err error) {
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	old := issuer.KeyIDs()[0]
	issuer.Rotate(algorithm)
	issuer.Withdraw(old)
	g := &Gates{issuer: issuer, file: filepath.Join(dir, algorithm+".yaml"), servers: make(map[string]*Server)}
	defer func() {
		if err != nil {
			g.Stop()
		}
	}()
	if err := g.startGateway(filepath.Join(dir, "gateway")); err != nil {
		return nil, err
	}
	if err := g.startRival(filepath.Join(dir, "oauth2-proxy")); err != nil {
		return nil, err
	}
	return g, errors.Join(g.check(), g.meet())
}

// Stop ends the programs and their issuer.
func (g *Gates) Stop() {
	g.gateway.stop()
	g.rival.stop()
	g.issuer.Close()
}

// Reload writes the configuration anew. Each time a row is another, and every
// fifth time the guard is too, with nothing remembered.
func (g *Gates) Reload() error {
	g.version++
	text := fmt.Sprintf(`http: {address: "127.0.0.1:0"}
grpc: {address: "127.0.0.1:0"}
metrics: {address: "127.0.0.1:0"}
issuers:
  - {issuer: %q, audience: %q}
realm: generation-%d
rules:
  - GET /healthz public
  - GET /products scopes %s
  - GET /generation/%d any-token
end: true
`, g.issuer.URL(), audience, g.version/5, scope, g.version)
	if err := os.WriteFile(g.file+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(g.file+".new", g.file)
}

var (
	listening = regexp.MustCompile(`gateway: listening" for=(\w+) address=(\S+)`)
	reloaded  = regexp.MustCompile(`m2mauth_gateway_config_reloads_total\{result="(\w+)"\} (\d+)`)
)

// Reloads returns how often a file was taken over, and how often refused.
func (g *Gates) Reloads() (taken, refused int, err error) {
	resp, err := http.Get("http://" + g.metrics + "/metrics")
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	counts := map[string]int{}
	for _, match := range reloaded.FindAllStringSubmatch(string(text), -1) {
		counts[match[1]], _ = strconv.Atoi(match[2])
	}
	return counts["taken"], counts["refused"], err
}

func (g *Gates) startGateway(path string) (err error) {
	if err := g.Reload(); err != nil {
		return err
	}
	if g.gateway, err = run(path, g.file); err != nil {
		return err
	}
	addresses := map[string]string{}
	var said strings.Builder
	for len(addresses) < 3 {
		line, err := g.gateway.output.ReadString('\n')
		if err != nil {
			return fmt.Errorf("the gateway did not start: %w\n%s", err, &said)
		}
		said.WriteString(line)
		if match := listening.FindStringSubmatch(line); match != nil {
			addresses[match[1]] = match[2]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, g.gateway.output) }()
	g.metrics = addresses["metrics"]
	for form, fields := range map[string]string{
		"auth_request": "GET /nginx HTTP/1.1\r\nX-Original-Method: GET\r\nX-Original-URI: /products\r\nX-Real-IP: %s\r\n",
		"forward-auth": "GET /forward-auth HTTP/1.1\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Uri: /products\r\nX-Forwarded-For: %s\r\n",
	} {
		g.servers[form] = &Server{addr: addresses["http"], ok: http.StatusNoContent, dial: dialHTTP}
		g.prepare(form, overHTTP(fields))
	}
	dial, err := dialGRPC(addresses["grpc"])
	if err != nil {
		return err
	}
	g.servers["ext_authz"] = &Server{ok: http.StatusOK, dial: dial}
	g.prepare("ext_authz", overGRPC)
	return nil
}

// startRival starts oauth2-proxy as it decides about bearer tokens for nginx. It
// writes no log, and keeps no session, since a token needs none.
func (g *Gates) startRival(path string) (err error) {
	var free net.Listener
	for range 100 { // below the ports of connections, one of which could take it before oauth2-proxy does
		if free, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 19_000+rand.IntN(1_000))); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	addr := free.Addr().String()
	_ = free.Close()
	g.rival, err = run(path, "--http-address="+addr, "--provider=oidc", "--oidc-issuer-url="+g.issuer.URL(),
		"--client-id="+audience, "--client-secret=unused", "--cookie-secret=0123456789abcdef0123456789abcdef", "--email-domain=*",
		"--skip-jwt-bearer-tokens", "--upstream=static://202",
		"--request-logging=false", "--auth-logging=false", "--standard-logging=false")
	if err != nil {
		return err
	}
	exited := make(chan string, 1)
	go func() {
		said, _ := io.ReadAll(g.rival.output)
		exited <- string(said)
	}()
	for {
		if resp, err := http.Get("http://" + addr + "/ping"); err == nil {
			_ = resp.Body.Close()
			break
		}
		select {
		case said := <-exited:
			return fmt.Errorf("oauth2-proxy did not start: %s", said)
		case <-time.After(20 * time.Millisecond):
		}
	}
	g.servers["oauth2-proxy"] = &Server{addr: addr, ok: http.StatusAccepted, dial: dialHTTP}
	g.prepare("oauth2-proxy", overHTTP("GET /oauth2/auth HTTP/1.1\r\nX-Forwarded-Uri: /products\r\nX-Real-IP: %s\r\n"))
	return nil
}

// The callers for whom the proxy asks: that with good tokens, and that with forged
// ones.
const (
	goodCaller = "192.0.2.1"
	badCaller  = "192.0.2.2"
)

const goodTokens = 1000

// prepare makes the requests of a form.
func (g *Gates) prepare(form string, request func(caller, token string) []byte) {
	s := g.servers[form]
	s.issuer, s.stop = g.issuer, func() {}
	tokens := s.sign(goodTokens)
	var all [][]byte
	for _, token := range tokens {
		all = append(all, request(goodCaller, token))
	}
	s.known, s.many = ring(all[:1]), ring(all)
	s.forged = forging(request(badCaller, tokens[0]), tokens[0])
	s.other = ring([][]byte{request(goodCaller, g.issuer.Token("https://other.api", scope))})
}

// overHTTP returns requests as a proxy sends them: what it tells of the caller's,
// and the caller's own fields.
func overHTTP(fields string) func(caller, token string) []byte {
	return func(caller, token string) []byte {
		return fmt.Appendf(nil, fields+"Host: gateway\r\nUser-Agent: shop/1.0\r\nAccept: */*\r\nAuthorization: Bearer %s\r\n\r\n", caller, token)
	}
}

// overGRPC returns what Envoy asks with encode_raw_headers.
func overGRPC(caller, token string) []byte {
	field := func(name, value string) *corev3.HeaderValue {
		return &corev3.HeaderValue{Key: name, RawValue: []byte(value)}
	}
	message, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: caller, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 40000}}}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/products", Host: "api", Scheme: "http", Protocol: "HTTP/1.1",
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
				field(":authority", "api"), field(":path", "/products"), field(":method", "GET"), field(":scheme", "http"),
				field("user-agent", "shop/1.0"), field("accept", "*/*"), field("authorization", "Bearer "+token)}},
		}},
	}})
	if err != nil {
		panic(err) // nothing of it depends on anything
	}
	return message
}

// grpcConnections is how many the askers share: Envoy has one for each worker.
const grpcConnections = 2

// dialGRPC makes the connections. To dial then is to take one of them.
func dialGRPC(addr string) (func(*Server, string) (asker, error), error) {
	var shared []*grpc.ClientConn
	for range grpcConnections {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})))
		if err != nil {
			return nil, err
		}
		shared = append(shared, conn)
	}
	var next atomic.Uint64
	return func(*Server, string) (asker, error) {
		return grpcAsker{shared[next.Add(1)%grpcConnections]}, nil
	}, nil
}

type grpcAsker struct{ conn *grpc.ClientConn }

// Close leaves the connection to the others.
func (grpcAsker) Close() error { return nil }

func (a grpcAsker) do(request []byte) (status int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var raw []byte
	if err := a.conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, request, &raw); err != nil {
		return 0, err
	}
	answer := new(authv3.CheckResponse)
	if err := proto.Unmarshal(raw, answer); err != nil {
		return 0, err
	}
	if denied := answer.GetDeniedResponse(); denied != nil {
		return int(denied.GetStatus().GetCode()), nil
	}
	if answer.GetOkResponse() == nil || answer.GetStatus().GetCode() != 0 {
		return 0, errors.New("the answer neither lets the request through nor refuses it")
	}
	return http.StatusOK, nil
}

// rawCodec sends messages that have been written before, so that the client takes
// less of the cores.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// check asks with a good token, a forged one and one for another audience.
func (g *Gates) check() error {
	for _, form := range GateForms {
		s := g.servers[form]
		for name, test := range map[string]struct {
			stream stream
			want   int
		}{
			"a good token":             {s.known, s.ok},
			"a forged one":             {s.forged, http.StatusUnauthorized},
			"one for another audience": {s.other, http.StatusUnauthorized},
		} {
			status, err := s.ask(test.stream)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", form, name, err)
			}
			if status != test.want {
				return fmt.Errorf("%s answers %s with %d, not %d", form, name, status, test.want)
			}
		}
	}
	return nil
}

// meet asks about every good token once, so that all are known from then on.
func (g *Gates) meet() error {
	for _, form := range GateForms {
		s := g.servers[form]
		c, err := s.dial(s, "127.0.0.1")
		if err != nil {
			return err
		}
		for next, n := s.many(), 0; n < goodTokens; n++ {
			status, err := c.do(next())
			if err == nil && status != s.ok {
				err = fmt.Errorf("a good token got %d", status)
			}
			if err != nil {
				return errors.Join(fmt.Errorf("%s: %w", form, err), c.Close())
			}
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

// ask asks once.
func (s *Server) ask(requests stream) (status int, err error) {
	c, err := s.dial(s, "127.0.0.1")
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.do(requests()())
}

// GateCost is what known tokens cost.
type GateCost struct {
	Rate float64 // decisions a second that 16 connections get
	CPU  float64 // seconds of the program's processor time for each; 0 if the system does not tell
}

// Known measures decisions about one known token, or about a thousand.
func (g *Gates) Known(form string, many bool, d time.Duration) (c GateCost, err error) {
	s, of := g.servers[form], g.gateway
	if form == "oauth2-proxy" {
		of = g.rival
	}
	requests := s.known
	if many {
		requests = s.many
	}
	before := of.cpu()
	c.Rate, err = s.rate(requests, d)
	c.CPU = (of.cpu() - before).Seconds() / (c.Rate * d.Seconds())
	return c, err
}

// KnownLatency is [Server.KnownLatency] of a form.
func (g *Gates) KnownLatency(form string, flooded bool, d time.Duration) (Latency, error) {
	return g.servers[form].KnownLatency(flooded, d)
}

// Answers are what came while the configuration changed.
type Answers struct {
	Right   int
	Wrong   int // others than without a change
	Reloads int // that the gateway counted
}

// Reloading asks by a form, with a known token on eight connections and forged
// ones on two, while the configuration changes every so often. A request without
// an answer is an error.
func (g *Gates) Reloading(form string, every, d time.Duration) (a Answers, err error) {
	s := g.servers[form]
	before, _, err := g.Reloads()
	if err != nil {
		return a, err
	}
	stop, ended := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			case <-time.After(every):
				if err := g.Reload(); err != nil {
					<-stop
					ended <- err
					return
				}
			}
		}
	}()
	type result struct {
		counts counts
		err    error
	}
	forged := make(chan result)
	go func() {
		counts, err := s.load(2, 0, s.forged, d, nil)
		forged <- result{counts, err}
	}()
	known, err := s.load(8, 0, s.known, d, nil)
	bad := <-forged
	close(stop)
	err = errors.Join(err, bad.err, <-ended)
	a.Right = known[s.ok] + bad.counts[http.StatusUnauthorized]
	a.Wrong = known.sum() + bad.counts.sum() - a.Right
	after, refused, reloadErr := g.Reloads()
	if refused > 0 {
		err = errors.Join(err, fmt.Errorf("%d configurations were refused", refused))
	}
	a.Reloads = after - before
	return a, errors.Join(err, reloadErr)
}

// Processor returns the processor's kind where the system tells it.
func Processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	if match := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(info); match != nil {
		return string(match[1])
	}
	return "a processor of an unknown kind"
}
