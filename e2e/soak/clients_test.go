package soak

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const (
	audience   = "https://shopping.api"
	readScope  = "read:products"
	writeScope = "write:products"
	leeway     = 30 * time.Second // of the shop
)

// load is what asks the shop.
type load struct {
	*judge
	shop       string // host:port
	forger     forger
	done       chan struct{} // closed when clients shall stop
	clients    sync.WaitGroup
	apps       atomic.Int64
	transports sync.Map // all of them: *http.Transport → nil
}

// forger has a key of each algorithm that the issuer's keys have.
type forger struct {
	*m2mauthtest.Issuer
	keys map[string]string // key IDs by algorithm
}

func newForger() forger {
	f := forger{m2mauthtest.NewIssuer(), make(map[string]string)}
	for _, alg := range []string{"ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"} {
		f.keys[alg] = f.Rotate(alg)
	}
	return f
}

func (l *load) url() string { return "http://" + l.shop }

// from returns a client with an address of its own, so that it is a source of its
// own to the shop, where the system has all of 127.0.0.0/8.
func (l *load) from(ip string, keepAlive bool) *http.Client {
	transport := &http.Transport{
		DialContext:         dialer(ip).DialContext,
		MaxIdleConnsPerHost: 4096,
		IdleConnTimeout:     30 * time.Second,
		DisableKeepAlives:   !keepAlive,
		DisableCompression:  true,
	}
	l.transports.Store(transport, nil)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

func (l *load) closeIdle() {
	l.transports.Range(func(transport, _ any) bool {
		transport.(*http.Transport).CloseIdleConnections()
		return true
	})
}

// ownAddresses says that clients can have addresses of their own.
const ownAddresses = runtime.GOOS == "linux"

func dialer(ip string) *net.Dialer {
	if !ownAddresses {
		return &net.Dialer{}
	}
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
}

// every calls f so often a second, in n goroutines, until the load is done.
func (l *load) every(n int, perSecond float64, f func()) {
	for range n {
		l.clients.Go(func() {
			tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
			defer tick.Stop()
			for {
				select {
				case <-l.done:
					return
				case <-tick.C:
					f()
				}
			}
		})
	}
}

// token makes a request with a good token of the key, of an app of its own.
func (l *load) token(k *key, client, method, path string, scopes ...string) request {
	app := fmt.Sprintf("app%d", l.apps.Add(1))
	token := l.issuer.Sign(m2mauthtest.Token{AppID: app, Audience: audience, Scopes: scopes, KeyID: k.id})
	r := request{
		client: client, method: method, path: path, authorization: []string{"Bearer " + token},
		story: fmt.Sprintf("a good token of %s for %q", app, scopes), want: accepted, key: k, checked: true,
	}
	switch {
	case path == "/whoami":
		r.body = fmt.Sprintf(`{"app_id":%q,"client_id":%q,"scopes":[%s]}`, app, app, quoted(scopes))
	case method == http.MethodPost && slices.Contains(scopes, writeScope):
		r.body = `{"id":3,"name":"Teapot"}`
	case method == http.MethodGet && slices.Contains(scopes, readScope):
		r.body = `[{"id":1,"name":"Coffee grinder"},{"id":2,"name":"Kettle"}]`
	default:
		r.want = lacksScope
		if method == http.MethodGet {
			panic("the model knows no token that may not read")
		}
	}
	return r
}

func quoted(scopes []string) string {
	if len(scopes) == 0 {
		return ""
	}
	return `"` + strings.Join(scopes, `","`) + `"`
}

// anyToken is token for one of the routes.
func (l *load) anyToken(k *key, client string) request {
	switch l.apps.Load() % 3 {
	case 0:
		return l.token(k, client, "GET", "/products", readScope)
	case 1:
		return l.token(k, client, "POST", "/products", readScope, writeScope)
	default:
		return l.token(k, client, "GET", "/whoami", writeScope, fmt.Sprintf("read:orders%d", l.apps.Load()))
	}
}

// start starts all clients but the floods.
func (l *load) start() {
	l.known()
	l.newTokens()
	l.refusals()
	l.forgeries()
	l.keys()
	l.expiring()
	l.slow()
}

// known are the clients that every API has: with tokens that the shop has seen.
func (l *load) known() {
	pool := func(client string, n int) func() request {
		var mu sync.Mutex
		var of *key
		var tokens []request
		return func() request {
			mu.Lock()
			defer mu.Unlock()
			if k := l.issuer.good(); k != of {
				of, tokens = k, tokens[:0]
				for range n {
					tokens = append(tokens, l.anyToken(k, client))
				}
			}
			return tokens[mathrand.IntN(n)]
		}
	}
	client, tokens := l.from("127.0.0.2", true), pool("known tokens", 32)
	l.every(8, 40, func() { l.send(client, l.url(), tokens()) })
	strangers, others := l.from("127.0.0.3", false), pool("known tokens, each on a connection of its own", 8)
	l.every(1, 20, func() { l.send(strangers, l.url(), others()) })
}

func (l *load) newTokens() {
	client := l.from("127.0.0.4", true)
	l.every(2, 20, func() { l.send(client, l.url(), l.anyToken(l.issuer.good(), "new tokens")) })
	l.every(1, 1, func() { // of an app that starts many threads at once
		r := l.anyToken(l.issuer.good(), "one new token, 20 times at once")
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { l.send(client, l.url(), r) })
		}
		all.Wait()
	})
}

