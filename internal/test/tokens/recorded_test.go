package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
)

// recordedCase is one row of testdata/logto/cases.json.
type recordedCase struct {
	File   string
	JWKS   string
	Clock  int64
	Valid  bool
	Note   string
	Reason []string `json:"reasons"`

	ReadProducts                int    `json:"read_products"`
	WriteProducts               int    `json:"write_products"`
	ReadProductsInOrganization  int    `json:"read_products_in_organization"`
	WriteProductsInOrganization int    `json:"write_products_in_organization"`
	RefusedFor                  string `json:"refused_for"`

	SubjectKind    string  `json:"subject_kind"`
	Issuer         string  `json:"iss"`
	Audience       string  `json:"aud"`
	Subject        string  `json:"sub"`
	ClientID       string  `json:"client_id"`
	Scope          *string `json:"scope"`
	OrganizationID string  `json:"organization_id"`
	IssuedAt       int64   `json:"iat"`
	ExpiresAt      int64   `json:"exp"`
}

// recordedKinds translates the reasons of cases.json.
var recordedKinds = map[string]error{
	"audience mismatch":         m2mauth.ErrAudience,
	"issuer mismatch":           m2mauth.ErrIssuer,
	"expired":                   m2mauth.ErrExpired,
	"not yet valid (nbf)":       m2mauth.ErrNotYetValid,
	"unknown key":               m2mauth.ErrUnknownKey,
	"not an access token (typ)": m2mauth.ErrType,
	"not a JWT":                 m2mauth.ErrMalformed,
}

// kinds lists the error kinds that Check may answer, none if it must accept.
// Of several reasons it reports the first that it meets.
func (c recordedCase) kinds(t *testing.T, issuer string) (kinds []error) {
	for _, reason := range c.Reason {
		require.Contains(t, recordedKinds, reason)
		kinds = append(kinds, recordedKinds[reason])
	}
	switch {
	case len(kinds) > 0 && c.Issuer != "" && c.Issuer != issuer:
		// Not named where the case is about the key.
		kinds = append(kinds, m2mauth.ErrIssuer)
	case c.RefusedFor != "":
		kinds = append(kinds, m2mauth.ErrClaims)
	case c.Valid && c.OrganizationID != "":
		kinds = append(kinds, m2mauth.ErrForbidden)
	}
	return kinds
}

// TestRecordedTokens runs every token recorded from a real Logto server at its
// own clock, without leeway.
func TestRecordedTokens(t *testing.T) {
	t.Parallel()
	var recorded struct {
		Issuer, Audience string
		Cases            []recordedCase
	}
	require.NoError(t, json.Unmarshal(recordedFile(t, "cases.json"), &recorded))
	require.Len(t, recorded.Cases, 90)
	discovery := recordedFile(t, "openid-configuration.json")

	for _, c := range recorded.Cases {
		name := fmt.Sprintf("%s with %s at %d", c.File, c.JWKS, c.Clock)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token := strings.TrimSpace(string(recordedFile(t, c.File)))
			var keys []byte
			if c.JWKS != "" {
				keys = recordedFile(t, c.JWKS)
			}
			synctest.Test(t, func(t *testing.T) {
				if c.Clock != 0 {
					testguard.SleepUntil(time.Unix(c.Clock, 0))
				}
				server := &documentServer{issuer: recorded.Issuer, discovery: discovery, keys: keys}
				config := m2mauth.Config{
					Issuer:     recorded.Issuer,
					Audience:   recorded.Audience,
					Leeway:     -1,
					HTTPClient: &http.Client{Transport: server},
				}
				runRecorded(t, config, c, token)

				switch kinds := c.kinds(t, recorded.Issuer); {
				case len(kinds) == 0 || kinds[0] == m2mauth.ErrForbidden:
					assert.Equal(t, [2]int32{1, 1}, server.fetches(), "one fetch serves all requests")
				case kinds[0] == m2mauth.ErrUnknownKey && c.Issuer == recorded.Issuer:
					assert.LessOrEqual(t, server.fetches()[1], int32(2), "an unknown kid causes one fetch more at most")
				default:
					assert.Zero(t, server.fetches(), "a token refused by its claims costs no fetch")
				}

				if c.ReadProductsInOrganization != 0 {
					config.InsecureAllowOrganizationTokens = true
					c.ReadProducts, c.WriteProducts = c.ReadProductsInOrganization, c.WriteProductsInOrganization
					runRecorded(t, config, c, token)
				}
			})
		})
	}
}

