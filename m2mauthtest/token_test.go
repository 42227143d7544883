package m2mauthtest_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// payload and header return the JSON of a token's parts.
func payload(t *testing.T, token string) string { return part(t, token, 1) }
func header(t *testing.T, token string) string  { return part(t, token, 0) }

func part(t *testing.T, token string, n int) string {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	return string(decode(t, parts[n]))
}

func TestATokenLooksLikeLogtos(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	token := issuer.Token("https://shopping.api", "read:products")
	sameForm(t, "m2m-read.jwt", token)
	sameForm(t, "m2m-no-role.jwt", issuer.Token("https://shopping.api"))
	_, claims := members(t, strings.Split(token, ".")[1])
	assert.Equal(t, issuer.URL(), claims["iss"])
	assert.NotEqual(t, payload(t, token), payload(t, issuer.Token("https://shopping.api", "read:products")), "jti")
}

func TestTheClockSetsTheTimesOfAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		time.Sleep(90*time.Minute + 700*time.Millisecond)
		start := time.Now().Unix()
		for lifetime, want := range map[time.Duration]int64{
			0:                       3600,
			2 * time.Second:         2,
			1999 * time.Millisecond: 1,
			-time.Minute:            -60,
		} {
			_, claims := members(t, strings.Split(issuer.Sign(m2mauthtest.Token{Lifetime: lifetime}), ".")[1])
			assert.EqualValues(t, start, claims["iat"])
			assert.EqualValues(t, start+want, claims["exp"], lifetime)
		}
	})
}

func TestMembersCanBeBent(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	kid := issuer.KeyIDs()[0]
	fixed := map[string]any{"jti": "j", "iat": 1, "exp": 2}
	with := func(changes map[string]any) map[string]any {
		for name, value := range fixed {
			changes[name] = value
		}
		return changes
	}
	tests := []struct {
		name          string
		token         m2mauthtest.Token
		header, claim string
	}{
		{
			name:   "a member keeps its place when its value changes",
			token:  m2mauthtest.Token{AppID: "app", Audience: "a", Header: map[string]any{"typ": "JWT"}, Claims: with(map[string]any{"sub": "user"})},
			header: `{"alg":"ES384","typ":"JWT","kid":"` + kid + `"}`,
			claim:  `{"jti":"j","sub":"user","iat":1,"exp":2,"client_id":"app","iss":"https://issuer.test/oidc","aud":"a"}`,
		},
		{
			name:   "a nil value removes the member",
			token:  m2mauthtest.Token{Audience: "a", Header: map[string]any{"kid": nil, "no": nil}, Claims: with(map[string]any{"sub": nil, "client_id": nil, "no": nil})},
			header: `{"alg":"ES384","typ":"at+jwt"}`,
			claim:  `{"jti":"j","iat":1,"exp":2,"iss":"https://issuer.test/oidc","aud":"a"}`,
		},
		{
			name: "a raw null writes null",
			token: m2mauthtest.Token{AppID: "app", Audience: "a", Claims: with(map[string]any{
				"sub": json.RawMessage("null"), "cnf": json.RawMessage("null"),
			})},
			header: `{"alg":"ES384","typ":"at+jwt","kid":"` + kid + `"}`,
			claim:  `{"jti":"j","sub":null,"iat":1,"exp":2,"client_id":"app","iss":"https://issuer.test/oidc","aud":"a","cnf":null}`,
		},
		{
			name: "new members follow in the order of their names",
			token: m2mauthtest.Token{AppID: "app", Audience: "a", Scopes: []string{`x"y`, "<&>"},
				Header: map[string]any{"crit": []string{"b64"}, "b64": false},
				Claims: with(map[string]any{"nbf": 1.5, "act": map[string]string{"sub": "é"}})},
			header: `{"alg":"ES384","typ":"at+jwt","kid":"` + kid + `","b64":false,"crit":["b64"]}`,
			claim:  `{"jti":"j","sub":"app","iat":1,"exp":2,"scope":"x\"y <&>","client_id":"app","iss":"https://issuer.test/oidc","aud":"a","act":{"sub":"é"},"nbf":1.5}`,
		},
		{
			name:   "one empty scope gives an empty claim",
			token:  m2mauthtest.Token{AppID: "app", Audience: "a", Scopes: []string{""}, Claims: with(map[string]any{})},
			header: `{"alg":"ES384","typ":"at+jwt","kid":"` + kid + `"}`,
			claim:  `{"jti":"j","sub":"app","iat":1,"exp":2,"scope":"","client_id":"app","iss":"https://issuer.test/oidc","aud":"a"}`,
		},
		{
			name: "raw parts are taken byte for byte",
			token: m2mauthtest.Token{
				Audience: "a", RawHeader: []byte(`{"alg" : "x","alg":1} `), RawClaims: []byte{},
				Header: map[string]any{"typ": "no"}, Claims: map[string]any{"sub": "no"},
			},
			header: `{"alg" : "x","alg":1} `,
			claim:  ``,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			token := issuer.Sign(tt.token)
			assert.Equal(t, tt.header, header(t, token))
			assert.Equal(t, tt.claim, payload(t, token))
			parts := strings.Split(token, ".")
			assert.True(t, verifies(t, publishedKeys(t, issuer)[0], "ES384", parts[0]+"."+parts[1], decode(t, parts[2])))
		})
	}
}

func TestSignPanicsWithASentence(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	assert.PanicsWithValue(t, `m2mauthtest: Sign: the issuer has no key with the ID "unknown"`, func() {
		issuer.Sign(m2mauthtest.Token{KeyID: "unknown"})
	})
	assert.PanicsWithValue(t, "m2mauthtest: json: unsupported value: +Inf", func() {
		issuer.Sign(m2mauthtest.Token{Claims: map[string]any{"exp": math.Inf(1)}})
	})
	assert.NotEmpty(t, issuer.Token("a"), "no lock was left behind")
}
