package openapiauth_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/adapters/openapiauth"
)

type options = openapiauth.Options

// schemes stands at the end of most documents here.
const schemes = `
components:
  securitySchemes:
    oauth:
      type: oauth2
      flows:
        clientCredentials:
          tokenUrl: https://issuer.example/token
          scopes: {read: Read, write: Write}
        authorizationCode:
          authorizationUrl: https://issuer.example/authorize
          tokenUrl: https://issuer.example/token
          scopes: {admin: Everything}
    oidc: {type: openIdConnect, openIdConnectUrl: https://issuer.example/.well-known/openid-configuration}
    bearer: {type: http, scheme: Bearer}
    key: {type: apiKey, in: header, name: X-Key}
    basic: {type: http, scheme: basic}
    mtls: {type: mutualTLS}
    none: {type: oauth2, flows: {}}
    alias: {$ref: '#/components/securitySchemes/oauth'}
`

// document makes one of its paths and what else stands at the top.
func document(body string) []byte {
	return []byte("openapi: 3.1.0\ninfo: {title: Test, version: '1'}\n" + strings.TrimLeft(body, "\n") + schemes)
}

// operation is a document with one of them, whose line is 5.
func operation(security string) []byte {
	text := "paths:\n  /a:\n    get:\n      operationId: getA\n"
	if security != "" {
		text += "      security: " + security + "\n"
	}
	return document(text)
}

// show writes a table as one line for each row.
func show(table *openapiauth.Table) string {
	var lines []string
	for _, row := range table.Rows() {
		demand := row.Rule.String()
		if row.Public {
			demand = "public"
		}
		lines = append(lines, row.Pattern()+" → "+demand)
	}
	return strings.Join(lines, "\n")
}

func TestWhatSecurityBecomes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, security string
		options        options
		want           string
	}{
		{"a scope", `[{oauth: [read]}]`, options{}, `AllScopes("read")`},
		{"scopes of one scheme", `[{oauth: [write, read]}]`, options{}, `AllScopes("write", "read")`},
		{"scopes of several flows", `[{oauth: [read, admin]}]`, options{}, `AllScopes("read", "admin")`},
		{"a scheme that is a $ref", `[{alias: [read]}]`, options{}, `AllScopes("read")`},
		{"OpenID Connect declares no scopes", `[{oidc: ["urn:x:y/z"]}]`, options{}, `AllScopes("urn:x:y/z")`},
		{"alternatives", `[{oauth: [read]}, {oidc: [a, b]}]`, options{}, `AnyOf(AllScopes("read"), AllScopes("a", "b"))`},
		{"combinations", `[{oidc: [a], oauth: [read]}]`, options{}, `AllOf(AllScopes("read"), AllScopes("a"))`},
		{"both", `[{oidc: [a], oauth: [read]}, {oauth: [admin]}]`, options{}, `AnyOf(AllOf(AllScopes("read"), AllScopes("a")), AllScopes("admin"))`},
		{"an empty list", `[]`, options{}, `public`},
		{"no security, meant so", ``, options{Public: []string{"getA"}}, `public`},
		{"no security, meant so by path", ``, options{Public: []string{"GET /a"}}, `public`},
		{"{} alone, meant so", `[{}]`, options{Public: []string{"getA"}}, `public`},
		{"{} first", `[{}, {oauth: [read]}]`, options{Optional: []string{"getA"}}, `Optional(AllScopes("read"))`},
		{"{} last", `[{oauth: [read]}, {oauth: [write]}, {}]`, options{Optional: []string{"getA"}}, `Optional(AnyOf(AllScopes("read"), AllScopes("write")))`},
		{"no scopes, meant so", `[{oauth: []}]`, options{AnyToken: []string{"getA"}}, `AnyToken()`},
		{"no scopes of OpenID Connect, meant so", `[{oidc: []}]`, options{AnyToken: []string{"getA"}}, `AnyToken()`},
		{"bearer, meant so", `[{bearer: []}]`, options{AnyToken: []string{"getA"}}, `AnyToken()`},
		{"bearer and scopes", `[{bearer: [], oauth: [read]}]`, options{AnyToken: []string{"getA"}}, `AllOf(AnyToken(), AllScopes("read"))`},
		{"a key, checked elsewhere", `[{key: []}]`, options{Elsewhere: []string{"getA"}}, `public`},
		{"basic and certificates, checked elsewhere", `[{basic: [], mtls: []}]`, options{Elsewhere: []string{"getA"}}, `public`},
		{"a key with a token", `[{key: [], oauth: [read]}]`, options{Elsewhere: []string{"getA"}}, `AllScopes("read")`},
		{"a key or a token", `[{key: []}, {oauth: [read]}]`, options{Elsewhere: []string{"getA"}}, `Optional(AllScopes("read"))`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			table, err := openapiauth.Rules(operation(test.security), test.options)
			require.NoError(t, err)
			assert.Equal(t, "GET /a → "+test.want, show(table))
			row := table.Rows()[0]
			assert.Equal(t, "getA", row.OperationID)
			assert.Equal(t, 5, row.Line)
			if row.Public {
				assert.Equal(t, []string{"GET /a"}, table.Public())
				assert.Empty(t, table.Rules())
				assert.Equal(t, "Rule{}", row.Rule.String())
			} else {
				assert.Empty(t, table.Public())
				assert.Len(t, table.Rules(), 1)
			}
		})
	}
}

