package revocation_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/logs"
	"github.com/m2mauth/m2mauth/internal/test/logstore"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/revocation"
)

// replica is a List that follows a log.
type replica struct {
	*revocation.List
	*logstore.Handle
	log  *logs.Buffer
	stop func() // ends Run and waits for it
}

func start(t *testing.T, log *logstore.Log, fault logstore.Fault, change ...func(*revocation.Options)) *replica {
	t.Helper()
	r := &replica{Handle: log.Connect(max(3, len(log.Records())/10)), log: new(logs.Buffer)}
	r.Set(fault)
	o := revocation.Options{Issuers: []string{"i"}, Store: r.Handle, Logger: slog.New(slog.NewTextHandler(r.log, nil))}
	for _, f := range change {
		f(&o)
	}
	r.List = newList(t, o)
	r.run(t)
	return r
}

func (r *replica) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	t.Cleanup(r.stop)
	synctest.Wait()
}

// has reports which clients the replica has revoked, or its error.
func (r *replica) has(t *testing.T) string {
	t.Helper()
	if _, err := r.Revoked(t.Context(), m2mauth.Claims{}); err != nil {
		return err.Error()
	}
	var clients []string
	for _, e := range r.All() {
		clients = append(clients, e.Client)
	}
	return strings.Join(clients, " ")
}

func setUp(t *testing.T) *logstore.Log {
	t.Helper()
	log := new(logstore.Log)
	require.NoError(t, revocation.Init(t.Context(), log.Connect(0)))
	return log
}

// bubble runs a test whose replicas' clocks are its own.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

const notRead = "the store has not been read yet"

func TestReplicasShareOneList(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		a, b := start(t, log, logstore.None), start(t, log, logstore.None)
		time.Sleep(time.Millisecond)
		require.NoError(t, a.Ready(t.Context()))
		e := revoke(t, a.List, revocation.Entry{Client: "app"})
		assert.Equal(t, "app", a.has(t), "acknowledged is in force here")
		time.Sleep(100 * time.Millisecond)
		assert.Equal(t, "app", b.has(t))
		assert.Equal(t, []revocation.Entry{e}, b.All())
		for i := range 10 { // several pages
			revoke(t, b.List, revocation.Entry{Client: fmt.Sprint(i)})
			time.Sleep(time.Nanosecond)
		}
		require.NoError(t, b.Undo(t.Context(), e.ID, "ops", ""))
		assert.Equal(t, "0 1 2 3 4 5 6 7 8 9", b.has(t))
		time.Sleep(500 * time.Millisecond)
		assert.Equal(t, b.has(t), a.has(t))
		require.NoError(t, a.Undo(t.Context(), e.ID, "ops", "again"))
		assert.Len(t, log.Records(), 13, "each once")

		late := start(t, log, logstore.None)
		time.Sleep(time.Second)
		assert.Equal(t, b.has(t), late.has(t))
		require.ErrorIs(t, late.Undo(t.Context(), "x", "ops", ""), revocation.ErrNotFound)
		require.NoError(t, late.Undo(t.Context(), e.ID, "ops", ""), "it knows that this is undone")
		require.ErrorContains(t, late.Run(t.Context()), "running already")
	})
}

func TestAListFailsUntilAllWasRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		first := start(t, log, logstore.None)
		for i := range 7 {
			revoke(t, first.List, revocation.Entry{Client: fmt.Sprint(i)})
			time.Sleep(time.Nanosecond)
		}
		list := newList(t, revocation.Options{Store: log.Connect(1)})
		_, err := list.Revoked(t.Context(), m2mauth.Claims{})
		require.ErrorContains(t, err, "List.Run has not been called")
		require.Error(t, list.Ready(t.Context()))

		for name, fault := range map[string]logstore.Fault{"down": logstore.Down, "hangs": logstore.Hangs} {
			r := start(t, log, fault, func(o *revocation.Options) { o.InsecureFailOpen = true })
			time.Sleep(30 * time.Second)
			assert.Contains(t, r.has(t), notRead, name)
			assert.ErrorContains(t, r.Ready(t.Context()), notRead)
			assert.Equal(t, 1, r.log.Count("level=ERROR"), "once a minute")
			assert.Contains(t, r.log.String(), "serves=false")
			r.Set(logstore.None)
			time.Sleep(9 * time.Second) // a call that hangs ends after 5 s, and the log is written each second
			assert.Equal(t, "0 1 2 3 4 5 6", r.has(t), name)
			assert.NoError(t, r.Ready(t.Context()))
			assert.Equal(t, 1, r.log.Count("up to date again"))
		}
	})
}

func TestAChangeShowsWithin2sOfTheStoresReturn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		a, b := start(t, log, logstore.None), start(t, log, logstore.None)
		for i := range 20 {
			b.Set(logstore.Down)
			time.Sleep(time.Duration(i) * 379 * time.Millisecond)
			e := revoke(t, a.List, revocation.Entry{Client: "app"})
			b.Set(logstore.None)
			time.Sleep(2 * time.Second)
			require.Equal(t, "app", b.has(t))
			require.NoError(t, a.Undo(t.Context(), e.ID, "ops", ""))
			time.Sleep(2 * time.Second)
			require.Empty(t, b.has(t))
		}
		for i := range 10 { // and also if the log has lost something meanwhile
			b.Set(logstore.Down)
			time.Sleep(time.Duration(i) * 379 * time.Millisecond)
			log.Keep(2, len(log.Records()))
			e := revoke(t, a.List, revocation.Entry{Client: "app"})
			b.Set(logstore.None)
			time.Sleep(1200 * time.Millisecond)
			require.Equal(t, "app", b.has(t))
			require.NoError(t, a.Undo(t.Context(), e.ID, "ops", ""))
			time.Sleep(5 * time.Second)
			require.NoError(t, b.Ready(t.Context()))
		}
		b.Set(logstore.Sleepy)
		time.Sleep(time.Minute)
		revoke(t, a.List, revocation.Entry{Client: "app"})
		time.Sleep(1100 * time.Millisecond)
		assert.Equal(t, "app", b.has(t), "though no Watch said so")
	})
}

func TestStatusSaysHowTheListStands(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		unread := newList(t, revocation.Options{Store: log.Connect(0), MaxEntries: 10})
		assert.Equal(t, revocation.Status{MaxEntries: 10}, unread.Status())

		a := start(t, log, logstore.None, func(o *revocation.Options) { o.MaxEntries = 10 })
		first, _ := revoke(t, a.List, revocation.Entry{Client: "app"}), revoke(t, a.List, revocation.Entry{Client: "b"})
		require.NoError(t, a.Undo(t.Context(), first.ID, "ops", ""))
		time.Sleep(time.Minute)
		s := a.Status()
		assert.LessOrEqual(t, time.Since(s.LastContact), 1100*time.Millisecond)
		assert.Equal(t, revocation.Status{Entries: 1, Used: 2, MaxEntries: 10, Serves: true, Ready: true, LastContact: s.LastContact}, s)

		a.Set(logstore.Down)
		time.Sleep(time.Minute)
		s = a.Status()
		assert.True(t, s.Serves && s.Ready, "as long as it serves")
		assert.InDelta(t, time.Minute, time.Since(s.LastContact), float64(1100*time.Millisecond))
		time.Sleep(time.Hour)
		s = a.Status()
		assert.False(t, s.Serves || s.Ready)

		log.Keep(0, 1)
		a.Set(logstore.ReadOnly)
		time.Sleep(2 * time.Second)
		s = a.Status()
		assert.True(t, s.Serves)
		assert.False(t, s.Ready, "the store has lost records")

		a.stop()
		alone := newList(t, revocation.Options{})
		assert.Equal(t, revocation.Status{MaxEntries: 200_000, Serves: true, Ready: true}, alone.Status())
		revoke(t, alone, revocation.Entry{All: true, Issuers: []string{"i"}, Before: time.Now()})
		assert.Equal(t, 1, alone.Status().Used)
		time.Sleep(30 * 24 * time.Hour)
		assert.Zero(t, alone.Status().Used, "what is over is forgotten without a Run")
	})
}

func TestTheLastListServesForStaleFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		byDefault := start(t, log, logstore.None)
		open := start(t, log, logstore.None, func(o *revocation.Options) { o.InsecureFailOpen = true })
		none := start(t, log, logstore.None, func(o *revocation.Options) { o.StaleFor = -1 })
		revoke(t, byDefault.List, revocation.Entry{Client: "app"})
		time.Sleep(time.Minute)
		all := []*replica{byDefault, open, none}
		for _, r := range all {
			require.Equal(t, "app", r.has(t))
			r.Set(logstore.Down)
		}
		time.Sleep(2 * time.Second)
		assert.Equal(t, "app", byDefault.has(t))
		require.NoError(t, byDefault.Ready(t.Context()), "as long as it serves: else all replicas would leave at once")
		assert.Contains(t, none.has(t), "not been up to date")
		time.Sleep(time.Hour - 4*time.Second)
		assert.Equal(t, "app", byDefault.has(t))
		assert.InDelta(t, 60, byDefault.log.Count("level=ERROR"), 1, "loud")
		assert.Contains(t, byDefault.log.String(), "serves=true")
		time.Sleep(5 * time.Second)
		assert.Contains(t, byDefault.has(t), "not been up to date for more than 1h0m0s: logstore: down")
		require.Error(t, byDefault.Ready(t.Context()))
		assert.Equal(t, "app", open.has(t))
		require.NoError(t, open.Ready(t.Context()))
		for _, r := range all {
			r.Set(logstore.None)
		}
		time.Sleep(2 * time.Second)
		for _, r := range all {
			assert.Equal(t, "app", r.has(t))
			assert.NoError(t, r.Ready(t.Context()))
		}

		byDefault.stop()
		assert.Equal(t, "app", byDefault.has(t))
		time.Sleep(time.Hour + time.Second)
		assert.Contains(t, byDefault.has(t), "List.Run has ended")
		byDefault.run(t)
		assert.Equal(t, "app", byDefault.has(t), "Run may be called again")
	})
}

// A call that never comes back must not keep the list young.
func TestAStoreThatHangsIsAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		stuck := &stuckStore{Handle: log.Connect(0)}
		list := newList(t, revocation.Options{Store: stuck, StaleFor: time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- list.Run(ctx) }()
		time.Sleep(time.Second)
		require.NoError(t, list.Ready(ctx))
		release := make(chan struct{})
		stuck.set(release)
		time.Sleep(55 * time.Second)
		require.NoError(t, list.Ready(ctx))
		time.Sleep(10 * time.Second)
		require.ErrorContains(t, list.Ready(ctx), "does not answer")
		close(release)
		cancel()
		require.NoError(t, <-ended)
	})
}

// stuckStore is one whose Since does not even mind its ctx.
type stuckStore struct {
	*logstore.Handle
	mu      sync.Mutex
	release chan struct{}
}

func (s *stuckStore) set(release chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release = release
}

func (s *stuckStore) Since(ctx context.Context, position string) (revocation.Page, error) {
	s.mu.Lock()
	release := s.release
	s.mu.Unlock()
	if release != nil {
		<-release
	}
	return s.Handle.Since(ctx, position)
}

// lateStore answers Since with what there was half a second ago, and may change it.
type lateStore struct {
	*logstore.Handle
	change func(position string, page *revocation.Page)
}

