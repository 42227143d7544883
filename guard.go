package m2mauth

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/m2mauth/m2mauth/internal/admission"
	"github.com/m2mauth/m2mauth/internal/jose"
)

// Guard lets requests through to handlers if they carry a valid access token
// that the route accepts. Make one with [New], once for an API, and share it: it
// holds the issuer's keys. A Guard is safe for concurrent use, needs no closing,
// and has no goroutine while nothing happens.
type Guard struct {
	issuers []*issuer    // one, or those that were joined
	scopes  *scopePolicy // for the challenge: what all of them say

	realm         string
	maxTokenBytes int
	waitingBytes  *atomic.Int64 // of tokens that wait for keys
	tokens        *tokenCache
	admission     *admission.Controller[checkKey]
	queueKey      func(Request) string
	errorHandler  func(http.ResponseWriter, *http.Request, *Error)
	onDecision    func(context.Context, Decision)
	refusals      *refusalLog
	metadataURL   *atomic.Pointer[string] // for the challenge, once Metadata was called
	dryRun        *dryRun                 // nil without one
	wouldRefuse   *atomic.Uint64          // requests that passed all the same
	enforcing     bool                    // there is no dry run for this guard

	set []string // those of guardFields that the Config set
}

// issuer is what a guard knows of one issuer and demands of its tokens. It never
// changes, but for its keys, and joined guards share it.
type issuer struct {
	claims             claimPolicy
	keys               *keySource
	algorithms         map[string]bool // under the names of internal/jose
	algorithmNames     []string
	types              map[string]bool // as mediaType gives them
	typeNames          []string
	allowOrganizations bool
}

// guardFields are the fields of a Config that are the whole guard's: where guards
// are joined, the first one's hold for all. All other fields are an issuer's.
var guardFields = []string{"CacheBytes", "ErrorHandler", "InsecureReportOnlyUntil", "MaxTokenBytes", "OnDecision", "QueueKey", "Realm"}

// New makes a Guard. It does no I/O and starts no goroutine: keys are fetched by
// the first request, or by [Guard.Warm]. The error names every mistake in the
// Config at once.
func New(config Config) (*Guard, error) {
	c, err := config.checked()
	logger := func() *slog.Logger { return cmp.Or(c.Logger, slog.Default()) }
	keys, keysErr := newKeySource(&c, rsaWithoutAlg(config.Algorithms), logger)
	if err := errors.Join(err, keysErr); err != nil {
		return nil, err
	}
	keys.maxTTL = cmp.Or(config.KeyTTL, keys.maxTTL)
	g := &Guard{
		issuers:       []*issuer{newIssuer(&c, keys)},
		realm:         c.Realm,
		maxTokenBytes: c.MaxTokenBytes,
		queueKey:      c.QueueKey,
		errorHandler:  c.ErrorHandler,
		onDecision:    c.OnDecision,
		refusals:      newRefusalLog(logger),
		dryRun:        newDryRun(time.Now(), c.InsecureReportOnlyUntil, logger),
		set: slices.DeleteFunc(slices.Clone(guardFields), func(name string) bool {
			return reflect.ValueOf(config).FieldByName(name).IsZero()
		}),
	}
	g.scopes = scopesOfAll(g.issuers)
	return g.withMemory(c.CacheBytes), nil
}

// withMemory gives a new guard what it remembers and counts, and who waits.
func (g *Guard) withMemory(bytes int64) *Guard {
	g.tokens, g.admission = newTokenCache(bytes), admission.New[checkKey]()
	g.waitingBytes, g.wouldRefuse, g.metadataURL = new(atomic.Int64), new(atomic.Uint64), new(atomic.Pointer[string])
	return g
}

func newIssuer(c *Config, keys *keySource) *issuer {
	i := &issuer{
		keys: keys,
		claims: claimPolicy{
			issuer:       c.Issuer,
			audiences:    append([]string{c.Audience}, c.OtherAudiences...),
			scopeClaims:  claimNames(c.ScopeClaims),
			clientClaims: claimNames(c.ClientClaims),
			leeway:       c.Leeway,
			maxLifetime:  c.MaxLifetime,
			isMachine:    c.IsMachine,
			scopes:       newScopePolicy(c),

			organizations:          c.Audience == organizationAudience,
			organizationClaims:     claimNames(append([]string{"organization_id"}, c.OrganizationClaims...)),
			required:               claimNames(slices.Sorted(maps.Keys(c.RequiredClaims))),
			missingSubject:         c.AllowMissingSubject,
			clientsWithoutAudience: c.ClientsWithoutAudience,
		},
		algorithms:         make(map[string]bool),
		algorithmNames:     c.Algorithms,
		types:              make(map[string]bool),
		typeNames:          c.TokenTypes,
		allowOrganizations: c.InsecureAllowOrganizationTokens,
	}
	for _, claim := range i.claims.required {
		i.claims.requiredValues = append(i.claims.requiredValues, c.RequiredClaims[claim.text])
	}
	for _, a := range c.Algorithms {
		name, _ := jose.Algorithm(a)
		i.algorithms[name] = true
	}
	for _, t := range c.TokenTypes {
		i.types[mediaType(t)] = true
	}
	return i
}

// rsaWithoutAlg returns the algorithm of published RSA keys without alg: RS256
// (Logto's), or the only RSA algorithm of those configured, or none.
func rsaWithoutAlg(configured []string) string {
	if len(configured) == 0 {
		return "RS256"
	}
	rsa := slices.DeleteFunc(slices.Clone(configured), func(a string) bool { return !jose.IsRSA(a) })
	if slices.Sort(rsa); len(slices.Compact(rsa)) != 1 {
		return ""
	}
	return rsa[0]
}

func (g *Guard) ready() bool { return g != nil && len(g.issuers) > 0 }

// tokenBytes is Config.MaxTokenBytes; for a guard that is none, decide has the answer.
func (g *Guard) tokenBytes() int {
	if !g.ready() {
		return 0
	}
	return g.maxTokenBytes
}

// needsOrganization reports whether no token opens a route here whose rule names
// no organization: all are limited to one. Of several issuers it takes all, since
// one whose tokens are not, or may pass, can open the route. The opposite does
// not exist: the organizations of an issuer's tokens are seen, in aud or in
// organization_id, whatever its Config says.
func (g *Guard) needsOrganization() bool {
	return !slices.ContainsFunc(g.issuers, func(i *issuer) bool { return !i.claims.organizations || i.allowOrganizations })
}

// Warm fetches the issuer's keys if there are none that are fresh, so that the
// first request need not wait. It is never needed. Its error, an [*Error] of kind
// ErrUnavailable, says why keys cannot be had; while retries back off it returns
// at once. Ending ctx ends the wait, not the fetch. Of several issuers the keys of one
// are enough, so that another issuer's outage does not make the API unready.
func (g *Guard) Warm(ctx context.Context) error {
	if !g.ready() {
		return newError(ErrInternal, "the guard was not made by New")
	}
	ended := make(chan *Error, len(g.issuers))
	for _, i := range g.issuers {
		go func() {
			_, _, e := i.keys.get(ctx, time.Now(), held{})
			ended <- e
		}()
	}
	var all []error
	var e *Error
	for range g.issuers {
		if e = <-ended; e == nil {
			return nil
		}
		all = append(all, e)
	}
	if len(all) == 1 {
		return e
	}
	return unavailable(time.Second, errors.Join(all...))
}