func TestTheDefaultOfTheDocument(t *testing.T) {
	t.Parallel()
	paths := `
paths:
  /own: {get: {security: [{oauth: [write]}]}}
  /open: {get: {security: []}}
  /default: {get: {}, head: {}, options: {}, trace: {}, patch: {}, put: {}, post: {}, delete: {}}
`
	table, err := openapiauth.Rules(document(paths+"security: [{oauth: [read]}]"), options{BasePath: "/v1"})
	require.NoError(t, err)
	const read = ` → AllScopes("read")`
	assert.Equal(t, "DELETE /v1/default"+read+"\nGET /v1/default"+read+"\nHEAD /v1/default"+read+"\nOPTIONS /v1/default"+read+
		"\nPATCH /v1/default"+read+"\nPOST /v1/default"+read+"\nPUT /v1/default"+read+"\nTRACE /v1/default"+read+
		"\nGET /v1/open → public\nGET /v1/own → AllScopes(\"write\")", show(table))

	table, err = openapiauth.Rules(document("paths: {/a: {get: {}}}\nsecurity: []"), options{})
	require.NoError(t, err)
	assert.Equal(t, "GET /a → public", show(table), "the document says so")
}

// Each mistake is alone in its document, whose operation is on line 5.
func TestMistakes(t *testing.T) {
	t.Parallel()
	const place = "m2mauth: OpenAPI: line 7: GET /a: security"
	const elsewhere = "m2mauth: OpenAPI: line 3: GET /a: security[0]: odd: "
	typed := func(scheme string) []byte { // beside a key, for which the operation is in Elsewhere
		return []byte("openapi: 3.1.0\npaths: {/a: {get: {operationId: getA,\n security: [{odd: [], key: []}]}}}\ncomponents: {securitySchemes: {key: {type: apiKey}, odd: " + scheme + "}}\n")
	}
	for _, test := range []struct {
		name     string
		document []byte
		options  options
		want     string
	}{
		{"no security", operation(""), options{}, "m2mauth: OpenAPI: line 5: GET /a: it has no security, and the document has none either: add it, write security: [] to make it public, or name it in Options.Public"},
		{"no scopes", operation(`[{oauth: []}]`), options{}, place + "[0]: oauth: no scope: any valid token would do, which is no permission: name scopes, or the operation in Options.AnyToken"},
		{"no scopes in one of two", operation(`[{oauth: [read]}, {oidc: []}]`), options{}, place + "[1]: oidc: no scope: any valid token would do, which is no permission: name scopes, or the operation in Options.AnyToken"},
		{"{} among others", operation(`[{oauth: [read]}, {}]`), options{}, place + "[1]: {} lets requests without credentials through: take it out, or name the operation in Options.Optional"},
		{"{} alone", operation(`[{}]`), options{}, place + "[0]: {} lets requests without credentials through: take it out, or name the operation in Options.Public"},
		{"{} alone is not optional", operation(`[{}]`), options{Optional: []string{"getA"}}, "m2mauth: OpenAPI: Options.Optional: \"getA\" does not need it: the document has nothing of that kind there\n" + place + "[0]: {} lets requests without credentials through: take it out, or name the operation in Options.Public"},
		{"a key", operation(`[{key: []}]`), options{}, place + `[0]: key: a token cannot meet a scheme of the type "apiKey": if something else checks it, name the operation in Options.Elsewhere`},
		{"basic", operation(`[{basic: []}]`), options{}, place + `[0]: basic: a token cannot meet a scheme of the type http, scheme basic: if something else checks it, name the operation in Options.Elsewhere`},
		{"certificates", operation(`[{mtls: []}]`), options{}, place + `[0]: mtls: a token cannot meet a scheme of the type "mutualTLS": if something else checks it, name the operation in Options.Elsewhere`},
		{"bearer", operation(`[{bearer: []}]`), options{}, place + "[0]: bearer: no scope: any valid token would do, which is no permission: name scopes, or the operation in Options.AnyToken"},
		{"bearer with roles", operation(`[{bearer: [read]}]`), options{}, place + `[0]: bearer: "read": bearer tokens of type http have no scopes: declare the scheme as oauth2 or openIdConnect`},
		{"a type that there is not", typed(`{type: OAuth2, flows: {}}`), options{Elsewhere: []string{"getA"}}, elsewhere + `the scheme has the type "OAuth2", which OpenAPI does not have`},
		{"no type", typed(`{}`), options{Elsewhere: []string{"getA"}}, elsewhere + `the scheme has the type "", which OpenAPI does not have`},
		{"http without its scheme", typed(`{type: http}`), options{Elsewhere: []string{"getA"}}, elsewhere + `"" is no authentication scheme of HTTP (RFC 9110 §11.1)`},
		{"http with nearly bearer", typed(`{type: http, scheme: 'bearer '}`), options{Elsewhere: []string{"getA"}}, elsewhere + `"bearer " is no authentication scheme of HTTP (RFC 9110 §11.1)`},
		{"an unknown scheme", operation(`[{oath: [read]}]`), options{}, place + "[0]: oath: there is no such scheme in components.securitySchemes"},
		{"a scheme that is its own $ref", typed(`{$ref: '#/components/securitySchemes/odd'}`), options{Elsewhere: []string{"getA"}}, "m2mauth: OpenAPI: line 4: components.securitySchemes: odd: $ref: \"#/components/securitySchemes/odd\" leads to a chain of more than 10"},
		{"a scheme whose $ref leads nowhere", typed(`{$ref: '#/components/securitySchemes/even'}`), options{}, "m2mauth: OpenAPI: line 4: components.securitySchemes: odd: $ref: \"#/components/securitySchemes/even\" leads nowhere, or not to a parameter or a security scheme"},
		{"an operationId that reads as another operation", document("paths:\n  /a: {get: {operationId: GET /b, security: []}}\n  /b: {get: {security: []}}\n"), options{}, "m2mauth: OpenAPI: line 4: GET /a: its operationId is the method and path of another operation"},
		{"a scope that is not declared", operation(`[{oauth: [raed]}]`), options{}, place + `[0]: oauth: the scope "raed" is in no flow of the scheme`},
		{"a scope in another letter case", operation(`[{oauth: [Read]}]`), options{}, place + `[0]: oauth: the scope "Read" is in no flow of the scheme`},
		{"a scheme without flows", operation(`[{none: [read]}]`), options{}, place + `[0]: none: the scope "read" is in no flow of the scheme`},
		{"two scopes in one", operation(`[{oidc: [read write]}]`), options{}, place + `[0]: oidc: "read write" cannot be a scope (RFC 6749 §3.3): write each scope as an entry of its own`},
		{"an empty scope", operation(`[{oidc: ['']}]`), options{}, place + `[0]: oidc: "" cannot be a scope (RFC 6749 §3.3): write each scope as an entry of its own`},
		{"a scope that is not ASCII", operation(`[{oidc: [löschen]}]`), options{}, place + `[0]: oidc: "löschen" cannot be a scope (RFC 6749 §3.3): write each scope as an entry of its own`},
		{"a number as a scope", operation(`[{oidc: [1]}]`), options{}, "m2mauth: OpenAPI: line 7: GET /a: security[0]: oidc[0]: not a string\n" + place + `[0]: oidc: "" cannot be a scope (RFC 6749 §3.3): write each scope as an entry of its own`},
		{"security is null", operation(`null`), options{}, "m2mauth: OpenAPI: line 7: GET /a: security: not a list"},
		{"security is a list that says it is null", operation(`!!null []`), options{}, "m2mauth: OpenAPI: line 7: GET /a: security: not a list"},
		{"an alternative with a tag", operation(`[!private {oauth: [read]}]`), options{}, "m2mauth: OpenAPI: line 7: GET /a: security[0]: not an object\n" + place + "[0]: {} lets requests without credentials through: take it out, or name the operation in Options.Public"},
		{"security is an object", operation(`{oauth: [read]}`), options{}, "m2mauth: OpenAPI: line 7: GET /a: security: not a list"},
		{"scopes are null", operation(`[{oauth: }]`), options{}, place + "[0]: oauth: no scope: any valid token would do, which is no permission: name scopes, or the operation in Options.AnyToken\n" + place + "[0]: oauth: not a list"},
		{"a scope as text", operation(`[{oauth: read}]`), options{}, place + "[0]: oauth: no scope: any valid token would do, which is no permission: name scopes, or the operation in Options.AnyToken\n" + place + "[0]: oauth: not a list"},
		{"a name that is twice in an object", document("paths:\n  /a:\n    get:\n      security: [{oauth: [read]}]\n      security: []\n"), options{}, `m2mauth: OpenAPI: line 7: GET /a: "security" occurs twice`},
		{"a field that there is not", document("paths:\n  /a:\n    get:\n      security: [{oauth: [read]}]\n      Security: []\n"), options{}, `m2mauth: OpenAPI: line 7: GET /a: "Security" is no field of an operation of OpenAPI 3.0 or 3.1`},
		{"a method that there is not", document("paths:\n  /a:\n    get: {security: [{oauth: [read]}]}\n    GET: {}\n"), options{}, `m2mauth: OpenAPI: line 6: /a: "GET" is no field of a path item of OpenAPI 3.0 or 3.1`},
		{"QUERY of 3.2", document("paths:\n  /a:\n    get: {security: [{oauth: [read]}]}\n    query: {}\n"), options{}, `m2mauth: OpenAPI: line 6: /a: "query" is no field of a path item of OpenAPI 3.0 or 3.1`},
		{"a field of the document that there is not", document("paths: {/a: {get: {security: []}}}\nbasePath: /v1\n"), options{}, `m2mauth: OpenAPI: line 4: "basePath" is no field of an OpenAPI 3 document`},
		{"no paths", document(""), options{}, "m2mauth: OpenAPI: the document has no operations: a table of it would refuse everything"},
		{"a merge", document("x-b: &b {security: []}\npaths:\n  /a:\n    get:\n      <<: *b\n"), options{}, "m2mauth: OpenAPI: line 7: GET /a: a merge (<<) or a name that is not a string is not read here: write the fields out\nm2mauth: OpenAPI: line 6: GET /a: it has no security, and the document has none either: add it, write security: [] to make it public, or name it in Options.Public"},
		{"an operationId that is there twice", document("paths:\n  /a: {get: {operationId: x, security: []}}\n  /b: {get: {operationId: x, security: []}}\n"), options{}, `m2mauth: OpenAPI: line 5: GET /b: its operationId "x" is that of GET /a too`},
		{"an operation that there is not", operation(`[{oauth: [read]}]`), options{Public: []string{"getB"}}, `m2mauth: OpenAPI: Options.Public: "getB" is no operation of the document: write an operationId, or a method and a path as the document has them`},
		{"an operation that does not need it", operation(`[{oauth: [read]}]`), options{Public: []string{"getA"}}, `m2mauth: OpenAPI: Options.Public: "getA" does not need it: the document has nothing of that kind there`},
		{"an operation that is public by itself", operation(`[]`), options{Public: []string{"getA"}}, `m2mauth: OpenAPI: Options.Public: "getA" does not need it: the document has nothing of that kind there`},
		{"an operation that is named twice", operation(""), options{Public: []string{"getA", "GET /a"}}, `m2mauth: OpenAPI: Options.Public: "GET /a" is there twice`},
		{"a base path with a slash at its end", operation(`[]`), options{BasePath: "/v1/"}, `m2mauth: OpenAPI: Options.BasePath: "/v1/": write it without parameters and without a slash at its end, such as /v1`},
		{"a base path with a parameter", operation(`[]`), options{BasePath: "/{v}"}, `m2mauth: OpenAPI: Options.BasePath: "/{v}": write it without parameters and without a slash at its end, such as /v1`},
		{"a URL as a base path", operation(`[]`), options{BasePath: "https://api.example/v1"}, `m2mauth: OpenAPI: Options.BasePath: "https://api.example/v1": a path begins with a slash`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			table, err := openapiauth.Rules(test.document, test.options)
			assert.Nil(t, table)
			require.Error(t, err)
			want := strings.Split(test.want, "\n")
			got := strings.Split(err.Error(), "\n")
			slices.Sort(want)
			slices.Sort(got)
			assert.Equal(t, want, got)
			var mistake *openapiauth.Mistake
			require.ErrorAs(t, err, &mistake)
		})
	}
}