func (s *lateStore) Since(ctx context.Context, position string) (revocation.Page, error) {
	page, err := s.Handle.Since(ctx, position)
	time.Sleep(500 * time.Millisecond)
	if s.change != nil {
		s.change(position, &page)
	}
	return page, err
}

// What was acknowledged while a page was on its way is not missing.
func TestAnAcknowledgedEntryMayComeLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		store := &lateStore{Handle: log.Connect(0)}
		list := newList(t, revocation.Options{Store: store, Issuers: []string{"i"}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- list.Run(ctx) }()
		time.Sleep(100 * time.Millisecond)
		revoke(t, list, revocation.Entry{Client: "early"})
		for range 40 {
			time.Sleep(50 * time.Millisecond)
			if err := list.Ready(t.Context()); err != nil {
				require.NotContains(t, err.Error(), "lost")
			}
		}
		for range 20 {
			time.Sleep(230 * time.Millisecond)
			revoke(t, list, revocation.Entry{Client: "app"})
			require.NoError(t, list.Ready(t.Context()))
		}
		time.Sleep(10 * time.Second)
		assert.Len(t, log.Records(), 22)
		cancel()
		require.NoError(t, <-ended)
	})
}

func TestAStoreThatContradictsItselfIsAway(t *testing.T) {
	for want, change := range map[string]func(string, *revocation.Page){
		"position does not move":          func(position string, page *revocation.Page) { page.Next = position },
		"2 records, of which 1 were read": func(_ string, page *revocation.Page) { page.Len++ },
		"0 records, of which 1 were read": func(_ string, page *revocation.Page) { page.Len-- },
	} {
		t.Run(want, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				list := newList(t, revocation.Options{Store: &lateStore{setUp(t).Connect(0), change}})
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- list.Run(ctx) }()
				time.Sleep(time.Minute)
				assert.ErrorContains(t, list.Ready(t.Context()), want)
				cancel()
				require.NoError(t, <-ended)
			})
		})
	}
}

func TestRevokeIsAcknowledgedOnceTheStoreHasIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		r := start(t, log, logstore.None)
		kept := revoke(t, r.List, revocation.Entry{Client: "kept"})
		time.Sleep(time.Second)
		for _, fault := range []logstore.Fault{logstore.Down, logstore.Hangs, logstore.ReadOnly} {
			r.Set(fault)
			_, err := r.Revoke(t.Context(), revocation.Entry{Client: "app", By: "ops"})
			require.ErrorContains(t, err, "the store did not confirm it")
			require.Error(t, r.Undo(t.Context(), kept.ID, "ops", ""))
			assert.Equal(t, "kept", r.has(t))
		}
		r.Set(logstore.Deaf)
		_, err := r.Revoke(t.Context(), revocation.Entry{Client: "app", By: "ops"})
		require.Error(t, err)
		r.Set(logstore.None)
		time.Sleep(8 * time.Second)
		assert.Equal(t, "kept app", r.has(t), "it may have it nevertheless")
		for range 2 * 4 { // what failed takes no room
			_, _ = r.Revoke(t.Context(), revocation.Entry{Client: "app", By: "ops"})
		}
		assert.Len(t, r.All(), 10)
	})
}

func TestAStoreThatWasNeverSetUpIsNotServed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := new(logstore.Log)
		r := start(t, log, logstore.None)
		time.Sleep(time.Minute)
		assert.Contains(t, r.has(t), "the store was never set up")
		require.Error(t, r.Ready(t.Context()))
		revoke(t, r.List, revocation.Entry{Client: "app"})
		time.Sleep(time.Minute)
		assert.Contains(t, r.has(t), "never set up", "an entry sets nothing up")
		assert.Len(t, log.Records(), 1)
		require.NoError(t, revocation.Init(t.Context(), r.Handle))
		require.NoError(t, revocation.Init(t.Context(), r.Handle))
		assert.Len(t, log.Records(), 2, "Init does it once")
		time.Sleep(2 * time.Second)
		assert.Equal(t, "app", r.has(t))
		require.NoError(t, r.Ready(t.Context()))

		lost := new(logstore.Log)
		r = start(t, lost, logstore.None)
		revoke(t, r.List, revocation.Entry{Client: "app"})
		time.Sleep(time.Second)
		lost.Keep(0, 0)
		time.Sleep(3 * time.Second)
		require.NoError(t, revocation.Init(t.Context(), r.Handle))
		time.Sleep(3 * time.Second)
		assert.Equal(t, "app", r.has(t))
		assert.Len(t, lost.Records(), 2, "what it held before there was a genesis, it has written back")
		r.Set(logstore.Down)
		require.ErrorIs(t, revocation.Init(t.Context(), r.Handle), logstore.ErrDown)
	})
}

