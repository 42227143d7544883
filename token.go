package m2mauth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/admission"
	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/keyset"
	"github.com/m2mauth/m2mauth/internal/strictjson"
)

// joseHeader is what the guard reads from a token's header (RFC 7515 §4). jwk, jku, x5u
// and x5c are ignored: a token does not choose the key to trust. alg has the name that
// internal/jose uses.
type joseHeader struct {
	alg, typ, kid  string
	hasTyp, hasKID bool
}

// token is a token that has been read. Once its key is set and its signature checked,
// it may be cached. What only the check needed is dropped then.
type token struct {
	issuer    *issuer
	claims    *claimSet
	header    joseHeader
	key       *jose.Key // verified the signature
	signature []byte

	kept     string            // the token without the second half of its signature
	restHash [sha256.Size]byte // of that half
}

// verify checks everything about a token except what a route requires. A cached token
// is recalled. For any other, cheap checks come first and the key last, so that an
// invalid token causes no fetch and no signature check.
func (g *Guard) verify(ctx context.Context, raw string, r Request, dry bool) (t *token, remembered bool, e *Error) {
	if len(raw) > g.maxTokenBytes {
		return nil, false, newError(ErrRequest, fmt.Sprintf("the access token is longer than %s", inBytes(g.maxTokenBytes)), slog.Int("bytes", len(raw)))
	}
	now := time.Now()
	if t = g.tokens.get(raw); t != nil {
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
func (g *Guard) verifyNew(ctx context.Context, raw string, r Request, now time.Time, dry bool) (t *token, e *Error) {
	if r != nil && !isToken68(raw) {
		return nil, notOneToken()
	}
	i, e := g.issuerOf(raw)
	if e != nil {
		return nil, e
	}
	if t, e = i.read(raw, now); e != nil {
		return nil, e
	}
	source := func() string { return g.source(r) }
	if t.key, _, e = i.keys.find(ctx, now, g.waitsFor(raw, dry), t.header.kid, t.header.hasKID, t.header.alg, source); e != nil {
		return nil, e
	}
	if dry { // by the context, so that the check passes to callers that can wait
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, maxReportOnlyWait, errUndecided)
		defer cancel()
	}
	var from string // the request's group, once QueueKey was called
	verified, err := g.admission.Do(ctx, checkKey{raw, t.key}, admission.Check{
		Bytes:    len(raw),
		Source:   func() string { from = g.source(r); return from },
		Deadline: time.Now().Add(maxQueueTime),
		Known:    func() bool { return g.tokens.has(raw, t.key) }, // verified after our look-up
		Run: func() bool {
			if t.key.Verify(bytesOf(t.claims.signed), t.signature) != nil {
				return false
			}
			t.forget(raw)
			g.tokens.put(raw, t)
			return true
		},
	})
	if err != nil {
		return nil, notAdmitted(ctx, err, from)
	}
	if !verified {
		return nil, newError(ErrSignature, "the token's signature is wrong",
			slog.String("alg", t.header.alg), slog.String("kid", keyset.Loggable(t.header.kid)))
	}
	if t.kept == "" { // another request ran the check
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
	key, waited, e := t.issuer.keys.find(ctx, now, g.waitsFor(raw, dry), t.header.kid, t.header.hasKID, t.header.alg, source)
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
	signed, _, e := splitToken(raw)
	if e != nil {
		return nil, e
	}
	_, encoded, _ := strings.Cut(signed, ".")
	payload, err := jose.DecodeBase64URL(encoded)
	if err != nil {
		return nil, notBase64URL("payload")
	}
	var iss jsontext.Value
	err = strictjson.Object(payload, func(name []byte, value jsontext.Value) error {
		if string(name) == "iss" {
			iss = value
		}
		return nil
	})
	if err != nil {
		return nil, newError(ErrMalformed, payloadText)
	}
	name, e := requiredString("iss", iss)
	if e != nil {
		return nil, e
	}
	for _, i := range g.issuers {
		if i.claims.issuer == name {
			return i, nil
		}
	}
	return nil, newError(ErrIssuer, "the token is from another issuer than those that this API trusts",
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
func (i *issuer) read(raw string, now time.Time) (t *token, e *Error) {
	t = new(token)
	signed, signature, e := splitToken(raw)
	if e != nil {
		return nil, e
	}
	t.signature = signature
	encodedHeader, encodedPayload, _ := strings.Cut(signed, ".")
	if t.header, e = i.readHeader(encodedHeader); e != nil {
		return nil, e
	}
	payload, err := jose.DecodeBase64URL(encodedPayload)
	if err != nil {
		return nil, notBase64URL("payload")
	}
	accessToken := t.header.hasTyp && mediaType(t.header.typ) == accessTokenType
	if t.claims, e = i.claims.read(payload, accessToken, now); e != nil {
		return nil, e
	}
	t.claims.signed = signed
	t.issuer = i
	return t, nil
}

// splitToken splits a JWS in compact serialization (RFC 7515 §7.1). It counts dots
// before it cuts anything, so that thousands of dots cost nothing.
func splitToken(raw string) (signed string, signature []byte, e *Error) {
	if raw == "" {
		return "", nil, newError(ErrMalformed, "the token is empty")
	}
	switch dots := strings.Count(raw, "."); dots {
	case 2:
	case 0:
		if strings.HasPrefix(raw, "eyJ") { // {" in base64url
			return "", nil, newError(ErrMalformed, "the token is a part of a JWT: it was cut off on its way")
		}
		return "", nil, newError(ErrMalformed, "the token is opaque, not a JWT: request it with the resource parameter, which names this API")
	case 4:
		return "", nil, newError(ErrMalformed, "the token is encrypted (JWE), which this API does not accept")
	default:
		return "", nil, newError(ErrMalformed, "the token is not a JWT of three parts", slog.Int("dots", dots))
	}
	last := strings.LastIndexByte(raw, '.')
	signature, err := jose.DecodeBase64URL(raw[last+1:])
	if err != nil {
		return "", nil, notBase64URL("signature")
	}
	return raw[:last], signature, nil
}

func notBase64URL(part string) *Error {
	return newError(ErrMalformed, "the token's "+part+" is not strict base64url")
}

// readHeader reads and checks a token's header.
func (i *issuer) readHeader(encoded string) (h joseHeader, e *Error) {
	data, err := jose.DecodeBase64URL(encoded)
	if err != nil {
		return h, notBase64URL("header")
	}
	critical, nested := false, false
	err = strictjson.Object(data, func(name []byte, value jsontext.Value) error {
		ok := true
		switch string(name) {
		case "alg":
			h.alg, ok = strictjson.String(value)
		case "typ":
			h.typ, ok = strictjson.String(value)
			h.hasTyp = true
		case "kid":
			h.kid, ok = strictjson.String(value)
			h.hasKID = true
		case "cty":
			var content string
			content, ok = strictjson.String(value)
			nested = mediaType(content) == "jwt"
		case "crit", "b64":
			critical = true
		}
		if !ok {
			return errMember
		}
		return nil
	})
	if err != nil {
		return h, newError(ErrMalformed, "the token's header is not one strict JSON object, or a member of it has the wrong type")
	}
	if critical {
		// RFC 7515 §4.1.11: we support no extension. b64 (RFC 7797) changes what is
		// signed, so it counts even without crit.
		return h, newError(ErrMalformed, "the token's header demands an extension (crit or b64), and none is supported")
	}
	if nested {
		// RFC 7519 §7.2: the payload is a nested token, which we would misread as
		// claims.
		return h, newError(ErrMalformed, "the token's header says that its payload is another token (cty), and nested tokens are not accepted")
	}
	alg, known := jose.Algorithm(h.alg)
	if !known || !i.algorithms[alg] {
		return h, newError(ErrAlgorithm, "the token's signature algorithm is not one that this API accepts",
			expected(strings.Join(i.algorithmNames, " ")), got(h.alg))
	}
	h.alg = alg
	if !i.accepts(h) {
		return h, newError(ErrType, typeHint(h), expected(strings.Join(i.typeNames, " ")), got(h.typ))
	}
	return h, nil
}

// accessTokenType is the typ of RFC 9068 §2.1, as returned by mediaType.
const accessTokenType = "at+jwt"

// accepts reports whether the header's typ is in Config.TokenTypes. A typ that is
// present but empty is not an absent one, and is never accepted.
func (i *issuer) accepts(h joseHeader) bool {
	if !h.hasTyp {
		return i.types[""]
	}
	return h.typ != "" && i.types[mediaType(h.typ)]
}

// typeHint says what to do about a token with another typ. ID tokens have the typ JWT,
// so the hint does not suggest to accept it. docs/issuers.md says which issuers use it
// for access tokens too.
func typeHint(h joseHeader) string {
	switch {
	case !h.hasTyp:
		return "the token has no typ: send an access token, not an ID token; if the issuer's access tokens have none, this API's TokenTypes must hold the empty string"
	case h.typ == "" || mediaType(h.typ) == "jwt":
		return "the token's typ is not that of an access token: send an access token, not an ID token"
	}
	return "the token's typ is not one that this API accepts: if the issuer marks access tokens so, this API's TokenTypes must name it"
}

// mediaType normalizes a typ for comparison: lower case, without the prefix that RFC
// 7515 §4.1.9 lets an issuer omit.
func mediaType(typ string) string {
	typ = keyset.LowerASCII(typ)
	if short, cut := strings.CutPrefix(typ, "application/"); cut && short != "" {
		return short // never "", which means an absent typ
	}
	return typ
}
