// Package revocation takes tokens back in three replicas of a server that share a list in
// a real Redis, while clients send, and while Redis and the replicas are killed.
//
//	REVOCATION=1m go test -count=1 -v -timeout 15m ./e2e/revocation
//
// REVOCATION is for how long they are killed; without it, a few seconds.
package revocation

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/m2mauth/m2mauth/e2e/internal/process"
	"github.com/m2mauth/m2mauth/internal/test/redisserver"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	list "github.com/m2mauth/m2mauth/revocation"
	"github.com/m2mauth/m2mauth/revocation/redisstore"
)

const (
	audience = "https://shopping.api"
	password = "of-this-test-alone"
	within   = 2 * time.Second // what is promised
	patience = time.Minute     // ends the wait for what does not come
	clients  = 50
	tries    = 100
	streamed = 10 // of the tries, with a stream open in each replica
)

func TestMain(m *testing.M) { process.Main(m) }

// rights are those that redisstore documents. The first two replicas have an admin
// handler, the third only reads.
var rights = []string{
	"--user", "default", "off",
	"--user", "reads", "on", ">" + password, "resetchannels", "-@all", "+multi", "+exec", "+xinfo|stream", "+xrange", "+xread", "%R~{m2mauth}:revocations",
	"--user", "revokes", "on", ">" + password, "resetchannels", "-@all", "+multi", "+exec", "+xinfo|stream", "+xrange", "+xread", "+xadd", "~{m2mauth}:revocations",
	"--user", "flushes", "on", ">" + password, "-@all", "+flushall",
}

var users = []string{"revokes", "revokes", "reads"}

// replica is one of the servers. It starts again on the same addresses.
type replica struct {
	number       int
	url, rpcAddr string
	command      func() *exec.Cmd
	process      *process.Process
	client       *http.Client
}

func (r *replica) start(t *testing.T) {
	r.process = process.Start(t, r.command())
	r.process.Ready(t, r.url+"/healthz")
}

// get returns the status of a request, and 0 if there was no response.
func (r *replica) get(path, token string) int {
	request, err := http.NewRequest("GET", r.url+path, nil)
	if err != nil {
		panic(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := r.client.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

// app is a client of the API, with its one token.
type app struct {
	id, token string

	mu    sync.Mutex // guards the fields below
	asked bool       // somebody has begun to revoke it
	acked time.Time
	shown [3]bool // in each replica, which may have been started again since
}

// fleet is what all parts of the test share.
type fleet struct {
	t        *testing.T
	issuer   *m2mauthtest.Issuer
	redis    *redisserver.Server
	replicas []*replica
	admin    string // a token

	mu       sync.Mutex // guards apps
	apps     []*app
	requests atomic.Int64
}

func (f *fleet) newApp() *app {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := fmt.Sprintf("app-%d", len(f.apps))
	a := &app{id: id, token: f.issuer.Sign(m2mauthtest.Token{AppID: id, Audience: audience, Scopes: []string{"read:products"}})}
	f.apps = append(f.apps, a)
	return a
}

func (f *fleet) anyApp() *app {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.apps[rand.N(len(f.apps))]
}

// ask sends a request and judges the response.
func (f *fleet) ask(a *app, r *replica) int {
	a.mu.Lock()
	shown := a.shown[r.number]
	a.mu.Unlock()
	code := r.get("/products", a.token)
	f.requests.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch code {
	case 200:
		assert.False(f.t, shown, "replica %d lets %s in again", r.number, a.id)
	case 401:
		assert.True(f.t, a.asked, "replica %d keeps %s out, which nobody revoked", r.number, a.id)
		a.shown[r.number] = true
	case 0, 503:
	default:
		assert.Fail(f.t, "an unexpected response", "%d from replica %d", code, r.number)
	}
	return code
}

// revoke revokes the tokens of an app in a replica. It reports whether that was
// acknowledged.
func (f *fleet) revoke(a *app, r *replica) bool {
	a.mu.Lock()
	a.asked = true
	a.mu.Unlock()
	body, err := json.Marshal(map[string]any{"issuers": []string{f.issuer.URL()}, "client": a.id, "reason": "a test"})
	require.NoError(f.t, err)
	request, err := http.NewRequest("POST", r.url+"/revocations/", bytes.NewReader(body))
	require.NoError(f.t, err)
	request.Header.Set("Authorization", "Bearer "+f.admin)
	request.Header.Set("Content-Type", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	if response.StatusCode/100 != 2 {
		assert.Equal(f.t, 503, response.StatusCode, "%s", text)
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acked = time.Now()
	return true
}

// revoked returns the apps whose revocation was acknowledged.
func (f *fleet) revoked() []*app {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.apps), func(a *app) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.acked.IsZero()
	})
}

// all waits until every replica says that it has read all, and for the two seconds after
// the last revocation, and then asks each about every app.
func (f *fleet) all() {
	f.t.Helper()
	for _, r := range f.replicas {
		f.until(r, "/readyz", "", 200)
	}
	revoked := f.revoked()
	for _, a := range revoked {
		time.Sleep(time.Until(a.acked.Add(within)))
	}
	for _, r := range f.replicas {
		for _, a := range revoked {
			require.Equal(f.t, 401, f.ask(a, r), "%s in replica %d", a.id, r.number)
		}
	}
	f.t.Logf("%d revoked apps are kept out by all replicas; %d requests so far", len(revoked), f.requests.Load())
}

func (f *fleet) until(r *replica, path, token string, status int) {
	f.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		got := r.get(path, token)
		if got == status {
			return
		}
		require.True(f.t, time.Now().Before(deadline), "replica %d: %s is still %d", r.number, path, got)
	}
}

func startFleet(t *testing.T) *fleet {
	f := &fleet{t: t, redis: redisserver.Start(t, rights...)}
	program := filepath.Join(t.TempDir(), "replica")
	output, ok := process.Run(t, 10*time.Minute, exec.Command("go", "build", "-o", program, "../internal/replica"))
	require.True(t, ok, output)
	var err error
	f.issuer, err = m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(f.issuer.Close)
	f.admin = f.issuer.Sign(m2mauthtest.Token{AppID: "admin", Audience: audience, Scopes: []string{"revoke"}})
	addresses := process.FreeAddresses(t, 2*len(users))
	for i, user := range users {
		r := &replica{number: i, url: "http://" + addresses[2*i], rpcAddr: addresses[2*i+1], client: &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: 2 * clients}, Timeout: 20 * time.Second}}
		t.Cleanup(r.client.CloseIdleConnections)
		r.command = func() *exec.Cmd {
			command := exec.Command(program)
			command.Env = append(os.Environ(), "ADDR="+addresses[2*i], "GRPC_ADDR="+r.rpcAddr, "ISSUER="+f.issuer.URL(), "AUDIENCE="+audience,
				"REDIS="+f.redis.Addr, "REDIS_USER="+user, "REDIS_PASSWORD="+password)
			return command
		}
		r.start(t)
		f.replicas = append(f.replicas, r)
	}
	return f
}

