package revocation

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// LogtoOptions configures [LogtoWebhook]. Issuers is required.
type LogtoOptions struct {
	// Issuers are the iss of the tokens that the events concern: the issuers of the Logto
	// tenant that sends them. A tenant with a custom domain has two. Required, at most 8.
	Issuers []string

	// RevokeAllOnRoleEvents revokes all tokens that the Issuers have issued so far when a
	// role or a permission is deleted, or a role may have lost a permission. These events
	// name nobody. Every caller then needs a new token, and for the list's Leeway after the
	// event new tokens are revoked too. Default: such an event is logged at Warn.
	RevokeAllOnRoleEvents bool

	// MembersListed says that Logto is 1.40 or newer, whose events list every member that
	// left. Older versions do not say who left when all members were replaced (PUT): unless
	// MembersListed is set, an event of such a call that lists nobody revokes the tokens of
	// the whole organization. Newer versions send it if nothing changed.
	MembersListed bool
}

const (
	maxDelivery  = 1 << 20
	deliveryTime = 30 * time.Second // to change the list

	// membersCut is where Logto cuts a list of members, silently.
	membersCut = 5000

	// minSigningKey is what HMAC requires in FIPS 140-3 mode and a bit more. Logto's keys
	// have 32 characters.
	minSigningKey = 16
)

// takeAway are the events after which somebody may have fewer permissions, and that do not
// say who.
var takeAway = []string{
	"Role.Deleted", "Role.Scopes.Updated", "Scope.Deleted",
	"OrganizationRole.Deleted", "OrganizationRole.Scopes.Updated", "OrganizationScope.Deleted",
}

// LogtoWebhook returns a handler for Logto's webhooks, whose signing key Logto's console
// shows. It needs no guard: it takes only what the key signs, as the header
// logto-signature-sha-256 says, and reads nothing before it has checked that.
//
//	User.Deleted, User.SuspensionStatus.Updated      revoke the user's tokens
//	Organization.Membership.Updated                  revokes those of the users and applications
//	                                                 that left, for this organization
//	Organization.Deleted                             revokes the organization's tokens
//
// An entry revokes tokens issued before the event's createdAt. If that is missing or cannot
// be read, the minute of receipt takes its place, and it is never more than 10 minutes ahead.
// So the same delivery sent again, by Logto or by anybody who has recorded it, changes
// nothing. No event undoes an entry. Since Logto lists 5,000 members at most, a list of that
// many revokes the tokens of the whole organization.
//
// The handler responds with 204, also to other events; with 5xx to what Logto should send
// again; and with 4xx to what does not come from Logto. Bodies are limited to 1 MiB. What
// needs attention goes to the list's Logger, without bodies and signatures.
//
// The error lists every mistake at once. An empty signing key is one.
func LogtoWebhook(list *List, signingKey string, options LogtoOptions) (http.Handler, error) {
	options.Issuers = slices.Clone(options.Issuers)
	var mistakes []error
	if list == nil {
		mistakes = append(mistakes, errors.New("revocation: LogtoWebhook: the list is nil"))
	}
	if len(signingKey) < minSigningKey || strings.TrimSpace(signingKey) != signingKey {
		mistakes = append(mistakes, errors.New("revocation: LogtoWebhook: the signing key needs at least 16 characters, and no white space around them: Logto's console shows it with the webhook"))
	}
	h := &logtoWebhook{list: list, key: []byte(signingKey), options: options, logged: make(map[string]time.Time)}
	if err := h.checkIssuers(); err != nil {
		mistakes = append(mistakes, fmt.Errorf("revocation: LogtoWebhook: %w", err))
	}
	if len(mistakes) > 0 {
		return nil, errors.Join(mistakes...)
	}
	return h, nil
}

// checkIssuers makes the entry that would be the widest.
func (h *logtoWebhook) checkIssuers() error {
	e := h.complete(Entry{All: true}, "any", time.Now())
	err := e.mistakes() // before prepare, which fills in the list's Issuers
	if err == nil && h.list != nil {
		_, err = h.list.prepare(e, e.Before)
	}
	return err
}

