// Package pages_test holds the README and the pages in docs to the code: what they
// show compiles, runs and parses, their tables miss nothing, and their links lead
// somewhere.
package pages_test

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// root is the folder of the repository.
const root = "../../.."

// page is a Markdown file.
type page struct {
	name     string // as seen from the root, with slashes
	text     string
	blocks   []block
	headings map[string]bool // as anchors
	links    []link
}

// block is a fenced block of code.
type block struct {
	page     *page
	line     int // of the first line within the fence
	language string
	mark     string // the comment in the line before the fence, without <!-- and -->
	text     string
}

func (b block) where() string { return fmt.Sprintf("%s:%d", b.page.name, b.line) }

// firstLine is how a block is called in a list.
func (b block) firstLine() string {
	line, _, _ := strings.Cut(b.text, "\n")
	return b.page.name + ": " + strings.TrimSpace(line)
}

type link struct {
	line   int
	target string
}

// documentation returns the README and the pages in docs.
func documentation(t *testing.T) []*page {
	t.Helper()
	var found []*page
	for _, p := range allPages(t) {
		if p.name == "README.md" || path.Dir(p.name) == "docs" {
			found = append(found, p)
		}
	}
	require.Greater(t, len(found), 10)
	return found
}

// allPages returns all Markdown files of the repository.
func allPages(t *testing.T) (found []*page) {
	t.Helper()
	for _, name := range filesWith(t, ".md") {
		found = append(found, readPage(t, name))
	}
	return found
}

// filesWith returns the files of the repository whose names end so, but for those
// that are data of tests. Where the core is looked at alone, as in the module cache,
// there are fewer than the pages need.
func filesWith(t *testing.T, extension string) (found []string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, "examples")); err != nil {
		t.Skip("the examples are not here: this is not the repository")
	}
	require.NoError(t, filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{"testdata", "node_modules", ".git"}, entry.Name()) {
			return filepath.SkipDir
		}
		if !entry.IsDir() && filepath.Ext(name) == extension {
			relative, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			found = append(found, filepath.ToSlash(relative))
		}
		return nil
	}))
	return found
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	require.NoError(t, err)
	return strings.ReplaceAll(string(data), "\r\n", "\n")
}

var (
	fence     = regexp.MustCompile("^ *(`{3,})([a-z]*)$")
	comment   = regexp.MustCompile(`^ *<!-- (.+) -->$`)
	heading   = regexp.MustCompile(`^#{1,6} +(.+?) *$`)
	codeInRow = regexp.MustCompile("`[^`]*`")
	linkText  = regexp.MustCompile(`\]\(([^()\s]*)\)`)
	source    = regexp.MustCompile(`\bsrc(?:set)?="([^"]*)"`)
)

func readPage(t *testing.T, name string) *page {
	t.Helper()
	p := &page{name: name, text: readFile(t, name), headings: make(map[string]bool)}
	var inside *block
	mark, opened := "", ""
	for n, line := range strings.Split(p.text, "\n") {
		f := fence.FindStringSubmatch(line)
		switch {
		case inside != nil && f != nil && f[1] == opened && f[2] == "":
			p.blocks = append(p.blocks, *inside)
			inside = nil
		case inside != nil:
			inside.text += line + "\n"
		case f != nil:
			opened = f[1]
			inside = &block{page: p, line: n + 2, language: f[2], mark: mark}
		default:
			if h := heading.FindStringSubmatch(line); h != nil {
				p.addHeading(h[1])
			}
			line = codeInRow.ReplaceAllString(line, "")
			for _, found := range append(linkText.FindAllStringSubmatch(line, -1), source.FindAllStringSubmatch(line, -1)...) {
				p.links = append(p.links, link{n + 1, found[1]})
			}
		}
		mark = ""
		if c := comment.FindStringSubmatch(line); c != nil {
			mark = c[1]
		}
	}
	require.Nil(t, inside, "%s: a block of code has no end", name)
	return p
}

var notInAnchors = regexp.MustCompile(`[^\p{L}\p{M}\p{N}\p{Pc} -]`)

// addHeading gives a heading the anchor that GitHub does: lower case, without
// punctuation, dashes for spaces, and a number from the second of one name on.
func (p *page) addHeading(text string) {
	text = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(text, "$1") // of a link its text
	anchor := strings.ReplaceAll(notInAnchors.ReplaceAllString(strings.ToLower(text), ""), " ", "-")
	unique := anchor
	for n := 1; p.headings[unique]; n++ {
		unique = fmt.Sprintf("%s-%d", anchor, n)
	}
	p.headings[unique] = true
}

// blocksIn returns the blocks of a language.
func blocksIn(pages []*page, language string) (found []block) {
	for _, p := range pages {
		for _, b := range p.blocks {
			if b.language == language {
				found = append(found, b)
			}
		}
	}
	return found
}
