package doctor

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/ascii"
	"github.com/m2mauth/m2mauth/internal/scope"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// fixture is a row of testdata/fixtures.json: a token, and the answer that a guard must
// give.
type fixture struct {
	Name, Rule, Token, Keys string

	Clock  int64
	Config struct {
		Algorithms                      []string
		TokenTypes                      []string `json:"token_types"`
		ScopeClaims                     []string `json:"scope_claims"`
		ClientClaims                    []string `json:"client_claims"`
		OtherAudiences                  []string `json:"other_audiences"`
		Leeway                          time.Duration
		MaxLifetime                     time.Duration `json:"max_lifetime"`
		InsecureAllowOrganizationTokens bool          `json:"allow_organizations"`
	}
	All, Any []string
	Error    string
}

type fixtures struct {
	Issuer, Audience string
	Keys             map[string]string
	Rows             []fixture
}

func readFixtures(t *testing.T) (table fixtures) {
	t.Helper()
	content, err := os.ReadFile("../../../../testdata/fixtures.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(content, &table))
	require.NotEmpty(t, table.Rows)
	return table
}

// documents serves an issuer's discovery document and key set.
type documents map[string]string

func (d documents) RoundTrip(r *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	body, ok := d[r.URL.String()]
	if !ok {
		recorder.WriteHeader(http.StatusNotFound)
	}
	_, _ = io.WriteString(recorder, body)
	return recorder.Result(), nil
}

func (f fixture) config(table fixtures) m2mauth.Config {
	return m2mauth.Config{
		Issuer: table.Issuer, Audience: table.Audience,
		HTTPClient: &http.Client{Transport: documents{
			table.Issuer + "/.well-known/openid-configuration": `{"issuer":"` + table.Issuer + `","jwks_uri":"` + table.Issuer + `/jwks"}`,
			table.Issuer + "/jwks":                             table.Keys[f.Keys],
		}},
		Logger:     slog.New(slog.DiscardHandler),
		Algorithms: f.Config.Algorithms, TokenTypes: f.Config.TokenTypes, ScopeClaims: f.Config.ScopeClaims,
		ClientClaims: f.Config.ClientClaims, OtherAudiences: f.Config.OtherAudiences,
		Leeway: f.Config.Leeway * time.Second, MaxLifetime: f.Config.MaxLifetime * time.Second,
		InsecureAllowOrganizationTokens: f.Config.InsecureAllowOrganizationTokens,
	}
}

// rowsOfKinds are the checks that may fail for each kind of a guard's error.
var rowsOfKinds = map[string][]string{
	"ErrRequest": {tokenForm}, "ErrMalformed": {tokenShape}, "ErrAlgorithm": {tokenAlgorithm}, "ErrType": {tokenType},
	"ErrIssuer": {tokenIssuer}, "ErrAudience": {tokenAudience}, "ErrExpired": {tokenTimes}, "ErrNotYetValid": {tokenTimes},
	"ErrClaims": {tokenIssuer, tokenAudience, tokenClaims, tokenTimes}, "ErrUnknownKey": {tokenKey}, "ErrUnavailable": {tokenKey},
	"ErrSignature": {tokenSignature}, "ErrForbidden": {tokenOrganization}, "ErrScope": {tokenScopes},
}

// All rows pass if and only if the guard accepts the token, and otherwise the first that
// fails is that of the guard's reason.
func TestTheRowsAgreeWithTheGuard(t *testing.T) {
	t.Parallel()
	table := readFixtures(t)
	for _, row := range table.Rows {
		t.Run(row.Rule+": "+row.Name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				testguard.SleepUntil(time.Unix(row.Clock, 0))
				examineRow(t, table, row)
			})
		})
	}
}

func examineRow(t *testing.T, table fixtures, row fixture) {
	t.Helper()
	demand := Demand{Scopes: append(row.All, row.Any...)}
	guard, err := m2mauth.New(row.config(table))
	require.NoError(t, err)
	_, wrong := guard.Check(testguard.RequestWith("Bearer "+row.Token), demand.rule())
	if row.Name != "" && row.Any == nil {
		testguard.AssertKind(t, row.Error, wrong)
	}
	report := new(Report)
	Token(t.Context(), Found{Config: row.config(table)}, row.Token, demand, report)
	checkAgreement(t, report, wrong)
	assertShowsNoSignature(t, report, row.Token)
}

