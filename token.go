package m2mauth

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth/internal/admission"
	"github.com/m2mauth/m2mauth/internal/ascii"
	"github.com/m2mauth/m2mauth/internal/claim"
	"github.com/m2mauth/m2mauth/internal/hint"
	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/keyset"
)

// token is a token that has been read. Once its key is set and its signature checked,
// it may be cached. What only the check needed is dropped then.
type token struct {
	issuer *issuer
	claims *claimSet
	header jose.Header // its algorithm by the name that internal/jose uses
	key    *jose.Key   // verified the signature
}

// verify checks everything about a token except what a route requires. A cached token
// is recalled. For any other, cheap checks come first and the key last, so that an
// invalid token causes no fetch and no signature check.
func (g *Guard) verify(ctx context.Context, raw string, r Request, dry bool) (t *token, remembered bool, e *Error) {
	if len(raw) > g.maxTokenBytes {
		return nil, false, newError(ErrRequest, fmt.Sprintf("the access token is longer than %s", inBytes(g.maxTokenBytes)), slog.Int("bytes", len(raw)))
	}
	now := time.Now()
	if t, remembered = g.tokens.Get(raw); remembered {
		switch good, e := g.recall(ctx, t, raw, r, now, dry); {
		case e != nil:
			return nil, true, e
		case good:
			return t, true, nil
		}
	}
	if t, e = g.verifyNew(ctx, raw, r, now, dry); e != nil {
		return nil, false, e
	}
	return t, false, nil
}

// verifyNew verifies a token that is not remembered, and remembers it.
func (g *Guard) verifyNew(ctx context.Context, raw string, r Request, now time.Time, dry bool) (*token, *Error) {
	if r != nil && !ascii.IsToken68(raw) {
		return nil, notOneToken()
	}
	i, e := g.issuerOf(raw)
	if e != nil {
		return nil, e
	}
	t, signature, e := i.read(raw, now)
	if e != nil {
		return nil, e
	}
	source := func() string { return g.source(r) }
	if t.key, _, e = i.keys.find(ctx, now, g.waitsFor(raw, dry), t.header.KeyID, t.header.HasKeyID, t.header.Algorithm, source); e != nil {
		return nil, e
	}
	if dry { // by the context, so that the check passes to callers that can wait
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, maxReportOnlyWait, errUndecided)
		defer cancel()
	}
	var from string // the request's group, once QueueKey was called
	kept := false
	verified, err := g.admission.Do(ctx, checkKey{raw, t.key}, admission.Check{
		Bytes:    len(raw),
		Source:   func() string { from = g.source(r); return from },
		Deadline: time.Now().Add(maxQueueTime),
		Known:    func() bool { return g.has(raw, t.key) }, // verified after our look-up
		Run: func() bool {
			if t.key.Verify(bytesOf(t.claims.signed), signature) != nil {
				return false
			}
			g.keep(raw, t)
			kept = true
			return true
		},
	})
	if err != nil {
		return nil, notAdmitted(ctx, err, from)
	}
	if !verified {
		return nil, newError(ErrSignature, "the token's signature is wrong",
			slog.String("alg", t.header.Algorithm), slog.String("kid", keyset.Loggable(t.header.KeyID)))
	}
	if !kept { // another request ran the check
		t.forget(raw)
	}
	// We may have waited for the key and for a place in the queue.
	if e := i.claims.checkTimes(t.claims, time.Now()); e != nil {
		return nil, e
	}
	return t, nil
}

// checkKey identifies a check: a token and a key.
type checkKey struct {
	raw string
	key *jose.Key
}

// maxQueueTime limits how long a new token waits for its signature check.
const maxQueueTime = 2 * time.Second

// notAdmitted makes an error for one caller, whose token was not verified, from the
// error that all callers get.
func notAdmitted(ctx context.Context, err error, source string) *Error {
	kind, attrs := ErrUnavailable, []slog.Attr(nil)
	switch err {
	case admission.ErrOverShare:
		kind, attrs, err = ErrBusy, []slog.Attr{slog.String("source", keyset.Loggable(source))}, nil
	case admission.ErrGone:
		if err = context.Cause(ctx); err != errUndecided {
			err = gone{err}
		}
	}
	e := newError(kind, "too many new tokens are being verified: try again later", attrs...)
	e.RetryAfter = time.Second
	if e.cause = err; err != nil {
		e.counted = countedAs(err)
	}
	return e
}

