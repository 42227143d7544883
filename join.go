package m2mauth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Join combines guards into one, for an API that accepts tokens from several issuers,
// such as two Logto tenants, or one server under two domains. The token's iss, which is
// not trusted yet, selects the issuer. Everything is then checked against that issuer's
// Config: audience, algorithms, types and keys. A token from an unknown issuer gets 401
// without a fetch.
//
// CacheBytes, ErrorHandler, InsecureReportOnlyUntil, MaxTokenBytes, OnDecision,
// QueueKey, Realm, Revoked and the Logger for rejections are those of the first guard.
// Each guard logs about its keys with its own Logger.
//
// Rules apply to the tokens of every issuer, and so trust all issuers equally. Client
// and organization IDs are unique only within one issuer. If two issuers can give out
// the same ID, by chance or on purpose, add HasClaim("iss", …) to the rule.
//
// The error says which guard is nil, was already joined, has the same issuer as
// another, or sets a field that only the first may set.
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
		cacheBytes:    first.cacheBytes,
		queueKey:      first.queueKey,
		errorHandler:  first.errorHandler,
		onDecision:    first.onDecision,
		revoked:       first.revoked,
		refusals:      first.refusals,
		dryRun:        first.dryRun,
		enforcing:     first.enforcing,
	}
	return all.withMemory(), nil
}

func (i *issuer) sameName(other *issuer) bool { return i.claims.issuer == other.claims.issuer }
