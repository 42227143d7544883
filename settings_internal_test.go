package m2mauth

import (
	"bytes"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/claim"
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
		n := slices.IndexFunc(settings, func(v setting.Variable) bool { return reflect.ValueOf(v.Field).Pointer() == at })
		require.NotEqual(t, -1, n, "Config.%s is not in the table of variables", field.Name)
		name := strings.NewReplacer("JWKS", "Jwks", "HTTP", "Http").Replace(field.Name)
		name = regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(name, "${1}_$2")
		assert.Equal(t, strings.ToUpper(name), settings[n].Name, "the variable of Config.%s", field.Name)
		assert.False(t, setting.OfKubernetes.MatchString(settings[n].Name), "%s would be taken for a Service's", settings[n].Name)
		if setting.Parse(settings[n].Field, "") == setting.InCodeAlone {
			forCodeAlone = append(forCodeAlone, field.Name)
		}
		settings = slices.Delete(settings, n, n+1)
	}
	assert.Empty(t, settings, "twice in the table")
	assert.Equal(t, []string{"QueueKey", "HTTPClient", "Logger", "ErrorHandler", "IsMachine", "Revoked", "OnDecision"}, forCodeAlone)
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
		got, weakened, err := configFrom("M2MAUTH_", []string{"M2MAUTH_" + v.Name + "="})
		assert.Zero(t, got, v.Name)
		assert.Empty(t, weakened, v.Name)
		if v.Narrows {
			assert.Error(t, err, "%s: whoever sets it wants less to be accepted than by default", v.Name)
			continue
		}
		assert.NoError(t, err, v.Name)
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
		if strings.HasPrefix(v.Name, "INSECURE_") {
			assert.Contains(t, weak, v.Name)
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
			f.Add(v.Name, value)
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
		n := slices.IndexFunc(settings, func(v setting.Variable) bool { return v.Name == name })
		if n < 0 {
			assert.Zero(t, config)
			return
		}
		again, _, err := configFrom("P_", []string{"P_" + name + "=" + written(settings[n].Field)})
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
			if reflect.ValueOf(v.Field).Pointer() == at.Pointer() && setting.Parse(v.Field, "") != setting.InCodeAlone {
				want = append(want, v.Name+" "+field.Name+" "+written[at.Type().String()])
			} else if reflect.ValueOf(v.Field).Pointer() == at.Pointer() {
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
		row := regexp.MustCompile("(?m)^\\| `M2MAUTH_" + s.Name + "` .*$").FindString(string(page))
		assert.Equal(t, s.Weakens != nil, strings.Contains(row, "warns"), s.Name)
		assert.Equal(t, s.Narrows, strings.Contains(row, "must not be empty"), s.Name)
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
			switch name {
			case "M2MAUTH_ISSUR", "M2MAUTH_RULES", "M2MAUTH_GATEWAYS": // mistakes that tests make
				continue
			case "M2MAUTH_APP_ID", "M2MAUTH_APP_SECRET", "M2MAUTH_REDIS_PASSWORD": // of cmd/m2mauth, which is no API
				continue
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

func TestWithoutADateThereIsNoDryRun(t *testing.T) {
	t.Parallel()
	assert.Nil(t, newDryRun(time.Now(), time.Time{}, nil))
}

var usualClaims = claim.Sought{Scopes: claim.Names("scope"), Clients: claim.Names("client_id"), Organizations: claim.Names("organization_id")}

func named(name string) claim.Name { return claim.Names(name)[0] }
