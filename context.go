package m2mauth

import (
	"context"
	"fmt"
)

type contextKey struct{}

// claimsContext works like context.WithValue, but does not put the claims into an
// interface, which saves an allocation.
type claimsContext struct {
	context.Context
	claims *claimSet // nil hides those of an outer context
}

func (c *claimsContext) Value(key any) any {
	if key == (contextKey{}) {
		return c.claims
	}
	return c.Context.Value(key)
}

// String keeps fmt from printing the token's claims for %s.
func (c *claimsContext) String() string {
	return fmt.Sprint(c.Context) + ".WithClaims"
}

// NewContext returns a copy of ctx that carries the claims. It is for adapters and
// tests. The zero Claims hides the claims that ctx carries.
func NewContext(ctx context.Context, claims Claims) context.Context {
	return &claimsContext{ctx, claims.set}
}

// FromContext returns the claims of the request's token. If no guard let the request
// through, or if the rule was [Optional] and there was no token, it returns the zero
// Claims and false.
func FromContext(ctx context.Context) (claims Claims, ok bool) {
	set, _ := ctx.Value(contextKey{}).(*claimSet)
	return Claims{set: set}, set != nil
}

// claimsOf converts the results of decide.
func claimsOf(set *claimSet, err error) (Claims, error) { return Claims{set: set}, err }
