package doctor_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/cmd/m2mauth/internal/doctor"
)

func TestWhatAStrangerSendsIsCutAndCannotRewriteTheTerminal(t *testing.T) {
	t.Parallel()
	assert.Equal(t, `a\x1b[2J\r\nb\u202e\x00ü`, doctor.Shown("a\x1b[2J\r\nb\u202e\x00ü"))
	long := doctor.Shown(strings.Repeat("ü", 500))
	assert.Equal(t, strings.Repeat("ü", 100)+"…", long)
	assert.Equal(t, strings.Repeat("a", 199)+"…", doctor.Shown(strings.Repeat("a", 199)+"üü"), "no half character")

	var r doctor.Report
	r.Fail("x", "a\nb\x1b", "c\td\x7f")
	assert.Equal(t, doctor.Check{ID: "x", Status: doctor.Fail, Detail: `a\nb\x1b`, Remedy: `c\td\x7f`}, r.Checks[0])
}

func TestAReportIsATableForPeopleAndJSONForScripts(t *testing.T) {
	t.Parallel()
	var r doctor.Report
	r.Pass("issuer.name", "found")
	r.Warn("issuer.tls", "in 2 days", "renew <it>")
	r.Skip("issuer.keys", "not reached")
	assert.False(t, r.Failed())
	r.Fail("app", "refused", "")
	assert.True(t, r.Failed())

	var table, script strings.Builder
	require.NoError(t, r.WriteTable(&table))
	assert.Equal(t, strings.Join([]string{
		"pass  issuer.name  found",
		"warn  issuer.tls   in 2 days",
		"                   > renew <it>",
		"skip  issuer.keys  not reached",
		"fail  app          refused",
		"",
		"1 passed, 1 failed, 1 to look at, 1 not checked",
		"",
	}, "\n"), table.String())

	require.NoError(t, r.WriteJSON(&script))
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(script.String()), &got))
	assert.Equal(t, false, got["ok"])
	assert.Equal(t, map[string]any{"check": "issuer.tls", "status": "warn", "detail": "in 2 days", "remedy": "renew <it>"}, got["checks"].([]any)[1])

	script.Reset()
	require.NoError(t, new(doctor.Report).WriteJSON(&script))
	assert.JSONEq(t, `{"ok":true,"checks":[]}`, script.String())
}
