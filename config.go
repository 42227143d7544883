package m2mauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth/internal/claim"
	"github.com/m2mauth/m2mauth/internal/dryrun"
	"github.com/m2mauth/m2mauth/internal/hint"
	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/response"
	"github.com/m2mauth/m2mauth/internal/scope"
	"github.com/m2mauth/m2mauth/internal/setting"
)

// Config configures a [Guard]: which tokens it accepts, and where the issuer's keys
// are. Issuer and Audience are required. The zero value of every other field is a safe
// default.
type Config struct {
	// Issuer is the issuer's identifier, an absolute https URL. A token's iss must
	// equal it byte by byte (RFC 9068 §4). Logto's issuer ends in /oidc:
	// https://your.logto.endpoint/oidc. http is accepted for loopback hosts and
	// InsecureHTTPHosts. If JWKSURL or JWKS is set, it is accepted for any host,
	// since the guard then sends no request to the issuer.
	Issuer string

	// Audience is the API's resource indicator (RFC 8707), exactly as registered
	// with the issuer. A token's aud must contain it byte by byte:
	// https://shopping.api and https://shopping.api/ are two audiences. The bare
	// prefix urn:logto:organization: makes a guard for organization tokens.
	Audience string

	// OtherAudiences are accepted in addition to Audience. Default: none.
	OtherAudiences []string

	// JWKSURL is the URL of the issuer's key set. Default: the jwks_uri of the
	// issuer's discovery document, which must have the issuer's origin (a jwks_uri
	// that differs only by http for https is fetched over https). Set JWKSURL if the
	// keys are on another origin, or if the API cannot reach the discovery document
	// or the host that it names.
	JWKSURL string

	// JWKS is the issuer's key set itself (RFC 7517 §5), for use without a network:
	// the guard then fetches nothing. It excludes JWKSURL. Default: none.
	JWKS []byte

	// InsecureHTTPHosts are hosts that the guard may contact over http, in addition
	// to loopback hosts, such as "logto" or "logto:3001" in Compose or Kubernetes.
	// Anyone who can change a response of such a host can forge tokens. See also
	// [Guard.Metadata]. Default: none.
	InsecureHTTPHosts []string

	// Algorithms are the accepted signature algorithms (RFC 7518 §3.1, RFC 8037, RFC
	// 9864). Default: ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, PS512
	// and EdDSA, which includes its newer name Ed25519. New rejects symmetric
	// algorithms and none. A published RSA key without alg is used for RS256, or for
	// the only RSA algorithm named here. If several are named, it is not used, since
	// a key has one algorithm (RFC 8725 §3.1).
	Algorithms []string

	// TokenTypes are the accepted values of typ in a token's header, in any letter
	// case and with or without "application/". "" accepts a token without typ.
	// Default: at+jwt (RFC 9068 §2.1), which ID tokens do not have. With other
	// types, only the audience keeps ID tokens out.
	TokenTypes []string

	// ScopeClaims are the claims that hold scopes. A token has the scopes of all of
	// them. Each claim is a string of names separated by spaces, or an array of
	// strings with one name each. Default: scope (RFC 9068 §2.2.3).
	//
	// Here and wherever else a claim is named, a name that begins with a slash is a
	// JSON Pointer (RFC 6901) through members of objects, such as
	// /realm_access/roles: / within a name is ~1, and ~ is ~0. If something on the
	// way is not an object, the token does not have the claim. /scope is scope.
	ScopeClaims []string

	// ScopePrefix is what the issuer puts before this API's scopes, such as
	// https://shopping.api/ with Amazon Cognito, which writes a resource server's
	// identifier and a slash before each of its scopes. A token then has only the
	// scopes that begin with it, byte by byte, and has them without it: rules and
	// Claims.Scopes know read:products, the token has
	// https://shopping.api/read:products. The challenge names scopes as the issuer
	// does. Default: none, and scopes are taken as they are.
	ScopePrefix string

	// ScopeOrganization is for an issuer whose scopes are the member names of an
	// object and hold only within the organizations that each member's value names,
	// such as Zitadel's roles: {"reader":{"2345":"acme.example"}}. Each claim of
	// ScopeClaims must then be such an object of objects, or the token gets 401. A
	// token has the scopes whose value has a member with this name, an organization's
	// ID, whatever other organizations it names. Default: none, and a claim that is
	// an object gets 401.
	ScopeOrganization string

	// ImpliedScopes are scopes that include others: with "write:products":
	// {"read:products"}, a token with the first has the second too. Implications
	// follow one another; New rejects a cycle. They are worked out once, when a token
	// is verified. Claims.Scopes lists only the token's own, but its Has methods see
	// all. The challenge leaves out a scope that another one in it includes, and of
	// alternatives names the one that includes the least. Names are those that rules
	// use, without ScopePrefix. Default: none.
	ImpliedScopes map[string][]string

	// ClientClaims are the claims that may name the client, such as azp, appid or
	// cid. A token must have at least one of them, and they must not differ. If sub
	// is among them, IsMachine is required: its default would take users for
	// machines. Default: client_id (RFC 9068 §2.2). See ScopeClaims for JSON Pointers.
	ClientClaims []string

	// OrganizationClaims are claims that limit a token to an organization, in
	// addition to organization_id, such as org_id of Auth0. Each must be a non-empty
	// string, and they must not differ. See ScopeClaims for JSON Pointers. Default:
	// none.
	OrganizationClaims []string

	// RequiredClaims are claims that every token must have, each with the values that
	// are accepted: the claim is one of them, or an array of strings that contains
	// one, byte by byte; for AnyValue it need only be there. Any other token gets 401,
	// also from Verify, whatever the rule. Set it where the audience alone proves little, since the caller chooses
	// it. See ScopeClaims for JSON Pointers. Default: none.
	RequiredClaims map[string][]string

	// AllowMissingSubject accepts tokens without sub, which Duende IdentityServer and
	// PingOne issue to machines. They are a machine's, and IsMachine is not called
	// for them: with the default, a token whose sub is not the client is a user's. It holds for
	// at+jwt too, although RFC 9068 §2.2 requires sub. A sub that is empty or not a
	// string is still refused. Set it only if your issuer never leaves sub out of a
	// user's token. Default: they get 401.
	AllowMissingSubject bool

	// ClientsWithoutAudience are the clients whose tokens may lack aud, as all access
	// tokens of Amazon Cognito do that no resource was asked for. They are accepted at
	// every API that names the client, so a client that calls two APIs can be used by
	// either against the other: separate them by ScopePrefix, or give the client a
	// resource. An aud that is there, null and [] included, must contain an accepted
	// audience. It cannot be set for organization tokens, whose aud is the
	// organization. Default: none.
	ClientsWithoutAudience []string

	// Leeway is how far the clocks of the issuer and the API may differ. A token is
	// accepted for that long after exp. Default: 30 s. Negative: none. At most 10
	// minutes.
	Leeway time.Duration

	// MaxLifetime is the longest accepted lifetime of a token, exp minus iat. If it is
	// set, iat is required. Default: no limit.
	MaxLifetime time.Duration

	// KeyTTL is how long fetched keys stay fresh. A shorter max-age from the issuer,
	// of at least a minute, replaces it. From 1 second to 24 hours. Default: the
	// issuer's max-age, from 1 minute to 1 hour, or 10 minutes without one.
	KeyTTL time.Duration

	// KeyStaleFor is how long after KeyTTL the last good keys are still used if the
	// issuer fails. Default: 1 hour. Negative: not at all. At most 7 days.
	KeyStaleFor time.Duration

	// FetchTimeout limits one attempt to fetch the keys, including discovery, and so
	// how long a request waits for it. Default: 5 s, or a tenth of KeyTTL if that is
	// less. At most 5 minutes, and at most a tenth of KeyTTL, so that a slow refresh
	// ends before the keys expire.
	FetchTimeout time.Duration

	// MaxTokenBytes is the longest accepted access token. A longer one gets 400. From 1
	// KiB to 64 KiB. Entra ID and Keycloak issue longer tokens to users in many groups.
	// Your server and any proxy in front of it must accept such headers too. Default:
	// 8 KiB.
	MaxTokenBytes int

	// CacheBytes limits the memory for verified tokens. Checking a cached token takes
	// about a microsecond. At least 1 MiB. Negative: no cache. Default: 32 MiB, about
	// 16,000 tokens.
	CacheBytes int64

	// QueueKey groups requests that wait for verification. Groups are served in turn,
	// so a flood from one does not delay the others. A group that sent a key ID which
	// the issuer does not have causes no fetch for 10 seconds. Keys that are IPv6
	// addresses or networks in one /48 share one turn. Behind a proxy, return the
	// address that your proxy wrote, as in the example. Default: the host of the
	// peer's address, for IPv6 its /64.
	QueueKey func(Request) string

	// Realm is the realm of the challenge (RFC 6750 §3), in printable ASCII without
	// quotes and backslashes. Default: Audience, without the characters that are not
	// allowed.
	Realm string

	// HTTPClient fetches the discovery document and the keys. Set it for a proxy, a
	// private certificate authority, or tests. The guard uses a copy that follows
	// redirects only within the same origin. Default: a new client, with proxies from
	// the environment.
	HTTPClient *http.Client

	// Logger logs why requests are rejected and what happens to the keys. It never
	// gets a token. Default: slog.Default().
	Logger *slog.Logger

	// ErrorHandler writes the response to a rejected request, such as problem+json (RFC
	// 9457) or a page of your own. WWW-Authenticate, Retry-After and Cache-Control are
	// already set. The status is the error's unless ErrorHandler calls WriteHeader. A
	// status below 400 is replaced by the error's and logged. The exception is 200 for
	// gRPC and Connect streams: ErrorHandler must then write their own status.
	// Default: a small JSON body.
	ErrorHandler func(http.ResponseWriter, *http.Request, *Error)

	// InsecureAllowOrganizationTokens accepts tokens with organization_id on routes
	// whose rule names no organization. Their scopes hold within one Logto organization
	// only. Set it only if your handlers compare Claims.OrganizationID. Otherwise a
	// role in one customer's organization opens the data of all. Default: they get 403.
	InsecureAllowOrganizationTokens bool

	// InsecureReportOnlyUntil starts a dry run, for an API that already has callers. Until
	// then (wall clock) every request passes [Guard.Require], [Guard.Check],
	// [Guard.CheckRequest] and the adapters: the API is as open as without a guard.
	//
	// What would be rejected is reported to OnDecision ([Decision].ReportOnly), counted
	// ([Stats].WouldRefuse) and logged. A handler gets the claims of a token that was
	// verified and is not revoked, also if the rule rejects it, and no claims otherwise. No
	// request waits for keys, or longer than 100 ms for verification or for Revoked: what
	// is not decided by then has the outcome [Undecided].
	//
	// [Guard.Verify] and [Guard.Enforcing] always reject. Once the guard has rejected
	// requests after that time, no change of the clock resumes the dry run. New returns an
	// error if the time is more than 90 days ahead. Default: no dry run.
	InsecureReportOnlyUntil time.Time

	// IsMachine reports whether a token is a machine's rather than a user's. Set it if
	// your issuer puts something other than the client into a machine's sub, as Auth0,
	// Entra ID and Keycloak do (see docs/issuers.md). It is called at each
	// use, concurrently. It must not call Claims.IsMachine or Claims.AppID, which call
	// it. Default: sub equals the client.
	IsMachine func(Claims) bool

	// Revoked reports whether a verified token was revoked since it was issued. It is
	// called at each use of a token, cached ones included, before the route's rule, and
	// concurrently. So it should answer from memory, as the List of package revocation
	// does. The context is the request's. If it returns true, the token gets 401
	// ([ErrRevoked]). If it returns an error, the request gets 503 and the error is
	// logged. While it does not return, requests wait, and streams go on. It is not called
	// again while a response goes on: see [Guard.Recheck].
	// Default: none, at no cost.
	Revoked func(context.Context, Claims) (bool, error)

	// OnDecision is called for every decision, for metrics and audit logs. It is called
	// before the response is written, concurrently. A panic in it is logged and changes
	// nothing for the caller. Default: none, at no cost.
	OnDecision func(context.Context, Decision)
}

