// Package proof holds the pages in docs/migrating to what the libraries do.
package proof

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	auth0after "github.com/m2mauth/m2mauth/e2e/migrating/auth0/after"
	auth0v2 "github.com/m2mauth/m2mauth/e2e/migrating/auth0/before2"
	auth0v3 "github.com/m2mauth/m2mauth/e2e/migrating/auth0/before3"
	echojwtafter "github.com/m2mauth/m2mauth/e2e/migrating/echojwt/after"
	echojwt "github.com/m2mauth/m2mauth/e2e/migrating/echojwt/before"
	gooidcafter "github.com/m2mauth/m2mauth/e2e/migrating/gooidc/after"
	gooidc "github.com/m2mauth/m2mauth/e2e/migrating/gooidc/before"
	"github.com/m2mauth/m2mauth/e2e/migrating/infront"
	keyfuncafter "github.com/m2mauth/m2mauth/e2e/migrating/keyfunc/after"
	keyfunc "github.com/m2mauth/m2mauth/e2e/migrating/keyfunc/before"
	logtoafter "github.com/m2mauth/m2mauth/e2e/migrating/logto/after"
	logto "github.com/m2mauth/m2mauth/e2e/migrating/logto/before"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// requests returns how many each library gets.
func requests() int {
	if testing.Short() {
		return 600
	}
	return 2000
}

type library struct {
	name    string // as docs/migrating/README.md has it
	page    string // in docs/migrating
	heading string // of the page's section that says what changes
	before  func(ctx context.Context, issuer, audience string) (http.Handler, error)
	guard   func(issuer, audience string) (*m2mauth.Guard, error)
	after   func(*m2mauth.Guard) http.Handler
	rotates bool // accepts the first token of a key that the issuer has just made
}

var libraries = []library{
	{"jwx, in the shape of Logto's guide", "logto.md", "What changes", logto.API, logtoafter.Guard, logtoafter.API, false},
	{"keyfunc with golang-jwt", "keyfunc.md", "What changes", keyfunc.API, keyfuncafter.Guard, keyfuncafter.API, true},
	{"go-jwt-middleware v2", "auth0.md", "What changes from v2", auth0v2.API, auth0after.Guard, auth0after.API, false},
	{"go-jwt-middleware v3", "auth0.md", "What changes from v3", auth0v3.API, auth0after.Guard, auth0after.API, false},
	{"echo-jwt with keyfunc", "echo-jwt.md", "What changes", echojwt.API, echojwtafter.Guard, echojwtafter.API, true},
	{"go-oidc", "go-oidc.md", "What changes", gooidc.API, gooidcafter.Guard, gooidcafter.API, true},
}

// With the same requests, one after the other:
//   - behind a guard that reports only, the library's API answers byte for byte as before;
//   - the guard lists a request if and only if it refuses it once it enforces, and so does
//     m2mauth without the library;
//   - what is listed gets m2mauth's answer then, and all else the answer from before.
//
// So the answers that change for callers are those to what is listed and the library
// accepts. Once the library is gone, what it refuses and the guard does not is accepted.
func TestEnforcingRefusesWhatReportOnlyListed(t *testing.T) {
	for _, l := range libraries {
		t.Run(l.name, func(t *testing.T) {
			var found findings
			synctest.Test(t, func(t *testing.T) { found = newRun(t, l).all(t) })
			found.holds(t, l)
		})
	}
}

type run struct {
	issuer *m2mauthtest.Issuer
	second string
	known  string

	old       *server // the library alone
	reporting *server // behind a guard that reports only
	enforcing *server // behind the same guard, enforcing
	only      *server // m2mauth alone

	guard    *m2mauth.Guard
	reported map[string]m2mauth.Decision // by the number of the request, of the guard that reports only
	enforced map[string]m2mauth.Decision
}

func newRun(t *testing.T, l library) *run {
	t.Helper()
	r := &run{issuer: m2mauthtest.NewIssuer(), reported: make(map[string]m2mauth.Decision), enforced: make(map[string]m2mauth.Decision)}
	r.second = r.issuer.Stage("ES256")
	r.known = r.issuer.Sign(m2mauthtest.Token{
		Audience: audience, Scopes: []string{"read:products", "write:products"}, Lifetime: 24 * time.Hour,
	})
	useClientOf(t, r.issuer)
	before := func() http.Handler {
		h, err := l.before(t.Context(), r.issuer.URL(), audience)
		require.NoError(t, err)
		return h
	}
	config := r.issuer.Config(audience)
	config.InsecureReportOnlyUntil = time.Now().AddDate(0, 0, 14)
	config.OnDecision = func(ctx context.Context, d m2mauth.Decision) {
		to := r.enforced
		if d.ReportOnly {
			to = r.reported
		}
		to[ctx.Value(numberKey{}).(string)] = d
	}
	var err error
	r.guard, err = m2mauth.New(config)
	require.NoError(t, err)
	require.NoError(t, r.guard.Warm(t.Context()))
	r.old = newServer(t, before())
	r.reporting = newServer(t, numbered(infront.InFront(r.guard, before())))
	r.enforcing = newServer(t, numbered(infront.InFront(r.guard.Enforcing(), before())))
	r.only = newServer(t, l.after(newGuard(t, r.issuer, nil)))
	return r
}

// useClientOf lets code without an HTTP client of its own reach the issuer, and keeps
// what is logged to itself.
func useClientOf(t *testing.T, issuer *m2mauthtest.Issuer) {
	t.Helper()
	transport, logger := http.DefaultTransport, slog.Default()
	http.DefaultTransport = issuer.Client().Transport
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		http.DefaultTransport = transport
		slog.SetDefault(logger)
	})
}

