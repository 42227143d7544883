package setting

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// of returns the texts of the mistakes that check finds, without what all begin with.
func of(check func(*Mistakes)) (texts []string) {
	var m Mistakes
	check(&m)
	for _, err := range m {
		texts = append(texts, strings.TrimPrefix(err.Error(), "m2mauth: Config."))
	}
	return texts
}

func TestMistakesOfAnIssuer(t *testing.T) {
	t.Parallel()
	const (
		like     = ", such as https://your.logto.endpoint/oidc"
		absolute = "Issuer must be an absolute https URL" + like
		blank    = "Issuer must be an absolute https URL without white space and control characters (a line break at its end?)" + like
		query    = "Issuer must not have a query (RFC 8414 §2)"
		secret   = "Issuer must not hold a user name or password"
		fragment = "Issuer must not have a fragment"
		document = "Issuer must not be the discovery document, which is found automatically: leave out /.well-known/…, as in https://your.logto.endpoint/oidc"
		endpoint = "Issuer must not be the token endpoint or the key set: the issuer of Logto ends in /oidc"
		plain    = "; http is for loopback hosts and for those that Config.InsecureHTTPHosts names"
	)
	for value, want := range map[string][]string{
		"https://a.test/oidc": nil, "https://a.test": nil, "https://a.test/": nil, "https://a.test:3001/x": nil, "HTTPS://a.test": nil,
		"":      {"Issuer is empty: set it to an absolute URL" + like},
		"/oidc": {absolute}, "a.test/oidc": {absolute}, "localhost:3001": {absolute}, "ftp://a.test": {absolute}, "https:///oidc": {absolute},
		"https://:443/oidc": {absolute}, "https:a.test": {absolute}, "https://%zz/": {absolute},
		"https://a.test/\n": {blank}, "https://a.test/a b": {blank}, "https://a.test/\x00": {blank}, "https://a.test/\u00a0": {blank},
		"https://a.test?a=b": {query}, "https://a.test?": {query}, "https://a.test#a": {fragment}, "https://a.test/#": {fragment},
		"https://a:hunter2@a.test": {secret}, "https://a@a.test": {secret},
		"http://a:hunter2@a.test/oidc/token?x=hunter2#hunter2": {secret, fragment, "Issuer must be https, not http to a.test" + plain, query, endpoint},
		"http://a.test:80/oidc":                                {"Issuer must be https, not http to a.test:80" + plain},
		"https://a.test/.well-known/openid-configuration":      {document},
		"https://a.test/oidc/token":                            {endpoint}, "https://a.test/oidc/jwks": {endpoint}, "https://a.test/.well-known/jwks.json": {endpoint},
		"https://a.test/oidc/tokens": nil, "https://a.test/token": nil,
	} {
		assert.Equal(t, want, of(func(m *Mistakes) { m.Issuer(value, true, nil) }), value)
	}
	assert.Empty(t, of(func(m *Mistakes) { m.Issuer("http://a.test/oidc", false, nil) }), "a name that nobody asks")
	assert.Equal(t, []string{absolute}, of(func(m *Mistakes) { m.Issuer("ftp://a.test/oidc", false, nil) }), "but a URL it is")
}

func TestMistakesOfAKeySetsURL(t *testing.T) {
	t.Parallel()
	const like = ", such as https://your.logto.endpoint/oidc/jwks"
	for value, want := range map[string][]string{
		"": nil, "https://a.test/oidc/jwks": nil, "https://a.test/jwks?v=1": nil, "http://logto/jwks": nil, "https://a.test/.well-known/jwks.json": nil,
		"/oidc/jwks":           {"JWKSURL must be an absolute https URL" + like},
		"https://a@a.test":     {"JWKSURL must not hold a user name or password"},
		"https://a.test/jwks#": {"JWKSURL must not have a fragment"},
		"http://a.test/jwks":   {"JWKSURL must be https, not http to a.test; http is for loopback hosts and for those that Config.InsecureHTTPHosts names"},
		"https://a.test/.well-known/openid-configuration": {"JWKSURL must not be the discovery document, which is found automatically: leave JWKSURL out, or set it to the document's jwks_uri" + like},
	} {
		assert.Equal(t, want, of(func(m *Mistakes) { m.JWKSURL(value, []string{"logto"}) }), value)
	}
}

// Keys over plain http could be anyone's.
func TestHostsOfPlainHTTP(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"http://localhost:3001": true, "http://LOCALHOST": true, "http://127.0.0.1:3001": true, "http://127.1.2.3": true, "http://[::1]:3001": true,
		"http://logto": true, "http://logto:3001": true, "http://LOGTO": true, "http://keys:8080": true, "http://KEYS:8080": true, "http://web": true, "http://web:80": true,
		"http://[fe80::1]:8080":    true,
		"http://localhost.example": false, "http://192.0.2.1": false, "http://[::2]": false, "http://keys": false, "http://keys:8081": false,
		"http://web:8080": false, "http://logto.example": false, "http://xlogto": false, "http://\u017fogto": false, "http://[fe80::1]:8081": false,
	} {
		found := of(func(m *Mistakes) {
			m.Issuer(address, true, []string{"Logto", "keys:8080", "web:80", "sogto", "[fe80::1]:8080"})
		})
		assert.Equal(t, want, found == nil, address)
	}
}