// AnyValue among the values of a claim in Config.RequiredClaims accepts every value
// but null. It is no value that a token has or that a setting gives by mistake.
const AnyValue = "\x00any value"

const (
	defaultLeeway      = 30 * time.Second
	maxLeeway          = 10 * time.Minute
	defaultKeyTTL      = 10 * time.Minute
	minKeyTTL          = time.Second
	maxKeyTTL          = 24 * time.Hour
	defaultKeyStaleFor = time.Hour
	defaultCacheBytes  = 32 << 20
	minCacheBytes      = 1 << 20
	maxKeyStaleFor     = 7 * 24 * time.Hour

	// Logto's tokens have about 600 bytes with an EC key and 1,200 with an RSA key.
	// Most servers reject headers over 8 KiB.
	defaultTokenBytes = 8 << 10
	minTokenBytes     = 1 << 10
	maxTokenBytes     = 64 << 10

	defaultTimeout = 5 * time.Second
	maxTimeout     = 5 * time.Minute

	// organizationsResource is an indicator that Logto reserves.
	organizationsResource = setting.OrganizationsResource
	// organizationAudience is the prefix of an organization token's audience.
	organizationAudience = hint.OrganizationAudience
)

var (
	defaultAlgorithms = []string{"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"}
	defaultTypes      = []string{accessTokenType}
)

