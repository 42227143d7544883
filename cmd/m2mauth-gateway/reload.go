package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settleTime is waited after a change, so that several writes are one.
	settleTime = 100 * time.Millisecond
	// pollInterval is how often the files are compared, whatever the folder's watcher saw:
	// network file systems report nothing, and certificates may be anywhere.
	pollInterval = 5 * time.Second
	// warmTime is how long a new guard may take to fetch its issuer's keys before it is
	// asked about requests.
	warmTime = 6 * time.Second
	// drainTime is how long a list serves the requests that began with it.
	drainTime = time.Minute
)

// follower keeps a gateway's configuration that of a file.
type follower struct {
	file    string
	environ func() []string
	gateway *gateway

	started *settings       // whose listeners there are
	refused *settings       // read last, with mistakes: not to be told again
	renew   func(*settings) // of the listeners' certificates

	// For tests: settleTime, drainTime, when a listener listens, and when a file was taken over or refused.
	settle    time.Duration
	drain     time.Duration
	listening func(name string, address net.Addr)
	reloaded  func(err error)
}

// start reads the file for the first time. What is wrong with it ends the program.
func (f *follower) start(ctx context.Context) error {
	g, err := examine(f.file, f.environ(), nil, f.gateway.metrics)
	if err != nil {
		return err
	}
	s := g.settings
	if g.list, err = newFollowedList(s); err != nil {
		return err
	}
	if err := f.use(g, ""); err != nil {
		return err
	}
	f.started = s
	go g.warm(ctx, nil) // so that the first request need not wait
	return nil
}

func newFollowedList(s *settings) (*revocations, error) {
	if s.Revocation == nil {
		return nil, nil
	}
	list, err := s.newList()
	if err == nil {
		list.follow()
	}
	return list, err
}

// use puts a generation in force.
func (f *follower) use(g *generation, line string) error {
	if err := f.gateway.metrics.observe(g, time.Now()); err != nil {
		return err
	}
	f.gateway.current.Store(g)
	if line != "" {
		slog.Info(line, "file", f.file, "issuers", len(g.issuers), "rows", len(g.rules))
	}
	return nil
}

// reload reads the file again and puts it in force, if all of it is right. Otherwise the
// old configuration serves on as it is.
func (f *follower) reload(ctx context.Context) {
	before := f.gateway.current.Load()
	g, err := atOnce(func() (*generation, error) { return examine(f.file, f.environ(), before, f.gateway.metrics) })
	s := g.settings
	f.refused = s
	if err == nil {
		if err = f.prepare(ctx, g, before); err != nil {
			f.refused = nil // the file is right, and is tried again: its store may answer later
		}
	}
	if err == nil {
		err = f.use(g, "gateway: the configuration was read again and is in force")
	}
	if f.reloaded != nil {
		defer f.reloaded(err)
	}
	if err != nil {
		f.refuse(err)
		return
	}
	f.refused = nil
	if !f.started.sameListeners(s) {
		slog.Warn("gateway: addresses, TLS on or off, keep_authorization and limits of listeners changed: they take a restart")
	}
	if f.renew != nil {
		f.renew(s)
	}
	if before.list != nil && before.list != g.list {
		time.AfterFunc(cmp.Or(f.drain, drainTime), before.list.close)
	}
}

var errMoving = errors.New("the files changed each time while they were read")

// atOnce reads until no file changed meanwhile. Or the configuration could be that of before
// a ConfigMap was swapped, with a document of after it.
func atOnce(read func() (*generation, error)) (g *generation, err error) {
	for range 10 {
		if g, err = read(); !g.settings.changed() {
			return g, err
		}
	}
	return g, errMoving
}

// refuse says why a configuration is not taken over.
func (f *follower) refuse(err error) {
	f.gateway.metrics.failed()
	slog.Error("gateway: the configuration was refused; the old one serves on", "file", f.file, "mistakes", err.Error())
}

