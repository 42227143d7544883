package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/m2mauth/m2mauth"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every field of Config is one of an issuer's entry, or holds for all issuers, or is no
// data.
func TestEveryFieldOfConfigThatIsDataCanBeSet(t *testing.T) {
	t.Parallel()
	forAll := map[string]string{ // with the setting
		"CacheBytes": "limits.cache_bytes", "MaxTokenBytes": "limits.max_token_bytes", "Realm": "realm", "InsecureReportOnlyUntil": "insecure_report_only_until",
	}
	code := []string{"QueueKey", "HTTPClient", "Logger", "ErrorHandler", "IsMachine", "Revoked", "OnDecision"}
	entry := reflect.TypeFor[issuerSettings]()
	for _, field := range reflect.VisibleFields(reflect.TypeFor[m2mauth.Config]()) {
		own, is := entry.FieldByName(field.Name)
		switch {
		case is:
			assert.True(t, own.Type.ConvertibleTo(field.Type), field.Name)
			assert.Equal(t, snake(field.Name), own.Tag.Get("yaml"), "the name is that of the environment variable, in lower case")
		case forAll[field.Name] != "":
			assert.Contains(t, paths(), forAll[field.Name])
		default:
			assert.Contains(t, code, field.Name)
			assert.Contains(t, []reflect.Kind{reflect.Func, reflect.Pointer}, field.Type.Kind(), field.Name)
		}
	}
}

// snake returns a field's name in lower case, with underscores.
func snake(name string) string {
	name = strings.NewReplacer("JWKSURL", "JwksUrl", "JWKS", "Jwks", "KeyTTL", "KeyTtl", "HTTPHosts", "HttpHosts").Replace(name)
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// Every value that an entry can set arrives in the Config.
func TestTheEntryOfAnIssuerIsItsConfig(t *testing.T) {
	t.Parallel()
	entry := new(issuerSettings)
	v := reflect.ValueOf(entry).Elem()
	want := reflect.New(reflect.TypeFor[m2mauth.Config]()).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if name == "Name" || name == "Preset" {
			continue
		}
		switch field := v.Field(i); field.Kind() {
		case reflect.String:
			field.SetString(name)
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Int64:
			field.SetInt(int64(i))
		case reflect.Slice:
			field.Set(reflect.ValueOf([]string{name}))
		default:
			field.Set(reflect.ValueOf(map[string][]string{name: {name}}).Convert(field.Type()))
		}
		want.FieldByName(name).Set(v.Field(i).Convert(want.FieldByName(name).Type()))
	}
	until := time.Now().Add(time.Hour)
	s := &settings{Realm: "r", ReportOnly: until, Limits: limits{CacheBytes: 7, MaxTokenBytes: 8}, reader: newReader("")}
	config := want.Interface().(m2mauth.Config)
	config.Realm, config.InsecureReportOnlyUntil, config.CacheBytes, config.MaxTokenBytes = "r", until, 7, 8
	assert.Equal(t, config, entry.config(s, ""))
	assert.NoError(t, s.reader.mistakes.sorted())
}

// Fields replace those of a preset, and required claims are added.
func TestFieldsBesideAPreset(t *testing.T) {
	t.Parallel()
	s, err := parse("gateway.yaml", []byte(strings.Replace(minimal, "  - issuer: https://login.shop.example\n    audience: https://shopping.api\n",
		"  - preset: {name: keycloak, realm_url: https://k.example/realms/shop, audience: a}\n    token_types: [none]\n    required_claims: {tenant: [acme], jti: any}\n", 1)), nil)
	require.NoError(t, err)
	c := s.Issuers[0].config(s, "issuers[0]")
	require.NoError(t, s.reader.mistakes.sorted())
	assert.Equal(t, "https://k.example/realms/shop", c.Issuer)
	assert.Equal(t, []string{""}, c.TokenTypes)
	assert.Equal(t, []string{"azp"}, c.ClientClaims)
	assert.Equal(t, map[string][]string{"typ": {"Bearer"}, "tenant": {"acme"}, "jti": {m2mauth.AnyValue}}, c.RequiredClaims)
	assert.NotNil(t, c.IsMachine)
	assert.Equal(t, []string{"none"}, s.Issuers[0].TokenTypes, "the entry stays as it is: guards are compared by it")
}