func (l *load) refusals() {
	client := l.from("127.0.0.5", true)
	claims := []struct {
		story string
		token m2mauthtest.Token
	}{
		{"another audience", m2mauthtest.Token{Audience: "https://billing.api"}},
		{"an audience with a slash", m2mauthtest.Token{Audience: audience + "/"}},
		{"another issuer", m2mauthtest.Token{Audience: audience, Claims: map[string]any{"iss": "https://issuer.test/oidc"}}},
		{"expired a minute ago", m2mauthtest.Token{Audience: audience, Lifetime: -time.Minute}},
		{"not valid for an hour", m2mauthtest.Token{Audience: audience, Claims: map[string]any{"nbf": time.Now().Add(12 * time.Hour).Unix()}}},
		{"no sub", m2mauthtest.Token{Audience: audience, Claims: map[string]any{"sub": nil}}},
		{"no exp", m2mauthtest.Token{Audience: audience, Claims: map[string]any{"exp": nil}}},
		{"a cnf", m2mauthtest.Token{Audience: audience, Claims: map[string]any{"cnf": map[string]any{"jkt": "x"}}}},
		{"the type of an ID token", m2mauthtest.Token{Audience: audience, Header: map[string]any{"typ": "JWT"}}},
		{"a critical extension", m2mauthtest.Token{Audience: audience, Header: map[string]any{"crit": []string{"b64"}}}},
		{"no signature, alg none", m2mauthtest.Token{Audience: audience, Algorithm: "none"}},
		{"HS256", m2mauthtest.Token{Audience: audience, Algorithm: "HS256", Secret: []byte("secret")}},
	}
	l.every(1, 20, func() {
		c := claims[mathrand.IntN(len(claims))]
		c.token.Scopes = []string{readScope, writeScope}
		l.send(client, l.url(), request{
			client: "refused before a key is looked for", method: "GET", path: "/products", story: c.story,
			authorization: []string{"Bearer " + l.issuer.Sign(c.token)}, want: invalid,
		})
	})
	l.every(1, 20, func() {
		k := l.issuer.good()
		if mathrand.IntN(2) == 0 {
			l.send(client, l.url(), l.token(k, "without the scope", "POST", "/products", readScope))
			return
		}
		l.send(client, l.url(), request{
			client: "limited to an organization", method: "GET", path: "/products", story: "a good token with organization_id",
			authorization: []string{"Bearer " + l.issuer.Sign(m2mauthtest.Token{
				Audience: audience, Scopes: []string{readScope}, KeyID: k.id, OrganizationID: "acme",
			})},
			want: forbidden, key: k, checked: true,
		})
	})
	l.every(1, 20, func() {
		good := "Bearer " + l.issuer.Token(audience, readScope)
		r := []request{
			{client: "no token", story: "no Authorization", want: noToken},
			{client: "no token", story: "another scheme", authorization: []string{"Basic YTpi"}, want: noToken},
			{client: "malformed", story: "two Authorization fields", authorization: []string{good, good}, want: badRequest},
			{client: "malformed", story: "Bearer without a token", authorization: []string{"Bearer"}, want: badRequest},
			{client: "malformed", story: "two tokens in a field", authorization: []string{good + " " + good}, want: badRequest},
			{client: "malformed", story: "9 KiB", authorization: []string{"Bearer " + strings.Repeat("a", 9<<10)}, want: badRequest},
			{client: "rubbish", story: "half of a token", authorization: []string{good[:len(good)/2]}, want: invalid},
			{client: "rubbish", story: "an opaque token", authorization: []string{"Bearer abcdefghijklmnop"}, want: invalid},
			{client: "health check", path: "/healthz", story: "nothing", want: accepted, body: `{"status":"ok"}`},
		}[mathrand.IntN(9)]
		r.method = "GET"
		if r.path == "" {
			r.path = "/products"
		}
		l.send(client, l.url(), r)
	})
}

