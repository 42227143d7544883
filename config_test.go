package m2mauth

import (
	"bytes"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/scope"
)

// goodConfig is what a user must write, and nothing else.
func goodConfig() Config {
	return Config{Issuer: "https://your.logto.endpoint/oidc", Audience: "https://shopping.api"}
}

// oneKeySet holds a P-256 key, that of RFC 7517 appendix A.1.
const oneKeySet = `{"keys":[{"kty":"EC","crv":"P-256","kid":"1",` +
	`"x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}`

func TestNewNamesTheFieldAndTheRightForm(t *testing.T) {
	t.Parallel()
	const form = "https://your.logto.endpoint/oidc"
	for _, test := range []struct {
		name   string
		change func(*Config)
		want   []string // parts of the one mistake
	}{
		{"no issuer", func(c *Config) { c.Issuer = "" }, []string{"Config.Issuer is empty", form}},
		{"a relative issuer", func(c *Config) { c.Issuer = "/oidc" }, []string{"Config.Issuer", "absolute https URL", form}},
		{"an issuer without scheme", func(c *Config) { c.Issuer = "your.logto.endpoint/oidc" }, []string{"Config.Issuer", "absolute https URL", form}},
		{"an issuer that is a host and a port", func(c *Config) { c.Issuer = "localhost:3001" }, []string{"Config.Issuer", "absolute https URL", form}},
		{"an issuer of another scheme", func(c *Config) { c.Issuer = "ftp://your.logto.endpoint/oidc" }, []string{"Config.Issuer", "absolute https URL"}},
		{"an issuer without host", func(c *Config) { c.Issuer = "https:///oidc" }, []string{"Config.Issuer", "absolute https URL"}},
		{"an issuer with a port alone", func(c *Config) { c.Issuer = "https://:443/oidc" }, []string{"Config.Issuer", "absolute https URL"}},
		{"an opaque issuer", func(c *Config) { c.Issuer = "https:your.logto.endpoint" }, []string{"Config.Issuer", "absolute https URL"}},
		{"an issuer that is no URL", func(c *Config) { c.Issuer = "https://%zz/" }, []string{"Config.Issuer", "absolute https URL"}},
		{"an issuer with control characters", func(c *Config) { c.Issuer = "https://a.example/\n" }, []string{"Config.Issuer", "absolute https URL"}},
		{"an issuer over http", func(c *Config) { c.Issuer = "http://your.logto.endpoint/oidc" }, []string{"Config.Issuer", "http is for loopback hosts", "Config.InsecureHTTPHosts"}},
		{"an issuer over http on a host that only looks like loopback", func(c *Config) { c.Issuer = "http://localhost.example/oidc" }, []string{"Config.Issuer", "http is for loopback hosts"}},
		{"an issuer over http on an address that is not loopback", func(c *Config) { c.Issuer = "http://192.0.2.1:3001/oidc" }, []string{"Config.Issuer", "http is for loopback hosts"}},
		{"an issuer over http on another port than allowed", func(c *Config) {
			c.Issuer, c.InsecureHTTPHosts = "http://logto:3002/oidc", []string{"logto:3001"}
		}, []string{"Config.Issuer", "http is for loopback hosts"}},
		{"an issuer with a query", func(c *Config) { c.Issuer += "?a=b" }, []string{"Config.Issuer", "query", "RFC 8414"}},
		{"an issuer with an empty query", func(c *Config) { c.Issuer += "?" }, []string{"Config.Issuer", "query"}},
		{"an issuer with a fragment", func(c *Config) { c.Issuer += "#a" }, []string{"Config.Issuer", "fragment"}},
		{"an issuer with an empty fragment", func(c *Config) { c.Issuer += "#" }, []string{"Config.Issuer", "fragment"}},
		{"an issuer with a password", func(c *Config) { c.Issuer = "https://a:b@your.logto.endpoint/oidc" }, []string{"Config.Issuer must not hold a user name or password"}},

		{"no audience", func(c *Config) { c.Audience = "" }, []string{"Config.Audience is empty", "resource indicator", "https://shopping.api"}},
		{"the reserved audience", func(c *Config) { c.Audience = "urn:logto:resource:organizations" }, []string{"Config.Audience: ", "reserved"}},
		{"an empty other audience", func(c *Config) { c.OtherAudiences = []string{"https://a.example", ""} }, []string{"Config.OtherAudiences[1] is empty"}},
		{"an organization token's audience", func(c *Config) { c.Audience = "urn:logto:organization:acme" },
			[]string{"Config.Audience: ", "make a guard of their own", "urn:logto:organization:", "rules that name the organization"}},
		{"an organization token's audience among others", func(c *Config) { c.OtherAudiences = []string{"urn:logto:organization:"} },
			[]string{"Config.OtherAudiences[0]: ", "make a guard of their own"}},
		{"other audiences of a guard for organization tokens", func(c *Config) {
			c.Audience, c.OtherAudiences = "urn:logto:organization:", []string{"https://shopping.api"}
		}, []string{"Config.OtherAudiences must be empty", "urn:logto:organization:"}},
		{"the reserved audience among others", func(c *Config) { c.OtherAudiences = []string{"urn:logto:resource:organizations"} }, []string{"Config.OtherAudiences[0]", "reserved"}},

		{"a relative JWKSURL", func(c *Config) { c.JWKSURL = "/oidc/jwks" }, []string{"Config.JWKSURL", "absolute https URL", form + "/jwks"}},
		{"a JWKSURL over http", func(c *Config) { c.JWKSURL = "http://keys.example/jwks" }, []string{"Config.JWKSURL", "http is for loopback hosts", "Config.InsecureHTTPHosts"}},
		{"a JWKSURL with a fragment", func(c *Config) { c.JWKSURL = form + "/jwks#a" }, []string{"Config.JWKSURL", "fragment"}},
		{"a JWKSURL with a password", func(c *Config) { c.JWKSURL = "https://a:b@keys.example/jwks" }, []string{"Config.JWKSURL must not hold a user name or password"}},
		{"keys twice", func(c *Config) { c.JWKSURL, c.JWKS = form+"/jwks", []byte(oneKeySet) }, []string{"Config.JWKS and Config.JWKSURL exclude each other"}},
		{"keys that are empty", func(c *Config) { c.JWKS = []byte{} }, []string{"Config.JWKS: ", "not a JSON Web Key Set"}},
		{"keys that are no JSON", func(c *Config) { c.JWKS = []byte("<html>") }, []string{"Config.JWKS: ", "not a JSON Web Key Set"}},
		{"an empty key set", func(c *Config) { c.JWKS = []byte(`{"keys":[]}`) }, []string{"Config.JWKS: ", "no usable key"}},
		{"a key set of odd keys", func(c *Config) { c.JWKS = []byte(`{"keys":[{"kty":"oct","kid":"1","k":"AAAA"}]}`) }, []string{"Config.JWKS: ", "no usable key", "private or symmetric"}},

		{"an issuer with a line break at its end", func(c *Config) { c.Issuer += "\n" }, []string{"Config.Issuer must be an absolute https URL", "a line break at its end?"}},
		{"an issuer that is its discovery document", func(c *Config) { c.Issuer += "/.well-known/openid-configuration" }, []string{"Config.Issuer must not be the discovery document"}},
		{"an issuer that is its token endpoint", func(c *Config) { c.Issuer += "/token" }, []string{"Config.Issuer must not be the token endpoint", "ends in /oidc"}},
		{"an issuer that is its key set", func(c *Config) { c.Issuer += "/jwks" }, []string{"Config.Issuer must not be the token endpoint or the key set"}},
		{"audiences with a space between", func(c *Config) { c.Audience = "https://a.api https://b.api" }, []string{"Config.Audience: ", "looks like several", "OtherAudiences"}},
		{"audiences with a comma between", func(c *Config) { c.OtherAudiences = []string{"https://a.api,https://b.api"} }, []string{"Config.OtherAudiences[0]: ", "looks like several"}},
		{"leeway without a unit", func(c *Config) { c.Leeway = 30 }, []string{"Config.Leeway: 30ns", "did you mean 30 * time.Second?"}},
		{"a lifetime without a unit", func(c *Config) { c.MaxLifetime = 3600 }, []string{"Config.MaxLifetime: 3.6µs", "did you mean 3600 * time.Second?"}},
		{"a timeout without a unit", func(c *Config) { c.FetchTimeout = time.Millisecond - 1 }, []string{"Config.FetchTimeout: ", "without a unit"}},
		{"a key that is no set", func(c *Config) { c.JWKS = []byte(`{"kty":"EC"}`) }, []string{"Config.JWKS: ", "no member keys", `{"keys":[…]}`}},
		{"an audience with a line break at its end", func(c *Config) { c.Audience += "\n" }, []string{"Config.Audience: ", "perhaps a line break"}},
		{"several types in one", func(c *Config) { c.TokenTypes = []string{"at+jwt,JWT"} }, []string{"Config.TokenTypes[0]: ", "at+jwt"}},
		{"several claims in one", func(c *Config) { c.ScopeClaims = []string{"scope scp"} }, []string{"Config.ScopeClaims[0] is empty, or holds white space"}},
		{"an empty plain host", func(c *Config) { c.InsecureHTTPHosts = []string{"logto", ""} }, []string{"Config.InsecureHTTPHosts[1]: ", "logto or logto:3001"}},
		{"a URL as plain host", func(c *Config) { c.InsecureHTTPHosts = []string{"http://logto"} }, []string{"Config.InsecureHTTPHosts[0]: ", "logto or logto:3001"}},
		{"a plain host with a space", func(c *Config) { c.InsecureHTTPHosts = []string{"logto other"} }, []string{"Config.InsecureHTTPHosts[0]: "}},

		{"alg none", func(c *Config) { c.Algorithms = []string{"ES384", "none"} }, []string{"Config.Algorithms[1]: ", `"none"`, "ES256, ES384, ES512", "never none or a symmetric algorithm"}},
		{"a symmetric algorithm", func(c *Config) { c.Algorithms = []string{"HS256"} }, []string{"Config.Algorithms[0]: ", "HS256", "ES256, ES384, ES512"}},
		{"an unknown algorithm", func(c *Config) { c.Algorithms = []string{"ES256K"} }, []string{"Config.Algorithms[0]: ", "ES256K"}},
		{"an algorithm in lower case", func(c *Config) { c.Algorithms = []string{"es384"} }, []string{"Config.Algorithms[0]: ", "es384"}},
		{"an empty algorithm", func(c *Config) { c.Algorithms = []string{""} }, []string{"Config.Algorithms[0]: ", `""`}},
		{"a type that is a prefix alone", func(c *Config) { c.TokenTypes = []string{"JWT", "application/"} }, []string{"Config.TokenTypes[1]: ", "at+jwt"}},
		{"an empty scope claim", func(c *Config) { c.ScopeClaims = []string{""} }, []string{"Config.ScopeClaims[0] is empty", "scope"}},
		{"an empty client claim", func(c *Config) { c.ClientClaims = []string{"azp", ""} }, []string{"Config.ClientClaims[1] is empty", "client_id"}},

		{"too much leeway", func(c *Config) { c.Leeway = 10*time.Minute + 1 }, []string{"Config.Leeway: ", "over 10m0s"}},
		{"a negative lifetime", func(c *Config) { c.MaxLifetime = -time.Second }, []string{"Config.MaxLifetime: ", "negative"}},
		{"a short TTL", func(c *Config) { c.KeyTTL = time.Second - 1 }, []string{"Config.KeyTTL: ", "from 1s to 24h0m0s"}},
		{"a negative TTL", func(c *Config) { c.KeyTTL = -time.Hour }, []string{"Config.KeyTTL: ", "from 1s to 24h0m0s"}},
		{"a long TTL", func(c *Config) { c.KeyTTL = 24*time.Hour + 1 }, []string{"Config.KeyTTL: ", "from 1s to 24h0m0s"}},
		{"keys that are stale for long", func(c *Config) { c.KeyStaleFor = 7*24*time.Hour + 1 }, []string{"Config.KeyStaleFor: ", "over 168h0m0s"}},
		{"a negative timeout", func(c *Config) { c.FetchTimeout = -time.Second }, []string{"Config.FetchTimeout: ", "above 0", "a tenth of Config.KeyTTL (10m0s)"}},
		{"a timeout over five minutes", func(c *Config) { c.KeyTTL, c.FetchTimeout = time.Hour, 5*time.Minute+1 }, []string{"Config.FetchTimeout: ", "at most 5m0s"}},
		{"a timeout over a tenth of the TTL", func(c *Config) { c.KeyTTL, c.FetchTimeout = time.Minute, 6*time.Second+1 }, []string{"Config.FetchTimeout: ", "at most a tenth of Config.KeyTTL (1m0s)"}},

		{"a token's length of KiB without a unit", func(c *Config) { c.MaxTokenBytes = 16 }, []string{"Config.MaxTokenBytes: 16 must be from 1024 to 65536", "16 << 10"}},
		{"a token's length over 64 KiB", func(c *Config) { c.MaxTokenBytes = 64<<10 + 1 }, []string{"Config.MaxTokenBytes: 65537 must be from 1024"}},
		{"a negative length of a token", func(c *Config) { c.MaxTokenBytes = -1 }, []string{"Config.MaxTokenBytes: -1 must be from 1024"}},

		{"a cache of MiB without a unit", func(c *Config) { c.CacheBytes = 64 }, []string{"Config.CacheBytes: 64 is too small", "counts bytes", "32 << 20", "1 MiB", "negative"}},
		{"a cache under 1 MiB", func(c *Config) { c.CacheBytes = 1<<20 - 1 }, []string{"Config.CacheBytes: 1048575 is too small"}},
		{"a cache of a byte", func(c *Config) { c.CacheBytes = 1 }, []string{"Config.CacheBytes: 1 is too small"}},

		{"a realm with a quote", func(c *Config) { c.Realm = `a"b` }, []string{"Config.Realm: ", "printable ASCII without quotes and backslashes"}},
		{"a realm with a backslash", func(c *Config) { c.Realm = `a\b` }, []string{"Config.Realm: "}},
		{"a realm with a line break", func(c *Config) { c.Realm = "a\r\nSet-Cookie: b" }, []string{"Config.Realm: "}},
		{"a realm that is not ASCII", func(c *Config) { c.Realm = "Läden" }, []string{"Config.Realm: "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config := goodConfig()
			test.change(&config)
			guard, err := New(config)
			require.Error(t, err)
			assert.Nil(t, guard)
			for _, part := range test.want {
				assert.ErrorContains(t, err, part)
			}
			assert.Len(t, mistakesIn(err), 1, "one mistake is told once: %v", err)
			assert.Regexp(t, `^m2mauth: Config\.`, err.Error())
			assert.NotContains(t, err.Error(), "\n", "a line for a mistake")
		})
	}
}

func TestNewTellsAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		Issuer:            "http://a:b@your.logto.endpoint/oidc?a=b#c",
		OtherAudiences:    []string{""},
		JWKSURL:           "http://keys.example",
		JWKS:              []byte("rubbish"),
		InsecureHTTPHosts: []string{""},
		Algorithms:        []string{"none", "HS256"},
		ScopeClaims:       []string{""},
		ClientClaims:      []string{""},
		Leeway:            time.Hour,
		MaxLifetime:       -1,
		KeyTTL:            time.Hour * 100,
		KeyStaleFor:       time.Hour * 1000,
		FetchTimeout:      -1,
		Realm:             `"`,
		MaxTokenBytes:     1,
		CacheBytes:        1,
	})
	require.Error(t, err)
	for _, part := range []string{
		"Issuer must not hold a user name", "must not have a fragment", "must not have a query", "http is for loopback hosts",
		"Audience is empty", "OtherAudiences[0]", "JWKSURL", "exclude each other", "JWKS: not a JSON Web Key Set",
		"InsecureHTTPHosts[0]", "Algorithms[0]", "Algorithms[1]", "ScopeClaims[0]", "ClientClaims[0]",
		"Leeway: ", "MaxLifetime: ", "KeyTTL: ", "KeyStaleFor: ", "FetchTimeout: ", "Realm: ", "MaxTokenBytes: ", "CacheBytes: ",
	} {
		assert.ErrorContains(t, err, part)
	}
}

