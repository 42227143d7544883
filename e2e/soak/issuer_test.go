package soak

import (
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// keyTTL is what the issuer lets its key set be cached for: the least that
// m2mauth believes.
const keyTTL = time.Minute

// key is a signing key of the issuer. It is in the versions [from, until) of the
// key set.
type key struct {
	id, alg string
	from    int64
	until   atomic.Int64 // MaxInt64 while it is published
	born    time.Time
	shown   time.Time // when a token of it was first accepted; guarded by issuer.truth
}

// issuer is an m2mauthtest.Issuer that can stop, return and answer rubbish, and
// that knows what the shop can know of its keys. Each change of the key set has a
// number, its version:
//
//	served  the newest version that was sent to the shop: it has none that is newer
//	proven  a version that the shop has, or a newer one, since it accepted a token
//	        of a key that came with that version
//
// The shop makes one fetch at a time, so what it has never becomes older.
type issuer struct {
	*m2mauthtest.Issuer
	address string
	server  *http.Server // nil while nothing listens; the conductor's alone

	mu      sync.RWMutex // held for reading while a document is made, for writing while what it shows changes
	version int64
	keys    []*key       // all that ever were, oldest first
	fault   http.Handler // answers instead; nil = none
	badDocs int          // answers while a fault was on

	served atomic.Int64

	truth  sync.Mutex // guards the fields below
	proven int64
	// troubles are the times in which the shop could fail to get keys: from the
	// beginning of a fault until it has proven a key that is newer than that.
	troubles    spans
	faultAt     int64     // version at the beginning of the last fault
	faultName   string    // "" = none is on
	healthy     time.Time // end of the last fault; zero while one is on
	unavailable time.Time // first answer in this fault that keys cannot be had
}

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	kit, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	// Its name stays; from here on a server that can be stopped and started
	// listens in its place.
	kit.Close()
	u, err := url.Parse(kit.URL())
	require.NoError(t, err)
	i := &issuer{Issuer: kit, address: u.Host, healthy: time.Now()}
	kit.Intercept(i.intercept)
	t.Cleanup(i.hangUp)
	i.rotate("ES256")
	i.listen(t)
	return i
}

func (i *issuer) intercept(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault, document := i.document(next, r)
		if fault != nil {
			fault.ServeHTTP(w, r)
			return
		}
		for name, values := range document.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(document.Code)
		_, _ = w.Write(document.Body.Bytes())
	})
}

// document returns the fault that is on, or the issuer's answer.
func (i *issuer) document(next http.Handler, r *http.Request) (http.Handler, *httptest.ResponseRecorder) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if i.fault != nil {
		return i.fault, nil
	}
	document := httptest.NewRecorder()
	next.ServeHTTP(document, r)
	if r.URL.String() == "/oidc/jwks" {
		document.Header().Set("Cache-Control", "max-age="+strconv.Itoa(int(keyTTL/time.Second)))
		i.served.Store(max(i.served.Load(), i.version)) // the version cannot change meanwhile
	}
	return nil, document
}

func (i *issuer) listen(t *testing.T) {
	t.Helper()
	var listener net.Listener
	require.Eventually(t, func() (ok bool) { // a connection of somebody may have the port for a moment
		var err error
		listener, err = net.Listen("tcp", i.address)
		return err == nil
	}, 30*time.Second, 50*time.Millisecond)
	i.server = &http.Server{Handler: i.Issuer, ReadHeaderTimeout: 10 * time.Second}
	go func(s *http.Server) { _ = s.Serve(listener) }(i.server) // ends with ErrServerClosed
}

func (i *issuer) hangUp() {
	if i.server != nil {
		i.server.Close()
		i.server = nil
	}
}

// change changes the key set and notes which keys came and went.
func (i *issuer) change(alg string, f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.version++
	f()
	published := i.KeyIDs()
	for _, k := range i.keys {
		if at := slices.Index(published, k.id); at >= 0 {
			published = slices.Delete(published, at, at+1)
		} else if k.until.Load() == math.MaxInt64 {
			k.until.Store(i.version)
		}
	}
	for _, id := range published {
		k := &key{id: id, alg: alg, from: i.version, born: time.Now()}
		k.until.Store(math.MaxInt64)
		i.keys = append(i.keys, k)
	}
}

