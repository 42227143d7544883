package m2mauth

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/jose"
)

// maxTokenBytes bounds a token. Logto's have some 600 bytes with an EC key and
// 1,200 with an RSA key; header fields over 8 KiB are refused by most servers.
const maxTokenBytes = 8 << 10

// joseHeader is what the guard reads of a token's header (RFC 7515 §4). jwk,
// jku, x5u and x5c are ignored: a token does not name the key to trust.
type joseHeader struct {
	alg, typ, kid  string
	hasTyp, hasKID bool
}

// verify reads a token and checks everything but what a route demands. What is
// cheap comes first and keys come last, so that rubbish causes no fetch and no
// signature check.
func (g *Guard) verify(ctx context.Context, raw string) (*Claims, *Error) {
	if len(raw) > maxTokenBytes {
		return nil, newError(ErrRequest, "the access token is longer than 8 KiB", slog.Int("bytes", len(raw)))
	}
	input, signature, e := splitToken(raw)
	if e != nil {
		return nil, e
	}
	encodedHeader, encodedPayload, _ := strings.Cut(input, ".")
	header, alg, e := g.readHeader(encodedHeader)
	if e != nil {
		return nil, e
	}
	payload, err := jose.DecodeBase64URL(encodedPayload)
	if err != nil {
		return nil, notBase64URL("payload")
	}
	accessToken := header.hasTyp && mediaType(header.typ) == accessTokenType
	claims, e := g.claims.read(payload, accessToken, time.Now())
	if e != nil {
		return nil, e
	}
	key, e := g.keys.find(ctx, header.kid, header.hasKID, alg)
	if e != nil {
		return nil, e
	}
	if key.Verify([]byte(input), signature) != nil {
		return nil, newError(ErrSignature, "the token's signature is wrong", slog.String("alg", alg), slog.String("kid", loggable(header.kid)))
	}
	return claims, nil
}

// splitToken takes a JWS in compact serialization (RFC 7515 §7.1) apart. Dots
// are counted before anything is cut, so that thousands of them cost nothing.
func splitToken(raw string) (input string, signature []byte, e *Error) {
	if raw == "" {
		return "", nil, newError(ErrMalformed, "the token is empty")
	}
	switch dots := strings.Count(raw, "."); dots {
	case 2:
	case 0:
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

// readHeader reads and checks a token's header; alg is its algorithm under the
// one name that internal/jose has for it.
func (g *Guard) readHeader(encoded string) (h joseHeader, alg string, e *Error) {
	data, err := jose.DecodeBase64URL(encoded)
	if err != nil {
		return h, "", notBase64URL("header")
	}
	critical := false
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
		case "crit", "b64":
			critical = true
		}
		if !ok {
			return errMember
		}
		return nil
	})
	if err != nil {
		return h, "", newError(ErrMalformed, "the token's header is not one strict JSON object, or a member of it has the wrong type")
	}
	if critical {
		// RFC 7515 §4.1.11: nobody here understands any extension. b64 (RFC
		// 7797) changes what is signed, and so counts even without crit.
		return h, "", newError(ErrMalformed, "the token's header demands an extension (crit or b64), and none is supported")
	}
	alg, known := jose.Algorithm(h.alg)
	if !known || !g.algorithms[alg] {
		return h, "", newError(ErrAlgorithm, "the token's signature algorithm is not one that this API accepts",
			expected(strings.Join(g.algorithmNames, " ")), got(h.alg))
	}
	if !g.accepts(h) {
		return h, "", newError(ErrType, "the token's typ does not make it an access token that this API accepts: an ID token is none; "+
			"if the issuer marks access tokens otherwise, this API's TokenTypes must name its typ",
			expected(strings.Join(g.typeNames, " ")), got(h.typ))
	}
	return h, alg, nil
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

// mediaType returns a typ in the one form used for comparing: lower case,
// without the prefix that RFC 7515 §4.1.9 lets an issuer leave out.
func mediaType(typ string) string {
	typ = strings.ToLower(typ)
	if short, cut := strings.CutPrefix(typ, "application/"); cut && short != "" {
		return short // never "", which stands for an absent typ
	}
	return typ
}