// mistakesIn takes what errors.Join made apart.
func mistakesIn(err error) (list []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	for _, part := range joined.Unwrap() {
		list = append(list, mistakesIn(part)...)
	}
	return list
}

func TestNewShowsNoSecretOfAURL(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"https://user:hunter2@host.example/oidc",
		"http://user:hunter2@host.example/oidc",
		"ftp://user:hunter2@host.example/oidc",
		"https://user:hunter2@host.example:port/oidc",
		"https://user:hunter2@/oidc",
		"https://user:hunter2@host.example/oidc?a=b#c",
		"user:hunter2@host.example",
		"https://host.example/oidc?key=hunter2#c",
		"http://host.example/oidc?key=hunter2",
	} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			config := goodConfig()
			config.Issuer = address
			config.JWKSURL = address
			_, err := New(config)
			require.Error(t, err)
			assert.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestNewAcceptsWhatIsAllowed(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"nothing but issuer and audience":          func(*Config) {},
		"an issuer without path":                   func(c *Config) { c.Issuer = "https://your.logto.endpoint" },
		"an issuer with a slash at the end":        func(c *Config) { c.Issuer += "/" },
		"an issuer with a port":                    func(c *Config) { c.Issuer = "https://your.logto.endpoint:3001/oidc" },
		"http on localhost":                        func(c *Config) { c.Issuer = "http://localhost:3001/oidc" },
		"http on LOCALHOST":                        func(c *Config) { c.Issuer = "http://LOCALHOST/oidc" },
		"http on 127.0.0.1":                        func(c *Config) { c.Issuer = "http://127.0.0.1:3001/oidc" },
		"http on another loopback address":         func(c *Config) { c.Issuer = "http://127.1.2.3/oidc" },
		"http on ::1":                              func(c *Config) { c.Issuer = "http://[::1]:3001/oidc" },
		"http on a named host":                     func(c *Config) { c.Issuer, c.InsecureHTTPHosts = "http://logto/oidc", []string{"logto"} },
		"http on any port of a named host":         func(c *Config) { c.Issuer, c.InsecureHTTPHosts = "http://logto:3001/oidc", []string{"logto"} },
		"http on the named default port of a host": func(c *Config) { c.Issuer, c.InsecureHTTPHosts = "http://logto/oidc", []string{"logto:80"} },
		"http on the named port of a named host":   func(c *Config) { c.Issuer, c.InsecureHTTPHosts = "http://logto:3001/oidc", []string{"logto:3001"} },
		"http on a host named in other letters":    func(c *Config) { c.Issuer, c.InsecureHTTPHosts = "http://logto:3001/oidc", []string{"LOGTO:3001"} },
		"keys over http from a named host":         func(c *Config) { c.JWKSURL, c.InsecureHTTPHosts = "http://logto:3001/oidc/jwks", []string{"logto"} },
		"keys from another origin with a query":    func(c *Config) { c.JWKSURL = "https://keys.example/jwks?v=1" },
		"keys given":                               func(c *Config) { c.JWKS = []byte(oneKeySet) },
		"an audience that is no URL":               func(c *Config) { c.Audience = "shop" },
		"an audience that no realm can hold":       func(c *Config) { c.Audience = "Läden\n\"" },
		"the newer name of EdDSA":                  func(c *Config) { c.Algorithms = []string{"Ed25519"} },
		"tokens without typ":                       func(c *Config) { c.TokenTypes = []string{"", "JWT"} },
		"the least leeway that is a unit": func(c *Config) {
			c.Leeway, c.MaxLifetime, c.FetchTimeout = time.Millisecond, time.Millisecond, time.Millisecond
		},
		"the longest tokens":                      func(c *Config) { c.MaxTokenBytes = 64 << 10 },
		"the smallest cache":                      func(c *Config) { c.CacheBytes = 1 << 20 },
		"an audience of a path with a comma":      func(c *Config) { c.Audience = "https://a.api/x,y" },
		"an audience that is a name with a space": func(c *Config) { c.Audience = "my api" },
		"the most leeway":                         func(c *Config) { c.Leeway = 10 * time.Minute },
		"no leeway":                               func(c *Config) { c.Leeway = -1 },
		"the shortest TTL":                        func(c *Config) { c.KeyTTL = time.Second },
		"the longest TTL":                         func(c *Config) { c.KeyTTL = 24 * time.Hour },
		"no stale keys":                           func(c *Config) { c.KeyStaleFor = -1 },
		"stale keys for the longest time":         func(c *Config) { c.KeyStaleFor = 7 * 24 * time.Hour },
		"a timeout of a tenth of the default TTL": func(c *Config) { c.FetchTimeout = time.Minute },
		"a realm":                                 func(c *Config) { c.Realm = "shop 'one', #2" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := goodConfig()
			change(&config)
			guard, err := New(config)
			require.NoError(t, err)
			assert.NotNil(t, guard)
		})
	}
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	c, err := goodConfig().checked()
	require.NoError(t, err)
	assert.Equal(t, Config{
		Issuer:        "https://your.logto.endpoint/oidc",
		Audience:      "https://shopping.api",
		Algorithms:    []string{"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"},
		TokenTypes:    []string{"at+jwt"},
		ScopeClaims:   []string{"scope"},
		ClientClaims:  []string{"client_id"},
		Leeway:        30 * time.Second,
		KeyTTL:        10 * time.Minute,
		KeyStaleFor:   time.Hour,
		FetchTimeout:  5 * time.Second,
		MaxTokenBytes: 8 << 10,
		CacheBytes:    32 << 20,
		Realm:         "https://shopping.api",
	}, c)

	none := goodConfig()
	none.Leeway, none.KeyStaleFor, none.CacheBytes = -1, -time.Hour, -1
	none.KeyTTL = 20 * time.Second
	none.Audience = "Läden\n\"§1\""
	c, err = none.checked()
	require.NoError(t, err)
	assert.Zero(t, c.Leeway, "negative: none")
	assert.Zero(t, c.KeyStaleFor, "negative: not at all")
	assert.Zero(t, c.CacheBytes, "negative: none is remembered")
	assert.Equal(t, 2*time.Second, c.FetchTimeout, "a tenth of a short KeyTTL")
	assert.Equal(t, "Lden1", c.Realm, "the audience without what cannot stand there")
}

