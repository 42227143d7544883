package claim

import (
	"errors"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/strictjson"
)

// errPayload is the error of a payload that is no set of claims.
var errPayload = errors.New("the token's payload is not one strict JSON object")

// Sought are the names of those claims to collect whose names a setting decides.
type Sought struct{ Scopes, Clients, Organizations, Required []Name }

// Values are the claims that were sought, as written in the payload.
type Values struct {
	Issuer, Subject, Audience, ExpiresAt, NotBefore, IssuedAt, ID, Confirmation, Actor Value

	Scopes, Clients, Organizations, Required []Value // in the order of the names
}

// Collect reads a payload. The values are parts of it.
func (s *Sought) Collect(payload []byte) (*Values, error) {
	v := &Values{
		Scopes:  make([]Value, len(s.Scopes)),
		Clients: make([]Value, len(s.Clients)),

		Organizations: make([]Value, len(s.Organizations)),
		Required:      make([]Value, len(s.Required)),
	}
	err := strictjson.Object(payload, func(name []byte, value jsontext.Value) error {
		switch string(name) {
		case "iss":
			v.Issuer = Value(value)
		case "sub":
			v.Subject = Value(value)
		case "aud":
			v.Audience = Value(value)
		case "exp":
			v.ExpiresAt = Value(value)
		case "nbf":
			v.NotBefore = Value(value)
		case "iat":
			v.IssuedAt = Value(value)
		case "jti":
			v.ID = Value(value)
		case "cnf":
			v.Confirmation = Value(value)
		case "act":
			v.Actor = Value(value)
		}
		pick(v.Scopes, s.Scopes, name, value)
		pick(v.Clients, s.Clients, name, value)
		pick(v.Organizations, s.Organizations, name, value)
		pick(v.Required, s.Required, name, value)
		return nil
	})
	if err != nil {
		return nil, errPayload
	}
	return v, nil
}

// pick stores the values of those claims that a member of the payload is or contains.
func pick(values []Value, names []Name, name []byte, member jsontext.Value) {
	for i, n := range names {
		if string(name) == n.pointer[0] {
			values[i] = Value(n.pointer[1:].In(member))
		}
	}
}

// Bytes returns at most how many bytes the strings take that are read from the values.
func (v *Values) Bytes() int {
	n := len(v.Issuer) + len(v.Subject) + len(v.Audience) + len(v.ID) + len(v.Actor)
	for _, values := range [][]Value{v.Scopes, v.Clients, v.Organizations} {
		for _, value := range values {
			n += len(value)
		}
	}
	return n
}

// Issuer reads iss alone.
func Issuer(payload []byte) (string, error) {
	var issuer Value
	err := strictjson.Object(payload, func(name []byte, value jsontext.Value) error {
		if string(name) == "iss" {
			issuer = Value(value)
		}
		return nil
	})
	if err != nil {
		return "", errPayload
	}
	return issuer.Text("iss")
}
