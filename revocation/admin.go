package revocation

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth"
)

const maxBodyBytes = 16 << 10

// Handler returns an admin API. The guard lets in whoever meets the rule, always, even
// during a dry run (see [m2mauth.Guard.Enforcing]). Handler panics if the rule cannot be
// used, as [m2mauth.Guard.RequireRule] does.
//
//	GET /       lists the entries: {"entries":[...]}
//	POST /      revokes. The body is an Entry in JSON without id, by, at and webhook,
//	            such as {"client":"...","reason":"..."}; the response is the whole Entry
//	DELETE /ID  undoes an entry; the query parameter reason says why
//
// Entries say that the token's client or user made them. Mount it with [http.StripPrefix].
//
// While the list cannot answer, a guard that asks it refuses these requests too. To be able
// to revoke in that time, give Handler a guard of its own, without Config.Revoked.
func (l *List) Handler(guard *m2mauth.Guard, rule m2mauth.Rule) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", l.serveList)
	mux.HandleFunc("POST /{$}", l.serveRevoke)
	mux.HandleFunc("DELETE /{id}", l.serveUndo)
	return guard.Enforcing().RequireRule(rule)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if caller(r) == "" { // an optional rule
			l.answerError(w, r, http.StatusForbidden, errors.New("a token is required"))
			return
		}
		mux.ServeHTTP(w, r)
	}))
}

func caller(r *http.Request) string {
	claims, _ := m2mauth.FromContext(r.Context())
	return cmp.Or(claims.AppID(), claims.Subject(), claims.ClientID())
}

// answerError answers with what the caller did wrong, or else logs the error.
func (l *List) answerError(w http.ResponseWriter, r *http.Request, status int, err error) {
	text := err.Error()
	switch {
	case errors.Is(err, ErrInvalid):
		status = http.StatusBadRequest
	case errors.Is(err, ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, ErrFull):
		status = http.StatusInsufficientStorage
	}
	if status == http.StatusServiceUnavailable {
		l.options.Logger.ErrorContext(r.Context(), "revocation: a request of the admin API failed", slog.String("method", r.Method), slog.Any("error", err))
		text = "the list's store is not available: try again"
		w.Header().Set("Retry-After", "1")
	}
	answer(w, status, struct {
		Error string `json:"error"`
	}{text})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.MarshalWrite(w, v, jsontext.AllowInvalidUTF8(true)) // an error text may quote what the caller sent
}

func (l *List) serveList(w http.ResponseWriter, r *http.Request) {
	if err := l.serves(time.Now()); err != nil { // an empty list would say that nothing is revoked
		l.answerError(w, r, http.StatusServiceUnavailable, err)
		return
	}
	answer(w, http.StatusOK, struct {
		Entries []Entry `json:"entries"`
	}{l.All()})
}

// revocation is an Entry as the body has it.
type revocation struct {
	Issuers      []string  `json:"issuers"`
	Token        string    `json:"token"`
	Client       string    `json:"client"`
	Subject      string    `json:"subject"`
	Organization string    `json:"organization"`
	All          bool      `json:"all"`
	Before       time.Time `json:"before"`
	Reason       string    `json:"reason"`
}

func (l *List) serveRevoke(w http.ResponseWriter, r *http.Request) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		l.answerError(w, r, http.StatusUnsupportedMediaType, errors.New("the body must be application/json"))
		return
	}
	var v revocation
	if err := json.UnmarshalRead(http.MaxBytesReader(w, r.Body, maxBodyBytes), &v, json.RejectUnknownMembers(true)); err != nil {
		status := http.StatusBadRequest
		if tooLong := new(http.MaxBytesError); errors.As(err, &tooLong) {
			status = http.StatusRequestEntityTooLarge
		}
		l.answerError(w, r, status, fmt.Errorf("the body is not an entry in JSON: %w", err))
		return
	}
	e := Entry{
		Issuers: v.Issuers, Token: v.Token, Client: v.Client, Subject: v.Subject, Organization: v.Organization,
		All: v.All, Before: v.Before, Reason: v.Reason, By: caller(r),
	}
	claims, _ := m2mauth.FromContext(r.Context())
	if e, err := l.prepare(e, time.Now()); err == nil && e.outlaws(claims) {
		l.answerError(w, r, http.StatusConflict, errors.New("this would revoke every token of the caller, who could not undo it: set before, or let somebody else do it"))
		return
	}
	e, err := l.Revoke(r.Context(), e)
	if err != nil {
		l.answerError(w, r, http.StatusServiceUnavailable, err)
		return
	}
	answer(w, http.StatusCreated, e)
}

// outlaws reports whether an entry revokes the token and also those that its caller gets
// later.
func (e *Entry) outlaws(c m2mauth.Claims) bool {
	return e.Before.IsZero() && e.Token == "" && slices.Contains(e.Issuers, c.Issuer()) &&
		(e.Client == "" || e.Client == c.ClientID()) && (e.Subject == "" || e.Subject == c.Subject()) &&
		(e.Organization == "" || e.Organization == c.OrganizationID())
}

func (l *List) serveUndo(w http.ResponseWriter, r *http.Request) {
	if err := l.Undo(r.Context(), r.PathValue("id"), caller(r), r.URL.Query().Get("reason")); err != nil {
		l.answerError(w, r, http.StatusServiceUnavailable, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
