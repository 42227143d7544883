package m2mauth_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// keysMaxAge has the key set sent with a Cache-Control of max-age.
func keysMaxAge(issuer *m2mauthtest.Issuer, maxAge string) {
	keysHook(issuer, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		w.Header().Set("Cache-Control", "max-age="+maxAge)
		_, _ = w.Write(rec.Body.Bytes())
	})
}

// Whoever sets KeyTTL counts with it: the issuer may say less, and never more.
func TestAKeyTTLThatIsSetBoundsMaxAge(t *testing.T) {
	for name, test := range map[string]struct {
		keyTTL time.Duration
		maxAge string
		want   time.Duration
	}{
		"more than KeyTTL":                  {time.Minute, "86400", time.Minute},
		"less than KeyTTL":                  {10 * time.Minute, "120", 2 * time.Minute},
		"the default, set":                  {keysTTL, "1800", keysTTL},
		"under the minute that is believed": {10 * time.Minute, "5", time.Minute},
		"the same with a KeyTTL under that": {20 * time.Second, "5", 20 * time.Second},
		"a KeyTTL over an hour":             {24 * time.Hour, "7200", 2 * time.Hour},
		"no max-age":                        {24 * time.Hour, "0", 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				keysMaxAge(issuer, test.maxAge)
				g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.KeyTTL = test.keyTTL })
				require.NoError(t, g.Warm(t.Context()))
				time.Sleep(test.want - 1)
				assert.Equal(t, m2mauth.KeysFresh, g.Keys().State)
				time.Sleep(time.Nanosecond)
				assert.Equal(t, m2mauth.KeysStale, g.Keys().State)
			})
		})
	}
}

func TestAWithdrawnKeyLivesNoLongerThanTheKeyTTLThatWasSet(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		keysMaxAge(issuer, "86400")
		g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.KeyTTL = time.Minute })
		kid := issuer.KeyIDs()[0]
		token := keysToken(issuer, kid)
		issuer.Rotate("ES384")
		keysAtOnce(t, g, token, 200)
		issuer.Withdraw(kid)
		withdrawn := time.Now()
		for time.Since(withdrawn) < time.Minute {
			keysAnswer(t.Context(), g, token)
			time.Sleep(time.Second)
		}
		keysAtOnce(t, g, token, 401)
	})
}

// An outage that ended says nothing of now: after a pause the first request waits,
// or a key that was withdrawn meanwhile would open it.
func TestAnOutageThatEndedSparesNoWait(t *testing.T) {
	for name, test := range map[string]struct {
		pause time.Duration
		want  int
	}{
		"half a minute after the last failure":   {30 * time.Second, 200},
		"a minute after":                         {time.Minute, 401},
		"most of an hour after":                  {55 * time.Minute, 401},
		"past KeyStaleFor, for want of any keys": {70 * time.Minute, 401},
	} {
		t.Run(name, func(t *testing.T) {
			keysBubble(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				g := keysGuard(t, issuer)
				kid := issuer.KeyIDs()[0]
				token := keysToken(issuer, kid)
				keysAtOnce(t, g, token, 200)
				keysDown(issuer)
				time.Sleep(keysTTL)
				keysAtOnce(t, g, token, 200, "in the outage")
				issuer.Intercept(nil)
				issuer.Rotate("ES384")
				issuer.Withdraw(kid)
				keysSlow(issuer, time.Second)
				time.Sleep(test.pause)
				waited := keysEventually(t, g, token, test.want)
				assert.Equal(t, test.want == 401, waited > 0)
			})
		})
	}
}

// A failure before the last success says nothing either.
func TestAFailureBeforeTheLastSuccessSparesNoWait(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer, func(c *m2mauth.Config) { c.KeyTTL = 10 * time.Second })
		kid := issuer.KeyIDs()[0]
		token := keysToken(issuer, kid)
		keysDown(issuer)
		keysAtOnce(t, g, token, 503)
		issuer.Intercept(nil)
		time.Sleep(time.Second)
		keysAtOnce(t, g, token, 200)
		issuer.Rotate("ES384")
		issuer.Withdraw(kid)
		time.Sleep(10 * time.Second)
		keysAtOnce(t, g, token, 401)
	})
}

// An issuer that asks for a pause gets it, though keys are old, and callers are
// served meanwhile; after it one request finds out.
func TestRetryAfterOfAnIssuerThatFailsWhileOldKeysServe(t *testing.T) {
	keysBubble(t, func(t *testing.T) {
		issuer := m2mauthtest.NewIssuer()
		g := keysGuard(t, issuer)
		token := keysToken(issuer, "")
		keysAtOnce(t, g, token, 200)
		keysHook(issuer, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		time.Sleep(keysTTL)
		for range 30 * 60 {
			keysAtOnce(t, g, token, 200)
			time.Sleep(time.Second)
		}
		assert.InDelta(t, 31, issuer.Fetches().JWKS, 1)
	})
}
