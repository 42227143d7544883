package redisstore_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/logs"
	"github.com/m2mauth/m2mauth/internal/test/redisserver"
	"github.com/m2mauth/m2mauth/revocation"
	"github.com/m2mauth/m2mauth/revocation/redisstore"
)

const password = "hunter2-hunter2-hunter2"

// rights are the users of the package's documentation, as settings of a server.
func rights(t *testing.T) (settings []string) {
	t.Helper()
	source, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	for line := range strings.Lines(string(source)) {
		if user, ok := strings.CutPrefix(strings.TrimSpace(line), "//	user "); ok {
			settings = append(settings, "--user")
			settings = append(settings, strings.Fields(strings.ReplaceAll(user, "PASSWORD", password))...)
		}
	}
	require.NotEmpty(t, settings)
	// Who damages the log in the tests.
	return append(settings, "--user", "admin", "on", "nopass", "~*", "+@all")
}

func TestTheDocumentedRightsAreEnough(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t, rights(t)...)
	as := func(user, password string) *redisstore.Store {
		return newStore(t, redisstore.Config{Address: server.Addr, Username: user, Password: password})
	}
	replica, tool := as("m2mauth-replica", password), as("m2mauth-revoke", password)

	page, err := replica.Since(t.Context(), "")
	require.NoError(t, err)
	assert.Zero(t, page)
	require.NoError(t, revocation.Init(t.Context(), tool))
	add(t, tool, "one", "two")
	require.NoError(t, replica.Watch(t.Context(), ""))
	for _, store := range []*redisstore.Store{replica, tool} {
		got, next := all(t, store, "")
		require.Len(t, got, 3)
		assert.Equal(t, []string{"one", "two"}, got[1:])
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		assert.NoError(t, store.Watch(ctx, next))
		assert.Error(t, ctx.Err())
		cancel()
	}

	assert.ErrorContains(t, replica.Append(t.Context(), []byte("three")), "NOPERM")
	assert.ErrorContains(t, revocation.Init(t.Context(), newStore(t, redisstore.Config{
		Address: server.Addr, Username: "m2mauth-revoke", Password: password, Key: "another"})), "NOPERM", "another list")
	for _, store := range []*redisstore.Store{as("", ""), as("m2mauth-replica", password+"?"), as("nobody", password)} {
		_, err := store.Since(t.Context(), "")
		assert.ErrorContains(t, err, "redisstore: read: ")
		assert.NotContains(t, err.Error(), password)
	}
	for _, user := range []string{"m2mauth-replica", "m2mauth-revoke"} {
		client := redis.NewClient(&redis.Options{Addr: server.Addr, Username: user, Password: password})
		defer client.Close()
		for _, command := range [][]any{
			{"flushall"}, {"del", key}, {"unlink", key}, {"xtrim", key, "maxlen", "0"}, {"xdel", key, "1-1"}, {"xsetid", key, "9-9"},
			{"expire", key, "1"}, {"rename", key, "x"}, {"set", key, "x"}, {"restore", key, "0", "x"}, {"config", "get", "*"},
			{"acl", "list"}, {"keys", "*"}, {"eval", "return 1", "0"}, {"shutdown"}, {"get", "other"},
		} {
			assert.ErrorContains(t, client.Do(t.Context(), command...).Err(), "NOPERM", "%s: %v", user, command)
		}
	}
	got, _ := all(t, replica, "")
	assert.Len(t, got, 3, "nothing has changed it")
}

// Who may append could trim too, by an option of XADD. It is noticed.
func TestATrimByWhoMayAppendIsNoticed(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t, rights(t)...)
	replica := newStore(t, redisstore.Config{Address: server.Addr, Username: "m2mauth-replica", Password: password})
	add(t, newStore(t, redisstore.Config{Address: server.Addr, Username: "m2mauth-revoke", Password: password}), "one")
	_, position := all(t, replica, "")
	client := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "m2mauth-revoke", Password: password})
	defer client.Close()
	require.NoError(t, client.Do(t.Context(), "xadd", key, "maxlen", 1, "1-*", "mark", "m", "record", "r").Err())
	for _, position := range []string{"", position} {
		_, err := replica.Since(t.Context(), position)
		assert.ErrorContains(t, err, "1 of the 2 records")
	}
}

