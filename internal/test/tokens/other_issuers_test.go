package tokens

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// Settings of other issuers by hand, without package issuers. The tokens below are made in the form that
// the issuers' documentation gives them; none of them was recorded.

func auth0() m2mauth.Config {
	return m2mauth.Config{
		Issuer:       "https://shop.eu.auth0.com/", // with the slash
		Audience:     "https://shopping.api",
		Algorithms:   []string{"RS256"},
		TokenTypes:   []string{"JWT", "at+jwt"}, // the profiles "Auth0" and "RFC 9068"
		ClientClaims: []string{"azp", "client_id"},
		IsMachine: func(c m2mauth.Claims) bool {
			return c.Subject() == c.ClientID()+"@clients"
		},
	}
}

func entraID() m2mauth.Config {
	return m2mauth.Config{
		Issuer:       "https://login.microsoftonline.com/8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21/v2.0",
		Audience:     "6e74172b-be56-4843-9ff4-e66a39bb12e3", // the API's application (client) ID
		Algorithms:   []string{"RS256"},
		TokenTypes:   []string{"JWT"},
		ClientClaims: []string{"azp"},
		ScopeClaims:  []string{"roles"}, // application permissions; scp has those of users
		IsMachine: func(c m2mauth.Claims) bool {
			var own struct {
				Type string `json:"idtyp"` // an optional claim: add it to the API's tokens
			}
			return c.Decode(&own) == nil && own.Type == "app"
		},
	}
}

func keycloak() m2mauth.Config {
	return m2mauth.Config{
		Issuer:       "https://login.shop.example/realms/shop",
		Audience:     "https://shopping.api", // by a mapper of the type Audience
		Algorithms:   []string{"RS256"},
		TokenTypes:   []string{"JWT"},
		ClientClaims: []string{"azp"},
		IsMachine: func(c m2mauth.Claims) bool {
			var own struct {
				Service string `json:"client_id"` // of service accounts alone
			}
			return c.Decode(&own) == nil && own.Service != "" && own.Service == c.ClientID()
		},
	}
}

