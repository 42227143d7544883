package setting

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/m2mauth/m2mauth/internal/ascii"
	"github.com/m2mauth/m2mauth/internal/hint"
	"github.com/m2mauth/m2mauth/internal/keyset"
)

// Mistakes collects what is wrong with a Config, so that all is reported at once.
type Mistakes []error

// Add adds a mistake, worded to follow "Config.".
func (m *Mistakes) Add(format string, args ...any) {
	*m = append(*m, fmt.Errorf("m2mauth: Config."+format, args...))
}

// Issuer checks Config.Issuer. If the guard asks it nothing, it is a name, and may be http
// on any host.
func (m *Mistakes) Issuer(value string, asked bool, insecureHosts []string) {
	u := m.url("Issuer", value, "https://your.logto.endpoint/oidc", asked, insecureHosts)
	if u == nil {
		return
	}
	if u.RawQuery != "" || u.ForceQuery {
		m.Add("Issuer must not have a query (RFC 8414 §2)")
	}
	switch {
	case keyset.IsDiscovery(u.Path):
		m.Add("Issuer must not be the discovery document, which is found automatically: leave out /.well-known/…, as in https://your.logto.endpoint/oidc")
	case strings.HasSuffix(u.Path, "/oidc/token"), strings.HasSuffix(u.Path, "/oidc/jwks"), strings.Contains(u.Path, "/.well-known/"):
		m.Add("Issuer must not be the token endpoint or the key set: the issuer of Logto ends in /oidc")
	}
}

// JWKSURL checks Config.JWKSURL, if it is set.
func (m *Mistakes) JWKSURL(value string, insecureHosts []string) {
	if value == "" {
		return
	}
	if u := m.url("JWKSURL", value, "https://your.logto.endpoint/oidc/jwks", true, insecureHosts); u != nil && keyset.IsDiscovery(u.Path) {
		m.Add("JWKSURL must not be the discovery document, which is found automatically: leave JWKSURL out, or set it to the document's jwks_uri, such as https://your.logto.endpoint/oidc/jwks")
	}
}

// url never puts a URL into a message, since it may hold secrets: a user name, a
// password, or a query.
func (m *Mistakes) url(field, value, example string, asked bool, insecureHosts []string) *url.URL {
	if value == "" {
		m.Add("%s is empty: set it to an absolute URL, such as %s", field, example)
		return nil
	}
	if strings.ContainsFunc(value, isBlank) {
		m.Add("%s must be an absolute https URL without white space and control characters (a line break at its end?), such as %s", field, example)
		return nil
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") {
		m.Add("%s must be an absolute https URL, such as %s", field, example)
		return nil
	}
	if u.User != nil {
		m.Add("%s must not hold a user name or password", field)
	}
	if strings.Contains(value, "#") {
		m.Add("%s must not have a fragment", field)
	}
	if asked && u.Scheme != "https" && !IsInsecureHost(u, insecureHosts) {
		m.Add("%s must be https, not http to %s; http is for loopback hosts and for those that Config.InsecureHTTPHosts names", field, u.Host)
	}
	return u
}

// IsInsecureHost reports whether a URL may be plain http: its host is a loopback host,
// or among the hosts of Config.InsecureHTTPHosts. Keys fetched so could be anyone's.
func IsInsecureHost(u *url.URL, hosts []string) bool {
	host := ascii.Lower(u.Hostname())
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return true
	}
	withPort := net.JoinHostPort(host, keyset.Port(u))
	return slices.ContainsFunc(hosts, func(h string) bool {
		h = ascii.Lower(h)
		return h == host || h == withPort
	})
}

func isBlank(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// Hosts checks Config.InsecureHTTPHosts.
func (m *Mistakes) Hosts(hosts []string) {
	for i, h := range hosts {
		if h == "" || strings.ContainsAny(h, "/ \t@?#") {
			m.Add("InsecureHTTPHosts[%d]: %q must be a host, or a host and a port, such as logto or logto:3001", i, h)
		}
	}
}

// OrganizationsResource is an indicator that Logto reserves. Every application gets a
// token for it, with every permission that it asks for.
const OrganizationsResource = "urn:logto:resource:organizations"

// Audience checks one audience of an API.
func (m *Mistakes) Audience(field, audience string) {
	switch {
	case audience == "":
		m.Add("%s is empty: set it to the API's resource indicator, such as https://shopping.api", field)
	case strings.HasPrefix(audience, hint.OrganizationAudience):
		m.Add("%s: for organization tokens make a guard of their own, with Audience %s and rules that name the organization", field, hint.OrganizationAudience)
	case audience == OrganizationsResource:
		m.Add("%s: %s is reserved, and any application of a Logto tenant gets a token for it with every permission; set it to your API's identifier", field, audience)
	case strings.Contains(audience, "://") && (strings.Contains(audience, ",http") || strings.ContainsAny(audience, " \t")):
		m.Add("%s: %q looks like several; name one here, and the others in OtherAudiences", field, audience)
	}
	m.Trimmed(field, audience)
}

// Trimmed finds white space that came with a value by mistake.
func (m *Mistakes) Trimmed(field, value string) {
	if strings.TrimFunc(value, isBlank) != value {
		m.Add("%s: %q begins or ends with white space, perhaps a line break", field, value)
	}
}

// Types checks Config.TokenTypes.
func (m *Mistakes) Types(types []string) {
	for i, t := range types {
		if strings.EqualFold(t, "application/") || strings.ContainsAny(t, " ,\t\r\n") {
			m.Add("TokenTypes[%d]: %q is not a type: name one such as at+jwt, or \"\" for a token without typ", i, t)
		}
	}
}

// Unit finds durations that were meant in another unit than nanoseconds.
func (m *Mistakes) Unit(field string, d time.Duration) {
	if d > 0 && d < time.Millisecond {
		m.Add("%s: %v is too small; a number without a unit counts nanoseconds: did you mean %d * time.Second?", field, d, d)
	}
}

// OrDefault returns a number, or otherwise for 0, or 0 for a negative one, which means
// none.
func OrDefault[T int64 | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return max(value, 0)
}

// ListOrDefault returns a copy of a list, or otherwise for an empty one.
func ListOrDefault(list, otherwise []string) []string {
	if len(list) == 0 {
		return otherwise
	}
	return slices.Clone(list)
}