// forgery makes a request with a token that names the key and was not signed by it.
func (l *load) forgery(k *key, client string) request {
	r := l.token(k, client, "GET", "/whoami")
	parts := strings.Split(strings.TrimPrefix(r.authorization[0], "Bearer "), ".")
	switch mathrand.IntN(4) {
	case 0:
		r.story = "a random signature"
		parts[2] = randomSignature(len(parts[2]))
	case 1:
		r.story = "the signature of another token"
		other := l.token(k, client, "GET", "/whoami").authorization[0]
		parts[2] = other[strings.LastIndexByte(other, '.')+1:]
	case 2:
		r.story = "more scopes than were signed"
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			panic(err)
		}
		parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), "{", `{"scope":"`+readScope+`",`, 1)))
	default:
		r.story = "the signature of a forger's key"
		forged := l.forger.Sign(m2mauthtest.Token{Audience: audience, Scopes: []string{readScope}, KeyID: l.forger.keys[k.alg],
			Header: map[string]any{"kid": k.id}, Claims: map[string]any{"iss": l.issuer.URL()}})
		parts = strings.Split(forged, ".")
	}
	r.authorization = []string{"Bearer " + strings.Join(parts, ".")}
	r.want, r.body = invalid, ""
	return r
}

func randomSignature(encoded int) string {
	signature := make([]byte, base64.RawURLEncoding.DecodedLen(encoded))
	_, _ = rand.Read(signature)
	return base64.RawURLEncoding.EncodeToString(signature)
}

func (l *load) forgeries() {
	client := l.from("127.0.0.6", true)
	l.every(1, 20, func() { l.send(client, l.url(), l.forgery(l.issuer.good(), "forged")) })
	l.every(1, 20, func() { // a good token is remembered, and its forgery sent
		k := l.issuer.good()
		good := l.anyToken(k, "new tokens")
		l.send(client, l.url(), good)
		forged := good
		field := good.authorization[0]
		at := len(field) - 2 - mathrand.IntN(20)
		other := byte('A')
		if field[at] == other {
			other = 'B'
		}
		forged.client, forged.story, forged.want, forged.body = "forged", "a character of the signature of a remembered token changed", invalid, ""
		forged.authorization = []string{field[:at] + string(other) + field[at+1:]}
		l.send(client, l.url(), forged)
	})
	l.every(2, 10, func() {
		token := l.issuer.Sign(m2mauthtest.Token{Audience: audience, Scopes: []string{readScope}, Header: map[string]any{"kid": rand.Text()}})
		l.send(client, l.url(), request{
			client: "made-up key IDs", method: "GET", path: "/products", story: "a kid that never was",
			authorization: []string{"Bearer " + token}, want: invalid, madeUp: true,
		})
	})
}

