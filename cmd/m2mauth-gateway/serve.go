package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// endpoint is a listener with what serves there.
type endpoint struct {
	name  string
	at    *listener
	tls   *certificates // nil: none
	serve func(net.Listener) error
	stop  func(context.Context) error
	end   func()
}

// endpoints returns those of a file.
func (g *gateway) endpoints(s *settings) (list []*endpoint) {
	add := func(name string, at *listener, make func(*certificates) *endpoint) {
		if at == nil {
			return
		}
		var c *certificates
		if at.TLS != nil {
			c = new(certificates)
			c.renew(at.TLS)
		}
		e := make(c)
		e.name, e.at, e.tls = name, at, c
		list = append(list, e)
	}
	bytes := cmp.Or(s.Limits.MaxHeaderBytes, defaultHeaderBytes)
	add("http", s.HTTP, func(c *certificates) *endpoint { return httpEndpoint(g.routes(), bytes, c) })
	add("grpc", s.GRPC.listener(), func(c *certificates) *endpoint {
		return grpcEndpoint(g, s.GRPC.KeepAuthorization, bytes, c)
	})
	add("metrics", s.Metrics, func(c *certificates) *endpoint { return httpEndpoint(g.metrics.handler(), defaultHeaderBytes, c) })
	return list
}

func httpEndpoint(handler http.Handler, headerBytes int, c *certificates) *endpoint {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second, // longer than a request may wait for the issuer's keys (m2mauth.Config.FetchTimeout)
		IdleTimeout:       2 * time.Minute,  // longer than nginx keeps an idle connection, so that it never asks on one just closed
		MaxHeaderBytes:    headerBytes,
	}
	e := &endpoint{serve: server.Serve, stop: server.Shutdown, end: func() { _ = server.Close() }}
	if c != nil {
		server.TLSConfig = c.config()
		e.serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	return e
}

func grpcEndpoint(g *gateway, keepAuthorization bool, headerBytes int, c *certificates) *endpoint {
	options := []grpc.ServerOption{grpc.MaxRecvMsgSize(headerBytes + 64<<10)} // the fields, and what Envoy tells beside them
	if c != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(c.config())))
	}
	server := grpc.NewServer(options...)
	g.register(server, keepAuthorization)
	return &endpoint{serve: server.Serve, end: server.Stop, stop: func(ctx context.Context) error {
		defer context.AfterFunc(ctx, server.Stop)() // ends GracefulStop
		server.GracefulStop()
		return nil
	}}
}

// serve answers proxies until ctx is done or the process gets SIGINT or SIGTERM, and then
// lets the requests under way finish. While it serves, it follows the file.
func (f *follower) serve(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := f.gateway.current.Load().settings
	endpoints := f.gateway.endpoints(s)
	watch := f.watch() // before anybody can know that this process runs
	var listeners []net.Listener
	for _, e := range endpoints {
		l, err := listen(e.at.Address)
		if err != nil {
			for _, l := range listeners {
				err = errors.Join(err, l.Close())
			}
			watch.close()
			return err
		}
		listeners = append(listeners, l)
	}
	served := make(chan error, len(endpoints))
	for n, e := range endpoints {
		go func() { served <- e.serve(listeners[n]) }()
		slog.Info("gateway: listening", "for", e.name, "address", listeners[n].Addr().String(), "path", e.at.Address, "tls", e.tls != nil)
		if f.listening != nil {
			f.listening(e.name, listeners[n].Addr())
		}
	}
	f.renew = func(now *settings) {
		for _, e := range endpoints {
			if at := now.listenerNamed(e.name); e.tls != nil && at != nil {
				e.tls.renew(at.TLS)
			}
		}
	}
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		f.follow(ctx, watch)
	}()

	var err error
	select {
	case err = <-served:
		stop()
	case <-ctx.Done():
	}
	stop() // from here on a second signal has its usual effect

	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(s.Limits.ShutdownTimeout, defaultShutdownTimeout))
	defer cancel()
	ended := make(chan error, len(endpoints))
	for _, e := range endpoints {
		go func() {
			err := e.stop(grace)
			e.end()
			ended <- err
		}()
	}
	for range endpoints {
		err = errors.Join(err, <-ended)
	}
	<-followed
	if list := f.gateway.current.Load().list; list != nil {
		list.close()
	}
	return err
}

func (s *settings) listenerNamed(name string) *listener {
	return map[string]*listener{"http": s.HTTP, "grpc": s.GRPC.listener(), "metrics": s.Metrics}[name]
}