// It runs the commands of docs/revocation.md, after which a replica that starts reads all
// that the log still has.
func TestADamagedLogIsCopied(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/revocation.md")
	require.NoError(t, err)
	_, commands, found := strings.Cut(string(page), "REDIS=\"redis-cli …\"")
	require.True(t, found)
	commands, _, found = strings.Cut(commands, "```")
	require.True(t, found)
	server := redisserver.Start(t, rights(t)...)
	host, port, err := net.SplitHostPort(server.Addr)
	require.NoError(t, err)
	store := newStore(t, redisstore.Config{Address: server.Addr, Username: "m2mauth-revoke", Password: password})
	require.NoError(t, revocation.Init(t.Context(), store))
	list := func() *revocation.List {
		list, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour, Store: store, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		go list.Run(t.Context())
		return list
	}
	ready := func(list *revocation.List) {
		require.Eventually(t, func() bool { return list.Ready(t.Context()) == nil }, time.Minute, 10*time.Millisecond)
	}
	first := list()
	ready(first)
	for _, reason := range []string{"first", ` "\ $HOME\n' ü%s`, "last"} {
		_, err := first.Revoke(t.Context(), revocation.Entry{Issuers: []string{"i"}, Client: "app", By: "ops", Reason: reason})
		require.NoError(t, err)
	}
	want := first.All()
	add(t, store, "{}") // 1-4
	fresh := list()     // has never read all
	require.Equal(t, ":1", server.Do("admin", "any", "XDEL", key, "1-4"))
	shell := exec.Command("sh", "-c", "set -e; REDIS='redis-cli --no-auth-warning --user admin --pass any -h "+host+" -p "+port+"'"+commands)
	output, err := shell.CombinedOutput()
	require.NoError(t, err, "%s", output)
	for _, list := range []*revocation.List{first, fresh, list()} {
		ready(list)
		assert.Equal(t, want, list.All())
	}
}

func TestAServerWithTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certificate := certificate(t, dir)
	port := strconv.Itoa(redisserver.FreePort(t))
	redisserver.Start(t, append(rights(t), "--tls-port", port, "--tls-cert-file", filepath.Join(dir, "cert.pem"),
		"--tls-key-file", filepath.Join(dir, "key.pem"), "--tls-auth-clients", "no")...)
	trusted := x509.NewCertPool()
	trusted.AddCert(certificate)
	config := redisstore.Config{Address: "127.0.0.1:" + port, Username: "m2mauth-revoke", Password: password, TLS: &tls.Config{RootCAs: trusted}}
	store := newStore(t, config)
	add(t, store, "one")
	got, _ := all(t, store, "")
	assert.Equal(t, []string{"one"}, got)

	config.TLS = &tls.Config{} // which trusts the system's authorities
	_, err := newStore(t, config).Since(t.Context(), "")
	assert.ErrorContains(t, err, "certificate")
	config.TLS = nil
	_, err = newStore(t, config).Since(t.Context(), "")
	assert.Error(t, err)
	assert.NotContains(t, err.Error(), password)
}