const (
	auth0Header   = `{"alg":"RS256","typ":"JWT","kid":"KID"}`
	auth0Machine  = `{"iss":"https://shop.eu.auth0.com/","sub":"nY7rC2mQv4Lx@clients","aud":"https://shopping.api","iat":IAT,"exp":EXP,"scope":"read:products","gty":"client-credentials","azp":"nY7rC2mQv4Lx","permissions":["read:products"]}`
	auth0RFC9068  = `{"iss":"https://shop.eu.auth0.com/","sub":"nY7rC2mQv4Lx@clients","aud":"https://shopping.api","iat":IAT,"exp":EXP,"scope":"read:products","jti":"q8Zt1","client_id":"nY7rC2mQv4Lx","permissions":["read:products"]}`
	auth0User     = `{"iss":"https://shop.eu.auth0.com/","sub":"auth0|65f0c2","aud":["https://shopping.api","https://shop.eu.auth0.com/userinfo"],"iat":IAT,"exp":EXP,"scope":"openid profile read:products","azp":"kP3wB9","permissions":["read:products"]}`
	auth0IDToken  = `{"nickname":"ada","name":"Ada","email":"ada@shop.example","iss":"https://shop.eu.auth0.com/","aud":"kP3wB9","sub":"auth0|65f0c2","iat":IAT,"exp":EXP,"sid":"s1","nonce":"n"}`
	entraHeader   = `{"typ":"JWT","alg":"RS256","kid":"KID"}`
	entraMachine  = `{"aud":"6e74172b-be56-4843-9ff4-e66a39bb12e3","iss":"https://login.microsoftonline.com/8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21/v2.0","iat":IAT,"nbf":IAT,"exp":EXP,"aio":"E2NgYA==","azp":"00001111-aaaa-2222-bbbb-3333cccc4444","azpacr":"1","idtyp":"app","oid":"d5a1e7f0-6b3c-4e0f-8a92-1c4b7e6f9d03","rh":"0.AX","roles":["read:products"],"sub":"d5a1e7f0-6b3c-4e0f-8a92-1c4b7e6f9d03","tid":"8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21","uti":"u","ver":"2.0"}`
	entraNoRole   = `{"aud":"6e74172b-be56-4843-9ff4-e66a39bb12e3","iss":"https://login.microsoftonline.com/8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21/v2.0","iat":IAT,"nbf":IAT,"exp":EXP,"azp":"00001111-aaaa-2222-bbbb-3333cccc4444","azpacr":"1","idtyp":"app","oid":"d5a1e7f0-6b3c-4e0f-8a92-1c4b7e6f9d03","sub":"d5a1e7f0-6b3c-4e0f-8a92-1c4b7e6f9d03","tid":"8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21","ver":"2.0"}`
	entraUser     = `{"aud":"6e74172b-be56-4843-9ff4-e66a39bb12e3","iss":"https://login.microsoftonline.com/8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21/v2.0","iat":IAT,"nbf":IAT,"exp":EXP,"azp":"00001111-aaaa-2222-bbbb-3333cccc4444","azpacr":"0","name":"Ada","oid":"0d1c2b3a-0000-1111-2222-333344445555","preferred_username":"ada@shop.example","scp":"read:products","sub":"hKk3aD0pZ","tid":"8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21","ver":"2.0"}`
	entraIDToken  = `{"aud":"00001111-aaaa-2222-bbbb-3333cccc4444","iss":"https://login.microsoftonline.com/8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21/v2.0","iat":IAT,"nbf":IAT,"exp":EXP,"name":"Ada","oid":"0d1c2b3a-0000-1111-2222-333344445555","preferred_username":"ada@shop.example","roles":["read:products"],"sub":"hKk3aD0pZ","tid":"8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21","ver":"2.0"}`
	entraV1       = `{"aud":"api://6e74172b-be56-4843-9ff4-e66a39bb12e3","iss":"https://sts.windows.net/8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21/","iat":IAT,"nbf":IAT,"exp":EXP,"appid":"00001111-aaaa-2222-bbbb-3333cccc4444","appidacr":"1","idtyp":"app","oid":"d5a1e7f0-6b3c-4e0f-8a92-1c4b7e6f9d03","roles":["read:products"],"sub":"d5a1e7f0-6b3c-4e0f-8a92-1c4b7e6f9d03","tid":"8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21","ver":"1.0"}`
	keycloakHead  = `{"alg":"RS256","typ" : "JWT","kid" : "KID"}`
	keycloakApp   = `{"exp":EXP,"iat":IAT,"jti":"trrtcc:4f1c","iss":"https://login.shop.example/realms/shop","aud":["https://shopping.api","account"],"sub":"2c8e5a11-7d0b-4a0e-9a51-3f4f1f0f7a10","typ":"Bearer","azp":"reader","acr":"1","realm_access":{"roles":["offline_access","default-roles-shop"]},"resource_access":{"account":{"roles":["view-profile"]}},"scope":"read:products email profile","clientHost":"192.0.2.7","email_verified":false,"preferred_username":"service-account-reader","clientAddress":"192.0.2.7","client_id":"reader"}`
	keycloakNoAud = `{"exp":EXP,"iat":IAT,"jti":"trrtcc:4f1d","iss":"https://login.shop.example/realms/shop","sub":"2c8e5a11-7d0b-4a0e-9a51-3f4f1f0f7a10","typ":"Bearer","azp":"reader","acr":"1","scope":"read:products","client_id":"reader"}`
	keycloakUser  = `{"exp":EXP,"iat":IAT,"auth_time":IAT,"jti":"onrtac:77aa","iss":"https://login.shop.example/realms/shop","aud":["https://shopping.api","account"],"sub":"91b7f3c2-1111-4222-8333-944445555666","typ":"Bearer","azp":"web","sid":"s1","acr":"1","realm_access":{"roles":["default-roles-shop"]},"scope":"openid read:products profile","preferred_username":"service-account-web"}`
	keycloakID    = `{"exp":EXP,"iat":IAT,"auth_time":IAT,"jti":"77ab","iss":"https://login.shop.example/realms/shop","aud":"web","sub":"91b7f3c2-1111-4222-8333-944445555666","typ":"ID","azp":"web","nonce":"n","sid":"s1","at_hash":"x","acr":"1","preferred_username":"ada"}`
)