// waitsFor is what a request holds that waits for keys with a token, unless a dry run
// lets it pass.
func (g *Guard) waitsFor(raw string, dry bool) held { return held{g.waitingBytes, len(raw), dry} }

// recall makes those checks of a remembered token again that depend on the clock
// and on the keys. If it is neither good nor an error, the token is as one never
// seen: its key has been replaced under its key ID.
func (g *Guard) recall(ctx context.Context, t *token, raw string, r Request, now time.Time, dry bool) (good bool, e *Error) {
	if e := t.issuer.claims.checkTimes(t.claims, now); e != nil {
		return false, e
	}
	source := func() string { return g.source(r) }
	key, waited, e := t.issuer.keys.find(ctx, now, g.waitsFor(raw, dry), t.header.KeyID, t.header.HasKeyID, t.header.Algorithm, source)
	if e == nil && waited {
		e = t.issuer.claims.checkTimes(t.claims, time.Now())
	}
	return e == nil && key == t.key, e
}

// issuerOf returns the issuer that a token claims to be of.
func (g *Guard) issuerOf(raw string) (*issuer, *Error) {
	if len(g.issuers) == 1 {
		return g.issuers[0], nil
	}
	signed, _, err := jose.Split(raw)
	if err != nil {
		return nil, unacceptable(err)
	}
	payload, err := jose.DecodePayload(signed)
	if err != nil {
		return nil, unacceptable(err)
	}
	name, err := claim.Issuer(payload)
	if err != nil {
		return nil, unacceptable(err)
	}
	if i := g.issuerNamed(name); i != nil {
		return i, nil
	}
	return nil, g.notAmongIssuers(name)
}

// issuerNamed returns nil if the guard takes no tokens of that issuer.
func (g *Guard) issuerNamed(name string) *issuer {
	for _, i := range g.issuers {
		if i.claims.issuer == name {
			return i
		}
	}
	return nil
}

func (g *Guard) notAmongIssuers(name string) *Error {
	return newError(ErrIssuer, "the token is from another issuer than those that this API trusts",
		expected(strings.Join(g.issuerNames(), " ")), got(name))
}

// issuerNames returns the issuers whose tokens are taken here, in order.
func (g *Guard) issuerNames() []string {
	names := make([]string, len(g.issuers))
	for n, i := range g.issuers {
		names[n] = i.claims.issuer
	}
	slices.Sort(names)
	return names
}

// read reads a token and checks what needs no key.
func (i *issuer) read(raw string, now time.Time) (t *token, signature []byte, e *Error) {
	t = new(token)
	signed, signature, err := jose.Split(raw)
	if err != nil {
		return nil, nil, unacceptable(err)
	}
	if t.header, err = jose.ReadHeader(signed); err != nil {
		return nil, nil, unacceptable(err)
	}
	if e := i.checkHeader(&t.header); e != nil {
		return nil, nil, e
	}
	payload, err := jose.DecodePayload(signed)
	if err != nil {
		return nil, nil, unacceptable(err)
	}
	accessToken := t.header.HasType && jose.MediaType(t.header.Type) == accessTokenType
	if t.claims, e = i.claims.read(payload, accessToken, now); e != nil {
		return nil, nil, e
	}
	t.claims.signed = signed
	t.issuer = i
	return t, signature, nil
}

// checkHeader checks the algorithm and the type, and gives the algorithm the name that
// internal/jose uses.
func (i *issuer) checkHeader(h *jose.Header) *Error {
	alg, known := jose.Algorithm(h.Algorithm)
	if !known || !i.algorithms[alg] {
		return newError(ErrAlgorithm, "the token's signature algorithm is not one that this API accepts",
			expected(strings.Join(i.algorithmNames, " ")), got(h.Algorithm))
	}
	h.Algorithm = alg
	if !i.accepts(h) {
		return newError(ErrType, hint.Type(h.HasType, jose.MediaType(h.Type)), expected(strings.Join(i.typeNames, " ")), got(h.Type))
	}
	return nil
}

// accessTokenType is the typ of RFC 9068 §2.1, as returned by jose.MediaType.
const accessTokenType = "at+jwt"

// accepts reports whether the header's typ is in Config.TokenTypes. A typ that is
// present but empty is not an absent one, and is never accepted.
func (i *issuer) accepts(h *jose.Header) bool {
	if !h.HasType {
		return i.types[""]
	}
	return h.Type != "" && i.types[jose.MediaType(h.Type)]
}