// checked returns a copy of the Config with every default filled in, and all mistakes
// joined. The copy shares no memory with the caller's.
func (c Config) checked() (Config, error) {
	var m setting.Mistakes
	c.OtherAudiences = slices.Clone(c.OtherAudiences)
	c.InsecureHTTPHosts = slices.Clone(c.InsecureHTTPHosts)
	c.JWKS = slices.Clone(c.JWKS)

	m.Issuer(c.Issuer, c.JWKSURL == "" && c.JWKS == nil, c.InsecureHTTPHosts)
	m.JWKSURL(c.JWKSURL, c.InsecureHTTPHosts)
	m.Hosts(c.InsecureHTTPHosts)
	c.checkNames(&m)
	c.checkScopes(&m)
	c.checkRequired(&m)
	c.checkTimes(&m)
	c.checkAlgorithms(&m)

	if c.JWKSURL != "" && c.JWKS != nil {
		m.Add("JWKS and Config.JWKSURL exclude each other: keys are either given or fetched")
	}
	if response.Quotable(c.Realm) != c.Realm {
		m.Add("Realm: %q must be printable ASCII without quotes and backslashes", c.Realm)
	}
	if c.CacheBytes = setting.OrDefault(c.CacheBytes, defaultCacheBytes); c.CacheBytes > 0 && c.CacheBytes < minCacheBytes {
		m.Add("CacheBytes: %d is too small: it counts bytes, so 32 MiB is 32 << 20; the least is 1 MiB, and a negative number turns the cache off", c.CacheBytes)
	}
	if c.MaxTokenBytes == 0 {
		c.MaxTokenBytes = defaultTokenBytes
	}
	if c.MaxTokenBytes < minTokenBytes || c.MaxTokenBytes > maxTokenBytes {
		m.Add("MaxTokenBytes: %d must be from %d to %d, in bytes: 16 KiB is 16 << 10", c.MaxTokenBytes, minTokenBytes, maxTokenBytes)
	}
	if c.Realm == "" {
		c.Realm = response.Quotable(c.Audience)
	}
	return c, errors.Join(m...)
}

