package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// minimal is a file without a mistake.
const minimal = `http:
  address: 127.0.0.1:8080
issuers:
  - issuer: https://login.shop.example
    audience: https://shopping.api
rules:
  - GET /healthz public
  - GET /products scopes read:products
end: true
`

// readText reads a file as validate does.
func readText(text string, environ ...string) (*generation, error) {
	s, err := parse("gateway.yaml", []byte(text), environ)
	if s.reader == nil {
		return nil, err
	}
	g := newGeneration(s, nil, nil)
	return g, s.reader.mistakes.sorted()
}

func TestAMinimalFileHasNoMistake(t *testing.T) {
	t.Parallel()
	g, err := readText(minimal)
	require.NoError(t, err)
	assert.Len(t, g.issuers, 1)
	assert.Len(t, g.rules, 2)
	_, err = readText(strings.ReplaceAll(minimal, "\n", "\r\n"))
	assert.NoError(t, err)
	_, err = readText(strings.TrimSuffix(minimal, "\n"))
	assert.NoError(t, err)
}

func TestMistakesInTheFileAreNamedWithTheirLines(t *testing.T) {
	t.Parallel()
	in := func(old, new string) string {
		require.Equal(t, 1, strings.Count(minimal, old), old)
		return strings.Replace(minimal, old, new, 1)
	}
	const address, audience, rule = "  address: 127.0.0.1:8080\n", "    audience: https://shopping.api\n", "  - GET /healthz public\n"
	for _, test := range []struct {
		name, text string
		mistakes   []string
	}{
		{"nothing", "", []string{"gateway.yaml:1: not YAML: the file is empty"}},
		{"no mapping", "- a\n", []string{"gateway.yaml:1: the file must be a mapping"}},
		{"no YAML", "http:\n  address: [\n", []string{"gateway.yaml:3: not YAML"}},
		{"a second document that is no YAML", minimal + "---\n: [x\nend: true\n", []string{"gateway.yaml:12: not YAML"}},
		{"a line in a comment, to YAML 1.1", in("rules:\n", "rules:\n  # x\u2028  - GET /secret public\n"), []string{"gateway.yaml:7: U+2028"}},
		{"a paragraph in a comment", in("rules:\n", "rules:\n  # x\u2029  - GET /secret public\n"), []string{"gateway.yaml:7: U+2029"}},
		{"a next line in a comment", in("rules:\n", "rules:\n  # x\u0085  - GET /secret public\n"), []string{"gateway.yaml:7: U+0085"}},
		{"a carriage return in a comment", in("rules:\n", "rules:\r\n  # x\r  - GET /secret public\r\n"), []string{"gateway.yaml:7: U+000D"}},
		{"a number that is octal to YAML 1.1", in("rules:", "limits: {max_token_bytes: 010000}\nrules:"), []string{"gateway.yaml:6: limits.max_token_bytes: must be a whole number"}},
		{"two documents", minimal + "---\na: b\n", []string{"gateway.yaml:10: a second document"}},
		{"an unknown field", in(address, address+"  adress: x\n"), []string{"gateway.yaml:3: http.adress: there is no such setting"}},
		{"an unknown field with a hint", in(audience, audience+"    jwksURL: https://x\n"), []string{"gateway.yaml:6: issuers[0].jwksURL: there is no such setting: did you mean jwks_url?"}},
		{"an unknown field at the top", in("rules:", "rule: x\nrules:"), []string{"gateway.yaml:6: rule: there is no such setting: did you mean rules?"}},
		{"a field twice", in(audience, audience+"    audience: https://other.api\n"), []string{"gateway.yaml:6: issuers[0].audience: comes twice: it is in line 5 already"}},
		{"a field twice at the top", in("end: true\n", "http:\n  address: 127.0.0.1:1\nend: true\n"), []string{"gateway.yaml:9: http: comes twice: it is in line 1 already"}},
		{"an anchor", in("- issuer: https", "- &a\n    issuer: https"), []string{"gateway.yaml:4: anchors and aliases"}},
		{"an alias", in("issuer: https://login.shop.example", "issuer: *a"), []string{"gateway.yaml:4: not YAML: unknown anchor"}},
		{"a bomb of aliases", "a: &a [x, x]\nb: &b [*a, *a]\nend: true\n", []string{"gateway.yaml:1: anchors", "gateway.yaml:2: anchors"}},
		{"a merge", in(audience, audience+"    <<: {leeway: 1s}\n"), []string{"gateway.yaml:6: tags and merges"}},
		{"a tag", in("127.0.0.1:8080", "!!str 127.0.0.1:8080"), []string{"gateway.yaml:2: tags and merges are not accepted: \"!!str\""}},
		{"no value", in("    audience: https://shopping.api", "    audience:"), []string{"gateway.yaml:5: issuers[0].audience: has no value"}},
		{"a number for text", in("https://shopping.api", "2345"), []string{"gateway.yaml:5: issuers[0].audience: must be text: put it between quotes"}},
		{"a list for text", in("https://shopping.api", "[a]"), []string{"gateway.yaml:5: issuers[0].audience: must be a single value"}},
		{"text for a list", in(audience, audience+"    algorithms: ES256\n"), []string{"gateway.yaml:6: issuers[0].algorithms: must be a list"}},
		{"an empty list", in(audience, audience+"    organization_claims: []\n"), []string{"gateway.yaml:6: issuers[0].organization_claims: is an empty list"}},
		{"empty text", in(audience, audience+"    scope_prefix: ''\n"), []string{"gateway.yaml:6: issuers[0].scope_prefix: is empty"}},
		{"a duration without a unit", in(audience, audience+"    leeway: 30\n"), []string{"gateway.yaml:6: issuers[0].leeway: must be a duration"}},
		{"a duration of zero", in(audience, audience+"    leeway: 0s\n"), []string{"gateway.yaml:6: issuers[0].leeway: is zero"}},
		{"yes for true", in(audience, audience+"    allow_missing_subject: yes\n"), []string{"gateway.yaml:6: issuers[0].allow_missing_subject: must be true or false"}},
		{"text for a number", in("rules:", "limits: {cache_bytes: 32MiB}\nrules:"), []string{"gateway.yaml:6: limits.cache_bytes: must be a whole number"}},
		{"a mistake that New finds", in(audience, audience+"    leeway: 1h\n"), []string{"gateway.yaml:6: issuers[0].leeway: m2mauth: Config.Leeway"}},
		{"a mistake in a limit that New finds", in("rules:", "limits: {max_token_bytes: 5}\nrules:"), []string{"gateway.yaml:6: limits.max_token_bytes: m2mauth: Config.MaxTokenBytes"}},
		{"a dry run of a year", in("rules:", "insecure_report_only_until: 2099-01-01T00:00:00Z\nrules:"), []string{"gateway.yaml:6: insecure_report_only_until: m2mauth: Config.InsecureReportOnlyUntil"}},
		{"a date without a time", in("rules:", "insecure_report_only_until: 2026-12-24\nrules:"), []string{"gateway.yaml:6: insecure_report_only_until: must be a time"}},
		{"a password in the file", in("rules:", "revocation: {max_token_lifetime: 1h, redis: {address: 'localhost:1', password: x}}\nrules:"), []string{"gateway.yaml:6: revocation.redis.password: there is no such setting: a secret does not stand in this file"}},
		{"a store without TLS", in("rules:", "revocation: {max_token_lifetime: 1h, redis: {address: 'redis:1'}}\nrules:"), []string{"gateway.yaml:6: revocation: redisstore: TLS is required", "gateway.yaml:6: revocation: redisstore: Password is required"}},
		{"an unknown preset", in("  - issuer: https://login.shop.example\n"+audience, "  - preset: {name: okto}\n"), []string{"gateway.yaml:4: issuers[0].preset: name must be one of auth0"}},
		{"an argument of another preset", in("  - issuer: https://login.shop.example\n"+audience, "  - preset: {name: okta, issuer: https://a.okta.com/oauth2/x, audience: a, realm_url: x}\n"), []string{"gateway.yaml:4: issuers[0].preset.realm_url: is no argument of okta: it takes issuer, audience"}},
		{"an argument that is missing", in("  - issuer: https://login.shop.example\n"+audience, "  - preset:\n      name: auth0\n      audience: a\n"), []string{"gateway.yaml:4: issuers[0].preset: issuers: Auth0: tenantDomain is empty"}},
		{"an issuer beside a preset", in(audience, audience+"    preset: {name: auth0, tenant_domain: shop.eu.auth0.com, audience: a}\n"), []string{"gateway.yaml:4: issuers[0]: issuer and audience are those of the preset"}},
		{"a claim that the preset requires", in("  - issuer: https://login.shop.example\n"+audience, "  - preset: {name: keycloak, realm_url: https://k/realms/a, audience: a}\n    required_claims:\n      typ: [ID]\n"), []string{"gateway.yaml:6: issuers[0].required_claims.typ: is a claim that the preset requires already"}},
		{"one issuer twice", in("rules:", "  - issuer: https://login.shop.example\n    audience: b\nrules:"), []string{"gateway.yaml:6: issuers[1]: has the name or the issuer of issuers[0]"}},
		{"one name twice", in("rules:", "  - issuer: https://other.example\n    name: https://login.shop.example\n    audience: b\nrules:"), []string{"gateway.yaml:6: issuers[1]: has the name or the issuer of issuers[0]"}},
		{"nobody can ask", in("http:\n"+address, ""), []string{"gateway.yaml:1: http and grpc are missing"}},
		{"no address", in(address, "  tls: {certificate: a, key: b}\n"), []string{"gateway.yaml:1: http: address is missing", "gateway.yaml:2: http.tls.certificate: stat a: no such file", "gateway.yaml:2: http.tls.key: stat b: no such file"}},
		{"a port alone", in("127.0.0.1:8080", "'8080'"), []string{"gateway.yaml:2: http.address: must be host:port"}},
		{"a relative socket", in("127.0.0.1:8080", "unix:gateway.sock"), []string{"gateway.yaml:2: http.address: the path of a socket must be absolute"}},
		{"TLS on a socket", in("127.0.0.1:8080\n", "unix:/run/gateway.sock\n  tls: {certificate: a, key: b}\n"), []string{"gateway.yaml:3: http.tls: is of no use on a Unix socket", "gateway.yaml:3: http.tls.certificate: stat a", "gateway.yaml:3: http.tls.key: stat b"}},
		{"a file without end", strings.Repeat("#\n", maxFileBytes/2) + minimal, []string{"gateway.yaml:1: the file is larger than 1048576 bytes"}},
		{"a wildcard twice", in(rule, "  - {row: 'GET /a/{b}/{b} any-token', organization: '{b}'}\n"), []string{"gateway.yaml:7: organization: the path must have {b} once"}},
		{"a row that no token opens", in("  - issuer: https://login.shop.example\n"+audience, "  - preset: {name: logto-organizations, endpoint: 'https://login.shop.example'}\n"), []string{"gateway.yaml:7: GET /products: m2mauth: AllScopes(\"read:products\") names no organization"}},
		{"a row that no token of its issuer opens", in("rules:\n"+rule, "  - {name: partners, preset: {name: logto-organizations, endpoint: 'https://other.example'}}\nrules:\n  - {row: GET /a scopes read, issuer: partners}\n"), []string{"gateway.yaml:8: GET /a: m2mauth: "}},
		{"no rules", in("rules:\n"+rule+"  - GET /products scopes read:products\n", ""), []string{"gateway.yaml:1: rules: the table has no row"}},
		{"a row that is none", in(rule, "  - GET /healthz\n"), []string{"gateway.yaml:7: a row is a method, a path and a demand"}},
		{"a row twice", in(rule, rule+rule), []string{"gateway.yaml:8: GET /healthz and GET /healthz (line 7)"}},
		{"an issuer that is none", in(rule, "  - {row: GET /a any-token, issuer: other}\n"), []string{`gateway.yaml:7: issuer: "other" is none of the issuers`}},
		{"a public row of an organization", in(rule, "  - {row: GET /a public, organization: acme}\n"), []string{"gateway.yaml:7: a public row cannot name"}},
		{"a wildcard that is none", in(rule, "  - {row: 'GET /a/{b} any-token', organization: '{c}'}\n"), []string{"gateway.yaml:7: organization: the path must have {c} once"}},
		{"an unknown field of a row", in(rule, "  - {row: GET /a any-token, clients: [a]}\n"), []string{"gateway.yaml:7: rules[0].clients: there is no such setting: did you mean client?"}},
		{"a folded block of rows", in("rules:\n"+rule+"  - GET /products scopes read:products\n", "rules: >\n  GET /a public\n  GET /b public\n"), []string{"gateway.yaml:6: rules: must be a list of rows, or a block"}},
		{"several", in(audience, audience+"    leeway: x\n    key_ttl: y\n"), []string{"gateway.yaml:6: issuers[0].leeway", "gateway.yaml:7: issuers[0].key_ttl"}},
		{"no end", in("end: true\n", ""), []string{`gateway.yaml:8: the last line must be "end: true"`}},
		{"a false end", in("end: true\n", "end: false\n"), []string{`gateway.yaml:9: the last line must be "end: true"`}},
		{"half an end", in("end: true\n", "end: tru\n"), []string{"gateway.yaml:9: end: must be true or false", "gateway.yaml:9: the last line"}},
		{"something behind the end", minimal + "realm: x\n", []string{`gateway.yaml:10: the last line must be "end: true"`}},
	} {
		_, err := readText(test.text)
		require.Error(t, err, test.name)
		lines := strings.Split(err.Error(), "\n")
		require.Len(t, lines, len(test.mistakes), "%s: %v", test.name, err)
		for i, begin := range test.mistakes {
			assert.True(t, strings.HasPrefix(lines[i], begin), "%s:\n%s\n%s", test.name, begin, lines[i])
		}
	}
}

