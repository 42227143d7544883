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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// The whole-server test: a server in a process of its own, asked over loopback
// by this one. Both share the cores, so a client's work dilutes the differences.

const serveEnv = "BENCH_SERVE" // contender and issuer, for the server's process

// ServeIfAsked is the whole of main in the process of a server: it serves until
// its standard input ends, and does not return. In any other process it returns.
func ServeIfAsked() {
	contender, issuer, asked := strings.Cut(os.Getenv(serveEnv), " ")
	if !asked {
		return
	}
	if err := serve(contender, issuer); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(contender, issuer string) error {
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	products, err := protect(context.Background(), contender, Target{
		Issuer: issuer, JWKS: issuer + "/jwks", Algorithm: "ES384", Client: &http.Client{Timeout: 5 * time.Second},
	}, answer)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", answer)
	mux.Handle("GET /products", products)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	go func() { _ = http.Serve(listener, mux) }()
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// Server is a contender's server, and what to ask it.
type Server struct {
	addr   string
	stop   func()
	health stream
	known  stream // a token seen before
	many   stream // a thousand of them
	forged stream
	other  stream // a good token for another audience
	issuer *m2mauthtest.Issuer

	ok   int // the status of an answer to a good token
	dial func(s *Server, from string) (asker, error)

	answers atomic.Int64 // that load got
}

// asker sends requests, each after the answer to the one before.
type asker interface {
	do(request []byte) (status int, err error)
	Close() error
}

// StartServer starts a server in a process of its own, which runs the present
// program: its main must call [ServeIfAsked] first.
func StartServer(contender string) (*Server, error) {
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), serveEnv+"="+contender+" "+issuer.URL())
	command.Stderr = os.Stderr
	stdin, _ := command.StdinPipe()
	stdout, _ := command.StdoutPipe()
	if err := command.Start(); err != nil {
		issuer.Close()
		return nil, err
	}
	s := &Server{issuer: issuer, ok: http.StatusOK, dial: dialHTTP, stop: func() {
		_ = stdin.Close()
		_ = command.Wait()
		issuer.Close()
	}}
	if s.addr, err = bufio.NewReader(stdout).ReadString('\n'); err != nil {
		s.stop()
		return nil, fmt.Errorf("the server of %s did not start: %w", contender, err)
	}
	s.addr = strings.TrimSpace(s.addr)
	tokens := s.sign(1000)
	s.health = ring([][]byte{[]byte("GET /healthz HTTP/1.1\r\nHost: api\r\n\r\n")})
	s.known = ring(requests(tokens[:1]))
	s.many = ring(requests(tokens))
	s.forged = forging(requests(tokens[:1])[0], tokens[0])
	_, err = s.rate(s.many, time.Second) // every token has been seen, several times
	return s, err
}

// Stop ends the server and its issuer.
func (s *Server) Stop() { s.stop() }

func (s *Server) sign(n int) []string {
	return sign(s.issuer, n, func(int) m2mauthtest.Token {
		return m2mauthtest.Token{Audience: audience, Scopes: []string{scope}}
	})
}

func requests(tokens []string) (list [][]byte) {
	for _, token := range tokens {
		list = append(list, []byte("GET /products HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer "+token+"\r\n\r\n"))
	}
	return list
}

// stream is what a connection sends: it returns a function to be called for each
// request.
type stream func() func() []byte

func ring(list [][]byte) stream {
	return func() func() []byte {
		i := rand.IntN(len(list))
		return func() []byte { i++; return list[i%len(list)] }
	}
}

// forging makes each forged token another, since a server may verify one for
// several that have the same at a time.
func forging(request []byte, token string) stream {
	first := bytes.Index(request, []byte(token)) + strings.LastIndexByte(token, '.') + 1
	return func() func() []byte {
		own := slices.Clone(request)
		return func() []byte {
			copy(own[first:], fmt.Sprintf("%016x", rand.Uint64()))
			return own
		}
	}
}

// connection is the least of an HTTP client, so that it takes few of the cores.
type connection struct {
	net.Conn
	r *bufio.Reader
}

func dialHTTP(s *Server, from string) (asker, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
	c, err := dialer.Dial("tcp", s.addr)
	if err != nil {
		return nil, err
	}
	return &connection{c, bufio.NewReader(c)}, nil
}

func (c *connection) do(request []byte) (status int, err error) {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil || len(line) < len("HTTP/1.1 200") {
		return 0, errors.Join(err, fmt.Errorf("the answer begins with %q", line))
	}
	status, _ = strconv.Atoi(string(line[9:12]))
	length := 0
	for len(line) > 2 {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return 0, err
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
		}
	}
	_, err = c.r.Discard(length)
	return status, err
}