// paths returns every setting of the file but those of rows and presets.
func paths() (list []string) {
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		for i := range t.NumField() {
			tag := t.Field(i).Tag.Get("yaml")
			if tag == "" {
				continue
			}
			inner := t.Field(i).Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct && inner != timeType && inner != reflect.TypeFor[preset]() {
				walk(inner, path+tag+".")
				continue
			}
			list = append(list, path+tag)
		}
	}
	walk(reflect.TypeFor[settings](), "")
	return list
}

// settingsInside returns the names of the fields that items of the lists have.
func settingsInside() (list []string) {
	for _, t := range []reflect.Type{reflect.TypeFor[issuerSettings](), reflect.TypeFor[rowSettings](), reflect.TypeFor[openAPISettings]()} {
		for name := range settingsOf(t) {
			list = append(list, name)
		}
	}
	return list
}

// The page has a row for each setting, the package comment names it, and the example shows
// it.
func TestEverySettingIsDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/gateway.md")
	require.NoError(t, err)
	comment, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	example, err := os.ReadFile("gateway.yaml")
	require.NoError(t, err)
	names := settingsInside()
	for _, path := range paths() {
		assert.Regexp(t, "(?m)^\\|[^|]*`"+regexp.QuoteMeta(path)+"`[^|]*\\|", string(page))
		names = append(names, path[strings.LastIndexByte(path, '.')+1:])
	}
	for _, name := range names {
		assert.Regexp(t, `\b`+name+`\b`, string(comment))
		assert.Regexp(t, `\b`+name+`:`, string(example))
		assert.Regexp(t, "`(\\w+\\.)*"+name+"`|\\b"+name+":", string(page))
	}
	for name, kind := range presets {
		arguments := kind.single
		if kind.list != "" {
			arguments = append(slices.Clone(arguments), kind.list)
		}
		assert.Contains(t, string(page), "\n| `"+name+"` | `"+strings.Join(arguments, "`, `")+"` |\n")
	}
	for _, setting := range regexp.MustCompile("(?m)^\\| (`[a-z_.]+`(?:, `[a-z_.]+`)*) \\|").FindAllStringSubmatch(between(t, string(page), "\n## Settings\n", "\n## Issuers\n"), -1) {
		for name := range strings.SplitSeq(setting[1], ", ") {
			assert.Contains(t, paths(), strings.Trim(name, "`"), "a row of a setting that is none")
		}
	}
}

func between(t *testing.T, text, begin, end string) string {
	t.Helper()
	_, text, found := strings.Cut(text, begin)
	require.True(t, found, begin)
	text, _, found = strings.Cut(text, end)
	require.True(t, found, end)
	return text
}