func (h *logtoWebhook) complete(e Entry, event string, before time.Time) Entry {
	e.Issuers, e.Before, e.By, e.Reason, e.Webhook = h.options.Issuers, before, "Logto webhook", event, true
	return e
}

type logtoWebhook struct {
	list    *List
	key     []byte
	options LogtoOptions

	mu     sync.Mutex           // guards the field below
	logged map[string]time.Time // by reason: when a refusal was logged last
}

// refusal is a response to a request that is not from Logto, or cannot be told to be.
type refusal struct {
	status int
	reason string
}

func (h *logtoWebhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, refused := h.read(w, r)
	if refused != nil {
		if h.mayLog(refused.reason) {
			h.list.options.Logger.WarnContext(r.Context(), "revocation: Logto webhook: request refused; logged once a minute for each reason", "reason", refused.reason, "status", refused.status)
		}
		if refused.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		http.Error(w, refused.reason, refused.status)
		return
	}
	// Logto does not send again what it gave up waiting for: finish without it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), deliveryTime)
	defer cancel()
	w.WriteHeader(h.receive(ctx, body))
}

// mayLog is true once a minute for each reason, so that nobody fills the log.
func (h *logtoWebhook) mayLog(reason string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if last, ok := h.logged[reason]; ok && now.Sub(last) < time.Minute {
		return false
	}
	h.logged[reason] = now
	return true
}

// read returns the body if it is signed. What shows in the header that it is not, costs no
// memory.
func (h *logtoWebhook) read(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	if r.Method != http.MethodPost {
		return nil, &refusal{http.StatusMethodNotAllowed, "POST only"}
	}
	for _, coding := range r.Header.Values("Content-Encoding") {
		if !strings.EqualFold(coding, "identity") {
			return nil, &refusal{http.StatusUnsupportedMediaType, "a Content-Encoding"}
		}
	}
	if types := r.Header.Values("Content-Type"); len(types) != 1 || !isJSON(types[0]) {
		return nil, &refusal{http.StatusUnsupportedMediaType, "Content-Type is not application/json"}
	}
	signatures := r.Header.Values("Logto-Signature-Sha-256")
	if len(signatures) != 1 || len(signatures[0]) != hex.EncodedLen(sha256.Size) {
		return nil, &refusal{http.StatusForbidden, "no signature"}
	}
	signature, err := hex.DecodeString(signatures[0])
	if err != nil {
		return nil, &refusal{http.StatusForbidden, "no signature"}
	}
	if r.ContentLength > maxDelivery {
		return nil, &refusal{http.StatusRequestEntityTooLarge, "a body over 1 MiB"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDelivery))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, &refusal{http.StatusRequestEntityTooLarge, "a body over 1 MiB"}
	} else if err != nil {
		return nil, &refusal{http.StatusBadRequest, "the body ends early"}
	}
	mac := hmac.New(sha256.New, h.key)
	mac.Write(body)
	if !hmac.Equal(mac.Sum(nil), signature) {
		return nil, &refusal{http.StatusForbidden, "the signature is not of this body with this key"}
	}
	return body, nil
}

func isJSON(contentType string) bool {
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && mediaType == "application/json"
}

// delivery is what a body says. Members that nobody here needs, such as a user's custom
// data, may be anything, but like all of the body without duplicate names.
type delivery struct {
	Event          string  `json:"event"`
	CreatedAt      text    `json:"createdAt"`
	Path           text    `json:"path"`
	Method         text    `json:"method"`
	MatchedRoute   text    `json:"matchedRoute"`
	Params         subject `json:"params"`
	Data           subject `json:"data"`
	OrganizationID text    `json:"organizationId"`
	AddedUsers     members `json:"addedUserIds"`
	RemovedUsers   members `json:"removedUserIds"`
	AddedApps      members `json:"addedApplicationIds"`
	RemovedApps    members `json:"removedApplicationIds"`
}

