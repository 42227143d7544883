package observability

import (
	"crypto/rand"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/e2e/internal/process"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const (
	audience = "https://shopping.api"
	scope    = "read:products"
)

// place is a shop with an issuer and clients of its own. Prometheus knows it as a job.
type place struct {
	t       *testing.T
	issuer  *issuer
	address string
	env     []string
	program string
	process *process.Process
	// stranger has an address of its own, where the system has all of 127.0.0.0/8, and
	// sends nothing elsewhere. A guard takes it for another source than the client.
	client, stranger *http.Client

	ended   chan struct{} // closed when clients shall stop
	clients sync.WaitGroup
}

func newPlace(t *testing.T, program string, env ...string) *place {
	t.Helper()
	p := &place{
		t: t, issuer: startIssuer(t), address: process.FreeAddresses(t, 1)[0], program: program,
		client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 4096}},
		stranger: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
			DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext}},
		ended: make(chan struct{}),
	}
	p.env = append([]string{"ADDR=" + p.address, "M2MAUTH_ISSUER=" + p.issuer.URL(), "M2MAUTH_AUDIENCE=" + audience}, env...)
	return p
}

// open starts the shop, with more settings, and replaces the one that runs.
func (p *place) open(env ...string) {
	if p.process != nil {
		p.process.Stop()
	}
	cmd := exec.Command(p.program)
	cmd.Env = append(append(os.Environ(), p.env...), env...)
	p.process = process.Start(p.t, cmd)
	p.process.Ready(p.t, "http://"+p.address+"/healthz")
}

// close ends the clients and the shop.
func (p *place) close() {
	close(p.ended)
	p.clients.Wait()
	p.process.Stop()
	p.client.CloseIdleConnections()
	p.stranger.CloseIdleConnections()
}

// send sends one request. What comes back is for the metrics to tell.
func (p *place) send(client *http.Client, path, token string) {
	r, err := http.NewRequest("GET", "http://"+p.address+path, nil)
	if !assert.NoError(p.t, err) {
		return
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(r)
	if err != nil {
		return // the shop starts again, or there is no stranger
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
}

// every lets a client send so often in a second, until stop or the end.
func (p *place) every(perSecond float64, path string, token func() string) (stop func()) {
	return p.everyBy(p.client, perSecond, path, token)
}

func (p *place) everyBy(client *http.Client, perSecond float64, path string, token func() string) (stop func()) {
	stopped := make(chan struct{})
	p.clients.Go(func() {
		tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
		defer tick.Stop()
		for {
			select {
			case <-p.ended:
				return
			case <-stopped:
				return
			case <-tick.C:
				p.send(client, path, token())
			}
		}
	})
	return sync.OnceFunc(func() { close(stopped) })
}

// token returns a good token, changed by edit.
func (p *place) token(edit func(*m2mauthtest.Token)) string {
	token := m2mauthtest.Token{AppID: "reader", Audience: audience, Scopes: []string{scope}}
	if edit != nil {
		edit(&token)
	}
	return p.issuer.Sign(token)
}

// forger returns a function that makes tokens of the issuer's key with signatures that
// are random.
func (p *place) forger() func() string {
	token := p.token(nil)
	at := strings.LastIndexByte(token, '.') + 1
	return func() string {
		signature := make([]byte, base64.RawURLEncoding.DecodedLen(len(token)-at))
		_, _ = rand.Read(signature)
		return token[:at] + base64.RawURLEncoding.EncodeToString(signature)
	}
}

// customers are what a healthy API sees: known tokens and new ones, and the few bad
// requests of every day.
func (p *place) customers() {
	known, sent := p.token(nil), 0
	p.every(10, "/products", func() string {
		if sent++; sent%50 == 0 { // clients get new tokens before the issuer withdraws a key
			known = p.token(nil)
		}
		return known
	})
	p.every(1, "/products", func() string { return p.token(nil) })
	p.every(1, "/products", func() string { return "" })
	p.every(1, "/offers", func() string { return p.token(nil) })
	for _, edit := range []func(*m2mauthtest.Token){
		func(t *m2mauthtest.Token) { t.Expired = true },
		func(t *m2mauthtest.Token) { t.Scopes = nil },
		func(t *m2mauthtest.Token) { t.Audience = "https://billing.api" },
		func(t *m2mauthtest.Token) { t.AppID = "revoked" },
	} {
		p.every(0.2, "/products", func() string { return p.token(edit) })
	}
	p.every(0.4, "/products", p.forger())
}

// rotations lets the issuer change its keys every few seconds, until the end.
func (p *place) rotations() {
	p.clients.Go(func() {
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-p.ended:
				return
			case <-tick.C:
				p.issuer.Rotate("ES384")
			}
		}
	})
}

// issuer is one that can be stopped, started again, and made to fail.
type issuer struct {
	*m2mauthtest.Issuer
	t       *testing.T
	address string
	server  *http.Server // nil while nothing listens
}

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	kit, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	kit.Close() // its name stays
	u, err := url.Parse(kit.URL())
	require.NoError(t, err)
	i := &issuer{Issuer: kit, t: t, address: u.Host}
	t.Cleanup(i.stop)
	i.start()
	return i
}

func (i *issuer) start() {
	var listener net.Listener
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // a connection of somebody may have the port for a moment
		var err error
		if listener, err = net.Listen("tcp", i.address); err == nil {
			break
		}
		if !assert.True(i.t, time.Now().Before(deadline), err) {
			return
		}
	}
	i.server = &http.Server{Handler: i.Issuer, ReadHeaderTimeout: 10 * time.Second}
	go func(s *http.Server) { _ = s.Serve(listener) }(i.server)
}

func (i *issuer) stop() {
	if i.server != nil {
		i.server.Close()
		i.server = nil
	}
}

// fail answers every request so, until mend.
func (i *issuer) fail(answer http.HandlerFunc) {
	i.Intercept(func(http.Handler) http.Handler { return answer })
}

func (i *issuer) mend() { i.Intercept(nil) }
