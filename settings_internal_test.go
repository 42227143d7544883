package m2mauth

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/setting"
)

// environ is an environment as os.Environ returns one.
func environ(variables map[string]string) (list []string) {
	for name, value := range variables {
		list = append(list, name+"="+value)
	}
	return list
}

func TestEverySettingIsReadFromTheEnvironment(t *testing.T) {
	t.Parallel()
	config, _, err := configFrom("M2MAUTH_", environ(map[string]string{
		"M2MAUTH_ISSUER":                             "https://issuer.test/oidc",
		"M2MAUTH_AUDIENCE":                           "https://shopping.api",
		"M2MAUTH_OTHER_AUDIENCES":                    "https://old.api, https://older.api",
		"M2MAUTH_JWKS_URL":                           "https://keys.test/jwks",
		"M2MAUTH_JWKS":                               `{"keys":[]}`,
		"M2MAUTH_INSECURE_HTTP_HOSTS":                " logto:3001 ,\tkeys , ,",
		"M2MAUTH_ALGORITHMS":                         "ES256,EdDSA",
		"M2MAUTH_TOKEN_TYPES":                        "at+jwt,none,None",
		"M2MAUTH_SCOPE_CLAIMS":                       "scope,/realm_access/roles",
		"M2MAUTH_CLIENT_CLAIMS":                      "client_id,azp",
		"M2MAUTH_LEEWAY":                             "-1s",
		"M2MAUTH_MAX_LIFETIME":                       "1h30m",
		"M2MAUTH_KEY_TTL":                            "90s",
		"M2MAUTH_KEY_STALE_FOR":                      "2h",
		"M2MAUTH_FETCH_TIMEOUT":                      "1.5s",
		"M2MAUTH_MAX_TOKEN_BYTES":                    "16384",
		"M2MAUTH_CACHE_BYTES":                        "-1",
		"M2MAUTH_REALM":                              "the shop, all of it",
		"M2MAUTH_INSECURE_ALLOW_ORGANIZATION_TOKENS": "true",
		"M2MAUTH_SCOPE_PREFIX":                       "https://shopping.api/",
		"M2MAUTH_SCOPE_ORGANIZATION":                 "2345",
		"M2MAUTH_IMPLIED_SCOPES":                     "admin=write:products read:users;write:products=read:products",
		"M2MAUTH_ORGANIZATION_CLAIMS":                "org_id,/tenant/id",
		"M2MAUTH_REQUIRED_CLAIMS":                    "token_use=access;/repository/owner_id=12 34",
		"M2MAUTH_ALLOW_MISSING_SUBJECT":              "true",
		"M2MAUTH_CLIENTS_WITHOUT_AUDIENCE":           "3kq8,7hd2",
		"M2MAUTH_INSECURE_REPORT_ONLY_UNTIL":         "2026-12-31T18:00:00Z",
		"PATH":                                       "/bin",
		"M2MAUTHORITY":                               "another program's",
		"OLD_M2MAUTH_URL":                            "another program's",
		"":                                           "C:=C:\\", // as on Windows
	}))
	require.NoError(t, err)
	assert.Equal(t, Config{
		Issuer:                          "https://issuer.test/oidc",
		Audience:                        "https://shopping.api",
		OtherAudiences:                  []string{"https://old.api", "https://older.api"},
		JWKSURL:                         "https://keys.test/jwks",
		JWKS:                            []byte(`{"keys":[]}`),
		InsecureHTTPHosts:               []string{"logto:3001", "keys"},
		Algorithms:                      []string{"ES256", "EdDSA"},
		TokenTypes:                      []string{"at+jwt", "", "None"},
		ScopeClaims:                     []string{"scope", "/realm_access/roles"},
		ClientClaims:                    []string{"client_id", "azp"},
		Leeway:                          -time.Second,
		MaxLifetime:                     90 * time.Minute,
		KeyTTL:                          90 * time.Second,
		KeyStaleFor:                     2 * time.Hour,
		FetchTimeout:                    1500 * time.Millisecond,
		MaxTokenBytes:                   16384,
		CacheBytes:                      -1,
		Realm:                           "the shop, all of it",
		InsecureAllowOrganizationTokens: true,
		ScopePrefix:                     "https://shopping.api/",
		ScopeOrganization:               "2345",
		ImpliedScopes:                   map[string][]string{"admin": {"write:products", "read:users"}, "write:products": {"read:products"}},
		OrganizationClaims:              []string{"org_id", "/tenant/id"},
		RequiredClaims:                  map[string][]string{"token_use": {"access"}, "/repository/owner_id": {"12", "34"}},
		AllowMissingSubject:             true,
		ClientsWithoutAudience:          []string{"3kq8", "7hd2"},
		InsecureReportOnlyUntil:         time.Date(2026, 12, 31, 18, 0, 0, 0, time.UTC),
	}, config)
}

