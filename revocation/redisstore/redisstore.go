package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/m2mauth/m2mauth/revocation"
)

const (
	defaultKey     = "{m2mauth}:revocations"
	defaultTimeout = time.Second
	maxTimeout     = 10 * time.Second
)

// Config says where the store is.
type Config struct {
	// Address is host:port of the server, or the path of its Unix socket, which starts
	// with "/". In a cluster, it is any node's. Required.
	Address string

	// Cluster says that the server is part of a Redis Cluster. The list is one key: it
	// needs no hash tag.
	Cluster bool

	// Username and Password log in. Without a user name, it is Redis's default user, and
	// that may do everything: see the package for the rights that are needed. A password
	// is required, unless the server is on loopback.
	Username, Password string

	// TLS is required, unless the server is on loopback or a Unix socket; &tls.Config{}
	// does, where the system knows who signed the server's certificate. Without a
	// MinVersion, it is TLS 1.2. InsecureSkipVerify is refused.
	TLS *tls.Config

	// Database is the number of the database; 0 by default, and in a cluster.
	Database int

	// Key is the list's key; "{m2mauth}:revocations" by default. Each list needs its own.
	Key string

	// Timeout bounds each command, and the connection before it: a second by default, and
	// at most ten. A wait for news may take a second more.
	Timeout time.Duration
}

// Store is a [revocation.Store]. Make one with [New].
type Store struct {
	client   redis.UniversalClient
	key      string
	password string
	timeout  time.Duration
}

var _ revocation.Store = (*Store)(nil)

// New returns a store. It does no I/O. The error holds all mistakes of the Config.
func New(config Config) (*Store, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	s := &Store{key: config.Key, timeout: config.Timeout, password: config.Password}
	if s.key == "" {
		s.key = defaultKey
	}
	if s.timeout == 0 {
		s.timeout = defaultTimeout
	}
	dialer := dialer{timeout: s.timeout, tls: config.TLS.Clone()}
	if dialer.tls != nil && dialer.tls.MinVersion == 0 {
		dialer.tls.MinVersion = tls.VersionTLS12
	}
	s.client = redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:         []string{config.Address},
		IsClusterMode: config.Cluster,
		Username:      config.Username,
		Password:      config.Password,
		DB:            config.Database,
		Dialer:        dialer.dial,

		// Whoever calls tries again; but see reuse.
		MaxRetries:            -1,
		DialerRetries:         1,
		MaxIdleConns:          maxIdle,
		DialTimeout:           s.timeout,
		ReadTimeout:           s.timeout,
		WriteTimeout:          s.timeout,
		PoolTimeout:           s.timeout,
		ContextTimeoutEnabled: true,
		PoolSize:              poolSize,
		PipelinePoolSize:      -1,

		// What a restricted user may not ask for, and this store does not need.
		Protocol:                 2,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	return s, nil
}

func (c Config) check() error {
	var mistakes []error
	add := func(format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("redisstore: "+format, args...))
	}
	if c.Address == "" {
		add("Address is required")
	} else if _, _, err := net.SplitHostPort(c.Address); err != nil && !isSocket(c.Address) {
		add("Address must be host:port, or the path of a Unix socket") // it may hold a password: a URL of Redis does
	} else if !isLocal(c.Address) {
		if c.TLS == nil {
			add("TLS is required, since %s is not on loopback", c.Address)
		}
		if c.Password == "" {
			add("Password is required, since %s is not on loopback", c.Address)
		}
	}
	if c.TLS != nil && c.TLS.InsecureSkipVerify {
		add("TLS must not have InsecureSkipVerify: anybody could be the server")
	}
	if c.Username != "" && c.Password == "" {
		add("Username needs a Password")
	}
	if c.Database < 0 {
		add("Database must not be negative")
	}
	if c.Cluster && c.Database != 0 {
		add("Database must be 0 in a cluster")
	}
	if c.Cluster && isSocket(c.Address) {
		add("Address must be host:port in a cluster")
	}
	if c.Timeout < 0 || c.Timeout > maxTimeout {
		add("Timeout must be from 0 to %v", maxTimeout)
	}
	return errors.Join(mistakes...)
}

