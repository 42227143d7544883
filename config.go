package m2mauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/keyset"
)

// Config says which tokens a [Guard] accepts and where the issuer's keys are.
// Issuer and Audience are required; the zero value of every other field is a
// safe default.
type Config struct {
	// Issuer is the issuer's identifier, an absolute https URL, which must
	// equal iss byte by byte (RFC 9068 §4). Logto's ends in /oidc:
	// https://your.logto.endpoint/oidc. http is accepted for loopback hosts
	// and InsecureHTTPHosts, and for any host where JWKSURL or JWKS is set, since
	// the issuer is then never asked.
	Issuer string

	// Audience is the API's resource indicator (RFC 8707), exactly as it is
	// registered at the issuer: aud must hold it byte by byte, so that
	// https://shopping.api and https://shopping.api/ are two audiences. The
	// bare prefix urn:logto:organization: makes a guard for organization tokens.
	Audience string

	// OtherAudiences are accepted as well as Audience. Default: none.
	OtherAudiences []string

	// JWKSURL is where the issuer's key set is. Default: where the issuer's
	// discovery document says, if that has the issuer's own origin (one that
	// has http for the issuer's https is asked over https). Set it where keys are on another origin, or where discovery cannot be reached
	// or names a host that cannot be reached from here.
	JWKSURL string

	// JWKS is the issuer's key set itself (RFC 7517 §5), for places without a
	// network: nothing is fetched then. Not together with JWKSURL.
	JWKS []byte

	// InsecureHTTPHosts are hosts, besides loopback, that may be asked over http,
	// such as "logto" or "logto:3001" in compose or Kubernetes. Whoever can
	// change what such a host answers can forge tokens. Default: none.
	InsecureHTTPHosts []string

	// Algorithms are the signature algorithms accepted (RFC 7518 §3.1, RFC 8037,
	// RFC 9864). Default: ES256, ES384, ES512, RS256, RS384, RS512, PS256,
	// PS384, PS512 and EdDSA, which includes its newer name Ed25519. Symmetric
	// algorithms and none are refused. A published RSA key without alg is for
	// RS256, or for the only RSA algorithm named here; where several are named
	// it cannot be used, since a key has one algorithm (RFC 8725 §3.1).
	Algorithms []string

	// TokenTypes are the values of the header's typ accepted, in any letter
	// case and with or without "application/"; "" stands for a token without
	// typ. Default: at+jwt (RFC 9068 §2.1), which ID tokens do not have. With
	// other types, it is the audience alone that keeps ID tokens out.
	TokenTypes []string

	// ScopeClaims are the claims that hold permissions; a token's permissions
	// are those of all of them. Default: scope (RFC 9068 §2.2.3). Each is a
	// string of names with spaces between them, or an array of strings, of
	// which each is one name.
	ScopeClaims []string

	// ClientClaims are the claims that may name the client. Default:
	// client_id (RFC 9068 §2.2). Others are azp, appid, cid. At least one must
	// be there, and two must not differ. With sub among them, IsMachine is
	// required: by default it would take users for machines.
	ClientClaims []string

	// Leeway is how far the clocks of issuer and API may differ. Default: 30 s;
	// negative: none; at most 10 minutes.
	Leeway time.Duration

	// MaxLifetime bounds exp - iat. Default 0: no bound. With a bound, iat is
	// required.
	MaxLifetime time.Duration

	// KeyTTL is how long fetched keys are fresh at most; a shorter max-age of the
	// issuer, of a minute or more, takes its place. From 1 second to 24 hours.
	// Default: the issuer's max-age, from 1 minute to 1 hour, or 10 minutes.
	KeyTTL time.Duration

	// KeyStaleFor is how long after KeyTTL the last good keys still serve if
	// the issuer fails. Default: 1 hour; negative: not at all; at most 7 days.
	KeyStaleFor time.Duration

	// FetchTimeout bounds one attempt to get the keys, discovery included, and
	// so what a request may wait for it. Default: 5 s, or a tenth of KeyTTL if
	// that is less; at most a tenth of KeyTTL, so that a slow refresh ends
	// before the keys do, and at most 5 minutes.
	FetchTimeout time.Duration

	// MaxTokenBytes bounds an access token; a longer one gets 400. Default: 8 KiB,
	// at most 64 KiB. Entra ID and Keycloak write longer ones where a user has
	// many groups. Servers and proxies in front must read header fields of that
	// length too.
	MaxTokenBytes int

	// CacheBytes bounds the memory for tokens that were verified, so that a
	// token seen before costs about a microsecond. Default: 32 MiB, some 16,000
	// tokens; at least 1 MiB; negative: none is remembered.
	CacheBytes int64

	// QueueKey says whom a request counts as where new tokens must wait to be
	// verified: sources are served in turn, so that a flood from one does not
	// delay the others. One that asks for a key ID which the issuer does not have
	// causes no fetch for 10 seconds. Default: the host of the peer's address, for
	// IPv6 its /64. Behind a proxy, take the address that the proxy vouches for.
	// Sources that are IPv6 addresses or networks of one /48 share one turn.
	QueueKey func(Request) string

	// Realm is the realm of the challenge (RFC 6750 §3): printable ASCII
	// without quotes and backslashes. Default: Audience, without characters
	// that cannot stand there.
	Realm string

	// HTTPClient fetches the discovery document and the keys, for proxies,
	// private certificate authorities and tests. A copy is used that follows
	// redirects within the same origin alone. Default: a client of the guard's
	// own, with proxies from the environment.
	HTTPClient *http.Client

	// Logger is told why requests are refused and what happens to the keys,
	// never a token. Default: slog.Default().
	Logger *slog.Logger

	// ErrorHandler writes the answer to a refused request, for those who want
	// problem+json or a page of their own. WWW-Authenticate, Retry-After and
	// Cache-Control are set already. The status is the refusal's unless the
	// ErrorHandler calls WriteHeader, and one below 400 is replaced by it and
	// logged, but for the 200 of gRPC and of Connect's streams, whose own status
	// it must then write. Default: a small JSON body.
	ErrorHandler func(http.ResponseWriter, *http.Request, *Error)

	// InsecureAllowOrganizationTokens lets tokens with organization_id through, whose
	// scopes hold within one Logto organization only. Default: they get 403.
	// Set it only if your handlers compare Claims.OrganizationID themselves:
	// otherwise a role in one customer's organization opens the data of all.
	InsecureAllowOrganizationTokens bool

	// IsMachine tells a machine's token from a user's where sub is not the
	// client, as with Auth0, Entra ID and Keycloak (see the README). It is called
	// at each use, by many goroutines, and must not call Claims.IsMachine or
	// Claims.AppID, which ask it. Default: sub equals the client.
	IsMachine func(Claims) bool

	// OnDecision is told of every decision, for metrics and audit. It is called
	// before the answer is given, by many goroutines; a panic in it changes
	// nothing for the caller. Default: none, at no cost.
	OnDecision func(context.Context, Decision)
}

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

	// Logto's tokens have some 600 bytes with an EC key and 1,200 with an RSA key;
	// most servers refuse header fields over 8 KiB.
	defaultTokenBytes = 8 << 10
	minTokenBytes     = 1 << 10
	maxTokenBytes     = 64 << 10

	defaultTimeout = 5 * time.Second
	maxTimeout     = 5 * time.Minute

	// organizationsResource is an indicator that Logto reserves: any of its
	// applications gets a token for it with every permission that it names.
	organizationsResource = "urn:logto:resource:organizations"
	// organizationAudience begins the audience of an organization token.
	organizationAudience = "urn:logto:organization:"
)