// What the caller does to the slices of a Config afterwards moves nothing.
func TestNewCopiesEverySlice(t *testing.T) {
	t.Parallel()
	config := goodConfig()
	config.JWKS = []byte(oneKeySet)
	// A valid value for each slice: one that is forgotten here fails below.
	config.OtherAudiences = []string{"https://other.api"}
	config.InsecureHTTPHosts = []string{"logto"}
	config.Algorithms = []string{"ES256"}
	config.TokenTypes = []string{"at+jwt"}
	config.ScopeClaims = []string{"scope"}
	config.ClientClaims = []string{"client_id"}
	config.OrganizationClaims = []string{"org_id"}
	config.ClientsWithoutAudience = []string{"app"}
	checked, err := config.checked()
	require.NoError(t, err)

	given, copied := reflect.ValueOf(config), reflect.ValueOf(checked)
	for i := range given.NumField() {
		if given.Field(i).Kind() != reflect.Slice {
			continue
		}
		name := given.Type().Field(i).Name
		require.NotZero(t, given.Field(i).Len(), "%s is not in this test", name)
		assert.Equal(t, given.Field(i).Interface(), copied.Field(i).Interface(), name)
		assert.NotEqual(t, given.Field(i).Pointer(), copied.Field(i).Pointer(), "%s is shared", name)
	}

	guard, err := New(config)
	require.NoError(t, err)
	issuer := guard.issuers[0]
	policy := issuer.claims
	policy.audiences, policy.sought.Scopes, policy.sought.Clients =
		slices.Clone(policy.audiences), slices.Clone(policy.sought.Scopes), slices.Clone(policy.sought.Clients)
	for _, list := range [][]string{config.OtherAudiences, config.Algorithms, config.TokenTypes, config.ScopeClaims, config.ClientClaims} {
		list[0] = "changed"
	}
	assert.Equal(t, policy, issuer.claims)
	assert.Equal(t, []string{"ES256"}, issuer.algorithmNames)
	assert.Equal(t, []string{"at+jwt"}, issuer.typeNames)
}