func (f *fleet) store(user string) *redisstore.Store {
	store, err := redisstore.New(redisstore.Config{Address: f.redis.Addr, Username: user, Password: password})
	require.NoError(f.t, err)
	f.t.Cleanup(func() { store.Close() })
	return store
}

// load lets the clients loose until stop is called.
func (f *fleet) load() (stop func()) {
	done := make(chan struct{})
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(rand.N(100 * time.Millisecond)):
					f.ask(f.anyApp(), f.replicas[rand.N(len(f.replicas))])
				}
			}
		})
	}
	return func() {
		close(done)
		group.Wait()
	}
}

func TestRevocation(t *testing.T) {
	f := startFleet(t)
	first := f.newApp()
	for _, r := range f.replicas {
		require.Equal(t, 503, r.get("/readyz", ""))
		require.Equal(t, 503, f.ask(first, r), "a store that was never set up is no empty list")
	}
	require.NoError(t, list.Init(t.Context(), f.store("revokes")))
	for _, r := range f.replicas {
		f.until(r, "/readyz", "", 200)
		require.Equal(t, 200, f.ask(first, r))
	}
	for range clients {
		f.newApp() // and nobody revokes them
	}
	stop := f.load()
	f.measure()
	f.chaos()
	f.flush("a flush", func() {
		require.Equal(t, "+OK", f.redis.Do("flushes", password, "FLUSHALL"))
	})
	f.flush("a start with an empty directory", func() {
		f.redis.Kill()
		f.redis.Empty()
		f.redis.Run()
	})
	stop()
	f.amnesia()
}

// measure takes apps back one by one, and looks when each replica shows it.
func (f *fleet) measure() {
	t := f.t
	var took, ended []time.Duration
	tries, streamed := tries, streamed
	if testing.Short() {
		tries, streamed = 20, 2
	}
	for try := range tries {
		a := f.newApp()
		for _, r := range f.replicas {
			require.Equal(t, 200, f.ask(a, r))
		}
		streams := make(chan time.Time, len(f.replicas))
		if try < streamed {
			for _, r := range f.replicas {
				f.stream(a, r, streams)
			}
		}
		began := time.Now()
		require.True(t, f.revoke(a, f.replicas[try%2]))
		shown := make(chan time.Duration, len(f.replicas))
		for _, r := range f.replicas {
			go func() {
				for f.ask(a, r) != 401 && time.Since(began) < patience {
					time.Sleep(2 * time.Millisecond)
				}
				shown <- time.Since(began)
			}()
		}
		var last time.Duration
		for range f.replicas {
			last = max(last, <-shown)
		}
		took = append(took, last)
		if try < streamed {
			for range f.replicas {
				select {
				case at := <-streams:
					ended = append(ended, at.Sub(began))
				case <-time.After(patience):
					require.Fail(t, "a stream goes on")
				}
			}
		}
	}
	f.figures("revoke → 401 in all three replicas", took)
	f.figures("revoke → the end of a gRPC stream", ended)
}

