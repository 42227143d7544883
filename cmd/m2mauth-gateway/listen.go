package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
)

const (
	// unixPrefix begins an address that is the path of a socket.
	unixPrefix = "unix:"

	// socketMode lets the proxy in by its group: whoever may write to the socket may ask.
	socketMode = 0o660
)

// listen begins to listen at an address. TLS is the server's.
func listen(address string) (net.Listener, error) {
	path, isSocket := strings.CutPrefix(address, unixPrefix)
	if !isSocket {
		return net.Listen("tcp", address)
	}
	return listenUnix(path)
}

// listenUnix makes a socket of the right mode, in the place of one that nobody listens on.
// It is made in a folder of its own and then moved: at its name it never has another mode.
func listenUnix(path string) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is there, and is no socket", path)
	default:
		conn, err := net.Dial("unix", path)
		if err == nil {
			_ = conn.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) { // also where its owner is too busy to answer
			return nil, errors.Join(fmt.Errorf("%s is in use by another process", path), err)
		}
	}
	folder, err := os.MkdirTemp(filepath.Dir(path), ".m2m-") // mode 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	made := filepath.Join(folder, "s")
	l, err := net.Listen("unix", made)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it has another name by then
	if err := errors.Join(os.Chmod(made, socketMode), os.Rename(made, path)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &socket{Listener: l, path: path}, nil
}

// socket is a listener that removes its socket at its end.
type socket struct {
	net.Listener
	path   string
	closed atomic.Bool
}

func (s *socket) Close() error {
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	// In this order: once nobody listens, the next gateway puts its own socket there.
	return errors.Join(os.Remove(s.path), s.Listener.Close())
}

// config reads the files.
func (t *tlsSettings) config() (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2", "http/1.1"}}
	if t.ClientCA != "" {
		if c.ClientCAs, err = authorities(t.ClientCA); err != nil {
			return nil, err
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// certificates is the TLS of a listener. Its files are read again when they change, so that
// a renewed certificate is served without a restart.
type certificates struct{ current atomic.Pointer[tls.Config] }

func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2", "http/1.1"}, // grpc and net/http look here
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current.Load(), nil },
	}
}

// renew takes the files' present content.
func (c *certificates) renew(t *tlsSettings) {
	if t == nil {
		return
	}
	config, err := t.config()
	if err != nil {
		slog.Error("gateway: the certificate could not be read; the old one serves on", "error", err)
		return
	}
	c.current.Store(config)
}