func TestNewDoesNoIOAndStartsNoGoroutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // ends only when every goroutine has
		var output bytes.Buffer
		config := goodConfig()
		config.Logger = slog.New(slog.NewTextHandler(&output, &slog.HandlerOptions{Level: slog.LevelDebug}))
		config.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			t.Errorf("%s was asked", r.URL)
			return nil, http.ErrServerClosed
		})}
		guard, err := New(config)
		require.NoError(t, err)
		guard.Require("read:products")(http.NotFoundHandler())
		synctest.Wait()
		time.Sleep(24 * time.Hour)
		assert.Empty(t, output.String())
		assert.Nil(t, config.HTTPClient.CheckRedirect, "the caller's client is not changed")
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Many issuers publish their keys under /.well-known/, and one has them below its
// discovery document's name.
func TestJWKSURLUnderWellKnown(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"https://tenant.eu.auth0.com/.well-known/jwks.json",
		"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc/.well-known/jwks.json",
		"https://hydra.example/.well-known/jwks.json",
		"https://token.actions.githubusercontent.com/.well-known/jwks",
		"https://demo.duendesoftware.com/.well-known/openid-configuration/jwks",
		"https://keys.example/.well-known/openid-configurations",
		"https://keys.example/jwks?for=/.well-known/openid-configuration",
	} {
		_, err := New(configWith(func(c *Config) { c.JWKSURL = address }))
		assert.NoError(t, err, address)
	}
	for _, address := range []string{
		"https://your.logto.endpoint/oidc/.well-known/openid-configuration",
		"https://your.logto.endpoint/oidc/.well-known/openid-configuration/",
		"https://your.logto.endpoint/oidc/.well-known/openid-configuration?v=1",
		"https://your.logto.endpoint/oidc/.well-known/oauth-authorization-server",
		"https://your.logto.endpoint/.well-known/oauth-authorization-server/oidc",
		"https://your.logto.endpoint/oidc/.well-known/openid%2Dconfiguration",
	} {
		_, err := New(configWith(func(c *Config) { c.JWKSURL = address }))
		require.Error(t, err, address)
		assert.ErrorContains(t, err, "Config.JWKSURL must not be the discovery document", address)
		assert.ErrorContains(t, err, "/oidc/jwks", address)
	}
}

