package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fileGateway returns a gateway with the configuration of a text.
func fileGateway(t *testing.T, text string) *gateway {
	t.Helper()
	s, err := parse("gateway.yaml", []byte(text), nil)
	require.NoError(t, err)
	g := &gateway{metrics: newMetrics()}
	gen := newGeneration(s, nil, g.metrics)
	require.NoError(t, s.reader.mistakes.sorted())
	require.NoError(t, g.metrics.observe(gen, time.Now()))
	g.current.Store(gen)
	return g
}

// listenIssuer returns an issuer that a configuration file can name.
func listenIssuer(t *testing.T) *m2mauthtest.Issuer {
	t.Helper()
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	return issuer
}

// decision is what a gateway answers about one request: its status, and what the API is told.
func decision(t *testing.T, g *gateway, method, target, authorization string) (status int, told []string, header http.Header) {
	t.Helper()
	asking := http.Header{"X-Original-Method": {method}, "X-Original-Uri": {target}}
	if authorization != "" {
		asking.Set("Authorization", authorization)
	}
	w := ask(g, "/nginx", asking)
	for _, name := range identityFields {
		if values := w.Header()[name]; assert.True(t, (len(values) == 1) == (w.Code == 204), "%s: every field, or none where it is refused", name) && len(values) == 1 {
			told = append(told, values[0])
		}
	}
	return w.Code, told, w.Header()
}

func TestSeveralIssuers(t *testing.T) {
	t.Parallel()
	ours, theirs := listenIssuer(t), listenIssuer(t)
	g := fileGateway(t, fmt.Sprintf(`http: {address: "127.0.0.1:0"}
issuers:
  - {name: ours, issuer: %q, audience: "https://shopping.api"}
  - {name: theirs, issuer: %q, audience: "https://their.api", scope_claims: [scp]}
rules:
  - GET /products scopes read:products
  - {row: GET /ours any-token, issuer: ours}
  - {row: GET /theirs any-token, issuer: %q}
  - {row: GET /client any-token, issuer: theirs, client: reporter}
  - {row: GET /clients any-token, issuer: ours, client: [reporter, auditor]}
  - {row: GET /acme scopes read:products, issuer: ours, organization: acme}
  - {row: "GET /orgs/{org}/products scopes read:products", issuer: ours, organization: "{org}"}
end: true
`, ours.URL(), theirs.URL(), theirs.URL()))
	of := func(i *m2mauthtest.Issuer, token m2mauthtest.Token) string {
		if token.Audience == "" {
			token.Audience = map[*m2mauthtest.Issuer]string{ours: audience, theirs: "https://their.api"}[i]
		}
		return "Bearer " + i.Sign(token)
	}
	our := func(organization string, scopes ...string) string {
		return of(ours, m2mauthtest.Token{AppID: app, Scopes: scopes, OrganizationID: organization})
	}
	their := of(theirs, m2mauthtest.Token{AppID: "reporter", Claims: map[string]any{"scp": []string{"read:products"}}})
	theirIdentity := func(scopes string) []string {
		return []string{theirs.URL(), "reporter", "reporter", "reporter", "", scopes, "allowed"}
	}
	for _, test := range []struct {
		name, target, authorization string
		status                      int
		told                        []string
	}{
		{"ours", "/products", our("", "read:products"), 204, []string{ours.URL(), app, app, app, "", "read:products", "allowed"}},
		{"theirs, by their own settings", "/products", their, 204, theirIdentity("read:products")},
		{"theirs, with the other's claim", "/products", of(theirs, m2mauthtest.Token{AppID: "reporter", Scopes: []string{"read:products"}}), 403, nil},
		{"theirs, for the other's audience", "/products", of(theirs, m2mauthtest.Token{AppID: app, Audience: audience, Claims: map[string]any{"scp": []string{"read:products"}}}), 401, nil},
		{"theirs, that says it is ours", "/ours", of(theirs, m2mauthtest.Token{AppID: app, Audience: audience, Claims: map[string]any{"iss": ours.URL()}}), 401, nil},
		{"of nobody", "/ours", of(ours, m2mauthtest.Token{AppID: app, Claims: map[string]any{"iss": "https://nobody.example"}}), 401, nil},
		{"opaque", "/ours", "Bearer abc", 401, nil},
		{"no token", "/ours", "", 401, nil},
		{"two parts", "/ours", "Bearer a.b", 401, nil},
		{"rubbish in the middle", "/ours", "Bearer a.%%.c", 400, nil},
		{"no JSON in the middle", "/ours", "Bearer a.YWJj.c", 401, nil},
		{"a row of ours", "/ours", our(""), 204, []string{ours.URL(), app, app, app, "", "", "allowed"}},
		{"a row of ours, theirs", "/ours", their, 403, nil},
		{"a row of theirs", "/theirs", their, 204, theirIdentity("read:products")},
		{"a row of theirs, ours", "/theirs", our(""), 403, nil},
		{"a client", "/client", their, 204, theirIdentity("read:products")},
		{"the same client of another issuer", "/client", of(ours, m2mauthtest.Token{AppID: "reporter"}), 403, nil},
		{"another client", "/client", of(theirs, m2mauthtest.Token{AppID: "auditor"}), 403, nil},
		{"one of two clients", "/clients", of(ours, m2mauthtest.Token{AppID: "auditor"}), 204, []string{ours.URL(), "auditor", "auditor", "auditor", "", "", "allowed"}},
		{"none of two clients", "/clients", our(""), 403, nil},
		{"an organization", "/acme", our("acme", "read:products"), 204, []string{ours.URL(), app, app, app, "acme", "read:products", "allowed"}},
		{"another organization", "/acme", our("other", "read:products"), 403, nil},
		{"no organization", "/acme", our("", "read:products"), 403, nil},
		{"an organization without the scope", "/acme", our("acme"), 403, nil},
		{"the path's organization", "/orgs/acme/products", our("acme", "read:products"), 204, []string{ours.URL(), app, app, app, "acme", "read:products", "allowed"}},
		{"the path's organization, encoded", "/orgs/a%20b/products", our("a b", "read:products"), 204, []string{ours.URL(), app, app, app, "a%20b", "read:products", "allowed"}},
		{"another organization in the path", "/orgs/other/products", our("acme", "read:products"), 403, nil},
		{"an organization's token elsewhere", "/products", our("acme", "read:products"), 403, nil},
	} {
		status, told, _ := decision(t, g, "GET", test.target, test.authorization)
		assert.Equal(t, test.status, status, test.name)
		assert.Equal(t, test.told, told, test.name)
	}
	assert.EqualValues(t, 2, g.current.Load().issuers[0].guard.Keys().Fetches, "one more for the key ID of the token that was not ours")
	assert.EqualValues(t, 1, g.current.Load().issuers[1].guard.Keys().Fetches)
}