// A field that is new is in the table, or this test fails; one that no text can hold
// is named here too.
func TestEveryFieldOfConfigIsASettingOrForCodeAlone(t *testing.T) {
	t.Parallel()
	var config Config
	settings := config.settings()
	var forCodeAlone []string
	for i, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		at := reflect.ValueOf(&config).Elem().Field(i).Addr().Pointer()
		n := slices.IndexFunc(settings, func(v envField) bool { return reflect.ValueOf(v.field).Pointer() == at })
		require.NotEqual(t, -1, n, "Config.%s is not in the table of variables", field.Name)
		name := strings.NewReplacer("JWKS", "Jwks", "HTTP", "Http").Replace(field.Name)
		name = regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(name, "${1}_$2")
		assert.Equal(t, strings.ToUpper(name), settings[n].name, "the variable of Config.%s", field.Name)
		assert.False(t, setting.OfKubernetes.MatchString(settings[n].name), "%s would be taken for a Service's", settings[n].name)
		if setting.Parse(settings[n].field, "") == setting.InCodeAlone {
			forCodeAlone = append(forCodeAlone, field.Name)
		}
		settings = slices.Delete(settings, n, n+1)
	}
	assert.Empty(t, settings, "twice in the table")
	assert.Equal(t, []string{"QueueKey", "HTTPClient", "Logger", "ErrorHandler", "IsMachine", "OnDecision"}, forCodeAlone)
}

func TestMistakesInTheEnvironmentAreToldInTheseWords(t *testing.T) {
	t.Parallel()
	const (
		whole    = "must be a whole number, such as 16384"
		duration = "must be a duration with its unit, such as 90s or 1h30m"
		zero     = "must not be zero, which in Config means the default: leave it out for that; LEEWAY, KEY_STALE_FOR and CACHE_BYTES take a negative value for none"
		yes      = "must be true or false"
		list     = "holds nothing: separate its values by commas"
		named    = "must be written as name=value value;name=value, with each name once, and a value for each"
		date     = "must be a time as RFC 3339 writes it, such as 2026-12-31T18:00:00Z"
		code     = "cannot be set from the environment: set the field of Config in code"
		unknown  = "is not a setting of m2mauth: docs/environment.md has them all"
	)
	for _, test := range []struct{ name, value, words string }{
		{"LEEWAY", "10", duration},
		{"LEEWAY", "10 s", duration},
		{"LEEWAY", "10s\n", duration},
		{"LEEWAY", "0s", zero},
		{"KEY_STALE_FOR", "0", zero},
		{"MAX_LIFETIME", "", duration},
		{"ORGANIZATION_CLAIMS", "", list},
		{"REQUIRED_CLAIMS", "", named},
		{"IMPLIED_SCOPES", "write:products", named},
		{"INSECURE_REPORT_ONLY_UNTIL", "7d", date},
		{"MAX_TOKEN_BYTES", "16KiB", whole},
		{"MAX_TOKEN_BYTES", "99999999999999999999", whole},
		{"MAX_TOKEN_BYTES", "0", zero},
		{"CACHE_BYTES", "1e6", whole},
		{"CACHE_BYTES", "-0", zero},
		{"INSECURE_ALLOW_ORGANIZATION_TOKENS", "1", yes},
		{"INSECURE_ALLOW_ORGANIZATION_TOKENS", "TRUE", yes},
		{"INSECURE_ALLOW_ORGANIZATION_TOKENS", " true", yes},
		{"ALGORITHMS", " , ", list},
		{"LOGGER", "stderr", code},
		{"HTTP_CLIENT", "x", code},
		{"QUEUE_KEY", "x", code},
		{"ERROR_HANDLER", "x", code},
		{"IS_MACHINE", "x", code},
		{"ON_DECISION", "x", code},
		{"ISSUR", "https://issuer.test", unknown},
		{"ISSUR", "", unknown},
		{"", "x", unknown},
		{"issuer", "x", unknown},
		{"JWKS_FILE", "/keys", unknown},
		{"GATEWAY", "x", unknown},
		{"PORT_", "x", unknown},
		{"PORT_80", "x", unknown},
		{"PORT_80_TCP_", "x", unknown},
		{"PORT_HTTP_TCP", "x", unknown},
		{"SERVICE_PORT_", "x", unknown},
		{"SERVICE_HOSTS", "x", unknown},
	} {
		config, weakened, err := configFrom("M2MAUTH_", []string{"M2MAUTH_" + test.name + "=" + test.value, "M2MAUTH_ISSUER=https://issuer.test"})
		assert.EqualError(t, err, "m2mauth: M2MAUTH_"+test.name+" "+test.words, "%q", test.value)
		assert.Zero(t, config, "%s=%q", test.name, test.value)
		assert.Empty(t, weakened)
	}
}