var (
	defaultAlgorithms = []string{"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"}
	defaultTypes      = []string{accessTokenType}
)

// mistakes gathers what is wrong with a Config, so that all is told at once.
type mistakes []error

func (m *mistakes) add(format string, args ...any) {
	*m = append(*m, fmt.Errorf("m2mauth: Config."+format, args...))
}

// checked returns a copy of the Config with every default filled in, sharing no
// memory with the caller's, and all mistakes joined.
func (c Config) checked() (Config, error) {
	var m mistakes
	c.OtherAudiences = slices.Clone(c.OtherAudiences)
	c.InsecureHTTPHosts = slices.Clone(c.InsecureHTTPHosts)
	c.JWKS = slices.Clone(c.JWKS)

	c.checkURLs(&m)
	c.checkNames(&m)
	c.checkTimes(&m)
	c.checkAlgorithms(&m)

	if c.JWKSURL != "" && c.JWKS != nil {
		m.add("JWKS and Config.JWKSURL exclude each other: keys are either given or fetched")
	}
	if quotable(c.Realm) != c.Realm {
		m.add("Realm: %q must be printable ASCII without quotes and backslashes", c.Realm)
	}
	switch {
	case c.CacheBytes == 0:
		c.CacheBytes = defaultCacheBytes
	case c.CacheBytes < 0:
		c.CacheBytes = 0
	case c.CacheBytes < minCacheBytes:
		m.add("CacheBytes: %d is too small: it counts bytes, so 32 MiB is 32 << 20; the least is 1 MiB, and a negative number turns the cache off", c.CacheBytes)
	}
	if c.MaxTokenBytes == 0 {
		c.MaxTokenBytes = defaultTokenBytes
	}
	if c.MaxTokenBytes < minTokenBytes || c.MaxTokenBytes > maxTokenBytes {
		m.add("MaxTokenBytes: %d must be from %d to %d, in bytes: 16 KiB is 16 << 10", c.MaxTokenBytes, minTokenBytes, maxTokenBytes)
	}
	if c.Realm == "" {
		c.Realm = quotable(c.Audience)
	}
	return c, errors.Join(m...)
}

