package openapiauth_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/adapters/openapiauth"
)

// No $ref is followed out of the document, wherever it stands: neither by us nor by the
// library. The files are there, and the server answers.
func TestNothingOutsideTheDocumentIsOpened(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = fmt.Fprint(w, `{"get": {"security": []}, "type": "http", "scheme": "bearer", "name": "x", "in": "path"}`)
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "item.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"get": {"security": []}}`), 0o600))

	for _, target := range []string{server.URL, server.URL + "/x#/a", strings.TrimPrefix(server.URL, "http:"), "file://" + file, file, "item.json", "item.json#/x", ""} {
		for _, body := range []string{
			"paths: {/a: {$ref: %s}}",
			"paths: {/a: {parameters: [{$ref: %s}], get: {security: []}}}",
			"paths: {/a: {get: {parameters: [{$ref: %s}], security: []}}}",
			"components: {pathItems: {i: {$ref: %s}}}\npaths: {/a: {$ref: '#/components/pathItems/i'}}",
			"components: {parameters: {p: {$ref: %s}}}\npaths: {/a: {parameters: [{$ref: '#/components/parameters/p'}], get: {security: []}}}",
			"components: {securitySchemes: {s: {$ref: %s}}}\npaths: {/a: {get: {security: [{s: []}]}}}",
		} {
			_, err := openapiauth.Rules([]byte("openapi: 3.1.0\n"+fmt.Sprintf(body, fmt.Sprintf("%q", target))+"\n"), options{AnyToken: []string{"GET /a"}})
			assert.ErrorContains(t, err, fmt.Sprintf("$ref: %q is not followed", target), body)
		}
		// What rules do not need is not read at all.
		for _, body := range []string{
			"components: {schemas: {s: {$ref: %s}}}",
			"components: {responses: {r: {$ref: %[1]s}}, examples: {e: {$ref: %[1]s}}, callbacks: {c: {$ref: %[1]s}}}",
			"webhooks: {w: {$ref: %s}}",
			"info: {$ref: %s}",
			"x-a: {$ref: %s}",
			"components: {links: {l: {$ref: %s}}}",
		} {
			table, err := openapiauth.Rules([]byte("openapi: 3.1.0\npaths: {/a: {get: {security: [], requestBody: {$ref: 'item.json'}}}}\n"+fmt.Sprintf(body, fmt.Sprintf("%q", target))+"\n"), options{})
			require.NoError(t, err, body)
			assert.Equal(t, "GET /a → public", show(table))
		}
	}
	assert.Zero(t, asked.Load())
}

func TestDocumentsThatAreNone(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                              "not YAML or JSON: yaml: no documents in stream",
		"# nothing":                     "not YAML or JSON: yaml: no documents in stream",
		"null":                          "not an object",
		"[]":                            "not an object",
		"text":                          "not an object",
		"{":                             "not YAML or JSON: ",
		"a: b: c":                       "line 1: not YAML or JSON: ",
		"openapi: 3.1.0\n\tpaths: {}":   "line 2: not YAML or JSON: ",
		"openapi: \xff":                 "the document is not UTF-8",
		"openapi: 3.1.0\n---\npaths: x": "not YAML or JSON: ",
		"a: *nothing":                   "not YAML or JSON: ",
		"!!binary x: y":                 `the name "x" is not a string`,
		"paths: {/a: !!binary aGk=}":    "not an object",
		"? [a]\n: b":                    "a merge (<<) or a name that is not a string",
		"1: a":                          `the name "1" is not a string: put it in quotation marks`,
		`{"openapi":"3.1.0"} trailing`:  "not YAML or JSON: ",
	} {
		table, err := openapiauth.Rules([]byte(text), options{})
		assert.Nil(t, table, text)
		assert.ErrorContains(t, err, want, text)
	}
}

// The YAML reader ends a comment at these characters, as YAML 1.1 did. YAML 1.2 and
// editors do not: what they show as a comment would be security.
func TestLinesEndAsInYAML12(t *testing.T) {
	t.Parallel()
	for _, c := range []string{"\u0085", "\u2028", "\u2029"} {
		_, err := openapiauth.Rules(document("paths:\n  /a:\n    get:\n      # open?"+c+"      security: []\nsecurity: [{oauth: [read]}]"), options{})
		require.EqualError(t, err, fmt.Sprintf("m2mauth: OpenAPI: line 6: %U, which ends a line in YAML 1.1 and not in 1.2: write it as \\u%04[1]X in quotation marks, or leave it out", []rune(c)[0]))
		table, err := openapiauth.Rules([]byte(`{"openapi": "3.1.0", "info": "`+c+`", "paths": {"/a": {"get": {"security": []}}}}`), options{})
		require.NoError(t, err, "JSON has no such lines")
		assert.Equal(t, "GET /a → public", show(table))
	}
}