func newGuard(t *testing.T, issuer *m2mauthtest.Issuer, change func(*m2mauth.Config)) *m2mauth.Guard {
	t.Helper()
	config := issuer.Config(audience)
	config.Logger = slog.New(slog.DiscardHandler)
	if change != nil {
		change(&config)
	}
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	return guard
}

// refuses reports whether a server decided against a request. That a path or a method
// is not there is no decision.
func refuses(status int) bool {
	return status >= 400 && status != http.StatusNotFound && status != http.StatusMethodNotAllowed
}

// A verdict is what became of a family's requests.
type verdict struct{ old, new bool } // refused by the library, and by m2mauth

// findings are what a run has found out: the families by what became of them, and for
// those that both refuse, the statuses.
type findings struct {
	verdicts map[string]verdict
	statuses map[change][]string
	counts   string // a row of a table
}

type change struct{ old, now int }

func (c change) compare(other change) int {
	return cmp.Or(cmp.Compare(c.old, other.old), cmp.Compare(c.now, other.now))
}

// all sends all requests to all servers.
func (r *run) all(t *testing.T) findings {
	t.Helper()
	found := findings{verdicts: make(map[string]verdict), statuses: make(map[change][]string)}
	accepted, listed, undecided, stricter, wider := 0, 0, 0, 0, 0
	for n := range requests() {
		random := rand.New(rand.NewPCG(18, uint64(n)))
		f := familyOf(n)
		d := newDraft(r.issuer, r.second, random)
		d.known = r.known
		f.changes[random.IntN(len(f.changes))](d)
		request, number := d.write(n), strconv.Itoa(n)

		oldStatus, old := r.old.send(t, request, d.method)
		_, reporting := r.reporting.send(t, request, d.method)
		require.Equal(t, old, reporting, "%s: report-only changes nothing", f.words)
		_, enforcing := r.enforcing.send(t, request, d.method)
		onlyStatus, only := r.only.send(t, request, d.method)

		report, decided := r.reported[number]
		final, decidedAgain := r.enforced[number]
		isListed := report.Err != nil
		require.Equal(t, decided, decidedAgain, f.words)
		require.Equal(t, isListed, final.Err != nil, "%s: enforcing refuses what was listed, and nothing else: %v, %v", f.words, report.Err, final.Err)
		require.Equal(t, isListed, refuses(onlyStatus), "%s: m2mauth without the library does the same: %d", f.words, onlyStatus)
		if report.Outcome == m2mauth.Undecided { // the guard asks the issuer, and does not hold up the request
			require.Contains(t, []string{"`kid` is unknown", "`kid` is empty"}, f.words, "all others are decided at once")
			undecided++
		}
		switch v := (verdict{refuses(oldStatus), isListed}); v {
		case verdict{false, false}:
			require.Equal(t, old, only, "%s: the API itself says the same", f.words)
		case verdict{true, true}:
			c := change{oldStatus, onlyStatus}
			if c.old != c.now && !slices.Contains(found.statuses[c], f.words) {
				found.statuses[c] = append(found.statuses[c], f.words)
			}
		case verdict{false, true}:
			stricter++
		case verdict{true, false}:
			wider++
		}
		if isListed {
			listed++
			require.Equal(t, only, enforcing, "%s: the answer is m2mauth's", f.words)
		} else {
			require.Equal(t, old, enforcing, "%s: what was not listed is answered as before", f.words)
		}
		if !refuses(oldStatus) {
			accepted++
		}
		v := verdict{refuses(oldStatus), isListed}
		if before, ok := found.verdicts[f.words]; ok {
			require.Equal(t, before, v, "%s: a family is decided alike", f.words)
		}
		found.verdicts[f.words] = v
	}
	t.Logf("%d requests: the library accepts %d and refuses %d; report-only lists %d (%d of them undecided), and enforcing refuses exactly these; the library accepts %d of them, and refuses %d of the others",
		requests(), accepted, requests()-accepted, listed, undecided, stricter, wider)
	found.counts = fmt.Sprintf("| %d | %d | %d | %d | %d |", requests(), accepted, listed, stricter, wider)
	require.Equal(t, verdict{}, found.verdicts[usual.words], "usual requests pass everywhere")
	require.Len(t, found.verdicts, 1+len(unusual), "all families were tried")
	require.Greater(t, len(unusual), 80, "as docs/migrating/README.md says")
	require.EqualValues(t, listed-undecided, r.guard.Stats().WouldRefuse)
	return found
}

// familyOf makes two of five requests usual ones, and takes the others in turn.
func familyOf(n int) family {
	if n%5 < 2 {
		return usual
	}
	return unusual[(n/5*3+n%5-2)%len(unusual)]
}

// What the pages say about the first token of a new key.
func TestAfterARotation(t *testing.T) {
	for _, l := range libraries {
		t.Run(l.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				useClientOf(t, issuer)
				_, err := l.guard(issuer.URL(), audience)
				require.NoError(t, err)
				before, err := l.before(t.Context(), issuer.URL(), audience)
				require.NoError(t, err)
				old, only := newServer(t, before), newServer(t, l.after(newGuard(t, issuer, nil)))
				send := func(s *server) int {
					token := issuer.Token(audience, "read:products")
					status, _ := s.send(t, write("GET", "/products", "0", []string{"Authorization: Bearer " + token}), "GET")
					return status
				}
				require.Equal(t, http.StatusOK, send(old))
				require.Equal(t, http.StatusOK, send(only))
				issuer.Rotate("ES384")
				require.Equal(t, l.rotates, send(old) == http.StatusOK)
				require.Equal(t, http.StatusOK, send(only))
			})
		})
	}
}
