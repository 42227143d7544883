package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/m2mauth/m2mauth"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
)

func readRules(t *testing.T) table {
	t.Helper()
	rules, err := parseTable(exampleRows(t))
	require.NoError(t, err)
	return rules
}

// exampleRows returns the rows of gateway.yaml, one a line.
func exampleRows(t *testing.T) string {
	t.Helper()
	s, err := load("gateway.yaml", nil)
	require.NoError(t, err)
	var text strings.Builder
	for _, row := range s.Rules {
		text.WriteString(row.Row + "\n")
	}
	return text.String()
}

// parseTable reads a table from text, as a block of the file. Its error names every
// mistake, one a line.
func parseTable(text string) (table, error) {
	r := newReader("")
	var rows rowList
	rows.block(r, "rules", &yaml.Node{Kind: yaml.ScalarNode, Style: yaml.LiteralStyle, Value: text})
	var wrong []error
	t := readRows(rows, nil, nil, func(at *row, err error) { wrong = append(wrong, fmt.Errorf("line %d: %w", at.line, err)) })
	if len(rows) == 0 {
		wrong = append(wrong, errors.New("no row"))
	}
	return t, errors.Join(wrong...)
}

func TestFindTakesTheMoreLiteralRow(t *testing.T) {
	t.Parallel()
	text := exampleRows(t) + `
GET /             public
GET /v1.0/status  public
GET /v1/status    any-token
PUT /a/{b}        scopes a
PUT /a/{b}/       scopes a
PUT /a/{b}/c      scopes c
PUT /{rest...}    any-token
POST /shop:buy    scopes buy
POST /{what}      any-token
POST /v1.0        scopes status
PATCH /{page...}        public
PATCH /admin/{path...}  scopes admin
PATCH /o/{x}/           any-token
PATCH /o/adm            scopes admin
PATCH /p/{x}            any-token
PATCH /p/{x}/{rest...}  scopes more
LINK /{t}/info          any-token
LINK /end               any-token
LINK /end/              scopes end
LINK /own/info/{p...}   scopes own
COPY /files/{path...}             public
COPY /files/{customer}/{path...}  scopes files
COPY /docs/                       public
COPY /docs/{path...}              scopes docs
`
	rules, err := parseTable(text)
	require.NoError(t, err)

	for _, test := range []struct{ method, path, want string }{
		{"GET", "/", "GET /"},
		{"GET", "/healthz", "GET /healthz"},
		{"HEAD", "/products", "GET /products"},
		{"GET", "/products", "GET /products"},
		{"POST", "/products", "POST /products"},
		{"GET", "/products/12", "GET /products/{id}"},
		{"GET", "/products/export", "GET /products/export"},
		{"GET", "/products/exports", "GET /products/{id}"},
		{"DELETE", "/products/export", "DELETE /products/{id}"},
		{"GET", "/files/a", "GET /files/{path...}"},
		{"GET", "/files/a/b.txt", "GET /files/{path...}"},
		{"GET", "/files/", "GET /files/{path...}"},
		{"GET", "/v1.0/status", "GET /v1.0/status"},
		{"PUT", "/a/b", "PUT /a/{b}"},
		{"PUT", "/a/b/", "PUT /a/{b}/"},
		{"PUT", "/a/b/c", "PUT /a/{b}/c"},
		{"PUT", "/x/b/d", "PUT /{rest...}"},
		{"POST", "/shop:buy", "POST /shop:buy"},
		{"POST", "/shop:sell", "POST /{what}"},

		{"GET", "/files", "none"},
		{"GET", "/products/", "none"},
		{"GET", "/Products", "none"},
		{"GET", "/products/12/", "none"},
		{"TRACE", "/products", "none"},
		{"OPTIONS", "/products", "none"},
		{"DELETE", "/products", "none"},
		{"GET", "/nothing", "none"},

		{"GET", "/products/Export", "refused"},
		{"GET", "/products/EXPORT", "refused"},
		{"GET", "/products/export.json", "refused"},
		{"GET", "/products/export.tar.gz", "refused"},
		{"GET", "/products/exp%C3%B6rt", "refused"}, // some take accents off
		{"GET", "/products/caf%C3%A9", "refused"},
		{"DELETE", "/products/caf%C3%A9", "DELETE /products/{id}"}, // beside no other row
		{"GET", "/files/caf%C3%A9", "GET /files/{path...}"},
		{"POST", "/shop%3Abuy", "refused"},
		{"POST", "/%C5%BFhop:buy", "refused"}, // ſ folds to s
		{"POST", "/products.xml", "refused"},
		{"POST", "/V1.0", "refused"},
		{"PUT", "/a/b/C", "refused"},
		{"PUT", "/a/b/c/", "refused"},
		{"POST", "/v1.0.json", "refused"},
		{"POST", "/v1.0::$DATA", "refused"},
		{"POST", "/+products+", "refused"},
		{"POST", "/products+", "refused"},

		{"PATCH", "/admin/", "refused"}, // {path...} is not nothing to some, and to them this is a page
		{"PATCH", "/admin/x", "PATCH /admin/{path...}"},
		{"PATCH", "/administrator", "PATCH /{page...}"},
		{"PATCH", "/admin", "refused"}, // to many routers it is /admin/
		{"PATCH", "/Admin", "refused"},
		{"PATCH", "/admin.json", "refused"},
		{"PATCH", "/Admin/", "refused"},
		{"PATCH", "/Admin/x", "refused"},
		{"PATCH", "/adm%C4%B1n", "refused"},       // ı, in upper case I
		{"PATCH", "/adm%C4%B0n", "refused"},       // İ, in lower case i and a dot above
		{"PATCH", "/%EF%BD%81dmin", "refused"},    // ａ, wide
		{"PATCH", "/admin%CC%81", "refused"},      // a mark, which some take off
		{"PATCH", "/%F0%9D%90%9Admin", "refused"}, // a bold a
		{"PATCH", "/adm%C4%B1n/", "refused"},
		{"PATCH", "/adm%C4%B1n/x", "refused"},
		{"PATCH", "/%D1%8F/x", "refused"},
		{"PATCH", "/pages/%D1%8F", "PATCH /{page...}"},
		{"PATCH", "/admin/%D1%8F", "PATCH /admin/{path...}"},
		{"PATCH", "/o/a/", "PATCH /o/{x}/"},
		{"PATCH", "/o/adm/", "refused"},
		{"PATCH", "/o/ADM/", "refused"},
		{"PATCH", "/p/7", "PATCH /p/{x}"},
		{"PATCH", "/p/7/8", "PATCH /p/{x}/{rest...}"},
		{"LINK", "/acme/info", "LINK /{t}/info"},
		{"LINK", "/own/info", "refused"},
		{"LINK", "/end", "LINK /end"},
		{"LINK", "/end/", "LINK /end/"},
		{"COPY", "/files/b", "refused"}, // to some, {path...} of the second row may be nothing
		{"COPY", "/files/b/", "refused"},
		{"COPY", "/files/b/c", "COPY /files/{customer}/{path...}"},
		{"COPY", "/files/", "refused"}, // and {customer} as well
		{"COPY", "/docs/", "COPY /docs/"},
		{"COPY", "/docs/a", "COPY /docs/{path...}"},
	} {
		path, err := parseTarget(test.path)
		require.NoError(t, err, test.path)
		row, err := rules.find(test.method, path)
		switch {
		case err != nil:
			assert.Nil(t, row)
			assert.Equal(t, test.want, "refused", "%s %s: %v", test.method, test.path, err)
		case row == nil:
			assert.Equal(t, test.want, "none", "%s %s", test.method, test.path)
		default:
			assert.Equal(t, test.want, row.String(), "%s %s", test.method, test.path)
		}
	}
}

