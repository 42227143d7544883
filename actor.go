package m2mauth

import "github.com/m2mauth/m2mauth/internal/claim"

// Actor is the party that acts for the subject of a token (RFC 8693 §4.1), as an issuer
// says it after a token exchange with an actor token.
type Actor struct {
	Subject  string // sub within act: an application's or a user's ID
	ClientID string // client_id within act, or ""
	Issuer   string // iss within act; "" means the token's issuer

	prior *claim.Actor
}

// Actor returns the party that the token's act names. It acts for the subject, and is
// often, but need not be, the client. ok is false if the token has no act: with Logto,
// that is every token for which no actor token was sent. An act that is not an object
// with a sub, and one of more than 8 actors, makes a token invalid (401, ErrClaims).
// With Logto, keep in mind that a claims script can write act.
func (c Claims) Actor() (actor Actor, ok bool) { return actorOf(c.read().actor) }

// Actor returns the party that acted before a, if act holds an act. It is for logs:
// RFC 8693 §4.1 lets no access depend on it.
func (a Actor) Actor() (prior Actor, ok bool) { return actorOf(a.prior) }

func actorOf(a *claim.Actor) (Actor, bool) {
	if a == nil {
		return Actor{}, false
	}
	return Actor{a.Subject, a.ClientID, a.Issuer, a.Prior}, true
}

func (p *claimPolicy) readActor(c *claimSet, v *claim.Values) (err error) {
	c.actor, err = v.Actor.Actor()
	return err
}
