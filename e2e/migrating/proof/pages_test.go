package proof

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/e2e/migrating/logto/after"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// holds holds a page to what a run has found out: the section is to be this.
func (f findings) holds(t *testing.T, l library) {
	t.Helper()
	page, err := os.ReadFile("../../../docs/migrating/" + l.page)
	require.NoError(t, err)
	_, section, found := strings.Cut(strings.ReplaceAll(string(page), "\r\n", "\n"), "\n## "+l.heading+"\n\n")
	require.True(t, found, "%s has no heading %q", l.page, l.heading)
	section, _, _ = strings.Cut(section, "\n## ")
	assert.Equal(t, f.section(), section, "docs/migrating/%s: the section is to be:\n%s", l.page, f.section())
	if testing.Short() { // with fewer requests
		return
	}
	index, err := os.ReadFile("../../../docs/migrating/README.md")
	require.NoError(t, err)
	row := "\n| " + l.name + " " + f.counts + "\n"
	assert.True(t, strings.Contains(strings.ReplaceAll(string(index), "\r\n", "\n"), row), "docs/migrating/README.md lacks the row%s", row)
}

// section says what becomes of requests with the library's middleware replaced, in the
// words of the families.
func (f findings) section() string {
	var b strings.Builder
	b.WriteString("| accepted before, rejected now | still accepted with |\n|---|---|\n")
	f.rows(&b, verdict{old: false, new: true})
	b.WriteString("\nThese are rejected now too, and no setting accepts them:\n\n")
	for _, part := range []string{theRequest, theSignature, theHeader, theClaims, theScopes} {
		var words []string
		for _, family := range unusual {
			if family.part == part && family.keep == nil && f.verdicts[family.words] == (verdict{old: false, new: true}) {
				words = append(words, family.words)
			}
		}
		if len(words) > 0 {
			b.WriteString(wrapped("- " + part + ": " + strings.Join(words, "; ")))
		}
	}
	b.WriteString("\n| rejected before, accepted now | still rejected with |\n|---|---|\n")
	f.rows(&b, verdict{old: true, new: false})
	b.WriteString("\n| status before | status now | of what both reject |\n|---|---|---|\n")
	for _, change := range slices.SortedFunc(maps.Keys(f.statuses), change.compare) {
		fmt.Fprintf(&b, "| %d | %d | %s |\n", change.old, change.now, strings.Join(f.statuses[change], "; "))
	}
	return b.String()
}

func (f findings) rows(b *strings.Builder, v verdict) {
	for _, family := range unusual {
		switch {
		case f.verdicts[family.words] != v:
		case family.keep != nil:
			fmt.Fprintf(b, "| %s | %s |\n", family.words, family.keepWords)
		case v.old:
			fmt.Fprintf(b, "| %s | none |\n", family.words)
		}
	}
}

// wrapped breaks a line of a list.
func wrapped(line string) string {
	const width = 140
	var b strings.Builder
	at := 0
	for i, word := range strings.Split(line, " ") {
		switch {
		case i == 0:
		case at+1+len(word) > width:
			b.WriteString("\n  ")
			at = 2
		default:
			b.WriteString(" ")
			at++
		}
		b.WriteString(word)
		at += len(word)
	}
	return b.String() + "\n"
}

// The settings that the pages name do what the pages say: with each, m2mauth decides
// otherwise about all requests of the family.
func TestSettingsKeepTheOldReading(t *testing.T) {
	tried := 0
	for _, f := range unusual {
		if f.keep == nil {
			continue
		}
		tried++
		t.Run(f.words, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer := m2mauthtest.NewIssuer()
				second := issuer.Stage("ES256")
				without := newServer(t, after.API(newGuard(t, issuer, nil)))
				with := newServer(t, after.API(newGuard(t, issuer, f.keep)))
				for n := range 8 * len(f.changes) {
					d := newDraft(issuer, second, rand.New(rand.NewPCG(18, uint64(n))))
					f.changes[n%len(f.changes)](d)
					request := d.write(n)
					before, _ := without.send(t, request, d.method)
					kept, _ := with.send(t, request, d.method)
					require.NotEqual(t, refuses(before), refuses(kept), "%d without the setting, %d with it", before, kept)
				}
			})
		})
	}
	require.Greater(t, tried, 10)
}
