package m2mauth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/jose"
)

// joseHeader is what the guard reads of a token's header (RFC 7515 §4). jwk,
// jku, x5u and x5c are ignored: a token does not name the key to trust. alg is
// under the one name that internal/jose has for it.
type joseHeader struct {
	alg, typ, kid  string
	hasTyp, hasKID bool
}

// token is a token that has been read. Once its key is set and its signature
// checked, it may be remembered; what was only needed for that is let go.
type token struct {
	guard     *Guard // of the token's issuer
	claims    *Claims
	header    joseHeader
	key       *jose.Key // that verified the signature
	signature []byte

	kept     string            // the token without the second half of its signature
	restHash [sha256.Size]byte // of that half
}

// verify checks everything of a token but what a route demands. A token that
// passed lately is recalled; of any other, what is cheap is checked first and
// the key last, so that rubbish causes no fetch and no signature check.
func (g *Guard) verify(ctx context.Context, raw string, r Request) (t *token, remembered bool, e *Error) {
	if len(raw) > g.maxTokenBytes {
		return nil, false, newError(ErrRequest, fmt.Sprintf("the access token is longer than %s", inBytes(g.maxTokenBytes)), slog.Int("bytes", len(raw)))
	}
	now := time.Now()
	if t = g.tokens.get(raw); t != nil {
		switch good, e := t.recall(ctx, now, r, g.waitsFor(raw)); {
		case e != nil:
			return nil, true, e
		case good:
			return t, true, nil
		}
	}
	if t, e = g.verifyNew(ctx, raw, r, now); e != nil {
		return nil, false, e
	}
	return t, false, nil
}

// inBytes writes a number of bytes for people.
func inBytes(n int) string {
	if n%1024 == 0 {
		return fmt.Sprintf("%d KiB", n/1024)
	}
	return fmt.Sprintf("%d bytes", n)
}

// verifyNew verifies a token that is not remembered, and remembers it.
func (g *Guard) verifyNew(ctx context.Context, raw string, r Request, now time.Time) (t *token, e *Error) {
	if r != nil && !isToken68(raw) {
		return nil, notOneToken()
	}
	if g, e = g.ofIssuer(raw); e != nil {
		return nil, e
	}
	if t, e = g.read(raw, now); e != nil {
		return nil, e
	}
	source := func() string { return g.source(r) }
	if t.key, _, e = g.keys.find(ctx, now, g.waitsFor(raw), t.header.kid, t.header.hasKID, t.header.alg, source); e != nil {
		return nil, e
	}
	deadline := time.Now().Add(maxQueueTime)
	verified, e := g.checks.once(ctx, check{raw, t.key}, source, deadline, func() (bool, *Error) {
		if g.tokens.has(raw, t.key) {
			return true, nil // verified between our look at the memory and now
		}
		verified := false
		e := g.gate.do(ctx, source(), len(raw), deadline, func() {
			verified = t.key.Verify(bytesOf(t.claims.signed), t.signature) == nil
		})
		if verified {
			t.forget(raw)
			g.tokens.put(raw, t)
		}
		return verified, e
	})
	if e != nil {
		return nil, e
	}
	if !verified {
		return nil, newError(ErrSignature, "the token's signature is wrong",
			slog.String("alg", t.header.alg), slog.String("kid", loggable(t.header.kid)))
	}
	if t.kept == "" { // another request made the check
		t.forget(raw)
	}
	// The key and a place for the check may have been waited for.
	if e := g.claims.checkTimes(t.claims, time.Now()); e != nil {
		return nil, e
	}
	return t, nil
}

// recall makes those checks of a remembered token again that depend on the clock
// and on the keys. If it is neither good nor an error, the token is as one never
// seen: its key has been replaced under its key ID.
func (t *token) recall(ctx context.Context, now time.Time, r Request, h held) (good bool, e *Error) {
	if e := t.guard.claims.checkTimes(t.claims, now); e != nil {
		return false, e
	}
	source := func() string { return t.guard.source(r) }
	key, waited, e := t.guard.keys.find(ctx, now, h, t.header.kid, t.header.hasKID, t.header.alg, source)
	if e == nil && waited {
		e = t.guard.claims.checkTimes(t.claims, time.Now())
	}
	return e == nil && key == t.key, e
}