func (c *Config) checkNames(m *mistakes) {
	if c.Audience != organizationAudience {
		checkAudience("Audience", c.Audience, m)
	} else if len(c.OtherAudiences) > 0 {
		m.add("OtherAudiences must be empty where Audience is %s: a guard is for organization tokens or for those of an API", organizationAudience)
	}
	for i, a := range c.OtherAudiences {
		checkAudience(fmt.Sprintf("OtherAudiences[%d]", i), a, m)
	}
	for i, t := range c.TokenTypes {
		if strings.EqualFold(t, "application/") || strings.ContainsAny(t, " ,\t\r\n") {
			m.add("TokenTypes[%d]: %q is no type: name one such as at+jwt, or \"\" for a token without typ", i, t)
		}
	}
	c.TokenTypes = withDefault(c.TokenTypes, defaultTypes)
	c.ScopeClaims = namesOrDefault("ScopeClaims", c.ScopeClaims, "scope", m)
	c.ClientClaims = namesOrDefault("ClientClaims", c.ClientClaims, "client_id", m)
	if slices.Contains(c.ClientClaims, "sub") && c.IsMachine == nil {
		m.add("ClientClaims: with sub every user of the API would be taken for a machine, since sub is the client in each token then; set IsMachine too, or name the claim that holds the client")
	}
}

func checkAudience(field, audience string, m *mistakes) {
	switch {
	case audience == "":
		m.add("%s is empty: set it to the API's resource indicator, such as https://shopping.api", field)
	case strings.HasPrefix(audience, organizationAudience):
		m.add("%s: for organization tokens make a guard of their own, with Audience %s and rules that name the organization", field, organizationAudience)
	case audience == organizationsResource:
		m.add("%s: %s is reserved, and any application of a Logto tenant gets a token for it with every permission; set it to your API's identifier", field, audience)
	case strings.Contains(audience, "://") && (strings.Contains(audience, ",http") || strings.ContainsAny(audience, " \t")):
		m.add("%s: %q looks like several; name one here, and the others in OtherAudiences", field, audience)
	}
	if strings.TrimFunc(audience, impossibleInScope) != audience {
		m.add("%s: %q begins or ends with white space, perhaps a line break", field, audience)
	}
}

func withDefault(list, otherwise []string) []string {
	if len(list) == 0 {
		return otherwise
	}
	return slices.Clone(list)
}

func namesOrDefault(field string, names []string, otherwise string, m *mistakes) []string {
	for i, n := range names {
		if n == "" || strings.ContainsAny(n, " ,\t\r\n") {
			m.add("%s[%d] is empty, or holds white space or a comma: name one claim, or leave the field out for %s", field, i, otherwise)
		}
	}
	return withDefault(names, []string{otherwise})
}

func (c *Config) checkURLs(m *mistakes) {
	if u := c.checkURL("Issuer", c.Issuer, "https://your.logto.endpoint/oidc", m); u != nil {
		if u.RawQuery != "" || u.ForceQuery {
			m.add("Issuer must not have a query (RFC 8414 §2)")
		}
		switch {
		case keyset.IsDiscovery(u.Path):
			m.add("Issuer must not be the discovery document, which is found by itself: leave out /.well-known/…, as in https://your.logto.endpoint/oidc")
		case strings.HasSuffix(u.Path, "/oidc/token"), strings.HasSuffix(u.Path, "/oidc/jwks"), strings.Contains(u.Path, "/.well-known/"):
			m.add("Issuer must not be the token endpoint or the key set: the issuer of Logto ends in /oidc")
		}
	}
	if c.JWKSURL != "" {
		if u := c.checkURL("JWKSURL", c.JWKSURL, "https://your.logto.endpoint/oidc/jwks", m); u != nil && keyset.IsDiscovery(u.Path) {
			m.add("JWKSURL must not be the discovery document, which is found by itself: leave JWKSURL out, or set it to the document's jwks_uri, such as https://your.logto.endpoint/oidc/jwks")
		}
	}
	for i, h := range c.InsecureHTTPHosts {
		if h == "" || strings.ContainsAny(h, "/ \t@?#") {
			m.add("InsecureHTTPHosts[%d]: %q must be a host, or a host and a port, such as logto or logto:3001", i, h)
		}
	}
}