// What a store loses, replicas keep and write back.
func TestAnEmptyStoreIsNoEmptyList(t *testing.T) {
	init := func(t *testing.T, log *logstore.Log) {
		require.NoError(t, revocation.Init(t.Context(), log.Connect(0)))
	}
	for name, lose := range map[string]func(*testing.T, *logstore.Log){
		"a flush":                      func(_ *testing.T, log *logstore.Log) { log.Keep(0, 0) },
		"a flush and another Init":     func(t *testing.T, log *logstore.Log) { log.Keep(0, 0); init(t, log) },
		"a flush and as many records":  func(t *testing.T, log *logstore.Log) { n := len(log.Records()); log.Keep(0, 0); fill(log, n) },
		"a flush and more records":     func(t *testing.T, log *logstore.Log) { n := len(log.Records()); log.Keep(0, 0); fill(log, n+5) },
		"the beginning trimmed":        func(_ *testing.T, log *logstore.Log) { log.Keep(3, len(log.Records())) },
		"an old backup":                func(_ *testing.T, log *logstore.Log) { log.Keep(0, 3) },
		"the last record lost":         func(_ *testing.T, log *logstore.Log) { log.Keep(0, -1) },
		"the last record another":      func(_ *testing.T, log *logstore.Log) { log.Keep(0, -1); fill(log, 1) },
		"a backup from before another": func(t *testing.T, log *logstore.Log) { log.Keep(0, 0); init(t, log); log.Keep(0, 0); fill(log, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				log := setUp(t)
				a := start(t, log, logstore.None)
				b := start(t, log, logstore.ReadOnly)
				var undone revocation.Entry
				for i := range 8 {
					time.Sleep(time.Second)
					undone = revoke(t, a.List, revocation.Entry{Client: fmt.Sprint(i)})
				}
				require.NoError(t, a.Undo(t.Context(), undone.ID, "ops", ""))
				revoke(t, a.List, revocation.Entry{Client: "app"})
				time.Sleep(time.Second)
				const want = "0 1 2 3 4 5 6 app"
				require.Equal(t, want, b.has(t))

				a.Set(logstore.Down) // it could write back at once
				lose(t, log)
				for range 30 {
					time.Sleep(time.Second)
					require.Subset(t, strings.Fields(b.has(t)), strings.Fields(want), "it keeps what it holds")
				}
				require.ErrorContains(t, b.Ready(t.Context()), "the store has lost")
				assert.Positive(t, b.log.Count("cannot be written back from here"))

				a.Set(logstore.None)
				time.Sleep(5 * time.Second)
				for _, r := range []*replica{a, b, start(t, log, logstore.None)} {
					time.Sleep(time.Second)
					assert.Subset(t, strings.Fields(r.has(t)), strings.Fields(want))
					assert.NotContains(t, strings.Fields(r.has(t)), "7", "what was undone")
					assert.NoError(t, r.Ready(t.Context()))
				}
				assert.Positive(t, a.log.Count("wrote back"))
				count := len(log.Records())
				time.Sleep(time.Minute)
				assert.Len(t, log.Records(), count, "and then there is an end")
			})
		})
	}
}