// What the example shows without using it is right as well.
func TestTheWholeExampleIsRight(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("gateway.yaml")
	require.NoError(t, err)
	whole := regexp.MustCompile(`(?m)^( *)#( *(?:[a-z_:]+:( .*)?|- .*))$`).ReplaceAll(text, []byte("$1$2"))
	whole = bytes.Replace(whole, []byte("2026-12-24T18:00:00Z"), []byte(time.Now().Add(time.Hour).UTC().Format(time.RFC3339)), 1)
	dir := t.TempDir()
	certificate, key := certify(t, "localhost")
	for name, content := range map[string][]byte{
		"tls.crt": certificate, "tls.key": key, "proxies.crt": certificate, "prometheus.crt": certificate, "redis.crt": certificate, "redis.password": []byte("secret\n"), "openapi.yaml": []byte(described),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	// These exclude each other.
	for _, line := range []string{"    database: 1\n"} {
		require.Equal(t, 1, bytes.Count(whole, []byte(line)))
		whole = bytes.Replace(whole, []byte(line), nil, 1)
	}
	whole = bytes.Replace(whole, []byte("  address: unix:/run/m2mauth/envoy.sock\n"), []byte("  address: 127.0.0.1:9191\n"), 1)
	file := filepath.Join(dir, "gateway.yaml")
	require.NoError(t, os.WriteFile(file, whole, 0o600))
	g, err := examine(file, nil, nil, nil)
	require.NoError(t, err, string(whole))
	assert.Len(t, g.issuers, 4)
	assert.Len(t, g.rules, 14)
	assert.Equal(t, "secret", g.settings.redisPassword)

	assert.Equal(t, 0, run(t.Context(), []string{"validate", "gateway.yaml"}, new(bytes.Buffer), new(bytes.Buffer), func() []string { return nil }), "and it is right as it stands")
}

// Every function of package issuers is a preset, with its arguments.
func TestEveryIssuerIsAPreset(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../issuers/*.go")
	require.NoError(t, err)
	signatures := make(map[string]bool)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		for _, declaration := range file.Decls {
			f, ok := declaration.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !f.Name.IsExported() {
				continue
			}
			var names []string
			for _, parameter := range f.Type.Params.List {
				for _, n := range parameter.Names {
					names = append(names, snake(strings.NewReplacer("ID", "Id", "UID", "Uid", "URL", "Url").Replace(n.Name)))
				}
			}
			signatures[f.Name.Name+" "+strings.Join(names, ", ")] = true
		}
	}
	require.Len(t, signatures, len(presets))
	for name, kind := range presets {
		made, err := kind.make(make([]string, len(kind.single)), nil)
		require.Error(t, err, name)
		assert.Zero(t, made.Issuer)
		function := regexp.MustCompile(`issuers: (\w+): `).FindStringSubmatch(err.Error())[1]
		assert.True(t, signatures[function+" "+kind.takes()], "%s: %s %s", name, function, kind.takes())
		for i := range kind.single { // each argument gets to its own parameter
			single := slices.Repeat([]string{"a b"}, len(kind.single))
			single[i] = ""
			_, err := kind.make(single, []string{"a b"})
			assert.Regexp(t, `(?m): `+strings.ReplaceAll(kind.single[i], "_", "_?")+` is empty`, strings.ToLower(err.Error()), name)
		}
	}
}

func TestVariablesGoBeforeTheFile(t *testing.T) {
	t.Parallel()
	g, err := readText(minimal,
		"M2MAUTH_GATEWAY_HTTP_ADDRESS=127.0.0.1:1", "M2MAUTH_GATEWAY_GRPC_ADDRESS=127.0.0.1:2", "M2MAUTH_GATEWAY_GRPC_KEEP_AUTHORIZATION=true",
		"M2MAUTH_GATEWAY_LIMITS_SHUTDOWN_TIMEOUT=3s", "M2MAUTH_GATEWAY_LIMITS_CACHE_BYTES=2097152", "M2MAUTH_GATEWAY_REALM=shop", "M2MAUTH_GATEWAY_METRICS_ADDRESS=",
		// not ours
		"M2MAUTH_GATEWAY_FILE=x", "M2MAUTH_GATEWAY_LOG_LEVEL=debug", "M2MAUTH_GATEWAY_LOG_FORMAT=json", "M2MAUTH_ISSUER=x", "M2MAUTH_GATEWAYS=x",
		"M2MAUTH_GATEWAY_SERVICE_HOST=10.0.0.1", "M2MAUTH_GATEWAY_SERVICE_PORT=80", "M2MAUTH_GATEWAY_SERVICE_PORT_HTTP=80", "M2MAUTH_GATEWAY_PORT=tcp://10.0.0.1:80",
		"M2MAUTH_GATEWAY_PORT_80_TCP=tcp://10.0.0.1:80", "M2MAUTH_GATEWAY_PORT_80_TCP_PROTO=tcp", "M2MAUTH_GATEWAY_PORT_80_TCP_PORT=80", "M2MAUTH_GATEWAY_PORT_80_TCP_ADDR=10.0.0.1",
	)
	require.NoError(t, err)
	s := g.settings
	assert.Equal(t, "127.0.0.1:1", s.HTTP.Address)
	assert.Equal(t, &grpcListener{Address: "127.0.0.1:2", KeepAuthorization: true}, s.GRPC)
	assert.Equal(t, 3*time.Second, s.Limits.ShutdownTimeout)
	assert.EqualValues(t, 2<<20, s.Limits.CacheBytes)
	assert.Equal(t, "shop", s.Realm)
	assert.Nil(t, s.Metrics, "an empty variable counts as not set")

	_, err = readText(minimal, "M2MAUTH_GATEWAY_HTTP_ADRESS=secret", "M2MAUTH_GATEWAY_LIMITS_CACHE_BYTES=secret", "M2MAUTH_GATEWAY_ISSUERS=secret", "M2MAUTH_GATEWAY_RULES=secret", "M2MAUTH_GATEWAY_END=true")
	require.Error(t, err)
	assert.Equal(t, []string{
		"M2MAUTH_GATEWAY_HTTP_ADRESS: there is no such setting", "M2MAUTH_GATEWAY_LIMITS_CACHE_BYTES: must be a whole number",
		"M2MAUTH_GATEWAY_ISSUERS: there is no such setting", "M2MAUTH_GATEWAY_RULES: there is no such setting", "M2MAUTH_GATEWAY_END: there is no such setting",
	}, strings.Split(err.Error(), "\n"), "no value is shown")
}

// Its line in the file would be somebody else's mistake.
func TestAMistakeInAVariableNamesIt(t *testing.T) {
	t.Parallel()
	_, err := readText(minimal, "M2MAUTH_GATEWAY_HTTP_ADDRESS=secret", "M2MAUTH_GATEWAY_LIMITS_MAX_HEADER_BYTES=5", "M2MAUTH_GATEWAY_LIMITS_MAX_TOKEN_BYTES=5")
	require.Error(t, err)
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, 3)
	assert.Equal(t, "M2MAUTH_GATEWAY_HTTP_ADDRESS: must be host:port, or unix: and the path of a socket", lines[0])
	assert.Equal(t, "M2MAUTH_GATEWAY_LIMITS_MAX_HEADER_BYTES: must be from 16384 to 4194304", lines[1])
	assert.True(t, strings.HasPrefix(lines[2], "M2MAUTH_GATEWAY_LIMITS_MAX_TOKEN_BYTES: m2mauth: Config.MaxTokenBytes"), lines[2])
}

func TestThePasswordOfTheStoreIsInNoFileButItsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "password"), []byte("from-file\r\n"), 0o600))
	text := strings.Replace(minimal, "rules:", "revocation:\n  max_token_lifetime: 1h\n  redis:\n    address: 127.0.0.1:6379\n    password_file: password\nrules:", 1)
	file := filepath.Join(dir, "gateway.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	s, err := load(file, nil)
	require.NoError(t, err)
	assert.Equal(t, "from-file", s.redisPassword)
	assert.False(t, s.changed())
	before := s.listKey()

	s, err = load(file, []string{passwordVariable + "=from-variable"})
	require.NoError(t, err)
	assert.Equal(t, "from-variable", s.redisPassword)
	assert.NotEqual(t, before, s.listKey(), "another password is another list")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "password"), []byte("another\n"), 0o600))
	assert.True(t, s.changed(), "the file that it names is followed too")
}

func TestExitStatus(t *testing.T) {
	// Not parallel: to serve sets the default logger, and others would log into the buffer that is read here.
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	require.NoError(t, os.WriteFile(good, []byte(minimal), 0o600))
	require.NoError(t, os.WriteFile(bad, []byte(strings.Replace(minimal, "audience", "audiance", 1)), 0o600))
	missing := filepath.Join(dir, "missing.yaml")
	for _, test := range []struct {
		arguments      string
		status         int
		stdout, stderr string
	}{
		{"validate " + good, 0, "good.yaml: no mistake; issuers: 1, rows: 2\n", ""},
		{"validate " + bad, 1, "", "bad.yaml:5: issuers[0].audiance: there is no such setting"},
		{"validate " + missing, 2, "", "no such file"},
		{"validate " + dir, 2, "", "is no file"},
		{"validate", 2, "", "--help"},
		{"validate a b", 2, "", "--help"},
		{"explain " + good + " GET /products", 0, "decided by: GET /products scopes read:products (good.yaml:8)\nneeds: a valid token of https://login.shop.example that meets AllScopes(\"read:products\")\n", ""},
		{"explain " + good + " GET /healthz", 0, "needs: nothing", ""},
		{"explain " + good + " POST /products", 1, "no row matches: 401 without a good token, 403 with one\nhas another method: GET /products scopes read:products (good.yaml:8)\n", ""},
		{"explain " + good + " GET //products", 1, "refused by the gateway, with 400, whatever the token: the path has an empty segment", ""},
		{"explain " + good + " get /products", 1, "the method must be upper-case letters", ""},
		{"explain " + bad + " GET /products", 1, "", "bad.yaml:5"},
		{"explain " + missing + " GET /products", 2, "", "no such file"},
		{"explain " + good + " GET", 2, "", "--help"},
		{bad, 1, "", "bad.yaml:5"},
		{"serve " + bad, 1, "", "bad.yaml:5"},
		{missing, 2, "", "no such file"},
		{"--log-level=loud " + good, 2, "", "log-level"},
		{"--help", 0, "Exit status", ""},
	} {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), strings.Fields(test.arguments), &stdout, &stderr, func() []string { return nil })
		assert.Equal(t, test.status, status, "%s: %s", test.arguments, stderr.String())
		assert.Contains(t, stdout.String(), test.stdout, test.arguments)
		assert.Contains(t, stderr.String(), test.stderr, test.arguments)
	}
}
