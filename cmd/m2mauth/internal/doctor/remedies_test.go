package doctor

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// What a check found says what to do, also where it is not one of the twenty faults.
func TestRemediesOfAToken(t *testing.T) {
	t.Parallel()
	signed := func(token m2mauthtest.Token) func(*m2mauthtest.Issuer) string {
		return func(i *m2mauthtest.Issuer) string {
			if token.Audience == "" {
				token.Audience = shop
			}
			return i.Sign(token)
		}
	}
	fixed := func(text string) func(*m2mauthtest.Issuer) string {
		return func(*m2mauthtest.Issuer) string { return text }
	}
	for name, test := range map[string]struct {
		token          func(*m2mauthtest.Issuer) string
		change         func(*Found)
		demand         Demand
		check          string // the first that fails
		detail, remedy string
	}{
		"nothing":            {token: fixed(""), check: tokenForm, remedy: "there was no token"},
		"the whole response": {token: fixed(`{"access_token": "a.b.c"}`), check: tokenForm, remedy: "only the value of its access_token"},
		"quotes":             {token: fixed(`"a.b.c"`), check: tokenForm, remedy: "without quotes"},
		"two tokens":         {token: fixed("a.b.c, d.e.f"), check: tokenForm, remedy: "without a second token"},
		"too long":           {token: signed(m2mauthtest.Token{Claims: map[string]any{"groups": strings.Repeat("g", 9000)}}), check: tokenForm, remedy: "raise MaxTokenBytes"},
		"cut":                {token: fixed("eyJhbGciOiJFUzM4NCJ9"), check: tokenShape, remedy: "may have cut it"},
		"encrypted":          {token: fixed("a.b.c.d.e"), check: tokenShape, remedy: "not encrypt"},
		"one dot":            {token: fixed("a.b"), check: tokenShape, remedy: "exactly as it came"},
		"an extension":       {token: signed(m2mauthtest.Token{Header: map[string]any{"crit": []string{"exp"}}}), check: tokenShape, remedy: "with neither an extension"},
		"a shared secret":    {token: signed(m2mauthtest.Token{Algorithm: "HS256", Secret: []byte("guess")}), check: tokenAlgorithm, detail: "got: HS256", remedy: "never accepted"},
		"an algorithm that was left out": {token: signed(m2mauthtest.Token{}), change: func(f *Found) { f.Config.Algorithms = []string{"RS256"} },
			check: tokenAlgorithm, detail: "got: ES384; expected: RS256", remedy: "name it in Algorithms"},
		"no typ":          {token: signed(m2mauthtest.Token{Header: map[string]any{"typ": nil}}), check: tokenType, remedy: "not the id_token"},
		"another typ":     {token: signed(m2mauthtest.Token{Header: map[string]any{"typ": "secevent+jwt"}}), check: tokenType, detail: "got: secevent+jwt", remedy: "TokenTypes"},
		"other issuer":    {token: signed(m2mauthtest.Token{Claims: map[string]any{"iss": "https://other.example/oidc"}}), check: tokenIssuer, remedy: "if your callers' tokens come from https://other.example/oidc, set Issuer"},
		"no /oidc":        {token: signed(m2mauthtest.Token{}), change: func(f *Found) { f.Config.Issuer = strings.TrimSuffix(f.Config.Issuer, "/oidc") }, check: tokenIssuer, remedy: "set Issuer to https://issuer.test/oidc"},
		"a slash":         {token: signed(m2mauthtest.Token{}), change: func(f *Found) { f.Config.Issuer += "/" }, check: tokenIssuer, remedy: "set Issuer to https://issuer.test/oidc"},
		"no issuer":       {token: signed(m2mauthtest.Token{Claims: map[string]any{"iss": nil}}), check: tokenIssuer, remedy: "names its issuer"},
		"no audience":     {token: signed(m2mauthtest.Token{Claims: map[string]any{"aud": nil}}), check: tokenAudience, remedy: "resource=https://shopping.api"},
		"other API":       {token: signed(m2mauthtest.Token{Audience: "https://other.api"}), check: tokenAudience, detail: "got: https://other.api; expected: https://shopping.api", remedy: "registered as https://other.api"},
		"ID token by aud": {token: signed(m2mauthtest.Token{AppID: "an-app", Audience: "an-app"}), check: tokenAudience, remedy: "an ID token is for the application"},
		"no organization token": {token: signed(m2mauthtest.Token{}), change: func(f *Found) { f.Config.Audience = testguard.OrganizationToken },
			check: tokenAudience, remedy: "with organization_id and without resource"},
		"no client":      {token: signed(m2mauthtest.Token{Claims: map[string]any{"client_id": nil, "azp": "an-app"}}), check: tokenClaims, remedy: "ClientClaims"},
		"bound":          {token: signed(m2mauthtest.Token{Claims: map[string]any{"cnf": map[string]any{"jkt": "x"}}}), check: tokenClaims, remedy: "without DPoP"},
		"no jti":         {token: signed(m2mauthtest.Token{Claims: map[string]any{"jti": nil}}), check: tokenClaims, remedy: "RFC 9068 §2.2"},
		"required claim": {token: signed(m2mauthtest.Token{Claims: map[string]any{"tenant": "a"}}), change: func(f *Found) { f.Config.RequiredClaims = map[string][]string{"tenant": {"b"}} }, check: tokenClaims, detail: "got: a; expected: b", remedy: "RequiredClaims"},
		"expired":        {token: signed(m2mauthtest.Token{Expired: true}), check: tokenTimes, remedy: "get a new token"},
		"expired here":   {token: signed(m2mauthtest.Token{Lifetime: -time.Minute}), change: func(f *Found) { f.ClockAhead = 10 * time.Minute }, check: tokenTimes, remedy: "this clock is 10 minutes ahead of the issuer's"},
		"not yet valid":  {token: signed(m2mauthtest.Token{Claims: map[string]any{"nbf": testTime.Add(time.Hour).Unix()}}), check: tokenTimes, remedy: "issued for later"},
		"not yet here": {token: signed(m2mauthtest.Token{Claims: map[string]any{"iat": testTime.Add(5 * time.Minute).Unix()}}), change: func(f *Found) { f.ClockAhead = -5 * time.Minute },
			check: tokenTimes, remedy: "this clock is 5 minutes behind the issuer's"},
		"no exp":             {token: signed(m2mauthtest.Token{Claims: map[string]any{"exp": nil}}), check: tokenTimes, remedy: "a number of seconds"},
		"lives long":         {token: signed(m2mauthtest.Token{}), change: func(f *Found) { f.Config.MaxLifetime = time.Minute }, check: tokenTimes, detail: "got: 1h0m0s; expected: 1m0s", remedy: "raise MaxLifetime"},
		"no kid":             {token: signed(m2mauthtest.Token{Algorithm: "ES256", Header: map[string]any{"kid": nil}}), check: tokenKey, remedy: "write kid"},
		"another alg":        {token: signed(m2mauthtest.Token{Algorithm: "ES256"}), check: tokenKey, detail: "published=for ES384", remedy: "that it publishes for signatures"},
		"forged":             {token: func(i *m2mauthtest.Issuer) string { return forged(i.Token(shop)) }, check: tokenSignature, remedy: "changed on its way"},
		"of no organization": {token: signed(m2mauthtest.Token{}), demand: Demand{Organization: "acme"}, check: tokenOrganization, remedy: "organization_id=acme"},
		"of another one":     {token: signed(m2mauthtest.Token{OrganizationID: "globex"}), demand: Demand{Organization: "acme"}, check: tokenOrganization, remedy: "this one is for globex"},
		"without the scope":  {token: signed(m2mauthtest.Token{Scopes: []string{"a"}}), demand: Demand{Scopes: []string{"a", "b"}}, check: tokenScopes, detail: "lacking: b", remedy: "send scope=b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				testguard.SleepUntil(testTime)
				issuer := m2mauthtest.NewIssuer()
				f := Found{Config: issuer.Config(shop)}
				if test.change != nil {
					test.change(&f)
				}
				report := new(Report)
				Token(t.Context(), f, test.token(issuer), test.demand, report)
				require.NotEmpty(t, report.failures())
				assert.Equal(t, test.check, report.failures()[0])
				assert.Contains(t, report.check(t, test.check).Detail, test.detail)
				assert.Contains(t, report.check(t, test.check).Remedy, test.remedy)
			})
		})
	}
}

