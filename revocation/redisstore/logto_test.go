package redisstore_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/redisserver"
	"github.com/m2mauth/m2mauth/revocation"
	"github.com/m2mauth/m2mauth/revocation/redisstore"
)

// What Logto tells one replica, all know. While Redis is away Logto is told to send it
// again, and what it then sends counts.
func TestAWebhookReachesEveryReplica(t *testing.T) {
	t.Parallel()
	const signingKey = "0123456789abcdefghijABCDEFGHIJ01"
	server := redisserver.Start(t)
	var lists []*revocation.List
	for n := range 3 {
		store := newStore(t, redisstore.Config{Address: server.Addr})
		if n == 0 {
			require.NoError(t, revocation.Init(t.Context(), store))
		}
		list, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour, Store: store, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		lists = append(lists, list)
		go list.Run(t.Context())
	}
	webhook, err := revocation.LogtoWebhook(lists[0], signingKey, revocation.LogtoOptions{Issuers: []string{"https://your.logto.endpoint/oidc"}})
	require.NoError(t, err)
	created := time.Now().UTC().Format(time.RFC3339Nano)
	deliver := func(members string) int {
		body := fmt.Sprintf(`{"createdAt":%q,%s}`, created, members)
		mac := hmac.New(sha256.New, []byte(signingKey))
		mac.Write([]byte(body))
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Logto-Signature-Sha-256", hex.EncodeToString(mac.Sum(nil)))
		w := httptest.NewRecorder()
		webhook.ServeHTTP(w, r)
		return w.Code
	}
	delivered := func(members string) { // at last: a disk may be slow
		t.Helper()
		assert.Eventually(t, func() bool { return deliver(members) == 204 }, time.Minute, 10*time.Millisecond)
	}
	everywhere := func(entries int) {
		t.Helper()
		for _, list := range lists {
			assert.Eventually(t, func() bool { return len(list.All()) == entries && list.Ready(t.Context()) == nil }, time.Minute, 10*time.Millisecond)
		}
	}
	everywhere(0)

	delivered(`"event":"User.Deleted","data":{"id":"u1"}`)
	everywhere(1)

	members := make([]string, 1200)
	for i := range members {
		members[i] = fmt.Sprintf("%q", fmt.Sprintf("%012d", i))
	}
	delivered(`"event":"Organization.Membership.Updated","organizationId":"o1","removedUserIds":[` + strings.Join(members, ",") + `]`)
	everywhere(1201)

	server.Kill()
	assert.Equal(t, 503, deliver(`"event":"User.Deleted","data":{"id":"u2"}`))
	server.Run()
	delivered(`"event":"User.Deleted","data":{"id":"u2"}`)
	everywhere(1202)
}