func TestParsedTexts(t *testing.T) {
	t.Parallel()
	const (
		named = "must be written as name=value value;name=value, with each name once, and a value for each"
		date  = "must be a time as RFC 3339 writes it, such as 2026-12-31T18:00:00Z"
	)
	for text, want := range map[string]map[string][]string{
		"a=b c;d=e": {"a": {"b", "c"}, "d": {"e"}},
		" write:products = read:products  list ; ;/repo/owner_id=1;": {"write:products": {"read:products", "list"}, "/repo/owner_id": {"1"}},
		"sub=system:serviceaccount:shop:cart":                        {"sub": {"system:serviceaccount:shop:cart"}},
		"a=b=c":                                                      {"a": {"b=c"}},
	} {
		var got map[string][]string
		assert.Empty(t, setting.Parse(&got, text), "%q", text)
		assert.Equal(t, want, got, "%q", text)
	}
	for _, text := range []string{"", ";", "a", "a=", "=b", "a= ", "a=b;a=c", "a=b;c", "a b=c", "a=b, c=d;e"} {
		var got map[string][]string
		assert.Equal(t, named, setting.Parse(&got, text), "%q", text)
	}
	var at time.Time
	assert.Empty(t, setting.Parse(&at, "2026-12-31T18:00:00+01:00"))
	assert.True(t, at.Equal(time.Date(2026, 12, 31, 17, 0, 0, 0, time.UTC)))
	for _, text := range []string{"", "2026-12-31", "2026-12-31T18:00:00", "2026-12-31 18:00:00Z", "tomorrow"} {
		assert.Equal(t, date, setting.Parse(&at, text), "%q", text)
	}
}

func TestAllMistakesInTheEnvironmentAreToldAtOnce(t *testing.T) {
	t.Parallel()
	_, _, err := configFrom("M2MAUTH_", environ(map[string]string{
		"M2MAUTH_ISSUER": "https://user:hunter2@issuer.test", "M2MAUTH_LEEWAY": "hunter2", "M2MAUTH_SECRET": "hunter2",
		"M2MAUTH_INSECURE_ALLOW_ORGANIZATION_TOKENS": "hunter2", "M2MAUTH_CACHE_BYTES": "hunter2", "M2MAUTH_LOGGER": "hunter2",
	}))
	require.Error(t, err)
	var names []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		names = append(names, strings.Fields(line)[1])
	}
	assert.Equal(t, []string{
		"M2MAUTH_CACHE_BYTES", "M2MAUTH_INSECURE_ALLOW_ORGANIZATION_TOKENS", "M2MAUTH_LEEWAY", "M2MAUTH_LOGGER", "M2MAUTH_SECRET",
	}, names, "in one order always")
	assert.NotContains(t, err.Error(), "hunter2")
}

// Kubernetes writes these into every container of a namespace that has Services
// named m2mauth, m2mauth-gateway and m2mauth-demo.
func TestVariablesOfKubernetesServicesAreNoMistakes(t *testing.T) {
	t.Parallel()
	for _, service := range []string{"", "GATEWAY_", "DEMO_", "2_"} {
		for _, name := range []string{
			"SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "SERVICE_PORT_HTTP_ADMIN", "PORT", "PORT_80_TCP", "PORT_80_TCP_PROTO",
			"PORT_80_TCP_PORT", "PORT_80_TCP_ADDR", "PORT_53_UDP", "PORT_53_UDP_ADDR", "PORT_7_SCTP_PROTO",
		} {
			_, _, err := configFrom("M2MAUTH_", []string{"M2MAUTH_" + service + name + "=tcp://10.0.0.11:80"})
			assert.NoError(t, err)
		}
	}
	_, _, err := configFrom("SHOP_", []string{"SHOP_SERVICE_HOST=10.0.0.11", "SHOP_PORT_80_TCP=tcp://10.0.0.11:80"})
	assert.NoError(t, err)
}