// No issuer's identifier is under /.well-known/: whoever sets one means another field.
func TestIssuerUnderWellKnown(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"https://a.example/.well-known/openid-configuration":            "Config.Issuer must not be the discovery document",
		"https://a.example/.well-known/openid-configuration/":           "Config.Issuer must not be the discovery document",
		"https://a.example/oidc/.well-known/oauth-authorization-server": "Config.Issuer must not be the discovery document",
		"https://a.example/.well-known/oauth-authorization-server/oidc": "Config.Issuer must not be the discovery document",
		"https://a.example/.well-known/jwks.json":                       "Config.Issuer must not be the token endpoint or the key set",
	} {
		_, err := New(configWith(func(c *Config) { c.Issuer = address }))
		assert.ErrorContains(t, err, want, address)
	}
}

// What keeps http out is that keys could be anyone's: an issuer that is never
// asked is a name.
func TestAnHTTPIssuerThatIsNeverAsked(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"keys given":      func(c *Config) { c.JWKS = []byte(oneKeySet) },
		"keys from a URL": func(c *Config) { c.JWKSURL = "https://keys.example/jwks" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := New(configWith(func(c *Config) { c.Issuer = "http://logto.internal:3001/oidc" }, change))
			assert.NoError(t, err)
			_, err = New(configWith(func(c *Config) { c.Issuer = "ftp://logto.internal/oidc" }, change))
			assert.ErrorContains(t, err, "Config.Issuer must be an absolute https URL", "but a URL it is")
		})
	}
	_, err := New(configWith(func(c *Config) { c.Issuer, c.JWKSURL = "http://a.example/oidc", "http://a.example/oidc/jwks" }))
	assert.ErrorContains(t, err, "Config.JWKSURL must be https", "that one is asked")
	assert.NotContains(t, err.Error(), "Config.Issuer")
}

func configWith(changes ...func(*Config)) Config {
	c := Config{Issuer: "https://your.logto.endpoint/oidc", Audience: "https://shopping.api"}
	for _, change := range changes {
		change(&c)
	}
	return c
}

func claimsWith(scopes string) *claimSet {
	return &claimSet{scopes: Scopes{names: scope.Split(scopes)}}
}

// refusalOf says why a rule refuses a token that has passed every other check.
func refusalOf(t *testing.T, rule Rule, c *claimSet) *Error {
	t.Helper()
	guard, err := New(goodConfig())
	require.NoError(t, err)
	return guard.issuers[0].authorize(t.Context(), c, nil, rule)
}

func TestRuleCheck(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		rule  Rule
		scope string
		want  error
	}{
		{"the zero Rule lets nobody through", Rule{}, "a b c", ErrForbidden},
		{"any token passes AnyToken", AnyToken(), "", nil},
		{"AllScopes with all", AllScopes("a", "b"), "c b a", nil},
		{"AllScopes with one missing", AllScopes("a", "b"), "a c", ErrScope},
		{"AllScopes with none", AllScopes("a"), "", ErrScope},
		{"AnyScope with one", AnyScope("a", "b"), "b", nil},
		{"AnyScope with another", AnyScope("a", "b"), "c", ErrScope},
		{"AnyScope with none", AnyScope("a"), "", ErrScope},
		{"a scope that RFC 6749 does not have", AllScopes(`"ä\`), `"ä\`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := refusalOf(t, test.rule, claimsWith(test.scope))
			if test.want == nil {
				assert.Nil(t, e)
				return
			}
			require.NotNil(t, e)
			require.ErrorIs(t, e, test.want)
			if test.want == ErrScope {
				assert.Equal(t, test.rule.scopes(nil), e.Scopes, "all scopes of the route")
			} else {
				assert.Nil(t, e.Scopes)
			}
		})
	}
}

func TestRefusalSaysThatTheTokenHasNoScopes(t *testing.T) {
	t.Parallel()
	assert.Contains(t, refusalOf(t, AllScopes("a"), claimsWith("")).Description, "the token has no scopes")
	assert.Contains(t, refusalOf(t, AllScopes("a"), claimsWith("b")).Description, "lacks a scope")
}