// keys are the clients of keys that come and go.
func (l *load) keys() {
	client := l.from("127.0.0.7", true)
	l.every(1, 10, func() { l.send(client, l.url(), l.anyToken(l.issuer.newest(), "tokens of the newest key")) })

	var mu sync.Mutex
	remembered := make(map[*key][]request) // that the shop has accepted
	l.every(1, 5, func() {
		k := l.issuer.good()
		r := l.anyToken(k, "new tokens")
		if l.send(client, l.url(), r) == accepted {
			mu.Lock()
			defer mu.Unlock()
			if r.client = "tokens of a withdrawn key"; len(remembered[k]) < 4 {
				remembered[k] = append(remembered[k], r)
			}
		}
	})
	l.every(1, 20, func() {
		gone := l.issuer.gone(6)
		if len(gone) == 0 {
			return
		}
		mu.Lock()
		for k := range remembered {
			if k.until.Load() <= gone[len(gone)-1].from {
				delete(remembered, k)
			}
		}
		k := gone[mathrand.IntN(len(gone))]
		r := l.anyToken(k, "tokens of a withdrawn key") // a new one, if none is remembered
		if old := remembered[k]; len(old) > 0 {
			r = old[mathrand.IntN(len(old))]
		}
		mu.Unlock()
		l.send(client, l.url(), r)
	})
}

// expiring tokens end while they are in use.
func (l *load) expiring() {
	client := l.from("127.0.0.8", true)
	const lives = 3 * time.Second
	l.every(4, 1, func() { // each takes longer
		k := l.issuer.good()
		expires := time.Now().Add(lives).Truncate(time.Second)
		app := fmt.Sprintf("app%d", l.apps.Add(1))
		r := request{
			client: "tokens that expire in use", method: "GET", path: "/whoami", story: "a token that expires",
			authorization: []string{"Bearer " + l.issuer.Sign(m2mauthtest.Token{
				AppID: app, Audience: audience, KeyID: k.id, Claims: map[string]any{"exp": expires.Add(-leeway).Unix()},
			})},
			body: fmt.Sprintf(`{"app_id":%q,"client_id":%q,"scopes":[]}`, app, app),
			want: accepted, key: k, expires: expires, checked: true,
		}
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for time.Now().Before(expires.Add(time.Second)) {
			l.send(client, l.url(), r)
			select {
			case <-l.done:
				return
			case <-tick.C:
			}
		}
	})
}

