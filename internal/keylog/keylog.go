// Package keylog says in words what happens to an issuer's key set: in lines of the log
// for operators, and to callers whose token's key is not in it.
package keylog

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/keyset"
)

const (
	maxOdd = 10 // unusable keys of a level and a set
	maxIDs = 10 // in a line
)

// Log writes about one issuer's key sets.
type Log struct {
	Issuer string
	Logger func() *slog.Logger

	overHTTP sync.Once // a jwks_uri over http was logged
}

// Failed logs a failed fetch. If serving, the last good keys serve until a moment.
func (l *Log) Failed(err error, retry time.Time, serving bool, until time.Time) {
	defer func() { _ = recover() }() // a user's slog.Handler must not crash the process from the fetch's goroutine
	level := slog.LevelError
	attrs := []slog.Attr{slog.String("issuer", l.Issuer), slog.String("reason", err.Error()), slog.Time("next_attempt", retry.UTC())}
	if serving {
		level = slog.LevelWarn
		attrs = append(attrs, slog.Time("last_good_keys_serve_until", until.UTC()))
	}
	l.Logger().LogAttrs(context.Background(), level, "m2mauth: the issuer's keys could not be fetched", attrs...)
}

// Fetched logs a fetched set, with its new and withdrawn keys, and the end of an outage.
// The old set is nil for the first one.
func (l *Log) Fetched(set, old *keyset.Set, nextRefresh time.Time, failedBefore bool) {
	defer func() { _ = recover() }() // as in Failed
	level := slog.LevelInfo
	if old != nil && !failedBefore {
		level = slog.LevelDebug
	}
	log := func(level slog.Level, message string, attrs ...slog.Attr) {
		attrs = append([]slog.Attr{slog.String("issuer", l.Issuer), slog.String("keys_from", address(set))}, attrs...)
		l.Logger().LogAttrs(context.Background(), level, message, attrs...)
	}
	log(level, "m2mauth: the issuer's keys were fetched", slog.Int("keys", len(set.Keys)), slog.Time("next_refresh", nextRefresh.UTC()))
	if old == nil {
		return
	}
	for _, change := range []struct {
		message string
		keys    []*jose.Key
	}{ // of usable keys; Odd logs the others
		{"m2mauth: the issuer publishes new keys", without(set.Keys, old.Keys)},
		{"m2mauth: the issuer has withdrawn keys, whose tokens are refused from now on", without(old.Keys, set.Keys)},
	} {
		if len(change.keys) > 0 {
			log(slog.LevelInfo, change.message, slog.String("kids", idsOf(change.keys)), slog.Int("keys", len(change.keys)))
		}
	}
}

// without returns the usable keys that others lacks.
func without(keys, others []*jose.Key) []*jose.Key {
	return slices.DeleteFunc(slices.Clone(keys), func(k *jose.Key) bool { return k.Problem() != nil || slices.Contains(others, k) })
}

// idsOf lists some key IDs.
func idsOf(keys []*jose.Key) string {
	var kids []string
	for _, key := range keys[:min(len(keys), maxIDs)] {
		id, _ := key.ID()
		kids = append(kids, keyset.Loggable(id))
	}
	return strings.Join(kids, " ")
}

// address says where keys come from.
func address(set *keyset.Set) string { return cmp.Or(set.Address(), "Config.JWKS") }

// Found logs what a fetch, also one that failed, found on its way.
func (l *Log) Found(found keyset.Found) {
	if found.NotReread != nil {
		l.Logger().Warn("m2mauth: the discovery document could not be read again; its last jwks_uri is used", "reason", found.NotReread.Error())
	}
	if found.HTTPKeys != "" {
		l.overHTTP.Do(func() {
			l.Logger().Warn("m2mauth: the issuer names its key set over http, and it is asked for over https: at a Logto behind a proxy that ends TLS set TRUST_PROXY_HEADER=1",
				"issuer", l.Issuer, "jwks_uri", found.HTTPKeys)
		})
	}
}

// oddLines says how each kind of oddity is logged.
var oddLines = map[keyset.OddityKind]struct {
	level slog.Level
	text  string
}{
	keyset.Unusable:      {slog.LevelWarn, "m2mauth: a published key cannot be used and is left out"},
	keyset.ForEncryption: {slog.LevelDebug, "m2mauth: a published key cannot be used and is left out"},
	keyset.Ambiguous:     {slog.LevelWarn, "m2mauth: different keys are published under one name, and the tokens that they sign are refused"},
}

// Odd logs the oddities that the old set did not have. It may be nil.
func (l *Log) Odd(set, old *keyset.Set) {
	known, logged := make(map[string]bool), make(map[slog.Level]int)
	if old != nil {
		for _, o := range old.Oddities {
			known[o.ID] = true
		}
	}
	for _, o := range set.Oddities {
		line := oddLines[o.Kind]
		if !known[o.ID] && logged[line.level] < maxOdd {
			logged[line.level]++
			l.Logger().Log(context.Background(), line.level, line.text, "url", address(set), "reason", o.Reason, "odd_keys", len(set.Oddities))
		}
		known[o.ID] = true
	}
}

// WhyNoKey says to a caller why [keyset.Set.Find] found no key.
func WhyNoKey(set *keyset.Set, kid string, hasKID bool, alg string) string {
	fits := func(k *jose.Key) bool { return k.Algorithm() == alg }
	switch {
	case hasKID && len(set.ByID[kid]) == 0:
		return "the issuer publishes no key with the token's key ID: it was rotated out, or this API has the keys of another server"
	case hasKID && !slices.ContainsFunc(set.ByID[kid], fits):
		return "the issuer publishes the token's key, but it cannot be used: its use, its algorithm or its form does not fit the token"
	case hasKID:
		return "the issuer publishes several different keys with the token's key ID, and which one signed it cannot be told"
	case slices.ContainsFunc(set.Keys, fits):
		return "the token names no key, and the issuer publishes several that may have signed it"
	}
	return "the token names no key, and the issuer publishes none for its algorithm"
}

// NoKey says to an operator what the token named, and what was published.
func NoKey(set *keyset.Set, kid string, hasKID bool, alg string) []slog.Attr {
	var published []string
	if hasKID {
		for _, k := range set.ByID[kid] {
			if err := k.Problem(); err != nil {
				published = append(published, err.Error())
			} else {
				published = append(published, "for "+k.Algorithm())
			}
		}
	}
	return []slog.Attr{
		slog.String("kid", keyset.Loggable(kid)), slog.String("alg", alg),
		slog.String("published", keyset.Loggable(strings.Join(published, "; "))),
		slog.String("keys_from", address(set)), slog.Int("keys", len(set.Keys)),
	}
}