func TestRowsThatNameSomebodyNameTheIssuerToo(t *testing.T) {
	t.Parallel()
	const two = `http: {address: "127.0.0.1:0"}
issuers:
  - {issuer: "https://a.example", audience: a}
  - {issuer: "https://b.example", audience: b}
rules:
  - {row: GET /a any-token, client: c}
  - {row: GET /b any-token, organization: o}
  - {row: "GET /c/{org} any-token", organization: "{org}"}
  - GET /d any-token
end: true
`
	_, err := readText(two)
	require.Error(t, err)
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, 3)
	for i, line := range lines {
		assert.True(t, strings.HasPrefix(line, fmt.Sprintf("gateway.yaml:%d: a row that names a client or an organization must name its issuer too", 6+i)), line)
	}
	_, err = readText(strings.Replace(two, "  - {issuer: \"https://b.example\", audience: b}\n", "", 1))
	assert.NoError(t, err, "with one issuer there is no doubt")
}

// Rows with the same rule in words have another demand if they are for others.
func TestRowsForOthersHaveAnotherDemand(t *testing.T) {
	t.Parallel()
	text := func(first, second string) string {
		return strings.Replace(minimal, "  - GET /healthz public\n", "  - {row: GET /a/admin any-token"+first+"}\n  - {row: 'GET /a/{b} any-token'"+second+"}\n", 1)
	}
	for _, test := range []struct {
		first, second string
		same          bool
	}{
		{"", "", true},
		{", organization: acme", ", organization: acme", true},
		{", organization: acme", ", organization: other", false},
		{", client: a", ", client: [a]", true},
		{", client: a", ", client: b", false},
		{", organization: acme", "", false},
		{", issuer: 'https://login.shop.example'", "", false},
	} {
		g, err := readText(text(test.first, test.second))
		require.NoError(t, err)
		_, _, err = g.rowFor(question{method: "GET", target: "/a/Admin"})
		if test.same {
			assert.NoError(t, err, test)
		} else {
			assert.ErrorIs(t, err, errRival, test)
		}
	}
}