func TestTheGatewaysVariablesAreNoMistakes(t *testing.T) {
	t.Parallel()
	_, _, err := configFrom("M2MAUTH_", []string{"M2MAUTH_GATEWAY_RULES=rules.txt", "M2MAUTH_GATEWAY_=x"})
	assert.NoError(t, err)
	_, _, err = configFrom("SHOP_", []string{"SHOP_GATEWAY_RULES=rules.txt"})
	assert.ErrorContains(t, err, "SHOP_GATEWAY_RULES", "another prefix has no gateway")
	_, _, err = configFrom("M2MAUTH_GATEWAY_", []string{"M2MAUTH_GATEWAY_RULES=rules.txt"})
	assert.ErrorContains(t, err, "M2MAUTH_GATEWAY_RULES")
}

func TestAnEmptyVariableIsAsIfItWereNotSet(t *testing.T) {
	t.Parallel()
	var config Config
	for _, v := range config.settings() {
		got, weakened, err := configFrom("M2MAUTH_", []string{"M2MAUTH_" + v.name + "="})
		assert.Zero(t, got, v.name)
		assert.Empty(t, weakened, v.name)
		if v.narrows {
			assert.Error(t, err, "%s: whoever sets it wants less to be accepted than by default", v.name)
			continue
		}
		assert.NoError(t, err, v.name)
	}
}

func TestThePrefixMayLackItsUnderscore(t *testing.T) {
	t.Setenv("SHOP_ISSUER", "https://issuer.test/oidc")
	t.Setenv("SHOPPING", "another program's")
	for _, prefix := range []string{"SHOP", "SHOP_"} {
		config, err := ConfigFromEnv(prefix)
		require.NoError(t, err)
		assert.Equal(t, Config{Issuer: "https://issuer.test/oidc"}, config)
	}
	_, err := ConfigFromEnv("OTHER")
	assert.NoError(t, err, "New says what is missing")
	_, err = ConfigFromEnv("")
	assert.EqualError(t, err, "m2mauth: ConfigFromEnv needs a prefix, such as M2MAUTH_")
}

func TestWhatWeakensTheProtectionIsLoggedAtWarn(t *testing.T) {
	weak := map[string]string{
		"INSECURE_HTTP_HOSTS":                "logto",
		"INSECURE_ALLOW_ORGANIZATION_TOKENS": "true",
		"TOKEN_TYPES":                        "at+jwt,none",
		"LEEWAY":                             "31s",
		"KEY_TTL":                            "61m",
		"KEY_STALE_FOR":                      "61m",
		"ALLOW_MISSING_SUBJECT":              "true",
		"CLIENTS_WITHOUT_AUDIENCE":           "3kq8",
		"INSECURE_REPORT_ONLY_UNTIL":         time.Now().Add(time.Hour).Format(time.RFC3339),
	}
	for name, value := range weak {
		_, weakened, err := configFrom("M2MAUTH_", []string{"M2MAUTH_" + name + "=" + value})
		require.NoError(t, err)
		assert.Equal(t, []string{"M2MAUTH_" + name}, weakened)
	}
	for name, value := range map[string]string{
		"INSECURE_ALLOW_ORGANIZATION_TOKENS": "false", "TOKEN_TYPES": "application/AT+JWT", "LEEWAY": "30s", "KEY_TTL": "1h", "KEY_STALE_FOR": "1h",
		"ISSUER": "https://issuer.test", "CACHE_BYTES": "-1", "ALLOW_MISSING_SUBJECT": "false", "INSECURE_REPORT_ONLY_UNTIL": "2026-01-01T00:00:00Z",
	} {
		_, weakened, err := configFrom("M2MAUTH_", []string{"M2MAUTH_" + name + "=" + value})
		require.NoError(t, err)
		assert.Empty(t, weakened, name)
	}
	for _, v := range new(Config).settings() {
		if strings.HasPrefix(v.name, "INSECURE_") {
			assert.Contains(t, weak, v.name)
		}
	}

	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	t.Setenv("WEAK_LEEWAY", "2m")
	t.Setenv("WEAK_INSECURE_HTTP_HOSTS", "logto")
	_, err := ConfigFromEnv("WEAK_")
	require.NoError(t, err)
	assert.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	assert.Contains(t, log.String(), `level=WARN msg="m2mauth: settings from the environment weaken the protection" variables="WEAK_INSECURE_HTTP_HOSTS, WEAK_LEEWAY"`)

	log.Reset()
	t.Setenv("WEAK_LEVEL", "x")
	_, err = ConfigFromEnv("WEAK_")
	require.Error(t, err)
	_, err = ConfigFromEnv("STRONG_")
	require.NoError(t, err)
	assert.Empty(t, log.String(), "there is nothing to use, or nothing to say")
}

