package m2mauthtest_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// These hold what the comments of the kit say of guards, which cache keys. The
// durations are the defaults of m2mauth.Config.
const (
	keyTTL      = 10 * time.Minute
	keyStaleFor = time.Hour
	backoff     = 30 * time.Second // the longest
)

// longLived signs with a key a token that outlives every test here.
func longLived(issuer *m2mauthtest.Issuer, kid string) string {
	return issuer.Sign(m2mauthtest.Token{Audience: "https://shopping.api", KeyID: kid, Lifetime: 24 * time.Hour})
}

func TestAWithdrawnKeyIsAcceptedUntilTheGuardFetchesTheKeySet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		verify := verifier(t, issuer, nil)
		kid := issuer.KeyIDs()[0]
		token := longLived(issuer, kid)
		assert.NoError(t, verify(token))

		issuer.Rotate("ES384")
		issuer.Withdraw(kid)
		assert.NoError(t, verify(token), "the guard has the key")
		assert.NoError(t, verify(longLived(issuer, kid)), "a new token of the key is no reason to fetch")
		time.Sleep(keyTTL)
		assert.ErrorIs(t, verify(token), m2mauth.ErrUnknownKey)
		assert.NoError(t, verify(longLived(issuer, "")))
	})
}

func TestTheLastKeyWithdrawnIsAcceptedAsInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		verify := verifier(t, issuer, nil)
		token := longLived(issuer, "")
		assert.NoError(t, verify(token))

		issuer.Withdraw(issuer.KeyIDs()[0])
		time.Sleep(keyTTL)
		assert.NoError(t, verify(token), "a key set without keys is a fault of the issuer")
		time.Sleep(keyStaleFor)
		assert.ErrorIs(t, verify(token), m2mauth.ErrUnavailable)
	})
}

func TestARotationIsNoticedByTheFirstTokenOfTheNewKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		verify := verifier(t, issuer, nil)
		first := issuer.KeyIDs()[0]
		assert.NoError(t, verify(longLived(issuer, first)))

		issuer.Rotate("ES384")
		assert.NoError(t, verify(longLived(issuer, "")), "the guard fetches the key set at once")
		assert.NoError(t, verify(longLived(issuer, first)), "the previous key is still published")

		issuer.Rotate("ES384")
		assert.NoError(t, verify(longLived(issuer, first)), "nothing made the guard fetch the key set")
		time.Sleep(keyTTL)
		assert.ErrorIs(t, verify(longLived(issuer, first)), m2mauth.ErrUnknownKey)
	})
}

func TestAGuardThatHasKeysNoticesNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		verify, starting := verifier(t, issuer, nil), verifier(t, issuer, nil)
		token := longLived(issuer, "")
		assert.NoError(t, verify(token))

		issuer.Intercept(func(http.Handler) http.Handler { return http.NotFoundHandler() })
		assert.ErrorIs(t, starting(token), m2mauth.ErrUnavailable, "a guard without keys")
		assert.NoError(t, verify(token))
		time.Sleep(keyTTL + keyStaleFor - time.Nanosecond)
		assert.NoError(t, verify(token))
		time.Sleep(time.Nanosecond)
		assert.ErrorIs(t, verify(token), m2mauth.ErrUnavailable)

		issuer.Intercept(nil)
		assert.ErrorIs(t, verify(token), m2mauth.ErrUnavailable, "it waits before it tries again")
		time.Sleep(backoff)
		assert.NoError(t, verify(token))
		assert.NoError(t, starting(token))
	})
}
