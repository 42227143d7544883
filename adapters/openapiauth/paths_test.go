package openapiauth_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/adapters/openapiauth"
)

// paths makes a document of lines such as "GET /a read", a path a line; the paths are on
// line 4 and so on.
func paths(operations ...string) []byte {
	var b strings.Builder
	b.WriteString("paths:\n")
	for _, operation := range operations {
		fields := strings.Fields(operation)
		security := "[{oauth: [" + fields[2] + "]}]"
		if fields[2] == "public" {
			security = "[]"
		}
		fmt.Fprintf(&b, "  %q: {%s: {security: %s}}\n", fields[1], strings.ToLower(fields[0]), security)
	}
	return document(b.String())
}

func TestPathsAsPatterns(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/":                         "/{$}",
		"/a":                        "/a",
		"/a/":                       "/a/{$}",
		"/a/{id}":                   "/a/{id}",
		"/a/{id}/":                  "/a/{id}/{$}",
		"/a/{product-id}/{x.y}":     "/a/{product_id}/{x_y}",
		"/{a}/{b}/{c1}/{_d}":        "/{a}/{b}/{c1}/{_d}",
		"/.well-known/x":            "/.well-known/x",
		"/a:cancel":                 "/a:cancel",
		"/A/b~c!$&'()*+,=@-._v1.2x": "/A/b~c!$&'()*+,=@-._v1.2x",
	} {
		for base, prefix := range map[string]string{"": "", "/v1": "/v1", "/a.b/v2": "/a.b/v2"} {
			table, err := openapiauth.Rules(paths("GET "+path+" read"), options{BasePath: base})
			require.NoError(t, err, path)
			row := table.Rows()[0]
			assert.Equal(t, "GET "+prefix+want, row.Pattern())
			assert.Equal(t, strings.TrimSuffix(prefix+want, "{$}"), row.Path)
			assert.NotPanics(t, func() { http.NewServeMux().HandleFunc(row.Pattern(), http.NotFound) })
		}
	}
}