// runRecorded makes every request of a case twice on one guard.
func runRecorded(t *testing.T, config m2mauth.Config, c recordedCase, token string) {
	t.Helper()
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	request := httptest.NewRequest(http.MethodGet, "/products", nil)
	request.Header.Set("Authorization", "Bearer "+token)
	routes := map[string]int{"read:products": c.ReadProducts, "write:products": c.WriteProducts}

	for _, visit := range []string{"first", "second"} {
		for scope, status := range routes {
			reached := false
			handler := guard.Require(scope)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				reached = true
				seen, ok := m2mauth.FromContext(r.Context())
				require.True(t, ok)
				assertRecordedClaims(t, c, seen)
			}))
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, request)
			assert.Equal(t, status, recorder.Code, "%s request for %s: %s", visit, scope, recorder.Body)
			assert.Equal(t, status == http.StatusOK, reached, "%s request for %s", visit, scope)
			switch challenge := recorder.Header().Get("WWW-Authenticate"); status {
			case http.StatusUnauthorized:
				assert.Contains(t, challenge, `error="invalid_token"`)
			case http.StatusForbidden:
				assert.Contains(t, challenge, `error="insufficient_scope"`)
			}
		}

		claims, err := guard.Check(request, m2mauth.AnyToken())
		kinds := c.kinds(t, config.Issuer)
		if len(kinds) == 0 || kinds[0] == m2mauth.ErrForbidden && config.InsecureAllowOrganizationTokens {
			require.NoError(t, err)
			assertRecordedClaims(t, c, claims)
			continue
		}
		assert.True(t, claims.IsZero(), "claims beside an error")
		assertOneOf(t, err, kinds)
	}
}

func assertRecordedClaims(t *testing.T, c recordedCase, claims m2mauth.Claims) {
	t.Helper()
	require.False(t, claims.IsZero())
	assert.Equal(t, c.Subject, claims.Subject())
	assert.Equal(t, c.ClientID, claims.ClientID())
	assert.Equal(t, c.Issuer, claims.Issuer())
	assert.Equal(t, []string{c.Audience}, claims.Audience())
	assert.Equal(t, c.OrganizationID, claims.OrganizationID())
	assert.NotEmpty(t, claims.ID())
	assert.Equal(t, c.IssuedAt, claims.IssuedAt().Unix())
	assert.Equal(t, c.ExpiresAt, claims.ExpiresAt().Unix())
	var scope string
	if c.Scope != nil {
		scope = *c.Scope
	}
	assert.Equal(t, scope, claims.Scopes().String())
	assert.Equal(t, len(strings.Fields(scope)), claims.Scopes().Len())
	if c.SubjectKind == "application" {
		assert.True(t, claims.IsMachine())
		assert.Equal(t, c.Subject, claims.AppID())
	} else {
		assert.False(t, claims.IsMachine(), "a user's token")
		assert.Empty(t, claims.AppID(), "a user's token has no app as its subject")
	}
}

func assertOneOf(t *testing.T, err error, kinds []error) {
	t.Helper()
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return
		}
	}
	assert.Failf(t, "wrong kind of error", "%v is none of %v", err, kinds)
}

// documentServer is an [http.RoundTripper] that answers discovery and the key
// set of one issuer from memory, and counts.
type documentServer struct {
	issuer          string
	discovery, keys []byte

	discoveries, keyFetches, others atomic.Int32
}

func (s *documentServer) RoundTrip(r *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	switch r.URL.String() {
	case s.issuer + "/.well-known/openid-configuration":
		s.discoveries.Add(1)
		recorder.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = io.Copy(recorder, bytes.NewReader(s.discovery))
	case s.issuer + "/jwks":
		s.keyFetches.Add(1)
		recorder.Header().Set("Content-Type", "application/jwk-set+json; charset=utf-8")
		recorder.Header().Set("Cache-Control", "no-cache, max-age=0, must-revalidate")
		_, _ = io.Copy(recorder, bytes.NewReader(s.keys))
	default:
		s.others.Add(1)
		http.NotFound(recorder, r)
	}
	response := recorder.Result()
	response.Request = r
	return response, nil
}

// fetches returns the numbers of discovery and key set requests.
func (s *documentServer) fetches() [2]int32 {
	return [2]int32{s.discoveries.Load(), s.keyFetches.Load()}
}

// recordings are those of a real Logto server.
const recordings = "../../../testdata/logto"

func recordedFile(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(recordings, name))
	require.NoError(t, err)
	return content
}
