package revocation

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

// Entry revokes tokens of one or several issuers: one token, those of a client, of a
// subject, of an organization or of a member of it, or all. Values are compared with the
// token's byte by byte.
type Entry struct {
	// ID is given by [List.Revoke]. [List.Undo] takes it.
	ID string `json:"id"`

	// Issuers are the iss of the tokens, at most 8. A Logto tenant with a custom domain
	// has two. Default: Options.Issuers, and without them required.
	Issuers []string `json:"issuers"`

	// Exactly one of these selects the tokens. The exception is Organization together with
	// Client or with Subject: a member of the organization, by its tokens for it.

	Token        string `json:"token,omitzero"`        // jti
	Client       string `json:"client,omitzero"`       // client_id, or what Config.ClientClaims names
	Subject      string `json:"subject,omitzero"`      // sub
	Organization string `json:"organization,omitzero"` // see Claims.OrganizationID
	All          bool   `json:"all,omitzero"`          // all tokens of the issuers

	// Before limits the entry to tokens issued before this time, and ends it once no such
	// token can be alive. At most 10 minutes ahead. Default: the entry revokes all of these
	// tokens, also those issued later, until [List.Undo]. That is what a leaked client
	// secret needs.
	Before time.Time `json:"before,omitzero"`

	// By says who revokes, such as a user's ID, and Reason why. By is required.
	By     string `json:"by"`
	Reason string `json:"reason,omitzero"`

	// At is when the entry was made. Revoke fills it in.
	At time.Time `json:"at"`

	// Webhook marks an entry that no person made. Before is then required. Its ID follows
	// from what it revokes, so that the same delivery twice is one entry.
	Webhook bool `json:"webhook,omitzero"`
}

const (
	maxIssuers     = 8
	maxValueBytes  = 2048 // a client's ID may be a URL of that length (Client ID Metadata Documents)
	maxReasonBytes = 1024
	maxRecordBytes = 8192 // such a client's, of eight issuers whose names are long too

	maxAhead = 10 * time.Minute // of Before
	// endMargin is how long an entry outlives the last token that it can concern, for
	// clocks that differ and a guard's Leeway.
	endMargin = 10 * time.Minute
)

// Years in which a time of an entry may be, so that nanoseconds fit into an int64.
const firstYear, lastYear = 1970, 2200

func usableTime(t time.Time) bool { return t.Year() >= firstYear && t.Year() <= lastYear }

// mistakes returns an error that names what is wrong with an entry, wherever it is from.
func (e *Entry) mistakes() error {
	var list []error
	add := func(format string, args ...any) { list = append(list, fmt.Errorf(format, args...)) }
	switch n := len(e.Issuers); {
	case n == 0:
		add("Issuers: at least one is required")
	case n > maxIssuers:
		add("Issuers: %d are more than %d", n, maxIssuers)
	}
	for i, issuer := range e.Issuers {
		if issuer == "" {
			add("Issuers: one is empty")
		}
		if slices.Contains(e.Issuers[:i], issuer) {
			add("Issuers: one is named twice")
		}
		list = append(list, textMistake("Issuers", issuer, maxValueBytes))
	}
	var selectors []string
	for _, s := range []struct{ name, value string }{{"Token", e.Token}, {"Client", e.Client}, {"Subject", e.Subject}, {"Organization", e.Organization}} {
		if s.value != "" {
			selectors = append(selectors, s.name)
		}
		list = append(list, textMistake(s.name, s.value, maxValueBytes))
	}
	if e.All {
		selectors = append(selectors, "All")
	}
	switch strings.Join(selectors, " ") {
	case "":
		add("it selects no tokens: set Token, Client, Subject, Organization or All")
	case "Token", "Client", "Subject", "Organization", "All", "Client Organization", "Subject Organization":
	default:
		add("%s together: set one, or Organization with Client or with Subject", strings.Join(selectors, ", "))
	}
	switch {
	case e.Before.IsZero() && e.Webhook:
		add("Before: required for a webhook's entry")
	case !e.Before.IsZero() && !usableTime(e.Before):
		add("Before: the year %d is not from %d to %d", e.Before.Year(), firstYear, lastYear)
	}
	if e.By == "" {
		add("By: required")
	}
	list = append(list, textMistake("By", e.By, maxValueBytes), textMistake("Reason", e.Reason, maxReasonBytes))
	if err := errors.Join(list...); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// textMistake bounds what a list keeps, and keeps control characters out of logs.
func textMistake(name, value string, limit int) error {
	switch {
	case len(value) > limit:
		return fmt.Errorf("%s: %d bytes are more than %d", name, len(value), limit)
	case !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl):
		return fmt.Errorf("%s: not UTF-8 text, or with control characters", name)
	}
	return nil
}

