package revocation_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whatever comes, nothing panics. Without the right signature it changes nothing and gets
// 4xx. With it, it gets 204 or 5xx, and entries that are whole and as many as a list can
// have; sent again, it changes nothing.
func FuzzLogtoWebhook(f *testing.F) {
	for _, body := range []string{
		`{"event":"User.Deleted","createdAt":"2026-11-30T12:00:00.000Z","data":{"id":"u1"}}`,
		`{"event":"User.SuspensionStatus.Updated","createdAt":"2026-11-30T12:00:00.000Z","data":{"id":"u1","isSuspended":true}}`,
		`{"event":"Organization.Membership.Updated","createdAt":"2026-11-30T12:00:00.000Z","organizationId":"o1","removedUserIds":["u1","u2"],"removedApplicationIds":["a1"]}`,
		`{"event":"Organization.Membership.Updated","method":"PUT","organizationId":"o1"}`,
		`{"event":"Organization.Membership.Updated","method":"DELETE","organizationId":"o1","params":{"userId":"u1"}}`,
		`{"event":"Organization.Deleted","params":{"id":"o1"},"createdAt":"9999-12-31T23:59:59Z"}`,
		`{"event":"Role.Scopes.Updated","method":"DELETE","createdAt":"0001-01-01T00:00:00Z"}`,
		`{"event":"User.Deleted","path":"/fake-path/:id","data":{"result":"success"}}`,
		`{"event":"User.Deleted","data":[{"id":"u1"}]}`, `{"event":"User.Deleted","data":{"id":"\u0000"}}`, `{}`, `[]`, ``,
	} {
		f.Add([]byte(body), sign(signingKey, body))
		f.Add([]byte(body), sign("another key", body))
	}
	f.Fuzz(func(t *testing.T, body []byte, signature string) {
		h := newHook(t)
		right := sign(signingKey, string(body))
		code := h.send(string(body), func(r *http.Request) { r.Header["Logto-Signature-Sha-256"] = []string{signature} })
		if !strings.EqualFold(signature, right) {
			assert.Equal(t, http.StatusForbidden, code)
			assert.Empty(t, h.list.All())
		}
		code = h.send(string(body))
		require.Contains(t, []int{204, 500}, code)
		held := h.held(t)
		for _, e := range h.list.All() {
			assert.Empty(t, e.Token)
			assert.NotEmpty(t, e.Client+e.Subject+e.Organization)
			assert.False(t, e.All)
		}
		if code == 500 {
			assert.NotEmpty(t, h.log(), "somebody must hear of it")
		}
		assert.Subset(t, h.held(t), held)
	})
}