// A store that fails over may lose what it has just confirmed, before anybody reads it.
func TestWhatWasAcknowledgedAndNeverReadIsMissed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		a, b := start(t, log, logstore.None), start(t, log, logstore.None)
		undone := revoke(t, a.List, revocation.Entry{Client: "undone"})
		time.Sleep(time.Second)
		for _, r := range []*replica{a, b} {
			r.Set(logstore.Sleepy)
		}
		time.Sleep(time.Second)
		revoke(t, a.List, revocation.Entry{Client: "app"})
		require.NoError(t, a.Undo(t.Context(), undone.ID, "ops", ""))
		log.Keep(0, -2)
		time.Sleep(5 * time.Second)
		assert.Equal(t, "app", a.has(t))
		assert.Equal(t, "app", b.has(t))
		assert.NoError(t, a.Ready(t.Context()))
		assert.Len(t, log.Records(), 4)
	})
}

// fill adds what another program appends to a log meanwhile.
func fill(log *logstore.Log, n int) {
	for i := range n {
		log.Append(fmt.Appendf(nil, `{"entry":{"id":"FOREIGN%d","issuers":["i"],"client":"foreign%d","by":"x","at":"2000-01-01T00:00:00Z"}}`, i, i))
	}
}

// A replica that starts while others write back must not take a part for the whole.
func TestTheGenesisIsWrittenBackLast(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		a, b := start(t, log, logstore.None), start(t, log, logstore.None)
		for i := range 1200 {
			revoke(t, a.List, revocation.Entry{Client: fmt.Sprint(i)})
		}
		time.Sleep(time.Second)
		require.Len(t, b.All(), 1200)
		log.Keep(0, 0)
		for range 60 {
			time.Sleep(35 * time.Millisecond)
			fresh := start(t, log, logstore.None)
			if _, err := fresh.Revoked(t.Context(), m2mauth.Claims{}); err == nil {
				require.Len(t, fresh.All(), 1200)
			}
			fresh.stop()
		}
		fresh := start(t, log, logstore.None)
		require.NoError(t, fresh.Ready(t.Context()))
		require.Len(t, fresh.All(), 1200)
	})
}