// All mistakes of a document come at once, in the order of its lines.
func TestMistakesAreReportedTogether(t *testing.T) {
	t.Parallel()
	_, err := openapiauth.Rules([]byte(`openapi: 3.0.3
info: {title: Test, version: '1'}
paths:
  /a:
    get: {}
    post:
      security:
        - oauth: []
        - {}
        - key: []
  /b: {$ref: 'other.yaml#/b'}
  /files/{path*}:
    get: {security: [{oauth: [nothing]}]}
components:
  securitySchemes:
    oauth: {type: oauth2, flows: {clientCredentials: {tokenUrl: 'https://x', scopes: {read: ''}}}}
    key: {type: apiKey, in: query, name: k}
`), options{Public: []string{"nobody"}})
	require.Error(t, err)
	var lines []string
	for line := range strings.Lines(err.Error()) {
		lines = append(lines, strings.SplitN(strings.TrimPrefix(line, "m2mauth: OpenAPI: "), ": ", 3)[0]+" "+strings.SplitN(line, ": ", 5)[3])
	}
	assert.Equal(t, []string{"Options.Public \"nobody\" is no operation of the document", "line 5 GET /a", "line 8 POST /a", "line 9 POST /a", "line 10 POST /a", "line 11 /b", "line 12 /files/{path*}", "line 13 GET /files/{path*}"}, lines)

	var list []error
	if joined, ok := err.(interface{ Unwrap() []error }); assert.True(t, ok) {
		list = joined.Unwrap()
	}
	assert.Len(t, list, 8)
	assert.Equal(t, "POST /a: security[1]", list[3].(*openapiauth.Mistake).Place)
}