// slow are clients that are slow, or break off.
func (l *load) slow() {
	const ip = "127.0.0.9"
	// dial connects, and calls f with a tick that slows it down.
	dial := func(client string, pause time.Duration, f func(*net.TCPConn, func() bool)) {
		connection, err := dialer(ip).Dial("tcp", l.shop)
		if err != nil {
			l.judged(request{client: client, story: "a connection"}, l.begin(), wrong, err.Error())
			return
		}
		defer connection.Close()
		tick := time.NewTicker(pause)
		defer tick.Stop()
		f(connection.(*net.TCPConn), func() bool {
			select {
			case <-l.done:
				return false
			case <-tick.C:
				return true
			}
		})
	}
	text := func(r request) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: shop\r\nAuthorization: %s\r\n\r\n", r.method, r.path, r.authorization[0])
	}
	l.every(2, 1, func() {
		r := l.anyToken(l.issuer.good(), "slow to ask")
		dial(r.client, 20*time.Millisecond, func(c *net.TCPConn, wait func() bool) {
			m, piece := l.begin(), text(r)
			for n := len(piece)/50 + 1; len(piece) > 0 && wait(); {
				n = min(n, len(piece))
				if _, err := io.WriteString(c, piece[:n]); err != nil {
					l.cut(r, m, err)
					return
				}
				piece = piece[n:]
			}
			if piece == "" {
				l.answer(c, bufio.NewReader(c), r, m)
			}
		})
	})
	l.every(4, 1, func() { // each takes longer
		r := l.anyToken(l.issuer.good(), "never end their headers")
		dial(r.client, 100*time.Millisecond, func(c *net.TCPConn, wait func() bool) {
			m, piece := l.begin(), strings.TrimSuffix(text(r), "\r\n")+"X-Slow: "
			_, _ = io.WriteString(c, piece)
			cut := make(chan struct{})
			l.clients.Go(func() {
				defer close(cut)
				got, _ := io.ReadAll(c)
				if len(got) > 0 && !strings.HasPrefix(string(got), "HTTP/1.1 4") {
					l.judged(r, m, wrong, string(got))
				} else {
					l.judged(r, m, disconnected, "")
				}
			})
			for wait() {
				select {
				case <-cut:
					return
				default:
					_, _ = io.WriteString(c, "x")
				}
			}
			c.Close()
		})
	})
	l.every(1, 0.5, func() {
		r := l.anyToken(l.issuer.good(), "slow to read")
		dial(r.client, 10*time.Millisecond, func(c *net.TCPConn, wait func() bool) {
			const asked = 300
			_ = c.SetReadBuffer(4 << 10)
			m := l.begin()
			l.clients.Go(func() { _, _ = io.WriteString(c, strings.Repeat(text(r), asked)) })
			answers := bufio.NewReaderSize(c, 512)
			for range asked {
				if !wait() || !l.answer(c, answers, r, m) {
					break
				}
			}
		})
	})
	l.every(2, 2, func() {
		r := l.anyToken(l.issuer.good(), "break off")
		dial(r.client, time.Millisecond, func(c *net.TCPConn, _ func() bool) {
			m, ask := l.begin(), text(r)
			switch mathrand.IntN(4) {
			case 0: // within the token
				ask = ask[:len(ask)/2]
			case 1: // within the body
				ask = strings.Replace(strings.Replace(ask, "\r\n\r\n", "\r\nContent-Length: 1000000\r\n\r\n", 1), "GET", "POST", 1) + strings.Repeat("x", 1000)
			case 2: // before the answer, with a reset
				_ = c.SetLinger(0)
			} // or before the answer
			_, _ = io.WriteString(c, ask)
			l.judged(r, m, disconnected, "")
		})
	})
}

// answer reads and judges one answer.
func (l *load) answer(c net.Conn, answers *bufio.Reader, r request, m moment) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	response, err := http.ReadResponse(answers, &http.Request{Method: r.method})
	if err != nil {
		l.cut(r, m, err)
		return false
	}
	return l.answered(r, m, response) != wrong
}

// headerTimeout is how long the shop waits for a request's header fields.
const headerTimeout = 5 * time.Second

// cut judges a connection that ended without an answer. That is right only for a
// client that was too slow, as one may become on a busy machine.
func (l *load) cut(r request, m moment, err error) {
	if time.Since(m.at) >= headerTimeout && r.client == "slow to ask" {
		l.judged(r, m, disconnected, "")
		return
	}
	l.judged(r, m, wrong, "no answer: "+err.Error())
}

// flood sends forged tokens of a known key on so many connections from each of
// the sources, each as fast as it is answered.
func (l *load) flood(lasts time.Duration, connections int, sources ...string) {
	if len(sources) > 1 || !ownAddresses {
		l.manyFlood.begin()
		defer l.manyFlood.end() // when all have been answered
	}
	k := l.issuer.good()
	var all sync.WaitGroup
	end := time.Now().Add(lasts)
	for _, source := range sources {
		client := l.from(source, true)
		for range connections {
			all.Go(func() {
				r := l.token(k, "a flood of forged tokens", "GET", "/products", readScope)
				r.story, r.want, r.body, r.flood = "a random signature", invalid, "", true
				field := r.authorization[0]
				at := strings.LastIndexByte(field, '.') + 1
				for time.Now().Before(end) {
					r.authorization = []string{field[:at] + randomSignature(len(field)-at)}
					l.send(client, l.url(), r)
				}
			})
		}
		defer client.CloseIdleConnections()
	}
	all.Wait()
}

// fill lets the shop remember as many tokens as it can, so that its memory has
// its lasting size before it is looked at.
func (l *load) fill(tokens int) {
	client := l.from("127.0.0.2", true)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range tokens / 8 {
				l.send(client, l.url(), l.anyToken(l.issuer.good(), "new tokens, before the beginning"))
			}
		})
	}
	all.Wait()
}