func TestARecordThatCannotBeReadFailsClosed(t *testing.T) {
	const good = `{"entry":{"id":"A","issuers":["i"],"client":"late","by":"x","at":"2000-01-01T00:00:00Z"}}`
	for name, record := range map[string]string{
		"no JSON":                `{`,
		"nothing":                ``,
		"null":                   `null`,
		"an empty object":        `{}`,
		"a null entry":           `{"entry":null}`,
		"an unknown kind":        `{"pause":{}}`,
		"two kinds":              `{"undo":{"id":"A","by":"x","at":"2000-01-01T00:00:00Z"},` + good[1:],
		"an unknown member":      strings.Replace(good, `"client"`, `"ip":"1","client"`, 1),
		"a doubled member":       strings.Replace(good, `"client"`, `"client":"a","client"`, 1),
		"another case":           strings.Replace(good, `"client"`, `"Client"`, 1),
		"bytes after it":         good + "{}",
		"no selector":            strings.Replace(good, `"client":"late",`, ``, 1),
		"two selectors":          strings.Replace(good, `"client"`, `"subject":"a","client"`, 1),
		"no issuer":              strings.Replace(good, `["i"]`, `[]`, 1),
		"an empty issuer":        strings.Replace(good, `["i"]`, `[""]`, 1),
		"no id":                  strings.Replace(good, `"A"`, `""`, 1),
		"a long id":              strings.Replace(good, `"A"`, `"`+strings.Repeat("A", 65)+`"`, 1),
		"no time":                strings.Replace(good, `,"at":"2000-01-01T00:00:00Z"`, ``, 1),
		"a time that is none":    strings.Replace(good, `2000-01-01T00:00:00Z`, `yesterday`, 1),
		"a year out of range":    strings.Replace(good, `"by"`, `"before":"9999-01-01T00:00:00Z","by"`, 1),
		"a webhook's, untimed":   strings.Replace(good, `"by"`, `"webhook":true,"by"`, 1),
		"not UTF-8":              strings.Replace(good, `late`, "\xff", 1),
		"too long":               good + strings.Repeat(" ", 8192),
		"an undo of nothing":     `{"undo":{"id":"","by":"x","at":"2000-01-01T00:00:00Z"}}`,
		"an undo by nobody":      `{"undo":{"id":"A","by":"","at":"2000-01-01T00:00:00Z"}}`,
		"a genesis without time": `{"genesis":{"id":"A"}}`,
		"another with this ID":   strings.NewReplacer("late", "early", `"A"`, `"FIRST"`).Replace(good),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				log := setUp(t)
				log.Append([]byte(strings.NewReplacer("late", "first", `"A"`, `"FIRST"`).Replace(good)))
				running := start(t, log, logstore.None, func(o *revocation.Options) { o.StaleFor = time.Minute })
				require.Equal(t, "first", running.has(t))
				log.Append([]byte(record), []byte(good))
				fresh := start(t, log, logstore.None, func(o *revocation.Options) { o.InsecureFailOpen = true })
				time.Sleep(2 * time.Second)
				assert.Equal(t, "late first", running.has(t), "what comes after it counts")
				assert.ErrorContains(t, running.Ready(t.Context()), "has a record that the list cannot take")
				assert.Contains(t, fresh.has(t), notRead)
				assert.Positive(t, running.log.Count("level=ERROR"))
				assert.Zero(t, running.log.Count(record[:min(len(record), 5)]+"X"))
				time.Sleep(2 * time.Minute)
				assert.Contains(t, running.has(t), "not been up to date", "it may have been a revocation")
				assert.Contains(t, fresh.has(t), notRead)
				if name != "another with this ID" {
					require.Error(t, revocation.Init(t.Context(), log.Connect(0)))
				}

				all := log.Records()
				log.Keep(0, 0)
				log.Append(all[0], all[1], all[3]) // somebody takes it out
				time.Sleep(2 * time.Minute)
				for _, r := range []*replica{running, fresh} {
					assert.Equal(t, "late first", r.has(t))
					assert.NoError(t, r.Ready(t.Context()))
				}
			})
		})
	}
}

func TestWhatALogHoldsIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		small := func(o *revocation.Options) { o.MaxEntries = 8 }
		writer := start(t, log, logstore.None)
		for i := range 30 { // ended entries take no room, however many a log has
			revoke(t, writer.List, revocation.Entry{Client: fmt.Sprint("old", i), Before: time.Now()})
		}
		time.Sleep(2 * time.Hour)
		r := start(t, log, logstore.None, small)
		require.NoError(t, r.Ready(t.Context()))
		assert.Empty(t, r.has(t))
		for i := range 16 { // several may have filled it at once
			revoke(t, writer.List, revocation.Entry{Client: fmt.Sprint(i)})
		}
		time.Sleep(time.Second)
		require.NoError(t, r.Ready(t.Context()))
		_, err := r.Revoke(t.Context(), revocation.Entry{Client: "no room", By: "ops"})
		require.ErrorIs(t, err, revocation.ErrFull)
		e := revoke(t, writer.List, revocation.Entry{Client: "too much"})
		time.Sleep(time.Second)
		require.ErrorContains(t, r.Ready(t.Context()), "the list is full")
		assert.Len(t, r.All(), 16)
		fresh := start(t, log, logstore.None, small)
		assert.Contains(t, fresh.has(t), notRead)
		time.Sleep(time.Hour)
		assert.Contains(t, r.has(t), "the list is full", "an entry is missing")

		require.NoError(t, writer.Undo(t.Context(), e.ID, "ops", ""))
		for _, other := range writer.All()[:4] {
			require.NoError(t, writer.Undo(t.Context(), other.ID, "ops", ""))
		}
		all := []*replica{writer, r, fresh}
		for _, r := range all {
			r.stop() // a week of seconds takes minutes
		}
		time.Sleep(8 * 24 * time.Hour)
		for _, r := range all {
			r.run(t)
		}
		time.Sleep(time.Second)
		for _, r := range all {
			assert.Len(t, r.All(), 12)
			assert.NoError(t, r.Ready(t.Context()))
		}
	})
}