// No value, whatever it is, is in a mistake's words; and what was read is written in
// one way that is read as the same.
func FuzzConfigFromEnv(f *testing.F) {
	for _, v := range new(Config).settings() {
		for _, value := range []string{"", "a,b", "90s", "-1", "true", "a=b c;d=e", "2026-12-31T18:00:00Z", "none", `{"keys":[]}`} {
			f.Add(v.name, value)
		}
	}
	f.Add("SERVICE_PORT_HTTP", "80")
	f.Add("ISSUR", "x")
	f.Fuzz(func(t *testing.T, name, value string) {
		if strings.Contains(name, "=") {
			return
		}
		config, weakened, err := configFrom("P_", []string{"P_" + name + "=" + value})
		if err != nil {
			assert.Zero(t, config)
			assert.Empty(t, weakened)
			words, cut := strings.CutPrefix(err.Error(), "m2mauth: P_"+name+" ")
			require.True(t, cut, "%v", err)
			assert.Contains(t, []string{setting.InCodeAlone, setting.Unknown, setting.MustBeBool, setting.MustBeDuration, setting.MustBeList, setting.MustBeMap, setting.MustBeTime, setting.MustBeWhole, setting.MustNotBeZero}, words)
			return
		}
		settings := config.settings()
		n := slices.IndexFunc(settings, func(v envField) bool { return v.name == name })
		if n < 0 {
			assert.Zero(t, config)
			return
		}
		again, _, err := configFrom("P_", []string{"P_" + name + "=" + written(settings[n].field)})
		require.NoError(t, err)
		assert.Equal(t, config, again)
	})
}

// written is the text of a setting.
func written(field any) string {
	switch field := field.(type) {
	case *string:
		return *field
	case *[]byte:
		return string(*field)
	case *[]string:
		list := slices.Clone(*field)
		for i := range list {
			if list[i] == "" {
				list[i] = "none"
			}
		}
		return strings.Join(list, ",")
	case *map[string][]string:
		var entries []string
		for _, name := range slices.Sorted(maps.Keys(*field)) {
			entries = append(entries, name+"="+strings.Join((*field)[name], " "))
		}
		return strings.Join(entries, ";")
	case *time.Time:
		if field.IsZero() {
			return ""
		}
		return field.Format(time.RFC3339Nano)
	case *bool:
		if *field {
			return "true"
		}
		return "false"
	default:
		if value := reflect.ValueOf(field).Elem(); !value.IsZero() {
			if s, ok := value.Interface().(time.Duration); ok {
				return s.String()
			}
			return strings.TrimSpace(slog.AnyValue(value.Interface()).String())
		}
		return ""
	}
}