// The same for published attacks, whose tokens are odd in other ways.
func TestTheRowsAgreeWithTheGuardOnAttacks(t *testing.T) {
	t.Parallel()
	const issuer = "https://issuer.test/oidc"
	names, err := filepath.Glob("../../../../testdata/attacks/*.json")
	require.NoError(t, err)
	ran := 0
	for _, name := range names {
		var attack struct {
			Clock         int64
			Config        struct{ Algorithms []string }
			Keys          json.RawMessage
			Authorization []string
			Scopes        []string
		}
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(content, &attack))
		if len(attack.Authorization) != 1 || !strings.HasPrefix(attack.Authorization[0], "Bearer ") {
			continue // an attack by something other than a token
		}
		ran++
		row := fixture{Clock: attack.Clock, Token: strings.TrimPrefix(attack.Authorization[0], "Bearer "), Keys: "attack", All: attack.Scopes}
		row.Config.Algorithms = attack.Config.Algorithms
		table := fixtures{Issuer: issuer, Audience: shop, Keys: map[string]string{"attack": string(attack.Keys)}}
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				testguard.SleepUntil(time.Unix(row.Clock, 0))
				examineRow(t, table, row)
			})
		})
	}
	assert.Greater(t, ran, 400)
}

// The same for any header and any claims, signed by the issuer.
func FuzzTheRowsAgreeWithTheGuard(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"alg":"ES384","typ":"at+jwt"}`, `{"iss":"https://issuer.test/oidc","aud":"https://shopping.api","sub":"a","client_id":"a","exp":253402300799,"iat":1,"jti":"j","scope":"a"}`},
		{`{"alg":"none","typ":"JWT","kid":null}`, `{"iss":1,"aud":[],"exp":-1,"nbf":1e300,"iat":"1","cnf":{},"act":{"sub":""}}`},
		{`{"alg":"RS256","typ":"","crit":[]}`, `{"iss":"https://issuer.test/oidc/","aud":["urn:logto:organization:a","https://shopping.api"],"organization_id":"o","client_id":"<","sub":"&","exp":1,"iat":9e9,"jti":"j"}`},
		{`{"alg":"ES384","typ":"at+jwt","x":[1,{"y":null}]}`, `{"\u0069ss":"https://issuer.test/oidc","aud":"https://other.api","client_id":"a","azp":"b","exp":253402300799,"iat":1,"scope":["a","b c"]}`},
		{`{}`, `[]`},
	} {
		f.Add(seed[0], seed[1], "a", "")
		f.Add(seed[0], seed[1], "", "o")
	}
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config(shop)
	config.Logger = slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, header, claims, scopeName, organization string) {
		demand := Demand{Organization: organization}
		if scope.Valid(scopeName) {
			demand.Scopes = []string{scopeName}
		}
		token := issuer.Sign(m2mauthtest.Token{RawHeader: []byte(header), RawClaims: []byte(claims)})
		guard, err := m2mauth.New(config)
		require.NoError(t, err)
		_, wrong := guard.Check(testguard.RequestWith("Bearer "+token), demand.rule())
		report := new(Report)
		Token(t.Context(), Found{Config: config}, token, demand, report)
		checkAgreement(t, report, wrong)
	})
}

func checkAgreement(t *testing.T, report *Report, wrong error) {
	t.Helper()
	ids := []string{}
	for _, c := range report.Checks {
		ids = append(ids, c.ID)
	}
	require.Equal(t, []string{
		tokenForm, tokenShape, tokenAlgorithm, tokenType, tokenIssuer, tokenAudience, tokenClaims, tokenTimes,
		tokenKey, tokenSignature, tokenOrganization, tokenScopes, tokenVerdict,
	}, ids)
	last := len(report.Checks) - 1
	if wrong == nil {
		for _, c := range report.Checks {
			assert.Contains(t, []Status{Pass, Warn}, c.Status, c)
		}
		return
	}
	var first Check
	for _, c := range report.Checks[:last] {
		// Of a wrong organization and a missing scope, the guard names the latter.
		if c.Status == Fail && (c.ID != tokenOrganization || !errors.Is(wrong, m2mauth.ErrScope)) {
			first = c
			break
		}
	}
	assert.Equal(t, Fail, report.Checks[last].Status)
	for name, kind := range testguard.Sentinels {
		if kind == wrong.(*m2mauth.Error).Kind {
			assert.Contains(t, rowsOfKinds[name], first.ID, "%s: %v", name, wrong)
		}
	}
	description := wrong.(*m2mauth.Error).Description
	if wrong.(*m2mauth.Error).Kind == m2mauth.ErrUnavailable {
		description = "the issuer's keys are unavailable"
	}
	assert.True(t, strings.HasPrefix(first.Detail, description), "%s\n%s", description, first.Detail)
	assert.NotEmpty(t, first.Remedy)
	assert.Contains(t, report.Checks[last].Remedy, first.ID)
}

// assertShowsNoSignature fails if eight characters of a signature are in the report.
func assertShowsNoSignature(t *testing.T, report *Report, token string) {
	t.Helper()
	if strings.Count(token, ".") != 2 || !ascii.IsToken68(token) { // what follows the last dot is no signature
		return
	}
	var b strings.Builder
	require.NoError(t, report.WriteTable(&b))
	signature := signatureOf(token)
	for i := 0; i+8 <= len(signature); i++ {
		require.NotContains(t, b.String(), signature[i:i+8])
	}
}