// prepare does what a generation needs before it is asked about requests: its list must
// have been read, and its new guards should have keys.
func (f *follower) prepare(ctx context.Context, g, before *generation) (err error) {
	if before.list != nil && before.list.key == g.settings.listKey() {
		g.list = before.list
	} else if g.list, err = newFollowedList(g.settings); err != nil {
		return err
	} else if g.list != nil {
		if err = g.list.wait(ctx); err != nil {
			g.list.close()
			return err
		}
	}
	g.warm(ctx, before)
	return nil
}

// warm fetches the keys of the guards that the generation before did not have. Where they
// cannot be had, their tokens get 503 until they can.
func (g *generation) warm(ctx context.Context, before *generation) {
	ctx, cancel := context.WithTimeout(ctx, warmTime)
	defer cancel()
	var all sync.WaitGroup
	for _, t := range g.issuers {
		if before.has(t) {
			continue
		}
		all.Go(func() {
			if err := t.guard.Warm(ctx); err != nil {
				slog.Warn("gateway: an issuer's keys could not be fetched; its tokens get 503 until they are", "issuer", t.name, "error", err)
			}
		})
	}
	all.Wait()
}

func (g *generation) has(t *trusted) bool {
	if g == nil {
		return false
	}
	for _, own := range g.issuers {
		if own.guard == t.guard {
			return true
		}
	}
	return false
}

// sameListeners reports whether two files ask for the same listeners, but for the files of
// their certificates, which are read again.
func (s *settings) sameListeners(other *settings) bool {
	type shape struct {
		address string
		tls     bool
	}
	shapeOf := func(l *listener) shape {
		if l == nil {
			return shape{}
		}
		return shape{l.Address, l.TLS != nil}
	}
	for _, name := range []string{"http", "grpc", "metrics"} {
		if shapeOf(s.listenerNamed(name)) != shapeOf(other.listenerNamed(name)) {
			return false
		}
	}
	keeps := func(g *grpcListener) bool { return g != nil && g.KeepAuthorization }
	return keeps(s.GRPC) == keeps(other.GRPC) &&
		s.Limits.MaxHeaderBytes == other.Limits.MaxHeaderBytes && s.Limits.ShutdownTimeout == other.Limits.ShutdownTimeout
}

// changed reports whether the files are others than those that were read last.
func (f *follower) changed() bool {
	return cmp.Or(f.refused, f.gateway.current.Load().settings).changed()
}

// watch is what follow waits for.
type watch struct {
	hup    chan os.Signal
	folder *fsnotify.Watcher // nil: it cannot be watched
}

func (f *follower) watch() *watch {
	w := &watch{hup: make(chan os.Signal, 1)}
	signal.Notify(w.hup, syscall.SIGHUP)
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		w.folder = watcher
		err = watcher.Add(filepath.Dir(f.file))
	}
	if err != nil {
		slog.Warn("gateway: the folder of the configuration cannot be watched; it is looked at every few seconds", "error", err)
	}
	return w
}

func (w *watch) close() {
	signal.Stop(w.hup)
	if w.folder != nil {
		_ = w.folder.Close()
	}
}

// follow reads the file again when it changes, until ctx ends: on SIGHUP, when something
// happens in its folder (a ConfigMap is changed by a link there, ..data, that is replaced),
// and when a look every few seconds finds another content.
func (f *follower) follow(ctx context.Context, w *watch) {
	defer w.close()
	var events chan fsnotify.Event
	var errs chan error
	if w.folder != nil {
		events, errs = w.folder.Events, w.folder.Errors
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.hup:
			f.reload(ctx)
			continue
		case _, ok := <-events:
			if !ok {
				events = nil
			} else if settled == nil {
				settled = time.After(cmp.Or(f.settle, settleTime))
			}
			continue
		case _, ok := <-errs: // an overflow: the tick finds what was missed
			if !ok {
				errs = nil
			}
			continue
		case <-settled:
			settled = nil
		case <-tick.C:
		}
		if f.changed() {
			f.reload(ctx)
		}
	}
}
