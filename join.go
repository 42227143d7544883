package m2mauth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/jose"
)

// Join makes one guard of several, for an API that takes tokens of several
// issuers, such as two Logto tenants or one server under two domains. The
// token's iss, not believed yet, picks the guard that then checks everything:
// each keeps its own audience, algorithms, types and keys. A token of an
// unknown issuer gets 401 without any fetch. Memory for verified tokens, the
// bounds on signature checks and on a token's length, Realm, Source, ErrorHandler, OnDecision and the
// Logger of refusals are the first guard's, for all; of its keys each tells its
// own Logger. Rules see a token whoever issued it, and so trust every issuer
// alike: IDs of clients and organizations are one issuer's own, so where two may
// give the same ID, by chance or on purpose, add Claim("iss", …) to the rule.
// The error says which guard is nil, was joined before, or has an issuer that
// another has.
func Join(first *Guard, others ...*Guard) (*Guard, error) {
	var mistakes []error
	joined := make(map[string]*Guard)
	for i, g := range append([]*Guard{first}, others...) {
		switch {
		case !g.ready() || g.joined != nil:
			mistakes = append(mistakes, fmt.Errorf("m2mauth: Join: guard %d is nil or was not made by New (was the error of New ignored?), or was joined already", i+1))
		case joined[g.claims.issuer] != nil:
			mistakes = append(mistakes, fmt.Errorf("m2mauth: Join: guard %d has the issuer of another, %s", i+1, g.claims.issuer))
		default:
			member := *g
			joined[g.claims.issuer] = &member
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	all := *first
	all.joined = joined
	all.tokens = newTokenCache(first.tokens.bytes)
	all.checks, all.gate, all.waitingBytes = newChecks(), newGate(), new(atomic.Int64)
	all.metadataURL = new(atomic.Pointer[string]) // the first guard's document names one issuer
	for _, member := range joined {
		member.tokens, member.checks, member.gate, member.sourceOf = all.tokens, all.checks, all.gate, all.sourceOf
		member.maxTokenBytes, member.waitingBytes = all.maxTokenBytes, all.waitingBytes
	}
	return &all, nil
}

// needsOrganization reports whether no token opens a route here whose rule names
// no organization: all are limited to one. Of several guards it takes all, since
// one whose tokens are not, or may pass, can open the route. The opposite does
// not exist: each guard sees the organizations of its tokens, in aud or in
// organization_id, whatever its Config says.
func (g *Guard) needsOrganization() bool {
	for _, member := range g.joined {
		if !member.needsOrganization() {
			return false
		}
	}
	return g.joined != nil || g.claims.organizations && !g.allowOrganizations
}

// issuers returns the issuers whose tokens are taken here, in order.
func (g *Guard) issuers() []string {
	if g.joined == nil {
		return []string{g.claims.issuer}
	}
	return slices.Sorted(maps.Keys(g.joined))
}

// ofIssuer returns the guard for the issuer that a token claims to be of.
func (g *Guard) ofIssuer(raw string) (*Guard, *Error) {
	if g.joined == nil {
		return g, nil
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
	err = readObject(payload, func(name []byte, value jsontext.Value) error {
		if string(name) == "iss" {
			iss = value
		}
		return nil
	})
	if err != nil {
		return nil, newError(ErrMalformed, payloadText)
	}
	issuer, e := requiredString("iss", iss)
	if e != nil {
		return nil, e
	}
	if member := g.joined[issuer]; member != nil {
		return member, nil
	}
	return nil, newError(ErrIssuer, "the token is from another issuer than those that this API trusts",
		expected(strings.Join(g.issuers(), " ")), got(issuer))
}

// warmJoined returns nil as soon as one issuer's keys are there, so that another
// issuer's outage does not make the API unready.
func (g *Guard) warmJoined(ctx context.Context) error {
	ended := make(chan error, len(g.joined))
	for _, member := range g.joined {
		go func() { ended <- member.Warm(ctx) }()
	}
	var all []error
	for range g.joined {
		err := <-ended
		if err == nil {
			return nil
		}
		all = append(all, err)
	}
	return unavailable(time.Second, errors.Join(all...))
}
