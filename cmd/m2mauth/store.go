package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/user"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/m2mauth/m2mauth/revocation"
	"github.com/m2mauth/m2mauth/revocation/redisstore"
)

// storeFlags say where the list of what is revoked is, and who asks.
type storeFlags struct {
	RedisAddress      string        `required:"" help:"host:port of the Redis server, or the path of its Unix socket." placeholder:"HOST:PORT"`
	RedisUsername     string        `help:"The user to log in as. Its password is read from ${redis_password_variable} or --redis-password-file." placeholder:"NAME"`
	RedisPasswordFile string        `help:"A file with the password, instead of ${redis_password_variable}." placeholder:"FILE"`
	RedisTLS          bool          `name:"redis-tls" help:"Connect over TLS. Required unless the server is on loopback."`
	RedisTLSCA        string        `name:"redis-tls-ca" help:"A file of certificate authorities in PEM that are trusted instead of the system's. Turns TLS on." placeholder:"FILE"`
	RedisTLSName      string        `name:"redis-tls-name" help:"The name in the server's certificate, if it is not the host of the address. Turns TLS on." placeholder:"NAME"`
	RedisTLSCert      string        `name:"redis-tls-cert" help:"A file with this client's certificate in PEM, if the server asks for one. Turns TLS on." placeholder:"FILE"`
	RedisTLSKey       string        `name:"redis-tls-key" help:"A file with the key of --redis-tls-cert." placeholder:"FILE"`
	RedisCluster      bool          `help:"The server is part of a Redis Cluster."`
	RedisDatabase     int           `help:"The number of the database." placeholder:"0"`
	RedisKey          string        `help:"The list's key, if the API sets redisstore.Config.Key." placeholder:"KEY"`
	Timeout           time.Duration `default:"10s" help:"How long the whole command may take. Default: ${default}."`
}

const redisPasswordVariable = "M2MAUTH_REDIS_PASSWORD"

// maxFileBytes is more than a password, a certificate or a file of settings needs.
const maxFileBytes = 1 << 20

// open returns the store. It does no I/O but to read the files.
func (f *storeFlags) open(getenv func(string) string) (*redisstore.Store, error) {
	quiet()
	config := redisstore.Config{
		Address: f.RedisAddress, Username: f.RedisUsername, Password: getenv(redisPasswordVariable),
		Cluster: f.RedisCluster, Database: f.RedisDatabase, Key: f.RedisKey, Timeout: min(max(f.Timeout, 0), 10*time.Second),
	}
	if f.Timeout <= 0 {
		return nil, usageError{errors.New("--timeout must be above 0")}
	}
	if f.RedisPasswordFile != "" {
		if config.Password != "" {
			return nil, usageError{fmt.Errorf("--redis-password-file and %s are both given: leave one out", redisPasswordVariable)}
		}
		data, err := readFile(f.RedisPasswordFile)
		if err != nil {
			return nil, usageError{fmt.Errorf("--redis-password-file takes the name of a file: %w", withoutName(err))}
		}
		if config.Password = strings.TrimRight(string(data), "\r\n"); config.Password == "" {
			return nil, usageError{fmt.Errorf("--redis-password-file %s is empty", f.RedisPasswordFile)}
		}
	}
	var err error
	if config.TLS, err = f.tls(); err != nil {
		return nil, usageError{err}
	}
	store, err := redisstore.New(config)
	if err != nil {
		return nil, usageError{fmt.Errorf("%w\n(TLS is --redis-tls, the password %s or --redis-password-file)", err, redisPasswordVariable)}
	}
	return store, nil
}

