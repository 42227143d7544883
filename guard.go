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
	"github.com/m2mauth/m2mauth/internal/claim"
	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/memory"
	"github.com/m2mauth/m2mauth/internal/scope"
)

// Guard lets requests through to handlers if they carry a valid access token that the
// route accepts. Make one per API with [New] and share it, since it holds the issuer's
// keys. A Guard is safe for concurrent use. It needs no Close and runs no goroutine
// while idle.
type Guard struct {
	issuers []*issuer     // one, or several after Join
	scopes  *scope.Policy // for the challenge: what all issuers have in common

	realm         string
	maxTokenBytes int
	waitingBytes  *atomic.Int64 // of tokens that wait for keys
	cacheBytes    int64
	tokens        *tokenCache
	admission     *admission.Controller[checkKey]
	queueKey      func(Request) string
	errorHandler  func(http.ResponseWriter, *http.Request, *Error)
	onDecision    func(context.Context, Decision)
	revoked       func(context.Context, Claims) (bool, error)
	refusals      *refusalLog
	metadataURL   *atomic.Pointer[string] // for the challenge, after a call of Metadata
	dryRun        *dryRun                 // nil without a dry run
	wouldRefuse   *atomic.Uint64          // requests that would be rejected, and passed in a dry run
	enforcing     bool                    // this guard has no dry run

	set []string // the fields among guardFields that the Config set
}

// issuer is what a guard knows about one issuer and requires of its tokens. Only its
// keys change. Joined guards share it.
type issuer struct {
	claims             claimPolicy
	keys               *keySource
	algorithms         map[string]bool // by the names of internal/jose
	algorithmNames     []string
	types              map[string]bool // as returned by jose.MediaType
	typeNames          []string
	allowOrganizations bool
	insecureHosts      []string // Config.InsecureHTTPHosts
}

// guardFields are the fields of a Config that apply to the whole guard. In a joined
// guard, those of the first guard apply to all. All other fields belong to one issuer.
var guardFields = []string{"CacheBytes", "ErrorHandler", "InsecureReportOnlyUntil", "MaxTokenBytes", "OnDecision", "QueueKey", "Realm", "Revoked"}

// New makes a Guard. It does no I/O and starts no goroutine: the first request, or
// [Guard.Warm], fetches the keys. The error lists every mistake in the Config at once.
func New(config Config) (*Guard, error) {
	c, err := config.checked()
	logger := func() *slog.Logger { return cmp.Or(c.Logger, slog.Default()) }
	keys, keysErr := newKeySource(&c, jose.RSAWithoutAlg(config.Algorithms), logger)
	if err := errors.Join(err, keysErr); err != nil {
		return nil, err
	}
	keys.maxTTL = cmp.Or(config.KeyTTL, keys.maxTTL)
	g := &Guard{
		issuers:       []*issuer{newIssuer(&c, keys)},
		realm:         c.Realm,
		maxTokenBytes: c.MaxTokenBytes,
		cacheBytes:    c.CacheBytes,
		queueKey:      c.QueueKey,
		errorHandler:  c.ErrorHandler,
		onDecision:    c.OnDecision,
		revoked:       c.Revoked,
		refusals:      newRefusalLog(logger),
		dryRun:        newDryRun(time.Now(), c.InsecureReportOnlyUntil, logger),
		set: slices.DeleteFunc(slices.Clone(guardFields), func(name string) bool {
			return reflect.ValueOf(config).FieldByName(name).IsZero()
		}),
	}
	g.scopes = scopesOfAll(g.issuers)
	return g.withMemory(), nil
}

// withMemory gives a new guard its cache, its counters and its queue.
func (g *Guard) withMemory() *Guard {
	g.tokens, g.admission = memory.New[*token](g.cacheBytes), admission.New[checkKey]()
	g.waitingBytes, g.wouldRefuse, g.metadataURL = new(atomic.Int64), new(atomic.Uint64), new(atomic.Pointer[string])
	return g
}

func newIssuer(c *Config, keys *keySource) *issuer {
	i := &issuer{
		keys: keys,
		claims: claimPolicy{
			issuer:    c.Issuer,
			audiences: append([]string{c.Audience}, c.OtherAudiences...),
			sought: claim.Sought{
				Scopes:        claim.Names(c.ScopeClaims...),
				Clients:       claim.Names(c.ClientClaims...),
				Organizations: claim.Names(append([]string{"organization_id"}, c.OrganizationClaims...)...),
				Required:      claim.Names(slices.Sorted(maps.Keys(c.RequiredClaims))...),
			},
			leeway:      c.Leeway,
			maxLifetime: c.MaxLifetime,
			isMachine:   c.IsMachine,
			scopes:      scope.NewPolicy(c.ScopePrefix, c.ImpliedScopes),

			organizations:          c.Audience == organizationAudience,
			scopeOrganization:      c.ScopeOrganization,
			missingSubject:         c.AllowMissingSubject,
			clientsWithoutAudience: c.ClientsWithoutAudience,
		},
		algorithms:         make(map[string]bool),
		algorithmNames:     c.Algorithms,
		types:              make(map[string]bool),
		typeNames:          c.TokenTypes,
		allowOrganizations: c.InsecureAllowOrganizationTokens,
		insecureHosts:      c.InsecureHTTPHosts,
	}
	for _, name := range i.claims.sought.Required {
		i.claims.requiredValues = append(i.claims.requiredValues, c.RequiredClaims[name.String()])
	}
	for _, a := range c.Algorithms {
		name, _ := jose.Algorithm(a)
		i.algorithms[name] = true
	}
	for _, t := range c.TokenTypes {
		i.types[jose.MediaType(t)] = true
	}
	return i
}

// scopesOfAll is what holds for the scopes of all the issuers, for a challenge to
// somebody whose issuer is not known.
func scopesOfAll(issuers []*issuer) *scope.Policy {
	policies := make([]*scope.Policy, len(issuers))
	for n, i := range issuers {
		policies[n] = i.claims.scopes
	}
	return scope.Common(policies...)
}

func (g *Guard) ready() bool { return g != nil && len(g.issuers) > 0 }

// tokenBytes is Config.MaxTokenBytes. A guard that is not ready is handled by decide.
func (g *Guard) tokenBytes() int {
	if !g.ready() {
		return 0
	}
	return g.maxTokenBytes
}

// complete tells an error what the challenge needs to know of the guard.
func (g *Guard) complete(e *Error) {
	e.realm = g.realm
	if url := g.metadataURL.Load(); url != nil {
		e.metadataURL = *url
	}
}

// needsOrganization reports whether no token opens a route here whose rule names
// no organization: all are limited to one. Of several issuers it takes all, since
// one whose tokens are not, or may pass, can open the route. The opposite does
// not exist: the organizations of an issuer's tokens are seen, in aud or in
// organization_id, whatever its Config says.
func (g *Guard) needsOrganization() bool {
	return !slices.ContainsFunc(g.issuers, func(i *issuer) bool { return !i.claims.organizations || i.allowOrganizations })
}

// Warm fetches the issuer's keys unless fresh ones are cached, so that the first
// request does not wait. Calling it is optional. Its error, an [*Error] of kind
// ErrUnavailable, says why the keys are unavailable. While retries back off, it returns
// at once. The end of ctx ends the wait, not the fetch. With several issuers, the keys
// of one are enough, so that an outage of another issuer does not make the API unready.
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