var testTime = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// forged changes the first character of a token's signature.
func forged(token string) string {
	at := len(token) - len(signatureOf(token))
	other := "A"
	if token[at] == 'A' {
		other = "B"
	}
	return token[:at] + other + token[at+1:]
}

// The keys of another issuer are not expected to be here, and another token of that
// issuer would not help.
func TestAKeyOfATokenOfAnotherIssuerIsNotCalledRotatedOut(t *testing.T) {
	t.Parallel()
	report := new(Report)
	Token(t.Context(), Found{Config: m2mauthtest.NewIssuer().Config(shop)}, m2mauthtest.NewIssuer().Sign(m2mauthtest.Token{
		Audience: shop, Claims: map[string]any{"iss": "https://other.example"}, Header: map[string]any{"kid": "theirs"},
	}), Demand{}, report)
	assert.Equal(t, []string{tokenIssuer, tokenKey}, report.failures())
	assert.Equal(t, "see token.issuer", report.check(t, tokenKey).Remedy)
}

// The guard whose keys the rows are about is the one that gives the verdict, even if the
// issuer says something else to whoever asks next.
func TestTheVerdictIsOfTheGuardThatTheRowsAreAbout(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config(shop)
	config.InsecureReportOnlyUntil = time.Now().Add(time.Hour)
	report := new(Report)
	f := Issuer(t.Context(), config, report)
	token := issuer.Token(shop, "read:products")
	issuer.Rotate("ES384")
	issuer.Rotate("ES384")
	fetches := issuer.Fetches()
	Token(t.Context(), f, token, Demand{Scopes: []string{"read:products"}}, report)
	assert.Equal(t, Pass, report.check(t, tokenVerdict).Status, report.check(t, tokenVerdict).Detail)
	assert.Equal(t, fetches, issuer.Fetches(), "nothing is fetched a second time")
	report = new(Report)
	Token(t.Context(), f, token, Demand{Scopes: []string{"write:products"}}, report)
	assert.Equal(t, Fail, report.check(t, tokenVerdict).Status, "a dry run is not the verdict")
}