// Rates returns how many requests a second 16 connections get answered with 200:
// /healthz, and /products with one known token and with a thousand.
func (s *Server) Rates(d time.Duration) (health, known, many float64, err error) {
	health, healthErr := s.rate(s.health, d)
	known, knownErr := s.rate(s.known, d)
	many, manyErr := s.rate(s.many, d)
	return health, known, many, errors.Join(healthErr, knownErr, manyErr)
}

func (s *Server) rate(requests stream, d time.Duration) (float64, error) {
	counts, err := s.load(16, 0, requests, d, nil)
	if err == nil && counts[s.ok] != counts.sum() {
		err = fmt.Errorf("not all were answered with %d: %v", s.ok, counts)
	}
	return float64(counts[s.ok]) / d.Seconds(), err
}

type counts map[int]int // by status

func (c counts) sum() (n int) {
	for _, count := range c {
		n += count
	}
	return n
}

// load sends requests on some connections, each after the answer to the one
// before, until d has passed or stop is closed. A perSecond other than 0 is the
// most that they send together.
func (s *Server) load(connections, perSecond int, requests stream, d time.Duration, stop <-chan struct{}) (counts, error) {
	var mu sync.Mutex // guards total and failed
	total := counts{}
	var failed error
	var sent atomic.Int64
	var all sync.WaitGroup
	begin := time.Now()
	for range connections {
		all.Go(func() {
			own := counts{}
			err := s.loadOne(own, requests(), func() bool {
				if perSecond > 0 {
					due := begin.Add(time.Duration(sent.Add(1)) * time.Second / time.Duration(perSecond))
					time.Sleep(time.Until(due))
				}
				select {
				case <-stop:
					return false
				default:
					return time.Since(begin) < d
				}
			})
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			for status, n := range own {
				total[status] += n
			}
		})
	}
	all.Wait()
	return total, failed
}

func (s *Server) loadOne(own counts, next func() []byte, more func() bool) error {
	c, err := s.dial(s, "127.0.0.1")
	if err != nil {
		return err
	}
	defer c.Close()
	for more() {
		status, err := c.do(next())
		if err != nil {
			return err
		}
		own[status]++
		s.answers.Add(1)
	}
	return nil
}

// Latency says how long answers took, in seconds.
type Latency struct {
	P50, P99 float64
	Refused  int       // answers other than that to a good token
	Times    []float64 // all of them, sorted
}

// probe asks on one connection, with pauses.
func (s *Server) probe(from string, next func() []byte, pause, d time.Duration) (l Latency, err error) {
	c, err := s.dial(s, from)
	if err != nil {
		return l, err
	}
	defer c.Close()
	var times []float64
	for begin := time.Now(); time.Since(begin) < d; {
		asked := time.Now()
		status, err := c.do(next())
		if err != nil {
			return l, err
		}
		times = append(times, time.Since(asked).Seconds())
		if status != s.ok {
			l.Refused++
		}
		time.Sleep(pause)
	}
	slices.Sort(times)
	l.P50, l.P99, l.Times = times[len(times)/2], times[len(times)*99/100], times
	return l, nil
}

// KnownLatency returns how long a known token takes, alone or while 32
// connections send forged ones.
func (s *Server) KnownLatency(flooded bool, d time.Duration) (l Latency, err error) {
	probe := func() (err error) { l, err = s.probe("127.0.0.1", s.known(), time.Millisecond, d); return err }
	if !flooded {
		return l, probe()
	}
	return l, s.flood(32, 0, probe)
}

// NewLatency returns how long new good tokens from another address take, while
// forged ones come at ten times the rate at which they can be verified, and how
// often that rate was reached: 10 is all of it.
func (s *Server) NewLatency(d time.Duration) (l Latency, times float64, err error) {
	const alone = 500 * time.Millisecond
	verified, err := s.load(32, 0, s.forged, alone, nil)
	if err != nil {
		return l, 0, err
	}
	perSecond := float64(verified.sum()) / alone.Seconds()
	fresh := ring(requests(s.sign(int(d/(20*time.Millisecond)) + 1)))()
	err = s.flood(1200, int(10*perSecond), func() (err error) {
		begin, before := time.Now(), s.answers.Load()
		l, err = s.probe("127.0.0.2", fresh, 20*time.Millisecond, d)
		times = float64(s.answers.Load()-before) / time.Since(begin).Seconds() / perSecond
		return err
	})
	return l, times, err
}

// flood sends forged tokens for a while before f, and as long as it runs.
func (s *Server) flood(connections, perSecond int, f func() error) error {
	stop := make(chan struct{})
	ended := make(chan error)
	go func() {
		_, err := s.load(connections, perSecond, s.forged, time.Minute, stop)
		ended <- err
	}()
	time.Sleep(300 * time.Millisecond)
	err := f()
	close(stop)
	return errors.Join(err, <-ended)
}