// rotate makes a new key sign. The one before stays published, the one before
// that goes.
func (i *issuer) rotate(alg string) { i.change(alg, func() { i.Rotate(alg) }) }

// withdraw takes the previous key out of the key set.
func (i *issuer) withdraw() {
	i.change("", func() {
		if ids := i.KeyIDs(); len(ids) > 1 {
			i.Withdraw(ids[1])
		}
	})
}

// newest returns the key that signs now.
func (i *issuer) newest() *key {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.keys[len(i.keys)-1]
}

// good returns the newest key that the shop knows, and has to know until the next
// key set that it gets.
func (i *issuer) good() *key {
	i.truth.Lock()
	proven := i.proven
	i.truth.Unlock()
	i.mu.RLock()
	defer i.mu.RUnlock()
	for _, k := range slices.Backward(i.keys) {
		if k.from <= proven {
			return k
		}
	}
	return i.keys[0]
}

// gone returns up to n keys that were published once, the latest first.
func (i *issuer) gone(n int) (gone []*key) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	for _, k := range slices.Backward(i.keys) {
		if k.until.Load() <= i.version && len(gone) < n {
			gone = append(gone, k)
		}
	}
	return gone
}

// accepted notes that the shop has accepted a token of the key.
func (i *issuer) accepted(k *key) {
	i.truth.Lock()
	defer i.truth.Unlock()
	i.proven = max(i.proven, k.from)
	if k.shown.IsZero() {
		k.shown = time.Now()
	}
	if i.faultName == "" && k.from > i.faultAt {
		i.troubles.end()
	}
}

// couldNotFetch notes an answer that keys cannot be had.
func (i *issuer) couldNotFetch() {
	i.truth.Lock()
	defer i.truth.Unlock()
	if i.faultName != "" && i.unavailable.IsZero() {
		i.unavailable = time.Now()
	}
}

// fail begins a fault, and rotates, so that there is a key that the shop cannot know.
func (i *issuer) fail(name, alg string) {
	i.truth.Lock()
	i.mu.Lock()
	i.faultAt, i.faultName, i.healthy, i.unavailable = i.version, name, time.Time{}, time.Time{}
	i.troubles.begin()
	i.fault = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		i.badDocs++
		i.mu.Unlock()
		faults[name](w, r)
	})
	i.mu.Unlock()
	i.truth.Unlock()
	if name == refused {
		i.hangUp()
	}
	i.rotate(alg)
}

// recover ends the fault.
func (i *issuer) recover(t *testing.T) {
	t.Helper()
	i.truth.Lock()
	i.mu.Lock()
	i.fault = nil
	i.faultName, i.healthy = "", time.Now()
	i.mu.Unlock()
	i.truth.Unlock()
	if i.server == nil {
		i.listen(t)
		i.truth.Lock()
		i.healthy = time.Now()
		i.truth.Unlock()
	}
}

const refused = "nothing listens"

// faults are the ways in which an issuer fails.
var faults = map[string]http.HandlerFunc{
	refused: nil,
	"hangs": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	"internal error": func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "down for maintenance", http.StatusInternalServerError)
	},
	"an HTML page": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<!doctype html><title>Welcome</title>")
	},
	"half of the answer": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"keys":[{"kty":"EC",`)
	},
	"an empty key set":      func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) },
	"breaks the connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	"redirects to a stranger": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
	},
	"never ends": func(w http.ResponseWriter, r *http.Request) {
		drip := time.NewTicker(50 * time.Millisecond)
		defer drip.Stop()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-drip.C:
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
			}
		}
	},
}

// spans are times in which something was so.
type spans struct {
	mu  sync.Mutex // guards the fields below
	all []span
}

type span struct{ begin, end time.Time } // end is zero while it lasts

// begin begins a span, unless one lasts.
func (s *spans) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.all); n == 0 || !s.all[n-1].end.IsZero() {
		s.all = append(s.all, span{begin: time.Now()})
	}
}

// end ends the span that lasts, if there is one.
func (s *spans) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.all); n > 0 && s.all[n-1].end.IsZero() {
		s.all[n-1].end = time.Now()
	}
}

func (s *spans) overlap(from, to time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.all, func(x span) bool {
		return !x.begin.After(to) && (x.end.IsZero() || !x.end.Before(from))
	})
}