// figures prints some, and holds the p99 to what is promised.
func (f *fleet) figures(what string, took []time.Duration) {
	slices.Sort(took)
	at := func(percent int) time.Duration {
		return took[(len(took)*percent+99)/100-1].Round(100 * time.Microsecond)
	}
	f.t.Logf("%s, of %d: p50 %v, p99 %v, longest %v", what, len(took), at(50), at(99), at(100))
	assert.LessOrEqual(f.t, at(99), within, what)
}

// stream opens a stream that goes on, and sends the time of its end.
func (f *fleet) stream(a *app, r *replica, ended chan<- time.Time) {
	conn, err := grpc.NewClient(r.rpcAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(f.t, err)
	f.t.Cleanup(func() { conn.Close() })
	ctx := metadata.AppendToOutgoingContext(f.t.Context(), "authorization", "Bearer "+a.token)
	stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	require.NoError(f.t, err)
	_, err = stream.Recv()
	require.NoError(f.t, err)
	go func() {
		_, err := stream.Recv()
		assert.Equal(f.t, codes.Unauthenticated, status.Code(err), "%v", err)
		ended <- time.Now()
	}()
}

// chaos kills Redis and replicas at random while apps are revoked.
func (f *fleet) chaos() {
	t := f.t
	lasts := 5 * time.Second
	if testing.Short() {
		lasts = 2 * time.Second
	}
	if value := os.Getenv("REVOCATION"); value != "" {
		var err error
		lasts, err = time.ParseDuration(value)
		require.NoError(t, err, "REVOCATION")
	}
	done := make(chan struct{})
	var revoking sync.WaitGroup
	var refused atomic.Int64
	revoking.Go(func() {
		for {
			a := f.newApp()
			for n := 0; !f.revoke(a, f.replicas[n%2]); n++ {
				refused.Add(1)
				time.Sleep(20 * time.Millisecond)
			}
			select {
			case <-done:
				return
			case <-time.After(rand.N(100 * time.Millisecond)):
			}
		}
	})
	killed := make(map[string]int)
	before := len(f.revoked())
	for began := time.Now(); time.Since(began) < lasts; time.Sleep(rand.N(1500 * time.Millisecond)) {
		if n := rand.N(len(f.replicas) + 1); n < len(f.replicas) {
			killed["replicas"]++
			f.replicas[n].process.Kill()
			f.replicas[n].start(t)
		} else {
			killed["Redis"]++
			f.redis.Kill()
			time.Sleep(rand.N(time.Second))
			f.redis.Run()
		}
	}
	close(done)
	revoking.Wait()
	t.Logf("%v of kill -9: Redis %d times, replicas %d times; %d revocations acknowledged, %d refused and tried again",
		lasts, killed["Redis"], killed["replicas"], len(f.revoked())-before, refused.Load())
	require.NotZero(t, killed["Redis"]+killed["replicas"])
	f.all()
}

// flush makes Redis lose everything, which the replicas write back.
func (f *fleet) flush(what string, lose func()) {
	t := f.t
	f.all()
	lose()
	began := time.Now()
	store := f.store("reads")
	want := f.revoked()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		text := f.log(store)
		if strings.Contains(text, `"genesis"`) && !slices.ContainsFunc(want, func(a *app) bool { return !strings.Contains(text, `"`+a.id+`"`) }) {
			break
		}
		require.True(t, time.Now().Before(deadline), "after %s, the log is not whole again: %s", what, text)
	}
	t.Logf("after %s, the replicas wrote %d revocations back within %v", what, len(want), time.Since(began).Round(time.Millisecond))
	f.all()
	for _, r := range f.replicas { // who knows nothing but what was written back
		r.process.Kill()
	}
	for _, r := range f.replicas {
		r.start(t)
	}
	f.all()
}

// log returns what the store holds.
func (f *fleet) log(store *redisstore.Store) string {
	var text strings.Builder
	for position := ""; ; {
		page, err := store.Since(f.t.Context(), position)
		if err != nil || len(page.Records) == 0 {
			return text.String()
		}
		for _, record := range page.Records {
			text.Write(record)
			text.WriteByte('\n')
		}
		position = page.Next
	}
}

// amnesia: nobody is left who knows what was revoked. Then nobody gets in.
func (f *fleet) amnesia() {
	for _, r := range f.replicas {
		r.process.Kill()
	}
	f.redis.Kill()
	f.redis.Empty()
	f.redis.Run()
	for _, r := range f.replicas {
		r.start(f.t)
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), 3*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		for _, r := range f.replicas {
			assert.Equal(f.t, 503, f.ask(f.anyApp(), r))
			assert.Equal(f.t, 503, r.get("/readyz", ""))
		}
		time.Sleep(100 * time.Millisecond)
	}
}