func (f *storeFlags) tls() (*tls.Config, error) {
	if !f.RedisTLS && f.RedisTLSCA == "" && f.RedisTLSName == "" && f.RedisTLSCert == "" && f.RedisTLSKey == "" {
		return nil, nil
	}
	config := &tls.Config{ServerName: f.RedisTLSName}
	if f.RedisTLSCA != "" {
		data, err := readFile(f.RedisTLSCA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("--redis-tls-ca %s has no certificate in PEM", f.RedisTLSCA)
		}
	}
	if f.RedisTLSCert != "" || f.RedisTLSKey != "" {
		pair, err := tls.LoadX509KeyPair(f.RedisTLSCert, f.RedisTLSKey)
		if err != nil {
			return nil, fmt.Errorf("--redis-tls-cert and --redis-tls-key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s has more than %d bytes", name, maxFileBytes)
	}
	return data, nil
}

// quiet keeps go-redis from writing what the error says too.
var quiet = sync.OnceFunc(func() { redis.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// listFlags are for commands that need the list itself.
type listFlags struct {
	storeFlags

	MaxTokenLifetime time.Duration `default:"8784h" help:"revocation.Options.MaxTokenLifetime of the API. By default entries count for as long as they can: a year and a day."`
	MaxEntries       int           `default:"200000" help:"revocation.Options.MaxEntries of the API. Default: ${default}."`
}

// withList calls use with the list as the store has it now.
func (f *listFlags) withList(e *environment, use func(context.Context, *revocation.List) error) (err error) {
	store, err := f.open(e.getenv)
	if err != nil {
		return err
	}
	defer store.Close()
	list, err := revocation.New(revocation.Options{
		MaxTokenLifetime: f.MaxTokenLifetime, MaxEntries: f.MaxEntries, Store: store, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return usageError{err}
	}
	ctx, cancel := context.WithTimeout(e, f.Timeout)
	defer cancel()
	// The list tries for ever: the first look finds what is wrong.
	page, err := store.Since(ctx, "")
	if err != nil {
		return f.explain(err)
	}
	if page.Len == 0 {
		return errNotInitialized
	}
	running, stop := context.WithCancel(e) // not ctx: a list that has stopped forgets why it was not read
	var follow sync.WaitGroup
	follow.Go(func() { _ = list.Run(running) }) // its only error is that it runs already
	defer follow.Wait()
	defer stop()
	for {
		err := list.Ready(ctx)
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return f.explain(fmt.Errorf("the list was not read within %v: %w\nif a record cannot be read, see The log is damaged in docs/revocation.md", f.Timeout, err))
		case <-time.After(5 * time.Millisecond): // there is no signal, and only a person waits
		}
	}
	return f.explain(use(ctx, list))
}

var errNotInitialized = errors.New("the store was never set up, or has lost everything, so replicas refuse every token.\n" +
	"If it is new: m2mauth init. If it was in use: restore a backup, or let a replica that may append write the list back; init would let revoked tokens pass")

// explain adds what to do about an error of the store. It knows errors by their type, and
// those of Redis by the word that they begin with.
func (f *storeFlags) explain(err error) error {
	if err == nil {
		return nil
	}
	remedy := ""
	var fromRedis redis.Error
	var certificate *tls.CertificateVerificationError
	var network net.Error
	switch begins := func(words ...string) bool {
		for _, word := range words {
			if redis.HasErrorPrefix(err, word) {
				return true
			}
		}
		return false
	}; {
	case errors.Is(err, revocation.ErrNotFound):
		remedy = "m2mauth list shows the IDs of the entries in force"
	case errors.Is(err, revocation.ErrFull):
		remedy = "undo or wait, or give --max-entries and --max-token-lifetime as the API sets them"
	case errors.Is(err, revocation.ErrInvalid):
	case errors.Is(err, revocation.ErrGap):
		remedy = "the log lost records while it was read: see what docs/revocation.md says about an outage"
	case begins("WRONGPASS", "NOAUTH"):
		remedy = "check --redis-username and the password in " + redisPasswordVariable + " or --redis-password-file"
	case begins("NOPERM"):
		remedy = "the user lacks a right: docs/revocation.md lists those of m2mauth-replica, who can list, and of m2mauth-revoke, who can also revoke, undo and init"
	case begins("READONLY"):
		remedy = "this server is a copy: give the address of the primary"
	case begins("MOVED", "ASK", "CROSSSLOT"):
		remedy = "this server is part of a cluster: add --redis-cluster"
	case begins("LOADING"):
		remedy = "the server is reading its data: try again"
	case begins("MISCONF", "OOM"):
		remedy = "the server has no room or cannot write: mend that first, since nothing can be revoked meanwhile"
	case errors.As(err, &fromRedis):
	case errors.As(err, &certificate), errors.As(err, new(x509.UnknownAuthorityError)), errors.As(err, new(x509.HostnameError)), errors.As(err, new(x509.CertificateInvalidError)):
		remedy = "the server's certificate is not trusted: name its authority by --redis-tls-ca, or its name by --redis-tls-name"
	case errors.As(err, new(tls.RecordHeaderError)):
		remedy = "the server speaks no TLS on this port: check --redis-address"
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, context.DeadlineExceeded):
		remedy = "is the server up, and is --redis-address " + f.RedisAddress + " right? "
		if config, _ := f.tls(); config != nil {
			remedy += "Does it speak TLS on this port?"
		} else {
			remedy += "If it wants TLS, it hangs up: add --redis-tls"
		}
	}
	if remedy == "" {
		return err
	}
	return fmt.Errorf("%w\n%s", err, remedy)
}

// unconfirmed says whether the store may have taken what it did not confirm.
func unconfirmed(what string, err error) error {
	if refused := redis.Error(nil); errors.As(err, &refused) || errors.Is(err, revocation.ErrFull) {
		return fmt.Errorf("%s was not taken: %w", what, err)
	}
	return fmt.Errorf("it is not certain that the store took %s: look with m2mauth list, and try again, which does no harm: %w", what, err)
}

// byFlags say who changes the list, and why.
type byFlags struct {
	By     string `help:"Who does it. By default the user's login name." placeholder:"NAME"`
	Reason string `required:"" help:"Why." placeholder:"TEXT"`
}

func (f *byFlags) by(getenv func(string) string) (string, error) {
	name := f.By
	if name == "" {
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
		name = cmp.Or(name, getenv("USER"), getenv("USERNAME"))
	}
	if name == "" {
		return "", usageError{errors.New("the login name is unknown: say who does it by --by")}
	}
	return name, nil
}
