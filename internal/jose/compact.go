package jose

import (
	"errors"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/ascii"
	"github.com/m2mauth/m2mauth/internal/strictjson"
)

// What is wrong with a token. The texts are for whoever sent it.
var (
	errEmpty     = errors.New("the token is empty")
	errCut       = errors.New("the token is a part of a JWT: it was cut off on its way")
	errOpaque    = errors.New("the token is opaque, not a JWT: request it with the resource parameter, which names this API")
	errEncrypted = errors.New("the token is encrypted (JWE), which this API does not accept")
	errMembers   = errors.New("the token's header is not one strict JSON object, or a member of it has the wrong type")
	errExtension = errors.New("the token's header demands an extension (crit or b64), and none is supported")
	errNested    = errors.New("the token's header says that its payload is another token (cty), and nested tokens are not accepted")
)

// encodingError is the error of a part of a token, which it names.
type encodingError string

func (e encodingError) Error() string { return "the token's " + string(e) + " is not strict base64url" }

// DotsError is the error of a token whose number of dots is neither a JWT's nor one with
// an error of its own.
type DotsError int

func (DotsError) Error() string { return "the token is not a JWT of three parts" }

// Split splits a JWS in compact serialization (RFC 7515 §7.1) into what is signed and
// the signature. It counts dots before it cuts anything, so that thousands of dots cost
// nothing.
func Split(raw string) (signed string, signature []byte, err error) {
	if raw == "" {
		return "", nil, errEmpty
	}
	switch dots := strings.Count(raw, "."); dots {
	case 2:
	case 0:
		if strings.HasPrefix(raw, "eyJ") { // {" in base64url
			return "", nil, errCut
		}
		return "", nil, errOpaque
	case 4:
		return "", nil, errEncrypted
	default:
		return "", nil, DotsError(dots)
	}
	last := strings.LastIndexByte(raw, '.')
	if signature, err = DecodeBase64URL(raw[last+1:]); err != nil {
		return "", nil, encodingError("signature")
	}
	return raw[:last], signature, nil
}

// Header is what is read from a token's header (RFC 7515 §4). jwk, jku, x5u and x5c are
// ignored: a token does not choose the key to trust.
type Header struct {
	Algorithm, Type, KeyID string // alg, typ and kid, as written
	HasType, HasKeyID      bool
}

// ReadHeader reads the header of what [Split] returned as signed.
func ReadHeader(signed string) (h Header, err error) {
	encoded, _, _ := strings.Cut(signed, ".")
	data, err := DecodeBase64URL(encoded)
	if err != nil {
		return Header{}, encodingError("header")
	}
	critical, nested := false, false
	err = strictjson.Object(data, func(name []byte, value jsontext.Value) error {
		ok := true
		switch string(name) {
		case "alg":
			h.Algorithm, ok = strictjson.String(value)
		case "typ":
			h.Type, ok = strictjson.String(value)
			h.HasType = true
		case "kid":
			h.KeyID, ok = strictjson.String(value)
			h.HasKeyID = true
		case "cty":
			var content string
			content, ok = strictjson.String(value)
			nested = MediaType(content) == "jwt"
		case "crit", "b64":
			critical = true
		}
		if !ok {
			return errMembers
		}
		return nil
	})
	switch {
	case err != nil:
		return Header{}, errMembers
	case critical:
		// RFC 7515 §4.1.11: we support no extension. b64 (RFC 7797) changes what is
		// signed, so it counts even without crit.
		return Header{}, errExtension
	case nested:
		// RFC 7519 §7.2: the payload is a nested token, which a reader would take for
		// claims.
		return Header{}, errNested
	}
	return h, nil
}

// MediaType normalizes a typ for comparison: lower case, without the prefix that RFC
// 7515 §4.1.9 lets an issuer omit.
func MediaType(typ string) string {
	typ = ascii.Lower(typ)
	if short, cut := strings.CutPrefix(typ, "application/"); cut && short != "" {
		return short // never "", which means an absent typ
	}
	return typ
}

// DecodePayload decodes the payload of what [Split] returned as signed.
func DecodePayload(signed string) ([]byte, error) {
	_, encoded, _ := strings.Cut(signed, ".")
	payload, err := DecodeBase64URL(encoded)
	if err != nil {
		return nil, encodingError("payload")
	}
	return payload, nil
}