// Connections with TLS do not show that the server has closed them. An append is the first
// to notice that, and is made all the same.
func TestAnAppendOverAConnectionThatWasClosed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	trusted := x509.NewCertPool()
	trusted.AddCert(certificate(t, dir))
	port := strconv.Itoa(redisserver.FreePort(t))
	server := redisserver.Start(t, append(rights(t), "--tls-port", port, "--tls-cert-file", filepath.Join(dir, "cert.pem"),
		"--tls-key-file", filepath.Join(dir, "key.pem"), "--tls-auth-clients", "no")...)
	store := newStore(t, redisstore.Config{Address: "127.0.0.1:" + port, Username: "m2mauth-revoke", Password: password,
		TLS: &tls.Config{RootCAs: trusted}, Timeout: 10 * time.Second})
	for range 3 {
		var appends sync.WaitGroup
		for range 16 {
			appends.Go(func() { assert.NoError(t, store.Append(t.Context(), []byte("x"))) })
		}
		appends.Wait()
		server.Kill()
		server.Run()
	}
	add(t, store, "the last")
	got, _ := all(t, store, "")
	assert.Equal(t, "the last", got[len(got)-1])
}

// Whoever may append may append what is too large for this package, and a server may send
// without end. Memory is not filled with it.
func TestAReplyIsBounded(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	var sent atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for line := bytes.Repeat([]byte("x"), 1<<16); err == nil; {
					var n int
					n, err = conn.Write(line)
					sent.Add(int64(n))
				}
			}()
		}
	}()
	store := newStore(t, redisstore.Config{Address: listener.Addr().String(), Timeout: 10 * time.Second})
	_, err = store.Since(t.Context(), "")
	assert.ErrorContains(t, err, "larger than")
	assert.Less(t, sent.Load(), int64(100<<20))
}

func TestASocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "redis") // the path of a socket must be short
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	redisserver.Start(t, "--unixsocket", socket)
	store := newStore(t, redisstore.Config{Address: socket})
	add(t, store, "one")
	got, _ := all(t, store, "")
	assert.Equal(t, []string{"one"}, got)
}

// startCluster starts a cluster of one node, which the rights of a cluster are enough for.
func startCluster(t *testing.T, more ...string) *redisserver.Server {
	t.Helper()
	settings := strings.Fields(strings.ReplaceAll(strings.Join(rights(t), " "), "-@all", "-@all +cluster|slots +command"))
	server := redisserver.Start(t, slices.Concat(settings, []string{"--cluster-enabled", "yes"}, more)...)
	client := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "admin", Password: "any"})
	defer client.Close()
	require.NoError(t, client.ClusterAddSlotsRange(t.Context(), 0, 16383).Err())
	require.Eventually(t, func() bool {
		return strings.Contains(client.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	}, time.Minute, 10*time.Millisecond)
	return server
}

func TestACluster(t *testing.T) {
	t.Parallel()
	server := startCluster(t)
	store := newStore(t, redisstore.Config{Address: server.Addr, Cluster: true, Username: "m2mauth-revoke", Password: password})
	_, err := store.Since(t.Context(), "0.MARK")
	assert.ErrorIs(t, err, revocation.ErrGap, "an empty log")
	add(t, store, "one", "two")
	got, position := all(t, store, "")
	assert.Equal(t, []string{"one", "two"}, got)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	assert.NoError(t, store.Watch(ctx, position))
}

// A cluster says itself where its nodes are. They get no password in clear text either.
func TestANodeElsewhereNeedsTLS(t *testing.T) {
	t.Parallel()
	server := startCluster(t, "--cluster-announce-ip", "192.0.2.1")
	store := newStore(t, redisstore.Config{Address: server.Addr, Cluster: true, Username: "m2mauth-revoke", Password: password})
	assert.ErrorContains(t, store.Append(t.Context(), []byte("x")), "192.0.2.1")
	_, err := store.Since(t.Context(), "")
	assert.ErrorContains(t, err, "needs TLS")
}

// A server that may evict does so with what was not asked for lately.
func TestAnEvictedLogIsAGap(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t, "--maxmemory", "5mb", "--maxmemory-policy", "allkeys-random")
	store := newStore(t, redisstore.Config{Address: server.Addr})
	add(t, store, "one")
	_, position := all(t, store, "")
	client := admin(t, server)
	for i := 0; ; i++ {
		require.Less(t, i, 100_000)
		require.NoError(t, client.Set(t.Context(), fmt.Sprint(i), make([]byte, 10_000), 0).Err())
		if client.Exists(t.Context(), key).Val() == 0 {
			break
		}
	}
	_, err := store.Since(t.Context(), position)
	assert.ErrorIs(t, err, revocation.ErrGap)
}

