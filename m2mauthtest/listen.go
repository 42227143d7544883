package m2mauthtest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// ListenIssuer returns an issuer that listens on a TCP address such as
// "127.0.0.1:0", where port 0 stands for any free port. Its identifier is
// http://, the address with the real port, and /oidc. The address must name its
// host, since the host becomes part of the identifier. [Issuer.Close] ends it.
//
// It is for end-to-end tests and demonstrations. It speaks plain HTTP, which
// m2mauth accepts from loopback addresses.
func ListenIssuer(addr string) (*Issuer, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("m2mauthtest: listen address %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return nil, fmt.Errorf("m2mauthtest: listen address %q: name a host, such as 127.0.0.1:0, for the issuer's identifier", addr)
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("m2mauthtest: %w", err)
	}
	port := fmt.Sprint(listener.Addr().(*net.TCPAddr).Port)

	i := newIssuer("http://" + net.JoinHostPort(host, port))
	network := &http.Transport{} // of its own, so that Close can end its connections
	i.client = &http.Client{Transport: network}
	closeServer := startServer(listener, i)
	i.close = sync.OnceFunc(func() {
		network.CloseIdleConnections()
		closeServer()
	})
	return i, nil
}

// Close stops listening, gives requests in progress a second to end, then
// cancels their contexts and waits for them for five seconds more. Later calls
// do nothing, and Close does nothing for an issuer from [NewIssuer].
func (i *Issuer) Close() {
	if i.close != nil {
		i.close()
	}
}

// startServer serves from a goroutine, and returns the function that ends it.
func startServer(listener net.Listener, handler http.Handler) (closeServer func()) {
	requests, hangUp := context.WithCancel(context.Background())
	srv := &http.Server{
		Handler:           handler,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute, // room for a hook that trickles
		IdleTimeout:       time.Minute,
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(listener) // always ends with an error: ErrServerClosed
	}()
	shutdown := func(wait time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		return srv.Shutdown(ctx)
	}
	return func() {
		err := shutdown(time.Second)
		hangUp()
		if err != nil && shutdown(5*time.Second) != nil {
			_ = srv.Close()
		}
		<-ended
	}
}
