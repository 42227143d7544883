package m2mauthtest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// ListenIssuer returns an issuer that listens on a TCP address, such as
// "127.0.0.1:0". Port 0 picks a free port. Its identifier is http://HOST:PORT/oidc,
// with the real port. The address must name a host, since the host is part of the
// identifier. [Issuer.Close] stops the issuer.
//
// Use it for end-to-end tests and demos. It speaks plain HTTP, which m2mauth accepts
// from loopback addresses.
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
	network := &http.Transport{} // not shared, so that Close can close its connections
	i.client = &http.Client{Transport: network}
	closeServer := startServer(listener, i)
	i.close = sync.OnceFunc(func() {
		network.CloseIdleConnections()
		closeServer()
	})
	return i, nil
}

// Close stops listening and gives requests in progress one second to end. Then it
// cancels their contexts and waits for up to five seconds more. Later calls do
// nothing. For an issuer from [NewIssuer], Close does nothing.
func (i *Issuer) Close() {
	if i.close != nil {
		i.close()
	}
}

// startServer serves from a goroutine and returns the function that stops it.
func startServer(listener net.Listener, handler http.Handler) (closeServer func()) {
	requests, hangUp := context.WithCancel(context.Background())
	srv := &http.Server{
		Handler:           handler,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute, // enough for a hook that responds slowly
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