// Several mistakes are all found, not the first alone.
func TestAllMistakesOfATokenAreFound(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	f := Found{Config: issuer.Config(shop)}
	f.Config.Algorithms, f.Config.MaxLifetime = []string{"RS256"}, time.Second
	report := new(Report)
	Token(t.Context(), f, issuer.Sign(m2mauthtest.Token{
		Audience: "https://other.api", Expired: true, Header: map[string]any{"typ": "JWT"}, Claims: map[string]any{"iss": "https://other.example"},
	}), Demand{}, report)
	assert.Equal(t, []string{tokenAlgorithm, tokenType, tokenIssuer, tokenAudience, tokenTimes}, report.failures())
	assert.Equal(t, Pass, report.check(t, tokenSignature).Status, "the signature is checked whatever the claims say")
	assert.Equal(t, Pass, report.check(t, tokenClaims).Status)
	assert.Equal(t, Skip, report.check(t, tokenOrganization).Status)
	assert.Equal(t, Skip, report.check(t, tokenScopes).Status, "they are those of another API")
	assert.Contains(t, report.check(t, tokenVerdict).Remedy, "see token.algorithm, token.type, token.issuer, token.audience, token.times")

	f.Config = issuer.Config(shop)
	report = new(Report)
	Token(t.Context(), f, issuer.Sign(m2mauthtest.Token{Audience: shop, Expired: true, Claims: map[string]any{"sub": nil}}), Demand{}, report)
	assert.Equal(t, []string{tokenClaims, tokenTimes}, report.failures(), "times are checked where other claims are wrong")
	assert.Equal(t, Skip, report.check(t, tokenScopes).Status)
}

// What replaces a mistake may be longer than it.
func TestAllMistakesOfALongTokenAreFound(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	token := m2mauthtest.Token{Audience: "x", Claims: map[string]any{"iss": "x", "groups": strings.Repeat("g", 5770)}}
	text := issuer.Sign(token)
	require.Less(t, len(text), 8192)
	require.Greater(t, len(text), 8192-len("https://issuer.test/oidc"))
	report := new(Report)
	Token(t.Context(), Found{Config: issuer.Config(shop)}, text, Demand{}, report)
	assert.Equal(t, []string{tokenIssuer, tokenAudience}, report.failures())
}

// A check that no other value of the claim would pass is not made for ever.
func TestACheckThatFailsInTwoWays(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	f := Found{Config: issuer.Config(shop)}
	f.Config.RequiredClaims = map[string][]string{"aud": {"https://other.api"}}
	report := new(Report)
	Token(t.Context(), f, issuer.Token(shop), Demand{}, report)
	assert.Equal(t, []string{tokenAudience}, report.failures())
	assert.Equal(t, Skip, report.check(t, tokenClaims).Status)
	assert.Equal(t, Skip, report.check(t, tokenScopes).Status)
	assert.Equal(t, Fail, report.check(t, tokenVerdict).Status)
}

// A dry run or a function of the API does not decide here.
func TestAReportOnlyGuardIsTakenAsEnforcing(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	f := Found{Config: issuer.Config(shop)}
	f.Config.InsecureReportOnlyUntil = time.Now().Add(time.Hour)
	f.Config.OnDecision = nil
	report := new(Report)
	Token(t.Context(), f, issuer.Token("https://other.api"), Demand{}, report)
	assert.Equal(t, []string{tokenAudience}, report.failures())
	assert.Equal(t, Fail, report.check(t, tokenVerdict).Status)
}

