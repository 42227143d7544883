package claim

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/strictjson"
)

// Actor is a party that acts for the token's subject (RFC 8693 §4.1).
type Actor struct {
	Subject, ClientID, Issuer string // sub; client_id and iss, or ""
	Prior                     *Actor // who acted before it, or nil
}

// maxActors limits how many actors act may hold, one within another. Real chains have
// one or two.
const maxActors = 8

// errActor is returned for every act that is none.
var errActor = &Mistake{"act", "a chain of at most 8 objects, each with a sub that is a non-empty string, as client_id and iss are if it has them"}

// Actor reads act, and returns nil if the token lacks it. Of the members, only those that
// say who acts have a meaning there: exp, nbf and aud have none.
func (v Value) Actor() (*Actor, error) {
	var first *Actor
	to := &first
	for n := 0; v != nil; n++ {
		a, prior := new(Actor), Value(nil)
		err := strictjson.Object(v, func(name []byte, value jsontext.Value) (err error) {
			switch string(name) {
			case "sub":
				a.Subject, err = Value(value).Text("sub")
			case "client_id":
				a.ClientID, err = Value(value).Text("client_id")
			case "iss":
				a.Issuer, err = Value(value).Text("iss")
			case "act":
				prior = Value(value)
			}
			return err
		})
		if err != nil || a.Subject == "" || n == maxActors {
			return nil, errActor
		}
		*to, to, v = a, &a.Prior, prior
	}
	return first, nil
}

// Bytes returns the memory that the actors take in addition to their texts, rounded up.
func (a *Actor) Bytes() (n int64) {
	for ; a != nil; a = a.Prior {
		n += 112
	}
	return n
}
