package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth/revocation"
	"github.com/m2mauth/m2mauth/revocation/redisstore"
)

// revocations is a list of revoked tokens that follows its store until it is closed.
type revocations struct {
	*revocation.List
	key   string // of the settings that made it
	store *redisstore.Store
	stop  context.CancelFunc
	ended chan struct{}
}

// checkRevocation finds the mistakes in the settings of the list.
func (s *settings) checkRevocation(r *reader, dir string) {
	v := s.Revocation
	if v == nil {
		return
	}
	const path = "revocation"
	v.Redis.PasswordFile = s.named(r, dir, path+".redis.password_file", v.Redis.PasswordFile, false)
	v.Redis.CA = s.named(r, dir, path+".redis.ca", v.Redis.CA, false)
	if v.Redis.CA != "" && !v.Redis.TLS {
		r.add(path+".redis.ca", "needs tls: true")
	}
	if s.redisPassword == "" && v.Redis.PasswordFile != "" {
		text, err := readFile(v.Redis.PasswordFile)
		if err != nil {
			r.add(path+".redis.password_file", "%v", err)
		}
		s.redisPassword = strings.TrimRight(string(text), "\r\n")
	}
	list, err := s.newList()
	if err != nil {
		for _, one := range errorsIn(err) {
			r.add(path, "%v", one)
		}
		return
	}
	_ = list.store.Close() // it has no connection yet
}

// newList makes the list and its store, and does no I/O but reading the authorities.
func (s *settings) newList() (*revocations, error) {
	v := s.Revocation
	config := redisstore.Config{
		Address: v.Redis.Address, Cluster: v.Redis.Cluster, Username: v.Redis.Username, Password: s.redisPassword,
		Database: v.Redis.Database, Key: v.Redis.Key, Timeout: v.Redis.Timeout,
	}
	if v.Redis.TLS {
		config.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if v.Redis.CA != "" {
		pool, err := authorities(v.Redis.CA)
		if err != nil {
			return nil, err
		}
		config.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	store, err := redisstore.New(config)
	if err != nil {
		return nil, err
	}
	list, err := revocation.New(revocation.Options{
		MaxTokenLifetime: v.MaxTokenLifetime, Leeway: v.Leeway, MaxEntries: v.MaxEntries,
		Store: store, StaleFor: v.StaleFor, InsecureFailOpen: v.InsecureFailOpen,
	})
	if err != nil {
		_ = store.Close() // it has no connection yet
		return nil, err
	}
	return &revocations{List: list, store: store, key: s.listKey()}, nil
}

// listKey is equal for two files whose lists are the same.
func (s *settings) listKey() string {
	if s.Revocation == nil {
		return ""
	}
	return fmt.Sprintf("%#v %q %x", *s.Revocation, s.redisPassword, s.inputs[s.Revocation.Redis.CA])
}

// listTimeout is how long a new configuration waits for its list to be read once.
const listTimeout = 10 * time.Second

// follow begins to follow the store.
func (l *revocations) follow() {
	running, stop := context.WithCancel(context.Background())
	l.stop, l.ended = stop, make(chan struct{})
	go func() {
		defer close(l.ended)
		_ = l.Run(running) // ends with its context alone
	}()
}

// wait waits until the list can answer. A configuration whose list cannot is not taken
// over: with it the guards would answer 503 to everybody.
func (l *revocations) wait(ctx context.Context) error {
	deadline := time.NewTimer(listTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := l.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("the revocation store did not answer within %v: %w", listTimeout, err)
		}
	}
}

// close ends the list.
func (l *revocations) close() {
	l.stop()
	<-l.ended
	_ = l.store.Close()
}

func authorities(name string) (*x509.CertPool, error) {
	pem, err := readFile(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in PEM", name)
	}
	return pool, nil
}