func TestThePageOfTheEnvironmentHasEverySetting(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/environment.md")
	require.NoError(t, err)
	var rows []string
	for _, row := range regexp.MustCompile("(?m)^\\| `M2MAUTH_([A-Z_]+)` \\| `Config\\.([A-Za-z]+)` \\| ([^|]+) \\|").FindAllStringSubmatch(string(page), -1) {
		rows = append(rows, row[1]+" "+row[2]+" "+row[3])
	}
	var config Config
	var want, forCodeAlone []string
	written := map[string]string{
		"*string": "text", "*[]uint8": "JSON", "*[]string": "list", "*map[string][]string": "map", "*bool": "`true` or `false`",
		"*time.Duration": "duration", "*time.Time": "time", "*int": "number", "*int64": "number",
	}
	for i, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		at := reflect.ValueOf(&config).Elem().Field(i).Addr()
		for _, v := range config.settings() {
			if reflect.ValueOf(v.field).Pointer() == at.Pointer() && setting.Parse(v.field, "") != setting.InCodeAlone {
				want = append(want, v.name+" "+field.Name+" "+written[at.Type().String()])
			} else if reflect.ValueOf(v.field).Pointer() == at.Pointer() {
				forCodeAlone = append(forCodeAlone, field.Name)
			}
		}
	}
	assert.ElementsMatch(t, want, rows)
	assert.Contains(t, string(page), "\nOnly in code: `"+strings.Join(forCodeAlone, "`, `")+"`.\n")
	for _, words := range []string{setting.Unknown, setting.InCodeAlone, setting.MustBeList, setting.MustBeMap, setting.MustBeBool, setting.MustBeWhole, setting.MustBeDuration, setting.MustNotBeZero, setting.MustBeTime} {
		assert.Contains(t, string(page), "\n| `"+words+"` |")
	}
	for _, s := range config.settings() {
		row := regexp.MustCompile("(?m)^\\| `M2MAUTH_" + s.name + "` .*$").FindString(string(page))
		assert.Equal(t, s.weakens != nil, strings.Contains(row, "warns"), s.name)
		assert.Equal(t, s.narrows, strings.Contains(row, "must not be empty"), s.name)
	}
}

// What the tests need, and what else a page or a program names, is a setting or has
// no such name: ConfigFromEnv would call it a mistake.
func TestEveryNameWithThePrefixInTheRepositoryIsKnown(t *testing.T) {
	t.Parallel()
	names := regexp.MustCompile(`\bM2MAUTH_[A-Z0-9][A-Z0-9_]*`)
	require.NoError(t, filepath.WalkDir(".", func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path == "settings_internal_test.go" {
			return err
		}
		if ext := filepath.Ext(path); ext != ".go" && ext != ".md" && ext != ".yml" && path != filepath.Join(".ci", "run") {
			return nil
		}
		data, err := os.ReadFile(path)
		for _, name := range names.FindAllString(string(data), -1) {
			if name == "M2MAUTH_ISSUR" || name == "M2MAUTH_RULES" {
				continue // mistakes that tests make
			}
			_, _, err := configFrom("M2MAUTH_", []string{name + "="})
			if err != nil && !strings.HasSuffix(err.Error(), setting.MustBeDuration) && !strings.HasSuffix(err.Error(), setting.MustBeMap) && !strings.HasSuffix(err.Error(), setting.MustBeList) {
				assert.NoError(t, err, path)
			}
		}
		return err
	}))
}

