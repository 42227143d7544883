package properties

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/logstore"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/revocation"
)

// Of the lists of the machine. The clocks of the issuer and of the webhooks' sender differ
// from the replicas' by at most half of the leeway each.
const (
	revocationLeeway   = 30 * time.Second
	revocationLifetime = 2 * time.Minute
	revocationStaleFor = time.Minute
	revocationEnd      = revocationLeeway + revocationLifetime + 10*time.Minute // after Before
	notices            = 8 * time.Second                                        // a call's timeout, and some
)

// revocationMachine is a log, replicas that follow it, and what the model knows.
type revocationMachine struct {
	issuer   *m2mauthtest.Issuer
	guard    *m2mauth.Guard
	log      *logstore.Log
	replicas []*revocationReplica
	tokens   []issuedToken

	acked     map[string]revocation.Entry   // acknowledged, and not gone with all who knew it
	undone    map[string]*revocationReplica // acknowledged too, by this one
	uncertain map[string]bool               // undone, perhaps
}

type issuedToken struct {
	claims m2mauth.Claims
	at     time.Time // by the replicas' clock
}

type revocationReplica struct {
	list    *revocation.List
	handle  *logstore.Handle
	stop    func()
	shown   map[string]revocation.Entry
	away    time.Time // since when; zero: it is not
	back    time.Time
	fresh   bool // has not answered yet
	faulted logstore.Fault
}

func newRevocationMachine(rt *rapid.T) *revocationMachine {
	m := &revocationMachine{
		issuer: newIssuer(), log: new(logstore.Log), acked: make(map[string]revocation.Entry),
		undone: make(map[string]*revocationReplica), uncertain: make(map[string]bool),
	}
	m.guard = newGuard(rt, m.issuer, func(c *m2mauth.Config) { c.InsecureAllowOrganizationTokens = true })
	require.NoError(rt, revocation.Init(context.Background(), m.log.Connect(0)))
	for range 3 {
		m.replicas = append(m.replicas, m.start(rt))
	}
	return m
}