// text is a string, or "" for any other value.
type text string

func (t *text) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) == nil {
		*t = text(s)
	}
	return nil
}

// subject is whom an event is about. Any value but an object names nobody.
type subject struct {
	ID            text `json:"id"`
	UserID        text `json:"userId"`
	ApplicationID text `json:"applicationId"`
	IsSuspended   any  `json:"isSuspended"`
}

func (s *subject) UnmarshalJSON(data []byte) error {
	type plain subject
	var p plain
	if json.Unmarshal(data, &p) == nil {
		*s = subject(p)
	}
	return nil
}

// members is a list of IDs. Logto leaves an empty one out.
type members struct {
	ids     []string
	there   bool
	partial bool // not all are known
}

func (m *members) UnmarshalJSON(data []byte) error {
	m.there = true
	if json.Unmarshal(data, &m.ids) != nil || m.ids == nil || slices.Contains(m.ids, "") || len(m.ids) >= membersCut {
		m.partial = true
	}
	return nil
}

// receive acts on a signed body and returns the status of the response.
func (h *logtoWebhook) receive(ctx context.Context, body []byte) int {
	var d delivery
	if err := json.Unmarshal(body, &d); err != nil || d.Event == "" {
		h.list.options.Logger.ErrorContext(ctx, "revocation: Logto webhook: a signed body cannot be read: nothing was revoked")
		return http.StatusInternalServerError
	}
	entries, ok := h.entries(ctx, &d)
	if !ok {
		h.list.options.Logger.ErrorContext(ctx, "revocation: Logto webhook: an event names nobody although it should: nothing was revoked", "event", d.Event)
		return http.StatusInternalServerError
	}
	if len(entries) == 0 {
		return http.StatusNoContent
	}
	before := h.before(ctx, &d)
	for i, e := range entries {
		entries[i] = h.complete(e, d.Event, before)
	}
	return h.revoke(ctx, d.Event, entries)
}

// entries returns what an event revokes. ok is false for an event that should name
// somebody and does not.
func (h *logtoWebhook) entries(ctx context.Context, d *delivery) (entries []Entry, ok bool) {
	known := slices.Contains([]string{"User.Deleted", "User.SuspensionStatus.Updated", "Organization.Membership.Updated", "Organization.Deleted"}, d.Event)
	if !known && !slices.Contains(takeAway, d.Event) {
		return nil, true
	}
	if d.Path == "/fake-path/:id" {
		h.list.options.Logger.InfoContext(ctx, "revocation: Logto webhook: a test payload came, and its signature is right", "event", d.Event)
		return nil, true
	}
	switch d.Event {
	case "User.SuspensionStatus.Updated":
		// What is not clearly a reactivation counts as a suspension.
		if d.Data.IsSuspended == false {
			return nil, true
		}
		fallthrough
	case "User.Deleted":
		// Until June 2024, data of a deletion was null.
		user := string(cmp.Or(d.Data.ID, d.Params.UserID))
		return []Entry{{Subject: user}}, user != ""
	case "Organization.Deleted":
		return []Entry{{Organization: string(d.Params.ID)}}, d.Params.ID != ""
	case "Organization.Membership.Updated":
		if d.OrganizationID == "" {
			return nil, false
		}
		return h.left(ctx, d), true
	}
	// POST adds permissions to a role.
	if strings.HasSuffix(d.Event, ".Scopes.Updated") && d.Method == http.MethodPost {
		return nil, true
	}
	if !h.options.RevokeAllOnRoleEvents {
		h.list.options.Logger.WarnContext(ctx, "revocation: Logto webhook: permissions were taken away, and the event does not say from whom: tokens keep theirs until they expire", "event", d.Event)
		return nil, true
	}
	h.list.options.Logger.WarnContext(ctx, "revocation: Logto webhook: permissions were taken away, and the event does not say from whom: all tokens of the issuers are revoked", "event", d.Event)
	return []Entry{{All: true}}, true
}

