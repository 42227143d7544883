package m2mauth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// tokenOf returns a good token of so many bytes, or one more where base64url does not allow that.
func tokenOf(t *testing.T, issuer *m2mauthtest.Issuer, bytes int) string {
	t.Helper()
	sized := func(filler int) string {
		return issuer.Sign(m2mauthtest.Token{Audience: shop, Scopes: []string{"read"}, Claims: map[string]any{"filler": strings.Repeat("x", filler)}})
	}
	filler := (bytes - len(sized(0))) * 3 / 4
	for len(sized(filler)) < bytes {
		filler++
	}
	return sized(filler)
}

func TestTokensUpToTheConfiguredLength(t *testing.T) {
	t.Parallel()
	for most, text := range map[int]string{0: "8 KiB", 4 << 10: "4 KiB", 5000: "5000 bytes", 64 << 10: "64 KiB"} {
		issuer := m2mauthtest.NewIssuer()
		guard := quietGuard(t, issuer, func(c *m2mauth.Config) { c.MaxTokenBytes = most })
		if most == 0 {
			most = 8 << 10
		}
		check := func(token string) (*httptest.ResponseRecorder, error) {
			w := httptest.NewRecorder()
			guard.Require("read")(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, requestWith("Bearer "+token))
			_, err := guard.Verify(t.Context(), token)
			return w, err
		}
		w, err := check(tokenOf(t, issuer, most-2))
		require.NoError(t, err, text)
		assert.Equal(t, http.StatusOK, w.Code, text)
		w, err = check(tokenOf(t, issuer, most+1))
		require.ErrorIs(t, err, m2mauth.ErrRequest)
		assert.ErrorContains(t, err, "the access token is longer than "+text)
		assert.Equal(t, http.StatusBadRequest, w.Code, text)
		assert.Contains(t, w.Body.String(), "the Authorization field is longer than "+text)
	}
}

// The length is known before the issuer is, so it is the first guard's.
func TestJoinedGuardsHaveTheFirstsTokenLength(t *testing.T) {
	t.Parallel()
	one, two := newTenant("https://one.test/oidc"), newTenant("https://two.test/oidc")
	long := func(c *m2mauth.Config) { c.MaxTokenBytes = 32 << 10 }
	both := joined(t, one.guard(t, long), two.guard(t))
	_, err := both.Verify(t.Context(), strings.Repeat("a", 32<<10))
	assert.ErrorIs(t, err, m2mauth.ErrMalformed)
	_, err = both.Verify(t.Context(), strings.Repeat("a", 32<<10+1))
	assert.ErrorIs(t, err, m2mauth.ErrRequest)
}

// What waits for keys is bounded in bytes too: 24 MiB for all issuers of a guard.
func TestTokensThatWaitForKeysAreBoundedInBytes(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		issuer.Rotate("EdDSA")
		token := tokenOf(t, issuer, 32<<10-2)
		keysSlow(issuer, time.Second)
		guard := quietGuard(t, issuer, func(c *m2mauth.Config) { c.MaxTokenBytes = 64 << 10 })
		var answers []<-chan *httptest.ResponseRecorder
		for i := range 1000 {
			answers = append(answers, ask(t.Context(), guard, fmt.Sprintf("10.0.%d.%d:1", i/250, i%250), token))
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		refused := 0
		for _, answer := range answers {
			refused += len(answer)
		}
		fit := 24 << 20 / len(token)
		assert.Equal(t, 1000-fit, refused)
		assert.LessOrEqual(t, m2mauth.TracesOf(guard).Bytes, 24<<20)
		_, err := guard.Verify(t.Context(), token)
		assert.ErrorIs(t, err, m2mauth.ErrUnavailable)
		for _, answer := range answers {
			switch w := <-answer; w.Code {
			case http.StatusServiceUnavailable:
				assert.NotEmpty(t, w.Header().Get("Retry-After"))
				refused--
			default:
				assert.Equal(t, http.StatusOK, w.Code)
			}
		}
		assert.Zero(t, refused)
		synctest.Wait()
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	})
}

// Of the largest tokens, fewer wait for a check.
func TestTokensThatWaitForACheckAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	keysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t, func(c *m2mauth.Config) { c.MaxTokenBytes = 64 << 10 })
		forged := forgerOf(tokenOf(t, issuer, 64<<10-200))
		for i := range 300 { // each takes 8 of 2,000 places
			ask(t.Context(), guard, fmt.Sprintf("10.0.%d.%d:1", i/250, i%250), forged(i))
		}
		synctest.Wait()
		assert.Equal(t, 250, m2mauth.TracesOf(guard).Waiting)
		assert.EqualValues(t, 50, guard.Stats().Refused)
		var same []<-chan *httptest.ResponseRecorder
		for i := range 500 { // each takes 22 of 8,192 places
			same = append(same, ask(t.Context(), guard, fmt.Sprintf("10.1.%d.%d:1", i/250, i%250), forged(0)))
		}
		synctest.Wait()
		assert.Equal(t, 8192/22, m2mauth.TracesOf(guard).Sharing)
		release()
		for _, answer := range same {
			w := <-answer
			assert.Contains(t, []int{http.StatusUnauthorized, http.StatusServiceUnavailable}, w.Code)
		}
		synctest.Wait()
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	})
}