func TestMistakesInTheTableAreNamedOneALine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text string
		mistakes   []string
	}{
		{"nothing", "\n# only a comment\n", []string{"no row"}},
		{"too short", "GET /a", []string{"line 1: a row is"}},
		{"lower-case method", "get /a public", []string{"line 1: \"get\" is no method"}},
		{"HEAD", "HEAD /a public", []string{"line 1: HEAD needs no row"}},
		{"no slash", "GET a public", []string{"line 1: the request target must be a path"}},
		{"empty segment", "GET /a//b public", []string{"line 1: the path has an empty segment"}},
		{"dots", "GET /a/../b public", []string{"line 1"}},
		{"encoded", "GET /a%20b public", []string{"no percent-encoding"}},
		{"semicolon", "GET /a;b public", []string{"semicolon"}},
		{"query", "GET /a?b public", []string{"line 1"}},
		{"half a wildcard", "GET /a{b} public", []string{"no wildcard"}},
		{"rest in the middle", "GET /{a...}/b public", []string{"only at the end"}},
		{"unknown demand", "GET /a publik", []string{`"publik" is no demand`}},
		{"scopes without a scope", "GET /a scopes", []string{"at least one scope"}},
		{"any-scope without a scope", "GET /a any-scope", []string{"at least one scope"}},
		{"public with a scope", "GET /a public read", []string{"nothing may follow public"}},
		{"any-token with a scope", "GET /a any-token read", []string{"nothing may follow any-token"}},
		{"a scope that cannot be", "GET /a scopes a\x00b", []string{"cannot be a scope"}},
		{"a comment behind scopes", "GET /a scopes admin # or write", []string{`line 1: "#" cannot be a scope: a comment has a line of its own`}},
		{"a comment behind any-scope", "\nGET /a any-scope admin #or write", []string{`line 2: "#or" cannot be a scope`}},
		{"scopes with a comma between", "GET /a public\nPUT /a scopes read,write", []string{`line 2: "read,write" cannot be a scope: scopes have spaces between them, and no commas`}},
		{"scopes with a comma and a space between", "GET /a any-scope read, write", []string{`line 1: "read," cannot be a scope`}},
		{"twice the same", "GET /a public\nGET /a any-token", []string{"line 2: GET /a and GET /a (line 1)"}},
		{"twice with other names", "GET /{a} public\nGET /{b} any-token", []string{"line 2"}},
		{"twice to the end", "GET /{a...} public\nGET /{b...} any-token", []string{"line 2"}},
		{"crossing", "GET /a/{b} public\nGET /{c}/d any-token", []string{"neither is the more literal"}},
		{"crossing with a rest", "GET /{a}/b public\nGET /a/{c...} any-token", []string{"neither is the more literal"}},
		{"several", "GET\nGET /a publik", []string{"line 1", "line 2"}},
	} {
		_, err := parseTable(test.text)
		require.Error(t, err, test.name)
		lines := strings.Split(err.Error(), "\n")
		require.Len(t, lines, len(test.mistakes), "%s: %v", test.name, err)
		for i, part := range test.mistakes {
			assert.Contains(t, lines[i], part, test.name)
		}
	}
}