func TestMistakesOfHosts(t *testing.T) {
	t.Parallel()
	assert.Empty(t, of(func(m *Mistakes) { m.Hosts([]string{"logto", "logto:3001", "[::2]:80"}) }))
	for _, host := range []string{"", "http://logto", "logto other", "logto\t", "a@logto", "logto?", "logto#"} {
		assert.Len(t, of(func(m *Mistakes) { m.Hosts([]string{"logto", host}) }), 1, host)
	}
	assert.Equal(t, []string{`InsecureHTTPHosts[1]: "" must be a host, or a host and a port, such as logto or logto:3001`},
		of(func(m *Mistakes) { m.Hosts([]string{"logto", ""}) }))
}

func TestMistakesOfAnAudience(t *testing.T) {
	t.Parallel()
	const several = " looks like several; name one here, and the others in OtherAudiences"
	for audience, want := range map[string][]string{
		"https://a.api": nil, "shop": nil, "my api": nil, "https://a.api/x,y": nil, "a,http": nil,
		"":                                 {"F is empty: set it to the API's resource indicator, such as https://shopping.api"},
		"urn:logto:organization:":          {"F: for organization tokens make a guard of their own, with Audience urn:logto:organization: and rules that name the organization"},
		"urn:logto:organization:x":         {"F: for organization tokens make a guard of their own, with Audience urn:logto:organization: and rules that name the organization"},
		"urn:logto:resource:organizations": {"F: urn:logto:resource:organizations is reserved, and any application of a Logto tenant gets a token for it with every permission; set it to your API's identifier"},
		"https://a.api,https://b.api":      {`F: "https://a.api,https://b.api"` + several},
		"https://a.api b":                  {`F: "https://a.api b"` + several},
		"https://a.api\tb":                 {`F: "https://a.api\tb"` + several},
		"https://a.api\n":                  {`F: "https://a.api\n" begins or ends with white space, perhaps a line break`},
		" shop":                            {`F: " shop" begins or ends with white space, perhaps a line break`},
	} {
		assert.Equal(t, want, of(func(m *Mistakes) { m.Audience("F", audience) }), audience)
	}
}

func TestMistakesOfTypes(t *testing.T) {
	t.Parallel()
	assert.Empty(t, of(func(m *Mistakes) { m.Types([]string{"", "at+jwt", "application/at+jwt", "JWT"}) }))
	for _, typ := range []string{"application/", "Application/", "at+jwt,JWT", "a b", "a\n", "a\r", "a\t"} {
		assert.Len(t, of(func(m *Mistakes) { m.Types([]string{"JWT", typ}) }), 1, typ)
	}
	assert.Equal(t, []string{`TokenTypes[1]: "a b" is not a type: name one such as at+jwt, or "" for a token without typ`},
		of(func(m *Mistakes) { m.Types([]string{"JWT", "a b"}) }))
}

func TestMistakesOfUnits(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration][]string{
		0: nil, -1: nil, time.Millisecond: nil, time.Hour: nil,
		1:                    {"F: 1ns is too small; a number without a unit counts nanoseconds: did you mean 1 * time.Second?"},
		30:                   {"F: 30ns is too small; a number without a unit counts nanoseconds: did you mean 30 * time.Second?"},
		time.Millisecond - 1: {"F: 999.999µs is too small; a number without a unit counts nanoseconds: did you mean 999999 * time.Second?"},
	} {
		assert.Equal(t, want, of(func(m *Mistakes) { m.Unit("F", d) }), d)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	for value, want := range map[int64]int64{0: 7, -1: 0, 1: 1, 100: 100} {
		assert.Equal(t, want, OrDefault(value, 7))
		assert.Equal(t, time.Duration(want), OrDefault(time.Duration(value), 7))
	}
	otherwise := []string{"x"}
	assert.Equal(t, otherwise, ListOrDefault(nil, otherwise))
	assert.Equal(t, otherwise, ListOrDefault([]string{}, otherwise))
	given := []string{"a"}
	got := ListOrDefault(given, otherwise)
	given[0] = "changed"
	assert.Equal(t, []string{"a"}, got, "a copy")
}

func TestAMistakeCanBeUnwrapped(t *testing.T) {
	t.Parallel()
	var m Mistakes
	cause := errors.New("why")
	m.Add("Field: %w", cause)
	assert.EqualError(t, m[0], "m2mauth: Config.Field: why")
	assert.ErrorIs(t, m[0], cause)
}