// A server that accepts and says nothing costs no more than the timeout.
func TestASilentServer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	store := newStore(t, redisstore.Config{Address: listener.Addr().String(), Timeout: 100 * time.Millisecond})
	_, err = store.Since(t.Context(), "")
	assert.Error(t, err)
	assert.Error(t, store.Append(t.Context(), []byte("x")))
}

// A server from before HELLO repeats what it does not know, and a proxy may repeat
// anything.
func TestThePasswordIsInNoErrorAndNoLog(t *testing.T) {
	var said goRedisLog
	redis.SetLogger(&said)
	defer redis.SetLogger(&standardLogger{})
	for _, reply := range []string{
		"-ERR unknown command `hello`, with args beginning with: `2`, `auth`, `m2mauth`, `" + password + "`,",
		"-WRONGPASS is not " + password,
		"-ERR " + password,
		"+" + password,
		"$" + password,
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					buffer := make([]byte, 4096)
					for {
						if _, err := conn.Read(buffer); err != nil {
							return
						}
						fmt.Fprintf(conn, "%s\r\n", reply)
					}
				}()
			}
		}()
		for _, cluster := range []bool{false, true} {
			store := newStore(t, redisstore.Config{Address: listener.Addr().String(), Username: "m2mauth", Password: password,
				Timeout: 200 * time.Millisecond, Cluster: cluster})
			_, err = store.Since(t.Context(), "")
			require.Error(t, err)
			errs := []error{err, store.Append(t.Context(), []byte("x"))}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			errs = append(errs, store.Watch(ctx, ""))
			cancel()
			for _, err := range errs {
				assert.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), password)
			}
			assert.NotContains(t, fmt.Sprintf("%v", errs), password)
		}
		listener.Close()
	}
	assert.NotContains(t, said.String(), password)
}

// goRedisLog is the log of go-redis.
type goRedisLog struct{ logs.Buffer }

func (l *goRedisLog) Printf(_ context.Context, format string, args ...any) {
	fmt.Fprintf(&l.Buffer, format+"\n", args...)
}

type standardLogger struct{}

func (*standardLogger) Printf(_ context.Context, format string, args ...any) {
	log.Printf(format, args...)
}

// certificate writes cert.pem and key.pem for 127.0.0.1.
func certificate(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: signed}, "key.pem": {Type: "PRIVATE KEY", Bytes: encoded}} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
	parsed, err := x509.ParseCertificate(signed)
	require.NoError(t, err)
	return parsed
}

func TestDurableSaysWhatTheServerMayLose(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		settings []string
		want     []string // none: it loses nothing
	}{
		"as it should be":     {nil, nil},
		"keys with a TTL go":  {[]string{"--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"}, nil},
		"no file":             {[]string{"--appendonly", "no"}, []string{"appendonly is no"}},
		"written each second": {[]string{"--appendfsync", "everysec"}, []string{"appendfsync is everysec"}},
		"all else":            {[]string{"--appendonly", "no", "--appendfsync", "no", "--maxmemory-policy", "allkeys-lru"}, []string{"appendonly is no", "appendfsync is no", "maxmemory-policy is allkeys-lru"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := newStore(t, redisstore.Config{Address: redisserver.Start(t, test.settings...).Addr}).Durable(t.Context())
			if len(test.want) == 0 {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			for _, words := range test.want {
				assert.ErrorContains(t, err, words)
			}
			assert.Len(t, strings.Split(err.Error(), "\n"), len(test.want))
		})
	}
	store := newStore(t, redisstore.Config{Address: redisserver.Start(t, rights(t)...).Addr, Username: "m2mauth-replica", Password: password})
	assert.ErrorContains(t, store.Durable(t.Context()), "NOPERM", "who may not ask does not know")
}