func TestReportOnlyLiftsTheGuardsRefusalsAlone(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config(audience)
	config.InsecureReportOnlyUntil = time.Now().Add(time.Hour)
	g := gatewayOf(t, readRules(t), config)
	require.NoError(t, g.current.Load().issuers[0].guard.Warm(t.Context()))
	client := envoy(t, g)
	nobody := []string{"", "", "", "", "", "", decisionReportOnly}
	for _, test := range requests(issuer) {
		status, told, header := decision(t, g, test.method, test.target, test.authorization)
		if test.field != "" {
			continue // below
		}
		reports := test.challenged // the guard refuses with a challenge
		answer, err := client.Check(t.Context(), check(toldByEnvoy(test.method, test.target, test.header(), true)))
		require.NoError(t, err)
		switch {
		case reports:
			assert.Equal(t, 204, status, test.name)
			assert.Equal(t, nobody, told, test.name)
			assert.Empty(t, header.Get("WWW-Authenticate"), test.name)
			assert.Empty(t, answer.GetOkResponse().GetHeadersToRemove(), "%s: Authorization is passed on", test.name)
			assert.Len(t, answer.GetOkResponse().GetHeaders(), len(identityFields), test.name)
		case test.status == 204:
			assert.Equal(t, 204, status, test.name)
			assert.NotEqual(t, decisionReportOnly, told[6], test.name)
			assert.Equal(t, []string{"authorization"}, answer.GetOkResponse().GetHeadersToRemove(), test.name)
		default:
			assert.Equal(t, test.status, status, "%s: what the gateway refuses by itself stays refused", test.name)
			assert.Nil(t, answer.GetOkResponse(), test.name)
		}
	}
	for name, target := range tricks {
		status, _, _ := decision(t, g, "GET", target, "")
		assert.Equal(t, 400, status, name)
	}
	for _, name := range forbidden {
		w := ask(g, "/nginx", http.Header{"X-Original-Method": {"GET"}, "X-Original-Uri": {"/products"}, name: {"root"}})
		assert.Equal(t, 400, w.Code, name)
	}
	scrape := scraped(t, g)
	assert.Regexp(t, `m2mauth_gateway_passed_total\{decision="report-only"\} [1-9]`, scrape)
	assert.Regexp(t, `m2mauth_gateway_refused_total\{reason="guard"\} 0`, scrape)
	assert.Regexp(t, `m2mauth_would_refuse_total\{guard="https://issuer.test/oidc"\} [1-9]`, scrape)
}

func TestEnvoyKeepsTheTokenWhereItIsToldTo(t *testing.T) {
	t.Parallel()
	g := newGateway(t, m2mauthtest.NewIssuer())
	answer, err := envoyServer{gateway: g, keepAuthorization: true}.Check(t.Context(), check(toldByEnvoy("GET", "/healthz", nil, true)))
	require.NoError(t, err)
	assert.Empty(t, answer.GetOkResponse().GetHeadersToRemove())
	assert.Len(t, answer.GetOkResponse().GetHeaders(), len(identityFields))
}