func TestRowsThatDoNotMeetAreNoConflict(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"GET /a public\nPOST /a any-token",
		"GET /a public\nGET /a/ any-token",
		"GET /a/{b} public\nGET /a/ any-token",
		"GET /a/ public\nGET /a/{b} any-token",
		"GET /a/{b...} public\nGET /a/{b} any-token",
		"GET /a/{b}/c public\nGET /d/{b}/c any-token",
		"GET /a/{b} public\nGET /a/{b}/{c} any-token",
	} {
		_, err := parseTable(text)
		assert.NoError(t, err, text)
	}
}

func TestANumberSignBeginsACommentOnlyWhereALineBegins(t *testing.T) {
	t.Parallel()
	rules, err := parseTable("# a comment\n\t# one more\nGET /a#b public\n")
	assert.ErrorContains(t, err, "line 3")
	assert.Empty(t, rules)
	rules, err = parseTable("# a comment\n\t# one more\nGET /a scopes a#b\n")
	require.NoError(t, err)
	require.Len(t, rules, 1)
	assert.Equal(t, m2mauth.AllScopes("a#b").String(), rules[0].rule.String())
}

func TestRowsOfOtherPathsCostNoMemory(t *testing.T) {
	allocations := func(others int) float64 {
		var text strings.Builder
		text.WriteString("GET /products/{id} scopes read\n")
		for n := range others {
			fmt.Fprintf(&text, "GET /service%d/{id} scopes read%d\n", n, n)
		}
		rules, err := parseTable(text.String())
		require.NoError(t, err)
		return testing.AllocsPerRun(100, func() { _, _ = rules.find("GET", []string{"products", "1"}) })
	}
	assert.InDelta(t, allocations(1), allocations(500), 50, "what other goroutines do counts too, such as those that an earlier test is ending")
}