// checkURL shows nothing of a URL that may hold secrets: a user name, a
// password, or a query.
func (c *Config) checkURL(field, value, example string, m *mistakes) *url.URL {
	if value == "" {
		m.add("%s is empty: set it to an absolute URL, such as %s", field, example)
		return nil
	}
	if strings.ContainsFunc(value, impossibleInScope) {
		m.add("%s must be an absolute https URL without white space and control characters (a line break at its end?), such as %s", field, example)
		return nil
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") {
		m.add("%s must be an absolute https URL, such as %s", field, example)
		return nil
	}
	if u.User != nil {
		m.add("%s must not hold a user name or password", field)
	}
	if strings.Contains(value, "#") {
		m.add("%s must not have a fragment", field)
	}
	neverAsked := field == "Issuer" && (c.JWKSURL != "" || c.JWKS != nil)
	if !neverAsked && !mayAsk(u, c.InsecureHTTPHosts) {
		m.add("%s must be https, not http to %s; http is for loopback hosts and for those that Config.InsecureHTTPHosts names", field, u.Host)
	}
	return u
}

// mayAsk reports whether a URL's host may be asked with its scheme. Keys that
// came over plain http could be anyone's.
func mayAsk(u *url.URL, plainHTTPHosts []string) bool {
	switch u.Scheme {
	case "https":
		return true
	case "http":
		host := u.Hostname()
		ip := net.ParseIP(host)
		return keyset.LowerASCII(host) == "localhost" || (ip != nil && ip.IsLoopback()) ||
			slices.ContainsFunc(plainHTTPHosts, func(h string) bool {
				h = keyset.LowerASCII(h)
				return h == keyset.LowerASCII(host) || h == keyset.LowerASCII(net.JoinHostPort(host, keyset.Port(u)))
			})
	}
	return false
}

func (c *Config) checkTimes(m *mistakes) {
	switch {
	case c.Leeway == 0:
		c.Leeway = defaultLeeway
	case c.Leeway < 0:
		c.Leeway = 0
	case c.Leeway > maxLeeway:
		m.add("Leeway: %v is over %v, which would accept tokens long expired", c.Leeway, maxLeeway)
	}
	if c.MaxLifetime < 0 {
		m.add("MaxLifetime: %v is negative; leave it out for no bound", c.MaxLifetime)
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"Leeway", c.Leeway}, {"MaxLifetime", c.MaxLifetime}, {"FetchTimeout", c.FetchTimeout}} {
		if d.value > 0 && d.value < time.Millisecond {
			m.add("%s: %v is next to nothing; a number without a unit counts nanoseconds: did you mean %d * time.Second?", d.field, d.value, d.value)
		}
	}
	if c.KeyTTL == 0 {
		c.KeyTTL = defaultKeyTTL
	}
	if c.KeyTTL < minKeyTTL || c.KeyTTL > maxKeyTTL {
		m.add("KeyTTL: %v must be from %v to %v", c.KeyTTL, minKeyTTL, maxKeyTTL)
		c.KeyTTL = defaultKeyTTL // what FetchTimeout is held against
	}
	switch {
	case c.KeyStaleFor == 0:
		c.KeyStaleFor = defaultKeyStaleFor
	case c.KeyStaleFor < 0:
		c.KeyStaleFor = 0
	case c.KeyStaleFor > maxKeyStaleFor:
		m.add("KeyStaleFor: %v is over %v: a withdrawn key would be accepted for as long", c.KeyStaleFor, maxKeyStaleFor)
	}
	if c.FetchTimeout == 0 {
		c.FetchTimeout = min(defaultTimeout, c.KeyTTL/10)
	}
	if c.FetchTimeout < 0 || c.FetchTimeout > min(c.KeyTTL/10, maxTimeout) {
		m.add("FetchTimeout: %v must be above 0, at most a tenth of Config.KeyTTL (%v), so that a slow refresh ends before the keys do, and at most %v",
			c.FetchTimeout, c.KeyTTL, maxTimeout)
	}
}

func (c *Config) checkAlgorithms(m *mistakes) {
	for i, a := range c.Algorithms {
		if _, ok := jose.Algorithm(a); !ok {
			m.add("Algorithms[%d]: %q is not accepted; use some of %s (never none or a symmetric algorithm)", i, a, strings.Join(defaultAlgorithms, ", "))
		}
	}
	c.Algorithms = withDefault(c.Algorithms, defaultAlgorithms)
}
