// Package keyset gets an issuer's published keys: it finds where they are, downloads
// them within limits, reads them, and merges them with the previous ones. The caller
// decides when to fetch, how long a set serves, and what to log about it.
package keyset

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/strictjson"
)

const maxKeys = 1000

// Set is one key set. It is immutable: [Source.Fetch] makes a new one.
type Set struct {
	Found
	Keys     []*jose.Key            // without unusable keys whose kid cannot be read
	ByID     map[string][]*jose.Key // the keys that have a kid
	Oddities []Oddity
	MaxAge   time.Duration // of Cache-Control; 0 if there was none that can be used

	url, etag string // what If-None-Match may be sent for
}

// Found is what a fetch found out on its way to the keys. A fetch that fails has it in
// its [Error].
type Found struct {
	Discovered bool   // a discovery document was read and said where the keys are
	HTTPKeys   string // the http jwks_uri of the document, without its query; the keys are fetched over https
	NotReread  error  // why the document could not be read again; its last jwks_uri is used
}

// Address says where the keys come from. It has no query, since that may contain a
// secret. It is "" for a set that was not fetched.
func (s *Set) Address() string { return withoutQueries(s.url) }

// Find returns the only key that fits the algorithm, among those with the kid, or among
// all if the token names none. refetch says that a newer set might have one.
func (s *Set) Find(kid string, hasKID bool, alg string) (key *jose.Key, refetch bool) {
	candidates := s.Keys
	if hasKID {
		candidates = s.ByID[kid]
		refetch = len(candidates) == 0
	}
	for _, k := range candidates {
		if k.Algorithm() != alg {
			continue
		}
		if key != nil && !key.Same(k) {
			return nil, false // ambiguous
		}
		key = cmp.Or(key, k)
	}
	return key, refetch
}

// Oddity is something about an accepted key set that an operator may want to know.
type Oddity struct {
	Kind   OddityKind
	Reason string
	ID     string // distinguishes it from others; the same in the next set
}

// OddityKind says what is odd.
type OddityKind int

// The kinds of oddities.
const (
	Unusable      OddityKind = iota // a key cannot be used
	ForEncryption                   // unusable too, but many issuers have one and nothing is wrong with it
	Ambiguous                       // different keys exclude each other, since a token cannot name just one of them
)

// Parse reads a key set (RFC 7517 §5). It leaves out unusable keys and reports them in
// Oddities, so that a new kind of key does not spoil the others, but their IDs stay
// known. It rejects a set without any usable key. If old is not nil, keys that are also
// in old are taken from there, so that tokens that they verified stay cached.
func Parse(body []byte, rsaAlgorithm string, old *Set) (*Set, error) {
	set, total := &Set{ByID: make(map[string][]*jose.Key)}, 0
	read := func(raw jsontext.Value) error {
		if total++; total > maxKeys {
			return fmt.Errorf("more than %d keys", maxKeys)
		}
		key, err := jose.ParseKey(raw, rsaAlgorithm)
		if err != nil {
			set.Oddities = append(set.Oddities, unusableKey(key, raw, err))
		}
		if key == nil || slices.ContainsFunc(set.Keys, key.Equal) { // a duplicate key counts once
			return nil
		}
		if old != nil {
			if same := slices.IndexFunc(old.Keys, key.Equal); same >= 0 {
				key = old.Keys[same]
			}
		}
		set.Keys = append(set.Keys, key)
		if id, ok := key.ID(); ok {
			set.ByID[id] = append(set.ByID[id], key)
		}
		return nil
	}
	list, err := keysOf(body)
	if err == nil {
		err = strictjson.Array(list, read, strictjson.Lenient...)
	}
	if err != nil {
		return nil, errors.New("not a JSON Web Key Set: " + err.Error())
	}
	if len(set.Oddities) == total {
		first := append(set.Oddities, Oddity{Reason: "none"})[0]
		return nil, fmt.Errorf("the key set has no usable key: of %d, the first: %s", total, first.Reason)
	}
	set.Oddities = append(set.Oddities, ambiguous(set.Keys)...)
	return set, nil
}

// keysOf returns the only member keys of a key set.
func keysOf(body []byte) (list jsontext.Value, err error) {
	body = bytes.TrimPrefix(body, []byte("\ufeff")) // RFC 8259 §8.1 lets readers skip it
	err = strictjson.Object(body, func(name []byte, value jsontext.Value) error {
		if string(name) != "keys" {
			return nil
		}
		if list != nil {
			return errors.New("two members named keys")
		}
		list = value
		return nil
	}, strictjson.Lenient...)
	if err == nil && list == nil {
		err = errors.New("no member keys; a single key is put as {\"keys\":[…]}")
	}
	return list, err
}

func unusableKey(key *jose.Key, raw jsontext.Value, err error) Oddity {
	o := Oddity{Kind: Unusable, Reason: err.Error()}
	if errors.Is(err, jose.ErrEncryption) {
		o.Kind = ForEncryption
	}
	if key != nil {
		id, _ := key.ID()
		o.Reason = fmt.Sprintf("kid %q: %s", Loggable(id), o.Reason)
	}
	form := raw.Clone() // in which the order of members does not matter
	if form.Canonicalize() != nil {
		form = raw
	}
	o.ID = fmt.Sprintf("%s %x", o.Reason, sha256.Sum256(form))
	return o
}

// ambiguous finds keys that exclude each other.
func ambiguous(keys []*jose.Key) (odd []Oddity) {
	counts := make(map[string]int)
	for _, key := range keys {
		name, shown := "no kid", "no kid"
		if id, ok := key.ID(); ok {
			name, shown = strconv.Quote(id), fmt.Sprintf("kid %q", Loggable(id))
		}
		name, shown = name+key.Algorithm(), shown+", alg "+key.Algorithm()
		if counts[name]++; counts[name] == 2 && key.Problem() == nil {
			odd = append(odd, Oddity{Kind: Ambiguous, Reason: shown, ID: shown})
		}
	}
	return odd
}

// Loggable makes a stranger's string safe for a log: short, and without control
// characters that a handler might write as they are.
func Loggable(s string) string {
	const limit = 200
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return strconv.QuoteToASCII(s)
		}
	}
	return s
}