func TestTokensOfOtherIssuers(t *testing.T) {
	t.Parallel()
	machines := m2mauth.AllOf(m2mauth.AllScopes("read:products"), m2mauth.MachineToken())
	users := m2mauth.AllOf(m2mauth.AllScopes("read:products"), m2mauth.UserToken())
	v1 := func() m2mauth.Config {
		c := entraID()
		c.Issuer = "https://sts.windows.net/8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21/"
		c.Audience, c.ClientClaims = "api://"+c.Audience, []string{"appid"}
		return c
	}
	delegated := func() m2mauth.Config {
		c := entraID()
		c.ScopeClaims = []string{"scp"}
		return c
	}
	// The worst that can be configured: the API's name is the ID of a client at
	// which users sign in, so that the audience keeps no ID token out.
	shared := func(config func() m2mauth.Config, audience string) func() m2mauth.Config {
		return func() m2mauth.Config {
			c := config()
			c.Audience = audience
			return c
		}
	}
	strict := func() m2mauth.Config { // what a user of Logto has
		c := auth0()
		c.TokenTypes, c.ClientClaims, c.IsMachine = nil, nil, nil
		return c
	}
	for _, test := range []struct {
		name           string
		config         func() m2mauth.Config
		header, claims string
		rule           m2mauth.Rule
		want           error
		client         string
		isMachine      bool
	}{
		{"Auth0, a machine", auth0, auth0Header, auth0Machine, machines, nil, "nY7rC2mQv4Lx", true},
		{"Auth0, a machine by the profile RFC 9068", auth0, `{"alg":"RS256","typ":"at+jwt","kid":"KID"}`, auth0RFC9068, machines, nil, "nY7rC2mQv4Lx", true},
		{"Auth0, a user", auth0, auth0Header, auth0User, users, nil, "kP3wB9", false},
		{"Auth0, a user on a route for machines", auth0, auth0Header, auth0User, machines, m2mauth.ErrForbidden, "", false},
		{"Auth0, an ID token", auth0, auth0Header, auth0IDToken, m2mauth.AnyToken(), m2mauth.ErrAudience, "", false},
		{"Auth0, an ID token for a client that is named as the API is", shared(auth0, "kP3wB9"), auth0Header, auth0IDToken, m2mauth.AnyToken(), m2mauth.ErrClaims, "", false},
		{"Auth0, an ID token that says it is of RFC 9068", auth0, `{"alg":"RS256","typ":"at+jwt","kid":"KID"}`, auth0IDToken, m2mauth.AnyToken(), m2mauth.ErrAudience, "", false},
		{"Auth0, without its settings", strict, auth0Header, auth0Machine, machines, m2mauth.ErrType, "", false},

		{"Entra ID, a machine", entraID, entraHeader, entraMachine, machines, nil, "00001111-aaaa-2222-bbbb-3333cccc4444", true},
		{"Entra ID, a machine without an application permission", entraID, entraHeader, entraNoRole, machines, m2mauth.ErrScope, "", false},
		{"Entra ID, a user, whose scp is not asked for", entraID, entraHeader, entraUser, users, m2mauth.ErrScope, "", false},
		{"Entra ID, a user, with ScopeClaims scp", delegated, entraHeader, entraUser, users, nil, "00001111-aaaa-2222-bbbb-3333cccc4444", false},
		{"Entra ID, a user on a route for machines", delegated, entraHeader, entraUser, machines, m2mauth.ErrForbidden, "", false},
		{"Entra ID, an ID token", entraID, entraHeader, entraIDToken, m2mauth.AnyToken(), m2mauth.ErrAudience, "", false},
		{"Entra ID, an ID token for a client that is the API itself", shared(entraID, "00001111-aaaa-2222-bbbb-3333cccc4444"), entraHeader, entraIDToken, m2mauth.AnyToken(), m2mauth.ErrClaims, "", false},
		{"Entra ID, a token of version 1.0", entraID, entraHeader, entraV1, machines, m2mauth.ErrIssuer, "", false},
		{"Entra ID, a token of version 1.0 with its settings", v1, entraHeader, entraV1, machines, nil, "00001111-aaaa-2222-bbbb-3333cccc4444", true},

		{"Keycloak, a service account", keycloak, keycloakHead, keycloakApp, machines, nil, "reader", true},
		{"Keycloak, a user who took the name of a service account", keycloak, keycloakHead, keycloakUser, machines, m2mauth.ErrForbidden, "", false},
		{"Keycloak, a user", keycloak, keycloakHead, keycloakUser, users, nil, "web", false},
		{"Keycloak, an ID token", keycloak, keycloakHead, keycloakID, m2mauth.AnyToken(), m2mauth.ErrAudience, "", false},
		// Nothing but the audience tells this one from an access token: docs/issuers.md warns.
		{"Keycloak, an ID token for a client that is named as the API is", shared(keycloak, "web"), keycloakHead, keycloakID, machines, m2mauth.ErrScope, "", false},
		{"Keycloak, a token without aud, as there is by default", keycloak, keycloakHead, keycloakNoAud, machines, m2mauth.ErrClaims, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			issuer := m2mauthtest.NewIssuer()
			kid := issuer.Rotate("RS256")
			config := test.config()
			config.JWKSURL, config.HTTPClient, config.Logger = issuer.JWKSURL(), issuer.Client(), slog.New(slog.DiscardHandler)
			guard, err := m2mauth.New(config)
			require.NoError(t, err)
			now := time.Now().Unix()
			fill := strings.NewReplacer("KID", kid, "IAT", fmt.Sprint(now), "EXP", fmt.Sprint(now+3600))
			token := issuer.Sign(m2mauthtest.Token{RawHeader: []byte(fill.Replace(test.header)), RawClaims: []byte(fill.Replace(test.claims))})

			claims, err := guard.Check(testguard.RequestWith("Bearer "+token), test.rule)
			if test.want != nil {
				assert.ErrorIs(t, err, test.want)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.client, claims.ClientID())
			assert.Equal(t, test.isMachine, claims.IsMachine())
			if test.isMachine {
				assert.Equal(t, test.client, claims.AppID())
			} else {
				assert.Empty(t, claims.AppID())
			}
		})
	}
}

// What cannot work, with any settings.
func TestOpaqueTokensAreRefusedWhateverTheSettings(t *testing.T) {
	t.Parallel()
	for _, config := range []m2mauth.Config{auth0(), entraID(), keycloak()} {
		config.Logger = slog.New(slog.DiscardHandler)
		guard, err := m2mauth.New(config)
		require.NoError(t, err)
		for _, token := range []string{"c8V2fJxq0JQ7bS", "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..iv.text.tag"} {
			_, err := guard.Verify(t.Context(), token)
			assert.ErrorIs(t, err, m2mauth.ErrMalformed)
		}
	}
}