// left returns entries for those who left an organization, or for all of it if it is not
// known who did.
func (h *logtoWebhook) left(ctx context.Context, d *delivery) (entries []Entry) {
	organization := string(d.OrganizationID)
	switch {
	case d.RemovedUsers.partial || d.RemovedApps.partial:
	case d.RemovedUsers.there || d.RemovedApps.there:
		for _, id := range d.RemovedUsers.ids {
			entries = append(entries, Entry{Organization: organization, Subject: id})
		}
		for _, id := range d.RemovedApps.ids {
			entries = append(entries, Entry{Organization: organization, Client: id})
		}
		return entries
	case d.AddedUsers.there || d.AddedApps.there, d.Method == "", d.Method == http.MethodPost, d.MatchedRoute == "/organization-invitations/:id/status":
		return nil // some joined, nobody left
	// Versions before 1.40 have no lists. The path names who was removed.
	case d.Method == http.MethodDelete && d.Params.UserID != "":
		return []Entry{{Organization: organization, Subject: string(d.Params.UserID)}}
	case d.Method == http.MethodDelete && d.Params.ApplicationID != "":
		return []Entry{{Organization: organization, Client: string(d.Params.ApplicationID)}}
	case h.options.MembersListed && d.Method != http.MethodDelete:
		return nil
	}
	h.list.options.Logger.WarnContext(ctx, "revocation: Logto webhook: not all who left an organization are known: the tokens of all of it are revoked", "event", d.Event)
	return []Entry{{Organization: organization}}
}

// before returns the time of the event. If it does not say when it happened, more is
// revoked rather than less. Whole minutes keep whoever sends a recorded delivery again and
// again from filling the list.
func (h *logtoWebhook) before(ctx context.Context, d *delivery) time.Time {
	now := time.Now()
	at, err := time.Parse(time.RFC3339, string(d.CreatedAt))
	if err != nil {
		h.list.options.Logger.ErrorContext(ctx, "revocation: Logto webhook: an event does not say when it happened: the time of receipt counts", "event", d.Event)
		return now.Add(time.Minute).Truncate(time.Minute)
	}
	if latest := now.Add(maxAhead); at.After(latest) {
		h.list.options.Logger.ErrorContext(ctx, "revocation: Logto webhook: an event is more than 10 minutes ahead: clocks differ", "event", d.Event)
		return latest.Truncate(time.Minute)
	}
	// No list holds what is older. The year one may be a mistake, but revokes nothing.
	if earliest := now.AddDate(-2, 0, 0); at.Before(earliest) {
		return earliest
	}
	return at
}

// revoke adds the entries, many at a time, since a store takes a while to keep each. One
// that the list cannot hold keeps no other from it.
func (h *logtoWebhook) revoke(ctx context.Context, event string, entries []Entry) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		mu     sync.Mutex // guards the fields below
		status = http.StatusNoContent
		first  error
		failed int
	)
	jobs := make(chan Entry)
	var workers sync.WaitGroup
	for range min(len(entries), 16) {
		workers.Go(func() {
			for e := range jobs {
				_, err := h.list.Revoke(ctx, e)
				if err == nil {
					continue
				}
				mu.Lock()
				failed++
				first = cmp.Or(first, err)
				if errors.Is(err, ErrInvalid) {
					status = max(status, http.StatusInternalServerError)
				} else {
					status = http.StatusServiceUnavailable
					cancel() // the next would fare no better
				}
				mu.Unlock()
			}
		})
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			break
		}
		jobs <- e
	}
	close(jobs)
	workers.Wait()
	if first != nil {
		h.list.options.Logger.ErrorContext(ctx, "revocation: Logto webhook: the list did not take all that an event revokes", "event", event, "entries", len(entries), "failed", failed, "error", first)
	}
	return status
}