func (m *revocationMachine) start(rt *rapid.T) *revocationReplica {
	r := &revocationReplica{handle: m.log.Connect(rapid.IntRange(1, 4).Draw(rt, "page")), shown: make(map[string]revocation.Entry), back: time.Now(), fresh: true}
	list, err := revocation.New(revocation.Options{
		MaxTokenLifetime: revocationLifetime, Leeway: revocationLeeway, StaleFor: revocationStaleFor,
		Issuers: []string{m.issuer.URL()}, Store: r.handle, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(rt, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- list.Run(ctx) }()
	r.list = list
	r.stop = func() {
		cancel()
		require.NoError(rt, <-ended)
	}
	return r
}

func (m *revocationMachine) stop() {
	for _, r := range m.replicas {
		r.stop()
	}
}

func (m *revocationMachine) draw(rt *rapid.T) *revocationReplica {
	return m.replicas[rapid.IntRange(0, len(m.replicas)-1).Draw(rt, "replica")]
}

func skew(rt *rapid.T) time.Duration {
	return time.Duration(rapid.IntRange(-14, 14).Draw(rt, "the clock is ahead by")) * time.Second
}

// issue makes a token by the issuer's clock.
func (m *revocationMachine) issue(rt *rapid.T) {
	now := time.Now()
	name := func(kind string) string { return fmt.Sprint(kind, rapid.IntRange(0, 1).Draw(rt, kind)) }
	iat := now.Add(skew(rt)).Unix()
	token := m2mauthtest.Token{AppID: name("app"), Audience: audience, Claims: map[string]any{
		"jti": name("token"), "iat": iat, "exp": iat + int64(revocationLifetime/time.Second),
	}}
	if rapid.Bool().Draw(rt, "user's") {
		token.Claims["sub"] = name("user")
	}
	if rapid.Bool().Draw(rt, "organization's") {
		token.OrganizationID = name("organization")
	}
	claims, err := m.guard.Verify(context.Background(), m.issuer.Sign(token))
	require.NoError(rt, err)
	if m.tokens = append(m.tokens, issuedToken{claims, now}); len(m.tokens) > 8 {
		m.tokens = m.tokens[1:]
	}
}

func (m *revocationMachine) revoke(rt *rapid.T) {
	e := revocation.Entry{By: "model"}
	name := func(kind string) string { return fmt.Sprint(kind, rapid.IntRange(0, 1).Draw(rt, kind)) }
	switch rapid.IntRange(0, 6).Draw(rt, "selector") {
	case 0:
		e.Token = name("token")
	case 1:
		e.Client = name("app")
	case 2:
		e.Subject = name("user")
	case 3:
		e.Organization = name("organization")
	case 4:
		e.Organization, e.Client = name("organization"), name("app")
	case 5:
		e.Organization, e.Subject = name("organization"), name("user")
	case 6:
		e.All = true
	}
	if rapid.Bool().Draw(rt, "before") {
		e.Before = time.Now().Add(skew(rt))
		e.Webhook = rapid.Bool().Draw(rt, "webhook")
	}
	r := m.draw(rt)
	e, err := r.list.Revoke(context.Background(), e)
	if err != nil {
		require.Equal(rt, e, revocation.Entry{})
		require.Contains(rt, []logstore.Fault{logstore.Down, logstore.Hangs, logstore.ReadOnly, logstore.Deaf}, r.faulted)
		return
	}
	if m.undone[e.ID] == nil && !m.uncertain[e.ID] { // else a webhook's
		m.acked[e.ID], r.shown[e.ID] = e, e
	}
}

func (m *revocationMachine) undo(rt *rapid.T) {
	r := m.draw(rt)
	all := r.list.All()
	if len(all) == 0 {
		return
	}
	id := all[rapid.IntRange(0, len(all)-1).Draw(rt, "entry")].ID
	if err := r.list.Undo(context.Background(), id, "model", ""); err != nil {
		m.uncertain[id] = true // and from now on nothing is said of it
		return
	}
	m.undone[id] = r
}

func (m *revocationMachine) fail(rt *rapid.T) {
	r := m.draw(rt)
	r.set(rapid.SampledFrom([]logstore.Fault{
		logstore.None, logstore.Down, logstore.Hangs, logstore.ReadOnly, logstore.Deaf, logstore.Sleepy,
	}).Draw(rt, "fault"))
}

func (r *revocationReplica) set(f logstore.Fault) {
	away := f == logstore.Down || f == logstore.Hangs
	switch {
	case away && r.away.IsZero():
		r.away = time.Now()
	case !away && !r.away.IsZero():
		r.away, r.back = time.Time{}, time.Now()
	}
	r.faulted = f
	r.handle.Set(f)
}

// lose takes records from the log, as a flush, a trim, or an old backup do.
func (m *revocationMachine) lose(rt *rapid.T) {
	n := len(m.log.Records())
	from := rapid.IntRange(0, n).Draw(rt, "from")
	m.log.Keep(from, rapid.IntRange(from, n).Draw(rt, "to"))
	m.forget()
}

// initialize is what nobody should do with a store that lost something.
func (m *revocationMachine) initialize(rt *rapid.T) {
	require.NoError(rt, revocation.Init(context.Background(), m.log.Connect(0)))
}

// replace kills a replica and starts another: what it alone knew is gone.
func (m *revocationMachine) replace(rt *rapid.T) {
	i := rapid.IntRange(0, len(m.replicas)-1).Draw(rt, "replica")
	m.replicas[i].stop()
	m.replicas[i] = m.start(rt)
	m.forget()
}

// inLog returns the IDs of entries, those of undos after "undo ", and "genesis".
func (m *revocationMachine) inLog() map[string]bool {
	has := make(map[string]bool)
	for _, data := range m.log.Records() {
		var r struct{ Genesis, Entry, Undo *struct{ ID string } }
		switch _ = json.Unmarshal(data, &r); {
		case r.Genesis != nil:
			has["genesis"] = true
		case r.Entry != nil:
			has[r.Entry.ID] = true
		case r.Undo != nil:
			has["undo "+r.Undo.ID] = true
		}
	}
	return has
}

// forget drops what neither the log nor a replica knows.
func (m *revocationMachine) forget() {
	has := m.inLog()
	for _, r := range m.replicas {
		for _, e := range r.list.All() {
			has[e.ID] = true
		}
	}
	for id := range m.acked {
		if !has[id] {
			delete(m.acked, id)
		}
	}
	for id, r := range m.undone {
		if !has["undo "+id] && !slices.Contains(m.replicas, r) {
			delete(m.undone, id)
			m.uncertain[id] = true
		}
	}
}

// isWhole reports whether the log was set up, as far as it tells.
func (m *revocationMachine) isWhole() bool { return m.inLog()["genesis"] }

func (m *revocationMachine) pass(rt *rapid.T) {
	unit := rapid.SampledFrom([]time.Duration{10 * time.Millisecond, time.Second, 10 * time.Second, time.Minute}).Draw(rt, "unit")
	time.Sleep(unit * time.Duration(rapid.IntRange(1, 15).Draw(rt, "times")))
}

// over reports whether an entry has ended, or is about to: a minute is how often a list looks.
func over(e revocation.Entry) bool {
	return !e.Before.IsZero() && !time.Now().Before(e.Before.Add(revocationEnd))
}

// selects is the rule, written once more.
func selects(e revocation.Entry, c m2mauth.Claims) bool {
	for _, pair := range [][2]string{{e.Token, c.ID()}, {e.Client, c.ClientID()}, {e.Subject, c.Subject()}, {e.Organization, c.OrganizationID()}} {
		if pair[0] != "" && pair[0] != pair[1] {
			return false
		}
	}
	return slices.Contains(e.Issuers, c.Issuer())
}

func idsOf(entries []revocation.Entry) (ids []string) {
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	slices.Sort(ids)
	return ids
}

// invariant is what holds at any time, whatever fails.
func (m *revocationMachine) invariant(rt *rapid.T) {
	synctest.Wait() // so that what a replica says is of one moment
	for i, r := range m.replicas {
		all := make(map[string]revocation.Entry)
		for _, e := range r.list.All() {
			all[e.ID] = e
			require.False(rt, over(e))
		}
		for id, e := range r.shown {
			switch _, is := all[id]; {
			case m.undone[id] != nil, m.uncertain[id], over(e):
				delete(r.shown, id)
			default:
				require.True(rt, is, "replica %d forgot %v", i, e)
			}
		}
		maps.Copy(r.shown, all)

		now := time.Now()
		_, err := r.list.Revoked(context.Background(), m2mauth.Claims{})
		if !r.away.IsZero() {
			switch d := now.Sub(r.away); {
			case d > revocationStaleFor+notices:
				require.Error(rt, err, "replica %d is away for %v", i, d)
			case d < revocationStaleFor-2*time.Second && !r.fresh && r.away.Sub(r.back) > notices:
				require.NoError(rt, err, "replica %d is away for %v", i, d)
			}
		} else if now.Sub(r.back) > notices && !r.fresh {
			require.NoError(rt, err, "replica %d is back", i)
		}
		if err != nil {
			require.Error(rt, r.list.Ready(context.Background()))
			continue
		}
		r.fresh = false
		for _, token := range m.tokens {
			want := false
			for _, e := range all {
				if !selects(e, token.claims) {
					continue
				}
				if want = want || e.Before.IsZero() || token.claims.IssuedAt().Before(e.Before.Add(revocationLeeway)); e.Webhook && token.at.Before(e.Before.Add(-14*time.Second)) {
					require.True(rt, want, "clocks that differ hide no token that was issued before")
				}
			}
			revoked, err := r.list.Revoked(context.Background(), token.claims)
			require.NoError(rt, err)
			require.Equal(rt, want, revoked, "replica %d", i)
		}
	}
}

// settle lets all faults end. Then all replicas agree, and nothing acknowledged is lost.
func (m *revocationMachine) settle(rt *rapid.T) {
	for _, r := range m.replicas {
		r.set(logstore.None)
	}
	time.Sleep(notices + 7*time.Second + 10*time.Second) // a replica that may not write tries again after 10 s
	if !m.isWhole() {                                    // nobody knew the genesis any more
		for _, r := range m.replicas {
			require.True(rt, r.fresh)
			require.Error(rt, r.list.Ready(context.Background()))
		}
		m.initialize(rt)
		time.Sleep(2 * time.Second)
	}
	for _, r := range m.replicas {
		require.NoError(rt, r.list.Ready(context.Background()))
		all := idsOf(r.list.All())
		assert.Equal(rt, idsOf(m.replicas[0].list.All()), all)
		for id := range m.undone {
			require.NotContains(rt, all, id, "it was undone")
		}
		for id, e := range m.acked {
			if m.undone[id] == nil && !m.uncertain[id] && !over(e) {
				require.Contains(rt, all, id, "it was acknowledged")
			}
		}
	}
}

// TestRevocationOfAFleet drives replicas of a list, and their store, at random.
func TestRevocationOfAFleet(t *testing.T) {
	check(t, func(rt *rapid.T) {
		m := newRevocationMachine(rt)
		defer m.stop()
		rt.Repeat(map[string]func(*rapid.T){
			"issue": m.issue, "issue again": m.issue,
			"revoke": m.revoke, "revoke again": m.revoke,
			"undo": m.undo, "fail": m.fail, "lose": m.lose, "init": m.initialize,
			"replace": m.replace, "pass": m.pass, "settle": m.settle,
			"": m.invariant,
		})
		m.settle(rt)
		m.invariant(rt)
	})
}