// dialer connects. A cluster names its other nodes itself: they too get no password
// without TLS.
type dialer struct {
	timeout time.Duration
	tls     *tls.Config
}

func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	var conn net.Conn
	var err error
	switch {
	case d.tls != nil && !isSocket(address):
		conn, err = (&tls.Dialer{Config: d.tls}).DialContext(ctx, network, address)
	case isLocal(address):
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
	default:
		err = fmt.Errorf("the cluster has a node at %s, which is not on loopback: it needs TLS", address)
	}
	if err != nil {
		conn, _ = net.Pipe() // for the methods that do not matter
	}
	return &boundedConn{Conn: conn, failed: err}, nil
}

// maxReply bounds what is read after something was written: Since expects half of it.
const maxReply = 8 << 20

// boundedConn keeps a reply without end out of memory. One that failed says so when it is
// used: after some failures to connect, go-redis would not try for a second, and a change
// would show later than it must.
type boundedConn struct {
	net.Conn
	failed error
	read   atomic.Int64 // since the last Write
}

func (c *boundedConn) Write(b []byte) (int, error) {
	if c.failed != nil {
		return 0, c.failed
	}
	c.read.Store(0)
	return c.Conn.Write(b)
}

func (c *boundedConn) Read(b []byte) (int, error) {
	if c.failed != nil {
		return 0, c.failed
	}
	n, err := c.Conn.Read(b)
	if c.read.Add(int64(n)) > maxReply {
		return 0, errTooLarge
	}
	return n, err
}

var errTooLarge = fmt.Errorf("the server's reply is larger than %d MiB", maxReply>>20)

func isSocket(address string) bool { return strings.HasPrefix(address, "/") }

// isLocal reports whether what is sent to an address stays on this machine.
func isLocal(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return isSocket(address)
	}
	ip := net.ParseIP(host)
	return host == "" || strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// maxIdle is how many connections wait for their next use. Those that are given back at the
// same moment may be more, up to poolSize: go-redis compares before it counts.
const (
	maxIdle  = 2
	poolSize = 16
)

// reuse calls again if the connection was broken: the server may have closed all those that
// waited, which only their use shows.
func reuse(call func() error) (err error) {
	for range poolSize + 1 {
		err = call()
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			break
		}
	}
	return err
}

// failed returns an error without the password: an old server that knows no HELLO repeats
// its arguments.
func (s *Store) failed(operation string, err error) error {
	if err == nil {
		return nil
	}
	if s.password != "" && strings.Contains(err.Error(), s.password) {
		err = errors.New(strings.ReplaceAll(err.Error(), s.password, "(password)"))
	}
	return fmt.Errorf("redisstore: %s: %w", operation, err)
}

// Close closes the connections.
func (s *Store) Close() error { return s.client.Close() }

// Durable returns an error for each setting with which the server may lose entries that it
// has acknowledged. Call it before [revocation.Init], as a user who has +config|get as
// well. Servers that are managed by others often refuse to tell.
func (s *Store) Durable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	settings := make(map[string]string)
	for _, name := range []string{"appendonly", "appendfsync", "maxmemory-policy"} {
		values, err := s.client.ConfigGet(ctx, name).Result()
		if err != nil {
			return s.failed("ask for "+name, err)
		}
		settings[name] = values[name]
	}
	var mistakes []error
	add := func(name, want string) {
		mistakes = append(mistakes, fmt.Errorf("redisstore: %s is %.40s: it must be %s", name, settings[name], want))
	}
	if settings["appendonly"] != "yes" {
		add("appendonly", "yes")
	}
	if settings["appendfsync"] != "always" {
		add("appendfsync", "always")
	}
	// The list never expires, so that the policies for what does leave it alone.
	if policy := settings["maxmemory-policy"]; policy != "noeviction" && !strings.HasPrefix(policy, "volatile-") {
		add("maxmemory-policy", "noeviction")
	}
	return errors.Join(mistakes...)
}