// What a token says is shown with control characters escaped, and cut.
func TestATokensTextIsEscapedAndCut(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	for _, claims := range []map[string]any{
		{"iss": "\x1b[2Jx"}, {"aud": "a\nb\u202e" + strings.Repeat("x", 3000)}, {"sub": "\x1b[2J", "client_id": "\x1b[2J"}, {"scope": "a\u009bb"}, {"organization_id": "\x07"},
	} {
		report := new(Report)
		Token(t.Context(), Found{Config: issuer.Config(shop)}, issuer.Sign(m2mauthtest.Token{Audience: shop, Claims: claims}), Demand{Scopes: []string{"b"}}, report)
		for _, r := range report.table(t) {
			assert.False(t, r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e), "%q", r)
		}
		for _, c := range report.Checks {
			assert.Less(t, len(c.Detail), 1000, c.ID)
			assert.Less(t, len(c.Remedy), 1000, c.ID)
		}
	}
}

// Where the endpoint says that it granted a scope, the app's roles are not the cause.
func TestAScopeThatIsInAnotherClaim(t *testing.T) {
	t.Parallel()
	issuer, app := tenant(t)
	f := found(t, issuer, func(c *m2mauth.Config) { c.ScopeClaims = []string{"scp"} })
	report := new(Report)
	AppToken(t.Context(), f, appOf(app), Demand{Scopes: []string{"read:products"}}, report)
	assert.Equal(t, []string{tokenScopes}, report.failures())
	assert.Contains(t, report.check(t, tokenScopes).Remedy, "ScopeClaims")
}

func TestWhatATokenRequestSays(t *testing.T) {
	t.Parallel()
	scopes := Demand{Scopes: []string{"a", "b"}}
	for _, test := range []struct {
		app    App
		prefix string
		demand Demand
		want   string
	}{
		{App{Resource: shop}, "", scopes, "grant_type=client_credentials&resource=https%3A%2F%2Fshopping.api&scope=a+b"},
		{App{Resource: shop}, "", Demand{}, "grant_type=client_credentials&resource=https%3A%2F%2Fshopping.api"},
		{App{Resource: shop, ResourceAs: AsAudience}, "", scopes, "audience=https%3A%2F%2Fshopping.api&grant_type=client_credentials&scope=a+b"},
		{App{Resource: shop, ResourceAs: AsDefaultScope}, "", scopes, "grant_type=client_credentials&scope=https%3A%2F%2Fshopping.api%2F.default"},
		{App{Resource: shop, ResourceAs: AsNothing}, "shop/", scopes, "grant_type=client_credentials&scope=shop%2Fa+shop%2Fb"},
		{App{Resource: shop}, "", Demand{Organization: "acme"}, "grant_type=client_credentials&organization_id=acme&resource=https%3A%2F%2Fshopping.api"},
		{App{Resource: testguard.OrganizationToken}, "", Demand{Organization: "acme"}, "grant_type=client_credentials&organization_id=acme"},
	} {
		assert.Equal(t, test.want, test.app.form(m2mauth.Config{ScopePrefix: test.prefix}, test.demand).Encode())
	}
}

func TestTheSecretOfAFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(name, []byte("hidden\r\n"), 0o600))
	report := new(Report)
	secret, err := ReadSecret(name, report)
	require.NoError(t, err)
	assert.Equal(t, "hidden", secret)
	assert.Equal(t, Pass, report.check(t, appSecret).Status)

	if runtime.GOOS != "windows" {
		require.NoError(t, os.Chmod(name, 0o604))
		report = new(Report)
		_, err = ReadSecret(name, report)
		require.NoError(t, err)
		assert.Equal(t, Warn, report.check(t, appSecret).Status)
		assert.Contains(t, report.check(t, appSecret).Remedy, "chmod 600")
	}
	require.NoError(t, os.WriteFile(name, []byte("\n"), 0o600))
	_, err = ReadSecret(name, report)
	require.ErrorContains(t, err, "empty")
	_, err = ReadSecret(name+"2", report)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestDurationsInWords(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "less than a second", 999 * time.Millisecond: "less than a second", time.Second: "1 second", -2 * time.Second: "2 seconds",
		time.Minute: "1 minute", 90 * time.Second: "1 minute 30 seconds", time.Hour: "1 hour", time.Hour + time.Second: "1 hour",
		3*time.Hour + 2*time.Minute + time.Second: "3 hours 2 minutes", 24 * time.Hour: "1 day", 49*time.Hour + time.Minute: "2 days 1 hour",
	} {
		assert.Equal(t, want, spell(d))
	}
	assert.Equal(t, "in 1 minute (2026-12-01 12:01:00 UTC)", until(testTime.Add(time.Minute), testTime))
	assert.Equal(t, "1 minute ago (2026-12-01 11:59:00 UTC)", until(testTime.Add(-time.Minute), testTime))
	assert.Equal(t, "now (2026-12-01 12:00:00 UTC)", until(testTime, testTime))
}