// Whatever the order in a log that was written back, undone is undone.
func TestAnUndoCountsWhereverItIs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		first := start(t, log, logstore.None)
		e := revoke(t, first.List, revocation.Entry{Client: "app"})
		require.NoError(t, first.Undo(t.Context(), e.ID, "ops", ""))
		first.stop()
		r := log.Records()
		other := new(logstore.Log)
		other.Append(r[0])
		running := start(t, other, logstore.None)
		other.Append(r[2], r[1])
		time.Sleep(time.Second)
		for _, r := range []*replica{running, start(t, other, logstore.None)} {
			assert.Empty(t, r.has(t))
			assert.NoError(t, r.Ready(t.Context()))
		}
		other.Append(r[1], r[2], r[1])
		time.Sleep(time.Second)
		assert.Empty(t, running.has(t))
	})
}

func TestTheGuardAnswers503UntilTheListWasRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := setUp(t)
		issuer := m2mauthtest.NewIssuer()
		r := start(t, log, logstore.Down)
		config := issuer.Config("https://shopping.api")
		config.Logger, config.Revoked = slog.New(slog.DiscardHandler), r.Revoked
		guard, err := m2mauth.New(config)
		require.NoError(t, err)
		_, err = guard.Verify(t.Context(), issuer.Token("https://shopping.api", "read"))
		require.ErrorIs(t, err, m2mauth.ErrUnavailable)
		r.Set(logstore.None)
		time.Sleep(2 * time.Second)
		_, err = guard.Verify(t.Context(), issuer.Token("https://shopping.api", "read"))
		require.NoError(t, err)
	})
}

// FuzzRecord gives a list records that may be anything. It must not panic, and what it
// cannot read must show.
func FuzzRecord(f *testing.F) {
	for _, seed := range []string{
		`{"entry":{"id":"A","issuers":["i"],"client":"a","by":"x","at":"2000-01-01T00:00:00Z"}}`,
		`{"entry":{"id":"A","issuers":["i","j"],"organization":"a","subject":"b","before":"2000-01-01T00:00:00Z","by":"x","at":"2000-01-01T00:00:00Z","webhook":true}}`,
		`{"undo":{"id":"A","by":"x","reason":"y","at":"2000-01-01T00:00:00Z"}}`,
		`{"genesis":{"id":"A","at":"2000-01-01T00:00:00Z"}}`, `{}`, `null`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		synctest.Test(t, func(t *testing.T) {
			log := setUp(t)
			log.Append(record)
			r := start(t, log, logstore.None)
			time.Sleep(2 * time.Second)
			_, err := r.Revoked(t.Context(), m2mauth.Claims{})
			require.Equal(t, err, r.Ready(t.Context()))
			var v struct{ Genesis, Entry, Undo json.RawMessage }
			if json.Unmarshal(record, &v) != nil || (v.Genesis == nil) == (v.Entry == nil) == (v.Undo == nil) {
				require.Error(t, err, "it is none of the three")
			}
			if err != nil {
				require.ErrorContains(t, err, notRead)
				require.Empty(t, r.All())
			}
			for _, e := range r.All() { // what was taken can be written again
				log.Keep(0, 0)
				time.Sleep(5 * time.Second)
				require.NoError(t, r.Ready(t.Context()))
				fresh := start(t, log, logstore.None)
				require.Equal(t, []revocation.Entry{e}, fresh.All())
			}
		})
	})
}