// JSON is read as JSON: with its surrogate pairs, and not with the last of two members.
func TestJSON(t *testing.T) {
	t.Parallel()
	const text = `{
  "openapi": "3.0.3",
  "info": {"title": "\ud83d\ude00 Shop", "version": "1", "x": [1, 2.5, true, null, {"a": []}]},
  "paths": {
    "/a": {
      "get": {
        "operationId": "\u0061",
        "security": [{"oidc": ["read"]}]
      }
    }
  },
  "components": {"securitySchemes": {"oidc": {"type": "openIdConnect", "openIdConnectUrl": "https://issuer.example"}}}
}`
	table, err := openapiauth.Rules([]byte(text), options{})
	require.NoError(t, err)
	assert.Equal(t, `GET /a → AllScopes("read")`, show(table))
	assert.Equal(t, 6, table.Rows()[0].Line)
	assert.Equal(t, "a", table.Rows()[0].OperationID)

	for _, separator := range []string{"", " ", "\u0085"} { // with U+0085 the library reads JSON as encoding/json does
		twice := strings.Replace(text, `"security": [{"oidc": ["read"]}]`, `"security": [{"oidc": ["read"]}], "security": [], "description": "`+separator+`"`, 1)
		require.NotEqual(t, text, twice)
		_, err = openapiauth.Rules([]byte(twice), options{})
		require.EqualError(t, err, `m2mauth: OpenAPI: line 8: GET /a: "security" occurs twice`)

		folded := strings.Replace(text, `"security": [{"oidc": ["read"]}]`, `"security": [{"oidc": ["read"]}], "Security": [], "description": "`+separator+`"`, 1)
		_, err = openapiauth.Rules([]byte(folded), options{})
		require.EqualError(t, err, `m2mauth: OpenAPI: line 8: GET /a: "Security" is no field of an operation of OpenAPI 3.0 or 3.1`)
	}
}

// The text of a document cannot break an error's lines.
func TestErrorsAreLines(t *testing.T) {
	t.Parallel()
	_, err := openapiauth.Rules([]byte(`{"openapi": "3.1.0", "paths": {"/a\nm2mauth: fine\u001b[31m\u202e": {"get": {}}, "/`+strings.Repeat("b", 1000)+`": {"get": {}}}}`), options{})
	require.Error(t, err)
	for line := range strings.Lines(err.Error()) {
		assert.True(t, strings.HasPrefix(line, "m2mauth: OpenAPI: line 1: "), line)
		assert.Less(t, len(line), 800)
		assert.NotContains(t, line, "\u001b")
		assert.NotContains(t, line, "\u202e")
	}
}

func TestSizeIsBounded(t *testing.T) {
	t.Parallel()
	document := func(size int) []byte {
		const start = "openapi: 3.1.0\npaths: {/a: {get: {security: []}}}\n#"
		return []byte(start + strings.Repeat("x", size-len(start)))
	}
	_, err := openapiauth.Rules(document(2<<20), options{})
	require.NoError(t, err)
	_, err = openapiauth.Rules(document(2<<20+1), options{})
	require.EqualError(t, err, "m2mauth: OpenAPI: the document has 2097153 bytes; at most 2097152 are read: leave out schemas and examples, which rules do not need")
}

func TestDepthIsBounded(t *testing.T) {
	t.Parallel()
	for name, nested := range map[string]func(int) string{
		"flow":      func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) },
		"flow maps": func(n int) string { return strings.Repeat("{a: ", n) + strings.Repeat("}", n) },
		"block": func(n int) string {
			var b strings.Builder
			for i := range n {
				b.WriteString("\n" + strings.Repeat(" ", i+1) + "a:")
			}
			return b.String()
		},
	} {
		_, err := openapiauth.Rules([]byte("openapi: 3.1.0\npaths: {/a: {get: {security: []}}}\nx-a: "+nested(90)+"\n"), options{})
		require.NoError(t, err, name)
		_, err = openapiauth.Rules([]byte("openapi: 3.1.0\npaths: {/a: {get: {security: []}}}\nx-a: "+nested(101)+"\n"), options{})
		require.ErrorContains(t, err, "exceeded max depth of 100", name)
	}
	for n, fine := range map[int]bool{90: true, 101: false, 100_000: false} {
		document := []byte(`{"openapi": "3.1.0", "paths": {"/a": {"get": {"security": []}}}, "x-a": ` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}")
		require.Equal(t, n < 10_000, json.Valid(document))
		_, err := openapiauth.Rules(document, options{})
		if fine {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, "not YAML or JSON: ")
		}
	}
}

