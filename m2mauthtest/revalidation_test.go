package m2mauthtest_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// A real Logto server looks at Cache-Control before it looks at If-None-Match.
func TestNoCacheIsAnsweredInFull(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	for _, url := range []string{issuer.JWKSURL(), issuer.URL() + "/.well-known/openid-configuration"} {
		first, whole := do(t, issuer, "GET", url, nil, "")
		tag := first.Header.Get("ETag")
		require.NotEmpty(t, tag)
		for directives, want := range map[string]int{
			"":                       http.StatusNotModified,
			"max-age=0":              http.StatusNotModified,
			"max-age=0, no-store":    http.StatusNotModified,
			"x-no-cache, no-cache=x": http.StatusNotModified,
			"no-cache":               http.StatusOK,
			"max-age=0,no-cache":     http.StatusOK,
			" no-cache , max-age=0":  http.StatusOK,
		} {
			resp, body := do(t, issuer, "GET", url, http.Header{"If-None-Match": {tag}, "Cache-Control": {directives}}, "")
			assert.Equal(t, want, resp.StatusCode, directives)
			if want == http.StatusOK {
				assert.Equal(t, whole, body, directives)
			} else {
				assert.Empty(t, body, directives)
			}
		}
	}
}