// However a file is cut off, it is not taken for a whole one.
func TestAFileThatIsCutOffIsRefused(t *testing.T) {
	t.Parallel()
	for n := range len(minimal) - len("\n") {
		_, err := readText(minimal[:n])
		assert.Error(t, err, "%q", minimal[:n])
	}
}

func TestRowsMayBeABlockOfText(t *testing.T) {
	t.Parallel()
	list, _, _ := strings.Cut(minimal, "rules:")
	g, err := readText(list + "rules: |\n  # a comment\n\n  GET /healthz public\n  GET /products scopes read:products\nend: true\n")
	require.NoError(t, err)
	require.Len(t, g.rules, 2)
	assert.Equal(t, 9, g.rules[0].line)
	_, err = readText(list + "rules: |\n  # a comment\n\n  GET /healthz publik\nend: true\n")
	assert.ErrorContains(t, err, "gateway.yaml:9: ")
}

func FuzzFile(f *testing.F) {
	f.Add(minimal)
	f.Add("a: &a [*a]\nend: true\n")
	f.Add("rules: {}\nissuers: 1\nend: true\n")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := readText(text)
		if err == nil {
			assert.True(t, strings.Contains(text, "end:"))
			assert.NotEmpty(t, g.rules)
			assert.NotEmpty(t, g.issuers)
		}
	})
}