// What a pattern cannot say is a mistake, and never a wider pattern.
func TestPathsThatNoPatternCanSay(t *testing.T) {
	t.Parallel()
	const whole = "a parameter must be a whole segment of the path"
	for path, want := range map[string]string{
		"/a/{x}.json":    `"{x}.json": ` + whole,
		"/a/v{x}":        `"v{x}": ` + whole,
		"/a/{x}{y}":      `"{x}{y}": ` + whole,
		"/a/{x}-{y}":     `"{x}-{y}": ` + whole,
		"/files/{path*}": `"{path*}": ` + whole,
		"/files/{x...}":  `"{x...}": ` + whole,
		"/files/{$}":     `"{$}": ` + whole,
		"/files/{+path}": `"{+path}": ` + whole,
		"/a/{;x}":        `"{;x}": ` + whole,
		"/a/{.x}":        `"{.x}": ` + whole,
		"/a{?q}":         `"a{?q}": ` + whole,
		"/a/{x:[0-9]+}":  `"{x:[0-9]+}": ` + whole,
		"/a/{}":          `"{}": ` + whole,
		"/a/{x":          `"{x": ` + whole,
		"/a/x}":          `"x}": ` + whole,
		"/a/{größe}":     `"{größe}": ` + whole,
		"/a/{x}/{x}":     `the parameter "x" occurs twice`,
		"/a/{x-y}/{x_y}": `the parameter "x_y" occurs twice`,
		"//a":            "an empty segment (//)",
		"/a//":           "an empty segment (//)",
		"/a/%7Bx":        `"{x"`,
		"/a%2Fb":         `"a%2Fb": percent-encoding`,
		"/a/..":          `"..": a segment that ends in a dot`,
		"/./a":           `".": a segment that ends in a dot`,
		"/a./b":          `"a.": a segment that ends in a dot`,
		"/a;v=1":         `"a;v=1" has a character`,
		"/a?q=1":         `"a?q=1" has a character`,
		"/a#b":           `"a#b" has a character`,
		`/a\b`:           `"a\b" has a character`,
		"/ä":             `"ä" has a character`,
	} {
		document := strings.ReplaceAll(string(paths("GET "+strings.ReplaceAll(path, `\`, `\\`)+" public")), `\\\\`, `\\`)
		if path == "/a/%7Bx" {
			want = `"%7Bx": percent-encoding`
		}
		table, err := openapiauth.Rules([]byte(document), options{})
		assert.Nil(t, table, path)
		assert.ErrorContains(t, err, "m2mauth: OpenAPI: line 4: "+path+": "+want, path)
	}
	_, err := openapiauth.Rules(document("paths: {a: {get: {security: []}}}\n"), options{})
	require.ErrorContains(t, err, `"a" is no path: a path begins with a slash`)
}

func TestStylesOfParameters(t *testing.T) {
	t.Parallel()
	with := func(where, parameter string) []byte {
		item := "{parameters: [" + parameter + "], get: {security: []}}"
		if where == "operation" {
			item = "{get: {security: [], parameters: [" + parameter + "]}}"
		}
		return []byte("openapi: 3.0.3\npaths:\n  /a/{x}: " + item + "\ncomponents: {parameters: {m: {name: x, in: path, style: matrix}, r: {$ref: '#/components/parameters/m'}}}\n")
	}
	for _, where := range []string{"item", "operation"} {
		for parameter, wrong := range map[string]string{
			"{name: x, in: path, required: true, schema: {$ref: 'other.yaml'}}": "",
			"{name: x, in: path, style: simple}":                                "",
			"{name: x, in: query, style: form}, {name: y, in: header}":          "",
			"{name: x, in: path, style: matrix}":                                "the style matrix",
			"{name: x, in: path, style: label}":                                 "the style label",
			"{$ref: '#/components/parameters/m'}":                               "the style matrix",
			"{$ref: '#/components/parameters/r'}":                               "the style matrix",
			"{$ref: '#/components/parameters/none'}":                            "leads nowhere",
			"{$ref: '#/components/parameters'}":                                 "leads nowhere, or not to a parameter",
			"{$ref: 'other.yaml#/x'}":                                           `$ref: "other.yaml#/x" is not followed`,
			"null":                                                              "not an object",
			"x":                                                                 "not an object",
		} {
			_, err := openapiauth.Rules(with(where, parameter), options{})
			if wrong == "" {
				assert.NoError(t, err, parameter)
			} else {
				assert.ErrorContains(t, err, wrong, parameter)
			}
		}
	}
}

// Bundlers write such a $ref, which leads to a parameter of another path.
func TestAParameterOfAnotherPath(t *testing.T) {
	t.Parallel()
	_, err := openapiauth.Rules([]byte("openapi: 3.0.3\npaths:\n  /a/{x}: {parameters: [{name: q, in: query}, {name: x, in: path, style: label}]}\n  /b/{x}: {get: {security: [], parameters: [{$ref: '#/paths/~1a~1%7Bx%7D/parameters/1'}]}}\n"), options{})
	require.EqualError(t, err, `m2mauth: OpenAPI: line 3: /a/{x}: the parameter "x" has the style label, which puts a semicolon or a dot before its value: no pattern of net/http can say that
m2mauth: OpenAPI: line 4: GET /b/{x}: the parameter "x" has the style label, which puts a semicolon or a dot before its value: no pattern of net/http can say that`)
}

func TestPathsThatTwoTemplatesShare(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b    string
		unclear bool
	}{
		{"GET /a/{x} read", "GET /a/{y} write", true},
		{"GET /a/{x} read", "GET /a/{y} public", true},
		{"GET /a/{x} read", "GET /a/{y} read", false}, // the same demand
		{"GET /a/{x} read", "POST /a/{y} write", false},
		{"GET /{x}/b read", "GET /a/{y} write", true},
		{"GET /{x}/b public", "GET /a/{y} public", false},
		{"GET /a/{x}/c read", "GET /{y}/b/{z} write", true},
		{"GET /a/b read", "GET /a/{x} write", false}, // the literal one wins everywhere
		{"GET /a/{x} read", "GET /{y}/{x} write", false},
		{"GET /a/{x}/b read", "GET /a/{x}/{y} write", false},
		{"GET /a read", "GET /{x} write", false},
		{"GET /a read", "GET /b write", false},
		{"GET /a/{x} read", "GET /b/{x} write", false},
		{"GET /a/{x} read", "GET /a write", false},
		{"GET /a read", "GET /a/ write", true},
		{"GET /a/{x} read", "GET /a/{x}/ write", true},
		{"GET /a/{x}/ read", "GET /a/b write", true},
		{"GET / read", "GET /{x} write", false},
		{"GET /Products read", "GET /products write", true},
		{"GET /Products read", "GET /products read", false},
		{"GET /A/{x} read", "GET /a/b write", true},
		{"GET /A/{x} read", "GET /a/{x}/b write", false},
		{"HEAD /a/{x} read", "GET /a/{y} write", true},
		{"HEAD /a/{x} read", "GET /a/b write", true},
		{"HEAD /a/{x} read", "GET /a/~b write", true},
		{"HEAD /a/b read", "GET /a/{x} write", false},
		{"HEAD /a/~b read", "GET /a/{x} write", false},
		{"HEAD /a/{x} read", "GET /a/b read", false},
		{"HEAD /a/{x} read", "POST /a/b write", false},
	} {
		for _, order := range [][]string{{test.a, test.b}, {test.b, test.a}} {
			table, err := openapiauth.Rules(paths(order...), options{})
			if !test.unclear {
				require.NoError(t, err, order)
				assert.Len(t, table.Rows(), 2)
				continue
			}
			later, earlier := strings.Fields(order[1]), strings.Fields(order[0])
			assert.EqualError(t, err, "m2mauth: OpenAPI: line 5: "+later[0]+" "+later[1]+": shares paths with "+earlier[0]+" "+earlier[1]+
				" (line 4), which requires something else, and servers differ in which of the two they take", order)
		}
	}
	_, err := openapiauth.Rules(document("paths:\n  /a:\n    get: {security: [{oauth: [read]}]}\n    head: {security: []}\n"), options{})
	require.EqualError(t, err, "m2mauth: OpenAPI: line 6: HEAD /a: shares paths with GET /a (line 5), which requires something else, and servers differ in which of the two they take")
}

func TestPathItemsWithRef(t *testing.T) {
	t.Parallel()
	const rest = `
components:
  pathItems:
    shared:
      get: {operationId: shared, security: [{oidc: [read]}]}
    "shared/get": {get: {security: []}}
    "with/slash and space": {post: {security: [{oidc: [write]}]}}
    chained: {$ref: '#/components/pathItems/shared'}
  securitySchemes: {oidc: {type: openIdConnect, openIdConnectUrl: 'https://issuer.example'}}
`
	rules := func(items string) (string, error) {
		table, err := openapiauth.Rules([]byte("openapi: 3.1.0\npaths:\n"+items+rest), options{})
		if err != nil {
			return "", err
		}
		return fmt.Sprint(show(table), " of line ", table.Rows()[0].Line), nil
	}
	got, err := rules("  /a: {$ref: '#/components/pathItems/shared'}\n")
	require.NoError(t, err)
	assert.Equal(t, `GET /a → AllScopes("read") of line 8`, got)
	got, err = rules("  /a: {summary: A, description: B, x-a: C, $ref: '#/components/pathItems/with~1slash%20and%20space'}\n")
	require.NoError(t, err)
	assert.Equal(t, `POST /a → AllScopes("write") of line 10`, got)
	got, err = rules("  /a: {$ref: '#/paths/~1b~1{x}'}\n  /b/{x}: {put: {security: [{oidc: [b]}]}}\n")
	require.NoError(t, err)
	assert.Equal(t, "PUT /a → AllScopes(\"b\")\nPUT /b/{x} → AllScopes(\"b\") of line 4", got)

	for item, want := range map[string]string{
		"{$ref: '#/components/pathItems/none'}":                                 `line 3: /a: $ref: "#/components/pathItems/none" leads nowhere`,
		"{$ref: '#/components/pathItems/shared/get'}":                           `line 3: /a: $ref: "#/components/pathItems/shared/get" leads nowhere`,
		"{$ref: '#/components/pathItems/with%2Fslash and space'}":               `line 3: /a: $ref: "#/components/pathItems/with%2Fslash and space" leads nowhere`,
		"{$ref: '#/components/pathItems/chained'}":                              `line 3: /a: $ref: "#/components/pathItems/chained" leads to another $ref`,
		"{$ref: '#/paths/~1a'}":                                                 `line 3: /a: $ref: "#/paths/~1a" leads to another $ref`,
		"{$ref: '#/components/schemas/x'}":                                      `line 3: /a: $ref: "#/components/schemas/x" is not followed`,
		"{$ref: 'other.yaml'}":                                                  `line 3: /a: $ref: "other.yaml" is not followed: it must begin with #/components/pathItems/ or #/paths/; put the parts of a document into one file`,
		"{$ref: 7}":                                                             "line 3: /a: not a string",
		"{$ref: '#/components/pathItems/shared', get: {security: []}}":          "line 3: /a: $ref: the path item has operations or parameters too",
		"{get: {security: []}, $ref: '#/components/pathItems/shared'}":          "line 3: /a: $ref: the path item has operations or parameters too",
		"{parameters: [], $ref: '#/components/pathItems/shared'}":               "line 3: /a: $ref: the path item has operations or parameters too",
		"{$ref: '#/components/pathItems/shared'}\n  /b: {$ref: '#/paths/~1a'}":  `line 4: /b: $ref: "#/paths/~1a" leads to another $ref`,
		"{$ref: '#/components/pathItems/shared'}\n  /b: {$ref: '#/paths/~1a'} ": `$ref`,
	} {
		_, err := rules("  /a: " + item + "\n")
		assert.ErrorContains(t, err, want, item)
	}
	_, err = rules("  /a: {$ref: '#/components/pathItems/shared'}\n  /b: {$ref: '#/components/pathItems/shared'}\n")
	require.ErrorContains(t, err, `its operationId "shared" is that of GET /a too`)
}