func TestOfSeveralReasonsTheFirstIsToldUnlessAScopeIsMissing(t *testing.T) {
	t.Parallel()
	users := &claimSet{subject: "user", clientID: "webapp"}
	kind, other, scope := MachineToken(), ClientID("reader"), AllScopes("a")
	for _, test := range []struct {
		rules []Rule
		want  error
		text  string
	}{
		{[]Rule{kind, other}, ErrForbidden, otherKind.text},
		{[]Rule{other, kind}, ErrForbidden, otherClient.text},
		{[]Rule{ActedBy("agent"), kind}, ErrForbidden, otherActor.text},
		{[]Rule{scope, kind}, ErrScope, "the token has no scopes"},
		{[]Rule{kind, scope}, ErrScope, "the token has no scopes"},
	} {
		for _, rule := range []Rule{AllOf(test.rules...), AnyOf(test.rules...)} {
			e := refusalOf(t, rule, users)
			require.ErrorIs(t, e, test.want, rule)
			assert.Contains(t, e.Description, test.text, rule)
		}
	}
}

func TestRuleIsNotChangedThroughARefusal(t *testing.T) {
	t.Parallel()
	scopes := []string{"a", "b"}
	rule := AllScopes(scopes...)
	scopes[0] = "changed by the caller"
	e := refusalOf(t, rule, claimsWith(""))
	require.Equal(t, []string{"a", "b"}, e.Scopes)
	e.Scopes[0] = "changed by an ErrorHandler"
	assert.Equal(t, []string{"a", "b"}, refusalOf(t, rule, claimsWith("")).Scopes)
}

func TestRuleString(t *testing.T) {
	t.Parallel()
	for want, rule := range map[string]Rule{
		`Rule{}`:                  {},
		`AnyToken()`:              AnyToken(),
		`AllScopes("a")`:          AllScopes("a"),
		`AllScopes("a", "b")`:     AllScopes("a", "b", "a", "b"),
		`AnyScope("b", "a")`:      AnyScope("b", "b", "a"),
		`AnyScope("say:\"hi\"")`:  AnyScope(`say:"hi"`),
		`AllScopes("read:größe")`: AllScopes("read:größe"),
	} {
		assert.Equal(t, want, rule.String())
	}
	assert.Len(t, refusalOf(t, AllScopes("a", "b", "a"), claimsWith("")).Scopes, 2, "a scope named twice is told once")
}

func TestWrongScopesPanicInTheNameOfTheCall(t *testing.T) {
	t.Parallel()
	guard, err := New(goodConfig())
	require.NoError(t, err)
	calls := map[string]func(...string){
		"AllScopes":  func(s ...string) { AllScopes(s...) },
		"AnyScope":   func(s ...string) { AnyScope(s...) },
		"Require":    func(s ...string) { guard.Require(s...) },
		"RequireAny": func(s ...string) { guard.RequireAny(s...) },
	}
	for _, test := range []struct {
		name   string
		scopes []string
		want   string // after the name of the call
	}{
		{"no scope", nil, ": no scope given; for any valid token use AnyToken"},
		{"an empty scope", []string{"a", ""}, `: "" cannot be a scope`},
		{"a space", []string{"read write"}, `: "read write" cannot be a scope; give each scope as an argument of its own`},
		{"a space before", []string{" read"}, `: " read" cannot be a scope`},
		{"a tab", []string{"read\twrite"}, `: "read\twrite" cannot be a scope`},
		{"a line break", []string{"read\n"}, `: "read\n" cannot be a scope`},
		{"NUL", []string{"read\x00"}, `: "read\x00" cannot be a scope`},
		{"DEL", []string{"read\x7f"}, `: "read\x7f" cannot be a scope`},
		{"a C1 control character", []string{"read\u0085"}, `: "read\u0085" cannot be a scope`},
		{"a no-break space", []string{"read\u00a0write"}, ` cannot be a scope`},
		{"bytes that are not UTF-8", []string{"read\xff"}, `: "read\xff" cannot be a scope`},
	} {
		for call, f := range calls {
			t.Run(call+" with "+test.name, func(t *testing.T) {
				t.Parallel()
				message := panicOf(t, func() { f(test.scopes...) })
				assert.Regexp(t, "^m2mauth: "+call+": ", message)
				assert.Contains(t, message, test.want)
			})
		}
	}
}