func (c *Config) checkNames(m *setting.Mistakes) {
	if c.Audience != organizationAudience {
		m.Audience("Audience", c.Audience)
	} else if len(c.OtherAudiences) > 0 {
		m.Add("OtherAudiences must be empty where Audience is %s: a guard is for organization tokens or for those of an API", organizationAudience)
	}
	for i, a := range c.OtherAudiences {
		m.Audience(fmt.Sprintf("OtherAudiences[%d]", i), a)
	}
	m.Types(c.TokenTypes)
	c.TokenTypes = setting.ListOrDefault(c.TokenTypes, defaultTypes)
	c.ScopeClaims = claimsOrDefault("ScopeClaims", c.ScopeClaims, m, "scope")
	c.ClientClaims = claimsOrDefault("ClientClaims", c.ClientClaims, m, "client_id")
	c.OrganizationClaims = claimsOrDefault("OrganizationClaims", c.OrganizationClaims, m)
	if slices.Contains(c.ClientClaims, "sub") && c.IsMachine == nil {
		m.Add("ClientClaims: with sub every user of the API would be taken for a machine, since sub is the client in each token then; set IsMachine too, or name the claim that holds the client")
	}
}

// claimsOrDefault returns names of claims in the one spelling of each.
func claimsOrDefault(field string, names []string, m *setting.Mistakes, otherwise ...string) []string {
	names = setting.ListOrDefault(names, otherwise)
	for i, n := range names {
		names[i] = checkClaim(fmt.Sprintf("%s[%d]", field, i), n, cmp.Or(strings.Join(otherwise, ""), "none"), m).String()
	}
	return names
}

func checkClaim(where, name, otherwise string, m *setting.Mistakes) claim.Name {
	if name == "" || strings.ContainsAny(name, " ,\t\r\n") {
		m.Add("%s is empty, or holds white space or a comma: name one claim, or leave the field out for %s", where, otherwise)
		return claim.Name{}
	}
	parsed, err := claim.ParseName(name)
	if err != nil {
		m.Add("%s: %q: %w; a slash in a claim's own name is written ~1", where, name, err)
	}
	return parsed
}