func TestTheNumberOfMistakesIsBounded(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("openapi: 3.1.0\npaths:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "  /p%d: {get: {}}\n", i)
	}
	_, err := openapiauth.Rules([]byte(b.String()), options{})
	require.ErrorContains(t, err, "m2mauth: OpenAPI: and at least 800 more mistakes")
	assert.Len(t, strings.Split(err.Error(), "\n"), 201)

	b.Reset()
	b.WriteString("paths:\n")
	for i := range 300 {
		fmt.Fprintf(&b, "  /{x}/p%d: {get: {security: [{oauth: [read]}]}}\n  /p/{x%d}: {get: {security: []}}\n", i, i)
	}
	_, err = openapiauth.Rules(document(b.String()), options{})
	require.ErrorContains(t, err, "m2mauth: OpenAPI: and at least 1 more mistakes", "nobody counts what every pair is")
	assert.Len(t, strings.Split(err.Error(), "\n"), 201)
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for version, fine := range map[string]bool{
		"3.0.0": true, "3.0.4": true, "3.1.0": true, "3.1.2": true, "3.1": true, "'3.0'": true,
		"3.2.0": false, "2.0": false, "4.0.0": false, "3": false, "3.1.0-rc1": false, "''": false, "[3.1.0]": false, "3.10.0": false,
	} {
		_, err := openapiauth.Rules([]byte("openapi: "+version+"\npaths: {/a: {get: {security: []}}}\n"), options{})
		if fine {
			assert.NoError(t, err, version)
		} else {
			assert.ErrorContains(t, err, "line 1: openapi: ", version)
		}
	}
	_, err := openapiauth.Rules([]byte("swagger: '2.0'\npaths: {/a: {get: {security: []}}}\n"), options{})
	require.ErrorContains(t, err, "no openapi: only documents of OpenAPI 3.0 and 3.1 are read")
}