func TestMistakesInSettingsOfClaims(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*Config)
		want   []string // in the error; none: no mistake
	}{
		{"pointers", func(c *Config) {
			c.ScopeClaims, c.ClientClaims = []string{"/realm_access/roles", "scope"}, []string{"/a~1b/c~0d"}
			c.OrganizationClaims, c.RequiredClaims = []string{"/org/id"}, map[string][]string{"/kubernetes.io/serviceaccount/uid": {"1"}}
		}, nil},
		{"an escape that is none", func(c *Config) { c.ScopeClaims = []string{"/a~2"} }, []string{`Config.ScopeClaims[0]: "/a~2"`, "~0", "~1"}},
		{"a tilde at the end", func(c *Config) { c.ClientClaims = []string{"azp", "/a~"} }, []string{`Config.ClientClaims[1]: "/a~"`, "~0"}},
		{"an empty pointer", func(c *Config) { c.ScopeClaims = []string{"/"} }, []string{`Config.ScopeClaims[0]: "/"`, "empty"}},
		{"an empty part", func(c *Config) { c.OrganizationClaims = []string{"/a//b"} }, []string{`Config.OrganizationClaims[0]: "/a//b"`, "empty"}},
		{"an empty part at the end", func(c *Config) { c.RequiredClaims = map[string][]string{"/a/": {"x"}} }, []string{`Config.RequiredClaims["/a/"]: "/a/"`, "empty"}},
		{"a tilde in a plain name", func(c *Config) { c.ScopeClaims = []string{"a~2"} }, nil},
		{"sub by a pointer", func(c *Config) { c.ClientClaims = []string{"/sub"} }, []string{"Config.ClientClaims: with sub every user"}},
		{"an empty organization claim", func(c *Config) { c.OrganizationClaims = []string{""} }, []string{"Config.OrganizationClaims[0] is empty", "for none"}},
		{"a required claim without values", func(c *Config) { c.RequiredClaims = map[string][]string{"tid": nil} }, []string{`Config.RequiredClaims["tid"] has no value`}},
		{"a required claim with an empty value", func(c *Config) { c.RequiredClaims = map[string][]string{"tid": {"a", ""}} }, []string{`Config.RequiredClaims["tid"] has no value or an empty one`}},
		{"a required claim without name", func(c *Config) { c.RequiredClaims = map[string][]string{"": {"a"}} }, []string{`Config.RequiredClaims[""] is empty`}},
		{"a required claim twice", func(c *Config) { c.RequiredClaims = map[string][]string{"tid": {"a"}, "/tid": {"b"}} }, []string{`Config.RequiredClaims["tid"] is a claim that is there already`}},
		{"a client without name", func(c *Config) { c.ClientsWithoutAudience = []string{"app", ""} }, []string{"Config.ClientsWithoutAudience: a client's name is empty"}},
		{"clients without audience at a guard for organization tokens", func(c *Config) {
			c.Audience, c.ClientsWithoutAudience = "urn:logto:organization:", []string{"app"}
		}, []string{"Config.ClientsWithoutAudience must be empty where Audience is urn:logto:organization:"}},
		{"a prefix with a line break", func(c *Config) { c.ScopePrefix = "api/\n" }, []string{`Config.ScopePrefix: "api/\n" holds white space`}},
		{"an organization with a line break", func(c *Config) { c.ScopeOrganization = "2345\n" }, []string{`Config.ScopeOrganization: "2345\n" begins or ends with white space`}},
		{"implied scopes", func(c *Config) {
			c.ImpliedScopes = map[string][]string{"admin": {"write", "read"}, "write": {"read"}, "other": nil}
		}, nil},
		{"two implied in one", func(c *Config) { c.ImpliedScopes = map[string][]string{"admin": {"write read"}} }, []string{`Config.ImpliedScopes["admin"]: "write read" cannot be a scope`}},
		{"a scope without name that implies", func(c *Config) { c.ImpliedScopes = map[string][]string{"": {"read"}} }, []string{`Config.ImpliedScopes[""]: "" cannot be a scope`}},
		{"a scope that implies itself", func(c *Config) { c.ImpliedScopes = map[string][]string{"a": {"a"}} }, []string{"Config.ImpliedScopes: a > a is a cycle"}},
		{"a cycle of three", func(c *Config) {
			c.ImpliedScopes = map[string][]string{"x": {"a"}, "a": {"b"}, "b": {"y", "c"}, "c": {"a"}}
		}, []string{"Config.ImpliedScopes: a > b > c > a is a cycle"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := goodConfig()
			test.change(&c)
			_, err := New(c)
			if test.want == nil {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			for _, text := range test.want {
				assert.ErrorContains(t, err, text)
			}
		})
	}
}

// A pointer to a member of the token is the member's name, so that no check on
// names can be avoided.
func TestAPointerToAMemberIsItsName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"scope": "scope", "/scope": "scope", "/a~0b": "a~b", "a/b": "a/b", "/a~1b": "a/b", "/~1a": "/~1a", "/a/b~1c": "/a/b~1c", "~1": "~1", "/~01": "~1",
	} {
		claim, err := parseClaim(name)
		require.NoError(t, err, name)
		assert.Equal(t, want, claim.text, name)
	}
}

func TestNewCopiesEveryMap(t *testing.T) {
	t.Parallel()
	config := goodConfig()
	config.RequiredClaims = map[string][]string{"tid": {"a"}}
	config.ImpliedScopes = map[string][]string{"write": {"read"}}
	checked, err := config.checked()
	require.NoError(t, err)
	config.RequiredClaims["tid"][0], config.ImpliedScopes["write"][0] = "changed", "changed"
	config.RequiredClaims["more"], config.ImpliedScopes["more"] = nil, nil
	assert.Equal(t, map[string][]string{"tid": {"a"}}, checked.RequiredClaims)
	assert.Equal(t, map[string][]string{"write": {"read"}}, checked.ImpliedScopes)
}

func named(claim string) claimName { return claimNames([]string{claim})[0] }

// lineCounter is a [slog.Handler] that counts lines by how they begin.
type lineCounter struct{ begun, soon, ended atomic.Int32 }