// checkRequired checks what is demanded of claims, and which demands are dropped.
func (c *Config) checkRequired(m *setting.Mistakes) {
	var required map[string][]string
	for _, name := range slices.Sorted(maps.Keys(c.RequiredClaims)) {
		where, values := fmt.Sprintf("RequiredClaims[%q]", name), c.RequiredClaims[name]
		claim := checkClaim(where, name, "none", m).String()
		if len(values) == 0 || slices.Contains(values, "") {
			m.Add("%s has no value or an empty one, which no token can match", where)
		}
		if _, twice := required[claim]; twice && claim != "" {
			m.Add("%s is a claim that is there already under another spelling", where)
		}
		setIn(&required, claim, values)
	}
	c.RequiredClaims = required
	c.ClientsWithoutAudience = slices.Clone(c.ClientsWithoutAudience)
	if slices.Contains(c.ClientsWithoutAudience, "") {
		m.Add("ClientsWithoutAudience: a client's name is empty: it is a list of clients, not a switch")
	}
	if len(c.ClientsWithoutAudience) > 0 && c.Audience == organizationAudience {
		m.Add("ClientsWithoutAudience must be empty where Audience is %s: the organization is in aud", organizationAudience)
	}
}

func setIn(m *map[string][]string, name string, values []string) {
	if *m == nil {
		*m = make(map[string][]string)
	}
	(*m)[name] = slices.Clone(values)
}

func (c *Config) checkScopes(m *setting.Mistakes) {
	if !scope.Valid(c.ScopePrefix) && c.ScopePrefix != "" {
		m.Add("ScopePrefix: %q holds white space or a control character, which no scope does", c.ScopePrefix)
	}
	m.Trimmed("ScopeOrganization", c.ScopeOrganization)
	var implied map[string][]string
	for _, whole := range slices.Sorted(maps.Keys(c.ImpliedScopes)) {
		for _, name := range append([]string{whole}, c.ImpliedScopes[whole]...) {
			if !scope.Valid(name) {
				m.Add("ImpliedScopes[%q]: %q cannot be a scope; give each scope by itself, without white space", whole, name)
			}
		}
		setIn(&implied, whole, c.ImpliedScopes[whole])
	}
	c.ImpliedScopes = implied
	if cycle := scope.Cycle(implied); cycle != nil {
		m.Add("ImpliedScopes: %s is a cycle: scopes that include one another are one scope", strings.Join(cycle, " > "))
	}
}

func (c *Config) checkTimes(m *setting.Mistakes) {
	if c.Leeway = setting.OrDefault(c.Leeway, defaultLeeway); c.Leeway > maxLeeway {
		m.Add("Leeway: %v is over %v, which would accept tokens long expired", c.Leeway, maxLeeway)
	}
	if c.MaxLifetime < 0 {
		m.Add("MaxLifetime: %v is negative; leave it out for no bound", c.MaxLifetime)
	}
	m.Unit("Leeway", c.Leeway)
	m.Unit("MaxLifetime", c.MaxLifetime)
	m.Unit("FetchTimeout", c.FetchTimeout)
	if left := time.Until(c.InsecureReportOnlyUntil.Round(0)); left > dryrun.Longest {
		m.Add("InsecureReportOnlyUntil: %s is more than %d days ahead, and until then the guard rejects nobody: choose an earlier date, which you can move later",
			c.InsecureReportOnlyUntil.Format(time.RFC3339), dryrun.Longest/(24*time.Hour))
	}
	if c.KeyTTL == 0 {
		c.KeyTTL = defaultKeyTTL
	}
	if c.KeyTTL < minKeyTTL || c.KeyTTL > maxKeyTTL {
		m.Add("KeyTTL: %v must be from %v to %v", c.KeyTTL, minKeyTTL, maxKeyTTL)
		c.KeyTTL = defaultKeyTTL // FetchTimeout is compared with it
	}
	if c.KeyStaleFor = setting.OrDefault(c.KeyStaleFor, defaultKeyStaleFor); c.KeyStaleFor > maxKeyStaleFor {
		m.Add("KeyStaleFor: %v is over %v: a withdrawn key would be accepted for as long", c.KeyStaleFor, maxKeyStaleFor)
	}
	if c.FetchTimeout == 0 {
		c.FetchTimeout = min(defaultTimeout, c.KeyTTL/10)
	}
	if c.FetchTimeout < 0 || c.FetchTimeout > min(c.KeyTTL/10, maxTimeout) {
		m.Add("FetchTimeout: %v must be above 0, at most a tenth of Config.KeyTTL (%v), so that a slow refresh ends before the keys do, and at most %v",
			c.FetchTimeout, c.KeyTTL, maxTimeout)
	}
}

func (c *Config) checkAlgorithms(m *setting.Mistakes) {
	for i, a := range c.Algorithms {
		if _, ok := jose.Algorithm(a); !ok {
			m.Add("Algorithms[%d]: %q is not accepted; use some of %s (never none or a symmetric algorithm)", i, a, strings.Join(defaultAlgorithms, ", "))
		}
	}
	c.Algorithms = setting.ListOrDefault(c.Algorithms, defaultAlgorithms)
}
