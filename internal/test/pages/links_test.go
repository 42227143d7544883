package pages_test

import (
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Links within the repository lead to a file, and to a heading of it where they
// have an anchor. Links to elsewhere are https URLs; nobody is asked.
func TestEveryLinkLeadsSomewhere(t *testing.T) {
	t.Parallel()
	pages := make(map[string]*page)
	for _, p := range allPages(t) {
		pages[p.name] = p
	}
	files, anchors, elsewhere := 0, 0, 0
	for _, p := range pages {
		for _, l := range p.links {
			u, err := url.Parse(l.target)
			if !assert.NoError(t, err, "%s:%d", p.name, l.line) {
				continue
			}
			if u.Scheme != "" {
				elsewhere++
				assert.Equal(t, "https", u.Scheme, "%s:%d: %s", p.name, l.line, l.target)
				assert.NotEmpty(t, u.Host, "%s:%d: %s", p.name, l.line, l.target)
				continue
			}
			target := p.name
			if u.Path != "" {
				target = path.Join(path.Dir(p.name), u.Path)
				files++
				_, err := os.Stat(filepath.Join(root, filepath.FromSlash(target)))
				assert.NoError(t, err, "%s:%d: %s: no such file", p.name, l.line, l.target)
			}
			if u.Fragment != "" {
				anchors++
				if there := pages[target]; assert.NotNil(t, there, "%s:%d: %s: not a page", p.name, l.line, l.target) {
					assert.True(t, there.headings[u.Fragment], "%s:%d: %s: no such heading", p.name, l.line, l.target)
				}
			}
		}
	}
	require.NotZero(t, anchors)
	t.Logf("%d pages: %d links to files, %d of them or in the page to a heading, %d to elsewhere", len(pages), files, anchors, elsewhere)
}

var namedInCode = regexp.MustCompile(`\bdocs/[a-z0-9-]+\.md(?:#[a-z0-9-]+)?`)

// Comments and errors name pages too.
func TestPagesThatCodeNamesAreThere(t *testing.T) {
	t.Parallel()
	named := 0
	for _, name := range filesWith(t, ".go") {
		for _, found := range namedInCode.FindAllString(readFile(t, name), -1) {
			file, anchor, _ := strings.Cut(found, "#")
			named++
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(file))); !assert.NoError(t, err, name) {
				continue
			}
			if anchor != "" {
				assert.True(t, readPage(t, file).headings[anchor], "%s: %s: no such heading", name, found)
			}
		}
	}
	require.NotZero(t, named)
}

// A page that nothing links to is found by nobody.
func TestEveryPageIsLinkedFromTheReadmeOrAnother(t *testing.T) {
	t.Parallel()
	linked := make(map[string]bool)
	all := allPages(t)
	for _, p := range all {
		for _, l := range p.links {
			file, _, _ := strings.Cut(l.target, "#")
			if target := path.Join(path.Dir(p.name), file); file != "" && target != p.name {
				linked[target] = true
			}
		}
	}
	for _, p := range all {
		assert.True(t, linked[p.name] || p.name == "README.md", "%s: no page links to it", p.name)
	}
}

// Whoever looks for a page begins at the README.
func TestTheReadmeLinksEveryPageInDocs(t *testing.T) {
	t.Parallel()
	linked := make(map[string]bool)
	for _, l := range readPage(t, "README.md").links {
		file, _, _ := strings.Cut(l.target, "#")
		linked[file] = true
	}
	for _, p := range documentation(t) {
		assert.True(t, linked[p.name] || p.name == "README.md", "README.md has no link to %s", p.name)
	}
}
