package m2mauth

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/strictjson"
)

// Join makes one guard of several, for an API that takes tokens of several
// issuers, such as two Logto tenants or one server under two domains. The
// token's iss, not believed yet, picks the issuer by whose Config everything is
// then checked: audience, algorithms, types and keys. A token of an unknown issuer
// gets 401 without any fetch. CacheBytes, ErrorHandler, InsecureReportOnlyUntil,
// MaxTokenBytes, OnDecision, QueueKey, Realm and the Logger of refusals are the first guard's, for all; of its
// keys each tells its own Logger. Rules see a token whoever issued it, and so trust
// every issuer alike: IDs of clients and organizations are one issuer's own, so where
// two may give the same ID, by chance or on purpose, add HasClaim("iss", …) to the
// rule. The error says which guard is nil, was joined before, has an issuer that
// another has, or sets a field that only the first may set.
func Join(first *Guard, others ...*Guard) (*Guard, error) {
	var mistakes []error
	var issuers []*issuer
	for n, g := range append([]*Guard{first}, others...) {
		switch {
		case !g.ready() || len(g.issuers) > 1:
			mistakes = append(mistakes, fmt.Errorf("m2mauth: Join: guard %d is nil or was not made by New (was the error of New ignored?), or was joined already", n+1))
			continue
		case n > 0 && len(g.set) > 0:
			mistakes = append(mistakes, fmt.Errorf("m2mauth: Join: guard %d sets %s, which only the first guard may: it holds for all", n+1, strings.Join(g.set, ", ")))
		case slices.ContainsFunc(issuers, g.issuers[0].sameName):
			mistakes = append(mistakes, fmt.Errorf("m2mauth: Join: guard %d has the issuer of another, %s", n+1, g.issuers[0].claims.issuer))
		}
		issuers = append(issuers, g.issuers...)
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	all := &Guard{
		issuers:       issuers,
		scopes:        scopesOfAll(issuers),
		realm:         first.realm,
		maxTokenBytes: first.maxTokenBytes,
		queueKey:      first.queueKey,
		errorHandler:  first.errorHandler,
		onDecision:    first.onDecision,
		refusals:      first.refusals,
		dryRun:        first.dryRun,
		enforcing:     first.enforcing,
	}
	return all.withMemory(first.tokens.bytes), nil
}

func (i *issuer) sameName(other *issuer) bool { return i.claims.issuer == other.claims.issuer }

// issuerNames returns the issuers whose tokens are taken here, in order.
func (g *Guard) issuerNames() []string {
	names := make([]string, len(g.issuers))
	for n, i := range g.issuers {
		names[n] = i.claims.issuer
	}
	slices.Sort(names)
	return names
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