// prepare checks an entry for Revoke, and fills in ID, At and Issuers.
func (l *List) prepare(e Entry, now time.Time) (Entry, error) {
	if len(e.Issuers) == 0 {
		e.Issuers = l.options.Issuers
	}
	e.Issuers = slices.Sorted(slices.Values(e.Issuers)) // a copy, and one spelling
	e.At = now.UTC().Round(0)
	if !e.Before.IsZero() {
		e.Before = e.Before.UTC().Round(0)
	}
	err := e.mistakes()
	if len(l.options.Issuers) > 0 {
		for _, issuer := range e.Issuers {
			if !slices.Contains(l.options.Issuers, issuer) {
				err = errors.Join(err, fmt.Errorf("%w: Issuers: one is not among Options.Issuers, and so would block nothing", ErrInvalid))
			}
		}
	}
	if e.Before.After(now.Add(maxAhead)) {
		err = errors.Join(err, fmt.Errorf("%w: Before: more than %v ahead", ErrInvalid, maxAhead))
	}
	if err != nil {
		return Entry{}, err
	}
	if e.ID = newID(); e.Webhook {
		// The length of each part keeps two deliveries from looking the same.
		sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %v %d", e.Issuers, e.Token, e.Client, e.Subject, e.Organization, e.All, e.Before.UnixNano()))
		e.ID = base32.StdEncoding.EncodeToString(sum[:20])
	}
	return e, nil
}

// newID returns an ID that no other replica gives. It need not be a secret.
func newID() string { return fmt.Sprintf("%016X%016X", rand.Uint64(), rand.Uint64()) }

// record is what a [Store] holds, as JSON: one of these.
type record struct {
	Genesis *genesis `json:"genesis,omitzero"`
	Entry   *Entry   `json:"entry,omitzero"`
	Undo    *undo    `json:"undo,omitzero"`
}

// genesis says that a store was set up. Without one, an empty store has lost everything.
type genesis struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

func (g genesis) olderThan(other genesis) bool { return g.At.Before(other.At) }

// undo ends the entry with the ID for good, wherever in the log it is.
type undo struct {
	ID     string    `json:"id"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitzero"`
	At     time.Time `json:"at"`
}

func (u *undo) mistakes() error {
	err := errors.Join(textMistake("by", u.By, maxValueBytes), textMistake("reason", u.Reason, maxReasonBytes))
	if u.By == "" {
		err = errors.Join(err, errors.New("by: required"))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func encode(r record) ([]byte, error) {
	data, err := json.Marshal(r)
	if err == nil && len(data) > maxRecordBytes {
		err = fmt.Errorf("%w: %d bytes in all are more than %d", ErrInvalid, len(data), maxRecordBytes)
	}
	return data, err
}

// decode reads a record of the store strictly: one that a replica does not understand may
// revoke something, so it must not be passed over.
func decode(data []byte) (r record, err error) {
	if len(data) > maxRecordBytes {
		return record{}, errors.New("a record is too long")
	}
	if err := json.Unmarshal(data, &r, json.RejectUnknownMembers(true)); err != nil {
		return record{}, errors.New("a record is not JSON as this version knows it") // without what it says
	}
	var id string
	var at time.Time
	switch {
	case r.Genesis != nil && r.Entry == nil && r.Undo == nil:
		id, at = r.Genesis.ID, r.Genesis.At
	case r.Entry != nil && r.Genesis == nil && r.Undo == nil:
		id, at, err = r.Entry.ID, r.Entry.At, r.Entry.mistakes()
	case r.Undo != nil && r.Genesis == nil && r.Entry == nil:
		id, at, err = r.Undo.ID, r.Undo.At, r.Undo.mistakes()
	default:
		return record{}, errors.New("a record is none of genesis, entry and undo, or more than one")
	}
	if err == nil && (id == "" || len(id) > 64 || !usableTime(at)) {
		err = errors.New("a record has no usable id or time")
	}
	if err != nil {
		return record{}, err
	}
	return r, nil
}