// Of each row the demand is its own, so that a challenge says which row decided.
func TestExplainNamesTheRowThatDecides(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	segments := []string{"a", "b", "{x}", "a.json", "c"}
	paths := []string{"a", "b", "A", "a.json", "c", "d", "", "caf%C3%A9", "..", "x"}
	decided, refused, without := 0, 0, 0
	for range 600 {
		var rows strings.Builder
		for n := range 1 + random.IntN(6) {
			path := ""
			for range 1 + random.IntN(3) {
				path += "/" + segments[random.IntN(len(segments))]
			}
			if random.IntN(4) == 0 {
				path += "/{rest...}"
			}
			demand := fmt.Sprintf("scopes row%d", n)
			if random.IntN(6) == 0 {
				demand = "public"
			}
			fmt.Fprintf(&rows, "  - %s %s %s\n", []string{"GET", "PUT"}[random.IntN(2)], path, demand)
		}
		text := strings.Replace(minimal, "  - GET /healthz public\n  - GET /products scopes read:products\n", rows.String(), 1)
		gen, err := readText(text)
		if err != nil {
			continue // rows that meet
		}
		g := &gateway{}
		g.current.Store(gen)
		for range 30 {
			target := ""
			for range 1 + random.IntN(3) {
				target += "/" + paths[random.IntN(len(paths))]
			}
			method := []string{"GET", "PUT", "HEAD", "DELETE"}[random.IntN(4)]
			var said bytes.Buffer
			explained := gen.explain(&said, method, target)
			status, told, header := decision(t, g, method, target, "")
			row := regexp.MustCompile(`(?m)^decided by: \S+ \S+ (public|scopes (row\d))`).FindStringSubmatch(said.String())
			require.Equal(t, explained, row != nil, "%s", &said)
			switch {
			case status == 204:
				decided++
				require.NotNil(t, row, "%s", &said)
				require.Equal(t, "public", row[1], "%s", &said)
				require.Equal(t, decisionPublic, told[6])
			case status == 400:
				refused++
				require.Contains(t, said.String(), "refused by the gateway, with 400")
			case explained:
				decided++
				require.Equal(t, 401, status)
				require.Contains(t, header.Get("WWW-Authenticate"), `scope="`+row[2]+`"`, "%s", &said)
			default:
				without++
				require.Equal(t, 401, status)
				require.NotContains(t, header.Get("WWW-Authenticate"), "scope=")
				require.Contains(t, said.String(), "no row matches")
			}
		}
	}
	for _, n := range []int{decided, refused, without} {
		assert.Greater(t, n, 500)
	}
}

func TestExplainSaysWhatADryRunLets(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/products", "/no-row"} {
		for until, says := range map[time.Time]bool{time.Now().Add(time.Hour): true, time.Now().Add(-time.Hour): false} {
			g, err := readText(strings.Replace(minimal, "rules:", "insecure_report_only_until: "+until.Format(time.RFC3339)+"\nrules:", 1))
			require.NoError(t, err)
			var said bytes.Buffer
			g.explain(&said, "GET", target)
			assert.Equal(t, says, strings.Contains(said.String(), "report-only until"), "%s", &said)
		}
	}
}

func TestAFloodOfRefusalsDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	var o oncePerMinute
	now := time.Now()
	assert.Equal(t, slog.LevelInfo, o.level("a", now))
	assert.Equal(t, slog.LevelDebug, o.level("a", now.Add(59*time.Second)))
	assert.Equal(t, slog.LevelInfo, o.level("b", now))
	assert.Equal(t, slog.LevelInfo, o.level("a", now.Add(time.Minute)))
	assert.Equal(t, slog.LevelDebug, o.level("a", now.Add(time.Minute+time.Second)))
}

// Whoever reads the log finds each line in the page.
func TestThePageNamesEveryLineOfTheLog(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/gateway.md")
	require.NoError(t, err)
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	lines := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, line := range regexp.MustCompile(`"(gateway: [^"]+)"`).FindAllStringSubmatch(string(source), -1) {
			lines++
			assert.Contains(t, string(page), "\n| `"+line[1]+"` |")
		}
	}
	assert.Equal(t, lines, strings.Count(string(page), "\n| `gateway: "))
}

// The list of the request's own generation decides.
func TestTheGuardAsksTheListOfTheRequest(t *testing.T) {
	t.Parallel()
	_, err := revoked(t.Context(), m2mauth.Claims{})
	assert.ErrorIs(t, err, errNoCall)
}

func scraped(t *testing.T, g *gateway) string {
	t.Helper()
	return get(t, g.metrics.handler(), "/metrics").Body.String()
}