// Aliases may multiply what a document says. Where it matters, what they stand for is
// counted; where it does not, they are not followed.
func TestAliasesAreBounded(t *testing.T) {
	t.Parallel()
	list := func(n int, item string) string {
		return "[" + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]"
	}
	laughs := "openapi: 3.1.0\nx-0: &a0 lol\n"
	for i := range 30 {
		laughs += fmt.Sprintf("x-%d: &a%d %s\n", i+1, i+1, list(10, fmt.Sprintf("*a%d", i)))
	}
	_, err := openapiauth.Rules([]byte(laughs+"paths: {/a: {get: {security: []}}}\n"), options{})
	require.NoError(t, err, "nobody follows them")

	for name, body := range map[string]string{
		"lists":   "x-s: &s " + list(100, "scope") + "\nx-r: &r {oidc: *s}\nx-l: &l " + list(100, "*r") + "\nx-o: &o {security: *l}\npaths:\n",
		"laughs":  "security: *a30\npaths:\n",
		"a cycle": "x-o: &o {security: &c [*c]}\npaths:\n",
	} {
		body = "openapi: 3.1.0\n" + body
		if name == "laughs" {
			body = laughs + "security: *a30\npaths:\n"
		}
		for i := range 100 {
			operation := "*o"
			if name == "laughs" {
				operation = "{}"
			}
			body += fmt.Sprintf("  /p%d: {get: %s, put: %[2]s}\n", i, operation)
		}
		_, err := openapiauth.Rules([]byte(body+"  /last: {get: {Wrong: 1}}\n"), options{})
		require.Error(t, err, name)
		if name == "lists" { // and what comes after is not read
			assert.Regexp(t, `^m2mauth: OpenAPI: line \d+: (GET|PUT) /p\d+: security\[\d+\].*: the document is too large: more than 100000 values are about paths and security, with each alias and \$ref counted as what it stands for$`, err.Error())
		}
	}

	table, err := openapiauth.Rules(document("x-o: &o {security: &s [{oauth: [&r read]}]}\npaths: {/a: {get: *o}, /b: {get: {security: *s}}, /c: {get: {security: [{oauth: [*r]}]}}}\n"), options{})
	require.NoError(t, err)
	assert.Equal(t, "GET /a → AllScopes(\"read\")\nGET /b → AllScopes(\"read\")\nGET /c → AllScopes(\"read\")", show(table))
}

// A $ref repeats what it leads to, as an alias does, and the document's security is
// repeated by each operation without its own.
func TestReferencesAreBounded(t *testing.T) {
	t.Parallel()
	scopes := "[{oidc: [" + strings.Repeat("a,", 1000) + "]}]"
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	const head = "openapi: 3.1.0\ncomponents:\n  securitySchemes: {oidc: {type: openIdConnect}}\n"
	for n, fine := range map[int]bool{40: true, 120: false} {
		for name, document := range map[string]string{
			"path items": head + "  pathItems: {i: {get: {security: " + scopes + "}}}\npaths:\n" + many(n, "  /p%d: {$ref: '#/components/pathItems/i'}\n"),
			"a default":  head + "security: " + scopes + "\npaths:\n" + many(n, "  /p%d: {get: {}}\n"),
		} {
			_, err := openapiauth.Rules([]byte(document), options{})
			if fine {
				require.NoError(t, err, name)
			} else {
				require.ErrorContains(t, err, "the document is too large: ", name)
			}
		}
	}

	chain := func(n int, end string) error {
		var b strings.Builder
		b.WriteString(head + "  parameters:\n")
		for i := range n {
			fmt.Fprintf(&b, "    p%d: {$ref: '#/components/parameters/p%d'}\n", i, i+1)
		}
		fmt.Fprintf(&b, "    p%d: %s\npaths: {/a: {get: {security: []}}}\n", n, end)
		_, err := openapiauth.Rules([]byte(b.String()), options{})
		return err
	}
	require.NoError(t, chain(10, "{name: x, in: query}"))
	require.EqualError(t, chain(11, "{name: x, in: query}"), `m2mauth: OpenAPI: line 5: components.parameters: p0: $ref: "#/components/parameters/p1" leads to a chain of more than 10`)
	require.ErrorContains(t, chain(1, "{$ref: '#/components/parameters/p0'}"), "leads to a chain of more than 10")
}

// Each of the templates with parameters shares paths with all others.
func TestTheTimeOfComparingPathsIsBounded(t *testing.T) {
	t.Parallel()
	document := func(n int) []byte {
		var b strings.Builder
		b.WriteString("openapi: 3.1.0\nsecurity: []\npaths:\n")
		for i := range n {
			fmt.Fprintf(&b, "  /p%d%s: {get: {}}\n  /{x%d}/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}/{j}: {get: {}}\n", i, strings.Repeat("/a", 10), i)
		}
		return []byte(b.String())
	}
	_, err := openapiauth.Rules(document(100), options{})
	require.NoError(t, err)
	_, err = openapiauth.Rules(document(1000), options{})
	require.ErrorContains(t, err, "so many templates share paths that comparing them all would take too long")
	assert.NotContains(t, err.Error(), "\n")
}

// A name is part of where each thing in it is, so that long ones would multiply.
func TestTheLengthOfNamesIsBounded(t *testing.T) {
	t.Parallel()
	for n, fine := range map[int]bool{250: true, 251: false} {
		_, err := openapiauth.Rules([]byte("openapi: 3.1.0\npaths: {? /"+strings.Repeat("a", n-1)+" : {get: {security: []}}}\n"), options{})
		if fine {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, "has more than 250 bytes")
			assert.Less(t, len(err.Error()), 500)
		}
	}
	for n, fine := range map[int]bool{1000: true, 1001: false} { // also of what an alias repeats
		_, err := openapiauth.Rules(operation("[{oidc: ["+strings.Repeat("a", n)+"]}]"), options{})
		if fine {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, "has more than 1000 bytes")
			assert.Less(t, len(err.Error()), 900)
		}
	}
}