// read reads a token and checks what needs no key.
func (g *Guard) read(raw string, now time.Time) (t *token, e *Error) {
	t = new(token)
	signed, signature, e := splitToken(raw)
	if e != nil {
		return nil, e
	}
	t.signature = signature
	encodedHeader, encodedPayload, _ := strings.Cut(signed, ".")
	if t.header, e = g.readHeader(encodedHeader); e != nil {
		return nil, e
	}
	payload, err := jose.DecodeBase64URL(encodedPayload)
	if err != nil {
		return nil, notBase64URL("payload")
	}
	accessToken := t.header.hasTyp && mediaType(t.header.typ) == accessTokenType
	if t.claims, e = g.claims.read(payload, accessToken, now); e != nil {
		return nil, e
	}
	t.claims.signed = signed
	t.guard = g
	return t, nil
}

// splitToken takes a JWS in compact serialization (RFC 7515 §7.1) apart. Dots
// are counted before anything is cut, so that thousands of them cost nothing.
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

var errMember = errors.New("a member has the wrong type")

// readHeader reads and checks a token's header.
func (g *Guard) readHeader(encoded string) (h joseHeader, e *Error) {
	data, err := jose.DecodeBase64URL(encoded)
	if err != nil {
		return h, notBase64URL("header")
	}
	critical, nested := false, false
	err = readObject(data, func(name []byte, value jsontext.Value) error {
		ok := true
		switch string(name) {
		case "alg":
			h.alg, ok = stringOf(value)
		case "typ":
			h.typ, ok = stringOf(value)
			h.hasTyp = true
		case "kid":
			h.kid, ok = stringOf(value)
			h.hasKID = true
		case "cty":
			var content string
			content, ok = stringOf(value)
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
		// RFC 7515 §4.1.11: nobody here understands any extension. b64 (RFC
		// 7797) changes what is signed, and so counts even without crit.
		return h, newError(ErrMalformed, "the token's header demands an extension (crit or b64), and none is supported")
	}
	if nested {
		// RFC 7519 §7.2: the payload is to be read as a token, and we would read
		// it as claims.
		return h, newError(ErrMalformed, "the token's header says that its payload is another token (cty), and nested tokens are not accepted")
	}
	alg, known := jose.Algorithm(h.alg)
	if !known || !g.algorithms[alg] {
		return h, newError(ErrAlgorithm, "the token's signature algorithm is not one that this API accepts",
			expected(strings.Join(g.algorithmNames, " ")), got(h.alg))
	}
	h.alg = alg
	if !g.accepts(h) {
		return h, newError(ErrType, typeHint(h), expected(strings.Join(g.typeNames, " ")), got(h.typ))
	}
	return h, nil
}

// accessTokenType is the typ of RFC 9068 §2.1 as mediaType gives it.
const accessTokenType = "at+jwt"

// accepts reports whether the header's typ is in Config.TokenTypes. A typ that
// is there but empty is no type, and not an absent one.
func (g *Guard) accepts(h joseHeader) bool {
	if !h.hasTyp {
		return g.types[""]
	}
	return h.typ != "" && g.types[mediaType(h.typ)]
}

// typeHint says what to do about a token of another type. JWT is the typ of ID
// tokens, so that nobody is led to accept it: the README says which issuers give
// it to access tokens too.
func typeHint(h joseHeader) string {
	switch {
	case !h.hasTyp:
		return "the token has no typ: send an access token, not an ID token; if the issuer's access tokens have none, this API's TokenTypes must hold the empty string"
	case h.typ == "" || mediaType(h.typ) == "jwt":
		return "the token's typ is not that of an access token: send an access token, not an ID token"
	}
	return "the token's typ is not one that this API accepts: if the issuer marks access tokens so, this API's TokenTypes must name it"
}

// mediaType returns a typ in the one form used for comparing: lower case,
// without the prefix that RFC 7515 §4.1.9 lets an issuer leave out.
func mediaType(typ string) string {
	typ = lowerASCII(typ)
	if short, cut := strings.CutPrefix(typ, "application/"); cut && short != "" {
		return short // never "", which stands for an absent typ
	}
	return typ
}

// lowerASCII leaves all else as it is, while the functions of package strings take
// letters such as ſ and İ for s and i.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
