package m2mauth

import (
	"context"
	"fmt"
)

type contextKey struct{}

// claimsContext is what context.WithValue would make, without putting the claims
// into an interface: one allocation less.
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

// String is for fmt, which without it would print the token's claims for %s.
func (c *claimsContext) String() string {
	return fmt.Sprint(c.Context) + ".WithClaims"
}

// NewContext returns a context that carries the claims, for adapters and tests. The
// zero Claims hides those of ctx.
func NewContext(ctx context.Context, claims Claims) context.Context {
	return &claimsContext{ctx, claims.set}
}

// FromContext returns the claims of the token that the request came with. Where no
// guard let the request through, or an optional rule met no token, it returns the
// zero Claims, which say nothing, and false.
func FromContext(ctx context.Context) (claims Claims, ok bool) {
	set, _ := ctx.Value(contextKey{}).(*claimSet)
	return Claims{set: set}, set != nil
}

// claimsOf makes Claims of what decide returns.
func claimsOf(set *claimSet, err error) (Claims, error) { return Claims{set: set}, err }