func (*lineCounter) Enabled(context.Context, slog.Level) bool { return true }
func (l *lineCounter) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l *lineCounter) WithGroup(string) slog.Handler          { return l }

func (l *lineCounter) Handle(_ context.Context, r slog.Record) error {
	switch {
	case strings.Contains(r.Message, "ends soon"):
		l.soon.Add(1)
	case strings.Contains(r.Message, "has ended"):
		l.ended.Add(1)
	default:
		l.begun.Add(1)
	}
	return nil
}

// The model of a dry run: it is over when somebody looks at the end or after it, or 90
// days on, by either clock; and what is over stays so. Both clocks move at random: the
// wall clock goes on, jumps ahead and back; the monotonic one only goes on.
func TestNoClockBringsADryRunBack(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	within := func(most time.Duration) time.Duration { return time.Duration(random.Int64N(int64(most))) }
	const day = 24 * time.Hour
	ended, late := 0, 0
	for range 2000 {
		lines := new(lineCounter)
		made := time.Now()
		length := within(maxReportOnly) + 1
		d := newDryRun(made, made.Add(length), func() *slog.Logger { return slog.New(lines) })
		var wall, monotonic time.Duration // since made
		fewest, warned := 3, 0
		over := false
		for range 30 {
			switch step := within(10 * day); random.IntN(4) {
			case 0:
				wall += step
			case 1:
				wall -= step
			case 2: // a machine that sleeps
				wall, monotonic = wall+step, monotonic+step/4
			default:
				wall, monotonic = wall+step, monotonic+step
			}
			if random.IntN(3) == 0 {
				continue // nobody looks
			}
			over = over || wall >= length || monotonic >= maxReportOnly
			if over && wall < length {
				late++
			}
			if days := int((length - wall) / day); !over && days < fewest {
				fewest, warned = days, warned+1
			}
			require.Equal(t, !over, d.underWay(later(made, wall, monotonic)), "%v of %v by the wall, %v by the monotonic clock", wall, length, monotonic)
		}
		assert.EqualValues(t, 1, lines.begun.Load())
		assert.EqualValues(t, warned, lines.soon.Load())
		assert.LessOrEqual(t, warned, 3)
		if over {
			ended++
		}
		assert.Equal(t, over, lines.ended.Load() == 1)
	}
	assert.Greater(t, ended, 500)
	assert.Greater(t, late, 100, "looks after the clock was set back behind the end")
}

func TestADryRunThatIsOverAtNewStaysSo(t *testing.T) {
	t.Parallel()
	lines := new(lineCounter)
	made := time.Now()
	d := newDryRun(made, made.Add(-time.Hour), func() *slog.Logger { return slog.New(lines) })
	assert.False(t, d.underWay(later(made, -2*time.Hour, 0)))
	assert.False(t, d.underWay(made))
	assert.EqualValues(t, 1, lines.begun.Load())
	assert.Zero(t, lines.ended.Load(), "New told it")
	assert.Nil(t, newDryRun(made, time.Time{}, nil))
}

func TestADryRunEndsAfter90DaysWhateverTheWallClockSays(t *testing.T) {
	t.Parallel()
	made := time.Now()
	for name, wall := range map[string]time.Duration{"it stands": 0, "it was set back": -time.Hour, "it is slow": maxReportOnly / 2} {
		d := newDryRun(made, made.Add(maxReportOnly), func() *slog.Logger { return slog.New(slog.DiscardHandler) })
		assert.True(t, d.underWay(later(made, wall, maxReportOnly-1)), name)
		assert.False(t, d.underWay(later(made, wall, maxReportOnly)), name)
		assert.False(t, d.underWay(later(made, wall, 0)), name)
	}
}

func TestADryRunEndsOnceForAllWhoLook(t *testing.T) {
	t.Parallel()
	lines := new(lineCounter)
	made := time.Now()
	d := newDryRun(made, made.Add(time.Hour), func() *slog.Logger { return slog.New(lines) })
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 1000 {
				d.underWay(later(made, time.Duration(n)*time.Minute, 0))
				if n >= 60 { // it has seen the end
					assert.False(t, d.underWay(later(made, -time.Duration(i)*time.Hour, 0)))
				}
			}
		})
	}
	all.Wait()
	assert.EqualValues(t, 1, lines.soon.Load())
	assert.EqualValues(t, 1, lines.ended.Load())
}