func TestMistakesInRulesAtSetUpPanic(t *testing.T) {
	t.Parallel()
	guard, err := New(goodConfig())
	require.NoError(t, err)
	var missing *Guard
	var noFunc http.HandlerFunc
	handler := http.NotFoundHandler()
	const noGuard = "the Guard is nil or was not made by New; was the error of New ignored?"
	for _, test := range []struct {
		name string
		call func()
		want string
	}{
		{"Require of a nil Guard", func() { missing.Require("a") }, "m2mauth: Require: " + noGuard},
		{"RequireAny of a nil Guard", func() { missing.RequireAny("a") }, "m2mauth: RequireAny: " + noGuard},
		{"RequireRule of a nil Guard", func() { missing.RequireRule(AnyToken()) }, "m2mauth: RequireRule: " + noGuard},
		{"Authenticate of a nil Guard", func() { missing.Authenticate(handler) }, "m2mauth: Authenticate: " + noGuard},
		{"Require of a zero Guard", func() { new(Guard).Require("a") }, "m2mauth: Require: " + noGuard},
		{"Authenticate of a zero Guard", func() { new(Guard).Authenticate(handler) }, "m2mauth: Authenticate: " + noGuard},
		{"RequireRule with the zero Rule", func() { guard.RequireRule(Rule{}) }, "m2mauth: RequireRule: the zero Rule lets nobody through; make one with AllScopes, AnyScope or AnyToken"},
		{"Require before no handler", func() { guard.Require("a")(nil) }, "m2mauth: Require: the handler is nil"},
		{"RequireAny before no handler", func() { guard.RequireAny("a")(nil) }, "m2mauth: RequireAny: the handler is nil"},
		{"RequireRule before no handler", func() { guard.RequireRule(AnyToken())(nil) }, "m2mauth: RequireRule: the handler is nil"},
		{"Authenticate before no handler", func() { guard.Authenticate(nil) }, "m2mauth: Authenticate: the handler is nil"},
		{"Require before a nil HandlerFunc", func() { guard.Require("a")(noFunc) }, "m2mauth: Require: the handler is nil"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.want, panicOf(t, test.call))
		})
	}
}

// panicOf returns the text that f panics with.
func panicOf(t *testing.T, f func()) (message string) {
	t.Helper()
	defer func() {
		v := recover()
		require.NotNil(t, v, "no panic")
		var ok bool
		message, ok = v.(string)
		require.True(t, ok, "a panic with %T %v", v, v)
	}()
	f()
	return ""
}

func TestScopesHas(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, claim, scope string
		want               bool
	}{
		{"the only one", "read", "read", true},
		{"the last of several", "read write delete", "delete", true},
		{"one that is not there", "read write", "delete", false},
		{"none in nothing", "", "read", false},
		{"never the empty one", "read  write", "", false},
		{"never the empty one of nothing", "", "", false},
		{"case matters", "read:products", "READ:products", false},
		{"a part is not the whole", "read:products", "read", false},
		{"the whole is not a part", "read", "read:products", false},
		{"two are not one", "read write", "read write", false},
		{"a star means itself", "read:*", "read:products", false},
		{"a star is found by itself", "read:*", "read:*", true},
		{"a quote is a letter like others", `say:"hi"`, `say:"hi"`, true},
		{"composed and decomposed letters differ", "lesen:\u00e4", "lesen:a\u0308", false},
		{"a tab parts nothing", "read\twrite", "write", false},
		{"a line break parts nothing", "read\nwrite", "read", false},
		{"a no-break space parts nothing", "read\u00a0write", "read", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			scopes := Scopes{names: scope.Split(test.claim)}
			assert.Equal(t, test.want, scopes.Has(test.scope))
			assert.Equal(t, test.want, scopes.HasAny("missing", test.scope))
			assert.Equal(t, test.want, scopes.HasAll(test.scope, test.scope))
		})
	}
}

// An array of a claims script may hold what no scope string can.
func TestTheEmptyScopeIsNeverHeld(t *testing.T) {
	t.Parallel()
	scopes := Scopes{names: []string{"", "read"}}
	assert.False(t, scopes.Has(""))
	assert.False(t, scopes.HasAny(""))
	assert.False(t, scopes.HasAll("read", ""))
}

func TestScopesHasAllAndHasAny(t *testing.T) {
	t.Parallel()
	scopes := Scopes{names: scope.Split("a b c")}
	for _, test := range []struct {
		name     string
		asked    []string
		all, any bool
	}{
		{"nothing", nil, false, false},
		{"an empty list", []string{}, false, false},
		{"one of them", []string{"b"}, true, true},
		{"all of them", []string{"c", "b", "a"}, true, true},
		{"one and another", []string{"b", "z"}, false, true},
		{"others", []string{"y", "z"}, false, false},
		{"one and the empty one", []string{"b", ""}, false, true},
		{"the empty one", []string{""}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.all, scopes.HasAll(test.asked...))
			assert.Equal(t, test.any, scopes.HasAny(test.asked...))
			assert.False(t, Scopes{}.HasAll(test.asked...), "of no scopes")
			assert.False(t, Scopes{}.HasAny(test.asked...), "of no scopes")
		})
	}
}

func TestScopesInTheTokensOrder(t *testing.T) {
	t.Parallel()
	scopes := Scopes{names: scope.Split("  write  read:products ")}
	assert.Equal(t, []string{"write", "read:products"}, slices.Collect(scopes.All()))
	assert.Equal(t, 2, scopes.Len())
	assert.Equal(t, "write read:products", scopes.String())
	for scope := range scopes.All() {
		assert.Equal(t, "write", scope)
		break // a loop may end early
	}

	var none Scopes
	assert.Empty(t, slices.Collect(none.All()))
	assert.Zero(t, none.Len())
	assert.Empty(t, none.String())
	assert.Zero(t, Scopes{names: scope.Split("   ")}.Len())
}

func TestWhatAllReturnsIsNoWayIn(t *testing.T) {
	t.Parallel()
	scopes := Scopes{names: scope.Split("a b")}
	list := slices.Collect(scopes.All())
	list[0] = "admin"
	_ = append(list[:1], "admin")
	assert.Equal(t, "a b", scopes.String())
}
